# SPDX-License-Identifier: GPL-2.0-or-later
"""One recording from arming the probes to putting the box back, as the tracefs back end makes it."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

from .box import Box
from .capture import AppendFile, CaptureWriter
from .cgroups import read_settings
from .counters import snapshot
from .cpus import Cpus, changes_in_words, cpu_text
from .errors import CannotRecord
from .memlock import lock_memory
from .names import DEFAULT, TracefsNames
from .openfiles import allow, back_to
from .oserrors import OF_DISKS, kernel_step, next_step, what_happened
from .pagekey import VARIABLE, PageKey
from .pages import PageMode, PageTaker
from .pageworker import PageWorker
from .plan import Planned, as_json, page_plan, plan
from .probes import PAGE_SOURCES
from .rings import RingCopier, RingReader
from .tracefs import Instance, Tracefs
from .waiter import Waiter
from .watch import Watch

__all__ = ["FLUSH", "VERSION", "Options", "Session", "ring_kb", "say"]

VERSION = "0.1.0"
#: Seconds that it sleeps at most.
_LOOK = 0.25
#: Bytes of a round after which the next one comes at once.
_MUCH = 1 << 20
#: The recorder's own niceness while it records.
_NICE = -10
#: Ring size per CPU where none is given: this part of available memory for all CPUs and both instances.
_MEMORY_SHARE = 8
_BUFFER_KB = (1024, 65536)
#: A page event is longer than half of a 4 KiB sub-buffer.
_PAGE_SUBBUF_KB = 64
#: Seconds between flushes, where none are given: what a kill of the box may cost, and a round over the rings.
FLUSH = 0.5
#: A capture of more bytes than this takes so long to pack that a note says so.
_LONG = 64 << 20
#: Errors that are neither about disks nor about tracefs.
_OF_PROCESSES = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


class Options(NamedTuple):
    """What a user asked for: see ``zreplay record --help``."""

    pages: PageMode
    duration: float | None = None
    command: tuple[str, ...] = ()
    snapshot_every: float = 0.0
    cgroup: Path | None = None
    buffer_kb: int = 0
    compressors: tuple[str, ...] = ()
    instance: str = DEFAULT
    pack: bool = False
    flush_every: float = FLUSH


def _now() -> int:
    """Return the trace clock's time (``mono``), ns."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def ring_kb(memory_kb: int, instances: int) -> int:
    """Return the size of a ring per CPU in KiB, where none is given.

    :param memory_kb: available memory
    :param instances: how many rings each CPU has
    """
    share = memory_kb // _MEMORY_SHARE // (os.cpu_count() or 1) // instances
    return min(max(share, _BUFFER_KB[0]), _BUFFER_KB[1])


def say(sentence: str) -> None:
    """Print a note to stderr: on a terminal in lines that fit, an indented line as it is."""
    first, *rest = f"zreplay: {sentence}".split("\n")
    lines = [first]
    if sys.stderr.isatty():
        width = max(shutil.get_terminal_size().columns, 20)
        lines = textwrap.wrap(first, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    print(*lines, *rest, sep="\n", file=sys.stderr, flush=True)


class Session:
    """Records into a capture directory; :meth:`run` does it all.

    :param path: the capture directory to make
    :param options: what to record
    :raises CannotRecord: when it cannot be done on this box
    """

    #: Whether its files of events are copies of the kernel's rings, so that the kernel's counts apply to them.
    counts_what_it_takes = True
    #: Whether it locks its memory: not where a compiler runs in the same process.
    locks_memory = True

    def __init__(self, path: Path, options: Options, box: Box) -> None:
        self.options = options
        self.box = box
        if options.cgroup is not None and not (options.cgroup / "cgroup.procs").exists():
            raise CannotRecord(f"{options.cgroup} is not a cgroup", "give a directory below /sys/fs/cgroup")
        if options.command and shutil.which(options.command[0]) is None:
            raise CannotRecord(f"the command {options.command[0]} was not found", "check its name")
        #: Set by a signal, by the control pipe, by the end of the command or of the time.
        self.stopping = False
        self.tracefs = self._make_tracefs(TracefsNames.of(options.instance))
        try:
            box.check()
            if self.tracefs.leftovers():
                say("a recorder that was killed left probes behind; removing them.")
                left = self.tracefs.remove()
                if left:
                    raise CannotRecord(f"what a killed recorder left cannot be removed ({', '.join(left[:3])}"
                                       f"{self.tracefs.holders()})",
                                       f"end the processes that still use it, then run '{self.tracefs.names.clean}'")
            self.capture = self._make_capture(path)
        except BaseException:
            self.tracefs.close()
            raise
        self._readers: list[RingReader] = []
        self._taker: PageTaker | None = None
        self._key = PageKey()
        self._worker: PageWorker | None = None
        self._status: dict[str, Any] = {}
        #: Compressors whose pages are looked at.
        self._looked_at: list[str] = []
        self._control = -1
        self._child: subprocess.Popen[bytes] | None = None
        self._cpus = Cpus(box.root)
        self._watch: Watch | None = None
        #: Every event before this time (ns) is in the files.
        self._complete = 0
        self._unmounted = False
        #: Limits on open files as they were: a command has them as it would alone.
        self._limits: tuple[int, int] | None = None
        #: Niceness it was started with.
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        #: Seconds between rounds over the rings, where none asks for it earlier.
        self.round_every = options.flush_every / 2

    def _make_tracefs(self, names: TracefsNames) -> Tracefs:
        """Take the tracing directory; a back end may know more of its probes."""
        return Tracefs(names=names)

    def _make_capture(self, path: Path) -> CaptureWriter:
        """Make the capture's directory."""
        return CaptureWriter(path)

    def run(self) -> dict[str, Any]:
        """Record, put the box back, and return what capture.json says.

        :raises CannotRecord: when the kernel refuses what is needed or the disk is full; the box has been put back
        """
        useless = False
        try:
            self._arm()
            self._record()
            self._finish()
            self._seal()
        except CannotRecord:
            useless = True
            raise
        except OSError as problem:
            useless = self._status.get("start") is None
            raise self._ended_early(problem) from None
        finally:
            if self._worker is not None:
                self._worker.close()
            for reader in self._readers:
                reader.close()
            if self._watch is not None:
                self._watch.close()
            left = self.tracefs.remove()
            holders = self.tracefs.holders() if left else ""
            self.tracefs.close()
            if self._limits is not None:
                back_to(self._limits)
            if self._control >= 0:
                os.close(self._control)
                with contextlib.suppress(OSError):
                    (self.capture.path / "control").unlink()
            self.capture.close()
            self._key.close()
            if useless:
                shutil.rmtree(self.capture.path, ignore_errors=True)
            if left:
                say(f"not everything could be removed ({', '.join(left[:3])}{holders}): run "
                    f"'{self.tracefs.names.clean}'.")
        return self._status

    def _ended_early(self, problem: OSError) -> CannotRecord:
        """Keep what was recorded until something failed, and return the sentence about it."""
        name = self.tracefs.shown(os.fsdecode(problem.filename)) if isinstance(problem.filename, (str, bytes)) else ""
        what = f"{name}{': ' if name else ''}{what_happened(problem)}"
        of_disk = problem.errno in OF_DISKS and not name.startswith(str(self.tracefs.place))
        todo = next_step(problem.errno) if of_disk or problem.errno in _OF_PROCESSES else kernel_step(problem.errno)
        if self._status.get("start") is None:
            return CannotRecord(f"nothing was recorded ({what})", todo)
        self._status["ended"] = f"it ended early ({what})"
        # Where nothing can be written any more, that is what the files say.
        with contextlib.suppress(OSError):
            if self._watch is not None:
                self._watch.check(_now())
            losses = self.meta.losses()
            self._status["losses"]["cpus"] = losses
            self.capture.end_early(self._whole_until(), losses)
        with contextlib.suppress(OSError):
            self.capture.write_json("capture.json", self._status)
        return CannotRecord(f"recording into {self.capture.path} ended early ({what}); what was recorded before is "
                            "kept, marked as incomplete", f"import what there is; {todo}")

    def _whole_until(self) -> int:
        """Return a time before which every event is in the files, ns."""
        return self._complete

    # Before

    def _arm(self) -> None:
        options, mode, own = self.options, self.options.pages, self.tracefs.names
        # Arming takes seconds: a recorder killed meanwhile leaves a directory that says what it is.
        self._status = {"zreplay_capture": 1, "complete": False, "recorder": VERSION, "start": None, "bases": {},
                        "plan": [], "notes": [], "losses": {}}
        self.capture.write_json("capture.json", self._status)
        self.capture.write("version.txt", self.box.version_text())
        kernel = self.box.kernel()
        names = list(dict.fromkeys([*self.box.compressors(), *options.compressors]))
        planned = plan(kernel, mode.content, own.group, names)
        page_events, notes = page_plan(kernel, names, own.page_group) if mode.recorded else ([], [])
        used, refused = self.tracefs.define(planned)
        planned = [row._replace(lines=(), why=refused[row.event]) if row.event in refused else row for row in planned]
        if not used:
            raise CannotRecord("the kernel took none of the probes", "see what it offers with 'zreplay record --plan'")
        pages_used, pages_refused = self.tracefs.define(page_events)
        notes += [f"page contents: {why}" for why in pages_refused.values()]
        functions = {row.function for row in page_events if row.event in pages_used}
        self._looked_at = [name for name in names if PAGE_SOURCES.get(name, ("",))[0] in functions]
        buffer_kb = options.buffer_kb or ring_kb(self.box.memory_kb(), 1 + bool(pages_used))
        self.meta = Instance(self.tracefs, own.instances[0], buffer_kb, cpus=self._cpus)
        self.pages = Instance(self.tracefs, own.instances[1], buffer_kb, _PAGE_SUBBUF_KB, self._cpus) if pages_used \
            else None
        # A ring and its file; of pages the ring, an index, and their bytes where they are kept.
        self._allow_files(2 + (2 + bool(mode.every)) * (self.pages is not None))
        self._write_formats(used)
        disarmed = self.meta.enable(own.group, used)
        for event in disarmed:
            used.pop(event)
        planned = [row._replace(lines=(), why=disarmed[row.event]) if row.event in disarmed else row
                   for row in planned]
        self._own_lru_only(used, notes)
        self._readers = [RingCopier(self.meta.cpus(), self.meta.subbuf, 1024 * buffer_kb, self._events_file)]
        if self.pages is not None:
            notes += [f"page contents: {why}" for why in self.pages.enable(own.page_group, pages_used).values()]
            self._taker = PageTaker(mode, {name: self.pages.format(own.page_group, name) for name in pages_used},
                                    self.pages.subbuf, self.capture.appending, self._key.key)
            # One sub-buffer at a time: more would only be copied to lie in a row.
            self._readers.append(RingReader(self.pages.cpus(), self.pages.subbuf, 1024 * buffer_kb, self._taker,
                                            self.pages.subbuf))
            self._readers[1].more = self.pages.cpus
        self._readers[0].more = self.meta.cpus
        self._look_after([(self.meta, own.group, used)] + ([(self.pages, own.page_group, pages_used)]
                                                           if self.pages is not None else []), notes)
        self._describe(planned, used, notes, kernel.btf is not None, buffer_kb)

    def _allow_files(self, each: int) -> None:
        """Let this process have ``each`` open files per CPU.

        :raises CannotRecord: when it may not
        """
        now = len(self.meta.cpus())
        self._limits = allow(each * len(self.meta.cpus(every=True)), each * now, f"the rings of {now} CPUs")

    def _look_after(self, instances: list[tuple[Instance, str, dict[str, str]]], notes: list[str]) -> None:
        """Watch from now on what other processes do to what was set up."""
        self._watch = Watch(self.tracefs, instances)
        if self._watch.blind:
            notes.append(f"the kernel has no inotify for the recorder ({self._watch.blind}): what other processes do "
                         "to its switches is noticed only where it lasts")

    def _own_lru_only(self, used: dict[str, str], notes: list[str]) -> None:
        """Leave out calls for other LRUs and parameters of the system, where the kernel has filters for that."""
        lru = self.box.addresses.get("zswap_list_lru")
        if lru is None:
            notes.append("zswap_list_lru is not among the kernel's symbols: list_lru events of other LRUs are recorded "
                         "too (kernel.kptr_restrict may hide it)")
            return
        for event in ("lru_add", "lru_add_ret", "lru_del"):
            if event in used and not self.meta.filter(self.tracefs.names.group, event, f"lru == {lru:#x}"):
                notes.append(f"the kernel takes no filter for {event}: those of other LRUs are recorded too")

        # Parameters of other modules do not belong in a recording.
        if "param_set" in used and not self.meta.filter(self.tracefs.names.group, "param_set", 'name ~ "zswap.*"'):
            notes.append("the kernel takes no filter for param_set: writes to parameters of other modules are recorded "
                         "too")

    def _write_formats(self, used: dict[str, str]) -> None:
        events = self.tracefs.root / "events"
        for name in ("header_page", "header_event"):
            self.capture.write(f"formats/{name}", (events / name).read_text())
        for event in used:
            self.capture.write(f"formats/{event}", self.meta.format(self.tracefs.names.group, event))
        self.capture.write("dynamic_events.txt", self.tracefs.definitions())

    def _describe(self, planned: list[Planned], used: dict[str, str], notes: list[str], btf: bool,
                  buffer_kb: int) -> None:
        box, options = self.box, self.options
        config = box.config_text()
        if config:
            self.capture.write("kernel.config", config)
        else:
            notes.append("no kernel configuration was found: give --chain-size when importing if it is not 8")
        self.capture.write_json("symbols.json", {name: f"{value:x}" for name, value in box.addresses.items()})
        for note in notes:
            say(f"note: {note}.")
        self._status = {
            "zreplay_capture": 1, "complete": False, "recorder": VERSION, "backend": "tracefs", "clock": "mono",
            "start": None, "stop": None, "box": box.facts(), "bases": box.bases(), "btf": btf,
            "pages": {"mode": options.pages.text, "compressors": self._looked_at,
                      "digest": "keyed BLAKE2b, 32 bytes; SHA-1 where bytes are kept", "key": self._key.name},
            "buffer_kb": buffer_kb, "cgroup": str(options.cgroup) if options.cgroup is not None else None,
            "command": os.path.basename(options.command[0]) if options.command else None,
            "cpus": {"online": cpu_text(self._cpus.online or ()), "rings": "", "changes": []}, "interference": [],
            "plan": as_json(planned, used), "notes": notes, "losses": {"cpus": {}, "pages": {}, "probes": {}}}
        self.capture.write_json("capture.json", self._status)

    # While

    def _events_file(self, cpu: int) -> AppendFile:
        return self.capture.appending(f"zmeta.cpu{cpu}.raw")

    def _hand_over_pages(self) -> None:
        """Have pages hashed by a process of their own."""
        if self._taker is not None and len(self._readers) == 2:
            self.capture.foreign = "pages.cpu*"
            self._worker = PageWorker(self._readers[1], self._taker, self._let_go)

    def _let_go(self) -> None:
        """In a process that only reads the pages' rings: close what else it has of tracefs."""
        self.tracefs.unlock()
        self._readers[0].close()

    def _record(self) -> None:
        options = self.options
        # A pipe that is also open for writing never ends.
        os.mkfifo(self.capture.path / "control", 0o600)
        self._control = os.open(self.capture.path / "control", os.O_RDWR | os.O_NONBLOCK)
        self.capture.reserve()
        # Snapshot first: what happens before the rings are on must not be missing from it.
        first = self.snapshot("before")
        self._note_state(first)
        start = _now()
        if self.pages is not None:
            self.pages.switch(True)
        self.meta.switch(True)
        self._complete = start
        if self._watch is not None:
            self._watch.begin(start)
            self.capture.extra["interference"] = self._watch.found
            self._status["interference"] = self._watch.found
        # Settings once more: from here on the probes see every write to one, and which cgroup is which.
        self.capture.change_snapshot("before", {**first, "settings": read_settings()})
        self._status["start"] = start
        self.capture.write_json("capture.json", self._status)
        # The command to copy has a line of its own.
        say(f"recording into {self.capture.path}; Ctrl-C stops it, or from elsewhere:\n"
            f"  echo stop > {self.capture.path}/control")
        self._hand_over_pages()
        if options.command:
            self._start_command()
        if self.locks_memory:
            # After the command was started: that has its memory as it would have it alone.
            lock_memory()
        # The command has the priority it would have alone; a recorder that gets no CPU loses events.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        flushed = snapped = rounded = time.monotonic()
        began = start
        commands = b""
        with Waiter(self._control, [reader.pipes() for reader in self._readers], self._child) as waiter:
            while not self.stopping:
                ended, ordered, full = waiter.wait(self._until_next(rounded, start))
                if ordered:
                    commands = self._commands(commands + os.read(self._control, 4096))
                if full[1] and self._worker is not None:
                    self._worker.hurry(_NICE)
                now = time.monotonic()
                if full[0] or now - rounded >= self.round_every:
                    # A round hands over every event from before its beginning, except one that a CPU was
                    # writing just then: that one follows a round later.
                    begins = _now()
                    much = self._round(self.round_every) > _MUCH
                    self._complete, began, rounded = began, begins, now
                    if much:
                        rounded -= self.round_every
                    self._look_around()
                    waiter.follow([reader.pipes() for reader in self._readers])
                    if now - flushed >= options.flush_every:
                        if self._worker is not None:
                            self._worker.check()
                        self.capture.flush(self._complete, self.meta.losses())
                        flushed = now
                if options.snapshot_every and now - snapped >= options.snapshot_every:
                    self.snapshot("periodic")
                    snapped = now
                if options.duration is not None and _now() - start >= options.duration * 1e9:
                    break
                if ended or (self._child is not None and self._child.poll() is not None):
                    break

    def _look_around(self) -> None:
        """Notice what others do to the box while it is recorded: to the recorder's switches, to CPUs, to tracefs."""
        new = self._watch.check(_now()) if self._watch is not None else []
        for what in new:
            say(f"note: {what}: from now on events may be missing, and how many is not known.")
        changes = self._cpus.changes[len(self._status["cpus"]["changes"]):]
        self._status["cpus"]["changes"] += [{"cpu": number, "online": online, "ts": ts}
                                            for number, online, ts in changes]
        for text in changes_in_words((number, online) for number, online, _ in changes):
            say(f"note: {text}.")
        if any(online for _, online, _ in changes):
            for reader in self._readers[1:]:
                # Another process reads them and finds them, too: here they are for the wait until they are full.
                if reader.more is not None:
                    reader.add(reader.more(False))
        if not self._unmounted and not self.tracefs.mounted:
            self._unmounted = True
            note = f"tracefs was unmounted from {self.tracefs.place} while it was recorded"
            say(f"note: {note}: recording continues, but commands find no trace_marker.")
            self._status["notes"].append(note)
            new = [note]
        if new or changes:
            self.capture.write_json("capture.json", self._status)

    def _until_next(self, rounded: float, start: int) -> float:
        """Return seconds until there is something to do."""
        # A signal does not end a wait; the request to stop is noticed only afterwards.
        wait = min(rounded + self.round_every - time.monotonic(), _LOOK)
        if self.options.duration is not None:
            wait = min(wait, self.options.duration - (_now() - start) / 1e9)
        return max(wait, 0.0)

    def _round(self, page_seconds: float = math.inf) -> int:
        events, *pages = self._readers
        if self._worker is not None:
            return events.round()
        # Hashing takes longer than copying: behind a busy compressor it must not keep the events waiting.
        return events.round() + sum(reader.round(page_seconds) for reader in pages)

    def _start_command(self) -> None:
        options = self.options
        # A command that is itself a recorder, of another instance, passes on the places where both listen.
        mine = {"ZREPLAY_CONTROL": str((self.capture.path / "control").resolve()),
                "ZREPLAY_MARKER": self.tracefs.shown(self.meta.path / "trace_marker")}
        environment = dict(os.environ)
        if self._taker is not None:
            # It has to name its pages' contents as the recording does.
            offer = self._key.offer(os.path.realpath(self.capture.path), options.pages.every)
            if offer:
                mine[VARIABLE] = offer
        for name, path in mine.items():
            environment[name] = os.pathsep.join(filter(None, (environment.get(name), path)))
        limits = self._limits
        try:
            # No thread of this process runs yet.
            self._child = subprocess.Popen(options.command, env=environment,
                                           preexec_fn=(lambda: back_to(limits)) if limits is not None else None)
        except OSError as problem:
            raise CannotRecord(f"the command {options.command[0]} cannot be started ({what_happened(problem)})",
                               next_step(problem.errno, "check its name")) from None

    def _commands(self, text: bytes) -> bytes:
        """Obey the lines written to the control pipe; returns what is not a whole line yet."""
        *lines, rest = text.split(b"\n")
        for line in lines:
            verb, _, argument = line.decode("utf-8", "replace").strip().partition(" ")
            if verb == "stop":
                self.stopping = True
            elif verb == "snapshot" and _LABEL.fullmatch(argument):
                self.snapshot(argument)
            elif verb == "mark" and argument:
                with contextlib.suppress(OSError), (self.meta.path / "trace_marker").open("w") as marker:
                    marker.write(argument)
            elif verb:
                say(f"'{line[:60].decode('utf-8', 'replace')}' is not a command (snapshot LABEL, mark TEXT, stop).")
        return rest[:4096]

    def snapshot(self, label: str) -> dict[str, Any]:
        """Take a counter snapshot and return it."""
        values = snapshot(self.options.cgroup)
        self.capture.add_snapshot(label, values)
        return values

    def _note_state(self, values: dict[str, Any]) -> None:
        """Warn of what makes a recording of little use, while the user can still mend it."""
        if values["params"].get("enabled") != "Y":
            say("note: zswap is not enabled; switch it on with: echo Y > /sys/module/zswap/parameters/enabled.")
        held = values["zswap_debugfs"].get("stored_pages", "0")
        if held != "0":
            note = f"zswap holds {held} pages already, and what they are is not recorded: a replay cannot PASS"
            say(f"note: {note}; swapoff and swapon before recording empty it.")
            self._status["notes"].append(note)

    # After

    def _finish(self) -> None:
        self.snapshot("end")
        if self._watch is not None:
            # All that was set up, before the recorder itself changes some of it.
            self._watch.check(_now(), slow=True)
            self._watch.expect("tracing_on")
        # The rings' own switch comes before the probes': an event that is off alone leaves returns without entries.
        self.meta.switch(False)
        stop = _now()
        if self.pages is not None:
            self.pages.switch(False)
        if self._worker is not None:
            self._readers[0].rest()
        else:
            for reader in self._readers:
                reader.rest()
        self._cpus.seen.update(self._readers[0].numbers())
        broken = self._taker.broken if self._taker is not None else 0
        if self._worker is not None:
            broken = self._worker.end(_NICE)["broken"]
        self._look_around()
        losses = self.meta.losses()
        missed = self.tracefs.missed()
        probes = {row["event"]: missed.get(row["event"], "unknown") for row in self._status["plan"] if row["probe"]}
        self._status["losses"] = {"cpus": losses, "probes": probes,
                                  "pages": self.pages.losses() if self.pages is not None else {},
                                  "broken_pages": broken}
        self._status["cpus"]["rings"] = cpu_text(self._readers[0].numbers())
        if self.counts_what_it_takes:
            self._status["rings"] = self.meta.taken()
        self._status.update(stop=stop, complete=True)
        if self._child is not None:
            self._status["command_status"] = self._child.poll()
            if self._child.poll() is None:
                say(f"the command continues unrecorded (process {self._child.pid}).")
        self.capture.flush(stop, losses, wait=True)
        self.capture.write_json("capture.json", self._status)
        if self.options.pack:
            self._pack(stop, losses)

    def _pack(self, until: int, losses: dict[str, Any]) -> None:
        """Compress the capture's files; Ctrl-C leaves the rest as they were recorded."""
        self.stopping = False
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness)
        if self.capture.size() > _LONG:
            say(f"compressing {self.capture.size() >> 20:,} MiB of capture; Ctrl-C leaves the rest as it is.")
        try:
            self.capture.pack(lambda: self.stopping)
            # Sizes of what is there now: a copy that was cut is found by them.
            self.capture.foreign = ""
            self.capture.flush(until, losses, wait=True)
        except OSError as problem:
            say(f"note: the capture is whole, but not all of it could be compressed ({what_happened(problem)}).")

    def _seal(self) -> None:
        """Write the sums by which a damaged copy of the capture is found; without them it is read all the same."""
        try:
            # A command that still runs may still write what it knows.
            goes_on = self._child is not None and self._child.poll() is None
            self.capture.seal(growing=("truth.csv",) if goes_on else ())
        except OSError as problem:
            say("note: the capture is whole, but the sums of its files could not be written "
                f"({what_happened(problem)}): damage to a copy may go unseen.")
