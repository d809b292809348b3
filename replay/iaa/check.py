# SPDX-License-Identifier: GPL-2.0-or-later
"""Check what iaa_crypto did, call by call, with its model and with the job log of the emulated devices.

Each call of zswap's goes through :class:`replay.iaa.driver.PlayedDriver`.  Compared are the queue (``iaa.queue``), the
descriptors (``iaa.submit``), what became of each completion record (``iaa.completion``), the checksums in these
(``iaa.crc``), the calls of the software fallback (``iaa.fallback``), and the driver's statistics at each snapshot
(``iaa.stats``).
"""

from __future__ import annotations

import heapq
import math
import re
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from model.crypto.iaa_posted import IAA_CRYPTO_MAX_BATCH_SIZE
from model.crypto.iaa_stats import WqStats
from model.crypto.layers import POSTINGS
from model.crypto.request import as_int32
from model.errno import EINPROGRESS
from model.page import PAGE_SIZE
from replay.iaa.calls import NEEDED, NEEDED_OF_CHAINS, DriverCall, driver_calls, last_from_before, not_captured
from replay.iaa.changes import QueueChange, queue_changes
from replay.iaa.driver import DriverAnswer, PlayedDriver, driver_line
from replay.iaa.jobs import PAGE_SHIFT, DeviceJob, JobsByPage, has_devices, read_jobs
from replay.iaa.stats import DriverStats, recorded_stats
from replay.reference.checks import DRIVER_CHECKS, Divergence
from replay.reference.state import DriverResult
from traces.chained import chained_pages
from traces.deviceclock import NO_QUEUE, STRUCT_PAGE, vmemmap_of
from traces.lab.iaa.descriptors import Flag
from traces.record.release import kernel_line
from traces.recording import Recording

__all__ = ["DriverRun", "run_driver"]

#: zswap's name of the compressor whose blocks have codes of their own
_DYNAMIC: Final = "deflate-iaa-dynamic"


@dataclass
class DriverRun:
    """What one pass over a recording's calls says of the driver.

    ``results``: error and dlen of each call as the driver's model has them, by the event of its return; of a call that
    returned -EINPROGRESS they are what its interrupt left, which no probe shows, or it is not there.  A call that is
    not there was not followed.  ``stopped``: the first call that was not, -1 for none; ``compared``, ``divergences``,
    ``reasons``: of :data:`replay.reference.checks.DRIVER_CHECKS`, for a replay's tally; ``nothing``: why none of the
    calls was followed; ``notes``: a sentence each.
    """

    results: dict[int, DriverResult] = field(default_factory=dict)
    stopped: int = -1
    compared: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DRIVER_CHECKS, 0))
    divergences: list[Divergence] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    nothing: str = ""
    notes: list[str] = field(default_factory=list)


def run_driver(recording: Recording, layer: str, *, pages: bool = True) -> DriverRun | None:
    """Follow the driver of a recording with its model, and compare; None for a recording without devices.

    :param layer: the crypto layer of the revision: a posting's driver is the posting's, any other the kernel's
    :param pages: compare checksums with the recorded pages
    :raises BadInput: when the job log cannot be read
    """
    if not has_devices(recording):
        return None
    run = _prepared(recording, layer)
    if isinstance(run, str):
        return DriverRun(reasons=dict.fromkeys(DRIVER_CHECKS, run), nothing=run,
                         notes=[f"nothing of the devices' driver is compared: {run}"])
    calls, driver, by_page, ends_at = run
    checksums = _checksums_of(recording) if pages and by_page.sums() else {}
    chained = chained_pages(recording) if any(call.requests > 1 for call in calls) else {}
    return _Check(recording, calls, driver, by_page, ends_at, checksums, chained).run()


def _prepared(recording: Recording,
              layer: str) -> tuple[list[DriverCall], PlayedDriver, JobsByPage, int | None] | str:
    """Return a recording's calls, its driver, its jobs and where its calls end, or why nothing can be followed."""
    config, facts = recording.manifest["config"], recording.document("iaa")
    compressor = str(config.get("compressor"))
    if not compressor.startswith("deflate-iaa") or not isinstance(facts, dict):
        return f"zswap's compressor was {compressor}, not deflate-iaa"
    kernel = recording.manifest["kernel"]
    line = driver_line(kernel_line(kernel), layer)
    if line is None:
        return f"no iaa_crypto of {layer if layer in POSTINGS else kernel.get('release', 'this kernel')} is modelled"
    lacks = not_captured(recording, NEEDED_OF_CHAINS if line == "v8" else NEEDED)
    if lacks:
        return lacks
    jobs, (calls, ends_at) = read_jobs(recording), driver_calls(recording)
    if line == "v8":
        for call in calls:
            if call.compress and call.inside is None:
                # zswap_store_folio() of 14/14.
                call.requests = min(IAA_CRYPTO_MAX_BATCH_SIZE, max(1, call.folio_left))
    # What found no queue left no job.
    vmemmap = vmemmap_of([call.page + k * STRUCT_PAGE for call in calls if call.compress and call.page
                          and call.ret not in NO_QUEUE for k in range(call.pages)],
                         [job.pfn for job in jobs if job.op == "compress"])
    if vmemmap is None:
        return "no compress call of the recording could be matched to a job of the devices"
    by_page = JobsByPage(jobs, vmemmap, calls)
    if not by_page.matched:
        return "which jobs of the devices are the recording's is not known: fewer than half of its calls have one"
    options = facts["options"]
    nodes, sure = _nodes(recording, calls)
    driver = PlayedDriver(line, options["devices"], options["wqs"], options["depth"] // options["wqs"], nodes,
                          options["mode"], bool(options["verify"]), by_page, sure=sure or options["devices"] == 1,
                          dynamic=compressor == _DYNAMIC)
    return calls, driver, by_page, ends_at


def _nodes(recording: Recording, calls: list[DriverCall]) -> tuple[tuple[int, ...], bool]:
    """Return the NUMA node of each CPU, and whether these are known: the driver shares the devices out among them."""
    capture = recording.manifest.get("capture")
    box = capture.get("box") if isinstance(capture, dict) else None
    box = box if isinstance(box, dict) else {}
    online, numa = re.fullmatch(r"0(?:-(\d{1,4}))?", str(box.get("cpus_online"))), box.get("numa")
    seen = 1 + max((call.cpu for call in calls), default=0)
    said = 1 + int(online[1] or 0) if online else 0
    count, known = max(seen, said), said >= seen
    if not isinstance(numa, dict) or numa.get("online", "0") == "0":
        return (0,) * count, known
    lists = numa.get("cpus")
    lists = lists if isinstance(lists, dict) else {}
    node_of = {cpu: int(node) for node, text in lists.items() if str(node).isdecimal() for cpu in _cpulist(str(text))}
    return tuple(node_of.get(cpu, 0) for cpu in range(count)), known and len(node_of) >= count


def _cpulist(text: str) -> Iterator[int]:
    """Yield the CPUs of a list as sysfs writes it, such as ``0-3,8``."""
    for first, last in re.findall(r"(\d{1,4})(?:-(\d{1,4}))?", text):
        yield from range(int(first), int(last or first) + 1)


def _checksums_of(recording: Recording) -> dict[int, int]:
    """Return the CRC-32 of each page whose bytes the recording has, by its references."""
    pages = recording.pages
    if pages is None or not recording.manifest.get("pages", {}).get("with_bytes"):
        return {}
    of_page = {first + k: zlib.crc32(data) for first, block in pages.blocks() for k, data in enumerate(block)
               if data is not None}
    return {ref: of_page[page] for ref, page in enumerate(pages.refs.tolist()) if page in of_page}


class _Check:
    """One recording's calls, one after another."""

    def __init__(self, recording: Recording, calls: list[DriverCall], driver: PlayedDriver, by_page: JobsByPage,
                 ends_at: int | None, checksums: dict[int, int], chained: dict[tuple[int, int], int]) -> None:
        self._recording, self._calls, self._by_page, self._ends_at = recording, calls, by_page, ends_at
        self._driver = driver
        before, changes, self._unfollowed = queue_changes(recording, by_page.queues, by_page.when)
        driver.begin(before)
        self._changes, self._changed = deque(changes), 0
        self._from_before = last_from_before(recording) if changes else -1
        #: (CPU, event of its end) of calls during the change that is first
        self._meeting: list[tuple[int, float]] = []
        #: calls that queues were taken away from or given to meanwhile, and those of them that failed so
        self._met = self._refused = 0
        self._lost = False
        self._out = DriverRun()
        self._compared = self._out.compared
        #: of each page that was handed over, by its reference
        self._crc_of = checksums
        self._chained = chained
        self._moved = self._shared = self._unknown = self._hung = 0
        self._strays = self._raced = 0
        #: a device stopped, as the plan of faults says: what idxd does then is followed up to the first difference,
        #: and what the driver does once that made it turn itself off
        self._stopping = False
        self._stopped: DriverCall | None = None
        #: a call differed: what follows is not compared, as it need not mean anything
        self._differed = False
        #: (event of its end, when its last job was submitted) of calls, the first that ended first
        self._ended: list[tuple[int, int]] = []
        #: when the last job was submitted of the calls that had ended before the one at hand
        self._behind: float = -math.inf
        #: snapshots that were read while a call was under way
        self._busy = 0
        #: the event at which the last of the calls so far had ended
        self._latest: float = -1
        #: the first snapshot with statistics, and what the model had counted then
        self._first: tuple[DriverStats, dict[str, int], dict[tuple[int, int], dict[str, int]]] | None = None

    def run(self) -> DriverRun:
        """Follow the calls, and compare them up to one that differs."""
        snapshots = recorded_stats(self._recording)
        if self._ends_at is not None:
            snapshots = [snapshot for snapshot in snapshots if snapshot.event < self._ends_at]
        self._out.reasons["iaa.crc"] = \
            "the job log has no checksums, or there are no page bytes (record with --pages full)"
        if not self._driver.shows_software:
            self._out.reasons["iaa.fallback"] = "its software is the crypto layer's old interface, which no probe shows"
        self._out.reasons["iaa.stats"] = \
            "no two snapshots with statistics of iaa_crypto could be compared" if snapshots else \
            "the snapshots hold no statistics of iaa_crypto (CONFIG_CRYPTO_DEV_IAA_CRYPTO_STATS)"
        for call in self._calls:
            while snapshots and snapshots[0].event < call.number:
                self._stats(snapshots.pop(0), call)
            if not self._follow(call):
                self._out.stopped = call.number
                break
        else:
            for snapshot in snapshots:
                self._stats(snapshot)
            extra = self._by_page.extra()
            if extra and not self._differed and not self._hung and self._ends_at is None:
                self._differ("iaa.submit", self._calls[-1], f"{len(extra):,} more, the first of them {extra[0].op} on "
                             f"wq{extra[0].device}.{extra[0].queue}", "none", "descriptors that no call asked for")
        self._out.notes = self._notes()
        return self._out

    def _follow(self, call: DriverCall) -> bool:
        """Follow one call; False where the model cannot."""
        self._change_before(call.number)
        if self._by_page.when(call.ts) >= self._unfollowed:
            # The driver has other tables then.
            self._lost = True
            return False
        if call.inside is not None:
            self._stray(call)
            return True
        over = call.done if call.ret == EINPROGRESS else call.end
        self._latest = max(self._latest, over if over >= 0 else math.inf)
        meets = bool(self._changes) and (over < 0 or over > self._changes[0].number)
        if meets:
            self._met += 1
            self._meeting += [(cpu, over if over >= 0 else math.inf) for cpu in {call.cpu, call.end_cpu} - {-1}]
        if call.end < 0:
            self._hung += 1
            self._driver.hung(call)
            return True
        answer = self._driver.run(call, meets)
        if answer.taken:
            self._refused += 1
            return True
        self._stopping = self._stopping or answer.stops
        if not self._differed:
            self._compare(call, answer)
        if answer.fault or answer.ret != call.ret:
            return False
        if self._stopped is not None and answer.dlen is not None and as_int32(answer.dlen) != as_int32(call.dlen):
            # Of a device that stopped this is not known.
            return False
        final = answer.final if answer.dlen is None else (answer.ret, as_int32(answer.dlen))
        if final is not None:
            self._out.results[call.end] = DriverResult(*final, answer.lengths, answer.early, answer.unwritten)
        return True

    def _change_before(self, event: int) -> None:
        """Follow the changes of the driver's queues that had ended, behind the calls that began before that."""
        while self._changes and self._changes[0].end < event:
            self._change(self._changes.popleft())

    def _change(self, change: QueueChange) -> None:
        met = {cpu for cpu, over in self._meeting if over > change.rebalanced}
        # Where a call was made that began before the recording is not known.
        self._driver.change(change, met if change.rebalanced > self._from_before else range(self._driver.cpus))
        self._meeting.clear()
        self._changed += change.took
        if self._first is not None and change.took and change.queue is not None:
            # The driver counts anew for a queue that it is given again.
            for counted in (self._first[0].wqs, self._first[2]):
                counted.pop(change.queue, None)

    def _compare(self, call: DriverCall, answer: DriverAnswer) -> None:
        if answer.fault:
            self._differ("iaa.completion", call, "the call returned", answer.fault,
                         "the model of the driver cannot follow it")
            return
        compared = self._compared
        moved = call.cpu != call.end_cpu
        self._moved += moved
        self._shared += not moved and not call.alone
        for wqs, words, job in answer.submitted:
            compared["iaa.submit"] += 1
            if job is None:
                self._differ("iaa.submit", call, "no descriptor", words.op, "a descriptor of the call")
                continue
            made = (job.op, job.flags, job.how, job.size, job.room)
            if made != tuple(words):
                self._differ("iaa.submit", call, made, tuple(words),
                             "operation, flags, compression flags, source bytes and room of a descriptor")
            if job.op == "decompress" and job.to % PAGE_SIZE:
                self._differ("iaa.submit", call, hex(job.to), hex(job.to - job.to % PAGE_SIZE),
                             "destination of a descriptor: where its page begins")
            if job.op == "decompress" and not job.verifies and call.source >= 0 and job.pfn != call.source:
                self._differ("iaa.submit", call, f"{job.pfn:#x}", f"{call.source:#x}",
                             "source of a descriptor: the page frame that its object lies in")
            if wqs:
                compared["iaa.queue"] += 1
                if (job.device, job.queue) not in {wq.key for wq in wqs}:
                    self._differ("iaa.queue", call, f"wq{job.device}.{job.queue}", " or ".join(map(str, wqs)),
                                 f"work queue that CPU {call.cpu} uses next")
            else:
                self._unknown += call.alone and not answer.met
        jobs = [job for _, _, job in answer.submitted if job is not None]
        pages = [job for job in jobs if job.op == "compress"]
        if any(a.n > b.n if a.device == b.device else a.submitted > b.submitted for a, b in pairwise(pages)):
            self._differ("iaa.submit", call, "another", "page by page", "order of a batch's descriptors")
        self._verified(call, jobs)
        self._checksums(call, jobs)
        self._in_turn(call, jobs)
        self._outcome(call, answer)

    def _verified(self, call: DriverCall, jobs: list[DeviceJob]) -> None:
        """Compare what a check of a compression reads with what that wrote."""
        for made, check in pairwise(jobs):
            if check.verifies and check.pfn != made.to >> PAGE_SHIFT:
                self._differ("iaa.submit", call, hex(check.pfn << PAGE_SHIFT), hex(made.to),
                             "source of the descriptor that checks the compression: what that wrote")

    def _checksums(self, call: DriverCall, jobs: list[DeviceJob]) -> None:
        """Compare the checksums that the log holds with those of the pages; a check reads what it was made of."""
        for job in jobs:
            frame = job.pfn if job.op == "compress" else job.to >> PAGE_SHIFT
            number = frame - self._by_page.frame(call.page)
            due = self._crc_of.get(self._content(call, number)) if call.compress and call.content >= 0 else None
            if due is None or job.crc is None or job.bent or job.flags & Flag.CRC_RFC3720:
                continue
            self._compared["iaa.crc"] += 1
            if job.crc != due:
                self._differ("iaa.crc", call, f"{job.crc:#010x}", f"{due:#010x}",
                             f"checksum in the completion record of a {job.op} descriptor for page {number}")

    def _content(self, call: DriverCall, number: int) -> int:
        """Return the page of a call's job, -1 where it is not known."""
        if call.requests > 1 and number:
            return self._chained.get((call.number, number), -1)
        return call.content + number

    def _in_turn(self, call: DriverCall, jobs: list[DeviceJob]) -> None:
        """Compare when the jobs were submitted with when the calls were made: behind those of each that had ended."""
        while self._ended and self._ended[0][0] < call.number:
            self._behind = max(self._behind, heapq.heappop(self._ended)[1])
        if jobs and jobs[0].submitted < self._behind:
            self._differ("iaa.submit", call, f"{self._behind - jobs[0].submitted:,} ns before", "after",
                         "when the page's descriptor was submitted, and that of a call which had ended before this one")
        over = call.done if call.ret == EINPROGRESS else call.end
        if jobs and over >= 0:
            heapq.heappush(self._ended, (over, jobs[-1].submitted))

    def _outcome(self, call: DriverCall, answer: DriverAnswer) -> None:
        compared = self._compared
        compared["iaa.fallback"] += self._driver.shows_software
        own = [*call.nested, *(one for one in answer.inside if one not in call.nested)]
        if self._driver.shows_software and answer.software != len(own):
            self._differ("iaa.fallback", call, len(own), answer.software, "calls of the software fallback")
        for one in own:
            asked, due = (one.compress, one.size, one.room), (call.compress, call.size, call.room)
            if asked != due:
                self._differ("iaa.fallback", call, asked, due,
                             "whether a call of the software fallback compresses, its source bytes and its room")
        compared["iaa.completion"] += 1
        # The interrupt writes dlen, before the call returns or after.
        recorded = call.ret, None if answer.dlen is None else as_int32(call.dlen)
        predicted = answer.ret, None if answer.dlen is None else as_int32(answer.dlen)
        if recorded != predicted:
            job = answer.submitted[0][2] if answer.submitted else None
            what = "return value and dlen of the call"
            if job is not None:
                what += f", whose completion record has status {job.status:#x} and error {job.error:#x}"
            self._differ("iaa.completion", call, recorded, predicted, what)

    def _stray(self, call: DriverCall) -> None:
        """A call in an interrupt's thread: one of the decompressions before it had a reason to make it."""
        if call.taken or self._differed:
            return
        if not call.inside:
            self._strays += 1
            return
        self._differ("iaa.fallback", call, 1, 0, "calls of the software fallback, after an interrupt")

    def _stats(self, snapshot: DriverStats, following: DriverCall | None = None) -> None:
        """Compare what the driver has counted since the first snapshot with what the model has.

        A call that was under way while the snapshot was read may be in it, or in part.
        """
        if self._differed:
            return
        self._change_before(snapshot.event)
        if self._latest > snapshot.event or (following is not None and following.ts <= snapshot.until):
            self._busy += 1
            return
        stats = self._driver.model.stats
        own = {name: dict(vars(each)) for name, each in stats.wqs.items()}
        if self._first is None:
            self._first = snapshot, dict(stats.counters), own
            return
        before, counters, wqs = self._first
        rows = [(name, value - before.counters.get(name, 0), stats.counters[name] - counters[name])
                for name, value in snapshot.counters.items()]
        if snapshot.wqs:
            rows += [(f"wq{key[0]}.{key[1]} {name}",
                      snapshot.wqs.get(key, {}).get(name, 0) - before.wqs.get(key, {}).get(name, 0),
                      own.get(key, {}).get(name, 0) - wqs.get(key, {}).get(name, 0))
                     for key in sorted({*snapshot.wqs, *own}) for name in vars(WqStats())]
        for name, recorded, predicted in rows:
            if self._driver.races and name.split()[-1] in ("total_comp_bytes_out", "comp_bytes"):
                self._raced += recorded != predicted
                continue
            self._compared["iaa.stats"] += 1
            if recorded != predicted:
                self._out.divergences.append(Divergence("iaa.stats", snapshot.event, "counters", recorded, predicted,
                                                        f"{name} since the first snapshot", snapshot.ts, 0, 0))

    def _differ(self, check: str, call: DriverCall, recorded: Any, predicted: Any, what: str) -> None:
        if self._stopping and not self._driver.turned_off(call):
            self._stopped = self._stopped or call
        elif self._stopped is None:
            name = "crypto_acomp_compress" if call.compress else "crypto_acomp_decompress"
            self._out.divergences.append(Divergence(check, call.number, name, recorded, predicted, what, call.ts,
                                                    call.pid, call.cpu))
        self._differed = True

    def _notes(self) -> list[str]:
        notes = []
        if self._moved:
            notes.append(f"{self._moved:,} calls moved to another CPU: which queue they used is not compared")
        if self._shared:
            notes.append(f"{self._shared:,} calls of the driver met another one on their CPU: which queue each used is "
                         f"not compared")
        if self._unknown:
            notes.append("which devices each CPU has is not known (the recording does not say how many CPUs of which "
                         f"node there are): the queues of {self._unknown:,} descriptors are not compared")
        if self._strays:
            notes.append(f"{self._strays:,} decompressions belong to no page that zswap read: they are not compared")
        if self._hung:
            notes.append(f"{self._hung:,} calls of the driver never returned: what they did is not compared")
        if self._busy:
            notes.append(f"{self._busy:,} snapshots were read while the driver was called: its statistics in them are "
                         f"not compared")
        if self._ends_at is not None:
            notes.append(f"the driver is compared up to event {self._ends_at:,}: there events were lost, or zswap got "
                         "another compressor")
        if self._changed:
            notes.append(f"work queues given to the driver or taken away: {self._changed:,}, all followed; calls that "
                         f"met such a change: {self._met:,}; of these failed so, which is taken from the recording: "
                         f"{self._refused:,}")
        if self._lost:
            notes.append(f"a work queue was taken away or given back behind event {self._out.stopped:,}: which queues "
                         "the driver has then is not followed (the probes on iaa_crypto_remove(), iaa_crypto_probe() "
                         "and their returns, and the devices' log, do not say it together)")
        if self._raced:
            notes.append(f"{self._raced:,} times the bytes that compressions gave are not those that the driver "
                         "counted: its interrupt reads a length which the call may be writing over (not judged)")
        if self._stopped is not None:
            notes.append("a device stopped, as the plan of faults says, which is not followed: nothing of the driver "
                         f"is compared from event {self._stopped.number:,} on")
        left = self._by_page.left() + self._by_page.others if self._out.stopped < 0 and self._ends_at is None else 0
        if left:
            notes.append(f"{left:,} jobs of the devices belong to no recorded call")
        return notes
