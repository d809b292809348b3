# SPDX-License-Identifier: GPL-2.0-or-later
"""Effects of zsmalloc against their events: sizes, places, free lists, fullness, totals, compaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.effects import Effect
from model.zsmalloc import HANDLE_SIZE, PAGE_SIZE, UNKNOWN_LINK, SizeClass, ZsObject, Zspage, ZsPool
from replay.handlers_base import HandlerBase
from traces import schema

if TYPE_CHECKING:
    from replay.engine import Frame

__all__ = ["ZsmallocHandlers", "zspage_word"]

_ERR_PTR: Final = (1 << 64) - 4096
#: struct zspage's magic, above huge (1 bit), fullness (4) and class (9).
_ZSPAGE_MAGIC: Final = 0x58 << 14
#: Events by which a compaction that has begun may tell which pool it is about.
_COMPACTING: Final = frozenset({"zs_compact", "__zs_compact", "__zs_compact_ret", "obj_malloc"})


def zspage_word(zspage: Zspage) -> int:
    """Return the first word of struct zspage: huge, listed fullness, class, magic (6.12 to 7.3)."""
    geometry = zspage.cls.geometry
    return _ZSPAGE_MAGIC | geometry.index << 5 | zspage.group << 1 | geometry.huge


class ZsmallocHandlers(HandlerBase):
    """Comparison of zsmalloc's effects."""

    def current_zs_pool(self) -> ZsPool:
        """Return the pool that new objects come from."""
        return self.model.pools[0].zs_pool

    def compacted_pool(self, pid: int, i: int) -> ZsPool:
        """Return the pool that a compaction is about.

        Every zs_pool has a shrinker of its own (zs_register_shrinker()), also one whose zswap_pool is current no
        more.  The probes of zs_shrinker_scan() and zs_compact() tell the pool; where neither does, a size class of it
        or an object that moves in it.
        """
        pools = [pool.zs_pool for pool in self.model.pools]
        unbound = [pool for pool in pools if not pool.address]
        for row in range(i, len(self.event)):
            if self.pid[row] != pid:
                continue
            name = schema.NAMES[self.event[row]]
            if row > i and name not in _COMPACTING:
                break
            owner = None
            if name in ("zs_shrinker_scan", "zs_compact"):
                address = self.pool[row]
                owner = next((pool for pool in pools if pool.address == address != 0), None)
                if owner is None and address and len(unbound) <= 1:
                    # A pool without a name yet; or one that holds nothing any more, on its way out.
                    return unbound[0] if unbound else ZsPool(self.model.chain_size)
            elif name == "__zs_compact":
                owner = self._owner(self.classes.get(self.pool[row]))
            elif name == "obj_malloc" and self.handle[row] in self.objects:
                owner = self._owner(self.objects[self.handle[row]].zspage.cls)
            if owner is not None:
                return owner
        return self.current_zs_pool()

    def _owner(self, cls: SizeClass | None) -> ZsPool | None:
        return next((pool.zs_pool for pool in self.model.pools if cls in pool.zs_pool.classes), None)

    def on_zs_malloc(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the size asked for and the pool it comes from."""
        self.n["zsmalloc.size"] += 1
        if self.size[i] != effect[1]:
            self.diverge("zsmalloc.size", i, recorded=self.size[i], predicted=effect[1],
                         what="size asked of zs_malloc()", frame=frame)
        pool = self._store_zs_pool(frame)
        if not pool.address:
            pool.address = self.pool[i]
        elif pool.address != self.pool[i]:
            self.diverge("zsmalloc.place", i, recorded=self.pool[i], predicted=pool.address, what="pool", frame=frame)

    def _store_zs_pool(self, frame: Frame) -> ZsPool:
        pool = frame.scratch.get("pool")
        return pool.zs_pool if pool is not None else self.current_zs_pool()

    def compressor_of(self, frame: Frame) -> str:
        """Return the compressor of the pool that a store holds, which need not be the current one any more."""
        pool = frame.scratch.get("pool")
        return pool.tfm_name if pool is not None else self.model.pools[0].tfm_name

    def on_obj_malloc(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the zspage chosen, bind the handle."""
        zspage: Zspage = effect[1]
        obj: ZsObject = effect[2]
        self.n["zsmalloc.place"] += 1
        self._bind_zspage(zspage, self.zspage[i], i, frame)
        handle = self.handle[i]
        if not obj.address:
            self._bind_handle(obj, handle, i, frame)
        elif obj.address != handle:
            self.diverge("zsmalloc.place", i, recorded=handle, predicted=obj.address,
                         what="handle of the object that moves", frame=frame)

    def _bind_zspage(self, zspage: Zspage, address: int, i: int, frame: Frame) -> None:
        if zspage.address == address:
            return
        other = self.zspages.get(address)
        if zspage.address or (other is not None and other.inuse):
            self.diverge("zsmalloc.place", i, recorded=address, predicted=zspage.address or "a new zspage",
                         what="zspage", frame=frame)
            return
        zspage.address = address
        self.zspages[address] = zspage

    def _bind_handle(self, obj: ZsObject, handle: int, i: int, frame: Frame) -> None:
        self.n["zsmalloc.handle"] += 1
        if handle in self.objects:
            self.diverge("zsmalloc.handle", i, recorded=handle, predicted="a handle that is not live",
                         what="handle given out", frame=frame)
        obj.address = handle
        self.objects[handle] = obj

    def on_obj_malloc_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare object index, class, use count and free list of the zspage after an allocation."""
        zspage: Zspage = effect[1]
        obj: ZsObject = effect[2]
        self.n["zsmalloc.place"] += 1
        cls = zspage.cls
        geometry = cls.geometry
        word = self.word[i]
        recorded = (self.zspage[i], self.obj[i] & (1 << self.idx_bits) - 1, word, self.inuse[i], self.handle[i])
        predicted = (zspage.address, obj.index, zspage_word(zspage), zspage.inuse, obj.address)
        if recorded != predicted:
            self.diverge("zsmalloc.place", i, recorded=recorded, predicted=predicted,
                         what="(zspage, object index, class and fullness bits, objects in use, handle)",
                         frame=frame)
        # A reused huge zspage has no links: what is read as one is the page's own data.
        if zspage.freeobj != UNKNOWN_LINK and self.freeobj[i] != zspage.freeobj:
            self.diverge("zsmalloc.place", i, recorded=self.freeobj[i], predicted=zspage.freeobj,
                         what="next free object", frame=frame)
        self._check_frame(zspage, obj.index, self.obj[i], i, frame, bind=True)
        if zspage.inuse == 1 and zspage not in cls.groups[zspage.group]:
            frame.inflight = geometry.pages_per_zspage

    def _check_frame(self, zspage: Zspage, index: int, word: int, i: int, frame: Frame, *,
                     bind: bool = False) -> None:
        """Compare an object word: page frame and class bits of the page the object starts in, and its index."""
        page = zspage.cls.geometry.size * index // PAGE_SIZE
        if word & (1 << self.idx_bits) - 1 != index:
            self.diverge("zsmalloc.place", i, recorded=word & (1 << self.idx_bits) - 1, predicted=index,
                         what="object index", frame=frame)
        high = word >> self.idx_bits
        if zspage.frames[page] == -1:
            zspage.frames[page] = high
            if self.class_bits and high & (1 << self.class_bits) - 1 != zspage.cls.geometry.index:
                self.diverge("zsmalloc.place", i, recorded=high & (1 << self.class_bits) - 1,
                             predicted=zspage.cls.geometry.index, what="class bits of the object word", frame=frame)
        elif zspage.frames[page] != high:
            self.diverge("zsmalloc.place", i, recorded=high, predicted=zspage.frames[page],
                         what=f"page frame (and class bits) of page {page} of the zspage", frame=frame)

    def forget_frames(self) -> None:
        """A zspage's page was migrated: its frame number is learnt anew."""
        for zspage in self.zspages.values():
            zspage.frames = [-1] * len(zspage.frames)

    def on_zs_malloc_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle and location of the new object, or the error."""
        self.n["zsmalloc.place"] += 1
        handle = self.handle[i]
        if effect[1]:
            if handle != (1 << 64) + effect[1]:
                self.diverge("zsmalloc.place", i, recorded=handle, predicted=effect[1], what="zs_malloc() error",
                             frame=frame)
            return
        obj: ZsObject = effect[2]
        if not obj.address and handle < _ERR_PTR:
            self._bind_handle(obj, handle, i, frame)
        if (handle, self.size[i]) != (obj.address, obj.size):
            self.diverge("zsmalloc.place", i, recorded=(handle, self.size[i]), predicted=(obj.address, obj.size),
                         what="(handle, size) of the new object", frame=frame)
        if "obj" in self.columns_of["zs_malloc_ret"]:
            self._check_frame(obj.zspage, obj.index, self.obj[i], i, frame)

    def on_zs_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which object is freed and where it is."""
        obj: ZsObject = effect[1]
        self.n["zsmalloc.handle"] += 1
        handle = self.handle[i]
        if handle != obj.address:
            self.diverge("zsmalloc.handle", i, recorded=handle, predicted=obj.address, what="handle freed",
                         frame=frame)
        if self.objects.pop(obj.address, None) is None:
            self.diverge("zsmalloc.handle", i, recorded=handle, predicted="a live handle", what="handle freed",
                         frame=frame)
        if "obj" in self.columns_of["zs_free"]:
            self._check_frame(obj.zspage, obj.index, self.obj[i], i, frame)
        pools = [pool.zs_pool.address for pool in self.model.pools if obj.zspage.cls in pool.zs_pool.classes]
        if pools and pools[0] and self.pool[i] != pools[0]:
            self.diverge("zsmalloc.place", i, recorded=self.pool[i], predicted=pools[0], what="pool", frame=frame)

    def on_obj_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the place that is given back: class size, page frame and index."""
        zspage: Zspage = effect[2]
        self.n["zsmalloc.place"] += 1
        if self.size[i] != zspage.cls.geometry.size:
            self.diverge("zsmalloc.place", i, recorded=self.size[i], predicted=zspage.cls.geometry.size,
                         what="class size of the object freed", frame=frame)
        self._check_frame(zspage, effect[3], self.obj[i], i, frame)

    def on_fullness(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare class, zspage and its use count before the fullness group is set right."""
        cls: SizeClass = effect[1]
        zspage: Zspage = effect[2]
        self.n["zsmalloc.fullness"] += 1
        recorded = (self.zspage[i], self.inuse[i], self.word[i], self.pool[i])
        predicted = (zspage.address, zspage.inuse, zspage_word(zspage), self._class_at(self.pool[i], cls))
        if recorded != predicted:
            self.diverge("zsmalloc.fullness", i, recorded=recorded, predicted=predicted,
                         what="(zspage, objects in use, class and fullness bits, size_class)", frame=frame)
        frame.scratch["fullness"] = zspage

    def _class_at(self, address: int, cls: SizeClass) -> int:
        """Return the address that is known for a class, ``address`` itself when it is the first."""
        if not cls.address:
            cls.address = address
            self.classes[address] = cls
        return cls.address

    def on_fullness_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the new fullness group."""
        self.n["zsmalloc.fullness"] += 1
        if self.ret[i] != effect[1]:
            self.diverge("zsmalloc.fullness", i, recorded=self.ret[i], predicted=effect[1],
                         what="fullness group", frame=frame)
        if effect[1] == 0:
            # The pages leave the pool's total after this event: another task may read it in between.
            zspage: Zspage | None = frame.scratch.get("fullness")
            if zspage is not None:
                frame.inflight = -zspage.cls.geometry.pages_per_zspage

    def on_free_zspage(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which zspage dies."""
        zspage: Zspage = effect[2]
        self.n["zsmalloc.place"] += 1
        recorded = (self.zspage[i], self.pool[i])
        predicted = (zspage.address, self._class_at(self.pool[i], zspage.cls))
        if recorded != predicted:
            self.diverge("zsmalloc.place", i, recorded=recorded, predicted=predicted,
                         what="(zspage, size_class) of the zspage freed", frame=frame)
        frame.inflight = -zspage.cls.geometry.pages_per_zspage

    def on_obj_write(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle, length and first bytes of the object written."""
        obj, length, content, raw = effect[1], effect[2], effect[3], effect[4]
        check = "store.raw" if raw else "store.bytes"
        self.n[check] += 1
        if (self.handle[i], self.size[i]) != (obj.address, length):
            self.diverge(check, i, recorded=(self.handle[i], self.size[i]), predicted=(obj.address, length),
                         what="(handle, length) of the object written", frame=frame)
        name = self.compressor_of(frame)
        head = self.predictions.raw_head(content, name) if raw else self.predictions.head(content, name)
        if head is not None and "data" in self.columns_of["zs_obj_write"]:
            # A probe reads 8 bytes of the buffer; beyond a short object's end they are left-overs.
            mask = (1 << 8 * min(8, length)) - 1
            if self.data[i] & mask != head & mask:
                self.diverge(check, i, recorded=self.data[i] & mask, predicted=head & mask,
                             what="first bytes of the object written", frame=frame)
        if self.keep_writes:
            self.writes.append((self._row(i), self.handle[i], length, content))

    def on_obj_read(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle and length of an object read, and that its entries cover it exactly, behind its handle."""
        obj, length, shape = effect[1], effect[2], effect[3]
        self.n["sg.shape"] += 1
        self.sg_entries[len(shape)] += 1
        columns = self.columns_of["zs_obj_read"]
        recorded = (self.handle[i], self.size[i] if "size" in columns else length)
        geometry = obj.zspage.cls.geometry
        slot = geometry.size * obj.index
        begin = shape[0].page * PAGE_SIZE + shape[0].offset
        covered = begin == slot + (0 if geometry.huge else HANDLE_SIZE) and begin + length <= slot + geometry.size \
            and sum(part.length for part in shape) == length \
            and all(part.offset + part.length <= PAGE_SIZE for part in shape) \
            and shape[-1].page < geometry.pages_per_zspage \
            and (len(shape) == 1 or (shape[0].offset + shape[0].length == PAGE_SIZE and shape[1].offset == 0))
        if recorded != (obj.address, length) or not covered:
            self.diverge("sg.shape", i, recorded=recorded, predicted=(obj.address, length, shape),
                         what="(handle, length) of the object read", frame=frame)

    def on_total(self, effect: Effect, i: int, frame: Frame) -> int:
        """Compare a pool's page total as a store or the worker read it; answer with what it read."""
        self._compare_total(self.ret[i], effect[1], i, frame)
        frame.scratch["totals"] = frame.scratch.get("totals", 0) + self.ret[i]
        return self.ret[i]

    def on_totals(self, i: int, frame: Frame) -> None:
        """Compare zswap_total_pages() inside an operation with the sum of what the operation read pool by pool."""
        predicted = frame.scratch.pop("totals")
        self.n["zsmalloc.pages"] += 1
        if self.ret[i] != predicted:
            self.diverge("zsmalloc.pages", i, recorded=self.ret[i], predicted=predicted,
                         what="pages of all pools, as an operation read them", frame=frame)

    def check_total(self, i: int) -> None:
        """Compare totals read by somebody else (debugfs, meminfo)."""
        total = self.model.total_pages()
        pools = [pool.zs_pool.pages_allocated for pool in self.model.pools]
        # With several pools, each one's total is read in turn: any of them may be this one.
        predicted = total if self.ret[i] == total or len(pools) == 1 else \
            next((pages for pages in pools if pages == self.ret[i]), total)
        self._compare_total(self.ret[i], predicted, i, None)

    def _compare_total(self, recorded: int, predicted: int, i: int, frame: Frame | None) -> None:
        self.n["zsmalloc.pages"] += 1
        self.last_total = (self._row(i), recorded)
        if recorded == predicted:
            return
        # Another task may have been preempted between the event that decides about a zspage and the
        # moment its pages enter or leave the total: exactly those pages, of exactly those tasks.
        pending = {0}
        for stack in self.stacks.values():
            for other in stack:
                if other.inflight:
                    pending |= {value + other.inflight for value in pending}
        # The reader itself may have lost its CPU between reading and the probe's event: then it is any total
        # since its own previous event.
        if any(total - recorded in pending for total in {predicted} | self.earlier_totals(i)):
            self.preempted_reads += 1
            return
        self.diverge("zsmalloc.pages", i, recorded=recorded, predicted=predicted, what="pages of the pool",
                     frame=frame)

    def on_compact(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the pool that is compacted."""
        pool: ZsPool = effect[1]
        self.n["zsmalloc.compact"] += 1
        if pool.address and self.pool[i] != pool.address:
            self.diverge("zsmalloc.compact", i, recorded=self.pool[i], predicted=pool.address, what="pool", frame=frame)

    def on_compact_class(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which class is compacted: all of them, from the largest down."""
        cls: SizeClass = effect[1]
        self.n["zsmalloc.compact"] += 1
        known = self._class_at(self.pool[i], cls)
        if known != self.pool[i]:
            self.diverge("zsmalloc.compact", i, recorded=self.pool[i], predicted=known,
                         what=f"size_class that is compacted (class {cls.geometry.index})", frame=frame)

    def on_compact_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the pages freed."""
        self.n["zsmalloc.compact"] += 1
        if self.ret[i] != effect[1]:
            self.diverge("zsmalloc.compact", i, recorded=self.ret[i], predicted=effect[1], what="pages freed",
                         frame=frame)
