# SPDX-License-Identifier: GPL-2.0-or-later
"""deflate-iaa, modelled: what the Intel In-Memory Analytics Accelerator can give for a page, as its driver asks for it.

No software gives the hardware's bytes: it is not published which matches its matcher finds.  What the driver asks for
is known (drivers/crypto/intel/iaa/iaa_crypto_main.c and iaa_crypto_comp_fixed.c, Linux 6.12 to 7.3): a single block
with the fixed Huffman code of RFC 1951, no stored block, matches within the 4096 bytes of the page, at most 4096 bytes
of output.  So the length of any result lies between that of the best parse and that of a page without matches.
:meth:`DeflateIaa.bounds` gives both, and a replay checks recorded lengths against them.

For estimates there is a stand-in, zlib's fastest level with the fixed code.  Public models of the hardware's matcher
(2 to 4 candidates of a 3-byte hash, greedy or lazy) give up to 4 % less, Intel's software library for the same format
8 % less (its level 3) to 15 % more (level 1) on the memory of processes.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from ..errno import E2BIG
from ..page import PAGE_SIZE
from .base import Buffer, CorruptData, LibraryCompressor, ModelledCompressor, PageFunction, check_pages, in_threads
from .compiled import Bytes, at, compiled
from .libraries import BOUNDS

__all__ = ["DeflateIaa"]

_MAX_MATCH = 258
_FIRST_LONG_LENGTH = 115  # from here on a length's code has 8 bits, below 7
#: Length and distance -> extra bits (RFC 1951, 3.2.5).
_LENGTH_EXTRA = np.zeros(_MAX_MATCH + 1, np.int64)
for _first, _last, _extra in ((11, 18, 1), (19, 34, 2), (35, 66, 3), (67, 130, 4), (131, 257, 5)):
    _LENGTH_EXTRA[_first : _last + 1] = _extra
_DISTANCE_EXTRA = np.zeros(PAGE_SIZE + 1, np.int64)
for _code in range(4, 24):
    _extra = _code // 2 - 1
    _first = ((2 + _code % 2) << _extra) + 1
    _DISTANCE_EXTRA[_first : _first + (1 << _extra)] = _extra
#: Bits of a match's length; of its distance, the code is 5 bits.
_LENGTH_BITS = np.where(np.arange(_MAX_MATCH + 1) < _FIRST_LONG_LENGTH, 7, 8) + _LENGTH_EXTRA
_DISTANCE_BITS = 5 + _DISTANCE_EXTRA


@compiled
def _token_bits(
    src: Bytes, length_bits: NDArray[np.int64], distance_bits: NDArray[np.int64], cost: NDArray[np.int64]
) -> tuple[int, int]:
    """Bits of the tokens of the best parse, and of a parse into literals; `cost` (len(src) + 1) is scratch."""
    n = len(src)
    cost[at(n)] = 0
    literals = 0
    for pos in range(n - 1, -1, -1):
        own = 8 if src[at(pos)] < 144 else 9  # the fixed code's literals
        literals += own
        best = own + cost[at(pos + 1)]
        most = min(n - pos, 258)
        longest = 2
        # The nearest match of each length is the cheapest: farther ones only count where they are longer.
        for other in range(pos - 1, -1, -1):
            if longest >= most:
                break
            if src[at(other + longest)] != src[at(pos + longest)]:
                continue
            length = 0
            while length < most and src[at(other + length)] == src[at(pos + length)]:
                length += 1
            if length > longest:
                far = distance_bits[at(pos - other)]
                for size in range(longest + 1, length + 1):
                    bits = length_bits[at(size)] + far + cost[at(pos + size)]
                    if bits < best:
                        best = bits
                longest = length
        cost[at(pos)] = best
    return cost[at(0)], literals


@compiled
def _all_bounds(
    pages: NDArray[np.uint8],
    low: NDArray[np.int32],
    high: NDArray[np.int32],
    length_bits: NDArray[np.int64],
    distance_bits: NDArray[np.int64],
) -> None:
    cost = np.empty(pages.shape[1] + 1, np.int64)
    for i in range(len(pages)):
        best, literals = _token_bits(pages[i], length_bits, distance_bits, cost)
        # BFINAL and BTYPE are 3 bits, the end of the block 7, and the last byte is filled up.
        low[i] = (3 + best + 7 + 7) // 8
        high[i] = (3 + literals + 7 + 7) // 8


class DeflateIaa(LibraryCompressor, ModelledCompressor):
    """A stand-in for the hardware, -E2BIG if it needs more than 4096 bytes; its grade is `modelled`."""

    name = "deflate-iaa"
    grade = "modelled"

    def __init__(self, kernel_line: str) -> None:
        super().__init__()
        self._err = E2BIG
        self._err_dlen = PAGE_SIZE
        self._max_len = PAGE_SIZE
        self.ident = f"deflate-iaa {BOUNDS} level=1 wbits=-12 Z_FIXED"

    def _page_function(self) -> PageFunction:
        return _stand_in

    def bounds(
        self, pages: NDArray[np.uint8], threads: int = 1
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The best parse of one block of the fixed Huffman code, and one into literals alone."""
        pages = check_pages(pages, threads).view()
        pages.flags.writeable = False
        low, high = np.empty(len(pages), np.int32), np.empty(len(pages), np.int32)
        in_threads(
            lambda lo, hi: _all_bounds(pages[lo:hi], low[lo:hi], high[lo:hi], _LENGTH_BITS, _DISTANCE_BITS),
            len(pages),
            threads,
        )
        return low, high

    def decompress(self, data: Buffer, size: int = PAGE_SIZE) -> bytes:
        """Inflate; bytes behind the end of the stream are ignored, as deflate-generic does."""
        inflate = zlib.decompressobj(-12)
        try:
            page = inflate.decompress(data, size + 1)
        except zlib.error as error:
            raise CorruptData(f"deflate-iaa: {error}") from error
        if not inflate.eof or len(page) != size:
            raise CorruptData(f"deflate-iaa: not a stream of {size} bytes")
        return page

    def self_check(self) -> list[str]:
        """The stand-in lies within the bounds, and the bounds of three pages are those worked out by hand."""
        zeros, ramp = bytes(PAGE_SIZE), bytes(range(256)) * 16
        pages = np.frombuffer(zeros + ramp, np.uint8).reshape(2, PAGE_SIZE)
        low, high = self.bounds(pages)
        # Zeros: a literal, then 4095 bytes in matches of 258 and less at distance 1.
        wanted = [((3 + 8 + 15 * 13 + 13 + 7 + 7) // 8, (3 + 8 * PAGE_SIZE + 7 + 7) // 8)]
        problems = []
        if (int(low[0]), int(high[0])) != wanted[0]:
            problems.append(f"deflate-iaa: bounds of a page of zeros are {low[0]} and {high[0]}")
        for number, page in enumerate((zeros, ramp)):
            length = len(_stand_in(page))
            if not low[number] <= length <= high[number]:
                problems.append(f"deflate-iaa: zlib's {length} bytes lie outside of {low[number]} to {high[number]}")
        return problems


def _stand_in(page: Buffer) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, -12, 9, zlib.Z_FIXED)
    return deflate.compress(page) + deflate.flush()
