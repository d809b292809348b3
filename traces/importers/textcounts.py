# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of ftrace text that count its events: the heads that the kernel prints, and the statistics of its rings.

Mirrors print_event_info(), print_trace_header() and tracing_stats_read() in kernel/trace/trace.c (Linux 6.12 to 7.3),
and what ``trace-cmd report --stat`` and the end of ``trace-cmd record`` print of the last (trace-cmd 3.1 to 3.4)::

    # entries-in-buffer/entries-written: 136348/136348   #P:1
    # latency: 0 us, #136348/136348, CPU#0 | (M:desktop VP:0, KP:0, SP:0 HP:0 #P:1)

    Buffer: zmeta
    CPU: 0
    entries: 0
    overrun: 0
    ...
    read events: 136348
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["TextCounts"]

_HEADS: Final = re.compile(rb"# *(?:entries-in-buffer/entries-written: *(\d{1,18})/(\d{1,18})(?!\d)|"
                           rb"latency: *\d{1,18} us, #(\d{1,18})/(\d{1,18}), CPU#)")
_LIKE_A_HEAD: Final = re.compile(rb"# *(?:entries-in-buffer/entries-written:|latency:)")
_CPU: Final = re.compile(rb"CPU: (\d{1,5})\s*$")
_BUFFER: Final = re.compile(rb"Buffer: (\S{1,64})\s*$")
_COUNT: Final = re.compile(rb"(entries|overrun|commit overrun|dropped events|read events|bytes): (\d{1,18})\s*$")
#: what stands around the counts
_AROUND: Final = re.compile(rb"(?:oldest event ts|now ts): +[\d.]+\s*$|Kernel buffer statistics:\s*$|"
                            rb'  Note: "entries" are the entries left|        recorded in the trace data\. They should|'
                            rb"CPU\d{1,5} data recorded at offset=0x|    \d{1,18} bytes in size")
_MOST: Final = 1 << 16


class TextCounts:
    """What the lines of a text so far say of how many events it has."""

    def __init__(self) -> None:
        #: events in the buffer, and written to it, by all heads together
        self.entries: tuple[int, int] | None = None
        #: (instance, CPU) -> what the kernel counted of its ring
        self.rings: dict[tuple[str, int], dict[str, int]] = {}
        self._buffer = ""
        self._ring: dict[str, int] | None = None

    def take(self, line: bytes) -> bool:
        """Look at a line that is not an event; True where it counts events."""
        if found := _HEADS.match(line):
            # per_cpu/cpuN/trace has a head for each CPU.
            there, written = self.entries or (0, 0)
            self.entries = (there + int(found[1] or found[3]), written + int(found[2] or found[4]))
            return True
        if found := _CPU.match(line):
            if len(self.rings) < _MOST:
                self._ring = self.rings.setdefault((self._buffer, int(found[1])), {})
            return True
        if found := _BUFFER.match(line):
            self._buffer, self._ring = found[1].decode("utf-8", "replace"), None
            return True
        if found := _COUNT.match(line):
            if self._ring is None:
                return False
            name = found[1].decode()
            self._ring[name] = self._ring.get(name, 0) + int(found[2])
            return True
        return _AROUND.match(line) is not None

    @staticmethod
    def unreadable(line: bytes) -> bool:
        """True for a head whose numbers cannot be read: it is not passed over like another comment."""
        return _LIKE_A_HEAD.match(line) is not None and _HEADS.match(line) is None
