# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured, and how it is shown."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from replay.benchmarks.capture import write_capture, write_tracedat
from replay.benchmarks.compressors import NAMES, speed
from replay.benchmarks.engines import engine_rows, growth_rows
from replay.benchmarks.iaa import iaa_rows
from replay.benchmarks.pages import page_rows
from replay.benchmarks.parallel import two_cores
from replay.benchmarks.process import child, repeated
from replay.benchmarks.row import BenchRow
from replay.tools.synthetic import cycle
from traces.importers import import_source
from traces.recording import Recording

__all__ = ["PARTS", "BenchRow", "machine", "measure"]

#: what can be measured by itself
PARTS: Final = ("import", "engines", "growth", "pages", "compressors", "cores", "iaa")
_HERE: Final = "replay.benchmarks.measure"
_SMALL = 1_000_000
_LARGE = 10_000_000
_CYCLE = 250_000


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model or platform.processor(), "cpus": os.cpu_count(), "system": platform.platform(),
            "python": platform.python_version(), "numpy": np.__version__}


def import_once(src: str, out: str) -> dict[str, float]:
    """Import ``src`` twice, so that the second time nothing is compiled; return the second's seconds."""
    first = import_source(src, out + ".first")
    began = time.process_time()
    import_source(src, out)
    seconds = time.process_time() - began
    shutil.rmtree(out + ".first")
    return {"seconds": seconds, "events": first["rows"],
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def import_large(src: str, out: str) -> dict[str, float]:
    """Import once and return the peak memory."""
    began = time.perf_counter()
    summary = import_source(src, out)
    return {"seconds": time.perf_counter() - began, "events": summary["rows"],
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def sample_pages(samples: list[Path]) -> list[bytes]:
    """Return the distinct pages of recordings."""
    pages: dict[str, bytes] = {}
    for sample in samples:
        store = Recording(sample).pages
        if store is not None:
            for first, block in store.blocks():
                pages.update((store.sha1[first + i], page) for i, page in enumerate(block) if page is not None)
    return list(pages.values())


def measure(samples: list[Path], large: int = _LARGE, say: Callable[[str], None] = lambda text: None,
            only: set[str] | None = None) -> list[BenchRow]:
    """Measure everything; ``samples`` are recordings with page bytes.

    :param large: events of the largest synthetic recording
    :param only: names of :data:`PARTS` to measure; None for all
    """
    rows: list[BenchRow] = []

    def wanted(part: str) -> bool:
        return only is None or part in only

    with tempfile.TemporaryDirectory(prefix="zreplay-bench-") as scratch:
        base = Path(scratch)
        if wanted("import"):
            _import_rows(rows, base, cycle(_CYCLE), say)
        if wanted("engines"):
            rows += engine_rows(base, say)
        if wanted("growth"):
            rows += growth_rows(base, large, say)
        if wanted("pages"):
            rows += page_rows(base, sample_pages(samples), say)
        if wanted("compressors"):
            _compressor_rows(rows, sample_pages(samples), say)
        if wanted("cores"):
            rows += _core_rows(base / "cores", say)
        if wanted("iaa"):
            rows += iaa_rows(sample_pages(samples), say)
        if wanted("import"):
            _large_rows(rows, base, cycle(_CYCLE), min(large, _LARGE), say)
    return rows


def _import_rows(rows: list[BenchRow], base: Path, block: np.ndarray, say: Callable[[str], None]) -> None:
    repeat = max(1, _SMALL // block.shape[1])
    capture = base / "capture"
    events = write_capture(capture, block, repeat)
    say(f"importing {events:,} events of a raw ring")

    def once() -> float:
        out = base / "imported"
        shutil.rmtree(out, ignore_errors=True)
        return float(child(_HERE, "import_once", str(capture), str(out))["seconds"])

    rates: list[float] = []
    repeated(lambda: rates.append(events / once()))
    rows.append(BenchRow.of("import of a raw ring, one core", rates, 1e6, "million events/s", ">= 5"))
    program = shutil.which("trace-cmd")
    if program is None:
        rows.append(BenchRow("import compared with trace-cmd report", 0.0, "times", ">= 12",
                             note="not measured: trace-cmd is not installed (apt install trace-cmd)"))
        return
    dat = base / "trace.dat"
    write_tracedat(dat, np.fromfile(capture / "zmeta.cpu0.raw", np.uint8), events)
    say("trace-cmd report on the same events")
    theirs: list[float] = []

    def report() -> None:
        with (base / "report.txt").open("wb") as out:
            began = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([program, "report", str(dat)], stdout=out, stderr=subprocess.DEVNULL, check=True)
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            theirs.append(events / (ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime))

    repeated(report)
    lines = sum(1 for _ in (base / "report.txt").open("rb"))
    rows.append(BenchRow.of("import compared with trace-cmd report to a file",
                            [own / other for own, other in zip(rates, theirs, strict=True)], 1, "times", ">= 12",
                            f"{lines:,} lines reported, {sorted(theirs)[len(theirs) // 2] / 1e6:.2f} million/s"))


def _core_rows(base: Path, say: Callable[[str], None]) -> list[BenchRow]:
    rows = []
    for engine, events in (("reference", 400_000), ("fast", 12_000_000)):
        scratch = base / engine
        scratch.mkdir(parents=True)
        found = two_cores(scratch, events=events, options=["--engine", engine], say=say)
        what = f"8 recordings on two cores compared with one, {engine} engine"
        if found is None:
            rows.append(BenchRow(what, 0.0, "times as fast", ">= 1.8", note="not measured: there is one core only"))
            continue
        pairs = [one[0] / two[0] for one, two in zip(found.one, found.two, strict=True)]
        cpu = statistics.median(cpu for _, cpu in found.two) / statistics.median(cpu for _, cpu in found.one)
        rows.append(BenchRow.of(what, pairs, 1, "times as fast", ">= 1.8",
                                f"{found.events:,} events each; {cpu:.2f} times the CPU time of one core"))
    return rows


def _compressor_rows(rows: list[BenchRow], pages: list[bytes], say: Callable[[str], None]) -> None:
    for name in NAMES:
        say(f"{name} on {len(pages):,} pages")
        found = speed(name, pages)
        note = (f"{found.library}: {found.theirs:,.0f} pages/s, {found.own / found.theirs:.2f} times as fast"
                if found.library else "no library for this format is installed")
        rows.append(BenchRow(f"{name}, one thread", found.own, "pages/s", "", found.spread, note))


def _large_rows(rows: list[BenchRow], base: Path, block: np.ndarray, large: int, say: Callable[[str], None]) -> None:
    capture = base / "large"
    say(f"writing {large:,} synthetic events")
    events = write_capture(capture, block, max(1, large // block.shape[1]))
    say(f"importing {events:,} events")
    done = child(_HERE, "import_large", str(capture), str(base / "large.zr"))
    rows.append(BenchRow(f"import of {events / 1e6:.1f} million events, peak memory", done["peak_mb"], "MB", "< 500",
                         note=f"{done['seconds']:.1f} s"))


def as_json(rows: list[BenchRow]) -> dict[str, Any]:
    """Return the table and the machine as plain data."""
    return {"machine": machine(), "rows": [asdict(row) for row in rows]}
