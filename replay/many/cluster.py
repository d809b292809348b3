# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs on a Dask cluster: its workers open the recordings by their paths, and answer with plain data.

The scheduler starts a job again whose worker died (its ``allowed-failures``).  One that it gives up gets a last try
here, running alone, as in :mod:`replay.many.waiting`: a worker's death is counted against all jobs that it had.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from replay.many.compiled import guard
from replay.many.jobs import LOCAL, JobOutcome, ReplayJob, not_done, safely, sources
from replay.many.waiting import TRIES, Waiting
from traces.errors import BadInput

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["run_cluster"]

#: seconds: for a scheduler to answer and for a first worker; between two looks at the cluster
_ANSWER: Final = 20
_LOOK: Final = 5


def run_cluster(jobs: Sequence[ReplayJob], address: str, processes: int | None = None, *,
                say: Callable[[str], None] = lambda text: None) -> Iterator[JobOutcome]:
    """Run jobs on the cluster of the scheduler at an address; yields their outcomes as they come.

    :param address: such as ``tcp://host:8786``; :data:`LOCAL` starts a cluster of ``processes`` workers here
    :param say: called with a sentence on what the user should know of the cluster
    :raises BadInput: where no scheduler answers, or it has no workers
    """
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise BadInput("--scheduler", "", "the package distributed is not installed",
                       "install it with 'pip install zreplay[cluster]', or use -j") from None
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        client = stack.enter_context(_client(address, processes, len(jobs)))
        threads = client.nthreads()
        if any(count > 1 for count in threads.values()):
            say("some of the cluster's workers have several threads, of which only one replays at a time: start them "
                "with --nthreads 1, and more of them.")
        yield from _run(client, jobs, address, say)


@contextlib.contextmanager
def _client(address: str, processes: int | None, jobs: int) -> Iterator[Client]:
    """Give a client of the cluster, and end what was started for it."""
    import dask
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        if address == LOCAL:
            workers = min(processes or os.cpu_count() or 1, max(1, jobs))
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": TRIES - 2}))
            # Memory is the kernel's to judge, as with -j.
            with _interrupts_later():
                target: Any = stack.enter_context(LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0,
                    silence_logs=logging.CRITICAL,
                    # It opens a port for HTTP nevertheless, and warns where its usual one is taken.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"}))
        else:
            target = address
        try:
            client = stack.enter_context(Client(target, timeout=_ANSWER, set_as_default=False))
        except (OSError, TimeoutError, ValueError) as problem:
            raise BadInput(address, "", f"no Dask scheduler answers there ({problem})",
                           "start one with 'dask scheduler' and workers with 'dask worker ADDRESS --nthreads 1', or "
                           "use -j") from None
        try:
            client.wait_for_workers(1, timeout=_ANSWER)
        except TimeoutError:
            raise BadInput(address, "", "the Dask scheduler there has no workers",
                           "start some with 'dask worker ADDRESS --nthreads 1'") from None
        yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's log: what matters of it is reported in sentences here."""
    # Its own configuration gives the client's log a level too.
    logs = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold back Ctrl-C, here until the end and for good in all threads and processes that are started meanwhile.

    It goes to every process of a terminal, and is for this one, which stops the others.
    """
    # Starting it while a process is started would let signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(client: Client, jobs: Sequence[ReplayJob], address: str, say: Callable[[str], None]) -> Iterator[JobOutcome]:
    import distributed

    waiting = Waiting(jobs)
    futures: dict[Future, ReplayJob] = {}
    said = False
    try:
        while len(waiting):
            # No more at a time than there are threads: what lies behind a job that ends its worker is blamed with it.
            try:
                threads = sum(client.nthreads().values())
            except OSError:
                yield from _forsaken(jobs, waiting, address)
                return
            while len(futures) < max(1, threads) and (job := waiting.take()) is not None:
                futures[client.submit(_on_worker, _order(job), pure=False, key=f"zreplay-{os.urandom(8).hex()}")] = job
            try:
                with client.as_current():
                    distributed.wait(list(futures), timeout=_LOOK, return_when="FIRST_COMPLETED")
            except TimeoutError:
                if not threads and not said:
                    say(f"no worker of {address} is left; waiting for one (Ctrl-C stops this).")
                    said = True
                continue
            except CancelledError:
                # Of one at least; what became of each it says itself.
                pass
            for future in [future for future in futures if future.status != "pending"]:
                outcome = _outcome(future, futures.pop(future), waiting)
                if outcome is not None:
                    yield outcome
    finally:
        with contextlib.suppress(Exception):
            client.cancel(list(futures), force=True)


def _forsaken(jobs: Sequence[ReplayJob], waiting: Waiting, address: str) -> Iterator[JobOutcome]:
    """Yield the outcomes of all jobs that are left when the scheduler is gone."""
    for job in jobs:
        if job.number in waiting:
            waiting.ended(job)
            yield not_done(job, f"was left when the Dask scheduler at {address} went away", "run it again")


def _order(job: ReplayJob) -> dict[str, Any]:
    """Return a job as a worker elsewhere needs it: paths from the root, what the paths hold, and who sends it."""
    revision = job.revision
    if revision is not None and ":" in revision:
        file, _, name = revision.rpartition(":")
        revision = f"{os.path.abspath(file)}:{name}"
    at = os.path.abspath(job.recording)
    return {"job": job.as_dict(), "revision": revision, "at": at, "there": (Path(at) / "manifest.json").is_file(),
            "sources": sources()}


def _on_worker(order: dict[str, Any]) -> str:
    """Do a job on a worker; returns the outcome as JSON."""
    job = ReplayJob(**order["job"])
    guard()
    host = socket.gethostname()
    if order["sources"] != sources():
        return not_done(job, f"was refused: the worker on {host} has another zreplay",
                        "install the same one on all workers, and start them again").to_json()
    if order["there"] and not (Path(order["at"]) / "manifest.json").is_file():
        return not_done(job, f"was refused: the worker on {host} has no recording at {order['at']}",
                        "workers open recordings by their paths: mount the same file system there").to_json()
    outcome = safely(ReplayJob(job.number, job.recording, order["revision"], job.options), at=order["at"])
    if order["revision"] != job.revision:
        # A user's file is called what its user calls it.
        there, here = (str(Path(name.rpartition(":")[0])) for name in (order["revision"], str(job.revision)))
        outcome = dataclasses.replace(outcome, error=outcome.error.replace(there, here))
    return outcome.to_json()


def _outcome(future: Future, job: ReplayJob, waiting: Waiting) -> JobOutcome | None:
    """Return what became of a job that the scheduler is done with, None when it is to be tried again."""
    from distributed import KilledWorker

    if future.status == "finished":
        waiting.ended(job)
        return JobOutcome.from_json(future.result())
    if future.status == "error":
        problem = future.exception()
        if isinstance(problem, KilledWorker):
            if waiting.died(job, times=TRIES):
                return None
            return not_done(job, "ended every worker that it was given (KilledWorker)",
                            "if it is memory that it lacks, run it where there is more")
        waiting.ended(job)
        return not_done(job, f"could not be run by a worker ({type(problem).__name__}: {problem})",
                        "install the same zreplay on all workers, and start them again")
    # Cancelled or lost: by another client, or as the scheduler is gone.
    waiting.ended(job)
    return not_done(job, f"was {future.status}: the Dask scheduler has given it up or is gone", "run it again")
