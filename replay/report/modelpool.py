# SPDX-License-Identifier: GPL-2.0-or-later
"""How the model's pool stands over a replay: its pages event by event, its size classes at snapshots.

The engine that judges runs once more and is watched; nothing here is compared with anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from model.zswap import Zswap
from replay.reference.checks import Tally
from replay.reference.engine import Engine, LostEvents
from replay.reference.state import CannotFollow
from replay.report.recordingdata import times_of
from replay.userrev.guard import guarded
from replay.verdict.setup import open_engine
from traces.recording import Recording

__all__ = ["Course", "course"]

#: Progress is reported this often, in events.
_OFTEN: Final = 1 << 14


@dataclass(frozen=True)
class Course:
    """The model's pool over time.

    ``ts`` (ns) and ``pages``: the pools' pages from each time on; ``classes``: snapshot's number, or -1 for where the
    replay ended, -> class -> obj_allocated, obj_used, pages_used; ``end``: number of the event it got to, ``ended``:
    why no further, in words; ``geometry``: class -> (object size in bytes, pages of a zspage).
    """

    ts: np.ndarray
    pages: np.ndarray
    classes: dict[int, dict[int, dict[str, int]]] = field(default_factory=dict)
    end: int = 0
    ended: str = ""
    geometry: dict[int, tuple[int, int]] = field(default_factory=dict)


def course(recording: Recording, revision: str | type[Zswap], snapshots: Iterable[tuple[int, int]], stop: int,
           progress: Callable[[str, int, int], None] | None = None) -> Course:
    """Replay a recording as far as it was replayed, at most to its first divergence, and return how the pool stood.

    :param snapshots: (number, event) of those at which size classes are looked at
    :param stop: how many events were replayed
    :param progress: called with (what, events done, events in all)
    :raises BadInput: when the recording, or a user's revision, makes no replay possible
    """
    with guarded([revision], recording.path):
        return _course(recording, revision, snapshots, stop, progress)


def _course(recording: Recording, revision: str | type[Zswap], snapshots: Iterable[tuple[int, int]], stop: int,
            progress: Callable[[str, int, int], None] | None) -> Course:
    total = len(recording)
    tally = Tally()
    engine, _, _ = open_engine(recording, revision, tally, pages=False)
    model = engine.state.model
    changes: list[tuple[int, int]] = []
    first = model.total_pages()
    inform = model.total_observer

    def watch() -> None:
        # Called before a change: what stood until then.
        changes.append((engine.batch.now, model.total_pages()))
        if inform is not None:
            inform()

    model.total_observer = watch
    wanted = {event: number for number, event in snapshots if event >= 0}
    classes: dict[int, dict[int, dict[str, int]]] = {}
    ended, at = "", -1
    try:
        for event in engine.each():
            if at in wanted:
                classes[wanted[at]] = _classes(model)
            if event >= stop:
                ended = f"the replay ended after event {at:,}"
            if tally.divergences or ended:
                break
            at = event
            if progress is not None and not event % _OFTEN:
                progress("predicting", event, total)
    except LostEvents as lost:
        ended = f"events were lost before event {lost.args[0]:,}"
    except CannotFollow as stopped:
        ended = f"{stopped}: nothing from event {engine.batch.now:,} on was predicted"
    except Exception as problem:
        if type(model).__module__.startswith("model."):
            raise
        # The revision is the user's; its replay has reported the same.
        ended = f"the revision failed at event {engine.batch.now:,} ({type(problem).__name__})"
    if tally.divergences:
        ended = f"the replay diverged at event {tally.divergences[0].event:,}"
    elif not ended and at in wanted:
        classes[wanted[at]] = _classes(model)
    classes[-1] = _classes(model)
    return _made(recording, engine, changes, first, classes, ended)


def _made(recording: Recording, engine: Engine, changes: list[tuple[int, int]], first: int,
          classes: dict[int, dict[int, dict[str, int]]], ended: str) -> Course:
    """Return the course of a replay that is over."""
    model = engine.state.model
    end = engine.batch.now
    # What stood before a change stood since the one before it.
    pages = [first, *(before for _, before in changes[1:]), *([model.total_pages()] if changes else [])]
    events = np.array([0, *(event for event, _ in changes), end], np.int64)
    ts = times_of(recording, events)
    geometry = {cls.geometry.index: (cls.geometry.size, cls.geometry.pages_per_zspage)
                for cls in model.pools[0].zs_pool.classes}
    return Course(ts, np.array([*pages, pages[-1]], np.int64), classes, end, ended, geometry)


def _classes(model: Zswap) -> dict[int, dict[str, int]]:
    """Return the size classes of all pools that hold anything, as debugfs counts them."""
    out: dict[int, dict[str, int]] = {}
    for pool in model.pools:
        for cls in pool.zs_pool.classes:
            if cls.objs_allocated:
                geometry = cls.geometry
                mine = out.setdefault(geometry.index, {"obj_allocated": 0, "obj_used": 0, "pages_used": 0})
                mine["obj_allocated"] += cls.objs_allocated
                mine["obj_used"] += cls.objs_inuse
                mine["pages_used"] += cls.objs_allocated // geometry.objs_per_zspage * geometry.pages_per_zspage
    return out
