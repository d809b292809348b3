# SPDX-License-Identifier: GPL-2.0-or-later
"""Two revisions on one recording (``zreplay regress REC --revision A --revision B``) and ``zreplay bisect``."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final

from model.crypto.faults import FaultPlan
from model.revisions import REVISIONS, SERIES
from model.zswap import Zswap
from replay.cli.replay_ import load_revision
from replay.cli.terminal import counting, fitting, table, wrapped
from replay.revdiff.bisect import Bisection, bisect, series
from replay.revdiff.freerun import OperationOutcome
from replay.revdiff.lockstep import RESPECTS, Cause, Parting, broken, run_both
from replay.revdiff.operations import skipped
from replay.tools.coverage import seen
from traces.errors import BadInput
from traces.recording import Recording
from traces.suggestion import meant

__all__ = ["add_parser", "named", "parting_status", "two_revisions"]

#: Respects in which revisions may part without anything being worse for it.
_HOW: Final = ("copies", "calls", "order")
_WIDTH: Final = 100
#: This many groups of differences, and invariants, are shown; --json has all.
MOST: Final = 20


def add_parser(verbs: Any) -> None:
    """Add the verb bisect."""
    parser = verbs.add_parser(
        "bisect", help="name the step of a series that brought a difference",
        description="Run a recording's operations through the steps of a series, and name the first that differs "
                    "from the base as the last one does. Exit status: 1 a step was named, 0 only how things are done "
                    "differs, 2 unreadable.")
    parser.add_argument("recording", metavar="REC")
    parser.add_argument("steps", metavar="STEP", nargs="*",
                        help="the base and the series' steps in order: shipped names or FILE.py:CLASS")
    parser.add_argument("--series", choices=sorted(SERIES), help="a series whose steps ship: "
                        + "; ".join(f"{name}: {', '.join(steps)}" for name, steps in SERIES.items()))
    parser.add_argument("--respect", choices=list(RESPECTS), help="look for a difference in this respect (default: the "
                        "gravest there is)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run_bisect)


def named(text: str) -> tuple[str, type[Zswap]]:
    """Return a revision's name and class.

    :raises BadInput: when there is none of that name
    """
    found = load_revision(text)
    if isinstance(found, type):
        return found.__name__, found
    if found not in REVISIONS:
        raise BadInput(text, "", f"is not a revision{meant(text, REVISIONS)}",
                       f"choose one of {', '.join(REVISIONS)} or FILE.py:CLASS")
    return str(found), REVISIONS[str(found)]


def two_revisions(path: str, names: list[str], as_json: bool, faults: str | None = None,
                  brief: bool = False) -> int:
    """Hold two revisions against each other on a recording; return the exit status.

    :param faults: file of a fault plan that both are run with
    :param brief: leave out the first difference in full
    """
    if len(names) != 2:
        raise BadInput(path, "", "two revisions are compared on one recording", "give --revision A --revision B")
    first, second = (named(name) for name in names)
    with counting(f"running {first[0]} and {second[0]}") as progress:
        found = run_both(Recording(path), first, second, faults=_plan(faults), progress=progress)
    if as_json:
        print(json.dumps(_plain(found), allow_nan=False))
    else:
        print("\n".join(_lines(found, path, brief)))
    return parting_status(found)


def _plan(file: str | None) -> FaultPlan | None:
    if file is None:
        return None
    try:
        # Larger ones are refused by their size.
        with open(file, encoding="utf-8") as stream:
            return FaultPlan.from_json(stream.read((1 << 20) + 1))
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(file, "", f"cannot be read ({problem})", "give a fault plan as JSON") from None
    except ValueError as problem:
        raise BadInput(file, "", str(problem), "see model/crypto/faults.py for the form") from None


def parting_status(found: Parting) -> int:
    """Return 1 where something is other than how it is done, 3 where nothing was run, else 0."""
    if not found.operations:
        return 3
    grave = any(cause.respect not in _HOW for cause in found.causes)
    return int(grave or any(found.problems))


def _lines(found: Parting, path: str, brief: bool = False) -> Iterator[str]:
    one, other = found.names
    different = sum(cause.operations for cause in found.causes)
    yield from wrapped(f"{other} compared with {one} on {path}: {different:,} of {found.operations:,} operations "
                       f"differ ({_groups(len(found.causes))})", 1 << 20)
    for note in (*found.notes, *skipped(found.left_out)):
        yield from textwrap.wrap(f"note: {note}", fitting(_WIDTH), subsequent_indent="  ")
    if found.operations:
        yield from textwrap.wrap(f"branches: {seen(found.names, found.branches)}", fitting(_WIDTH),
                                 subsequent_indent="  ")
    # What no code may do comes before what this code does otherwise.
    for name, problems in zip(found.names, found.problems, strict=True):
        yield from _invariants(name, problems)
    for number, cause in enumerate(found.causes[:MOST], 1):
        yield ""
        yield from textwrap.wrap(f"{number}. {cause.sentence}: {cause.operations:,} operation"
                                 f"{'s' * (cause.operations > 1)}, first at event {cause.first[0].operation.event}",
                                 fitting(_WIDTH), subsequent_indent="   ")
    if len(found.causes) > MOST:
        more = sum(cause.operations for cause in found.causes[MOST:])
        yield ""
        yield f"and {len(found.causes) - MOST:,} more groups, of {more:,} operations: --json has them all"
    if found.causes and not brief:
        yield ""
        yield from _in_full(found.causes[0], found.names)


def _groups(count: int) -> str:
    return f"{count:,} group{'s' * (count != 1)}"


def _invariants(name: str, problems: list[tuple[int, str]]) -> Iterator[str]:
    """Yield which invariants a revision breaks, each once."""
    kinds = broken(problems)
    for number, kind in enumerate(kinds[:MOST]):
        said = f"{name} breaks an invariant {kind.times:,} times; first" if not number else \
            f"and another {kind.times:,} times; first"
        said = said.replace(" 1 times; first", " once")
        yield ""
        yield from textwrap.wrap(f"{said}, at event {kind.event}: {kind.sentence}", fitting(_WIDTH),
                                 subsequent_indent="   ")
    if len(kinds) > MOST:
        yield f"and {len(kinds) - MOST:,} more invariants: --json has them all"


def _in_full(cause: Cause, names: tuple[str, str]) -> Iterator[str]:
    """Yield both outcomes of a cause's first operation side by side."""
    operation = cause.first[0].operation
    yield f"the first of 1. in full: {operation.kind} at swap entry {operation.swpent:#x}, order {operation.order}"
    rows = [("", *names)]
    one, other = cause.first
    for label, show in _ROWS.items():
        pairs = zip_longest(show(one), show(other), fillvalue="")
        rows += [(label if not number else "", a, b if a != b else '"') for number, (a, b) in enumerate(pairs)]
    yield table(rows)


def _short(effects: list[str]) -> Iterator[str]:
    """Yield effects; a stretch of up to 24 that comes several times in a row is yielded once, with how often."""
    at = 0
    while at < len(effects):
        size, times = max(((size, _times(effects, at, size)) for size in range(1, 25)),
                          key=lambda found: (found[1] > 1) * found[0] * found[1])
        yield from effects[at:at + (size if times > 1 else 1)]
        if times > 1:
            yield f"  (these {size}, {times} times)" if size > 1 else f"  ({times} times)"
        at += size * times if times > 1 else 1


def _times(effects: list[str], at: int, size: int) -> int:
    times = 1
    while effects[at + times * size:at + (times + 1) * size] == effects[at:at + size] != []:
        times += 1
    return times


def _stored(outcome: OperationOutcome) -> list[str]:
    lines = [f"{slot:#x}: {length}{' as it is' * raw}" for slot, (length, raw) in outcome.stored.items()]
    return lines or ["-"]


#: what is shown of both outcomes, line by line
_ROWS: Final[dict[str, Callable[[OperationOutcome], Iterable[str]]]] = {
    "result": lambda outcome: [str(outcome.result)],
    "data": lambda outcome: [outcome.data or "-"],
    "stored": _stored,
    "counters": lambda outcome: [f"{name} {change:+d}" for name, change in sorted(outcome.counters.items())] or ["-"],
    "copied": lambda outcome: [str(outcome.copied)],
    "calls": lambda outcome: [", ".join(str(pages) for pages in outcome.calls) or "-"],
    "effects": lambda outcome: _short(outcome.effects),
}


def _plain(found: Parting) -> dict[str, Any]:
    return {"revisions": list(found.names), "operations": found.operations, "left_out": found.left_out,
            "notes": found.notes, "branches": dict(zip(found.names, found.branches, strict=True)),
            "causes": [{"respect": cause.respect, "sentence": cause.sentence, "operations": cause.operations,
                        "event": cause.first[0].operation.event} for cause in found.causes],
            "problems": {name: [{"event": event, "sentence": text} for event, text in problems]
                         for name, problems in zip(found.names, found.problems, strict=True)}}


def run_bisect(arguments: argparse.Namespace) -> int:
    """Walk the steps and name the one that brought the difference."""
    if bool(arguments.steps) == bool(arguments.series):
        raise BadInput("bisect", "", "needs at least two steps, or a series", "give STEP STEP ... or --series NAME")
    steps = series(arguments.series) if arguments.series else [named(text) for text in arguments.steps]
    with counting("running") as progress:
        found = bisect(Recording(arguments.recording), steps, arguments.respect,
                       progress=None if progress is None else lambda step, event: progress(event))
    if arguments.json:
        print(json.dumps(_bisection(found), allow_nan=False))
    else:
        print("\n".join(_walk(found, arguments.recording)))
    return int(found.brought is not None and found.wanted is not None and found.wanted.respect not in _HOW)


def _walk(found: Bisection, path: str) -> Iterator[str]:
    base = found.steps[0].name
    if found.wanted is None:
        yield f"{found.steps[-1].name} does not differ from {base} on {path}" \
              + (" in that respect" if any(step.parting and step.parting.causes for step in found.steps) else "")
        return
    yield from textwrap.wrap(f"{found.brought} brought it: {found.wanted.sentence}, first at event "
                             f"{found.wanted.first[0].operation.event}", fitting(_WIDTH), subsequent_indent="  ")
    mirrors = next(step.mirrors for step in found.steps if step.name == found.brought)
    yield from textwrap.wrap(f"which is {mirrors}", fitting(_WIDTH), initial_indent="  ", subsequent_indent="  ")
    for note in dict.fromkeys(note for step in found.steps if step.parting for note in step.parting.notes):
        yield from textwrap.wrap(f"note: {note}", fitting(_WIDTH), subsequent_indent="  ")
    yield ""
    for step in found.steps[1:]:
        assert step.parting is not None
        causes = step.parting.causes
        yield f"{step.name}: {_groups(len(causes))} of operations differ{'s' * (len(causes) == 1)} from {base}"
        for cause in causes:
            yield from textwrap.wrap(f"{cause.respect}: {cause.sentence} ({cause.operations:,})", _WIDTH,
                                     initial_indent="  ", subsequent_indent="    ")


def _bisection(found: Bisection) -> dict[str, Any]:
    return {"brought": found.brought, "wanted": None if found.wanted is None else found.wanted.sentence,
            "steps": [{"name": step.name, "mirrors": step.mirrors,
                       "parting": None if step.parting is None else _plain(step.parting)} for step in found.steps]}
