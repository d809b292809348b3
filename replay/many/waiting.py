# SPDX-License-Identifier: GPL-2.0-or-later
"""Which job goes next, and how often one is tried whose process dies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from replay.many.jobs import ReplayJob

__all__ = ["TRIES", "Waiting"]

#: A job is started this often at most, the last time alone: one that died of too little memory has all of it then.
TRIES: Final = 3


class Waiting:
    """Jobs that are to be done, in order; the caller says what became of each that it took."""

    def __init__(self, jobs: Iterable[ReplayJob]) -> None:
        self._jobs = list(jobs)
        self._unfinished = {job.number for job in self._jobs}
        self._running: set[int] = set()
        self._deaths: dict[int, int] = {}
        self._alone = False

    def __len__(self) -> int:
        """The number of jobs that wait or run."""
        return len(self._unfinished)

    def __contains__(self, number: int) -> bool:
        """True when the job of that number waits or runs."""
        return number in self._unfinished

    def take(self) -> ReplayJob | None:
        """Return the job to start now, None when none may be (or none is left)."""
        if self._alone:
            return None
        # What a job waits for need not be among these: it may have been done before.
        ready = [job for job in self._jobs if job.after not in self._unfinished]
        chosen = next((job for job in ready if self._deaths.get(job.number, 0) < TRIES - 1), None)
        if chosen is None and ready and not self._running:
            chosen = ready[0]
            self._alone = True
        if chosen is not None:
            self._jobs.remove(chosen)
            self._running.add(chosen.number)
        return chosen

    def ended(self, job: ReplayJob) -> None:
        """Take note that a job has its outcome."""
        self._running.discard(job.number)
        self._unfinished.discard(job.number)
        self._alone = False

    def died(self, job: ReplayJob, *, times: int = 1) -> bool:
        """Take note that a job's process died, ``times`` times; False when it is given up."""
        self._running.discard(job.number)
        self._deaths[job.number] = self._deaths.get(job.number, 0) + times
        # However many were counted, no job is given up before it was tried alone.
        last, self._alone = self._alone, False
        if last:
            self._unfinished.discard(job.number)
            return False
        self._jobs.append(job)
        return True
