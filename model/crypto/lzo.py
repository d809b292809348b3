# SPDX-License-Identifier: GPL-2.0-or-later
"""lzo as `lzo_scompress` and lzo-rle as `lzorle_scompress` give them (Linux 6.12 to 7.3).

Written from the published stream format (Documentation/staging/lzo.rst) and the known choices of the kernel's
`lzo1x_1_compress_safe` and `lzorle1x_1_compress_safe` (lib/lzo, the same in all these kernels). For a 4096-byte
source those are: a table of 8192 positions indexed by a hash of the next four bytes, the most recent position
only, a search step that grows by one every 32 bytes without a match, no match that starts in the last 20 bytes,
and match lengths found eight bytes at a time. lzo-rle puts a version in front, and writes four zeros or more as
a run without looking into the table. The userland library has a table of 14 bits and gives other bytes.

`compress_block` and `decompress_block` are ordinary Python (`.py_func`) compiled by Numba.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errno import EINVAL
from ..page import PAGE_SIZE
from .compiled import Bytes, CompiledCompressor, at, compiled, first_bytes, word
from .libraries import LIBRARIES

HASH_BITS = 13
HASH_FACTOR = 0x1824429D
SKIP_SHIFT = 5  # the search step grows by one after 2^5 bytes without a match
FIRST_START = 5  # no match or run starts before this byte
MATCH_MARGIN = 20  # nor closer than this to the end
SHORTEST = 32  # bytes; a shorter source is literals only
MIN_MATCH = 4
NEAR_OFFSET = 0x800  # bytes; a match this near and this short takes two bytes, any other at least three
NEAR_LENGTH = 8
FAR = 32  # instructions: FAR + length - 2, then 2 bytes of offset
FAR_LENGTH = 33  # longest in the instruction itself; a longer one leaves its length field zero
FARTHER = 16  # offsets above 16 KiB, which no page has; runs of zeros and the end are spelt as such
END_MARK = FARTHER | 1  # and two zeros
MIN_RUN = 4  # zeros
MAX_RUN = 2051
SHORT_LITERALS = 18  # longest in the instruction itself
FIRST_LITERALS = 238  # a block of up to this many literals and nothing else begins with 17 + their number
VERSION_MARK = 17  # the first byte of a block with a version, and of the empty one without
RLE_VERSION = 1
# A match or run ends 9 bytes before the end of the source or earlier, so whenever literals are written there come at
# least the 2 bytes of what follows them, 10 for the last literals, and the end mark. In places the kernel asks for more
# room than it then uses, but never for more than this, so it only refuses what does not fit.
STILL_TO_COME = 2 + 10 + 3


@compiled
def _slot(four: int) -> int:
    """Where the table keeps the last position of these four bytes."""
    return ((four * HASH_FACTOR) & 0xFFFFFFFF) >> (32 - HASH_BITS)


@compiled
def _put_length(dst: Bytes, out: int, rest: int) -> int:
    """Write what a length field of zero leaves over: a 0 for each 255, then 1 to 255. Returns the new end."""
    while rest > 255:
        dst[at(out)] = 0
        out += 1
        rest -= 255
    dst[at(out)] = rest
    return out + 1


@compiled
def _put_literals(src: Bytes, pending: int, literals: int, dst: Bytes, out: int) -> int:
    """Write 4 or more literals from `src[pending]` on, as an instruction of their own. Returns the new end."""
    if literals <= SHORT_LITERALS:
        dst[at(out)] = literals - 3
        out += 1
    else:
        dst[at(out)] = 0
        out = _put_length(dst, out + 1, literals - SHORT_LITERALS)
    for i in range(literals):
        dst[at(out + i)] = src[at(pending + i)]
    return out + literals


@compiled
def _zeros(src: Bytes, pos: int, stop: int) -> int:
    """Length of the run of zeros at `pos`, four of them known; it is not followed beyond `stop`."""
    end = pos + MIN_RUN
    while end + 8 <= stop and word(src, end) == 0 and word(src, end + 4) == 0:
        end += 8
    while end < stop and src[at(end)] == 0:
        end += 1
    return end - pos


@compiled
def _equal(src: Bytes, pos: int, match: int, last_start: int) -> int:
    """Length of the match at `pos`, four bytes of it known."""
    length = MIN_MATCH
    # The kernel looks where it is only after eight equal bytes, so a match may end a little behind last_start.
    while word(src, pos + length) == word(src, match + length):
        if word(src, pos + length + 4) != word(src, match + length + 4):
            length += 4
            break
        length += 8
        if pos + length >= last_start:
            return length
    while src[at(pos + length)] == src[at(match + length)]:
        length += 1
    return length


@compiled
def compress_block(src: Bytes, runs: bool, table: NDArray[np.int16], dst: Bytes) -> int:
    """Compress `src` into `dst` and return the length in bytes, or 0 if it does not fit `len(dst)`.

    Mirrors `lzogeneric1x_1_compress_safe` (lib/lzo/lzo1x_compress.c, 6.12 to 7.3); `runs` of zeros are lzo-rle's.
    `src` has at most 16384 bytes; `table` (8192 entries) is scratch.
    """
    n = len(src)
    room = len(dst)
    table[:] = 0
    out = 0  # end of dst
    if runs:
        if room < 2:
            return 0
        dst[0] = VERSION_MARK
        dst[1] = RLE_VERSION
        out = 2
    begin = out
    last_start = n - MATCH_MARGIN if n >= SHORTEST else 0
    count_at = 0  # the byte of dst whose two low bits count the literals after the last instruction, if at most 3
    pending = 0  # first byte of src not yet written
    pos = FIRST_START
    while pos < last_start:
        # Find four zeros, or a position whose next four bytes were seen before.
        four = word(src, pos)
        run = 0
        length = 0
        match = 0
        if runs and four == 0:
            run = _zeros(src, pos, min(last_start, pos + MAX_RUN))
        else:
            slot = _slot(four)
            match = int(table[at(slot)])
            table[at(slot)] = pos
            if word(src, match) != four:
                pos += 1 + ((pos - pending) >> SKIP_SHIFT)
                continue
            length = _equal(src, pos, match, last_start)

        literals = pos - pending
        # Enough for what is written next, and never more than the whole will need.
        if out + literals + literals // 255 + length // 255 + STILL_TO_COME > room:
            return 0
        if literals > 3:
            out = _put_literals(src, pending, literals, dst, out)
        elif literals > 0:
            dst[at(count_at)] |= literals
            for i in range(literals):
                dst[at(out + i)] = src[at(pending + i)]
            out += literals

        if run > 0:
            # Spelt as a match at the largest offset there is, which no match has; 11 bits hold the length.
            pos += run
            dst[at(out)] = FARTHER | 8 | ((run - MIN_RUN) & 7)
            dst[at(out + 1)] = 0xFC
            dst[at(out + 2)] = 0xFF
            dst[at(out + 3)] = (run - MIN_RUN) >> 3
            count_at = out + 1
            out += 4
        else:
            back = pos - match - 1
            pos += length
            if length <= NEAR_LENGTH and back < NEAR_OFFSET:
                dst[at(out)] = (length - 1) << 5 | (back & 7) << 2
                dst[at(out + 1)] = back >> 3
                out += 2
            else:
                if length <= FAR_LENGTH:
                    dst[at(out)] = FAR | (length - 2)
                    out += 1
                else:
                    dst[at(out)] = FAR
                    out = _put_length(dst, out + 1, length - FAR_LENGTH)
                dst[at(out)] = (back & 63) << 2
                dst[at(out + 1)] = back >> 6
                out += 2
            count_at = out - 2
        pending = pos

    literals = n - pending
    if out + literals + literals // 255 + 3 > room:
        return 0
    if out == begin and 0 < literals <= FIRST_LITERALS:
        dst[at(out)] = VERSION_MARK + literals
        out += 1
        for i in range(literals):
            dst[at(out + i)] = src[at(i)]
        out += literals
    elif literals > 0:
        out = _put_literals(src, pending, literals, dst, out)
    if out + 3 > room:
        return 0
    dst[at(out)] = END_MARK
    dst[at(out + 1)] = 0
    dst[at(out + 2)] = 0
    return out + 3


@compiled
def _length(src: Bytes, pos: int, field: int, most: int) -> tuple[int, int]:
    """The length by a field that holds 1 to `most`, or 0 and more bytes from `pos` on; and where it ends in `src`.

    If `src` ends first, it ends there, and the caller misses what should follow.
    """
    if field > 0:
        return field, pos
    length = most
    while pos < len(src) and src[at(pos)] == 0:
        length += 255
        pos += 1
    if pos < len(src):
        length += int(src[at(pos)])
        pos += 1
    return length, pos


@compiled
def decompress_block(src: Bytes, dst: Bytes) -> int:
    """Decompress `src` into `dst` and return how many bytes were written, or -1 for a bad block.

    Accepts what `lzo1x_decompress_safe` (lib/lzo/lzo1x_decompress_safe.c, 6.12 to 7.3) does, with runs of zeros or
    without: the kernel reads both kinds with one function.
    """
    n = len(src)
    room = len(dst)
    if n < 3:
        return -1
    pos = 0
    out = 0
    runs = False
    if n >= 5 and src[0] == VERSION_MARK:
        runs = src[1] != 0
        pos = 2
    literals = 0
    if src[at(pos)] > VERSION_MARK:
        literals = int(src[at(pos)]) - VERSION_MARK
        pos += 1
    while True:
        # The literals that the instruction before asked for; behind them at least the 3 bytes of the end mark.
        if out + literals > room or pos + literals + 3 > n:
            return -1
        for i in range(literals):
            dst[at(out + i)] = src[at(pos + i)]
        pos += literals
        out += literals

        op = int(src[at(pos)])
        low, high = int(src[at(pos + 1)]), int(src[at(pos + 2)])
        pos += 1
        if op < FARTHER and literals == 0:
            length, pos = _length(src, pos, op, 15)
            literals = length + 3
            continue
        if runs and op & 0xF8 == FARTHER | 8 and low >= 0xFC and high == 0xFF:
            if pos + 3 > n:
                return -1
            length = (int(src[at(pos + 2)]) << 3 | (op & 7)) + MIN_RUN
            if out + length > room:
                return -1
            for i in range(length):
                dst[at(out + i)] = 0
            out += length
            pos += 3
            literals = low & 3
            continue

        if op >= 64 or op < FARTHER:
            # One byte of offset. What a small number means depends on how many literals came before.
            literals, was = op & 3, literals
            offset = 1
            if op >= 64:
                length = (op >> 5) + 1
                offset += low << 3 | (op >> 2 & 7)
            else:
                length = 2
                offset += low << 2 | op >> 2
                if was > 3:
                    length = 3
                    offset += NEAR_OFFSET
            pos += 1
        else:
            most = 31 if op >= FAR else 7
            length, pos = _length(src, pos, op & most, most)
            if pos + 2 > n:
                return -1
            length += 2
            offset = int(src[at(pos + 1)]) << 6 | int(src[at(pos)]) >> 2
            literals = int(src[at(pos)]) & 3
            pos += 2
            if op >= FAR:
                offset += 1
            else:
                offset += (op & 8) << 11
                if offset == 0:  # the end
                    return out if op == END_MARK and pos == n else -1
                offset += 0x4000
        if offset > out or out + length > room:
            return -1
        for i in range(length):  # byte by byte: source and destination may overlap
            dst[at(out + i)] = dst[at(out + i - offset)]
        out += length


@compiled
def _lengths(
    pages: NDArray[np.uint8], runs: bool, dlens: NDArray[np.int32], head: NDArray[np.uint64]
) -> None:
    table = np.empty(1 << HASH_BITS, np.int16)
    dst = np.empty(PAGE_SIZE, np.uint8)
    for i in range(len(pages)):
        dlens[i] = compress_block(pages[i], runs, table, dst)
        head[i] = first_bytes(dst, dlens[i])


_Scratch = tuple[NDArray[np.int16], Bytes]


class Lzo(CompiledCompressor[_Scratch]):
    """lzo, the same in every kernel line; -EINVAL if the block needs more than 4096 bytes.

    `__lzo_compress` sets the length only on success, so after an error the caller finds what it offered.
    """

    name = "lzo"
    _runs: ClassVar[bool] = False

    def __init__(self, kernel_line: str) -> None:
        super().__init__()
        library = LIBRARIES[self.name]
        self.ident = f"{self.name} {library} hash_bits={HASH_BITS} dst={PAGE_SIZE} err={EINVAL},{PAGE_SIZE}"

    def _make_scratch(self) -> _Scratch:
        return np.empty(1 << HASH_BITS, np.int16), np.empty(PAGE_SIZE, np.uint8)

    def _block(self, src: Bytes, scratch: _Scratch) -> tuple[int, Bytes]:
        return compress_block(src, self._runs, *scratch), scratch[1]

    def _blocks(
        self, pages: NDArray[np.uint8], scratch: _Scratch, dlens: NDArray[np.int32], head: NDArray[np.uint64]
    ) -> None:
        _lengths(pages, self._runs, dlens, head)

    def _back(self, src: Bytes, dst: Bytes) -> int:
        return decompress_block(src, dst)


class LzoRle(Lzo):
    """lzo with runs of zeros, otherwise the same in every respect."""

    name = "lzo-rle"
    _runs = True
