# SPDX-License-Identifier: GPL-2.0-or-later
"""deflate-generic's and zstd-generic's decompression against zlib and libzstd, called as the kernel calls them.

The loops here drive the C libraries' streams with the very room and input a walk over lists gives them; the
model has no such libraries and must come to the same errors, lengths and bytes.  Skipped where the machine
has no shared library of that name.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from model.crypto import compressor_for
from model.crypto import knownanswers as known
from model.crypto.acomp_deflate import DeflateGeneric
from model.crypto.acomp_zstd import ZstdGeneric
from model.crypto.request import AcompAlg, AcompRequest, Scatterlist
from model.crypto.zstd import Zstd, streaming_module
from model.errno import EINVAL, EIO, ENOSPC

PAGES = [page for _, page in known.pages()]
Outcome = tuple[int, bytes]


def library(name: str) -> Any:
    found = ctypes.util.find_library(name)
    if found is None:
        pytest.skip(f"no shared library {name} on this machine")
    return ctypes.CDLL(found)


def sizes(rng: random.Random, total: int, most: int) -> list[int]:
    cuts = sorted(rng.sample(range(1, total), min(total - 1, rng.randint(0, most - 1))))
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


def cut(data: bytes, parts: list[int]) -> list[bytes]:
    out, at = [], 0
    for part in parts:
        out.append(data[at : at + part])
        at += part
    return out


def model(driver: AcompAlg, src: list[bytes], dst: list[int]) -> Outcome:
    buffers = [bytearray(size) for size in dst]
    entries = [Scatterlist(piece) for piece in src]
    request = AcompRequest(entries, [Scatterlist(buffer) for buffer in buffers], sum(map(len, src)), sum(dst))
    err = driver.decompress(request)
    return err, b"" if err else b"".join(buffers)[: request.dlen]


class Room:
    """A destination of several pieces; `next` is what is left of the current one."""

    def __init__(self, dst: list[int]) -> None:
        self.buffers = [ctypes.create_string_buffer(size) for size in dst]
        self.dst, self.at, self.done, self.total = dst, 0, 0, 0

    def next(self) -> int:
        while self.at < len(self.dst) and self.done == self.dst[self.at]:
            self.at, self.done = self.at + 1, 0
        return self.dst[self.at] - self.done if self.at < len(self.dst) else 0

    def address(self) -> int:
        index = min(self.at, len(self.dst) - 1)
        return ctypes.addressof(self.buffers[index]) + (self.done if index == self.at else 0)

    def used(self, size: int) -> None:
        self.done += size
        self.total += size

    def content(self) -> bytes:
        return b"".join(bytes(buffer)[:size] for buffer, size in zip(self.buffers, self.dst, strict=True))[: self.total]


class ZStream(ctypes.Structure):
    _fields_ = (
        ("next_in", ctypes.c_void_p), ("avail_in", ctypes.c_uint), ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_uint), ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p), ("state", ctypes.c_void_p), ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p), ("opaque", ctypes.c_void_p), ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong), ("reserved", ctypes.c_ulong),
    )  # fmt: skip


def inflate(libz: Any, src: list[bytes], dst: list[int], wbits: int, as_was: bool) -> Outcome:
    stream = ZStream()
    assert libz.inflateInit2_(ctypes.byref(stream), -wbits, b"1.2.11", ctypes.sizeof(stream)) == 0
    room, left = Room(dst), list(src)
    try:
        ret = 0
        while ret == 0:
            piece = left.pop(0) if left else b""
            data = ctypes.create_string_buffer(piece, len(piece) or 1)
            stream.next_in, stream.avail_in = ctypes.addressof(data), len(piece)
            while True:
                size = room.next()
                if not size and as_was:
                    return ENOSPC, b""
                stream.next_out, stream.avail_out = room.address(), size
                before = stream.avail_in
                ret = libz.inflate(ctypes.byref(stream), 0)
                if not size and before == stream.avail_in:
                    return ENOSPC, b""
                room.used(size - stream.avail_out)
                if ret or not stream.avail_in:
                    break
        return (0, room.content()) if ret == 1 else (EINVAL, b"")
    finally:
        libz.inflateEnd(ctypes.byref(stream))


def streams(rng: random.Random) -> Iterator[bytes]:
    """Raw deflate of other windows and codes than deflate-generic's, some cut off, some with a bit flipped."""
    while True:
        page = rng.choice(PAGES)
        kind = rng.randrange(3)
        if kind == 0:
            data = zlib.compress(page, 6, -11)
        else:
            fixed = (1, zlib.DEFLATED, -12, 9, zlib.Z_FIXED)
            deflate = zlib.compressobj(*fixed) if kind == 1 else zlib.compressobj(6, zlib.DEFLATED, -12)
            data = deflate.compress(page) + deflate.flush()
        if rng.random() < 0.1:
            data = data[: rng.randint(2, len(data) - 1)]
        if rng.random() < 0.1:
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            data = bytes(flipped)
        yield data


@pytest.mark.parametrize("as_was", [False, True])
@pytest.mark.parametrize("wbits", [11, 15])
def test_inflate_in_pieces(as_was: bool, wbits: int) -> None:
    libz = library("z")
    rng = random.Random(wbits + as_was)
    wanted = {"deflate_enospc": as_was, "deflate_window": wbits == 11}
    driver = DeflateGeneric(frozenset(name for name, wanted in wanted.items() if wanted))
    seen = set()
    for _, data in zip(range(500), streams(rng), strict=False):
        parts = [len(data) - 1, 1] if rng.random() < 0.3 else sizes(rng, len(data), 3)
        src = cut(data, parts)
        dst = sizes(rng, rng.choice([4096, 4096, 4096, 4097, 5000, 4095, 3000]), 3)
        want = inflate(libz, src, dst, wbits, as_was)
        assert model(driver, src, dst) == want, (parts, dst)
        seen.add(want[0])
    assert seen == {0, EINVAL, ENOSPC}


class ZBuffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def unzstd(libzstd: Any, src: list[bytes], dst: list[int]) -> Outcome:
    libzstd.ZSTD_createDStream.restype = ctypes.c_void_p
    libzstd.ZSTD_decompressStream.restype = ctypes.c_size_t
    libzstd.ZSTD_isError.argtypes = [ctypes.c_size_t]
    stream = ctypes.c_void_p(libzstd.ZSTD_createDStream())
    room = Room(dst)
    try:
        for piece in src:
            data = ctypes.create_string_buffer(piece, len(piece))
            inbuf = ZBuffer(ctypes.addressof(data), len(piece), 0)
            while inbuf.pos != len(piece):
                size = room.next()
                if not size:
                    return ENOSPC, b""
                outbuf = ZBuffer(room.address(), size, 0)
                ret = libzstd.ZSTD_decompressStream(stream, ctypes.byref(outbuf), ctypes.byref(inbuf))
                if libzstd.ZSTD_isError(ret):
                    return EIO, b""
                room.used(outbuf.pos)
        return 0, room.content()
    finally:
        libzstd.ZSTD_freeDStream(stream)


def test_zstd_as_it_is_in_pieces() -> None:
    libzstd = library("zstd")
    compressor = compressor_for("zstd", "mainline-7.3")
    assert isinstance(compressor, Zstd)
    driver = ZstdGeneric(compressor, frozenset({"zstd_stream"}))
    module, rng = streaming_module(), random.Random(1)
    seen = set()
    for _ in range(800):
        page = rng.choice(PAGES)
        data = compressor.compress(page).data
        if not data or rng.random() < 0.5:
            blocks = module.ZstdCompressor(level=3)
            data = b"".join(blocks.compress(part, blocks.FLUSH_BLOCK) for part in cut(page, sizes(rng, 4096, 5)))
            data += blocks.flush()
        if rng.random() < 0.2:
            data = data[: rng.randint(2, len(data) - 1)]
        src, dst = cut(data, sizes(rng, len(data), 4)), sizes(rng, 4096, 4)
        if len(src) == len(dst) == 1:
            continue  # one call, not the streaming branch
        want = unzstd(libzstd, src, dst)
        assert model(driver, src, dst) == want
        seen.add((want[0], len(want[1]) == 4096))
    assert {(0, True), (0, False), (ENOSPC, False)} <= seen
