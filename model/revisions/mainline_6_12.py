# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 6.12: order-0 folios only, no raw storage, zpool glue between zswap and zsmalloc."""

from __future__ import annotations

from model.effects import Steps
from model.lines import LINES, mirroring
from model.zswap import Folio, Zswap, ZswapEntry

__all__ = ["Mainline612"]


@mirroring(LINES["6.12"])
class Mainline612(Zswap):
    """Linux 6.12.107: a large folio is refused at once, a page that does not compress is rejected.

    A load into the swap cache erases the entry before it decompresses (with the folio locked this cannot be
    observed, so the model does it afterwards); zswap_load() returns a bool; data that cannot be decompressed is
    a BUG.
    """

    def _store_folio(self, folio: Folio, has_objcg: bool, writeback: bool | None) -> Steps[bool]:
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


REVISIONS = {"mainline-6.12": Mainline612}
