# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of many replays for people: recordings by revisions, and checks by revisions, 80 columns wide."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from replay.cli.terminal import fitting, table
from replay.many.jobs import JobOutcome, ReplayJob
from replay.many.tables import CheckSum, Verdict, check_sums, verdicts

__all__ = ["short_names", "table_lines"]

_WIDTH: Final = 80
#: at most so much of a recording's and a revision's name is printed
_RECORDING: Final = 30
_REVISION: Final = 24
_CHECK: Final = 24


def table_lines(jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> Iterator[str]:
    """Yield both tables, at most 80 columns wide: more revisions than fit go into further tables."""
    recordings = list(dict.fromkeys(job.recording for job in jobs))
    revisions = list(dict.fromkeys(job.revision for job in jobs))
    rows = verdicts(jobs, outcomes)
    heads = dict(zip(revisions, _revision_heads(rows, revisions), strict=True))
    names = dict(zip(recordings, short_names(recordings, _RECORDING), strict=True))
    yield "verdicts, with @event and check of the first divergence"
    # A recording that was named twice has two rows.
    by_row = [rows[at:at + len(revisions)] for at in range(0, len(rows), len(revisions))]
    columns = [[heads[revision], *(text for row in by_row for text in _cell(row, number))]
               for number, revision in enumerate(revisions)]
    left = ["recording", *(text for row in by_row for text in [names[row[0].recording], *[""] * (_height(row) - 1)])]
    yield from _blocks(left, columns)
    sums = check_sums(jobs, outcomes)
    if not sums:
        return
    yield ""
    yield "checks: compared / different in all recordings, and in how many it could not be"
    compared = {each.check for each in sums if each.compared}
    checks = [check for check in dict.fromkeys(each.check for each in sums) if check in compared]
    by_place = {(each.check, each.asked): each for each in sums}
    columns = [[heads[revision], *(_sum_cell(by_place.get((check, revision))) for check in checks)]
               for revision in revisions]
    yield from _blocks(["check", *checks], columns)
    nowhere = [check for check in dict.fromkeys(each.check for each in sums) if check not in compared]
    if nowhere:
        yield from textwrap.wrap(f"in no recording compared: {', '.join(nowhere)}", fitting(78), subsequent_indent="  ",
                                 break_on_hyphens=False)


def _height(row: Sequence[Verdict]) -> int:
    """Lines that a row of the first table takes: a second one for what diverged, or which revision it was."""
    return 2 if any(_second(each) for each in row) else 1


def _second(verdict: Verdict) -> str:
    parts = []
    if verdict.asked is None and verdict.revision is not None:
        parts.append(verdict.revision)
    if verdict.check is not None:
        parts.append(_without_middle(verdict.check, _CHECK))
    return ", ".join(parts)


def _cell(row: Sequence[Verdict], number: int) -> list[str]:
    verdict = row[number]
    where = f" @{verdict.event}" if verdict.event is not None else ""
    return [f"{verdict.verdict or 'none'}{where}", _second(verdict)][:_height(row)]


def _sum_cell(found: CheckSum | None) -> str:
    if found is None:
        return ""
    further = f" +{found.following:,}" if found.following else ""
    cell = f"{found.compared:,} / {found.different - found.following:,}{further}" if found.compared else "-"
    return f"{cell}, {found.not_compared} not" if found.not_compared and found.compared else cell


def _revision_heads(rows: Sequence[Verdict], revisions: Sequence[str | None]) -> list[str]:
    """Return what each revision is called over its column: a file's by its class, where that is no other's name."""
    called = {row.asked: row.revision for row in rows if row.asked is not None and row.revision is not None}
    names = ["its kernel's" if revision is None else called.get(revision, revision) for revision in revisions]
    plain = [name if names.count(name) == 1 else str(revision) for name, revision in zip(names, revisions, strict=True)]
    return short_names(plain, _REVISION)


def short_names(names: Sequence[str], width: int) -> list[str]:
    """Return names of at most ``width`` characters: without the directories they share, then without their middle.

    Different names stay different: those that would not are numbered.
    """
    paths = [os.path.normpath(name) for name in names]
    shared = os.path.commonpath(paths) if len(set(paths)) > 1 and len({os.path.isabs(p) for p in paths}) == 1 else ""
    if shared in paths or len(set(paths)) == 1:
        shared = os.path.dirname(min(paths))
    made: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        short = whole = _without_middle(os.path.relpath(path, shared) if shared else path, width)
        number = 1
        while short in made.values():
            number += 1
            short = f"{whole[:width - len(str(number)) - 1]}~{number}"
        made[path] = short
    return [made[path] for path in paths]


def _without_middle(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    return f"{text[:width // 2 - 1]}...{text[len(text) - (width - width // 2 - 2):]}"


def _blocks(left: Sequence[str], columns: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield tables of a first column and as many of the others as fit next to it."""
    room = fitting(_WIDTH) - max(map(len, left))
    block: list[Sequence[str]] = []
    used = 0
    for column in columns:
        width = max(map(len, column)) + 2
        if block and used + width > room:
            yield table(list(zip(left, *block, strict=True)))
            yield ""
            block, used = [], 0
        block.append(column)
        used += width
    yield table(list(zip(left, *block, strict=True)))
