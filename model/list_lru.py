# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of mm/list_lru.c that zswap's LRU uses: one list per cgroup and NUMA node, walked from its head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

from model.branches import Reached
from model.effects import Steps

__all__ = ["LRU_REMOVED_RETRY", "LRU_RETRY", "LRU_ROTATE", "LRU_STOP", "Key", "ListLru"]

#: enum lru_status, the values zswap's callback returns (6.12 to 7.3)
LRU_REMOVED_RETRY: Final = 1
LRU_ROTATE: Final = 2
LRU_RETRY: Final = 4
LRU_STOP: Final = 5

T = TypeVar("T", bound=Hashable)
#: (NUMA node, cgroup)
Key = tuple[int, int]


class ListLru(Generic[T]):
    """struct list_lru: items in order per (node, cgroup), oldest first."""

    def __init__(self, reached: Reached | None = None) -> None:
        self.lists: dict[Key, OrderedDict[T, None]] = {}
        #: how often each branch was taken
        self.reached: Reached = Reached() if reached is None else reached
        #: items that a walk found listed before their list_lru_add() was seen to be done
        self.found_early: set[T] = set()
        #: called with the key of a list that ceases to be empty, or becomes so
        self.observer: Callable[[Key], None] | None = None

    def _observe(self, key: Key) -> None:
        if self.observer is not None:
            self.observer(key)

    def add_early(self, key: Key, item: T) -> None:
        """A walk found an item whose list_lru_add() is under way: it was added."""
        self.add(key, item)
        self.found_early.add(item)

    def add(self, key: Key, item: T) -> bool:
        """list_lru_add(): to the tail; False when it is already listed."""
        if item in self.found_early:
            self.found_early.discard(item)
            return True
        listed = self.lists.get(key)
        if not listed:
            self._observe(key)
        if listed is None:
            listed = self.lists[key] = OrderedDict()
        if item in listed:
            return False
        listed[item] = None
        return True

    def delete(self, key: Key, item: T) -> bool:
        """list_lru_del(): False when it is not listed."""
        listed = self.lists.get(key)
        if listed is None or item not in listed:
            return False
        del listed[item]
        if not listed:
            self._observe(key)
        return True

    def splice(self, source: Key, target: Key) -> list[T]:
        """memcg_reparent_list_lru_one(): a dead cgroup's items go to the head of its parent's list."""
        moved = self.lists.pop(source, None)
        if not moved:
            return []
        self.reached["memcg_reparent_list_lrus.some"] += 1
        for key in (source, target):
            self._observe(key)
        merged: OrderedDict[T, None] = OrderedDict(moved)
        merged.update(self.lists.get(target, {}))
        self.lists[target] = merged
        return list(moved)

    def count(self, key: Key) -> int:
        """list_lru_count_one()"""
        return len(self.lists.get(key, ()))

    def nodes(self, cgroup: int) -> Iterator[int]:
        """Return the nodes on which a cgroup has ever had a list, ascending."""
        return iter(sorted(nid for nid, owner in self.lists if owner == cgroup))

    def walk_one(self, key: Key, callback: Callable[[T], Steps[int]],
                 budget: int) -> Steps[tuple[int, int]]:
        """list_lru_walk_one(): returns (items removed, budget left).

        The budget is lowered before each callback.  After LRU_ROTATE the walk continues with the item that
        followed; a removal or retry starts again at the head, as the list lock was dropped.  Whatever zswap's
        callback returns, it or the walk has moved the item to the tail while the lock was still held.
        """
        removed = 0
        while budget:
            # The callback shows what was at the head once the lock was taken.  An empty list shows in no event.
            found: T | bool | None = yield ("?lru_next", key)
            if found is False:
                break
            listed = self.lists.get(key)
            if found is None and not listed:
                # Up to 7.0 the root cgroup's list has two names: none, and the root cgroup itself.
                other: Key | None = yield ("?lru_list", key)
                if other is None:
                    break
                key = other
                continue
            # All items rotated since the last restart are at the tail, so the item that followed the one just
            # rotated is the head now.  Only a lone item has the list head as its successor.
            item: T = next(iter(self.lists[key])) if found is None else found  # type: ignore[assignment]
            alone = listed is None or all(other is item for other in islice(listed, 2))
            budget -= 1
            if listed is not None and item in listed:
                listed.move_to_end(item)
            status = yield from callback(item)
            if status == LRU_ROTATE:
                more: bool | None = yield ("?lru_more", key)
                if not more if more is not None else alone:
                    self.reached["list_lru_walk_one.alone"] += 1
                    break
            elif status == LRU_STOP:
                break
            elif status == LRU_REMOVED_RETRY:
                removed += 1
        else:
            self.reached["list_lru_walk_one.budget"] += 1
        return removed, budget
