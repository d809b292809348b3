# SPDX-License-Identifier: GPL-2.0-or-later
"""Ftrace text to columns: the kernel's ``trace`` file and what ``trace-cmd report`` prints.

Mirrors print_trace_line() and trace_print_context() in kernel/trace/trace_output.c, print_trace_header() in
kernel/trace/trace.c (Linux 6.12 to 7.3), and trace_show_data() in tracecmd/trace-read.c (trace-cmd 3.1 to
3.4).  Understood are::

    python3-136     [000] ...2.     9.803915: lru_add: (list_lru_add+0x4/0xf0) lru=0xffff88800 nid=0
    inst:    python3-136   [000]     9.803914813: lru_add:      __probe_ip=ffffffff81725254 lru=0xffff88800

the second with or without instance name, flags (also the forms of -l and -R of newer versions) and
nanoseconds (-t), the marks for lost events, and stack traces, which are passed over.  Stamps must be seconds: other
forms are rewritten (:mod:`traces.importers.textforms`).

A block of text is cut into heads by one regular expression, and the payloads of each event into values by
one more that is made from the event's first line.  Payloads that this one does not match go through
:func:`parse_payload`, which is slow and authoritative.
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from traces.errors import BadInput
from traces.files import open_input
from traces.importers.packed import DAMAGE, MAGIC_BYTES, is_packed, unpacked, unpacked_head
from traces.importers.textcounts import TextCounts
from traces.importers.textforms import form_of
from traces.importers.tracedat import sniff_tracedat

__all__ = ["TextChunk", "iter_text", "parse_payload", "sniff_text", "sniff_tracedat"]


#: The kernel prints a line into a buffer of two pages, so no real line is longer than this.
_MAX_LINE: Final = 1 << 16
#: No tracepoint or probe event has more words than this (a probe has at most 128 arguments).
_MAX_TOKENS: Final = 512
_MAX_NAMES: Final = 1024
_KEEP_UNPARSED: Final = 100
#: Bytes of an unparsed line that are kept.
_SHOWN: Final = 200
#: Fewer lines of an event than this in a block are not worth compiling an expression for.
_WORTH_COMPILING: Final = 16

#: Events whose payload is free text, and what stands before it.
_TEXT_EVENTS: Final = frozenset(("tracing_mark_write", "print", "bprint", "bputs"))
_PRINT_PREFIX: Final = re.compile(rb"ip=[^ ]*(?: \(-?\d+\))? buf=(?:<INVALID-SIZE>)?|(?:0x)?[\w.+/]+: ")

# TASK_COMM_LEN is 16, but workers show longer names; the bound also keeps the search for the '-' linear.
# The pid is followed by the id of the thread group if the option record-tgid is set.
_TASK: Final = rb"([^ \n].{0,63}?|)-(\d{1,9}) +(?:\([ \d-]{1,10}\) +)?"
_CPU: Final = (rb"\[(\d{1,5})\](?:-0x[\da-f]{1,8}| {1,4}[^ \n\d][^ \n]{2,7})?",  # 'trace', report, report -R
               rb"(\d{1,5})[^ \n\d\[][^ \n]{2,7}")  # report -l
_INSTANCE: Final = rb"(?:[^ :\n][^ :\n]{0,63}: +)?"
# Seconds that still fit an int64 of ns; after the stamp comes the difference that 'report --ts-diff' adds.
_STAMP: Final = rb" +([0-8]?\d{1,9}\.\d{%d}): +(?:\(\+?\d{0,19}\) +)?"
_EVENT: Final = rb"([!-9;-~]{1,64}): *(.*)"


@dataclass(frozen=True)
class _Layout:
    """One way to print the head of a line; ``unit`` is the stamps' resolution in ns."""

    kernel: bool
    unit: int
    probe: re.Pattern[bytes]
    every_line: re.Pattern[bytes]


def _layouts() -> list[_Layout]:
    found: list[_Layout] = []
    for kernel in (True, False):
        for cpu in _CPU:
            for digits in (6, 9):
                head = rb" *" + (b"" if kernel else _INSTANCE) + _TASK + cpu + _STAMP % digits + _EVENT
                # Every line must match, or the search for the next one would crawl through it; and line
                # numbers are then match numbers.
                found.append(_Layout(kernel, 10 ** (9 - digits), re.compile(head),
                                     re.compile(rb"^(?:" + head + rb"|(.*))", re.M)))
    return found


_LAYOUTS: Final = _layouts()


def _layout_of(block: bytes, kernel: bool) -> _Layout | None:
    """The layout of the first event in ``block``."""
    layouts = [layout for layout in _LAYOUTS if layout.kernel == kernel]
    lines = block.split(b"\n")
    return next((layout for line in lines for layout in layouts if layout.probe.match(line)), None)


_LOST: Final = re.compile(rb"(?:[^ :]{1,64}:)? *CPU:(\d{1,5}) "
                          rb"\[(?:LOST )?(?:(\d{1,18}) )?EVENTS(?: DROPPED)?\]")
#: What the option 'stacktrace' prints after an event: a head that is an entry of its own, and the calls.
_STACK: Final = re.compile(rb".{0,200}: <(?:user )?stack trace ?>\s*$")
_SKIPPED: Final = re.compile(rb"\s*$|\s*#| *=> |(?:[^ :]{1,64}:)? *cpus=\d+$|CPU \d+ is empty$|version = \d+$|"
                             rb"(?:[^ :]{1,64}:)? *CPU:\d+ \[SUBBUFFER START\]")

_KEY: Final = rb"[A-Za-z_][\w.]*="
_OPAQUE: Final = rb"\{[^{}\n]*\}|" + rb'"[^"\n]*"|[^ \n]*'
# trace-cmd -R prints the addresses that probes add in hex without 0x.  In any other field such a number
# could be a decimal one.
_TOKEN: Final = re.compile(rb" *(?:(__probe_\w+)=([\da-f]{1,16})(?= |$)|"
                           rb"([A-Za-z_][\w.]*)=(?:0x([\da-fA-F]{1,16})(?= |$)|(-?\d{1,20})(?= |$)|"
                           + _OPAQUE + rb")|(\([^()]*\)|[^ ]+))")


# The trace option 'fields' prints a number as hex of its size and signed in brackets, one byte as character and
# in brackets: only the brackets say what a negative number of 4 bytes is.
_OF_FIELDS: Final = re.compile(rb"(?<=[\w.]=)(?:0x[\da-f]{1,16} |'[ -~]'|)\((-?\d{1,20})\)(?= |$)", re.M)


def _plain(payload: bytes) -> bytes:
    """Write the numbers of the option 'fields' as those of any other text."""
    return _OF_FIELDS.sub(rb"\1", payload)


def parse_payload(payload: bytes) -> dict[str, int | None] | None:
    """The fields of one event's ``key=value`` payload; None for values that are not one integer.

    Words that are not ``key=value`` are passed over, and of a key that comes twice the first value counts.

    :return: None if a number fits neither int64 nor uint64, or the payload is longer than a real one
    """
    fields: dict[str, int | None] = {}
    for count, token in enumerate(_TOKEN.finditer(_plain(payload.rstrip(b" ")))):
        if count >= _MAX_TOKENS:
            return None
        address, bare, key, hexadecimal, decimal, _ = token.groups()
        name = address or key
        if name is None:
            continue
        value = int(bare or hexadecimal, 16) if bare or hexadecimal else int(decimal) if decimal else None
        if value is not None and not -1 << 63 <= value < 1 << 64:
            return None
        fields.setdefault(name.decode("ascii"), value)
    return fields


class _Template:
    """The fields of one event, learnt from its first line.

    Lines may have only some of these fields, or more: :meth:`partial` says which.
    """

    def __init__(self, payload: bytes, fields: dict[str, int | None]) -> None:
        self.keys = tuple(fields)
        self.skipped = tuple(key for key, value in fields.items() if value is None)
        #: lines that were used; how many of them lack a field of these, and how many have another one
        self.lines = 0
        self._lacking: Counter[str] = Counter()
        self._others: Counter[str] = Counter()
        #: Value fields, and whether they are printed in hex.
        self.hex: dict[str, bool] = {}
        parts: list[bytes] = []
        seen: set[bytes] = set()
        for token in _TOKEN.finditer(payload.rstrip(b" ")):
            address, bare, key, hexadecimal, decimal, word = token.groups()
            name = address or key
            if name is None:
                parts.append(rb"\([^()\n]*\)" if word[:1] == b"(" else rb"(?!" + _KEY + rb")[^ \n]+")
            elif name in seen or not (bare or hexadecimal or decimal):
                parts.append(re.escape(name) + b"=(?:" + _OPAQUE + b")")
            else:
                self.hex[name.decode("ascii")] = decimal is None
                # Longer decimals than 18 digits may not fit an int64, so parse_payload() looks at them.
                parts.append(re.escape(name) + (rb"=([\da-f]{1,16})" if bare else rb"=0x([\da-fA-F]{1,16})"
                                                if hexadecimal else rb"=(-?\d{1,18})"))
            seen.add(name or b"")
        self._source = rb"^ *(?:" + rb" +".join(parts) + rb" *$|.*)"
        self._pattern: re.Pattern[bytes] | None = None

    def columns(self, payloads: list[bytes]) -> tuple[dict[str, NDArray[Any]], list[int]]:
        """Columns of the payloads that fit, and the positions of those that do not."""
        bad: list[int] = []
        if self.hex and len(payloads) >= _WORTH_COMPILING:
            if self._pattern is None:
                self._pattern = re.compile(self._source, re.M)
            found = self._pattern.findall(b"\n".join(payloads))
            digits = list(zip(*found, strict=True)) if len(self.hex) > 1 else [found]
            slow = [i for i, first in enumerate(digits[0]) if not first] if b"" in digits[0] else []
            values = [[int(v or b"0", 16) for v in column] if is_hex else [int(v or b"0") for v in column]
                      for column, is_hex in zip(digits, self.hex.values(), strict=True)]
        else:
            slow = list(range(len(payloads)))
            values = [[0] * len(payloads) for _ in self.hex]
        for i in slow:
            row = self._row(payloads[i])
            if row is None:
                bad.append(i)
                continue
            for column, value in zip(values, row, strict=True):
                column[i] = value
        self.lines += len(payloads) - len(bad)
        return {key: np.delete(np.array(column, dtype=np.uint64 if is_hex else np.int64), bad)
                for (key, is_hex), column in zip(self.hex.items(), values, strict=True)}, bad

    def _are_alike(self, keys: tuple[str, ...]) -> bool:
        """True where fields are the template's, some of them, or more than them, in the same order.

        A line with none of an event's fields is not a line of that event.
        """
        if keys == self.keys:
            return True
        common = [key for key in keys if key in self.keys]
        return bool(common) and common == [key for key in self.keys if key in keys] \
            and (len(common) == len(keys) or len(common) == len(self.keys))

    def partial(self) -> dict[str, int]:
        """Return the fields that some lines have a value of and others do not, and how many have."""
        return {key: self.lines - count for key, count in self._lacking.items()} | dict(self._others)

    def _row(self, payload: bytes) -> list[int] | None:
        fields = parse_payload(payload)
        if fields is None or not self._are_alike(tuple(fields)):
            return None
        if any(key in fields and fields[key] is None for key in self.hex):
            return None
        row: list[int] = []
        self._others.update(key for key, value in fields.items() if value is not None and key not in self.hex)
        for key, is_hex in self.hex.items():
            value = fields.get(key)
            if value is None:
                self._lacking[key] += 1
                row.append(0)
                continue
            # A number outside the column's range is kept as two's complement.
            row.append(value % (1 << 64) if is_hex else (value + (1 << 63)) % (1 << 64) - (1 << 63))
        return row


@dataclass
class TextChunk:
    """The events of one block of text, in the order of its lines.

    ``ts`` (int64, ns), ``cpu``, ``pid`` and ``event`` (int32) have one element per event; ``event`` indexes
    ``names``, which only grows from chunk to chunk.  For each event name in the chunk ``rows[name]`` holds
    its row numbers, ``fields[name]`` a column per numeric field (uint64 if printed in hex, else int64, where
    a u64 above the range is kept as two's complement), ``skipped[name]`` the fields that are arrays or
    strings, and ``strings[name]`` the text of markers and prints.  A field that not every line of its event has is 0
    where it is missing; ``partial[name]`` are those that some lines so far had, with how many, of how many lines.

    ``lost`` holds (row before which events were lost, CPU, count or None if it is not known), ``comms`` the
    comm of each pid in the chunk, and ``ts_unit_ns`` is the resolution of the stamps (1000 or 1).

    The rest is said of the text from its start to the end of this chunk, so the last chunk's holds for all of
    it.  ``unparsed`` has the first 100 lines that could not be used, as (line number from 1, start of the
    line or of its event), ``unparsed_total`` counts them all.  ``entries`` is what the kernel's headers say together:
    events in the buffer, and written to it; of these ``stacks`` were stack traces.  ``rings`` are the statistics of the
    kernel's rings in the text, by (instance, CPU).  ``cut_off``: the last line has no
    end; it is left unparsed.
    """

    ts: NDArray[np.int64]
    cpu: NDArray[np.int32]
    pid: NDArray[np.int32]
    event: NDArray[np.int32]
    names: list[str]
    ts_unit_ns: int
    rows: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    fields: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    skipped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    strings: dict[str, list[str]] = field(default_factory=dict)
    partial: dict[str, tuple[dict[str, int], int]] = field(default_factory=dict)
    lost: list[tuple[int, int, int | None]] = field(default_factory=list)
    comms: dict[int, str] = field(default_factory=dict)
    unparsed: list[tuple[int, str]] = field(default_factory=list)
    unparsed_total: int = 0
    entries: tuple[int, int] | None = None
    rings: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    stacks: int = 0
    cut_off: bool = False


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


class _Parser:
    """What is known of a text while it is read block by block."""

    def __init__(self) -> None:
        self._layout: _Layout | None = None
        self._kernel: bool | None = None
        self._lines = 0
        self._shown: list[tuple[int, str]] = []
        self._unparsed = 0
        self._counts = TextCounts()
        self._stacks = 0
        self._names: list[str] = []
        self._codes: dict[bytes, int] = {b"": -1}
        self._templates: dict[int, _Template] = {}

    def chunk(self, block: bytes) -> TextChunk:
        """Parse whole lines; the end of the last one is left out."""
        layout = self._find_layout(block)
        found = layout.every_line.findall(block)
        comms, pids, cpus, stamps, names, payloads, others = zip(*found, strict=True)
        for name in dict.fromkeys(names):
            if name not in self._codes:
                self._codes[name] = len(self._names) if len(self._names) < _MAX_NAMES else -1
                if self._codes[name] >= 0:
                    self._names.append(_text(name))
        event = np.fromiter(map(self._codes.__getitem__, names), np.int32, len(names))

        parts = self._empty(layout)
        lines: dict[str, NDArray[np.intp]] = {}
        for code in np.unique(event[event >= 0]).tolist():
            at = np.flatnonzero(event == code)
            bad = self._event(parts, code, [payloads[i] for i in at.tolist()])
            event[at[bad]] = -1
            if len(bad) < len(at):
                lines[self._names[code]] = np.delete(at, bad)
        kept = np.flatnonzero(event >= 0)
        parts.rows = {name: np.searchsorted(kept, at).astype(np.int64) for name, at in lines.items()}
        for i in np.flatnonzero(event < 0).tolist():
            if names[i]:
                self._leave(self._lines + i + 1, b"%s: %s" % (names[i], payloads[i]))
            else:
                self._other_line(parts, self._lines + i + 1, others[i], int(np.searchsorted(kept, i)))

        parts.comms = {int(pid): _text(comm) for pid, comm in dict(zip(pids, comms, strict=True)).items()
                       if pid and comm != b"<...>"}
        if len(kept) < len(names):
            pick = kept.tolist()
            stamps, cpus, pids = (tuple(column[i] for i in pick) for column in (stamps, cpus, pids))
        digits = b" ".join(stamps).replace(b".", b"").split()
        parts.ts = np.array(list(map(int, digits)), dtype=np.int64) * layout.unit
        parts.cpu = np.array(list(map(int, cpus)), dtype=np.int32)
        parts.pid = np.array(list(map(int, pids)), dtype=np.int32)
        parts.event = event[kept]
        self._lines += len(names)
        return self._finish(parts)

    def stray(self, line: bytes, *, cut_off: bool) -> TextChunk:
        """A chunk without events for one line that is not to be parsed."""
        parts = self._empty(self._layout or _LAYOUTS[0])
        parts.cut_off = cut_off
        self._lines += 1
        self._leave(self._lines, line)
        return self._finish(parts)

    def _empty(self, layout: _Layout) -> TextChunk:
        return TextChunk(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32),
                         np.empty(0, np.int32), [], layout.unit)

    def _finish(self, parts: TextChunk) -> TextChunk:
        parts.names, parts.unparsed = list(self._names), list(self._shown)
        parts.unparsed_total, parts.entries, parts.stacks = self._unparsed, self._counts.entries, self._stacks
        parts.rings = self._counts.rings
        return parts

    def _find_layout(self, block: bytes) -> _Layout:
        if self._kernel is None:  # a comm may look like an instance name, and only trace-cmd prints those
            self._kernel = block.startswith(b"# tracer:")
        if self._layout is None:
            self._layout = _layout_of(block, self._kernel)
        return self._layout or _LAYOUTS[0]

    def _event(self, parts: TextChunk, code: int, payloads: list[bytes]) -> list[int]:
        """Fill in what all lines of one event say, and return the positions of the lines that do not fit."""
        name = self._names[code]
        if name in _TEXT_EVENTS:
            if name != "tracing_mark_write":
                payloads = [_PRINT_PREFIX.sub(b"", payload, count=1) for payload in payloads]
            parts.strings[name] = list(map(_text, payloads))
            parts.fields[name], parts.skipped[name] = {}, ()
            return []
        template = self._templates.get(code)
        if _OF_FIELDS.search(payloads[0]):
            payloads = list(map(_plain, payloads))
        if template is None:
            first = next(((p, f) for p in payloads if (f := parse_payload(p)) is not None), None)
            if first is None:
                return list(range(len(payloads)))
            template = self._templates[code] = _Template(*first)
        columns, bad = template.columns(payloads)
        if len(bad) < len(payloads):
            parts.fields[name], parts.skipped[name] = columns, template.skipped
            if partial := template.partial():
                parts.partial[name] = partial, template.lines
        return bad

    def _other_line(self, parts: TextChunk, number: int, line: bytes, row: int) -> None:
        if lost := _LOST.match(line):
            parts.lost.append((row, int(lost[1]), int(lost[2]) if lost[2] else None))
        elif self._counts.take(line):
            return
        elif self._counts.unreadable(line):
            self._leave(number, line)
        elif _STACK.match(line):
            self._stacks += 1
        elif not _SKIPPED.match(line):
            self._leave(number, line)

    def _leave(self, number: int, line: bytes) -> None:
        self._unparsed += 1
        if len(self._shown) < _KEEP_UNPARSED:
            self._shown.append((number, _text(line[:_SHOWN])))


class _Rest(io.RawIOBase):
    """A file whose first bytes have been read already; decompressors need nothing but read()."""

    def __init__(self, first: bytes, file: BinaryIO) -> None:
        self._first, self._file = first, file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._first and size >= 0:
            first, self._first = self._first[:size], self._first[size:]
            return first
        first, self._first = self._first, b""
        return first + self._file.read(size)


def _blocks(path: str, file: BinaryIO, size: int) -> Iterator[bytes]:
    """The decompressed content of ``file`` in blocks of at most ``size`` bytes."""
    first = b""
    while len(first) < MAGIC_BYTES and (more := file.read(MAGIC_BYTES - len(first))):
        first += more
    source = unpacked(_Rest(first, file), first)  # type: ignore[arg-type]
    done = 0
    try:
        while block := source.read(size):
            done += len(block)
            yield block
    except DAMAGE as error:
        raise BadInput(path, f"after {done} bytes of text", f"cannot be read further ({error})",
                       "copy the file again, or decompress it and import the text") from error


def iter_text(path_or_fileobj: str | os.PathLike[str] | BinaryIO,
              chunk_bytes: int = 8 << 20) -> Iterator[TextChunk]:
    """Parse ftrace text, plain or compressed (zstd, gzip, xz, recognised by content), in blocks of ``chunk_bytes``.

    A chunk ends with a line.  Memory is a small multiple of ``chunk_bytes`` (about 10 for usual lines).

    :param path_or_fileobj: a path, or a file opened in binary mode
    :raises BadInput: when the compressed data is damaged; chunks before it have been yielded
    :raises OSError: when the file cannot be opened
    """
    if isinstance(path_or_fileobj, (str, os.PathLike)):
        with open_input(path_or_fileobj, follow=True) as file:
            yield from _iter_blocks(_blocks(os.fspath(path_or_fileobj), file, max(chunk_bytes, 1)))
    else:
        path = str(getattr(path_or_fileobj, "name", "<text>"))
        yield from _iter_blocks(_blocks(path, path_or_fileobj, max(chunk_bytes, 1)))


def _iter_blocks(blocks: Iterator[bytes]) -> Iterator[TextChunk]:
    parser = _Parser()
    rest = b""
    skipping = False
    for block in blocks:
        start = block.find(b"\n") + 1 if skipping else 0
        if skipping and not start:
            continue
        skipping = False
        end = block.rfind(b"\n")
        if end >= start:
            yield parser.chunk((rest + block[start:end]).removesuffix(b"\r").replace(b"\r\n", b"\n"))
            rest = b""
        rest += block[max(end + 1, start):]
        if len(rest) > _MAX_LINE:
            yield parser.stray(rest, cut_off=False)
            rest, skipping = b"", True
    # A number in a line without an end may have lost digits, so such a line is never trusted.
    if not _SKIPPED.match(rest):
        yield parser.stray(rest, cut_off=True)


def sniff_text(first_bytes: bytes) -> bool:
    """Return whether a file whose first bytes are given, plain or compressed, is ftrace text.

    A few KiB do for plain text and gzip; of zstd and xz see :func:`traces.importers.packed.unpacked_head`.
    """
    head = first_bytes[:1 << 18]
    if is_packed(head):
        head = unpacked_head(head, 1 << 16)
    if b"\0" in head:
        return False
    return re.match(rb"# tracer: |cpus=\d+\n", head) is not None or _layout_of(head, kernel=False) is not None \
        or form_of(head) != ""
