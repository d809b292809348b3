# SPDX-License-Identifier: GPL-2.0-or-later
"""From a replay's tally to a verdict, and the whole of a replay in one call: :func:`replay`."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from model.branches import branches_of
from model.crypto import Compressor, ModelledCompressor, UnsupportedCompressor, compressor_for
from model.effects import Effect
from model.list_lru import ListLru
from model.revisions import REVISIONS, revision_for_line
from model.zsmalloc import ZsPool
from model.zswap import KERNEL_COMPRESSORS, Zswap
from replay.checks import CHECKS, INTERNAL, Divergence, Tally, unknown_checks
from replay.comparisons import checks_of, missing_columns
from replay.engine import Engine, LostEvents
from replay.eventlines import event_lines
from replay.excuses import excuses
from replay.guard import guarded, is_own
from replay.handlers_base import CannotFollow
from replay.lineevidence import line_hint, line_notes
from replay.losses import end_reasons, file_reasons, loss_reasons
from replay.objectwords import set_layout
from replay.overrides import overrides_line
from replay.predict import Predictions, predict
from replay.state import load_state
from replay.taken import taken, unseen
from replay.truth import OBJECTS_END, check_objects
from replay.uncaptured import HOW_TO_RECORD, seen_only
from replay.written import judge
from traces.errors import BadInput
from traces.facts import FACTS, how_to_set
from traces.meant import meant
from traces.record.release import kernel_line, release_line
from traces.recording import Recording

__all__ = ["EXIT", "FAST_PAYS", "NOT_COMPILED", "CheckResult", "Result", "branches_taken", "effects", "open_engine",
           "others", "predictions_for", "replay"]

#: verdict -> exit status (kselftest's 4 for SKIP)
EXIT: Final = {"PASS": 0, "FAIL": 1, "UNDECIDED": 3, "SKIP": 4}
_CONTEXT: Final = 5
#: From so many events on compiled code is the default: loading it takes as long as the reference takes for these.
FAST_PAYS: Final = 1 << 18
#: Other revisions are tried where a divergence comes this early, and have to go this far past it (events).
_EARLY: Final = 20_000
_FURTHER: Final = 25
_DID_NOT_OCCUR: Final = "did not occur in "
#: How the note begins with which compiled code leaves a whole recording to the reference; why follows.
NOT_COMPILED: Final = "the reference replayed all of it: "


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome: ``grade`` is ``exact``, ``modelled`` or ``not captured``, ``reason`` says why.

    Of those ``different`` as many as ``following`` may be consequences of an earlier difference, of whatever check.
    """

    id: str
    compared: int
    different: int
    grade: str
    reason: str
    following: int = 0

    @property
    def independent(self) -> int:
        """Differences that follow from no earlier one."""
        return self.different - self.following

    @property
    def differences(self) -> str:
        """Return them for people: those of their own, and behind a plus those that may follow from another."""
        return f"{self.independent:,}" + (f" +{self.following:,}" if self.following else "")


@dataclass
class Result:
    """What a replay found.

    ``reasons`` says in sentences why the verdict is not PASS; ``explained`` counts events by how they were
    explained; ``seconds`` is wall-clock time by part.
    """

    verdict: str
    recording: str
    revision: str
    mirrors: str
    kernel: str
    compressor: str
    events: int
    checks: list[CheckResult]
    divergences: list[Divergence]
    reasons: list[str] = field(default_factory=list)
    explained: dict[str, int] = field(default_factory=dict)
    unexplained: int = 0
    notes: list[str] = field(default_factory=list)
    #: shipped revisions that predict the first divergence's event and what follows; None: not tried (:func:`others`)
    explained_by: list[str] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    #: ``fast`` or ``reference``, and how many events were confirmed by compiled code
    engine: str = "reference"
    compiled: int = 0
    #: branch of the revision -> how often the replay took it (:mod:`model.branches`); what a verdict did not see is 0
    branches: dict[str, int] = field(default_factory=dict)
    #: what was taken from the recording and is not judged, and what no event of it tells (:mod:`replay.taken`)
    taken: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """The command's exit status."""
        return EXIT[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data for JSON."""
        plain = dataclasses.asdict(self)
        for each in plain["divergences"]:
            # As in a manifest: the key is there where it says something.
            if not each["stamps"]:
                del each["stamps"]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Result:
        """Return the result of which :meth:`as_dict`, or JSON made of that, is given; it reads the same in a report.

        The ``schema`` that ``--json`` puts first may be there.
        """
        plain = {key: value for key, value in plain.items() if key != "schema"}
        divergences = [Divergence(**{**each, "path": tuple((name, start) for name, start in each["path"]),
                                     "context": tuple(each["context"])}) for each in plain["divergences"]]
        return cls(**{**plain, "checks": [CheckResult(**each) for each in plain["checks"]], "divergences": divergences})


def _choose_revision(recording: Recording, revision: str | type[Zswap] | None) -> tuple[str, type[Zswap]]:
    if isinstance(revision, type):
        return revision.__name__, revision
    if revision is not None:
        if revision not in REVISIONS:
            raise BadInput(recording.path, "", f"there is no revision '{revision}'{meant(revision, REVISIONS)}",
                           f"choose one of {', '.join(REVISIONS)}")
        return revision, REVISIONS[revision]
    kernel = recording.manifest["kernel"]
    lines = {release_line(kernel.get(key)) for key in ("version", "release")} - {None}
    if len(lines) > 1:
        raise BadInput(recording.path, "", f"its configuration is that of kernel {kernel['version']} and its release "
                       f"is {kernel['release']}: which of them ran is not known",
                       f"name a revision with --revision: {', '.join(REVISIONS)}{line_hint(recording)}")
    name = revision_for_line(kernel_line(kernel))
    if name is None:
        release = kernel_release(recording)
        raise BadInput(recording.path, "", f"no revision mirrors its kernel ({release or 'release not recorded'})",
                       f"name one with --revision: {', '.join(REVISIONS)}{line_hint(recording)}")
    return name, REVISIONS[name]


def kernel_release(recording: Recording) -> str:
    """Return the recorded kernel's version, from its configuration or its release name."""
    kernel = recording.manifest["kernel"]
    return str(kernel.get("version") or kernel.get("release") or "")


def _compressor(recording: Recording, name: str, revision: type[Zswap]) -> tuple[Compressor | None, str]:
    """Return the compressor and what is wrong with it on this machine, or None and why there is none.

    :raises BadInput: for a compressor no kernel has
    """
    if name not in KERNEL_COMPRESSORS:
        raise BadInput(recording.path, "", f"its compressor '{name}' is not one that any kernel has "
                       f"({', '.join(KERNEL_COMPRESSORS)})", "correct it with 'zreplay import --compressor'")
    if not recording.manifest.get("pages", {}).get("with_bytes"):
        return None, ""
    try:
        compressor = compressor_for(name, revision.kernel_line)
    except UnsupportedCompressor as problem:
        return None, str(problem)
    problems = compressor.self_check()
    return compressor, f"{compressor.ident} is not exact on this machine: {problems[0]}" if problems else ""


def switched_to(recording: Recording) -> list[str]:
    """Return the compressors that were switched to during the recording, by name."""
    names = set()
    for text in recording.texts():
        found = re.match(r"(?:param )?compressor=(\S+)$", text)
        if found and found[1] in KERNEL_COMPRESSORS:
            names.add(found[1])
    return sorted(names - {recording.manifest["config"]["compressor"]})


def recorded_compressors(recording: Recording) -> list[Compressor]:
    """Return the compressors that were in use, the one at the start first.

    :raises BadInput: when one has no exact implementation on this machine
    """
    _, kind = _choose_revision(recording, None)
    found = []
    for algorithm in (recording.manifest["config"]["compressor"], *switched_to(recording)):
        compressor, reason = _compressor(recording, algorithm, kind)
        if compressor is None or reason or isinstance(compressor, ModelledCompressor):
            reason = reason or (f"{algorithm} is hardware, which cannot be asked" if compressor is not None else "")
            raise BadInput(recording.path, "", reason or f"has no page bytes to use {algorithm} on",
                           "record with a compressor that is exact here ('zreplay doctor' lists them)")
        found.append(compressor)
    return found


def build_model(recording: Recording, revision: type[Zswap]) -> Zswap:
    """Return a model configured as the recorded box was.

    :raises BadInput: when the recording does not say what the model needs
    """
    config = recording.manifest["config"]
    needed = (("compressor", str), ("totalram_pages", int))
    lacking = [key for key, kind in needed if not isinstance(config.get(key), kind)]
    if lacking:
        facts = [fact for fact in FACTS if fact.key.replace("-", "_") in lacking]
        raise BadInput(recording.path, "manifest.json", f"does not say {' and '.join(lacking)}",
                       f"set what {' and '.join(repr(fact.command) for fact in facts)} print on the recorded "
                       f"machine: {how_to_set(recording.path, facts)}")
    try:
        model = revision(totalram_pages=config["totalram_pages"], compressor=config["compressor"],
                         chain_size=config.get("chain_size", 8))
        for name, value in config.get("params", {}).items():
            if name != "compressor":
                model.set_param(name, str(value))
    except ValueError as problem:
        raise BadInput(recording.path, "manifest.json", f"its configuration cannot be ({problem})",
                       "record or import again") from None
    return model


def predictions_for(recording: Recording, revision: str | type[Zswap] | None = None, *, pages: bool = True,
                    progress: Callable[[str, int, int], None] | None = None) -> Predictions:
    """Return what the recording's compressors, those that were switched to too, give for its pages; kept beside it.

    :param revision: of whose kernel line the compressors are; None for the one that mirrors the kernel
    :param pages: False for none
    :raises BadInput: when no revision mirrors the kernel, or a page does not match its digest
    """
    _, kind = _choose_revision(recording, revision)
    algorithm = recording.manifest["config"]["compressor"]
    compressors: dict[str, Compressor] = {}
    inexact: dict[str, str] = {}
    reason = "left out (--no-pages)"
    for other in reversed([algorithm, *switched_to(recording)]) if pages else ():
        compressor, reason = _compressor(recording, other, kind)
        if compressor is not None:
            compressors[other] = compressor
            if reason:
                inexact[other] = reason
                reason = ""
    predictions = predict(recording, algorithm, compressors, reason,
                          progress=None if progress is None else
                          lambda done, total: progress("compressing", done, total))
    predictions.inexact = inexact
    return predictions


def open_engine(recording: Recording, revision: str | type[Zswap] | None, tally: Tally, *, keep_going: bool = False,
                pages: bool = True, observe: Callable[[int, str, Effect], None] | None = None,
                progress: Callable[[str, int, int], None] | None = None) -> tuple[Engine, str, Predictions]:
    """Return an engine ready to replay a recording, the revision's name, and the compressor's predictions."""
    name, kind = _choose_revision(recording, revision)
    model = build_model(recording, kind)
    began = time.perf_counter()
    predictions = predictions_for(recording, kind, pages=pages, progress=progress)
    predictions.seconds = time.perf_counter() - began
    in_use = {recording.manifest["config"]["compressor"], *switched_to(recording)}
    reasons, notes = judge(recording, predictions, in_use)
    engine = Engine(recording, model, tally, predictions, keep_going=keep_going, observe=observe)
    engine.start_reasons, engine.start_notes = reasons, [*notes, *line_notes(recording)]
    # Whether zswap_writeback_entry() is inlined is a compiler's doing: where it was probed, it is a function.
    if "zswap_writeback_entry" in engine.captured:
        model.WRITEBACK_APART = True
    engine.revision_name = name
    engine.keep_writes = (recording.path / "objects.parquet").is_file() and bool(predictions.compressors)
    state = recording.document("state")
    set_layout(engine, recording, (state or {}).get("object_layout"))
    if state is not None:
        load_state(engine, state)
        engine.settings.begin(model, engine.truth.phase)
    return engine, name, predictions


def effects(recording: Recording, revision: str | type[Zswap] | None = None) -> Iterator[tuple[int, str, Effect]]:
    """Replay a recording and yield (event number, event name, predicted effect) for every event explained.

    Goes on after divergences, which are not reported here; see :func:`replay`.
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
    """Replay a recording through a revision and hold every effect against what was recorded.

    :param revision: a shipped revision's name, a class, or None for the one that mirrors the kernel
    :param checks: ids of the checks wanted; None for all
    :param keep_going: go on after the first divergence
    :param pages: compress the recorded pages and compare lengths and bytes
    :param engine: ``fast`` (compiled; what it cannot confirm is the reference's to judge), ``reference``, or None for
        the faster of them: below :data:`FAST_PAYS` events the reference is done before compiled code is loaded
    :param data: where first bytes of objects differ, tell the bytes, which may be a page's, not only where
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
    began = time.perf_counter()
    reference, name, predictions = open_engine(recording, revision, tally, keep_going=keep_going, pages=pages,
                                               progress=progress)
    reasons = _start_reasons(recording, reference)
    total = len(recording)
    fast = None
    if engine == "fast" or (engine is None and total >= FAST_PAYS):
        # Compiled code takes a second to load: only where it is used.
        from replay.fast.runner import FastReplay

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
            stopped_at, reasons = reference.now, [*reasons, f"{stop}: nothing from event {reference.now} of {total} on "
                                                           f"was compared; {HOW_TO_RECORD}"]
            reference.events = stopped_at
    if lost_at is None and stopped_at is None and not reasons and (keep_going or not tally.failed):
        reference.finish()
        check_objects(recording, predictions, reference.writes, tally)
    ended = time.perf_counter()
    if lost_at is not None:
        reasons.append(f"events were lost before event {lost_at} of {total}: nothing after it was compared")
    reasons += loss_reasons(recording.manifest) + file_reasons(recording)
    if lost_at is None and reference.events == total:
        reasons += end_reasons(reference)
        reasons += reference.truth.reasons() if tally.wanted("load.content") else []
        reasons += [OBJECTS_END] if tally.reasons.get("store.bytes") == OBJECTS_END else []
    reasons += _workload_reasons(recording, reference)
    reasons += reference.settings.reasons
    if not seen_only(recording.manifest):
        reasons += reference.uncaptured.essential()
    why = excuses(recording, reference) if tally.failed else []
    excused = bool(why)
    reasons += why
    reasons += reference.start_reasons
    if tally.broken_at is not None:
        reasons.append(f"the order of effects differs at event {tally.broken_at}, which was not asked for: what the "
                       f"wanted checks compared after it may be incomplete")
    results = _check_results(recording, reference, predictions, tally, lost_at)
    _add_context(recording, tally)
    reasons += [f"{r.id} was asked for and could not be compared: {r.reason}" for r in results
                if checks and r.id in checks and not r.compared and not r.reason.startswith(_DID_NOT_OCCUR)]
    if not tally.failed and not reasons and not any(r.compared for r in results if checks or r.id not in INTERNAL):
        reasons.append("nothing that the kernel did could be compared: the recording shows calls and no outcome")
    notes = [*_notes(reference, predictions), *_pages_missing(recording)]
    if fast is not None and fast.reason:
        notes.append(NOT_COMPILED + fast.reason)
    verdict = "FAIL" if tally.failed and not excused else "UNDECIDED" if reasons else "PASS"
    return Result(
        verdict=verdict, recording=str(recording.path), revision=name, mirrors=reference.model.mirrors,
        kernel=kernel_release(recording), compressor=predictions.name, events=reference.events, checks=results,
        divergences=tally.divergences, reasons=reasons, explained=dict(sorted(reference.explained.items())),
        unexplained=reference.unexplained, notes=notes,
        seconds={"compress": predictions.seconds, "replay": ended - began - predictions.seconds},
        engine="reference" if fast is None or fast.reason else "fast", compiled=fast.confirmed if fast else 0,
        branches=branches_taken(reference.model), taken=taken(reference.asked),
        unseen=unseen(reference.columns_of, reference.captured))


def branches_taken(model: Zswap) -> dict[str, int]:
    """Return how often each branch of a model's class was taken, 0 included."""
    return {name: model.reached[name] for name in branches_of(type(model), ZsPool, ListLru)}


def others(recording: Recording, result: Result, *, pages: bool = True) -> list[str] | None:
    """Return the shipped revisions that go past a result's first divergence without diverging.

    They are replayed as the result was: with what their own compressors give for the recorded pages, or without.  None
    where there is no divergence, or so much lies before it that trying them all would take long.

    :param pages: the result's replay compared lengths and bytes
    """
    if not result.divergences or result.divergences[0].event > _EARLY:
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
    name, kind = _choose_revision(recording, revision)
    return Result(verdict="UNDECIDED", recording=str(recording.path), revision=name, mirrors=kind.mirrors,
                  kernel=kernel_release(recording), compressor=str(recording.manifest["config"].get("compressor", "")),
                  events=0, checks=[], divergences=[], reasons=["the recorder was stopped before it recorded anything"],
                  explained={}, unexplained=0, notes=[], seconds={"compress": 0.0, "replay": 0.0})


def _start_reasons(recording: Recording, engine: Engine) -> list[str]:
    if recording.document("state") is not None:
        return []
    pages = engine.snapshots.start_pages()
    if pages:
        return [f"zswap held {pages} pages when the recording began and no start state was recorded"]
    return []


def _workload_reasons(recording: Recording, engine: Engine) -> list[str]:
    """Say where the recorded workload failed in a way that may be the kernel's doing, and no marker of it tells more.

    Recordings of zreplay's own workload have markers of its phases.  It ends with 1 where pages that it read back are
    not what it had written; older ones of it say so nowhere else.
    """
    status = recording.manifest.get("capture", {}).get("command_status")
    if "command.json" in recording.manifest["files"]:
        # A command of the user's own in the lab: what its status means only that knows, and phases may be its own.
        return []
    if status == 1 and not engine.truth.told and any(text.startswith("phase ") for text in recording.texts()):
        return ["the recorded workload ended with status 1, its word for pages read back that are not what it had "
                "written, and the recording does not say which: see what it printed, or record again"]
    return []


def _reason(check: str, replayed: str, predictions: Predictions, tally: Tally, captured: set[str],
            engine: Engine, lacks: str) -> str:
    if check in tally.reasons:
        return tally.reasons[check]
    missing = [name for name in CHECKS[check].needs if name not in captured] if check in CHECKS else []
    useless = [name for name in missing if name in engine.uncaptured.useless]
    if useless:
        return f"not captured: {', '.join(engine.uncaptured.lacking(name) for name in useless)}"
    if missing:
        return f"not probed: {', '.join(missing)}"
    made = [held for held in engine.held.values() if check in checks_of(held.comparison)]
    if lacks and made and not any(held.some for held in made):
        return f"not captured: {lacks}"
    if tally.unknown[check]:
        return f"none of {tally.unknown[check]:,} could be compared: {engine.settings.said_why(check)}"
    if check in ("store.length", "store.error") and predictions.reason:
        return predictions.reason
    if check == "invariant.balance":
        return "the replay did not come to the end of the recording"
    if check == "acomp.batch":
        return "no compress call of several pages was looked at: this revision, or this compressor, takes page by page"
    if check == "store.error" and predictions.modelled:
        return "why hardware fails cannot be told from the page"
    return _DID_NOT_OCCUR + replayed


def _check_results(recording: Recording, engine: Engine, predictions: Predictions, tally: Tally,
                   lost_at: int | None) -> list[CheckResult]:
    captured = set(engine.captured) | {"counters"}
    recorded = engine.columns_of.keys()

    def outcome(check: str, grade: str, reason: str) -> CheckResult:
        return CheckResult(check, tally.compared[check], tally.different.get(check, 0), grade, reason,
                           tally.following.get(check, 0))

    # Every event that is nobody's effect is explained as something else, or counted as unexplained.
    tally.compared["effect.order"] = engine.events - sum(engine.explained.values()) - engine.unexplained
    out = []
    # A replay that ended early says nothing of what it did not come to.
    early = engine.events < len(recording)
    replayed = f"the {engine.events:,} events that were replayed" if early else "this recording"
    no_snapshot = f"no counter snapshot is in {replayed}" if early and recording.snapshots else \
        "no counter snapshots were recorded"
    counted = any(check.startswith("counter.") for check in tally.compared)
    if not counted:
        tally.compared["counter"] = 0
        tally.reasons["counter"] = no_snapshot
    if not any(check.startswith("counter.zsmalloc") for check in tally.compared):
        tally.compared["counter.zsmalloc.classes"] = 0
        tally.reasons["counter.zsmalloc.classes"] = \
            "the snapshots hold no zsmalloc classes (CONFIG_ZSMALLOC_STAT)" if not early else \
            f"the snapshots in {replayed} hold no zsmalloc classes" if counted else no_snapshot
    for check, compared in tally.compared.items():
        if not tally.wanted(check):
            continue
        missing = missing_columns(check, {name: engine.columns_of[name] for name in engine.captured & recorded})
        lacks = ", ".join(f"{event} has no {column}" for event, column in missing)
        reason = f"not captured: {lacks}" if compared and lacks else "" if compared else \
            _reason(check, replayed, predictions, tally, captured, engine, lacks)
        if compared and check == "invariant.load" and not reason:
            # Pages read back that were stored before the recording began.
            reason = tally.reasons.get(check, "")
        if compared and tally.unknown[check]:
            unknown = f"{tally.unknown[check]:,} more were not compared: {engine.settings.said_why(check)}"
            reason = f"{reason}; {unknown}" if reason else unknown
        if compared and check == "store.bytes" and (predictions.reason or predictions.modelled or predictions.inexact):
            why = predictions.reason or "; ".join(predictions.inexact.values()) \
                or "nobody can tell what hardware writes"
            reason = f"handle and length only: {predictions.played or why}"
            if predictions.played:
                out.append(outcome(check, "modelled", reason))
                continue
        if compared and check == "counter.vmstat.nr_zspages":
            lag = engine.snapshots.vmstat_lag
            out.append(outcome(check, "modelled",
                               f"/proc/vmstat lags by up to {lag} pages: each CPU holds back its changes"))
            continue
        if compared and predictions.inexact and check in ("store.length", "store.error"):
            why = "; ".join(predictions.inexact.values())
            out.append(outcome(check, "modelled", f"{why}; {tally.set_apart.get(check, 0)} of {compared} results were "
                               f"others, which judges nothing"))
            continue
        if compared and predictions.modelled and check == "store.length":
            out.append(outcome(check, "modelled",
                               "hardware's lengths are held against the least and the most that they can be"))
            continue
        grade = (CHECKS[check].grade if check in CHECKS else "exact") if compared else "not captured"
        out.append(outcome(check, grade, reason))
    return out


def _pages_missing(recording: Recording) -> list[str]:
    """Return a note where compress calls have no page, though pages were recorded."""
    share = recording.manifest.get("page_calls")
    if not isinstance(share, dict):
        missing = recording.manifest["source"].get("pages_unmatched")
        return [f"{missing:,} compress calls have no page: their lengths are taken from the recording"] \
            if isinstance(missing, int) and missing else []
    calls, caught = share.get("calls"), share.get("caught")
    if not isinstance(calls, int) or not isinstance(caught, int) or not 0 < caught < calls:
        return []
    why = "".join(f"; {text}" for text in share.get("why", ()) if isinstance(text, str))
    return [f"{caught:,} of {calls:,} compress calls have their page ({100 * caught / calls:.0f} %); the lengths of "
            f"the others are taken from the recording{why}"]


def _notes(engine: Engine, predictions: Predictions) -> list[str]:
    notes = [*engine.start_notes, *engine.settings.notes]
    if engine.preempted_reads:
        notes.append(f"{engine.preempted_reads} totals were read while another task was about to change them")
    if any(engine.sg_entries.values()):
        notes.append(f"object reads: {engine.sg_entries[1]} of one entry, {engine.sg_entries[2]} of two")
    if engine.reordered:
        notes.append(f"{engine.reordered} times an LRU walk showed in which order additions and moves had been made "
                     f"that ran at the same time")
    if engine.snapshots.lagged:
        notes.append(f"{engine.snapshots.lagged} snapshots read a memory.stat of up to 128 changes per CPU ago, "
                     f"all its values of one moment (the kernel does not bring it up to date for fewer)")
    if engine.snapshots.early:
        notes.append(f"{engine.snapshots.early} counters were read before a task in the middle of an operation had "
                     "changed them")
    if engine.snapshots.late:
        notes.append(f"{engine.snapshots.late} counters changed while their snapshot was being read, and were "
                     f"compared at that later instant")
    if engine.truth.elsewhere:
        notes.append(f"{engine.truth.elsewhere} pages of the truth were not in zswap at the end of their phase "
                     f"(zero-filled, rejected, or in memory)")
    status = engine.recording.manifest.get("capture", {}).get("command_status")
    if status:
        notes.append(f"the command that was recorded ended with status {status}")
    if predictions.computed or predictions.from_cache:
        notes.append(f"{predictions.computed} distinct pages compressed, {predictions.from_cache} results kept "
                     f"from before")
    return notes


def _add_context(recording: Recording, tally: Tally) -> None:
    """Add the ten events around each of the first divergences, and what clock their times are of."""
    if not tally.divergences:
        return
    if recording.stamps:
        tally.divergences[:] = [dataclasses.replace(each, stamps=recording.stamps) for each in tally.divergences]
    first = tally.divergences[0]
    lines = tuple(event_lines(recording, first.event - _CONTEXT, first.event + _CONTEXT, mark=first.event,
                              data=tally.data))
    tally.divergences[0] = dataclasses.replace(first, context=lines)
