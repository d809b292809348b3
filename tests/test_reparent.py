# SPDX-License-Identifier: GPL-2.0-or-later
"""Cgroups that go away: whose an obj_cgroup is that is charged again, and which list is meant while it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from settingbox import SettingBox, both, check

from replay.tools.cut import cut
from traces.recording import Recording


def gone(*, kept: int = 0) -> SettingBox:
    """A box whose cgroup /a/c went away after it was charged three pages, of which ``kept`` are left."""
    box = SettingBox("/a", "/b")
    box.create("/a/c")
    for number in range(3):
        box.store("/a/c", number)
    for number in range(kept, 3):
        # A task that exits: nothing more of it is seen.
        box.free("/a/c", number, task=200 + number)
    box.remove("/a/c")
    return box


def verdict(box: SettingBox, tmp_path: Path) -> tuple[str, int]:
    """Return both engines' verdict, and how many comparisons of the LRU's order differ.

    The box has no probes of zsmalloc, so that nothing is a FAIL.
    """
    result = both(box.recording(tmp_path / "rec"))
    return result.verdict, check(result, "lru.order").different


@pytest.mark.parametrize("memcg", [False, True])
@pytest.mark.parametrize("parent", ["/b", "/a"])
def test_an_address_that_is_used_again_is_another_cgroups(parent: str, memcg: bool, tmp_path: Path) -> None:
    box = gone()
    box.create(f"{parent}/d", box.objcg("/a/c"), box.memcg("/a/c") if memcg else 0)
    for number in range(10, 13):
        box.store(f"{parent}/d", number)
    for number in range(10, 12):
        box.free(f"{parent}/d", number)
    assert verdict(box, tmp_path) == ("PASS", 0)


def test_what_else_is_charged_to_an_obj_cgroup_may_keep_it(tmp_path: Path) -> None:
    """Pages and slab objects do: an entry that is charged to it then is its parent's."""
    box = gone()
    for number in range(10, 13):
        box.store("/a/c", number, wait=True)
        box.stored("/a", number)
        box.free("/a/c", number, now="/a")
    assert verdict(box, tmp_path) == ("PASS", 0)


def test_entries_keep_an_obj_cgroup(tmp_path: Path) -> None:
    box = gone(kept=1)
    box.store("/a/c", 10, wait=True)
    box.stored("/b", 10)
    assert verdict(box, tmp_path) == ("UNDECIDED", 1)


def test_entries_of_one_obj_cgroup_go_to_one_cgroups_lists(tmp_path: Path) -> None:
    box = gone()
    box.store("/a/c", 10, wait=True)
    box.stored("/b", 10)
    box.store("/a/c", 11, wait=True)
    box.stored("/a", 11)
    assert verdict(box, tmp_path) == ("UNDECIDED", 1)


def test_a_store_under_way_keeps_an_obj_cgroup(tmp_path: Path) -> None:
    """Its task has not continued from the charge; another one's does not make the cgroup unknown once more."""
    box = gone()
    box.store("/a/c", 10, wait=True)
    box.store("/a/c", 11, task=101, wait=True)
    box.stored("/b", 11, task=101)
    box.store("/a/c", 12, task=102, wait=True)
    box.stored("/b", 12, task=102)
    box.free("/a/c", 11, task=101, now="/b")
    box.free("/a/c", 12, task=102, now="/b")
    box.store("/a/c", 13, task=103, wait=True)
    box.stored("/a", 13, task=103)
    box.stored("/b", 10)
    assert verdict(box, tmp_path) == ("UNDECIDED", 1)


def test_an_uncharge_that_is_not_counted_yet_counts(tmp_path: Path) -> None:
    """The last entry ends in a task that shows nothing more; the address is another's soon after."""
    box = gone(kept=1)
    box.free("/a/c", 0, task=300, now="/a")
    box.create("/b/d", box.objcg("/a/c"))
    box.store("/b/d", 10)
    assert verdict(box, tmp_path) == ("PASS", 0)


@pytest.mark.parametrize("early", [True, False])
def test_while_a_cgroup_goes_away_its_entries_are_listed_under_either_name(early: bool, tmp_path: Path) -> None:
    """Obj_cgroups are the parent's before the lists are in 6.12, after them in 7.3."""
    box = SettingBox("/a", "/b")
    box.create("/a/c")
    for number in range(3):
        box.store("/a/c", number)

    def meanwhile() -> None:
        box.store("/a/c", 3, wait=True)
        box.stored("/a" if early else "/a/c", 3)
        box.free("/a/c", 0, now="/a" if early else "/a/c")

    box.remove("/a/c", *((meanwhile,) if early else (bool, meanwhile)))
    for number in range(1, 4):
        box.free("/a/c", number, now="/a")
    assert verdict(box, tmp_path) == ("PASS", 0)


@pytest.mark.parametrize("early", [True, False])
def test_no_other_cgroup_is_meant(early: bool, tmp_path: Path) -> None:
    box = SettingBox("/a", "/b")
    box.create("/a/c")
    box.store("/a/c", 0)

    def meanwhile() -> None:
        box.store("/a/c", 1, wait=True)
        box.stored("/b", 1)

    box.remove("/a/c", *((meanwhile,) if early else (bool, meanwhile)))
    assert verdict(box, tmp_path) == ("UNDECIDED", 1)


@pytest.mark.parametrize("again", [False, True])
def test_counters_of_an_address_that_is_used_again_are_of_two_cgroups(again: bool, tmp_path: Path) -> None:
    """What the snapshots' cgroup has counted is not what both together have."""
    box = SettingBox("/a", "/b")
    box.snapshots[0][2]["memcg"] = {"memory.stat": "zswpout 0\n"}
    box.create("/a/c")
    box.store("/a/c", 0)
    if again:
        box.free("/a/c", 0)
        box.remove("/a/c")
        box.create("/b/d", box.objcg("/a/c"))
        box.store("/b/d", 1)
    box.snapshot("end")
    box.snapshots[-1][2]["memcg"] = {"memory.stat": "zswpout 1\n"}
    result = both(box.recording(tmp_path / "rec"))
    assert not any(each.different for each in result.checks)
    assert check(result, "counter.memcg.zswpout").compared == (0 if again else 1)
    if again:
        assert "2 cgroups were charged" in check(result, "counter.memcg.zswpout").reason


def test_a_cut_knows_it_too(tmp_path: Path) -> None:
    box = gone(kept=1)
    first = len(box.rows)
    box.store("/b", 20)
    # Still named as it was: 7.3 reparents obj_cgroups late.
    box.store("/a/c", 10)
    box.free("/a/c", 0)
    box.free("/a/c", 10, now="/a")
    box.create("/b/d", box.objcg("/a/c"))
    box.store("/b/d", 22)
    cut(box.recording(tmp_path / "rec"), tmp_path / "cut", first, len(box.rows))
    assert both(Recording(tmp_path / "cut")).verdict == "PASS"
