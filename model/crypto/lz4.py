# SPDX-License-Identifier: GPL-2.0-or-later
"""lz4 as `lz4_scompress` gives it (Linux 6.12 to 7.3): the LZ4 block format, kernel library 1.7.3.

Written from the published block format and the known choices of that library's fast compressor. For a
4096-byte source those are: a table of 8192 positions indexed by a hash of the next four bytes, the most
recent position only, a search step that grows by one every 64 misses, no match that starts in the last 12
bytes or reaches into the last 5. Later libraries moved the first limit by one and choose other tables,
so no current LZ4 package gives the same bytes.

`compress_block` and `decompress_block` are ordinary Python (`.py_func`) compiled by Numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errno import EINVAL
from ..page import PAGE_SIZE
from .compiled import Bytes, CompiledCompressor, at, compiled, first_bytes, word
from .libraries import LIBRARIES

LIBRARY = LIBRARIES["lz4"]

HASH_BITS = 13
HASH_PRIME = 2654435761  # Knuth: 2^32 divided by the golden ratio
MIN_MATCH = 4
LAST_LITERALS = 5  # the block ends with at least this many literals
MATCH_MARGIN = 12  # no match starts closer than this to the end
SKIP_SHIFT = 6  # the search step grows by one after 2^6 misses
RUN_MASK = 15  # a nibble of 15 means that more length bytes follow


@compiled
def _slot(four: int) -> int:
    """Where the table keeps the last position of these four bytes."""
    return ((four * HASH_PRIME) & 0xFFFFFFFF) >> (32 - HASH_BITS)


@compiled
def _put_length(dst: Bytes, out: int, rest: int) -> int:
    """Write what a nibble of 15 leaves over: a 255 for each 255, then the remainder. Returns the new end."""
    while rest >= 255:
        dst[at(out)] = 255
        out += 1
        rest -= 255
    dst[at(out)] = rest
    return out + 1


@compiled
def compress_block(src: Bytes, table: NDArray[np.int16], dst: Bytes) -> int:
    """Compress `src` into `dst` and return the length in bytes, or 0 if it does not fit `len(dst)`.

    Mirrors `LZ4_compress_default` with a destination shorter than the worst case. `src` has at most
    32767 bytes; `table` (8192 entries) is scratch.
    """
    n = len(src)
    room = len(dst)
    table[:] = 0
    match_limit = n - LAST_LITERALS
    last_start = n - MATCH_MARGIN
    pending = 0  # first byte of src not yet written
    out = 0  # end of dst
    pos = 1  # position 0 is what an empty table points at
    searching = n > MATCH_MARGIN
    while searching:
        # Find a position whose next four bytes were seen before.
        match = 0
        ahead = pos
        misses = 1 << SKIP_SHIFT
        step = 1
        while True:
            pos = ahead
            ahead += step
            step = misses >> SKIP_SHIFT
            misses += 1
            if ahead > last_start:
                searching = False
                break
            slot = _slot(word(src, pos))
            match = int(table[at(slot)])
            table[at(slot)] = pos
            if word(src, match) == word(src, pos):
                break
        if not searching:
            break
        while pos > pending and match > 0 and src[at(pos - 1)] == src[at(match - 1)]:
            pos -= 1
            match -= 1

        literals = pos - pending
        token_at = out
        out += 1
        # Room for the literals, their length bytes, an offset, a token and the last literals.
        if out + literals + 2 + 1 + LAST_LITERALS + literals // 255 > room:
            return 0
        if literals >= RUN_MASK:
            token = RUN_MASK << 4
            out = _put_length(dst, out, literals - RUN_MASK)
        else:
            token = literals << 4
        for i in range(literals):
            dst[at(out + i)] = src[at(pending + i)]
        out += literals

        while True:
            # One match; matches that follow at once share the loop, each with a token without literals.
            offset = pos - match
            dst[at(out)] = offset & 255
            dst[at(out + 1)] = offset >> 8
            out += 2
            start = pos + MIN_MATCH
            pos = start
            match += MIN_MATCH
            while pos + 4 <= match_limit and word(src, pos) == word(src, match):
                pos += 4
                match += 4
            while pos < match_limit and src[at(pos)] == src[at(match)]:
                pos += 1
                match += 1
            extra = pos - start
            if out + 1 + LAST_LITERALS + (extra >> 8) > room:
                return 0
            if extra >= RUN_MASK:
                token += RUN_MASK
                out = _put_length(dst, out, extra - RUN_MASK)
            else:
                token += extra
            dst[at(token_at)] = token
            pending = pos
            if pos > last_start:
                searching = False
                break
            slot = _slot(word(src, pos - 2))
            table[at(slot)] = pos - 2
            slot = _slot(word(src, pos))
            match = int(table[at(slot)])
            table[at(slot)] = pos
            if word(src, match) != word(src, pos):
                pos += 1
                break
            token_at = out
            out += 1
            token = 0

    literals = n - pending
    if out + 1 + literals + (literals + 255 - RUN_MASK) // 255 > room:
        return 0
    if literals >= RUN_MASK:
        dst[at(out)] = RUN_MASK << 4
        out = _put_length(dst, out + 1, literals - RUN_MASK)
    else:
        dst[at(out)] = literals << 4
        out += 1
    for i in range(literals):
        dst[at(out + i)] = src[at(pending + i)]
    return out + literals


@compiled
def decompress_block(src: Bytes, dst: Bytes) -> int:
    """Decompress `src` into `dst` and return how many bytes were written, or -1 for a bad block.

    Mirrors what `LZ4_decompress_safe` accepts, except that an offset of 0, which the format forbids and
    which would read bytes not yet written, is refused.
    """
    n = len(src)
    room = len(dst)
    pos = 0
    out = 0
    while pos < n:
        token = int(src[at(pos)])
        pos += 1
        length = token >> 4
        if length == RUN_MASK:
            more = 255
            while more == 255:
                if pos >= n:
                    return -1
                more = int(src[at(pos)])
                pos += 1
                length += more
        if out + length > room - MATCH_MARGIN or pos + length > n - (2 + 1 + LAST_LITERALS):
            # Too close to either end for another sequence: these must be the last literals.
            if pos + length != n or out + length > room:
                return -1
            for i in range(length):
                dst[at(out + i)] = src[at(pos + i)]
            return out + length
        for i in range(length):
            dst[at(out + i)] = src[at(pos + i)]
        pos += length
        out += length

        offset = int(src[at(pos)]) | int(src[at(pos + 1)]) << 8
        pos += 2
        if offset == 0 or offset > out:
            return -1
        length = token & RUN_MASK
        if length == RUN_MASK:
            more = 255
            while more == 255:
                if pos > n - LAST_LITERALS:
                    return -1
                more = int(src[at(pos)])
                pos += 1
                length += more
        length += MIN_MATCH
        if out + length > room - LAST_LITERALS:
            return -1
        for i in range(length):  # byte by byte: source and destination may overlap
            dst[at(out + i)] = dst[at(out + i - offset)]
        out += length
    return -1


@compiled
def _lengths(pages: NDArray[np.uint8], dlens: NDArray[np.int32], head: NDArray[np.uint64]) -> None:
    table = np.empty(1 << HASH_BITS, np.int16)
    dst = np.empty(PAGE_SIZE, np.uint8)
    for i in range(len(pages)):
        dlens[i] = compress_block(pages[i], table, dst)
        head[i] = first_bytes(dst, dlens[i])


_Scratch = tuple[NDArray[np.int16], Bytes]


class Lz4(CompiledCompressor[_Scratch]):
    """lz4 with acceleration 1, the same in every kernel line; -EINVAL if the block needs more than 4096.

    `lz4_scompress` sets the length only on success, so after an error the caller finds what it offered.
    """

    name = "lz4"

    def __init__(self, kernel_line: str) -> None:
        super().__init__()
        self.ident = (
            f"lz4 {LIBRARY} acceleration=1 hash_bits={HASH_BITS} dst={PAGE_SIZE} err={EINVAL},{PAGE_SIZE}"
        )

    def _make_scratch(self) -> _Scratch:
        return np.empty(1 << HASH_BITS, np.int16), np.empty(PAGE_SIZE, np.uint8)

    def _block(self, src: Bytes, scratch: _Scratch) -> tuple[int, Bytes]:
        return compress_block(src, *scratch), scratch[1]

    def _blocks(
        self, pages: NDArray[np.uint8], scratch: _Scratch, dlens: NDArray[np.int32], head: NDArray[np.uint64]
    ) -> None:
        _lengths(pages, dlens, head)

    def _back(self, src: Bytes, dst: Bytes) -> int:
        return decompress_block(src, dst)
