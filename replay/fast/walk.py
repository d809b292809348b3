# SPDX-License-Identifier: GPL-2.0-or-later
"""Writeback between its effects, compiled: the walk of an LRU and what calls it (:mod:`model.zswap_writeback`)."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

from numba import njit

from model import errno
from model.list_lru import LRU_REMOVED_RETRY, LRU_RETRY, LRU_ROTATE, LRU_STOP
from model.zswap_writeback import MAX_RECLAIM_RETRIES, SHRINK_STOP
from replay.fast import layout as L
from replay.fast.cursor import OUT_OF_ORDER, comes_to, pass_over
from replay.fast.tables import find, forget, list_add, list_of, list_remove
from traces import schema

__all__ = ["walk_step"]

_EV: Final = schema.CODE
_DECOMPRESS: Final = _EV["zswap_decompress"]
_READ: Final = _EV["zs_obj_read"]
_WRITEBACK_RET: Final = _EV["zswap_writeback_entry_ret"]
_SHRINK: Final = _EV["shrink_memcg"]
_SHRINK_RET: Final = _EV["shrink_memcg_ret"]
_CB: Final = _EV["shrink_memcg_cb"]
#: NUMA nodes that have a bit in a register
_NODES: Final = 63
_ENOENT, _EEXIST, _ENOMEM, _EAGAIN = errno.ENOENT, errno.EEXIST, errno.ENOMEM, errno.EAGAIN
# branches
_BR_NO_WRITEBACK: Final = L.branch("shrink_memcg.no_writeback")
_BR_OFFLINE: Final = L.branch("shrink_memcg.offline")
_BR_MEMCG_SHRUNK: Final = L.branch("zswap_store.memcg_shrunk")
_BR_RETRIES: Final = L.branch("shrink_worker.retries")
_BR_PASS: Final = L.branch("shrink_worker.pass")
_BR_IDLE_PASS: Final = L.branch("shrink_worker.idle_pass")
_BR_THRESHOLD: Final = L.branch("shrink_worker.threshold")
_BR_AT_THRESHOLD: Final = L.branch("shrink_worker.at_threshold")
_BR_OFF: Final = L.branch("zswap_shrinker_scan.off")
_BR_SCAN_NONE: Final = L.branch("zswap_shrinker_scan.none")
_BR_SCAN_SOME: Final = L.branch("zswap_shrinker_scan.some")
_BR_BUDGET: Final = L.branch("list_lru_walk_one.budget")
_BR_ALONE: Final = L.branch("list_lru_walk_one.alone")
_BR_SECOND: Final = L.branch("shrink_memcg_cb.second_chance")
_BR_WRITTEN: Final = L.branch("shrink_memcg_cb.written")
_BR_CB_FAILED: Final = L.branch("shrink_memcg_cb.failed")
_BR_STOP: Final = L.branch("shrink_memcg_cb.stop")
_BR_NO_FOLIO: Final = L.branch("zswap_writeback_entry.no_folio")
_BR_GONE: Final = L.branch("zswap_writeback_entry.gone")
_BR_EMPTY: Final = L.branch("shrink_memcg.empty")
_BR_NOTHING: Final = L.branch("shrink_memcg.none")
_BR_SOME: Final = L.branch("shrink_memcg.some")


@njit(nogil=True, error_model="numpy")
def _in_other_order(m, row, address):
    """Questions._other_order(): the entry a walk looks at, where additions overlapped; -1 for the head."""
    entry = m[row + L.R_HEAD]
    found = -1
    while entry >= 0:
        if m[entry + L.E_ADDRESS] == address:
            found = entry
            break
        if m[entry + L.E_SPAN_FROM] < 0:
            return -1
        entry = m[entry + L.E_NEXT]
    if found < 0 or found == m[row + L.R_HEAD] or m[found + L.E_SPAN_FROM] < 0:
        return -1
    entry = m[row + L.R_HEAD]
    while entry != found:
        if m[entry + L.E_SPAN_FROM] > m[found + L.E_SPAN_TO] \
                or m[found + L.E_SPAN_FROM] > m[entry + L.E_SPAN_TO]:
            return -1
        entry = m[entry + L.E_NEXT]
    m[L.REORDERED] += 1
    return found


@njit(nogil=True, error_model="numpy")
def _next_node(m, f):
    """shrink_memcg() comes to the list of the lowest node it has not walked yet."""
    nid = 0
    while not m[f + L.Q_NODES] >> nid & 1:
        nid += 1
    m[f + L.Q_NODES] ^= 1 << nid
    m[f + L.Q_NID] = nid
    m[f + L.Q_LISTED_AS] = m[f + L.Q_MEMCG]
    m[f + L.Q_LIST] = list_of(m, nid, m[f + L.Q_MEMCG])
    m[f + L.Q_BUDGET] = m[L.SHRINK_BUDGET]
    m[f + L.Q_MET] = 0
    return L.V_LOOP


@njit(nogil=True, error_model="numpy")
def walk_step(m, f, st, code, answered, answer, ret_at, memcg_at, entry_at):
    """Return the state of operation ``f`` after ``st``: END when it is over, UNKNOWN for the reference to decide."""
    # ---- shrink_memcg() and what calls it, the walk of an LRU ----------------------------------------------
    if st == L.M_START:
        if answered:
            m[f + L.Q_MEMCG] = answer
        m[f + L.Q_EXPECTED] = -1 if (m[L.WAS_OFF] or m[L.WRITEBACK] < 0) and m[L.ENABLED] else 1
        st = L.M_ENABLED
    elif st == L.M_ENABLED:
        allowed = answer if answered else m[f + L.Q_EXPECTED]
        if allowed < 0:
            allowed = m[L.WRITEBACK]
        if allowed < 0:
            return L.UNKNOWN
        if allowed:
            st = L.M_ONLINE
        else:
            m[_BR_NO_WRITEBACK] += 1
            m[f + L.Q_VALUE] = _ENOENT
            st = L.M_RET
    elif st == L.M_ONLINE:
        m[f + L.Q_VALUE] = _ENOENT
        st = L.M_RET
        if code == _SHRINK_RET:
            m[_BR_OFFLINE] += 1
        else:
            nodes = 0
            row = m[L.LISTS]
            while row >= 0:
                if m[row + L.R_ALIVE] and m[row + L.R_MEMCG] == m[f + L.Q_MEMCG]:
                    if m[row + L.R_NID] >= _NODES:
                        return L.UNKNOWN
                    nodes |= 1 << m[row + L.R_NID]
                row = m[row + L.R_NEXT]
            m[f + L.Q_NODES] = nodes if nodes else 1
            m[f + L.Q_SCANNED] = 0
            m[f + L.Q_REMOVED] = 0
            m[f + L.Q_WALK] = 0
            st = _next_node(m, f)
    elif st == L.M_RET:
        result, then = m[f + L.Q_VALUE], m[f + L.Q_SHRINK_THEN]
        if then == L.SHRINK_ALONE:
            return L.END
        if then == L.SHRINK_IN_STORE:
            m[f + L.Q_INDEX] = 0
            if result == 0:
                m[_BR_MEMCG_SHRUNK] += 1
            st = L.S_LIMITS if result == 0 else L.S_ERASE
        else:
            st = L.K_TOTALS
            if result != _ENOENT:
                m[f + L.Q_ATTEMPTS] += 1
                if result:
                    m[f + L.Q_FAILURES] += 1
                    if m[f + L.Q_FAILURES] == MAX_RECLAIM_RETRIES:
                        m[_BR_RETRIES] += 1
                        st = L.K_RET
    elif st == L.N_START:
        m[f + L.Q_VALUE] = SHRINK_STOP
        if m[L.SHRINKER] < 0:
            return L.UNKNOWN
        if m[L.SHRINKER]:
            m[f + L.Q_EXPECTED] = -1 if (m[L.WAS_OFF] or m[L.WRITEBACK] < 0) and m[L.ENABLED] else 1
            st = L.N_ENABLED
        else:
            m[_BR_OFF] += 1
            st = L.N_RET
    elif st == L.N_ENABLED:
        allowed = answer if answered else m[f + L.Q_EXPECTED]
        if allowed < 0:
            allowed = m[L.WRITEBACK]
        if allowed < 0:
            return L.UNKNOWN
        m[f + L.Q_VALUE] = SHRINK_STOP
        st = L.N_RET
        if not allowed:
            m[_BR_OFF] += 1
        else:
            m[f + L.Q_LISTED_AS] = m[f + L.Q_MEMCG]
            m[f + L.Q_LIST] = list_of(m, m[f + L.Q_NID], m[f + L.Q_MEMCG])
            m[f + L.Q_REMOVED] = 0
            m[f + L.Q_WALK] = 1
            m[f + L.Q_MET] = 0
            st = L.V_LOOP
    elif st == L.N_RET:
        return L.END
    elif st == L.K_START:
        st = L.K_NEXT
    elif st == L.K_NEXT:
        if code == _SHRINK:
            in_order = comes_to(m, memcg_at)
            if in_order == OUT_OF_ORDER:
                return L.UNKNOWN
            if in_order and m[L.SEES_REPARENT]:
                m[L.COMPARED + L.H_WORKER] += 1
            m[f + L.Q_MEMCG] = memcg_at
            m[f + L.Q_SHRINK_THEN] = L.SHRINK_IN_WORKER
            st = L.M_START
        else:
            st = L.K_TOTALS
            m[_BR_PASS] += 1
            pass_over(m)
            if not m[f + L.Q_ATTEMPTS]:
                m[_BR_IDLE_PASS] += 1
                m[f + L.Q_FAILURES] += 1
                if m[f + L.Q_FAILURES] == MAX_RECLAIM_RETRIES:
                    m[_BR_RETRIES] += 1
                    st = L.K_RET
            if st == L.K_TOTALS:
                m[f + L.Q_ATTEMPTS] = 0
    elif st == L.K_TOTALS:
        m[f + L.Q_VALUE] = m[L.PAGES]
        st = L.K_TOTAL
    elif st == L.K_TOTAL:
        current = answer if answered else m[f + L.Q_VALUE]
        reached = current <= m[f + L.Q_THRESHOLD]
        if reached:
            m[_BR_THRESHOLD] += 1
            m[_BR_AT_THRESHOLD] += current == m[f + L.Q_THRESHOLD]
        st = L.K_RET if reached else L.K_NEXT
    elif st == L.K_RET:
        return L.END
    elif st == L.V_LOOP:
        st = L.V_NEXT
        if m[f + L.Q_BUDGET] == 0:
            m[_BR_BUDGET] += 1
            st = L.V_END
    elif st == L.V_NEXT:
        row = m[f + L.Q_LIST]
        if row < 0 or not m[row + L.R_ALIVE] or m[row + L.R_MEMCG] != m[f + L.Q_LISTED_AS]:
            row = list_of(m, m[f + L.Q_NID], m[f + L.Q_LISTED_AS])
            m[f + L.Q_LIST] = row
        if row < 0 or m[row + L.R_COUNT] == 0:
            st = L.V_OTHER
        else:
            # A walk that ends though there is something now: the reference knows whether it was there before.
            if m[L.CAPTURED + _CB] and code != _CB:
                return L.UNKNOWN
            st = L.V_ORDER
    elif st == L.V_OTHER:
        st = L.V_END
        if code == _CB and not m[L.ROOT_OBJCG] and m[f + L.Q_LISTED_AS] != 0:
            row = list_of(m, m[f + L.Q_NID], 0)
            entry = m[row + L.R_HEAD] if row >= 0 else -1
            while entry >= 0 and m[entry + L.E_ADDRESS] != entry_at:
                entry = m[entry + L.E_NEXT]
            if entry >= 0:
                m[L.ASKED + L.V_OTHER] = 1
                m[L.ROOT_MEMCG] = m[f + L.Q_LISTED_AS]
                m[f + L.Q_LISTED_AS] = 0
                m[f + L.Q_LIST] = row
                st = L.V_LOOP
    elif st == L.V_ORDER:
        row = m[f + L.Q_LIST]
        entry = m[row + L.R_HEAD]
        if code == _CB:
            other = _in_other_order(m, row, entry_at)
            if other >= 0:
                entry = other
        m[f + L.Q_ALONE] = 1 if m[row + L.R_COUNT] == 1 else 0
        m[f + L.Q_BUDGET] -= 1
        list_remove(m, row, entry)
        list_add(m, row, entry)
        m[f + L.Q_VICTIM] = entry
        m[f + L.Q_GEN] = m[entry + L.E_GEN]
        m[f + L.Q_VICTIM_SWPENT] = m[entry + L.E_SWPENT]
        m[f + L.Q_NEW] = m[entry + L.E_REF]
        m[entry + L.E_REF] = 0
        st = L.V_CB
    elif st == L.V_CB:
        if m[f + L.Q_NEW]:
            m[_BR_SECOND] += 1
            m[f + L.Q_VALUE] = LRU_ROTATE
            st = L.V_CB_RET
        else:
            st = L.B_START if m[L.KIND_612] else L.B_CACHE
    elif st == L.B_START:
        st = L.B_CACHE
    elif st == L.B_CACHE:
        if code == _DECOMPRESS or code == _READ:
            failure = 0
        elif code == _WRITEBACK_RET:
            failure = ret_at
        else:
            failure = _EEXIST if ret_at == LRU_STOP else _ENOMEM
        entry = m[f + L.Q_VICTIM]
        gone = find(m, L.TREE_AT, m[f + L.Q_VICTIM_SWPENT]) != entry or m[entry + L.E_GEN] != m[f + L.Q_GEN]
        st = L.B_DONE
        if failure:
            m[_BR_NO_FOLIO] += 1
            m[f + L.Q_WRITTEN] = failure
            if m[L.MAPS_FAILURE] and failure != _EEXIST:
                m[f + L.Q_WRITTEN] = _ENOMEM
        elif gone:
            m[_BR_GONE] += 1
            m[f + L.Q_WRITTEN] = _ENOMEM
        else:
            if m[L.KIND_612]:
                forget(m, L.TREE_AT, m[f + L.Q_VICTIM_SWPENT])
                m[L.TREE] -= 1
            m[f + L.Q_READ] = entry
            m[f + L.Q_READ_THEN] = 1
            m[f + L.Q_VICTIM_FOLIO] = -1
            st = L.D_START
    elif st == L.B_PAGE:
        m[L.N_PSWPOUT] += 1
        m[f + L.Q_WRITTEN] = 0
        st = L.B_DONE
    elif st == L.B_DONE and m[L.KIND_612]:
        m[f + L.Q_VALUE] = m[f + L.Q_WRITTEN]
        st = L.B_RET
    elif st == L.B_DONE or st == L.B_RET:
        failure = m[f + L.Q_WRITTEN]
        if failure:
            m[L.N_RECLAIM_FAIL] += 1
            stop = failure == _EEXIST and m[f + L.Q_WALK]
            m[_BR_STOP if stop else _BR_CB_FAILED] += 1
            m[f + L.Q_VALUE] = LRU_STOP if stop else LRU_RETRY
        else:
            m[_BR_WRITTEN] += 1
            m[L.N_WRITTEN_BACK] += 1
            m[f + L.Q_VALUE] = LRU_REMOVED_RETRY
        st = L.V_CB_RET
    elif st == L.V_CB_RET:
        status = m[f + L.Q_VALUE]
        st = L.V_LOOP
        if status == LRU_ROTATE:
            if m[f + L.Q_ALONE]:
                m[_BR_ALONE] += 1
                st = L.V_END
        elif status == LRU_STOP:
            m[f + L.Q_MET] = 1
            st = L.V_END
        elif status == LRU_REMOVED_RETRY:
            m[f + L.Q_REMOVED] += 1
    elif st == L.V_END:
        removed = m[f + L.Q_REMOVED]
        if m[f + L.Q_WALK]:
            none = m[f + L.Q_MET] or not removed
            m[_BR_SCAN_NONE if none else _BR_SCAN_SOME] += 1
            m[f + L.Q_VALUE] = SHRINK_STOP if none else removed
            st = L.N_RET
        else:
            m[f + L.Q_SCANNED] += m[L.SHRINK_BUDGET] - m[f + L.Q_BUDGET]
            m[f + L.Q_VALUE] = _ENOENT if not m[f + L.Q_SCANNED] else 0 if removed else _EAGAIN
            if m[f + L.Q_NODES]:
                st = _next_node(m, f)
            else:
                m[_BR_EMPTY if not m[f + L.Q_SCANNED] else _BR_SOME if removed else _BR_NOTHING] += 1
                st = L.M_RET
    else:
        return L.UNKNOWN
    return st
