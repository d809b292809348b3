# SPDX-License-Identifier: GPL-2.0-or-later
"""Events in memory on their way into a recording: columns that every event has are whole, all others only have the
rows of events that have them.

An event fills about four of the vocabulary's columns.  Whole columns of zeros would take ten times the memory, and
longer to fill, to merge and to read than everything else that an import does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from traces import schema

__all__ = ["SPARSE", "Block", "absent", "sparse_index"]

_DENSE: Final = ("ts", "cpu", "pid", "event")
#: Columns of which only the rows with a value are kept.
SPARSE: Final = tuple(name for name in schema.column_names() if name not in (*_DENSE, "text"))
_PLACE: Final = {name: number for number, name in enumerate(SPARSE)}
_COLUMN: Final = {name: number for number, name in enumerate(schema.column_names())}


def absent(name: str) -> int:
    """Return what a column of :data:`SPARSE` holds where an event does not have it."""
    return -1 if name == "content" else 0


def sparse_index(name: str) -> int:
    """Return a column's place in :data:`SPARSE`."""
    return _PLACE[name]


@dataclass
class Block:
    """Rows of events in order.

    ``ts`` (int64), ``cpu`` (uint16), ``pid`` (int32) and ``event`` (uint8, codes) have a value per row.  Of each
    column of :data:`SPARSE` there are the rows that hold something (``where``, ascending int32, the block's first row
    being ``first``) and what they hold (``value``, int64; unsigned columns hold the same bits).  ``texts`` are
    (row of the block, text), rows ascending and each at most once.
    """

    ts: np.ndarray
    cpu: np.ndarray
    pid: np.ndarray
    event: np.ndarray
    where: list[np.ndarray]
    value: list[np.ndarray]
    texts: list[tuple[int, str]]
    first: int = 0

    def __len__(self) -> int:
        return int(self.ts.size)

    @classmethod
    def empty(cls) -> Block:
        """Return a block without rows."""
        return cls.of(np.zeros((len(schema.COLUMNS), 0), np.int64))

    @classmethod
    def of(cls, columns: np.ndarray, texts: Sequence[tuple[int, str]] = ()) -> Block:
        """Make a block of whole columns: int64, columns of the schema x rows.  ``texts`` may be in any order.

        :raises ValueError: at an event code that the vocabulary does not have
        """
        events = columns[_COLUMN["event"]]
        if events.size and not 0 <= int(events.min()) <= int(events.max()) < len(schema.NAMES):
            raise ValueError("an event's code is not one of the vocabulary")
        where, value = [], []
        for name in SPARSE:
            column = columns[_COLUMN[name]]
            rows = np.flatnonzero(column != absent(name))
            where.append(rows.astype(np.int32))
            value.append(column[rows])
        dtypes = {column.name: column.dtype for column in schema.COLUMNS}
        ts, cpu, pid, event = (columns[_COLUMN[name]].astype(dtypes[name]) for name in _DENSE)
        return cls(ts, cpu, pid, event, where, value, sorted(dict(texts).items()))

    def sparse(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (where, value) of a column of :data:`SPARSE`; ``where`` counts from :attr:`first`."""
        return self.where[_PLACE[name]], self.value[_PLACE[name]]

    def column(self, name: str) -> np.ndarray:
        """Return a column as an array of all rows: int64, or the type of the four that are kept so."""
        if name in _DENSE:
            whole: np.ndarray = getattr(self, name)
            return whole
        out = np.full(len(self), absent(name), np.int64)
        where, value = self.sparse(name)
        out[where - self.first] = value
        return out

    def columns(self) -> np.ndarray:
        """Return all columns: int64, columns of the schema x rows."""
        return np.array([np.zeros(len(self), np.int64) if name == "text" else self.column(name)
                         for name in schema.column_names()], np.int64).reshape(len(schema.COLUMNS), len(self))

    def put(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Make ``values`` in ascending ``rows`` all that a column of :data:`SPARSE` holds."""
        self.where[_PLACE[name]] = (rows + self.first).astype(np.int32)
        self.value[_PLACE[name]] = values.astype(np.int64)

    def copy(self) -> Block:
        """Return a block whose memory is its own."""
        return Block(self.ts.copy(), self.cpu.copy(), self.pid.copy(), self.event.copy(),
                     [rows.copy() for rows in self.where], [values.copy() for values in self.value],
                     list(self.texts), self.first)

    def part(self, begin: int, end: int) -> Block:
        """Return the rows from ``begin`` to before ``end``; nothing is copied."""
        where, value = [], []
        for rows, values in zip(self.where, self.value, strict=True):
            low, high = np.searchsorted(rows, (begin + self.first, end + self.first))
            where.append(rows[low:high])
            value.append(values[low:high])
        return Block(self.ts[begin:end], self.cpu[begin:end], self.pid[begin:end], self.event[begin:end], where, value,
                     [(row - begin, text) for row, text in self.texts if begin <= row < end], self.first + begin)

    def only(self, keep: np.ndarray) -> Block:
        """Return the rows for which ``keep``, a bool per row, is true."""
        place = np.cumsum(keep) - 1
        return Block.of(self.columns()[:, keep], [(int(place[row]), text) for row, text in self.texts if keep[row]])

    def insert(self, rows: list[tuple[int, dict[str, int], str]]) -> Block:
        """Return a block with rows inserted: (position, {column: value}, text), positions ascending."""
        extra = np.zeros((len(schema.COLUMNS), len(rows)), np.int64)
        extra[_COLUMN["content"]] = -1
        for number, (_, row, _) in enumerate(rows):
            for name, one in row.items():
                extra[_COLUMN[name], number] = one
        new = Block.of(extra)
        positions = np.array([position for position, _, _ in rows], np.int64)
        where, value = [], []
        for column, (old, values) in enumerate(zip(self.where, self.value, strict=True)):
            cuts = np.searchsorted(old, positions + self.first)
            # A row moves by as many as are inserted before it.
            by = np.repeat(np.arange(len(rows) + 1, dtype=np.int32), np.diff(cuts, prepend=0, append=old.size))
            by += old
            by -= self.first
            some = new.where[column]
            where.append(_spliced(by, cuts[some], (positions[some] + some).astype(np.int32)))
            value.append(_spliced(values, cuts[some], new.value[column]))
        texts = [(row + int(np.searchsorted(positions, row, "right")), text) for row, text in self.texts]
        texts += [(position + number, text) for number, (position, _, text) in enumerate(rows) if text]
        ts, cpu, pid, event = (_spliced(getattr(self, name), positions, getattr(new, name)) for name in _DENSE)
        return Block(ts, cpu, pid, event, where, value, sorted(texts))


def _spliced(values: np.ndarray, places: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return ``values`` with each of ``new`` before the one at its place, places ascending.

    ``numpy.insert`` does this with a mask of all values.
    """
    if not new.size:
        return values
    parts = []
    for one, low, high in zip(new, places, [*places[1:].tolist(), values.size], strict=True):
        parts += [np.array([one], values.dtype), values[low:high]]
    return np.concatenate((values[:places[0]], *parts))
