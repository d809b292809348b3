# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured, each in a process of its own so that memory and caches are its own, and how it is told."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.crypto import compressor_for
from replay.benchmarks.capture import write_capture, write_tracedat
from replay.benchmarks.compressors import NAMES, speed
from replay.synthetic import cycle, write_pages_recording
from replay.verdict import replay
from traces.importers import import_source
from traces.recording import Recording

__all__ = ["Row", "machine", "measure"]

_RUNS = 5
_SMALL = 1_000_000
_LARGE = 10_000_000
_CYCLE = 250_000


@dataclass(frozen=True)
class Row:
    """One line of the table: ``value`` with its ``unit`` (median of the runs), and the ``target`` it has."""

    what: str
    value: float
    unit: str
    target: str
    spread: str = ""
    note: str = ""


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model or platform.processor(), "cpus": os.cpu_count(), "system": platform.platform(),
            "python": platform.python_version(), "numpy": np.__version__}


def _child(function: str, *arguments: str, one_core: bool = True) -> dict[str, Any]:
    """Run ``function`` of this module in a new process, on one core if asked, and return what it gives."""
    code = (f"import json,sys; from replay.benchmarks import measure; "
            f"print(json.dumps(measure.{function}(*sys.argv[1:])))")
    environment = {**os.environ, "OMP_NUM_THREADS": "1" if one_core else str(os.cpu_count() or 1)}

    def pin() -> None:
        if one_core:
            os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})

    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, preexec_fn=pin, check=True,
                          stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def import_once(src: str, out: str) -> dict[str, float]:
    """Import ``src`` twice, so that the second time nothing is compiled; return the second's seconds."""
    first = import_source(src, out + ".first")
    began = time.perf_counter()
    import_source(src, out)
    seconds = time.perf_counter() - began
    shutil.rmtree(out + ".first")
    return {"seconds": seconds, "events": first["rows"],
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def import_large(src: str, out: str) -> dict[str, float]:
    """Import once and return the peak memory."""
    began = time.perf_counter()
    summary = import_source(src, out)
    return {"seconds": time.perf_counter() - began, "events": summary["rows"],
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def replay_once(path: str) -> dict[str, Any]:
    """Replay without page bytes; return seconds, events, verdict and peak memory."""
    result = replay(Recording(path), pages=False)
    return {"seconds": result.seconds["replay"], "events": result.events, "verdict": result.verdict,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def replay_pages(path: str) -> dict[str, float]:
    """Measure a recording with page bytes: the compressor alone in a plain loop, a first replay, a second."""
    recording = Recording(path)
    store = recording.pages
    assert store is not None
    compressor = compressor_for(recording.manifest["config"]["compressor"], "mainline-7.3")
    pages, _ = store.all_pages()
    handed = [pages[page].tobytes() for page in store.refs]
    cache = recording.path / "cache"
    # Once for nothing: libraries are loaded and compiled code is taken from its cache.
    assert replay(recording).verdict == "PASS"
    compressor.compress(handed[0])
    began = time.perf_counter()
    for page in handed:
        compressor.compress(page)
    alone = time.perf_counter() - began
    shutil.rmtree(cache, ignore_errors=True)
    first = replay(recording)
    second = replay(recording)
    shutil.rmtree(cache, ignore_errors=True)
    return {"pages": len(handed), "distinct": len(store), "alone": alone, "page_part": first.seconds["compress"],
            "whole": sum(first.seconds.values()), "second_page_part": second.seconds["compress"]}


def sample_pages(samples: list[Path]) -> list[bytes]:
    """Return the distinct pages of recordings."""
    pages: dict[str, bytes] = {}
    for sample in samples:
        store = Recording(sample).pages
        if store is not None:
            for first, block in store.blocks():
                pages.update((store.sha1[first + i], page) for i, page in enumerate(block) if page is not None)
    return list(pages.values())


def _repeat(run: Callable[[], float], runs: int = _RUNS) -> tuple[float, str]:
    values = sorted(run() for _ in range(runs))
    return statistics.median(values), f"{values[0]:.3g} to {values[-1]:.3g} of {runs}"


def measure(samples: list[Path], large: int = _LARGE, say: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Measure everything; ``samples`` are recordings with page bytes."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="zreplay-bench-") as scratch:
        base = Path(scratch)
        say("making synthetic data")
        block = cycle(_CYCLE)
        _import_rows(rows, base, block, say)
        _replay_rows(rows, base, block, say)
        pages = sample_pages(samples)
        _compressor_rows(rows, pages, say)
        for name in ("zstd", "lz4", "deflate"):
            say(f"replaying {2 * len(pages):,} stores of {len(pages):,} distinct pages with {name}")
            write_pages_recording(str(base / name), pages, compressor_for(name, "mainline-7.3"))
            _page_rows(rows, base / name)
        _large_rows(rows, base, block, large, say)
    return rows


def _import_rows(rows: list[Row], base: Path, block: np.ndarray, say: Callable[[str], None]) -> None:
    repeat = max(1, _SMALL // block.shape[1])
    capture = base / "capture"
    events = write_capture(capture, block, repeat)
    say(f"importing {events:,} events of a raw ring")

    def once() -> float:
        out = base / "imported"
        shutil.rmtree(out, ignore_errors=True)
        return float(_child("import_once", str(capture), str(out))["seconds"])

    seconds, spread = _repeat(once)
    rows.append(Row("import of a raw ring, one core", events / seconds / 1e6, "million events/s", ">= 2",
                    spread + " s"))
    program = shutil.which("trace-cmd")
    if program is None:
        rows.append(Row("import beside trace-cmd report", 0.0, "times", ">= 5",
                        note="not measured: trace-cmd is not installed (apt install trace-cmd)"))
        return
    dat = base / "trace.dat"
    write_tracedat(dat, np.fromfile(capture / "zmeta.cpu0.raw", np.uint8))
    say("trace-cmd report on the same events")

    def report() -> float:
        with (base / "report.txt").open("wb") as out:
            began = time.perf_counter()
            subprocess.run([program, "report", str(dat)], stdout=out, stderr=subprocess.DEVNULL, check=True)
            return time.perf_counter() - began

    theirs, their_spread = _repeat(report)
    lines = sum(1 for _ in (base / "report.txt").open("rb"))
    rows.append(Row("import beside trace-cmd report to a file", theirs / seconds, "times", ">= 5",
                    their_spread + " s (trace-cmd)", f"{lines:,} lines reported, {lines / theirs / 1e6:.2f} million/s"))


def _replay_rows(rows: list[Row], base: Path, block: np.ndarray, say: Callable[[str], None]) -> None:
    path = base / "imported"
    say("replaying without page bytes")

    def once() -> float:
        done = _child("replay_once", str(path))
        assert done["verdict"] == "PASS", done
        return float(done["events"] / done["seconds"])

    speed, spread = _repeat(once)
    rows.append(Row("replay without page bytes, one core", speed / 1e3, "thousand events/s", ">= 150",
                    spread + " events/s"))


def _page_rows(rows: list[Row], path: Path) -> None:
    runs = [_child("replay_pages", str(path), one_core=False) for _ in range(_RUNS)]

    def ratio(part: str) -> tuple[float, str]:
        values = sorted(run[part] / run["alone"] for run in runs)
        return statistics.median(values), f"{values[0]:.3g} to {values[-1]:.3g} of {_RUNS}"

    alone = statistics.median(run["alone"] for run in runs)
    note = (f"{runs[0]['pages']:.0f} pages handed over, {runs[0]['distinct']:.0f} distinct, "
            f"{alone * 1e6 / runs[0]['pages']:.1f} us/page alone")
    value, spread = ratio("page_part")
    rows.append(Row(f"{path.name}: pages' part of a replay beside the library alone", value, "times", "<= 1.5", spread,
                    note))
    value, spread = ratio("whole")
    rows.append(Row(f"{path.name}: whole replay beside the library alone", value, "times", "<= 1.5", spread))
    value, spread = ratio("second_page_part")
    rows.append(Row(f"{path.name}: pages' part of a second replay", value, "times", "compresses nothing", spread))


def _compressor_rows(rows: list[Row], pages: list[bytes], say: Callable[[str], None]) -> None:
    for name in NAMES:
        say(f"{name} on {len(pages):,} pages")
        found = speed(name, pages)
        note = (f"{found.library}: {found.theirs:,.0f} pages/s, {found.own / found.theirs:.2f} times as fast"
                if found.library else "no library for this format is installed")
        rows.append(Row(f"{name}, one thread", found.own, "pages/s", "", found.spread, note))


def _large_rows(rows: list[Row], base: Path, block: np.ndarray, large: int, say: Callable[[str], None]) -> None:
    capture = base / "large"
    say(f"writing {large:,} synthetic events")
    events = write_capture(capture, block, max(1, large // block.shape[1]))
    say(f"importing {events:,} events")
    done = _child("import_large", str(capture), str(base / "large.zr"))
    rows.append(Row(f"import of {events / 1e6:.1f} million events, peak memory", done["peak_mb"], "MB", "< 500",
                    note=f"{done['seconds']:.1f} s"))
    say(f"replaying {events:,} events")
    done = _child("replay_once", str(base / "large.zr"))
    rows.append(Row(f"replay of {events / 1e6:.1f} million events, peak memory", done["peak_mb"], "MB", "< 500",
                    note=f"{done['seconds']:.1f} s, {done['verdict']}"))


def as_json(rows: list[Row]) -> dict[str, Any]:
    """Return the table and the machine as plain data."""
    return {"machine": machine(), "rows": [asdict(row) for row in rows]}
