# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks an export: what was read back is compared with the recording's own rows, item by item.

Nothing of :class:`traces.exporters.timeline.Timeline` is used: tracks, nesting and counters are worked out again from
the rows.  Both sides are streamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from traces import schema
from traces.errors import BadInput
from traces.exporters.timeline import MARKERS, MISSING, OBJECTS, TOTALS, Item
from traces.recording import Recording

__all__ = ["Checked", "check"]

_COLUMNS: Final = tuple(column.name for column in schema.COLUMNS[4:] if column.name not in ("content", "text"))
_ALONE: Final = ("marker", "lost_events", "counters", "param")
_BUG: Final = "the export is not what was recorded: this is a bug of zreplay, report it"


@dataclass
class Checked:
    """How many items were compared, and how many slices have no recorded return."""

    events: int = 0
    slices: int = 0
    instants: int = 0
    values: int = 0
    missing: int = 0


class _Check:
    """Compares items with rows; each event's item must come in its turn."""

    def __init__(self, recording: Recording, name: str, data: bool) -> None:
        self.recording = recording
        self.data = data
        self.name = name
        self.done = Checked()
        self.probes: dict[str, Any] = recording.manifest["probes"]
        self.rows = self._rows()
        self.row: dict[str, Any] = {}
        self.tracks: dict[int, tuple[str, int]] = {}
        self.described: set[tuple[str, int]] = set()
        self.open: dict[int, list[str]] = {}
        #: ends of slices without a return, which no later event has justified yet
        self.owed: list[Item] = []
        #: counter values that have to follow the last event: name -> value
        self.due: dict[str, int] = {}
        self.objects: int | None = None
        if {"zs_malloc_ret", "zs_free"} <= self.probes.keys():
            self.objects = _held_at_start(recording)

    def fail(self, what: str) -> BadInput:
        return BadInput(self.name, f"event {self.done.events - 1}", what, _BUG)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for base, batch in self.recording.batches(schema.column_names()):
            columns = {name: array.tolist() for name, array in batch.items()}
            for i in range(len(columns["ts"])):
                yield {"number": base + i, **{name: values[i] for name, values in columns.items()}}

    def next_row(self, item: Item) -> str:
        """Take the next event, compare an item's time, task, CPU and arguments with it; return the event's name."""
        if self.due:
            raise self.fail(f"the counters {sorted(self.due)} lack a value after it")
        row = next(self.rows, None)
        if row is None:
            raise self.fail("there is more in the export than in the recording")
        self.row = row
        self.done.events += 1
        name: str = schema.NAMES[row["event"]]
        if item.ts != row["ts"]:
            raise self.fail(f"{name} is at {item.ts} ns in the export, at {row['ts']} ns in the recording")
        expected = {"event": row["number"], "cpu": row["cpu"]}
        probe = self.probes.get(name)
        captured = probe["columns"] if isinstance(probe, dict) and isinstance(probe.get("columns"), list) else \
            next((kind.columns for kind in schema.EVENTS if kind.name == name), ())
        expected |= {column: row[column] for column in _COLUMNS if column in captured
                     and (self.data or (name, column) not in schema.PAGE_BYTES)}
        if row["content"] >= 0:
            expected["content"] = row["content"]
        if row["text"]:
            expected["text"] = row["text"]
        kind, which = self.tracks[item.track]
        if name in _ALONE:
            expected["task"] = row["pid"]
            right = kind == MARKERS
        else:
            right = (kind, which) == (("task", row["pid"]) if row["pid"] else ("CPU", row["cpu"]))
        if not right:
            raise self.fail(f"{name} of task {row['pid']} on CPU {row['cpu']} is on the track of {kind} {which}")
        if item.args != expected:
            wrong = sorted(key for key in {*expected, *item.args} if expected.get(key) != item.args.get(key))
            raise self.fail(f"{name} has other values in the export: {', '.join(wrong)}")
        self._counters(name, row)
        return name

    def _counters(self, name: str, row: dict[str, Any]) -> None:
        """Work out which counters have to have a value after this event."""
        if name in TOTALS:
            self.due[TOTALS[name]] = row["ret"]
        elif name == "counters":
            held = self.recording.snapshot(row["ret"]).get("zswap_debugfs")
            for counter, value in held.items() if isinstance(held, dict) else ():
                if re.fullmatch("[0-9]{1,18}", str(value)):
                    self.due[f"zswap/{counter}"] = int(value)
        elif self.objects is not None and name in ("zs_malloc_ret", "zs_free") and _live(row["handle"]):
            self.objects += {"zs_malloc_ret": 1, "zs_free": -1}[name]
            self.due[OBJECTS] = self.objects

    def item(self, item: Item) -> None:
        """Compare one item.

        :raises BadInput: when it is not what was recorded
        """
        if item.kind == "track":
            found = re.search(r"(?:^|, )(task|CPU) (-?\d+)$", item.name)
            which = (found[1], int(found[2])) if found else (MARKERS, 0)
            if item.track in self.tracks or which in self.described or (not found and item.name != MARKERS):
                raise self.fail(f"the track '{item.name}' is none of a task, or there twice")
            self.tracks[item.track] = which
            self.described.add(which)
            return
        if item.kind == "counter":
            if self.due.pop(item.name, None) != item.value or item.ts != self.row["ts"]:
                raise self.fail(f"the counter '{item.name}' has the value {item.value} after it, at {item.ts} ns")
            self.done.values += 1
            return
        if item.track not in self.tracks:
            raise self.fail(f"{item.name} is on a track that nothing describes")
        stack = self.open.setdefault(item.track, [])
        if item.kind == "end":
            self._end(item, stack)
            return
        if self.owed:
            raise self.fail(f"a slice of {self.owed[0].name} was closed without a return, and nothing shows that")
        name = self.next_row(item)
        if name != item.name:
            raise self.fail(f"it is {name} in the recording, {item.name} in the export")
        returns = f"{name}_ret" in self.probes
        if (item.kind == "begin") != returns:
            raise self.fail(f"{name} is {'an instant' if returns else 'a slice'} in the export")
        if item.kind == "begin":
            self.done.slices += 1
            stack.append(name)
        else:
            self.done.instants += 1
            if name.endswith("_ret") and name[:-4] in stack:
                raise self.fail(f"{name} does not close its slice")

    def _end(self, item: Item, stack: list[str]) -> None:
        if not stack or stack.pop() != item.name:
            raise self.fail(f"the end of {item.name} closes another slice")
        if item.args == {"missing": MISSING}:
            self.done.missing += 1
            self.owed.append(item)
            return
        # Only the return of the innermost call of that name shows that those inside it have none, and it shows it then.
        for other in self.owed:
            if (other.track, other.ts) != (item.track, item.ts) or other.name == item.name:
                raise self.fail(f"the return of {item.name} does not show that {other.name} at {other.ts} ns had none")
        self.owed.clear()
        name = self.next_row(item)
        if name != f"{item.name}_ret":
            raise self.fail(f"{name} closes a slice of {item.name}")

    def end(self) -> None:
        """Nothing may be left over."""
        if self.due:
            raise self.fail(f"the counters {sorted(self.due)} lack a value after it")
        if any(self.open.values()):
            raise self.fail("slices are open at the end of the export")
        if any(item.ts != self.row["ts"] for item in self.owed):
            raise self.fail("slices without a return end before the recording does")
        if next(self.rows, None) is not None:
            raise self.fail("the export ends here, the recording does not")


def _live(handle: int) -> bool:
    """True for a handle that is neither NULL nor an error pointer (IS_ERR_OR_NULL())."""
    return handle != 0 and handle < 2 ** 64 - 4095


def _held_at_start(recording: Recording) -> int:
    state = recording.document("state")
    if state is not None:
        entries = state.get("entries")
        return len(entries) if isinstance(entries, list | dict) else 0
    first = recording.snapshot(0).get("zswap_debugfs") if recording.snapshots else None
    text = str(first.get("stored_pages", "")) if isinstance(first, dict) else ""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0


def check(recording: Recording, items: Iterable[Item], name: str | Path, *, data: bool = False) -> Checked:
    """Compare what was read back from an export with the recording it was made of.

    :param name: the export, for sentences
    :param data: whether it should hold first bytes of objects: as for :class:`traces.exporters.timeline.Timeline`
    :raises BadInput: at the first difference
    """
    against = _Check(recording, str(name), data)
    for item in items:
        against.item(item)
    against.end()
    return against.done
