# SPDX-License-Identifier: GPL-2.0-or-later
"""``bpftrace -f json``: events that a script printed as JSON objects.

Mirrors JsonOutput in bpftrace's src/output.cpp (0.17 to 0.27): one JSON object per line, ``type`` and mostly
``data``; also as one JSON array, and after text of standard error.  What is imported, by convention, is every
printf() whose text is one JSON object::

    fprobe:vmlinux:zswap_store {
      printf("{\\"ts\\":%lld,\\"cpu\\":%d,\\"pid\\":%d,\\"comm\\":\\"%s\\",\\"event\\":\\"zswap_store\\",
              \\"folio\\":\\"0x%llx\\",\\"swpent\\":%lld}\\n", nsecs, cpu, tid, comm, args.folio, ...);
    }

====== =============================================================================================
ts     nanoseconds (``nsecs``), 0 to 2^63 - 1
cpu    ``cpu``
pid    ``tid``: the kernel's pid of the task
comm   optional
event  a name of the vocabulary (``zswap_store``, ``zs_malloc_ret``; see traces/FORMAT.md), or one that
       :mod:`traces.importers.probemap` knows (``store``, ``zmalloc_ret``)
others columns of the vocabulary, or of a probemap event its fields: integers, or strings such as
       ``"0xffff888000000000"`` and ``"-12"``; those of other names are left out.  ``text``: a marker's text
====== =============================================================================================

An integer above 2^63 - 1 is a pointer and keeps its 64 bits.  A printf() whose text begins with
``{`` and is not such an object counts as a line that could not be parsed; other text is passed over as a banner.

Losses: ``lost_events`` lines, ``skipped_events`` of newer versions, and the values of a map called ``@lost``, in
which a script may count what it did not print.  Other maps are left out.  bpftrace reads the CPUs' buffers in
turn, so lines of several CPUs are put in order by time within windows of some hundred thousand events.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from traces import schema
from traces.errors import BadInput
from traces.importers.inputfile import chunks, read_head
from traces.importers.probemap import apply_moves, moves_for, vocabulary_name
from traces.importers.source import BLOCK_ROWS, Block, RunFacts

__all__ = ["sniff_bpftrace", "stream"]

#: bpftrace prints at most BPFTRACE_MAX_STRLEN and some arguments: no real line is nearly as long.
_MAX_LINE: Final = 1 << 16
_MAX_IGNORED: Final = 1024
_SHOWN: Final = 80
_TYPES: Final = frozenset(("attached_probes", "printf", "print", "lost_events", "skipped_events", "map", "hist",
                           "stats", "time", "cat", "join", "value", "syscall", "tseries", "helper_error",
                           "runtime_error", "errorf", "warnf"))
#: what a script or bpftrace itself says went wrong; none of it counts events
_ERRORS: Final = frozenset(("helper_error", "runtime_error", "errorf", "warnf"))
_SNIFFED_LINES: Final = 100
_BETWEEN: Final = " \t\r\n,"

_LOST: Final = re.compile(rb"\s*(?:WARNING: )?(?:[Ll]ost|[Ss]kipped) (\d{1,18}) events\.?\s*")
_NUMBER: Final = re.compile(r"(?:0x([\da-fA-F]{1,16})|(-?\d{1,20}))\Z")
_COLUMNS: Final = schema.column_names()
_COLUMN: Final = {name: index for index, name in enumerate(_COLUMNS)}
#: Columns that no field fills.
_OWN: Final = frozenset(("ts", "cpu", "pid", "event", "content"))
_HEAD: Final = ("ts", "cpu", "pid")


def _integer(value: object) -> int | None:
    """Return a field's value as an int64 (pointers as two's complement), None when it is not such a number."""
    if isinstance(value, str) and (found := _NUMBER.match(value)):
        value = int(found[1], 16) if found[1] else int(found[2])
    if not isinstance(value, int) or not -1 << 63 <= value < 1 << 64:
        return None
    return int(value) if value < 1 << 63 else int(value) - (1 << 64)


class _Window:
    """Rows that wait to be sorted by their stamps, and the texts of markers."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._pending: list[tuple[int, dict[str, int], str]] = []
        self._out = -1
        #: events that came too late to be put in their place
        self.late = 0

    def add(self, values: dict[str, int], text: str = "") -> Iterator[Block]:
        """Take a row; yields the older half as a block when the window is full."""
        self._pending.append((values["ts"], values, text))
        if len(self._pending) >= 2 * self._rows:
            yield self._take(self._rows)

    def rest(self) -> Iterator[Block]:
        """Yield what is left."""
        if self._pending:
            yield self._take(len(self._pending))

    def _take(self, count: int) -> Block:
        self._pending.sort(key=lambda row: row[0])
        taken, self._pending = self._pending[:count], self._pending[count:]
        self.late += sum(ts < self._out for ts, _, _ in taken)
        self._out = max(self._out, taken[-1][0])
        out = np.zeros((len(_COLUMNS), count), np.int64)
        out[_COLUMN["content"]] = -1
        texts = []
        for row, (_, values, text) in enumerate(taken):
            for name, value in values.items():
                out[_COLUMN[name], row] = value
            if values["event"] == schema.CODE["marker"]:
                texts.append((row, text))
        return Block.of(out, texts)


class _Reader:
    """What is known of a file while its lines are read."""

    def __init__(self, path: Path, facts: RunFacts, rows: int) -> None:
        self.path, self.facts = path, facts
        self.window = _Window(rows)
        self.events = self.lines = self.lost = self.unparsed = 0
        self.first_bad: tuple[int, str] | None = None
        self.ignored: dict[str, int] = {}
        self.cpus: set[int] = set()
        self.last_ts = 0
        #: whether a record was seen, lines of text before the first one, records of errors and the first, other types
        self.begun = False
        self.before = self.errors = 0
        self.first_error = ""
        self.unknown: Counter[str] = Counter()
        self.counted: dict[str, int] = {}
        #: event -> how many lines have each column, and how many lines there are
        self._lines: dict[str, tuple[Counter[str], list[int]]] = {}
        #: event of the vocabulary -> the names it came by
        self._names: dict[str, set[str]] = {}

    def line(self, line: bytes) -> Iterator[Block]:
        """Read one whole line."""
        self.lines += 1
        if not line.strip():
            return
        try:
            whole: Any = json.loads(line)
        except (ValueError, RecursionError):
            whole = None
        if (lost := _LOST.fullmatch(line)) is not None:
            # Its standard error, where both went into one file.
            whole = {"type": "lost_events", "data": {"events": int(lost[1])}}
        if whole is None and not self.begun and not line.lstrip().startswith((b"{", b"[")):
            self.before += 1
            return
        yield from self.record(whole, line)

    def record(self, whole: Any, line: bytes) -> Iterator[Block]:
        """Take a decoded record; ``line`` is its text, for messages."""
        kind = whole.get("type") if isinstance(whole, dict) else None
        if not isinstance(kind, str):
            self.leave(line)
            return
        self.begun = True
        data = whole.get("data")
        if kind == "printf":
            yield from self._printf(data, line)
        elif kind in ("lost_events", "skipped_events"):
            yield from self._losses(data)
        elif kind == "map" and isinstance(data, dict):
            for name, value in data.items():
                if name == "@lost":
                    # bpftrace prints a map again with its totals so far: the last one counts.
                    self.counted[name] = sum(_leaves(value))
                else:
                    self._ignore(f"map {name}")
        elif kind in _ERRORS:
            self.errors += 1
            said = data if isinstance(data, str) else whole.get("msg")
            self.first_error = self.first_error or (said if isinstance(said, str) else kind).strip()[:_SHOWN]
        elif kind not in _TYPES and len(self.unknown) < _MAX_IGNORED:
            self.unknown[kind[:64]] += 1

    def _printf(self, data: object, line: bytes) -> Iterator[Block]:
        if isinstance(data, str) and not data.lstrip().startswith("{"):
            return
        try:
            event: Any = json.loads(data) if isinstance(data, str) else data  # 0.22: JSON may come unquoted
        except (ValueError, RecursionError):
            event = None
        values, text = self._row(event) if isinstance(event, dict) else (None, "")
        if values is None:
            self.leave(line)
        elif values:
            self.events += 1
            self.cpus.add(values["cpu"])
            self.last_ts = max(self.last_ts, values["ts"])
            yield from self.window.add(values, text)

    def _row(self, event: dict[str, Any]) -> tuple[dict[str, int] | None, str]:
        """Return an event's columns, none for an event outside the vocabulary, None for one that is damaged."""
        name = event.get("event")
        head = {key: number for key in _HEAD if (number := _integer(event.get(key))) is not None}
        if not isinstance(name, str) or len(head) < len(_HEAD) or head["ts"] < 0 or not 0 <= head["cpu"] < 1 << 16 \
                or not 0 <= head["pid"] < 1 << 31:
            return None, ""
        if isinstance(event.get("comm"), str):
            self.facts.comms[head["pid"]] = event["comm"][:64]
        known = name if name in schema.CODE and name != "lost_events" else vocabulary_name(name)
        if known is None:
            self._ignore(name)
            return {}, ""
        values = head | {"event": schema.CODE[known]}
        if known == "marker":
            text = event.get("text", event.get("buf"))
            return values, text if isinstance(text, str) else ""
        fields = {key: number for key, value in event.items()
                  if key not in _HEAD and (number := _integer(value)) is not None}
        if name == known:
            columns = {key: value for key, value in fields.items() if key in _COLUMN and key not in _OWN}
        else:
            arrays = {key: np.array([value], np.int64) for key, value in fields.items()}
            columns = {key: int(value[0]) for key, value in apply_moves(moves_for(name, set(arrays)), arrays).items()}
        self._names.setdefault(known, set()).add(name)
        count, lines = self._lines.setdefault(known, (Counter(), [0]))
        count.update(columns.keys())
        lines[0] += 1
        return values | columns, ""

    def _captured(self) -> None:
        """Take a column as captured when every line of its event has it: a line without it has no value for it."""
        for name, (count, (lines,)) in self._lines.items():
            self.facts.captured[name] = sorted(column for column, having in count.items() if having == lines)
            self.facts.notes += [f"{name} has {column} in {having} of {lines} lines: it is not taken as captured"
                                 for column, having in sorted(count.items()) if having < lines]

    def _losses(self, data: object) -> Iterator[Block]:
        count = _integer(data.get("events")) if isinstance(data, dict) else _integer(data)
        if count is None or count < 0:
            count = 1
        self.lost += count
        yield from self.window.add({"ts": self.last_ts, "cpu": 0, "pid": 0, "event": schema.CODE["lost_events"],
                                    "ret": count})

    def _ignore(self, name: str) -> None:
        if name in self.ignored or len(self.ignored) < _MAX_IGNORED:
            self.ignored[name[:64]] = self.ignored.get(name[:64], 0) + 1

    def leave(self, line: bytes) -> None:
        """Count a line that cannot be used."""
        self.unparsed += 1
        if self.first_bad is None:
            self.first_bad = (self.lines, line[:_SHOWN].decode("utf-8", "backslashreplace"))

    def finish(self, cut_off: bool) -> None:
        """Say what was captured, lost and left out."""
        facts = self.facts
        self._captured()
        if self.before:
            facts.notes.append(f"{self.before} lines of text before the first record were passed over")
        if self.errors:
            facts.notes.append(f"bpftrace or its script reports {self.errors} errors, the first: {self.first_error}")
        facts.notes += [f"{count} records of type '{kind}' were left out: zreplay does not know it"
                        for kind, count in sorted(self.unknown.items())]
        lost = self.lost + sum(self.counted.values())
        # bpftrace counts for all CPUs together.
        facts.losses.extend({"cpu": cpu, "lost": 0, "ignored_events": self.ignored} for cpu in sorted(self.cpus))
        if lost:
            facts.losses.append({"cpu": None, "lost": lost, "why": f"bpftrace lost {lost} events"})
        if self.unparsed:
            number, text = self.first_bad or (0, "")
            facts.notes.append(f"{self.unparsed} lines could not be parsed, the first is line {number}: {text}")
            facts.losses.append({"cpu": None, "lost": None, "unparsed_lines": self.unparsed,
                                 "why": f"{self.unparsed} lines of bpftrace's output could not be read"})
        if cut_off:
            facts.notes.append("the last line is cut off")
            facts.losses.append({"cpu": None, "lost": None, "cut_off": True,
                                 "why": "the last line of bpftrace's output is cut off"})
        for known, names in sorted(self._names.items()):
            if len(names) > 1:
                why = f"{known} was printed by several names ({', '.join(sorted(names))}): a call may be recorded twice"
                facts.notes.append(f"{why}; print one of them")
                facts.losses.append({"cpu": None, "lost": None, "why": why})
        if self.window.late:
            facts.notes.append(f"{self.window.late} events came too late to be put in order by time")
            facts.losses.append({"cpu": None, "lost": None, "backwards": self.window.late,
                                 "why": f"{self.window.late} events came too late to be put in order by time"})


def _leaves(value: object) -> Iterator[int]:
    """Yield the numbers of a map's value: itself, or those of its keys."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, int) and 0 < item < 1 << 62:
            yield int(item)


def stream(path: Path, facts: RunFacts, rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """Read the events of ``bpftrace -f json`` output in order of time.

    :param rows: events of a block; twice as many are held in memory
    :raises BadInput: when it has no event, or its compressed data is damaged
    """
    # content recognises these files with this module, so it cannot be imported before it.
    reader = _Reader(path, facts, rows)
    is_array = read_head(path, _MAX_LINE).lstrip().startswith(b"[")
    cut_off = yield from (_array if is_array else _lines)(reader, chunks(path))
    yield from reader.window.rest()
    if not reader.events:
        raise BadInput(path, "", "has no printf() with an event in it",
                       "print events as traces/importers/bpftracejson.py says")
    reader.finish(cut_off)


def _lines(reader: _Reader, blocks: Iterator[bytes]) -> Generator[Block, None, bool]:
    """Read a record a line; return whether the last line is cut off."""
    rest, skipping = b"", False
    for chunk in blocks:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if skipping:
                reader.lines += 1
                reader.leave(b"(a line that is too long)")
                skipping = False
            elif len(line) <= _MAX_LINE:
                yield from reader.line(line)
            else:
                reader.lines += 1
                reader.leave(line)
        if skipping or len(rest) > _MAX_LINE:
            rest, skipping = b"", True
    # bpftrace ends every line: one without an end was cut off, even if it looks whole.
    return bool(rest.strip()) or skipping


def _array(reader: _Reader, blocks: Iterator[bytes]) -> Generator[Block, None, bool]:
    """Read the records of one array, printed over any lines; return whether it does not end."""
    decode = json.JSONDecoder().raw_decode
    text = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    rest, begun = "", False
    for chunk in blocks:
        rest += text.decode(chunk)
        at = 0
        while True:
            while at < len(rest) and rest[at] in _BETWEEN:
                at += 1
            if not begun and at < len(rest):
                begun, at = True, at + 1
                continue
            if at < len(rest) and rest[at] == "]":
                return False
            try:
                whole, end = decode(rest, at)
            except (ValueError, RecursionError):
                break
            # A number may continue in the next chunk.
            if end == len(rest) and not isinstance(whole, dict):
                break
            reader.lines += 1
            yield from reader.record(whole, rest[at:at + _SHOWN].encode("utf-8", "replace"))
            at = end
        rest = rest[at:]
        if len(rest) > _MAX_LINE:
            reader.lines += 1
            reader.leave(rest[:_SHOWN].encode("utf-8", "replace"))
            return True
    return True


def sniff_bpftrace(first_bytes: bytes) -> bool:
    """Return whether a file whose first (decompressed) bytes are given is ``bpftrace -f json`` output."""
    if b"\0" in first_bytes:
        return False
    if first_bytes.lstrip().startswith(b"["):
        text = first_bytes.decode("utf-8", "replace").lstrip()[1:].lstrip()
        try:
            return _is_record(json.JSONDecoder().raw_decode(text)[0])
        except (ValueError, RecursionError):
            return False
    for line in first_bytes.split(b"\n", _SNIFFED_LINES)[:_SNIFFED_LINES]:
        if line.lstrip().startswith(b"{") and len(line) <= _MAX_LINE:
            try:
                return _is_record(json.loads(line))
            except (ValueError, RecursionError):
                return False
    return False


def _is_record(whole: object) -> bool:
    return isinstance(whole, dict) and isinstance(whole.get("type"), str) and whole["type"] in _TYPES
