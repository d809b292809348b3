# SPDX-License-Identifier: GPL-2.0-or-later
"""replay.iaa: calls of the iaa_crypto driver, checked with the job log of its emulated devices."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model.crypto.iaa_stats import GLOBAL_STATS
from replay.iaa.calls import COLUMNS, NEEDED
from replay.iaa.check import run_driver
from replay.iaa.stats import recorded_stats
from replay.reference.checks import DRIVER_CHECKS, Tally
from replay.verdict.findings import driver_notes
from traces import schema
from traces.deviceclock import vmemmap_of
from traces.errors import BadInput

VMEMMAP = 0xFFFFEA0000000000
COMP, DECOMP = "crypto_acomp_compress", "crypto_acomp_decompress"
#: Nanoseconds between events; what the devices' clock is ahead, with half of that between a call and its job.
STEP, AHEAD = 100_000_000, 10**15
COMP_FLAGS, DECOMP_FLAGS, IRQ = 0x1010C, 0x10C, 0x10


class Run:
    """A recording in memory: what two CPUs did with two devices of two queues each."""

    def __init__(self, release: str = "7.3.4", mode: str = "sync", verify: int = 0, devices: int = 2, wqs: int = 2) -> None:
        self.options = {"devices": devices, "wqs": wqs, "depth": 128, "mode": mode, "verify": verify}
        self.events: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.stats: dict[int, dict[str, Any]] = {}
        self.release = release
        self.box: dict[str, Any] = {"cpus_online": "0-1", "numa": {"online": "0"}}
        self.faults = ""
        self.layer = "7.3"
        #: bytes of pages, by their reference
        self.pages: Any = None
        self.probes = {kind.name: {"columns": list(kind.columns)} for kind in schema.EVENTS}
        self.lines: int | None = None
        self.turn: dict[int, int] = {}

    def event(self, name: str, pid: int, cpu: int, **columns: int) -> None:
        row = dict.fromkeys(COLUMNS, 0) | {"content": -1, "event": schema.CODE[name], "pid": pid, "cpu": cpu, "ts": STEP * len(self.events)}
        self.events.append(row | columns)

    def job(self, op: str, cpu: int, pfn: int, size: int, room: int, out: int, *, to: int = 0, status: int = 1,
            error: int = 0, how: int | None = None, same: bool = False, **more: Any) -> dict[str, Any]:
        """Submit a job where the CPU's turn is; ``same``: on the queue of the job before."""
        if not same:
            self.turn[cpu] = (self.turn.get(cpu, 0) + 1) % self.options["wqs"]
        flags = COMP_FLAGS if op == "compress" else DECOMP_FLAGS
        if self.options["mode"] == "async_irq" and not same:
            flags |= IRQ
        row = {"n": len(self.jobs), "device": cpu % self.options["devices"], "queue": self.turn[cpu], "op": op, "flags": flags,
               "how": how if how is not None else 6 if op == "compress" else 15, "pfn": pfn, "in": size, "to": to,
               "room": room, "status": status, "error": error, "out": out, "in_flight": 0,
               "submitted": AHEAD + STEP * len(self.events) - STEP // 2 + len(self.jobs), "note": ""} | more
        row.setdefault("ended", row["submitted"])
        self.jobs.append(row)
        return row

    def compress(self, pfn: int, length: int, *, cpu: int = 0, pid: int = 1, ret: int = 0, dlen: int | None = None,
                 **fault: Any) -> dict[str, Any]:
        """zswap compresses a page; without a fault the call returns what the device gave."""
        self.event(COMP, pid, cpu, folio=VMEMMAP + 64 * pfn, size=4096, dlen=4096)
        job = self.job("compress", cpu, pfn, 4096, 4096, length, **fault)
        if self.options["verify"] and job["status"] == 1 and not job["note"]:
            self.job("decompress", cpu, job["to"] >> 12, length, 4096, 4096, to=pfn << 12, how=0x20F, same=True)
        irq = self.options["mode"] == "async_irq"
        self.event(COMP + "_ret", pid, cpu, ret=-115 if irq else ret, dlen=length if dlen is None else dlen)
        return job

    def decompress(self, pfn: int, length: int, *, cpu: int = 0, pid: int = 1, ret: int = 0, handle: int = 1,
                   software: Sequence[tuple[int, int]] = (), device: bool = True, **fault: Any) -> None:
        """zswap reads an object into a page; ``software``: (ret, dlen) of the driver's own calls."""
        self.event("zswap_decompress", pid, cpu, folio=VMEMMAP + 64 * pfn, handle=handle, size=length)
        self.event(DECOMP, pid, cpu, size=length, dlen=4096)
        if device:
            self.job("decompress", cpu, 77, length, 4096, 4096 if fault.get("status", 1) == 1 else 0, to=pfn << 12, **fault)
        for err, dlen in software:
            self.event(DECOMP, pid, cpu, size=length, dlen=4096)
            self.event(DECOMP + "_ret", pid, cpu, ret=err, dlen=dlen)
        self.event(DECOMP + "_ret", pid, cpu, ret=-115 if self.options["mode"] == "async_irq" and device else ret,
                   dlen=4096)

    def counters(self, **values: int) -> None:
        """A snapshot with statistics of the driver."""
        number = len(self.stats)
        self.event("counters", 0, 0, ret=number)
        lines = [f"  {name}: {values.get(name, 0)}" for name in GLOBAL_STATS]
        self.stats[number] = {"iaa_crypto": {"global_stats": "\n".join(["global stats:", *lines, ""]), "wq_stats": ""}}

    def recording(self) -> Any:
        frame = pd.DataFrame(self.jobs)

        def batches(columns: Sequence[str], start: int = 0) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
            yield 0, {name: np.array([row[name] for row in self.events], np.uint64 if name in ("folio", "handle", "obj")
                                     else np.int64) for name in columns if name in COLUMNS} | (
                {"word": np.zeros(len(self.events), np.int64)} if "word" in columns else {}) | (
                {"text": np.array([row.get("text", "") for row in self.events], object)} if "text" in columns else {})

        return SimpleNamespace(
            path=Path("r.zr"), manifest={"config": {"compressor": "deflate-iaa", "chain_size": 8}, "probes": self.probes,
                                         "pages": {"with_bytes": self.pages is not None}, "capture": {"box": self.box},
                                         "kernel": {"release": self.release, "version": self.release}},
            document=lambda name: {"options": self.options, "faults": self.faults, "logs": [{}],
                                   "jobs": {"lines": self.lines}} if name == "iaa" else None,
            table=lambda name: frame if name == "iaa_jobs" else None, batches=batches, pages=self.pages, texts=lambda: {row.get("text", "") for row in self.events} - {""},
            snapshots=list(self.stats), snapshot=lambda number: self.stats[number])

    def check(self, tally: Tally | None = None) -> tuple[Tally, list[str]]:
        recording, tally = self.recording(), tally or Tally()
        run = run_driver(recording, self.layer)
        assert run is not None
        tally.add(run.compared, run.divergences, run.reasons)
        return tally, driver_notes(run, recording, tally)


def test_a_page_that_was_compressed_before_the_recording_too_is_told_by_its_time() -> None:
    run = Run()
    for pfn in (100, 101, 107):
        run.job("compress", 0, pfn, 4096, 4096, 800)
    run.job("decompress", 0, 77, 800, 4096, 4096, to=200 << 12)
    run.turn.clear()
    assert differs(whole(run)) == {}


def test_a_recording_may_begin_with_a_decompression() -> None:
    run = Run()
    run.decompress(250, 700)
    assert differs(whole(run)) == {}


def whole(run: Run) -> Run:
    """Some calls on two CPUs, and two that the device refuses."""
    for k in range(12):
        run.compress(100 + k, 900 + k, cpu=k % 2, pid=1 + k % 2)
    run.compress(150, 0, ret=-7, dlen=4096, status=0x0A, error=0x19)
    for k in range(8):
        run.decompress(200 + k, 900 + k, cpu=k % 2, pid=1 + k % 2)
    return run


def differs(run: Run) -> dict[str, int]:
    return run.check()[0].different


@pytest.mark.parametrize("mode", ["sync", "async", "async_irq"])
@pytest.mark.parametrize("verify", [0, 1])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_driver_that_does_as_it_should_has_no_difference(mode: str, verify: int, devices: int) -> None:
    run = whole(Run(mode=mode, verify=verify, devices=devices))
    tally, notes = run.check()
    assert (tally.different, notes) == ({}, [])
    assert tally.compared["iaa.completion"] == tally.compared["iaa.fallback"] == 21
    # Of each CPU's first call the queue shows where it stands; only from then on is it predicted.
    assert tally.compared["iaa.submit"] == tally.compared["iaa.queue"] == len(run.jobs)


def test_what_was_done_before_the_recording_is_not_compared() -> None:
    run = Run()
    run.job("compress", 0, 5, 70, 512, 38)
    run.job("decompress", 0, 6, 38, 512, 70, to=200 << 12)
    assert differs(whole(run)) == {}


@pytest.mark.parametrize(("column", "value", "check"), [
    ("queue", 7, "iaa.queue"), ("device", 5, "iaa.queue"), ("flags", 0x1011C, "iaa.submit"), ("how", 7, "iaa.submit"),
    ("in", 4095, "iaa.submit"), ("room", 4095, "iaa.submit"), ("out", 901, "iaa.completion"),
    ("status", 0x0B, "iaa.completion"), ("op", "memmove", "iaa.submit")])
def test_a_job_that_is_another_is_a_difference(column: str, value: Any, check: str) -> None:
    run = whole(Run())
    run.jobs[4][column] = value
    assert check in differs(run)


def test_a_call_that_returns_something_else_is_a_difference() -> None:
    for column, value in (("ret", -22), ("dlen", 1)):
        run = whole(Run())
        run.events[5][column] = value
        assert run.events[5]["event"] == schema.CODE[COMP + "_ret"]
        assert differs(run) == {"iaa.completion": 1}


def test_the_device_s_analytics_error_is_answered_by_software() -> None:
    run = whole(Run())
    run.decompress(300, 700, software=[(0, 4096)], status=0x0A, error=0x05)
    run.decompress(301, 700)
    tally, _ = run.check()
    assert tally.different == {}
    # The same without the driver's call of the software: it must have been made.
    run = whole(Run())
    run.decompress(300, 700, status=0x0A, error=0x05)
    assert "iaa.fallback" in differs(run)


def test_other_errors_are_the_caller_s() -> None:
    run = whole(Run())
    run.decompress(300, 700, status=0x0B, ret=-75)
    run.decompress(301, 700, status=0x04, ret=-22)
    run.decompress(302, 700, status=0x24, ret=-110)
    # dlen stays what was asked for.
    assert differs(run) == {}


def test_a_lost_completion_turns_the_driver_off() -> None:
    run = whole(Run())
    run.compress(160, 0, ret=-110, dlen=4096, status=0, note="lost")
    run.decompress(201, 901, device=False, ret=-19)
    assert differs(run) == {}
    # A driver that still used its device would be another one.
    run = whole(Run())
    run.compress(160, 0, ret=-110, dlen=4096, status=0, note="lost")
    run.decompress(201, 901)
    assert "iaa.completion" in differs(run)


def test_a_source_of_two_entries_is_copied_in_7_3_and_goes_to_software_in_7_2() -> None:
    def spanning(release: str, **how: Any) -> Run:
        run = whole(Run(release))
        # Object 1 of the class of 3,264 bytes and more spans its zspage's first two pages.
        run.event("obj_malloc_ret", 1, 0, handle=9, obj=1)
        run.decompress(300, 3000, handle=9, **how)
        return run

    assert differs(spanning("7.3.4")) == {}
    assert differs(spanning("7.2.13", device=False, software=[(0, 4096)])) == {}
    assert differs(spanning("7.2.13")) != {}
    assert differs(spanning("7.3.4", device=False, software=[(0, 4096)])) != {}


def test_statistics_are_those_of_the_calls() -> None:
    def counted(**more: int) -> Run:
        run = Run()
        run.counters(total_comp_calls=3, total_comp_bytes_out=111)
        run.compress(100, 900)
        run.compress(101, 0, ret=-7, dlen=4096, status=0x0A, error=0x19)
        run.decompress(200, 900)
        run.counters(**{"total_comp_calls": 5, "total_comp_bytes_out": 1011, "total_decomp_calls": 1,
                        "total_decomp_bytes_in": 900, "total_completion_comp_buf_overflow_errors": 1, **more})
        return run

    tally, _ = counted().check()
    assert tally.different == {}
    assert tally.compared["iaa.stats"] == len(GLOBAL_STATS)
    assert differs(counted(total_comp_calls=6)) == {"iaa.stats": 1}
    assert [row.event for row in recorded_stats(counted().recording())] == [0, 8]


def test_a_cpu_that_never_uses_its_own_device_is_a_difference() -> None:
    for column, value in (("device", 0), ("queue", 7)):
        run = whole(Run())
        for job in run.jobs:
            if job["device"] == 1:
                job[column] = value
        assert differs(run) == {"iaa.queue": 1}
    # Which device a CPU has follows from how many CPUs there are.
    for box in ({}, {"cpus_online": "0-1", "numa": {"online": "0-1"}}):
        run = whole(Run())
        run.box = box
        for job in run.jobs:
            job["device"] = 0
        tally, notes = run.check()
        assert tally.different == {}
        assert "which devices each CPU has is not known" in notes[0]
        assert "the queues of 21 descriptors" in notes[0]


def test_cpus_of_two_nodes_share_the_devices_by_node() -> None:
    """Two devices, four CPUs: those of node 0 have the first, whatever their numbers are."""
    run = Run()
    run.box = {"cpus_online": "0-3", "numa": {"online": "0-1", "cpus": {"0": "0,2", "1": "1,3"}}}
    for k in range(12):
        run.compress(100 + k, 900, cpu=k % 4, pid=k % 4)
    tally, notes = run.check()
    assert (tally.different, notes, tally.compared["iaa.queue"]) == ({}, [], 12)
    run.box["numa"]["cpus"] = {"0": "0-1", "1": "2-3"}
    assert differs(run) == {"iaa.queue": 1}


def test_four_cpus_of_which_two_called_share_two_devices() -> None:
    run = whole(Run())
    run.box["cpus_online"] = "0-3"
    assert differs(run) == {"iaa.queue": 1}
    for job in run.jobs:
        job["device"] = 0
    assert differs(run) == {}


def begun(run: Run, pfn: int, pid: int, cpu: int) -> None:
    run.event(COMP, pid, cpu, folio=VMEMMAP + 64 * pfn, size=4096, dlen=4096)


def returned(run: Run, pid: int, cpu: int, **outcome: int) -> None:
    run.event(COMP + "_ret", pid, cpu, **outcome)


def test_calls_that_met_on_their_cpu_had_their_turns_in_any_order() -> None:
    run = whole(Run())
    begun(run, 300, 1, 0)
    run.compress(301, 700, pid=5)
    run.job("compress", 0, 300, 4096, 4096, 600)
    returned(run, 1, 0, dlen=600)
    run.compress(302, 500)
    tally, notes = run.check()
    assert tally.different == {}
    assert notes == ["2 calls of the driver met another one on their CPU: which queue each used is not compared"]
    # Behind them the CPU is where two more turns brought it.
    run.jobs[-1]["queue"] ^= 1
    assert differs(run) == {"iaa.queue": 1}


def test_a_call_that_never_returned_had_its_turn() -> None:
    run = whole(Run())
    begun(run, 300, 1, 0)
    run.job("compress", 0, 300, 4096, 4096, 700)
    for k in range(4):
        run.compress(310 + k, 700, pid=5)
    assert differs(run) == {}
    assert run.check()[1] == ["1 calls of the driver never returned: what they did is not compared"]


def test_a_call_that_began_while_the_driver_turned_itself_off_may_have_been_let_through() -> None:
    for outcome in ({"ret": -19, "dlen": 4096}, {"dlen": 600}):
        run = whole(Run())
        begun(run, 300, 1, 0)
        run.job("compress", 0, 300, 4096, 4096, 0, status=0, note="lost")
        begun(run, 301, 2, 1)
        if "ret" not in outcome:
            run.job("compress", 1, 301, 4096, 4096, 600)
        returned(run, 2, 1, **outcome)
        returned(run, 1, 0, ret=-110, dlen=4096)
        assert differs(run) == {}
        # One that began behind is not.
        run.compress(302, 700, cpu=1, pid=2)
        assert differs(run)


def test_an_interrupt_that_never_comes_turns_nothing_off() -> None:
    run = whole(Run(mode="async_irq"))
    run.compress(160, 0, status=0, note="lost")
    run.compress(161, 900, cpu=1, pid=2)
    assert differs(run) == {}
    # Its check of a compression is polled, and does.
    run = whole(Run(mode="async_irq", verify=1))
    run.compress(160, 800)
    run.jobs[-1].update(status=0, note="lost")
    run.decompress(161, 900, device=False, ret=-19)
    assert differs(run) == {}


def test_a_job_that_ended_too_late_is_one_that_never_did() -> None:
    run = whole(Run())
    run.compress(160, 900, ret=-110, dlen=4096)
    run.jobs[-1]["ended"] += 50_000_000
    assert differs(run) == {}
    run.decompress(161, 900, device=False, ret=-19)
    assert differs(run) == {}
    # Nothing turns the driver off that was there at once.
    run.jobs[-1]["ended"] = run.jobs[-1]["submitted"]
    assert differs(run) == {"iaa.completion": 1}


def interrupted(*fallbacks: int) -> Run:
    """Two decompressions of one size are under way; the device refuses the second, and there are calls of software."""
    run = whole(Run(mode="async_irq"))
    for cpu, pfn, status in ((0, 400, 1), (1, 401, 10)):
        run.decompress(pfn, 777, cpu=cpu, pid=1 + cpu, status=status, error=5)
    for size in fallbacks:
        run.event(DECOMP, 99, 0, size=size, dlen=4096)
        run.event(DECOMP + "_ret", 99, 0, dlen=4096)
    return run


def test_the_software_that_an_interrupt_calls_is_of_the_one_that_needs_it() -> None:
    assert differs(interrupted(777)) == {}
    assert differs(interrupted()) == {"iaa.fallback": 1}
    assert differs(interrupted(777, 777)) == {"iaa.fallback": 1}
    assert interrupted(777, 778).check()[1] == ["1 decompressions belong to no page that zswap read: they are not compared"]


@pytest.mark.parametrize(("column", "value"), [("size", 100), ("dlen", 2048)])
def test_software_gets_what_the_driver_was_given(column: str, value: int) -> None:
    run = whole(Run())
    run.decompress(300, 700, software=[(0, 4096)], status=0x0A, error=0x05)
    run.events[-3][column] = value
    assert differs(run) == {"iaa.fallback": 1}


@pytest.mark.parametrize("before", ["", "# page\x0bfaults\n", "\r\n\n", "every=3: late=1ms # crc=wrong\n"])
def test_a_wrong_checksum_counts_even_where_the_log_has_none(before: str) -> None:
    def checked(ret: int, line: int) -> Run:
        run = whole(Run(verify=1))
        run.faults = before + "operation=compress every=9: crc=wrong"
        run.compress(500, 900, ret=ret)
        for job in run.jobs:
            job["rule"] = 0
        run.jobs[-2]["rule"] = line
        return run

    # The device numbers lines as an editor does.
    line = 1 + before.count("\n")
    assert differs(checked(-22, line)) == {}
    assert differs(checked(0, line)) == {"iaa.completion": 1}
    with pytest.raises(BadInput, match=f"has a job that rule {line + 1} spoilt, which the plan of faults"):
        differs(checked(-22, line + 1))


def test_a_plan_that_is_none_is_said() -> None:
    run = whole(Run())
    run.faults = "every=3: late=1ms\nevery=4: early"
    with pytest.raises(BadInput, match=r"iaa\.json: its fault plan, line 2: 'early' is not a word right of the colon"):
        differs(run)


@pytest.mark.parametrize("rule", ["nth=30: halt=software", "nth=30: reset", "nth=30:reset"])
def test_behind_a_device_that_stopped_nothing_is_a_difference(rule: str) -> None:
    run = whole(Run())
    run.faults = rule
    run.compress(500, 0, ret=-110, dlen=4096, status=0, note="aborted")
    # So far the driver is off, as after any record that never came.
    run.decompress(501, 700, device=False, ret=-19)
    assert run.check()[1] == []
    assert differs(run) == {}
    # It stays so.
    run.decompress(502, 700, device=False, ret=-5)
    assert differs(run) == {"iaa.completion": 1}
    # Until then idxd may refuse, reset the device, and use it again.
    run = whole(Run())
    run.faults = rule
    begun(run, 500, 1, 0)
    run.job("compress", 0, 500, 4096, 4096, 0, status=0, note="aborted")
    begun(run, 501, 2, 1)
    returned(run, 2, 1, ret=-5, dlen=4096)
    returned(run, 1, 0, ret=-110, dlen=4096)
    for job in run.jobs:
        job["rule"] = 0
    for note, number in (("aborted", 0), ("lost", 1)):
        run.jobs[-1].update(note=note, rule=number)
        tally, notes = run.check()
        assert tally.different == {}
        assert notes == [f"a device stopped, as the plan of faults says, which is not followed: nothing of the driver is "
                         f"compared from event {len(run.events) - 3} on",
                         f"what the driver does from event {len(run.events) - 3} on is not followed: zswap's results of "
                         "those calls are not judged"]
    # A record that a rule lost does not excuse that alone.
    run.faults = "nth=30: lost"
    assert differs(run)


@pytest.mark.parametrize("mode", ["sync", "async_irq"])
def test_two_calls_that_got_each_other_s_page_are_a_difference(mode: str) -> None:
    run = Run(devices=1, wqs=1, mode=mode)
    for k in range(6):
        run.compress(100 + k, 900)
        run.event("zs_malloc", 1, 0)
    assert differs(run) == {}
    run.jobs[3]["pfn"], run.jobs[4]["pfn"] = run.jobs[4]["pfn"], run.jobs[3]["pfn"]
    assert differs(run)["iaa.submit"] == 1


@pytest.mark.parametrize(("event", "column", "said"), [
    (event, column, f"{event} has no {column}") for event, columns in NEEDED.items() for column in columns]
    + [(event, "", f"{event} was not probed") for event in NEEDED])
def test_without_what_shows_a_call_nothing_is_compared(event: str, column: str, said: str) -> None:
    run = whole(Run())
    if column:
        run.probes[event]["columns"].remove(column)
    else:
        del run.probes[event]
    run.jobs[3]["room"] = 4095
    found = run_driver(run.recording(), "7.3")
    assert found is not None
    assert (found.divergences, found.results, found.nothing, sum(found.compared.values())) == ([], {}, said, 0)
    assert run.check()[1] == [f"nothing of the devices' driver is compared: {said}"]


@pytest.mark.parametrize(("event", "column"), [("zswap_decompress", "handle"), ("zswap_decompress", "size"),
                                               ("obj_malloc_ret", "handle"), ("obj_malloc_ret", "obj")])
def test_where_an_object_lies_is_not_known_without_its_word(event: str, column: str) -> None:
    """The device saw no job of a read of two entries: 7.0 refuses it; without the word nothing says how many it had."""
    run = Run("7.0.13")
    run.event("obj_malloc_ret", 1, 0, handle=1, obj=2)
    run.compress(100, 900)
    run.decompress(200, 900, ret=-5, device=False)
    assert differs(run) == {"iaa.submit": 1, "iaa.completion": 1}
    run.probes[event]["columns"].remove(column)
    for row in run.events:
        if row["event"] == schema.CODE[event]:
            row[column] = 0
    assert differs(run) == {}


def test_where_events_were_lost_the_driver_is_compared_up_to_there() -> None:
    """A call that was under way when they were lost has not hung, and the jobs behind it are not without a call."""
    run = whole(Run())
    run.event(COMP, 9, 0, folio=VMEMMAP + 64 * 400, size=4096, dlen=4096)
    run.job("compress", 0, 400, 4096, 4096, 900)
    run.event("lost_events", 0, 0)
    run.compress(401, 900, ret=-22)
    tally, notes = run.check()
    assert (tally.different, tally.compared["iaa.completion"]) == ({}, 21)
    assert notes == ["the driver is compared up to event 51: there events were lost, or zswap got another compressor"]
    del run.events[-3]
    assert run.check()[0].different == {"iaa.completion": 1}


def test_behind_a_difference_results_are_known_and_nothing_is_compared() -> None:
    run = whole(Run())
    run.jobs[3]["room"] = 4095
    found = run_driver(run.recording(), "7.3")
    assert found is not None
    assert [each.check for each in found.divergences] == ["iaa.submit"]
    assert (found.stopped, len(found.results), found.compared["iaa.completion"]) == (-1, 21, 4)
    entry, back = 5 * 2, 5 * 2 + 1
    run.events[back]["ret"] = -5
    found = run_driver(run.recording(), "7.3")
    assert found is not None
    assert (found.stopped, len(found.results), len(found.divergences)) == (entry, 5, 1)
    assert run.check()[1] == [f"what the driver does from event {entry} on is not followed: zswap's results of those calls "
                              "are not judged"]


def test_checksums_are_those_of_the_pages() -> None:
    run = Run(verify=1)
    kept = [bytes([k]) * 4096 for k in range(4)]
    run.pages = SimpleNamespace(refs=np.array([2, 0, 1, 3]), blocks=lambda: iter([(0, kept[:3]), (3, [None])]))
    for ref in range(4):
        job = run.compress(100 + ref, 900, crc=zlib.crc32(kept[run.pages.refs[ref]]))
        run.events[-2]["content"] = ref
        run.jobs[-1]["crc"] = job["crc"]
    tally, _ = run.check()
    assert (tally.different, tally.compared["iaa.crc"]) == ({}, 6), "one page's bytes are not there"
    for job in run.jobs[2:4]:
        job["crc"] ^= 1
    assert differs(run) == {"iaa.crc": 2}
    # The rule says that it is another, and the driver notices.
    run.faults = "nth=3: crc=wrong"
    run.jobs[3]["crc"] ^= 1
    for job in run.jobs:
        job["rule"] = int(job is run.jobs[2])
    run.events[3]["ret"] = -22
    assert differs(run) == {}
    run.jobs[2]["rule"] = 0
    assert "iaa.crc" in differs(run)


def batch(run: Run, pfn: int, lengths: Sequence[int], *, ret: int = 0, cpu: int = 0, pid: int = 1,
          jobs: Sequence[int] | None = None) -> None:
    """zswap of v14 has a folio's pages compressed in one call; a length below 0 is an errno of the device."""
    run.event(COMP, pid, cpu, folio=VMEMMAP + 64 * pfn, size=4096 * len(lengths), dlen=4096 * len(lengths))
    for k in jobs if jobs is not None else range(len(lengths)):
        bad = {} if lengths[k] > 0 else {"status": 0x0A, "error": 0x19}
        job = run.job("compress", cpu, pfn + k, 4096, 4096, max(0, lengths[k]), **bad)
        job["queue"] = 1
    run.event(COMP + "_ret", pid, cpu, ret=ret, dlen=lengths[0])


def posted() -> Run:
    """One device of two queues: v14's driver compresses on the second and decompresses on the first."""
    run = Run("7.0.13", mode="async", devices=1)
    run.layer = "v14"
    run.jobs, run.events = [], []
    for n in range(4):
        batch(run, 100 + 16 * n, [900 + k for k in range(8)])
    batch(run, 300, [900, -7, 800], ret=0)
    run.decompress(400, 900)
    run.jobs[-1]["queue"] = 0
    return run


def test_calls_of_several_pages_have_a_descriptor_each() -> None:
    run = posted()
    tally, notes = run.check()
    assert (tally.different, notes) == ({}, [])
    assert {name: tally.compared[f"iaa.{name}"] for name in ("submit", "queue", "completion")} == {
        "submit": 36, "queue": 36, "completion": 6}
    found = run_driver(run.recording(), "v14")
    assert found is not None
    assert [result.lengths for result in found.results.values()][3:] == [tuple(range(900, 908)), (900, -7, 800), ()]
    assert run_driver(run.recording(), "v12").nothing == "no iaa_crypto of v12 is modelled"  # type: ignore[union-attr]


@pytest.mark.parametrize(("which", "column", "value", "check"), [
    (9, "queue", 0, "iaa.queue"), (12, "room", 8192, "iaa.submit"), (12, "flags", 0x1010C | 0x10, "iaa.submit"),
    (3, "status", 0x04, "")])
def test_what_is_wrong_in_a_batch_is_seen(which: int, column: str, value: int, check: str) -> None:
    run = posted()
    run.jobs[which][column] = value
    found = run_driver(run.recording(), "v14")
    assert found is not None
    assert [each.check for each in found.divergences] == ([check] if check else [])
    if not check:
        # The error of a completion does not reach the caller, as posted; the page's length has it.
        assert next(iter(found.results.values())).lengths[3] == -22


def test_descriptors_of_a_batch_come_page_by_page() -> None:
    run = posted()
    run.jobs[10]["n"], run.jobs[11]["n"] = 11, 10
    assert differs(run) == {"iaa.submit": 1}


def test_a_batch_may_find_its_queue_full() -> None:
    """Then the page is not compressed: -ENODEV is its length.  Where the queue had room, the driver forgot one."""
    run = Run("7.0.13", mode="async", devices=1)
    run.layer, run.options["depth"] = "v14", 8
    for n in range(3):
        batch(run, 100 + 16 * n, [900 + k for k in range(4)])
    # A descriptor is free again when its job has been polled: behind all submissions of a batch.
    batch(run, 200, [900, 901, 902, 903, -19, -19, -19, -19], ret=-22, jobs=range(4))
    assert differs(run) == {}
    batch(run, 300, [900, 901, -19], ret=-22, jobs=range(2))
    assert differs(run) == {"iaa.submit": 1, "iaa.completion": 1}
    # Another task's call has some of them.
    back = run.events.pop()
    batch(run, 400, [900, 901], cpu=1, pid=2)
    run.events.append(back)
    assert differs(run) == {}


def test_a_page_that_is_lost_may_be_the_plan_s_doing() -> None:
    run, tally = whole(Run()), Tally()
    tally.different["invariant.load"] = 1
    assert run.check(tally)[1] == []
    run.faults = "operation=compress every=25: length=-10"
    assert "the devices had a plan of faults" in run.check(tally)[1][0]
    assert run.check()[1] == []


def test_a_page_inside_a_folio_is_the_one_that_counts() -> None:
    run = whole(Run())
    begun(run, 300, 1, 0)
    run.events[-1]["offset"] = 3 * 4096
    run.job("compress", 0, 303, 4096, 4096, 600)
    returned(run, 1, 0, dlen=600)
    assert differs(run) == {}


def test_a_check_of_a_compression_reads_what_that_wrote() -> None:
    run = whole(Run(verify=1))
    run.jobs[5]["pfn"] += 1
    assert run.jobs[5]["how"] == 0x20F
    assert differs(run) == {"iaa.submit": 1}


def test_a_snapshot_while_a_call_is_under_way_says_nothing_of_statistics() -> None:
    said = "snapshots were read while the driver was called: its statistics in them are not compared"
    for mode, ret in (("sync", 0), ("async_irq", -115)):
        run = Run(mode=mode)
        run.counters()
        begun(run, 300, 1, 0)
        run.job("compress", 0, 300, 4096, 4096, 700)
        if ret:
            returned(run, 1, 0, ret=ret)
        run.counters(total_comp_calls=99)
        if not ret:
            returned(run, 1, 0, dlen=700)
        run.compress(301, 700)
        run.counters(total_comp_calls=2, total_comp_bytes_out=1400)
        run.event("zs_malloc", 1, 0)
        tally, notes = run.check()
        # With an interrupt the last call is under way until its task continues.
        assert notes == [f"{2 if ret else 1} {said}"]
        assert tally.different == {}
        assert tally.compared["iaa.stats"] == (0 if ret else len(GLOBAL_STATS))
    # Reading takes a while.
    run = Run()
    run.counters()
    run.counters(total_comp_calls=1)
    run.stats[1] |= {"t": 5.0, "t_end": 5.0 + 2 * STEP / 1e9}
    run.compress(300, 700)
    assert run.check()[1] == [f"1 {said}"]
    run.stats[1]["t_end"] = 5.0
    assert differs(run) == {"iaa.stats": 1}


def test_statistics_of_a_queue_are_those_of_its_calls() -> None:
    def listed(*calls: int) -> str:
        """wq_stats of queues of one device, each with N calls of 700 bytes."""
        rows = [f"  name: iaa_crypto\n  comp_calls: {n}\n  comp_bytes: {700 * n}\n" for n in calls]
        return "iaa device:\n  id: 1\n" + "".join(rows)

    def counted(*calls: int) -> dict[str, int]:
        run = Run(devices=1)
        run.counters()
        run.stats[0]["iaa_crypto"]["wq_stats"] = listed(0, 0)
        for k in range(3):
            run.compress(300 + k, 700)
        run.counters(total_comp_calls=3, total_comp_bytes_out=2100)
        run.stats[1]["iaa_crypto"]["wq_stats"] = listed(*calls)
        return differs(run)

    assert counted(1, 2) == {}
    assert counted(2, 1) == {"iaa.stats": 4}
    # A queue that is not listed has no calls.
    assert counted(1) == {"iaa.stats": 2}


def test_an_object_from_before_the_recording_lies_where_the_driver_says() -> None:
    for device, software in ((True, []), (False, [(0, 4096)])):
        run = whole(Run("7.2.13"))
        run.decompress(300, 3000, handle=99, device=device, software=software)
        run.decompress(301, 700)
        assert differs(run) == {}
    run = whole(Run("7.2.13"))
    run.decompress(300, 3000, handle=99, device=False)
    assert "iaa.submit" in differs(run)


def test_a_page_is_filled_from_its_beginning() -> None:
    run = whole(Run())
    run.jobs[-1]["to"] += 64
    assert differs(run) == {"iaa.submit": 1}


def test_a_call_that_moved_to_another_cpu_says_nothing_of_its_queue() -> None:
    run = whole(Run())
    run.jobs[4]["queue"] = 7
    run.events[8]["cpu"] = run.events[9]["cpu"] ^ 1
    tally, notes = run.check()
    assert "1 calls moved to another CPU: which queue they used is not compared" in notes
    assert "iaa.queue" not in tally.different


def test_nothing_is_said_of_what_is_not_known() -> None:
    for change, why in (({"release": "6.6.1"}, "no iaa_crypto of 6.6.1 is modelled"),):
        tally, notes = whole(Run(**change)).check()  # type: ignore[arg-type]
        assert notes == [f"nothing of the devices' driver is compared: {why}"]
        assert set(tally.reasons) >= set(DRIVER_CHECKS)
        assert tally.reasons["iaa.queue"] == why
        assert not any(tally.compared[check] for check in DRIVER_CHECKS)
    run = whole(Run())
    for row in run.jobs:
        row["pfn"] = 1
    tally, _ = run.check()
    assert "could be matched" in tally.reasons["iaa.queue"]


def test_jobs_that_no_call_made_are_said() -> None:
    run = whole(Run())
    run.job("compress", 0, 999, 4096, 4096, 900)
    assert run.check()[1] == ["1 jobs of the devices belong to no recorded call"]


def test_a_table_with_fewer_jobs_than_the_log_had_is_one_sentence() -> None:
    run = whole(Run())
    run.lines = len(run.jobs) + 1
    assert differs(run) == {}
    del run.jobs[5:]
    with pytest.raises(BadInput, match="has 5 jobs, and the devices' log had 21"):
        run.check()
    run.jobs.clear()
    with pytest.raises(BadInput, match="has 0 jobs"):
        run.check()


def test_a_table_that_lacks_a_column_is_one_sentence() -> None:
    run = whole(Run())
    for row in run.jobs:
        del row["how"]
    with pytest.raises(BadInput, match="has no column 'how'"):
        run.check()


def test_where_vmemmap_is_follows_from_calls_and_jobs() -> None:
    assert vmemmap_of([], []) is None
    # However much was done before the recording, and wherever KASLR put it.
    base = VMEMMAP + (5 << 30)
    assert vmemmap_of([base + 64 * frame for frame in (9, 5000)], range(4000, 6000)) == base


def test_an_interrupt_before_the_call_returned_leaves_no_length() -> None:
    """v14 writes -EINPROGRESS over it; which came first, what zswap stores next shows."""
    run = Run("7.0.13", mode="async_irq", devices=1)
    run.layer = "v14"
    for k in range(3):
        run.compress(100 + k, 900, dlen=-115 & 0xFFFFFFFF)
        run.jobs[-1]["queue"] = 1
    found = run_driver(run.recording(), "v14")
    assert found is not None
    assert (found.divergences, [(each.dlen, each.early) for each in found.results.values()]) == ([], [(900, -115)] * 3)
    meant = run_driver(run.recording(), "v14-meant")
    assert meant is not None
    assert {each.early for each in meant.results.values()} == {0}


@pytest.mark.parametrize(("op", "said"), [("queue_off", "taken away"), ("queue_on", "given back")])
def test_a_queue_that_goes_or_comes_ends_the_comparison(op: str, said: str) -> None:
    """Up to a second before the device says so the driver may have changed its tables."""
    run = whole(Run())
    for k in range(30):
        run.compress(300 + k, 900)
    last = len(run.jobs)
    change = dict.fromkeys(run.jobs[0], 0) | {"op": op, "device": 1, "queue": 1, "note": "",
                                              "submitted": run.jobs[-10]["submitted"]}
    run.jobs.append(change | {"ended": change["submitted"]})
    for job in run.jobs[last - 10:last]:
        job["queue"] = 0
    tally, notes = run.check()
    assert tally.different == {}
    assert notes[0] == f"work queue 1 of device 1 was {said}: which queues the driver has then is not followed"
    assert 21 < tally.compared["iaa.completion"] < 21 + 21
    del run.jobs[last]
    assert differs(run) == {"iaa.queue": 1}
    # Those that set the queues up came before the recording.
    run = whole(Run())
    run.jobs.insert(0, change | {"submitted": 5, "ended": 5})
    assert (differs(run), run.check()[1]) == ({}, [])


@pytest.mark.parametrize(("name", "text", "ends"), [("param", "compressor=lz4", True), ("marker", "param compressor=zstd", True),
                                                    ("param", "compressor=deflate-iaa", False), ("marker", "phase compressor=x", False)])
def test_calls_of_another_compressor_are_not_the_driver_s(name: str, text: str, ends: bool) -> None:
    run = whole(Run())
    run.event(name, 0, 0)
    run.events[-1]["text"] = text
    run.event(COMP, 1, 0, folio=VMEMMAP + 64 * 300, size=4096, dlen=4096)
    run.event(COMP + "_ret", 1, 0, ret=0, dlen=1234)
    assert bool(differs(run)) == (not ends)


@pytest.mark.parametrize("before", [5_000_000, 15_000_000, 29_000_000, 42_000_000])
def test_a_job_from_before_its_call_is_not_its_own(before: int) -> None:
    """A recorder that was attached while pages were compressed: a frame's last job of before lies close to the first."""
    run = whole(Run())
    old = dict(run.jobs[1]) | {"submitted": run.jobs[0]["submitted"] - before, "out": 77}
    run.jobs.insert(0, old | {"ended": old["submitted"]})
    assert differs(run) == {}


def test_a_driver_that_is_off_from_the_beginning_is_not_followed() -> None:
    run = Run()
    for k in range(6):
        run.compress(100 + k, 900)
        run.jobs[-1]["submitted"] -= 10**13
        run.events[-1].update(ret=-19, dlen=4096)
    for k, job in enumerate(run.jobs):
        job["submitted"] -= 10**12 * k
    found = run_driver(run.recording(), "7.3")
    assert found is not None
    assert found.divergences == []
    assert found.nothing.startswith("which jobs of the devices are the recording's is not known")


def test_a_descriptor_that_no_call_asked_for_is_a_difference() -> None:
    run = whole(Run())
    for k in range(6):
        run.compress(300 + k, 900)
    extra = dict(run.jobs[-3])
    run.jobs.append(extra | {"submitted": extra["submitted"] + 1000, "ended": extra["submitted"] + 1000})
    run.jobs.sort(key=lambda job: job["submitted"])
    tally, _ = run.check()
    assert tally.different == {"iaa.submit": 1}
    assert "descriptors that no call asked for" in tally.divergences[0].what
    # Behind the last call the recording may have ended before its guest.
    run.jobs.remove(next(job for job in run.jobs if job["submitted"] == extra["submitted"] + 1000))
    run.jobs.append(extra | {"submitted": run.jobs[-1]["submitted"] + 1000, "ended": run.jobs[-1]["submitted"] + 1000})
    assert differs(run) == {}


def test_a_batch_whose_completion_is_lost_never_returns() -> None:
    run = posted()
    run.jobs[5]["note"] = "lost"
    tally, _ = run.check()
    assert tally.different == {"iaa.completion": 1}
    assert "polled for ever" in tally.divergences[0].predicted


def test_a_check_that_was_polled_too_long_turns_the_driver_off() -> None:
    """Behind an interrupt no call says so: the next one does."""
    run = Run(mode="async_irq", verify=1, devices=1)
    for k in range(4):
        run.compress(100 + k, 900)
    run.jobs[-1]["ended"] += 5 * 10**9
    run.event("zs_malloc", 1, 0)
    run.event(COMP, 1, 0, folio=VMEMMAP + 64 * 300, size=4096, dlen=4096)
    run.event(COMP + "_ret", 1, 0, ret=-19, dlen=4096)
    assert differs(run) == {}
    run.jobs[-1]["ended"] -= 5 * 10**9
    assert "iaa.completion" in differs(run)


def test_a_record_of_the_watchdog_leaves_the_driver_on() -> None:
    run = whole(Run())
    run.decompress(302, 700, status=0x24, ret=-110)
    run.jobs[-1]["ended"] += 2_000_000
    run.decompress(303, 700)
    assert differs(run) == {}


def test_a_source_of_less_than_nothing_is_not_followed() -> None:
    run = whole(Run())
    run.events[0]["size"] = -1
    assert "iaa.completion" in differs(run)
