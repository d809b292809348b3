# SPDX-License-Identifier: GPL-2.0-or-later
"""The job log of a recording's emulated devices, and which job belongs to which call of the driver."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from replay.iaa.calls import DriverCall
from traces.deviceclock import NO_QUEUE, STRUCT_PAGE, ClockMatch, first_job
from traces.errors import BadInput
from traces.lab.errors import LabError
from traces.lab.iaa.descriptors import Decompress
from traces.lab.iaa.faults import IaaFaultPlan, IaaRule
from traces.lab.iaa.joblog import QUEUE_OFF, QUEUE_ON
from traces.recording import Recording

__all__ = ["LEFT_OUT", "PAGE_SHIFT", "DeviceJob", "JobsByPage", "fault_rules", "has_devices", "read_jobs"]

PAGE_SHIFT: Final = 12
#: The note on a recording that was made of one with devices, without their jobs.
LEFT_OUT: Final = "the job log of the emulated devices was left out: their driver is not checked here"
_COLUMNS: Final = ("n", "device", "queue", "op", "flags", "how", "pfn", "in", "to", "room", "status", "error", "out",
                   "in_flight", "submitted", "ended")
#: Numbers of jobs are of 64 bits.
_WHOLE: Final = 1 << 63
#: Nanoseconds behind a recording's beginning in which jobs may still be of before it.
_BEGINNING: Final = 100_000_000
#: Notes of jobs that left no record: lost by a rule, or on their way when their device stopped.
_NO_RECORD: Final = ("lost", "aborted")
#: A checksum that no other is: a rule of the fault plan changed it, and the log holds none.
_ANOTHER: Final = -1


class DeviceJob(NamedTuple):
    """One descriptor as its device saw it, and the completion record that it wrote.

    ``pfn``: page frame of the source; ``to``: physical address of the destination; ``in_flight``: descriptors of the
    queue that were on their way when it was submitted; ``lost``: no record was written; ``crc``: of the record, None
    where the log does not say; ``bent``: a rule of the fault plan changed that; ``submitted``, ``ended``: nanoseconds
    of the host's clock; ``stops``: with it a rule of the fault plan stopped the device, or it was stopped before the
    job had ended.
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
    bent: bool
    submitted: int
    ended: int
    stops: bool

    @property
    def verifies(self) -> bool:
        """The driver checks a compression with it: its output goes nowhere."""
        return self.op == "decompress" and bool(self.how & Decompress.SUPPRESS_OUTPUT)


def has_devices(recording: Recording) -> bool:
    """True for a recording of a guest with emulated devices."""
    return isinstance(recording.document("iaa"), dict)


def read_jobs(recording: Recording) -> list[DeviceJob]:
    """Return the jobs of all devices, in the order in which they were submitted.

    :raises BadInput: when the table of jobs lacks what the log has
    """
    frame, facts = recording.table("iaa_jobs"), recording.document("iaa") or {}
    log = facts.get("jobs")
    lines, held = log.get("lines") if isinstance(log, dict) else None, 0 if frame is None else len(frame)
    if isinstance(lines, int) and lines != held + len(facts.get("logs", ())):
        raise BadInput(recording.path / "iaa_jobs.parquet", "", f"has {held:,} jobs, and the devices' log had "
                       f"{lines - len(facts.get('logs', ())):,} (iaa.json)", "import the capture again")
    if frame is None or len(frame) == 0:
        return []
    missing = [name for name in _COLUMNS if name not in frame.columns]
    if missing:
        raise BadInput(recording.path / "iaa_jobs.parquet", "", f"has no column '{missing[0]}'",
                       "import the capture again")
    columns = [frame[name].tolist() for name in _COLUMNS]
    more = [frame[name].tolist() if name in frame.columns else [absent] * len(frame)
            for name, absent in (("note", ""), ("crc", 0), ("rule", 0))]
    rules = fault_rules(recording)
    try:
        rows = [_job(row, rules) for row in zip(*columns, *more, strict=True)]
    except (TypeError, ValueError, OverflowError):
        raise BadInput(recording.path / "iaa_jobs.parquet", "", "holds something else than numbers",
                       "import the capture again") from None
    except KeyError as problem:
        raise BadInput(recording.path / "iaa_jobs.parquet", "", f"has a job that rule {problem.args[0]} spoilt, which "
                       "the plan of faults (iaa.json) does not have", "import the capture again") from None
    return sorted(rows, key=lambda job: job.submitted)


def fault_rules(recording: Recording) -> dict[int, IaaRule]:
    """Return the rules of the devices' fault plan by their line's number, as jobs name them; none without a plan.

    :raises BadInput: when a line of the plan is not a rule
    """
    text = (recording.document("iaa") or {}).get("faults") or ""
    try:
        return {rule.line: rule for rule in IaaFaultPlan.parse(text).rules}
    except LabError as problem:
        raise BadInput(recording.path / "iaa.json", "", f"its {problem}", "import the capture again") from None


def _job(row: tuple[Any, ...], rules: dict[int, IaaRule]) -> DeviceJob:
    """Make a job of a row of the table: its columns, then note, crc and rule.

    :raises KeyError: for a rule that is not there
    """
    (n, device, queue), op, numbers, note = row[:3], str(row[3]), [int(value) for value in row[4:16]], row[16]
    flags, how, pfn, size, to, room, status, error, out, in_flight, submitted, ended = numbers
    crc, number = int(row[17]), int(row[18])
    if not all(-_WHOLE <= value < _WHOLE for value in numbers):
        raise OverflowError
    rule = rules[number] if number else None
    bent = rule is not None and rule.wrong_crc
    if not crc and bent:
        crc = _ANOTHER
    stops = note == "aborted" or (rule is not None and (rule.halt is not None or rule.reset))
    return DeviceJob(int(n), int(device), int(queue), op, flags, how, pfn, size, to, room, status, error, out,
                     in_flight, note in _NO_RECORD, crc or None, bent, submitted, ended, stops)


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
        #: when a queue was enabled or disabled, also before the recording
        self.queues = [job for job in jobs if job.op in (QUEUE_ON, QUEUE_OFF)]
        #: jobs that no call asked for, though they lie between those that calls did
        self._extra: list[DeviceJob] = []
        self._latest = 0
        # What found no queue left no job: a workload that repeats itself would fit anywhere.
        made = [(call.ts, self.frame(call.page) + k) for call in calls if call.compress and call.page
                and call.ret not in NO_QUEUE for k in range(call.pages)]
        begin = first_job(made, [(job.submitted, job.pfn) for job in jobs if job.op == "compress"], calls[0].ts)
        #: whether the clocks show which jobs are the recording's
        self.matched = begin is not None
        self._begin, ahead = begin or (0, 0)
        self._clocks = ClockMatch(ahead)
        #: jobs from before the recording
        self.before = sum(job.submitted < self._begin for job in jobs)
        for job in jobs[self.before:]:
            if job.op == "compress":
                self._of["compress", job.pfn].append(job)
            elif job.op == "decompress":
                self._of["verify" if job.verifies else "decompress", job.to >> PAGE_SHIFT].append(job)
            elif job.op not in (QUEUE_ON, QUEUE_OFF):
                self.others += 1

    def frame(self, page: int) -> int:
        """Return a struct page's frame number."""
        return (page - self._vmemmap) // STRUCT_PAGE

    def when(self, ts: int) -> int:
        """Return a time stamp of the recording by the devices' clock."""
        return ts + self._clocks.ahead

    def next(self, kind: str, page: int, call: DriverCall) -> DeviceJob | None:
        """As :meth:`take`, and leave it where it is."""
        queue = self._of.get((kind, self.frame(page)))
        while queue and self._clocks.is_before(queue[0].submitted, call.ts):
            # Of before the recording, if it is near its beginning.
            job = queue.popleft()
            if job.submitted > self._begin + _BEGINNING:
                self._extra.append(job)
        if not queue or (call.over_ts >= 0 and self._clocks.is_behind(queue[0].submitted, call.over_ts)):
            # There is none, or it is of a later call.
            return None
        return queue[0]

    def take(self, kind: str, page: int, call: DriverCall) -> DeviceJob | None:
        """Return a call's next job of a kind (compress, verify, decompress) on a page, None where there is none.

        Jobs that were submitted before it began, or after it was over, are not its own.
        """
        job = self.next(kind, page, call)
        if job is None:
            return None
        self._of[kind, self.frame(page)].popleft()
        self._latest = max(self._latest, job.submitted)
        if kind != "verify":
            self._clocks.take(job.submitted, call.ts)
        return job

    def sums(self) -> bool:
        """True where the log holds checksums of what is compressed."""
        return any(job.crc is not None for (kind, _), queue in self._of.items() if kind == "compress" for job in queue)

    def left(self) -> int:
        """Return how many jobs no call took."""
        return sum(map(len, self._of.values())) + len(self._extra)

    def extra(self) -> list[DeviceJob]:
        """Return the jobs that no call asked for, though calls before and behind them did; in order."""
        left = (job for queue in self._of.values() for job in queue
                if self._begin + _BEGINNING < job.submitted < self._latest)
        return sorted([*self._extra, *left], key=lambda job: job.submitted)
