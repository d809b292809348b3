# SPDX-License-Identifier: GPL-2.0-or-later
"""drivers/crypto/intel/iaa/iaa_crypto_main.c of mainline: acomp algorithm "deflate", driver "deflate-iaa".

What the driver does is modelled; what the hardware writes is a stand-in's (:class:`StandIn`).  By kernel:

=======  ==============  ============================  ===========================  ==========================
kernel   CPU to device   lists of several entries      a job that never completes   decomp bytes of a fallback
=======  ==============  ============================  ===========================  ==========================
6.12     see "6.12"      refused: -EIO                 polled for ever              counted
6.18     see "6.18"      refused: -EIO                 1,000,001 checks, then off   counted
7.0      see "7.0"       refused: -EIO                 the same                     counted
7.1,7.2  see "7.0"       software deflate              the same                     not counted
7.3      see "7.0"       source of up to a page: a     the same                     not counted
                         bounce page; else software
=======  ==============  ============================  ===========================  ==========================

("see": :func:`mainline_wq_table`.)  7.1 is Debian's 7.1.13, which has the fallback where 7.0.13 has not: read in
their modules, as were the loops of 6.18, 6.19 and 7.0 and the count of checks.  6.19 is as 6.18.

Defects of 2026, each a switch that says "as it was"; `KERNEL_DEFECTS` says which kernel has which:

`iaa_multi_sg`
    Lists of two entries are refused with -EIO, so from 7.0 on, where zswap reads objects as lists, an object
    that spans two pages cannot be loaded (20260713-iaa-crypto-fixes-zswap-v1-2-65cac23c684d@intel.com).
`rebalance_wq_table`
    The CPU counter starts anew on each node: devices behind the first node's stay unused.
`deflate_enospc`, `deflate_window`
    Of the software that is fallen back to: :mod:`model.crypto.acomp_deflate`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from ..errno import E2BIG, EBUSY, EINPROGRESS, EINVAL, EIO, ENODEV, ETIMEDOUT
from ..page import PAGE_SIZE
from . import acomp_deflate
from .acomp_deflate import DeflateGeneric
from .faults import ANALYTICS_ERROR, NO_COMPLETION, FaultPlan
from .iaa_device import IaaDevice, Record, StandIn, Topology, Wq, WqTable, mainline_wq_table
from .iaa_stats import IaaStats, WqStats
from .request import AcompAlg, AcompRequest, NeverCompletes, SgList, gather, sg_init_one

__all__ = ["DEFECTS", "IAA_BOUNCE_POOL_SIZE", "KERNEL_DEFECTS", "SYNC_MODES", "IaaCrypto", "IaaDriver"]

SYNC_MODES: Final = ("sync", "async", "async_irq")
IAA_BOUNCE_POOL_SIZE: Final = 128  # pages, 7.3
DEFECTS: Final = frozenset({"iaa_multi_sg", "rebalance_wq_table"}) | acomp_deflate.DEFECTS
#: kernel -> the defects it has.
KERNEL_DEFECTS: Final[Mapping[str, frozenset[str]]] = {
    "6.12": frozenset({"iaa_multi_sg", "deflate_window"}),
    "6.18": frozenset({"iaa_multi_sg", "rebalance_wq_table", "deflate_enospc", "deflate_window"}),
    "7.0": frozenset({"iaa_multi_sg", "deflate_window"}),
    "7.1": frozenset({"deflate_window"}),
    "7.2": frozenset({"deflate_window"}),
    "7.3": frozenset({"deflate_window"}),
}


class IaaDriver(AcompAlg):
    """What mainline's driver and the posted ones share: devices, completions, statistics, attributes."""

    name = "deflate-iaa"
    is_async = True
    req_virt = False
    polls_for_ever = False

    def __init__(
        self,
        devices: Sequence[IaaDevice],
        topology: Topology,
        *,
        sync_mode: str,
        verify_compress: bool,
        stand_in: StandIn | None,
        faults: FaultPlan | None,
        irq: Literal["late", "early"],
        has_sw_comp: bool,
    ) -> None:
        if irq not in ("late", "early"):
            raise ValueError(f"completion interrupts come late or early, not {irq!r}")
        self.topology = topology
        self.faults = faults or FaultPlan()
        self.stand_in = stand_in or StandIn()
        self.irq = irq
        self.stats = IaaStats(has_sw_comp=has_sw_comp)
        self.enabled = False
        self.sync_mode = "sync"
        self.verify_compress = verify_compress
        self._devices: list[IaaDevice] = []
        self._interrupts: list[Callable[[], None]] = []
        err = self.store_sync_mode(sync_mode)
        if err:
            raise ValueError(f"no sync_mode is called {sync_mode!r}: {', '.join(SYNC_MODES)}")
        for device in devices:
            for wq in device.wqs:
                self.probe(wq)

    # sysfs attributes and hot plug

    def store_sync_mode(self, name: str) -> int:
        """Write `sync_mode`: -EBUSY while a device is enabled, -EINVAL for an unknown name."""
        if self.enabled:
            return EBUSY
        if name not in SYNC_MODES:
            return EINVAL
        self.sync_mode = self._mode(name)
        return 0

    def store_verify_compress(self, value: bool) -> int:
        """Write `verify_compress`: -EBUSY while a device is enabled."""
        if self.enabled:
            return EBUSY
        self.verify_compress = value
        return 0

    def _mode(self, name: str) -> str:
        return name

    @property
    def use_irq(self) -> bool:
        """sync_mode is async_irq."""
        return self.sync_mode == "async_irq"

    @property
    def devices(self) -> list[IaaDevice]:
        """`iaa_devices`: those with a queue bound to the driver, in the order they were found."""
        return self._devices

    def probe(self, wq: Wq) -> None:
        """`iaa_crypto_probe`: a work queue is bound to the driver; the first one enables it."""
        device = next((known for known in self._devices if known.id == wq.device), None)
        if device is None:
            device = IaaDevice(wq.device)
            self._devices.append(device)
        device.wqs.append(wq)
        wq.removed = False
        self.stats.wqs.setdefault(wq.key, WqStats())
        self._probed()

    def remove(self, wq: Wq) -> None:
        """`iaa_crypto_remove`: a work queue goes; ValueError for one that is not there."""
        device = next((known for known in self._devices if wq in known.wqs), None)
        if device is None:
            raise ValueError(f"{wq} is not bound to the driver")
        device.wqs.remove(wq)
        wq.removed = True
        self.stats.wqs.pop(wq.key, None)
        if not device.wqs:
            self._devices.remove(device)
        self._removed()

    @abstractmethod
    def _probed(self) -> None:
        """A queue was added to `devices`."""

    @abstractmethod
    def _removed(self) -> None:
        """A queue was taken out of `devices`."""

    # jobs

    def _compress_job(self, page: bytes, room: int, number: int | None) -> Record:
        fault = self.faults.hit("complete", page=number)
        return Record(fault.error) if fault else self.stand_in.compress(page, room)

    def _decompress_job(self, data: bytes, room: int, number: int | None) -> Record:
        fault = self.faults.hit("complete", page=number)
        return Record(fault.error) if fault else self.stand_in.decompress(data, room)

    def check_completion(self, record: Record, *, comp: bool) -> int:
        """The errno of a completion record, counted.

        A fault's errno the device has no record for is returned as it is.
        """
        error = record.error
        if error == NO_COMPLETION:
            if self.polls_for_ever:
                raise NeverCompletes("the job never completes and 6.12 polls it without end")
            self.enabled = False
            return ETIMEDOUT
        if error == ETIMEDOUT:
            self.stats.count("total_completion_timeout_errors")
        elif error == E2BIG and comp:
            self.stats.count("total_completion_comp_buf_overflow_errors")
        elif error in (ANALYTICS_ERROR, EINVAL, E2BIG):
            self.stats.count("total_completion_einval_errors")
            return EINVAL
        return error

    def _verify(self, made: Record, size: int, number: int | None) -> int:
        """`iaa_compress_verify`: a decompress job whose output goes nowhere; not counted as a call."""
        fault = self.faults.hit("verify", page=number)
        if fault:
            return fault.error
        record = self.stand_in.verify(made, size)
        err = self.check_completion(record, comp=False)
        return err or (EINVAL if record.crc != made.crc else 0)

    def _pend(self, completion: Callable[[], None]) -> int:
        """Leave a job to its interrupt, which comes before this returns if `irq` is early."""
        if self.irq == "early":
            completion()
        else:
            self._interrupts.append(completion)
        return EINPROGRESS

    def interrupt(self) -> None:
        while self._interrupts:
            self._interrupts.pop(0)()


class IaaCrypto(IaaDriver):
    """The driver of one mainline kernel: `kernel` is a key of `KERNEL_DEFECTS`, `defects` replaces its own.

    `irq`: with sync_mode async_irq, whether the completion interrupt comes before the submitting call returns
    ("early") or after ("late").  `software` in place of the generic driver it falls back to.  ValueError for an
    unknown kernel or defect.
    """

    def __init__(
        self,
        kernel: str = "7.3",
        devices: Sequence[IaaDevice] | None = None,
        topology: Topology | None = None,
        *,
        sync_mode: str = "sync",
        verify_compress: bool = True,
        stand_in: StandIn | None = None,
        faults: FaultPlan | None = None,
        irq: Literal["late", "early"] = "late",
        defects: frozenset[str] | None = None,
        software: AcompAlg | None = None,
    ) -> None:
        if kernel not in KERNEL_DEFECTS:
            raise ValueError(f"no iaa_crypto of kernel {kernel!r}: {', '.join(KERNEL_DEFECTS)}")
        self.kernel = kernel
        self.defects = KERNEL_DEFECTS[kernel] if defects is None else frozenset(defects)
        if self.defects - DEFECTS:
            raise ValueError(f"no such defect: {sorted(self.defects - DEFECTS)[0]}; known are {sorted(DEFECTS)}")
        self.polls_for_ever = kernel == "6.12"
        self._fallback_counts = kernel in ("6.12", "6.18", "7.0")
        self.bounce_pages = IAA_BOUNCE_POOL_SIZE  # left in the pool
        self._fallback: AcompAlg = software or DeflateGeneric(self.defects & acomp_deflate.DEFECTS)
        self.table: list[WqTable] = []
        super().__init__(
            IaaDevice.several(1) if devices is None else devices,
            topology or Topology.regular(),
            sync_mode=sync_mode,
            verify_compress=verify_compress,
            stand_in=stand_in,
            faults=faults,
            irq=irq,
            has_sw_comp=not self._fallback_counts,
        )

    def _mode(self, name: str) -> str:
        # Writing async sets what sync sets, and reads back as sync.
        return "sync" if name == "async" else name

    def _rebalance(self) -> None:
        how: Literal["6.12", "6.18", "7.0"] = "6.12" if self.kernel == "6.12" else "7.0"
        if "rebalance_wq_table" in self.defects:
            how = "6.18"
        self.table = mainline_wq_table(self.topology, self._devices, how)

    def _probed(self) -> None:
        self._rebalance()
        if sum(len(device.wqs) for device in self._devices) == 1:
            self.enabled = True

    def _removed(self) -> None:
        self._rebalance()
        if not self._devices:
            self.enabled = False

    def fallback(self) -> AcompAlg:
        return self._fallback

    def compress(self, request: AcompRequest) -> int:
        """`iaa_comp_acompress`; `dlen` is written once the device has compressed, also if verifying fails."""
        if not self.enabled:
            return ENODEV
        if not request.src or not request.slen or not request.dst:
            return EINVAL
        src, dst = request.src_sg(), request.dst_sg()
        several = len(src) > 1 or len(dst) > 1
        refuses = "iaa_multi_sg" in self.defects
        if several and not refuses:
            return self._software(request, comp=True)
        wq = self.table[request.cpu].next_wq()
        if wq is None:
            return ENODEV
        if several or self.faults.hit("dma_map", page=request.page):
            return EIO if refuses else self._software(request, comp=True)
        err = self._descriptor(wq, request, comp=True)
        if err:
            return err
        if self.use_irq:
            return self._pend(lambda: _complete(request, self._finish_compress(request, wq)))
        return self._finish_compress(request, wq)

    def decompress(self, request: AcompRequest) -> int:
        """`iaa_comp_adecompress`."""
        if not self.enabled:
            return ENODEV
        if not request.src or not request.slen or not request.dst:
            return EINVAL
        src, dst = request.src_sg(), request.dst_sg()
        refuses = "iaa_multi_sg" in self.defects
        several = len(src) > 1 or len(dst) > 1
        bounce = several and self.kernel == "7.3" and len(dst) == 1 and request.slen <= PAGE_SIZE and not refuses
        if several and not refuses and not bounce:
            return self._software(request, comp=False)
        wq = self.table[request.cpu].next_wq()
        if wq is None:
            return ENODEV
        if several and refuses:
            return EIO
        if bounce:
            if not self.bounce_pages or self.faults.hit("bounce_alloc", page=request.page):
                return self._software(request, comp=False)
            src = sg_init_one(gather(src, request.slen))
        if self.faults.hit("dma_map", page=request.page):
            return EIO if refuses else self._software(request, comp=False)
        err = self._descriptor(wq, request, comp=False)
        if err:
            return err
        if self.use_irq:
            return self._pend(lambda: _complete(request, self._finish_decompress(request, wq, src)))
        return self._finish_decompress(request, wq, src)

    def _descriptor(self, wq: Wq, request: AcompRequest, *, comp: bool) -> int:
        """A descriptor (waited for, so the queue is never full) and its submission."""
        for site in ("descriptor", "submit"):
            fault = self.faults.hit(site, page=request.page)
            if fault:
                return fault.error
        self.stats.submitted(wq.key, comp=comp)
        return 0

    def _finish_compress(self, request: AcompRequest, wq: Wq) -> int:
        page = request.src_sg()[0].read(request.slen)
        record = self._compress_job(page, request.dlen, request.page)
        err = self.check_completion(record, comp=True)
        if err:
            return err
        request.dst_sg()[0].write(record.output)
        request.dlen = record.size
        self.stats.succeeded(wq.key, request.dlen, comp=True)
        if not self.verify_compress:
            return 0
        return self._verify(record, request.slen, request.page)

    def _finish_decompress(self, request: AcompRequest, wq: Wq, src: SgList) -> int:
        record = self._decompress_job(src[0].read(request.slen), request.dlen, request.page)
        err = self.check_completion(record, comp=False)
        if err and record.error not in (ANALYTICS_ERROR, E2BIG):
            return err
        if err:
            err = self._software(request, comp=False)
            if err or not self._fallback_counts:
                return err
        else:
            request.dst_sg()[0].write(record.output)
            request.dlen = record.size
        self.stats.succeeded(wq.key, request.slen, comp=False)
        return 0

    def _software(self, request: AcompRequest, *, comp: bool) -> int:
        """`deflate_generic_compress` and `_decompress`: the generic driver on the same request."""
        self.stats.count("total_sw_comp_calls" if comp else "total_sw_decomp_calls")
        err = self._fallback.compress(request) if comp else self._fallback.decompress(request)
        # 6.12's fallback is the old linear interface, which knows one error.
        return EINVAL if err and self.kernel == "6.12" else err


def _complete(request: AcompRequest, err: int) -> None:
    """`iaa_desc_complete`: whatever went wrong, the user gets -EIO."""
    if request.complete:
        request.complete(EIO if err else 0)
