# SPDX-License-Identifier: GPL-2.0-or-later
"""Sequences without QEMU: what may be in one, those made at random, and how one is carried out on a fake box."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakebox import CGROUP, FakeBox, run
from tests.fakebox import settings as settings_of
from traces.lab.fuzz import generate
from traces.workload.driver import WorkloadDriver
from traces.workload.pages import MIXES
from traces.workload.sequence import OPERATIONS, BadSequence, Rules, Sequence, load, mend

SEEDS = st.integers(0, 1 << 32)
NUMBERS = st.integers(1, 10_000)


def written(tmp_path: Path, operations: list[dict[str, Any]], **start: Any) -> Path:
    path = tmp_path / "sequence.json"
    path.write_text(Sequence(operations, start).text())
    return path


# The generator


@given(seed=SEEDS, number=NUMBERS)
@settings(max_examples=60, deadline=None)
def test_every_generated_sequence_can_be_done(seed: int, number: int) -> None:
    sequence = generate(seed, number)
    sequence.check()
    assert mend(sequence) == sequence
    assert json.loads(sequence.text())["operations"] == sequence.operations
    assert sequence.text() == generate(seed, number).text()


@given(seed=SEEDS, number=NUMBERS)
@settings(max_examples=60, deadline=None)
def test_memory_is_kept_to(seed: int, number: int) -> None:
    sequence = generate(seed, number)
    rules = Rules(sequence)
    for operation in sequence.operations:
        if operation["do"] == "pressure":
            assert rules.writeback, "without writeback nothing can be reclaimed"
        rules.take(operation)
    mapped = sum(rules.regions.values()) * sequence.workers
    assert mapped * 4 <= sequence.memory * 1024 // 8
    assert mapped <= rules.most
    assert sequence.cpus >= 1


def test_a_seed_gives_the_same_in_another_process() -> None:
    text = subprocess.run([sys.executable, "-c", "from traces.lab.fuzz import generate; print(generate(5, 7).text())"],
                          capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
                          env={**os.environ, "PYTHONHASHSEED": "77"}).stdout
    assert text.strip() == generate(5, 7).text().strip()
    assert generate(5, 8).text() != generate(5, 7).text() != generate(6, 7).text()


def test_every_operation_is_drawn() -> None:
    drawn = {operation["do"] for number in range(1, 80) for operation in generate(1, number).operations}
    assert drawn == set(OPERATIONS)


# The format


@given(number=NUMBERS, gone=st.sets(st.integers(0, 120)), data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_mended_can_be_done(number: int, gone: set[int], data: st.DataObject) -> None:
    sequence = generate(3, number)
    left = [operation for at, operation in enumerate(sequence.operations) if at not in gone]
    for at in data.draw(st.sets(st.integers(0, len(left)))):
        if at < len(left) and "pages" in left[at] and left[at]["do"] in ("map", "pressure"):
            left[at] = {**left[at], "pages": max(1, left[at]["pages"] // 8)}
    mend(Sequence(left, {**sequence.start, "workers": 1, "cpus": 1})).check()


A = {"do": "map", "region": "a", "pages": 64, "mix": "mixed"}


@pytest.mark.parametrize(("operations", "sentence"), [
    ([{"do": "out", "region": "a"}], r"operation 1 \(out\): region a is not mapped yet"),
    ([A, A], r"operation 2 \(map\): region a is mapped already"),
    ([A, {"do": "read", "region": "a", "last": 65}], r"operation 2 \(read\): pages 0 to 65 are not a range of region a"),
    ([A, {"do": "read", "region": "a", "first": 64}], "pages 64 to 64 are not a range"),
    ([{**A, "pages": 9000}, {**A, "region": "b", "pages": 8000}], "8,000 pages for each of 1 workers are more than"),
    ([{**A, "pages": True}], "'pages' is True and not a number from 1 to"),
    ([{**A, "pages": "max"}], "'pages' is 'max' and not a number from 1 to"),
    ([{**A, "mix": "nosuch"}], "'mix' is 'nosuch' and not one of mixed"),
    ([{"do": "map", "region": "a", "pages": 64}], r"\(map\) needs 'mix'"),
    ([{**A, "step": 2}], r"\(map\) has 'step', which it does not take"),
    ([{"do": "zswap-max", "pages": "all"}], "number from 0 to 1048576 or one of max"),
    ([{"do": "nosuch"}], "operation 1 is 'nosuch', and there is none of that name"),
    (["out"], "operation 1 is not an object with a 'do'"),
    ([{**A, "pages": 8}, {"do": "churn", "region": "a", "mix": "mixed", "rounds": 1}], "has 8 pages, and it takes 16"),
    ([{"do": "writeback", "on": 0}, {"do": "pressure", "region": "a", "pages": 64, "mix": "text", "quarters": 3}],
     r"operation 2 \(pressure\): with memory.zswap.writeback at 0"),
    ([{"do": "pressure", "region": "a", "pages": 64, "mix": "random", "quarters": 3}], "compress too badly"),
])
def test_bad_operations_are_refused(tmp_path: Path, operations: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(BadSequence, match=sentence) as problem:
        load(written(tmp_path, operations, memory=512))
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(("start", "sentence"), [
    ({"memory": 12}, "the start's 'memory' is 12"), ({"nosuch": 1}, "'nosuch' is not known"),
    ({"params": {"enabled": "N"}}, "parameter 'enabled' is not known"), ({"params": []}, "is not an object"),
    ({"params": {"max_pool_percent": 101}}, "'max_pool_percent' is 101")])
def test_a_bad_start_is_refused(tmp_path: Path, start: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadSequence, match=sentence):
        load(written(tmp_path, [A], **start))


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "operations": 3}',
                                  '{"format": 1, "operations": [], "start": 7}'])
def test_a_file_that_is_not_a_sequence(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(BadSequence, match=r"not a sequence|not JSON"):
        load(tmp_path / "x")
    with pytest.raises(BadSequence, match="cannot be read"):
        load(tmp_path / "nosuch")


# Carried out


@pytest.fixture
def calls(box: FakeBox, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """System calls on the fake box's swap."""
    made: list[tuple[str, str]] = []
    monkeypatch.setattr(FakeBox, "_swap", lambda self, call, device: made.append((call, device)))
    for name in ("proc/sys/vm/compact_memory", f"{CGROUP}/memory.reclaim"):
        (box.root / name).write_text("")
    return made


ALL = [
    {**A, "folio": "64k"}, {"do": "out", "region": "a", "chunk": 3, "pause": 1}, {"do": "read", "region": "a", "step": 2},
    {"do": "fill", "region": "a", "mix": "poor", "first": 3, "last": 40, "step": 2, "content": 9},
    {"do": "out", "region": "a", "first": 5, "last": 9, "split": 1}, {"do": "unmap", "region": "a", "last": 8},
    {"do": "fork", "region": "a", "mix": "text"}, {"do": "churn", "region": "a", "mix": "code", "rounds": 2},
    {"do": "cross", "region": "a"}, {"do": "zswap-max", "pages": 3}, {"do": "zswap-room", "pages": 0},
    {"do": "zswap-max", "pages": "max"}, {"do": "writeback", "on": 0}, {"do": "writeback", "on": 1},
    {"do": "pressure", "region": "b", "pages": 32, "mix": "mixed", "quarters": 4}, {"do": "reclaim", "pages": 16},
    {"do": "drop", "what": 3}, {"do": "compact"}, {"do": "swapoff"}, {"do": "wait", "milliseconds": 1},
    {"do": "compressor", "name": "lz4"}, {"do": "max-pool", "percent": 0}, {"do": "accept", "percent": 1},
    {"do": "shrinker", "on": "Y"}, {"do": "zswap", "on": "N"}]


def test_every_operation_is_carried_out(box: FakeBox, tmp_path: Path, calls: list[tuple[str, str]],
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    assert {operation["do"] for operation in ALL} == set(OPERATIONS)
    outs: list[dict[str, Any]] = []
    real = WorkloadDriver._all

    def spy(driver: WorkloadDriver, operation: str, region: str, **arguments: Any) -> list[Any]:
        if operation == "out":
            outs.append(arguments)
        return real(driver, operation, region, **arguments)

    monkeypatch.setattr(WorkloadDriver, "_all", spy)
    before = settings_of(box)
    path = written(tmp_path, ALL, params={"max_pool_percent": 5, "accept_threshold_percent": 90}, workers=2)
    status, markers = run(box, tmp_path, "script", "--script", str(path))
    assert status == 0
    assert settings_of(box) == before
    assert calls == [("swapoff", "/dev/vda"), ("swapon", "/dev/vda")]
    assert box.read("proc/sys/vm/compact_memory") == "1"
    assert box.read(f"{CGROUP}/memory.reclaim") == str(16 * 4096)
    assert outs[:2] == [{"chunk": 16, "pause": 0.001}, {"first": 5, "last": 9, "pause": 0.0}]
    # Settings, and what runs below a limit, stand between phases.
    words = re.findall(r"phase (?:s\d+-\d+|final|exit)|(?:param|cgroup) [\w.]+=\d*[A-Za-z]*\d*(?=phase|param|cgroup|$)",
                       markers)
    assert [word for word in words if word.startswith("phase")] == [
        "phase s1-4", "phase s5-8", "phase s9-9", "phase s15-15", "phase s16-19", "phase s20-20", "phase final",
        "phase exit"]
    assert words[0] == "param max_pool_percent=5"
    at = words.index("phase s15-15")
    assert words[at - 1].startswith("cgroup memory.max=")
    assert words[at + 1] == "cgroup memory.max=max"
    rows = (tmp_path / "capture" / "truth.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} >= {"s1-4", "s15-15", "final"}


def test_content_stays_when_a_sequence_is_shrunk(box: FakeBox, tmp_path: Path) -> None:
    def pages(operations: list[dict[str, Any]]) -> list[str]:
        assert run(box, tmp_path, "script", "--script", str(written(tmp_path, operations)))[0] == 0
        rows = (tmp_path / "capture" / "truth.csv").read_text().splitlines()[1:]
        return [row.split(",")[3] for row in rows if row.startswith("final,")][:8]

    fill = {"do": "fill", "region": "a", "mix": "random", "content": 5}
    assert pages([A, {"do": "drop", "what": 2}, fill]) == pages([A, fill]) != pages([A, {**fill, "content": 6}])


def test_a_worker_that_the_kernel_killed_for_memory(box: FakeBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    def killed(driver: WorkloadDriver, *regions: str, **where: int) -> None:
        (box.root / CGROUP / "memory.events").write_text("oom 1\noom_kill 1\noom_group_kill 0\n")
        os.kill(driver.workers[0].pid, 9)
        driver.drop_caches()
        driver.unmap("a")

    monkeypatch.setattr(WorkloadDriver, "read", killed)
    status, _ = run(box, tmp_path, "script", "--script", str(written(tmp_path, [A])))
    assert status == 3
    assert "for want of memory" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "sentence"), [
    (["script"], "from --script FILE"), (["base", "--script", "x"], "no other scenario takes one"),
    (["script", "--script", "nosuch"], "nosuch cannot be read")])
def test_wrong_use(box: FakeBox, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str],
                   sentence: str) -> None:
    assert run(box, tmp_path, *words)[0] == 2
    assert sentence in capsys.readouterr().err


def test_the_generator_names_mixes_that_there_are() -> None:
    found = {operation["mix"] for number in range(1, 40) for operation in generate(2, number).operations
             if "mix" in operation}
    assert found <= set(MIXES)
