# SPDX-License-Identifier: GPL-2.0-or-later
"""The model of iaa_crypto, played with the completion records that the emulated devices wrote.

What hardware, or the emulation, makes of a page is not the driver's doing: the model of the driver
(:mod:`model.crypto.iaa`, or :mod:`model.crypto.iaa_posted` of a posting) takes each record from the job log.  All else
it predicts: which queue a CPU uses, which descriptors there are, what it makes of a record, when it goes to software,
and what it counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from model.crypto.acomp import AcompV8
from model.crypto.faults import ANALYTICS_ERROR, NO_COMPLETION, FaultPlan
from model.crypto.iaa import KERNEL_DEFECTS, IaaCrypto
from model.crypto.iaa_device import IaaDevice, Record, StandIn, Topology, Wq, WqTable
from model.crypto.iaa_posted import IaaPosted, IaaReq
from model.crypto.iaa_posted_wqs import WqsV8
from model.crypto.layers import POSTINGS, acomp_for
from model.crypto.request import (
    AcompAlg,
    AcompRequest,
    KernelFault,
    NeverCompletes,
    Scatterlist,
    as_int32,
    sg_init_one,
)
from model.errno import E2BIG, EINPROGRESS, EINVAL, EIO, ENODEV, EOVERFLOW, ETIMEDOUT
from model.page import PAGE_SIZE
from replay.iaa.calls import DriverCall
from replay.iaa.changes import QueueChange
from replay.iaa.jobs import DeviceJob, JobsByPage
from traces.deviceclock import NO_QUEUE, STRUCT_PAGE
from traces.lab.iaa.descriptors import Analytics, Compress, Decompress, Flag, Status
from traces.lab.iaa.joblog import QUEUE_OFF, QUEUE_ON

__all__ = ["DescriptorWords", "DriverAnswer", "PlayedDriver", "descriptor_words", "driver_line"]

#: IAA_COMP_FLAGS and IAA_DECOMP_FLAGS (drivers/crypto/intel/iaa/iaa_crypto.h).
_COMP_HOW: Final = int(Compress.FLUSH_OUTPUT | Compress.APPEND_EOB)
_DECOMP_HOW: Final = int(Decompress.ENABLE | Decompress.FLUSH_OUTPUT | Decompress.CHECK_FOR_EOB
                         | Decompress.STOP_ON_EOB)
#: Bytes of the largest source that is followed: zswap asks for a page, or an object.
_MOST: Final = 2 * PAGE_SIZE
#: Postings whose driver is played.
_PLAYED: Final = frozenset({"v8", "v12", "v14"})
#: Nanoseconds that IAA_COMPLETION_TIMEOUT's 1,000,001 looks at a record take at least.
_POLLS: Final = 1_000_000


class DescriptorWords(NamedTuple):
    """What a descriptor says besides addresses: operation, flags, compression flags, source bytes, room."""

    op: str
    flags: int
    how: int
    size: int
    room: int


def descriptor_words(kind: str, size: int, room: int, *, irq: bool, dynamic: bool = False) -> DescriptorWords:
    """Return what iaa_compress(), iaa_decompress() or iaa_compress_verify() put into a descriptor.

    Those of mainline and of v14.

    :param kind: ``compress``, ``decompress``, or ``verify``, which never asks for an interrupt
    :param dynamic: of deflate-iaa-dynamic, whose blocks have codes that the device makes (IAA_COMP_GEN_HDR_1_PASS)
    """
    flags = Flag.CRAV | Flag.RCR | Flag.CC | (Flag.RCI if irq and kind != "verify" else 0)
    if kind == "compress" and dynamic:
        return DescriptorWords("compress", int(flags), _COMP_HOW | int(Compress.GEN_HDR_1_PASS), size, room)
    if kind == "compress":
        return DescriptorWords("compress", int(flags | Flag.RD_SRC2_AECS), _COMP_HOW, size, room)
    how = _DECOMP_HOW | (Decompress.SUPPRESS_OUTPUT if kind == "verify" else 0)
    return DescriptorWords("decompress", int(flags), int(how), size, room)


def driver_line(line: tuple[int, int] | None, layer: str) -> str | None:
    """Return which of the modelled drivers a kernel (major, minor) has, None where none of them is known to be its.

    :param layer: the crypto layer of the revision; a posting has a driver of its own, whatever it was applied to
    """
    if layer in POSTINGS:
        return layer if POSTINGS[layer] in _PLAYED else None
    name = "" if line is None else f"{line[0]}.{line[1]}"
    return name if name in KERNEL_DEFECTS else None


class _NoInterrupt(Exception):
    """A job of a call that an interrupt was to end was lost: the call never ends."""


@dataclass
class DriverAnswer:
    """What the model says of one call.

    ``ret``, ``dlen``: as the call returns them, ``dlen`` None where an interrupt writes it; ``submitted``: (queues that
    it can be, none where that is not known; words; the job taken for it, None where the devices saw none);
    ``software``: calls of the software fallback, of which those in ``inside`` were made; ``final``: error and dlen
    that the interrupt left, None where the call returned them or none came; ``lengths``: what a call of several
    pages leaves as each one's length, or errno; ``early``: dlen where the interrupt comes before the call returns, 0
    for the same; ``unwritten``: it failed before it wrote a length; ``fault``: why the model cannot continue; ``met``:
    queues were taken away or given back meanwhile; ``taken``: error and length are the recorded ones, as that is why
    the call failed.
    """

    ret: int = 0
    dlen: int | None = None
    final: tuple[int, int] | None = None
    submitted: list[tuple[tuple[Wq, ...], DescriptorWords, DeviceJob | None]] = field(default_factory=list)
    software: int = 0
    inside: list[DriverCall] = field(default_factory=list)
    lengths: tuple[int, ...] = ()
    early: int = 0
    unwritten: bool = False
    fault: str = ""
    met: bool = False
    taken: bool = False

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


class _Posted(IaaPosted):
    """A posted driver, which says of which page of a batch a job is."""

    play: PlayedDriver

    def _submit(self, job: IaaReq, wq: Wq, *, comp: bool, irq: bool = False) -> int:
        self.play.page, busy = job.page or 0, wq.busy
        if self.play.no_descriptor("compress" if comp else "decompress", wq):
            wq.busy = wq.size
        try:
            return super()._submit(job, wq, comp=comp, irq=irq)
        finally:
            wq.busy = busy

    def _finish(self, job: IaaReq, wq: Wq, *, comp: bool) -> int:
        self.play.page, busy = job.page or 0, wq.busy
        if comp and self.verify_compress and self.play.no_descriptor("verify", wq):
            wq.busy = wq.size
        try:
            return super()._finish(job, wq, comp=comp)
        finally:
            wq.busy = busy


class PlayedDriver:
    """One kernel's iaa_crypto, call by call.

    :param kernel: of :data:`model.crypto.iaa.KERNEL_DEFECTS`, or a posting (:data:`model.crypto.layers.POSTINGS`)
    :param devices: how many; all have as many queues
    :param wqs: queues of each
    :param depth: descriptors of each queue
    :param nodes: NUMA node of each possible CPU
    :param sure: these are known; else which queues a CPU has is not compared
    :param mode: sync_mode
    :param verify: verify_compress
    :param jobs: what the devices saw
    :param dynamic: the compressor is deflate-iaa-dynamic
    """

    def __init__(self, kernel: str, devices: int, wqs: int, depth: int, nodes: tuple[int, ...], mode: str,
                 verify: bool, jobs: JobsByPage, *, sure: bool, dynamic: bool = False) -> None:
        bound = [IaaDevice(n, [Wq(n, k, depth) for k in range(wqs)]) for n in range(devices)]
        topology = Topology(nodes, (0,) * len(nodes), len(nodes))
        posting = POSTINGS.get(kernel)
        self.model: IaaCrypto | IaaPosted
        if posting is None:
            self.model = IaaCrypto(kernel, bound, topology, sync_mode=mode, verify_compress=verify,
                                   stand_in=_Device(self), software=_Software(self))
        else:
            self.model = _Posted(posting, bound, topology, sync_mode=mode, verify_compress=verify,
                                 stand_in=_Device(self), meant=kernel == f"{posting}-meant", software=_Software(self))
            self.model.play = self
        #: v8: what a call gets is the head of a chain, and only its chains are polled
        self._chains = posting == "v8"
        self._layer = acomp_for(kernel, None, FaultPlan(), driver=lambda: self.model)
        self._jobs = jobs
        #: which page of a batch the job at hand is of
        self.page = 0
        #: the fallback of 6.12, and of v8, is the crypto layer's old interface, which no probe shows
        self.shows_software = kernel not in ("6.12", "v8")
        self._call: DriverCall
        self._answer: DriverAnswer
        self._sure, self._dynamic = sure, dynamic
        self._wqs = {wq.key: wq for device in bound for wq in device.wqs}
        #: the queues that the job of each page of the call at hand can use, none where that is not known
        self._possible: dict[int, tuple[Wq, ...]] = {}
        #: (CPU, operation) -> places in their table at which the next call may begin; what is not here is not known
        self._places: dict[tuple[int, bool], set[int]] = {}
        #: the call during which the driver turned itself off: a completion never came
        self._off: DriverCall | None = None
        #: queues are being taken away or given back during the call at hand
        self._meets = False
        #: the last call with a job that took long enough for the driver to give up on it
        self._slow: DriverCall | None = None

    @property
    def races(self) -> bool:
        """True where the interrupt of a posted driver and the call write the same length: either's is counted."""
        return isinstance(self.model, IaaPosted) and self.model.use_irq and not self.model.meant

    # ---- what the model asks ----------------------------------------------------------------------------

    def perform(self, kind: str, size: int, room: int) -> Record:
        """A descriptor was submitted: return the record that its job left."""
        job = self._jobs.take(kind, self._call.page + self.page * STRUCT_PAGE, self._call)
        # The jobs of a batch are polled in each mode.
        irq = self.model.use_irq and self._call.pages == 1 and not self._chains
        words = descriptor_words(kind, size, room, irq=irq, dynamic=self._dynamic)
        self._answer.submitted.append((self._possible.get(self.page, ()), words, job))
        wq = None if job is None else self._wqs.get((job.device, job.queue))
        if wq is not None:
            # Its check goes to the same queue.
            self._possible[self.page] = (wq,)
        if job is None:
            # The devices saw none.  A job that never completes would turn the driver off.
            return Record(EINVAL)
        if job.lost and kind != "verify" and irq:
            raise _NoInterrupt
        if job.lost and self._call.pages > 1 and not (self._chains and self.model.sync_mode != "async"):
            raise NeverCompletes(f"the job of page {self.page} of a batch never completes, which is polled for ever")
        if job.lost or self._polled_out(kind, job):
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

    def _polled_out(self, kind: str, job: DeviceJob) -> bool:
        """True where the driver gave up on a job that ended all the same: how long it polls only the call shows."""
        if job.ended - job.submitted < _POLLS or self.model.polls_for_ever:
            return False
        call = self._call
        if kind == "compress" and self._jobs.next("verify", call.page + self.page * STRUCT_PAGE, call) is not None:
            # The driver checked the result behind it.
            return False
        if call.ret != ETIMEDOUT:
            # Of a batch, or behind an interrupt, the call does not say it: the next one may.
            self._slow = call
            return False
        return job.status != Status.WATCHDOG

    # ---- driving ----------------------------------------------------------------------------------------

    @property
    def cpus(self) -> int:
        """How many CPUs there are."""
        return self.model.topology.nr_cpus

    def begin(self, lines: Sequence[DeviceJob]) -> None:
        """Follow what gave the driver queues, and took some away, before the recording; all of them where the log does
        not say.

        :param lines: of the log, in order
        """
        taken = next((number for number, line in enumerate(lines) if line.op == QUEUE_OFF), -1)
        # Queues that were enabled before any was disabled are those that the driver begins with, in any case.
        for line in lines[taken:] if taken >= 0 else ():
            wq = self._wqs.get((line.device, line.queue))
            if wq is not None:
                self._bind(wq, line.op == QUEUE_ON)

    def _bind(self, wq: Wq, on: bool) -> None:
        """The driver is given a queue, or loses it; nothing where that is so already (a device that was reset)."""
        if any(wq in device.wqs for device in self.model.devices) != on:
            (self.model.probe if on else self.model.remove)(wq)

    def change(self, change: QueueChange, met: Collection[int]) -> None:
        """Follow what gave the driver a queue or took one away; its tables are new then, and all turns begin.

        :param met: CPUs whose turn may have been taken while that was done
        """
        wq = self._wqs.get(change.queue) if change.queue is not None and change.took else None
        if wq is None:
            return
        first = not self.model.devices
        self._bind(wq, change.on)
        if first or not isinstance(self.model, IaaCrypto):
            # The driver turns itself on.
            self._off = self._slow = None
        self._places = {}
        for comp in (False, True):
            for cpu, table in enumerate(self._tables(comp)):
                if cpu not in met and table.wqs:
                    self._places[cpu, comp and self._posted] = {self._first(table)}

    def run(self, call: DriverCall, meets: bool = False) -> DriverAnswer:
        """Return what the driver does with a call; calls come in the order of their entries.

        :param meets: queues are being taken away or given back during it
        """
        self._call, self._answer, self.page, self._meets = call, DriverAnswer(met=meets), 0, meets
        answer, model = self._answer, self.model
        if call.size < 0 or call.size > (model.batch_size * PAGE_SIZE if call.compress and call.pages > 1 else _MOST):
            answer.fault = f"a source of {call.size:,} bytes, which zswap does not ask for"
            return answer
        tables = self._tables(call.compress)
        table, jobs = tables[call.cpu], self.next_jobs(call)
        if meets and isinstance(model, IaaCrypto) and call.ret in NO_QUEUE:
            # Its queue was stopped, gone, or in no table, at some point of its way.
            made = jobs[0] if call.compress else None
            if made is not None and made.status == Status.SUCCESS and (made.device, made.queue) in self._wqs:
                # It was the check that found none.
                model.stats.submitted((made.device, made.queue), comp=True)
                model.stats.succeeded((made.device, made.queue), made.out, comp=True)
            self.hung(call)
            answer.ret, answer.dlen, answer.taken = call.ret, call.dlen, True
            return answer
        follows = self._expect(call, tables, jobs)
        before = table.cur_wq
        # A posted driver is off while it takes a queue away.
        off = meets and not any(jobs) and isinstance(model, IaaPosted)
        model.enabled = self._enabled(call) and bool(model.devices) and not off
        was_on = model.enabled
        # Where the object lay is not known: then what the driver did with it says it.
        entries = call.entries or (2 if jobs == [None] and (call.nested or call.ret == EIO) else 1)
        chain = [_request(call, entries, isinstance(model, IaaPosted)) for _ in range(call.requests)]
        request = chain[0]
        errors: list[int] = []
        request.complete = errors.append
        try:
            if len(chain) > 1 and isinstance(self._layer, AcompV8):
                for number, each in enumerate(chain):
                    each.page = number
                answer.ret = self._layer.compress_chain(chain)
            else:
                answer.ret = self._layer.submit(request, comp=call.compress)
            model.interrupt()
        except _NoInterrupt:
            pass
        except (KernelFault, NeverCompletes) as problem:
            answer.fault = str(problem)
            return answer
        if was_on and not model.enabled and self._off is None:
            self._off = call
        if answer.ret == EINPROGRESS:
            answer.final = (errors[0], as_int32(request.dlen)) if errors else None
            if self.races and call.compress:
                # iaa_crypto_acomp_acompress_main() writes the length behind the submission, whatever has come since.
                answer.early = EINPROGRESS
        else:
            answer.dlen = request.dlen
        answer.unwritten = call.compress and isinstance(model, IaaPosted) and model.left_lengths
        if len(chain) > 1:
            answer.lengths = tuple(each.chain_err or as_int32(each.dlen) for each in chain)
        elif call.pages > 1:
            answer.lengths = tuple(as_int32(entry.length) for entry in request.dst_sg())
        tables[call.cpu] = table
        if follows:
            self._move_on(call, table, table.cur_wq - before)
        if call.end_cpu != call.cpu:
            # Whose turn it took is not known.
            self._forget(call.cpu, call.end_cpu)
        return answer

    def no_descriptor(self, kind: str, wq: Wq) -> bool:
        """True where the job at hand was not submitted, and other calls may have held its queue's descriptors."""
        call = self._call
        if self._jobs.next(kind, call.page + self.page * STRUCT_PAGE, call) is not None:
            return False
        if self._meets:
            return True
        # A descriptor is held until its job was polled; a check comes before that.
        own = call.pages - self.page if kind == "verify" else self.page
        return own + call.others >= wq.size

    def next_jobs(self, call: DriverCall) -> list[DeviceJob | None]:
        """Return the job of each page of a call, None where the devices saw none."""
        kind = "compress" if call.compress else "decompress"
        return [self._jobs.next(kind, call.page + k * STRUCT_PAGE, call) for k in range(call.pages)]

    def _tables(self, comp: bool) -> list[WqTable]:
        """Return the tables of all CPUs that the queues are taken from; postings have two."""
        if isinstance(self.model, IaaCrypto):
            return self.model.table
        wqs = self.model.wqs
        if isinstance(wqs, WqsV8):
            # Those of a package would be for compressions, if there were any: g_wqs_per_iaa is 0.
            return wqs.local
        return wqs.comp if comp else wqs.decomp

    def turned_off(self, call: DriverCall) -> bool:
        """True where the driver had turned itself off before a call: whatever its devices do, that returns -ENODEV."""
        if self._off is None:
            return False
        over = self._off.done if self.model.use_irq else self._off.end
        return 0 <= over <= call.number

    def hung(self, call: DriverCall) -> None:
        """Follow a call that never returned: its jobs are its own, and its turn may have been taken."""
        self._forget(call.cpu)
        for k in range(call.pages):
            page = call.page + k * STRUCT_PAGE
            self._jobs.take("compress" if call.compress else "decompress", page, call)
            if call.compress:
                self._jobs.take("verify", page, call)

    @property
    def _posted(self) -> bool:
        """Compressions have a table of their own, and a job takes its queue before it moves on."""
        return isinstance(self.model, IaaPosted) and not self._chains

    def _first(self, table: WqTable) -> int:
        """Return the place in a table at which the next call begins: mainline moves on and takes the queue there,
        postings take the one and move on."""
        return table.cur_wq if self._posted else (table.cur_wq + 1) % len(table.wqs)

    def _forget(self, *cpus: int) -> None:
        """Whose turn it is on these CPUs is not known any more."""
        for cpu in cpus:
            for comp in (False, True):
                self._places.pop((cpu, comp), None)

    def _move_on(self, call: DriverCall, table: WqTable, turns: int) -> None:
        """A call took N turns, or as many more as make the round."""
        place = call.cpu, call.compress and self._posted
        if place in self._places and table.wqs:
            self._places[place] = {(first + turns) % len(table.wqs) for first in self._places[place]}

    def _expect(self, call: DriverCall, tables: list[WqTable], jobs: list[DeviceJob | None]) -> bool:
        """Say which queues a call's jobs can use, and have the model use those that they were on.

        Return whether the turns that the model takes are the call's.
        """
        table = tables[call.cpu]
        used = [None if job is None else self._wqs.get((job.device, job.queue)) for job in jobs]
        place = call.cpu, call.compress and self._posted
        count = len(table.wqs)
        self._possible = {}
        if not count and not any(used):
            return False
        if not call.alone or not self._sure or self._meets:
            if None in used:
                # Whether it took its turn is not known: mainline goes to software before, or after.
                self._places.pop(place, None)
            self._move_on(call, table, call.pages)
            tables[call.cpu] = WqTable([wq or table.wqs[0] for wq in used] if any(used) else list(table.wqs))
            return False
        # A page that got no descriptor took its turn, too.
        firsts = self._places.get(place) or set(range(count))
        for k, wq in enumerate(used):
            self._possible[k] = tuple(dict.fromkeys(table.wqs[(first + k) % count] for first in sorted(firsts)))
            # A queue that was taken away and given back is in a posting's table twice.
            firsts = {first for first in firsts if wq is None or table.wqs[(first + k) % count] is wq} or firsts
        if any(used) or place in self._places:
            self._places[place] = firsts
        first = min(firsts)
        table.cur_wq = first if self._posted else (first - 1) % count
        return True

    def _enabled(self, call: DriverCall) -> bool:
        """True unless a call finds the driver turned off."""
        if self._off is None and self._slow is not None and call.ret == ENODEV:
            self._off = self._slow
            return False
        # While the driver turned itself off, a call may have been let through, or not.
        return self._off is None or (call.ret != ENODEV and not self.turned_off(call))


def _request(call: DriverCall, entries: int, posted: bool) -> AcompRequest:
    # What the buffers hold does not matter here: no byte of them is read.
    unit = PAGE_SIZE if posted else 0
    if call.compress:
        # zswap of the postings gives each page of a folio a buffer of its own.
        dst = [Scatterlist(bytearray(PAGE_SIZE)) for _ in range(call.size // PAGE_SIZE or 1)]
        if call.pages > 1 and call.requests == 1:
            dst[0].length = call.room
        return AcompRequest([Scatterlist(bytes(call.size))], dst, call.size, call.room, unit, cpu=call.cpu,
                            page=0 if call.pages > call.requests else None)
    half = call.size // 2
    src = [Scatterlist(bytes(size)) for size in ((call.size,) if entries == 1 else (half, call.size - half))]
    return AcompRequest(src, sg_init_one(bytearray(PAGE_SIZE)), call.size, call.room, unit, cpu=call.cpu)
