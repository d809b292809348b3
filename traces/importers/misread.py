# SPDX-License-Identifier: GPL-2.0-or-later
"""Columns that a probe read from the wrong place of a structure.

A probe names fields of a structure, and something (BTF, or an offset in the probe's definition) says where they are.
On a kernel whose structure is laid out otherwise it reads something else, throughout.  Other events of the same
operation hold the same value from a register: where they disagree with most of what was read, the column is not taken
as captured.  One value that differs is the kernel's doing, or that of whoever changed the recording, and stays for a
replay to see.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from traces import schema

__all__ = ["MisreadColumns"]

_COLUMN: Final = {name: number for number, name in enumerate(schema.column_names())}


class _Witness(NamedTuple):
    """``event``'s ``column`` is also in ``other_column`` of the next ``other`` event of the same task."""

    event: str
    column: str
    other: str
    other_column: str


_WITNESSES: Final = (_Witness("zswap_decompress", "size", "zs_obj_read", "size"),
                     _Witness("zswap_entry_free", "size", "obj_cgroup_uncharge_zswap", "size"))
#: Columns that hold a bool.
_BOOLS: Final = (("zswap_entry_free", "ref"),)


class MisreadColumns:
    """Counts, block by block, how often columns agree with their witnesses."""

    def __init__(self) -> None:
        #: (event, column) -> [values that had a witness, values that cannot be]
        self._counts: dict[tuple[str, str], list[int]] = {}

    def add(self, columns: np.ndarray) -> None:
        """Look at a block of events: int64, one row per column of the schema."""
        events, pids = columns[_COLUMN["event"]], columns[_COLUMN["pid"]]
        for event, column, other, other_column in _WITNESSES:
            rows = np.flatnonzero((events == schema.CODE[event]) | (events == schema.CODE[other]))
            rows = rows[np.argsort(pids[rows], kind="stable")]
            first, second = rows[:-1], rows[1:]
            pair = (pids[first] == pids[second]) & (events[first] == schema.CODE[event]) \
                & (events[second] == schema.CODE[other])
            wrong = columns[_COLUMN[column]][first[pair]] != columns[_COLUMN[other_column]][second[pair]]
            self._count(event, column, int(pair.sum()), int(wrong.sum()))
        for event, column in _BOOLS:
            values = columns[_COLUMN[column]][events == schema.CODE[event]]
            self._count(event, column, len(values), int((values > 1).sum()))

    def _count(self, event: str, column: str, seen: int, wrong: int) -> None:
        counts = self._counts.setdefault((event, column), [0, 0])
        counts[0] += seen
        counts[1] += wrong

    def withdraw(self, captured: dict[str, list[str]]) -> list[str]:
        """Take columns that were read wrongly out of ``captured`` and return a note for each."""
        notes = []
        blind = {(witness.event, witness.column) for witness in _WITNESSES
                 if witness.other_column not in captured.get(witness.other, ())}
        for (event, column), (seen, wrong) in self._counts.items():
            # A witness whose own column was not read (6.12's zs_map_object() has no length) says nothing.
            if (event, column) in blind:
                continue
            # Any other byte may be 0 or 1 by chance, a length hardly ever what another event says.
            if column not in captured.get(event, ()) or wrong <= seen * (0.1 if (event, column) in _BOOLS else 0.5):
                continue
            captured[event] = [name for name in captured[event] if name != column]
            notes.append(f"{event}'s {column} is not what its name says in {wrong:,} of {seen:,} events: its probe "
                         f"read another place of the structure, the column is not compared")
        return notes
