# SPDX-License-Identifier: GPL-2.0-or-later
"""What the doctor says of boxes that are none: each lack, its one command, and that nothing is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from replay.cli import main
from replay.cli.doctor import _command
from replay.tools import doctor
from replay.tools.doctor import Capability, Host, abilities, disk

#: A box that can be recorded, as its files show.
GOOD = {
    "proc/mounts": "nodev /sys/kernel/tracing tracefs rw 0 0\nnodev /sys/kernel/debug debugfs rw 0 0\n",
    "proc/filesystems": "nodev\ttracefs\nnodev\tdebugfs\n\text4\n",
    "proc/swaps": "Filename Type Size Used Priority\n/dev/vda partition 4194300 0 -2\n",
    "proc/cpuinfo": "flags\t\t: fpu vmx\n",
    "proc/kallsyms": "0000000000000000 T zswap_store\n0000000000000000 T zswap_load\n0000000000000000 t zs_malloc\n",
    "sys/module/zswap/parameters/enabled": "Y\n", "sys/module/zswap/parameters/compressor": "lz4\n",
    "sys/module/zswap/parameters/max_pool_percent": "20\n",
    "sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
    "sys/kernel/tracing/dynamic_events": "", "sys/kernel/tracing/kprobe_events": "",
    "sys/kernel/tracing/README": "\t           f[:[<group>/][<event>]] <func-name>[%return] [<args>]\n",
    "sys/kernel/tracing/available_filter_functions": "zswap_store\nzs_malloc\n",
    "sys/kernel/debug/zswap/stored_pages": "0\n", "dev/kvm": "",
}
PROGRAMS = {"qemu-system-x86_64": "QEMU emulator version 7.2.22 (Debian)\n", "busybox": "",
            "trace-cmd": "\ntrace-cmd version 3.1.6 (x)\n", "apt-get": "", "dpkg-deb": "", "gpgv": ""}


def host(root: Path, without: Sequence[str] = (), changed: dict[str, str] | None = None, euid: int = 0,
         programs: dict[str, str] | None = None) -> Host:
    """Return a box with these files; ``without`` names files and directories that it lacks."""
    for name, text in {**GOOD, **(changed or {})}.items():
        if not name.startswith(tuple(without) or "\0"):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    have = PROGRAMS if programs is None else programs
    return Host(root, euid, lambda name: f"/usr/bin/{name}" if name in have else None,
                lambda words: have[Path(words[0]).name])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressors are tried in tests of their own: all of them take Numba a minute."""
    real = doctor._compressors
    monkeypatch.setattr(doctor, "_compressors", lambda progress, names=None: real(progress, names or ["zstd"]))


def of(box: Host, name: str) -> Capability:
    (found,) = [check for check in doctor.examine(box) if check.id == name]
    return found


def test_a_box_that_has_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_locations", lambda name: [])
    checks = doctor.examine(host(tmp_path))
    states = {check.id: check.state for check in checks}
    assert {name for name, state in states.items() if state != "yes"} <= {"bcc", "btf", "extras", "kvm"}
    able = abilities(checks)
    assert able["record"] == ("yes", [])
    assert able["record-bcc"] == ("no", ["bcc"])
    assert able["lab"] == ("yes", [])
    # That a guest runs is not seen by looking.
    assert able["lab-fast"] == ("unknown", ["kvm"])
    assert len(states) == len(checks)
    assert {need for ability in doctor.ABILITIES.values() for need in ability.needs} <= set(states)


@pytest.mark.parametrize(("name", "without", "changed", "euid", "found", "command"), [
    ("zswap", ["sys/module"], {}, 0, "no zswap", ""),
    ("zswap", [], {"sys/module/zswap/parameters/enabled": "N\n"}, 1000, "switched off",
     "sudo sh -c 'echo Y > /sys/module/zswap/parameters/enabled'"),
    ("swap", [], {"proc/swaps": "Filename Type Size Used Priority\n"}, 0, "no swap area", "sh -c 'fallocate"),
    ("lockdown", [], {"sys/kernel/security/lockdown": "none integrity [confidentiality]"}, 0, "refuses probes", ""),
    ("tracefs", ["sys/kernel/tracing"], {"proc/mounts": ""}, 1000, "not mounted",
     "sudo mount -t tracefs nodev /sys/kernel/tracing"),
    ("tracefs", ["sys/kernel/tracing"], {"proc/mounts": "", "proc/filesystems": "nodev\tproc\n"}, 0, "has no tracefs", ""),
    ("debugfs", ["sys/kernel/debug"], {"proc/mounts": ""}, 0, "not mounted", "mount -t debugfs nodev /sys/kernel/debug"),
    ("btf", [], {}, 0, "none", ""),
    ("probes", ["proc/kallsyms"], {}, 0, "/proc/kallsyms cannot be read", ""),
    ("kvm", ["dev/kvm"], {}, 0, "no /dev/kvm", "modprobe kvm_intel"),
    ("kvm", ["dev/kvm"], {"proc/cpuinfo": "flags : fpu svm\n"}, 1000, "no /dev/kvm", "sudo modprobe kvm_amd"),
    ("kvm", ["dev/kvm"], {"proc/cpuinfo": "flags : fpu\n"}, 0, "no virtualisation", ""),
])
def test_a_lack_has_its_command(tmp_path: Path, name: str, without: list[str], changed: dict[str, str], euid: int,
                                found: str, command: str) -> None:
    check = of(host(tmp_path, without, changed, euid), name)
    assert check.state == "no"
    assert found in check.found
    assert check.command.startswith(command)
    assert bool(check.command) == bool(command)
    # Where no command mends it, it is said why, or what would.
    assert check.command or check.why or name == "probes"
    assert "\n" not in check.command


def test_debugfs_is_there_before_zswap_was_switched_on(tmp_path: Path) -> None:
    # As 7.0.13 boots: debugfs has no directory of zswap yet.
    box = host(tmp_path, ["sys/kernel/debug/zswap"], {"sys/kernel/debug/gpio": ""})
    assert of(box, "debugfs").state == "yes"


def test_what_only_root_may_see_is_not_told(tmp_path: Path) -> None:
    box = host(tmp_path, ["sys/kernel/tracing", "sys/kernel/debug"], euid=1000)
    assert of(box, "tracefs").state == "unknown"
    assert of(box, "probes").state == "unknown"
    root = of(box, "root")
    assert root.state == "no"
    assert root.command.startswith("sudo ")
    assert abilities(doctor.examine(box))["record"][0] == "no"


def test_probes_are_counted_by_what_the_kernel_offers(tmp_path: Path) -> None:
    both = of(host(tmp_path / "a"), "probes")
    # zswap_store and zs_malloc, entry and return, are in reach of ftrace; zswap_load is not.
    assert both.facts["by_fprobe"] > 0
    assert both.facts["available"] > both.facts["by_fprobe"]
    assert both.facts["traceable_symbols"] == 2
    assert "checks lost: " in both.why
    kprobes = of(host(tmp_path / "b", changed={"sys/kernel/tracing/README": ""}), "probes")
    assert (kprobes.facts["by_fprobe"], kprobes.facts["available"]) == (0, both.facts["available"])
    fprobes = of(host(tmp_path / "c", ["sys/kernel/tracing/kprobe_events"]), "probes")
    assert fprobes.facts["available"] == both.facts["by_fprobe"]
    neither = of(host(tmp_path / "d", ["sys/kernel/tracing/kprobe_events", "sys/kernel/tracing/available"],
                      {"sys/kernel/tracing/README": ""}), "probes")
    assert neither.state == "no"
    assert "No such file or directory" in neither.found


@pytest.mark.parametrize(("manager", "command"), [("apt-get", "sudo apt install python3-bpfcc"),
                                                  ("dnf", "sudo dnf install python3-bcc")])
def test_packages_have_the_distribution_s_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: str,
                                                command: str) -> None:
    monkeypatch.setattr(doctor, "_locations", lambda name: [])
    box = host(tmp_path, euid=1000, programs={manager: ""})
    assert of(box, "bcc").command == command
    for name in ("trace-cmd", "qemu", "busybox"):
        assert (of(box, name).state, of(box, name).command.split()[1]) == ("no", command.split()[1])


def test_the_bcc_of_pypi_is_told_from_the_bpf_compiler_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = host(tmp_path / "root")
    site = tmp_path / "site" / "bcc"
    site.mkdir(parents=True)
    # What runs when it is imported must not run.
    (site / "__init__.py").write_text("raise SystemExit('imported')\n")
    (site / "bcc.py").write_text("")
    monkeypatch.syspath_prepend(str(site.parent))
    wrong = of(box, "bcc")
    assert wrong.state == "no"
    assert "not the BPF Compiler Collection" in wrong.found
    assert wrong.command == f"{sys.executable} -m pip uninstall bcc"
    (site / "libbcc.py").write_text("")
    (site / "__init__.py").write_text("class BPF:\n    pass\n")
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    right = of(box, "bcc")
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    assert (right.state, right.facts["path"]) == ("yes", str(site))
    # One that is there and does not load is none.
    (site / "__init__.py").write_text("import nothing_of_that_name\n")
    broken = of(box, "bcc")
    assert broken.state == "no"
    assert "nothing_of_that_name" in broken.found


def test_the_bcc_of_the_system_s_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_locations", lambda name: [])
    box = host(tmp_path, changed={"usr/lib/python3/dist-packages/bcc/libbcc.py": ""})
    check = of(box, "bcc")
    assert check.state == "no"
    assert "installed for the system's Python" in check.found
    assert "include-system-site-packages" in check.command or "system's Python" in check.why


def test_a_compressor_that_is_not_exact_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model.crypto import knownanswers as known

    assert of(host(tmp_path), "compressors").state == "yes"
    monkeypatch.setitem(known.ANSWERS, "zstd-new", {**known.ANSWERS["zstd-new"], "text": (1188, "0" * 16)})
    check = of(host(tmp_path), "compressors")
    assert check.state == "no"
    assert "not exact: zstd" in check.found
    assert "'text'" in check.why
    assert "pip install" in check.command
    assert "zstandard" in check.command
    rows = check.facts["compressors"]
    assert [row["problems"] == [] for row in rows] == [True, False]
    assert [line for row in rows for line in row["lines"]] == ["mainline-6.12", "mainline-6.18", "mainline-7.0",
                                                               "mainline-7.2", "mainline-7.3"]


def test_requirements_are_those_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {doctor._split(line)[0] for extra, line in doctor.requirements() if not extra}
    assert {"numpy", "pyarrow", "numba", "zstandard"} <= names
    assert {extra for extra, _ in doctor.requirements()} >= {"", "bench", "cluster"}
    assert doctor._split("backports.zstd>=1.8,<2; python_version < '3.2'") == ("backports.zstd", "backports.zstd>=1.8,<2",
                                                                              False)
    assert doctor._missing(["numpy>=2", "no-such-package>=1,<2"])[1] == ["no-such-package>=1,<2"]


def test_an_extra_of_which_a_part_is_missing_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = [("", "numpy>=2"), ("one", "numpy>=2"), ("two", "numpy>=2"), ("two", "no-such-package>=1,<2"), ("dev", "nor-this")]
    monkeypatch.setattr(doctor, "requirements", lambda: stated)
    check = of(host(tmp_path), "extras")
    assert (check.state, check.found) == ("no", "one: yes, two: no")
    assert check.command == f"{sys.executable} -m pip install 'no-such-package>=1,<2'"
    monkeypatch.setattr(doctor, "requirements", lambda: stated[:2])
    check = of(host(tmp_path), "extras")
    assert (check.state, check.found, check.command) == ("yes", "one: yes", "")


def test_disk_grows_with_time_and_cpus(tmp_path: Path) -> None:
    one, more = disk(10, 1, tmp_path), disk(30, 2, tmp_path)
    for mode, need in one["needs"].items():
        assert more["needs"][mode] == pytest.approx(6 * need, rel=1e-6)
        assert need > 0
    assert one["needs"]["none"] < one["needs"]["hash"] < one["needs"]["full"]
    assert not any(disk(1e8, 4096, tmp_path)["enough"].values())


def test_the_page_states_the_assumed_rates() -> None:
    page = (Path(__file__).parents[1] / "docs" / "verbs" / "doctor.md").read_text()
    assert f"{doctor.EVENTS_PER_SECOND:,} events a second and CPU" in page
    captures, recordings = zip(*doctor.BYTES_PER_EVENT.values(), strict=True)
    assert ", ".join(map(str, captures)) + " bytes per event of the capture" in page
    assert ", ".join(map(str, recordings)) + " bytes per event of the recording" in page


def test_the_command_says_it_and_changes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    box = host(tmp_path / "root", ["sys/kernel/debug"], {"proc/mounts": ""}, euid=1000)
    monkeypatch.setattr(doctor, "Host", lambda: box)
    monkeypatch.chdir(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, (line for line in out.splitlines() if not line.startswith("    ")))) <= 80
    assert "    sudo mount -t debugfs nodev /sys/kernel/debug\n" in out
    assert f"({doctor.EVENTS_PER_SECOND:,} a second" in " ".join(out.split())
    assert main(["doctor", "--json", "--for", "3600"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["can"]["record"]["state"] == "no"
    assert {check["id"]: check["state"] for check in found["checks"]}["debugfs"] == "no"
    assert found["disk"]["seconds"] == 3600
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*")
                      if path.is_file()}
    with pytest.raises(SystemExit) as refused:
        main(["doctor", "--for", "nan"])
    assert refused.value.code == 2


@pytest.mark.parametrize("columns", ["40", "80", "300"])
@pytest.mark.parametrize("command", [
    "printf '%s|' 'one two three' 'four five six seven' 'eight nine ten' 'eleven twelve thirteen' 'fourteen fifteen'",
    "printf '%s|' a 'b c' 'distributed>=2025.1,<2028' 'lz4>=4.4,<5' 'isal>=1.7,<2' 'deflate>=0.8,<1' lzallright",
    "sh -c 'printf %s one && printf %s two && printf %s three && printf %s four && printf %s five && echo six' nobody"])
def test_a_command_in_lines_is_the_same_command(monkeypatch: pytest.MonkeyPatch, columns: str, command: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = list(_command(command))
    assert max(map(len, lines)) <= int(columns)
    assert (len(lines) > 1) == (columns != "300")

    def printed(text: str) -> str:
        return subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout

    assert printed("\n".join(lines)) == printed(command) != ""
