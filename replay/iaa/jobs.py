# SPDX-License-Identifier: GPL-2.0-or-later
"""The job log of a recording's emulated devices, and which job belongs to which call of the driver."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from replay.iaa.calls import DriverCall
from traces.deviceclock import STRUCT_PAGE, first_job
from traces.errors import BadInput
from traces.recording import Recording

__all__ = ["DeviceJob", "JobsByPage", "has_devices", "read_jobs"]

_PAGE_SHIFT: Final = 12
#: IAA_DECOMP_SUPPRESS_OUTPUT (include/uapi/linux/idxd.h): a decompression that only checks.
SUPPRESS_OUTPUT: Final = 1 << 9
_COLUMNS: Final = ("n", "device", "queue", "op", "flags", "how", "pfn", "in", "to", "room", "status", "error", "out",
                   "in_flight", "submitted")


class DeviceJob(NamedTuple):
    """One descriptor as its device saw it, and the completion record that it wrote.

    ``pfn``: page frame of the source; ``to``: physical address of the destination; ``in_flight``: descriptors of the
    queue that were on their way when it was submitted; ``lost``: no record was written; ``crc``: of the record, None
    where the log does not say; ``submitted``: nanoseconds of the host's clock.
    """

    n: int
    device: int
    queue: int
    op: str
    flags: int
    how: int
    pfn: int
    size: int
    to: int
    room: int
    status: int
    error: int
    out: int
    in_flight: int
    lost: bool
    crc: int | None
    submitted: int

    @property
    def verifies(self) -> bool:
        """The driver checks a compression with it: its output goes nowhere."""
        return self.op == "decompress" and bool(self.how & SUPPRESS_OUTPUT)


def has_devices(recording: Recording) -> bool:
    """True for a recording of a guest with emulated devices."""
    return isinstance(recording.document("iaa"), dict)


def read_jobs(recording: Recording) -> list[DeviceJob]:
    """Return the jobs of all devices, in the order in which they were submitted.

    :raises BadInput: when the table of jobs lacks what the log has
    """
    frame = recording.table("iaa_jobs")
    if frame is None or len(frame) == 0:
        return []
    missing = [name for name in _COLUMNS if name not in frame.columns]
    if missing:
        raise BadInput(recording.path / "iaa_jobs.parquet", "", f"has no column '{missing[0]}'",
                       "import the capture again")
    columns = [frame[name].tolist() for name in _COLUMNS]
    notes = frame["note"].tolist() if "note" in frame.columns else [""] * len(frame)
    crcs = frame["crc"].tolist() if "crc" in frame.columns else [0] * len(frame)
    try:
        rows = sorted(zip(*columns, notes, crcs, strict=True), key=lambda row: int(row[14]))
        return [DeviceJob(int(row[0]), int(row[1]), int(row[2]), str(row[3]), int(row[4]), int(row[5]), int(row[6]),
                          int(row[7]), int(row[8]), int(row[9]), int(row[10]), int(row[11]), int(row[12]),
                          int(row[13]), row[15] == "lost", int(row[16]) or None, int(row[14])) for row in rows]
    except (TypeError, ValueError, OverflowError):
        raise BadInput(recording.path / "iaa_jobs.parquet", "", "holds something else than numbers",
                       "import the capture again") from None


class JobsByPage:
    """The jobs of compressed pages, of checks, and of pages decompressed into, each in order.

    A page is compressed, or filled, by one task at a time: the jobs of one frame come in the order of its calls.

    :param jobs: in the order of their submission; those before the first call are the driver's self tests, or came
        before the recording
    :param vmemmap: from :func:`traces.deviceclock.vmemmap_of`
    :param calls: in the order of their entries
    """

    def __init__(self, jobs: Sequence[DeviceJob], vmemmap: int, calls: Sequence[DriverCall]) -> None:
        self._vmemmap = vmemmap
        self._of: dict[tuple[str, int], deque[DeviceJob]] = defaultdict(deque)
        self.others = 0
        made = [(call.ts, self.frame(call.page)) for call in calls if call.compress and call.page]
        begin = first_job(made, [(job.submitted, job.pfn) for job in jobs if job.op == "compress"], calls[0].ts)
        #: jobs from before the recording
        self.before = 0 if begin is None else sum(job.submitted < begin for job in jobs)
        for job in jobs[self.before:]:
            if job.op == "compress":
                self._of["compress", job.pfn].append(job)
            elif job.op == "decompress":
                self._of["verify" if job.verifies else "decompress", job.to >> _PAGE_SHIFT].append(job)
            else:
                self.others += 1

    def frame(self, page: int) -> int:
        """Return a struct page's frame number."""
        return (page - self._vmemmap) // STRUCT_PAGE

    def next(self, kind: str, page: int) -> DeviceJob | None:
        """As :meth:`take`, and leave it where it is."""
        queue = self._of.get((kind, self.frame(page)))
        return queue[0] if queue else None

    def take(self, kind: str, page: int) -> DeviceJob | None:
        """Return the next job of a kind (compress, verify, decompress) on a page, None where there is none."""
        queue = self._of.get((kind, self.frame(page)))
        return queue.popleft() if queue else None

    def left(self) -> int:
        """Return how many jobs no call took."""
        return sum(map(len, self._of.values()))
