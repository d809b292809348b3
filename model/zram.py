# SPDX-License-Identifier: GPL-2.0-or-later
"""zram's pages in zsmalloc, and two ways to read them: in a row as 7.3 does, or through entries as discussed.

Mirrors zram_write_page(), zram_read_page() and mm_stat of drivers/block/zram/zram_drv.c, Linux 7.3-rc7; the read path
``sg`` is what the review of "zsmalloc: introduce SG-list based object read API" sketched (January 2026,
<wb2shm35vigisxnokcp3pw3yzu32kezo3ox2v3xu2u5lnxo45n@ktccxxzg2vsc>): zram alone puts an object of two entries in a row,
and the linear API goes away.  Both give the same bytes and counters; what differs is how much is copied, and by whom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from model import errno
from model.crypto.base import Compressor
from model.effects import run
from model.page import PAGE_SIZE
from model.zsmalloc import ZsObject, ZsPool, huge_class_size

__all__ = ["MmStat", "Read", "Zram"]

_WORD: Final = 8


@dataclass
class MmStat:
    """The file mm_stat: bytes but for ``same_pages``, ``pages_compacted``, ``huge_pages`` and ``huge_pages_since``."""

    orig_data_size: int = 0
    compr_data_size: int = 0
    mem_used_total: int = 0
    mem_limit: int = 0
    mem_used_max: int = 0
    same_pages: int = 0
    pages_compacted: int = 0
    huge_pages: int = 0
    huge_pages_since: int = 0


@dataclass(frozen=True)
class Read:
    """A page read.

    ``page``: its bytes; ``entries``: in how many its object lies, 0 where it has none; ``linearised``: bytes copied to
    put it in a row; ``by``: who copies them, ``zsmalloc`` or ``zram``.
    """

    page: bytes
    entries: int
    linearised: int
    by: str


@dataclass
class _Slot:
    same: bytes | None = None
    obj: ZsObject | None = None
    data: bytes = b""
    huge: bool = False


class Zram:
    """One device.

    :param compressor: of its primary stream
    :param chain_size: CONFIG_ZSMALLOC_CHAIN_SIZE
    :param mem_limit: bytes, 0 for none (``mem_limit``)
    :param read_path: ``linear`` (zs_obj_read_begin()) or ``sg`` (zs_obj_read_sg_begin())
    """

    def __init__(self, compressor: Compressor, *, chain_size: int = 8, mem_limit: int = 0,
                 read_path: Literal["linear", "sg"] = "linear") -> None:
        self.compressor = compressor
        self.pool = ZsPool(chain_size)
        self.limit_pages = mem_limit // PAGE_SIZE
        self.read_path = read_path
        self._by = "zsmalloc" if read_path == "linear" else "zram"
        self.huge_class_size = huge_class_size(chain_size)
        self.slots: dict[int, _Slot] = {}
        self._stat = MmStat(mem_limit=mem_limit)
        self._pages_stored = 0

    def mm_stat(self) -> MmStat:
        """mm_stat_show()"""
        stat = self._stat
        stat.orig_data_size = self._pages_stored * PAGE_SIZE
        stat.mem_used_total = self.pool.pages_allocated * PAGE_SIZE
        stat.pages_compacted = self.pool.pages_compacted
        return MmStat(**vars(stat))

    def write(self, index: int, page: bytes) -> int:
        """zram_write_page(): 0, or -ENOMEM at the limit (what was in the slot stays).

        zcomp gives a compressor two pages of room: what does not fit into one is an incompressible page, not an error.

        :raises ValueError: unless ``page`` has 4096 bytes
        """
        if len(page) != PAGE_SIZE:
            raise ValueError(f"a page has {PAGE_SIZE} bytes, not {len(page)}")
        if page == page[:_WORD] * (PAGE_SIZE // _WORD):
            self._free(index)
            self.slots[index] = _Slot(same=page[:_WORD])
            self._stat.same_pages += 1
            self._pages_stored += 1
            return 0
        result = self.compressor.compress(page)
        huge = bool(result.err) or result.dlen >= self.huge_class_size
        data = page if huge else result.data
        obj = run(self.pool.zs_malloc(len(data)))
        if isinstance(obj, int):
            return obj
        if not self._can_store():
            run(self.pool.zs_free(obj))
            return errno.ENOMEM
        # The old object is freed only now: both counted towards the limit.
        self._free(index)
        self.slots[index] = _Slot(obj=obj, data=data, huge=huge)
        self._stat.compr_data_size += len(data)
        if huge:
            self._stat.huge_pages += 1
            self._stat.huge_pages_since += 1
        self._pages_stored += 1
        return 0

    def _can_store(self) -> bool:
        """zram_can_store_page(): records the most ever used, and checks the limit."""
        used = self.pool.pages_allocated
        self._stat.mem_used_max = max(self._stat.mem_used_max, used * PAGE_SIZE)
        return not self.limit_pages or used <= self.limit_pages

    def _free(self, index: int) -> None:
        """slot_free(): what a slot held is counted off."""
        slot = self.slots.pop(index, None)
        if slot is None:
            return
        if slot.same is not None:
            self._stat.same_pages -= 1
        if slot.huge:
            self._stat.huge_pages -= 1
        if slot.obj is not None:
            run(self.pool.zs_free(slot.obj))
            self._stat.compr_data_size -= len(slot.data)
        self._pages_stored -= 1

    def discard(self, index: int) -> None:
        """zram_slot_free_notify()"""
        self._free(index)

    def read(self, index: int) -> Read:
        """zram_read_page(): the page of a slot, zeros for an empty one.

        :raises CorruptData: when an object does not decompress
        """
        slot = self.slots.get(index)
        if slot is None:
            return Read(bytes(PAGE_SIZE), 0, 0, self._by)
        if slot.same is not None:
            return Read(slot.same * (PAGE_SIZE // _WORD), 0, 0, self._by)
        assert slot.obj is not None
        shape = self.pool.zs_obj_read_sg(slot.obj, len(slot.data))
        if slot.huge and self.read_path == "linear" and len(shape) > 1:
            # read_incompressible_page() gives no buffer to put the page in a row.
            raise AssertionError("a page of its own class lies on two pages")
        parts, at = [], 0
        for entry in shape:
            parts.append(slot.data[at:at + entry.length])
            at += entry.length
        source = b"".join(parts)
        page = source if slot.huge else self.compressor.decompress(source)
        # Into the buffer of the stream, by zs_obj_read_begin() or by zram itself: as many bytes, as often.
        return Read(page, len(shape), len(source) if len(shape) > 1 else 0, self._by)
