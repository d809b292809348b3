# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of the heap that stand for things of the model: accounts, entries, objects, zspages, and what changes them.

Each function is a method of the model without its effects, named in its docstring.  Those that return UNKNOWN (of
:mod:`replay.fast.layout`) have changed nothing then: things are not as they are wherever locks are held, and the
reference has to decide.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

from numba import njit

from model import errno
from model.memcg import UNLIMITED
from model.page import PAGE_SIZE
from model.zsmalloc import FREELIST_END, FREELIST_MASK, HANDLE_SIZE, RATIO_100, UNKNOWN_LINK
from replay.fast import layout as L
from replay.fast.tables import find, forget, group_first, group_insert, group_remove, taken

__all__ = ["add_pages", "changes", "charge", "count", "count_reject", "drop", "end_entry", "fix_fullness",
           "free_zspage", "fullness", "may_zswap", "new_entry", "new_object", "new_zspage", "on_two_pages", "release",
           "several_accounts", "take", "truth_held"]

_ENOSPC: Final = errno.ENOSPC


@njit(nogil=True, error_model="numpy")
def fullness(m, zspage):
    """get_fullness_group(), looked up: a division takes longer than anything else here."""
    return m[m[m[zspage + L.Z_CLASS] + L.K_GROUP_OF] + m[zspage + L.Z_INUSE]]


@njit(nogil=True, error_model="numpy")
def changes(m, account):
    """An account is about to change: remember what it was, as SnapshotChecks.remember() does."""
    at = m[L.HISTORY_AT] + 8 * (m[L.CHANGES] & m[L.HISTORY_MASK])
    m[L.CHANGES] += 1
    m[at] = m[L.NOW]
    for column in range(6):
        m[at + 1 + column] = m[account + L.G_INCOMPRESSIBLE + column]
    m[at + 7] = m[L.N_SWPOUT_ZERO]


@njit(nogil=True, error_model="numpy")
def charge(m, account, length, sign):
    """MemcgZswap.charge() and its inverse."""
    changes(m, account)
    m[account + L.G_ZSWAP] += sign * length
    m[account + L.G_ZSWAPPED] += sign
    if length == PAGE_SIZE and m[L.ROOT_OBJCG]:
        m[account + L.G_INCOMPRESSIBLE] += sign


@njit(nogil=True, error_model="numpy")
def count(m, account, column, pages):
    """MemcgZswap.count()"""
    changes(m, account)
    m[account + column] += pages


@njit(nogil=True, error_model="numpy")
def may_zswap(m):
    """What Zswap._may_zswap() expects: 1, 0, or -1 where several cgroups or a limit that nothing says leave it open."""
    if m[L.ZSWAP_MAX] == L.NO_LIMIT_SAID:
        return -1
    found = -1
    account = m[L.ACCOUNTS]
    while account >= 0:
        if m[account + L.G_HAS_ACCOUNT]:
            if found >= 0:
                return -1
            found = account
        account = m[account + L.G_NEXT]
    limit = m[L.ZSWAP_MAX]
    if limit == UNLIMITED:
        return 1
    held = m[found + L.G_ZSWAP] // PAGE_SIZE if found >= 0 else 0
    return 1 if limit > 0 and held < limit else 0


@njit(nogil=True, error_model="numpy")
def several_accounts(m):
    """True where more cgroups than one were charged."""
    found = 0
    account = m[L.ACCOUNTS]
    while account >= 0 and found < 2:
        found += m[account + L.G_HAS_ACCOUNT] != 0
        account = m[account + L.G_NEXT]
    return found > 1


@njit(nogil=True, error_model="numpy")
def add_pages(m, pages):
    """ZsPool._add_pages(), and Questions._total_changes() before it."""
    at = m[L.TOTALS_AT] + 2 * (m[L.TOTALS] % L.TOTALS_ROOM)
    m[L.TOTALS] += 1
    m[at] = m[L.NOW]
    m[at + 1] = m[L.PAGES]
    m[L.PAGES] += pages


@njit(nogil=True, error_model="numpy")
def new_zspage(m, number):
    """Zspage(): a row of the class that is free, or a new one; linked as init_zspage() does."""
    objs = m[number + L.K_OBJS]
    zspage = m[number + L.K_SPARE]
    if zspage >= 0:
        m[number + L.K_SPARE] = m[zspage + L.Z_NEXT]
    else:
        zspage = taken(m, L.Z_LINKS + 2 * objs)
        m[zspage + L.Z_ALL] = m[L.ZSPAGES]
        m[L.ZSPAGES] = zspage
        m[zspage + L.Z_PLACES] = zspage + L.Z_LINKS + objs
    links, places = zspage + L.Z_LINKS, m[zspage + L.Z_PLACES]
    m[zspage + L.Z_CLASS] = number
    m[zspage + L.Z_INUSE] = 0
    m[zspage + L.Z_FREEOBJ] = 0
    m[zspage + L.Z_GROUP] = 0
    m[zspage + L.Z_ADDRESS] = 0
    m[zspage + L.Z_LISTED] = 0
    for page in range(m[number + L.K_PAGES]):
        m[zspage + L.Z_FRAMES + page] = -1
    for index in range(objs):
        m[links + index] = index + 1
        m[places + index] = -1
    if not m[number + L.K_WASTED]:
        m[links + objs - 1] = FREELIST_END
    return zspage


@njit(nogil=True, error_model="numpy")
def drop(m, zspage):
    """ZsPool._drop(): a zspage that is on no list any more gives its pages back."""
    number = m[zspage + L.Z_CLASS]
    m[number + L.K_ZSPAGES] -= 1
    m[number + L.K_ALLOCATED] -= m[number + L.K_OBJS]
    add_pages(m, -m[number + L.K_PAGES])
    address = m[zspage + L.Z_ADDRESS]
    if find(m, L.ADDRESSES_AT, address) == zspage:
        forget(m, L.ADDRESSES_AT, address)
        m[L.ADDRESSES] -= 1
    m[zspage + L.Z_NEXT] = m[number + L.K_SPARE]
    m[number + L.K_SPARE] = zspage


@njit(nogil=True, error_model="numpy")
def free_zspage(m, zspage):
    """ZsPool.free_zspage() between its effects; returns its group, UNKNOWN of a zspage on no list."""
    if not m[zspage + L.Z_LISTED]:
        return L.UNKNOWN
    group_remove(m, zspage)
    drop(m, zspage)
    return m[zspage + L.Z_GROUP]


@njit(nogil=True, error_model="numpy")
def take(m, zspage, obj):
    """ZsPool.obj_malloc() between its effects; returns the place, UNKNOWN where the zspage has none left."""
    if m[zspage + L.Z_INUSE] >= m[m[zspage + L.Z_CLASS] + L.K_OBJS]:
        return L.UNKNOWN
    index = m[zspage + L.Z_FREEOBJ]
    m[zspage + L.Z_FREEOBJ] = m[zspage + L.Z_LINKS + index]
    m[m[zspage + L.Z_PLACES] + index] = obj
    m[zspage + L.Z_INUSE] += 1
    m[obj + L.O_ZSPAGE] = zspage
    m[obj + L.O_INDEX] = index
    return index


@njit(nogil=True, error_model="numpy")
def release(m, zspage, index, obj):
    """ZsPool._release(); returns the place, UNKNOWN where the object is not at it."""
    if m[m[zspage + L.Z_PLACES] + index] != obj:
        return L.UNKNOWN
    huge = m[m[zspage + L.Z_CLASS] + L.K_HUGE]
    m[zspage + L.Z_LINKS + index] = UNKNOWN_LINK if huge else m[zspage + L.Z_FREEOBJ] & FREELIST_MASK
    m[zspage + L.Z_FREEOBJ] = index
    m[m[zspage + L.Z_PLACES] + index] = -1
    m[zspage + L.Z_INUSE] -= 1
    return index


@njit(nogil=True, error_model="numpy")
def fix_fullness(m, zspage):
    """ZsPool.fix_fullness_group() between its effects; returns the group, UNKNOWN of a zspage on no list."""
    if not m[zspage + L.Z_LISTED]:
        return L.UNKNOWN
    number = m[zspage + L.Z_CLASS]
    group = fullness(m, zspage)
    if group != m[zspage + L.Z_GROUP]:
        group_remove(m, zspage)
        group_insert(m, zspage, group)
        if group == RATIO_100 and group_first(m, number, L.FIND, L.FIND_END, L.FIND_STEP) < 0:
            m[number + L.K_DRY] += 1
    return group


@njit(nogil=True, error_model="numpy")
def on_two_pages(m, obj, length):
    """True where ZsPool.zs_obj_read_sg() gives two entries."""
    number = m[m[obj + L.O_ZSPAGE] + L.Z_CLASS]
    offset = m[number + L.K_SIZE] * m[obj + L.O_INDEX] % PAGE_SIZE
    return not m[number + L.K_HUGE] and offset + HANDLE_SIZE + length > PAGE_SIZE


@njit(nogil=True, error_model="numpy")
def new_entry(m, swpent):
    """ZswapState.new_entry()"""
    entry = m[L.ENTRIES_SPARE]
    if entry >= 0:
        m[L.ENTRIES_SPARE] = m[entry + L.E_NEXT]
    else:
        entry = taken(m, L.E_WIDTH)
        m[entry + L.E_GEN] = 0
    m[L.ENTRIES_LIVE] += 1
    m[entry + L.E_SWPENT] = swpent
    m[entry + L.E_LENGTH] = 0
    m[entry + L.E_OBJ] = -1
    m[entry + L.E_ABOUT] = -1
    m[entry + L.E_WHERE] = -1
    m[entry + L.E_REF] = 0
    m[entry + L.E_CONTENT] = -1
    m[entry + L.E_ADDRESS] = 0
    m[entry + L.E_LIVE] = 1
    m[entry + L.E_SPAN_FROM] = -1
    m[entry + L.E_LISTED] = 0
    return entry


@njit(nogil=True, error_model="numpy")
def end_entry(m, entry):
    """ZswapState.zswap_entry_cache_free()"""
    m[entry + L.E_LIVE] = 0
    m[entry + L.E_GEN] += 1
    m[entry + L.E_NEXT] = m[L.ENTRIES_SPARE]
    m[L.ENTRIES_SPARE] = entry
    m[L.ENTRIES_LIVE] -= 1


@njit(nogil=True, error_model="numpy")
def new_object(m, size):
    """ZsObject()"""
    obj = m[L.OBJECTS_SPARE]
    if obj >= 0:
        m[L.OBJECTS_SPARE] = m[obj + L.O_NEXT]
    else:
        obj = taken(m, L.O_WIDTH)
    m[L.OBJECTS_LIVE] += 1
    m[obj + L.O_ADDRESS] = 0
    m[obj + L.O_SIZE] = size
    m[obj + L.O_ZSPAGE] = -1
    m[obj + L.O_INDEX] = -1
    return obj


@njit(nogil=True, error_model="numpy")
def count_reject(m, comp_ret, alloc_ret):
    """Zswap._count_reject()"""
    if comp_ret == _ENOSPC or alloc_ret == _ENOSPC:
        m[L.N_COMPRESS_POOR] += 1
    elif comp_ret:
        m[L.N_COMPRESS_FAIL] += 1
    elif alloc_ret:
        m[L.N_ALLOC_FAIL] += 1


@njit(nogil=True, error_model="numpy")
def truth_held(m, refs, swpents, pages):
    """Hold what is stored at swap entries against the pages a workload put there; TruthChecks at the end of a phase.

    :param refs: row of the page store of each reference; ``pages``: of each swap entry's page, -1 for one not stored
    :return: how many are the same, are others, and are not in zswap
    """
    same = different = elsewhere = 0
    for i in range(swpents.shape[0]):
        entry = find(m, L.TREE_AT, swpents[i])
        page = -1
        if entry >= 0 and 0 <= m[entry + L.E_CONTENT] < refs.shape[0]:
            page = refs[m[entry + L.E_CONTENT]]
        if page < 0:
            elsewhere += 1
        elif page == pages[i]:
            same += 1
        else:
            different += 1
    return same, different, elsewhere
