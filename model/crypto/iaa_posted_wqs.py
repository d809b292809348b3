# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPU uses which work queues in the posted drivers: by package, not by NUMA node.

Mirrors `cpu_to_iaa`, `map_iaa_device_wqs`, `reinit_pkg_global_wqs` and `rebalance_wq_table` of v8 08/14 and
09/14 (20250303084724.6490-9- and -10-kanchana.p.sridhar@intel.com), v12 02/23 (20250926033502.7486-3-) and v14
03/26 (20260125033537.334628-4-); v12's and v14's do the same.

Three things follow from the code as posted that its text does not say.  Queues are sorted into compress-only and
others one by one, as they are found, each against the number of queues known at that moment: of three queues
with `g_comp_wqs_per_iaa` 1, the first alone decompresses (text: the last one alone compresses).  Nothing takes a
removed queue out of its device's table again: jobs whose turn it is get -ENODEV (compress) or go to software
(decompress); given back, it is sorted in once more, behind the others.  And tables that are made while the driver is
off have one queue, the first that was ever found (v12 and v14): that is so behind each removal, as iaa_crypto_remove()
turns the driver on again only after it made them.  Where that first queue is the one that was removed, no job gets one
until a queue is given back.  Seen on a kernel with v14.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .iaa_device import IaaDevice, Topology, Wq, WqTable, cpus_per_iaa

__all__ = ["DeviceWqs", "DriverAttributes", "WqsV8", "WqsV12", "cpu_to_iaa"]


#: `idxd->max_wqs` of an IAA: how many a device's tables hold.
_MAX_WQS: Final = 8


@dataclass(frozen=True)
class DriverAttributes:
    """The driver attributes of v12 and v14 (`g_consec_descs_per_gwq`: v8, whose `g_wqs_per_iaa` is the first)."""

    g_comp_wqs_per_iaa: int = 1
    distribute_comps: bool = True
    distribute_decomps: bool = False
    g_consec_descs_per_gwq: int = 1


@dataclass
class DeviceWqs:
    """One device's queues, sorted: `generic` (v8: local) and `comp` (v8: global)."""

    n_wq: int = 0
    generic: list[Wq] = field(default_factory=list)
    comp: list[Wq] = field(default_factory=list)
    #: those that are sorted in, by their identity (`iaa_wq->mapped`)
    mapped: set[int] = field(default_factory=set)

    def map(self, wqs: Sequence[Wq], compress_only: int) -> None:
        """`map_iaa_device_wqs`: sort in those of `wqs` that are not yet.

        A queue that was removed, and given back, has a new `iaa_wq`.
        """
        self.mapped &= {id(wq) for wq in wqs}
        self.n_wq = len(wqs)
        for added, wq in enumerate(wqs):
            if id(wq) in self.mapped:
                continue
            generic = (not added or added + compress_only < self.n_wq) and len(self.generic) < _MAX_WQS
            if not generic and len(self.comp) >= _MAX_WQS:
                break
            (self.generic if generic else self.comp).append(wq)
            self.mapped.add(id(wq))

    def for_comps(self) -> list[Wq]:
        """The queues compressions go to."""
        return self.comp or self.generic


def cpu_to_iaa(topology: Topology, cpu: int, nr_iaa: int) -> int:
    """The device nearest to `cpu`: its index, the last one if that is out of range; -1 without devices."""
    if not nr_iaa:
        return -1
    per_package = max(1, nr_iaa // topology.nr_packages)
    share = cpus_per_iaa(topology.nr_packages * topology.cores_per_package, nr_iaa)
    iaa = topology.packages[cpu] * per_package + cpu % topology.cores_per_package // share
    return iaa if iaa < nr_iaa else nr_iaa - 1


class _Wqs:
    def __init__(self, topology: Topology, settings: DriverAttributes) -> None:
        self.topology = topology
        self.settings = settings
        self.by_device: dict[int, DeviceWqs] = {}
        self._order: list[DeviceWqs] = []

    def _map(self, devices: Sequence[IaaDevice]) -> None:
        self.by_device = {
            device.id: self.by_device.get(device.id) or DeviceWqs() for device in devices
        }
        self._order = []
        for device in devices:
            wqs = self.by_device[device.id]
            wqs.map(device.wqs, self.settings.g_comp_wqs_per_iaa)
            self._order.append(wqs)

    @property
    def _nr_iaa(self) -> int:
        return len(self._order)

    @property
    def _per_package(self) -> int:
        return max(1, self._nr_iaa // self.topology.nr_packages)

    def _packages(self, lists: Sequence[list[Wq]]) -> list[list[Wq]]:
        """The devices' lists by package, `nr_iaa_per_package` of them each; what is left over is unused."""
        per, packages = self._per_package, self.topology.nr_packages
        return [[wq for own in lists[n * per : (n + 1) * per] for wq in own] for n in range(packages)]


class WqsV12(_Wqs):
    """v12 and v14: a table for compressions and one for decompressions per CPU."""

    def __init__(self, topology: Topology, settings: DriverAttributes) -> None:
        super().__init__(topology, settings)
        self.comp = [WqTable() for _ in range(topology.nr_cpus)]
        self.decomp = [WqTable() for _ in range(topology.nr_cpus)]
        #: `first_wq_found`, which nothing takes back
        self.first: Wq | None = None

    def rebalance(self, devices: Sequence[IaaDevice], enabled: bool = True) -> bool:
        """`rebalance_wq_table`; False if a CPU is left without queues, which disables the driver.

        :param enabled: `iaa_crypto_enabled` at that moment
        """
        self._map(devices)
        if not self._order:
            return False
        if not enabled:
            self.first = self.first or self._order[cpu_to_iaa(self.topology, 0, self._nr_iaa)].generic[0]
            self.decomp, self.comp = ([WqTable([self.first]) for _ in range(self.topology.nr_cpus)] for _ in range(2))
            return True
        generic = [device.generic for device in self._order]
        comps = [device.for_comps() for device in self._order]
        self.decomp = self._tables(generic, self.settings.distribute_decomps)
        self.comp = self._tables(comps, self.settings.distribute_comps)
        return all(table.wqs for table in self.comp + self.decomp)

    def _tables(self, lists: Sequence[list[Wq]], distribute: bool) -> list[WqTable]:
        tables = []
        packages = self._packages(lists)
        if self._nr_iaa == 1:
            packages = [lists[0]] * self.topology.nr_packages  # one_iaa_special_case
        for cpu in range(self.topology.nr_cpus):
            iaa = cpu_to_iaa(self.topology, cpu, self._nr_iaa)
            if not distribute:
                tables.append(WqTable(lists[iaa]))
                continue
            table = WqTable(packages[self.topology.packages[cpu]])
            # set_cpu_wq_table_start_wq: neighbours begin at different devices.
            start = len(table.wqs) // self._per_package * (iaa % self._per_package)
            if start < len(table.wqs):
                table.cur_wq = start
            tables.append(table)
        return tables

    def next_comp(self, cpu: int) -> Wq | None:
        """`comp_wq_table_next_wq`."""
        return self.comp[cpu].take_wq()

    def next_decomp(self, cpu: int) -> Wq | None:
        """`decomp_wq_table_next_wq`."""
        return self.decomp[cpu].take_wq()


class WqsV8(_Wqs):
    """v8: the nearest device's local queues; compressions use the package's global ones, if there are any."""

    def __init__(self, topology: Topology, settings: DriverAttributes) -> None:
        super().__init__(topology, settings)
        self.local = [WqTable() for _ in range(topology.nr_cpus)]
        self.globals = [WqTable() for _ in range(topology.nr_cpus)]
        self._consecutive = [0] * topology.nr_cpus

    def rebalance(self, devices: Sequence[IaaDevice]) -> bool:
        """`rebalance_wq_table`; False without devices."""
        self._map(devices)
        if not self._order:
            return False
        packages = self._packages([device.comp for device in self._order])
        for cpu in range(self.topology.nr_cpus):
            iaa = cpu_to_iaa(self.topology, cpu, self._nr_iaa)
            self.local[cpu] = WqTable(self._order[iaa].generic)
            table = self.globals[cpu] = WqTable(packages[self.topology.packages[cpu]])
            start = self.settings.g_comp_wqs_per_iaa * (iaa % self._per_package)
            if start < len(table.wqs):
                table.cur_wq = start
        return True

    def next_comp(self, cpu: int) -> Wq | None:
        """`global_wq_table_next_wq`: moves on after `g_consec_descs_per_gwq` jobs; else the local queues."""
        table = self.globals[cpu]
        if not table.wqs:
            return self.local[cpu].next_wq()
        if self._consecutive[cpu] == self.settings.g_consec_descs_per_gwq:
            table.cur_wq = (table.cur_wq + 1) % len(table.wqs)
            self._consecutive[cpu] = 0
        self._consecutive[cpu] += 1
        return table.wqs[table.cur_wq]

    def next_decomp(self, cpu: int) -> Wq | None:
        """`wq_table_next_wq`."""
        return self.local[cpu].next_wq()
