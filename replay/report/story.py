# SPDX-License-Identifier: GPL-2.0-or-later
"""A result as sentences: the verdict in one, and the first divergence described from both sides."""

from __future__ import annotations

from typing import Any, Final

from replay.reference.checks import CHECKS, Divergence
from replay.regress.compare import VERDICTS, Regression
from replay.report.consequences import in_this_case, stake
from replay.revdiff.lockstep import Parting
from replay.verdict.result import Result
from traces import schema
from traces.times import clock, moment

__all__ = ["divergence_paragraphs", "parting_sentence", "regression_sentence", "shown", "verdict_sentence"]

_DOCS: Final = {kind.name: kind.doc for kind in schema.EVENTS}
#: What takes a revision's own words is cut here: the whole of it stands in the story.
_LONG: Final = 80


def shown(item: Any) -> str:
    """Return a value for people: addresses in hex, lists and dicts part by part."""
    if isinstance(item, tuple | list):
        return "(" + ", ".join(shown(part) for part in item) + ")"
    if isinstance(item, dict):
        return ", ".join(f"{key}={shown(part)}" for key, part in item.items())
    if isinstance(item, int) and not isinstance(item, bool) and item >= 1 << 32:
        return hex(item)
    return str(item)


def _short(item: Any) -> str:
    text = shown(item)
    return text if len(text) <= _LONG else text[:_LONG - 3] + "..."


def verdict_sentence(result: Result) -> str:
    """Return the verdict in one sentence."""
    kernel = f"kernel {result.kernel or 'of unknown release'} ({result.compressor or 'compressor not known'})"
    compared = sum(check.compared for check in result.checks)
    checks = sum(check.compared > 0 for check in result.checks)
    made = f"{compared:,} comparisons by {checks:,} check{'s' * (checks != 1)} over {result.events:,} events"
    if result.verdict == "PASS":
        return f"K{kernel[1:]} did what {result.revision} says: {made}, none different."
    if result.verdict == "FAIL" and result.divergences:
        first = result.divergences[0]
        # Of an invariant the difference says whether the revision breaks it, too.
        does = "breaks an invariant" if first.check.startswith("invariant.") else \
            f"does not do what {result.revision} says"
        return (f"K{kernel[1:]} {does}: at event {first.event:,}, {first.what}: recorded {_short(first.recorded)}, "
                f"predicted {_short(first.predicted)} ({first.check}).")
    if result.verdict == "FAIL":
        return f"K{kernel[1:]} does not do what {result.revision} says: {made}."
    why = result.reasons[0] if result.reasons else "no reason was given"
    if result.verdict == "UNDECIDED":
        return f"Whether {kernel} does what {result.revision} says is not known: {why}."
    return f"Nothing was checked of {kernel}: {why}."


def parting_sentence(found: Parting) -> str:
    """Return where two revisions differ in one sentence."""
    one, other = found.names
    different, groups = sum(cause.operations for cause in found.causes), len(found.causes)
    if not found.operations:
        return f"No operation of this recording could be run through {one} and {other}."
    if not found.causes:
        said = f"{other} does with {found.operations:,} operations of this recording what {one} does"
    else:
        said = (f"{different:,} of {found.operations:,} operations of this recording differ between {one} and {other} "
                f"({groups:,} group{'s' * (groups != 1)}); gravest: {found.causes[0].sentence}")
    broken = [f"{name} breaks an invariant {len(problems):,} time{'s' * (len(problems) > 1)}"
              for name, problems in zip(found.names, found.problems, strict=True) if problems]
    return "; ".join([said, *broken]) + "."


def regression_sentence(result: Regression) -> str:
    """Return the comparison of base and patched in one sentence."""
    said = "neither found worse nor cleared" if result.verdict == "undecided" else result.verdict
    counts = ", ".join(f"{len(result.of(verdict)):,} {verdict}" for verdict in VERDICTS)
    return f"The patched kernel is {said}: {len(result.checks):,} checks, {counts}; {result.share}."


def divergence_paragraphs(result: Result, divergence: Divergence, first_ts: int | None = None) -> list[tuple[str, str]]:
    """Return a divergence as (heading, paragraph): what the kernel did, what the revision says, what that means.

    :param first_ts: time of the recording's first event in ns, where it is known
    """
    stamps = divergence.stamps
    after = (f", {moment(divergence.ts - first_ts, '')} after the first event" if first_ts is not None and not stamps
             else "")
    on = f"of {clock(stamps)}, which counts no seconds" if stamps else "on the trace clock"
    inside = " inside ".join(f"{name}() (since event {start:,})" for name, start in reversed(divergence.path))
    if divergence.name == "counters":
        who = "A snapshot of counters was taken"
    else:
        who = (f"Task {divergence.pid} on CPU {divergence.cpu} was "
               + (f"inside {inside}" if inside else "in no operation that the replay knows of"))
    event = f"event {divergence.event:,}, {divergence.name}{_doc(divergence.name)}"
    place = f"{who} at {event}, {moment(divergence.ts, stamps)} {on}{after}."
    mirrors = f" ({result.mirrors})" if result.mirrors else ""
    if divergence.check == "effect.order":
        went = "this" if divergence.recorded == divergence.name else \
            f"{shown(divergence.recorded)}{_doc(divergence.recorded)}"
        kernel = f"{place} The kernel continued with {went}."
        says = (f"{result.revision}{mirrors} says that {shown(divergence.predicted)}"
                f"{_doc(divergence.predicted)} comes here.")
    else:
        kernel = f"{place} Compared was: {divergence.what}. Recorded: {shown(divergence.recorded)}."
        says = f"{result.revision}{mirrors} predicts: {shown(divergence.predicted)}."
    doc = CHECKS[divergence.check].doc if divergence.check in CHECKS else "a counter's value at each snapshot"
    word, why = stake(divergence.check)
    here = in_this_case(divergence.check, divergence.recorded, divergence.predicted)
    meaning = f"At stake: {word}. {why}{f' {here}' if here else ''} The check is {divergence.check}: {doc}."
    return [("What the kernel did", kernel), ("What the revision says", says), ("What that means", meaning),
            ("How far the replay got", _rest(result, divergence))]


def _doc(name: Any) -> str:
    doc = _DOCS.get(name, "") if isinstance(name, str) else ""
    return f" ({doc})" if doc else ""


def _rest(result: Result, divergence: Divergence) -> str:
    """Say what was compared after a divergence, and who else explains it."""
    others = len(result.divergences) - 1
    following = sum(each.follows is not None for each in result.divergences)
    may = f" ({following:,} of them may follow from an earlier one)" if following else ""
    if result.events > divergence.event + 1:
        went = (f"The replay continued to event {result.events - 1:,} and found {others:,} more{may}, listed below"
                if others else f"The replay continued to event {result.events - 1:,} and found no other")
    else:
        went = "The replay ends here: nothing after it was compared"
    if result.explained_by is None:
        tried = "other revisions were not tried"
    elif not result.explained_by:
        tried = "every other shipped revision diverges here too"
    else:
        tried = f"revisions that do not diverge here: {', '.join(result.explained_by)}"
    return f"{went}; {tried}."
