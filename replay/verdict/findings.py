# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay found, in the words of a result: grades and reasons of checks, notes, the events at a divergence."""

from __future__ import annotations

import dataclasses
from typing import Final

from model.errno import EINPROGRESS
from replay.iaa.check import DriverRun
from replay.reference.checks import CHECKS, Tally
from replay.reference.comparisons import checks_of, missing_columns
from replay.reference.engine import Engine
from replay.reference.predictions import Predictions
from replay.verdict.result import CheckResult
from traces.eventlines import event_lines
from traces.recording import Recording

__all__ = ["DID_NOT_OCCUR", "add_context", "check_results", "driver_notes", "notes_of", "pages_missing",
           "start_reasons", "workload_reasons"]

_CONTEXT: Final = 5
#: How the reason begins of a check that had nothing to compare.
DID_NOT_OCCUR: Final = "did not occur in "


def start_reasons(recording: Recording, engine: Engine) -> list[str]:
    """Return why a replay cannot begin, a sentence each: zswap held pages, and no start state was recorded."""
    if recording.document("state") is not None:
        return []
    pages = engine.state.snapshots.start_pages()
    if pages:
        return [f"zswap held {pages} pages when the recording began and no start state was recorded"]
    return []


def workload_reasons(recording: Recording, engine: Engine) -> list[str]:
    """Report where the recorded workload failed, perhaps by the kernel's doing, and no marker of it says more.

    Recordings of zreplay's own workload have markers of its phases.  It ends with 1 where pages that it read back are
    not what it had written; older recordings of it say so nowhere else.
    """
    status = recording.manifest.get("capture", {}).get("command_status")
    if "command.json" in recording.manifest["files"]:
        # A command of the user's own in the lab: only that command knows what its status means; phases may be its own.
        return []
    if status == 1 and not engine.truth.reported and any(text.startswith("phase ") for text in recording.texts()):
        return ["the recorded workload ended with status 1: pages that it read back are not what it had written, "
                "and the recording does not say which: see what it printed, or record again"]
    return []


def _reason(check: str, replayed: str, predictions: Predictions, tally: Tally, captured: set[str],
            engine: Engine, lacks: str) -> str:
    if check in tally.reasons:
        return tally.reasons[check]
    missing = [name for name in CHECKS[check].needs if name not in captured] if check in CHECKS else []
    useless = [name for name in missing if name in engine.state.uncaptured.useless]
    if useless:
        return f"not captured: {', '.join(engine.state.uncaptured.lacking(name) for name in useless)}"
    if missing:
        return f"not probed: {', '.join(missing)}"
    made = [held for held in engine.state.held.values() if check in checks_of(held.comparison)]
    if lacks and made and not any(held.some for held in made):
        return f"not captured: {lacks}"
    if tally.unknown[check]:
        return f"none of {tally.unknown[check]:,} could be compared: {engine.state.settings.said_why(check)}"
    if check in ("store.length", "store.error") and predictions.reason:
        return predictions.reason
    if check == "invariant.balance":
        return "the replay did not reach the end of the recording"
    if check == "acomp.batch" and engine.state.model.compress_call == "chain":
        return "the return of chained requests is that of one of them; the others' errors show in no event"
    if check == "acomp.batch":
        return "no compress call of several pages was looked at: this revision, or this compressor, takes page by page"
    if check == "store.error" and predictions.modelled:
        return "why hardware fails cannot be predicted from the page"
    return DID_NOT_OCCUR + replayed


def check_results(recording: Recording, engine: Engine, predictions: Predictions, tally: Tally) -> list[CheckResult]:
    """Return every check that was wanted with its counts, its grade, and why it could not compare more."""
    state = engine.state
    captured = set(state.captured) | {"counters"}
    recorded = state.columns_of.keys()

    def outcome(check: str, grade: str, reason: str) -> CheckResult:
        return CheckResult(check, tally.compared[check], tally.different.get(check, 0), grade, reason,
                           tally.following.get(check, 0))

    # Every event that is not an effect is explained as something else, or counted as unexplained.
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
        missing = missing_columns(check, {name: state.columns_of[name] for name in state.captured & recorded})
        lacks = ", ".join(f"{event} has no {column}" for event, column in missing)
        reason = f"not captured: {lacks}" if compared and lacks else "" if compared else \
            _reason(check, replayed, predictions, tally, captured, engine, lacks)
        if compared and check == "invariant.load" and not reason:
            # Pages read back that were stored before the recording began.
            reason = tally.reasons.get(check, "")
        if compared and tally.unknown[check]:
            unknown = f"{tally.unknown[check]:,} more were not compared: {state.settings.said_why(check)}"
            reason = f"{reason}; {unknown}" if reason else unknown
        if compared and check == "store.bytes" and (predictions.reason or predictions.modelled or predictions.inexact):
            why = predictions.reason or "; ".join(predictions.inexact.values()) \
                or "what hardware writes cannot be predicted"
            reason = f"handle and length only: {predictions.played or why}"
            if predictions.played:
                out.append(outcome(check, "modelled", reason))
                continue
        if compared and check == "counter.vmstat.nr_zspages":
            lag = state.snapshots.vmstat_lag
            out.append(outcome(check, "modelled",
                               f"/proc/vmstat lags by up to {lag} pages: each CPU holds back its changes"))
            continue
        if compared and predictions.inexact and check in ("store.length", "store.error"):
            why = "; ".join(predictions.inexact.values())
            out.append(outcome(check, "modelled", f"{why}; {tally.set_apart.get(check, 0)} of {compared} results "
                               f"differ, which is not judged"))
            continue
        if compared and predictions.modelled and check == "store.length":
            out.append(outcome(check, "modelled",
                               "hardware's lengths are checked against the least and the most that they can be"))
            continue
        grade = (CHECKS[check].grade if check in CHECKS else "exact") if compared else "not captured"
        out.append(outcome(check, grade, reason))
    return out


def pages_missing(recording: Recording) -> list[str]:
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


def notes_of(engine: Engine, predictions: Predictions) -> list[str]:
    """Return what is to be said of a replay besides its checks and reasons, a sentence each."""
    state, snapshots = engine.state, engine.state.snapshots
    notes = [*engine.start_notes, *state.settings.notes]
    if engine.totals.preempted_reads:
        notes.append(f"{engine.totals.preempted_reads} totals were read while another task was about to change them")
    if any(engine.zsmalloc.sg_entries.values()):
        one, two = engine.zsmalloc.sg_entries[1], engine.zsmalloc.sg_entries[2]
        notes.append(f"object reads: {one} of one entry, {two} of two")
    if engine.lru.reordered:
        notes.append(f"{engine.lru.reordered} times an LRU walk showed in which order additions and moves had been "
                     f"made that ran at the same time")
    if state.unread:
        notes.append(f"no load hit the probe of {state.unread}(): this kernel's zswap reads objects through another "
                     "function, and zs_obj_read counts as not probed")
    if snapshots.lagged:
        notes.append(f"{snapshots.lagged} snapshots read a memory.stat of up to 128 changes per CPU ago, "
                     f"all its values of one moment (the kernel does not bring it up to date for fewer)")
    if snapshots.early:
        notes.append(f"{snapshots.early} counters were read before a task in the middle of an operation had "
                     "changed them")
    if snapshots.freed:
        notes.append(f"{snapshots.freed} pages of large folios were freed and not zero-filled, as the snapshots say: "
                     "no recorded event of this kernel shows it")
    if snapshots.settled:
        notes.append(f"{snapshots.settled} pages of rejected batches failed as the snapshots say: no recorded event "
                     "shows what became of each page of a rejected batch")
    if snapshots.late:
        notes.append(f"{snapshots.late} counters changed while their snapshot was being read, and were "
                     f"compared at that later instant")
    if engine.truth.elsewhere:
        notes.append(f"{engine.truth.elsewhere} pages of the truth were not in zswap at the end of their phase "
                     f"(zero-filled, rejected, or in memory)")
    status = state.recording.manifest.get("capture", {}).get("command_status")
    if status:
        notes.append(f"the command that was recorded ended with status {status}")
    if predictions.computed or predictions.from_cache:
        notes.append(f"{predictions.computed} distinct pages compressed, {predictions.from_cache} results kept "
                     f"from before")
    return notes


def driver_notes(driver: DriverRun | None, recording: Recording, tally: Tally, early: int = 0) -> list[str]:
    """Return what is to be said of the driver of emulated devices, a sentence each.

    :param driver: None where the recording has none
    :param early: interrupts that came before their calls had returned
    """
    if driver is None:
        return []
    notes = list(driver.notes)
    if driver.stopped >= 0 and not driver.nothing:
        notes.append(f"what the driver does from event {driver.stopped:,} on is not followed: zswap's results of those "
                     f"calls are not judged" + (f" ({apart:,} differ from what the device gives)" if
                     (apart := sum(tally.set_apart.values())) else ""))
    if early:
        notes.append(f"{early:,} pages that compress were kept as they are: the device's interrupt came before the "
                     f"call returned, which wrote {EINPROGRESS} over their length")
    if tally.different.get("invariant.load") and (recording.document("iaa") or {}).get("faults"):
        notes.append("the devices had a plan of faults: a page that they were made to spoil is not lost by the kernel")
    return notes


def add_context(recording: Recording, tally: Tally) -> None:
    """Add the ten events around each of the first divergences, and what clock their times are of."""
    if not tally.divergences:
        return
    if recording.stamps:
        tally.divergences[:] = [dataclasses.replace(each, stamps=recording.stamps) for each in tally.divergences]
    first = tally.divergences[0]
    lines = tuple(event_lines(recording, first.event - _CONTEXT, first.event + _CONTEXT, mark=first.event,
                              data=tally.data))
    tally.divergences[0] = dataclasses.replace(first, context=lines)
