# SPDX-License-Identifier: GPL-2.0-or-later
"""How files leave the guest while it runs: piece by piece, on a raw disk.

A guest that dies leaves what it had written.  A record is a header, a file's name and a piece of it, filled up to
whole sectors; a checksum in the header covers the rest.  The guest's side uses the standard library only.

==========  =====  ====================================================
magic       4s     ``ZRL1``
kind        B      1 a piece of a file, 2 a file begins anew, 3 the end
name        H      length of the name in bytes
length      I      length of the piece in bytes
offset      Q      where in the file it belongs
checksum    I      CRC-32 of name and piece
==========  =====  ====================================================
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Final

__all__ = ["Receiver", "Sender"]

_HEADER: Final = struct.Struct("<4sBHIQI")
_MAGIC: Final = b"ZRL1"
_PIECE, _ANEW, _END = 1, 2, 3
_SECTOR: Final = 512
#: Bytes of a file in one record.
_LONGEST: Final = 1 << 20
_BUFFER: Final = _LONGEST + 4096


class Sender:
    """Sends the files of a directory, and what is added to them, to a raw disk.

    :param disk: block device to write on
    :param directory: what to send, with its subdirectories
    :raises OSError: when the disk cannot be opened
    """

    def __init__(self, disk: Path, directory: Path) -> None:
        # Past the page cache: memory that fills with what was sent would be reclaimed, and that is recorded.
        direct = getattr(os, "O_DIRECT", 0) if disk.is_block_device() else 0
        self._disk = os.open(disk, os.O_WRONLY | direct)
        self._buffer = mmap.mmap(-1, _BUFFER)
        self._directory = directory
        #: of each file that was sent: how much of it, its checksum, which file it was, when that changed last
        self._sent: dict[str, tuple[int, int, int, int]] = {}

    def send_new(self, final: bool = False) -> None:
        """Send what was added since the last call.

        :param final: no process writes any more: files that were changed in place are sent again
        :raises OSError: when the disk is full
        """
        for path in sorted(self._directory.rglob("*")):
            # A file that is still being written has another name, and may be gone in a moment.
            if path.name.endswith(".part") or not path.is_file():
                continue
            name = str(path.relative_to(self._directory))
            sent, checksum, inode, changed = self._sent.get(name, (0, 0, 0, 0))
            with path.open("rb") as stream:
                facts = os.fstat(stream.fileno())
                size = facts.st_size
                # Another file took its place (a recorder writes whole files aside), perhaps with a number that was
                # free.
                other = sent and (facts.st_ino != inode or (name.endswith(".json") and facts.st_mtime_ns != changed))
                if size < sent or ((other or final) and sent and self._checksum(stream, sent) != checksum):
                    self._write(_ANEW, name, b"", 0)
                    sent = checksum = 0
                if name not in self._sent and not size and final:
                    self._write(_ANEW, name, b"", 0)
                stream.seek(sent)
                while piece := stream.read(min(_LONGEST - 1024, size - sent)):
                    self._write(_PIECE, name, piece, sent)
                    sent += len(piece)
                    checksum = zlib.crc32(piece, checksum)
            if sent or name in self._sent:
                self._sent[name] = sent, checksum, facts.st_ino, facts.st_mtime_ns

    @staticmethod
    def _checksum(stream: BinaryIO, size: int) -> int:
        checksum = 0
        stream.seek(0)
        while size and (piece := stream.read(min(_LONGEST, size))):
            checksum = zlib.crc32(piece, checksum)
            size -= len(piece)
        return checksum

    def end(self, result: dict[str, Any]) -> None:
        """Send everything that is left and the run's result, and close."""
        self.send_new(final=True)
        self._write(_END, "result", json.dumps(result).encode(), 0)
        os.fsync(self._disk)
        os.close(self._disk)

    def _write(self, kind: int, name: str, piece: bytes, offset: int) -> None:
        body = name.encode() + piece
        header = _HEADER.pack(_MAGIC, kind, len(body) - len(piece), len(piece), offset, zlib.crc32(body))
        used = len(header) + len(body)
        whole = used + -used % _SECTOR
        self._buffer[:whole] = header + body + bytes(whole - used)
        with memoryview(self._buffer) as view:
            at = 0
            while at < whole:
                at += os.write(self._disk, view[at:whole])


class Receiver:
    """Takes files off a disk that a :class:`Sender` wrote; may be called while it writes.

    :param disk: the disk's image
    :param directory: where the files go
    """

    def __init__(self, disk: Path, directory: Path) -> None:
        self._disk = disk
        self._directory = directory
        self._at = 0
        #: What the guest reported at its end; None until then.
        self.result: dict[str, Any] | None = None
        #: Bytes of files received.
        self.received = 0

    def receive(self) -> None:
        """Take all records that are complete by now."""
        with self._disk.open("rb") as stream:
            while self.result is None:
                stream.seek(self._at)
                head = stream.read(_HEADER.size)
                if len(head) < _HEADER.size:
                    return
                magic, kind, name_length, length, offset, checksum = _HEADER.unpack(head)
                if magic != _MAGIC or length > _LONGEST:
                    return
                body = stream.read(name_length + length)
                if len(body) < name_length + length or zlib.crc32(body) != checksum:
                    return  # the rest of it is on its way
                used = _HEADER.size + len(body)
                self._at += used + -used % _SECTOR
                self._take(kind, body[:name_length].decode("utf-8", "replace"), body[name_length:], offset)

    def _take(self, kind: int, name: str, piece: bytes, offset: int) -> None:
        if kind == _END:
            self.result = json.loads(piece)
            return
        path = self._directory / name
        # The guest is not trusted with the host's files.
        if os.path.isabs(name) or ".." in Path(name).parts:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("ab" if kind == _PIECE else "wb"):
            pass
        if kind == _PIECE:
            with path.open("r+b") as stream:
                stream.seek(offset)
                stream.write(piece)
            self.received += len(piece)
