# SPDX-License-Identifier: GPL-2.0-or-later
"""Queues, engines and the fault plan of the emulated IAA, in simulated time."""

from __future__ import annotations

import json
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iaabench import DECOMPRESS, PAGE, Bench, logged

from traces.lab.iaa import registers as reg
from traces.lab.iaa.descriptors import Analytics, Decompress, Flag, Opcode, Status
from traces.lab.iaa.device import SWERR_QUEUE_OFF
from traces.lab.iaa.registers import Command, CommandStatus, DeviceState, HaltReset


def made(options: str = "", plan: str = "", sizes: tuple[int, ...] = (128,), groups: tuple[tuple[tuple[int, ...], int], ...] = (),
         priorities: tuple[int, ...] = (), log: Path | None = None) -> Bench:
    bench = Bench(options, plan, log).set_up(sizes, groups, priorities)
    bench.put(0x10000, PAGE)
    bench.now = 0
    return bench


def ended(bench: Bench, records: list[int]) -> list[int]:
    """Which of the records are written."""
    return [number for number, record in enumerate(records) if bench.get(record, 1) != b"\0"]


def order(bench: Bench, records: list[int], until: int = 10**7, step: int = 500) -> list[tuple[int, list[int]]]:
    """(time, records that were written since) as time passes."""
    found, seen = [], set(ended(bench, records))
    if seen:
        found.append((bench.now, sorted(seen)))
    for now in range(bench.now + step, until + 1, step):
        bench.advance(now)
        new = [one for one in ended(bench, records) if one not in seen]
        if new:
            found.append((now, new))
            seen.update(new)
        if len(seen) == len(records):
            break
    return found


# Simulated time


def test_a_batch_overlaps_on_engines() -> None:
    # Eight pages on eight engines end together, on two engines one pair after another, on one in turn.
    for engines, wanted in ((0xFF, [(4000, list(range(8)))]), (0b101, [(4000 * (k + 1), [2 * k, 2 * k + 1]) for k in range(4)]),
                            (0b1, [(4000 * (k + 1), [k]) for k in range(8)])):
        bench = made("service=2us,per_kib=500ns", groups=(((0,), engines),))
        records = [bench.page() for _ in range(8)]
        assert ended(bench, records) == []
        assert order(bench, records) == wanted
        bench.close()


def test_what_an_engine_takes_depends_on_the_source() -> None:
    bench = made("per_kib=1us")
    records = [bench.start(Opcode.MEMMOVE, 0x10000, size, 0x20000, 0) for size in (1024, 2048, 512, 3000)]
    assert [when for when, _ in order(bench, records, step=1)] == [500, 1000, 2000, 2929]
    bench.close()


def test_times_do_not_depend_on_when_somebody_looks() -> None:
    bench = made("service=1us", groups=(((0,), 1),))
    records = [bench.page() for _ in range(5)]
    assert bench.advance(0) == 1000
    # Five microseconds later all are done: the second did not wait for this process to look.
    assert bench.advance(5000) is None
    assert ended(bench, records) == [0, 1, 2, 3, 4]
    # A job that comes now begins now.
    bench.page()
    assert bench.advance(5000) == 6000
    bench.close()


def test_a_job_does_not_begin_before_it_came() -> None:
    bench = made("service=1us", groups=(((0,), 1),))
    bench.page()
    # The engine became free at 1 us, which nobody has looked at since.
    bench.now = 5000
    record = bench.page()
    assert bench.advance(5999) == 6000
    assert ended(bench, [record]) == []
    bench.advance(6000)
    assert ended(bench, [record]) == [0]
    bench.close()


def test_groups_have_their_own_engines() -> None:
    bench = made("service=1us", sizes=(32, 32, 32), groups=(((0, 2), 0b1), ((1,), 0b110)))
    records = [bench.page(queue=queue) for queue in (0, 0, 1, 1, 2)]
    assert order(bench, records) == [(1000, [0, 2, 3]), (2000, [1]), (3000, [4])]
    bench.close()


def test_the_queue_of_higher_priority_is_served_first() -> None:
    bench = made("service=1us", sizes=(32, 32), groups=(((0, 1), 1),), priorities=(1, 15))
    records = [bench.page(queue=queue) for queue in (0, 0, 1, 1)]
    assert [new for _, new in order(bench, records)] == [[0], [2], [3], [1]]
    bench.close()


def test_results_are_those_without_time() -> None:
    timed, plain = made("service=3us"), made()
    record, wanted = timed.page(), plain.compress()
    timed.advance(3000)
    found = timed.record(record)
    assert (found.ends, found.size, found.crc) == (wanted.ends, wanted.size, wanted.crc)
    assert timed.get(0x20000, 4096) == plain.get(0x20000, 4096)
    timed.close()
    plain.close()


def test_how_many_were_in_flight_is_logged(tmp_path: Path) -> None:
    bench = made("service=1us", log=tmp_path / "jobs", groups=(((0,), 0b11),))
    for _ in range(4):
        bench.page()
    bench.advance(10**6)
    bench.page()
    bench.advance(2 * 10**6)
    bench.close()
    lines = logged(tmp_path / "jobs")[1:]
    assert [one["in_flight"] for one in lines] == [0, 1, 2, 3, 0]
    assert [one["engine"] for one in lines] == [0, 1, 0, 1, 0]
    assert [(one["submitted"], one["ended"]) for one in lines] == [(0, 1000), (0, 1000), (0, 2000), (0, 2000), (10**6, 10**6 + 1000)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4000), st.integers(0, 3000)), min_size=1, max_size=25), st.integers(1, 255))
@settings(deadline=None)
def test_engines_never_do_two_things_at_once(jobs: list[tuple[int, int, int]], engines: int) -> None:
    bench = made("service=700ns,per_kib=300ns", sizes=(40, 40, 40), groups=(((0, 1, 2), engines),))
    lines: list[dict[str, int]] = []
    bench.device.log.add = lambda line: lines.append(json.loads(line))
    bench.device._watched = True
    bench.device.log._file = open("/dev/null", "w")  # noqa: SIM115
    for queue, size, pause in jobs:
        bench.start(Opcode.MEMMOVE, 0x10000, size, 0x20000, 0, queue)
        bench.now += pause
        if pause % 2:
            bench.device.advance()
    bench.advance(bench.now + 10**7)
    bench.close()
    assert sorted(one["n"] for one in lines) == list(range(1, len(jobs) + 1))
    spans: dict[int, list[tuple[int, int]]] = {}
    for one in lines:
        assert engines >> one["engine"] & 1
        assert one["submitted"] <= one["ended"] - 700 - 300 * one["in"] // 1024
        spans.setdefault(one["engine"], []).append((one["ended"] - 700 - 300 * one["in"] // 1024, one["ended"]))
    for taken in spans.values():
        taken.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(taken))
    # Of one queue, descriptors begin in the order in which they came.
    for queue in range(3):
        begins = [(one["n"], one["ended"] - 700 - 300 * one["in"] // 1024) for one in lines if one["queue"] == queue]
        begins.sort()
        assert [when for _, when in begins] == sorted(when for _, when in begins)


# Commands while descriptors are on their way


@pytest.mark.parametrize(("number", "operand", "ends"), [
    (Command.DRAIN_ALL, 0, 4000), (Command.DRAIN_WQ, 1, 3000), (Command.DRAIN_WQ, 2, 4000), (Command.DRAIN_WQ, 4, 0), (Command.DISABLE_WQ, 3, 4000),
    (Command.DISABLE_DEVICE, 0, 4000), (Command.DRAIN_PASID, 0, 4000)])
def test_draining_waits_for_what_is_there(number: int, operand: int, ends: int) -> None:
    bench = made("service=1us", sizes=(32, 32, 32), groups=(((0, 1, 2), 1),))
    records = [bench.page(queue=queue) for queue in (0, 0, 0, 1)]
    bench.fired.clear()
    status = bench.command(number, operand)
    assert (status == reg.CMDSTS_ACTIVE) == (ends > 0)
    # A command that comes meanwhile is not heard.
    if ends:
        assert bench.command(Command.ABORT_ALL) == reg.CMDSTS_ACTIVE
        bench.advance(ends - 1)
        assert bench.word(reg.CMDSTS) == reg.CMDSTS_ACTIVE
        assert bench.fired == []
        bench.advance(ends)
    assert bench.word(reg.CMDSTS) == CommandStatus.SUCCESS
    assert bench.fired == [0]
    assert ended(bench, records) == list(range(ends // 1000))
    if number == Command.DISABLE_WQ:
        assert [queue.enabled for queue in bench.device.queues[:3]] == [False, False, True]
    if number == Command.DISABLE_DEVICE:
        assert bench.word(reg.GENSTATS) == DeviceState.DISABLED
    bench.close()


def test_draining_does_not_wait_for_what_comes_later() -> None:
    bench = made("service=1us", sizes=(32, 32), groups=(((0, 1), 1),))
    records = [bench.page(), bench.page()]
    assert bench.command(Command.DRAIN_WQ, 1) == reg.CMDSTS_ACTIVE
    records += [bench.page(queue=1), bench.page()]
    bench.advance(1000)
    assert bench.word(reg.CMDSTS) == reg.CMDSTS_ACTIVE
    bench.advance(2000)
    assert bench.word(reg.CMDSTS) == CommandStatus.SUCCESS
    bench.advance(4000)
    assert ended(bench, records) == [0, 1, 2, 3]
    bench.close()


def test_a_queue_that_is_being_switched_off_takes_no_more() -> None:
    bench = made("service=1us", sizes=(32, 32), groups=(((0, 1), 1),))
    records = [bench.page()]
    assert bench.command(Command.DISABLE_WQ, 1) == reg.CMDSTS_ACTIVE
    records += [bench.page(), bench.page(queue=1)]
    assert bench.word(reg.SWERR, 8) >> 8 & 0xFF == SWERR_QUEUE_OFF
    bench.advance(10**6)
    assert ended(bench, records) == [0, 2]
    assert bench.word(reg.CMDSTS) == CommandStatus.SUCCESS
    # Switched on again it takes them.
    assert bench.command(Command.ENABLE_WQ, 0) == CommandStatus.SUCCESS
    record = bench.page()
    bench.advance(2 * 10**6)
    assert bench.record(record).status == Status.SUCCESS
    bench.close()


@pytest.mark.parametrize(("number", "operand", "left"), [
    (Command.ABORT_ALL, 0, []), (Command.ABORT_WQ, 1, [2]), (Command.ABORT_WQ, 2, [0, 1]), (Command.RESET_WQ, 1, [2]),
    (Command.RESET_DEVICE, 0, []), (Command.ABORT_PASID, 0, [])])
def test_aborting_forgets(number: int, operand: int, left: list[int], tmp_path: Path) -> None:
    bench = made("service=1us", sizes=(32, 32), groups=(((0, 1), 1),), log=tmp_path / "jobs")
    records = [bench.page(queue=queue) for queue in (0, 0, 1)]
    assert bench.command(number, operand) == CommandStatus.SUCCESS
    bench.advance(10**6)
    # What an aborted descriptor had the engine for is over too.
    assert ended(bench, records) == left
    assert bench.device.engines.idle
    bench.close()
    lines = logged(tmp_path / "jobs")[1:]
    assert sorted(one["n"] - 1 for one in lines if one.get("note") == "aborted") == [k for k in range(3) if k not in left]


def test_an_engine_is_free_after_an_abort() -> None:
    bench = made("service=1ms", sizes=(32, 32), groups=(((0, 1), 1),))
    records = [bench.page(queue=0), bench.page(queue=1)]
    bench.command(Command.ABORT_WQ, 1)
    assert bench.advance(0) == 10**6
    bench.advance(10**6)
    assert ended(bench, records) == [1]
    bench.close()


# Faults


def test_a_status_instead_of_a_result() -> None:
    bench = made(plan="operation=compress nth=2: status=analytics error=0x19\noperation=decompress: status=watchdog\n")
    size = bench.compress().size
    bench.put(0x20000, b"\xaa" * 4096)
    assert bench.compress().ends == (0x0A, 0x19)
    assert bench.get(0x20000, 4096) == b"\xaa" * 4096
    assert bench.compress().ends == (Status.SUCCESS, 0)
    record = bench.job(Opcode.DECOMPRESS, 0x20000, size, 0x30000, 4096, flags=Flag.RCI, int_handle=1)
    assert record.ends == (0x24, 0)
    assert bench.fired == [1]
    bench.close()


def test_a_wrong_length_and_a_wrong_sum() -> None:
    bench = made(plan="nth=1: length=-3\nnth=2: length=+1\nnth=3: length=17\nnth=4: crc=wrong\nnth=5: length=-99999")
    plain = made()
    right = plain.compress()
    assert [bench.compress().size - right.size for _ in range(2)] == [-3, 1]
    assert bench.compress().size == 17
    wrong = bench.compress()
    assert (wrong.ends, wrong.size, wrong.crc) == ((1, 0), right.size, right.crc ^ 0xFFFFFFFF)
    assert bench.compress().size == 0
    # The bytes are as they should be.
    assert bench.get(0x20000, right.size) == plain.get(0x20000, right.size)
    # Verification sees the wrong sum: the CRC of a decompression is another.
    back = bench.job(Opcode.DECOMPRESS, 0x20000, right.size, 0x10000, 4096, compr_flags=DECOMPRESS | Decompress.SUPPRESS_OUTPUT)
    assert back.crc == zlib.crc32(PAGE) != wrong.crc
    bench.close()
    plain.close()


def test_a_bent_job_that_fails_stays_failed() -> None:
    bench = made(plan=": length=5 crc=wrong")
    assert bench.compress(room=10).ends == (Status.ANALYTICS_ERROR, Analytics.UNRECOVERABLE_OUTPUT_OVERFLOW)
    assert bench.compress(room=10).size == 0
    bench.close()


def test_a_page_fault_that_the_plan_wants() -> None:
    bench = made(plan="nth=1: page-fault=source\nnth=2: page-fault=destination\nnth=3: page-fault=aecs")
    found = [bench.compress() for _ in range(4)]
    assert [one.status for one in found] == [0x04, 0x84, 0x04, 0x01]
    assert [one.fault_addr for one in found] == [0x110000, 0x120000, 0x101000, 0]
    bench.close()


@pytest.mark.parametrize("options", ["", "service=1us"])
def test_a_lost_completion(options: str, tmp_path: Path) -> None:
    bench = made(options, "operation=compress nth=2: lost", log=tmp_path / "jobs")
    records = [bench.page(flags=Flag.RCI, int_handle=1) for _ in range(3)]
    bench.put(0x20000, bytes(4096))
    bench.advance(10**9)
    assert ended(bench, records) == [0, 2]
    assert bench.fired == [1, 1]
    # A drain does not wait for it: the device is done with it.
    assert bench.command(Command.DRAIN_ALL) == 0
    bench.close()
    lines = logged(tmp_path / "jobs")[1:]
    assert [(one["n"], one.get("note"), one.get("rule")) for one in sorted(lines, key=lambda one: one["n"])] == [(1, None, None), (2, "lost", 1), (3, None, None)]


def test_a_lost_interrupt() -> None:
    bench = made(plan="nth=1: silent")
    records = [bench.page(flags=Flag.RCI, int_handle=1) for _ in range(2)]
    assert ended(bench, records) == [0, 1]
    assert bench.fired == [1]
    bench.close()


@pytest.mark.parametrize("options", ["", "service=1us"])
def test_a_late_completion_lets_others_pass(options: str) -> None:
    bench = made(options, "nth=1: late=5us", groups=(((0,), 1),))
    records = [bench.page() for _ in range(3)]
    engine = 1000 if options else 0
    wanted = [(5000 + engine, [0])]
    found = order(bench, records)
    assert [new for _, new in found[:-1]] == ([[1], [2]] if options else [[1, 2]])
    assert found[-1:] == wanted
    bench.close()


def test_a_completion_that_ends_behind_others() -> None:
    bench = made(plan="nth=1: reorder=2", sizes=(32, 32))
    records = [bench.page(queue=queue) for queue in (0, 1, 0)]
    # The other queue's do not count.
    assert ended(bench, records) == [1, 2]
    records.append(bench.page())
    assert ended(bench, records) == [0, 1, 2, 3]
    bench.close()


def test_a_completion_does_not_wait_for_ever_for_others() -> None:
    bench = made(plan="nth=1: reorder=2\nnth=3: reorder=1 late=3us")
    records = [bench.page(), bench.page()]
    due = bench.advance(0)
    assert due == 100_000_000
    bench.advance(due)
    assert ended(bench, records) == [0, 1]
    records.append(bench.page())
    assert bench.advance(bench.now) == due + 3000
    bench.advance(due + 3000)
    assert ended(bench, records) == [0, 1, 2]
    assert bench.device.engines.idle
    bench.close()


def test_completions_in_reverse() -> None:
    bench = made(plan="nth=1: reorder=2\nnth=2: reorder=1")
    records = [bench.page() for _ in range(3)]
    assert ended(bench, records) == [0, 1, 2]
    assert bench.device.engines.idle
    bench.close()


def test_a_queue_of_which_nothing_ends() -> None:
    bench = made(plan="nth=3: exhaust=10us", sizes=(32, 32))
    records = [bench.page(), bench.page(), bench.page(), bench.page(), bench.page(queue=1)]
    assert ended(bench, records) == [0, 1, 4]
    assert bench.command(Command.DRAIN_WQ, 1) == reg.CMDSTS_ACTIVE
    bench.advance(9_999)
    assert ended(bench, records) == [0, 1, 4]
    bench.advance(10_000)
    assert ended(bench, records) == [0, 1, 2, 3, 4]
    assert bench.word(reg.CMDSTS) == 0
    bench.close()


@pytest.mark.parametrize("kind", list(HaltReset))
def test_a_halted_device(kind: HaltReset) -> None:
    bench = made("service=1us", f"nth=3: halt={kind.name.lower()}")
    records = [bench.page() for _ in range(3)]
    bench.advance(10**6)
    assert ended(bench, records) == []
    assert bench.word(reg.GENSTATS) == DeviceState.HALT | kind << 2
    assert bench.word(reg.INTCAUSE) == 0x10
    assert bench.fired == [0]
    bench.page()
    assert bench.word(reg.SWERR, 8) >> 8 & 0xFF == SWERR_QUEUE_OFF
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.HW_ERR
    status = bench.command(Command.RESET_DEVICE)
    assert status == (CommandStatus.SUCCESS if kind == HaltReset.SOFTWARE else CommandStatus.HW_ERR)
    bench.device.write(7, 0x48, b"\0\x80")
    assert bench.word(reg.GENSTATS) == 0
    bench.write(reg.INTCAUSE, 0xFFFFFFFF)
    bench.set_up()
    record = bench.page()
    bench.advance(bench.now + 1000)
    assert bench.record(record).ends == (Status.SUCCESS, 0)
    bench.close()


def test_halting_interrupts_only_where_that_is_asked_for() -> None:
    bench = made(plan="nth=1: halt=software")
    bench.write(reg.GENCTRL, 1)
    bench.page()
    assert bench.word(reg.GENSTATS) == DeviceState.HALT
    assert bench.fired == []
    bench.close()


def test_a_reset_in_flight() -> None:
    bench = made("service=1us", "nth=2: reset")
    records = [bench.page(), bench.page()]
    bench.advance(10**6)
    assert ended(bench, records) == []
    assert (bench.word(reg.GENSTATS), bench.word(reg.WQCFG)) == (0, 0)
    assert bench.fired == []
    bench.set_up()
    record = bench.page()
    bench.advance(bench.now + 1000)
    assert bench.record(record).status == Status.SUCCESS
    bench.close()


def test_rules_look_at_first_bytes_and_time(tmp_path: Path) -> None:
    bench = made(plan="bytes=4d5a: status=0x24\nafter=1ms before=2ms: status=0x20", log=tmp_path / "jobs")
    start = bench.device._enabled_at or 0
    bench.now = start
    bench.put(0x10000, b"MZ")
    assert bench.compress().status == 0x24
    bench.put(0x10000, b"NZ")
    assert bench.compress().status == 1
    for now, wanted in ((start + 999_999, 1), (start + 10**6, 0x20), (start + 2 * 10**6 - 1, 0x20), (start + 2 * 10**6, 1)):
        bench.now = now
        assert bench.compress().status == wanted
    # A source that is not there begins with nothing.
    assert bench.job(Opcode.MEMMOVE, 0, 10, 0x20000, 0, src1_addr=0).status == Status.PAGE_FAULT_IR
    bench.close()
    assert [line.get("rule") for line in logged(tmp_path / "jobs")[1:]] == [1, None, None, 2, 2, None, None]


def test_rules_of_one_device_leave_another_alone() -> None:
    benches = [Bench(plan="device=1: status=0x24", number=number).set_up() for number in (0, 1)]
    for bench in benches:
        bench.put(0x10000, PAGE)
    assert [bench.compress().status for bench in benches] == [1, 0x24]
    for bench in benches:
        bench.close()
