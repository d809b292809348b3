# SPDX-License-Identifier: GPL-2.0-or-later
"""A report's sections as HTML, each with its heading: verdict, checks, divergence, revisions, reasons, commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from replay.reference.checks import CHECKS, Divergence
from replay.regress.compare import MeasureVerdict
from replay.regress.table import change, number, spread
from replay.report.consequences import RESPECTS
from replay.report.markup import Markup, folded, join, row, table, tag
from replay.report.reportdata import Material
from replay.report.reproduce import commands
from replay.report.story import divergence_paragraphs, parting_sentence, regression_sentence, shown, verdict_sentence
from replay.revdiff.freerun import OperationOutcome
from replay.revdiff.lockstep import Cause, broken
from replay.revdiff.operations import skipped
from replay.tools.coverage import seen
from replay.verdict.result import CheckResult, Result
from traces.times import no_seconds

__all__ = ["base_and_patched", "checks", "divergence", "reasons", "reproduce", "revisions", "title", "verdict"]

#: A verdict's sign next to its word.
_SIGNS: Final = {"PASS": "\u2713", "FAIL": "\u2717", "UNDECIDED": "?", "SKIP": "\u2013"}
_CLASSES: Final = re.compile(r"counter\.zsmalloc\.class\d")
_MOST: Final = 20


def _word(verdict: str) -> Markup:
    return tag("span", tag("span", _SIGNS.get(verdict, "?") + " ", aria_hidden="true"), verdict,
               class_=f"word {verdict}")


def verdict(material: Material) -> Markup:
    """Return the verdict in one sentence, and what it is of."""
    result, recording = material.result, material.recording
    said = [tag("h1", _word(result.verdict), verdict_sentence(result))]
    if material.parting is not None:
        said.append(tag("p", tag("strong", "Two revisions: "), parting_sentence(material.parting)))
    if material.regression is not None:
        said.append(tag("p", tag("strong", "Base and patched: "), regression_sentence(material.regression)))
    facts = [("recording", result.recording), ("kernel", result.kernel or "not known"),
             ("compressor", result.compressor or "not known"),
             ("revision", f"{result.revision}{f', mirrors {result.mirrors}' if result.mirrors else ''}")]
    span = ""
    if material.recorded is not None:
        stamps = material.recorded.stamps
        span = f"; {no_seconds(stamps)}" if stamps else f", recorded in {material.recorded.span:.3f} s"
    facts.append(("events", f"{result.events:,} replayed"
                  + (f" of {len(recording):,}{span}" if recording is not None else "")))
    if recording is not None:
        facts += _facts(recording.manifest)
    rows = join(part for name, text in facts for part in (tag("dt", name), tag("dd", text)))
    return tag("header", *said, tag("dl", rows), data_verdict=result.verdict, data_events=result.events,
               data_revision=result.revision)


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    kernel, config = manifest["kernel"], manifest["config"]
    params = config.get("params", {})
    facts = [("kernel release", str(kernel.get("release") or "not recorded"))]
    if kernel.get("build_id"):
        facts.append(("build id", str(kernel["build_id"])))
    memory = f"{config['totalram_pages']:,} pages" if isinstance(config.get("totalram_pages"), int) else "not recorded"
    limit = params.get("max_pool_percent") if isinstance(params, dict) else None
    facts.append(("memory", memory + (f", pool limit {limit} %" if limit is not None else "")))
    facts.append(("zsmalloc chain size", str(config.get("chain_size", "not recorded"))))
    return facts


# ---- checks ----------------------------------------------------------------------------------------------


def checks(material: Material) -> Markup:
    """Return every check: how often compared, how often different, grade and reason."""
    found = material.result.checks
    compared = sum(check.compared for check in found)
    differ = [check.id for check in found if check.different]
    untold = sum(not check.compared for check in found)
    did = len(found) - untold
    summary = (f"{compared:,} comparisons by {did:,} check{'s' * (did != 1)}; "
               + (f"different: {', '.join(differ[:_MOST])}{' and more' if len(differ) > _MOST else ''}"
                  if differ else "none different")
               + f"; {untold:,} checks had nothing to compare, and say why.")
    if material.recording is not None and 0 < material.result.events < len(material.recording):
        summary += f" The replay ended after event {material.result.events - 1:,} of {len(material.recording):,}."
    classes = [check for check in found if _CLASSES.match(check.id)]
    rest = [check for check in found if not _CLASSES.match(check.id)]
    parts = [tag("h2", "Checks", id="checks"), tag("p", summary)]
    if rest:
        parts.append(_table("Checks of effects and counters", rest))
    if classes:
        total, other = sum(each.compared for each in classes), sum(each.different for each in classes)
        said = (f"{len(classes):,} checks of zsmalloc's size classes at snapshots: {total:,} comparisons, {other:,} "
                "different")
        parts.append(folded(said, _table("Checks of size classes", classes), len(classes), unfold=other > 0))
    return tag("section", *parts, aria_labelledby="checks")


def _table(caption: str, members: Sequence[CheckResult]) -> Markup:
    rows = []
    for check in members:
        doc = CHECKS[check.id].doc if check.id in CHECKS else ""
        name = join([tag("code", check.id), tag("span", doc, class_="doc") if doc else None])
        outcome = "differs" if check.independent else "may follow" if check.different else \
            "equal" if check.compared else "not compared"
        cells = (name, f"{check.compared:,}", check.differences if check.compared else "-", outcome, check.grade,
                 check.reason)
        rows.append(row(cells, (1, 2), (3, 4), class_="differs" if check.different else None, data_check=check.id,
                        data_compared=check.compared, data_different=check.different, data_grade=check.grade))
    return table(caption, ("check", "compared", "different", "outcome", "grade", "reason"), rows, right=(1, 2))


# ---- the divergence --------------------------------------------------------------------------------------


def divergence(material: Material) -> Markup:
    """Return the first divergence as a story, or that there is none."""
    result = material.result
    parts = [tag("h2", "The first divergence", id="divergence")]
    if not result.divergences:
        parts.append(tag("p", "None: everything that was compared came out equal."
                         if any(check.compared for check in result.checks) else "None: nothing was compared."))
        return tag("section", *parts, aria_labelledby="divergence")
    first = result.divergences[0]
    start = material.recorded.first_ts if material.recorded is not None else None
    for heading, text in divergence_paragraphs(result, first, start):
        parts += [tag("h3", heading), tag("p", text)]
    parts.append(_states(first))
    parts += [tag("h3", "Events around it"), _events(first)]
    if len(result.divergences) > 1:
        rows = [(f"{each.event:,}", tag("code", each.check), each.name, each.what, shown(each.recorded),
                 shown(each.predicted), "" if each.follows is None else f"{each.follows:,}")
                for each in result.divergences[1:]]
        counted = sum(check.different for check in result.checks)
        note = f"{len(rows):,} more" + (f" of {counted:,} differences in all" if counted > len(rows) + 1 else "")
        parts += [tag("h3", "Further differences"),
                  table(note, ("event", "check", "at", "compared was", "recorded", "predicted",
                               "may follow from event"), rows, right=(0, 6))]
    return tag("section", *parts, aria_labelledby="divergence", data_event=first.event, data_check=first.check,
               data_recorded=shown(first.recorded), data_predicted=shown(first.predicted))


def _states(first: Divergence) -> Markup:
    rows = [("recorded and predicted", shown(first.recorded), shown(first.predicted))]
    rows += [(name, shown(first.kernel[name]) if name in first.kernel else "not seen here",
              shown(first.state[name]) if name in first.state else "-")
             for name in dict.fromkeys([*first.state, *first.kernel])]
    return table("Both states at this event", ("what", "kernel, as last recorded", "model"), rows)


def _events(first: Divergence) -> Markup:
    if not first.context:
        return tag("p", "The result does not hold them.")
    lines = [tag("span", line, class_="here") if line.startswith("->") else join([line]) for line in first.context]
    text = tag("pre", tag("code", join(lines, "\n")))
    time = "stamp of the clock" if first.stamps else "time in seconds"
    return join([tag("p", f"As recorded: number, {time}, CPU, task, event; an arrow marks the divergence.",
                     class_="quiet"),
                 tag("div", text, class_="scroll events", tabindex=0, role="group",
                     aria_label="Events around the divergence")])


# ---- two revisions ---------------------------------------------------------------------------------------


def revisions(material: Material) -> Markup | None:
    """Return where two revisions differ on this recording; None where one alone was asked for."""
    found = material.parting
    if found is None:
        return None
    one, other = found.names
    parts = [tag("h2", f"Where {other} differs from {one}", id="revisions"), tag("p", parting_sentence(found)),
             tag("p", "Both revisions ran the recorded operations by themselves, and were compared after each.",
                 class_="quiet")]
    for name, problems in zip(found.names, found.problems, strict=True):
        kinds = broken(problems)
        if kinds:
            rows = [row((f"{kind.event:,}", f"{kind.times:,}", kind.sentence), (0, 1)) for kind in kinds[:_MOST]]
            first = f", the first {_MOST} kinds of them" if len(kinds) > _MOST else ""
            parts += [tag("h3", f"Invariants that {name} breaks"),
                      table(f"{len(problems):,} times{first}; an invariant holds whatever the code is",
                            ("first at event", "times", "what is wrong"), rows, right=(0, 1))]
    if found.causes:
        rows = [row((cause.sentence, RESPECTS[cause.respect], f"{cause.operations:,}",
                     f"{cause.first[0].operation.event:,}"), (2, 3), data_respect=cause.respect,
                    data_operations=cause.operations, data_event=cause.first[0].operation.event)
                for cause in found.causes[:_MOST]]
        more = f", {len(found.causes) - _MOST:,} more not shown" if len(found.causes) > _MOST else ""
        parts.append(table(f"Groups of operations that differ, the gravest first{more}",
                           ("what differs", "at stake", "operations", "first at event"), rows, right=(2, 3)))
    if found.causes:
        parts += [tag("h3", "The first of the gravest, side by side"), _outcomes(found.causes[0], found.names)]
    return tag("section", *parts, aria_labelledby="revisions", data_operations=found.operations)


def _outcomes(cause: Cause, names: tuple[str, str]) -> Markup:
    """Return what an operation did under both revisions."""
    operation = cause.first[0].operation

    def cells(outcome: OperationOutcome) -> list[str]:
        stored = "; ".join(f"{slot:#x}: {length:,} bytes{' as it is' * raw}"
                           for slot, (length, raw) in outcome.stored.items())
        return [str(outcome.result), outcome.data or "-", stored or "-",
                ", ".join(f"{name} {moved:+,}" for name, moved in sorted(outcome.counters.items())) or "-",
                ", ".join(str(pages) for pages in outcome.calls) or "-", f"{len(outcome.effects):,}",
                "; ".join(outcome.problems) or "-"]

    labels = ("returns", "page read back", "kept in the pool", "counters", "pages of each compress call", "effects",
              "invariants broken")
    rows = [(label, one, other, "differs" if one != other else "equal")
            for label, one, other in zip(labels, *map(cells, cause.first), strict=True)]
    at = f"{operation.kind} at swap entry {operation.swpent:#x}, order {operation.order}, event {operation.event:,}"
    return table(at, ("what", *names, "outcome"), rows)


# ---- base and patched ------------------------------------------------------------------------------------


def base_and_patched(material: Material) -> Markup | None:
    """Return the comparison of base and patched; None for a single recording."""
    result = material.regression
    if result is None:
        return None
    parts = [tag("h2", "Base and patched", id="regression"), tag("p", regression_sentence(result))]
    rows = [(f"{side}, run {i}", run.recording, run.kernel, run.compressor, f"{len(run.operations.events):,}",
             "; ".join(run.losses) or "none")
            for side, runs in (("base", result.base), ("patched", result.patched)) for i, run in enumerate(runs, 1)]
    parts.append(table("Recordings", ("run", "recording", "kernel", "compressor", "operations", "losses"), rows,
                       right=(4,)))
    moved = [check for verdict in ("worse", "better") for check in result.of(verdict)]
    if moved:
        parts.append(table("What is worse or better", ("measure", "base", "spread", "patched", "spread", "change",
                                                       "verdict"), [_measure(check) for check in moved], range(1, 6)))
    if result.notes:
        parts.append(tag("ul", *(tag("li", note) for note in result.notes)))
    return tag("section", *parts, aria_labelledby="regression", data_verdict=result.verdict)


def _measure(check: MeasureVerdict) -> Markup:
    base, patched = ("-" if side is None else number(side.mean, check.measure.unit)
                     for side in (check.base, check.patched))
    name = join([check.measure.doc, tag("span", tag("code", check.id), class_="doc")])
    return row((name, base, spread(check.base), patched, spread(check.patched), change(check), check.verdict),
               range(1, 6), class_="differs" if check.verdict == "worse" else None, data_measure=check.id,
               data_verdict=check.verdict)


# ---- the rest --------------------------------------------------------------------------------------------


def reasons(material: Material) -> Markup:
    """Return why the verdict is not PASS, and what else the replay has to say."""
    result = material.result
    parts = [tag("h2", "Reasons and notes", id="reasons")]
    if result.reasons:
        parts += [tag("p", f"Why the verdict is {result.verdict}:" if result.verdict == "UNDECIDED" else
                      "What keeps the recording from a full verdict:"),
                  tag("ul", *(tag("li", reason) for reason in result.reasons))]
    else:
        parts.append(tag("p", "Nothing speaks against the verdict: no event is known to be missing."))
    explained = ", ".join(f"{count:,} {how}" for how, count in result.explained.items()) or "none"
    notes = [f"Events that are not effects of an operation: {explained}; unexplained: {result.unexplained:,}",
             *result.notes, *material.notes]
    if material.parting is not None:
        notes += material.parting.notes
        if material.parting.operations:
            notes.append(f"branches: {seen(material.parting.names, material.parting.branches)}")
        notes += skipped(material.parting.left_out)
    parts += [tag("p", "Besides:"), tag("ul", *(tag("li", note) for note in notes))]
    return tag("section", *parts, aria_labelledby="reasons")


def reproduce(material: Material) -> Markup:
    """Return the commands that show all of it again."""
    rows = [(what, tag("code", line)) for what, line in commands(material)]
    return tag("section", tag("h2", "How to reproduce", id="reproduce"),
               table("To be run where the recordings lie", ("to see", "command"), rows), aria_labelledby="reproduce")


def title(result: Result) -> str:
    """Return the page's title."""
    return f"{result.verdict}: {result.recording.rstrip('/').rpartition('/')[2]} against {result.revision}"
