# SPDX-License-Identifier: GPL-2.0-or-later
"""What computes the compressors written here, without compiling or loading anything: ``zreplay --version`` lists it.

These words are part of an ident: change one whenever an output of its compressor could change.
"""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["BOUNDS", "LIBRARIES"]

#: The bounds of deflate-iaa's lengths, and what estimates them.
BOUNDS: Final = f"bounds r1, stand-in zlib {zlib.ZLIB_RUNTIME_VERSION}"
#: By compressor, of those that Numba compiles.
LIBRARIES: Final = {
    "lz4": "own 1.7.3-rules r1", "lz4hc": "own 1.7.3-rules r1", "lzo": "own LZO1X-1-rules r1",
    "lzo-rle": "own LZO1X-1-rules r1", "842": "own sw842-rules r1", "deflate-iaa": BOUNDS}
