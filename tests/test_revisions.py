# SPDX-License-Identifier: GPL-2.0-or-later
"""model/revisions: which steps each kernel line has, and that the books balance after anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from modelrun import MEMCG, OBJCG, Box

from model import errno
from model.page import PAGE_SIZE
from model.revisions import MAINLINE, revision_for_line
from model.zswap import Folio, Zswap
from replay.reference.kernelrevision import posting_note, revision_of_kernel

EVERY = list(MAINLINE)
WB_ENABLED = "mem_cgroup_zswap_writeback_enabled_ret"


@pytest.mark.parametrize(("line", "name"), [
    ((6, 12), "mainline-6.12"), ((6, 18), "mainline-6.18"), ((7, 2), "mainline-7.2"), ((7, 3), "mainline-7.3"),
    ((7, 30), None), ((6, 1), None), ((5, 10), None), (None, None)])
def test_revision_for_line(line: tuple[int, int] | None, name: str | None) -> None:
    assert revision_for_line(line) == name


def test_every_revision_says_what_it_mirrors() -> None:
    assert EVERY == ["mainline-6.12", "mainline-6.18", "mainline-7.0", "mainline-7.1", "mainline-7.2", "mainline-7.3"]
    for name, revision in MAINLINE.items():
        assert revision.mirrors.startswith(f"Linux {name.removeprefix('mainline-')}")
    assert len({revision.mirrors for revision in MAINLINE.values()}) == len(MAINLINE)


#: what distinguishes the kernel lines, read in the sources named by ``mirrors``:
#: large folios, raw pages, root cgroup's folios asked and charged, incompressible pages charged apart,
#: loads past the swap cache keep the entry, -ENOENT of a writeback, entries a shrink looks at
LINES: dict[str, tuple[bool, bool, bool, bool, bool, bool, int]] = {
    "mainline-6.12": (False, False, False, False, True, False, 1),
    "mainline-6.18": (True, True, False, False, True, False, 1),
    "mainline-7.0": (True, True, False, False, False, False, 1),
    "mainline-7.1": (True, True, True, True, False, False, 1),
    "mainline-7.2": (True, True, True, True, False, True, 1),
    "mainline-7.3": (True, True, True, True, False, True, 32),
}


def traits(revision: str) -> tuple[bool, bool, bool, bool, bool, bool, int]:
    """Find out how a revision behaves by trying."""
    large = Box(revision).store(16, order=4)
    raw = Box(revision, errno.EINVAL).store(1)
    box = Box(revision)
    box.objcg = None
    box.store(1)
    root = "obj_cgroup_charge_zswap" in box.names
    box = Box(revision, PAGE_SIZE)
    box.store(1)
    apart = box.model.memcg(OBJCG).incompressible == 1
    box = Box(revision)
    box.store(1)
    box.load(1, q_swapcache=False)
    kept = 1 in box.model.tree
    box.store(1)
    failure = box.do(box.model.zswap_writeback_entry(box.model.tree[1], 1), q_swap_cache_alloc=errno.ENOENT)
    box = Box(revision)
    for slot in range(50):
        box.store(slot)
    box.shrink()
    return large, raw, root, apart, kept, failure == errno.ENOENT, box.names.count("shrink_memcg_cb")


@pytest.mark.parametrize("revision", EVERY)
def test_what_tells_the_kernel_lines_apart(revision: str) -> None:
    assert traits(revision) == LINES[revision]


@pytest.mark.parametrize("revision", EVERY)
def test_compaction_waits_for_readers_in_6_12_only(revision: str) -> None:
    """__zs_compact(): migrate_write_lock() up to 6.12, zspage_write_trylock() later."""
    box = Box(revision)
    for slot in range(8):
        box.store(slot)
    for slot in (0, 2, 4, 6):
        box.invalidate(slot)
    box.do(box.model.pools[0].zs_pool.zs_compact(), q_zspage_write_trylock=False)
    waits = revision == "mainline-6.12"
    assert ("obj_malloc" in box.names, "?zspage_write_trylock" in box.asked) == (waits, not waits)


@pytest.mark.parametrize("revision", EVERY)
def test_order_of_6_12_and_of_later_kernels_in_a_writeback(revision: str) -> None:
    """6.12 takes the entry out of the tree before it decompresses, later kernels after (and may fail there)."""
    box = Box(revision)
    assert box.store(7)
    entry = box.model.tree[7]
    there: dict[str, bool] = {}
    watch = box._see

    def see(effect: Any) -> None:
        there.setdefault(effect[0], 7 in box.model.tree)
        watch(effect)

    box._see = see  # type: ignore[method-assign]
    assert box.do(box.model.zswap_writeback_entry(entry, 7)) == 0
    assert there["zswap_decompress"] == (revision != "mainline-6.12")
    assert not there["zswap_entry_free"]
    assert not there["__swap_writepage"]


def test_a_revision_of_ones_own_overrides_a_step() -> None:
    """What a user's file does: one attribute or method, the rest is inherited."""
    class Budget4(Zswap):
        SHRINK_BUDGET = 4

    box = Box()
    box.model = Budget4(totalram_pages=1000, compressor="lz4")
    for slot in range(10):
        assert box.store(slot)
    box.shrink()
    assert box.names.count("shrink_memcg_cb") == 4


# ---- any sequence of operations -------------------------------------------------------------------------------

#: per slot and turn: compressible, large, huge class, whole page, nothing, an error
LENGTHS = (300, 1000, 2700, 3700, PAGE_SIZE, 0, errno.EINVAL, errno.ENOSPC)


class AnySequence(RuleBasedStateMachine):
    """Stores, loads, invalidates, writeback and everything that fails, in any order: the books balance."""

    revision = "mainline-7.3"

    @initialize(totalram=st.sampled_from([1 << 20, 200]), root=st.booleans())
    def start(self, totalram: int, root: bool) -> None:
        self.box = Box(self.revision, totalram_pages=totalram)
        self.box.objcg = None if root else OBJCG

    def refusals(self) -> int:
        """Return how many pages were refused with a counter."""
        counters = self.box.model.counters
        return (counters.reject_alloc_fail + counters.reject_kmemcache_fail + counters.reject_compress_fail
                + counters.reject_compress_poor)

    @rule(slot=st.integers(0, 24), order=st.sampled_from([0, 0, 0, 1, 2]),
          lengths=st.tuples(*[st.sampled_from(LENGTHS)] * 4), writeback=st.booleans(),
          trouble=st.sampled_from([None, None, None, "zs_malloc", "entry_alloc", "xa_store"]),
          page=st.integers(0, 3), nid=st.integers(0, 1), locked=st.booleans())
    def store(self, slot: int, order: int, lengths: tuple[int, ...], writeback: bool, trouble: str | None,
              page: int, nid: int, locked: bool) -> None:
        slot = slot >> order << order
        box, model = self.box, self.box.model
        box.length = lambda swpent: lengths[swpent % 4]
        box.nid = lambda entry: nid
        answers: dict[str, Any] = {WB_ENABLED: writeback, "q_trylock_zspage": locked}
        if trouble is not None:
            good = True if trouble == "entry_alloc" else 0
            answers["q_" + trouble] = [good] * page + [False if trouble == "entry_alloc" else errno.ENOMEM]
        hits, refused, zswpout = model.counters.pool_limit_hit, self.refusals(), model.counters.zswpout
        was_full = model.pool_reached_full
        done = box.store(slot, order, **answers)
        refused = self.refusals() - refused
        slots = range(slot, slot + (1 << order))
        if done:
            assert all(swpent in model.tree for swpent in slots)
            assert model.counters.zswpout == zswpout + (1 << order)
            assert refused == 0
        else:
            assert model.counters.zswpout == zswpout
            if order and self.revision == "mainline-6.12":
                assert refused == 0
            else:
                assert not any(swpent in model.tree for swpent in slots)
                silent = model.pool_reached_full and (was_full or model.counters.pool_limit_hit > hits)
                assert refused == (0 if silent or not model.enabled else 1)

    @rule(slot=st.integers(0, 27), cached=st.booleans(), broken=st.sampled_from([False, False, False, True]))
    def load(self, slot: int, cached: bool, broken: bool) -> None:
        entry = self.box.model.tree.get(slot)
        before = self.box.model.counters.zswpin
        broken = broken and self.revision != "mainline-6.12"
        answer = {"crypto_acomp_decompress_ret": (errno.EINVAL, 0)} if broken else {}
        self.box.load(slot, q_swapcache=cached, **answer)
        failed = entry is None or (broken and entry.length < PAGE_SIZE)
        assert self.box.model.counters.zswpin == before + (not failed)
        kept = failed or (not cached and self.revision in ("mainline-6.12", "mainline-6.18"))
        assert (slot in self.box.model.tree) == (entry is not None and kept)

    @rule(slot=st.integers(0, 27), locked=st.booleans())
    def invalidate(self, slot: int, locked: bool) -> None:
        self.box.do(self.box.model.zswap_invalidate(slot), q_trylock_zspage=locked)
        assert slot not in self.box.model.tree

    def meddle(self, effect: Any) -> int:
        """Another task is faster than a writeback: what it does to the slot, and what allocating a folio says."""
        entry = effect[1]
        slot, model = entry.swpent, self.box.model
        inner = Box(self.revision)
        inner.model = model
        if self.how == "load":
            inner.do(model.zswap_load(Folio(slot)))
            return errno.EEXIST
        if self.how == "invalidate":
            inner.do(model.zswap_invalidate(slot))
            return errno.ENOENT
        if self.how == "replace":
            inner.objcg = self.box.objcg
            inner.do(model.zswap_store(Folio(slot)))
            return 0
        return {"memory": errno.ENOMEM, "cached": errno.EEXIST}.get(self.how, 0)

    @rule(how=st.sampled_from(["", "", "load", "invalidate", "replace", "memory", "cached"]),
          who=st.sampled_from(["memcg", "scan", "worker"]), nr=st.integers(0, 8))
    def reclaim(self, how: str, who: str, nr: int) -> None:
        self.how = how
        model = self.box.model
        answers = {"q_swap_cache_alloc": self.meddle}
        if who == "memcg":
            assert self.box.shrink(**answers) in (0, errno.ENOENT, errno.EAGAIN)
        elif who == "scan":
            result = self.box.do(model.zswap_shrinker_scan(nr, MEMCG, 0), **answers)
            assert result == -1 or 0 < result <= nr
        else:
            self.box.do(model.shrink_worker(), q_shrink_next=[MEMCG] * nr, **answers)

    @rule(locks=st.lists(st.booleans(), max_size=2))
    def compact(self, locks: list[bool]) -> None:
        for pool in self.box.model.pools:
            self.box.do(pool.zs_pool.zs_shrinker_scan(), q_trylock_zspage=list(locks))
            self.box.do(pool.zs_pool.async_free_zspage())

    @rule(name=st.sampled_from(["lz4", "zstd", "lzo"]))
    def switch(self, name: str) -> None:
        self.box.model.set_param("compressor", name)
        assert self.box.model.pools[0].tfm_name == name

    @rule(percent=st.sampled_from([0, 5, 20]))
    def limit(self, percent: int) -> None:
        self.box.model.set_param("max_pool_percent", str(percent))

    @rule(enabled=st.booleans())
    def enable(self, enabled: bool) -> None:
        self.box.model.set_param("enabled", "Y" if enabled else "N")

    @invariant()
    def balance(self) -> None:
        if hasattr(self, "box"):
            self.box.check_balance()

    def teardown(self) -> None:
        if not hasattr(self, "box"):
            return
        model = self.box.model
        for slot in list(model.tree):
            self.box.invalidate(slot)
        for pool in model.pools:
            self.box.do(pool.zs_pool.async_free_zspage())
        self.box.check_balance()
        assert not model.tree
        assert model.total_pages() == 0
        assert model.counters.stored_pages == 0
        assert model.counters.stored_incompressible_pages == 0
        assert all((a.zswap, a.zswapped, a.incompressible) == (0, 0, 0) for a in model.memcgs.values())
        assert not any(model.lru.lists.values())
        assert all(pool.entries == 0 for pool in model.pools)


def machine(name: str) -> type[AnySequence]:
    """Return the state machine of one revision."""
    return type(f"AnySequence{name}", (AnySequence,), {"revision": name})


@pytest.mark.parametrize("revision", EVERY)
def test_any_sequence(revision: str) -> None:
    run_state_machine_as_test(machine(revision), settings=settings(
        max_examples=35, stateful_step_count=40, deadline=None, derandomize=True, database=None))


@pytest.mark.parametrize(("version", "patches", "name"), [
    ("7.0.13", (27, 26), "v14"), ("7.0.13", (26,), "v14-25"), ("7.0.13", (3,), "mainline-7.0"), ("7.0.13", (), "mainline-7.0"),
    ("7.2.1", (27,), "mainline-7.2")])
def test_a_kernel_that_was_built_with_a_posting_is_the_posting_s(version: str, patches: tuple[int, ...], name: str) -> None:
    """By the Message-IDs of its patches, and on the line that the posting is modelled on alone."""
    rows = [{"message_id": f"<20260125033537.334628-{number}-kanchana.p.sridhar@intel.com>"} for number in patches]
    assert revision_of_kernel({"version": version, "build": {"patches": rows}}) == name
    for build in (None, 7, {"patches": 7}, {"patches": [7, {}, {"message_id": None}]}):
        assert revision_of_kernel({"version": "7.0.13", "build": build}) == "mainline-7.0"
    note = posting_note({"version": version, "build": {"patches": rows}}, name)
    said = f"the kernel was built with {len(patches)} mails of v14: name its revision with --revision where it is not {name}"
    assert note == (said if patches and not name.startswith("v14") else "")


@pytest.mark.parametrize(("version", "carries", "name"), [
    ("6.12.117", ["20250303084724.6490-15-kanchana.p.sridhar@intel.com"], "v8"),
    ("6.12.117", ["20240829212705.6714-3-kanchana.p.sridhar@intel.com"], "v6"),
    # The last patch decides what a posting of one step does.
    ("6.12.117", ["20250303084724.6490-2-kanchana.p.sridhar@intel.com"], "mainline-6.12"),
    ("7.3.4", ["20250303084724.6490-15-kanchana.p.sridhar@intel.com"], "mainline-7.3"),
    ("7.3.4", ["20260125033537.334628-27-kanchana.p.sridhar@intel.com"], "v14-on-7.3"),
    ("6.12.117", "20250303084724.6490-15-kanchana.p.sridhar@intel.com", "mainline-6.12"),
    ("6.12.117", [None, 3], "mainline-6.12")])
def test_a_port_is_the_posting_that_it_names(version: str, carries: Any, name: str) -> None:
    rows = [{"message_id": "", "carries": carries}]
    assert revision_of_kernel({"version": version, "build": {"patches": rows}}) == name
