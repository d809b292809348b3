# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the files that a recorded boot leaves behind: raw ring-buffer dumps, event formats and whole run directories.

Written from kernel/trace/ring_buffer.c and not from the importers, so that a misreading there shows up here.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA_MAX = 28 * 4  #: longest payload that type_len can express
PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
DELTA_MASK = (1 << 27) - 1
MISSED_EVENTS, MISSED_STORED = 1 << 31, 1 << 30
PAGE_OFFSET, VMEMMAP = 0xFFFF888000000000, 0xFFFFEA0000000000
_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q",
          (1, True): "b", (2, True): "h", (4, True): "i", (8, True): "q"}


@dataclass(frozen=True)
class Event:
    """One event type of a synthetic boot; ``fields`` are (name, size, signed) after the common ones and the ip."""

    name: str
    id: int
    fields: tuple[tuple[str, int, bool], ...] = ()

    def offsets(self) -> dict[str, int]:
        """Byte offsets as the probe code lays them out: packed, after 16 bytes."""
        out, at = {}, 16
        for name, size, _ in self.fields:
            out[name] = at
            at += size
        return out

    def text(self) -> str:
        """The event's ``format`` file."""
        lines = [f"name: {self.name}", f"ID: {self.id}", "format:", *_COMMON, "",
                 "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;"]
        for (name, size, signed), at in zip(self.fields, self.offsets().values(), strict=True):
            if size > 8:
                lines.append(f"\tfield:u64 {name}[];\toffset:{at};\tsize:{size};\tsigned:0;")
            else:
                kind = f"{'s' if signed else 'u'}{size * 8}"
                lines.append(f"\tfield:{kind} {name};\toffset:{at};\tsize:{size};\tsigned:{int(signed)};")
        return "\n".join([*lines, "", 'print fmt: "(%lx)", REC->__probe_ip', ""])

    def pack(self, pid: int, **values: Any) -> bytes:
        """A record of the event; fields that are not given are zero."""
        body = common(self.id, pid) + struct.pack("<Q", 0xFFFFFFFF81000000)
        for name, size, signed in self.fields:
            value = values.get(name, 0)
            body += bytes(value or size) if size > 8 else struct.pack("<" + _CODES[size, signed], value)
        return body


_COMMON = ("\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;",
           "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;",
           "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;",
           "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;")


def _u(*names: str) -> tuple[tuple[str, int, bool], ...]:
    """Fields given as name:bytes."""
    return tuple((name.split(":")[0], int(name.split(":")[1]), False) for name in names)


_HALF = _u("src:8", "c0:512", "c1:512", "c2:512", "c3:512")
#: The events of the synthetic boot, by probe name.
EVENTS = {event.name: event for event in (
    Event("store", 1500, _u("folio:8", "fl:8", "swp:8", "fl1:1")),
    Event("store_ret", 1501, (("ret", 1, False),)),
    Event("load", 1502, _u("folio:8", "swp:8")),
    Event("load_ret", 1503, (("ret", 4, True),)),
    Event("comp", 1504, _u("pglink:8", "off:4", "slen:4", "room:4")),
    Event("comp_ret", 1505, (("ret", 4, True), ("dlen", 4, False))),
    Event("zmalloc", 1506, _u("pool:8", "size:2", "gfp:4")),
    Event("async_free", 1507),
    Event("pg0", 1508, _HALF),
    Event("pg1", 1509, _HALF),
    Event("sched_switch", 300, _u("prev:4")),
)}
PRINT_ID = 5


def common(number: int, pid: int) -> bytes:
    """The common fields of a record: type, flags, preempt count, pid."""
    return struct.pack("<HBBi", number, 1, 2, pid)


def marker(text: str, pid: int = 1, newline: bool = True) -> bytes:
    """A trace_marker record."""
    return common(PRINT_ID, pid) + bytes(8) + text.encode() + (b"\n\0" if newline else b"\0")


def header_page(size: int = 4096, commit_size: int = 8) -> str:
    """The text of ``events/header_page`` for sub-buffers of ``size`` bytes."""
    data = 8 + commit_size
    return ("\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
            f"\tfield: local_t commit;\toffset:8;\tsize:{commit_size};\tsigned:1;\n"
            "\tfield: char overwrite;\toffset:8;\tsize:1;\tsigned:0;\n"
            f"\tfield: char data;\toffset:{data};\tsize:{size - data};\tsigned:0;\n")


@dataclass
class Ring:
    """One CPU's ring as it is read from trace_pipe_raw: sub-buffers of ``size`` bytes."""

    size: int = 4096
    commit_size: int = 8
    out: bytearray = field(default_factory=bytearray)
    _data: bytearray = field(default_factory=bytearray)
    _start: int | None = None
    _ts: int = 0
    _lost: int | None = None

    @property
    def room(self) -> int:
        return self.size - 8 - self.commit_size

    @property
    def _end(self) -> int:
        """Where records must end: a count of lost events needs room behind them."""
        return self.room - (self.commit_size if self._lost is not None else 0)

    def _fit(self, ts: int, length: int) -> int:
        """Make room for ``length`` bytes (and a time extend); return the delta to write."""
        if self._start is not None and len(self._data) + length + 8 > self._end:
            self.flush()
        if self._start is None:
            self._start = self._ts = ts
        delta, self._ts = ts - self._ts, ts
        return delta

    def add(self, ts: int, payload: bytes, form: str = "") -> Ring:
        """Append a record; ``form``: ``long`` writes type_len 0, ``extend`` a time extend although none is needed,
        ``absolute`` an absolute stamp before it, ``discard`` a record that the kernel took back."""
        payload = payload + bytes(-len(payload) % 4)
        delta = self._fit(ts, len(payload) + 8)
        if form == "absolute":
            stamp = ts & ((1 << 59) - 1)
            self._word(TIME_STAMP, stamp & DELTA_MASK, stamp >> 27)
            delta = 0
        elif delta > DELTA_MASK or form == "extend":
            self._word(TIME_EXTEND, delta & DELTA_MASK, delta >> 27)
            delta = 0
        if form == "discard":
            # rb_event_discard(): the length without the header word, and a delta that is never 0.
            self._ts += delta == 0
            self._word(PADDING, delta or 1, len(payload) + 4)
        elif form == "long" or len(payload) > DATA_MAX:
            self._word(0, delta, len(payload) + 4)
        else:
            self._word(len(payload) // 4, delta)
        self._data += payload
        return self

    def _word(self, type_len: int, delta: int, *more: int) -> None:
        self._data += struct.pack(f"<{1 + len(more)}I", type_len | delta << 5, *more)

    def raw(self, data: bytes, ts: int = 1000) -> Ring:
        """Append bytes to the current sub-buffer's data as they are."""
        if self._start is None:
            self._start = self._ts = ts
        self._data += data
        return self

    def pad(self) -> Ring:
        """Fill the sub-buffer with a padding record without delta, as the kernel does when a record does not fit."""
        rest = self._end - len(self._data)
        if rest >= 4:
            self._word(PADDING, 0)
            # Behind the header of padding lie the page's earlier bytes.
            self._data += b"\xa5" * (rest - 4)
        return self.flush()

    def lose(self, count: int | None = None) -> Ring:
        """Mark events as lost before the next (or current) sub-buffer; None: without a stored count."""
        self._lost = -1 if count is None else count
        return self

    def flush(self, commit: int | None = None, filler: int = 0) -> Ring:
        """End the sub-buffer; ``commit`` overrides its length word's value."""
        if self._start is None:
            return self
        length = len(self._data)
        assert length <= self.room
        word, tail = length, b""
        if self._lost is not None:
            word |= MISSED_EVENTS
            if self._lost >= 0 and length + self.commit_size <= self.room:
                word |= MISSED_STORED
                tail = self._lost.to_bytes(self.commit_size, "little")
            self._lost = None
        if commit is not None:
            word = commit
        data = bytes(self._data) + tail
        self.out += struct.pack("<Q", self._start) + word.to_bytes(self.commit_size, "little") \
            + data.ljust(self.room, bytes([filler]))
        self._data, self._start = bytearray(), None
        return self

    def bytes(self) -> bytes:
        """The whole ring so far."""
        self.flush()
        return bytes(self.out)


def ring(records: Iterable[tuple[int, bytes]], size: int = 4096) -> bytes:
    """The sub-buffers of (time stamp, payload) records."""
    out = Ring(size)
    for ts, payload in records:
        out.add(ts, payload)
    return out.bytes()


@dataclass
class Walk:
    """What :func:`walk` found: ``records`` (ts, body) in order, and what it could not use."""

    records: list[tuple[int, bytes]] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    damaged: int = 0
    discarded: int = 0


def _signed(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def walk(data: bytes, size: int = 4096, commit_size: int = 8) -> Walk:
    """A plain reader of sub-buffers: slow, but every slice is checked against what is there."""
    out = Walk()
    for at in range(0, len(data) - size + 1, size):
        page = data[at:at + size]
        ts, commit = struct.unpack_from("<QI", page)
        ts = _signed(ts)
        start = 8 + commit_size
        length, room = commit & DELTA_MASK, size - start
        bad = length > room or not (length or commit & MISSED_EVENTS)
        length = min(length, room)
        if commit & MISSED_EVENTS:
            count = -1
            if commit & MISSED_STORED and length + commit_size <= room:
                count = int.from_bytes(page[start + length:start + length + commit_size], "little")
                count = -1 if count >> 63 else count
            out.lost.append((ts, count))
        body = page[start:start + length]
        while body:
            if len(body) < 4:
                bad = True
                break
            word, = struct.unpack_from("<I", body)
            kind, delta = word & 31, word >> 5
            if kind == PADDING and not delta:
                break
            if kind in (0, PADDING, TIME_EXTEND, TIME_STAMP):
                if len(body) < 8:
                    bad = True
                    break
                more, = struct.unpack_from("<I", body, 4)
            if kind == TIME_EXTEND:
                ts, body = _signed(ts + delta + (more << 27)), body[8:]
                continue
            if kind == TIME_STAMP:
                ts, body = (ts >> 59 << 59) | delta | more << 27, body[8:]
                continue
            if kind == PADDING:
                if more < 4 or more + 4 > len(body):
                    bad = True
                    break
                ts, body = _signed(ts + delta), body[more + 4:]
                out.discarded += 1
                continue
            head, count = (8, more - 4) if kind == 0 else (4, 4 * kind)
            # Every record begins with its event's id.
            if count < 2 or head + count > len(body):
                bad = True
                break
            ts = _signed(ts + delta)
            out.records.append((ts, body[head:head + count]))
            body = body[head + (count + 3) // 4 * 4:]
        out.damaged += bad
    return out


def page(seed: int) -> bytes:
    """A page of 4096 bytes; equal seeds give equal pages."""
    return hashlib.shake_128(seed.to_bytes(8, "little")).digest(4096)


def page_halves(ts: int, address: int, data: bytes, pid: int = 7, upper_first: bool = False) -> list[tuple[int, bytes]]:
    """The two records of a page ring that carry one page, in either order."""
    halves = []
    for name, part in (("pg0", data[:2048]), ("pg1", data[2048:])):
        head = common(EVENTS[name].id, pid) + bytes(8) + struct.pack("<Q", address)
        halves.append(head + part)
    if upper_first:
        halves.reverse()
    return [(ts, halves[0]), (ts + 1, halves[1])]


def struct_page(address: int) -> int:
    """The struct page of a directly mapped address."""
    return VMEMMAP + (address - PAGE_OFFSET) // 4096 * 64


def write_formats(directory: Path, size: int = 4096, names: Iterable[str] = EVENTS) -> Path:
    """Write ``header_page``, ``header_event`` and the named events' formats."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "header_page").write_text(header_page(size))
    (directory / "header_event").write_text("# compressed entry header\n")
    for name in names:
        (directory / name).write_text(EVENTS[name].text())
    return directory


def write_counters(path: Path, ts_ns: int, params: dict[str, str], **more: Any) -> None:
    """Write a counter snapshot."""
    path.write_text(json.dumps({"t": ts_ns / 1e9, "zswap_debugfs": {"stored_pages": "0"}, "vmstat": {"zswpout": 0},
                                "meminfo": "MemTotal:        2048000 kB\nMemFree:  1 kB\n", "params": params, **more}))


def index_text(pages: Iterable[tuple[int, int, str]]) -> str:
    """The text of a page index of (ts, address, sha1) rows."""
    lines = [f"{number},{ts},{address:x},{sha1}" for number, (ts, address, sha1) in enumerate(pages)]
    return "\n".join(["n,ts_ns,src,sha1", *lines, ""])


def tracedat(rings: list[bytes], names: Iterable[str] = EVENTS, size: int = 4096, big_endian: bool = False,
             stats: Iterable[str] = ()) -> bytes:
    """A trace.dat of version 6 with one buffer: trace-cmd.dat.v6(5); ``stats``: what CPUSTAT options say."""
    def sized(code: str, text: str) -> bytes:
        return struct.pack(f"<{code}", len(text.encode())) + text.encode()

    texts = [EVENTS[name].text() for name in names]
    out = bytearray(b"\x17\x08\x44tracing6\0" + bytes([big_endian, 8]) + struct.pack("<I", size))
    out += b"header_page\0" + sized("Q", header_page(size)) + b"header_event\0" + sized("Q", "#\n")
    out += struct.pack("<I", 1) + sized("Q", PRINT_TEXT)
    out += struct.pack("<I", 1) + b"z\0" + struct.pack("<I", len(texts)) + b"".join(sized("Q", text) for text in texts)
    out += sized("I", "") + sized("I", "") + sized("Q", "10 python3\n20 kworker/1:1\n") + struct.pack("<I", len(rings))
    out += b"options  \0" + struct.pack("<HI", 5, 28) + b"Linux box 7.3-test x86_64\0".ljust(28, b"\0")
    for text in stats:
        out += struct.pack("<HI", 2, len(text) + 1) + text.encode() + b"\0"
    out += bytes(2)
    out += b"flyrecord\0"
    at = len(out) + 16 * len(rings)
    for data in rings:
        at += -at % size
        out += struct.pack("<QQ", at, len(data))
        at += len(data)
    for data in rings:
        out += bytes(-len(out) % size) + data
    return bytes(out)


PRINT_TEXT = "\n".join(["name: print", f"ID: {PRINT_ID}", "format:", *_COMMON, "",
                        "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;",
                        "\tfield:char buf[];\toffset:16;\tsize:0;\tsigned:0;", ""])


@dataclass
class Call:
    """One store of ``pages`` pages from ``address`` on by a task: store, compress, returns, 100 ns apart."""

    ts: int
    cpu: int
    pid: int
    address: int
    pages: int = 1
    #: which of the calls' records are missing, by probe name
    missing: tuple[str, ...] = ()
    #: first of the seeds of the pages' contents
    seed: int = 0

    def records(self) -> list[tuple[int, bytes]]:
        swp, folio = self.ts % 1000003, struct_page(self.address)
        all_of = [(self.ts, "store", {"folio": folio, "fl": 1 << 6 if self.pages > 1 else 0, "swp": swp, "fl1": 4}),
                  (self.ts + 100, "comp", {"pglink": folio | 2, "slen": 4096 * self.pages, "room": 8192}),
                  (self.ts + 200, "comp_ret", {"ret": 0, "dlen": 1000 + self.seed}),
                  (self.ts + 300, "store_ret", {"ret": 1})]
        return [(ts, EVENTS[name].pack(self.pid, **values)) for ts, name, values in all_of if name not in self.missing]

    def handed(self) -> list[tuple[int, int, bytes]]:
        """The pages as the compressor gets them: (ts, address, bytes)."""
        return [(self.ts + 110 + number, self.address + 4096 * number, page(self.seed + number))
                for number in range(self.pages)]


T0 = 10_000_000_000
#: Two tasks on two CPUs whose calls interleave.
CALLS = (Call(T0 + 1000, 0, 10, PAGE_OFFSET + 0x100000, seed=0), Call(T0 + 1050, 1, 20, PAGE_OFFSET + 0x200000, seed=1),
         Call(T0 + 2000, 0, 10, PAGE_OFFSET + 0x300000, 8, seed=10), Call(T0 + 2050, 1, 20, PAGE_OFFSET + 0x400000, 2, seed=0),
         Call(T0 + 3000, 0, 10, PAGE_OFFSET + 0x101000, seed=0))
MARKERS = ((T0, "out1"), (T0 + 2500, "in1"))


def rings_of(calls: Iterable[Call] = CALLS, size: int = 4096, markers: Iterable[tuple[int, str]] = MARKERS) -> list[bytes]:
    """The rings of CPU 0 and 1; markers are written by task 10 on CPU 0."""
    rings = []
    for cpu in (0, 1):
        records = [record for call in calls if call.cpu == cpu for record in call.records()]
        if cpu == 0:
            records += [(ts, marker(text, 10)) for ts, text in markers]
        rings.append(ring(sorted(records, key=lambda record: record[0]), size))
    return rings


def records_of(calls: Iterable[Call] = CALLS, markers: Iterable[tuple[int, str]] = MARKERS) -> list[int]:
    """How many records the rings of CPU 0 and 1 have."""
    calls = list(calls)
    return [sum(len(call.records()) for call in calls if call.cpu == cpu) + (len(list(markers)) if cpu == 0 else 0)
            for cpu in (0, 1)]


def ring_stats(entries: int, **counts: int) -> str:
    """per_cpu/cpuN/stats of a ring that nobody has read."""
    every = {"entries": entries, "overrun": 0, "commit_overrun": 0, "dropped_events": 0, "read_events": 0, **counts}
    return "".join(f"{name.replace('_', ' ')}: {count}\n" for name, count in every.items())


def write_capture(directory: Path, calls: Iterable[Call] = CALLS, size: int = 4096, pages: str = "dump",
                  kaslr: bool = False) -> Path:
    """Write a run directory with everything that recordings have; ``pages``: dump, index, ring or none."""
    calls = list(calls)
    write_formats(directory / "formats", size)
    for cpu, data in enumerate(rings_of(calls, size)):
        (directory / f"zmeta.cpu{cpu}.raw").write_bytes(data)
    (directory / "ring-stats.json").write_text(json.dumps({f"zmeta/cpu{cpu}": ring_stats(count)
                                                           for cpu, count in enumerate(records_of(calls))}))
    write_counters(directory / "counters-before.json", T0 - 1000, {"enabled": "Y", "compressor": "lz4"})
    write_counters(directory / "counters-after-out1.json", T0 + 2900, {"enabled": "Y", "compressor": "zstd"})
    write_counters(directory / "counters-end.json", T0 + 9000, {"enabled": "N", "compressor": "zstd"})
    line = "root=/dev/vda" + ("" if kaslr else " nokaslr")
    (directory / "dmesg.txt").write_text(f"[    0.0] Linux version 7.3-test (a@b) #1\n[    0.0] Command line: {line}\n")
    (directory / "kernel.config").write_text("#\n# Linux/x86_64 7.3.0 Kernel Configuration\n#\n"
                                             "CONFIG_PAGE_SHIFT=12\nCONFIG_ZSMALLOC_CHAIN_SIZE=8\n")
    (directory / "symbols.json").write_text('{"zswap_list_lru": "ffffffff83f07f60"}')
    (directory / "dynamic_events.txt").write_text("f:z/store zswap_store folio=$arg1:x64\n"
                                                  "f:z/store_ret zswap_store%return ret=$retval:u8\n")
    (directory / "truth.csv").write_text("phase,page,kind,sha1,swap_type,swap_offset\nout1,0,zero,,0,7\n")
    handed = sorted((entry for call in calls for entry in call.handed()), key=lambda entry: entry[0])
    if pages in ("dump", "index"):
        (directory / "pages.idx").write_text(index_text(
            (ts, address, hashlib.sha1(data).hexdigest()) for ts, address, data in handed))
    if pages == "dump":
        (directory / "pages.bin").write_bytes(b"".join(data for _, _, data in handed))
    if pages == "ring":
        halves = [half for number, (ts, address, data) in enumerate(handed)
                  for half in page_halves(ts, address, data, upper_first=number % 2 == 1)]
        (directory / "zpage.cpu0.raw").write_bytes(ring(halves, size))
    return directory
