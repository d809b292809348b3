# SPDX-License-Identifier: GPL-2.0-or-later
"""The workload's command line, for ``zreplay workload`` and for a guest that has only this package."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from .box import PARAMETERS, NotReady, WorkloadBox
from .driver import Mismatch, WorkloadDriver
from .naming import namings
from .pages import MIXES, FilePages, MadePages, PageSource
from .scenarios import SCENARIOS
from .script import run_sequence
from .sequence import FOLIOS, BadSequence, Sequence, load
from .snapshot import NoSnapshot, asker, write_snapshot
from .worker import WorkerDied

__all__ = ["FOLIOS", "OUT_OF_MEMORY", "WORKLOADS", "add_arguments", "main", "run"]

WORKLOADS: Final = (*SCENARIOS, "script")
#: Exit status when the kernel killed a worker because one of the workload's limits could not be kept.
OUT_OF_MEMORY: Final = 3

_EPILOG = """scenarios:
  base      page out, refault, rewrite, fork, unmap, compact, memory.max
  limits    max_pool_percent with writeback and hysteresis, memory.zswap.max, memory.zswap.writeback
  switch    the compressor changed while pages are stored; zswap off and on
  pressure  reclaim by memory.max, with the dynamic shrinker and memory.zswap.max
  smp       several workers on several CPUs, with compaction and a limit (default: --procs 2)
  swapoff   swap taken off, which brings all pages back, and on again
  edge      pages that compress to exactly a page, or just not; memory.zswap.writeback off
  script    the sequence of operations in the JSON file that --script names, with its settings at the start

Needs root, cgroup2, swap, and zswap on. Every setting is put back at the end.
Exit status: 0 all pages read back were right, 1 some were not, 2 the box is not ready, 3 the kernel killed a worker.

  zreplay record -o capture -- zreplay workload base --pages 8192
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the workload's options to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("scenario", nargs="?", default="base", choices=sorted(WORKLOADS), metavar="SCENARIO",
                        help=f"{', '.join(WORKLOADS)} (default: base)")
    parser.add_argument("--script", type=Path, metavar="FILE", help="sequence for the scenario script")
    parser.add_argument("--pages", type=_positive, default=2048, metavar="N",
                        help="pages of 4 KiB to work with, of all workers together (default: 2048)")
    parser.add_argument("--folio", choices=list(FOLIOS), default="4k", help="size of the folios (default: 4k)")
    parser.add_argument("--procs", type=_positive, metavar="N", help="worker processes, each on a CPU (default: 1)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of synthetic pages (default: 1)")
    parser.add_argument("--mix", choices=sorted(MIXES), metavar="MIX",
                        help=f"synthetic pages of one mix in place of the scenario's: {', '.join(sorted(MIXES))}")
    parser.add_argument("--content", type=Path, metavar="PATH",
                        help="take the pages of a page dump, or of the files below a directory")
    parser.add_argument("--compressor", metavar="NAME", help="change zswap's compressor first")
    parser.add_argument("--cgroup", default="/sys/fs/cgroup/zreplay-workload", metavar="PATH",
                        help="cgroup of the workers; made and removed where it is not there (default: %(default)s)")
    parser.add_argument("--marker", type=_paths, metavar="FILE", default=_paths(os.environ.get("ZREPLAY_MARKER", "")),
                        help="trace_marker of the recording (default: $ZREPLAY_MARKER, set by zreplay record; several "
                             "recorders' with : between them)")
    parser.add_argument("--control", type=_paths, metavar="FILE",
                        default=_paths(os.environ.get("ZREPLAY_CONTROL", "")),
                        help="control pipe of the recorder, for snapshots (default: $ZREPLAY_CONTROL)")
    parser.add_argument("--capture", type=Path, metavar="DIR",
                        help="directory for truth.csv, and for snapshots without a pipe (default: the pipe's)")
    parser.add_argument("--seconds", type=Path, metavar="FILE",
                        help="write JSON there: seconds of the scenario and of each phase, less truth and snapshots")


def _paths(text: str) -> list[Path]:
    return [Path(part) for part in text.split(os.pathsep) if part]


def _positive(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


class _OneMix:
    """A source whose every page is of one mix, whatever a scenario asks for."""

    def __init__(self, source: PageSource, mix: str) -> None:
        self._source, self._mix = source, mix

    def page(self, mix: str, rng: object) -> tuple[str, bytes]:
        return self._source.page(self._mix, rng)  # type: ignore[arg-type]


def _source(arguments: argparse.Namespace) -> PageSource:
    if arguments.content is not None:
        try:
            return FilePages(arguments.content)
        except (OSError, ValueError) as problem:
            raise NotReady(f"no pages can be taken from {arguments.content} ({problem}); name a page dump or a "
                           "directory") from None
    made = MadePages(arguments.seed)
    return _OneMix(made, arguments.mix) if arguments.mix else made


def _sequence(arguments: argparse.Namespace) -> Sequence | None:
    if (arguments.scenario == "script") != (arguments.script is not None):
        raise NotReady("the scenario script takes its sequence from --script FILE, and no other scenario takes one; "
                       "give both or neither")
    return None if arguments.script is None else load(arguments.script)


def _set_up(driver: WorkloadDriver, sequence: Sequence, arguments: argparse.Namespace) -> None:
    """Give zswap the parameters that a sequence starts with, where it does not have them already."""
    wanted = sequence.params if arguments.compressor else {"compressor": sequence.compressor, **sequence.params}
    for name, value in wanted.items():
        if driver.box.read(f"{PARAMETERS}/{name}") != value:
            driver.param(name, value)


def run(arguments: argparse.Namespace, box: WorkloadBox | None = None) -> int:
    """Run a scenario and return the exit status."""
    if box is None:
        box = WorkloadBox()
    driver = None
    status = 0
    try:
        box.check(bool(arguments.marker))
        # A capture of its own is for one recorder's truth and snapshots.
        captures = [arguments.capture] if arguments.capture is not None else [pipe.parent for pipe in arguments.control]
        controls = dict(zip(captures, arguments.control, strict=False))
        sequence = _sequence(arguments)
        procs = arguments.procs or (sequence.workers if sequence is not None else 1 + (arguments.scenario == "smp"))
        driver = WorkloadDriver(box, _source(arguments), cgroup=str(arguments.cgroup).strip("/"), pages=arguments.pages,
                                procs=procs, folio=FOLIOS[arguments.folio], seed=arguments.seed,
                                markers=arguments.marker,
                                captures=captures, snapshot=asker(controls) if controls else write_snapshot,
                                namings=namings(captures, arguments.content is not None,
                                                os.environ.get("ZREPLAY_PAGES", "")))
        driver.start()
        if arguments.compressor and arguments.compressor != box.read("sys/module/zswap/parameters/compressor"):
            driver.param("compressor", arguments.compressor)
        began = time.monotonic()
        if sequence is None:
            SCENARIOS[arguments.scenario](driver)
        else:
            _set_up(driver, sequence, arguments)
            run_sequence(driver, sequence)
        if arguments.seconds is not None:
            arguments.seconds.write_text(json.dumps({"seconds": time.monotonic() - began, "phases": driver.seconds}))
        print(f"{driver.checked:,} pages were read back", flush=True)
        driver.verify()
    except Mismatch as problem:
        status = _say(problem, 1)
    except WorkerDied as problem:
        status = _say(problem, 2)
        if driver is not None and driver.killed_for_memory():
            status = _say("the kernel killed it for want of memory: the workload's limits leave too little",
                          OUT_OF_MEMORY)
    except (NotReady, NoSnapshot, BadSequence) as problem:
        status = _say(problem, 2)
    except OSError as problem:
        status = _say(f"{problem.filename or 'the box'}: {problem.strerror}; run it as root", 2)
    finally:
        for sentence in driver.finish() if driver is not None else []:
            status = _say(sentence, status or 2)
    return status


def _say(problem: object, status: int) -> int:
    print(f"zreplay workload: {problem}", file=sys.stderr, flush=True)
    return status


def main(argv: list[str] | None = None) -> int:
    """Run the workload as a command of its own."""
    parser = argparse.ArgumentParser(prog="workload", description="Make zswap do chosen things with known pages.")
    add_arguments(parser)
    return run(parser.parse_args(argv))
