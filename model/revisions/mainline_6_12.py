# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 6.12: order-0 folios only, no raw storage, zpool glue between zswap and zsmalloc."""

from __future__ import annotations

from model import errno
from model.effects import Steps
from model.swap import PG_DIRTY, PG_UPTODATE, WRITTEN_BACK
from model.zsmalloc import PAGE_SIZE
from model.zswap import Folio, Zswap, ZswapEntry

__all__ = ["Mainline612"]


class Mainline612(Zswap):
    """Linux 6.12.107: a large folio is refused at once, a page that does not compress is rejected.

    A load into the swap cache erases the entry before it decompresses (with the folio locked nobody can tell,
    so the model does it afterwards); zswap_load() returns a bool; data that cannot be decompressed is a BUG.
    """

    mirrors = "Linux 6.12.107 mm/zswap.c, mm/zsmalloc.c"
    kernel_line = "mainline-6.12"
    crypto_layer = "6.12"
    SHRINK_BUDGET = 1
    ROOT_OBJCG = False
    CHECKS_LENGTH = False
    #: __zs_compact() takes migrate_write_lock()
    COMPACTION_TRYLOCKS = False
    HAS_INCOMPRESSIBLE = False
    WHOLE_IS_PAGE = False
    HAS_MTHP_ZSWPOUT = False
    LOAD_RETURNS_BOOL = True
    SG_READS = False

    def zswap_store(self, folio: Folio) -> Steps[bool]:
        """zswap_store(): a large folio is refused without touching what is stored at its slots."""
        if folio.order:
            yield ("zswap_store", folio)
            self.reached["zswap_store.large"] += 1
            self.untold_folios = True
            yield ("zswap_store_ret", False)
            return False
        return (yield from super().zswap_store(folio))

    def _store_enabled(self, folio: Folio, writeback: bool | None) -> Steps[bool]:
        has_objcg = yield from self._has_objcg()
        if has_objcg and not (yield from self._may_zswap()):
            return False
        if (yield from self.zswap_check_limits()):
            return False
        return (yield from self._store_one(folio, 0, has_objcg))

    def _store_one(self, folio: Folio, index: int, has_objcg: bool) -> Steps[bool]:
        """The body of zswap_store() for one page."""
        pool = self.pools[0]
        entry = yield from self.zswap_entry_cache_alloc(folio.swpent + index, pool)
        if entry is None:
            return False
        # The reference taken here is the entry's own, dropped when it comes to nothing.
        pool.entries += 1
        if not (yield from self.zswap_compress(folio, index, entry)):
            return self._give_up(entry)
        entry.referenced = True
        if not (yield from self._publish(entry)):
            return self._give_up(entry)
        if has_objcg:
            entry.objcg = yield from self._charge(entry)
        if entry.objcg is not None:
            self.memcg(entry.objcg).count("zswpout", 1)
        yield from self.zswap_lru_add(entry)
        self.counters.stored_pages += 1
        self.counters.zswpout += 1
        return True

    def _give_up(self, entry: ZswapEntry) -> bool:
        self._put_pool(entry.pool)
        self.zswap_entry_cache_free(entry)
        return False

    def zswap_compress(self, folio: Folio, index: int, entry: ZswapEntry) -> Steps[bool]:
        """zswap_compress(): any compressor error rejects the page; a length of a whole page is kept."""
        yield ("crypto_acomp_compress", folio, index, 1, entry.pool)
        ret, dlen, entry.content = yield ("crypto_acomp_compress_ret", folio, index)
        self.compressed(ret, dlen)
        if ret:
            self._count_reject(ret, 0)
            return False
        return (yield from self._store_object(entry, dlen, False))

    def _store_object(self, entry: ZswapEntry, length: int, raw: bool) -> Steps[bool]:
        """zpool_malloc() and zpool_map_handle(): the object is mapped to be written."""
        obj = yield from entry.pool.zs_pool.zs_malloc(length)
        if isinstance(obj, int):
            self._count_reject(0, obj)
            return False
        # zs_map_object(ZS_MM_WO) is the same function a load maps with.
        yield from entry.pool.zs_pool.zs_obj_read(obj, length)
        yield ("memcpy", obj, length, entry.content)
        entry.obj = obj
        entry.length = length
        return True

    def zswap_load(self, folio: Folio) -> Steps[int]:
        """zswap_load(): True (1) when zswap had the page, or will not have it read as part of a large folio."""
        yield ("zswap_load", folio)
        if folio.order:
            yield ("zswap_load_ret", 1)
            return 1
        entry = self.tree.get(folio.swpent)
        if entry is None:
            self.reached["zswap_load.none"] += 1
            self.counters.pswpin += folio.nr_pages
            yield ("zswap_load_ret", 0)
            return 0
        yield from self.zswap_decompress(entry, folio)
        self._count_load(entry)
        flags = PG_UPTODATE
        if (yield ("?swapcache", folio)):
            flags |= PG_DIRTY
            self.tree.pop(folio.swpent, None)
            yield from self.zswap_entry_free(entry)
        else:
            self.reached["zswap_load.past_cache"] += 1
        yield ("zswap_load_ret", 1, folio, flags)
        return 1

    def zswap_writeback_entry(self, entry: ZswapEntry, swpent: int) -> Steps[int]:
        """zswap_writeback_entry(): the entry leaves the tree before it is decompressed."""
        yield ("zswap_writeback_entry", entry)
        result = yield from self._writeback(entry, swpent)
        yield ("zswap_writeback_entry_ret", result)
        return result

    def _writeback(self, entry: ZswapEntry, swpent: int) -> Steps[int]:
        failure: int = yield ("?swap_cache_alloc", entry)
        if failure:
            self.reached["zswap_writeback_entry.no_folio"] += 1
            # __read_swap_cache_async(): a folio that was there already, or none.
            return failure if failure == errno.EEXIST else errno.ENOMEM
        if self.tree.get(swpent) is not entry:
            self.reached["zswap_writeback_entry.gone"] += 1
            return errno.ENOMEM
        del self.tree[swpent]
        folio = Folio(swpent)
        yield from self.zswap_decompress(entry, folio)
        self._count_writeback(entry)
        yield from self.zswap_entry_free(entry)
        yield ("__swap_writepage", folio, WRITTEN_BACK)
        self.counters.pswpout += 1
        return 0

    def _count_decompress_fail(self) -> None:
        """There is no such counter: the kernel stops with a BUG."""

    def _is_raw(self, entry: ZswapEntry) -> bool:
        # There is no raw form: a length of PAGE_SIZE is compressed data of that length.
        assert entry.length <= PAGE_SIZE
        return False


REVISIONS = {"mainline-6.12": Mainline612}
