# SPDX-License-Identifier: GPL-2.0-or-later
"""Events by task: a small number for every task, so that what is kept per task is an array."""

from __future__ import annotations

import numpy as np

from traces.compiled import at as _at
from traces.compiled import compiled

__all__ = ["TaskNumbers"]


@compiled
def _number(pid, row, slots, pids, known, out):  # type: ignore[no-untyped-def]
    """Number the tasks of ``pid`` from ``row`` on; stops where ``slots``, a hash table, gets too full.

    Returns (row reached, tasks known).
    """
    last = slots.shape[0] - 1
    before, number = np.int32(0), np.int32(-1)
    while row < pid.shape[0]:
        if pid[_at(row)] != before or number < 0:
            before = pid[_at(row)]
            h = np.int64((np.uint64(before) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & last
            while slots[h] >= 0 and pids[slots[h]] != before:
                h = (h + 1) & last
            number = slots[h]
            if number < 0:
                if 2 * known > last:
                    return row, known
                number = np.int32(known)
                pids[number] = before
                slots[h] = number
                known += 1
        out[_at(row)] = number
        row += 1
    return row, known


class TaskNumbers:
    """Numbers tasks in the order in which they appear; a task keeps its number."""

    def __init__(self) -> None:
        self._slots = np.full(64, -1, np.int32)
        self._pids = np.zeros(64, np.int32)
        self._known = 0

    def of(self, pid: np.ndarray) -> np.ndarray:
        """Return the number of each row's task (int32); ``pid`` is int32 too."""
        out = np.empty(pid.size, np.int32)
        row = 0
        while True:
            row, self._known = _number(pid, row, self._slots, self._pids, self._known, out)
            if row == pid.size:
                return out
            old = self.pids.copy()
            self._slots = np.full(4 * self._slots.size, -1, np.int32)
            self._pids = np.zeros(self._slots.size, np.int32)
            _number(old, 0, self._slots, self._pids, 0, np.empty(old.size, np.int32))

    @property
    def pids(self) -> np.ndarray:
        """The task ids by number."""
        return self._pids[:self._known]
