# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording as a timeline: slices, instants and counters on tracks, one after the other, for any viewer's format.

A call whose entry and return were both probed is a slice on its task's track; calls of one task nest as they were
made.  Every other event is an instant: how long it took is not recorded.  Tracks are tasks, not CPUs: a task that was
preempted in the middle of a store leaves its CPU to another one, whose calls would lie across the open ones; the CPU is
in every event's arguments.  The idle task is one per CPU.

A call can lack its return (the recording ended, a probe missed a hit).  Its slice is closed where that shows: with the
return of a call around it, or at the end; its arguments say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from traces import schema
from traces.errors import BadInput
from traces.recording import Recording

__all__ = ["MARKERS", "MISSING", "OBJECTS", "TOTALS", "Item", "Timeline", "captured_columns"]

#: The track of markers, snapshots, parameter writes and lost events.
MARKERS: Final = "markers"
#: What the arguments of a slice's end hold when no return was recorded.
MISSING: Final = "no return was recorded"
#: Counter track: objects that zs_malloc() made and zs_free() has not freed.
OBJECTS: Final = "zsmalloc objects (zs_malloc - zs_free)"
#: Counter tracks of what the kernel itself read: event -> name, pages
TOTALS: Final = {"zswap_total_pages_ret": "zswap_total_pages", "zs_get_total_pages_ret": "zs_get_total_pages"}
_ON_MARKERS: Final = frozenset({"marker", "lost_events", "counters", "param"})
#: MAX_ERRNO (include/linux/err.h): handles from here on are error pointers.
_FIRST_ERROR: Final = (1 << 64) - 4095


class Item(NamedTuple):
    """One step of a timeline, in the order of the recording.

    ``kind``: ``track`` (before its first use), ``begin``, ``end``, ``instant`` or ``counter``; ``ts``: ns; ``args``:
    an event's ``event`` number, ``cpu`` and captured columns, of an ``end`` those of the return; of a track its
    ``task``, its ``cpu``, or its ``unit`` where it is a counter's; ``value``: a counter's.
    """

    kind: str
    ts: int
    track: int
    name: str
    args: dict[str, Any]
    value: int = 0


def captured_columns(recording: Recording) -> list[tuple[str, ...]]:
    """Return by event code the columns that were captured: others hold nothing."""
    known = {column.name for column in schema.COLUMNS[4:]}
    probes = recording.manifest["probes"]
    found: list[tuple[str, ...]] = [()] * 256
    for kind in schema.EVENTS:
        probe = probes.get(kind.name)
        columns = probe.get("columns") if isinstance(probe, dict) else None
        if not isinstance(columns, list):
            columns = list(kind.columns)
        named = [column for column in columns if isinstance(column, str) and column in known]
        found[kind.code] = tuple(dict.fromkeys(column for column in named if column not in schema.ABSENT))
    return found


class Timeline:
    """Iterate over a recording's items; afterwards the counts say what there was.

    Holds one batch of events, the open calls and a number per track: memory does not grow with the recording.

    :param data: with first bytes of objects written, which may be a page's own
    """

    def __init__(self, recording: Recording, data: bool = False) -> None:
        self.recording = recording
        #: events whose bytes of pages were left out
        self.hidden = 0
        self.slices = 0
        self.instants = 0
        self.values = 0
        #: slices without a recorded return
        self.missing = 0
        self.tracks = 0
        self._tracks: dict[Any, int] = {}
        #: per track: the names of its open calls, outermost first
        self._open: dict[int, list[str]] = {}
        self._columns = captured_columns(recording)
        self._hides = [False] * len(self._columns)
        for name, column in schema.PAGE_BYTES if not data else ():
            code = schema.CODE[name]
            self._hides[code] = self._hides[code] or column in self._columns[code]
            self._columns[code] = tuple(other for other in self._columns[code] if other != column)
        probes = recording.manifest["probes"]
        self._calls = frozenset(name for name in schema.CODE if f"{name}_ret" in probes)
        self._counts_objects = "zs_malloc_ret" in probes and "zs_free" in probes
        self._objects = self._at_start() if self._counts_objects else 0

    def _at_start(self) -> int:
        """Return how many objects there are at the first event: of a cut its state says it, else the first snapshot."""
        state = self.recording.document("state")
        if state is not None:
            entries = state.get("entries")
            return len(entries) if isinstance(entries, list | dict) else 0
        if self.recording.snapshots:
            held = self.recording.snapshot(0).get("zswap_debugfs")
            text = str(held.get("stored_pages", "")) if isinstance(held, dict) else ""
            return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
        return 0

    def __iter__(self) -> Iterator[Item]:
        last = 0
        for base, batch in self.recording.batches(schema.column_names()):
            columns = {name: array.tolist() for name, array in batch.items()}
            stamps, codes = columns["ts"], columns["event"]
            for i, code in enumerate(codes):
                last = stamps[i]
                if last < 0:
                    raise BadInput(self.recording.path, f"event {base + i}", "its time is negative",
                                   "no viewer can show it; import again")
                yield from self._event(schema.NAMES[code], base + i, i, columns)
        for track, stack in self._open.items():
            while stack:
                yield self._end(last, track, stack.pop(), {"missing": MISSING})

    def _event(self, name: str, number: int, i: int, columns: dict[str, list[Any]]) -> Iterator[Item]:
        ts, pid, cpu = columns["ts"][i], columns["pid"][i], columns["cpu"][i]
        args = {"event": number, "cpu": cpu}
        for column in self._columns[columns["event"][i]]:
            args[column] = columns[column][i]
        self.hidden += self._hides[columns["event"][i]]
        if columns["content"][i] >= 0:
            args["content"] = columns["content"][i]
        if columns["text"][i]:
            args["text"] = columns["text"][i]
        if name in _ON_MARKERS:
            args["task"] = pid
            yield from self._track(MARKERS, MARKERS, {})
            self.instants += 1
            yield Item("instant", ts, self._tracks[MARKERS], name, args)
        else:
            key = pid if pid else ("idle", cpu)
            yield from self._task(key, pid, cpu)
            yield from self._on_task(self._tracks[key], name, ts, args)
        yield from self._counters(name, ts, number, i, columns)

    def _on_task(self, track: int, name: str, ts: int, args: dict[str, Any]) -> Iterator[Item]:
        stack = self._open.setdefault(track, [])
        call = name.removesuffix("_ret")
        if name in self._calls:
            stack.append(name)
            self.slices += 1
            yield Item("begin", ts, track, name, args)
        elif call != name and call in stack:
            while stack[-1] != call:
                yield self._end(ts, track, stack.pop(), {"missing": MISSING})
            yield self._end(ts, track, stack.pop(), args)
        else:
            self.instants += 1
            yield Item("instant", ts, track, name, args)

    def _end(self, ts: int, track: int, name: str, args: dict[str, Any]) -> Item:
        self.missing += "missing" in args
        return Item("end", ts, track, name, args)

    def _task(self, key: Any, pid: int, cpu: int) -> Iterator[Item]:
        if key in self._tracks:
            return
        if not pid:
            yield from self._track(key, f"idle, CPU {cpu}", {"cpu": cpu})
            return
        tasks = self.recording.manifest.get("tasks")
        name = tasks.get(str(pid)) if isinstance(tasks, dict) else None
        called = f"{name}, " if isinstance(name, str) and name else ""
        yield from self._track(key, f"{called}task {pid}", {"task": pid})

    def _track(self, key: Any, name: str, args: dict[str, Any]) -> Iterator[Item]:
        if key not in self._tracks:
            self.tracks += 1
            self._tracks[key] = self.tracks
            yield Item("track", 0, self.tracks, name, args)

    def _counters(self, name: str, ts: int, number: int, i: int, columns: dict[str, list[Any]]) -> Iterator[Item]:
        if name in TOTALS:
            yield from self._value(TOTALS[name], ts, columns["ret"][i], "pages")
        elif name == "counters":
            which = columns["ret"][i]
            if not 0 <= which < len(self.recording.snapshots):
                raise BadInput(self.recording.path, f"event {number}", f"snapshot {which} is missing", "import again")
            held = self.recording.snapshot(which).get("zswap_debugfs")
            for counter, value in sorted(held.items()) if isinstance(held, dict) else ():
                text = str(value)
                if text.isascii() and text.isdecimal() and len(text) < 19:
                    yield from self._value(f"zswap/{counter}", ts, int(text), "")
        elif self._counts_objects and name in ("zs_malloc_ret", "zs_free") and 0 < columns["handle"][i] < _FIRST_ERROR:
            # An allocation that failed returns an error; freeing that, or nothing, does nothing.
            self._objects += 1 if name == "zs_malloc_ret" else -1
            yield from self._value(OBJECTS, ts, self._objects, "objects")

    def _value(self, name: str, ts: int, value: int, unit: str) -> Iterator[Item]:
        key = ("counter", name)
        yield from self._track(key, name, {"unit": unit})
        self.values += 1
        yield Item("counter", ts, self._tracks[key], name, {}, value)
