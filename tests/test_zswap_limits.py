# SPDX-License-Identifier: GPL-2.0-or-later
"""The pool limit with its acceptance threshold, and memory.zswap.max."""

from __future__ import annotations

import pytest
from modelrun import EVERY, MEMCG, PROLOGUE, WB_ENABLED, Box, full_at, stored, totals

from model import errno

# ---- pool limit -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("revision", EVERY)
def test_pool_limit_and_acceptance_threshold(revision: str) -> None:
    """At the limit: counted.  Below it but above the threshold: refused in silence.  At the threshold: accepted."""
    box = full_at(20, 10, revision)
    for slot in range(20):
        assert box.store(slot), slot
    assert box.model.total_pages() == 20
    assert "pool_limit_hit" not in box.counters()
    assert not box.store(100)
    assert box.names == [*PROLOGUE, "zswap_store_ret"]
    assert box.seen[2] == ("zs_get_total_pages_ret", 20)
    assert box.counters()["pool_limit_hit"] == 1
    assert box.model.pool_reached_full
    for slot in range(9):
        box.invalidate(slot)
    assert box.model.total_pages() == 11
    assert not box.store(100)
    assert box.counters()["pool_limit_hit"] == 1
    box.invalidate(9)
    assert box.store(100)
    assert not box.model.pool_reached_full
    assert box.store(101)
    assert box.counters()["pool_limit_hit"] == 1
    assert not any(name.startswith("reject") for name in box.counters())
    box.check_balance()


@pytest.mark.parametrize("pages", [19, 20, 21])
def test_limit_is_reached_at_exactly_its_pages(pages: int) -> None:
    box = Box(length=4000, totalram_pages=100)
    box.model.max_pool_percent = 100
    for slot in range(pages):
        assert box.store(slot)
    box.model.max_pool_percent = 20
    assert box.store(99) == (pages < 20)
    assert box.counters().get("pool_limit_hit", 0) == (pages >= 20)


def test_all_pools_count_towards_the_limit() -> None:
    box = Box(length=4000, totalram_pages=100)
    for slot in range(20):
        if slot == 12:
            box.model.set_param("compressor", "zstd")
        assert box.store(slot)
    assert not box.store(20)
    assert totals(box) == [8, 12]
    assert box.counters()["pool_limit_hit"] == 1


def test_the_limit_goes_by_the_total_that_was_read() -> None:
    box = full_at(20, 10, "mainline-7.3")
    assert box.store(1, zs_get_total_pages_ret=19)
    assert not box.store(2, zs_get_total_pages_ret=20)


def test_limits_are_divided_twice() -> None:
    """totalram * percent / 100, and that * percent / 100: whole pages each time."""
    box = Box(totalram_pages=1007)
    assert (box.model.max_pages(), box.model.accept_thr_pages()) == (201, 180)
    box.model.max_pool_percent, box.model.accept_threshold_percent = 33, 99
    assert (box.model.max_pages(), box.model.accept_thr_pages()) == (332, 328)


def test_the_total_is_what_each_pool_had_when_it_was_read() -> None:
    """Another task may take pages between the reading and the decision: they do not count."""
    box = full_at(1, 1, "mainline-7.3")
    steps = box.model.zswap_check_limits()
    assert next(steps) == ("zs_get_total_pages_ret", 0)
    box.model.pools[0].zs_pool.pages_allocated = 5
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value is False


# ---- memory.zswap.max -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("revision", EVERY)
def test_cgroup_at_its_limit_and_nothing_written_back(revision: str) -> None:
    """A refusal by the cgroup moves no counter of zswap's."""
    box = stored(1, revision=revision)
    before = box.counters()
    assert not box.store(7, obj_cgroup_may_zswap_ret=False, shrink_memcg=MEMCG)
    assert box.names == ["zswap_store", "obj_cgroup_may_zswap_ret", "shrink_memcg", WB_ENABLED, "shrink_memcg_cb",
                         "shrink_memcg_cb_ret", "shrink_memcg_ret", "zswap_store_ret"]
    assert ("shrink_memcg_ret", errno.EAGAIN) in box.seen
    assert box.counters() == before


@pytest.mark.parametrize("revision", EVERY)
def test_cgroup_at_its_limit_goes_on_once_something_was_written_back(revision: str) -> None:
    box = stored(1, 2, revision=revision)
    box.model.tree[1].referenced = False
    assert box.store(7, obj_cgroup_may_zswap_ret=False, shrink_memcg=MEMCG)
    assert box.names.index("shrink_memcg_ret") < box.names.index("zs_get_total_pages_ret")
    assert box.names.count("obj_cgroup_may_zswap_ret") == 1
    assert ("shrink_memcg_ret", 0) in box.seen
    assert 1 not in box.model.tree
    box.check_balance()


@pytest.mark.parametrize(("limit", "refused"), [("max", False), ("0", True), ("4095", True), ("4096", False),
                                                ("8191", False), ("8192", False), ("1K", True), ("1M", False)])
def test_cgroup_limit_in_pages(limit: str, refused: bool) -> None:
    """memory.zswap.max is kept in pages, rounded down; usage is rounded down too: one page may come on top."""
    box = stored(1, length=4000)
    box.model.set_param("memory.zswap.max", limit)
    assert box.store(2) != refused


def test_usage_of_whole_pages_reaches_the_limit() -> None:
    box = stored(1, length=errno.EINVAL)
    box.model.set_param("memory.zswap.max", "4096")
    assert not box.store(2, shrink_memcg=MEMCG)
    assert ("obj_cgroup_may_zswap_ret", False) in box.seen


@pytest.mark.parametrize("revision", EVERY)
def test_folio_of_nobody(revision: str) -> None:
    """Up to 7.0 the root cgroup's folios have no obj_cgroup: asked for nothing, charged nothing."""
    box = Box(revision)
    box.objcg = None
    assert box.store(7)
    asked = revision in ("mainline-7.1", "mainline-7.2", "mainline-7.3")
    assert ("obj_cgroup_may_zswap_ret" in box.names) == asked
    assert ("obj_cgroup_charge_zswap" in box.names) == asked
    assert ("?objcg" in box.asked) != asked
    assert box.counters() == {"stored_pages": 1, "zswpout": 1}
    box.invalidate(7)
    assert "obj_cgroup_uncharge_zswap" not in box.names
    assert box.counters() == {"zswpout": 1}
