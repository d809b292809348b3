# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds what a recorded boot leaves behind: raw ring-buffer dumps, event formats and whole run directories.

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

DATA_MAX = 28 * 4  #: longest payload that type_len can tell
PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
DELTA_MASK = (1 << 27) - 1
MISSED_EVENTS, MISSED_STORED = 1 << 31, 1 << 30
PAGE_OFFSET, VMEMMAP = 0xFFFF888000000000, 0xFFFFEA0000000000
_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q",
          (1, True): "b", (2, True): "h", (4, True): "i", (8, True): "q"}


@dataclass(frozen=True)
class Event:
    """One event type of a made-up boot; ``fields`` are (name, size, signed) after the common ones and the ip."""

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
#: The events of the made-up boot, by probe name.
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
            # Behind the header of padding lies whatever the page held before.
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
        bad = length > room
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
