# SPDX-License-Identifier: GPL-2.0-or-later
"""A regression's result as a table to paste into a mail, and how its values are written.

The table has the columns that cover letters of mm have: what, base, patched, change.  It is plain ASCII of at
most :data:`MAIL_WIDTH` columns, whatever the values and names.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from replay.regress.catalogue import Better
from replay.regress.compare import ALIKE, ALPHA, PAGES, VERDICTS, WHOLE, MeasureVerdict, Regression
from replay.regress.measures import Run
from replay.regress.statistics import LEAST_RUNS, KernelRuns

__all__ = ["MAIL_WIDTH", "change", "compressors", "exact_words", "folios", "groups", "is_zero", "kernels", "mail",
           "number", "plain", "share_words", "spread", "test_words"]

MAIL_WIDTH: Final = 75
_NAME, _VALUE, _CHANGE, _SPREAD, _VERDICT = 26, 11, 8, 6, 6
_INDENT: Final = 18
_SHORT: Final = {"same": "same", "better": "better", "worse": "WORSE", "inconclusive": "?"}
_SCOPES: Final = {ALIKE: "on the same operations, compared exactly", PAGES: "on the same page contents",
                  WHOLE: "over whole runs"}


def plain(text: str) -> str:
    """Return text as printable ASCII in one line: names come from other people's machines."""
    return " ".join("".join(c if " " <= c <= "~" else " " if c.isspace() else "?" for c in text).split())


def number(value: float | None, unit: str = "", width: int = 13) -> str:
    """Return a value in at most ``width`` columns (7 or more): with separators, or with an exponent."""
    if value is None:
        return "-"
    if unit == "share":
        texts = [f"{100 * value:.2f}%", f"{100 * value:.1e}%"]
    elif not math.isfinite(value):
        texts = [str(value)]
    elif value == int(value):
        texts = [f"{int(value):,}", str(int(value))]
    else:
        texts = [f"{value:,.{0 if abs(value) >= 10_000 else 2 if abs(value) >= 100 else 4}f}", f"{value:.0f}"]
    return _first([*texts, f"{value:.3e}", f"{value:.0e}"], width)


def change(check: MeasureVerdict, width: int = _CHANGE) -> str:
    """Return a check's change in percent; a multiple from ten times on, ``new`` where the base has none."""
    if check.base is None or check.patched is None:
        return "-"
    share = check.change
    if share is None:
        return "new"
    if not share:
        return "0%"
    digits = 1 if abs(share) >= 0.001 else 2
    texts = [f"x{1 + share:.3g}", f"x{1 + share:.1e}"] if share >= 9 else [f"{100 * share:+.{digits}f}%"]
    return _first([*texts, f"{100 * share:+.0e}%"], width)


def _first(texts: Sequence[str], width: int) -> str:
    """Return the first text that fits."""
    return next((text for text in texts if len(text) <= width), "..")


def spread(side: KernelRuns | None, width: int = _SPREAD) -> str:
    if side is None or side.spread is None:
        return "-"
    return _first([f"{100 * side.spread:.1f}%", f"{100 * side.spread:.0f}%", ">999%"], width)


def is_zero(check: MeasureVerdict) -> bool:
    """True when every run has 0."""
    return all(side is not None and not any(side.values) for side in (check.base, check.patched))


def groups(checks: Sequence[MeasureVerdict]) -> Iterator[tuple[str, list[MeasureVerdict]]]:
    """Yield (heading, checks) by scope and group, as they first come."""
    groups: dict[tuple[str, str], list[MeasureVerdict]] = {}
    for check in checks:
        groups.setdefault((check.scope, check.measure.group), []).append(check)
    for scope in _SCOPES:
        for (of, group), members in groups.items():
            if of == scope:
                yield f"{group}, {_SCOPES[scope]}", members


def kernels(runs: Sequence[Run]) -> str:
    return f"{plain(runs[0].kernel)}, {len(runs)} run{'s' if len(runs) != 1 else ''}"


def folios(result: Regression) -> str:
    """Return the folio sizes of the stores, by the pages they had."""
    orders: dict[int, int] = {}
    for run in result.runs:
        for order, pages in run.orders.items():
            orders[order] = orders.get(order, 0) + pages
    total = sum(orders.values())
    return ", ".join(f"{4 << order} KiB ({100 * pages / total:.0f}% of pages)"
                     for order, pages in sorted(orders.items())) or "none stored"


def compressors(result: Regression) -> str:
    names = [plain(runs[0].compressor) for runs in (result.base, result.patched)]
    return names[0] if names[0] == names[1] else f"{names[0]} (base), {names[1]} (patched)"


def test_words(result: Regression) -> str:
    if not result.tests:
        return f"none: a test needs {LEAST_RUNS} runs of each kernel, and values that spread"
    return (f"Welch's t-test at {100 * ALPHA:.0f}%, Holm's correction for {result.tests} tests; \"same\" is a change "
            f"within {100 * result.margin:g}% (two one-sided tests, corrected likewise)")


def share_words(result: Regression) -> str:
    """Return how many checks are conclusive of how many, and what that is enough for."""
    return f"{result.why}: {result.share}" if result.losses else result.share


def exact_words(result: Regression) -> str:
    total = max(len(run.operations.events) for run in result.runs)
    if not result.alike.count:
        return f"nothing ({result.alike.why})"
    return f"counts on the first {result.alike.count:,} of {total:,} operations, alike in all runs"


# ---- for a mail ------------------------------------------------------------------------------------------


def mail(result: Regression) -> Iterator[str]:
    """Yield the lines of a table for a mail."""
    yield from _head("base", kernels(result.base))
    yield from _head("patched", kernels(result.patched))
    yield from _head("compressor", compressors(result))
    yield from _head("folios", folios(result))
    yield from _head("exact", exact_words(result))
    yield from _head("test", test_words(result))
    yield from _head("verdict", f"{result.verdict}: " + ", ".join(f"{len(result.of(verdict))} {verdict}"
                                                                   for verdict in VERDICTS))
    yield from _head("share", share_words(result))
    yield ""
    shown = [check for check in (*result.facts, *result.checks) if not is_zero(check) and not _untested(check)]
    line = " " + "=" * (MAIL_WIDTH - 1)
    yield line
    yield _columns("", "base", "patched", "change", "spread", "")
    for heading, members in groups(shown):
        yield line
        yield from textwrap.wrap(plain(heading), MAIL_WIDTH - 2, initial_indent=" ", subsequent_indent=" ")
        for check in members:
            yield from _mail_row(check)
    yield line
    yield from _foot(result)


def _untested(check: MeasureVerdict) -> bool:
    """True when a check has no verdict for lack of runs: the mail says so once."""
    return check.verdict == "inconclusive" and check.scope == WHOLE and (
        check.base is None or check.patched is None or min(check.base.runs, check.patched.runs) < LEAST_RUNS)


def _head(label: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(plain(text), MAIL_WIDTH, initial_indent=f" {label:<{_INDENT - 1}}",
                             subsequent_indent=" " * _INDENT, break_on_hyphens=False) or [f" {label}"]


def _mail_row(check: MeasureVerdict) -> Iterator[str]:
    base, patched = ("-" if side is None else number(side.mean, check.measure.unit, _VALUE)
                     for side in (check.base, check.patched))
    spreads = [side.spread for side in (check.base, check.patched) if side is not None and side.spread is not None]
    wider = max((side for side in (check.base, check.patched) if side is not None and side.spread is not None),
                key=lambda side: side.spread or 0.0) if spreads else None
    verdict = "" if check.measure.better is Better.NEITHER else _SHORT[check.verdict]
    name, *more = textwrap.wrap(plain(check.measure.doc), _NAME - 2) or [""]
    yield _columns(f"  {name}", base, patched, change(check), spread(wider), verdict)
    yield from (f"     {words}" for words in more)


def _columns(name: str, base: str, patched: str, changed: str, spread: str, verdict: str) -> str:
    return (f" {name:<{_NAME}} {base:>{_VALUE}} {patched:>{_VALUE}} {changed:>{_CHANGE}} {spread:>{_SPREAD}} "
            f"{verdict:>{_VERDICT}}").rstrip()


def _foot(result: Regression) -> Iterator[str]:
    """Yield what the table does not show, and what must be known of what it shows."""
    texts = ["spread: the larger of the two sides' standard deviations, as a share of the mean. \"?\": inconclusive"]
    zero = [check for check in result.checks if is_zero(check) and not _untested(check)]
    if zero:
        texts.append(f"0 in every run: {'; '.join(dict.fromkeys(check.measure.doc for check in zero))}")
    untested = [check for check in result.checks if _untested(check)]
    if untested:
        texts.append(f"not shown, without a verdict: {len(untested)} of the measures over whole runs")
    texts += [result.pages.text(), *result.notes]
    yield ""
    for text in texts:
        yield from textwrap.wrap(plain(text), MAIL_WIDTH, initial_indent=" - ", subsequent_indent="   ",
                                 break_on_hyphens=False)
