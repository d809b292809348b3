# SPDX-License-Identifier: GPL-2.0-or-later
"""What the compressors written here share: ordinary Python (`.py_func`) compiled by Numba."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..errno import EINVAL
from ..page import PAGE_SIZE
from . import knownanswers
from .base import Buffer, Compressor, CompressResult, CorruptData, Lengths, check_page, check_pages, in_threads

Bytes = NDArray[np.uint8]
at = np.uintp  # an index of this type spares the compiled code a test for counting from the end
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile with Numba, keeping the function's type; it runs without the interpreter lock."""
    try:
        return cast(F, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # nowhere to keep the compiled code: a second or two more in every process
        return cast(F, njit(nogil=True)(function))


@compiled
def word(src: Bytes, i: int) -> int:
    """The four bytes from `i` on, little endian."""
    low = np.int64(src[at(i)]) | np.int64(src[at(i + 1)]) << 8
    return int(low | np.int64(src[at(i + 2)]) << 16 | np.int64(src[at(i + 3)]) << 24)


@compiled
def first_bytes(dst: Bytes, length: int) -> np.uint64:
    """The first 8 of `length` bytes as a little-endian number, filled up with zeros."""
    first = np.uint64(0)
    for k in range(min(length, 8)):
        first |= np.uint64(dst[at(k)]) << np.uint64(8 * k)
    return first


def read_only(data: Buffer) -> Bytes:
    # Numba compiles once for writable and once for read-only sources: always offer the same kind.
    return np.frombuffer(memoryview(data).toreadonly(), np.uint8)


Scratch = TypeVar("Scratch")


class CompiledCompressor(Compressor, Generic[Scratch]):
    """A compressor of this package's own code: compiled functions to compress one page, many pages, and to decompress.

    Every thread has its own `Scratch`, the memory that the function works in.
    """

    err: ClassVar[int] = EINVAL
    """What the kernel answers when the result needs more than 4096 bytes."""

    err_dlen: ClassVar[int] = PAGE_SIZE
    """req->dlen after that; most of the kernel's functions set it on success only, so it stays as offered."""

    def __init__(self) -> None:
        self._local = threading.local()

    @abstractmethod
    def _make_scratch(self) -> Scratch:
        """Return memory for one thread."""

    @abstractmethod
    def _block(self, src: Bytes, scratch: Scratch) -> tuple[int, Bytes]:
        """Compress `src`; returns the length, 0 if it does not fit, and where the result begins."""

    @abstractmethod
    def _blocks(
        self, pages: NDArray[np.uint8], scratch: Scratch, dlens: NDArray[np.int32], head: NDArray[np.uint64]
    ) -> None:
        """Compress many pages; fills in their lengths, 0 for what does not fit, and their first bytes."""

    @abstractmethod
    def _back(self, src: Bytes, dst: Bytes) -> int:
        """Decompress `src` into `dst`; returns the length, negative for what is not a block."""

    def _damage(self, length: int) -> str:
        """Return what is wrong with data for which `_back` returned a negative number."""
        return f"{self.name}: not a valid block"

    def _scratch(self) -> Scratch:
        memory: Scratch | None = getattr(self._local, "memory", None)
        if memory is None:
            memory = self._local.memory = self._make_scratch()
        return memory

    def compress(self, page: Buffer) -> CompressResult:
        check_page(page)
        length, dst = self._block(read_only(page), self._scratch())
        if length == 0:
            return CompressResult(self.err, self.err_dlen, b"")
        return CompressResult(0, length, dst[:length].tobytes())

    def lengths(self, pages: NDArray[np.uint8], threads: int = 1) -> Lengths:
        pages = check_pages(pages, threads).view()
        pages.flags.writeable = False  # see read_only
        n = len(pages)
        dlens = np.empty(n, np.int32)
        head = np.empty(n, np.uint64)

        def work(lo: int, hi: int) -> None:
            self._blocks(pages[lo:hi], self._scratch(), dlens[lo:hi], head[lo:hi])

        in_threads(work, n, threads)
        errs = np.where(dlens == 0, np.int32(self.err), np.int32(0))
        dlens[dlens == 0] = self.err_dlen
        return errs, dlens, head

    def decompress(self, data: Buffer, size: int = PAGE_SIZE) -> bytes:
        dst = np.empty(size, np.uint8)
        length = self._back(read_only(data), dst)
        if length != size:
            raise CorruptData(self._damage(length) if length < 0 else f"{self.name}: {length} bytes instead of {size}")
        return dst.tobytes()

    def self_check(self) -> list[str]:
        return knownanswers.problems(self, self.name)
