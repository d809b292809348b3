# SPDX-License-Identifier: GPL-2.0-or-later
"""lz4hc as `lz4hc_scompress` gives it (Linux 6.12 to 7.3): the LZ4 block format, kernel library 1.7.3, level 9.

Written from the published block format and the known choices of that library's thorough compressor. It chains all
positions with the same 15-bit hash of their next four bytes and looks at the last 256 of a chain for the longest
match. Before it writes a match it looks for a longer one that begins inside it, and for another one inside that,
and then decides how three overlapping matches share the bytes. Later libraries compare and share in other ways.
The rules of lz4 about the ends of the page hold here too.

Recordings of 6.12.107, 7.2.13 and 7.3-rc7 agree.

`compress_block` is ordinary Python (`.py_func`) compiled by Numba; decompression is that of lz4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errno import EINVAL
from ..page import PAGE_SIZE
from .compiled import Bytes, CompiledCompressor, at, compiled, first_bytes, word
from .libraries import LIBRARIES
from .lz4 import HASH_PRIME, LAST_LITERALS, MATCH_MARGIN, MIN_MATCH, RUN_MASK, _put_length, decompress_block

LIBRARY = LIBRARIES["lz4hc"]

LEVEL = 9  # LZ4HC_DEFAULT_CLEVEL
HASH_BITS = 15
ATTEMPTS = 1 << (LEVEL - 1)
ONE_TOKEN = RUN_MASK - 1 + MIN_MATCH  # 18: the longest match that needs no length bytes


@compiled
def _slot(four: int) -> int:
    """Which chain these four bytes belong to."""
    return ((four * HASH_PRIME) & 0xFFFFFFFF) >> (32 - HASH_BITS)


@compiled
def _chain(src: Bytes, last: NDArray[np.int16], older: NDArray[np.int16]) -> None:
    """Set `older[i]` to the last position before i with the hash of i, or -1.

    The kernel enters positions as the search reaches them, always all before the one it searches for: the same.
    """
    last[:] = -1
    for i in range(len(src) - MATCH_MARGIN + 1):
        slot = _slot(word(src, i))
        older[at(i)] = last[at(slot)]
        last[at(slot)] = i


@compiled
def _same(src: Bytes, match: int, pos: int, limit: int) -> int:
    """How many bytes from `match` on equal those from `pos` on, none of these at `limit` or behind."""
    start = pos
    while pos + 4 <= limit and word(src, pos) == word(src, match):
        pos += 4
        match += 4
    while pos < limit and src[at(pos)] == src[at(match)]:
        pos += 1
        match += 1
    return pos - start


@compiled
def _longest(src: Bytes, older: NDArray[np.int16], pos: int, limit: int) -> tuple[int, int]:
    """The longest match for `pos`, the nearest of equals: its length (0: none) and position."""
    length = 0
    found = -1
    four = word(src, pos)
    match = int(older[at(pos)])
    attempts = ATTEMPTS
    while match >= 0 and attempts > 0 and pos + length < limit:
        attempts -= 1
        # The byte that would make it longer decides most cases.
        if src[at(match + length)] == src[at(pos + length)] and word(src, match) == four:
            this = MIN_MATCH + _same(src, match + MIN_MATCH, pos + MIN_MATCH, limit)
            if this > length:
                length = this
                found = match
        match = int(older[at(match)])
    return length, found


@compiled
def _wider(
    src: Bytes, older: NDArray[np.int16], pos: int, first: int, limit: int, length: int
) -> tuple[int, int, int]:
    """A match longer than `length` that holds `pos` and begins at `first` or later.

    Returns length, position and the start of what it matches; the length as given if there is none.
    """
    found = -1
    start = -1
    ahead = pos - first
    four = word(src, pos)
    match = int(older[at(pos)])
    attempts = ATTEMPTS
    while match >= 0 and attempts > 0 and first + length < limit:
        attempts -= 1
        # Wherever a longer one begins, this byte is inside it.
        if src[at(first + length)] == src[at(match - ahead + length)] and word(src, match) == four:
            end = pos + MIN_MATCH + _same(src, match + MIN_MATCH, pos + MIN_MATCH, limit)
            here = pos
            there = match
            while here > first and there > 0 and src[at(here - 1)] == src[at(there - 1)]:
                here -= 1
                there -= 1
            if end - here > length:
                length = end - here
                found = there
                start = here
        match = int(older[at(match)])
    return length, found, start


@compiled
def _kept(length: int, gap: int, next_length: int) -> int:
    """How many bytes a match keeps when the next one begins `gap` bytes behind its start.

    No more than one token says, and four of the next match's are left to it.
    """
    return min(length, ONE_TOKEN, gap + next_length - MIN_MATCH)


@compiled
def _put_literals(src: Bytes, first: int, count: int, dst: Bytes, out: int) -> int:
    """Write a token, length bytes and `count` literals; returns the new end. There must be room."""
    if count >= RUN_MASK:
        dst[at(out)] = RUN_MASK << 4
        out = _put_length(dst, out + 1, count - RUN_MASK)
    else:
        dst[at(out)] = count << 4
        out += 1
    for i in range(count):
        dst[at(out + i)] = src[at(first + i)]
    return out + count


@compiled
def _put_match(
    src: Bytes, pending: int, start: int, length: int, match: int, dst: Bytes, out: int, room: int
) -> int:
    """Write the literals from `pending` to `start` and a match; returns the new end, or 0 if there is no room."""
    literals = start - pending
    # Room for the token, the literals, most of their length bytes, an offset, a token and the last literals.
    if out + 1 + literals + literals // 256 + 2 + 1 + LAST_LITERALS > room:
        return 0
    token_at = out
    out = _put_literals(src, pending, literals, dst, out)
    offset = start - match
    dst[at(out)] = offset & 255
    dst[at(out + 1)] = offset >> 8
    out += 2
    extra = length - MIN_MATCH
    if out + extra // 256 + 1 + LAST_LITERALS > room:
        return 0
    if extra >= RUN_MASK:
        dst[at(token_at)] += RUN_MASK
        return _put_length(dst, out, extra - RUN_MASK)
    dst[at(token_at)] += extra
    return out


@compiled
def compress_block(
    src: Bytes, last: NDArray[np.int16], older: NDArray[np.int16], dst: Bytes
) -> int:
    """Compress `src` into `dst` and return the length in bytes, or 0 if it does not fit `len(dst)`.

    Mirrors `LZ4_compress_HC` at level 9 with a destination shorter than the worst case. `src` has at most 32767
    bytes; `last` (32768 entries) and `older` (as many as `src`) are scratch.
    """
    n = len(src)
    room = len(dst)
    _chain(src, last, older)
    limit = n - LAST_LITERALS  # no match reaches behind it
    last_start = n - MATCH_MARGIN
    pending = 0  # first byte of src not yet written
    out = 0  # end of dst
    pos = 1
    while pos < last_start:
        length, match = _longest(src, older, pos, limit)
        if length == 0:
            pos += 1
            continue
        # Three matches that may overlap: this one at `pos`, and the second and third found on from it. A first one
        # that gave way to the second is kept in mind, in case the third leaves room for it.
        old_pos, old_length, old_match = pos, length, match
        pos2, length2, match2 = 0, 0, 0
        second = False
        while True:
            if not second:
                if pos + length >= last_start:
                    length2 = length
                else:
                    length2, match2, pos2 = _wider(src, older, pos + length - 2, pos, limit, length)
                if length2 == length:
                    out = _put_match(src, pending, pos, length, match, dst, out, room)
                    if out == 0:
                        return 0
                    pos += length
                    pending = pos
                    break
                if old_pos < pos and pos2 < pos + old_length:
                    pos, length, match = old_pos, old_length, old_match
                if pos2 - pos < 3:  # not worth a sequence of its own
                    pos, length, match = pos2, length2, match2
                    continue
                second = True

            if pos2 - pos < ONE_TOKEN:
                cut = _kept(length, pos2 - pos, length2) - (pos2 - pos)
                if cut > 0:
                    pos2 += cut
                    match2 += cut
                    length2 -= cut
            length3, match3, pos3 = length2, -1, -1
            if pos2 + length2 < last_start:
                length3, match3, pos3 = _wider(src, older, pos2 + length2 - 3, pos2, limit, length2)
            if length3 == length2:
                out = _put_match(src, pending, pos, min(length, pos2 - pos), match, dst, out, room)
                if out == 0:
                    return 0
                pending = pos + min(length, pos2 - pos)
                out = _put_match(src, pending, pos2, length2, match2, dst, out, room)
                if out == 0:
                    return 0
                pos = pos2 + length2
                pending = pos
                break

            if pos3 < pos + length + 3:
                # No room for the second one between the others.
                if pos3 < pos + length:
                    pos2, length2, match2 = pos3, length3, match3
                    continue
                cut = pos + length - pos2
                if cut > 0:
                    pos2 += cut
                    match2 += cut
                    length2 -= cut
                    if length2 < MIN_MATCH:
                        pos2, length2, match2 = pos3, length3, match3
                out = _put_match(src, pending, pos, length, match, dst, out, room)
                if out == 0:
                    return 0
                pending = pos + length
                pos, length, match = pos3, length3, match3
                old_pos, old_length, old_match = pos2, length2, match2
                second = False
                continue

            # Three in a row: the first one is settled.
            if pos2 < pos + length:
                if pos2 - pos < RUN_MASK:
                    length = _kept(length, pos2 - pos, length2)
                    cut = length - (pos2 - pos)
                    if cut > 0:
                        pos2 += cut
                        match2 += cut
                        length2 -= cut
                else:
                    length = pos2 - pos
            out = _put_match(src, pending, pos, length, match, dst, out, room)
            if out == 0:
                return 0
            pending = pos + length
            pos, length, match = pos2, length2, match2
            pos2, length2, match2 = pos3, length3, match3

    literals = n - pending
    if out + 1 + literals + (literals + 255 - RUN_MASK) // 255 > room:
        return 0
    return _put_literals(src, pending, literals, dst, out)


@compiled
def _lengths(pages: NDArray[np.uint8], dlens: NDArray[np.int32], head: NDArray[np.uint64]) -> None:
    last = np.empty(1 << HASH_BITS, np.int16)
    older = np.empty(PAGE_SIZE, np.int16)
    dst = np.empty(PAGE_SIZE, np.uint8)
    for i in range(len(pages)):
        dlens[i] = compress_block(pages[i], last, older, dst)
        head[i] = first_bytes(dst, dlens[i])


_Scratch = tuple[NDArray[np.int16], NDArray[np.int16], Bytes]


class Lz4hc(CompiledCompressor[_Scratch]):
    """lz4hc of level 9, the same in every kernel line; -EINVAL if the block needs more than 4096 bytes.

    `lz4hc_scompress` sets the length only on success, so after an error the caller finds what it offered.
    """

    name = "lz4hc"

    def __init__(self, kernel_line: str) -> None:
        super().__init__()
        self.ident = (
            f"lz4hc {LIBRARY} level={LEVEL} attempts={ATTEMPTS} dst={PAGE_SIZE} err={EINVAL},{PAGE_SIZE}"
        )

    def _make_scratch(self) -> _Scratch:
        return np.empty(1 << HASH_BITS, np.int16), np.empty(PAGE_SIZE, np.int16), np.empty(PAGE_SIZE, np.uint8)

    def _block(self, src: Bytes, scratch: _Scratch) -> tuple[int, Bytes]:
        return compress_block(src, *scratch), scratch[2]

    def _blocks(
        self, pages: NDArray[np.uint8], scratch: _Scratch, dlens: NDArray[np.int32], head: NDArray[np.uint64]
    ) -> None:
        _lengths(pages, dlens, head)

    def _back(self, src: Bytes, dst: Bytes) -> int:
        return decompress_block(src, dst)
