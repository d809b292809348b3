# SPDX-License-Identifier: GPL-2.0-or-later
"""One operation from the effect it stands at to its next one: the steps of the mainline revisions, compiled.

Each branch is what a generator of the model does between two of its yields, and mirrors the method that is named in
its comment: :class:`model.zswap.Zswap`, :class:`model.zsmalloc.ZsPool` and their siblings say why, and which kernel
function it is.  The state is named after the effect (or question) at which the generator is suspended.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

from numba import njit

from model import errno
from model.list_lru import LRU_REMOVED_RETRY, LRU_RETRY, LRU_ROTATE, LRU_STOP
from model.swap import AOP_WRITEPAGE_ACTIVATE
from replay.fast import layout as L
from replay.fast.tables import (
    account_of,
    find,
    forget,
    group_first,
    group_insert,
    group_remove,
    keep,
    list_add,
    list_of,
    list_remove,
)
from traces import schema

__all__ = ["ENDED", "STANDS", "UNKNOWN", "advance", "fullness"]

#: what became of an operation: it has ended, it stands at an effect or question, or only the reference can tell
ENDED, STANDS, UNKNOWN = range(3)

_EV: Final = schema.CODE
_STORE_OP: Final = _EV["zswap_store"]
_WRITEOUT_OP: Final = _EV["swap_writeout"]
_SCAN_OP: Final = _EV["zs_shrinker_scan"]
_WRITEOUT_RET: Final = _EV["swap_writeout_ret"]
_INVALIDATE: Final = _EV["zswap_invalidate"]
_MALLOC_RET: Final = _EV["zs_malloc_ret"]
_OBJ_MALLOC: Final = _EV["obj_malloc"]
_FREE_ZSPAGE: Final = _EV["__free_zspage"]
_MAY: Final = _EV["obj_cgroup_may_zswap_ret"]
_LOAD_RET: Final = _EV["zswap_load_ret"]
_DECOMPRESS: Final = _EV["zswap_decompress"]
_READ: Final = _EV["zs_obj_read"]
_WRITEBACK_RET: Final = _EV["zswap_writeback_entry_ret"]
_SHRINK: Final = _EV["shrink_memcg"]
_SHRINK_RET: Final = _EV["shrink_memcg_ret"]
_CB: Final = _EV["shrink_memcg_cb"]

_PAGE: Final = 4096
_MIN_ALLOC: Final = 32
_DELTA: Final = 16
_LAST_CLASS: Final = (_PAGE - _MIN_ALLOC + _DELTA - 1) // _DELTA
_FREELIST_END: Final = 0xFFFFFFFF
_FREELIST_MASK: Final = 0x7FFFFFFF
_UNKNOWN_LINK: Final = -1
_MAX_RECLAIM_RETRIES: Final = 16
_EINVAL, _ENOSPC, _ENOENT, _EIO, _EEXIST, _ENOMEM, _EAGAIN = (
    errno.EINVAL, errno.ENOSPC, errno.ENOENT, errno.EIO, errno.EEXIST, errno.ENOMEM, errno.EAGAIN)

#: where zswap_entry_free() was called from
_THEN_PUBLISHED, _THEN_ERASE, _THEN_LOADED, _THEN_END, _THEN_WRITE = range(5)
#: where shrink_memcg() was called from
_SHRINK_ALONE, _SHRINK_IN_STORE, _SHRINK_IN_WORKER = range(3)


@njit(nogil=True, inline="always")
def fullness(inuse, objs):
    """get_fullness_group()"""
    if inuse == 0:
        return 0
    if inuse == objs:
        return 11
    return 100 * inuse // objs // 10 + 1


@njit(nogil=True)
def _changes(account, accounts, history, s):
    """An account is about to change: remember what it was, as SnapshotChecks.remember() does."""
    row = s[L.CHANGES] % history.shape[0]
    s[L.CHANGES] += 1
    history[row, 0] = s[L.NOW]
    for column in range(6):
        history[row, 1 + column] = accounts[account, L.G_INCOMPRESSIBLE + column]
    history[row, 7] = s[L.N_SWPOUT_ZERO]


@njit(nogil=True)
def _charge(account, length, sign, accounts, history, s, setup):
    """MemcgZswap.charge() and its inverse."""
    _changes(account, accounts, history, s)
    accounts[account, L.G_ZSWAP] += sign * length
    accounts[account, L.G_ZSWAPPED] += sign
    if length == _PAGE and setup[L.ROOT_OBJCG]:
        accounts[account, L.G_INCOMPRESSIBLE] += sign


@njit(nogil=True)
def _count(account, column, pages, accounts, history, s):
    """MemcgZswap.count()"""
    _changes(account, accounts, history, s)
    accounts[account, column] += pages


@njit(nogil=True)
def _add_pages(pages, totals, s):
    """ZsPool._add_pages(), and Questions._total_changes() before it."""
    row = s[L.TOTALS] % totals.shape[0]
    s[L.TOTALS] += 1
    totals[row, 0] = s[L.NOW]
    totals[row, 1] = s[L.PAGES]
    s[L.PAGES] += pages


@njit(nogil=True)
def _new_zspage(number, zspages, links, places, classes, s):
    """Zspage(): a row of the class that is free, or a new one; linked as init_zspage() does."""
    objs = classes[number, L.K_OBJS]
    zspage = classes[number, L.K_SPARE]
    if zspage >= 0:
        classes[number, L.K_SPARE] = zspages[zspage, L.Z_NEXT]
    else:
        zspage = s[L.ZSPAGES_TOP]
        s[L.ZSPAGES_TOP] += 1
        zspages[zspage, L.Z_AT] = s[L.LINKS_TOP]
        s[L.LINKS_TOP] += objs
    at = zspages[zspage, L.Z_AT]
    zspages[zspage, L.Z_CLASS] = number
    zspages[zspage, L.Z_INUSE] = 0
    zspages[zspage, L.Z_FREEOBJ] = 0
    zspages[zspage, L.Z_GROUP] = 0
    zspages[zspage, L.Z_ADDRESS] = 0
    zspages[zspage, L.Z_LISTED] = 0
    for page in range(classes[number, L.K_PAGES]):
        zspages[zspage, L.Z_FRAMES + page] = -1
    for index in range(objs):
        links[at + index] = index + 1
        places[at + index] = -1
    if not classes[number, L.K_WASTED]:
        links[at + objs - 1] = _FREELIST_END
    return zspage


@njit(nogil=True)
def _drop(zspage, zspages, classes, addresses, totals, s):
    """ZsPool._drop(): a zspage that is on no list any more gives its pages back."""
    number = zspages[zspage, L.Z_CLASS]
    classes[number, L.K_ZSPAGES] -= 1
    classes[number, L.K_ALLOCATED] -= classes[number, L.K_OBJS]
    _add_pages(-classes[number, L.K_PAGES], totals, s)
    address = zspages[zspage, L.Z_ADDRESS]
    if find(addresses, address) == zspage:
        forget(addresses, address)
        s[L.ADDRESSES] -= 1
    zspages[zspage, L.Z_NEXT] = classes[number, L.K_SPARE]
    classes[number, L.K_SPARE] = zspage


@njit(nogil=True)
def _take(zspage, obj, zspages, links, places, objects):
    """ZsPool.obj_malloc() between its effects."""
    at = zspages[zspage, L.Z_AT]
    index = zspages[zspage, L.Z_FREEOBJ]
    zspages[zspage, L.Z_FREEOBJ] = links[at + index]
    places[at + index] = obj
    zspages[zspage, L.Z_INUSE] += 1
    objects[obj, L.O_ZSPAGE] = zspage
    objects[obj, L.O_INDEX] = index


@njit(nogil=True)
def _release(zspage, index, zspages, links, places, huge):
    """ZsPool._release()"""
    at = zspages[zspage, L.Z_AT]
    links[at + index] = _UNKNOWN_LINK if huge else zspages[zspage, L.Z_FREEOBJ] & _FREELIST_MASK
    zspages[zspage, L.Z_FREEOBJ] = index
    places[at + index] = -1
    zspages[zspage, L.Z_INUSE] -= 1


@njit(nogil=True)
def _fix_fullness(zspage, zspages, classes):
    """ZsPool.fix_fullness_group() between its effects; returns the group."""
    number = zspages[zspage, L.Z_CLASS]
    group = fullness(zspages[zspage, L.Z_INUSE], classes[number, L.K_OBJS])
    if group != zspages[zspage, L.Z_GROUP]:
        group_remove(zspages, classes, zspage)
        group_insert(zspages, classes, zspage, group)
        if group == 11 and group_first(classes, number, 10, -1, -1) < 0:
            classes[number, L.K_DRY] += 1
    return group


@njit(nogil=True)
def _new_entry(swpent, entries, s):
    """ZswapState.new_entry()"""
    entry = s[L.ENTRIES_SPARE]
    if entry >= 0:
        s[L.ENTRIES_SPARE] = entries[entry, L.E_NEXT]
    else:
        entry = s[L.ENTRIES_TOP]
        s[L.ENTRIES_TOP] += 1
        entries[entry, L.E_GEN] = 0
    s[L.ENTRIES_LIVE] += 1
    entries[entry, L.E_SWPENT] = swpent
    entries[entry, L.E_LENGTH] = 0
    entries[entry, L.E_OBJ] = -1
    entries[entry, L.E_ABOUT] = -1
    entries[entry, L.E_WHERE] = -1
    entries[entry, L.E_REF] = 0
    entries[entry, L.E_CONTENT] = -1
    entries[entry, L.E_ADDRESS] = 0
    entries[entry, L.E_LIVE] = 1
    entries[entry, L.E_SPAN_FROM] = -1
    entries[entry, L.E_LISTED] = 0
    return entry


@njit(nogil=True)
def _end_entry(entry, entries, s):
    """ZswapState.zswap_entry_cache_free()"""
    entries[entry, L.E_LIVE] = 0
    entries[entry, L.E_GEN] += 1
    entries[entry, L.E_NEXT] = s[L.ENTRIES_SPARE]
    s[L.ENTRIES_SPARE] = entry
    s[L.ENTRIES_LIVE] -= 1


@njit(nogil=True)
def _new_object(size, objects, s):
    """ZsObject()"""
    obj = s[L.OBJECTS_SPARE]
    if obj >= 0:
        s[L.OBJECTS_SPARE] = objects[obj, L.O_NEXT]
    else:
        obj = s[L.OBJECTS_TOP]
        s[L.OBJECTS_TOP] += 1
    s[L.OBJECTS_LIVE] += 1
    objects[obj, L.O_ADDRESS] = 0
    objects[obj, L.O_SIZE] = size
    objects[obj, L.O_ZSPAGE] = -1
    objects[obj, L.O_INDEX] = -1
    return obj


@njit(nogil=True)
def _count_reject(comp_ret, alloc_ret, s):
    """Zswap._count_reject()"""
    if comp_ret == _ENOSPC or alloc_ret == _ENOSPC:
        s[L.N_COMPRESS_POOR] += 1
    elif comp_ret:
        s[L.N_COMPRESS_FAIL] += 1
    elif alloc_ret:
        s[L.N_ALLOC_FAIL] += 1


@njit(nogil=True)
def _in_other_order(row, address, entries, lists, s):
    """Questions._other_order(): the entry a walk looks at, where additions overlapped; -1 for the head."""
    entry = lists[row, L.R_HEAD]
    found = -1
    while entry >= 0:
        if entries[entry, L.E_ADDRESS] == address:
            found = entry
            break
        if entries[entry, L.E_SPAN_FROM] < 0:
            return -1
        entry = entries[entry, L.E_NEXT]
    if found < 0 or found == lists[row, L.R_HEAD] or entries[found, L.E_SPAN_FROM] < 0:
        return -1
    entry = lists[row, L.R_HEAD]
    while entry != found:
        if entries[entry, L.E_SPAN_FROM] > entries[found, L.E_SPAN_TO] \
                or entries[found, L.E_SPAN_FROM] > entries[entry, L.E_SPAN_TO]:
            return -1
        entry = entries[entry, L.E_NEXT]
    s[L.REORDERED] += 1
    return found


@njit(nogil=True)
def advance(f, code, handle_at, zspage_at, ret_at, memcg_at, entry_at, frames, entries, objects, zspages, links,
            places, classes, class_of, descending, tree, addresses, accounts, lists, history, totals, s, setup,
            captured):
    """Run operation ``f`` to its next effect that was captured, or question; Engine.advance() compiled.

    :param code: of the event at hand, which answers questions; 0: wait at a question
    """
    st = frames[f, L.Q_STATE]
    answered = frames[f, L.Q_ANSWERED] if not frames[f, L.Q_WAITS] else 0
    answer = frames[f, L.Q_ANSWER]
    while True:
        # ---- zswap_store_page(), zswap_compress() --------------------------------------------------------
        if st == L.P_COMPRESS:
            st = L.P_COMPRESS_RET
        elif st == L.P_COMPRESS_RET:
            err = answer
            dlen = frames[f, L.Q_ANSWER2]
            entries[frames[f, L.Q_ENTRY], L.E_CONTENT] = frames[f, L.Q_CONTENT]
            frames[f, L.Q_ERROR] = err
            frames[f, L.Q_RAW] = 0
            frames[f, L.Q_LENGTH] = dlen
            if setup[L.KIND_612]:
                if err:
                    _count_reject(err, 0, s)
                    _end_entry(frames[f, L.Q_ENTRY], entries, s)
                    st = L.S_FAIL
                else:
                    st = L.P_MALLOC
            elif err or dlen == 0 or dlen >= _PAGE:
                frames[f, L.Q_EXPECTED] = s[L.WRITEBACK] if s[L.ENABLED] else 1
                st = L.P_ENABLED
            else:
                st = L.P_MALLOC
        elif st == L.P_ENABLED:
            allowed = answer if answered else frames[f, L.Q_EXPECTED]
            if allowed:
                frames[f, L.Q_RAW] = 1
                frames[f, L.Q_LENGTH] = _PAGE
                st = L.P_MALLOC
            else:
                err = frames[f, L.Q_ERROR]
                _count_reject(err if err else _EINVAL, 0, s)
                _end_entry(frames[f, L.Q_ENTRY], entries, s)
                st = L.S_FAIL
        # ---- zs_malloc() ---------------------------------------------------------------------------------
        elif st == L.P_MALLOC:
            size = frames[f, L.Q_LENGTH] + 8
            raw = 0 if size <= _MIN_ALLOC else min(_LAST_CLASS, (size - _MIN_ALLOC + _DELTA - 1) // _DELTA)
            number = class_of[raw]
            frames[f, L.Q_CLASS] = number
            frames[f, L.Q_DRY] = classes[number, L.K_DRY] if group_first(classes, number, 10, -1, -1) >= 0 else -1
            st = L.P_MALLOC_ERR
        elif st == L.P_MALLOC_ERR:
            failure = handle_at if code == _MALLOC_RET and -_PAGE < handle_at < 0 else 0
            if frames[f, L.Q_LENGTH] == 0:
                failure = _EINVAL
            elif frames[f, L.Q_LENGTH] > _PAGE:
                failure = _ENOSPC
            if failure:
                frames[f, L.Q_VALUE] = failure
                st = L.P_MALLOC_RET
            else:
                number = frames[f, L.Q_CLASS]
                frames[f, L.Q_OBJ] = _new_object(frames[f, L.Q_LENGTH], objects, s)
                zspage = group_first(classes, number, 10, -1, -1)
                frames[f, L.Q_ZSPAGE] = zspage
                if zspage >= 0 and frames[f, L.Q_DRY] != classes[number, L.K_DRY]:
                    st = L.P_MALLOC_NEW
                else:
                    st = L.P_TAKE
        elif st == L.P_MALLOC_NEW:
            if code == _OBJ_MALLOC:
                known = find(addresses, zspage_at)
                if known < 0 or zspages[known, L.Z_INUSE] == 0:
                    frames[f, L.Q_ZSPAGE] = -1
            st = L.P_TAKE
        elif st == L.P_TAKE:
            frames[f, L.Q_NEW] = 0
            if frames[f, L.Q_ZSPAGE] < 0:
                frames[f, L.Q_NEW] = 1
                frames[f, L.Q_ZSPAGE] = _new_zspage(frames[f, L.Q_CLASS], zspages, links, places, classes, s)
            st = L.P_OBJ
        elif st == L.P_OBJ:
            zspage = frames[f, L.Q_ZSPAGE]
            if zspages[zspage, L.Z_INUSE] >= classes[frames[f, L.Q_CLASS], L.K_OBJS]:
                return UNKNOWN
            _take(zspage, frames[f, L.Q_OBJ], zspages, links, places, objects)
            st = L.P_OBJ_RET
        elif st == L.P_OBJ_RET:
            if frames[f, L.Q_NEW]:
                number = frames[f, L.Q_CLASS]
                zspage = frames[f, L.Q_ZSPAGE]
                group_insert(zspages, classes, zspage,
                             fullness(zspages[zspage, L.Z_INUSE], classes[number, L.K_OBJS]))
                classes[number, L.K_ZSPAGES] += 1
                classes[number, L.K_ALLOCATED] += classes[number, L.K_OBJS]
                _add_pages(classes[number, L.K_PAGES], totals, s)
                classes[number, L.K_INUSE] += 1
                frames[f, L.Q_VALUE] = 0
                st = L.P_MALLOC_RET
            else:
                st = L.P_FULL
        elif st == L.P_FULL:
            if not zspages[frames[f, L.Q_ZSPAGE], L.Z_LISTED]:
                return UNKNOWN
            frames[f, L.Q_VALUE] = _fix_fullness(frames[f, L.Q_ZSPAGE], zspages, classes)
            st = L.P_FULL_RET
        elif st == L.P_FULL_RET:
            classes[frames[f, L.Q_CLASS], L.K_INUSE] += 1
            frames[f, L.Q_VALUE] = 0
            st = L.P_MALLOC_RET
        elif st == L.P_MALLOC_RET:
            if frames[f, L.Q_VALUE]:
                _count_reject(0, frames[f, L.Q_VALUE], s)
                _end_entry(frames[f, L.Q_ENTRY], entries, s)
                st = L.S_FAIL
            else:
                st = L.P_MAP if setup[L.KIND_612] else L.P_WRITE
        elif st == L.P_WRITE or st == L.P_MAP:
            entry = frames[f, L.Q_ENTRY]
            entries[entry, L.E_OBJ] = frames[f, L.Q_OBJ]
            entries[entry, L.E_LENGTH] = frames[f, L.Q_LENGTH]
            if setup[L.KIND_612]:
                entries[entry, L.E_REF] = 1
            st = L.P_PUBLISH
        # ---- the entry goes into the tree ----------------------------------------------------------------
        elif st == L.P_PUBLISH:
            entry = frames[f, L.Q_ENTRY]
            swpent = entries[entry, L.E_SWPENT]
            old = find(tree, swpent)
            s[L.TREE] += keep(tree, swpent, entry)
            if old >= 0:
                frames[f, L.Q_FREED] = old
                frames[f, L.Q_THEN] = _THEN_PUBLISHED
                st = L.F_START
            else:
                st = L.P_PUBLISHED
        elif st == L.P_PUBLISHED:
            if not setup[L.KIND_612]:
                s[L.POOL_ENTRIES] += 1
            st = L.P_CHARGE if frames[f, L.Q_HAS_OBJCG] else L.P_CHARGED
        elif st == L.P_CHARGE:
            if answered:
                account = account_of(accounts, s, answer)
                accounts[account, L.G_HAS_ACCOUNT] = 1
                entries[frames[f, L.Q_ENTRY], L.E_ABOUT] = account
                _charge(account, entries[frames[f, L.Q_ENTRY], L.E_LENGTH], 1, accounts, history, s, setup)
            st = L.P_CHARGED
        elif st == L.P_CHARGED:
            entry = frames[f, L.Q_ENTRY]
            if setup[L.KIND_612]:
                if entries[entry, L.E_ABOUT] >= 0:
                    _count(entries[entry, L.E_ABOUT], L.G_ZSWPOUT, 1, accounts, history, s)
            else:
                s[L.N_STORED] += 1
                if entries[entry, L.E_LENGTH] == _PAGE and setup[L.HAS_INCOMP]:
                    s[L.N_INCOMPRESSIBLE] += 1
                entries[entry, L.E_REF] = 1
            st = L.P_LRU
        elif st == L.P_LRU:
            entry = frames[f, L.Q_ENTRY]
            nid, memcg = frames[f, L.Q_ANSWER2], answer
            if not answered:
                about = entries[entry, L.E_ABOUT]
                nid, memcg = 0, accounts[about, L.G_OBJCG] if about >= 0 else 0
            row = list_of(lists, s, nid, memcg)
            if row < 0:
                row = s[L.LISTS]
                s[L.LISTS] += 1
                lists[row, L.R_NID], lists[row, L.R_MEMCG] = nid, memcg
                lists[row, L.R_HEAD], lists[row, L.R_TAIL] = -1, -1
                lists[row, L.R_COUNT], lists[row, L.R_ALIVE] = 0, 1
            frames[f, L.Q_VALUE] = 1 - entries[entry, L.E_LISTED]
            if not entries[entry, L.E_LISTED]:
                list_add(lists, entries, row, entry)
            entries[entry, L.E_WHERE] = row
            st = L.P_LRU_RET
        elif st == L.P_LRU_RET:
            if setup[L.KIND_612]:
                s[L.N_STORED] += 1
                s[L.N_ZSWPOUT] += 1
                frames[f, L.Q_VALUE] = 1
                st = L.S_RET
            else:
                frames[f, L.Q_INDEX] += 1
                if frames[f, L.Q_INDEX] < 1 << frames[f, L.Q_ORDER]:
                    st = L.S_NEXT
                else:
                    pages = 1 << frames[f, L.Q_ORDER]
                    about = entries[frames[f, L.Q_ENTRY], L.E_ABOUT]
                    if about >= 0:
                        _count(about, L.G_ZSWPOUT, pages, accounts, history, s)
                    s[L.N_ZSWPOUT] += pages
                    s[L.POOL_ENTRIES] -= 1
                    frames[f, L.Q_VALUE] = 1
                    st = L.S_RET
        # ---- swap_writeout(), zswap_store() --------------------------------------------------------------
        elif st == L.W_START:
            st = L.W_WHAT
        elif st == L.W_WHAT:
            if code == _WRITEOUT_RET:
                for account in range(s[L.ACCOUNTS]):
                    if accounts[account, L.G_HAS_ACCOUNT]:
                        _changes(account, accounts, history, s)
                s[L.N_SWPOUT_ZERO] += 1 << frames[f, L.Q_ORDER]
                frames[f, L.Q_VALUE] = 0
                st = L.W_RET
            elif code == _INVALIDATE:
                frames[f, L.Q_VALUE] = 0
                st = L.W_RET
            else:
                st = L.S_START
        elif st == L.S_START:
            if setup[L.KIND_612] and frames[f, L.Q_ORDER]:
                s[L.UNTOLD] = 1
                frames[f, L.Q_VALUE] = 0
                st = L.S_RET
            elif not s[L.ENABLED]:
                frames[f, L.Q_INDEX] = 0
                st = L.S_ERASE
            elif setup[L.ROOT_OBJCG]:
                frames[f, L.Q_HAS_OBJCG] = 1
                st = L.S_MAY
            else:
                st = L.S_OBJCG
            if st == L.S_MAY:
                frames[f, L.Q_EXPECTED] = _may_zswap(accounts, s)
        elif st == L.S_OBJCG:
            has = 1 if code == _MAY or not setup[L.SEES_MAY] else 0
            frames[f, L.Q_HAS_OBJCG] = has
            if has:
                frames[f, L.Q_EXPECTED] = _may_zswap(accounts, s)
                st = L.S_MAY
            else:
                s[L.UNTOLD] = 1
                st = L.S_LIMITS
        elif st == L.S_MAY:
            allowed = answer if answered else frames[f, L.Q_EXPECTED]
            if allowed == 0:
                frames[f, L.Q_MEMCG] = 0
                frames[f, L.Q_SHRINK_THEN] = _SHRINK_IN_STORE
                st = L.M_START
            else:
                st = L.S_LIMITS
        elif st == L.S_LIMITS:
            frames[f, L.Q_VALUE] = s[L.PAGES]
            st = L.S_TOTAL
        elif st == L.S_TOTAL:
            current = answer if answered else frames[f, L.Q_VALUE]
            if current >= s[L.MAX_PAGES]:
                s[L.N_LIMIT_HIT] += 1
                s[L.REACHED_FULL] = 1
            elif s[L.REACHED_FULL] and current <= s[L.ACCEPT_PAGES]:
                s[L.REACHED_FULL] = 0
            frames[f, L.Q_INDEX] = 0
            if s[L.REACHED_FULL]:
                st = L.S_ERASE
            else:
                # Up to 6.12 the reference is the entry's own, later the store's.
                s[L.POOL_ENTRIES] += 1
                st = L.S_NEXT
        elif st == L.S_NEXT:
            frames[f, L.Q_ENTRY] = _new_entry(frames[f, L.Q_SWPENT] + frames[f, L.Q_INDEX], entries, s)
            st = L.P_COMPRESS
        elif st == L.S_FAIL:
            s[L.POOL_ENTRIES] -= 1
            frames[f, L.Q_INDEX] = 0
            st = L.S_ERASE
        elif st == L.S_ERASE:
            index = frames[f, L.Q_INDEX]
            frames[f, L.Q_VALUE] = 0
            st = L.S_RET
            while index < 1 << frames[f, L.Q_ORDER]:
                old = forget(tree, frames[f, L.Q_SWPENT] + index)
                index += 1
                if old >= 0:
                    s[L.TREE] -= 1
                    frames[f, L.Q_FREED] = old
                    frames[f, L.Q_THEN] = _THEN_ERASE
                    st = L.F_START
                    break
            frames[f, L.Q_INDEX] = index
        elif st == L.S_RET:
            if frames[f, L.Q_OP] == _STORE_OP:
                return ENDED
            if frames[f, L.Q_VALUE]:
                if frames[f, L.Q_ORDER] and setup[L.HAS_MTHP]:
                    s[L.N_MTHP + frames[f, L.Q_ORDER]] += 1
                frames[f, L.Q_VALUE] = 0
                st = L.W_RET
            else:
                frames[f, L.Q_EXPECTED] = s[L.WRITEBACK] if s[L.ENABLED] else 1
                st = L.W_ENABLED
        elif st == L.W_ENABLED:
            allowed = answer if answered else frames[f, L.Q_EXPECTED]
            if allowed:
                st = L.W_PAGE
            else:
                frames[f, L.Q_VALUE] = AOP_WRITEPAGE_ACTIVATE
                st = L.W_RET
        elif st == L.W_PAGE:
            s[L.N_PSWPOUT] += 1 << frames[f, L.Q_ORDER]
            frames[f, L.Q_VALUE] = 0
            st = L.W_RET
        elif st == L.W_RET:
            return ENDED
        # ---- zswap_entry_free(), zs_free() ---------------------------------------------------------------
        elif st == L.F_START:
            st = L.F_LRU
        elif st == L.F_LRU:
            entry = frames[f, L.Q_FREED]
            if entries[entry, L.E_LISTED]:
                list_remove(lists, entries, entries[entry, L.E_WHERE], entry)
            frames[f, L.Q_OBJ] = entries[entry, L.E_OBJ]
            st = L.Z_START
        elif st == L.Z_START:
            obj = frames[f, L.Q_OBJ]
            zspage = objects[obj, L.O_ZSPAGE]
            frames[f, L.Q_ZSPAGE] = zspage
            frames[f, L.Q_CLASS] = zspages[zspage, L.Z_CLASS]
            frames[f, L.Q_PLACE] = objects[obj, L.O_INDEX]
            classes[zspages[zspage, L.Z_CLASS], L.K_INUSE] -= 1
            st = L.Z_OBJ
        elif st == L.Z_OBJ:
            obj = frames[f, L.Q_OBJ]
            _release(frames[f, L.Q_ZSPAGE], frames[f, L.Q_PLACE], zspages, links, places,
                     classes[frames[f, L.Q_CLASS], L.K_HUGE])
            objects[obj, L.O_NEXT] = s[L.OBJECTS_SPARE]
            s[L.OBJECTS_SPARE] = obj
            s[L.OBJECTS_LIVE] -= 1
            st = L.Z_FULL
        elif st == L.Z_FULL:
            if not zspages[frames[f, L.Q_ZSPAGE], L.Z_LISTED]:
                return UNKNOWN
            frames[f, L.Q_VALUE] = _fix_fullness(frames[f, L.Q_ZSPAGE], zspages, classes)
            st = L.Z_FULL_RET
        elif st == L.Z_FULL_RET:
            st = L.Z_LOCK if frames[f, L.Q_VALUE] == 0 else L.Z_DONE
        elif st == L.Z_LOCK:
            st = L.Z_PAGES if code == _FREE_ZSPAGE or not setup[L.SEES_PAGES_FREE] else L.Z_DONE
        elif st == L.Z_PAGES:
            zspage = frames[f, L.Q_ZSPAGE]
            if not zspages[zspage, L.Z_LISTED]:
                return UNKNOWN
            group_remove(zspages, classes, zspage)
            _drop(zspage, zspages, classes, addresses, totals, s)
            st = L.Z_DONE
        elif st == L.Z_DONE:
            s[L.POOL_ENTRIES] -= 1
            st = L.F_UNCHARGE if entries[frames[f, L.Q_FREED], L.E_ABOUT] >= 0 else L.F_DONE
        elif st == L.F_UNCHARGE:
            entry = frames[f, L.Q_FREED]
            _charge(entries[entry, L.E_ABOUT], entries[entry, L.E_LENGTH], -1, accounts, history, s, setup)
            st = L.F_DONE
        elif st == L.F_DONE:
            entry = frames[f, L.Q_FREED]
            if entries[entry, L.E_LENGTH] == _PAGE and setup[L.HAS_INCOMP]:
                s[L.N_INCOMPRESSIBLE] -= 1
            _end_entry(entry, entries, s)
            s[L.N_STORED] -= 1
            then = frames[f, L.Q_THEN]
            if then == _THEN_PUBLISHED:
                st = L.P_PUBLISHED
            elif then == _THEN_ERASE:
                st = L.S_ERASE
            elif then == _THEN_LOADED:
                frames[f, L.Q_VALUE] = 1 if setup[L.KIND_612] else 0
                st = L.L_RET
            elif then == _THEN_WRITE:
                st = L.B_PAGE
            else:
                return ENDED
        # ---- zswap_load(), zswap_decompress(), zswap_invalidate() ------------------------------------------
        elif st == L.L_START:
            entry = find(tree, frames[f, L.Q_SWPENT])
            if entry < 0:
                s[L.N_PSWPIN] += 1
                frames[f, L.Q_VALUE] = 0 if setup[L.KIND_612] else _ENOENT
                st = L.L_RET
            else:
                frames[f, L.Q_READ] = entry
                frames[f, L.Q_GEN] = entries[entry, L.E_GEN]
                frames[f, L.Q_READ_THEN] = 0
                st = L.D_START
        elif st == L.I_START:
            entry = forget(tree, frames[f, L.Q_SWPENT])
            if entry < 0:
                return ENDED
            s[L.TREE] -= 1
            frames[f, L.Q_FREED] = entry
            frames[f, L.Q_THEN] = _THEN_END
            st = L.F_START
        elif st == L.D_START:
            st = L.D_READ
        elif st == L.D_READ:
            raw = entries[frames[f, L.Q_READ], L.E_LENGTH] == _PAGE and not setup[L.KIND_612]
            st = L.D_GOOD if raw else L.D_CALL
        elif st == L.D_CALL:
            st = L.D_CALL_RET
        elif st == L.D_CALL_RET:
            good = not answered or (answer == 0 and frames[f, L.Q_ANSWER2] == _PAGE)
            st = L.D_GOOD if good or setup[L.KIND_612] else L.D_BAD
        elif st == L.D_BAD:
            s[L.N_DECOMPRESS_FAIL] += 1
            if frames[f, L.Q_READ_THEN]:
                frames[f, L.Q_WRITTEN] = _EIO
                st = L.B_DONE
            else:
                frames[f, L.Q_VALUE] = _EIO
                st = L.L_RET
        elif st == L.D_GOOD:
            entry = frames[f, L.Q_READ]
            if entries[entry, L.E_GEN] != frames[f, L.Q_GEN]:
                return UNKNOWN
            about = entries[entry, L.E_ABOUT]
            if frames[f, L.Q_READ_THEN]:
                if not setup[L.KIND_612] and forget(tree, frames[f, L.Q_VICTIM_SWPENT]) >= 0:
                    s[L.TREE] -= 1
                s[L.N_ZSWPWB] += 1
                if about >= 0:
                    _count(about, L.G_ZSWPWB, 1, accounts, history, s)
                frames[f, L.Q_FREED] = entry
                frames[f, L.Q_THEN] = _THEN_WRITE
                st = L.F_START
            else:
                s[L.N_ZSWPIN] += 1
                if about >= 0:
                    _count(about, L.G_ZSWPIN, 1, accounts, history, s)
                st = L.L_CACHED if setup[L.KIND_CACHED] else L.L_FREE
        elif st == L.L_CACHED:
            if code == _LOAD_RET:
                frames[f, L.Q_VALUE] = 1 if setup[L.KIND_612] else 0
                st = L.L_RET
            else:
                st = L.L_FREE
        elif st == L.L_FREE:
            entry = frames[f, L.Q_READ]
            if entries[entry, L.E_GEN] != frames[f, L.Q_GEN]:
                return UNKNOWN
            if forget(tree, frames[f, L.Q_SWPENT]) >= 0:
                s[L.TREE] -= 1
            frames[f, L.Q_FREED] = entry
            frames[f, L.Q_THEN] = _THEN_LOADED
            st = L.F_START
        elif st == L.L_RET:
            return ENDED
        # ---- zs_compact() ----------------------------------------------------------------------------------
        elif st == L.C_SCAN:
            st = L.C_COMPACT
        elif st == L.C_COMPACT:
            frames[f, L.Q_POOL_FREED] = 0
            if s[L.COMPACTING]:
                frames[f, L.Q_VALUE] = 0
                st = L.C_COMPACT_RET
            else:
                s[L.COMPACTING] = 1
                frames[f, L.Q_CLASS_AT] = 0
                st = L.C_NEXT
        elif st == L.C_NEXT:
            if frames[f, L.Q_CLASS_AT] == descending.shape[0]:
                s[L.COMPACTING] = 0
                s[L.COMPACTED] += frames[f, L.Q_POOL_FREED]
                frames[f, L.Q_VALUE] = frames[f, L.Q_POOL_FREED]
                st = L.C_COMPACT_RET
            else:
                frames[f, L.Q_CLASS] = descending[frames[f, L.Q_CLASS_AT]]
                st = L.C_CLASS
        elif st == L.C_CLASS:
            frames[f, L.Q_DST] = -1
            frames[f, L.Q_CLASS_FREED] = 0
            st = L.C_LOOP
        elif st == L.C_LOOP:
            number = frames[f, L.Q_CLASS]
            st = L.C_AFTER
            if (classes[number, L.K_ALLOCATED] - classes[number, L.K_INUSE]) // classes[number, L.K_OBJS] > 0:
                if frames[f, L.Q_DST] < 0:
                    frames[f, L.Q_DST] = group_first(classes, number, 10, 0, -1)
                    if frames[f, L.Q_DST] >= 0:
                        group_remove(zspages, classes, frames[f, L.Q_DST])
                if frames[f, L.Q_DST] >= 0:
                    frames[f, L.Q_SRC] = group_first(classes, number, 1, 11, 1)
                    if frames[f, L.Q_SRC] >= 0:
                        group_remove(zspages, classes, frames[f, L.Q_SRC])
                        frames[f, L.Q_AT] = 0
                        st = L.C_LOCK if setup[L.TRYLOCKS] else L.C_MOVE
            if st == L.C_AFTER:
                st = _class_done(f, frames, zspages, classes)
        elif st == L.C_LOCK:
            if code == _OBJ_MALLOC:
                st = L.C_MOVE
            else:
                source = frames[f, L.Q_SRC]
                group_insert(zspages, classes, source, fullness(zspages[source, L.Z_INUSE],
                                                                classes[frames[f, L.Q_CLASS], L.K_OBJS]))
                st = _class_done(f, frames, zspages, classes)
        elif st == L.C_MOVE:
            number, source = frames[f, L.Q_CLASS], frames[f, L.Q_SRC]
            at = zspages[source, L.Z_AT]
            index = frames[f, L.Q_AT]
            while index < classes[number, L.K_OBJS] and places[at + index] < 0:
                index += 1
            frames[f, L.Q_AT] = index
            if index < classes[number, L.K_OBJS]:
                frames[f, L.Q_OBJ] = places[at + index]
                frames[f, L.Q_ZSPAGE] = frames[f, L.Q_DST]
                st = L.C_OBJ
            else:
                st = L.C_MOVED
        elif st == L.C_OBJ:
            target = frames[f, L.Q_DST]
            if zspages[target, L.Z_INUSE] >= classes[frames[f, L.Q_CLASS], L.K_OBJS]:
                return UNKNOWN
            _take(target, frames[f, L.Q_OBJ], zspages, links, places, objects)
            st = L.C_OBJ_RET
        elif st == L.C_OBJ_RET:
            frames[f, L.Q_PLACE] = frames[f, L.Q_AT]
            frames[f, L.Q_ZSPAGE] = frames[f, L.Q_SRC]
            st = L.C_FREE
        elif st == L.C_FREE:
            number, source = frames[f, L.Q_CLASS], frames[f, L.Q_SRC]
            _release(source, frames[f, L.Q_AT], zspages, links, places, classes[number, L.K_HUGE])
            if zspages[frames[f, L.Q_DST], L.Z_INUSE] == classes[number, L.K_OBJS] \
                    or zspages[source, L.Z_INUSE] == 0:
                st = L.C_MOVED
            else:
                # On from the place behind the one just emptied.
                frames[f, L.Q_AT] += 1
                st = L.C_MOVE
        elif st == L.C_MOVED:
            source, number = frames[f, L.Q_SRC], frames[f, L.Q_CLASS]
            group = fullness(zspages[source, L.Z_INUSE], classes[number, L.K_OBJS])
            group_insert(zspages, classes, source, group)
            frames[f, L.Q_ZSPAGE] = source
            st = L.C_PAGES_LOCK if group == 0 else L.C_AFTER
        elif st == L.C_PAGES_LOCK:
            # Pages that cannot be locked are counted as freed all the same.
            frames[f, L.Q_CLASS_FREED] += classes[frames[f, L.Q_CLASS], L.K_PAGES]
            st = L.C_PAGES if code == _FREE_ZSPAGE or not setup[L.SEES_PAGES_FREE] else L.C_AFTER
        elif st == L.C_PAGES:
            source = frames[f, L.Q_SRC]
            if not zspages[source, L.Z_LISTED]:
                return UNKNOWN
            group_remove(zspages, classes, source)
            _drop(source, zspages, classes, addresses, totals, s)
            st = L.C_AFTER
        elif st == L.C_AFTER:
            target = frames[f, L.Q_DST]
            if zspages[target, L.Z_INUSE] == classes[frames[f, L.Q_CLASS], L.K_OBJS]:
                group_insert(zspages, classes, target, 11)
                frames[f, L.Q_DST] = -1
            st = L.C_LOOP
        elif st == L.C_CLASS_RET:
            frames[f, L.Q_POOL_FREED] += frames[f, L.Q_CLASS_FREED]
            frames[f, L.Q_CLASS_AT] += 1
            st = L.C_NEXT
        elif st == L.C_COMPACT_RET:
            if frames[f, L.Q_OP] != _SCAN_OP:
                return ENDED
            frames[f, L.Q_VALUE] = frames[f, L.Q_POOL_FREED] if frames[f, L.Q_POOL_FREED] else -1
            st = L.C_SCAN_RET
        elif st == L.C_SCAN_RET:
            return ENDED
        # ---- async_free_zspage() -----------------------------------------------------------------------------
        elif st == L.A_START:
            first = last = -1
            for at in range(descending.shape[0]):
                number = descending[at]
                while classes[number, L.K_HEAD] >= 0:
                    zspage = classes[number, L.K_HEAD]
                    group_remove(zspages, classes, zspage)
                    zspages[zspage, L.Z_NEXT] = -1
                    if last < 0:
                        first = zspage
                    else:
                        zspages[last, L.Z_NEXT] = zspage
                    last = zspage
            frames[f, L.Q_DST] = first
            st = L.A_NEXT
        elif st == L.A_NEXT:
            if frames[f, L.Q_DST] < 0:
                return ENDED
            frames[f, L.Q_ZSPAGE] = frames[f, L.Q_DST]
            frames[f, L.Q_DST] = zspages[frames[f, L.Q_ZSPAGE], L.Z_NEXT]
            frames[f, L.Q_CLASS] = zspages[frames[f, L.Q_ZSPAGE], L.Z_CLASS]
            st = L.A_PAGES
        elif st == L.A_PAGES:
            _drop(frames[f, L.Q_ZSPAGE], zspages, classes, addresses, totals, s)
            st = L.A_NEXT
        # ---- shrink_memcg() and what calls it, the walk of an LRU ----------------------------------------------
        elif st == L.M_START:
            if answered:
                frames[f, L.Q_MEMCG] = answer
            frames[f, L.Q_EXPECTED] = -1 if s[L.WAS_OFF] and s[L.ENABLED] else 1
            st = L.M_ENABLED
        elif st == L.M_ENABLED:
            allowed = answer if answered else frames[f, L.Q_EXPECTED]
            if allowed < 0:
                allowed = s[L.WRITEBACK]
            if allowed:
                st = L.M_ONLINE
            else:
                frames[f, L.Q_VALUE] = _ENOENT
                st = L.M_RET
        elif st == L.M_ONLINE:
            frames[f, L.Q_VALUE] = _ENOENT
            st = L.M_RET
            if code != _SHRINK_RET:
                nid, several = -1, False
                for row in range(s[L.LISTS]):
                    if lists[row, L.R_ALIVE] and lists[row, L.R_MEMCG] == frames[f, L.Q_MEMCG]:
                        several = several or nid >= 0
                        nid = lists[row, L.R_NID]
                if several:
                    return UNKNOWN
                frames[f, L.Q_NID] = max(nid, 0)
                frames[f, L.Q_LISTED_AS] = frames[f, L.Q_MEMCG]
                frames[f, L.Q_LIST] = list_of(lists, s, frames[f, L.Q_NID], frames[f, L.Q_MEMCG])
                frames[f, L.Q_BUDGET] = setup[L.SHRINK_BUDGET]
                frames[f, L.Q_REMOVED] = 0
                frames[f, L.Q_WALK] = 0
                frames[f, L.Q_MET] = 0
                st = L.V_LOOP
        elif st == L.M_RET:
            result, then = frames[f, L.Q_VALUE], frames[f, L.Q_SHRINK_THEN]
            if then == _SHRINK_ALONE:
                return ENDED
            if then == _SHRINK_IN_STORE:
                frames[f, L.Q_INDEX] = 0
                st = L.S_LIMITS if result == 0 else L.S_ERASE
            else:
                st = L.K_TOTALS
                if result != _ENOENT:
                    frames[f, L.Q_ATTEMPTS] += 1
                    if result:
                        frames[f, L.Q_FAILURES] += 1
                        if frames[f, L.Q_FAILURES] == _MAX_RECLAIM_RETRIES:
                            st = L.K_RET
        elif st == L.N_START:
            frames[f, L.Q_VALUE] = -1
            if s[L.SHRINKER]:
                frames[f, L.Q_EXPECTED] = -1 if s[L.WAS_OFF] and s[L.ENABLED] else 1
                st = L.N_ENABLED
            else:
                st = L.N_RET
        elif st == L.N_ENABLED:
            allowed = answer if answered else frames[f, L.Q_EXPECTED]
            if allowed < 0:
                allowed = s[L.WRITEBACK]
            frames[f, L.Q_VALUE] = -1
            st = L.N_RET
            if allowed:
                frames[f, L.Q_LISTED_AS] = frames[f, L.Q_MEMCG]
                frames[f, L.Q_LIST] = list_of(lists, s, frames[f, L.Q_NID], frames[f, L.Q_MEMCG])
                frames[f, L.Q_REMOVED] = 0
                frames[f, L.Q_WALK] = 1
                frames[f, L.Q_MET] = 0
                st = L.V_LOOP
        elif st == L.N_RET:
            return ENDED
        elif st == L.K_START:
            st = L.K_NEXT
        elif st == L.K_NEXT:
            if code == _SHRINK:
                frames[f, L.Q_MEMCG] = memcg_at
                frames[f, L.Q_SHRINK_THEN] = _SHRINK_IN_WORKER
                st = L.M_START
            else:
                st = L.K_TOTALS
                if not frames[f, L.Q_ATTEMPTS]:
                    frames[f, L.Q_FAILURES] += 1
                    if frames[f, L.Q_FAILURES] == _MAX_RECLAIM_RETRIES:
                        st = L.K_RET
                if st == L.K_TOTALS:
                    frames[f, L.Q_ATTEMPTS] = 0
        elif st == L.K_TOTALS:
            frames[f, L.Q_VALUE] = s[L.PAGES]
            st = L.K_TOTAL
        elif st == L.K_TOTAL:
            current = answer if answered else frames[f, L.Q_VALUE]
            st = L.K_RET if current <= frames[f, L.Q_THRESHOLD] else L.K_NEXT
        elif st == L.K_RET:
            return ENDED
        elif st == L.V_LOOP:
            row = frames[f, L.Q_LIST]
            if frames[f, L.Q_BUDGET] == 0:
                st = L.V_END
            elif row < 0 or lists[row, L.R_COUNT] == 0:
                st = L.V_OTHER
            else:
                st = L.V_ORDER
        elif st == L.V_OTHER:
            st = L.V_END
            if code == _CB and not setup[L.ROOT_OBJCG] and frames[f, L.Q_LISTED_AS] != 0:
                row = list_of(lists, s, frames[f, L.Q_NID], 0)
                entry = lists[row, L.R_HEAD] if row >= 0 else -1
                while entry >= 0 and entries[entry, L.E_ADDRESS] != entry_at:
                    entry = entries[entry, L.E_NEXT]
                if entry >= 0:
                    s[L.ROOT_MEMCG] = frames[f, L.Q_LISTED_AS]
                    frames[f, L.Q_LISTED_AS] = 0
                    frames[f, L.Q_LIST] = row
                    st = L.V_LOOP
        elif st == L.V_ORDER:
            row = frames[f, L.Q_LIST]
            entry = lists[row, L.R_HEAD]
            if code == _CB:
                other = _in_other_order(row, entry_at, entries, lists, s)
                if other >= 0:
                    entry = other
            frames[f, L.Q_ALONE] = 1 if lists[row, L.R_COUNT] == 1 else 0
            frames[f, L.Q_BUDGET] -= 1
            list_remove(lists, entries, row, entry)
            list_add(lists, entries, row, entry)
            frames[f, L.Q_VICTIM] = entry
            frames[f, L.Q_GEN] = entries[entry, L.E_GEN]
            frames[f, L.Q_VICTIM_SWPENT] = entries[entry, L.E_SWPENT]
            frames[f, L.Q_NEW] = entries[entry, L.E_REF]
            entries[entry, L.E_REF] = 0
            st = L.V_CB
        elif st == L.V_CB:
            if frames[f, L.Q_NEW]:
                frames[f, L.Q_VALUE] = LRU_ROTATE
                st = L.V_CB_RET
            else:
                st = L.B_START if setup[L.KIND_612] else L.B_CACHE
        elif st == L.B_START:
            st = L.B_CACHE
        elif st == L.B_CACHE:
            if code == _DECOMPRESS or code == _READ:
                failure = 0
            elif code == _WRITEBACK_RET:
                failure = ret_at
            else:
                failure = _EEXIST if ret_at == LRU_STOP else _ENOMEM
            entry = frames[f, L.Q_VICTIM]
            gone = find(tree, frames[f, L.Q_VICTIM_SWPENT]) != entry or entries[entry, L.E_GEN] != frames[f, L.Q_GEN]
            st = L.B_DONE
            if failure:
                frames[f, L.Q_WRITTEN] = failure
                if setup[L.MAPS_FAILURE] and failure != _EEXIST:
                    frames[f, L.Q_WRITTEN] = _ENOMEM
            elif gone:
                frames[f, L.Q_WRITTEN] = _ENOMEM
            else:
                if setup[L.KIND_612]:
                    forget(tree, frames[f, L.Q_VICTIM_SWPENT])
                    s[L.TREE] -= 1
                frames[f, L.Q_READ] = entry
                frames[f, L.Q_READ_THEN] = 1
                st = L.D_START
        elif st == L.B_PAGE:
            s[L.N_PSWPOUT] += 1
            frames[f, L.Q_WRITTEN] = 0
            st = L.B_DONE
        elif st == L.B_DONE and setup[L.KIND_612]:
            frames[f, L.Q_VALUE] = frames[f, L.Q_WRITTEN]
            st = L.B_RET
        elif st == L.B_DONE or st == L.B_RET:
            failure = frames[f, L.Q_WRITTEN]
            if failure:
                s[L.N_RECLAIM_FAIL] += 1
                frames[f, L.Q_VALUE] = LRU_STOP if failure == _EEXIST and frames[f, L.Q_WALK] else LRU_RETRY
            else:
                s[L.N_WRITTEN_BACK] += 1
                frames[f, L.Q_VALUE] = LRU_REMOVED_RETRY
            st = L.V_CB_RET
        elif st == L.V_CB_RET:
            status = frames[f, L.Q_VALUE]
            st = L.V_LOOP
            if status == LRU_ROTATE:
                if frames[f, L.Q_ALONE]:
                    st = L.V_END
            elif status == LRU_STOP:
                frames[f, L.Q_MET] = 1
                st = L.V_END
            elif status == LRU_REMOVED_RETRY:
                frames[f, L.Q_REMOVED] += 1
        elif st == L.V_END:
            removed = frames[f, L.Q_REMOVED]
            if frames[f, L.Q_WALK]:
                frames[f, L.Q_VALUE] = -1 if frames[f, L.Q_MET] or not removed else removed
                st = L.N_RET
            else:
                scanned = setup[L.SHRINK_BUDGET] - frames[f, L.Q_BUDGET]
                frames[f, L.Q_VALUE] = _ENOENT if not scanned else 0 if removed else _EAGAIN
                st = L.M_RET
        else:
            return UNKNOWN
        # ---- what it stands at now ---------------------------------------------------------------------------
        effect = L.EFFECT[st]
        if effect > 0:
            if captured[effect]:
                break
            answered = 0
        elif effect == 0 and code == 0:
            # Where no event would tell whether a zspage's pages could be locked, nothing is waited for.
            if setup[L.SEES_PAGES_FREE] or not (st == L.Z_LOCK or st == L.C_PAGES_LOCK):
                break
    frames[f, L.Q_STATE] = st
    frames[f, L.Q_WAITS] = 1
    return STANDS


@njit(nogil=True)
def _class_done(f, frames, zspages, classes):
    """The end of ZsPool.__zs_compact()'s loop."""
    target = frames[f, L.Q_DST]
    if target >= 0:
        group_insert(zspages, classes, target, fullness(zspages[target, L.Z_INUSE],
                                                        classes[frames[f, L.Q_CLASS], L.K_OBJS]))
    frames[f, L.Q_VALUE] = frames[f, L.Q_CLASS_FREED]
    return L.C_CLASS_RET


@njit(nogil=True)
def _may_zswap(accounts, s):
    """What Zswap._may_zswap() expects: 1, 0, or -1 where several cgroups leave it open."""
    found = -1
    for account in range(s[L.ACCOUNTS]):
        if accounts[account, L.G_HAS_ACCOUNT]:
            if found >= 0:
                return -1
            found = account
    limit = s[L.ZSWAP_MAX]
    if limit == -1:
        return 1
    held = accounts[found, L.G_ZSWAP] // _PAGE if found >= 0 else 0
    return 1 if limit > 0 and held < limit else 0
