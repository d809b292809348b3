# SPDX-License-Identifier: GPL-2.0-or-later
"""The model's free parameters, from one posted table.

The table is v8's, usemem30, 64K folios, deflate-iaa: throughput, elapsed and system time, each without and with the
series, are six numbers (its average throughput is the total divided by 30 and says nothing more); its count of pages
stored without the series says how much is stored.  Four parameters are free:

* ``cpu`` and ``compress`` (:class:`model.timing.iaa.Costs`): the CPU's work per stored page that is not compression,
  and an engine's time for a page; the two throughputs fix them;
* ``freeing``: system time of a process that is not spent writing, in s; the two system times, by least squares;
* ``straggle``: how much longer the last process writes than the model's last one; the two elapsed times, likewise.

How the measured box was set up beyond sockets, cores and devices was not posted: a :class:`Setup` assumes it, and not
every assumption can give the posted numbers (:exc:`NoFit`).  How good those are that can is measured by the residual of
the four numbers that two parameters share (:attr:`Calibration.residual`).

zstd's own time per page cannot come from a table of deflate-iaa.  One more number gives it: the baseline throughput of
v8, 64K, zstd (:meth:`Calibration.software`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from .iaa import POSTED_TRIES, Costs, Load, Sample, Server, simulate
from .posted import Figures, row

__all__ = [
    "DEFAULT", "FOUND", "SETUPS", "TABLE", "ZSTD_TABLE", "Calibration", "NoFit", "ModelledRun", "Setup", "Usemem",
    "calibrate", "load", "search",
]

TABLE = "v8 64K deflate-iaa"
ZSTD_TABLE = "v8 64K zstd run 1"
#: Pages that each process of a sample stores, and the posted series' batch (ZSWAP_MAX_BATCH_SIZE of v8).
SAMPLE_PAGES = 1024
POSTED_BATCH = 8
#: What a search found (:func:`search`), cpu and compress in ns: a place to start from, tried before it is believed.
FOUND: dict[str, tuple[int, int]] = {
    "cpus56-engines1": (13814, 2012),
    "cpus56-engines2": (13826, 3972),
    "cpus56-engines4": (13538, 7805),
    "cpus56-engines8": (13721, 12603),
    "cpus112-engines1": (15255, 1003),
    "cpus112-engines2": (15154, 1994),
    "cpus112-engines4": (14947, 3948),
    "cpus112-engines8": (14516, 7775),
}
#: How near a calibration must come to the two throughputs, as a part of them.
NEAR = 0.002


class NoFit(ValueError):
    """No costs give the posted throughputs under an assumed setup."""


@dataclass(frozen=True)
class Setup:
    """What is assumed of the box that was measured, as it was not posted.

    :param cpus: logical CPUs of a package: 56 (cores) or 112 (two threads each)
    :param engines: engines configured per device
    :param spread: whether the series spread compress jobs over a package's devices (two work queues per device)
    """

    cpus: int
    engines: int
    spread: bool = True

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return f"cpus{self.cpus}-engines{self.engines}" + ("" if self.spread else "-own")

    def box(self, *, series: bool) -> Server:
        """Return the measured box, without or with the series."""
        return Server(cpus=self.cpus, engines=self.engines, spread=series and self.spread,
                      tries=POSTED_TRIES if series else None)


#: The setups that are tried.  1 engine is what the kernel's default configuration and its documented script set up
#: (drivers/dma/idxd/defaults.c; Documentation/driver-api/crypto/iaa/iaa-crypto.rst), 8 is what a device has.
SETUPS = {setup.name: setup for setup in (Setup(cpus, engines, spread) for spread in (True, False)
                                          for cpus in (56, 112) for engines in (1, 2, 4, 8))}
#: The setup whose calibration leaves least of its own table unexplained (``zreplay whatif --setups``).
DEFAULT = "cpus56-engines1"


@dataclass(frozen=True, kw_only=True)
class Usemem:
    """The posted workload.

    :param processes: processes
    :param kib: what each writes, in units of 1024 bytes
    :param stored: pages that each has stored to zswap by the end of it
    :param sleep: how long each sleeps before it frees its memory, in s
    """

    processes: int = 30
    kib: int = 10 << 20
    stored: float
    sleep: float = 10.0


@dataclass(frozen=True)
class ModelledRun:
    """The model's figures for a run, all with the grade ``modelled``.

    :param figures: throughput (KB/s), elapsed and system time (s), as a posted table has them
    :param sample: the simulation it is taken from
    """

    figures: Figures
    sample: Sample


@dataclass(frozen=True)
class Calibration:
    """What was found under a setup.

    :param costs: times per page, in ns
    :param stored: pages that a process stores: the table's baseline count, shared among 30
    :param freeing: a process' system time that is not spent writing, in s
    :param straggle: how much longer the last process writes than the model's last one, as a part of its time
    """

    setup: Setup
    costs: Costs
    stored: float
    freeing: float
    straggle: float

    def outcome(self, box: Server, load: Load, *, costs: Costs | None = None, stored: float | None = None,
                seed: int = 1) -> ModelledRun:
        """Simulate a sample and return what a whole run would show.

        :param costs: other costs than those calibrated
        :param stored: pages that a process stores, if not as many as in the table
        :raises ValueError: if the box has too few CPUs
        """
        work = Usemem(processes=load.processes, stored=self.stored if stored is None else stored)
        sample = simulate(box, costs or self.costs, load, seed=seed)
        writing = _writing(sample, work.stored)
        total = sum(work.kib / seconds for seconds in writing)
        return ModelledRun(Figures(
            total=total, average=total / work.processes,
            elapsed=work.sleep + (1 + self.straggle) * max(writing) + self.freeing,
            sys=sum(writing) + work.processes * self.freeing), sample)

    def software(self) -> tuple[Costs, float]:
        """Return costs with zstd in place of the devices, and the pages a process stores with it.

        A software compressor does not wait: its time per page is what the table's baseline throughput leaves.
        """
        table = row(ZSTD_TABLE).baseline
        stored = _stored(table)
        per_page = Usemem(stored=stored).kib * Usemem(stored=stored).processes / table.total / stored * 1e9
        return replace(self.costs, software=max(0, round(per_page) - self.costs.cpu)), stored

    @property
    def residual(self) -> float:
        """Root mean square of the relative errors in the table's two elapsed and two system times."""
        table = row(TABLE)
        errors = []
        for figures, series in ((table.baseline, False), (table.patched, True)):
            said = self.outcome(self.setup.box(series=series), load(series=series)).figures
            errors += [said.elapsed / figures.elapsed - 1, said.sys / figures.sys - 1]
        return math.sqrt(sum(error * error for error in errors) / len(errors))


def load(*, series: bool, folio_pages: int = 16, loads: float = 0.0) -> Load:
    """Return the posted workload's sample, without or with the series."""
    return Load(processes=30, pages=SAMPLE_PAGES, folio_pages=folio_pages, batch=POSTED_BATCH if series else 1,
                loads=loads)


def _stored(figures: Figures) -> float:
    """Return how many pages each of 30 processes stored."""
    if figures.zswpout is None:
        raise ValueError("the table has no zswpout")
    return figures.zswpout / 30


def _writing(sample: Sample, stored: float) -> list[float]:
    """Return how long each process writes, in s."""
    return [ns * stored / 1e9 for ns in sample.page_ns]


@functools.cache
def calibrate(setup: Setup) -> Calibration:
    """Return the four parameters under a setup.

    The two times are taken from :data:`FOUND` where they give the posted throughputs, which is tried every time, and
    are searched for where they do not or where there are none.

    :raises NoFit: if no costs give the table's throughputs
    """
    table = row(TABLE)
    work = Usemem(stored=_stored(table.baseline))
    cpu, compress = FOUND.get(setup.name, (-1, -1))
    if cpu < 0 or not _fits(setup, cpu, compress):
        # Where nothing comes near in a short sample, a long one only takes longer to say so.
        search(setup, pages=64, near=0.03)
        cpu, compress = search(setup)
    columns = [(figures, _times(setup, series, cpu, compress)) for figures, series in ((table.baseline, False),
                                                                                       (table.patched, True))]
    freeing = sum(figures.sys - sum(times) for figures, times in columns) / work.processes / len(columns)
    # Elapsed time is sleep + (1 + straggle) * longest + freeing.
    longest = [max(times) for _, times in columns]
    left = [figures.elapsed - work.sleep - freeing - max(times) for figures, times in columns]
    straggle = sum(a * b for a, b in zip(longest, left, strict=True)) / sum(a * a for a in longest)
    # Nothing that was posted says what decompressing costs an engine; half of compressing is a guess.
    return Calibration(setup, Costs(cpu=cpu, compress=compress, decompress=compress // 2), work.stored, freeing,
                       straggle)


def search(setup: Setup, pages: int = SAMPLE_PAGES, near: float = NEAR) -> tuple[int, int]:
    """Search for the CPU's work per page and an engine's time per page that give the table's two throughputs, in ns.

    :param pages: pages per process of a sample; with fewer, start and end of the sample count for more
    :param near: how near to the throughputs is enough, as a part of them
    :raises NoFit: if none are found
    """
    table = row(TABLE)
    work = Usemem(stored=_stored(table.baseline))

    @functools.cache
    def cpu_for(compress: int) -> int | None:
        """The CPU's work with which the series' throughput is the posted one; None: it is too low with none at all."""
        return _root(lambda cpu: _surplus(setup, True, _sample(setup, True, cpu, compress, pages)), 0, 100_000)

    def baseline(compress: int) -> float | None:
        cpu = cpu_for(compress)
        return None if cpu is None else _surplus(setup, False, _sample(setup, False, cpu, compress, pages))

    # Engines that are always busy give the longest time per page that the series' throughput allows.
    most = work.kib / table.patched.total / work.stored * 1e9 * setup.engines * setup.box(series=True).devices
    compress = _root(baseline, 1, round(most))
    cpu = None if compress is None else cpu_for(compress)
    if compress is None or cpu is None or not _fits(setup, cpu, compress, pages, near):
        raise NoFit(f"under the setup {setup.name}, no costs give both throughputs of {TABLE} without failed pages")
    return cpu, compress


def _sample(setup: Setup, series: bool, cpu: int, compress: int, pages: int = SAMPLE_PAGES) -> Sample:
    """Return the sample of the table's run, without or with the series."""
    return simulate(setup.box(series=series), Costs(cpu=cpu, compress=compress),
                    replace(load(series=series), pages=pages))


def _times(setup: Setup, series: bool, cpu: int, compress: int) -> list[float]:
    """Return how long each process writes in the table's run, in s."""
    return _writing(_sample(setup, series, cpu, compress), _stored(row(TABLE).baseline))


def _surplus(setup: Setup, series: bool, sample: Sample) -> float:
    """Return how much more throughput there is than posted, as a logarithm."""
    table = row(TABLE)
    work = Usemem(stored=_stored(table.baseline))
    said = sum(work.kib / seconds for seconds in _writing(sample, work.stored))
    return math.log(said / (table.patched if series else table.baseline).total)


def _fits(setup: Setup, cpu: int, compress: int, pages: int = SAMPLE_PAGES, near: float = NEAR) -> bool:
    """Whether costs give the table's two throughputs, and no page fails: v8's cover letter says that none did."""
    for series in (False, True):
        sample = _sample(setup, series, cpu, compress, pages)
        if sample.failed or abs(_surplus(setup, series, sample)) > near:
            return False
    return True


def _root(function: Callable[[int], float | None], low: int, high: int) -> int | None:
    """Return where a falling function crosses zero, as near as whole numbers and some noise allow.

    None stands for "below zero by an unknown amount".  Returns None itself where even ``low`` gives that or less than
    zero; a function that never crosses gives the last place that is above.
    """
    above, below = function(low), function(high)
    if above is None or above < 0:
        return None
    best = (abs(above), low)
    while high - low > 1 and best[0] > NEAR / 10:
        # Where both values are known, between them as they lie, but never too near to one end; else the middle.
        share = 0.5 if below is None else min(0.9, max(0.1, above / (above - below))) if below < 0 else 0.5
        middle = min(high - 1, max(low + 1, round(low + share * (high - low))))
        value = function(middle)
        if value is not None:
            best = min(best, (abs(value), middle))
        if value is not None and value >= 0:
            low, above = middle, value
        else:
            high, below = middle, value
    return best[1]
