# SPDX-License-Identifier: GPL-2.0-or-later
"""Small recordings of real kernels that ship with the project; ``README.md`` next to them says what each is."""

from __future__ import annotations

from pathlib import Path

__all__ = ["sample_paths"]


def sample_paths() -> list[Path]:
    """Return the directories of the shipped recordings, in order of their names."""
    return sorted(path.parent for path in Path(__file__).parent.glob("*/manifest.json"))
