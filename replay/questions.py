# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model asks of the outside, answered from recorded events; and what order of tasks can explain.

A question of the model (:mod:`model.effects`) is answered by the next event of the same task.  Nothing is
guessed: an answer that the next event does not give is the quiet one, and what then does not fit diverges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from model.effects import DEFAULTS, Effect
from model.errno import ENOMEM
from model.memcg import MemcgZswap
from model.zsmalloc import PAGE_SIZE
from model.zswap import Zswap, ZswapEntry
from replay.checks import Tally
from replay.handlers_base import CannotFollow
from replay.handlers_zswap import Handlers
from replay.predict import Predictions
from replay.snapshots import SnapshotChecks
from traces import schema

__all__ = ["ASKED", "REMEMBERED", "Questions"]

#: How many changes of a total are remembered for readers that lost their CPU.
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


class Questions(Handlers):
    """Answers, and the memory of what tasks that were interrupted may still see."""

    snapshots: SnapshotChecks
    #: number of the batch's first event
    _base: int

    def __init__(self, model: Zswap, tally: Tally, predictions: Predictions) -> None:
        super().__init__(model, tally, predictions)
        #: (event, pages of each pool before the change that followed) of the last changes
        self.totals: deque[tuple[int, list[int]]] = deque(maxlen=REMEMBERED)
        model.total_observer = self._total_changes
        model.account_observer = self._account_changes
        #: zswap's list_lru_add() calls that have not returned, and (by ~task) the move that a walk is at
        self.adding: dict[int, tuple[ZswapEntry, int]] = {}
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
            "?zspage_write_trylock": lambda question, name, i: name in _TAKES,
            "?new_zspage": lambda question, name, i: name in _TAKES and self.sees(name, "zspage")
            and self._is_new(self.zspage[i]),
            "?lru_next": lambda question, name, i: self._other_order(question[1], name, i),
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
        """Find out which failures the recording's counters rule out altogether; ask for the others."""
        for question, counter, answer in (("?entry_alloc", "reject_kmemcache_fail", self._entry_alloc),
                                          ("?xa_store", "reject_alloc_fail", self._xa_store)):
            if self.snapshots.last_value(counter):
                self._answers[question] = answer
            else:
                self.constant[question] = DEFAULTS[question]
        if not self.sees_zspage_free():
            # Nothing to come will tell: go on, as the kernel has most likely done.
            self.constant["?trylock_zspage"] = True

    def resolve(self, question: Effect, name: str, i: int) -> Any:
        """Answer a question from the next event of the same task."""
        self.asked.add(question[0])
        answer = self._answers.get(question[0])
        return answer(question, name, i) if answer is not None else DEFAULTS[question[0]]

    def _writeout(self, name: str) -> str:
        """What became of a folio that swap_writeout() was given: the task's next event tells."""
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
        """Whether writeback was allowed, which was not captured: the model's own answer, or what happens next tells."""
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
            # Which error it is shows in no event: too large a size is the model's to know.
            return ENOMEM if failed else 0
        handle = self.handle[i]
        return handle - (1 << 64) if name == "zs_malloc_ret" and handle > (1 << 64) - PAGE_SIZE else 0

    def _entry_alloc(self, question: Effect, name: str, i: int) -> bool:
        # A failed slab allocation leaves no event: the counter has to vouch for it.
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
        """Compare in which order the worker comes to cgroups; where one may go away unseen, nothing tells."""
        _, cgroup, in_order = question
        if in_order is None or "memcg_reparent_list_lrus" not in self.captured:
            return
        predicted = cgroup
        if not in_order:
            came = [hex(each) for each in self.model.worker.current]
            predicted = f"none of {', '.join(came)}, and none that the pass before came to earlier"
        self.hold("shrink_memcg", i, self.stacks[self.pid[i]][-1], (cgroup,), (predicted,))

    def sees_zspage_free(self) -> bool:
        """True when the recorded kernel frees zspages in a function that was probed everywhere it happens."""
        return "__free_zspage" in self.captured

    # ---- readers that are older than what they read -----------------------------------------------------

    def _total_changes(self) -> None:
        self.totals.append((self.now, [pool.zs_pool.pages_allocated for pool in self.model.pools]))

    def _account_changes(self, account: MemcgZswap) -> None:
        self.snapshots.remember(self.now, account)

    def since_previous(self, i: int) -> int:
        """Return the number of the event before the one at hand of the same task, as far as the batch goes back.

        A task that lost its CPU between reading a value and the probe that shows it has read what stood at any
        moment since then.
        """
        pid = self.pid[i]
        for row in range(i - 1, -1, -1):
            if self.pid[row] == pid:
                return self._base + row
        return self._base

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

    def lru_moving(self, entry: ZswapEntry, pid: int) -> None:
        """A walk's callback begins: under the list's lock it, or the walk, moves the entry to the tail.

        An addition that is under way on another CPU may come to be before it or behind it.
        """
        self.overlaps.pop(entry, None)
        # Apart from additions of the same task: a walk that stores nests in no addition, but nor does it end one.
        self.lru_adding(entry, ~pid)

    def lru_moved(self, pid: int) -> None:
        """The lock was let go."""
        self.lru_added(~pid)

    def _other_order(self, listed: Iterable[ZswapEntry], name: str, i: int) -> ZswapEntry | None:
        """The entry a walk looks at, when it is not the head but may stand before it: their additions overlapped."""
        if name != "shrink_memcg_cb":
            return None
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
