# SPDX-License-Identifier: GPL-2.0-or-later
"""zs_compact() and async_free_zspage() between their effects, compiled: :mod:`model.zsmalloc`."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

from numba import njit

from model.zsmalloc import RATIO_0, RATIO_100
from replay.fast import layout as L
from replay.fast.rows import drop, free_zspage, fullness, release, take
from replay.fast.tables import group_first, group_insert, group_remove
from traces import schema

__all__ = ["compact_step"]

_EV: Final = schema.CODE
_SCAN_OP: Final = _EV["zs_shrinker_scan"]
_OBJ_MALLOC: Final = _EV["obj_malloc"]
_FREE_ZSPAGE: Final = _EV["__free_zspage"]
_CLASS: Final = _EV["__zs_compact"]
# branches
_BR_BUSY: Final = L.branch("zs_compact.busy")
_BR_NONE: Final = L.branch("zs_compact.none")
_BR_EMPTIED: Final = L.branch("zs_compact.emptied")
_BR_FILLED: Final = L.branch("zs_compact.filled")
_BR_ZSPAGE: Final = L.branch("zs_free.zspage")
_BR_DEFERRED: Final = L.branch("zs_free.deferred")
_BR_ASYNC: Final = L.branch("async_free_zspage.some")


@njit(nogil=True, error_model="numpy")
def _isolate(m, f):
    """Take a target and a source off their lists; False where there are no two zspages or nothing to gain."""
    number = m[f + L.Q_CLASS]
    if (m[number + L.K_ALLOCATED] - m[number + L.K_INUSE]) // m[number + L.K_OBJS] <= 0:
        return False
    target = group_first(m, number, L.DST, L.DST_END, L.DST_STEP)
    if target < 0:
        return False
    group = m[target + L.Z_GROUP]
    group_remove(m, target)
    source = group_first(m, number, L.SRC, L.SRC_END, L.SRC_STEP)
    if source < 0:
        group_insert(m, target, group)
        return False
    group_remove(m, source)
    # Where the lock was kept since the last zspage, the target was not put back either: it has its old group still.
    if target == m[f + L.Q_DST]:
        m[target + L.Z_GROUP] = m[f + L.Q_KEPT]
    m[f + L.Q_DST], m[f + L.Q_SRC], m[f + L.Q_AT] = target, source, 0
    return True


@njit(nogil=True, error_model="numpy")
def compact_step(m, f, st, code):
    """Return the state of operation ``f`` after ``st``: END when it is over, UNKNOWN for the reference to decide."""
    # ---- zs_compact() ----------------------------------------------------------------------------------
    if st == L.C_SCAN:
        st = L.C_COMPACT
    elif st == L.C_COMPACT:
        st = L.C_FLAG
    elif st == L.C_FLAG:
        # Where the flag is not as it was found, the reference knows why.
        if m[L.CAPTURED + _CLASS] and (m[L.COMPACTING] == 0) != (code == _CLASS):
            return L.UNKNOWN
        m[f + L.Q_POOL_FREED] = 0
        if m[L.COMPACTING]:
            m[_BR_BUSY] += 1
            m[f + L.Q_VALUE] = 0
            st = L.C_COMPACT_RET
        else:
            m[L.COMPACTING] = 1
            m[f + L.Q_CLASS_AT] = 0
            st = L.C_NEXT
    elif st == L.C_NEXT:
        if m[L.DESCENDING + m[f + L.Q_CLASS_AT]] < 0:
            m[L.COMPACTING] = 0
            m[L.COMPACTED] += m[f + L.Q_POOL_FREED]
            m[f + L.Q_VALUE] = m[f + L.Q_POOL_FREED]
            st = L.C_COMPACT_RET
        else:
            m[f + L.Q_CLASS] = m[L.DESCENDING + m[f + L.Q_CLASS_AT]]
            st = L.C_CLASS
    elif st == L.C_CLASS:
        m[f + L.Q_DST] = -1
        m[f + L.Q_CLASS_FREED] = 0
        st = L.C_LOOP
    elif st == L.C_LOOP:
        if _isolate(m, f):
            # Why compaction leaves what it could move, only the reference can decide.
            if code != _OBJ_MALLOC:
                return L.UNKNOWN
            st = L.C_MOVE
        else:
            m[f + L.Q_VALUE] = m[f + L.Q_CLASS_FREED]
            st = L.C_CLASS_RET
    elif st == L.C_MOVE:
        number, source = m[f + L.Q_CLASS], m[f + L.Q_SRC]
        places = m[source + L.Z_PLACES]
        index = m[f + L.Q_AT]
        while index < m[number + L.K_OBJS] and m[places + index] < 0:
            index += 1
        m[f + L.Q_AT] = index
        if index < m[number + L.K_OBJS]:
            m[f + L.Q_OBJ] = m[places + index]
            m[f + L.Q_ZSPAGE] = m[f + L.Q_DST]
            st = L.C_OBJ
        else:
            st = L.C_MOVED
    elif st == L.C_OBJ:
        # Still where it was found?
        if m[m[m[f + L.Q_SRC] + L.Z_PLACES] + m[f + L.Q_AT]] != m[f + L.Q_OBJ] \
                or take(m, m[f + L.Q_DST], m[f + L.Q_OBJ]) == L.UNKNOWN:
            return L.UNKNOWN
        st = L.C_OBJ_RET
    elif st == L.C_OBJ_RET:
        m[f + L.Q_PLACE] = m[f + L.Q_AT]
        m[f + L.Q_ZSPAGE] = m[f + L.Q_SRC]
        st = L.C_FREE
    elif st == L.C_FREE:
        number, source = m[f + L.Q_CLASS], m[f + L.Q_SRC]
        if release(m, source, m[f + L.Q_AT], m[f + L.Q_OBJ]) == L.UNKNOWN:
            return L.UNKNOWN
        if m[m[f + L.Q_DST] + L.Z_INUSE] == m[number + L.K_OBJS] \
                or m[source + L.Z_INUSE] == 0:
            st = L.C_MOVED
        else:
            # On from the place behind the one just emptied.
            m[f + L.Q_AT] += 1
            st = L.C_MOVE
    elif st == L.C_MOVED:
        source, number = m[f + L.Q_SRC], m[f + L.Q_CLASS]
        group = fullness(m, source)
        group_insert(m, source, group)
        m[f + L.Q_ZSPAGE] = source
        if group == RATIO_0:
            m[_BR_EMPTIED] += 1
        st = L.C_PAGES_LOCK if group == RATIO_0 else L.C_AFTER
    elif st == L.C_PAGES_LOCK:
        # Pages that cannot be locked are counted as freed nevertheless.
        m[f + L.Q_CLASS_FREED] += m[m[f + L.Q_CLASS] + L.K_PAGES]
        locked = code == _FREE_ZSPAGE or not m[L.SEES_PAGES_FREE]
        m[_BR_ZSPAGE if locked else _BR_DEFERRED] += 1
        st = L.C_PAGES if locked else L.C_AFTER
    elif st == L.C_PAGES:
        if free_zspage(m, m[f + L.Q_SRC]) == L.UNKNOWN:
            return L.UNKNOWN
        st = L.C_AFTER
    elif st == L.C_AFTER:
        target = m[f + L.Q_DST]
        m[f + L.Q_KEPT] = m[target + L.Z_GROUP]
        group = fullness(m, target)
        group_insert(m, target, group)
        if group == RATIO_100:
            m[_BR_FILLED] += 1
            m[f + L.Q_DST] = -1
        st = L.C_LOOP
    elif st == L.C_CLASS_RET:
        m[f + L.Q_POOL_FREED] += m[f + L.Q_CLASS_FREED]
        m[f + L.Q_CLASS_AT] += 1
        st = L.C_NEXT
    elif st == L.C_COMPACT_RET:
        if m[f + L.Q_OP] != _SCAN_OP:
            return L.END
        if not m[f + L.Q_POOL_FREED]:
            m[_BR_NONE] += 1
        m[f + L.Q_VALUE] = m[f + L.Q_POOL_FREED] if m[f + L.Q_POOL_FREED] else -1
        st = L.C_SCAN_RET
    elif st == L.C_SCAN_RET:
        return L.END
    # ---- async_free_zspage() -----------------------------------------------------------------------------
    elif st == L.A_START:
        first = last = -1
        at = L.DESCENDING
        while m[at] >= 0:
            number = m[at]
            at += 1
            while m[number + L.K_HEAD + RATIO_0] >= 0:
                zspage = m[number + L.K_HEAD + RATIO_0]
                group_remove(m, zspage)
                m[zspage + L.Z_NEXT] = -1
                if last < 0:
                    first = zspage
                else:
                    m[last + L.Z_NEXT] = zspage
                last = zspage
        if first >= 0:
            m[_BR_ASYNC] += 1
        m[f + L.Q_DST] = first
        st = L.A_NEXT
    elif st == L.A_NEXT:
        if m[f + L.Q_DST] < 0:
            return L.END
        m[f + L.Q_ZSPAGE] = m[f + L.Q_DST]
        m[f + L.Q_DST] = m[m[f + L.Q_ZSPAGE] + L.Z_NEXT]
        m[f + L.Q_CLASS] = m[m[f + L.Q_ZSPAGE] + L.Z_CLASS]
        st = L.A_PAGES
    elif st == L.A_PAGES:
        drop(m, m[f + L.Q_ZSPAGE])
        st = L.A_NEXT
    else:
        return L.UNKNOWN
    return st
