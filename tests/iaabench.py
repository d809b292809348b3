# SPDX-License-Identifier: GPL-2.0-or-later
"""An emulated IAA in the test's own process: its memory, its interrupts, a clock that stands still."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traces.lab.iaa import registers as reg
from traces.lab.iaa.descriptors import Compress, Decompress, Descriptor, Flag, Opcode
from traces.lab.iaa.device import EmulatedIaa
from traces.lab.iaa.faults import IaaFaultPlan
from traces.lab.iaa.guestmemory import GuestMemory
from traces.lab.iaa.joblog import QUEUE_OFF, QUEUE_ON, JobLog
from traces.lab.iaa.operations import aecs
from traces.lab.iaa.options import IaaOptions
from traces.lab.iaa.registers import Command
from traces.lab.iaa.vfiouser import CONFIG_REGION

BASE, SIZE = 0x100000, 1 << 18
AECS_AT, RECORDS_AT = 0x1000, 0x2000
COMPRESS = int(Compress.FLUSH_OUTPUT | Compress.APPEND_EOB)
DECOMPRESS = int(Decompress.ENABLE | Decompress.FLUSH_OUTPUT | Decompress.CHECK_FOR_EOB | Decompress.STOP_ON_EOB)
PAGE = (b"zswap keeps compressed pages; " * 140)[:4000] + bytes(96)


class Bench:
    """A device with 256 KiB of guest memory.  ``now`` is its clock; ``fired`` are the vectors that were signalled."""

    def __init__(self, options: str = "", plan: str = "", log: Path | None = None, contents: bool = False, number: int = 0,
                 pages: Path | None = None) -> None:
        self.now = 0
        self.fired: list[int] = []
        self.memory = GuestMemory()
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, SIZE)
        self.memory.map(BASE, SIZE, self.fd, 0)
        self.log = JobLog(log, contents=contents, pages=pages)
        self.device = EmulatedIaa(number, IaaOptions.parse(options), self.memory, self.fired.append, IaaFaultPlan.parse(plan),
                                  self.log, lambda: self.now)
        self.records = 0

    def close(self) -> None:
        self.log.close()
        self.memory.clear()
        os.close(self.fd)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.device.write(0, offset, value.to_bytes(size, "little"))

    def word(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.device.read(0, offset, size), "little")

    def command(self, number: int, operand: int = 0, interrupt: bool = True) -> int:
        self.write(reg.CMD, number << 20 | operand | (reg.COMMAND_INTERRUPT if interrupt else 0))
        return self.word(reg.CMDSTS)

    def set_up(self, sizes: Sequence[int] = (128,), groups: Sequence[tuple[Sequence[int], int]] = (),
               priorities: Sequence[int] = ()) -> Bench:
        """Configure and enable, as the driver does; error interrupts are on."""
        self.device.write(CONFIG_REGION, 4, b"\6\0")
        self.write(reg.GENCTRL, reg.GENCTRL_SOFTERR | reg.GENCTRL_HALT)
        for number, (queues, engines) in enumerate(groups or ((range(len(sizes)), 0xFF),)):
            self.write(reg.GRPCFG + reg.GRPCFG_SIZE * number, sum(1 << one for one in queues), 8)
            self.write(reg.GRPCFG + reg.GRPCFG_SIZE * number + reg.GRPENGCFG, engines, 8)
        for number, size in enumerate(sizes):
            place = reg.WQCFG + reg.WQCFG_SIZE * number
            self.write(place, size)
            self.write(place + 8, reg.WQCFG_DEDICATED | (priorities[number] if priorities else 10) << 4)
        assert self.command(Command.ENABLE_DEVICE) == 0
        for number in range(len(sizes)):
            assert self.command(Command.ENABLE_WQ, number) == 0
        self.put(AECS_AT, aecs())
        self.write(reg.INTCAUSE, 0xFFFFFFFF)
        self.fired.clear()
        return self

    def put(self, offset: int, data: bytes) -> None:
        self.memory.write(BASE + offset, data)

    def get(self, offset: int, size: int) -> bytes:
        return bytes(self.memory.read(BASE + offset, size))

    def descriptor(self, opcode: int, source: int, size: int, target: int, room: int, **more: Any) -> tuple[Descriptor, int]:
        """A descriptor as the driver makes it, and where its record will be."""
        self.records = (self.records + 1) % 512
        record = RECORDS_AT + 64 * self.records
        self.put(record, bytes(64))
        compress = opcode == Opcode.COMPRESS
        flags = more.pop("flags", 0)
        fields: dict[str, Any] = {
            "trusted": 0, "word": opcode << 24 | Flag.CRAV | Flag.RCR | 0x100 | (Flag.RD_SRC2_AECS if compress else 0) | flags,
            "completion_addr": BASE + record, "src1_addr": BASE + source, "dst_addr": BASE + target, "src1_size": size,
            "int_handle": 0, "compr_flags": COMPRESS if compress else DECOMPRESS if opcode == Opcode.DECOMPRESS else 0,
            "src2_addr": BASE + AECS_AT if compress else 0, "max_dst_size": room, "src2_size": len(aecs()) if compress else 0,
            "filter_flags": 0, "num_inputs": 0}
        fields.update(more)
        return Descriptor(**fields), record

    def submit(self, descriptor: Descriptor, queue: int = 0) -> None:
        self.device.direct((4 * queue + 1) * reg.PORTAL_PAGE, descriptor.pack())

    def start(self, opcode: int, source: int, size: int, target: int, room: int, queue: int = 0, **more: Any) -> int:
        """Submit; returns where the record will be."""
        descriptor, record = self.descriptor(opcode, source, size, target, room, **more)
        self.submit(descriptor, queue)
        return record

    def job(self, opcode: int, source: int, size: int, target: int, room: int, queue: int = 0, **more: Any) -> Record:
        return self.record(self.start(opcode, source, size, target, room, queue, **more))

    def record(self, offset: int) -> Record:
        return Record(self.get(offset, 64))

    def compress(self, source: int = 0x10000, target: int = 0x20000, room: int = 4096, **more: Any) -> Record:
        return self.job(Opcode.COMPRESS, source, 4096, target, room, **more)

    def page(self, **more: Any) -> int:
        """Submit a page to compress; returns where the record will be."""
        return self.start(Opcode.COMPRESS, 0x10000, 4096, 0x20000, 4096, **more)

    def advance(self, to: int) -> int | None:
        """Move the clock and let happen what is due."""
        self.now = to
        return self.device.advance()


class Record:
    """struct iax_completion_record, read."""

    def __init__(self, raw: bytes) -> None:
        (self.status, self.error, self.fault_info, self.completed, self.fault_addr, self.size, self.xor,
         self.crc) = struct.unpack_from("<BBBxIQ8xI2xHI", raw)

    @property
    def ends(self) -> tuple[int, int]:
        return self.status, self.error


def logged(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a job log, without those that say when a queue was enabled or disabled."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line.get("op") not in (QUEUE_ON, QUEUE_OFF)]
