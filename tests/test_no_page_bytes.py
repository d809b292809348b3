# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes of pages are printed only on request: the first eight of a page kept as it is are its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import traces
from replay.cli import main
from traces import schema
from traces.eventlines import event_lines


def written(path: Path) -> dict[int, int]:
    """Return the first bytes of every object written, by event."""
    frame = traces.open_recording(path).frame(["event", "data"])
    rows = np.flatnonzero((frame["event"] == "zs_obj_write") | (frame["event"] == schema.CODE["zs_obj_write"]))
    return {int(row): int(frame["data"].iloc[row]) for row in rows if frame["data"].iloc[row]}


@pytest.mark.parametrize("name", ["7.2-lz4-edge", "7.3-lz4-4k"])
def test_lines_of_events_hold_no_bytes_of_pages(name: str, samples: dict[str, Path], capsys: pytest.CaptureFixture[str]
                                                ) -> None:
    found = written(samples[name])
    assert found
    recording = traces.open_recording(samples[name])
    # As a report prints them near its first divergence.
    text = "\n".join(event_lines(recording, 0, len(recording)))
    assert "zs_obj_write" in text
    assert not [hex(head) for head in found.values() if f"data={head:#x}" in text]
    assert main(["show", str(samples[name]), "--op", "zs_obj_write"]) == 0
    assert capsys.readouterr().out.count("data=(not shown)") >= len(found)
    assert main(["show", str(samples[name]), "--op", "zs_obj_write", "--json"]) == 0
    assert '"data"' not in capsys.readouterr().out
    assert main(["show", str(samples[name]), "--op", "zs_obj_write", "--json", "--data"]) == 0
    assert capsys.readouterr().out.count('"data"') >= len(found)
    assert main(["show", str(samples[name]), "--op", "zs_obj_write", "--data"]) == 0
    out = capsys.readouterr().out
    assert all(f"data={head:#x}" in out for head in found.values()), "who asks is shown"
