# SPDX-License-Identifier: GPL-2.0-or-later
"""The v6 posting of "mm: ZSWAP swap-out of mTHP folios": a large folio page by page, all or nothing (August 2024)."""

from __future__ import annotations

from model.effects import Steps
from model.revisions.mainline_6_12 import Mainline612
from model.zswap import Folio
from model.zswap_state import kstrtobool

__all__ = ["V6", "V6Meant"]


class V6(Mainline612):
    """v6 as posted: behind the parameter ``mthp_enabled``; limits are checked per page, ZSWPOUT counted per page.

    With the parameter off a large folio is refused before zswap looks at what is stored at its slots.
    """

    mirrors = "v6 of ZSWAP swap-out of mTHP folios as posted, <20240829212705.6714-3-kanchana.p.sridhar@intel.com>"
    #: patch 3/3
    HAS_MTHP_ZSWPOUT = True
    #: CONFIG_ZSWAP_STORE_THP_DEFAULT_ON, which is not set by default; the parameter is 0644
    mthp_enabled = False

    def set_param(self, name: str, value: str) -> None:
        """As in :class:`Mainline612`, with the parameter ``mthp_enabled``."""
        if name == "mthp_enabled":
            self.mthp_enabled = kstrtobool(value.strip())
        else:
            super().set_param(name, value)

    def _takes_large_folios(self) -> bool:
        return self.mthp_enabled

    def _store_folio(self, folio: Folio, has_objcg: bool, writeback: bool | None) -> Steps[bool]:
        for index in range(folio.nr_pages):
            # zswap_store_page() checks again, for each page.
            if (yield from self.zswap_check_limits()) or not (yield from self._store_one(folio, index, has_objcg)):
                if index:
                    self.reached["zswap_store.partial"] += 1
                return False
        return True


class V6Meant(V6):
    """v6 without two oversights: a refused folio leaves no stale entry behind, ZSWPOUT counts stored folios only."""

    mirrors = "v6 of ZSWAP swap-out of mTHP folios as meant, <20240829212705.6714-3-kanchana.p.sridhar@intel.com>"

    def _refuse_large(self, folio: Folio) -> Steps[None]:
        """What is stored at the slots of a folio that is not wanted any more is erased."""
        self.reached["zswap_store.large"] += 1
        yield from self._erase_stale(folio)

    def _store_enabled(self, folio: Folio, writeback: bool | None) -> Steps[bool]:
        before = self.counters.zswpout
        counted = {objcg: account.zswpout for objcg, account in self.memcgs.items()}
        stored = yield from super()._store_enabled(folio, writeback)
        if not stored:
            # ZSWPOUT counts stored folios only.
            self.counters.zswpout = before
            for objcg, account in self.memcgs.items():
                account.count("zswpout", counted.get(objcg, 0) - account.zswpout)
        return stored


REVISIONS = {"v6": V6, "v6-meant": V6Meant}
