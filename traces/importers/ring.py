# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel ring-buffer sub-buffers to columns, in one compiled pass that writes down only what an event has.

Mirrors the layout written by kernel/trace/ring_buffer.c (Linux 6.12 to 7.3, ``struct buffer_data_page`` and
``struct ring_buffer_event``), as it is read from ``trace_pipe_raw``: every sub-buffer starts with a u64 time
stamp and a commit word, then come events of a 32-bit header (5 bits type_len, 27 bits time delta).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from traces import schema
from traces.block import SPARSE, Block, sparse_index
from traces.compiled import at as _at
from traces.compiled import compiled
from traces.importers.eventformat import HeaderPage
from traces.importers.probemap import COPY, MASK_LINK, ORDER, TEXT, TEXT_AT, ProbeTable

__all__ = ["Damage", "RingDecoder", "Room"]

#: Flags above the length in the commit word (RB_MISSED_EVENTS and RB_MISSED_STORED).
_MISSED_EVENTS: Final = 1 << 31
_MISSED_STORED: Final = 1 << 30
_COMMIT_MASK: Final = (1 << 27) - 1

_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_RET = sparse_index("ret")
_FIRST_SPARSE = schema.column_names().index(SPARSE[0])
_LOST = schema.CODE["lost_events"]
#: How a field is read: two words, (a part of) one word, byte by byte.  What is made of it is added.
_WORDS, _WORD, _BYTES = range(3)
_LINK, _ORDER, _TEXT, _TEXT_AT = 4, 8, 15, 19

# State slots that live across calls for one CPU.
_S_TS, _S_DAMAGED, _S_FIRST_DAMAGE, _S_LOST, _S_LOST_UNKNOWN, _S_BASE, _S_SHORT, _S_TEXTS, _S_DISCARDED, \
    _S_BACKWARDS = range(10)


# Passing an array costs two locked instructions, so the decoder's own loop reads words itself and calls these only off
# its usual path: ring records are aligned to 4 bytes, and only damage, or a format that no kernel writes, needs other
# places.
@compiled
def _le(buf, at, size):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for i in range(size):
        value |= np.uint64(buf[at + i]) << np.uint64(8 * i)
    return np.int64(value)


@compiled
def _by_bytes(buf, where, width, signed):  # type: ignore[no-untyped-def]
    """A field of any place and any of the widths 1, 2, 4 and 8."""
    value = _le(buf, where, width)
    if signed and width < 8 and value >> (8 * width - 1):
        value -= np.int64(1) << (8 * width)
    return value


@compiled
def _decode(buf, words, subbuf, data_at, commit_size, most,  # type: ignore[no-untyped-def]
            plan_of_id, code, need, first, step, pid_offset, counts,
            stamps, pids, events, where, value, fill, row, state, texts):
    """Decode whole sub-buffers of ``buf`` (and ``words``, the same as uint32) into a :class:`Room` from ``row`` on.

    Returns (bytes consumed, row).
    """
    capacity = stamps.shape[0]
    at = 0
    newest = state[_S_TS]
    while at + subbuf <= buf.shape[0] and row + most <= capacity and state[_S_TEXTS] < texts.shape[0] - most:
        ts = _le(buf, at, 8)
        commit = _le(buf, at + 8, 4)
        length = commit & _COMMIT_MASK
        room = subbuf - data_at
        too_long = length > room
        # The kernel never hands out an empty sub-buffer: its bytes were never written, or are gone.
        empty = length == 0 and not commit & _MISSED_EVENTS
        if too_long:
            length = room
        if commit & _MISSED_EVENTS:
            missed = np.int64(-1)
            # The count follows the data when there was room for it.
            if commit & _MISSED_STORED and length + commit_size <= room:
                missed = _le(buf, at + data_at + length, commit_size)
                if missed < 0:
                    missed = np.int64(-1)
            stamps[row] = ts
            pids[row] = 0
            events[row] = _LOST
            if missed:
                where[fill[_RET]] = row
                value[fill[_RET]] = missed
                fill[_RET] += 1
            row += 1
            if missed < 0:
                state[_S_LOST_UNKNOWN] += 1
            else:
                state[_S_LOST] += missed
        pos = at + data_at
        end = pos + length
        bad = False
        while pos < end:
            if pos + 4 > end:
                bad = True
                break
            straight = pos & 3 == 0
            head = np.int64(words[_at(pos >> 2)]) if straight else _le(buf, pos, 4)
            kind = head & 31
            delta = head >> 5
            if kind == 0 or kind > 28:
                # All of these have a second word.  Padding to the end of the sub-buffer needs none.
                if kind == 29 and delta == 0:
                    break
                if pos + 8 > end:
                    bad = True
                    break
                second = np.int64(words[_at((pos >> 2) + 1)]) if straight else _le(buf, pos + 4, 4)
                if kind == 30:
                    ts += delta + (second << 27)
                    pos += 8
                    continue
                if kind == 31:
                    # An absolute stamp holds 59 bits; the rest is taken from the stamp before it.
                    ts = ((second << 27) + delta) | (ts & ~np.int64((1 << 59) - 1))
                    pos += 8
                    continue
                if kind == 29:
                    if second < 4 or pos + 4 + second > end:
                        bad = True
                        break
                    ts += delta
                    state[_S_DISCARDED] += 1
                    pos += 4 + second
                    continue
                ts += delta
                size = second - 4
                body = pos + 8
            else:
                ts += delta
                size = kind * 4
                body = pos + 4
            if size < 2 or body + size > end:
                bad = True
                break
            number = np.int64(buf[_at(body)]) | np.int64(buf[_at(body + 1)]) << 8
            counts[_at(number)] += 1
            plan = plan_of_id[_at(number)]
            if plan >= 0:
                if size < need[_at(plan)]:
                    state[_S_SHORT] += 1
                    if state[_S_FIRST_DAMAGE] < 0:
                        state[_S_FIRST_DAMAGE] = state[_S_BASE] + pos
                else:
                    if ts < newest:
                        state[_S_BACKWARDS] += 1
                    newest = ts
                    stamps[_at(row)] = ts
                    place = body + pid_offset[_at(plan)]
                    if place & 3:
                        pids[_at(row)] = np.int32(_le(buf, place, 4))
                    else:
                        pids[_at(row)] = np.int32(words[_at(place >> 2)])
                    events[_at(row)] = code[_at(plan)]
                    for m in range(8 * first[plan], 8 * first[plan + 1], 8):
                        how = step[_at(m)]
                        place = body + step[_at(m + 2)]
                        if straight and how & 3 == _WORDS:
                            v = np.int64(words[_at(place >> 2)]) | np.int64(words[_at((place >> 2) + 1)]) << 32
                        elif straight and how & 3 == _WORD:
                            # The field's bits go to the top of 64 and come back with zeros or their sign.
                            v = np.int64(words[_at(place >> 2)]) << step[_at(m + 3)]
                            if step[_at(m + 5)]:
                                v >>= step[_at(m + 4)]
                            else:
                                v = np.int64(np.uint64(v) >> np.uint64(step[_at(m + 4)]))
                        elif how < _TEXT:
                            v = _by_bytes(buf, place, step[_at(m + 7)], step[_at(m + 5)])
                        else:
                            slot = state[_S_TEXTS]
                            texts[slot, 0] = row
                            texts[slot, 1] = place
                            texts[slot, 2] = body + size
                            if how == _TEXT_AT:
                                v = _le(buf, place, 4)
                                place = min(body + (v & 0xFFFF), body + size)
                                texts[slot, 1] = place
                                texts[slot, 2] = min(place + (v >> 16), body + size)
                            state[_S_TEXTS] = slot + 1
                            continue
                        if how >= _LINK:
                            if how < _ORDER:
                                v &= ~np.int64(3)
                            elif (v >> 6) & 1:
                                v = np.int64(buf[_at(body + step[_at(m + 6)])])
                            else:
                                v = np.int64(0)
                        column = _at(step[_at(m + 1)])
                        slot = fill[column]
                        where[_at(slot)] = row
                        value[_at(slot)] = v
                        # One that is empty is written over by the next.
                        fill[column] = slot + (v != 0)
                    row += 1
            # Records are padded to 4 bytes.
            pos = body + ((size + 3) & ~np.int64(3))
        if bad or too_long or empty:
            state[_S_DAMAGED] += 1
            if state[_S_FIRST_DAMAGE] < 0:
                state[_S_FIRST_DAMAGE] = state[_S_BASE] + (pos if bad and not too_long else at)
        at += subbuf
    state[_S_TS] = newest
    return at, row


def _steps(move: np.ndarray) -> np.ndarray:
    """Return how the decoder reads each move's field.

    Columns: what to do (one of _WORDS, _WORD and _BYTES, plus _LINK or _ORDER; or _TEXT), place in the sparse columns,
    offset, bits to the left and back, signed, second offset, size.
    """
    out = np.zeros((move.shape[0], 8), np.int64)
    for number, (how, column, offset, size, signed, second) in enumerate(move.tolist()):
        if how in (TEXT, TEXT_AT):
            out[number] = _TEXT if how == TEXT else _TEXT_AT, 0, offset, 0, 0, 0, 0, 0
            continue
        if size == 8:
            read = _WORDS if offset & 3 == 0 else _BYTES
        else:
            read = _WORD if (offset & 3) + size <= 4 else _BYTES
        bits = 8 * size
        out[number] = (read + {COPY: 0, MASK_LINK: _LINK, ORDER: _ORDER}[how], column - _FIRST_SPARSE, offset,
                       64 - 8 * (offset & 3) - bits, 64 - bits, signed, second, size)
    return out


@dataclass
class Damage:
    """What could not be read of one CPU's ring, kept in the recording's manifest.

    ``subbuffers``: half-written, empty or corrupt ones (read up to the defect); ``short_records``: records shorter
    than their format; ``first_offset``: byte offset of the first defect or -1; ``lost``: events the kernel
    counted as lost; ``lost_unknown``: losses without a count; ``tail_bytes``: bytes after the last whole
    sub-buffer; ``backwards``: events stamped earlier than the one before; ``unknown``: events by type id
    that no format describes; ``ignored``: events by name outside the vocabulary; ``discarded``: records the
    kernel itself dropped (filters).
    """

    subbuffers: int = 0
    short_records: int = 0
    first_offset: int = -1
    lost: int = 0
    lost_unknown: int = 0
    tail_bytes: int = 0
    backwards: int = 0
    discarded: int = 0
    unknown: dict[int, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    #: events walked over, in and outside the vocabulary
    events: int = field(default=0, compare=False)


class Room:
    """Memory that rows are decoded into; what it holds is read as a :class:`~traces.block.Block`.

    :param rows: how many it has room for
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.ts, self.pid, self.event = np.empty(rows, np.int64), np.empty(rows, np.int32), np.empty(rows, np.uint8)
        # Only the beginning of each column is ever touched, and untouched pages take no memory: NumPy would ask for
        # huge pages, and every column would touch one.
        self.where = np.frombuffer(mmap.mmap(-1, 4 * rows * len(SPARSE), _PRIVATE), np.int32)
        self.value = np.frombuffer(mmap.mmap(-1, 8 * rows * len(SPARSE), _PRIVATE), np.int64)
        #: where each column's next entry goes
        self.fill = rows * np.arange(len(SPARSE))

    def clear(self) -> None:
        """Forget all rows."""
        self.fill[:] = self.rows * np.arange(len(SPARSE))

    def block(self, rows: int, cpu: int, texts: list[tuple[int, str]]) -> Block:
        """Return the first ``rows`` rows, all of one CPU; they are this object's memory."""
        spans = [slice(column * self.rows, end) for column, end in enumerate(self.fill.tolist())]
        return Block(self.ts[:rows], np.full(rows, cpu, np.uint16), self.pid[:rows], self.event[:rows],
                     [self.where[span] for span in spans], [self.value[span] for span in spans], texts)


class RingDecoder:
    """Decoder of one CPU's stream of sub-buffers; keeps its place between :meth:`feed` calls.

    :param table: the event types of the boot
    :param header: the sub-buffer layout
    """

    def __init__(self, table: ProbeTable, header: HeaderPage) -> None:
        self.table, self.header = table, header
        self._counts = np.zeros(1 << 16, np.int64)
        self._state = np.zeros(10, np.int64)
        self._state[_S_FIRST_DAMAGE] = -1
        self._step = _steps(table.move).reshape(-1)
        #: Rows that a room must have free for one more sub-buffer: a record takes at least 4 bytes; two rows more
        #: for lost events.
        self.most_rows = (header.size - header.data_offset) // 4 + 2
        self._texts = np.zeros((header.size // 2 + 4096, 3), np.int64)

    def feed_spans(self, buf: np.ndarray, room: Room, row: int) -> tuple[int, int, list[tuple[int, int]]]:
        """As :meth:`feed`, but give where in ``buf`` the TEXT fields begin instead of their text."""
        used, row = self._run(buf, room, row)
        texts = self._texts[:int(self._state[_S_TEXTS])]
        return used, row, [(int(at), int(start)) for at, start, _ in texts]

    def _run(self, buf: np.ndarray, room: Room, row: int) -> tuple[int, int]:
        t = self.table
        self._state[_S_TEXTS] = 0
        if buf.ctypes.data & 3:
            buf = buf.copy()
        words = buf[:buf.size & ~3].view(np.uint32)
        used, row = _decode(buf, words, self.header.size, self.header.data_offset, self.header.commit_size,
                            self.most_rows, t.plan_of_id, t.code, t.need, t.first, self._step, t.pid_offset,
                            self._counts, room.ts, room.pid, room.event, room.where, room.value, room.fill, row,
                            self._state, self._texts)
        self._state[_S_BASE] += used
        return int(used), int(row)

    def feed(self, buf: np.ndarray, room: Room, row: int) -> tuple[int, int, list[tuple[int, str]]]:
        """Decode whole sub-buffers from ``buf`` (uint8) into ``room`` from ``row`` on.

        Stops where there might be no room for one more sub-buffer.  Returns (bytes consumed, next row, the texts
        as (row, text): of markers, and of what is written to settings).
        """
        used, row = self._run(buf, room, row)
        texts: list[tuple[int, str]] = []
        for slot in range(int(self._state[_S_TEXTS])):
            at, start, end = (int(v) for v in self._texts[slot])
            text = bytes(buf[start:end]).split(b"\0", 1)[0].decode("utf-8", "replace").rstrip("\n")
            if texts and texts[-1][0] == at:
                texts[-1] = (at, f"{texts[-1][1]}={text}")
            else:
                texts.append((at, text))
        return used, row, texts

    @property
    def events(self) -> int:
        """How many events were walked over, in and outside the vocabulary."""
        return int(self._counts.sum())

    def damage(self, tail_bytes: int = 0) -> Damage:
        """Return what was lost or unreadable so far; ``tail_bytes``: input after the last whole sub-buffer."""
        s = self._state
        unknown: dict[int, int] = {}
        ignored: dict[str, int] = {}
        for number in np.flatnonzero(self._counts):
            if self.table.plan_of_id[number] < 0:
                name = self.table.ignored.get(int(number))
                if name is None:
                    unknown[int(number)] = int(self._counts[number])
                else:
                    ignored[name] = int(self._counts[number])
        return Damage(int(s[_S_DAMAGED]), int(s[_S_SHORT]), int(s[_S_FIRST_DAMAGE]), int(s[_S_LOST]),
                      int(s[_S_LOST_UNKNOWN]), tail_bytes, int(s[_S_BACKWARDS]), int(s[_S_DISCARDED]), unknown,
                      ignored, self.events)
