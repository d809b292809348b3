# SPDX-License-Identifier: GPL-2.0-or-later
"""Check what iaa_crypto did, call by call, with its model and with the job log of the emulated devices.

Each call of zswap's goes through :class:`replay.iaa.driver.PlayedDriver`.  Compared are the queue (``iaa.queue``), the
descriptors (``iaa.submit``), what became of each completion record (``iaa.completion``), the calls of the software
fallback (``iaa.fallback``), and the driver's statistics at each snapshot (``iaa.stats``).
"""

from __future__ import annotations

from typing import Any

from replay.iaa.calls import DriverCall, driver_calls
from replay.iaa.driver import DriverAnswer, PlayedDriver, driver_line
from replay.iaa.jobs import JobsByPage, read_jobs
from replay.iaa.stats import DriverStats, recorded_stats
from replay.reference.checks import DRIVER_CHECKS, Divergence, Tally
from traces.deviceclock import vmemmap_of
from traces.record.release import kernel_line
from traces.recording import Recording

__all__ = ["check_driver", "driver_results"]


def check_driver(recording: Recording, tally: Tally) -> list[str]:
    """Check the driver of a recording; comparisons and differences go to the tally.

    :returns: notes, a sentence each
    :raises BadInput: when the job log cannot be read
    """
    for check in DRIVER_CHECKS:
        tally.compared.setdefault(check, 0)
    tally.reasons["iaa.stats"] = "the snapshots hold no statistics of iaa_crypto (CONFIG_CRYPTO_DEV_IAA_CRYPTO_STATS)"
    run = _run_of(recording)
    if isinstance(run, str):
        tally.reasons.update(dict.fromkeys(DRIVER_CHECKS, run))
        return []
    return _Check(recording, tally, *run).run()


def driver_results(recording: Recording) -> dict[int, tuple[int, int]]:
    """Return the error and the dlen of each call, as the driver's model has them, by the event of its return.

    Of a call that returned -EINPROGRESS they are what its interrupt left, which no probe shows.  Up to the first call
    that the driver's model does not follow.

    :raises BadInput: when the job log cannot be read
    """
    run = _run_of(recording)
    if isinstance(run, str):
        return {}
    calls, driver, _ = run
    found: dict[int, tuple[int, int]] = {}
    for call in calls:
        answer = driver.run(call)
        if answer.fault or answer.ret != call.ret:
            break
        final = answer.final if answer.dlen is None else (answer.ret, answer.dlen)
        if final is not None:
            found[call.end] = final
    return found


def _run_of(recording: Recording) -> tuple[list[DriverCall], PlayedDriver, JobsByPage] | str:
    """Return a recording's calls, its driver and its jobs, or why its driver cannot be checked."""
    config, facts = recording.manifest["config"], recording.document("iaa")
    if config.get("compressor") != "deflate-iaa" or not isinstance(facts, dict):
        return f"zswap's compressor was {config.get('compressor')}, not deflate-iaa"
    kernel = recording.manifest["kernel"]
    line = driver_line(kernel_line(kernel))
    if line is None:
        return f"no iaa_crypto of {kernel.get('release', 'this kernel')} is modelled"
    jobs, calls = read_jobs(recording), list(driver_calls(recording))
    vmemmap = vmemmap_of([call.page for call in calls if call.compress and call.page],
                         [job.pfn for job in jobs if job.op == "compress"])
    if vmemmap is None:
        return "no compress call of the recording could be matched to a job of the devices"
    by_page = JobsByPage(jobs, vmemmap, calls)
    options = facts["options"]
    cpus = 1 + max((call.cpu for call in calls), default=0)
    driver = PlayedDriver(line, options["devices"], options["wqs"], (0,) * cpus, options["mode"],
                          bool(options["verify"]), by_page)
    return calls, driver, by_page


class _Check:
    """One recording's calls, one after another."""

    def __init__(self, recording: Recording, tally: Tally, calls: list[DriverCall], driver: PlayedDriver,
                 by_page: JobsByPage) -> None:
        self._recording, self._tally, self._calls, self._by_page = recording, tally, calls, by_page
        self._driver = driver
        self._migrated = 0
        #: jobs that no call took, known at the end
        self._left = 0
        self._differed = False
        #: the first snapshot with statistics, and what the model had counted then
        self._first: tuple[DriverStats, dict[str, int], dict[tuple[int, int], dict[str, int]]] | None = None

    def run(self) -> list[str]:
        """Check all calls, up to one that differs: what follows it need not mean anything.

        :returns: notes
        """
        self._run()
        return self._notes()

    def _run(self) -> None:
        snapshots = recorded_stats(self._recording)
        for call in self._calls:
            while snapshots and snapshots[0].event < call.number:
                self._stats(snapshots.pop(0))
            answer = self._driver.run(call)
            if answer.fault:
                self._differ("iaa.completion", call, "the call returned", answer.fault,
                             "the model of the driver cannot follow it")
                return
            self._compare(call, answer)
            if self._differed:
                return
        for snapshot in snapshots:
            self._stats(snapshot)
        self._left = self._by_page.left()

    def _compare(self, call: DriverCall, answer: DriverAnswer) -> None:
        compared = self._tally.compared
        moved = call.cpu != call.end_cpu
        self._migrated += moved
        for wq, words, job in answer.submitted:
            compared["iaa.submit"] += 1
            if job is None:
                self._differ("iaa.submit", call, "no descriptor", words.op, "a descriptor of the call")
                continue
            made = (job.op, job.flags, job.how, job.size, job.room)
            if made != tuple(words):
                self._differ("iaa.submit", call, made, tuple(words),
                             "operation, flags, compression flags, source bytes and room of a descriptor")
            if wq is not None and not moved:
                compared["iaa.queue"] += 1
                if wq.key != (job.device, job.queue):
                    self._differ("iaa.queue", call, f"wq{job.device}.{job.queue}", str(wq),
                                 f"work queue that CPU {call.cpu} uses next")
        self._outcome(call, answer)

    def _outcome(self, call: DriverCall, answer: DriverAnswer) -> None:
        compared = self._tally.compared
        compared["iaa.fallback"] += self._driver.shows_software
        if self._driver.shows_software and answer.software != len(call.nested):
            self._differ("iaa.fallback", call, len(call.nested), answer.software, "calls of the software fallback")
        compared["iaa.completion"] += 1
        # The interrupt writes dlen, before the call returns or after.
        recorded, predicted = (call.ret, None if answer.dlen is None else call.dlen), (answer.ret, answer.dlen)
        if recorded != predicted:
            job = answer.submitted[0][2] if answer.submitted else None
            what = "return value and dlen of the call"
            if job is not None:
                what += f", whose completion record has status {job.status:#x} and error {job.error:#x}"
            self._differ("iaa.completion", call, recorded, predicted, what)

    def _stats(self, snapshot: DriverStats) -> None:
        """Compare what the driver has counted since the first snapshot with what the model has."""
        stats = self._driver.model.stats
        own = {name: dict(vars(each)) for name, each in stats.wqs.items()}
        if self._first is None:
            self._first = snapshot, dict(stats.counters), own
            return
        before, counters, wqs = self._first
        rows = [(name, value - before.counters.get(name, 0), stats.counters[name] - counters[name])
                for name, value in snapshot.counters.items()]
        rows += [(f"wq{key[0]}.{key[1]} {name}", value - before.wqs.get(key, {}).get(name, 0),
                  own.get(key, {}).get(name, 0) - wqs.get(key, {}).get(name, 0))
                 for key, values in snapshot.wqs.items() for name, value in values.items()]
        for name, recorded, predicted in rows:
            self._tally.compared["iaa.stats"] += 1
            if recorded != predicted and self._tally.wanted("iaa.stats"):
                self._tally.differ(Divergence("iaa.stats", snapshot.event, "counters", recorded, predicted,
                                              f"{name} since the first snapshot", snapshot.ts, 0, 0))

    def _differ(self, check: str, call: DriverCall, recorded: Any, predicted: Any, what: str) -> None:
        self._differed = True
        name = "crypto_acomp_compress" if call.compress else "crypto_acomp_decompress"
        if self._tally.wanted(check):
            self._tally.differ(Divergence(check, call.number, name, recorded, predicted, what, call.ts, call.pid,
                                          call.cpu))

    def _notes(self) -> list[str]:
        notes = []
        if self._migrated:
            notes.append(f"{self._migrated:,} calls moved to another CPU: which queue they used is not compared")
        if self._left:
            notes.append(f"{self._left:,} jobs of the devices belong to no recorded call")
        return notes
