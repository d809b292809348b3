# SPDX-License-Identifier: GPL-2.0-or-later
"""`struct acomp_req`, its scatter-gather lists, and what an algorithm driver offers to crypto/acompress.c.

Lengths are the kernel's: unsigned 32 bits, so a negative errno written into one reads back as 2^32 minus
its number, and :func:`as_int32` is the cast that zswap of v12 and v14 makes.

Memory is Python buffers: an entry names a buffer, an offset in it and a length.  A folio is one buffer of
its pages in a row, so `acomp_request_set_src_folio` is one entry whose offset may be greater than a page.
No model can know what a kernel would do with a pointer of the wrong kind, or behind the end of a buffer:
it raises :class:`KernelFault`.  What would poll or wait for ever raises :class:`NeverCompletes`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from ..page import PAGE_SIZE

__all__ = [
    "AcompRequest",
    "DestinationWalk",
    "AcompAlg",
    "AcompFolio",
    "KernelFault",
    "Memory",
    "NeverCompletes",
    "Piece",
    "Scatterlist",
    "SgList",
    "as_int32",
    "as_u32",
    "gather",
    "pieces",
    "scatter",
    "set_src_folio",
    "sg_init_one",
    "sg_or_virt",
]

Memory: TypeAlias = bytes | bytearray | memoryview


class KernelFault(RuntimeError):
    """The kernel would follow a wrong pointer or leave a buffer here; the message says which and where."""


class NeverCompletes(RuntimeError):
    """The kernel would poll or wait for ever here."""


def as_u32(value: int) -> int:
    """`value` as an `unsigned int` holds it."""
    return value & 0xFFFF_FFFF


def as_int32(value: int) -> int:
    """An `unsigned int` cast to `int`: 0xffffffe4 is -28."""
    value &= 0xFFFF_FFFF
    return value - 0x1_0000_0000 if value & 0x8000_0000 else value


class Scatterlist:
    """One `struct scatterlist`: `length` bytes (unsigned 32 bits) of `buffer` from `offset` on."""

    __slots__ = ("_length", "buffer", "offset")

    def __init__(self, buffer: Memory, offset: int = 0, length: int | None = None) -> None:
        self.buffer = buffer
        self.offset = offset
        self._length = as_u32(len(buffer) - offset if length is None else length)

    @property
    def length(self) -> int:
        """`sg->length`, as the kernel's unsigned int."""
        return self._length

    @length.setter
    def length(self, value: int) -> None:
        self._length = as_u32(value)

    def read(self, size: int) -> bytes:
        """`size` bytes from the entry's start on, whatever its length says; KernelFault behind the buffer."""
        end = self.offset + size
        if end > len(self.buffer):
            raise KernelFault(f"{size} bytes read at offset {self.offset} of a buffer of {len(self.buffer)}")
        return bytes(self.buffer[self.offset : end])

    def write(self, data: bytes, at: int = 0) -> None:
        """Put `data` `at` bytes behind the entry's start; KernelFault behind the buffer or if it is `bytes`."""
        start = self.offset + at
        if start + len(data) > len(self.buffer):
            raise KernelFault(f"{len(data)} bytes written at offset {start} of a buffer of {len(self.buffer)}")
        if isinstance(self.buffer, bytes):
            raise KernelFault("a destination must be a bytearray: this one is read-only")
        self.buffer[start : start + len(data)] = data

    def __repr__(self) -> str:
        return f"SgEntry(<{len(self.buffer)} bytes>, offset={self.offset}, length={as_int32(self.length)})"


SgList: TypeAlias = list[Scatterlist]


class AcompFolio(NamedTuple):
    """A folio given to the crypto layer as such, as Linux 6.15's acompress.c took them; see `acomp_virt_to_sg`."""

    buffer: Memory
    offset: int = 0  # bytes into the folio


class Piece(NamedTuple):
    """What one step of `acomp_walk_next_src` or `_dst` maps: part of one entry."""

    entry: Scatterlist
    at: int  # bytes behind the entry's start
    size: int

    def read(self) -> bytes:
        """The piece's bytes."""
        return self.entry.read(self.at + self.size)[self.at :]


def sg_init_one(buffer: Memory, length: int | None = None, offset: int = 0) -> SgList:
    """A list of one entry, as `sg_init_one` makes it."""
    return [Scatterlist(buffer, offset, length)]


def set_src_folio(folio: Memory, offset: int, length: int) -> SgList:
    """What `acomp_request_set_src_folio` (6.18 on) makes of a folio: one entry, its offset as given."""
    return [Scatterlist(folio, offset, length)]


def pieces(sgl: SgList, total: int) -> Iterator[Piece]:
    """The pieces a walk over `total` bytes maps, one per entry (no highmem: an entry is mapped whole).

    KernelFault if the list holds fewer bytes: the kernel would walk off its end.
    """
    left = total
    for entry in sgl:
        if not left:
            return
        size = min(entry.length, left)
        if size:
            yield Piece(entry, 0, size)
        left -= size
    if left:
        raise KernelFault(f"a walk over {total} bytes leaves a list of {total - left}")


def gather(sgl: SgList, total: int) -> bytes:
    """`memcpy_from_sglist`: the first `total` bytes of a list in a row; KernelFault if it has fewer."""
    return b"".join(piece.read() for piece in pieces(sgl, total))


def scatter(sgl: SgList, data: bytes) -> None:
    """`memcpy_to_sglist`: spread `data` over a list; KernelFault if it has no room for it."""
    done = 0
    for piece in pieces(sgl, len(data)):
        piece.entry.write(data[done : done + piece.size], piece.at)
        done += piece.size


def sg_or_virt(what: SgList | Memory | AcompFolio, size: int) -> SgList:
    """What `acomp_walk_virt` walks: the list, or a virtual address as one piece of `size` bytes."""
    if isinstance(what, list):
        return what
    if isinstance(what, AcompFolio):
        raise KernelFault("a walk follows a folio pointer as an address")
    return [Scatterlist(what, 0, size)]


class DestinationWalk:
    """The destination's walk: `acomp_walk_next_dst` and `acomp_walk_done_dst`."""

    def __init__(self, sgl: SgList, dlen: int) -> None:
        self._walk: Iterator[Piece] = iter(pieces(sgl, dlen))
        self._piece: Piece | None = None

    def next(self) -> int:
        """How many bytes can be written in a row; 0 at the end."""
        if self._piece is None or not self._piece.size:
            self._piece = next(self._walk, None)
        return self._piece.size if self._piece else 0

    def write(self, data: bytes, at: int = 0) -> None:
        """Write `at` bytes behind the walk's place, without moving on."""
        if data and self._piece:
            self._piece.entry.write(data, self._piece.at + at)

    def done(self, used: int) -> None:
        """Move on by `used` bytes."""
        if self._piece:
            self._piece = Piece(self._piece.entry, self._piece.at + used, self._piece.size - used)


class AcompRequest:
    """`struct acomp_req` as its user sets it up, and as the call leaves it.

    `src`, `dst`: a scatter-gather list, or a plain buffer for a virtual address (`acomp_request_set_src_dma`
    and friends), or a :class:`AcompFolio`.  `slen`: bytes to read.  `dlen`: bytes of room, afterwards the bytes
    produced or, as the function says, something else.  `unit_size`: v12's and v14's, in bytes; 0 without.
    `page` and `cpu` are the caller's: a number by which a fault plan finds the (first) page, and the CPU
    the call runs on.
    """

    def __init__(
        self,
        src: SgList | Memory | AcompFolio,
        dst: SgList | Memory | AcompFolio,
        slen: int = PAGE_SIZE,
        dlen: int = PAGE_SIZE,
        unit_size: int = 0,
        *,
        page: int | None = None,
        cpu: int = 0,
        nondma: bool = False,
    ) -> None:
        self.src = src
        self.dst = dst
        self._slen = as_u32(slen)
        self._dlen = as_u32(dlen)
        self.unit_size = unit_size
        self.page = page
        self.cpu = cpu
        self.nondma = nondma  # CRYPTO_ACOMP_REQ_SRC/DST_NONDMA: a virtual address no device can reach
        self.complete: Callable[[int], None] | None = None  # req->base.complete
        self.chain_err = 0  # v8: req->base.err of a chained request, acomp_request_err()

    @property
    def slen(self) -> int:
        """`req->slen`, an unsigned int: a negative number written into it is not below 0 when read."""
        return self._slen

    @slen.setter
    def slen(self, value: int) -> None:
        self._slen = as_u32(value)

    @property
    def dlen(self) -> int:
        """`req->dlen`, an unsigned int."""
        return self._dlen

    @dlen.setter
    def dlen(self, value: int) -> None:
        self._dlen = as_u32(value)

    @property
    def issg(self) -> bool:
        """`acomp_request_issg`: source and destination are both lists."""
        return isinstance(self.src, list) and isinstance(self.dst, list)

    def src_sg(self) -> SgList:
        """The source as the list a driver takes; KernelFault if it is anything else."""
        return _list_of(self.src, "source")

    def dst_sg(self) -> SgList:
        """The destination as the list a driver takes; KernelFault if it is anything else."""
        return _list_of(self.dst, "destination")


def _list_of(what: SgList | Memory | AcompFolio, name: str) -> SgList:
    if isinstance(what, list):
        return what
    kind = "a folio pointer" if isinstance(what, AcompFolio) else "a virtual address"
    raise KernelFault(f"the {name} is {kind}, and the driver follows it as a scatterlist")


class AcompAlg(ABC):
    """One `struct acomp_alg`: what `crypto_acomp_compress` calls, and the flags it looks at."""

    name: str
    """cra_driver_name, such as `deflate-iaa` or `zstd-generic`."""

    is_async: bool = False
    """CRYPTO_ALG_ASYNC."""

    req_virt: bool = True
    """CRYPTO_ALG_REQ_VIRT: takes virtual addresses itself.  Every software algorithm of 6.18 on does."""

    req_seg: bool = False
    """CRYPTO_ALG_REQ_SEG (v14 14/26): breaks a request into units of `unit_size`."""

    batch_size: int = 1
    """acomp_alg.batch_size (v12 19/23, v14 22/26), v8's get_batch_size()."""

    @abstractmethod
    def compress(self, request: AcompRequest) -> int:
        """0, an errno, or -EINPROGRESS if `request.complete` is or will be called."""

    @abstractmethod
    def decompress(self, request: AcompRequest) -> int:
        """The same for decompression."""

    def interrupt(self) -> None:  # noqa: B027 (nothing to do for a driver without interrupts)
        """Let every completion interrupt come that is still under way."""

    def fallback(self) -> AcompAlg:
        """The synchronous software transform `crypto_acomp_fb` gives an asynchronous driver."""
        raise KernelFault(f"{self.name} has no software fallback")

    def fail_lengths(self, request: AcompRequest, err: int, *, comp: bool) -> None:  # noqa: B027 (few write them)
        """Write what the driver writes for a request whose every job fails with `err`."""
