# SPDX-License-Identifier: GPL-2.0-or-later
"""When a recording may be missing events: where its ring says so, and what its counters say beyond that."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from traces import schema
from traces.importers.probemap import vocabulary_name
from traces.recording import Recording

__all__ = ["Loss", "losses_of"]

_LOST: Final = schema.CODE["lost_events"]


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
            out.append(Loss(start, stop, None, f"CPU {cpu} lost {many} before {stop / 1e9:.6f} s", cpu))
    for loss in recording.manifest["losses"]:
        lost = loss.get("lost")
        if "probe" in loss:
            if lost != 0:
                name = vocabulary_name(str(loss["probe"])) or str(loss["probe"])
                many = f"{lost:,}" if isinstance(lost, int) else "an unknown number of"
                out.append(Loss(*span, schema.CODE.get(name), f"the probe of {name} missed {many} hits, unknown when"))
            continue
        cpu = loss.get("cpu")
        where = f"CPU {cpu}" if cpu is not None else "the recorder"
        beyond = lost - marked.get(loss.get("cpu", -1), 0) if isinstance(lost, int) else None
        if beyond is None:
            out.append(Loss(*span, None, f"it is not known how many events {where} lost", cpu))
        elif beyond > 0:
            out.append(Loss(*span, None, f"{where} lost {beyond:,} events at unknown times", cpu))
        elif loss.get("damaged_subbuffers") or loss.get("short_records"):
            out.append(Loss(*span, None, f"what was recorded on {where} is damaged", cpu))
    return out


def _marks(recording: Recording) -> list[tuple[int, int, int, int]]:
    """Return (time of the CPU's event before, time, CPU, count or -1) of the marks that rings hold."""
    out: list[tuple[int, int, int, int]] = []
    last: dict[int, int] = {}
    for _, batch in recording.batches(["ts", "cpu", "event", "ret"], rows=1 << 18):
        ts, cpu = batch["ts"], batch["cpu"]
        for row in np.flatnonzero(batch["event"] == _LOST):
            here = int(cpu[row])
            before = np.flatnonzero(cpu[:row] == here)
            start = int(ts[before[-1]]) if before.size else last.get(here, -(1 << 62))
            out.append((start, int(ts[row]), here, int(batch["ret"][row])))
        numbers, first = np.unique(cpu[::-1], return_index=True)
        last.update(zip(numbers.tolist(), ts[len(ts) - 1 - first].tolist(), strict=True))
    return out
