# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording's probes leave open: events that were not probed, or lack the column that identifies them.

What was not captured is not zero.  There are four kinds:

* A column that is only compared: that comparison is not made (:mod:`replay.reference.comparisons`).
* A column, or an event, from which the model takes an answer: another event of the operation gives it, or the model's
  own prediction is taken, or the replay stops there (:mod:`replay.reference.questions`, ``CannotFollow``).  An event
  that says nothing without its column is taken as not probed (:data:`NEEDED_COLUMNS`).
* An event with which an operation begins (:data:`UNSEEN`): the model's state may be out of date from an unknown moment
  on.  Its predictions are still compared: a value that agrees is confirmed.  A value that differs need not be the
  kernel's doing, so no such difference is a FAIL.
* An event of which only the order among tasks is learnt (taking and giving back objects): the same.

A difference that follows from an operation's own events alone (:attr:`replay.reference.checks.Check.own`) is not
affected: no event that went unseen can explain it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from traces.events import EVENTS

__all__ = ["COUNTED_BY", "ESSENTIAL", "HOW_TO_RECORD", "NEEDED_COLUMNS", "STRAY", "UNSEEN", "Uncaptured", "seen_only"]

#: Columns without which an event does not show what the model has to know from it; it is passed over then.
NEEDED_COLUMNS: Final[dict[str, tuple[str, ...]]] = {event.name: event.essential for event in EVENTS if event.essential}
#: Any of these events begins an operation, or says in which order tasks got at a thing; what goes unseen without them.
UNSEEN: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("swap_writeout", "zswap_store"), "pages are stored unseen"),
    (("zswap_load",), "entries are loaded, and end, unseen"),
    (("zswap_invalidate",), "entries of slots that are freed end unseen"),
    # zs_compact() is inlined where zs_shrinker_scan() calls it: that it was probed says nothing.
    (("zs_shrinker_scan",), "compaction moves objects unseen"),
    (("zswap_shrinker_scan",), "the shrinker writes entries back unseen"),
    (("shrink_memcg",), "entries are written back unseen"),
    (("obj_malloc", "obj_malloc_ret"), "in which order tasks take objects is not known"),
    (("obj_free", "fix_fullness_group", "fix_fullness_group_ret"),
     "in which order tasks give objects back is not known"),
)
#: Without any of a group's events nothing that zswap holds can be followed.
ESSENTIAL: Final[tuple[tuple[str, ...], ...]] = (("swap_writeout", "zswap_store"), ("zswap_load",),
                                                 ("zswap_invalidate",))
#: Event that was not probed -> what its operation shows outside of everything else, and changes nothing.
STRAY: Final[dict[str, tuple[str, ...]]] = {
    "swap_writeout": ("swap_writeout_ret", "__swap_writepage", "mem_cgroup_zswap_writeback_enabled_ret"),
    "zs_shrinker_scan": ("zs_shrinker_scan_ret",),
    "zs_compact": ("zs_compact_ret",),
    "shrink_worker": ("shrink_worker_ret",),
}
#: Beginning of a counter's name -> event and column that it counts by ("": the event itself says when): not compared
#: where that was not captured.
COUNTED_BY: Final[tuple[tuple[str, str, str], ...]] = (
    ("vmstat.pswpout", "swap_writeout", "order"),
    ("vmstat.swpout_zero", "swap_writeout", "order"),
    ("memcg.swpout_zero", "swap_writeout", "order"),
    # Without the return only the task's next event shows that nothing was stored, and a snapshot may come before it.
    ("vmstat.swpout_zero", "swap_writeout_ret", ""),
    ("memcg.swpout_zero", "swap_writeout_ret", ""),
    ("mthp.", "swap_writeout", "order"),
    ("memcg.", "obj_cgroup_charge_zswap", "memcg"),
)
HOW_TO_RECORD: Final = "'zreplay record --plan' lists the probes and their fields"


def seen_only(manifest: Mapping[str, Any]) -> bool:
    """True where a recording names only the events that occurred: one that is missing may have been probed.

    Text says nothing of probes that were not hit; rings and trace.dat have the formats of all.
    """
    source = manifest["source"]
    while isinstance(source.get("original"), dict):
        source = source["original"]
    return source.get("importer") in ("text", "perftext", "bpftrace")


class Uncaptured:
    """What one recording's probes leave open.

    :param columns_of: event -> columns that its probe captured
    :param lru_address: of zswap's LRU, 0 where no symbol has it
    :param seen_only: an event that is not among them may have been probed and never hit
    """

    def __init__(self, columns_of: Mapping[str, frozenset[str]], lru_address: int, *, seen_only: bool = False) -> None:
        self._absent = "occurs nowhere, and text does not say what was probed" if seen_only else "was not probed"
        self._columns_of = columns_of
        #: event -> the columns it lacks to be of any use
        self.useless = {name: lacks for name, columns in NEEDED_COLUMNS.items() if name in columns_of
                        and (lacks := tuple(column for column in columns if column not in columns_of[name]))}
        whole = "swap_writeout" in columns_of and "swap_writeout" not in self.useless
        if "zswap_store" in columns_of and not whole:
            lacks = tuple(column for column in ("swpent", "order") if column not in columns_of["zswap_store"])
            if lacks:
                self.useless["zswap_store"] = lacks
        if "list_lru_add" not in columns_of or "list_lru_add" in self.useless:
            # Of any LRU of the system: a return, or a removal, is zswap's only where an addition said so.
            for name in ("list_lru_add_ret", *(() if lru_address else ("list_lru_del",))):
                if name in columns_of:
                    self.useless.setdefault(name, ())
        #: events from which the model takes what it needs
        self.captured = frozenset(columns_of) - self.useless.keys()
        #: events that belong to operations whose beginning was not captured, and change nothing
        self.stray = frozenset(name for start, names in STRAY.items() if start not in self.captured for name in names)

    def lacking(self, name: str) -> str:
        """Return in words what is missing of an event, ``""`` for nothing."""
        if name in self.captured:
            return ""
        lacks = self.useless.get(name)
        return f"{name} has no {' and no '.join(lacks)}" if lacks else f"{name} {self._absent}"

    def open(self) -> list[str]:
        """Return what may happen unseen, a sentence each: differences that follow are not surely the kernel's."""
        return [f"{' and '.join(self.lacking(name) for name in names)}: {what}" for names, what in UNSEEN
                if not self.captured & set(names)]

    def uncounted(self) -> dict[str, str]:
        """Return beginnings of the names of counters that cannot be predicted, and why."""
        return {counter: self.lacking(name) or f"{name} has no {column}" for counter, name, column in COUNTED_BY
                if name not in self.captured or (column and column not in self._columns_of[name])}

    def essential(self) -> list[str]:
        """Return what is missing so that nothing zswap holds can be followed, a sentence each."""
        return [f"{' and '.join(self.lacking(name) for name in names)}: {what}; {HOW_TO_RECORD}"
                for names, what in UNSEEN if names in ESSENTIAL and not self.captured & set(names)]
