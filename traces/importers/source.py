# SPDX-License-Identifier: GPL-2.0-or-later
"""What every importer hands over: a time-ordered stream of event blocks, and what it knows of the run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from traces import schema
from traces.importers.eventformat import HeaderPage
from traces.importers.probemap import ProbeTable
from traces.importers.ring import Damage, RingDecoder, blank, new_block

__all__ = ["BLOCK_ROWS", "Block", "RunFacts", "merge_cpus", "ring_blocks"]

#: Rows per block: large enough to write well, small enough that several CPUs fit into memory.
BLOCK_ROWS: Final = 1 << 18

#: (int64 columns x rows, [(row, marker text)])
Block = tuple[np.ndarray, list[tuple[int, str]]]
#: A block and the stamp each of its rows is sorted by.
_Part = tuple[Block, np.ndarray]


@dataclass
class RunFacts:
    """What an importer knows beside the events; empty where the source does not say.

    ``captured``: vocabulary event -> columns its probe filled; ``functions``: event -> probed kernel function;
    ``config``: what the model needs (compressor, chain_size, totalram_pages, parameters, addresses);
    ``snapshots``: (label, ts in ns, values); ``losses``: one dict per CPU or reader; ``notes``: sentences;
    ``complete``: False when the recorder was stopped before it could finish; ``capture``: what the project's own
    recorder says of the run.
    """

    kernel: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    captured: dict[str, list[str]] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    snapshots: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    #: (instance, CPU) -> what the kernel counted: per_cpu/cpuN/stats
    ring_stats: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    comms: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ts_unit_ns: int = 1
    complete: bool = True
    capture: dict[str, Any] = field(default_factory=dict)


def loss_record(cpu: int, damage: Damage) -> dict[str, Any]:
    """Return a CPU's damage as the manifest keeps it; ``lost`` null when the kernel did not count."""
    return {
        "cpu": cpu,
        "events": damage.events,
        "lost": None if damage.lost_unknown else damage.lost,
        "damaged_subbuffers": damage.subbuffers,
        "short_records": damage.short_records,
        "first_damage_offset": damage.first_offset,
        "tail_bytes": damage.tail_bytes,
        "backwards": damage.backwards,
        "discarded": damage.discarded,
        "unknown_events": {str(number): count for number, count in damage.unknown.items()},
        "ignored_events": damage.ignored,
    }


def ring_blocks(chunks: Iterable[bytes | memoryview | np.ndarray], table: ProbeTable, header: HeaderPage, cpu: int,
                done: Callable[[int, Damage], None], rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """Decode one CPU's stream of raw sub-buffers, given in chunks of any size, into blocks.

    A yielded block is overwritten when the third one after it is made.

    :param done: called once at the end with the CPU and its damage
    """
    decoder = RingDecoder(table, header, cpu)
    rows = max(rows, decoder.most_rows)
    # A block is read until the one after the next is asked for: three take turns.
    blocks = itertools.cycle([new_block(rows) for _ in range(3)])
    block, row, texts = next(blocks), 0, []
    rest = np.zeros(0, np.uint8)
    for chunk in chunks:
        data = np.frombuffer(chunk, np.uint8) if not isinstance(chunk, np.ndarray) else chunk
        if rest.size:
            data = np.concatenate((rest, data))
        at = 0
        while True:
            used, row, more = decoder.feed(data[at:], block, row)
            texts.extend(more)
            at += used
            if data.size - at < header.size:
                break
            # The block cannot take another sub-buffer for certain.
            yield block[:, :row], texts
            block, row, texts = next(blocks), 0, []
            blank(block)
        rest = data[at:]
    if row:
        yield block[:, :row], texts
    done(cpu, decoder.damage(int(rest.size)))


def merge_cpus(streams: list[Iterator[Block]]) -> Iterator[Block]:
    """Merge time-ordered streams of blocks by time stamp; equal stamps keep the order of the streams.

    Holds at most one block and one remainder per stream.  Events of one stream are never put in another order:
    where stamps run backwards in a block (counted as damage), as few as possible count as those beside them.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    pending = [_next_part(stream) for stream in streams]
    while any(part is not None for part in pending):
        # Up to the earliest last stamp every stream is known completely.  Of streams that end with this stamp the
        # first might go on with it, and the later ones wait for that.
        horizon, first = min((int(part[1][-1]), index) for index, part in enumerate(pending) if part is not None)
        taken: list[_Part] = []
        for index, part in enumerate(pending):
            if part is None:
                continue
            (columns, texts), keys = part
            count = int(np.searchsorted(keys, horizon, "right" if index <= first else "left"))
            if count:
                taken.append(((columns[:, :count], [(r, t) for r, t in texts if r < count]), keys[:count]))
            if count == keys.size:
                pending[index] = _next_part(streams[index])
            elif count:
                pending[index] = (columns[:, count:], [(r - count, t) for r, t in texts if r >= count]), keys[count:]
        yield _interleave(taken)


def _next_part(stream: Iterator[Block]) -> _Part | None:
    for block in stream:
        if block[0].shape[1]:
            stamps = block[0][0]
            late = np.maximum.accumulate(stamps)
            early = np.minimum.accumulate(stamps[::-1])[::-1]
            # Of a stamp that is far off and all the others, most are right.
            return block, late if np.count_nonzero(late != stamps) <= np.count_nonzero(early != stamps) else early
    return None


def _interleave(parts: list[_Part]) -> Block:
    columns = np.concatenate([part for (part, _), _ in parts], axis=1)
    order = np.argsort(np.concatenate([keys for _, keys in parts]), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    texts: list[tuple[int, str]] = []
    base = 0
    for (part, some), _ in parts:
        texts.extend((int(place[base + row]), text) for row, text in some)
        base += part.shape[1]
    return columns[:, order], sorted(texts)


def insert_rows(block: Block, rows: list[tuple[int, dict[str, int], str]]) -> Block:
    """Return a block with rows inserted: (position, {column: value}, text), positions ascending."""
    columns, texts = block
    index = {name: i for i, name in enumerate(schema.column_names())}
    extra = np.zeros((columns.shape[0], len(rows)), np.int64)
    extra[index["content"]] = -1
    for number, (_, values, _) in enumerate(rows):
        for name, value in values.items():
            extra[index[name], number] = value
    positions = np.array([position for position, _, _ in rows], np.int64)
    merged = np.insert(columns, positions, extra, axis=1)
    shifted = [(row + int(np.searchsorted(positions, row, "right")), text) for row, text in texts]
    shifted += [(position + number, text) for number, (position, _, text) in enumerate(rows) if text]
    return merged, sorted(shifted)
