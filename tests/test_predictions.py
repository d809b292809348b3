# SPDX-License-Identifier: GPL-2.0-or-later
"""What compressors give for recorded pages: as arrays and one by one, computed once, and kept at import."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ringbuilder as rb

from model.crypto import Compressor, compressor_for
from replay.cli import main
from replay.reference.predictions import Predictions, _digest_of, _load, predict
from replay.verdict.run import replay
from traces.recording import Recording

SAMPLE = Path(__file__).resolve().parents[1] / "traces" / "samples" / "7.3-lz4-4k"


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    shutil.copytree(SAMPLE, tmp_path / "rec", ignore=shutil.ignore_patterns("cache"))
    return Recording(tmp_path / "rec")


@pytest.fixture(scope="module")
def lz4() -> Compressor:
    return compressor_for("lz4", "mainline-7.3")


def ask(recording: Recording, compressor: Compressor) -> Predictions:
    return predict(Recording(recording.path), "lz4", {"lz4": compressor})


def test_arrays_are_what_the_compressor_gives(recording: Recording, lz4: Compressor) -> None:
    found = ask(recording, lz4)
    arrays = found.arrays("lz4")
    assert arrays is not None
    assert [array.dtype for array in arrays] == [np.int64, np.int32, np.int32, np.uint64, np.uint64, np.bool_]
    store = recording.pages
    assert store is not None
    pages, has = store.all_pages()
    assert (arrays.has == has).all()
    assert (arrays.refs == store.refs).all()
    assert 100 < has.sum() < len(has), "this sample keeps the bytes of some pages only"
    for content in range(0, len(arrays.refs), 7):
        page = int(arrays.refs[content])
        if not has[page]:
            assert found.result(content, "lz4") is found.head(content, "lz4") is found.raw_head(content, "lz4") is None
            continue
        data = pages[page].tobytes()
        right = lz4.compress(data)
        assert (arrays.err[page], arrays.dlen[page]) == (right.err, right.dlen) == found.result(content, "lz4")
        assert int(arrays.head[page]).to_bytes(8, "little") == right.data[:8].ljust(8, b"\0")
        # It is not known what the compressor leaves behind of a page that does not fit.
        assert found.head(content, "lz4") == (None if right.err else int(arrays.head[page]))
        assert found.raw_head(content, "lz4") == int(arrays.raw[page]) == int.from_bytes(data[:8], "little")
        assert found.page(content) == page
    assert found.result(len(arrays.refs), "lz4") is found.result(-1, "lz4") is None
    assert found.arrays("zstd") is found.bound_arrays("lz4") is None
    assert found.sha1 == store.sha1


def test_lists_are_made_when_somebody_asks(recording: Recording, lz4: Compressor) -> None:
    found = ask(recording, lz4)
    found.arrays("lz4")
    assert found._lists == {}
    assert "_refs" not in vars(found)
    found.result(0, "lz4")
    assert set(found._lists) == {"lz4"}


def test_bounds_of_a_modelled_compressor(recording: Recording) -> None:
    hardware = compressor_for("deflate-iaa", "mainline-7.3")
    found = predict(recording, "deflate-iaa", {"deflate-iaa": hardware})
    bounds = found.bound_arrays("deflate-iaa")
    assert bounds is not None
    assert found.arrays("deflate-iaa") is None
    content = int(np.flatnonzero(bounds.has[bounds.refs])[0])
    page = bounds.refs[content]
    assert found.bounds(content, "deflate-iaa") == (bounds.err[page], bounds.dlen[page])
    assert found.result(content, "deflate-iaa") is found.head(content, "deflate-iaa") is None
    assert found.raw_head(content, "deflate-iaa") == int(bounds.raw[page])


def test_the_second_time_nothing_is_compressed(recording: Recording, lz4: Compressor) -> None:
    first, second = ask(recording, lz4), ask(recording, lz4)
    assert (first.from_cache, second.computed) == (0, 0)
    assert first.computed == second.from_cache == len(first.sha1)
    for one, other in zip(first.arrays("lz4") or (), second.arrays("lz4") or (), strict=True):
        assert one.dtype == other.dtype
        assert (one == other).all()


@pytest.mark.parametrize("change", ["salt", "ident", "signature", "rows", "type", "column", "bytes", "before"])
def test_kept_results_of_anything_else_are_not_believed(recording: Recording, lz4: Compressor, change: str) -> None:
    right = ask(recording, lz4).arrays("lz4")
    (file,) = (recording.path / "cache").glob("*.parquet")
    table = pq.read_table(file)
    meta = dict(table.schema.metadata)
    wrong = pa.array(np.full(len(table), 77, np.int32))
    table = table.set_column(table.column_names.index("dlen"), "dlen", wrong)
    if change in ("salt", "ident", "signature"):
        assert change.encode() in meta
        meta[change.encode()] = b"0" * 64
    elif change == "rows":
        table = table.slice(1)
    elif change == "type":
        table = table.set_column(0, "err", pa.array(np.zeros(len(table), np.int64)))
    elif change == "column":
        table = table.drop_columns(["has"])
    elif change == "before":
        # As earlier versions kept them: unsealed, with the pages' digests in a column.
        store = Recording(recording.path).pages
        assert store is not None
        meta = {b"format": b"1", b"ident": meta[b"ident"]}
        table = table.append_column("sha1", pa.array(store.sha1))
    pq.write_table(table.replace_schema_metadata(meta), file)
    if change == "bytes":
        file.write_bytes(file.read_bytes()[:-5])
    found = ask(recording, lz4)
    assert found.from_cache == 0
    for one, other in zip(found.arrays("lz4") or (), right or (), strict=True):
        assert (one == other).all()
    # What was wrong is replaced.
    assert ask(recording, lz4).computed == 0


def test_a_bit_of_kept_results_is_not_believed(recording: Recording, lz4: Compressor) -> None:
    """No digest in the manifest covers them."""
    store = recording.pages
    assert store is not None
    right = ask(recording, lz4).arrays("lz4")
    assert right is not None
    (file,) = (recording.path / "cache").glob("*.parquet")
    raw = file.read_bytes()
    refused = 0
    for at in range(0, len(raw), 97):
        bad = bytearray(raw)
        bad[at] ^= 16
        file.write_bytes(bad)
        found = _load(file, store, lz4.ident, _digest_of(recording.manifest))
        refused += found is None
        assert found is None or all((one == other).all() for one, other in zip(found, right[1:], strict=True)), at
    assert refused > len(raw) // 97 // 2


def test_import_compresses_for_the_replay_that_follows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The compressor at the start and the one that was switched to; with --no-compress none."""
    capture = rb.write_capture(tmp_path / "run")
    assert main(["import", str(capture), "-o", str(tmp_path / "later"), "--no-compress"]) == 0
    assert not (tmp_path / "later" / "cache").exists()
    capsys.readouterr()
    assert main(["import", str(capture), "-o", str(tmp_path / "rec"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compressed"] == ["lz4", "zstd"]
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "rec" / "cache").iterdir()) == ["lz4", "zstd"]
    one, other = Recording(tmp_path / "rec"), Recording(tmp_path / "later")
    assert one.manifest == other.manifest
    for name in ("lz4", "zstd"):
        assert predict(one, name, {name: compressor_for(name, "mainline-7.3")}).computed == 0


def test_a_replay_after_an_import_compresses_nothing(captures: Path, tmp_path: Path) -> None:
    assert main(["import", str(captures / "7.3-lz4-4k"), "-o", str(tmp_path / "rec")]) == 0
    result = replay(Recording(tmp_path / "rec"))
    assert result.verdict == "PASS"
    assert any("0 distinct pages compressed" in note for note in result.notes)


def test_import_says_why_pages_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = rb.write_capture(tmp_path / "run")
    assert main(["import", str(capture), "-o", str(tmp_path / "rec"), "--kernel", "5.1.0"]) == 0
    assert "pages were not compressed yet, a replay will do that: no revision mirrors its kernel (5.1.0)" \
        in capsys.readouterr().out
    assert not (tmp_path / "rec" / "cache").exists()
