# SPDX-License-Identifier: GPL-2.0-or-later
"""The swap layer around zswap, as far as zswap's counters need it (mm/page_io.c)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from model.effects import Steps
from model.zswap_state import Folio, ZswapState

__all__ = ["AOP_WRITEPAGE_ACTIVATE", "PG_DIRTY", "PG_RECLAIM", "PG_UPTODATE", "WRITTEN_BACK", "SwapLayer"]

#: Bits of folio->flags (enum pageflags in include/linux/page-flags.h, the same from 6.12 to 7.3).
PG_UPTODATE: Final = 1 << 3
PG_DIRTY: Final = 1 << 4
PG_RECLAIM: Final = 1 << 16
#: What zswap_writeback_entry() sets in the folio that it hands to the device.
WRITTEN_BACK: Final = PG_UPTODATE | PG_RECLAIM
#: swap_writeout() of a folio that may not be written back: it stays in memory.
AOP_WRITEPAGE_ACTIVATE: Final = 0x80000


class SwapLayer(ZswapState, ABC):
    """swap_writeout() and the device; :class:`model.zswap.Zswap` supplies the store."""

    @abstractmethod
    def zswap_store(self, folio: Folio) -> Steps[bool]:
        """See :meth:`model.zswap.Zswap.zswap_store`."""

    def swap_writeout(self, folio: Folio) -> Steps[int]:
        """swap_writeout() in mm/page_io.c: zero-filled folios are only marked, others are offered to zswap."""
        yield ("swap_writeout", folio)
        what: str = yield ("?swap_writeout", folio)
        if what == "zero":
            self.reached["swap_writeout.zero"] += 1
            self.count_zero_filled(folio.nr_pages)
        elif what == "free":
            self.reached["swap_writeout.free"] += 1
        if what != "store":
            yield ("swap_writeout_ret", 0)
            return 0
        if (yield from self.zswap_store(folio)):
            if folio.order:
                self.reached["swap_writeout.large"] += 1
            if folio.order and self.HAS_MTHP_ZSWPOUT:
                by_order = self.counters.mthp_zswpout
                by_order[folio.order] = by_order.get(folio.order, 0) + 1
            yield ("swap_writeout_ret", 0)
            return 0
        if not (yield from self.mem_cgroup_zswap_writeback_enabled(self.writeback_enabled)):
            self.reached["swap_writeout.kept"] += 1
            yield ("swap_writeout_ret", AOP_WRITEPAGE_ACTIVATE)
            return AOP_WRITEPAGE_ACTIVATE
        self.reached["swap_writeout.device"] += 1
        yield from self.swap_writepage(folio)
        yield ("swap_writeout_ret", 0)
        return 0

    def swap_writepage(self, folio: Folio, flags: int = 0) -> Steps[None]:
        """__swap_writepage(): the folio goes to the swap device. ``flags``: what zswap has set in it, if anything."""
        yield ("__swap_writepage", folio, flags)
        self.counters.pswpout += folio.nr_pages
