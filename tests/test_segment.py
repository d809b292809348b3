# SPDX-License-Identifier: GPL-2.0-or-later
"""Segments are what Parquet readers say they are, come back as they went in, and damage is reported."""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traces import schema
from traces.block import SPARSE, Block
from traces.errors import BadInput
from traces.importers.merge import join
from traces.recording import SEGMENT_ROWS, Recording, RecordingWriter
from traces.segment import SegmentEncoder
from traces.segmentread import Lender

COLUMNS = schema.column_names()
PLACE = {name: number for number, name in enumerate(COLUMNS)}
DTYPE = {column.name: column.dtype for column in schema.COLUMNS}
MANIFEST = {"kernel": {}, "config": {}, "losses": [], "source": {},
            "probes": {kind.name: {"columns": sorted(kind.columns), "function": ""} for kind in schema.EVENTS
                       if kind.name not in schema.NO_PROBE}}
CODES = np.array([kind.code for kind in schema.EVENTS])
quick = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


@st.composite
def _dense(draw: st.DrawFn, most: int = 2000) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Whole columns: empty, full, of one value, of few values, of any 64 bits; stamps that go any way."""
    rows = draw(st.one_of(st.integers(1, 70), st.integers(1, most)))
    chance = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    out = np.zeros((len(COLUMNS), rows), np.int64)
    out[PLACE["content"]] = -1
    for name in (*SPARSE, "pid", "cpu"):
        share = draw(st.sampled_from((0, 0, 0.02, 0.3, 0.9, 1)))
        kinds = draw(st.sampled_from((1, 3, 200, 300, 70000)))
        values = chance.integers(-1 << 63, 1 << 63, kinds, np.int64, endpoint=False) >> draw(st.sampled_from((0, 30, 55)))
        out[PLACE[name]] = np.where(chance.random(rows) < share, chance.choice(values, rows), out[PLACE[name]])
    steps = draw(st.sampled_from(((0, 1), (5, 6), (0, 3000), (-1 << 62, 1 << 62))))
    with np.errstate(over="ignore"):
        out[0] = np.cumsum(chance.integers(*steps, rows, np.int64)) + draw(st.sampled_from((0, -1 << 63, (1 << 63) - 1)))
    out[PLACE["event"]] = chance.choice(CODES, rows)
    texts = draw(st.dictionaries(st.integers(0, rows - 1), st.text(max_size=20), max_size=5))
    return out, sorted(texts.items())


def expected(columns: np.ndarray, texts: list[tuple[int, str]], name: str) -> list[Any]:
    """A column as its reader must see it."""
    if name == "event":
        return [schema.NAMES[code] for code in columns[PLACE["event"]]]
    if name == "text":
        found = dict(texts)
        return [found.get(row, "").encode("utf-8", "replace").decode() for row in range(columns.shape[1])]
    values: list[Any] = columns[PLACE[name]].astype(DTYPE[name]).tolist()
    return values


def encoded(block: Block) -> bytes:
    return b"".join(SegmentEncoder(SEGMENT_ROWS).encode(block))


@quick
@given(_dense())
def test_pyarrow_and_pandas_read_what_was_written(made: tuple[np.ndarray, list[tuple[int, str]]]) -> None:
    columns, texts = made
    data = encoded(Block.of(columns, texts))
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.schema_arrow.equals(schema.arrow_schema())
    table = file.read()
    table.validate(full=True)
    frame = pd.read_parquet(io.BytesIO(data))
    for name in COLUMNS:
        assert table.column(name).to_pylist() == expected(columns, texts, name), name
        assert frame[name].tolist() == expected(columns, texts, name), name
    assert str(frame["swpent"].dtype) == "uint64"


@quick
@given(_dense(), st.integers(1, 900), st.data())
def test_batches_are_what_was_written(tmp_path_factory: pytest.TempPathFactory,
                                      made: tuple[np.ndarray, list[tuple[int, str]]], rows: int, data: Any) -> None:
    """Of any size and choice of columns; what was handed out stays as it is while the rest is read."""
    columns, texts = made
    path = tmp_path_factory.mktemp("segment") / "rec"
    cut = data.draw(st.integers(0, columns.shape[1]))
    with RecordingWriter(path) as writer:
        for part in (Block.of(columns, texts).part(0, cut), Block.of(columns, texts).part(cut, columns.shape[1])):
            writer.write_block(part)
        writer.close(MANIFEST)
    names = data.draw(st.lists(st.sampled_from(COLUMNS), unique=True))
    got = list(Recording(path).batches(names, rows))
    assert [first for first, _ in got] == [first for low, high in ((0, cut), (cut, columns.shape[1]))
                                           for first in range(low, high, rows)]
    for name in names:
        whole = np.concatenate([batch[name] for _, batch in got])
        assert whole.dtype == (object if name == "text" else DTYPE[name])
        assert whole.tolist() == (columns[PLACE["event"]].tolist() if name == "event" else
                                  expected(columns, texts, name)), name
    assert [list(batch) for _, batch in got] == [names] * len(got)


def test_more_kinds_than_two_bytes_can_number() -> None:
    columns = np.zeros((len(COLUMNS), 150_000), np.int64)
    columns[PLACE["event"]] = 20
    columns[PLACE["folio"]] = np.arange(1, 150_001)
    columns[PLACE["entry"]] = np.repeat(np.arange(1, 75_001), 2)
    table = pq.ParquetFile(io.BytesIO(encoded(Block.of(columns)))).read()
    for name in ("folio", "entry", "handle"):
        assert table.column(name).to_numpy().tolist() == columns[PLACE[name]].tolist()


def test_an_empty_column_takes_no_room() -> None:
    columns = np.zeros((len(COLUMNS), SEGMENT_ROWS), np.int64)
    columns[PLACE["content"]], columns[PLACE["event"]] = -1, 20
    columns[0] = np.arange(SEGMENT_ROWS) * 1000
    assert len(encoded(Block.of(columns))) < 10_000


def test_recordings_of_another_writer_are_read_the_same(tmp_path: Path) -> None:
    """Parquet says the same in many ways; recordings made before this writer, or by other tools, stay readable."""
    columns, texts = np.zeros((len(COLUMNS), 1000), np.int64), [(3, "a"), (999, "b")]
    columns[PLACE["event"]], columns[PLACE["folio"]] = 20, np.arange(1000) - 500
    with RecordingWriter(tmp_path / "rec") as writer:
        writer.write_rows(columns, texts)
        writer.close(MANIFEST)
    want = list(Recording(tmp_path / "rec").batches(COLUMNS, 77))
    name = tmp_path / "rec" / "events" / "00000.parquet"
    table = pq.ParquetFile(name).read()
    for options in ({"compression": "none"}, {"compression": "zstd", "use_dictionary": ["event", "text"]},
                    {"row_group_size": 100}):
        pq.write_table(table, name, **options)
        got = list(Recording(tmp_path / "rec", verify=False).batches(COLUMNS, 77))
        for (first, batch), (also, right) in zip(got, want, strict=True):
            assert first == also
            for column in COLUMNS:
                assert batch[column].dtype == right[column].dtype
                assert batch[column].tolist() == right[column].tolist()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of some hundred rows with something in every column."""
    path = tmp_path_factory.mktemp("sample") / "rec"
    chance = np.random.default_rng(1)
    columns = np.where(chance.random((len(COLUMNS), 700)) < 0.4, chance.integers(0, 1000, (len(COLUMNS), 700)), 0)
    columns[PLACE["event"]] = chance.choice(CODES, 700)
    columns[0] = np.cumsum(chance.integers(0, 3000, 700))
    with RecordingWriter(path) as writer:
        writer.write_rows(columns, [(5, "phase x"), (300, "param compressor=lz4")])
        writer.close(MANIFEST)
    return path


@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_is_told_or_does_no_harm(sample: Path, data: Any) -> None:
    """Any bytes of a segment changed: a sentence, or arrays of the right types and sizes; never anything else."""
    path = sample.parent / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(sample, path)
    file = path / "events" / "00000.parquet"
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(raw[:len(raw) - data.draw(st.sampled_from((0, 0, 0, 0, 1, 100)))]))
    with contextlib.suppress(BadInput):
        rows = 0
        for first, batch in Recording(path, verify=False).batches(COLUMNS, 100):
            assert first == rows
            rows += len(batch["ts"])
            for name in COLUMNS:
                assert len(batch[name]) == len(batch["ts"])
                assert batch[name].dtype == (object if name == "text" else DTYPE[name])
        assert rows == 700


def test_what_pyarrow_must_not_be_asked_for(sample: Path, tmp_path: Path) -> None:
    """Asked for the name of a codec that does not exist pyarrow ends the process; a writer's name may not be UTF-8."""
    shutil.copytree(sample, tmp_path / "rec")
    file = tmp_path / "rec" / "events" / "00000.parquet"
    raw = file.read_bytes()
    # In the footer, column ts: DELTA_BINARY_PACKED, its name, its codec (6, ZSTD) and what comes next.
    for old, new in ((b"\x02ts\x15\x0c\x16", b"\x02ts\x15\x0d\x16"), (b"zreplay", b"zrepl\xffy")):
        assert raw.count(old) == 1
        file.write_bytes(raw.replace(old, new))
        recording = Recording(tmp_path / "rec", verify=False)
        if old != b"zreplay":
            with pytest.raises(BadInput, match="what it says of its columns is damaged"):
                list(recording.batches(["ts", "folio"], 100))
            continue
        want, got = list(Recording(sample).batches(["ts", "folio"], 100)), list(recording.batches(["ts", "folio"], 100))
        for (_, batch), (_, right) in zip(got, want, strict=True):
            assert all((batch[name] == right[name]).all() for name in right)


def test_pages_of_another_codec_are_left_to_pyarrow(sample: Path, tmp_path: Path) -> None:
    """Its word counts where a page is not packed with zstd."""
    shutil.copytree(sample, tmp_path / "rec")
    file = tmp_path / "rec" / "events" / "00000.parquet"
    raw = file.read_bytes()
    at = raw.index(b"\x28\xb5\x2f\xfd")
    file.write_bytes(raw[:at] + b"abcd" + raw[at + 4:])
    with pytest.raises(BadInput, match="cannot be read"):
        list(Recording(tmp_path / "rec", verify=False).batches(["ts"]))


@st.composite
def _numbers(draw: st.DrawFn) -> tuple[int, bytes, int, int]:
    """Width, runs of both kinds, how many numbers are known and how many rows are asked for; something may be wrong."""
    width, known = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    body = b""
    some = st.integers(0, known if draw(st.booleans()) else known - 1).map(lambda n: n.to_bytes(width, "little"))
    for groups in draw(st.lists(st.integers(0, 2), max_size=4)):
        body += bytes([groups << 1 | 1]) + b"".join(draw(some) for _ in range(8 * groups)) if draw(st.booleans()) \
            else bytes([groups << 1]) + draw(some)
    body = body[:len(body) - draw(st.sampled_from((0, 0, 1, 2, width)))]
    return width, body, known, draw(st.integers(1, 40))


@settings(deadline=None, max_examples=600, suppress_health_check=list(HealthCheck))
@given(st.one_of(_numbers(), st.tuples(st.integers(1, 3), st.binary(max_size=60), st.integers(1, 20), st.integers(1, 60))))
def test_any_page_of_numbers_is_read_within_its_bounds(made: tuple[int, bytes, int, int]) -> None:
    """What compression checks left through is checked again; compiled and plain Python agree."""
    from traces import segmentread
    width, body, known, rows = made
    page = np.frombuffer(bytes([8 * width]) + body, np.uint8)
    results = []
    for run in (segmentread._expand, segmentread._expand.py_func):
        state, out = np.array([1, 0, 0, 0], np.int64), np.full(rows, -7, np.int32)
        good = run(page, width, state, np.arange(known, dtype=np.int32), out)
        results.append((bool(good), out.tolist() if good else None))
        if good:
            assert 0 <= min(out) <= max(out) < known
    assert results[0] == results[1]


@pytest.mark.parametrize("step", [0, 5, 300, 70_000, 1 << 40, 1 << 61])
def test_a_page_of_stamps_that_ends_early_is_told(step: int) -> None:
    """By any number of bytes; and what is read of the whole one is all there was."""
    from traces import segment, segmentread
    values = np.cumsum(np.random.default_rng(2).integers(0, step + 1, 300))
    room = np.zeros(1 << 13, np.uint8)
    whole = room[:segment._deltas(values, room)]
    out = np.zeros(values.size, np.int64)
    assert segmentread._undelta(whole, out)
    assert (out == values).all()
    # The last part of 32 is stored whole though 12 rows of it are none.
    for end in range(whole.size):
        with np.errstate(over="ignore"):
            assert not segmentread._undelta.py_func(whole[:end], out), end
        assert not segmentread._undelta(whole[:end], out), end


def test_a_dictionary_of_nothing_is_left_to_pyarrow() -> None:
    """Every page begins with the first of its values."""
    from traces import segmentread
    from traces.segment import _Struct
    pack = zstandard.ZstdCompressor().compress
    for count in (1, 0):
        values, page = pack(bytes(4 * count)), pack(bytes([8, 20, 0]))
        data = _Struct().integer(1, 2).integer(2, 4 * count).integer(3, len(values)) \
            .struct(7, _Struct().integer(1, count).integer(2, 0)).bytes() + values
        data += _Struct().integer(1, 0).integer(2, 3).integer(3, len(page)) \
            .struct(5, _Struct().integer(1, 10).integer(2, 8).integer(3, 3).integer(4, 3)).bytes() + page
        found = segmentread._pages("size", data, 10, zstandard.ZstdDecompressor())
        assert (found is not None) == bool(count)


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=80), st.integers(1, 200), st.booleans())
def test_any_page_of_stamps_is_read_within_its_bounds(body: bytes, rows: int, headed: bool) -> None:
    from traces import segmentread
    head = bytes([128, 1, 4, *([rows] if rows < 128 else [rows & 127 | 128, 1])]) if headed else b""
    page = np.frombuffer(head + body, np.uint8)
    results = []
    for run in (segmentread._undelta, segmentread._undelta.py_func):
        out = np.zeros(rows, np.int64)
        with np.errstate(over="ignore"):
            good = bool(run(page, out))
        results.append((good, out.tolist() if good else None))
    assert results[0] == results[1]


def test_lent_arrays_are_lent_again_only_when_nobody_has_them() -> None:
    lender = Lender()
    first = lender.array("folio", 10)
    view = first[2:5]
    assert lender.array("folio", 10) is not first
    del first
    second = lender.array("folio", 10)
    assert second.base is None
    assert not np.shares_memory(second, view)
    held = [lender.array("folio", 10) for _ in range(10)]
    assert len({id(array) for array in held}) == 10
    address = view.__array_interface__["data"][0] - 16
    del view, held, second
    assert address in {lender.array("folio", 10).__array_interface__["data"][0] for _ in range(5)}


def test_memory_does_not_grow_with_the_number_of_segments(tmp_path: Path) -> None:
    """Importers write segments of any size: one that is read leaves nothing behind."""
    for count in (4, 40):
        with RecordingWriter(tmp_path / str(count)) as writer:
            for number in range(count):
                writer.write_rows(np.zeros((len(COLUMNS), 20_000 + 100 * (40 - number)), np.int64))
            writer.close(MANIFEST)
    peaks = []
    # Compiled code is loaded the first time.
    for count in (4, 4, 40):
        recording = Recording(tmp_path / str(count))
        tracemalloc.start()
        for _, batch in recording.batches(["ts", "folio"], 1000):
            assert len(batch["ts"]) <= 1000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 2 * peaks[1], peaks


def test_texts_in_any_order_go_to_their_rows(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "rec") as writer:
        writer.write_rows(np.zeros((len(COLUMNS), 6), np.int64), [(5, "b"), (1, "x"), (1, "a")])
        writer.close(MANIFEST)
    assert Recording(tmp_path / "rec").frame()["text"].tolist() == ["", "a", "", "", "", "b"]


@quick
@given(_dense(200), st.data())
def test_blocks_are_cut_joined_and_filtered_as_whole_columns_are(made: tuple[np.ndarray, list[tuple[int, str]]],
                                                                 data: Any) -> None:
    columns, texts = made
    rows = columns.shape[1]
    whole = Block.of(columns, texts)
    typed = Block.of(columns, texts).columns()
    assert (typed[[PLACE[name] for name in SPARSE]] == columns[[PLACE[name] for name in SPARSE]]).all()
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, rows), max_size=4))), rows]
    parts = [whole.part(low, high) for low, high in itertools.pairwise(cuts)]
    again = join([part.copy() if number % 2 else part for number, part in enumerate(parts)])
    assert (again.columns() == typed).all()
    assert again.texts == texts
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    inner = whole.part(0, rows).only(keep)
    assert (inner.columns() == typed[:, keep]).all()
    place = data.draw(st.lists(st.integers(0, rows), max_size=5).map(sorted))
    put = join(parts).part(0, rows).insert([(at, {"ts": 7, "ret": number}, "t") for number, at in enumerate(place)])
    extra = np.zeros((len(COLUMNS), len(place)), np.int64)
    extra[PLACE["content"]], extra[0], extra[PLACE["ret"]] = -1, 7, range(len(place))
    assert (put.columns() == np.insert(typed, np.array(place, int), extra, axis=1)).all()


def test_a_code_outside_the_vocabulary_is_refused() -> None:
    columns = np.zeros((len(COLUMNS), 1), np.int64)
    columns[PLACE["event"]] = len(schema.NAMES)
    with pytest.raises(ValueError, match="not one of the vocabulary"):
        Block.of(columns)


def test_a_writer_that_fails_says_so_at_the_latest_when_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) \
        -> None:
    """Segments are written in another thread than the import: an error there must not be lost."""
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), RecordingWriter(tmp_path / "rec") as writer:  # noqa: PT012
        monkeypatch.setattr(writer._encoder, "encode", full)
        writer.write_rows(np.zeros((len(COLUMNS), 5), np.int64))
        writer.close(MANIFEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_block_s_memory_may_be_used_again_after_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                cpus: int) -> None:
    """However slowly it is written."""
    monkeypatch.setattr("traces.recording.usable_cpus", lambda: cpus)
    memory = [Block.of(np.zeros((len(COLUMNS), 5), np.int64)) for _ in range(2)]
    with RecordingWriter(tmp_path / "rec") as writer:
        encode = writer._encoder.encode
        monkeypatch.setattr(writer._encoder, "encode", lambda block: (time.sleep(0.05), encode(block))[1])
        for number in range(8):
            memory[number % 2].ts[:] = number
            writer.write_block(memory[number % 2])
        writer.close(MANIFEST)
    assert Recording(tmp_path / "rec").frame(["ts"])["ts"].tolist() == [number for number in range(8) for _ in range(5)]


def test_an_error_is_not_forgotten_over_the_next_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordingWriter(tmp_path / "rec") as writer:
        calls = itertools.count()
        encode = writer._encoder.encode
        monkeypatch.setattr(writer._encoder, "encode", lambda block: encode(block) if next(calls) else 1 // 0)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            for _ in range(3):
                writer.write_rows(np.zeros((len(COLUMNS), 5), np.int64))
    assert list(tmp_path.iterdir()) == []


def test_the_arrow_schema_in_the_footer_is_the_schema() -> None:
    file = pq.ParquetFile(io.BytesIO(encoded(Block.of(np.zeros((len(COLUMNS), 1), np.int64)))))
    assert file.metadata.created_by == "zreplay"
    assert pa.types.is_dictionary(file.schema_arrow.field("event").type)
