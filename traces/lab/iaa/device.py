# SPDX-License-Identifier: GPL-2.0-or-later
"""The device: its registers, its portals, its commands, and the way of a descriptor through it.

Mirrors what drivers/dma/idxd/device.c, irq.c and submit.c of Linux 7.3 expect of the hardware.  Codes in SWERR for
descriptors that cannot have a record are the record's status codes; those for a queue that is off or full are ours.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from typing import Final

from traces.events import PAGE_SIZE
from traces.lab.iaa import registers as reg
from traces.lab.iaa.config import CONFIG_SIZE, PORTALS_SIZE, VECTORS, ConfigSpace
from traces.lab.iaa.descriptors import DESCRIPTOR_SIZE, RECORD_SIZE, Descriptor, Flag, Opcode, Status, pack_record
from traces.lab.iaa.engines import Engines, Job, Queue
from traces.lab.iaa.faults import IaaFaultPlan, IaaRule, Where
from traces.lab.iaa.guestmemory import GuestMemory, MemoryFault
from traces.lab.iaa.joblog import JobLog, queue_line
from traces.lab.iaa.operations import DeviceOperations, Outcome, page_fault
from traces.lab.iaa.options import IaaOptions
from traces.lab.iaa.registers import Command, CommandStatus, DeviceState, InterruptCause
from traces.lab.iaa.vfiouser import CONFIG_REGION

__all__ = ["EmulatedIaa"]

#: SWERR's error field: ours, as no public text has the list.
SWERR_QUEUE_OFF, SWERR_QUEUE_FULL = 0x51, 0x52
#: How long a descriptor that ends behind others waits for them: ours.
_REORDER_PATIENCE: Final = 100_000_000
#: Descriptors that arrive in pieces are kept this many at a time.
_MOST_PIECES: Final = 256
_CRAV, _RCR, _RCI = int(Flag.CRAV), int(Flag.RCR), int(Flag.RCI)
_NAMES: Final = {int(one): one.name.lower() for one in Opcode}
_RESERVED: Final = 0x7FF00000  # bits of a descriptor's first word
_READ_ONLY_WQCFG: Final = (24, 25, 26, 27)


class EmulatedIaa:
    """One device.

    :param number: its place among the guest's devices, which rules and the log name
    :param interrupt: signals a vector; False where the guest has none
    :param clock: nanoseconds
    """

    regions: Final = {0: reg.BAR0_SIZE, 2: PORTALS_SIZE, CONFIG_REGION: CONFIG_SIZE}
    vectors: Final = VECTORS

    def __init__(
        self,
        number: int,
        options: IaaOptions,
        memory: GuestMemory,
        interrupt: Callable[[int], object],
        plan: IaaFaultPlan | None = None,
        log: JobLog | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.number = number
        self.options = options
        self.memory = memory
        self.interrupt = interrupt
        self.plan = plan or IaaFaultPlan()
        self.log = log or JobLog(None)
        self.clock = clock
        self.jobs = 0
        self.dropped = 0
        self.config = ConfigSpace()
        self.operations = DeviceOperations(memory, options.version)
        self.queues = [Queue(one) for one in range(reg.QUEUES)]
        self.engines = Engines(self.queues, options.service, options.per_kib, self._begin, self._end)
        self._bar = bytearray(reg.BAR0_SIZE)
        self._pieces: dict[int, bytearray] = {}
        # A command that waits: its number, the last descriptor before it, whether it interrupts, the queues.
        self._command: tuple[int, int, bool, set[int]] | None = None
        self._left = 0
        self._closing: set[int] = set()
        self._enabled_at: int | None = None
        self._timed = options.service > 0 or options.per_kib > 0 or bool(self.plan.rules)
        self._watched = bool(self.plan.rules) or self.log.wanted
        self._clear()

    # Registers

    def _word(self, offset: int) -> int:
        return int.from_bytes(self._bar[offset : offset + 4], "little")

    def _set(self, offset: int, value: int, size: int = 4) -> None:
        self._bar[offset : offset + size] = value.to_bytes(size, "little")

    @property
    def state(self) -> int:
        """DeviceState of GENSTS."""
        return self._bar[reg.GENSTATS] & 3

    def _clear(self) -> None:
        """Registers as after power on; jobs on their way are forgotten."""
        self._abort(set(range(reg.QUEUES)))
        self._bar[:] = bytes(reg.BAR0_SIZE)
        for offset, (value, size) in reg.capabilities(self.options.version).items():
            self._set(offset, value, size)
        self._command, self._closing = None, set()
        self._pieces.clear()
        for queue in self.queues:
            self._switch(queue, False)

    def reset(self) -> None:
        """Power on, or VFIO_USER_DEVICE_RESET."""
        self._clear()
        self.config.reset()

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Read registers or configuration; portals cannot be read."""
        if region == CONFIG_REGION:
            return self.config.read(offset, count)
        if region != 0:
            return b"\xff" * count
        if offset + count > reg.WQCFG and offset < reg.WQCFG + reg.QUEUES * reg.WQCFG_SIZE:
            for queue in self.queues:
                self._set(reg.WQCFG + reg.WQCFG_SIZE * queue.number + 24, len(queue.waiting), 2)
        return bytes(self._bar[offset : offset + count])

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Write registers, configuration or a part of a descriptor."""
        if region == 2:
            self._portal(offset, data)
        elif region == CONFIG_REGION:
            if self.config.write(offset, data):
                # Function level reset: everything but what the guest's firmware gave.
                self._clear()
        elif region == 0:
            self._register(offset, data)

    def _register(self, offset: int, data: bytes) -> None:
        if offset == reg.CMD and len(data) >= 4:
            self._execute(int.from_bytes(data[:4], "little"))
            return
        for at, byte in enumerate(data, offset):
            if reg.INTCAUSE <= at < reg.INTCAUSE + 4:
                self._bar[at] &= ~byte & 0xFF
            elif at == reg.SWERR:
                if byte & reg.SWERR_VALID:
                    self._bar[reg.SWERR : reg.SWERR + reg.SWERR_SIZE] = bytes(
                        [self._bar[reg.SWERR] & reg.SWERR_OVERFLOW]
                    ).ljust(reg.SWERR_SIZE, b"\0")
                self._bar[at] &= ~(byte & reg.SWERR_OVERFLOW) & 0xFF
            elif (
                reg.GENCFG <= at < reg.GENCFG + 4
                or reg.GENCTRL <= at < reg.GENCTRL + 4
                or (reg.EVLCFG <= at < reg.EVLCFG + 16)
                or reg.MSIX_PERM <= at < reg.MSIX_PERM + 8 * VECTORS
                or (reg.MSIX_TABLE <= at < reg.MSIX_TABLE + 16 * VECTORS)
            ):
                self._bar[at] = byte
            elif reg.GRPCFG <= at < reg.GRPCFG + reg.GROUPS * reg.GRPCFG_SIZE:
                # Groups can be set up while the device is off.
                if self.state == DeviceState.DISABLED:
                    self._bar[at] = byte
            elif reg.WQCFG <= at < reg.WQCFG + reg.QUEUES * reg.WQCFG_SIZE:
                number, place = divmod(at - reg.WQCFG, reg.WQCFG_SIZE)
                if not self.queues[number].enabled and place not in _READ_ONLY_WQCFG:
                    self._bar[at] = byte

    def _cause(self, cause: InterruptCause) -> None:
        self._set(reg.INTCAUSE, self._word(reg.INTCAUSE) | cause)
        self.interrupt(0)

    def _software_error(self, code: int, queue: int, operation: int, address: int = 0, write: bool = False) -> None:
        """Record in SWERR what no completion record can say."""
        self.dropped += 1
        if self._bar[reg.SWERR] & reg.SWERR_VALID:
            self._bar[reg.SWERR] |= reg.SWERR_OVERFLOW
        else:
            first = (
                reg.SWERR_VALID
                | reg.SWERR_DESC_VALID
                | reg.SWERR_WQ_VALID
                | (reg.SWERR_FAULT_WRITE if write else 0)
                | code << 8
                | queue << 16
                | operation << 32
            )
            struct.pack_into("<QQQQ", self._bar, reg.SWERR, first, 0, address, 0)
        if self._word(reg.GENCTRL) & reg.GENCTRL_SOFTERR:
            self._cause(InterruptCause.ERR)

    # Commands

    def _execute(self, word: int) -> None:
        if self._command is not None:
            # The driver waits for the one before; what does not is not heard.
            return
        number, operand = word >> reg.COMMAND_SHIFT & reg.COMMAND_MASK, word & reg.COMMAND_OPERAND
        fires = bool(word & reg.COMMAND_INTERRUPT)
        first = 16 * (operand >> 16)
        chosen = {first + bit for bit in range(16) if operand >> bit & 1}
        every = set(range(reg.QUEUES))
        status = CommandStatus.SUCCESS
        waits: set[int] | None = None
        if number == Command.RESET_DEVICE:
            if self.state == DeviceState.HALT and self._bar[reg.GENSTATS] >> 2 & 3:
                status = CommandStatus.HW_ERR
            else:
                self._reset_device()
        elif self.state == DeviceState.HALT:
            status = CommandStatus.HW_ERR
        elif number == Command.ENABLE_DEVICE:
            status = self._enable_device()
        elif number == Command.DISABLE_DEVICE:
            status = CommandStatus.SUCCESS if self.state == DeviceState.ENABLED else CommandStatus.ERR_DIS_DEV_EN
            waits = every
        elif number in (Command.DRAIN_ALL, Command.DRAIN_PASID):
            waits = every
        elif number in (Command.ABORT_ALL, Command.ABORT_PASID):
            self._abort(every)
        elif number == Command.ENABLE_WQ:
            status = self._enable_queue(operand)
        elif number in (Command.DISABLE_WQ, Command.DRAIN_WQ, Command.ABORT_WQ, Command.RESET_WQ):
            if self.state != DeviceState.ENABLED:
                status = CommandStatus.ERR_DEV_NOT_EN
            elif not chosen or not chosen <= every:
                status = CommandStatus.INVAL_WQIDX
            elif number in (Command.ABORT_WQ, Command.RESET_WQ):
                self._abort(chosen)
            else:
                waits = chosen
        else:
            status = CommandStatus.INVAL_CMD
        self._left = sum(self.queues[one].outstanding for one in waits or ())
        if status == CommandStatus.SUCCESS and waits and self._left:
            # It waits for those that came before it; a queue that is being switched off takes no others.
            self._set(reg.CMDSTS, reg.CMDSTS_ACTIVE)
            self._command = number, self.jobs, fires, waits
            if number in (Command.DISABLE_DEVICE, Command.DISABLE_WQ):
                self._closing = waits
            return
        self._finish(number, chosen, status, fires)

    def _finish(self, number: int, chosen: set[int], status: int, fires: bool) -> None:
        if status == CommandStatus.SUCCESS:
            if number == Command.DISABLE_DEVICE:
                for queue in self.queues:
                    self._switch(queue, False)
                self._set(reg.GENSTATS, DeviceState.DISABLED)
            elif number in (Command.DISABLE_WQ, Command.RESET_WQ):
                for one in chosen:
                    self._switch(self.queues[one], False)
                    if number == Command.RESET_WQ:
                        self._set(reg.WQCFG + reg.WQCFG_SIZE * one, 0, reg.WQCFG_SIZE)
        self._set(reg.CMDSTS, status)
        if fires:
            self._cause(InterruptCause.CMD)

    def _settle(self) -> None:
        """End a command that waited for descriptors, when they have ended."""
        if self._command is None or self._left:
            return
        number, _, fires, chosen = self._command
        self._command, self._closing = None, set()
        self._finish(number, chosen, CommandStatus.SUCCESS, fires)

    def _leave(self, job: Job) -> None:
        """A job is over, for which a command may have waited."""
        if self._command is not None and job.number <= self._command[1] and job.queue in self._command[3]:
            self._left -= 1

    def _reset_device(self) -> None:
        # Interrupt enables and the driver's vectors stay, which the driver writes anew or not at all: ours.
        kept = [
            (place, bytes(self._bar[place : place + size]))
            for place, size in (
                (reg.GENCTRL, 4),
                (reg.INTCAUSE, 4),
                (reg.MSIX_PERM, 8 * VECTORS),
                (reg.MSIX_TABLE, 16 * VECTORS),
            )
        ]
        self._clear()
        for place, data in kept:
            self._bar[place : place + len(data)] = data

    def _enable_device(self) -> CommandStatus:
        if self.state == DeviceState.ENABLED:
            return CommandStatus.ERR_DEV_ENABLED
        if not self.config.bus_master:
            return CommandStatus.ERR_BUSMASTER_EN
        sizes = [
            int.from_bytes(self._bar[place : place + 2], "little")
            for place in range(reg.WQCFG, reg.WQCFG + reg.QUEUES * reg.WQCFG_SIZE, reg.WQCFG_SIZE)
        ]
        if sum(sizes) > reg.DESCRIPTORS:
            return CommandStatus.ERR_WQ_SIZE_ERANGE
        taken: set[int] = set()
        for queue in self.queues:
            queue.group = -1
        for group in range(reg.GROUPS):
            place = reg.GRPCFG + reg.GRPCFG_SIZE * group
            queues, engines = self._word(place), self._word(place + reg.GRPENGCFG)
            own = tuple(one for one in range(reg.ENGINES) if engines >> one & 1)
            if taken & set(own):
                return CommandStatus.ERR_GRP_CONFIG
            taken |= set(own)
            self.engines.group(group, own)
            for queue in self.queues:
                if queues >> queue.number & 1:
                    if queue.group >= 0 or not own:
                        # In two groups, or in one that has no engine.
                        return CommandStatus.ERR_GRP_CONFIG
                    queue.group = group
        if any(size and queue.group < 0 for size, queue in zip(sizes, self.queues, strict=True)):
            return CommandStatus.ERR_GRP_CONFIG
        self._set(reg.GENSTATS, DeviceState.ENABLED)
        if self._enabled_at is None:
            self._enabled_at = self.clock()
        return CommandStatus.SUCCESS

    def _enable_queue(self, number: int) -> CommandStatus:
        if self.state != DeviceState.ENABLED:
            return CommandStatus.ERR_DEV_NOTEN
        if number >= reg.QUEUES:
            return CommandStatus.INVAL_WQIDX
        queue, place = self.queues[number], reg.WQCFG + reg.WQCFG_SIZE * number
        if queue.enabled:
            return CommandStatus.ERR_WQ_ENABLED
        queue.size = int.from_bytes(self._bar[place : place + 2], "little")
        if not queue.size or queue.group < 0:
            return CommandStatus.ERR_WQ_SIZE
        if not self._bar[place + reg.WQCFG_MODE_BYTE] & reg.WQCFG_DEDICATED:
            return CommandStatus.ERR_WQ_MODE
        queue.priority = self._bar[place + reg.WQCFG_MODE_BYTE] >> reg.WQCFG_PRIORITY_SHIFT
        self._switch(queue, True)
        return CommandStatus.SUCCESS

    def _switch(self, queue: Queue, on: bool) -> None:
        if queue.enabled != on and self.log.wanted:
            self.log.add(queue_line(self.number, queue.number, on, self.clock()))
        queue.enabled = on
        place = reg.WQCFG + reg.WQCFG_SIZE * queue.number + reg.WQCFG_STATE_BYTE
        self._bar[place] = self._bar[place] & ~reg.WQCFG_STATE_MASK | (reg.WQCFG_STATE_ENABLED if on else 0)

    def _abort(self, queues: set[int]) -> None:
        # The driver itself completes what it finds without a record (idxd_flush_pending_descs()): nothing is written.
        for job in self.engines.abort(queues):
            self._leave(job)
            if self.log.wanted:
                self._note(job, self.clock(), "aborted")
        self.engines.regroup(self.clock())
        self._settle()

    # Descriptors

    def direct(self, offset: int, raw: bytes) -> None:
        """Take a whole descriptor that was written to a place in BAR 2 at once, as MOVDIR64B does."""
        self._submit(offset // (reg.PORTALS_PER_QUEUE * reg.PORTAL_PAGE), raw)

    def _portal(self, offset: int, data: bytes) -> None:
        """Take a part of a descriptor: 64 bytes are one, in ascending order, at a multiple of 64."""
        while data:
            slot = offset & ~(DESCRIPTOR_SIZE - 1)
            begin = offset - slot
            part = data[: DESCRIPTOR_SIZE - begin]
            held = self._pieces.pop(slot, None)
            if held is None or len(held) != begin:
                held = bytearray()
            if len(held) == begin:
                held += part
                if len(held) == DESCRIPTOR_SIZE:
                    self.direct(slot, bytes(held))
                elif len(self._pieces) < _MOST_PIECES:
                    self._pieces[slot] = held
            offset += len(part)
            data = data[len(part) :]

    def _submit(self, number: int, raw: bytes) -> None:
        queue = self.queues[number]
        now = self.clock() if self._watched or self._timed else 0
        if self._timed:
            # What ended before this came does not take its place.
            self.advance()
        if not queue.enabled or self.state != DeviceState.ENABLED or number in self._closing:
            self._software_error(SWERR_QUEUE_OFF, number, raw[7])
            return
        if len(queue.waiting) >= queue.size:
            self._software_error(SWERR_QUEUE_FULL, number, raw[7])
            return
        descriptor = Descriptor.parse(raw)
        word, record = descriptor.word, descriptor.completion_addr
        if word & (_CRAV | _RCR):
            if not word & _CRAV:
                self._software_error(int(Status.INVALID_FLAGS), number, word >> 24)
                return
            if record % RECORD_SIZE:
                self._software_error(int(Status.CRA_ALIGN), number, word >> 24, record)
                return
            try:
                self.memory.at(record, RECORD_SIZE, True)
            except MemoryFault as fault:
                self._software_error(int(Status.CRA_XLAT), number, word >> 24, fault.address, True)
                return
        self.jobs += 1
        job = Job(self.jobs, number, descriptor, now, queue.outstanding)
        if self.plan.rules:
            rule = self._rule(job)
            if rule is not None and self._strike(rule, job, queue, now):
                return
        self.engines.submit(job, now)
        self._settle()

    def _rule(self, job: Job) -> IaaRule | None:
        first = self.operations.first_bytes(job.descriptor, self.plan.prefix) if self.plan.prefix else b""
        since = job.submitted - (self._enabled_at or 0)
        return self.plan.decide(Where(job.descriptor.opcode, self.number, job.queue, since, first))

    def _strike(self, rule: IaaRule, job: Job, queue: Queue, now: int) -> bool:
        """Let a rule happen to a descriptor.

        :returns: True when nothing else will happen to it
        """
        job.rule = rule.line
        job.lost, job.late, job.silent = rule.lost, rule.late, rule.silent
        if rule.reorder:
            job.behind, job.late = rule.reorder, rule.late or _REORDER_PATIENCE
        if rule.exhaust:
            queue.held_until = max(queue.held_until, now + rule.exhaust)
        if rule.halt is None and not rule.reset:
            job.outcome = self._forced(rule, job.descriptor)
            return False
        if self.log.wanted:
            self._note(job, now, "lost")
        if rule.reset:
            self._reset_device()
        else:
            self._halt(rule.halt or 0)
        return True

    def _halt(self, kind: int) -> None:
        self._abort(set(range(reg.QUEUES)))
        for queue in self.queues:
            self._switch(queue, False)
        self._set(reg.GENSTATS, DeviceState.HALT | kind << 2)
        if self._word(reg.GENCTRL) & reg.GENCTRL_HALT:
            self._cause(InterruptCause.HALT_STATE)

    @staticmethod
    def _forced(rule: IaaRule, descriptor: Descriptor) -> Outcome | None:
        """The outcome that a rule gives instead of the operation's."""
        if rule.fault_at:
            address = {"source": descriptor.src1_addr, "destination": descriptor.dst_addr, "aecs": descriptor.src2_addr}
            return page_fault(address[rule.fault_at], rule.fault_at == "destination")
        if rule.status is not None:
            return Outcome(rule.status, rule.error or 0)
        return None

    def _begin(self, job: Job) -> None:
        """An engine takes a job: its result is worked out now, and written when it ends."""
        descriptor = job.descriptor
        if job.outcome is not None:
            return
        if descriptor.trusted & _RESERVED:
            job.outcome = Outcome(int(Status.NOZERO_RESERVE))
        elif descriptor.word & _RCI and descriptor.int_handle >= VECTORS:
            job.outcome = Outcome(int(Status.INT_HANDLE_INVAL))
        else:
            job.outcome = self.operations.perform(descriptor)
            if self.log.contents and descriptor.opcode == Opcode.COMPRESS and descriptor.src1_size == PAGE_SIZE:
                # What was compressed: the guest may have written to the page since.  What was refused was not read.
                with contextlib.suppress(MemoryFault):
                    job.page = self.log.page(self.operations.source
                                             or bytes(self.memory.at(descriptor.src1_addr, PAGE_SIZE)))
        if job.rule:
            job.outcome = self._bent(job.outcome, job.rule)

    def _bent(self, outcome: Outcome, line: int) -> Outcome:
        """Change a success's length or sum as a rule says."""
        rule = next(one for one in self.plan.rules if one.line == line)
        if outcome.status != Status.SUCCESS:
            return outcome
        if rule.length is not None:
            how, size = rule.length
            wanted = size if how == "=" else outcome.size + (size if how == "+" else -size)
            outcome = outcome._replace(size=min(max(wanted, 0), 0xFFFFFFFF))
        if rule.wrong_crc:
            outcome = outcome._replace(crc=outcome.crc ^ 0xFFFFFFFF)
        return outcome

    def _end(self, job: Job, when: int) -> None:
        """A job ends: its output, its record and its interrupt, in this order."""
        self._leave(job)
        if job.lost:
            if self.log.wanted:
                self._note(job, when, "lost")
            return
        descriptor, outcome = job.descriptor, job.outcome
        assert outcome is not None
        if outcome.output:
            try:
                self.memory.write(descriptor.dst_addr, outcome.output)
            except MemoryFault as fault:
                outcome = job.outcome = page_fault(fault.address, True)
        word = descriptor.word
        if word & _CRAV and (word & _RCR or outcome.status != Status.SUCCESS):
            record = pack_record(
                outcome.status,
                outcome.error,
                outcome.completed,
                outcome.fault_addr,
                outcome.size,
                outcome.crc,
                outcome.xor,
            )
            try:
                view = self.memory.at(descriptor.completion_addr, RECORD_SIZE, True)
            except MemoryFault as fault:
                self._software_error(int(Status.CRA_XLAT), job.queue, word >> 24, fault.address, True)
            else:
                # The driver polls the first byte: it comes last.
                view[1:] = record[1:]
                view[0] = record[0]
        if word & _RCI and not job.silent and descriptor.int_handle < VECTORS:
            self.interrupt(descriptor.int_handle)
        if self.log.wanted:
            self._note(job, when, "")

    def _note(self, job: Job, when: int, note: str) -> None:
        """Write a job's line."""
        descriptor, outcome = job.descriptor, job.outcome or Outcome(0)
        opcode = descriptor.word >> 24
        line = (
            f'{{"n":{job.number},"device":{self.number},"queue":{job.queue},"op":"{_NAMES.get(opcode, hex(opcode))}",'
            f'"flags":{descriptor.word & 0xFFFFFF},"how":{descriptor.compr_flags},"pfn":{descriptor.src1_addr >> 12},'
            f'"in":{descriptor.src1_size},"to":{descriptor.dst_addr},"room":{descriptor.max_dst_size},'
            f'"status":{outcome.status},"error":{outcome.error},"out":{outcome.size},"in_flight":{job.in_flight},'
            f'"engine":{job.engine},"submitted":{job.submitted},"ended":{when}'
        )
        if job.rule:
            line += f',"rule":{job.rule}'
        if note:
            line += f',"note":"{note}"'
        if self.log.contents and outcome.status == Status.SUCCESS:
            line += f',"crc":{outcome.crc},"head":"{bytes(outcome.output[:8]).hex()}"'
        if job.page:
            line += f',"page":{job.page}'
        self.log.add(line + "}")

    def advance(self) -> int | None:
        """Let everything happen that is due.

        :returns: the clock's time at which something is due next, None when nothing is
        """
        due = self.engines.advance(self.clock())
        self._settle()
        return due
