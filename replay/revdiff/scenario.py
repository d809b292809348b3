# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios: a few operations, what fails, where they are run, and what must then be found.

A scenario is data.  What finds something knows no scenario: the invariants of :class:`replay.revdiff.freerun.FreeRun`,
a :class:`model.ledger.Ledger`, or two revisions compared with each other (:func:`replay.revdiff.lockstep.differs`).
Three kinds of operations can be run:

* :class:`replay.revdiff.freerun.Operation`: calls into zswap, run through a revision and its crypto layer;
* :class:`Request`: a single request to the crypto layer, for what zswap never asks of it;
* :class:`PoolStep`: pools and CPUs that come and go (:mod:`model.revisions.pool_create`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from model.crypto import acomp as acomp_module
from model.crypto import compressor_for
from model.crypto import iaa as iaa_module
from model.crypto.acomp import Acomp, Acomp7, AcompFolio, AcompRequest, KernelFault, Scatterlist, SgList
from model.crypto.base import CompressResult
from model.crypto.faults import FaultPlan
from model.crypto.iaa import IaaCrypto
from model.crypto.iaa_device import IaaDevice, Topology
from model.crypto.iaa_posted import IaaPosted
from model.crypto.layers import LAYERS, POSTINGS
from model.crypto.request import NeverCompletes
from model.crypto.scomp import Synthetic
from model.lines import NEWEST
from model.page import PAGE_SIZE
from model.revisions import REVISIONS
from model.revisions.pool_create import POOL_CREATE, PoolCreate
from replay.revdiff.freerun import FreeRun, Operation, OperationOutcome
from replay.revdiff.lockstep import differs

__all__ = ["Breaks", "Counts", "Found", "Iaa", "Parts", "PoolStep", "Request", "Scenario", "ScenarioSetup", "dirty",
           "found", "left_behind", "meets", "outcomes", "partings"]


@dataclass(frozen=True)
class ScenarioSetup:
    """Where a scenario is run.

    ``revision``: of zswap (of :data:`model.revisions.REVISIONS`), or for pools one of
    :data:`model.revisions.pool_create.POOL_CREATE`; empty for single requests.  ``layer``: the crypto layer, where it
    is not the revision's own.  ``without``: defects of 2026 that are mended in it; ``also``: such that it does not have
    and is given.
    """

    revision: str = ""
    layer: str = ""
    without: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()

    def __str__(self) -> str:
        parts = [self.revision] * bool(self.revision) + [f"the crypto layer of {self.layer}"] * bool(self.layer)
        text = " with ".join(parts)
        text += f" without {', '.join(f'`{name}`' for name in sorted(self.without))}" * bool(self.without)
        return text + f" with {', '.join(f'`{name}`' for name in sorted(self.also))}" * bool(self.also)

    def crypto(self) -> str:
        """Return the name of the crypto layer."""
        return self.layer or REVISIONS[self.revision].crypto_layer


@dataclass(frozen=True)
class Iaa:
    """How iaa_crypto is set up: ``options`` of the driver's class, a box of ``devices`` with ``wqs`` queues each.

    ``gone_before``: before the operation of this number the last queue is taken away, and the algorithm with it.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    devices: int = 1
    wqs: int = 2
    packages: int = 1
    gone_before: int = -1


@dataclass(frozen=True)
class Request:
    """A single request.

    ``compress``: a page is compressed, else what a compressor wrote of it is decompressed.  ``source``,
    ``destination``: the bytes of each entry, nothing for a virtual address; ``folio``: the destination is a folio.
    ``cpu``: the CPU it is made on.
    """

    page: bytes
    compress: bool = True
    source: tuple[int, ...] = (PAGE_SIZE,)
    destination: tuple[int, ...] = (PAGE_SIZE,)
    folio: bool = False
    cpu: int = 0

    @property
    def kind(self) -> str:
        """What is done, in a word."""
        return "compress" if self.compress else "decompress"


@dataclass(frozen=True)
class PoolStep:
    """``create``, ``destroy``, ``online``, ``offline`` or ``store`` (on a CPU)."""

    kind: str
    cpu: int = 0


Step: TypeAlias = Operation | Request | PoolStep


@dataclass(frozen=True)
class Breaks:
    """An invariant must be found broken at operation ``at``, in a sentence that ``pattern`` is found in."""

    at: int
    pattern: str
    check: str


@dataclass(frozen=True)
class Parts:
    """At operation ``at`` it must differ from ``other`` in a respect of :data:`replay.revdiff.lockstep.RESPECTS`."""

    at: int
    respect: str
    other: ScenarioSetup


@dataclass(frozen=True)
class Counts:
    """Nothing is wrong: operation ``at`` must move these counters so."""

    at: int
    counters: Mapping[str, int]


Find: TypeAlias = Breaks | Parts | Counts


@dataclass(frozen=True)
class Scenario:
    """A named defect.

    ``where``: the patch or file it is in; ``what``: one sentence; ``steps``: operations of one kind; ``compressor``;
    ``lengths``: makes a compressor of its own, by a page its result; ``faults``: rules of a fault plan;
    ``iaa``; ``cpus``: for pools; ``shown``: where it must be found, as ``finds`` says; ``clean``: where nothing of that
    may be found (for :class:`Breaks`: nothing at all).
    """

    name: str
    where: str
    what: str
    steps: tuple[Step, ...]
    shown: tuple[ScenarioSetup, ...]
    finds: tuple[Find, ...]
    clean: tuple[ScenarioSetup, ...] = ()
    compressor: str = "lz4"
    lengths: Callable[[bytes], CompressResult] | None = None
    faults: tuple[Mapping[str, Any], ...] = ()
    iaa: Iaa = field(default_factory=Iaa)
    cpus: int = 2
    batch: int = 8
    note: str = ""


@dataclass(frozen=True)
class Found:
    """What a scenario showed at one of its operations: an invariant's sentence, or where revisions differ."""

    at: int
    sentence: str
    respect: str = ""


# ---- running ------------------------------------------------------------------------------------------------


class _Box:
    """The crypto layer of a run, and the drivers in it."""

    def __init__(self, scenario: Scenario, setup: ScenarioSetup, faults: FaultPlan) -> None:
        self.scenario = scenario
        self.setup = setup
        self.faults = faults
        self.drivers: list[IaaCrypto | IaaPosted] = []

    def tfm(self, name: str) -> Acomp:
        """Return a tfm of the layer, with the defects that the setup says."""
        layer = self.setup.crypto()
        kind = LAYERS[layer]
        known = acomp_module.KERNEL_DEFECTS.get(layer) if kind is Acomp7 else None
        defects = None if known is None else self._defects(known, acomp_module.DEFECTS)
        if name.startswith("deflate-iaa"):
            self.drivers.append(self._iaa(layer))
            return kind(self.drivers[-1], self.faults, defects=defects)
        if self.scenario.lengths is not None:
            return kind(Synthetic(self.scenario.lengths, name), self.faults, defects=defects)
        line = REVISIONS[self.setup.revision].kernel_line if self.setup.revision else NEWEST.kernel_line
        return kind(compressor_for(name, line), self.faults, defects=defects)

    def _defects(self, own: frozenset[str], there_are: frozenset[str]) -> frozenset[str]:
        return (own - self.setup.without) | (self.setup.also & there_are)

    def _iaa(self, layer: str) -> IaaCrypto | IaaPosted:
        iaa = self.scenario.iaa
        devices = IaaDevice.several(iaa.devices, iaa.wqs)
        topology = Topology.regular(packages=iaa.packages)
        options = dict(iaa.options, faults=self.faults)
        if layer in POSTINGS:
            return IaaPosted(POSTINGS[layer], devices, topology, meant=layer.endswith("-meant"), **options)
        kernel = "6.18" if layer == "6.19" else layer
        defects = self._defects(iaa_module.KERNEL_DEFECTS[kernel], iaa_module.DEFECTS)
        return IaaCrypto(kernel, devices, topology, defects=defects, **options)

    def before(self, number: int) -> None:
        """Take the queues away, where the scenario says so."""
        if number == self.scenario.iaa.gone_before:
            for driver in self.drivers:
                for wq in [wq for device in list(driver.devices) for wq in list(device.wqs)]:
                    driver.remove(wq)


def outcomes(scenario: Scenario, setup: ScenarioSetup) -> list[OperationOutcome]:
    """Run a scenario's operations on zswap and return what each did.

    :raises ValueError: for a scenario of other operations
    """
    plan = FaultPlan.from_data([dict(rule) for rule in scenario.faults])
    box = _Box(scenario, setup, plan)
    run = FreeRun(REVISIONS[setup.revision], box.tfm, compressor=scenario.compressor, faults=plan)
    out = []
    for number, step in enumerate(scenario.steps):
        if not isinstance(step, Operation):
            raise ValueError(f"scenario {scenario.name} has operations that are not zswap's")
        box.before(number)
        out.append(run.do(step))
    return out


def partings(scenario: Scenario, one: ScenarioSetup, other: ScenarioSetup) -> list[Found]:
    """Run a scenario's operations in two setups and return where they differ."""
    names = str(one), str(other)
    out = []
    for number, (a, b) in enumerate(zip(outcomes(scenario, one), outcomes(scenario, other), strict=True)):
        difference = differs(a, b, names)
        if difference is not None:
            out.append(Found(number, difference.sentence, difference.respect))
    return out


def found(scenario: Scenario, setup: ScenarioSetup) -> list[Found]:
    """Run a scenario and return what invariants it broke, in order."""
    first = scenario.steps[0]
    if isinstance(first, Operation):
        return [Found(number, text) for number, outcome in enumerate(outcomes(scenario, setup))
                for text in outcome.problems]
    if isinstance(first, PoolStep):
        return _pool_steps(scenario, setup)
    return _requests(scenario, setup)


def meets(find: Find, scenario: Scenario, setup: ScenarioSetup) -> list[Found]:
    """Return what of a scenario's run is what ``find`` describes; nothing when it was not found."""
    if isinstance(find, Breaks):
        return [one for one in found(scenario, setup) if one.at == find.at and re.search(find.pattern, one.sentence)]
    if isinstance(find, Parts):
        return [one for one in partings(scenario, setup, find.other)
                if (one.at, one.respect) == (find.at, find.respect)]
    moved = outcomes(scenario, setup)[find.at].counters
    got = {name: moved.get(name, 0) for name in find.counters}
    said = ", ".join(f"{name} {value:+d}" for name, value in got.items())
    return [Found(find.at, said)] if got == dict(find.counters) else []


def dirty(find: Find, scenario: Scenario, setup: ScenarioSetup) -> list[str]:
    """Return in sentences what speaks against a setup being clean: any broken invariant, or the same parting."""
    if isinstance(find, Breaks):
        return [one.sentence for one in found(scenario, setup)]
    if isinstance(find, Parts) and setup != find.other:
        return [one.sentence for one in partings(scenario, setup, find.other)
                if (one.at, one.respect) == (find.at, find.respect)]
    return []


# ---- pools --------------------------------------------------------------------------------------------------


def _pool_steps(scenario: Scenario, setup: ScenarioSetup) -> list[Found]:
    plan = FaultPlan.from_data([dict(rule) for rule in scenario.faults])
    pool = POOL_CREATE[setup.revision](scenario.cpus, batch=scenario.batch, faults=plan)
    actions: dict[str, Callable[[PoolStep], object]] = {
        "create": lambda step: pool.zswap_pool_create(), "destroy": lambda step: pool.zswap_pool_destroy(),
        "online": lambda step: pool.cpu_online(step.cpu), "offline": lambda step: pool.cpu_offline(step.cpu),
        "store": lambda step: pool.zswap_compress(step.cpu),
    }
    out: list[Found] = []
    for number, step in enumerate(cast(Sequence[PoolStep], scenario.steps)):
        seen = len(pool.ledger.problems)
        actions[step.kind](step)
        out += [Found(number, text) for text in pool.ledger.problems[seen:] + left_behind(pool)]
    return out


def left_behind(pool: PoolCreate) -> list[str]:
    """Return in sentences what is still allocated after the pool is gone."""
    return [] if pool.exists else [f"{thing} is left behind" for thing in pool.ledger.things("allocation")]


# ---- single requests ----------------------------------------------------------------------------------------


def _requests(scenario: Scenario, setup: ScenarioSetup) -> list[Found]:
    plan = FaultPlan.from_data([dict(rule) for rule in scenario.faults])
    box = _Box(scenario, setup, plan)
    tfm = box.tfm(scenario.compressor)
    out: list[Found] = []
    asked: set[int] = set()
    for number, step in enumerate(cast(Sequence[Request], scenario.steps)):
        asked.add(step.cpu)
        out += [Found(number, text) for text in _request(tfm, step)]
    for driver in box.drivers:
        if asked == set(range(driver.topology.nr_cpus)):
            # Every CPU had work for it.
            out += [Found(len(scenario.steps) - 1, f"device {device.id} got no job of any CPU")
                    for device in driver.devices
                    if not any(driver.stats.wqs[wq.key].comp_calls for wq in device.wqs)]
    return out


def _request(tfm: Acomp, step: Request) -> list[str]:
    """Make a request; return in sentences what is wrong with what it gives.

    What it says it compressed has to decompress, in one piece and by the same tfm, to the page.
    """
    data, size = step.page, PAGE_SIZE
    if not step.compress:
        whole = bytearray(PAGE_SIZE)
        first = AcompRequest([Scatterlist(step.page)], [Scatterlist(whole)])
        if tfm.compress(first):
            return []
        data, size = bytes(whole[:first.dlen]), first.dlen
    out = bytearray(PAGE_SIZE)
    source: Any = _split(data, step.source) if step.source else data
    destination: Any = AcompFolio(out) if step.folio else _split(out, step.destination) if step.destination else out
    request = AcompRequest(source, destination, size, PAGE_SIZE, cpu=step.cpu)
    try:
        err = (tfm.compress if step.compress else tfm.decompress)(request)
    except (KernelFault, NeverCompletes) as fault:
        return [f"{type(fault).__name__}: {fault}"]
    if err:
        # A compression may not fit; what was compressed has to come back.
        return [] if step.compress else [f"what was compressed cannot be decompressed: error {err}"]
    got = bytes(out[:request.dlen])
    if step.compress:
        back = bytearray(PAGE_SIZE)
        again = AcompRequest([Scatterlist(got)], [Scatterlist(back)], len(got), PAGE_SIZE)
        err = tfm.decompress(again)
        got = bytes(back[:again.dlen])
        if err:
            return [f"what a compression with success wrote cannot be decompressed: error {err}"]
    return [] if got == step.page else ["what is decompressed is not the page that was compressed"]


def _split(buffer: bytes | bytearray, sizes: Sequence[int]) -> SgList:
    """Return a list of entries of ``sizes`` bytes, the last one ending with the buffer."""
    entries, at = [], 0
    for size in sizes:
        size = min(size, len(buffer) - at)
        entries.append(Scatterlist(buffer, at, size))
        at += size
    if at < len(buffer):
        entries.append(Scatterlist(buffer, at, len(buffer) - at))
    return entries
