# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels' page compressors, byte for byte, as zswap sees them through the crypto layer.

zswap hands the crypto layer one 4096-byte page and a 4096-byte destination; each module here answers
with the errno, the length and the bytes the kernel gives for that call.

    >>> from model.crypto import compressor_for
    >>> c = compressor_for("lz4", "mainline-7.3")
    >>> c.compress(bytes(4096))
    CompressResult(err=0, dlen=26, data=b'...')
"""

from ..page import PAGE_SIZE
from .base import (
    KERNEL_LINES,
    Compressor,
    CompressResult,
    CorruptData,
    InexactLibrary,
    ModelledCompressor,
    UnsupportedCompressor,
)
from .registry import compressor_for

__all__ = [
    "KERNEL_LINES",
    "PAGE_SIZE",
    "CompressResult",
    "Compressor",
    "CorruptData",
    "InexactLibrary",
    "ModelledCompressor",
    "UnsupportedCompressor",
    "compressor_for",
]
