# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model asks of the outside, answered from recorded events.

A question of the model (:mod:`model.effects`) is answered by the next event of the same task.  Nothing is
guessed: an answer that the next event does not give is the quiet one, and what then does not fit diverges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from model.effects import DEFAULTS, Effect
from model.errno import ENOMEM
from model.page import PAGE_SIZE
from model.zswap import Folio
from replay.reference.compactions import MOVING, Compactions
from replay.reference.comparer import Comparer
from replay.reference.frame import Frame
from replay.reference.handlers.acomp import AcompHandlers
from replay.reference.invariants import Invariants
from replay.reference.lookahead import Lookahead
from replay.reference.lruorder import LruOrder
from replay.reference.state import UNKNOWN_CGROUP, CannotFollow, ReplayState
from traces import schema

__all__ = ["ASKED", "Questions"]

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
#: pages; what a reader that was preempted may be off by, and far more
_NEAR: Final = 512


class Questions:
    """Answers the model's questions from the task's next event, and effects whose events were not captured."""

    def __init__(self, state: ReplayState, comparer: Comparer, invariants: Invariants, acomp: AcompHandlers,
                 lookahead: Lookahead, lru: LruOrder, compactions: Compactions) -> None:
        self.state = state
        self.batch = batch = state.batch
        self.captured = state.captured
        self.sees, self.guess = state.sees, state.guess
        self.comparer = comparer
        self.invariants = invariants
        self.lookahead = lookahead
        #: effects that other events have to answer
        self.elsewhere = ASKED - self.captured
        self._answers: dict[str, Answer] = {
            "?zs_malloc": lambda question, name, i: self._zs_malloc_error(name, i),
            "?crypto_acomp_compress_ret": acomp.compress_result,
            "?obj_cgroup_may_zswap_ret": self._may_zswap_unseen,
            "?mem_cgroup_zswap_writeback_enabled_ret": self._enabled_unseen,
            "?trylock_zspage": lambda question, name, i: name == "__free_zspage" or not state.sees_zspage_free(),
            "?swap_writeout": lambda question, name, i: self._writeout(question[1], name),
            "?objcg": lambda question, name, i: self._has_objcg(name, i),
            "?swapcache": lambda question, name, i: self._frees_what_it_loaded(name),
            "?swap_cache_alloc": lambda question, name, i: self._writeback_error(name, i),
            "?memcg_online": lambda question, name, i: name != "shrink_memcg_ret",
            "?zspage_write_trylock": lambda question, name, i: name in MOVING
            or not compactions.is_read(question[1], i),
            "?compacting": compactions.under_way,
            "?contended": compactions.contended,
            "?compact_end": compactions.ends_class,
            "?new_zspage": lambda question, name, i: name in _TAKES and self.sees(name, "zspage")
            and self._is_new(batch.zspage[i]),
            "?shrinker_enabled": lambda question, name, i: name != "zswap_shrinker_scan_ret",
            "?lru_next": lru.next_entry,
            "?lru_more": lru.continues,
            "?lru_list": lambda question, name, i: lru.root_list(question[1], name, i),
            "?pool_listed": lambda question, name, i: name == "zs_get_total_pages_ret",
            "?sg_length": acomp.sg_length,
            "?acomp_batch": acomp.acomp_batch,
            "?batch_failed": acomp.batch_failed,
            "?shrink_order": self._shrink_order,
            "?shrink_next": lambda question, name, i: self._shrunk_next(name, i),
        }
        #: questions whose answer is the same throughout the recording
        self.constant: dict[str, Any] = {}
        # Which failures the recording's counters rule out is not asked.
        for question, counter, answer in (("?entry_alloc", "reject_kmemcache_fail", self._entry_alloc),
                                          ("?xa_store", "reject_alloc_fail", self._xa_store)):
            if state.snapshots.last_value(counter):
                self._answers[question] = answer
            else:
                self.constant[question] = DEFAULTS[question]
        if not state.sees_zspage_free():
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
            self.state.asked.add(question[0])
        return given

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
                self.state.model.max_pages(), self.state.model.accept_thr_pages())):
            self.guess("zs_get_total_pages_ret was not captured: how large a store took the pool for, near its limit, "
                       "is not known")
        elif name == "zswap_decompress":
            self.invariants.reading(effect, frame)
        elif name == "zs_obj_read":
            self.invariants.object_read(effect[2], frame)
        elif name == "crypto_acomp_decompress_ret":
            self.invariants.inflated((effect[1], effect[2]), frame)
        elif name in ("zs_obj_write", "memcpy"):
            self.invariants.object_written(effect, None, frame)
        return None

    def _writeout(self, folio: Folio, name: str) -> str:
        """What became of a folio that swap_writeout() was given: the task's next event shows it."""
        if name == "zswap_invalidate":
            return "free"
        # Where its return was not probed: where no store follows, it has returned.
        follows = {"zswap_store"} if "zswap_store" in self.captured else _OF_A_STORE
        if name != "swap_writeout_ret" if "swap_writeout_ret" in self.captured else name in follows:
            return "store"
        if folio.order and not self.state.model.INVALIDATES_RANGES:
            # Zero-filled, or its slots were unused and freed, which no event shows.
            self.state.snapshots.loose.may_be_free(folio.nr_pages)
        return "zero"

    def _has_objcg(self, name: str, i: int) -> bool:
        """Whether a folio has an obj_cgroup: it is asked about its limit, or else its pages are charged."""
        if "obj_cgroup_may_zswap_ret" in self.captured:
            return name == "obj_cgroup_may_zswap_ret"
        if "obj_cgroup_charge_zswap" in self.captured:
            charged, stored = (self.lookahead.next_event(i, event, 0, _STORE_RETURNS)
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
        return self.batch.memcg[i] if name == "shrink_memcg" else None

    def _frees_what_it_loaded(self, name: str) -> bool:
        """False where a load read past the swap cache, and so left its entry: nothing follows but its return."""
        return name in _OF_AN_END if "zswap_load_ret" not in self.captured else name != "zswap_load_ret"

    def _zs_malloc_error(self, name: str, i: int) -> int:
        if "zs_malloc_ret" not in self.captured or not self.sees("zs_malloc_ret", "handle"):
            if _TAKES & self.captured:
                failed = name not in _TAKES
            else:
                source = self.lookahead.length_source()
                failed = source in ("zs_obj_write", "obj_cgroup_charge_zswap") \
                    and self.lookahead.next_event(i, source, 0) is None
            # No event shows which error it is: the model knows whether a size is too large.
            return ENOMEM if failed else 0
        handle = self.batch.handle[i]
        return handle - (1 << 64) if name == "zs_malloc_ret" and handle > (1 << 64) - PAGE_SIZE else 0

    def _entry_alloc(self, question: Effect, name: str, i: int) -> bool:
        # A failed slab allocation leaves no event: the counter has to show it.
        state = self.state
        left = state.snapshots.last_value("reject_kmemcache_fail") - state.model.counters.reject_kmemcache_fail
        return not (name in ("zswap_store_ret", "zswap_entry_free") and left > 0)

    def _xa_store(self, question: Effect, name: str, i: int) -> int:
        return ENOMEM if name == "zs_free" else 0

    def _writeback_error(self, name: str, i: int) -> int:
        return 0 if name in ("zswap_decompress", "zs_obj_read") else self._writeback_failure(name, i)

    def _writeback_failure(self, name: str, i: int) -> int:
        """Return the errno of a writeback that did not read its entry."""
        batch = self.batch
        if name in ("zswap_writeback_entry_ret", "shrink_memcg_cb_ret") and not self.sees(name, "ret"):
            self.guess(f"{name} has no ret: why an entry was not written back is not known")
        return batch.ret[i] if name == "zswap_writeback_entry_ret" else -17 if batch.ret[i] == 5 else -12

    def _is_new(self, address: int) -> bool:
        known = self.state.zspages.get(address)
        return known is None or not known.inuse

    def _shrink_order(self, question: Effect, name: str, i: int) -> None:
        """Compare in which order the worker visits cgroups; where one may go away unseen, nothing shows it."""
        _, cgroup, in_order = question
        if in_order is None or "memcg_reparent_list_lrus" not in self.captured:
            return
        predicted = cgroup
        if not in_order:
            came = [hex(each) for each in self.state.model.worker.current]
            predicted = f"none of {', '.join(came)}, and none that the pass before visited earlier"
        self.comparer.hold("shrink_memcg", i, self.state.stacks[self.batch.pid[i]][-1], (cgroup,), (predicted,))
