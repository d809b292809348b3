# SPDX-License-Identifier: GPL-2.0-or-later
"""The command as a user meets it: what it prints, its exit status, its sentences for bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from replay.cli import main
from replay.tools.synthetic import ImaginaryKernel, config
from traces.recording import RecordingWriter


@pytest.fixture
def sample(samples: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a shipped recording that may be damaged."""
    copy = tmp_path / "sample"
    shutil.copytree(samples["7.3-zstd-64k"], copy, ignore=shutil.ignore_patterns("cache"))
    return copy


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process; return (exit status, stdout, stderr)."""
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as leave:
        status = int(leave.code or 0)
    out = capsys.readouterr()
    return status, out.out, out.err


def test_replay_passes(capsys: pytest.CaptureFixture[str], samples: dict[str, Path]) -> None:
    status, out, err = run(capsys, "replay", samples["7.3-lz4-4k"])
    assert (status, err) == (0, "")
    assert out.startswith("PASS  ")
    assert re.search(r"^store\.length +\d+ +0  exact$", out, re.M)
    assert re.search(r"^counter\.vmstat\.swpin_zero +0 +-  not captured$", out, re.M)
    assert "counter.vmstat.swpin_zero, counter.memcg.swpin_zero: reads of zero-marked\n" in out
    assert max(map(len, out.splitlines()[1:])) <= 80
    assert "unexplained: 0" in out


def test_several_recordings_end_with_a_count(capsys: pytest.CaptureFixture[str], samples: dict[str, Path]) -> None:
    status, out, _ = run(capsys, "replay", samples["7.3-zstd-64k"], samples["6.12-zstd-4k"])
    assert status == 0
    assert out.splitlines()[-1] == "2 recordings: 2 PASS"


def test_a_divergence_is_told_in_full(capsys: pytest.CaptureFixture[str], samples: dict[str, Path]) -> None:
    status, out, _ = run(capsys, "replay", samples["7.3-zstd-64k"], "--revision", "mainline-6.12")
    assert status == 1
    assert out.startswith("FAIL  ")
    shown = out[out.index("first divergence:"):]
    for part in ("what ", "recorded ", "predicted ", "inside ", "model ", "events around it"):
        assert part in shown
    event = int(re.search(r"at event (\d+)", shown)[1])
    numbers = [int(n) for n in re.findall(r"^ +(?:-> )? *(\d+) \d+\.\d{6} \[", shown, re.M)]
    assert numbers == list(range(max(0, event - 5), event + 6))
    assert re.search(rf"-> +{event} ", shown)


def test_json_is_one_object_per_recording(capsys: pytest.CaptureFixture[str], samples: dict[str, Path]) -> None:
    status, out, _ = run(capsys, "replay", "--json", samples["7.3-zstd-64k"], samples["7.3-zstd-smp2"])
    results = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [r["verdict"] for r in results] == ["PASS", "PASS"]
    assert all(isinstance(c["compared"], int) for r in results for c in r["checks"])


def test_the_worst_verdict_decides_the_exit_status(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                                   samples: dict[str, Path]) -> None:
    kernel = ImaginaryKernel()
    kernel.store(1)
    with RecordingWriter(tmp_path / "lossy") as writer:
        writer.write_rows(kernel.block())
        writer.close({**config(), "losses": [{"cpu": 0, "lost": 3}]})
    lossy = tmp_path / "lossy"
    assert run(capsys, "replay", samples["7.3-zstd-64k"], lossy)[0] == 3
    # What differs where events were lost at an unknown place is nobody's fault for certain.
    assert run(capsys, "replay", lossy, "--revision", "mainline-6.12")[0] == 3
    assert run(capsys, "replay", lossy, samples["7.2-lz4-edge"], "--revision", "mainline-6.12")[0] == 1
    _, out, _ = run(capsys, "replay", lossy)
    assert out.startswith("UNDECIDED  ")
    assert "CPU 0 lost 3 events" in out


def test_a_revision_of_one_s_own(capsys: pytest.CaptureFixture[str], samples: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from model.revisions.mainline_7 import Mainline73\n\n\nclass Same(Mainline73):\n    pass\n\n\n"
                    "class NoRaw(Mainline73):\n"
                    "    def _is_raw(self, entry):\n        return False\n")
    assert run(capsys, "replay", samples["7.3-lz4-limits"], "--revision", f"{file}:Same")[0] == 0
    status, out, _ = run(capsys, "replay", samples["7.3-lz4-limits"], "--revision", f"{file}:NoRaw")
    assert status == 1
    assert "effect.order" in out
    for name, sentence in ((f"{file}:Other", "is not a revision"), (f"{tmp_path}/none.py:X", "does not exist")):
        status, _, err = run(capsys, "replay", samples["7.3-lz4-limits"], "--revision", name)
        assert (status, err.count("\n")) == (2, 1)
        assert sentence in err
    file.write_text("import nothing_of_that_name\n")
    status, _, err = run(capsys, "replay", samples["7.3-lz4-limits"], "--revision", f"{file}:Same")
    assert (status, err.count("\n")) == (2, 1)
    assert "nothing_of_that_name" in err


def test_list_checks(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "replay", "--list-checks")
    assert status == 0
    for check in ("store.length", "zsmalloc.place", "sg.shape", "load.content", "lru.order", "counter.*"):
        assert check in out


# ---- info, show, cut, import --------------------------------------------------------------------------------


def test_info(capsys: pytest.CaptureFixture[str], samples: dict[str, Path]) -> None:
    status, out, _ = run(capsys, "info", samples["7.3-lz4-4k"])
    assert status == 0
    for part in ("7.3-amd64 (7.3.0-rc7)", "lz4, zsmalloc chain size 8", "0 events", "after-unmap", "state of a cut"):
        assert part in out
    status, out, _ = run(capsys, "info", "--json", samples["7.3-lz4-4k"])
    assert json.loads(out)["by_event"]["zswap_store"] > 100


def test_show_filters(capsys: pytest.CaptureFixture[str], samples: dict[str, Path]) -> None:
    path = samples["7.3-zstd-smp2"]
    everything = [json.loads(line) for line in run(capsys, "show", path, "--json")[1].splitlines()]
    assert [row["number"] for row in everything] == list(range(len(everything)))

    def shown(*filters: object) -> list[dict[str, object]]:
        status, out, _ = run(capsys, "show", path, "--json", *filters)
        assert status == 0
        return [json.loads(line) for line in out.splitlines()]

    assert shown("--cpu", 1) == [row for row in everything if row["cpu"] == 1]
    pid = everything[100]["pid"]
    assert shown("--pid", pid) == [row for row in everything if row["pid"] == pid]
    load = next(row for row in everything if row["event"] == "zswap_load")
    offset = load["swpent"] & (1 << 58) - 1
    slot = shown("--swp", hex(offset))
    assert {row["swpent"] & (1 << 58) - 1 for row in slot} == {offset}
    assert {"zswap_store", "zswap_load", "zswap_entry_free"} <= {row["event"] for row in slot}
    handle = next(row["handle"] for row in everything if row["event"] == "zs_malloc_ret")
    assert shown("--handle", handle) == [row for row in everything if row.get("handle") == handle]
    assert shown("--op", "zswap_load", "--op", "marker") == [
        row for row in everything if row["event"] in ("zswap_load", "marker", "counters", "param", "lost_events")]
    assert shown("--from", 10, "--to", 20, "--limit", 5) == everything[10:15]
    middle = everything[len(everything) // 2]["ts"] / 1e9
    assert shown("--time", f"{middle}:") + shown("--time", f":{middle - 1e-9}") != []
    assert len(shown("--time", f"{middle}:")) < len(everything)


def test_show_for_people(capsys: pytest.CaptureFixture[str], samples: dict[str, Path]) -> None:
    _, out, _ = run(capsys, "show", samples["7.3-zstd-64k"], "--op", "zs_malloc_ret", "--limit", 1)
    assert re.fullmatch(r" +\d+ \d+\.\d{6} \[000\] +\d+ zs_malloc_ret handle=0xffff\w+ obj=0x\w+ size=\d+\n", out)


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--op", "zswap_sotre"], "there is no event or operation 'zswap_sotre'"),
    (["--time", "noon"], "'noon' is not A:B in seconds"),
    (["--cpu", "first"], "'first' is not a number"),
])
def test_show_refuses(capsys: pytest.CaptureFixture[str], samples: dict[str, Path], arguments: list[str],
                      sentence: str) -> None:
    status, out, err = run(capsys, "show", samples["7.3-zstd-64k"], *arguments)
    assert (status, out) == (2, "")
    assert sentence in err


def test_cut_and_replay(capsys: pytest.CaptureFixture[str], samples: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "part"
    status, text, _ = run(capsys, "cut", samples["7.3-lz4-4k"], "--from", 1000, "--to", 5000, "-o", out)
    assert status == 0
    assert "events" in text
    assert run(capsys, "replay", out)[0] == 0
    status, _, err = run(capsys, "cut", samples["7.3-lz4-4k"], "--from", 1000, "--to", 5000, "-o", out)
    assert status == 2
    assert "exists already" in err


def test_import_and_replay(capsys: pytest.CaptureFixture[str], captures: Path, tmp_path: Path) -> None:
    out = tmp_path / "rec"
    status, text, err = run(capsys, "import", captures / "7.3-tracecmd", "-o", out)
    assert (status, err) == (0, "")
    assert "136,362 events" in text
    assert "zmeta.txt.zst was not used" in text
    assert run(capsys, "replay", out)[0] == 0


# ---- bad input ----------------------------------------------------------------------------------------------


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 0x10
    path.write_bytes(bytes(data))


DAMAGE = {
    "a flipped bit in events": (lambda p: _flip(p / "events" / "00000.parquet", 5000), "does not match its digest"),
    "a flipped bit in pages": (lambda p: _flip(p / "pages" / "pages.parquet", 50000), "does not match its digest"),
    "a truncated segment": (lambda p: (p / "events" / "00000.parquet").write_bytes(
        (p / "events" / "00000.parquet").read_bytes()[:1000]), "does not match its digest"),
    "a missing segment": (lambda p: (p / "events" / "00000.parquet").unlink(), "is missing from the recording"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "this is not a recording"),
    "half a manifest": (lambda p: (p / "manifest.json").write_text(
        (p / "manifest.json").read_text()[:500]), "is not readable JSON"),
    "another version": (lambda p: (p / "manifest.json").write_text(
        (p / "manifest.json").read_text().replace('"format_version": 1', '"format_version": 9')), "format version 9"),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
@pytest.mark.parametrize("verb", [["replay"], ["info"], ["show"]])
def test_a_damaged_recording_gets_one_sentence(capsys: pytest.CaptureFixture[str], sample: Path, damage: str,
                                               verb: list[str]) -> None:
    harm, sentence = DAMAGE[damage]
    harm(sample)
    status, out, err = run(capsys, *verb, sample)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"zreplay: {sample}")
    assert sentence in err
    assert err.rstrip().endswith(".")
    assert "Traceback" not in err


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["replay"], "no recording was named"),
    (["replay", "nowhere"], "nowhere: does not exist; see how it is spelt, and where you are"),
    (["import", "nowhere", "-o", "out"], "does not exist"),
    (["replay", "SAMPLE", "--revision", "v99"], "there is no revision 'v99'"),
    (["replay", "SAMPLE", "--check", "store.lenght"], "there is no check 'store.lenght'"),
    (["cut", "SAMPLE", "--from", "5", "--to", "2", "-o", "out"], "is not a range"),
])
def test_wrong_use_gets_one_sentence(capsys: pytest.CaptureFixture[str], sample: Path, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *[str(sample) if a == "SAMPLE" else a for a in arguments])
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert sentence in err
    assert not (tmp_path / "out").exists()


def test_no_verb_and_help_lead_somewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys)[0] == 2
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "exit status: 0 PASS, 1 FAIL" in out
    for verb in ("import", "info", "show", "replay", "cut", "dev"):
        assert run(capsys, verb, "--help")[0] == 0


# ---- as a process -------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "import sys; from replay.cli import main; sys.exit(main())"]


def test_a_closed_pipe_is_no_error_and_no_pass(samples: dict[str, Path]) -> None:
    with subprocess.Popen([*COMMAND, "show", str(samples["7.3-zstd-64k"])], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as shown:
        assert shown.stdout is not None
        shown.stdout.readline()
        shown.stdout.close()
        assert shown.stderr is not None
        assert shown.stderr.read() == b""
    assert shown.returncode == 128 + signal.SIGPIPE, "as of a program that SIGPIPE ends"


def test_nothing_but_results_on_a_pipe(samples: dict[str, Path]) -> None:
    done = subprocess.run([*COMMAND, "replay", str(samples["7.3-zstd-64k"])], cwd=ROOT, capture_output=True, check=False,
                          text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\033" not in done.stdout


def test_an_interrupted_import_leaves_nothing(tmp_path: Path) -> None:
    from replay.benchmarks.capture import write_capture
    from replay.tools.synthetic import cycle

    capture = tmp_path / "capture"
    write_capture(capture, cycle(20000), 100)
    # Ctrl-C as soon as a part of the recording is written: from outside it could come too late on a busy machine.
    # Whoever runs the tests in the background has it ignored, and what is ignored is inherited.
    program = ("import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
               "from traces.recording import RecordingWriter as Writer; "
               "write = Writer.write_block; "
               "Writer.write_block = lambda *rows: (write(*rows), os.kill(os.getpid(), signal.SIGINT)); "
               "from replay.cli import main; sys.exit(main())")
    running = subprocess.Popen([sys.executable, "-c", program, "import", str(capture), "-o", str(tmp_path / "out")],
                               cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert err == "zreplay: interrupted; nothing half-written was left behind.\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["capture"]
