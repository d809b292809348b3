# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and sums of a capture's files, written when all have come to their end: a damaged copy is found by them.

They are made against accidents: a bit that flipped on its way, a copy that ended early, an editor that changed line
ends.  A capture without them, of a recorder that was killed, is read as far as its flushes say.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Container
from pathlib import Path
from typing import Any

__all__ = ["NAME", "sum_of", "sums"]

#: Name of the file that holds them, under ``files``: name in the capture -> [bytes, CRC-32].
NAME = "sums.json"
_PIECE = 1 << 20


def sum_of(path: Path) -> list[int]:
    """Return the size and the CRC-32 of a regular file.

    :raises OSError: when it cannot be read
    """
    size = total = 0
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            total = zlib.crc32(piece, total)
    return [size, total]


def sums(directory: Path, growing: Container[str] = ()) -> dict[str, Any]:
    """Return what :data:`NAME` is to hold of a capture: all its regular files but itself and hidden ones.

    :param growing: names of files that a process still writes: they are left out
    :raises OSError: when one cannot be read
    """
    files = {}
    for place, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and name != NAME and name not in growing and stat.S_ISREG(path.lstat().st_mode):
                files[str(path.relative_to(directory))] = sum_of(path)
    return {"files": files}
