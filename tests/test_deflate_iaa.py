# SPDX-License-Identifier: GPL-2.0-or-later
"""deflate-iaa: no encoder that keeps the hardware's rules is outside of the bounds."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.crypto import CorruptData, ModelledCompressor, compressor_for
from model.crypto import deflate_iaa as module
from model.crypto import knownanswers as known
from model.errno import E2BIG
from model.page import PAGE_SIZE

IAA = compressor_for("deflate-iaa", "mainline-7.3")
assert isinstance(IAA, ModelledCompressor)


def encode(page: bytes, level: int) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, -12, 9, zlib.Z_FIXED)
    return deflate.compress(page) + deflate.flush()


def bounds(*pages: bytes) -> list[tuple[int, int]]:
    low, high = IAA.bounds(np.frombuffer(b"".join(pages), np.uint8).reshape(-1, PAGE_SIZE))
    return list(zip(low.tolist(), high.tolist(), strict=True))


def test_it_says_that_it_is_modelled() -> None:
    assert IAA.grade == "modelled"
    assert IAA.self_check() == []


@given(st.integers(0, 1 << 30), st.integers(1, 256), st.integers(1, 600), st.integers(0, 400))
@settings(deadline=None, max_examples=40)
def test_every_level_of_zlib_is_within(seed: int, letters: int, period: int, changes: int) -> None:
    dice = np.random.default_rng(seed)
    page = np.resize(dice.integers(0, letters, period, np.uint8), PAGE_SIZE)
    page[dice.integers(0, PAGE_SIZE, changes)] = dice.integers(0, 256, changes)
    (low, high), = bounds(page.tobytes())
    for level in (1, 4, 6, 9):
        length = len(encode(page.tobytes(), level))
        # zlib alone has stored blocks, 5 bytes more than the page.
        assert low <= length <= high or length > PAGE_SIZE


def best(data: bytes) -> int:
    """Bits of the best parse, from all matches of all lengths, without the module's short cuts."""
    extra_of_length = [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    firsts = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227]

    def length_bits(length: int) -> int:
        if length == 258:
            return 8
        code = max(n for n, first in enumerate(firsts) if first <= length)
        return (7 if code < 23 else 8) + extra_of_length[code]

    def distance_bits(distance: int) -> int:
        return 5 + max(0, (distance - 1).bit_length() - 2)

    cost = [0] * (len(data) + 1)
    for at in range(len(data) - 1, -1, -1):
        cost[at] = (8 if data[at] < 144 else 9) + cost[at + 1]
        for back in range(1, at + 1):
            length = 0
            while at + length < len(data) and length < 258 and data[at + length] == data[at - back + length]:
                length += 1
                if length >= 3:
                    cost[at] = min(cost[at], length_bits(length) + distance_bits(back) + cost[at + length])
    return cost[0]


@given(st.integers(0, 1 << 30), st.integers(1, 4), st.integers(1, 420))
@settings(deadline=None, max_examples=25)
def test_the_best_parse(seed: int, letters: int, size: int) -> None:
    data = np.random.default_rng(seed).choice(np.array([0, 1, 200, 255], np.uint8)[:letters], size)
    bits, literals = module._token_bits(data, module._LENGTH_BITS, module._DISTANCE_BITS, np.empty(size + 1, np.int64))
    assert bits == best(data.tobytes())
    assert literals == 8 * size + int(np.count_nonzero(data >= 144))


def test_the_stand_in() -> None:
    for name, page in known.pages():
        result = IAA.compress(page)
        (low, high), = bounds(page)
        if result.err:
            assert (result.err, result.dlen, name) == (E2BIG, PAGE_SIZE, name)
            assert high > PAGE_SIZE
        else:
            assert low <= result.dlen <= min(high, PAGE_SIZE)
            assert IAA.decompress(result.data) == page
            assert IAA.decompress(result.data + b"behind it") == page


@pytest.mark.parametrize("data", [b"", b"\xff" * 50, encode(bytes(PAGE_SIZE - 1), 1), encode(bytes(PAGE_SIZE + 1), 1)])
def test_what_is_no_page(data: bytes) -> None:
    with pytest.raises(CorruptData, match=r"^deflate-iaa: "):
        IAA.decompress(data)
