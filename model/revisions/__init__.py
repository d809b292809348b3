# SPDX-License-Identifier: GPL-2.0-or-later
"""Revisions: each is one behaviour to check a kernel against.

A revision is a subclass of :class:`model.zswap.Zswap` that overrides the steps in which its kernel line or
posting differs, and says what it mirrors.  Every module here names its own in ``REVISIONS`` and, where a series has
steps, those in ``SERIES``: to add a posting is to add a file.  A user's own is loaded by the command line from a Python
file.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Collection

from model.zswap import Zswap

__all__ = ["MAINLINE", "POSTED", "REVISIONS", "SERIES", "message_id", "revision_for_line", "revision_for_patches"]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort numbers in a name as numbers."""
    return [(int(part or 0), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _collect() -> tuple[dict[str, type[Zswap]], dict[str, tuple[str, ...]]]:
    revisions: dict[str, type[Zswap]] = {}
    series: dict[str, tuple[str, ...]] = {}
    for module in pkgutil.iter_modules(__path__):
        part = importlib.import_module(f"{__name__}.{module.name}")
        revisions |= getattr(part, "REVISIONS", {})
        series |= getattr(part, "SERIES", {})
    return {name: revisions[name] for name in sorted(revisions, key=_natural)}, dict(sorted(series.items()))


_FOUND, SERIES = _collect()
#: kernel lines
MAINLINE: dict[str, type[Zswap]] = {name: kind for name, kind in _FOUND.items() if name.startswith("mainline-")}
#: posted series, as posted where the name says nothing else
POSTED: dict[str, type[Zswap]] = {name: kind for name, kind in _FOUND.items() if name not in MAINLINE}
REVISIONS: dict[str, type[Zswap]] = MAINLINE | POSTED


def revision_for_patches(line: tuple[int, int] | None, message_ids: Collection[str]) -> str | None:
    """Return the shipped revision that mirrors a kernel line with a posting's patches, as far as they were applied.

    :param message_ids: of the patches, without brackets; one of a step is enough for those before it
    """
    for base, *steps in SERIES.values():
        if base != revision_for_line(line):
            # What a posting does depends on what it was applied to.
            continue
        for step in reversed(steps):
            if message_id(step) in message_ids:
                return step
    # Series of one step, and postings carried to another line.
    return next((name for name, kind in POSTED.items()
                 if message_id(name) in message_ids and kind.kernel_line == revision_for_line(line)), None)


def message_id(revision: str) -> str:
    """Return the Message-ID of the mail that a shipped revision mirrors, ``""`` where it names none."""
    found = re.search(r"<([^<>]+)>", REVISIONS[revision].mirrors)
    return found[1] if found is not None else ""


def revision_for_line(line: tuple[int, int] | None) -> str | None:
    """Return the shipped revision that mirrors a kernel line (major, minor), or None."""
    name = f"mainline-{line[0]}.{line[1]}" if line is not None else None
    return name if name in MAINLINE else None
