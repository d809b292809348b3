# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens files of an input, all of them in this one way.

Recordings and captures come from others.  A FIFO among their files would stop a reader for ever, a device would never
end, and a symbolic link may lead to any file of the box.  Of a directory only regular files that lie in it are opened,
without following a link on the way; a path that the user names may be a link, but must lead to a regular file.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

from traces.errors import BadInput

__all__ = ["Reopened", "entries", "is_regular", "kind_of", "open_input", "read_input", "regular", "why_not"]

_COPY = "put a copy of the file itself there"
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
_STAY = getattr(os, "O_NOFOLLOW", 0)


def kind_of(mode: int) -> str:
    """Return what a file is, in words, by its mode (``st_mode``)."""
    for is_kind, word in ((stat.S_ISREG, "a regular file"), (stat.S_ISDIR, "a directory"),
                          (stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
                          (stat.S_ISCHR, "a character device"), (stat.S_ISBLK, "a block device")):
        if is_kind(mode):
            return word
    return "no regular file"


def _mode(path: Path) -> int | None:
    """Return the mode of what is there itself, not of what a link names; None where there is nothing."""
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):
        return None


def _unsafe(path: Path, root: Path | None) -> tuple[Path, int] | None:
    """Return the part below ``root`` of a path that is not a directory, or at its end not a regular file; its mode."""
    if root is not None:
        inner = path.relative_to(root)
        for number in range(1, len(inner.parts)):
            part = root.joinpath(*inner.parts[:number])
            mode = _mode(part)
            if mode is not None and not stat.S_ISDIR(mode):
                return part, mode
    mode = _mode(path)
    return None if mode is None or stat.S_ISREG(mode) else (path, mode)


def is_regular(path: Path, root: Path | None = None) -> bool:
    """True when there is a regular file of that name, with no link on the way from ``root`` (or its directory)."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode) and _unsafe(path, root) is None


def why_not(path: Path, root: Path | None = None) -> str:
    """Say why something that is there is not opened, ``""`` where it is, or where there is nothing."""
    found = _unsafe(path, root)
    if found is None:
        return ""
    what = f"is {kind_of(found[1])}" if found[0] == path else f"lies in {found[0].name}, which is {kind_of(found[1])}"
    return f"{what}; only regular files that lie in the directory itself are read"


def regular(path: Path, root: Path | None = None) -> Path:
    """Return ``path`` for a library that opens by name, after a look that it is a regular file.

    :raises BadInput: when it is something else, or a link leads there
    """
    found = _unsafe(path, root)
    if found is None:
        return path
    what = kind_of(found[1])
    if found[0] == path:
        raise BadInput(path, "", f"is {what}, not a regular file of the directory", _COPY)
    raise BadInput(path, "", f"lies in {found[0].name}, which is {what}, not a regular file of the directory", _COPY)


def open_input(path: str | os.PathLike[str], root: Path | None = None, *, follow: bool = False) -> BufferedReader:
    """Open a file of an input for reading; never waits for the writer of a FIFO.

    :param root: the directory that it has to lie in; by default the one it is named in
    :param follow: True for what the user named: a link to a regular file is followed
    :raises BadInput: when it is not a regular file
    :raises OSError: when it cannot be opened
    """
    place = Path(path)
    if not follow:
        regular(place, root)
    handle = os.open(place, _FLAGS | (0 if follow else _STAY))
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(21, "Is a directory", str(place))
            raise BadInput(place, "", f"is {kind_of(mode)}, not a regular file", "save what it gives to a file first")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_input(path: str | os.PathLike[str], most: int, root: Path | None = None) -> bytes:
    """Return a file's bytes, at most ``most`` and one more.

    :raises BadInput: as :func:`open_input`
    :raises OSError: when it cannot be read
    """
    with open_input(path, root) as file:
        # read(n) would allocate n bytes before it reads one.
        return file.read(min(os.fstat(file.fileno()).st_size, most) + 1)[:most + 1]


class Reopened(RawIOBase):
    """A file of an input that is open only while it is read: a box of a thousand CPUs has thousands of them.

    :param path: what the user named, or a file of it: a link to a regular file is followed
    :raises BadInput: when it is not a regular file, or was replaced between two reads
    :raises OSError: when it cannot be opened
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._at = 0
        with open_input(path, follow=True) as file:
            self._which = self._identity(file)

    @staticmethod
    def _identity(file: BufferedReader) -> tuple[int, int]:
        status = os.fstat(file.fileno())
        return status.st_dev, status.st_ino

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on from where the last read stopped."""
        with open_input(self._path, follow=True) as file:
            if self._identity(file) != self._which:
                raise BadInput(self._path, "", "was replaced by another file while it was read", "try again")
            done = os.preadv(file.fileno(), [buffer], self._at)
        self._at += done
        return done


def entries(directory: Path) -> tuple[list[Path], list[str]]:
    """Return the regular files of a directory, in order of their names, and a sentence on each other thing in it
    except directories.
    """
    files, left = [], []
    for path in sorted(directory.iterdir()):
        mode = _mode(path)
        if mode is not None and stat.S_ISREG(mode):
            files.append(path)
        elif mode is not None and not stat.S_ISDIR(mode):
            left.append(f"{path.name} was not used: it {why_not(path)}")
    return files, left
