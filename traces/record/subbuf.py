# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-buffer sub-buffers as trace_pipe_raw gives them: their layout, and a walk over their events.

Mirrors kernel/trace/ring_buffer.c (Linux 6.12 to 7.3, ``struct buffer_data_page``, ``struct ring_buffer_event``,
rb_update_event()).  The importer has a compiled walk of its own, which says what is damaged; this one is for the box.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["COMMIT", "DATA", "MISSED_EVENTS", "MISSED_STORED", "PADDING", "TIME_EXTEND", "TIME_STAMP",
           "events_of", "missed"]

#: Bytes before the first event: time stamp and commit.
DATA = 16
#: Bits of commit: its length, RB_MISSED_EVENTS, RB_MISSED_STORED.
COMMIT, MISSED_EVENTS, MISSED_STORED = (1 << 27) - 1, 1 << 31, 1 << 30
#: Values of type_len (enum ring_buffer_type) that are no event's length in words.
PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31


def missed(data: bytes, start: int) -> bool:
    """Return whether events are missing before the sub-buffer at ``start``."""
    commit, = struct.unpack_from("<Q", data, start + 8)
    return bool(commit & MISSED_EVENTS)


def events_of(data: bytes, start: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (time in ns, offset of the body in ``data``, its length in bytes) of a sub-buffer's events, in order.

    A body begins with ``common_type``.  The walk ends at an event that does not fit.

    :param start: where the sub-buffer begins in ``data``
    :param size: bytes of a sub-buffer
    """
    ts, commit = struct.unpack_from("<QQ", data, start)
    at = start + DATA
    end = min(at + (commit & COMMIT), start + size)
    while at + 8 <= end:
        head, more = struct.unpack_from("<II", data, at)
        kind, delta = head & 31, head >> 5
        if kind == TIME_EXTEND:
            ts += delta + (more << 27)
            at += 8
            continue
        if kind == TIME_STAMP:
            # An absolute stamp holds 59 bits; the rest is taken from the stamp before it.
            ts = ts >> 59 << 59 | delta + (more << 27)
            at += 8
            continue
        if kind == PADDING:
            if not delta:
                return
            # A discarded event: the next one's delta counts from it.
            ts += delta
            at += 4 + more
            continue
        ts += delta
        body, length = (at + 4, 4 * kind) if kind else (at + 8, more - 4)
        if length < 8 or body + length > end:
            return
        yield ts, body, length
        at = body + (length + 3 & ~3)
