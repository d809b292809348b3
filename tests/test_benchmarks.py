# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmarks measure what they say they do; tests do not check how fast anything is."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

import replay
import traces
from model.crypto import knownanswers as known
from replay.benchmarks import compressors
from replay.benchmarks.compressors import NAMES, libraries, speed
from replay.benchmarks.engines import keys_of, replay_seconds
from replay.benchmarks.iaa import iaa_rows
from replay.benchmarks.parallel import two_cores
from replay.cli import main
from replay.tools.synthetic import ImaginaryKernel, cycle, write_repeated

PAGES = [page for _, page in known.pages()]


@pytest.mark.parametrize("name", NAMES)
def test_every_compressor_is_measured(name: str) -> None:
    found = speed(name, PAGES, runs=1)
    assert found.name == name
    assert found.own > 0
    assert bool(found.library) == (found.theirs > 0)


def test_the_fastest_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[bytes] = []

    def slow(page: bytes) -> None:
        for level in range(1, 10):
            zlib.compress(page, level)

    monkeypatch.setattr(compressors, "libraries", lambda name: [("slow", slow), ("fast", handed.append)])
    found = speed("lz4", PAGES, runs=2)
    assert found.library == "fast"
    assert handed == [PAGES[0], *PAGES, *PAGES]


def test_libraries_that_are_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressors, "_module", lambda name: None)
    assert [label for label, _ in libraries("deflate")] == [f"zlib {zlib.ZLIB_RUNTIME_VERSION} level 6"]
    assert list(libraries("lzo")) == list(libraries("lz4")) == list(libraries("842")) == []


@pytest.mark.parametrize("name", NAMES)
def test_libraries_write_something(name: str) -> None:
    for label, compress in libraries(name):
        assert 0 < len(compress(PAGES[2])) < 4096, label


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")
def test_two_cores_are_measured_beside_one(tmp_path: Path) -> None:
    found = two_cores(tmp_path, recordings=2, events=500, runs=1)
    assert found is not None
    assert found.times == found.one[0][0] / found.two[0][0]
    assert 0 < found.one[0][1] <= found.one[0][0] * 1.1
    # It does more there: the processes start too.
    assert found.two[0][1] > 0


def test_one_core_is_not_measured_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert two_cores(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_emulated_iaa_is_measured() -> None:
    said: list[str] = []
    rows = iaa_rows(PAGES, said.append, jobs=64, runs=2)
    assert [(row.unit, row.target) for row in rows] == [("us/job", "< 60"), ("thousand jobs/s", ">= 4")] * 2
    assert all(row.value > 0 for row in rows if row.unit == "thousand jobs/s")
    assert said == ["the emulated IAA, one page at a time", "the emulated IAA, batches of 8"]


def test_keys_are_those_of_every_page(tmp_path: Path) -> None:
    kernel = ImaginaryKernel()
    kernel.store(64, 2)
    kernel.load(65)
    kernel.invalidate(66)
    write_repeated(str(tmp_path / "rec"), kernel.block(), 2)
    recording = traces.open_recording(tmp_path / "rec")
    assert keys_of(recording).tolist() == 2 * [64, 65, 66, 67, 65, 66]


def test_a_repeated_recording_is_one_on_disk_and_replays(tmp_path: Path) -> None:
    block = cycle(2_000)
    write_repeated(str(tmp_path / "rec"), block, 5)
    files = sorted((tmp_path / "rec" / "events").iterdir())
    assert len(files) == 5
    assert len({file.stat().st_ino for file in files}) == 1
    result = replay.replay(traces.open_recording(tmp_path / "rec"), engine="fast")
    assert (result.verdict, result.compiled, result.events) == ("PASS", 5 * block.shape[1], 5 * block.shape[1])


def test_a_measured_replay_says_what_it_took(tmp_path: Path) -> None:
    write_repeated(str(tmp_path / "rec"), cycle(2_000), 3)
    path = str(tmp_path / "rec")
    fast, reference = (replay_seconds(path, path, engine) for engine in ("fast", "reference"))
    assert fast["events"] == reference["events"] > 0
    assert fast["seconds"] > 0
    assert fast["peak_mb"] > 1


@pytest.mark.parametrize("words", [["--events", "99999"], ["--events", "-1"], ["--events", "many"]])
def test_sizes_that_make_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["dev", "bench", *words])
    assert left.value.code == 2
    assert f"'{words[1]}' is" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("replay.benchmarks.measure.measure", None)
    assert main(["dev", "bench", "--json", str(tmp_path / "none" / "x.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err
