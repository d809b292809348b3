# SPDX-License-Identifier: GPL-2.0-or-later
"""Effects of zswap, the swap layer and cgroups against their events.

A handler gets the effect, the row of the event in the current batch and the running operation, and returns
what the model is sent back.  Recorded addresses are only ever compared with addresses recorded before for the
same thing: the model knows things, not addresses.
"""

from __future__ import annotations

from typing import Final

from model.cgroups import EITHER
from model.effects import Effect
from model.swap import PG_DIRTY, PG_RECLAIM, PG_UPTODATE
from model.zswap import Folio, ZswapEntry
from replay.reference.cgrouplimits import CgroupLimits
from replay.reference.checks import Divergence
from replay.reference.comparer import Comparer
from replay.reference.frame import Frame
from replay.reference.handlers.zsmalloc import ZsmallocHandlers
from replay.reference.invariants import Invariants
from replay.reference.lruorder import LruOrder
from replay.reference.settings import UNCHARGED, UNSAID, WHOSE
from replay.reference.state import OTHER_CGROUP, UNKNOWN_CGROUP, CannotFollow, ReplayState
from traces import schema

__all__ = ["MAX_ENTRY_TO_LRU", "QUESTION", "ZswapHandlers"]

#: A list_head lies no further than this (bytes) behind the beginning of its zswap_entry.
MAX_ENTRY_TO_LRU: Final = 256

#: This many folios written back, and none of them marked for reclaim, are not an accident.
_MANY: Final = 16
#: What is taken from the recording where a check does not know what to predict.
QUESTION: Final = {"memcg.limit": "?may_zswap", "memcg.writeback": "?zswap_writeback"}


class ZswapHandlers:
    """Comparison of the effects of zswap, the swap layer and cgroups."""

    def __init__(self, state: ReplayState, comparer: Comparer, invariants: Invariants, zsmalloc: ZsmallocHandlers,
                 lru: LruOrder, limits: CgroupLimits) -> None:
        self.state = state
        self.batch = state.batch
        self.held = state.held
        self.captured = state.captured
        self.settings = state.settings
        self.sees, self.guess = state.sees, state.guess
        self.hold, self.diverge, self.is_address = comparer.hold, comparer.diverge, comparer.is_address
        self.invariants = invariants
        self.zsmalloc = zsmalloc
        self.lru = lru
        self.limits = limits
        #: folios that writeback handed to the device, and those of them that were marked for reclaim
        self.written_back = 0
        self.marked_for_reclaim = 0

    # ---- swap layer, store, load ------------------------------------------------------------------------

    def on_swap_writeout(self, effect: Effect, i: int, frame: Frame) -> None:
        """A folio is to be written out: nothing to compare."""
        frame.handed.folio = effect[1]

    def on_zswap_store(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the folio that swap_writeout() hands on."""
        batch = self.batch
        folio: Folio = effect[1]
        frame.handed.folio = folio
        self.hold("zswap_store", i, frame, (batch.folio[i], batch.swpent[i], batch.order[i]),
                  (folio.address if folio.address >= 0 else None, folio.swpent, folio.order))
        if folio.address < 0 and self.sees("zswap_store", "folio"):
            folio.address = batch.folio[i]

    def on___swap_writepage(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the slot that goes to the device."""
        batch = self.batch
        folio: Folio = effect[1]
        self.hold("__swap_writepage", i, frame, (batch.folio[i], batch.swpent[i]),
                  (folio.address if folio.address >= 0 else None, folio.swpent))
        if effect[2] and self.held["__swap_writepage:word"].some:
            self.hold("__swap_writepage:word", i, frame, (batch.word[i] & PG_UPTODATE,), (PG_UPTODATE,))
            self.written_back += 1
            self.marked_for_reclaim += bool(batch.word[i] & PG_RECLAIM)

    def on_zswap_load_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare zswap_load()'s return value (a bool byte up to 6.12), or that of a writeback, and what it made of
        the folio.
        """
        batch = self.batch
        self.hold(effect[0], i, frame, (batch.ret[i],), (int(effect[1]),))
        if len(effect) > 2 and self.held["zswap_load_ret:word"].some:
            folio, wanted = effect[2:]
            recorded = batch.word[i] & wanted
            if recorded != wanted and self._written_meanwhile(folio, i):
                # The folio was unlocked: another task wrote it out again and has cleaned it.
                recorded |= PG_DIRTY & wanted
            self.hold("zswap_load_ret:word", i, frame, (recorded,), (wanted,))
        self.invariants.page_read(i, frame)

    on_zswap_writeback_entry_ret = on_zswap_load_ret

    def _written_meanwhile(self, folio: Folio, i: int) -> bool:
        """True where another task may have written a folio out since the last event of this one."""
        batch = self.batch
        if "swap_writeout" not in self.captured:
            return True
        code, pid = schema.CODE["swap_writeout"], batch.pid[i]
        for row in range(i - 1, -1, -1):
            if batch.pid[row] == pid:
                return False
            if batch.event[row] == code and batch.folio[row] in (folio.address, 0):
                return True
        return True

    def on_zswap_store_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare zswap_store()'s return value."""
        batch = self.batch
        self.hold("zswap_store_ret", i, frame, (batch.ret[i],), (int(effect[1]),))
        stored = batch.ret[i] if self.sees("zswap_store_ret", "ret") else effect[1]
        self.invariants.store_returned(bool(stored), i, frame)

    def on_zswap_decompress(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which entry, handle and length a load or writeback reads."""
        batch = self.batch
        self.lru.ends_move(batch.pid[i])
        entry: ZswapEntry = effect[1]
        folio: Folio = effect[2]
        self.hold("zswap_decompress", i, frame, (batch.swpent[i], batch.handle[i], batch.size[i]),
                  (entry.swpent, self.zsmalloc.handle_of(entry.obj, i, frame), entry.length))
        if folio.address >= 0:
            self.hold("zswap_decompress:folio", i, frame, (batch.folio[i],), (folio.address,))
        elif self.sees("zswap_decompress", "folio"):
            # Writeback's folio is a new one: the one that goes to the device has to be the same.
            folio.address = batch.folio[i]
        self._bind_entry(entry, i, "zswap_decompress:entry", frame)
        self.invariants.reading(effect, frame)

    def _bind_entry(self, entry: ZswapEntry, i: int, key: str, frame: Frame) -> None:
        state = self.state
        if not self.held[key].some:
            return
        address = self.batch.entry[i]
        if not self.is_address(address, self.held[key].check, "address of the entry", i, frame):
            return
        if not entry.address:
            entry.address = address
        elif state.entry_to_lru is None:
            # The list_head was seen when the entry was listed, the entry itself only now.
            state.entry_to_lru = entry.address - address
            if not 0 <= state.entry_to_lru <= MAX_ENTRY_TO_LRU:
                self.diverge(self.held[key].check, i, recorded=address, predicted=entry.address,
                             what="address of the entry against its list_head", frame=frame)
        else:
            self.hold(key, i, frame, (address,), (entry.address - state.entry_to_lru,))

    def on_zswap_entry_free(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare slot, length, handle and referenced bit of a dying entry."""
        batch = self.batch
        entry: ZswapEntry = effect[1]
        self.hold("zswap_entry_free", i, frame, (batch.swpent[i], batch.size[i], batch.handle[i], batch.ref[i]),
                  (entry.swpent, entry.length, self.zsmalloc.handle_of(entry.obj, i, frame), int(entry.referenced)))
        self._bind_entry(entry, i, "zswap_entry_free:entry", frame)
        self.invariants.page_read(i, frame)
        self.invariants.outdated.pop(entry, None)

    # ---- cgroup -----------------------------------------------------------------------------------------

    def on_obj_cgroup_may_zswap_ret(self, effect: Effect, i: int, frame: Frame) -> bool:
        """Compare memory.zswap.max's verdict, where the model has one; answer with the recorded one."""
        batch = self.batch
        key = "obj_cgroup_may_zswap_ret"
        if self.settings.whose:
            return self._one_of(key, *self.limits.may_zswap(i), i, frame)
        if effect[1] is None:
            return self._one_of(key, EITHER, WHOSE if len(self.state.model.memcgs) > 1 else UNSAID, i, frame)
        if not self.sees("obj_cgroup_charge_zswap", "memcg"):
            # Which cgroup is charged how much was not recorded: what is left of a limit is not known either.
            return self._one_of(key, EITHER, UNCHARGED, i, frame)
        expected, limit = int(effect[1]), self.state.model.zswap_max
        ret = batch.ret[i]
        if ret != expected and limit is not None and bool(ret) in self.limits.earlier_verdicts(i, limit):
            expected = ret
        self.hold(key, i, frame, (batch.ret[i],), (expected,))
        return bool(batch.ret[i])

    def on_mem_cgroup_zswap_writeback_enabled_ret(self, effect: Effect, i: int, frame: Frame) -> bool:
        """Compare memory.zswap.writeback's verdict, where the model has one; answer with the recorded one."""
        batch = self.batch
        key = "mem_cgroup_zswap_writeback_enabled_ret"
        if self.sees(key, "ret"):
            frame.handed.writeback = bool(batch.ret[i])
        if self.settings.whose:
            return self._one_of(key, *self.limits.may_write_back(i), i, frame)
        if effect[1] is None:
            return self._one_of(key, EITHER, WHOSE if self.settings.own else UNSAID, i, frame)
        self.hold(key, i, frame, (batch.ret[i],), (int(effect[1]),))
        return bool(batch.ret[i])

    def _one_of(self, key: str, answers: frozenset[bool], why: str, i: int, frame: Frame) -> bool:
        """Compare a recorded answer with those that may be given; where that is either, count why."""
        batch = self.batch
        if len(answers) > 1:
            check = self.held[key].check
            self.state.tally.unknown[check] += 1
            self.settings.why[check][why] += 1
            self.state.asked.add(QUESTION[check])
        else:
            self.hold(key, i, frame, (batch.ret[i],), (int(True in answers),))
        return bool(batch.ret[i])

    def on_obj_cgroup_charge_zswap(self, effect: Effect, i: int, frame: Frame) -> int:
        """Compare the bytes charged; answer with the cgroup, which must be one throughout a folio."""
        batch, state = self.batch, self.state
        self.hold("obj_cgroup_charge_zswap", i, frame, (batch.size[i],), (effect[1],))
        if not self.sees("obj_cgroup_charge_zswap", "memcg"):
            return UNKNOWN_CGROUP
        objcg = batch.memcg[i]
        first = frame.handed.objcg
        if first is None:
            first = frame.handed.objcg = objcg
        self.hold("obj_cgroup_charge_zswap:memcg", i, frame, (objcg,), (first,))
        if objcg in state.memcg_of and not self._is_charged(objcg):
            # No event shows that an obj_cgroup is freed.  One whose cgroup went away, and that no entry keeps, may have
            # been, and another cgroup's may have its address now; or other charges keep it.
            state.memcg_before[objcg] = state.memcg_of.pop(objcg)
            state.memcg_was.pop(objcg, None)
        return objcg

    def _is_charged(self, objcg: int) -> bool:
        """True where an entry is charged to an obj_cgroup, and so keeps it, by the events up to now."""
        state = self.state
        account = state.model.memcgs.get(objcg)
        pages = account.zswapped if account is not None else 0
        if pages > sum(map(len, state.stacks.values())):
            return True
        for stack in state.stacks.values():
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
        batch = self.batch
        entry: ZswapEntry = effect[1]
        self.hold("obj_cgroup_uncharge_zswap", i, frame, (batch.size[i], batch.memcg[i]),
                  (entry.length, entry.objcg if entry.objcg != UNKNOWN_CGROUP else None))

    # ---- LRU --------------------------------------------------------------------------------------------

    def on_list_lru_add(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Bind the entry's list_head; answer with the node and cgroup it is listed under."""
        batch, state = self.batch, self.state
        entry: ZswapEntry = effect[1]
        if self.sees("list_lru_add", "entry") \
                and self.is_address(batch.entry[i], "lru.order", "list_head of the entry listed", i, frame):
            entry.address = batch.entry[i]
        # Which mem_cgroup an obj_cgroup stands for is not recorded: the first entry shows it, the others agree.
        cgroup, objcg = self.lru_cgroup(i), entry.objcg
        known = None
        if objcg != UNKNOWN_CGROUP:
            if objcg not in state.memcg_of:
                state.memcg_of[objcg] = cgroup
                if state.memcg_before.pop(objcg, cgroup) != cgroup:
                    # What the account has counted may be of two cgroups.
                    state.model.memcg(OTHER_CGROUP)
            known = state.memcg_of[objcg]
            if state.memcg_was.get(objcg) == cgroup:
                # list_lru_add() of a cgroup that has gone away adds to its parent's list.
                cgroup = known
            elif self._is_leaving(known, cgroup):
                known = cgroup
        self.hold("list_lru_add", i, frame, (cgroup,), (known,))
        key = batch.nid[i], cgroup
        self.lru.enters_add(entry, batch.pid[i], key)
        return key

    def on_list_lru_add_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare whether the item was added."""
        batch = self.batch
        self.lru.returns_from_add(batch.pid[i])
        self.hold("list_lru_add_ret", i, frame, (batch.ret[i],), (int(effect[1]),))

    def on_list_lru_del(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare which item leaves which list."""
        batch = self.batch
        entry: ZswapEntry = effect[1]
        nid, cgroup = entry.lru if entry.lru is not None else (-1, -1)
        self.lru.enters_del(entry, batch.pid[i])
        named = self.lru_cgroup(i)
        was = self.state.memcg_was
        if (entry.objcg in was and was[entry.objcg] == named) or self._is_leaving(cgroup, named):
            named = cgroup
        self.hold("list_lru_del", i, frame, (batch.entry[i], batch.nid[i], named),
                  (self.lru_item(entry), nid if self.sees("list_lru_add", "nid") else None,
                   cgroup if self.sees("list_lru_add", "memcg") else None))

    def _is_leaving(self, cgroup: int, parent: int) -> bool:
        """True while a cgroup goes away, whose obj_cgroups are its parent's before its lists are (6.12)."""
        node_of, root = self.settings.node_of, self.state.root_memcg
        if cgroup not in self.settings.leaving or cgroup not in node_of:
            return False
        above = node_of[cgroup].parent
        return above is not None and (node_of.get(parent or root) is above or (parent == 0 and above.is_root))

    def lru_cgroup(self, i: int) -> int:
        """Return the cgroup whose list a list_lru event is about: the root's has two names up to 7.0."""
        memcg = self.batch.memcg[i]
        return 0 if memcg == self.state.root_memcg else memcg

    def lru_item(self, entry: ZswapEntry) -> int | None:
        """Return the address of an entry's list_head as recorded, None where it was not."""
        return entry.address if self.sees("list_lru_add", "entry") and entry.address else None

    def on_zswap_shrinker_scan(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Answer with the cgroup and node that the dynamic shrinker scans."""
        batch = self.batch
        lacks = [column for column in ("size", "memcg", "nid") if not self.sees("zswap_shrinker_scan", column)]
        if lacks and self.state.model.shrinker_enabled:
            raise CannotFollow(f"zswap_shrinker_scan has no {' and no '.join(lacks)}: which list it walks, and how "
                               f"far, is not known")
        self._walks()
        return batch.memcg[i], batch.nid[i]

    def on_shrink_memcg(self, effect: Effect, i: int, frame: Frame) -> int:
        """Answer with the cgroup that is shrunk."""
        if not self.sees("shrink_memcg", "memcg"):
            raise CannotFollow("shrink_memcg has no memcg: which list it walks is not known")
        self._walks()
        return self.batch.memcg[i]

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
        batch = self.batch
        entry: ZswapEntry = effect[1]
        self.hold("shrink_memcg_cb", i, frame, (batch.entry[i],), (self.lru_item(entry),))
        self.lru.begins_move(entry, batch.pid[i])

    def on_shrink_memcg_ret(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the status of a walk's step, or shrink_memcg()'s result."""
        batch = self.batch
        self.lru.ends_move(batch.pid[i])
        self.hold(effect[0], i, frame, (batch.ret[i],), (effect[1],))
        self.invariants.page_read(i, frame)

    on_shrink_memcg_cb_ret = on_zswap_shrinker_scan_ret = on_shrink_memcg_ret

    def marks(self, event: int) -> None:
        """Report, at the recording's last event, where no folio that was written back was marked for reclaim.

        A page fault that finds such a folio in the swap cache clears the mark, which is PG_readahead too: of one folio
        nothing can be said.
        """
        if self.written_back >= _MANY and not self.marked_for_reclaim:
            self.state.tally.differ(Divergence(
                "writeback.folio", event, "__swap_writepage", 0, f"some of {self.written_back}",
                "folios written back that are marked for reclaim (PG_reclaim), in the whole recording", 0, 0, 0))
