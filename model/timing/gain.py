# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model says, next to what was posted, and what it says of boxes that were never measured.

Everything here is graded ``modelled``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .calibrate import POSTED_BATCH, SAMPLE_PAGES, TABLE, ZSTD_TABLE, Calibration, ModelledRun, NoFit, calibrate, load
from .calibrate import SETUPS as _SETUPS
from .iaa import Load, Server
from .posted import METRICS, ROWS, PostedRow

__all__ = ["COMPRESSORS", "GRADE", "Answer", "Line", "Question", "ask", "predict", "spread_of_setups"]

GRADE = "modelled"
COMPRESSORS = ("deflate-iaa", "zstd")


@dataclass(frozen=True)
class Line:
    """One line of a posted table, and what the model says of it.

    :param metric: which line, one of :data:`model.timing.posted.METRICS`
    :param posted: without and with the series
    :param said: the same, by the model
    :param use: what the line was used for: ``predicted``, or what the calibration took from it
    """

    row: PostedRow
    metric: str
    posted: tuple[float, float]
    said: tuple[float, float]
    use: str

    @property
    def posted_gain(self) -> float:
        """Change by the series, in % of the baseline."""
        return 100 * (self.posted[1] / self.posted[0] - 1)

    @property
    def said_gain(self) -> float:
        """The same, by the model."""
        return 100 * (self.said[1] / self.said[0] - 1)

    @property
    def error(self) -> float:
        """How much the model's change is above the posted one, in percentage points."""
        return self.said_gain - self.posted_gain

    @property
    def errors(self) -> tuple[float, float]:
        """How much the model's two values are above the posted ones, in % of these."""
        return 100 * (self.said[0] / self.posted[0] - 1), 100 * (self.said[1] / self.posted[1] - 1)


def _use(row: PostedRow, metric: str) -> str:
    """Return what the calibration took from a line."""
    if row.name == TABLE:
        return "same number" if metric == "average throughput" else "calibrated"
    # Both runs of v8's zstd table share their baseline column.
    if row.name.split(" run ")[0] == ZSTD_TABLE.split(" run ")[0] and "throughput" in metric:
        return "calibrated (baseline)"
    return "predicted"


def predict(calibration: Calibration, progress: Callable[[str, int, int], None] | None = None) -> Iterator[Line]:
    """Yield every line of every posted usemem table of v8, v14 and v12.

    :param progress: called with (what, tables done, tables)
    """
    @functools.cache
    def said(compressor: str, folio_pages: int, series: bool, loads: float) -> ModelledRun:
        box = calibration.setup.box(series=series)
        work = load(series=series, folio_pages=folio_pages, loads=loads)
        if compressor == "deflate-iaa":
            return calibration.outcome(box, work)
        costs, stored = calibration.software()
        return calibration.outcome(box, work, costs=costs, stored=stored)

    for done, row in enumerate(ROWS):
        if progress is not None:
            progress("tables", done, len(ROWS))
        both = []
        for figures, series in ((row.baseline, False), (row.patched, True)):
            loads = figures.zswpin / figures.zswpout if figures.zswpin and figures.zswpout else 0.0
            both.append(said(row.compressor, row.folio_pages, series, loads).figures)
        for metric in METRICS:
            yield Line(row, metric, (row.baseline.of(metric), row.patched.of(metric)),
                       (both[0].of(metric), both[1].of(metric)), _use(row, metric))


@dataclass(frozen=True, kw_only=True)
class Question:
    """A configuration to ask about; None: as the calibration's setup has it.

    :param spread: compress jobs over all devices of a package, or each CPU to its own
    :param tries: tries to get a descriptor; 0: wait for one
    :param loads: pages loaded per page stored
    """

    compressor: str = "deflate-iaa"
    processes: int = 30
    folio_pages: int = 16
    batch: int = POSTED_BATCH
    packages: int | None = None
    cpus: int | None = None
    devices: int | None = None
    engines: int | None = None
    depth: int | None = None
    spread: bool | None = None
    tries: int | None = None
    loads: float = 0.0
    seed: int = 1

    def box(self, calibration: Calibration) -> Server:
        """Return the box that is asked about.

        :raises ValueError: for a number that cannot be
        """
        given = {name: value for name in ("packages", "cpus", "devices", "engines", "depth", "spread")
                 if (value := getattr(self, name)) is not None}
        if self.tries is not None:
            given["tries"] = self.tries or None
        return replace(calibration.setup.box(series=True), **given)


@dataclass(frozen=True)
class Answer:
    """What the model says of a configuration, compared with what it says of the two that were posted.

    :param baseline: the posted box and processes, one page at a time, mainline's driver
    :param series: the same box with the series
    :param asked: what was asked about
    """

    calibration: Calibration
    box: Server
    baseline: ModelledRun
    series: ModelledRun
    asked: ModelledRun

    def gain(self, metric: str, over: str = "baseline") -> float:
        """Return the gain of the configuration in question over a posted one (``baseline`` or ``series``), in %."""
        other: ModelledRun = getattr(self, over)
        return 100 * (self.asked.figures.of(metric) / other.figures.of(metric) - 1)


def ask(calibration: Calibration, question: Question) -> Answer:
    """Simulate a configuration and the two that were posted, of the same compressor.

    :raises ValueError: for a compressor or a number that cannot be
    """
    if question.compressor not in COMPRESSORS:
        raise ValueError(f"no times are known of the compressor {question.compressor}; there are "
                         f"{' and '.join(COMPRESSORS)}")
    costs, stored = (calibration.costs, calibration.stored) if question.compressor == "deflate-iaa" else (
        calibration.software())

    def outcome(box: Server, work: Load, seed: int = 1) -> ModelledRun:
        return calibration.outcome(box, work, costs=costs, stored=stored, seed=seed)

    asked = Load(processes=question.processes, pages=max(SAMPLE_PAGES, question.folio_pages),
                 folio_pages=question.folio_pages, batch=question.batch, loads=question.loads)
    box = question.box(calibration)
    return Answer(calibration, box, outcome(calibration.setup.box(series=False), load(series=False)),
                  outcome(calibration.setup.box(series=True), load(series=True)), outcome(box, asked, question.seed))


def spread_of_setups(question: Question, progress: Callable[[str, int, int], None] | None = None) -> list[Answer]:
    """Ask under every setup that gives the posted throughputs; where they disagree, the tables do not decide.

    :param progress: called with (what, setups done, setups)
    :raises ValueError: as :func:`ask`
    """
    answers = []
    # Those that do not spread are known to have no solution, and take long to say so again.
    setups = [setup for setup in _SETUPS.values() if setup.spread]
    for done, setup in enumerate(setups):
        if progress is not None:
            progress("setups", done, len(setups))
        try:
            answers.append(ask(calibrate(setup), question))
        except NoFit:
            continue
    return answers
