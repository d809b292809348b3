# SPDX-License-Identifier: GPL-2.0-or-later
"""Columns that a probe read from the wrong place of a structure.

A probe names fields of a structure, and something (BTF, or an offset in the probe's definition) says where they are.
On a kernel that lays the structure out differently the probe reads wrong values throughout.  Other events of the same
operation hold the same value from a register: where they disagree with most of what was read, the column is not taken
as captured, and neither are the structure's other columns that no other event confirms.

A single value that differs comes from the kernel, or from a change to the recording, and stays for a
replay to find.
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
    """What ``event``'s ``column`` read is also in ``other_column`` of the task's next ``other`` event.

    ``before``: of its last one; ``loose``: the two need not belong together, so it may only speak for a column.  A
    witness that is itself read from a structure counts where others speak for it.
    """

    event: str
    column: str
    other: str
    other_column: str
    before: bool = False
    loose: bool = False


_WITNESSES: Final = (_Witness("zswap_decompress", "size", "zs_obj_read", "size"),
                     _Witness("zswap_decompress", "size", "crypto_acomp_decompress", "size"),
                     _Witness("zswap_decompress", "handle", "zs_obj_read", "handle"),
                     _Witness("zswap_decompress", "swpent", "zswap_load", "swpent", before=True, loose=True),
                     _Witness("zswap_entry_free", "size", "obj_cgroup_uncharge_zswap", "size"),
                     _Witness("zswap_entry_free", "handle", "zs_free", "handle"),
                     _Witness("zswap_entry_free", "swpent", "zswap_load", "swpent", before=True, loose=True),
                     _Witness("zswap_entry_free", "swpent", "zswap_invalidate", "swpent", before=True, loose=True),
                     _Witness("zswap_decompress", "handle", "zswap_entry_free", "handle", loose=True))
#: Columns whose values are bounded: (least, most).
_RANGES: Final = {("zswap_entry_free", "ref"): (0, 1), ("zswap_entry_free", "size"): (1, schema.PAGE_SIZE),
                  ("zswap_decompress", "size"): (1, schema.PAGE_SIZE)}
#: Columns in which ZSPAGE_MAGIC is at a known place: first bit of the magic, bits, value.
_MAGICS: Final = {("obj_malloc_ret", "word"): (14, 8, 0x58), ("fix_fullness_group", "word"): (14, 8, 0x58)}
#: structure -> event -> columns that a probe reads from it through a pointer
_STRUCTURES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "struct zswap_entry": {"zswap_decompress": ("swpent", "size", "handle"),
                           "zswap_entry_free": ("swpent", "size", "handle", "ref"),
                           "zswap_writeback_entry": ("swpent",)},
    "struct zspage": {"obj_malloc_ret": ("word", "inuse", "freeobj"), "fix_fullness_group": ("word", "inuse")}}
_FETCHED: Final = {(event, column) for columns_of in _STRUCTURES.values() for event, columns in columns_of.items()
                   for column in columns}
#: Share of wrong values (of those with a witness, or with bounds) that shows a column to be read from another place:
#: any byte may be a bool by chance, but a length hardly ever equals what another event says.
_MOSTLY: Final = 0.5
_SOME: Final = 0.1


class MisreadColumns:
    """Counts, block by block, how often columns agree with their witnesses, and how often they cannot be."""

    def __init__(self) -> None:
        #: per witness: [values that had it, values that are not its]
        self._witnessed = [[0, 0] for _ in _WITNESSES]
        #: (event, column) -> [values, values that cannot be]
        self._impossible: dict[tuple[str, str], list[int]] = {}

    def add(self, block: Block, tasks: np.ndarray) -> None:
        """Look at a block of events, of whose rows ``tasks`` numbers the tasks."""
        if not tasks.size:
            return
        most = int(tasks.max()) + 1
        waits, waiting = np.empty(most, np.bool_), np.empty(most, np.int64)
        for counts, (event, column, other, other_column, before, _) in zip(self._witnessed, _WITNESSES, strict=True):
            first, second = ((event, column), (other, other_column))[::-1 if before else 1]
            seen, wrong = _compare(block.event, tasks, schema.CODE[first[0]], schema.CODE[second[0]], block.first,
                                   *block.sparse(first[1]), *block.sparse(second[1]), waits, waiting)
            counts[0] += seen
            counts[1] += wrong
        for (event, column), (least, greatest) in _RANGES.items():
            value = self._values(block, event, column)
            # A length of 0 that was recorded is one that was not read.
            self._count(event, column, value, (value < least) | (value > greatest))
        for (event, column), (at, bits, magic) in _MAGICS.items():
            value = self._values(block, event, column)
            self._count(event, column, value, (value >> at & (1 << bits) - 1) != magic)

    @staticmethod
    def _values(block: Block, event: str, column: str) -> np.ndarray:
        values: np.ndarray = block.column(column)[block.event == schema.CODE[event]]
        return values

    def _count(self, event: str, column: str, values: np.ndarray, wrong: np.ndarray) -> None:
        counts = self._impossible.setdefault((event, column), [0, 0])
        counts[0] += values.size
        counts[1] += int(np.count_nonzero(wrong))

    def withdraw(self, captured: dict[str, list[str]]) -> list[str]:
        """Take columns that were read wrongly out of ``captured`` and return a note for each.

        When one column shows that a structure is laid out differently, its other columns are not trusted either, unless
        another event shows that they were read correctly.
        """
        there = {(event, column) for event, columns in captured.items() for column in columns}
        wrong: dict[tuple[str, str], tuple[int, int]] = {}
        right: set[tuple[str, str]] = set()
        for (seen, differ), witness in zip(self._witnessed, _WITNESSES, strict=True):
            # A witness whose own column was not read (6.12's zs_map_object() has no length) says nothing.
            other = (witness.other, witness.other_column)
            if not seen or other not in there or (other in _FETCHED and other not in right):
                continue
            if differ <= seen * _MOSTLY:
                right.add(witness[:2])
            elif not witness.loose:
                wrong.setdefault(witness[:2], (differ, seen))
        for name, (seen, impossible) in self._impossible.items():
            if impossible > seen * _SOME:
                wrong.setdefault(name, (impossible, seen))
        notes = []
        for (event, column), (differ, seen) in wrong.items():
            if (event, column) in there:
                notes.append(f"{event}'s {column} is not what its name says in {differ:,} of {seen:,} events: its "
                             f"probe read another place of the structure, the column is not compared")
        for structure, columns_of in _STRUCTURES.items():
            members = {(event, column) for event, columns in columns_of.items() for column in columns} & there
            misread = members & wrong.keys()
            unproven = members - wrong.keys() - right if misread else set()
            if unproven:
                shown = ", ".join(f"{event}'s {column}" for event, column in sorted(unproven))
                notes.append(f"{shown}: read from the same {structure}, and no other event shows that from the right "
                             f"place: not compared")
            for event, column in misread | unproven:
                captured[event] = [name for name in captured[event] if name != column]
        return notes
