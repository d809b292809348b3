# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole of a replay in one call: :func:`replay`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from model.branches import branches_of
from model.effects import Effect
from model.list_lru import ListLru
from model.revisions import REVISIONS
from model.zsmalloc import ZsPool
from model.zswap import Zswap
from replay.iaa.check import run_driver
from replay.reference.answers import taken, unseen
from replay.reference.capturegaps import HOW_TO_RECORD, seen_only
from replay.reference.checks import CHECKS, DRIVER_CHECKS, INTERNAL, Tally, unknown_checks
from replay.reference.engine import LostEvents
from replay.reference.state import CannotFollow
from replay.reference.truth import OBJECTS_END, check_objects
from replay.userrev.guard import guarded, is_own
from replay.userrev.overrides import overrides_line
from replay.verdict.certainty import excuses
from replay.verdict.findings import (
    DID_NOT_OCCUR,
    add_context,
    check_results,
    driver_notes,
    notes_of,
    pages_missing,
    start_reasons,
    workload_reasons,
)
from replay.verdict.losses import end_reasons, file_reasons, loss_reasons, unnamed_pages
from replay.verdict.result import Result
from replay.verdict.setup import choose_revision, kernel_release, open_engine
from replay.verdict.unpairedcalls import silent_cpus
from traces import compiling
from traces.errors import BadInput
from traces.recording import Recording
from traces.suggestion import meant

__all__ = ["FAST_PAYS", "NOT_COMPILED", "branches_taken", "effects", "others", "replay"]

#: From this many events on compiled code is the default: loading it takes as long as the reference takes for these.
FAST_PAYS: Final = 1 << 18
#: Other revisions are tried where a divergence comes this early, and have to go this far past it (events).
_EARLY: Final = 20_000
_FURTHER: Final = 25
#: How the note begins with which compiled code leaves a whole recording to the reference; why follows.
NOT_COMPILED: Final = "the reference replayed all of it: "


def effects(recording: Recording, revision: str | type[Zswap] | None = None) -> Iterator[tuple[int, str, Effect]]:
    """Replay a recording and yield (event number, event name, predicted effect) for every event explained.

    Continues after divergences, which are not reported here; see :func:`replay`.
    """
    seen: list[tuple[int, str, Effect]] = []
    engine, _, _ = open_engine(recording, revision, Tally(), keep_going=True, pages=False,
                                observe=lambda number, name, effect: seen.append((number, name, effect)))
    for _ in engine.steps():
        yield from seen
        seen.clear()
    yield from seen


def replay(recording: Recording, revision: str | type[Zswap] | None = None, *, checks: set[str] | None = None,
           keep_going: bool = False, pages: bool = True, engine: str | None = None,
           data: bool = False, progress: Callable[[str, int, int], None] | None = None) -> Result:
    """Replay a recording through a revision and check every effect against what was recorded.

    :param revision: a shipped revision's name, a class, or None for the one that mirrors the kernel
    :param checks: ids of the checks wanted; None for all
    :param keep_going: continue after the first divergence
    :param pages: compress the recorded pages and compare lengths and bytes
    :param engine: ``fast`` (compiled; the reference judges what it cannot confirm), ``reference``, or None for
        the faster of them: below :data:`FAST_PAYS` events the reference is done before compiled code is loaded
    :param data: where first bytes of objects differ, show the bytes, which may be a page's, not only where
    :param progress: called with (what, done, total)
    :raises BadInput: when the recording, the wanted checks or a user's revision make no replay possible
    """
    with guarded([revision], recording.path):
        result = _replay(recording, revision, Tally(checks, data), keep_going, pages, engine, progress)
    if isinstance(revision, type) and is_own(revision):
        result.notes.insert(0, overrides_line(revision))
    return result


def _replay(recording: Recording, revision: str | type[Zswap] | None, tally: Tally, keep_going: bool,
            pages: bool, engine: str | None, progress: Callable[[str, int, int], None] | None) -> Result:
    checks = tally.only
    unknown = unknown_checks(checks or ())
    if unknown:
        raise BadInput(recording.path, "", f"there is no check '{unknown[0]}'{meant(unknown[0], CHECKS)}",
                       "see 'zreplay replay --list-checks'")
    if not len(recording) and not recording.manifest["complete"]:
        return _nothing_recorded(recording, revision)
    began, compiled = time.perf_counter(), compiling.seconds()
    driver = run_driver(recording, choose_revision(recording, revision)[1].crypto_layer, pages=pages)
    reference, name, predictions = open_engine(recording, revision, tally, keep_going=keep_going, pages=pages,
                                               progress=progress, driver=driver)
    reasons = start_reasons(recording, reference)
    total = len(recording)
    fast = None
    if engine == "fast" or (engine is None and total >= FAST_PAYS):
        # Compiled code takes a second to load: only where it is used.
        from replay.fast.runner import FastReplay

        compiling.watch()
        fast = FastReplay(reference)
    lost_at: int | None = None
    stopped_at: int | None = None
    if not reasons:
        try:
            (fast or reference).run(progress=None if progress is None else
                                    lambda done: progress("replaying", done, total))
        except LostEvents as lost:
            lost_at = int(lost.args[0])
        except CannotFollow as stop:
            stopped_at = reference.batch.now
            reasons = [*reasons, f"{stop}: nothing from event {stopped_at} of {total} on was compared; {HOW_TO_RECORD}"]
            reference.events = stopped_at
    if lost_at is None and stopped_at is None and not reasons and (keep_going or not tally.failed):
        reference.finish()
        check_objects(recording, predictions, reference.zsmalloc.writes, tally)
    if driver is not None:
        tally.add(driver.compared, driver.divergences, driver.reasons)
    ended, compiled = time.perf_counter(), compiling.seconds() - compiled
    if lost_at is not None:
        reasons.append(f"events were lost before event {lost_at} of {total}: nothing after it was compared")
    reasons += loss_reasons(recording.manifest) + file_reasons(recording)
    reasons += unnamed_pages(recording, reference.state.model)
    if lost_at is None and reference.events == total:
        reasons += end_reasons(reference)
        reasons += reference.truth.reasons() if tally.wanted("load.content") else []
        reasons += [OBJECTS_END] if tally.reasons.get("store.bytes") == OBJECTS_END else []
    reasons += workload_reasons(recording, reference) + reference.invariants.reasons()
    reasons += reference.state.settings.reasons
    if not seen_only(recording.manifest):
        reasons += reference.state.uncaptured.essential()
    silent = "" if tally.failed else silent_cpus(recording)
    if silent:
        reasons.append(f"what happened on CPU {silent} is not known: the recording has no events of it, and no count")
    why = excuses(recording, reference) if tally.failed else []
    excused = bool(why)
    reasons += why
    reasons += reference.start_reasons
    if tally.broken_at is not None:
        reasons.append(f"the order of effects differs at event {tally.broken_at}, which was not asked for: what the "
                       f"wanted checks compared after it may be incomplete")
    results = check_results(recording, reference, predictions, tally)
    add_context(recording, tally)
    reasons += [f"{r.id} was asked for and could not be compared: {r.reason}" for r in results
                if checks and r.id in checks and not r.compared and not r.reason.startswith(DID_NOT_OCCUR)]
    if not tally.failed and not reasons and not any(r.compared for r in results if checks or r.id not in INTERNAL):
        reasons.append("nothing that the kernel did could be compared: the recording shows calls but no outcomes")
    notes = [*notes_of(reference, predictions), *pages_missing(recording),
             *driver_notes(driver, recording, tally, reference.state.early_interrupts)]
    if fast is not None and fast.reason:
        notes.append(NOT_COMPILED + fast.reason)
    verdict = "FAIL" if tally.failed and not excused else "UNDECIDED" if reasons else "PASS"
    return Result(
        verdict=verdict, recording=str(recording.path), revision=name, mirrors=reference.state.model.mirrors,
        kernel=kernel_release(recording), compressor=predictions.name, events=reference.events, checks=results,
        divergences=tally.divergences, reasons=reasons, explained=dict(sorted(reference.explained.items())),
        unexplained=reference.unexplained, notes=notes,
        seconds={"compress": predictions.seconds, "compile": compiled,
                 "replay": ended - began - predictions.seconds - compiled},
        engine="reference" if fast is None or fast.reason else "fast", compiled=fast.confirmed if fast else 0,
        branches=branches_taken(reference.state.model), taken=taken(reference.state.asked),
        unseen=unseen(reference.state.columns_of, reference.state.captured))


def branches_taken(model: Zswap) -> dict[str, int]:
    """Return how often each branch of a model's class was taken, 0 included."""
    return {name: model.reached[name] for name in branches_of(type(model), ZsPool, ListLru)}


def others(recording: Recording, result: Result, *, pages: bool = True) -> list[str] | None:
    """Return the shipped revisions that go past a result's first divergence without diverging.

    They are replayed as the result was: with what their own compressors give for the recorded pages, or without.  None
    where nothing diverges, or so much lies before the divergence that trying them all would take long.

    :param pages: the result's replay compared lengths and bytes
    """
    if not result.divergences or result.divergences[0].event > _EARLY \
            or result.divergences[0].check in DRIVER_CHECKS:
        # No revision says what the driver of a device does.
        return None
    event = result.divergences[0].event
    names = []
    for name in REVISIONS:
        if name != result.revision:
            tally = Tally()
            engine, _, _ = open_engine(recording, name, tally, pages=pages)
            with contextlib.suppress(LostEvents, CannotFollow):
                engine.run(stop=min(event + _FURTHER, len(recording)))
            if not tally.failed:
                names.append(name)
    return names


def _nothing_recorded(recording: Recording, revision: str | type[Zswap] | None) -> Result:
    """Return the result of what a recorder left that was killed while it armed its probes."""
    name, kind = choose_revision(recording, revision)
    return Result(verdict="UNDECIDED", recording=str(recording.path), revision=name, mirrors=kind.mirrors,
                  kernel=kernel_release(recording), compressor=str(recording.manifest["config"].get("compressor", "")),
                  events=0, checks=[], divergences=[], reasons=["the recorder was stopped before it recorded anything"],
                  explained={}, unexplained=0, notes=[], seconds={"compress": 0.0, "compile": 0.0, "replay": 0.0})
