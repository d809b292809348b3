# SPDX-License-Identifier: GPL-2.0-or-later
"""The cursor of shrink_worker() (mm/zswap.c): in which order it comes to the cgroups.

zswap_next_shrink walks the hierarchy by mem_cgroup_iter(), from 6.12 to 7.3: pre-order, from the root, each cgroup
once, then NULL, which ends a pass; it stays where it was between two runs of the worker.  A worker that does otherwise
can be seen without knowing the hierarchy: each pass has to keep the order that the one before showed.
"""

from __future__ import annotations

__all__ = ["WorkerCursor"]


class WorkerCursor:
    """What the passes of the worker have shown so far.

    ``before`` is the last whole pass, ``current`` what this one has visited, both as cgroup -> place; ``whole`` says
    whether it began at the root, ``ended`` that the last thing seen was the end of a pass; ``high`` is the furthest
    place in ``before`` of all that this pass has visited; ``rests`` is where the cursor was seen last, 0 where it may
    have been moved since.
    """

    __slots__ = ("before", "current", "ended", "high", "rests", "root", "whole")

    def __init__(self) -> None:
        self.before: dict[int, int] = {}
        self.current: dict[int, int] = {}
        self.high = -1
        self.root = -1
        self.rests = 0
        self.whole = False
        self.ended = False

    def comes_to(self, cgroup: int) -> bool | None:
        """The worker visits a cgroup: True where that is in order, False where not, None where that is not known.

        A pass can end unseen: zswap_memcg_offline_cleanup() advances the cursor when the cgroup it stands at goes
        away, also past the last one.  So a visit to the root is never out of order.  0 stands for no cgroup: without
        memcg the worker has one list.
        """
        if not cgroup:
            return None
        if self.ended:
            if self.root == -1:
                self.root = cgroup
            in_order: bool | None = cgroup == self.root
            self.whole = bool(in_order)
        elif cgroup == self.rests:
            return False
        elif cgroup == self.root:
            self.pass_over()
            in_order, self.whole = None, True
        elif cgroup in self.current:
            if self.whole:
                return False
            # Which one is the root is not known yet: the pass may have ended unseen.
            self.current = {}
            self.high = -1
            in_order = None
        elif cgroup in self.before and self.high >= 0:
            in_order = self.before[cgroup] > self.high
        else:
            in_order = None
        self.ended = False
        self.rests = cgroup
        self.current[cgroup] = len(self.current)
        self.high = max(self.high, self.before.get(cgroup, -1))
        return in_order

    def pass_over(self) -> None:
        """The worker was once round (mem_cgroup_iter() returned NULL)."""
        if self.whole:
            self.before = {cgroup: place for place, cgroup in enumerate(self.current)}
        self.current = {}
        self.high = -1
        self.rests = 0
        self.whole = False
        self.ended = True

    def gone(self, cgroup: int) -> None:
        """A cgroup goes away: its address may be reused from here on, and the cursor was moved off it."""
        self.before.pop(cgroup, None)
        if self.rests == cgroup:
            self.rests = 0
        if self.current.pop(cgroup, None) is not None and not self.current:
            self.whole = False
