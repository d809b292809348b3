# SPDX-License-Identifier: GPL-2.0-or-later
"""What every page compressor offers."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from ..lines import LINES
from ..page import PAGE_SIZE

if TYPE_CHECKING:
    # Arrays are for many pages: what asks for one page, or for a name, does without.
    import numpy as np
    from numpy.typing import NDArray

# Oldest first.
KERNEL_LINES = tuple(dict.fromkeys(line.kernel_line for line in LINES.values()))

Buffer: TypeAlias = bytes | bytearray | memoryview
PageFunction: TypeAlias = Callable[[Buffer], bytes]
Lengths: TypeAlias = "tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint64]]"


class CompressResult(NamedTuple):
    """One `crypto_acomp_compress` call on one page, as the caller finds it in the request afterwards."""

    err: int  # 0, or a negative errno
    dlen: int  # req->dlen, bytes; after an error, whatever the kernel line leaves there
    data: bytes  # the dlen compressed bytes; empty after an error


class UnsupportedCompressor(ValueError):
    """No exact implementation here for this compressor name or kernel line; the message says why."""


class InexactLibrary(UnsupportedCompressor):
    """The compressor is known, but no library on this machine computes it as the kernel does."""


class CorruptData(ValueError):
    """`decompress` was given bytes that do not decompress to a page of the size asked for."""


class Compressor(ABC):
    """One compressor of one kernel line, for 4096-byte pages and a 4096-byte destination.

    An object may be shared between threads. It is cheap to build and is not meant to be pickled:
    another process asks `compressor_for` again.
    """

    name: ClassVar[str]
    """The kernel's name, as written to /sys/module/zswap/parameters/compressor."""

    ident: str
    """Algorithm, library, library version and every parameter: equal idents give equal results."""

    grade: Literal["exact", "modelled"] = "exact"

    @abstractmethod
    def compress(self, page: Buffer) -> CompressResult:
        """Compress one page of `PAGE_SIZE` bytes; ValueError for any other size."""

    @abstractmethod
    def decompress(self, data: Buffer, size: int = PAGE_SIZE) -> bytes:
        """Return the `size` bytes that `data` stands for; CorruptData unless it is exactly that many."""

    @abstractmethod
    def lengths(self, pages: NDArray[np.uint8], threads: int = 1) -> Lengths:
        """Compress many pages and keep what a replay compares.

        `pages` is uint8 of shape (n, 4096). Returns `(errs, dlens, head)`, each of shape (n,): int32
        errno, int32 dlen in bytes, and the first 8 compressed bytes as a little-endian uint64 (zero
        after an error, zero-padded if the data is shorter). The interpreter lock is released while a
        page is compressed, so `threads` run side by side. ValueError for another shape or type.
        """

    @abstractmethod
    def self_check(self) -> list[str]:
        """Compress a few generated pages and compare with known answers; one sentence per problem."""


class ModelledCompressor(Compressor):
    """A compressor that no software computes: `compress` estimates, and only `bounds` is certain."""

    grade = "modelled"

    @abstractmethod
    def bounds(self, pages: NDArray[np.uint8], threads: int = 1) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The least and the most bytes that a page's result can have, were there room for it.

        `pages` is uint8 of shape (n, 4096); returns two int32 of shape (n,). ValueError for another shape or type.
        """


class LibraryCompressor(Compressor):
    """A compressor computed by a C library that returns the whole output, however long.

    The library gets more room than the kernel's gets; the members below say what the kernel answers
    when 4096 bytes are not enough.
    """

    _err: int  # negative errno when the output does not fit
    _err_dlen: int  # req->dlen after that error, bytes
    _max_len: int  # longest output that fits, bytes

    def __init__(self) -> None:
        self._local = threading.local()

    @abstractmethod
    def _page_function(self) -> PageFunction:
        """A function from page to compressed bytes for the use of one thread: contexts are not shared."""

    def _own_function(self) -> PageFunction:
        function: PageFunction | None = getattr(self._local, "function", None)
        if function is None:
            function = self._local.function = self._page_function()
        return function

    def compress(self, page: Buffer) -> CompressResult:
        check_page(page)
        data = self._own_function()(page)
        if len(data) > self._max_len:
            return CompressResult(self._err, self._err_dlen, b"")
        return CompressResult(0, len(data), data)

    def lengths(self, pages: NDArray[np.uint8], threads: int = 1) -> Lengths:
        import numpy as np

        pages = check_pages(pages, threads)
        n = len(pages)
        errs = np.zeros(n, np.int32)
        dlens = np.zeros(n, np.int32)
        head = np.zeros(n, np.uint64)
        flat = pages.reshape(-1).data

        def work(lo: int, hi: int) -> None:
            compress = self._own_function()
            max_len = self._max_len
            for i in range(lo, hi):
                data = compress(flat[i * PAGE_SIZE : (i + 1) * PAGE_SIZE])
                if len(data) > max_len:
                    errs[i] = self._err
                    dlens[i] = self._err_dlen
                else:
                    dlens[i] = len(data)
                    head[i] = int.from_bytes(data[:8], "little")

        in_threads(work, n, threads)
        return errs, dlens, head


def check_page(page: Buffer) -> None:
    """ValueError unless `page` is `PAGE_SIZE` bytes."""
    size = page.nbytes if isinstance(page, memoryview) else len(page)
    if size != PAGE_SIZE:
        raise ValueError(f"a page is {PAGE_SIZE} bytes, not {size}")


def check_pages(pages: NDArray[np.uint8], threads: int) -> NDArray[np.uint8]:
    """Return `pages` in C order; ValueError unless it is uint8 of shape (n, `PAGE_SIZE`)."""
    import numpy as np

    if pages.dtype != np.uint8 or pages.ndim != 2 or pages.shape[1] != PAGE_SIZE:
        raise ValueError(
            f"pages must be uint8 of shape (n, {PAGE_SIZE}), not {pages.dtype} of shape {pages.shape}"
        )
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    return np.ascontiguousarray(pages)


def in_threads(work: Callable[[int, int], None], n: int, threads: int) -> None:
    """Call `work(lo, hi)` over `range(n)` cut into `threads` runs, and wait; the first error is raised."""
    threads = min(threads, n)
    if threads <= 1:
        work(0, n)
        return
    cuts = [n * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, cuts[:-1], cuts[1:]):
            pass
