# SPDX-License-Identifier: GPL-2.0-or-later
"""The v14 posting: zswap_compress() over a batch, its results in a scatter list of per-CPU buffers (January 2026).

Patches 25/26 and 26/26 are mm/zswap.c; 13/26 to 18/26 are the crypto layer they stand on.
"""

from __future__ import annotations

from typing import Final

from model.effects import Steps
from model.revisions.batchcompress import CompressPageByPage, CompressToScatterList, CompressToScatterListMeant
from model.revisions.batching import BatchedStore
from model.revisions.mainline_7 import Mainline70, Mainline73
from model.zswap import Folio, ZswapEntry, ZswapPool

__all__ = ["V14", "V14Meant", "V14On73", "V14Patch25"]

_SERIES: Final = "20260125033537.334628"


class _V14Entries(BatchedStore, Mainline70):
    """Patch 25/26, for the tree that became 7.0: entries of a batch come from one bulk allocation."""

    #: the tree it was posted for still reads objects in a row; zs_obj_read_begin() knows their length by then
    SG_READS = False
    #: kmem_cache_alloc_bulk() returns how many it allocated (all or none); from 7.2 on only whether it did
    BULK_RETURNS_BOOL = False

    def zswap_alloc_entries(self, folio: Folio, pages: range, pool: ZswapPool) -> Steps[list[ZswapEntry] | None]:
        """zswap_entries_cache_alloc_batch(), and one by one where that gives none."""
        wanted = len(pages)
        answer: int | None = yield ("?entry_alloc_bulk", wanted)
        given = wanted if answer is None else answer
        entries = [self.new_entry(folio.swpent + index, pool) for index in pages[:given]]
        if not given:
            self.reached["zswap_entries_cache_alloc_batch.none"] += 1
        returned = min(1, given) if self.BULK_RETURNS_BOOL else given
        if returned == wanted:
            return entries
        if returned:
            self.reached["zswap_entries_cache_alloc_batch.some"] += 1
            # Some of the entries, which the posting calls impossible: only this number is freed again.
            self.counters.reject_kmemcache_fail += 1
            for entry in entries[:returned]:
                self.zswap_entry_cache_free(entry)
        return (yield from self._alloc_singly(folio, pages, pool))


class V14Patch25(_V14Entries, CompressPageByPage):
    """v14 up to patch 25/26: stored in batches, each page still compressed by a call of its own."""

    mirrors = f"v14 of zswap compression batching, patches 1 to 25 of 26, <{_SERIES}-26-kanchana.p.sridhar@intel.com>"
    crypto_layer = "v14"


class V14(_V14Entries, CompressToScatterList):
    """v14 as posted.

    What :class:`CompressToScatterList` does, and: an error that a batching driver finds at completion does not reach
    the caller (18/26), so that a folio that may not be written back is stored all the same.
    """

    mirrors = f"v14 of zswap compression batching as posted, <{_SERIES}-27-kanchana.p.sridhar@intel.com>"
    crypto_layer = "v14"
    compress_call = "table"


class V14On73(V14):
    """v14 as posted, carried forward to 7.3: kmem_cache_alloc_bulk() has become a bool there."""

    mirrors = f"{V14.mirrors}, on Linux 7.3-rc7"
    kernel_line = Mainline73.kernel_line
    SG_READS = Mainline73.SG_READS
    BULK_RETURNS_BOOL = True
    SHRINK_BUDGET = Mainline73.SHRINK_BUDGET
    ROOT_OBJCG = Mainline73.ROOT_OBJCG
    WRITEBACK_SAYS_WHY = Mainline73.WRITEBACK_SAYS_WHY


class V14Meant(_V14Entries, CompressToScatterListMeant):
    """v14 as its text means it: see :class:`CompressToScatterListMeant`; completion errors reach the caller."""

    mirrors = f"v14 of zswap compression batching as meant, <{_SERIES}-27-kanchana.p.sridhar@intel.com>"
    crypto_layer = "v14-meant"
    compress_call = "table"


REVISIONS = {"v14-25": V14Patch25, "v14": V14, "v14-meant": V14Meant, "v14-on-7.3": V14On73}
SERIES = {"v14": ("mainline-7.0", "v14-25", "v14")}
