# SPDX-License-Identifier: GPL-2.0-or-later
"""crypto/acompress.c as zswap uses it: `crypto_acomp_compress` and `_decompress`, waited for.

One class per state of the file; each object is one tfm.  `algorithm` is a :class:`Compressor` of this package
(software; the class chooses how its kernel reaches it), a :class:`Synthetic` one, or a driver such as
:class:`IaaCrypto` or :class:`IaaPosted`.

    >>> from model.crypto import compressor_for
    >>> from model.crypto.acomp import Acomp7, AcompRequest, sg_init_one
    >>> buffer = bytearray(4096)
    >>> request = AcompRequest(sg_init_one(bytes(4096)), sg_init_one(buffer))
    >>> Acomp7(compressor_for("lz4", "mainline-7.3")).compress(request), request.dlen
    (0, 26)

===================  =================================================================================
Acomp612             6.12: lists only, every software algorithm below scomp with its 128 KiB scratch
AcompV8              v8 on its base of February 2025 (as 6.12), with request chains
Acomp7               7.2 and 7.3, whose files are the same; 6.18 to 7.1 by their `KERNEL_DEFECTS`
AcompV12             v12 23/23: the driver sees `unit_size`, lengths through pointers (:meth:`AcompV12.dlens`)
AcompV14             v14 as posted: units, segments, the batch's error lost (L2)
AcompV14Meant        v14 as its text says it should be
===================  =================================================================================

Defects of 2026 in this file itself, as switches (those below it: `DEFECTS` of the algorithms' modules):

`acomp_virt_to_sg`
    A folio as destination of a driver that wants lists is stored as its source, and the folio pointer stays
    as destination.  Posted in May 2026 (20260507233748.327004-1-aaron1esau@gmail.com), but against 6.15: 6.18
    and later have no folios there, so no kernel of `KERNEL_DEFECTS` has it.
`acomp_save_req`
    6.18, 6.19 and v14's base: a request that was converted and completes asynchronously finds a pointer to
    `req->chain` and takes it for the request.  Fixed in 7.0 (aeEXNL2CH8njXY0Q@gcabiddu-mobl.ger.corp.intel.com).

Not modelled: streams and scratch buffers per CPU, their locks, on-stack requests with an asynchronous tfm
(-EAGAIN), highmem, backlogs (-EBUSY).  A fault "compress" or "decompress" strikes before the algorithm does
anything; with `leave_lengths` even before this file or a driver writes lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple, TypeAlias

from ..errno import EBUSY, EINPROGRESS, EINVAL, ENOSYS
from . import acomp_deflate, acomp_zstd
from .acomp_deflate import DeflateGeneric
from .acomp_zstd import ZstdGeneric
from .base import Compressor
from .faults import Fault, FaultPlan
from .iaa_posted import IaaPosted
from .request import (
    AcompAlg,
    AcompFolio,
    AcompRequest,
    KernelFault,
    NeverCompletes,
    Scatterlist,
    SgList,
    as_int32,
    set_src_folio,
    sg_init_one,
)
from .scomp import PageAlgorithm, Scomp7, Scomp612, Synthetic, Wrapped
from .zstd import Zstd

__all__ = [
    "DEFECTS",
    "KERNEL_DEFECTS",
    "Acomp",
    "Acomp7",
    "Acomp612",
    "AcompRequest",
    "AcompV8",
    "AcompV12",
    "AcompV14",
    "AcompV14Meant",
    "Algorithm",
    "CallResult",
    "Dlen",
    "AcompFolio",
    "KernelFault",
    "NeverCompletes",
    "Scatterlist",
    "SgList",
    "Synthetic",
    "as_int32",
    "set_src_folio",
    "sg_init_one",
]

Algorithm: TypeAlias = Compressor | Synthetic | AcompAlg

DEFECTS: Final = frozenset({"acomp_save_req", "acomp_virt_to_sg"}) | acomp_deflate.DEFECTS | acomp_zstd.DEFECTS
#: kernel -> the defects of this layer it has; for `Acomp7(..., defects=KERNEL_DEFECTS["6.18"])`.
KERNEL_DEFECTS: Final[Mapping[str, frozenset[str]]] = {
    "6.18": frozenset({"acomp_save_req", "deflate_enospc", "deflate_window", "zstd_stream"}),
    "6.19": frozenset({"acomp_save_req", "deflate_enospc", "deflate_window", "zstd_stream"}),
    "7.0": frozenset({"deflate_window", "zstd_stream"}),
    "7.1": frozenset({"deflate_window", "zstd_stream"}),
    "7.2": frozenset({"deflate_window", "zstd_stream"}),
    "7.3": frozenset({"deflate_window", "zstd_stream"}),
}


class CallResult(NamedTuple):
    """What a caller finds after `crypto_wait_req(crypto_acomp_compress(req))`."""

    err: int  # its return value
    dlen: int  # req->dlen, an unsigned int
    lengths: tuple[int, ...]  # each destination entry's length, cast to int as zswap of v14 does


class Acomp:
    """One tfm, as 6.18 and later have it; `faults` is asked at the sites compress and decompress."""

    defaults: ClassVar[frozenset[str]] = frozenset()
    """The defects this class has if the caller does not say which."""

    def __init__(
        self, algorithm: Algorithm, faults: FaultPlan | None = None, *, defects: frozenset[str] | None = None
    ) -> None:
        self.defects = self.defaults if defects is None else frozenset(defects)
        if self.defects - DEFECTS:
            raise ValueError(f"no such defect: {sorted(self.defects - DEFECTS)[0]}; known are {sorted(DEFECTS)}")
        self.faults = faults or FaultPlan()
        self.driver = algorithm if isinstance(algorithm, AcompAlg) else self._software(algorithm)
        self._completed: int | None = None

    def _software(self, algorithm: Compressor | Synthetic) -> AcompAlg:
        """The driver of a software algorithm: 6.18 to 7.3 have zstd and deflate native, all else below scomp."""
        if isinstance(algorithm, Zstd):
            return ZstdGeneric(algorithm, self.defects & acomp_zstd.DEFECTS)
        below = _page_algorithm(algorithm)
        if below.name == "deflate":
            return DeflateGeneric(self.defects & acomp_deflate.DEFECTS)
        return Scomp7(below)

    @property
    def compr_batch_size(self) -> int:
        """`crypto_acomp_batch_size`, at least 1: 1 where no posting is applied, and for software."""
        return 1

    def compress(self, request: AcompRequest) -> int:
        """`crypto_wait_req(crypto_acomp_compress(request))`: 0 or a negative errno."""
        return self._wait(request, comp=True)

    def decompress(self, request: AcompRequest) -> int:
        """`crypto_wait_req(crypto_acomp_decompress(request))`: 0 or a negative errno."""
        return self._wait(request, comp=False)

    def call(self, request: AcompRequest, *, comp: bool = True) -> CallResult:
        """Compress or decompress; returns what the call left in the request."""
        err = self._wait(request, comp=comp)
        lengths = tuple(as_int32(entry.length) for entry in request.dst) if isinstance(request.dst, list) else ()
        return CallResult(err, request.dlen, lengths)

    def submit(self, request: AcompRequest, *, comp: bool) -> int:
        """`crypto_acomp_compress(request)` alone, which is not waited for: its interrupt is still to come."""
        return self._crypto_acomp(request, comp, self._algorithm(None))

    def _wait(self, request: AcompRequest, *, comp: bool) -> int:
        self._completed = None
        request.complete = self._crypto_req_done
        units = request.slen // request.unit_size if comp and request.unit_size else 1
        fault = self.faults.hit("compress" if comp else "decompress", page=request.page, units=max(1, units))
        if fault and fault.leave_lengths:
            return fault.error
        err = self._crypto_acomp(request, comp, self._algorithm(fault))
        if err not in (EINPROGRESS, EBUSY):
            return err
        self.driver.interrupt()
        if self._completed is None:
            raise NeverCompletes(f"{self.driver.name} never completes the request it accepted")
        return self._completed

    def _crypto_req_done(self, err: int) -> None:
        self._completed = err

    def _algorithm(self, fault: Fault | None) -> _Call:
        """`tfm->compress` or `->decompress`, or the fault in its place."""

        def call(request: AcompRequest, comp: bool) -> int:
            if fault:
                self.driver.fail_lengths(request, fault.error, comp=comp)
                return fault.error
            return self.driver.compress(request) if comp else self.driver.decompress(request)

        return call

    def _crypto_acomp(self, request: AcompRequest, comp: bool, algorithm: _Call) -> int:
        """`crypto_acomp_compress` itself, without the waiting."""
        if self.driver.req_virt or request.issg:
            return algorithm(request, comp)
        return self._do_req_chain(request, comp, algorithm)

    # conversion of virtual addresses: acomp_do_req_chain

    def _do_req_chain(self, request: AcompRequest, comp: bool, algorithm: _Call, unit_size: int = 0) -> int:
        """Save, convert, call, restore; with `unit_size` (v14) the first entry gets the length or error."""
        saved = request.src, request.dst, request.complete, request.unit_size

        def restore() -> None:
            request.src, request.dst, request.complete, request.unit_size = saved

        def finish(err: int) -> int:
            restore()
            if unit_size and isinstance(request.dst, list):
                request.dst[0].length = err or request.dlen
            return err

        def done(err: int) -> None:
            if "acomp_save_req" in self.defects:
                raise KernelFault("acomp_reqchain_done takes the pointer to req->chain for the request")
            finish(err)
            if request.complete:
                request.complete(err)

        request.complete = done
        request.unit_size = 0 if unit_size else request.unit_size
        try:
            err = self._do_one_req(request, comp, algorithm)
        except Exception:
            restore()
            raise
        return err if err in (EINPROGRESS, EBUSY) else finish(err)

    def _do_one_req(self, request: AcompRequest, comp: bool, algorithm: _Call) -> int:
        if request.nondma and not request.issg:
            fallback = self.driver.fallback()
            return fallback.compress(request) if comp else fallback.decompress(request)
        self._virt_to_sg(request)
        return algorithm(request, comp)

    def _virt_to_sg(self, request: AcompRequest) -> None:
        """`acomp_virt_to_sg`; folios only with the switch, as 6.15 took them."""
        folio_dst = isinstance(request.dst, AcompFolio)
        request.src = self._to_sg(request.src, request.slen)
        dst = self._to_sg(request.dst, request.dlen)
        if folio_dst and "acomp_virt_to_sg" in self.defects:
            request.src = dst
            request.slen = request.dlen
        else:
            request.dst = dst

    @staticmethod
    def _to_sg(what: SgList | bytes | bytearray | memoryview | AcompFolio, size: int) -> SgList:
        if isinstance(what, list):
            return what
        if isinstance(what, AcompFolio):
            return [Scatterlist(what.buffer, what.offset, size)]
        return sg_init_one(what, size)


_Call: TypeAlias = Callable[[AcompRequest, bool], int]


def _page_algorithm(algorithm: Compressor | Synthetic) -> PageAlgorithm:
    if isinstance(algorithm, Synthetic):
        return algorithm
    if algorithm.name == "deflate-iaa":
        raise ValueError("deflate-iaa is a driver: give IaaCrypto or IaaPosted")
    return Wrapped(algorithm)


class Acomp612(Acomp):
    """Linux 6.12: `crypto_acomp_compress` is the algorithm's own call, with lists."""

    def _software(self, algorithm: Compressor | Synthetic) -> AcompAlg:
        return Scomp612(_page_algorithm(algorithm))

    def _crypto_acomp(self, request: AcompRequest, comp: bool, algorithm: _Call) -> int:
        return algorithm(request, comp)


class Acomp7(Acomp):
    """Linux 7.2 and 7.3; with `defects=KERNEL_DEFECTS[...]` 6.18 to 7.1, which differ in nothing else here."""

    defaults = KERNEL_DEFECTS["7.3"]


class AcompV8(Acomp612):
    """v8: the base as 6.12, and chains of requests (v8 01/14), for drivers that take them."""

    @property
    def compr_batch_size(self) -> int:
        """`crypto_acomp_batch_size` (v8 02/14)."""
        return self.driver.batch_size

    def compress_chain(self, requests: Sequence[AcompRequest]) -> int:
        """`crypto_acomp_compress` of a chain's head, waited for; every request's error is its `chain_err`.

        A driver without chains, such as all software, compresses the head alone; zswap of v8 never gives it a
        chain.  Faults strike per request, before its job.  ValueError for no request.
        """
        if not requests:
            raise ValueError("a chain has at least one request")
        if not isinstance(self.driver, IaaPosted):
            requests[0].chain_err = self.compress(requests[0])
            return requests[0].chain_err
        strikes = [self.faults.hit("compress", page=request.page) for request in requests]
        head = strikes[0]
        if head:
            for request in requests:
                request.chain_err = head.error
            return head.error
        for request, fault in zip(requests, strikes, strict=True):
            request.chain_err = fault.error if fault else 0
        return self.driver.compress_chain([r for r, fault in zip(requests, strikes, strict=True) if not fault])


class Dlen:
    """One `int *` of v12's `dlens`: request.dlen, or the length of a destination entry."""

    def __init__(self, target: AcompRequest | Scatterlist) -> None:
        self._target = target

    @property
    def value(self) -> int:
        """`*dlens[k]`, an int."""
        return as_int32(self._target.dlen if isinstance(self._target, AcompRequest) else self._target.length)

    @value.setter
    def value(self, value: int) -> None:
        if isinstance(self._target, AcompRequest):
            self._target.dlen = value
        else:
            self._target.length = value


class AcompV12(Acomp):
    """v12 (13, 19 and 23 of 23): `crypto_acomp_compress` knows no units; the driver looks at `unit_size`."""

    defaults = KERNEL_DEFECTS["6.18"]

    @property
    def compr_batch_size(self) -> int:
        """`crypto_acomp_batch_size` (v12 19/23)."""
        return self.driver.batch_size if self.driver.is_async else 1

    def dlens(self, request: AcompRequest) -> list[Dlen]:
        """Where zswap of v12 23/23 looks for lengths and errors: one pointer per page of the largest batch.

        For software that is `req->dlen` (zswap itself writes the errno there); for a batching driver the
        length of each destination entry, which `req->__ctx[]` points to.
        """
        if self.compr_batch_size == 1:
            return [Dlen(request)]
        return [Dlen(entry) for entry in request.dst_sg()]


class AcompV14(Acomp):
    """v14 as posted (13, 15, 18 and 22 of 26), on a base of 6.19."""

    defaults = KERNEL_DEFECTS["6.19"]
    meant: ClassVar[bool] = False

    def __init__(
        self, algorithm: Algorithm, faults: FaultPlan | None = None, *, defects: frozenset[str] | None = None
    ) -> None:
        super().__init__(algorithm, faults, defects=defects)
        if isinstance(self.driver, IaaPosted) and self.driver.meant != self.meant:
            raise ValueError(f"{type(self).__name__} wants IaaPosted(meant={self.meant})")

    @property
    def compr_batch_size(self) -> int:
        """`crypto_acomp_batch_size` (v14 22/26)."""
        return self.driver.batch_size if self.driver.is_async else 1

    def _crypto_acomp(self, request: AcompRequest, comp: bool, algorithm: _Call) -> int:
        unit_size = request.unit_size
        if not (comp and unit_size and request.issg):
            return super()._crypto_acomp(request, comp, algorithm)
        if not self.driver.req_seg:
            # The trivial segmentation wrapper of 15/26: one unit; otherwise the lengths stay as they were.
            if request.slen > unit_size:
                return ENOSYS
            return self._do_req_chain(request, comp, algorithm, unit_size)
        if request.slen > unit_size and isinstance(self.driver, IaaPosted):
            return self._do_req_batch_parallel(request, self.driver, algorithm)
        return algorithm(request, comp)

    def _do_req_batch_parallel(self, request: AcompRequest, driver: IaaPosted, algorithm: _Call) -> int:
        """`acomp_do_req_batch_parallel`, with the driver's `batch_completed` in it (18/26)."""
        err = algorithm(request, True)
        if not driver.registered:
            if not self.meant:
                raise KernelFault("v14: batch_completed takes a wait-queue for its per-CPU context (L3b)")
            return err
        failed = driver.batch_completed()
        request.dlen = request.dst_sg()[0].length
        if self.meant:
            return EINVAL if err or failed else 0
        if failed:
            request.slen = EINVAL
        # slen is unsigned, so this is never true and a failed completion is not returned (L2).
        if request.slen < 0:
            err |= EINVAL
        return err


class AcompV14Meant(AcompV14):
    """v14 as its text says: no error is lost, every length is written, and one of 0 or a page is an error."""

    meant = True

    def _crypto_acomp(self, request: AcompRequest, comp: bool, algorithm: _Call) -> int:
        err = super()._crypto_acomp(request, comp, algorithm)
        if not (comp and request.unit_size and request.issg) or err in (EINPROGRESS, EBUSY):
            return err
        entries = request.dst_sg()[: max(1, request.slen // request.unit_size)]
        if err == ENOSYS:
            _write_all(request, err)
            return err
        for entry in entries:
            # A comment in 26/26 assumes this of every compressor.
            if as_int32(entry.length) == 0 or as_int32(entry.length) >= request.unit_size:
                entry.length = err or EINVAL
                err = err or EINVAL
        return err


def _write_all(request: AcompRequest, err: int) -> None:
    if isinstance(request.dst, list):
        for entry in request.dst:
            entry.length = err
