# SPDX-License-Identifier: GPL-2.0-or-later
"""``--coverage``: the table of the branches that replays came to, and of those that they did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from model.branches import BRANCHES
from replay.cli.terminal import table
from replay.many.jobs import JobOutcome, ReplayJob
from replay.tools.coverage import covered, sentence

__all__ = ["all_branch_lines", "branch_lines"]


def branch_lines(revision: str, branches: Mapping[str, int]) -> Iterator[str]:
    """Yield a revision's branches: how often each occurred, ``-`` for never, and what happens there."""
    yield f"{sentence(revision, branches)}:"
    yield table([("branch", "times", "what happens there"),
                 *((name, f"{times:,}" if times else "-", BRANCHES.get(name, "")) for name, times in branches.items())],
                right=[1])


def all_branch_lines(jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> Iterator[str]:
    """Yield the same of several replays together, revision by revision."""
    results = [outcome.result for outcome in outcomes.values() if outcome.result is not None]
    for revision, branches in covered(results).items():
        yield ""
        number = sum(result.revision == revision for result in results)
        yield f"in {number} of {len(jobs)} replays:"
        yield from branch_lines(revision, branches)
