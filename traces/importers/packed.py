# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed files (zstd, gzip, xz), read as their content, in bounded memory.

A stream's header says how far back it refers, and a decompressor keeps that much in memory.  A file from others gets no
more memory than the usual levels of each format need.
"""

from __future__ import annotations

import gzip
import io
import lzma
import sys
import zlib
from typing import Any, BinaryIO, Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["DAMAGE", "MAGIC_BYTES", "ZSTD_LIMIT", "is_packed", "unpacked", "unpacked_head"]

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_GZIP: Final = b"\x1f\x8b"
_XZ: Final = b"\xfd7zXZ\0"
#: This many first bytes show whether a file is compressed.
MAGIC_BYTES: Final = len(_XZ)
#: What the decompressors raise at damaged data.
DAMAGE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)
#: Windows above 32 MiB are refused; zstd asks for more only with --ultra or --long.
ZSTD_LIMIT: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 25}
#: xz -9 needs 65 MiB to unpack.
_XZ_MEMORY: Final = 96 << 20
_PIECE: Final = 1 << 16


def is_packed(head: bytes) -> bool:
    """True when a file's first :data:`MAGIC_BYTES` bytes are those of a compressed one."""
    return head.startswith((_ZSTD, _GZIP, _XZ))


def unpacked(file: BinaryIO, head: bytes) -> BinaryIO:
    """Return a stream of what a file holds, which is the file itself where it is not compressed.

    Reading raises one of :data:`DAMAGE` at damaged data.  Closing it closes ``file``.

    :param file: at its beginning; needs to be readable only
    :param head: its first bytes, :data:`MAGIC_BYTES` of them or fewer in a shorter file
    """
    source: Any = file
    if head.startswith(_ZSTD):
        source = zstd.ZstdFile(source, options=ZSTD_LIMIT)
    elif head.startswith(_GZIP):
        source = gzip.GzipFile(fileobj=source, mode="rb")
    elif head.startswith(_XZ):
        source = io.BufferedReader(_Xz(file), _PIECE)
    else:
        return file
    return io.BufferedReader(_Owner(source, file), 8 * _PIECE)


def unpacked_head(head: bytes, most: int) -> bytes:
    """Decompress a file's first bytes, to at most ``most`` bytes; ``b""`` where they are damaged.

    A zstd block can only be read whole: give 128 KiB, the size of the largest.
    """
    try:
        if head.startswith(_ZSTD):
            return zstd.ZstdDecompressor(options=ZSTD_LIMIT).decompress(head, most)
        if head.startswith(_GZIP):
            return zlib.decompressobj(wbits=31).decompress(head, most)
        if head.startswith(_XZ):
            return lzma.LZMADecompressor(memlimit=_XZ_MEMORY).decompress(head, most)
    except (zlib.error, lzma.LZMAError, zstd.ZstdError):
        return b""
    return head


class _Owner(io.RawIOBase):
    """A decompressor that closes what it reads from: the library's do so only with files that they opened."""

    def __init__(self, source: Any, file: BinaryIO) -> None:
        self._source, self._file = source, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        # readinto() throws away what it has decompressed when it comes to damage.
        data = self._source.read1(len(buffer))
        buffer[:len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            self._file.close()
        super().close()


class _Xz(io.RawIOBase):
    """An xz file, of one stream or several; :class:`lzma.LZMAFile` knows no limit of memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            if self._decoder.eof:
                # Streams may be padded with zeros, four at a time, and another may follow.
                self._rest = (self._decoder.unused_data + self._rest).lstrip(b"\0")
                while not self._rest:
                    piece = self._file.read(_PIECE)
                    if not piece:
                        return 0
                    self._rest = piece.lstrip(b"\0")
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            if self._decoder.needs_input and not self._rest:
                self._rest = self._file.read(_PIECE)
                if not self._rest:
                    raise EOFError("it ended before its end-of-stream mark")
            data, self._rest = self._decoder.decompress(self._rest, len(view)), b""
            if data:
                view[:len(data)] = data
                return len(data)
