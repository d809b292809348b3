# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay dev compare``: did two recorders of one run record the same?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from replay.cli.replay_ import value, wrapped
from replay.cli.terminal import steps, table
from replay.recdiff.comparison import FirstDifference, RecordingComparison, TaskResult, compare
from traces.recording import Recording
from traces.times import clock, moment

__all__ = ["add_compare", "report"]

_SIDES = ("A", "B")


def add_compare(parts: Any) -> None:
    """Add the part of ``zreplay dev``."""
    parser = parts.add_parser(
        "compare", help="compare two recordings of one run by two recorders, event by event",
        description="Say whether two recordings of one run (one boot, one clock; see 'zreplay record --instance') "
                    "agree: of the time that both recorded, every task must have the same events in the same order, "
                    "with equal values in all fields that both have. Not compared, as they depend on where a probe is: "
                    "times and CPUs. Exit status: 0 they agree, 1 they differ, 2 unreadable or not of one run, "
                    "3 UNDECIDED: what differs may be what one of them lost.")
    parser.add_argument("recordings", metavar="REC", nargs=2, help="two recordings, A and B")
    parser.add_argument("--data", action="store_true", help="print first bytes of objects written, too: they may be a "
                        "page's own")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, and print what came out."""
    a, b = (Recording(path) for path in arguments.recordings)
    with steps() as progress:
        result = compare(a, b, progress, data=arguments.data)
    print(json.dumps(result.as_dict()) if arguments.json else "\n".join(report(result)))
    return result.exit_status


def report(result: RecordingComparison) -> Iterator[str]:
    """Yield the lines of a result for people: verdict, what was compared and what was not, then differences."""
    a, b = result.sides
    (low, high), stamps = result.span, result.stamps
    lasting = "" if stamps else f"in {(high - low) / 1e9:.3f} s "
    tasks = sum(task.events > 0 for task in result.tasks)
    yield (f"{result.verdict}  A {a.recording}, B {b.recording}: {result.events:,} events of {tasks:,} tasks in both, "
           f"{lasting}on {result.cpus} CPU{'s' if result.cpus != 1 else ''}")
    rows = [("", "back end", "events", "in both", "only here", "edges", "kinds of one", "no probe's")]
    for number, side in enumerate(result.sides):
        rows.append((_SIDES[number], side.backend or "-", f"{side.rows:,}", f"{result.events:,}",
                     f"{sum(task.only[number] for task in result.tasks):,}", f"{side.edges:,}",
                     f"{sum(side.kinds.values()):,}", f"{side.own:,}"))
    yield table(rows, right=range(2, 8))
    yield from wrapped(f"both recorded from {moment(low, stamps)} to {moment(high, stamps)}; not compared: times, "
                       "CPUs, events outside or straddling the common interval (edges), markers, counters, parameters")
    if stamps:
        yield from wrapped(f"stamps are of {clock(stamps)}, which counts no seconds: how far apart two probes may "
                           "stamp one hit is not known, nor which events at the edges the other should have")
    for number, side in enumerate(result.sides):
        if side.certain:
            yield from wrapped(f"{side.certain:,} events of {_SIDES[number]} at the edges are from when "
                               f"{_SIDES[1 - number]} says that it was recording")
        if side.kinds:
            kinds = ", ".join(f"{name} ({count:,})" for name, count in side.kinds.items())
            yield from wrapped(f"not compared, {_SIDES[1 - number]} has no probe of it: {kinds}")
        if side.columns:
            columns = ", ".join(f"{name} ({count:,})" for name, count in side.columns.items())
            yield from wrapped(f"not compared, {_SIDES[1 - number]} did not fetch it: {columns}")
        for loss in side.losses:
            yield from wrapped(f"{_SIDES[number]}: {loss}")
    yield from wrapped(f"page contents of {result.pages:,} compress calls compared" if result.pages else
                       "page contents not compared: no page has a SHA-1 in both (record with --pages full)")
    if result.readings:
        readings = ", ".join(f"{name} ({count:,})" for name, count in result.readings.items())
        yield from wrapped(f"readings that differ, and may, of memory that another CPU changes meanwhile: {readings}")
    if result.fields:
        yield from wrapped("fields that differ: " + ", ".join(f"{name} ({count:,})"
                                                              for name, count in result.fields.items()))
    unequal = [task for task in result.tasks if task.verdict != "AGREE"]
    for task in unequal:
        yield ""
        yield (f"{_task(task)}: {task.verdict}; {task.events:,} events in both, {task.different:,} of them different, "
               f"{_only(task, 0)}, {_only(task, 1)}")
        if task.first is not None:
            yield from _difference(task.first, stamps)
        else:
            yield f"  first difference at {moment(task.first_ts, stamps)}"


def _task(task: TaskResult) -> str:
    name = f" ({task.name})" if task.name else ""
    return f"task {task.pid}{name}" + (f" of CPU {task.cpu}" if task.cpu is not None else "")


def _only(task: TaskResult, number: int) -> str:
    """Return how many events one side has alone, and how many of them the other may have lost."""
    excused = task.excused[number]
    lost = f" ({excused:,} may be lost in {_SIDES[1 - number]})" if excused else ""
    return f"{task.only[number]:,} only in {_SIDES[number]}{lost}"


def _difference(first: FirstDifference, stamps: str) -> Iterator[str]:
    """Yield a difference: what and where, then the task's events around it in both."""
    where = (f"  first difference at {moment(first.ts, stamps)}, the task's event {first.place:,} in that time: "
             f"{first.name}")
    if -1 in first.events:
        has = 0 if first.events[1] < 0 else 1
        yield f"{where} (event {first.events[has]}) is only in {_SIDES[has]}"
    else:
        yield f"{where} (event {first.events[0]} of A, {first.events[1]} of B)"
        for column, a, b in first.fields:
            values = f"{value(a)} in A, {value(b)} in B" if column != "content" else "other pages in A than in B"
            if isinstance(a, str):
                values = f"{a} (--data shows them)"
            yield f"    {column}: {values}"
    for number, lines in enumerate(first.context):
        yield f"  the task's events in {_SIDES[number]}:"
        yield from (f"  {line}" for line in lines)
