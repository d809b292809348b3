# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay's outcome as test harnesses see it: a test with a subtest for each check, each passed, failed or skipped.

The one place that says what a verdict is to a harness; KTAP and JUnit XML only write it down.

- PASS and FAIL: a check that differed failed; one that compared and did not differ passed; one that compared nothing is
  skipped, with its reason, and so is one whose differences may all follow from another check's.
- UNDECIDED: every check is skipped, also one that compared and found no difference.  Harnesses add up what passed
  below a test (kunit's parser takes a run with one passed subtest and no failed one as passed, whatever the outer line
  says), and a recording with lost events can never pass.
- No result: the test itself is in error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from replay.many.jobs import JobOutcome, ReplayJob
from replay.reference.checks import Divergence
from replay.verdict.result import CheckResult, Result

__all__ = ["Case", "SubtestNames", "Suite", "judge", "one_line"]


@dataclass(frozen=True)
class Case:
    """A check: ``status`` is ``pass``, ``fail`` or ``skip``, ``text`` says in one line what was compared or why not."""

    name: str
    status: str
    text: str
    divergences: tuple[Divergence, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A recording against a revision; ``status`` as a case's, or ``error``.  Without cases it stands for itself."""

    name: str
    status: str
    text: str
    cases: tuple[Case, ...] = ()
    result: Result | None = None


@dataclass
class SubtestNames:
    """Gives each pair a name that no other has: harnesses know tests by their names from run to run."""

    _given: set[str] = field(default_factory=set)

    def of(self, job: ReplayJob, outcome: JobOutcome) -> str:
        """Return a name without ``#`` and control characters, which KTAP does not allow in one."""
        revision = outcome.result.revision if outcome.result is not None else job.against
        plain = one_line(f"{job.recording} against {revision}").replace("#", "_")
        if re.match(":?-", plain):
            # "ok 1 - NAME" is TAP's way of writing "ok 1 NAME".
            plain = f"./{plain}"
        name, number = plain, 1
        while name in self._given:
            number += 1
            name = f"{plain} ({number})"
        self._given.add(name)
        return name


def one_line(text: str) -> str:
    """Return text in one line, without control characters: names and markers come from other people's machines."""
    return " ".join("".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text).split())


def judge(job: ReplayJob, outcome: JobOutcome, names: SubtestNames) -> Suite:
    """Return what a harness is given of one pair."""
    name = names.of(job, outcome)
    result = outcome.result
    if result is None:
        return Suite(name, "error", one_line(outcome.error))
    listed = {check.id for check in result.checks}
    checks = [*result.checks]
    if result.verdict == "FAIL":
        # What diverged fails also where it was not one of the wanted checks.
        checks += [CheckResult(check, 0, sum(each.check == check for each in result.divergences), "exact", "")
                   for check in dict.fromkeys(each.check for each in result.divergences) if check not in listed]
    # Where nothing failed by itself (its cause was not asked for), consequences have to fail: some case must.
    independent = any(check.independent for check in checks)
    cases = tuple(_case(check, result, independent) for check in checks)
    if result.verdict == "PASS":
        return Suite(name, "pass", "", cases, result)
    if result.verdict == "FAIL":
        return Suite(name, "fail", one_line("; ".join(result.reasons)), cases, result)
    return Suite(name, "skip", one_line("; ".join([result.verdict, *result.reasons])), cases, result)


def _case(check: CheckResult, result: Result, independent: bool) -> Case:
    found = tuple(each for each in result.divergences if each.check == check.id)
    if result.verdict not in ("PASS", "FAIL"):
        what = f"compared {check.compared}, different {check.different}" if check.compared or check.different \
            else one_line(check.reason)
        return Case(check.id, "skip", f"{result.verdict}: {what}", found)
    if check.different:
        also = f", {check.following} more may follow from an earlier difference" if check.following else ""
        return Case(check.id, "fail" if check.independent or not independent else "skip",
                    f"compared {check.compared}, different {check.independent}{also}", found)
    if not check.compared:
        return Case(check.id, "skip", one_line(check.reason))
    reason = f": {one_line(check.reason)}" if check.reason else ""
    return Case(check.id, "pass", f"compared {check.compared}, {check.grade}{reason}")
