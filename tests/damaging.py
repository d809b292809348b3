# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings on disk, changed maliciously: their digests are made right again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["edit", "replace"]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a recording's manifest."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def replace(path: Path, name: str, data: bytes) -> None:
    """Replace a file and its digest."""
    (path / name).write_bytes(data)
    edit(path, lambda m: m["files"].__setitem__(name, hashlib.sha256(data).hexdigest()))
