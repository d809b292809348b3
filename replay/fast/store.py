# SPDX-License-Identifier: GPL-2.0-or-later
"""swap_writeout() and zswap_store() between their effects, compiled: :mod:`model.swap`, :mod:`model.zswap`."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

from numba import njit

from model import errno
from model.page import PAGE_SIZE
from model.swap import AOP_WRITEPAGE_ACTIVATE
from model.zsmalloc import HANDLE_SIZE, MIN_ALLOC_SIZE, SIZE_CLASS_DELTA, SIZE_CLASSES
from replay.fast import layout as L
from replay.fast.rows import (
    add_pages,
    changes,
    charge,
    count,
    count_reject,
    end_entry,
    fix_fullness,
    fullness,
    may_zswap,
    new_entry,
    new_object,
    new_zspage,
    on_two_pages,
    take,
)
from replay.fast.tables import account_of, find, forget, group_first, group_insert, keep, list_add, list_made
from traces import schema

__all__ = ["store_step"]

_EV: Final = schema.CODE
_STORE_OP: Final = _EV["zswap_store"]
_WRITEOUT_RET: Final = _EV["swap_writeout_ret"]
_INVALIDATE: Final = _EV["zswap_invalidate"]
_MALLOC_RET: Final = _EV["zs_malloc_ret"]
_OBJ_MALLOC: Final = _EV["obj_malloc"]
_MAY: Final = _EV["obj_cgroup_may_zswap_ret"]
_LAST_CLASS: Final = SIZE_CLASSES - 1
_EINVAL, _ENOSPC = errno.EINVAL, errno.ENOSPC
_E2BIG, _ENODEV, _ETIMEDOUT, _EIO = errno.E2BIG, errno.ENODEV, errno.ETIMEDOUT, errno.EIO
# branches
_BR_ZERO: Final = L.branch("swap_writeout.zero")
_BR_FREE: Final = L.branch("swap_writeout.free")
_BR_LARGE: Final = L.branch("swap_writeout.large")
_BR_KEPT: Final = L.branch("swap_writeout.kept")
_BR_DEVICE: Final = L.branch("swap_writeout.device")
_BR_REFUSED: Final = L.branch("zswap_store.large")
_BR_DISABLED: Final = L.branch("zswap_store.disabled")
_BR_NO_OBJCG: Final = L.branch("zswap_store.no_objcg")
_BR_MEMCG_FULL: Final = L.branch("zswap_store.memcg_full")
_BR_FULL: Final = L.branch("zswap_check_limits.full")
_BR_AT_LIMIT: Final = L.branch("zswap_check_limits.at_limit")
_BR_BAND: Final = L.branch("zswap_check_limits.band")
_BR_ACCEPT: Final = L.branch("zswap_check_limits.accept")
_BR_AT_THRESHOLD: Final = L.branch("zswap_check_limits.at_threshold")
_BR_PARTIAL: Final = L.branch("zswap_store.partial")
_BR_ERASE: Final = L.branch("zswap_store.erase")
_BR_REPLACE: Final = L.branch("zswap_store_page.replace")
_BR_ENOSPC: Final = L.branch("zswap_compress.ENOSPC")
_BR_EINVAL: Final = L.branch("zswap_compress.EINVAL")
_BR_E2BIG: Final = L.branch("zswap_compress.E2BIG")
_BR_ENODEV: Final = L.branch("zswap_compress.ENODEV")
_BR_ETIMEDOUT: Final = L.branch("zswap_compress.ETIMEDOUT")
_BR_EIO: Final = L.branch("zswap_compress.EIO")
_BR_ERROR: Final = L.branch("zswap_compress.error")
_BR_WHOLE: Final = L.branch("zswap_compress.whole")
_BR_RAW: Final = L.branch("zswap_compress.raw")
_BR_NO_WRITEBACK: Final = L.branch("zswap_compress.no_writeback")
_BR_NO_BYTES: Final = L.branch("zs_malloc.EINVAL")
_BR_TOO_LARGE: Final = L.branch("zs_malloc.ENOSPC")
_BR_NO_MEMORY: Final = L.branch("zs_malloc.ENOMEM")
_BR_RACED: Final = L.branch("zs_malloc.raced")
_BR_HUGE: Final = L.branch("zs_malloc.huge")
_BR_ROOM: Final = L.branch("zs_malloc.room")
_BR_EMPTY: Final = L.branch("zs_malloc.empty")
_BR_NEW: Final = L.branch("zs_malloc.new")
_BR_READ_ONE: Final = L.branch("zs_obj_read.one")
_BR_READ_TWO: Final = L.branch("zs_obj_read.two")


@njit(nogil=True, error_model="numpy")
def _error_branch(err):
    """Zswap.compressed() of an errno: where its branch is counted."""
    if err == _EINVAL:
        return _BR_EINVAL
    if err == _ENOSPC:
        return _BR_ENOSPC
    if err == _E2BIG:
        return _BR_E2BIG
    if err == _ENODEV:
        return _BR_ENODEV
    if err == _ETIMEDOUT:
        return _BR_ETIMEDOUT
    return _BR_EIO if err == _EIO else _BR_ERROR


@njit(nogil=True, error_model="numpy")
def store_step(m, f, st, code, answered, answer, handle_at, zspage_at):
    """Return the state of operation ``f`` after ``st``: END when it is over, UNKNOWN for the reference to decide."""
    # ---- swap_writeout(), zswap_store() --------------------------------------------------------------
    if st == L.W_START:
        st = L.W_WHAT
    elif st == L.W_WHAT:
        if code == _WRITEOUT_RET:
            if m[L.KIND_612] and m[f + L.Q_ORDER]:
                # Zero-filled, or freed: snapshots alone show which.
                return L.UNKNOWN
            account = m[L.ACCOUNTS]
            while account >= 0:
                if m[account + L.G_HAS_ACCOUNT]:
                    changes(m, account)
                account = m[account + L.G_NEXT]
            m[_BR_ZERO] += 1
            m[L.N_SWPOUT_ZERO] += 1 << m[f + L.Q_ORDER]
            m[f + L.Q_VALUE] = 0
            st = L.W_RET
        elif code == _INVALIDATE:
            m[_BR_FREE] += 1
            m[f + L.Q_VALUE] = 0
            st = L.W_RET
        else:
            st = L.S_START
    elif st == L.S_START:
        if m[L.KIND_612] and m[f + L.Q_ORDER]:
            # What is stored at its slots is out of date then, which only the reference keeps in mind.
            for index in range(1 << m[f + L.Q_ORDER]):
                if find(m, L.TREE_AT, m[f + L.Q_SWPENT] + index) >= 0:
                    return L.UNKNOWN
            m[_BR_REFUSED] += 1
            m[L.UNTOLD] = 1
            m[f + L.Q_VALUE] = 0
            st = L.S_RET
        elif not m[L.ENABLED]:
            m[_BR_DISABLED] += 1
            m[f + L.Q_INDEX] = 0
            st = L.S_ERASE
        elif m[L.ROOT_OBJCG]:
            m[f + L.Q_HAS_OBJCG] = 1
            st = L.S_MAY
        else:
            st = L.S_OBJCG
        if st == L.S_MAY:
            m[f + L.Q_EXPECTED] = may_zswap(m)
    elif st == L.S_OBJCG:
        has = 1 if code == _MAY or not m[L.SEES_MAY] else 0
        m[f + L.Q_HAS_OBJCG] = has
        if has:
            m[f + L.Q_EXPECTED] = may_zswap(m)
            st = L.S_MAY
        else:
            m[_BR_NO_OBJCG] += 1
            m[L.UNTOLD] = 1
            st = L.S_LIMITS
    elif st == L.S_MAY:
        allowed = answer if answered else m[f + L.Q_EXPECTED]
        if allowed < 0:
            return L.UNKNOWN
        if allowed == 0:
            m[_BR_MEMCG_FULL] += 1
            m[f + L.Q_MEMCG] = 0
            m[f + L.Q_SHRINK_THEN] = L.SHRINK_IN_STORE
            st = L.M_START
        else:
            st = L.S_LIMITS
    elif st == L.S_LIMITS:
        m[f + L.Q_VALUE] = m[L.PAGES]
        st = L.S_TOTAL
    elif st == L.S_TOTAL:
        current = answer if answered else m[f + L.Q_VALUE]
        if current >= m[L.MAX_PAGES]:
            m[_BR_FULL] += 1
            m[_BR_AT_LIMIT] += current == m[L.MAX_PAGES]
            m[L.N_LIMIT_HIT] += 1
            m[L.REACHED_FULL] = 1
        elif m[L.REACHED_FULL]:
            if current <= m[L.ACCEPT_PAGES]:
                m[_BR_ACCEPT] += 1
                m[_BR_AT_THRESHOLD] += current == m[L.ACCEPT_PAGES]
                m[L.REACHED_FULL] = 0
            else:
                m[_BR_BAND] += 1
        m[f + L.Q_INDEX] = 0
        if m[L.REACHED_FULL]:
            st = L.S_ERASE
        else:
            # Up to 6.12 the reference is the entry's own, later the store's.
            m[L.POOL_ENTRIES] += 1
            st = L.S_NEXT
    elif st == L.S_NEXT:
        entry = m[f + L.Q_ENTRY] = new_entry(m, m[f + L.Q_SWPENT] + m[f + L.Q_INDEX])
        m[f + L.Q_GEN] = m[entry + L.E_GEN]
        st = L.P_COMPRESS
    elif st == L.S_FAIL:
        if m[f + L.Q_INDEX]:
            m[_BR_PARTIAL] += 1
        m[L.POOL_ENTRIES] -= 1
        m[f + L.Q_INDEX] = 0
        st = L.S_ERASE
    elif st == L.S_ERASE:
        index = m[f + L.Q_INDEX]
        m[f + L.Q_VALUE] = 0
        st = L.S_RET
        while index < 1 << m[f + L.Q_ORDER]:
            old = forget(m, L.TREE_AT, m[f + L.Q_SWPENT] + index)
            index += 1
            if old >= 0:
                m[_BR_ERASE] += 1
                m[L.TREE] -= 1
                m[f + L.Q_FREED] = old
                m[f + L.Q_THEN] = L.THEN_ERASE
                st = L.F_START
                break
        m[f + L.Q_INDEX] = index
    elif st == L.S_RET:
        if m[f + L.Q_OP] == _STORE_OP:
            return L.END
        if m[f + L.Q_VALUE]:
            if m[f + L.Q_ORDER]:
                m[_BR_LARGE] += 1
            if m[f + L.Q_ORDER] and m[L.HAS_MTHP]:
                m[L.N_MTHP + m[f + L.Q_ORDER]] += 1
            m[f + L.Q_VALUE] = 0
            st = L.W_RET
        else:
            m[f + L.Q_EXPECTED] = m[L.WRITEBACK] if m[L.ENABLED] else 1
            st = L.W_ENABLED
    elif st == L.W_ENABLED:
        allowed = answer if answered else m[f + L.Q_EXPECTED]
        if allowed < 0:
            return L.UNKNOWN
        if allowed:
            m[_BR_DEVICE] += 1
            st = L.W_PAGE
        else:
            m[_BR_KEPT] += 1
            m[f + L.Q_VALUE] = AOP_WRITEPAGE_ACTIVATE
            st = L.W_RET
    elif st == L.W_PAGE:
        m[L.N_PSWPOUT] += 1 << m[f + L.Q_ORDER]
        m[f + L.Q_VALUE] = 0
        st = L.W_RET
    elif st == L.W_RET:
        return L.END
    # ---- zswap_store_page(), zswap_compress() --------------------------------------------------------
    elif st == L.P_COMPRESS:
        st = L.P_COMPRESS_RET
    elif st == L.P_COMPRESS_RET:
        err = answer
        dlen = m[f + L.Q_ANSWER2]
        m[m[f + L.Q_ENTRY] + L.E_CONTENT] = m[f + L.Q_CONTENT]
        m[f + L.Q_ERROR] = err
        m[f + L.Q_RAW] = 0
        m[f + L.Q_LENGTH] = dlen
        if err:
            m[_error_branch(err)] += 1
        elif dlen <= 0 or dlen >= PAGE_SIZE:
            m[_BR_WHOLE] += 1
        if m[L.KIND_612]:
            if err:
                count_reject(m, err, 0)
                end_entry(m, m[f + L.Q_ENTRY])
                st = L.S_FAIL
            else:
                st = L.P_MALLOC
        elif err or dlen == 0 or dlen >= PAGE_SIZE:
            m[f + L.Q_EXPECTED] = m[L.WRITEBACK] if m[L.ENABLED] else 1
            st = L.P_ENABLED
        else:
            st = L.P_MALLOC
    elif st == L.P_ENABLED:
        allowed = answer if answered else m[f + L.Q_EXPECTED]
        if allowed < 0:
            return L.UNKNOWN
        if allowed:
            m[_BR_RAW] += 1
            m[f + L.Q_RAW] = 1
            m[f + L.Q_LENGTH] = PAGE_SIZE
            st = L.P_MALLOC
        else:
            m[_BR_NO_WRITEBACK] += 1
            err = m[f + L.Q_ERROR]
            count_reject(m, err if err else _EINVAL, 0)
            end_entry(m, m[f + L.Q_ENTRY])
            st = L.S_FAIL
    # ---- zs_malloc() ---------------------------------------------------------------------------------
    elif st == L.P_MALLOC:
        size = m[f + L.Q_LENGTH] + HANDLE_SIZE
        raw = 0 if size <= MIN_ALLOC_SIZE else min(
            _LAST_CLASS, (size - MIN_ALLOC_SIZE + SIZE_CLASS_DELTA - 1) // SIZE_CLASS_DELTA)
        number = m[L.CLASS_OF + raw]
        m[f + L.Q_CLASS] = number
        m[f + L.Q_DRY] = m[number + L.K_DRY] if group_first(m, number, L.FIND, L.FIND_END, L.FIND_STEP) >= 0 else -1
        st = L.P_MALLOC_ERR
    elif st == L.P_MALLOC_ERR:
        failure = handle_at if code == _MALLOC_RET and -PAGE_SIZE < handle_at < 0 else 0
        if m[f + L.Q_LENGTH] == 0:
            failure = _EINVAL
        elif m[f + L.Q_LENGTH] > PAGE_SIZE:
            failure = _ENOSPC
        if failure:
            length = m[f + L.Q_LENGTH]
            m[_BR_NO_BYTES if length == 0 else _BR_TOO_LARGE if length > PAGE_SIZE else _BR_NO_MEMORY] += 1
            m[f + L.Q_VALUE] = failure
            st = L.P_MALLOC_RET
        else:
            number = m[f + L.Q_CLASS]
            m[f + L.Q_OBJ] = new_object(m, m[f + L.Q_LENGTH])
            zspage = group_first(m, number, L.FIND, L.FIND_END, L.FIND_STEP)
            m[f + L.Q_ZSPAGE] = zspage
            if zspage >= 0 and m[f + L.Q_DRY] != m[number + L.K_DRY]:
                st = L.P_MALLOC_NEW
            else:
                st = L.P_TAKE
    elif st == L.P_MALLOC_NEW:
        if code == _OBJ_MALLOC:
            known = find(m, L.ADDRESSES_AT, zspage_at)
            if known < 0 or m[known + L.Z_INUSE] == 0:
                m[_BR_RACED] += 1
                m[f + L.Q_ZSPAGE] = -1
        st = L.P_TAKE
    elif st == L.P_TAKE:
        m[f + L.Q_NEW] = 0
        if m[m[f + L.Q_CLASS] + L.K_HUGE]:
            m[_BR_HUGE] += 1
        if m[f + L.Q_ZSPAGE] >= 0:
            m[_BR_ROOM if m[m[f + L.Q_ZSPAGE] + L.Z_INUSE] else _BR_EMPTY] += 1
        else:
            m[_BR_NEW] += 1
            m[f + L.Q_NEW] = 1
            m[f + L.Q_ZSPAGE] = new_zspage(m, m[f + L.Q_CLASS])
        st = L.P_OBJ
    elif st == L.P_OBJ:
        if take(m, m[f + L.Q_ZSPAGE], m[f + L.Q_OBJ]) == L.UNKNOWN:
            return L.UNKNOWN
        st = L.P_OBJ_RET
    elif st == L.P_OBJ_RET:
        if m[f + L.Q_NEW]:
            number = m[f + L.Q_CLASS]
            zspage = m[f + L.Q_ZSPAGE]
            group_insert(m, zspage, fullness(m, zspage))
            m[number + L.K_ZSPAGES] += 1
            m[number + L.K_ALLOCATED] += m[number + L.K_OBJS]
            add_pages(m, m[number + L.K_PAGES])
            m[number + L.K_INUSE] += 1
            m[f + L.Q_VALUE] = 0
            st = L.P_MALLOC_RET
        else:
            st = L.P_FULL
    elif st == L.P_FULL:
        m[f + L.Q_VALUE] = fix_fullness(m, m[f + L.Q_ZSPAGE])
        if m[f + L.Q_VALUE] == L.UNKNOWN:
            return L.UNKNOWN
        st = L.P_FULL_RET
    elif st == L.P_FULL_RET:
        m[m[f + L.Q_CLASS] + L.K_INUSE] += 1
        m[f + L.Q_VALUE] = 0
        st = L.P_MALLOC_RET
    elif st == L.P_MALLOC_RET:
        if m[f + L.Q_VALUE]:
            count_reject(m, 0, m[f + L.Q_VALUE])
            end_entry(m, m[f + L.Q_ENTRY])
            st = L.S_FAIL
        elif m[L.KIND_612]:
            # zs_map_object(ZS_MM_WO) is the same function a load maps with.
            m[_BR_READ_TWO if on_two_pages(m, m[f + L.Q_OBJ], m[f + L.Q_LENGTH]) else _BR_READ_ONE] += 1
            st = L.P_MAP
        else:
            st = L.P_WRITE
    elif st == L.P_WRITE or st == L.P_MAP:
        entry = m[f + L.Q_ENTRY]
        m[entry + L.E_OBJ] = m[f + L.Q_OBJ]
        m[entry + L.E_LENGTH] = m[f + L.Q_LENGTH]
        if m[L.KIND_612]:
            m[entry + L.E_REF] = 1
        st = L.P_PUBLISH
    # ---- the entry goes into the tree ----------------------------------------------------------------
    elif st == L.P_PUBLISH:
        entry = m[f + L.Q_ENTRY]
        swpent = m[entry + L.E_SWPENT]
        old = find(m, L.TREE_AT, swpent)
        m[L.TREE] += keep(m, L.TREE_AT, swpent, entry)
        if old >= 0:
            m[_BR_REPLACE] += 1
            m[f + L.Q_FREED] = old
            m[f + L.Q_THEN] = L.THEN_PUBLISHED
            st = L.F_START
        else:
            st = L.P_PUBLISHED
    elif st == L.P_PUBLISHED:
        if not m[L.KIND_612]:
            m[L.POOL_ENTRIES] += 1
        st = L.P_CHARGE if m[f + L.Q_HAS_OBJCG] else L.P_CHARGED
    elif st == L.P_CHARGE:
        if answered:
            account = account_of(m, answer)
            m[account + L.G_HAS_ACCOUNT] = 1
            m[m[f + L.Q_ENTRY] + L.E_ABOUT] = account
            charge(m, account, m[m[f + L.Q_ENTRY] + L.E_LENGTH], 1)
        st = L.P_CHARGED
    elif st == L.P_CHARGED:
        entry = m[f + L.Q_ENTRY]
        if m[L.KIND_612]:
            if m[entry + L.E_ABOUT] >= 0:
                count(m, m[entry + L.E_ABOUT], L.G_ZSWPOUT, 1)
        else:
            m[L.N_STORED] += 1
            if m[entry + L.E_LENGTH] == PAGE_SIZE and m[L.HAS_INCOMP]:
                m[L.N_INCOMPRESSIBLE] += 1
            m[entry + L.E_REF] = 1
        st = L.P_LRU
    elif st == L.P_LRU:
        entry = m[f + L.Q_ENTRY]
        # Freed since it went into the tree, which the swap cache forbids.
        if m[entry + L.E_GEN] != m[f + L.Q_GEN]:
            return L.UNKNOWN
        nid, memcg = m[f + L.Q_ANSWER2], answer
        if not answered:
            about = m[entry + L.E_ABOUT]
            nid, memcg = 0, m[about + L.G_OBJCG] if about >= 0 else 0
        row = list_made(m, nid, memcg)
        m[f + L.Q_VALUE] = 1 - m[entry + L.E_LISTED]
        if not m[entry + L.E_LISTED]:
            list_add(m, row, entry)
        m[entry + L.E_WHERE] = row
        st = L.P_LRU_RET
    elif st == L.P_LRU_RET:
        if m[L.KIND_612]:
            m[L.N_STORED] += 1
            m[L.N_ZSWPOUT] += 1
            m[f + L.Q_VALUE] = 1
            st = L.S_RET
        else:
            m[f + L.Q_INDEX] += 1
            if m[f + L.Q_INDEX] < 1 << m[f + L.Q_ORDER]:
                st = L.S_NEXT
            else:
                pages = 1 << m[f + L.Q_ORDER]
                about = m[m[f + L.Q_ENTRY] + L.E_ABOUT]
                if about >= 0:
                    count(m, about, L.G_ZSWPOUT, pages)
                m[L.N_ZSWPOUT] += pages
                m[L.POOL_ENTRIES] -= 1
                m[f + L.Q_VALUE] = 1
                st = L.S_RET
    else:
        return L.UNKNOWN
    return st
