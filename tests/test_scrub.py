# SPDX-License-Identifier: GPL-2.0-or-later
"""Scrubbed recordings replay to the same verdict and hold nothing of the pages they came from."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replay
import traces
from model.crypto import compressor_for
from replay.tools.scrub import scrub, synthetic_page
from traces.errors import BadInput


@pytest.mark.parametrize("name", ["7.3-lz4-4k", "6.12-zstd-4k", "7.3-zstd-64k"])
def test_a_scrubbed_sample_passes_and_keeps_nothing(samples: dict[str, Path], tmp_path: Path, name: str) -> None:
    recording = traces.open_recording(samples[name])
    done = scrub(recording, str(tmp_path / "rec"), seed=987654321)
    scrubbed = traces.open_recording(tmp_path / "rec")
    before, after = replay.replay(recording), replay.replay(scrubbed)
    assert after.verdict == "PASS"
    compared = {c.id: c.compared for c in after.checks}
    assert done.unmatched == 0
    for check in before.checks:
        if check.id != "load.content":
            assert compared[check.id] == check.compared, check.id
    assert recording.pages is not None
    assert scrubbed.pages is not None
    assert not set(recording.pages.sha1) & set(scrubbed.pages.sha1)
    assert not (tmp_path / "rec" / "objects.parquet").exists()
    everything = b"".join(path.read_bytes() for path in (tmp_path / "rec").rglob("*") if path.is_file())
    for _, block in recording.pages.blocks():
        for page in block:
            assert page is None or page[1000:1032] == page[1032:1064] or page[1000:1032] not in everything
    old, new = (r.frame(["event", "data", "ret", "dlen", "handle"]) for r in (recording, scrubbed))
    assert (old.drop(columns="data").astype(str) == new.drop(columns="data").astype(str)).all().all()
    if "lz4" in name:
        # (A zstd frame begins with eight bytes of header, which depend on little but lengths.)
        writes = old[(old.event == "zs_obj_write") & (old["data"] != 0)].index
        assert (old["data"][writes] != new["data"][writes]).mean() > 0.9


@given(st.binary(min_size=0, max_size=4096), st.sampled_from(["zstd", "lz4"]))
@settings(max_examples=30, deadline=None)
def test_any_page_has_a_double(start: bytes, name: str) -> None:
    page = (start + bytes(4096))[:4096]
    compressor = compressor_for(name, "mainline-7.3")
    made = synthetic_page(page, [compressor], random.Random(3))
    assert made is not None
    assert compressor.compress(made)[:2] == compressor.compress(page)[:2]


def test_digests_and_first_bytes_alone_are_scrubbed(samples: dict[str, Path], tmp_path: Path) -> None:
    recording = traces.open_recording(samples["7.2-zstd-4k"])
    assert recording.pages is not None
    assert {len(digest) for digest in recording.pages.sha1} == {40}
    done = scrub(recording, str(tmp_path / "rec"))
    assert (done.pages, done.unmatched, done.digests, done.heads) == (0, 0, len(recording.pages), True)
    scrubbed = traces.open_recording(tmp_path / "rec")
    assert scrubbed.pages is not None
    assert scrubbed.pages.refs.tolist() == recording.pages.refs.tolist()
    assert {len(digest) for digest in scrubbed.pages.sha1} == {64}
    assert "data" not in scrubbed.manifest["probes"]["zs_obj_write"]["columns"]
    frame = scrubbed.frame(["event", "data"])
    assert not frame[frame.event == "zs_obj_write"]["data"].any()
    assert (scrubbed.table("truth") is None) is (recording.table("truth") is None)
    before, after = replay.replay(recording), replay.replay(scrubbed)
    assert after.verdict == before.verdict == "PASS"
    assert {c.id: c.compared for c in after.checks} == {c.id: c.compared for c in before.checks}


def test_nothing_to_scrub(samples: dict[str, Path], tmp_path: Path) -> None:
    # What is left of a recording that was scrubbed so has only such digests.
    scrub(traces.open_recording(samples["7.2-zstd-4k"]), str(tmp_path / "once"))
    with pytest.raises(BadInput, match="holds no page bytes, and no digests without a key"):
        scrub(traces.open_recording(tmp_path / "once"), str(tmp_path / "rec"))
    assert not (tmp_path / "rec").exists()
