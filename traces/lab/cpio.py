# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives in cpio's newc format, as the kernel unpacks its initramfs from.

The format is described in Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["CpioWriter", "Member", "members"]

_MAGIC: Final = b"070701"
_FIELDS: Final = 13
_HEAD: Final = len(_MAGIC) + 8 * _FIELDS
_TRAILER: Final = "TRAILER!!!"


class Member(NamedTuple):
    """A file of an archive; ``device`` is (major, minor) of a device node."""

    name: str
    mode: int
    data: bytes
    device: tuple[int, int]


class CpioWriter:
    """Builds an archive in memory.  Directories above a member come into being with it."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._names: set[str] = set()

    def _add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        # ino, mode, uid, gid, nlink, mtime, filesize, device of the file, device it is, name's length, checksum
        encoded = name.encode() + b"\0"
        numbers = (len(self._names) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        self._names.add(name)
        self._out += _MAGIC + "".join(f"{number:08x}" for number in numbers).encode() + encoded
        self._out += bytes(-len(self._out) % 4)
        self._out += data
        self._out += bytes(-len(self._out) % 4)

    def _new(self, path: str) -> str | None:
        """Return the member's name after making its directories, None when it is there already."""
        name = os.path.normpath(path).strip("/")
        if name in self._names:
            return None
        parent = os.path.dirname(name)
        if parent:
            self.directory(parent)
        return name

    def directory(self, path: str) -> None:
        """Add a directory."""
        name = self._new(path)
        if name is not None:
            self._add(name, stat.S_IFDIR | 0o755)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file; the first of a name counts."""
        name = self._new(path)
        if name is not None:
            self._add(name, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        name = self._new(path)
        if name is not None:
            self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        name = self._new(path)
        if name is not None:
            self._add(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def finish(self) -> bytes:
        """Return the archive.  Archives may follow each other in one initramfs."""
        self._add(_TRAILER, 0)
        return bytes(self._out)


def members(archive: bytes) -> Iterator[Member]:
    """Yield the members of the first archive in ``archive``.

    :raises ValueError: when it is no newc archive
    """
    at = 0
    while True:
        head = archive[at:at + _HEAD]
        if len(head) < _HEAD or not head.startswith(_MAGIC):
            raise ValueError(f"no newc header at byte {at}")
        numbers = [int(head[i:i + 8], 16) for i in range(len(_MAGIC), _HEAD, 8)]
        mode, size, major, minor, name_size = (numbers[i] for i in (1, 6, 9, 10, 11))
        name = archive[at + _HEAD:at + _HEAD + name_size - 1].decode()
        begin = at + _HEAD + name_size
        begin += -begin % 4
        if name == _TRAILER:
            return
        yield Member(name, mode, archive[begin:begin + size], (major, minor))
        at = begin + size
        at += -at % 4
