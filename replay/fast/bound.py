# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded addresses, object words and totals checked against what is known of them, compiled.

As in :mod:`replay.reference.handlers.zsmalloc`: the first address seen binds, later ones have to be the same; 0 is
none.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from model.page import PAGE_SIZE
from replay.fast import layout as L
from replay.fast.tables import find, keep
from replay.reference.handlers.zsmalloc import ZSPAGE_MAGIC
from replay.reference.handlers.zswap import MAX_ENTRY_TO_LRU

__all__ = ["UNBOUND", "class_differs", "entry_differs", "frame_differs", "read_before", "zspage_differs", "zspage_word"]

#: None, where the distance between an entry and its list_head is not known yet
UNBOUND: Final = -(1 << 62)


@njit(nogil=True, error_model="numpy")
def frame_differs(m, zspage, index, word):
    """ZsmallocHandlers._check_frame(): True where the object word is another."""
    bits = m[L.IDX_BITS]
    if word & ((1 << bits) - 1) != index:
        return True
    number = m[zspage + L.Z_CLASS]
    page = L.Z_FRAMES + m[number + L.K_SIZE] * index // PAGE_SIZE
    high = (word >> bits) & ((1 << (64 - bits)) - 1)
    if m[zspage + page] == -1:
        m[zspage + page] = high
        return m[L.CLASS_BITS] > 0 and high & ((1 << m[L.CLASS_BITS]) - 1) != m[number + L.K_INDEX]
    return m[zspage + page] != high


@njit(nogil=True, error_model="numpy")
def zspage_word(m, zspage):
    """zspage_word()"""
    number = m[zspage + L.Z_CLASS]
    return ZSPAGE_MAGIC | m[number + L.K_INDEX] << 5 | m[zspage + L.Z_GROUP] << 1 | m[number + L.K_HUGE]


@njit(nogil=True, error_model="numpy")
def class_differs(m, number, address):
    """ZsmallocHandlers._class_at(): True where a class is known at another address."""
    if address == 0:
        return True
    if m[number + L.K_ADDRESS] == 0:
        # No address is none to compare with: what that counts for, the reference says.
        if address == 0:
            return True
        m[number + L.K_ADDRESS] = address
    return m[number + L.K_ADDRESS] != address


@njit(nogil=True, error_model="numpy")
def entry_differs(m, entry, address):
    """Handlers._bind_entry(): True where an entry is known at another address."""
    known = m[entry + L.E_ADDRESS]
    if address == 0:
        return True
    if known == 0:
        m[entry + L.E_ADDRESS] = address
        return False
    if m[L.ENTRY_TO_LRU] == UNBOUND:
        m[L.ENTRY_TO_LRU] = known - address
        return not 0 <= known - address <= MAX_ENTRY_TO_LRU
    return known != address + m[L.ENTRY_TO_LRU]


@njit(nogil=True, error_model="numpy")
def zspage_differs(m, zspage, address):
    """ZsmallocHandlers._bind_zspage(): True where the zspage is known elsewhere, or another one here."""
    if address == 0:
        return True
    if m[zspage + L.Z_ADDRESS] == address:
        return False
    other = find(m, L.ADDRESSES_AT, address)
    if m[zspage + L.Z_ADDRESS] or (other >= 0 and m[other + L.Z_INUSE]):
        return True
    m[zspage + L.Z_ADDRESS] = address
    m[L.ADDRESSES] += keep(m, L.ADDRESSES_AT, address, zspage)
    return False


@njit(nogil=True, error_model="numpy")
def read_before(m, recorded, predicted, i, base, pid):
    """ZsmallocHandlers._compare_total() where they differ: can order of tasks explain it?"""
    here = pid[i]
    row = i - 1
    first = i - i % L.BATCH
    while row >= first and pid[row] != here:
        row -= 1
    since = base + max(row, first)
    pending = np.zeros(16, np.int64)
    count = 0
    task = m[L.TASKS]
    while task >= 0:
        f = m[task + L.T_TOP]
        while f >= 0:
            if m[f + L.Q_INFLIGHT]:
                if count == 16:
                    return False
                pending[count] = m[f + L.Q_INFLIGHT]
                count += 1
            f = m[f + L.Q_UP]
        task = m[task + L.T_NEXT]
    for choice in range(1 << count):
        total = recorded
        for bit in range(count):
            if choice >> bit & 1:
                total += pending[bit]
        if total == predicted or total == m[L.PAGES]:
            return True
        number = m[L.TOTALS] - 1
        while number >= 0 and number >= m[L.TOTALS] - L.TOTALS_ROOM:
            at = m[L.TOTALS_AT] + 2 * (number % L.TOTALS_ROOM)
            if m[at] < since:
                break
            if m[at + 1] == total:
                return True
            number -= 1
    return False
