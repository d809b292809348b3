# SPDX-License-Identifier: GPL-2.0-or-later
"""Each compressor's speed compared with C libraries for the same format, on the same pages, in one run.

The libraries are those that Python can have as a wheel (``pip install zreplay[bench]``), and python-lzo where it is.
They give other bytes than the kernel's code, which is why the model has its own: this says what that costs.
"""

from __future__ import annotations

import importlib
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from model.crypto import compressor_for
from model.page import PAGE_SIZE

__all__ = ["NAMES", "Speed", "libraries", "speed"]

#: Those that the model has, in the order of the table.
NAMES: Final = ("zstd", "lz4", "lz4hc", "lzo", "lzo-rle", "deflate", "842")
_RUNS: Final = 5

_Compress = Callable[[bytes], Any]


class Speed(NamedTuple):
    """Pages a second, medians on one thread; ``library`` is the fastest there is, empty where there is none."""

    name: str
    own: float
    library: str
    theirs: float
    spread: str


def libraries(name: str) -> Iterator[tuple[str, _Compress]]:
    """Yield (name with version, function) of the libraries here that compress to a compressor's format.

    ``lzo-rle`` has a format of its own, which no library but the kernel's writes; it is compared with lzo's.
    """
    if name == "zstd":
        zstandard = importlib.import_module("zstandard")
        yield f"zstandard {zstandard.__version__} level 3", zstandard.ZstdCompressor(level=3).compress
    elif name in ("lz4", "lz4hc"):
        block = _module("lz4.block")
        if block is not None:
            version = importlib.import_module("lz4").__version__
            mode: dict[str, Any] = {"mode": "fast"} if name == "lz4" else {"mode": "high_compression", "compression": 9}
            yield f"lz4 {version} {mode['mode']}", lambda page: block.compress(page, store_size=False, **mode)
    elif name in ("lzo", "lzo-rle"):
        lzo, lzokay = _module("lzo"), _module("lzallright")
        if lzo is not None:
            yield "python-lzo (liblzo2)", lambda page: lzo.compress(page, 1, False)
        if lzokay is not None:
            yield "lzallright (lzokay)", lzokay.LZOCompressor().compress
    elif name == "deflate":
        yield f"zlib {zlib.ZLIB_RUNTIME_VERSION} level 6", lambda page: zlib.compress(page, 6, -15)
        isal = _module("isal.isal_zlib")
        if isal is not None:
            yield "isal level 1", lambda page: isal.compress(page, 1, -15)
        deflate = _module("deflate")
        if deflate is not None:
            yield "libdeflate level 6", lambda page: deflate.deflate_compress(page, 6)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def speed(name: str, pages: list[bytes], runs: int = _RUNS) -> Speed:
    """Measure a compressor of Linux 7.3 and the libraries for its format, in turns, on one thread.

    :param pages: of 4096 bytes each
    """
    own = compressor_for(name, "mainline-7.3")
    together = np.frombuffer(b"".join(pages), np.uint8).reshape(-1, PAGE_SIZE)
    others = list(libraries(name))
    # Once for nothing: compiled code is loaded, tables are made.
    own.lengths(together[:64])
    for _, compress in others:
        compress(pages[0])
    mine: list[float] = []
    theirs: dict[str, list[float]] = {label: [] for label, _ in others}
    for _ in range(runs):
        began = time.perf_counter()
        own.lengths(together)
        mine.append(len(pages) / (time.perf_counter() - began))
        for label, compress in others:
            began = time.perf_counter()
            for page in pages:
                compress(page)
            theirs[label].append(len(pages) / (time.perf_counter() - began))
    fastest = max(theirs, key=lambda label: statistics.median(theirs[label]), default="")
    return Speed(name, statistics.median(mine), fastest, statistics.median(theirs[fastest]) if fastest else 0.0,
                 f"{min(mine):,.0f} to {max(mine):,.0f} of {runs}")
