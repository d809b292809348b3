# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix without QEMU: its cells, results of earlier runs, and how a cell's figures are computed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest

import traces
from replay.cli import lab as verb
from replay.cli import labmatrix
from replay.cli.labmatrix import POLICIES, Cell, markdown
from replay.verdict.result import Result
from traces.errors import BadInput
from traces.lab.errors import GuestDied
from traces.lab.kernels import BootKernel
from traces.lab.run import GuestJob, GuestRun
from traces.workload.command import add_arguments

SAMPLES = Path(traces.__file__).parent / "samples"


def parsed(*words: str) -> Namespace:
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    return parser.parse_args(["lab", "matrix", *words])


def facts(cell: Cell, **more: Any) -> dict[str, Any]:
    return {**cell._asdict(), "release": "7.2.13", "verdict": "PASS", "status": 0, "why": "", "seconds": 9.5,
            "stores": 12345, "pages": 12400, "events": 400000, "compared": 900000, "different": 0, "lost": 0,
            "grades": {"exact": 60, "modelled": 1}, "origin": "Debian sid", "image": "ab" * 32, **more}


def test_cells() -> None:
    cells = list(labmatrix._cells(parsed("-o", "x", "--kernel", "7.2", "--kernel", "k/bzImage", "--folio", "4k",
                                         "--folio", "2M", "--policy", "limits", "--compressor", "842")))
    assert [cell.name for cell in cells] == ["7.2-842-4k-limits", "7.2-842-2M-limits", "bzImage-842-4k-limits",
                                             "bzImage-842-2M-limits"]
    assert len(list(labmatrix._cells(parsed("-o", "x")))) == 12
    assert {cell.policy for cell in labmatrix._cells(parsed("-o", "x", "--workload", "base --pages 64"))} == {"given"}


def test_policies_are_workloads_that_there_are() -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    for workload, _, cpus, nodes in POLICIES.values():
        assert parser.parse_args(workload.split()).pages >= 3072
        assert (cpus, nodes) in ((1, 1), (2, 1), (2, 2))


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A lab whose guests leave a shipped sample; what it was asked for is in ``jobs``."""
    found: dict[str, Any] = {"jobs": [], "dies": "", "status": 0}
    (tmp_path / "vmlinuz").write_bytes(b"image")

    def run_job(job: GuestJob, out: Path) -> GuestRun:
        found["jobs"].append(job)
        if found["dies"]:
            raise GuestDied(found["dies"], "")
        shutil.copytree(SAMPLES / "7.2-zstd-4k", out)
        return GuestRun({"losses": [{"cpu": 0, "lost": 0}]}, {}, "tcg", found["status"], "")

    monkeypatch.setattr(labmatrix, "run_job", run_job)
    monkeypatch.setattr(labmatrix.Shelf, "get", lambda self, wanted, modules: BootKernel(
        "7.2.13", tmp_path / "vmlinuz", None, None, "Debian sid"))
    return found


def test_a_cell(lab: dict[str, Any], tmp_path: Path) -> None:
    cell = Cell("7.2", "zstd", "64k", "shrinker")
    labmatrix._run_cell(parsed("-o", str(tmp_path)), cell, tmp_path)
    made = json.loads((tmp_path / "7.2-zstd-64k-shrinker.json").read_text())
    assert (made["verdict"], made["status"], made["lost"], made["different"]) == ("PASS", 0, 0, 0)
    assert made["stores"] > 500
    assert made["compared"] > 10000
    assert made["image"] == hashlib.sha256(b"image").hexdigest()
    job = lab["jobs"][0]
    assert job.workload == ("pressure", "--pages", "4096", "--folio", "64k")
    assert made["workload"] == "pressure --pages 4096"
    assert (made["engines"], made["engines_differ"], made["not_compiled"]) == ("agree", "", "")
    assert made["events"] >= made["compiled"] > made["events"] // 2
    assert (job.params, job.cpus) == ({"shrinker_enabled": "Y"}, 1)
    assert (tmp_path / "7.2-zstd-64k-shrinker.zr").is_dir()
    labmatrix._run_cell(parsed("-o", str(tmp_path), "--keep", "odd"), cell, tmp_path)
    assert not (tmp_path / "7.2-zstd-64k-shrinker.zr").exists(), "a PASS is not kept"


@pytest.mark.parametrize(("dies", "verdict", "status"), [
    ("the guest panicked", "died", 5),
    ("the guest could not do its work: this kernel has no compressor '842'", "not there", 0)])
def test_a_cell_whose_guest_dies(lab: dict[str, Any], tmp_path: Path, dies: str, verdict: str, status: int) -> None:
    lab["dies"] = dies
    labmatrix._run_cell(parsed("-o", str(tmp_path)), Cell("7.2", "842", "4k", "plain"), tmp_path)
    made = json.loads((tmp_path / "7.2-842-4k-plain.json").read_text())
    assert (made["verdict"], made["status"], made["why"]) == (verdict, status, dies)


def test_wrong_pages_are_worse_than_the_verdict(lab: dict[str, Any], tmp_path: Path) -> None:
    lab["status"] = 1
    labmatrix._run_cell(parsed("-o", str(tmp_path)), Cell("7.2", "zstd", "4k", "plain"), tmp_path)
    made = json.loads((tmp_path / "7.2-zstd-4k-plain.json").read_text())
    assert (made["verdict"], made["status"]) == ("workload failed", 1)


def test_a_cell_of_another_revision(lab: dict[str, Any], tmp_path: Path) -> None:
    """A kernel with a posting is not checked against what it was built from."""
    labmatrix._run_cell(parsed("-o", str(tmp_path), "--revision", "v14"), Cell("k14", "zstd", "4k", "numa"), tmp_path)
    made = json.loads((tmp_path / "k14-zstd-4k-numa.json").read_text())
    assert (made["revision"], made["verdict"]) == ("v14", "FAIL")
    job = lab["jobs"][0]
    assert (job.workload[0], job.cpus, job.nodes) == ("smp", 2, 2)


def test_a_cell_of_deflate_iaa_has_the_devices(lab: dict[str, Any], tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labmatrix.labiaa, "guest_iaa", lambda arguments, kernel, shelf: str(arguments.iaa.devices))
    arguments = parsed("-o", str(tmp_path), "--iaa", "devices=2")
    for compressor, devices in (("deflate-iaa", "2"), ("zstd", None)):
        labmatrix._run_cell(arguments, Cell("7.3", compressor, "4k", "plain"), tmp_path)
        assert lab["jobs"].pop().iaa == devices


def test_a_revision_that_there_is_not_begins_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a revision"):
        labmatrix.matrix(parsed("-o", str(tmp_path / "m"), "--revision", "v99"))
    assert not (tmp_path / "m").exists()


def test_a_policy_s_workload_can_be_smaller(lab: dict[str, Any], tmp_path: Path) -> None:
    labmatrix._run_cell(parsed("-o", str(tmp_path), "--workload-pages", "512"), Cell("7.2", "lz4", "4k", "smp"), tmp_path)
    assert lab["jobs"][0].workload == ("smp", "--pages", "512", "--folio", "4k")
    made = json.loads((tmp_path / "7.2-lz4-4k-smp.json").read_text())
    assert made["workload"] == "smp --pages 512"


@pytest.mark.parametrize("keep", ["all", "odd"])
def test_engines_that_differ_fail_a_cell(lab: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         keep: str) -> None:
    """One comparison less in compiled code, which nothing else of the cell would show."""
    asked = []

    def replay(recording: Any, revision: Any, *, engine: str, **options: Any) -> Result:
        asked.append(engine)
        result = real(recording, engine=engine, **options)
        if engine == "fast":
            check = result.checks[2]
            result.checks[2] = dataclasses.replace(check, compared=check.compared - 1)
        return result

    real = labmatrix.replay
    monkeypatch.setattr(labmatrix, "replay", replay)
    labmatrix._run_cell(parsed("-o", str(tmp_path), "--keep", keep), Cell("7.2", "zstd", "4k", "plain"), tmp_path)
    made = json.loads((tmp_path / "7.2-zstd-4k-plain.json").read_text())
    assert asked == ["reference", "fast"]
    assert (made["verdict"], made["status"], made["different"], made["engines"]) == ("FAIL", 1, 0, "differ")
    assert re.fullmatch(r"checks\[2\]\.compared: (\d+) by the reference, (\d+) by compiled code", made["engines_differ"])
    assert (tmp_path / "7.2-zstd-4k-plain.zr" / "manifest.json").is_file(), "its recording is to be looked into"
    text = markdown([made])
    assert "| differ |" in text
    assert f"FAIL; the engines differ: {made['engines_differ']}" in text
    assert "replayed 1 of 1 cells and agree on 0;" in text


def test_compiled_code_that_fails_fails_a_cell(lab: dict[str, Any], tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    def replay(recording: Any, revision: Any, *, engine: str, **options: Any) -> Result:
        if engine == "fast":
            raise IndexError("a table is too small")
        return real(recording, engine=engine, **options)

    real = labmatrix.replay
    monkeypatch.setattr(labmatrix, "replay", replay)
    labmatrix._run_cell(parsed("-o", str(tmp_path), "--keep", "odd"), Cell("7.2", "zstd", "4k", "plain"), tmp_path)
    made = json.loads((tmp_path / "7.2-zstd-4k-plain.json").read_text())
    assert (made["verdict"], made["engines"], made["compiled"]) == ("FAIL", "differ", 0)
    assert "IndexError: a table is too small" in made["engines_differ"]
    assert (tmp_path / "7.2-zstd-4k-plain.zr").is_dir()


def test_what_is_there_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labmatrix, "_run_cell", None)
    cells = [Cell("7.2", "zstd", "4k", "plain"), Cell("7.2", "lz4", "4k", "plain")]
    (tmp_path / f"{cells[0].name}.json").write_text(json.dumps(facts(cells[0])))
    (tmp_path / f"{cells[1].name}.json").write_text(json.dumps(facts(cells[1], verdict="UNDECIDED", status=3,
                                                                     lost=None, why="events were lost")))
    arguments = parsed("-o", str(tmp_path), "--kernel", "7.2", "--report", str(tmp_path / "matrix.md"))
    assert arguments.run(arguments) == 3
    said = capsys.readouterr()
    assert "2 of 2 cells" in said.err
    assert "12,345" in said.out
    report = (tmp_path / "matrix.md").read_text()
    assert "| 7.2.13 | zstd | 4k | plain | 12,345 | 12,400 | 400,000 | 900,000 | 0 | 0 |  |  | PASS | 60 exact, 1 modelled |" in report
    assert "Engines:" not in report, "cells of before both engines were compared"
    assert "UNDECIDED; events were lost" in report
    assert report.count("| unknown |") == 1
    assert f"- 7.2.13: Debian sid, image SHA-256 `{'ab' * 32}`" in report


def test_no_cell_outlives_its_matrix(tmp_path: Path) -> None:
    """A matrix that is ended with SIGTERM takes its cells and their machines with it."""
    (tmp_path / "bin").mkdir()
    qemu = tmp_path / "bin" / "qemu-system-x86_64"
    qemu.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 60\n")
    qemu.chmod(0o755)
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    (tmp_path / "bzImage").write_bytes(image)
    program = "import sys; from replay.cli import main; sys.exit(main())"
    words = ["lab", "matrix", "--kernel", str(tmp_path / "bzImage"), "--compressor", "lz4", "--compressor", "zstd",
             "--jobs", "2", "--accel", "tcg", "-o", str(tmp_path / "out")]
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed (apt install busybox-static)")
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.DEVNULL,
                               env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((tmp_path / "pids").exists()
                                               and len((tmp_path / "pids").read_text().split()) == 2):
        time.sleep(0.1)
    process.terminate()
    process.wait(30)
    machines = (tmp_path / "pids").read_text().split()
    assert len(machines) == 2
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in machines):
        time.sleep(0.1)
    assert not [pid for pid in machines if Path(f"/proc/{pid}").exists()]


def test_a_report_has_all_cells_in_order(tmp_path: Path) -> None:
    cells = [Cell("7.2", "lz4", "4k", "limits"), Cell("7.2", "lz4", "64k", "plain"), Cell("7.2", "lz4", "4k", "plain"),
             Cell("6.12", "lz4", "4k", "plain"), Cell("7.2", "zstd", "2M", "plain")]
    for cell in cells:
        (tmp_path / f"{cell.name}.json").write_text(json.dumps(facts(cell, release=f"{cell.kernel}.1")))
    arguments = parsed("-o", str(tmp_path), "--kernel", "7.2", "--compressor", "lz4", "--report",
                       str(tmp_path / "matrix.md"))
    assert arguments.run(arguments) == 0
    rows = re.findall(r"^\| (\S+) \| (\w+) \| (\w+) \| (\w+) \|", (tmp_path / "matrix.md").read_text(), re.M)[1:]
    assert rows == [("7.2.1", "zstd", "2M", "plain"), ("6.12.1", "lz4", "4k", "plain"), ("7.2.1", "lz4", "4k", "plain"),
                    ("7.2.1", "lz4", "64k", "plain"), ("7.2.1", "lz4", "4k", "limits")]


def test_a_table_names_what_differs() -> None:
    text = markdown([facts(Cell("7.2", "zstd", "4k", "limits"), verdict="FAIL", first="store length")])
    assert "- 7.2.13 zstd 4k limits: FAIL; store length" in text


def test_a_table_says_what_was_compiled() -> None:
    cells = [facts(Cell("7.2", "zstd", "4k", "plain")),
             facts(Cell("7.2", "lz4", "4k", "plain"), engines="agree", compiled=390000, not_compiled=""),
             facts(Cell("7.3", "lz4", "4k", "plain"), engines="agree", compiled=0, not_compiled="a step of its own")]
    text = markdown(cells)
    assert "| agree | 390,000 of 400,000 | PASS |" in text
    assert "replayed 2 of 3 cells and agree on 2; 390,000 of 800,000 events were confirmed by compiled code." in text
    assert "- 7.2.13 lz4 4k plain was not compiled: a step of its own" in text


def test_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--jobs", "0"], ["--policy", "nosuch"], ["--keep", "none"], ["--workload-pages", "9"]):
        with pytest.raises(SystemExit):
            parsed("-o", "x", *words)
    assert "error:" in capsys.readouterr().err
