# SPDX-License-Identifier: GPL-2.0-or-later
"""What the pictures of a report are drawn from, checked against the recording itself; and the drawings as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from replay.cli import main
from replay.reference.checks import Tally
from replay.report.distributions import ages, batches, duration, sizes
from replay.report.drawing import Drawing, inline_svg, label, png_file, svg_file
from replay.report.fragmentation import fragmentation
from replay.report.modelpool import course
from replay.report.pictures import write_file
from replay.report.pooltimeline import pool
from replay.report.recordingdata import Recorded, look
from replay.report.reportdata import Material, MissingPicture, Picture, gather
from replay.tools.synthetic import config
from replay.verdict.run import effects, replay
from replay.verdict.setup import open_engine
from traces import schema
from traces.errors import BadInput
from traces.recording import Recording, RecordingWriter

COLUMN = {name: index for index, name in enumerate(schema.column_names())}
SAMPLES = ("6.12-zstd-4k", "7.2-lz4-edge", "7.3-lz4-limits", "7.3-zstd-smp2")


def write(path: Path, rows: list[dict[str, Any]], symbols: dict[str, int] | None = None) -> Recording:
    """Write events, each given by the columns that are not 0."""
    block = np.zeros((len(COLUMN), len(rows)), np.int64)
    block[COLUMN["content"]] = -1
    for number, values in enumerate(rows):
        for name, value in values.items():
            block[COLUMN[name], number] = schema.CODE[value] if name == "event" else value
    made = config()
    made["config"] = {**made["config"], "symbols": symbols or {}}
    with RecordingWriter(path) as writer:
        writer.write_rows(block)
        writer.close(made)
    return Recording(path)


@pytest.fixture(scope="module")
def materials(samples: dict[str, Path]) -> dict[str, Material]:
    """What is gathered of some samples."""
    return {name: gather(None, Recording(samples[name]), "", [], [], []) for name in SAMPLES}


# ---- recorded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_recorded_is_what_pandas_reads(samples: dict[str, Path], name: str) -> None:
    recording = Recording(samples[name])
    frame = recording.frame(["ts", "event", "size", "ret", "pool"])
    found = look(recording)
    asked = frame[frame.event == "zs_malloc"]
    assert {size: int(found.sizes[size]) for size in np.flatnonzero(found.sizes)} == asked["size"].value_counts().to_dict()
    assert found.pools == asked.pool.nunique()
    handed = frame[frame.event == "crypto_acomp_compress"]["size"] // 4096
    assert found.batches == handed.value_counts().to_dict()
    for function in ("zs_get_total_pages", "zswap_total_pages"):
        read = frame[frame.event == f"{function}_ret"]
        if len(read):
            assert found.readings[function].ts.tolist() == read.ts.tolist()
            assert found.readings[function].pages.tolist() == read.ret.tolist()
        else:
            assert function not in found.readings
    assert (found.first_ts, found.last_ts) == (frame.ts.iloc[0], frame.ts.iloc[-1])
    assert [each.event for each in found.snapshots] == frame.index[frame.event == "counters"].tolist()
    for number, snapshot in enumerate(found.snapshots):
        assert snapshot.pages == int(recording.snapshot(number)["zswap_debugfs"]["pool_total_size"]) // 4096
    walked = frame[frame.event == "shrink_memcg_cb_ret"].ret
    assert found.ages.walked == len(walked)
    assert found.ages.unknown + len(found.ages.ns) == (walked == 1).sum()
    assert found.ages.rotated == (walked == 2).sum()


def test_ages_at_writeback(tmp_path: Path) -> None:
    zswap, other = 0x7000, 0x8000
    rows = [
        {"ts": 100, "pid": 1, "event": "list_lru_add", "entry": 0x10, "pool": zswap},
        {"ts": 200, "pid": 1, "event": "list_lru_add", "entry": 0x20, "pool": zswap},
        # Another LRU has an item of the same address: no matter.
        {"ts": 250, "pid": 1, "event": "list_lru_add", "entry": 0x10, "pool": other},
        {"ts": 300, "pid": 2, "event": "shrink_memcg_cb", "entry": 0x10},
        # Reclaim nests, also within the same task.
        {"ts": 310, "pid": 2, "event": "shrink_memcg_cb", "entry": 0x20},
        {"ts": 320, "pid": 2, "event": "shrink_memcg_cb_ret", "ret": 2},
        {"ts": 330, "pid": 2, "event": "shrink_memcg_cb_ret", "ret": 1},
        {"ts": 400, "pid": 3, "event": "shrink_memcg_cb", "entry": 0x30},
        {"ts": 410, "pid": 3, "event": "shrink_memcg_cb_ret", "ret": 1},
        {"ts": 500, "pid": 2, "event": "shrink_memcg_cb", "entry": 0x20},
        {"ts": 510, "pid": 2, "event": "shrink_memcg_cb_ret", "ret": 1},
        {"ts": 520, "pid": 2, "event": "shrink_memcg_cb", "entry": 0x20},
        {"ts": 530, "pid": 2, "event": "shrink_memcg_cb_ret", "ret": 4},
        # A return whose entry was before the recording began.
        {"ts": 540, "pid": 9, "event": "shrink_memcg_cb_ret", "ret": 1},
    ]
    recording = write(tmp_path / "known", rows, {"zswap_list_lru": zswap})
    found = look(recording).ages
    assert (found.ns, found.unknown, found.rotated, found.walked) == ([200, 300], 1, 1, 5)
    picture = ages(_material(recording))
    assert isinstance(picture, Picture)
    assert "listed while it was recorded: 2, after 200 ns to 300 ns, median 250 ns" in picture.caption
    assert "1 more that were written back had been listed before" in picture.caption
    assert sum(int(count) for _, count in picture.rows) == 2
    svg_file(picture.drawing, "x")
    # Without the address of zswap's LRU the last item of that address counts.
    assert look(write(tmp_path / "unknown", rows)).ages.ns == [50, 300]


def test_pages_of_a_compress_call(tmp_path: Path) -> None:
    rows = [{"ts": ts, "pid": 1, "event": "crypto_acomp_compress", "size": pages * 4096}
            for ts, pages in enumerate((1, 8, 8, 3, 1, 8))]
    picture = batches(_material(write(tmp_path / "rec", rows)))
    assert isinstance(picture, Picture)
    assert picture.rows == [["1", "2"], ["3", "1"], ["8", "3"]]
    assert "6 calls of crypto_acomp_compress() were given 29 pages" in picture.caption


def test_sizes_have_a_whole_page_apart(tmp_path: Path) -> None:
    asked = [1, 128, 129, 4095, 4096, 4096]
    rows = [{"ts": ts, "pid": 1, "event": "zs_malloc", "size": size, "pool": 5} for ts, size in enumerate(asked)]
    picture = sizes(_material(write(tmp_path / "rec", rows)))
    assert isinstance(picture, Picture)
    assert picture.rows == [["1 to 128", "2"], ["129 to 256", "1"], ["3,969 to 4,095", "1"], ["4,096", "2"]]
    assert f"{sum(asked) / 6:,.1f} on average, median 129" in picture.caption
    assert "a whole page: 2." in picture.caption
    assert "Larger" not in picture.caption


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        write_file(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]
    write_file(tmp_path / "free", b"x")
    assert (tmp_path / "free").read_bytes() == b"x"
    assert len(list(tmp_path.iterdir())) == 2


def test_sizes_that_no_object_has_are_told(tmp_path: Path) -> None:
    rows = [{"ts": ts, "pid": 1, "event": "zs_malloc", "size": size, "pool": 5} for ts, size in enumerate((9, 4097, 5000))]
    picture = sizes(_material(write(tmp_path / "some", rows)))
    assert isinstance(picture, Picture)
    assert "1 sizes were asked" in picture.caption
    assert "Larger ones are left out: 2." in picture.caption
    missing = sizes(_material(write(tmp_path / "all", rows[1:])))
    assert isinstance(missing, MissingPicture)
    assert "exceed a page" in missing.why


def _material(recording: Recording) -> Material:
    """Return material with what is recorded alone: the events are no run of anything."""
    result = replay(recording, "mainline-7.3", pages=False)
    return Material(result, recording, recorded=look(recording))


def test_left_out_for_a_reason(tmp_path: Path) -> None:
    nothing = _material(write(tmp_path / "rec", [{"ts": 5, "event": "marker"}]))
    for make, why in ((pool, "no total of the pool was read"), (sizes, "nothing was allocated"),
                      (batches, "there is no compress call"), (ages, "there is no writeback"),
                      (fragmentation, "no snapshot holds zsmalloc's size classes")):
        made = make(nothing)
        assert isinstance(made, MissingPicture), make
        assert why in made.why, make
    gone = Material(nothing.result, absent="it is not there")
    for make in (pool, sizes, batches, ages, fragmentation):
        assert make(gone) == MissingPicture(make(gone).name, make(gone).title, "it is not there")


# ---- predicted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_course_is_the_model_s_pool(materials: dict[str, Material], name: str) -> None:
    material = materials[name]
    recording, found, recorded = material.recording, material.course, material.recorded
    assert recording is not None
    assert found is not None
    assert recorded is not None
    assert (found.ended, found.end) == ("", len(recording) - 1)
    assert (np.diff(found.ts) >= 0).all()
    # The kernel's own snapshots agree with it, as they passed their checks.
    for snapshot in recorded.snapshots:
        assert snapshot.pages in _around(found.ts, found.pages, snapshot.ts)
        held = sum(each["pages_used"] for each in found.classes[snapshot.number].values())
        assert held == snapshot.pages
    # So do the totals that were read.
    if recorded.pools == 1:
        for reading in recorded.readings.values():
            for ts, pages in zip(reading.ts.tolist(), reading.pages.tolist(), strict=True):
                assert pages in _around(found.ts, found.pages, ts)
    # And another way to run the same model ends with the same pool.
    engine, _, _ = open_engine(recording, None, Tally(), pages=False)
    engine.run()
    assert found.pages[-1] == engine.state.model.total_pages()
    assert sum(each["pages_used"] for each in found.classes[-1].values()) == found.pages[-1]


def _around(ts: np.ndarray, pages: np.ndarray, at: int) -> set[int]:
    """Return what the model's pool stood at shortly before and after a time: tasks are seen at their next event."""
    low, high = np.searchsorted(ts, (at - 2_000_000, at + 2_000_000))
    return set(pages[max(low - 1, 0):high + 1].tolist())


def test_course_ends_where_the_replay_did(samples: dict[str, Path]) -> None:
    recording = Recording(samples["7.3-lz4-4k"])
    found = course(recording, "v14", [], len(recording))
    result = replay(recording, "v14", pages=False)
    assert found.end == result.divergences[0].event
    assert found.ended == f"the replay diverged at event {result.divergences[0].event:,}"
    short = course(recording, "mainline-7.3", [], 100)
    assert (short.end, short.ended) == (99, "the replay ended after event 99")
    ts = recording.frame(["ts"]).ts
    assert short.ts[-1] == ts[99]
    assert short.ts[0] == ts[0]


def test_course_does_not_change_what_is_predicted(samples: dict[str, Path]) -> None:
    recording = Recording(samples["7.2-lz4-edge"])
    before = [name for _, name, _ in effects(recording)]
    course(recording, "mainline-7.2", [], len(recording))
    assert [name for _, name, _ in effects(recording)] == before


# ---- size classes ----------------------------------------------------------------------------------------


def test_fragmentation_adds_up(materials: dict[str, Material]) -> None:
    for name, material in materials.items():
        picture = fragmentation(material)
        assert isinstance(picture, Picture), name
        rows = [[int(value.replace(",", "")) for value in line] for line in picture.rows]
        for which, size, pages, used, objects, in_use, free, rest in rows:
            assert which >= 0
            assert in_use == used * size
            assert free == (objects - used) * size
            assert in_use + free + rest == pages * 4096
            assert 0 <= rest < pages * 4096
        total = sum(line[2] for line in rows)
        assert f"hold {total:,} pages" in picture.caption
        assert material.course is not None
        assert total == max(sum(each["pages_used"] for each in classes.values())
                            for classes in material.course.classes.values())


def test_classes_as_the_kernel_counts_them_come_first(materials: dict[str, Material]) -> None:
    material = materials["7.2-lz4-edge"]
    assert material.recorded is not None
    import dataclasses

    largest = dataclasses.replace(material.recorded.snapshots[1], classes={
        20: {"obj_allocated": 40, "obj_used": 30, "pages_used": 4}})
    recorded = dataclasses.replace(material.recorded, snapshots=[largest])
    picture = fragmentation(dataclasses.replace(material, recorded=recorded))
    assert isinstance(picture, Picture)
    assert picture.caption.startswith("As the kernel counted at snapshot 'after-out1': 1 classes hold 4 pages.")
    assert picture.rows == [["20", "352", "4", "30", "40", "10,560", "3,520", "2,304"]]
    # A class that the revision does not have is not guessed at.
    recorded.snapshots[0].classes[999] = {"obj_allocated": 1, "obj_used": 1, "pages_used": 1}
    missing = fragmentation(dataclasses.replace(material, recorded=recorded))
    assert isinstance(missing, MissingPicture)
    assert "class 999" in missing.why


# ---- drawings --------------------------------------------------------------------------------------------


def test_drawing_is_the_same_every_time_whatever_matplotlib_is_told(materials: dict[str, Material],
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    picture = pool(materials["7.2-lz4-edge"])
    assert isinstance(picture, Picture)
    first = svg_file(picture.drawing, "p")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "black")
    assert svg_file(picture.drawing, "p") == first
    assert matplotlib.rcParams["font.size"] == 30.0
    assert b"<dc:date>" not in first


def test_labels_are_plain() -> None:
    assert label("phase $x^2$ \u202e\n\u4e2d<b>") == "phase $x^2$ ? ?<b>"
    assert label("x" * 100) == "x" * 22 + ".."


def test_hostile_label_is_drawn_as_text() -> None:
    def draw(figure: Any) -> None:
        figure.subplots().set_xlabel(label("<script>&$\\alpha$\x00"))

    root = ElementTree.fromstring(svg_file(Drawing(draw), "x"))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>&$\\alpha$?" in texts
    made = inline_svg(Drawing(draw), "x", "a < b", "c & d")
    assert "<script>" not in made
    assert "a &lt; b</title>" in made
    assert "c &amp; d</desc>" in made


def test_figures_are_written(samples: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "new" / "figures"
    assert main(["report", str(samples["7.3-lz4-limits"]), "-o", str(tmp_path / "r.html"), "--figures",
                 str(figures)]) == 0
    names = sorted(path.name for path in figures.iterdir())
    assert f"; {len(names)} files in {figures}\n" in capsys.readouterr().out
    stems = {name.partition(".")[0] for name in names}
    assert names == sorted(f"{stem}.{ending}" for stem in stems for ending in ("png", "svg"))
    page = (tmp_path / "r.html").read_text()
    assert stems == {stem for stem in ("pool-pages", "compressed-sizes", "fragmentation", "batch-sizes", "latency",
                                       "writeback-age") if f'data-picture="{stem}"' in page}
    for path in figures.iterdir():
        content = path.read_bytes()
        if path.suffix == ".svg":
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert content.startswith(b"\x89PNG\r\n")
    import matplotlib.image

    drawn = matplotlib.image.imread(figures / "pool-pages.png")
    assert drawn.shape[1] == 1260
    assert len(np.unique(drawn.reshape(-1, drawn.shape[2]), axis=0)) > 20
    assert png_file(Drawing(lambda figure: None), "x") != b""


@pytest.mark.parametrize(("ns", "text"), [(0, "0 ns"), (999, "999 ns"), (1234, "1.23 \u00b5s"), (5e6, "5 ms"),
                                          (2.5e9, "2.5 s")])
def test_durations(ns: float, text: str) -> None:
    assert duration(ns) == text


def test_seconds_since_the_first_event() -> None:
    recorded = Recorded(first_ts=10**9, last_ts=3 * 10**9)
    assert recorded.span == 2.0
    assert recorded.seconds(np.array([10**9, 2 * 10**9])).tolist() == [0.0, 1.0]
