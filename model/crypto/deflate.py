# SPDX-License-Identifier: GPL-2.0-or-later
"""deflate as `deflate_compress_one` (Linux 6.18 to 7.3) and `__deflate_compress` (6.12) give it.

A raw stream by the kernel's zlib 1.1.3 at its default level 6, window 2^11, memLevel 8 and default strategy,
with all input and Z_FINISH in a single call. The original zlib still makes the same choices; zlib-ng,
libdeflate and isa-l do not.

No recording at hand ran this compressor. The kernel's zlib was compared with this one through a recording
that ran it with a 2^12 window (no difference in 11,327 pages). The errno and the length after an error are
read from the kernel source.
"""

from __future__ import annotations

import zlib

from ..lines import line_named
from ..page import PAGE_SIZE
from . import knownanswers
from .base import Buffer, CorruptData, InexactLibrary, LibraryCompressor, PageFunction

LEVEL = 6
WINDOW_BITS = 11  # crypto/deflate.c: DEFLATE_DEF_WINBITS


class Deflate(LibraryCompressor):
    """zlib deflate of one kernel line; the result is an error if 4096 bytes or more would be needed."""

    name = "deflate"

    def __init__(self, kernel_line: str) -> None:
        super().__init__()
        version = zlib.ZLIB_RUNTIME_VERSION
        if not version.replace(".", "").isdigit():
            # zlib-ng and other forks name themselves here: "1.3.1.zlib-ng", "1.2.11.1-motley".
            raise InexactLibrary(
                f"this Python's zlib is {version}, and only the original zlib is known to compress as the "
                "kernel does: use a Python linked with it"
            )
        self._err = line_named(kernel_line).deflate_full
        self._err_dlen = PAGE_SIZE  # req->dlen is set on success only, so it stays as offered
        # zlib reports "more to come" when the output buffer is exactly full, so 4096 itself fails.
        self._max_len = PAGE_SIZE - 1
        self.ident = (
            f"deflate zlib {version} level={LEVEL} wbits=-{WINDOW_BITS} memLevel=8 strategy=0 "
            f"dst={PAGE_SIZE} err={self._err},{self._err_dlen}"
        )

    def _page_function(self) -> PageFunction:
        # zlib.compress() is a single deflate(Z_FINISH) call with memLevel 8, as in the kernel.
        return _deflate

    def decompress(self, data: Buffer, size: int = PAGE_SIZE) -> bytes:
        """Inflate as the kernel does: bytes behind the end of the stream are ignored."""
        inflate = zlib.decompressobj(-WINDOW_BITS)
        try:
            page = inflate.decompress(data, size + 1)
        except zlib.error as error:
            raise CorruptData(f"deflate: {error}") from error
        if not inflate.eof:
            raise CorruptData(f"deflate: the stream does not end within {len(data)} bytes in and {size} out")
        if len(page) != size:
            raise CorruptData(f"deflate: {len(page)} bytes instead of {size}")
        return page

    def self_check(self) -> list[str]:
        return knownanswers.problems(self, "deflate")


def _deflate(page: Buffer) -> bytes:
    return zlib.compress(page, LEVEL, -WINDOW_BITS)
