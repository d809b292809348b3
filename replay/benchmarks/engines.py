# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled engine compared with the reference and libCacheSim, and how its time and memory grow with a recording.

Seconds are CPU seconds of a process of its own, all its threads together: what else the machine does meanwhile adds
little to them.
"""

from __future__ import annotations

import importlib.util
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from replay.benchmarks.process import child, repeated
from replay.benchmarks.row import BenchRow
from replay.tools.synthetic import cycle, write_repeated
from replay.verdict.run import replay
from traces import schema
from traces.recording import Recording

__all__ = ["engine_rows", "growth_rows"]

_CYCLE: Final = 250_000
#: Of the recording on which engines are compared.
_EVENTS: Final = 4_000_000
#: The reference is measured on fewer events: its time per event does not depend on how many there are.
_REFERENCE: Final = 500_000
_SIZES: Final = (100_000, 1_000_000, 10_000_000, 100_000_000)


def replay_seconds(warm: str, path: str, engine: str) -> dict[str, Any]:
    """Replay ``warm``, which loads compiled code, then ``path``; return its events, CPU seconds and peak memory."""
    replay(Recording(warm), pages=False, engine=engine)
    recording = Recording(path)
    began = time.process_time()
    result = replay(recording, pages=False, engine=engine)
    seconds = time.process_time() - began
    assert result.verdict == "PASS", result
    assert engine == "reference" or result.compiled == result.events, "the reference had to help"
    return {"events": result.events, "seconds": seconds,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def read_seconds(path: str) -> dict[str, Any]:
    """Only read the columns that a replay reads; return events and CPU seconds."""
    from replay.fast.runner import READ, ROWS

    recording = Recording(path)
    for _ in recording.batches(READ, rows=ROWS):
        break
    began = time.process_time()
    events = sum(len(columns["event"]) for _, columns in recording.batches(READ, rows=ROWS))
    return {"events": events, "seconds": time.process_time() - began}


def keys_of(recording: Recording) -> np.ndarray:
    """Return the swap entries that pages are stored at, loaded from and freed at, in order (uint64)."""
    parts = []
    for _, batch in recording.batches(["event", "swpent", "order"], rows=1 << 18):
        code = batch["event"]
        rows = np.flatnonzero(np.isin(code, [schema.CODE[name] for name in
                                             ("zswap_store", "zswap_load", "zswap_invalidate")]))
        pages = np.where(code[rows] == schema.CODE["zswap_store"], 1 << batch["order"][rows].astype(np.int64), 1)
        first = np.repeat(batch["swpent"][rows], pages)
        within = np.arange(len(first)) - np.repeat(np.cumsum(pages) - pages, pages)
        parts.append(first + within.astype(np.uint64))
    return np.concatenate(parts)


def libcachesim_seconds(path: str) -> dict[str, Any]:
    """Let libCacheSim's LRU take a recording's keys from a file of its own format; return keys and CPU seconds."""
    import libcachesim

    keys = keys_of(Recording(path))
    rows = np.zeros(len(keys), [("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
    rows["time"], rows["key"], rows["size"], rows["next"] = np.arange(len(keys)) // 1000, keys + 1, 1, -1
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "keys.oracleGeneral"
        rows.tofile(file)
        reader = libcachesim.TraceReader(trace=str(file), trace_type=libcachesim.TraceType.ORACLE_GENERAL_TRACE)
        cache = libcachesim.LRU(cache_size=len(np.unique(keys)))
        began = time.process_time()
        cache.process_trace(reader)
        return {"keys": len(keys), "seconds": time.process_time() - began}


def engine_rows(base: Path, say: Any) -> list[BenchRow]:
    """Measure the engines and libCacheSim, each run a process on one core, one after the other in turn."""
    say("replaying without page bytes: both engines, libCacheSim")
    block = cycle(_CYCLE)
    warm, small, large = (str(base / name) for name in ("warm", "small", "large"))
    write_repeated(warm, cycle(5_000), 1)
    write_repeated(small, block, max(1, _REFERENCE // block.shape[1]))
    write_repeated(large, block, max(1, _EVENTS // block.shape[1]))
    module = "replay.benchmarks.engines"
    has_yardstick = importlib.util.find_spec("libcachesim") is not None
    child(module, "replay_seconds", warm, warm, "fast")
    speeds: dict[str, list[float]] = {"fast": [], "reference": [], "reading": [], "keys": [], "per key": []}

    def once() -> None:
        for engine, path in (("fast", large), ("reference", small)):
            done = child(module, "replay_seconds", warm, path, engine)
            speeds[engine].append(done["events"] / done["seconds"])
        done = child(module, "read_seconds", large)
        speeds["reading"].append(done["events"] / done["seconds"])
        if has_yardstick:
            found = child(module, "libcachesim_seconds", large)
            speeds["keys"].append(found["keys"] / found["seconds"])
            events = max(1, _EVENTS // block.shape[1]) * block.shape[1]
            speeds["per key"].append(events / speeds["fast"][-1] / found["seconds"])

    repeated(once)
    rows = [BenchRow.of("replay without page bytes, one core", speeds["fast"], 1e6, "million events/s", ">= 5, aim 10"),
            BenchRow.of("of which reading the recording alone", speeds["reading"], 1e6, "million events/s", ""),
            BenchRow.of("the reference engine", speeds["reference"], 1e6, "million events/s", ""),
            BenchRow.of("compared with the reference engine",
                        [a / b for a, b in zip(speeds["fast"], speeds["reference"], strict=True)], 1, "times as fast",
                        ">= 30")]
    if not has_yardstick:
        missing = "not measured: libcachesim is not installed"
        return [*rows, BenchRow("compared with libCacheSim", 0.0, "times as fast", "> 1", note=missing)]
    return [*rows,
            BenchRow.of("compared with libCacheSim's LRU: events against its requests",
                        [a / b for a, b in zip(speeds["fast"], speeds["keys"], strict=True)], 1, "times as fast",
                        "> 1"),
            BenchRow.of("the same sequence of keys: the whole replay compared with libCacheSim's LRU",
                        speeds["per key"], 1,
                        "times the time", "", "a key here is a page stored, loaded or freed, and some dozen events")]


def growth_rows(base: Path, largest: int, say: Any) -> list[BenchRow]:
    """Measure time per event and peak memory from 10^5 events to ``largest``."""
    block = cycle(_CYCLE)
    sizes = [size for size in _SIZES if size <= largest]
    times: dict[int, list[float]] = {size: [] for size in sizes}
    peaks: dict[int, list[float]] = {size: [] for size in sizes}
    paths = {}
    for size in sizes:
        part = cycle(size) if size < block.shape[1] else block
        paths[size] = str(base / f"growth{size}")
        write_repeated(paths[size], part, max(1, size // part.shape[1]))

    def once() -> None:
        for size in sizes:
            say(f"replaying {size:,} events")
            # After a replay of the smallest one: memory that a first replay takes from the system is at hand.
            done = child("replay.benchmarks.engines", "replay_seconds", paths[sizes[0]], paths[size], "fast")
            times[size].append(done["seconds"] / done["events"] * 1e9)
            peaks[size].append(done["peak_mb"])

    repeated(once)
    rows = []
    for size in sizes:
        power = f"10^{len(str(size)) - 1}"
        rows.append(BenchRow.of(f"{power} events: CPU time per event", times[size], 1, "ns", ""))
        rows.append(BenchRow.of(f"{power} events: peak memory", peaks[size], 1, "MB",
                                "< 1000" if size >= 10**8 else ""))
    grows = [last / first for first, last in zip(times[sizes[0]], times[sizes[-1]], strict=True)]
    rows.append(BenchRow.of("time per event, most events compared with fewest", grows, 1, "times", "0.85 to 1.15"))
    return rows
