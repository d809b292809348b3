# SPDX-License-Identifier: GPL-2.0-or-later
"""A segment of events as a Parquet file, encoded here: a writer for every type would spend more on an event's empty
columns than on the event.

Most columns of an event are empty.  A column becomes a dictionary and, per row, a number in it, and the run-length
half of Parquet's RLE_DICTIONARY encoding takes any number of empty rows in two bytes; time stamps are
DELTA_BINARY_PACKED (https://parquet.apache.org/docs/file-format/data-pages/encodings/).  zstd then has little left to
read, and readers have little to unpack.
"""

from __future__ import annotations

import functools
import io
import struct
from typing import Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import zstandard

from traces import schema
from traces.block import Block, absent
from traces.compiled import at as _at
from traces.compiled import compiled
from traces.events import Column

__all__ = ["SegmentEncoder"]

#: Parquet's physical types, converted types and encodings (parquet.thrift).
_INT32, _INT64, _BYTE_ARRAY = 1, 2, 6
_UTF8 = 0
_CONVERTED: Final = {"uint8": 11, "uint16": 12, "uint32": 13, "uint64": 14}
_PLAIN, _RLE, _DELTA, _RLE_DICTIONARY = 0, 3, 5, 8
_ZSTD = 6
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_MAGIC: Final = b"PAR1"
_LEVEL: Final = 1
#: DELTA_BINARY_PACKED: deltas of a block, in four parts that each have a width of their own.
_DELTA_BLOCK: Final = 128
_DELTA_PART: Final = 32
_MASK: Final = {"uint8": 0xFF, "uint16": 0xFFFF, "uint32": 0xFFFFFFFF}


@compiled
def _varint(out, at, value):  # type: ignore[no-untyped-def]
    """Write a uint64 in seven bits a byte, the last ones first; return where it ends.

    Passing an array to another function costs two locked instructions: this is for values written once in many rows.
    """
    while value >= np.uint64(128):
        out[at] = np.uint8(value & np.uint64(127)) | np.uint8(128)
        value >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@compiled
def _number(value, mask, default, slots, dictionary, index):  # type: ignore[no-untyped-def]
    """Give every value its number in a dictionary of the distinct ones, in order of appearance; return their count.

    ``default`` has the number 0.  ``slots`` is room for a hash table of numbers, twice as many as there are values.
    """
    bits = np.uint64(6)
    while 1 << bits < 2 * value.shape[0]:
        bits += np.uint64(1)
    size = 1 << bits
    last = np.uint64(size - 1)
    slots[:size] = 0
    dictionary[0] = default
    count = 1
    for k in range(value.shape[0]):
        v = value[_at(k)] & mask
        if v == default:
            index[_at(k)] = 0
            continue
        h = (np.uint64(v) * np.uint64(0x9E3779B97F4A7C15)) >> (np.uint64(64) - bits)
        number = slots[_at(h)]
        while number and dictionary[_at(number)] != v:
            h = (h + np.uint64(1)) & last
            number = slots[_at(h)]
        if number == 0:
            number = count
            slots[_at(h)] = number
            dictionary[_at(number)] = v
            count += 1
        index[_at(k)] = number
    return count


@compiled
def _runs(where, index, first, rows, width, on, out):  # type: ignore[no-untyped-def]
    """Write the numbers of ``rows`` rows as runs of ``width`` (1 to 3) bytes each; return the bytes used.

    ``index[k]`` is the number of row ``where[k] - first``; of the rows that ``where`` leaves out it is 0 or, with
    ``on``, that of the row before.  Where runs would take more than all numbers one after the other, those are written.
    """
    most = rows * width
    n = where.shape[0]
    out[0] = 8 * width
    at = 1
    row = 0
    k = 0
    while at < most and row < rows:
        start = row
        number = 0
        if k < n and where[_at(k)] - first == row:
            number = index[_at(k)]
            k += 1
            row += 1
            while k < n and index[_at(k)] == number and (on or where[_at(k)] - first == row):
                row = where[_at(k)] - first + 1
                k += 1
        if on or number == 0:
            row = where[_at(k)] - first if k < n else rows
        # In place: most runs of a sparse column are a few rows long.
        length = (row - start) << 1
        while length >= 128:
            out[_at(at)] = length & 127 | 128
            length >>= 7
            at += 1
        out[_at(at)] = length
        out[_at(at + 1)] = number & 255
        if width > 1:
            out[_at(at + 2)] = number >> 8 & 255
            if width > 2:
                out[_at(at + 3)] = number >> 16
        at += 1 + width
    if row == rows:
        return at
    at = _varint(out, 1, np.uint64((rows + 7) >> 3 << 1 | 1))
    end = at + ((rows + 7) >> 3 << 3) * width
    out[at:end] = 0
    for k in range(n):
        row = where[_at(k)] - first
        until = row + 1
        if on:
            until = where[_at(k + 1)] - first if k + 1 < n else rows
        for r in range(row, until):
            for b in range(width):
                out[_at(at + r * width + b)] = index[_at(k)] >> (8 * b) & 255
    return end


@compiled
def _changes(values, where, value):  # type: ignore[no-untyped-def]
    """List the rows whose value is not that of the row before, the first one too; return how many there are."""
    count = 0
    for row in range(values.shape[0]):
        where[_at(count)] = row
        value[_at(count)] = values[_at(row)]
        count += row == 0 or values[_at(row)] != values[_at(row - 1)]
    return count


@compiled
def _deltas(values, out):  # type: ignore[no-untyped-def]
    """Write int64 ``values`` as DELTA_BINARY_PACKED and return the bytes used; differences wrap around."""
    n = values.shape[0]
    at = 0
    for head in (np.uint64(_DELTA_BLOCK), np.uint64(_DELTA_BLOCK // _DELTA_PART), np.uint64(n),
                 np.uint64((values[0] << 1) ^ (values[0] >> 63))):
        at = _varint(out, at, head)
    part = np.zeros(_DELTA_BLOCK, np.uint64)
    row = 1
    while row < n:
        some = min(_DELTA_BLOCK, n - row)
        least = values[row] - values[row - 1]
        for i in range(some):
            delta = values[_at(row + i)] - values[_at(row + i - 1)]
            part[_at(i)] = np.uint64(delta)
            least = min(least, delta)
        for i in range(some):
            part[_at(i)] -= np.uint64(least)
        part[some:] = 0
        at = _varint(out, at, np.uint64((least << 1) ^ (least >> 63)))
        widths = at
        at += _DELTA_BLOCK // _DELTA_PART
        for number in range(_DELTA_BLOCK // _DELTA_PART):
            begin = number * _DELTA_PART
            bits = np.uint64(0)
            for i in range(begin, begin + _DELTA_PART):
                bits |= part[_at(i)]
            width = 0
            while bits:
                width += 1
                bits >>= np.uint64(1)
            out[_at(widths + number)] = width
            word, used = np.uint64(0), 0
            for i in range(begin, begin + _DELTA_PART if width else begin):
                word |= part[_at(i)] << np.uint64(used)
                used += width
                if used >= 64:
                    for b in range(8):
                        out[_at(at + b)] = np.uint8(word >> np.uint64(8 * b))
                    at += 8
                    used -= 64
                    word = part[_at(i)] >> np.uint64(width - used) if used else np.uint64(0)
            # 32 numbers of any width end at a multiple of 4 bytes.
            for b in range(used // 8):
                out[_at(at + b)] = np.uint8(word >> np.uint64(8 * b))
            at += used // 8
        row += some
    return at


class _Struct:
    """One structure in Thrift's compact protocol, field by field in ascending order."""

    def __init__(self) -> None:
        self.out = bytearray()
        self._last = 0

    def _head(self, number: int, kind: int) -> None:
        self.out.append((number - self._last) << 4 | kind)
        self._last = number

    def integer(self, number: int, value: int, bits: int = 32) -> _Struct:
        """An i32 or i64."""
        self._head(number, 5 if bits == 32 else 6)
        self.out += _unsigned(value << 1 if value >= 0 else (-value << 1) - 1)
        return self

    def flag(self, number: int, value: bool) -> _Struct:
        """A bool."""
        self._head(number, 1 if value else 2)
        return self

    def byte(self, number: int, value: int) -> _Struct:
        """An i8."""
        self._head(number, 3)
        self.out.append(value)
        return self

    def text(self, number: int, value: bytes) -> _Struct:
        """A string."""
        self._head(number, 8)
        self.out += _unsigned(len(value)) + value
        return self

    def struct(self, number: int, value: _Struct) -> _Struct:
        """A structure."""
        self._head(number, 12)
        self.out += value.bytes()
        return self

    def list(self, number: int, kind: int, values: list[bytes]) -> _Struct:
        """A list whose elements are encoded already; ``kind`` is their type: 5 i32, 8 string, 12 structure."""
        self._head(number, 9)
        if len(values) < 15:
            self.out.append(len(values) << 4 | kind)
        else:
            self.out.append(0xF0 | kind)
            self.out += _unsigned(len(values))
        for value in values:
            self.out += value
        return self

    def bytes(self) -> bytes:
        """The structure's end included."""
        return bytes(self.out) + b"\0"


@functools.lru_cache(1 << 12)
def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Type(NamedTuple):
    """How a column is stored: physical type and bytes of a value; what is cut off of an int64."""

    physical: int
    size: int
    mask: int


def _type_of(column: Column) -> _Type:
    if column.name in ("event", "text"):
        return _Type(_BYTE_ARRAY, 0, -1)
    wide = np.dtype(column.dtype).itemsize == 8
    return _Type(_INT64 if wide else _INT32, 8 if wide else 4, _MASK.get(column.dtype, -1))


_TYPES: Final = {column.name: _type_of(column) for column in schema.COLUMNS}


def _strings(values: list[str]) -> bytes:
    # A name of a file can hold bytes that are not UTF-8.
    texts = [value.encode("utf-8", "replace") for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


@functools.cache
def _schema_elements() -> list[bytes]:
    out = [_Struct().text(4, b"schema").integer(5, len(schema.COLUMNS)).bytes()]
    for column in schema.COLUMNS:
        element = _Struct().integer(1, _TYPES[column.name].physical).integer(3, 0).text(4, column.name.encode())
        if column.name in ("event", "text"):
            element.integer(6, _UTF8).struct(10, _Struct().struct(1, _Struct()))
        elif column.dtype in _CONVERTED:
            bits = 8 * np.dtype(column.dtype).itemsize
            element.integer(6, _CONVERTED[column.dtype])
            element.struct(10, _Struct().struct(10, _Struct().byte(1, bits).flag(2, False)))
        out.append(element.bytes())
    return out


@functools.cache
def _arrow_schema() -> bytes:
    """What pyarrow itself writes of the schema, so that it reads dictionaries and unsigned numbers as such."""
    file = io.BytesIO()
    pq.write_table(schema.arrow_schema().empty_table(), file)
    found: bytes = pq.read_metadata(io.BytesIO(file.getvalue())).metadata[b"ARROW:schema"]
    return found


class SegmentEncoder:
    """Makes Parquet files of blocks of events; keeps the memory that it works in.  Not for two threads at once.

    :param rows: the most rows of a block
    """

    def __init__(self, rows: int) -> None:
        self._slots = np.empty(max(64, 1 << (2 * rows - 1).bit_length()), np.int32)
        self._index = np.empty(rows, np.int32)
        self._where, self._value = np.empty(rows + 1, np.int32), np.empty(rows + 1, np.int64)
        self._dictionary = np.empty(rows + 1, np.int64)
        #: of eight bytes a row at most, and of parts of a page for the last ones
        self._page = np.empty(12 * rows + 4096, np.uint8)
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)

    def encode(self, block: Block) -> list[bytes]:
        """Return the bytes of a file, in parts, that holds the rows of a block (one at least)."""
        parts: list[bytes] = [_MAGIC]
        chunks: list[bytes] = []
        at = len(_MAGIC)
        total = 0
        rows = len(block)
        for column in schema.COLUMNS:
            pages, chunk, size = self._column(block, column.name, rows, at)
            parts += pages
            chunks.append(chunk)
            at += sum(map(len, pages))
            total += size
        group = _Struct().list(1, 12, chunks).integer(2, total, 64).integer(3, rows, 64)
        footer = _Struct().integer(1, 2).list(2, 12, _schema_elements()).integer(3, rows, 64) \
            .list(4, 12, [group.bytes()]) \
            .list(5, 12, [_Struct().text(1, b"ARROW:schema").text(2, _arrow_schema()).bytes()]) \
            .text(6, b"zreplay").bytes()
        parts += [footer, struct.pack("<I", len(footer)), _MAGIC]
        return parts

    def _column(self, block: Block, name: str, rows: int, at: int) -> tuple[list[bytes], bytes, int]:
        """Return a column's pages, its part of the footer, and its size before compression."""
        if name == "ts":
            return self._chunk(name, rows, at, None, 0, self._page[:_deltas(block.ts, self._page)], _DELTA)
        if name == "event":
            page = _plain_numbers(block.event, self._page)
            return self._chunk(name, rows, at, _strings(list(schema.NAMES)), len(schema.NAMES), page, _RLE_DICTIONARY)
        if name == "text":
            texts = list(dict.fromkeys(["", *(text for _, text in block.texts)]))
            number = {text: n for n, text in enumerate(texts)}
            where = np.array([row for row, _ in block.texts], np.int32)
            index = np.array([number[text] for _, text in block.texts], np.int32)
            page = self._numbers(where, index, 0, rows, len(texts))
            return self._chunk(name, rows, at, _strings(texts), len(texts), page, _RLE_DICTIONARY)
        kind = _TYPES[name]
        default: int
        if name in ("cpu", "pid"):
            dense = block.cpu if name == "cpu" else block.pid
            default, first, on = int(dense[0]), 0, True
            count = _changes(dense, self._where, self._value)
            where, value = self._where[:count], self._value[:count]
        else:
            (where, value), default, first, on = block.sparse(name), absent(name), block.first, False
        index = self._index[:where.size]
        count = _number(value, kind.mask, np.int64(default), self._slots, self._dictionary, index)
        dictionary = self._dictionary[:count] if kind.size == 8 else self._dictionary[:count].astype(np.int32)
        page = self._numbers(where, index, first, rows, count, on)
        return self._chunk(name, rows, at, dictionary, count, page, _RLE_DICTIONARY)

    def _numbers(self, where: np.ndarray, index: np.ndarray, first: int, rows: int, count: int,
                 on: bool = False) -> np.ndarray:
        width = max(1, ((count - 1).bit_length() + 7) // 8)
        return self._page[:_runs(where, index, first, rows, width, on, self._page)]

    def _chunk(self, name: str, rows: int, at: int, dictionary: bytes | np.ndarray | None, count: int,
               page: np.ndarray, encoding: int) -> tuple[list[bytes], bytes, int]:
        out: list[bytes] = []
        size = 0
        for data in (dictionary, page):
            if data is None:
                continue
            length = data.nbytes if isinstance(data, np.ndarray) else len(data)
            packed = self._zstd.compress(data.data if isinstance(data, np.ndarray) else data)
            head = _Struct().integer(1, _DATA_PAGE if data is page else _DICTIONARY_PAGE).integer(2, length) \
                .integer(3, len(packed))
            if data is page:
                head.struct(5, _Struct().integer(1, rows).integer(2, encoding).integer(3, _RLE).integer(4, _RLE))
            else:
                head.struct(7, _Struct().integer(1, count).integer(2, _PLAIN))
            out += [head.bytes(), packed]
            size += len(out[-2]) + length
        stored = sum(map(len, out))
        first_page = at + (len(out[0]) + len(out[1]) if dictionary is not None else 0)
        encodings = [_unsigned(encoding << 1), *([_unsigned(_PLAIN << 1)] if dictionary is not None else [])]
        meta = _Struct().integer(1, _TYPES[name].physical).list(2, 5, encodings) \
            .list(3, 8, [_unsigned(len(name)) + name.encode()]).integer(4, _ZSTD).integer(5, rows, 64) \
            .integer(6, size, 64).integer(7, stored, 64).integer(9, first_page, 64)
        if dictionary is not None:
            meta.integer(11, at, 64)
        return out, _Struct().integer(2, at, 64).struct(3, meta).bytes(), size


def _plain_numbers(numbers: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return a page of one byte per row."""
    groups = (numbers.size + 7) // 8
    head = bytes([8]) + _unsigned(groups << 1 | 1)
    page = out[:len(head) + 8 * groups]
    page[:len(head)] = np.frombuffer(head, np.uint8)
    page[len(head):len(head) + numbers.size] = numbers
    page[len(head) + numbers.size:] = 0
    return page
