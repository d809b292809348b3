# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay lab fuzz``: random sequences on real kernels, checked against the model; and ``zreplay dev shrink``."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from replay.cli.labcommon import Shelf, progress_line
from replay.cli.labfindings import Bench, keep, pursue
from replay.cli.labtrial import DIED, Trial
from replay.cli.terminal import table, warn
from replay.tools.coverage import missing, sentence, summed
from traces.lab.errors import LabError
from traces.lab.fuzz import generate
from traces.workload.sequence import BadSequence, Sequence, load

__all__ = ["add_fuzz", "add_shrink"]

_EPILOG: Final = """examples:
  zreplay lab fuzz --kernel 7.2 --kernel 7.3 --seed 1 --time 30m -o fuzz/
  zreplay lab fuzz --kernel 7.3 --seed 1 --only 17 -o again/
  zreplay dev shrink fuzz/unrepeated-001/sequence.json --kernel 7.3 -o smaller/

Sequence N of seed S is always the same one. A divergence is repeated in a fresh guest, shrunk, and kept in
DIR/finding-NNN with its sequence, recording and report; one that does not repeat is kept in DIR/unrepeated-NNN.
DIR/runs.jsonl has a line for every run.
Exit status: 0 nothing open, 1 a divergence is open, 2 wrong use, 3 undecided, 5 a guest died.
"""
#: A death is worse than a divergence, that than something undecided.
_WORSE: Final = (0, 3, 1, 5)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


def add_fuzz(parts: Any) -> None:
    """Add the part of ``zreplay lab``."""
    fuzz = parts.add_parser("fuzz", help="random sequences of operations on real kernels, replayed and shrunk",
                            epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
                            description="Makes sequences of operations from a seed, runs each in a guest of every "
                                        "kernel, replays what was recorded, and pursues what diverges.")
    _add_options(fuzz, many=True)
    fuzz.add_argument("--seed", type=int, default=1, metavar="S", help="what the sequences depend on (default: 1)")
    fuzz.add_argument("--time", type=_seconds, default=600.0, metavar="T",
                      help="no sequence begins after this time: 90s, 30m, 1h (default: 10m); a divergence is pursued "
                           "to its end")
    fuzz.add_argument("--count", type=_number, metavar="N", help="no more sequences than this")
    fuzz.add_argument("--from", dest="start", type=_number, default=1, metavar="N",
                      help="number of the first sequence (default: 1)")
    fuzz.add_argument("--only", type=_number, metavar="N", help="only sequence N, whatever the time")
    fuzz.add_argument("--keep", choices=("all", "odd"), default="odd",
                      help="which recordings stay: all, or those of what diverged (default)")
    fuzz.set_defaults(run=run_fuzz)


def add_shrink(parts: Any) -> None:
    """Add the part of ``zreplay dev``."""
    parser = parts.add_parser("shrink", help="make a sequence that diverges on a kernel as small as it can be",
                              epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
                              description="Runs a sequence in a guest twice and, where it diverges both times, leaves "
                                          "out operations and makes arguments smaller while it still does.")
    parser.add_argument("sequence", type=Path, metavar="SEQUENCE.json")
    _add_options(parser, many=False)
    parser.set_defaults(run=run_shrink)


def _add_options(parser: argparse.ArgumentParser, many: bool) -> None:
    parser.add_argument("--kernel", required=True, action="append", metavar="K",
                        help=f"a line (7.2), a release, or the path of a bzImage{'; may be repeated' * many}")
    parser.add_argument("--modules", type=Path, metavar="DIR", help="modules of your own kernel, as for lab run")
    parser.add_argument("--runs", type=_number, default=30, metavar="N",
                        help="guests that one divergence may take to be shrunk (default: 30)")
    parser.add_argument("--backend", choices=("tracefs", "bcc"), default="tracefs", help="default: tracefs")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="S", help="seconds for a guest (default: 900)")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto",
                        help="auto takes KVM where it works (default)")
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror (default: the one apt uses)")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="directory for what is found")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time such as 90s, 30m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 1000000")
    return int(text)


def _benches(arguments: argparse.Namespace, say: Callable[[str], None]) -> list[Bench]:
    """Have every kernel here.

    :raises LabError: when one cannot be had
    """
    shelf = Shelf(arguments.mirror, say)
    tools = shelf.tools() if arguments.backend == "bcc" else None
    arguments.output.mkdir(parents=True, exist_ok=True)
    return [Bench(shelf.get(name, arguments.modules), arguments.output,
                  argparse.Namespace(**{**vars(arguments), "kernel_name": name}), tools, say)
            for name in dict.fromkeys(arguments.kernel)]


class _Book:
    """What came of every run: lines for people, ``runs.jsonl`` for programs, the exit status."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "runs.jsonl"
        self.rows: list[tuple[str, Trial]] = []
        #: (kernel, key of the divergence) -> where it is kept
        self.found: dict[tuple[str, str], Path] = {}
        self.unrepeated: list[Path] = []

    def add(self, sequence: Sequence, kernel: str, trial: Trial) -> None:
        """Print and keep one run."""
        self.rows.append((kernel, trial))
        print(f"{sequence.name}  {kernel}  {sequence.compressor}, {sequence.workers} workers, "
              f"{len(sequence.operations)} operations  {trial.stores:,} stores  {trial.compared:,} comparisons  "
              f"{trial.kind}  {trial.seconds:.0f} s" + (f"  ({trial.text})" if trial.text else ""), flush=True)
        facts = {"sequence": sequence.name, "kernel": kernel, "operations": len(sequence.operations),
                 "stores": trial.stores, "events": trial.events, "compared": trial.compared, "verdict": trial.kind,
                 "text": trial.text, "seconds": round(trial.seconds, 1), "checks": trial.checks}
        with self._log.open("a") as log:
            log.write(json.dumps(facts) + "\n")

    def status(self) -> int:
        """Return the exit status."""
        found = [0]
        for key in self.found:
            found.append(5 if key[1].startswith(DIED) else 1)
        if self.unrepeated or any(trial.kind in ("lost", "not run") for _, trial in self.rows):
            found.append(3)
        return max(found, key=_WORSE.index)

    def summary(self) -> str:
        """Return a row for every kernel, and what is open."""
        rows: list[tuple[str, ...]] = [("kernel", "sequences", "stores", "events", "comparisons", "seconds",
                                        "verdicts")]
        for kernel in dict.fromkeys(kernel for kernel, _ in self.rows):
            mine = [trial for name, trial in self.rows if name == kernel]
            verdicts = Counter(trial.kind for trial in mine)
            rows.append((kernel, f"{len(mine):,}", *(f"{sum(getattr(trial, name) for trial in mine):,}"
                                                     for name in ("stores", "events", "compared")),
                         f"{sum(trial.seconds for trial in mine):,.0f}",
                         ", ".join(f"{count} {kind}" for kind, count in verdicts.items())))
        lines = [table(rows, right=(1, 2, 3, 4, 5))] if self.rows else []
        compared: Counter[str] = Counter()
        for _, trial in self.rows:
            compared.update(trial.checks)
        never = [check for check, times in compared.items() if not times]
        if never:
            lines.append(f"checks that nothing came of in any run: {', '.join(never)}")
        for revision, branches in summed((trial.revision, trial.branches) for _, trial in self.rows
                                         if trial.branches).items():
            lines.append(f"{sentence(revision, branches)}; in no run: {', '.join(missing(branches)) or 'none'}")
        lines += [f"open: {path} ({kernel}, {key})" for (kernel, key), path in self.found.items()]
        lines += [f"did not repeat: {path}" for path in self.unrepeated]
        return "\n".join(lines)


def _numbers(arguments: argparse.Namespace) -> Iterator[int]:
    """Yield the numbers of sequences until there are enough or the time is over."""
    if arguments.only is not None:
        yield arguments.only
        return
    began = time.monotonic()
    number = arguments.start
    while time.monotonic() - began < arguments.time:
        if arguments.count is not None and number >= arguments.start + arguments.count:
            return
        yield number
        number += 1


def run_fuzz(arguments: argparse.Namespace) -> int:
    """Run sequence after sequence on every kernel."""
    try:
        with progress_line() as say:
            benches = _benches(arguments, say)
            book = _Book(arguments.output)
            for number in _numbers(arguments):
                sequence = generate(arguments.seed, number)
                for bench in benches:
                    _one(bench, sequence, number, book)
    except LabError as problem:
        warn(f"{problem}.")
        return 2
    print(book.summary())
    return book.status()


def _one(bench: Bench, sequence: Sequence, number: int, book: _Book) -> None:
    """Run one sequence on one kernel, and pursue what diverges."""
    release = bench.kernel.release
    out = bench.directory / f"{bench.arguments.seed}-{number}-{Path(bench.arguments.kernel_name).name}.zr"
    trial = bench.run(sequence, out, f"{sequence.name}: ")
    book.add(sequence, release, trial)
    if trial.diverged:
        known = book.found.get((release, trial.key))
        if known is not None:
            print(f"  as in {known}", flush=True)
        else:
            place, repeated = pursue(bench, sequence, trial, out, bench.arguments.runs, _tell)
            print(f"  kept in {place}" + ("" if repeated else ": it did not repeat"), flush=True)
            if repeated:
                book.found[release, trial.key] = place
            else:
                book.unrepeated.append(place)
    elif trial.kind == "not run":
        print(f"  kept in {keep(bench, 'notrun', sequence, None, trial, out, [])}", flush=True)
    if bench.arguments.keep == "odd":
        for path in (out, out.with_name(out.name + ".partial")):
            shutil.rmtree(path, ignore_errors=True)


def _tell(text: str) -> None:
    print(f"  {text}", flush=True)


def run_shrink(arguments: argparse.Namespace) -> int:
    """Shrink one sequence on one kernel."""
    if len(arguments.kernel) > 1:
        warn("a sequence is shrunk on one kernel; name one with --kernel.")
        return 2
    try:
        sequence = load(arguments.sequence)
        with progress_line() as say:
            bench = _benches(arguments, say)[0]
            book = _Book(arguments.output)
            out = arguments.output / ".first.zr"
            trial = bench.run(sequence, out)
            book.add(sequence, bench.kernel.release, trial)
            if trial.diverged:
                place, repeated = pursue(bench, sequence, trial, out, arguments.runs, _tell)
                if repeated:
                    book.found[bench.kernel.release, trial.key] = place
                else:
                    book.unrepeated.append(place)
            shutil.rmtree(out, ignore_errors=True)
    except (LabError, BadSequence) as problem:
        warn(f"{problem}.")
        return 2
    print(book.summary())
    return book.status()
