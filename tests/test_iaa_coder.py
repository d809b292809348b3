# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated IAA's coder does what its docstring says, step by step, and zlib reads what it writes."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.crypto import knownanswers as known
from traces.lab.iaa.coder import compress
from traces.lab.iaa.inflate import inflate

PAGES = [page for _, page in known.pages()]

# Alphabets of few letters and repeated parts make matches; plain bytes make none.
PARTS = st.one_of(st.binary(max_size=40), st.text("ab", max_size=300).map(str.encode), st.binary(min_size=1, max_size=3).map(lambda b: b * 200))
SOURCES = st.lists(PARTS, min_size=1, max_size=30).map(b"".join).filter(bool)


def parse(src: bytes) -> list[tuple[int, int]]:
    """The docstring's parse, as plain as can be: (byte, 0) or (length, distance)."""
    last: dict[int, int] = {}
    tokens = []

    def enter(p: int) -> int | None:
        place = (int.from_bytes(src[p:p + 3], "little") * 0x9E3779B1 & 0xFFFFFFFF) >> 20
        before = last.get(place)
        last[place] = p
        return before

    p = 0
    while p < len(src):
        candidate = enter(p) if p + 3 <= len(src) else None
        if candidate is not None and p - candidate <= 4096 and src[candidate:candidate + 3] == src[p:p + 3]:
            length = 3
            while length < 258 and p + length < len(src) and src[candidate + length] == src[p + length]:
                length += 1
            tokens.append((length, p - candidate))
            for further in range(p + 1, p + length):
                if further + 3 <= len(src):
                    enter(further)
            p += length
        else:
            tokens.append((src[p], 0))
            p += 1
    return tokens


def fixed(tokens: list[tuple[int, int]]) -> bytes:
    """RFC 1951's fixed code, written from its text."""
    bits: list[int] = [1, 1, 0]

    def code(value: int, size: int) -> None:
        bits.extend(value >> k & 1 for k in range(size - 1, -1, -1))

    def literal(symbol: int) -> None:
        if symbol < 144:
            code(0b00110000 + symbol, 8)
        elif symbol < 256:
            code(0b110010000 + symbol - 144, 9)
        elif symbol < 280:
            code(symbol - 256, 7)
        else:
            code(0b11000000 + symbol - 280, 8)

    def extra(value: int, size: int) -> None:
        bits.extend(value >> k & 1 for k in range(size))

    for first, distance in tokens:
        if not distance:
            literal(first)
            continue
        base, size = (258, 0) if first == 258 else next(
            (3 + k if k < 8 else 3 + (4 + k % 4 << k // 4 - 1), max(0, k // 4 - 1)) for k in range(27, -1, -1)
            if first >= (3 + k if k < 8 else 3 + (4 + k % 4 << k // 4 - 1)))
        symbol = 285 if first == 258 else 257 + next(
            k for k in range(27, -1, -1) if first >= (3 + k if k < 8 else 3 + (4 + k % 4 << k // 4 - 1)))
        literal(symbol)
        extra(first - base, size)
        number = next(k for k in range(29, -1, -1) if distance >= (1 + k if k < 4 else 1 + (2 + k % 2 << k // 2 - 1)))
        code(number, 5)
        extra(distance - (1 + number if number < 4 else 1 + (2 + number % 2 << number // 2 - 1)), max(0, number // 2 - 1))
    literal(256)
    bits += [0] * (-len(bits) % 8)
    return bytes(sum(bit << k for k, bit in enumerate(bits[at:at + 8])) for at in range(0, len(bits), 8))


def inflated(data: bytes) -> bytes:
    """zlib's reading, with a window of 4 KiB, of one whole stream."""
    reader = zlib.decompressobj(-12)
    result = reader.decompress(data)
    assert reader.eof
    assert not reader.unused_data
    return result


@given(SOURCES)
@settings(deadline=None)
def test_a_fixed_block_is_what_the_docstring_says(src: bytes) -> None:
    assert compress(src, 1 << 16) == fixed(parse(src))


@pytest.mark.parametrize("page", PAGES[:12], ids=range(12))
def test_pages_are_what_the_docstring_says(page: bytes) -> None:
    assert compress(page, 8192) == fixed(parse(page))


@given(SOURCES, st.booleans())
@settings(deadline=None)
def test_zlib_reads_what_is_written(src: bytes, dynamic: bool) -> None:
    data = compress(src, 1 << 16, dynamic)
    assert inflated(data) == src
    assert data[0] & 7 == (5 if dynamic else 3)


@given(st.integers(0, 6000), st.binary(min_size=3, max_size=8), st.booleans())
@settings(deadline=None)
def test_no_match_begins_more_than_4096_bytes_back(between: int, word: bytes, dynamic: bool) -> None:
    noise = np.random.default_rng(between).integers(0, 256, between, np.uint8).tobytes()
    src = word + noise + word
    data = np.frombuffer(compress(src, 1 << 16, dynamic), np.uint8)
    back = np.empty(len(src), np.uint8)
    # inflate() refuses what lies farther back.
    assert inflate(data, back, False)[:2] == (len(src), 0)
    assert back.tobytes() == src


@pytest.mark.parametrize("far", [4095, 4096, 4097])
def test_the_window_ends_at_4096(far: int) -> None:
    # One byte apart: what the last three bytes were first, is as far back; nothing between is like them.
    between = bytes([255]) * (far - 3)
    src = b"abc" + between + b"abc"
    assert parse(src)[-1] == ((3, far) if far <= 4096 else (ord("c"), 0))
    assert compress(src, 1 << 16) == fixed(parse(src))


@given(SOURCES, st.booleans())
@settings(deadline=None)
def test_what_does_not_fit_is_an_overflow(src: bytes, dynamic: bool) -> None:
    whole = compress(src, 1 << 16, dynamic)
    assert compress(src, len(whole), dynamic) == whole
    for room in {len(whole) - 1, len(whole) // 2, 1, 0}:
        assert compress(src, room, dynamic) == b"", room


def test_known_answers() -> None:
    # Worked out by hand: 3 bits, the literal 'a' (0x91, 8 bits), the end (7 zeros), 6 bits to fill up.
    assert compress(b"a", 16) == bytes.fromhex("4b0400")
    # A page of zeros: one literal, 15 matches of 258 and one of 225, at distance 1.
    assert len(compress(bytes(4096), 4096)) == (3 + 8 + 15 * (8 + 5) + (8 + 5 + 5) + 7 + 7) // 8
    # Noise of 9-bit literals does not fit into a page.
    assert compress(bytes(range(144, 256)) * 37, 4096) != b""
    rng = np.random.default_rng(5)
    assert compress(rng.integers(144, 256, 4096, np.uint8).tobytes(), 4096) == b""


def test_a_code_longer_than_15_bits_is_shortened() -> None:
    # Fibonacci's numbers are the counts that make the deepest tree.
    counts = [1, 1]
    while sum(counts) + counts[-1] + counts[-2] < 12_000:
        counts.append(counts[-1] + counts[-2])
    rng = np.random.default_rng(1)
    symbols = np.repeat(np.arange(len(counts)), counts).astype(np.uint8)
    assert len(counts) > 17
    rng.shuffle(symbols)
    src = symbols.tobytes()
    assert inflated(compress(src, 1 << 16, True)) == src
