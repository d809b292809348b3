# SPDX-License-Identifier: GPL-2.0-or-later
"""model/list_lru.py: the walk of mm/list_lru.c, with callbacks that return what zswap's returns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.effects import Steps, run
from model.list_lru import LRU_REMOVED_RETRY, LRU_RETRY, LRU_ROTATE, LRU_STOP, ListLru

KEY = (0, 1)


def lru_of(*items: str, key: tuple[int, int] = KEY) -> ListLru[str]:
    """Return an LRU with items, oldest first."""
    lru: ListLru[str] = ListLru()
    for item in items:
        assert lru.add(key, item)
    return lru


def walk(lru: ListLru[str], status: Callable[[str], int], budget: int,
         key: tuple[int, int] = KEY) -> tuple[list[str], int, int]:
    """Walk; returns (items looked at, items removed, budget left)."""
    looked: list[str] = []

    def callback(item: str) -> Steps[int]:
        looked.append(item)
        yield ("callback", item)
        result = status(item)
        if result == LRU_REMOVED_RETRY:
            # what zswap_entry_free() does inside the callback
            assert lru.delete(key, item)
        return result

    removed, left = run(lru.walk_one(key, callback, budget))
    return looked, removed, left


def order(lru: ListLru[str], key: tuple[int, int] = KEY) -> list[str]:
    """Return a list, next to be looked at first."""
    return list(lru.lists[key])


def test_values_of_enum_lru_status() -> None:
    assert (LRU_REMOVED_RETRY, LRU_ROTATE, LRU_RETRY, LRU_STOP) == (1, 2, 4, 5)


def test_add_and_delete() -> None:
    lru = lru_of("a", "b")
    assert not lru.add(KEY, "a")
    assert order(lru) == ["a", "b"]
    assert lru.add((1, 1), "c")
    assert lru.add((0, 2), "d")
    assert [lru.count(key) for key in (KEY, (1, 1), (0, 2), (9, 9))] == [2, 1, 1, 0]
    assert list(lru.nodes(1)) == [0, 1]
    assert list(lru.nodes(2)) == [0]
    assert list(lru.nodes(3)) == []
    assert lru.delete(KEY, "a")
    assert not lru.delete(KEY, "a")
    assert not lru.delete((9, 9), "a")
    assert lru.add(KEY, "a")
    assert order(lru) == ["b", "a"]


@pytest.mark.parametrize("budget", [0, 1, 2, 3])
def test_rotation_stops_at_the_budget(budget: int) -> None:
    lru = lru_of("a", "b", "c")
    looked, removed, left = walk(lru, lambda item: LRU_ROTATE, budget)
    assert looked == ["a", "b", "c"][:budget]
    assert (removed, left) == (0, 0)
    assert order(lru) == (["a", "b", "c"][budget:] + ["a", "b", "c"][:budget])


def test_rotation_goes_round_as_long_as_there_are_two() -> None:
    """The successor is saved before the callback; of the last item it is the one rotated first."""
    looked, _, left = walk(lru_of("a", "b"), lambda item: LRU_ROTATE, 5)
    assert (looked, left) == (["a", "b", "a", "b", "a"], 0)


def test_a_lone_rotated_item_ends_the_walk() -> None:
    """Its successor is the list's head: the kernel's loop is over though budget is left."""
    looked, removed, left = walk(lru_of("a"), lambda item: LRU_ROTATE, 32)
    assert (looked, removed, left) == (["a"], 0, 31)


def test_removals_restart_at_the_head() -> None:
    lru = lru_of("a", "b", "c")
    looked, removed, left = walk(lru, lambda item: LRU_REMOVED_RETRY, 2)
    assert (looked, removed, left) == (["a", "b"], 2, 0)
    assert order(lru) == ["c"]
    assert walk(lru, lambda item: LRU_REMOVED_RETRY, 32) == (["c"], 1, 31)


def test_a_failed_item_goes_to_the_tail() -> None:
    lru = lru_of("a", "b", "c")
    looked, removed, left = walk(lru, lambda item: LRU_RETRY, 1)
    assert (looked, removed, left) == (["a"], 0, 0)
    assert order(lru) == ["b", "c", "a"]


def test_retries_use_up_the_budget_on_a_lone_item() -> None:
    """A retry restarts the walk: unlike a rotated one, a lone item that fails is tried again and again."""
    looked, removed, left = walk(lru_of("a"), lambda item: LRU_RETRY, 4)
    assert (looked, removed, left) == (["a"] * 4, 0, 0)


def test_stop_ends_the_walk() -> None:
    lru = lru_of("a", "b")
    assert walk(lru, lambda item: LRU_STOP, 9) == (["a"], 0, 8)
    assert order(lru) == ["b", "a"]


def test_other_lists_are_left_alone() -> None:
    lru = lru_of("a")
    lru.add((1, 1), "b")
    lru.add((0, 2), "c")
    assert walk(lru, lambda item: LRU_REMOVED_RETRY, 32)[0] == ["a"]
    assert (order(lru, (1, 1)), order(lru, (0, 2))) == (["b"], ["c"])
    assert walk(lru, lambda item: LRU_ROTATE, 3, key=(7, 7)) == ([], 0, 3)


def test_an_item_that_vanishes_during_its_callback() -> None:
    """The callback drops the lock for a writeback: a load on another CPU may free the entry meanwhile."""
    lru = lru_of("a", "b")

    def fail(item: str) -> Steps[int]:
        lru.delete(KEY, item)
        lru.add(KEY, "c")
        yield ("callback", item)
        return LRU_RETRY

    assert run(lru.walk_one(KEY, fail, 1)) == (0, 0)
    assert order(lru) == ["b", "c"]


def test_an_item_added_after_a_rotation_comes_behind_the_rotated_one() -> None:
    """The rotation happens under the list lock, an item that another CPU adds comes after it."""
    lru = lru_of("a", "b")

    def rotate(item: str) -> Steps[int]:
        lru.add(KEY, "c")
        yield ("callback", item)
        return LRU_ROTATE

    run(lru.walk_one(KEY, rotate, 1))
    assert order(lru) == ["b", "a", "c"]


class Node:
    """struct list_head with a name, linked as the kernel links it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.next = self.prev = self

    def unlink(self) -> None:
        """list_del_init()"""
        self.prev.next, self.next.prev = self.next, self.prev
        self.next = self.prev = self

    def add_before(self, head: Node) -> None:
        """list_add_tail()"""
        self.prev, self.next = head.prev, head
        head.prev.next = self
        head.prev = self


def kernel_walk(names: str, statuses: list[int], budget: int) -> tuple[list[str], int, int, list[str]]:
    """__list_lru_walk_one() with pointers, as in C: an independent reading of mm/list_lru.c."""
    head = Node("")
    for name in names:
        Node(name).add_before(head)
    looked: list[str] = []
    isolated = 0
    answers = iter(statuses)
    restart = True
    while restart:
        restart = False
        item = head.next
        while item is not head:
            saved = item.next
            if not budget:
                break
            budget -= 1
            looked.append(item.name)
            status = next(answers, LRU_ROTATE)
            if status != LRU_ROTATE:
                item.unlink()
                item.add_before(head)
            if status == LRU_REMOVED_RETRY:
                item.unlink()
                isolated += 1
            if status == LRU_ROTATE:
                item.unlink()
                item.add_before(head)
            if status in (LRU_REMOVED_RETRY, LRU_RETRY):
                restart = True
                break
            if status == LRU_STOP:
                break
            item = saved
    left, item = [], head.next
    while item is not head:
        left.append(item.name)
        item = item.next
    return looked, isolated, budget, left


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(count=st.integers(0, 6), budget=st.integers(0, 12),
       statuses=st.lists(st.sampled_from([LRU_ROTATE, LRU_REMOVED_RETRY, LRU_RETRY, LRU_STOP]), max_size=12))
def test_any_walk_goes_as_the_kernels_pointers_go(count: int, budget: int, statuses: list[int]) -> None:
    names = "abcdef"[:count]
    lru = lru_of(*names) if names else ListLru()
    answers = iter(statuses)
    looked, removed, left = walk(lru, lambda item: next(answers, LRU_ROTATE), budget)
    assert (looked, removed, left, list(lru.lists.get(KEY, ()))) == kernel_walk(names, statuses, budget)
