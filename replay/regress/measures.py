# SPDX-License-Identifier: GPL-2.0-or-later
"""What one recording's kernel did, in numbers: counts of effects, lengths, pool sizes, times.

One pass over the events, task by task.  What is kept grows with the number of stores (their lengths and times, some
30 bytes each) and with what is stored at once, not with the number of events.
"""

from __future__ import annotations

import hashlib
import re
import statistics
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from replay.regress import catalogue
from replay.regress.catalogue import EFFECTS, LEVELS, VMSTAT_NAMES, Measure
from replay.regress.matching import OperationSequence, start_of
from replay.verdict.losses import losses_of, stopped
from traces import schema
from traces.errors import BadInput
from traces.recording import Recording
from traces.times import no_seconds

__all__ = ["Lengths", "Run", "emulated", "measure"]

_Progress = Callable[[str, int, int], None]
_CODE: Final = schema.CODE
_PAGE: Final = schema.PAGE_SIZE
_STORE, _LOAD, _INVALIDATE, _OUTSIDE = range(4)
_KINDS: Final = ("store", "load", "invalidate", "outside")
#: Functions whose call is an operation, and what kind; what runs on its own account is an operation too, as its place
#: in the order decides what others do.
_BEGINS: Final = {_CODE["zswap_store"]: _STORE, _CODE["zswap_load"]: _LOAD, _CODE["zswap_invalidate"]: _INVALIDATE,
                  **{_CODE[name]: _OUTSIDE for name in (
                      "shrink_worker", "zswap_shrinker_scan", "zs_shrinker_scan", "zs_compact", "zs_page_migrate",
                      "async_free_zspage", "zswap_pool_create", "param", "memcg_reparent_list_lrus")}}
#: What of :data:`_BEGINS` has a return.
_ENDS: Final = {_CODE[name + "_ret"]: _CODE[name] for name in (
    "zswap_store", "zswap_load", "shrink_worker", "zswap_shrinker_scan", "zs_shrinker_scan", "zs_compact",
    "zswap_pool_create")}
#: Effects counted by operation, in the order of an operation's list of counts.
_COUNTED: Final = tuple(dict.fromkeys(name for table in EFFECTS.values() for name in table))
_SLOT: Final = {_CODE[name]: number for number, name in enumerate(_COUNTED)}
#: Calls that are timed besides stores and loads, by the code of their return.
_TIMED: Final = {_CODE[name + "_ret"]: (_CODE[name], name) for name in (
    "crypto_acomp_compress", "crypto_acomp_decompress", "zs_malloc")}
_TIMED_BEGIN: Final = dict(_TIMED.values())
_LRU: Final = (_CODE["list_lru_add"], _CODE["list_lru_del"])
_COMPRESS, _COMPRESS_RET = _CODE["crypto_acomp_compress"], _CODE["crypto_acomp_compress_ret"]
_MALLOC, _MALLOC_RET, _FREE = _CODE["zs_malloc"], _CODE["zs_malloc_ret"], _CODE["zs_free"]
_ENTRY_FREE, _TOTAL = _CODE["zswap_entry_free"], _CODE["zs_get_total_pages_ret"]
_COUNTERS, _LOST = _CODE["counters"], _CODE["lost_events"]
#: What is looked at beyond being counted.
_ELSE: Final = frozenset({*_BEGINS, *_ENDS, *_TIMED, *_TIMED_BEGIN, _FREE, _ENTRY_FREE, _TOTAL, _COUNTERS, _LOST})
_COLUMNS: Final = ("ts", "cpu", "pid", "event", "swpent", "pool", "handle", "ret", "size", "content", "order", "text")
#: What stays of an event when a recording is scrubbed, imported anew or compressed otherwise.
_IDENTITY: Final = ("ts", "cpu", "pid", "event")
_ERR_PTR: Final = (1 << 64) - 4095
#: Quantiles of times: name, percent, and the fewest samples that say anything of it.
_QUANTILES: Final = (("median", 50.0, 1), ("p90", 90.0, 10), ("p99", 99.0, 100))
#: All of time, ns: a loss counts wherever it is.
_EVER: Final = (-(1 << 62), 1 << 62)
#: No folio is larger: above PMD order there is nothing that swaps out.
_MAX_ORDER: Final = 13
_EMULATORS: Final = re.compile(r"\bTCG\b|Bochs", re.I)


def emulated(manifest: dict[str, Any]) -> bool | None:
    """True when the recorded box was an emulator, None where the manifest does not say what it was."""
    capture, kernel = manifest.get("capture"), manifest["kernel"]
    box = capture.get("box") if isinstance(capture, dict) else None
    model = (box.get("cpu_model") if isinstance(box, dict) else None) or kernel.get("cpu_model")
    return bool(_EMULATORS.search(model)) if isinstance(model, str) and model else None


@dataclass
class Lengths:
    """Length of each distinct page content, by its digest; contents that had several are ``unsteady``."""

    by_digest: dict[str, int] = field(default_factory=dict)
    unsteady: set[str] = field(default_factory=set)

    def add(self, digest: str, length: int) -> None:
        """Take in one stored page."""
        if self.by_digest.setdefault(digest, length) != length:
            self.unsteady.add(digest)


@dataclass
class Run:
    """All that was measured of one recording.

    ``values``: measure id -> value; ``missing``: measure id -> why it has no value; ``ends``: counter id -> value in
    the last snapshot; ``orders``: folio order -> pages of the stores; ``losses``: in words, empty where nothing was
    lost; ``start``: see :func:`replay.regress.matching.start_of`; ``keyed``: page digests have a key of their own;
    ``emulated``: see :func:`emulated`.
    """

    recording: str
    kernel: str
    compressor: str
    manifest: dict[str, Any]
    measures: dict[str, Measure] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    orders: dict[int, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    operations: OperationSequence = field(default_factory=OperationSequence)
    lengths: Lengths = field(default_factory=Lengths)
    start: str = ""
    keyed: bool = False
    emulated: bool | None = None
    #: digest of when each event was, where, and of which task: no two runs have the same
    identity: str = ""

    def put(self, made: Measure, value: float | None, why: str = "") -> None:
        """Take in a measure's value, or why there is none."""
        self.measures[made.id] = made
        if value is None:
            self.missing[made.id] = why
        else:
            self.values[made.id] = float(value)


def measure(recording: Recording, until: int | None = None, progress: _Progress | None = None) -> Run:
    """Measure a recording.

    :param until: leave out this event and all after it, and what is not a count: counters and times
    :param progress: called with (what, events done, events in all)
    :raises BadInput: when a segment or a snapshot cannot be read
    """
    manifest = recording.manifest
    run = Run(str(recording.path), str(manifest["kernel"].get("release", "?")),
              str(manifest["config"].get("compressor", "?")), manifest, emulated=emulated(manifest))
    run.losses = [loss.text for loss in losses_of(recording, _EVER, 0)]
    run.losses += stopped(manifest)
    pages = recording.pages
    run.keyed = pages is not None and any(len(digest) == 64 for digest in pages.sha1[:1])
    _Pass(recording, run, until).walk(progress)
    return run


@dataclass
class _Operation:
    """An operation that a task is in."""

    number: int
    kind: int
    code: int
    ts: int
    order: int = 0
    key: str = ""
    counts: list[int] = field(default_factory=lambda: [0] * len(_COUNTED))
    #: pages handed to the compressor, as rows of the page store, and lengths of the objects made, in order
    pages: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    handed: int = 0
    failed: int = 0
    closed: bool = False


class _Pass:
    """The state of one pass over a recording."""

    def __init__(self, recording: Recording, run: Run, until: int | None) -> None:
        self.recording, self.run, self.until = recording, run, until
        pages = recording.pages
        self.refs: list[int] = pages.refs.tolist() if pages is not None else []
        self.digests: list[str] = pages.sha1 if pages is not None else []
        symbols = recording.manifest["config"].get("symbols")
        #: zswap's list_lru: its events carry every LRU of the system
        self.lru = symbols.get("zswap_list_lru") if isinstance(symbols, dict) else None
        #: task -> the operation it is in; an idle task is one per CPU, numbered below 0
        self.inside: dict[int, _Operation] = {}
        self.open = 0
        self.began: dict[tuple[int, int], int] = {}
        self.asked: dict[int, int] = {}
        self.dying: dict[int, int] = {}
        self.slots: dict[int, int] = {}
        self.calls = [0] * len(_KINDS)
        self.counts = [[0] * len(_COUNTED) for _ in _KINDS]
        self.rejected = self.stored = self.asked_pages = self.compactions = 0
        self.compress = [0, 0, 0]
        self.stored_lengths = array("I")
        self.times: dict[str, array[int]] = {}
        self.live: dict[int, int] = {}
        self.bytes: int | None = 0
        self.peak = (0, 0)
        self.pools: set[int] = set()
        self.first_ts: int | None = None
        #: snapshot -> bytes stored
        self.at_snapshot: dict[int, int | None] = {}
        self._begin()

    def _begin(self) -> None:
        """Take what the recording starts with."""
        self.run.start = start_of(self.recording)
        state = self.recording.document("state")
        entries = state.get("entries") if state is not None else None
        # Rows of replay.reference.modelstate: swap entry, length, and more.
        if isinstance(entries, list):
            lengths = [row[1] for row in entries if isinstance(row, list) and len(row) > 1 and isinstance(row[1], int)]
            self.bytes = sum(lengths) if len(lengths) == len(entries) else None
        elif self.run.start != "empty":
            self.bytes = None

    # ---- the walk ---------------------------------------------------------------------------------------

    def walk(self, progress: _Progress | None) -> None:
        """Go through the events and leave the values in the run."""
        wanted = np.zeros(256, bool)
        wanted[[*_ELSE, *_SLOT]] = True
        total = len(self.recording) if self.until is None else self.until
        slots = [_SLOT.get(code, -1) for code in range(256)]
        plain = [code in _SLOT and code not in _ELSE for code in range(256)]
        inside, lru = self.inside, self.lru
        identity = hashlib.blake2b(digest_size=16)
        for base, batch in self.recording.batches(_COLUMNS):
            if base >= total:
                break
            # Row by row: how many rows a batch has does not belong to what happened.
            identity.update(np.stack([batch[name].astype(np.int64) for name in _IDENTITY], axis=1).tobytes())
            rows = np.flatnonzero(wanted[batch["event"]][:total - base])
            columns = [batch[name][rows].tolist() for name in _COLUMNS]
            for number, ts, cpu, pid, code, *event in zip((rows + base).tolist(), *columns, strict=True):
                task = pid or ~cpu
                operation = inside.get(task)
                slot = slots[code]
                if slot >= 0 and operation is not None and (code not in _LRU or lru is None or event[1] == lru):
                    operation.counts[slot] += 1
                if not plain[code]:
                    self._event(number, ts, task, code, operation, *event)
            if progress is not None:
                progress(f"measuring {self.recording.path.name}", min(base + len(batch["ts"]), total), total)
        if total:
            self.run.identity = identity.hexdigest()
        for task in list(self.inside):
            self._leave(task, ended=self.until is not None)
        self._results()

    def _event(self, number: int, ts: int, task: int, code: int, inside: _Operation | None, swpent: int, pool: int,
               handle: int, ret: int, size: int, content: int, order: int, text: str) -> None:
        """Take in an event that is more than an effect to be counted; ``inside``: what its task is in."""
        begins = _BEGINS.get(code)
        if begins is not None:
            if order > _MAX_ORDER:
                raise BadInput(self.recording.path, f"event {number}", f"a folio of order {order} makes no sense",
                               "import or record again")
            self._enter(task, _Operation(-1, begins, code, ts, order), number, swpent, text)
            return
        if code in _ENDS:
            if inside is not None and inside.code == _ENDS[code]:
                self._return(task, inside, ts, ret)
            return
        self._time(task, code, ts)
        if code == _COMPRESS:
            self._compress(inside, size, content)
        elif code == _COMPRESS_RET:
            if inside is not None:
                inside.failed += ret != 0
        elif code == _MALLOC:
            self.asked[task] = size
            if inside is not None and inside.kind == _STORE:
                self.pools.add(pool)
        elif code == _MALLOC_RET:
            self._allocated(task, inside, handle)
        elif code == _ENTRY_FREE:
            self.dying[task] = size
        elif code == _FREE:
            known = self.live.pop(handle, None)
            dying = self.dying.pop(task, None)
            if self.bytes is not None:
                # An object that was there when the recording began is known by its entry alone.
                self.bytes -= known if known is not None else dying or 0
        elif code == _TOTAL:
            if inside is not None and ret > self.peak[0]:
                self.peak = (ret, self.bytes or 0)
        elif code == _COUNTERS:
            self.at_snapshot[ret] = self.bytes
        elif code == _LOST:
            self.began.clear()
            for other in list(self.inside):
                self._leave(other, ended=False)

    def _enter(self, task: int, made: _Operation, number: int, swpent: int, text: str) -> None:
        """A task begins an operation; inside another it is a part of that."""
        inside = self.inside.get(task)
        if inside is not None and not inside.closed:
            if inside.code == made.code:
                # Its return was lost.
                self._leave(task, ended=False)
            else:
                return
        elif inside is not None:
            self._leave(task, ended=True)
        operations = self.run.operations
        if self.open:
            # From here on the order in which operations begin does not decide what they do.
            operations.doubt(len(operations.events), "two tasks are inside operations at once")
        if self.first_ts is None:
            self.first_ts = made.ts
            snapshots = self.recording.snapshots
            if self.run.start == "empty" and snapshots and snapshots[0]["ts"] > made.ts:
                # The first snapshot came later: it does not say what was there before.
                self.run.start, self.bytes = "", None
        made.number = operations.add(number)
        slot = self._slot(swpent, 1 << made.order if made.kind == _STORE else 1) if made.kind != _OUTSIDE else 0
        made.key = f"{made.code} {made.order} {slot} {text}"
        # An invalidate has no return: what its task does next is its effect, and no task waits for it.
        made.closed = made.code not in _ENDS.values()
        self.open += not made.closed
        self.inside[task] = made

    def _slot(self, swpent: int, pages: int) -> int:
        """Return the number of a slot: slots are numbered as they appear, as kernels may choose others."""
        slots = self.slots
        for page in range(swpent, swpent + pages):
            slots.setdefault(page, len(slots))
        return slots[swpent]

    def _return(self, task: int, inside: _Operation, ts: int, ret: int) -> None:
        if inside.kind == _STORE:
            pages = 1 << inside.order
            self.asked_pages += pages
            self.run.orders[inside.order] = self.run.orders.get(inside.order, 0) + pages
            if ret == 1:
                self.stored += pages
                self.stored_lengths.extend(inside.lengths)
                self._lengths_of_pages(inside)
            else:
                self.rejected += 1
            self._timed(f"zswap_store.order{inside.order}", ts - inside.ts)
        elif inside.kind == _LOAD:
            self._timed("zswap_load", ts - inside.ts)
        inside.key += f" {ret}" if inside.kind == _OUTSIDE else ""
        self._leave(task, ended=True)

    def _leave(self, task: int, ended: bool) -> None:
        """A task's operation is over."""
        done = self.inside.pop(task)
        self.open -= not done.closed
        self.calls[done.kind] += 1
        self.compactions += done.code in (_CODE["zs_shrinker_scan"], _CODE["zs_compact"])
        totals = self.counts[done.kind]
        for slot, count in enumerate(done.counts):
            totals[slot] += count
        if done.kind == _STORE:
            self.compress[0] += done.counts[0]
            self.compress[1] += done.handed
            self.compress[2] += done.failed
        if ended or done.closed:
            contents = ",".join(self.digests[page] for page in done.pages)
            self.run.operations.close(done.number, f"{done.key} {contents}", f"{done.counts} {done.lengths}")

    # ---- effects ----------------------------------------------------------------------------------------

    def _compress(self, inside: _Operation | None, size: int, content: int) -> None:
        if inside is None or inside.kind != _STORE:
            return
        pages = max(1, size // _PAGE)
        inside.handed += pages
        if 0 <= content <= len(self.refs) - pages:
            inside.pages.extend(self.refs[content:content + pages])
        else:
            self.run.operations.doubt(inside.number, "it was not recorded which page contents were stored")

    def _allocated(self, task: int, inside: _Operation | None, handle: int) -> None:
        size = self.asked.pop(task, None)
        if size is None or inside is None or inside.kind != _STORE or handle >= _ERR_PTR or not handle:
            return
        inside.lengths.append(size)
        self.live[handle] = size
        if self.bytes is not None:
            self.bytes += size

    def _lengths_of_pages(self, store: _Operation) -> None:
        # Objects are made in the order of the pages; where some failed it is not known which.
        if len(store.pages) == len(store.lengths):
            for page, length in zip(store.pages, store.lengths, strict=True):
                self.run.lengths.add(self.digests[page], length)

    def _time(self, task: int, code: int, ts: int) -> None:
        if code in _TIMED_BEGIN:
            self.began[task, code] = ts
        elif code in _TIMED:
            entry, name = _TIMED[code]
            began = self.began.pop((task, entry), None)
            if began is not None:
                self._timed(name, ts - began)

    def _timed(self, name: str, ns: int) -> None:
        if name not in self.times:
            self.times[name] = array("q")
        self.times[name].append(ns)

    # ---- results ----------------------------------------------------------------------------------------

    def _results(self) -> None:
        self._fixed()
        per = {"store": self.stored, "load": self.calls[_LOAD], "invalidate": self.calls[_INVALIDATE]}
        probes = self.recording.manifest["probes"]
        for operation, event, made in catalogue.effects():
            count = self.counts[_KINDS.index(operation)][_COUNTED.index(event)]
            if event in probes:
                self.run.put(made, _share(count, per[operation]), f"there is no {made.unit.removeprefix('per ')}")
            else:
                self.run.put(made, None, f"{event.removesuffix('_ret')} was not probed")
        self._pool_at_snapshots()
        if self.until is None:
            self._counters()
            self._quantiles()

    def _fixed(self) -> None:
        measures = catalogue.fixed()
        calls, handed, failed = self.compress
        lengths = self.stored_lengths
        store_calls = self.calls[_STORE]
        known = bool(self.bytes is not None and self.peak[1])
        one_pool = len(self.pools) <= 1
        # The total read is of one pool; with several, no event has their sum.
        peak = float(self.peak[0]) if one_pool and self.peak[0] else None
        values: dict[str, tuple[float | None, str]] = {
            "run.stores": (store_calls, ""), "run.pages": (self.asked_pages, ""), "run.loads": (self.calls[_LOAD], ""),
            "run.invalidates": (self.calls[_INVALIDATE], ""), "run.compactions": (self.compactions, ""),
            "store.rejected": (_share(self.rejected, store_calls), "there is no store"),
            "compress.pages_per_call": (_share(handed, calls), "there is no compress call"),
            "compress.calls_per_store": (_share(calls, store_calls), "there is no store"),
            "compress.errors": (_share(failed, calls), "there is no compress call"),
            "length.mean": (_share(sum(lengths), len(lengths)), "nothing was stored"),
            "length.median": (statistics.median(lengths) if lengths else None, "nothing was stored"),
            "length.raw": (_share(sum(length == _PAGE for length in lengths), len(lengths)), "nothing was stored"),
            "pool.pages.peak": (peak, "several pools were in use" if not one_pool else
                                "the pool's total was not recorded"),
            "pool.overhead.peak": (peak * _PAGE / self.peak[1] if peak and known else None,
                                   "it is not known how many bytes were stored"),
        }
        for name, (value, why) in values.items():
            self.run.put(measures[name], value, why)

    def _pool_at_snapshots(self) -> None:
        seen: dict[str, int] = {}
        for number, snapshot in enumerate(self.recording.snapshots):
            label = " ".join(snapshot["label"].split()) or "-"
            seen[label] = seen.get(label, 0) + 1
            label += f" #{seen[label]}" if seen[label] > 1 else ""
            total = _number(_table(self.recording.snapshot(number).get("zswap_debugfs")).get("pool_total_size"))
            if total is None or (self.until is not None and number not in self.at_snapshot):
                continue
            held = self.at_snapshot.get(number)
            self.run.put(catalogue.pool_at(label, False), total // _PAGE)
            if total:
                self.run.put(catalogue.pool_at(label, True), total / held if held else None,
                             "it is not known how many bytes were stored")

    def _counters(self) -> None:
        snapshots = self.recording.snapshots
        if not snapshots:
            return
        first, last = self.recording.snapshot(0), self.recording.snapshot(len(snapshots) - 1)
        for source, table, names in (("zswap", "zswap_debugfs", None), ("vmstat", "vmstat", VMSTAT_NAMES)):
            before, after = _table(first.get(table)), _table(last.get(table))
            for name in sorted(after) if names is None else names:
                end, begin = _number(after.get(name)), _number(before.get(name))
                made = catalogue.counter(source, name)
                if end is None or name == "pool_total_size":
                    continue
                self.run.ends[made.id] = end
                grown = end if name in LEVELS else end - begin if begin is not None and len(snapshots) > 1 else None
                self.run.put(made, grown, "there is only one snapshot")

    def _quantiles(self) -> None:
        stamps = self.recording.stamps
        for name, samples in sorted(self.times.items()):
            for quantile, percent, least in _QUANTILES:
                if stamps:
                    self.run.put(catalogue.time_of(name, quantile), None, no_seconds(stamps))
                    continue
                enough = len(samples) >= least
                self.run.put(catalogue.time_of(name, quantile),
                             float(np.percentile(np.frombuffer(samples, np.int64), percent)) if enough else None,
                             f"fewer than {least} calls")


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int | None:
    """Return a counter's value, None for what is none; files of counters hold text."""
    try:
        number = int(str(value).strip())
    except ValueError:
        return None
    return number if abs(number) < 1 << 64 else None
