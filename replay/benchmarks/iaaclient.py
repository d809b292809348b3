# SPDX-License-Identifier: GPL-2.0-or-later
"""A client in QEMU's place: it has memory and interrupts, and drives an emulated IAA as the idxd driver does.

It measures the server alone (``zreplay dev bench --only iaa``), and tests use it.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from traces.lab.iaa import registers as reg
from traces.lab.iaa.config import VECTORS
from traces.lab.iaa.descriptors import Compress, Decompress, Descriptor, Flag, Opcode
from traces.lab.iaa.operations import aecs
from traces.lab.iaa.vfiouser import (
    CONFIG_REGION,
    DEVICE_RESET,
    DMA_MAP,
    DMA_UNMAP,
    ERROR,
    HEADER,
    MSIX_INDEX,
    NO_REPLY,
    REGION_READ,
    REGION_WRITE,
    REGION_WRITE_MULTI,
    SET_IRQS,
    VERSION,
)

__all__ = ["BASE", "COMPRESS", "DECOMPRESS", "IaaClient", "ServerProcess"]

#: Guest address of the client's memory, and its size.
BASE, SIZE = 0x100000, 1 << 20
#: Where BAR 2 is, for descriptors that are sent to the portal.
PORTALS: Final = 0xFE000000
#: What the driver sets (iaa_compress(), iaa_decompress()).
_RECORD: Final = int(Flag.CRAV | Flag.RCR) | 0x100
COMPRESS: Final = int(Compress.FLUSH_OUTPUT | Compress.APPEND_EOB)
DECOMPRESS: Final = int(Decompress.ENABLE | Decompress.FLUSH_OUTPUT | Decompress.CHECK_FOR_EOB | Decompress.STOP_ON_EOB)
_TRIGGER_EVENTFD: Final = 4 | 32
#: Offsets in the client's memory: where the AECS is, and where :meth:`IaaClient.job` puts records.
AECS_AT, RECORDS_AT = 0x1000, 0x2000


class ServerProcess:
    """The server, in a process of its own; a context."""

    def __init__(self, directory: Path, *arguments: str, devices: int = 1, portal: bool = False) -> None:
        self.sockets = [directory / f"iaa{number}.sock" for number in range(devices)]
        self.portal = directory / "portal.sock" if portal else None
        words = [word for path in self.sockets for word in ("--socket", str(path))]
        if self.portal is not None:
            words += ["--portal", str(self.portal)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "traces.lab.iaa.server", *words, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline().strip()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *about: object) -> None:
        self.process.terminate()
        self.end()

    def end(self) -> str:
        """Wait for it; returns what else it printed."""
        out, err = self.process.communicate(timeout=60)
        return out + err

    def seconds(self) -> float:
        """CPU seconds that it used so far."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class IaaClient:
    """One device's client.

    ``ram`` is the guest's memory, which begins at guest address ``BASE``.
    """

    def __init__(self, path: Path, portal: Path | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self.portal: socket.socket | None = None
        if portal is not None:
            self.portal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.portal.connect(str(portal))
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, SIZE)
        self.ram = mmap.mmap(self.fd, SIZE)
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(VECTORS)]
        self.portals = PORTALS
        self._ident = 0
        self._slot = 0

    def close(self) -> None:
        """Go, as QEMU does when it ends."""
        self.socket.close()
        if self.portal is not None:
            self.portal.close()
        for fd in [self.fd, *self.events]:
            os.close(fd)

    # Messages

    def send(self, command: int, body: bytes, fds: Sequence[int] = (), quiet: bool = False) -> bytes:
        """Send a message; returns its reply's body.

        :raises OSError: with the errno of an error reply
        """
        error, answer = self.ask(command, body, fds, quiet)
        if error:
            raise OSError(error, os.strerror(error))
        return answer

    def ask(self, command: int, body: bytes, fds: Sequence[int] = (), quiet: bool = False) -> tuple[int, bytes]:
        """Send a message; returns the errno of its reply, and its body."""
        self._ident = (self._ident + 1) & 0xFFFF
        message = HEADER.pack(self._ident, command, HEADER.size + len(body), NO_REPLY if quiet else 0, 0) + body
        if fds:
            self.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            self.socket.sendall(message)
        if quiet:
            return 0, b""
        ident, _, size, flags, error = HEADER.unpack(self._receive(HEADER.size))
        assert ident == self._ident
        return error if flags & ERROR else 0, self._receive(size - HEADER.size)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Read of a region."""
        return self.send(REGION_READ, struct.pack("<QII", offset, region, count))[16:]

    def write(self, region: int, offset: int, data: bytes, quiet: bool = False) -> None:
        """Write to a region."""
        self.send(REGION_WRITE, struct.pack("<QII", offset, region, len(data)) + data, quiet=quiet)

    def word(self, offset: int) -> int:
        """A register of 32 bits."""
        return int.from_bytes(self.read(0, offset, 4), "little")

    # What QEMU and the driver do

    def hello(self) -> bytes:
        """Agree on a version, and share memory and interrupts."""
        answer = self.send(VERSION, struct.pack("<HH", 0, 1) + b'{"capabilities":{}}\0')
        self.map()
        for first in range(0, VECTORS, 3):
            body = struct.pack("<IIIII", 20, _TRIGGER_EVENTFD, MSIX_INDEX, first, 3)
            self.send(SET_IRQS, body, self.events[first : first + 3])
        self.write(CONFIG_REGION, 4, b"\x06\x00")
        self.write(CONFIG_REGION, 0x18, struct.pack("<Q", PORTALS))
        return answer

    def map(self, start: int = BASE, size: int = SIZE, offset: int = 0, flags: int = 3) -> None:
        """Share (a part of) the memory."""
        self.send(DMA_MAP, struct.pack("<IIQQQ", 32, flags, offset, start, size), [self.fd])

    def unmap(self, start: int = BASE, size: int = SIZE) -> None:
        """Take it back."""
        self.send(DMA_UNMAP, struct.pack("<IIQQ", 24, 0, start, size))

    def reset(self) -> None:
        """VFIO_USER_DEVICE_RESET."""
        self.send(DEVICE_RESET, b"")

    def command(self, number: int, operand: int = 0, patience: float = 10.0) -> int:
        """Carry out a command, with an interrupt; returns its status.

        :raises TimeoutError: when it takes longer than ``patience`` seconds
        """
        self.start(number, operand)
        self.await_interrupt(0, patience)
        self.write(0, reg.INTCAUSE, struct.pack("<I", self.word(reg.INTCAUSE)))
        return self.word(reg.CMDSTS)

    def start(self, number: int, operand: int = 0) -> None:
        """Begin a command."""
        word = number << reg.COMMAND_SHIFT | operand | reg.COMMAND_INTERRUPT
        self.write(0, reg.CMD, struct.pack("<I", word))

    def interrupts(self, vector: int) -> int:
        """How many interrupts came since it was last asked."""
        with suppress(BlockingIOError):
            return os.eventfd_read(self.events[vector])
        return 0

    def await_interrupt(self, vector: int, patience: float = 10.0) -> int:
        """Wait for interrupts.

        :raises TimeoutError: when none comes
        """
        end = time.monotonic() + patience
        while time.monotonic() < end:
            count = self.interrupts(vector)
            if count:
                return count
            time.sleep(0.0002)
        raise TimeoutError(f"no interrupt on vector {vector}")

    def set_up(
        self,
        sizes: Sequence[int] = (128,),
        groups: Sequence[tuple[Sequence[int], int]] = (),
        priorities: Sequence[int] = (),
    ) -> None:
        """Configure and enable the device and its queues, as idxd_device_config() and idxd_wq_enable() do.

        :param sizes: of each queue
        :param groups: (queues, bits of engines) of each group; by default one has all
        """
        groups = groups or (((range(len(sizes))), 0xFF),)
        for number, (queues, engines) in enumerate(groups):
            place = reg.GRPCFG + reg.GRPCFG_SIZE * number
            self.write(0, place, struct.pack("<Q", sum(1 << one for one in queues)))
            self.write(0, place + reg.GRPENGCFG, struct.pack("<Q", engines))
        for number, size in enumerate(sizes):
            place = reg.WQCFG + reg.WQCFG_SIZE * number
            priority = priorities[number] if priorities else 10
            self.write(0, place, struct.pack("<III", size, 0, reg.WQCFG_DEDICATED | priority << 4))
        status = self.command(reg.Command.ENABLE_DEVICE)
        assert not status, hex(status)
        for number in range(len(sizes)):
            status = self.command(reg.Command.ENABLE_WQ, number)
            assert not status, hex(status)
        self.put(AECS_AT, aecs())

    # Jobs

    def put(self, offset: int, data: bytes) -> None:
        """Write memory."""
        self.ram[offset : offset + len(data)] = data

    def get(self, offset: int, size: int) -> bytes:
        """Read memory."""
        return self.ram[offset : offset + size]

    def descriptor(
        self, opcode: int, source: int, size: int, target: int, room: int, record: int, **more: Any
    ) -> Descriptor:
        """A descriptor as the driver makes it; offsets are within the memory."""
        compress = opcode == Opcode.COMPRESS
        fields: dict[str, Any] = {
            "trusted": 0,
            "word": opcode << 24 | _RECORD | (Flag.RD_SRC2_AECS if compress else 0),
            "completion_addr": BASE + record,
            "src1_addr": BASE + source,
            "dst_addr": BASE + target,
            "src1_size": size,
            "int_handle": 0,
            "compr_flags": COMPRESS if compress else DECOMPRESS if opcode == Opcode.DECOMPRESS else 0,
            "src2_addr": BASE + AECS_AT if compress else 0,
            "max_dst_size": room,
            "src2_size": len(aecs()) if compress else 0,
            "filter_flags": 0,
            "num_inputs": 0,
        }
        flags = more.pop("flags", 0)
        fields.update(more)
        fields["word"] |= flags
        return Descriptor(**fields)

    def submit(self, descriptor: Descriptor | bytes, queue: int = 0) -> None:
        """Write a descriptor to a queue's portal, as MOVDIR64B's plugin does, or in eight writes."""
        raw = descriptor if isinstance(descriptor, bytes) else descriptor.pack()
        offset = (4 * queue + 1) * reg.PORTAL_PAGE + 64 * self._slot
        self._slot = (self._slot + 1) % 64
        if self.portal is not None:
            self.portal.send(struct.pack("<Q", self.portals + offset) + raw)
            return
        parts = [struct.pack("<QII", offset + k, 2, 8) + raw[k : k + 8] for k in range(0, 64, 8)]
        self.send(REGION_WRITE_MULTI, struct.pack("<Q", 8) + b"".join(parts), quiet=True)

    def wait(self, record: int, patience: float = 10.0) -> bytes:
        """Wait for a completion record; returns it.

        :raises TimeoutError: when none comes
        """
        end = time.monotonic() + patience
        ram = self.ram
        while not ram[record]:
            if time.monotonic() > end:
                raise TimeoutError(f"no record at {record:#x}")
        return ram[record : record + 64]

    def job(self, opcode: int, source: int, size: int, target: int, room: int, queue: int = 0, **more: Any) -> bytes:
        """Carry a descriptor out; returns its record."""
        self.ram[RECORDS_AT] = 0
        self.submit(self.descriptor(opcode, source, size, target, room, RECORDS_AT, **more), queue)
        return self.wait(RECORDS_AT)
