# SPDX-License-Identifier: GPL-2.0-or-later
"""Bounded reading of binary containers: by position, in order within a region, decompressed to a known size."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable
from typing import Final, Literal, NoReturn, TypeAlias

from traces.errors import BadInput
from traces.files import open_input
from traces.importers.packed import ZSTD_LIMIT
from traces.record.oserrors import next_step

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["DAMAGED", "MAX_SECTION", "MAX_STRING", "ByteOrder", "Cursor", "File", "text_of", "unpack"]

ByteOrder: TypeAlias = Literal["little", "big"]

DAMAGED: Final = "copy the file again from where it was recorded; this copy is damaged or cut short"
#: Metadata sections, decompressed: /proc/kallsyms is the largest, about 10 MB for a distribution kernel.
MAX_SECTION: Final = 64 << 20
MAX_STRING: Final = 4096


class File:
    """A regular file of known size that is read by position, so that several readers do not disturb it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._raw = open_input(path, follow=True)
        self.size = os.fstat(self._raw.fileno()).st_size

    def read(self, at: int, count: int) -> bytes:
        """Read exactly ``count`` bytes; the caller has checked them against :attr:`size`."""
        try:
            data = os.pread(self._raw.fileno(), count, at)
        except OSError as error:
            raise BadInput(self.path, f"offset {at}", f"cannot be read ({error.strerror})",
                           next_step(error.errno, "check the disk, then import again")) from error
        if len(data) != count:
            raise BadInput(self.path, f"offset {at}", "the file shrank while it was read",
                           "wait until the recording is complete, then import again")
        return data

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


class Cursor:
    """Reads numbers and texts in order from one region, and never past its end.

    The region is one of the file itself, or of a section's decompressed bytes; offsets in messages are then
    those of the decompressed section.
    """

    def __init__(self, file: File, where: str, byteorder: ByteOrder, at: int, end: int,
                 unpacked: bytes | None = None) -> None:
        self._file, self._where, self._byteorder, self._unpacked = file, where, byteorder, unpacked
        self.at, self._end = at, min(end, file.size if unpacked is None else len(unpacked))

    @property
    def left(self) -> int:
        """How many bytes of the region have not been read."""
        return max(self._end - self.at, 0)

    def fail(self, what: str, todo: str = DAMAGED) -> NoReturn:
        """Raise :class:`~traces.errors.BadInput` for the place reached."""
        place = f"{self._where}, offset {self.at}" if self._where else f"offset {self.at}"
        raise BadInput(self._file.path, place, what, todo)

    def _fetch(self, count: int) -> bytes:
        if self._unpacked is None:
            return self._file.read(self.at, count)
        return self._unpacked[self.at:self.at + count]

    def take(self, count: int, what: str) -> bytes:
        """Read ``count`` bytes of ``what``."""
        if count > self.left:
            self.fail(f"{what} should take {count} bytes, but only {self.left} are left")
        if count > MAX_SECTION:
            self.fail(f"{what} of {count} bytes is larger than any real one")
        data = self._fetch(count)
        self.at += count
        return data

    def number(self, size: int, what: str) -> int:
        """Read an unsigned number of ``size`` bytes."""
        return int.from_bytes(self.take(size, what), self._byteorder)

    def text(self, size: int, what: str) -> str:
        """A text after its length, which takes ``size`` bytes."""
        return text_of(self.take(self.number(size, f"the size of {what}"), what))

    def string(self, what: str) -> str:
        """A NUL-terminated string."""
        data = self._fetch(min(MAX_STRING, self.left))
        length = data.find(b"\0")
        if length < 0:
            self.fail(f"{what} has no end")
        self.at += length + 1
        return text_of(data[:length])


def text_of(data: bytes) -> str:
    """Return bytes as text: comms and names are whatever a task gave them."""
    return data.rstrip(b"\0").decode("utf-8", "backslashreplace")


def unpack(algorithm: str, packed: bytes, claimed: int, fail: Callable[[str], NoReturn]) -> bytes:
    """Decompress one block that must give exactly ``claimed`` bytes; memory grows with what really comes."""
    parts: list[bytes] = []
    got = 0
    try:
        if algorithm == "zstd":
            frame = zstd.ZstdDecompressor(options=ZSTD_LIMIT)
            feed = packed
            while not frame.eof and got <= claimed:
                part = frame.decompress(feed, claimed + 1 - got)
                feed = b""
                if not part and frame.needs_input:
                    break
                parts.append(part)
                got += len(part)
            done, trailing = frame.eof, bool(frame.unused_data)
        else:
            stream = zlib.decompressobj()
            parts.append(stream.decompress(packed, claimed + 1))
            got = len(parts[0])
            done, trailing = stream.eof, bool(stream.unused_data)
    except (zlib.error, zstd.ZstdError) as error:
        fail(f"{algorithm} data is damaged ({error})")
    if got != claimed or not done or trailing:
        fail(f"{algorithm} data does not decompress to the {claimed} bytes that were announced")
    return b"".join(parts)
