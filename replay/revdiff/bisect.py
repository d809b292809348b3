# SPDX-License-Identifier: GPL-2.0-or-later
"""Which step of a series brought a difference: its revisions in order, each on the same recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model.revisions import REVISIONS, SERIES
from model.zswap import Zswap
from replay.revdiff import lockstep
from replay.revdiff.lockstep import Cause, Parting
from traces.errors import BadInput
from traces.recording import Recording

__all__ = ["Bisection", "Step", "bisect", "series"]

@dataclass(frozen=True)
class Step:
    """A step, what it mirrors, and where it differs from the first one (None for the first itself)."""

    name: str
    mirrors: str
    parting: Parting | None


@dataclass(frozen=True)
class Bisection:
    """The steps walked, the difference that was looked for, and the first step that has it (None: none)."""

    steps: tuple[Step, ...]
    wanted: Cause | None
    brought: str | None


def bisect(recording: Recording, names: Sequence[tuple[str, type[Zswap]]], respect: str | None = None, *,
           progress: Callable[[str, int], None] | None = None) -> Bisection:
    """Find the step that brought the gravest difference between the first and the last, or that in a respect.

    A step has the difference where it parts in the same respect at the operation at which the last one first does.

    :param names: at least two steps, name and class, the base first
    :param respect: a key of :data:`replay.revdiff.lockstep.RESPECTS`
    :param progress: called with (step, event reached)
    :raises BadInput: for fewer steps, or where the recording cannot be run
    """
    if len(names) < 2:
        raise BadInput(recording.path, "", "bisect needs at least two steps", "name the base and its steps")
    first = names[0]

    def against(step: tuple[str, type[Zswap]]) -> Parting:
        seen = None if progress is None else lambda event: progress(step[0], event)
        return lockstep.run_both(recording, first, step, progress=seen)

    last = against(names[-1])
    wanted = next((cause for cause in last.causes if respect in (None, cause.respect)), None)
    steps = [Step(first[0], first[1].mirrors, None)]
    brought = None
    for step in names[1:]:
        parting = last if step is names[-1] else against(step)
        steps.append(Step(step[0], step[1].mirrors, parting))
        if wanted is not None and brought is None and any(_same(cause, wanted) for cause in parting.causes):
            brought = step[0]
    return Bisection(tuple(steps), wanted, brought)


def _same(cause: Cause, wanted: Cause) -> bool:
    return cause.respect == wanted.respect and wanted.first[0].operation.event in cause.events


def series(name: str) -> list[tuple[str, type[Zswap]]]:
    """Return the shipped steps of a series."""
    return [(step, REVISIONS[step]) for step in SERIES[name]]
