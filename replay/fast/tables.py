# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows found by address, and rows linked in order: hash tables and doubly linked lists over arrays, compiled.

A hash table is an int64 array (slots, a power of two, by (key, row)); row -1 marks an empty slot.  Its owner keeps
it at most half full.
"""

# Everything here takes int64 arrays and numbers: annotations would say nothing else.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from numba import njit

from replay.fast import layout as L

__all__ = ["account_of", "find", "forget", "group_first", "group_insert", "group_remove", "keep", "list_add",
           "list_of", "list_remove", "room"]

_SPREAD = -7046029254386353131  # 2^64 / golden ratio, odd


@njit(nogil=True, inline="always")
def _slot(table, key):
    spread = key * _SPREAD
    return (spread ^ (spread >> 32)) & (table.shape[0] - 1)


@njit(nogil=True)
def find(table, key):
    """Return the row kept for a key, -1 for none."""
    slot = _slot(table, key)
    while True:
        row = table[slot, 1]
        if row < 0 or table[slot, 0] == key:
            return row
        slot = (slot + 1) & (table.shape[0] - 1)


@njit(nogil=True)
def keep(table, key, row):
    """Keep a row for a key, in place of any before; returns 1 when the key is new."""
    slot = _slot(table, key)
    while table[slot, 1] >= 0:
        if table[slot, 0] == key:
            table[slot, 1] = row
            return 0
        slot = (slot + 1) & (table.shape[0] - 1)
    table[slot, 0] = key
    table[slot, 1] = row
    return 1


@njit(nogil=True)
def forget(table, key):
    """Take a key out; returns its row, -1 when it was not kept."""
    mask = table.shape[0] - 1
    slot = _slot(table, key)
    while table[slot, 0] != key or table[slot, 1] < 0:
        if table[slot, 1] < 0:
            return -1
        slot = (slot + 1) & mask
    row = table[slot, 1]
    # What follows moves up, as long as that brings it no further than where it belongs.
    free = slot
    at = (slot + 1) & mask
    while table[at, 1] >= 0:
        home = _slot(table, table[at, 0])
        if ((at - home) & mask) >= ((at - free) & mask):
            table[free, 0] = table[at, 0]
            table[free, 1] = table[at, 1]
            free = at
        at = (at + 1) & mask
    table[free, 1] = -1
    return row


@njit(nogil=True)
def room(old, new):
    """Put everything of one hash table into another."""
    for slot in range(old.shape[0]):
        if old[slot, 1] >= 0:
            keep(new, old[slot, 0], old[slot, 1])


# ---- fullness groups of a size class: the head of a list is the zspage inserted last -------------------------------


@njit(nogil=True)
def group_insert(zspages, classes, zspage, group):
    """insert_zspage(): to the head of the group's list."""
    number = zspages[zspage, L.Z_CLASS]
    head = classes[number, L.K_HEAD + group]
    zspages[zspage, L.Z_PREV] = -1
    zspages[zspage, L.Z_NEXT] = head
    if head >= 0:
        zspages[head, L.Z_PREV] = zspage
    classes[number, L.K_HEAD + group] = zspage
    zspages[zspage, L.Z_GROUP] = group
    zspages[zspage, L.Z_LISTED] = 1


@njit(nogil=True)
def group_remove(zspages, classes, zspage):
    """remove_zspage(): off its group's list; it keeps the group's number."""
    before, after = zspages[zspage, L.Z_PREV], zspages[zspage, L.Z_NEXT]
    if before >= 0:
        zspages[before, L.Z_NEXT] = after
    else:
        classes[zspages[zspage, L.Z_CLASS], L.K_HEAD + zspages[zspage, L.Z_GROUP]] = after
    if after >= 0:
        zspages[after, L.Z_PREV] = before
    zspages[zspage, L.Z_LISTED] = 0


@njit(nogil=True)
def group_first(classes, number, start, stop, step):
    """The head of the first list with a zspage in it, -1 for none."""
    for group in range(start, stop, step):
        head = classes[number, L.K_HEAD + group]
        if head >= 0:
            return head
    return -1


# ---- the LRU: oldest first -----------------------------------------------------------------------------------------


@njit(nogil=True)
def list_of(lists, scalars, nid, memcg):
    """Return the list of a node and cgroup, -1 for none."""
    for row in range(scalars[L.LISTS]):
        if lists[row, L.R_ALIVE] and lists[row, L.R_MEMCG] == memcg and lists[row, L.R_NID] == nid:
            return row
    return -1


@njit(nogil=True)
def list_add(lists, entries, row, entry):
    """list_lru_add(): to the tail."""
    tail = lists[row, L.R_TAIL]
    entries[entry, L.E_PREV] = tail
    entries[entry, L.E_NEXT] = -1
    if tail >= 0:
        entries[tail, L.E_NEXT] = entry
    else:
        lists[row, L.R_HEAD] = entry
    lists[row, L.R_TAIL] = entry
    lists[row, L.R_COUNT] += 1
    entries[entry, L.E_LISTED] = 1


@njit(nogil=True)
def list_remove(lists, entries, row, entry):
    """list_lru_del()"""
    before, after = entries[entry, L.E_PREV], entries[entry, L.E_NEXT]
    if before >= 0:
        entries[before, L.E_NEXT] = after
    else:
        lists[row, L.R_HEAD] = after
    if after >= 0:
        entries[after, L.E_PREV] = before
    else:
        lists[row, L.R_TAIL] = before
    lists[row, L.R_COUNT] -= 1
    entries[entry, L.E_LISTED] = 0


@njit(nogil=True)
def account_of(accounts, scalars, objcg):
    """Return the row of a cgroup, a new one for one not seen before; the caller has made room."""
    for row in range(scalars[L.ACCOUNTS]):
        if accounts[row, L.G_OBJCG] == objcg:
            return row
    row = scalars[L.ACCOUNTS]
    scalars[L.ACCOUNTS] = row + 1
    accounts[row, :] = 0
    accounts[row, L.G_OBJCG] = objcg
    return row
