# SPDX-License-Identifier: GPL-2.0-or-later
"""The replay: recorded events drive the model task by task, and every effect is checked against its event.

Each task has a stack of running operations, each a generator of the model (:mod:`model.effects`).  An event
resumes the innermost operation of its task up to its next effect; name and values must then agree.  Events
that begin an operation start a new generator, also inside another one.  What the model cannot know comes from
the event itself as an answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from model.effects import Effect, Steps
from model.page import PAGE_SIZE
from model.zsmalloc import ZsPool
from model.zswap import Folio, Zswap
from replay.reference.batch import COLUMNS
from replay.reference.cgrouplimits import CgroupLimits
from replay.reference.checks import Tally
from replay.reference.compactions import Compactions
from replay.reference.comparer import Comparer
from replay.reference.frame import Frame
from replay.reference.handlers.acomp import AcompHandlers
from replay.reference.handlers.table import handler_table
from replay.reference.handlers.zsmalloc import ZsmallocHandlers
from replay.reference.handlers.zswap import ZswapHandlers
from replay.reference.invariants import Invariants
from replay.reference.lookahead import Lookahead
from replay.reference.lruorder import LruOrder
from replay.reference.predictions import Predictions
from replay.reference.questions import Questions
from replay.reference.settings import EVENTS as SETTINGS
from replay.reference.state import CannotFollow, ReplayState
from replay.reference.totals import Totals
from replay.reference.truth import TruthChecks
from replay.userrev.guard import active, watched
from traces import schema
from traces.errors import BadInput
from traces.events import EFFECTS, with_role
from traces.recording import Recording

__all__ = ["ANYWHERE", "EAGER", "INLINED", "MAX_ORDER", "OUTSIDE", "READINGS", "STARTS", "Engine",
           "LostEvents"]

#: Events in which an operation begins.
STARTS: Final = with_role("start")
#: Operations that reclaim starts wherever memory is allocated: shrinkers.  Not shrink_memcg(): only zswap calls it.
ANYWHERE: Final = with_role("anywhere")
_LRU: Final = frozenset({"list_lru_add", "list_lru_del"})
#: What a call of several pages is asked behind its return: which of them failed, and were counted.
_BATCH_ENDS: Final = frozenset({"?batch_failed", "?sg_length"})
#: Events that belong to no operation; counted as outside events.
OUTSIDE: Final = with_role("outside")
READINGS: Final = with_role("reading")
#: Functions that some builds inline into the caller the model goes through, though a probe can be attached.
INLINED: Final = with_role("inlined")
#: After these events the model continues at once (:data:`traces.events.ROLES` says why).
EAGER: Final = with_role("eager")
#: Calls of the crypto layer; iaa_crypto makes one inside another where it goes to its software fallback.
_ACOMP: Final = ("crypto_acomp_compress", "crypto_acomp_decompress")
_ACOMP_RET: Final = tuple(name + "_ret" for name in _ACOMP)
#: MAX_PAGE_ORDER is 10 with 4 KiB pages; nothing larger is a folio.
MAX_ORDER: Final = 10


class LostEvents(Exception):
    """The recording lost events here: the model cannot follow any further."""


class Engine:
    """Replays one recording through one model.

    :param recording: what happened
    :param model: what should have
    :param tally: where comparisons are counted
    :param predictions: what the compressor gives for each recorded page
    :param keep_going: continue after a divergence
    :param observe: called with (event number, event name, effect) for every matched effect
    """

    def __init__(self, recording: Recording, model: Zswap, tally: Tally, predictions: Predictions, *,
                 keep_going: bool = False, observe: Callable[[int, str, Effect], None] | None = None) -> None:
        self.keep_going = keep_going
        self.observe = observe
        self.state = state = ReplayState(recording, model, tally, predictions)
        self.batch = batch = state.batch
        self.comparer = comparer = Comparer(state)
        self.truth = TruthChecks(recording, model, predictions, tally, comparer.diverge)
        self.invariants = invariants = Invariants(state, comparer)
        self.lru = LruOrder(state)
        self.totals = Totals(state, comparer)
        self.limits = CgroupLimits(state)
        self.compactions = Compactions(state)
        lookahead = Lookahead(state)
        self.zsmalloc = ZsmallocHandlers(state, comparer, invariants, self.totals, self.compactions)
        self.acomp = AcompHandlers(state, comparer, invariants, lookahead)
        self.zswap = ZswapHandlers(state, comparer, invariants, self.zsmalloc, self.lru, self.limits)
        self.handlers = handler_table((self.zsmalloc, self.acomp, self.zswap), comparer)
        self.questions = Questions(state, comparer, invariants, self.acomp, lookahead, self.lru, self.compactions)
        state.settings.begin(model)
        #: events that say nothing without their columns
        self.useless = frozenset(state.uncaptured.useless)
        #: events that :meth:`_apart` never takes
        self.plain = frozenset(EFFECTS) - self.useless - _LRU - {"list_lru_add_ret", *_ACOMP_RET}
        #: after which events the model continues at once; where only the entry of obj_malloc() is probed, its class
        #: lock is held there, and no further event comes before it is released
        self.eager = EAGER if "obj_malloc_ret" in state.captured else EAGER | {"obj_malloc"}
        #: what was found before the first event: why there can be no PASS, and what else is to be said
        self.start_reasons: list[str] = []
        self.start_notes: list[str] = []
        #: the replay begins with a state that an earlier one left
        self.has_state = False
        #: tasks that are inside list_lru_add() of another LRU
        self.foreign_adds: set[int] = set()
        #: of :data:`INLINED`, those that came where the model expects them
        self.seen_inlined: set[str] = set()
        #: how many events, from the recording's first one on, were replayed
        self.events = 0
        #: how many events of no operation were explained how, and how many came where the model has another one
        self.explained: dict[str, int] = {}
        self.unexplained = 0
        #: tasks that are inside zswap_shrinker_count()
        self.in_count: set[int] = set()
        #: task -> calls that the compressor's driver is making in it
        self.in_driver: dict[int, int] = {}
        #: task -> the operation that it was in when it did something else than the model
        self.out_of_step: dict[int, str] = {}
        guard = active()
        if guard is not None:
            # The revision is a user's: what it does wrong is reported with the event at hand.
            guard.now = lambda: batch.now

    def restart(self, model: Zswap) -> None:
        """Continue with another model, whose state is still to be loaded: nothing that was bound is bound any more."""
        self.state.restart(model)
        self.truth.model = model
        model.cgroups = self.state.settings.cgroups
        for observer in (self.totals, self.limits, self.lru):
            observer.watch(model)

    # ---- driving ----------------------------------------------------------------------------------------

    def run(self, start: int = 0, stop: int | None = None, progress: Callable[[int], None] | None = None) -> None:
        """Replay events ``start`` to ``stop``; ends at the first divergence unless ``keep_going``.

        :raises LostEvents: where the recording lost events
        """
        for _ in self.steps(start, stop):
            if progress is not None:
                progress(self.events)

    def steps(self, start: int = 0, stop: int | None = None) -> Iterator[int]:
        """As :meth:`run`, yielding the number of the last event after each batch."""
        names, batch = schema.NAMES, self.batch
        batch.clear()
        for base, columns in self.state.recording.batches(COLUMNS, start=start):
            count = len(columns["event"])
            if stop is not None and base >= stop:
                break
            batch.take(base, columns)
            first = max(0, start - base)
            last = count if stop is None else min(count, stop - base)
            codes, pids = batch.event, batch.pid
            with self.faults():
                for i in range(first, last):
                    self.step(names[codes[i]], pids[i], i)
                    if self.state.tally.divergences and not self.keep_going:
                        self.events = base + i + 1
                        return
            self.events = base + last
            yield self.events

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Make one sentence of what a shipped model, or the replay itself, raises; a user's revision is left out.

        :raises BadInput: in place of any other exception
        """
        state = self.state
        try:
            yield
        except (BadInput, LostEvents, CannotFollow, MemoryError):
            raise
        except Exception as problem:
            if not type(state.model).__module__.startswith("model."):
                raise
            raise BadInput(state.recording.path, f"event {self.batch.now}",
                           f"the model of {state.model.mirrors} failed there ({type(problem).__name__}: {problem})",
                           "this is a fault of zreplay and says nothing about the kernel: report it with this "
                           "recording") from problem

    def each(self) -> Iterator[int]:
        """Replay everything event by event, yielding before each the number of the event to come."""
        names, batch = schema.NAMES, self.batch
        batch.clear()
        for base, columns in self.state.recording.batches(COLUMNS):
            batch.take(base, columns)
            for i in range(len(batch.event)):
                yield base + i
                with self.faults():
                    self.step(names[batch.event[i]], batch.pid[i], i)

    def step(self, name: str, pid: int, i: int) -> None:
        """Explain one event."""
        batch, state = self.batch, self.state
        batch.now = batch.base + i
        if name not in self.plain and self._apart(name, pid, i):
            return
        if state.unsure:
            state.unsure.pop(pid, None)
        if self.lru.deleting:
            self.lru.deleting.pop(pid, None)
        stack = state.stacks.get(pid)
        if name == "zswap_total_pages_ret" and stack and (
                stack[-1].handed.totals is not None or not state.sees("zs_get_total_pages_ret", "ret")):
            # Whether this function is inlined where zswap decides by it is the compiler's choice; it changes nothing.
            self.count("reading of totals")
            self.totals.compare_sum(i, stack[-1])
            return
        while stack:
            frame = stack[-1]
            frame.inflight = 0
            effect = frame.effect
            if effect is None:
                effect = self.advance(frame, None, i)
            if effect is not None and effect[0][0] == "?":
                if effect[0] == "?swap_cache_alloc" and name in STARTS:
                    # Allocating a folio for writeback may itself reclaim: other operations nest here.
                    break
                effect = self.advance(frame, name, i)
            if effect is None:
                stack.pop()
                continue
            if effect[0] != name and effect[0] in INLINED and effect[0] not in self.seen_inlined:
                # The probe is attached to a function that this build also inlines into its caller.
                state.captured -= {effect[0], effect[0] + "_ret"}
                frame.effect = None
                frame.answer = None
                continue
            if effect[0] == name:
                if name in INLINED:
                    self.seen_inlined.add(name)
                frame.answer = self.handlers[name](effect, i, frame)
                frame.last = effect
                if self.observe is not None:
                    self.observe(batch.base + i, name, effect)
                if name in self.eager:
                    frame.effect = None
                    if self.advance(frame, None, i) is None:
                        stack.pop()
                else:
                    frame.effect = None
                return
            break
        self.outside_operation(name, pid, i, stack)

    def _apart(self, name: str, pid: int, i: int) -> bool:
        """True for an event that says nothing, or is about another LRU or a call of the driver's own: it is counted."""
        batch, state = self.batch, self.state
        if name in self.useless:
            self.count("event without the columns that identify it")
            return True
        if name in _LRU:
            if batch.pool[i] != state.lru_address and not self._own_lru(pid, i):
                if name == "list_lru_add":
                    self.foreign_adds.add(pid)
                self.count("another LRU")
                return True
            self.foreign_adds.discard(pid)
        elif name == "list_lru_add_ret" and pid in self.foreign_adds:
            # list_lru_add() does not nest: the return belongs to the task's last entry.
            self.foreign_adds.discard(pid)
            self.count("another LRU")
            return True
        elif self.in_driver and name in _ACOMP_RET and self.in_driver.get(pid, 0):
            self.in_driver[pid] -= 1
            self.count("call of the driver's own")
            if state.stacks.get(pid):
                state.stacks[pid][-1].handed.software = batch.ret[i], batch.dlen[i]
            return True
        return False

    def advance(self, frame: Frame, name: str | None, i: int) -> Effect | None:
        """Run an operation to its next observable effect; None when it has ended.

        ``name`` is the event at hand, which answers questions; without one the operation waits at a question.
        """
        state = self.state
        gen, captured, constant = frame.gen, state.captured, self.questions.constant
        if frame.effect is None:
            send = frame.answer
        elif name is None:
            return frame.effect
        else:
            send = self.questions.resolve(frame.effect, name, i)
        try:
            while True:
                effect = gen.send(send)
                kind = effect[0]
                if kind in captured:
                    frame.effect = effect
                    return effect
                if kind[0] == "?":
                    if kind in constant:
                        send = constant[kind]
                        continue
                    if name is None:
                        frame.effect = effect
                        return effect
                    send = self.questions.resolve(effect, name, i)
                elif kind in self.questions.elsewhere:
                    # Another event of the task answers, as for questions.
                    effect = ("?" + kind, *effect[1:])
                    if name is None:
                        frame.effect = effect
                        return effect
                    send = self.questions.resolve(effect, name, i)
                else:
                    send = self.questions.default(effect, frame)
        except StopIteration:
            return None
        except (LookupError, AttributeError, TypeError, ValueError) as problem:
            if not state.tally.different:
                if state.guesses or state.uncaptured.open():
                    raise CannotFollow(f"the model's state is inconsistent ({problem!r})") from problem
                raise
            # After a divergence kernel and model may be in states that cannot continue together.
            self.comparer.diverge("effect.order", i, recorded=self.batch.name(i), predicted=f"nothing: {problem!r}",
                                  what="the model cannot follow from its state after earlier divergences", frame=frame)
            return None

    def _own_lru(self, pid: int, i: int) -> bool:
        """Learn the address of zswap's LRU from the first entry a store adds, where no symbol has it."""
        state = self.state
        if state.lru_address:
            return False
        stack = state.stacks.get(pid)
        if stack:
            frame = stack[-1]
            effect = frame.effect if frame.effect is not None else self.advance(frame, "list_lru_add", i)
            if effect is not None and effect[0] == "list_lru_add":
                state.lru_address = self.batch.pool[i]
                return True
        return False

    # ---- events outside a running operation -------------------------------------------------------------

    def outside_operation(self, name: str, pid: int, i: int, stack: list[Frame] | None) -> None:
        """An event that the task's running operation, if any, does not expect."""
        batch, state = self.batch, self.state
        if name in SETTINGS:
            self.count("setting")
            state.settings.at(batch.now, state.model)
            return
        if name in _ACOMP and self._in_driver(stack):
            self.in_driver[pid] = self.in_driver.get(pid, 0) + 1
            self.count("call of the driver's own")
            return
        if stack and self._half_seen(name, stack):
            # Of a call in a call only one end was captured: the inner one was taken for the outer.
            self.count("call of the driver's own")
            return
        if pid in self.out_of_step:
            if name == self.out_of_step[pid] + "_ret":
                del self.out_of_step[pid]
                self.unexplained += 1
                return
            if name not in STARTS:
                self.unexplained += 1
                return
        if name in STARTS and self._may_begin(name, stack):
            self.begin(name, pid, i)
            return
        if (pid == 0 and name in ("counters", "param", "lost_events")) or name == "marker":
            self.note(name, i)
            return
        if name in OUTSIDE:
            self.count("outside event")
            if name == "zs_page_migrate":
                self.zsmalloc.forget_frames()
            elif name == "zswap_shrinker_count":
                self.in_count.add(pid)
            elif name == "zswap_shrinker_count_ret":
                self.in_count.discard(pid)
            return
        if name == "memcg_reparent_list_lrus":
            gone, parent = batch.memcg[i], batch.pool[i] if batch.pool[i] != state.root_memcg else 0
            state.model.memcg_reparent_list_lrus(gone, parent)
            for objcg in [objcg for objcg, memcg in state.memcg_of.items() if memcg == gone]:
                state.memcg_of[objcg], state.memcg_was[objcg] = parent, gone
            self.count("outside event")
            return
        if name == "mem_cgroup_zswap_writeback_enabled_ret" and self._counting(pid, stack, i):
            # zswap_shrinker_count() asks whether there would be anything to scan; only when it is switched on.
            self.count("zswap_shrinker_count()")
            return
        if not stack:
            if name in READINGS:
                self.settle(i)
                self.totals.compare_reading(i)
                state.snapshots.reading(name)
                self.count("reading of totals")
                return
            if name == "list_lru_add_ret":
                # zswap adds only inside a store: this is another LRU's, recorded while probes were switched on or off.
                self.count("another LRU")
                return
            if name.endswith("_ret") and batch.is_first_of_task(pid, i):
                self.count("return of a call from before the recording")
                return
            if name in state.uncaptured.stray:
                self.count("part of an operation whose beginning was not probed")
                return
        expected = stack[-1].effect if stack else None
        self.comparer.diverge("effect.order", i, recorded=name,
                              predicted=expected[0] if expected else "no event of this task",
                              what="the kernel did something else next", frame=stack[-1] if stack else None)
        self.unexplained += 1
        if stack:
            outer = stack[0].name
            stack.clear()
            if name in STARTS:
                self.begin(name, pid, i)
            else:
                self.out_of_step[pid] = outer

    def _in_driver(self, stack: list[Frame] | None) -> bool:
        """True where a call is one that iaa_crypto makes of its software fallback: in a call of zswap's, or in the
        thread of the device's interrupt, which has no operation of zswap's."""
        name = self.state.compressor_of(stack[-1]) if stack else self.state.model.pools[0].tfm_name
        effect = stack[-1].effect if stack else None
        return name.startswith("deflate-iaa") and (not stack or (effect is not None and effect[0] in _ACOMP_RET))

    def _half_seen(self, name: str, stack: list[Frame]) -> bool:
        """True for a second entry, or return, of a driver's call of which the other end was not captured."""
        other = name.removesuffix("_ret") if name in _ACOMP_RET else f"{name}_ret" if name in _ACOMP else ""
        return bool(other) and other not in self.state.captured \
            and self.state.compressor_of(stack[-1]).startswith("deflate-iaa")

    def _may_begin(self, name: str, stack: list[Frame] | None) -> bool:
        """True where an operation can begin: in no other, or where the kernel lets it nest."""
        if not stack:
            # With swap_writeout() probed, no store comes from anywhere else.
            return name != "zswap_store" or "swap_writeout" not in self.state.captured
        if name in ANYWHERE:
            return True
        effect = stack[-1].effect
        if effect is None or effect[0] == "?swap_cache_alloc":
            return True
        # folio_free_swap() found the slot unused: it is given back inside swap_writeout().
        return name == "zswap_invalidate" and stack[-1].name == "swap_writeout" and effect[0] == "swap_writeout_ret"

    def begin(self, name: str, pid: int, i: int) -> None:
        """Start an operation for the event that begins it."""
        batch, state = self.batch, self.state
        self.out_of_step.pop(pid, None)
        if state.snapshots.window is not None:
            self.settle(i)
            state.snapshots.operation()
        model, number = state.model, batch.base + i
        gen: Steps[Any]
        compacts: ZsPool | None = None
        if name in ("swap_writeout", "zswap_store"):
            order = batch.order[i]
            if order > MAX_ORDER:
                self.comparer.diverge("swap.writeout", i, recorded=order, predicted=f"at most {MAX_ORDER}",
                                      what="folio order")
                order = 0
            folio = Folio(batch.swpent[i], order, batch.folio[i] if state.sees(name, "folio") else -1)
            gen = model.swap_writeout(folio) if name == "swap_writeout" else model.zswap_store(folio)
        elif name == "zswap_load":
            gen = model.zswap_load(Folio(batch.swpent[i], 0, batch.folio[i] if state.sees(name, "folio") else -1))
        elif name == "zswap_invalidate":
            gen = model.zswap_invalidate(batch.swpent[i])
        elif name == "zs_shrinker_scan":
            compacts = self.compactions.pool_of(pid, i)
            gen = compacts.zs_shrinker_scan()
        elif name == "zs_compact":
            compacts = self.compactions.pool_of(pid, i)
            gen = compacts.zs_compact()
        elif name == "zswap_shrinker_scan":
            gen = model.zswap_shrinker_scan(batch.size[i], batch.memcg[i], batch.nid[i])
        elif name == "shrink_worker":
            gen = model.shrink_worker()
        elif name == "shrink_memcg":
            gen = model.shrink_memcg(batch.memcg[i])
        elif name == "async_free_zspage":
            gen = state.current_zs_pool().async_free_zspage()
        else:
            self.count("outside event")
            return
        frame = Frame(name, watched(gen), number)
        if compacts is not None:
            frame.handed.compacts = compacts
        state.stacks.setdefault(pid, []).append(frame)
        effect = self.advance(frame, name, i)
        if effect is None or effect[0] != name:
            self.comparer.diverge("effect.order", i, recorded=name, predicted=effect[0] if effect else "nothing",
                                  what="the operation began otherwise", frame=frame)
            return
        frame.answer = self.handlers[name](effect, i, frame)
        frame.effect = None
        if self.observe is not None:
            self.observe(number, name, effect)
        if name in self.eager and self.advance(frame, None, i) is None:
            state.stacks[pid].pop()

    def note(self, name: str, i: int) -> None:
        """A marker, snapshot, parameter write or loss."""
        batch, state = self.batch, self.state
        self.count(name)
        if name == "marker":
            self.settle(i)
            state.snapshots.close()
        if name == "lost_events":
            self.events = batch.base + i + 1
            raise LostEvents(batch.base + i)
        if name == "marker":
            self.truth.marker(batch.text[i], i)
            # A workload may say in a marker what it writes where: "param NAME=VALUE", "cgroup FILE=VALUE".
            kind, _, setting = batch.text[i].partition(" ")
            if kind in ("param", "cgroup") and "=" in setting and state.settings.takes(kind):
                self.write_param(setting)
        elif name == "param":
            if state.settings.takes(name):
                self.write_param(batch.text[i])
        else:
            self.settle(i)
            for stack in state.stacks.values():
                waits = stack[-1].effect if stack else None
                if waits is not None and waits[0][1:] in self.questions.elsewhere:
                    state.guess(f"{waits[0][1:]} was not captured: what a task did before a snapshot shows only later")
            state.settings.reading(state.model, batch.ret[i])
            self.truth.snapshot(batch.text[i], i)
            unsure = [*state.unsure.values(), *self._pages_on_their_way()]
            waiting = sum(stack[-1].handed.pages for stack in state.stacks.values()
                          if stack and stack[-1].effect is not None and stack[-1].effect[0] in _BATCH_ENDS)
            state.snapshots.check(batch.ret[i], batch.base + i, batch.ts[i], unsure, waiting)

    def write_param(self, setting: str) -> None:
        """A parameter or cgroup file was written: ``name=value``."""
        name, _, value = setting.partition("=")
        # The kernel refuses an impossible value with -EINVAL and stays as it was; so does the model.
        with contextlib.suppress(ValueError):
            self.state.model.set_param(name, value)

    def settle(self, i: int) -> None:
        """Advance every operation to its next effect: what it did after its last event has happened.

        It may not have happened yet, where its task was preempted right after that event: :attr:`unsure` keeps it
        until the task is seen again.
        """
        state = self.state
        for pid, stack in state.stacks.items():
            if not stack or stack[-1].effect is not None:
                continue
            before = state.snapshots.standing()
            while stack and stack[-1].effect is None and self.advance(stack[-1], None, i) is None:
                stack.pop()
            after = state.snapshots.standing()
            changes = {name: value - before.get(name, 0) for name, value in after.items()
                       if value != before.get(name, 0)}
            if changes:
                state.unsure[pid] = changes

    def _pages_on_their_way(self) -> Iterator[dict[str, int]]:
        """Yield what counters changed by zspages whose pages may not have entered or left the pool's total yet."""
        for pid, stack in self.state.stacks.items():
            # Where __free_zspage() is probed, the model waits for its event before it takes the pages off.
            pages = sum(frame.inflight for frame in stack
                        if frame.effect is None or frame.effect[0] not in ("?trylock_zspage", "__free_zspage"))
            if pages and "zswap.pool_total_size" not in self.state.unsure.get(pid, ()):
                yield {"zswap.pool_total_size": pages * PAGE_SIZE, "meminfo.Zswap": pages * PAGE_SIZE // 1024,
                       "vmstat.nr_zspages": pages}

    def count(self, how: str) -> None:
        """Count an event as explained."""
        self.explained[how] = self.explained.get(how, 0) + 1

    def _counting(self, pid: int, stack: list[Frame] | None, i: int) -> bool:
        """True when a question about writeback may be zswap_shrinker_count()'s: only inside it, where it is probed."""
        if {"zswap_shrinker_count", "zswap_shrinker_count_ret"} <= self.state.captured:
            # A recording, or a cut of one, may begin inside it.
            return pid in self.in_count or self.batch.is_first_of_task(pid, i)
        expected = stack[-1].effect if stack else None
        asked = expected is not None and expected[0] == "mem_cgroup_zswap_writeback_enabled_ret"
        return self.state.model.shrinker_enabled is not False and not asked

    def finish(self) -> None:
        """The recording is over: settle operations and the last snapshot, and check whether all agrees."""
        state = self.state
        with self.faults():
            self.settle(0)
        state.snapshots.close()
        self.invariants.balance(max(0, self.events - 1))
        self.zswap.marks(self.events - 1)

    def quiescent(self) -> bool:
        """True when no task is inside an operation."""
        self.settle(0)
        return not any(self.state.stacks.values())
