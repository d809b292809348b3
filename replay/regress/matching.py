# SPDX-License-Identifier: GPL-2.0-or-later
"""Which operations a recording has, so that two runs of the same operations can be compared exactly.

Counts on different operations differ for reasons of the workload.  Counts on the same operations, begun from the same
state, differ for reasons of the kernel alone.  Memory pressure never repeats, but what a workload does first usually
does, so what is looked for is how many operations recordings have alike from their beginning on.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from traces.recording import Recording

__all__ = ["Alike", "OperationSequence", "alike", "start_of"]


@dataclass
class OperationSequence:
    """The operations of one recording in order.

    ``keys``: 8 bytes of a digest each: what was asked, of which slots (numbered as they appear), which folio order,
    which page contents in which order; ``effects``: the same of what it caused; ``events``: the event each begins at.
    ``certain``: how many of them, None for all, are known well enough to be called the same as another's, and ``why``
    not more.
    """

    keys: array[int] = field(default_factory=lambda: array("Q"))
    effects: array[int] = field(default_factory=lambda: array("Q"))
    events: array[int] = field(default_factory=lambda: array("q"))
    certain: int | None = None
    why: str = ""

    def doubt(self, number: int, why: str) -> None:
        """Say that operation ``number`` and those after it cannot be called the same as another's."""
        if self.certain is None or number < self.certain:
            self.certain, self.why = number, why

    def add(self, event: int) -> int:
        """Begin an operation; returns its number."""
        self.keys.append(0)
        self.effects.append(0)
        self.events.append(event)
        return len(self.events) - 1

    def close(self, number: int, key: str, effects: str) -> None:
        """Say what an operation was and did."""
        self.keys[number] = _digest(key)
        self.effects[number] = _digest(effects)


def _digest(text: str) -> int:
    # 0 stands for an operation that never ended.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


def start_of(recording: Recording) -> str:
    """Return what a recording starts from: ``empty``, the digest of a cut's state, or ``""`` where it is not known."""
    state = recording.manifest["files"].get("state.json")
    if state is not None:
        return str(state)
    if not recording.snapshots:
        return ""
    pages = recording.snapshot(0).get("zswap_debugfs", {})
    return "empty" if isinstance(pages, dict) and str(pages.get("stored_pages")).strip() == "0" else ""


@dataclass(frozen=True)
class Alike:
    """What recordings have alike from their beginning on.

    ``count``: operations; ``events``: of each recording, the event where the part ends, None when it is all of it;
    ``why``: why it ends where it ends, in words; ``different``: how many of these operations had other effects in
    some recording than in the first, and ``first``: the number of the first such operation, None where there is none.
    """

    count: int
    events: tuple[int | None, ...]
    why: str
    different: int = 0
    first: int | None = None

    @property
    def whole(self) -> bool:
        """True when it is all of every recording."""
        return self.count > 0 and all(event is None for event in self.events)


def alike(parts: Sequence[OperationSequence], starts: Sequence[str], lost: bool, keyed: bool) -> Alike:
    """Find how many operations recordings have alike from the beginning.

    :param parts: their operations
    :param starts: what each starts from (:func:`start_of`)
    :param lost: True when any has lost events: nothing in it can be called alike then
    :param keyed: True when page contents are known by digests of different keys
    """
    nothing = (0,) * len(parts)
    if lost:
        return Alike(0, nothing, "events were lost: what was not recorded may differ")
    if "" in starts:
        return Alike(0, nothing, "it is not known what a recording began with: no start state and no first snapshot "
                                 "that says zswap was empty")
    if len(set(starts)) > 1:
        return Alike(0, nothing, "the recordings do not start from the same state")
    lengths = [len(part.keys) for part in parts]
    count, why = min((len(part.keys), "a recording ends there") if part.certain is None else (part.certain, part.why)
                     for part in parts)
    first = parts[0]
    for part in parts[1:]:
        same = _common(first.keys, part.keys, count)
        if same < count:
            count = same
            why = ("page contents are digests with keys of their own, which cannot be compared between recordings "
                   "(record with --pages full)" if keyed else "the recordings did different things from there on")
    for number in range(count):
        if not first.keys[number]:
            count, why = number, "an operation does not end in a recording"
            break
    if count and all(count == length for length in lengths):
        why = "all of every recording"
    events = tuple(None if count == len(part.events) else part.events[count] for part in parts)
    different = [number for number in range(count)
                 if any(part.effects[number] != first.effects[number] for part in parts[1:])]
    return Alike(count, events, why, len(different), different[0] if different else None)


def _common(a: array[int], b: array[int], most: int) -> int:
    """Return how many values are the same from the beginning on, of ``most``."""
    if a[:most] == b[:most]:
        return most
    return next(number for number in range(most) if a[number] != b[number])
