# SPDX-License-Identifier: GPL-2.0-or-later
"""Unfinished files and directories, under hidden names; and removing those of processes that were killed.

The process that makes one holds a lock on it (flock(2)), which ends with the process, however it ends: one without a
lock is left over.  It may have pages in it, so the next command that works in its directory removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["SUFFIX", "Unfinished", "scratch", "sweep", "write_whole"]

SUFFIX: Final = ".zreplay-part"
_TRIES: Final = 100


class Unfinished:
    """A new directory (0700) or file (0600) next to ``path``, hidden and locked until :meth:`done`.

    :param path: what it will be when it is finished
    :param folder: make a directory
    :raises OSError: when it cannot be made
    """

    def __init__(self, path: Path, folder: bool = False) -> None:
        for _ in range(_TRIES):
            self.path = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{SUFFIX}")
            try:
                if folder:
                    self.path.mkdir(mode=0o700)
                else:
                    os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except (FileExistsError, FileNotFoundError):
                if not path.parent.is_dir():
                    raise
                continue
            # Another process may have swept it away before the lock.
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._lock), os.lstat(self.path)):
                    return
            os.close(self._lock)
        raise FileExistsError(17, "no free name", os.fspath(path))

    def done(self) -> None:
        """Let go of it, once it has its name or was removed."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Give a directory next to ``path`` for temporary files; it is removed with the block, or by a sweep.

    :raises OSError: when it cannot be made
    """
    unfinished = Unfinished(path, folder=True)
    try:
        yield unfinished.path
    finally:
        shutil.rmtree(unfinished.path, ignore_errors=True)
        unfinished.done()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, or replace one, whole or not at all; its permissions are those of any new file.

    For what holds nothing of pages: other files are 0600.

    :raises OSError: when it cannot be written
    """
    unfinished = Unfinished(path)
    try:
        unfinished.path.write_bytes(data)
        mask = os.umask(0o077)
        os.umask(mask)
        unfinished.path.chmod(0o666 & ~mask)
        os.replace(unfinished.path, path)
    finally:
        unfinished.path.unlink(missing_ok=True)
        unfinished.done()


def sweep(directory: Path) -> list[str]:
    """Remove what processes that have ended left in a directory; return its names.  What cannot be removed stays."""
    swept = []
    try:
        names = [entry.name for entry in os.scandir(directory)
                 if entry.name.startswith(".") and entry.name.endswith(SUFFIX)]
    except OSError:
        return []
    for name in sorted(names):
        path = directory / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            status = os.fstat(handle)
            if status.st_uid != os.geteuid() or not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                continue
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
            swept.append(name)
        except OSError:
            continue
        finally:
            os.close(handle)
    return swept
