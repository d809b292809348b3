# SPDX-License-Identifier: GPL-2.0-or-later
"""What is missing, or may be, is said and cannot PASS: rings, heads of texts, snapshots, phases, the end itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ringbuilder as rb
from importing import imported

import replay
import traces
from replay.benchmarks.capture import write_capture
from replay.cli import main
from replay.tools.synthetic import ImaginaryKernel, config, write_recording
from traces import schema
from traces.errors import BadInput
from traces.importers import import_source
from traces.recording import Recording, RecordingWriter

_COLUMNS = schema.column_names()


def _kernel(stores: int = 12) -> ImaginaryKernel:
    kernel = ImaginaryKernel()
    for slot in range(stores):
        kernel.store(slot)
    return kernel


def _says(recording: Recording, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The replay by either engine is UNDECIDED for this reason, and info says it."""
    for engine in ("reference", "fast"):
        result = replay.replay(recording, engine=engine)
        assert result.verdict == "UNDECIDED", result.divergences
        assert any(text in reason for reason in result.reasons), result.reasons
    capsys.readouterr()
    assert main(["info", str(recording.path)]) == 0
    assert text in " ".join(capsys.readouterr().out.split())


# ---- rings ----------------------------------------------------------------------------------------------


def test_a_ring_without_its_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_capture(tmp_path / "run", _kernel().block(), 1)
    import_source(tmp_path / "run", tmp_path / "whole")
    assert replay.replay(traces.open_recording(tmp_path / "whole")).verdict == "PASS"
    (tmp_path / "run/ring-stats.json").unlink()
    assert main(["import", str(tmp_path / "run"), "-o", str(tmp_path / "rec")]) == 0
    assert "a replay cannot PASS" in " ".join(capsys.readouterr().err.split())
    _says(traces.open_recording(tmp_path / "rec"), "what CPU 0 lost is not known: ring-stats.json", capsys)


def test_a_ring_that_is_not_there(tmp_path: Path) -> None:
    run = rb.write_capture(tmp_path / "run")
    (run / "zmeta.cpu1.raw").unlink()
    recording, summary = imported(run, tmp_path)
    count = rb.records_of()[1]
    assert {"cpu": 1, "lost": count, "events": 0} in recording.manifest["losses"]
    assert f"the ring of CPU 1 is not there: the kernel counted {count} events of it" in summary["notes"]


@pytest.mark.parametrize("missing", [0, 3])
def test_a_ring_is_held_against_the_kernel_s_count(tmp_path: Path, missing: int) -> None:
    write_capture(tmp_path / "run", _kernel().block(), 1)
    stats = json.loads((tmp_path / "run/ring-stats.json").read_text())["zmeta/cpu0"]
    count = int(stats.split("read events: ")[1])
    (tmp_path / "run/ring-stats.json").write_text(json.dumps({"zmeta/cpu0": rb.ring_stats(count + missing)}))
    (loss,) = import_source(tmp_path / "run", tmp_path / "rec")["losses"]
    assert (loss["lost"], loss.get("counted", False)) == (missing, not missing)


@pytest.mark.parametrize(("stats", "losses"), [
    ([4, 2], {0: (0, True), 1: (0, True)}), ([9, 2], {0: (5, False), 1: (0, True)}),
    ([4], {0: (0, True), 1: (None, False)}), ([4, 2, 7], {0: (0, True), 1: (0, True), 2: (7, False)}),
    ([4, 2, 0], {0: (0, True), 1: (0, True)})])
def test_a_trace_dat_is_held_against_trace_cmd_s_statistics(tmp_path: Path, stats: list[int],
                                                            losses: dict[int, tuple[int | None, bool]]) -> None:
    load = rb.EVENTS["load"]
    rings = [rb.ring((rb.T0 + n, load.pack(1)) for n in range(count)) for count in (4, 2)]
    said = [f"CPU: {cpu}\n{rb.ring_stats(0, read_events=count)}" for cpu, count in enumerate(stats)]
    (tmp_path / "x").write_bytes(rb.tracedat(rings, stats=said))
    recording, _ = imported(tmp_path / "x", tmp_path)
    assert {loss["cpu"]: (loss["lost"], loss.get("counted", False)) for loss in recording.manifest["losses"]} == losses


# ---- text -----------------------------------------------------------------------------------------------

_LINE = "            task-10{0}     [00{0}] ...2.    11.17{1:04}: dec: (zswap_load+0x4/0x370) swp={1:#x}\n"


def _text(head: str, lines: int, cpu: int = 0, first: int = 0) -> bytes:
    return (head + "".join(_LINE.format(cpu, first + n) for n in range(lines))).encode()


def _head(there: int, written: int) -> str:
    return f"# tracer: nop\n#\n# entries-in-buffer/entries-written: {there}/{written}   #P:1\n#\n"


@pytest.mark.parametrize(("data", "lost"), [
    (_text("", 17), 0), (_text(_head(17, 17), 17), 0), (_text(_head(136348, 136348), 17), 136331),
    (_text(_head(17, 20), 17), 3), (_text(_head(18, 20), 17), 3),
    # per_cpu/cpuN/trace of two CPUs, one after the other: each has a head
    (_text(_head(4, 4), 4) + _text(_head(5, 5), 5, cpu=1), 0),
    (_text(_head(4, 4), 3) + _text(_head(5, 5), 5, cpu=1), 1),
    # more than the head says: it was written on while it was read
    (_text(_head(3, 3), 5), 0),
    (_text("", 2) + b"CPU:0 [LOST 7 EVENTS]\n" + _text("", 3, first=2), 7),
    (_text("cpus=1\n", 3) + b"CPU:0 [4 EVENTS DROPPED]\n", 4),
    (_text("", 2) + b"CPU:0 [LOST EVENTS]\n", None), (_text("", 2) + b"CPU 0: overrun: 12\n", None)])
def test_the_head_of_a_text(tmp_path: Path, data: bytes, lost: int | None) -> None:
    (tmp_path / "trace.txt").write_bytes(data)
    summary = import_source(tmp_path / "trace.txt", tmp_path / "rec", overrides={
        "release": "7.3-amd64", "compressor": "lz4", "totalram_pages": 504108})
    counts = [loss["lost"] for loss in summary["losses"]]
    assert (None if None in counts else sum(counts)) == lost
    assert any(loss.get("counted") for loss in summary["losses"]) == (lost == 0 and data.startswith(b"#"))


def test_a_text_shorter_than_its_head_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trace.txt").write_bytes(_text(_head(40, 40), 17))
    assert main(["import", str(tmp_path / "trace.txt"), "--kernel", "7.3-amd64", "--compressor", "lz4",
                 "--totalram-pages", "504108", "-o", str(tmp_path / "rec")]) == 0
    recording = traces.open_recording(tmp_path / "rec")
    assert any("the text's head says 40 events and 17 follow: 23 are missing" in loss.get("why", "")
               for loss in recording.manifest["losses"])
    capsys.readouterr()
    main(["info", str(tmp_path / "rec")])
    assert "23 are missing" in capsys.readouterr().out


def test_what_bpftrace_says_on_its_standard_error(tmp_path: Path) -> None:
    event = {"ts": 1, "cpu": 0, "pid": 7, "comm": "x", "event": "zswap_load", "swpent": 5, "folio": 64}
    lines = [json.dumps({"type": "attached_probes", "data": {"probes": 1}}),
             json.dumps({"type": "printf", "data": json.dumps(event)}), "Lost 12 events"]
    (tmp_path / "x").write_text("\n".join(lines) + "\n")
    recording, _ = imported(tmp_path / "x", tmp_path)
    assert [loss["lost"] for loss in recording.manifest["losses"]] == [0, 12]
    assert recording.frame(["event"])["event"].tolist() == ["zswap_load", "lost_events"]


# ---- recordings -----------------------------------------------------------------------------------------


def _recorded(path: Path, block: np.ndarray, labels: tuple[str, ...] = (), truth: pd.DataFrame | None = None,
              texts: list[tuple[int, str]] | None = None, **changes: Any) -> Recording:
    """A recording with snapshots at its end that say nothing but when they were taken."""
    rows = np.zeros((len(_COLUMNS), len(labels)), np.int64)
    rows[_COLUMNS.index("content")] = -1
    rows[3], rows[0] = schema.CODE["counters"], block[0, -1]
    rows[_COLUMNS.index("ret")] = np.arange(len(labels))
    with RecordingWriter(path) as writer:
        writer.write_rows(np.hstack([block, rows]), [*(texts or ()), *((block.shape[1] + n, label)
                                                                      for n, label in enumerate(labels))])
        for label in labels:
            writer.add_snapshot(label, int(block[0, -1]), {"t": block[0, -1] / 1e9})
        if truth is not None:
            writer.add_table("truth", truth)
        writer.close({**config(), **changes})
    return traces.open_recording(path)


def _change(recording: Recording, change: Callable[[dict[str, Any]], None]) -> Recording:
    manifest = json.loads((recording.path / "manifest.json").read_text())
    change(manifest)
    (recording.path / "manifest.json").write_text(json.dumps(manifest))
    return traces.open_recording(recording.path)


@pytest.mark.parametrize("losses", [[], [{"cpu": 0}], [{"cpu": 0, "lost": 0}, {"cpu": 1}]])
def test_losses_that_a_manifest_does_not_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                              losses: list[dict[str, Any]]) -> None:
    recording = _recorded(tmp_path / "rec", _kernel().block(), losses=losses)
    _says(recording, "is unknown" if losses else "does not say whether events were lost", capsys)


def test_what_the_importer_found_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = _recorded(tmp_path / "rec", _kernel().block(), missing=["3 of the recorder's counter snapshots are missing"])
    _says(recording, "3 of the recorder's counter snapshots are missing", capsys)


def _cut_inside(block: np.ndarray) -> np.ndarray:
    """The events up to the last zs_malloc()."""
    return block[:, :int(np.flatnonzero(block[3] == schema.CODE["zs_malloc"])[-1]) + 1]


@pytest.mark.parametrize(("labels", "verdict"), [((), "UNDECIDED"), (("before",), "UNDECIDED"), (("before", "end"), "PASS")])
def test_a_recording_that_ends_inside_a_store(tmp_path: Path, labels: tuple[str, ...], verdict: str) -> None:
    recording = _recorded(tmp_path / "rec", _cut_inside(_kernel().block()), labels)
    for engine in ("reference", "fast"):
        result = replay.replay(recording, engine=engine)
        assert result.verdict == verdict, result.reasons
        assert any("operations do not end before the recording does (task 100 in swap_writeout()" in reason
                   for reason in result.reasons) == (verdict != "PASS")
    whole = _recorded(tmp_path / "whole", _kernel().block(), labels)
    assert replay.replay(whole).verdict == "PASS"


def test_an_end_that_the_kernel_s_count_tells(tmp_path: Path) -> None:
    recording = _recorded(tmp_path / "rec", _cut_inside(_kernel().block()), losses=[{"cpu": 0, "lost": 0, "counted": True}])
    assert replay.replay(recording).verdict == "PASS"


def test_snapshots_that_the_events_do_not_come_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = _recorded(tmp_path / "rec", _kernel().block(), ("before", "middle", "end"))
    assert replay.replay(recording).verdict == "PASS"
    block, texts = _kernel().block(), None
    with RecordingWriter(tmp_path / "cut") as writer:
        writer.write_rows(block, texts or ())
        for label in ("before", "middle", "end"):
            writer.add_snapshot(label, int(block[0, -1]), {"t": 1.0})
        writer.close(config())
    _says(traces.open_recording(tmp_path / "cut"), "lists 3 counter snapshots and its events come to 0 of them", capsys)


def test_a_manifest_that_lists_less_than_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recording(str(tmp_path / "rec"), _kernel().block(), 1)
    first = traces.open_recording(tmp_path / "rec")
    rows = len(first)

    def without_last(manifest: dict[str, Any]) -> None:
        manifest["snapshots"].pop()

    two = _recorded(tmp_path / "two", _kernel().block(), ("before", "end"))
    for recording, change, said in ((first, lambda manifest: manifest.update(rows=rows + 5), f"says {rows + 5} events"),
                                    (two, without_last, "does not list counters/001.json")):
        before = (recording.path / "manifest.json").read_text()
        with pytest.raises(BadInput, match=said):
            _change(recording, change)
        (recording.path / "manifest.json").write_text(before)

    def later(manifest: dict[str, Any]) -> None:
        manifest["segments"][-1]["last_ts"] += 1000

    _says(_change(first, later), "last event is not the one that its manifest says", capsys)


# ---- a workload's truth ---------------------------------------------------------------------------------


def _with_truth(path: Path, texts: dict[int, str], phases: list[str], slots: list[int], *, pages: bool = True) -> Recording:
    """Three stores with a marker before some, the truth of as many pages."""
    kernel = ImaginaryKernel()
    marks: list[tuple[int, str]] = []
    for slot in range(4):
        if slot in texts:
            marks.append(kernel.mark(texts[slot]))
        if slot < 3:
            kernel.store(slot)
    block = kernel.block()
    content = _COLUMNS.index("content")
    calls = np.flatnonzero(block[3] == schema.CODE["crypto_acomp_compress"])
    block[content, calls] = np.arange(calls.size)
    with RecordingWriter(path) as writer:
        writer.write_rows(block, marks)
        if pages:
            for number in range(calls.size):
                writer.pages.add(None, hashlib.sha1(b"%d" % number).hexdigest())
        writer.add_table("truth", pd.DataFrame({
            "phase": phases, "page": range(len(slots)), "kind": "x", "swap_type": 0, "swap_offset": slots,
            "sha1": [hashlib.sha1(b"%d" % slot).hexdigest() for slot in slots]}))
        writer.close(config())
    return traces.open_recording(path)


_MARKS = {0: "phase a", 1: "phase b", 2: "phase c", 3: "phase over"}


@pytest.mark.parametrize(("texts", "phases", "slots", "reason"), [
    (_MARKS, ["a", "b", "c"], [0, 1, 2], ""),
    # the phase under way at the end has not ended
    (_MARKS, ["a", "b", "over"], [0, 1, 2], ""),
    ({**_MARKS, 1: "fase b"}, ["a", "b", "c"], [0, 1, 2], "the truth of phase b was not compared"),
    ({}, ["a", "b", "c"], [0, 1, 2], "the truth of phases a, b, c was not compared"),
    ({0: "phase a", 3: "phase over"}, ["a", "b", "c"], [0, 1, 2], "the truth of phases b, c was not compared"),
    ({key: text.replace("phase", "Phase") for key, text in _MARKS.items()}, ["a"], [0], "the truth of phase a"),
    (_MARKS, ["a", "b", "c"], [70, 71, 72], "none of the 3 pages of the workload's truth was in zswap")])
def test_phases_of_the_truth(tmp_path: Path, texts: dict[int, str], phases: list[str], slots: list[int],
                             reason: str) -> None:
    recording = _with_truth(tmp_path / "rec", texts, phases, slots)
    for engine in ("reference", "fast"):
        result = replay.replay(recording, engine=engine)
        assert result.verdict == ("UNDECIDED" if reason else "PASS"), (result.reasons, result.divergences)
        assert any(reason in said for said in result.reasons) == bool(reason), result.reasons


def test_a_truth_with_nothing_to_hold_it_against(tmp_path: Path) -> None:
    result = replay.replay(_with_truth(tmp_path / "rec", _MARKS, ["a", "b", "c"], [0, 1, 2], pages=False))
    assert result.verdict == "UNDECIDED"
    assert any("no page content to compare it with" in reason for reason in result.reasons)
    assert replay.replay(traces.open_recording(tmp_path / "rec"), checks={"zsmalloc.place"}).verdict == "PASS"
