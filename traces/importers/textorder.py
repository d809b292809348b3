# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of a text's events: files of several CPUs, put one after the other, are merged by time.

The kernel prints ``trace`` in the order of time, and each CPU's ``per_cpu/cpuN/trace`` for itself.  ``cat`` of the
latter goes back in time wherever the next CPU begins.  Within a CPU time never runs backwards: where it does, the
text is of several runs or damaged, and no order is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from traces import schema
from traces.block import Block
from traces.importers.merge import interleave
from traces.importers.source import RunFacts

__all__ = ["HELD_ROWS", "in_order"]

#: Rows that wait in memory for an earlier one (about 100 MB); a text of more than that is not put in order.
HELD_ROWS: Final = 1 << 20


class _Clock:
    """The last stamp of all events so far and of each CPU's, in ns."""

    def __init__(self) -> None:
        self._last = -1
        self._of_cpu: dict[int, int] = {}
        #: (stamp, the earlier one after it) where time first ran backwards, and CPU, stamp and next on one CPU
        self.back: tuple[int, int] | None = None
        self.own: tuple[int, int, int] | None = None

    def add(self, block: Block) -> None:
        """Look at a block's stamps; the marks for lost events are at no time of their own."""
        some = block.event != schema.CODE["lost_events"]
        ts, cpu = block.ts[some], block.cpu[some]
        if not ts.size:
            return
        found = _first_back(ts, self._last)
        if self.back is None:
            self.back = found
        self._last = max(self._last, int(ts[-1]))
        for number in np.unique(cpu).tolist():
            own = ts[cpu == number]
            if self.own is None and (found := _first_back(own, self._of_cpu.get(number, -1))) is not None:
                self.own = (number, *found)
            self._of_cpu[number] = int(own[-1])


def _first_back(ts: np.ndarray, before: int) -> tuple[int, int] | None:
    """Return the first stamp that is followed by an earlier one, and that one."""
    all_ts = np.concatenate(([before], ts))
    at = np.flatnonzero(np.diff(all_ts) < 0)
    return (int(all_ts[at[0]]), int(all_ts[at[0] + 1])) if at.size else None


def _seconds(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09d}"


def in_order(blocks: Iterable[Block], facts: RunFacts, held_rows: int = HELD_ROWS) -> Iterator[Block]:
    """Yield blocks in the order of time, and say in ``facts`` what was done or could not be done about it.

    :param blocks: in the order of the text, of which no memory is used again
    :param held_rows: rows that are held at most; a longer text is handed on as it stands, and going back in time is
        then an unknown loss
    """
    clock = _Clock()
    held: list[Block] = []
    rows = 0
    source = iter(blocks)
    for block in source:
        clock.add(block)
        held.append(block)
        rows += len(block)
        if rows > held_rows:
            break
    whole = rows <= held_rows
    if clock.back is not None and clock.own is None and whole:
        facts.notes.append(f"time runs backwards in the text, from {_seconds(clock.back[0])} to "
                           f"{_seconds(clock.back[1])}: files of several CPUs one after the other were put in order "
                           f"by time")
        yield interleave([part for block in held for part in _rising(block)])
        return
    yield from held
    held.clear()
    for block in source:
        clock.add(block)
        yield block
    if clock.own is not None:
        cpu, at, to = clock.own
        _unordered(facts, f"time runs backwards on CPU {cpu}, from {_seconds(at)} to {_seconds(to)}",
                   "import the text of one run, as the kernel printed it")
    elif clock.back is not None:
        at, to = clock.back
        _unordered(facts, f"time runs backwards, from {_seconds(at)} to {_seconds(to)}, in a text that is too long to "
                          f"be put in order", "copy the instance's trace instead of the files under per_cpu")


def _unordered(facts: RunFacts, what: str, todo: str) -> None:
    facts.notes.append(f"{what}: events stand as in the text; {todo}")
    facts.losses.append({"cpu": None, "lost": None, "backwards": 1, "why": f"{what}: the order of events is not known"})


def _rising(block: Block) -> Iterator[tuple[Block, np.ndarray]]:
    """Cut a block where time runs backwards; yield the parts with their stamps."""
    ends = [*(np.flatnonzero(np.diff(block.ts) < 0) + 1).tolist(), len(block)]
    start = 0
    for end in ends:
        if end > start:
            part = block.part(start, end)
            yield part, part.ts
        start = end
