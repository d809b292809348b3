# SPDX-License-Identifier: GPL-2.0-or-later
"""Effects of zswap, the swap layer, compressors and cgroups against their events.

A handler gets the effect, the row of the event in the current batch and the running operation, and returns
what the model is sent back.  Recorded addresses are only ever compared with addresses recorded before for the
same thing: the model knows things, not addresses.
"""

from __future__ import annotations

from typing import Any, Final

from model.cgroups import EITHER
from model.effects import Effect
from model.swap import PG_DIRTY, PG_RECLAIM, PG_UPTODATE
from model.zswap import Folio, ZswapEntry
from replay.reference.frame import Frame
from replay.reference.handlers.acomp import AcompHandlers
from replay.reference.handlers.base import OTHER_CGROUP, UNKNOWN_CGROUP, CannotFollow, Handler
from replay.reference.settings import UNCHARGED, UNSAID, WHOSE
from traces import schema
from traces.events import EFFECTS, EVENTS

__all__ = ["MAX_ENTRY_TO_LRU", "QUESTION", "Handlers"]

#: A list_head lies no further than this (bytes) behind the beginning of its zswap_entry.
MAX_ENTRY_TO_LRU: Final = 256

#: pages; what a reader that was preempted may be off by, and far more
_NEAR: Final = 512
#: What is taken from the recording where a check does not know what to predict.
QUESTION: Final = {"memcg.limit": "?may_zswap", "memcg.writeback": "?zswap_writeback"}


class Handlers(AcompHandlers):
    """One method per effect; the engine adds the driving."""

    def table(self) -> dict[str, Handler]:
        """Return the handler of each effect: its method ``on_NAME``, or a comparison of it alone (:data:`EVENTS`)."""
        rows = {event.name: any(row.predicted for row in event.compared) for event in EVENTS}
        return {name: getattr(self, f"on_{name}", None) or (self.comparing(name) if rows[name] else self.on_start)
                for name in EFFECTS}

    def default(self, effect: Effect, frame: Frame) -> Any:
        """Answer an effect whose event was not recorded, from what the model or compressor says."""
        name = effect[0]
        if name == "crypto_acomp_compress":
            frame.handed.content, frame.handed.pages, frame.handed.pool = -1, effect[3], effect[4]
        elif name == "obj_cgroup_charge_zswap":
            # A cgroup was charged: the entry is uncharged when it ends, whichever it was.
            return UNKNOWN_CGROUP
        elif name == "shrink_memcg":
            raise CannotFollow("shrink_memcg was not captured: which cgroup a store shrank is not known")
        elif name == "zs_get_total_pages_ret" and any(abs(effect[1] - pages) <= _NEAR for pages in (
                self.model.max_pages(), self.model.accept_thr_pages())):
            self.guess("zs_get_total_pages_ret was not captured: how large a store took the pool for, near its limit, "
                       "is not known")
        elif name == "zswap_decompress":
            self.reading(effect, frame)
        elif name == "zs_obj_read":
            self.object_read(effect[2], frame)
        elif name == "crypto_acomp_decompress_ret":
            self.inflated((effect[1], effect[2]), frame)
        elif name in ("zs_obj_write", "memcpy"):
            self.object_written(effect, None, frame)
        return None

    # ---- swap layer, store, load ------------------------------------------------------------------------

    def on_start(self, effect: Effect, i: int, frame: Frame) -> None:
        """The beginning of an operation has nothing to compare: it is what the model is given."""

    def on_swap_writeout(self, effect: Effect, i: int, frame: Frame) -> None:
        """A folio is to be written out: nothing to compare."""
        frame.handed.folio = effect[1]

    def on_zswap_store(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the folio that swap_writeout() hands on."""
        folio: Folio = effect[1]
        frame.handed.folio = folio
        self.hold("zswap_store", i, frame, (self.folio[i], self.swpent[i], self.order[i]),
                  (folio.address if folio.address >= 0 else None, folio.swpent, folio.order))
        if folio.address < 0 and self.sees("zswap_store", "folio"):
            folio.address = self.folio[i]

    def on___swap_writepage(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the slot that goes to the device."""
        folio: Folio = effect[1]
        self.hold("__swap_writepage", i, frame, (self.folio[i], self.swpent[i]),
                  (folio.address if folio.address >= 0 else None, folio.swpent))
        if effect[2] and self.held["__swap_writepage:word"].some:
            self.hold("__swap_writepage:word", i, frame, (self.word[i] & PG_UPTODATE,), (PG_UPTODATE,))
            self.written_back += 1
            self.marked_for_reclaim += bool(self.word[i] & PG_RECLAIM)

    def on_zswap_load_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare zswap_load()'s return value (a bool byte up to 6.12), or that of a writeback, and what it made of
        the folio.
        """
        self.hold(effect[0], i, frame, (self.ret[i],), (int(effect[1]),))
        if len(effect) > 2 and self.held["zswap_load_ret:word"].some:
            folio, wanted = effect[2:]
            recorded = self.word[i] & wanted
            if recorded != wanted and self._written_meanwhile(folio, i):
                # The folio was unlocked: another task wrote it out again and has cleaned it.
                recorded |= PG_DIRTY & wanted
            self.hold("zswap_load_ret:word", i, frame, (recorded,), (wanted,))
        self.page_read(i, frame)

    on_zswap_writeback_entry_ret = on_zswap_load_ret

    def _written_meanwhile(self, folio: Folio, i: int) -> bool:
        """True where another task may have written a folio out since the last event of this one."""
        if "swap_writeout" not in self.captured:
            return True
        code, pid = schema.CODE["swap_writeout"], self.pid[i]
        for row in range(i - 1, -1, -1):
            if self.pid[row] == pid:
                return False
            if self.event[row] == code and self.folio[row] in (folio.address, 0):
                return True
        return True

    def on_zswap_store_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare zswap_store()'s return value."""
        self.hold("zswap_store_ret", i, frame, (self.ret[i],), (int(effect[1]),))
        self.store_returned(bool(self.ret[i] if self.sees("zswap_store_ret", "ret") else effect[1]), i, frame)

    def on_zswap_decompress(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which entry, handle and length a load or writeback reads."""
        self.lru_moved(self.pid[i])
        entry: ZswapEntry = effect[1]
        folio: Folio = effect[2]
        self.hold("zswap_decompress", i, frame, (self.swpent[i], self.handle[i], self.size[i]),
                  (entry.swpent, self.handle_of(entry.obj, i, frame), entry.length))
        if folio.address >= 0:
            self.hold("zswap_decompress:folio", i, frame, (self.folio[i],), (folio.address,))
        elif self.sees("zswap_decompress", "folio"):
            # Writeback's folio is a new one: the one that goes to the device has to be the same.
            folio.address = self.folio[i]
        self._bind_entry(entry, i, "zswap_decompress:entry", frame)
        self.reading(effect, frame)

    def _bind_entry(self, entry: ZswapEntry, i: int, key: str, frame: Frame) -> None:
        if not self.held[key].some:
            return
        address = self.entry[i]
        if not self.is_address(address, self.held[key].check, "address of the entry", i, frame):
            return
        if not entry.address:
            entry.address = address
        elif self.entry_to_lru is None:
            # The list_head was seen when the entry was listed, the entry itself only now.
            self.entry_to_lru = entry.address - address
            if not 0 <= self.entry_to_lru <= MAX_ENTRY_TO_LRU:
                self.diverge(self.held[key].check, i, recorded=address, predicted=entry.address,
                             what="address of the entry against its list_head", frame=frame)
        else:
            self.hold(key, i, frame, (address,), (entry.address - self.entry_to_lru,))

    def on_zswap_entry_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare slot, length, handle and referenced bit of a dying entry."""
        entry: ZswapEntry = effect[1]
        self.hold("zswap_entry_free", i, frame, (self.swpent[i], self.size[i], self.handle[i], self.ref[i]),
                  (entry.swpent, entry.length, self.handle_of(entry.obj, i, frame), int(entry.referenced)))
        self._bind_entry(entry, i, "zswap_entry_free:entry", frame)
        self.page_read(i, frame)
        self.outdated.pop(entry, None)

    # ---- cgroup -----------------------------------------------------------------------------------------

    def on_obj_cgroup_may_zswap_ret(self, effect: Effect, i: int, frame: Frame) -> bool:
        """Compare memory.zswap.max's verdict, where the model has one; answer with the recorded one."""
        key = "obj_cgroup_may_zswap_ret"
        if self.settings.whose:
            return self._one_of(key, *self.limit_answers(i), i, frame)
        if effect[1] is None:
            return self._one_of(key, EITHER, WHOSE if len(self.model.memcgs) > 1 else UNSAID, i, frame)
        if not self.sees("obj_cgroup_charge_zswap", "memcg"):
            # Which cgroup is charged how much was not recorded: what is left of a limit is not known either.
            return self._one_of(key, EITHER, UNCHARGED, i, frame)
        expected, limit = int(effect[1]), self.model.zswap_max
        if self.ret[i] != expected and limit is not None and bool(self.ret[i]) in self.earlier_verdicts(i, limit):
            expected = self.ret[i]
        self.hold(key, i, frame, (self.ret[i],), (expected,))
        return bool(self.ret[i])

    def on_mem_cgroup_zswap_writeback_enabled_ret(self, effect: Effect, i: int, frame: Frame) -> bool:
        """Compare memory.zswap.writeback's verdict, where the model has one; answer with the recorded one."""
        key = "mem_cgroup_zswap_writeback_enabled_ret"
        if self.sees(key, "ret"):
            frame.handed.writeback = bool(self.ret[i])
        if self.settings.whose:
            return self._one_of(key, *self.writeback_answers(i), i, frame)
        if effect[1] is None:
            return self._one_of(key, EITHER, WHOSE if self.settings.own else UNSAID, i, frame)
        self.hold(key, i, frame, (self.ret[i],), (int(effect[1]),))
        return bool(self.ret[i])

    def _one_of(self, key: str, answers: frozenset[bool], why: str, i: int, frame: Frame) -> bool:
        """Compare a recorded answer with those that may be given; where that is either, count why."""
        if len(answers) > 1:
            check = self.held[key].check
            self.tally.unknown[check] += 1
            self.settings.why[check][why] += 1
            self.asked.add(QUESTION[check])
        else:
            self.hold(key, i, frame, (self.ret[i],), (int(True in answers),))
        return bool(self.ret[i])

    def on_obj_cgroup_charge_zswap(self, effect: Effect, i: int, frame: Frame) -> int:
        """Compare the bytes charged; answer with the cgroup, which must be one throughout a folio."""
        self.hold("obj_cgroup_charge_zswap", i, frame, (self.size[i],), (effect[1],))
        if not self.sees("obj_cgroup_charge_zswap", "memcg"):
            return UNKNOWN_CGROUP
        objcg = self.memcg[i]
        first = frame.handed.objcg
        if first is None:
            first = frame.handed.objcg = objcg
        self.hold("obj_cgroup_charge_zswap:memcg", i, frame, (objcg,), (first,))
        if objcg in self.memcg_of and not self._is_charged(objcg):
            # No event shows that an obj_cgroup is freed.  One whose cgroup went away, and that no entry keeps, may have
            # been, and another cgroup's may have its address now; or other charges keep it.
            self.memcg_before[objcg] = self.memcg_of.pop(objcg)
            self.memcg_was.pop(objcg, None)
        return objcg

    def _is_charged(self, objcg: int) -> bool:
        """True where an entry is charged to an obj_cgroup, and so keeps it, by the events up to now."""
        account = self.model.memcgs.get(objcg)
        pages = account.zswapped if account is not None else 0
        if pages > sum(map(len, self.stacks.values())):
            return True
        for stack in self.stacks.values():
            for frame in stack:
                if frame.effect is not None:
                    continue
                # The model counts when the task does its next thing.
                if frame.last[0] == "obj_cgroup_charge_zswap":
                    pages += frame.answer == objcg
                elif frame.last[0] == "obj_cgroup_uncharge_zswap":
                    pages -= frame.last[1].objcg == objcg
        return pages > 0

    def on_obj_cgroup_uncharge_zswap(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the bytes uncharged, and from whom."""
        entry: ZswapEntry = effect[1]
        self.hold("obj_cgroup_uncharge_zswap", i, frame, (self.size[i], self.memcg[i]),
                  (entry.length, entry.objcg if entry.objcg != UNKNOWN_CGROUP else None))

    # ---- LRU --------------------------------------------------------------------------------------------

    def on_list_lru_add(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Bind the entry's list_head; answer with the node and cgroup it is listed under."""
        entry: ZswapEntry = effect[1]
        if self.sees("list_lru_add", "entry") \
                and self.is_address(self.entry[i], "lru.order", "list_head of the entry listed", i, frame):
            entry.address = self.entry[i]
        # Which mem_cgroup an obj_cgroup stands for is not recorded: the first entry shows it, the others agree.
        cgroup, objcg = self.lru_cgroup(i), entry.objcg
        known = None
        if objcg != UNKNOWN_CGROUP:
            if objcg not in self.memcg_of:
                self.memcg_of[objcg] = cgroup
                if self.memcg_before.pop(objcg, cgroup) != cgroup:
                    # What the account has counted may be of two cgroups.
                    self.model.memcg(OTHER_CGROUP)
            known = self.memcg_of[objcg]
            if self.memcg_was.get(objcg) == cgroup:
                # list_lru_add() of a cgroup that has gone away adds to its parent's list.
                cgroup = known
            elif self._is_leaving(known, cgroup):
                known = cgroup
        self.hold("list_lru_add", i, frame, (cgroup,), (known,))
        self.lru_adding(entry, self.pid[i])
        self.adding_to[self.pid[i]] = self.nid[i], cgroup
        return self.nid[i], cgroup

    def on_list_lru_add_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare whether the item was added."""
        self.lru_added(self.pid[i])
        self.hold("list_lru_add_ret", i, frame, (self.ret[i],), (int(effect[1]),))

    def on_list_lru_del(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which item leaves which list."""
        entry: ZswapEntry = effect[1]
        nid, cgroup = entry.lru if entry.lru is not None else (-1, -1)
        self.overlaps.pop(entry, None)
        self.lru_deleting(entry, self.pid[i])
        named = self.lru_cgroup(i)
        if (entry.objcg in self.memcg_was and self.memcg_was[entry.objcg] == named) or self._is_leaving(cgroup, named):
            named = cgroup
        self.hold("list_lru_del", i, frame, (self.entry[i], self.nid[i], named),
                  (self.lru_item(entry), nid if self.sees("list_lru_add", "nid") else None,
                   cgroup if self.sees("list_lru_add", "memcg") else None))

    def _is_leaving(self, cgroup: int, parent: int) -> bool:
        """True while a cgroup goes away, whose obj_cgroups are its parent's before its lists are (6.12)."""
        node_of, root = self.settings.node_of, self.root_memcg
        if cgroup not in self.settings.leaving or cgroup not in node_of:
            return False
        above = node_of[cgroup].parent
        return above is not None and (node_of.get(parent or root) is above or (parent == 0 and above.is_root))

    def lru_cgroup(self, i: int) -> int:
        """Return the cgroup whose list a list_lru event is about: the root's has two names up to 7.0."""
        return 0 if self.memcg[i] == self.root_memcg else self.memcg[i]

    def lru_item(self, entry: ZswapEntry) -> int | None:
        """Return the address of an entry's list_head as recorded, None where it was not."""
        return entry.address if self.sees("list_lru_add", "entry") and entry.address else None

    def on_zswap_shrinker_scan(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Answer with the cgroup and node that the dynamic shrinker scans."""
        lacks = [column for column in ("size", "memcg", "nid") if not self.sees("zswap_shrinker_scan", column)]
        if lacks and self.model.shrinker_enabled:
            raise CannotFollow(f"zswap_shrinker_scan has no {' and no '.join(lacks)}: which list it walks, and how "
                               f"far, is not known")
        self._walks()
        return self.memcg[i], self.nid[i]

    def on_shrink_memcg(self, effect: Effect, i: int, frame: Frame) -> int:
        """Answer with the cgroup that is shrunk."""
        if not self.sees("shrink_memcg", "memcg"):
            raise CannotFollow("shrink_memcg has no memcg: which list it walks is not known")
        self._walks()
        return self.memcg[i]

    def _walks(self) -> None:
        """A walk begins: it can be followed where what is listed, and in which order, was captured.

        :raises CannotFollow: where it was not
        """
        if "list_lru_add" not in self.captured or not self.sees("list_lru_add", "memcg"):
            raise CannotFollow("list_lru_add was not captured with its pool and memcg: which entries an LRU walk finds "
                               "is not known")
        for event in ("list_lru_add_ret", "list_lru_del", "shrink_memcg_cb"):
            if event not in self.captured:
                self.guess(f"{event} was not captured: how an LRU walk and other tasks came by each other is not known")
        if not self.sees("list_lru_add", "nid"):
            self.guess("list_lru_add has no nid: on which node's list an entry is is not known")

    def on_shrink_memcg_cb(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which entry the walk looks at: strict LRU order."""
        entry: ZswapEntry = effect[1]
        self.hold("shrink_memcg_cb", i, frame, (self.entry[i],), (self.lru_item(entry),))
        self.lru_moving(entry, self.pid[i])

    def on_shrink_memcg_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the status of a walk's step, or shrink_memcg()'s result."""
        self.lru_moved(self.pid[i])
        self.hold(effect[0], i, frame, (self.ret[i],), (effect[1],))
        self.page_read(i, frame)

    on_shrink_memcg_cb_ret = on_zswap_shrinker_scan_ret = on_shrink_memcg_ret

    def writeback_failure(self, name: str, i: int) -> int:
        """Return the errno of a writeback that did not read its entry."""
        if name in ("zswap_writeback_entry_ret", "shrink_memcg_cb_ret") and not self.sees(name, "ret"):
            self.guess(f"{name} has no ret: why an entry was not written back is not known")
        return self.ret[i] if name == "zswap_writeback_entry_ret" else -17 if self.ret[i] == 5 else -12
