# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays that compress the recorded pages, compared with the compressor's library alone on the same pages."""

from __future__ import annotations

import gc
import shutil
import time
from pathlib import Path
from typing import Any, Final

from model.crypto import compressor_for
from replay.benchmarks.process import child, repeated
from replay.benchmarks.row import BenchRow
from replay.tools.synthetic import write_pages_recording
from replay.verdict.run import replay
from traces.recording import Recording

__all__ = ["page_rows"]

_COMPRESSORS: Final = ("zstd", "lz4", "deflate")


def replay_pages(path: str) -> dict[str, float]:
    """Measure a recording with page bytes: the compressor alone in a plain loop, a first replay, a second.

    Seconds of the wall clock: a replay compresses on all CPUs there are.
    """
    recording = Recording(path)
    store = recording.pages
    assert store is not None
    compressor = compressor_for(recording.manifest["config"]["compressor"], "mainline-7.3")
    pages, _ = store.all_pages()
    distinct = [page.tobytes() for page in pages]
    handed = [distinct[page] for page in store.refs]
    cache = recording.path / "cache"
    # Once for nothing: libraries are loaded and compiled code is taken from its cache.
    assert replay(recording, engine="fast").verdict == "PASS"
    compressor.compress(handed[0])
    alone = []
    for some in (handed, distinct):
        _tidy()
        began = time.perf_counter()
        for page in some:
            compressor.compress(page)
        alone.append(time.perf_counter() - began)
    shutil.rmtree(cache, ignore_errors=True)
    parts = []
    for _ in range(2):
        _tidy()
        began = time.perf_counter()
        result = replay(Recording(path), engine="fast")
        parts += [time.perf_counter() - began, result.seconds["compress"]]
        assert result.compiled == result.events
    shutil.rmtree(cache, ignore_errors=True)
    return {"pages": len(handed), "distinct": len(distinct), "alone": alone[0], "alone_distinct": alone[1],
            "whole": parts[0], "part": parts[1], "second_whole": parts[2], "second_part": parts[3],
            "events": result.events}


def _tidy() -> None:
    """Collect what imports and preparations left to Python's collector: the next step does not pay for it.

    Libraries leave enough objects that looking at all of them once takes longer than compressing with lz4.
    """
    gc.collect()


def page_rows(base: Path, pages: list[bytes], say: Any) -> list[BenchRow]:
    """Measure each compressor that has a library, on every page stored and loaded twice."""
    rows: list[BenchRow] = []
    for name in _COMPRESSORS:
        say(f"replaying {2 * len(pages):,} stores of {len(pages):,} distinct pages with {name}")
        path = base / name
        write_pages_recording(str(path), pages, compressor_for(name, "mainline-7.3"))
        runs: list[dict[str, float]] = []

        def once(path: Path = path, runs: list[dict[str, float]] = runs) -> None:
            runs.append(child("replay.benchmarks.pages", "replay_pages", str(path), one_core=False))

        repeated(once)
        first = runs[0]
        note = (f"{first['pages']:.0f} pages handed over, {first['distinct']:.0f} distinct, "
                f"{first['events'] / first['pages']:.0f} events a page, "
                f"{sorted(run['alone'] for run in runs)[len(runs) // 2] * 1e6 / first['pages']:.1f} us/page alone")

        def row(what: str, part: str, base: str, target: str, note: str = "", name: str = name,
                runs: list[dict[str, float]] = runs) -> BenchRow:
            return BenchRow.of(f"{name}: {what}", [run[part] / run[base] for run in runs], 1, "times", target, note)

        rows += [row("whole replay compared with the library on every page handed over", "whole", "alone", "<= 1.15",
                     note),
                 row("the same compared with the library on distinct pages only", "whole", "alone_distinct", ""),
                 row("its pages' part compared with the library on every page", "part", "alone", ""),
                 row("a second replay, its pages' part", "second_part", "alone", "<= 0.05"),
                 row("a second replay, whole", "second_whole", "alone", "")]
    return rows
