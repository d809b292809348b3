# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel ring-buffer sub-buffers to columns, in one compiled pass.

Mirrors the layout written by kernel/trace/ring_buffer.c (Linux 6.12 to 7.3, ``struct buffer_data_page`` and
``struct ring_buffer_event``), as it is read from ``trace_pipe_raw``: every sub-buffer starts with a u64 time
stamp and a commit word, then come events of a 32-bit header (5 bits type_len, 27 bits time delta).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numba
import numpy as np

from traces import schema
from traces.importers.eventformat import HeaderPage
from traces.importers.probemap import ProbeTable

__all__ = ["Damage", "RingDecoder", "blank", "new_block"]

#: Flags above the length in the commit word (RB_MISSED_EVENTS and RB_MISSED_STORED).
_MISSED_EVENTS: Final = 1 << 31
_MISSED_STORED: Final = 1 << 30
_COMMIT_MASK: Final = (1 << 27) - 1

_COLUMN = {name: index for index, name in enumerate(schema.column_names())}
_TS, _CPU, _PID, _EVENT = _COLUMN["ts"], _COLUMN["cpu"], _COLUMN["pid"], _COLUMN["event"]
_RET, _CONTENT, _TEXT = _COLUMN["ret"], _COLUMN["content"], _COLUMN["text"]
_LOST = schema.CODE["lost_events"]

# State slots that live across calls for one CPU.
_S_TS, _S_ROWS, _S_DAMAGED, _S_FIRST_DAMAGE, _S_LOST, _S_LOST_UNKNOWN, _S_BASE, _S_EVENTS, _S_SHORT, _S_TEXTS, \
    _S_DISCARDED, _S_BACKWARDS = range(12)


@numba.njit(cache=True, nogil=True, inline="always")
def _le(buf, at, size):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for i in range(size):
        value |= np.uint64(buf[at + i]) << np.uint64(8 * i)
    return value


@numba.njit(cache=True, nogil=True, inline="always")
def _u32(buf, words, at):  # type: ignore[no-untyped-def]
    # Ring records are aligned to 4 bytes; only a format that no kernel writes asks for other places.
    if at & 3:
        return np.int64(_le(buf, at, 4))
    return np.int64(words[at >> 2])


@numba.njit(cache=True, nogil=True)
def _decode(buf, words, subbuf, data_at, commit_size, most, cpu,  # type: ignore[no-untyped-def]
            plan_of_id, code, need, first, move, pid_offset, counts, out, row, state, texts):
    """Decode whole sub-buffers of ``buf`` (and ``words``, the same as uint32) into ``out[:, row:]``, which is blank.

    Returns (bytes consumed, row).
    """
    capacity = out.shape[1]
    at = 0
    while at + subbuf <= buf.shape[0] and row + most <= capacity and state[_S_TEXTS] < texts.shape[0] - most:
        ts = np.int64(_le(buf, at, 8))
        commit = np.int64(_le(buf, at + 8, 4))
        length = commit & _COMMIT_MASK
        room = subbuf - data_at
        too_long = length > room
        if too_long:
            length = room
        if commit & _MISSED_EVENTS:
            missed = np.int64(-1)
            # The count follows the data when there was room for it.
            if commit & _MISSED_STORED and length + commit_size <= room:
                missed = np.int64(_le(buf, at + data_at + length, commit_size))
                if missed < 0:
                    missed = np.int64(-1)
            out[_TS, row] = ts
            out[_CPU, row] = cpu
            out[_EVENT, row] = _LOST
            out[_RET, row] = missed
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
            head = _u32(buf, words, pos)
            kind = head & 31
            delta = head >> 5
            if kind == 30 or kind == 31:
                if pos + 8 > end:
                    bad = True
                    break
                high = _u32(buf, words, pos + 4) << 27
                if kind == 30:
                    ts += delta + high
                else:
                    # An absolute stamp holds 59 bits; the rest is taken from the stamp before it.
                    ts = (high + delta) | (ts & ~np.int64((1 << 59) - 1))
                pos += 8
                continue
            if kind == 29:
                if delta == 0:
                    break  # padding to the end of the sub-buffer
                if pos + 8 > end:
                    bad = True
                    break
                size = _u32(buf, words, pos + 4)
                if size < 4 or pos + 4 + size > end:
                    bad = True
                    break
                ts += delta
                state[_S_DISCARDED] += 1
                pos += 4 + size
                continue
            ts += delta
            if kind == 0:
                if pos + 8 > end:
                    bad = True
                    break
                size = _u32(buf, words, pos + 4) - 4
                body = pos + 8
            else:
                size = kind * 4
                body = pos + 4
            if size < 2 or body + size > end:
                bad = True
                break
            number = np.int64(buf[body]) | np.int64(buf[body + 1]) << 8
            counts[number] += 1
            state[_S_EVENTS] += 1
            plan = plan_of_id[number]
            if plan >= 0:
                if size < need[plan]:
                    state[_S_SHORT] += 1
                    if state[_S_FIRST_DAMAGE] < 0:
                        state[_S_FIRST_DAMAGE] = state[_S_BASE] + pos
                else:
                    if ts < state[_S_TS]:
                        state[_S_BACKWARDS] += 1
                    state[_S_TS] = ts
                    out[_TS, row] = ts
                    out[_CPU, row] = cpu
                    out[_PID, row] = np.int32(_u32(buf, words, body + pid_offset[plan]))
                    out[_EVENT, row] = code[plan]
                    for m in range(first[plan], first[plan + 1]):
                        how = move[m, 0]
                        where = body + move[m, 2]
                        if how == 3:
                            slot = state[_S_TEXTS]
                            texts[slot, 0] = row
                            texts[slot, 1] = where
                            texts[slot, 2] = body + size
                            state[_S_TEXTS] = slot + 1
                            continue
                        width = move[m, 3]
                        if width == 8:
                            value = _u32(buf, words, where) | _u32(buf, words, where + 4) << 32
                        elif width == 4:
                            value = _u32(buf, words, where)
                            if move[m, 4] and value >= 1 << 31:
                                value -= 1 << 32
                        elif width == 1:
                            value = np.int64(buf[where])
                            if move[m, 4] and value >= 128:
                                value -= 256
                        else:
                            value = np.int64(_le(buf, where, 2))
                            if move[m, 4] and value >= 1 << 15:
                                value -= 1 << 16
                        if how == 1:
                            value &= ~np.int64(3)
                        elif how == 2:
                            if (value >> 6) & 1:
                                value = np.int64(buf[body + move[m, 5]])
                            else:
                                value = np.int64(0)
                        out[move[m, 1], row] = value
                    row += 1
            # Records are padded to 4 bytes.
            pos = body + ((size + 3) & ~np.int64(3))
        if bad or too_long:
            state[_S_DAMAGED] += 1
            if state[_S_FIRST_DAMAGE] < 0:
                state[_S_FIRST_DAMAGE] = state[_S_BASE] + (at if too_long else pos)
        at += subbuf
    return at, row


@dataclass
class Damage:
    """What could not be read of one CPU's ring, kept in the recording's manifest.

    ``subbuffers``: half-written or corrupt ones (read up to the defect); ``short_records``: records shorter
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


class RingDecoder:
    """Decoder of one CPU's stream of sub-buffers; keeps its place between :meth:`feed` calls.

    :param table: the event types of the boot
    :param header: the sub-buffer layout
    :param cpu: CPU number written into the rows
    """

    def __init__(self, table: ProbeTable, header: HeaderPage, cpu: int) -> None:
        self.table, self.header, self.cpu = table, header, cpu
        self._counts = np.zeros(1 << 16, np.int64)
        self._state = np.zeros(12, np.int64)
        self._state[_S_FIRST_DAMAGE] = -1
        #: Rows that a block must have free for one more sub-buffer: a record takes at least 4 bytes; two rows more
        #: for lost events.
        self.most_rows = (header.size - header.data_offset) // 4 + 2
        self._texts = np.zeros((header.size // 2 + 4096, 3), np.int64)

    def feed_spans(self, buf: np.ndarray, out: np.ndarray, row: int) -> tuple[int, int, list[tuple[int, int]]]:
        """As :meth:`feed`, but give where in ``buf`` the TEXT fields begin instead of their text."""
        used, row = self._run(buf, out, row)
        texts = self._texts[:int(self._state[_S_TEXTS])]
        return used, row, [(int(at), int(start)) for at, start, _ in texts]

    def _run(self, buf: np.ndarray, out: np.ndarray, row: int) -> tuple[int, int]:
        t = self.table
        self._state[_S_TEXTS] = 0
        if buf.ctypes.data & 3:
            buf = buf.copy()
        words = buf[:buf.size & ~3].view(np.uint32)
        used, row = _decode(buf, words, self.header.size, self.header.data_offset, self.header.commit_size,
                            self.most_rows, self.cpu,
                            t.plan_of_id, t.code, t.need, t.first, t.move, t.pid_offset, self._counts, out, row,
                            self._state, self._texts)
        self._state[_S_BASE] += used
        return int(used), int(row)

    def feed(self, buf: np.ndarray, out: np.ndarray, row: int) -> tuple[int, int, list[tuple[int, str]]]:
        """Decode whole sub-buffers from ``buf`` (uint8) into ``out`` (a blank block) from ``row`` on.

        Stops where ``out`` might not hold one more sub-buffer.  Returns (bytes consumed, next row, the texts
        of marker rows as (row, text)).
        """
        used, row = self._run(buf, out, row)
        texts = []
        for slot in range(int(self._state[_S_TEXTS])):
            at, start, end = (int(v) for v in self._texts[slot])
            raw = bytes(buf[start:end]).split(b"\0", 1)[0]
            texts.append((at, raw.decode("utf-8", "replace").rstrip("\n")))
        return used, row, texts

    @property
    def events(self) -> int:
        """How many events were walked over, in and outside the vocabulary."""
        return int(self._state[_S_EVENTS])

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

    def warm_up(self) -> None:
        """Compile the decoder now (an empty input), so that progress and timings show decoding only."""
        self.feed(np.zeros(0, np.uint8), new_block(1), 0)


def new_block(rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a blank block of ``rows`` rows of all columns (int64, columns x rows)."""
    block = np.zeros((len(schema.COLUMNS), rows), np.int64)
    block[_CONTENT] = -1
    return block


def blank(block: np.ndarray) -> None:
    """Make a block fit to be decoded into again."""
    block.fill(0)
    block[_CONTENT] = -1
