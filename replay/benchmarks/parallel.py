# SPDX-License-Identifier: GPL-2.0-or-later
"""What a second core gains where many recordings are replayed."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from replay.tools.synthetic import cycle, write_repeated

__all__ = ["TwoCores", "two_cores"]

_RUNS: Final = 5
_RECORDINGS: Final = 8
_CYCLE: Final = 100_000
_COMMAND: Final = (sys.executable, "-c", "import sys; from replay.cli import main; sys.exit(main())", "replay",
                   "--no-pages")


@dataclass(frozen=True)
class TwoCores:
    """``times`` as fast on two cores, the median of pairs of runs.

    ``one`` and ``two`` are (wall-clock, CPU) seconds of every run, start of Python included.  Where a run on one core
    took much more time than CPU time, the machine was busy with something else, and ``times`` says little.
    """

    recordings: int
    events: int
    times: float
    one: list[tuple[float, float]]
    two: list[tuple[float, float]]


def two_cores(base: Path, *, recordings: int = _RECORDINGS, events: int = 1_500_000, runs: int = _RUNS,
              options: Sequence[str] = (), say: Callable[[str], None] = lambda text: None) -> TwoCores | None:
    """Replay recordings one after the other on one core, and with ``-j 2`` on two; None where there is one core only.

    Each run is a process of its own, one kind after the other, so that what else the machine does meets both.

    :param base: an empty directory to work in
    :param events: of each recording, about
    :param options: further ones of ``zreplay replay``
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        return None
    say(f"writing {recordings} recordings of {events:,} synthetic events")
    paths = [base / f"rec{number}" for number in range(recordings)]
    block = cycle(min(_CYCLE, events))
    repeat = max(1, events // block.shape[1])
    write_repeated(str(paths[0]), block, repeat)
    for path in paths[1:]:
        # One on disk, eight for the readers.
        shutil.copytree(paths[0], path, copy_function=os.link)
    say("replaying them on one core and on two")
    one, two = [], []
    # Once for nothing: what is compiled is kept.
    _seconds(paths[:1], cores, options)
    for _ in range(runs):
        one.append(_seconds(paths, cores[:1], options))
        two.append(_seconds(paths, cores, ["-j", "2", *options]))
    times = statistics.median(alone[0] / both[0] for alone, both in zip(one, two, strict=True))
    return TwoCores(recordings, repeat * block.shape[1], times, one, two)


def _seconds(paths: Sequence[Path], cores: Sequence[int], options: Sequence[str]) -> tuple[float, float]:
    """Return the wall-clock and the CPU seconds that the command and its processes take on these cores."""
    before = _cpu()
    began = time.perf_counter()
    done = subprocess.run([*_COMMAND, *options, *map(str, paths)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          preexec_fn=lambda: os.sched_setaffinity(0, cores), check=True, text=True)
    seconds = time.perf_counter() - began
    verdicts = [line for line in done.stdout.splitlines() if line.startswith("PASS  ")]
    assert len(verdicts) == len(paths), done.stdout[-2000:]
    return seconds, _cpu() - before


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
