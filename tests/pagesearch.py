# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks for bytes of pages in everything that was written, however they are spelled and whatever they are packed in.

Eight bytes in a row are a page's wherever they stand: as they are, as a number (hexadecimal, decimal, varint, little or
big endian), as base64, as escapes, as a list of numbers.  Digests of pages that anybody can make are looked for, too.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import lzma
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Secrets"]

_WIDTH: Final = 8
#: Fewer different bytes than this are not user data: zeros, fill patterns, small counts.
_DIFFERENT: Final = 4
_DEEP: Final = 4
_HEX: Final = re.compile(rb"[0-9a-fA-F]{15,}")
_SPACED: Final = re.compile(rb"(?:(?:0x|\\x)?[0-9a-fA-F]{2}[ ,:;\n-]{1,2}){7,}(?:0x|\\x)?[0-9a-fA-F]{2}")
_NUMBER: Final = re.compile(rb"-?[0-9][0-9,]{13,25}")
_BYTES: Final = re.compile(rb"(?:[0-9]{1,3}[, \n]+){7,}[0-9]{1,3}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{11,}")
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|u00([0-9a-fA-F]{2})|([0-7]{3})|([\\'\"abfnrtv0]))")
_NAMED: Final = dict(zip(b"\\'\"abfnrtv0", b"\\'\"\a\b\f\n\r\t\v\0", strict=True))
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)


class Secrets:
    """What must not be found: every eight bytes in a row of some pages, and digests that anybody can make of them.

    :param pages: pages, and what is made of them (compressed objects: what they begin with is as good as a page's own)
    :param words: False leaves out what is all letters: where pages are of real text, others write the same words
    """

    def __init__(self, pages: Iterable[bytes], also: Iterable[bytes] = (), words: bool = True) -> None:
        whole, pieces = list(pages), list(also)
        found = [self._windows(data) for data in (*whole, *pieces)]
        values = np.unique(np.concatenate(found))
        kinds = np.sort(values.view(np.uint8).reshape(-1, _WIDTH), axis=1)
        values = values[(np.diff(kinds, axis=1) != 0).sum(axis=1) + 1 >= _DIFFERENT]
        if not words:
            signs = values.view(np.uint8).reshape(-1, _WIDTH)
            values = values[((signs < 0x20) | (signs > 0x7e)).any(axis=1)]
        self.values = values
        #: the same, as numbers of the other end
        self.swapped = np.sort(values.byteswap())
        self._tables = [self._table(values), self._table(self.swapped)]
        digests = [name(page).digest() for page in whole
                   for name in (hashlib.sha1, hashlib.sha256, hashlib.md5, hashlib.blake2b)]
        digests += [hashlib.blake2b(page, digest_size=32).digest() for page in whole]
        self.digests = np.unique(np.array([int.from_bytes(digest[:_WIDTH], "little") for digest in digests], np.uint64))
        self._digests = self._table(self.digests)

    @staticmethod
    def _windows(data: bytes) -> np.ndarray:
        """Return every eight bytes in a row as a little-endian number."""
        if len(data) < _WIDTH:
            return np.zeros(0, np.uint64)
        return np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), _WIDTH).copy().view(np.uint64)[:, 0]

    @staticmethod
    def _table(values: np.ndarray) -> np.ndarray:
        table = np.zeros(1 << 20, bool)
        table[values * _SPREAD >> np.uint64(44)] = True
        return table

    @staticmethod
    def _among(found: np.ndarray, values: np.ndarray, table: np.ndarray) -> np.ndarray:
        maybe = found[table[found * _SPREAD >> np.uint64(44)]]
        at = np.minimum(np.searchsorted(values, maybe), len(values) - 1)
        hits: np.ndarray = maybe[values[at] == maybe]
        return hits

    def _named(self, found: np.ndarray, digests: bool = True) -> Iterator[str]:
        """Yield what is among some numbers."""
        for values, table, what in ((self.values, self._tables[0], "bytes of a page"),
                                    (self.swapped, self._tables[1], "bytes of a page, big endian"),
                                    (self.digests, self._digests, "a digest of a page")):
            if digests or values is not self.digests:
                for hit in self._among(found, values, table)[:3]:
                    yield f"{what} ({int(hit):#018x})"

    def in_bytes(self, data: bytes, digests: bool = True) -> set[str]:
        """Return what is found in bytes, in any spelling."""
        out: set[str] = set()
        for how, spelled in _spellings(data):
            out |= {f"{found}, {how}" for found in self._named(self._windows(spelled), digests)}
        return out

    def in_file(self, path: Path, *, skip: Iterable[str] = (), digests: bool = True) -> set[str]:
        """Return what is found in a file, its name included, unpacked as often as it is packed.

        :param skip: columns of Parquet that are not looked at
        """
        out: set[str] = set()
        for how, data in _unpacked(path.read_bytes(), set(skip)):
            out |= {f"{found}{how}" for found in self.in_bytes(data, digests)}
        return out | self.in_bytes(path.name.encode(), digests)


def _unpacked(data: bytes, skip: set[str], how: str = "", deep: int = _DEEP) -> Iterator[tuple[str, bytes]]:
    """Yield bytes, and what they are a container of."""
    if not (data[:4] == b"PAR1" and skip):
        yield how, data
    if not deep:
        return
    inner: list[tuple[str, bytes]] = []
    if data[:4] == b"PAR1":
        inner += _columns(data, skip)
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        inner.append(("zstd", zstd.decompress(data)))
    elif data[:2] == b"\x1f\x8b":
        inner.append(("gzip", gzip.decompress(data)))
    elif data[:6] == b"\xfd7zXZ\0":
        inner.append(("xz", lzma.decompress(data)))
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inner += [(name, archive.read(name)) for name in archive.namelist()]
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        inner += _chunks(data)
    for match in re.finditer(rb"base64,([A-Za-z0-9+/=]{64,})", data):
        inner.append(("data:", base64.b64decode(match[1])))
    for name, part in inner:
        yield from _unpacked(part, skip, f"{how} in {name}", deep - 1)


def _columns(data: bytes, skip: set[str]) -> Iterator[tuple[str, bytes]]:
    table = pq.read_table(pa.BufferReader(data))
    yield "metadata", repr(table.schema.metadata).encode()
    for name in table.column_names:
        if name in skip:
            continue
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_integer(column.type):
            yield name, column.to_numpy().tobytes()
        else:
            values = column.to_pylist()
            yield name, b"\xff".join(value if isinstance(value, bytes) else str(value).encode() for value in values)


def _chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    at, packed = 8, b""
    while at + 8 <= len(data):
        length = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    yield "PNG", zlib.decompress(packed)


def _spellings(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield bytes as they are, and whatever they may be a spelling of."""
    yield "as they are", data
    for match in _HEX.finditer(data):
        digits = match[0]
        for shift in {0, len(digits) % 2, 1}:
            part = digits[shift:]
            yield "hexadecimal", bytes.fromhex(part[:len(part) & ~1].decode())
        if len(digits) < 16:
            yield "hexadecimal", bytes.fromhex(digits.rjust(16, b"0").decode())
    for match in _SPACED.finditer(data):
        yield "hexadecimal, spaced", bytes.fromhex("".join(part.decode() for part in re.findall(
            rb"(?<![0-9a-fA-F])[0-9a-fA-F]{2}(?![0-9a-fA-F])", match[0].replace(b"0x", b" ").replace(b"\\x", b" "))))
    for match in _NUMBER.finditer(data):
        for text in {match[0].replace(b",", b""), *match[0].split(b",")}:
            if text and text not in (b"-",) and abs(int(text)) < 1 << 64:
                yield "decimal", (int(text) & (1 << 64) - 1).to_bytes(8, "little")
    for match in _BYTES.finditer(data):
        numbers = [int(number) for number in re.findall(rb"[0-9]+", match[0])]
        yield "numbers", bytes(number if number < 256 else 0 for number in numbers)
    for match in _BASE64.finditer(data):
        text = match[0].replace(b"-", b"+").replace(b"_", b"/")
        for shift in range(4):
            part = text[shift:]
            part = part[:len(part) - (len(part) % 4 == 1)]
            yield "base64", base64.b64decode(part + b"=" * (-len(part) % 4))
    if b"\\" in data:
        yield "escaped", _ESCAPE.sub(_unescape, data)
        yield "escaped, UTF-8", _latin(_ESCAPE.sub(_unescape, data))
    if max(data, default=0) > 0x7f:
        yield "UTF-8", _latin(data)
        yield "varint", _varints(data)


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[4]:
        return bytes([_NAMED[match[4][0]]])
    return bytes([int(match[3], 8) & 255]) if match[3] else bytes.fromhex((match[1] or match[2]).decode())


def _latin(data: bytes) -> bytes:
    """Return text whose characters were bytes once."""
    return data.decode("utf-8", "replace").encode("latin-1", "replace")


def _varints(data: bytes) -> bytes:
    """Return every number of eight bytes or more that varints may stand for (Protocol Buffers, LEB128)."""
    view = np.frombuffer(data, np.uint8)
    if len(view) < 10:
        return b""
    rows = np.lib.stride_tricks.sliding_window_view(view, 10)
    rows = rows[(rows[:, :8] >= 0x80).all(axis=1)].astype(np.uint64)
    out = np.zeros(len(rows), np.uint64)
    for i in range(8):
        out |= (rows[:, i] & np.uint64(0x7f)) << np.uint64(7 * i)
    ninth, tenth = rows[:, 8], rows[:, 9]
    out |= (ninth & np.uint64(0x7f)) << np.uint64(56)
    out |= np.where(ninth >= 0x80, (tenth & np.uint64(1)) << np.uint64(63), np.uint64(0))
    # Each on its own: no window lies across two of them.
    return b"".join(value.to_bytes(8, "little") for value in out.tolist())


def spelled_by_hand(window: bytes) -> dict[str, bytes]:
    """Return some eight bytes in every spelling that is looked for, for the test of the search itself."""
    number = int.from_bytes(window, "little")
    varint, left = bytearray(), number
    while left > 0x7f:
        varint.append(left & 0x7f | 0x80)
        left >>= 7
    varint.append(left)
    return {
        "raw": b"ab" + window, "hex": window.hex().encode(), "HEX": b"x" + window.hex().upper().encode(),
        "odd": b"f" + window.hex().encode(), "number": f"data={number:#x}".encode(), "decimal": str(number).encode(),
        "signed": str(number - (1 << 64)).encode(), "grouped": f"{number:,}".encode(), "varint": b"\x08" + varint + b"\x01",
        "spaced": window.hex(" ").encode(), "colons": window.hex(":").encode(), "list": str(list(window)).encode(),
        "array": str(np.frombuffer(window, np.uint8)).encode(),
        "repr": repr(window).encode(), "json": json.dumps(window.decode("latin-1")).encode(),
        "utf8": window.decode("latin-1").encode(), "base64": base64.b64encode(b"x" + window + b"y"),
        "urlsafe": base64.urlsafe_b64encode(window), "octal": "".join(f"\\{byte:03o}" for byte in window).encode(),
        "gzip": gzip.compress(window), "xz": lzma.compress(window), "zstd": zstd.compress(window),
    }
