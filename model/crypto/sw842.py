# SPDX-License-Identifier: GPL-2.0-or-later
"""842 as `crypto842_scompress` gives it (Linux 6.12 to 7.3): IBM's 842 format, written by `sw842_compress`.

The format takes the page in blocks of eight bytes, big endian. A block is a 5-bit template and what the template
asks for; all is written bit by bit, highest bit first.

    template      means
    5 * a + b     the block in two halves of four bytes, each of them
                  0: 32 bits of data                   1: 16 bits of data, 2-byte index
                  2: 2-byte index, 16 bits of data     3: two 2-byte indexes     4: 4-byte index
    25            8-byte index
    27            the last eight bytes once more, and as many times again as the next 6 bits say
    28            eight zero bytes
    29            a 3-bit count of bytes, and these: how the kernel ends what is not a multiple of eight
    30            the end; the 32 bits after it are the CRC-32 (highest bit first) of all the data

An index counts units of its own size in a ring of the last 256 (2- and 8-byte units, 8 bits) or 512 (4-byte units,
9 bits) before the block. The compressor's choices: a run of equal blocks becomes repeats of at most 64, a zero
block its template, any other block its shortest template, and of equal units the last one before the block is
the one pointed at. The result is padded with zeros to a multiple of eight bytes.

Debian's kernels come without the module. Built for 6.12.117, 7.2.13 and 7.3-rc7 and recorded there, it gave this
code's errors, lengths and bytes (the bytes only from 7.2 on: 6.12 has no function that shows them).

`compress_blocks` and `decompress_blocks` are ordinary Python (`.py_func`) compiled by Numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errno import ENOSPC
from ..page import PAGE_SIZE
from .compiled import Bytes, CompiledCompressor, at, compiled, first_bytes
from .libraries import LIBRARIES

LIBRARY = LIBRARIES["842"]

BLOCK = 8  # bytes
INDEX8, REPEAT, ZEROS, SHORT, END = 25, 27, 28, 29, 30  # templates that are not made of two halves
TEMPLATE_BITS = 5
REPEAT_BITS = 6
REPEAT_SIZE = TEMPLATE_BITS + REPEAT_BITS
SHORT_BITS = 3
CRC_BITS = 32
RING2, RING4, RING8 = 256, 512, 256  # units
INDEX2_BITS, INDEX4_BITS, INDEX8_BITS = 8, 9, 8
MAX_REPEAT = 1 << REPEAT_BITS

SLOT_BITS = 12  # of the tables that find equal units: any number gives the same output
PRIMES = 2654435761, 2246822519  # any odd numbers of 32 bits, likewise

SLACK = 24  # bytes of dst behind the room: what a block or the end may write before it is noticed


def _crc_tables() -> NDArray[np.int64]:
    """What one byte adds to the CRC with 0 to 7 bytes behind it, shape (8, 256)."""
    tables = np.zeros((8, 256), np.int64)
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc >> 31 else 0)
        tables[0, byte] = crc
    for k in range(1, 8):
        tables[k] = (tables[k - 1] << 8 & 0xFFFFFFFF) ^ tables[0][tables[k - 1] >> 24]
    return tables


CRC_TABLES = _crc_tables()


class Scratch(NamedTuple):
    """Working memory of `compress_blocks`; what it holds between calls does not matter."""

    last8: NDArray[np.int16]  # slot -> the last 8-byte unit of the page that fell into it, or -1
    last4: NDArray[np.int16]
    last2: NDArray[np.int16]  # value -> the last 2-byte unit that had it, or -1
    older8: NDArray[np.int16]  # unit -> the one before it in its slot, or -1
    older4: NDArray[np.int16]
    values8: NDArray[np.int64]  # unit -> its value
    values4: NDArray[np.int64]


def make_scratch(size: int = PAGE_SIZE) -> Scratch:
    """Working memory for sources of up to `size` bytes, at most 65528."""
    slots = 1 << SLOT_BITS
    return Scratch(
        np.empty(slots, np.int16),
        np.empty(slots, np.int16),
        np.empty(1 << 16, np.int16),
        np.empty(size // 8, np.int16),
        np.empty(size // 4, np.int16),
        np.empty(size // 8, np.int64),
        np.empty(size // 4, np.int64),
    )


@compiled
def _word(src: Bytes, i: int) -> int:
    """The four bytes from `i` on, big endian."""
    high = np.int64(src[at(i)]) << 24 | np.int64(src[at(i + 1)]) << 16
    return int(high | np.int64(src[at(i + 2)]) << 8 | np.int64(src[at(i + 3)]))


@compiled
def _put_word(dst: Bytes, i: int, word: int) -> None:
    """Write four bytes from `i` on, big endian."""
    dst[at(i)] = word >> 24 & 255
    dst[at(i + 1)] = word >> 16 & 255
    dst[at(i + 2)] = word >> 8 & 255
    dst[at(i + 3)] = word & 255


@compiled
def crc32(src: Bytes, size: int) -> int:
    """The CRC-32 of the first `size` bytes of `src`, highest bit first, from 0, not inverted: `crc32_be`."""
    crc = 0
    i = 0
    while i + 8 <= size:
        high = crc ^ _word(src, i)
        low = _word(src, i + 4)
        crc = int(
            CRC_TABLES[7, at(high >> 24)]
            ^ CRC_TABLES[6, at(high >> 16 & 255)]
            ^ CRC_TABLES[5, at(high >> 8 & 255)]
            ^ CRC_TABLES[4, at(high & 255)]
            ^ CRC_TABLES[3, at(low >> 24)]
            ^ CRC_TABLES[2, at(low >> 16 & 255)]
            ^ CRC_TABLES[1, at(low >> 8 & 255)]
            ^ CRC_TABLES[0, at(low & 255)]
        )
        i += 8
    while i < size:
        crc = (crc << 8 & 0xFFFFFFFF) ^ int(CRC_TABLES[0, at(crc >> 24 ^ int(src[at(i)]))])
        i += 1
    return crc


@compiled
def _slot(high: int, low: int) -> int:
    """The slot of a unit given as two halves of up to 32 bits."""
    return ((high * PRIMES[0] ^ low * PRIMES[1]) & 0xFFFFFFFF) >> (32 - SLOT_BITS)


@compiled
def _find(
    value: int, slot: int, oldest: int, last: NDArray[np.int16], older: NDArray[np.int16], values: NDArray[np.int64]
) -> int:
    """The last unit with this value, or -1 if none is left in the ring, whose first unit is `oldest`."""
    unit = int(last[at(slot)])
    while unit >= oldest:
        if values[at(unit)] == value:
            return unit
        unit = int(older[at(unit)])
    return -1


@compiled
def _enter(
    value: int, slot: int, unit: int, last: NDArray[np.int16], older: NDArray[np.int16], values: NDArray[np.int64]
) -> None:
    """Make `unit` the last one of its slot."""
    before = int(last[at(slot)])
    if before >= 0 and values[at(before)] == value:
        before = int(older[at(before)])  # an equal unit further back is never looked at again
    older[at(unit)] = before
    last[at(slot)] = unit
    values[at(unit)] = value


@compiled
def _half(value: int, unit4: int, unit2: int, second2: int, oldest2: int) -> tuple[int, int, int]:
    """The shortest form of the four bytes `value`: which of the five it is, its bits and how many they are.

    `unit4` is an equal 4-byte unit or -1; `unit2` and `second2` are the last equals of the two 2-byte units,
    in the ring if not older than `oldest2`. Written without branches: which form it is cannot be predicted.
    """
    form = (2 if unit2 >= oldest2 else 0) + (1 if second2 >= oldest2 else 0)
    first = unit2 & RING2 - 1 if unit2 >= oldest2 else value >> 16
    first_size = INDEX2_BITS if unit2 >= oldest2 else 16
    second = second2 & RING2 - 1 if second2 >= oldest2 else value & 0xFFFF
    second_size = INDEX2_BITS if second2 >= oldest2 else 16
    bits = first << second_size | second
    size = first_size + second_size
    if unit4 >= 0:
        return 4, unit4 & RING4 - 1, INDEX4_BITS
    return form, bits, size


@compiled
def _put(dst: Bytes, out: int, held: int, count: int, value: int, size: int) -> tuple[int, int, int]:
    """Append `size` bits, up to 32, to dst[:out] and the `count` bits `held` behind it; returns all three anew.

    A word is written whether it is full or not, which costs less than to ask: the next one is written over it.
    """
    held = held << size | value
    count += size
    _put_word(dst, out, held << (63 - count) >> 31)
    out += count >> 5 << 2
    count &= 31
    return out, held & ((1 << count) - 1), count


@compiled
def compress_blocks(src: Bytes, crc: int, memory: Scratch, dst: Bytes) -> int:
    """Compress `src` into `dst` and return the length in bytes, or 0 if it is more than `len(dst)` less `SLACK`.

    Mirrors `sw842_compress`. The size of `src` is a multiple of eight; `crc` is its CRC-32.
    """
    blocks = len(src) // BLOCK
    room = len(dst) - SLACK
    last8, last4, last2 = memory.last8, memory.last4, memory.last2
    older8, older4 = memory.older8, memory.older4
    values8, values4 = memory.values8, memory.values4
    last8[:] = -1
    last4[:] = -1
    last2[:] = -1
    out = 0  # end of dst
    held = 0  # bits not yet written, `count` of them
    count = 0
    run = 0  # repeats not yet written
    high_before = -1
    low_before = -1
    for block in range(blocks):
        high = _word(src, BLOCK * block)
        low = _word(src, BLOCK * block + 4)
        value = int(np.int64(high) << 32 | low)
        slot8 = _slot(high, low)
        slot_high = _slot(high, 0)
        slot_low = _slot(low, 0)
        if high == high_before and low == low_before:
            run += 1
            if run == MAX_REPEAT:
                out, held, count = _put(dst, out, held, count, REPEAT << REPEAT_BITS | run - 1, REPEAT_SIZE)
                run = 0
        else:
            if run > 0:
                out, held, count = _put(dst, out, held, count, REPEAT << REPEAT_BITS | run - 1, REPEAT_SIZE)
                run = 0
            if high == 0 and low == 0:
                out, held, count = _put(dst, out, held, count, ZEROS, TEMPLATE_BITS)
            else:
                unit8 = _find(value, slot8, max(0, block - RING8), last8, older8, values8)
                if unit8 >= 0:
                    bits = INDEX8 << INDEX8_BITS | unit8 & RING8 - 1
                    out, held, count = _put(dst, out, held, count, bits, TEMPLATE_BITS + INDEX8_BITS)
                else:
                    oldest4 = max(0, 2 * block - RING4)
                    oldest2 = max(0, 4 * block - RING2)
                    form_high, bits_high, size_high = _half(
                        high,
                        _find(high, slot_high, oldest4, last4, older4, values4),
                        int(last2[at(high >> 16)]),
                        int(last2[at(high & 0xFFFF)]),
                        oldest2,
                    )
                    form_low, bits_low, size_low = _half(
                        low,
                        _find(low, slot_low, oldest4, last4, older4, values4),
                        int(last2[at(low >> 16)]),
                        int(last2[at(low & 0xFFFF)]),
                        oldest2,
                    )
                    out, held, count = _put(dst, out, held, count, 5 * form_high + form_low, TEMPLATE_BITS)
                    out, held, count = _put(dst, out, held, count, bits_high, size_high)
                    out, held, count = _put(dst, out, held, count, bits_low, size_low)
            high_before = high
            low_before = low
        if out > room:
            return 0
        _enter(value, slot8, block, last8, older8, values8)
        _enter(high, slot_high, 2 * block, last4, older4, values4)
        _enter(low, slot_low, 2 * block + 1, last4, older4, values4)
        last2[at(high >> 16)] = 4 * block
        last2[at(high & 0xFFFF)] = 4 * block + 1
        last2[at(low >> 16)] = 4 * block + 2
        last2[at(low & 0xFFFF)] = 4 * block + 3

    if run > 0:
        out, held, count = _put(dst, out, held, count, REPEAT << REPEAT_BITS | run - 1, REPEAT_SIZE)
    out, held, count = _put(dst, out, held, count, END, TEMPLATE_BITS)
    out, held, count = _put(dst, out, held, count, crc, CRC_BITS)
    length = (8 * out + count + 63) // 64 * 8
    _put_word(dst, out, held << (32 - count))
    _put_word(dst, out + 4, 0)
    return length if length <= room else 0


@compiled
def _take(src: Bytes, bit: int, size: int) -> int:
    """The `size` bits (1 to 32) from `bit` on, all of them inside `src`."""
    end = bit + size
    value = 0
    for i in range(bit >> 3, (end + 7) >> 3):
        value = value << 8 | int(src[at(i)])
    return value >> (-end & 7) & ((1 << size) - 1)


@compiled
def _place(offset: int, size: int, ring: int, out: int) -> int:
    """Where dst has the unit of `size` bytes that an index means, or -1 if it is not written yet.

    `offset` and `ring` are the place in the ring and its size in bytes. Mirrors `__do_index`: when dst has `out`
    bytes, only whole blocks of eight are in the ring.
    """
    done = out & -BLOCK
    if done > ring:
        lap = done & -ring
        if offset >= done - lap:
            lap -= ring
        offset += lap
    return offset if offset + size <= done else -1


@compiled
def _take_block(src: Bytes, bit: int, template: int, dst: Bytes, out: int) -> int:
    """Read what a template up to 25 asks for into the next eight bytes of `dst`; returns the next bit, or -1."""
    stop = out + BLOCK
    while out < stop:
        form = template // 5 if stop - out > 4 else template % 5
        size, bits, ring = 2, INDEX2_BITS, RING2
        if template == INDEX8:
            size, bits, ring = 8, INDEX8_BITS, RING8
        elif form == 4:
            size, bits, ring = 4, INDEX4_BITS, RING4
        elif form & (1 if stop - out & 2 else 2) == 0:
            bits, ring = 16, 0
        if bit + bits > 8 * len(src):
            return -1
        value = _take(src, bit, bits)
        bit += bits
        if ring == 0:
            dst[at(out)] = value >> 8
            dst[at(out + 1)] = value & 255
        else:
            place = _place(value * size, size, ring * size, out)
            if place < 0:
                return -1
            for i in range(size):
                dst[at(out + i)] = dst[at(place + i)]
        out += size
    return bit


@compiled
def decompress_blocks(src: Bytes, dst: Bytes) -> int:
    """Decompress `src` into `dst` and return how many bytes were written, -1 for bad data, -2 for a wrong CRC.

    Mirrors what `sw842_decompress` accepts: what follows the CRC is not looked at. Two things it does not notice,
    writing behind `dst` and repeating bytes from before it, are refused here.
    """
    end = 8 * len(src)
    room = len(dst)
    bit = 0
    out = 0
    while bit + TEMPLATE_BITS <= end:
        template = _take(src, bit, TEMPLATE_BITS)
        bit += TEMPLATE_BITS
        if template == END:
            if bit + CRC_BITS > end:
                return -1
            return out if _take(src, bit, CRC_BITS) == crc32(dst, out) else -2
        if template == SHORT:
            if bit + SHORT_BITS > end:
                return -1
            size = _take(src, bit, SHORT_BITS)
            bit += SHORT_BITS
            if size == 0 or out + size > room or bit + 8 * size > end:
                return -1
            for i in range(size):
                dst[at(out + i)] = _take(src, bit + 8 * i, 8)
            bit += 8 * size
            out += size
        elif template == REPEAT:
            if bit + REPEAT_BITS > end:
                return -1
            size = BLOCK * (_take(src, bit, REPEAT_BITS) + 1)
            bit += REPEAT_BITS
            if out < BLOCK or out + size > room:
                return -1
            for i in range(out, out + size):
                dst[at(i)] = dst[at(i - BLOCK)]
            out += size
        elif out + BLOCK > room:
            return -1
        elif template == ZEROS:
            for i in range(out, out + BLOCK):
                dst[at(i)] = 0
            out += BLOCK
        elif template <= INDEX8:
            bit = _take_block(src, bit, template, dst, out)
            if bit < 0:
                return -1
            out += BLOCK
        else:
            return -1
    return -1


@compiled
def _lengths(
    pages: NDArray[np.uint8], memory: Scratch, dlens: NDArray[np.int32], head: NDArray[np.uint64]
) -> None:
    dst = np.empty(PAGE_SIZE + SLACK, np.uint8)
    for i in range(len(pages)):
        dlens[i] = compress_blocks(pages[i], 0, memory, dst)  # no CRC lies in the first eight bytes
        head[i] = first_bytes(dst, dlens[i])


class Sw842(CompiledCompressor[Scratch]):
    """842, the same in every kernel line; -ENOSPC if the padded result needs more than 4096 bytes."""

    name = "842"
    err = ENOSPC
    err_dlen = 0  # `sw842_compress` clears the caller's length before it begins

    def __init__(self, kernel_line: str) -> None:
        super().__init__()
        self.ident = f"842 {LIBRARY} dst={PAGE_SIZE} err={ENOSPC},0"

    def _make_scratch(self) -> Scratch:
        return make_scratch()

    def _block(self, src: Bytes, scratch: Scratch) -> tuple[int, Bytes]:
        dst = np.empty(PAGE_SIZE + SLACK, np.uint8)
        return compress_blocks(src, crc32(src, PAGE_SIZE), scratch, dst), dst

    def _blocks(
        self, pages: NDArray[np.uint8], scratch: Scratch, dlens: NDArray[np.int32], head: NDArray[np.uint64]
    ) -> None:
        _lengths(pages, scratch, dlens, head)

    def _back(self, src: Bytes, dst: Bytes) -> int:
        return decompress_blocks(src, dst)

    def _damage(self, length: int) -> str:
        return "842: the CRC is not that of the data" if length == -2 else "842: not a valid stream of templates"
