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
from replay.reference.capturegaps import Uncaptured, seen_only
from replay.reference.checks import Divergence, Tally
from replay.reference.comparisons import held_for
from replay.reference.frame import Frame
from replay.reference.handlers.base import CannotFollow
from replay.reference.predictions import Predictions
from replay.reference.questions import ASKED, Questions
from replay.reference.settings import EVENTS as SETTINGS
from replay.reference.settings import Settings
from replay.reference.snapshots import SnapshotChecks
from replay.reference.truth import TruthChecks
from replay.userrev.guard import active, watched
from traces import schema
from traces.errors import BadInput
from traces.events import with_role
from traces.recording import Recording

__all__ = ["ANYWHERE", "COLUMNS", "EAGER", "INLINED", "MAX_ORDER", "OUTSIDE", "READINGS", "STARTS", "Engine",
           "LostEvents"]

#: what a replay reads
COLUMNS: Final = ("ts", "cpu", "pid", "event", "swpent", "folio", "entry", "handle", "obj", "zspage", "pool", "memcg",
                  "data", "ret", "size", "dlen", "offset", "word", "inuse", "freeobj", "order", "ref", "nid",
                  "content", "text")
#: Events in which an operation begins.
STARTS: Final = with_role("start")
#: Operations that reclaim starts wherever memory is allocated: shrinkers.  Not shrink_memcg(): only zswap calls it.
ANYWHERE: Final = with_role("anywhere")
_LRU: Final = frozenset({"list_lru_add", "list_lru_del"})
#: Events that belong to no operation; counted as outside events.
OUTSIDE: Final = with_role("outside")
READINGS: Final = with_role("reading")
#: Functions that some builds inline into the caller the model goes through, though a probe can be attached.
INLINED: Final = with_role("inlined")
#: After these events the model continues at once (:data:`traces.events.ROLES` says why).
EAGER: Final = with_role("eager")
#: This many folios written back, and none of them marked for reclaim, are not an accident.
_MANY: Final = 16
#: MAX_PAGE_ORDER is 10 with 4 KiB pages; nothing larger is a folio.
MAX_ORDER: Final = 10


class LostEvents(Exception):
    """The recording lost events here: the model cannot follow any further."""


class Engine(Questions):
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
        super().__init__(model, tally, predictions)
        self.recording = recording
        self.keep_going = keep_going
        self.observe = observe
        probes = recording.manifest["probes"]
        self.columns_of = {name: frozenset(probe.get("columns", ())) for name, probe in probes.items()}
        symbols = recording.manifest["config"].get("symbols", {})
        self.lru_address: int = symbols.get("zswap_list_lru", 0)
        self.uncaptured = Uncaptured(self.columns_of, self.lru_address, seen_only=seen_only(recording.manifest))
        self.captured = self.uncaptured.captured
        self.held = held_for({name: self.columns_of[name] for name in self.captured})
        #: questions that other events have to answer, and events that say nothing without their columns
        self.told_elsewhere = ASKED - self.captured
        self.useless = frozenset(self.uncaptured.useless)
        #: after which events the model continues at once; where only the entry of obj_malloc() is probed, its class
        #: lock is held there, and no further event comes before it is released
        self.eager = EAGER if "obj_malloc_ret" in self.captured else EAGER | {"obj_malloc"}
        self.snapshots = SnapshotChecks(recording, model, tally, self.diverge_counter)
        self.snapshots.uncounted = self.uncaptured.uncounted()
        self.truth = TruthChecks(recording, model, predictions, tally, self.diverge)
        self.settings = Settings(recording)
        self.settings.begin(model)
        self.pid: list[int] = []
        self.stacks: dict[int, list[Frame]] = {}
        self.foreign_adds: set[int] = set()
        self.has_state = False
        self.seen_inlined: set[str] = set()
        self.events = 0
        self.first_event = 0
        #: how many events were explained how
        self.explained: dict[str, int] = {}
        self.unexplained = 0
        self.preempted_reads = 0
        #: tasks that are inside zswap_shrinker_count()
        self._in_count: set[int] = set()
        #: task -> what counters changed when it was advanced from its last event; gone when it shows another one
        self.unsure: dict[int, dict[str, int]] = {}
        self._out_of_step: dict[int, str] = {}
        self._base = 0
        self._handlers = self.table()
        guard = active()
        if guard is not None:
            # The revision is a user's: what it does wrong is reported with the event at hand.
            guard.now = lambda: self.now
        self.settle_questions()

    def restart(self, model: Zswap) -> None:
        """Continue with another model, whose state is still to be loaded: nothing that was bound is bound any more."""
        self.model = self.snapshots.model = self.truth.model = model
        model.total_observer = self._total_changes
        model.account_observer = self._account_changes
        model.cgroups = self.settings.cgroups
        model.lru.observer = self.lru_empty
        for bound in (self.zspages, self.objects, self.classes, self.memcg_of, self.memcg_was, self.memcg_before,
                      self.overlaps, self.adding, self.adding_to, self.deleting, self.empty_at, self.walking,
                      self.stacks, self.unsure, self.charges):
            bound.clear()

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
        self.first_event = start
        names = schema.NAMES
        self.pid = []
        for base, columns in self.recording.batches(COLUMNS, start=start):
            count = len(columns["event"])
            if stop is not None and base >= stop:
                break
            self.next_batch(base, columns)
            first = max(0, start - base)
            last = count if stop is None else min(count, stop - base)
            codes, pids = self.event, self.pid
            with self.faults():
                for i in range(first, last):
                    self.step(names[codes[i]], pids[i], i)
                    if self.tally.divergences and not self.keep_going:
                        self.events = base + i + 1
                        return
            self.events = base + last
            yield self.events

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Make one sentence of what a shipped model, or the replay itself, raises; a user's revision is left out.

        :raises BadInput: in place of any other exception
        """
        try:
            yield
        except (BadInput, LostEvents, CannotFollow, MemoryError):
            raise
        except Exception as problem:
            if not type(self.model).__module__.startswith("model."):
                raise
            raise BadInput(self.recording.path, f"event {self.now}", f"the model of {self.model.mirrors} failed there "
                           f"({type(problem).__name__}: {problem})",
                           "this is a fault of zreplay and says nothing about the kernel: report it with this "
                           "recording") from problem

    def each(self) -> Iterator[int]:
        """Replay everything event by event, yielding before each the number of the event to come."""
        names = schema.NAMES
        self.pid = []
        for base, columns in self.recording.batches(COLUMNS):
            self.next_batch(base, columns)
            for i in range(len(self.event)):
                yield base + i
                with self.faults():
                    self.step(names[self.event[i]], self.pid[i], i)

    def next_batch(self, base: int, columns: dict[str, Any]) -> None:
        """Take the next batch of events."""
        self._base = base
        self.last_seen.update(zip(self.pid, range(self._loaded, self._loaded + len(self.pid)), strict=True))
        self._loaded = base
        self.load(columns)

    def load(self, columns: dict[str, Any]) -> None:
        """Take a batch's columns as lists: one attribute per column, indexed by the row in the batch."""
        for name in COLUMNS:
            setattr(self, name, columns[name].tolist())

    def step(self, name: str, pid: int, i: int) -> None:
        """Explain one event."""
        self.now = self._base + i
        if name in self.useless:
            self.count("event without the columns that identify it")
            return
        if name in _LRU:
            if self.pool[i] != self.lru_address and not self._own_lru(pid, i):
                if name == "list_lru_add":
                    self.foreign_adds.add(pid)
                self.count("another LRU")
                return
            self.foreign_adds.discard(pid)
        elif name == "list_lru_add_ret" and pid in self.foreign_adds:
            # list_lru_add() does not nest: the return belongs to the task's last entry.
            self.foreign_adds.discard(pid)
            self.count("another LRU")
            return
        if self.unsure:
            self.unsure.pop(pid, None)
        if self.deleting:
            self.deleting.pop(pid, None)
        stack = self.stacks.get(pid)
        if name == "zswap_total_pages_ret" and stack and stack[-1].handed.totals is not None:
            # Whether this function is inlined where zswap decides by it is the compiler's choice; it changes nothing.
            self.count("reading of totals")
            self.compare_totals(i, stack[-1])
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
                self.captured -= {effect[0], effect[0] + "_ret"}
                frame.effect = None
                frame.answer = None
                continue
            if effect[0] == name:
                if name in INLINED:
                    self.seen_inlined.add(name)
                frame.answer = self._handlers[name](effect, i, frame)
                frame.last = effect
                if self.observe is not None:
                    self.observe(self._base + i, name, effect)
                if name in self.eager:
                    frame.effect = None
                    if self.advance(frame, None, i) is None:
                        stack.pop()
                else:
                    frame.effect = None
                return
            break
        self.outside_operation(name, pid, i, stack)

    def advance(self, frame: Frame, name: str | None, i: int) -> Effect | None:
        """Run an operation to its next observable effect; None when it has ended.

        ``name`` is the event at hand, which answers questions; without one the operation waits at a question.
        """
        gen, captured, constant = frame.gen, self.captured, self.constant
        if frame.effect is None:
            send = frame.answer
        elif name is None:
            return frame.effect
        else:
            send = self.resolve(frame.effect, name, i)
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
                    send = self.resolve(effect, name, i)
                elif kind in self.told_elsewhere:
                    # Another event of the task answers, as for questions.
                    effect = ("?" + kind, *effect[1:])
                    if name is None:
                        frame.effect = effect
                        return effect
                    send = self.resolve(effect, name, i)
                else:
                    send = self.default(effect, frame)
        except StopIteration:
            return None
        except (LookupError, AttributeError, TypeError, ValueError) as problem:
            if not self.tally.different:
                if self.guesses or self.uncaptured.open():
                    raise CannotFollow(f"the model's state is inconsistent ({problem!r})") from problem
                raise
            # After a divergence kernel and model may be in states that cannot continue together.
            self.diverge("effect.order", i, recorded=schema.NAMES[self.event[i]], predicted=f"nothing: {problem!r}",
                         what="the model cannot follow from its state after earlier divergences", frame=frame)
            return None

    def _own_lru(self, pid: int, i: int) -> bool:
        """Learn the address of zswap's LRU from the first entry a store adds, where no symbol has it."""
        if self.lru_address:
            return False
        stack = self.stacks.get(pid)
        if stack:
            frame = stack[-1]
            effect = frame.effect if frame.effect is not None else self.advance(frame, "list_lru_add", i)
            if effect is not None and effect[0] == "list_lru_add":
                self.lru_address = self.pool[i]
                return True
        return False

    # ---- events outside a running operation -------------------------------------------------------------

    def outside_operation(self, name: str, pid: int, i: int, stack: list[Frame] | None) -> None:
        """An event that the task's running operation, if any, does not expect."""
        if name in SETTINGS:
            self.count("setting")
            self.settings.at(self.now, self.model)
            return
        if pid in self._out_of_step:
            if name == self._out_of_step[pid] + "_ret":
                del self._out_of_step[pid]
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
                self.forget_frames()
            elif name == "zswap_shrinker_count":
                self._in_count.add(pid)
            elif name == "zswap_shrinker_count_ret":
                self._in_count.discard(pid)
            return
        if name == "memcg_reparent_list_lrus":
            gone, parent = self.memcg[i], self.pool[i] if self.pool[i] != self.root_memcg else 0
            self.model.memcg_reparent_list_lrus(gone, parent)
            for objcg in [objcg for objcg, memcg in self.memcg_of.items() if memcg == gone]:
                self.memcg_of[objcg], self.memcg_was[objcg] = parent, gone
            self.count("outside event")
            return
        if name == "mem_cgroup_zswap_writeback_enabled_ret" and self._counting(pid, stack):
            # zswap_shrinker_count() asks whether there would be anything to scan; only when it is switched on.
            self.count("zswap_shrinker_count()")
            return
        if not stack:
            if name in READINGS:
                self.settle(i)
                self.check_total(i)
                self.snapshots.reading(name)
                self.count("reading of totals")
                return
            if name == "list_lru_add_ret":
                # zswap adds only inside a store: this is another LRU's, recorded while probes were switched on or off.
                self.count("another LRU")
                return
            if name.endswith("_ret") and self._is_first_of_task(pid, i):
                self.count("return of a call from before the recording")
                return
            if name in self.uncaptured.stray:
                self.count("part of an operation whose beginning was not probed")
                return
        expected = stack[-1].effect if stack else None
        self.diverge("effect.order", i, recorded=name, predicted=expected[0] if expected else "no event of this task",
                     what="the kernel did something else next", frame=stack[-1] if stack else None)
        self.unexplained += 1
        if stack:
            outer = stack[0].name
            stack.clear()
            if name in STARTS:
                self.begin(name, pid, i)
            else:
                self._out_of_step[pid] = outer

    def _may_begin(self, name: str, stack: list[Frame] | None) -> bool:
        """True where an operation can begin: in no other, or where the kernel lets it nest."""
        if not stack:
            # With swap_writeout() probed, no store comes from anywhere else.
            return name != "zswap_store" or "swap_writeout" not in self.captured
        if name in ANYWHERE:
            return True
        effect = stack[-1].effect
        if effect is None or effect[0] == "?swap_cache_alloc":
            return True
        # folio_free_swap() found the slot unused: it is given back inside swap_writeout().
        return name == "zswap_invalidate" and stack[-1].name == "swap_writeout" and effect[0] == "swap_writeout_ret"

    def _is_first_of_task(self, pid: int, i: int) -> bool:
        """True for a task's very first event in a recording that has no start state."""
        return not self.has_state and pid not in self.last_seen and pid not in self.pid[:i]

    def begin(self, name: str, pid: int, i: int) -> None:
        """Start an operation for the event that begins it."""
        self._out_of_step.pop(pid, None)
        if self.snapshots.window is not None:
            self.settle(i)
            self.snapshots.operation()
        model, number = self.model, self._base + i
        gen: Steps[Any]
        compacts: ZsPool | None = None
        if name in ("swap_writeout", "zswap_store"):
            order = self.order[i]
            if order > MAX_ORDER:
                self.diverge("swap.writeout", i, recorded=order, predicted=f"at most {MAX_ORDER}", what="folio order")
                order = 0
            folio = Folio(self.swpent[i], order, self.folio[i] if self.sees(name, "folio") else -1)
            gen = model.swap_writeout(folio) if name == "swap_writeout" else model.zswap_store(folio)
        elif name == "zswap_load":
            gen = model.zswap_load(Folio(self.swpent[i], 0, self.folio[i] if self.sees(name, "folio") else -1))
        elif name == "zswap_invalidate":
            gen = model.zswap_invalidate(self.swpent[i])
        elif name == "zs_shrinker_scan":
            compacts = self.compacted_pool(pid, i)
            gen = compacts.zs_shrinker_scan()
        elif name == "zs_compact":
            compacts = self.compacted_pool(pid, i)
            gen = compacts.zs_compact()
        elif name == "zswap_shrinker_scan":
            gen = model.zswap_shrinker_scan(self.size[i], self.memcg[i], self.nid[i])
        elif name == "shrink_worker":
            gen = model.shrink_worker()
        elif name == "shrink_memcg":
            gen = model.shrink_memcg(self.memcg[i])
        elif name == "async_free_zspage":
            gen = self.current_zs_pool().async_free_zspage()
        else:
            self.count("outside event")
            return
        frame = Frame(name, watched(gen), number)
        if compacts is not None:
            frame.handed.compacts = compacts
        self.stacks.setdefault(pid, []).append(frame)
        effect = self.advance(frame, name, i)
        if effect is None or effect[0] != name:
            self.diverge("effect.order", i, recorded=name, predicted=effect[0] if effect else "nothing",
                         what="the operation began otherwise", frame=frame)
            return
        frame.answer = self._handlers[name](effect, i, frame)
        frame.effect = None
        if self.observe is not None:
            self.observe(number, name, effect)
        if name in self.eager and self.advance(frame, None, i) is None:
            self.stacks[pid].pop()

    def note(self, name: str, i: int) -> None:
        """A marker, snapshot, parameter write or loss."""
        self.count(name)
        if name == "marker":
            self.settle(i)
            self.snapshots.close()
        if name == "lost_events":
            self.events = self._base + i + 1
            raise LostEvents(self._base + i)
        if name == "marker":
            self.truth.marker(self.text[i], i)
            # A workload may say in a marker what it writes where: "param NAME=VALUE", "cgroup FILE=VALUE".
            kind, _, setting = self.text[i].partition(" ")
            if kind in ("param", "cgroup") and "=" in setting and self.settings.takes(kind):
                self.write_param(setting)
        elif name == "param":
            if self.settings.takes(name):
                self.write_param(self.text[i])
        else:
            self.settle(i)
            for stack in self.stacks.values():
                waits = stack[-1].effect if stack else None
                if waits is not None and waits[0][1:] in self.told_elsewhere:
                    self.guess(f"{waits[0][1:]} was not captured: what a task did before a snapshot shows only later")
            self.settings.reading(self.model, self.ret[i])
            self.truth.snapshot(self.text[i], i)
            unsure = [*self.unsure.values(), *self._pages_on_their_way()]
            self.snapshots.check(self.ret[i], self._base + i, self.ts[i], unsure)

    def write_param(self, setting: str) -> None:
        """A parameter or cgroup file was written: ``name=value``."""
        name, _, value = setting.partition("=")
        # The kernel refuses an impossible value with -EINVAL and stays as it was; so does the model.
        with contextlib.suppress(ValueError):
            self.model.set_param(name, value)

    def settle(self, i: int) -> None:
        """Advance every operation to its next effect: what it did after its last event has happened.

        It may not have happened yet, where its task was preempted right after that event: :attr:`unsure` keeps it
        until the task is seen again.
        """
        for pid, stack in self.stacks.items():
            if not stack or stack[-1].effect is not None:
                continue
            before = self.snapshots.standing()
            while stack and stack[-1].effect is None and self.advance(stack[-1], None, i) is None:
                stack.pop()
            after = self.snapshots.standing()
            changes = {name: value - before.get(name, 0) for name, value in after.items()
                       if value != before.get(name, 0)}
            if changes:
                self.unsure[pid] = changes

    def _pages_on_their_way(self) -> Iterator[dict[str, int]]:
        """Yield what counters changed by zspages whose pages may not have entered or left the pool's total yet."""
        for pid, stack in self.stacks.items():
            # Where __free_zspage() is probed, the model waits for its event before it takes the pages off.
            pages = sum(frame.inflight for frame in stack
                        if frame.effect is None or frame.effect[0] not in ("?trylock_zspage", "__free_zspage"))
            if pages and "zswap.pool_total_size" not in self.unsure.get(pid, ()):
                yield {"zswap.pool_total_size": pages * PAGE_SIZE, "meminfo.Zswap": pages * PAGE_SIZE // 1024,
                       "vmstat.nr_zspages": pages}

    def count(self, how: str) -> None:
        """Count an event as explained."""
        self.explained[how] = self.explained.get(how, 0) + 1

    # ---- divergences ------------------------------------------------------------------------------------

    def diverge(self, check: str, i: int, *, recorded: Any, predicted: Any, what: str,
                frame: Frame | None = None) -> None:
        """Report a difference at row ``i`` of the batch."""
        if not self.tally.wanted(check):
            self.tally.part(check, self._base + i)
            if check == "effect.order" and self.tally.broken_at is None:
                self.tally.broken_at = self._base + i
            return
        pid = self.pid[i]
        path = tuple((f.name, f.start) for f in self.stacks.get(pid, ()))
        if frame is not None and not path:
            path = ((frame.name, frame.start),)
        name = schema.NAMES[self.event[i]]
        self.tally.differ(Divergence(check, self._base + i, name, recorded, predicted, what, self.ts[i], pid,
                                     self.cpu[i], path, self.describe_state(frame), self.kernel_state()))

    def _counting(self, pid: int, stack: list[Frame] | None) -> bool:
        """True when a question about writeback may be zswap_shrinker_count()'s: only inside it, where it is probed."""
        if {"zswap_shrinker_count", "zswap_shrinker_count_ret"} <= self.captured:
            # A recording, or a cut of one, may begin inside it.
            return pid in self._in_count or (pid not in self.last_seen and pid not in self.pid[:self.now - self._base])
        expected = stack[-1].effect if stack else None
        asked = expected is not None and expected[0] == "mem_cgroup_zswap_writeback_enabled_ret"
        return self.model.shrinker_enabled is not False and not asked

    def diverge_counter(self, check: str, event: int, ts: int, recorded: int, predicted: int, what: str) -> None:
        """Report a counter that differs at a snapshot."""
        if self.tally.wanted(check):
            if "zswap_total_pages_ret" not in self.captured:
                # Reading a snapshot's files takes time, and these readings say when each was read.
                self.guesses.setdefault("zswap_total_pages_ret was not captured: when a snapshot's counters were read, "
                                        "while it was being taken, is not known", event)
            self.tally.differ(Divergence(check, event, "counters", recorded, predicted, what, ts, 0, 0, (),
                                         self.describe_state(None), self.kernel_state()))

    def unbalanced(self, found: int, due: int, what: str) -> None:
        """Report what does not agree at the recording's end: at its last event."""
        if self.tally.wanted("invariant.balance"):
            segments = self.recording.manifest["segments"]
            self.tally.differ(Divergence(
                "invariant.balance", max(0, self.events - 1), "end", found, due, self.blame(what),
                segments[-1]["last_ts"] if segments else 0, 0, 0, (), self.describe_state(None), self.kernel_state()))

    def kernel_state(self) -> dict[str, Any]:
        """Return what was last recorded of the kernel's own state."""
        state: dict[str, Any] = {}
        if self.last_total is not None:
            state["pool_pages"] = f"{self.last_total[1]} (read at event {self.last_total[0]})"
        return {**state, **self.snapshots.last_seen()}

    def finish(self) -> None:
        """The recording is over: settle operations and the last snapshot, and check whether all agrees."""
        with self.faults():
            self.settle(0)
        self.snapshots.close()
        self.balance(self.captured)
        if self.written_back >= _MANY and not self.marked_for_reclaim:
            # A page fault that finds such a folio in the swap cache clears the mark, which is PG_readahead too: of one
            # folio nothing can be said.
            self.tally.differ(Divergence(
                "writeback.folio", self.events - 1, "__swap_writepage", 0, f"some of {self.written_back}",
                "folios written back that are marked for reclaim (PG_reclaim), in the whole recording", 0, 0, 0))

    def _row(self, i: int) -> int:
        return self._base + i

    def quiescent(self) -> bool:
        """True when no task is inside an operation."""
        self.settle(0)
        return not any(self.stacks.values())
