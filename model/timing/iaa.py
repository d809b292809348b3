# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs that store folios through IAA devices, in simulated time.

A discrete-event simulation (SimPy) of what ``zswap_store()`` makes iaa_crypto do: every CPU is a process that takes one
batch after the other, submits a descriptor per page, and polls until all are done; devices are queues of bounded depth
before some engines that serve in order.  Mirrored: ``iaa_compress()`` of Linux 6.12 to 7.3 with a batch of one page
and an allocation of descriptors that blocks; iaa_crypto's batches as posted in v8, v12 and v14 (submit all, then poll
all; allocation that gives up after a number of tries; compress jobs over all devices of a package where those are
configured so).

All times are integers of nanoseconds of simulated time; no clock is read.  One seed gives one result.  All results
are graded ``modelled``.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

__all__ = ["EXAMPLE_DEPTH", "POSTED_TRIES", "Server", "Costs", "Load", "Sample", "simulate"]

#: Tries to get a descriptor before a compress job gives up, as posted (v8 10/14 and later).
POSTED_TRIES = 1000
#: Depth of a work queue in the kernel's example configuration (Documentation/driver-api/crypto/iaa/iaa-crypto.rst).
EXAMPLE_DEPTH = 128

_Steps = Generator[simpy.Event, Any, None]


def _at_least(what: object, least: int, *names: str) -> None:
    """:raises ValueError: if one of the fields is less than ``least``"""
    for name in names:
        number = getattr(what, name)
        if number < least:
            raise ValueError(f"{name} is {number}; it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What things cost, in ns.

    :param cpu: the CPU's work per stored page that is not compression: faults, zeroing, reclaim, zsmalloc
    :param compress: an engine's time for a page
    :param decompress: an engine's time for a page that is loaded
    :param submit: the CPU's time to prepare and submit one descriptor
    :param poll: one look at a completion record that finds it done
    :param retry: one try to get a descriptor that fails
    :param software: a software compressor's time for a page; if set, no device is used
    :raises ValueError: for a negative time, or no time for a retry
    """

    cpu: int
    compress: int = 0
    decompress: int = 0
    submit: int = 300
    poll: int = 100
    retry: int = 100
    software: int | None = None

    def __post_init__(self) -> None:
        _at_least(self, 0, "cpu", "compress", "decompress", "submit", "poll")
        _at_least(self, 1, "retry")  # else a full queue would hold the simulated clock still
        if self.software is not None:
            _at_least(self, 0, "software")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A machine, and how iaa_crypto uses its devices.

    :param packages: sockets; a NUMA node each
    :param cpus: logical CPUs of a package, numbered package by package
    :param devices: IAA devices of a package
    :param engines: engines of a device that are configured
    :param depth: descriptors of a device's work queue
    :param spread: compress jobs go to all devices of the package in turn (the "global" work queues of v8 9/14 and
        later); else a CPU uses the one device that it is mapped to
    :param tries: tries to get a descriptor before a compress job fails; None: wait for one (mainline)
    :raises ValueError: for a number less than 1
    """

    packages: int = 2
    cpus: int = 56
    devices: int = 4
    engines: int = 8
    depth: int = EXAMPLE_DEPTH
    spread: bool = False
    tries: int | None = None

    def __post_init__(self) -> None:
        _at_least(self, 1, "packages", "cpus", "devices", "engines", "depth")
        if self.tries is not None:
            _at_least(self, 1, "tries")

    def device_of(self, cpu: int) -> int:
        """Return the device that a CPU is mapped to, as ``rebalance_wq_table()`` of 7.2 does it.

        :raises ValueError: if there is no such CPU
        """
        if not 0 <= cpu < self.packages * self.cpus:
            raise ValueError(f"there is no CPU {cpu}; the box has {self.packages * self.cpus}")
        total = self.packages * self.devices
        cpus_per_iaa = max(1, self.packages * self.cpus // total)
        device = cpu // cpus_per_iaa
        return device if device < total else 0

    def devices_of(self, cpu: int) -> list[int]:
        """Return the devices that a CPU's compress jobs go to, in turn."""
        own = self.device_of(cpu)
        if not self.spread:
            return [own]
        first = cpu // self.cpus * self.devices
        return list(range(first, first + self.devices))


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the CPUs do.

    :param processes: processes, each bound to a CPU of its own, from CPU 0 on (``usemem -b 1 -n``)
    :param pages: pages that each stores
    :param folio_pages: pages of a folio
    :param batch: pages that are compressed at once, at most; a batch never goes beyond its folio
    :param loads: pages loaded per page stored
    :raises ValueError: for a number less than 1, or fewer loads than none
    """

    processes: int = 30
    pages: int = 512
    folio_pages: int = 16
    batch: int = 1
    loads: float = 0.0

    def __post_init__(self) -> None:
        _at_least(self, 1, "processes", "pages", "folio_pages", "batch")
        _at_least(self, 0, "loads")


@dataclass(frozen=True)
class Sample:
    """What a simulation gave.

    :param page_ns: per process, its time per stored page
    :param stalled_ns: per process, the part of it that went to compressing: submitting, retrying, waiting, polling
    :param submitted: descriptors submitted for pages to compress
    :param compressed: pages compressed
    :param failed: pages for which all tries to get a descriptor failed (-ENODEV)
    :param loaded: pages decompressed
    :param retries: tries for a descriptor that failed
    :param deepest: the most descriptors that a work queue ever held
    :param busy: per device, the part of the time that its engines were busy
    :param span: from the first event to the last, in ns
    """

    page_ns: list[float]
    stalled_ns: list[float]
    submitted: int
    compressed: int
    failed: int
    loaded: int
    retries: int
    deepest: int
    busy: list[float]
    span: int


class _Device:
    """A work queue and the engines behind it."""

    def __init__(self, env: simpy.Environment, box: Server) -> None:
        self.env = env
        self.depth = box.depth
        self.held = 0
        self.deepest = 0
        self.busy = 0
        self._free_at = [0] * box.engines  # a heap: when each engine is free
        self._freed = env.event()

    @property
    def full(self) -> bool:
        """Whether there is no descriptor left."""
        return self.held >= self.depth

    def take(self) -> None:
        """Take a descriptor."""
        self.held += 1
        self.deepest = max(self.deepest, self.held)

    def give_back(self) -> None:
        """Free a descriptor: the CPU has seen its completion."""
        self.held -= 1
        self._freed.succeed()
        self._freed = self.env.event()

    def freed(self) -> simpy.Event:
        """Return the event of the next descriptor freed; all who wait for it wake, in the order they came."""
        return self._freed

    def serve(self, service: int) -> int:
        """Hand a descriptor to the engine that is free first; return when it will be done."""
        start = max(int(self.env.now), self._free_at[0])
        heapq.heapreplace(self._free_at, start + service)
        self.busy += service
        return start + service


@dataclass
class _Tally:
    submitted: int = 0
    compressed: int = 0
    failed: int = 0
    loaded: int = 0
    retries: int = 0
    page_ns: dict[int, float] = field(default_factory=dict)
    stalled_ns: dict[int, float] = field(default_factory=dict)


class _Cpu:
    """One CPU that stores folios, one after the other."""

    def __init__(
        self, number: int, env: simpy.Environment, box: Server, costs: Costs, load: Load, devices: list[_Device],
        tally: _Tally, seed: int
    ) -> None:
        self.number, self.env, self.box, self.costs, self.load, self.tally = number, env, box, costs, load, tally
        self._row = [devices[i] for i in box.devices_of(number)]
        self._own = devices[box.device_of(number)]
        self._next = number % len(self._row)
        # Each CPU has its own stream, so that one more process changes nothing for the others' draws.
        self._random = random.Random(f"{seed}/{number}")
        self._swing: int | None = None

    def run(self) -> _Steps:
        """Store all pages; note the time per page."""
        load, costs = self.load, self.costs
        # Not all at once: processes that start in step and need equal times would stay in step for ever.
        yield self.env.timeout(self._random.randrange(load.batch * (costs.cpu + costs.compress) + 1))
        begin, stalled, owed = int(self.env.now), 0, 0.0
        done = 0
        while done < load.pages:
            in_folio = load.folio_pages - done % load.folio_pages
            n = min(load.batch, in_folio, load.pages - done)
            before = int(self.env.now)
            yield from self._compress(n)
            stalled += int(self.env.now) - before
            yield self.env.timeout(self._work(n))
            done += n
            owed += n * load.loads
            while owed >= 1:
                yield from self._decompress()
                owed -= 1
        self.tally.page_ns[self.number] = (int(self.env.now) - begin) / load.pages
        self.tally.stalled_ns[self.number] = stalled / load.pages

    def _work(self, pages: int) -> int:
        """Time for the rest of the work on some pages: up to half more or less, the next time the other way round."""
        mean = pages * self.costs.cpu
        if self._swing is None:
            self._swing = self._random.randint(-mean // 2, mean // 2)
            return mean + self._swing
        # A short last batch cannot give back more time than it takes.
        swing, self._swing = min(self._swing, mean), None
        return mean - swing

    def _compress(self, n: int) -> _Steps:
        """Compress ``n`` pages: submit all, then poll until all are done."""
        costs, tally = self.costs, self.tally
        if costs.software is not None:
            yield self.env.timeout(n * costs.software)
            tally.compressed += n
            return
        flights: list[tuple[int, int, _Device]] = []
        for k in range(n):
            self._next = (self._next + 1) % len(self._row)
            device = self._row[self._next]
            if device.full:
                yield from self._descriptor(device)
                if device.full:
                    tally.failed += 1
                    continue
            device.take()
            yield self.env.timeout(costs.submit)
            tally.submitted += 1
            flights.append((device.serve(costs.compress), k, device))
        # Passes over what is not done yet: results are taken in as they come, one look each.
        for finish, _, device in sorted(flights, key=lambda flight: flight[:2]):
            yield self.env.timeout(max(0, finish - int(self.env.now)) + costs.poll)
            device.give_back()
            tally.compressed += 1

    def _descriptor(self, device: _Device) -> _Steps:
        """Wait for a descriptor of a full work queue, or try as often as is allowed."""
        env, retry, tries = self.env, self.costs.retry, self.box.tries
        begin = int(env.now)
        while device.full:
            if tries is None:
                yield device.freed()
                continue
            # Nothing can change between two tries but by a descriptor freed: only tries after one are events.
            yield device.freed() | env.timeout(begin + tries * retry - int(env.now))
            made = min(tries, -(-(int(env.now) - begin) // retry))
            if begin + made * retry > int(env.now):
                yield env.timeout(begin + made * retry - int(env.now))
            if device.full and made < tries:
                continue
            self.tally.retries += made
            return

    def _decompress(self) -> _Steps:
        """Load one page: on the CPU's own device, as decompress jobs are not spread."""
        costs = self.costs
        if costs.software is not None:
            yield self.env.timeout(costs.decompress)
        else:
            device = self._own
            while device.full:
                yield device.freed()
            device.take()
            yield self.env.timeout(costs.submit)
            finish = device.serve(costs.decompress)
            yield self.env.timeout(max(0, finish - int(self.env.now)) + costs.poll)
            device.give_back()
        self.tally.loaded += 1


def simulate(box: Server, costs: Costs, load: Load, *, seed: int = 1) -> Sample:
    """Let every process store its pages, and return what it took.

    :param seed: of the variation of the CPUs' work, which keeps processes from running in step
    :raises ValueError: if there are more processes than CPUs, or none could continue: with batches and unlimited
        tries, CPUs can hold all descriptors and wait for one more
    """
    if load.processes > box.packages * box.cpus:
        raise ValueError(f"processes is {load.processes}; a CPU each is needed, and the box has "
                         f"{box.packages * box.cpus}")
    env = simpy.Environment(initial_time=0)
    devices = [_Device(env, box) for _ in range(box.packages * box.devices)]
    tally = _Tally()
    # Not simply until no event is left: time limits of descriptors that were allocated in time are left over.
    finished = env.all_of([env.process(_Cpu(number, env, box, costs, load, devices, tally, seed).run())
                           for number in range(load.processes)])
    try:
        env.run(until=finished)
    except RuntimeError:
        # SimPy's word for an end that nothing is left to bring about.
        if finished.triggered:
            raise
        raise ValueError(f"with queues of {box.depth}, batches of {load.batch} and no end to the tries, CPUs wait for "
                         "descriptors that only they could free") from None
    span = int(env.now)
    return Sample(
        page_ns=[tally.page_ns[number] for number in range(load.processes)],
        stalled_ns=[tally.stalled_ns[number] for number in range(load.processes)],
        submitted=tally.submitted, compressed=tally.compressed, failed=tally.failed, loaded=tally.loaded,
        retries=tally.retries, deepest=max(device.deepest for device in devices),
        busy=[device.busy / (span * box.engines) if span else 0.0 for device in devices], span=span)

