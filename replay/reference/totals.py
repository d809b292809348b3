# SPDX-License-Identifier: GPL-2.0-or-later
"""Page totals of pools as tasks read them, which may have been preempted after they had read."""

from __future__ import annotations

from collections import deque
from typing import Final

from model.zswap import Zswap
from replay.reference.comparer import Comparer
from replay.reference.frame import Frame
from replay.reference.state import ReplayState

__all__ = ["REMEMBERED", "Totals"]

#: How many changes of a total are remembered for readers that were preempted.
REMEMBERED: Final = 1 << 14


class Totals:
    """Compares totals that were read with what the model's pools have, or had while the reader was preempted."""

    def __init__(self, state: ReplayState, comparer: Comparer) -> None:
        self.state = state
        self.batch = state.batch
        self.held = state.held
        self.n = state.tally.compared
        self.hold, self.diverge = comparer.hold, comparer.diverge
        #: (event, pages of each pool before the change that followed) of the last changes
        self.changes: deque[tuple[int, list[int]]] = deque(maxlen=REMEMBERED)
        #: readings that are explained by another task in the middle of a change
        self.preempted_reads = 0
        self.watch(state.model)

    def watch(self, model: Zswap) -> None:
        """Remember what a model's totals are before each change."""
        model.total_observer = self._about_to_change

    def _about_to_change(self) -> None:
        self.changes.append((self.batch.now, [pool.zs_pool.pages_allocated for pool in self.state.model.pools]))

    def earlier(self, i: int) -> set[int]:
        """Return the totals of any pool since the task's previous event, that of now included."""
        since = self.batch.since_previous(i)
        now = {pool.zs_pool.pages_allocated for pool in self.state.model.pools}
        return now | {pages for event, pools in self.changes if event >= since for pages in pools}

    def compare(self, recorded: int, predicted: int, i: int, frame: Frame | None) -> None:
        """Compare one pool's pages, or those of all, as a task read them at row ``i``."""
        if frame is None or self.held["zs_get_total_pages_ret"].counts:
            self.n["zsmalloc.pages"] += 1
        self.state.last_total = (self.batch.row(i), recorded)
        if recorded == predicted:
            return
        # Another task may have been preempted between the event that decides about a zspage and the
        # moment its pages enter or leave the total: exactly those pages, of exactly those tasks.
        pending = {0}
        for stack in self.state.stacks.values():
            for other in stack:
                if other.inflight:
                    pending |= {value + other.inflight for value in pending}
        # The reader itself may have been preempted between reading and the probe's event: then it is any total
        # since its own previous event.
        if any(total - recorded in pending for total in {predicted} | self.earlier(i)):
            self.preempted_reads += 1
            return
        self.diverge("zsmalloc.pages", i, recorded=recorded, predicted=predicted, what="pages of the pool",
                     frame=frame)

    def compare_sum(self, i: int, frame: Frame) -> None:
        """Compare zswap_total_pages() inside an operation with the sum of what the operation read pool by pool."""
        predicted, frame.handed.totals = frame.handed.totals, None
        if predicted is None:
            # What it read was not captured.
            return
        self.hold("zswap_total_pages_ret", i, frame, (self.batch.ret[i],), (predicted,),
                  what="pages of all pools, as an operation read them")

    def compare_reading(self, i: int) -> None:
        """Compare totals read by other tasks (debugfs, meminfo)."""
        batch = self.batch
        total = self.state.model.total_pages()
        pools = [pool.zs_pool.pages_allocated for pool in self.state.model.pools]
        # With several pools, each one's total is read in turn: any of them may be this one.
        predicted = total if batch.ret[i] == total or len(pools) == 1 else \
            next((pages for pages in pools if pages == batch.ret[i]), total)
        self.compare(batch.ret[i], predicted, i, None)
