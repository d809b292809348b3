# SPDX-License-Identifier: GPL-2.0-or-later
"""Forms of ftrace text whose lines have another head: they are rewritten as the usual one.

Mirrors trace_print_lat_context() in kernel/trace/trace_output.c (Linux 6.12 to 7.3) and what is printed of a clock
that does not count time::

    task-100       0...2. 2766us : store: (zswap_store+0x4/0xcd0) swp=0x1
    [   20.200000]     task-100       0...2. 2766us : store: (zswap_store+0x4/0xcd0) swp=0x1
    task-100   [000]  11171218000: store: (zswap_store+0x4/0xcd0) swp=0x1

The first is the option ``latency-format``: microseconds since the buffer's start, or since boot.  The second is the
same in the kernel's log (``ftrace_dump_on_oops``).  The third has stamps as the clock gave them (``report --raw-ts``,
clocks ``counter`` and ``x86-tsc``): the order of events is known, the time between them is not.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["FORMS", "KINDS", "form_of", "rewrite"]

#: what each form is called, for notes
FORMS: Final[dict[str, str]] = {
    "latency": "stamps are those of the latency format, which may begin at the buffer's start",
    "raw": "stamps are bare numbers of a clock that the text does not name (raw stamps, 'counter', 'x86-tsc'): the "
           "order of events is known, times in seconds are not"}
#: what a line of each kind of text looks like, for messages
KINDS: Final = ("give a text whose events are lines such as "
                "'task-1 [000] ...1. 1.000001: zswap_load: (zswap_load+0x4/0x80) swp=0x1' (the kernel's trace file, "
                "trace-cmd report), 'task 1 [000] 1.000001: probe:zswap_load: (ffff) swp=0x1' "
                "(perf script), or '{\"type\": \"printf\", \"data\": \"{...}\"}' (bpftrace -f json)")

_LINES: Final = 400
_TASK: Final = rb"(?P<comm>[^ \n].{0,63}?|)"
_LATENCY: Final = re.compile(rb" *" + _TASK + rb"(?:-| +)(?P<pid>\d{1,9}) +(?P<cpu>\d{1,5})(?P<flags>[^\s\d]\S{2,7}) +"
                             rb"(?P<time>\d{1,15})us[ !+#*@$]?: (?P<rest>.*)$")
_RAW: Final = re.compile(rb"(?P<head> *(?:[^ :\n]{1,64}: +)?" + _TASK + rb"-\d{1,9} +(?:\([ \d-]{1,10}\) +)?\[\d{1,5}\]"
                         rb"(?: {1,4}[^\s\d]\S{2,7})?) +(?P<time>\d{1,18}): +(?P<rest>.*)$")
_SECONDS: Final = re.compile(rb".{0,160}?(?:\[\d{1,5}\]|\d[^\s\d\[]\S{2,7})[^:\n]{0,40}? \d{1,10}\.\d{6}(?:\d{3})?: ")
_PRINTK: Final = re.compile(rb"(?:<\d{1,3}>)?\[ *\d{1,10}\.\d{6}\](?:\[ *[TC]\d{1,9}\])? ")
_AROUND: Final = re.compile(rb" *(?:Dumping ftrace buffer:|-{8,}|\(ftrace buffer empty\))\s*$")


def form_of(head: bytes) -> str:
    """Return ``latency`` or ``raw`` where the first event of a text has that form, else ``""``."""
    for line in head.split(b"\n", _LINES)[:_LINES]:
        line = line[:1 << 12].rstrip(b"\r")
        bare = line[found.end():] if (found := _PRINTK.match(line)) else line
        if _LATENCY.match(bare):
            return "latency"
        if _SECONDS.match(line):
            return ""
        if _RAW.match(line):
            return "raw"
    return ""


def rewrite(line: bytes, form: str) -> bytes:
    """Return a line of a form as the usual ftrace text has it; a line that is not an event is unchanged."""
    if form == "raw":
        found = _RAW.match(line)
        if found is None:
            return line
        stamp = int(found["time"])
        return b"%s %d.%09d: %s" % (found["head"], stamp // 10**9, stamp % 10**9, found["rest"])
    if printed := _PRINTK.match(line):
        line = line[printed.end():]
    found = _LATENCY.match(line)
    if found is None:
        return b"" if _AROUND.match(line) else line
    stamp = int(found["time"])
    return b"%s-%s [%s] %s %d.%06d: %s" % (found["comm"], found["pid"], found["cpu"], found["flags"], stamp // 10**6,
                                           stamp % 10**6, found["rest"])
