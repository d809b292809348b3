# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings of kernels with emulated IAA: the driver of the sample PASSes, and what 7.1 loses is found."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from leaveout import LeftOut

import replay
import traces
from replay.cli.main import main
from replay.iaa.jobs import LEFT_OUT
from replay.reference.checks import DRIVER_CHECKS
from traces.errors import BadInput

FOUND = ROOT / "traces" / "found"
SAMPLE = "7.3-iaa-faults"
QUEUE_EVENTS = tuple(f"{name}{end}" for name in ("iaa_crypto_probe", "iaa_crypto_remove", "rebalance_wq_table")
                     for end in ("", "_ret"))


def changed(source: Path, to: Path, column: str, value: Any, where: Any) -> Path:
    """Return a copy of a recording in whose job log one value is another; its digests are right."""
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("cache"))
    frame = pd.read_parquet(to / "iaa_jobs.parquet")
    row = frame.index[where(frame)][5]
    assert frame.loc[row, column] != value
    frame.loc[row, column] = value
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), to / "iaa_jobs.parquet", compression="zstd")
    manifest = json.loads((to / "manifest.json").read_text())
    manifest["files"]["iaa_jobs.parquet"] = hashlib.sha256((to / "iaa_jobs.parquet").read_bytes()).hexdigest()
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_the_driver_does_what_its_model_says(samples: dict[str, Path], engine: str) -> None:
    result = replay.replay(traces.open_recording(samples[SAMPLE]), engine=engine)
    assert result.verdict == "PASS", (result.divergences[:1], result.reasons)
    checks = {check.id: check for check in result.checks}
    assert {name: checks[name].different for name in DRIVER_CHECKS} == dict.fromkeys(DRIVER_CHECKS, 0)
    assert min(checks[name].compared for name in DRIVER_CHECKS if name != "iaa.stats") > 100
    assert "CONFIG_CRYPTO_DEV_IAA_CRYPTO_STATS" in checks["iaa.stats"].reason
    # The device's bytes are our own coder's.
    assert (checks["store.length"].grade, checks["store.length"].compared > 50) == ("exact", True)
    assert checks["load.content"].compared


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_v14_s_driver_does_what_its_model_says(samples: dict[str, Path], engine: str) -> None:
    """Eight pages a call, with faults; the kernel keeps the driver's statistics.  The mails it was built with say what it is."""
    result = replay.replay(traces.open_recording(samples["v14-iaa-64k"]), engine=engine)
    assert (result.verdict, result.revision) == ("PASS", "v14"), (result.divergences[:1], result.reasons)
    checks = {check.id: check for check in result.checks}
    assert {name: checks[name].different for name in DRIVER_CHECKS} == dict.fromkeys(DRIVER_CHECKS, 0)
    assert {name: checks[name].compared for name in DRIVER_CHECKS} == {
        "iaa.queue": 392, "iaa.submit": 392, "iaa.completion": 176, "iaa.crc": 183, "iaa.fallback": 176, "iaa.stats": 272}
    assert checks["acomp.batch"].compared
    assert (checks["store.length"].grade, checks["store.length"].compared > 100) == ("exact", True)


@pytest.mark.parametrize(("column", "value", "where", "check"), [
    ("queue", 5, lambda frame: compressing(frame), "iaa.queue"), ("flags", 0, lambda frame: compressing(frame), "iaa.submit"),
    ("out", 77, lambda frame: compressing(frame), "store.length"), ("status", 11, lambda frame: compressing(frame), "store.length"),
    ("crc", 5, lambda frame: compressing(frame), "iaa.crc"), ("room", 100, lambda frame: compressing(frame), "iaa.submit")])
def test_a_driver_of_batches_that_does_otherwise_fails(samples: dict[str, Path], tmp_path: Path, column: str, value: Any,
                                                       where: Any, check: str) -> None:
    path = changed(samples["v14-iaa-64k"], tmp_path / "r.zr", column, value, where)
    result = replay.replay(traces.open_recording(path), keep_going=True)
    assert result.verdict == "FAIL"
    assert check in {one.id for one in result.checks if one.different}, {one.id for one in result.checks if one.different}


def test_pages_of_4096_compressed_bytes_come_back_as_these_from_v14() -> None:
    """L1, on its real driver: the workload read 20 of 96 pages wrong, and no one returned an error."""
    result = replay.replay(traces.open_recording(FOUND / "v14-iaa-4096"))
    assert (result.verdict, result.revision) == ("FAIL", "v14")
    assert [divergence.check for divergence in result.divergences] == ["invariant.load"]
    assert "its object holds compressed data of 4096 bytes" in result.divergences[0].what
    assert not any(check.different for check in result.checks if check.id in DRIVER_CHECKS)


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_queues_that_come_and_go_are_followed(samples: dict[str, Path], engine: str) -> None:
    result = replay.replay(traces.open_recording(samples["7.3-iaa-rebind"]), engine=engine)
    assert (result.verdict, result.reasons) == ("PASS", [])
    checks = {check.id: check for check in result.checks}
    assert {name: (checks[name].compared, checks[name].different) for name in DRIVER_CHECKS if name != "iaa.stats"} == {
        "iaa.queue": (396, 0), "iaa.submit": (396, 0), "iaa.completion": (261, 0), "iaa.crc": (270, 0), "iaa.fallback": (261, 0)}
    assert any(note.startswith("work queues given to the driver or taken away: 16, all followed") for note in result.notes)


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_page_that_is_read_while_a_queue_goes_is_lost(engine: str) -> None:
    """7.3.4 has no fallback for a queue that takes no more descriptors, whatever others there are."""
    result = replay.replay(traces.open_recording(FOUND / "7.3-iaa-unbind"), engine=engine)
    assert (result.verdict, [divergence.check for divergence in result.divergences]) == ("FAIL", ["invariant.load"])
    assert result.divergences[0].recorded == "error -6, 4096 bytes"
    assert any(note.startswith("work queues given to the driver or taken away: 122, all followed") for note in result.notes)
    checks = {check.id: check for check in result.checks}
    assert {name: checks[name].different for name in DRIVER_CHECKS} == dict.fromkeys(DRIVER_CHECKS, 0)
    assert checks["iaa.queue"].compared > 300


def test_v14_without_a_queue_stores_what_its_buffer_held() -> None:
    """L3, on its real driver: no byte of these pages was seen, as no device got them; the driver's model says it."""
    result = replay.replay(traces.open_recording(FOUND / "v14-iaa-no-queue"))
    assert (result.verdict, result.revision) == ("FAIL", "v14")
    assert [divergence.check for divergence in result.divergences] == ["invariant.load"]
    assert "its object holds what the compressor's buffer held before (the call failed with -19" in result.divergences[0].what
    assert not any(check.different for check in result.checks if check.id in DRIVER_CHECKS)


@pytest.mark.parametrize("names", [("iaa_crypto_remove",), ("iaa_crypto_remove_ret",), QUEUE_EVENTS], ids="+".join)
def test_what_v14_stored_without_a_queue_is_not_known_where_no_probe_says_when_that_was(names: tuple[str, ...]) -> None:
    """Nor does the workload say that it read other pages back."""
    left = LeftOut(FOUND / "v14-iaa-no-queue").without_probes(names).without_markers("workload")
    result = replay.replay(left, "v14", keep_going=True)
    assert result.verdict == "UNDECIDED", [divergence.check for divergence in result.divergences]
    assert any("whether these are the pages, or what its buffer held before, is not known" in reason
               for reason in result.reasons)


def test_nor_is_it_of_an_accelerator_that_nobody_watched() -> None:
    """As of real hardware: there is no job log."""
    left = LeftOut(FOUND / "v14-iaa-no-queue").without_markers("workload")
    left.documents = {**left.documents, "iaa": None}
    result = replay.replay(left, "v14", keep_going=True)
    assert result.verdict == "UNDECIDED", [divergence.check for divergence in result.divergences]
    assert any("what its buffer held before, is not known" in reason for reason in result.reasons)


@pytest.mark.parametrize("name", QUEUE_EVENTS)
def test_each_probe_of_the_queues_left_out_says_what_is_not_followed(name: str) -> None:
    whole = LeftOut(FOUND / "7.3-iaa-unbind")
    result = replay.replay(whole.without_probes([name]), keep_going=True)
    assert {divergence.check for divergence in result.divergences} == {"invariant.load"}, name
    assert not any(check.different for check in result.checks if check.id in DRIVER_CHECKS)


def compressing(frame: pd.DataFrame) -> pd.Series:
    return (frame["op"] == "compress") & (frame["in"] == 4096) & (frame["status"] == 1)


def reading(frame: pd.DataFrame) -> pd.Series:
    return (frame["op"] == "decompress") & (frame["how"] == 15) & (frame["out"] == 4096)


@pytest.mark.parametrize(("column", "value", "where", "check"), [
    ("queue", 5, compressing, "iaa.queue"), ("flags", 0, compressing, "iaa.submit"), ("room", 100, reading, "iaa.submit"),
    ("out", 4000, compressing, "iaa.submit"), ("out", 4000, reading, "iaa.completion"),
    ("status", 11, reading, "iaa.completion"), ("op", "memmove", reading, "iaa.submit"), ("pfn", 5, reading, "iaa.submit")])
def test_a_driver_that_does_otherwise_fails(samples: dict[str, Path], tmp_path: Path, column: str, value: Any, where: Any,
                                            check: str) -> None:
    path = changed(samples[SAMPLE], tmp_path / "r.zr", column, value, where)
    result = replay.replay(traces.open_recording(path), keep_going=True)
    assert result.verdict == "FAIL"
    assert check in {one.id for one in result.checks if one.different}


def test_a_page_that_7_1_loses_is_the_kernel_s_doing() -> None:
    result = replay.replay(traces.open_recording(FOUND / "7.1-iaa-window"))
    assert (result.verdict, result.reasons) == ("FAIL", [])
    assert [divergence.check for divergence in result.divergences] == ["invariant.load"]
    assert "its object cannot be decompressed; the kernel does what mainline-7.1 says here" in result.divergences[0].what
    # The driver went to software, as its model does: two calls, the inner one the driver's own.
    assert result.explained["call of the driver's own"] >= 2
    assert not any(check.different for check in result.checks if check.id in DRIVER_CHECKS)
    # Up to there every length was what the device's coder gives.
    assert next(check for check in result.checks if check.id == "store.length").compared > 20


def test_a_page_that_7_3_loses_after_a_page_fault() -> None:
    """Before it, verify_compress fails for pages that compress: an error of the driver's, not of their bytes."""
    result = replay.replay(traces.open_recording(FOUND / "7.3-iaa-page-fault"))
    assert (result.verdict, result.reasons) == ("FAIL", [])
    assert [divergence.check for divergence in result.divergences] == ["invariant.load"]
    assert not any(check.different for check in result.checks if check.id in DRIVER_CHECKS)
    assert next(check for check in result.checks if check.id == "store.error").compared > 40


@pytest.mark.parametrize(("change", "said"), [
    (lambda facts: facts.update(options=[]), "is not an object"),
    (lambda facts: facts["options"].update(devices="2"), "is not a whole number"),
    (lambda facts: facts["options"].update(devices=99), "is more than allowed (8)"),
    (lambda facts: facts["options"].update(mode="maybe"), "is not sync or async or async_irq"),
    (lambda facts: facts["options"].pop("verify"), "does not say verify"),
    (lambda facts: facts.pop("options"), "does not say options")])
def test_facts_of_devices_are_input(samples: dict[str, Path], tmp_path: Path, change: Any, said: str) -> None:
    path = tmp_path / "r.zr"
    shutil.copytree(samples[SAMPLE], path, ignore=shutil.ignore_patterns("cache"))
    facts = json.loads((path / "iaa.json").read_text())
    change(facts)
    (path / "iaa.json").write_text(json.dumps(facts))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["iaa.json"] = hashlib.sha256((path / "iaa.json").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match=re.escape(said)):
        replay.replay(traces.open_recording(path))


@pytest.mark.parametrize("value", ["text", float("nan"), float("inf"), None])
@pytest.mark.parametrize("column", ["submitted", "queue", "out", "pfn"])
def test_jobs_are_input(samples: dict[str, Path], tmp_path: Path, column: str, value: Any) -> None:
    path = tmp_path / "r.zr"
    shutil.copytree(samples[SAMPLE], path, ignore=shutil.ignore_patterns("cache"))
    frame = pd.read_parquet(path / "iaa_jobs.parquet")
    frame[column] = [value] * len(frame) if value is None else frame[column].astype(type(value)).where(frame.index != 3, value)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path / "iaa_jobs.parquet", compression="zstd")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["iaa_jobs.parquet"] = hashlib.sha256((path / "iaa_jobs.parquet").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="holds something else than numbers"):
        replay.replay(traces.open_recording(path))


def test_what_is_made_of_such_a_recording_says_what_it_lacks(samples: dict[str, Path], tmp_path: Path) -> None:
    for words in (["cut", "--from", "100", "--to", "900", samples[SAMPLE], "-o", tmp_path / "cut"],
                  ["scrub", samples[SAMPLE], "-o", tmp_path / "scrubbed"]):
        assert main([str(word) for word in words]) == 0
    for name in ("cut", "scrubbed"):
        recording = traces.open_recording(tmp_path / name)
        assert LEFT_OUT in recording.manifest["notes"]
        result = replay.replay(recording)
        assert result.verdict in ("PASS", "UNDECIDED")
        assert not {check.id for check in result.checks} & set(DRIVER_CHECKS)
