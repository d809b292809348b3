# SPDX-License-Identifier: GPL-2.0-or-later
"""Two tables of many replays, as data: a verdict per recording and revision, a sum per check and revision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from replay.many.jobs import JobOutcome, ReplayJob
from replay.reference.checks import CHECKS
from replay.verdict.result import Result

__all__ = ["CheckSum", "Verdict", "as_plain", "check_sums", "verdicts"]


@dataclass(frozen=True)
class Verdict:
    """What became of one job.  ``asked`` is the revision as the user named it, ``revision`` what it is called.

    ``check`` and ``event`` are those of the first divergence; ``error`` says why a verdict is missing.
    """

    recording: str
    asked: str | None
    revision: str | None
    verdict: str | None
    check: str | None
    event: int | None
    error: str


@dataclass(frozen=True)
class CheckSum:
    """One check under one revision (``asked``), over all recordings that were replayed under it.

    ``not_compared`` of these ``recordings`` had nothing to compare, or could not.  Of those ``different`` as many as
    ``following`` may be consequences of an earlier difference.
    """

    check: str
    asked: str | None
    compared: int
    different: int
    recordings: int
    not_compared: int
    following: int = 0


def verdicts(jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> list[Verdict]:
    """Return a line per job, in order; ``outcomes`` are by the job's number, and may lack some."""
    found = []
    for job in jobs:
        outcome = outcomes.get(job.number)
        result = outcome.result if outcome is not None else None
        first = result.divergences[0] if result is not None and result.divergences else None
        error = outcome.error if outcome is not None else "stopped before it was done"
        found.append(Verdict(job.recording, job.revision, result.revision if result is not None else None,
                             result.verdict if result is not None else None,
                             first.check if first is not None else None,
                             first.event if first is not None else None, error))
    return found


def check_sums(jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> list[CheckSum]:
    """Return a line per check and revision; checks in their own order, then the counters by name."""
    results: dict[str | None, list[Result]] = {}
    for job in jobs:
        outcome = outcomes.get(job.number)
        if outcome is not None and outcome.result is not None:
            results.setdefault(job.revision, []).append(outcome.result)
    seen = {check.id for several in results.values() for result in several for check in result.checks}
    order = [*(check for check in CHECKS if check in seen), *sorted(seen - set(CHECKS))]
    found = []
    for name in order:
        for asked, several in results.items():
            of = [check for result in several for check in result.checks if check.id == name]
            found.append(CheckSum(name, asked, sum(check.compared for check in of),
                                  sum(check.different for check in of), len(several),
                                  len(several) - sum(check.compared > 0 for check in of),
                                  sum(check.following for check in of)))
    return found


def as_plain(jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> dict[str, Any]:
    """Return both tables as plain data: lists of rows, as pandas and jq like them."""
    return {"verdicts": [asdict(row) for row in verdicts(jobs, outcomes)],
            "checks": [asdict(row) for row in check_sums(jobs, outcomes)]}
