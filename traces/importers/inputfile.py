# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of an input file, decompressed: its head, its chunks, all of it, its JSON.

Reading zstd, gzip and xz streams.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from traces import jsontext
from traces.errors import BadInput
from traces.files import Reopened, open_input
from traces.importers.packed import DAMAGE, MAGIC_BYTES, unpacked
from traces.parquetbounds import most_of
from traces.record.oserrors import next_step

__all__ = ["chunks", "open_stream", "read_all", "read_head", "read_json", "within"]

_CHUNK: Final = 4 << 20
_BUFFER: Final = 1 << 16
#: Keys of JSON files that describe a run; other JSON files are passed over.
_OURS: Final = (b'"zswap_debugfs"', b'"zreplay_capture"', b'"zswap_list_lru"')
#: Side files (counters, indices, tables) beyond this size are not believed.
_MAX_SIDE: Final = 1 << 30


def open_stream(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed when its content is zstd, gzip or xz.

    :raises BadInput: when it cannot be opened, or is not a regular file
    """
    try:
        with open_input(path, follow=True) as raw:
            head = raw.read(MAGIC_BYTES)
        # Not held open: many are read at the same time.
        return unpacked(io.BufferedReader(Reopened(path), _BUFFER), head)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                       next_step(problem.errno, "check the path")) from None


def _read(stream: BinaryIO, size: int) -> tuple[bytes, Exception | None]:
    """Read ``size`` bytes, or up to the end, or up to damage, which is then returned with the bytes.

    A plain ``read(size)`` throws away what it has decompressed when it comes to damage.
    """
    parts: list[bytes] = []
    left = size
    while left:
        try:
            data = stream.read1(left)  # type: ignore[attr-defined]
        except DAMAGE as problem:
            return b"".join(parts), problem
        if not data:
            break
        parts.append(data)
        left -= len(data)
    return b"".join(parts), None


def read_head(path: Path, size: int) -> bytes:
    """Return the first (decompressed) bytes of a file, fewer where it ends or is damaged before ``size``.

    :raises BadInput: when it cannot be opened
    """
    with open_stream(path) as stream:
        return _read(stream, size)[0]


def chunks(path: Path, size: int = _CHUNK) -> Iterator[bytes]:
    """Yield a file's (decompressed) bytes in chunks of at most ``size``.

    :raises BadInput: when the compressed data is damaged; what came before it has been yielded
    """
    with open_stream(path) as stream:
        while True:
            data, damage = _read(stream, size)
            if data:
                yield data
            if damage is not None:
                raise BadInput(path, "", f"the compressed data is damaged ({damage})", "copy the file again")
            if not data:
                return


def read_all(path: Path, limit: int = _MAX_SIDE) -> bytes:
    """Return a file's whole (decompressed) content of at most ``limit`` bytes.

    :raises BadInput: when it is longer or damaged
    """
    out = io.BytesIO()
    for data in within(path):
        out.write(data)
        if out.tell() > limit:
            raise BadInput(path, "", f"is longer than {limit} bytes", "give a smaller file")
    return out.getvalue()


def within(path: Path) -> Iterator[bytes]:
    """Yield a file's (decompressed) bytes for a caller that keeps them all in memory.

    :raises BadInput: as :func:`chunks`, and where a small file unpacks to more than :func:`most_of` its size
    """
    most, seen = most_of(path.stat().st_size), 0
    for data in chunks(path):
        seen += len(data)
        if seen > most:
            raise BadInput(path, "", f"{path.stat().st_size:,} bytes unpack to more than {most >> 20:,} MiB",
                           "decompress it yourself if that is right, and import what comes out")
        yield data


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a file's JSON object, or None when it is not one."""
    try:
        data = read_all(path, jsontext.MOST_BYTES)
        value = jsontext.parse(data)
    except jsontext.OutOfBounds as problem:
        if any(key in data for key in _OURS):
            raise BadInput(path, "", f"cannot be read: {problem}", "copy the file again, or take it again") from None
        return None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
