# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing without QEMU: shrinking with stub runners, and what happens with divergences."""

from __future__ import annotations

import dataclasses
import json
import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import traces
from replay.cli import dev, labtrial
from replay.cli import lab as verb
from replay.cli.labcommon import Shelf, job_of
from replay.revdiff.shrink import shrink
from replay.tools.cut import cut
from replay.verdict.run import replay
from tests.tampering import Tampered
from traces import schema
from traces.errors import BadInput
from traces.lab.errors import GuestDied
from traces.lab.fuzz import generate
from traces.lab.initramfs import GUEST_SCRIPT
from traces.lab.kernels import BootKernel
from traces.lab.run import GuestJob, GuestRun
from traces.recording import Recording
from traces.workload.sequence import Sequence, load

SAMPLES = Path(traces.__file__).parent / "samples"
SAMPLE = SAMPLES / "7.2-zstd-4k"

# Shrinking


def has(*names: str) -> Callable[[Sequence], bool]:
    """Return a test that holds while operations of these names come in this order."""
    def test(sequence: Sequence) -> bool:
        rest = iter(operation["do"] for operation in sequence.operations)
        return all(name in rest for name in names)

    return test


@given(seed=st.integers(0, 1000), data=st.data())
@settings(max_examples=30, deadline=None)
def test_the_smallest_is_found(seed: int, data: st.DataObject) -> None:
    sequence = generate(seed, 1)
    names = [operation["do"] for operation in sequence.operations]
    wanted = [names[at] for at in sorted(data.draw(st.sets(st.integers(0, len(names) - 1), min_size=1, max_size=3)))]
    done = shrink(sequence, has(*wanted), 5000)
    assert done.finished
    assert has(*wanted)(done.sequence)
    done.sequence.check()
    # Nothing is left but what was wanted and the maps of its regions.
    extra = [operation for operation in done.sequence.operations if operation["do"] not in wanted]
    assert {operation["do"] for operation in extra} <= {"map", "pressure"}
    assert len(extra) <= len(wanted)
    assert done.sequence.workers == 1
    assert "params" not in done.sequence.start or not done.sequence.params
    for operation in done.sequence.operations:
        assert not operation.keys() & {"chunk", "pause", "split", "first"}
        assert operation.get("rounds", 1) == 1


@given(seed=st.integers(0, 1000), limit=st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_the_limit_on_runs_is_kept(seed: int, limit: int) -> None:
    asked: list[Sequence] = []

    def diverges(sequence: Sequence) -> bool:
        asked.append(sequence)
        return has("map", "out")(sequence)

    done = shrink(generate(seed, 2), diverges, limit, reached=3)
    assert done.runs == len(asked) <= limit
    assert len({sequence.text() for sequence in asked}) == len(asked), "nothing is asked twice"
    assert has("map", "out")(done.sequence)
    for sequence in asked:
        sequence.check()


def test_pages_are_made_fewer() -> None:
    a = {"do": "map", "region": "a", "pages": 4096, "mix": "mixed", "folio": "64k"}
    sequence = Sequence([a, {"do": "out", "region": "a", "first": 100, "last": 4000, "chunk": 8}], {"workers": 2})

    def diverges(sequence: Sequence) -> bool:
        return has("map", "out")(sequence) and sequence.operations[0]["pages"] >= 500

    done = shrink(sequence, diverges, 200)
    assert 500 <= done.sequence.operations[0]["pages"] < 1000
    assert done.sequence.operations[1] == {"do": "out", "region": "a"}
    assert "folio" not in done.sequence.operations[0]


def test_what_came_after_the_divergence_goes_at_once() -> None:
    sequence = generate(1, 1)
    asked: list[int] = []
    shrink(sequence, lambda candidate: not asked.append(len(candidate.operations)), 1, reached=5)
    assert asked == [5]


# Trials


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A lab whose guests leave a shipped sample; ``make`` may be replaced by what makes another recording."""
    found: dict[str, Any] = {"jobs": [], "make": lambda job, out: shutil.copytree(SAMPLE, out), "status": 0, "said": ""}
    (tmp_path / "vmlinuz").write_bytes(b"image")

    def run_job(job: GuestJob, out: Path, say: Any) -> GuestRun:
        found["jobs"].append(job)
        found["make"](job, out)
        return GuestRun({}, {}, "tcg", found["status"], found["said"])

    monkeypatch.setattr(labtrial, "run_job", run_job)
    monkeypatch.setattr(Shelf, "get", lambda self, wanted, modules: BootKernel(
        "7.2.13", tmp_path / "vmlinuz", None, None, "Debian sid"))
    return found


def fuzz(tmp_path: Path, *words: str) -> int:
    parser = ArgumentParser()
    verbs = parser.add_subparsers()
    verb.add_parser(verbs)
    dev.add_parser(verbs)
    arguments = parser.parse_args([*words, "--kernel", "7.2", "-o", str(tmp_path / "f")])
    return int(arguments.run(arguments))


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "f").iterdir())


def tampered(job: GuestJob, out: Path) -> None:
    """The sample; with a page-out in the sequence said to be of another kernel, whose revision it diverges from."""
    shutil.copytree(SAMPLE, out)
    if '"do": "out"' in job.script:
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["kernel"].update(release="6.12.1", version="6.12.1")
        (out / "manifest.json").write_text(json.dumps(manifest))


def test_nothing_diverges(lab: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz(tmp_path, "lab", "fuzz", "--seed", "4", "--count", "2") == 0
    assert names(tmp_path) == ["runs.jsonl"]
    rows = [json.loads(line) for line in (tmp_path / "f" / "runs.jsonl").read_text().splitlines()]
    assert [row["sequence"] for row in rows] == ["seed 4 number 1", "seed 4 number 2"]
    assert {row["verdict"] for row in rows} == {"PASS"}
    said = capsys.readouterr().out
    assert any(line.startswith("seed 4 number 2  7.2.13") for line in said.splitlines())
    assert "2 PASS" in said
    job = lab["jobs"][1]
    sequence = generate(4, 2)
    assert (job.script, job.compressor, job.memory, job.cpus, job.params) == (
        sequence.text(), sequence.compressor, sequence.memory, sequence.cpus, sequence.params)
    assert job.workload == ("script", "--script", GUEST_SCRIPT)
    assert [job.record[at + 1] for at, word in enumerate(job.record) if word == "--compressor"] \
        == sequence.compressors[1:]


def test_only_one(lab: dict[str, Any], tmp_path: Path) -> None:
    assert fuzz(tmp_path, "lab", "fuzz", "--seed", "4", "--only", "9", "--time", "0", "--keep", "all") == 0
    assert [job.script for job in lab["jobs"]] == [generate(4, 9).text()]
    assert names(tmp_path) == ["4-9-7.2.zr", "runs.jsonl"]


def test_the_time_is_kept(lab: dict[str, Any], tmp_path: Path) -> None:
    assert fuzz(tmp_path, "lab", "fuzz", "--time", "0s") == 0
    assert lab["jobs"] == []


def test_a_divergence_is_repeated_shrunk_and_kept(lab: dict[str, Any], tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    lab["make"] = tampered
    assert fuzz(tmp_path, "lab", "fuzz", "--count", "2", "--runs", "60") == 1
    assert names(tmp_path) == ["finding-001", "runs.jsonl"], "the second is as the first"
    place = tmp_path / "f" / "finding-001"
    small = load(place / "sequence.json")
    assert [operation["do"] for operation in small.operations] == ["map", "out"]
    assert load(place / "original.json") == generate(1, 1)
    report = (place / "report.txt").read_text()
    assert report.startswith("FAIL: ")
    assert "It repeated in a second guest. Shrunk from" in report
    assert "zreplay lab run --kernel 7.2" in report
    # The kept sequence still shows it, and so does the cut.
    wanted = replay(Recording(place / "recording.zr")).divergences[0].check
    for name in ("recording.zr", *(["cut.zr"] if "cut.zr" in report else [])):
        assert replay(Recording(place / name)).divergences[0].check == wanted
    said = capsys.readouterr().out
    assert "as in" in said
    assert "open: " in said


def test_a_divergence_that_does_not_repeat(lab: dict[str, Any], tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    def once(job: GuestJob, out: Path) -> None:
        (tampered if len(lab["jobs"]) == 1 else lambda job, out: shutil.copytree(SAMPLE, out))(job, out)

    lab["make"] = once
    assert fuzz(tmp_path, "lab", "fuzz", "--count", "1") == 3
    assert names(tmp_path) == ["runs.jsonl", "unrepeated-001"]
    place = tmp_path / "f" / "unrepeated-001"
    assert load(place / "sequence.json") == generate(1, 1)
    assert (place / "recording.zr").is_dir()
    assert "It did not repeat" in (place / "report.txt").read_text()
    assert "did not repeat: " in capsys.readouterr().out


def test_a_guest_that_dies_is_a_finding(lab: dict[str, Any], tmp_path: Path) -> None:
    def dies(job: GuestJob, out: Path) -> None:
        partial = out.with_name(out.name + ".partial")
        partial.mkdir()
        (partial / "console.txt").write_text("BUG: at mm/zswap.c:17")
        raise GuestDied("the guest panicked after 17 s", "BUG: at mm/zswap.c:17")

    lab["make"] = dies
    assert fuzz(tmp_path, "lab", "fuzz", "--count", "1", "--runs", "3") == 5
    place = tmp_path / "f" / "finding-001"
    report = (place / "report.txt").read_text()
    assert "died: the guest panicked after 17 s" in report
    assert "BUG: at mm/zswap.c:17" in report
    assert "it may be smaller (limit 3)" in report
    assert (place / "recording.zr.partial" / "console.txt").is_file()


@pytest.mark.parametrize(("status", "said", "kind", "ends"), [
    (3, "zreplay workload: worker 0 died (signal 9)\nzreplay workload: the kernel killed it", "out of memory", 0),
    (2, "zreplay workload: nosuch", "not run", 3)])
def test_what_says_nothing_about_the_kernel(lab: dict[str, Any], tmp_path: Path, status: int, said: str, kind: str,
                                            ends: int) -> None:
    lab["status"], lab["said"] = status, said
    assert fuzz(tmp_path, "lab", "fuzz", "--count", "1") == ends
    row = json.loads((tmp_path / "f" / "runs.jsonl").read_text())
    assert row["verdict"] == kind
    assert row["text"] == said.splitlines()[-1].removeprefix("zreplay workload: ")
    assert len(lab["jobs"]) == 1


def test_wrong_pages_are_a_divergence(lab: dict[str, Any], tmp_path: Path) -> None:
    lab["status"], lab["said"] = 1, "zreplay workload: 3 of 9 pages read back differ"
    assert fuzz(tmp_path, "lab", "fuzz", "--count", "1", "--runs", "1") == 1
    assert "wrong pages: 3 of 9 pages" in (tmp_path / "f" / "finding-001" / "report.txt").read_text()


def test_a_compressor_that_a_kernel_has_not(lab: dict[str, Any], tmp_path: Path) -> None:
    def refuses(job: GuestJob, out: Path) -> None:
        raise GuestDied("the guest could not do its work: this kernel has no compressor 'lz4'", "")

    lab["make"] = refuses
    assert fuzz(tmp_path, "lab", "fuzz", "--count", "1") == 0
    assert "not there" in (tmp_path / "f" / "runs.jsonl").read_text()


def test_shrink_alone(lab: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab["make"] = tampered
    path = tmp_path / "s.json"
    path.write_text(generate(3, 5).text())
    assert fuzz(tmp_path, "dev", "shrink", str(path), "--runs", "3") == 1
    assert len(load(tmp_path / "f" / "finding-001" / "sequence.json").operations) < len(generate(3, 5).operations)
    assert [path.name for path in (tmp_path / "f").iterdir() if path.name.startswith(".")] == []
    path.write_text("{}")
    assert fuzz(tmp_path, "dev", "shrink", str(path)) == 2
    assert "is not a sequence" in capsys.readouterr().err


# Passing sequences to the guest


def test_a_run_of_the_lab_takes_a_sequence(tmp_path: Path) -> None:
    sequence = dataclasses.replace(generate(2, 2))
    path = tmp_path / "s.json"
    path.write_text(sequence.text())
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["lab", "run", "--kernel", "7.2", "-o", "x", "--workload", f"script --script {path}"])
    kernel = BootKernel("7.2.13", tmp_path, None, None, "")
    job = job_of(arguments, kernel, arguments.compressor, arguments.folio, None)
    assert (job.script, job.compressor, job.memory) == (sequence.text(), sequence.compressor, sequence.memory)
    for words in ("script", f"base --script {path}", f"script --script {tmp_path}/nosuch"):
        with pytest.raises(SystemExit):
            parser.parse_args(["lab", "run", "--kernel", "7.2", "-o", "x", "--workload", words])


def test_a_cut_to_the_end_may_hold_a_divergence(tmp_path: Path) -> None:
    recording = Tampered(SAMPLE)
    total = len(recording)
    stores = np.flatnonzero(recording.columns["event"] == schema.CODE["zswap_store_ret"])
    at = int(stores[stores > total * 3 // 4][0])
    recording.columns["ret"][at] ^= 1
    done = cut(recording, str(tmp_path / "c.zr"), at - 2000, total)
    assert done.stop == total
    result = replay(Recording(tmp_path / "c.zr"))
    assert (result.verdict, result.divergences[0].event) == ("FAIL", at - done.start)
    with pytest.raises(BadInput, match="diverges here"):
        cut(recording, str(tmp_path / "d.zr"), at - 2000, total - 1)
