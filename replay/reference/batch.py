# SPDX-License-Identifier: GPL-2.0-or-later
"""The events at hand: their columns as lists, which of them is looked at, and when each task showed its last one."""

from __future__ import annotations

from typing import Any, Final

from traces import schema

__all__ = ["COLUMNS", "Batch"]

#: what a replay reads
COLUMNS: Final = ("ts", "cpu", "pid", "event", "swpent", "folio", "entry", "handle", "obj", "zspage", "pool", "memcg",
                  "data", "ret", "size", "dlen", "offset", "word", "inuse", "freeobj", "order", "ref", "nid",
                  "content", "text")


class Batch:
    """The current batch of events: each column is a list, indexed by the row in the batch.

    A column that the event's probe did not capture holds 0.  ``base``: number of the batch's first event; ``now``: of
    the event at hand; ``last_seen``: task -> number of its last event, of tasks seen in the batches before this one.
    """

    ts: list[int]
    cpu: list[int]
    pid: list[int]
    event: list[int]
    swpent: list[int]
    folio: list[int]
    entry: list[int]
    handle: list[int]
    obj: list[int]
    zspage: list[int]
    pool: list[int]
    memcg: list[int]
    data: list[int]
    ret: list[int]
    size: list[int]
    dlen: list[int]
    offset: list[int]
    word: list[int]
    inuse: list[int]
    freeobj: list[int]
    order: list[int]
    ref: list[int]
    nid: list[int]
    content: list[int]
    text: list[str]

    def __init__(self) -> None:
        self.base = 0
        self.now = 0
        self.last_seen: dict[int, int] = {}
        for name in COLUMNS:
            setattr(self, name, [])

    def clear(self) -> None:
        """No batch is at hand: the next one does not follow the last."""
        self.pid = []

    def take(self, base: int, columns: dict[str, Any]) -> None:
        """Take the next batch, whose first event is number ``base``."""
        self.last_seen.update(zip(self.pid, range(self.base, self.base + len(self.pid)), strict=True))
        self.base = base
        self.load(columns)

    def load(self, columns: dict[str, Any]) -> None:
        """Take a batch's columns as lists: one attribute per column."""
        for name in COLUMNS:
            setattr(self, name, columns[name].tolist())

    def row(self, i: int) -> int:
        """Return the event number of a row."""
        return self.base + i

    def name(self, i: int) -> str:
        """Return the event's name of a row."""
        return schema.NAMES[self.event[i]]

    def since_previous(self, i: int) -> int:
        """Return the number of the event before the one at hand of the same task, 0 where it has shown none.

        A task that was preempted between reading a value and the probe that shows it has read the value of any
        moment since then.
        """
        pid = self.pid[i]
        for row in range(i - 1, -1, -1):
            if self.pid[row] == pid:
                return self.base + row
        return self.last_seen.get(pid, 0)

    def is_first_of_task(self, pid: int, i: int) -> bool:
        """True where a task has shown no event before row ``i``."""
        return pid not in self.last_seen and pid not in self.pid[:i]
