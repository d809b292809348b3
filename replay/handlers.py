# SPDX-License-Identifier: GPL-2.0-or-later
"""One method per effect: compare its predicted values with the recorded event, bind addresses, answer.

A handler gets the effect, the row of the event in the current batch and the running operation, and returns
what the model is sent back.  Recorded addresses are only ever compared with addresses recorded before for the
same thing: the model knows things, not addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from model.effects import Effect
from model.zsmalloc import PAGE_SIZE, SizeClass, ZsObject, Zspage, ZsPool
from model.zswap import Folio, Zswap, ZswapEntry
from replay.checks import Tally
from replay.predict import Predictions
from traces import schema

if TYPE_CHECKING:
    from replay.engine import Frame

__all__ = ["Handlers"]

#: struct page on every 64-bit configuration Debian builds.
_STRUCT_PAGE: Final = 64
_ERR_PTR: Final = (1 << 64) - 4096
#: struct zspage's magic, above huge (1 bit), fullness (4) and class (9).
_ZSPAGE_MAGIC: Final = 0x58 << 14

Handler = Callable[[Effect, int, "Frame"], Any]


def zspage_word(zspage: Zspage) -> int:
    """Return the first word of struct zspage: huge, listed fullness, class, magic (6.12 to 7.3)."""
    geometry = zspage.cls.geometry
    return _ZSPAGE_MAGIC | geometry.index << 5 | zspage.group << 1 | geometry.huge


class Handlers:
    """Comparison of effects; the engine adds the driving."""

    ts: list[int]
    cpu: list[int]
    pid: list[int]
    event: list[int]
    swpent: list[int]
    folio: list[int]
    entry: list[int]
    handle: list[int]
    obj: list[int]
    zspage: list[int]
    pool: list[int]
    memcg: list[int]
    data: list[int]
    ret: list[int]
    size: list[int]
    dlen: list[int]
    offset: list[int]
    word: list[int]
    inuse: list[int]
    freeobj: list[int]
    order: list[int]
    ref: list[int]
    nid: list[int]
    content: list[int]
    text: list[str]
    columns_of: dict[str, frozenset[str]]
    stacks: dict[int, list[Frame]]
    preempted_reads: int

    def __init__(self, model: Zswap, tally: Tally, predictions: Predictions) -> None:
        self.model = model
        self.tally = tally
        self.predictions = predictions
        self.n = tally.compared
        #: recorded address -> live thing of the model
        self.zspages: dict[int, Zspage] = {}
        self.objects: dict[int, ZsObject] = {}
        self.classes: dict[int, SizeClass] = {}
        self.memcg_of: dict[int | None, int] = {}
        self.entry_to_lru: int | None = None
        self.idx_bits = 24
        self.class_bits = 0
        self.sg_entries = {1: 0, 2: 0}
        self.writes: list[tuple[int, int, int, int]] = []
        self.keep_writes = False

    def table(self) -> dict[str, Handler]:
        """Return the handler of each effect's name."""
        return {
            "swap_writeout": self.on_start, "swap_writeout_ret": self.on_swap_writeout_ret,
            "__swap_writepage": self.on_swap_writepage,
            "zswap_store": self.on_store, "zswap_store_ret": self.on_store_ret,
            "zswap_load": self.on_start, "zswap_load_ret": self.on_load_ret,
            "zswap_invalidate": self.on_start, "zswap_decompress": self.on_decompress_entry,
            "zswap_entry_free": self.on_entry_free,
            "zswap_writeback_entry": self.on_writeback_entry, "zswap_writeback_entry_ret": self.on_load_ret,
            "shrink_memcg_cb": self.on_shrink_memcg_cb, "shrink_memcg_cb_ret": self.on_lru_status,
            "shrink_memcg": self.on_shrink_memcg, "shrink_memcg_ret": self.on_lru_status,
            "shrink_worker": self.on_start, "shrink_worker_ret": self.on_start,
            "async_free_zspage": self.on_start,
            "crypto_acomp_compress": self.on_compress, "crypto_acomp_compress_ret": self.on_compress_ret,
            "crypto_acomp_decompress": self.on_decompress, "crypto_acomp_decompress_ret": self.on_decompress_ret,
            "obj_cgroup_may_zswap_ret": self.on_may_zswap,
            "obj_cgroup_charge_zswap": self.on_charge, "obj_cgroup_uncharge_zswap": self.on_uncharge,
            "mem_cgroup_zswap_writeback_enabled_ret": self.on_writeback_enabled,
            "list_lru_add": self.on_lru_add, "list_lru_add_ret": self.on_lru_add_ret,
            "list_lru_del": self.on_lru_del,
            "zs_malloc": self.on_zs_malloc, "zs_malloc_ret": self.on_zs_malloc_ret, "zs_free": self.on_zs_free,
            "zs_obj_write": self.on_obj_write, "zs_obj_read": self.on_obj_read,
            "zs_get_total_pages_ret": self.on_total,
            "obj_malloc": self.on_obj_malloc, "obj_malloc_ret": self.on_obj_malloc_ret,
            "obj_free": self.on_obj_free,
            "fix_fullness_group": self.on_fullness, "fix_fullness_group_ret": self.on_fullness_ret,
            "__free_zspage": self.on_free_zspage,
            "zs_shrinker_scan": self.on_start, "zs_shrinker_scan_ret": self.on_compact_ret,
            "zs_compact": self.on_start, "zs_compact_ret": self.on_compact_ret,
            "__zs_compact": self.on_compact_class, "__zs_compact_ret": self.on_compact_ret,
        }

    def diverge(self, check: str, i: int, *, recorded: Any, predicted: Any, what: str,
                frame: Frame | None = None) -> None:
        """Report a difference; the engine says where."""
        raise NotImplementedError

    def default(self, effect: Effect, frame: Frame) -> Any:
        """Answer an effect whose event was not recorded, from what the model or compressor says."""
        kind = effect[0]
        if kind == "crypto_acomp_compress_ret":
            return (0, 0, -1)
        return None

    # ---- swap layer, store, load ------------------------------------------------------------------------

    def on_start(self, effect: Effect, i: int, frame: Frame) -> None:
        """The beginning of an operation has nothing to compare: it is what the model is given."""

    def on_store(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the folio that swap_writeout() hands on."""
        folio: Folio = effect[1]
        recorded = (self.folio[i], self.swpent[i], self.order[i])
        if recorded != (folio.address, folio.swpent, folio.order):
            self.diverge("swap.writeout", i, recorded=recorded, predicted=(folio.address, folio.swpent, folio.order),
                         what="(folio, swap entry, order) handed to zswap_store()", frame=frame)

    def on_swap_writeout_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare swap_writeout()'s return value."""
        self.n["swap.writeout"] += 1
        if self.ret[i] != effect[1]:
            self.diverge("swap.writeout", i, recorded=self.ret[i], predicted=effect[1], what="return value",
                         frame=frame)

    def on_swap_writepage(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the slot that goes to the device."""
        self.n["swap.writeout"] += 1
        folio: Folio = effect[1]
        recorded = (self.folio[i], self.swpent[i])
        # The folio of a writeback is a new one; that of swap_writeout() is known.
        predicted = (folio.address or self.folio[i], folio.swpent)
        if recorded != predicted:
            self.diverge("swap.writeout", i, recorded=recorded, predicted=predicted,
                         what="(folio, swap entry) written to the device", frame=frame)

    def on_store_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare zswap_store()'s return value."""
        self.n["store.result"] += 1
        if self.ret[i] != int(effect[1]):
            self.diverge("store.result", i, recorded=self.ret[i], predicted=int(effect[1]),
                         what="return value", frame=frame)

    def on_load_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare zswap_load()'s return value (a bool byte up to 6.12)."""
        self.n["load.result"] += 1
        if self.ret[i] != effect[1]:
            self.diverge("load.result", i, recorded=self.ret[i], predicted=effect[1], what="return value",
                         frame=frame)

    def on_decompress_entry(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which entry, handle and length a load or writeback reads."""
        entry: ZswapEntry = effect[1]
        self.n["load.entry"] += 1
        recorded = (self.swpent[i], self.handle[i], self.size[i])
        predicted = (entry.swpent, entry.obj.address, entry.length)
        if recorded != predicted:
            self.diverge("load.entry", i, recorded=recorded, predicted=predicted,
                         what="(swap entry, handle, length) of the entry read", frame=frame)
        folio: Folio = effect[2]
        if folio.address and self.folio[i] != folio.address:
            self.diverge("load.entry", i, recorded=self.folio[i], predicted=folio.address,
                         what="folio the entry is decompressed into", frame=frame)
        self._bind_entry(entry, i, "load.entry", frame)

    def _bind_entry(self, entry: ZswapEntry, i: int, check: str, frame: Frame) -> None:
        address = self.entry[i]
        if not entry.address:
            entry.address = address
        elif self.entry_to_lru is None:
            # The list_head was seen when the entry was listed, the entry itself only now.
            self.entry_to_lru = entry.address - address
            if not 0 <= self.entry_to_lru <= 256:
                self.diverge(check, i, recorded=address, predicted=entry.address,
                             what="address of the entry against its list_head", frame=frame)
        elif entry.address != address + self.entry_to_lru:
            self.diverge(check, i, recorded=address, predicted=entry.address - self.entry_to_lru,
                         what="address of the entry", frame=frame)

    def on_entry_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare slot, length, handle and referenced bit of a dying entry."""
        entry: ZswapEntry = effect[1]
        self.n["free.entry"] += 1
        recorded = (self.swpent[i], self.size[i], self.handle[i], self.ref[i])
        predicted = (entry.swpent, entry.length, entry.obj.address, int(entry.referenced))
        if recorded != predicted:
            self.diverge("free.entry", i, recorded=recorded, predicted=predicted,
                         what="(swap entry, length, handle, referenced) of the entry freed", frame=frame)
        self._bind_entry(entry, i, "free.entry", frame)

    # ---- compressor -------------------------------------------------------------------------------------

    def on_compress(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the source page, how many pages and the room of a compress call."""
        folio, index, pages = effect[1], effect[2], effect[3]
        self.n["acomp.calls"] += 1
        recorded = (self.folio[i] + self.offset[i] // PAGE_SIZE * _STRUCT_PAGE, self.offset[i] % PAGE_SIZE,
                    self.size[i], self.dlen[i])
        predicted = (folio.address + index * _STRUCT_PAGE, 0, pages * PAGE_SIZE, pages * PAGE_SIZE)
        if recorded != predicted:
            self.diverge("acomp.calls", i, recorded=recorded, predicted=predicted,
                         what="(struct page, offset, slen, dlen) of the compress call", frame=frame)
        frame.scratch["content"] = self.content[i]

    def on_compress_ret(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int, int]:
        """Compare error and length with what the compressor gives; answer with the recorded ones."""
        ret, dlen = self.ret[i], self.dlen[i]
        content: int = frame.scratch.get("content", -1)
        expected = self.predictions.result(content)
        if expected is not None:
            err, length = expected
            self.n["store.error"] += 1
            if ret != err:
                self.diverge("store.error", i, recorded=ret, predicted=err,
                             what=f"error of {self.predictions.name} for page {self.predictions.page(content)}",
                             frame=frame)
            self.n["store.length"] += 1
            if dlen != length:
                self.diverge("store.length", i, recorded=dlen, predicted=length,
                             what=f"length of {self.predictions.name} for page "
                             f"{self.predictions.page(content)}", frame=frame)
        return ret, dlen, content

    def on_decompress(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare source length and room of a decompress call with the entry's."""
        self.n["load.result"] += 1
        if (self.size[i], self.dlen[i]) != (effect[1], PAGE_SIZE):
            self.diverge("load.result", i, recorded=(self.size[i], self.dlen[i]), predicted=(effect[1], PAGE_SIZE),
                         what="(slen, dlen) of the decompress call", frame=frame)

    def on_decompress_ret(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Compare a decompression's outcome with success; answer with the recorded one."""
        self.n["load.result"] += 1
        recorded = (self.ret[i], self.dlen[i])
        if recorded != (effect[1], effect[2]):
            self.diverge("load.result", i, recorded=recorded, predicted=(effect[1], effect[2]),
                         what="(return value, bytes) of the decompress call", frame=frame)
        return recorded

    # ---- cgroup -----------------------------------------------------------------------------------------

    def on_may_zswap(self, effect: Effect, i: int, frame: Frame) -> bool:
        """Compare memory.zswap.max's verdict, where the model has one; answer with the recorded one."""
        if effect[1] is None:
            return bool(self.ret[i])
        self.n["memcg.limit"] += 1
        if self.ret[i] != int(effect[1]):
            self.diverge("memcg.limit", i, recorded=self.ret[i], predicted=int(effect[1]), what="return value",
                         frame=frame)
        return bool(self.ret[i])

    def on_writeback_enabled(self, effect: Effect, i: int, frame: Frame) -> bool:
        """Compare memory.zswap.writeback's verdict, where the model has one; answer with the recorded one."""
        if effect[1] is None:
            return bool(self.ret[i])
        self.n["memcg.writeback"] += 1
        if self.ret[i] != int(effect[1]):
            self.diverge("memcg.writeback", i, recorded=self.ret[i], predicted=int(effect[1]),
                         what="return value", frame=frame)
        return bool(self.ret[i])

    def on_charge(self, effect: Effect, i: int, frame: Frame) -> int:
        """Compare the bytes charged; answer with the cgroup, which must be one throughout a folio."""
        self.n["memcg.charge"] += 1
        if self.size[i] != effect[1]:
            self.diverge("memcg.charge", i, recorded=self.size[i], predicted=effect[1], what="bytes charged",
                         frame=frame)
        objcg = self.memcg[i]
        first = frame.scratch.setdefault("objcg", objcg)
        if objcg != first:
            self.diverge("memcg.charge", i, recorded=objcg, predicted=first,
                         what="obj_cgroup of one folio's pages", frame=frame)
        self.account_changes(objcg)
        return objcg

    def on_uncharge(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the bytes uncharged, and from whom."""
        entry: ZswapEntry = effect[1]
        self.n["memcg.charge"] += 1
        if (self.size[i], self.memcg[i]) != (entry.length, entry.objcg):
            self.diverge("memcg.charge", i, recorded=(self.size[i], self.memcg[i]),
                         predicted=(entry.length, entry.objcg), what="(bytes, obj_cgroup) uncharged", frame=frame)
        self.account_changes(self.memcg[i])

    def account_changes(self, objcg: int) -> None:
        """A cgroup is about to be charged or uncharged."""
        raise NotImplementedError

    # ---- LRU --------------------------------------------------------------------------------------------

    def on_lru_add(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Bind the entry's list_head; answer with the node and cgroup it is listed under."""
        entry: ZswapEntry = effect[1]
        self.n["lru.order"] += 1
        entry.address = self.entry[i]
        # Which mem_cgroup an obj_cgroup stands for is not recorded: the first entry tells, the others agree.
        known = self.memcg_of.setdefault(entry.objcg, self.memcg[i])
        if known != self.memcg[i]:
            self.diverge("lru.order", i, recorded=self.memcg[i], predicted=known,
                         what="mem_cgroup of an entry's LRU", frame=frame)
        return self.nid[i], self.memcg[i]

    def on_lru_add_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare whether the item was added."""
        self.n["lru.order"] += 1
        if self.ret[i] != int(effect[1]):
            self.diverge("lru.order", i, recorded=self.ret[i], predicted=int(effect[1]),
                         what="list_lru_add() return value", frame=frame)

    def on_lru_del(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which item leaves which list."""
        entry: ZswapEntry = effect[1]
        self.n["lru.order"] += 1
        recorded = (self.entry[i], (self.nid[i], self.memcg[i]))
        predicted = (self.lru_item(entry), entry.lru)
        if recorded != predicted:
            self.diverge("lru.order", i, recorded=recorded, predicted=predicted,
                         what="(list_head, (node, cgroup)) taken off the LRU", frame=frame)

    def lru_item(self, entry: ZswapEntry) -> int:
        """Return the address of an entry's list_head as recorded."""
        return entry.address

    def on_shrink_memcg(self, effect: Effect, i: int, frame: Frame) -> int:
        """Answer with the cgroup that is shrunk."""
        return self.memcg[i]

    def on_shrink_memcg_cb(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which entry the walk looks at: strict LRU order."""
        entry: ZswapEntry = effect[1]
        self.n["lru.order"] += 1
        if self.entry[i] != self.lru_item(entry):
            self.diverge("lru.order", i, recorded=self.entry[i], predicted=self.lru_item(entry),
                         what="entry the LRU walk looks at", frame=frame)

    def on_lru_status(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the status of a walk's step, or shrink_memcg()'s result."""
        self.n["lru.order"] += 1
        if self.ret[i] != effect[1]:
            self.diverge("lru.order", i, recorded=self.ret[i], predicted=effect[1], what="return value",
                         frame=frame)

    def on_writeback_entry(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which slot is written back (6.12)."""
        entry: ZswapEntry = effect[1]
        self.n["lru.order"] += 1
        if self.swpent[i] != entry.swpent:
            self.diverge("lru.order", i, recorded=self.swpent[i], predicted=entry.swpent,
                         what="swap entry written back", frame=frame)

    def writeback_failure(self, name: str, i: int) -> int:
        """Return the errno of a writeback that did not come to read its entry."""
        return self.ret[i] if name == "zswap_writeback_entry_ret" else -17 if self.ret[i] == 5 else -12

    # ---- zsmalloc ---------------------------------------------------------------------------------------

    def current_zs_pool(self) -> ZsPool:
        """Return the pool that new objects come from."""
        return self.model.pools[0].zs_pool

    def compacted_pool(self, pid: int, i: int) -> ZsPool:
        """Return the pool a compaction is about: with several, the one whose size class it names first."""
        if len(self.model.pools) > 1:
            code = schema.CODE["__zs_compact"]
            for row in range(i + 1, len(self.event)):
                if self.pid[row] == pid and self.event[row] == code:
                    cls = self.classes.get(self.pool[row])
                    for pool in self.model.pools:
                        if cls in pool.zs_pool.classes:
                            return pool.zs_pool
                    break
        return self.current_zs_pool()

    def on_zs_malloc(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the size asked for and the pool it comes from."""
        self.n["zsmalloc.size"] += 1
        if self.size[i] != effect[1]:
            self.diverge("zsmalloc.size", i, recorded=self.size[i], predicted=effect[1],
                         what="size asked of zs_malloc()", frame=frame)
        pool = self.current_zs_pool()
        if not pool.address:
            pool.address = self.pool[i]
        elif pool.address != self.pool[i]:
            self.diverge("zsmalloc.place", i, recorded=self.pool[i], predicted=pool.address, what="pool", frame=frame)

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
        # A huge zspage has no links: what a second allocation reads as one is the page's own data.
        if not geometry.huge and self.freeobj[i] != zspage.freeobj:
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
        known = self._class_at(self.pool[i], cls)
        recorded = (self.zspage[i], self.inuse[i], self.word[i], known.geometry.index)
        predicted = (zspage.address, zspage.inuse, zspage_word(zspage), cls.geometry.index)
        if recorded != predicted:
            self.diverge("zsmalloc.fullness", i, recorded=recorded, predicted=predicted,
                         what="(zspage, objects in use, class and fullness bits, class by pointer)", frame=frame)
        frame.scratch["fullness"] = zspage

    def _class_at(self, address: int, cls: SizeClass) -> SizeClass:
        """Return the class known at an address; ``cls`` when it is new there, or the old one's pool is gone."""
        known = self.classes.setdefault(address, cls)
        if known is not cls and not any(known in pool.zs_pool.classes for pool in self.model.pools):
            self.classes[address] = known = cls
        return known

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
        if self.zspage[i] != zspage.address:
            self.diverge("zsmalloc.place", i, recorded=self.zspage[i], predicted=zspage.address, what="zspage freed",
                         frame=frame)
        frame.inflight = -zspage.cls.geometry.pages_per_zspage

    def on_obj_write(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle, length and first bytes of the object written."""
        obj, length, content, raw = effect[1], effect[2], effect[3], effect[4]
        check = "store.raw" if raw else "store.bytes"
        self.n[check] += 1
        if (self.handle[i], self.size[i]) != (obj.address, length):
            self.diverge(check, i, recorded=(self.handle[i], self.size[i]), predicted=(obj.address, length),
                         what="(handle, length) of the object written", frame=frame)
        head = self.predictions.raw_head(content) if raw else self.predictions.head(content)
        if head is not None and "data" in self.columns_of["zs_obj_write"]:
            # A probe reads 8 bytes of the buffer; beyond a short object's end they are left-overs.
            mask = (1 << 8 * min(8, length)) - 1
            if self.data[i] & mask != head & mask:
                self.diverge(check, i, recorded=self.data[i] & mask, predicted=head & mask,
                             what="first bytes of the object written", frame=frame)
        if self.keep_writes:
            self.writes.append((self._row(i), self.handle[i], length, content))

    def _row(self, i: int) -> int:
        raise NotImplementedError

    def on_obj_read(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare handle and length of an object read, and that its entries cover it exactly."""
        obj, length, shape = effect[1], effect[2], effect[3]
        self.n["sg.shape"] += 1
        self.sg_entries[len(shape)] += 1
        columns = self.columns_of["zs_obj_read"]
        recorded = (self.handle[i], self.size[i] if "size" in columns else length)
        geometry = obj.zspage.cls.geometry
        covered = sum(part.length for part in shape) == length \
            and all(part.offset + part.length <= PAGE_SIZE for part in shape) \
            and shape[-1].page < geometry.pages_per_zspage \
            and (len(shape) == 1 or (shape[0].offset + shape[0].length == PAGE_SIZE and shape[1].offset == 0))
        if recorded != (obj.address, length) or not covered:
            self.diverge("sg.shape", i, recorded=recorded, predicted=(obj.address, length, shape),
                         what="(handle, length) of the object read", frame=frame)

    def on_total(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare a pool's page total as a store or the worker read it."""
        self._compare_total(self.ret[i], effect[1], i, frame)

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
        if recorded == predicted:
            return
        # Another task may have been preempted between the event that decides about a zspage and the
        # moment its pages enter or leave the total: exactly those pages, of exactly those tasks.
        pending = {0}
        for stack in self.stacks.values():
            for other in stack:
                if other.inflight:
                    pending |= {value + other.inflight for value in pending}
        if predicted - recorded in pending:
            self.preempted_reads += 1
            return
        self.diverge("zsmalloc.pages", i, recorded=recorded, predicted=predicted, what="pages of the pool",
                     frame=frame)

    def on_compact_class(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which class is compacted: all of them, from the largest down."""
        cls: SizeClass = effect[1]
        self.n["zsmalloc.compact"] += 1
        known = self._class_at(self.pool[i], cls)
        if known is not cls:
            self.diverge("zsmalloc.compact", i, recorded=known.geometry.index, predicted=cls.geometry.index,
                         what="class that is compacted", frame=frame)

    def on_compact_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the pages freed."""
        self.n["zsmalloc.compact"] += 1
        if self.ret[i] != effect[1]:
            self.diverge("zsmalloc.compact", i, recorded=self.ret[i], predicted=effect[1], what="pages freed",
                         frame=frame)

    def describe_state(self, frame: Frame | None) -> dict[str, Any]:
        """Return what the model holds, for a divergence's report."""
        model = self.model
        state: dict[str, Any] = {
            "stored_pages": model.counters.stored_pages,
            "pool_pages": model.total_pages(),
            "limit_pages": model.max_pages(),
            "pool_reached_full": model.pool_reached_full,
        }
        effect = frame.effect if frame is not None else None
        for item in effect[1:] if effect is not None else ():
            if isinstance(item, Zspage):
                state["zspage"] = {"address": hex(item.address), "class": item.cls.geometry.index,
                                   "inuse": item.inuse, "freeobj": item.freeobj, "fullness": item.group}
            elif isinstance(item, ZsObject):
                state["object"] = {"handle": hex(item.address), "size": item.size, "index": item.index}
            elif isinstance(item, ZswapEntry):
                state["entry"] = {"swpent": hex(item.swpent), "length": item.length,
                                  "referenced": item.referenced}
            elif isinstance(item, Folio):
                state["folio"] = {"swpent": hex(item.swpent), "order": item.order}
        return state
