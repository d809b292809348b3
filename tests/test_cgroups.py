# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits and writeback along the hierarchy of cgroups, and what a recording says of a setting over time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.cgroups import EITHER, Cgroup, Cgroups
from model.memcg import UNLIMITED
from model.page import PAGE_SIZE
from replay.reference.settingtracks import Track, limit_of, switch_of

YES, NO = frozenset({True}), frozenset({False})


def box(*limits: int | None, root: bool = True, writeback: bool | None = True) -> tuple[Cgroups, Cgroup]:
    """Cgroups one below the other, the root first, with these limits in pages; returns the lowest too."""
    cgroups = Cgroups()
    cgroup = cgroups.add(1, None, is_root=root)
    cgroup.zswap_writeback = YES
    for number, limit in enumerate(limits, 2):
        cgroup = cgroups.add(number, cgroup)
        cgroup.zswap_max = None if limit is None else frozenset({limit})
        cgroup.zswap_writeback = None if writeback is None else frozenset({writeback})
    return cgroups, cgroup


def asked(cgroups: Cgroups, cgroup: Cgroup | None, *held: int) -> frozenset[bool]:
    """Ask for one more page; the cgroup, its parent and so on hold ``held`` bytes."""
    chain = list(cgroup.up()) if cgroup is not None else []
    return cgroups.may_zswap(cgroup, lambda at: (held[chain.index(at)], held[chain.index(at)]))


@pytest.mark.parametrize(("limits", "held", "answer"), [
    ([UNLIMITED], [0], YES), ([0], [0], NO), ([1], [0], YES), ([1], [PAGE_SIZE - 1], YES), ([1], [PAGE_SIZE], NO),
    # A parent's limit is one for all below it.
    ([2, UNLIMITED], [0, 2 * PAGE_SIZE], NO), ([2, UNLIMITED], [0, 2 * PAGE_SIZE - 1], YES),
    ([0, UNLIMITED, UNLIMITED], [0, 0, 0], NO), ([UNLIMITED, 3, UNLIMITED], [0, 3 * PAGE_SIZE, 9 * PAGE_SIZE], NO),
    ([5, 3], [2 * PAGE_SIZE, 5 * PAGE_SIZE], NO), ([5, 3], [2 * PAGE_SIZE, 4 * PAGE_SIZE], YES),
    ([], [], YES)])
def test_every_limit_from_a_cgroup_up_counts(limits: list[int], held: list[int], answer: frozenset[bool]) -> None:
    cgroups, lowest = box(*limits)
    assert asked(cgroups, lowest, *held) == answer


@pytest.mark.parametrize(("limits", "root", "answer"), [
    ([None], True, EITHER), ([None, 0], True, NO), ([0, None], True, NO), ([None, UNLIMITED], True, EITHER),
    ([UNLIMITED], False, EITHER), ([0], False, NO)])
def test_what_nothing_says_may_be_either_unless_another_limit_refuses(limits: list[int | None], root: bool,
                                                                      answer: frozenset[bool]) -> None:
    cgroups, lowest = box(*limits, root=root)
    assert asked(cgroups, lowest, *[0] * len(limits)) == answer
    assert asked(cgroups, None) == EITHER


def test_a_limit_that_is_being_written_is_the_old_or_the_new_one() -> None:
    cgroups, lowest = box(1)
    lowest.zswap_max = frozenset({1, UNLIMITED})
    assert asked(cgroups, lowest, 0) == YES
    assert asked(cgroups, lowest, PAGE_SIZE) == EITHER


def test_what_is_being_charged_may_be_over_a_limit_or_under_it() -> None:
    cgroups, lowest = box(1)
    assert cgroups.may_zswap(lowest, lambda at: (PAGE_SIZE - 1, PAGE_SIZE)) == EITHER


def test_writeback_is_forbidden_by_any_cgroup_above_the_root_too() -> None:
    cgroups, lowest = box(UNLIMITED, UNLIMITED)
    chain = list(lowest.up())
    assert cgroups.writeback_enabled(lowest) == YES
    for at in chain:
        at.zswap_writeback = NO
        assert cgroups.writeback_enabled(lowest) == NO
        at.zswap_writeback = None
        assert cgroups.writeback_enabled(lowest) == EITHER
        at.zswap_writeback = YES
    assert cgroups.writeback_enabled(None) == EITHER
    chain[-1].is_root = False
    assert cgroups.writeback_enabled(lowest) == EITHER


def test_children_stand_in_the_order_in_which_they_came() -> None:
    cgroups = Cgroups()
    root = cgroups.add(1, None, is_root=True)
    children = [cgroups.add(number, root) for number in (7, 3, 5)]
    assert root.children == children
    cgroups.offline(children[1])
    assert not children[1].online
    assert 3 not in cgroups.by_id
    # The controller was taken away and given back: another mem_cgroup of the same directory.
    again = cgroups.add(7, root)
    assert cgroups.by_id[7] is again
    assert not children[0].online


@pytest.mark.parametrize(("text", "pages"), [
    ("max", UNLIMITED), (" max\n", UNLIMITED), ("0", 0), ("4095", 0), ("4096", 1), ("1M", 256), ("1m\n", 256),
    ("0x2000", 2), ("020000", 2), ("4K", 1), ("K", 0), ("", 0), ("\n", 0), ("1G", 1 << 18),
    ("9223372036854775807", UNLIMITED), ("18446744073709551616", 0),
    ("lots", None), ("4KB", None), ("-1", None), ("1_000", None), ("08", None), ("4 K", None), ("1.5M", None)])
def test_memory_zswap_max_is_read_as_the_kernel_does(text: str, pages: int | None) -> None:
    assert limit_of(text) == pages


@pytest.mark.parametrize(("text", "on"), [
    ("0", False), ("1\n", True), (" 1 ", True), ("+1", True), ("-0", False), ("0x1", True), ("01", True), ("00", False),
    ("2", None), ("-1", None), ("", None), ("y", None), ("1 0", None)])
def test_memory_zswap_writeback_is_read_as_the_kernel_does(text: str, on: bool | None) -> None:
    assert switch_of(text) == on


# ---- a setting over time --------------------------------------------------------------------------------------


def track(certain: bool = True) -> Track[int]:
    return Track(0, None, certain)


def at(setting: Track[int], event: int) -> frozenset[int] | None:
    """What it may be at an event."""
    return [values for begin, values in setting.steps() if begin <= event][-1]


def test_what_is_read_first_was_so_from_the_beginning() -> None:
    setting = track()
    setting.read(50, 1000, 7, "before")
    assert setting.steps() == [(0, {7})]


def test_a_write_holds_from_its_return_on_and_may_from_its_entry_on() -> None:
    setting = track()
    setting.read(5, 10, 7, "before")
    setting.enter(20, 200, 1, 9)
    setting.leave(30, 300, 1, True)
    assert [at(setting, event) for event in (6, 19, 20, 29, 30)] == [{7}, {7}, {7, 9}, {7, 9}, {9}]
    setting.read(40, 400, 9, "end")
    assert setting.contradiction is None


def test_a_write_that_is_refused_changes_nothing() -> None:
    setting = track()
    setting.read(5, 10, 7, "before")
    setting.enter(20, 200, 1, None)
    setting.leave(30, 300, 1, False)
    assert at(setting, 30) == {7}
    assert not setting.leave(31, 310, 1, True)


def test_before_the_first_write_nothing_says_what_was() -> None:
    setting = track()
    setting.enter(20, 200, 1, 9)
    setting.leave(30, 300, 1, True)
    setting.read(40, 400, 9, "before")
    assert [at(setting, event) for event in (0, 20, 30)] == [None, None, {9}]


def test_of_two_writes_at_one_time_either_may_be_the_last() -> None:
    setting = track()
    setting.read(5, 10, 7, "before")
    setting.enter(20, 200, 1, 8)
    setting.enter(21, 210, 2, 9)
    setting.leave(22, 220, 1, True)
    assert at(setting, 22) == {7, 8, 9}
    setting.leave(23, 230, 2, True)
    assert at(setting, 23) == {8, 9}
    setting.read(40, 400, 8, "end")
    assert at(setting, 40) == {8}
    assert setting.contradiction is None


def test_a_write_of_unknown_text_leaves_what_the_next_snapshot_reads() -> None:
    setting = track()
    setting.read(5, 10, 7, "before")
    setting.enter(20, 200, 1, None)
    setting.leave(30, 300, 1, True)
    assert at(setting, 30) is None
    setting.read(40, 400, 9, "end")
    assert [at(setting, event) for event in (19, 20, 30)] == [{7}, None, {9}]


def test_a_snapshot_that_no_write_explains_contradicts_all_that_was_known() -> None:
    setting = track()
    setting.read(5, 10, 7, "before")
    setting.read(40, 400, 8, "end")
    assert setting.contradiction == "end"
    assert setting.steps() == [(0, None)]


def test_a_snapshot_that_was_read_during_a_write_says_nothing() -> None:
    setting = track()
    setting.read(5, 10, 7, "before")
    setting.enter(20, 200, 1, 9)
    setting.read(25, 190, 7, "between")
    setting.leave(30, 300, 1, True)
    setting.read(35, 250, 7, "late")
    assert setting.contradiction is None
    assert at(setting, 35) == {9}


def test_without_probes_on_the_writes_nothing_is_known() -> None:
    setting = track(certain=False)
    setting.read(5, 10, 7, "before")
    assert at(setting, 5) is None


def test_after_a_reset_nothing_is_known_until_somebody_reads_it() -> None:
    setting = track()
    setting.read(5, 10, 7, "before")
    setting.forget(20, 200)
    assert at(setting, 20) is None
    setting.read(30, 300, 1, "next")
    assert [at(setting, event) for event in (29, 30)] == [None, {1}]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=30), st.integers(0, 3))
def test_what_a_setting_really_is_is_among_what_it_may_be(steps: list[tuple[int, int, bool]], first: int) -> None:
    """A kernel that takes each write at its return: what it has is never left out, and no snapshot contradicts."""
    setting: Track[int] = Track(0, None, True)
    real, under_way, history = first, {}, []
    for number, (value, task, good) in enumerate(steps, 1):
        if task == 2:
            setting.read(number, number * 10 - 1, real, "s")
        elif task in under_way:
            wanted = under_way.pop(task)
            real = wanted if good else real
            setting.leave(number, number * 10, task, good)
        else:
            under_way[task] = value
            setting.enter(number, number * 10, task, value)
        history.append((number, real))
    assert setting.contradiction is None
    for number, value in history:
        values = at(setting, number)
        assert values is None or value in values
