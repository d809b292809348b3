# SPDX-License-Identifier: GPL-2.0-or-later
"""Structures of Thrift's compact protocol, as Parquet has them before each page and at a file's end.

Mirrors https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.  Files come from others:
every value takes at least a byte, so that even a huge count takes no longer to read than the file has bytes.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["struct"]

_MOST_DEPTH: Final = 16
_TRUE, _FALSE, _BYTE, _SHORT, _INT, _LONG, _DOUBLE, _BINARY, _LIST, _SET = range(1, 11)
_STRUCT: Final = 12


def struct(data: bytes, at: int = 0) -> tuple[dict[int, Any], int]:
    """Return a structure's fields by their ids, and where it ends: numbers, bytes, lists and structures in it.

    A double is read over and is None.

    :param at: where it begins, bytes
    :raises IndexError: when it does not end, is nested too deep, or has a map in it
    """
    return _struct(data, at, 0)


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _MOST_DEPTH:
        raise IndexError
    out: dict[int, Any] = {}
    number = 0
    while True:
        head = data[at]
        at += 1
        if head == 0:
            return out, at
        if head >> 4:
            number += head >> 4
        else:
            number, at = _zigzag(data, at)
        kind = head & 15
        # A field that is true or false has no bytes but its head.
        out[number], at = (kind == _TRUE, at) if kind in (_TRUE, _FALSE) else _value(data, at, kind, depth)


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """Read a value that takes a byte at least."""
    if kind in (_TRUE, _FALSE, _BYTE):
        return data[at], at + 1
    if kind in (_SHORT, _INT, _LONG):
        return _zigzag(data, at)
    if kind == _DOUBLE:
        return None, _inside(data, at, 8)
    if kind == _BINARY:
        length, at = _varint(data, at)
        end = _inside(data, at, length)
        return data[at:end], end
    if kind in (_LIST, _SET) and depth <= _MOST_DEPTH:
        head = data[at]
        count, at = (head >> 4, at + 1) if head >> 4 < 15 else _varint(data, at + 1)
        items = []
        for _ in range(count):
            item, at = _value(data, at, head & 15, depth + 1)
            items.append(item)
        return items, at
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    raise IndexError


def _inside(data: bytes, at: int, length: int) -> int:
    """Return where a run of bytes ends."""
    if at + length > len(data):
        raise IndexError
    return at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at
