# SPDX-License-Identifier: GPL-2.0-or-later
"""Effects of zsmalloc against their events: sizes, places, free lists, fullness, totals, compaction."""

from __future__ import annotations

from typing import Final

from model.effects import Effect
from model.page import PAGE_SIZE
from model.zsmalloc import HANDLE_SIZE, UNKNOWN_LINK, SizeClass, ZsObject, Zspage, ZsPool
from replay.reference.compactions import Compactions
from replay.reference.comparer import Comparer
from replay.reference.frame import Frame
from replay.reference.invariants import Invariants
from replay.reference.state import ReplayState
from replay.reference.totals import Totals

__all__ = ["ERR_PTR", "ZSPAGE_MAGIC", "ZsmallocHandlers", "zspage_word"]

ERR_PTR: Final = (1 << 64) - 4096
#: struct zspage's magic, above huge (1 bit), fullness (4) and class (9).
ZSPAGE_MAGIC: Final = 0x58 << 14


def zspage_word(zspage: Zspage) -> int:
    """Return the first word of struct zspage: huge, listed fullness, class, magic (6.12 to 7.3)."""
    geometry = zspage.cls.geometry
    return ZSPAGE_MAGIC | geometry.index << 5 | zspage.group << 1 | geometry.huge


class ZsmallocHandlers:
    """Comparison of zsmalloc's effects."""

    def __init__(self, state: ReplayState, comparer: Comparer, invariants: Invariants, totals: Totals,
                 compactions: Compactions) -> None:
        self.state = state
        self.batch = state.batch
        self.held = state.held
        self.predictions = state.predictions
        self.n = state.tally.compared
        self.captured = state.captured
        self.sees = state.sees
        self.hold, self.diverge, self.is_address = comparer.hold, comparer.diverge, comparer.is_address
        self.invariants = invariants
        self.totals = totals
        self.compactions = compactions
        #: entries of an object read -> how many reads had that many
        self.sg_entries = {1: 0, 2: 0}
        #: (event, handle, length, content) of each zs_obj_write(), where they are kept
        self.writes: list[tuple[int, int, int, int]] = []
        self.keep_writes = False

    def on_zs_malloc(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the size asked for and the pool it comes from."""
        batch = self.batch
        self.hold("zs_malloc", i, frame, (batch.size[i],), (effect[1],))
        pool = self._store_zs_pool(frame)
        if not pool.address and self.sees("zs_malloc", "pool") \
                and self.is_address(batch.pool[i], "zsmalloc.place", "pool", i, frame):
            pool.address = batch.pool[i]
        self.hold("zs_malloc:pool", i, frame, (batch.pool[i],), (pool.address or None,))
        self.invariants.object_asked(i, frame)

    def _store_zs_pool(self, frame: Frame) -> ZsPool:
        pool = frame.handed.pool
        return pool.zs_pool if pool is not None else self.state.current_zs_pool()

    def on_obj_malloc(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the zspage chosen, bind the handle."""
        batch = self.batch
        zspage: Zspage = effect[1]
        obj: ZsObject = effect[2]
        self.hold("obj_malloc", i, frame, (batch.zspage[i],), (self.address_of(zspage, i, frame),))
        self.hold("obj_malloc:handle", i, frame, (batch.handle[i],), (self.handle_of(obj, i, frame),))

    def address_of(self, zspage: Zspage, i: int, frame: Frame) -> int | None:
        """Return where the recorded kernel has a zspage: where it was seen first, None while it was not.

        An event that shows it binds it, unless another zspage that is in use is known to be there.
        """
        batch = self.batch
        if not zspage.address and self.sees(batch.name(i), "zspage"):
            address = batch.zspage[i]
            if not self.is_address(address, "zsmalloc.place", "zspage", i, frame):
                return None
            other = self.state.zspages.get(address)
            if other is not None and other is not zspage and other.inuse:
                self.diverge("zsmalloc.place", i, recorded=address, predicted="a new zspage", what="zspage",
                             frame=frame)
                return address
            zspage.address = address
            self.state.zspages[address] = zspage
        return zspage.address or None

    def handle_of(self, obj: ZsObject, i: int, frame: Frame) -> int | None:
        """Return the handle that the recorded kernel gave out for an object: as seen first, None while it was not."""
        batch = self.batch
        if not obj.address and self.sees(batch.name(i), "handle") \
                and self.is_address(batch.handle[i], "zsmalloc.handle", "handle given out", i, frame):
            self._bind_handle(obj, batch.handle[i], i, frame)
        return obj.address or None

    def _bind_handle(self, obj: ZsObject, handle: int, i: int, frame: Frame) -> None:
        state = self.state
        if "zs_free" not in self.captured:
            # Nothing says when a handle that was given out is free again.
            obj.address = handle
            state.objects[handle] = obj
            return
        self.n["zsmalloc.handle"] += 1
        if handle in state.objects:
            self.diverge("zsmalloc.handle", i, recorded=handle, predicted="a handle that is not live",
                         what="handle given out", frame=frame)
        self.invariants.handle_given(handle, i, frame)
        obj.address = handle
        state.objects[handle] = obj

    def on_obj_malloc_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare object index, class, use count and free list of the zspage after an allocation."""
        batch = self.batch
        zspage: Zspage = effect[1]
        obj: ZsObject = effect[2]
        cls = zspage.cls
        self.hold("obj_malloc_ret", i, frame,
                  (batch.zspage[i], batch.obj[i] & (1 << self.state.idx_bits) - 1, batch.word[i], batch.inuse[i],
                   batch.handle[i]),
                  (self.address_of(zspage, i, frame), obj.index, zspage_word(zspage), zspage.inuse,
                   self.handle_of(obj, i, frame)))
        # A reused huge zspage has no links: what is read as one is the page's own data.
        if zspage.freeobj != UNKNOWN_LINK:
            self.hold("obj_malloc_ret:freeobj", i, frame, (batch.freeobj[i],), (zspage.freeobj,))
        self._check_frame("obj_malloc_ret:obj", zspage, obj.index, i, frame)
        if zspage.inuse == 1 and zspage not in cls.groups[zspage.group]:
            frame.inflight = cls.geometry.pages_per_zspage

    def _check_frame(self, key: str, zspage: Zspage, index: int, i: int, frame: Frame) -> None:
        """Compare an object word: page frame and class bits of the page the object starts in, and its index."""
        state = self.state
        if not self.held[key].some:
            return
        word = self.batch.obj[i]
        page = zspage.cls.geometry.size * index // PAGE_SIZE
        if word & (1 << state.idx_bits) - 1 != index:
            self.diverge("zsmalloc.place", i, recorded=word & (1 << state.idx_bits) - 1, predicted=index,
                         what="object index", frame=frame)
        high = word >> state.idx_bits
        if zspage.frames[page] == -1:
            zspage.frames[page] = high
            if state.class_bits and high & (1 << state.class_bits) - 1 != zspage.cls.geometry.index:
                self.diverge("zsmalloc.place", i, recorded=high & (1 << state.class_bits) - 1,
                             predicted=zspage.cls.geometry.index, what="class bits of the object word", frame=frame)
        elif zspage.frames[page] != high:
            self.diverge("zsmalloc.place", i, recorded=high, predicted=zspage.frames[page],
                         what=f"page frame (and class bits) of page {page} of the zspage", frame=frame)

    def forget_frames(self) -> None:
        """A zspage's page was migrated: its new frame number is taken from the event."""
        for zspage in self.state.zspages.values():
            zspage.frames = [-1] * len(zspage.frames)

    def on_zs_malloc_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle and location of the new object, or the error."""
        batch = self.batch
        handle = batch.handle[i]
        if effect[1]:
            self.hold("zs_malloc_ret:error", i, frame, (handle - (1 << 64) if handle > ERR_PTR else handle,),
                      (effect[1],))
            return
        obj: ZsObject = effect[2]
        known = self.handle_of(obj, i, frame) if obj.address or handle < ERR_PTR else -1
        self.hold("zs_malloc_ret", i, frame, (handle, batch.size[i]), (known, obj.size))
        self._check_frame("zs_malloc_ret:obj", obj.zspage, obj.index, i, frame)

    def on_zs_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which object is freed and where it is."""
        batch = self.batch
        obj: ZsObject = effect[1]
        known = self.handle_of(obj, i, frame)
        self.hold("zs_free", i, frame, (batch.handle[i],), (known,))
        self.invariants.handle_used("zs_free", i, frame, "free")
        if known is not None and self.state.objects.pop(known, None) is None:
            self.diverge("zsmalloc.handle", i, recorded=batch.handle[i], predicted="a live handle", what="handle freed",
                         frame=frame)
        self._check_frame("zs_free:obj", obj.zspage, obj.index, i, frame)
        cls = obj.zspage.cls
        pools = [pool.zs_pool.address for pool in self.state.model.pools
                 if pool.zs_pool.size_class[cls.geometry.index] is cls]
        if pools and pools[0]:
            self.hold("zs_free:pool", i, frame, (batch.pool[i],), (pools[0],))

    def on_obj_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the place that is given back: class size, page frame and index."""
        zspage: Zspage = effect[2]
        self.hold("obj_free", i, frame, (self.batch.size[i],), (zspage.cls.geometry.size,))
        self._check_frame("obj_free:obj", zspage, effect[3], i, frame)

    def on_fix_fullness_group(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare class, zspage and its use count before the fullness group is set right."""
        batch = self.batch
        cls: SizeClass = effect[1]
        zspage: Zspage = effect[2]
        self.hold("fix_fullness_group", i, frame, (batch.zspage[i], batch.inuse[i], batch.word[i], batch.pool[i]),
                  (self.address_of(zspage, i, frame), zspage.inuse, zspage_word(zspage),
                   self._class_at(cls, "zsmalloc.fullness", i, frame)))
        frame.handed.fullness = zspage

    def _class_at(self, cls: SizeClass, check: str, i: int, frame: Frame) -> int | None:
        """Return the address that is known for a class, this event's own when it is the first that shows one."""
        batch = self.batch
        if not cls.address and self.sees(batch.name(i), "pool") \
                and self.is_address(batch.pool[i], check, "size_class", i, frame):
            cls.address = batch.pool[i]
            self.state.classes[cls.address] = cls
        return cls.address or None

    def on_fix_fullness_group_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the new fullness group."""
        self.hold("fix_fullness_group_ret", i, frame, (self.batch.ret[i],), (effect[1],))
        if effect[1] == 0:
            # The pages leave the pool's total after this event: another task may read it in between.
            zspage = frame.handed.fullness
            if zspage is not None:
                frame.inflight = -zspage.cls.geometry.pages_per_zspage

    def on___free_zspage(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which zspage dies."""
        batch = self.batch
        zspage: Zspage = effect[2]
        self.hold("__free_zspage", i, frame, (batch.zspage[i], batch.pool[i]),
                  (self.address_of(zspage, i, frame), self._class_at(zspage.cls, "zsmalloc.place", i, frame)))
        frame.inflight = -zspage.cls.geometry.pages_per_zspage

    def on_zs_obj_write(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle, length and first bytes of the object written."""
        batch = self.batch
        obj, length, content, raw = effect[1], effect[2], effect[3], effect[4]
        frame.handed.held = obj
        check = "store.raw" if raw else "store.bytes"
        self.hold("zs_obj_write", i, frame, (batch.handle[i], batch.size[i]), (self.handle_of(obj, i, frame), length),
                  check=check)
        name = self.state.compressor_of(frame)
        head = self.predictions.raw_head(content, name) if raw else self.predictions.head(content, name)
        if head is not None:
            # A probe reads 8 bytes of the buffer; beyond a short object's end they are left-overs.
            mask = (1 << 8 * min(8, length)) - 1
            self.hold("zs_obj_write:data", i, frame, (batch.data[i] & mask,), (head & mask,), check=check)
        if self.keep_writes and self.held["zs_obj_write"].whole:
            self.writes.append((batch.row(i), batch.handle[i], length, content))
        self.invariants.handle_used("zs_obj_write", i, frame, "write")
        self.invariants.object_written(effect, i, frame)

    def on_zs_obj_read(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle and length of an object read, and that its entries cover it exactly, behind its handle."""
        batch = self.batch
        obj, length, shape = effect[1], effect[2], effect[3]
        frame.handed.held = obj
        self.hold("zs_obj_read", i, frame, (batch.handle[i], batch.size[i]), (self.handle_of(obj, i, frame), length))
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
            self.diverge("sg.shape", i, recorded=(batch.handle[i], batch.size[i]),
                         predicted=(obj.address, length, shape), what="entries that cover the object read", frame=frame)
        self.invariants.handle_used("zs_obj_read", i, frame, "read")
        self.invariants.object_read(length, frame)

    def on_zs_get_total_pages_ret(self, effect: Effect, i: int, frame: Frame) -> int:
        """Compare a pool's page total as a store or the worker read it; answer with what it read."""
        batch = self.batch
        self.totals.compare(batch.ret[i], effect[1], i, frame)
        frame.handed.totals = (frame.handed.totals or 0) + batch.ret[i]
        return batch.ret[i]

    def on_zs_compact(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the pool that is compacted."""
        batch = self.batch
        pool: ZsPool = effect[1]
        self.hold("zs_compact", i, frame, (batch.pool[i],), (pool.address or batch.pool[i],))

    def on_zs_compact_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the pages that a compaction freed."""
        batch = self.batch
        self.compactions.last_returned = batch.row(i)
        self.hold(effect[0], i, frame, (batch.ret[i],), (int(effect[1]),))

    on_zs_shrinker_scan_ret = on_zs_compact_ret

    def on___zs_compact(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which class is compacted: all of them, from the largest down."""
        cls: SizeClass = effect[1]
        frame.handed.size_class = cls
        self.hold("__zs_compact", i, frame, (self.batch.pool[i],),
                  (self._class_at(cls, "zsmalloc.compact", i, frame),),
                  what=f"size_class that is compacted (class {cls.geometry.index})")
