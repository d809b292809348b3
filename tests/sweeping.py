# SPDX-License-Identifier: GPL-2.0-or-later
"""Every value that the reference reads, changed one at a time: which there are, and what both engines make of it.

Nothing here is typed that the code knows: a replay by the reference is watched, and every read of a column of an event
is noted with the operations its task is in and the place in the code that reads it.  One changed recording for each of
these is an exhaustive sweep: whatever the reference compares, somewhere it reads it.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np

import replay
from model import errno
from model.crypto import compressor_for
from model.effects import Effect
from model.page import PAGE_SIZE
from model.revisions import MAINLINE, REVISIONS, revision_for_line
from replay.reference.batch import COLUMNS, Batch
from replay.reference.checks import Tally
from replay.reference.comparer import Comparer
from replay.reference.comparisons import COMPARISONS
from replay.tools.synthetic import ImaginaryKernel, config
from replay.verdict.engineagreement import difference
from replay.verdict.result import Result
from replay.verdict.setup import open_engine
from tests.tampering import COLUMN_TYPES, Tampered, name_of
from traces import schema
from traces.record.release import kernel_line
from traces.recording import Recording, RecordingWriter

__all__ = ["KINDS", "LINES", "NEVER_NOTICED", "NEVER_READ", "NOT_COMPARED", "NOT_REACHED", "NOT_SWEPT", "Change", "Pair",
           "Place", "Read", "changed", "changes", "compared", "few", "imaginary", "line_of", "outcome", "recorded_pairs",
           "watch"]

#: kinds of change: one more, none, another value that this column of such an event has, the other sign
KINDS: Final = ("+1", "0", "other", "sign")
#: What an event is, and when and where: not what it says.
NOT_SWEPT: Final = frozenset({"event", "pid", "cpu", "ts", "text"})
#: What a recorder writes of its own: it names a document of the recording, or has a text.
_RECORDER_S: Final = frozenset({"counters", "marker", "param", "lost_events"})

#: (event, column)
Pair = tuple[str, str]
#: the kernel lines that a revision mirrors
LINES: Final = tuple(sorted(MAINLINE))


@dataclass(frozen=True)
class Place:
    """One place of the reference that reads ``column`` of an ``event`` whose task is in ``operations``; ``again`` where the
    innermost of them has had such an event before: another page of a folio, another entry of a walk.
    """

    event: str
    column: str
    operations: tuple[str, ...]
    code: str
    again: bool = False

    @property
    def pair(self) -> Pair:
        """Event and column."""
        return self.event, self.column


@dataclass(frozen=True)
class Read:
    """What a watched replay read: the rows of each place in order, and each row's columns."""

    places: dict[Place, list[int]]
    rows: dict[int, frozenset[str]]

    def pairs(self) -> set[Pair]:
        """Every event and column that was read."""
        return {place.pair for place in self.places}

    def inside(self) -> dict[int, tuple[str, ...]]:
        """Event -> the operations that its task is in, of events of which anything was read."""
        return {row: place.operations for place, rows in self.places.items() for row in rows}


@dataclass(frozen=True)
class Change:
    """One value changed: of which ``event`` number and ``column``, to what, and of which of :data:`KINDS` that is."""

    event: int
    column: str
    value: int
    kind: str
    place: Place

    def __str__(self) -> str:
        where = " in ".join(self.place.operations[::-1])
        return f"event {self.event}: {self.place.event}{f' in {where}' if where else ''}, {self.column} {self.kind}: {self.value}"


def line_of(recording: Recording) -> str:
    """Return the mainline revision of a recording's kernel."""
    return revision_for_line(kernel_line(recording.manifest["kernel"])) or ""


def recorded_pairs(recording: Tampered) -> set[Pair]:
    """Return every event that is in a recording, with each column that its probe fetched."""
    probes = recording.manifest["probes"]
    return {(name, column) for code in np.unique(recording.columns["event"]).tolist()
            for name in (schema.NAMES[code],) if name not in _RECORDER_S
            for column in probes.get(name, {}).get("columns", ())
            if column not in NOT_SWEPT}


class _Watched(list):  # type: ignore[type-arg]
    """A column that reports every single value that is read of it."""

    def __init__(self, values: list[Any], column: str, note: Any) -> None:
        super().__init__(values)
        self._column, self._note = column, note

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int):
            frame = sys._getframe(1)
            self._note(index, self._column, f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        return super().__getitem__(index)


def watch(recording: Tampered, revision: str | None = None) -> Read:
    """Replay a recording by the reference and return all it reads."""
    engine, _, _ = open_engine(recording, revision, Tally())
    places: dict[Place, list[int]] = {}
    rows: dict[int, set[str]] = {}
    #: (first event of an operation, event) -> where it had that first
    first: dict[tuple[int, str], int] = {}

    def note(row: int, column: str, code: str) -> None:
        number = engine.batch.base + row
        if name_of(recording, number) in _RECORDER_S:
            return
        stack = engine.state.stacks.get(int(recording.columns["pid"][number]), ())
        name = name_of(recording, number)
        again = bool(stack) and first.setdefault((stack[-1].start, name), number) < number
        place = Place(name, column, tuple(frame.name for frame in stack), code, again)
        found = places.setdefault(place, [])
        if not found or found[-1] != number:
            found.append(number)
        rows.setdefault(number, set()).add(column)

    def load(self: Batch, columns: dict[str, Any]) -> None:
        for name in COLUMNS:
            values = columns[name].tolist()
            setattr(self, name, values if name in NOT_SWEPT else _Watched(values, name, note))

    engine.batch.load = load.__get__(engine.batch)  # type: ignore[method-assign]
    engine.run()
    engine.finish()
    assert not engine.state.tally.divergences
    return Read(places, {row: frozenset(columns) for row, columns in rows.items()})


class _Noted(dict):  # type: ignore[type-arg]
    """Comparisons that report which of them are asked for."""

    def __init__(self, held: dict[str, Any], note: Any) -> None:
        super().__init__(held)
        self._note = note

    def __getitem__(self, key: str) -> Any:
        if sys._getframe(1).f_code.co_name != "hold":
            for column, _ in COMPARISONS[key].columns:
                self._note((key, column))
        return super().__getitem__(key)


def compared(recording: Tampered) -> set[tuple[str, str]]:
    """Replay a recording by the reference and return every comparison that it makes: (its key, column), of columns for
    which something is predicted.
    """
    found: set[tuple[str, str]] = set()
    hold = Comparer.hold

    def noted(self: Comparer, key: str, i: int, frame: Any, values: tuple[Any, ...], predicted: tuple[Any, ...],
              **words: str) -> None:
        found.update((key, column) for (column, _), value in zip(COMPARISONS[key].columns, predicted, strict=True)
                     if value is not None)
        hold(self, key, i, frame, values, predicted, **words)

    # The parts take the method, and the comparisons, when they are made.
    with mock.patch.object(Comparer, "hold", noted):
        engine, _, _ = open_engine(recording, None, Tally())
        for part in vars(engine).values():
            if isinstance(getattr(part, "held", None), dict):
                part.held = _Noted(part.held, found.add)
        engine.run()
        engine.finish()
    assert not engine.state.tally.divergences
    return found


def changes(recording: Tampered, read: Read, kinds: tuple[str, ...] = KINDS, each: int = 1) -> Iterator[Change]:
    """Yield changes for every place: of each kind, to that many of its events, the first and others spread behind it."""
    for place, rows in read.places.items():
        for event in dict.fromkeys(rows[number * (len(rows) - 1) // max(1, each - 1)] for number in range(each)):
            old = int(recording.columns[place.column][event])
            values: dict[int, str] = {}
            for kind in kinds:
                new = _value(recording, place, event, kind)
                if new is not None and new != old:
                    values.setdefault(new, kind)
            for new, kind in values.items():
                yield Change(event, place.column, new, kind, place)


def few(recording: Tampered, read: Read) -> Iterator[Change]:
    """Yield one change for every place, the kinds in turn; and all kinds where a pair has no more than three places."""
    places = Counter(place.pair for place in read.places)
    by_place: dict[Place, list[Change]] = {}
    for change in changes(recording, read):
        by_place.setdefault(change.place, []).append(change)
    for number, (place, found) in enumerate(by_place.items()):
        yield from found if places[place.pair] <= 3 else [found[number % len(found)]]


def _value(recording: Tampered, place: Place, event: int, kind: str) -> int | None:
    column = recording.columns[place.column]
    dtype = np.dtype(COLUMN_TYPES[place.column])
    old, limits = int(column[event]), np.iinfo(dtype)
    if kind == "0":
        return 0
    if kind == "+1":
        return old + 1 if old < limits.max else old - 1
    if kind == "sign":
        return (-old or -1) if limits.min else old ^ 1 << 8 * dtype.itemsize - 1
    same = np.flatnonzero((recording.columns["event"] == schema.CODE[place.event]) & (column != column[event]))
    if not same.size:
        return None
    # The nearest before it, or else behind it.
    return int(column[same[max(0, int(np.searchsorted(same, event)) - 1)]])


def outcome(recording: Tampered, revision: str | None = None, **options: Any) -> tuple[Result, str]:
    """Replay with both engines; returns the reference's result and what the compiled engine says differently."""
    results = [replay.replay(recording, revision, engine=engine, **options) for engine in ("reference", "fast")]
    assert results[1].engine == "fast", results[1].notes
    return results[0], difference(*results)


class changed:
    """A recording with one value changed, for as long as it is entered."""

    def __init__(self, recording: Tampered, change: Change) -> None:
        self.column, self.change = recording.columns[change.column], change
        self.old = self.column[change.event].copy()

    def __enter__(self) -> None:
        self.column[self.change.event] = self.change.value

    def __exit__(self, *_: object) -> None:
        self.column[self.change.event] = self.old


class _Kernel(ImaginaryKernel):
    """One that shows zs_compact() and zswap_total_pages() too, whose writeback fails at times, that runs out of memory when
    a test asks for it, and whose shrink_worker() finds a cgroup.
    """

    asked = 0
    #: the next folio's slots are found free, and are given back inside swap_writeout()
    frees = False
    #: how many more objects there is memory for before one is refused; below 0 there is enough
    room = -1
    #: what a cgroup that went away had for a parent
    parent = 0

    def _answer(self, effect: Effect) -> Any:
        if effect[0] == "?shrink_next":
            self.asked += 1
            return 1 if self.asked % 2 else None
        if effect[0] == "?swap_cache_alloc" and effect[1].swpent % 5 == 3:
            # The folio is in the swap cache again.
            return errno.EEXIST
        if effect[0] == "?swap_writeout" and self.frees:
            self.frees = False
            self.invalidate(effect[1].swpent)
            return "free"
        if effect[0] == "?zs_malloc":
            self.room -= 1
            return errno.ENOMEM if self.room == -1 else 0
        return super()._answer(effect)

    def _write(self, effect: Effect) -> None:
        if effect[0] == "zs_get_total_pages_ret":
            # One pool: zswap_total_pages() is what it read.
            super()._write(effect)
            self._row("zswap_total_pages_ret", ret=effect[1])
        elif effect[0] == "mem_cgroup_zswap_writeback_enabled_ret" and effect[1] is None:
            # Once it was off for a cgroup, a walk does not know which one this is.
            self._row(effect[0], ret=int(bool(self.model.writeback_enabled)))
        elif effect[0] == "zs_compact":
            self._row("zs_compact", pool=self._pool(effect[1]))
        elif effect[0] == "zs_compact_ret":
            self._row("zs_compact_ret", ret=effect[1])
        else:
            super()._write(effect)

    def _row(self, name: str, **values: int) -> None:
        if name == "list_lru_del" and self.parent:
            values["memcg"] = self.parent
        super()._row(name, **values)

    def outside(self) -> None:
        """What is nobody's operation: readings of totals, entries of another LRU, the shrinker's count, a migration."""
        total = self.model.total_pages()
        for name, columns in (("zswap_total_pages_ret", {"ret": total}), ("zs_get_total_pages_ret", {"ret": total}),
                              ("list_lru_add", {"pool": 4096, "entry": 77, "memcg": 88}), ("list_lru_add_ret", {"ret": 1}),
                              ("list_lru_del", {"pool": 4096, "entry": 77, "memcg": 88}),
                              ("zswap_folio_swapin", {}), ("zswap_shrinker_count", {}),
                              ("mem_cgroup_zswap_writeback_enabled_ret", {"ret": 1}),
                              ("zswap_shrinker_count_ret", {"ret": 3}), ("zs_page_migrate", {}),
                              ("marker", {})):
            self._row(name, **columns)

    def reparent(self) -> None:
        """The cgroup goes away."""
        lists = [key for key in self.model.lru.lists if key[1]]
        self.parent = lists[0][1] + 4096
        self.model.memcg_reparent_list_lrus(lists[0][1], self.parent)
        self._row("memcg_reparent_list_lrus", memcg=lists[0][1], pool=self.parent)


def imaginary(path: Path, revision: str) -> Tampered:
    """A small recording of what a revision does, also what no sample shows: made by the model itself."""
    chance = random.Random(revision)
    pages = [chance.randbytes(40 + 97 * number) + bytes(4056 - 97 * number) for number in range(38)]
    pages += [chance.randbytes(4096) for _ in range(3)]
    compressor = compressor_for("lz4", REVISIONS[revision].kernel_line)
    kernel = _Kernel(revision, pages=pages, compressor=compressor)
    model = kernel.model
    model.shrinker_enabled = True
    marks = []

    def write(kind: str, setting: str) -> None:
        marks.append(kernel.mark(f"{kind} {setting}"))
        model.set_param(*setting.split("="))

    # What nothing says is not compared.
    write("cgroup", "memory.zswap.writeback=1")
    for slot in range(60):
        kernel.pid = 100 + slot % 3
        kernel.store(slot)
    for slot in (64, 80):
        kernel.store(slot, 4)
    for slot in (3, 70, 5, 400):
        kernel.load(slot)
    # A slot that zswap still holds a page for.
    kernel.store(7)
    kernel.outside()
    # Nothing is taken any more, by the cgroup's limit and by the pool's.
    write("cgroup", "memory.zswap.max=0")
    kernel.store(600)
    write("cgroup", "memory.zswap.max=max")
    write("param", "max_pool_percent=0")
    kernel.store(610)
    kernel.store(11)
    write("param", "max_pool_percent=20")
    kernel.store(620)
    # No memory for an object, and for the second of a folio.
    kernel.room = 0
    kernel.store(630)
    kernel.room = 1
    kernel.store(640, 2)
    # Many of one size, of which every other goes: compaction has something to move.
    alike = range(len(pages) * 20 + 20, len(pages) * 60, len(pages))
    for slot in alike:
        kernel.store(slot)
    for slot in (*range(0, 60, 2), *alike[::2], 500):
        kernel.invalidate(slot)
    kernel.compact()
    kernel.do(model.pools[0].zs_pool.zs_compact())
    kernel.pid = 200
    # All get their second chance; then they are written back.
    kernel.do(model.zswap_shrinker_scan(80))
    for _ in range(4):
        kernel.do(model.shrink_memcg(None))
    for _ in range(4):
        kernel.do(model.zswap_shrinker_scan(8))
    for _ in range(3):
        kernel.do(model.shrink_worker())
    # A cgroup that may have one page more, and one that has all it may have.
    for more in (1, 0):
        held = next(iter(model.memcgs.values())).zswap // PAGE_SIZE
        write("cgroup", f"memory.zswap.max={(held + more) * PAGE_SIZE}")
        kernel.store(700 + more)
    write("cgroup", "memory.zswap.max=max")
    # swap_writeout() finds slots that nobody uses any more: zswap holds a page for one of them.
    for slot in (sorted(model.tree)[0], 720):
        kernel.frees = True
        kernel.store(slot)
    # Switched off: nothing is stored, what is there is loaded, replaced and freed.
    write("param", "enabled=N")
    kernel.store(730)
    kernel.store(sorted(model.tree)[0])
    kernel.load(sorted(model.tree)[0])
    write("param", "enabled=Y")
    # Nothing is written back: what does not compress is not kept, and what zswap does not take stays where it is.
    write("cgroup", "memory.zswap.writeback=0")
    for slot in range(len(pages) * 20 - 3, len(pages) * 20 + 1):
        kernel.store(slot)
    kernel.do(model.shrink_memcg(None))
    write("cgroup", "memory.zswap.writeback=1")
    kernel.do(model.shrink_memcg(None))
    kernel.reparent()
    for slot in sorted(model.tree)[-2:]:
        kernel.invalidate(slot)
    kernel.do(model.pools[0].zs_pool.async_free_zspage())
    with RecordingWriter(str(path)) as writer:
        writer.write_rows(kernel.block(), marks)
        for page in kernel.handed:
            writer.pages.add(pages[page])
        manifest = config(revision)
        manifest["probes"] |= {name: {"columns": list(kind.columns), "function": name} for kind in schema.EVENTS
                               if (name := kind.name).startswith("zs_compact")}
        writer.close(manifest)
    recording = Tampered(path)
    recording.manifest["config"]["params"]["shrinker_enabled"] = "Y"
    return recording


#: writeback shows itself by a probe of its own up to 6.12
_WRITEBACK: Final = {("zswap_writeback_entry", "swpent"), ("zswap_writeback_entry_ret", "ret")}
#: line -> (event, column) that the reference reads on another line, and that no recording of this one shows
NOT_REACHED: Final[dict[str, set[Pair]]] = {
    # 6.12 writes an object through the pointer that it has mapped: no event shows that.
    "mainline-6.12": {("zs_obj_write", "data"), ("zs_obj_write", "handle"), ("zs_obj_write", "size")},
    **{line: _WRITEBACK for line in LINES if line != "mainline-6.12"},
}
#: comparisons, by the end of their keys, that no line makes -> why
NOT_COMPARED: Final[dict[str, str]] = {
    ":batch": "a compress call of mainline is of one page", ":batch_dlen": "the same", ":length": "the same",
}
#: (event, column) that is read and never the only thing that is wrong -> on which lines, and why
NEVER_NOTICED: Final[dict[Pair, tuple[tuple[str, ...], str]]] = {}
#: event -> columns that are recorded, and that the reference reads nowhere: nothing that it predicts depends on them
NEVER_READ: Final[dict[str, set[str]]] = {
    # An entry's address, which its slot names as well.
    "zswap_writeback_entry": {"entry"},
    # Which folio it is decides nothing: frames of every zspage are learnt anew, an early read counts for nobody.
    "zs_page_migrate": {"folio"}, "zswap_folio_swapin": {"folio"},
    # The dynamic shrinker's count: what it returns is not predicted.
    "zswap_shrinker_count": {"nid", "memcg"}, "zswap_shrinker_count_ret": {"ret"},
    # Allocation flags: not predicted.
    "zs_malloc": {"gfp"},
}
