# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of a trace.dat: its sub-buffers through the same decoder as raw rings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from traces import schema
from traces.errors import BadInput
from traces.importers.eventformat import parse_event_format, parse_header_page
from traces.importers.probemap import ProbeTable, vocabulary_name
from traces.importers.ring import Damage
from traces.importers.source import Block, RunFacts, block_rows, count_rings, loss_record, merge_cpus, ring_blocks
from traces.importers.tracedat import Buffer, CpuData, TraceDat, open_tracedat
from traces.machine import check_machine, check_page_size
from traces.record.oserrors import next_step

__all__ = ["stream"]

#: Clocks that count ns and begin where a snapshot's time does, or nearly: trace_clocks in kernel/trace/trace.c.  Not
#: named: what an old trace-cmd left out was the kernel's own choice.
_SECONDS: Final = frozenset(("", "local", "global", "mono", "mono_raw", "boot", "perf", "uptime"))


def stream(path: Path, facts: RunFacts) -> Iterator[Block]:
    """Open a trace.dat and return its events, all buffers and CPUs merged by time.

    :raises BadInput: when the file is damaged beyond its events, or big-endian
    """
    try:
        dat = open_tracedat(path)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                       next_step(problem.errno, "check the path")) from None
    try:
        return _open(dat, path, facts)
    except BaseException:
        dat.close()
        raise


def _open(dat: TraceDat, path: Path, facts: RunFacts) -> Iterator[Block]:
    if not dat.little_endian:
        raise BadInput(path, "offset 10", "was recorded on a big-endian machine", "record on a little-endian one")
    check_machine(path, "its UNAME", dat.uname.split()[-1] if len(dat.uname.split()) > 3 else "")
    if dat.long_size == 4:
        check_machine(path, "its header", "a machine of 32 bits")
    # The head says what getpagesize() gave; made files have smaller sub-buffers than any page.
    check_page_size(path, "its header", max(dat.page_size, 4096))
    formats = [parse_event_format(text, f"{path}, format of {name}") for name, text in dat.formats.items()
               if vocabulary_name(name.rsplit("/", 1)[-1], ("ret",)) is not None
               or vocabulary_name(name.rsplit("/", 1)[-1]) is not None]
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
        buffers = _chosen(dat, path, facts.instance)
        rows = block_rows(sum(len(buffer.cpus) for buffer in buffers))
        seen: dict[str, np.ndarray] = {}
        for buffer in buffers:
            to_ns = _clock(dat, buffer, facts)
            codes = seen[buffer.name] = np.zeros(256, bool)
            # Each instance can have its own sub-buffer size; header_page only knows the one of the top.
            layout = dataclasses.replace(header, size=buffer.page_size)
            for cpu in buffer.cpus:
                blocks = ring_blocks(cpu.subbuffers(), table, layout, cpu.cpu,
                                     _finish(cpu, buffer.name, known, facts), rows)
                streams.append(_watched(blocks, codes, to_ns))
        if streams:
            yield from merge_cpus(streams)
    # trace-cmd also kept each CPU's own statistics.
    names = {buffer.name for buffer in buffers} if facts.instance is not None else None
    stats = {(stat.buffer, stat.cpu): stat.counters for stat in dat.cpustats if names is None or stat.buffer in names}
    facts.notes += count_rings(facts.losses, stats, _ring_of, "trace.dat", every=True)
    _together(buffers, seen, facts)
    if not facts.losses:
        facts.losses.append({"cpu": None, "lost": None, "why": "trace.dat holds the ring of no CPU"})


def _chosen(dat: TraceDat, path: Path, instance: str | None) -> list[Buffer]:
    """Return the buffers to read: all, or that of the instance which was asked for ('top' is the one without name).

    :raises BadInput: when the file has no such instance
    """
    if instance is None:
        return dat.buffers
    found = [buffer for buffer in dat.buffers if buffer.name == instance] \
        or [buffer for buffer in dat.buffers if not buffer.name and instance == "top"]
    if not found:
        names = ", ".join(buffer.name or "top" for buffer in dat.buffers)
        raise BadInput(path, "", f"has no instance '{instance[:60]}'", f"choose one of {names}")
    return found


def _clock(dat: TraceDat, buffer: Buffer, facts: RunFacts) -> tuple[int, int] | None:
    """Return (multiplier, shift) of a buffer whose stamps are cycles that are known in ns; note what is not."""
    if buffer.clock in _SECONDS:
        return None
    name = buffer.clock
    known = next((value for value in dat.values("TSC2NSEC") if isinstance(value, tuple)), None) \
        if name == "x86-tsc" else None
    if known is not None and known[0] and known[1] <= 32:
        note = f"stamps are of the clock {name}, converted to ns as TSC2NSEC says"
        facts.clock = f"{name}, converted to ns"
    else:
        known = None
        note = f"stamps are of the clock {name}, which counts no seconds: the order of events is known, times are not"
        facts.clock = facts.stamps = name
    if note not in facts.notes:
        facts.notes.append(note)
    return None if known is None else (known[0], known[1])


def _watched(blocks: Iterator[Block], codes: np.ndarray, to_ns: tuple[int, int] | None) -> Iterator[Block]:
    """Mark in ``codes`` which events occur; turn cycles into ns as (ts * multiplier) >> shift, without overflow."""
    for block in blocks:
        codes[np.unique(block.event)] = True
        if to_ns is not None:
            multiplier, shift = to_ns
            high, low = block.ts >> 32, (block.ts & 0xFFFFFFFF).astype(np.uint64)
            block.ts[:] = ((high * multiplier) << (32 - shift)) \
                + ((low * np.uint64(multiplier)) >> np.uint64(shift)).astype(np.int64)
        yield block


def _together(buffers: list[Buffer], seen: dict[str, np.ndarray], facts: RunFacts) -> None:
    """Note what speaks against reading several instances as one run: different clocks, events recorded by both."""
    held = [buffer for buffer in buffers if seen[buffer.name].any()]
    if len({buffer.clock for buffer in held}) > 1:
        each = ", ".join(f"{buffer.name or 'top'}: {buffer.clock}" for buffer in held)
        _unsure(facts, f"the instances' clocks differ ({each}): the order of their events is not known")
    count = np.sum([seen[buffer.name] for buffer in held], axis=0) if held else np.zeros(256)
    twice = [name for name, code in schema.CODE.items()
             if count[code] > 1 and name not in ("marker", "lost_events")]
    if twice:
        names = ", ".join(buffer.name or "top" for buffer in held)
        more = f" and {len(twice) - 3} more events" if len(twice) > 3 else ""
        _unsure(facts, f"{', '.join(twice[:3])}{more}: recorded in several instances ({names}): a call may be recorded "
                       f"twice")


def _unsure(facts: RunFacts, why: str) -> None:
    facts.notes.append(f"{why}; choose one with --instance")
    facts.losses.append({"cpu": None, "lost": None, "why": why})


def _ring_of(loss: dict[str, Any]) -> tuple[str, int]:
    return loss["buffer"], loss["cpu"]


def _ids(dat: TraceDat) -> dict[str, int]:
    """The ids of all events a file describes; formats outside the vocabulary serve only for this."""
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
