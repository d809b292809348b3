# SPDX-License-Identifier: GPL-2.0-or-later
"""Times of base and patched side by side, as :mod:`replay.regress` measured and judged them."""

from __future__ import annotations

from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from replay.regress.catalogue import Kind
from replay.regress.compare import MeasureVerdict
from replay.regress.statistics import KernelRuns
from replay.report.distributions import duration
from replay.report.drawing import Drawing, ink, label, tidy
from replay.report.reportdata import Material, MissingPicture, Picture
from traces.times import no_seconds

__all__ = ["latency", "times"]

_NAMED: Final = ("latency", "Latency of base and patched, with spread")
_QUANTILES: Final = ("median", "p90", "p99")


def times(material: Material) -> list[MeasureVerdict]:
    """Return the checks of times that both sides have a value of."""
    found = material.regression.checks if material.regression is not None else []
    return [check for check in found if check.measure.kind is Kind.TIME and check.base is not None
            and check.patched is not None]


def latency(material: Material) -> Picture | MissingPicture:
    """Return the times of both sides' functions."""
    result = material.regression
    if result is None:
        return MissingPicture(*_NAMED, "times are shown side by side when two or more recordings are given")
    checks = times(material)
    if not checks:
        bare = next((run for run in result.runs if run.manifest.get("stamps")), None)
        why = f", as {bare.recording} has no times: {no_seconds(bare.manifest['stamps'])}" if bare is not None else ""
        return MissingPicture(*_NAMED, f"no function was timed on both sides{why}")
    functions = list(dict.fromkeys(_function(check) for check in checks))
    runs = (f"{len(result.base)} run{'s' * (len(result.base) > 1)} of the base, {len(result.patched)} of the patched "
            "kernel")
    verdicts = ", ".join(f"{sum(check.verdict == verdict for check in checks)} {verdict}"
                         for verdict in dict.fromkeys(check.verdict for check in checks))
    reasons = "; ".join(dict.fromkeys(check.reason for check in checks if check.reason))
    caption = (f"Times from entry to return, the recorder's own work included: {runs}. Medians: "
               + "; ".join(f"{check.measure.doc.removesuffix(', median')} {_side(check.base)} against "
                           f"{_side(check.patched)}" for check in checks if check.id.endswith(".median"))
               + f". Verdicts: {verdicts}{f' ({reasons})' if reasons else ''}. Small marks are single runs, large ones "
               "their mean, bars one standard deviation to either side.")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(_QUANTILES), sharey=True)
        by_name = {(_function(check), check.id.rpartition(".")[2]): check for check in checks}
        for axes, quantile in zip(panels, _QUANTILES, strict=True):
            tidy(axes, f"{quantile}, \u00b5s", "", lines="both")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            for row, function in enumerate(functions):
                check = by_name.get((function, quantile))
                if check is not None:
                    for side, up, marker, colour, name in ((check.base, -0.18, "o", "recorded", "base"),
                                                           (check.patched, 0.18, "s", "predicted", "patched")):
                        assert side is not None
                        axes.plot([value / 1e3 for value in side.values], [row + up] * side.runs, linestyle="none",
                                  marker=marker, markersize=4, markerfacecolor="none", color=ink(colour))
                        # A logarithmic axis has no place for what a large spread takes below zero.
                        below = min(side.deviation, side.mean * 0.95)
                        axes.errorbar([side.mean / 1e3], [row + up], xerr=[[below / 1e3], [side.deviation / 1e3]],
                                      marker=marker, markersize=7, capsize=3, color=ink(colour), linestyle="none",
                                      label=name if not row else None)
            axes.set_yticks(range(len(functions)), [label(name) for name in functions], fontsize=9)
            axes.set_ylim(len(functions) - 0.5, -0.5)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=2, fontsize=9)

    rows = [[check.measure.doc, _side(check.base), _spread(check.base), _side(check.patched), _spread(check.patched),
             "-" if check.change is None else f"{check.change:+.1%}", check.verdict] for check in checks]
    return Picture(*_NAMED, caption, Drawing(draw, 1.3 + 0.5 * len(functions)),
                   ("time", "base", "spread", "patched", "spread", "change", "verdict"), rows)


def _function(check: MeasureVerdict) -> str:
    return check.measure.doc.rpartition(",")[0]


def _side(side: KernelRuns | None) -> str:
    return "-" if side is None else duration(side.mean)


def _spread(side: KernelRuns | None) -> str:
    return "one run" if side is None or side.spread is None else f"{side.spread:.1%}"
