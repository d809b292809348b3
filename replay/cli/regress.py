# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay regress``: is a patched kernel worse than its base?"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from replay.cli.revisions import two_revisions
from replay.cli.terminal import fitting, steps, table, wrapped
from replay.regress import b4
from replay.regress.catalogue import Better
from replay.regress.compare import MARGIN, VERDICTS, MeasureVerdict, Regression, regress
from replay.regress.table import (
    change,
    compressors,
    exact_words,
    folios,
    groups,
    is_zero,
    kernels,
    mail,
    number,
    plain,
    share_words,
    spread,
    test_words,
)
from traces.errors import BadInput
from traces.recording import Recording

__all__ = ["add_parser", "report"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "regress", help="is a patched kernel worse than its base, and where do two revisions differ",
        description="Measure recordings of two kernels and say of each measure whether the patched one is the same, "
                    "better or worse. Give three or more runs of each, of one workload: fewer allow no test. Exit "
                    "status: 1 something is worse, 0 nothing is, 2 unreadable, 3 inconclusive.")
    parser.add_argument("recording", nargs="?", metavar="REC", help="a recording to compare two revisions on, with "
                        "--revision A --revision B")
    parser.add_argument("--revision", action="append", metavar="R", help="a shipped name or FILE.py:CLASS; twice")
    parser.add_argument("--faults", metavar="FILE", help="with two revisions: a plan of what fails in both, as JSON: "
                        '{"faults": [{"at": "compress", "page": 514, "error": "EIO"}]}')
    parser.add_argument("--base", nargs="+", metavar="REC", help="runs of the base kernel")
    parser.add_argument("--patched", nargs="+", metavar="REC", help="runs of the patched kernel")
    parser.add_argument("--margin", type=_percent, default=MARGIN, metavar="PERCENT",
                        help=f"a change that does not count, in percent of the base (default: {100 * MARGIN:g})")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the result as JSON")
    form.add_argument("--mail", action="store_true", help="print a table to paste into a mail, of 75 columns")
    form.add_argument("--brief", action="store_true", help="of two revisions: in what they differ, without the first "
                      "difference in full")
    form.add_argument("--b4", action="store_true",
                      help="read a patch mail from standard input, look its series up in the configuration, and "
                           "answer as b4's review checks want it")
    parser.add_argument("--config", metavar="FILE", help="with --b4: which recordings belong to which series "
                        "(default: zreplay/series.toml in XDG_CONFIG_HOME or ~/.config)")
    parser.set_defaults(run=run, stray="two recordings, and it is not said which is the base; give --base REC [REC "
                        "...] --patched REC [REC ...], or one REC with --revision A --revision B")


def _percent(text: str) -> float:
    """Parse a margin."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    # NaN compares false.
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of percent from 0 to 100")
    return value / 100


def run(arguments: argparse.Namespace) -> int:
    """Hold two sets of recordings against each other, or answer b4."""
    if arguments.b4:
        return _b4(arguments)
    if arguments.recording or arguments.revision:
        if not arguments.recording or arguments.base or arguments.patched or arguments.mail:
            raise BadInput("regress", "", "two revisions are compared on one recording",
                           "give REC --revision A --revision B")
        return two_revisions(arguments.recording, arguments.revision or [], arguments.json, arguments.faults,
                             arguments.brief)
    if not arguments.base or not arguments.patched:
        raise BadInput("regress", "", "two sets of recordings are needed",
                       "give --base REC [REC ...] --patched REC [REC ...]")
    if arguments.brief:
        raise BadInput("--brief", "", "is of two revisions on one recording", "leave it out: every check counts here")
    result = _regress(arguments.base, arguments.patched, arguments.margin)
    if arguments.json:
        print(json.dumps(result.as_dict(), allow_nan=False))
    else:
        print("\n".join(mail(result) if arguments.mail else report(result)))
    return result.exit_status


def _regress(base: list[str], patched: list[str], margin: float) -> Regression:
    sides = [[Recording(path) for path in paths] for paths in (base, patched)]
    with steps() as progress:
        return regress(*sides, margin=margin, progress=progress)


def _b4(arguments: argparse.Namespace) -> int:
    """Answer b4: it reads JSON from standard output whatever the exit status, and shows nothing of standard error."""
    if arguments.base or arguments.patched:
        raise BadInput("regress", "", "--b4 takes its recordings from the configuration, not from --base and --patched",
                       "leave them out")
    problem = ""
    try:
        path = Path(arguments.config) if arguments.config else b4.default_config(os.environ)
        series = b4.read_config(path, needed=arguments.config is not None)
        answer, status = b4.answer(sys.stdin.buffer, series, arguments.margin, _regress)
    except BadInput as trouble:
        problem = str(trouble)
        answer, status = [b4.check("fail", f"nothing was compared: {problem}")], 2
    print(json.dumps(answer, indent=1))
    if problem:
        print(f"zreplay: {problem}", file=sys.stderr)
    return status


def report(result: Regression) -> Iterator[str]:
    """Yield the lines of a result for people: verdict, what it rests on, then every check."""
    counts = ", ".join(f"{len(result.of(verdict)):,} {verdict}" for verdict in VERDICTS)
    yield (f"{result.verdict.upper()}  {kernels(result.patched)}, against {kernels(result.base)}; "
           f"{compressors(result)}: {len(result.checks):,} checks, {counts}")
    for label, text in (("share", share_words(result)), ("folios", folios(result)), ("test", test_words(result)),
                        ("exact", exact_words(result)), ("pages", result.pages.text())):
        yield from textwrap.wrap(f"{label:<8}{text}", fitting(100), subsequent_indent=" " * 8, break_on_hyphens=False)
    for note in result.notes:
        yield from wrapped(f"note: {note}", 100)
    rows: list[tuple[str, ...]] = [("", "base", "spread", "patched", "spread", "change", "p", "p same", "verdict")]
    for verdict in ("worse", "better"):
        found = result.of(verdict)
        if found:
            rows.append((f"{verdict}:", *[""] * 8))
            rows += [_row(check) for check in found]
    # What is 0 in every run is listed by name below.
    for heading, members in groups([check for check in (*result.facts, *result.checks) if not is_zero(check)]):
        rows.append((f"{heading}:", *[""] * 8))
        rows += [_row(check) for check in members]
    yield from _with_headings(rows)
    for verdict in VERDICTS:
        names = [check.id for check in result.checks if is_zero(check) and check.verdict == verdict]
        if names:
            yield from wrapped(f"0 in every run, {verdict}: {', '.join(names)}", 100)
    reasons: dict[str, list[str]] = {}
    for check in result.checks:
        if check.reason and check.verdict != "same":
            reasons.setdefault(f"{check.verdict}, {check.reason}", []).append(check.id)
    for reason, names in reasons.items():
        yield from wrapped(f"{reason}: {', '.join(names)}", 100)


def _row(check: MeasureVerdict) -> tuple[str, ...]:
    base, patched = ("-" if side is None else number(side.mean, check.measure.unit)
                     for side in (check.base, check.patched))
    verdict = "-" if check.measure.better is Better.NEITHER else check.verdict
    return (f"  {plain(check.id)}", base, spread(check.base), patched, spread(check.patched), change(check),
            _p(check.p_different), _p(check.p_same), verdict)


def _with_headings(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield a table's lines; headings stand alone and do not widen the first column."""
    full = [row for row in rows if row[-1]]
    lines = iter(table(full, right=range(1, 8), fit=False).splitlines())
    for row in rows:
        yield next(lines) if row[-1] else row[0]


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"
