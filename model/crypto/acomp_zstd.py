# SPDX-License-Identifier: GPL-2.0-or-later
"""`zstd-generic` of Linux 6.18 to 7.3 (crypto/zstd.c): one call for linear pages, streaming for lists.

zswap's compressions are always one piece in and one out, and so are its reads of objects that lie within a
page: those are :class:`model.crypto.zstd.Zstd`, exact.  An object that spans two pages is read as a list of
two entries and takes the streaming branch.  Its decompression was compared with libzstd 1.5.4 driven as the
kernel's code drives it: no difference in 23,443 splits of whole and cut-off frames over up to 4 pieces on each
side (of frames with a flipped bit, which no store makes, 5 of 4,722 end in another error).  The bytes of a
streamed *compression* (which zswap never asks for) are the library's for the same parameters, compared with nothing.

The switch `zstd_stream` is the streaming branch as it is up to 7.3-rc7.  Without it the branch does what the
fix posted as 20260320215124.389938-1-atwellwea@gmail.com does (not merged: asked to be split).  As it was:

* compress ends the frame once, into what is left of the destination's current piece: if the end does not fit
  there, success is reported with a frame that is cut off, though more pieces may follow;
* decompress stops with the source: an unfinished frame is a success with too small a `dlen`.  (What the
  decoder holds because a piece of the destination was full is not lost, as libzstd then leaves the frame's last
  byte in the source: found by driving libzstd 1.5.4 as that code does, where the posting says otherwise.)
"""

from __future__ import annotations

from typing import Final

from ..errno import EINVAL, EIO, ENOSPC
from ..page import PAGE_SIZE
from .base import CorruptData
from .request import AcompAlg, AcompRequest, DestinationWalk, pieces, sg_or_virt
from .scomp import Wrapped
from .zstd import Parameters, Zstd, streaming_module

__all__ = ["DEFECTS", "ZstdGeneric"]

DEFECTS: Final = frozenset({"zstd_stream"})
_MAGIC = b"\x28\xb5\x2f\xfd"
_PARAMETERS = Parameters(18, 16, 16, 1, 4, 0, 2)  # zstd_get_params(3, 256 KiB)


class ZstdGeneric(AcompAlg):
    """zstd as a native acomp; `dlen` is 0 after every error."""

    name = "zstd-generic"

    def __init__(self, compressor: Zstd, defects: frozenset[str] = frozenset()) -> None:
        self._one = Wrapped(compressor)
        self.defects = defects

    def compress(self, request: AcompRequest) -> int:
        """`zstd_compress`: -EINVAL in one call, -ENOSPC or -EIO in the streaming branch."""
        err, request.dlen = self._compress(request)
        return err

    def decompress(self, request: AcompRequest) -> int:
        """`zstd_decompress`: -EINVAL in one call, -ENOSPC, -EIO or (as fixed) -EINVAL in the streaming branch."""
        err, request.dlen = self._decompress(request)
        return err

    def _walks(self, request: AcompRequest) -> tuple[list[bytes], DestinationWalk, bool]:
        """The source's pieces, the destination, and whether both are a single piece."""
        slen, dlen = request.slen, request.dlen
        src = [piece.read() for piece in pieces(sg_or_virt(request.src, slen), slen)]
        room = DestinationWalk(sg_or_virt(request.dst, dlen), dlen)
        return src, room, len(src) == 1 and room.next() == dlen

    def _compress(self, request: AcompRequest) -> tuple[int, int]:
        if not request.slen or not request.dlen:
            return EINVAL, 0
        src, room, linear = self._walks(request)
        if linear:
            err, _, data = self._one.compress(src[0], request.dlen)
            room.write(data)
            return (EINVAL, 0) if err else (0, len(data))
        stream = _CompressionStream()
        return _compress_as_was(stream, src, room) if self.defects else _compress_as_fixed(stream, src, room)

    def _decompress(self, request: AcompRequest) -> tuple[int, int]:
        if not request.slen or not request.dlen:
            return EINVAL, 0
        src, room, linear = self._walks(request)
        if linear:
            err, _, page = self._one.decompress(src[0], request.dlen)
            room.write(page)
            return (EINVAL, 0) if err else (0, len(page))
        stream = _DecompressionStream()
        try:
            return _decompress_as_was(stream, src, room) if self.defects else _decompress_as_fixed(stream, src, room)
        except CorruptData:
            return EIO, 0


class _CompressionStream:
    """A cstream whose output waits until there is room: `zstd_compress_stream` takes a page whole."""

    def __init__(self) -> None:
        module = streaming_module()
        names = module.CompressionParameter
        options = {getattr(names, key): value for key, value in _PARAMETERS._asdict().items()}
        options |= {names.content_size_flag: 1, names.checksum_flag: 0, names.dict_id_flag: 0}
        self._zstd = module.ZstdCompressor(options=options)
        self.waiting = b""

    def feed(self, data: bytes, *, flush: bool) -> None:
        """Take input; with `flush`, end a block behind it (`zstd_flush_stream`)."""
        self.waiting += self._zstd.compress(data, self._zstd.FLUSH_BLOCK if flush else self._zstd.CONTINUE)

    def end(self) -> None:
        """`zstd_end_stream`: the last block."""
        self.waiting += self._zstd.compress(b"", self._zstd.FLUSH_FRAME)

    def take(self, room: int) -> bytes:
        """At most `room` bytes of what waits."""
        data, self.waiting = self.waiting[:room], self.waiting[room:]
        return data


def _compress_as_was(stream: _CompressionStream, src: list[bytes], room: DestinationWalk) -> tuple[int, int]:
    total, todo = 0, list(src)
    while True:
        size = room.next()
        if not size:
            return ENOSPC, 0
        pos = 0
        while todo and pos < size:
            # While older output waits for room the stream takes no input.
            if len(stream.waiting) <= size - pos:
                stream.feed(todo.pop(0), flush=True)
            data = stream.take(size - pos)
            room.write(data, pos)
            pos += len(data)
        if pos == size:
            # Full, so the source is not asked whether it has more: another piece is wanted in any case.
            total += pos
            room.done(size)
            continue
        data = stream.take(size - pos)
        room.write(data, pos)
        pos += len(data)
        stream.end()
        last = stream.take(size - pos)  # once, however much is left
        room.write(last, pos)
        return 0, total + pos + len(last)


def _compress_as_fixed(stream: _CompressionStream, src: list[bytes], room: DestinationWalk) -> tuple[int, int]:
    for data in src:
        stream.feed(data, flush=False)
    stream.end()
    total = 0
    while stream.waiting:
        size = room.next()
        if not size:
            return ENOSPC, 0
        data = stream.take(size)
        room.write(data)
        room.done(len(data))
        total += len(data)
    return 0, total


class _DecompressionStream:
    """A dstream: `ZSTD_decompressStream` decodes block by block and stops when output waits for room.

    `frame_done`: the frame's last block is decoded and all of it is written.
    """

    def __init__(self) -> None:
        module = streaming_module()
        self._error: type[Exception] = module.ZstdError
        self._zstd = module.ZstdDecompressor()
        self._loaded = b""  # input taken that is not a whole header or block yet
        self._header = 0  # bytes of the frame header, once known
        self._last_block = False
        self._raw_left = 0  # bytes of a raw block still to come
        self._last = False
        self._hostage = False
        self.waiting = b""

    @property
    def frame_done(self) -> bool:
        """Nothing more is to come: `zstd_decompress_stream` returned 0."""
        return self._last and not self.waiting and not self._hostage

    def step(self, data: bytes, room: int) -> tuple[int, bytes]:
        """One `zstd_decompress_stream`: (bytes of `data` taken, output of at most `room` bytes)."""
        taken, out = 0, b""
        while True:
            ready, self.waiting = self.waiting[: room - len(out)], self.waiting[room - len(out) :]
            out += ready
            if self.waiting:
                if self._last and not self._hostage:
                    # libzstd takes the frame's last byte only when all output is written ("hostage byte").
                    self._hostage = True
                    taken -= 1
                return taken, out
            if self._last:
                if self._hostage and taken < len(data):
                    self._hostage = False
                    taken += 1
                if taken < len(data):
                    raise CorruptData("zstd: bytes behind the frame")
                return taken, out
            if self._raw_left:
                # A raw block is given out as it comes; every other one is decoded when it is whole.
                more = data[taken : taken + self._raw_left]
                taken += len(more)
                self._raw_left -= len(more)
                if not more:
                    return taken, out
                self._decode(more)
                self._last = self._last_block and not self._raw_left
                continue
            want = self._wanted()
            more = data[taken : taken + want - len(self._loaded)]
            taken += len(more)
            self._loaded += more
            if not self._header and not _MAGIC.startswith(self._loaded[:4]):
                raise CorruptData("zstd: no frame begins like this")
            if len(self._loaded) < want:
                return taken, out
            if self._wanted() == want:
                self._load()

    def _wanted(self) -> int:
        """How many bytes the header or block being loaded has, as far as it is known."""
        got = self._loaded
        if not self._header:
            if len(got) < 5:
                return 5
            flags = got[4]
            single, size_flag, dict_flag = flags >> 5 & 1, flags >> 6, flags & 3
            fields = (not single) + (0, 1, 2, 4)[dict_flag] + ((1 if single else 0), 2, 4, 8)[size_flag]
            return 5 + fields
        if len(got) < 3:
            return 3
        word = int.from_bytes(got[:3], "little")
        return 3 + (0, 1, word >> 3, word >> 3)[word >> 1 & 3]  # raw (its bytes are not loaded), RLE, compressed

    def _load(self) -> None:
        """Decode the frame's header or the block that is loaded."""
        block = bool(self._header)
        self._header = self._header or len(self._loaded)
        loaded, self._loaded = self._loaded, b""
        self._decode(loaded)
        if block:
            word = int.from_bytes(loaded[:3], "little")
            self._last_block = bool(word & 1)
            self._raw_left = word >> 3 if not word >> 1 & 3 else 0
            self._last = self._last_block and not self._raw_left

    def _decode(self, data: bytes) -> None:
        try:
            self.waiting += self._zstd.decompress(data, 1 << 18)
        except self._error as error:
            raise CorruptData(f"zstd: {error}") from error


def _decompress_as_was(stream: _DecompressionStream, src: list[bytes], room: DestinationWalk) -> tuple[int, int]:
    total = 0
    for data in src:
        at = 0
        while True:
            size = room.next()
            if not size:
                return ENOSPC, 0
            taken, out = stream.step(data[at:], size)
            at += taken
            room.write(out)
            room.done(len(out))
            total += len(out)
            if at == len(data):
                break
    return 0, total


def _decompress_as_fixed(stream: _DecompressionStream, src: list[bytes], room: DestinationWalk) -> tuple[int, int]:
    total = 0
    todo = list(src)
    while not stream.frame_done:
        size = room.next()
        if not size:
            return ENOSPC, 0
        data = todo[0] if todo else b""
        taken, out = stream.step(data, size)
        if not taken and not out and not todo:
            return EINVAL, 0
        if todo:
            todo[0] = data[taken:]
            if not todo[0]:
                todo.pop(0)
        room.write(out)
        room.done(len(out))
        total += len(out)
    return 0, total


assert PAGE_SIZE < 1 << 17  # a page is at most one block, which the streams above count on
