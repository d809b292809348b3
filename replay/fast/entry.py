# SPDX-License-Identifier: GPL-2.0-or-later
"""zswap_load(), zswap_invalidate() and the end of an entry between their effects, compiled: :mod:`model.zswap`."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

from numba import njit

from model import errno
from model.page import PAGE_SIZE
from replay.fast import layout as L
from replay.fast.rows import charge, count, end_entry, fix_fullness, free_zspage, on_two_pages, release
from replay.fast.tables import find, forget, list_remove
from traces import schema

__all__ = ["entry_step"]

_EV: Final = schema.CODE
_FREE_ZSPAGE: Final = _EV["__free_zspage"]
_LOAD_RET: Final = _EV["zswap_load_ret"]
_ENOENT, _EIO = errno.ENOENT, errno.EIO
# branches
_BR_ZSPAGE: Final = L.branch("zs_free.zspage")
_BR_DEFERRED: Final = L.branch("zs_free.deferred")
_BR_NONE: Final = L.branch("zswap_load.none")
_BR_STORED: Final = L.branch("zswap_load.stored")
_BR_PAST_CACHE: Final = L.branch("zswap_load.past_cache")
_BR_RAW: Final = L.branch("zswap_decompress.raw")
_BR_COMPRESSED: Final = L.branch("zswap_decompress.compressed")
_BR_FAILED: Final = L.branch("zswap_decompress.failed")
_BR_UNUSED: Final = L.branch("zswap_invalidate.none")
_BR_INVALIDATED: Final = L.branch("zswap_invalidate.stored")
_BR_READ_ONE: Final = L.branch("zs_obj_read.one")
_BR_READ_TWO: Final = L.branch("zs_obj_read.two")


@njit(nogil=True, error_model="numpy")
def entry_step(m, f, st, code, answered, answer):
    """Return the state of operation ``f`` after ``st``: END when it is over, UNKNOWN for the reference to decide."""
    # ---- zswap_entry_free(), zs_free() ---------------------------------------------------------------
    if st == L.F_START:
        st = L.F_LRU
    elif st == L.F_LRU:
        entry = m[f + L.Q_FREED]
        if m[entry + L.E_LISTED]:
            list_remove(m, m[entry + L.E_WHERE], entry)
        m[f + L.Q_OBJ] = m[entry + L.E_OBJ]
        st = L.Z_START
    elif st == L.Z_START:
        st = L.Z_CLASS_LOCK
    elif st == L.Z_CLASS_LOCK:
        obj = m[f + L.Q_OBJ]
        zspage = m[obj + L.O_ZSPAGE]
        m[f + L.Q_ZSPAGE] = zspage
        m[f + L.Q_CLASS] = m[zspage + L.Z_CLASS]
        m[f + L.Q_PLACE] = m[obj + L.O_INDEX]
        m[m[zspage + L.Z_CLASS] + L.K_INUSE] -= 1
        st = L.Z_OBJ
    elif st == L.Z_OBJ:
        obj = m[f + L.Q_OBJ]
        if release(m, m[f + L.Q_ZSPAGE], m[f + L.Q_PLACE], obj) == L.UNKNOWN:
            return L.UNKNOWN
        m[obj + L.O_NEXT] = m[L.OBJECTS_SPARE]
        m[L.OBJECTS_SPARE] = obj
        m[L.OBJECTS_LIVE] -= 1
        st = L.Z_FULL
    elif st == L.Z_FULL:
        m[f + L.Q_VALUE] = fix_fullness(m, m[f + L.Q_ZSPAGE])
        if m[f + L.Q_VALUE] == L.UNKNOWN:
            return L.UNKNOWN
        st = L.Z_FULL_RET
    elif st == L.Z_FULL_RET:
        st = L.Z_LOCK if m[f + L.Q_VALUE] == 0 else L.Z_DONE
    elif st == L.Z_LOCK:
        locked = code == _FREE_ZSPAGE or not m[L.SEES_PAGES_FREE]
        m[_BR_ZSPAGE if locked else _BR_DEFERRED] += 1
        st = L.Z_PAGES if locked else L.Z_DONE
    elif st == L.Z_PAGES:
        if free_zspage(m, m[f + L.Q_ZSPAGE]) == L.UNKNOWN:
            return L.UNKNOWN
        st = L.Z_DONE
    elif st == L.Z_DONE:
        m[L.POOL_ENTRIES] -= 1
        st = L.F_UNCHARGE if m[m[f + L.Q_FREED] + L.E_ABOUT] >= 0 else L.F_DONE
    elif st == L.F_UNCHARGE:
        entry = m[f + L.Q_FREED]
        charge(m, m[entry + L.E_ABOUT], m[entry + L.E_LENGTH], -1)
        st = L.F_DONE
    elif st == L.F_DONE:
        entry = m[f + L.Q_FREED]
        if m[entry + L.E_LENGTH] == PAGE_SIZE and m[L.HAS_INCOMP]:
            m[L.N_INCOMPRESSIBLE] -= 1
        end_entry(m, entry)
        m[L.N_STORED] -= 1
        then = m[f + L.Q_THEN]
        if then == L.THEN_PUBLISHED:
            st = L.P_PUBLISHED
        elif then == L.THEN_ERASE:
            st = L.S_ERASE
        elif then == L.THEN_LOADED:
            m[f + L.Q_VALUE] = 1 if m[L.KIND_612] else 0
            st = L.L_RET
        elif then == L.THEN_WRITE:
            st = L.B_PAGE
        else:
            return L.END
    # ---- zswap_load(), zswap_decompress(), zswap_invalidate() ------------------------------------------
    elif st == L.L_START:
        entry = find(m, L.TREE_AT, m[f + L.Q_SWPENT])
        if entry < 0:
            m[_BR_NONE] += 1
            m[L.N_PSWPIN] += 1
            m[f + L.Q_VALUE] = 0 if m[L.KIND_612] else _ENOENT
            st = L.L_RET
        else:
            m[f + L.Q_READ] = entry
            m[f + L.Q_GEN] = m[entry + L.E_GEN]
            m[f + L.Q_READ_THEN] = 0
            st = L.D_START
    elif st == L.I_START:
        entry = forget(m, L.TREE_AT, m[f + L.Q_SWPENT])
        if entry < 0:
            m[_BR_UNUSED] += 1
            return L.END
        m[_BR_INVALIDATED] += 1
        m[L.TREE] -= 1
        m[f + L.Q_FREED] = entry
        m[f + L.Q_THEN] = L.THEN_END
        st = L.F_START
    elif st == L.D_START:
        m[f + L.Q_READING] = 1
        entry = m[f + L.Q_READ]
        m[_BR_READ_TWO if on_two_pages(m, m[entry + L.E_OBJ], m[entry + L.E_LENGTH]) else _BR_READ_ONE] += 1
        st = L.D_READ
    elif st == L.D_READ:
        raw = m[m[f + L.Q_READ] + L.E_LENGTH] == PAGE_SIZE and not m[L.KIND_612]
        m[_BR_RAW if raw else _BR_COMPRESSED] += 1
        st = L.D_GOOD if raw else L.D_CALL
    elif st == L.D_CALL:
        st = L.D_CALL_RET
    elif st == L.D_CALL_RET:
        good = not answered or (answer == 0 and m[f + L.Q_ANSWER2] == PAGE_SIZE)
        if not good:
            m[_BR_FAILED] += 1
        st = L.D_GOOD if good or m[L.KIND_612] else L.D_BAD
    elif st == L.D_BAD:
        m[L.N_DECOMPRESS_FAIL] += 1
        if m[f + L.Q_READ_THEN]:
            m[f + L.Q_WRITTEN] = _EIO
            st = L.B_DONE
        else:
            m[f + L.Q_VALUE] = _EIO
            st = L.L_RET
    elif st == L.D_GOOD:
        entry = m[f + L.Q_READ]
        if m[entry + L.E_GEN] != m[f + L.Q_GEN]:
            return L.UNKNOWN
        about = m[entry + L.E_ABOUT]
        if m[f + L.Q_READ_THEN]:
            if not m[L.KIND_612]:
                # Up to 6.12 it left the tree before it was read.
                if forget(m, L.TREE_AT, m[f + L.Q_VICTIM_SWPENT]) != entry:
                    return L.UNKNOWN
                m[L.TREE] -= 1
            m[L.N_ZSWPWB] += 1
            if about >= 0:
                count(m, about, L.G_ZSWPWB, 1)
            m[f + L.Q_FREED] = entry
            m[f + L.Q_THEN] = L.THEN_WRITE
            st = L.F_START
        else:
            m[_BR_STORED] += 1
            m[L.N_ZSWPIN] += 1
            if about >= 0:
                count(m, about, L.G_ZSWPIN, 1)
            st = L.L_CACHED if m[L.KIND_CACHED] else L.L_FREE
    elif st == L.L_CACHED:
        if code == _LOAD_RET:
            m[_BR_PAST_CACHE] += 1
            m[f + L.Q_VALUE] = 1 if m[L.KIND_612] else 0
            st = L.L_RET
        else:
            st = L.L_FREE
    elif st == L.L_FREE:
        # Only the operation that takes an entry out of the tree frees it.
        entry = m[f + L.Q_READ]
        if m[entry + L.E_GEN] != m[f + L.Q_GEN] or forget(m, L.TREE_AT, m[f + L.Q_SWPENT]) != entry:
            return L.UNKNOWN
        m[L.TREE] -= 1
        m[f + L.Q_FREED] = entry
        m[f + L.Q_DIRTIED] = 1
        m[f + L.Q_THEN] = L.THEN_LOADED
        st = L.F_START
    elif st == L.L_RET:
        return L.END
    else:
        return L.UNKNOWN
    return st
