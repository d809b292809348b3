# SPDX-License-Identifier: GPL-2.0-or-later
"""Writeback of zswap entries: the LRU walk, its triggers, and what a dying cgroup leaves behind (mm/zswap.c)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from model import errno
from model.effects import Steps
from model.list_lru import LRU_REMOVED_RETRY, LRU_RETRY, LRU_ROTATE, LRU_STOP
from model.swap import WRITTEN_BACK
from model.zswap_state import Folio, ZswapEntry, ZswapState

__all__ = ["MAX_RECLAIM_RETRIES", "SHRINK_STOP", "ZswapWriteback"]

#: SHRINK_STOP, ~0UL, as a signed number
SHRINK_STOP: Final = -1
#: MAX_RECLAIM_RETRIES
MAX_RECLAIM_RETRIES: Final = 16


class ZswapWriteback(ZswapState, ABC):
    """The part of zswap that gives memory back; :class:`model.zswap.Zswap` supplies the functions it calls."""

    @abstractmethod
    def zswap_decompress(self, entry: ZswapEntry, folio: Folio) -> Steps[bool]:
        """See :meth:`model.zswap.Zswap.zswap_decompress`."""

    @abstractmethod
    def zswap_entry_free(self, entry: ZswapEntry) -> Steps[None]:
        """See :meth:`model.zswap.Zswap.zswap_entry_free`."""

    @abstractmethod
    def swap_writepage(self, folio: Folio, flags: int = 0) -> Steps[None]:
        """See :meth:`model.swap.SwapLayer.swap_writepage`."""

    def zswap_writeback_entry(self, entry: ZswapEntry, swpent: int) -> Steps[int]:
        """zswap_writeback_entry(): decompress an entry into a new swap cache folio and write it out."""
        if self.WRITEBACK_APART:
            yield ("zswap_writeback_entry", entry)
        result = yield from self._write_back(entry, swpent)
        if self.WRITEBACK_APART:
            yield ("zswap_writeback_entry_ret", result)
        return result

    def _write_back(self, entry: ZswapEntry, swpent: int) -> Steps[int]:
        """The body of zswap_writeback_entry()."""
        failure: int = yield ("?swap_cache_alloc", entry)
        if failure:
            self.reached["zswap_writeback_entry.no_folio"] += 1
            return failure if self.WRITEBACK_SAYS_WHY or failure == errno.EEXIST else errno.ENOMEM
        if self.tree.get(swpent) is not entry:
            self.reached["zswap_writeback_entry.gone"] += 1
            return errno.ENOMEM
        if self.WRITEBACK_ERASES_FIRST:
            del self.tree[swpent]
        folio = Folio(swpent)
        if not (yield from self.zswap_decompress(entry, folio)):
            return errno.EIO
        if not self.WRITEBACK_ERASES_FIRST:
            self.tree.pop(swpent, None)
        self._count_writeback(entry)
        yield from self.zswap_entry_free(entry)
        yield from self.swap_writepage(folio, WRITTEN_BACK)
        return 0

    def _count_writeback(self, entry: ZswapEntry) -> None:
        self.counters.zswpwb += 1
        if entry.objcg is not None:
            self.memcg(entry.objcg).count("zswpwb", 1)

    def shrink_memcg_cb(self, entry: ZswapEntry, stop_on_cached: bool = False) -> Steps[int]:
        """shrink_memcg_cb(): a second chance for a referenced entry, writeback for any other.

        The list lock is held from the choice of the entry up to here, so no other task can intervene.  The bit is
        read before the effect: after it the entry may be gone at any moment.
        """
        referenced, entry.referenced = entry.referenced, False
        yield ("shrink_memcg_cb", entry)
        if referenced:
            self.reached["shrink_memcg_cb.second_chance"] += 1
            yield ("shrink_memcg_cb_ret", LRU_ROTATE)
            return LRU_ROTATE
        failure = yield from self.zswap_writeback_entry(entry, entry.swpent)
        if failure:
            self.counters.reject_reclaim_fail += 1
            status = LRU_STOP if failure == errno.EEXIST and stop_on_cached else LRU_RETRY
            self.reached["shrink_memcg_cb.stop" if status == LRU_STOP else "shrink_memcg_cb.failed"] += 1
        else:
            self.reached["shrink_memcg_cb.written"] += 1
            self.counters.written_back_pages += 1
            status = LRU_REMOVED_RETRY
        yield ("shrink_memcg_cb_ret", status)
        return status

    def shrink_memcg(self, cgroup: int | None) -> Steps[int]:
        """shrink_memcg(): write back from one cgroup; 0, -ENOENT (nothing to do) or -EAGAIN (nothing done).

        ``cgroup`` None: whichever the outside names.
        """
        named: int | None = yield ("shrink_memcg", cgroup)
        cgroup = named if named is not None else cgroup or 0
        result = yield from self._shrink_memcg(cgroup)
        yield ("shrink_memcg_ret", result)
        return result

    def _shrink_memcg(self, cgroup: int) -> Steps[int]:
        if not (yield from self.mem_cgroup_zswap_writeback_enabled(self._writeback_expected())):
            self.reached["shrink_memcg.no_writeback"] += 1
            return errno.ENOENT
        if not (yield ("?memcg_online", cgroup)):
            self.reached["shrink_memcg.offline"] += 1
            return errno.ENOENT
        removed = scanned = 0
        # The kernel walks every node with memory; those without a list of this cgroup have nothing to look at.
        for nid in list(self.lru.nodes(cgroup)) or [0]:
            gone, left = yield from self.lru.walk_one((nid, cgroup), self.shrink_memcg_cb, self.SHRINK_BUDGET)
            removed += gone
            scanned += self.SHRINK_BUDGET - left
        if not scanned:
            self.reached["shrink_memcg.empty"] += 1
            return errno.ENOENT
        self.reached["shrink_memcg.some" if removed else "shrink_memcg.none"] += 1
        return 0 if removed else errno.EAGAIN

    def zswap_shrinker_scan(self, nr_to_scan: int, cgroup: int | None = None, nid: int = 0) -> Steps[int]:
        """zswap_shrinker_scan(): the dynamic shrinker walks one cgroup's list on one node.

        Returns how many entries were written back, or SHRINK_STOP (-1) for none, or when it met a page that
        is in the swap cache again.  ``cgroup`` None: the outside names (cgroup, node).
        """
        named: tuple[int, int] | None = yield ("zswap_shrinker_scan", nr_to_scan, cgroup, nid)
        cgroup, nid = named if named is not None else (cgroup or 0, nid)
        result = yield from self._shrinker_scan(nr_to_scan, cgroup, nid)
        yield ("zswap_shrinker_scan_ret", result)
        return result

    def _shrinker_scan(self, nr_to_scan: int, cgroup: int, nid: int) -> Steps[int]:
        enabled = self.shrinker_enabled
        if enabled is None:
            enabled = yield ("?shrinker_enabled",)
        if not enabled or not (yield from self.mem_cgroup_zswap_writeback_enabled(self._writeback_expected())):
            self.reached["zswap_shrinker_scan.off"] += 1
            return SHRINK_STOP
        met: list[ZswapEntry] = []

        def shrink_memcg_cb(entry: ZswapEntry) -> Steps[int]:
            status = yield from self.shrink_memcg_cb(entry, stop_on_cached=True)
            if status == LRU_STOP:
                met.append(entry)
            return status

        removed, _ = yield from self.lru.walk_one((nid, cgroup), shrink_memcg_cb, nr_to_scan)
        stopped = bool(met) or not removed
        self.reached["zswap_shrinker_scan.none" if stopped else "zswap_shrinker_scan.some"] += 1
        return SHRINK_STOP if stopped else removed

    def shrink_worker(self) -> Steps[None]:
        """shrink_worker(): write back, cgroup by cgroup, down to the acceptance threshold.

        The outside says which cgroup is next, and when a pass ends: the hierarchy is not modelled.
        """
        threshold = self.accept_thr_pages()
        yield ("shrink_worker",)
        failures = attempts = 0
        while True:
            cgroup = yield ("?shrink_next",)
            if cgroup is None:
                # A pass over the hierarchy is over; one that found no cgroup to shrink is a failure.
                self.reached["shrink_worker.pass"] += 1
                self.worker.pass_over()
                if not attempts:
                    self.reached["shrink_worker.idle_pass"] += 1
                    failures += 1
                    if failures == MAX_RECLAIM_RETRIES:
                        self.reached["shrink_worker.retries"] += 1
                        break
                attempts = 0
            else:
                yield ("?shrink_order", cgroup, self.worker.comes_to(cgroup))
                result = yield from self.shrink_memcg(cgroup)
                if result != errno.ENOENT:
                    attempts += 1
                    if result:
                        failures += 1
                        if failures == MAX_RECLAIM_RETRIES:
                            self.reached["shrink_worker.retries"] += 1
                            break
            current = yield from self._read_totals()
            if current <= threshold:
                self.reached["shrink_worker.threshold"] += 1
                if current == threshold:
                    self.reached["shrink_worker.at_threshold"] += 1
                break
        yield ("shrink_worker_ret",)

    def memcg_reparent_list_lrus(self, cgroup: int, parent: int) -> None:
        """memcg_reparent_list_lrus(): a cgroup goes away, its entries are listed with its parent's.

        Mirrors mm/list_lru.c; the obj_cgroups its entries were charged to stay what they are.
        """
        self.worker.gone(cgroup)
        for nid in list(self.lru.nodes(cgroup)):
            for entry in self.lru.splice((nid, cgroup), (nid, parent)):
                entry.lru = (nid, parent)
