# SPDX-License-Identifier: GPL-2.0-or-later
"""Queues, groups and engines of one device, in simulated time.

A descriptor waits in its queue until an engine of the queue's group is free, keeps the engine for its service time,
and ends.  With a service time of 0 it ends as it is submitted.  Of a group's queues the one of highest priority
(WQCFG) is served first, of equal ones the descriptor that came first; the hardware's own arbitration between
priorities is not published.  Service times begin when the engine became free, also where this process was late to
notice, so that times do not depend on the host.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from traces.lab.iaa.descriptors import Descriptor
from traces.lab.iaa.operations import Outcome

__all__ = ["Engines", "Job", "Queue"]


@dataclass(eq=False, slots=True)
class Job:
    """A descriptor on its way.

    ``number`` counts the device's submissions; times are nanoseconds; ``engine`` is -1 where no engine was occupied;
    ``rule`` is the number of the fault rule that it met, 0 for none; ``late`` is what that adds to its end; ``page`` is
    the number of its source in the log's file of pages, 0 where that is not kept.
    """

    number: int
    queue: int
    descriptor: Descriptor
    submitted: int
    in_flight: int
    outcome: Outcome | None = None
    engine: int = -1
    rule: int = 0
    page: int = 0
    late: int = 0
    behind: int = 0
    silent: bool = False
    lost: bool = False
    ended: bool = False


@dataclass(eq=False, slots=True)
class Queue:
    """One work queue: what its registers say, and its descriptors.

    ``held_until`` is when a fault rule lets descriptors of it end again.
    """

    number: int
    enabled: bool = False
    size: int = 0
    priority: int = 0
    group: int = -1
    waiting: deque[Job] = field(default_factory=deque)
    outstanding: int = 0
    held_until: int = 0


_NO_ENGINES: Final[tuple[int, ...]] = ()


class Engines:
    """All of them.

    :param service: nanoseconds of an engine for a descriptor
    :param per_kib: and for each 1024 bytes of its source
    :param begin: carries a job out, as an engine takes it
    :param end: reports it
    """

    def __init__(
        self,
        queues: list[Queue],
        service: int,
        per_kib: int,
        begin: Callable[[Job], None],
        end: Callable[[Job, int], None],
    ) -> None:
        self.queues = queues
        self.timed = bool(service or per_kib)
        self._service, self._per_kib = service, per_kib
        self._begin, self._end = begin, end
        self._engines: dict[int, tuple[int, ...]] = {}
        self._busy: dict[int, Job] = {}
        # (when, order, job, its engine or -1: the job's end alone)
        self._events: list[tuple[int, int, Job, int]] = []
        self._order = 0
        self._behind: list[Job] = []

    def group(self, number: int, engines: tuple[int, ...]) -> None:
        """Say which engines a group has."""
        self._engines[number] = engines

    @property
    def idle(self) -> bool:
        """Nothing is on its way."""
        return not any(queue.outstanding for queue in self.queues)

    def submit(self, job: Job, now: int) -> None:
        """Take a descriptor that its queue has room for."""
        queue = self.queues[job.queue]
        queue.outstanding += 1
        if not self.timed:
            self._begin(job)
            self._finish(job, now, queue)
            return
        queue.waiting.append(job)
        self._dispatch(queue.group, now)

    def _finish(self, job: Job, when: int, queue: Queue) -> None:
        # The engine is done; a fault may hold the end back.
        due = max(when + job.late, queue.held_until)
        if job.lost:
            self._over(job, when)
        elif job.behind:
            self._behind.append(job)
            self._push(due, job, -1)
        elif due > when:
            self._push(due, job, -1)
        else:
            self._over(job, when)

    def _over(self, job: Job, when: int) -> None:
        job.ended = True
        self.queues[job.queue].outstanding -= 1
        self._end(job, when)
        if self._behind:
            for held in [one for one in self._behind if one.queue == job.queue and not one.ended]:
                held.behind -= 1
                if held.behind <= 0:
                    self._behind.remove(held)
                    self._over(held, when)

    def _push(self, when: int, job: Job, engine: int) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, job, engine))

    def _dispatch(self, group: int, now: int) -> None:
        for engine in self._engines.get(group, _NO_ENGINES):
            if engine in self._busy:
                continue
            best: Queue | None = None
            for queue in self.queues:
                if queue.group != group or not queue.waiting:
                    continue
                if best is None or (-queue.priority, queue.waiting[0].number) < (
                    -best.priority,
                    best.waiting[0].number,
                ):
                    best = queue
            if best is None:
                return
            job = best.waiting.popleft()
            job.engine = engine
            self._busy[engine] = job
            self._begin(job)
            self._push(now + self._service + self._per_kib * job.descriptor.src1_size // 1024, job, engine)

    def advance(self, now: int) -> int | None:
        """Let everything happen that is due.

        :returns: when something is due next, None when nothing is
        """
        events = self._events
        while events and events[0][0] <= now:
            when, _, job, engine = heapq.heappop(events)
            if job.ended:
                continue
            if engine < 0:
                if job.behind:
                    # Too few came after it.
                    self._behind.remove(job)
                self._over(job, when)
                continue
            queue = self.queues[job.queue]
            del self._busy[engine]
            self._finish(job, when, queue)
            self._dispatch(queue.group, when)
        return events[0][0] if events else None

    def abort(self, queues: set[int]) -> list[Job]:
        """Forget the jobs of some queues: nothing is written for them.

        :returns: those that were on their way
        """
        gone = [job for _, _, job, _ in self._events if job.queue in queues and not job.ended]
        for number in queues:
            queue = self.queues[number]
            gone += queue.waiting
            queue.waiting.clear()
            queue.outstanding = 0
            queue.held_until = 0
        for job in gone:
            job.ended = True
        self._busy = {engine: job for engine, job in self._busy.items() if not job.ended}
        self._behind = [job for job in self._behind if not job.ended]
        self._events = [event for event in self._events if not event[2].ended]
        heapq.heapify(self._events)
        return sorted(gone, key=lambda job: job.number)

    def regroup(self, now: int) -> None:
        """Engines may have become free."""
        for group in self._engines:
            self._dispatch(group, now)
