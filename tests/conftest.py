# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the tests find recordings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakebox import FakeBox, fake_box
from traces.samples import sample_paths

ROOT = Path(__file__).resolve().parents[1]
CAPTURES = Path(os.environ.get("ZREPLAY_RECORDINGS", ROOT.parent / "shared" / "recordings"))


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a terminal of any width, and want no colour."""
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def samples() -> dict[str, Path]:
    """The shipped recordings by name."""
    return {path.name: path for path in sample_paths()}


@pytest.fixture(scope="session")
def captures() -> Path:
    """The directory of raw captures of real kernels; skips where there is none."""
    if not CAPTURES.is_dir():
        pytest.skip("no raw captures of real kernels next to this checkout (set ZREPLAY_RECORDINGS)")
    return CAPTURES


@pytest.fixture
def box(tmp_path: Path) -> FakeBox:
    """The settings of a kernel, as files."""
    return fake_box(tmp_path)
