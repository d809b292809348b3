# SPDX-License-Identifier: GPL-2.0-or-later
"""Which compressors there are, and the class that computes each: to add one is to add its module and a row here."""

from __future__ import annotations

import importlib
from typing import Final, NamedTuple

from .base import KERNEL_LINES, Compressor, InexactLibrary, UnsupportedCompressor

__all__ = ["COMPRESSORS", "Entry", "compressor_for"]


class Entry(NamedTuple):
    """``module`` of this package and the class ``kind`` in it, "" where there is no implementation yet.

    ``compiled``: by Numba.
    """

    module: str
    kind: str
    compiled: bool = False


#: Every name that zswap's compressor parameter accepts in some kernel -> what computes it here.
COMPRESSORS: Final[dict[str, Entry]] = {
    "zstd": Entry("zstd", "Zstd"),
    "lz4": Entry("lz4", "Lz4", compiled=True),
    "lz4hc": Entry("lz4hc", "Lz4hc", compiled=True),
    "lzo": Entry("lzo", "Lzo", compiled=True),
    "lzo-rle": Entry("lzo", "LzoRle", compiled=True),
    "deflate": Entry("deflate", "Deflate"),
    "842": Entry("sw842", "Sw842", compiled=True),
    "deflate-iaa": Entry("deflate_iaa", "DeflateIaa", compiled=True),
    "deflate-iaa-dynamic": Entry("", ""),
}


def compressor_for(name: str, kernel_line: str) -> Compressor:
    """Return the compressor `name` as `kernel_line` (one of `KERNEL_LINES`) computes it.

    UnsupportedCompressor if there is none; InexactLibrary if its library is missing or not exact here.
    """
    if kernel_line not in KERNEL_LINES:
        raise UnsupportedCompressor(
            f"unknown kernel line {kernel_line!r}: known are {', '.join(KERNEL_LINES)}"
        )
    entry = COMPRESSORS.get(name)
    if entry is None:
        here = [each for each, entry in COMPRESSORS.items() if entry.module]
        raise UnsupportedCompressor(
            f"no kernel compressor is called {name!r}: zreplay has {', '.join(here[:-1])} and {here[-1]}"
        )
    if not entry.module:
        raise UnsupportedCompressor(
            f"compressor {name!r} exists in the kernel, but zreplay has no implementation of it yet"
        )
    # Imported on demand: a zstd replay need not wait for Numba, nor fail where it is missing.
    try:
        module = importlib.import_module(f".{entry.module}", __package__)
    except ImportError as error:
        if not entry.compiled:
            raise
        raise InexactLibrary(
            f"{name} is compiled by the package numba, which does not load: {error}"
        ) from error
    kind: type[Compressor] = getattr(module, entry.kind)
    return kind(kernel_line)  # type: ignore[call-arg]
