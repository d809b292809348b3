# SPDX-License-Identifier: GPL-2.0-or-later
"""Emulated IAA in the lab, without QEMU: command lines, messages, the server's life, the guest's set-up, the recording."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
from test_record_capture import make

from replay.cli import info, labiaa
from replay.cli import lab as verb
from replay.cli.labcommon import Shelf, job_of, modules_of
from traces import open_recording
from traces.errors import BadInput
from traces.importers import import_source
from traces.importers.iaafiles import FACTS, JOBS, read_iaa
from traces.lab import devices, guestiaa
from traces.lab.cpio import members
from traces.lab.devices import GuestIaa, RunningIaa, running
from traces.lab.emulator import Emulator
from traces.lab.errors import GuestDied, LabError
from traces.lab.iaa.options import IaaOptions
from traces.lab.initramfs import build
from traces.lab.kernels import BootKernel
from traces.lab.qemu import Machine, boot
from traces.lab.run import GuestJob, run_task

OPTIONS = "devices=2,wqs=2,engines=4,depth=64,mode=async_irq,verify=0"


def quiet(text: str) -> None:
    pass


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for sockets, short and the test's own; what it is left with is looked at."""
    short = Path(tempfile.mkdtemp(prefix="zr"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield short
    shutil.rmtree(short)


#: A server that makes its sockets and listens until it is ended; how it behaves is in BEHAVIOUR.
SERVER = """
import os, signal, socket, sys, time
words = sys.argv[1:]
def given(name): return [words[k + 1] for k, word in enumerate(words) if word == name]
behaviour = os.environ["BEHAVIOUR"]
log = open(given("--log")[0], "w")
print(os.getpid(), file=open(os.environ["PID"], "w"))
print("\\n".join(words), file=open(os.environ["PID"] + ".words", "w"))
if behaviour == "refuses":
    sys.exit("/x/iaa0.sock is in use; end what listens on it.")
sockets = [socket.socket(socket.AF_UNIX) for path in given("--socket")]
for one, path in zip(sockets, given("--socket")):
    one.bind(path)
    one.listen(1)
if behaviour == "hangs":
    time.sleep(60)
print("listening", flush=True)
log.write('{"format": "zreplay-iaa-jobs-1", "version": 1}\\n{"device": 0, "op": "compress", "out": 70}\\n{"device": 1, "op": "noop"}\\n')
log.flush()
if behaviour == "dies":
    time.sleep(0.5)
    sys.exit("Traceback (most recent call last):\\nIndexError: a queue too many")
if behaviour == "ends":
    time.sleep(0.5)
    sys.exit(0)
time.sleep(60)
"""


@pytest.fixture
def server(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the server's process id."""
    (tmp_path / "server.py").write_text(SERVER)
    monkeypatch.setattr(devices, "_SERVER", (sys.executable, str(tmp_path / "server.py")))
    monkeypatch.setenv("PID", str(tmp_path / "pid"))
    monkeypatch.setenv("BEHAVIOUR", "listens")
    return tmp_path / "pid"


def iaa_of(tmp_path: Path, qemu: str = "exit 0", plugin: bool = True, **more: Any) -> GuestIaa:
    made = program(tmp_path / "qemu", f"#!/bin/sh\ncase $* in *--version*) echo QEMU 11.1.9; exit;; esac\n{qemu}\n")
    return GuestIaa(IaaOptions.parse(OPTIONS), Emulator(made, (str(made),)), tmp_path / "a,b.so" if plugin else None,
                    **more)


def machine_of(tmp_path: Path, **more: Any) -> Machine:
    return Machine(tmp_path / "k", tmp_path / "i", tmp_path / "swap", tmp_path / "result", 512, 2, "tcg", **more)


def is_gone(pid: Path) -> bool:
    try:
        os.kill(int(pid.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


# The machine and the server


def test_the_command_line(server: Path, place: Path, tmp_path: Path) -> None:
    with running(iaa_of(tmp_path, faults="rule", contents=True)) as devices_of:
        words = machine_of(tmp_path, attached=devices_of.attached).command()
        asked = Path(f"{server}.words").read_text().split("\n")
        sockets = [word for before, word in itertools.pairwise(asked) if before == "--socket"]
        assert (Path(asked[asked.index("--faults") + 1])).read_text() == "rule"
    assert "--contents" in asked
    assert words[:2] == ["nice", str(tmp_path / "qemu")]
    pairs = list(itertools.pairwise(words))
    assert ("-cpu", "max,la57=off,+movdir64b,x-force-features=on") in pairs
    assert ("-M", "q35,memory-backend=ram") in pairs
    assert ("-object", "memory-backend-memfd,id=ram,size=512M,share=on") in pairs
    found = [json.loads(word) for before, word in pairs if before == "-device"]
    assert [row["driver"] for row in found] == ["vfio-user-pci"] * 2
    assert [row["socket"] for row in found] == [{"type": "unix", "path": path} for path in sockets]
    assert len(set(sockets)) == 2
    portal = asked[asked.index("--portal") + 1]
    assert ("-plugin", f"{tmp_path}/a,,b.so,socket={portal}") in pairs
    assert asked[asked.index("--options") + 1] == IaaOptions.parse(OPTIONS).text()


def test_nodes_share_their_memory_too(server: Path, tmp_path: Path) -> None:
    with running(iaa_of(tmp_path)) as devices_of:
        words = machine_of(tmp_path, nodes=2, attached=devices_of.attached).command()
    assert [word for before, word in itertools.pairwise(words) if before == "-object"] == [
        "memory-backend-memfd,id=node0,size=256M,share=on", "memory-backend-memfd,id=node1,size=256M,share=on"]
    assert "q35" in words


def test_without_a_plugin_the_guest_s_module_plays_the_instruction(server: Path, tmp_path: Path) -> None:
    iaa = iaa_of(tmp_path, plugin=False)
    assert iaa.modules == ("movdir64b_emu", "idxd_bus", "idxd", "iaa_crypto")
    assert iaa_of(tmp_path).modules == ("idxd_bus", "idxd", "iaa_crypto")
    with running(iaa) as devices_of:
        assert "-plugin" not in devices_of.attached.words
        assert "--contents" not in Path(f"{server}.words").read_text()
        assert "--portal" not in Path(f"{server}.words").read_text()


def test_a_server_ends_with_its_guest(server: Path, place: Path, tmp_path: Path) -> None:
    with running(iaa_of(tmp_path)) as devices_of:
        assert not is_gone(server)
        devices_of.check(tmp_path / "console")
        (tmp_path / "capture").mkdir()
        devices_of.kill()
        devices_of.keep(tmp_path / "capture")
    assert is_gone(server)
    assert list(place.iterdir()) == []
    facts = json.loads((tmp_path / "capture" / FACTS).read_text())
    log = (tmp_path / "capture" / JOBS).read_bytes()
    assert facts["jobs"] == {"file": JOBS, "bytes": len(log), "lines": 3, "sha256": hashlib.sha256(log).hexdigest()}
    assert facts["options"] == dataclasses.asdict(IaaOptions.parse(OPTIONS))
    assert (facts["qemu"], facts["movdir64b"], facts["faults_sha256"]) == ("QEMU 11.1.9", "plugin", None)


def test_a_server_that_does_not_start(server: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEHAVIOUR", "refuses")
    with pytest.raises(LabError, match=r"did not start \(/x/iaa0\.sock is in use; end what listens on it\); run the command again"), \
            running(iaa_of(tmp_path)):
        pytest.fail("it does not listen")
    assert list(place.iterdir()) == []
    monkeypatch.setenv("BEHAVIOUR", "hangs")
    monkeypatch.setattr(devices, "_PATIENCE", 0.5)
    with pytest.raises(LabError, match="was not ready after 0 s; try again when the box is less busy"), \
            running(iaa_of(tmp_path)):
        pytest.fail("it does not listen")
    assert is_gone(server)
    assert list(place.iterdir()) == []


def test_sockets_have_short_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = tmp_path / ("x" * 80)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    with pytest.raises(LabError, match="has too long a name for a socket's address; set TMPDIR to a shorter one"), \
            running(iaa_of(tmp_path)):
        pytest.fail("it cannot listen")
    assert list(far.iterdir()) == []


@pytest.mark.parametrize(("behaviour", "what"), [
    ("dies", r"ended with status 1 \(IndexError: a queue too many\); the guest was stopped"),
    ("ends", r"ended with status 0 \(it gave no reason\); the guest was stopped")])
def test_a_guest_does_not_outlive_its_server(server: Path, place: Path, tmp_path: Path, behaviour: str, what: str,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEHAVIOUR", behaviour)
    monkeypatch.setattr("traces.lab.run.build", lambda *parts, **more: b"")
    job = GuestJob(BootKernel("x", tmp_path / "k", None, None, ""), "deflate-iaa", ("base",), accel="auto", timeout=30,
                   iaa=iaa_of(tmp_path, f"echo $$ > {tmp_path}/qemu.pid; exec sleep 60"))
    with pytest.raises(GuestDied, match=what) as death, run_task(job, "record", {}, tmp_path / "r.zr", quiet):
        pytest.fail("the guest died")
    assert is_gone(server)
    assert is_gone(tmp_path / "qemu.pid")
    assert list(place.iterdir()) == []
    assert "see" in death.value.kept or "what reached the host" in death.value.kept
    assert (tmp_path / "r.zr.partial/capture" / JOBS).is_file(), "the job log says what it was doing"


def test_neither_outlives_the_lab(server: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.lab.run.build", lambda *parts, **more: b"")

    def end(self: RunningIaa, console: Path) -> None:
        if (tmp_path / "qemu.pid").exists() and (tmp_path / "qemu.pid").read_text():
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunningIaa, "check", end)
    job = GuestJob(BootKernel("x", tmp_path / "k", None, None, ""), "deflate-iaa", ("base",), timeout=30,
                   iaa=iaa_of(tmp_path, f"echo $$ > {tmp_path}/qemu.pid; exec sleep 60"))
    with pytest.raises(KeyboardInterrupt), run_task(job, "record", {}, tmp_path / "r.zr", quiet):
        pytest.fail("it was ended")
    assert is_gone(server)
    assert is_gone(tmp_path / "qemu.pid")
    assert list(place.iterdir()) == []
    assert not list(tmp_path.glob("r.zr*"))


def test_a_server_may_end_a_moment_before_its_guest(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEHAVIOUR", "ends")
    with running(iaa_of(tmp_path, "sleep 1.2; echo zreplay-lab: done")) as devices_of:
        said: list[str] = []
        boot(machine_of(tmp_path, attached=devices_of.attached), tmp_path / "console", 20, said.append,
             lambda: devices_of.check(tmp_path / "console"))
        began = time.monotonic()
        devices_of.end()
        assert time.monotonic() - began < 5
    assert said == ["done"]


def test_a_qemu_that_refuses_its_devices(server: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.lab.run.build", lambda *parts, **more: b"")
    job = GuestJob(BootKernel("x", tmp_path / "k", None, None, ""), "deflate-iaa", ("base",), timeout=30,
                   iaa=iaa_of(tmp_path, "echo 'qemu: vfio-user-pci is not a valid device model name'; exit 1"))
    with pytest.raises(GuestDied, match="QEMU ended with status 1") as death, \
            run_task(job, "record", {}, tmp_path / "r.zr", quiet):
        pytest.fail("QEMU does not start")
    assert "not a valid device model name" in death.value.console
    assert is_gone(server)
    assert list(place.iterdir()) == []


# The guest


def bus_of(tmp_path: Path, count: int = 2, queues: int = 8, state: str = "enabled") -> Path:
    """The bus as idxd shows it, made of plain files: what is written to one replaces its beginning."""
    bus = tmp_path / "dsa"
    for name in ("idxd", "crypto"):
        (bus / "drivers" / name).mkdir(parents=True)
        (bus / "drivers" / name / "bind").write_text("")
    for name in ("verify_compress", "sync_mode"):
        (bus / "drivers/crypto" / name).write_text("")
    for device in range(count):
        place = bus / f"devices/iax{device}"
        for queue in range(queues):
            (place / f"wq{device}.{queue}").mkdir(parents=True)
            for name in ("group_id", "mode", "size", "priority", "type", "name", "driver_name", "state"):
                (place / f"wq{device}.{queue}" / name).write_text(state if name == "state" else "")
            (place / f"engine{device}.{queue}").mkdir()
            (place / f"engine{device}.{queue}/group_id").write_text("")
        (place / "state").write_text(state)
        (place / "cmd_status").write_text("0x10")
    return bus


def test_the_guest_sets_its_devices_up(tmp_path: Path) -> None:
    bus = bus_of(tmp_path)
    guestiaa.set_up_iaa(iaa_of(tmp_path).job(), bus)
    for device in (0, 1):
        place = bus / f"devices/iax{device}"
        assert [(place / f"engine{device}.{k}/group_id").read_text() for k in range(8)] == ["0"] * 4 + ["-1"] * 4
        for queue in (0, 1):
            found = {path.name: path.read_text() for path in (place / f"wq{device}.{queue}").iterdir()}
            assert found == {"group_id": "0", "mode": "dedicated", "size": "32", "priority": "10", "type": "kernel",
                             "name": f"iaa_crypto{queue}", "driver_name": "crypto", "state": "enabled"}
        assert (place / f"wq{device}.2/size").read_text() == ""
    assert (bus / "drivers/crypto/verify_compress").read_text() == "0"
    assert (bus / "drivers/crypto/sync_mode").read_text() == "async_irq"
    assert (bus / "drivers/idxd/bind").read_text() == "iax1"
    assert (bus / "drivers/crypto/bind").read_text() == "wq1.1"


def test_what_the_driver_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = iaa_of(tmp_path).job()
    monkeypatch.setattr(guestiaa, "_MESSAGES", str(tmp_path / "none"))
    with pytest.raises(OSError, match="idxd found 1 of 2 IAA devices"):
        guestiaa.set_up_iaa(job, bus_of(tmp_path / "one", 1))
    with pytest.raises(OSError, match=r"iax0 cannot be enabled \(disabled, command status 0x10\)"):
        guestiaa.set_up_iaa(job, bus_of(tmp_path / "off", state="disabled"))
    bus = bus_of(tmp_path / "few", queues=1)
    with pytest.raises(OSError, match=r"wq0.1/group_id cannot be set \(No such file or directory\)"):
        guestiaa.set_up_iaa(job, bus)
    (bus / "drivers/crypto/sync_mode").unlink()
    with pytest.raises(OSError, match="crypto/sync_mode cannot be set"):
        guestiaa.set_up_iaa(job, bus)
    shutil.rmtree(bus / "drivers/crypto")
    with pytest.raises(OSError, match="the crypto driver iaa_crypto is not there"):
        guestiaa.set_up_iaa(job, bus)


def test_queues_are_taken_away_and_given_back_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capfd: pytest.CaptureFixture[str]) -> None:
    job = iaa_of(tmp_path).job()
    assert guestiaa.rebinding_command(job, ["true"]) == ["true"]
    command = guestiaa.rebinding_command({**job, "rebind": 20_000_000}, ["sh", "-c", "read line; exit 7"])
    assert command[-5:-3] == ["traces.lab.guestiaa", "0.02"]
    bus, written = bus_of(tmp_path, 1, 2), []
    for queue in ("wq0.0", "wq0.1"):
        (bus / "drivers/crypto" / queue).symlink_to(bus / "devices/iax0" / queue)
    end, ends = os.pipe()

    def write(path: Path, value: object) -> None:
        written.append((path.name, str(value)))
        if len(written) == 20:
            os.close(ends)
        if (path.name, value) == ("unbind", "wq0.1"):
            raise OSError(0, "unbind does not take it")

    monkeypatch.setattr(guestiaa, "_write", write)
    stdin = os.dup(0)
    os.dup2(end, 0)
    try:
        status = guestiaa.main(["0.002", "sh", "-c", "read line; exit 7"], bus)
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
        os.close(end)
    assert status == 7
    assert [one for one in written if one[0] in ("bind", "unbind")][:4] == [
        ("unbind", "wq0.0"), ("bind", "wq0.0"), ("unbind", "wq0.1"), ("bind", "wq0.1")]
    # idxd has forgotten these; size and group it keeps, and takes no others while its device is enabled.
    assert written[1:6] == [("mode", "dedicated"), ("priority", "10"), ("type", "kernel"), ("name", "iaa_crypto0"),
                            ("driver_name", "crypto")]
    assert capfd.readouterr().out.startswith("wq0.1: unbind does not take it\n")


def test_the_kernel_s_own_words_come_along(tmp_path: Path) -> None:
    messages = tmp_path / "kmsg"
    messages.write_text("6,1,0,-;Linux version\n3,2,0,-;idxd 0000:00:04.0: Device reset failed\n6,3,0,-;other\n")
    assert guestiaa._kernel_says(str(messages)) == "; the kernel said: idxd 0000:00:04.0: Device reset failed"
    assert guestiaa._kernel_says(str(tmp_path / "none")) == ""


def modules_in(tmp_path: Path, *names: str) -> BootKernel:
    for name in names:
        (tmp_path / "modules").mkdir(exist_ok=True)
        depends = {"idxd": b"idxd_bus", "iaa_crypto": b"idxd,idxd_bus"}.get(name, b"")
        (tmp_path / f"modules/{name}.ko").write_bytes(b"\0vermagic=9.9 SMP\0depends=" + depends + b"\0")
    return BootKernel("9.9", tmp_path / "k", tmp_path / "modules", None, "")


def test_modules_go_into_the_guest(tmp_path: Path) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed (apt install busybox-static)")
    kernel = modules_in(tmp_path, "deflate", "iaa_crypto", "idxd", "idxd_bus")
    found = {member.name: member.data for member in members(build(kernel, (), iaa_of(tmp_path).modules))}
    assert [name for name in found if name.startswith("modules/")] == [
        "modules/00-deflate.ko", "modules/01-idxd_bus.ko", "modules/01-idxd_bus.after", "modules/02-idxd.ko",
        "modules/03-iaa_crypto.ko"]
    assert found["modules/01-idxd_bus.after"] == b"echo 0 > /sys/bus/dsa/drivers_autoprobe\n"
    assert b'[ -e "${module%.ko}.after" ] && . "${module%.ko}.after"' in found["init"]
    assert "zreplay/traces/lab/guestiaa.py" in found
    without = {member.name for member in members(build(kernel))}
    assert not any("idxd" in name or name.endswith(".after") for name in without)
    (tmp_path / "modules/iaa_crypto.ko").unlink()
    with pytest.raises(LabError, match=r"9\.9 comes without a module iaa_crypto, which the emulated IAA needs; take a"):
        build(kernel, (), iaa_of(tmp_path).modules)


# Options


def parsed(*words: str) -> Namespace:
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    return parser.parse_args(["lab", "run", "--kernel", "7.3", "-o", "x.zr", *words])


@pytest.mark.parametrize(("words", "sentence"), [
    (("--iaa", "devices=0"), "devices=0 is not a number from 1 to"), (("--iaa", "depth=129"), "depth=129 is not a number"),
    (("--iaa", "wqs=x"), "wqs=x is not a number"), (("--iaa", "mode=fast"), "mode 'fast' does not exist; write sync,"),
    (("--iaa", "queues=1"), "'queues' is not an option; write some of devices, wqs")])
def test_options_out_of_range(words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parsed(*words)
    assert left.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("words", "sentence"), [
    (("--iaa", "", "--accel", "kvm"), "--iaa needs --accel tcg: KVM does not carry out MOVDIR64B"),
    (("--iaa", "", "--module", "fake_iaa fail_nth=3"), "--iaa and the module fake_iaa both are deflate-iaa"),
    (("--qemu", "x"), "--qemu says nothing without --iaa; give both"), (("--iaa-faults", "plan"), "--iaa-faults says nothing without --iaa"),
    (("--iaa", "", "--iaa-faults", "nosuch"), "nosuch: cannot be read (No such file or directory); name a fault plan"),
    (("--iaa", "", "--iaa-faults", "plan"), "plan, line 2: 'operatoin' is not")])
def test_options_that_do_not_fit(words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan").write_text("# two\noperatoin=compress: lost\n")
    monkeypatch.setattr(Shelf, "get", lambda *_: modules_in(tmp_path, "idxd"))
    arguments = parsed(*words)
    assert arguments.run(arguments) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1, "one sentence"


def test_the_compressor_follows() -> None:
    for words, compressor in (((), "zstd"), (("--iaa",), "deflate-iaa"), (("--compressor", "lz4"), "lz4"),
                              (("--iaa", "version=2", "--compressor", "deflate-iaa-dynamic"), "deflate-iaa-dynamic")):
        arguments = parsed(*words)
        labiaa.check(arguments)
        assert arguments.compressor == compressor
    built = BootKernel("x", Path("k"), None, None, "", {"release": "x"})
    assert modules_of(parsed("--iaa"), built, "deflate-iaa") == (), "fake_iaa is deflate-iaa too"
    assert modules_of(parsed(), built, "deflate-iaa") == ("fake_iaa",)


def test_a_sequence_runs_with_the_devices(tmp_path: Path) -> None:
    """It brings no compressor of its own, or there are no devices."""
    script, kernel = tmp_path / "sequence.json", modules_in(tmp_path)
    for start, words, compressor in (({}, ("--iaa",), "deflate-iaa"), ({"compressor": "lz4"}, (), "lz4"), ({}, (), "zstd"),
                                     ({"compressor": "lz4"}, ("--iaa",), None)):
        script.write_text(json.dumps({"format": 1, "name": "x", "start": start, "operations": [
            {"do": "map", "region": "a", "pages": 8, "mix": "text"}]}))
        arguments = parsed(*words, "--workload", f"script --script {script}")
        labiaa.check(arguments)
        if compressor is None:
            with pytest.raises(LabError, match="starts with lz4, and --iaa with deflate-iaa; leave the sequence's compressor out"):
                job_of(arguments, kernel, arguments.compressor, "4k", None)
        else:
            job = job_of(arguments, kernel, arguments.compressor, "4k", None)
            assert job.compressor == compressor
            # The guest would write a sequence's default otherwise.
            assert ("--compressor" in job.workload) == bool(words)


def test_what_a_box_lacks_is_said_before_anything_boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(None, quiet)
    kernel = modules_in(tmp_path, "idxd")
    old = program(tmp_path / "old", "#!/bin/sh\ncase $* in *--version*) echo QEMU 7.2;; *) exit 1;; esac\n")
    monkeypatch.setattr(labiaa, "plugin", lambda cache, say: None)
    with pytest.raises(LabError, match=r"QEMU 7\.2 has no device vfio-user-pci"):
        labiaa.guest_iaa(parsed("--iaa", OPTIONS, "--qemu", str(old)), kernel, shelf)
    new = program(tmp_path / "new", "#!/bin/sh\ncase $* in *check=on*) echo too old >&2; exit 1;; *) echo options;; esac\n")
    arguments = parsed("--iaa", OPTIONS, "--qemu", str(new))
    with pytest.raises(LabError, match=r"MOVDIR64B needs a compiler, to make QEMU's plugin, or the module movdir64b_emu in "
                                       r"the guest, which 9\.9 does not have; apt install gcc"):
        labiaa.guest_iaa(arguments, kernel, shelf)
    made = labiaa.guest_iaa(arguments, modules_in(tmp_path, "movdir64b_emu"), shelf)
    assert made == GuestIaa(IaaOptions.parse(OPTIONS), Emulator(new, (str(new),)), None)
    monkeypatch.setattr(labiaa, "plugin", lambda cache, say: tmp_path / "x.so")
    with pytest.raises(LabError, match=r"options does not take the plugin for MOVDIR64B \(too old\)"):
        labiaa.guest_iaa(arguments, kernel, shelf)
    assert labiaa.guest_iaa(parsed(), kernel, shelf) is None


# The recording


@pytest.fixture
def capture(server: Path, tmp_path: Path) -> Path:
    """A capture with what the lab put there."""
    made = tmp_path / "c"
    make(made, pages="full")
    with running(iaa_of(tmp_path, faults="# a comment\noperation=compress nth=3: lost\n")) as devices_of:
        devices_of.kill()
        devices_of.keep(made)
    return made


def test_jobs_are_part_of_the_recording(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = import_source(capture, tmp_path / "r.zr")
    assert not any("iaa" in note for note in summary["notes"])
    recording = open_recording(tmp_path / "r.zr")
    assert {"iaa.json", "iaa_jobs.parquet"} <= set(recording.manifest["files"]), "with their digests"
    facts = recording.document("iaa")
    assert facts is not None
    assert facts["faults"] == "# a comment\noperation=compress nth=3: lost\n"
    assert facts["logs"] == [{"format": "zreplay-iaa-jobs-1", "version": 1}]
    jobs = recording.table("iaa_jobs")
    assert jobs is not None
    assert jobs.to_dict("list") == {"device": [0, 1], "op": ["compress", "noop"], "out": [70, 0]}
    parser = ArgumentParser()
    info.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["info", str(tmp_path / "r.zr")])
    assert arguments.run(arguments) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("IAA "))
    assert line.split(maxsplit=1)[1] == (
        "2 emulated devices, each with depth=64, engines=4, mode=async_irq, per_kib=0, rebind=0, service=0, verify=0, version=1, "
        "wqs=2; 2 jobs; a plan of 1 fault; MOVDIR64B by plugin; QEMU 11.1.9")


@pytest.mark.parametrize(("name", "content", "sentence"), [
    (JOBS, b'{"device": 0}\n', f"{JOBS}: is not what the lab wrote: its digest is not that of {FACTS}"),
    (JOBS, None, f"{JOBS}: cannot be read"), (FACTS, b"{", f"{FACTS}: holds no facts of emulated devices"),
    (FACTS, None, f"{FACTS}: cannot be read"), (FACTS, b"[]", f"{FACTS}: holds no facts")])
def test_files_that_are_not_what_the_lab_wrote(capture: Path, tmp_path: Path, name: str, content: bytes | None,
                                               sentence: str) -> None:
    if content is None:
        (capture / name).unlink()
    else:
        (capture / name).write_bytes(content)
    with pytest.raises(BadInput, match=sentence):
        import_source(capture, tmp_path / "r.zr")
    assert not (tmp_path / "r.zr").exists()


@pytest.mark.parametrize("line", [b"x", b"[]", b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", b"\xff"])
def test_lines_that_are_no_jobs(capture: Path, tmp_path: Path, line: bytes) -> None:
    data = b'{"op": "noop"}\n' + line + b"\n"
    (capture / JOBS).write_bytes(data)
    facts = json.loads((capture / FACTS).read_text())
    facts["jobs"]["sha256"] = hashlib.sha256(data).hexdigest()
    (capture / FACTS).write_text(json.dumps(facts))
    with pytest.raises(BadInput, match=f"{JOBS}, line 2: is not a JSON object"):
        import_source(capture, tmp_path / "r.zr")


def facts_of(log: bytes) -> dict[str, Any]:
    options = {"devices": 1, "wqs": 1, "engines": 8, "depth": 128, "version": 1, "mode": "sync", "verify": 0}
    return {"zreplay_iaa": 1, "options": options, "jobs": {"sha256": hashlib.sha256(log).hexdigest()}}


def test_a_job_log_has_no_more_columns_than_jobs_have_keys(tmp_path: Path) -> None:
    # Each would be as long as the log.
    data = "".join(json.dumps({f"k{n}": 1}) + "\n" for n in range(100)).encode()
    (tmp_path / JOBS).write_bytes(data)
    (tmp_path / FACTS).write_text(json.dumps(facts_of(data)))
    with pytest.raises(BadInput, match="line 65: has keys that no job has: there are more than 64"):
        read_iaa(tmp_path)


def test_columns_of_a_job_log_hold_values_of_one_kind(tmp_path: Path) -> None:
    lines = [{"n": 1, "big": 1 << 63, "some": 2.5}, {"format": "x"}, {"n": 2, "some": 1, "note": "late"}, {"n": -1, "list": [1]}]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (tmp_path / JOBS).write_bytes(data)
    (tmp_path / FACTS).write_text(json.dumps(facts_of(data)))
    found = read_iaa(tmp_path)
    assert found is not None
    facts, jobs = found
    assert facts["logs"] == [{"format": "x"}]
    assert jobs.to_dict("list") == {"n": [1, 2, -1], "big": [float(1 << 63), 0.0, 0.0], "some": [2.5, 1.0, 0.0],
                                    "note": ["", "late", ""], "list": ["", "", "[1]"]}
    (tmp_path / JOBS).unlink()
    (tmp_path / FACTS).unlink()
    assert read_iaa(tmp_path) is None
