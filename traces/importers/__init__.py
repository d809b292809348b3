# SPDX-License-Identifier: GPL-2.0-or-later
"""Importers: foreign captures into recordings.  :func:`import_source` recognises a source by its content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traces.pages import PageWatcher

__all__ = ["import_source"]


def import_source(src: str | Path, out: str | Path, *, events: str | Path | None = None,
                  formats: str | Path | None = None, overrides: dict[str, Any] | None = None,
                  watcher: PageWatcher | None = None, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Import a capture; see :func:`traces.importers.directory.import_source`, which is loaded only then (Numba)."""
    from traces.importers import directory

    return directory.import_source(src, out, events=events, formats=formats, overrides=overrides,
                                   watcher=watcher, progress=progress)
