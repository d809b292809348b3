# SPDX-License-Identifier: GPL-2.0-or-later
"""Reference model of mm/zswap.c, as Linux 7.3-rc7 has it.

Where other kernel lines differ in a condition, an attribute in capitals asks for it (:mod:`model.lines`); where they do
something else, they override a step.

Every method named like a kernel function mirrors that function and is a generator of effects
(:mod:`model.effects`).  The order of effects is the order in which the kernel calls what can be observed.
Here is what a store, a load and a freed slot do; writeback is in :mod:`model.zswap_writeback`.
"""

from __future__ import annotations

from model import errno
from model.effects import Steps
from model.memcg import MemcgZswap
from model.page import PAGE_SIZE
from model.swap import AOP_WRITEPAGE_ACTIVATE, PG_DIRTY, PG_UPTODATE, SwapLayer
from model.zswap_state import KERNEL_COMPRESSORS, Folio, ZswapEntry, ZswapPool
from model.zswap_writeback import ZswapWriteback

__all__ = ["AOP_WRITEPAGE_ACTIVATE", "KERNEL_COMPRESSORS", "Folio", "Zswap", "ZswapEntry", "ZswapPool"]


class Zswap(SwapLayer, ZswapWriteback):
    """The whole of zswap on one box; a revision is a subclass that overrides steps.

    Parameters and state are those of :class:`model.zswap_state.ZswapState`.
    """

    def _may_zswap(self) -> Steps[bool]:
        """The cgroup part of a store's prologue: memory.zswap.max, with one try to write back."""
        # The folio's cgroup shows only when it is charged; with one cgroup it is known.
        expected = None
        if self.zswap_max is not None and len(self.memcgs) <= 1:
            account = next(iter(self.memcgs.values()), MemcgZswap())
            expected = account.may_zswap(self.zswap_max)
        allowed: bool | None = yield ("obj_cgroup_may_zswap_ret", expected)
        if allowed is None:
            allowed = expected
        if allowed is None:
            allowed = yield ("?may_zswap",)
        if not allowed:
            self.reached["zswap_store.memcg_full"] += 1
            if (yield from self.shrink_memcg(None)):
                return False
            self.reached["zswap_store.memcg_shrunk"] += 1
        return True

    def zswap_store(self, folio: Folio) -> Steps[bool]:
        """zswap_store(): store every page of a folio, or none; True when stored."""
        yield ("zswap_store", folio)
        if folio.order and not self._takes_large_folios():
            yield from self._refuse_large(folio)
            yield ("zswap_store_ret", False)
            return False
        writeback = yield from self._writeback_of_folio()
        stored = False
        if self.enabled:
            stored = yield from self._store_enabled(folio, writeback)
        else:
            self.reached["zswap_store.disabled"] += 1
        if not stored:
            yield from self._erase_stale(folio)
        yield ("zswap_store_ret", stored)
        return stored

    def _takes_large_folios(self) -> bool:
        """True where large folios are considered at all; a posting may have a parameter for it."""
        return self.LARGE_FOLIOS

    def _refuse_large(self, folio: Folio) -> Steps[None]:
        """Refuse a large folio before anything stored at its slots is looked at."""
        yield from ()
        self.reached["zswap_store.large"] += 1
        self.untold_folios = True

    def _writeback_of_folio(self) -> Steps[bool | None]:
        """Whether a folio's pages may be written back; None: asked page by page, where one does not compress."""
        yield from ()
        return None

    def _store_enabled(self, folio: Folio, writeback: bool | None) -> Steps[bool]:
        has_objcg = yield from self._has_objcg()
        if has_objcg and not (yield from self._may_zswap()):
            return False
        if (yield from self.zswap_check_limits()):
            return False
        return (yield from self._store_folio(folio, has_objcg, writeback))

    def _store_folio(self, folio: Folio, has_objcg: bool, writeback: bool | None) -> Steps[bool]:
        """A folio that the limits allow; ``writeback`` as :meth:`_writeback_of_folio` has it."""
        pool = self.pools[0]
        # The store holds the pool: a switch of compressors meanwhile does not take it away.
        pool.entries += 1
        stored = yield from self._store_pages(folio, pool, has_objcg, writeback)
        self._put_pool(pool)
        return stored

    def _store_pages(self, folio: Folio, pool: ZswapPool, has_objcg: bool, writeback: bool | None) -> Steps[bool]:
        """Every page of a folio."""
        objcg: int | None = None
        for index in range(folio.nr_pages):
            entry = yield from self.zswap_store_page(folio, index, pool, has_objcg)
            if entry is None:
                if index:
                    self.reached["zswap_store.partial"] += 1
                return False
            objcg = entry.objcg
        self._count_stored(objcg, folio.nr_pages)
        return True

    def _count_stored(self, objcg: int | None, pages: int) -> None:
        if objcg is not None:
            self.memcg(objcg).count("zswpout", pages)
        self.counters.zswpout += pages

    def _erase_stale(self, folio: Folio) -> Steps[None]:
        """The end of a failed zswap_store(): whatever was stored at the folio's slots is out of date."""
        for swpent in range(folio.swpent, folio.swpent + folio.nr_pages):
            entry = self.tree.pop(swpent, None)
            if entry is not None:
                self.reached["zswap_store.erase"] += 1
                yield from self.zswap_entry_free(entry)

    def zswap_store_page(self, folio: Folio, index: int, pool: ZswapPool,
                         has_objcg: bool) -> Steps[ZswapEntry | None]:
        """zswap_store_page(): one page into the tree; None when it was rejected."""
        entry = yield from self.zswap_entry_cache_alloc(folio.swpent + index, pool)
        if entry is None:
            return None
        if not (yield from self.zswap_compress(folio, index, entry)) or not (yield from self._publish(entry)):
            self.zswap_entry_cache_free(entry)
            return None
        yield from self._published(entry, has_objcg)
        return entry

    def _published(self, entry: ZswapEntry, has_objcg: bool) -> Steps[None]:
        """What follows once an entry is in the tree: references, charge, counters, LRU."""
        entry.pool.entries += 1
        if has_objcg:
            entry.objcg = yield from self._charge(entry)
        self.counters.stored_pages += 1
        if entry.length == PAGE_SIZE and self.HAS_INCOMPRESSIBLE:
            self.counters.stored_incompressible_pages += 1
        entry.referenced = True
        yield from self.zswap_lru_add(entry)

    def _publish(self, entry: ZswapEntry) -> Steps[bool]:
        """xa_store() of a new entry, and the end of the one it replaces; False when the tree had no memory."""
        if (yield ("?xa_store", entry)):
            self.reached["zswap_store_page.no_tree"] += 1
            self.counters.reject_alloc_fail += 1
            yield from entry.pool.zs_pool.zs_free(entry.obj)
            return False
        yield from self._replace(entry)
        return True

    def _replace(self, entry: ZswapEntry) -> Steps[None]:
        """The new entry is in the tree, the one it replaces ends."""
        old = self.tree.get(entry.swpent)
        self.tree[entry.swpent] = entry
        if old is not None:
            self.reached["zswap_store_page.replace"] += 1
            yield from self.zswap_entry_free(old)

    def _charge(self, entry: ZswapEntry) -> Steps[int | None]:
        """obj_cgroup_charge_zswap() of a new entry; returns the cgroup it was charged to."""
        objcg: int | None = yield ("obj_cgroup_charge_zswap", entry.length)
        if objcg is not None:
            self.memcg(objcg).charge(entry.length, self.ROOT_OBJCG)
        return objcg

    def zswap_lru_add(self, entry: ZswapEntry) -> Steps[None]:
        """zswap_lru_add(): to the tail of its cgroup's and node's list."""
        key = yield ("list_lru_add", entry)
        entry.lru = key if key is not None else (0, entry.objcg or 0)
        added = self.lru.add(entry.lru, entry)
        yield ("list_lru_add_ret", added)

    def zswap_compress(self, folio: Folio, index: int, entry: ZswapEntry) -> Steps[bool]:
        """zswap_compress() of one page: compressed, or kept as it is if it does not shrink and may be written back."""
        yield ("crypto_acomp_compress", folio, index, 1, entry.pool)
        ret, dlen, entry.content = yield ("crypto_acomp_compress_ret", folio, index)
        raw = False
        self.compressed(ret, dlen)
        if ret and not self.RAW_PAGES:
            self._count_reject(ret, 0)
            return False
        if self.RAW_PAGES and (ret or not dlen or dlen >= PAGE_SIZE):
            if not (yield from self.mem_cgroup_zswap_writeback_enabled(self.writeback_enabled)):
                self.reached["zswap_compress.no_writeback"] += 1
                self._count_reject(ret or errno.EINVAL, 0)
                return False
            self.reached["zswap_compress.raw"] += 1
            raw, dlen = True, PAGE_SIZE
        return (yield from self._store_object(entry, dlen, raw))

    def _store_object(self, entry: ZswapEntry, length: int, raw: bool) -> Steps[bool]:
        """Allocate and write an entry's object."""
        obj = yield from entry.pool.zs_pool.zs_malloc(length)
        if isinstance(obj, int):
            self._count_reject(0, obj)
            return False
        if self.MAPS_OBJECTS:
            # zs_map_object(ZS_MM_WO) is the same function a load maps with.
            yield from entry.pool.zs_pool.zs_obj_read(obj, length)
            yield ("memcpy", obj, length, entry.content)
        else:
            yield ("zs_obj_write", obj, length, entry.content, raw)
        entry.obj = obj
        entry.length = length
        return True

    def compressed(self, ret: int, dlen: int) -> None:
        """Note how a compress call ended: ``ret`` is 0 or an errno, ``dlen`` the length it gives."""
        if ret:
            self.reached["zswap_compress.ENOSPC" if ret == errno.ENOSPC else
                         "zswap_compress.EINVAL" if ret == errno.EINVAL else
                         "zswap_compress.E2BIG" if ret == errno.E2BIG else
                         "zswap_compress.ENODEV" if ret == errno.ENODEV else
                         "zswap_compress.ETIMEDOUT" if ret == errno.ETIMEDOUT else
                         "zswap_compress.EIO" if ret == errno.EIO else "zswap_compress.error"] += 1
        elif not 0 < dlen < PAGE_SIZE:
            self.reached["zswap_compress.whole"] += 1

    def _count_reject(self, comp_ret: int, alloc_ret: int) -> None:
        """The end of zswap_compress(): which counter a rejected page increments."""
        if errno.ENOSPC in (comp_ret, alloc_ret):
            self.counters.reject_compress_poor += 1
        elif comp_ret:
            self.counters.reject_compress_fail += 1
        elif alloc_ret:
            self.counters.reject_alloc_fail += 1

    # ---- end of an entry --------------------------------------------------------------------------------

    def zswap_entry_free(self, entry: ZswapEntry) -> Steps[None]:
        """zswap_entry_free(): off the LRU, object freed, uncharged."""
        yield ("zswap_entry_free", entry)
        yield ("list_lru_del", entry)
        if entry.lru is not None:
            self.lru.delete(entry.lru, entry)
        yield from entry.pool.zs_pool.zs_free(entry.obj)
        self._put_pool(entry.pool)
        if entry.objcg is not None:
            yield ("obj_cgroup_uncharge_zswap", entry)
        self.count_freed(entry)

    def count_freed(self, entry: ZswapEntry) -> None:
        """The end of zswap_entry_free(), which only counters show."""
        if entry.objcg is not None:
            self.memcg(entry.objcg).uncharge(entry.length, self.ROOT_OBJCG)
        if entry.length == PAGE_SIZE and self.HAS_INCOMPRESSIBLE:
            self.counters.stored_incompressible_pages -= 1
        self.zswap_entry_cache_free(entry)
        self.counters.stored_pages -= 1

    def _put_pool(self, pool: ZswapPool) -> None:
        """A pool that is not current dies with its last entry; it stays listed until a worker released it."""
        pool.entries -= 1
        if not pool.entries and pool is not self.pools[0]:
            self.reached["zswap_pool.released"] += 1
            pool.dying = True

    def zswap_invalidate(self, swpent: int) -> Steps[None]:
        """zswap_invalidate(): a swap slot was freed."""
        yield ("zswap_invalidate", swpent)
        entry = self.tree.pop(swpent, None)
        if entry is None:
            self.reached["zswap_invalidate.none"] += 1
            return
        self.reached["zswap_invalidate.stored"] += 1
        yield from self.zswap_entry_free(entry)

    # ---- load -------------------------------------------------------------------------------------------

    def zswap_load(self, folio: Folio) -> Steps[int]:
        """zswap_load(): 0, -ENOENT when zswap has no such page, -EIO when it cannot be decompressed.

        A large folio is refused with -EINVAL (by a zswap that was ever enabled, which is taken for granted).
        """
        yield ("zswap_load", folio)
        failure, flags = yield from self._load(folio)
        # As a bool: zswap had the page, or will not have it read as part of a large folio.
        result = int(failure != errno.ENOENT) if self.LOAD_RETURNS_BOOL else failure
        if failure:
            yield ("zswap_load_ret", result)
        else:
            yield ("zswap_load_ret", result, folio, flags)
        return result

    def _load(self, folio: Folio) -> Steps[tuple[int, int]]:
        """The body of zswap_load(): 0 or an errno, and the flags that a folio which was read is left with."""
        if folio.order:
            return errno.EINVAL, 0
        entry = self.tree.get(folio.swpent)
        if entry is None:
            self.reached["zswap_load.none"] += 1
            self.counters.pswpin += folio.nr_pages
            return errno.ENOENT, 0
        if not (yield from self.zswap_decompress(entry, folio)):
            return errno.EIO, 0
        self._count_load(entry)
        if self.LOADS_PAST_CACHE and not (yield ("?swapcache", folio)):
            self.reached["zswap_load.past_cache"] += 1
            return 0, PG_UPTODATE
        self.tree.pop(folio.swpent, None)
        yield from self.zswap_entry_free(entry)
        # Nothing else holds the page any more: a folio that is not dirty would be dropped.
        return 0, PG_UPTODATE | PG_DIRTY

    def _count_load(self, entry: ZswapEntry) -> None:
        self.reached["zswap_load.stored"] += 1
        self.counters.zswpin += 1
        if entry.objcg is not None:
            self.memcg(entry.objcg).count("zswpin", 1)

    def zswap_decompress(self, entry: ZswapEntry, folio: Folio) -> Steps[bool]:
        """zswap_decompress(): read an entry's object; a raw one is copied, others go through the compressor."""
        yield ("zswap_decompress", entry, folio)
        yield from entry.pool.zs_pool.zs_obj_read(entry.obj, entry.length)
        if self._is_raw(entry):
            self.reached["zswap_decompress.raw"] += 1
            return True
        self.reached["zswap_decompress.compressed"] += 1
        yield ("crypto_acomp_decompress", entry.length)
        answer = yield ("crypto_acomp_decompress_ret", 0, PAGE_SIZE)
        ret, dlen = answer if answer is not None else (0, PAGE_SIZE)
        if ret == 0 and dlen == PAGE_SIZE:
            return True
        self.reached["zswap_decompress.failed"] += 1
        if not self.DECOMPRESS_FAILS:
            # The kernel stops with a BUG: nothing after it can be observed.
            return True
        self.counters.decompress_fail += 1
        return False

    def _is_raw(self, entry: ZswapEntry) -> bool:
        return self.RAW_PAGES and entry.length == PAGE_SIZE
