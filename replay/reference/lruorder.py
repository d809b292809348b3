# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of zswap's LRU as walks show it, where additions, removals and moves of other tasks overlap."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from model.effects import Effect
from model.list_lru import Key
from model.zswap import Zswap, ZswapEntry
from replay.reference.state import ReplayState

__all__ = ["LruOrder"]


class LruOrder:
    """What tasks are doing to the lists, and so which orders a walk may find."""

    def __init__(self, state: ReplayState) -> None:
        self.state = state
        self.batch = state.batch
        self.captured = state.captured
        self.sees = state.sees
        #: spans (event of entry, event of return) of list_lru_add() calls that overlapped another
        self.overlaps: dict[ZswapEntry, list[int]] = {}
        #: zswap's list_lru_add() calls that have not returned, and (by ~task) the move that a walk is at
        self.adding: dict[int, tuple[ZswapEntry, int]] = {}
        #: task -> the list that its list_lru_add() is about
        self.adding_to: dict[int, Key] = {}
        #: task -> (entry, list) of a list_lru_del() that has shown and may not have had the list's lock yet
        self.deleting: dict[int, tuple[ZswapEntry, Key | None]] = {}
        #: list -> the last event at which it may have been empty
        self.empty_at: dict[Key, int] = {}
        #: walking task -> whether what other tasks were adding or removing leaves open what followed the entry it is at
        self.walking: dict[int, bool] = {}
        #: how often a walk showed another order than that of the events
        self.reordered = 0
        self.watch(state.model)

    def watch(self, model: Zswap) -> None:
        """Take note of when a model's lists are empty; of a model before it nothing counts any more."""
        for known in (self.overlaps, self.adding, self.adding_to, self.deleting, self.empty_at, self.walking):
            known.clear()
        model.lru.observer = self._emptied

    # ---- what tasks do ----------------------------------------------------------------------------------

    def enters_add(self, entry: ZswapEntry, pid: int, key: Key | None = None) -> None:
        """list_lru_add() of an entry was entered; others that have not returned overlap with it.

        :param key: the list, None for a walk's move
        """
        now = self.batch.now
        for other, began in self.adding.values():
            self.overlaps.setdefault(other, [began, 1 << 62])
            self.overlaps.setdefault(entry, [now, 1 << 62])
        self.adding[pid] = (entry, now)
        if key is not None:
            self.adding_to[pid] = key

    def returns_from_add(self, pid: int) -> None:
        """list_lru_add() returned."""
        now = self.batch.now
        entry, _ = self.adding.pop(pid, (None, 0))
        if entry in self.overlaps:
            self.overlaps[entry][1] = now
        key = self.adding_to.pop(pid, None)
        if key is not None and self._only_coming(key, entry):
            # Where the model advanced it early, the list may have been empty up to here.
            self.empty_at[key] = now

    def enters_del(self, entry: ZswapEntry, pid: int) -> None:
        """list_lru_del() of an entry was entered: up to the task's next event a walk may still find it."""
        self.overlaps.pop(entry, None)
        self.deleting[pid] = (entry, entry.lru)

    def begins_move(self, entry: ZswapEntry, pid: int) -> None:
        """A walk's callback begins: under the list's lock it, or the walk, moves the entry to the tail.

        An addition that is under way on another CPU may land before it or behind it.
        """
        self.overlaps.pop(entry, None)
        # Apart from additions of the same task: a walk that stores nests in no addition, but nor does it end one.
        self.enters_add(entry, ~pid)

    def ends_move(self, pid: int) -> None:
        """The walk released the list's lock."""
        self.returns_from_add(~pid)

    def _emptied(self, key: Key) -> None:
        """A list ceases to be empty, or becomes so."""
        self.empty_at[key] = self.batch.now

    def _only_coming(self, key: Key, but: ZswapEntry | None) -> bool:
        """True where all that is listed, but one entry, are additions under way."""
        listed: Collection[ZswapEntry] = self.state.model.lru.lists.get(key, {})
        if len(listed) > 1 + len(self.adding):
            return False
        coming = {id(entry) for entry, _ in self.adding.values()}
        return all(entry is but or id(entry) in coming for entry in listed)

    # ---- what walks find --------------------------------------------------------------------------------

    def next_entry(self, question: Effect, name: str, i: int) -> ZswapEntry | bool | None:
        """What a walk finds at the head of a list when it has the lock: the callback's entry, or nothing at all.

        None where that is as the model has it, or cannot be.
        """
        batch = self.batch
        key: Key = question[1]
        if "shrink_memcg_cb" not in self.captured:
            return None
        listed = self.state.model.lru.lists.get(key)
        if name != "shrink_memcg_cb":
            # Another task may have listed an entry since; the list must have been empty after the task's last event.
            empty = self.empty_at.get(key, -1) > batch.since_previous(i) or self._only_coming(key, None)
            return False if listed and empty else None
        if not (self.sees(name, "entry") and self.sees("list_lru_add", "entry")):
            return None
        coming = {pid: entry for pid, (entry, _) in self.adding.items() if self.adding_to.get(pid) == key}
        self.walking[batch.pid[i]] = bool(coming) or any(where == key for _, where in self.deleting.values())
        if listed and next(iter(listed)).address == batch.entry[i]:
            return None
        return self._other_order(listed or (), i) or self._moving(key, listed or (), coming, i)

    def continues(self, question: Effect, name: str, i: int) -> bool | None:
        """Whether a walk continues after a rotation, where other tasks were adding to the list or taking off it."""
        if "shrink_memcg_cb" not in self.captured or not self.walking.get(self.batch.pid[i]):
            return None
        return name == "shrink_memcg_cb"

    def _moving(self, key: Key, listed: Iterable[ZswapEntry], coming: dict[int, ZswapEntry],
                i: int) -> ZswapEntry | None:
        """The entry a walk looks at, where another task is just adding it or taking it off."""
        address = self.batch.entry[i]
        for entry, where in self.deleting.values():
            if where == key and entry.address == address:
                return entry
        for pid, entry in coming.items():
            if entry.address == address and pid >= 0 and entry not in listed:
                began = self.adding[pid][1]
                spans = [self.overlaps.get(other) for other in listed]
                if any(span is None or span[1] < began for span in spans):
                    return None
                entry.lru = key
                self.state.model.lru.add_early(key, entry)
                return entry
        return None

    def _other_order(self, listed: Iterable[ZswapEntry], i: int) -> ZswapEntry | None:
        """The entry a walk looks at, when it is not the head but may stand before it: their additions overlapped."""
        address = self.batch.entry[i]
        passed: list[list[int] | None] = []
        for entry in listed:
            if entry.address == address:
                if not passed:
                    return None
                mine = self.overlaps.get(entry)
                if mine is None or any(span is None or span[0] > mine[1] or mine[0] > span[1] for span in passed):
                    return None
                self.reordered += 1
                return entry
            passed.append(self.overlaps.get(entry))
            if passed[-1] is None:
                return None
        return None

    def root_list(self, key: tuple[int, int], name: str, i: int) -> tuple[int, int] | None:
        """Where obj_cgroups of the root do not exist, its entries were listed under no cgroup at all."""
        state = self.state
        other, address = (key[0], 0), self.batch.entry[i]
        if name != "shrink_memcg_cb" or state.model.ROOT_OBJCG or key == other:
            return None
        if any(entry.address == address for entry in state.model.lru.lists.get(other, ())):
            state.root_memcg = key[1]
            return other
        return None
