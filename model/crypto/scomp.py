# SPDX-License-Identifier: GPL-2.0-or-later
"""crypto/scompress.c: how an algorithm that knows only linear buffers gets scatter-gather lists.

:class:`PageAlgorithm` is the algorithm below: a :class:`Compressor` of this package (its own exact
`decompress` undoes it), or :class:`Synthetic`, a function from page to result for what no real algorithm
does, which remembers the pages it compressed.

An algorithm that fails may leave part of its output in the destination.  Its callers do not read that, and the
model leaves those bytes as they were.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

from ..errno import EINVAL, ENOSPC, ENOSYS
from ..page import PAGE_SIZE
from .base import Compressor, CompressResult, CorruptData
from .knownanswers import noise
from .request import AcompAlg, AcompRequest, KernelFault, SgList, gather, scatter

__all__ = ["SCOMP_SCRATCH_SIZE", "PageAlgorithm", "Scomp7", "Scomp612", "Synthetic", "Wrapped"]

SCOMP_SCRATCH_SIZE = 131072  # bytes, 6.12's two scratch buffers per CPU; 7.x has one of a page


class PageAlgorithm(Protocol):
    """`crypto_scomp_compress` and `_decompress` for one page: linear in, linear out."""

    name: str

    def compress(self, page: bytes, room: int) -> CompressResult:
        """Compress `page` into at most `room` bytes; after an error `dlen` is what it leaves there."""

    def decompress(self, data: bytes, room: int) -> CompressResult:
        """Undo it; `room` bytes of destination."""


class Wrapped:
    """A :class:`Compressor` as a :class:`PageAlgorithm`."""

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor
        self.name = compressor.name
        self._no_room: CompressResult | None = None

    def compress(self, page: bytes, room: int) -> CompressResult:
        """ValueError unless `page` is 4096 bytes: the compressors of this package know pages only."""
        result = self.compressor.compress(page)
        if result.err or result.dlen <= room:
            return result
        if self._no_room is None:
            # What it answers when even a page of room is too little.
            self._no_room = self.compressor.compress(noise(0))
        err, dlen, _ = self._no_room
        return CompressResult(err, room if dlen == PAGE_SIZE else dlen, b"")

    def decompress(self, data: bytes, room: int) -> CompressResult:
        """-EINVAL for anything that is not one page, compressed by this algorithm."""
        if room < PAGE_SIZE:
            return CompressResult(EINVAL, room, b"")
        try:
            page = self.compressor.decompress(data, PAGE_SIZE)
        except CorruptData:
            return CompressResult(EINVAL, room, b"")
        return CompressResult(0, len(page), page)


class Synthetic:
    """An algorithm made of a function: for results no real one gives, such as a length of 0.

    What it compressed it finds again by the compressed bytes; data it never made is -EINVAL.
    """

    def __init__(self, function: Callable[[bytes], CompressResult], name: str = "synthetic") -> None:
        self.name = name
        self._function = function
        self._pages: dict[bytes, bytes] = {}

    def compress(self, page: bytes, room: int) -> CompressResult:
        """Whatever the function says, too long for `room` or not."""
        result = self._function(page)
        if not result.err:
            self._pages[result.data] = page
        return result

    def decompress(self, data: bytes, room: int) -> CompressResult:
        """The page whose compressed form `data` was."""
        page = self._pages.get(data)
        if page is None or len(page) > room:
            return CompressResult(EINVAL, room, b"")
        return CompressResult(0, len(page), page)


class _Scomp(AcompAlg):
    def __init__(self, algorithm: PageAlgorithm) -> None:
        self.algorithm = algorithm
        self.name = f"{algorithm.name}-scomp"

    def compress(self, request: AcompRequest) -> int:
        return self._comp_decomp(request, self.algorithm.compress)

    def decompress(self, request: AcompRequest) -> int:
        return self._comp_decomp(request, self.algorithm.decompress)

    @abstractmethod
    def _comp_decomp(self, request: AcompRequest, function: Callable[[bytes, int], CompressResult]) -> int:
        """`scomp_acomp_comp_decomp`."""


class Scomp612(_Scomp):
    """`scomp_acomp_comp_decomp` of Linux 6.12.

    A single entry is used in place, several go through a scratch buffer of 128 KiB.  The algorithm may write
    more than `req->dlen`: only afterwards is that -ENOSPC, which is why zswap's buffer has two pages.
    """

    req_virt = False  # 6.12 knows lists only

    def _comp_decomp(self, request: AcompRequest, function: Callable[[bytes, int], CompressResult]) -> int:
        src, dst = request.src_sg(), request.dst_sg()
        if not src or not request.slen or request.slen > SCOMP_SCRATCH_SIZE:
            return EINVAL
        if not dst or not request.dlen:
            return EINVAL  # without a destination 6.12 would allocate one; zswap never asks for that
        offered = request.dlen = min(request.dlen, SCOMP_SCRATCH_SIZE)
        data = src[0].read(request.slen) if len(src) == 1 else gather(src, request.slen)
        err, request.dlen, out = function(data, offered)
        in_place = len(dst) == 1
        if in_place and not err:
            dst[0].write(out)
        if not err and request.dlen > offered:
            return ENOSPC
        if not in_place and not err:
            scatter(dst, out)
        return err


class Scomp7(_Scomp):
    """`scomp_acomp_comp_decomp` of Linux 6.18 to 7.3, where the file says the same throughout.

    The destination must fit into its first entry.  The source is used in place if its first entry holds it,
    else it is put in a row in a scratch buffer of one page.  `req->dlen` is written after an error too.
    """

    def _comp_decomp(self, request: AcompRequest, function: Callable[[bytes, int], CompressResult]) -> int:
        slen, dlen = request.slen, request.dlen
        if not request.src or not slen or not request.dst or not dlen:
            return EINVAL
        dst = _in_place(request.dst_sg() if isinstance(request.dst, list) else None, request, dlen)
        if dst is None:
            return ENOSYS
        if not isinstance(request.src, list):
            data = bytes(_plain(request.src)[:slen])
        elif slen <= request.src[0].length:
            data = request.src[0].read(slen)
        elif slen > PAGE_SIZE:
            raise KernelFault(f"{slen} bytes of several entries are put into scomp's scratch buffer of one page")
        else:
            data = gather(request.src, slen)
        err, request.dlen, out = function(data, dlen)
        if not err:
            dst(out)
        return err


def _plain(what: object) -> bytes | bytearray | memoryview:
    if isinstance(what, bytes | bytearray | memoryview):
        return what
    raise KernelFault("scomp follows a folio pointer as an address")


def _in_place(sgl: SgList | None, request: AcompRequest, dlen: int) -> Callable[[bytes], None] | None:
    """How to write into the destination; None if `dlen` bytes do not fit into its first entry."""
    if sgl is not None:
        return sgl[0].write if dlen <= sgl[0].length else None
    buffer = _plain(request.dst)

    def write(data: bytes) -> None:
        if isinstance(buffer, bytes) or len(data) > len(buffer):
            raise KernelFault(f"{len(data)} bytes written at an address of {len(buffer)}")
        buffer[: len(data)] = data

    return write
