# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of ftrace text: parsed columns to the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from traces import schema
from traces.errors import BadInput
from traces.importers.ftracetext import TextChunk, iter_text
from traces.importers.inputfile import chunks, read_head
from traces.importers.probemap import apply_moves, moves_for, vocabulary_name
from traces.importers.rewrittentext import Rewritten
from traces.importers.source import Block, RunFacts, ring_dropped, ring_held
from traces.importers.textforms import FORMS, KINDS, form_of, rewrite
from traces.importers.textorder import in_order
from traces.times import UNNAMED

__all__ = ["stream"]

_COLUMN = {name: index for index, name in enumerate(schema.column_names())}


def stream(path: Path | BinaryIO, facts: RunFacts, *, head: bool = True) -> Iterator[Block]:
    """Parse ftrace text and return its events in the order of time (:mod:`traces.importers.textorder`).

    Time stamps are as fine as the text prints them (``facts.ts_unit_ns``).

    :param head: the text may begin with the kernel's head, which counts its events
    """
    return in_order(_as_printed(path, facts, head), facts)


def _as_printed(path: Path | BinaryIO, facts: RunFacts, head: bool) -> Iterator[Block]:
    losses: dict[int, dict[str, Any]] = {}
    now = 0
    last: TextChunk | None = None
    ignored: dict[str, int] = {}
    partial: dict[str, tuple[dict[str, int], int]] = {}
    fields: dict[str, set[str]] = {}
    lines = 0
    for chunk in iter_text(_opened(path, facts)):
        partial.update(chunk.partial)
        for probe, columns in chunk.fields.items():
            fields.setdefault(probe, set()).update(columns)
        last = chunk
        lines += chunk.ts.size
        facts.ts_unit_ns = chunk.ts_unit_ns
        facts.comms.update(chunk.comms)
        for cpu in np.unique(chunk.cpu):
            losses.setdefault(int(cpu), {"cpu": int(cpu), "lost": 0})
        for _, cpu, count in chunk.lost:
            record = losses.setdefault(cpu, {"cpu": cpu, "lost": 0})
            record["lost"] = None if count is None or record["lost"] is None else record["lost"] + count
        yield _block(chunk, facts, ignored, now)
        now = int(chunk.ts[-1]) if chunk.ts.size else now
    for probe, (found, count) in partial.items():
        _withdraw(facts, probe, fields[probe], found, count)
    for record in losses.values():
        facts.losses.append(record | {"ignored_events": ignored})
    _twice(facts, fields)
    if last is None:
        return
    if head and not facts.captured and not facts.snapshots and last.unparsed:
        number, text = last.unparsed[0]
        raise BadInput(getattr(path, "name", "") if not isinstance(path, Path) else path, f"line {number}",
                       f"cannot be read, and no event of the text is known: '{text[:80]}'", KINDS)
    lines += last.stacks
    counted = _rings(facts, last, lines + last.unparsed_total)
    whole = counted if last.entries is None else last.entries[0] == last.entries[1] <= lines
    if whole and all(record["lost"] == 0 for record in losses.values()):
        for record in facts.losses:
            record["counted"] = True
    elif head and last.entries is None and not last.rings:
        facts.notes.append("the text has no head that counts its events: losses that no line names would go unseen")
    if last.unparsed_total:
        line, text = last.unparsed[0] if last.unparsed else (0, "")
        facts.notes.append(f"{last.unparsed_total} lines could not be parsed, the first is line {line}: {text[:80]}")
        facts.losses.append({"cpu": None, "lost": None, "unparsed_lines": last.unparsed_total,
                             "why": f"{last.unparsed_total} lines of the text could not be read"})
    if last.cut_off:
        facts.notes.append("the last line is cut off")
        facts.losses.append({"cpu": None, "lost": None, "cut_off": True, "why": "the text's last line is cut off"})
    if last.entries is not None and last.entries[0] != last.entries[1]:
        facts.notes.append(f"the text says that {last.entries[0]} of {last.entries[1]} events were still in the buffer")
        facts.losses.append({"cpu": None, "lost": last.entries[1] - last.entries[0],
                             "why": f"{last.entries[1] - last.entries[0]} events were overwritten before the text was "
                                    f"read"})
    if last.entries is not None and lines + last.unparsed_total < last.entries[0]:
        gone = last.entries[0] - lines - last.unparsed_total
        facts.losses.append({"cpu": None, "lost": gone, "why": f"the text's head says {last.entries[0]} events and "
                             f"{lines + last.unparsed_total} follow: {gone} are missing, copy the text again"})


def _rings(facts: RunFacts, last: TextChunk, lines: int) -> bool:
    """Compare a text's events with the statistics of the rings that it also has (``trace-cmd report --stat``).

    Returns True where these say that none is missing.
    """
    before = len(facts.losses)
    for (_, cpu), counts in sorted(last.rings.items()):
        if dropped := ring_dropped(counts):
            facts.losses.append({"cpu": cpu, "lost": dropped, "why": f"the ring of CPU {cpu} lost {dropped} events, as "
                                                                     f"its statistics in the text say"})
    held = sum(map(ring_held, last.rings.values()))
    if lines < held:
        facts.losses.append({"cpu": None, "lost": held - lines, "why": f"the statistics in the text say {held} events "
                             f"and {lines} stand there: {held - lines} are missing, copy the text again"})
    return bool(last.rings) and len(facts.losses) == before


def _opened(path: Path | BinaryIO, facts: RunFacts) -> Path | BinaryIO:
    """Return a text to read, rewritten where its lines have another head; what that means for times is noted."""
    # content recognises these files with ftracetext, so it cannot be imported before it.
    if not isinstance(path, Path):
        return path
    form = form_of(read_head(path, 1 << 16))
    if not form:
        return path
    facts.notes.append(FORMS[form])
    facts.clock = form
    # Those of the latency format count microseconds.
    facts.stamps = UNNAMED if form == UNNAMED else ""
    return cast(BinaryIO, Rewritten(str(path), chunks(path), lambda line: rewrite(line, form)))


def _twice(facts: RunFacts, probes: Mapping[str, set[str]]) -> None:
    """Two probes of one function print each of its calls twice, unless they took turns: nothing shows which."""
    of: dict[str, list[str]] = {}
    for probe, fields in probes.items():
        name = vocabulary_name(probe, fields)
        if name not in (None, "marker"):
            of.setdefault(str(name), []).append(probe)
    for name, several in sorted(of.items()):
        if len(several) > 1:
            why = f"{name} was recorded by several events ({', '.join(sorted(several))}): a call may be recorded twice"
            facts.notes.append(f"{why}; leave out the lines of one of them")
            facts.losses.append({"cpu": None, "lost": None, "why": why})


def _withdraw(facts: RunFacts, probe: str, fields: set[str], partial: dict[str, int], lines: int) -> None:
    """Take a column that only some lines of an event have as not captured: the other lines have no value for it."""
    name = vocabulary_name(probe, fields | partial.keys())
    if name is None:
        return
    for move in moves_for(probe, fields | partial.keys()):
        lacking = next((field for field in (move.field, move.second) if field in partial), None)
        if lacking is not None:
            facts.captured[name] = [column for column in facts.captured.get(name, ()) if column != move.column]
            facts.notes.append(f"{probe} has {lacking} in {partial[lacking]} of {lines} lines: {name}'s {move.column} "
                               f"is not taken as captured")


def _block(chunk: TextChunk, facts: RunFacts, ignored: dict[str, int], now: int) -> Block:
    """Return a chunk's events; ``now`` is the last stamp before it.  A loss is at the stamp of the next line."""
    rows = chunk.ts.size
    out = np.zeros((len(schema.COLUMNS), rows), np.int64)
    out[_COLUMN["content"]] = -1
    out[_COLUMN["ts"]], out[_COLUMN["cpu"]], out[_COLUMN["pid"]] = chunk.ts, chunk.cpu, chunk.pid
    texts: list[tuple[int, str]] = []
    for probe, where in chunk.rows.items():
        name = vocabulary_name(probe, chunk.fields.get(probe, ()))
        if name is None:
            ignored[probe] = ignored.get(probe, 0) + int(where.size)
            continue
        out[_COLUMN["event"], where] = schema.CODE[name]
        if name == "marker":
            texts.extend((int(row), text) for row, text in zip(where, chunk.strings[probe], strict=True))
            continue
        fields = {key: values.view(np.int64) if values.dtype == np.uint64 else values
                  for key, values in chunk.fields[probe].items()}
        columns = apply_moves(moves_for(probe, set(fields)), fields)
        for column, values in columns.items():
            out[_COLUMN[column], where] = values
        facts.captured[name] = sorted({*facts.captured.get(name, []), *columns})
    keep = out[_COLUMN["event"]] != 0
    lost = [(int(np.count_nonzero(keep[:row])), {"event": schema.CODE["lost_events"], "cpu": cpu,
                                                 "ret": -1 if count is None else count,
                                                 "ts": int(chunk.ts[min(row, rows - 1)]) if rows else now}, "")
            for row, cpu, count in chunk.lost]
    place = np.cumsum(keep) - 1
    block = Block.of(out[:, keep], sorted((int(place[row]), text) for row, text in texts))
    return block.insert(lost) if lost else block
