# SPDX-License-Identifier: GPL-2.0-or-later
"""Known answers: generated pages and their compressed forms, to distinguish an exact library from a near one.

The answers were computed by code that had predicted every error, every length and every object of the
recorded kernels (12,671 pages of 6.12 zstd, 14,780 of 7.3 zstd, 5,352 of 7.3 lz4; for deflate see there).
Those of lzo, lzo-rle, lz4hc and 842 are by lib/lzo, lib/lz4 and lib/842 of Linux 6.12.107 and 7.3-rc7, compiled for
userland. Libraries that are near, but not exact, fail at least one of these pages: libzstd 1.5.7 for 6.12 and 1.5.6
for 7.x, LZ4 1.9.4, LZO1X-1 with liblzo2's table of 14 bits, zlib with another window or memLevel.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Iterator

from ..page import PAGE_SIZE
from .base import Compressor, CompressResult, CorruptData


def noise(seed: int, size: int = PAGE_SIZE) -> bytes:
    """SHA-256 of "seed:0", "seed:1", ... joined and cut to `size` bytes: random to every compressor."""
    blocks = (hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def repeat_in_noise(m: int) -> bytes:
    """A random page in which `m` bytes occur twice: m decides whether lz4's output still fits.

    With LZ4 of the kernel: does not fit up to m=20, exactly 4096 bytes at m=21, 4095 at m=22.
    """
    page = bytearray(noise(0))
    page[2048 : 2048 + m] = page[64 : 64 + m]
    return bytes(page)


def _text() -> bytes:
    words = ["zswap", "store", "folio", "entry", "tree", "pool", "handle", "length", "swap", "page", "node"]
    words += ["list", "lock", "free", "the", "a", "of"]
    return " ".join(f"{words[b % len(words)]}{b >> 6 or ''}" for b in noise(1)).encode()[:PAGE_SIZE]


def _pointers() -> bytes:
    offsets = struct.unpack("<512H", noise(2, 1024))
    return struct.pack("<512Q", *(0xFFFF_8880_0000_0000 + (o << 6) * (o % 3 > 0) for o in offsets))


def _counters() -> bytes:
    steps = noise(3, 1024)
    return struct.pack("<1024I", *(i * 40 + step % 7 for i, step in enumerate(steps)))


def _sparse() -> bytes:
    page = bytearray(PAGE_SIZE)
    places = struct.unpack("<48H", noise(4, 96))
    for place, value in zip(places, noise(5, 48), strict=True):
        page[place % PAGE_SIZE] = value
    return bytes(page)


def _nibbles() -> bytes:
    return bytes(b & 15 for b in noise(6))


def _records() -> bytes:
    kinds = ("page", "folio", "slab", "pool")
    lines = (
        f'{{"id": {i * 7}, "name": "{kinds[b & 3]}", "size": {(b >> 2) * 64}}}, '
        for i, b in enumerate(noise(13))
    )
    return "".join(lines).encode()[:PAGE_SIZE]


@functools.cache
def pages() -> tuple[tuple[str, bytes], ...]:
    """The pages of the table below by name, each `PAGE_SIZE` bytes."""
    return tuple(_pages())


def _pages() -> Iterator[tuple[str, bytes]]:
    yield "zero", bytes(PAGE_SIZE)
    yield "noise", noise(0)
    yield "text", _text()
    yield "pointers", _pointers()
    yield "counters", _counters()
    yield "sparse", _sparse()
    yield "nibbles", _nibbles()
    yield "records", _records()
    yield "period-101", (noise(11, 101) * 41)[:PAGE_SIZE]  # found at the second byte, extended to the first
    yield "last-match", bytes(PAGE_SIZE - 32) + noise(10, 20) + bytes(12)  # a match in the last 12 bytes
    yield "half-noise", noise(7, 2048) + bytes(2048)
    yield "half-text", noise(8, 2800) + _text()[:1296]
    yield "repeat-20", repeat_in_noise(20)
    yield "repeat-21", repeat_in_noise(21)
    yield "repeat-22", repeat_in_noise(22)
    yield "repeat-96", repeat_in_noise(96)
    yield "zeros-53", noise(9, PAGE_SIZE - 53) + bytes(53)  # deflate: exactly 4096, which does not fit
    yield "zeros-54", noise(9, PAGE_SIZE - 54) + bytes(54)  # deflate: 4095, which does


DOES_NOT_FIT = (0, "")

# {table: {page: (length in bytes, start of the SHA-1 of the output)}}
ANSWERS: dict[str, dict[str, tuple[int, str]]] = {
    "zstd-old": {
        "zero": (19, "c8143ba5fc06fdfd"),
        "noise": DOES_NOT_FIT,
        "text": (1193, "474a0da1c03c0f14"),
        "pointers": (1241, "6ab411cdf230c964"),
        "counters": (2590, "03b0a33eb229bd84"),
        "sparse": (188, "9837ce0dd069cfd0"),
        "nibbles": (2082, "d792e62d1448f41e"),
        "records": (671, "f970c02fe9d82e98"),
        "period-101": (121, "c5576de6f4d3c64e"),
        "last-match": (42, "4efa2285e83ccc68"),
        "half-noise": (2075, "b119a9a9a602e293"),
        "half-text": (3686, "3102fe1748a7dcbf"),
        "repeat-20": DOES_NOT_FIT,
        "repeat-21": DOES_NOT_FIT,
        "repeat-22": DOES_NOT_FIT,
        "repeat-96": (4020, "8cdbc7a0a982f7a2"),
        "zeros-53": DOES_NOT_FIT,
        "zeros-54": DOES_NOT_FIT,
    },
    "zstd-new": {
        "zero": (19, "c8143ba5fc06fdfd"),
        "noise": DOES_NOT_FIT,
        "text": (1187, "c2df285344d1bbc6"),
        "pointers": (1241, "6ab411cdf230c964"),
        "counters": (2590, "03b0a33eb229bd84"),
        "sparse": (222, "ca4a5605b79e9889"),
        "nibbles": (2137, "21015eb1e12847c8"),
        "records": (679, "12648b9baa20368f"),
        "period-101": (121, "c5576de6f4d3c64e"),
        "last-match": (42, "4efa2285e83ccc68"),
        "half-noise": (2075, "b119a9a9a602e293"),
        "half-text": (3401, "79aa8568513151ac"),
        "repeat-20": DOES_NOT_FIT,
        "repeat-21": DOES_NOT_FIT,
        "repeat-22": DOES_NOT_FIT,
        "repeat-96": (4020, "8cdbc7a0a982f7a2"),
        "zeros-53": DOES_NOT_FIT,
        "zeros-54": DOES_NOT_FIT,
    },
    "lz4": {
        "zero": (26, "3669cdcce586c66f"),
        "noise": DOES_NOT_FIT,
        "text": (2110, "32aa1d4d79a79bfe"),
        "pointers": (2045, "5985a315c8c4897d"),
        "counters": DOES_NOT_FIT,
        "sparse": (328, "1cddfc541a8fbb38"),
        "nibbles": (4089, "f497e98b61c57412"),
        "records": (1144, "6219b78c6d96804a"),
        "period-101": (127, "e8bb57eee3378eeb"),
        "last-match": (54, "c04d1631b8ef0b64"),
        "half-noise": (2082, "c3181c974443a1b0"),
        "half-text": (3549, "ddaea2d2078eda52"),
        "repeat-20": DOES_NOT_FIT,
        "repeat-21": (4096, "20bcd2747d27f050"),
        "repeat-22": (4095, "c841a3e0e84ac012"),
        "repeat-96": (4021, "5a900f341024c3b3"),
        "zeros-53": (4080, "b98866576b4ec48c"),
        "zeros-54": (4079, "a02441faca81c9d6"),
    },
    "lzo": {
        "zero": (44, "baefa630d4576d94"),
        "noise": DOES_NOT_FIT,
        "text": (1576, "f197168fdfabed20"),
        "pointers": (1677, "0ea50d93537c07d0"),
        "counters": DOES_NOT_FIT,
        "sparse": (328, "fe5a91e9312c52cf"),
        "nibbles": DOES_NOT_FIT,
        "records": (1140, "91e6b4ee53b1bb85"),
        "period-101": (141, "c0d6fb535000ff60"),
        "last-match": (62, "f4b0d23a62a905fd"),
        "half-noise": (2213, "91dd65f85dda0ea1"),
        "half-text": DOES_NOT_FIT,
        "repeat-20": DOES_NOT_FIT,
        "repeat-21": DOES_NOT_FIT,
        "repeat-22": DOES_NOT_FIT,
        "repeat-96": (4087, "ef80d43d6b598108"),
        "zeros-53": DOES_NOT_FIT,
        "zeros-54": DOES_NOT_FIT,
    },
    "lzo-rle": {
        "zero": (41, "59faa9ef999c48b1"),
        "noise": DOES_NOT_FIT,
        "text": (1578, "ccb6665e5db1363b"),
        "pointers": (1977, "40ca189fc8d4c35b"),
        "counters": DOES_NOT_FIT,
        "sparse": (269, "8059d8bbcef24786"),
        "nibbles": DOES_NOT_FIT,
        "records": (1142, "0a6c9243dc661f56"),
        "period-101": (143, "0e26e4c33182a4d4"),
        "last-match": (53, "2267ef3e5781c0c8"),
        "half-noise": (2150, "41886c868e8cf63e"),
        "half-text": DOES_NOT_FIT,
        "repeat-20": DOES_NOT_FIT,
        "repeat-21": DOES_NOT_FIT,
        "repeat-22": DOES_NOT_FIT,
        "repeat-96": (4089, "f428dc1e9f168bcb"),
        "zeros-53": DOES_NOT_FIT,
        "zeros-54": DOES_NOT_FIT,
    },
    "lz4hc": {
        "zero": (26, "3669cdcce586c66f"),
        "noise": DOES_NOT_FIT,
        "text": (1715, "cb585d3d5266c35a"),
        "pointers": (1640, "be01711274fadcc1"),
        "counters": DOES_NOT_FIT,
        "sparse": (241, "0851ea5ce79231ac"),
        "nibbles": (4042, "1ed437c16bfd4c44"),
        "records": (967, "7f79feda7146a744"),
        "period-101": (127, "e8bb57eee3378eeb"),
        "last-match": (54, "c04d1631b8ef0b64"),
        "half-noise": (2074, "d88644b1f2d71083"),
        "half-text": (3457, "46d1b43443457758"),
        "repeat-20": DOES_NOT_FIT,
        "repeat-21": (4096, "20bcd2747d27f050"),
        "repeat-22": (4095, "c841a3e0e84ac012"),
        "repeat-96": (4021, "5a900f341024c3b3"),
        "zeros-53": (4070, "2b8e99f634b81194"),
        "zeros-54": (4069, "f50d5454071309fc"),
    },
    "842": {
        "zero": (24, "8dd9b6de09a3e8fc"),
        "noise": DOES_NOT_FIT,
        "text": (1912, "1c492de0e167c578"),
        "pointers": (2032, "5c27940f902ec92a"),
        "counters": (3400, "467fd41717550af9"),
        "sparse": (320, "a2973989ad785d01"),
        "nibbles": (3192, "919ef9b2f802355a"),
        "records": (1648, "d8fae31e95ae7f14"),
        "period-101": (1160, "03ad6f7173c55556"),
        "last-match": (40, "ec36e6ef93785981"),
        "half-noise": (2216, "696b2629d4b0c88c"),
        "half-text": (3736, "b4592ea2bc5ab755"),
        "repeat-20": DOES_NOT_FIT,
        "repeat-21": DOES_NOT_FIT,
        "repeat-22": DOES_NOT_FIT,
        "repeat-96": DOES_NOT_FIT,
        "zeros-53": DOES_NOT_FIT,
        "zeros-54": DOES_NOT_FIT,
    },
    "deflate": {
        "zero": (20, "a481108149a9ec14"),
        "noise": DOES_NOT_FIT,
        "text": (1121, "1130c09990758ec4"),
        "pointers": (1293, "631f9d14d70a6874"),
        "counters": (1702, "02f2389f93a72b7e"),
        "sparse": (202, "17f73164d6085129"),
        "nibbles": (2279, "2341cd1d41e95b73"),
        "records": (610, "bed014f471b5cda6"),
        "period-101": (146, "efeb92452756b3ee"),
        "last-match": (53, "bfc6a2a6bfb5b6a0"),
        "half-noise": (2109, "c5f441de99ac3fea"),
        "half-text": (3373, "c6a3398dfbaa028a"),
        "repeat-20": DOES_NOT_FIT,
        "repeat-21": DOES_NOT_FIT,
        "repeat-22": DOES_NOT_FIT,
        "repeat-96": DOES_NOT_FIT,
        "zeros-53": DOES_NOT_FIT,
        "zeros-54": (4095, "2e00c412086eff9e"),
    },
}


def answer(result: CompressResult) -> tuple[int, str]:
    """`result` in the form of the table."""
    return (result.dlen, hashlib.sha1(result.data).hexdigest()[:16]) if result.err == 0 else DOES_NOT_FIT


def problems(compressor: Compressor, table: str) -> list[str]:
    """Compare `compressor` with a table: one sentence for each page it gets wrong, none if it is exact."""
    import numpy as np

    found = []
    for name, page in pages():
        one = compressor.compress(page)
        errs, dlens, _ = compressor.lengths(np.frombuffer(page, np.uint8).reshape(1, PAGE_SIZE))
        got, right = answer(one), ANSWERS[table][name]
        if got != right:
            found.append(f"{compressor.ident}: page {name!r} gives {_spell(got)}, the kernel {_spell(right)}")
        elif (errs[0], dlens[0]) != (one.err, one.dlen):
            found.append(f"{compressor.ident}: page {name!r} gives another length in a batch")
        elif one.err == 0 and not _comes_back(compressor, one.data, page):
            found.append(f"{compressor.ident}: page {name!r} does not come back from decompression")
    return found


def _comes_back(compressor: Compressor, data: bytes, page: bytes) -> bool:
    try:
        return compressor.decompress(data) == page
    except CorruptData:
        return False


def _spell(got: tuple[int, str]) -> str:
    return f"{got[0]} bytes (SHA-1 {got[1]})" if got != DOES_NOT_FIT else "no output that fits"
