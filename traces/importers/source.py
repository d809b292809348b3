# SPDX-License-Identifier: GPL-2.0-or-later
"""What every importer hands over: a time-ordered stream of event blocks, and what it knows of the run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from traces.block import Block
from traces.importers.eventformat import HeaderPage
from traces.importers.merge import interleave
from traces.importers.probemap import ProbeTable
from traces.importers.ring import Damage, RingDecoder, Room
from traces.recording import usable_cpus

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BLOCK_ROWS", "Block", "RunFacts", "block_rows", "count_rings", "merge_cpus", "ring_blocks", "ring_dropped",
           "ring_held"]

#: Rows per block: as many as a segment of a recording has.
BLOCK_ROWS: Final = 1 << 18
_LEAST_ROWS: Final = 1 << 13

#: A block and the stamp each of its rows is sorted by.
_Part = tuple[Block, np.ndarray]


@dataclass
class RunFacts:
    """What an importer knows of the run apart from its events; empty where the source does not say.

    ``captured``: vocabulary event -> columns its probe filled; ``functions``: event -> probed kernel function;
    ``config``: what the model needs (compressor, chain_size, totalram_pages, parameters, addresses);
    ``snapshots``: (label, ts in ns, values); ``losses``: one dict per CPU or reader; ``notes``: sentences;
    ``missing``: sentences on what else is known to be missing (snapshots, pages; not events); ``complete``: False when
    the recorder was stopped before it could finish; ``capture``: what the project's own recorder says of the run;
    ``command``: how a user's command ended in the lab, and what it said; ``iaa``: the lab's emulated devices, and a
    table of their jobs.
    """

    kernel: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    captured: dict[str, list[str]] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    snapshots: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    #: file (as it is called before it is packed) -> bytes that its recorder wrote
    written: dict[str, int] = field(default_factory=dict)
    #: (instance, CPU) -> what the kernel counted: per_cpu/cpuN/stats
    ring_stats: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    comms: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    ts_unit_ns: int = 1
    #: the stamps' clock where it is not that of the snapshots, which then cannot be put in place
    clock: str = ""
    #: the clock's name where stamps do not count seconds (:mod:`traces.times`)
    stamps: str = ""
    #: the trace instance to take of a trace.dat that holds several; None: all of them
    instance: str | None = None
    complete: bool = True
    capture: dict[str, Any] = field(default_factory=dict)
    command: dict[str, Any] | None = None
    iaa: tuple[dict[str, Any], pd.DataFrame] | None = None


def count_rings(losses: list[dict[str, Any]], stats: Mapping[Any, Mapping[str, int | float]],
                ring_of: Callable[[dict[str, Any]], Any], source: str, *, every: bool) -> list[str]:
    """Compare each ring's events with the kernel's counts for it, and return notes: drops leave no mark in a ring.

    A ring without the kernel's counts has an unknown loss; a counted ring that is missing is a loss of its own.

    :param losses: of each ring that is there; ``lost`` is brought up to date, ``counted`` says that no event is missing
    :param stats: ring -> ``per_cpu/cpuN/stats``; what :data:`ring_of` gives is (instance, CPU)
    :param source: what would hold the statistics, for messages
    :param every: count an instance without any ring as missing, too
    """
    notes, there = [], set()
    for loss in losses:
        ring = ring_of(loss)
        there.add(ring)
        counts = stats.get(ring)
        if counts is None:
            if loss["lost"] == 0:
                loss |= {"lost": None, "why": f"what CPU {loss['cpu']} lost is not known: {source} does not hold the "
                                              f"kernel's statistics of its ring (per_cpu/cpu{loss['cpu']}/stats)"}
            continue
        if loss["lost"] is None:
            continue
        missing = ring_held(counts) - loss["events"]
        loss["lost"] = max(loss["lost"], ring_dropped(counts)) + max(0, missing)
        held = f"{loss.get('file') or 'CPU ' + str(loss['cpu'])} holds {loss['events']} events where the kernel " \
               f"counted {ring_held(counts)}"
        if missing > 0:
            notes.append(held)
        elif missing < 0:
            loss |= {"lost": None, "why": f"{held}: its ring was cleared meanwhile, or the statistics are of another "
                                          f"moment"}
        elif loss["lost"] == 0:
            loss["counted"] = True
    instances = {instance for instance, _ in there}
    for instance, cpu in sorted(set(stats) - there):
        counts = stats[instance, cpu]
        gone = ring_held(counts) + ring_dropped(counts)
        if gone and (every or instance in instances):
            notes.append(f"the ring of CPU {cpu} is not there: the kernel counted {gone} events of it")
            losses.append({"cpu": cpu, "lost": gone, "events": 0})
    return notes


def ring_held(counts: Mapping[str, int | float]) -> int:
    """Return how many events a ring's statistics say were read from it, or still are in it."""
    return int(counts.get("entries", 0)) + int(counts.get("read events", 0))


def ring_dropped(counts: Mapping[str, int | float]) -> int:
    """Return how many events a ring's statistics say it lost."""
    return sum(int(counts.get(name, 0)) for name in ("overrun", "commit overrun", "dropped events"))


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


def block_rows(cpus: int) -> int:
    """Return how many rows a CPU's blocks have where the streams of this many are merged: together one block's."""
    return max(BLOCK_ROWS // max(cpus, 1), _LEAST_ROWS)


def ring_blocks(chunks: Iterable[bytes | memoryview | np.ndarray], table: ProbeTable, header: HeaderPage, cpu: int,
                done: Callable[[int, Damage], None], rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """Decode one CPU's stream of raw sub-buffers, given in chunks of any size, into blocks.

    A yielded block is overwritten when the second one after it is made; where blocks are written on another CPU
    (:class:`~traces.recording.RecordingWriter`), when the third one is.

    :param done: called once at the end with the CPU and its damage
    """
    decoder = RingDecoder(table, header)
    rows = max(rows, decoder.most_rows)
    rooms = itertools.cycle([Room(rows) for _ in range(2 + (usable_cpus() > 1))])
    room, row, texts = next(rooms), 0, []
    rest = np.zeros(0, np.uint8)
    for chunk in chunks:
        data = np.frombuffer(chunk, np.uint8) if not isinstance(chunk, np.ndarray) else chunk
        if rest.size:
            data = np.concatenate((rest, data))
        at = 0
        while True:
            used, row, more = decoder.feed(data[at:], room, row)
            texts.extend(more)
            at += used
            if data.size - at < header.size:
                break
            # The room cannot take another sub-buffer for certain.
            yield room.block(row, cpu, texts)
            room, row, texts = next(rooms), 0, []
            room.clear()
        rest = data[at:]
    if row:
        yield room.block(row, cpu, texts)
    done(cpu, decoder.damage(int(rest.size)))


def merge_cpus(streams: list[Iterator[Block]]) -> Iterator[Block]:
    """Merge time-ordered streams of blocks by time stamp; equal stamps keep the order of the streams.

    Holds at most one block and one remainder per stream.  Events of one stream always keep their order: where stamps
    run backwards in a block (counted as damage), as few events as possible are sorted by their neighbours' stamps.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    pending = [[part] if (part := _next_part(stream)) is not None else [] for stream in streams]
    while any(pending):
        # Up to the earliest last stamp every stream is known completely.  Of the streams that end with this stamp the
        # first may have more events with it, and the later ones wait for that.
        horizon, first = min((int(parts[-1][1][-1]), index) for index, parts in enumerate(pending) if parts)
        taken: list[_Part] = []
        for index, parts in enumerate(pending):
            rest = []
            for block, keys in parts:
                count = int(np.searchsorted(keys, horizon, "right" if index <= first else "left"))
                if count:
                    taken.append((block.part(0, count), keys[:count]))
                if count < keys.size:
                    rest.append((block.part(count, len(block)), keys[count:]) if count else (block, keys))
            pending[index] = rest
        # Before any stream continues: a block's memory is used again.
        merged = interleave(taken)
        for parts, stream in zip(pending, streams, strict=True):
            # Streams of equal speed end their blocks soon after each other: one step for each would be many steps.
            if not parts or (len(parts) == 1 and 4 * len(parts[0][0]) < len(merged) // len(streams)):
                part = _next_part(stream)
                if part is not None:
                    block, keys = part
                    # A stamp before the end of the previous block still comes after that block.
                    parts.append((block, np.maximum(keys, parts[-1][1][-1]) if parts else keys))
        yield merged


def _next_part(stream: Iterator[Block]) -> _Part | None:
    for block in stream:
        if len(block):
            stamps = block.ts
            late = np.maximum.accumulate(stamps)
            early = np.minimum.accumulate(stamps[::-1])[::-1]
            # One stamp far from all the others is wrong, not the others.
            return block, late if np.count_nonzero(late != stamps) <= np.count_nonzero(early != stamps) else early
    return None
