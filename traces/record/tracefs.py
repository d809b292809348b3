# SPDX-License-Identifier: GPL-2.0-or-later
"""tracefs: probe definitions, instances, their switches and statistics; putting everything back.

Mirrors the files of kernel/trace/trace.c, trace_dynevent.c and trace_events.c (Linux 6.12 to 7.3).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .cpus import Cpus
from .errors import CannotRecord
from .holders import held_by
from .names import DEFAULT, TracefsNames
from .oserrors import kernel_step, what_happened
from .plan import Planned

__all__ = ["CPU_LOSSES", "Instance", "Tracefs"]

#: Losses per CPU in ``per_cpu/cpuN/stats`` and the key they have in capture.json.
CPU_LOSSES = {"overrun": "overrun", "commit overrun": "commit_overrun", "dropped events": "dropped"}
#: How full of whole sub-buffers a ring is, in percent, when poll() finds it readable.
_FULL = 50
#: How long a removal is tried again while the kernel still holds what is removed, seconds.
_PATIENCE = 5.0
#: struct flock of 64-bit kernels: type, whence, start, length, process.
_FLOCK = struct.Struct("hhqqi4x")


def _write(path: Path, text: str, append: bool = False) -> None:
    fd = os.open(path, os.O_WRONLY | (os.O_APPEND if append else 0))
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class Tracefs:
    """The tracing directory of the running kernel, held by at most one recorder of a name.

    :param root: where tracefs is mounted
    :param names: what the recorder's things are called there; others' are not touched
    :raises CannotRecord: when it is not there, cannot be written, or another recorder holds the name
    """

    def __init__(self, root: Path = Path("/sys/kernel/tracing"), names: TracefsNames | None = None) -> None:
        #: Where users find it.
        self.place = root
        self.names = names if names is not None else TracefsNames.of()
        # Path.exists() of older Pythons raises where a directory is closed.
        if not os.path.exists(root / "dynamic_events"):
            if os.geteuid() != 0:
                raise CannotRecord("recording needs root: tracefs is closed to other users", "run it with sudo")
            raise CannotRecord(f"tracefs is not mounted at {root}, or the kernel has no dynamic events",
                               f"mount it (mount -t tracefs nodev {root}), or use a kernel with CONFIG_PROBE_EVENTS")
        # Held open, so that it can be used to the end even if it is unmounted meanwhile (umount -l).
        self._held = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        #: The same for this process.
        self.root = Path(f"/proc/self/fd/{self._held}")
        if not os.path.exists(self.root / "dynamic_events"):
            self.root = root
        # A lock ends with its holder however that ends, so it shows whether a recorder runs or was killed.
        self._lock = -1
        try:
            self._lock = self._lock_default() if self.names.name == DEFAULT else self._lock_name()
            os.close(self._open_events())
        except BaseException:
            self.close()
            raise

    def shown(self, path: Path | str) -> str:
        """Return a path below :attr:`root` as users find it."""
        return re.sub(rf"^{re.escape(str(self.root))}(?=/|$)", lambda _: str(self.place), str(path))

    def holders(self) -> str:
        """Return a clause of the processes with open files in the recorder's instances; empty where none is seen."""
        return held_by(self.place / "instances", self.names.instances)

    @property
    def mounted(self) -> bool:
        """True while it is where users find it."""
        return os.path.exists(self.place / "dynamic_events")

    def _open_events(self) -> int:
        try:
            return os.open(self.root / "dynamic_events", os.O_WRONLY | os.O_APPEND)
        except OSError as problem:
            why = "is mounted read-only" if problem.errno == errno.EROFS else \
                f"cannot be written ({what_happened(problem)})"
            raise CannotRecord(f"tracefs at {self.place} {why}",
                               "run the recorder as root where tracefs is mounted read-write") from None

    def _lock_default(self) -> int:
        """Return a file descriptor that holds the default name."""
        fd = os.open(self.root / "instances", os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = self._holder(fd)
            os.close(fd)
            raise CannotRecord(f"another recorder is running{holder}", "wait for it, or stop it") from None
        return fd

    def _lock_name(self) -> int:
        """Return a file descriptor that holds another name.

        tracefs has no file for every possible name, and a file elsewhere (/run) is not the same for all that
        share a tracefs.  So a name is one byte, far behind the end, of the file that all recorders write to.  The
        lock belongs to the open file, not to the process: closing the same file elsewhere, as every definition of a
        probe does, lets go of a process's locks, but not of this one.
        """
        fd = self._open_events()
        place = int.from_bytes(hashlib.blake2b(self.names.name.encode(), digest_size=7).digest(), "little")
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
        except OSError as problem:
            os.close(fd)
            if problem.errno not in (errno.EAGAIN, errno.EACCES):
                raise CannotRecord(f"the name '{self.names.name}' cannot be locked ({what_happened(problem)})",
                                   "record without --instance") from None
            raise CannotRecord(f"another recorder called '{self.names.name}' is running{self.holders()}",
                               "wait for it, stop it, or choose another --instance") from None
        return fd

    @staticmethod
    def _holder(fd: int) -> str:
        inode = os.fstat(fd).st_ino
        try:
            locks = Path("/proc/locks").read_text()
        except OSError:
            return ""
        found = re.search(rf"FLOCK\s+\S+\s+WRITE\s+(\d+)\s+\S+:{inode}\s", locks)
        return f" (process {found[1]})" if found else ""

    def unlock(self) -> None:
        """Let another recorder of this name run."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def close(self) -> None:
        """Let another recorder of this name run, and let go of the directory."""
        self.unlock()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    # What is there

    def leftovers(self) -> list[str]:
        """Return what a killed recorder of this name left: its instances and its events."""
        found = [f"instance {name}" for name in self.names.instances if (self.root / "instances" / name).is_dir()]
        return found + [f"event {group}/{event}" for group, event in self._events()]

    def _events(self) -> list[tuple[str, str]]:
        try:
            text = (self.root / "dynamic_events").read_text()
        except OSError:
            return []
        return re.findall(rf"^\w+:({self.names.group}|{self.names.page_group})/(\S+)", text, re.M)

    def definitions(self, pages: bool = False) -> str:
        """Return the recorder's own lines of ``dynamic_events``, as the kernel shows them.

        :param pages: those of page contents, too
        """
        groups = f"(?:{self.names.group}|{self.names.page_group})" if pages else self.names.group
        text = (self.root / "dynamic_events").read_text()
        return "".join(line + "\n" for line in text.splitlines() if re.match(rf"\w+:{groups}/", line))

    def missed(self) -> dict[str, int]:
        """Return hits that were missed per event, of the kernel's kprobe events; fprobes have no such count."""
        try:
            text = (self.root / "kprobe_profile").read_text()
        except OSError:
            return {}
        rows = [line.split() for line in text.splitlines() if line.strip()]
        # Two recorders' events have the same names, and the counts do not say whose they are; the list of kprobe
        # events does, and is made in the same order (probes_seq_op and profile_seq_op in kernel/trace/trace_kprobe.c).
        owners = self._kprobe_events()
        if [event for _, event in owners] == [row[0] for row in rows]:
            groups = (self.names.group, self.names.page_group)
            rows = [row for number, row in enumerate(rows) if owners[number][0] in groups]
        counts: dict[str, int] = {}
        for row in rows:
            if len(row) >= 3 and row[2].isdigit():
                # Where nothing records whose a count is, the greatest counts: no loss goes unseen.
                counts[row[0]] = max(counts.get(row[0], 0), int(row[2]))
        return counts

    def _kprobe_events(self) -> list[tuple[str, str]]:
        try:
            text = (self.root / "kprobe_events").read_text()
        except OSError:
            return []
        return re.findall(r"^\w+:([^\s/]+)/(\S+)", text, re.M)

    # Making and removing

    def define(self, planned: Iterable[Planned]) -> tuple[dict[str, str], dict[str, str]]:
        """Define the events of a plan.

        Returns the definition that was taken per event, and why the kernel refused the others.
        """
        used: dict[str, str] = {}
        refused: dict[str, str] = {}
        for row in planned:
            for line in row.lines:
                try:
                    _write(self.root / "dynamic_events", line + "\n", append=True)
                except OSError as problem:
                    refused[row.event] = f"the kernel refused '{line.split()[0]}' ({what_happened(problem)})"
                    continue
                used[row.event] = line
                refused.pop(row.event, None)
                break
        return used, refused

    def remove(self) -> list[str]:
        """Remove the recorder's instances and events; returns what could not be removed."""
        for name in self.names.instances:
            path = self.root / "instances" / name
            if path.is_dir():
                with contextlib.suppress(OSError):
                    _write(path / "tracing_on", "0")
                for group in (self.names.group, self.names.page_group):
                    with contextlib.suppress(OSError):
                        _write(path / "events" / group / "enable", "0")
        until = time.monotonic() + _PATIENCE
        # A reader that was just closed, or a probe that still runs, keeps things busy for a moment.
        while True:
            for name in self.names.instances:
                with contextlib.suppress(OSError):
                    os.rmdir(self.root / "instances" / name)
            for group in sorted({group for group, _ in self._events()}):
                with contextlib.suppress(OSError):
                    _write(self.root / "dynamic_events", f"-:{group}/\n", append=True)
            for group, event in self._events():
                with contextlib.suppress(OSError):
                    _write(self.root / "dynamic_events", f"-:{group}/{event}\n", append=True)
            left = self.leftovers()
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.1)


class Instance:
    """A tracing instance: its own rings, switches and event filters.

    :param tracefs: the tracing directory
    :param name: one of the recorder's, see :class:`names.Names`
    :param buffer_kb: ring size per CPU, KiB
    :param subbuf_kb: size of a sub-buffer, KiB; kernels before 6.8 have 4 only
    :param cpus: which CPUs are online; None takes all that could be for such
    :raises CannotRecord: when it cannot be made
    """

    def __init__(self, tracefs: Tracefs, name: str, buffer_kb: int, subbuf_kb: int = 4,
                 cpus: Cpus | None = None) -> None:
        self.path = tracefs.root / "instances" / name
        self.subbuf = 4096
        self._cpus = cpus
        self._all: list[tuple[int, Path]] = []
        try:
            self.path.mkdir()
            _write(self.path / "tracing_on", "0")
            if subbuf_kb != 4 and (self.path / "buffer_subbuf_size_kb").exists():
                _write(self.path / "buffer_subbuf_size_kb", str(subbuf_kb))
                self.subbuf = 1024 * subbuf_kb
            _write(self.path / "trace_clock", "mono")
            # Overwritten events are counted in the ring, in the place where they are missing; refused ones are not.
            _write(self.path / "options" / "overwrite", "1")
            _write(self.path / "buffer_size_kb", str(buffer_kb))
            with contextlib.suppress(OSError):
                _write(self.path / "buffer_percent", str(_FULL))
        except OSError as problem:
            todo = f"run '{tracefs.names.clean}' and try again" if problem.errno in (errno.EEXIST, errno.EBUSY) \
                else kernel_step(problem.errno)
            holders = tracefs.holders() if problem.errno in (errno.EEXIST, errno.EBUSY) else ""
            raise CannotRecord(f"the tracefs instance '{name}' cannot be set up ({what_happened(problem)}{holders})",
                               todo) from None

    def cpus(self, every: bool = False) -> list[tuple[int, Path]]:
        """Return (number, directory) of the CPUs that have a ring, in order.

        :param every: those that could have one, too
        """
        if not self._all:
            self._all = sorted((int(path.name[3:]), path) for path in (self.path / "per_cpu").glob("cpu[0-9]*"))
        if self._cpus is None or every:
            return list(self._all)
        self._cpus.look()
        return [(number, path) for number, path in self._all if self._cpus.has_ring(number)]

    def enable(self, group: str, events: Iterable[str]) -> dict[str, str]:
        """Arm events; returns why the kernel refused those it did."""
        refused = {}
        for event in events:
            try:
                _write(self.path / "events" / group / event / "enable", "1")
            except OSError as problem:
                refused[event] = f"the kernel would not enable it ({what_happened(problem)})"
        return refused

    def filter(self, group: str, event: str, expression: str) -> bool:
        """Set an event's filter; False when the kernel does not take it."""
        try:
            _write(self.path / "events" / group / event / "filter", expression)
        except OSError:
            return False
        return True

    def format(self, group: str, event: str) -> str:
        """Return an event's ``format``."""
        return (self.path / "events" / group / event / "format").read_text()

    def switch(self, on: bool) -> None:
        """Switch the rings on or off."""
        _write(self.path / "tracing_on", "1" if on else "0")

    def statistics(self) -> dict[str, dict[str, int]]:
        """Return what the kernel counts of each CPU's ring (``per_cpu/cpuN/stats``), nothing where it does not say."""
        found = {}
        for number, path in self.cpus():
            try:
                values = re.findall(r"^([a-z ]+): (\d+)", (path / "stats").read_text(), re.M)
            except OSError:
                values = []
            found[str(number)] = {name: int(value) for name, value in values}
        return found

    def losses(self) -> dict[str, dict[str, Any]]:
        """Return losses per CPU as the kernel counts them; "unknown" where its statistics cannot be read."""
        return {cpu: {key: values.get(name, "unknown") for name, key in CPU_LOSSES.items()}
                for cpu, values in self.statistics().items()}

    def taken(self) -> dict[str, dict[str, int]]:
        """Return per CPU how many events the kernel gave to readers of its ring, and how many it still holds."""
        return {cpu: {"read": values["read events"], "entries": values["entries"]}
                for cpu, values in self.statistics().items() if {"read events", "entries"} <= values.keys()}
