# SPDX-License-Identifier: GPL-2.0-or-later
"""Effects of zsmalloc against their events: sizes, places, free lists, fullness, totals, compaction."""

from __future__ import annotations

from typing import Final

from model.effects import Effect
from model.page import PAGE_SIZE
from model.zsmalloc import HANDLE_SIZE, UNKNOWN_LINK, SizeClass, ZsObject, Zspage, ZsPool
from replay.reference.frame import Frame
from replay.reference.invariants import Invariants
from traces import schema

__all__ = ["ERR_PTR", "ZSPAGE_MAGIC", "ZsmallocHandlers", "zspage_word"]

ERR_PTR: Final = (1 << 64) - 4096
#: struct zspage's magic, above huge (1 bit), fullness (4) and class (9).
ZSPAGE_MAGIC: Final = 0x58 << 14
#: Events by which a compaction that has begun may show which pool it is about.
_COMPACTING: Final = frozenset({"zs_compact", "__zs_compact", "__zs_compact_ret", "obj_malloc"})


def zspage_word(zspage: Zspage) -> int:
    """Return the first word of struct zspage: huge, listed fullness, class, magic (6.12 to 7.3)."""
    geometry = zspage.cls.geometry
    return ZSPAGE_MAGIC | geometry.index << 5 | zspage.group << 1 | geometry.huge


class ZsmallocHandlers(Invariants):
    """Comparison of zsmalloc's effects."""

    def current_zs_pool(self) -> ZsPool:
        """Return the pool that new objects come from."""
        return self.model.pools[0].zs_pool

    def compacted_pool(self, pid: int, i: int) -> ZsPool:
        """Return the pool that a compaction is about.

        Every zs_pool has a shrinker of its own (zs_register_shrinker()), also one whose zswap_pool is no longer
        current.  The probes of zs_shrinker_scan() and zs_compact() show the pool; where neither does, a size class of
        it or an object that moves in it does.
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
        self.hold("zs_malloc", i, frame, (self.size[i],), (effect[1],))
        pool = self._store_zs_pool(frame)
        if not pool.address and self.sees("zs_malloc", "pool") \
                and self.is_address(self.pool[i], "zsmalloc.place", "pool", i, frame):
            pool.address = self.pool[i]
        self.hold("zs_malloc:pool", i, frame, (self.pool[i],), (pool.address or None,))
        self.object_asked(i, frame)

    def _store_zs_pool(self, frame: Frame) -> ZsPool:
        pool = frame.handed.pool
        return pool.zs_pool if pool is not None else self.current_zs_pool()

    def compressor_of(self, frame: Frame) -> str:
        """Return the compressor of the pool that a store holds, which need not be the current one any more."""
        pool = frame.handed.pool
        return pool.tfm_name if pool is not None else self.model.pools[0].tfm_name

    def on_obj_malloc(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the zspage chosen, bind the handle."""
        zspage: Zspage = effect[1]
        obj: ZsObject = effect[2]
        self.hold("obj_malloc", i, frame, (self.zspage[i],), (self.address_of(zspage, i, frame),))
        self.hold("obj_malloc:handle", i, frame, (self.handle[i],), (self.handle_of(obj, i, frame),))

    def address_of(self, zspage: Zspage, i: int, frame: Frame) -> int | None:
        """Return where the recorded kernel has a zspage: where it was seen first, None while it was not.

        An event that shows it binds it, unless another zspage that is in use is known to be there.
        """
        if not zspage.address and self.sees(schema.NAMES[self.event[i]], "zspage"):
            address = self.zspage[i]
            if not self.is_address(address, "zsmalloc.place", "zspage", i, frame):
                return None
            other = self.zspages.get(address)
            if other is not None and other is not zspage and other.inuse:
                self.diverge("zsmalloc.place", i, recorded=address, predicted="a new zspage", what="zspage",
                             frame=frame)
                return address
            zspage.address = address
            self.zspages[address] = zspage
        return zspage.address or None

    def handle_of(self, obj: ZsObject, i: int, frame: Frame) -> int | None:
        """Return the handle that the recorded kernel gave out for an object: as seen first, None while it was not."""
        if not obj.address and self.sees(schema.NAMES[self.event[i]], "handle") \
                and self.is_address(self.handle[i], "zsmalloc.handle", "handle given out", i, frame):
            self._bind_handle(obj, self.handle[i], i, frame)
        return obj.address or None

    def _bind_handle(self, obj: ZsObject, handle: int, i: int, frame: Frame) -> None:
        if "zs_free" not in self.captured:
            # Nothing says when a handle that was given out is free again.
            obj.address = handle
            self.objects[handle] = obj
            return
        self.n["zsmalloc.handle"] += 1
        if handle in self.objects:
            self.diverge("zsmalloc.handle", i, recorded=handle, predicted="a handle that is not live",
                         what="handle given out", frame=frame)
        self.handle_given(handle, i, frame)
        obj.address = handle
        self.objects[handle] = obj

    def on_obj_malloc_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare object index, class, use count and free list of the zspage after an allocation."""
        zspage: Zspage = effect[1]
        obj: ZsObject = effect[2]
        cls = zspage.cls
        self.hold("obj_malloc_ret", i, frame,
                  (self.zspage[i], self.obj[i] & (1 << self.idx_bits) - 1, self.word[i], self.inuse[i], self.handle[i]),
                  (self.address_of(zspage, i, frame), obj.index, zspage_word(zspage), zspage.inuse,
                   self.handle_of(obj, i, frame)))
        # A reused huge zspage has no links: what is read as one is the page's own data.
        if zspage.freeobj != UNKNOWN_LINK:
            self.hold("obj_malloc_ret:freeobj", i, frame, (self.freeobj[i],), (zspage.freeobj,))
        self._check_frame("obj_malloc_ret:obj", zspage, obj.index, i, frame)
        if zspage.inuse == 1 and zspage not in cls.groups[zspage.group]:
            frame.inflight = cls.geometry.pages_per_zspage

    def _check_frame(self, key: str, zspage: Zspage, index: int, i: int, frame: Frame) -> None:
        """Compare an object word: page frame and class bits of the page the object starts in, and its index."""
        if not self.held[key].some:
            return
        word = self.obj[i]
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
        """A zspage's page was migrated: its new frame number is taken from the event."""
        for zspage in self.zspages.values():
            zspage.frames = [-1] * len(zspage.frames)

    def on_zs_malloc_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle and location of the new object, or the error."""
        handle = self.handle[i]
        if effect[1]:
            self.hold("zs_malloc_ret:error", i, frame, (handle - (1 << 64) if handle > ERR_PTR else handle,),
                      (effect[1],))
            return
        obj: ZsObject = effect[2]
        known = self.handle_of(obj, i, frame) if obj.address or handle < ERR_PTR else -1
        self.hold("zs_malloc_ret", i, frame, (handle, self.size[i]), (known, obj.size))
        self._check_frame("zs_malloc_ret:obj", obj.zspage, obj.index, i, frame)

    def on_zs_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which object is freed and where it is."""
        obj: ZsObject = effect[1]
        known = self.handle_of(obj, i, frame)
        self.hold("zs_free", i, frame, (self.handle[i],), (known,))
        self.handle_used("zs_free", i, frame, "free")
        if known is not None and self.objects.pop(known, None) is None:
            self.diverge("zsmalloc.handle", i, recorded=self.handle[i], predicted="a live handle", what="handle freed",
                         frame=frame)
        self._check_frame("zs_free:obj", obj.zspage, obj.index, i, frame)
        pools = [pool.zs_pool.address for pool in self.model.pools if obj.zspage.cls in pool.zs_pool.classes]
        if pools and pools[0]:
            self.hold("zs_free:pool", i, frame, (self.pool[i],), (pools[0],))

    def on_obj_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the place that is given back: class size, page frame and index."""
        zspage: Zspage = effect[2]
        self.hold("obj_free", i, frame, (self.size[i],), (zspage.cls.geometry.size,))
        self._check_frame("obj_free:obj", zspage, effect[3], i, frame)

    def on_fix_fullness_group(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare class, zspage and its use count before the fullness group is set right."""
        cls: SizeClass = effect[1]
        zspage: Zspage = effect[2]
        self.hold("fix_fullness_group", i, frame, (self.zspage[i], self.inuse[i], self.word[i], self.pool[i]),
                  (self.address_of(zspage, i, frame), zspage.inuse, zspage_word(zspage),
                   self._class_at(cls, "zsmalloc.fullness", i, frame)))
        frame.handed.fullness = zspage

    def _class_at(self, cls: SizeClass, check: str, i: int, frame: Frame) -> int | None:
        """Return the address that is known for a class, this event's own when it is the first that shows one."""
        if not cls.address and self.sees(schema.NAMES[self.event[i]], "pool") \
                and self.is_address(self.pool[i], check, "size_class", i, frame):
            cls.address = self.pool[i]
            self.classes[cls.address] = cls
        return cls.address or None

    def on_fix_fullness_group_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the new fullness group."""
        self.hold("fix_fullness_group_ret", i, frame, (self.ret[i],), (effect[1],))
        if effect[1] == 0:
            # The pages leave the pool's total after this event: another task may read it in between.
            zspage = frame.handed.fullness
            if zspage is not None:
                frame.inflight = -zspage.cls.geometry.pages_per_zspage

    def on___free_zspage(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which zspage dies."""
        zspage: Zspage = effect[2]
        self.hold("__free_zspage", i, frame, (self.zspage[i], self.pool[i]),
                  (self.address_of(zspage, i, frame), self._class_at(zspage.cls, "zsmalloc.place", i, frame)))
        frame.inflight = -zspage.cls.geometry.pages_per_zspage

    def on_zs_obj_write(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle, length and first bytes of the object written."""
        obj, length, content, raw = effect[1], effect[2], effect[3], effect[4]
        frame.handed.held = obj
        check = "store.raw" if raw else "store.bytes"
        self.hold("zs_obj_write", i, frame, (self.handle[i], self.size[i]), (self.handle_of(obj, i, frame), length),
                  check=check)
        name = self.compressor_of(frame)
        head = self.predictions.raw_head(content, name) if raw else self.predictions.head(content, name)
        if head is not None:
            # A probe reads 8 bytes of the buffer; beyond a short object's end they are left-overs.
            mask = (1 << 8 * min(8, length)) - 1
            self.hold("zs_obj_write:data", i, frame, (self.data[i] & mask,), (head & mask,), check=check)
        if self.keep_writes and self.held["zs_obj_write"].whole:
            self.writes.append((self._row(i), self.handle[i], length, content))
        self.handle_used("zs_obj_write", i, frame, "write")
        self.object_written(effect, i, frame)

    def on_zs_obj_read(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle and length of an object read, and that its entries cover it exactly, behind its handle."""
        obj, length, shape = effect[1], effect[2], effect[3]
        frame.handed.held = obj
        self.hold("zs_obj_read", i, frame, (self.handle[i], self.size[i]), (self.handle_of(obj, i, frame), length))
        self.sg_entries[len(shape)] += 1
        geometry = obj.zspage.cls.geometry
        slot = geometry.size * obj.index
        begin = shape[0].page * PAGE_SIZE + shape[0].offset
        covered = begin == slot + (0 if geometry.huge else HANDLE_SIZE) and begin + length <= slot + geometry.size \
            and sum(part.length for part in shape) == length \
            and all(part.offset + part.length <= PAGE_SIZE for part in shape) \
            and shape[-1].page < geometry.pages_per_zspage \
            and (len(shape) == 1 or (shape[0].offset + shape[0].length == PAGE_SIZE
                                     and (shape[1].page, shape[1].offset) == (shape[0].page + 1, 0)))
        if not covered:
            self.diverge("sg.shape", i, recorded=(self.handle[i], self.size[i]), predicted=(obj.address, length, shape),
                         what="entries that cover the object read", frame=frame)
        self.handle_used("zs_obj_read", i, frame, "read")
        self.object_read(length, frame)

    def on_zs_get_total_pages_ret(self, effect: Effect, i: int, frame: Frame) -> int:
        """Compare a pool's page total as a store or the worker read it; answer with what it read."""
        self._compare_total(self.ret[i], effect[1], i, frame)
        frame.handed.totals = (frame.handed.totals or 0) + self.ret[i]
        return self.ret[i]

    def compare_totals(self, i: int, frame: Frame) -> None:
        """Compare zswap_total_pages() inside an operation with the sum of what the operation read pool by pool."""
        predicted, frame.handed.totals = frame.handed.totals, None
        self.hold("zswap_total_pages_ret", i, frame, (self.ret[i],), (predicted,),
                  what="pages of all pools, as an operation read them")

    def check_total(self, i: int) -> None:
        """Compare totals read by other tasks (debugfs, meminfo)."""
        total = self.model.total_pages()
        pools = [pool.zs_pool.pages_allocated for pool in self.model.pools]
        # With several pools, each one's total is read in turn: any of them may be this one.
        predicted = total if self.ret[i] == total or len(pools) == 1 else \
            next((pages for pages in pools if pages == self.ret[i]), total)
        self._compare_total(self.ret[i], predicted, i, None)

    def _compare_total(self, recorded: int, predicted: int, i: int, frame: Frame | None) -> None:
        if frame is None or self.held["zs_get_total_pages_ret"].counts:
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
        # The reader itself may have been preempted between reading and the probe's event: then it is any total
        # since its own previous event.
        if any(total - recorded in pending for total in {predicted} | self.earlier_totals(i)):
            self.preempted_reads += 1
            return
        self.diverge("zsmalloc.pages", i, recorded=recorded, predicted=predicted, what="pages of the pool",
                     frame=frame)

    def on_zs_compact(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the pool that is compacted."""
        pool: ZsPool = effect[1]
        self.hold("zs_compact", i, frame, (self.pool[i],), (pool.address or self.pool[i],))

    def on_zs_compact_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the pages that a compaction freed."""
        self.last_compacted = self._row(i)
        self.hold(effect[0], i, frame, (self.ret[i],), (int(effect[1]),))

    on_zs_shrinker_scan_ret = on_zs_compact_ret

    def on___zs_compact(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which class is compacted: all of them, from the largest down."""
        cls: SizeClass = effect[1]
        frame.handed.size_class = cls
        self.hold("__zs_compact", i, frame, (self.pool[i],),
                  (self._class_at(cls, "zsmalloc.compact", i, frame),),
                  what=f"size_class that is compacted (class {cls.geometry.index})")
