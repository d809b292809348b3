# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay replay``: the main job."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from model.revisions import REVISIONS
from replay.cli.coverage import all_branch_lines, branch_lines
from replay.cli.many import Form, add_options, run_jobs
from replay.cli.terminal import painted, table, wrapped
from replay.formats.asjson import Json
from replay.formats.ktap import Ktap
from replay.formats.mail import MailFormat
from replay.many.jobs import make_jobs
from replay.reference.answers import sentence as unjudged
from replay.reference.checks import CHECKS, Divergence
from replay.tools.coverage import sentence
from replay.userrev.revision import load_revision
from replay.verdict.result import Result
from traces.errors import BadInput
from traces.times import moment

__all__ = ["add_parser", "load_revision", "wrapped"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "replay", help="replay a recording through a revision and check every effect",
        description="Replay recordings and check every effect against what the kernel was recorded to do. "
                    "Exit status: 0 PASS, 1 FAIL, 2 unreadable, 3 UNDECIDED; of several recordings, the worst.")
    parser.add_argument("recording", metavar="REC", nargs="*")
    parser.add_argument("--revision", action="append", metavar="R", help="revision to check the kernel against: a "
                        f"shipped name ({', '.join(REVISIONS)}) or FILE.py:CLASS; by default the one that mirrors the "
                        "kernel; may be repeated")
    parser.add_argument("--check", action="append", metavar="ID", help="only this check (or all below it: "
                        "'counter'); may be repeated")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first divergence")
    parser.add_argument("--no-pages", action="store_true", help="take lengths from the recording, compress nothing")
    parser.add_argument("--data", action="store_true", help="where first bytes of objects differ, print them: they may "
                        "be a page's own")
    parser.add_argument("--engine", choices=("fast", "reference"), help="fast is compiled and hands what it cannot "
                        "confirm to the reference; the default from 262,144 events on, below that it does not pay")
    parser.add_argument("--coverage", action="store_true", help="list the branches of the revision: how often the "
                        "recording came to each; what it did not come to, no verdict is about")
    parser.add_argument("--list-checks", action="store_true", help="print all checks and leave")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the results as JSON, one object per recording "
                      "and revision")
    form.add_argument("--ktap", action="store_true", help="print them as KTAP, for readers of kernel test results")
    form.add_argument("--brief", action="store_true", help="print a line for each, and of what is not PASS why; no "
                      "tables")
    form.add_argument("--mail", action="store_true", help="print five lines for each, and a table, to paste into a "
                      "mail: 72 columns")
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay each recording and print what was found."""
    if arguments.list_checks:
        print(table([("check", "compares"), *((c.id, c.doc) for c in CHECKS.values()),
                     ("counter.*", "one per counter that a snapshot holds: its value at each snapshot")]))
        return 0
    if not arguments.recording:
        raise BadInput("replay", "", "no recording was named", "make one with 'zreplay import SRC -o REC'")
    revisions: list[str | None] = arguments.revision or [None]
    loaded = {name: load_revision(name) for name in revisions}
    options = {"checks": sorted(set(arguments.check)) if arguments.check else None,
               "keep_going": arguments.keep_going, "pages": not arguments.no_pages, "engine": arguments.engine,
               "data": arguments.data}
    jobs = make_jobs(arguments.recording, revisions, loaded, options)
    lines_of = brief if arguments.brief else report
    return run_jobs(arguments, jobs, loaded, _with_branches if arguments.coverage else lines_of, _form(arguments),
                    lines=divergence_lines, after=all_branch_lines if arguments.coverage and len(jobs) > 1 else None)


def _with_branches(result: Result) -> Iterator[str]:
    """Yield a report's lines and all branches of the revision."""
    yield from report(result)
    yield ""
    yield from branch_lines(result.revision, result.branches)
    for head, kinds in (("taken from the recording, not judged:", result.taken),
                        ("in no event of this recording:", result.unseen)):
        if kinds:
            yield ""
            yield head
            yield from (f"  {what}" for what in kinds)


def _form(arguments: argparse.Namespace) -> Form | None:
    """Return the format of the results, None on a terminal."""
    if arguments.json:
        return Json()
    if arguments.ktap:
        return Ktap(divergence_lines)
    if arguments.mail:
        given = [word for check in arguments.check or () for word in ("--check", check)]
        given += [option for option, on in (("--keep-going", arguments.keep_going), ("--no-pages", arguments.no_pages),
                                          ("--data", arguments.data))
                  if on]
        return MailFormat(given + (["--engine", arguments.engine] if arguments.engine else []))
    return None


def _heading(result: Result) -> Iterator[str]:
    """Yield the verdict, what was replayed against what, and why the verdict is not PASS."""
    first, *rest = wrapped(f"{result.verdict}  {result.recording}: {result.events:,} events of kernel {result.kernel} "
                           f"({result.compressor}) against {result.revision}", 1 << 20)
    # What colours it has no width.
    yield painted(result.verdict) + first.removeprefix(result.verdict)
    yield from rest
    for reason in result.reasons:
        yield from wrapped(f"  {reason}", 1 << 20)


def brief(result: Result) -> Iterator[str]:
    """Yield the verdict's line, why it is not PASS, and the first divergence in one sentence."""
    yield from _heading(result)
    if result.divergences:
        first = result.divergences[0]
        yield from wrapped(f"  {first.check} at event {first.event}: {first.what}: recorded {value(first.recorded)}, "
                           f"predicted {value(first.predicted)}", 1 << 20)


def report(result: Result) -> Iterator[str]:
    """Yield the lines of a result for people: verdict first, then every check, then the first divergence."""
    yield from _heading(result)
    rows = [("check", "compared", "different", "grade")]
    for check in result.checks:
        rows.append((check.id, f"{check.compared:,}", check.differences if check.compared else "-", check.grade))
    yield table(rows, right=[1, 2])
    for reason in dict.fromkeys(check.reason for check in result.checks if check.reason):
        names = [check.id for check in result.checks if check.reason == reason]
        yield from wrapped(f"{', '.join(names)}: {reason}")
    following = sum(check.following for check in result.checks)
    if following:
        yield from wrapped(f"+: {following:,} differences that may follow from an earlier one: kernel and model have "
                           f"been in different states since")
    explained = ", ".join(f"{count:,} {how}" for how, count in result.explained.items())
    yield from wrapped(f"events that are not an effect of an operation: {explained or 'none'}; "
                       f"unexplained: {result.unexplained:,}")
    if result.branches:
        yield from wrapped(f"{sentence(result.revision, result.branches)}; {unjudged(result.taken, result.unseen)}; "
                           "--coverage lists them")
    for note in result.notes:
        yield from wrapped(f"note: {note}")
    total = sum(check.compared for check in result.checks)
    engine = f", {result.compiled:,} events by the compiled engine" if result.engine == "fast" else ""
    yield (f"{total:,} comparisons in {result.seconds['replay']:.2f} s{engine}, pages took "
           f"{result.seconds['compress']:.2f} s" + (
               f", compiling {result.seconds['compile']:.2f} s" if result.seconds.get("compile", 0) >= 0.005 else ""))
    if result.divergences:
        yield ""
        yield from divergence_lines(result.divergences[0])
        if result.explained_by is not None:
            further = ", ".join(result.explained_by) or "no shipped revision"
            yield from wrapped(f"revisions that do not diverge here: {further}")
        elif result.verdict == "FAIL":
            yield "other revisions were not tried: too many events lie before it"
        for other in result.divergences[1:]:
            yield (f"also {other.check} at event {other.event} ({other.name}): {other.what}: recorded "
                   f"{value(other.recorded)}, predicted {value(other.predicted)}{follows(other)}")


def follows(divergence: Divergence) -> str:
    """Return what a divergence may be a consequence of, in brackets; nothing for one of its own."""
    return "" if divergence.follows is None else f" (may follow from the difference at event {divergence.follows})"


def divergence_lines(divergence: Divergence) -> Iterator[str]:
    """Yield a divergence in full: both values, where, both states, the events around it."""
    yield (f"first divergence: {divergence.check} at event {divergence.event}, "
           f"{moment(divergence.ts, divergence.stamps)}")
    yield f"  what       {divergence.what} ({divergence.name}, task {divergence.pid}, CPU {divergence.cpu})"
    yield f"  recorded   {value(divergence.recorded)}"
    yield f"  predicted  {value(divergence.predicted)}"
    if divergence.path:
        yield "  inside     " + " > ".join(f"{name} (event {start})" for name, start in divergence.path)
    for key, held in divergence.state.items():
        yield f"  model      {key} = {value(held)}"
    for key, held in divergence.kernel.items():
        yield f"  kernel     {key} = {value(held)}"
    yield "  events around it, as recorded:"
    yield from (f"  {line}" for line in divergence.context)


def value(item: Any) -> str:
    """Return a value for people: addresses in hex, tuples and dicts part by part."""
    if isinstance(item, tuple | list):
        return "(" + ", ".join(value(part) for part in item) + ")"
    if isinstance(item, dict):
        return ", ".join(f"{key}={value(part)}" for key, part in item.items())
    if isinstance(item, int) and not isinstance(item, bool) and item >= 1 << 32:
        return hex(item)
    return str(item)
