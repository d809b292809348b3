# SPDX-License-Identifier: GPL-2.0-or-later
"""iaa_crypto as posted with zswap's compress batching: v8, v12 and v14 (the postings' driver patches).

Different from mainline: queues by package (:mod:`model.crypto.iaa_posted_wqs`); descriptors are not waited for
but tried 1000 times (500 to decompress or verify), then a compression is an error (-EAGAIN in v8, else -ENODEV)
and a decompression goes to software, as it does after any other error; async is the default and verifying is
off (v12 15/23, 16/23; v14 19/26, 20/26); up to 8 jobs are submitted before the first is waited for.

All three were compared with kernels that carry them, on emulated devices (docs/matrix.md).  Read in the
postings: v8 01-11/14, v12 02-19/23, v14 03-22/26.  As posted, each visible where marked:

======  =========================================================================================================
L2      v14: an error found when a job *completes* never reaches the caller: it is kept in `slen`, which is
        unsigned, and checked with `< 0`.  Lengths do show it.  Errors at submission are returned.
L3      v14, v12: with the algorithm unregistered, -ENODEV leaves every length as it was.
L3b     v14: the same for a batch follows a wait-queue as its per-CPU context: KernelFault.
L10     v14: a context of 4 bytes holds an 8-byte pointer.  Cannot be shown: a model has no such memory.
L11     v14, v12 with async_irq: -EINPROGRESS is written as length after submission, over the length of a job
        whose interrupt came before (`irq` "early"); the call then succeeds with a length of -115.
L12     v14: init_fixed sets a local variable.  Cannot be shown: nothing reads what it should have set.
L18     v14: the length -EAGAIN stands for "pending", so a job that fails with it is polled for ever.
-       v14: a batch *decompression* through the crypto layer takes the per-CPU mutex and never releases it:
        KernelFault.  zswap never asks for one.
-       v12: a request without a unit size, such as zram's: KernelFault (division by 0).
-       v12 with async_irq: a batch's lengths go through a pointer that is not set: KernelFault (seen: a panic at the
        first large folio).  v8 with async_irq never uses interrupts.
L18     v8: a check that gets no descriptor returns -EAGAIN when the job's own is already freed.  It is polled again,
        and freed again (seen: a panic).
======  =========================================================================================================

`meant` (v14 only) is what the posting's text says instead: completion errors are returned, every length is
written, pending is kept apart from errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from ..errno import E2BIG, EAGAIN, EINPROGRESS, EINVAL, EIO, ENODEV
from ..page import PAGE_SIZE
from .acomp_deflate import DeflateGeneric
from .faults import ANALYTICS_ERROR, FaultPlan
from .iaa import IaaDriver
from .iaa_device import IaaDevice, StandIn, Topology, Wq
from .iaa_posted_wqs import DriverAttributes, WqsV8, WqsV12
from .request import AcompAlg, AcompRequest, KernelFault, NeverCompletes, Scatterlist, SgList, as_int32

__all__ = [
    "IAA_ALLOC_DESC_COMP_TIMEOUT",
    "IAA_ALLOC_DESC_DECOMP_TIMEOUT",
    "IAA_CRYPTO_MAX_BATCH_SIZE",
    "IaaPosted",
    "IaaReq",
    "submit_order",
]

IAA_CRYPTO_MAX_BATCH_SIZE: Final = 8
IAA_ALLOC_DESC_COMP_TIMEOUT: Final = 1000  # tries
IAA_ALLOC_DESC_DECOMP_TIMEOUT: Final = 500


class IaaReq:
    """`struct iaa_req`: one page's job; `submitted_on` is the queue that holds its descriptor."""

    def __init__(self, src: SgList, dst: SgList, slen: int, dlen: int, page: int | None, cpu: int) -> None:
        self.src, self.dst = src, dst
        self.slen, self.dlen = slen, dlen
        self.page, self.cpu = page, cpu
        self.submitted_on: Wq | None = None
        self.analytics_error = False


def submit_order(slens: Sequence[int]) -> list[int]:
    """`get_decompress_batch_submit_order` (v14 17/26): the two largest sources first, the rest in order."""
    largest = second = 0
    for i, slen in enumerate(slens):
        if slen >= slens[largest]:
            second, largest = largest, i
        elif second == largest or slen > slens[second]:
            second = i
    first = [largest] if second == largest else [largest, second]
    return first + [i for i in range(len(slens)) if i not in first]


class IaaPosted(IaaDriver):
    """The driver of one posting.  `settings`: its queue attributes; `software`: in place of the generic driver it
    falls back to; `polls`: see below.

    A batch is polled in passes; a job is found complete in the first pass, unless `polls` says by job index how
    many passes find it pending.
    """

    batch_size = IAA_CRYPTO_MAX_BATCH_SIZE

    def __init__(
        self,
        posting: Literal["v8", "v12", "v14"] = "v14",
        devices: Sequence[IaaDevice] | None = None,
        topology: Topology | None = None,
        *,
        settings: DriverAttributes | None = None,
        sync_mode: str = "async",
        verify_compress: bool = False,
        stand_in: StandIn | None = None,
        faults: FaultPlan | None = None,
        irq: Literal["late", "early"] = "late",
        meant: bool = False,
        software: AcompAlg | None = None,
    ) -> None:
        if posting not in ("v8", "v12", "v14"):
            raise ValueError(f"no iaa_crypto was modelled of posting {posting!r}: v8, v12, v14")
        if meant and posting != "v14":
            raise ValueError(f"only v14 is modelled as meant, not {posting}")
        topology = topology or Topology.regular()
        self.posting = posting
        self.meant = meant
        self.req_seg = posting == "v14"
        self.registered = True
        #: the last call failed before it wrote any length
        self.left_lengths = False
        self._batch: list[IaaReq] = []
        self._refused = 0
        self.polls: dict[int, int] = {}
        self.submitted: list[int | None] = []  # the jobs of the last batch in the order of submission, by page
        self.alloc_retries = 0  # tries beyond the first, all jobs together
        if settings is None:
            settings = DriverAttributes(g_comp_wqs_per_iaa=0) if posting == "v8" else DriverAttributes()
        self.wqs: WqsV8 | WqsV12 = (WqsV8 if posting == "v8" else WqsV12)(topology, settings)
        # v8's base has the linear fallback, v12's and v14's bases (6.17, 6.19) deflate-generic of their time.
        self._fallback: AcompAlg = software or DeflateGeneric(frozenset({"deflate_window", "deflate_enospc"}))
        super().__init__(
            IaaDevice.several(1, 2) if devices is None else devices,
            topology,
            sync_mode=sync_mode,
            verify_compress=verify_compress,
            stand_in=stand_in,
            faults=faults,
            irq=irq,
            has_sw_comp=False,
        )

    def _rebalance(self, enabled: bool) -> bool:
        if isinstance(self.wqs, WqsV12):
            return self.wqs.rebalance(self._devices, enabled)
        return self.wqs.rebalance(self._devices)

    def _probed(self) -> None:
        first = sum(len(device.wqs) for device in self._devices) == 1
        self.enabled = self._rebalance(self.enabled)
        if first and self.enabled:
            # Once more, when it has registered the algorithm.
            self.enabled = self._rebalance(True)
        self.registered = True

    def _removed(self) -> None:
        if self._devices:
            # It is off meanwhile.
            self.enabled = self._rebalance(False)
            return
        self.enabled = False
        if self.posting != "v8":
            self.registered = False  # the last queue takes the algorithm with it

    def unregister(self) -> None:
        """`iaa_unregister_compression_device`, while a pool still holds the tfm."""
        self.registered = False
        self.enabled = False

    def fallback(self) -> AcompAlg:
        return self._fallback

    # one request

    def compress(self, request: AcompRequest) -> int:
        """`iaa_crypto_acomp_acompress_main`: one page, or submits a batch (v14) or does it all (v12)."""
        self.left_lengths = False
        if self.posting == "v8":
            return self._compress_v8(request)
        if not self.registered:
            return self._unregistered(request)
        self._check_unit(request.unit_size, request.slen)
        if request.unit_size and request.slen != request.unit_size:
            jobs = self._compress_jobs(request)
            return self._batch_v12(jobs, comp=True) if self.posting == "v12" else self.submit_batch(jobs)
        job = _job(request)
        if self.use_irq:
            return self._single_irq(request, job, comp=True)
        ret = self._compress_one(job, poll=False)
        _iaa_to_acomp(request, ret or job.dlen)
        return ret

    def decompress(self, request: AcompRequest) -> int:
        """`iaa_crypto_acomp_adecompress_main`."""
        if self.posting != "v8":
            if not self.registered:
                return self._unregistered(request)
            self._check_unit(request.unit_size, request.dlen)
            if request.unit_size and request.dlen != request.unit_size:
                if self.posting == "v12":
                    jobs = self.decompress_jobs(request)
                    order = submit_order([job.slen for job in jobs])
                    return self._batch_v12(jobs, comp=False, order=order)
                raise KernelFault("v14: a batch decompression takes the per-CPU mutex and never releases it")
            if self.use_irq:
                return self._single_irq(request, _job(request), comp=False)
        elif not self.enabled:
            return ENODEV
        job = _job(request)
        ret = self._decompress_one(job, poll=False)
        if self.posting == "v8":
            request.dlen = job.dlen
        else:
            _iaa_to_acomp(request, ret if ret and self.posting == "v12" else job.dlen)
        return ret

    def fail_lengths(self, request: AcompRequest, err: int, *, comp: bool) -> None:
        """v12 and v14 write the error as every job's length, and as `dlen`; v14's decompression the room."""
        if self.posting == "v8" or not isinstance(request.dst, list):
            return
        if not comp:
            _iaa_to_acomp(request, err if self.posting == "v12" else request.dlen)
            return
        for entry in request.dst[: request.slen // request.unit_size if request.unit_size else 1]:
            entry.length = err
        request.dlen = err

    def _check_unit(self, unit_size: int, size: int) -> None:
        if not unit_size and self.posting == "v12":
            raise KernelFault("v12: iaa_crypto divides by a unit_size of 0: only zswap sets one")
        if size < unit_size and self.posting == "v14":
            raise KernelFault(f"v14: {size} bytes are a batch of 0 jobs, which never releases the per-CPU mutex")

    def _unregistered(self, request: AcompRequest) -> int:
        if self.meant:
            self.fail_lengths(request, ENODEV, comp=True)
        self.left_lengths = not self.meant
        return ENODEV

    def _compress_v8(self, request: AcompRequest) -> int:
        if not self.enabled:
            return ENODEV
        # Without CRYPTO_ACOMP_REQ_POLL the job is waited for in every mode, async_irq included.
        job = _job(request)
        ret = self._compress_one(job, poll=False)
        request.dlen = job.dlen
        return ret

    def _single_irq(self, request: AcompRequest, job: IaaReq, *, comp: bool) -> int:
        """async_irq: `dlen` and the length are written when the call returns, whenever the interrupt came."""
        wq, err = self._prepare(job, comp=comp)
        if wq is not None and self._submit(job, wq, comp=comp, irq=True):
            wq = None
        if wq is None:
            if comp:
                err = err or self._refused
            elif self._to_software(err):
                err = self._software(job)
            _iaa_to_acomp(request, err if err and (comp or self.posting == "v12") else job.dlen)
            return err

        def completion() -> None:
            ret = self._finish(job, wq, comp=comp)
            if ret and not comp and job.analytics_error:
                ret = self._software(job)
            _iaa_to_acomp(request, ret or job.dlen)
            if request.complete:
                request.complete(EIO if ret else 0)

        self._pend(completion)
        if not self.meant:
            _iaa_to_acomp(request, EINPROGRESS if comp or self.posting == "v12" else PAGE_SIZE)
        return EINPROGRESS

    # jobs

    def _prepare(self, job: IaaReq, *, comp: bool) -> tuple[Wq | None, int]:
        """Check the arguments, choose a queue and map: (the queue, 0) or (None, errno)."""
        if not job.src or not job.slen or not job.dst:
            return None, EINVAL
        wq = (self.wqs.next_comp if comp else self.wqs.next_decomp)(job.cpu) if self.enabled else None
        if wq is None or wq.removed:
            return None, ENODEV
        if self.faults.hit("dma_map", page=job.page):
            return None, EIO
        return wq, 0

    def _to_software(self, err: int) -> bool:
        """Whether a decompression that got no queue or no descriptor (err 0) goes to software."""
        return not err or (err == ENODEV and self.posting != "v8")

    def _submit(self, job: IaaReq, wq: Wq, *, comp: bool, irq: bool = False) -> int:
        """Allocate a descriptor and submit it: 0 or an errno, which `_refused` keeps."""
        self._refused = EAGAIN if self.posting == "v8" else ENODEV
        # Nothing else runs while it tries, so a full queue stays full for all the tries.
        tries = IAA_ALLOC_DESC_COMP_TIMEOUT if comp else IAA_ALLOC_DESC_DECOMP_TIMEOUT
        if wq.full or self.faults.hit("descriptor", page=job.page):
            self.alloc_retries += tries - 1
            return self._refused
        # v12 and v14 store it to the device's portal, which cannot fail, unless an interrupt is wanted.
        if irq or self.posting == "v8":
            fault = self.faults.hit("submit", page=job.page)
            if fault:
                self._refused = fault.error
                return fault.error
        wq.in_flight += 1
        self.stats.submitted(wq.key, comp=comp)
        job.submitted_on = wq
        return 0

    def _finish(self, job: IaaReq, wq: Wq, *, comp: bool) -> int:
        """`check_completion` and what follows it; frees the descriptor."""
        wq.in_flight -= 1
        job.submitted_on = None
        data = job.src[0].read(job.slen) if comp else _as_dma(job)
        run = self._compress_job if comp else self._decompress_job
        record = run(data, job.dlen, job.page)
        job.analytics_error = record.error in (ANALYTICS_ERROR, E2BIG)
        err = self.check_completion(record, comp=comp)
        if err:
            return err
        job.dst[0].write(record.output)
        job.dlen = record.size
        self.stats.succeeded(wq.key, job.dlen if comp else job.slen, comp=comp)
        if not comp or not self.verify_compress:
            return 0
        if wq.full:
            self.alloc_retries += IAA_ALLOC_DESC_DECOMP_TIMEOUT - 1
            return EAGAIN if self.posting == "v8" else ENODEV
        return self._verify(record, job.slen, job.page)

    def _compress_one(self, job: IaaReq, *, poll: bool) -> int:
        """`iaa_comp_acompress`: -EINPROGRESS with `poll` once it is submitted."""
        wq, err = self._prepare(job, comp=True)
        if wq is None:
            return err
        err = self._submit(job, wq, comp=True)
        if err:
            return err
        return EINPROGRESS if poll else self._finish(job, wq, comp=True)

    def _decompress_one(self, job: IaaReq, *, poll: bool) -> int:
        """`iaa_comp_adecompress`: without a queue or a descriptor, or after any error, it is software's."""
        wq, err = self._prepare(job, comp=False)
        if wq is None:
            return self._software(job) if self._to_software(err) else err
        if self._submit(job, wq, comp=False):
            return self._software(job, wq)
        if poll:
            return EINPROGRESS
        return 0 if not self._finish(job, wq, comp=False) else self._software(job, wq)

    def _software(self, job: IaaReq, wq: Wq | None = None) -> int:
        """`deflate_generic_decompress`, always with a page of room.

        :param wq: the queue that did not do it: v8 counts the bytes as its own (seen on a kernel with v8)
        """
        self.stats.count("total_sw_decomp_calls")
        request = AcompRequest(job.src, job.dst, job.slen, PAGE_SIZE)
        if self.posting == "v8":
            request.src = _linear(job)
        err = self._fallback.decompress(request)
        job.dlen = request.dlen
        if wq is not None and not err and self.posting == "v8":
            self.stats.succeeded(wq.key, job.slen, comp=False)
        return EINVAL if err and self.posting == "v8" else err

    # batches

    def _compress_jobs(self, request: AcompRequest) -> list[IaaReq]:
        """One job per unit: the source's pages, one destination entry each."""
        unit = request.unit_size
        count = request.slen // unit
        src, dst = request.src_sg()[0], request.dst_sg()
        _check_count(count, len(dst))
        first = src.offset // unit * PAGE_SIZE  # sg_page_iter: whole pages from the start of the entry's page
        jobs = []
        for k in range(count):
            page = [Scatterlist(src.buffer, first + k * PAGE_SIZE, PAGE_SIZE)]
            number = None if request.page is None else request.page + k
            jobs.append(IaaReq(page, [dst[k]], PAGE_SIZE, PAGE_SIZE, number, request.cpu))
        return jobs

    def decompress_jobs(self, request: AcompRequest) -> list[IaaReq]:
        """One job per unit of `dlen`: source entry k into destination entry k."""
        count = request.dlen // request.unit_size
        src, dst = request.src_sg(), request.dst_sg()
        _check_count(count, min(len(src), len(dst)))
        return [
            IaaReq([src[k]], [dst[k]], src[k].length, PAGE_SIZE, None if request.page is None else request.page + k,
                   request.cpu)
            for k in range(count)
        ]

    def submit_batch(self, jobs: list[IaaReq], *, comp: bool = True) -> int:
        """`iaa_comp_submit_acompress_batch` and `_adecompress_batch`: 0, or -EINVAL if a submission failed.

        A submitted job's length is -EAGAIN until :meth:`batch_completed` finds it done.
        """
        self.submitted = []
        ret = 0
        order = list(range(len(jobs))) if comp else submit_order([job.slen for job in jobs])
        for k in order:
            job, entry = jobs[k], jobs[k].dst[0]
            self.submitted.append(job.page if job.page is not None else k)
            if comp:
                entry.length = PAGE_SIZE
            err = (self._compress_one if comp else self._decompress_one)(job, poll=True)
            if err == EINPROGRESS:
                entry.length = EAGAIN
            elif err:
                entry.length = err
                ret = EINVAL
            else:
                entry.length = job.dlen
        self._batch = jobs
        return ret

    def batch_completed(self, *, comp: bool = True) -> int:
        """`iaa_comp_batch_completed`: poll in passes until every job is done; -EINVAL if one failed.

        NeverCompletes if a job fails with -EAGAIN (L18), unless `meant`.
        """
        ret, polled = 0, dict(self.polls)
        batch, self._batch = self._batch, []
        pending = [k for k, job in enumerate(batch) if as_int32(job.dst[0].length) == EAGAIN]
        while pending:
            for k in list(pending):
                if polled.get(k, 0) > 0:
                    polled[k] -= 1
                    continue
                job = batch[k]
                wq = job.submitted_on
                if wq is None:
                    raise NeverCompletes(f"job {k} of the batch has no descriptor and stays pending")
                err = self._finish(job, wq, comp=comp)
                if err == EAGAIN and not self.meant:
                    raise NeverCompletes(f"job {k} of the batch failed with -EAGAIN, which says it is pending (L18)")
                pending.remove(k)
                job.dst[0].length = err or job.dlen
                if err:
                    ret = EINVAL
        return ret

    def _batch_v12(self, jobs: list[IaaReq], *, comp: bool, order: Sequence[int] | None = None) -> int:
        """`iaa_comp_acompress_batch` of v12 14/23: errors are kept apart from lengths, and returned."""
        if self.use_irq:
            raise KernelFault("v12: in async_irq mode acomp_to_iaa() leaves the pointer to a batch's lengths unset")
        self.submitted = []
        ret, pending = 0, []
        for k in order if order is not None else range(len(jobs)):
            job = jobs[k]
            self.submitted.append(job.page if job.page is not None else k)
            if comp:
                job.dst[0].length = PAGE_SIZE
            err = (self._compress_one if comp else self._decompress_one)(job, poll=True)
            if err == EINPROGRESS:
                pending.append(k)
            elif err:
                job.dst[0].length = err
                ret = EINVAL
            else:
                job.dst[0].length = job.dlen
        for k in sorted(pending):
            job = jobs[k]
            assert job.submitted_on is not None
            err = self._finish(job, job.submitted_on, comp=comp)
            if err == EAGAIN:
                raise NeverCompletes(f"job {k} of the batch failed with -EAGAIN, which says it is pending")
            job.dst[0].length = err or job.dlen
            if err:
                ret = EINVAL
        return ret

    def compress_chain(self, requests: Sequence[AcompRequest]) -> int:
        """v8's `iaa_comp_acompress_batch`: a chain, its head first; each request's error is `chain_err`.

        In async mode all are submitted before the first is polled, and the head's error is returned; if the
        head cannot be submitted, none is, and all get its error.  Otherwise they run one after another, and
        the last one's error is returned.
        """
        if self.sync_mode != "async":
            for request in requests:
                request.chain_err = self._compress_v8(request)
            return requests[-1].chain_err
        jobs: list[tuple[AcompRequest, IaaReq]] = []
        for request in requests:
            job = _job(request)
            err = self._compress_one(job, poll=True) if self.enabled else ENODEV
            request.chain_err = err
            if request is requests[0] and err != EINPROGRESS:
                for other in requests:
                    other.chain_err = err
                return err
            if err == EINPROGRESS:
                jobs.append((request, job))
        for request, job in jobs:
            assert job.submitted_on is not None
            request.chain_err = self._finish(job, job.submitted_on, comp=True)
            request.dlen = job.dlen
            if request.chain_err == EAGAIN:
                raise NeverCompletes("a job of the chain failed with -EAGAIN, which says it is pending")
        return requests[0].chain_err


def _job(request: AcompRequest) -> IaaReq:
    return IaaReq(request.src_sg(), request.dst_sg(), request.slen, request.dlen, request.page, request.cpu)


def _iaa_to_acomp(request: AcompRequest, dlen: int) -> None:
    """`iaa_to_acomp`: a length or an errno, as the first destination entry's length and as `dlen`."""
    request.dst_sg()[0].length = dlen
    request.dlen = dlen


def _check_count(count: int, entries: int) -> None:
    if count > IAA_CRYPTO_MAX_BATCH_SIZE or count > entries:
        raise KernelFault(
            f"a batch of {count} for {IAA_CRYPTO_MAX_BATCH_SIZE} per-CPU requests and {entries} entries"
        )


def _as_dma(job: IaaReq) -> bytes:
    """What the device reads: one entry is mapped, and what lies behind it in memory is not known."""
    entry = job.src[0]
    if len(job.src) == 1 or entry.length >= job.slen:
        return entry.read(job.slen)
    return entry.read(entry.length) + b"\xff" * (job.slen - entry.length)


def _linear(job: IaaReq) -> SgList:
    """v8's fallback maps the first entry and reads on."""
    return [Scatterlist(_as_dma(job))]
