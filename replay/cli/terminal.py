# SPDX-License-Identifier: GPL-2.0-or-later
"""What the verbs share on a terminal: progress, tables, numbers."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["counting", "number", "steps", "table", "warn", "wrapped"]


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a progress bar for (what, done, total) on a terminal, None elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, object] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield step


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None] | None]:
    """Give a counter of unknown end on a terminal, None elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status(f"{what} ...") as status:
        yield lambda done: status.update(f"{what}: {done:,} events")


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows of text in columns two spaces apart; the columns in ``right`` are set flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) if i in right else cell.ljust(width)
                 for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def wrapped(text: str, most: int = 78) -> list[str]:
    """Return a sentence in lines of at most ``most`` columns, fewer on a narrower terminal."""
    width = max(min(most, shutil.get_terminal_size().columns - 2), 20)
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def number(text: str) -> int:
    """Parse a decimal or 0x number from the command line."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def warn(sentence: str) -> None:
    """Print a sentence to stderr."""
    print(f"zreplay: {sentence}", file=sys.stderr)
