# SPDX-License-Identifier: GPL-2.0-or-later
"""The v12 posting: zswap_store_pages() with bulk allocation of entries, then a batched zswap_compress() (9/2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from model import errno
from model.effects import Steps
from model.page import PAGE_SIZE
from model.revisions.batchcompress import Call, CompressPageByPage, CompressToScatterList, CompressToScatterListMeant
from model.revisions.batching import BatchedStore
from model.revisions.mainline_6_18 import Mainline618
from model.zswap import Folio, ZswapEntry, ZswapPool

__all__ = ["V12", "V12Meant", "V12Patch22"]

_SERIES: Final = "20250926033502.7486"


class _V12Entries(BatchedStore, Mainline618):
    """Patch 22/23, for the tree that became 6.18: entries in bulk, on whichever node the slab gives them.

    An entry is listed under the node of its slab page, which a bulk allocation does not choose: the answer to
    ``list_lru_add`` says which it was.
    """

    def zswap_alloc_entries(self, folio: Folio, pages: range, pool: ZswapPool) -> Steps[list[ZswapEntry] | None]:
        """The batch's entries in bulk; where that gives none, one by one.

        A failure there goes to a cleanup that reads handles which have not been set yet.
        """
        answer: int | None = yield ("?entry_alloc_bulk", len(pages))
        entries: list[ZswapEntry] = []
        if answer != 0:
            bulk = [self.new_entry(folio.swpent + index, pool) for index in pages]
            for given in bulk:
                given.on_cpu_node = True
            return bulk
        self.reached["zswap_entries_cache_alloc_batch.none"] += 1
        for index in pages:
            entry = yield from self.zswap_entry_cache_alloc(folio.swpent + index, pool)
            if entry is None:
                for earlier in entries:
                    self.ledger.give("zs_handle", f"of entry {earlier.swpent:#x}, never set,")
                    self.zswap_entry_cache_free(earlier)
                return None
            entries.append(entry)
        return entries


class V12Patch22(_V12Entries, CompressPageByPage):
    """v12 up to patch 22/23: batches whose pages are compressed one by one, as mainline does it."""

    mirrors = f"v12 of zswap compression batching, patches 1 to 22 of 23, <{_SERIES}-23-kanchana.p.sridhar@intel.com>"
    crypto_layer = "v12"


class V12(_V12Entries, CompressToScatterList):
    """v12 as posted: results come back through pointers into the scatter list; only an error keeps a page as it is."""

    mirrors = f"v12 of zswap compression batching as posted, <{_SERIES}-24-kanchana.p.sridhar@intel.com>"
    crypto_layer = "v12"
    compress_call = "dlens"

    def batch_error(self, lengths: Sequence[int]) -> int | None:
        """-EINVAL when a page of the call failed, at submission or at completion (14/23), else 0."""
        return errno.EINVAL if any(length < 0 for length in lengths) else 0

    def batch_dlens(self, call: Call, lengths: Sequence[int]) -> frozenset[int]:
        """What was asked for: a driver writes lengths through pointers; zswap does not read what it leaves here."""
        return frozenset({call.pages * PAGE_SIZE, *lengths[:1]})


class V12Meant(_V12Entries, CompressToScatterListMeant):
    """v12 as its text means it: what does not get smaller is kept as it is, handles are set before any failure."""

    mirrors = f"v12 of zswap compression batching as meant, <{_SERIES}-24-kanchana.p.sridhar@intel.com>"
    crypto_layer = "v12"
    compress_call = "dlens"
    batch_dlens = V12.batch_dlens

    def zswap_alloc_entries(self, folio: Folio, pages: range, pool: ZswapPool) -> Steps[list[ZswapEntry] | None]:
        """In bulk, else one by one; on failure what was allocated by then is freed, and nothing else."""
        if (yield ("?entry_alloc_bulk", len(pages))) == 0:
            self.reached["zswap_entries_cache_alloc_batch.none"] += 1
            return (yield from self._alloc_singly(folio, pages, pool))
        # On the node of the folio's page: each is asked for with it.
        return [self.new_entry(folio.swpent + index, pool) for index in pages]


REVISIONS = {"v12-22": V12Patch22, "v12": V12, "v12-meant": V12Meant}
SERIES = {"v12": ("mainline-6.18", "v12-22", "v12")}
