# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs in processes of this machine, each of which does one after the other; a process that dies costs time only."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Final

from replay.many.jobs import JobOutcome, ReplayJob, not_done
from replay.many.waiting import TRIES, Waiting
from replay.many.worker import GRACE

__all__ = ["run_local"]

_CHUNK: Final = 1 << 20
#: A fresh interpreter: a fork of one with threads may hang.  It finds the project where this process does.
_CODE: Final = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
                "from replay.many.worker import main; main(int(sys.argv[2]))")


class _Worker:
    """One process, and the job that it has."""

    def __init__(self, threads: int) -> None:
        # A session of its own: Ctrl-C is for this process, which stops the others.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, json.dumps([os.path.abspath(path) for path in sys.path]), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.job: ReplayJob | None = None
        self._answer = b""

    @property
    def out(self) -> IO[bytes]:
        """Where its answers come from."""
        assert self.process.stdout is not None
        return self.process.stdout

    def give(self, job: ReplayJob) -> None:
        """Have it do a job."""
        self.job = job
        assert self.process.stdin is not None
        # Where it died before it had anything to do, the end of its answers says so too.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(job.as_dict()).encode() + b"\n")
            self.process.stdin.flush()

    def read(self) -> bytes | None:
        """Read what has come: a whole answer, ``b""`` for a part of one, None when the process is gone."""
        part = os.read(self.out.fileno(), _CHUNK)
        if not part:
            return None
        self._answer += part
        if not part.endswith(b"\n"):
            return b""
        answer, self._answer = self._answer, b""
        return answer

    def dismiss(self) -> None:
        """Say that nothing more will come, which ends the process soon."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self) -> str:
        """End the process if it has not; return in words how it ended."""
        self.process.kill()
        status = self.process.wait()
        self.dismiss()
        self.out.close()
        if status >= 0:
            return f"with status {status}"
        try:
            return f"by {signal.Signals(-status).name}"
        except ValueError:
            return f"by signal {-status}"


def run_local(jobs: Sequence[ReplayJob], processes: int, *,
              started: Callable[[ReplayJob, int], None] | None = None) -> Iterator[JobOutcome]:
    """Run jobs in that number of processes; yields their outcomes as they come.

    A job whose process dies is started again, :data:`~replay.many.waiting.TRIES` times in all.  When the generator is
    closed, or an exception (Ctrl-C) goes through it, the processes are ended.

    :param started: called with each job that is started and the number of its process
    """
    waiting = Waiting(jobs)
    # Those that find their pages compressed leave the CPUs to those that compress them.
    at_once = max(1, min(processes, sum(job.after is None for job in jobs)))
    threads = max(1, (os.cpu_count() or 1) // at_once)
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    with selectors.DefaultSelector() as ready:
        try:
            while len(waiting):
                while len(busy) < processes and (job := waiting.take()) is not None:
                    if idle:
                        worker = idle.pop()
                    else:
                        worker = _Worker(threads)
                        ready.register(worker.out, selectors.EVENT_READ, worker)
                    busy.append(worker)
                    worker.give(job)
                    if started is not None:
                        started(job, worker.process.pid)
                for key, _ in ready.select():
                    outcome = _take(key.data, waiting, idle, busy, ready)
                    if outcome is not None:
                        yield outcome
        finally:
            workers = [*busy, *idle]
            for worker in workers:
                worker.dismiss()
            for worker in workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(2 * GRACE)
                worker.end()


def _take(worker: _Worker, waiting: Waiting, idle: list[_Worker], busy: list[_Worker],
          ready: selectors.BaseSelector) -> JobOutcome | None:
    """Take what a process has to say: an outcome, nothing whole yet, or that it is dead."""
    answer = worker.read()
    if answer == b"":
        return None
    job = worker.job
    if answer is None:
        ready.unregister(worker.out)
        (busy if worker in busy else idle).remove(worker)
        how = worker.end()
        if job is None or waiting.died(job):
            return None
        return not_done(job, f"ended its process {TRIES} times, the last time {how}",
                        "if it is memory that it lacks, run it where there is more")
    assert job is not None
    worker.job = None
    busy.remove(worker)
    idle.append(worker)
    waiting.ended(job)
    return JobOutcome.from_json(answer)
