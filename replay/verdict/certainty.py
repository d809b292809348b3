# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether what a replay found different is surely the kernel's doing, or may be what the recording does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.reference.checks import CHECKS, DRIVER_CHECKS, Divergence
from replay.verdict.losses import fewer_events, losses_of, unnamed_pages
from replay.verdict.unpairedcalls import broken_calls, silent_cpus
from traces import schema
from traces.recording import Recording

if TYPE_CHECKING:
    from replay.reference.engine import Engine

__all__ = ["excuses"]


def excuses(recording: Recording, engine: Engine) -> list[str]:
    """Return what may explain the divergences of a replay in the kernel's place, a sentence each; empty for nothing.

    Whatever a recording does not hold (an event that was lost, or never probed) shows where the model next relies on
    it: at any later event, of any task, because tasks share pools, lists and the tree.  So a loss explains every
    difference at or after the first moment at which it can have happened, and nothing before it:

    * Where a ring marks a loss, it lies between the mark and the CPU's event before.  The replay itself stops at the
      mark; other CPUs' events between these two were replayed, and may already show what is missing.
    * What is only counted (per CPU, or the hits that a probe missed) may have happened anywhere from the beginning.
    * A CPU of which the recording says nothing, and calls without a return, show that rings are missing.
    * What was not probed happens unseen from the beginning.
    * What the model had to assume, because nothing recorded shows it, from the event on where it did.

    Only a difference under an ``own`` check is not affected: both its sides come from one operation's own events
    (the page handed to a call, and what that call returned).  An event lost elsewhere changes neither.  One lost
    inside the operation would: with the return of a task's first call and the beginning of its second lost, the
    second's return is checked against the first's page.  A ring loses whole runs of one CPU's events, so such an
    operation has events on the CPU that lost some; where all of its events up to the difference are on CPUs that
    lost nothing, it stands.  (It could have moved to that CPU and back within the one call, with all that it did
    there lost.  A compress call sleeps or moves only where its driver waits for hardware, and the task would be
    back before its return.)  Hits that probes missed are lost one by one, of any task.  For the same confusion the
    probe of the event that differs has to have missed one, the one that the model waited for, and so has another,
    that of an event in between: where only one probe missed hits, or none that is the event's, it stands too.
    A check of a device's driver is affected by any loss: it follows the calls of all tasks, one after another.
    """
    divergences = engine.state.tally.divergences
    if not divergences:
        return []
    out = _excuses(recording, engine, divergences[0])
    # One that follows from an operation's own events does not follow from an earlier difference.
    own = next((divergence for divergence in divergences[1:] if _is_own(divergence)), None)
    return [] if own is not None and out and not _excuses(recording, engine, own) else out


def _is_own(divergence: Divergence) -> bool:
    check = CHECKS.get(divergence.check)
    return check is not None and check.own


def _excuses(recording: Recording, engine: Engine, first: Divergence) -> list[str]:
    own = _is_own(first)
    # An event that is missing shifts whose queue, or job, the driver's next calls are taken to have.
    alone = own and first.check not in DRIVER_CHECKS
    out = []
    # What is compared when all is over has no moment of its own.
    end = first.ts or 1 << 62
    losses = losses_of(recording, (_beginning(recording), end), 0)
    missed = {loss.code for loss in losses if loss.code is not None}
    confused = len(missed) > 1 and schema.CODE.get(first.name) in missed
    for loss in losses:
        stands = alone and (not confused if loss.code is not None else not _on_cpu(engine, first, loss.cpu))
        if loss.start > end or stands:
            continue
        if loss.code is not None:
            out.append(f"the difference may be due to hits that probes missed at unknown places: {loss.text}")
        else:
            out.append(f"the difference may be due to lost events: {loss.text}")
    silent = silent_cpus(recording)
    if silent:
        out.append(f"the difference may be due to what happened on CPU {silent}, of which the recording has no events")
    out += [f"the difference may be due to lost events: {reason}" for reason in
            (*fewer_events(recording), *unnamed_pages(recording, engine.state.model, first.event))]
    broken = broken_calls(recording)
    if broken:
        out.append(f"the difference may be due to lost events: {broken}")
    if not own:
        # The model's state rests on that; what it assumed later does not matter.
        out += [f"the difference may be due to what was not captured: {what}"
                for what in [*engine.state.uncaptured.open(),
                             *(what for what, event in engine.state.guesses.items() if event <= first.event)]]
        if engine.state.settings.unsafe:
            out.append("the difference may be due to a parameter that changed at an unknown time")
    return list(dict.fromkeys(out))


def _beginning(recording: Recording) -> int:
    for _, batch in recording.batches(["ts"], rows=1):
        return int(batch["ts"][0])
    return 0


def _on_cpu(engine: Engine, divergence: Divergence, cpu: int | None) -> bool:
    """True where a CPU may have lost events of the operation that a divergence lies in; None: any may be that CPU."""
    if cpu is None:
        return True
    start = divergence.path[-1][1] if divergence.path else divergence.event
    for base, batch in engine.state.recording.batches(["cpu", "pid", "event"], start=start):
        if base > divergence.event:
            break
        rows = slice(max(0, start - base), divergence.event + 1 - base)
        own = (batch["pid"][rows] == divergence.pid) & (batch["event"][rows] != schema.CODE["lost_events"])
        if (batch["cpu"][rows][own] == cpu).any():
            return True
    return False
