# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording holds for pictures: readings of the pool, sizes, batches, writebacks, losses.  One pass; judges
nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from model.list_lru import LRU_REMOVED_RETRY, LRU_ROTATE
from replay.reference.snapshots import zsmalloc_classes
from replay.verdict.losses import Loss, losses_of
from traces import schema
from traces.recording import Recording

__all__ = ["Ages", "Reading", "Recorded", "Snapshot", "look", "times_of"]

_CODE: Final = schema.CODE
_PAGE: Final = schema.PAGE_SIZE
_COLUMNS: Final = ("ts", "pid", "event", "entry", "pool", "ret", "size", "text")
_POOL, _ALL, _MALLOC = (_CODE[name] for name in ("zs_get_total_pages_ret", "zswap_total_pages_ret", "zs_malloc"))
_COMPRESS, _MARKER = _CODE["crypto_acomp_compress"], _CODE["marker"]
_ADD, _CB, _CB_RET = (_CODE[name] for name in ("list_lru_add", "shrink_memcg_cb", "shrink_memcg_cb_ret"))
#: No page is cut into more: what is larger was not asked for by zswap.
_MOST_PAGES: Final = 1 << 10


@dataclass(frozen=True)
class Reading:
    """What one function returned, time by time: ``ts`` in ns, ``pages``."""

    ts: np.ndarray
    pages: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of counters: its number, time (ns), label and event; ``pages`` of the pools and ``classes`` (class ->
    obj_allocated, obj_used, pages_used) where it holds them."""

    number: int
    ts: int
    label: str
    event: int
    pages: int | None
    classes: dict[int, dict[str, int]]


@dataclass
class Ages:
    """How long entries had been listed when they were written back: ``ns``; ``unknown``: listed before the recording
    began, at an unknown time; ``rotated``: second chances given; ``walked``: callbacks in all."""

    ns: list[int] = field(default_factory=list)
    unknown: int = 0
    rotated: int = 0
    walked: int = 0


@dataclass
class Recorded:
    """All of it.

    ``readings``: by function; ``sizes``: how often each size was asked of zs_malloc(), by bytes; ``batches``: pages of
    a compress call -> calls; ``pools``: how many zs_pools were allocated from; ``markers``: (ns, text); ``stamps``: the
    recording's: where there is one, all times are stamps of that clock, and no picture of time can be made.
    """

    first_ts: int = 0
    last_ts: int = 0
    events: int = 0
    readings: dict[str, Reading] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(_PAGE + 1, np.int64))
    larger: int = 0
    batches: dict[int, int] = field(default_factory=dict)
    pools: int = 0
    ages: Ages = field(default_factory=Ages)
    markers: list[tuple[int, str]] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    stamps: str = ""

    def seconds(self, ts: Any) -> Any:
        """Return seconds since the first event of a time, or an array of times, in ns."""
        return (ts - self.first_ts) / 1e9

    @property
    def span(self) -> float:
        """Seconds from the first event to the last."""
        return float(self.seconds(self.last_ts))


def look(recording: Recording, progress: Callable[[str, int, int], None] | None = None) -> Recorded:
    """Look a recording through.

    :param progress: called with (what, events done, events in all)
    :raises BadInput: when a segment or a snapshot cannot be read
    """
    out = Recorded(events=len(recording), stamps=recording.stamps)
    segments = recording.manifest["segments"]
    if segments:
        out.first_ts, out.last_ts = segments[0]["first_ts"], segments[-1]["last_ts"]
    symbols = recording.manifest["config"].get("symbols")
    lru = symbols.get("zswap_list_lru") if isinstance(symbols, dict) else None
    walk = _Walk(out.ages, lru)
    readings: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {_POOL: [], _ALL: []}
    at_event: dict[int, int] = {}
    pools: set[int] = set()
    for base, batch in recording.batches(_COLUMNS):
        codes, ts, size = batch["event"], batch["ts"], batch["size"]
        for code, parts in readings.items():
            here = codes == code
            if here.any():
                parts.append((ts[here], batch["ret"][here]))
        here = codes == _MALLOC
        asked = size[here]
        out.sizes += np.bincount(asked[asked <= _PAGE], minlength=_PAGE + 1)
        out.larger += int((asked > _PAGE).sum())
        pools.update(np.unique(batch["pool"][here]).tolist())
        pages = np.clip(size[codes == _COMPRESS] // _PAGE, 1, _MOST_PAGES)
        for many, calls in zip(*np.unique(pages, return_counts=True), strict=True):
            out.batches[int(many)] = out.batches.get(int(many), 0) + int(calls)
        for i in np.flatnonzero(codes == _MARKER).tolist():
            out.markers.append((int(ts[i]), str(batch["text"][i])))
        for i in np.flatnonzero(codes == _CODE["counters"]).tolist():
            at_event[int(batch["ret"][i])] = base + i
        walk.batch(batch)
        if progress is not None:
            progress("looking", base + len(codes), len(recording))
    out.pools = len(pools)
    for name, code in (("zs_get_total_pages", _POOL), ("zswap_total_pages", _ALL)):
        if readings[code]:
            columns = [np.concatenate(column) for column in zip(*readings[code], strict=True)]
            out.readings[name] = Reading(columns[0], columns[1])
    out.snapshots = [_snapshot(recording, number, at_event.get(number, -1))
                     for number in range(len(recording.snapshots))]
    out.losses = losses_of(recording, (out.first_ts, out.last_ts), 0)
    return out


def _snapshot(recording: Recording, number: int, event: int) -> Snapshot:
    listed, values = recording.snapshots[number], recording.snapshot(number)
    debugfs, pools = values.get("zswap_debugfs"), values.get("zsmalloc_debugfs")
    text = str(debugfs.get("pool_total_size", "")).strip() if isinstance(debugfs, dict) else ""
    classes: dict[int, dict[str, int]] = {}
    for name, value in zsmalloc_classes(pools) if isinstance(pools, dict) else ():
        _, which, column = name.split(".")
        classes.setdefault(int(which.removeprefix("class")), {})[column] = value
    return Snapshot(number, listed["ts"], listed["label"], event,
                    int(text) // _PAGE if text.isdecimal() else None, classes)


class _Walk:
    """Follows LRU walks: what was added when, and what the callback said of it.

    :param lru: address of zswap's list_lru, where it is known; additions to all others are left out
    """

    def __init__(self, ages: Ages, lru: int | None) -> None:
        self.ages, self.lru = ages, lru
        self.added: dict[int, int] = {}
        #: task -> entries whose callback runs, the innermost last (reclaim may nest), with the time it began
        self.inside: dict[int, list[tuple[int, int]]] = {}

    def batch(self, batch: dict[str, np.ndarray]) -> None:
        """Take in a batch of events."""
        rows = np.flatnonzero(np.isin(batch["event"], (_ADD, _CB, _CB_RET)))
        columns = [batch[name][rows].tolist() for name in ("event", "ts", "pid", "entry", "pool", "ret")]
        for code, ts, pid, entry, pool, ret in zip(*columns, strict=True):
            if code == _ADD:
                if not self.lru or pool == self.lru:
                    self.added[entry] = ts
            elif code == _CB:
                self.inside.setdefault(pid, []).append((entry, ts))
            elif self.inside.get(pid):
                self._ended(*self.inside[pid].pop(), ret)

    def _ended(self, entry: int, ts: int, status: int) -> None:
        self.ages.walked += 1
        self.ages.rotated += status == LRU_ROTATE
        if status == LRU_REMOVED_RETRY:
            added = self.added.pop(entry, None)
            if added is None:
                self.ages.unknown += 1
            else:
                self.ages.ns.append(ts - added)


def times_of(recording: Recording, events: np.ndarray) -> np.ndarray:
    """Return the times (ns) of events, given by their numbers in ascending order."""
    out = np.zeros(len(events), np.int64)
    for base, batch in recording.batches(["ts"], rows=1 << 18):
        low, high = np.searchsorted(events, (base, base + len(batch["ts"])))
        out[low:high] = batch["ts"][events[low:high] - base]
    return out
