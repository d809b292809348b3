# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches what other processes do to a recorder's instances: while an event is off, calls are lost uncounted.

Every switch is written through a file, so inotify reports every write, however short its effect was: off and on, a
ring that is cleared, a filter set and taken back.  The switches are also read again and again: that finds changes on
a kernel without inotify, and changes without a write.  The importer, too, finds events that another process took out
of a ring or cleared: it compares what it reads with what the kernel gave to readers.

What the recorder writes itself is not looked at: it is written before :meth:`Watch.begin`, or said to be expected.
Any process may write markers (trace_marker).  A directory of events (eventfs) is held open while it is watched: the
kernel makes a new inode for each that no process holds.  Mirrors tracefs as of Linux 6.12 to 7.3.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from .tracefs import Instance, Tracefs

__all__ = ["Watch"]

#: include/uapi/linux/inotify.h
_MODIFY, _OVERFLOW, _IGNORED = 0x2, 0x4000, 0x8000
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_HEAD = struct.Struct("iIII")
#: Files of an instance that any process may write: the recording does not depend on them.  The kernel itself says that
#: the last one is written (latency_fsnotify() in kernel/trace/trace.c).
_FREE = ("trace_marker", "trace_marker_raw", "trace_pipe", "tracing_max_latency")
#: Files of an instance whose content says how it records; read again and again.
_STATE = ("tracing_on", "trace_clock", "current_tracer", "buffer_size_kb", "buffer_subbuf_size_kb", "tracing_cpumask",
          "options/overwrite", "options/pause-on-trace", "options/event-fork")
#: The same, read where there is reason to and at the end.
_SLOW = ("set_event_pid", "set_event_notrace_pid")
#: Switches of all probes of the box, below sys and proc.
_BOX = ("/proc/sys/kernel/ftrace_enabled", "/sys/kernel/debug/kprobes/enabled")
#: Where probes are defined and removed; others do so, too, with theirs.
_DEFINITIONS = ("dynamic_events", "kprobe_events")
#: An event's own switch.
_ENABLE = re.compile(r"(.*/events/[^/]+)/([^/]+)/enable")
#: Events that are named.
_SHOWN = 4
#: Things that happened that are kept.
_MOST = 100


class _Inotify:
    """inotify, which Python has no module for.

    :raises OSError: when the kernel has none, or no more of it
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self.fd = int(self._libc.inotify_init1(_NONBLOCK | _CLOEXEC))
        except AttributeError:
            raise OSError(38, os.strerror(38)) from None
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        #: What is watched, by the number that the kernel gave it.
        self.paths: dict[int, str] = {}

    def add(self, path: str, shown: str) -> None:
        """Watch a file, or the files in a directory, for writes.

        :raises OSError: when it cannot be watched
        """
        number = self._libc.inotify_add_watch(self.fd, os.fsencode(path), _MODIFY)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.paths[number] = shown

    def written(self) -> list[str]:
        """Return the paths that were written since the last call; an empty one where writes were too many to report."""
        found: list[str] = []
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return list(dict.fromkeys(found))
            at = 0
            while at < len(data):
                number, mask, _, length = _HEAD.unpack_from(data, at)
                at += _HEAD.size
                name = data[at:at + length].rstrip(b"\0").decode("utf-8", "replace")
                at += length
                if mask & _OVERFLOW:
                    found.append("")
                elif not mask & _IGNORED:
                    found.append(self.paths.get(number, "") + (f"/{name}" if name else ""))

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self.fd)


class Watch:
    """Watches what a recorder set up; times are the trace clock's, ns.

    :param tracefs: the tracing directory
    :param instances: each with the group of its events and their names
    :param box: other files that switch probes
    """

    def __init__(self, tracefs: Tracefs, instances: Iterable[tuple[Instance, str, Iterable[str]]],
                 box: Iterable[str] = _BOX) -> None:
        self._tracefs = tracefs
        self._instances = [(instance, group, sorted(events)) for instance, group, events in instances]
        self._box = [path for path in box if os.path.exists(path)]
        self._held: list[int] = []
        self._inotify: _Inotify | None = None
        #: Why not every write is seen, empty where it is.
        self.blind = ""
        try:
            self._inotify = _Inotify()
            self._watch_all(self._inotify)
        except OSError as problem:
            self.blind = problem.strerror or str(problem)
        self._state: dict[str, str] = {}
        self._expected: set[str] = set()
        self._since = 0
        #: "since": last time before it happened; "seen": when it was found; "what": a sentence without its final stop.
        self.found: list[dict[str, object]] = []
        self._known: set[str] = set()

    def _watch_all(self, inotify: _Inotify) -> None:
        for name in _DEFINITIONS:
            with contextlib.suppress(FileNotFoundError):
                inotify.add(str(self._tracefs.root / name), name)
        for name in self._box:
            with contextlib.suppress(FileNotFoundError):
                inotify.add(name, name)
        for instance, group, events in self._instances:
            for path in sorted(instance.path.iterdir()):
                # Watched one by one: a workload writes markers by the thousand.
                if path.is_file() and path.name not in _FREE:
                    inotify.add(str(path), self._name(path))
            below = [instance.path / "options", *(path for _, path in instance.cpus(every=True))]
            root = instance.path / "events"
            for directory in (*below, root, root / group, *(root / group / event for event in events)):
                if directory.is_dir():
                    self._hold(inotify, directory)

    def _hold(self, inotify: _Inotify, directory: Path) -> None:
        if "events" not in directory.relative_to(self._tracefs.root).parts:
            inotify.add(str(directory), self._name(directory))
            return
        fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        self._held.append(fd)
        inotify.add(f"/proc/self/fd/{fd}", self._name(directory))

    def _name(self, path: Path) -> str:
        """Return a path below the tracing directory."""
        return str(path.relative_to(self._tracefs.root))

    # State

    def _read(self, slow: bool) -> dict[str, str]:
        """Return what the switches say, by name; what cannot be read is left out."""
        found = {}
        for instance, group, events in self._instances:
            names = [*_STATE, f"events/{group}/enable"]
            if slow:
                names += [*_SLOW, *(f"events/{group}/{event}/{name}" for event in events
                                    for name in ("enable", "filter", "trigger"))]
            for name in names:
                path = instance.path / name
                found[self._name(path)] = _text(path)
        for text in self._box:
            found[text] = _text(Path(text))
        if slow:
            with contextlib.suppress(OSError):
                found["dynamic_events"] = self._tracefs.definitions(pages=True)
        return {name: text for name, text in found.items() if text}

    def begin(self, now: int) -> None:
        """Take the switches' present state as the intended one; earlier writes were the recorder's own."""
        if self._inotify is not None:
            self._inotify.written()
        self._state = self._read(slow=True)
        self._since = now

    def expect(self, name: str) -> None:
        """Do not look at a file of the instances any more: the recorder writes it itself."""
        self._expected.update(self._name(instance.path / name) for instance, _, _ in self._instances)

    def check(self, now: int, slow: bool = False) -> list[str]:
        """Look for what happened since the last look; returns what is new, in sentences.

        :param now: a time before the look
        :param slow: read everything, also where no write was seen
        """
        written = self._inotify.written() if self._inotify is not None else []
        everything = slow or bool(written) or bool(self.blind)
        state = self._read(everything)
        changed = {name: text for name, text in state.items() if text != self._state.get(name, text)}
        gone = [name for name in self._state if everything and name not in state]
        new = []
        # Others define probes of their own there.
        own = "dynamic_events" in changed or "dynamic_events" in gone
        sentences = [] if not own else ["another process changed the recorder's probes (dynamic_events)"]
        switched: dict[str, list[str]] = {}
        for name in dict.fromkeys([*written, *changed, *gone]):
            if name in self._expected or name in _DEFINITIONS:
                continue
            each = _ENABLE.fullmatch(name)
            if each is not None and name not in written:
                # Switching a group also writes the event's own file.
                switched.setdefault(each[1], []).append(each[2])
            else:
                sentences.append(self._sentence(name, name in written, changed.get(name)))
        for group, events in switched.items():
            more = f" and {len(events) - _SHOWN} more" if len(events) > _SHOWN else ""
            sentences.append(f"events of {group} were switched: {', '.join(events[:_SHOWN])}{more}")
        for what in sentences:
            if what not in self._known and len(self._known) < _MOST:
                self._known.add(what)
                self.found.append({"since": self._since, "seen": now, "what": what})
                new.append(what)
        self._state.update(changed)
        for name in gone:
            del self._state[name]
        self._since = now
        return new

    def _sentence(self, name: str, written: bool, now: str | None) -> str:
        if not name:
            return "another process wrote more files of tracefs than the kernel reports"
        before = self._state.get(name, "")
        how = f", which said {_short(before)} and says {_short(now)}" if now is not None and before else ""
        if written:
            return f"another process wrote {name}{how}"
        return f"{name} said {_short(before)} and " + ("cannot be read any more" if now is None
                                                       else f"says {_short(now)}")

    def close(self) -> None:
        """Watch nothing any more, and let go of what was held."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        for fd in self._held:
            os.close(fd)
        self._held = []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _short(text: str) -> str:
    """Return a value as a message shows it: of a list of choices the one that is taken."""
    start, end = text.find("["), text.find("]")
    text = text[start + 1:end] if 0 <= start < end else text
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    return f"'{text[:40]}{'...' if len(text) > 40 else ''}'"
