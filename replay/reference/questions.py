# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model asks of the outside, answered from recorded events; and what order of tasks can explain.

A question of the model (:mod:`model.effects`) is answered by the next event of the same task.  Nothing is
guessed: an answer that the next event does not give is the quiet one, and what then does not fit diverges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from model.cgroups import EITHER, Cgroup
from model.effects import DEFAULTS, Effect
from model.errno import ENOMEM
from model.list_lru import Key
from model.memcg import MemcgZswap
from model.page import PAGE_SIZE
from model.zsmalloc import SizeClass, Zspage, ZsPool
from model.zswap import Zswap, ZswapEntry
from replay.reference.checks import Tally
from replay.reference.frame import Frame
from replay.reference.handlers.base import CannotFollow
from replay.reference.handlers.zswap import Handlers
from replay.reference.predictions import Predictions
from replay.reference.settings import CHANGING, CLOSE, UNSAID, WHOSE, Settings
from replay.reference.snapshots import SnapshotChecks
from traces import schema

__all__ = ["ASKED", "REMEMBERED", "Questions"]

#: How many changes of a total are remembered for readers that were preempted.
REMEMBERED: Final = 1 << 14

Answer = Callable[[Effect, str, int], Any]

#: Effects that the model wants an answer to, which other events can give where theirs was not captured.
ASKED: Final = frozenset({"crypto_acomp_compress_ret", "obj_cgroup_may_zswap_ret",
                          "mem_cgroup_zswap_writeback_enabled_ret"})
#: An object is taken from a zspage.
_TAKES: Final = frozenset({"obj_malloc", "obj_malloc_ret"})
#: A store is over.
_STORE_RETURNS: Final = frozenset({schema.CODE["zswap_store_ret"], schema.CODE["swap_writeout_ret"]})
#: What follows where writeback is not allowed.
_REFUSED: Final = frozenset({"zswap_store_ret", "swap_writeout_ret", "shrink_memcg_ret", "zswap_shrinker_scan_ret"})
#: An entry and its object end.
_OF_AN_END: Final = frozenset({"zswap_entry_free", "list_lru_del", "zs_free", "obj_free", "fix_fullness_group",
                               "fix_fullness_group_ret", "__free_zspage", "obj_cgroup_uncharge_zswap"})
#: What a store that has begun shows next.
_OF_A_STORE: Final = frozenset({"obj_cgroup_may_zswap_ret", "mem_cgroup_zswap_writeback_enabled_ret", "shrink_memcg",
                                "zs_get_total_pages_ret", "crypto_acomp_compress", "crypto_acomp_compress_ret",
                                "zs_malloc", "zs_malloc_ret", "obj_malloc", "obj_malloc_ret", "zs_obj_write",
                                "zs_obj_read", "list_lru_add", "list_lru_add_ret", "obj_cgroup_charge_zswap",
                                "zswap_store_ret", "__swap_writepage", *_OF_AN_END})
#: what compaction shows while it moves objects
_MOVING: Final = frozenset({"obj_malloc", "obj_malloc_ret", "obj_free", "__free_zspage"})
#: what shows that zs_compact() has the pool to itself, its entries, and its returns
_CLASS: Final = "__zs_compact"
_COMPACTORS: Final = frozenset({"zs_compact", "zs_shrinker_scan"})
_COMPACTED: Final = frozenset(f"{name}_ret" for name in _COMPACTORS)
#: at these events a task is about to ask for a pool's lock
_WAITERS: Final = frozenset({"zs_obj_read", "zs_obj_write", "zs_free", "zs_page_migrate"})
#: after these effects a task may hold a zspage's reader lock until its next event
_READERS: Final = frozenset({"zs_obj_read", "zs_obj_write", "crypto_acomp_decompress", "crypto_acomp_decompress_ret"})


class Questions(Handlers):
    """Answers, and the memory of what tasks that were interrupted may still see."""

    snapshots: SnapshotChecks
    settings: Settings
    #: task -> what counters changed when it was advanced from its last event
    unsure: dict[int, dict[str, int]]
    #: number of the batch's first event
    _base: int

    def __init__(self, model: Zswap, tally: Tally, predictions: Predictions) -> None:
        super().__init__(model, tally, predictions)
        #: task -> number of its last event, of tasks seen in the batches before this one
        self.last_seen: dict[int, int] = {}
        self._loaded = 0
        #: compacting task -> its last event before it had the class lock again
        self.resumed: dict[int, int] = {}
        #: (event, pages of each pool before the change that followed) of the last changes
        self.totals: deque[tuple[int, list[int]]] = deque(maxlen=REMEMBERED)
        model.total_observer = self._total_changes
        model.account_observer = self._account_changes
        #: (event, account, bytes before the change that followed) of the last changes of what cgroups are charged
        self.charges: deque[tuple[int, MemcgZswap, int]] = deque(maxlen=REMEMBERED)
        model.lru.observer = self.lru_empty
        #: zswap's list_lru_add() calls that have not returned, and (by ~task) the move that a walk is at
        self.adding: dict[int, tuple[ZswapEntry, int]] = {}
        #: task -> (entry, list) of a list_lru_del() that has shown and may not have had the list's lock yet
        self.deleting: dict[int, tuple[ZswapEntry, Key | None]] = {}
        #: list -> the last event at which it may have been empty
        self.empty_at: dict[Key, int] = {}
        #: walking task -> whether what other tasks were adding or removing leaves open what followed the entry it is at
        self.walking: dict[int, bool] = {}
        self.reordered = 0
        self._answers: dict[str, Answer] = {
            "?zs_malloc": lambda question, name, i: self._zs_malloc_error(name, i),
            "?crypto_acomp_compress_ret": self.compress_result,
            "?obj_cgroup_may_zswap_ret": self._may_zswap_unseen,
            "?mem_cgroup_zswap_writeback_enabled_ret": self._enabled_unseen,
            "?trylock_zspage": lambda question, name, i: name == "__free_zspage" or not self.sees_zspage_free(),
            "?swap_writeout": lambda question, name, i: self._writeout(name),
            "?objcg": lambda question, name, i: self._has_objcg(name, i),
            "?swapcache": lambda question, name, i: self._frees_what_it_loaded(name),
            "?swap_cache_alloc": lambda question, name, i: self._writeback_error(name, i),
            "?memcg_online": lambda question, name, i: name != "shrink_memcg_ret",
            "?zspage_write_trylock": lambda question, name, i: name in _MOVING or not self.is_read(question[1], i),
            "?compacting": self._compacting,
            "?contended": self._contended,
            "?compact_end": self._compact_end,
            "?new_zspage": lambda question, name, i: name in _TAKES and self.sees(name, "zspage")
            and self._is_new(self.zspage[i]),
            "?shrinker_enabled": lambda question, name, i: name != "zswap_shrinker_scan_ret",
            "?lru_next": self._lru_next,
            "?lru_more": self._lru_more,
            "?lru_list": lambda question, name, i: self._root_list(question[1], name, i),
            "?pool_listed": lambda question, name, i: name == "zs_get_total_pages_ret",
            "?sg_length": self.sg_length,
            "?acomp_batch": self.acomp_batch,
            "?shrink_order": self._shrink_order,
            "?shrink_next": lambda question, name, i: self._shrunk_next(name, i),
        }
        #: questions that were answered from recorded events
        self.asked: set[str] = set()
        #: questions whose answer is the same throughout the recording
        self.constant: dict[str, Any] = {}

    def settle_questions(self) -> None:
        """Find out which failures the recording's counters rule out; ask for the others."""
        for question, counter, answer in (("?entry_alloc", "reject_kmemcache_fail", self._entry_alloc),
                                          ("?xa_store", "reject_alloc_fail", self._xa_store)):
            if self.snapshots.last_value(counter):
                self._answers[question] = answer
            else:
                self.constant[question] = DEFAULTS[question]
        if not self.sees_zspage_free():
            # No later event shows it: continue, as the kernel has most likely done.
            self.constant["?trylock_zspage"] = True
        if "obj_free" not in self.captured:
            self.constant["?class_lock"] = None

    def resolve(self, question: Effect, name: str, i: int) -> Any:
        """Answer a question from the next event of the same task."""
        answer = self._answers.get(question[0])
        given = answer(question, name, i) if answer is not None else DEFAULTS[question[0]]
        # Under which name a list is kept is asked of every empty one, and decides only where there is another.
        if question[0] != "?lru_list" or given is not None:
            self.asked.add(question[0])
        return given

    def _writeout(self, name: str) -> str:
        """What became of a folio that swap_writeout() was given: the task's next event shows it."""
        if name == "zswap_invalidate":
            return "free"
        if "swap_writeout_ret" in self.captured:
            return "zero" if name == "swap_writeout_ret" else "store"
        # Its return was not probed: where no store follows, it has returned.
        follows = {"zswap_store"} if "zswap_store" in self.captured else _OF_A_STORE
        return "store" if name in follows else "zero"

    def _has_objcg(self, name: str, i: int) -> bool:
        """Whether a folio has an obj_cgroup: it is asked about its limit, or else its pages are charged."""
        if "obj_cgroup_may_zswap_ret" in self.captured:
            return name == "obj_cgroup_may_zswap_ret"
        if "obj_cgroup_charge_zswap" in self.captured:
            charged, stored = (self._event_ahead(i, event, 0, _STORE_RETURNS)
                               for event in ("obj_cgroup_charge_zswap", "list_lru_add"))
            return charged is not None or stored is None
        return True

    def _may_zswap_unseen(self, question: Effect, name: str, i: int) -> bool | None:
        """Whether obj_cgroup_may_zswap() allowed a store, whose answer was not captured: only a refusal shrinks."""
        if name == "shrink_memcg":
            return False
        if "shrink_memcg" in self.captured or question[1] is not None:
            return True if "shrink_memcg" in self.captured else None
        self.guess("neither obj_cgroup_may_zswap_ret nor shrink_memcg was captured: whether memory.zswap.max allowed a "
                   "store is not known")
        return True

    def _enabled_unseen(self, question: Effect, name: str, i: int) -> bool:
        """Whether writeback was allowed, which was not captured: the model's own answer, or the next event's."""
        expected: bool | None = question[1]
        return name not in _REFUSED if expected is None else expected

    def _shrunk_next(self, name: str, i: int) -> int | None:
        """The cgroup that the worker shrinks next, None where a pass over all of them is over."""
        if "shrink_memcg" not in self.captured:
            raise CannotFollow("shrink_memcg was not captured: which cgroups the worker shrinks is not known")
        return self.memcg[i] if name == "shrink_memcg" else None

    def _frees_what_it_loaded(self, name: str) -> bool:
        """False where a load read past the swap cache, and so left its entry: nothing follows but its return."""
        return name in _OF_AN_END if "zswap_load_ret" not in self.captured else name != "zswap_load_ret"

    def _zs_malloc_error(self, name: str, i: int) -> int:
        if "zs_malloc_ret" not in self.captured or not self.sees("zs_malloc_ret", "handle"):
            if _TAKES & self.captured:
                failed = name not in _TAKES
            else:
                source = self._length_source()
                failed = source in ("zs_obj_write", "obj_cgroup_charge_zswap") \
                    and self._event_ahead(i, source, 0) is None
            # No event shows which error it is: the model knows whether a size is too large.
            return ENOMEM if failed else 0
        handle = self.handle[i]
        return handle - (1 << 64) if name == "zs_malloc_ret" and handle > (1 << 64) - PAGE_SIZE else 0

    def _entry_alloc(self, question: Effect, name: str, i: int) -> bool:
        # A failed slab allocation leaves no event: the counter has to show it.
        left = self.snapshots.last_value("reject_kmemcache_fail") - self.model.counters.reject_kmemcache_fail
        return not (name in ("zswap_store_ret", "zswap_entry_free") and left > 0)

    def _xa_store(self, question: Effect, name: str, i: int) -> int:
        return ENOMEM if name == "zs_free" else 0

    def _writeback_error(self, name: str, i: int) -> int:
        return 0 if name in ("zswap_decompress", "zs_obj_read") else self.writeback_failure(name, i)

    def _is_new(self, address: int) -> bool:
        known = self.zspages.get(address)
        return known is None or not known.inuse

    def _shrink_order(self, question: Effect, name: str, i: int) -> None:
        """Compare in which order the worker visits cgroups; where one may go away unseen, nothing shows it."""
        _, cgroup, in_order = question
        if in_order is None or "memcg_reparent_list_lrus" not in self.captured:
            return
        predicted = cgroup
        if not in_order:
            came = [hex(each) for each in self.model.worker.current]
            predicted = f"none of {', '.join(came)}, and none that the pass before visited earlier"
        self.hold("shrink_memcg", i, self.stacks[self.pid[i]][-1], (cgroup,), (predicted,))

    def sees_zspage_free(self) -> bool:
        """True when the recorded kernel frees zspages in a function that was probed everywhere it happens."""
        return "__free_zspage" in self.captured

    # ---- compaction ---------------------------------------------------------------------------------------

    def _compact_end(self, question: Effect, name: str, i: int) -> bool:
        """Whether compaction was done with a class when it had the lock; what it moves shows under the lock."""
        self.resumed[self.pid[i]] = self.since_previous(i)
        return name not in _MOVING and bool(_MOVING & self.captured) and bool(question[1].was_idle)

    def is_read(self, zspage: Zspage, i: int) -> bool:
        """True where another task may have held a zspage's reader lock since the task's previous event.

        zspage_write_trylock() fails for no other reason.
        """
        if not {"zs_obj_read", "zs_obj_write"} <= self.captured:
            return True
        me = self.pid[i]
        for pid, stack in self.stacks.items():
            if pid != me and any(frame.last[0] in _READERS and self._class_read(frame) in (None, zspage.cls)
                                 for frame in stack):
                return True
        since = self.since_previous(i)
        if since < self._base:
            return True
        # What ended before this event: which object it was about may no longer be known.
        for row in range(i - 1, since - self._base, -1):
            if self.pid[row] != me and schema.NAMES[self.event[row]] in _READERS:
                obj = self.objects.get(self.handle[row])
                if obj is None or obj.zspage.cls is zspage.cls:
                    return True
        return False

    def _contended(self, question: Effect, name: str, i: int) -> bool:
        """Whether compaction put its target back because another task waited for the pool's lock.

        The fullness bits of the target show it: they are set right only then, and obj_malloc()'s return has them.
        """
        return name == "obj_malloc_ret" and self.sees(name, "word") \
            and self.word[i] >> 1 & 15 == question[2] and self._waits(i)

    def _waits(self, i: int) -> bool:
        """True where another task may have waited for a pool's lock since the task released its class's lock."""
        me = self.pid[i]
        if any(frame.last[0] in _WAITERS for pid, stack in self.stacks.items() if pid != me for frame in stack):
            return True
        since = self.resumed[me]
        return since < self._base or not self.captured >= _WAITERS \
            or any(self.pid[row] != me and schema.NAMES[self.event[row]] in _WAITERS
                   for row in range(i - 1, since - self._base, -1))

    @staticmethod
    def _class_read(frame: Frame) -> SizeClass | None:
        obj = frame.handed.held
        return obj.zspage.cls if obj is not None else None

    def _compacting(self, question: Effect, name: str, i: int) -> bool | None:
        """Whether zs_compact() found another one under way; None where that is as the model has it.

        The flag is taken after the probe at the function's entry, and given back before the one at its return.
        """
        pool: ZsPool = question[1]
        if name not in _COMPACTED and name != _CLASS:
            return None
        me = self.pid[i]
        others = [frame for pid, stack in self.stacks.items() if pid != me
                  for frame in stack if frame.handed.compacts is pool]
        if name != _CLASS:
            return True if others or self.last_compacted > self.since_previous(i) else None
        sure = [frame for frame in others if frame.last[0] not in _COMPACTORS
                and (frame.last[0] != "__zs_compact_ret" or frame.handed.size_class is not pool.classes[-1])]
        return None if sure else False

    # ---- readers that are older than what they read -----------------------------------------------------

    def _total_changes(self) -> None:
        self.totals.append((self.now, [pool.zs_pool.pages_allocated for pool in self.model.pools]))

    def _account_changes(self, account: MemcgZswap) -> None:
        self.charges.append((self.now, account, account.zswap))
        self.snapshots.remember(self.now, account)

    def since_previous(self, i: int) -> int:
        """Return the number of the event before the one at hand of the same task, 0 where it has shown none.

        A task that was preempted between reading a value and the probe that shows it has read the value of any
        moment since then.
        """
        pid = self.pid[i]
        for row in range(i - 1, -1, -1):
            if self.pid[row] == pid:
                return self._base + row
        return self.last_seen.get(pid, 0)

    def earlier_totals(self, i: int) -> set[int]:
        """Return the totals of any pool since the task's previous event, that of now included."""
        since = self.since_previous(i)
        now = {pool.zs_pool.pages_allocated for pool in self.model.pools}
        return now | {pages for event, pools in self.totals if event >= since for pages in pools}

    def earlier_verdicts(self, i: int, limit: int) -> set[bool]:
        """Return what obj_cgroup_may_zswap() would have said at any moment since the task's previous event."""
        since = self.since_previous(i)
        return {limit > 0 and account.zswap // PAGE_SIZE < limit
                for account in self.snapshots.accounts_since(since)}

    # ---- whose setting decides ---------------------------------------------------------------------------

    def limit_answers(self, i: int) -> tuple[frozenset[bool], str]:
        """Return what obj_cgroup_may_zswap() may say at an event that names a mem_cgroup, and why it may be either."""
        settings = self.settings
        cgroup = settings.node_of.get(self.pool[i])
        if cgroup is None:
            # What its obj_cgroup's address was charged to before need not be it.
            settings.of_objcg.pop(self.memcg[i], None)
            return EITHER, WHOSE
        settings.of_objcg[self.memcg[i]] = cgroup
        since = self.since_previous(i)
        if settings.leaving or settings.changed >= since:
            return EITHER, CHANGING
        answers = settings.cgroups.may_zswap(cgroup, lambda at: self._held(at, since))
        return answers, CLOSE if settings.static(cgroup, self.model)[0] == -2 else UNSAID

    def writeback_answers(self, i: int) -> tuple[frozenset[bool], str]:
        """The same of mem_cgroup_zswap_writeback_enabled() and the mem_cgroup that an event names."""
        settings, enabled = self.settings, self.settings.enabled(self.model)
        sees = self.sees("mem_cgroup_zswap_writeback_enabled_ret", "memcg")
        if enabled == {False} or (sees and not self.memcg[i]):
            return frozenset({True}), ""
        cgroup = settings.node_of.get(self.memcg[i]) if sees else None
        if cgroup is None:
            return EITHER, WHOSE
        if settings.changed >= self.since_previous(i):
            return EITHER, CHANGING
        answers = settings.cgroups.writeback_enabled(cgroup)
        if len(enabled) > 1:
            answers |= {True}
        return answers, UNSAID

    def _held(self, cgroup: Cgroup, since: int) -> tuple[int, int]:
        """Return the least and the most bytes that a cgroup and those below it were charged since an event.

        A charge is counted somewhere between its event and the next one of its task.
        """
        if not self.sees("obj_cgroup_charge_zswap", "memcg") or not self.sees("obj_cgroup_uncharge_zswap", "memcg"):
            # Which cgroup is charged how much was not recorded.
            return 0, 1 << 62
        before: dict[MemcgZswap, list[int]] = {}
        for event, account, zswap in reversed(self.charges):
            if event < since:
                break
            before.setdefault(account, []).append(zswap)
        low = high = 0
        for objcg, account in self.model.memcgs.items():
            whose = self.settings.cgroup_of(objcg, self.memcg_of)
            if whose is None or whose.is_below(cgroup):
                values = (account.zswap, *before.get(account, ()))
                low += min(values) if whose is not None else 0
                high += max(values)
        for stack in self.stacks.values():
            for frame in stack:
                if frame.effect is not None:
                    continue
                if frame.last[0] == "obj_cgroup_charge_zswap":
                    high += frame.last[1]
                elif frame.last[0] == "obj_cgroup_uncharge_zswap":
                    low -= frame.last[1].length
        # A task that was advanced has counted in the model what it may not have counted yet.
        return max(0, low - PAGE_SIZE * len(self.unsure)), high + PAGE_SIZE * len(self.unsure)

    # ---- the LRU as walks show it ------------------------------------------------------------------------

    def lru_adding(self, entry: ZswapEntry, pid: int) -> None:
        """list_lru_add() of an entry was entered; others that have not returned overlap with it."""
        for other, began in self.adding.values():
            self.overlaps.setdefault(other, [began, 1 << 62])
            self.overlaps.setdefault(entry, [self.now, 1 << 62])
        self.adding[pid] = (entry, self.now)

    def lru_added(self, pid: int) -> None:
        """It returned."""
        entry, _ = self.adding.pop(pid, (None, 0))
        if entry in self.overlaps:
            self.overlaps[entry][1] = self.now
        key = self.adding_to.pop(pid, None)
        if key is not None and self._only_coming(key, entry):
            # Where the model advanced it early, the list may have been empty up to here.
            self.empty_at[key] = self.now

    def _only_coming(self, key: Key, but: ZswapEntry | None) -> bool:
        """True where all that is listed, but one entry, are additions under way."""
        listed: Collection[ZswapEntry] = self.model.lru.lists.get(key, {})
        if len(listed) > 1 + len(self.adding):
            return False
        coming = {id(entry) for entry, _ in self.adding.values()}
        return all(entry is but or id(entry) in coming for entry in listed)

    def lru_empty(self, key: Key) -> None:
        """A list ceases to be empty, or becomes so."""
        self.empty_at[key] = self.now

    def lru_deleting(self, entry: ZswapEntry, pid: int) -> None:
        """list_lru_del() of an entry was entered: up to the task's next event a walk may still find it."""
        self.deleting[pid] = (entry, entry.lru)

    def lru_moving(self, entry: ZswapEntry, pid: int) -> None:
        """A walk's callback begins: under the list's lock it, or the walk, moves the entry to the tail.

        An addition that is under way on another CPU may land before it or behind it.
        """
        self.overlaps.pop(entry, None)
        # Apart from additions of the same task: a walk that stores nests in no addition, but nor does it end one.
        self.lru_adding(entry, ~pid)

    def lru_moved(self, pid: int) -> None:
        """The lock was released."""
        self.lru_added(~pid)

    def _lru_next(self, question: Effect, name: str, i: int) -> ZswapEntry | bool | None:
        """What a walk finds at the head of a list when it has the lock: the callback's entry, or nothing at all.

        None where that is as the model has it, or cannot be.
        """
        key: Key = question[1]
        if "shrink_memcg_cb" not in self.captured:
            return None
        listed = self.model.lru.lists.get(key)
        if name != "shrink_memcg_cb":
            # Another task may have listed an entry since; the list must have been empty after the task's last event.
            empty = self.empty_at.get(key, -1) > self.since_previous(i) or self._only_coming(key, None)
            return False if listed and empty else None
        if not (self.sees(name, "entry") and self.sees("list_lru_add", "entry")):
            return None
        coming = {pid: entry for pid, (entry, _) in self.adding.items() if self.adding_to.get(pid) == key}
        self.walking[self.pid[i]] = bool(coming) or any(where == key for _, where in self.deleting.values())
        if listed and next(iter(listed)).address == self.entry[i]:
            return None
        return self._other_order(listed or (), i) or self._moving(key, listed or (), coming, i)

    def _lru_more(self, question: Effect, name: str, i: int) -> bool | None:
        """Whether a walk continues after a rotation, where other tasks were adding to the list or taking off it."""
        if "shrink_memcg_cb" not in self.captured or not self.walking.get(self.pid[i]):
            return None
        return name == "shrink_memcg_cb"

    def _moving(self, key: Key, listed: Iterable[ZswapEntry], coming: dict[int, ZswapEntry],
                i: int) -> ZswapEntry | None:
        """The entry a walk looks at, where another task is just adding it or taking it off."""
        address = self.entry[i]
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
                self.model.lru.add_early(key, entry)
                return entry
        return None

    def _other_order(self, listed: Iterable[ZswapEntry], i: int) -> ZswapEntry | None:
        """The entry a walk looks at, when it is not the head but may stand before it: their additions overlapped."""
        address = self.entry[i]
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

    def _root_list(self, key: tuple[int, int], name: str, i: int) -> tuple[int, int] | None:
        """Where obj_cgroups of the root do not exist, its entries were listed under no cgroup at all."""
        other, address = (key[0], 0), self.entry[i]
        if name != "shrink_memcg_cb" or self.model.ROOT_OBJCG or key == other:
            return None
        if any(entry.address == address for entry in self.model.lru.lists.get(other, ())):
            self.root_memcg = key[1]
            return other
        return None
