# SPDX-License-Identifier: GPL-2.0-or-later
"""Every comparison of an event's columns, of the table of events: which event, under which check, which columns.

The handlers (:mod:`replay.reference.handlers.zswap` and its siblings) name a comparison by its key and give both sides;
which of its columns the recorded probe captured is decided here, once for a recording.  A column that was not captured
holds 0 in a recording, which is not a value: it is never compared, and a comparison of which no column was captured
does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from model.effects import Effect
from traces.events import EVENTS, Compared

__all__ = ["COMPARISONS", "Held", "checks_of", "compared_columns", "held_for", "missing_columns",
           "predicted_by"]


#: key -> row of the table of events.  A value that is made of several columns (``folio`` and ``offset``: the page)
#: names the one that it is nothing without.
COMPARISONS: Final[dict[str, Compared]] = {row.key: row for event in EVENTS for row in event.compared}
#: zs_obj_write's comparisons count for the check of pages kept as they are where that is what was written.
_ALSO: Final = {"zs_obj_write": "store.raw"}


class Held:
    """A row of :data:`COMPARISONS` as one recording allows it.

    ``seen``: per column, whether it was captured; ``whole``: all were; ``some``: any was; ``counts``: it is this one
    that counts for its event and check.
    """

    __slots__ = ("check", "columns", "comparison", "counts", "seen", "some", "whole")

    def __init__(self, comparison: Compared, captured: frozenset[str], counts: bool) -> None:
        self.comparison = comparison
        self.check = comparison.check
        self.columns = tuple(column for column, _ in comparison.columns)
        self.seen = tuple(column in captured for column in self.columns)
        self.whole, self.some = all(self.seen), any(self.seen)
        self.counts = counts

    def what(self, kept: Iterable[bool]) -> str:
        """Return what is compared in words, of the columns that are kept."""
        words = [words for (_, words), keep in zip(self.comparison.columns, kept, strict=True) if keep]
        about = f" {self.comparison.about}" if self.comparison.about else ""
        return f"({', '.join(words)}){about}" if len(words) > 1 else f"{words[0]}{about}"


def held_for(columns_of: Mapping[str, frozenset[str]]) -> dict[str, Held]:
    """Return all comparisons as probes with these columns allow them.

    Where nothing of the comparison that counts was captured, the next one of its event and check counts.
    """
    out = {}
    #: (event, check) that count, and that nothing counts for yet
    open_groups = {(comparison.event, comparison.check) for comparison in COMPARISONS.values() if comparison.counts}
    for key, comparison in COMPARISONS.items():
        captured = columns_of.get(comparison.event, frozenset())
        some = any(column in captured for column, _ in comparison.columns)
        group = (comparison.event, comparison.check)
        counts = some and (comparison.counts or group in open_groups)
        if counts:
            open_groups.discard(group)
        out[key] = Held(comparison, captured, counts)
    return out


def predicted_by(place: str) -> Callable[[Effect], tuple[Any, ...]]:
    """Return how a prediction is taken from an effect: its item, as a number, or an attribute of that item.

    :param place: :attr:`traces.events.Compared.predicted`, not empty
    """
    item, _, attribute = place.partition(".")
    number = int(item)
    if attribute:
        return lambda effect: (getattr(effect[number], attribute),)
    return lambda effect: (int(effect[number]),)


def checks_of(comparison: Compared) -> tuple[str, ...]:
    """Return the checks that a comparison is made under."""
    return (comparison.check, _ALSO[comparison.event]) if comparison.event in _ALSO else (comparison.check,)


def compared_columns() -> Iterator[tuple[str, str, str]]:
    """Yield (event, column, check) of everything that a replay compares."""
    for comparison in COMPARISONS.values():
        for check in checks_of(comparison):
            for column, _ in comparison.columns:
                yield comparison.event, column, check


def missing_columns(check: str, columns_of: Mapping[str, frozenset[str]]) -> list[tuple[str, str]]:
    """Return the (event, column) that a check compares and that probes did not capture, of events that were probed."""
    found = dict.fromkeys((event, column) for event, column, compared in compared_columns() if compared == check
                          and event in columns_of and column not in columns_of[event])
    return list(found)
