# SPDX-License-Identifier: GPL-2.0-or-later
"""model/zswap.py: the effects of each operation in the order mm/zswap.c causes them, and what they leave."""

from __future__ import annotations

from typing import Any

import pytest
from modelrun import (
    COMPRESS,
    EVERY,
    FREE,
    FREE_LAST,
    LATER,
    MALLOC,
    MALLOC_AGAIN,
    MEMCG,
    OBJCG,
    PROLOGUE,
    PUBLISH,
    READ,
    V612,
    WB_ENABLED,
    Box,
    stored,
    totals,
    write,
)

from model import errno
from model.page import PAGE_SIZE
from model.revisions import MAINLINE
from model.zswap import AOP_WRITEPAGE_ACTIVATE, Folio
from model.zswap_state import kstrtobool, kstrtouint, memparse

# ---- store ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("revision", EVERY)
def test_store(revision: str) -> None:
    box = Box(revision)
    assert box.store(7)
    assert box.names == [*PROLOGUE, *COMPRESS, *MALLOC, write(revision), *PUBLISH, "zswap_store_ret"]
    assert box.seen[-1] == ("zswap_store_ret", True)
    assert ("zs_malloc", 1000) in box.seen
    assert ("obj_cgroup_charge_zswap", 1000) in box.seen
    assert box.counters() == {"stored_pages": 1, "zswpout": 1, "memcg.zswap": 1000, "memcg.zswapped": 1,
                              "memcg.zswpout": 1}
    entry = box.model.tree[7]
    assert (entry.referenced, entry.length, entry.objcg, entry.lru) == (True, 1000, OBJCG, (0, MEMCG))
    assert entry.content == ("page", 7)
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_store_over_an_entry_frees_the_old_one_after_the_new_object_exists(revision: str) -> None:
    box = stored(7, revision=revision)
    old = box.model.tree[7]
    assert box.store(7)
    assert box.names == [*PROLOGUE, *COMPRESS, *MALLOC_AGAIN, write(revision), *FREE, *PUBLISH, "zswap_store_ret"]
    assert box.model.tree[7] is not old
    assert ("zswap_entry_free", old) in box.seen
    assert box.counters()["stored_pages"] == 1
    assert box.counters()["zswpout"] == 2
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_stored_pages_moves_where_the_kernel_moves_it(revision: str) -> None:
    """6.12 counts after the LRU took the entry, later kernels before; all of them uncount last of all."""
    box = Box(revision)
    at: dict[str, int] = {}
    watch = box._see

    def see(effect: Any) -> None:
        at[effect[0]] = box.model.counters.stored_pages
        watch(effect)

    box._see = see  # type: ignore[method-assign]
    box.store(7)
    assert at["obj_cgroup_charge_zswap"] == 0
    assert at["list_lru_add"] == (0 if revision == V612 else 1)
    box.invalidate(7)
    assert at["obj_cgroup_uncharge_zswap"] == 1
    assert box.model.counters.stored_pages == 0


@pytest.mark.parametrize("revision", LATER)
def test_incompressible_page_is_kept_as_it_is_when_writeback_may(revision: str) -> None:
    box = Box(revision, errno.EINVAL)
    assert box.store(7)
    assert box.names == [*PROLOGUE, *COMPRESS, WB_ENABLED, *MALLOC, "zs_obj_write", *PUBLISH, "zswap_store_ret"]
    length, content, raw = next(effect for effect in box.seen if effect[0] == "zs_obj_write")[2:]
    assert (length, raw) == (PAGE_SIZE, True)
    assert box.counters()["stored_incompressible_pages"] == 1
    assert "reject_compress_fail" not in box.counters()
    assert content is None
    box.check_balance()
    assert box.load(7) == 0
    assert box.names == ["zswap_load", "zswap_decompress", "zs_obj_read", *FREE_LAST, "zswap_load_ret"]
    assert "stored_incompressible_pages" not in box.counters()


@pytest.mark.parametrize("revision", LATER)
@pytest.mark.parametrize("length", [0, PAGE_SIZE, PAGE_SIZE + 1])
def test_useless_length_is_kept_raw_or_rejected_as_compress_fail(revision: str, length: int) -> None:
    box = Box(revision, length)
    assert box.store(7)
    assert box.model.tree[7].length == PAGE_SIZE
    box = Box(revision, length)
    assert not box.store(7, **{WB_ENABLED: False})
    assert box.names == [*PROLOGUE, *COMPRESS, WB_ENABLED, "zswap_store_ret"]
    assert box.counters() == {"reject_compress_fail": 1}
    box.check_balance()


@pytest.mark.parametrize("revision", LATER)
@pytest.mark.parametrize(("failure", "counter"), [
    (errno.ENOSPC, "reject_compress_poor"), (errno.EINVAL, "reject_compress_fail"),
    (errno.EIO, "reject_compress_fail")])
def test_compressor_error_without_writeback_says_which_counter(revision: str, failure: int, counter: str) -> None:
    box = Box(revision, failure)
    assert not box.store(7, **{WB_ENABLED: False})
    assert box.names == [*PROLOGUE, *COMPRESS, WB_ENABLED, "zswap_store_ret"]
    assert box.counters() == {counter: 1}


@pytest.mark.parametrize(("failure", "counter"), [
    (errno.ENOSPC, "reject_compress_poor"), (errno.EINVAL, "reject_compress_fail"),
    (errno.EIO, "reject_compress_fail")])
def test_compressor_error_in_6_12_rejects_without_asking_for_writeback(failure: int, counter: str) -> None:
    box = Box(V612, failure)
    assert not box.store(7)
    assert box.names == [*PROLOGUE, *COMPRESS, "zswap_store_ret"]
    assert box.counters() == {counter: 1}


def test_whole_page_length_in_6_12_is_compressed_data() -> None:
    box = Box(V612, PAGE_SIZE)
    assert box.store(7)
    assert box.names == [*PROLOGUE, *COMPRESS, *MALLOC, "zs_obj_read", *PUBLISH, "zswap_store_ret"]
    assert "stored_incompressible_pages" not in box.counters()
    assert box.load(7) == 1
    assert "crypto_acomp_decompress" in box.names


def test_length_zero_in_6_12_fails_in_zs_malloc() -> None:
    box = Box(V612, 0)
    assert not box.store(7)
    assert box.names == [*PROLOGUE, *COMPRESS, "zs_malloc", "zs_malloc_ret", "zswap_store_ret"]
    assert box.counters() == {"reject_alloc_fail": 1}


def test_too_long_a_length_in_6_12_counts_as_poor() -> None:
    box = Box(V612, PAGE_SIZE + 1)
    assert not box.store(7)
    assert box.counters() == {"reject_compress_poor": 1}


@pytest.mark.parametrize("revision", EVERY)
@pytest.mark.parametrize(("failure", "counter"), [
    (errno.ENOMEM, "reject_alloc_fail"), (errno.ENOSPC, "reject_compress_poor")])
def test_zs_malloc_failure(revision: str, failure: int, counter: str) -> None:
    box = Box(revision)
    assert not box.store(7, q_zs_malloc=failure)
    assert box.names == [*PROLOGUE, *COMPRESS, "zs_malloc", "zs_malloc_ret", "zswap_store_ret"]
    assert box.counters() == {counter: 1}
    assert not box.model.pools[0].entries


@pytest.mark.parametrize("revision", LATER)
def test_zs_malloc_failure_of_a_raw_page_is_no_compressor_failure(revision: str) -> None:
    box = Box(revision, errno.EINVAL)
    assert not box.store(7, q_zs_malloc=errno.ENOMEM)
    assert box.counters() == {"reject_alloc_fail": 1}


@pytest.mark.parametrize("revision", EVERY)
def test_no_memory_for_the_entry(revision: str) -> None:
    box = Box(revision)
    assert not box.store(7, q_entry_alloc=False)
    assert box.names == [*PROLOGUE, "zswap_store_ret"]
    assert box.counters() == {"reject_kmemcache_fail": 1}


@pytest.mark.parametrize("revision", EVERY)
def test_no_memory_in_the_tree_frees_the_new_object_and_then_the_old_entry(revision: str) -> None:
    box = stored(7, revision=revision)
    assert not box.store(7, q_xa_store=errno.ENOMEM)
    assert box.names == [*PROLOGUE, *COMPRESS, *MALLOC_AGAIN, write(revision), *FREE[2:-1], *FREE_LAST,
                         "zswap_store_ret"]
    assert box.counters() == {"reject_alloc_fail": 1, "zswpout": 1, "memcg.zswpout": 1}
    assert box.model.total_pages() == 0
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
@pytest.mark.parametrize("why", ["compressor", "limit", "slab"])
def test_failed_store_drops_what_was_stored_before(revision: str, why: str) -> None:
    """The old page at the slot is out of date: writeback would put it over the new one."""
    box = stored(7, revision=revision)
    if why == "limit":
        box.model.max_pool_percent = 0
    box.length = errno.EINVAL
    assert not box.store(7, **({WB_ENABLED: False} if why == "compressor" else {"q_entry_alloc": why != "slab"}))
    assert box.names[-len(FREE_LAST) - 1:] == [*FREE_LAST, "zswap_store_ret"]
    assert not box.model.tree
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_store_while_switched_off_only_drops(revision: str) -> None:
    box = stored(7, revision=revision)
    box.model.set_param("enabled", "N")
    assert not box.store(7)
    assert box.names == ["zswap_store", *FREE_LAST, "zswap_store_ret"]
    assert not box.store(8)
    assert box.names == ["zswap_store", "zswap_store_ret"]
    assert box.counters() == {"zswpout": 1, "memcg.zswpout": 1}


# ---- large folios ---------------------------------------------------------------------------------------------

def test_large_folio_in_6_12_is_refused_and_nothing_dropped() -> None:
    box = stored(8, revision=V612)
    assert not box.store(8, order=2)
    assert box.names == ["zswap_store", "zswap_store_ret"]
    assert box.asked == []
    assert list(box.model.tree) == [8]


@pytest.mark.parametrize("revision", LATER)
def test_large_folio_is_stored_page_by_page(revision: str) -> None:
    box = Box(revision)
    assert box.store(8, order=2)
    page = [*COMPRESS, *MALLOC, "zs_obj_write", *PUBLISH]
    again = [*COMPRESS, *MALLOC_AGAIN, "zs_obj_write", *PUBLISH]
    assert box.names == [*PROLOGUE, *page, *again, *again, *again, "zswap_store_ret"]
    assert [(e[2], e[3]) for e in box.seen if e[0] == "crypto_acomp_compress"] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert sorted(box.model.tree) == [8, 9, 10, 11]
    assert box.counters()["zswpout"] == box.counters()["memcg.zswpout"] == box.counters()["stored_pages"] == 4
    assert box.lru() == [8, 9, 10, 11]
    box.check_balance()


@pytest.mark.parametrize("revision", LATER)
@pytest.mark.parametrize("bad", [0, 1, 3])
@pytest.mark.parametrize("why", ["compressor", "zs_malloc", "slab", "tree"])
def test_large_folio_that_fails_at_a_page_leaves_nothing(revision: str, bad: int, why: str) -> None:
    """Pages already stored are dropped again, also an older entry further on; one reject, no zswpout."""
    box = stored(11, 20, revision=revision)
    before = box.counters()
    answers: dict[str, Any] = {}
    if why == "compressor":
        box.length = lambda slot: errno.EINVAL if slot == 8 + bad else 1000
        answers[WB_ENABLED] = False
    else:
        good, failed = {"zs_malloc": (0, errno.ENOMEM), "slab": (True, False), "tree": (0, errno.ENOMEM)}[why]
        name = {"zs_malloc": "q_zs_malloc", "slab": "q_entry_alloc", "tree": "q_xa_store"}[why]
        answers[name] = [good] * bad + [failed]
    assert not box.store(8, order=2, **answers)
    freed = [effect[1].swpent for effect in box.seen if effect[0] == "zswap_entry_free"]
    assert freed == [*range(8, 8 + bad), 11]
    assert box.names.count("crypto_acomp_compress") == bad + (why != "slab")
    counter = {"compressor": "reject_compress_fail", "slab": "reject_kmemcache_fail"}.get(why, "reject_alloc_fail")
    assert box.counters() == before | {counter: 1, "stored_pages": 1, "memcg.zswap": 1000, "memcg.zswapped": 1}
    assert list(box.model.tree) == [20]
    assert box.model.total_pages() == 1
    box.check_balance()


@pytest.mark.parametrize("revision", LATER)
def test_large_folio_with_one_bad_page_keeps_that_page_raw(revision: str) -> None:
    box = Box(revision, lambda slot: errno.EINVAL if slot == 9 else 1000)
    assert box.store(8, order=1)
    assert [box.model.tree[slot].length for slot in (8, 9)] == [1000, PAGE_SIZE]
    assert box.names.count(WB_ENABLED) == 1
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_limits_are_looked_at_once_per_folio(revision: str) -> None:
    order = 0 if revision == V612 else 4
    box = Box(revision)
    assert box.store(16, order)
    assert box.names.count("obj_cgroup_may_zswap_ret") == 1
    assert box.names.count("zs_get_total_pages_ret") == 1


# ---- load and invalidate --------------------------------------------------------------------------------------

@pytest.mark.parametrize("revision", EVERY)
def test_load(revision: str) -> None:
    box = stored(7, revision=revision)
    assert box.load(7) == (1 if revision == V612 else 0)
    assert box.names == ["zswap_load", *READ, *FREE_LAST, "zswap_load_ret"]
    assert ("crypto_acomp_decompress", 1000) in box.seen
    assert box.counters() == {"zswpout": 1, "zswpin": 1, "memcg.zswpout": 1, "memcg.zswpin": 1}
    assert box.model.total_pages() == 0
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_load_of_what_is_not_there_goes_to_the_device(revision: str) -> None:
    box = stored(7, revision=revision)
    assert box.load(8) == (0 if revision == V612 else errno.ENOENT)
    assert box.names == ["zswap_load", "zswap_load_ret"]
    assert box.counters()["pswpin"] == 1
    assert "zswpin" not in box.counters()


@pytest.mark.parametrize("revision", EVERY)
def test_load_of_a_large_folio_is_an_error(revision: str) -> None:
    box = stored(8, revision=revision)
    assert box.do(box.model.zswap_load(Folio(8, order=1))) == (1 if revision == V612 else errno.EINVAL)
    assert box.names == ["zswap_load", "zswap_load_ret"]
    assert list(box.model.tree) == [8]
    assert "pswpin" not in box.counters()


@pytest.mark.parametrize("revision", LATER)
@pytest.mark.parametrize("answer", [(errno.EINVAL, 0), (0, 4095), (errno.EIO, PAGE_SIZE)])
def test_load_that_cannot_be_decompressed_keeps_the_entry(revision: str, answer: tuple[int, int]) -> None:
    box = stored(7, revision=revision)
    assert box.load(7, crypto_acomp_decompress_ret=answer) == errno.EIO
    assert box.names == ["zswap_load", *READ, "zswap_load_ret"]
    assert box.counters()["decompress_fail"] == 1
    assert "zswpin" not in box.counters()
    assert list(box.model.tree) == [7]
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_load_past_the_swap_cache(revision: str) -> None:
    """A synchronous device reads into a private page, up to 6.19: zswap stays the owner of the data."""
    box = stored(7, revision=revision)
    kept = revision in (V612, "mainline-6.18")
    box.load(7, q_swapcache=False)
    assert ("?swapcache" in box.asked) == kept
    assert list(box.model.tree) == ([7] if kept else [])
    assert box.counters()["zswpin"] == 1
    if kept:
        assert box.names == ["zswap_load", *READ, "zswap_load_ret"]
        box.load(7)
        assert not box.model.tree
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_load_does_not_touch_the_lru(revision: str) -> None:
    box = stored(1, 2, 3, revision=revision)
    box.load(2, q_swapcache=False)
    assert [slot for slot in box.lru() if slot != 2] == [1, 3]


@pytest.mark.parametrize("revision", EVERY)
def test_loads_go_on_while_switched_off(revision: str) -> None:
    box = stored(7, revision=revision)
    box.model.set_param("enabled", "0")
    box.load(7)
    assert box.counters()["zswpin"] == 1


@pytest.mark.parametrize("revision", EVERY)
def test_invalidate(revision: str) -> None:
    box = stored(7, revision=revision)
    box.invalidate(8)
    assert box.names == ["zswap_invalidate"]
    box.invalidate(7)
    assert box.names == ["zswap_invalidate", *FREE_LAST]
    box.invalidate(7)
    assert box.names == ["zswap_invalidate"]
    assert box.counters() == {"zswpout": 1, "memcg.zswpout": 1}
    box.check_balance()


# ---- swap_writeout --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("revision", EVERY)
def test_writeout_of_a_stored_folio(revision: str) -> None:
    box = Box(revision)
    assert box.writeout(7) == 0
    assert (box.names[0], box.names[1], box.names[-2:]) == \
        ("swap_writeout", "zswap_store", ["zswap_store_ret", "swap_writeout_ret"])
    assert "pswpout" not in box.counters()
    assert box.model.counters.mthp_zswpout == {}


@pytest.mark.parametrize("revision", EVERY)
def test_writeout_of_a_zero_filled_or_freed_folio_never_sees_zswap(revision: str) -> None:
    box = Box(revision)
    assert box.writeout(16, order=4, q_swap_writeout="zero") == 0
    assert box.names == ["swap_writeout", "swap_writeout_ret"]
    assert box.counters() == {"swpout_zero": 16}
    assert box.writeout(16, order=4, q_swap_writeout="free") == 0
    assert box.counters() == {"swpout_zero": 16}


@pytest.mark.parametrize("revision", EVERY)
def test_writeout_of_a_rejected_folio_goes_to_the_device(revision: str) -> None:
    box = Box(revision)
    assert box.writeout(7, q_zs_malloc=errno.ENOMEM) == 0
    assert box.names[-4:] == ["zswap_store_ret", WB_ENABLED, "__swap_writepage", "swap_writeout_ret"]
    assert box.counters() == {"reject_alloc_fail": 1, "pswpout": 1}


@pytest.mark.parametrize("revision", EVERY)
def test_writeout_without_writeback_keeps_the_folio_in_memory(revision: str) -> None:
    box = Box(revision)
    box.model.set_param("memory.zswap.writeback", "0")
    assert box.writeout(7, q_zs_malloc=errno.ENOMEM) == AOP_WRITEPAGE_ACTIVATE == 0x80000
    assert box.seen[-2:] == [(WB_ENABLED, False), ("swap_writeout_ret", 0x80000)]
    assert "pswpout" not in box.counters()


@pytest.mark.parametrize("revision", EVERY)
def test_writeback_is_never_forbidden_while_zswap_is_off(revision: str) -> None:
    """mem_cgroup_zswap_writeback_enabled() first asks whether zswap is enabled at all."""
    box = Box(revision)
    box.model.set_param("memory.zswap.writeback", "0")
    box.model.set_param("enabled", "N")
    assert box.writeout(7) == 0
    assert (WB_ENABLED, True) in box.seen
    assert box.counters() == {"pswpout": 1}


@pytest.mark.parametrize("revision", LATER)
def test_mthp_counters_know_large_folios_by_order(revision: str) -> None:
    box = Box(revision)
    for slot, order in ((0, 0), (16, 4), (32, 4), (64, 2)):
        assert box.writeout(slot, order) == 0
    assert box.writeout(128, 4, q_zs_malloc=errno.ENOMEM) == 0
    assert box.model.counters.mthp_zswpout == {4: 2, 2: 1}
    assert box.counters()["pswpout"] == 16


def test_large_folio_in_6_12_goes_to_the_device() -> None:
    box = Box(V612)
    assert box.writeout(16, order=4) == 0
    assert box.counters() == {"pswpout": 16}
    assert box.names == ["swap_writeout", "zswap_store", "zswap_store_ret", WB_ENABLED, "__swap_writepage",
                         "swap_writeout_ret"]


# ---- compressor switch, parameters ----------------------------------------------------------------------------

@pytest.mark.parametrize("revision", EVERY)
def test_entries_stay_in_the_pool_they_were_stored_in(revision: str) -> None:
    box = stored(1, 2, revision=revision, length=4000)
    old = box.model.pools[0]
    box.model.set_param("compressor", "zstd\n")
    assert [pool.tfm_name for pool in box.model.pools] == ["zstd", "lz4"]
    assert box.store(3)
    assert totals(box) == [0, 2]
    assert box.model.tree[3].pool is box.model.pools[0]
    assert box.model.tree[1].pool is old
    assert box.model.total_pages() == 3
    box.check_balance()
    # the page stored anew moves to the new pool; the old object is freed where it is
    assert box.store(1)
    assert totals(box) == [1, 2]
    assert (box.model.pools[0].zs_pool.pages_allocated, old.zs_pool.pages_allocated) == (2, 1)
    box.load(2)
    assert box.store(4)
    assert totals(box) == [2]
    assert [pool.tfm_name for pool in box.model.pools] == ["zstd"]
    box.check_balance()


def test_an_empty_pool_goes_when_it_is_no_longer_current() -> None:
    box = Box()
    box.model.set_param("compressor", "zstd")
    assert box.store(1)
    assert totals(box) == [0]
    assert [pool.tfm_name for pool in box.model.pools] == ["zstd"]


def test_a_pool_that_is_being_released_may_still_be_counted() -> None:
    """Its last reference is gone, but only a grace period later it is off the list: the outside knows."""
    box = stored(1)
    box.model.set_param("compressor", "zstd")
    box.invalidate(1)
    assert box.store(2, q_pool_listed=True)
    assert totals(box) == [0, 0]
    assert box.store(3, q_pool_listed=False)
    assert totals(box) == [1]


def test_switching_back_finds_the_old_pool_as_long_as_it_has_entries() -> None:
    box = stored(1)
    first = box.model.pools[0]
    box.model.set_param("compressor", "zstd")
    assert box.store(2)
    second = box.model.pools[0]
    box.model.set_param("compressor", "lz4")
    assert box.model.pools == [first, second]
    box.load(2)
    box.model.set_param("compressor", "zstd")
    assert box.model.pools[0] is not second
    assert box.store(3)
    assert box.model.pools == [box.model.tree[3].pool, first]
    box.check_balance()


def test_the_current_compressor_again_changes_nothing() -> None:
    box = stored(1)
    before = list(box.model.pools)
    box.model.set_param("compressor", "lz4")
    assert box.model.pools == before


def test_an_unknown_compressor_is_refused() -> None:
    box = stored(1)
    before = list(box.model.pools)
    with pytest.raises(ValueError, match="lz5"):
        box.model.set_param("compressor", "lz5")
    assert box.model.pools == before


@pytest.mark.parametrize("revision", EVERY)
def test_a_store_holds_its_pool(revision: str) -> None:
    """The compressor is switched while the page is being compressed: the empty old pool must not vanish."""
    box = Box(revision)

    def switch(effect: Any) -> Any:
        box.model.set_param("compressor", "zstd")
        return 0, 1000, None

    assert box.store(7, crypto_acomp_compress_ret=switch)
    old = box.model.tree[7].pool
    assert (old.tfm_name, old.entries) == ("lz4", 1)
    assert box.store(8)
    assert totals(box) == [0, 1]
    assert box.model.pools == [box.model.tree[8].pool, old]
    box.check_balance()


@pytest.mark.parametrize("revision", EVERY)
def test_a_failed_store_gives_its_pool_back(revision: str) -> None:
    box = Box(revision)
    for failure in ({"q_zs_malloc": errno.ENOMEM}, {"q_xa_store": errno.ENOMEM}, {"q_entry_alloc": False}):
        assert not box.store(7, **failure)
        assert box.model.pools[0].entries == 0


def test_parameters() -> None:
    model = Box().model
    model.set_param("max_pool_percent", "35\n")
    model.set_param("accept_threshold_percent", "0x10")
    model.set_param("enabled", "off")
    assert (model.max_pool_percent, model.accept_threshold_percent, model.enabled) == (35, 16, False)
    model.set_param("enabled", "on")
    assert model.enabled
    model.set_param("no_such_parameter", "?")
    for name, value in (("enabled", "maybe"), ("enabled", ""), ("max_pool_percent", "-1"), ("max_pool_percent", "20%"),
                        ("memory.zswap.writeback", "2"), ("memory.zswap.max", "lots")):
        with pytest.raises(ValueError, match=r"\S"):
            model.set_param(name, value)
    assert (model.max_pool_percent, model.enabled, model.writeback_enabled) == (35, True, True)


@pytest.mark.parametrize(("text", "value"), [("Y", True), ("y", True), ("1", True), ("true", True), ("on", True),
                                             ("N", False), ("n", False), ("0", False), ("F", False), ("OFF", False)])
def test_booleans_as_the_kernel_reads_them(text: str, value: bool) -> None:
    assert kstrtobool(text) is value


def test_numbers_as_the_kernel_reads_them() -> None:
    assert [kstrtouint(text) for text in ("0", "20", "0x14", "024", "4294967295")] == [0, 20, 20, 20, 4294967295]
    for text in ("", "4294967296", "-1", "1_0", "08"):
        with pytest.raises(ValueError, match=r"\S"):
            kstrtouint(text)
    assert [memparse(text) for text in ("4096", "4k", "1M", "2G", "0x1000")] == [4096, 4096, 1 << 20, 1 << 31, 4096]
    # Where there is no number, the kernel takes 0.
    assert [memparse(text) for text in ("", "M")] == [0, 0]
    for text in ("-1", "1X"):
        with pytest.raises(ValueError, match=r"\S"):
            memparse(text)


def test_the_dynamic_shrinker_is_off_unless_switched_on() -> None:
    assert not MAINLINE["mainline-7.3"](totalram_pages=1 << 20, compressor="lz4").shrinker_enabled
