# SPDX-License-Identifier: GPL-2.0-or-later
"""Work queues that were given to iaa_crypto, and taken away from it, while it was recorded.

The probes on iaa_crypto_probe(), iaa_crypto_remove() and rebalance_wq_table() say when, between which calls; the
devices' log says which queue each was.  Both have them in the same order, as the driver's mutex has.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from replay.iaa.jobs import DeviceJob
from traces import schema
from traces.lab.iaa.joblog import QUEUE_OFF, QUEUE_ON
from traces.recording import Recording

__all__ = ["QueueChange", "queue_changes"]

_PROBE: Final = "iaa_crypto_probe"
_REMOVE: Final = "iaa_crypto_remove"
_REBALANCE: Final = "rebalance_wq_table"
_NAMES: Final = tuple(name + end for name in (_PROBE, _REMOVE, _REBALANCE) for end in ("", "_ret"))
#: Nanoseconds by which a line of the log may lie outside of its change, as both clocks have it.
_SLACK: Final = 100_000_000
#: Nanoseconds in which the driver changes its tables before a queue is disabled (iaa_crypto_remove()), at most.
_SOON: Final = 1_000_000_000


@dataclass
class QueueChange:
    """One call of iaa_crypto_probe() or iaa_crypto_remove().

    ``on``: a queue was given; ``took``: that was done, or refused (-EEXIST for the first queue of an algorithm that is
    still registered); ``number``: the event from which on calls of the driver may see it; ``rebalanced``: the event at
    which the tables were made anew, ``number`` where they were not; ``end``: the event of its return; ``queue``:
    (device, queue), None for one that was refused before it was enabled.
    """

    on: bool
    number: int
    ts: int
    rebalanced: int = -1
    end: int = -1
    end_ts: int = 0
    took: bool = True
    queue: tuple[int, int] | None = None


def queue_changes(recording: Recording, lines: Sequence[DeviceJob],
                  when: Callable[[int], int]) -> tuple[list[DeviceJob], list[QueueChange], float]:
    """Return what had become of queues when the recording began, and the changes that can be followed, in order.

    The third is when, by the devices' clock, there is another: its tables are not known from then on; inf: never.

    :param lines: of the log, those of queues
    :param when: a time stamp of the recording by the devices' clock
    :raises BadInput: when the recording cannot be read
    """
    found, begin = _recorded(recording), when(_first_ts(recording))
    # A line may lie on the other side of the recording's first event, as the clocks are compared.
    first, last = (sum(line.submitted < begin + slack for line in lines) for slack in (-_SLACK, _SLACK))
    tried = [(number, *_matched(found, lines[number:], when)) for number in range(first, last + 1)]
    number, followed, until = max(tried, key=lambda one: (len(one[1]), one[2]))
    return list(lines[:number]), followed, until


def _matched(found: Sequence[QueueChange], lines: Sequence[DeviceJob],
             when: Callable[[int], int]) -> tuple[list[QueueChange], float]:
    """Return the changes that have their lines, up to one that has not, and when that is; see :func:`queue_changes`."""
    left, followed = deque(lines), list[QueueChange]()
    for change in found:
        due = [QUEUE_ON] if change.on else [QUEUE_OFF]
        if not change.took:
            # It was enabled first, or refused before.
            due = [QUEUE_ON, QUEUE_OFF] if [line.op for line in left][:2] == [QUEUE_ON, QUEUE_OFF] \
                and left[0].submitted <= when(change.end_ts) + _SLACK else []
        own = [left[k] for k in range(min(len(due), len(left)))]
        if change.end < 0 or [line.op for line in own] != due or len({(one.device, one.queue) for one in own}) > 1 \
                or not all(when(change.ts) - _SLACK <= one.submitted <= when(change.end_ts) + _SLACK for one in own):
            return followed, min(when(change.ts) - _SLACK, left[0].submitted - _SOON if left else math.inf)
        for _ in own:
            left.popleft()
        followed.append(replace(change, queue=(own[0].device, own[0].queue) if own else None))
    return followed, left[0].submitted - _SOON if left else math.inf


def _first_ts(recording: Recording) -> int:
    for _, batch in recording.batches(["ts"]):
        return int(batch["ts"][0])
    return 0


def _recorded(recording: Recording) -> list[QueueChange]:
    """Return what the probes saw, in the order of the driver's mutex: that of the returns.

    One of which the entry was not seen, or the return, has no end.
    """
    counts = recording.counts()
    wanted = [schema.CODE[name] for name in _NAMES if counts.get(name)]
    if not wanted:
        return []
    under_way: dict[int, QueueChange] = {}
    found: list[QueueChange] = []
    for base, batch in recording.batches(["ts", "event", "pid", "ret"]):
        for i in np.flatnonzero(np.isin(batch["event"], wanted)).tolist():
            name, pid, number, ts = schema.NAMES[batch["event"][i]], int(batch["pid"][i]), base + i, int(batch["ts"][i])
            if name in (_PROBE, _REMOVE):
                if pid in under_way:
                    return [*found, under_way[pid]]
                under_way[pid] = QueueChange(name == _PROBE, number, ts)
                continue
            change = under_way.get(pid)
            if change is None:
                # It was under way when the recording began.
                return [QueueChange(False, number, _first_ts(recording))]
            if name == _REBALANCE and change.rebalanced < 0:
                change.rebalanced = number
            elif name == (_PROBE if change.on else _REMOVE) + "_ret":
                change.end, change.end_ts = number, ts
                change.took = not change.on or int(batch["ret"][i]) == 0
                if change.rebalanced < 0:
                    change.rebalanced = change.number
                elif change.on:
                    # Until then the driver's tables do not have it.
                    change.number = change.rebalanced
                found.append(under_way.pop(pid))
    return [*found, *under_way.values()]
