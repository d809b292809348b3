# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives a replay: compiled as far as that can confirm, by the reference where it cannot.

The compiled loop stops at what it cannot confirm.  It is then run once more from the last moment that was kept up to
the last one before the stop at which no operation was under way; there the reference takes over, goes past the stop,
and, where it found no divergence, hands back.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.branches import BRANCHES
from model.effects import Steps
from model.zswap import Zswap, ZswapEntry
from replay.fast import layout as L
from replay.fast.cursor import holds, show_cursor, take_cursor
from replay.fast.eligible import setup, why_not
from replay.fast.memory import LAST_EFFECT, Heap, signed, unsigned
from replay.fast.rows import truth_held
from replay.fast.settings import take_settings
from replay.fast.step import QUIET, SETTLE, run
from replay.reference.batch import COLUMNS
from replay.reference.engine import Engine, LostEvents
from replay.reference.frame import Frame
from replay.reference.handlers.zswap import QUESTION
from replay.reference.modelstate import dump_state, load_state
from replay.reference.settings import EVENTS as SETTINGS
from traces import schema

if TYPE_CHECKING:
    from replay.reference.predictions import Predictions

__all__ = ["READ", "ROWS", "FastReplay"]

#: the columns that are read
READ: Final = tuple(name for name in COLUMNS if name not in ("ts", "cpu"))
_LOOP: Final = ("event", "pid", "swpent", "folio", "entry", "handle", "obj", "zspage", "pool", "memcg", "data", "ret",
                "size", "dlen", "offset", "word", "inuse", "freeobj", "order", "ref", "nid", "content")
_WIDE: Final = frozenset(_LOOP[2:11])
#: what the model lets be written while it runs
_PARAMS: Final = ("enabled", "max_pool_percent", "accept_threshold_percent", "zswap_max", "writeback_enabled",
                  "_writeback_was_off", "shrinker_enabled")
#: Rows taken at a time where a segment is longer: a multiple of the reference's batches, and so few that their columns
#: stay in a CPU's caches; with eight times as many an event takes a fifth longer.
ROWS: Final = L.BATCH
#: The tables are kept every this many events, or after as many as there are live entries times four.
_KEEP: Final = 1 << 20
#: How far past a stop the reference goes at least before it hands back, or as far as there are live entries: handing
#: over and back costs what those cost.
_PAST: Final = 1 << 12
#: The same where a cgroup's limit made the compiled loop stop again and again.
_LONGEST: Final = 1 << 20


class _Odd(Exception):
    """A note that only the reference can take."""


def _counted(model: Zswap, entry: ZswapEntry | None) -> Steps[None]:
    """What is left of an operation that has no effect to come."""
    if entry is not None:
        model.count_freed(entry)
    yield from ()


class FastReplay:
    """Replays one recording like :meth:`replay.reference.engine.Engine.run`, and leaves everything in the engine as it
    would.

    :param engine: ready to replay, at the recording's start
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.state = state = engine.state
        self.recording = state.recording
        self.reason = why_not(engine)
        #: events confirmed by the compiled loop, and stretches that the reference replayed
        self.confirmed = 0
        self.stretches: list[tuple[int, int]] = []
        self._memory: Heap | None = None
        self._past = _PAST
        self._kept: tuple[int, np.ndarray, dict[str, Any]] | None = None
        self._predicted = _predicted(state.predictions, state.model.pools[0].tfm_name)
        self._diverge = (state.snapshots.diverge, engine.truth.diverge)
        self._refs = state.predictions.refs
        self._page_of: dict[str, int] | None = None

    def run(self, progress: Callable[[int], None] | None = None) -> None:
        """Replay all events; ends at the first divergence unless the engine keeps going.

        :raises LostEvents: where the recording lost events
        """
        engine, state = self.engine, self.state
        if self.reason:
            engine.run(progress=progress)
            return
        at, total = 0, len(self.recording)
        while at < total:
            quiet = odd = at
            if self._adopt(at):
                try:
                    stopped = self._compiled(at, progress)
                except LostEvents:
                    self._leave(at)
                    raise
                # The reference names operations that do not end before the recording does.
                if stopped is None and self._asked(SETTLE) and self._asked(QUIET):
                    engine.events = total
                    self._leave(at)
                    return
                odd = total if stopped is None else stopped
                if self._memory is not None and self._memory.m[L.WHY] in (L.H_LIMIT, L.H_WRITEBACK):
                    # Where the moment decides about a cgroup, it will do so again soon.
                    self._past = min(4 * self._past, _LONGEST)
                quiet = self._hand_over()
                self.confirmed += quiet - at
            back = self._reference(quiet, odd + max(self._past, len(state.model.tree)), progress)
            self.stretches.append((quiet, total if back is None else back))
            if back is None:
                return
            at = back

    # ---- the compiled loop ------------------------------------------------------------------------------

    def _adopt(self, at: int) -> bool:
        """Turn the engine's state into tables; False where they cannot hold it."""
        engine, state = self.engine, self.state
        model = state.model
        if not self._fits():
            return False
        memory = Heap(model.chain_size, state.snapshots.history.maxlen or 1)
        spans = {entry.swpent: span for entry, span in engine.lru.overlaps.items()
                 if model.tree.get(entry.swpent) is entry}
        # Operations under way go into the tables below: to the dump the model is between operations.
        stacks, state.stacks = state.stacks, {}
        dumped = dump_state(engine)
        state.stacks = stacks
        try:
            memory.load(dumped, spans)
        except OverflowError:  # a number of a start state that no kernel can have
            return False
        memory.load_tasks(engine)
        memory.take_params(model)
        take_cursor(memory.m, model.worker)
        setup(engine, memory.m)
        take_settings(memory, engine)
        memory.m[[L.CAPTURED + schema.CODE[name] for name in state.captured if name in schema.CODE]] = 1
        s = memory.m
        s[L.IDX_BITS], s[L.CLASS_BITS], s[L.HAS_STATE] = state.idx_bits, state.class_bits, engine.has_state
        s[L.COMPACTING] = model.pools[0].zs_pool.compaction_in_progress
        s[L.PREEMPTED], s[L.REORDERED] = engine.totals.preempted_reads, engine.lru.reordered
        s[L.WRITTEN_BACK], s[L.MARKED_FOR_RECLAIM] = engine.zswap.written_back, engine.zswap.marked_for_reclaim
        s[L.READS_ONE], s[L.READS_TWO] = engine.zsmalloc.sg_entries[1], engine.zsmalloc.sg_entries[2]
        if state.last_total is not None:
            s[L.TOTAL_AT], s[L.TOTAL_READ] = state.last_total
        for number, (event, account, zeros) in enumerate(state.snapshots.history):
            at_row = s[L.HISTORY_AT] + 8 * number
            s[at_row:at_row + 8] = (event, *account, zeros)
        s[L.CHANGES] = len(state.snapshots.history)
        for number, (event, pools) in enumerate(engine.totals.changes):
            at_row = s[L.TOTALS_AT] + 2 * number
            s[at_row:at_row + 2] = (event, pools[0])
        s[L.TOTALS] = len(engine.totals.changes)
        s[L.WINDOW] = state.snapshots.window is not None
        s[L.QUIET_AT] = at
        state.snapshots.diverge = engine.truth.diverge = self._odd
        engine.truth.compare = self._truth  # type: ignore[method-assign]
        self._memory = memory
        self._keep(at)
        return True

    def _fits(self) -> bool:
        """True where tables can hold the engine's state.

        That is where there is one pool and nothing has diverged, no operation has an effect to come, and no counter is
        still open.
        """
        engine, state = self.engine, self.state
        window = state.snapshots.window
        # The reference follows entries that are out of date.
        if engine.invariants.outdated or engine.invariants.zswpout_due != state.model.counters.zswpout:
            return False
        if state.tally.different or state.tally.broken_at is not None or not state.lru_address \
                or len(state.model.pools) != 1 or engine.lru.adding or engine.out_of_step \
                or (window is not None and window.open):
            return False
        if not holds(state.model.worker):
            return False
        return all(not stack or (len(stack) == 1 and stack[0].effect is None
                                 and LAST_EFFECT.get(stack[0].name, ("",))[0] == stack[0].last[0])
                   for stack in state.stacks.values())

    def _compiled(self, start: int, progress: Callable[[int], None] | None = None,
                  stop: int | None = None) -> int | None:
        """Replay from ``start``; returns the event that could not be confirmed, None at ``stop`` or the end."""
        memory = self._memory
        assert memory is not None
        for base, columns in self._segments(start):
            count = len(columns["event"])
            first = max(0, start - base)
            last = count if stop is None else min(count, stop - base)
            arrays = [columns[name] for name in _LOOP]
            writes = np.zeros((count if memory.m[L.KEEP_WRITES] else 1, 4), np.int64)
            if stop is None and self._kept is not None \
                    and base - self._kept[0] > max(_KEEP, 4 * int(memory.m[L.ENTRIES_LIVE])) and self._asked(QUIET):
                memory.m[L.QUIET_AT] = base + first
                self._keep(base + first)
            while first < last:
                row, why = run(first, last, base, *arrays, memory.m, *self._predicted, writes)
                if why == L.GROW:
                    memory.grow()
                    first = row
                    continue
                if why == L.ODD:
                    return int(base + row)
                first = row
                if why == L.NOTE:
                    try:
                        self._note(schema.NAMES[columns["event"][row]], int(columns["ret"][row]), base + int(row),
                                   columns["text"][row])
                    except _Odd:
                        return int(base + row)
                    first = row + 1
            if memory.m[L.KEEP_WRITES]:
                self.engine.zsmalloc.writes += [
                    (event, unsigned(handle), length, content)
                    for event, handle, length, content in writes[:memory.m[L.WRITES]].tolist()]
                memory.m[L.WRITES] = 0
            if progress is not None:
                progress(base + last)
            if stop is not None and base + last >= stop:
                return None
        return None

    def _asked(self, what: int) -> bool:
        """Ask whether no operation is under way (QUIET), or advance operations and say if it could (SETTLE)."""
        assert self._memory is not None
        return bool(run(0, what, 0, *_NO_ROWS, self._memory.m, *self._predicted, np.zeros((1, 4), np.int64))[0])

    def _segments(self, start: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield segments from the one with event ``start`` in it, columns as the loop takes them."""
        for base, columns in self.recording.batches(READ, rows=ROWS, start=start):
            out = {}
            for name in _LOOP:
                array = np.ascontiguousarray(columns[name])
                out[name] = _read_only(array.view(np.int64) if name in _WIDE else array)
            out["text"] = columns["text"]
            yield base, out

    def _note(self, name: str, ret: int, number: int, text: str) -> None:
        """Engine.note(), after operations were settled.

        :raises _Odd: where a counter is not as predicted, or another pool is created
        """
        engine, state, memory = self.engine, self.state, self._memory
        assert memory is not None
        if name in SETTINGS:
            self._setting(number)
            return
        memory.show(state.model)
        engine.count(name)
        if name == "lost_events":
            engine.events = number + 1
            raise LostEvents(number)
        if name == "marker":
            state.snapshots.close()
            engine.truth.marker(text, number)
            kind, _, setting = text.partition(" ")
            if kind in ("param", "cgroup") and "=" in setting and state.settings.takes(kind):
                self._param(setting)
        elif name == "param":
            if state.settings.takes(name):
                self._param(text)
        else:
            state.settings.reading(state.model, ret)
            memory.take_params(state.model)
            engine.truth.snapshot(text, number)
            state.snapshots.check(ret, number, 0, [])
            window = state.snapshots.window
            if window is not None and window.open:
                raise _Odd
        memory.m[L.WINDOW] = state.snapshots.window is not None

    def _param(self, setting: str) -> None:
        name, _, value = setting.partition("=")
        if name == "compressor" and value.strip() != self.state.model.pools[0].tfm_name:
            raise _Odd
        self.engine.write_param(setting)
        assert self._memory is not None
        self._memory.take_params(self.state.model)

    def _setting(self, number: int) -> None:
        """A setting is written, or a cgroup comes or goes.

        :raises _Odd: where another pool is created
        """
        engine, state, memory = self.engine, self.state, self._memory
        assert memory is not None
        if state.settings.switches(number, state.model):
            raise _Odd
        engine.count("setting")
        state.settings.at(number, state.model)
        memory.take_params(state.model)
        take_settings(memory, engine)

    def _truth(self, rows: list[tuple[int, str]], i: int) -> None:
        """TruthChecks.compare() over the tables.

        :raises _Odd: where another page is stored than the workload put there
        """
        assert self._memory is not None
        engine, state = self.engine, self.state
        if self._page_of is None:
            self._page_of = {sha1: row for row, sha1 in enumerate(state.predictions.sha1)}
        same, different, elsewhere = truth_held(
            self._memory.m, self._refs, np.array([signed(swpent) for swpent, _ in rows], np.int64),
            np.array([self._page_of.get(sha1, -1) for _, sha1 in rows], np.int64))
        if different:
            raise _Odd
        state.tally.compared["load.content"] += same
        engine.truth.elsewhere += elsewhere

    def _judge_again(self) -> None:
        """Let counters and truth be judged by the engine again, which reports what differs."""
        engine, state = self.engine, self.state
        state.snapshots.diverge, engine.truth.diverge = self._diverge
        vars(engine.truth).pop("compare", None)

    def _odd(self, *_: Any, **__: Any) -> None:
        raise _Odd

    # ---- moments to go back to -----------------------------------------------------------------------------

    def _keep(self, at: int) -> None:
        """Keep everything as it is before event ``at``."""
        assert self._memory is not None
        engine, state = self.engine, self.state
        snapshots, truth = state.snapshots, engine.truth
        self._kept = (at, self._memory.copy(), {
            "compared": dict(state.tally.compared), "reasons": dict(state.tally.reasons),
            "explained": dict(engine.explained), "writes": len(engine.zsmalloc.writes),
            "snapshots": (dict(snapshots.base), copy.deepcopy(snapshots.window), snapshots.number, snapshots.late,
                          snapshots.early, snapshots.lagged, snapshots.settled, snapshots.freed,
                          dataclasses.replace(snapshots.loose)),
            "truth": (truth.phase, dict(truth._rows), truth.elsewhere, truth.held),
            "params": {name: getattr(state.model, name) for name in _PARAMS}, "settings": state.settings.kept()})

    def _go_back(self) -> int:
        """Go back to what was kept last; returns the event before which that was."""
        assert self._kept is not None
        assert self._memory is not None
        at, tables, rest = self._kept
        engine, state = self.engine, self.state
        self._memory.restore(tables)
        # What compares holds on to this dictionary.
        state.tally.compared.clear()
        state.tally.compared.update(rest["compared"])
        state.tally.reasons = dict(rest["reasons"])
        engine.explained = dict(rest["explained"])
        del engine.zsmalloc.writes[rest["writes"]:]
        snapshots, truth = state.snapshots, engine.truth
        (base, window, snapshots.number, snapshots.late, snapshots.early, snapshots.lagged,
         snapshots.settled, snapshots.freed, loose) = rest["snapshots"]
        snapshots.loose = dataclasses.replace(loose)
        snapshots.base, snapshots.window = dict(base), copy.deepcopy(window)
        truth.phase, rows, truth.elsewhere, truth.held = rest["truth"]
        truth._rows = dict(rows)
        for name, value in rest["params"].items():
            setattr(state.model, name, value)
        state.settings.rewind(*rest["settings"])
        return at

    def _hand_over(self) -> int:
        """Give the engine the state of the last quiet moment; returns the number of its next event."""
        memory, engine, state = self._memory, self.engine, self.state
        assert memory is not None
        quiet = int(memory.m[L.QUIET_AT])
        kept = self._go_back()
        if quiet > kept:
            stopped = self._compiled(kept, stop=quiet)
            assert stopped is None
        dumped, spans = memory.dump(engine), memory.spans()
        ending, unsure = list(memory.ending()), memory.unsure(state.model)
        self._flush()
        old = state.model
        model = type(old)(totalram_pages=old.totalram_pages, compressor=old.pools[0].tfm_name,
                          chain_size=old.chain_size)
        engine.restart(model)
        self._judge_again()
        model.reached.update(old.reached)
        show_cursor(memory.m, model.worker)
        had_state = engine.has_state
        load_state(engine, dumped)
        engine.has_state = had_state
        for swpent, span in spans.items():
            engine.lru.overlaps[model.tree[swpent]] = span
        for pid, op, began, gone in ending:
            entry = None
            if gone is not None:
                entry = model.new_entry(gone[0], model.pools[0])
                entry.length, entry.objcg = gone[1], gone[2]
            frame = Frame(schema.NAMES[op], _counted(model, entry), began)
            frame.last = (LAST_EFFECT[schema.NAMES[op]][0], entry)
            state.stacks[pid] = [frame]
        state.unsure = unsure
        self._give_back(memory)
        return quiet

    def _give_back(self, memory: Heap) -> None:
        """What the engine itself keeps."""
        engine, state, s = self.engine, self.state, memory.m
        tasks = memory.tasks()
        engine.batch.clear()
        engine.batch.last_seen = {int(task[L.T_PID]): int(task[L.T_LAST]) for task in tasks}
        engine.foreign_adds = {int(task[L.T_PID]) for task in tasks if task[L.T_FOREIGN]}
        engine.in_count = {int(task[L.T_PID]) for task in tasks if task[L.T_COUNTING]}
        state.snapshots.history.clear()
        history = s[s[L.HISTORY_AT]:s[L.HISTORY_AT] + 8 * (s[L.HISTORY_MASK] + 1)].reshape(-1, 8)
        totals = s[s[L.TOTALS_AT]:s[L.TOTALS_AT] + 2 * L.TOTALS_ROOM].reshape(-1, 2)
        for row in _ring(history, int(s[L.CHANGES])):
            state.snapshots.history.append((row[0], tuple(row[1:7]), row[7]))
        engine.totals.changes.clear()
        engine.totals.changes.extend((row[0], [row[1]]) for row in _ring(totals, int(s[L.TOTALS])))

    def _flush(self) -> None:
        """Add what the loop counted to the engine's own counts."""
        engine, state, memory = self.engine, self.state, self._memory
        assert memory is not None
        s = memory.m
        for number, name in enumerate(L.CHECK_IDS):
            state.tally.compared[name] += int(s[L.COMPARED + number])
        for number, name in enumerate(L.EXPLANATIONS):
            if s[L.EXPLAINED + number]:
                engine.explained[name] = engine.explained.get(name, 0) + int(s[L.EXPLAINED + number])
        for number, name in enumerate(BRANCHES):
            if s[L.BRANCHED + number]:
                state.model.reached[name] += int(s[L.BRANCHED + number])
        s[L.BRANCHED:L.BRANCHED + len(BRANCHES)] = 0
        state.asked.update(name for number, name in enumerate(L.QUESTION_OF) if name and s[L.ASKED + number])
        for number, name in ((L.UNKNOWN_LIMIT, "memcg.limit"), (L.UNKNOWN_WRITEBACK, "memcg.writeback")):
            # The two that count whose setting is not known follow these.
            state.settings.not_told(name, int(s[number]), int(s[number + 2]))
            state.tally.unknown[name] += int(s[number])
            if s[number]:
                state.asked.add(QUESTION[name])
            s[number] = s[number + 2] = 0
        s[L.COMPARED:L.COMPARED + len(L.CHECK_IDS)] = 0
        s[L.EXPLAINED:L.EXPLAINED + len(L.EXPLANATIONS)] = 0
        state.captured -= _never_seen(engine, memory)
        engine.totals.preempted_reads, engine.lru.reordered = int(s[L.PREEMPTED]), int(s[L.REORDERED])
        engine.zsmalloc.sg_entries = {1: int(s[L.READS_ONE]), 2: int(s[L.READS_TWO])}
        engine.zswap.written_back = int(s[L.WRITTEN_BACK])
        engine.zswap.marked_for_reclaim = int(s[L.MARKED_FOR_RECLAIM])
        if s[L.TOTAL_AT] >= 0:
            state.last_total = (int(s[L.TOTAL_AT]), int(s[L.TOTAL_READ]))

    # ---- the reference ----------------------------------------------------------------------------------------

    def _reference(self, start: int, least: int, progress: Callable[[int], None] | None) -> int | None:
        """Let the engine replay from ``start``; returns an event past ``least`` before which the loop can continue.

        None when the recording, or what can be followed of it, is over.
        """
        engine, state, names = self.engine, self.state, schema.NAMES
        for base, columns in self.recording.batches(COLUMNS, start=start):
            engine.batch.take(base, columns)
            codes, pids = engine.batch.event, engine.batch.pid
            for i in range(max(0, start - base), len(codes)):
                if base + i >= least and not i & 63 and self._fits():
                    engine.batch.last_seen.update((pid, base + row) for row, pid in enumerate(engine.batch.pid[:i]))
                    engine.events = base + i
                    return base + i
                with engine.faults():
                    engine.step(names[codes[i]], pids[i], i)
                if state.tally.divergences and not engine.keep_going:
                    engine.events = base + i + 1
                    return None
            engine.events = base + len(codes)
            if progress is not None:
                progress(engine.events)
        return None

    def _leave(self, start: int) -> None:
        """What can be followed of the recording is over in the loop: leave everything as the engine would.

        :param start: where the loop took over
        """
        memory, engine, state = self._memory, self.engine, self.state
        assert memory is not None
        memory.show(state.model)
        show_cursor(memory.m, state.model.worker)
        self._flush()
        self._judge_again()
        state.stacks.clear()
        engine.invariants.held_at_end = memory.holdings(state.model.counters.zswpout)
        self.confirmed += engine.events - start


def _never_seen(engine: Engine, memory: Heap) -> set[str]:
    """Return the events that turned out to come from a function which this build inlines where the model goes."""
    return {name for name in engine.state.captured
            if name in schema.CODE and not memory.m[L.CAPTURED + schema.CODE[name]]}


def _ring(table: np.ndarray, written: int) -> list[list[int]]:
    """Return the rows of a table that is written round and round, oldest first."""
    rows = len(table)
    order = np.arange(max(0, written - rows), written) % rows
    out: list[list[int]] = table[order].tolist()
    return out


def _predicted(predictions: Predictions, name: str) -> tuple[np.ndarray, ...]:
    """Return references, errors, lengths, first bytes (compressed, raw) and which are known, as the loop takes them."""
    arrays = predictions.arrays(name)
    if arrays is None:
        return tuple(_read_only(np.zeros(0, kind))
                     for kind in (np.int64, np.int32, np.int32, np.int64, np.int64, np.bool_))
    arrays = arrays._replace(head=arrays.head.view(np.int64), raw=arrays.raw.view(np.int64))
    return tuple(_read_only(array) for array in arrays)


def _read_only(array: np.ndarray) -> np.ndarray:
    """One kind of array, whether it was computed or read: the loop is compiled once."""
    same = np.ascontiguousarray(array)[:]
    same.flags.writeable = False
    return same


#: the columns of no event at all
_NO_ROWS: Final = tuple(_read_only(np.zeros(0, np.int64 if name in _WIDE else column.dtype)) for name in _LOOP
                        for column in schema.COLUMNS if column.name == name)
