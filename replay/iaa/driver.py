# SPDX-License-Identifier: GPL-2.0-or-later
"""The model of iaa_crypto, played with the completion records that the emulated devices wrote.

What hardware, or the emulation, makes of a page is not the driver's doing: the model of the driver
(:mod:`model.crypto.iaa`) takes each record from the job log.  All else it predicts: which queue a CPU uses, which
descriptors there are, what it makes of a record, when it goes to software, and what it counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from model.crypto.faults import ANALYTICS_ERROR, NO_COMPLETION
from model.crypto.iaa import KERNEL_DEFECTS, IaaCrypto
from model.crypto.iaa_device import IaaDevice, Record, StandIn, Topology, Wq, WqTable
from model.crypto.request import AcompAlg, AcompRequest, KernelFault, NeverCompletes, Scatterlist, sg_init_one
from model.errno import E2BIG, EINPROGRESS, EINVAL, EIO, ENODEV, EOVERFLOW, ETIMEDOUT
from model.page import PAGE_SIZE
from replay.iaa.calls import DriverCall
from replay.iaa.jobs import DeviceJob, JobsByPage
from traces.lab.iaa.descriptors import Analytics, Compress, Decompress, Flag, Status

__all__ = ["DescriptorWords", "DriverAnswer", "PlayedDriver", "descriptor_words", "driver_line"]

#: IAA_COMP_FLAGS and IAA_DECOMP_FLAGS (drivers/crypto/intel/iaa/iaa_crypto.h).
_COMP_HOW: Final = int(Compress.FLUSH_OUTPUT | Compress.APPEND_EOB)
_DECOMP_HOW: Final = int(Decompress.ENABLE | Decompress.FLUSH_OUTPUT | Decompress.CHECK_FOR_EOB
                         | Decompress.STOP_ON_EOB)
#: Bytes of the largest source that is followed: zswap asks for a page, or an object.
_MOST: Final = 2 * PAGE_SIZE
#: Nanoseconds that IAA_COMPLETION_TIMEOUT's 1,000,001 looks at a record take at least.
_POLLS: Final = 1_000_000


class DescriptorWords(NamedTuple):
    """What a descriptor says besides addresses: operation, flags, compression flags, source bytes, room."""

    op: str
    flags: int
    how: int
    size: int
    room: int


def descriptor_words(kind: str, size: int, room: int, *, irq: bool) -> DescriptorWords:
    """Return what iaa_compress(), iaa_decompress() or iaa_compress_verify() put into a descriptor.

    :param kind: ``compress``, ``decompress``, or ``verify``, which never asks for an interrupt
    """
    flags = Flag.CRAV | Flag.RCR | Flag.CC | (Flag.RCI if irq and kind != "verify" else 0)
    if kind == "compress":
        return DescriptorWords("compress", int(flags | Flag.RD_SRC2_AECS), _COMP_HOW, size, room)
    how = _DECOMP_HOW | (Decompress.SUPPRESS_OUTPUT if kind == "verify" else 0)
    return DescriptorWords("decompress", int(flags), int(how), size, room)


def driver_line(line: tuple[int, int] | None) -> str | None:
    """Return which of the modelled drivers a kernel (major, minor) has, None where none of them is known to be its."""
    name = "" if line is None else f"{line[0]}.{line[1]}"
    return name if name in KERNEL_DEFECTS else None


class _NoInterrupt(Exception):
    """A job of a call that an interrupt was to end was lost: the call never ends."""


@dataclass
class DriverAnswer:
    """What the model says of one call.

    ``ret``, ``dlen``: as the call returns them, ``dlen`` None where an interrupt writes it; ``submitted``: (queues that
    it can be, none where that is not known; words; the job taken for it, None where the devices saw none);
    ``software``: calls of the software fallback, of which those in ``inside`` were made; ``final``: error and dlen that
    the interrupt left, None where the call returned them or no interrupt came; ``fault``: why the model cannot
    continue.
    """

    ret: int = 0
    dlen: int | None = None
    final: tuple[int, int] | None = None
    submitted: list[tuple[tuple[Wq, ...], DescriptorWords, DeviceJob | None]] = field(default_factory=list)
    software: int = 0
    inside: list[DriverCall] = field(default_factory=list)
    fault: str = ""

    @property
    def stops(self) -> bool:
        """A device stopped meanwhile: the model does not follow what idxd does then."""
        return any(job is not None and job.stops for _, _, job in self.submitted)


class _Device(StandIn):
    """The devices: a job's record is the one that was logged."""

    def __init__(self, play: PlayedDriver) -> None:
        super().__init__()
        self._play = play

    def compress(self, page: bytes, room: int) -> Record:
        return self._play.perform("compress", len(page), room)

    def decompress(self, data: bytes, room: int) -> Record:
        return self._play.perform("decompress", len(data), room)

    def verify(self, made: Record, room: int) -> Record:
        return self._play.perform("verify", made.size, room)


class _Software(AcompAlg):
    """deflate-generic: its results are those of the calls that the driver was seen to make."""

    name = "deflate-generic"

    def __init__(self, play: PlayedDriver) -> None:
        self._play = play

    def compress(self, request: AcompRequest) -> int:
        return self._play.fall_back(request)

    def decompress(self, request: AcompRequest) -> int:
        return self._play.fall_back(request)


class PlayedDriver:
    """One kernel's iaa_crypto, call by call.

    :param kernel: of :data:`model.crypto.iaa.KERNEL_DEFECTS`
    :param devices: how many; all have as many queues
    :param wqs: queues of each
    :param nodes: NUMA node of each possible CPU
    :param sure: these are known; else which queues a CPU has is not compared
    :param mode: sync_mode
    :param verify: verify_compress
    :param jobs: what the devices saw
    """

    def __init__(self, kernel: str, devices: int, wqs: int, nodes: tuple[int, ...], mode: str, verify: bool,
                 jobs: JobsByPage, *, sure: bool) -> None:
        bound = [IaaDevice(n, [Wq(n, k) for k in range(wqs)]) for n in range(devices)]
        self.model = IaaCrypto(kernel, bound, Topology(nodes, (0,) * len(nodes), len(nodes)), sync_mode=mode,
                               verify_compress=verify, stand_in=_Device(self), software=_Software(self))
        self._jobs = jobs
        #: 6.12's fallback is the crypto layer's old interface, which no probe shows
        self.shows_software = kernel != "6.12"
        self._call: DriverCall
        self._answer: DriverAnswer
        self._sure = sure
        self._wqs = {wq.key: wq for device in bound for wq in device.wqs}
        #: the queues that the call at hand can use, none where that is not known
        self._possible: tuple[Wq, ...] = ()
        #: CPUs whose place in their table is known
        self._placed: set[int] = set()
        #: the call during which the driver turned itself off: a completion never came
        self._off: DriverCall | None = None

    # ---- what the model asks ----------------------------------------------------------------------------

    def perform(self, kind: str, size: int, room: int) -> Record:
        """A descriptor was submitted: return the record that its job left."""
        job = self._jobs.take(kind, self._call.page)
        words = descriptor_words(kind, size, room, irq=self.model.use_irq)
        self._answer.submitted.append((self._possible, words, job))
        wq = None if job is None else self._wqs.get((job.device, job.queue))
        if wq is not None:
            # Its check goes to the same queue.
            self._possible = (wq,)
        if job is None:
            # The devices saw none.  A job that never completes would turn the driver off.
            return Record(EINVAL)
        if job.lost and kind != "verify" and self.model.use_irq:
            raise _NoInterrupt
        if job.lost or self._polled_out(job):
            return Record(NO_COMPLETION)
        # As check_completion() distinguishes them.
        if job.status == Status.SUCCESS:
            return Record(0, b"", job.crc or 0, job.out)
        if job.status == Status.WATCHDOG:
            return Record(ETIMEDOUT)
        if job.status == Status.OUTBUF_OVERFLOW:
            return Record(EOVERFLOW)
        if job.status == Status.ANALYTICS_ERROR:
            full = kind == "compress" and job.error == Analytics.UNRECOVERABLE_OUTPUT_OVERFLOW
            return Record(E2BIG if full else ANALYTICS_ERROR)
        return Record(EINVAL)

    def fall_back(self, request: AcompRequest) -> int:
        """The driver goes to software: its result was recorded, as a call inside this one."""
        nested = self._answer.software
        self._answer.software += 1
        if not self.shows_software:
            request.dlen = self._call.dlen
            return self._call.ret
        made = self._call.nested[nested] if nested < len(self._call.nested) else \
            next((one for one in self._call.maybe if not one.taken), None)
        if made is None:
            return EINVAL
        made.taken = True
        self._answer.inside.append(made)
        request.dlen = made.dlen
        return made.ret

    def _polled_out(self, job: DeviceJob) -> bool:
        """True where the driver gave up on a job that ended all the same: how long it polls only the call shows."""
        return self._call.ret == ETIMEDOUT and job.ended - job.submitted >= _POLLS and not self.model.polls_for_ever

    # ---- driving ----------------------------------------------------------------------------------------

    def run(self, call: DriverCall) -> DriverAnswer:
        """Return what the driver does with a call; calls come in the order of their entries."""
        self._call, self._answer = call, DriverAnswer()
        answer, model = self._answer, self.model
        if call.size > _MOST:
            answer.fault = f"a source of {call.size:,} bytes, which zswap does not ask for"
            return answer
        table = model.table[call.cpu]
        job = self._jobs.next("compress" if call.compress else "decompress", call.page)
        self._expect(call, table, job)
        model.enabled = self._enabled(call)
        # Where the object lay is not known: then what the driver did with it says it.
        entries = call.entries or (2 if job is None and (call.nested or call.ret == EIO) else 1)
        request = _request(call, entries)
        errors: list[int] = []
        request.complete = errors.append
        try:
            answer.ret = model.compress(request) if call.compress else model.decompress(request)
            model.interrupt()
        except _NoInterrupt:
            pass
        except (KernelFault, NeverCompletes) as problem:
            answer.fault = str(problem)
            return answer
        if not model.enabled and self._off is None:
            self._off = call
        if answer.ret == EINPROGRESS:
            answer.final = (errors[0], request.dlen) if errors else None
        else:
            answer.dlen = request.dlen
        model.table[call.cpu] = table
        if call.end_cpu != call.cpu:
            # Whose turn it took is not known.
            self._placed -= {call.cpu, call.end_cpu}
        return answer

    def turned_off(self, call: DriverCall) -> bool:
        """True where the driver had turned itself off before a call: whatever its devices do, that returns -ENODEV."""
        if self._off is None:
            return False
        over = self._off.done if self.model.use_irq else self._off.end
        return 0 <= over <= call.number

    def hung(self, call: DriverCall) -> None:
        """Follow a call that never returned: its jobs are its own, and its turn may have been taken."""
        self._placed.discard(call.cpu)
        self._jobs.take("compress" if call.compress else "decompress", call.page)
        if call.compress:
            self._jobs.take("verify", call.page)

    def _expect(self, call: DriverCall, table: WqTable, job: DeviceJob | None) -> None:
        """Say which queues a call can use, and have the model use the one that the call's job was on."""
        used = None if job is None else self._wqs.get((job.device, job.queue))
        self._possible = ()
        if not call.alone:
            if call.cpu in self._placed:
                table.next_wq()
            self.model.table[call.cpu] = WqTable([used]) if used is not None else WqTable(list(table.wqs))
        elif call.cpu in self._placed:
            self._possible = (table.wqs[(table.cur_wq + 1) % len(table.wqs)],)
        else:
            self._possible = tuple(table.wqs) if self._sure else ()
            if used in table.wqs:
                table.cur_wq = (table.wqs.index(used) - 1) % len(table.wqs)
                self._placed.add(call.cpu)

    def _enabled(self, call: DriverCall) -> bool:
        """True unless a call finds the driver turned off."""
        # While the driver turned itself off, a call may have been let through, or not.
        return self._off is None or (call.ret != ENODEV and not self.turned_off(call))


def _request(call: DriverCall, entries: int) -> AcompRequest:
    # What the buffers hold does not matter here: no byte of them is read.
    half = call.size // 2
    src = [Scatterlist(bytes(size)) for size in ((call.size,) if entries == 1 else (half, call.size - half))]
    return AcompRequest(src, sg_init_one(bytearray(PAGE_SIZE)), call.size, call.room, cpu=call.cpu)
