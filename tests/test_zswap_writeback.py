# SPDX-License-Identifier: GPL-2.0-or-later
"""Writeback: the LRU walk and its second chance, the worker, the dynamic shrinker."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from modelrun import EVERY, FREE_LAST, LATER, MEMCG, READ, V612, WB_ENABLED, Box, full_at, stored

from model import errno

# ---- writeback ------------------------------------------------------------------------------------------------

def wb_names(revision: str, *inside: str) -> list[str]:
    """Return the callback's effects around ``inside``; only 6.12's writeback is a function of its own."""
    around = (["zswap_writeback_entry"], ["zswap_writeback_entry_ret"]) if revision == V612 else ([], [])
    return ["shrink_memcg_cb", *around[0], *inside, *around[1], "shrink_memcg_cb_ret"]


def only(box: Box) -> list[str]:
    """Return the names of the callback's effects in a shrink_memcg()."""
    assert box.names[:2] == ["shrink_memcg", WB_ENABLED]
    assert box.names[-1] == "shrink_memcg_ret"
    return box.names[2:-1]


@pytest.mark.parametrize("revision", EVERY)
def test_writeback(revision: str) -> None:
    box = stored(7, revision=revision)
    box.model.tree[7].referenced = False
    assert box.shrink() == 0
    assert only(box) == wb_names(revision, *READ, *FREE_LAST, "__swap_writepage")
    assert ("shrink_memcg_cb_ret", 1) in box.seen
    assert box.counters() == {"zswpout": 1, "memcg.zswpout": 1, "zswpwb": 1, "memcg.zswpwb": 1,
                              "written_back_pages": 1, "pswpout": 1}
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
@pytest.mark.parametrize("failure", [errno.EEXIST, errno.ENOMEM, errno.ENOENT])
def test_writeback_without_a_swap_cache_folio(revision: str, failure: int) -> None:
    box = stored(7, 8, revision=revision)
    for entry in box.model.tree.values():
        entry.referenced = False
    attempts = box.model.SHRINK_BUDGET
    assert box.shrink(q_swap_cache_alloc=failure) == errno.EAGAIN
    assert only(box) == wb_names(revision) * attempts
    assert box.counters()["reject_reclaim_fail"] == attempts
    assert box.counters()["stored_pages"] == 2
    # the failed one goes to the tail, once per attempt
    assert box.lru() == ([8, 7] if attempts % 2 else [7, 8])
    if revision == V612:
        # only -EEXIST can be distinguished there
        expected = failure if failure == errno.EEXIST else errno.ENOMEM
        assert ("zswap_writeback_entry_ret", expected) in box.seen
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_errno_of_a_writeback_without_a_folio(revision: str) -> None:
    """Up to 7.1 a freed slot looks like lack of memory."""
    box = stored(7, revision=revision)
    entry = box.model.tree[7]
    distinct = revision in ("mainline-7.2", "mainline-7.3")
    for failure, expected in ((errno.EEXIST, errno.EEXIST), (errno.ENOMEM, errno.ENOMEM),
                              (errno.ENOENT, errno.ENOENT if distinct else errno.ENOMEM)):
        assert box.do(box.model.zswap_writeback_entry(entry, 7), q_swap_cache_alloc=failure) == expected


@pytest.mark.parametrize("revision", EVERY)
def test_writeback_of_an_entry_that_was_replaced(revision: str) -> None:
    """The slot was freed and stored again while no lock was held: the tree holds another entry."""
    box = stored(7, revision=revision)
    old = box.model.tree[7]
    assert box.store(7)
    assert box.do(box.model.zswap_writeback_entry(old, 7)) == errno.ENOMEM
    assert "zswap_decompress" not in box.names
    assert box.counters()["stored_pages"] == 1


@pytest.mark.parametrize("revision", LATER)
def test_writeback_that_cannot_be_decompressed(revision: str) -> None:
    box = stored(7, revision=revision)
    box.model.tree[7].referenced = False
    budget = box.model.SHRINK_BUDGET
    assert box.shrink(crypto_acomp_decompress_ret=(errno.EIO, 0)) == errno.EAGAIN
    assert only(box) == wb_names(revision, *READ) * budget
    assert (box.counters()["decompress_fail"], box.counters()["reject_reclaim_fail"]) == (budget, budget)
    assert "zswpwb" not in box.counters()
    assert box.do(box.model.zswap_writeback_entry(box.model.tree[7], 7),
                  crypto_acomp_decompress_ret=(errno.EIO, 0)) == errno.EIO
    box.check_balance()


def test_6_12_has_no_counter_for_data_that_cannot_be_decompressed() -> None:
    box = stored(7, revision=V612)
    box.load(7, crypto_acomp_decompress_ret=(errno.EIO, 0))
    assert "decompress_fail" not in box.counters()


@pytest.mark.parametrize("revision", EVERY)
def test_entry_freed_by_a_load_while_it_is_written_back(revision: str) -> None:
    """Between the callback's begin and end another CPU loads the page: the walk must survive its absence."""
    box = stored(7, 8, revision=revision)
    box.model.tree[7].referenced = False
    steps = box.model.shrink_memcg_cb(box.model.tree[7])
    assert next(steps)[0] == "shrink_memcg_cb"
    box.load(7)
    assert box.do(steps, q_swap_cache_alloc=errno.EEXIST) == 4
    assert box.lru() == [8]
    box.check_balance()


# ---- LRU, second chance ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("revision", EVERY)
def test_a_referenced_entry_gets_a_second_chance(revision: str) -> None:
    box = stored(1, 2, 3, revision=revision)
    box.model.SHRINK_BUDGET = 1
    assert box.shrink() == errno.EAGAIN
    assert only(box) == ["shrink_memcg_cb", "shrink_memcg_cb_ret"]
    assert box.seen[-2] == ("shrink_memcg_cb_ret", 2)
    assert box.lru() == [2, 3, 1]
    assert [box.model.tree[slot].referenced for slot in (1, 2, 3)] == [False, True, True]
    assert [box.shrink() for _ in range(3)] == [errno.EAGAIN, errno.EAGAIN, 0]
    assert box.lru() == [2, 3]


@pytest.mark.parametrize("revision", EVERY)
def test_budget_of_a_kernel(revision: str) -> None:
    assert box_budget(revision) == (32 if revision == "mainline-7.3" else 1)


def box_budget(revision: str) -> int:
    """Return how many entries one shrink_memcg() looks at, of a hundred."""
    box = stored(*range(100), revision=revision)
    box.shrink()
    return box.names.count("shrink_memcg_cb")


@pytest.mark.parametrize("count", [1, 2, 5, 16, 31, 32, 33])
def test_walk_of_32_over_entries_that_are_all_referenced(count: int) -> None:
    """N entries, budget 32: one walk clears N bits and writes back up to 32-N; a lone entry ends the walk."""
    box = stored(*range(count))
    result = box.shrink()
    gone = 0 if count == 1 else min(count, max(0, 32 - count))
    assert box.counters().get("written_back_pages", 0) == gone
    assert result == (0 if gone else errno.EAGAIN)
    assert box.lru() == ([32, *range(32)] if count == 33 else list(range(gone, count)))
    assert sum(entry.referenced for entry in box.model.tree.values()) == (1 if count == 33 else 0)
    box.check_balance()


def test_a_lone_referenced_entry_goes_at_the_second_walk() -> None:
    box = stored(7)
    assert box.shrink() == errno.EAGAIN
    assert box.names.count("shrink_memcg_cb") == 1
    assert box.shrink() == 0
    assert not box.model.tree


@pytest.mark.parametrize("revision", ["mainline-7.2", "mainline-7.3"])
def test_every_node_has_a_budget_of_its_own(revision: str) -> None:
    box = Box(revision)
    box.nid = lambda entry: entry.swpent % 2
    for slot in range(80):
        assert box.store(slot)
    box.shrink()
    looked = [effect[1].swpent % 2 for effect in box.seen if effect[0] == "shrink_memcg_cb"]
    budget = box.model.SHRINK_BUDGET
    assert looked == [0] * budget + [1] * budget


@pytest.mark.parametrize("revision", EVERY)
def test_shrinking_what_has_nothing(revision: str) -> None:
    box = stored(7, revision=revision)
    assert box.do(box.model.shrink_memcg(0xDEAD)) == errno.ENOENT
    assert box.names == ["shrink_memcg", WB_ENABLED, "shrink_memcg_ret"]
    assert box.shrink(**{WB_ENABLED: False}) == errno.ENOENT
    assert "?memcg_online" not in box.asked
    assert box.shrink(q_memcg_online=False) == errno.ENOENT
    assert box.names == ["shrink_memcg", WB_ENABLED, "shrink_memcg_ret"]
    assert box.model.tree[7].referenced
    box.model.set_param("memory.zswap.writeback", "0")
    assert box.shrink() == errno.ENOENT


def test_a_freed_entry_shows_the_bit_the_walk_has_cleared() -> None:
    """The bit is cleared under the list lock, before the callback's return can be seen."""
    box = stored(7, 8)
    steps = box.model.shrink_memcg_cb(box.model.tree[7])
    next(steps)
    assert not box.model.tree[7].referenced


# ---- shrink_worker --------------------------------------------------------------------------------------------

def worker_box(revision: str, entries: int = 4, threshold: int = 2) -> Box:
    """Return a box with one page per entry, none referenced, and a threshold below."""
    box = full_at(20, threshold, revision)
    for slot in range(entries):
        assert box.store(slot)
        box.model.tree[slot].referenced = False
    return box


@pytest.mark.parametrize("revision", EVERY)
def test_worker_stops_at_the_threshold(revision: str) -> None:
    box = worker_box(revision)
    box.model.SHRINK_BUDGET = 1
    box.do(box.model.shrink_worker(), q_shrink_next=[MEMCG] * 9)
    assert [effect[1] for effect in box.seen if effect[0] == "zs_get_total_pages_ret"] == [3, 2]
    assert (box.names[0], box.names[-2:]) == ("shrink_worker", ["zs_get_total_pages_ret", "shrink_worker_ret"])
    assert box.counters()["written_back_pages"] == 2


@pytest.mark.parametrize("revision", EVERY)
def test_worker_with_nobody_to_shrink_gives_up_after_16_passes(revision: str) -> None:
    """15 empty passes each end in a look at the totals, the 16th breaks the loop before."""
    box = worker_box(revision)
    box.do(box.model.shrink_worker())
    assert box.names == ["shrink_worker", *["zs_get_total_pages_ret"] * 15, "shrink_worker_ret"]


@pytest.mark.parametrize("revision", EVERY)
def test_worker_counts_failures_over_the_whole_run(revision: str) -> None:
    """Candidates that fail count; those with nothing (-ENOENT) do not; a pass with an attempt is not a failure."""
    box = worker_box(revision)
    box.model.SHRINK_BUDGET = 1
    fails = [MEMCG, 0xDEAD, None]
    turns = itertools.cycle(fails)
    taken: list[Any] = []

    def turn(effect: Any) -> Any:
        taken.append(next(turns))
        return taken[-1]

    box.answers["?shrink_next"] = turn
    box.do(box.model.shrink_worker(), q_swap_cache_alloc=errno.ENOMEM)
    assert taken == fails * 15 + [MEMCG]
    assert box.counters()["reject_reclaim_fail"] == 16
    assert box.names.count("zs_get_total_pages_ret") == 45
    assert [effect[1] for effect in box.seen if effect[0] == "shrink_memcg_ret"] == \
        [errno.EAGAIN, errno.ENOENT] * 15 + [errno.EAGAIN]


@pytest.mark.parametrize("revision", EVERY)
def test_worker_looks_at_the_totals_after_a_cgroup_with_nothing(revision: str) -> None:
    """A do-while loop: "continue" (6.12) and "goto resched" (7.2) both come to its condition."""
    box = worker_box(revision, entries=1)
    box.do(box.model.shrink_worker(), q_shrink_next=[0xDEAD])
    assert box.names == ["shrink_worker", "shrink_memcg", WB_ENABLED, "shrink_memcg_ret", "zs_get_total_pages_ret",
                         "shrink_worker_ret"]


def test_a_pass_with_an_attempt_does_not_count_against_the_worker() -> None:
    box = worker_box("mainline-7.2")
    box.do(box.model.shrink_worker(), q_shrink_next=[MEMCG, None, MEMCG])
    assert box.counters()["written_back_pages"] == 2
    box = worker_box("mainline-7.2")
    # without attempts 15 passes may go by, then one success, then the 16th empty pass ends it
    box.do(box.model.shrink_worker(), q_shrink_next=[None] * 15 + [MEMCG, None, None])
    assert box.counters()["written_back_pages"] == 1


def test_worker_goes_by_the_threshold_it_started_with() -> None:
    box = worker_box("mainline-7.2")
    steps = box.model.shrink_worker()
    next(steps)
    box.model.accept_threshold_percent = 100
    box.do(steps, q_shrink_next=[MEMCG] * 9)
    assert box.counters()["written_back_pages"] == 2


# ---- dynamic shrinker -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("revision", EVERY)
def test_shrinker_scan(revision: str) -> None:
    box = stored(1, 2, 3, revision=revision)
    for slot in (1, 2):
        box.model.tree[slot].referenced = False
    result = box.do(box.model.zswap_shrinker_scan(10, MEMCG, 0))
    # 1 and 2 go; 3 is then alone, loses its bit, and the walk ends
    assert result == 2
    assert box.seen[0] == ("zswap_shrinker_scan", 10, MEMCG, 0)
    assert box.names[1] == WB_ENABLED
    assert box.seen[-1] == ("zswap_shrinker_scan_ret", 2)
    assert box.lru() == [3]
    assert not box.model.tree[3].referenced
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_shrinker_scan_keeps_to_its_budget_list_and_node(revision: str) -> None:
    box = Box(revision)
    box.nid = lambda entry: entry.swpent % 2
    for slot in range(8):
        assert box.store(slot)
        box.model.tree[slot].referenced = False
    assert box.do(box.model.zswap_shrinker_scan(2), zswap_shrinker_scan=(MEMCG, 1)) == 2
    assert (box.lru(0), box.lru(1)) == ([0, 2, 4, 6], [5, 7])
    assert box.do(box.model.zswap_shrinker_scan(2, 0xDEAD, 0)) == -1


@pytest.mark.parametrize("revision", EVERY)
def test_shrinker_stops_where_the_swap_cache_begins(revision: str) -> None:
    """-EEXIST means that the page is warm: the walk ends with SHRINK_STOP, whatever it wrote back before."""
    box = stored(1, 2, 3, revision=revision)
    for entry in box.model.tree.values():
        entry.referenced = False
    result = box.do(box.model.zswap_shrinker_scan(10, MEMCG, 0), q_swap_cache_alloc=[0, errno.EEXIST])
    assert result == -1
    assert [effect[1] for effect in box.seen if effect[0] == "shrink_memcg_cb_ret"] == [1, 5]
    assert box.counters()["written_back_pages"] == 1
    assert box.lru() == [3, 2]


def test_shrinker_goes_on_after_other_failures_and_shrink_memcg_after_any() -> None:
    box = stored(1, 2)
    for entry in box.model.tree.values():
        entry.referenced = False
    assert box.do(box.model.zswap_shrinker_scan(2, MEMCG, 0), q_swap_cache_alloc=[errno.ENOMEM, 0]) == 1
    assert [effect[1] for effect in box.seen if effect[0] == "shrink_memcg_cb_ret"] == [4, 1]
    assert box.shrink(q_swap_cache_alloc=[errno.EEXIST]) == 0
    assert [effect[1] for effect in box.seen if effect[0] == "shrink_memcg_cb_ret"] == [4, 1]


def test_shrinker_that_only_rotated_says_stop() -> None:
    box = stored(1, 2, 3)
    assert box.do(box.model.zswap_shrinker_scan(3, MEMCG, 0)) == -1
    assert box.names.count("shrink_memcg_cb") == 3


def test_shrinker_switched_off_or_without_writeback() -> None:
    box = stored(1)
    assert box.do(box.model.zswap_shrinker_scan(3, MEMCG, 0), **{WB_ENABLED: False}) == -1
    assert box.names == ["zswap_shrinker_scan", WB_ENABLED, "zswap_shrinker_scan_ret"]
    box.model.set_param("shrinker_enabled", "N")
    assert box.do(box.model.zswap_shrinker_scan(3, MEMCG, 0)) == -1
    assert box.names == ["zswap_shrinker_scan", "zswap_shrinker_scan_ret"]
