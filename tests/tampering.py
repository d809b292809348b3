# SPDX-License-Identifier: GPL-2.0-or-later
"""Single changes to a recording, made in memory, and what a replay makes of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import replay
from replay.verdict.result import Result
from traces import schema
from traces.recording import Recording

COLUMNS = schema.column_names()
STARTS = {"swap_writeout", "zswap_store", "zswap_load", "zswap_invalidate", "zs_shrinker_scan"}


class Tampered(Recording):
    """A recording held in memory, whose events and snapshots may be changed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for loss in self.manifest["losses"]:
            # What is missing does not follow from how many events were read.
            loss.pop("events", None)
        self.columns: dict[str, np.ndarray] = {}
        for name in COLUMNS:
            parts = [batch[name] for _, batch in super().batches([name], rows=1 << 20)]
            self.columns[name] = np.concatenate(parts)
        #: what each row's number was when nothing was dropped
        self.columns["origin"] = np.arange(len(self.columns["ts"]))
        self.chained = super().lists("chained", ("event", "number", "content"))
        self.changed_snapshots = [copy.deepcopy(super(Tampered, self).snapshot(n)) for n in range(len(self.snapshots))]
        self.tables = {name: super(Tampered, self).table(name) for name in ("truth", "objects")}
        self.documents = {"state": super().document("state")}

    def __len__(self) -> int:
        return len(self.columns["ts"])

    def batches(self, columns: Sequence[str], rows: int = 1 << 15,
                start: int = 0) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for at in range(start // rows * rows, len(self), rows):
            yield at, {name: self.columns[name][at:at + rows] for name in columns}

    def texts(self) -> frozenset[str]:
        return frozenset(text for text in self.columns["text"] if text)

    def counts(self) -> dict[str, int]:
        codes, counts = np.unique(self.columns["event"], return_counts=True)
        return {schema.NAMES[code]: count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}

    def snapshot(self, number: int) -> dict[str, Any]:
        return self.changed_snapshots[number]

    def lists(self, name: str, columns: Sequence[str]) -> list[list[Any]] | None:
        if name != "chained" or self.chained is None:
            return super().lists(name, columns)
        now = {was: row for row, was in enumerate(self.columns["origin"].tolist())}
        rows = [(now[event], *rest) for event, *rest in zip(*self.chained, strict=True) if event in now]
        return [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], []]

    def table(self, name: str) -> Any:
        return self.tables.get(name)

    def document(self, name: str) -> Any:
        return self.documents.get(name)


@dataclass
class Change:
    """One change: of what ``kind``, at which ``event`` (after it), in words, and how to take it back."""

    kind: str
    event: int
    what: str
    undo: Any
    invisible: str = ""
    first_seen: bool = False


#: Columns whose change nothing can show, and why.
UNDECIDED = {
    "ts": "time stamps decide nothing as long as the order of events stays",
    "cpu": "which CPU a task ran on decides nothing",
    "gfp": "allocation flags decide nothing unless an allocation fails",
    "nid": "the node of an entry's slab page is the outside's; only its removal from the same list is checked",
}
#: Columns that name something for the first time in such an event: only a later event that names the same thing
#: can disagree.
FIRST_SEEN = {
    ("obj_malloc", "handle"), ("obj_malloc", "zspage"), ("zs_malloc_ret", "handle"), ("list_lru_add", "entry"),
    ("list_lru_add", "memcg"), ("list_lru_add", "pool"), ("obj_cgroup_charge_zswap", "memcg"),
    ("obj_malloc_ret", "obj"), ("zswap_decompress", "entry"), ("zs_malloc", "pool"),
    ("fix_fullness_group", "pool"), ("__zs_compact", "pool"), ("list_lru_del", "pool"),
}
#: Columns that an operation is given: its effects follow from them and are the first that can disagree.
GIVEN = {
    ("swap_writeout", "folio"), ("swap_writeout", "swpent"), ("swap_writeout", "order"), ("zswap_load", "folio"),
    ("zswap_load", "swpent"), ("zswap_invalidate", "swpent"), ("crypto_acomp_compress", "folio"),
    ("obj_cgroup_may_zswap_ret", "ret"), ("mem_cgroup_zswap_writeback_enabled_ret", "ret"),
}


def drop(recording: Tampered, event: int) -> Change:
    """Leave one event out."""
    return _reorder(recording, event, np.delete(np.arange(len(recording)), event), "drop")


def tamper(recording: Tampered, chance: random.Random) -> Change:
    """Change one thing at random and say what."""
    kind = chance.choices(["field", "drop", "swap", "counter", "task"],
                          [70, 10, 8, 8 if recording.snapshots else 0, 4])[0]
    if kind == "counter":
        return _counter(recording, chance)
    event = chance.randrange(len(recording) - 1)
    if kind == "drop":
        return drop(recording, event)
    if kind == "swap":
        order = np.arange(len(recording))
        order[[event, event + 1]] = order[[event + 1, event]]
        return _reorder(recording, event, order, "swap")
    name = name_of(recording, event)
    if kind == "task":
        return _set(recording, event, "pid", int(recording.columns["pid"][event]) + 1, "task")
    probes = recording.manifest["probes"]
    columns = [c for c in probes.get(name, {}).get("columns", ()) if c != "text"] or ["ts"]
    column = chance.choice(columns)
    old = int(recording.columns[column][event])
    new = chance.choice([old + 1, old - 1, old ^ 1 << chance.randrange(8), 0, old + 16])
    low = -(1 << 63) if COLUMN_TYPES[column].startswith("int") else 0
    bits = 8 * np.dtype(COLUMN_TYPES[column]).itemsize
    high = (1 << (bits - 1 if low else bits)) - 1
    if new == old or not low <= new <= high:
        new = old + 1 if old < high else old - 1
    return _set(recording, event, column, new, "field")


COLUMN_TYPES = {column.name: column.dtype for column in schema.COLUMNS}


def name_of(recording: Tampered, event: int) -> str:
    """Return an event's name."""
    return schema.NAMES[recording.columns["event"][event]]


def _set(recording: Tampered, event: int, column: str, new: int, kind: str) -> Change:
    values = recording.columns[column]
    old = values[event].copy()
    recording.columns[column] = values = values.copy()
    values[event] = new

    def undo() -> None:
        values[event] = old

    name = name_of(recording, event)
    change = Change(kind, event, f"{name}.{column}: {old} -> {new}", undo)
    if column in UNDECIDED:
        change.invisible = UNDECIDED[column]
    change.first_seen = (name, column) in FIRST_SEEN | GIVEN or kind == "task"
    return change


def _reorder(recording: Tampered, event: int, order: np.ndarray, kind: str) -> Change:
    old = dict(recording.columns)
    what = f"{kind} {name_of(recording, event)}" + (f" with {name_of(recording, event + 1)}" if kind == "swap" else "")
    for name in COLUMNS:
        recording.columns[name] = old[name][order]
    rows = recording.manifest["rows"]
    # What is missing does not follow from how many events there should be.
    recording.manifest["rows"] = len(order)

    def undo() -> None:
        recording.columns.update(old)
        recording.manifest["rows"] = rows

    return Change(kind, event, what, undo)


def _counter(recording: Tampered, chance: random.Random) -> Change:
    number = chance.randrange(len(recording.snapshots))
    snapshot = recording.changed_snapshots[number]
    name = chance.choice(sorted(snapshot["zswap_debugfs"]))
    old = snapshot["zswap_debugfs"][name]
    added = chance.choice([1, 4096])
    snapshot["zswap_debugfs"][name] = str(int(old) + added)
    rows = np.flatnonzero((recording.columns["event"] == schema.CODE["counters"])
                          & (recording.columns["ret"] == number))

    def undo() -> None:
        snapshot["zswap_debugfs"][name] = old

    change = Change("counter", int(rows[0]), f"snapshot {number}: zswap.{name} {old} -> changed", undo)
    if name == "stored_pages" and added == 1 and _just_uncharged(recording, int(rows[0])):
        change.invisible = "a task whose last event is the uncharge may not have counted the page that it freed"
    return change


def _just_uncharged(recording: Tampered, event: int) -> bool:
    """True when before an event some task's last one was that of zswap_entry_free() just before it counts."""
    pids, last = np.unique(recording.columns["pid"][:event][::-1], return_index=True)
    return any(name_of(recording, event - 1 - int(at)) == "obj_cgroup_uncharge_zswap"
               for pid, at in zip(pids, last, strict=True) if pid)


#: events that show how many pages a pool has, or what it has room in
_TELL_PAGES = ("zs_get_total_pages_ret", "zswap_total_pages_ret", "counters", "zs_malloc", "zs_shrinker_scan", "zs_compact")


def no_effect(recording: Tampered, event: int, inside: tuple[str, ...] = ()) -> str:
    """Say why an event could be missing, moved or changed without anything else changing; '' if it could not.

    :param inside: the operations that its task is in, the innermost last
    """
    columns = recording.columns
    name = name_of(recording, event)
    if name in ("marker", "zswap_folio_swapin"):
        return f"{name} is nobody's effect"
    lru = recording.manifest["config"]["symbols"]["zswap_list_lru"]
    if name in ("list_lru_add", "list_lru_del") and int(columns["pool"][event]) != lru:
        return "another LRU's event"
    before, after = neighbours(recording, event)
    if name == "list_lru_add_ret" and (before < 0 or name_of(recording, before) != "list_lru_add"
                                       or int(columns["pool"][before]) != lru):
        return "another LRU's event"
    if name in ("zs_get_total_pages_ret", "zswap_total_pages_ret"):
        if not inside:
            return "a reading of the total by somebody outside zswap, right whatever its neighbours are"
        if inside[-1] == "shrink_worker" and name in (name_of(recording, e) for e in (before, after) if e >= 0):
            # zswap_memcg_offline_cleanup() moves the cursor past the last one as well: not all cgroups are known.
            return "a pass of shrink_worker() ends there, which may go unseen"
    if name == "__free_zspage" and not np.isin(columns["event"][event:], [schema.CODE[n] for n in _TELL_PAGES]).any():
        # free_zspage() leaves a zspage whose pages it cannot lock to a worker, which may come much later.
        return "an empty zspage may wait for its deferred free, and nothing behind reads or needs the pool's pages"
    if name == "zswap_invalidate" and (after < 0 or name_of(recording, after) != "zswap_entry_free"):
        return "a slot was freed that zswap held nothing for"
    return ""


def neighbours(recording: Tampered, event: int) -> tuple[int, int]:
    """Return the events of the same task before and after an event, -1 for none."""
    pids = recording.columns["pid"]
    earlier, later = (np.flatnonzero(part == pids[event]) for part in (pids[:event], pids[event + 1:]))
    return (int(earlier[-1]) if earlier.size else -1), (event + 1 + int(later[0]) if later.size else -1)


def outlives(recording: Tampered, event: int) -> str:
    """Say so when nothing after an event names the entry it is about again; '' otherwise."""
    columns = recording.columns
    names = {schema.CODE["list_lru_add"], schema.CODE["obj_cgroup_charge_zswap"]}
    if int(columns["event"][event]) not in names:
        return ""
    add = event + int(np.flatnonzero(columns["event"][event:] == schema.CODE["list_lru_add"])[0])
    item = columns["entry"][add]
    later = np.flatnonzero((columns["entry"][add + 1:] == item) | (columns["entry"][add + 1:] == item - np.uint64(0x28)))
    return "" if later.size else "the entry outlives the recording: nothing names it or its cgroup again"


def run(recording: Tampered) -> Result:
    """Replay the recording as it stands."""
    return replay.replay(recording)
