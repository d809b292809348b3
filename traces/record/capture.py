# SPDX-License-Identifier: GPL-2.0-or-later
"""The raw capture directory: private, only appended to, flushed on a schedule, so that a kill leaves a prefix.

``flushed.jsonl`` says what is on disk for certain: one line per flush with the sizes of the files, and the time
before which every event is in them.  ``capture.json`` says what was recorded and how; only a recorder that came
to its end marks the capture there as complete.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from .errors import CannotRecord
from .oserrors import next_step, what_happened
from .packing import pack
from .sums import NAME, sums

__all__ = ["ANSWER", "KEPT", "STREAMS", "AppendFile", "CaptureWriter", "check_target"]

#: Files of a capture of the lab's: how the recorded command ended, what it printed.
ANSWER = "command.json"
STREAMS = ("command.stdout", "command.stderr")
#: Bytes of each stream that are kept.
KEPT = 1 << 20

_FLUSHED = "flushed.jsonl"
#: A file that only takes room: it is removed when the disk is full, so that the note on how far the capture is whole
#: can be written.
_RESERVE = ".reserve.part"
_RESERVED = 1 << 19


class AppendFile:
    """A new private file that only grows.

    :param path: must not exist
    """

    def __init__(self, path: Path) -> None:
        # Without O_APPEND, which splice() refuses: no other process writes it, so its end is where this one stopped.
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        #: Bytes written so far.
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""
        view = memoryview(data)
        while view:
            # A disk that is almost full accepts a part.
            done = os.write(self._fd, view)
            self.size += done
            view = view[done:]

    def take(self, pipe: int, size: int) -> bool:
        """Append ``size`` bytes that a pipe holds; False when the file system needed them copied.

        :raises OSError: when they cannot be written
        """
        left = size
        while left:
            try:
                done = os.splice(pipe, self._fd, left)  # type: ignore[attr-defined,unused-ignore]
            except OSError as problem:
                if problem.errno != errno.EINVAL:
                    raise
                while left:
                    data = os.read(pipe, left)
                    self.write(data)
                    left -= len(data)
                return False
            self.size += done
            left -= done
        return True

    def cut(self, size: int) -> None:
        """Take back what was appended after ``size`` bytes."""
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, size, os.SEEK_SET)
        self.size = size

    def sync(self) -> None:
        """Bring it to disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class _Foreign:
    """A file of the capture that another process of the recorder appends to."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)

    @property
    def size(self) -> int:
        """Bytes it has by now."""
        return os.fstat(self._fd).st_size

    def sync(self) -> None:
        """Bring it to disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class CaptureWriter:
    """A capture directory that is being written.

    :param path: the directory to make; its parent must exist
    :raises CannotRecord: when it exists, or others could read it or put something in its place
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_target(path)
        try:
            path.mkdir(mode=0o700)
        except OSError as problem:
            raise CannotRecord(f"the output {path} cannot be made ({what_happened(problem)})",
                               next_step(problem.errno)) from None
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.rmdir()
            raise CannotRecord(f"others could read {path}: its file system keeps no permissions",
                               "choose a directory on another one")
        self._files: dict[str, AppendFile | _Foreign] = {}
        #: Names of files that another process makes.
        self.foreign = ""
        #: Other keys of a flush's line, left out where empty.
        self.extra: dict[str, Any] = {}
        self._log: AppendFile | None = None
        self._problem: OSError | None = None
        self._snapshots = 0
        self._flushing: threading.Thread | None = None

    def appending(self, name: str) -> AppendFile:
        """Open a new file for appending; it takes part in every flush."""
        file = self._files[name] = AppendFile(self.path / name)
        return file

    def _look(self) -> None:
        """Find the files that another process has made meanwhile."""
        for path in sorted(self.path.glob(self.foreign)) if self.foreign else ():
            if path.name not in self._files:
                self._files[path.name] = _Foreign(path)

    def write(self, name: str, text: str) -> None:
        """Write a whole file, so that its name always holds all of it or the one before."""
        path = self.path / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def write_json(self, name: str, value: Any) -> None:
        """Write a whole file of JSON."""
        self.write(name, json.dumps(value, indent=1) + "\n")

    def add_snapshot(self, label: str, values: dict[str, Any]) -> str:
        """Write a counter snapshot and return its file's name."""
        name = f"counters-{self._snapshots:03d}-{label}.json"
        self._snapshots += 1
        self.write_json(name, values)
        return name

    def change_snapshot(self, label: str, values: dict[str, Any]) -> None:
        """Write the last counter snapshot, which has this label, once more."""
        self.write_json(f"counters-{self._snapshots - 1:03d}-{label}.json", values)

    def flush(self, until: int, losses: dict[str, Any], wait: bool = False) -> None:
        """Bring what was appended so far to disk, in another thread; there is one flush at a time.

        :param until: every event before this time of the trace clock (ns) has been appended
        :param losses: per CPU, as far as what was appended goes
        :param wait: return when it is done
        :raises OSError: when this flush (where waited for) or the one before failed
        """
        if self._flushing is not None and (wait or not self._flushing.is_alive()):
            self._flushing.join()
            self._flushing = None
        if self._flushing is None:
            self._look()
            sizes = {name: file.size for name, file in self._files.items()}
            extra = {name: value for name, value in self.extra.items() if value}
            line = json.dumps({"flushed": until, "sizes": sizes, "losses": losses, **extra}) + "\n"
            # Slow disks take seconds over it, and the rings fill meanwhile.
            self._flushing = threading.Thread(target=self._flush, args=(line, list(self._files.values())), daemon=True)
            self._flushing.start()
            if wait:
                self._flushing.join()
        if self._problem is not None:
            raise self._problem

    def size(self) -> int:
        """Return how many bytes were appended so far."""
        self._look()
        return sum(file.size for file in self._files.values())

    def pack(self, stop: Callable[[], bool]) -> None:
        """Replace what was appended, which has come to its end, by packed files.

        A kill meanwhile leaves each file as it was or packed, and both can be imported.

        :param stop: see :func:`packing.pack`
        :raises OSError: when a file cannot be written; the files that exist are whole
        """
        for name in sorted(self._files):
            packed = pack(self.path / name, stop)
            if packed is None:
                break
            self._files.pop(name).close()
            self._files[packed.name] = _Foreign(packed)

    def seal(self, growing: Container[str] = ()) -> None:
        """Write the sums of all files, which have come to their end but those ``growing``.

        :raises OSError: when they cannot be read or written; the capture is whole without
        """
        self.write_json(NAME, sums(self.path, growing))

    def _flush(self, line: str, files: list[AppendFile | _Foreign]) -> None:
        try:
            for file in files:
                file.sync()
            if self._log is None:
                self._log = AppendFile(self.path / _FLUSHED)
            before = self._log.size
            try:
                self._log.write(line.encode())
            except OSError:
                # The next line must not follow half of this one.
                self._log.cut(before)
                raise
            self._log.sync()
        except OSError as problem:
            self._problem = problem

    def reserve(self) -> None:
        """Reserve some room on the disk, for what is written when the disk is full.

        :raises OSError: when there is none to take
        """
        fd = os.open(self.path / _RESERVE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _RESERVED)
        finally:
            os.close(fd)

    def end_early(self, until: int, losses: dict[str, Any]) -> None:
        """Record how far the capture is whole after a failed write: what was written is kept.

        :param until: every event before this time of the trace clock (ns) has been appended
        :param losses: per CPU, as far as what was appended goes
        :raises OSError: when not even that can be written
        """
        self.release()
        if self._flushing is not None:
            self._flushing.join()
            self._flushing = None
        self._problem = None
        CaptureWriter.flush(self, until, losses, wait=True)

    def release(self) -> None:
        """Give back the room that was reserved."""
        (self.path / _RESERVE).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all files."""
        if self._flushing is not None:
            self._flushing.join()
        self.release()
        for file in [*self._files.values(), *([self._log] if self._log is not None else [])]:
            file.close()
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):
            os.fsync(fd)
        os.close(fd)


def check_target(path: Path) -> None:
    """Make sure that a private directory can be made at ``path``.

    :raises CannotRecord: when the path exists, or any user may put something into its parent
    """
    if os.path.lexists(path):
        raise CannotRecord(f"the output {path} exists already", "remove it or choose another name")
    parent = path.parent
    try:
        mode = parent.stat().st_mode
    except OSError as problem:
        missing = problem.errno in (errno.ENOENT, errno.ENOTDIR)
        raise CannotRecord(f"{parent}, where the output should go, cannot be used ({what_happened(problem)})",
                           "choose a directory that exists" if missing else next_step(problem.errno)) from None
    if not stat.S_ISDIR(mode):
        raise CannotRecord(f"{parent}, where the output should go, is not a directory", "choose a directory")
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise CannotRecord(f"any user may rename the files in {parent} (world-writable, not sticky)",
                           "choose another directory, or set its sticky bit (chmod +t)")
