# SPDX-License-Identifier: GPL-2.0-or-later
"""Worker processes: they hold the memory, live in the recorded cgroup, and obey orders from a pipe.

The driver stays outside the cgroup, so that nothing runs in it while counters are read.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from .memory import Region
from .naming import Naming
from .pages import PageSource

__all__ = ["Worker", "WorkerDied"]


_EXIT: Final = "exit"


class WorkerDied(RuntimeError):
    """A worker ended before its order to: killed for lack of memory, or by a defect."""


class Worker:
    """A child process; :meth:`send` starts an operation of :class:`_Operations`, :meth:`receive` awaits its result.

    :param number: which of the workers it is, from 0
    :param source: where its pages come from
    :param procs: ``cgroup.procs`` of the cgroup to live in; None leaves it where the driver is
    :param cpu: CPU to stay on; None for any
    :param namings: how each truth names a page's content
    """

    def __init__(self, number: int, source: PageSource, procs: Path | None, cpu: int | None,
                 namings: Sequence[Naming] = ()) -> None:
        self.number = number
        results, write_results = os.pipe()
        read_orders, orders = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(results)
            os.close(orders)
            status = 1
            try:
                if procs is not None:
                    procs.write_text(str(os.getpid()))
                if cpu is not None:
                    os.sched_setaffinity(0, {cpu})
                with os.fdopen(read_orders) as rx, os.fdopen(write_results, "w", buffering=1) as tx:
                    _serve(_Operations(source, namings), rx, tx)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(read_orders)
        os.close(write_results)
        self._results = os.fdopen(results)
        self._orders = os.fdopen(orders, "w", buffering=1)

    def send(self, operation: str, **arguments: Any) -> None:
        """Have the worker begin an operation."""
        try:
            self._orders.write(json.dumps([operation, arguments]) + "\n")
        except BrokenPipeError:
            raise self._died() from None

    def receive(self) -> Any:
        """Await the result of the operation.

        :raises WorkerDied: when there will be none
        """
        line = self._results.readline()
        if not line.endswith("\n"):
            # It died while it wrote, at the latest.
            raise self._died()
        return json.loads(line)

    def _died(self) -> WorkerDied:
        _, status = os.waitpid(self.pid, 0)
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
        return WorkerDied(f"worker {self.number} died ({how}); see the kernel log for why")

    def end(self) -> None:
        """Have the worker exit, which frees its memory, and await it."""
        with contextlib.suppress(BrokenPipeError):
            # Closing the pipe alone would not end it: workers that were forked later hold it too.
            self._orders.write(json.dumps([_EXIT, {}]) + "\n")
        for pipe in (self._orders, self._results):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(operations: _Operations, orders: TextIO, results: TextIO) -> None:
    """Obey orders from the pipe until one says to exit, or the driver is gone."""
    for line in orders:
        name, arguments = json.loads(line)
        if name == _EXIT:
            return
        results.write(json.dumps(getattr(operations, name)(**arguments)) + "\n")


class _Operations:
    """The orders that a worker obeys; every region has a name."""

    def __init__(self, source: PageSource, namings: Sequence[Naming]) -> None:
        self.source = source
        self.namings = namings
        self.regions: dict[str, Region] = {}

    def map(self, region: str, pages: int, folio: int) -> None:
        self.regions[region] = Region(pages, folio, self.namings)

    def fill(self, region: str, mix: str, seed: str, **where: int) -> None:
        self.regions[region].fill(self.source, mix, seed, **where)

    def out(self, region: str, **where: Any) -> int:
        return self.regions[region].page_out(**where)

    def read(self, region: str, **where: int) -> tuple[int, list[int]]:
        return self.regions[region].read(**where)

    def unmap(self, region: str, **where: int) -> None:
        self.regions[region].unmap(**where)

    def truth(self, region: str) -> list[tuple[int, str, list[str], int, int]]:
        return self.regions[region].truth()

    def fork(self, region: str, mix: str, seed: str) -> tuple[int, list[int]]:
        """Fork a child that reads, rewrites and pages out its copy; the slots are shared until then."""
        area = self.regions[region]
        results, write_results = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                count, bad = area.read(step=3)
                area.fill(self.source, mix, seed, first=1, step=4)
                area.page_out()
                more, worse = area.read(step=2)
                os.write(write_results, json.dumps([count + more, (bad + worse)[:50]]).encode())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(write_results)
        with os.fdopen(results) as pipe:
            answer = pipe.read()
        os.waitpid(pid, 0)
        if not answer:
            raise RuntimeError("the forked child died")
        count, bad = json.loads(answer)
        return count, bad

    def churn(self, region: str, mix: str, seed: str, rounds: int) -> tuple[int, list[int]]:
        """Page out, refault, rewrite and unmap pieces again and again, without waiting in between."""
        area, rng = self.regions[region], random.Random(seed)
        count, bad = 0, []
        for turn in range(rounds):
            first = rng.randrange(area.pages // 2)
            last = min(area.pages, first + rng.randrange(area.pages // 8, area.pages // 2) + 1)
            area.page_out(first, last)
            middle = rng.randrange(first, last)
            more, worse = area.read(middle, last, rng.choice((1, 2, 3)))
            count += more
            bad += worse
            area.fill(self.source, mix, f"{seed} {turn}", middle, min(last, middle + 40), 2)
            if turn % 3 == 2:
                area.unmap(first, min(last, first + 16))
                area.fill(self.source, mix, f"{seed} {turn} again", first, min(last, first + 16))
        return count, bad
