# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of a trace.dat: its sub-buffers through the same decoder as raw rings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from traces.errors import BadInput
from traces.importers.eventformat import parse_event_format, parse_header_page
from traces.importers.probemap import ProbeTable, vocabulary_name
from traces.importers.ring import Damage
from traces.importers.source import Block, RunFacts, block_rows, count_rings, loss_record, merge_cpus, ring_blocks
from traces.importers.tracedat import CpuData, TraceDat, open_tracedat

__all__ = ["stream"]


def stream(path: Path, facts: RunFacts) -> Iterator[Block]:
    """Open a trace.dat and return its events, all buffers and CPUs merged by time.

    :raises BadInput: when the file is damaged beyond its events, or big-endian
    """
    try:
        dat = open_tracedat(path)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})", "check the path") from None
    try:
        return _open(dat, path, facts)
    except BaseException:
        dat.close()
        raise


def _open(dat: TraceDat, path: Path, facts: RunFacts) -> Iterator[Block]:
    if not dat.little_endian:
        raise BadInput(path, "offset 10", "was recorded on a big-endian machine", "record on a little-endian one")
    formats = [parse_event_format(text, f"{path}, format of {name}") for name, text in dat.formats.items()
               if vocabulary_name(name.rsplit("/", 1)[-1]) is not None]
    # The same event can be described by several systems of a file; the ring only knows its id.
    table = ProbeTable.build(list({fmt.id: fmt for fmt in formats}.values()))
    facts.captured.update({name: columns for name, columns in table.captured.items() if name != "marker"})
    facts.comms.update(dat.cmdlines)
    if dat.uname:
        facts.kernel.setdefault("uname", dat.uname)
        words = dat.uname.split()
        if len(words) > 2:
            facts.kernel.setdefault("release", words[2])
    facts.notes.extend(dat.notes)
    return _events(dat, table, path, facts)


def _events(dat: TraceDat, table: ProbeTable, path: Path, facts: RunFacts) -> Iterator[Block]:
    with dat:
        header = parse_header_page(dat.header_page, f"{path}, header_page")
        known = {number: name for name, number in _ids(dat).items()}
        streams = []
        rows = block_rows(sum(len(buffer.cpus) for buffer in dat.buffers))
        for buffer in dat.buffers:
            # Each instance can have its own sub-buffer size; header_page only knows the one of the top.
            layout = dataclasses.replace(header, size=buffer.page_size)
            for cpu in buffer.cpus:
                streams.append(ring_blocks(cpu.subbuffers(), table, layout, cpu.cpu,
                                           _finish(cpu, buffer.name, known, facts), rows))
        if streams:
            yield from merge_cpus(streams)
    # trace-cmd also kept each CPU's own statistics.
    stats = {(stat.buffer, stat.cpu): stat.counters for stat in dat.cpustats}
    facts.notes += count_rings(facts.losses, stats, _ring_of, "trace.dat", every=True)
    if not facts.losses:
        facts.losses.append({"cpu": None, "lost": None, "why": "trace.dat holds the ring of no CPU"})


def _ring_of(loss: dict[str, Any]) -> tuple[str, int]:
    return loss["buffer"], loss["cpu"]


def _ids(dat: TraceDat) -> dict[str, int]:
    """The ids of all events a file describes; its formats outside the vocabulary are needed for no more."""
    ids: dict[str, int] = {}
    for name, text in dat.formats.items():
        for line in text.splitlines():
            if match := re.fullmatch(r"ID:\s*([0-9]{1,5})\s*", line):
                ids[name] = int(match[1])
                break
    return ids


def _finish(cpu: CpuData, buffer: str, known: dict[int, str], facts: RunFacts) -> Callable[[int, Damage], None]:
    def done(number: int, damage: Damage) -> None:
        damage.ignored = {known[n]: count for n, count in damage.unknown.items() if n in known}
        damage.unknown = {n: count for n, count in damage.unknown.items() if n not in known}
        record = {"buffer": buffer, **loss_record(number, damage)}
        if cpu.truncated_bytes:
            record["lost"] = None
            record["cut_off"] = True
            record["missing_bytes"] = cpu.truncated_bytes
        facts.losses.append(record)
    return done
