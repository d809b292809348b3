# SPDX-License-Identifier: GPL-2.0-or-later
"""Compresses a capture's files when the recording is over; their names always hold all of their content.

xz with a window longer than its fastest presets have: pages come again, and rings are much alike throughout.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import lzma
except ImportError:  # a Python that was built without it
    lzma = None  # type: ignore[assignment]

__all__ = ["SUFFIXES", "pack"]

#: Suffix of a packed file's name.
SUFFIXES = (".xz", ".gz")
_PIECE = 1 << 20
#: Bytes of the window; the compressor takes some eight times as much memory.
_WINDOW = 8 << 20
_GZIP = 31


def _compressor() -> tuple[str, Any]:
    if lzma is None:
        return SUFFIXES[1], zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": _WINDOW}]
    return SUFFIXES[0], lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=filters)


def pack(path: Path, stop: Callable[[], bool]) -> Path | None:
    """Replace a file by its packed form, whose name is the file's and a suffix more; returns its path.

    The file goes when the other is on disk whole.

    :param stop: asked again and again: True leaves the file as it is, and None is returned
    :raises OSError: when it cannot be written; the file is as it was then
    """
    suffix, compressor = _compressor()
    target = path.with_name(path.name + suffix)
    part = path.with_name(f".{target.name}.part")
    try:
        with path.open("rb") as source, open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            while piece := source.read(_PIECE):
                if stop():
                    part.unlink()
                    return None
                out.write(compressor.compress(piece))
            out.write(compressor.flush())
            out.flush()
            os.fsync(out.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    part.rename(target)
    path.unlink()
    return target
