# SPDX-License-Identifier: GPL-2.0-or-later
"""The page compressors on generated pages: known answers, properties, and the sentences of their errors."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.crypto import (
    KERNEL_LINES,
    Compressor,
    CompressResult,
    CorruptData,
    InexactLibrary,
    UnsupportedCompressor,
    compressor_for,
    deflate,
    lz4,
    lz4hc,
    lzo,
    sw842,
    zstd,
)
from model.crypto import knownanswers as known
from model.page import PAGE_SIZE

NAMES = ("zstd", "lz4", "lz4hc", "lzo", "lzo-rle", "842", "deflate")
KINDS = [("zstd", "mainline-6.12"), ("zstd", "mainline-7.3"), ("lz4", "mainline-7.3")]
KINDS += [(name, "mainline-7.3") for name in ("lz4hc", "lzo", "lzo-rle", "842")]
KINDS += [("deflate", "mainline-6.12"), ("deflate", "mainline-7.3")]
COMPRESSORS = {kind: compressor_for(*kind) for kind in KINDS}


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def compressor(request: pytest.FixtureRequest) -> Compressor:
    return COMPRESSORS[request.param]


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    """Pages of the kinds that decide between branches: sparse, periodic, repeats in noise, almost noise."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["small alphabet", "sparse", "periodic", "repeats", "tail", "words", "runs"]))
    page = rng.integers(0, 256, PAGE_SIZE, dtype=np.uint8)
    if kind == "small alphabet":
        page &= np.uint8(draw(st.integers(0, 255)))
    elif kind == "sparse":
        kept = rng.integers(0, PAGE_SIZE, draw(st.integers(0, PAGE_SIZE)))
        sparse = np.zeros(PAGE_SIZE, np.uint8)
        sparse[kept] = page[kept]
        page = sparse
    elif kind == "periodic":
        page = np.resize(page[: draw(st.integers(1, 600))], PAGE_SIZE)
        page[rng.integers(0, PAGE_SIZE, draw(st.integers(0, 40)))] ^= 1
    elif kind == "repeats":
        for _ in range(draw(st.integers(0, 8))):
            size = draw(st.integers(4, 80))
            here, there = rng.integers(0, PAGE_SIZE - size, 2)
            page[here : here + size] = page[there : there + size].copy()
    elif kind == "tail":
        page[draw(st.integers(0, PAGE_SIZE)) :] = draw(st.integers(0, 255))
    elif kind == "runs":
        longest = draw(st.sampled_from([6, 40, 3000]))
        for _ in range(draw(st.integers(1, 400))):
            start = rng.integers(0, PAGE_SIZE)
            page[start : start + rng.integers(1, longest)] = 0
    else:
        words = rng.integers(0, 256, (draw(st.integers(2, 40)), draw(st.integers(3, 14))), dtype=np.uint8)
        page = words[rng.integers(0, len(words), PAGE_SIZE)].reshape(-1)[:PAGE_SIZE]
    return page.tobytes()


def as_array(*many: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(many), np.uint8).reshape(-1, PAGE_SIZE)


@pytest.mark.parametrize("line", KERNEL_LINES)
@pytest.mark.parametrize("name", NAMES)
def test_known_answers(name: str, line: str) -> None:
    compressor = compressor_for(name, line)
    assert compressor.self_check() == []
    assert compressor.name == name
    assert compressor.grade == "exact"


def test_known_pages_are_pages() -> None:
    assert {name: len(page) for name, page in known.pages()} == dict.fromkeys(known.ANSWERS["lz4"], PAGE_SIZE)


@pytest.mark.parametrize(
    ("name", "line", "error"),
    [
        ("zstd", "mainline-6.12", CompressResult(-22, 4096, b"")),
        ("zstd", "mainline-6.18", CompressResult(-22, 0, b"")),
        ("zstd", "mainline-7.3", CompressResult(-22, 0, b"")),
        ("lz4", "mainline-6.12", CompressResult(-22, 4096, b"")),
        ("lz4", "mainline-7.3", CompressResult(-22, 4096, b"")),
        ("lzo", "mainline-6.12", CompressResult(-22, 4096, b"")),
        ("lzo", "mainline-7.3", CompressResult(-22, 4096, b"")),
        ("lzo-rle", "mainline-6.12", CompressResult(-22, 4096, b"")),
        ("lzo-rle", "mainline-7.3", CompressResult(-22, 4096, b"")),
        ("lz4hc", "mainline-6.12", CompressResult(-22, 4096, b"")),
        ("lz4hc", "mainline-7.3", CompressResult(-22, 4096, b"")),
        ("842", "mainline-6.12", CompressResult(-28, 0, b"")),
        ("842", "mainline-7.3", CompressResult(-28, 0, b"")),
        ("deflate", "mainline-6.12", CompressResult(-22, 4096, b"")),
        ("deflate", "mainline-6.18", CompressResult(-28, 4096, b"")),
        ("deflate", "mainline-7.3", CompressResult(-28, 4096, b"")),
    ],
)
def test_error_when_it_does_not_fit(name: str, line: str, error: CompressResult) -> None:
    compressor = compressor_for(name, line)
    assert compressor.compress(known.noise(0)) == error
    errs, dlens, head = compressor.lengths(as_array(known.noise(0)))
    assert (errs.tolist(), dlens.tolist(), head.tolist()) == ([error.err], [error.dlen], [0])


@pytest.mark.parametrize("name", ["lz4", "lz4hc"])
def test_lz4_may_fill_the_destination_exactly(name: str) -> None:
    lz4_ = COMPRESSORS[name, "mainline-7.3"]
    lengths = {m: lz4_.compress(known.repeat_in_noise(m))[:2] for m in (19, 20, 21, 22)}
    assert lengths == {19: (-22, 4096), 20: (-22, 4096), 21: (0, 4096), 22: (0, 4095)}
    full = lz4_.compress(known.repeat_in_noise(21)).data
    assert len(full) == PAGE_SIZE
    assert lz4_.decompress(full) == known.repeat_in_noise(21)


@pytest.mark.parametrize(("name", "m"), [("lzo", 86), ("lzo-rle", 88)])
def test_lzo_may_fill_the_destination_exactly(name: str, m: int) -> None:
    compressor = COMPRESSORS[name, "mainline-7.3"]
    answers = [compressor.compress(known.repeat_in_noise(m + k))[:2] for k in (-2, -1, 0, 1)]
    assert answers == [(-22, 4096), (-22, 4096), (0, 4096), (0, 4095)]
    full = compressor.compress(known.repeat_in_noise(m)).data
    assert len(full) == PAGE_SIZE
    assert compressor.decompress(full) == known.repeat_in_noise(m)


def lzo_edges() -> Iterator[bytes]:
    """Matches, runs of zeros and literals whose lengths, distances and ends lie around each limit of the format."""

    def page(*parts: tuple[int, bytes]) -> bytes:
        whole = bytearray((known.noise(20, 50) * 82)[:PAGE_SIZE])
        for place, part in parts:
            whole[place : place + len(part)] = part
        return bytes(whole[:PAGE_SIZE])

    noise = known.noise(21)
    for length in (*range(3, 40), *range(284, 295), *range(540, 550)):  # of a match and of a run
        for distance in (1000, 2047, 2048, 2049, 2050):
            yield page((7, noise[:600]), (7 + distance, noise[:length] + b"\xaa\xbb\xcc"))
        yield page((1000, b"\xee" + bytes(length) + b"\xdd" + noise[:9]))
    for length in range(2040, 2068):
        yield page((300, bytes(length) + b"\xee" + bytes(length)))
    for length in (*range(20), *range(270, 276), *range(525, 532), *range(780, 786)):  # of literals
        yield page((200, noise[:length]), (2000, bytes(9) + noise[:length] + bytes(9)))
    for start in range(4040, PAGE_SIZE):  # near the end
        for length in (4, 9, 12, 20, 56):
            yield page((500, noise[:56]), (start, noise[:length]), (start + length, b"\xee" * (length % 4 * 9)))
            yield page((start, bytes(length) + b"\xdd" * (length % 5 * 9)))


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("lzo", "016f4cd619589678f6315065ec9876e5750997a2"),
        ("lzo-rle", "83cf8b3cc2a977e45efaca1ba0870a3fa9bf0687"),
    ],
)
def test_lzo_at_every_limit(name: str, right: str) -> None:
    """All outputs as one digest, which lib/lzo of 6.12.107, 6.18.15 and 7.3-rc7 gave."""
    outputs = [COMPRESSORS[name, "mainline-7.3"].compress(page).data for page in lzo_edges()]
    assert hashlib.sha1(b"".join(outputs)).hexdigest() == right


def test_deflate_may_not_fill_the_destination_exactly() -> None:
    deflate_ = COMPRESSORS["deflate", "mainline-7.3"]
    page = dict(known.pages())["zeros-53"]
    assert len(zlib.compress(page, 6, -11)) == PAGE_SIZE
    assert deflate_.compress(page) == (-28, 4096, b"")
    assert deflate_.compress(dict(known.pages())["zeros-54"]).dlen == PAGE_SIZE - 1


@settings(max_examples=150, deadline=None)
@given(page=pages())
def test_roundtrip_and_batch(page: bytes) -> None:
    for kind, compressor in COMPRESSORS.items():
        result = compressor.compress(page)
        assert len(result.data) <= PAGE_SIZE
        if result.err == 0:
            assert result.dlen == len(result.data) > 0
            assert compressor.decompress(result.data) == page, kind
        else:
            assert result.data == b""
        errs, dlens, head = compressor.lengths(as_array(page))
        assert (errs[0], dlens[0]) == result[:2], kind
        assert int(head[0]) == int.from_bytes(result.data[:8], "little"), kind


def test_threads_and_layout_do_not_matter(compressor: Compressor) -> None:
    many = [page for _, page in known.pages()] * 3
    array = as_array(*many)
    errs, dlens, head = compressor.lengths(array)
    assert [column.dtype.name for column in (errs, dlens, head)] == ["int32", "int32", "uint64"]
    for other, threads in [
        (array, 2),
        (array, 7),
        (array, 1000),
        (np.asfortranarray(array), 1),
        (array.copy(), 2),
    ]:
        again = compressor.lengths(other, threads=threads)
        for column, same in zip((errs, dlens, head), again, strict=True):
            np.testing.assert_array_equal(column, same)
    assert [compressor.compress(page)[:2] for page in many] == list(zip(errs, dlens, strict=True))
    assert all(len(column) == 0 for column in compressor.lengths(array[:0], threads=2))


def test_any_buffer_is_a_page(compressor: Compressor) -> None:
    page = dict(known.pages())["text"]
    result = compressor.compress(page)
    assert compressor.compress(bytearray(page)) == result
    assert compressor.compress(memoryview(page)) == result
    assert compressor.decompress(memoryview(result.data)) == page


def test_one_object_serves_several_threads(compressor: Compressor) -> None:
    named = list(known.pages())
    right = [compressor.compress(page) for _, page in named]
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            for (name, page), result in zip(named, right, strict=True):
                if compressor.compress(page) != result:
                    wrong.append(name)

    helpers = [threading.Thread(target=work) for _ in range(4)]
    for helper in helpers:
        helper.start()
    for helper in helpers:
        helper.join()
    assert wrong == []


def _pure_python(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> Any:
    for name, function in list(vars(module).items()):
        if hasattr(function, "py_func"):
            monkeypatch.setattr(module, name, function.py_func)
    return module


@pytest.mark.parametrize("name", list(known.ANSWERS["lz4"]))
def test_lz4_compiled_equals_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = dict(known.pages())[name]
    compiled = COMPRESSORS["lz4", "mainline-7.3"].compress(page)
    python = _pure_python(monkeypatch, lz4)
    table, dst, back = np.empty(8192, np.int16), np.empty(PAGE_SIZE, np.uint8), np.empty(PAGE_SIZE, np.uint8)
    length = python.compress_block(np.frombuffer(page, np.uint8), table, dst)
    assert dst[:length].tobytes() == compiled.data
    if length:
        assert python.decompress_block(dst[:length], back) == PAGE_SIZE
        assert back.tobytes() == page


@pytest.mark.parametrize("name", list(known.ANSWERS["lzo"]))
def test_lzo_compiled_equals_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = dict(known.pages())[name]
    compiled = [COMPRESSORS[kind, "mainline-7.3"].compress(page) for kind in ("lzo", "lzo-rle")]
    python = _pure_python(monkeypatch, lzo)
    compress_block, decompress_block = python.compress_block, python.decompress_block
    table, dst, back = np.empty(8192, np.int16), np.empty(PAGE_SIZE, np.uint8), np.empty(PAGE_SIZE, np.uint8)
    for runs in (False, True):
        length = compress_block(np.frombuffer(page, np.uint8), runs, table, dst)
        assert dst[:length].tobytes() == compiled[runs].data
        if length:
            back[:] = 77
            assert decompress_block(dst[:length], back) == PAGE_SIZE
            assert back.tobytes() == page


@settings(max_examples=150, deadline=None)
@given(page=pages(), size=st.integers(0, PAGE_SIZE), near=st.integers(-2, 1), room=st.integers(1, PAGE_SIZE))
def test_lz4_other_sizes(page: bytes, size: int, near: int, room: int) -> None:
    """A block fits any room that is not smaller than it, is the same in each, and comes back."""
    src = np.frombuffer(page[:size], np.uint8)
    table, wide = np.empty(8192, np.int16), np.empty(2 * PAGE_SIZE, np.uint8)
    whole = lz4.compress_block(src, table, wide)
    for exact in (room, max(1, whole + near)):
        narrow = np.full(exact + 1, 77, np.uint8)
        length = lz4.compress_block(src, table, narrow[:exact])
        assert narrow[exact] == 77
        assert length == (whole if whole <= exact else 0)
        if length:
            assert narrow[:length].tobytes() == wide[:whole].tobytes()
    back = np.empty(size, np.uint8)
    assert lz4.decompress_block(wide[:whole], back) == size
    assert back.tobytes() == page[:size]


@settings(max_examples=150, deadline=None)
@given(
    page=pages(),
    size=st.integers(0, PAGE_SIZE) | st.integers(0, 40) | st.integers(236, 242),
    near=st.integers(-2, 1),
    room=st.integers(1, PAGE_SIZE),
    runs=st.booleans(),
)
def test_lzo_other_sizes(page: bytes, size: int, near: int, room: int, runs: bool) -> None:
    """As for lz4, and the longest block is no longer than the kernel's `lzo1x_worst_compress`."""
    src = np.frombuffer(page[:size], np.uint8)
    table, wide = np.empty(8192, np.int16), np.empty(2 * PAGE_SIZE, np.uint8)
    whole = lzo.compress_block(src, runs, table, wide)
    assert 0 < whole <= size + size // 16 + 64 + 3 + 2
    for exact in (room, max(1, whole + near)):
        narrow = np.full(exact + 1, 77, np.uint8)
        length = lzo.compress_block(src, runs, table, narrow[:exact])
        assert narrow[exact] == 77
        assert length == (whole if whole <= exact else 0)
        if length:
            assert narrow[:length].tobytes() == wide[:whole].tobytes()
    back = np.empty(size, np.uint8)
    assert lzo.decompress_block(wide[:whole], back) == size
    assert back.tobytes() == page[:size]


def test_lz4_tight_after_a_match() -> None:
    """A match that ends five bytes before the end leaves no slack in the checks on the way."""
    page = known.noise(0, 200) + bytes(range(12)) * 2 + b"xy" + bytes(range(12)) + b"12345"
    src, table, dst = np.frombuffer(page, np.uint8), np.empty(8192, np.int16), np.empty(300, np.uint8)
    whole = lz4.compress_block(src, table, dst)
    assert dst[whole - 11 : whole].tobytes() == b"\x28xy\x0e\x00\x5012345"
    assert [lz4.compress_block(src, table, dst[: whole + k]) for k in (-1, 0, 1)] == [0, whole, whole]


@pytest.mark.parametrize("name", list(known.ANSWERS["lz4hc"]))
def test_lz4hc_compiled_equals_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = dict(known.pages())[name]
    compiled = COMPRESSORS["lz4hc", "mainline-7.3"].compress(page)
    last, older, dst = np.empty(32768, np.int16), np.empty(PAGE_SIZE, np.int16), np.empty(PAGE_SIZE, np.uint8)
    length = _pure_python(monkeypatch, lz4hc).compress_block(np.frombuffer(page, np.uint8), last, older, dst)
    assert dst[:length].tobytes() == compiled.data


@settings(max_examples=150, deadline=None)
@given(
    page=pages(),
    size=st.integers(0, PAGE_SIZE) | st.integers(0, 40),
    near=st.integers(-2, 1),
    room=st.integers(1, PAGE_SIZE),
)
def test_lz4hc_other_sizes(page: bytes, size: int, near: int, room: int) -> None:
    """As for lz4."""
    src = np.frombuffer(page[:size], np.uint8)
    last, older = np.empty(32768, np.int16), np.empty(max(size, 1), np.int16)
    wide = np.empty(2 * PAGE_SIZE, np.uint8)
    whole = lz4hc.compress_block(src, last, older, wide)
    for exact in (room, max(1, whole + near)):
        narrow = np.full(exact + 1, 77, np.uint8)
        length = lz4hc.compress_block(src, last, older, narrow[:exact])
        assert narrow[exact] == 77
        assert length == (whole if whole <= exact else 0)
        if length:
            assert narrow[:length].tobytes() == wide[:whole].tobytes()
    back = np.empty(size, np.uint8)
    assert lz4.decompress_block(wide[:whole], back) == size
    assert back.tobytes() == page[:size]


# Each of them leaves less than a match of the second of three overlapping ones, which hardly ever happens.
SQUEEZED = (
    b"ccacbdaddccbbcddaddabbcdababbcbaadbacbdbabcbbaaddccacbdbabbcddabbcdcbcbcbcdb",
    b"cdcbbccaddabdcadcdcdddabbdadcdbcddcdacddddcddabdadcdcddcddcdcbbccdabdcbdc",
    b"bddbbdaaddddaacdabbddbbaaaccdaabbdabbbddcccabaacccabbddbbdaabbbddddaaccdaaadcd",
    b"aaadacdbdaadbbacdadbddbbcddccabccabbddcaaadbddccabbddbbacdbdaabcddbdbbc",
    b"bacdccbdcdbbacdcbdbabcdddbdbacbcdccdcbbddcacacaccdccdddbbacdccbdbacbbddcacbcdadbb",
)
# Two words that a hash of 14 bits could not distinguish.
COLLIDING = (b"\xf8\xce\xe0[", b"kK\xa3\x12")


def overlapping_matches() -> Iterator[bytes]:
    """Pages in which matches overlap in every way, and some with more equal places than lz4hc looks at."""
    for seed in (*range(1000, 1100), 1157, 1164):
        dice = known.noise(seed, 3 * PAGE_SIZE)
        sizes, letters = 3 + dice[0] % 18, (1, 2, 4, 16, 256)[dice[1] % 5]
        words = [bytes(b % letters for b in dice[i : i + 2 + dice[i] % sizes]) for i in range(2, 130)]
        few = 3 + dice[1] % 60
        yield b"".join(words[b % few] for b in dice[PAGE_SIZE:] * 2)[:PAGE_SIZE]
    for letters in (2, 3, 5):
        yield bytes(b % letters for b in known.noise(2000))
        yield bytes(b and b % letters for b in (x if x < 20 else 0 for x in known.noise(2001 + letters)))
    for some in SQUEEZED:
        yield some + known.noise(2010, 1000) + bytes(PAGE_SIZE - 1000 - len(some))
    yield b"".join(COLLIDING[b & 1] for b in known.noise(2011, 1024))


def test_lz4hc_where_matches_overlap() -> None:
    """All outputs as one digest, which lib/lz4 of Linux 6.12.107 and of 7.3-rc7 gave."""
    lz4hc_ = COMPRESSORS["lz4hc", "mainline-7.3"]
    outputs = [lz4hc_.compress(page).data for page in overlapping_matches()]
    assert hashlib.sha1(b"".join(outputs)).hexdigest() == "52801c605d8bcca2e3235ed7827b1ffa0739e846"


def _842(*parts: tuple[int, int]) -> bytes:
    """An 842 stream from (value, bits), padded as the kernel pads it."""
    value = size = 0
    for part, bits in parts:
        assert part < 1 << bits
        value, size = value << bits | part, size + bits
    return (value << -size % 64).to_bytes(-(-size // 64) * 8, "big")


def _crc(data: bytes) -> int:
    """CRC-32 with the highest bit first, from 0 and not inverted, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc >> 31 else 0)
    return crc


def _un842(stream: bytes, room: int = PAGE_SIZE, function: Any = sw842.decompress_blocks) -> bytes | int:
    """What comes out of it, or the number of the refusal; nothing behind the room is touched."""
    dst = np.full(room + 8, 77, np.uint8)
    length = int(function(np.frombuffer(stream, np.uint8), dst[:room]))
    assert dst[room:].tobytes() == b"M" * 8
    return dst[:length].tobytes() if length >= 0 else length


END_842 = (30, 5)


def _842_streams() -> Iterator[tuple[str, bytes, bytes | int]]:
    """Streams by hand: a name, the stream, and what comes out or which refusal it is."""

    def good(name: str, out: bytes, *parts: tuple[int, int]) -> tuple[str, bytes, bytes | int]:
        return name, _842(*parts, END_842, (_crc(out), 32)), out

    def bad(name: str, *parts: tuple[int, int]) -> tuple[str, bytes, bytes | int]:
        return name, _842(*parts), -1

    def data(some: bytes) -> tuple[int, int]:
        return int.from_bytes(some, "big"), 8 * len(some)

    first = ((0, 5), data(b"abcdefgh"))
    yield good("nothing", b"")
    yield good("data", b"abcdefgh", *first)
    yield good("zeros", bytes(8), (28, 5))
    yield good("repeat", b"abcdefgh" * 4, *first, (27, 5), (2, 6))
    yield good("longest repeat", bytes(8 * 65), (28, 5), (27, 5), (63, 6))
    yield good("8-byte index", b"abcdefgh" * 2, *first, (25, 5), (0, 8))
    halves = {0: b"WXYZ", 1: b"WXgh", 2: b"efYZ", 3: b"efgh", 4: b"abcd"}
    fields = {
        0: [data(b"WXYZ")],
        1: [data(b"WX"), (3, 8)],
        2: [(2, 8), data(b"YZ")],
        3: [(2, 8), (3, 8)],
        4: [(0, 9)],
    }
    for a in halves:
        for b in halves:
            parts = (*first, (5 * a + b, 5), *fields[a], *fields[b])
            yield good(f"template {5 * a + b}", b"abcdefgh" + halves[a] + halves[b], *parts)
    yield good("short", b"xyz", (29, 5), (3, 3), data(b"xyz"))
    yield good("short, then a block", b"abcdefghxyzabcdefgh", *first, (29, 5), (3, 3), data(b"xyz"), (25, 5), (0, 8))
    yield bad("repeat of nothing", (27, 5), (0, 6), END_842, (0, 32))
    yield bad("repeat of less than a block", (29, 5), (3, 3), data(b"xyz"), (27, 5), (0, 6), END_842, (0, 32))
    yield bad("short of no byte", (29, 5), (0, 3), END_842, (0, 32))
    yield bad("8-byte index of this block", *first, (25, 5), (1, 8), END_842, (0, 32))
    yield bad("4-byte index of this block", *first, (24, 5), (0, 9), (2, 9), END_842, (0, 32))
    yield bad("2-byte index of this block", *first, (18, 5), (0, 8), (4, 8), (0, 8), (0, 8), END_842, (0, 32))
    for template in (26, 31):
        yield bad(f"template {template}", *first, (template, 5), (0, 64), END_842, (0, 32))
    yield bad("no end", *first, (28, 5))
    yield "wrong CRC", _842(*first, END_842, (_crc(b"abcdefgh") ^ 1, 32)), -2


@pytest.mark.parametrize(("name", "stream", "right"), [pytest.param(*row, id=row[0]) for row in _842_streams()])
def test_842_streams_by_hand(name: str, stream: bytes, right: bytes | int, monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (sw842.decompress_blocks, _pure_python(monkeypatch, sw842).decompress_blocks):
        assert _un842(stream, function=function) == right
        if isinstance(right, bytes):
            assert _un842(stream + b"more", function=function) == right
            assert _un842(stream, len(right), function) == right
            for room in range(len(right)):
                assert _un842(stream, room, function) == -1
            for cut in range(len(stream) - 8):  # shorter by more than the padding
                assert _un842(stream[:cut], function=function) == -1


@pytest.mark.parametrize(("size", "units"), [(2, 256), (4, 512), (8, 256)])
def test_842_index_into_the_ring(size: int, units: int) -> None:
    """Every place of a ring is reached after it has been gone round, and is the last time it was written."""
    template, bits = {2: (15, 8), 4: (20, 9), 8: (25, 8)}[size]  # this unit first, then data
    for blocks in (units * size // 8, units * size // 8 + 1, units * size // 4, 400):
        before = known.noise(40, 8 * blocks)
        fields = [((0, 5), (int.from_bytes(before[i : i + 8], "big"), 64)) for i in range(0, 8 * blocks, 8)]
        start = [part for pair in fields for part in pair]
        for index in (0, 1, units // 2, units - 1, blocks * 8 // size % units):
            written = [i for i in range(8 * blocks // size) if i % units == index][-1]
            block = before[written * size :][:size]
            parts = [*start, (template, 5), (index, bits)]
            if size == 2:
                parts[-1:] = [(index, bits), (index, bits), (0, 32)]
                block += block
            block = block.ljust(8, b"\0")
            if size == 4:
                parts.append((0, 32))
            out = before + block
            assert _un842(_842(*parts, END_842, (_crc(out), 32)), len(out)) == out


def ring_edges() -> Iterator[bytes]:
    """Pages with equal blocks and units at every distance that decides, alone and in runs."""
    noise = known.noise(50)
    for run in (*range(1, 8), *range(60, 70), *range(125, 133), 192, 193, 511):
        for block in (noise[:8], bytes(8)):
            yield (noise[100:400] + noise[:4] + block * (run + 1) + noise)[: PAGE_SIZE - 4].ljust(PAGE_SIZE, b"\0")
            yield (block * (run + 1) + noise)[:PAGE_SIZE]
    for size in (2, 4, 8):
        for units in (1, 2, 3, 4, 5, 7, 8, 9, 254, 255, 256, 257, 258, 510, 511, 512, 513, 514):
            for times in (1, 7):
                page = bytearray(noise[:2700].ljust(PAGE_SIZE, b"\0"))
                for block in range(times):
                    here = 32 + 56 * block + block % (8 // size) * size
                    there = here + units * size
                    page[there : there + size] = page[here : here + size]
                yield bytes(page[:PAGE_SIZE])
    for seed in range(60):
        dice = known.noise(3000 + seed, 2 * PAGE_SIZE)
        letters = (2, 3, 6, 20, 100)[seed % 5]
        units = [dice[i : i + (2, 4, 8)[seed % 3]] for i in range(0, PAGE_SIZE, 8)][:letters]
        yield b"".join(units[b % letters] if b < 250 else dice[b:][:2] for b in dice[PAGE_SIZE:] * 2)[:PAGE_SIZE]


def test_842_at_every_limit() -> None:
    """All outputs as one digest, which lib/842 of Linux 6.12.107 and of 7.3-rc7 gave."""
    outputs = [COMPRESSORS["842", "mainline-7.3"].compress(page).data for page in ring_edges()]
    assert hashlib.sha1(b"".join(outputs)).hexdigest() == "64b81a77190c5b9e0e93723387bfd0f64fc53cd8"


def test_842_may_fill_the_destination_exactly() -> None:
    """Each zero block saves 64 bits: 40 of them, and the padded result is 4096 bytes."""
    compressor = COMPRESSORS["842", "mainline-7.3"]
    answers = {}
    for zeros in (39, 40, 41):
        page = bytearray(known.noise(60))
        for i in range(zeros):
            page[80 * i : 80 * i + 8] = bytes(8)
        result = compressor.compress(bytes(page))
        answers[zeros] = result[:2]
        if result.err == 0:
            assert compressor.decompress(result.data) == page
    assert answers == {39: (-28, 0), 40: (0, 4096), 41: (0, 4088)}


@pytest.mark.parametrize("name", list(known.ANSWERS["842"]))
def test_842_compiled_equals_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = dict(known.pages())[name]
    compiled = COMPRESSORS["842", "mainline-7.3"].compress(page)
    python = _pure_python(monkeypatch, sw842)
    src, back = np.frombuffer(page, np.uint8), np.empty(PAGE_SIZE, np.uint8)
    assert python.crc32(src, PAGE_SIZE) == _crc(page)
    dst = np.full(PAGE_SIZE + sw842.SLACK, 77, np.uint8)
    length = python.compress_blocks(src, _crc(page), sw842.make_scratch(), dst)
    assert dst[:length].tobytes() == compiled.data
    if length:
        assert python.decompress_blocks(dst[:length], back) == PAGE_SIZE
        assert back.tobytes() == page


@settings(max_examples=150, deadline=None)
@given(
    page=pages(),
    blocks=st.integers(0, PAGE_SIZE // 8),
    near=st.integers(-9, 8),
    room=st.integers(0, PAGE_SIZE),
)
def test_842_other_sizes(page: bytes, blocks: int, near: int, room: int) -> None:
    """A result fits any room that is not smaller than it, is the same in each, and comes back."""
    src = np.frombuffer(page[: 8 * blocks], np.uint8)
    memory, wide = sw842.make_scratch(), np.empty(2 * PAGE_SIZE, np.uint8)
    crc = sw842.crc32(src, len(src))
    whole = sw842.compress_blocks(src, crc, memory, wide)
    assert whole % 8 == 0 < whole
    for exact in (room, max(0, whole + near)):
        narrow = np.full(exact + sw842.SLACK + 1, 77, np.uint8)
        length = sw842.compress_blocks(src, crc, memory, narrow[:-1])
        assert narrow[-1] == 77
        assert length == (whole if whole <= exact else 0)
        assert narrow[:length].tobytes() == wide[:length].tobytes()
    assert _un842(wide[:whole].tobytes(), len(src)) == src.tobytes()


def test_842_says_what_is_wrong() -> None:
    compressor = COMPRESSORS["842", "mainline-7.3"]
    page = dict(known.pages())["text"]
    data = bytearray(compressor.compress(page).data)
    for bit in (5, 1000, 9000):  # in data, not in a template
        damaged = bytearray(data)
        damaged[bit // 8] ^= 128 >> bit % 8
        with pytest.raises(CorruptData, match=r"^842: "):
            compressor.decompress(damaged)
    with pytest.raises(CorruptData, match=r"^842: the CRC is not that of the data$"):
        compressor.decompress(_842((28, 5), (27, 5), (63, 6), END_842, (1, 32)))
    with pytest.raises(CorruptData, match=r"^842: not a valid stream of templates$"):
        compressor.decompress(b"\xff" * 64)
    with pytest.raises(CorruptData, match=r"^842: 8 bytes instead of 4096$"):
        compressor.decompress(_842((28, 5), END_842, (0, 32)))


def test_842_reads_and_writes_only_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """In plain Python an access outside an array is an error, in compiled code it would go unseen."""
    python = _pure_python(monkeypatch, sw842)
    parts = [dict(known.pages())[name][:400] for name in ("text", "sparse", "noise")]
    for part in parts:
        src, wide = np.frombuffer(part, np.uint8), np.empty(1000, np.uint8)
        length = python.compress_blocks(src, _crc(part), sw842.make_scratch(400), wide)
        for room in range(length):
            narrow = np.empty(room + sw842.SLACK, np.uint8)
            assert python.compress_blocks(src, 0, sw842.make_scratch(400), narrow) == 0
        for cut in range(max(0, length - 150), length):
            assert python.decompress_blocks(wide[:cut], np.empty(400, np.uint8)) in (-1, 400)
        for room in range(0, 400, 3):
            assert python.decompress_blocks(wide[:length], np.empty(room, np.uint8)) == -1


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_garbage_is_corrupt_or_a_page(data: bytes) -> None:
    for compressor in COMPRESSORS.values():
        with contextlib.suppress(CorruptData):
            assert len(compressor.decompress(data)) == PAGE_SIZE


@settings(max_examples=150, deadline=None)
@given(page=pages(), edits=st.lists(st.tuples(st.integers(0, PAGE_SIZE), st.integers(0, 255)), max_size=4))
def test_damaged_data_is_corrupt_or_a_page(page: bytes, edits: list[tuple[int, int]]) -> None:
    for compressor in COMPRESSORS.values():
        data = bytearray(compressor.compress(page).data)
        for place, value in edits:
            if data:
                data[place % len(data)] = value
        with contextlib.suppress(CorruptData):
            assert len(compressor.decompress(data)) == PAGE_SIZE


def test_cut_or_wrong_size_is_corrupt(compressor: Compressor) -> None:
    for name, page in known.pages():
        data = compressor.compress(page).data
        if not data:
            continue
        # Up to seven bytes at the end of an 842 object only fill it up.
        for bad in (b"", data[:1], data[: -8 if compressor.name == "842" else -1], data[: len(data) // 2]):
            with pytest.raises(CorruptData, match=f"^{compressor.name}: "):
                compressor.decompress(bad)
        for size in (1, PAGE_SIZE - 1, PAGE_SIZE + 1, 2 * PAGE_SIZE):
            with pytest.raises(CorruptData):
                compressor.decompress(data, size)
        assert compressor.decompress(data, PAGE_SIZE) == page, name


@pytest.mark.parametrize("line", ["mainline-6.12", "mainline-7.3"])
def test_zstd_promise_is_not_believed(line: str) -> None:
    """A frame header that promises 2^62 bytes must not make anyone allocate them."""
    frame = bytes.fromhex("28b52ffd e0 0000000000000040 010000".replace(" ", ""))
    with pytest.raises(CorruptData, match="header says 4611686018427387904 bytes instead of 4096"):
        compressor_for("zstd", line).decompress(frame)


def _lz4_block(offset: int, literals: bytes = b"abcd") -> bytes:
    """Four literals, one match of 4087 bytes at `offset`, five literals: a page if the offset is allowed."""
    return (
        bytes([0x4F]) + literals + offset.to_bytes(2, "little") + b"\xff" * 15 + bytes([243, 0x50]) + b"12345"
    )


def test_lz4_offsets_stay_inside_the_page() -> None:
    lz4_ = COMPRESSORS["lz4", "mainline-7.3"]
    assert lz4_.decompress(_lz4_block(4)) == (b"abcd" * 1023)[: PAGE_SIZE - 5] + b"12345"
    assert lz4_.decompress(_lz4_block(1)) == b"abc" + b"d" * 4088 + b"12345"
    for offset in (0, 5, 4096, 65535):
        with pytest.raises(CorruptData, match="not a valid block"):
            lz4_.decompress(_lz4_block(offset))


def test_lz4_reads_only_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """In plain Python a read behind the end is an IndexError, in compiled code it would go unseen."""
    decompress_block = _pure_python(monkeypatch, lz4).decompress_block
    dst = np.empty(PAGE_SIZE, np.uint8)
    for block in (_lz4_block(4), b"\xff" * 40, b"\xf0" + b"\xff" * 9, b"\x40abcd" + _lz4_block(4)):
        for cut in range(len(block)):
            assert decompress_block(np.frombuffer(block[:cut], np.uint8), dst) < PAGE_SIZE


def test_lz4_writes_only_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last five bytes of a page are literals: a match may not reach them, nor go beyond."""
    decompress_block = _pure_python(monkeypatch, lz4).decompress_block
    block = bytearray(_lz4_block(4))
    last = block.index(b"\x50") - 1
    results = []
    for length in (243, 244, 245, 248, 249, 254):
        block[last] = length
        results.append(decompress_block(np.frombuffer(block, np.uint8), np.empty(PAGE_SIZE, np.uint8)))
    assert results == [PAGE_SIZE, -1, -1, -1, -1, -1]


END = b"\x11\0\0"
FOUR = b"\x15abcd"
# Streams by hand: {name: (stream, what comes out, or None if it must be refused)}.
LZO_STREAMS: dict[str, tuple[bytes, bytes | None]] = {
    "nothing": (END, b""),
    "four literals": (FOUR + END, b"abcd"),
    "three literals": (b"\x14abc" + END, b"abc"),
    "literals in an instruction": (b"\x01abcd" + END, b"abcd"),
    "literals with a byte of length": (b"\x00\x01" + b"x" * 19 + END, b"x" * 19),
    "literals with two bytes of length": (b"\x00\x00\x01" + b"x" * 274 + END, b"x" * 274),
    "literals without a length": (b"\x00\x00\x00", None),
    "literals without an end": (FOUR, None),
    "2 bytes after one literal": (b"\x12a\x01\x00b" + END, b"aaab"),
    "2 bytes after two literals": (b"\x13ab\x05\x00c" + END, b"ababc"),
    "2 bytes after three literals": (b"\x14abc\x08\x00" + END, b"abcab"),
    "3 bytes after many literals": (b"\x00" * 8 + b"\xf6rst" + b"x" * 2046 + b"\0\0" + END, b"rst" + b"x" * 2046 + b"rst"),
    "3 bytes from too far": (b"\x00" * 8 + b"\xf5rst" + b"x" * 2045 + b"\0\0" + END, None),
    "near match, then literals": (FOUR + b"\x6e\x00xy" + END, b"abcdabcdxy"),
    "near match over itself": (FOUR + b"\xe0\x00" + END, b"abcd" + b"d" * 8),
    "far match": (FOUR + b"\x22\x0c\x00" + END, b"abcdabcd"),
    "far match with a byte of length": (FOUR + b"\x20\x01\x0c\x00" + END, b"abcd" * 9 + b"ab"),
    "far match without an offset": (FOUR + b"\x20\x00\x01\x0c", None),
    "match before the page": (FOUR + b"\x22\x10\x00" + END, None),
    "match farther than any page": (FOUR + b"\x12\x04\x00" + END, None),
    "version, nothing": (b"\x11\x01" + END, b""),
    "version, run": (b"\x11\x01" + FOUR + b"\x19\xfe\xff\x01xy" + END, b"abcd" + bytes(13) + b"xy"),
    "version, longest run": (b"\x11\x01" + FOUR + b"\x1f\xfc\xff\xff" + END, b"abcd" + bytes(2051)),
    "version, cut run": (b"\x11\x01" + FOUR + b"\x1f\xfc\xff", None),
    "version, too small for a run": (b"\x11\x01" + FOUR + b"\x17\xfc\xff\x00" + END, None),
    "another version": (b"\x11\x63" + FOUR + b"\x18\xfc\xff\x00" + END, b"abcd" + bytes(4)),
    "version 0, run": (b"\x11\x00" + FOUR + b"\x18\xfc\xff\x00" + END, None),
    "no version, run": (FOUR + b"\x18\xfc\xff\x00" + END, None),
    "end with its two free bits": (FOUR + b"\x11\x03\x00", b"abcd"),
    "end of another length": (FOUR + b"\x12\x00\x00", None),
    "end with a byte of length": (FOUR + b"\x10\x01\x00\x00", None),
    "byte behind the end": (FOUR + END + b"\x00", None),
}


@pytest.mark.parametrize("name", LZO_STREAMS)
def test_lzo_streams_by_hand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, right = LZO_STREAMS[name]
    for function in (lzo.decompress_block, _pure_python(monkeypatch, lzo).decompress_block):
        dst = np.full(3000, 77, np.uint8)
        length = function(np.frombuffer(stream, np.uint8), dst)
        assert (dst[:length].tobytes() if length >= 0 else None) == right
        if right:
            assert function(np.frombuffer(stream, np.uint8), dst[: len(right)]) == len(right)
            assert function(np.frombuffer(stream, np.uint8), dst[: len(right) - 1]) == -1


def test_lzo_far_matches_of_larger_sources() -> None:
    """No page has them, but the kernel's function reads them, and `decompress` takes any size."""
    first = b"\x00" + b"\x00" * 156 + bytes([40000 - 18 - 156 * 255]) + known.noise(30, 40000)
    for offset in (16385, 20000, 32767, 32768, 32769, 39999, 40000):
        high, low = divmod(offset - 0x4000, 0x4000)
        stream = first + bytes([0x10 | high << 3 | 7]) + (low << 2).to_bytes(2, "little") + END
        page = known.noise(30, 40000)
        page += page[40000 - offset :][:9]
        assert COMPRESSORS["lzo", "mainline-7.3"].decompress(stream, len(page)) == page


def test_lzo_reads_and_writes_only_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """In plain Python an access outside an array is an error, in compiled code it would go unseen."""
    streams = [stream for stream, _ in LZO_STREAMS.values()]
    table, dst = np.empty(8192, np.int16), np.empty(PAGE_SIZE, np.uint8)
    for name in ("text", "sparse"):
        for runs in (False, True):
            part = np.frombuffer(dict(known.pages())[name][:500], np.uint8)
            streams.append(dst[: lzo.compress_block(part, runs, table, dst)].tobytes())
    decompress_block = _pure_python(monkeypatch, lzo).decompress_block
    for stream in streams:
        src = np.frombuffer(stream, np.uint8)
        for cut in range(max(0, len(src) - 400), len(src)):
            assert decompress_block(src[:cut], dst) < PAGE_SIZE
        for room in (*range(50), 499):
            assert decompress_block(src, np.empty(room, np.uint8)) <= room


@pytest.mark.parametrize("line", ["mainline-6.12", "mainline-7.3"])
def test_zstd_bytes_behind_the_frame(line: str) -> None:
    compressor = compressor_for("zstd", line)
    frame = compressor.compress(bytes(PAGE_SIZE)).data
    for more in (b"\0", b"1234", frame):
        with pytest.raises(CorruptData, match=r"^zstd: "):
            compressor.decompress(frame + more)


def test_deflate_bytes_behind_the_stream() -> None:
    """The kernel's inflate stops at the end of the stream and does not look further."""
    deflate_ = COMPRESSORS["deflate", "mainline-7.3"]
    assert deflate_.decompress(deflate_.compress(bytes(PAGE_SIZE)).data + b"more") == bytes(PAGE_SIZE)


def test_deflate_reads_a_wider_window_in_one_piece() -> None:
    """As the kernel's inflate does when it is fed whole, although its own window is 2 KiB."""
    page = known.noise(0, 2048) * 2
    assert COMPRESSORS["deflate", "mainline-7.3"].decompress(zlib.compress(page, 6, -12)) == page


@pytest.mark.parametrize("name", ["deflate-iaa-dynamic"])
def test_kernel_compressors_without_an_implementation(name: str) -> None:
    with pytest.raises(UnsupportedCompressor) as caught:
        compressor_for(name, "mainline-7.3")
    assert str(caught.value) == (
        f"compressor {name!r} exists in the kernel, but zreplay has no implementation of it yet"
    )


def test_unknown_names() -> None:
    with pytest.raises(UnsupportedCompressor) as caught:
        compressor_for("lz5", "mainline-7.3")
    assert str(caught.value) == ("no kernel compressor is called 'lz5': zreplay has zstd, lz4, lz4hc, lzo, lzo-rle, "
                                 "deflate, 842 and deflate-iaa")
    with pytest.raises(
        UnsupportedCompressor, match=r"^unknown kernel line '7\.3': known are mainline-6\.12, "
    ):
        compressor_for("lz4", "7.3")


@pytest.mark.parametrize("name", ["lz4", "lzo", "lzo-rle"])
def test_without_numba_they_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lz4", "lzo"):
        monkeypatch.setitem(sys.modules, f"model.crypto.{module}", None)
    with pytest.raises(InexactLibrary, match=f"^{name} is compiled by the package numba, which does not load: "):
        compressor_for(name, "mainline-7.3")


def test_wrong_arguments(compressor: Compressor) -> None:
    with pytest.raises(ValueError, match="a page is 4096 bytes, not 4095"):
        compressor.compress(bytes(4095))
    wrong: list[Any] = [np.zeros((2, 4095), np.uint8), np.zeros((2, 4096), np.int8), np.zeros(4096, np.uint8)]
    for bad in wrong:
        with pytest.raises(ValueError, match=r"pages must be uint8 of shape \(n, 4096\)"):
            compressor.lengths(bad)
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        compressor.lengths(np.zeros((1, 4096), np.uint8), threads=0)


def test_idents_tell_results_apart() -> None:
    idents = {kind: compressor.ident for kind, compressor in COMPRESSORS.items()}
    assert len(set(idents.values())) == len(idents)
    assert "libzstd 1.5.7 " in idents["zstd", "mainline-7.3"]
    assert compressor_for("zstd", "mainline-7.0").ident == idents["zstd", "mainline-7.3"]
    for name in ("lz4", "lz4hc", "lzo", "lzo-rle", "842"):
        assert compressor_for(name, "mainline-6.12").ident == idents[name, "mainline-7.3"]


def test_the_other_libzstd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = list(zstd._bindings())
    new = [b for b in bindings if b.version == (1, 5, 7)]
    monkeypatch.setattr(zstd, "_bindings", lambda: iter(new))
    with pytest.raises(InexactLibrary) as caught:
        compressor_for("zstd", "mainline-6.12")
    assert str(caught.value) == (
        "zstd of mainline-6.12 needs libzstd 1.5.2 or 1.5.4 or 1.5.5 or 1.5.6, and here is "
        + ", ".join(f"{b.label} (libzstd 1.5.7)" for b in new)
        + ": install zstandard==0.23.0"
    )
    monkeypatch.setattr(zstd, "_bindings", lambda: iter(()))
    with pytest.raises(InexactLibrary, match=r"here is no libzstd binding: install backports\.zstd$"):
        compressor_for("zstd", "mainline-7.3")


@pytest.mark.parametrize("line", ["mainline-6.12", "mainline-7.3"])
def test_self_check_sees_the_other_libzstd(line: str) -> None:
    """The same parameters in the other library's hands must not pass for exact."""
    compressor = zstd.Zstd(line)
    other = [b for b in zstd._bindings() if b.version != compressor._binding.version]
    if not other:
        pytest.skip("only one libzstd is installed")
    compressor._binding = other[0]
    problems = compressor.self_check()
    assert problems
    assert all(problem.startswith(compressor.ident) for problem in problems)


@pytest.mark.parametrize(("wbits", "memory"), [(-11, 9), (-12, 8), (-15, 8)])
def test_self_check_sees_other_zlib_settings(
    monkeypatch: pytest.MonkeyPatch, wbits: int, memory: int
) -> None:
    def near(page: Any) -> bytes:
        stream = zlib.compressobj(6, zlib.DEFLATED, wbits, memory)
        return stream.compress(page) + stream.flush()

    monkeypatch.setattr(deflate, "_deflate", near)
    assert compressor_for("deflate", "mainline-7.3").self_check()


def test_a_zlib_fork_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "ZLIB_RUNTIME_VERSION", "1.3.1.zlib-ng")
    with pytest.raises(
        InexactLibrary, match=r"^this Python's zlib is 1\.3\.1\.zlib-ng, and only the original"
    ):
        compressor_for("deflate", "mainline-7.3")


def test_self_check_sees_a_wrong_answer(monkeypatch: pytest.MonkeyPatch, compressor: Compressor) -> None:
    for table in known.ANSWERS.values():
        monkeypatch.setitem(table, "text", (1, "00"))
    (problem,) = compressor.self_check()
    assert problem.startswith(f"{compressor.ident}: page 'text' gives ")
    assert problem.endswith(", the kernel 1 bytes (SHA-1 00)")
