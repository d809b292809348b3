# SPDX-License-Identifier: GPL-2.0-or-later
"""Stamps of a clock that counts no seconds: no verb makes seconds of them, and each says what it does instead."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from htmlpage import parse
from tampering import COLUMNS, Tampered

from replay.cli import main
from replay.cli.compare import report
from replay.cli.replay_ import divergence_lines
from replay.recdiff.comparison import compare
from replay.regress import measure
from replay.report.distributions import ages
from replay.report.pictures import pictures
from replay.report.recordingdata import Ages, Recorded
from replay.report.reportdata import Material, MissingPicture, Picture, gather
from replay.report.resultfile import load_result
from replay.tools.cut import cut
from replay.tools.scrub import scrub
from replay.verdict.losses import losses_of
from replay.verdict.run import replay
from traces import schema
from traces.errors import BadInput
from traces.exporters import chromejson, pftrace
from traces.importers import import_source
from traces.recording import Recording

SAMPLE = "7.2-lz4-edge"
RAW = "".join(f"            task-100   [000]  {line}\n" for line in (
    "11168452000: tracing_mark_write: phase out1", "11171384000: zswap_load: (zswap_load+0x4/0x80) swp=0x1",
    "11171384800: zswap_load: (zswap_load+0x4/0x80) swp=0x2")).replace("            task", "CPU:0 [LOST 3 EVENTS]\n"
                                                                       "            task", 3).removeprefix(
    "CPU:0 [LOST 3 EVENTS]\n")
LATENCY = "".join(f"    task-100       0...2. {at}us : zswap_load: (zswap_load+0x4/0x80) swp=0x1\n" for at in (5, 6, 7))
#: a time in seconds, as text for people has it
SECONDS = re.compile(r"\b\d+\.\d{3,9}\b(?: s\b)?")


def stamped(path: Path, to: Path, name: str = "x86-tsc", **more: Any) -> Path:
    """Copy a recording as one whose clock counts no seconds."""
    shutil.copytree(path, to)
    manifest = json.loads((to / "manifest.json").read_text())
    (to / "manifest.json").write_text(json.dumps({**manifest, "stamps": name, **more}))
    return to


@pytest.fixture(scope="module")
def tsc(tmp_path_factory: pytest.TempPathFactory, samples: dict[str, Path]) -> Path:
    """A sample as if its clock had been x86-tsc."""
    return stamped(samples[SAMPLE], tmp_path_factory.mktemp("stamps") / "tsc.zr")


def text(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command and return what it prints."""
    capsys.readouterr()
    main([str(word) for word in words])
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


@pytest.mark.parametrize(("content", "stamps"), [(RAW, "raw"), (LATENCY, "")])
def test_an_import_says_whether_stamps_count_seconds(content: str, stamps: str, tmp_path: Path) -> None:
    (tmp_path / "events.txt").write_text(content)
    import_source(str(tmp_path / "events.txt"), str(tmp_path / "rec.zr"))
    recording = Recording(tmp_path / "rec.zr")
    assert (recording.stamps, "stamps" in recording.manifest) == (stamps, bool(stamps))


def test_what_an_imported_text_of_bare_stamps_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events.txt").write_text(RAW)
    rec = tmp_path / "rec.zr"
    import_source(str(tmp_path / "events.txt"), str(rec))
    assert "events 5; stamps are of a clock that its source does not name, which counts no seconds" in text(
        capsys, "info", rec)
    shown = text(capsys, "show", rec)
    assert "0 11168452000 [000] 100 marker" in shown
    assert not SECONDS.search(shown)
    losses = [loss.text for loss in losses_of(Recording(rec), (0, 1 << 62), 0)]
    assert losses[:2] == ["CPU 0 lost 3 events before stamp 11171384000", "CPU 0 lost 3 events before stamp 11171384800"]


def test_a_recording_keeps_its_clock(tsc: Path, tmp_path: Path) -> None:
    cut(Recording(tsc), str(tmp_path / "cut.zr"), 0, 400)
    scrub(Recording(tsc), str(tmp_path / "scrubbed.zr"), seed=1)
    shutil.copytree(tsc, tmp_path / "set.zr")
    assert main(["import", str(tmp_path / "set.zr"), "--set", "machine=x86_64"]) == 0
    for name in ("cut.zr", "scrubbed.zr", "set.zr"):
        assert Recording(tmp_path / name).stamps == "x86-tsc", name


@pytest.mark.parametrize("bad", ["", 7, None, ["x86-tsc"]])
def test_a_clock_without_a_name_is_refused(bad: object, samples: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="stamps"):
        Recording(stamped(samples[SAMPLE], tmp_path / "bad.zr", bad))  # type: ignore[arg-type]


def test_info_names_the_clock(tsc: Path, samples: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    said = text(capsys, "info", tsc)
    assert "events 1,985; stamps are of the clock x86-tsc, which counts no seconds" in said
    assert "5.504" not in said
    assert "events 1,985 in 5.504 s" in text(capsys, "info", samples[SAMPLE])
    facts = json.loads(text(capsys, "info", "--json", tsc))
    assert (facts["seconds"], facts["stamps"]) == (None, "x86-tsc")
    other = json.loads(text(capsys, "info", "--json", samples[SAMPLE]))
    assert 5.5 < other["seconds"] < 5.6
    assert "stamps" not in other


def test_show_prints_stamps_and_takes_no_seconds(tsc: Path, samples: dict[str, Path],
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(text(capsys, "show", "--json", "--from", 382, "--limit", 1, tsc))["ts"]
    assert f"382 {first} [000] 122 zswap_load" in text(capsys, "show", "--from", 382, "--limit", 1, tsc)
    assert "382 33.930414 [000] 122 zswap_load" in text(capsys, "show", "--from", 382, "--limit", 1, samples[SAMPLE])
    for chosen in ("33:34", ":", "nonsense"):
        assert main(["show", str(tsc), "--time", chosen]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert re.fullmatch(r"zreplay: .*tsc.zr: has no seconds that --time could choose by: its stamps are of the clock "
                            r"x86-tsc, which counts no seconds; choose by event number, with --from and --to\.\n", err)
    assert main(["show", str(samples[SAMPLE]), "--time", "33.9:34", "--limit", "1"]) == 0


def test_a_divergence_is_at_a_stamp(tsc: Path, samples: dict[str, Path], tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    result = replay(Recording(tsc), "mainline-6.12")
    plain = replay(Recording(samples[SAMPLE]), "mainline-6.12")
    assert result.divergences
    first, other = result.divergences[0], plain.divergences[0]
    lines = list(divergence_lines(first))
    assert lines[0] == f"first divergence: {first.check} at event {first.event}, stamp {first.ts}"
    assert any(line.startswith(f"  -> {first.event:>9} {first.ts} [") for line in lines)
    assert next(divergence_lines(other)).endswith(f", {other.ts / 1e9:.6f} s")
    # In plain data the key is there where it says something, and comes back.
    assert result.as_dict()["divergences"][0]["stamps"] == "x86-tsc"
    assert "stamps" not in plain.as_dict()["divergences"][0]
    for each in (result, plain):
        (tmp_path / "result.json").write_text(json.dumps(each.as_dict(), default=str))
        assert load_result(tmp_path / "result.json").divergences[0].stamps == each.divergences[0].stamps
    for form in ((), ("--ktap",)):
        said = text(capsys, "replay", tsc, "--revision", "mainline-6.12", *form)
        assert f"at event {first.event}, stamp {first.ts}" in said
        assert f"{first.ts / 1e9:.6f}" not in said


def test_a_report_has_no_times(tsc: Path, samples: dict[str, Path], tmp_path: Path) -> None:
    page = {}
    for name, path in (("with", samples[SAMPLE]), ("without", tsc)):
        main(["report", str(path), "--revision", "mainline-6.12", "-o", str(tmp_path / f"{name}.html")])
        page[name] = " ".join(parse((tmp_path / f"{name}.html").read_text("utf-8")).text.split())
    why = "its stamps are of the clock x86-tsc, which counts no seconds"
    first = replay(Recording(tsc), "mainline-6.12").divergences[0]
    assert f"stamp {first.ts} of the clock x86-tsc, which counts no seconds." in page["without"]
    assert f"{first.ts / 1e9:.6f} s on the trace clock, " in page["with"]
    assert f"of 1,985; {why}" in page["without"]
    assert "recorded in 5.504 s" in page["with"]
    assert "number, time in seconds, CPU" in page["with"]
    assert "number, stamp of the clock, CPU" in page["without"]
    for times in ("on the trace clock", "after the first event", "recorded in", "seconds since", "time in seconds"):
        assert times not in page["without"], times


def test_pictures_of_time_are_left_out_with_the_reason(tsc: Path, samples: dict[str, Path]) -> None:
    why = "its stamps are of the clock x86-tsc, which counts no seconds"
    made = {}
    for path in (samples[SAMPLE], tsc):
        recording = Recording(path)
        material = gather(None, recording, "", [], [recording], [Recording(samples["7.3-lz4-limits"])])
        made[path] = {each.name: each for each in pictures(material)}
    with_times, without = made[samples[SAMPLE]], made[tsc]
    for name in ("pool-pages", "latency"):
        assert isinstance(with_times[name], Picture)
        missing = without[name]
        assert isinstance(missing, MissingPicture), name
        assert why in missing.why
    for name in ("compressed-sizes", "batch-sizes", "fragmentation"):
        assert type(without[name]) is type(with_times[name])


def test_ages_of_stamps_are_no_times(tsc: Path, samples: dict[str, Path]) -> None:
    for path, kind in ((samples[SAMPLE], Picture), (tsc, MissingPicture)):
        recording = Recording(path)
        recorded = Recorded(stamps=recording.stamps, ages=Ages(ns=[5_000_000_000, 9_000_000_000], walked=2))
        made = ages(Material(replay(recording), recording, recorded=recorded))
        assert isinstance(made, kind)
        assert not isinstance(made, MissingPicture) or made.why.startswith("its stamps are of the clock x86-tsc")


def test_regress_has_no_times_of_it(tsc: Path, samples: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, other = measure(Recording(tsc)), measure(Recording(samples[SAMPLE]))
    times = {name for name in other.values if name.startswith("time.")}
    assert "time.zswap_load.median" in times
    assert not [name for name in run.values if name.startswith("time.")]
    assert {run.missing[name] for name in times} == {"its stamps are of the clock x86-tsc, which counts no seconds"}
    assert run.values == {name: value for name, value in other.values.items() if name not in times}
    said = text(capsys, "regress", "--base", tsc, "--patched", samples["7.3-lz4-limits"])
    assert "note: tsc.zr has no times: its stamps are of the clock x86-tsc, which counts no seconds" in said
    result = json.loads(text(capsys, "regress", "--base", tsc, "--patched", samples["7.3-lz4-limits"], "--json"))
    check = next(check for check in result["checks"] if check["check"] == "time.zswap_load.median")
    assert (check["base"], check["verdict"]) == (None, "inconclusive")
    assert "its stamps are of the clock x86-tsc, which counts no seconds" in check["reason"]
    assert "is the run that" in text(capsys, "regress", "--base", samples[SAMPLE], "--patched", tsc), \
        "one run twice, whatever its clock is called"


@pytest.mark.parametrize("form", ["pftrace", "json"])
def test_an_export_keeps_the_order_and_names_the_clock(form: str, tsc: Path, samples: dict[str, Path], tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "times are stamps of the clock x86-tsc, which counts no seconds: only their order means anything"
    out, plain = tmp_path / f"a.{form}", tmp_path / f"b.{form}"
    said = text(capsys, "export", tsc, "-o", out, "--check")
    assert sentence in said
    assert "1,985 events" in said[said.index("read back"):]
    assert sentence not in text(capsys, "export", samples[SAMPLE], "-o", plain)
    assert sentence.encode() in out.read_bytes()
    assert sentence.encode() not in plain.read_bytes()
    items = []
    for path in (out, plain):
        if form == "json":
            with path.open(encoding="utf-8") as file:
                items.append([item.ts for item in chromejson.read(file, "x")])
        else:
            with path.open("rb") as binary:
                items.append([item.ts for item in pftrace.read(binary, "x")])
    assert items[0] == items[1]


def test_compare_needs_two_recordings_by_one_clock(tsc: Path, samples: dict[str, Path], tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    plain = samples[SAMPLE]
    for pair in ((plain, tsc), (tsc, plain)):
        assert main(["dev", "compare", *map(str, pair)]) == 2
        assert re.search(r"tsc\.zr: cannot be compared with .*, which has times in ns: its stamps are of the clock x86-tsc, "
                         r"which counts no seconds; give two recordings by one clock\.\n", capsys.readouterr().err)
    counter = stamped(plain, tmp_path / "counter.zr", "counter")
    with pytest.raises(BadInput, match=re.escape(f"is by another clock than {tsc} (counter, x86-tsc)")):
        compare(Recording(tsc), Recording(counter))
    raw = stamped(plain, tmp_path / "raw.zr", "raw")
    assert compare(Recording(tsc), Recording(raw)).verdict == "AGREE", "a text does not say that its clock is another"


def test_a_comparison_of_stamps_prints_stamps(tsc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = text(capsys, "dev", "compare", tsc, tsc)
    assert said.startswith("AGREE ")
    segments = Recording(tsc).manifest["segments"]
    assert re.search(r"both recorded from stamp \d+ to stamp \d+; not compared", said)
    assert segments
    assert "stamps are of the clock x86-tsc, which counts no seconds: how far apart two probes may stamp one hit" in said
    assert not re.search(r"\d\.\d{3,} s\b", said)
    assert json.loads(text(capsys, "dev", "compare", "--json", tsc, tsc))["stamps"] == "x86-tsc"


@pytest.mark.parametrize(("name", "verdict"), [("", "AGREE"), ("x86-tsc", "UNDECIDED")])
def test_what_is_left_out_at_the_edges_is_not_known_without_times(name: str, verdict: str, samples: dict[str, Path],
                                                                  tmp_path: Path) -> None:
    path = stamped(samples[SAMPLE], tmp_path / "rec.zr", name) if name else samples[SAMPLE]
    short = Tampered(path)
    for column in COLUMNS:
        short.columns[column] = short.columns[column][:-200]
    result = compare(Recording(path), short)
    assert any(side.edges for side in result.sides)
    assert result.verdict == verdict


def test_a_difference_is_at_a_stamp(tsc: Path) -> None:
    other = Tampered(tsc)
    row = int(np.flatnonzero(other.columns["event"] == schema.CODE["zswap_load"])[3])
    other.columns["swpent"][row] += np.uint64(1)
    ts = int(other.columns["ts"][row])
    result = compare(Recording(tsc), other)
    task = next(task for task in result.tasks if task.first is not None)
    lines = list(report(result))
    assert any(line.startswith(f"  first difference at stamp {ts}, the task's event ") for line in lines)
    assert any(line.startswith(f"  -> {row:>9} {ts} [") for line in lines)
    # Of the many tasks that differ only the first ones are shown in full.
    task.first, task.first_ts = None, ts
    assert f"  first difference at stamp {ts}" in list(report(result))
    result.stamps = ""
    assert f"  first difference at {ts / 1e9:.6f} s" in list(report(result))
