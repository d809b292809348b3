# SPDX-License-Identifier: GPL-2.0-or-later
"""Per-cgroup zswap accounting: what mm/memcontrol.c keeps for zswap.

A cgroup is identified by the name that the caller gives it: a replay uses the recorded obj_cgroup pointer.
Mirrors obj_cgroup_charge_zswap(), obj_cgroup_uncharge_zswap(), obj_cgroup_may_zswap() and
count_objcg_events() of Linux 6.12 to 7.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from model.page import PAGE_SIZE

__all__ = ["UNLIMITED", "MemcgZswap"]

#: memory.zswap.max = "max", in pages
UNLIMITED: Final = -1


class MemcgZswap:
    """What one cgroup is charged: ``zswap`` bytes (MEMCG_ZSWAP_B), ``zswapped`` pages (MEMCG_ZSWAPPED),
    ``incompressible`` pages (MEMCG_ZSWAP_INCOMP, from 7.1), and its event counts in pages.

    ``observer``, where set, is called with the account before each change of it.
    """

    __slots__ = ("incompressible", "observer", "zswap", "zswapped", "zswpin", "zswpout", "zswpwb")

    def __init__(self, observer: Callable[[MemcgZswap], None] | None = None) -> None:
        self.observer = observer
        self.zswap = 0
        self.zswapped = 0
        self.incompressible = 0
        self.zswpin = 0
        self.zswpout = 0
        self.zswpwb = 0

    def charge(self, length: int, incompressible_apart: bool = True) -> None:
        """obj_cgroup_charge_zswap(): one more page of ``length`` bytes.

        :param incompressible_apart: MEMCG_ZSWAP_INCOMP exists (7.1+)
        """
        self._changes()
        self.zswap += length
        self.zswapped += 1
        if length == PAGE_SIZE and incompressible_apart:
            self.incompressible += 1

    def uncharge(self, length: int, incompressible_apart: bool = True) -> None:
        """obj_cgroup_uncharge_zswap(): the exact inverse of :meth:`charge`."""
        self._changes()
        self.zswap -= length
        self.zswapped -= 1
        if length == PAGE_SIZE and incompressible_apart:
            self.incompressible -= 1

    def count(self, event: str, pages: int) -> None:
        """count_objcg_events(): ``zswpin``, ``zswpout`` or ``zswpwb``."""
        self._changes()
        setattr(self, event, getattr(self, event) + pages)

    def _changes(self) -> None:
        if self.observer is not None:
            self.observer(self)

    def may_zswap(self, limit_pages: int) -> bool:
        """obj_cgroup_may_zswap() for this cgroup alone: below memory.zswap.max of ``limit_pages``."""
        if limit_pages == UNLIMITED:
            return True
        return limit_pages > 0 and self.zswap // PAGE_SIZE < limit_pages
