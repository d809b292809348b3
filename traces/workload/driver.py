# SPDX-License-Identifier: GPL-2.0-or-later
"""The vocabulary of scenarios: phases, operations of all workers at once, settings that are announced."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from traces.events import PAGE_SIZE

from .box import PARAMETERS, WorkloadBox
from .naming import PLAIN, Naming
from .pages import PageSource
from .worker import Worker

__all__ = ["WorkloadDriver", "Mismatch"]

_HEADER: Final = "phase,page,kind,{},swap_type,swap_offset\n"
#: Page numbers of different workers and regions in ``truth.csv`` are this far apart.
_WORKER_STEP: Final = 10_000_000
_REGION_STEP: Final = 1_000_000
_MAX_NAMED: Final = 5


class Mismatch(RuntimeError):
    """Pages did not hold what had been written to them."""


class WorkloadDriver:
    """Drives workers through phases.

    :param box: the kernel's knobs
    :param source: where pages come from
    :param cgroup: the workers' cgroup below the box's root
    :param pages: pages to work with, of all workers together
    :param procs: how many workers
    :param folio: size of folios in bytes
    :param seed: of synthetic content
    :param markers: a ``trace_marker`` of each recorder; without any nothing is announced
    :param captures: directories for snapshots and truth, one of each recorder
    :param snapshot: writes a counter snapshot: (directory, label, cgroup)
    :param namings: how the truth of each capture names a page's content; by default by SHA-1
    """

    def __init__(self, box: WorkloadBox, source: PageSource, *, cgroup: str, pages: int, procs: int = 1,
                 folio: int = PAGE_SIZE, seed: int = 1, markers: Sequence[Path] = (), captures: Sequence[Path] = (),
                 snapshot: Callable[[Path, str, Path], None] | None = None,
                 namings: Sequence[Naming] | None = None) -> None:
        self.box = box
        self.source = source
        self.cgroup_name = cgroup
        self.folio = folio
        self.seed = seed
        # Every worker's share is whole folios.
        unit = max(folio // PAGE_SIZE, 16)
        self.pages = max(pages // procs // unit, 1) * unit
        self.procs = procs
        self.workers: list[Worker] = []
        self.checked = 0
        self._bad: list[str] = []
        self._markers = [os.open(marker, os.O_WRONLY) for marker in markers]
        self._captures = list(captures)
        self._namings = list(namings) if namings is not None else [PLAIN] * len(self._captures)
        self._snapshot = snapshot
        self._truth: list[TextIO] = []
        self._regions: dict[str, int] = {}
        self._written: set[str] = set()
        self._changes = 0
        #: Seconds by phase, without its truth and snapshot.
        self.seconds: dict[str, float] = {}

    def start(self) -> None:
        """Start the workers; they inherit all that is in memory by now."""
        self.box.cgroup(self.cgroup_name)
        self.box.set("proc/sys/vm/page-cluster", 0)  # readahead would fault in pages that no worker reads
        self.box.folio(self.folio)
        for capture, naming in zip(self._captures, self._namings, strict=True):
            handle = os.open(capture / "truth.csv", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._truth.append(os.fdopen(handle, "w"))
            self._truth[-1].write(_HEADER.format(naming.column))
        cpus = sorted(os.sched_getaffinity(0))
        procs = self.box.root / self.cgroup_name / "cgroup.procs"
        for number in range(self.procs):
            # The scheduler places a single worker; several must run at the same time.
            cpu = cpus[number % len(cpus)] if self.procs > 1 else None
            self.workers.append(Worker(number, self.source, procs, cpu, self._namings))

    def finish(self) -> list[str]:
        """End the remaining workers, put the settings back; return a sentence for each failure."""
        for worker in self.workers:
            worker.end()
        self.workers.clear()
        problems = self.box.restore(self._announce)
        for truth in self._truth:
            truth.close()
        for marker in self._markers:
            os.close(marker)
        self._markers.clear()
        return problems

    # Markers, snapshots and truth.

    def mark(self, text: str) -> None:
        """Write a line into the recording."""
        for marker in self._markers:
            os.write(marker, text.encode())

    def snapshot(self, label: str) -> None:
        """Have the present counters kept."""
        if self._snapshot is not None:
            for capture in self._captures:
                self._snapshot(capture, label, self.box.root / self.cgroup_name)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase: at its end the truth of the regions it used and a snapshot ``after-NAME`` are written."""
        self.mark(f"phase {name}")
        print(f"phase {name}", flush=True)
        self._written.clear()
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began
        self._write_truth(name)
        self.snapshot(f"after-{name}")

    def _write_truth(self, phase: str) -> None:
        if not self._truth:
            return
        for region in sorted(self._written & self._regions.keys()):
            for worker in self.workers:
                base = worker.number * _WORKER_STEP + self._regions[region] * _REGION_STEP
                worker.send("truth", region=region)
                rows = worker.receive()
                for number, truth in enumerate(self._truth):
                    truth.writelines(f"{phase},{base + page},{kind},{names[number]},{swap_type},{offset}\n"
                                     for page, kind, names, swap_type, offset in rows)
        for truth in self._truth:
            truth.flush()

    # Operations of all workers at the same time.

    def _all(self, operation: str, region: str, **arguments: Any) -> list[Any]:
        self._written.add(region)
        for worker in self.workers:
            mine = dict(arguments)
            if "seed" in mine:
                mine["seed"] = f"{self.seed} {mine['seed']} {worker.number}"
            worker.send(operation, region=region, **mine)
        return [worker.receive() for worker in self.workers]

    def _count(self, region: str, results: list[tuple[int, list[int]]]) -> None:
        for worker, (count, bad) in zip(self.workers, results, strict=True):
            self.checked += count
            self._bad += [f"page {number} of region {region}, worker {worker.number}" for number in bad]

    def map(self, region: str, pages: int, mix: str | None, name: str | None = None) -> None:
        """Map a region of ``pages`` pages for each worker and fill it; ``mix`` None leaves it empty."""
        self._regions.setdefault(region, len(self._regions))
        unit = self.folio // PAGE_SIZE
        self._all("map", region, pages=max(pages // unit, 1) * unit, folio=self.folio)
        if mix is not None:
            self.fill(region, mix, name or "first")

    def fill(self, region: str, mix: str, name: str, **where: int) -> None:
        """Write new content; ``name`` makes it another content than the one before."""
        self._all("fill", region, mix=mix, seed=f"{region} {name}", **where)

    def out(self, *regions: str, **where: Any) -> int:
        """Page regions out, whole folios; returns how many of the pages are in swap then.

        A folio that MADV_PAGEOUT is given a part of is split first, and none of it is stored as a large one
        (madvise_cold_or_pageout_pte_range()).
        """
        unit = self.folio // PAGE_SIZE
        if "first" in where:
            where["first"] -= where["first"] % unit
        for name in where.keys() & {"last", "chunk"}:
            where[name] += -where[name] % unit
        return sum(sum(self._all("out", region, **where)) for region in regions)

    def read(self, *regions: str, **where: int) -> None:
        """Refault, and check each page's content."""
        for region in regions:
            self._count(region, self._all("read", region, **where))

    def unmap(self, region: str, **where: int) -> None:
        """Free pages and their swap slots."""
        self._all("unmap", region, **where)

    def fork(self, region: str, mix: str, name: str = "fork") -> None:
        """Have a forked child read, rewrite and page out while it shares the slots."""
        self._count(region, self._all("fork", region, mix=mix, seed=f"{region} {name}"))

    def churn(self, region: str, mix: str, name: str, rounds: int) -> None:
        """Have each worker page out, refault, rewrite and unmap on its own."""
        self._count(region, self._all("churn", region, mix=mix, seed=f"{region} {name}", rounds=rounds))

    def cross(self, region: str) -> None:
        """Page out in one worker while the next reads, then the other way round; a lone worker does one by one."""
        for turn in (0, 1):
            for worker in self.workers:
                if (worker.number + turn) % 2:
                    worker.send("read", region=region)
                else:
                    worker.send("out", region=region, chunk=16)
            for worker in self.workers:
                result = worker.receive()
                if (worker.number + turn) % 2:
                    self.checked += result[0]
                    self._bad += [f"page {number} of region {region}, worker {worker.number}" for number in result[1]]
        self._written.add(region)

    def exit(self) -> None:
        """End the workers, as a phase."""
        with self.phase("exit"):
            for worker in self.workers:
                worker.end()
            self.workers.clear()
            self._regions.clear()
            time.sleep(0.3)  # work that the exit leaves to workqueues

    def verify(self) -> None:
        """Report what was checked, in the recording too: a replay has to know.

        :raises Mismatch: when a page did not hold what it should
        """
        self.mark(f"workload read back {self.checked} pages, {len(self._bad)} differ")
        if self._bad:
            named = "; ".join(self._bad[:_MAX_NAMED])
            more = f" and {len(self._bad) - _MAX_NAMED} more" if len(self._bad) > _MAX_NAMED else ""
            raise Mismatch(f"{len(self._bad)} of {self.checked} pages read back differ from what was written: "
                           f"{named}{more}")

    # Settings.

    def _announce(self, name: str, value: str) -> None:
        """Snapshot, then the marker, then (the caller) the write: so a reader knows the values on both sides."""
        path = Path(name)
        if str(path.parent) == PARAMETERS:
            word = "param"
        elif str(path.parent) == self.cgroup_name:
            word = "cgroup"
        else:
            return
        self._changes += 1
        self.snapshot(f"p{self._changes:02d}-{path.name}")
        self.mark(f"{word} {path.name}={value}")

    def _change(self, name: str, value: str | int) -> None:
        self._announce(name, str(value))
        try:
            self.box.set(name, value)
        except OSError as problem:
            # A kernel may refuse a value, and a scenario may want just that.
            print(f"/{name}={value} was refused ({problem.strerror})", file=sys.stderr, flush=True)

    def param(self, name: str, value: str | int) -> None:
        """Change a module parameter of zswap."""
        self._change(f"{PARAMETERS}/{name}", value)

    def memcg(self, name: str, value: str | int) -> None:
        """Change a file of the workers' cgroup."""
        if self.box.read(f"{self.cgroup_name}/{name}"):
            self._change(f"{self.cgroup_name}/{name}", value)

    def usage(self, name: str) -> int:
        """Return a counter of the workers' cgroup, such as ``memory.current``, in bytes; 0 where there is none."""
        return int(self.box.read(f"{self.cgroup_name}/{name}", "0") or 0)

    def drop_caches(self, what: int = 2) -> None:
        """Run the shrinkers: 2 is slab and with it zsmalloc's compaction, 3 the page cache as well."""
        self.box.write("proc/sys/vm/drop_caches", what)

    def reclaim(self, size: int) -> None:
        """Ask for ``size`` bytes of the workers' cgroup to be reclaimed; the kernel may find less and says so."""
        try:
            self.box.write(f"{self.cgroup_name}/memory.reclaim", size)
        except OSError as problem:
            if problem.errno != errno.EAGAIN:
                raise

    def killed_for_memory(self) -> bool:
        """Return whether the kernel killed a worker because the cgroup's limit could not be kept."""
        found = re.search(r"^oom_kill (\d+)", self.box.read(f"{self.cgroup_name}/memory.events"), re.M)
        return found is not None and int(found[1]) > 0
