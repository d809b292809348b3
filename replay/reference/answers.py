# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay takes from the recording and does not judge, and what no recorded event shows.

A replay does not notice when a kernel decides one of these wrongly: a verdict counts them, and ``--coverage`` lists
them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from model.effects import DECISIONS

__all__ = ["UNSEEN", "Unseen", "sentence", "taken", "unseen"]


class Unseen(NamedTuple):
    """Something that a kernel does and that a recording can hold only where ``columns`` of ``event`` were captured.

    Without ``columns`` no probe of the recorder shows it.
    """

    what: str
    event: str
    columns: tuple[str, ...] = ()


#: What nothing in a recording shows, by the event it belongs to.
UNSEEN: Final = (
    Unseen("whether zswap_load() marks the folio up to date and dirty", "zswap_load_ret", ("word",)),
    Unseen("whether a folio that is written back is marked up to date and for reclaim", "__swap_writepage",
           ("word",)),
    Unseen("how zswap_shrinker_count() computes its number (its fraction, disk swap-ins)", "zswap_shrinker_count_ret"),
    Unseen("gfp flags and node of an allocation", "zs_malloc"),
    Unseen("references on pools, and when the last one ends a pool", "zswap_store"),
)


def taken(asked: Iterable[str]) -> list[str]:
    """Return what the answers to questions of the model decided: one sentence each, in the order of their table.

    :param asked: names of the questions that were answered from recorded events
    """
    names = set(asked)
    return [what for question, what in DECISIONS.items() if question in names]


def unseen(columns_of: Mapping[str, Collection[str]], captured: Collection[str]) -> list[str]:
    """Return what the kernel does that a recording's probes cannot see.

    :param columns_of: event -> columns that were captured of it
    :param captured: events that were probed
    """
    return [each.what for each in UNSEEN if each.event in captured
            and (not each.columns or not set(each.columns) <= set(columns_of.get(each.event, ())))]


def sentence(decided: Collection[str], hidden: Collection[str]) -> str:
    """Return in one line how many there are."""
    return (f"taken from the recording and not judged: {len(decided)} kinds of decision; in no recorded event: "
            f"{len(hidden)} kinds of effect")
