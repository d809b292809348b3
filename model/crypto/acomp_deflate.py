# SPDX-License-Identifier: GPL-2.0-or-later
"""`deflate-generic` of Linux 6.18 to 7.3 (crypto/deflate.c), which walks lists piece by piece.

It is also what iaa_crypto falls back to.  Its decompression was compared with zlib 1.2.13 driven as the kernel's
code drives it, also without room for output: no difference in 256,000 splits.  Two defects of 2026 are switches:

`deflate_enospc`
    6.18 and 6.19: with the destination full, -ENOSPC is returned before inflate is asked.  A stream whose
    end lies in a second piece of the source, but gives no more bytes, is refused although it fits.  Fixed in
    7.0 (f6a1465f-c4f1-6847-9e3c-d7225bad4059@redhat.com).
`deflate_window`
    All up to 7.3-rc7: inflate gets a window of 2 KiB.  Within one call inflate looks back into the
    destination, but between calls it keeps the window alone, so data of a compressor with a greater window
    (IAA: 4 KiB) fails where a match reaches further back than 2 KiB behind a piece's start.  Fed in one
    piece it never fails.  A fix was posted (20260326100433.57324-1-giovanni.cabiddu@intel.com), not merged.
"""

from __future__ import annotations

import zlib
from typing import Final

from ..errno import EINVAL, ENOSPC
from .deflate import LEVEL, WINDOW_BITS
from .request import AcompAlg, AcompRequest, DestinationWalk, pieces, sg_or_virt

__all__ = ["DEFECTS", "DeflateGeneric"]

DEFECTS: Final = frozenset({"deflate_enospc", "deflate_window"})
_MEM_LEVEL = 8  # the kernel's MAX_MEM_LEVEL
_MAX_WBITS = 15


class DeflateGeneric(AcompAlg):
    """Raw deflate, 2 KiB window, level 6, through `acomp_walk`; `defects`: of `DEFECTS`, as it was."""

    name = "deflate-generic"

    def __init__(self, defects: frozenset[str] = frozenset()) -> None:
        self.defects = defects

    def compress(self, request: AcompRequest) -> int:
        """`deflate_compress_one`: -ENOSPC if the stream fills the destination; `dlen` is written on success."""
        slen, dlen = request.slen, request.dlen
        if not slen or not dlen:
            return EINVAL
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, _MEM_LEVEL)
        stream = b"".join(deflate.compress(piece.read()) for piece in pieces(sg_or_virt(request.src, slen), slen))
        stream += deflate.flush()
        room = DestinationWalk(sg_or_virt(request.dst, dlen), dlen)
        done = 0
        while True:
            size = room.next()
            if not size:
                return ENOSPC
            room.write(stream[done : done + size])
            room.done(size)
            done += size
            # A piece that is exactly full makes zlib say there is more to come: the stream ends in the next.
            if done > len(stream):
                request.dlen = len(stream)
                return 0

    def decompress(self, request: AcompRequest) -> int:
        """`deflate_decompress_one`: -EINVAL for a bad or unfinished stream, -ENOSPC for one that does not fit."""
        slen, dlen = request.slen, request.dlen
        if not slen or not dlen:
            return EINVAL
        inflate = zlib.decompressobj(-(WINDOW_BITS if "deflate_window" in self.defects else _MAX_WBITS))
        room = DestinationWalk(sg_or_virt(request.dst, dlen), dlen)
        total = 0
        for piece in pieces(sg_or_virt(request.src, slen), slen):
            data = piece.read()
            while True:
                size = room.next()
                if not size and "deflate_enospc" in self.defects:
                    return ENOSPC
                try:
                    # Without room inflate may still take the end of the stream; one byte shows whether it would.
                    out = inflate.decompress(data, size or 1)
                except zlib.error as error:
                    # The distance of a match is only looked at when there is room for it.
                    return ENOSPC if not size and "too far back" in str(error) else EINVAL
                if not size and out:
                    return ENOSPC
                room.write(out)
                room.done(len(out))
                total += len(out)
                if inflate.eof:
                    request.dlen = total
                    return 0
                data = inflate.unconsumed_tail
                if not data:
                    break
        # No source is left, but inflate may still hold a match whose end had no room, or the end of the stream.
        while size := room.next():
            out = inflate.decompress(b"", size)
            room.write(out)
            room.done(len(out))
            total += len(out)
            if inflate.eof:
                request.dlen = total
                return 0
            if not out:
                return EINVAL
        return ENOSPC

