# SPDX-License-Identifier: GPL-2.0-or-later
"""KTAP, version 1: what kunit's parser and the kernel's test robots read.

Mirrors Documentation/dev-tools/ktap.rst of Linux 7.2.  A pair of recording and revision is a test, its checks are
subtests: one level of nesting.  ``# Subtest:`` names a test before its subtests, as kunit itself prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from replay.formats.subtests import Case, SubtestNames, Suite, judge, one_line
from replay.many.jobs import JobOutcome, ReplayJob
from replay.reference.checks import Divergence

__all__ = ["Ktap"]

_VERSION: Final = "KTAP version 1"
#: further divergences of a check that are listed in a line each
_FURTHER: Final = 9


class Ktap:
    """Yields lines of KTAP, pair by pair, as they are done: a run that was cut short has fewer tests than it planned.

    :param lines: the lines of a divergence in full, for people
    """

    def __init__(self, lines: Callable[[Divergence], Iterator[str]]) -> None:
        self._lines = lines
        self._names = SubtestNames()

    def head(self, jobs: Sequence[ReplayJob]) -> Iterator[str]:
        """Yield the version and the plan."""
        yield _VERSION
        yield f"1..{len(jobs)}"

    def one(self, job: ReplayJob, outcome: JobOutcome) -> Iterator[str]:
        """Yield a pair's test."""
        suite = judge(job, outcome, self._names)
        if suite.cases:
            yield f"  {_VERSION}"
            yield f"  # Subtest: {suite.name}"
            yield f"  1..{len(suite.cases)}"
            for number, case in enumerate(suite.cases, 1):
                yield from (f"  {line}" for line in self._case(number, case))
        yield from self._about(suite)
        number = job.number + 1
        if suite.status == "pass":
            yield f"ok {number} {suite.name}"
        elif suite.status == "fail":
            yield f"not ok {number} {suite.name}"
        elif suite.status == "skip":
            yield f"ok {number} {suite.name} # SKIP {suite.text}"
        else:
            yield f"not ok {number} {suite.name} # ERROR {suite.text}"

    def foot(self, jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> Iterator[str]:
        """Yield nothing: the plan came first."""
        yield from ()

    def _about(self, suite: Suite) -> Iterator[str]:
        result = suite.result
        if result is None:
            return
        yield one_line(f"# {result.verdict}: {result.events} events of kernel {result.kernel} ({result.compressor}) "
                       f"against {result.revision}; unexplained: {result.unexplained}")
        for reason in result.reasons:
            yield one_line(f"# {reason}")
        for note in result.notes:
            yield one_line(f"# note: {note}")

    def _case(self, number: int, case: Case) -> Iterator[str]:
        if case.divergences:
            yield from (_diagnostic(line) for line in self._lines(case.divergences[0]))
            for other in case.divergences[1:1 + _FURTHER]:
                after = "" if other.follows is None else f" (may follow from event {other.follows})"
                yield one_line(f"# also at event {other.event} ({other.name}): {other.what}{after}")
            if len(case.divergences) > 1 + _FURTHER:
                yield f"# and {len(case.divergences) - 1 - _FURTHER} more"
        if case.status == "fail":
            yield f"not ok {number} {case.name} # {case.text}"
        else:
            yield f"ok {number} {case.name} # {'SKIP ' if case.status == 'skip' else ''}{case.text}"


def _diagnostic(line: str) -> str:
    """Return a line for people as a diagnostic; its indentation stays."""
    return "# " + "".join(c if c.isprintable() else "?" for c in line)
