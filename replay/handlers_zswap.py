# SPDX-License-Identifier: GPL-2.0-or-later
"""Effects of zswap, the swap layer, compressors and cgroups against their events.

A handler gets the effect, the row of the event in the current batch and the running operation, and returns
what the model is sent back.  Recorded addresses are only ever compared with addresses recorded before for the
same thing: the model knows things, not addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.effects import Effect
from model.zswap import Folio, ZswapEntry
from replay.handlers_acomp import AcompHandlers
from replay.handlers_base import Handler

if TYPE_CHECKING:
    from replay.engine import Frame

__all__ = ["Handlers"]


class Handlers(AcompHandlers):
    """One method per effect; the engine adds the driving."""

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
            "zswap_shrinker_scan": self.on_shrinker_scan, "zswap_shrinker_scan_ret": self.on_lru_status,
            "zs_shrinker_scan": self.on_start, "zs_shrinker_scan_ret": self.on_compact_ret,
            "zs_compact": self.on_compact, "zs_compact_ret": self.on_compact_ret,
            "__zs_compact": self.on_compact_class, "__zs_compact_ret": self.on_compact_ret,
        }

    def default(self, effect: Effect, frame: Frame) -> Any:
        """Answer an effect whose event was not recorded, from what the model or compressor says."""
        if effect[0] == "crypto_acomp_compress_ret":
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
        predicted = (self.folio[i] if folio.address < 0 else folio.address, folio.swpent)
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
        self.lru_moved(self.pid[i])
        entry: ZswapEntry = effect[1]
        self.n["load.entry"] += 1
        columns = self.columns_of["zswap_decompress"]
        recorded = (self.swpent[i], self.handle[i], self.size[i] if "size" in columns else entry.length)
        predicted = (entry.swpent, entry.obj.address, entry.length)
        if recorded != predicted:
            self.diverge("load.entry", i, recorded=recorded, predicted=predicted,
                         what="(swap entry, handle, length) of the entry read", frame=frame)
        folio: Folio = effect[2]
        if folio.address >= 0 and self.folio[i] != folio.address:
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
        columns = self.columns_of["zswap_entry_free"]
        predicted = (entry.swpent, entry.length, entry.obj.address, int(entry.referenced))
        recorded = (self.swpent[i], self.size[i] if "size" in columns else entry.length, self.handle[i],
                    self.ref[i] if "ref" in columns else predicted[3])
        if recorded != predicted:
            self.diverge("free.entry", i, recorded=recorded, predicted=predicted,
                         what="(swap entry, length, handle, referenced) of the entry freed", frame=frame)
        self._bind_entry(entry, i, "free.entry", frame)

    # ---- cgroup -----------------------------------------------------------------------------------------

    def on_may_zswap(self, effect: Effect, i: int, frame: Frame) -> bool:
        """Compare memory.zswap.max's verdict, where the model has one; answer with the recorded one."""
        if effect[1] is None:
            return bool(self.ret[i])
        self.n["memcg.limit"] += 1
        if self.ret[i] != int(effect[1]) and bool(self.ret[i]) not in self.earlier_verdicts(i, self.model.zswap_max):
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
        return objcg

    def on_uncharge(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the bytes uncharged, and from whom."""
        entry: ZswapEntry = effect[1]
        self.n["memcg.charge"] += 1
        if (self.size[i], self.memcg[i]) != (entry.length, entry.objcg):
            self.diverge("memcg.charge", i, recorded=(self.size[i], self.memcg[i]),
                         predicted=(entry.length, entry.objcg), what="(bytes, obj_cgroup) uncharged", frame=frame)

    # ---- LRU --------------------------------------------------------------------------------------------

    def on_lru_add(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Bind the entry's list_head; answer with the node and cgroup it is listed under."""
        entry: ZswapEntry = effect[1]
        self.n["lru.order"] += 1
        entry.address = self.entry[i]
        # Which mem_cgroup an obj_cgroup stands for is not recorded: the first entry tells, the others agree.
        cgroup = self.lru_cgroup(i)
        known = self.memcg_of.setdefault(entry.objcg, cgroup)
        if known != cgroup:
            self.diverge("lru.order", i, recorded=cgroup, predicted=known,
                         what="mem_cgroup of an entry's LRU", frame=frame)
        self.lru_adding(entry, self.pid[i])
        return self.nid[i], cgroup

    def on_lru_add_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare whether the item was added."""
        self.lru_added(self.pid[i])
        self.n["lru.order"] += 1
        if self.ret[i] != int(effect[1]):
            self.diverge("lru.order", i, recorded=self.ret[i], predicted=int(effect[1]),
                         what="list_lru_add() return value", frame=frame)

    def on_lru_del(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which item leaves which list."""
        entry: ZswapEntry = effect[1]
        self.n["lru.order"] += 1
        recorded = (self.entry[i], (self.nid[i], self.lru_cgroup(i)))
        predicted = (self.lru_item(entry), entry.lru)
        self.overlaps.pop(entry, None)
        if recorded != predicted:
            self.diverge("lru.order", i, recorded=recorded, predicted=predicted,
                         what="(list_head, (node, cgroup)) taken off the LRU", frame=frame)

    def lru_cgroup(self, i: int) -> int:
        """Return the cgroup whose list a list_lru event is about: the root's has two names up to 7.0."""
        return 0 if self.memcg[i] == self.root_memcg else self.memcg[i]

    def lru_item(self, entry: ZswapEntry) -> int:
        """Return the address of an entry's list_head as recorded."""
        return entry.address

    def on_shrinker_scan(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Answer with the cgroup and node that the dynamic shrinker scans."""
        return self.memcg[i], self.nid[i]

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
        self.lru_moving(entry, self.pid[i])

    def on_lru_status(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the status of a walk's step, or shrink_memcg()'s result."""
        self.lru_moved(self.pid[i])
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
