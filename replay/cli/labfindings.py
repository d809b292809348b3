# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done about a sequence that diverged: run again, shrunk, kept with its recording as a regression test."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from replay.cli.labtrial import Trial, reached, run_trial
from replay.revdiff.shrink import shrink
from replay.tools.cut import cut
from replay.verdict.run import replay
from traces.errors import BadInput
from traces.lab.kernels import BootKernel
from traces.lab.tools import Tools
from traces.leftovers import scratch
from traces.recording import Recording
from traces.workload.sequence import Sequence

__all__ = ["Bench", "keep", "pursue"]

#: Events before the first divergence that a cut recording may begin at: near it a task may always be in the middle of
#: an operation.
_BEFORE: Final = (2_000, 20_000, 200_000)


@dataclass
class Bench:
    """Where sequences are tried: a kernel, a directory, and what the user chose."""

    kernel: BootKernel
    directory: Path
    arguments: argparse.Namespace
    tools: Tools | None
    say: Callable[[str], None]

    def run(self, sequence: Sequence, out: Path, what: str = "") -> Trial:
        """Carry a sequence out in a fresh guest."""
        return run_trial(sequence, self.kernel, out, self.arguments, self.tools,
                         lambda text: self.say(f"{what}{text}"))


def pursue(bench: Bench, sequence: Sequence, first: Trial, recording: Path, runs: int,
           show: Callable[[str], None]) -> tuple[Path, bool]:
    """Repeat a divergence and, where it does, shrink and keep it; returns where, and whether it repeated.

    :param first: how it was found, with its ``recording``
    :param runs: how many guests may be booted to shrink it
    :param show: called with what is found, a sentence at a time
    """
    with scratch(bench.directory / "again") as place:
        again = bench.run(sequence, place / "again.zr", "again: ")
        if not again.diverged:
            return keep(bench, "unrepeated", sequence, None, first, recording,
                        [f"It did not repeat: the second run of the same sequence ended as {again.kind}."]), False
        show(f"it repeated ({again.text})")
        small, trial, report, where = _shrunk(bench, sequence, first, again, runs, place, show)
        return keep(bench, "finding", small, sequence, trial, where, report), True


def _shrunk(bench: Bench, sequence: Sequence, first: Trial, again: Trial, runs: int, place: Path,
            show: Callable[[str], None]) -> tuple[Sequence, Trial, list[str], Path]:
    """Shrink a divergence; returns the sequence, its trial, what is to be said of it, and its recording."""
    keys = {first.key, again.key}
    smallest, trial = place / "smallest.zr", again
    _move(place / "again.zr", smallest)
    count = 0

    def diverges(candidate: Sequence) -> bool:
        nonlocal trial, count
        count += 1
        tried = bench.run(candidate, place / "tried.zr",
                          f"shrinking, run {count} of at most {runs}, {len(candidate.operations)} operations: ")
        same = tried.diverged and tried.key in keys
        show(f"  run {count}: {len(candidate.operations)} operations: {tried.kind}"
             + ("" if same or not tried.diverged else f", but another one ({tried.text})"))
        if same:
            trial = tried
            _move(place / "tried.zr", smallest)
        return same

    at = None
    if smallest.is_dir():
        at = reached(smallest, again.event, len(sequence.operations))
    done = shrink(sequence, diverges, runs, at)
    report = [f"It repeated in a second guest. Shrunk from {len(sequence.operations)} operations to "
            f"{len(done.sequence.operations)} in {done.runs} runs"
            + ("." if done.finished else f", which is as many as were allowed: it may be smaller (limit {runs}).")]
    return done.sequence, trial, report, smallest


def _move(recording: Path, to: Path) -> None:
    """Move a recording, or what is left of one, in the place of another."""
    for suffix in ("", ".partial"):
        source, target = recording.with_name(recording.name + suffix), to.with_name(to.name + suffix)
        shutil.rmtree(target, ignore_errors=True)
        if source.exists():
            source.rename(target)


def keep(bench: Bench, what: str, sequence: Sequence, original: Sequence | None, trial: Trial, recording: Path,
         report: list[str]) -> Path:
    """Keep a divergence in a directory of its own, which is returned.

    :param original: the sequence before it was shrunk; None where it was not
    :param report: sentences for its report
    """
    number = 1
    while (place := bench.directory / f"{what}-{number:03d}").exists():
        number += 1
    place.mkdir()
    (place / "sequence.json").write_text(sequence.text())
    if original is not None:
        (place / "original.json").write_text(original.text())
    _move(recording, place / "recording.zr")
    if (place / "recording.zr").is_dir() and trial.event >= 0:
        report = [*report, _cut(place, trial)]
    lines = [f"{trial.kind}: {trial.text}", f"kernel {bench.kernel.release} ({bench.kernel.origin}); sequence "
             f"{sequence.name}, {len(sequence.operations)} operations", "", *report, "",
             "Run it again (from this directory):",
             f'  zreplay lab run --kernel {bench.arguments.kernel_name} --workload "script --script sequence.json" '
             "-o again.zr && zreplay replay again.zr", "", *trial.report]
    (place / "report.txt").write_text("\n".join(lines) + "\n")
    return place


def _cut(place: Path, trial: Trial) -> str:
    """Cut a finding's recording to what its divergence needs; returns what became of that."""
    whole, short = place / "recording.zr", place / "cut.zr"
    why = "a cut of it does not show the same divergence"
    for before in (before for before in _BEFORE if before < trial.event):
        try:
            done = cut(Recording(whole), str(short), trial.event - before, trial.events)
            seen = replay(Recording(short))
        except BadInput as problem:
            why = str(problem)
            continue
        if seen.divergences and f"FAIL: {seen.divergences[0].check}" == trial.key:
            return f"cut.zr has the last {done.events:,} of the {trial.events:,} events, and shows the same."
        shutil.rmtree(short)
    return f"recording.zr was not cut: {why}"
