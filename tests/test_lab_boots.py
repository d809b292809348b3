# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab with QEMU and real kernels: ``make lab-test``."""

from __future__ import annotations

import json
import os
import shutil
from argparse import ArgumentParser
from pathlib import Path

import pytest

from replay import replay
from replay.cli import dev, info
from replay.cli import lab as verb
from replay.cli.labcommon import Shelf
from replay.verdict.engineagreement import difference
from traces import open_recording
from traces.importers.capturesums import check_sums
from traces.lab.apt import cache_directory, find_mirror
from traces.lab.cpio import CpioWriter
from traces.lab.errors import GuestDied, LabError
from traces.lab.kernels import cached
from traces.lab.qemu import Machine, boot
from traces.lab.run import GuestJob, run_task
from traces.workload.sequence import Sequence


@pytest.fixture
def needs_qemu() -> None:
    for program in ("qemu-system-x86_64", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt install qemu-system-x86 busybox-static)")
    cache = cache_directory()
    if not all(cached(cache, kernel) for kernel in _KERNELS):
        try:
            find_mirror(None, cache, lambda text: None)
        except LabError as problem:
            pytest.skip(f"no kernel can be fetched here: {problem}")


def _lab(*words: str) -> int:
    parser = ArgumentParser()
    verbs = parser.add_subparsers()
    verb.add_parser(verbs)
    dev.add_parser(verbs)
    arguments = parser.parse_args(["dev" if words[0] == "kills" else "lab", *words])
    return int(arguments.run(arguments))


#: Kernels to boot, and with what; ZREPLAY_LAB_KERNELS="6.12 7.3" names others, as CI has time for one.
_KERNELS = os.environ.get("ZREPLAY_LAB_KERNELS", "7.2").split()


@pytest.mark.lab
@pytest.mark.parametrize("kernel", _KERNELS)
@pytest.mark.usefixtures("needs_qemu")
def test_a_recorded_kernel_passes(kernel: str, tmp_path: Path) -> None:
    out = tmp_path / "r.zr"
    assert _lab("run", "--kernel", kernel, "--compressor", "zstd", "--folio", "64k", "-o", str(out)) == 0
    result = replay(open_recording(out))
    assert result.verdict == "PASS", result.reasons
    assert not list(tmp_path.glob("r.zr.partial"))


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_a_recorder_that_comes_to_its_end_seals_its_capture(tmp_path: Path) -> None:
    kernel = Shelf(None, lambda text: None).get(_KERNELS[0], None)
    job = GuestJob(kernel, "lz4", ("base", "--pages", "64"), ("--pages", "full"))
    with run_task(job, "record", {}, tmp_path / "t", lambda text: None) as ran:
        names = set(json.loads((ran.capture / "sums.json").read_text())["files"])
        written = {str(path.relative_to(ran.capture)) for path in ran.capture.rglob("*") if path.is_file()}
        # The lab puts the kernel's configuration next to it.
        assert written - names - {"sums.json", "kernel.config"} == set()
        assert check_sums(ran.capture) == []


@pytest.mark.lab
@pytest.mark.parametrize("kernel", _KERNELS)
@pytest.mark.usefixtures("needs_qemu")
def test_a_guest_of_two_nodes_passes_by_both_engines(kernel: str, tmp_path: Path) -> None:
    out = tmp_path / "r.zr"
    assert _lab("run", "--kernel", kernel, "--compressor", "lz4", "--numa", "2", "--smp", "2", "--memory", "512M",
                "--workload", "limits --pages 64", "-o", str(out)) == 0
    recording = open_recording(out)
    assert recording.manifest["capture"]["box"]["numa"]["has_memory"] == "0-1"
    events = recording.frame(["event", "nid"])
    # The kernel chooses an entry's node: in most runs entries are on both.
    assert set(events[events.event == "list_lru_add"].nid) <= {0, 1}
    assert (events.event == "shrink_memcg_cb").sum() > 100
    results = [replay(recording, engine=engine, keep_going=True) for engine in ("reference", "fast")]
    assert results[0].verdict == "PASS", results[0].divergences
    assert difference(*results) == ""


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_a_guest_that_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.zr"
    assert _lab("run", "--kernel", _KERNELS[0], "--timeout", "15", "--accel", "tcg", "-o", str(out)) == 5
    assert "was not done after 15 s" in capsys.readouterr().err
    assert (tmp_path / "r.zr.partial" / "console.txt").is_file()


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_a_real_panic(tmp_path: Path) -> None:
    kernel = Shelf(None, lambda text: None).get(_KERNELS[0], None)
    (tmp_path / "i").write_bytes(CpioWriter().finish())
    for name in ("swap", "result"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    machine = Machine(kernel.image, tmp_path / "i", tmp_path / "swap", tmp_path / "result", 512, 1, "tcg")
    with pytest.raises(GuestDied, match="panicked") as death:
        boot(machine, tmp_path / "console", 60, lambda text: None, lambda: None)
    assert "Kernel panic" in death.value.console


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_a_compressor_that_the_kernel_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _lab("run", "--kernel", _KERNELS[0], "--compressor", "nosuch", "-o", str(tmp_path / "r.zr")) == 5
    assert "no compressor 'nosuch'" in capsys.readouterr().err


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_the_other_back_end_passes_too(tmp_path: Path) -> None:
    out = tmp_path / "r.zr"
    assert _lab("run", "--kernel", _KERNELS[0], "--backend", "bcc", "--memory", "2G", "-o", str(out)) == 0
    recording = open_recording(out)
    assert recording.manifest["capture"]["backend"] == "bcc"
    result = replay(recording)
    assert result.verdict == "PASS", result.reasons


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_what_commands_show_on_a_terminal(tmp_path: Path) -> None:
    kernel = Shelf(None, lambda text: None).get(_KERNELS[0], None)
    options = {"before": [["mount", "-t", "devpts", "devpts", "/dev/pts"]], "columns": 70, "directory": "/",
               "environment": {"WHO": "me"}, "commands": [
                   ["sh", "-c", "test -t 1 && echo $WHO; exit 3"], ["/bin/busybox", "stty", "size"]]}
    with run_task(GuestJob(kernel, "lz4", ()), "terminals", options, tmp_path / "t", lambda text: None) as ran:
        assert ran.result["statuses"] == [3, 0]
        assert [(ran.capture / name).read_bytes() for name in ("0", "1")] == [b"me\r\n", b"24 70\r\n"]


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_recorders_are_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _lab("kills", "--kernel", _KERNELS[0], "--count", "3", "-o", str(tmp_path / "kills")) == 0
    assert ": 3 kills within" in capsys.readouterr().out
    assert len(list((tmp_path / "kills").glob("k*.zr"))) == 3


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_a_sequence_is_carried_out(tmp_path: Path) -> None:
    sequence = Sequence([
        {"do": "map", "region": "a", "pages": 512, "mix": "mixed", "folio": "64k"}, {"do": "out", "region": "a"},
        {"do": "compressor", "name": "zstd"}, {"do": "read", "region": "a", "step": 3}, {"do": "out", "region": "a"},
        {"do": "zswap-room", "pages": 10}, {"do": "churn", "region": "a", "mix": "solid", "rounds": 3},
        {"do": "zswap-max", "pages": "max"}, {"do": "swapoff"}, {"do": "out", "region": "a", "last": 256, "chunk": 16},
        {"do": "pressure", "region": "b", "pages": 512, "mix": "text", "quarters": 3}, {"do": "drop", "what": 2}],
        {"compressor": "lz4", "workers": 2, "params": {"shrinker_enabled": "Y"}})
    (tmp_path / "s.json").write_text(sequence.text())
    assert _lab("run", "--kernel", _KERNELS[0], "--workload", f"script --script {tmp_path}/s.json",
                "-o", str(tmp_path / "r.zr")) == 0
    recording = open_recording(tmp_path / "r.zr")
    assert recording.manifest["config"]["compressor"] == "lz4"
    result = replay(recording)
    assert result.verdict == "PASS", result.reasons
    # The whole of region a came back with swapoff.
    texts = recording.texts()
    assert {"phase s1-2", "phase s9-10", "phase s11-11", "phase final"} <= texts


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_one_sequence_of_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _lab("fuzz", "--kernel", _KERNELS[0], "--seed", "1", "--only", "4", "-o", str(tmp_path / "f")) == 0
    assert "seed 1 number 4" in capsys.readouterr().out


@pytest.mark.lab
@pytest.mark.parametrize("kernel", _KERNELS)
@pytest.mark.usefixtures("needs_qemu")
def test_a_command_of_ones_own(kernel: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.sh").write_text("cat /proc/self/cgroup; cat /sys/fs/cgroup/rec/memory.max\n"
                                     "ls /sys/kernel/debug/zswap /dev/pts >/dev/null && getent passwd nobody root | cut -d: -f1\n"
                                     # Pages that compress: what zswap holds is charged to the cgroup too.
                                     'sqlite3 :memory: "CREATE TABLE t AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT '
                                     "x+1 FROM c WHERE x<60000) SELECT printf('%0190d', x*x) y FROM c; "
                                     "SELECT count(*) FROM t WHERE y LIKE '0%'\"; exit 3\n")
    (tmp_path / "run.sh").chmod(0o755)
    out = tmp_path / "r.zr"
    assert _lab("run", "--kernel", kernel, "--compressor", "lz4", "--package", "sqlite3", "--cgroup", "memory.max=8M",
                "--file", str(tmp_path / "run.sh"), "-o", str(out), "--", "sh", "./run.sh") == 1
    recording = open_recording(out)
    command = recording.document("command")
    assert command is not None
    assert command["stdout"].splitlines() == ["0::/rec", "8388608", "nobody", "root", "60000"]
    assert "failed with status 3" in capsys.readouterr().err
    events = recording.frame(["event", "content"])
    calls = events[events.event == "crypto_acomp_compress"]
    assert len(calls) > 500
    assert (calls.content >= 0).mean() > 0.9
    result = replay(recording)
    assert result.verdict == "PASS", (result.reasons, result.divergences)


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_systemd_in_the_guest(tmp_path: Path) -> None:
    out = tmp_path / "r.zr"
    assert _lab("run", "--kernel", _KERNELS[0], "--compressor", "lz4", "--systemd", "-o", str(out), "--", "systemd-run",
                "--wait", "--pipe", "-p", "MemoryMax=24M", "-p", "MemoryZSwapMax=0", "sh", "-c",
                "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.zswap.max; head -c 30000000 /dev/zero | "
                "tail -c 29000000 | wc -c") == 0
    command = open_recording(out).document("command")
    assert command is not None
    assert command["stdout"].splitlines() == ["0", "29000000"]


@pytest.mark.lab
@pytest.mark.usefixtures("needs_qemu")
def test_emulated_iaa_is_driven_by_the_kernel_s_own_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In sync mode, with verification: each page that zswap stores compressed was two jobs, each load one."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc, which compiles the plugin that plays MOVDIR64B")
    out = tmp_path / "r.zr"
    # On 7.1.13 and 7.2.13 iaa_crypto was seen to refuse an object that lies in two pages; 7.0 reads objects so too.
    kernel = next((name for name in _KERNELS if not name.startswith(("7.0", "7.1", "7.2"))), "7.3")
    assert _lab("run", "--kernel", kernel, "--iaa", "devices=2,wqs=2,engines=4,depth=64,mode=sync,verify=1",
                "--workload", "base --pages 128", "--smp", "2", "--pages", "full", "-o", str(out)) == 0
    recording = open_recording(out)
    result = replay(recording)
    assert (result.verdict, result.reasons) == ("PASS", [])
    compared = {check.id: check.compared for check in result.checks}
    assert min(compared[name] for name in ("store.length", "iaa.queue", "iaa.submit", "iaa.completion")) > 100
    jobs, facts = recording.table("iaa_jobs"), recording.document("iaa")
    assert jobs is not None
    assert facts is not None
    assert set(zip(jobs.device, jobs.queue, strict=True)) == {(0, 0), (0, 1), (1, 0), (1, 1)}, "two CPUs, four queues"
    events = recording.frame(["event", "ret", "size", "dlen"])
    stored = events[(events.event == "crypto_acomp_compress_ret") & (events.ret == 0)].dlen
    packed = jobs[(jobs.op == "compress") & (jobs.status == 1) & (jobs["in"] == 4096)].out
    assert len(stored) > 100
    assert sorted(packed) == sorted(stored), "lengths that zswap stored are those that the devices made"
    assert info_line(out, capsys).startswith("2 emulated devices, each with depth=64, engines=4, mode=sync")
    assert not list(tmp_path.glob("r.zr.partial"))


def info_line(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what zreplay info says of a recording's devices."""
    parser = ArgumentParser()
    info.add_parser(parser.add_subparsers())
    capsys.readouterr()
    arguments = parser.parse_args(["info", str(path)])
    assert arguments.run(arguments) == 0
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("IAA ")).split(maxsplit=1)[1]
