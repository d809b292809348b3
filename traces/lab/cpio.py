# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives in cpio's newc format, as the kernel unpacks its initramfs from.

The format is described in Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

__all__ = ["CpioWriter", "CpioMember", "directories", "members"]

_MAGIC: Final = b"070701"
_FIELDS: Final = 13
_HEAD: Final = len(_MAGIC) + 8 * _FIELDS
_TRAILER: Final = "TRAILER!!!"


class CpioMember(NamedTuple):
    """A file of an archive; ``device`` is (major, minor) of a device node, ``owner`` (uid, gid)."""

    name: str
    mode: int
    data: bytes
    device: tuple[int, int]
    owner: tuple[int, int] = (0, 0)


class CpioWriter:
    """Builds an archive; adds the directories above a member with it.

    :param out: file to write it to; by default it is kept in memory, for :meth:`finish` to return
    :param there: directories of an earlier archive, which stay as they are
    """

    def __init__(self, out: BinaryIO | None = None, there: Collection[str] = ()) -> None:
        self._out = io.BytesIO() if out is None else out
        self._there = there
        self._names: set[str] = set()

    def _add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0),
             owner: tuple[int, int] = (0, 0), mtime: int = 0) -> None:
        # ino, mode, uid, gid, nlink, mtime, filesize, device of the file, device it is, name's length, checksum
        encoded = name.encode() + b"\0"
        numbers = (len(self._names) + 1, mode, *owner, 1, mtime, len(data), 0, 0, *device, len(encoded), 0)
        self._names.add(name)
        head = _MAGIC + "".join(f"{number:08x}" for number in numbers).encode() + encoded
        # Every part is padded to whole words, so each begins at one.
        self._out.write(head + bytes(-len(head) % 4))
        self._out.write(data)
        self._out.write(bytes(-len(data) % 4))

    def __contains__(self, path: str) -> bool:
        return os.path.normpath(path).strip("/") in self._names

    def _new(self, path: str) -> str | None:
        """Return the member's name after making its directories, None when it is there already."""
        name = os.path.normpath(path).strip("/")
        if name in self._names:
            return None
        parent = os.path.dirname(name)
        if parent:
            self.directory(parent)
        return name

    def directory(self, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
        """Add a directory; ``owner`` is (uid, gid)."""
        name = self._new(path)
        if name is not None and name not in self._there:
            self._add(name, stat.S_IFDIR | mode, owner=owner)

    def file(self, path: str, data: bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0), mtime: int = 0) -> None:
        """Add a regular file; the first of a name counts."""
        name = self._new(path)
        if name is not None:
            self._add(name, stat.S_IFREG | mode, data, owner=owner, mtime=mtime)

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
        """End the archive and return it, nothing where it went to a file.  Archives may follow each other in one
        initramfs."""
        self._add(_TRAILER, 0)
        return self._out.getvalue() if isinstance(self._out, io.BytesIO) else b""


def members(archive: bytes) -> Iterator[CpioMember]:
    """Yield the members of the first archive in ``archive``.

    :raises ValueError: when it is not a newc archive
    """
    at = 0
    while True:
        head = archive[at:at + _HEAD]
        if len(head) < _HEAD or not head.startswith(_MAGIC):
            raise ValueError(f"no newc header at byte {at}")
        numbers = [int(head[i:i + 8], 16) for i in range(len(_MAGIC), _HEAD, 8)]
        mode, uid, gid, size, major, minor, name_size = (numbers[i] for i in (1, 2, 3, 6, 9, 10, 11))
        name = archive[at + _HEAD:at + _HEAD + name_size - 1].decode()
        begin = at + _HEAD + name_size
        begin += -begin % 4
        if name == _TRAILER:
            return
        yield CpioMember(name, mode, archive[begin:begin + size], (major, minor), (uid, gid))
        at = begin + size
        at += -at % 4


def directories(path: Path) -> set[str]:
    """Return the names of the directories in an archive, without reading the contents of its files.

    :raises ValueError: when it is not a newc archive
    """
    found: set[str] = set()
    with path.open("rb") as archive:
        while True:
            at, head = archive.tell(), archive.read(_HEAD)
            if len(head) < _HEAD or not head.startswith(_MAGIC):
                raise ValueError(f"no newc header at byte {at}")
            numbers = [int(head[i:i + 8], 16) for i in range(len(_MAGIC), _HEAD, 8)]
            name = archive.read(numbers[11])[:-1].decode()
            if name == _TRAILER:
                return found
            if stat.S_ISDIR(numbers[1]):
                found.add(name)
            begin = archive.tell()
            begin += -begin % 4 + numbers[6]
            archive.seek(begin + -begin % 4)
