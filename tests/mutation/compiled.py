# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m tests.mutation.compiled``: do the sweep's recordings notice compiled code that does one thing differently?

Compiling takes half a minute, a mutant's run a second: so nothing is compiled here.  With Numba's JIT switched off the
compiled engine's functions are plain Python, on the same tables.  What it does unchanged with every recording of the
sweep (:mod:`tests.sweeping`), as it is and with one value changed, is what the reference does: the sweep's tests hold
that.  A mutant that does anything else with one of them says something else than the reference.
"""

from __future__ import annotations

import numba

if __name__ == "__main__":
    # Not where a test run looks for doctests here: all that it compiles after that would be plain Python.
    numba.config.DISABLE_JIT = True

import argparse
import importlib
import json
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final

import numpy as np

from replay.cli.terminal import steps
from replay.fast import layout as L
from replay.reference.checks import Tally
from replay.verdict.setup import open_engine
from tests.mutation.hook import Substitute
from tests.mutation.mutator import Mutant, choose, enumerate_mutants, mutated
from tests.mutation.report import COMPILED_OUTCOMES, compiled_markdown, explanations, score_lines
from tests.mutation.trial import Sample, Trial
from tests.sweeping import Change, changes, imaginary, watch
from tests.tampering import Tampered
from traces.samples import sample_paths

__all__ = ["QUOTAS", "Run", "mutants", "prepared", "tried"]

ROOT: Final = Path(__file__).resolve().parents[2]
_PACKAGE: Final = "replay.fast"
#: file -> how many mutants of it, besides every single condition left out
QUOTAS: Final = {
    "replay/fast/advance.py": 8,
    "replay/fast/bound.py": 22,
    "replay/fast/compact.py": 24,
    "replay/fast/cursor.py": 16,
    "replay/fast/entry.py": 24,
    "replay/fast/rows.py": 24,
    "replay/fast/step.py": 60,
    "replay/fast/store.py": 30,
    "replay/fast/tables.py": 10,
    "replay/fast/tasks.py": 16,
    "replay/fast/walk.py": 30,
}
#: lines that the imaginary kernel plays, and samples whose tasks run concurrently
_MADE: Final = ("mainline-6.12", "mainline-6.18", "mainline-7.3")
_SHIPPED: Final = ("7.2-lz4-numa2",)
#: events behind a change that are still looked at
_BEHIND: Final = 6
#: at most this many changes of a recording are tried, spread over those that run what a mutant changes
_MOST: Final = 150
#: between two looks at the tables, where no operation is under way
_LOOK: Final = 64
#: CPU seconds that a mutant may take
_LIMIT: Final = 15.0
#: where the tables keep parameters and cgroup files
_SETTINGS: Final = [L.ENABLED, L.MAX_PAGES, L.ACCEPT_PAGES, L.ZSWAP_MAX, L.WRITEBACK, L.WAS_OFF, L.SHRINKER]
_SPREAD: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1


def _slot(mask: int, key: int) -> int:
    """tables._slot() with numbers that do not wrap of themselves; it decides nothing but where a row is looked for."""
    spread = int(key) * _SPREAD & _MASK
    return (spread ^ spread >> 32) & int(mask)


@dataclass
class Run:
    """A recording as the loop takes it, and what the engine unchanged did with it: see :func:`prepared`."""

    name: str
    engine: Any
    memory: Any
    start: np.ndarray
    columns: list[np.ndarray]
    predicted: tuple[np.ndarray, ...]
    plan: dict[int, list[Change]]
    #: event that says that a parameter was written -> what the tables hold of all of them then
    settings: dict[int, np.ndarray]
    #: change (None: the recording as it is) -> what was done with it
    did: dict[Change | None, Any] = field(default_factory=dict)
    #: change (None: the recording as it is) -> lines (file, number) that ran
    reached: dict[Change | None, frozenset[tuple[str, int]]] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many events it has."""
        return len(self.columns[0])


class _Stopped(Exception):
    """The loop left an event to the reference that belongs to the recording as it is."""


class _TooLong(BaseException):
    """A mutant used up its CPU time."""


def _loaded() -> Any:
    """Import the loop anew, with whatever stands in the place of its modules."""
    for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")
                 and name.rpartition(".")[2] not in ("layout", "memory", "eligible", "runner")]:
        del sys.modules[name]
    # Nothing is compiled, so nothing stands for what was.
    stub = ModuleType(f"{_PACKAGE}.fingerprint")
    stub.fingerprint = lambda function: 0  # type: ignore[attr-defined]
    sys.modules[stub.__name__] = stub
    step: Any = importlib.import_module(f"{_PACKAGE}.step")
    tables: Any = importlib.import_module(f"{_PACKAGE}.tables")
    step.bare = lambda heap: heap
    tables._slot = _slot
    return step


def _go(step: Any, run: Run, m: np.ndarray, first: int, last: int) -> int:
    """Run events ``first`` to ``last``; returns the one that was left to the reference, -1 for none."""
    while first < last:
        row, why = step.run(first, last, 0, *run.columns, m, *run.predicted, np.zeros((run.events, 4), np.int64))
        if why == L.DONE:
            return -1
        if why != L.NOTE:
            return int(row)
        m[_SETTINGS] = run.settings.get(int(row), m[_SETTINGS])
        first = row + 1
    return -1


def _counts(m: np.ndarray) -> tuple[int, ...]:
    """How often each check compared, what was explained how, which branches were gone through; shrink_worker()'s order."""
    return (*m[L.COMPARED:L.CAPTURED].tolist(), *m[L.BRANCHED:L.SCALARS].tolist(), *m[[L.PREEMPTED, L.REORDERED, L.READS_ONE, L.READS_TWO]].tolist())


def _tables(run: Run, m: np.ndarray) -> str:
    """What the tables say of the model's state."""
    run.memory.m = m
    return repr((run.memory.dump(run.engine), sorted(run.memory.spans().items()), list(run.memory.ending())))


def _tour(step: Any, run: Run, wanted: Callable[[Change], bool]) -> Iterator[tuple[Change | None, Any]]:
    """Run a recording as it is and, from the event on at which each differs, with the changes that are wanted.

    Yields (change, (event left to the reference, counts there)), and for the recording as it is (None, (counts, tables
    at each look)).

    :raises _Stopped: where it leaves something of the recording as it is to the reference
    """
    m = run.start.copy()
    looks: list[Any] = []
    at, looked = 0, 0
    for event in [*sorted(run.plan), run.events]:
        if _go(step, run, m, at, event) >= 0:
            raise _Stopped
        at = event
        if at == run.events and not step.run(0, step.SETTLE, 0, *run.columns, m, *run.predicted, None)[0]:
            raise _Stopped
        if (at - looked >= _LOOK and step.run(0, step.QUIET, 0, *run.columns, m, *run.predicted, None)[0]) \
                or at == run.events:
            looks.append((at, _tables(run, m)))
            looked = at
        for change in run.plan.get(event, ()):
            if not wanted(change):
                continue
            kept = m[:m[L.TOP]].copy()
            column = run.columns[_COLUMNS.index(change.column)]
            old = column[event].copy()
            column[event] = change.value - (1 << 64) if change.value > np.iinfo(column.dtype).max else change.value
            stop = _go(step, run, m, event, min(event + _BEHIND, run.events))
            yield change, (stop, _counts(m) if stop < 0 else ())
            column[event] = old
            m[:len(kept)] = kept
    yield None, (_counts(m), looks)


_COLUMNS: list[str] = []


def prepared(folder: Path) -> list[Run]:
    """Return the recordings, each with what the engine unchanged does with it."""
    runner: Any = importlib.import_module(f"{_PACKAGE}.runner")
    _COLUMNS[:] = runner._LOOP
    recordings = [(line, imaginary(folder / line, line)) for line in _MADE]
    recordings += [(path.name, Tampered(path)) for path in sample_paths() if path.name in _SHIPPED]
    runs = []
    importlib.import_module(f"{_PACKAGE}.tables")._slot = _slot
    for name, recording in recordings:
        plan: dict[int, list[Change]] = {}
        for change in changes(recording, watch(recording)):
            plan.setdefault(change.event, []).append(change)
        engine, _, _ = open_engine(recording, None, Tally())
        fast = runner.FastReplay(engine)
        assert fast._adopt(0), f"{name} is not replayed by compiled code: {fast.reason}"
        columns = next(fast._segments(0))[1]
        run = Run(name, engine, fast._memory, fast._memory.m.copy(), [columns[each].copy() for each in runner._LOOP],
                  fast._predicted, plan, _settings(recording, engine.state.model, fast._memory))
        # Its parameters are those of the end now; the tables begin with those of the start.
        step = _loaded()
        for change, did, lines in _traced(_tour(step, run, lambda change: True)):
            run.did[change], run.reached[change] = did, lines
        runs.append(run)
    return runs


def _settings(recording: Tampered, model: Any, memory: Any) -> dict[int, np.ndarray]:
    """What the tables hold of parameters and cgroup files after each event that says that one was written."""
    out: dict[int, np.ndarray] = {}
    for row in np.flatnonzero(recording.columns["text"] != "").tolist():
        kind, _, setting = str(recording.columns["text"][row] or "").partition(" ")
        if kind in ("param", "cgroup") and "=" in setting:
            name, _, value = setting.partition("=")
            model.set_param(name, value)
            memory.take_params(model)
            out[row] = memory.m[_SETTINGS].copy()
    return out


def _traced(tour: Iterator[tuple[Change | None, Any]]) -> Iterator[tuple[Change | None, Any, frozenset[tuple[str, int]]]]:
    """Yield what a tour does with the lines that ran for it; with what stays as it is, those of all before."""
    here, every = set[tuple[str, int]](), set[tuple[str, int]]()
    folder = str(ROOT / "replay" / "fast")

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        if event == "line":
            here.add((os.path.basename(frame.f_code.co_filename), frame.f_lineno))
        return trace

    while True:
        here.clear()
        sys.settrace(trace)
        try:
            change, did = next(tour)
        except StopIteration:
            return
        finally:
            sys.settrace(None)
        every |= here
        yield change, did, frozenset(every if change is None else here)


def _try(mutant: Mutant, runs: Sequence[Run]) -> Trial:
    """Run a mutant until it does something else than the engine unchanged."""
    line = (mutant.path.rpartition("/")[2], mutant.statement)
    out = Trial(mutant, reaching=[run.name for run in runs if any(line in lines for lines in run.reached.values())])
    if not out.reaching:
        return out
    file = ROOT / mutant.path
    sys.meta_path.insert(0, Substitute({mutant.module: (file, lambda: mutated(file.read_text(), mutant.number,
                                                                                operands=True))}))
    step = _loaded()
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, _LIMIT)
    try:
        for run in runs:
            if run.name not in out.reaching:
                continue
            out.tried.append(run.name)
            out.sample = run.name
            reach = [change for change in run.did if change is not None and line in run.reached[change]]
            wanted = set(reach[::-(-len(reach) // _MOST) or 1])
            try:
                for change, did in _tour(step, run, wanted.__contains__):
                    if did != run.did[change]:
                        out.outcome, out.check, out.event, out.detail = "caught", *_told(change, did, run.did[change])
                        return out
            except _Stopped:
                # The reference decides: that takes longer and changes no verdict.
                out.outcome, out.detail = "handed over", ""
    except _TooLong:
        out.outcome = "timeout"
    except Exception as problem:
        out.outcome, out.detail = "exception", f"{type(problem).__name__}: {problem}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if out.outcome == "survived":
        out.sample = ""
    return out


def _too_long(number: int, frame: object) -> None:
    raise _TooLong


def _told(change: Change | None, did: Any, before: Any) -> tuple[str, int | None, str]:
    """(what is not the same, event, words)"""
    if change is None:
        if did[0] != before[0]:
            return "counts", None, ""
        event = next((at for (at, now), (_, then) in zip(did[1], before[1], strict=False) if now != then), None)
        return "tables", event, ""
    if did[0] == before[0]:
        return "counts", change.event, str(change)
    if before[0] >= 0 and (did[0] < 0 or did[0] > before[0]):
        return "goes past a difference", change.event, str(change)
    return "stops elsewhere", change.event, str(change)


def mutants(quotas: dict[str, int], seed: int) -> tuple[list[Mutant], int]:
    """Return every condition left out and a seeded choice of the other mutants, and how many there are.

    What runs on import is left out: constants that come from elsewhere, places of columns, which are names.
    """
    every = [mutant for path in quotas for mutant in enumerate_mutants(ROOT, path, operands=True)
             if mutant.statement and mutant.function not in ("_slot", "_flags", "_make")]
    chosen = [mutant for mutant in every if mutant.kind == "operand"]
    chosen += choose([mutant for mutant in every if mutant.kind != "operand"], quotas, seed)
    return sorted(chosen, key=lambda mutant: (mutant.path, mutant.number)), len(every)


def tried(chosen: Sequence[Mutant], runs: Sequence[Run], jobs: int = 1,
          progress: Callable[[str, int, int], None] | None = None, minutes: float = 1e9) -> list[Trial]:
    """Try every mutant, each in a process forked from this one; returns trials in the mutants' order.

    :param minutes: after this time no mutant is begun; they are taken in a random order, the same every time
    """
    trials: dict[int, Trial] = {}
    waiting = list(enumerate(chosen))
    random.Random(len(chosen)).shuffle(waiting)
    end = time.monotonic() + 60 * minutes
    running: dict[int, tuple[int, int, float]] = {}
    while waiting or running:
        if time.monotonic() > end:
            waiting.clear()
        while waiting and len(running) < jobs:
            number, mutant = waiting.pop()
            read, write = os.pipe()
            pid = os.fork()
            if not pid:
                os.setsid()
                os.close(read)
                _child(mutant, runs, write)
            os.close(write)
            running[pid] = (number, read, time.monotonic())
        pid, _ = os.wait()
        number, read, began = running.pop(pid)
        with os.fdopen(read, "rb") as answer:
            said = answer.read()
        trials[number] = pickle.loads(said) if said else Trial(chosen[number], "timeout", detail="its process died")
        trials[number].seconds = round(time.monotonic() - began, 2)
        if progress is not None:
            progress("mutants of the compiled engine", len(trials), len(chosen))
    return [trials[number] for number in sorted(trials)]


def _child(mutant: Mutant, runs: Sequence[Run], write: int) -> None:
    """Try one mutant and end."""
    try:
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            trial = _try(mutant, runs)
        with os.fdopen(write, "wb") as answer:
            answer.write(pickle.dumps(trial))
    finally:
        os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.compiled", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which mutants are chosen (default 1)")
    parser.add_argument("--only", metavar="TEXT", help="only mutants whose name holds this")
    parser.add_argument("--all", action="store_true", help="every mutant there is instead of a choice")
    parser.add_argument("--share", type=float, default=1.0, help="this share of the usual number (default 1)")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no mutant after N minutes")
    parser.add_argument("--kind", help="only mutants of this kind")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default 2)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every trial there")
    parser.add_argument("--from", dest="result", metavar="FILE", type=Path,
                        help="try nothing, report on this result of --json")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the report there")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; 0, or 1 when a survivor is not explained."""
    args = _parser().parse_args(argv)
    if args.result is not None:
        data = json.loads(args.result.read_text())
        trials = [Trial(Mutant(**row.pop("mutant")), **{k: v for k, v in row.items() if k != "name"})
                  for row in data["trials"]]
        samples, population = [Sample(**row) for row in data["samples"]], data["population"]
        changed = data["changed"]
    else:
        quotas = {path: 1 << 20 if args.all else max(1, round(args.share * quota)) for path, quota in QUOTAS.items()}
        chosen, population = mutants(quotas, args.seed)
        chosen = [mutant for mutant in chosen if (not args.only or args.only in mutant.name)
                  and args.kind in (None, mutant.kind)]
        with tempfile.TemporaryDirectory() as folder, steps() as progress:
            warnings.simplefilter("ignore")
            with np.errstate(all="ignore"):
                runs = prepared(Path(folder))
            changed = sum(len(run.did) - 1 for run in runs)
            trials = tried(chosen, runs, args.jobs, progress, args.minutes)
        samples = [Sample(run.name, events=run.events) for run in runs]
    if args.json:
        rows = [{"path": s.path, "events": s.events} for s in samples]
        args.json.write_text(json.dumps({"seed": args.seed, "population": population, "changed": changed, "samples": rows,
                                         "trials": [t.as_dict() for t in trials]}, indent=1) + "\n")
    known = explanations(Path(__file__).with_name("survivors-compiled.toml"))
    if args.markdown:
        args.markdown.write_text(compiled_markdown(trials, samples, population, changed, known, args.seed))
    print("\n".join(score_lines(trials, COMPILED_OUTCOMES)))
    unexplained = [t for t in trials if t.outcome == "survived" and known.find(t) is None]
    for trial in unexplained:
        print(f"  not explained: {trial.mutant.path}:{trial.mutant.line} {trial.mutant.name}"
              + ("" if trial.reaching else " [not reached]"))
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
