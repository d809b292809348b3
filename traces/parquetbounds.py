# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a Parquet file takes, before any of it is unpacked.

A file of some kilobytes can say that it unpacks to gigabytes, and pyarrow would try.  Its metadata may
be wrong: pyarrow makes room for what the header of each page says.  So the headers are read, and their sizes added up.
Columns have one value a row; a value of a dictionary counts as often as it may be used.  The layout is that of
https://parquet.apache.org/docs/file-format/: pages behind headers in Thrift's compact protocol.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from traces import thrift
from traces.errors import BadInput
from traces.files import open_input

__all__ = ["ParquetColumn", "DamagedFile", "bound_memory", "columns", "most_of"]

#: What any file may take, and how much more for each of its bytes.  A distinct page has a digest of twenty bytes that
#: no compressor makes smaller, so that a store of them is below.
_FREE: Final = 64 << 20
_RATIO: Final = 256
_DICTIONARY_PAGE: Final = 2
#: Each value repeats a part of the one before it: the pages do not say how long values are.
_DELTA_BYTE_ARRAY: Final = 7
_MOST_HEADER: Final = 1 << 16
# Type, FieldRepetitionType, Encoding and CompressionCodec of parquet.thrift.
_BYTE_ARRAY: Final = 6
_WIDTH: Final = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
_KINDS, _REPEATED, _ENCODINGS, _CODES = 8, 2, 10, 8
_CODECS: Final = ("zstd", "snappy", "lz4_raw", "gzip", "brotli")


class DamagedFile(Exception):
    """A file is not what it says; the message says how."""


def most_of(size: int) -> int:
    """Return how many bytes of memory a file of ``size`` bytes may take."""
    return _FREE + _RATIO * size


def bound_memory(path: Path, file: pq.ParquetFile, todo: str) -> None:
    """Check a file that pyarrow has opened, before pyarrow reads a column or its statistics.

    :raises BadInput: when it would take more memory than :func:`most_of` its size, or is damaged
    """
    try:
        with open_input(path) as raw:
            size = os.fstat(raw.fileno()).st_size
            # Of these pyarrow keeps indices and the dictionary itself.
            indices = {field.name for field in file.schema_arrow if pa.types.is_dictionary(field.type)}
            need = sum(_need(raw, size, column, indices) for column in columns(raw, size))
    except (DamagedFile, OSError, UnicodeDecodeError, pa.ArrowException) as problem:
        raise BadInput(path, "", f"cannot be read ({problem})", todo) from None
    if need > most_of(size):
        raise BadInput(path, "", f"would take {need >> 20:,} MiB of memory, from {size:,} bytes", todo)


class ParquetColumn(NamedTuple):
    """One column of one row group: its name, its type and width in parquet.thrift's terms, how many values it has, and
    where its pages begin and end."""

    name: str
    kind: int
    width: int
    values: int
    first: int
    end: int


def columns(raw: BinaryIO, size: int) -> list[ParquetColumn]:
    """Return the columns of all row groups, as the file's last structure has them.

    They are read here because pyarrow ends the process when a part of the column it should read is missing, or its
    codec does not exist.

    :raises DamagedFile: when the file has such a column
    """
    raw.seek(max(size - 8, 0))
    tail = raw.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 8:
        raise DamagedFile("its end is not that of a Parquet file")
    raw.seek(size - 8 - length)
    try:
        meta, _ = thrift.struct(raw.read(length))
        root, *leaves = meta[2]
        if root.get(5) != len(leaves):
            raise DamagedFile("a column has more than one value a row")
        found = []
        for group in meta[4]:
            if len(group[1]) != len(leaves):
                raise DamagedFile("a row group has other columns than the file")
            for leaf, chunk in zip(leaves, group[1], strict=True):
                found.append(_column(leaf, chunk[3], size, group[3]))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise DamagedFile("what it says of its columns is damaged") from None
    return found


def _column(leaf: dict[int, Any], chunk: dict[int, Any], size: int, rows: int) -> ParquetColumn:
    name, kind, width = leaf[4].decode("utf-8"), leaf[1], leaf.get(2, 0)
    if leaf.get(5) or leaf.get(3, 0) == _REPEATED:
        raise DamagedFile("a column has more than one value a row")
    values, packed, first = chunk[5], chunk[7], chunk[9]
    if kind not in range(_KINDS) or chunk[1] != kind or chunk[4] not in range(_CODES) \
            or not all(code in range(_ENCODINGS) for code in chunk[2]) or chunk[3] != [leaf[4]] \
            or min(values, packed, rows, width) < 0:
        raise ValueError
    # SizeStatistics: how many bytes of texts, and how many rows of each level there are.
    sizes = chunk.get(16, {})
    if len(sizes.get(2, ())) > 1 or len(sizes.get(3, ())) not in (0, 1 + leaf.get(3, 0)) \
            or (1 in sizes and kind != _BYTE_ARRAY):
        raise ValueError
    if not values and not rows:
        # No value of it is read, so it may lie anywhere.
        return ParquetColumn(name, kind, width, 0, 0, 0)
    if 0 < chunk.get(11, 0) < first:
        first = chunk[11]
    if not 0 <= first <= first + packed <= size:
        raise DamagedFile("a column lies outside the file")
    return ParquetColumn(name, kind, width, max(values, rows), first, first + packed)


def _need(raw: BinaryIO, size: int, column: ParquetColumn, indices: set[str]) -> int:
    """Return how many bytes a column takes: its pages, and each of its values."""
    unpacked, longest = _pages(raw, column.first, column.end)
    if column.name in indices:
        width = 4
    elif column.kind == _BYTE_ARRAY:
        width = 8 + longest
    else:
        width = max(_WIDTH.get(column.kind, 0), column.width)
    return unpacked + column.values * width


def _pages(raw: BinaryIO, at: int, end: int) -> tuple[int, int]:
    """Return what a column's pages take unpacked, bytes, and how long a value of its dictionary may be."""
    unpacked = longest = 0
    while at < end:
        raw.seek(at)
        head = raw.read(min(_MOST_HEADER, end - at))
        try:
            page, length = thrift.struct(head)
        except (IndexError, RecursionError):
            raise DamagedFile("a page's header is damaged") from None
        kind, whole, packed = page.get(1), page.get(2), page.get(3)
        if not isinstance(kind, int) or not isinstance(whole, int) or not isinstance(packed, int) \
                or whole < 0 or not 0 <= packed <= end - at - length:
            raise DamagedFile("a page's header is damaged")
        inner = [page[key] for key in (5, 7, 8) if isinstance(page.get(key), dict)]
        if any(_DELTA_BYTE_ARRAY in (header.get(2), header.get(4)) for header in inner):
            raise DamagedFile("its texts are packed in a way that does not show how long they are")
        if kind == _DICTIONARY_PAGE:
            if whole > most_of(packed):
                raise DamagedFile(f"a page of {packed} bytes says that it unpacks to {whole}")
            raw.seek(at + length)
            longest = max(longest, _longest(raw.read(packed), whole))
        unpacked += whole
        at += length + packed
    return unpacked, longest


def _longest(body: bytes, whole: int) -> int:
    """Return the longest value of a dictionary's page, or the size of the whole page where that is unknown.

    Which codec packed it is found by trying: pyarrow ends the process when asked for one that does not exist.
    """
    found = [_longest_plain(body)] if len(body) == whole else []
    for codec in _CODECS:
        try:
            found.append(_longest_plain(pa.Codec(codec).decompress(body, whole).to_pybytes()))
        except (pa.ArrowException, OSError, ValueError):
            continue
    return max((length for length in found if length is not None), default=whole)


def _longest_plain(data: bytes) -> int | None:
    at = longest = 0
    while at < len(data):
        length = int.from_bytes(data[at:at + 4], "little")
        at += 4 + length
        longest = max(longest, length)
    return longest if at == len(data) else None
