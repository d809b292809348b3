# SPDX-License-Identifier: GPL-2.0-or-later
"""IAA devices, their work queues, what a job does on one, and which CPU uses which (mainline).

No software knows the hardware's output: `StandIn` makes bytes of the same format in its stead, graded
`modelled` like :mod:`model.crypto.deflate_iaa`.  What a device answers in its completion record and what the
driver makes of it (`check_completion`) is known from the driver.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from ..errno import E2BIG, EOVERFLOW
from ..page import PAGE_SIZE
from .faults import ANALYTICS_ERROR

__all__ = [
    "HISTORY_BITS",
    "IaaDevice",
    "Record",
    "StandIn",
    "Topology",
    "Wq",
    "WqTable",
    "cpus_per_iaa",
    "mainline_wq_table",
]

HISTORY_BITS: Final = 12  # the device looks back 4 KiB


class Topology(NamedTuple):
    """Which NUMA node and which package each possible CPU belongs to, by CPU number.

    `cores_per_package` is what `topology_num_cores_per_package()` returns: cores, not threads.
    """

    nodes: tuple[int, ...]
    packages: tuple[int, ...]
    cores_per_package: int

    @classmethod
    def regular(cls, *, packages: int = 1, nodes_per_package: int = 1, cores: int = 4, threads: int = 1) -> Topology:
        """A machine of equal parts, numbered as Linux numbers x86: all first threads, then all second ones.

        `cores`: per package.  ValueError unless every number is at least 1 and the nodes share the cores evenly.
        """
        if min(packages, nodes_per_package, cores, threads) < 1 or cores % nodes_per_package:
            raise ValueError(
                f"a topology of {packages} packages, {nodes_per_package} nodes each, {cores} cores, {threads} threads"
            )
        once = [(package, core) for package in range(packages) for core in range(cores)]
        per_node = cores // nodes_per_package
        nodes = tuple(package * nodes_per_package + core // per_node for package, core in once)
        return cls(nodes * threads, tuple(package for package, _ in once) * threads, cores)

    @property
    def nr_cpus(self) -> int:
        """`num_possible_cpus()`."""
        return len(self.nodes)

    @property
    def nr_packages(self) -> int:
        """`topology_max_packages()`."""
        return len(set(self.packages))

    def node_cpus(self) -> list[list[int]]:
        """`for_each_node_with_cpus`: the CPUs of each node, in ascending order."""
        return [[cpu for cpu, own in enumerate(self.nodes) if own == node] for node in sorted(set(self.nodes))]


@dataclass(eq=False)
class Wq:
    """A work queue (`struct idxd_wq`).

    `size`: how many descriptors it has.  `busy`: those that others hold, set by a scenario.  `in_flight`: those
    that this model's jobs hold.
    """

    device: int
    id: int
    size: int = 128
    busy: int = 0
    in_flight: int = 0
    removed: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """(device id, wq id)."""
        return self.device, self.id

    @property
    def full(self) -> bool:
        """`idxd_alloc_desc(wq, IDXD_OP_NONBLOCK)` would return -EAGAIN."""
        return self.busy + self.in_flight >= self.size

    def __str__(self) -> str:
        return f"wq{self.device}.{self.id}"


@dataclass(eq=False)
class IaaDevice:
    """An IAA device (`struct idxd_device`) with the work queues that are bound to the driver."""

    id: int
    wqs: list[Wq] = field(default_factory=list)

    @classmethod
    def several(cls, count: int, wqs: int = 1, size: int = 128) -> list[IaaDevice]:
        """`count` equal devices, numbered 1, 3, 5, ... as an Intel server numbers its IAAs among its DSAs."""
        return [cls(2 * n + 1, [Wq(2 * n + 1, k, size) for k in range(wqs)]) for n in range(count)]


class Record(NamedTuple):
    """What a job leaves: `error` is 0, a negative errno, or a record's number of :mod:`model.crypto.faults`.

    `said` is the record's output size where that is not the output's length: a device that reports a wrong one, or
    whose output was not kept; -1 where it is.
    """

    error: int
    output: bytes = b""
    crc: int = 0
    said: int = -1

    @property
    def size(self) -> int:
        """`output_size`, bytes."""
        return len(self.output) if self.said < 0 else self.said


class StandIn:
    """The device's engine, by zlib.

    `style` "fixed": one block with the fixed Huffman code, level 1, what the driver asks the device for.
    "level6": level 6 with codes of its own, which a test kernel without the hardware used in its stead.
    """

    def __init__(self, style: Literal["fixed", "level6"] = "fixed") -> None:
        if style not in ("fixed", "level6"):
            raise ValueError(f"no stand-in for IAA is called {style!r}: fixed or level6")
        self.style = style

    def compress(self, page: bytes, room: int) -> Record:
        """A compress job; -E2BIG for the overflow the device reports if `room` bytes are too few."""
        if self.style == "fixed":
            deflate = zlib.compressobj(1, zlib.DEFLATED, -HISTORY_BITS, 9, zlib.Z_FIXED)
        else:
            deflate = zlib.compressobj(6, zlib.DEFLATED, -HISTORY_BITS, 8)
        output = deflate.compress(page) + deflate.flush()
        return Record(E2BIG) if len(output) > room else Record(0, output, zlib.crc32(page))

    def decompress(self, data: bytes, room: int) -> Record:
        """A decompress job: an analytics error for a bad stream, -EOVERFLOW for one of more than `room` bytes."""
        inflate = zlib.decompressobj(-HISTORY_BITS)
        try:
            output = inflate.decompress(data, room + 1)
        except zlib.error:
            return Record(ANALYTICS_ERROR)
        if len(output) > room:
            return Record(EOVERFLOW)
        return Record(0, output, zlib.crc32(output)) if inflate.eof else Record(ANALYTICS_ERROR)

    def verify(self, made: Record, room: int) -> Record:
        """The job that checks a compression's output, as far as `room` bytes."""
        return self.decompress(made.output, room)


@dataclass
class WqTable:
    """`struct wq_table_entry`: one CPU's work queues and whose turn it is."""

    wqs: list[Wq] = field(default_factory=list)
    cur_wq: int = 0

    def next_wq(self) -> Wq | None:
        """`wq_table_next_wq`: moves on first, so the first call returns the second queue if there is one."""
        self.cur_wq += 1
        if self.cur_wq >= len(self.wqs):
            self.cur_wq = 0
        return self.wqs[self.cur_wq] if self.wqs else None

    def take_wq(self) -> Wq | None:
        """The posted `comp_wq_table_next_wq` (v12, v14): returns the current one, then moves on."""
        if not self.wqs:
            return None
        wq = self.wqs[self.cur_wq]
        self.cur_wq += 1
        if self.cur_wq == len(self.wqs):
            self.cur_wq = 0
        return wq


def cpus_per_iaa(cpus: int, nr_iaa: int) -> int:
    """How many CPUs share a device; 1 if there are more devices than CPUs."""
    return max(1, cpus // nr_iaa) if nr_iaa else 1


def mainline_wq_table(
    topology: Topology, devices: Iterable[IaaDevice], how: Literal["6.12", "6.18", "7.0"]
) -> list[WqTable]:
    """`rebalance_wq_table`: each CPU's row lists all queues of one device, by CPU number.

    * "6.12": within a node, the device moves on at each CPU whose index is a multiple of `cpus_per_iaa`.
    * "6.18" (and 6.19): the index is divided by `cpus_per_iaa`, but starts anew on each node, so devices behind
      the first node's stay unused: the defect `rebalance_wq_table`.
    * "7.0" (on): the index runs on over the nodes (20260324182912.123665-1-giovanni.cabiddu@intel.com).

    A device index out of range means the first device.  Without devices every row is empty.
    """
    found = [device for device in devices if device.wqs]
    table = [WqTable() for _ in range(topology.nr_cpus)]
    if not found:
        return table
    if len(found) == 1:
        return [WqTable(list(found[0].wqs)) for _ in range(topology.nr_cpus)]
    node_cpus = topology.node_cpus()
    # nr_nodes * nr_cpus_per_node, each an integer division of its own.
    share = cpus_per_iaa(len(node_cpus) * (topology.nr_cpus // len(node_cpus)), len(found))
    iaa, running = -1, 0
    for cpus in node_cpus:
        for index, cpu in enumerate(cpus):
            if how == "6.12":
                iaa += index % share == 0
            elif how == "6.18":
                iaa = index // share
            else:
                iaa = running // share
            running += 1
            table[cpu].wqs = list(found[iaa if iaa < len(found) else 0].wqs)
    return table


assert PAGE_SIZE == 1 << HISTORY_BITS  # so within a page every match is in the device's reach
