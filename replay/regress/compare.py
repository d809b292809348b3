# SPDX-License-Identifier: GPL-2.0-or-later
"""Two sets of recordings compared with each other: one verdict for each measure, and one for all.

A measure is judged in one of two ways.  On the operations that all recordings made alike from the beginning, counts
are compared exactly: nothing but the kernel can make them differ.  Over whole runs, means are tested
(:mod:`replay.regress.statistics`) where each side has three runs; where not, nothing is said of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from replay.regress.catalogue import Better, Kind, Measure
from replay.regress.matching import Alike, alike
from replay.regress.measures import Run, measure
from replay.regress.statistics import LEAST_RUNS, KernelRuns, Tested, holm, test
from replay.tools.requirements import need
from traces.errors import BadInput
from traces.recording import Recording
from traces.times import no_seconds

__all__ = ["ALPHA", "LEAST_SHARE", "MARGIN", "VERDICTS", "MeasureVerdict", "Pages", "Regression", "regress"]

#: Below this corrected p value a test decides.
ALPHA: Final = 0.05
#: A change smaller than this share of the base's mean does not count as one.
MARGIN: Final = 0.02
VERDICTS: Final = ("worse", "better", "same", "inconclusive")
#: Where a check's numbers are from.
ALIKE, WHOLE, PAGES = "same operations", "whole runs", "same pages"
#: Work that differs by more than this share is not called the same.
_SAME_WORK: Final = 0.1
#: The share of the checks that has to be conclusive before a kernel is called not worse.
LEAST_SHARE: Final = 2 / 3
_Progress = Callable[[str, int, int], None]


@dataclass
class MeasureVerdict:
    """One measure's verdict.

    ``scope``: ``same operations`` (compared exactly), ``same pages`` (contents stored in both, compared exactly) or
    ``whole runs``; ``base``, ``patched``: the runs' values, None where a side has none; ``tested``: the test's
    result, ``p_different`` and ``p_same`` corrected for all tests made; ``reason``: what else the verdict rests on.
    """

    measure: Measure
    scope: str
    base: KernelRuns | None
    patched: KernelRuns | None
    verdict: str = "inconclusive"
    reason: str = ""
    tested: Tested | None = None
    p_different: float | None = None
    p_same: float | None = None

    @property
    def id(self) -> str:
        """The check's name: the measure's, ``alike.`` before it where it is of the same operations alone."""
        return f"alike.{self.measure.id}" if self.scope == ALIKE else self.measure.id

    @property
    def change(self) -> float | None:
        """Change of the mean as a share of the base's; None where that is 0 or a side has no value."""
        if self.base is None or self.patched is None or not self.base.mean:
            return 0.0 if self.base is not None and self.patched is not None and not self.patched.mean else None
        return (self.patched.mean - self.base.mean) / abs(self.base.mean)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        made = self.measure
        return {"check": self.id, "what": made.doc, "unit": made.unit, "group": made.group,
                "better": made.better.value, "grade": made.grade, "scope": self.scope,
                **{name: None if side is None else {"values": list(side.values), "mean": side.mean,
                                                    "spread": side.spread}
                   for name, side in (("base", self.base), ("patched", self.patched))},
                "change": self.change, "verdict": self.verdict, "reason": self.reason,
                "p_different": self.p_different, "p_same": self.p_same,
                "uncorrected": None if self.tested is None else {"p_different": self.tested.p_different,
                                                                 "p_same": self.tested.p_same,
                                                                 "freedom": self.tested.freedom}}


@dataclass(frozen=True)
class Pages:
    """Page contents that both sides stored: how many ``shared``, ``longer`` and ``shorter`` in patched; ``unsteady``:
    left out, as one kernel gave them several lengths; ``why``: why there is nothing to compare."""

    shared: int = 0
    longer: int = 0
    shorter: int = 0
    unsteady: int = 0
    why: str = ""

    def text(self) -> str:
        """Return it as a sentence."""
        if not self.shared:
            return f"lengths of the same pages were not compared: {self.why}"
        left = f"; {self.unsteady:,} more had several lengths with one kernel" if self.unsteady else ""
        return (f"of {self.shared:,} page contents that both kernels stored, {self.longer:,} are longer, "
                f"{self.shorter:,} shorter, {self.shared - self.longer - self.shorter:,} of the same length{left}")


@dataclass
class Regression:
    """All checks, and what they rest on.

    ``facts``: measures that are never judged, as they follow from the workload; ``notes``: what a reader must know.
    """

    base: list[Run]
    patched: list[Run]
    alike: Alike
    pages: Pages
    checks: list[MeasureVerdict]
    facts: list[MeasureVerdict]
    notes: list[str]
    margin: float
    tests: int = 0
    losses: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """Both sides' runs."""
        return [*self.base, *self.patched]

    def of(self, verdict: str) -> list[MeasureVerdict]:
        """Return the checks of a verdict."""
        return [check for check in self.checks if check.verdict == verdict]

    @property
    def verdict(self) -> str:
        """``worse`` where any check is; ``not worse`` where enough is conclusive and no event lost; else undecided."""
        if self.of("worse"):
            return "worse"
        return "undecided" if self.why else "not worse"

    @property
    def judged(self) -> list[MeasureVerdict]:
        """The checks that could be conclusive: an emulator's times are shown, and never are."""
        emulator = any(run.emulated for run in self.runs)
        return [check for check in self.checks if not (emulator and check.measure.kind is Kind.TIME)]

    @property
    def conclusive(self) -> int:
        """How many of :attr:`judged` are."""
        return sum(check.verdict != "inconclusive" for check in self.judged)

    @property
    def share(self) -> str:
        """How many checks are conclusive, as a sentence that also says how many have to be."""
        conclusive, of = self.conclusive, len(self.judged)
        percent = 100 * conclusive // of if of else 0
        times = "" if of == len(self.checks) else ", an emulator's times not counted"
        return (f"{conclusive:,} of {of:,} checks are conclusive ({percent} %{times}); \"not worse\" takes "
                f"{math.ceil(100 * LEAST_SHARE)} %")

    @property
    def why(self) -> str:
        """Why nothing can be called not worse, ``""`` where it can."""
        if self.losses:
            return "events were lost"
        return "" if self.judged and self.conclusive >= LEAST_SHARE * len(self.judged) else self.share

    @property
    def exit_status(self) -> int:
        """1 when something is worse, 0 when nothing is, 3 when too little is conclusive."""
        return {"worse": 1, "not worse": 0, "undecided": 3}[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"verdict": self.verdict, "why": self.why,
                "share": {"conclusive": self.conclusive, "of": len(self.judged), "least": LEAST_SHARE},
                "counts": {verdict: len(self.of(verdict)) for verdict in VERDICTS},
                **{name: [{"recording": run.recording, "kernel": run.kernel, "compressor": run.compressor,
                           "folio_orders": {str(order): pages for order, pages in sorted(run.orders.items())},
                           "operations": len(run.operations.events), "emulated": run.emulated, "losses": run.losses,
                           "counters_at_end": run.ends}
                          for run in runs] for name, runs in (("base", self.base), ("patched", self.patched))},
                "test": {"difference": "Welch's t-test, two-sided", "same": "two one-sided tests (Welch)",
                         "margin": self.margin, "level": ALPHA, "correction": "Holm", "tests": self.tests,
                         "least_runs": LEAST_RUNS},
                "alike": {"operations": self.alike.count, "why": self.alike.why,
                          "with_other_effects": self.alike.different, "first_with_other_effects": self.alike.first,
                          "its_events": self.first_events()},
                "pages": {"shared": self.pages.shared, "longer": self.pages.longer, "shorter": self.pages.shorter,
                          "unsteady": self.pages.unsteady, "why": self.pages.why},
                "checks": [check.as_dict() for check in self.checks],
                "facts": [check.as_dict() for check in self.facts], "notes": self.notes}

    def first_events(self) -> list[int]:
        """Return, for each run, the event at which the first operation with other effects begins."""
        first = self.alike.first
        return [] if first is None else [run.operations.events[first] for run in self.runs]


def regress(base: Sequence[Recording], patched: Sequence[Recording], *, margin: float = MARGIN,
            progress: _Progress | None = None) -> Regression:
    """Compare recordings of a patched kernel with those of its base.

    :param base: one or several runs of the base kernel
    :param patched: one or several runs of the patched one
    :param margin: the change that does not count, as a share of the base's mean
    :param progress: called with (what, done, total) while recordings are measured
    :raises BadInput: when the runs of a side are not of one kernel and one compressor, one cannot be read, or a run is
        given twice, or SciPy is wanted and not installed
    """
    recordings = [*base, *patched]
    _each_once([(str(recording.path), os.path.realpath(recording.path)) for recording in recordings])
    if min(len(base), len(patched)) >= LEAST_RUNS:
        # What tests a difference loads late, and it would be missed late.
        need("scipy", "report", "regress of three or more runs a side")
    sides = [[measure(recording, progress=progress) for recording in side] for side in (base, patched)]
    for side in sides:
        _one_kind(side)
    runs = [*sides[0], *sides[1]]
    _each_once([(run.recording, run.identity) for run in runs])
    losses = [f"{run.recording}: {loss}" for run in runs for loss in run.losses]
    part = alike([run.operations for run in runs], [run.start for run in runs], bool(losses),
                 any(run.keyed for run in runs))
    checks: list[MeasureVerdict] = []
    if part.whole:
        exact = [sides[0], sides[1]]
    elif part.count:
        measured = [measure(recording, until=event, progress=progress)
                    for recording, event in zip(recordings, part.events, strict=True)]
        exact = [measured[:len(base)], measured[len(base):]]
    else:
        exact = []
    if exact:
        # Where it is a part, what a side lacks in it (a snapshot that came later) is looked at over whole runs.
        checks += [_exactly(check, margin) for check in _checks(exact[0], exact[1], ALIKE)
                   if check.measure.kind is Kind.COUNT and (part.whole or (check.base and check.patched))]
    # What is of one moment has one value, wherever it is looked at.
    done = {check.measure.id for check in checks if part.whole or "@" in check.measure.id}
    whole = [check for check in _checks(sides[0], sides[1], WHOLE) if check.measure.id not in done]
    pages = _pages(sides, checks)
    _test(whole, margin, any(run.emulated for run in runs))
    checks += whole
    facts = [check for check in checks if check.measure.better is Better.NEITHER]
    checks = [check for check in checks if check.measure.better is not Better.NEITHER]
    if losses:
        _without_losses(checks)
    work = _differing_work(facts)
    if work:
        _without_sameness(checks)
    notes = [*_notes(sides, part), *work]
    return Regression(sides[0], sides[1], part, pages, checks, facts, notes, margin,
                      sum(check.tested is not None for check in whole), losses)


def _one_kind(side: Sequence[Run]) -> None:
    """Refuse runs of several kernels on one side: their spread would not be one kernel's."""
    for run in side[1:]:
        for name in ("kernel", "compressor"):
            if getattr(run, name) != getattr(side[0], name):
                raise BadInput(run.recording, "", f"is of {name} {getattr(run, name)} where {side[0].recording} is of "
                               f"{getattr(side[0], name)}", "give the runs of one kernel and one compressor to a side")


def _each_once(named: Sequence[tuple[str, str]]) -> None:
    """Refuse a run that is given twice: its spread would be 0, or it would be compared with itself.

    :param named: name of each recording, and what distinguishes its run from others (``""``: nothing does)
    :raises BadInput: for the second of two that are one
    """
    seen: dict[str, str] = {}
    for name, identity in named:
        if identity and identity in seen:
            again = "is given twice" if name == seen[identity] else \
                f"is the run that {seen[identity]} is: the same events at the same times"
            raise BadInput(name, "", again, "give each run once, and record further ones")
        seen[identity] = name


def _checks(base: Sequence[Run], patched: Sequence[Run], scope: str) -> list[MeasureVerdict]:
    """Return a check without verdict for each measure that any run has."""
    measures: dict[str, Measure] = {}
    for run in (*base, *patched):
        for name, made in run.measures.items():
            measures.setdefault(name, made)
    checks = []
    for name, made in measures.items():
        sides: list[KernelRuns | None] = []
        reasons = []
        for words, runs in (("base", base), ("patched", patched)):
            lacking = [run for run in runs if name not in run.values]
            if lacking:
                why = lacking[0].missing.get(name) or "the counter is not in its snapshots"
                reasons.append(f"{words}: {why}" + (f" ({Path(lacking[0].recording).name})" if len(runs) > 1 else ""))
            sides.append(None if lacking else KernelRuns(tuple(run.values[name] for run in runs)))
        if len(reasons) == 2 and not any(name in run.values for run in (*base, *patched)):
            # What no run has is reported once.
            reasons = sorted({reason.partition(": ")[2] for reason in reasons})[:1]
        checks.append(MeasureVerdict(made, scope, sides[0], sides[1], reason="; ".join(reasons)))
    return checks


def _judge(check: MeasureVerdict) -> None:
    """Give the verdict of a change that is there."""
    base, patched = check.base, check.patched
    assert base is not None
    assert patched is not None
    if check.measure.better in (Better.LOWER, Better.HIGHER):
        less = patched.mean < base.mean
        check.verdict = "better" if less == (check.measure.better is Better.LOWER) else "worse"
    elif check.scope == ALIKE:
        check.verdict, check.reason = "worse", "the same operations must have the same effects"
    else:
        check.reason = "it differs, which on other operations is neither better nor worse"


def _exactly(check: MeasureVerdict, margin: float) -> MeasureVerdict:
    """Give the verdict of counts on the same operations."""
    base, patched = check.base, check.patched
    if base is None or patched is None:
        return check
    if not (base.steady and patched.steady):
        check.reason = "runs of one kernel differ on the same operations"
    elif base.mean == patched.mean:
        check.verdict = "same"
    elif check.measure.loose and check.change is not None and abs(check.change) < margin:
        check.verdict, check.reason = "same", "inside the margin"
    else:
        _judge(check)
    return check


def _test(checks: Sequence[MeasureVerdict], margin: float, emulator: bool) -> None:
    """Give the verdicts of checks on whole runs."""
    judged = [check for check in checks if check.measure.better is not Better.NEITHER]
    for check in judged:
        if check.base is None or check.patched is None:
            continue
        if check.measure.kind is Kind.TIME and emulator:
            check.reason = "an emulator's times are not a machine's"
        elif min(check.base.runs, check.patched.runs) < LEAST_RUNS:
            check.reason = f"no test is possible with fewer than {LEAST_RUNS} runs of each kernel"
        elif check.base.steady and check.patched.steady:
            _without_spread(check)
    for check in judged:
        # An emulator's times would only make the correction harder for the others.
        if check.base is not None and check.patched is not None and not (check.measure.kind is Kind.TIME and emulator):
            check.tested = test(check.base, check.patched, margin)
    counted = [check for check in judged if check.tested is not None]
    different = holm([check.tested.p_different for check in counted if check.tested is not None])
    same = holm([check.tested.p_same for check in counted if check.tested is not None])
    for check, p_different, p_same in zip(counted, different, same, strict=True):
        check.p_different, check.p_same = p_different, p_same
        if p_same is not None and p_same < ALPHA:
            check.verdict = "same"
        elif p_different is not None and p_different < ALPHA:
            _judge(check)
        else:
            check.reason = "the runs spread too much for their number"


def _without_spread(check: MeasureVerdict) -> None:
    """Give the verdict where every run of each side has the same value."""
    assert check.base is not None
    assert check.patched is not None
    if check.base.mean == check.patched.mean:
        check.verdict = "same"
    elif check.measure.kind is Kind.TIME:
        check.reason = "times that do not spread at all come from a clock too coarse for them"
    else:
        _judge(check)
    check.reason = check.reason or "no run of a kernel differs from the others"


def _pages(sides: Sequence[Sequence[Run]], checks: list[MeasureVerdict]) -> Pages:
    """Compare lengths of the same page contents, and add the check."""
    if any(not run.lengths.by_digest for run in (*sides[0], *sides[1])):
        return Pages(why="a recording has no page digests, or its stores did not say which length is whose")
    if any(run.keyed for run in (*sides[0], *sides[1])):
        return Pages(why="pages are known by digests with keys of their own (record with --pages full)")
    known: list[dict[str, int]] = []
    unsteady: set[str] = set()
    for side in sides:
        lengths: dict[str, int] = {}
        for run in side:
            unsteady |= run.lengths.unsteady
            for digest, length in run.lengths.by_digest.items():
                if lengths.setdefault(digest, length) != length:
                    unsteady.add(digest)
        known.append(lengths)
    both = known[0].keys() & known[1].keys()
    shared = sorted(both - unsteady)
    if not shared:
        return Pages(unsteady=len(both & unsteady), why="no page content was stored by both kernels")
    totals = [sum(lengths[digest] for digest in shared) for lengths in known]
    pages = Pages(len(shared), sum(known[1][digest] > known[0][digest] for digest in shared),
                  sum(known[1][digest] < known[0][digest] for digest in shared), len(both & unsteady))
    made = Measure("length.pages", "same pages' length, mean", "bytes", "compression", Better.LOWER)
    check = MeasureVerdict(made, PAGES, KernelRuns((totals[0] / len(shared),)), KernelRuns((totals[1] / len(shared),)),
                           reason=pages.text())
    if not pages.longer and not pages.shorter:
        check.verdict = "same"
    elif totals[0] != totals[1]:
        check.verdict = "worse" if totals[1] > totals[0] else "better"
    checks.append(check)
    return pages


def _without_losses(checks: Sequence[MeasureVerdict]) -> None:
    """Take back what a recording with lost events cannot say."""
    for check in checks:
        # What the kernel itself counted is not lost with events; but nothing is called the same.
        if check.verdict == "same" or (check.verdict != "inconclusive" and check.measure.kind is not Kind.SNAPSHOT):
            check.verdict, check.reason = "inconclusive", "events were lost"


def _without_sameness(checks: Sequence[MeasureVerdict]) -> None:
    """Take back "same" over whole runs that did not do the same work."""
    for check in checks:
        if check.verdict == "same" and check.scope == WHOLE:
            check.verdict, check.reason = "inconclusive", "base and patched did not do the same work"


def _notes(sides: Sequence[Sequence[Run]], part: Alike) -> list[str]:
    """Return what a reader must know besides the checks."""
    notes = []
    runs = [*sides[0], *sides[1]]
    names = _names(runs)
    total = max(len(run.operations.events) for run in runs)
    if part.count:
        notes.append(f"all recordings made the first {part.count:,} of up to {total:,} operations alike (kind, slot, "
                     f"folio order, page contents, in this order), where counts are compared exactly; {part.why}")
    else:
        notes.append(f"no operations could be called alike, so no count is compared exactly: {part.why}")
    if part.first is not None:
        where = ", ".join(f"event {run.operations.events[part.first]} of {name}"
                          for run, name in zip(runs, names, strict=True))
        notes.append(f"{part.different:,} of these operations had other effects; the first is operation "
                     f"{part.first:,}: {where} (see 'zreplay show')")
    if min(len(side) for side in sides) < LEAST_RUNS:
        notes.append(f"{len(sides[0])} and {len(sides[1])} runs: no test is possible with fewer than {LEAST_RUNS} of "
                     "each kernel, so measures over whole runs have no verdict")
    machines = {run.emulated for run in runs}
    if True in machines:
        notes.append("recorded in an emulator: its times are those of the emulating program and get no verdict")
    elif None in machines:
        notes.append("a recording does not say what its box was; if an emulator, its times mean little")
    notes.append("times have the recorder's own work in them; what it costs differs from kernel to kernel")
    notes += [f"{name} has no times: {no_seconds(run.manifest['stamps'])}"
              for run, name in zip(runs, names, strict=True) if run.manifest.get("stamps")]
    notes += _differing_settings(sides)
    return notes + [f"{name}: {loss}" for run, name in zip(runs, names, strict=True) for loss in run.losses]


def _names(runs: Sequence[Run]) -> list[str]:
    """Return what a mail may call recordings: their directories' names, where no two are the same."""
    names = [Path(run.recording).name for run in runs]
    return names if len(set(names)) == len({run.recording for run in runs}) else [run.recording for run in runs]


def _differing_work(facts: Sequence[MeasureVerdict]) -> list[str]:
    """Return a sentence where the two kernels were not given the same work."""
    far = [check for check in facts if check.measure.id.startswith("run.") and check.scope == WHOLE
           and check.base is not None and check.patched is not None
           and (check.change is None or abs(check.change) > _SAME_WORK)]
    if not far:
        return []
    words = ", ".join(f"{check.base.mean:,.0f} and {check.patched.mean:,.0f} {check.measure.doc}"
                      for check in far if check.base is not None and check.patched is not None)
    return [f"base and patched did not do the same work ({words}), so counters and shares that depend on how much was "
            "done cannot be compared"]


def _differing_settings(sides: Sequence[Sequence[Run]]) -> list[str]:
    """Return a sentence for each setting that is not the same everywhere."""
    out = []
    settings: dict[str, list[set[str]]] = {}
    for number, side in enumerate(sides):
        for run in side:
            config = run.manifest["config"]
            params = config.get("params")
            values = {"compressor": run.compressor, "chain_size": config.get("chain_size"),
                      "totalram_pages": config.get("totalram_pages"),
                      **(params if isinstance(params, dict) else {})}
            for name, value in values.items():
                settings.setdefault(str(name), [set(), set()])[number].add(str(value))
    for name, (base, patched) in settings.items():
        if base != patched or len(base) > 1:
            out.append(f"{name} differs: {', '.join(sorted(base)) or 'not known'} in base, "
                       f"{', '.join(sorted(patched)) or 'not known'} in patched")
    return out
