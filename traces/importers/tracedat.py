# SPDX-License-Identifier: GPL-2.0-or-later
"""The container of trace-cmd: ``trace.dat``, file versions 6 and 7.

Mirrors trace-cmd.dat.v6(5) and trace-cmd.dat.v7(5), and what trace-cmd 3.1.6 really writes where that
differs from the pages (each place says so).  Only the container is read here: event formats stay text, and
CPU data stays the raw sub-buffers of the kernel's ring buffer, handed out in bounded pieces.

Version 6 is one sequence: headers, formats, symbols, comms, options, then a table of CPU regions for every
buffer.  Version 7 is a chain of option sections that point at all other sections; metadata sections are
compressed as one block, CPU regions in chunks of (with trace-cmd) ten sub-buffers.  Its string section only
describes the other sections to people, and is not read.

Every length and count is checked against what is left of the file, and every decompressed size against a
fixed bound, before memory is taken for it.  Every defect raises :class:`~traces.errors.BadInput`, with one
exception: CPU data that the end of the file cuts off is read as far as it goes and counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from traces.errors import BadInput
from traces.importers.binaryfile import DAMAGED, MAX_SECTION, MAX_STRING, ByteOrder, Cursor, File, text_of, unpack

__all__ = ["Buffer", "CpuData", "CpuStat", "Option", "TraceDat", "open_tracedat", "sniff_tracedat"]

_MAGIC: Final = b"\x17\x08\x44tracing"
_RERECORD: Final = "record again, or convert the file with 'trace-cmd convert --file-version 7'"

#: One decompressed chunk of CPU data: trace-cmd packs ten sub-buffers, and those are 4 to 64 KiB.
_MAX_CHUNK: Final = 32 << 20
#: CPU data is handed out in pieces of about this many bytes.
_PIECE: Final = 2 << 20
_MAX_PAGE: Final = 4 << 20
_MAX_CPU: Final = 1 << 16
_MAX_SYSTEMS: Final = 1 << 16
_MAX_OPTIONS: Final = 1 << 16
_MAX_SECTIONS: Final = 1 << 14
#: No recording is a PiB long: sizes above this are damage, not a file that was cut short.
_MAX_REGION: Final = 1 << 50

_COMPRESSED: Final = 1
_OPTION_NAMES: Final = (
    "DONE", "DATE", "CPUSTAT", "BUFFER", "TRACECLOCK", "UNAME", "HOOK", "OFFSET", "CPUCOUNT", "VERSION",
    "PROCMAPS", "TRACEID", "TIME_SHIFT", "GUEST", "TSC2NSEC", "STRINGS", "HEADER_INFO", "FTRACE_EVENTS",
    "EVENT_FORMATS", "KALLSYMS", "PRINTK", "CMDLINES", "BUFFER_TEXT", "BTF_FILE", "LAST_BOOT_INFO",
    "MODULES_FILE")
_ID: Final = {name: number for number, name in enumerate(_OPTION_NAMES)}
_TEXT_OPTIONS: Final = frozenset((
    "CPUSTAT", "TRACECLOCK", "UNAME", "HOOK", "VERSION", "PROCMAPS", "LAST_BOOT_INFO"))

_NAME_LINE: Final = re.compile(r"\s*name:\s*(\S+)")
_COMMIT_SIZE: Final = re.compile(r"\bcommit;\s*offset:\d+;\s*size:([48]);")
_CLOCK_CHOICE: Final = re.compile(r"\[([^\]\s]+)\]")


def sniff_tracedat(first_bytes: bytes) -> bool:
    """Return whether a file with these first 10 bytes is a trace.dat of any version."""
    return first_bytes.startswith(_MAGIC)


@dataclass(frozen=True)
class Option:
    """One option: its ``id``, its ``name`` in trace-cmd.dat.v7(5) and its decoded ``value``.

    ``value`` is a str for text, an int for numbers (DATE in us, OFFSET in ns, CPUCOUNT, TRACEID, offsets of
    sections), a tuple for TSC2NSEC (multiplier, shift, offset), TIME_SHIFT (peer's trace id, flags, CPUs)
    and GUEST (name, trace id, {CPU: pid on the host}), and the bytes as they are for all others.
    """

    id: int
    name: str
    value: object


@dataclass(frozen=True)
class CpuStat:
    """``per_cpu/cpuN/stats`` of one CPU at the end of recording; ``counters`` by the kernel's own names."""

    buffer: str
    cpu: int
    counters: dict[str, int | float]


@dataclass
class CpuData:
    """The ring-buffer data of one CPU in one buffer.

    ``stored_bytes`` is the size of its region as the file states it, ``page_size`` that of a sub-buffer,
    ``compression`` 'none', 'zlib' or 'zstd'.  ``truncated_bytes`` counts the bytes of the region that cannot
    be used: those past the end of the file, and those of a sub-buffer or compressed chunk that is not whole.
    For compressed data it is final only when :meth:`subbuffers` has run to its end.
    """

    cpu: int
    offset: int
    stored_bytes: int
    page_size: int
    compression: str
    _file: File = field(repr=False)
    _where: str = field(repr=False)
    _byteorder: ByteOrder = field(repr=False)
    truncated_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self._there = max(0, min(self.stored_bytes, self._file.size - self.offset))
        if self.compression == "none":
            self._there -= self._there % self.page_size
        self.truncated_bytes = self.stored_bytes - self._there

    def subbuffers(self) -> Iterator[bytes]:
        """Yield the data in order, in pieces of whole sub-buffers (about 2 MiB, none of them empty).

        Can be called again, and for several CPUs in turn.  A sub-buffer that the end of the file cuts is
        left out.

        :raises BadInput: when a compressed chunk is damaged; pieces before it have been yielded
        """
        if self.compression == "none":
            step = max(_PIECE - _PIECE % self.page_size, self.page_size)
            for at in range(0, self._there, step):
                yield self._file.read(self.offset + at, min(step, self._there - at))
            return
        held = bytearray()
        for chunk in self._chunks():
            held += chunk
            if len(held) >= max(_PIECE, self.page_size):
                whole = len(held) - len(held) % self.page_size
                yield bytes(held[:whole])
                del held[:whole]
        whole = len(held) - len(held) % self.page_size
        self.truncated_bytes += len(held) - whole
        if whole:
            yield bytes(held[:whole])

    def _chunks(self) -> Iterator[bytes]:
        # The size in the BUFFER option leaves out the 4 bytes of the chunk count in files of trace-cmd 3.1,
        # later versions count them: both are accepted.
        end = self.offset + self.stored_bytes
        source = Cursor(self._file, self._where, self._byteorder, self.offset, end + 4)
        cut_short = end + 4 > self._file.size
        count = source.number(4, "the number of chunks") if source.left >= 4 else 0
        if count * 9 > self.stored_bytes + 4:
            source.fail(f"{count} compressed chunks do not fit in {self.stored_bytes} bytes")
        for _ in range(count):
            start = source.at
            packed = source.number(4, "a chunk's size") if source.left >= 8 or not cut_short else source.left
            if cut_short and packed + 4 > source.left:
                self.truncated_bytes = max(end - start, 0)
                return
            claimed = source.number(4, "a chunk's size")
            if claimed > _MAX_CHUNK:
                source.fail(f"a compressed chunk announces {claimed} bytes, more than any real one")
            yield unpack(self.compression, source.take(packed, "a compressed chunk"), claimed, source.fail)
        if source.at not in (end, end + 4) and not cut_short:
            source.fail(f"the last of the {count} compressed chunks ends here, but the CPU's data at {end}")
        self.truncated_bytes = max(end - source.at, 0)


@dataclass(frozen=True)
class Buffer:
    """One trace instance: ``name`` ('' for the top one), trace ``clock``, sub-buffer size, CPUs with data."""

    name: str
    clock: str
    page_size: int
    cpus: list[CpuData]


@dataclass
class TraceDat:
    """An opened trace.dat; use it as a context manager, or call :meth:`close`.

    ``page_size`` is the sub-buffer size in bytes of the top buffer, ``long_size`` the kernel's (from the
    commit word in ``header_page``), ``user_long_size`` the recording program's.  ``formats`` maps
    "system/event" to the text of its format file, ``cmdlines`` a pid to its comm.  ``notes`` are sentences
    about what is in the file but was not read.
    """

    path: str
    version: int
    little_endian: bool
    user_long_size: int
    page_size: int
    compression: str = "none"
    compression_version: str = ""
    header_page: str = ""
    header_event: str = ""
    formats: dict[str, str] = field(default_factory=dict)
    kallsyms: str = ""
    printk: str = ""
    cmdlines: dict[int, str] = field(default_factory=dict)
    cpu_count: int = 0
    options: list[Option] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _file: File | None = None

    def values(self, name: str) -> list[object]:
        """The values of all options of that ``name`` (as in trace-cmd.dat.v7(5)), in file order."""
        return [option.value for option in self.options if option.name == name]

    def _string(self, name: str) -> str:
        return next((value for value in self.values(name) if isinstance(value, str)), "")

    @property
    def long_size(self) -> int:
        """Bytes in a ``long`` of the recorded kernel (the file's header only knows user space)."""
        found = _COMMIT_SIZE.search(self.header_page)
        return int(found[1]) if found else self.user_long_size

    @property
    def uname(self) -> str:
        """``sysname nodename release machine`` of the recorded system, or ''."""
        return self._string("UNAME")

    @property
    def hostname(self) -> str:
        """The node name in :attr:`uname`, or ''."""
        words = self.uname.split()
        # A node name may hold blanks; the other three never do.
        return " ".join(words[1:-2]) if len(words) >= 4 else ""

    @property
    def clock(self) -> str:
        """The trace clock that was chosen in the top instance; 'local' is the kernel's own choice."""
        return _clock_of(self._string("TRACECLOCK")) or next((b.clock for b in self.buffers), "local")

    @property
    def ts_offset_ns(self) -> int:
        """ns that ``trace-cmd report`` adds to every stamp (DATE and OFFSET options; 0 if there are none)."""
        return sum(value * factor for name, factor in (("DATE", 1000), ("OFFSET", 1))
                   for value in self.values(name) if isinstance(value, int))

    @property
    def cpustats(self) -> list[CpuStat]:
        """The per-CPU statistics of every buffer, decoded from the CPUSTAT options."""
        stats: list[CpuStat] = []
        buffer = ""
        for value in self.values("CPUSTAT"):
            counters: dict[str, int | float] = {}
            for line in str(value).splitlines():
                key, colon, number = line.partition(":")
                # trace-cmd puts a heading of its own, an option like the others, before an instance's.
                if colon and key == "Buffer":
                    buffer = number.strip()
                elif colon and re.fullmatch(r"\s*\d{1,19}(\.\d{1,9})?\s*", number):
                    counters[key.strip()] = float(number) if "." in number else int(number)
            cpu = counters.pop("CPU", None)
            if isinstance(cpu, int):
                stats.append(CpuStat(buffer, cpu, counters))
        return stats

    def close(self) -> None:
        """Close the file; the sub-buffers cannot be read any more."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _clock_of(choices: str) -> str:
    """The clock marked with brackets in the text of tracefs' ``trace_clock``."""
    found = _CLOCK_CHOICE.search(choices)
    return found[1] if found else ""


class _Reader:
    """Fills a :class:`TraceDat`; one instance reads one file's metadata and is then thrown away."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._byteorder: ByteOrder = "little"
        self._regions: list[tuple[int, int, str]] = []
        self._format_bytes = 0
        head = self._cursor("", 0, file.size)
        if not sniff_tracedat(file.read(0, min(file.size, len(_MAGIC)))):
            head.fail("this is not a trace.dat of trace-cmd", "pass the file that 'trace-cmd record' wrote")
        head.at = len(_MAGIC)
        version = head.string("the version")
        if version not in ("6", "7"):
            head.fail(f"file version {version[:20]!r} is not known (6 and 7 are)", _RERECORD)
        endian, long_size = head.number(1, "the byte order"), head.number(1, "the size of a long")
        if endian not in (0, 1) or long_size not in (4, 8):
            head.fail(f"byte order {endian} and a long of {long_size} bytes make no sense")
        self._byteorder = "big" if endian else "little"
        self._head = self._cursor("", head.at, file.size)
        page_size = self._page_size(self._head, self._head.number(4, "the page size"))
        self._dat = TraceDat(file.path, int(version), endian == 0, long_size, page_size, _file=file)

    def read(self) -> TraceDat:
        if self._dat.version == 6:
            self._read_v6(self._head)
        else:
            self._read_v7(self._head)
        if not self._dat.header_page:
            self._head.fail("header_page is missing: the layout of the ring buffer is not known", _RERECORD)
        end, before = 0, ""
        for offset, size, name in sorted(self._regions):
            if offset < end:
                raise BadInput(self._file.path, f"offset {offset}", f"{name} lies inside {before}", DAMAGED)
            end, before = offset + size, name
        return self._dat

    def _cursor(self, where: str, at: int, end: int) -> Cursor:
        return Cursor(self._file, where, self._byteorder, at, end)

    def _bytes_cursor(self, where: str, data: bytes) -> Cursor:
        return Cursor(self._file, where, self._byteorder, 0, len(data), data)

    # What both versions have: in version 6 one after the other, in version 7 each in its section.

    def _header_info(self, source: Cursor) -> None:
        for tag, name in ((b"header_page\0", "header_page"), (b"header_event\0", "header_event")):
            if source.take(len(tag), name) != tag:
                source.fail(f"{name} is not where it should be")
            setattr(self._dat, name, source.text(8, name))

    def _system_formats(self, source: Cursor, system: str) -> None:
        for _ in range(source.number(4, f"the number of {system} events")):
            text = source.text(8, f"a format of {system}")
            self._format_bytes += len(text)
            named = _NAME_LINE.match(text)
            if named is None:
                source.fail(f"a format of {system} does not start with the event's name")
            if self._format_bytes > MAX_SECTION:
                source.fail("the formats are longer than any real ones")
            self._dat.formats[f"{system}/{named[1]}"] = text

    def _ftrace_formats(self, source: Cursor) -> None:
        self._system_formats(source, "ftrace")

    def _event_formats(self, source: Cursor) -> None:
        systems = source.number(4, "the number of event systems")
        if systems > _MAX_SYSTEMS:
            source.fail(f"{systems} event systems are more than any kernel has")
        for _ in range(systems):
            self._system_formats(source, source.string("the name of an event system"))

    def _kallsyms(self, source: Cursor) -> None:
        self._dat.kallsyms = source.text(4, "kallsyms")

    def _printk(self, source: Cursor) -> None:
        self._dat.printk = source.text(4, "printk_formats")

    def _cmdlines(self, source: Cursor) -> None:
        for line in source.text(8, "saved_cmdlines").split("\n"):
            pid, blank, comm = line.partition(" ")
            if blank and re.fullmatch(r"[0-9]{1,10}", pid):
                self._dat.cmdlines[int(pid)] = comm

    def _add_option(self, number: int, data: bytes) -> Option:
        name = _OPTION_NAMES[number] if number < len(_OPTION_NAMES) else f"option {number}"
        source = self._bytes_cursor(f"option {name}", data)
        value: object = text_of(data) if name in _TEXT_OPTIONS else data
        if name in ("DATE", "OFFSET"):
            try:
                value = int(text_of(data)[:64], 0)
            except ValueError:
                source.fail("this is not a number")
        elif name == "CPUCOUNT":
            value = self._dat.cpu_count = self._cpu_number(source, "the number of CPUs")
        elif name == "TRACEID" or name in _SECTION_OPTIONS:
            value = source.number(8, "the value")
        elif name == "TSC2NSEC":
            value = (source.number(4, "multiplier"), source.number(4, "shift"), source.number(8, "offset"))
        elif name == "TIME_SHIFT":
            value = (source.number(8, "trace id"), source.number(4, "flags"), source.number(4, "CPUs"))
        elif name == "GUEST":
            value = (source.string("the guest's name"), source.number(8, "the trace id"),
                     {source.number(4, "a CPU"): source.number(4, "a pid")
                      for _ in range(self._cpu_number(source, "the number of CPUs"))})
        elif name == "BUFFER_TEXT":
            self._dat.notes.append("a buffer is text of a latency tracer, which was not read")
        option = Option(number, name, value)
        if len(self._dat.options) >= _MAX_OPTIONS:
            source.fail("there are more options than any real file has")
        self._dat.options.append(option)
        return option

    @staticmethod
    def _cpu_number(source: Cursor, what: str) -> int:
        cpu = source.number(4, what)
        if cpu >= _MAX_CPU:
            source.fail(f"{what} is {cpu}, larger than any kernel's")
        return cpu

    @staticmethod
    def _page_size(source: Cursor, size: int) -> int:
        if not 256 <= size <= _MAX_PAGE or size & (size - 1):
            source.fail(f"a sub-buffer size of {size} bytes makes no sense")
        return size

    def _add_buffer(self, source: Cursor, name: str, clock: str, page_size: int,
                    table: list[tuple[int, int, int]], compression: str) -> None:
        cpus: dict[int, CpuData] = {}
        for cpu, offset, size in table:
            if not size:  # version 6 lists CPUs without data too
                continue
            label = f"CPU {cpu} of buffer '{name}'" if name else f"CPU {cpu}"
            if cpu in cpus or size > _MAX_REGION or offset > _MAX_REGION:
                source.fail(f"{label} is listed twice" if cpu in cpus else
                            f"{label} has {size} bytes at offset {offset}, which makes no sense")
            self._regions.append((offset, size, f"the data of {label}"))
            cpus[cpu] = CpuData(cpu, offset, size, page_size, compression, self._file, label, self._byteorder)
        self._dat.buffers.append(Buffer(name, clock, page_size, list(cpus.values())))

    # Version 6.

    def _read_v6(self, source: Cursor) -> None:
        for part in (self._header_info, self._ftrace_formats, self._event_formats, self._kallsyms,
                     self._printk, self._cmdlines):
            part(source)
        self._dat.cpu_count = self._cpu_number(source, "the number of CPUs")
        instances: list[Cursor] = []
        tag = source.take(10, "the kind of data")
        if tag == b"options  \0":
            # Only in version 7 the DONE option has a size and data.
            while number := source.number(2, "an option"):
                data = source.take(source.number(4, "an option's size"), "an option")
                if self._add_option(number, data).name == "BUFFER":
                    instances.append(self._bytes_cursor("option BUFFER", data))
            tag = source.take(10, "the kind of data")
        if tag == b"latency  \0":
            self._dat.notes.append("the file is text of a latency tracer, which was not read")
            return
        self._table_v6(source, tag, "")
        for entry in instances:
            offset, name = entry.number(8, "its offset"), entry.string("the instance's name")
            content = self._cursor(f"buffer '{name}'", offset, self._file.size)
            self._table_v6(content, content.take(10, "the kind of data"), name)

    def _table_v6(self, source: Cursor, tag: bytes, name: str) -> None:
        if tag != b"flyrecord\0":
            source.fail("the table of CPU data is not where it should be")
        # A CPUCOUNT option overrides the count in the header; _add_option() has stored whichever came last.
        table = [(cpu, source.number(8, "an offset"), source.number(8, "a size"))
                 for cpu in range(self._dat.cpu_count)]
        clock = ""
        if self._dat.values("TRACECLOCK"):  # only then does the clock follow the table
            length = source.number(8, "the size of trace_clock")
            clock = _clock_of(text_of(source.take(length, "trace_clock"))) if length <= MAX_STRING else ""
        self._add_buffer(source, name, clock or self._dat.clock, self._dat.page_size, table, "none")

    # Version 7.

    def _read_v7(self, source: Cursor) -> None:
        dat = self._dat
        dat.compression = source.string("the compression")
        dat.compression_version = source.string("the version of the compression")
        if dat.compression not in ("none", "zstd", "zlib"):
            source.fail(f"compression {dat.compression[:20]!r} is not known", _RERECORD)
        at = source.number(8, "the offset of the options")
        seen: set[int] = set()
        while at:
            if at in seen or len(seen) > _MAX_SECTIONS:
                source.fail(f"the chain of option sections comes back to offset {at}")
            seen.add(at)
            at = self._options_v7(self._section(at, _ID["DONE"], "options")[0])
        # As in trace-cmd, the last option that names a section of one kind counts.
        offsets = {option.name: option.value for option in dat.options if option.name in _SECTION_OPTIONS}
        for name, offset in offsets.items():
            assert isinstance(offset, int)
            _SECTION_OPTIONS[name](self, self._section(offset, _ID[name], name)[0])

    def _options_v7(self, source: Cursor) -> int:
        """Read one section of options and return the offset of the next one, or 0."""
        while True:
            number = source.number(2, "an option")
            data = source.take(source.number(4, "an option's size"), "an option")
            if number == _ID["DONE"]:
                return self._bytes_cursor("option DONE", data).number(8, "the offset of the next options")
            if self._add_option(number, data).name == "BUFFER":
                self._buffer_v7(self._bytes_cursor("option BUFFER", data))

    def _buffer_v7(self, entry: Cursor) -> None:
        at, name, clock = entry.number(8, "its offset"), entry.string("its name"), entry.string("its clock")
        page_size, count = entry.number(4, "its sub-buffer size"), entry.number(4, "its number of CPUs")
        if count:  # an empty buffer need not have a meaningful sub-buffer size
            self._page_size(entry, page_size)
        if count * 20 > entry.left:
            entry.fail(f"a table of {count} CPUs does not fit in the {entry.left} bytes that are left")
        table = [(self._cpu_number(entry, "a CPU's number"), entry.number(8, "an offset"),
                  entry.number(8, "a size")) for _ in range(count)]
        flags = self._section(at, _ID["BUFFER"], f"of buffer '{name}'")[1]
        compression = self._dat.compression if flags & _COMPRESSED else "none"
        self._add_buffer(entry, name, clock, page_size, table, compression)

    def _section(self, at: int, number: int, name: str) -> tuple[Cursor, int]:
        """A cursor over the (decompressed) content of the section at offset ``at``, and its flags."""
        if at + 16 > self._file.size:
            raise BadInput(self._file.path, f"offset {at}",
                           f"section {name} should be here, but the file ends before", DAMAGED)
        head = self._cursor(f"section {name}", at, at + 16)
        found, flags = head.number(2, "its id"), head.number(2, "its flags")
        head.number(4, "its description")
        size = head.number(8, "its size")
        content = self._cursor(f"section {name}", at + 16, at + 16 + size)
        if found != number:
            content.fail(f"section {number} should be here, but it is {found}")
        # CPU data may be cut off, and is compressed in chunks: both are for CpuData.
        is_data = number == _ID["BUFFER"]
        if size > content.left and not is_data:
            content.fail(f"{size} bytes should be here, but the file ends after {content.left}")
        if flags & _COMPRESSED and self._dat.compression == "none":
            content.fail("the section is compressed in a file that says it has no compression")
        if not flags & _COMPRESSED or is_data:
            return content, flags
        packed, claimed = content.number(4, "the compressed size"), content.number(4, "the size")
        if claimed > MAX_SECTION:
            content.fail(f"the section announces {claimed} bytes, more than any real one")
        data = content.take(packed, "the compressed data")
        data = unpack(self._dat.compression, data, claimed, content.fail)
        return self._bytes_cursor(f"section {name}", data), flags


#: Options whose value is the offset of a section, and what reads that section.
_SECTION_OPTIONS: Final[dict[str, Callable[[_Reader, Cursor], None]]] = {
    "HEADER_INFO": _Reader._header_info, "FTRACE_EVENTS": _Reader._ftrace_formats,
    "EVENT_FORMATS": _Reader._event_formats, "KALLSYMS": _Reader._kallsyms, "PRINTK": _Reader._printk,
    "CMDLINES": _Reader._cmdlines}


def open_tracedat(path: str | os.PathLike[str]) -> TraceDat:
    """Open a trace.dat and read everything but the CPU data.

    :param path: a regular file
    :raises BadInput: when the file is not a trace.dat of version 6 or 7, or is damaged
    :raises OSError: when the file cannot be opened
    """
    file = File(path)
    try:
        return _Reader(file).read()
    except BaseException:
        file.close()
        raise
