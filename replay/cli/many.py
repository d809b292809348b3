# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``zreplay replay`` does with its jobs: here, with -j or on a cluster; reports in order, then the tables."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from model.revisions import REVISIONS
from model.zswap import Zswap
from replay.cli.manytables import table_lines
from replay.cli.terminal import console, fitting, steps, warn
from replay.many.jobs import LOCAL, NOT_DONE, UNREADABLE, JobOutcome, ReplayJob, attempt, safely
from replay.many.local import run_local
from replay.many.tables import as_plain
from replay.reference.checks import CHECKS, Divergence, unknown_checks
from replay.verdict.result import Result
from traces.errors import BadInput
from traces.leftovers import write_whole
from traces.record.exits import FAULT
from traces.record.oserrors import next_step
from traces.suggestion import meant

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Form", "add_options", "run_jobs"]

#: The worst one is the command's: a fault of zreplay, unreadable (2), FAIL (1), UNDECIDED or not done (3), PASS (0).
_WORSE: Final = (0, 3, 1, 2, FAULT)
_MOST: Final = 1024


class Form(Protocol):
    """How results are printed for programs: lines before, for each pair, and after."""

    def head(self, jobs: Sequence[ReplayJob]) -> Iterator[str]:
        """Yield the lines before all pairs."""

    def one(self, job: ReplayJob, outcome: JobOutcome) -> Iterator[str]:
        """Yield the lines of a pair."""

    def foot(self, jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> Iterator[str]:
        """Yield the lines after all pairs."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where jobs run and what is summed up."""
    parser.add_argument("-j", "--jobs", type=_processes, metavar="N", help="N processes, each of which does one "
                        "recording and revision after the other")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="have the workers of a Dask cluster do them (they open "
                        f"recordings by their paths); '{LOCAL}': of a cluster of -j workers that is started here")
    parser.add_argument("--table", metavar="FILE", help="write the tables of verdicts and of checks as JSON")
    parser.add_argument("--junit", metavar="FILE", help="write the results as JUnit XML")


def _processes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to {_MOST}")
    return int(text)


def _refuse(arguments: argparse.Namespace, jobs: Sequence[ReplayJob]) -> None:
    """Refuse what would be wrong for every job, before there is any.

    :raises BadInput: for a revision that is unknown or named twice, an unknown check, options that do not go together,
        a file that cannot be written
    """
    names = arguments.revision or []
    for name in names:
        if names.count(name) > 1:
            raise BadInput("--revision", "", f"'{name}' is given twice", "name each revision once")
        if len(jobs) > 1 and ":" not in name and name not in REVISIONS:
            raise BadInput("--revision", "", f"there is no revision '{name}'{meant(name, REVISIONS)}",
                           f"choose one of {', '.join(REVISIONS)} or FILE.py:CLASS")
    for check in unknown_checks(arguments.check or ()) if len(jobs) > 1 else ():
        raise BadInput("--check", "", f"there is no check '{check}'{meant(check, CHECKS)}",
                       "see 'zreplay replay --list-checks'")
    if arguments.scheduler is not None and arguments.scheduler != LOCAL and arguments.jobs is not None:
        raise BadInput("-j", "", "the scheduler knows how many workers it has",
                       f"leave -j out, or use --scheduler {LOCAL}")
    files = [file for file in (arguments.table, arguments.junit) if file is not None]
    for file in files:
        place = Path(os.path.realpath(file))
        directory = place.parent
        # Nothing but a file is ever replaced: root could, /dev/null.
        if not (directory.is_dir() and os.access(directory, os.W_OK)) or (place.exists() and not place.is_file()):
            raise BadInput(file, "", "cannot be written", "name a file in a directory that you may write to")
    if len({os.path.realpath(file) for file in files}) < len(files):
        raise BadInput(arguments.junit, "", "--table and --junit name the same file", "name two")


def _here(jobs: Sequence[ReplayJob], loaded: Mapping[str | None, str | type[Zswap] | None]) -> Iterator[JobOutcome]:
    """Do one job after the other in this process."""
    for job in jobs:
        with steps() as progress:
            # Alone, a defect of the project shows itself as it is.
            do = attempt if len(jobs) == 1 else safely
            outcome = do(job, loaded[job.revision], progress=progress)
        yield outcome


def run_jobs(arguments: argparse.Namespace, jobs: Sequence[ReplayJob],
             loaded: Mapping[str | None, str | type[Zswap] | None],
             report: Callable[[Result], Iterator[str]], form: Form | None = None, *,
             lines: Callable[[Divergence], Iterator[str]],
             after: Callable[[Sequence[ReplayJob], Mapping[int, JobOutcome]], Iterator[str]] | None = None) -> int:
    """Run jobs as the options say, print reports in order and the tables; return the worst exit status.

    :param report: a result's lines for people
    :param form: what is printed instead of reports and tables
    :param lines: a divergence's lines for people
    :param after: what is printed for people behind the tables
    """
    _refuse(arguments, jobs)
    elsewhere = arguments.jobs is not None or arguments.scheduler is not None
    outcomes: dict[int, JobOutcome] = {}
    shown = 0
    if form is not None:
        _print(form.head(jobs))
    with _watching(jobs, elsewhere) as watch:
        if arguments.scheduler is not None:
            # Here and below: what few ask for is loaded for them alone.
            from replay.many.cluster import run_cluster

            source = run_cluster(jobs, arguments.scheduler, arguments.jobs, say=watch.say)
        elif arguments.jobs is not None:
            source = run_local(jobs, arguments.jobs)
        else:
            source = _here(jobs, loaded)
        try:
            with closing(source):  # type: ignore[type-var]
                for outcome in source:
                    outcomes[outcome.number] = outcome
                    watch.ended(outcome)
                    if shown in outcomes:
                        with watch.paused():
                            while shown in outcomes:
                                _show(arguments, jobs, outcomes[shown], report, form)
                                shown += 1
        except KeyboardInterrupt:
            watch.close()
            if len(jobs) > 1:
                if outcomes and form is None:
                    _tables(jobs, outcomes, arguments.brief)
                    sys.stdout.flush()
                warn(f"{len(outcomes)} of {len(jobs)} replays were done ({_count(outcomes) or 'none'}); the others "
                     "were stopped.")
            raise
    if form is not None:
        _print(form.foot(jobs, outcomes))
    elif len(jobs) > 1:
        _tables(jobs, outcomes, arguments.brief)
    if form is None and after is not None:
        _print(after(jobs, outcomes))
    if arguments.table is not None:
        _write(arguments.table, json.dumps(as_plain(jobs, outcomes), indent=1) + "\n")
    if arguments.junit is not None:
        from replay.formats.junit import junit_xml

        _write(arguments.junit, junit_xml([(job, outcomes[job.number]) for job in jobs], lines,
                                          datetime.datetime.now(datetime.UTC)))
    return max((outcome.exit_status for outcome in outcomes.values()), key=_WORSE.index)


def _show(arguments: argparse.Namespace, jobs: Sequence[ReplayJob], outcome: JobOutcome,
          report: Callable[[Result], Iterator[str]], form: Form | None) -> None:
    """Print a job's report, or its form; pairs without a result are reported on stderr, and below the tables."""
    if form is not None:
        _print(form.one(jobs[outcome.number], outcome))
    elif outcome.result is not None:
        apart = outcome.number > 0 and not arguments.brief
        print("\n" * apart + "\n".join(report(outcome.result)))
    if outcome.result is None and arguments.jobs is None and arguments.scheduler is None:
        warn(outcome.error)
    sys.stdout.flush()


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line)


def _count(outcomes: Mapping[int, JobOutcome]) -> str:
    """Return how many came out how: "2 PASS, 1 FAIL"."""
    found = [outcome.verdict or outcome.kind for outcome in outcomes.values()]
    return ", ".join(f"{found.count(what)} {what}" for what in ("PASS", "FAIL", "UNDECIDED", UNREADABLE, NOT_DONE)
                     if what in found)


def _tables(jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome], brief: bool = False) -> None:
    """Print both tables (not in brief), why there are no results where there are none, and how many came out how."""
    if not brief:
        print()
        print("\n".join(table_lines(jobs, outcomes)))
        print()
    for job in jobs:
        if job.number in outcomes and outcomes[job.number].result is None:
            print(textwrap.fill(outcomes[job.number].error, fitting(78), subsequent_indent="  ", break_on_hyphens=False,
                                break_long_words=False))
    revisions = len({job.revision for job in jobs})
    times = f" x {revisions} revisions" if revisions > 1 else ""
    print(f"{len(jobs) // revisions} recordings{times}: {_count(outcomes)}")


def _write(file: str, text: str) -> None:
    """Write a file whole or not at all.

    :raises BadInput: when that is not possible
    """
    try:
        write_whole(Path(os.path.realpath(file)), text.encode())
    except OSError as problem:
        raise BadInput(file, "", f"cannot be written ({problem.strerror})",
                       next_step(problem.errno, "name another file")) from None


class _Watch:
    """Says on stderr how far jobs elsewhere are: a line for each that ended, on a terminal with a bar below."""

    def __init__(self, jobs: Sequence[ReplayJob], bar: Progress | None) -> None:
        self._jobs = jobs
        self._bar = bar
        self._task = bar.add_task("replays", total=len(jobs)) if bar is not None else None
        self._outcomes: dict[int, JobOutcome] = {}

    def say(self, text: str) -> None:
        """Print a line."""
        if self._bar is not None and self._bar.live.is_started:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def ended(self, outcome: JobOutcome) -> None:
        """Tell of an outcome."""
        self._outcomes[outcome.number] = outcome
        text = outcome.error
        if outcome.result is not None:
            text = f"{self._jobs[outcome.number].recording} against {outcome.result.revision}"
            if outcome.result.divergences:
                first = outcome.result.divergences[0]
                text += f": {first.check} at event {first.event}"
        self.say(f"{len(self._outcomes)}/{len(self._jobs)} {outcome.verdict or outcome.kind}  {text}")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=len(self._outcomes), description=_count(self._outcomes))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while something else is printed."""
        self.close()
        yield
        if self._bar is not None:
            self._bar.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


class _Silent(_Watch):
    """Says nothing of the jobs: they are done here, one after the other, with a bar of their own."""

    def ended(self, outcome: JobOutcome) -> None:
        """Tell nothing."""


@contextmanager
def _watching(jobs: Sequence[ReplayJob], elsewhere: bool) -> Iterator[_Watch]:
    """Give what watches jobs, with a bar where stderr is a terminal and they run elsewhere."""
    if not elsewhere:
        yield _Silent(jobs, None)
        return
    terminal = console()
    if terminal is None:
        yield _Watch(jobs, None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*shown, console=terminal, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        yield _Watch(jobs, bar)
