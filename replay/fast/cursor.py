# SPDX-License-Identifier: GPL-2.0-or-later
"""The order in which shrink_worker() comes to cgroups, compiled: :class:`model.worker.WorkerCursor`.

Both passes are rows of cgroups in the heap, 0 where one has gone away: its place stays taken.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from model.worker import WorkerCursor
from replay.fast import layout as L

__all__ = ["OUT_OF_ORDER", "comes_to", "gone", "holds", "pass_over", "show_cursor", "take_cursor"]

#: what comes_to() says: in order, not known, not in order (or more cgroups than there is room for)
OUT_OF_ORDER: Final = -1


@njit(nogil=True, error_model="numpy")
def _place(m, row, used, cgroup):
    """Return where a row has a cgroup, -1 where it does not."""
    for place in range(used):
        if m[row + place] == cgroup:
            return place
    return -1


@njit(nogil=True, error_model="numpy")
def pass_over(m):
    """WorkerCursor.pass_over()"""
    if m[L.WORKER_WHOLE]:
        kept = 0
        for place in range(m[L.WORKER_CAME]):
            if m[L.WORKER_CURRENT + place]:
                m[L.WORKER_BEFORE + kept] = m[L.WORKER_CURRENT + place]
                kept += 1
        m[L.WORKER_KNOWN] = kept
    m[L.WORKER_CAME] = 0
    m[L.WORKER_HIGH] = -1
    m[L.WORKER_RESTS] = 0
    m[L.WORKER_WHOLE] = 0
    m[L.WORKER_ENDED] = 1


@njit(nogil=True, error_model="numpy")
def comes_to(m, cgroup):
    """WorkerCursor.comes_to(): 1 in order, 0 where it is not known, OUT_OF_ORDER for the reference to decide."""
    if cgroup == 0:
        return 0
    said = 0
    before = _place(m, L.WORKER_BEFORE, m[L.WORKER_KNOWN], cgroup)
    if m[L.WORKER_ENDED]:
        if m[L.WORKER_ROOT] == -1:
            m[L.WORKER_ROOT] = cgroup
        if cgroup != m[L.WORKER_ROOT]:
            return OUT_OF_ORDER
        said = 1
        m[L.WORKER_WHOLE] = 1
    elif cgroup == m[L.WORKER_RESTS]:
        return OUT_OF_ORDER
    elif cgroup == m[L.WORKER_ROOT]:
        pass_over(m)
        m[L.WORKER_WHOLE] = 1
        before = _place(m, L.WORKER_BEFORE, m[L.WORKER_KNOWN], cgroup)
    elif _place(m, L.WORKER_CURRENT, m[L.WORKER_CAME], cgroup) >= 0:
        if m[L.WORKER_WHOLE]:
            return OUT_OF_ORDER
        m[L.WORKER_CAME] = 0
        m[L.WORKER_HIGH] = -1
    elif before >= 0 and m[L.WORKER_HIGH] >= 0:
        if before <= m[L.WORKER_HIGH]:
            return OUT_OF_ORDER
        said = 1
    if m[L.WORKER_CAME] == L.WORKER_ROOM:
        return OUT_OF_ORDER
    m[L.WORKER_ENDED] = 0
    m[L.WORKER_RESTS] = cgroup
    m[L.WORKER_CURRENT + m[L.WORKER_CAME]] = cgroup
    m[L.WORKER_CAME] += 1
    m[L.WORKER_HIGH] = max(m[L.WORKER_HIGH], before)
    return said


@njit(nogil=True, error_model="numpy")
def gone(m, cgroup):
    """WorkerCursor.gone()"""
    if m[L.WORKER_RESTS] == cgroup:
        m[L.WORKER_RESTS] = 0
    for row, used in ((L.WORKER_BEFORE, m[L.WORKER_KNOWN]), (L.WORKER_CURRENT, m[L.WORKER_CAME])):
        place = _place(m, row, used, cgroup)
        if place >= 0:
            m[row + place] = 0
            if row == L.WORKER_CURRENT:
                left = 0
                for other in range(used):
                    left += m[row + other] != 0
                if left == 0:
                    m[L.WORKER_WHOLE] = 0


def holds(cursor: WorkerCursor) -> bool:
    """True where the heap has room for what a cursor has seen."""
    return max(len(cursor.current), len(cursor.before), *cursor.before.values(), 0) < L.WORKER_ROOM


def take_cursor(m: np.ndarray, cursor: WorkerCursor) -> None:
    """Take over what a cursor has seen, which :func:`holds` said there is room for."""
    m[L.WORKER_ROOT], m[L.WORKER_HIGH] = cursor.root if cursor.root == -1 else _signed(cursor.root), cursor.high
    m[L.WORKER_RESTS] = _signed(cursor.rests)
    m[L.WORKER_ENDED], m[L.WORKER_WHOLE] = cursor.ended, cursor.whole
    m[L.WORKER_BEFORE:L.WORKER_BEFORE + L.WORKER_ROOM] = 0
    for cgroup, place in cursor.before.items():
        m[L.WORKER_BEFORE + place] = _signed(cgroup)
    m[L.WORKER_KNOWN] = max(cursor.before.values(), default=-1) + 1
    m[L.WORKER_CURRENT:L.WORKER_CURRENT + len(cursor.current)] = [_signed(cgroup) for cgroup in cursor.current]
    m[L.WORKER_CAME] = len(cursor.current)


def show_cursor(m: np.ndarray, cursor: WorkerCursor) -> None:
    """Give a cursor what the heap has."""
    cursor.root = int(m[L.WORKER_ROOT]) if m[L.WORKER_ROOT] == -1 else _unsigned(int(m[L.WORKER_ROOT]))
    cursor.rests = _unsigned(int(m[L.WORKER_RESTS]))
    cursor.high, cursor.ended, cursor.whole = int(m[L.WORKER_HIGH]), bool(m[L.WORKER_ENDED]), bool(m[L.WORKER_WHOLE])
    before = m[L.WORKER_BEFORE:L.WORKER_BEFORE + m[L.WORKER_KNOWN]].tolist()
    cursor.before = {_unsigned(cgroup): place for place, cgroup in enumerate(before) if cgroup}
    current = m[L.WORKER_CURRENT:L.WORKER_CURRENT + m[L.WORKER_CAME]].tolist()
    cursor.current = {_unsigned(cgroup): place for place, cgroup in enumerate(filter(None, current))}


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _unsigned(value: int) -> int:
    return value + (1 << 64) if value < 0 else value
