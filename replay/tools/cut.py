# SPDX-License-Identifier: GPL-2.0-or-later
"""Cut a stretch out of a recording, with the model state that it needs at its start."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.zswap import Zswap
from replay.iaa.jobs import LEFT_OUT, has_devices
from replay.reference.checks import CHECKS, Tally
from replay.reference.engine import Engine, LostEvents
from replay.reference.modelstate import dump_state
from replay.reference.state import CannotFollow
from replay.userrev.guard import guarded
from replay.verdict.setup import open_engine
from traces import schema
from traces.chained import chained_pages, write_chained
from traces.errors import BadInput
from traces.pages import PageStore
from traces.recording import Recording, RecordingWriter

__all__ = ["Cut", "cut"]

#: Of SHA-1 in hex, which has no key.
_PLAIN_DIGITS = 40
_NAMES = schema.column_names()
_COLUMN = {name: index for index, name in enumerate(_NAMES)}


@dataclass(frozen=True)
class Cut:
    """What was cut: the first event and the one after the last, after moving both to where no task was inside
    an operation, and the number of events."""

    start: int
    stop: int
    events: int


def cut(recording: Recording, out: str, start: int, stop: int, *, revision: str | type[Zswap] | None = None,
        objects: bool = True,
        progress: Callable[[str, int, int], None] | None = None) -> Cut:
    """Write events ``start`` to ``stop`` of a recording, and all they need, as a recording of its own.

    :param objects: keep compressed objects where the recording has them

    The recording is replayed up to the cut's end; both ends move on to the next moment at which no task is
    inside an operation, so that the cut begins and ends whole.

    :raises BadInput: when the range is empty, or the replay diverges before the cut's end (a state that the
        model and the kernel do not share cannot be handed on)
    """
    total = len(recording)
    if not 0 <= start < min(stop, total):
        raise BadInput(recording.path, f"events {start} to {stop}", f"is not a range of its {total:,} events",
                       "choose --from and --to within it")
    # A kernel that breaks an invariant as its revision says has the state that the revision has: it can be cut.
    tally = Tally({check for check in CHECKS if not check.startswith("invariant.")} | {"counter"})
    with guarded([revision], recording.path):
        engine, _, _ = open_engine(recording, revision, tally, pages=False)
        begin, state, end = _walk(engine, recording, start, min(stop, total), progress)
    if begin >= end:
        raise BadInput(recording.path, f"events {start} to {stop}", "no operation ends in this range",
                       "choose a longer one")
    writer = _Writer(recording, out, begin, end, state, objects)
    writer.write()
    return Cut(begin, end, end - begin)


def _walk(engine: Engine, recording: Recording, start: int, stop: int,
          progress: Callable[[str, int, int], None] | None) -> tuple[int, dict[str, Any], int]:
    """Replay to the cut's end; return where it begins, the state there, and where it ends."""
    begin = -1
    state: dict[str, Any] = {}
    try:
        for number in engine.each():
            if begin < 0 and number >= start and engine.quiescent():
                begin, state = number, dump_state(engine)
                if stop >= len(recording):
                    # The rest as it is: no state is handed on at its end, so it may diverge from the model.
                    return begin, state, len(recording)
            if number >= stop and begin >= 0 and engine.quiescent():
                return begin, state, number
            if engine.state.tally.divergences:
                event = engine.state.tally.divergences[0].event
                raise BadInput(recording.path, f"event {event}", "the replay diverges here, before the cut's end",
                               "see it with 'zreplay replay', or cut before it")
            if progress is not None and not number & 0xFFFF:
                progress("replaying", number, stop)
    except LostEvents as lost:
        raise BadInput(recording.path, f"event {lost.args[0]}", "events were lost here, before the cut's end",
                       "cut before it") from None
    except CannotFollow as stop_:
        raise BadInput(recording.path, f"event {engine.batch.now}",
                       f"the replay cannot continue to the cut's end: {stop_}", "cut before it") from None
    if begin < 0:
        raise BadInput(recording.path, f"event {start}", "no task-free moment follows it", "choose an earlier start")
    return begin, state, len(recording)


class _Writer:
    """Writes the cut: events, the pages they and the live entries refer to, snapshots, truth, objects."""

    def __init__(self, recording: Recording, out: str, begin: int, end: int, state: dict[str, Any],
                 objects: bool) -> None:
        self.recording, self.out, self.begin, self.end, self.state = recording, out, begin, end, state
        self.objects = objects
        self.key = os.urandom(32)
        #: pages that the cut's own events hand to the compressor: their bytes are needed, others' digests do
        self.handed: set[int] = set()
        self.refs: dict[int, int] = {}
        self.order: list[int] = []
        self.chained = chained_pages(recording)
        self.snapshots: dict[int, int] = {}
        self.writes_before = self.writes = 0

    def write(self) -> None:
        """Write everything and publish the recording."""
        manifest = self.recording.manifest
        for row in self.state["entries"]:
            row[6] = self._reference(row[6], 1)
        with RecordingWriter(self.out) as writer:
            self._events(writer)
            for old in self.snapshots:
                snapshot = self.recording.snapshots[old]
                writer.add_snapshot(snapshot["label"], snapshot["ts"], self.recording.snapshot(old))
            self._tables(writer)
            self._pages(writer, self.recording.pages)
            writer.add_json("state", self.state)
            config = dict(manifest["config"])
            config["compressor"] = self.state["pools"][0]["tfm_name"]
            source = {"cut_of": self.recording.path.name, "from": self.begin, "to": self.end,
                      "original": manifest["source"]}
            # What was missing, or damaged, is missing in a part of it too.
            same = ("kernel", "probes", "losses", "missing", "tasks", "ts_unit_ns", "stamps", "notes", "complete")
            kept = {key: manifest[key] for key in same if key in manifest}
            if "chained" in manifest and (own := self._chained()):
                kept["chained"] = len(own)
            if has_devices(self.recording):
                kept["notes"] = [*kept.get("notes", []), LEFT_OUT]
            writer.close({**kept, "config": config,
                          "source": source, "unpaired": [], "derived_params": []})

    def _reference(self, content: int | None, pages: int) -> int:
        """Map a row of the old ``refs`` (and those after it) to one of the new."""
        if content is None or content < 0 or self.recording.pages is None:
            return -1
        if content not in self.refs:
            self.refs[content] = len(self.order)
            self.order.extend(range(content, content + pages))
        return self.refs[content]

    def _events(self, writer: RecordingWriter) -> None:
        for first, columns in self.recording.batches(_NAMES, rows=1 << 18):
            rows = len(columns["ts"])
            write = columns["event"] == schema.CODE["zs_obj_write"]
            low, high = max(0, self.begin - first), min(rows, self.end - first)
            self.writes_before += int(np.count_nonzero(write[:min(max(0, self.begin - first), rows)]))
            if high <= low:
                continue
            self.writes += int(np.count_nonzero(write[low:high]))
            block = np.empty((len(_NAMES), high - low), np.int64)
            for index, name in enumerate(_NAMES):
                if name != "text":
                    values = columns[name][low:high]
                    block[index] = values.view(np.int64) if values.dtype == np.uint64 else values
            block[_COLUMN["text"]] = 0
            self._renumber(block)
            texts = [(row, text) for row, text in enumerate(columns["text"][low:high]) if text]
            writer.write_rows(block, texts)

    def _renumber(self, block: np.ndarray) -> None:
        content, event = block[_COLUMN["content"]], block[_COLUMN["event"]]
        for row in np.flatnonzero(content >= 0):
            pages = max(1, int(block[_COLUMN["size"], row]) // schema.PAGE_SIZE)
            self.handed.update(range(int(content[row]), int(content[row]) + pages))
            content[row] = self._reference(int(content[row]), pages)
        for row in np.flatnonzero(event == schema.CODE["counters"]):
            old = int(block[_COLUMN["ret"], row])
            block[_COLUMN["ret"], row] = self.snapshots.setdefault(old, len(self.snapshots))

    def _pages(self, writer: RecordingWriter, store: PageStore | None) -> None:
        if store is None:
            return
        wanted = {int(store.refs[old]) for old in self.handed}
        data: dict[int, bytes | None] = {}
        for first, block in store.blocks():
            data.update((number, page) for number, page in enumerate(block, first) if number in wanted)
        for old in self.order:
            row = int(store.refs[old])
            writer.pages.add(data.get(row), self._named(store.sha1[row]))

    @functools.cached_property
    def _here(self) -> set[str]:
        """Digests of the pages that the cut hands to the compressor."""
        store = self.recording.pages
        return {store.sha1[int(store.refs[old])] for old in self.handed} if store is not None else set()

    def _named(self, digest: Any) -> Any:
        """Return a page's digest; of one that is not in the cut a keyed one, whose key is thrown away."""
        if not isinstance(digest, str) or len(digest) != _PLAIN_DIGITS or digest in self._here:
            return digest
        return hashlib.blake2b(digest.encode(), digest_size=32, key=self.key).hexdigest()

    def _chained(self) -> dict[tuple[int, int], int]:
        """Return the cut's part of the pages of chained requests, in the numbers of the cut."""
        own = {(event - self.begin, number): content for (event, number), content in self.chained.items()
               if self.begin <= event < self.end}
        self.handed.update(content for content in own.values() if content >= 0)
        return {key: self._reference(content, 1) for key, content in own.items()}

    def _tables(self, writer: RecordingWriter) -> None:
        if chained := self._chained():
            write_chained(writer, chained)
        truth = self.recording.table("truth")
        if truth is not None:
            phases = {text.split()[1] for text in self._markers() if text.startswith("phase ")}
            if self.state["phase"] is not None:
                phases.add(self.state["phase"])
            truth = truth[truth["phase"].isin(phases)]
            writer.add_table("truth", truth.assign(sha1=[self._named(digest) for digest in truth["sha1"]]))
        objects = self.recording.table("objects") if self.objects else None
        if objects is not None:
            writer.add_table("objects", objects.iloc[self.writes_before:self.writes_before + self.writes])

    def _markers(self) -> list[str]:
        texts: list[str] = []
        for first, columns in self.recording.batches(["event", "text"], rows=1 << 18):
            low, high = max(0, self.begin - first), self.end - first
            if high > 0:
                texts += [text for text in columns["text"][low:high] if text]
        return [text for text in texts if len(text.split()) == 2]
