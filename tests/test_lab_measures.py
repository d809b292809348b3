# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's trials of the recorder without QEMU: what the guest does for them, how the host judges."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

import traces
from replay.cli import labmeasure
from tests.test_record_capture import make
from traces.lab import guesttasks
from traces.lab.run import Ran

SAMPLES = Path(traces.__file__).parent / "samples"


class NobodyListens:
    """A sender without a disk."""

    def send_new(self, final: bool = False) -> None:
        """Send nothing."""


JOB: dict[str, Any] = {"workload": ["base"], "record": ["--pages", "none"], "compressor": "lz4", "params": {}}


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A guest's places below a directory; zswap never holds anything."""
    (tmp_path / "stored").write_text("0\n")
    monkeypatch.setattr(guesttasks, "_STORED", tmp_path / "stored")
    monkeypatch.setattr(guesttasks, "CAPTURE", tmp_path / "capture")
    monkeypatch.setattr(guesttasks, "reset", lambda job: None)
    monkeypatch.setattr(guesttasks, "_clean", list)
    return tmp_path


def recorder(guest: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let a program stand for the recorder: its directory is the first argument."""
    monkeypatch.setattr(guesttasks, "_recorder",
                        lambda words, out, command: [sys.executable, "-c", program, str(out)])
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **more: real(command, **{**more, "cwd": guest}))
    monkeypatch.setattr(guesttasks, "run_and_send",
                        lambda command, sender: subprocess.run(command, check=False, cwd=guest).returncode)


def test_recorders_are_killed_after_their_directory_is_there(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder(guest, monkeypatch, "import os, sys, time; os.mkdir(sys.argv[1]); "
                                 "time.sleep(0.3 if sys.argv[1].endswith('whole') else 60)")
    began = time.monotonic()
    result = guesttasks.kills({**JOB, "count": 3, "seed": 7}, NobodyListens())  # type: ignore[arg-type]
    assert time.monotonic() - began < 30
    assert [row["name"] for row in result["rows"]] == ["k000", "k001", "k002"]
    assert [row["ended"] for row in result["rows"]] == [None, None, None]
    assert all(0 <= row["after"] <= result["span"] for row in result["rows"])
    assert all((guest / "capture" / row["name"]).is_dir() for row in result["rows"])


def test_a_recorder_that_ends_before_it_is_killed(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder(guest, monkeypatch, "import os, sys, time; os.mkdir(sys.argv[1]); whole = sys.argv[1].endswith('whole'); "
                                 "time.sleep(0.5 * whole); sys.exit(0 if whole else 3)")
    monkeypatch.setattr(guesttasks.random, "Random", lambda seed: Late())
    result = guesttasks.kills({**JOB, "count": 1, "seed": 7}, NobodyListens())  # type: ignore[arg-type]
    assert result["rows"][0]["ended"] == 3


def test_one_that_was_done_before_is_no_kill(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run was a slow one: the others last a tenth of it, and still three of them are killed."""
    recorder(guest, monkeypatch, "import os, sys, time; os.mkdir(sys.argv[1]); "
                                 "time.sleep(2 if sys.argv[1].endswith('whole') else 0.2)")
    result = guesttasks.kills({**JOB, "count": 3, "seed": 7}, NobodyListens())  # type: ignore[arg-type]
    assert [row["name"] for row in result["rows"]] == ["k000", "k001", "k002"]
    assert [row["ended"] for row in result["rows"]] == [None, None, None]
    assert 0.1 < result["span"] < 1


class Late:
    """A random number that is always the highest."""

    def uniform(self, low: float, high: float) -> float:
        """Return the highest."""
        return high + 5


def test_a_recorder_that_nobody_kills_must_end_well(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder(guest, monkeypatch, "import sys; sys.exit(2)")
    with pytest.raises(OSError, match="ended with status 2") as problem:
        guesttasks.kills({**JOB, "count": 1, "seed": 7}, NobodyListens())  # type: ignore[arg-type]
    assert problem.value.strerror


def ran(tmp_path: Path, rows: list[dict[str, Any]]) -> Ran:
    return Ran(tmp_path / "partial/capture", {"rows": rows, "span": 9.0, "leftovers": []}, {}, "tcg")


def killed(name: str, ended: int | None = None) -> dict[str, Any]:
    return {"name": name, "after": 1.5, "ended": ended, "still_stored": 0}


def test_what_kills_left_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording without a difference is right, incomplete or not; one that lost events but claims to be whole, or
    differs, is not."""
    def fake_import(source: Path, out: Path) -> dict[str, Any]:
        shutil.copytree(SAMPLES / "7.2-zstd-4k", out)
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["complete"] = source.name in ("whole", "gap", "other")
        if source.name == "gap":
            manifest["losses"][0]["lost"] = 3
        if source.name == "other":
            manifest["kernel"].update(release="6.12.0", version="6.12.0")
        (out / "manifest.json").write_text(json.dumps(manifest))
        return {}

    monkeypatch.setattr(labmeasure, "import_source", fake_import)
    rows, bad = labmeasure._judged(ran(tmp_path, [killed("good"), killed("over", 0), killed("broke", 2)]), tmp_path)
    assert [row[5] for row in rows[1:]] == ["UNDECIDED", "ended by itself", "ended by itself"]
    assert rows[1][6] == ""
    assert int(rows[1][4].replace(",", "")) > 10000
    assert bad == 1, "a status that is not 0"
    rows, bad = labmeasure._judged(ran(tmp_path, [killed("whole")]), tmp_path)
    assert (rows[1][5:], bad) == (("PASS", "it had just finished"), 0)
    rows, bad = labmeasure._judged(ran(tmp_path, [killed("gap"), killed("other")]), tmp_path)
    assert [row[5:] for row in rows[1:]] == [("UNDECIDED", "NOT as it should be"), ("FAIL", "NOT as it should be")]
    assert bad == 2


def test_pages_that_nobody_freed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    def fake_import(source: Path, out: Path) -> dict[str, Any]:
        shutil.copytree(SAMPLES / "7.2-zstd-4k", out)
        return {}

    monkeypatch.setattr(labmeasure, "import_source", fake_import)
    rows, bad = labmeasure._judged(ran(tmp_path, [{**killed("k000"), "still_stored": 1234}]), tmp_path)
    assert (rows[1][5], bad) == ("PASS", 1)
    assert "1,234 pages of the killed workload stayed in zswap" in capsys.readouterr().err


def test_a_recorder_that_never_made_its_directory(tmp_path: Path) -> None:
    rows, bad = labmeasure._judged(ran(tmp_path, [killed("k000")]), tmp_path)
    assert (rows[1][5], bad) == ("does not open", 1)


def test_outputs_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parts = parser.add_subparsers()
    for add in (labmeasure.add_overhead, labmeasure.add_kills, labmeasure.add_backends):
        add(parts)
    (tmp_path / "there").touch()
    for words in (["kills", "-o"], ["backends", "-o"], ["overhead", "--json"]):
        arguments = parser.parse_args([words[0], "--kernel", "7.2", words[1], str(tmp_path / "there")])
        assert arguments.run(arguments) == 2
        assert "exists already; remove it or choose another name." in capsys.readouterr().err


def test_what_does_not_open_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "partial/capture/k000"
    place.mkdir(parents=True)
    (place / "capture.json").write_text("{")
    rows, bad = labmeasure._judged(ran(tmp_path, [killed("k000")]), tmp_path)
    assert (rows[1][5], bad) == ("does not open", 1)
    assert (tmp_path / "k000.raw/capture.json").read_text() == "{"


def test_costs_are_set_beside_the_same_turn_without_a_recorder() -> None:
    def row(way: str, turn: int, out: float, rest: float, **more: Any) -> dict[str, Any]:
        phases = {"out1": out / 2, "in1": rest, "out2": out / 2, "exit": 100.0}
        return {"way": way, "turn": turn, "phases": phases, "bytes": 1 << 20, "with_setup": rest + 9.0, **more}

    rows = [row("nothing", 0, 1.0, 1.0), row("tracefs hash", 0, 3.0, 1.0, lost=0, pages_lost=3),
            row("tracefs hash", 1, 8.0, 1.0, lost=2, pages_lost=0), row("nothing", 1, 2.0, 1.0),
            row("nothing", 2, 2.0, 0.0), row("tracefs hash", 2, 3.0, 0.0, lost=0, pages_lost=0, missed=1)]
    found = labmeasure._cost_rows(rows, ["nothing", "tracefs hash"])
    assert found[1] == ("nothing", "2.00", "1.00", "2.00", "1.00", "1.00", "1.00", "", "", "", "10.00")
    assert found[2] == ("tracefs hash", "3.00", "3.00", "4.00", "2.00", "1.50", "3.00", "6", "unknown", "1.0", "10.00")
    counted = [{**row, "missed_unknown": 0} for row in rows]
    assert labmeasure._cost_rows(counted, ["nothing", "tracefs hash"])[2][8] == "counted"
    counted[1]["missed_unknown"] = 55
    assert labmeasure._cost_rows(counted, ["nothing", "tracefs hash"])[2][8] == "unknown"
    rows[1]["lost"] = "unknown"
    assert labmeasure._cost_rows(rows, ["nothing", "tracefs hash"])[2][7] == "unknown"


def test_what_each_way_wrote_is_imported_and_replayed(tmp_path: Path) -> None:
    make(tmp_path / "tracefs-sample-16", pages="sample:2")
    (tmp_path / "tracefs-sample-16" / "truth.csv").write_text("not the recorder's")
    said: list[str] = []
    found = labmeasure._written(tmp_path, ["nothing", "tracefs sample:16", "trace-cmd"], said.append)
    assert list(found) == ["tracefs sample:16"]
    facts = found["tracefs sample:16"]
    frame = traces.open_recording(tmp_path / "tracefs-sample-16.zr").frame(["event"])
    assert facts["events"] == len(frame) > 0
    size = sum(path.stat().st_size for path in (tmp_path / "tracefs-sample-16").rglob("*")
               if path.is_file() and path.name != "truth.csv")
    assert facts["bytes"] == size
    assert said == ["importing and replaying tracefs sample:16"]
    row = labmeasure._size_rows(found)[1]
    assert row[:3] == ("tracefs sample:16", f"{len(frame):,}", f"{size:,}")
    assert row[3] == f"{size / len(frame):.1f}"
    # The test's capture does not name a kernel.
    assert row[5].startswith("not replayed: ")
