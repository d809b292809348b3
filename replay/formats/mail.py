# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay for a mail: five lines for each pair, and a table for a cover letter.  Plain ASCII of at most 72 columns.

Mailers of kernel lists wrap what is longer.  What does not fit in its line is cut, and ends with ``...``.
"""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from replay.formats.subtests import one_line
from replay.many.jobs import JobOutcome, ReplayJob
from replay.verdict.result import CheckResult, Result
from traces import schema
from traces.errors import BadInput
from traces.recording import Recording

__all__ = ["WIDTH", "Asked", "MailFormat", "asked"]

WIDTH: Final = 72
_LABEL: Final = 10
_BY_CODE: Final = {schema.CODE["zswap_store"]: "stores", schema.CODE["zswap_load"]: "loads",
                   schema.CODE["zswap_invalidate"]: "invalidates"}


@dataclass
class Asked:
    """What was asked of zswap: ``counts`` of stores, loads and invalidates as recorded, in this order, without those
    that never came; ``orders``: folio order -> stores, None where the probe did not capture it."""

    counts: dict[str, int] = field(default_factory=dict)
    orders: dict[int, int] | None = None


def asked(recording: Recording) -> Asked:
    """Count a recording's operations and the folio orders of its stores.

    :raises BadInput: when a segment cannot be read
    """
    counts = np.zeros(256, np.int64)
    orders = np.zeros(256, np.int64)
    store = schema.CODE["zswap_store"]
    for _, columns in recording.batches(("event", "order")):
        counts += np.bincount(columns["event"], minlength=256)
        orders += np.bincount(columns["order"][columns["event"] == store], minlength=256)
    probe = recording.manifest["probes"].get("zswap_store", {})
    known = "order" in probe.get("columns", ()) or not counts[store]
    return Asked({name: int(counts[code]) for code, name in _BY_CODE.items() if counts[code]},
                 {int(order): int(orders[order]) for order in np.flatnonzero(orders)} if known else None)


class MailFormat:
    """Yields the lines, pair by pair, then the table.

    :param options: the command line besides recordings and revisions: what it takes to do it again
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = list(options)

    def head(self, jobs: Sequence[ReplayJob]) -> Iterator[str]:
        """Yield nothing."""
        yield from ()

    def one(self, job: ReplayJob, outcome: JobOutcome) -> Iterator[str]:
        """Yield a pair's five lines."""
        if job.number:
            yield ""
        result = outcome.result
        if result is None:
            yield from self._without(job, outcome)
            return
        try:
            facts = asked(Recording(job.recording, verify=False))
        except BadInput:
            # It was there a moment ago; a mail can do without this line.
            facts = None
        yield _line("zreplay", f"{result.verdict}: {_found(result)}")
        yield _line("kernel", f"{result.kernel} against {os.path.basename(result.revision)}, {result.compressor}, "
                    f"{_folios(facts)}")
        yield _line("did", *_did(facts, result.events))
        yield _line("checks", _sums(result.checks))
        yield self._again(job, result.revision)

    def _without(self, job: ReplayJob, outcome: JobOutcome) -> Iterator[str]:
        why = textwrap.wrap(_ascii(outcome.error), WIDTH - _LABEL, break_on_hyphens=False, max_lines=2,
                            placeholder=" ...")
        yield _line("zreplay", f"no verdict: {outcome.kind}")
        yield _line("recording", job.recording)
        yield from (_line(label, text) for label, text in zip(("why", ""), [*why, "-", "-"][:2], strict=True))
        yield self._again(job, job.revision)

    def _again(self, job: ReplayJob, revision: str | None) -> str:
        # A class in a user's file has to be named with its file.
        named = job.revision if job.revision is not None and ":" in job.revision else revision
        recording = os.path.basename(os.path.normpath(job.recording))
        words = ["zreplay", "replay", recording, *(["--revision", named] if named else []), *self._options]
        return _line("again", shlex.join(words))

    def foot(self, jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> Iterator[str]:
        """Yield the table: of one pair its checks, of several their verdicts."""
        results = [outcome.result for outcome in outcomes.values() if outcome.result is not None]
        if len(jobs) == 1 and results:
            yield ""
            yield from _check_table(results[0])
        elif len(jobs) > 1:
            yield ""
            yield from _verdict_table(jobs, outcomes)


def _found(result: Result) -> str:
    if result.verdict == "PASS":
        return f"{result.events:,} events as {os.path.basename(result.revision)} predicts"
    if result.verdict == "FAIL" and result.divergences:
        first = result.divergences[0]
        return f"{first.check} at event {first.event} of {result.events:,}"
    return "; ".join(result.reasons) or "it differs"


def _folios(facts: Asked | None) -> str:
    if facts is None or facts.orders is None:
        return "folio size unknown"
    sizes = [4 << order for order in sorted(facts.orders)]
    if len(sizes) > 3:
        return f"{len(sizes)} folio sizes from {sizes[0]} to {sizes[-1]} KiB"
    return f"folios of {'/'.join(map(str, sizes))} KiB" if sizes else "no folio stored"


def _did(facts: Asked | None, events: int) -> list[str]:
    """Return the operations, with how many of which kind and without."""
    if facts is None:
        return ["unknown: the recording can no longer be read"]
    total = f"{sum(facts.counts.values()):,} operations"
    parts = ", ".join(f"{count:,} {name}" for name, count in facts.counts.items())
    return [f"{total}: {parts}", total] if parts else [f"no operation in {events:,} events"]


def _sums(checks: Sequence[CheckResult]) -> str:
    differing = sum(check.independent > 0 for check in checks)
    compared = sum(check.compared > 0 or check.different > 0 for check in checks)
    total = sum(check.compared for check in checks)
    return f"{compared} compared {total:,} values, {differing} differ; {len(checks) - compared} could not compare"


def _ascii(text: str) -> str:
    return one_line(text).encode("ascii", "replace").decode()


def _line(label: str, *texts: str) -> str:
    """Return a line of the first of these texts that fits, else of the last, cut."""
    lines = [f"{label:<{_LABEL}}{_ascii(text)}".rstrip() for text in texts]
    fitting = [line for line in lines if len(line) <= WIDTH]
    return fitting[0] if fitting else f"{lines[-1][:WIDTH - 3].rstrip()}..."


# ---- the table -------------------------------------------------------------------------------------------


_RULE: Final = " " + "=" * (WIDTH - 1)
_NAME: Final = 36


def _check_table(result: Result) -> Iterator[str]:
    yield _RULE
    yield from _row(("check", "compared", "different", "grade"))
    yield _RULE
    without: dict[str, list[str]] = {}
    for check in result.checks:
        if check.compared or check.different:
            yield from _row((check.id, _count(check.compared, 11), _differences(check), check.grade))
        else:
            without.setdefault(check.reason, []).append(check.id)
    yield _RULE
    for reason, names in without.items():
        yield from _wrapped(f"- {', '.join(names)}: {reason}")
    following = sum(check.following for check in result.checks)
    if following:
        yield from _wrapped(f"- +: {following:,} differences that may follow from an earlier one")
    if result.verdict == "FAIL":
        yield from _wrapped("- what comes after the first divergence was not compared, unless --keep-going was given")


def _row(cells: tuple[str, str, str, str]) -> Iterator[str]:
    """Yield a check's line; a name that is too long for its column stands alone above its numbers."""
    name, compared, different, grade = map(_ascii, cells)
    if len(name) > _NAME:
        yield f" {_cut(name, WIDTH - 1)}"
        name = ""
    yield f" {name:<{_NAME}} {compared:>11} {different:>9} {grade}".rstrip()


def _count(value: int, width: int) -> str:
    text = f"{value:,}"
    return text if len(text) <= width else str(value)


def _differences(check: CheckResult) -> str:
    texts = check.differences, check.differences.replace(",", ""), f"+{check.following}"
    return next((text for text in texts if len(text) <= 9), texts[-1])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(_ascii(text), WIDTH, initial_indent=" ", subsequent_indent="   ", break_on_hyphens=False)


def _verdict_table(jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> Iterator[str]:
    yield _RULE
    yield _verdict_row("recording", "revision", "verdict", "first divergence")
    yield _RULE
    for job in jobs:
        outcome = outcomes.get(job.number)
        result = outcome.result if outcome is not None else None
        first = result.divergences[0] if result is not None and result.divergences else None
        revision = result.revision if result is not None else job.against
        verdict = (outcome.verdict or outcome.kind) if outcome is not None else "not done"
        yield _verdict_row(os.path.basename(os.path.normpath(job.recording)), os.path.basename(revision), verdict,
                           f"{first.check} @{first.event}" if first is not None else "")
    yield _RULE


def _verdict_row(recording: str, revision: str, verdict: str, first: str) -> str:
    cells = [(recording, 20), (revision, 14), (verdict, 10), (first, 24)]
    return "".join(f" {_cut(text, width):<{width}}" for text, width in cells).rstrip()


def _cut(text: str, width: int) -> str:
    text = _ascii(text)
    return text if len(text) <= width else f"{text[:width - 3]}..."
