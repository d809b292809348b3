# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressors are recognised by what they wrote, and one that did not write it judges nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import replay
import traces
from model.crypto import UnsupportedCompressor, compressor_for
from model.crypto.knownanswers import pages
from model.crypto.recognize import RECOGNISED, begins_as, fixed_block
from replay.tools.synthetic import ImaginaryKernel, config, write_pages_recording
from replay.verdict.objectcompressor import written
from traces import schema
from traces.recording import Recording, RecordingWriter

_COLUMNS = schema.column_names()
EXACT = ("zstd", "lz4", "lz4hc", "lzo", "lzo-rle", "842", "deflate")


def _heads(name: str) -> np.ndarray:
    results = [compressor_for(name, "mainline-7.3").compress(page) for _, page in pages()]
    return np.array([int.from_bytes(r.data[:8], "little") for r in results if not r.err and r.dlen >= 8], np.uint64)


@pytest.mark.parametrize("name", [*EXACT, "deflate-iaa"])
def test_each_compressor_begins_as_itself(name: str) -> None:
    try:
        heads = _heads(name)
    except UnsupportedCompressor as problem:
        pytest.skip(str(problem))
    assert len(heads) > 5
    assert begins_as(name, heads).all()
    assert fixed_block(heads).all() == (name == "deflate-iaa")
    family = {"lz4": {"lz4", "lz4hc"}, "lz4hc": {"lz4", "lz4hc"}}.get(
        name, {other for other in RECOGNISED if other.startswith("deflate")} if name.startswith("deflate") else {name})
    for other in RECOGNISED.keys() - family:
        # lzo's run of literals and 842's differ in 3 bits.
        assert not begins_as(other, heads).all() or {name, other} == {"lzo", "842"}, other


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=20))
def test_any_bytes_can_be_looked_at(heads: list[int]) -> None:
    array = np.array(heads, np.uint64)
    for name in RECOGNISED:
        fits = begins_as(name, array)
        assert (fits.dtype, fits.shape) == (np.bool_, array.shape)
    assert (fixed_block(array) <= begins_as("deflate-iaa", array)).all()


def _renamed(source: Path, path: Path, name: str, *, kept: bool = True) -> Recording:
    """A recording that says another compressor than the one that wrote it; ``kept``: with the bytes of its pages."""
    old = traces.open_recording(source)
    first = {"7.3-lz4-4k": "lz4"}.get(source.name)
    assert first is None or name != first
    manifest = json.loads((source / "manifest.json").read_text())
    manifest["config"]["compressor"] = name
    if not kept:
        manifest["pages"]["with_bytes"] = 0
    path.mkdir()
    for file in old.manifest["files"]:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        os.link(source / file, path / file)
    (path / "manifest.json").write_text(json.dumps(manifest))
    return traces.open_recording(path)


def _pages_of(name: str, path: Path) -> Path:
    write_pages_recording(str(path), [page for _, page in pages()], compressor_for(name, "mainline-7.3"))
    return path


@pytest.mark.parametrize(("wrote", "says"), [("lz4", "lzo"), ("zstd", "lz4"), ("lzo", "lzo-rle"), ("842", "lzo"),
                                             ("deflate", "lz4"), ("842", "zstd"), ("lz4", "deflate-iaa")])
@pytest.mark.parametrize("kept", [True, False], ids=["bytes", "digests"])
def test_a_wrong_name_is_no_fault_of_the_kernel(tmp_path: Path, wrote: str, says: str, kept: bool) -> None:
    try:
        source = _pages_of(wrote, tmp_path / "rec")
        compressor_for(says, "mainline-7.3")
    except UnsupportedCompressor as problem:
        pytest.skip(str(problem))
    assert replay.replay(traces.open_recording(source)).verdict == "PASS"
    recording = _renamed(source, tmp_path / "other", says, kept=kept)
    for engine in ("reference", "fast"):
        result = replay.replay(recording, engine=engine)
        assert result.verdict == "UNDECIDED", result.divergences
        (reason,) = result.reasons
        assert f"objects written do not begin as {says}'s (they begin as " in reason
        assert {c.id: c.compared for c in result.checks}["store.length"] == 0


@pytest.mark.parametrize("kept", [True, False], ids=["bytes", "digests"])
def test_another_compressor_that_plays_iaa(tmp_path: Path, kept: bool) -> None:
    source = _pages_of("deflate", tmp_path / "rec")
    result = replay.replay(_renamed(source, tmp_path / "iaa", "deflate-iaa", kept=kept))
    # Errors and all that follows from lengths is the kernel's own.
    assert result.verdict == "PASS", (result.reasons, result.divergences)
    assert any("another block than the fixed one of IAA's hardware" in note for note in result.notes)
    grades = {c.id: c.grade for c in result.checks if c.compared}
    assert grades["store.bytes"] == "modelled"
    assert grades.get("store.length", "modelled") == "modelled"
    hardware = _pages_of("deflate-iaa", tmp_path / "fixed")
    assert not any("IAA's hardware" in note for note in replay.replay(traces.open_recording(hardware)).notes)


def _with_data(path: Path, change: Callable[[np.ndarray], None]) -> Recording:
    """A recording of objects without pages: nothing but their first bytes shows what they are."""
    kernel = ImaginaryKernel(length=lambda swpent: 500 + swpent)
    for slot in range(120):
        kernel.store(slot)
    block = kernel.block()
    rows = np.flatnonzero(block[3] == schema.CODE["zs_obj_write"])
    data = block[_COLUMNS.index("data"), rows].copy()
    change(data)
    block[_COLUMNS.index("data"), rows] = data
    with RecordingWriter(path) as writer:
        writer.write_rows(block)
        writer.close(config())
    return traces.open_recording(path)


def test_one_object_that_begins_otherwise_is_said(tmp_path: Path) -> None:
    def one(data: np.ndarray) -> None:
        data[7] = 0x0102030405060700

    recording = _with_data(tmp_path / "rec", one)
    found = written(recording, {"lz4"})
    assert found is not None
    assert (found.objects, found.unlike) == (120, 1)
    for engine in ("reference", "fast"):
        result = replay.replay(recording, engine=engine)
        assert result.verdict == "UNDECIDED"
        assert result.reasons == [f"1 of 120 objects written do not begin as lz4's, the first at event {found.first}"]
    assert written(recording, {"lz4", "zram's own"}) is None


def test_a_compressor_that_was_switched_to_counts_as_well(tmp_path: Path) -> None:
    def some(data: np.ndarray) -> None:
        data[60:] = 0x7F_FD2FB528

    recording = _with_data(tmp_path / "rec", some)
    found = written(recording, {"lz4", "zstd"})
    assert found is not None
    assert (found.unlike, found.first) == (0, -1)
    found = written(recording, {"lz4"})
    assert found is not None
    assert found.unlike == 60


def test_pages_kept_as_they_are_tell_nothing(samples: dict[str, Path]) -> None:
    for name, path in samples.items():
        recording = traces.open_recording(path)
        found = written(recording, {recording.manifest["config"]["compressor"]})
        # 6.12 writes objects where no probe sees it.
        assert (found is None) == ("zs_obj_write" not in recording.manifest["probes"]) == (
            name in ("6.12-zstd-4k", "v8-iaa-64k"))
        assert found is None or (found.unlike, found.first) == (0, -1)
