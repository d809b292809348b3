# SPDX-License-Identifier: GPL-2.0-or-later
"""replay.iaa.check: calls of the iaa_crypto driver, checked with the job log of its emulated devices."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from iaarun import (
    COMP,
    DECOMP,
    STEP,
    VMEMMAP,
    Run,
    begun,
    differs,
    interrupted,
    returned,
    whole,
)

from model.crypto.iaa_stats import GLOBAL_STATS
from replay.iaa.check import run_driver
from replay.iaa.stats import recorded_stats
from replay.reference.checks import Tally
from replay.reference.objectwords import layout_of_line
from traces import schema


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


def test_a_page_that_is_lost_may_be_the_plan_s_doing() -> None:
    run, tally = whole(Run()), Tally()
    tally.different["invariant.load"] = 1
    assert run.check(tally)[1] == []
    run.faults = "operation=compress every=25: length=-10"
    assert "the devices had a plan of faults" in run.check(tally)[1][0]
    assert run.check()[1] == []


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


@pytest.mark.parametrize("spans", [False, True])
def test_software_that_took_no_queue_shifts_no_turn(spans: bool) -> None:
    """7.2 reads an object of two entries without asking for a queue: behind calls that met no one's turn is known."""
    run = Run("7.2.13", devices=1)
    for k in range(4):
        run.compress(100 + k, 900)
    run.event("obj_malloc_ret", 1, 0, handle=9, obj=77 << layout_of_line((7, 2)).idx_bits | spans)
    run.event("zswap_decompress", 1, 0, folio=VMEMMAP + 64 * 300, handle=9, size=3000)
    run.event(DECOMP, 1, 0, size=3000, dlen=4096)
    run.compress(301, 700, pid=5)
    if spans:
        run.event(DECOMP, 1, 0, size=3000, dlen=4096)
        run.event(DECOMP + "_ret", 1, 0, ret=0, dlen=4096)
    else:
        run.job("decompress", 0, 77, 3000, 4096, 4096, to=300 << 12)
    run.event(DECOMP + "_ret", 1, 0, ret=0, dlen=4096)
    for k in range(3):
        run.compress(302 + k, 500)
    assert differs(run) == {}
    run.jobs[-1]["queue"] ^= 1
    assert differs(run) == {"iaa.queue": 1}


@pytest.mark.parametrize("late", [{"status": 0, "note": "lost"}, {"late": 5_000_000_000}])
def test_the_check_was_polled_out_and_not_what_it_checks(late: dict[str, Any]) -> None:
    """Both took long: that there was a check says that the compression had been waited for."""
    run = whole(Run(verify=1))
    run.compress(160, 800, ret=-110, dlen=800)
    run.jobs[-2]["ended"] += 2_000_000
    run.jobs[-1]["ended"] += late.pop("late", 0)
    run.jobs[-1].update(late)
    assert differs(run) == {}


@pytest.mark.parametrize("release", ["7.0.13", "7.3.4"])
def test_an_object_is_read_where_it_lies(release: str) -> None:
    """Its word says in which page frame, until migration moves it; one that spans pages is copied, or goes to software."""
    def made(frame: int, migrates: bool = False) -> Run:
        run = whole(Run(release))
        layout = layout_of_line((7, 3) if release == "7.3.4" else (7, 0))
        run.event("obj_malloc_ret", 1, 0, handle=5, obj=0x1234 << layout.idx_bits + layout.class_bits)
        if migrates:
            run.event("zs_page_migrate", 90, 0)
        run.decompress(300, 900, handle=5)
        run.jobs[-1]["pfn"] = frame
        return run

    assert differs(made(0x1234)) == {}
    assert differs(made(0x1235)) == {"iaa.submit": 1}
    assert differs(made(0x1235, migrates=True)) == {}
    unseen = made(0x1235)
    del unseen.probes["zs_page_migrate"]
    assert differs(unseen) == {}
