# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver's statistics in a recording's snapshots: debugfs ``iaa_crypto/global_stats`` and ``wq_stats``."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from model.crypto.iaa_stats import GLOBAL_STATS
from traces import schema
from traces.recording import Recording

__all__ = ["DriverStats", "recorded_stats"]

_LINE: Final = re.compile(r"^\s*(\w+): (\d{1,19})$")
_WQ_LINE: Final = re.compile(r"^\s*(id|name|comp_calls|comp_bytes|decomp_calls|decomp_bytes): (\S{1,64})$")

#: what the lab calls a queue
_NAME: Final = re.compile(r"iaa_crypto(\d{1,3})")
#: Seconds that reading a snapshot takes at most.
_LONGEST: Final = 3600.0


class DriverStats(NamedTuple):
    """One snapshot: the event that stands for it, its time, the global counters by name, and those of each queue.

    ``ts``, ``until``: when reading it began and ended, nanoseconds; ``wqs``: (device, queue) -> calls and bytes by
    name.  A device is numbered by its id, a queue by its name, as :mod:`traces.lab.guestiaa` gives it; one of another
    name as the driver lists them.
    """

    event: int
    ts: int
    counters: dict[str, int]
    wqs: dict[tuple[int, int], dict[str, int]]
    until: int


def _global(text: str) -> dict[str, int]:
    found = (_LINE.match(line) for line in text.splitlines())
    return {match[1]: int(match[2]) for match in found if match and match[1] in GLOBAL_STATS}


def _wqs(text: str) -> dict[tuple[int, int], dict[str, int]]:
    """Parse wq_stats: a device's own lines, then those of its queues, by (its id, queue)."""
    out: dict[tuple[int, int], dict[str, int]] = {}
    device, queue, listed = -1, -1, 0
    for line in text.splitlines():
        match = _WQ_LINE.match(line)
        if line.startswith("iaa device:"):
            device, queue, listed = device + 1, -1, 0
        elif not match:
            continue
        elif match[1] == "id" and match[2].isdecimal() and queue < 0:
            device = int(match[2])
        elif match[1] == "name":
            named = _NAME.fullmatch(match[2])
            queue, listed = int(named[1]) if named else listed, listed + 1
            out[device, queue] = {}
        elif queue >= 0 and match[2].isdecimal():
            out[device, queue][match[1]] = int(match[2])
    return out


def recorded_stats(recording: Recording) -> list[DriverStats]:
    """Return the driver's statistics of each snapshot that has them, in order.

    :raises BadInput: when a snapshot cannot be read
    """
    out: list[DriverStats] = []
    if not any("iaa_crypto" in recording.snapshot(number) for number in range(len(recording.snapshots))):
        return out
    for base, batch in recording.batches(("event", "ret", "ts")):
        for i in (batch["event"] == schema.CODE["counters"]).nonzero()[0].tolist():
            snapshot = recording.snapshot(int(batch["ret"][i]))
            values: dict[str, Any] = snapshot.get("iaa_crypto") or {}
            if isinstance(values.get("global_stats"), str):
                ts = int(batch["ts"][i])
                taken = float(snapshot.get("t_end") or 0) - float(snapshot.get("t") or 0)
                until = ts + round(min(max(taken, 0.0), _LONGEST) * 1e9)
                out.append(DriverStats(base + i, ts, _global(values["global_stats"]),
                                       _wqs(str(values.get("wq_stats", ""))), until))
    # The lab counts its devices from 0; a kernel with others, such as DSAs, gives the ids among all of them.
    ids = sorted({device for one in out for device, _ in one.wqs})
    return [one._replace(wqs={(ids.index(device), queue): values for (device, queue), values in one.wqs.items()})
            for one in out]
