# SPDX-License-Identifier: GPL-2.0-or-later
"""Compactions as recorded events show them: of which pool, and which locks other tasks may have held meanwhile."""

from __future__ import annotations

from typing import Final

from model.effects import Effect
from model.zsmalloc import SizeClass, Zspage, ZsPool
from replay.reference.frame import Frame
from replay.reference.state import ReplayState

__all__ = ["MOVING", "Compactions"]

#: Events by which a compaction that has begun may show which pool it is about.
_COMPACTING: Final = frozenset({"zs_compact", "__zs_compact", "__zs_compact_ret", "obj_malloc"})
#: what compaction shows while it moves objects
MOVING: Final = frozenset({"obj_malloc", "obj_malloc_ret", "obj_free", "__free_zspage"})
#: what shows that zs_compact() has the pool to itself, its entries, and its returns
_CLASS: Final = "__zs_compact"
_COMPACTORS: Final = frozenset({"zs_compact", "zs_shrinker_scan"})
_COMPACTED: Final = frozenset(f"{name}_ret" for name in _COMPACTORS)
#: at these events a task is about to ask for a pool's lock
_WAITERS: Final = frozenset({"zs_obj_read", "zs_obj_write", "zs_free", "zs_page_migrate"})
#: after these effects a task may hold a zspage's reader lock until its next event
_READERS: Final = frozenset({"zs_obj_read", "zs_obj_write", "crypto_acomp_decompress", "crypto_acomp_decompress_ret"})


class Compactions:
    """Which pool a compaction is about, and what the model asks of one that other tasks come by."""

    def __init__(self, state: ReplayState) -> None:
        self.state = state
        self.batch = state.batch
        self.captured = state.captured
        self.sees = state.sees
        #: compacting task -> its last event before it had the class lock again
        self.resumed: dict[int, int] = {}
        #: the last event at which a compaction of any pool returned
        self.last_returned = -1

    def pool_of(self, pid: int, i: int) -> ZsPool:
        """Return the pool that a compaction is about.

        Every zs_pool has a shrinker of its own (zs_register_shrinker()), also one whose zswap_pool is no longer
        current.  The probes of zs_shrinker_scan() and zs_compact() show the pool; where neither does, a size class of
        it or an object that moves in it does.
        """
        batch, state = self.batch, self.state
        pools = [pool.zs_pool for pool in state.model.pools]
        unbound = [pool for pool in pools if not pool.address]
        for row in range(i, len(batch.event)):
            if batch.pid[row] != pid:
                continue
            name = batch.name(row)
            if row > i and name not in _COMPACTING:
                break
            owner = None
            if name in ("zs_shrinker_scan", "zs_compact"):
                address = batch.pool[row]
                owner = next((pool for pool in pools if pool.address == address != 0), None)
                if owner is None and address and len(unbound) <= 1:
                    # A pool without a name yet; or one that holds nothing any more, on its way out.
                    return unbound[0] if unbound else ZsPool(state.model.chain_size)
            elif name == "__zs_compact":
                owner = self._owner(state.classes.get(batch.pool[row]))
            elif name == "obj_malloc" and batch.handle[row] in state.objects:
                owner = self._owner(state.objects[batch.handle[row]].zspage.cls)
            if owner is not None:
                return owner
        return state.current_zs_pool()

    def _owner(self, cls: SizeClass | None) -> ZsPool | None:
        return next((pool.zs_pool for pool in self.state.model.pools if cls in pool.zs_pool.classes), None)

    def ends_class(self, question: Effect, name: str, i: int) -> bool:
        """Whether compaction was done with a class when it had the lock; what it moves shows under the lock."""
        batch = self.batch
        self.resumed[batch.pid[i]] = batch.since_previous(i)
        return name not in MOVING and bool(MOVING & self.captured) and bool(question[1].was_idle)

    def is_read(self, zspage: Zspage, i: int) -> bool:
        """True where another task may have held a zspage's reader lock since the task's previous event.

        zspage_write_trylock() fails for no other reason.
        """
        batch = self.batch
        if not {"zs_obj_read", "zs_obj_write"} <= self.captured:
            return True
        me = batch.pid[i]
        for pid, stack in self.state.stacks.items():
            if pid != me and any(frame.last[0] in _READERS and self._class_read(frame) in (None, zspage.cls)
                                 for frame in stack):
                return True
        since = batch.since_previous(i)
        if since < batch.base:
            return True
        # What ended before this event: which object it was about may no longer be known.
        for row in range(i - 1, since - batch.base, -1):
            if batch.pid[row] != me and batch.name(row) in _READERS:
                obj = self.state.objects.get(batch.handle[row])
                if obj is None or obj.zspage.cls is zspage.cls:
                    return True
        return False

    def contended(self, question: Effect, name: str, i: int) -> bool:
        """Whether compaction put its target back because another task waited for the pool's lock.

        The fullness bits of the target show it: they are set right only then, and obj_malloc()'s return has them.
        """
        return name == "obj_malloc_ret" and self.sees(name, "word") \
            and self.batch.word[i] >> 1 & 15 == question[2] and self._waits(i)

    def _waits(self, i: int) -> bool:
        """True where another task may have waited for a pool's lock since the task released its class's lock."""
        batch = self.batch
        me = batch.pid[i]
        if any(frame.last[0] in _WAITERS for pid, stack in self.state.stacks.items() if pid != me for frame in stack):
            return True
        since = self.resumed[me]
        return since < batch.base or not self.captured >= _WAITERS \
            or any(batch.pid[row] != me and batch.name(row) in _WAITERS
                   for row in range(i - 1, since - batch.base, -1))

    @staticmethod
    def _class_read(frame: Frame) -> SizeClass | None:
        obj = frame.handed.held
        return obj.zspage.cls if obj is not None else None

    def under_way(self, question: Effect, name: str, i: int) -> bool | None:
        """Whether zs_compact() found another one under way; None where that is as the model has it.

        The flag is taken after the probe at the function's entry, and given back before the one at its return.
        """
        batch = self.batch
        pool: ZsPool = question[1]
        if name not in _COMPACTED and name != _CLASS:
            return None
        me = batch.pid[i]
        others = [frame for pid, stack in self.state.stacks.items() if pid != me
                  for frame in stack if frame.handed.compacts is pool]
        if name != _CLASS:
            return True if others or self.last_returned > batch.since_previous(i) else None
        sure = [frame for frame in others if frame.last[0] not in _COMPACTORS
                and (frame.last[0] != "__zs_compact_ret" or frame.handed.size_class is not pool.classes[-1])]
        return None if sure else False
