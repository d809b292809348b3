# SPDX-License-Identifier: GPL-2.0-or-later
"""What the posted batching series share: a folio is stored in batches, each compressed and then published as a whole.

They differ from mainline in the order: all entries of a batch are allocated first, then all its pages are compressed
and their objects written, and only then do the pages go into the tree, one by one.  What differs between postings, the
allocation of entries and the compress call, is in their own modules.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

from model.effects import Steps
from model.zswap import Folio, Zswap, ZswapEntry, ZswapPool

__all__ = ["BATCHING_COMPRESSORS", "ZSWAP_MAX_BATCH_SIZE", "BatchedStore", "as_errno"]

#: ZSWAP_MAX_BATCH_SIZE, which software compressors get, and IAA_CRYPTO_MAX_BATCH_SIZE
ZSWAP_MAX_BATCH_SIZE: Final = 8
#: Compressors whose driver takes several pages in one call, and how many.
BATCHING_COMPRESSORS: Final = {"deflate-iaa": 8, "deflate-iaa-dynamic": 8}


def as_errno(length: int) -> int:
    """A length as (int)sg->length reads it: what is above 2^31 is a negative errno."""
    return length - (1 << 32) if length >> 31 else length


class BatchedStore(Zswap):
    """zswap_store() in batches; a posting supplies allocation and compression, and the kernel line it was made for."""

    def compr_batch_size(self, pool: ZswapPool) -> int:
        """crypto_acomp_batch_size(): how many pages one compress call of this pool takes."""
        return BATCHING_COMPRESSORS.get(pool.tfm_name, 1)

    def store_batch_size(self, pool: ZswapPool) -> int:
        """How many pages are stored as one batch: what the compressor takes, or the maximum for one that takes one."""
        batch = self.compr_batch_size(pool)
        return batch if batch > 1 else ZSWAP_MAX_BATCH_SIZE

    def _writeback_of_folio(self) -> Steps[bool | None]:
        # The first statement of zswap_store(), before it is known whether zswap is on.
        return (yield from self.mem_cgroup_zswap_writeback_enabled(self.writeback_enabled))

    def _store_pages(self, folio: Folio, pool: ZswapPool, has_objcg: bool, writeback: bool | None) -> Steps[bool]:
        """The loop of zswap_store() over batches."""
        step = self.store_batch_size(pool)
        for start in range(0, folio.nr_pages, step):
            pages = range(start, min(start + step, folio.nr_pages))
            full = len(pages) == step
            self.reached["zswap_store_pages.full" if full else "zswap_store_pages.partial"] += 1
            if not (yield from self.zswap_store_pages(folio, pages, pool, has_objcg, bool(writeback))):
                if start:
                    self.reached["zswap_store.partial"] += 1
                return False
        objcg = self.tree[folio.swpent].objcg if has_objcg else None
        self._count_stored(objcg, folio.nr_pages)
        return True

    def zswap_store_pages(self, folio: Folio, pages: range, pool: ZswapPool, has_objcg: bool,
                          writeback: bool) -> Steps[bool]:
        """zswap_store_pages(): one batch, ``pages`` by their index in the folio; True when all are stored."""
        entries = yield from self.zswap_alloc_entries(folio, pages, pool)
        if entries is None:
            return False
        if not (yield from self.zswap_compress_batch(folio, pages, entries, pool, writeback)):
            yield from self._store_pages_failed(entries, 0)
            return False
        for number, entry in enumerate(entries):
            if (yield ("?xa_store", entry)):
                self.reached["zswap_store_page.no_tree"] += 1
                self.counters.reject_alloc_fail += 1
                yield from self._store_pages_failed(entries, number)
                return False
            yield from self._replace(entry)
            yield from self._published(entry, has_objcg)
        return True

    @abstractmethod
    def zswap_alloc_entries(self, folio: Folio, pages: range, pool: ZswapPool) -> Steps[list[ZswapEntry] | None]:
        """All entries of a batch, or None when one could not be allocated."""

    @abstractmethod
    def zswap_compress_batch(self, folio: Folio, pages: range, entries: Sequence[ZswapEntry], pool: ZswapPool,
                             writeback: bool) -> Steps[bool]:
        """Compress and write every page of a batch; False when it is rejected (what was written stays)."""

    def _store_pages_failed(self, entries: Sequence[ZswapEntry], first: int) -> Steps[None]:
        """Entries not yet published are freed; zswap_store() erases those already in the tree."""
        self.reached["zswap_store_pages.failed"] += 1
        for entry in entries[first:]:
            # Handles were preset to an error: only those of objects written are freed.
            if entry.length:
                yield from entry.pool.zs_pool.zs_free(entry.obj)
        for entry in entries[first:]:
            self.zswap_entry_cache_free(entry)

    def _alloc_singly(self, folio: Folio, pages: range, pool: ZswapPool) -> Steps[list[ZswapEntry] | None]:
        """zswap_entry_cache_alloc() for each page; on the first failure those of before are freed."""
        entries: list[ZswapEntry] = []
        for index in pages:
            entry = yield from self.zswap_entry_cache_alloc(folio.swpent + index, pool)
            if entry is None:
                for earlier in entries:
                    self.zswap_entry_cache_free(earlier)
                return None
            entries.append(entry)
        return entries
