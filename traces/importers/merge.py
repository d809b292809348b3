# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks of several CPUs into one, in the order of time, in compiled passes."""

from __future__ import annotations

import numpy as np

from traces.block import SPARSE, Block
from traces.compiled import compiled

__all__ = ["interleave", "join"]


@compiled
def _order(keys, begin, runs):  # type: ignore[no-untyped-def]
    """Merge the sorted ``keys[begin[p]:begin[p + 1]]`` of every part p; of equal ones those of the first part first.

    Fills ``runs`` with (part, first row of the part, row after its last) and returns how many there are.
    """
    parts = begin.shape[0] - 1
    at = begin[:-1].copy()
    # The parts that are not at their end, by the key that each is at: the least is on top.
    heap = np.empty(parts, np.int64)
    size = 0
    for p in range(parts):
        if at[p] < begin[p + 1]:
            heap[size] = p
            size += 1
            child = size - 1
            while child:
                parent = (child - 1) >> 1
                if keys[at[heap[parent]]] <= keys[at[heap[child]]]:
                    break
                heap[parent], heap[child] = heap[child], heap[parent]
                child = parent
    count = 0
    while size:
        p = heap[0]
        row, end = at[p], begin[p + 1]
        runs[count, 0], runs[count, 1] = p, row - begin[p]
        row += 1
        if size > 1:
            # It continues up to the least of the others.
            other = heap[1]
            if size > 2 and (keys[at[heap[2]]] < keys[at[other]]
                             or (keys[at[heap[2]]] == keys[at[other]] and heap[2] < other)):
                other = heap[2]
            limit = keys[at[other]]
            while row < end and (keys[row] < limit or (keys[row] == limit and p < other)):
                row += 1
        else:
            row = end
        at[p] = row
        runs[count, 2] = row - begin[p]
        count += 1
        if row == end:
            size -= 1
            heap[0] = heap[size]
        parent = 0
        while True:
            child = 2 * parent + 1
            if child >= size:
                break
            a, b = heap[child], 0
            if child + 1 < size:
                b = heap[child + 1]
                if keys[at[b]] < keys[at[a]] or (keys[at[b]] == keys[at[a]] and b < a):
                    child += 1
                    a = b
            p = heap[parent]
            if keys[at[p]] < keys[at[a]] or (keys[at[p]] == keys[at[a]] and p < a):
                break
            heap[parent], heap[child] = a, p
            parent = child
    return count


@compiled
def _whole(runs, begin, values, out):  # type: ignore[no-untyped-def]
    to = 0
    for n in range(runs.shape[0]):
        base = begin[runs[n, 0]]
        for row in range(base + runs[n, 1], base + runs[n, 2]):
            out[to] = values[row]
            to += 1


@compiled
def _sparse(runs, begin, first, where, value, out_where, out_value):  # type: ignore[no-untyped-def]
    """The same for a column of which part p has the rows ``where[begin[p]:begin[p + 1]]``, from ``first[p]`` on."""
    at = begin[:-1].copy()
    count = 0
    to = 0
    for n in range(runs.shape[0]):
        p, start, end = runs[n, 0], runs[n, 1], runs[n, 2]
        k, last = at[p], begin[p + 1]
        shift = to - start - first[p]
        limit = end + first[p]
        while k < last and where[k] < limit:
            out_where[count] = where[k] + shift
            out_value[count] = value[k]
            count += 1
            k += 1
        at[p] = k
        to += end - start


def _bounds(sizes: list[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


def interleave(parts: list[tuple[Block, np.ndarray]]) -> Block:
    """Return a block of all rows in the order of their sort keys; parts are (block, ascending key of each row).

    Rows of equal keys keep the order of the parts, and a part's rows theirs.  Nothing of the parts is kept.
    """
    blocks = [block for block, _ in parts]
    begin = _bounds([len(block) for block in blocks])
    total = int(begin[-1])
    room = np.empty((total, 3), np.int64)
    runs = room[:_order(np.concatenate([keys for _, keys in parts]), begin, room)]
    dense = []
    for name in ("ts", "cpu", "pid", "event"):
        values = np.concatenate([block.column(name) for block in blocks])
        out = np.empty_like(values)
        _whole(runs, begin, values, out)
        dense.append(out)
    first = np.array([block.first for block in blocks], np.int64)
    where, value = [], []
    for column in range(len(SPARSE)):
        some = _bounds([block.where[column].size for block in blocks])
        out_where, out_value = np.empty(int(some[-1]), np.int32), np.empty(int(some[-1]), np.int64)
        if some[-1]:
            _sparse(runs, some, first, np.concatenate([block.where[column] for block in blocks]),
                    np.concatenate([block.value[column] for block in blocks]), out_where, out_value)
        where.append(out_where)
        value.append(out_value)
    texts: list[tuple[int, str]] = []
    if any(block.texts for block in blocks):
        place = np.empty(total, np.int64)
        numbers = np.empty(total, np.int64)
        _whole(runs, begin, np.arange(total), numbers)
        place[numbers] = np.arange(total)
        texts = sorted((int(place[begin[number] + row]), text) for number, block in enumerate(blocks)
                       for row, text in block.texts)
    return Block(dense[0], dense[1], dense[2], dense[3], where, value, texts)


def join(blocks: list[Block]) -> Block:
    """Return the rows of blocks one after the other; nothing of a single one is copied."""
    if len(blocks) == 1:
        return blocks[0]
    begin = _bounds([len(block) for block in blocks]).tolist()
    dense = [np.concatenate([block.column(name) for block in blocks]) for name in ("ts", "cpu", "pid", "event")]
    where = [np.concatenate([block.where[column] + np.int32(at - block.first)
                             for at, block in zip(begin, blocks, strict=False)]) for column in range(len(SPARSE))]
    value = [np.concatenate([block.value[column] for block in blocks]) for column in range(len(SPARSE))]
    texts = [(at + row, text) for at, block in zip(begin, blocks, strict=False) for row, text in block.texts]
    return Block(dense[0], dense[1], dense[2], dense[3], where, value, texts)
