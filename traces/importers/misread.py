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
from traces.block import Block
from traces.compiled import at as _at
from traces.compiled import compiled

__all__ = ["MisreadColumns"]



@compiled
def _compare(event, tasks, first, second, base, where, value,  # type: ignore[no-untyped-def]
             other_where, other_value, waits, waiting):
    """Return how often a ``first`` is followed by a ``second`` of the same task's events of these two, and how often
    what ``where`` and ``value`` give the one is not what the others give the other.

    ``waits`` and ``waiting``: per task, whether its last event of these was a ``first``, and its value.
    """
    waits[:] = False
    seen = wrong = k = j = 0
    for row in range(event.shape[0]):
        if event[_at(row)] == first:
            while k < where.shape[0] and where[k] - base < row:
                k += 1
            waits[tasks[row]] = True
            waiting[tasks[row]] = value[k] if k < where.shape[0] and where[k] - base == row else 0
        elif event[_at(row)] == second:
            if waits[tasks[row]]:
                while j < other_where.shape[0] and other_where[j] - base < row:
                    j += 1
                found = other_value[j] if j < other_where.shape[0] and other_where[j] - base == row else 0
                seen += 1
                wrong += waiting[tasks[row]] != found
            waits[tasks[row]] = False
    return seen, wrong


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

    def add(self, block: Block, tasks: np.ndarray) -> None:
        """Look at a block of events, of whose rows ``tasks`` numbers the tasks."""
        if not tasks.size:
            return
        most = int(tasks.max()) + 1
        waits, waiting = np.empty(most, np.bool_), np.empty(most, np.int64)
        for event, column, other, other_column in _WITNESSES:
            seen, wrong = _compare(block.event, tasks, schema.CODE[event], schema.CODE[other], block.first,
                                   *block.sparse(column), *block.sparse(other_column), waits, waiting)
            self._count(event, column, seen, wrong)
        for event, column in _BOOLS:
            where, value = block.sparse(column)
            rows = where[value > 1] - block.first
            self._count(event, column, int(np.count_nonzero(block.event == schema.CODE[event])),
                        int(np.count_nonzero(block.event[rows] == schema.CODE[event])))

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
