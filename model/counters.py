# SPDX-License-Identifier: GPL-2.0-or-later
"""The counters that zswap changes: debugfs zswap/, /proc/vmstat and the mTHP statistics.

Names are the kernel's.  Values are pages or events; ``pool_total_size`` and the memcg values are derived in
:mod:`model.zswap`.
"""

from __future__ import annotations

__all__ = ["DEBUGFS", "VMSTAT", "Counters"]

#: debugfs zswap/ files that are plain counts
DEBUGFS = (
    "pool_limit_hit",
    "reject_reclaim_fail",
    "reject_alloc_fail",
    "reject_kmemcache_fail",
    "reject_compress_fail",
    "reject_compress_poor",
    "decompress_fail",
    "written_back_pages",
    "stored_pages",
    "stored_incompressible_pages",
)
#: /proc/vmstat events
VMSTAT = ("zswpin", "zswpout", "zswpwb", "swpout_zero", "pswpin", "pswpout")


class Counters:
    """One attribute per name of :data:`DEBUGFS` and :data:`VMSTAT`, and ``mthp_zswpout`` by folio order."""

    __slots__ = (*DEBUGFS, *VMSTAT, "mthp_zswpout")

    def __init__(self) -> None:
        self.pool_limit_hit = 0
        self.reject_reclaim_fail = 0
        self.reject_alloc_fail = 0
        self.reject_kmemcache_fail = 0
        self.reject_compress_fail = 0
        self.reject_compress_poor = 0
        self.decompress_fail = 0
        self.written_back_pages = 0
        self.stored_pages = 0
        self.stored_incompressible_pages = 0
        self.zswpin = 0
        self.zswpout = 0
        self.zswpwb = 0
        self.swpout_zero = 0
        self.pswpin = 0
        self.pswpout = 0
        self.mthp_zswpout: dict[int, int] = {}
