# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives the model without a recording: answers its questions, writes down its effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.effects import Effect, Steps, run
from model.page import PAGE_SIZE
from model.revisions import MAINLINE, REVISIONS
from model.zswap import Folio, Zswap, ZswapEntry

OBJCG = 0xC0
MEMCG = 0xA0


class Box:
    """A model with answers.

    :param revision: name of a revision
    :param length: compressed length of the page at a slot, or a negative errno

    ``answers`` maps an effect's or question's name to what is answered: a value, a list (taken from its front
    until it is empty, then the default counts) or a function of the effect.  ``seen`` are the effects of the
    last operation, without questions; ``asked`` its questions.
    """

    def __init__(self, revision: str = "mainline-7.3", length: Callable[[int], int] | int = 1000, *,
                 totalram_pages: int = 1 << 20, chain_size: int = 8, compressor: str = "lz4") -> None:
        self.revision = revision
        self.model: Zswap = REVISIONS[revision](totalram_pages=totalram_pages, compressor=compressor,
                                                 chain_size=chain_size)
        # Off unless configured otherwise (CONFIG_ZSWAP_SHRINKER_DEFAULT_ON); tests of the shrinker want it on.
        self.model.set_param("shrinker_enabled", "Y")
        self.length = length
        self.objcg: int | None = OBJCG
        self.memcg = MEMCG
        self.nid: Callable[[ZswapEntry], int] = lambda entry: 0
        self.answers: dict[str, Any] = {}
        self.seen: list[Effect] = []
        self.asked: list[str] = []

    @property
    def names(self) -> list[str]:
        """Names of the last operation's effects."""
        return [effect[0] for effect in self.seen]

    def _answer(self, effect: Effect) -> Any:
        kind = effect[0]
        if kind in self.answers:
            given = self.answers[kind]
            if callable(given):
                return given(effect)
            if isinstance(given, list):
                if given:
                    return given.pop(0)
            else:
                return given
        if kind == "crypto_acomp_compress_ret":
            slot = effect[1].swpent + effect[2]
            length = self.length if isinstance(self.length, int) else self.length(slot)
            return (length, PAGE_SIZE, None) if length < 0 else (0, length, ("page", slot))
        if kind == "obj_cgroup_charge_zswap":
            return self.objcg
        if kind == "list_lru_add":
            return self.nid(effect[1]), self.memcg
        if kind == "?objcg":
            return self.objcg is not None
        return None

    def _see(self, effect: Effect) -> None:
        if effect[0][0] == "?":
            self.asked.append(effect[0])
        elif effect[0] != "memcpy":
            self.seen.append(effect)

    def do(self, steps: Steps[Any], **answers: Any) -> Any:
        """Run an operation; ``answers`` hold for this one only (``q_name`` stands for ``?name``)."""
        before = self.answers
        self.answers = before | {("?" + k[2:] if k.startswith("q_") else k): v for k, v in answers.items()}
        self.seen, self.asked = [], []
        try:
            return run(steps, self._answer, self._see)
        finally:
            self.answers = before

    def store(self, swpent: int, order: int = 0, **answers: Any) -> bool:
        """zswap_store()"""
        return bool(self.do(self.model.zswap_store(Folio(swpent, order)), **answers))

    def writeout(self, swpent: int, order: int = 0, **answers: Any) -> int:
        """swap_writeout()"""
        return int(self.do(self.model.swap_writeout(Folio(swpent, order)), **answers))

    def load(self, swpent: int, **answers: Any) -> int:
        """zswap_load()"""
        return int(self.do(self.model.zswap_load(Folio(swpent)), **answers))

    def invalidate(self, swpent: int) -> None:
        """zswap_invalidate()"""
        self.do(self.model.zswap_invalidate(swpent))

    def shrink(self, **answers: Any) -> int:
        """shrink_memcg()"""
        return int(self.do(self.model.shrink_memcg(self.memcg), **answers))

    def lru(self, nid: int = 0, cgroup: int = MEMCG) -> list[int]:
        """Return the slots on an LRU list, next to be looked at first."""
        return [entry.swpent for entry in self.model.lru.lists.get((nid, cgroup), ())]

    def counters(self) -> dict[str, int]:
        """Return all counters that are not 0, and the cgroup's as ``memcg.NAME``."""
        counts = self.model.counters
        out = {name: getattr(counts, name) for name in counts.__slots__ if getattr(counts, name)}
        for account in self.model.memcgs.values():
            for name in account.__slots__:
                if getattr(account, name):
                    out[f"memcg.{name}"] = out.get(f"memcg.{name}", 0) + getattr(account, name)
        return out

    def check_balance(self) -> None:
        """Everything that counts the same thing agrees; see SPEC section 3."""
        model = self.model
        entries = list(model.tree.values())
        assert model.counters.stored_pages == len(entries) == model.ledger.live("zswap_entry")
        assert model.ledger.problems == []
        assert all(slot == entry.swpent for slot, entry in model.tree.items())
        for objcg, account in model.memcgs.items():
            mine = [entry for entry in entries if entry.objcg == objcg]
            assert (account.zswap, account.zswapped) == (sum(e.length for e in mine), len(mine))
            apart = sum(e.length == PAGE_SIZE for e in mine) if model.ROOT_OBJCG else 0
            assert account.incompressible == apart
        whole = sum(entry.length == PAGE_SIZE for entry in entries)
        assert model.counters.stored_incompressible_pages == (0 if self.revision == "mainline-6.12" else whole)
        listed = [(key, entry) for key, items in model.lru.lists.items() for entry in items]
        assert {id(entry) for _, entry in listed} == {id(entry) for entry in entries}
        assert len(listed) == len(entries)
        assert all(entry.lru == key for key, entry in listed)
        for pool in model.pools:
            objects = {id(obj) for cls in pool.zs_pool.classes for group in cls.groups for zspage in group
                       for obj in zspage.objects if obj is not None}
            mine = [entry for entry in entries if entry.pool is pool]
            assert objects == {id(entry.obj) for entry in mine}
            assert pool.entries == len(mine)
            assert all(entry.obj.size == entry.length for entry in mine)
            assert sum(cls.objs_inuse for cls in pool.zs_pool.classes) == len(mine)
        assert {id(entry.pool) for entry in entries} <= {id(pool) for pool in model.pools}


EVERY = list(MAINLINE)
#: all but 6.12: large folios, raw pages, the int that zswap_load() returns
LATER = EVERY[1:]
V612 = "mainline-6.12"

MALLOC = ["zs_malloc", "obj_malloc", "obj_malloc_ret", "zs_malloc_ret"]
MALLOC_AGAIN = ["zs_malloc", "obj_malloc", "obj_malloc_ret", "fix_fullness_group", "fix_fullness_group_ret",
                "zs_malloc_ret"]
COMPRESS = ["crypto_acomp_compress", "crypto_acomp_compress_ret"]
PROLOGUE = ["zswap_store", "obj_cgroup_may_zswap_ret", "zs_get_total_pages_ret"]
PUBLISH = ["obj_cgroup_charge_zswap", "list_lru_add", "list_lru_add_ret"]
WB_ENABLED = "mem_cgroup_zswap_writeback_enabled_ret"
#: an entry whose zspage lives on
FREE = ["zswap_entry_free", "list_lru_del", "zs_free", "obj_free", "fix_fullness_group", "fix_fullness_group_ret",
        "obj_cgroup_uncharge_zswap"]
#: an entry that was alone in its zspage (7.3 frees the zspage in zs_free() itself; the model yields the same effects)
FREE_LAST = [*FREE[:-1], "__free_zspage", FREE[-1]]
READ = ["zswap_decompress", "zs_obj_read", "crypto_acomp_decompress", "crypto_acomp_decompress_ret"]


def write(revision: str) -> str:
    """Return the function that fills a new object: 6.12 maps it like a read."""
    return "zs_obj_read" if revision == V612 else "zs_obj_write"


def stored(*slots: int, revision: str = "mainline-7.3", order: int = 0, **options: Any) -> Box:
    """Return a box that has stored pages at some slots."""
    box = Box(revision, **options)
    for slot in slots:
        assert box.store(slot, order)
    return box


def totals(box: Box) -> list[int]:
    """Return what a store reads of each listed pool, current first."""
    return [effect[1] for effect in box.seen if effect[0] == "zs_get_total_pages_ret"]


def full_at(pages: int, threshold: int, revision: str) -> Box:
    """Return a box whose pool may have ``pages`` pages and accepts again at ``threshold``; a page per entry."""
    box = Box(revision, 4000, totalram_pages=100)
    box.model.max_pool_percent = pages
    box.model.accept_threshold_percent = threshold * 100 // pages
    assert (box.model.max_pages(), box.model.accept_thr_pages()) == (pages, threshold)
    return box
