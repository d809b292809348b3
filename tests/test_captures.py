# SPDX-License-Identifier: GPL-2.0-or-later
"""Every raw capture of a real kernel that is at hand: imported, replayed from the first to the last event."""

from __future__ import annotations

from pathlib import Path

import pytest

import replay
import traces
from replay.checks import CHECKS
from traces.errors import BadInput
from traces.importers import import_source

MAINLINE = {"6.12-zstd-4k": "mainline-6.12", "7.2-zstd-4k": "mainline-7.2", "7.3-lz4-4k": "mainline-7.3",
            "7.3-tracecmd": "mainline-7.3", "7.3-zstd-64k": "mainline-7.3"}
#: Checks that a capture cannot make, and why: nothing else may be left out.
NOT_MADE = {
    "6.12-zstd-4k": {"store.raw": "not probed: zs_obj_write", "store.bytes": "not probed: zs_obj_write"},
    "7.2-zstd-4k": {"store.length": "the recording holds digests of pages, not their bytes",
                    "store.error": "the recording holds digests of pages, not their bytes"},
}


@pytest.mark.parametrize("name", sorted(MAINLINE))
def test_a_mainline_capture_passes_every_check(captures: Path, tmp_path: Path, name: str) -> None:
    summary = import_source(captures / name, tmp_path / "rec")
    result = replay.replay(traces.open_recording(tmp_path / "rec"))
    assert (result.verdict, result.divergences, result.reasons) == ("PASS", [], [])
    assert result.revision == MAINLINE[name]
    assert result.events == summary["rows"]
    assert result.unexplained == 0
    left_out = {c.id: c.reason for c in result.checks if not c.compared and c.id in CHECKS}
    assert left_out == NOT_MADE.get(name, {})
    stores = next(c.compared for c in result.checks if c.id == "acomp.calls")
    assert stores == summary["references"], "every page handed to the compressor was recorded"


def test_the_v14_capture_imports_and_says_that_its_revision_is_missing(captures: Path, tmp_path: Path) -> None:
    summary = import_source(captures / "v14-iaa-64k", tmp_path / "rec")
    assert summary["references"] == 15693
    recording = traces.open_recording(tmp_path / "rec")
    frame = recording.frame(["event", "size", "content"])
    calls = frame[frame.event == "crypto_acomp_compress"]
    assert set(calls["size"]) == {4096, 8 * 4096}, "one page, or a batch of eight"
    assert (calls["content"].diff().dropna() == (calls["size"] // 4096).shift().dropna()).all()
    with pytest.raises(BadInput, match=r"no revision mirrors its kernel \(6\.19\.8\)"):
        replay.replay(recording)
