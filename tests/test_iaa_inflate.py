# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated IAA reads deflate streams as zlib does, within 4 KiB, and names what is wrong with the others."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_iaa_coder import PAGES, SOURCES

from traces.lab.iaa.descriptors import Analytics
from traces.lab.iaa.inflate import OVERFLOW, inflate


def read(data: bytes, room: int = 8192, only_final: bool = True) -> tuple[bytes, int, int]:
    target = np.empty(room, np.uint8)
    length, error, used = inflate(np.frombuffer(data, np.uint8), target, only_final)
    return target[:length].tobytes(), error, used


def streams(src: bytes, level: int, strategy: int) -> bytes:
    writer = zlib.compressobj(level, zlib.DEFLATED, -12, 9, strategy)
    return writer.compress(src) + writer.flush()


LEVELS = st.sampled_from([(0, 0), (1, 0), (6, 0), (9, 0), (6, zlib.Z_FIXED), (6, zlib.Z_HUFFMAN_ONLY), (6, zlib.Z_RLE)])


@given(SOURCES, LEVELS, st.binary(max_size=5))
@settings(deadline=None)
def test_zlib_s_streams_are_read(src: bytes, how: tuple[int, int], behind: bytes) -> None:
    data = streams(src, *how)
    assert read(data + behind, len(src)) == (src, 0, len(data))


@given(SOURCES, LEVELS, st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_streams_end_as_zlib_s_do(src: bytes, how: tuple[int, int], data: st.DataObject) -> None:
    damaged = bytearray(streams(src, *how))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, min(len(damaged), 60) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    del damaged[data.draw(st.integers(1, len(damaged))):]
    reader = zlib.decompressobj(-12)
    try:
        wanted = reader.decompress(bytes(damaged), 8193)
        fine = reader.eof and len(wanted) <= 8192
    except zlib.error:
        wanted, fine = b"", False
    found, error, _ = read(bytes(damaged))
    if not fine:
        assert error or (wanted == found == b"")
    elif error:
        # zlib also reads what lies more than 4096 bytes back where it has it in one piece.
        assert error == Analytics.BAD_DIST
    else:
        assert found == wanted


@given(st.binary(max_size=300), st.integers(0, 600), st.booleans())
@settings(deadline=None, max_examples=500)
def test_anything_ends(data: bytes, room: int, only_final: bool) -> None:
    found, error, used = read(data, room, only_final)
    assert len(found) <= room
    assert used <= len(data)
    assert error == OVERFLOW or error in list(Analytics)


class Bits:
    """Writes bits, lowest first."""

    def __init__(self) -> None:
        self.value, self.size = 0, 0

    def put(self, value: int, size: int) -> Bits:
        self.value |= value << self.size
        self.size += size
        return self

    def code(self, text: str) -> Bits:
        for bit in text:
            self.put(int(bit), 1)
        return self

    def done(self) -> bytes:
        return self.value.to_bytes((self.size + 7) // 8, "little")


def dynamic(ll: int = 257, d: int = 1, cl: tuple[int, ...] = ()) -> Bits:
    """A header of a dynamic block up to the lengths of the code of code lengths."""
    bits = Bits().put(5, 3).put(ll - 257, 5).put(d - 1, 5).put(len(cl) - 4, 4)
    for length in cl:
        bits.put(length, 3)
    return bits


# Code lengths 16, 17, 18, 0, 8, 7, 9, ...: here 18 has one bit (0), 0 and 1 have two (10, 11).
CL = (0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2)
# The same with 16 instead of 18.
CL16 = (1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2)
ZEROS_138 = ("0", 127)


def zeros(bits: Bits, count: int) -> Bits:
    """Runs of 18."""
    while count:
        run = min(count, 138)
        bits.code("0").put(run - 11, 7)
        count -= run
    return bits


@pytest.mark.parametrize(("data", "wanted"), [
    (b"", Analytics.BAD_EOF),
    (Bits().put(7, 3).done(), Analytics.INVALID_BLOCK_TYPE),
    (Bits().put(1, 8).put(5, 16).put(5, 16).done(), Analytics.INVALID_STORED_LEN),
    (Bits().put(1, 8).put(5, 16).put(0xFFFF ^ 5, 16).put(0, 8).done(), Analytics.BAD_EOF),
    (Bits().put(1, 8).put(5, 8).done(), Analytics.BAD_EOF),
    (dynamic(ll=287, cl=CL).put(0, 64).done(), Analytics.TOO_MANY_LL_CODES),
    (dynamic(d=31, cl=CL).put(0, 64).done(), Analytics.TOO_MANY_D_CODES),
    (dynamic(cl=(1, 1, 1, 0)).put(0, 64).done(), Analytics.BAD_CL_CODE_LEN),
    (dynamic(cl=(0, 0, 0, 0)).put(0, 64).done(), Analytics.BAD_CL_CODE_LEN),
    (dynamic(cl=(1, 0, 0, 0)).put(0, 64).done(), Analytics.BAD_CL_CODE_LEN),
    (dynamic(cl=CL16).code("0").put(0, 64).done(), Analytics.FIRST_LL_CODE_16),
    # 257 + 1 lengths, of which two runs of 138 are too many.
    (dynamic(cl=CL).code("0").put(127, 7).code("0").put(127, 7).put(0, 64).done(), Analytics.WRONG_NUM_DIST_CODES),
    # No code for the end of block.
    (zeros(dynamic(cl=CL).code("11"), 257).put(0, 64).done(), Analytics.NO_LL_CODE),
    # Three codes of one bit.
    (zeros(dynamic(cl=CL).code("1111"), 254).code("1110").put(0, 64).done(), Analytics.BAD_LL_CODE_LEN),
    # Three distances of one bit.
    (zeros(dynamic(d=3, cl=CL), 256).code("11111111").put(0, 64).done(), Analytics.BAD_DIST_CODE_LEN),
    # The end of block is '0'; '1' is not a code.
    (zeros(dynamic(cl=CL), 256).code("11").code("10").code("1").put(0, 64).done(), Analytics.BAD_LL_CODE),
    # Fixed: symbol 286.
    (Bits().put(3, 3).code("11000110").put(0, 64).done(), Analytics.BAD_LL_CODE),
    # Fixed: a literal, length 3, distance symbol 30.
    (Bits().put(3, 3).code("00110000").code("0000001").code("11110").put(0, 64).done(), Analytics.BAD_D_CODE),
    # Distance 4097 (symbol 24, 11 bits of 0).
    (Bits().put(3, 3).code("00110000").code("0000001").code("11000").put(0, 64).done(), Analytics.BAD_DIST),
    # Distance 2 behind one byte.
    (Bits().put(3, 3).code("00110000").code("0000001").code("00001").put(0, 64).done(), Analytics.REF_BEFORE_START),
    # A literal, and nothing more.
    (Bits().put(3, 3).code("00110000").done(), Analytics.BAD_EOF),
])
def test_what_is_wrong_is_named(data: bytes, wanted: Analytics) -> None:
    assert Analytics(read(data)[1]) is wanted


def test_an_undefined_code_of_code_lengths() -> None:
    # A code of one symbol alone is refused before; so a whole code has no undefined member, and UNDEF_CL_CODE means cut short.
    assert Analytics(read(dynamic(cl=CL).done())[1]) is Analytics.BAD_EOF


def test_the_output_s_room_is_kept() -> None:
    for page in PAGES[:6]:
        for level in (0, 1, 6):
            data = streams(page, level, 0)
            assert read(data, 4095)[1] == OVERFLOW
            assert read(data, 4096) == (page, 0, len(data))


def test_the_first_block_may_be_all() -> None:
    writer = zlib.compressobj(6, zlib.DEFLATED, -12, 9, zlib.Z_FIXED)
    first = writer.compress(b"first block") + writer.flush(zlib.Z_FULL_FLUSH)
    data = first + writer.compress(b", second") + writer.flush()
    assert read(data)[:2] == (b"first block, second", 0)
    assert read(data, only_final=False)[:2] == (b"first block", 0)


def test_4096_bytes_back_is_near_enough() -> None:
    # 16 literals of 256 each would be long: a stored block of 4096, then a match at distance 4096 (symbol 23, 10 bits of 1).
    body = bytes(range(256)) * 16
    bits = Bits().put(0, 8).put(4096, 16).put(0xFFFF ^ 4096, 16)
    stored = bits.done() + body
    match = Bits().put(3, 3).code("0000001").code("10111").put(1023, 10).code("0000000").done()
    assert read(stored + match)[:2] == (body + body[:3], 0)
