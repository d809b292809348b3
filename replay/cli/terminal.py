# SPDX-License-Identifier: GPL-2.0-or-later
"""What the verbs share on a terminal: progress, colour, tables and sentences that fit, numbers.

Nothing here depends on a terminal being there: on a pipe there is no progress, no colour, and lines are as long as they
are.  ``NO_COLOR`` takes colour away, ``TERM=dumb`` progress too, and ``COLUMNS`` says how wide a terminal is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "counting", "fitting", "number", "painted", "steps", "table", "warn", "wrapped"]

#: Columns that the last one of a table is given at least before rows are set one below the other.
_LEAST: Final = 16
_COLOURS: Final = {"PASS": "32", "FAIL": "31", "UNDECIDED": "33"}


def console() -> Console | None:
    """Return the terminal that progress is shown on: stderr, None where that is none or cannot move its cursor."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "") in ("dumb", "unknown"):
        return None
    # Only here: a verb on a pipe has no use for it.
    from rich.console import Console

    from replay.cli.escaping import unescaped

    found = Console(file=unescaped(sys.stderr))
    return found if found.is_terminal else None


def painted(verdict: str) -> str:
    """Return a verdict, in colour where stdout is a terminal that wants it."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return verdict
    return f"\033[1;{_COLOURS.get(verdict, '0')}m{verdict}\033[0m"


def fitting(most: int) -> int:
    """Return how wide lines may be: ``most``, less on a narrower terminal; a pipe takes all."""
    # COLUMNS where it is set, then the terminal; 0 where there is neither.
    wide = shutil.get_terminal_size(fallback=(0, 0)).columns
    return most if wide <= 0 else max(min(most, wide), 20)


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a progress bar for (what, done, total) on a terminal, None elsewhere."""
    terminal = console()
    if terminal is None:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*shown, console=terminal, transient=True) as bar:
        tasks: dict[str, object] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield step


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None] | None]:
    """Give a counter of unknown end on a terminal, None elsewhere."""
    terminal = console()
    if terminal is None:
        yield None
        return
    with terminal.status(f"{what} ...") as status:
        yield lambda done: status.update(f"{what}: {done:,} events")


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), fit: bool = True) -> str:
    """Return rows of text in columns two spaces apart; the columns in ``right`` are set flush right.

    On a terminal that is too narrow the last column is folded; where that would leave it less than some words, every
    row becomes lines: its first cell, and below that each other one behind its heading.

    :param fit: False keeps one line per row on any terminal
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    room = fitting(1 << 20) if fit else 1 << 20
    last = len(widths) - 1
    if sum(widths) + 2 * last <= room:
        return "\n".join(_row(row, widths, right) for row in rows)
    left = sum(widths[:last]) + 2 * last
    if last and last not in right and (room - left >= _LEAST or last == 1):
        lines = []
        for row in rows:
            pieces = _folded(row[last], max(room - left, 1)) or [""]
            lines.append(_row((*row[:last], pieces[0]), widths, right))
            lines += [" " * left + piece for piece in pieces[1:]]
        return "\n".join(lines)
    lines = []
    for row in rows[1:]:
        lines += _folded(row[0], room)
        for heading, cell in zip(rows[0][1:], row[1:], strict=True):
            if cell:
                lines += textwrap.wrap(f"  {heading}: {cell}" if heading else f"  {cell}", room,
                                       subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines)


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _row(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    cells = [cell.rjust(width) if i in right else cell.ljust(width)
             for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(cells).rstrip()


def wrapped(text: str, most: int = 78) -> list[str]:
    """Return a sentence in lines of at most ``most`` columns, fewer on a narrower terminal; later ones are indented."""
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    return textwrap.wrap(text, fitting(most), subsequent_indent=indent, break_on_hyphens=False)


def number(text: str) -> int:
    """Parse a decimal or 0x number from the command line."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def warn(sentence: str) -> None:
    """Print a sentence to stderr."""
    print(f"zreplay: {sentence}", file=sys.stderr)
