# SPDX-License-Identifier: GPL-2.0-or-later
"""Columns of an event segment as arrays, batch by batch, where :mod:`traces.segment` wrote it.

Any reader of Parquet reads these files.  This one knows how they are made: an empty row costs it nothing, and it reads
into memory that is in use already.  Files of other writers it leaves to pyarrow (:meth:`Segment.open` returns None).
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np
import zstandard

from traces import schema, thrift
from traces.compiled import at as _at
from traces.compiled import compiled
from traces.files import open_input
from traces.parquetbounds import ParquetColumn

__all__ = ["DamagedPage", "Lender", "Segment", "texts_in", "texts_of"]

_PLAIN, _DELTA, _RLE_DICTIONARY = 0, 5, 8
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
#: The most that a page of numbers can take per row, and any page of texts.
_PAGE_ROW: Final = 12
_MAX_TEXTS: Final = 64 << 20
_DTYPE: Final = {column.name: np.dtype(column.dtype) for column in schema.COLUMNS if column.name != "text"}
# Where a column's reader is in its page.
_POSITION, _LEFT, _NUMBER, _LITERAL = range(4)


class DamagedPage(ValueError):
    """A page is not what its header says; the message says which column."""


@compiled
def _expand(page, width, state, dictionary, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the dictionary's values of the next rows; return whether the page has them.

    ``page`` holds runs of numbers of ``width`` bytes, whole or one after the other.
    """
    out[:] = dictionary[0]
    rows, end, known = np.int64(out.shape[0]), page.shape[0], dictionary.shape[0]
    pos, left, number = state[_POSITION], state[_LEFT], state[_NUMBER]
    literal = state[_LITERAL]
    row = np.int64(0)
    while row < rows:
        if left == 0:
            if pos >= end:
                return False
            head = np.int64(page[_at(pos)])
            pos += 1
            if head >= 128:
                head &= 127
                shift = 7
                while True:
                    if pos >= end or shift > 35:
                        return False
                    more = np.int64(page[_at(pos)])
                    pos += 1
                    head |= (more & 127) << shift
                    shift += 7
                    if more < 128:
                        break
            literal = head & 1
            left = head >> 1
            if literal:
                left *= 8
                if pos + left * width > end:
                    return False
            else:
                if pos + width > end:
                    return False
                number = np.int64(page[_at(pos)])
                if width > 1:
                    number |= np.int64(page[_at(pos + 1)]) << 8
                    if width > 2:
                        number |= np.int64(page[_at(pos + 2)]) << 16
                pos += width
                if number >= known:
                    return False
            if left == 0:
                continue
        some = min(left, rows - row)
        if literal:
            for r in range(row, row + some):
                number = np.int64(page[_at(pos)])
                for b in range(1, width):
                    number |= np.int64(page[_at(pos + b)]) << (8 * b)
                pos += width
                if number >= known:
                    return False
                out[_at(r)] = dictionary[_at(number)]
        elif number:
            value = dictionary[_at(number)]
            for r in range(row, row + some):
                out[_at(r)] = value
        row += some
        left -= some
    state[_POSITION], state[_LEFT], state[_NUMBER], state[_LITERAL] = pos, left, number, literal
    return True


@compiled
def _undelta(page, out):  # type: ignore[no-untyped-def]
    """Read DELTA_BINARY_PACKED numbers, blocks of 128 in parts of 32; return whether the page has all of ``out``."""
    end, rows = page.shape[0], out.shape[0]
    pos = np.int64(0)
    row = np.int64(0)
    parts = np.int64(0)
    block = np.int64(0)
    least = np.int64(0)
    heads = np.zeros(4, np.uint64)
    while True:
        # The page's head has four numbers, a block's has one.
        for k in range(1 if block else 4):
            value = np.uint64(0)
            shift = np.uint64(0)
            while True:
                if pos >= end or shift > np.uint64(63):
                    return False
                byte = np.uint64(page[_at(pos)])
                pos += 1
                value |= (byte & np.uint64(127)) << shift
                shift += np.uint64(7)
                if byte < np.uint64(128):
                    break
            heads[k] = value
        signed = heads[0] if block else heads[3]
        least = np.int64(signed >> np.uint64(1)) ^ -np.int64(signed & np.uint64(1))
        if block == 0:
            block, parts = np.int64(heads[0]), np.int64(heads[1])
            if block != 128 or parts != 4 or np.int64(heads[2]) != rows or rows == 0:
                return False
            out[0] = least
            row = np.int64(1)
            if row == rows:
                return True
            continue
        widths = pos
        pos += parts
        if pos > end:
            return False
        for part in range(parts):
            if row == rows:
                return True
            width = np.int64(page[_at(widths + part)])
            if width > 64 or pos + 4 * width > end:
                return False
            some = min(32, rows - row)
            last = out[_at(row - 1)]
            if width == 0:
                for i in range(some):
                    last += least
                    out[_at(row + i)] = last
            else:
                mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - width)
                for i in range(some):
                    at = pos + (i * width >> 3)
                    have = 8 - (i * width & 7)
                    value = np.uint64(page[_at(at)]) >> np.uint64(8 - have)
                    while have < width:
                        at += 1
                        value |= np.uint64(page[_at(at)]) << np.uint64(have)
                        have += 8
                    last += least + np.int64(value & mask)
                    out[_at(row + i)] = last
            pos += 4 * width
            row += some
        if row == rows:
            return True


class Lender:
    """Arrays to read into, used again as soon as no caller holds one or a part of one: fresh memory costs more than
    reading into it."""

    _MOST: Final = 4

    def __init__(self) -> None:
        self.unpacker = zstandard.ZstdDecompressor()
        self._arrays: dict[tuple[str, int], list[np.ndarray]] = {}
        #: how many references an array has that only this object knows
        self._own = sys.maxsize
        probe = ("", 0)
        self._arrays[probe] = [np.empty(0)]
        self._own = self._references(self._arrays.pop(probe), 0)

    @staticmethod
    def _references(arrays: list[np.ndarray], number: int) -> int:
        return sys.getrefcount(arrays[number])

    def array(self, name: str, rows: int) -> np.ndarray:
        """Return an array of the type of column ``name``; what it holds is left from before."""
        arrays = self._arrays.setdefault((name, rows), [])
        for number in range(len(arrays)):
            if self._references(arrays, number) <= self._own:
                return arrays[number]
        made = np.empty(rows, _DTYPE[name])
        if len(arrays) < self._MOST:
            arrays.append(made)
        return made


class _Pages(NamedTuple):
    """A column's dictionary (None for ``ts``) and page, unpacked."""

    dictionary: np.ndarray | list[str] | None
    page: np.ndarray


class Segment:
    """One segment, its columns read side by side.

    :meth:`batch` gives the next rows; made by :meth:`open`.
    """

    def __init__(self, rows: int, pages: dict[str, _Pages], lender: Lender) -> None:
        self._rows, self._pages, self._lender = rows, pages, lender
        self._state = {name: np.array([1, 0, 0, 0], np.int64) for name in pages}
        self._ts: np.ndarray | None = None
        self._at = 0

    @classmethod
    def open(cls, path: Path, rows: int, place: dict[str, ParquetColumn], columns: list[str],
             lender: Lender) -> Segment | None:
        """Return a segment of ``rows`` events, None where :mod:`segment` does not write columns like its own.

        :param place: where its columns are
        :raises DamagedPage: when a page cannot be unpacked
        :raises OSError: when the file cannot be read
        """
        pages = {}
        with open_input(path) as raw:
            for name in columns:
                found = _read(raw, name, rows, place[name], lender.unpacker)
                if found is None:
                    return None
                pages[name] = found
        return cls(rows, pages, lender)

    def batch(self, rows: int) -> dict[str, np.ndarray]:
        """Return the next ``rows`` rows, or fewer at the end: ``event`` as codes, ``text`` as objects.

        :raises DamagedPage: when a page does not hold what its header says
        """
        some = min(rows, self._rows - self._at)
        out = {name: self._column(name, pages, some, rows) for name, pages in self._pages.items()}
        self._at += some
        return out

    def _column(self, name: str, pages: _Pages, some: int, rows: int) -> np.ndarray:
        if name == "ts":
            if self._ts is None:
                # Segments have any number of rows; an array for each would be kept.
                self._ts = self._lender.array("ts", 1 << (self._rows - 1).bit_length())[:self._rows]
                if not _undelta(pages.page, self._ts):
                    raise DamagedPage(f"column {name} is damaged")
            return self._ts[self._at:self._at + some]
        state, width = self._state[name], int(pages.page[0]) // 8
        if name == "text":
            assert isinstance(pages.dictionary, list)
            numbers = np.empty(some, np.int32)
            if not _expand(pages.page, width, state, np.arange(len(pages.dictionary), dtype=np.int32), numbers):
                raise DamagedPage(f"column {name} is damaged")
            return texts_of(pages.dictionary, numbers)
        out = self._lender.array(name, rows)[:some]
        # One compiled function for all types of a width.
        assert isinstance(pages.dictionary, np.ndarray)
        same = f"i{out.itemsize}"
        if not _expand(pages.page, width, state, pages.dictionary.view(same), out.view(same)):
            raise DamagedPage(f"column {name} is damaged")
        return out


def texts_in(path: Path, rows: int, place: dict[str, ParquetColumn]) -> list[str] | None:
    """Return the texts that a segment's column ``text`` has, None where its pages are not :mod:`segment`'s.

    The parameters, and what is raised, are those of :meth:`Segment.open`.
    """
    with open_input(path) as raw:
        found = _read(raw, "text", rows, place["text"], zstandard.ZstdDecompressor())
    if found is None:
        return None
    assert isinstance(found.dictionary, list)
    return found.dictionary


def texts_of(dictionary: list[str], numbers: np.ndarray) -> np.ndarray:
    """Return an object array of the texts that ``numbers`` name; it may be one that others have too."""
    if not numbers.any() and dictionary[:1] in ([""], []):
        return _no_texts(numbers.size)
    found: np.ndarray = np.array(dictionary, object)[numbers]
    return found


@functools.lru_cache(4)
def _no_texts(rows: int) -> np.ndarray:
    """Few batches have a text: the others share one array, which must not change."""
    texts = np.full(rows, "", object)
    texts.flags.writeable = False
    return texts


def _read(raw: BinaryIO, name: str, rows: int, chunk: ParquetColumn,
          unpacker: zstandard.ZstdDecompressor) -> _Pages | None:
    if chunk.values != rows or chunk.end - chunk.first > _PAGE_ROW * 2 * rows + _MAX_TEXTS:
        return None
    raw.seek(chunk.first)
    return _pages(name, raw.read(chunk.end - chunk.first), rows, unpacker)


def _pages(name: str, data: bytes, rows: int, unpacker: zstandard.ZstdDecompressor) -> _Pages | None:
    """Unpack a column's pages; None where they are not as :mod:`traces.segment` writes them."""
    at = 0
    dictionary: np.ndarray | list[str] | None = None
    if name != "ts":
        found = _page(data, at, _DICTIONARY_PAGE, _MAX_TEXTS if name in ("event", "text") else 8 * rows + 8, unpacker)
        if found is None or found.encoding != _PLAIN:
            return None
        at = found.end
        values = _values(name, found.body, found.values)
        if values is None or not len(values):
            return None
        dictionary = values
    found = _page(data, at, _DATA_PAGE, _PAGE_ROW * rows + 4096, unpacker)
    if found is None or found.values != rows or found.encoding != (_DELTA if name == "ts" else _RLE_DICTIONARY):
        return None
    page = np.frombuffer(found.body, np.uint8)
    if not page.size or (name != "ts" and page[0] not in (8, 16, 24)):
        return None
    return _Pages(dictionary, page)


def _values(name: str, body: bytes, count: int) -> np.ndarray | list[str] | None:
    """Return a dictionary's values: codes of ``event``, texts of ``text``, else numbers in the column's type."""
    if name not in ("event", "text"):
        dtype = _DTYPE[name]
        stored = np.dtype(np.int64 if dtype.itemsize == 8 else np.int32)
        if len(body) != count * stored.itemsize:
            return None
        numbers = np.frombuffer(body, stored)
        return numbers.view(dtype) if dtype.itemsize == stored.itemsize else numbers.astype(dtype)
    texts = []
    at = 0
    while at < len(body):
        length = int.from_bytes(body[at:at + 4], "little")
        at += 4 + length
        if at > len(body):
            return None
        try:
            texts.append(body[at - length:at].decode())
        except UnicodeDecodeError:
            return None
    if len(texts) != count:
        return None
    # The names are the contract; the codes in a file are only positions in its own dictionary.
    return texts if name == "text" else np.array([schema.CODE.get(text, 0) for text in texts], np.uint8)


class _Page(NamedTuple):
    body: bytes
    values: int
    encoding: int
    end: int


def _page(data: bytes, at: int, kind: int, limit: int, unpacker: zstandard.ZstdDecompressor) -> _Page | None:
    """Unpack the page whose header is at ``at``; None where it is not such a page or larger than ``limit``."""
    head = data[at:at + 64]
    try:
        fields, size = thrift.struct(head)
        inner = fields[5 if kind == _DATA_PAGE else 7]
        if fields[1] != kind or not isinstance(inner, dict):
            return None
        unpacked, packed = fields[2], fields[3]
        values, encoding = inner[1], inner[2]
    except (KeyError, IndexError):
        return None
    if not all(isinstance(number, int) for number in (unpacked, packed, values, encoding)):
        return None
    begin = at + size
    body = data[begin:begin + packed]
    if not 0 <= unpacked <= limit or len(body) != packed:
        return None
    try:
        if zstandard.frame_content_size(body) != unpacked:
            return None
    except zstandard.ZstdError:  # not packed with zstd
        return None
    try:
        whole = unpacker.decompress(body)
    except zstandard.ZstdError as problem:
        raise DamagedPage(f"a page cannot be unpacked ({problem})") from None
    return _Page(whole, values, encoding, begin + packed)
