# SPDX-License-Identifier: GPL-2.0-or-later
"""From an importer's blocks to a recording: puts snapshots and parameter writes in place, ties pages to
compress calls, counts entries and returns, writes the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import pandas as pd

from traces import schema
from traces.chained import write_chained
from traces.compiled import at as _at
from traces.compiled import compiled
from traces.errors import BadInput
from traces.importers.merge import join
from traces.importers.pageindex import PageIndex
from traces.importers.pageshare import page_share
from traces.importers.source import BLOCK_ROWS, Block, RunFacts
from traces.importers.tasks import TaskNumbers
from traces.importers.wrongoffsets import MisreadColumns
from traces.machine import PageSizes, check_kernel
from traces.pages import PageStoreWriter, PageWatcher
from traces.recording import RecordingWriter

__all__ = ["assemble"]

_PARAMS: Final = ("enabled", "max_pool_percent", "accept_threshold_percent", "compressor")
_PAIRS: Final = [(kind.code, schema.CODE[kind.name + "_ret"]) for kind in schema.EVENTS
                 if kind.name + "_ret" in schema.CODE]


def _of_writes(facts: RunFacts) -> list[str]:
    """Return the columns that were captured of writes to module parameters."""
    return facts.captured.get("param_attr_store", [])


class _Timeline:
    """Rows that the ring does not hold: counter snapshots and the parameter writes seen between them."""

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts
        #: (stamp, order among equal stamps, values, text): snapshot n has the order 2 n.
        self.pending: list[tuple[int, int, dict[str, int], str]] = []
        self._waiting: list[tuple[int, int, str, int]] = []
        self._done: int | None = None
        before: tuple[dict[str, Any], int] | None = None
        for number, (label, ts, values) in enumerate(facts.snapshots):
            params = values.get("params", {})
            if before is not None:
                for name in _PARAMS:
                    if name in params and params[name] != before[0].get(name):
                        # Written somewhere between the two snapshots.  A workload sets a marker when it does something
                        # new: take the first marker between them, or else the time right after the first snapshot.
                        self._waiting.append((before[1], ts, f"{name}={params[name]}", 2 * number - 1))
            before = (params, ts)
            self.pending.append((ts, 2 * number, {"event": schema.CODE["counters"], "ret": number, "ts": ts}, label))
        self.derived: list[str] = []

    def place(self, block: Block, last: bool) -> Block:
        """Insert the rows that fall into a block's time; ``last`` also inserts those after all events."""
        stamps = block.ts
        texts = [(row, text) for row, text in block.texts if block.event[row] == schema.CODE["marker"]]
        end = int(stamps[-1]) if stamps.size else 0
        rows: list[tuple[int, dict[str, int], str]] = []
        if "text" in _of_writes(self._facts):
            # The probe on the writes says when.
            self._waiting = []
        # A workload that announces its writes (marker "param NAME=VALUE") needs nothing derived.
        said = {(int(stamps[row]), text.removeprefix("param ")) for row, text in texts if text.startswith("param ")}
        self._waiting = [w for w in self._waiting if not any(w[0] <= at <= w[1] and text == w[2] for at, text in said)]
        markers = [(int(stamps[row]), row) for row, _ in texts]
        for start, stop, text, order in list(self._waiting):
            marker = next((at for at, _ in markers if start < at <= stop), None)
            if marker is not None or start <= end or last:
                if marker is None and stop > end and not last:
                    continue
                # Never after the snapshot that saw it, even when the events around have been handed out.
                at = start if self._done is None else max(start, self._done)
                at = at if marker is None else marker
                self._waiting.remove((start, stop, text, order))
                self.derived.append(text)
                self.pending.append((at, order, {"event": schema.CODE["param"], "ts": at}, text))
        self._done = end
        self.pending.sort(key=lambda item: item[:2])
        while self.pending and (last or self.pending[0][0] <= end):
            at, _, values, text = self.pending.pop(0)
            rows.append((int(np.searchsorted(stamps, at, "right")), values, text))
        return block.insert(rows) if rows else block


@compiled
def _count(tasks, event, counts):  # type: ignore[no-untyped-def]
    for row in range(event.shape[0]):
        counts[_at(tasks[_at(row)]), event[_at(row)]] += 1


class _Pairing:
    """Entries and returns per task, so that missing ones are counted and kept."""

    def __init__(self) -> None:
        self._counts = np.zeros((64, 256), np.int64)

    def add(self, block: Block, tasks: np.ndarray) -> None:
        """Count a block's events by task and code; ``tasks`` numbers the tasks of its rows."""
        most = int(tasks.max(initial=0)) + 1
        if most > len(self._counts):
            self._counts = np.concatenate((self._counts, np.zeros((max(most, len(self._counts)), 256), np.int64)))
        _count(tasks, block.event, self._counts)

    def of(self, name: str) -> int:
        """Return how many events of a name there were."""
        return int(self._counts[:, schema.CODE[name]].sum())

    def unpaired(self, captured: set[str], pids: np.ndarray) -> list[dict[str, Any]]:
        """Return the functions whose entries and returns differ in number, per task; ``pids`` are the tasks' ids."""
        out = []
        known = self._counts[:pids.size]
        for entry, ret in _PAIRS:
            if not {schema.NAMES[entry], schema.NAMES[ret]} <= captured:
                continue
            for task in sorted(np.flatnonzero(known[:, entry] != known[:, ret]), key=lambda task: pids[task]):
                out.append({"pid": int(pids[task]), "function": schema.NAMES[entry],
                            "entries": int(known[task, entry]), "returns": int(known[task, ret])})
        return out


def assemble(out: str, blocks: Iterable[Block], facts: RunFacts, source: dict[str, Any], *,
             pages: PageIndex | None = None, truth: pd.DataFrame | None = None,
             objects: pd.DataFrame | None = None, watcher: PageWatcher | None = None,
             progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Write a recording from a time-ordered stream of blocks and return its manifest's summary.

    :param out: the directory to make
    :param source: what was imported, for the manifest
    :param pages: the pages handed to the compressor, in order
    :param truth: what the workload says of its pages: phase, page, kind, sha1, swap_type, swap_offset
    :param objects: compressed objects as written, where recorded
    :param watcher: gets the bytes of distinct pages when they are stored
    :param progress: called with the number of events written so far
    :raises BadInput: when the pages do not line up with the compress calls, or ``out`` exists
    """
    watchers = _Watchers(source.get("path", out))
    if watcher is not None:
        watcher.begin(facts.kernel, facts.config)
    with RecordingWriter(out) as writer, _Storing(pages, writer.pages, watcher) as storing:
        held: Block | None = None
        timeline: _Timeline | None = None
        for block in _whole(blocks):
            timeline = timeline or _timeline(facts)
            if held is not None:
                _write(writer, timeline.place(held, False), watchers, pages, progress, facts)
            held = block
        # A recorder that was killed while it armed its probes recorded nothing, and says so.
        if held is None and not facts.snapshots and (facts.complete or not facts.capture):
            some = _others(facts)
            raise BadInput(source.get("path", out), "",
                           "holds no event that zreplay knows" + (f" (its events are {some})" if some else ""),
                           "check that the probes of traces/FORMAT.md were recorded")
        check_kernel(source.get("path", out), facts.kernel, facts.capture)
        if held is None:
            held = Block.empty()
        timeline = timeline or _timeline(facts)
        _write(writer, timeline.place(held, True), watchers, pages, progress, facts)
        for label, ts, values in facts.snapshots:
            writer.add_snapshot(label, ts, values)
        if truth is not None:
            writer.add_table("truth", truth)
        if objects is not None:
            writer.add_table("objects", objects)
        if facts.command is not None:
            writer.add_json("command", facts.command)
        if facts.iaa is not None:
            about, jobs = facts.iaa
            writer.add_json("iaa", about)
            writer.add_table("iaa_jobs", jobs)
        unnamed = 0
        if pages is not None:
            unnamed = pages.left
            if chained := pages.chained():
                write_chained(writer, chained)
            unnamed -= pages.left
            storing.wait()
            source = {**source, "pages_unmatched": pages.unmatched}
            if pages.damaged:
                facts.notes.append(f"the bytes of {pages.damaged} pages were not on disk when the box died; they "
                                   "count as not kept")
            if pages.left:
                left = f"{pages.left} recorded pages belong to no compress call: calls are missing, or pages and " \
                       "events are not of one run"
                # When a recorder is stopped, pages and events may end at different times.
                if facts.complete:
                    facts.losses.append({"cpu": None, "lost": None, "why": left})
                else:
                    facts.missing.append(left)
        share = _share(watchers.pairing.of("crypto_acomp_compress"), pages, facts)
        if pages is not None and pages.unmatched:
            facts.notes.append(f"{pages.unmatched} of {share['calls']} compress calls have no page: "
                               f"{'; '.join(share['why'])}; their lengths are taken from the recording")
        captured = {*schema.NO_PROBE, *facts.captured}
        unpaired = watchers.pairing.unpaired(captured, watchers.tasks.pids)
        if some := _others(facts):
            facts.notes.append(f"events that zreplay does not know were left out: {some}")
        facts.notes += watchers.misread.withdraw(facts.captured)
        manifest = {
            "complete": facts.complete,
            "kernel": facts.kernel,
            "config": facts.config,
            "probes": {name: {"columns": sorted(columns), "function": facts.functions.get(name, "")}
                       for name, columns in sorted(facts.captured.items())},
            "losses": facts.losses,
            "unpaired": unpaired,
            "tasks": {str(pid): comm for pid, comm in sorted(facts.comms.items())},
            "ts_unit_ns": facts.ts_unit_ns,
            **({"stamps": facts.stamps} if facts.stamps else {}),
            "derived_params": timeline.derived,
            "page_calls": share,
            "notes": facts.notes,
            **({"missing": facts.missing} if facts.missing else {}),
            **({"chained": unnamed} if unnamed else {}),
            "source": source,
            **({"capture": facts.capture} if facts.capture else {}),
        }
        writer.close(manifest)
        return {"rows": writer.rows, "losses": facts.losses, "missing": facts.missing, "unpaired": unpaired,
                "notes": facts.notes, "pages": len(writer.pages),
                "references": writer.pages.references}


def _share(calls: int, pages: PageIndex | None, facts: RunFacts) -> dict[str, Any]:
    used = {str(params["compressor"]) for _, _, values in facts.snapshots
            if isinstance(params := values.get("params"), dict) and "compressor" in params}
    waits = [_count_of(values, "pgscan_direct_throttle") for _, _, values in facts.snapshots]
    share = page_share(calls, calls - pages.unmatched if pages is not None else 0, facts.capture, used,
                       waits[-1] - waits[0] if waits else 0)
    if share["why"] and pages is not None and pages.why:
        share["why"] = [pages.why]
    return share


def _count_of(snapshot: dict[str, Any], name: str) -> int:
    counts = snapshot.get("vmstat")
    text = str(counts.get(name, "0")) if isinstance(counts, dict) else "0"
    return int(text) if text.isdecimal() else 0


def _others(facts: RunFacts) -> str:
    """Return the names of events outside the vocabulary, the most frequent first."""
    counts: dict[str, int] = {}
    for loss in facts.losses:
        for name, count in loss.get("ignored_events", {}).items():
            counts[name] = max(count, counts.get(name, 0))
    return ", ".join(sorted(counts, key=lambda name: (-counts[name], name))[:8])


def _timeline(facts: RunFacts) -> _Timeline:
    """Begin with the rows between events, once the first events have shown which clock they use."""
    if facts.clock and facts.snapshots:
        facts.missing.append(f"{len(facts.snapshots)} counter snapshots cannot be put in place: the events' stamps are "
                             f"of another clock ({facts.clock})")
        facts.snapshots.clear()
    return _Timeline(facts)


class _Storing:
    """Hashes, compresses and writes the pages in a thread while events are imported; it holds the interpreter lock only
    briefly.

    Used as a context manager: leaving it early stops it.
    """

    def __init__(self, pages: PageIndex | None, writer: PageStoreWriter, watcher: PageWatcher | None) -> None:
        self._writer = writer
        if watcher is not None:
            writer.watch = watcher.add
        self._pages = pages
        self._pool = ThreadPoolExecutor(1)
        self._work = self._pool.submit(pages.store, writer) if pages is not None else None

    def wait(self) -> None:
        """Wait until all pages are stored.

        :raises BadInput: when one does not match its digest
        """
        if self._work is not None and self._pages is not None:
            self._pages.finish()
            self._work.result()

    def __enter__(self) -> _Storing:
        return self

    def __exit__(self, *_: object) -> None:
        if self._work is not None and not self._work.done():
            self._writer.stop()
        if self._pages is not None:
            self._pages.finish()
        self._pool.shutdown()


class _Watchers:
    """The statistics that are taken of every event as it passes."""

    def __init__(self, path: str) -> None:
        self._page_sizes = PageSizes(path)
        self.tasks = TaskNumbers()
        self.pairing = _Pairing()
        self.misread = MisreadColumns()

    def add(self, block: Block, captured: dict[str, list[str]]) -> None:
        """Look at a block of events of which ``captured`` columns were recorded."""
        self._page_sizes.add(block, captured)
        tasks = self.tasks.of(block.pid)
        self.pairing.add(block, tasks)
        self.misread.add(block, tasks)


def _whole(blocks: Iterable[Block]) -> Iterator[Block]:
    """Join blocks that are much smaller than a segment of a recording; empty ones are left out."""
    small: list[Block] = []
    rows = 0
    for block in blocks:
        if not len(block):
            continue
        if not small and len(block) > BLOCK_ROWS // 2:
            yield block
            continue
        # Its memory may be used again before enough have come.
        small.append(block.copy())
        rows += len(block)
        if rows > BLOCK_ROWS // 2:
            yield join(small)
            small, rows = [], 0
    if small:
        yield join(small)


def _write(writer: RecordingWriter, block: Block, watchers: _Watchers, pages: PageIndex | None,
           progress: Callable[[int], None] | None, facts: RunFacts) -> None:
    if not len(block):
        return
    watchers.add(block, facts.captured)
    if pages is not None:
        pages.attach(block, facts.ts_unit_ns)
    writer.write_block(block)
    if progress is not None:
        progress(writer.rows)
