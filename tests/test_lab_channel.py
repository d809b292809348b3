# SPDX-License-Identifier: GPL-2.0-or-later
"""traces.lab.channel: how files leave the guest while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from traces.lab.channel import Receiver, Sender


@pytest.fixture
def ends(tmp_path: Path) -> tuple[Sender, Receiver, Path, Path]:
    disk, source, target = tmp_path / "disk", tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    with disk.open("wb") as image:
        image.truncate(64 << 20)
    return Sender(disk, source), Receiver(disk, target), source, target


def _same(source: Path, target: Path) -> bool:
    trees = [{str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}
             for base in (source, target)]
    return trees[0] == trees[1]


def test_files_arrive_while_they_grow(ends: tuple[Sender, Receiver, Path, Path]) -> None:
    sender, receiver, source, target = ends
    (source / "formats").mkdir()
    (source / "formats" / "a").write_bytes(b"a" * 10)
    (source / "big").write_bytes(os.urandom(3 << 20))
    sender.send_new()
    receiver.receive()
    assert _same(source, target)
    with (source / "big").open("ab") as file:
        file.write(os.urandom(12345))
    sender.send_new()
    receiver.receive()
    assert _same(source, target)
    (source / "formats" / "a").write_bytes(b"b" * 10)  # changed in place: seen at the end
    (source / "big").write_bytes(b"short")
    (source / "empty").write_bytes(b"")
    os.mkfifo(source / "control")
    sender.end({"status": 0})
    receiver.receive()
    assert receiver.result == {"status": 0}
    (source / "control").unlink()
    assert _same(source, target)


def test_what_is_being_written_is_not_sent(ends: tuple[Sender, Receiver, Path, Path]) -> None:
    """The recorder writes under a hidden name and renames: half a file must not arrive, nor the same one twice."""
    sender, receiver, sent, received = ends
    (sent / ".capture.json.part").write_text("{")
    sender.send_new()
    (sent / ".capture.json.part").rename(sent / "capture.json")
    sender.end({"status": 0})
    receiver.receive()
    assert [path.name for path in received.iterdir()] == ["capture.json"]


def test_a_file_that_took_another_s_place_is_sent_whole(ends: tuple[Sender, Receiver, Path, Path]) -> None:
    """A guest that was stopped once left a capture.json of two versions, the first one's beginning and the second's rest."""
    sender, receiver, source, target = ends
    for text in ("{}", '{"plan": [1, 2, 3]}', '{"plan": [4, 5, 6], "start": 7}'):
        (source / ".capture.json.part").write_text(text)
        (source / ".capture.json.part").rename(source / "capture.json")
        sender.send_new()
        receiver.receive()
        assert _same(source, target)
    # Emptied, and written anew.
    for text in ("", '{"plan": [4, 5, 6], "start": 7, "end": 9}'):
        (source / "ring").write_text(text)
        (source / "capture.json").write_text(text)
        sender.send_new()
        receiver.receive()
        assert not text or _same(source, target)
    # The same file with other bytes, and more of them.
    (source / "capture.json").write_text('{"plan": [7, 8, 9], "start": 7, "stop": 8}')
    sender.send_new()
    receiver.receive()
    assert _same(source, target)


def test_a_dead_guest_leaves_what_it_sent(ends: tuple[Sender, Receiver, Path, Path], tmp_path: Path) -> None:
    sender, receiver, source, target = ends
    (source / "a").write_bytes(b"a" * 1000)
    sender.send_new()
    (source / "b").write_bytes(b"b" * 1000)
    sender.send_new()
    with (tmp_path / "disk").open("r+b") as disk:
        disk.seek(1024 + 700)
        disk.write(b"torn")
    receiver.receive()
    assert receiver.result is None
    assert [path.name for path in target.iterdir()] == ["a"]
    assert receiver.received == 1000


def test_a_guest_cannot_write_elsewhere(ends: tuple[Sender, Receiver, Path, Path], tmp_path: Path) -> None:
    sender, receiver, _, target = ends
    for name in ("../outside", str(tmp_path / "absolute"), "a/../../outside"):
        sender._write(1, name, b"x", 0)
    receiver.receive()
    assert not list(target.iterdir())
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "absolute").exists()
