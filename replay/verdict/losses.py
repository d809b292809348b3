# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording may be missing: where its ring says so, what its counters say beyond that, and whether its end is
there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from model.zswap import Zswap
from traces import schema
from traces.chained import chained_pages
from traces.importers.probemap import vocabulary_name
from traces.recording import Recording
from traces.times import moment

if TYPE_CHECKING:
    from replay.reference.engine import Engine

__all__ = ["Loss", "end_reasons", "fewer_events", "file_reasons", "loss_reasons", "loss_text", "losses_of", "stopped",
           "unnamed_pages"]

_LOST: Final = schema.CODE["lost_events"]
_PUT_IN: Final = (schema.CODE["counters"], schema.CODE["param"])
#: no ring has these
_NO_RECORDS: Final = {"counters", "param", "lost_events"}
#: Tasks that are named.
_SHOWN: Final = 4


class Loss(NamedTuple):
    """Events may be missing from ``start`` to ``stop`` (ns), of one event's ``code`` or of all (None)."""

    start: int
    stop: int
    code: int | None
    text: str
    #: the CPU that lost them; None: it is not known which, or a probe missed them
    cpu: int | None = None


def losses_of(recording: Recording, span: tuple[int, int], lag: int) -> list[Loss]:
    """Return the losses that may lie inside a span of time.

    A loss that the ring marks lies between its mark and the event before that on the same CPU.  One that is only
    counted (dropped events, hits a probe missed, a count that is not known) can be anywhere.

    :param span: first and last time, ns
    :param lag: how far outside of it a loss still matters, ns
    """
    out: list[Loss] = []
    marked: dict[int, int] = {}
    for start, stop, cpu, count in _marks(recording):
        marked[cpu] = marked.get(cpu, 0) + max(count, 0)
        if start <= span[1] + lag and stop >= span[0] - lag:
            many = f"{count:,} events" if count >= 0 else "an unknown number of events"
            out.append(Loss(start, stop, None, f"CPU {cpu} lost {many} before {moment(stop, recording.stamps)}", cpu))
    for loss in recording.manifest["losses"]:
        lost = loss.get("lost")
        if "probe" in loss:
            if lost != 0:
                name = vocabulary_name(str(loss["probe"])) or str(loss["probe"])
                many = f"{lost:,}" if isinstance(lost, int) else "an unknown number of"
                out.append(Loss(*span, schema.CODE.get(name), f"the probe of {name} missed {many} hits, unknown when"))
            continue
        cpu = loss.get("cpu")
        where = _where(loss)
        beyond = lost - marked.get(loss.get("cpu", -1), 0) if isinstance(lost, int) else None
        if beyond is None:
            # Nothing was lost before what the recorder noticed had happened.
            start = loss.get("since", span[0])
            if start <= span[1] + lag:
                why = loss.get("why") or f"it is not known how many events {where} lost"
                out.append(Loss(start, max(start, span[1]), None, why, cpu))
        elif beyond > 0:
            out.append(Loss(*span, None, f"{where} lost {beyond:,} events at unknown times", cpu))
        elif loss.get("damaged_subbuffers") or loss.get("short_records"):
            out.append(Loss(*span, None, f"what was recorded on {where} is damaged", cpu))
        elif loss.get("unknown_events"):
            out.append(Loss(*span, None, f"{where} has events of types that no format describes", cpu))
        elif loss.get("backwards"):
            out.append(Loss(*span, None, _backwards(loss), cpu))
    return out


def _marks(recording: Recording) -> list[tuple[int, int, int, int]]:
    """Return (time of the CPU's event before, time, CPU, count or -1) of the marks that rings hold."""
    out: list[tuple[int, int, int, int]] = []
    last: dict[int, int] = {}
    for _, batch in recording.batches(["ts", "cpu", "event", "ret"], rows=1 << 18):
        ts, cpu = batch["ts"], batch["cpu"]
        # Snapshots and what they say of parameters are on no CPU: the importer put them there.
        own = ~np.isin(batch["event"], _PUT_IN)
        for row in np.flatnonzero(batch["event"] == _LOST):
            here = int(cpu[row])
            before = np.flatnonzero((cpu[:row] == here) & own[:row])
            start = int(ts[before[-1]]) if before.size else last.get(here, -(1 << 62))
            out.append((start, int(ts[row]), here, int(batch["ret"][row])))
        ts, cpu = ts[own], cpu[own]
        numbers, first = np.unique(cpu[::-1], return_index=True)
        last.update(zip(numbers.tolist(), ts[len(ts) - 1 - first].tolist(), strict=True))
    return out


def loss_text(loss: dict[str, Any]) -> str:
    """Return in words what one of a manifest's ``losses`` says was lost, ``""`` for nothing."""
    lost, where = loss.get("lost"), _where(loss)
    if loss.get("why") and lost != 0:
        return str(loss["why"])
    if lost is None:
        return f"{where} lost events, how many is unknown"
    return f"{where} lost {lost} events" if lost else ""


def _backwards(loss: dict[str, Any]) -> str:
    return f"time runs backwards {loss['backwards']} times on {_where(loss)}: the order of events is not known"


def _where(loss: dict[str, Any]) -> str:
    return f"CPU {loss['cpu']}" if loss.get("cpu") is not None else str(loss.get("file") or "the recording")


def loss_reasons(manifest: dict[str, Any]) -> list[str]:
    """Return in sentences all that a manifest says is missing, or may be: with any of them a replay cannot PASS."""
    reasons = []
    for loss in manifest["losses"]:
        where = _where(loss)
        if text := loss_text(loss):
            reasons.append(text)
        if loss.get("damaged_subbuffers") or loss.get("short_records"):
            reasons.append(f"{where} has damaged sub-buffers")
        if loss.get("unknown_events"):
            reasons.append(f"{where} has events of types that no format describes")
        if loss.get("backwards") and not text:
            reasons.append(_backwards(loss))
    if not manifest["losses"]:
        reasons.append("the recording does not say whether events were lost: import it again")
    reasons += [str(sentence) for sentence in manifest.get("missing", ())]
    reasons += stopped(manifest)
    return list(dict.fromkeys(reasons))


def stopped(manifest: dict[str, Any]) -> list[str]:
    """Return a sentence where a recording ends before what was to be recorded did, else none."""
    if manifest["complete"]:
        return []
    # One that came to its end, and was damaged after that, says how.
    damaged = manifest.get("capture", {}).get("damaged")
    return [str(sentence) for sentence in damaged] if damaged else ["the recorder was stopped before it could finish"]


def file_reasons(recording: Recording) -> list[str]:
    """Return what a recording's own lists say is not there any more, in sentences.

    One whose lists do not fit each other was refused when it was opened.
    """
    manifest = recording.manifest
    reasons = fewer_events(recording)
    counters = recording.counts().get("counters", 0)
    if counters != len(recording.snapshots):
        reasons.append(f"the recording lists {len(recording.snapshots)} counter snapshots and its events come to "
                       f"{counters} of them: events are missing at its end")
    last = manifest["segments"][-1].get("last_ts") if manifest["segments"] else None
    if last is not None and last != _last_ts(recording):
        reasons.append("the recording's last event is not the one that its manifest says is the last")
    return reasons


def unnamed_pages(recording: Recording, model: Zswap, until: int | None = None) -> list[str]:
    """Return a sentence where pages were recorded that no compress call names, unless the revision chains requests.

    :param until: only where the first of them was recorded before this event
    """
    pages = recording.manifest.get("chained")
    if not isinstance(pages, int) or model.compress_call == "chain":
        return []
    if until is not None and min((event for event, _ in chained_pages(recording)), default=until) >= until:
        return []
    return [f"{pages:,} recorded pages belong to no compress call, unless requests were chained: calls are missing, or "
            "the kernel is one that chains them (v8)"]


def fewer_events(recording: Recording) -> list[str]:
    """Return a sentence where a recording has fewer events than were read when it was made, else none."""
    manifest = recording.manifest
    rings = [loss for loss in manifest["losses"] if "probe" not in loss and loss.get("cpu") is not None]
    # A part of a recording, or what a recorder had before it was stopped, has the losses of all.
    if not manifest["complete"] or "cut_of" in manifest["source"] or not rings \
            or not all("events" in loss for loss in rings):
        return []
    there = sum(count for name, count in recording.counts().items() if name not in _NO_RECORDS)
    read = sum(loss["events"] - loss.get("short_records", 0) - sum(loss.get("ignored_events", {}).values())
               - sum(loss.get("unknown_events", {}).values()) for loss in rings)
    return [] if there >= read else [f"{read:,} events were read when the recording was made, and it has {there:,}: "
                                     f"{read - there:,} are missing"]


def _last_ts(recording: Recording) -> int:
    last = 0
    for _, batch in recording.batches(["ts"], start=len(recording) - 1):
        last = int(batch["ts"][-1])
    return last


def end_reasons(engine: Engine) -> list[str]:
    """Return what is missing at the end of a recording that was replayed to there, in sentences.

    A recording that was cut off looks like one that ended while tasks were inside an operation: a counter snapshot
    ``end``, or the kernel's own count of events, distinguishes the two.
    """
    open_ = [(pid, stack[0].name) for pid, stack in engine.state.stacks.items() if stack]
    if not open_ or _end_told(engine.state.recording):
        return []
    shown = ", ".join(f"task {pid} in {name}()" for pid, name in open_[:_SHOWN])
    more = f" and {len(open_) - _SHOWN} more" if len(open_) > _SHOWN else ""
    return [f"operations do not end before the recording does ({shown}{more}) and nothing says that this is its end: "
            f"take a counter snapshot '{schema.END}' last, or keep the rings' statistics"]


def _end_told(recording: Recording) -> bool:
    """True where something says that a recording goes to its end."""
    losses = recording.manifest["losses"]
    if recording.snapshots:
        return bool(recording.snapshots[-1]["label"] == schema.END)
    return bool(losses) and all(loss.get("counted") for loss in losses if "probe" not in loss)
