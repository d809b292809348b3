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
with an unknown loss.  That output counts the samples of each event; the last line of 'perf record'
and the heads of 'perf report' count them, too: samples that are missing were lost.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from traces.errors import BadInput
from traces.importers import textevents
from traces.importers.inputfile import chunks
from traces.importers.probemap import vocabulary_name
from traces.importers.rewrittentext import MAX_LINE, Rewritten
from traces.importers.source import Block, RunFacts
from traces.machine import check_machine

__all__ = ["rewrite", "sniff_perf", "stream"]

_SNIFFED_LINES: Final = 400
_MOST: Final = 1 << 12

# TASK_COMM_LEN is 16, workers show longer names; the bound keeps the search for the task linear.
_HEAD: Final = (rb" *(?P<comm>[^ \n].{0,63}?|) *(?<![^ \n])(?P<pid>\d{1,10})(?:/(?P<tid>\d{1,10}))? +"
                rb"(?:\[(?P<cpu>\d{1,5})\] +)?(?P<time>\d{1,10}\.\d{6}(?:\d{3})?): +")
#: after an optional period, group and event, with the modifiers that perf appends when they were given
_EVENT: Final = re.compile(_HEAD + rb"(?:\d{1,20} +)?(?P<group>[\w.-]{1,64}):(?P<event>[\w.]{1,64})"
                                   rb"(?::[a-zA-Z]{1,8})?: *(?P<rest>.*)$")
_LOST: Final = re.compile(_HEAD + rb"PERF_RECORD_LOST(?:_SAMPLES)? lost (?P<count>\d{1,18})\s*$")
#: frames of a call chain, and under each with '-F +srcline' its line of source; neither has a stamp
_CHAIN: Final = re.compile(rb"[ \t]+(?!.*\d\.\d{6})(?:[\da-f]{4,16} (?:[^=]*|.*\([^()]*\)\s*)$|"
                           rb"[^=]*[\w.?+-]:(?:\d{1,7}|\?)(?: \(discriminator \d{1,5}\))?\s*$)")
_ANY: Final = re.compile(_HEAD)
_OTHER_RECORD: Final = re.compile(_HEAD + rb"PERF_RECORD_")
_MACHINE: Final = re.compile(rb"# arch : (\S{1,64})\s*$")
_STATS: Final = re.compile(rb" *(?P<what>[A-Z_0-9]{2,32}) events: +(?P<count>\d{1,18})(?: +\(.*\))?\s*$")
_STATS_HEAD: Final = re.compile(rb"(?:Aggregated stats|(?P<event>[\w.:-]{1,128}) stats):\s*(?:\(.*\))?\s*$")
#: the end of 'perf record', the heads of 'perf report', and what both say of chunks that got lost
_SAMPLES: Final = re.compile(rb"\[ perf record: Captured and wrote .{1,200} \((?P<all>\d{1,18}) samples\) \]\s*$|"
                             rb"# Samples: (?P<some>\d{1,18}) +of event '(?P<event>[^']{1,128})'\s*$")
_LOST_TOTAL: Final = re.compile(rb"# Total Lost Samples: (?P<count>\d{1,18})\s*$|"
                                rb"Processed \d{1,18} events and lost (?P<chunks>\d{1,18}) chunks!\s*$")
_RECORD_SAYS: Final = re.compile(rb"\[ perf record: (?:Woken up \d+ times to write data|Captured and wrote .{1,200}) \]"
                                 rb"\s*$|Check IO/CPU overload!\s*$")
#: modifiers behind an event's name
_MODIFIERS: Final = re.compile(rb":[a-zA-Z]{1,8}$")


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
        self.lost_samples = 0
        self.stats = False
        self.stats_lost = 0
        #: samples that the text says there are: in all, and of an event ("group:event"); where its statistics are read
        self.samples = 0
        self.samples_of: dict[str, int] = {}
        self.section = ""
        self.lines_of: Counter[str] = Counter()

    def counts(self, line: bytes) -> bool:
        """Take what a line says of how many samples there are or were lost; True where it is such a line."""
        if found := _STATS_HEAD.match(line):
            self.section = _name(found["event"] or b"")
            return True
        if found := _STATS.match(line):
            self.stats = True
            if found["what"] == b"SAMPLE":
                self._samples(self.section, int(found["count"]))
            elif found["what"].startswith(b"LOST") and not self.section:
                self.stats_lost += int(found["count"])
            return True
        if found := _SAMPLES.match(line):
            self._samples(_name(found["event"] or b""), int(found["all"] or found["some"]))
            return True
        if found := _LOST_TOTAL.match(line):
            self.lost_samples += int(found["count"] or found["chunks"])
            return True
        return _RECORD_SAYS.match(line) is not None

    def _samples(self, event: str, count: int) -> None:
        # 'perf record' and 'perf report --stats' may both say it: the count is the same.
        if not event:
            self.samples = max(self.samples, count)
        elif len(self.samples_of) < _MOST:
            self.samples_of[event] = max(self.samples_of.get(event, 0), count)

    def missing(self) -> int:
        """Return how many samples the text says there are and does not show."""
        # Of each event where it says so: others may have been left out.
        known = {event: count for event, count in self.samples_of.items()
                 if vocabulary_name(event.rpartition(":")[2], ("ret",)) or vocabulary_name(event.rpartition(":")[2])}
        missing = sum(max(0, count - self.lines_of[event]) for event, count in known.items())
        if sum(self.samples_of.values()) < self.samples:
            missing = max(missing, self.samples - self.events)
        return missing

    def time(self, printed: bytes) -> bytes:
        """Return a line's time as text; it counts for the lines after it."""
        if not self.differences:
            return printed
        seconds, _, digits = printed.partition(b".")
        self.now += int(seconds) * 10**9 + int(digits) * 10 ** (9 - len(digits))
        return b"%d.%0*d" % (self.now // 10**9, len(digits), self.now % 10**9 // 10 ** (9 - len(digits)))


def _name(event: bytes) -> str:
    return (_MODIFIERS.sub(b"", event) if event.count(b":") > 1 else event).decode("ascii", "replace")


def rewrite(line: bytes, seen: _Seen) -> bytes:
    """Return a line of perf text as a line of ftrace text; a line that is not an event comes out empty or unchanged."""
    if found := _EVENT.match(line):
        seen.events += 1
        seen.lines_of[_name(found["group"] + b":" + found["event"])] += 1
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
    if seen.counts(line):
        return b""
    if found := _MACHINE.match(line):
        seen.machine = found[1].decode("utf-8", "replace")
    if not line.strip() or line.startswith(b"#") or _CHAIN.match(line) or _OTHER_RECORD.match(line):
        return b""
    # An unreadable line must not become an event of ftrace text by chance: those have ': ' after the stamp.
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
    if missing := seen.missing():
        facts.losses.append({"cpu": None, "lost": missing, "why": f"the text says that perf recorded {missing:,} "
                                                                  f"samples more than it shows: print all of them"})
    if seen.lost_samples:
        facts.losses.append({"cpu": None, "lost": None, "why": f"perf says that it lost samples ({seen.lost_samples}), "
                                                               f"unknown where"})
    if seen.stats_lost > seen.lost_lines:
        facts.notes.append("perf counts lost records, but the text does not show all of them: print it with "
                           "--show-lost-events")
        more = seen.stats_lost - seen.lost_lines
        facts.losses.append({"cpu": None, "lost": None, "why": f"perf lost {more} records, unknown where"})
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
