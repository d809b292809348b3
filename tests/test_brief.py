# SPDX-License-Identifier: GPL-2.0-or-later
"""``--brief``: a line for each recording and why it is not PASS; and ``make demo``, which fits a screen or two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from replay.cli import main

EDGE = "traces/samples/7.2-lz4-edge"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_line_for_each_and_why_it_is_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--brief", EDGE, "--revision", "v14", "--revision", "mainline-7.2"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"FAIL  {EDGE}: 5 events of kernel 7.2.13 (lz4) against v14",
        "  effect.order at event 4: the kernel did something else next: recorded obj_cgroup_may_zswap_ret, predicted "
        "mem_cgroup_zswap_writeback_enabled_ret",
        f"PASS  {EDGE}: 1,985 events of kernel 7.2.13 (lz4) against mainline-7.2",
        "1 recordings x 2 revisions: 1 PASS, 1 FAIL"]


def test_one_recording_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--brief", EDGE]) == 0
    assert capsys.readouterr().out == f"PASS  {EDGE}: 1,985 events of kernel 7.2.13 (lz4) against mainline-7.2\n"


def test_what_cannot_be_read_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--brief", EDGE, "nosuch"]) == 2
    said = capsys.readouterr()
    assert said.out.splitlines()[1:] == ["nosuch: does not exist; see how it is spelt, and where you are.",
                                         "2 recordings: 1 PASS, 1 unreadable"]
    assert said.err == "zreplay: nosuch: does not exist; see how it is spelt, and where you are.\n"


def test_processes_print_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", "--brief", EDGE, "--revision", "v14", "--revision", "mainline-7.2"]
    assert main(words) == 1
    here = capsys.readouterr().out
    assert main([*words, "-j", "2"]) == 1
    assert capsys.readouterr().out == here


def test_two_revisions_without_the_first_difference_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["regress", EDGE, "--revision", "mainline-7.2", "--revision", "v14"]
    assert main(words) == 1
    whole = capsys.readouterr().out
    assert main([*words, "--brief"]) == 1
    brief = capsys.readouterr().out
    assert whole.startswith(brief)
    assert whole[len(brief):].startswith("\nthe first of 1. in full: ")


def test_brief_is_not_of_two_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regress", "--brief", "--base", EDGE, "--patched", "traces/samples/7.3-lz4-4k"]) == 2
    assert capsys.readouterr().err == ("zreplay: --brief: is of two revisions on one recording; leave it out: every check "
                                       "counts here.\n")


@pytest.mark.slow
def test_the_demo_prints_less_than_forty_lines(tmp_path: Path) -> None:
    # As make would have made it, newer than all that it is made of.
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "zreplay"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -m replay \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / ".installed").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", "--no-print-directory", "demo", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True,
                          text=True, env=environment, check=False)
    (ROOT / "demo-report.html").unlink(missing_ok=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    samples = sorted(path.parent.name for path in (ROOT / "traces/samples").glob("*/manifest.json"))
    assert [line.partition(":")[0] for line in lines[1:len(samples) + 1]] == [f"PASS  traces/samples/{name}" for name in samples]
    assert lines[len(samples) + 1] == f"{len(samples)} recordings: {len(samples)} PASS"
    assert any(line.startswith("v14 breaks an invariant") for line in lines)
    assert lines[-1].startswith("Open demo-report.html")
    assert len(lines) < 40
