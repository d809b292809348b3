# SPDX-License-Identifier: GPL-2.0-or-later
"""Which foreign probe event is which event of the vocabulary, and which of its fields fill which columns.

The table of events (:mod:`traces.events`) has the names that zreplay's probes, and scripts like it, give their
dynamic events (``dynamic_events`` in tracefs ties them to kernel functions).  Events that bear
the function's name are known too (:func:`known_probe`), as the vocabulary of traces/FORMAT.md writes it
(``zswap_store``, ``zswap_store_ret``), and as 'perf probe' (``zswap_store__return``), the kernel's fprobes
(``zswap_store__entry``, ``zswap_store__exit``) and its unnamed kprobes (``p_zswap_store_0``, ``r_zswap_store_0``) do.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from traces import schema
from traces.events import EVENTS, Event, Field
from traces.importers.eventformat import EventFormat

__all__ = ["COPY", "MASK_LINK", "ORDER", "TEXT", "TEXT_AT", "Move", "ProbeTable", "apply_moves", "known_probe",
           "moves_for", "probe_names", "source_fields", "vocabulary_name"]

#: How a field becomes a column value.
COPY: Final = 0  #: as it is
MASK_LINK: Final = 1  #: scatterlist.page_link: the low two bits are flags (include/linux/scatterlist.h)
ORDER: Final = 2  #: folio order: second field's low byte if PG_head (bit 6 of flags) is set, else 0
TEXT: Final = 3  #: NUL-terminated text to the end of the record
TEXT_AT: Final = 4  #: the same where the field's low half says (__data_loc), of the length in its high half

_PG_HEAD = 6

#: probe event -> event
_MAP: Final[dict[str, Event]] = {probe: event for event in EVENTS for probe in (event.probe, *event.also) if probe}


@dataclass(frozen=True)
class Move:
    """One field to one column: ``how`` is COPY, MASK_LINK, ORDER or TEXT; texts of one column are joined by "="."""

    column: str
    how: int
    field: str
    second: str = ""


#: vocabulary event -> the first row of it
_OF_NAME: Final[dict[str, str]] = {}
for _probe, _event in _MAP.items():
    if "note" not in _event.roles:
        _OF_NAME.setdefault(_event.name, _probe)
#: suffixes that mark an event as a function's entry or its return; the kernel makes these names itself
_ENTRY: Final = re.compile(r"(.+)__entry|p_(.+)_0")
_RETURN: Final = re.compile(r"(.+)__(?:return|exit)|r_(.+)_0")


def known_probe(event: str, fields: Collection[str] = ()) -> str:
    """Return the row's name of an event that bears its function's name; any other name as it is.

    :param fields: what the event has, where that is known: a return with the bare name is recognised by its ``ret``
    """
    if event in _MAP:
        return event
    if found := _ENTRY.fullmatch(event):
        name = found[1] or found[2]
    elif found := _RETURN.fullmatch(event):
        name = (found[1] or found[2]) + "_ret"
    else:
        name = event
        plain = _MAP.get(_OF_NAME.get(name, ""))
        if "ret" in fields and name + "_ret" in _OF_NAME and (plain is None or "ret" not in plain.columns):
            name += "_ret"
    return _OF_NAME.get(name, event)


def vocabulary_name(probe: str, fields: Collection[str] = ()) -> str | None:
    """Return the vocabulary's name of a probe event, or None when the vocabulary has no such event."""
    event = _MAP.get(known_probe(probe, fields))
    return event.name if event else None


def probe_names() -> dict[str, str]:
    """Return probe event -> vocabulary event for every event that a probe can cause."""
    return {probe: event.name for probe, event in _MAP.items() if "note" not in event.roles}


def source_fields(probe: str) -> list[tuple[str, str]]:
    """Return (field, column) of a probe event's fields in order; a folio's flags word is column ``flags``."""
    event = _MAP[probe]
    columns = [field.column for field in event.fields]
    return [(field.sources[0], "flags" if field.column == "order" and "order" in columns[number + 1:] else field.column)
            for number, field in enumerate(event.fields) if field.column]


def moves_for(probe: str, available: set[str]) -> list[Move]:
    """Return the moves for a probe event whose records have the ``available`` fields.

    A field the probe did not capture leaves its column absent; the manifest lists what was captured.
    """
    moves: list[Move] = []
    fields: dict[str, list[Field]] = {}
    for field in _MAP[known_probe(probe, available)].fields:
        fields.setdefault(field.column, []).append(field)
    fields.pop("", None)
    for column, made_of in fields.items():
        # The first of each field's names that the event has.
        names = [next((name for name in field.sources if name in available), "") for field in made_of]
        if not all(names):
            # Half of "name=value" is not a text, and flags without the second word give no order.
            continue
        if column == "text":
            moves += [Move(column, TEXT, name) for name in names]
        elif len(names) == 2:
            moves.append(Move(column, ORDER, *names))
        else:
            moves.append(Move(column, MASK_LINK if names[0] == "pglink" else COPY, names[0]))
    return moves


def apply_moves(moves: list[Move], fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Apply moves to whole arrays of parsed field values (text importers); TEXT moves are left out."""
    out: dict[str, np.ndarray] = {}
    for move in moves:
        if move.how == TEXT:
            continue
        values = fields[move.field].astype(np.int64)
        if move.how == MASK_LINK:
            values = values & ~np.int64(3)
        elif move.how == ORDER:
            head = (values >> _PG_HEAD) & 1
            values = np.where(head == 1, fields[move.second].astype(np.int64) & 0xFF, 0)
        out[move.column] = values
    return out


@dataclass
class ProbeTable:
    """The moves of all event types of one ring, as arrays that the decoder's inner loop can use.

    ``plan_of_id[id]`` is the event type's plan or -1; plan p has the moves ``first[p]:first[p + 1]`` and the
    vocabulary code ``code[p]``; a record of it needs at least ``need[p]`` bytes.
    """

    plan_of_id: np.ndarray
    code: np.ndarray
    need: np.ndarray
    first: np.ndarray
    move: np.ndarray  #: rows of (how, column, offset, size, signed, second offset)
    pid_offset: np.ndarray
    names: list[str]
    captured: dict[str, list[str]]
    ignored: dict[int, str]

    @classmethod
    def build(cls, formats: list[EventFormat]) -> ProbeTable:
        """Make the table for the event types of one boot; types outside the vocabulary are only counted."""
        columns = {name: index for index, name in enumerate(schema.column_names())}
        plan_of_id = np.full(1 << 16, -1, np.int32)
        code: list[int] = []
        need: list[int] = []
        first = [0]
        move: list[tuple[int, int, int, int, int, int]] = []
        pid_offset: list[int] = []
        names: list[str] = []
        captured: dict[str, list[str]] = {}
        ignored: dict[int, str] = {}
        for fmt in formats:
            name = vocabulary_name(fmt.name, fmt.fields)
            if name is None:
                ignored[fmt.id] = fmt.name
                continue
            end = max(8, fmt.fields["common_pid"].offset + 4)
            kept = []
            for step in moves_for(fmt.name, {f.name for f in fmt.fields.values()}):
                field = fmt.fields[step.field]
                second = fmt.fields[step.second].offset if step.second else 0
                how = TEXT_AT if step.how == TEXT and field.is_elsewhere else step.how
                if (how != TEXT and field.size not in (1, 2, 4, 8)) or (how == TEXT_AT and field.size != 4):
                    continue
                move.append((how, columns[step.column], field.offset, field.size, int(field.signed), second))
                end = max(end, field.offset + (0 if how == TEXT else field.size), second + 1)
                kept.append(step.column)
            plan_of_id[fmt.id] = len(code)
            code.append(schema.CODE[name])
            need.append(end)
            first.append(len(move))
            pid_offset.append(fmt.fields["common_pid"].offset)
            names.append(name)
            captured[name] = list(dict.fromkeys(kept))
        return cls(plan_of_id, np.array(code, np.int64), np.array(need, np.int64), np.array(first, np.int64),
                   np.array(move, np.int64).reshape(-1, 6), np.array(pid_offset, np.int64), names, captured,
                   ignored)
