# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-buffer sub-buffers written by the recorder: records of a BPF ring, put in order, as the kernel would have.

Mirrors the layout of kernel/trace/ring_buffer.c (Linux 6.12 to 7.3, ``struct buffer_data_page`` and
``struct ring_buffer_event``), so that what reads ``trace_pipe_raw`` reads these too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from .subbuf import DATA, MISSED_EVENTS, MISSED_STORED, TIME_EXTEND, events_of

__all__ = ["SUBBUF", "Sorter", "SubbufferWriter", "events_in"]

#: Bytes of a sub-buffer of events.
SUBBUF = 4096
_MOST_WORDS = 28
_DELTA = 1 << 27
#: Counts of missing records are of 32 bits.
_WRAP = 1 << 32


class SubbufferWriter:
    """Packs one CPU's events into sub-buffers.

    :param put: called with each sub-buffer
    :param size: bytes of a sub-buffer
    """

    def __init__(self, put: Callable[[bytes], None], size: int = SUBBUF) -> None:
        self._put = put
        self._size = size
        self._parts: list[bytes] = []
        self._filled = 0
        self._start = self._last = 0
        self._missed = 0

    def event(self, ts: int, body: bytes) -> None:
        """Append an event.

        :param ts: its time, ns; one before the last event's counts as that
        :param body: from ``common_type`` on, a multiple of 4 bytes
        :raises ValueError: when no sub-buffer could hold it
        """
        if len(body) % 4 or len(body) < 8 or len(body) + 16 > self._size - DATA:
            raise ValueError(f"an event of {len(body)} bytes fits no sub-buffer of {self._size}")
        ts = max(ts, self._last)
        long = len(body) > 4 * _MOST_WORDS
        need = len(body) + (8 if long else 4) + (8 if ts - self._last >= _DELTA else 0)
        if self._parts and self._filled + need > self._size - DATA:
            self.flush()
        if not self._parts:
            self._start = self._last = ts
        delta = ts - self._last
        if delta >= _DELTA:
            self._add(struct.pack("<II", delta % _DELTA << 5 | TIME_EXTEND, delta >> 27))
            delta = 0
        if long:
            self._add(struct.pack("<II", delta << 5, len(body) + 4) + body)
        else:
            self._add(struct.pack("<I", delta << 5 | len(body) // 4) + body)
        self._last = ts

    def lost(self, ts: int, count: int) -> None:
        """Say that ``count`` events are missing between what was written before and what comes next.

        :param ts: about when, ns
        """
        self.flush()
        self._start = self._last = max(ts, self._last)
        self._missed = count
        # A sub-buffer of its own: nothing may follow for long.
        self._write()

    def flush(self) -> None:
        """Hand over what is in the last sub-buffer."""
        if self._parts:
            self._write()

    def _add(self, part: bytes) -> None:
        self._parts.append(part)
        self._filled += len(part)

    def _write(self) -> None:
        commit, tail = self._filled, b""
        if self._missed:
            commit |= MISSED_EVENTS | MISSED_STORED
            tail = struct.pack("<Q", self._missed)
        data = struct.pack("<QQ", self._start, commit) + b"".join(self._parts) + tail
        self._parts, self._filled, self._missed = [], 0, 0
        self._put(data.ljust(self._size, b"\0"))


class Sorter:
    """Sorts the records of all CPUs by time and hands each on when no earlier one can follow.

    A record's time is taken between its reservation and its commit, and records leave a BPF ring in the order of
    their reservations.  A record that has not arrived was reserved after the last one that did, so after that one's
    handler began: no record with a time before the latest such beginning can follow.

    :param put: called with a CPU's number and each of its sub-buffers
    """

    def __init__(self, put: Callable[[int, bytes], None]) -> None:
        self._put = put
        self._writers: dict[int, SubbufferWriter] = {}
        #: (time, order of arrival, CPU, body, how many of the CPU's records are missing before it, ever)
        self._waiting: list[tuple[int, int, int, bytes, int]] = []
        self._arrived = 0
        self._missing: dict[int, int] = {}
        self._latest = 0
        self._bound = 0
        #: Every record before this time (ns) has been handed on.
        self.complete = 0

    def add(self, begun: int, ts: int, cpu: int, missing: int, body: bytes) -> None:
        """Take a record of the BPF ring, in the order of the ring; times in ns.

        :param missing: how many records of the CPU had no room before this one, since the beginning, modulo 2^32
        """
        self._latest = max(self._latest, begun)
        self._wait(ts, cpu, body, missing)

    def aside(self, ts: int, cpu: int, body: bytes) -> None:
        """Take an event from another source, at most one round late."""
        self._wait(ts, cpu, body, -1)

    def _wait(self, ts: int, cpu: int, body: bytes, missing: int) -> None:
        self._waiting.append((ts, self._arrived, cpu, body, missing))
        self._arrived += 1

    def release(self, everything: bool = False) -> int:
        """Hand on what is complete since the round before, or everything; returns how many records.

        The bound is that of the round before: by now the events from other sources have arrived too.
        """
        self._waiting.sort(key=lambda row: row[:2])
        number = len(self._waiting)
        if not everything:
            number = next((at for at, row in enumerate(self._waiting) if row[0] > self._bound), number)
        for ts, _, cpu, body, missing in self._waiting[:number]:
            writer = self._writer(cpu)
            if missing >= 0:
                self._mark(writer, cpu, ts, missing)
            writer.event(ts, body)
        del self._waiting[:number]
        for writer in self._writers.values():
            writer.flush()
        self.complete, self._bound = self._bound, self._latest
        return number

    def end(self, missing: Sequence[int]) -> None:
        """Report the records without room after the last one with room; ``missing`` is the sum of each CPU."""
        for cpu, count in enumerate(missing):
            if count:
                self._mark(self._writer(cpu), cpu, self._latest, count % _WRAP)

    def _writer(self, cpu: int) -> SubbufferWriter:
        if cpu not in self._writers:
            self._writers[cpu] = SubbufferWriter(lambda data: self._put(cpu, data))
        return self._writers[cpu]

    def _mark(self, writer: SubbufferWriter, cpu: int, ts: int, missing: int) -> None:
        count = (missing - self._missing.get(cpu, 0)) % _WRAP
        # An interrupt's record may be ahead of the one it interrupted, which then has the smaller count.
        if 0 < count < _WRAP // 2:
            writer.lost(ts, count)
            self._missing[cpu] = missing


def events_in(data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (time in ns, body) of the events in whole sub-buffers of ``size`` bytes, as read from trace_pipe_raw."""
    for start in range(0, len(data) - size + 1, size):
        for ts, body, length in events_of(data, start, size):
            yield ts, data[body:body + length]
