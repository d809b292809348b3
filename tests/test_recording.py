# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings on disk: written, read back, and refused when something is wrong with them."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ringbuilder import page

from replay.tools.synthetic import cycle, write_repeated
from replay.verdict.run import replay
from tests.damaging import edit, replace
from traces import pages as pages_module
from traces import parquetbounds, schema
from traces import recording as recording_module
from traces.errors import BadInput
from traces.pages import PageStore, PageStoreWriter
from traces.recording import Recording, RecordingWriter
from traces.samples import sample_paths

COLUMN = {name: index for index, name in enumerate(schema.column_names())}
CODES = [kind.code for kind in schema.EVENTS]
PROBES = {kind.name: {"columns": sorted(kind.columns), "function": ""} for kind in schema.EVENTS
          if kind.name not in schema.NO_PROBE}
MANIFEST: dict[str, Any] = {"kernel": {"release": "6.12"}, "config": {}, "probes": PROBES, "losses": [], "source": {}}
PLAIN = [column for column in schema.COLUMNS if column.name not in ("event", "text")]

#: A start state that fits the schema: that of a shipped cut.
STATE = json.loads((next(path for path in sample_paths() if path.name == "7.2-lz4-numa2") / "state.json").read_text())


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    """Rows with extreme values in every column."""
    random = np.random.default_rng(seed)
    out = np.zeros((len(COLUMN), count), np.int64)
    for column in PLAIN:
        info = np.iinfo(column.dtype)
        values = random.integers(info.min, info.max, count, np.dtype(column.dtype), endpoint=True)
        edges = np.array([info.min, info.max, info.max - 1, 0], np.dtype(column.dtype))[:count]
        values[:len(edges)] = edges
        out[COLUMN[column.name]] = values.astype(np.int64) if column.dtype != "uint64" else values.view(np.int64)
    out[COLUMN["event"]] = np.resize(CODES, count)
    return out


def write(path: Path, block: np.ndarray, texts: list[tuple[int, str]] | None = None, *, pages: int = 0,
          counters: bool = False, tables: bool = False) -> Path:
    with RecordingWriter(path) as writer:
        if block.shape[1]:
            writer.write_rows(block, texts or [])
        for number in range(pages):
            writer.pages.add(page(number % 3))
        if counters:
            writer.add_snapshot("before", 5, {"t": 1, "vmstat": {"zswpout": 1 << 63}})
            writer.add_snapshot("end", 9, {"t": 2})
        if tables:
            writer.add_table("truth", pd.DataFrame({"phase": ["a"], "page": [1]}))
            writer.add_json("state", STATE)
        writer.close(MANIFEST)
    return path


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "SEGMENT_ROWS", 7)


def expected_column(block: np.ndarray, name: str) -> np.ndarray:
    return block[COLUMN[name]].astype(next(c.dtype for c in PLAIN if c.name == name))


# Round trips.

@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("count", [1, 6, 7, 8, 14, 60])
def test_round_trip(tmp_path: Path, count: int) -> None:
    """Every column of every row, exactly, over several segments, as a frame and as batches."""
    block = rows_of(count)
    texts = [(row, f"text {row}") for row in range(0, count, 3)]
    recording = Recording(write(tmp_path / "rec", block, texts))
    assert len(recording) == recording.manifest["rows"] == count
    assert [segment["rows"] for segment in recording.manifest["segments"]] \
        == [7] * (count // 7) + ([count % 7] if count % 7 else [])
    frame = recording.frame()
    assert tuple(frame.columns) == schema.column_names()
    assert frame.index.tolist() == list(range(count))
    for column in PLAIN:
        assert str(frame[column.name].dtype) == column.dtype
        assert (frame[column.name].to_numpy() == expected_column(block, column.name)).all(), column.name
    assert frame["event"].tolist() == [schema.NAMES[code] for code in block[COLUMN["event"]]]
    assert frame["text"].tolist() == [f"text {row}" if row % 3 == 0 else "" for row in range(count)]
    assert {str(frame[name].dtype) for name in ("event", "text")} == {"category"}
    first_ts = [segment["first_ts"] for segment in recording.manifest["segments"]]
    assert first_ts == block[0, ::7].tolist()


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_batches_equal_the_frame(tmp_path: Path, rows: int) -> None:
    recording = Recording(write(tmp_path / "rec", rows_of(25), [(4, "a"), (24, "z")]))
    frame = recording.frame()
    parts = list(recording.batches(schema.column_names(), rows))
    assert [first for first, _ in parts] == np.cumsum([0] + [part["ts"].size for _, part in parts])[:-1].tolist()
    assert max(part["ts"].size for _, part in parts) == min(rows, 7)
    for column in PLAIN:
        joined = np.concatenate([part[column.name] for _, part in parts])
        assert joined.dtype == np.dtype(column.dtype)
        assert (joined == frame[column.name].to_numpy()).all()
    codes = np.concatenate([part["event"] for _, part in parts])
    assert codes.dtype == np.uint8
    assert [schema.NAMES[code] for code in codes] == frame["event"].tolist()
    assert np.concatenate([part["text"] for _, part in parts]).tolist() == frame["text"].tolist()
    some = list(recording.batches(["text", "ret"], rows))
    assert set(some[0][1]) == {"text", "ret"}


def test_pointers_stay_exact(tmp_path: Path) -> None:
    """64-bit pointers that no float can hold come back bit by bit."""
    values = [0xFFFF888000000001, (1 << 64) - 1, 1 << 63, (1 << 53) + 1, 0]
    block = np.zeros((len(COLUMN), len(values)), np.int64)
    block[COLUMN["event"]] = 80
    block[COLUMN["handle"]] = np.array(values, np.uint64).view(np.int64)
    recording = Recording(write(tmp_path / "rec", block))
    assert recording.frame(["handle"])["handle"].tolist() == values
    assert [int(v) for _, part in recording.batches(["handle"]) for v in part["handle"]] == values
    # And for a reader without this project.
    assert pd.read_parquet(tmp_path / "rec" / "events" / "00000.parquet")["handle"].tolist() == values


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(CODES), st.text(max_size=20)), min_size=1, max_size=30))
def test_any_texts_and_events(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]]) -> None:
    block = np.zeros((len(COLUMN), len(rows)), np.int64)
    block[COLUMN["event"]] = [code for code, _ in rows]
    path = tmp_path_factory.mktemp("r") / "rec"
    write(path, block, [(row, text) for row, (_, text) in enumerate(rows) if text])
    frame = Recording(path).frame(["event", "text"])
    assert list(zip(frame["event"], frame["text"], strict=True)) == [(schema.NAMES[c], t) for c, t in rows]


def test_texts_that_are_not_unicode(tmp_path: Path) -> None:
    """Labels come from names of files, which can hold any byte."""
    recording = Recording(write(tmp_path / "rec", rows_of(1), [(0, "after-\udcff")]))
    assert recording.frame(["text"])["text"].tolist() == ["after-?"]


def test_an_event_name_of_another_version_is_code_0(tmp_path: Path) -> None:
    path = write(tmp_path / "rec", rows_of(3))
    rewrite(path, lambda t: t.set_column(3, t.schema.field("event"), pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 0], pa.int32()), pa.array(["zs_new_in_8", "zs_free"]))))
    edit(path, lambda m: m.update(kinds={"zs_new_in_8": 2, "zs_free": 1}))
    (_, part), = Recording(path).batches(["event"])
    assert part["event"].tolist() == [0, schema.CODE["zs_free"], 0]


def test_an_empty_recording(tmp_path: Path) -> None:
    recording = Recording(write(tmp_path / "rec", rows_of(0)))
    assert (len(recording), list(recording.batches(["ts"])), recording.pages) == (0, [], None)
    assert tuple(recording.frame().columns) == schema.column_names()
    assert tuple(recording.frame(["ret", "ts"]).columns) == ("ret", "ts")
    assert recording.table("truth") is None
    assert recording.document("state") is None


def test_snapshots_tables_and_documents(tmp_path: Path) -> None:
    recording = Recording(write(tmp_path / "rec", rows_of(2), counters=True, tables=True))
    assert [(snapshot["label"], snapshot["ts"]) for snapshot in recording.snapshots] == [("before", 5), ("end", 9)]
    assert recording.snapshot(0)["vmstat"]["zswpout"] == 1 << 63
    assert recording.snapshot(1) == {"t": 2}
    table = recording.table("truth")
    assert table is not None
    assert table.to_dict("list") == {"phase": ["a"], "page": [1]}
    assert recording.document("state") == STATE


def test_every_file_has_its_digest_and_is_private(tmp_path: Path) -> None:
    path = write(tmp_path / "rec", rows_of(5), pages=4, counters=True, tables=True)
    files = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()} - {"manifest.json"}
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == files
    assert {"events/00000.parquet", "pages/pages.parquet", "pages/refs.parquet", "counters/000.json",
            "counters/001.json", "truth.parquet", "state.json"} == files
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for made in path.rglob("*"):
        assert stat.S_IMODE(made.stat().st_mode) == (0o700 if made.is_dir() else 0o600), made


# All or nothing.

class Stop(BaseException):
    """An exception that no code catches, such as Ctrl-C."""


@pytest.mark.parametrize("when", ["at once", "after rows", "after pages", "in close"])
def test_an_exception_leaves_nothing(tmp_path: Path, when: str) -> None:
    def attempt() -> None:
        with RecordingWriter(tmp_path / "rec") as writer:
            if when == "at once":
                raise Stop
            writer.write_rows(rows_of(3))
            if when == "after rows":
                raise Stop
            for number in range(600):
                writer.pages.add(page(number))
            if when == "after pages":
                raise Stop
            writer.close({**MANIFEST, "notes": {1, 2}})

    with pytest.raises((Stop, TypeError)):
        attempt()
    assert list(tmp_path.iterdir()) == []


def test_the_directory_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "rec") as writer:
        writer.write_rows(rows_of(3))
        assert not (tmp_path / "rec").exists()
        assert stat.S_IMODE(writer.directory.stat().st_mode) == 0o700
        writer.close(MANIFEST)
    assert [p.name for p in tmp_path.iterdir()] == ["rec"]


def test_an_unclosed_writer_leaves_nothing(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "rec") as writer:
        writer.write_rows(rows_of(3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_an_existing_output_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rec"
    if kind == "directory":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"rec: the output exists already; remove it or choose another name\.$"):
        RecordingWriter(path)
    assert [p.name for p in tmp_path.iterdir()] == ["rec"]
    assert kind != "file" or path.read_text() == "mine"


def test_an_output_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def attempt() -> None:
        with RecordingWriter(tmp_path / "rec") as writer:
            (tmp_path / "rec").write_text("mine")
            writer.close(MANIFEST)

    with pytest.raises(BadInput, match="appeared while"):
        attempt()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("rec", "mine")]


def test_an_output_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"rec: cannot be made \(No such file or directory\); choose a directory"):
        RecordingWriter(tmp_path / "no" / "rec")
    with pytest.raises(BadInput, match="cannot be made"):
        RecordingWriter(tmp_path / "no" / "rec", in_place=True)


def test_in_place(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "rec", in_place=True) as writer:
        assert stat.S_IMODE((tmp_path / "rec").stat().st_mode) == 0o700
        writer.write_rows(rows_of(3))
        writer.close(MANIFEST)
    assert len(Recording(tmp_path / "rec")) == 3


# What is refused.

def sentence(problem: BadInput, path: Path) -> str:
    """The message, after checking that it is one sentence that names the file and what to do."""
    text = str(problem)
    assert str(path) in text
    assert text.endswith(".")
    assert "\n" not in text
    assert "; " in text
    assert "Traceback" not in text
    assert problem.todo
    return text


def refused(path: Path, at: Path | None = None) -> str:
    """Open and read everything; the sentence of the BadInput that this must raise."""
    with pytest.raises(BadInput) as caught:
        read_all(Recording(path))
    return sentence(caught.value, at or path)


def read_all(recording: Recording) -> None:
    recording.frame()
    list(recording.batches(schema.column_names()))
    for number in range(len(recording.snapshots)):
        recording.snapshot(number)
    recording.table("truth")
    recording.document("state")
    if recording.pages is not None:
        recording.pages.all_pages()


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table], name: str = "events/00000.parquet", **options: Any) -> None:
    """Replace a table and its digest."""
    table = change(pq.ParquetFile(path / name).read())
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    replace(path, name, sink.getvalue().to_pybytes())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write(tmp_path_factory.mktemp("original") / "rec", rows_of(9), [(1, "x")], pages=5, counters=True,
                 tables=True)
    read_all(Recording(path))
    return path


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "rec"))


FILES = ["events/00000.parquet", "pages/pages.parquet", "pages/refs.parquet", "counters/000.json", "counters/001.json",
         "truth.parquet", "state.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert "does not match its digest" in refused(copy, copy / name)
    assert Recording(copy, verify=False).manifest


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "cut", "directory"])
def test_a_missing_or_shortened_file_is_refused(copy: Path, name: str, how: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).unlink()
    if how == "cut":
        (copy / name).write_bytes(data[:-1])
    elif how == "directory":
        (copy / name).mkdir()
    text = refused(copy, copy / name)
    said = {"cut": "does not match its digest", "missing": "is missing", "directory": "is a directory, not a regular file"}
    assert said[how] in text


@pytest.mark.parametrize("name", FILES)
def test_damage_under_a_right_digest_is_a_sentence(copy: Path, name: str) -> None:
    """A process that changes a file can change its digest too."""
    data = (copy / name).read_bytes()
    for bad in (b"", b"PAR1", data[:len(data) // 2], b"[1, 2]", b"\xff\xfe", b"[" * 100000):
        replace(copy, name, bad)
        refused(copy)
    replace(copy, name, data)
    read_all(Recording(copy))


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("parquet")])
def test_bit_flips_under_a_right_digest(copy: Path, name: str) -> None:
    """No crash: a sentence, or values."""
    data = (copy / name).read_bytes()
    random = np.random.default_rng(1)
    for _ in range(40):
        bad = bytearray(data)
        for at in random.integers(0, len(bad), 3):
            bad[at] ^= 1 << int(random.integers(0, 8))
        replace(copy, name, bytes(bad))
        try:
            read_all(Recording(copy))
        except BadInput as problem:
            sentence(problem, copy)


def test_a_file_that_was_not_recorded_is_not_read(copy: Path) -> None:
    """Added files have no digest, so nothing may depend on them."""
    edit(copy, lambda m: [m["files"].pop(name) for name in ("truth.parquet", "state.json", "pages/pages.parquet")])
    with pytest.raises(BadInput, match="key 'pages': says 3 pages, and there are 0"):
        Recording(copy)
    edit(copy, lambda m: m.pop("pages"))
    recording = Recording(copy)
    assert recording.table("truth") is None
    assert recording.document("state") is None
    assert recording.pages is None


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a newer version": (lambda m: m.update(format_version=2), "format version 2 is not one this zreplay reads"),
    "version 0": (lambda m: m.update(format_version=0), "format version 0"),
    "a version that is not a number": (lambda m: m.update(format_version="1"), "has no format_version"),
    "a version that is true": (lambda m: m.update(format_version=True), "has no format_version"),
    "no version": (lambda m: m.pop("format_version"), "has no format_version"),
    **{f"no {key}": (lambda m, key=key: m.pop(key), f"does not say {key};")
       for key in ("kernel", "segments", "snapshots", "probes", "losses", "files", "complete", "source", "config")},
    "segments of another type": (lambda m: m.update(segments={}), "key 'segments'"),
    "no rows": (lambda m: m["segments"][0].update(rows=0), "key 'segments.0.rows': is less than allowed (1)"),
    "negative rows": (lambda m: m["segments"][0].update(rows=-9), "key 'segments.0.rows'"),
    "absurd rows": (lambda m: m["segments"][0].update(rows=1 << 40), "key 'segments.0.rows': is more than allowed (4194304)"),
    "rows that are no number": (lambda m: m["segments"][0].update(rows="9"), "key 'segments.0.rows': is not a whole number"),
    "rows that are a fraction": (lambda m: m["segments"][0].update(rows=9.5), "key 'segments.0.rows': is not a whole number"),
    "rows that are true": (lambda m: m["segments"][0].update(rows=True), "key 'segments.0.rows': is not a whole number"),
    "other rows than the file": (lambda m: (m["segments"][0].update(rows=8), m.update(rows=8)),
                                 "has 9 events where the manifest says 8"),
    "other rows than its segments": (lambda m: m["segments"][0].update(rows=8),
                                     "key 'rows': says 9 events, and the segments' rows are 8"),
    "a segment less": (lambda m: m["segments"].clear(), "key 'segments': does not list events/00000.parquet, one of 'files'"),
    "a segment less, and its digest": (lambda m: (m["segments"].clear(), m["files"].pop("events/00000.parquet")),
                                       "key 'rows': says 9 events, and the segments' rows are 0"),
    "a segment twice": (lambda m: (m["segments"].append(m["segments"][0]), m.update(rows=18)), "key 'segments': names a file twice"),
    "a snapshot less": (lambda m: m["snapshots"].pop(), "key 'snapshots': does not list counters/001.json, one of 'files'"),
    "a segment that is a list": (lambda m: m.update(segments=[[]]), "key 'segments.0': is not an object"),
    "a segment without a file": (lambda m: m["segments"][0].pop("file"), "key 'segments.0': does not say file"),
    "a segment of a number": (lambda m: m["segments"][0].update(file=7), "key 'segments.0.file': is not a text"),
    "a segment outside": (lambda m: m["segments"][0].update(file="../../other.parquet"), "key 'segments.0.file'"),
    "a segment without a digest": (lambda m: m["files"].pop("events/00000.parquet"), "segment 0"),
    "a snapshot that is a string": (lambda m: m.update(snapshots=["x"]), "key 'snapshots.0': is not an object"),
    "a snapshot outside": (lambda m: m["snapshots"][1].update(file="/etc/passwd"), "key 'snapshots.1.file'"),
    "a snapshot without a label": (lambda m: m["snapshots"][0].pop("label"), "key 'snapshots.0': does not say label"),
    "a snapshot without a time": (lambda m: m["snapshots"][0].update(ts=None), "key 'snapshots.0.ts': is not a whole number"),
    **{what: (lambda m, name=name: m["files"].update({name: "0" * 64}), "key 'files': has a name in it that is not allowed")
       for what, name in {"a file outside": "../x", "a file far outside": "a/../../../etc/passwd", "an absolute file": "/etc/passwd",
                          "a file without a name": "", "a file with a NUL": "a\0b", "a file with a very long name": "x" * 300,
                          "a file with a line break": "a\nb\x1b[31m", "a file that ends with one": "a\n",
                          "a hidden file": ".x"}.items()},
    "a digest that is not a text": (lambda m: m["files"].update({"state.json": None}), "key 'files.state.json': is not a text"),
    "a digest that is none": (lambda m: m["files"].update({"state.json": "0"}), "key 'files.state.json': does not fit"),
    "pages of another size": (lambda m: m.update(page_size=16384), "key 'page_size': is not 4096"),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_manifests_that_are_refused(copy: Path, what: str) -> None:
    change, expected = MANIFESTS[what]
    edit(copy, change)
    assert expected in refused(copy)


@pytest.mark.parametrize("what", [what for what in MANIFESTS if "outside" in what or "absolute" in what])
def test_nothing_outside_is_read_even_unverified(copy: Path, what: str) -> None:
    edit(copy, MANIFESTS[what][0])
    with pytest.raises(BadInput):
        Recording(copy, verify=False)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"a":' * 100000, b"1" * 5000,
                                  b'{"format_version": 1'])
def test_manifests_that_are_no_json_object(copy: Path, data: bytes) -> None:
    (copy / "manifest.json").write_bytes(data)
    text = refused(copy, copy / "manifest.json")
    assert "is not readable JSON" in text or "has no format_version" in text


def test_an_absurdly_large_manifest(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module.jsontext, "MOST_BYTES", 100)
    assert "absurdly large" in refused(copy, copy / "manifest.json")


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty directory"])
def test_what_is_not_a_recording(tmp_path: Path, what: str) -> None:
    path = tmp_path / "rec"
    if what == "a file":
        path.write_text("x")
    elif what != "nothing":
        path.mkdir()
    text = refused(path)
    if what == "nothing":
        assert "does not exist; see how it is spelt" in text
        return
    assert "this is not a recording" in text
    assert "zreplay import" in text


SEGMENTS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a column too few": lambda t: t.drop_columns(["nid"]),
    "a column too many": lambda t: t.append_column("extra", pa.array([0] * 9)),
    "columns in another order": lambda t: t.select(list(reversed(t.column_names))),
    "no columns": lambda t: t.select([]),
    "events as numbers": lambda t: t.set_column(3, "event", pa.array([20] * 9)),
    "events as plain text": lambda t: t.set_column(3, "event", pa.array(["zs_free"] * 9)),
    "stamps as text": lambda t: t.set_column(0, "ts", pa.array(["1"] * 9)),
    "pointers as floats": lambda t: t.set_column(4, "swpent", pa.array([1.5] * 9)),
    "numbers that may be missing": lambda t: t.set_column(13, "ret", pa.array([None, *[1] * 8], pa.int64())),
}


@pytest.mark.parametrize("what", SEGMENTS)
def test_segments_with_other_columns_are_refused(copy: Path, what: str) -> None:
    rewrite(copy, SEGMENTS[what])
    text = refused(copy, copy / "events" / "00000.parquet")
    assert "its columns are not those of the format" in text or "has 0 events" in text


NOT_UTF8 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")])


@pytest.mark.parametrize("column", ["event", "text"])
def test_texts_that_are_no_utf8_are_refused(copy: Path, column: str) -> None:
    place = schema.column_names().index(column)
    rewrite(copy, lambda t: t.set_column(place, t.schema.field(column), pa.DictionaryArray.from_arrays(
        pa.array([0] * 9, pa.int32()), NOT_UTF8)))
    assert "event 0: cannot be read" in refused(copy, copy / "events" / "00000.parquet")


def test_a_table_that_is_no_utf8_is_refused(copy: Path) -> None:
    rewrite(copy, lambda t: pa.table({"phase": NOT_UTF8}), "truth.parquet")
    assert "cannot be read" in refused(copy, copy / "truth.parquet")


def test_digests_of_pages_that_are_no_utf8_are_refused(copy: Path) -> None:
    rewrite(copy, lambda t: pa.Table.from_arrays([NOT_UTF8, pa.array([None], pa.binary())], schema=t.schema),
            "pages/pages.parquet")
    assert "the page store cannot be read" in refused(copy, copy / "pages")


def test_a_segment_in_several_row_groups_is_fine(copy: Path) -> None:
    before = Recording(copy).frame()
    rewrite(copy, lambda t: t, row_group_size=2)
    recording = Recording(copy)
    assert recording.frame().astype(str).equals(before.astype(str))
    (_, part), = recording.batches(["event", "text", "ts"])
    assert [schema.NAMES[code] for code in part["event"]] == before["event"].tolist()
    assert part["text"].tolist() == before["text"].tolist()


# Pages.

def store_of(directory: Path, entries: list[tuple[bytes | None, str | None]]) -> PageStore:
    writer = PageStoreWriter(directory)
    rows = [writer.add(data, sha1) for data, sha1 in entries]
    assert rows == list(range(len(entries)))
    writer.close()
    return PageStore(directory)


@pytest.mark.parametrize("group", [1, 2, 3, 512])
def test_pages_are_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    monkeypatch.setattr(pages_module, "_GROUP", group)
    order = [0, 1, 0, 2, 2, 3, 1, 4, 0]
    store = store_of(tmp_path / "pages", [(page(n), None) for n in order])
    assert (len(store), store.refs.tolist()) == (5, order)
    assert store.sha1 == [hashlib.sha1(page(n)).hexdigest() for n in range(5)]
    data, has = store.all_pages()
    assert has.all()
    assert [bytes(row) for row in data] == [page(n) for n in range(5)]
    blocks = list(store.blocks())
    assert [first for first, _ in blocks] == list(range(0, 5, group))
    assert [len(block) for _, block in blocks] == [min(group, 5 - first) for first, _ in blocks]


def test_pages_of_which_only_the_digest_is_known(tmp_path: Path) -> None:
    sha1 = hashlib.sha1(page(1)).hexdigest()
    store = store_of(tmp_path / "pages", [(None, sha1), (page(2), None), (None, sha1)])
    assert store.refs.tolist() == [0, 1, 0]
    data, has = store.all_pages()
    assert has.tolist() == [False, True]
    assert not data[0].any()


def test_what_a_page_must_have(tmp_path: Path) -> None:
    writer = PageStoreWriter(tmp_path / "pages")
    for bad in (b"", page(0)[:-1], page(0) + b"x"):
        with pytest.raises(ValueError, match="a page has 4096 bytes"):
            writer.add(bad)
    with pytest.raises(ValueError, match="its bytes or its digest"):
        writer.add(None)
    writer.close()
    assert not (tmp_path / "pages").exists()


STORES: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "bytes that do not match": ("pages", lambda t: t.set_column(1, "data", pa.array([page(9)] + [None] * 2, pa.binary())),
                                "page 0: its bytes do not match its SHA-1"),
    "a short page": ("pages", lambda t: t.set_column(1, "data", pa.array([None, b"x", None], pa.binary())),
                     "page 1: has 1 bytes, not 4096"),
    "other columns": ("pages", lambda t: t.rename_columns(["sha1", "bytes"]), "the columns are not sha1 and data"),
    "digests as numbers": ("pages", lambda t: t.set_column(0, "sha1", pa.array([1, 2, 3])), "the columns are not"),
    "too few pages": ("pages", lambda t: t.slice(0, 2), "a reference points past the last page"),
    "no pages": ("pages", lambda t: t.slice(0, 0), "a reference points past the last page"),
    "a reference past the end": ("refs", lambda t: t.set_column(0, t.schema.field(0), pa.array([0, 1, 2, 3, 0], pa.int32())),
                                 "a reference points past the last page"),
    "a negative reference": ("refs", lambda t: t.set_column(0, t.schema.field(0), pa.array([0, 1, -1, 0, 0], pa.int32())),
                             "a reference points past the last page"),
    "a missing reference": ("refs", lambda t: t.set_column(0, "page", pa.array([0, None, 1, 1, 1], pa.int32())),
                            "its column is not page"),
    "another column of references": ("refs", lambda t: t.rename_columns(["row"]), "its column is not page"),
    "references as text": ("refs", lambda t: t.set_column(0, "page", pa.array(["0"] * 5)), "its column is not page"),
}


@pytest.mark.parametrize("what", STORES)
def test_page_stores_that_are_refused(copy: Path, what: str) -> None:
    name, change, expected = STORES[what]

    def keep_types(table: pa.Table) -> pa.Table:
        # set_column() makes nullable fields; only what a case is about may differ.
        changed = change(table)
        same = [field.name for field in changed.schema] == table.schema.names and changed.schema.types == table.schema.types
        return changed.cast(table.schema) if same and "missing" not in what else changed

    rewrite(copy, keep_types, f"pages/{name}.parquet")
    assert expected in refused(copy, copy / "pages")


@pytest.mark.parametrize("name", ["pages.parquet", "refs.parquet"])
def test_a_page_store_without_one_of_its_files(copy: Path, name: str) -> None:
    (copy / "pages" / name).unlink()
    with pytest.raises(BadInput, match=r"the page store cannot be read .*; import or record again\.$"):
        PageStore(copy / "pages")


def test_no_page_store_without_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "rec", rows_of(2))
    assert not (path / "pages").exists()
    assert Recording(path).pages is None


@pytest.mark.parametrize(("name", "column"), [("pages.parquet", b"data"), ("refs.parquet", b"page")])
def test_columns_of_a_page_store_whose_names_are_no_utf8(copy: Path, name: str, column: bytes) -> None:
    data = (copy / "pages" / name).read_bytes()
    replace(copy, f"pages/{name}", data.replace(column, b"\xff" + column[1:]))
    assert "the page store cannot be read" in refused(copy, copy / "pages")


def test_events_whose_probe_a_manifest_does_not_list_are_no_events_that_were_not_probed(tmp_path: Path) -> None:
    """A replay would not expect them, and blame the kernel for them."""
    (sample,) = (path for path in sample_paths() if path.name == "7.2-lz4-numa2")
    copy = shutil.copytree(sample, tmp_path / "r")
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    edit(copy, lambda manifest: manifest["probes"].pop("fix_fullness_group"))
    with pytest.raises(BadInput, match="key 'probes': does not list fix_fullness_group, of which there are events"):
        Recording(copy)


def test_what_a_segment_says_of_itself_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_repeated(tmp_path / "r", cycle(5_000), 3)
    asked: list[Path] = []

    def counting(path: Path, *rest: Any) -> None:
        asked.append(path)
        return bound(path, *rest)

    def reading(raw: BinaryIO, size: int) -> Any:
        asked.append(Path("footer"))
        return columns(raw, size)

    bound, columns = parquetbounds.bound_memory, parquetbounds.columns
    monkeypatch.setattr(parquetbounds, "bound_memory", counting)
    monkeypatch.setattr(parquetbounds, "columns", reading)
    recording = Recording(tmp_path / "r")
    segments = {tmp_path / "r" / segment["file"] for segment in recording.manifest["segments"]}
    assert len(segments) == 3
    assert replay(recording, pages=False).verdict == "PASS"
    # Footers are read once before pyarrow reads anything of a file, and once for the reader of such files.
    assert Counter(asked) == {**dict.fromkeys(segments, 1), Path("footer"): 6}
