# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows found by address, and rows linked in order: hash tables and lists on the heap, compiled.

The heap ``m`` is one int64 array, or a pointer to it; :mod:`replay.fast.layout` says what is where.  A hash table is an
area of pairs (key, row), a power of two of them; row -1 marks an empty slot.  Its owner keeps it at most half full.
"""

# Everything here takes the heap and numbers: annotations would say nothing else.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from replay.fast import layout as L

__all__ = ["account_of", "bare", "chain", "find", "forget", "group_first", "group_insert", "group_remove", "keep",
           "list_add", "list_made", "list_of", "list_remove", "rehash", "taken"]

_SPREAD = -7046029254386353131  # 2^64 / golden ratio, odd


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    """An address as a pointer to int64."""
    kind = types.CPointer(types.int64)  # type: ignore[no-untyped-call]

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address), code


@njit(nogil=True, error_model="numpy")
def bare(heap):
    """Return the heap as a pointer: without reference counts, and no index is taken from the end.

    An array costs two locked instructions for every function that gets it and a test for every index: more than half
    of the time, measured.  The caller keeps the array.
    """
    return _pointer(heap.ctypes.data)  # type: ignore[call-arg]


@njit(nogil=True, error_model="numpy")
def taken(m, width):
    """Return a new row at the end of the heap; the caller has made room."""
    row = m[L.TOP]
    m[L.TOP] = row + width
    return row


@njit(nogil=True, error_model="numpy", inline="always")
def _slot(mask, key):
    spread = key * _SPREAD
    return (spread ^ (spread >> 32)) & mask


@njit(nogil=True, error_model="numpy")
def find(m, table, key):
    """Return the row kept for a key, -1 for none; ``table`` is the scalar that says where the table is."""
    at, mask = m[table], m[table + 1]
    slot = _slot(mask, key)
    while True:
        row = m[at + 2 * slot + 1]
        if row < 0 or m[at + 2 * slot] == key:
            return row
        slot = (slot + 1) & mask


@njit(nogil=True, error_model="numpy")
def keep(m, table, key, row):
    """Keep a row for a key, in place of any before; returns 1 when the key is new."""
    at, mask = m[table], m[table + 1]
    slot = _slot(mask, key)
    while m[at + 2 * slot + 1] >= 0:
        if m[at + 2 * slot] == key:
            m[at + 2 * slot + 1] = row
            return 0
        slot = (slot + 1) & mask
    m[at + 2 * slot] = key
    m[at + 2 * slot + 1] = row
    return 1


@njit(nogil=True, error_model="numpy")
def forget(m, table, key):
    """Take a key out; returns its row, -1 when it was not kept."""
    at, mask = m[table], m[table + 1]
    slot = _slot(mask, key)
    while m[at + 2 * slot] != key or m[at + 2 * slot + 1] < 0:
        if m[at + 2 * slot + 1] < 0:
            return -1
        slot = (slot + 1) & mask
    row = m[at + 2 * slot + 1]
    # What follows moves up, as long as that brings it no further than where it belongs.
    free = slot
    slot = (slot + 1) & mask
    while m[at + 2 * slot + 1] >= 0:
        home = _slot(mask, m[at + 2 * slot])
        if ((slot - home) & mask) >= ((slot - free) & mask):
            m[at + 2 * free] = m[at + 2 * slot]
            m[at + 2 * free + 1] = m[at + 2 * slot + 1]
            free = slot
        slot = (slot + 1) & mask
    m[at + 2 * free + 1] = -1
    return row


@njit(nogil=True, error_model="numpy")
def rehash(m, table, slots):
    """Give a hash table a new area of ``slots`` slots; the caller has made room.  What it had is left behind."""
    old, mask = m[table], m[table + 1]
    m[table] = taken(m, 2 * slots)
    m[table + 1] = slots - 1
    for slot in range(slots):
        m[m[table] + 2 * slot + 1] = -1
    if old >= 0:
        for slot in range(mask + 1):
            if m[old + 2 * slot + 1] >= 0:
                keep(m, table, m[old + 2 * slot], m[old + 2 * slot + 1])


@njit(nogil=True, error_model="numpy")
def chain(m, first, row, following):
    """Put a row behind the last of a chain of rows; behind the scalar ``first`` is that of the last."""
    m[row + following] = -1
    if m[first] < 0:
        m[first] = row
    else:
        m[m[first + 1] + following] = row
    m[first + 1] = row


# ---- fullness groups of a size class: the head of a list is the zspage inserted last -------------------------------


@njit(nogil=True, error_model="numpy")
def group_insert(m, zspage, group):
    """insert_zspage(): to the head of the group's list."""
    head = m[zspage + L.Z_CLASS] + L.K_HEAD + group
    first = m[head]
    m[zspage + L.Z_PREV] = -1
    m[zspage + L.Z_NEXT] = first
    if first >= 0:
        m[first + L.Z_PREV] = zspage
    m[head] = zspage
    m[zspage + L.Z_GROUP] = group
    m[zspage + L.Z_LISTED] = 1


@njit(nogil=True, error_model="numpy")
def group_remove(m, zspage):
    """remove_zspage(): off its group's list; it keeps the group's number."""
    before, after = m[zspage + L.Z_PREV], m[zspage + L.Z_NEXT]
    if before >= 0:
        m[before + L.Z_NEXT] = after
    else:
        m[m[zspage + L.Z_CLASS] + L.K_HEAD + m[zspage + L.Z_GROUP]] = after
    if after >= 0:
        m[after + L.Z_PREV] = before
    m[zspage + L.Z_LISTED] = 0


@njit(nogil=True, error_model="numpy")
def group_first(m, number, start, stop, step):
    """The head of the first list with a zspage in it, -1 for none."""
    for group in range(start, stop, step):
        head = m[number + L.K_HEAD + group]
        if head >= 0:
            return head
    return -1


# ---- the LRU: oldest first -----------------------------------------------------------------------------------------


@njit(nogil=True, error_model="numpy")
def list_of(m, nid, memcg):
    """Return the list of a node and cgroup, -1 for none."""
    row = m[L.LISTS]
    while row >= 0:
        if m[row + L.R_ALIVE] and m[row + L.R_MEMCG] == memcg and m[row + L.R_NID] == nid:
            return row
        row = m[row + L.R_NEXT]
    return -1


@njit(nogil=True, error_model="numpy")
def list_made(m, nid, memcg):
    """Return the list of a node and cgroup, a new one where there is none."""
    row = list_of(m, nid, memcg)
    if row >= 0:
        return row
    row = taken(m, L.R_WIDTH)
    m[row + L.R_NID] = nid
    m[row + L.R_MEMCG] = memcg
    m[row + L.R_HEAD] = -1
    m[row + L.R_TAIL] = -1
    m[row + L.R_COUNT] = 0
    m[row + L.R_ALIVE] = 1
    chain(m, L.LISTS, row, L.R_NEXT)
    return row


@njit(nogil=True, error_model="numpy")
def list_add(m, row, entry):
    """list_lru_add(): to the tail."""
    tail = m[row + L.R_TAIL]
    m[entry + L.E_PREV] = tail
    m[entry + L.E_NEXT] = -1
    if tail >= 0:
        m[tail + L.E_NEXT] = entry
    else:
        m[row + L.R_HEAD] = entry
    m[row + L.R_TAIL] = entry
    m[row + L.R_COUNT] += 1
    m[entry + L.E_LISTED] = 1


@njit(nogil=True, error_model="numpy")
def list_remove(m, row, entry):
    """list_lru_del()"""
    before, after = m[entry + L.E_PREV], m[entry + L.E_NEXT]
    if before >= 0:
        m[before + L.E_NEXT] = after
    else:
        m[row + L.R_HEAD] = after
    if after >= 0:
        m[after + L.E_PREV] = before
    else:
        m[row + L.R_TAIL] = before
    m[row + L.R_COUNT] -= 1
    m[entry + L.E_LISTED] = 0


@njit(nogil=True, error_model="numpy")
def account_of(m, objcg):
    """Return the row of a cgroup, a new one for one not seen before."""
    row = m[L.ACCOUNTS]
    while row >= 0:
        if m[row + L.G_OBJCG] == objcg:
            return row
        row = m[row + L.G_NEXT]
    row = taken(m, L.G_WIDTH)
    for column in range(L.G_WIDTH):
        m[row + column] = 0
    m[row + L.G_OBJCG] = objcg
    chain(m, L.ACCOUNTS, row, L.G_NEXT)
    return row
