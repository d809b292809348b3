# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts next to the events: all that are missing are named at once, and can be set at import or afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from replay import replay
from replay.cli import main
from traces.errors import BadInput
from traces.facts import FACTS, missing, read_settings
from traces.recording import Recording

LINE = " c-1 [000] ...1. 1.%06d: %s\n"
TEXT = (LINE % (1, "store: (zswap_store+0x4/0xcd0) folio=0x1 swp=0x1")
        + LINE % (2, "store_ret: (a+0x80/0xa0 <- zswap_store) ret=0x0"))
NEEDED = ["kernel", "compressor", "totalram-pages"]
ALL = {"kernel": "7.3-amd64", "compressor": "lz4", "totalram-pages": "504108", "chain-size": "9", "max-pool-percent": "35",
       "accept-threshold-percent": "80", "page-size": "4096", "machine": "x86_64"}


def imported(tmp_path: Path, *words: str) -> Path:
    (tmp_path / "trace.txt").write_text(TEXT)
    assert main(["import", str(tmp_path / "trace.txt"), "-o", str(tmp_path / "rec"), *words]) == 0
    return tmp_path / "rec"


def sets(facts: dict[str, str]) -> list[str]:
    return [word for key, value in facts.items() for word in ("--set", f"{key}={value}")]


def test_an_import_names_all_missing_facts_with_their_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rec = imported(tmp_path)
    out = capsys.readouterr().out
    assert f"a replay needs {', '.join(NEEDED)}" in out
    for fact in FACTS:
        assert any(line.split()[:1] == [fact.key] and fact.command in line for line in out.splitlines())
    for command in ("uname -r", "getconf PAGESIZE", "/proc/zoneinfo", "/sys/module/zswap/parameters/compressor"):
        assert command in out
    assert f"zreplay import {rec} --set kernel=... --set compressor=... --set totalram-pages=..." in " ".join(out.split())


def test_json_names_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path, "--json", "--set", "compressor=lz4")
    said = json.loads(capsys.readouterr().out)["not_said"]
    assert [fact["key"] for fact in said] == [fact.key for fact in FACTS if fact.key != "compressor"]


def test_all_can_be_set_at_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rec = Recording(imported(tmp_path, *sets(ALL)))
    assert "not said" not in capsys.readouterr().out
    assert missing(rec.manifest) == []
    check(rec)


def check(rec: Recording) -> None:
    assert rec.manifest["kernel"]["release"] == "7.3-amd64"
    config = rec.manifest["config"]
    assert (config["compressor"], config["totalram_pages"], config["chain_size"]) == ("lz4", 504108, 9)
    assert config["params"] == {"max_pool_percent": "35", "accept_threshold_percent": "80"}
    assert replay(rec).revision == "mainline-7.3"


def test_all_can_be_set_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rec = imported(tmp_path, "--set", "kernel=6.12.1")
    capsys.readouterr()
    assert main(["import", str(rec), *sets(ALL)]) == 0
    assert "not said" not in capsys.readouterr().out
    check(Recording(rec))
    assert any(note.startswith("set after the import: kernel=7.3-amd64, ") for note in Recording(rec).manifest["notes"])
    assert sorted(path.name for path in rec.iterdir() if path.name.startswith(".")) == []


def test_a_replay_names_all_that_it_needs(tmp_path: Path) -> None:
    rec = Recording(imported(tmp_path, "--set", "kernel=7.3"))
    with pytest.raises(BadInput, match="does not say compressor and totalram_pages") as problem:
        replay(rec)
    assert "--set compressor=... --set totalram-pages=..." in str(problem.value)


@pytest.mark.parametrize(("setting", "said"), [
    ("x=1", "is not KEY=VALUE of a known fact; give one of kernel, compressor, "), ("kernel", "is not KEY=VALUE"),
    ("chain-size=3", "is not a number from 4 to 16; see what 'grep ZSMALLOC_CHAIN_SIZE"), ("chain-size=x", "is not a number"),
    ("totalram-pages=0", "is not a number from 1"), ("totalram-pages=" + "9" * 5000, "is not a number"),
    ("compressor=a b", "is not such a name"), ("kernel=", "is not such a name"), ("max-pool-percent=101", "from 0 to 100"),
    ("page-size=16384", "pages of 2^14 bytes are not modelled"), ("machine=aarch64", "was recorded on aarch64"),
    ("kernel=7.2-arm64", "was recorded on arm64")])
def test_a_wrong_fact_is_one_sentence(setting: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rec = imported(tmp_path)
    before = (rec / "manifest.json").read_bytes()
    capsys.readouterr()
    assert main(["import", str(rec), "--set", setting]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert (rec / "manifest.json").read_bytes() == before
    assert main(["import", str(tmp_path / "trace.txt"), "-o", str(tmp_path / "other"), "--set", setting]) == 2
    assert not (tmp_path / "other").exists()


def test_keys_may_be_written_with_underscores_and_the_last_counts() -> None:
    assert read_settings(["chain_size=8", "chain-size=10"]) == {"chain-size": 10}


def test_without_output_the_source_has_to_be_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trace.txt").write_text(TEXT)
    assert main(["import", str(tmp_path / "trace.txt")]) == 2
    assert "name the recording to make with -o REC" in " ".join(capsys.readouterr().err.split())


def test_a_link_that_lies_in_the_recording_is_not_written_through(tmp_path: Path) -> None:
    """A recording comes from others, and so may what has a name that a new manifest could take."""
    rec, outside = imported(tmp_path), tmp_path / "outside"
    outside.write_text("mine")
    link = rec / f".manifest.{os.getpid()}"
    link.symlink_to(outside)
    assert main(["import", str(rec), "--set", "compressor=lz4"]) == 0
    assert outside.read_text() == "mine"
    assert Recording(rec).manifest["config"]["compressor"] == "lz4"
    assert {path.name for path in rec.iterdir() if path.name.startswith(".")} == {link.name}
