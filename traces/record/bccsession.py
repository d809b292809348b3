# SPDX-License-Identifier: GPL-2.0-or-later
"""One recording as the bcc back end makes it: kprobes with BPF programs, one BPF ring, the same capture.

The kprobes are tracefs events without fields, so that they are found and removed like those of the other back end
and the kernel counts what they miss; markers go through a tracefs instance.  BCC compiles and loads their programs.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import mmap
import os
import re
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import bccprogram
from .bccprogram import Definition, Program
from .bccring import SUBBUF, Sorter, SubbufferWriter, events_in
from .box import Box
from .capture import AppendFile, CaptureWriter
from .errors import CannotRecord
from .names import TracefsNames
from .oserrors import what_happened
from .pages import PageTaker
from .plan import Planned, page_plan, plan
from .rings import RingReader
from .session import VERSION, Options, Session, ring_kb
from .tracefs import Instance, Tracefs

__all__ = ["BccSession", "load_bcc"]

_HEAD = struct.calcsize(bccprogram.HEAD)
_PAGE_HEAD = struct.calcsize(bccprogram.PAGE_HEAD)
#: Sub-buffers of page halves, as they pass to what pairs them; they are not written.
_PAGE_SUBBUF = 1 << 16
#: Records taken from a ring in one go: between two of these markers are read and files are flushed.
_AT_ONCE, _PAGES_AT_ONCE = 65536, 4096
#: Bytes of a BPF ring, at least and at most.
_RING = (1 << 20, 1 << 29)
#: KiB per CPU of the instance that holds markers alone.
_MARKER_KB = 256
#: type of a marker's event, TRACE_PRINT in kernel/trace/trace.h.
_PRINT = 5
#: Longer than any handler runs, seconds.
_SETTLE = 0.02
_INSTALL = "install iovisor BCC (apt install python3-bpfcc), or record with --backend tracefs"


def load_bcc() -> Any:
    """Return the module ``bcc`` of iovisor BCC.

    :raises CannotRecord: when it is missing, cannot be loaded, or another module has its name
    """
    try:
        module = importlib.import_module("bcc")
    except ModuleNotFoundError as problem:
        if problem.name == "bcc":
            raise CannotRecord("this Python has no module bcc", _INSTALL) from None
        raise CannotRecord(f"the module bcc that was found is not usable (it needs {problem.name})", _INSTALL) from None
    except (ImportError, OSError) as problem:
        raise CannotRecord(f"the module bcc cannot be loaded ({str(problem)[:120]})", _INSTALL) from None
    if not hasattr(module, "BPF"):
        raise CannotRecord("the module bcc that was found is PyPI's crystal-lattice library, not iovisor BCC",
                           "remove it (pip uninstall bcc) and install iovisor BCC (apt install python3-bpfcc)")
    return module


def ring_pages(wanted: int) -> int:
    """Return the size of a BPF ring in memory pages, a power of 2, for one of ``wanted`` bytes."""
    size = min(max(wanted, _RING[0]), _RING[1])
    return (1 << size.bit_length() - 1) // os.sysconf("SC_PAGE_SIZE")


def _possible_cpus() -> int:
    """Return a number above every CPU number, also of CPUs that are plugged in later."""
    try:
        numbers = re.findall(r"\d+", Path("/sys/devices/system/cpu/possible").read_text())
    except OSError:
        numbers = []
    return max([os.cpu_count() or 1, *(int(number) + 1 for number in numbers)])


class _Bpf:
    """A loaded program: its switch, counters, and rings.

    :param module: iovisor BCC
    :param program: what to load
    :param group: of its hooks in tracefs
    :raises CannotRecord: when it cannot be compiled or loaded
    """

    def __init__(self, module: Any, program: Program, group: str) -> None:
        self._module = module
        self._group = group.encode()
        self._program = program
        self._attached: list[int] = []
        self._programs: dict[str, Any] = {}
        before = os.environ.get("BCC_KERNEL_SOURCE")
        with tempfile.TemporaryDirectory(prefix="zreplay-") as headers:
            bccprogram.write_headers(Path(headers), os.uname().release)
            os.environ["BCC_KERNEL_SOURCE"] = headers
            try:
                self._bpf = module.BPF(text=program.text, cflags=["-w"])
            except Exception as problem:
                # BCC raises no narrower exception.
                raise CannotRecord(f"BCC cannot compile the probes ({str(problem).splitlines()[0][:120]})",
                                   "record with --backend tracefs") from None
            finally:
                if before is None:
                    del os.environ["BCC_KERNEL_SOURCE"]
                else:
                    os.environ["BCC_KERNEL_SOURCE"] = before
        cells = 1 + program.cpus * program.per_cpu
        try:
            self._memory = mmap.mmap(self._bpf["shared"].map_fd, 8 * cells)
        except OSError as problem:
            self._bpf.cleanup()
            raise CannotRecord(f"the kernel does not let BPF maps be mapped ({what_happened(problem)})",
                               "record with --backend tracefs, or on Linux 5.5 or later") from None
        self._cells = (ctypes.c_uint64 * cells).from_buffer(self._memory)

    def attach(self) -> dict[str, str]:
        """Attach all handlers, in the order of the hooks; return why the kernel refused some of them.

        :raises CannotRecord: when a handler cannot be loaded
        """
        refused = {}
        for hook in self._program.hooks:
            try:
                loaded = self._bpf.load_func(hook.handler, self._module.BPF.KPROBE)
            except Exception as problem:
                raise CannotRecord(f"the kernel does not take the BPF program of {hook.name} "
                                   f"({str(problem).splitlines()[0][:120]})", "record with --backend tracefs") from None
            fd = self._module.lib.bpf_attach_tracepoint(loaded.fd, self._group, hook.name.encode())
            if fd < 0:
                refused[hook.name] = "the kernel would not attach the BPF program"
                continue
            self._attached.append(fd)
            self._programs[hook.name] = loaded
        return refused

    def switch(self, on: bool) -> None:
        """Let handlers write records, or not."""
        self._cells[0] = on

    def open(self, name: str, callback: Callable[[Any, Any, int], int]) -> None:
        """Have a ring's records given to ``callback``; while it returns a negative number no more come."""
        self._bpf[name].open_ring_buffer(callback)

    def consume(self) -> None:
        """Give all records of the open rings to their callbacks."""
        self._bpf.ring_buffer_consume()

    def kinds(self, kind: int) -> list[int]:
        """Return the losses of a kind by CPU number."""
        return [self._cells[first + kind] for first in self._first_cells()]

    def counter(self, number: int) -> int:
        """Return a counter of the program, summed over CPUs."""
        return sum(self._cells[first + bccprogram.KINDS + number] for first in self._first_cells())

    def _first_cells(self) -> range:
        """Return where each CPU's counters begin."""
        return range(1, len(self._cells), self._program.per_cpu)

    def recursion(self, hook: str) -> int | None:
        """Return how often the kernel skipped a hook's program because one was running, None when it is unknown."""
        loaded = self._programs.get(hook)
        try:
            text = Path(f"/proc/self/fdinfo/{loaded.fd}").read_text() if loaded is not None else ""
        except OSError:
            return None
        found = re.search(r"^recursion_misses:\s*(\d+)", text, re.M)
        return int(found[1]) if found else None

    def close(self) -> None:
        """Detach and unload everything."""
        for fd in self._attached:
            self._module.lib.bpf_close_perf_event_fd(fd)
        self._attached = []
        # The mapping ends with its last view.
        del self._cells
        self._memory.close()
        self._bpf.cleanup()


class _Source:
    """Reads records from the BPF rings.

    :param bpf: loaded program
    :param sorter: what events go to
    :param pages: what sub-buffers of page halves go to, by CPU
    """

    def __init__(self, bpf: _Bpf, sorter: Sorter, pages: Callable[[int, bytes], None] | None) -> None:
        self._bpf = bpf
        self._sorter = sorter
        self._take_pages = pages
        self._events: list[bytes] = []
        self._pages: list[bytes] = []
        self._stopped = False
        #: Set when no more records will arrive, and when a round after that found none.
        self.closing = self.idle = False
        bpf.open("events", self._event)
        if pages is not None:
            bpf.open("pages", self._page)

    def _event(self, _context: Any, data: Any, size: int) -> int:
        self._events.append(ctypes.string_at(data, size))
        self._stopped = len(self._events) >= _AT_ONCE
        return -1 if self._stopped else 0

    def _page(self, _context: Any, data: Any, size: int) -> int:
        self._pages.append(ctypes.string_at(data, size))
        self._stopped = len(self._pages) >= _PAGES_AT_ONCE
        return -1 if self._stopped else 0

    def round(self) -> int:
        """Pass on what is in the rings; returns how many bytes that was."""
        total = 0
        # A ring that is filled as fast as it is read must not keep the other one waiting for ever.
        for _ in range(4):
            self._stopped = False
            self._bpf.consume()
            total += self._pass_on()
            if not self._stopped:
                break
        self.idle = self.closing and not total
        return total

    def _pass_on(self) -> int:
        events, pages = self._events, self._pages
        self._events, self._pages = [], []
        head = struct.Struct(bccprogram.HEAD).unpack_from
        for record in events:
            begun, ts, cpu, missing = head(record)
            self._sorter.add(begun, ts, cpu, missing, record[_HEAD:])
        if self._take_pages is not None and pages:
            self._halves(pages, self._take_pages)
        return sum(map(len, events)) + sum(map(len, pages))

    @staticmethod
    def _halves(pages: list[bytes], take: Callable[[int, bytes], None]) -> None:
        """Hand over pages as the halves that the other back end's rings hold."""
        writers: dict[int, SubbufferWriter] = {}
        half = bccprogram.PAGE_HALF
        for record in sorted(pages, key=lambda record: record[7::-1]):
            ts, cpu, pid, number, source = struct.unpack_from(bccprogram.PAGE_HEAD, record)
            if cpu not in writers:
                writers[cpu] = SubbufferWriter(lambda data, cpu=cpu: take(cpu, data),  # type: ignore[misc]
                                               _PAGE_SUBBUF)
            for upper, (event, _) in enumerate(bccprogram.half_formats(number)):
                content = record[_PAGE_HEAD + upper * half:_PAGE_HEAD + (upper + 1) * half]
                writers[cpu].event(ts, struct.pack("<HBBiQ", event, 0, 0, pid, source) + content)
        for writer in writers.values():
            writer.flush()

    def close(self) -> None:
        """Detach the probes and let go of the rings."""
        self._bpf.close()


class _Reader:
    """The session's only reader: BPF rings, then markers, then what is complete of both.

    :param source: the reader of the BPF rings
    :param markers: the reader of the markers' instance
    """

    def __init__(self, source: _Source, markers: RingReader, bpf: _Bpf, sorter: Sorter) -> None:
        self._source = source
        self._markers = markers
        self._bpf = bpf
        self._sorter = sorter

    #: New CPUs are found by the reader of markers.
    more = None

    def numbers(self) -> list[int]:
        """Return the CPUs that have a ring for markers."""
        return self._markers.numbers()

    def rest(self) -> None:
        """Write all that is left."""
        if self._markers.more is not None:
            self._markers.add(self._markers.more(True))
        while self.round():
            pass

    def pipes(self) -> list[int]:
        """Return no file descriptors: BPF rings are looked into round by round."""
        return []

    def round(self, _seconds: float = math.inf) -> int:
        """Write what is complete; returns 0 only when nothing came, and at the end when nothing is left."""
        # Markers last: one that is older than the events that are let go must be there by then.
        total = self._source.round() + self._markers.round()
        released = self._sorter.release(self._source.idle)
        if self._source.idle:
            self._sorter.end(self._bpf.kinds(bccprogram.EVENTS))
        return total + released if self._source.closing else total

    def close(self) -> None:
        """Detach the probes and let go of the rings."""
        self._markers.close()
        self._source.close()


class _Rings(Instance):
    """The instance for markers, with the switch and the losses of the BPF ring."""

    bpf: _Bpf | None = None
    source: _Source | None = None

    def switch(self, on: bool) -> None:
        """Switch markers and events on or off."""
        if on:
            super().switch(True)
        if self.bpf is not None:
            self.bpf.switch(on)
        if not on:
            super().switch(False)
            # A handler that began before the switch may still be writing.
            time.sleep(_SETTLE)
            if self.source is not None:
                self.source.closing = True

    def losses(self) -> dict[str, dict[str, Any]]:
        """Return losses per CPU: records without room as overruns, markers as dropped."""
        counts = self.bpf.kinds(bccprogram.EVENTS) if self.bpf is not None else []
        found: dict[str, dict[str, Any]] = {}
        for cpu, markers in super().losses().items():
            number = int(cpu)
            values = list(markers.values())
            found[cpu] = {"overrun": counts[number] if number < len(counts) else "unknown", "commit_overrun": 0,
                          "dropped": "unknown" if "unknown" in values else sum(values)}
        return found


class _PageRing(Instance):
    """What the session asks of the instance for pages, of a BPF ring, which the events' switch switches too."""

    def __init__(self, bpf: _Bpf, cpus: list[int]) -> None:
        # No instance stands behind it.
        self._bpf = bpf
        self._numbers = cpus

    def switch(self, on: bool) -> None:
        """Do nothing: see the class."""

    def losses(self) -> dict[str, dict[str, Any]]:
        """Return pages without room per CPU."""
        counts = self._bpf.kinds(bccprogram.PAGES)
        return {str(cpu): {"overrun": counts[cpu], "commit_overrun": 0, "dropped": 0} for cpu in self._numbers}


class _Tracefs(Tracefs):
    """A tracing directory whose probes have BPF programs."""

    bpf: _Bpf | None = None
    program: Program | None = None

    def missed(self) -> dict[str, int]:
        """Return missed hits per event: by the kprobe, by the BPF program, or for arguments that were not kept."""
        counts = super().missed()
        if self.bpf is None or self.program is None:
            return counts
        found = {}
        for number, event in enumerate(self.program.events):
            total = self.bpf.counter(len(self.program.events) + number)
            for hook in {event, self.program.pairs.get(event, event)}:
                skipped = self.bpf.recursion(hook)
                if skipped is None or hook not in counts:
                    break
                total += counts[hook] + skipped
            else:
                found[event] = total
        return found


class _Capture(CaptureWriter):
    """A capture that counts as whole only as far as the sorter has handed on."""

    sorter: Sorter | None = None

    def flush(self, until: int, losses: dict[str, Any], wait: bool = False) -> None:
        """See :meth:`CaptureWriter.flush`; the last flush, which is waited for, has everything."""
        if self.sorter is not None and not wait:
            until = min(until, self.sorter.complete)
        super().flush(until, losses, wait)


class BccSession(Session):
    """Records through BPF programs; see :class:`session.Session`.

    :raises CannotRecord: also when iovisor BCC is not there
    """

    tracefs: _Tracefs
    capture: _Capture
    locks_memory = False
    # Its files are sub-buffers of its own making.
    counts_what_it_takes = False

    def __init__(self, path: Path, options: Options, box: Box) -> None:
        if os.uname().machine != "x86_64":
            raise CannotRecord("the bcc back end knows the registers of x86-64 only", "record with --backend tracefs")
        self._module = load_bcc()
        super().__init__(path, options, box)
        # BPF rings need no such setting.
        self.round_every = min(self.round_every, 0.1)
        self._raw: dict[int, AppendFile] = {}
        self._definitions: list[Definition] = []
        self._lines: dict[str, str] = {}

    def _make_tracefs(self, names: TracefsNames) -> _Tracefs:
        return _Tracefs(names=names)

    def _make_capture(self, path: Path) -> _Capture:
        return _Capture(path)

    def _arm(self) -> None:
        options, mode, own = self.options, self.options.pages, self.tracefs.names
        # Arming takes seconds: a recorder killed meanwhile leaves a directory that says what it is.
        self._status = {"zreplay_capture": 1, "complete": False, "recorder": VERSION, "backend": "bcc", "start": None,
                        "bases": {}, "plan": [], "notes": [], "losses": {}}
        self.capture.write_json("capture.json", self._status)
        self.capture.write("version.txt", self.box.version_text())
        kernel = self.box.kernel()
        names = list(dict.fromkeys([*self.box.compressors(), *options.compressors]))
        planned = plan(kernel, mode.content, own.group, names)
        page_events, notes = page_plan(kernel, names, own.page_group) if mode.recorded else ([], [])
        lru = self.box.addresses.get("zswap_list_lru")
        if lru is None:
            notes.append("zswap_list_lru is not among the kernel's symbols: list_lru events of other LRUs are recorded "
                         "too (kernel.kptr_restrict may hide it)")
        self._lines = {row.event: row.lines[-1] for row in planned if row.lines}
        definitions, refused = bccprogram.definitions_of(planned)
        pages = [(f"pg{number}", row.function, row.lines[-1].split()[2][len("src="):-len(":x64")])
                 for number, row in enumerate(page_events[::2])]
        buffer_kb = options.buffer_kb or ring_kb(self.box.memory_kb(), 1 + bool(pages))
        size = ring_pages(1024 * buffer_kb * (os.cpu_count() or 1))
        program = bccprogram.program(definitions, pages, lru, size, size, own.group, _possible_cpus())
        # What the kernel refuses is known before the program is compiled, which takes seconds.
        _, why = self.tracefs.define(Planned(hook.name, "", "", (hook.line,), "", ()) for hook in program.hooks)
        if why:
            refused.update(self._because(program, why))
            definitions = [row for row in definitions if row.event not in refused]
            notes += [f"page contents: {why[event]}" for event, _, _ in pages if event in why]
            pages = [row for row in pages if row[0] not in why]
            program = bccprogram.program(definitions, pages, lru, size, size, own.group, _possible_cpus())
        if not definitions:
            raise CannotRecord("the kernel took none of the probes", "see what it offers with 'zreplay record --plan'")
        self._load(program, pages, refused, notes, buffer_kb)
        self._definitions = [row for row in definitions if row.event not in refused]
        planned = [row._replace(lines=(), why=refused[row.event]) if row.event in refused else row for row in planned]
        used = {row.event: self._lines[row.event] for row in self._definitions}
        self._write_bcc_formats(definitions)
        self._describe(planned, used, notes, kernel.btf is not None, buffer_kb)

    @staticmethod
    def _because(program: Program, why: dict[str, str]) -> dict[str, str]:
        """Return the events that are lost with hooks, and why."""
        return {event: why[hook] for event in program.events
                for hook in (event, program.pairs.get(event, event)) if hook in why}

    def _load(self, program: Program, pages: list[tuple[str, str, str]], refused: dict[str, str], notes: list[str],
              buffer_kb: int) -> None:
        self.meta = rings = _Rings(self.tracefs, self.tracefs.names.instances[0], _MARKER_KB, cpus=self._cpus)
        self._allow_files(2 + bool(pages) * (1 + bool(self.options.pages.every)))
        bpf = _Bpf(self._module, program, self.tracefs.names.group)
        try:
            sorter = Sorter(self._take_events)
            if pages:
                formats = {f"pg{number}_{half}": text for number in range(len(pages))
                           for half, (_, text) in enumerate(bccprogram.half_formats(number))}
                self._taker = PageTaker(self.options.pages, formats, _PAGE_SUBBUF, self.capture.appending,
                                        self._key.key)
            source = _Source(bpf, sorter, self._taker)
        except BaseException:
            bpf.close()
            raise
        markers = RingReader(rings.cpus(), rings.subbuf, 1024 * _MARKER_KB,
                             lambda cpu, data: self._markers(sorter, cpu, data, rings.subbuf))
        markers.more = rings.cpus
        self._readers: list[Any] = [_Reader(source, markers, bpf, sorter)]
        why = bpf.attach()
        refused.update(self._because(program, why))
        notes += [f"page contents: {why[event]}" for event, _, _ in pages if event in why]
        self.pages = _PageRing(bpf, [number for number, _ in rings.cpus()]) if pages else None
        rings.bpf = self.tracefs.bpf = bpf
        rings.source = source
        self.tracefs.program = program
        self.capture.sorter = sorter
        self._look_after([(rings, self.tracefs.names.group, {})], notes)

    def _take_events(self, cpu: int, data: bytes) -> None:
        if cpu not in self._raw:
            self._raw[cpu] = self._events_file(cpu)
        self._raw[cpu].write(data)

    @staticmethod
    def _markers(sorter: Sorter, cpu: int, data: bytes, subbuf: int) -> None:
        for ts, body in events_in(data, subbuf):
            if struct.unpack_from("<H", body)[0] == _PRINT:
                sorter.aside(ts, cpu, body)

    def _write_bcc_formats(self, definitions: list[Definition]) -> None:
        self.capture.write("formats/header_page", bccprogram.header_page(SUBBUF))
        self.capture.write("formats/header_event", bccprogram.header_event())
        # Ids count the events of the program, also those that could not be attached.
        for number, row in enumerate(definitions):
            self.capture.write(f"formats/{row.event}", bccprogram.event_format(number, row))
        self.capture.write("dynamic_events.txt", "".join(self._lines[row.event] + "\n" for row in self._definitions))

    def _describe(self, planned: list[Planned], used: dict[str, str], notes: list[str], btf: bool,
                  buffer_kb: int) -> None:
        super()._describe(planned, used, notes, btf, buffer_kb)
        self._status["backend"] = "bcc"
        self._status["bcc"] = str(getattr(self._module, "__version__", "unknown"))
        self.capture.write_json("capture.json", self._status)

    def _whole_until(self) -> int:
        return min(self._complete, self.capture.sorter.complete if self.capture.sorter is not None else 0)

    def _finish(self) -> None:
        super()._finish()
        program, bpf = self.tracefs.program, self.tracefs.bpf
        if program is None or bpf is None:
            return
        # Where the per-CPU counts of records without room come from.
        self._status["losses"]["reservations"] = {event: bpf.counter(number)
                                                  for number, event in enumerate(program.events)}
        with contextlib.suppress(OSError):
            self.capture.write_json("capture.json", self._status)
