# SPDX-License-Identifier: GPL-2.0-or-later
"""Two recordings of one run compared with each other: does every task have the same events with the same values?

Both recorders saw the same hits of the same functions, each through a probe of its own.  So of the time that both
recorded, each task's events must be the same, in the same order, with equal values in every field that both fetch.
Times and CPUs are not compared: two probes of one hit run one after the other, and a task may move in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from replay.recdiff.alignment import align, overlap
from replay.recdiff.sides import FIELDS, Side
from replay.verdict.losses import Loss, losses_of
from traces import schema
from traces.errors import BadInput
from traces.eventlines import apart, event_line
from traces.recording import Recording
from traces.times import UNNAMED, no_seconds

__all__ = ["LAG", "READINGS", "RecordingComparison", "FirstDifference", "SideCounts", "TaskResult", "compare"]

#: How far apart two probes may stamp one hit, or a recorder's switch and its effect, ns: a task that is preempted
#: between them waits a few turns of the scheduler.
LAG: Final = 20_000_000
#: Behind this distance from a recorder's own beginning and end it was on for certain, ns.
_CERTAIN: Final = 5 * LAG
#: Where the two probes of one hit fetch a value from memory that no lock of the caller protects, so that another CPU
#: may change it in between: the place behind a handle (compaction moves the object: zs_malloc() has let go of its
#: locks when it returns, zs_free() has not taken them when it begins), and the entry's referenced bit before
#: zswap_entry_free() takes it off the LRU (shrink_memcg_cb() clears it).  Arguments and return values cannot differ.
READINGS: Final = frozenset({("zs_malloc_ret", "obj"), ("zs_free", "obj"), ("zswap_entry_free", "ref")})
#: Events shown before and after a difference, and tasks whose first difference is shown.
_AROUND, _SHOWN = 4, 10

_Known = dict[str, set[str]]
_Progress = Callable[[str, int, int], None]


class FirstDifference(NamedTuple):
    """Where a task's events differ first.

    ``place``: among the task's compared events, from 0; ``events``: their numbers in A and B, -1 where one has no
    such event; ``ts``: ns; ``name``: the event's; ``fields``: (column, value in A, value in B) where both have it, in
    words where the values are bytes of pages;
    ``context``: the task's events around it in A and in B, as lines.
    """

    place: int
    events: tuple[int, int]
    ts: int
    name: str
    fields: tuple[tuple[str, int | str, int | str], ...]
    context: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass
class TaskResult:
    """What came out for one task; idle tasks (0) are one per CPU.

    ``events``: that have a partner; ``different``: of these, with differences in fields; ``only``: events without a
    partner in A and in B; ``excused``: of these, those that the other may have lost; ``readings``: see
    :data:`READINGS`; ``first``: None where nothing differs, or the task is beyond those shown.
    """

    pid: int
    cpu: int | None
    name: str
    events: int = 0
    different: int = 0
    only: tuple[int, int] = (0, 0)
    excused: tuple[int, int] = (0, 0)
    readings: int = 0
    first: FirstDifference | None = None
    first_ts: int = 0

    @property
    def verdict(self) -> str:
        """AGREE, DIFFER, or UNDECIDED where all that differs is what a recording with losses does not have."""
        if not self.different and not any(self.only):
            return "AGREE"
        return "DIFFER" if self.different or self.only != self.excused else "UNDECIDED"


@dataclass
class SideCounts:
    """One recording's events: all, and what became of them.

    ``edges``: compared kinds, outside or straddling the common interval; ``certain``: of these, when the other said
    that it was recording; ``kinds``: of kinds that the other did not probe, by name; ``columns``: fields that the other
    did not fetch, ``event.column`` -> events; ``losses``: in words.
    """

    recording: str
    backend: str
    rows: int = 0
    own: int = 0
    edges: int = 0
    certain: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)


@dataclass
class RecordingComparison:
    """The verdict and everything it rests on.

    ``span``: ns, what both recorded; ``cpus``: that events were recorded on; ``fields``: ``event.column`` -> events
    in which it differs; ``readings``: the same of :data:`READINGS` on more than one CPU; ``pages``: compress calls
    whose page contents were compared.
    """

    sides: tuple[SideCounts, SideCounts]
    span: tuple[int, int]
    cpus: int
    tasks: list[TaskResult]
    fields: dict[str, int] = field(default_factory=dict)
    readings: dict[str, int] = field(default_factory=dict)
    pages: int = 0
    #: the recordings' clock where it counts no seconds
    stamps: str = ""

    @property
    def events(self) -> int:
        """Events that have a partner."""
        return sum(task.events for task in self.tasks)

    @property
    def verdict(self) -> str:
        """AGREE, DIFFER or UNDECIDED: of all tasks the worst; nothing compared decides nothing."""
        verdicts = {task.verdict for task in self.tasks}
        if self.stamps and any(side.edges for side in self.sides):
            # How far from the edge of the common time an event may be left out is a time, too.
            verdicts.add("UNDECIDED")
        for verdict in ("DIFFER", "UNDECIDED"):
            if verdict in verdicts:
                return verdict
        return "AGREE" if self.events else "UNDECIDED"

    @property
    def exit_status(self) -> int:
        """0, 1 or 3: see :attr:`verdict`."""
        return {"AGREE": 0, "DIFFER": 1, "UNDECIDED": 3}[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        tasks = [{**vars(task), "verdict": task.verdict,
                  "first": task.first._asdict() if task.first is not None else None} for task in self.tasks]
        return {"verdict": self.verdict, "events": self.events, "span": self.span, "cpus": self.cpus,
                "sides": [vars(side) for side in self.sides], "fields": self.fields, "readings": self.readings,
                "pages": self.pages, **({"stamps": self.stamps} if self.stamps else {}), "tasks": tasks}


def compare(a: Recording, b: Recording, progress: _Progress | None = None, *,
            data: bool = False) -> RecordingComparison:
    """Compare two recordings of one run.

    Events are held as a digest of what is compared of them; fields are read again where digests differ.

    :param progress: called with (what, done, total)
    :param data: where first bytes of objects differ, show the bytes, which may be a page's, not only where
    :raises BadInput: when they are not of one run, or have no time in common, or one has nothing to compare
    """
    _check_one_run(a, b)
    _check_one_clock(a, b)
    known = (_known(a), _known(b))
    shared = {name: tuple(c for c in FIELDS if c in known[0][name] and c in known[1][name])
              for name in known[0] if name in known[1]}
    sides = Side(a, shared, progress), Side(b, shared, progress)
    for side, other in zip(sides, sides[::-1], strict=True):
        if not len(side.ts):
            raise BadInput(side.recording.path, "", f"has no event of a kind that {other.recording.path} probed",
                           "give two recordings of one run")
    low, high = max(int(side.ts.min()) for side in sides), min(int(side.ts.max()) for side in sides)
    if low > high:
        raise BadInput(b.path, "", f"has no time in common with {a.path}", "give two recordings of one run")
    return _Comparer(sides[0], sides[1], shared, known, (low, high), progress, data).run()


def _check_one_run(a: Recording, b: Recording) -> None:
    """Refuse recordings that say themselves that they are of different boots.

    :raises BadInput: see :func:`compare`
    """
    first, second = a.manifest, b.manifest
    for what, one, other in (
            ("of another kernel", first["kernel"].get("release"), second["kernel"].get("release")),
            ("by another clock", _said(first, "clock"), _said(second, "clock"))):
        if one and other and one != other:
            raise BadInput(b.path, "", f"is {what} than {a.path} ({other}, {one})", "give two recordings of one run")
    symbols = [manifest["config"].get("symbols") or {} for manifest in (first, second)]
    if any(symbols[0][name] != symbols[1][name] for name in set(symbols[0]) & set(symbols[1])):
        raise BadInput(b.path, "", f"is of another boot than {a.path}: the kernel's symbols are elsewhere",
                       "give two recordings of one run")


def _check_one_clock(a: Recording, b: Recording) -> None:
    """Refuse recordings of which one has times and the other stamps of a clock that counts no seconds, or another's.

    :raises BadInput: see :func:`compare`
    """
    if a.stamps == b.stamps:
        return
    if a.stamps and b.stamps:
        if UNNAMED not in (a.stamps, b.stamps):
            raise BadInput(b.path, "", f"is by another clock than {a.path} ({b.stamps}, {a.stamps})",
                           "give two recordings of one run")
        return
    with_stamps, other = (a, b) if a.stamps else (b, a)
    raise BadInput(with_stamps.path, "", f"cannot be compared with {other.path}, which has times in ns: "
                   f"{no_seconds(with_stamps.stamps)}", "give two recordings by one clock")


def _said(manifest: dict[str, Any], key: str) -> Any:
    """Return what the recorder said, None where another made the recording."""
    said = manifest.get("capture")
    return said.get(key) if isinstance(said, dict) else None


def _known(recording: Recording) -> dict[str, set[str]]:
    """Return the events that a recording has probes of, and the columns these captured."""
    plan = _said(recording.manifest, "plan") or []
    # The kernel may have defined a probe and then refused to enable it.
    refused = {row.get("vocabulary") for row in plan if isinstance(row, dict) and not row.get("probe")}
    return {name: set(probe.get("columns", ())) for name, probe in recording.manifest["probes"].items()
            if name in schema.CODE and name not in schema.NO_PROBE and name not in refused}


class _Found(NamedTuple):
    """One task's differences, as places in both sides' arrays.

    ``parts``: (start, stop) of the compared part; ``differing``: n x 2; ``lone``: without a partner; ``only``: of
    these, those that are not returns from before the part; ``excused``: bool, which of ``only`` may have been lost.
    """

    task: int
    parts: tuple[tuple[int, int], tuple[int, int]]
    differing: np.ndarray
    lone: tuple[np.ndarray, np.ndarray]
    only: tuple[np.ndarray, np.ndarray]
    excused: tuple[np.ndarray, np.ndarray]

    def partner(self, number: int, place: int) -> int:
        """Return where on the other side a lone event's place would be."""
        (start, _), (first, last) = self.parts[number], self.parts[1 - number]
        before = place - start - int(np.searchsorted(self.lone[number], place))
        others = np.delete(np.arange(first, last), self.lone[1 - number] - first)
        return int(others[before]) if before < len(others) else last


class _Comparer:
    """Compares two sides task by task; see :func:`compare`."""

    def __init__(self, a: Side, b: Side, shared: dict[str, tuple[str, ...]], known: tuple[_Known, _Known],
                 span: tuple[int, int], progress: _Progress | None, data: bool) -> None:
        self.sides = (a, b)
        self.data = data
        self.shared = shared
        self.span = span
        self.progress = progress
        self.losses = (losses_of(a.recording, span, LAG), losses_of(b.recording, span, LAG))
        #: Events that have a partner, by code.
        self.matched = np.zeros(256, np.int64)
        self.result = RecordingComparison((self._counts(0, known), self._counts(1, known)), span, len(a.cpus | b.cpus),
                                          [], stamps=a.recording.stamps or b.recording.stamps)

    def _counts(self, number: int, known: tuple[_Known, _Known]) -> SideCounts:
        side = self.sides[number]
        out = SideCounts(str(side.recording.path), str(_said(side.recording.manifest, "backend") or ""),
                         len(side.recording), int(side.kinds[[schema.CODE[name] for name in schema.NO_PROBE]].sum()))
        for code in np.flatnonzero(side.kinds):
            name = schema.NAMES[code]
            if name not in self.shared and name not in schema.NO_PROBE:
                out.kinds[name] = int(side.kinds[code])
        # A probe that was never hit is missing on the other side too.
        out.kinds.update((name, 0) for name in sorted(known[number]) if name not in self.shared | out.kinds)
        out.losses = [loss.text for loss in self.losses[number]]
        return out

    def run(self) -> RecordingComparison:
        """Compare all tasks."""
        found: list[_Found] = []
        tasks = sorted(set(self.sides[0].tasks) | set(self.sides[1].tasks))
        for done, task in enumerate(tasks):
            found.append(self._task(task))
            if self.progress is not None:
                self.progress("comparing", done + 1, len(tasks))
        results = {one.task: self._result(one) for one in found}
        found = self._fields(found, results)
        unequal = []
        for one in found:
            if results[one.task].verdict != "AGREE":
                unequal.append((self._first(one), one))
                results[one.task].first_ts = unequal[-1][0][0]
        # A difference that nothing explains comes before those that losses may explain.
        unequal.sort(key=lambda item: (results[item[1].task].verdict != "DIFFER", item[0][0]))
        self._show(unequal[:_SHOWN], results)
        self.result.tasks = [*(results[one.task] for _, one in unequal),
                             *(task for task in results.values() if task.verdict == "AGREE")]
        for number, side in enumerate(self.result.sides):
            probes = self.sides[number].recording.manifest["probes"]
            for name, columns in self.shared.items():
                count = int(self.matched[schema.CODE[name]])
                lone = sorted((set(probes[name].get("columns", ())) & set(FIELDS)) - set(columns))
                side.columns.update({f"{name}.{column}": count for column in lone if count})
        return self.result

    def _task(self, task: int) -> _Found:
        """Align one task's events, and count those at the edges."""
        parts = [side.tasks.get(task, (0, 0)) for side in self.sides]
        a, b = (side.events(*part) for side, part in zip(self.sides, parts, strict=True))
        low = overlap(a, b, self.span[0], LAG)
        high = overlap(a.part(low[0], len(a.keys)).backwards(), b.part(low[1], len(b.keys)).backwards(),
                       -self.span[1], LAG)
        inner = [(start + first, stop - last) for (start, stop), first, last in zip(parts, low, high, strict=True)]
        aligned = align(*(side.events(*part) for side, part in zip(self.sides, inner, strict=True)))
        lone = (aligned.only_a + inner[0][0], aligned.only_b + inner[1][0])
        only, excused = [], []
        for number, side in enumerate(self.sides):
            halves = self._halves(number, parts[number][0], inner[number][0], lone[number])
            self._left_out(number, np.concatenate([np.arange(parts[number][0], inner[number][0]), lone[number][halves],
                                                   np.arange(inner[number][1], parts[number][1])]))
            only.append(lone[number][~halves])
            excused.append(_excused(side, only[-1], self.losses[1 - number]))
        differing = aligned.differing + np.array([inner[0][0], inner[1][0]])
        differing = np.concatenate([differing, self._pages(inner, lone, differing)])
        codes = self.sides[0].code
        self.matched += np.bincount(codes[slice(*inner[0])], minlength=256) - np.bincount(codes[lone[0]], minlength=256)
        return _Found(task, (inner[0], inner[1]), differing[np.argsort(differing[:, 0], kind="stable")], lone,
                      (only[0], only[1]), (excused[0], excused[1]))

    def _halves(self, number: int, start: int, begin: int, lone: np.ndarray) -> np.ndarray:
        """Return which events without a partner are returns of calls from before the compared part.

        The probe of a return hangs on the call: one that was armed after the call began sees no return of it.

        :param start: of the task's events; ``begin``: of the compared part
        """
        out = np.zeros(len(lone), bool)
        calls = {schema.CODE[name]: schema.CODE[name.removesuffix("_ret")] for name in self.shared
                 if name.endswith("_ret") and name.removesuffix("_ret") in self.shared}
        codes = self.sides[number].code
        suspects = {int(place): at for at, place in enumerate(lone) if int(codes[place]) in calls}
        if not suspects:
            return out
        open_calls: dict[int, list[int]] = {call: [] for call in calls.values()}
        for place, code in enumerate(codes[start:max(suspects) + 1].tolist(), start):
            if code in open_calls:
                open_calls[code].append(place)
            elif code in calls:
                waiting = open_calls[calls[code]]
                call = waiting.pop() if waiting else begin
                if place in suspects:
                    out[suspects[place]] = call < begin
        return out

    def _left_out(self, number: int, places: np.ndarray) -> None:
        """Count events at the edges, and those the other should have had by what it says of itself."""
        counts = self.result.sides[number]
        counts.edges += len(places)
        other = self.sides[1 - number].recording.manifest
        start, stop = _said(other, "start"), _said(other, "stop")
        if isinstance(start, int) and isinstance(stop, int):
            ts = self.sides[number].ts[places]
            counts.certain += int(np.count_nonzero((ts > start + _CERTAIN) & (ts < stop - _CERTAIN)))

    def _pages(self, inner: list[tuple[int, int]], lone: tuple[np.ndarray, np.ndarray],
               differing: np.ndarray) -> np.ndarray:
        """Compare page contents where both have a SHA-1; returns the pairs of places that differ in nothing else."""
        pages = [side.page for side in self.sides]
        if pages[0] is None or pages[1] is None:
            return np.zeros((0, 2), np.int64)
        a, b = (np.delete(np.arange(*part), places - part[0]) for part, places in zip(inner, lone, strict=True))
        both = (pages[0][a] != 0) & (pages[1][b] != 0)
        self.result.pages += int(np.count_nonzero(both))
        bad = both & (pages[0][a] != pages[1][b]) & ~np.isin(a, differing[:, 0])
        return np.stack([a[bad], b[bad]], axis=1)

    def _result(self, found: _Found) -> TaskResult:
        pid, cpu = (0, -1 - found.task) if found.task < 0 else (found.task, None)
        names = [side.recording.manifest.get("tasks", {}).get(str(pid)) for side in self.sides]
        start, stop = found.parts[0]
        return TaskResult(pid, cpu, str(names[0] or names[1] or ""), stop - start - len(found.lone[0]),
                          only=(len(found.only[0]), len(found.only[1])),
                          excused=(int(found.excused[0].sum()), int(found.excused[1].sum())))

    def _fields(self, found: list[_Found], results: dict[int, TaskResult]) -> list[_Found]:
        """Find by the fields what differs; returns the tasks' differences without mere readings."""
        pairs = np.concatenate([one.differing for one in found])
        if not len(pairs):
            return found
        a, b = self.sides
        code = a.code[pairs[:, 0]]
        names = [schema.NAMES[number] for number in np.unique(code)]
        columns = tuple(column for column in FIELDS if any(column in self.shared[name] for name in names))
        values = [side.gather(side.row[pairs[:, number]], (*columns, "ts")) for number, side in enumerate(self.sides)]
        real = np.zeros(len(pairs), bool)
        for name in names:
            of = np.flatnonzero(code == schema.CODE[name])
            for column in self.shared[name]:
                bad = of[values[0][column][of] != values[1][column][of]]
                # One CPU changes nothing between two probes that run on it one after the other.
                reading = (name, column) in READINGS and self.result.cpus > 1
                if len(bad):
                    (self.result.readings if reading else self.result.fields)[f"{name}.{column}"] = len(bad)
                real[bad] |= not reading
        if a.page is not None and b.page is not None:
            one, other = a.page[pairs[:, 0]], b.page[pairs[:, 1]]
            bad = (one != other) & (one != 0) & (other != 0)
            real |= bad
            for number in np.unique(code[bad]):
                self.result.fields[f"{schema.NAMES[number]}.content"] = int(np.count_nonzero(code[bad] == number))
        out, at = [], 0
        for one_task in found:
            mine = real[at:at + len(one_task.differing)]
            at += len(mine)
            results[one_task.task].different = int(mine.sum())
            results[one_task.task].readings = len(mine) - int(mine.sum())
            out.append(one_task._replace(differing=one_task.differing[mine]))
        return out

    def _first(self, found: _Found) -> tuple[int, int, int, int]:
        """Return (ns, side that has the event or -1 for both, place in A, place in B) of a task's first difference."""
        candidates = [(int(self.sides[0].ts[a]), -1, int(a), int(b)) for a, b in found.differing[:1]]
        # What losses cannot explain comes first, where there is any.
        unexplained = bool(len(found.differing)) or not all(excused.all() for excused in found.excused)
        for number in (0, 1):
            places = found.only[number][~found.excused[number]] if unexplained else found.only[number]
            if len(places):
                place = int(places[0])
                both = [found.partner(number, place)] * 2
                both[number] = place
                candidates.append((int(self.sides[number].ts[place]), number, both[0], both[1]))
        return min(candidates)

    def _show(self, unequal: list[tuple[tuple[int, int, int, int], _Found]], results: dict[int, TaskResult]) -> None:
        """Describe the first difference of each of these tasks."""
        if not unequal:
            return
        windows: list[list[tuple[int, int]]] = [[], []]
        for first, found in unequal:
            for number in (0, 1):
                start, stop = found.parts[number]
                place = first[2 + number]
                windows[number].append((max(start, place - _AROUND), min(stop, place + _AROUND + 1)))
        columns = schema.column_names()
        events = []
        for side, ranges in zip(self.sides, windows, strict=True):
            places = np.concatenate([np.arange(*window) for window in ranges])
            rows = side.row[places]
            events.append((places, rows, side.gather(rows, columns)))
        for at, (first, found) in enumerate(unequal):
            context, numbers, here = [], [-1, -1], {}
            for number in (0, 1):
                places, rows, values = events[number]
                base = sum(stop - start for start, stop in windows[number][:at])
                lines = []
                for place in range(base, base + windows[number][at][1] - windows[number][at][0]):
                    event = {name: array[place] for name, array in values.items()}
                    is_it = int(places[place]) == first[2 + number] and first[1] in (-1, number)
                    lines.append(event_line(int(rows[place]), event, "-> " if is_it else "   ", self.data,
                                            self.result.stamps))
                    if is_it:
                        numbers[number], here[number] = int(rows[place]), event
                context.append(tuple(lines))
            has = 0 if first[1] < 1 else 1
            name = schema.NAMES[int(here[has]["event"])]
            fields: list[tuple[str, int | str, int | str]] = []
            for column in self.shared[name] if first[1] < 0 else ():
                one, other = int(here[0][column]), int(here[1][column])
                if one != other:
                    hidden = (name, column) in schema.PAGE_BYTES and not self.data
                    fields.append((column, *(apart(one, other) if hidden else (one, other))))
            if first[1] < 0 and not fields:
                fields = [("content", int(here[0]["content"]), int(here[1]["content"]))]
            results[found.task].first = FirstDifference(
                first[2 + has] - found.parts[has][0], (numbers[0], numbers[1]), first[0], name, tuple(fields),
                (context[0], context[1]))


def _excused(side: Side, places: np.ndarray, losses: list[Loss]) -> np.ndarray:
    """Return which events the other recording may have lost, by its losses."""
    out = np.zeros(len(places), bool)
    ts, code = side.ts[places], side.code[places]
    for loss in losses:
        inside = (ts >= loss.start - LAG) & (ts <= loss.stop + LAG)
        out |= inside if loss.code is None else inside & (code == loss.code)
    return out
