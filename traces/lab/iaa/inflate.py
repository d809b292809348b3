# SPDX-License-Identifier: GPL-2.0-or-later
"""Deflate streams taken apart as the device does: a history of 4096 bytes, and a code for each thing that can be wrong.

RFC 1951; error codes are those of :class:`traces.lab.iaa.descriptors.Analytics` (intel/qpl, hw_status.h). In which
order the hardware finds several errors at once is not published: it is this reader's.
"""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np

from traces.compiled import at, compiled
from traces.lab.iaa.coder import (
    CL_ORDER,
    DISTANCE_EXTRA,
    DISTANCE_FIRST,
    FIXED_LENGTHS,
    LENGTH_EXTRA,
    LENGTH_FIRST,
    WINDOW,
    canonical,
)
from traces.lab.iaa.descriptors import Analytics

__all__ = ["OVERFLOW", "inflate"]

#: Instead of an analytics code: the output does not fit.
OVERFLOW: Final = -1
# Compiled code takes plain numbers.
_BAD_EOF: Final = int(Analytics.BAD_EOF)
_BLOCK_TYPE: Final = int(Analytics.INVALID_BLOCK_TYPE)
_STORED: Final = int(Analytics.INVALID_STORED_LEN)
_MANY_LL: Final = int(Analytics.TOO_MANY_LL_CODES)
_MANY_D: Final = int(Analytics.TOO_MANY_D_CODES)
_CL_LENGTHS: Final = int(Analytics.BAD_CL_CODE_LEN)
_UNDEF_CL: Final = int(Analytics.UNDEF_CL_CODE)
_FIRST_16: Final = int(Analytics.FIRST_LL_CODE_16)
_WRONG_NUM: Final = int(Analytics.WRONG_NUM_DIST_CODES)
_NO_END: Final = int(Analytics.NO_LL_CODE)
_LL_LENGTHS: Final = int(Analytics.BAD_LL_CODE_LEN)
_D_LENGTHS: Final = int(Analytics.BAD_DIST_CODE_LEN)
_LL_CODE: Final = int(Analytics.BAD_LL_CODE)
_D_CODE: Final = int(Analytics.BAD_D_CODE)
_DISTANCE: Final = int(Analytics.BAD_DIST)
_BEFORE_START: Final = int(Analytics.REF_BEFORE_START)

#: Codes of up to this many bits are found in one look; longer ones one bit at a time.
_FAST: Final = 10


@compiled
def _table(lengths: Any, size: int, fast: Any, count: Any, sorted_symbols: Any) -> Any:
    """Build what :func:`_symbol` reads; returns what is left of the code space, negative when it is used twice."""
    count[:] = 0
    for symbol in range(size):
        count[at(lengths[at(symbol)])] += 1
    count[0] = 0
    left = 1
    for bits in range(1, 16):
        left = (left << 1) - count[at(bits)]
        if left < 0:
            return left
    start = np.zeros(17, np.int32)
    for bits in range(1, 16):
        start[at(bits + 1)] = start[at(bits)] + count[at(bits)]
    codes = np.zeros(size, np.int32)
    canonical(lengths[:size], codes)
    fast[:] = -1
    for symbol in range(size):
        bits = lengths[at(symbol)]
        if bits:
            sorted_symbols[at(start[at(bits)])] = symbol
            start[at(bits)] += 1
            if bits <= _FAST:
                step = 1 << bits
                for place in range(codes[at(symbol)], 1 << _FAST, step):
                    fast[at(place)] = symbol << 4 | bits
    return left


def _tables(lengths: Any) -> tuple[Any, Any, Any]:
    """What :func:`_table` makes of lengths, worked out as Python does: nothing is compiled when this is imported."""
    fast, count, sorted_symbols = np.empty(1 << _FAST, np.int32), np.zeros(16, np.int32), np.zeros(320, np.int32)
    for bits in lengths.tolist():
        count[bits] += 1
    sorted_symbols[: len(lengths)] = np.argsort(lengths, kind="stable")
    fast[:] = -1
    codes = np.zeros(len(lengths), np.int32)
    cast(Any, canonical).py_func(lengths, codes)
    for symbol, bits in enumerate(lengths.tolist()):
        fast[codes[symbol] :: 1 << bits] = symbol << 4 | bits
    return fast, count, sorted_symbols


_LL_FAST, _LL_COUNT, _LL_SORTED = _tables(FIXED_LENGTHS)
_D_FAST, _D_COUNT, _D_SORTED = _tables(np.full(32, 5, np.int32))


@compiled
def _slow(waiting: Any, held: Any, count: Any, sorted_symbols: Any) -> Any:
    """A symbol of any length, from its bits: symbol << 4 | bits; -1 for no such code, -2 for too few bits."""
    code = first = index = 0
    for bits in range(1, 16):
        if bits > held:
            return np.int64(-2)
        code |= waiting >> (bits - 1) & 1
        number = count[at(bits)]
        if code - first < number:
            return np.int64(sorted_symbols[at(index + code - first)]) << 4 | bits
        index += number
        first = (first + number) << 1
        code <<= 1
    return np.int64(-1)


@compiled
def _fill(src: Any, pos: Any, waiting: Any, held: Any, bits: int) -> Any:
    """Have at least this many bits waiting, fewer at the end of ``src``; returns pos, waiting, held."""
    while held < bits and pos < len(src):
        waiting |= np.int64(src[at(pos)]) << held
        pos += 1
        held += 8
    return pos, waiting, held


@compiled
def inflate(src: Any, dst: Any, only_final: bool) -> Any:
    """Inflate ``src`` into ``dst``, up to the end of the final block, or of the first.

    :param only_final: do not stop at the end of a block that is not the final one
    :returns: (bytes written, 0 or what is wrong, bytes of ``src`` used)
    """
    n, room = len(src), len(dst)
    pos: Any = 0
    out: Any = 0
    waiting = np.int64(0)
    held: Any = 0
    ll_fast, d_fast = np.empty(1 << _FAST, np.int32), np.empty(1 << _FAST, np.int32)
    ll_count, d_count = np.zeros(16, np.int32), np.zeros(16, np.int32)
    ll_sorted, d_sorted = np.zeros(320, np.int32), np.zeros(320, np.int32)
    lengths = np.zeros(320, np.int32)
    while True:
        pos, waiting, held = _fill(src, pos, waiting, held, 32)
        if held < 3:
            return out, _BAD_EOF, pos
        final, kind = waiting & 1, waiting >> 1 & 3
        waiting >>= 3
        held -= 3
        if kind == 3:
            return out, _BLOCK_TYPE, pos
        if kind == 0:
            waiting >>= held & 7
            held -= held & 7
            pos, waiting, held = _fill(src, pos, waiting, held, 32)
            if held < 32:
                return out, _BAD_EOF, pos
            size, other = waiting & 0xFFFF, waiting >> 16 & 0xFFFF
            waiting >>= 32
            held -= 32
            if size ^ other != 0xFFFF:
                return out, _STORED, pos
            # Whole bytes wait: give them back.
            pos -= held >> 3
            waiting, held = np.int64(0), 0
            if pos + size > n:
                return out, _BAD_EOF, pos
            if out + size > room:
                return out, OVERFLOW, pos
            for k in range(size):
                dst[at(out + k)] = src[at(pos + k)]
            out += size
            pos += size
        else:
            if kind == 1:
                ll_fast[:], ll_count[:], ll_sorted[:] = _LL_FAST, _LL_COUNT, _LL_SORTED
                d_fast[:], d_count[:], d_sorted[:] = _D_FAST, _D_COUNT, _D_SORTED
            else:
                pos, waiting, held = _fill(src, pos, waiting, held, 32)
                if held < 14:
                    return out, _BAD_EOF, pos
                ll_size, d_size, cl_size = (waiting & 31) + 257, (waiting >> 5 & 31) + 1, (waiting >> 10 & 15) + 4
                waiting >>= 14
                held -= 14
                if ll_size > 286:
                    return out, _MANY_LL, pos
                if d_size > 30:
                    return out, _MANY_D, pos
                lengths[:19] = 0
                for k in range(cl_size):
                    pos, waiting, held = _fill(src, pos, waiting, held, 32)
                    if held < 3:
                        return out, _BAD_EOF, pos
                    lengths[at(CL_ORDER[at(k)])] = waiting & 7
                    waiting >>= 3
                    held -= 3
                if _table(lengths, 19, ll_fast, ll_count, ll_sorted) != 0:
                    return out, _CL_LENGTHS, pos
                k = 0
                while k < ll_size + d_size:
                    pos, waiting, held = _fill(src, pos, waiting, held, 32)
                    found = _slow(waiting, held, ll_count, ll_sorted)
                    if found < 0:
                        return out, _UNDEF_CL if found == -1 else _BAD_EOF, pos
                    waiting >>= found & 15
                    held -= found & 15
                    symbol = found >> 4
                    if symbol < 16:
                        lengths[at(k)] = symbol
                        k += 1
                        continue
                    if symbol == 16:
                        if k == 0:
                            return out, _FIRST_16, pos
                        value, base, bits = lengths[at(k - 1)], 3, 2
                    elif symbol == 17:
                        value, base, bits = np.int32(0), 3, 3
                    else:
                        value, base, bits = np.int32(0), 11, 7
                    if held < bits:
                        return out, _BAD_EOF, pos
                    run = base + (waiting & (1 << bits) - 1)
                    waiting >>= bits
                    held -= bits
                    if k + run > ll_size + d_size:
                        return out, _WRONG_NUM, pos
                    for _ in range(run):
                        lengths[at(k)] = value
                        k += 1
                if lengths[256] == 0:
                    return out, _NO_END, pos
                d_lengths = lengths[ll_size : ll_size + d_size].copy()
                left = _table(lengths, ll_size, ll_fast, ll_count, ll_sorted)
                # A code of one bit alone may leave the other unused.
                if left < 0 or (left > 0 and not (ll_count[1] == 1 and left == 1 << 14)):
                    return out, _LL_LENGTHS, pos
                left = _table(d_lengths, d_size, d_fast, d_count, d_sorted)
                if left < 0 or (left > 0 and left != 1 << 15 and not (d_count[1] == 1 and left == 1 << 14)):
                    return out, _D_LENGTHS, pos
            while True:
                pos, waiting, held = _fill(src, pos, waiting, held, 48)
                found = np.int64(ll_fast[at(waiting & (1 << _FAST) - 1)])
                if found < 0 or (found & 15) > held:
                    found = _slow(waiting, held, ll_count, ll_sorted)
                    if found < 0:
                        return out, _LL_CODE if found == -1 else _BAD_EOF, pos
                waiting >>= found & 15
                held -= found & 15
                symbol = found >> 4
                if symbol < 256:
                    if out == room:
                        return out, OVERFLOW, pos
                    dst[at(out)] = symbol
                    out += 1
                    continue
                if symbol == 256:
                    break
                if symbol > 285:
                    return out, _LL_CODE, pos
                more = np.int64(LENGTH_EXTRA[at(symbol - 257)])
                if held < more:
                    return out, _BAD_EOF, pos
                length = LENGTH_FIRST[at(symbol - 257)] + (waiting & (1 << more) - 1)
                waiting >>= more
                held -= more
                found = np.int64(d_fast[at(waiting & (1 << _FAST) - 1)])
                if found < 0 or (found & 15) > held:
                    found = _slow(waiting, held, d_count, d_sorted)
                    if found < 0:
                        return out, _D_CODE if found == -1 else _BAD_EOF, pos
                waiting >>= found & 15
                held -= found & 15
                symbol = found >> 4
                if symbol > 29:
                    return out, _D_CODE, pos
                more = np.int64(DISTANCE_EXTRA[at(symbol)])
                if held < more:
                    return out, _BAD_EOF, pos
                distance = DISTANCE_FIRST[at(symbol)] + (waiting & (1 << more) - 1)
                waiting >>= more
                held -= more
                if distance > WINDOW:
                    return out, _DISTANCE, pos
                if distance > out:
                    return out, _BEFORE_START, pos
                if out + length > room:
                    return out, OVERFLOW, pos
                for k in range(out, out + length):
                    dst[at(k)] = dst[at(k - distance)]
                out += length
        if final or not only_final:
            return out, 0, pos - (held >> 3)
