# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 6.18: loads outside the swap cache keep their entry; objects are read linearly."""

from __future__ import annotations

from model import errno
from model.effects import Steps
from model.revisions.mainline_7 import Mainline70
from model.swap import PG_DIRTY, PG_UPTODATE
from model.zswap import Folio

__all__ = ["Mainline618"]


class Mainline618(Mainline70):
    """Linux 6.18.15: zswap_load() frees the entry only when it read into the swap cache."""

    mirrors = "Linux 6.18.15 mm/zswap.c, mm/zsmalloc.c"
    kernel_line = "mainline-6.18"
    crypto_layer = "6.18"
    SG_READS = False

    def zswap_load(self, folio: Folio) -> Steps[int]:
        """zswap_load(): as in 7.0, but a synchronous swap device may read past the swap cache."""
        yield ("zswap_load", folio)
        if folio.order:
            yield ("zswap_load_ret", errno.EINVAL)
            return errno.EINVAL
        entry = self.tree.get(folio.swpent)
        if entry is None:
            self.reached["zswap_load.none"] += 1
            self.counters.pswpin += folio.nr_pages
            yield ("zswap_load_ret", errno.ENOENT)
            return errno.ENOENT
        if not (yield from self.zswap_decompress(entry, folio)):
            yield ("zswap_load_ret", errno.EIO)
            return errno.EIO
        self._count_load(entry)
        flags = PG_UPTODATE
        if (yield ("?swapcache", folio)):
            flags |= PG_DIRTY
            self.tree.pop(folio.swpent, None)
            yield from self.zswap_entry_free(entry)
        else:
            self.reached["zswap_load.past_cache"] += 1
        yield ("zswap_load_ret", 0, folio, flags)
        return 0


REVISIONS = {"mainline-6.18": Mainline618}
