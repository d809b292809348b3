# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that the lab's emulated devices were given to compress, and which compress call each belongs to.

A page is compressed by one task at a time, so the jobs of one frame come in the order of its calls.  Those of before
the recording are left out (:mod:`traces.deviceclock`).
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from traces import schema
from traces.block import Block
from traces.chained import LONGEST_CHAIN
from traces.deviceclock import NO_QUEUE, STRUCT_PAGE, ClockMatch, first_job, vmemmap_of
from traces.errors import BadInput
from traces.files import is_regular
from traces.importers.iaafiles import JOBS, PAGES
from traces.importers.pageindex import PageIndex
from traces.pages import PageStoreWriter

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DevicePages", "read_device_pages"]

_COMPRESS: Final = schema.CODE["crypto_acomp_compress"]
_COMPRESS_RET: Final = schema.CODE["crypto_acomp_compress_ret"]
#: events of a call itself, and of those that the driver makes of its software fallback
_INSIDE: Final = [code for name, code in schema.CODE.items() if name.startswith("crypto_acomp_")]
#: Pages of the largest folio: a call names no more.
_MOST_PAGES: Final = 1 << 10
_AGAIN: Final = "copy the capture again"


class DevicePages(PageIndex):
    """The pages of one run.

    :param path: the file of pages
    :param frames: page frames of the jobs' sources, in the order of submission
    :param rows: the row of each in the file, -1 where its page says nothing of its result: a rule of the fault plan
        changed that
    :param times: when each was submitted, by the devices' clock, in nanoseconds
    """

    def __init__(self, path: Path, frames: list[int], rows: list[int], times: list[int]) -> None:
        none = np.zeros(0, np.int64)
        super().__init__(str(path), none, none, [], None, None)
        self._file = path
        self._frames = frames
        self._rows = rows
        self._times = times
        self._of: dict[int, deque[int]] = defaultdict(deque)
        self._vmemmap = 0
        self._clocks: ClockMatch | None = None
        #: rows of the file in the order in which calls took them: the recording's ``refs``
        self._called: list[int] = []
        self._ready = threading.Event()
        #: frame -> jobs that no call named, in order; the row of ``refs`` of a call -> its job
        self._unnamed: dict[int, list[int]] = defaultdict(list)
        self._job_of: dict[int, int] = {}

    why = "the plan of faults changed what the devices reported of them, or the driver did not use a device"

    @property
    def left(self) -> int:
        """None: jobs of before the recording, such as the driver's self tests, belong to no call."""
        return 0

    def attach(self, block: Block, unit_ns: int = 1) -> None:
        """Fill ``content`` of a block's compress calls with the row of ``refs`` of their first page."""
        calls = np.flatnonzero(block.event == _COMPRESS)
        if not calls.size:
            self._log.add(block, calls, calls, calls)
            return
        sizes = block.column("size")[calls].tolist()
        pages = (block.column("folio")[calls].view(np.uint64) & np.uint64(~np.uint64(3))).tolist()
        offsets = block.column("offset")[calls].tolist()
        first = [page + offset // schema.PAGE_SIZE * STRUCT_PAGE for page, offset in zip(pages, offsets, strict=True)]
        stamps = block.ts[calls].tolist()
        overs, rets = _ends(block, calls)
        if self._clocks is None:
            # Where the driver had no queue yet, its calls have no job that shows it.
            self._begin(*([one for one, ret in zip(of, rets, strict=True) if ret not in NO_QUEUE]
                          for of in (first, stamps)))
        found = np.array([self._take(page, min(max(size // schema.PAGE_SIZE, 1), _MOST_PAGES), ts, over)
                          for page, size, ts, over in zip(first, sizes, stamps, overs, strict=True)], np.int64)
        block.put("content", calls[found >= 0], found[found >= 0])
        self.unmatched += int(np.count_nonzero(found < 0))
        self._log.add(block, calls, np.array(first, np.uint64).view(np.int64),
                      np.where(np.array(sizes) == schema.PAGE_SIZE, found, -1))

    def _begin(self, pages: list[int], stamps: list[int]) -> None:
        """Find where vmemmap is, and leave out the jobs of before the recording."""
        vmemmap = vmemmap_of(pages, self._frames) if pages else None
        if vmemmap is None:
            return
        self._vmemmap = vmemmap
        calls = [(ts, self._frame(page)) for page, ts in zip(pages, stamps, strict=True)]
        jobs = list(zip(self._times, self._frames, strict=True))
        begin = first_job(calls, jobs, stamps[0])
        if begin is None:
            # No call is known to have a job.
            return
        self._clocks = ClockMatch(begin[1])
        for job, (submitted, frame) in enumerate(jobs):
            if submitted >= begin[0]:
                self._of[frame].append(job)

    def _frame(self, page: int) -> int:
        return (page - self._vmemmap) // STRUCT_PAGE

    def _take(self, page: int, count: int, ts: int, over: int | None) -> int:
        """Return the row of ``refs`` of a call's first page, -1 where not all its pages are known.

        :param over: when the call was over, None where that is not known
        """
        clocks = self._clocks
        if clocks is None:
            return -1
        frame, jobs = self._frame(page), []
        for place in range(frame, frame + count):
            queue = self._of.get(place)
            while queue and clocks.is_before(self._times[queue[0]], ts):
                self._unnamed[place].append(queue.popleft())
            # A later job is of another call: the driver had no descriptor for this one.
            own = queue and not (over is not None and clocks.is_behind(self._times[queue[0]], over))
            jobs.append(queue.popleft() if queue and own else -1)
        if jobs[0] >= 0:
            clocks.take(self._times[jobs[0]], ts)
        rows = [self._rows[job] if job >= 0 else -1 for job in jobs]
        if min(rows) < 0:
            return -1
        self._called += rows
        self._job_of[len(self._called) - count] = jobs[0]
        return len(self._called) - count

    def chained(self) -> dict[tuple[int, int], int]:
        """As in :class:`PageIndex`: of jobs that no call named, those that were submitted while a call ran, in order.

        The content is -1 where a rule changed the job.
        """
        out: dict[tuple[int, int], int] = {}
        if self._clocks is None:
            return out
        for frame, queue in self._of.items():
            self._unnamed[frame] += queue
            queue.clear()
        unnamed = {frame: deque(jobs) for frame, jobs in self._unnamed.items() if jobs}
        for call in self._log.calls() if unnamed else ():
            last = self._times[self._job_of[call.content]]
            frame = self._frame(call.page & (1 << 64) - 1)
            for number in range(1, LONGEST_CHAIN):
                queue = unnamed.get(frame + number, deque())
                while queue and self._times[queue[0]] < last:
                    queue.popleft()
                if not queue or self._clocks.is_behind(self._times[queue[0]], call.over):
                    break
                job = queue.popleft()
                last = self._times[job]
                if self._rows[job] >= 0:
                    self._called.append(self._rows[job])
                out[call.number, number] = len(self._called) - 1 if self._rows[job] >= 0 else -1
        return out

    def finish(self) -> None:
        """All calls have come: the pages can be stored."""
        self._ready.set()

    def store(self, writer: PageStoreWriter) -> None:
        """Write all pages, in the order of their calls, once :meth:`finish` was called.

        :raises BadInput: when the file is shorter than its jobs say
        """
        self._ready.wait()
        sums: dict[int, str] = {}
        with self._file.open("rb") as file:
            for row in self._called:
                file.seek(row * schema.PAGE_SIZE)
                data = file.read(schema.PAGE_SIZE)
                if len(data) != schema.PAGE_SIZE:
                    raise BadInput(self._file, f"offset {row * schema.PAGE_SIZE}", "ends before the pages of its jobs",
                                   _AGAIN)
                if row not in sums:
                    sums[row] = hashlib.sha1(data).hexdigest()
                writer.add(data, sums[row])


def _ends(block: Block, calls: np.ndarray) -> tuple[list[int | None], list[int | None]]:
    """Return when each call was over, and what it returned; None: not here.

    It was over at the task's next event that is not one of a compressor.
    """
    pids, stamps, returned = block.column("pid").tolist(), block.ts.tolist(), block.column("ret").tolist()
    inside, ends = np.isin(block.event, _INSIDE).tolist(), (block.event == _COMPRESS_RET).tolist()
    is_call = np.zeros(len(pids), bool)
    is_call[calls] = True
    following: dict[int, int] = {}
    rets: dict[int, list[int]] = defaultdict(list)
    found: list[tuple[int | None, int | None]] = []
    for row in range(len(pids) - 1, -1, -1):
        pid = pids[row]
        if is_call[row]:
            # The driver's own calls are inside, so that the last return is the first call's.
            found.append((following.get(pid), rets[pid].pop() if rets[pid] else None))
        elif ends[row]:
            rets[pid].append(returned[row])
        elif not inside[row]:
            following[pid] = stamps[row]
            rets[pid].clear()
    found.reverse()
    return [over for over, _ in found], [ret for _, ret in found]


def read_device_pages(directory: Path, facts: dict[str, Any], jobs: pd.DataFrame) -> DevicePages | None:
    """Return the pages of a capture's devices, None where they kept none.

    :param facts: of ``iaa.json``
    :param jobs: the job log
    :raises BadInput: when the file of pages is not what the lab wrote
    """
    said = facts.get("pages")
    if not isinstance(said, dict) or not {"page", "pfn", "op", "in", "submitted"} <= set(jobs.columns):
        return None
    path = directory / PAGES
    if not is_regular(path):
        raise BadInput(path, "", "is not a regular file", _AGAIN)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})", _AGAIN) from None
    if said.get("sha256") != digest:
        raise BadInput(path, "", "is not what the lab wrote: its digest is not that of iaa.json", _AGAIN)
    kept = path.stat().st_size // schema.PAGE_SIZE
    if any(jobs[name].dtype.kind != "i" for name in ("page", "pfn", "submitted")):
        raise BadInput(directory / JOBS, "", "has something else than whole numbers as page, pfn or submitted", _AGAIN)
    if not jobs["page"].between(0, kept).all():
        raise BadInput(path, "", f"ends before the pages of its jobs: it has {kept:,}", _AGAIN)
    own = jobs[(jobs["op"] == "compress") & (jobs["in"] == schema.PAGE_SIZE)].sort_values("submitted", kind="stable")
    # Pages are numbered from 1; what a rule of the fault plan did to a job does not follow from its page.
    bent = own["rule"] != 0 if "rule" in own.columns else own["page"] < 0
    rows = np.where(bent, 0, own["page"]).astype(np.int64) - 1
    return DevicePages(path, own["pfn"].tolist(), rows.tolist(), own["submitted"].tolist())
