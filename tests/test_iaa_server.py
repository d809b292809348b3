# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated IAA's process: sockets, portal, several devices, how it begins and ends."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from conftest import ROOT
from iaabench import logged

from replay.benchmarks.iaaclient import AECS_AT, BASE, IaaClient, ServerProcess
from traces.lab.iaa import registers as reg
from traces.lab.iaa.coder import compress
from traces.lab.iaa.descriptors import Flag, Opcode, Status
from traces.lab.iaa.registers import Command
from traces.lab.iaa.server import main

PAGE = (b"A page that zswap stores. " * 200)[:4096]


def page(client: IaaClient, queue: int = 0, **more: int) -> int:
    """Compress and decompress a page; returns the compressed size."""
    client.put(0x10000, PAGE)
    client.put(0x30000, bytes(4096))
    record = client.job(Opcode.COMPRESS, 0x10000, 4096, 0x20000, 4096, queue, **more)
    size: int = struct.unpack_from("<I", record, 0x18)[0]
    assert record[:2] == b"\1\0"
    assert client.get(0x20000, size) == compress(PAGE, 4096)
    back = client.job(Opcode.DECOMPRESS, 0x20000, size, 0x30000, 4096, queue, **more)
    assert back[:2] == b"\1\0"
    assert struct.unpack_from("<I", back, 0x20)[0] == zlib.crc32(PAGE)
    assert client.get(0x30000, 4096) == PAGE
    return size


@pytest.mark.parametrize("portal", [True, False])
def test_from_the_first_message_to_the_last(tmp_path: Path, portal: bool) -> None:
    with ServerProcess(tmp_path, "--log", str(tmp_path / "jobs"), "--options", "wqs=2", portal=portal) as server:
        assert server.first == "listening"
        client = IaaClient(server.sockets[0], server.portal)
        client.hello()
        client.set_up((64, 64))
        for count in range(1, 4):
            page(client, count % 2, flags=Flag.RCI, int_handle=1 + count % 2)
        assert [client.interrupts(vector) for vector in range(4)] == [0, 2, 4, 0]
        # A drain, then a queue off and on again.
        assert client.command(Command.DRAIN_WQ, 1) == 0
        assert client.command(Command.RESET_WQ, 1) == 0
        client.submit(client.descriptor(Opcode.NOOP, 0, 0, 0, 0, 0x2000))
        assert client.word(reg.SWERR) & 1
        # A reset of the whole, as at a guest's reboot: everything anew.
        client.reset()
        client.unmap()
        assert client.word(reg.GENSTATS) == 0
        client.hello()
        client.set_up((128,))
        page(client)
        client.close()
        said = server.end()
    assert server.process.returncode == 0
    assert said.startswith("8 descriptors, ")
    assert not any(path.exists() for path in server.sockets)
    lines = logged(tmp_path / "jobs")
    assert (lines[0]["format"], lines[0]["rules"], lines[0]["options"].split(",")[1]) == ("zreplay-iaa-jobs-1", 0, "wqs=2")
    assert [(one["queue"], one["op"]) for one in lines[1:]] == [(queue, op) for queue in (1, 0, 1, 0) for op in ("compress", "decompress")]
    assert all(one["submitted"] <= one["ended"] for one in lines[1:])


def test_two_devices_behind_one_portal(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    plan.write_text("device=1 operation=compress nth=2: status=watchdog\n")
    with ServerProcess(tmp_path, "--options", "devices=2", "--faults", str(plan), devices=2, portal=True) as server:
        clients = [IaaClient(path, server.portal) for path in server.sockets]
        for number, client in enumerate(clients):
            client.hello()
            # BAR 2 of each is elsewhere, which is how a descriptor finds its device.
            client.portals = 0xFE000000 + 0x100000 * number
            client.write(7, 0x18, struct.pack("<Q", client.portals))
            client.set_up()
        for client in clients:
            page(client)
        assert [client.job(Opcode.COMPRESS, 0x10000, 4096, 0x20000, 4096)[0] for client in clients] == [Status.SUCCESS, Status.WATCHDOG]
        # What is not a descriptor, or not to a device, is left alone.
        stray = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for message in (b"", b"x" * 71, b"x" * 73, bytes(72), struct.pack("<Q", 0xFE000000 + 0x20000) + bytes(64)):
            stray.sendto(message, str(server.portal))
        stray.close()
        clients[0].close()
        page(clients[1])
        clients[1].close()
        assert "8 descriptors, 5 elsewhere, " in server.end()
    assert server.process.returncode == 0


def test_batches_overlap_in_simulated_time(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--options", "service=200ms", "--log", str(tmp_path / "jobs"), portal=True) as server:
        client = IaaClient(server.sockets[0], server.portal)
        client.hello()
        client.set_up()
        client.put(0x10000, PAGE)
        records = [0x2000 + 64 * k for k in range(8)]
        for record in records:
            client.put(record, bytes(64))
            client.submit(client.descriptor(Opcode.COMPRESS, 0x10000, 4096, 0x20000 + 64 * record, 4096, record))
        for record in records:
            client.wait(record)
        client.close()
        server.end()
    lines = logged(tmp_path / "jobs")[1:]
    # Eight engines: none of them waited for another.
    assert sorted(one["engine"] for one in lines) == list(range(8))
    assert {one["ended"] - one["submitted"] for one in lines} == {200_000_000}
    assert [one["in_flight"] for one in sorted(lines, key=lambda one: one["n"])] == list(range(8))


def test_a_client_that_says_nonsense_ends_alone(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--options", "devices=2", devices=2) as server:
        good = IaaClient(server.sockets[0])
        good.hello()
        good.set_up()
        bad = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bad.connect(str(server.sockets[1]))
        bad.sendall(b"\xff" * 100)
        assert bad.recv(100) == b""
        bad.close()
        page(good)
        # A second client of the same device is turned away.
        second = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        second.connect(str(server.sockets[0]))
        assert second.recv(1) == b""
        second.close()
        page(good)
        # Who comes after the nonsense finds a device as new, and so does who comes after somebody that had set it up.
        for _ in range(2):
            third = IaaClient(server.sockets[1])
            third.hello()
            assert third.word(reg.GENSTATS) == 0
            third.set_up()
            page(third)
            third.close()
        good.close()
        server.end()
    assert server.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_on_a_signal_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with ServerProcess(tmp_path, "--log", str(tmp_path / "jobs"), portal=True) as server:
        client = IaaClient(server.sockets[0], server.portal)
        client.hello()
        client.set_up()
        page(client)
        server.process.send_signal(number)
        said = server.end()
        client.close()
    assert server.process.returncode == 0
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs"]
    assert len(logged(tmp_path / "jobs")) == 3


def test_a_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stale.bind(str(tmp_path / "iaa0.sock"))
    stale.close()
    with ServerProcess(tmp_path) as server:
        assert server.first == "listening"
        assert main(["--socket", str(tmp_path / "iaa0.sock")]) == 2


@pytest.mark.parametrize(("words", "wanted"), [
    (["--options", "devices=9"], "--iaa: devices=9 is not a number from 1 to 8"), (["--options", "devices=2"], "--socket is given 1 times for devices=2"),
    (["--faults", "plan"], "plan, line 1: 'nht' is not a word"), (["--faults", "missing"], "missing: cannot be read"),
    (["--log", "missing/jobs"], "missing/jobs: cannot be written"), (["--socket", "x" * 200, "--options", "devices=2"], "cannot be a socket"),
    (["--portal", "plan"], "plan: is not a socket"), (["--portal", "missing/portal"], "missing/portal: cannot be a socket")])
def test_it_does_not_begin_with_what_it_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                  words: list[str], wanted: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan").write_text("nht=1: lost\n")
    assert main(["--socket", "iaa.sock", *words]) == 2
    said = capsys.readouterr().err
    assert wanted in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan"]


def test_a_socket_in_use_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "iaa.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen(1)
        assert main(["--socket", str(path)]) == 2
        assert "iaa.sock: is in use; end what uses it" in capsys.readouterr().err
        assert path.exists()


def test_help_names_every_option() -> None:
    done = subprocess.run([sys.executable, "-m", "traces.lab.iaa.server", "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    for option in ("--socket", "--portal", "--options", "--faults", "--log", "--contents"):
        assert option in done.stdout


def test_the_aecs_is_where_the_client_put_it(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        client = IaaClient(server.sockets[0])
        client.hello()
        client.set_up()
        client.put(0x10000, PAGE)
        client.put(AECS_AT, bytes(64))
        assert client.job(Opcode.COMPRESS, 0x10000, 4096, 0x20000, 4096)[:2] == bytes([Status.ANALYTICS_ERROR, 22])
        # A record outside of the memory is in SWERR, and the server continues.
        client.submit(client.descriptor(Opcode.NOOP, 0, 0, 0, 0, 0)._replace(completion_addr=BASE - 64))
        while not client.word(reg.SWERR) & 1:
            pass
        client.close()
        server.end()
    assert server.process.returncode == 0
    assert os.listdir(tmp_path) == []
