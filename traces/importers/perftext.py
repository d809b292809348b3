# SPDX-License-Identifier: GPL-2.0-or-later
"""``perf script`` text of probe events: the same rows as ftrace text.

Mirrors perf_sample__fprintf_start() and process_event() in tools/perf/builtin-script.c and
perf_event__fprintf_lost() in tools/perf/util/event.c, perf 6.1 to 7.3.  Understood are lines such as::

    python3     136 [000]     9.803915:   z:lru_add: (ffffffff81725254) lru=0xffff88800 item=0x0 nid=0
    python3     136/140  [000]     9.803915217: probe:zswap_store__return: (ffff <- ffff) ret=0x1

with the fields ``-F [comm,][pid,]tid,[cpu,]time,event,trace``, with nanoseconds (``--ns``), with differences of
time (``--deltatime``), and with call chains (also ``-F +srcline``), which are passed over.  Of ``pid/tid`` the
thread counts: the kernel calls that pid.  Event names are those that :mod:`traces.importers.probemap` knows, in any
group, among them the probed kernel function as 'perf probe' names it (``zswap_store``, ``zswap_store__return``).

A line is rewritten as a line of ftrace text and goes through :mod:`traces.importers.textevents`, so that both
kinds of text fill the same columns.  Stamps are microseconds unless ``--ns`` was given.

Lost events: 'perf script' shows them only with ``--show-lost-events``.  A text that has neither such a line
nor the output of 'perf report --stats' (appended to it) does not say that nothing was lost, and is imported
with an unknown loss.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from traces.errors import BadInput
from traces.importers import textevents
from traces.importers.machine import check_machine
from traces.importers.rewritten import MAX_LINE, Rewritten
from traces.importers.source import Block, RunFacts

__all__ = ["rewrite", "sniff_perf", "stream"]

_SNIFFED_LINES: Final = 400

# TASK_COMM_LEN is 16, workers show longer names; the bound keeps the search for the task linear.
_HEAD: Final = (rb" *(?P<comm>[^ \n].{0,63}?|) *(?<![^ \n])(?P<pid>\d{1,10})(?:/(?P<tid>\d{1,10}))? +"
                rb"(?:\[(?P<cpu>\d{1,5})\] +)?(?P<time>\d{1,10}\.\d{6}(?:\d{3})?): +")
#: after an optional period, group and event, with the modifiers that perf appends when they were given
_EVENT: Final = re.compile(_HEAD + rb"(?:\d{1,20} +)?[\w.-]{1,64}:(?P<event>[\w.]{1,64})(?::[a-zA-Z]{1,8})?: *"
                                   rb"(?P<rest>.*)$")
_LOST: Final = re.compile(_HEAD + rb"PERF_RECORD_LOST(?:_SAMPLES)? lost (?P<count>\d{1,18})\s*$")
#: frames of a call chain, and under each with '-F +srcline' its line of source; neither has a stamp
_CHAIN: Final = re.compile(rb"[ \t]+(?!.*\d\.\d{6})(?:[\da-f]{4,16} (?:[^=]*|.*\([^()]*\)\s*)$|"
                           rb"[^=]*[\w.?+-]:(?:\d{1,7}|\?)(?: \(discriminator \d{1,5}\))?\s*$)")
_ANY: Final = re.compile(_HEAD)
_OTHER_RECORD: Final = re.compile(_HEAD + rb"PERF_RECORD_")
_MACHINE: Final = re.compile(rb"# arch : (\S{1,64})\s*$")
_STATS: Final = re.compile(rb" *(?P<what>[A-Z_0-9]{2,32}) events: +(?P<count>\d{1,18})(?: +\(.*\))?\s*$")
_STATS_HEAD: Final = re.compile(rb"(?:Aggregated stats|[\w.:-]{1,128} stats):\s*(?:\(.*\))?\s*$")


class _Seen:
    """What the rewriting of one text found out about it."""

    def __init__(self, *, differences: bool = False) -> None:
        #: stamps are the time since the line before (--deltatime), and the time of the last line so far, in ns
        self.differences = differences
        self.now = 0
        #: what perf's head (--header) calls the machine
        self.machine = ""
        self.events = 0
        self.without_cpu = 0
        self.lost_lines = 0
        self.stats = False
        self.stats_lost = 0

    def time(self, printed: bytes) -> bytes:
        """Return a line's time as text; it counts for the lines after it."""
        if not self.differences:
            return printed
        seconds, _, digits = printed.partition(b".")
        self.now += int(seconds) * 10**9 + int(digits) * 10 ** (9 - len(digits))
        return b"%d.%0*d" % (self.now // 10**9, len(digits), self.now % 10**9 // 10 ** (9 - len(digits)))


def rewrite(line: bytes, seen: _Seen) -> bytes:
    """Return a line of perf text as a line of ftrace text; what is no event comes out empty or as it is."""
    if found := _EVENT.match(line):
        seen.events += 1
        seen.without_cpu += found["cpu"] is None
        # A ': ' in a comm would look like the name of a trace-cmd instance.
        comm = found["comm"].strip().replace(b": ", b":_")
        return b"%s-%s [%s] %s: %s: %s" % (comm, found["tid"] or found["pid"], found["cpu"] or b"000",
                                           seen.time(found["time"]), found["event"], found["rest"])
    if seen.differences and (found := _ANY.match(line)):
        seen.time(found["time"])
    if found := _LOST.match(line):
        seen.lost_lines += 1
        return b"CPU:%d [LOST %s EVENTS]" % (int(found["cpu"] or 0), found["count"])
    if found := _STATS.match(line):
        seen.stats = True
        seen.stats_lost += int(found["count"]) if found["what"].startswith(b"LOST") else 0
        return b""
    if found := _MACHINE.match(line):
        seen.machine = found[1].decode("utf-8", "replace")
    if not line.strip() or line.startswith(b"#") or _CHAIN.match(line) or _STATS_HEAD.match(line) \
            or _OTHER_RECORD.match(line):
        return b""
    # What cannot be read must not turn into an event of ftrace text by chance: that has ': ' after its stamp.
    return b"? " + line[:200].replace(b": ", b":")


def _differences(blocks: Iterable[bytes]) -> bool:
    """True for the stamps of --deltatime: the first is 0 and they run backwards, where perf sorts by time."""
    rest, last = b"", -1.0
    for block in blocks:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()[:MAX_LINE]
        for line in lines:
            found = _ANY.match(line[:MAX_LINE])
            if found is None:
                continue
            now = float(found["time"])
            if last < 0 < now:
                return False
            if now < last:
                return True
            last = now
    return False


def stream(path: Path, facts: RunFacts) -> Iterator[Block]:
    """Parse perf text and return its events in the order of time, as perf prints them.

    Stamps of --deltatime are added up; without --ns each has lost up to a microsecond.

    :raises BadInput: when no line of it is an event with task and time, or its compressed data is damaged
    """
    # content recognises perf text with this module, so it cannot be imported before it.
    from traces.importers.content import chunks

    seen = _Seen(differences=_differences(chunks(path)))
    if seen.differences:
        facts.notes.append("stamps are the time since the line before (--deltatime): they were added up, so the times "
                           "of far events are about right only")
    lines = cast(BinaryIO, Rewritten(str(path), chunks(path), lambda line: rewrite(line, seen)))
    yield from textevents.stream(lines, facts, head=False)
    check_machine(path, "perf's head", seen.machine)
    if not seen.events:
        raise BadInput(path, "", "has no probe event with its task and time",
                       "print it with 'perf script -F comm,tid,cpu,time,event,trace --ns --show-lost-events'")
    if seen.without_cpu:
        facts.notes.append(f"{seen.without_cpu} events say no CPU: they are taken for CPU 0")
    if seen.stats_lost and not seen.lost_lines:
        facts.notes.append("perf counts lost records, but the text does not show them: print it with "
                           "--show-lost-events")
        facts.losses.append({"cpu": None, "lost": None, "why": f"perf lost {seen.stats_lost} records, unknown where"})
    elif not seen.lost_lines and not seen.stats:
        facts.notes.append("the text does not say whether events were lost: print it with --show-lost-events and "
                           "append the output of 'perf report --stats'")
        facts.losses.append({"cpu": None, "lost": None, "why": "perf's text does not say whether events were lost"})


def sniff_perf(first_bytes: bytes) -> bool:
    """Tell from the first (decompressed) bytes of a file whether it is perf text of events of the vocabulary."""
    if b"\0" in first_bytes:
        return False
    for line in first_bytes.split(b"\n", _SNIFFED_LINES)[:_SNIFFED_LINES]:
        found = _EVENT.match(line[:MAX_LINE])
        if found is not None:
            return True
    return False
