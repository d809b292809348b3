# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated IAA's compressor: what it writes for a compress descriptor, step by step, the same on every machine.

Which matches the hardware's matcher finds is not published, so this is not the hardware's output. A replay predicts
lengths and bytes of recordings of the emulated device with the same functions (:mod:`replay.iaa.compressor`).

The parse of a source of n bytes into tokens:

1. `last`, 4096 entries, says where a hash was last seen; none at first.  The hash of three bytes a, b, c is the upper
   12 bits of the lower 32 of (a | b << 8 | c << 16) * 0x9E3779B1.
2. At position p with p + 3 <= n: candidate = last[hash of the bytes at p]; then last[...] = p.
3. If the candidate is at most 4096 bytes back and its three bytes are those at p, the match is as long as the bytes
   stay equal, at most 258 and at most to the end of the source.  Emit (length, distance), enter every further
   position of the match whose three bytes lie in the source as in step 2, and continue behind it.
4. Otherwise, or with fewer than three bytes left, emit the byte, and continue at p + 1.

One candidate, the first match is taken: no chains, no lazy matching.

`fixed_block`: BFINAL=1, BTYPE=01 (the three bits that iaa_aecs_init_fixed() puts into the AECS), the tokens in the
fixed code of RFC 1951, 3.2.6, an end of block, zeros up to a whole byte.  There is no stored block: what does not fit
is an overflow, as the device reports it.

`dynamic_block` (header generation, version 2): BFINAL=1, BTYPE=10, always, even where the fixed code would be shorter
(the test vectors of the posted deflate-iaa-dynamic show the same of the hardware), with codes as follows:

1. Count the tokens' symbols, the end of block once.  Sort those that occur by (count, symbol).
2. Huffman's algorithm with two queues: sorted leaves, and inner nodes as they are made.  Of the two heads the lighter
   is taken, the leaf when they are equal.  A single symbol gets one bit.
3. Where a code would be longer than the limit (15; 7 for the code of code lengths), count the codes of each length,
   those too long at the limit.  While the sum of 2^(limit - length) is more than 2^limit: take one code off the
   limit, and make of one code of the greatest shorter length two that are one bit longer.  The symbols that occur
   most get the shortest.
4. HLIT and HDIST end at the last symbol that occurs (257 and 1 at least).  The lengths of both, in one sequence, are
   written with runs: of zeros, 11 to 138 at a time (18), else 3 to 10 (17), else singly; of a length, it and then
   repeats of 3 to 6 (16), the rest singly.  A run takes as many as it may.  The code of code lengths follows steps 1
   to 3; HCLEN ends at its last length that is not 0, in the order of RFC 1951.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from traces.compiled import at, compiled

__all__ = ["WINDOW", "compress", "dynamic_block", "fixed_block"]

#: How far back a match may begin, in bytes.
WINDOW = 4096
_MIN_MATCH, _MAX_MATCH = 3, 258
_END = 256
_MAX_BITS, _MAX_CL_BITS = 15, 7
_HASH_SIZE = 4096

Bytes: TypeAlias = NDArray[np.uint8]
Numbers: TypeAlias = NDArray[np.int32]


def _symbols(extra: Numbers, value: int, end: int) -> tuple[Numbers, Numbers]:
    """Give the first value of each symbol with these extra bits, counted from ``value``, and each value's symbol."""
    first, symbols = np.zeros(len(extra), np.int32), np.zeros(end, np.int32)
    for symbol, bits in enumerate(extra.tolist()):
        first[symbol] = value
        symbols[value : value + (1 << bits)] = symbol
        value += 1 << bits
    return first, symbols


# RFC 1951, 3.2.5; a length of 258 has a symbol of its own, the last.
LENGTH_EXTRA = np.array([0] * 8 + [bits for bits in range(1, 6) for _ in range(4)] + [0], np.int32)
DISTANCE_EXTRA = np.array([max(0, symbol // 2 - 1) for symbol in range(30)], np.int32)
LENGTH_FIRST, LENGTH_SYMBOL = _symbols(LENGTH_EXTRA, _MIN_MATCH, _MAX_MATCH + 1)
LENGTH_FIRST[28], LENGTH_SYMBOL[_MAX_MATCH] = _MAX_MATCH, 28
DISTANCE_FIRST, DISTANCE_SYMBOL = _symbols(DISTANCE_EXTRA, 1, WINDOW + 1)
#: RFC 1951, 3.2.7: in which order the lengths of the code of code lengths are written.
CL_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.int32)
#: RFC 1951, 3.2.6.
FIXED_LENGTHS = np.array([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8, np.int32)


@compiled
def canonical(lengths: Numbers, codes: Numbers) -> None:
    """RFC 1951, 3.2.2: the codes of given lengths, their bits in the order in which they are sent."""
    code = 0
    for bits in range(1, _MAX_BITS + 1):
        for symbol in range(len(lengths)):
            if lengths[at(symbol)] == bits:
                turned = 0
                for k in range(bits):
                    turned |= (code >> k & 1) << (bits - 1 - k)
                codes[at(symbol)] = turned
                code += 1
        code <<= 1


def _plain(function: Any) -> Any:
    # As Python runs it: nothing is compiled when this is imported.
    return function.py_func


_FIXED_CODES = np.zeros(288, np.int32)
_plain(canonical)(FIXED_LENGTHS, _FIXED_CODES)
_FIXED_DISTANCE_LENGTHS = np.full(30, 5, np.int32)
_FIXED_DISTANCE_CODES = np.zeros(30, np.int32)
_plain(canonical)(_FIXED_DISTANCE_LENGTHS, _FIXED_DISTANCE_CODES)


@compiled
def _parse(src: Bytes, tokens: Numbers) -> int:
    """Tokens of a source: a byte, or length << 16 | distance.  There are at most len(src); returns how many."""
    n = len(src)
    last = np.full(_HASH_SIZE, -1, np.int32)
    count = 0
    pos = 0
    # The three bytes at `pos`, of which the last comes anew at each step.
    three = np.int64(src[0]) << 8 | np.int64(src[1]) << 16 if n >= _MIN_MATCH else np.int64(0)
    while pos + _MIN_MATCH <= n:
        three = three >> 8 | np.int64(src[at(pos + 2)]) << 16
        place = (three * 0x9E3779B1 & 0xFFFFFFFF) >> 20
        candidate = np.int64(last[at(place)])
        last[at(place)] = pos
        if (
            candidate < 0
            or pos - candidate > WINDOW
            or src[at(candidate)] != src[at(pos)]
            or src[at(candidate + 1)] != src[at(pos + 1)]
            or src[at(candidate + 2)] != src[at(pos + 2)]
        ):
            tokens[at(count)] = three & 0xFF
            count += 1
            pos += 1
            continue
        most = min(n - pos, _MAX_MATCH)
        length = _MIN_MATCH
        while length < most and src[at(candidate + length)] == src[at(pos + length)]:
            length += 1
        tokens[at(count)] = length << 16 | (pos - candidate)
        count += 1
        end = pos + length
        pos += 1
        stop = min(end, n - _MIN_MATCH + 1)
        while pos < stop:
            three = three >> 8 | np.int64(src[at(pos + 2)]) << 16
            last[at((three * 0x9E3779B1 & 0xFFFFFFFF) >> 20)] = pos
            pos += 1
        pos = end
    while pos < n:
        tokens[at(count)] = src[at(pos)]
        count += 1
        pos += 1
    return count


@compiled
def _put(dst: Bytes, state: NDArray[np.int64], value: int, bits: int) -> None:
    """Write `bits` bits; state is (bytes written, bits waiting, how many).  Behind the end of `dst` it only counts."""
    waiting = state[at(1)] | np.int64(value) << state[at(2)]
    held = state[at(2)] + bits
    done = state[at(0)]
    while held >= 8:
        if done < len(dst):
            dst[at(done)] = waiting & 0xFF
        done += 1
        waiting >>= 8
        held -= 8
    state[at(0)] = done
    state[at(1)] = waiting
    state[at(2)] = held


@compiled
def _put_tokens(
    tokens: Numbers,
    count: int,
    ll_lengths: Numbers,
    ll_codes: Numbers,
    d_lengths: Numbers,
    d_codes: Numbers,
    dst: Bytes,
    state: NDArray[np.int64],
) -> int:
    """Write tokens and an end of block in these codes; returns the length in bytes, 0 when it does not fit."""
    # What is not passed on costs nothing: the loop has the state in locals.
    done, waiting, held = state[at(0)], state[at(1)], state[at(2)]
    room = len(dst)
    for number in range(count + 1):
        token = np.int64(tokens[at(number)]) if number < count else np.int64(_END)
        if token < 0x10000:
            waiting |= np.int64(ll_codes[at(token)]) << held
            held += ll_lengths[at(token)]
        else:
            length, distance = token >> 16, token & 0xFFFF
            symbol = LENGTH_SYMBOL[at(length)]
            waiting |= np.int64(ll_codes[at(257 + symbol)]) << held
            held += ll_lengths[at(257 + symbol)]
            waiting |= (length - LENGTH_FIRST[at(symbol)]) << held
            held += LENGTH_EXTRA[at(symbol)]
            symbol = DISTANCE_SYMBOL[at(distance)]
            waiting |= np.int64(d_codes[at(symbol)]) << held
            held += d_lengths[at(symbol)]
            waiting |= (distance - DISTANCE_FIRST[at(symbol)]) << held
            held += DISTANCE_EXTRA[at(symbol)]
        while held >= 8:
            if done == room:
                return 0
            dst[at(done)] = waiting & 0xFF
            done += 1
            waiting >>= 8
            held -= 8
    if held:
        if done == room:
            return 0
        dst[at(done)] = waiting & 0xFF
        done += 1
    return int(done)


@compiled
def fixed_block(src: Bytes, dst: Bytes) -> int:
    """Compress into one block of the fixed code; returns its length in bytes, 0 when `dst` is too short."""
    tokens = np.empty(len(src) + 1, np.int32)
    count = _parse(src, tokens)
    state = np.zeros(3, np.int64)
    _put(dst, state, 3, 3)
    return int(
        _put_tokens(
            tokens,
            count,
            FIXED_LENGTHS,
            _FIXED_CODES,
            _FIXED_DISTANCE_LENGTHS,
            _FIXED_DISTANCE_CODES,
            dst,
            state,
        )
    )


@compiled
def _code_lengths(counts: Numbers, limit: int, lengths: Numbers) -> None:
    """Steps 1 to 3 of dynamic codes: the length of each symbol's code, 0 where it does not occur."""
    size = len(counts)
    order = np.empty(size, np.int32)
    used = 0
    for symbol in range(size):
        lengths[at(symbol)] = 0
        if counts[at(symbol)]:
            # Kept sorted by count; an equal count keeps the order of the symbols.
            place = used
            while place and counts[at(order[at(place - 1)])] > counts[at(symbol)]:
                order[at(place)] = order[at(place - 1)]
                place -= 1
            order[at(place)] = symbol
            used += 1
    if used == 0:
        return
    if used == 1:
        lengths[at(order[at(0)])] = 1
        return
    # Nodes: leaves 0 to used - 1, then inner ones.
    weight = np.empty(2 * used, np.int64)
    parent = np.zeros(2 * used, np.int32)
    for k in range(used):
        weight[at(k)] = counts[at(order[at(k)])]
    leaf, inner, made = 0, used, used
    while made < 2 * used - 1:
        total = np.int64(0)
        for _ in range(2):
            if leaf < used and (inner == made or weight[at(leaf)] <= weight[at(inner)]):
                node = leaf
                leaf += 1
            else:
                node = inner
                inner += 1
            parent[at(node)] = made
            total += weight[at(node)]
        weight[at(made)] = total
        made += 1
    depth = np.zeros(2 * used, np.int32)
    of_length = np.zeros(limit + 1, np.int32)
    for k in range(2 * used - 3, -1, -1):
        depth[at(k)] = depth[at(parent[at(k)])] + 1
        if k < used:
            of_length[at(min(depth[at(k)], limit))] += 1
    total = np.int64(0)
    for bits in range(1, limit + 1):
        total += np.int64(of_length[at(bits)]) << (limit - bits)
    while total > 1 << limit:
        of_length[at(limit)] -= 1
        bits = limit - 1
        while not of_length[at(bits)]:
            bits -= 1
        of_length[at(bits)] -= 1
        of_length[at(bits + 1)] += 2
        total -= 1
    # The rarest have the longest codes.
    k = 0
    for bits in range(limit, 0, -1):
        for _ in range(of_length[at(bits)]):
            lengths[at(order[at(k)])] = bits
            k += 1


@compiled
def _runs(sequence: Numbers, size: int, symbols: Numbers, extra: Numbers) -> int:
    """Step 4: symbols of the code of code lengths, with the value of their extra bits; returns how many."""
    count = 0
    pos = 0
    while pos < size:
        value = sequence[at(pos)]
        end = pos + 1
        while end < size and sequence[at(end)] == value:
            end += 1
        run = end - pos
        if value:
            symbols[at(count)], extra[at(count)] = value, 0
            count += 1
            run -= 1
        while run:
            if value == 0 and run >= 11:
                taken = min(run, 138)
                symbols[at(count)], extra[at(count)] = 18, taken - 11
            elif value == 0 and run >= 3:
                taken = run
                symbols[at(count)], extra[at(count)] = 17, taken - 3
            elif value and run >= 3:
                taken = min(run, 6)
                symbols[at(count)], extra[at(count)] = 16, taken - 3
            else:
                taken = 1
                symbols[at(count)], extra[at(count)] = value, 0
            count += 1
            run -= taken
        pos = end
    return count


@compiled
def dynamic_block(src: Bytes, dst: Bytes) -> int:
    """Compress into one block of codes of its own; returns its length in bytes, 0 when `dst` is too short."""
    tokens = np.empty(len(src) + 1, np.int32)
    count = _parse(src, tokens)
    ll_counts, d_counts = np.zeros(286, np.int32), np.zeros(30, np.int32)
    ll_counts[at(_END)] = 1
    for number in range(count):
        token = tokens[at(number)]
        if token < 0x10000:
            ll_counts[at(token)] += 1
        else:
            ll_counts[at(257 + LENGTH_SYMBOL[at(token >> 16)])] += 1
            d_counts[at(DISTANCE_SYMBOL[at(token & 0xFFFF)])] += 1
    ll_lengths, d_lengths = np.zeros(286, np.int32), np.zeros(30, np.int32)
    _code_lengths(ll_counts, _MAX_BITS, ll_lengths)
    _code_lengths(d_counts, _MAX_BITS, d_lengths)
    ll_codes, d_codes = np.zeros(286, np.int32), np.zeros(30, np.int32)
    canonical(ll_lengths, ll_codes)
    canonical(d_lengths, d_codes)
    ll_size, d_size = 286, 30
    while ll_size > 257 and not ll_lengths[at(ll_size - 1)]:
        ll_size -= 1
    while d_size > 1 and not d_lengths[at(d_size - 1)]:
        d_size -= 1
    sequence = np.zeros(316, np.int32)
    sequence[:ll_size] = ll_lengths[:ll_size]
    sequence[ll_size : ll_size + d_size] = d_lengths[:d_size]
    symbols, extra = np.zeros(316, np.int32), np.zeros(316, np.int32)
    runs = _runs(sequence, ll_size + d_size, symbols, extra)
    cl_counts, cl_lengths, cl_codes = np.zeros(19, np.int32), np.zeros(19, np.int32), np.zeros(19, np.int32)
    for k in range(runs):
        cl_counts[at(symbols[at(k)])] += 1
    _code_lengths(cl_counts, _MAX_CL_BITS, cl_lengths)
    canonical(cl_lengths, cl_codes)
    cl_size = 19
    while cl_size > 4 and not cl_lengths[at(CL_ORDER[at(cl_size - 1)])]:
        cl_size -= 1
    state = np.zeros(3, np.int64)
    _put(dst, state, 5, 3)
    _put(dst, state, ll_size - 257, 5)
    _put(dst, state, d_size - 1, 5)
    _put(dst, state, cl_size - 4, 4)
    for k in range(cl_size):
        _put(dst, state, cl_lengths[at(CL_ORDER[at(k)])], 3)
    for k in range(runs):
        symbol = symbols[at(k)]
        _put(dst, state, cl_codes[at(symbol)], cl_lengths[at(symbol)])
        if symbol >= 16:
            _put(dst, state, extra[at(k)], 2 if symbol == 16 else 3 if symbol == 17 else 7)
    if state[at(0)] > len(dst):
        return 0
    return int(_put_tokens(tokens, count, ll_lengths, ll_codes, d_lengths, d_codes, dst, state))


def compress(data: bytes, room: int, dynamic: bool = False) -> bytes:
    """Compress `data`; empty when it needs more than `room` bytes."""
    dst = np.empty(room, np.uint8)
    length = (dynamic_block if dynamic else fixed_block)(np.frombuffer(data, np.uint8), dst)
    return dst[:length].tobytes()
