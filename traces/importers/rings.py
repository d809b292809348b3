# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw ring-buffer dumps: files of sub-buffers as read from ``trace_pipe_raw``, with the formats of their boot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from traces.errors import BadInput
from traces.files import entries, read_input
from traces.importers.capturefiles import plain_name
from traces.importers.eventformat import EventFormat, HeaderPage, parse_event_format, parse_header_page
from traces.importers.inputfile import chunks, read_head
from traces.importers.pagefiles import is_page_format
from traces.importers.probemap import ProbeTable
from traces.importers.ring import Damage
from traces.importers.source import Block, RunFacts, block_rows, count_rings, loss_record, merge_cpus, ring_blocks
from traces.record.oserrors import next_step

__all__ = ["FormatDirectory", "cpu_of", "ring_stream"]

#: The built-in event of trace_marker (TRACE_PRINT is 5 in kernel/trace/trace.h since 2.6.30), which per-event
#: format directories usually leave out.
_PRINT: Final = """name: print
ID: 5
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned long ip;	offset:8;	size:8;	signed:0;
	field:char buf[];	offset:16;	size:0;	signed:0;
"""
_MAX_FORMAT: Final = 1 << 20
#: Bytes read at a time: few enough to be still in a cache when they are decoded.
_CHUNK: Final = 1 << 20
#: The largest value of the column ``cpu``.
_MAX_CPU: Final = (1 << 16) - 1


class FormatDirectory:
    """The event formats of one boot: ``header_page`` and one file per event.

    :raises BadInput: when a file is not a format, or two events have one id
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.header: HeaderPage = parse_header_page(self._text(directory / "header_page"),
                                                    str(directory / "header_page"))
        self.formats: list[EventFormat] = []
        seen: dict[int, str] = {}
        for path in entries(directory)[0]:
            # A box that died may have left a file half written under a hidden name.
            if path.name in ("header_page", "header_event") or path.name.startswith("."):
                continue
            fmt = parse_event_format(self._text(path), str(path))
            if fmt.id in seen:
                raise BadInput(path, "", f"has the id {fmt.id} of event '{seen[fmt.id]}'",
                               "copy the formats again, all from the recorded boot")
            seen[fmt.id] = fmt.name
            self.formats.append(fmt)
        if 5 not in seen:
            self.formats.append(parse_event_format(_PRINT, "the built-in print event"))
        self.table = ProbeTable.build([fmt for fmt in self.formats if not is_page_format(fmt)])

    @staticmethod
    def _text(path: Path) -> str:
        try:
            if path.stat().st_size > _MAX_FORMAT:
                raise BadInput(path, "", "is too long for an event format", "copy the formats again")
            return read_input(path, _MAX_FORMAT).decode("utf-8", "replace")
        except OSError as problem:
            raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                           next_step(problem.errno, "name the directory of event formats with --formats")) from None

    def is_page_ring(self, path: Path) -> bool:
        """True when the first sub-buffers of a ring hold halves of pages."""
        pages = {fmt.id for fmt in self.formats if is_page_format(fmt)}
        if not pages:
            return False
        head = read_head(path, 8 * self.header.size)
        for start in range(0, len(head) - self.header.size + 1, self.header.size):
            at, end = start + self.header.data_offset, start + self.header.size
            while at + 10 <= end:
                word = int.from_bytes(head[at:at + 4], "little")
                kind = word & 31
                if kind in (30, 31):
                    at += 8
                    continue
                if kind == 29:
                    break
                size = int.from_bytes(head[at + 4:at + 8], "little") if kind == 0 else 4 * kind
                body = at + 8 if kind == 0 else at + 4
                if int.from_bytes(head[body:body + 2], "little") in pages:
                    return True
                if size < 4:
                    break
                at += 4 + size
        return False


def cpu_of(path: Path, fallback: int) -> int:
    """Return the CPU a ring file is named after (``cpu3``), or ``fallback``."""
    match = re.search(r"cpu([0-9]{1,5})(?![0-9])", path.name)
    return int(match[1]) if match and int(match[1]) <= _MAX_CPU else fallback


def ring_stream(paths: list[Path], formats: FormatDirectory, facts: RunFacts) -> Iterator[Block]:
    """Decode the rings of all CPUs, one file each, merged by time; fills ``facts`` as they end."""
    facts.captured.update({name: columns for name, columns in formats.table.captured.items() if name != "marker"})
    streams = []
    for number, path in enumerate(paths):
        streams.append(_one(path, cpu_of(path, number), formats, facts, block_rows(len(paths))))
    yield from merge_cpus(streams)
    # A recorder of this project has its own statistics (traces.importers.capture).
    if not facts.capture:
        def ring_of(loss: dict[str, Any]) -> tuple[str, int]:
            ring = str(loss["file"]).split(".cpu", 1)[0], int(loss["cpu"])
            # A plain copy of stats names no instance.
            return ring if ring in facts.ring_stats else ("", ring[1])

        facts.notes += count_rings(facts.losses, facts.ring_stats, ring_of, "ring-stats.json", every=False)


def _one(path: Path, cpu: int, formats: FormatDirectory, facts: RunFacts, rows: int) -> Iterator[Block]:
    def pieces() -> Iterator[np.ndarray]:
        source = chunks(path, _CHUNK)
        while True:
            try:
                data = next(source)
            except StopIteration:
                return
            except BadInput as damage:
                # The decompressed part is kept; the recording says that the rest is missing.
                facts.notes.append(f"{damage} What came before it was imported.")
                cut.append(f"{path.name} is damaged: what it holds behind that place is missing")
                return
            sizes.append(len(data))
            yield np.frombuffer(data, np.uint8)

    sizes: list[int] = []
    cut: list[str] = []

    def done(number: int, damage: Damage) -> None:
        facts.losses.append({"file": path.name, **loss_record(number, damage)})

    yield from ring_blocks(pieces(), formats.table, formats.header, cpu, done, rows)
    written = facts.written.get(plain_name(path.name), 0)
    if not cut and sum(sizes) < written:
        cut.append(f"{path.name} holds {sum(sizes):,} bytes where its recorder wrote {written:,}")
    if cut:
        facts.losses[-1] |= {"lost": None, "cut_off": True, "why": cut[0]}
