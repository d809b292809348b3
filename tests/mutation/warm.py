# SPDX-License-Identifier: GPL-2.0-or-later
"""What every trial's process is forked with: libraries and compressors, which take longer to load than a replay."""

from __future__ import annotations

import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401

import traces  # noqa: F401
from model.crypto import compressor_for

for _name in ("lz4", "zstd"):
    # Loads compiled code from Numba's cache, or compiles it.
    compressor_for(_name, "mainline-7.3").self_check()
