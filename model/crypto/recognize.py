# SPDX-License-Identifier: GPL-2.0-or-later
"""What a compressor's output begins with: enough to show that another one wrote it.

A recorder keeps the first 8 bytes of every object.  Each format constrains them, for pages of 4096 bytes:

=========== ============================================================================================
zstd        its magic number (RFC 8878, 3.1.1)
lz4, lz4hc  a token with literals, for nothing precedes it, and a match that reaches back no farther than these
lzo-rle     the marker 17 and the version 1 of the bitstream (Documentation/staging/lzo.rst)
lzo         neither that marker nor a match: a run of at least 4 literals, 0 for a long one
842         5 bits: 8 bytes of data, or of zeros, for there is nothing yet to point at
deflate     the type of a block (RFC 1951, 3.2.3): dynamic, fixed, or stored with its length twice
deflate-iaa the same; the hardware's fixed mode writes one block of the fixed code, its last
=========== ============================================================================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["RECOGNISED", "begins_as", "fixed_block"]

_Heads = NDArray[np.uint64]
_Fits = NDArray[np.bool_]

_ZSTD_MAGIC = 0xFD2FB528
_LZO_MARKER = 17
#: OP_ZEROS and the template of 8 literal bytes of 842, 5 bits.
_842_DATA, _842_ZEROS = 0x00, 0x1C


def _byte(heads: _Heads, number: int) -> NDArray[np.int64]:
    return (heads >> np.uint64(8 * number) & np.uint64(0xFF)).astype(np.int64)


def _zstd(heads: _Heads) -> _Fits:
    fits: _Fits = heads & np.uint64(0xFFFFFFFF) == _ZSTD_MAGIC
    return fits


def _lz4(heads: _Heads) -> _Fits:
    literals = _byte(heads, 0) >> 4
    fits: _Fits = literals > 0
    for count in range(1, 6):  # farther behind, the offset is not among the 8 bytes
        offset = _byte(heads, 1 + count) | _byte(heads, 2 + count) << 8
        fits &= (literals != count) | ((offset >= 1) & (offset <= count))
    return fits


def _lzo(heads: _Heads) -> _Fits:
    fits: _Fits = _byte(heads, 0) < 16
    return fits


def _lzo_rle(heads: _Heads) -> _Fits:
    fits: _Fits = (_byte(heads, 0) == _LZO_MARKER) & (_byte(heads, 1) == 1)
    return fits


def _842(heads: _Heads) -> _Fits:
    first = _byte(heads, 0) >> 3
    fits: _Fits = (first == _842_DATA) | (first == _842_ZEROS)
    return fits


def _deflate(heads: _Heads) -> _Fits:
    kind = _byte(heads, 0) >> 1 & 3
    length, inverted = heads >> np.uint64(8) & np.uint64(0xFFFF), heads >> np.uint64(24) & np.uint64(0xFFFF)
    stored = (kind == 0) & (length ^ inverted == 0xFFFF)
    fits: _Fits = (kind == 1) | (kind == 2) | stored
    return fits


#: What each compressor's output begins with, the most specific first.
RECOGNISED = {"zstd": _zstd, "lzo-rle": _lzo_rle, "842": _842, "lz4": _lz4, "lz4hc": _lz4, "lzo": _lzo,
              "deflate": _deflate, "deflate-iaa": _deflate, "deflate-iaa-dynamic": _deflate}


def begins_as(name: str, heads: _Heads) -> _Fits:
    """Return of which objects compressor ``name`` may have written the first 8 bytes.

    :param name: one of :data:`RECOGNISED`
    :param heads: the first 8 bytes of compressed objects of at least 8 bytes, as little-endian numbers (n)
    """
    return RECOGNISED[name](heads)


def fixed_block(heads: _Heads) -> _Fits:
    """Return which objects begin with a block of the fixed code that is the last: what IAA's fixed mode writes."""
    fits: _Fits = _byte(heads, 0) & 7 == 3
    return fits
