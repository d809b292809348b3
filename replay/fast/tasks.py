# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks and the operations they are in, compiled: begun, ended, advanced, and whether any is under way."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

from numba import njit

from replay.fast import layout as L
from replay.fast.advance import ENDED, UNKNOWN, advance
from replay.fast.cursor import gone as gone_away
from replay.fast.tables import account_of, chain, find, keep, list_of, taken
from replay.reference.state import OTHER_CGROUP
from traces import schema

__all__ = ["begins", "ends", "is_quiet", "is_under_way", "learn_memcg", "may_be_anothers", "operation", "popped",
           "reparent", "settle", "task_of"]

_INVALIDATE: Final = schema.CODE["zswap_invalidate"]
_SHRINK: Final = schema.CODE["shrink_memcg"]
_BR_REPARENTED: Final = L.branch("memcg_reparent_list_lrus.some")
_FOREVER: Final = 1 << 62
_SPREAD: Final = -7046029254386353131  # 2^64 / golden ratio, odd


@njit(nogil=True, error_model="numpy")
def task_of(m, pid):
    """Return the row of a task, a new one for one not seen before."""
    row = find(m, L.TASKS_AT, pid)
    if row < 0:
        row = taken(m, L.T_WIDTH)
        for column in range(L.T_WIDTH):
            m[row + column] = 0
        keep(m, L.TASKS_AT, pid, row)
        m[L.TASK_COUNT] += 1
        chain(m, L.TASKS, row, L.T_NEXT)
        m[row + L.T_PID] = pid
        m[row + L.T_TOP] = -1
        m[row + L.T_ADDING] = -1
        m[row + L.T_MOVING] = -1
        m[row + L.T_FIRST] = m[L.NOW]
    return row


@njit(nogil=True, error_model="numpy")
def operation(m, op, task, start, state):
    """Return a new operation on top of a task's."""
    row = m[L.FRAMES_SPARE]
    if row >= 0:
        m[L.FRAMES_SPARE] = m[row + L.Q_UP]
    else:
        row = taken(m, L.Q_WIDTH)
    m[L.FRAMES] += 1
    for column in range(L.Q_WIDTH):
        m[row + column] = 0
    m[row + L.Q_OP] = op
    m[row + L.Q_STATE] = state
    m[row + L.Q_START] = start
    m[row + L.Q_UP] = m[task + L.T_TOP]
    m[row + L.Q_TASK] = task
    m[row + L.Q_TOTALS] = -1
    m[row + L.Q_FULLNESS] = -1
    m[row + L.Q_ANSWERED] = 1
    m[task + L.T_TOP] = row
    return row


@njit(nogil=True, error_model="numpy")
def popped(m, f):
    """The task's innermost operation has ended; returns the one around it."""
    task, up = m[f + L.Q_TASK], m[f + L.Q_UP]
    m[task + L.T_TOP] = up
    m[f + L.Q_OP] = 0
    m[f + L.Q_INFLIGHT] = 0
    m[f + L.Q_UP] = m[L.FRAMES_SPARE]
    m[L.FRAMES_SPARE] = f
    m[L.FRAMES] -= 1
    return up


@njit(nogil=True, error_model="numpy")
def _overlaps(m, entry):
    """Questions.lru_adding(), but for the addition itself."""
    task = m[L.TASKS]
    while task >= 0:
        for column in (L.T_ADDING, L.T_MOVING):
            other = m[task + column]
            if other >= 0:
                if m[other + L.E_SPAN_FROM] < 0:
                    m[other + L.E_SPAN_FROM] = m[task + column + 1]
                    m[other + L.E_SPAN_TO] = _FOREVER
                if m[entry + L.E_SPAN_FROM] < 0:
                    m[entry + L.E_SPAN_FROM] = m[L.NOW]
                    m[entry + L.E_SPAN_TO] = _FOREVER
        task = m[task + L.T_NEXT]


@njit(nogil=True, error_model="numpy")
def begins(m, entry, task, column):
    """An addition (or a walk's move) of an entry begins; behind ``column`` is when."""
    if m[L.ADDING]:
        _overlaps(m, entry)
    if m[task + column] < 0:
        m[L.ADDING] += 1
    m[task + column] = entry
    m[task + column + 1] = m[L.NOW]


@njit(nogil=True, error_model="numpy")
def ends(m, task, column):
    """Questions.lru_added(), Questions.lru_moved()"""
    entry = m[task + column]
    if entry >= 0:
        m[task + column] = -1
        m[L.ADDING] -= 1
        if m[entry + L.E_SPAN_FROM] >= 0:
            m[entry + L.E_SPAN_TO] = m[L.NOW]


@njit(nogil=True, error_model="numpy")
def is_under_way(m, entry):
    """True where an addition or a move of an entry has begun and not ended."""
    task = m[L.TASKS]
    while task >= 0:
        if m[task + L.T_ADDING] == entry or m[task + L.T_MOVING] == entry:
            return True
        task = m[task + L.T_NEXT]
    return False


@njit(nogil=True, error_model="numpy")
def _is_over(m, f):
    """True for an operation of which no effect can follow: it only has to count yet, or not even that."""
    st = m[f + L.Q_STATE]
    if m[f + L.Q_WAITS] or m[f + L.Q_UP] >= 0:
        return False
    if st == L.F_UNCHARGE:
        return m[f + L.Q_OP] == _INVALIDATE
    if st == L.M_RET:
        return m[f + L.Q_OP] == _SHRINK
    return st == L.N_RET or st == L.C_SCAN_RET or st == L.K_RET


@njit(nogil=True, error_model="numpy")
def is_quiet(m):
    """True where the reference could take over: no operation is under way that has effects to come."""
    if m[L.ADDING]:
        return False
    task = m[L.TASKS] if m[L.FRAMES] or m[L.UNSURE] else -1
    while task >= 0:
        f = m[task + L.T_TOP]
        if m[task + L.T_UNSURE] == 2 or (f >= 0 and not _is_over(m, f)):
            return False
        task = m[task + L.T_NEXT]
    return True


@njit(nogil=True, error_model="numpy")
def _standing(m):
    """A number made of every counter, which is another when any of them changes."""
    mixed = m[L.PAGES] * _SPREAD ^ m[L.CHANGES]
    for number in range(L.N_MTHP + 12):
        mixed = mixed * _SPREAD ^ m[number]
    return mixed


@njit(nogil=True, error_model="numpy")
def _let_go_on(m, task, f):
    """Advance a task's operations to their next effect; False where one needs the reference."""
    last = m[f + L.Q_OP] == _INVALIDATE and m[f + L.Q_STATE] == L.F_UNCHARGE and m[f + L.Q_UP] < 0
    length = about = 0
    if last:
        length, about = m[m[f + L.Q_FREED] + L.E_LENGTH], m[m[f + L.Q_FREED] + L.E_ABOUT]
    before = _standing(m)
    while f >= 0 and not m[f + L.Q_WAITS]:
        state = advance(m, f, 0, 0, 0, 0, 0, 0)
        if state == UNKNOWN:
            return False
        if state == ENDED:
            f = popped(m, f)
    if _standing(m) != before:
        m[task + L.T_UNSURE] = 1 if last else 2
        m[task + L.T_UNSURE_LENGTH] = length
        m[task + L.T_UNSURE_ABOUT] = about
        m[L.UNSURE] += 1
    return True


@njit(nogil=True, error_model="numpy")
def settle(m):
    """Engine.settle(); False where an operation needs the reference."""
    if m[L.FRAMES] == 0:
        return True
    task = m[L.TASKS]
    while task >= 0:
        f = m[task + L.T_TOP]
        if f >= 0 and not m[f + L.Q_WAITS] and not _let_go_on(m, task, f):
            return False
        task = m[task + L.T_NEXT]
    return True


@njit(nogil=True, error_model="numpy")
def reparent(m, gone, parent):
    """memcg_reparent_list_lrus() of the model, and whose cgroup is whose after it."""
    gone_away(m, gone)
    after = m[L.LISTS]
    while after >= 0:
        row, after = after, m[after + L.R_NEXT]
        if m[row + L.R_ALIVE] and m[row + L.R_MEMCG] == gone:
            m[row + L.R_ALIVE] = 0
            if m[row + L.R_COUNT] == 0:
                continue
            m[_BR_REPARENTED] += 1
            target = list_of(m, m[row + L.R_NID], parent)
            if target < 0:
                # The target is created with what it gets: the row stays, under the parent's name.
                m[row + L.R_MEMCG] = parent
                m[row + L.R_ALIVE] = 1
                continue
            entry = m[row + L.R_HEAD]
            while entry >= 0:
                m[entry + L.E_WHERE] = target
                entry = m[entry + L.E_NEXT]
            first = m[target + L.R_HEAD]
            m[m[row + L.R_TAIL] + L.E_NEXT] = first
            if first >= 0:
                m[first + L.E_PREV] = m[row + L.R_TAIL]
            else:
                m[target + L.R_TAIL] = m[row + L.R_TAIL]
            m[target + L.R_HEAD] = m[row + L.R_HEAD]
            m[target + L.R_COUNT] += m[row + L.R_COUNT]
    row = m[L.ACCOUNTS]
    while row >= 0:
        if m[row + L.G_HAS_MEMCG] and m[row + L.G_MEMCG] == gone:
            m[row + L.G_MEMCG] = parent
            m[row + L.G_WAS] = gone
        row = m[row + L.G_NEXT]


@njit(nogil=True, error_model="numpy")
def may_be_anothers(m, f, account):
    """Operation ``f`` charges an obj_cgroup that no entry is charged to: its cgroup is to be learned anew."""
    if not m[account + L.G_HAS_MEMCG] or _is_charged(m, f, account):
        return
    m[account + L.G_HAS_MEMCG] = 0
    m[account + L.G_HAD_MEMCG] = 1
    m[account + L.G_WAS] = 0


@njit(nogil=True, error_model="numpy")
def _is_charged(m, but, account):
    """ZswapHandlers._is_charged(); ``but``: the operation that charges now."""
    pages = m[account + L.G_ZSWAPPED]
    if pages > m[L.FRAMES]:
        return True
    task = m[L.TASKS]
    while task >= 0:
        f = m[task + L.T_TOP]
        while f >= 0:
            if f != but and not m[f + L.Q_WAITS]:
                # It counts when the task does its next thing.
                if m[f + L.Q_STATE] == L.P_CHARGE:
                    pages += m[f + L.Q_ANSWERED] and m[f + L.Q_ANSWER] == m[account + L.G_OBJCG]
                elif m[f + L.Q_STATE] == L.F_UNCHARGE:
                    pages -= m[m[f + L.Q_FREED] + L.E_ABOUT] == account
            f = m[f + L.Q_UP]
        task = m[task + L.T_NEXT]
    return pages > 0


@njit(nogil=True, error_model="numpy")
def learn_memcg(m, account, group):
    """The first entry of an obj_cgroup is listed: its mem_cgroup is the list's."""
    m[account + L.G_HAS_MEMCG] = 1
    if m[account + L.G_HAD_MEMCG] and m[account + L.G_MEMCG] != group:
        m[account_of(m, OTHER_CGROUP) + L.G_HAS_ACCOUNT] = 1
    m[account + L.G_HAD_MEMCG] = 0
    m[account + L.G_MEMCG] = group
