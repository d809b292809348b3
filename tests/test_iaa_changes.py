# SPDX-License-Identifier: GPL-2.0-or-later
"""Work queues that the driver loses and is given while it is recorded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iaarun import AHEAD, COMP, DECOMP, VMEMMAP, Run

from model.crypto.iaa_stats import GLOBAL_STATS
from traces.deviceclock import NO_QUEUE

ENODEV, ENXIO = NO_QUEUE


def differs(run: Run) -> dict[str, int]:
    tally, _ = run.check()
    return tally.different


def some(run: Run, first: int, count: int = 8) -> None:
    for k in range(count):
        run.compress(first + k, 900 + k, cpu=k % 2, pid=1 + k % 2)


def refused(run: Run, pfn: int, ret: int, cpu: int = 0) -> None:
    run.event(COMP, 1 + cpu, cpu, folio=VMEMMAP + 64 * pfn, size=4096, dlen=4096)
    run.event(COMP + "_ret", 1 + cpu, cpu, ret=ret, dlen=4096)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("wqs", [2, 3, 4])
def test_all_queues_and_turns_are_compared_behind_each_change(devices: int, wqs: int) -> None:
    run = Run(devices=devices, wqs=wqs)
    some(run, 100)
    run.take(0, 0)
    some(run, 200)
    # It comes last in its device's list now.
    run.give(0, 0)
    some(run, 300)
    run.take(devices - 1, 1)
    some(run, 400)
    tally, notes = run.check()
    assert tally.different == {}
    # The first of each CPU at the beginning shows its turn.
    assert tally.compared["iaa.queue"] == 32
    assert notes == ["work queues given to the driver or taken away: 3, all followed; calls that met such a change: 0; of "
                     "these failed so, which is taken from the recording: 0"]
    run.jobs[-1]["queue"] = 1
    assert differs(run) == {"iaa.queue": 1}


def test_a_queue_that_was_taken_away_is_not_used() -> None:
    run = Run(devices=1, wqs=3)
    some(run, 100)
    run.take(0, 2)
    some(run, 200)
    of = [job for job in run.jobs if job["op"] == "compress"]
    assert {job["queue"] for job in of[8:]} == {0, 1}
    of[-1]["queue"] = 2
    assert differs(run) == {"iaa.queue": 1}


@pytest.mark.parametrize("step", ["quiesced", "disabled", "cleared"])
@pytest.mark.parametrize("ret", [ENODEV, ENXIO])
def test_a_call_may_fail_while_a_queue_is_taken_away(step: str, ret: int) -> None:
    run = Run(devices=1, wqs=2)
    some(run, 100)
    run.take(0, 1, lambda now: refused(run, 150, ret) if now == step else None)
    some(run, 200)
    tally, notes = run.check()
    assert tally.different == {}
    assert notes[0].endswith("met such a change: 1; of these failed so, which is taken from the recording: 1")
    # Before that, and behind it, none does.
    for at in (100, 0):
        run = Run(devices=1, wqs=2)
        some(run, 100)
        if at:
            refused(run, 150, ret)
        run.take(0, 1)
        if not at:
            refused(run, 150, ret)
        some(run, 200)
        assert differs(run) == {"iaa.submit": 1, "iaa.completion": 1}


def test_a_refused_call_has_not_the_job_of_a_later_one_of_its_frame() -> None:
    run = Run(devices=1, wqs=2)
    some(run, 100)
    run.take(0, 1, lambda now: refused(run, 150, ENXIO) if now == "quiesced" else None)
    run.compress(150, 901)
    some(run, 200)
    assert differs(run) == {}


def test_a_recording_that_begins_without_a_queue() -> None:
    """The calls without a job come first, some of frames that are compressed later."""
    run = Run(devices=1, wqs=1)
    # Of the set-up, before the recording.
    run.line("queue_on", 0, 0)
    run.jobs[0]["submitted"] -= 10**9
    run.take(0, 0)
    for k in range(30):
        refused(run, 100 + 7 * k, ENODEV, cpu=k % 2)
    run.give(0, 0)
    some(run, 100, 60)
    tally, notes = run.check()
    assert tally.different == {}
    assert (tally.compared["iaa.completion"], tally.compared["iaa.queue"]) == (90, 60)
    assert notes[0].startswith("work queues given to the driver or taken away: 2, all followed")


def test_other_errors_are_not_excused() -> None:
    run = Run(devices=1, wqs=2)
    some(run, 100)
    run.take(0, 1, lambda now: refused(run, 150, -22) if now == "cleared" else None)
    assert "iaa.submit" in differs(run)


def test_a_call_that_never_returned_may_have_taken_the_first_turn() -> None:
    for turn in (0, 1):
        run = Run(devices=1, wqs=3)
        some(run, 100)
        run.event(COMP, 3, 0, folio=VMEMMAP + 64 * 150, size=4096, dlen=4096)
        run.take(0, 2)
        run.turn[0] = turn
        some(run, 200)
        assert differs(run) == {}


def test_a_compression_whose_check_found_its_queue_gone() -> None:
    """It counts all the same: the driver counts it before it checks it."""
    run = Run(devices=1, wqs=2, verify=1)
    run.counters()
    some(run, 100)

    def met(step: str) -> None:
        if step == "quiesced":
            run.compress(150, 900, ret=ENXIO)
            # Its check was not submitted.
            run.jobs.pop()

    run.take(0, 1, met)
    lengths = [*range(900, 908), 900]
    run.counters(total_comp_calls=len(lengths), total_comp_bytes_out=sum(lengths))
    some(run, 200)
    tally, _ = run.check()
    assert (tally.different, tally.compared["iaa.stats"]) == ({}, len(GLOBAL_STATS))


def test_a_call_that_began_before_and_ended_behind_it() -> None:
    run = Run(devices=1, wqs=2)
    some(run, 100)
    run.event(COMP, 3, 0, folio=VMEMMAP + 64 * 150, size=4096, dlen=4096)
    run.job("compress", 0, 150, 4096, 4096, 700)
    run.take(0, 1)
    run.event(COMP + "_ret", 3, 0, ret=0, dlen=700)
    some(run, 200)
    assert differs(run) == {}
    # What became of it is compared all the same.
    run.events[-17]["dlen"] = 701
    assert differs(run) == {"iaa.completion": 1}


def test_the_turn_of_a_cpu_that_was_busy_meanwhile_is_not_known() -> None:
    """Its call may have taken the first turn of the new table."""
    for skip in (0, 1):
        run = Run(devices=1, wqs=3)
        some(run, 100)
        run.take(0, 2, lambda now, run=run: refused(run, 150, ENODEV) if now == "cleared" else None)
        run.turn[0] = skip
        some(run, 200)
        assert differs(run) == {}
    # Without it, the turn is known.
    run = Run(devices=1, wqs=3)
    some(run, 100)
    run.take(0, 2)
    run.turn[0] = 1
    some(run, 200)
    assert "iaa.queue" in differs(run)


def test_without_any_queue_calls_fail() -> None:
    run = Run(devices=1, wqs=1)
    some(run, 100)
    run.take(0, 0)
    for k in range(4):
        refused(run, 150 + k, ENODEV, cpu=k % 2)
    tally, _ = run.check()
    assert (tally.different, tally.compared["iaa.completion"]) == ({}, 12)
    run.events[-1]["ret"] = 0
    assert "iaa.completion" in differs(run)


def test_the_last_queue_given_back_is_refused() -> None:
    """The algorithm is still registered, so that it cannot be registered again: the driver stays off."""
    run = Run(devices=1, wqs=1)
    some(run, 100)
    run.take(0, 0)
    run.give(0, 0, ret=-17)
    refused(run, 150, ENODEV)
    run.event("zswap_decompress", 1, 0, folio=VMEMMAP + 64 * 160, handle=1, size=900)
    run.event(DECOMP, 1, 0, size=900, dlen=4096)
    run.event(DECOMP + "_ret", 1, 0, ret=ENODEV, dlen=4096)
    assert differs(run) == {}
    # One that was taken would be used.
    run = Run(devices=1, wqs=1)
    some(run, 100)
    run.take(0, 0)
    run.give(0, 0)
    some(run, 200)
    assert differs(run) == {}
    refused(run, 150, ENODEV)
    assert differs(run) == {"iaa.submit": 1, "iaa.completion": 1}


def test_a_queue_that_was_refused_before_it_was_enabled() -> None:
    run = Run(devices=1, wqs=2)
    some(run, 100)
    run.event("iaa_crypto_probe", 90, 0)
    run.event("iaa_crypto_probe_ret", 90, 0, ret=-19)
    some(run, 200)
    tally, notes = run.check()
    assert (tally.different, notes) == ({}, [])


def test_a_log_and_probes_that_do_not_fit_end_the_comparison() -> None:
    """The log has another queue's line, or none, or the change never ended."""
    def made() -> Run:
        run = Run(devices=1, wqs=2)
        some(run, 100)
        run.take(0, 1)
        some(run, 200)
        return run

    for damage in ("line", "op", "end"):
        run = made()
        line = next(job for job in run.jobs if job["op"] == "queue_off")
        if damage == "line":
            run.jobs.remove(line)
        elif damage == "op":
            line["op"] = "queue_on"
        else:
            run.events = [row for row in run.events if row["pid"] != 90 or row["ts"] != max(
                row["ts"] for row in run.events if row["pid"] == 90)]
        tally, notes = run.check()
        assert tally.different == {}, damage
        assert any("which queues the driver has then is not followed" in note for note in notes), damage


def with_statistics(run: Run, since: dict[int, int], before: int) -> None:
    """A snapshot, of the jobs since ``since`` of each queue; queues that were not given anew did some before."""
    jobs = [job for job in run.jobs if job["op"] == "compress"]
    run.counters(total_comp_calls=before + len(jobs), total_comp_bytes_out=sum(job["out"] for job in jobs))
    lines = ["iaa device:", "  id: 0"]
    for queue, first in since.items():
        own = [job["out"] for job in jobs if job["queue"] == queue and job["n"] >= first]
        calls = len(own) + (0 if first else before)
        lines += ["", f"  name: iaa_crypto{queue}", f"  comp_calls: {calls}", f"  comp_bytes: {sum(own)}"]
    run.stats[max(run.stats)]["iaa_crypto"]["wq_stats"] = "\n".join(lines) + "\n"


@pytest.mark.parametrize("wrong", ["", "kept", "gone"])
def test_statistics_of_a_queue_begin_anew(wrong: str) -> None:
    """The driver frees what it counted of a queue that it loses; the list has the others, in the order they came in."""
    run = Run(devices=1, wqs=3)
    with_statistics(run, {0: 0, 1: 0, 2: 0}, before=50)
    some(run, 100)
    with_statistics(run, {0: 0, 1: 0, 2: 0}, before=50)
    run.take(0, 1)
    with_statistics(run, {0: 0, 2: 0} if wrong != "gone" else {0: 0, 1: 0, 2: 0}, before=50)
    run.give(0, 1)
    anew = len(run.jobs)
    some(run, 200)
    with_statistics(run, {0: 0, 2: 0, 1: 0 if wrong == "kept" else anew}, before=50)
    tally, _ = run.check()
    assert tally.compared["iaa.stats"] > 3 * len(GLOBAL_STATS)
    assert bool(tally.different) == bool(wrong), [each.what for each in tally.divergences]


def test_a_queue_that_the_log_disables_twice() -> None:
    """Its device was reset, of which the driver hears nothing: nothing is said, and nothing raised."""
    run = Run(devices=1, wqs=2)
    for op in ("queue_off", "queue_off", "queue_on", "queue_on"):
        run.line(op, 0, 1)
        run.jobs[-1]["submitted"] -= 10**10
    run.turn[0] = run.turn[1] = 0
    some(run, 100)
    assert differs(run) == {}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "give", "work"]), st.integers(0, 1), st.integers(0, 3)), max_size=12))
def test_any_order_of_changes(steps: list[tuple[str, int, int]]) -> None:
    run = Run(devices=2, wqs=4)
    some(run, 100)
    pfn = 200
    for what, device, queue in steps:
        if what == "take" and queue in run.bound[device] and len(run.bound[device]) > 1:
            run.take(device, queue)
        elif what == "give" and queue not in run.bound[device]:
            run.give(device, queue)
        else:
            some(run, pfn)
            pfn += 8
    tally, _ = run.check()
    assert tally.different == {}
    assert tally.compared["iaa.queue"] == 8 + pfn - 200


@pytest.mark.parametrize(("devices", "wqs"), [(1, 2), (2, 2), (1, 1)])
def test_a_recording_may_begin_and_end_anywhere(devices: int, wqs: int) -> None:
    """In the middle of a change, or of a call that a change meets; what came before is in the devices' log."""
    run = Run(devices=devices, wqs=wqs)
    some(run, 100)
    run.event(COMP, 3, 1, folio=VMEMMAP + 64 * 190, size=4096, dlen=4096)
    run.job("compress", 1, 190, 4096, 4096, 700)
    run.take(0, 0, lambda now: refused(run, 150, ENODEV) if now == "cleared" else None)
    run.event(COMP + "_ret", 3, 1, ret=0, dlen=700)
    if wqs > 1:
        some(run, 200)
    else:
        refused(run, 300, ENODEV)
    run.give(0, 0)
    some(run, 400)
    events = run.events
    for at in range(len(events)):
        for part in (events[at:], events[:at]):
            run.events = part
            if part:
                assert differs(run) == {}, (at, len(part))


def test_changes_may_follow_each_other_closely() -> None:
    """Closer than the clocks are compared: their order in the log says which is which."""
    run = Run(devices=1, wqs=3)
    some(run, 100)
    for _ in range(3):
        run.take(0, 1)
        run.give(0, 1)
    some(run, 200)
    run.events = [row | {"ts": row["ts"] // 20} for row in run.events]
    run.jobs = [job | {"submitted": AHEAD + (job["submitted"] - AHEAD) // 20} for job in run.jobs]
    events = run.events
    for at in range(len(events) - 16):
        run.events = events[at:]
        tally, notes = run.check()
        assert tally.different == {}, at
        if at < 16:
            assert notes[0].startswith("work queues given to the driver or taken away: 6, all followed"), at
