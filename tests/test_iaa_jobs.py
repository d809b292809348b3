# SPDX-License-Identifier: GPL-2.0-or-later
"""replay.iaa.jobs and calls: which job of the devices belongs to which call, and where neither is known."""

from __future__ import annotations

import pytest
from iaarun import (
    COMP,
    VMEMMAP,
    Run,
    begun,
    differs,
    returned,
    whole,
)

from replay.iaa.calls import NEEDED
from replay.iaa.check import run_driver
from replay.reference.checks import DRIVER_CHECKS
from traces import schema
from traces.deviceclock import vmemmap_of
from traces.errors import BadInput


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


def test_what_was_done_before_the_recording_is_not_compared() -> None:
    run = Run()
    run.job("compress", 0, 5, 70, 512, 38)
    run.job("decompress", 0, 6, 38, 512, 70, to=200 << 12)
    assert differs(whole(run)) == {}


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


def test_a_page_inside_a_folio_is_the_one_that_counts() -> None:
    run = whole(Run())
    begun(run, 300, 1, 0)
    run.events[-1]["offset"] = 3 * 4096
    run.job("compress", 0, 303, 4096, 4096, 600)
    returned(run, 1, 0, dlen=600)
    assert differs(run) == {}


def test_an_object_from_before_the_recording_lies_where_the_driver_says() -> None:
    for device, software in ((True, []), (False, [(0, 4096)])):
        run = whole(Run("7.2.13"))
        run.decompress(300, 3000, handle=99, device=device, software=software)
        run.decompress(301, 700)
        assert differs(run) == {}
    run = whole(Run("7.2.13"))
    run.decompress(300, 3000, handle=99, device=False)
    assert "iaa.submit" in differs(run)


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


@pytest.mark.parametrize("op", ["queue_off", "queue_on"])
def test_a_queue_that_goes_or_comes_unseen_ends_the_comparison(op: str) -> None:
    """No probe says when.  Up to a second before the device says so the driver may have changed its tables."""
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
    assert notes[0].startswith("a work queue was taken away or given back behind event ")
    assert 21 < tally.compared["iaa.completion"] < 21 + 21
    del run.jobs[last]
    assert differs(run) == {"iaa.queue": 1}
    # Those that set the queues up came before the recording; one that was gone by then is not used.
    run = whole(Run())
    run.jobs.insert(0, change | {"submitted": 5, "ended": 5})
    assert (differs(run), run.check()[1]) == ({} if op == "queue_on" else {"iaa.queue": 1}, [])


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
    assert found.nothing == "no compress call of the recording could be matched to a job of the devices"


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
    # Also where a later call is of the same page.
    run.compress(extra["pfn"], 900)
    assert differs(run) == {"iaa.submit": 1}
    del run.events[-2:], run.jobs[-1]
    # Behind the last call the recording may have ended before its guest.
    run.jobs.remove(next(job for job in run.jobs if job["submitted"] == extra["submitted"] + 1000))
    run.jobs.append(extra | {"submitted": run.jobs[-1]["submitted"] + 1000, "ended": run.jobs[-1]["submitted"] + 1000})
    assert differs(run) == {}


def test_a_source_of_less_than_nothing_is_not_followed() -> None:
    run = whole(Run())
    run.events[0]["size"] = -1
    assert "iaa.completion" in differs(run)


def test_on_a_busy_host_all_jobs_of_a_while_come_late() -> None:
    """Those behind them come at once again, which is not before their calls."""
    run = whole(Run())
    for k in range(140):
        job = run.compress(300 + k, 900, cpu=k % 2, pid=1 + k % 2)
        if 20 <= k < 110:
            job["submitted"] += 5_000_000 + k * 7_000_000 % 30_000_000
    tally, notes = run.check()
    assert (tally.different, notes) == ({}, [])
    assert tally.compared["iaa.submit"] == len(run.jobs)
