# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder on a synthetic machine: what it reads, what it refuses, and that it needs nothing but Python."""

from __future__ import annotations

import argparse
import ast
import fcntl
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from replay.cli import record
from traces.importers.filetype import classify
from traces.importers.runfacts import add_config, add_dmesg
from traces.importers.source import RunFacts
from traces.record import cgroups, command
from traces.record.box import Box
from traces.record.build import build
from traces.record.cgroups import read_settings
from traces.record.command import main, split_command
from traces.record.counters import snapshot
from traces.record.errors import CannotRecord
from traces.record.names import DEFAULT, TracefsNames
from traces.record.plan import Planned, ProbedKernel, page_plan, plan
from traces.record.rings import RingReader
from traces.record.session import Options
from traces.record.tracefs import Instance, Tracefs

SOURCES = sorted((Path(__file__).resolve().parents[1] / "traces" / "record").glob("*.py"))


def tree(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
    return root


def test_snapshot_has_the_keys_of_the_format(tmp_path: Path) -> None:
    huge = "sys/kernel/mm/transparent_hugepage/hugepages-64kB/stats"
    tree(tmp_path, {
        "sys/kernel/debug/zswap/stored_pages": "12\n", "sys/kernel/debug/zswap/pool_total_size": "4096\n",
        "proc/vmstat": "nr_free_pages 5\nzswpout 7\nnr_dirty 9\nzswpwb 0\npgsteal_kswapd 1\nbroken\n",
        "proc/meminfo": "MemTotal:  2048 kB\n", "proc/swaps": "Filename\n",
        "sys/module/zswap/parameters/compressor": "lz4\n", "sys/module/zswap/parameters/enabled": "Y\n",
        "cg/memory.stat": "zswap 4096\n", "cg/memory.zswap.max": "max\n", "cg/cgroup.procs": "",
        f"{huge}/swpout": "3\n", f"{huge}/nr_anon": "4\n",
        "sys/kernel/debug/zsmalloc/zswap1/classes": " class\n",
        "sys/kernel/debug/iaa_crypto/global_stats": "total_comp_calls: 1\n",
    })
    values = snapshot(tmp_path / "cg", tmp_path)
    assert values["zswap_debugfs"] == {"stored_pages": "12", "pool_total_size": "4096"}
    assert values["vmstat"] == {"nr_free_pages": 5, "zswpout": 7, "zswpwb": 0, "pgsteal_kswapd": 1}
    assert values["params"] == {"compressor": "lz4", "enabled": "Y"}
    assert values["memcg"] == {"memory.stat": "zswap 4096\n", "memory.zswap.max": "max\n"}
    assert values["mthp"] == {"64kB": {"swpout": "3"}}
    assert values["zsmalloc_debugfs"] == {"zswap1": " class\n"}
    assert values["iaa_crypto"] == {"global_stats": "total_comp_calls: 1"}
    assert list(values)[:6] == ["t", "zswap_debugfs", "vmstat", "meminfo", "params", "memcg"]
    empty = snapshot(None, tmp_path / "nothing")
    assert (empty["memcg"], empty["vmstat"], "iaa_crypto" in empty) == ({}, {}, False)


def test_settings_of_all_cgroups(tmp_path: Path) -> None:
    """Parents come before their children; the root has no limit, and a cgroup without the controller no file at all."""
    top = "sys/fs/cgroup"
    tree(tmp_path, {
        "proc/self/mounts": "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n",
        "sys/module/zswap/parameters/enabled": "Y\n", "sys/module/zswap/parameters/compressor": "lz4\n",
        f"{top}/memory.zswap.writeback": "1\n", f"{top}/cgroup.procs": "",
        f"{top}/system.slice/memory.zswap.max": "max\n", f"{top}/system.slice/memory.zswap.writeback": "0\n",
        f"{top}/system.slice/memory.zswap.current": "4096\n",
        f"{top}/system.slice/a.service/memory.zswap.max": "0\n", f"{top}/user.slice/cgroup.procs": "",
    })
    said = read_settings(tmp_path)
    assert said["params"] == {"enabled": "Y", "compressor": "lz4"}
    assert said["t"] <= said["t_end"]
    assert [{name: value for name, value in row.items() if name != "id"} for row in said["cgroups"]] == [
        {"path": "/", "memory.zswap.writeback": "1", "root": True},
        {"path": "/system.slice", "memory.zswap.max": "max", "memory.zswap.writeback": "0",
         "memory.zswap.current": "4096"},
        {"path": "/system.slice/a.service", "memory.zswap.max": "0"}, {"path": "/user.slice"}]
    assert [row["id"] for row in said["cgroups"]] == [
        (tmp_path / top / name).stat().st_ino for name in ("", "system.slice", "system.slice/a.service", "user.slice")]
    # In a cgroup namespace what is at the top is not the root.
    (tmp_path / top / "cgroup.type").write_text("domain\n")
    assert "root" not in read_settings(tmp_path)["cgroups"][0]
    assert read_settings(tmp_path / "nothing") | {"t": 0, "t_end": 0} == {"t": 0, "t_end": 0, "params": {}, "cgroups": []}


def test_more_cgroups_than_are_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, {"proc/self/mounts": "none /a\\040b cgroup2 rw 0 0\n",
                    **{f"a b/{name}/memory.zswap.max": "max\n" for name in "cdef"}})
    assert len(read_settings(tmp_path)["cgroups"]) == 5
    monkeypatch.setattr(cgroups, "_MOST", 3)
    said = read_settings(tmp_path)
    assert (len(said["cgroups"]), said["left_out"]) == (3, 2)


def test_kernel_facts(tmp_path: Path) -> None:
    note = struct.pack("<III", 4, 4, 3) + b"GNU\0" + b"\xde\xad\xbe\xef"
    tree(tmp_path, {
        "proc/kallsyms": "ffffffff81000000 T zswap_store\nffffffff81000010 t zs_malloc\t[zsmalloc]\n"
                         "ffffffff82000000 b zswap_list_lru\nffffffff82000008 D page_offset_base\n"
                         "ffffffff82000010 D vmemmap_base\n0000000000000000 b zswap_stored_pages\n",
        "sys/kernel/tracing/available_filter_functions": "zswap_store\nlz4_scompress [lz4]\n",
        "sys/kernel/notes": struct.pack("<III", 4, 2, 1) + b"abc\0" + b"xy\0\0" + note,
        "proc/version": "Linux version 7.2.13 (me@here) #1 SMP\n", "proc/cmdline": "quiet nokaslr secret=5\n",
        f"boot/config-{os.uname().release}": "# Linux/x86 7.2.13 ProbedKernel Configuration\nCONFIG_ZSMALLOC_CHAIN_SIZE=8\n",
        "sys/module/zswap/parameters/compressor": "zstd\n", "proc/meminfo": "MemAvailable:  4096 kB\n",
    })
    # /proc/kcore is an ELF core whose segments are kernel memory.
    segments = [(0, 0, 8), (0xFFFFFFFF82000000, 64 + 2 * 56, 64)]
    head = b"\x7fELF" + bytes(28) + struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", 56, 2) + bytes(6)
    rows = b"".join(struct.pack("<IIQQQQQQ", 1, 0, at, start, 0, size, size, 0) for start, at, size in segments)
    values = struct.pack("<QQQ", 0, 0xFFFF888000000000, 0xFFFFEA0000000000)
    tree(tmp_path, {"proc/kcore": head[:64] + rows + values.ljust(64, b"\0")})
    box = Box(tmp_path)
    kernel = box.kernel()
    assert kernel.functions == {"zswap_store", "zs_malloc"}
    assert kernel.traceable == {"zswap_store", "lz4_scompress"}
    assert kernel.btf is None
    assert "zswap_stored_pages" not in box.addresses
    assert box.bases() == {"page_offset_base": "ffff888000000000", "vmemmap_base": "ffffea0000000000"}
    assert box.build_id() == "deadbeef"
    assert box.compressors() == ["zstd"]
    assert box.memory_kb() == 4096
    assert box.facts()["release"] == os.uname().release
    assert "secret" not in box.version_text()
    # What the recorder writes of them is what an import looks for.
    facts = RunFacts()
    tree(tmp_path, {"version.txt": box.version_text(), "kernel.config": box.config_text()})
    assert [classify(tmp_path / name) for name in ("version.txt", "kernel.config")] == ["dmesg", "config"]
    add_dmesg(facts, tmp_path / "version.txt")
    add_config(facts, tmp_path / "kernel.config")
    assert facts.kernel["release"] == "7.2.13"
    assert facts.kernel["kaslr"] is False
    assert facts.config["chain_size"] == 8


def test_a_bare_machine_has_empty_facts(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert (box.bases(), box.build_id(), box.config_text(), box.compressors(), box.memory_kb()) == ({}, "", "", [], 0)
    with pytest.raises(CannotRecord, match="kallsyms"):
        box.kernel()


def test_machines_that_cannot_be_recorded(tmp_path: Path) -> None:
    with pytest.raises(CannotRecord, match="has no zswap"):
        Box(tmp_path).check()
    (tmp_path / "sys/module/zswap").mkdir(parents=True)
    with pytest.raises(CannotRecord, match="debugfs is not mounted"):
        Box(tmp_path).check()
    tree(tmp_path, {"sys/kernel/debug/zswap/stored_pages": "1"})
    Box(tmp_path).check()


def fake_tracefs(root: Path) -> Path:
    return tree(root, {"dynamic_events": "p:probes/mine do_exit\nf:zreplay/store zswap_store\n",
                       "instances/other/tracing_on": "0"})


def test_tracefs_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(CannotRecord, match="tracefs"):
        Tracefs(tmp_path)
    fake_tracefs(tmp_path)
    held = os.open(tmp_path / "instances", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(CannotRecord, match=rf"another recorder is running \(process {os.getpid()}\)|another recorder"):
        Tracefs(tmp_path)
    os.close(held)
    (tmp_path / "dynamic_events").unlink()
    (tmp_path / "dynamic_events").mkdir()
    with pytest.raises(CannotRecord, match="cannot be written"):
        Tracefs(tmp_path)
    # A refusal holds no lock.
    (tmp_path / "dynamic_events").rmdir()
    fake_tracefs(tmp_path)
    Tracefs(tmp_path).close()


def test_only_the_recorders_own_events_are_touched(tmp_path: Path) -> None:
    tracefs = Tracefs(fake_tracefs(tmp_path))
    assert tracefs.leftovers() == ["event zreplay/store"]
    assert tracefs.definitions() == "f:zreplay/store zswap_store\n"
    used, refused = tracefs.define([Planned("load", "zswap_load", "zswap_load", ("f:zreplay/load zswap_load",), "", ())])
    assert used == {"load": "f:zreplay/load zswap_load"}
    assert refused == {}
    assert (tmp_path / "dynamic_events").read_text().endswith("\nf:zreplay/load zswap_load\n")
    assert tracefs.missed() == {}
    tree(tmp_path, {"kprobe_profile": "  store     10     2\n  load  5 0\n"})
    assert tracefs.missed() == {"store": 2, "load": 0}
    # Existing events go with --clean; a path that cannot be made has other reasons.
    with pytest.raises(CannotRecord, match=r"cannot be set up \(No such file or directory\); see whether tracefs is"):
        Instance(tracefs, "zreplay", 64)
    with pytest.raises(CannotRecord, match=r"cannot be set up \(File exists\); run 'zreplay record --clean'"):
        Instance(tracefs, "zreplay", 64)
    tracefs.close()
    (tmp_path / "instances" / "b").mkdir()
    with pytest.raises(CannotRecord, match="'zreplay record --instance b --clean'"):
        Instance(Tracefs(tmp_path, TracefsNames.of("b")), "b", 64)


def test_the_default_name_is_what_recorders_were_always_called() -> None:
    assert TracefsNames.of() == TracefsNames.of(DEFAULT) == ("zreplay", "zreplay", "zreplay_pages", ("zreplay", "zreplay-pages"))
    assert TracefsNames.of().clean == "zreplay record --clean"
    assert TracefsNames.of("bcc") == ("bcc", "bcc", "bcc_pages", ("bcc", "bcc-pages"))
    assert TracefsNames.of("bcc").clean == "zreplay record --instance bcc --clean"


@pytest.mark.parametrize("name", ["", "A", "9a", "a-b", "a/b", "..", "a" * 21, "a\n", "zreplay_pages", "kprobes", "probe"])
def test_names_that_are_none(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", "x", "--instance", name]) == 2
    err = capsys.readouterr().err
    assert err.startswith("zreplay: ")
    assert ("choose another name" if name in ("zreplay_pages", "kprobes", "probe") else "use a small letter") in err


def test_recorders_of_different_names_run_side_by_side(tmp_path: Path) -> None:
    root = fake_tracefs(tmp_path)
    held = [Tracefs(root, TracefsNames.of(name)) for name in ("zreplay", "zreplay2", "b")]
    for name, why in (("zreplay", "another recorder is running"), ("zreplay2", "another recorder called 'zreplay2'"),
                      ("b", "another recorder called 'b'")):
        with pytest.raises(CannotRecord, match=why):
            Tracefs(root, TracefsNames.of(name))
    # Definitions open and close the file that the lock is on.
    held[2].define([Planned("load", "zswap_load", "zswap_load", ("p:b/load zswap_load",), "", ())])
    with pytest.raises(CannotRecord, match="another recorder called 'b'"):
        Tracefs(root, TracefsNames.of("b"))
    held[2].close()
    Tracefs(root, TracefsNames.of("b")).close()
    with pytest.raises(CannotRecord, match="another recorder called 'zreplay2'"):
        Tracefs(root, TracefsNames.of("zreplay2"))
    for tracefs in held:
        tracefs.close()


def test_a_name_is_free_when_its_recorder_was_killed(tmp_path: Path) -> None:
    root = fake_tracefs(tmp_path)
    for name in ("zreplay", "b"):
        take = f"from traces.record.tracefs import *; from traces.record.names import TracefsNames; from pathlib import Path; " \
               f"t = Tracefs(Path({str(root)!r}), TracefsNames.of({name!r})); print('taken', flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", take], cwd=SOURCES[0].parents[2], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "taken\n"
            with pytest.raises(CannotRecord, match="another recorder"):
                Tracefs(root, TracefsNames.of(name))
            child.kill()
            child.wait()
            Tracefs(root, TracefsNames.of(name)).close()


def test_one_recorder_sees_and_removes_nothing_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = {"zreplay": "f:zreplay/store zswap_store", "zreplay_pages": "p:zreplay_pages/pg0_0 lz4_scompress",
              "b": "r256:b/store_ret zswap_store", "b_pages": "p:b_pages/pg0_0 lz4_scompress",
              "bb": "p:bb/store zswap_store", "mine": "p:mine/b zswap_store"}
    left = {"zreplay": ["instance zreplay", "instance zreplay-pages", "event zreplay/store", "event zreplay_pages/pg0_0"],
            "b": ["instance b", "event b/store_ret", "event b_pages/pg0_0"], "c": []}
    for name, expected in left.items():
        root = tree(tmp_path / name, {"dynamic_events": "".join(line + "\n" for line in events.values())})
        for instance in ("zreplay", "zreplay-pages", "b", "bb"):
            (root / "instances" / instance).mkdir(parents=True)
        tracefs = Tracefs(root, TracefsNames.of(name))
        assert tracefs.leftovers() == expected
        assert tracefs.definitions() == (events[name] + "\n" if name in events else "")
        monkeypatch.setattr("traces.record.tracefs._PATIENCE", 0.0)
        tracefs.remove()
        tracefs.close()
        own = {item.split()[1] for item in expected if item.startswith("instance")}
        assert {path.name for path in (root / "instances").iterdir()} == {"zreplay", "zreplay-pages", "b", "bb"} - own
        asked = (root / "dynamic_events").read_text().splitlines()[len(events):]
        groups = {name, f"{name}_pages"} & set(events)
        assert {line.split("/")[0] for line in asked} == {f"-:{group}" for group in groups}


def test_clean_is_about_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = fake_tracefs(tmp_path)
    (root / "instances" / "b").mkdir()
    monkeypatch.setattr(command, "Tracefs", lambda names: Tracefs(root, names))
    running = Tracefs(root, TracefsNames.of())
    assert main(["--clean", "--instance", "c"]) == 0
    assert main(["--clean", "--instance", "b"]) == 0
    assert capsys.readouterr().out == "nothing was left behind\nremoved 1 leftovers\n"
    assert main(["--clean"]) == 2
    assert "another recorder is running" in capsys.readouterr().err
    running.close()


def test_plans_are_of_the_group_they_are_asked_for() -> None:
    functions = {"zswap_store", "zs_malloc", "lz4_scompress"}
    for names in (TracefsNames.of(), TracefsNames.of("b")):
        kernel = ProbedKernel(functions, functions, None)
        lines = [line for row in plan(kernel, group=names.group) for line in row.lines]
        pages = [line for row in page_plan(kernel, ["lz4"], names.page_group)[0] for line in row.lines]
        assert lines
        assert all(line.split()[0].split(":")[1].startswith(f"{names.group}/") for line in lines)
        assert {line.split()[0].split(":")[1].split("/")[0] for line in pages} == {names.page_group}


def test_misses_are_those_of_the_own_probes(tmp_path: Path) -> None:
    files = {"kprobe_profile": "  store     10     2\n  load  5 0\n  store 10 7\n",
             "kprobe_events": "p:zreplay/store zswap_store\np:b/load zswap_load\nr256:b/store zswap_store\n"}
    root = tree(fake_tracefs(tmp_path), files)
    for name, missed in (("zreplay", {"store": 2}), ("b", {"load": 0, "store": 7}), ("c", {})):
        tracefs = Tracefs(root, TracefsNames.of(name))
        assert tracefs.missed() == missed
        tracefs.close()
    # The two files do not match: another process made a probe between the readings.
    tree(root, {"kprobe_events": files["kprobe_events"] + "p:mine/x do_exit\n"})
    tracefs = Tracefs(root)
    assert tracefs.missed() == {"store": 7, "load": 0}
    tracefs.close()


def test_losses_per_cpu(tmp_path: Path) -> None:
    tracefs = Tracefs(fake_tracefs(tmp_path))
    stats = "entries: 0\noverrun: 4\ncommit overrun: 1\nbytes: 0\noldest event ts: 1.0\ndropped events: 2\nread events: 9\n"
    tree(tmp_path, {"instances/zreplay/per_cpu/cpu0/stats": stats, "instances/zreplay/per_cpu/cpu10/x": ""})
    instance = Instance.__new__(Instance)
    instance.path, instance._cpus, instance._all = tmp_path / "instances" / "zreplay", None, []
    assert [number for number, _ in instance.cpus()] == [0, 10]
    unknown = dict.fromkeys(("overrun", "commit_overrun", "dropped"), "unknown")
    assert instance.losses() == {"0": {"overrun": 4, "commit_overrun": 1, "dropped": 2}, "10": unknown}
    assert instance.taken() == {"0": {"read": 9, "entries": 0}}
    tracefs.close()


def test_a_round_reads_whole_subbuffers(tmp_path: Path) -> None:
    cpus = []
    for number in (0, 1):
        tree(tmp_path, {f"cpu{number}/trace_pipe_raw": bytes([number]) * 4096 * (3 + number)})
        cpus.append((number, tmp_path / f"cpu{number}"))
    taken: list[tuple[int, int]] = []
    reader = RingReader(cpus, 4096, 1 << 20, lambda cpu, data: taken.append((cpu, len(data))))
    assert reader.round() == 7 * 4096
    assert taken == [(0, 3 * 4096), (1, 4 * 4096)]
    assert reader.round() == 0
    reader.close()


def test_modules_need_the_standard_library_of_python_3_9_only() -> None:
    # Pythons before 3.10 do not list the names; this test runs on later ones.
    # traces.events goes along with the recorder.
    for path in (*SOURCES, SOURCES[0].parents[1] / "events.py"):
        module = ast.parse(path.read_text(), feature_version=(3, 9))
        assert "from __future__ import annotations" in path.read_text() or path.name == "__init__.py"
        for node in ast.walk(module):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            # A back end imports its own needs where it uses them, and says in a sentence what is missing.
            assert all(name == "traces.events" or name.split(".")[0] in sys.stdlib_module_names | {"bcc"} for name in names), \
                (path, names)


def run_alone(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python without site packages and without this project on its path."""
    return subprocess.run([sys.executable, "-S", "-I", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_the_single_file_runs_alone(tmp_path: Path) -> None:
    app = build(tmp_path / "zreplay-record.pyz")
    shown = run_alone(app, "--help")
    assert shown.returncode == 0
    assert "snapshot LABEL" in shown.stdout
    assert run_alone(app, "--version").stdout.startswith("zreplay-record ")
    with zipfile.ZipFile(app) as archive:
        assert all("numpy" not in archive.read(name).decode() for name in archive.namelist())
    # From a checkout it is a directory to run.
    assert run_alone(SOURCES[0].parent, "--version").returncode == 0


@pytest.mark.parametrize(("words", "why"), [
    (["-o", "x", "--pages", "some"], "use none, hash, sample:N or full"),
    ([], "give one with -o DIR"),
    (["record", "-o", "x", "--duration", "3", "--", "true"], "give one of them"),
])
def test_wrong_use_is_one_sentence(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("zreplay: ")
    assert why in lines[0]


@pytest.mark.parametrize("words", [["--duration", "-1"], ["--buffer-kb", "1"], ["--snapshot-every", "x"]])
def test_numbers_out_of_range(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-o", "x", *words])
    assert ended.value.code == 2
    assert "is not a" in capsys.readouterr().err


def test_the_command_comes_after_two_dashes() -> None:
    assert split_command(["-o", "d", "--", "sh", "-c", "a -- b"]) == (["-o", "d"], ["sh", "-c", "a -- b"])
    assert split_command(["--plan"]) == (["--plan"], [])


def test_a_recording_is_made_of_the_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = {"losses": {"cpus": {}, "pages": {}, "probes": {}}, "command_status": 3}
    made: list[Path] = []

    class Quiet:
        def __init__(self, path: Path, options: Options, box: Box) -> None:
            assert options.command == ("true",)
            made.append(path)

        def run(self) -> dict[str, Any]:
            made[-1].mkdir()
            return status

    monkeypatch.setattr(command, "Session", Quiet)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    for keep in (False, True):
        output = tmp_path / f"r{keep}"
        arguments = parser.parse_args(["-o", str(output)])
        assert command.record(arguments, ["true"], lambda capture, recording: recording.mkdir(), keep) == 0
        assert output.is_dir()
        assert made[-1] == tmp_path / f"r{keep}.raw"
        assert made[-1].exists() is keep
        # What exists is not overwritten, and nothing is recorded in vain.
        with pytest.raises(CannotRecord, match="exists already"):
            command.record(arguments, ["true"], lambda capture, recording: None)
    assert len(made) == 2


def test_the_verb_takes_a_command() -> None:
    parser = argparse.ArgumentParser()
    record.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["record", "-o", "r", "--pages", "none", "--", "sh", "-c", "exit --now"])
    assert arguments.command == ["sh", "-c", "exit --now"]
    assert (arguments.output, arguments.pages, arguments.keep_raw) == ("r", "none", False)
