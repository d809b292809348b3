# SPDX-License-Identifier: GPL-2.0-or-later
"""The pool over time: pages recorded and predicted, and below them, on the same axis, where events were lost."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from replay.report.drawing import Drawing, ink, label, tidy
from replay.report.recordingdata import Reading, Recorded
from replay.report.reportdata import Material, MissingPicture, Picture
from replay.verdict.losses import Loss
from traces.times import no_seconds

__all__ = ["losses", "pool"]

_NAMED: Final = ("pool-pages", "Pages of the pool over time, recorded and predicted")
#: More marks than this would be a band.
_MARKS: Final = 240
_LABELS: Final = 9
_STYLES: Final = {"zs_get_total_pages": ("o", "recorded"), "zswap_total_pages": ("^", "third")}


def pool(material: Material) -> Picture | MissingPicture:
    """Return the picture of the pool's pages."""
    recorded = material.recorded
    if recorded is None:
        return MissingPicture(*_NAMED, material.absent)
    known = [each for each in recorded.snapshots if each.pages is not None]
    if not recorded.readings and not known and material.course is None:
        return MissingPicture(*_NAMED, "no total of the pool was read while it was recorded")
    if recorded.stamps:
        return MissingPicture(*_NAMED, no_seconds(recorded.stamps))
    if recorded.last_ts <= recorded.first_ts:
        return MissingPicture(*_NAMED, "all events are of one instant")
    height = 3.4 + (0.9 if recorded.losses else 0)
    rows: list[list[str]] = []
    for name, reading in recorded.readings.items():
        rows.append([f"recorded, {name}()", f"{len(reading.ts):,}", *_ends(reading.pages)])
    if known:
        rows.append(["recorded, snapshots", f"{len(known):,}", *_ends(np.array([each.pages for each in known]))])
    if material.course is not None:
        rows.append([f"predicted, {material.result.revision}", f"{len(material.course.pages) - 1:,}",
                     *_ends(material.course.pages)])
    return Picture(*_NAMED, _caption(material, recorded, len(known)), Drawing(_Drawer(material).draw, height),
                   ("pages of the pool", "values", "least", "most", "last"), rows)


def _ends(pages: np.ndarray) -> list[str]:
    return [f"{int(value):,}" for value in (pages.min(), pages.max(), pages[-1])]


def _caption(material: Material, recorded: Recorded, snapshots: int) -> str:
    course, result = material.course, material.result
    parts = []
    if recorded.readings:
        parts.append("Read by the kernel: " + ", ".join(
            f"{len(reading.ts):,} times {name}(), from {int(reading.pages.min()):,} to {int(reading.pages.max()):,} "
            f"pages" for name, reading in recorded.readings.items()))
    if snapshots:
        parts.append(f"{snapshots:,} snapshots hold pool_total_size")
    if course is not None:
        until = f", up to event {course.end:,}, as {course.ended}" if course.ended else ""
        parts.append(f"The line is what {result.revision} predicts: at most {int(course.pages.max()):,} pages, "
                     f"{int(course.pages[-1]):,} at its end{until}")
    elif material.uncharted:
        parts.append(f"There is no predicted line: {material.uncharted}")
    check = next((each for each in result.checks if each.id == "zsmalloc.pages"), None)
    if check is not None:
        parts.append(f"Compared by check zsmalloc.pages: {check.compared:,}, different: {check.different:,}")
    if recorded.pools > 1:
        parts.append(f"{recorded.pools} pools were in use: zs_get_total_pages() reports one at a time, the line "
                     "adds up all")
    thinned = [name for name, reading in recorded.readings.items() if len(reading.ts) > _MARKS]
    if thinned:
        parts.append(f"Of {' and '.join(f'{name}()' for name in thinned)} one reading in each {_MARKS}th of the time "
                     "is drawn, and the least and the most")
    parts.append(f"{'Below, losses' if recorded.losses else 'Losses'}: {losses(recorded)}")
    return ". ".join(parts) + "."


def losses(recorded: Recorded) -> str:
    """Return where events were lost, in words."""
    if not recorded.losses:
        return "no event is known to be lost"
    shown = "; ".join(loss.text for loss in recorded.losses[:6])
    more = len(recorded.losses) - 6
    return f"{shown}{f'; and {more:,} losses more' if more > 0 else ''}"


class _Drawer:
    """Draws the pool's pages, and the losses below them."""

    def __init__(self, material: Material) -> None:
        assert material.recorded is not None
        self.material, self.recorded = material, material.recorded

    def draw(self, figure: Figure) -> None:
        """Draw."""
        if self.recorded.losses:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
            self._losses(lower)
            tidy(upper, "", "pages")
        else:
            upper = figure.subplots()
            tidy(upper, "seconds since the first event", "pages")
        self._pages(upper)
        self._markers(upper)
        upper.set_xlim(0, self.recorded.span)
        upper.set_ylim(0, max(upper.get_ylim()[1], 1.0))
        upper.yaxis.set_major_locator(MaxNLocator(integer=True))
        upper.legend(loc="upper left", bbox_to_anchor=(0, -0.02 if self.recorded.losses else -0.16), ncols=5,
                     fontsize=8, columnspacing=1.2, handletextpad=0.5)

    def _pages(self, axes: Axes) -> None:
        seconds, course = self.recorded.seconds, self.material.course
        if course is not None:
            axes.step(seconds(course.ts), course.pages, where="post", color=ink("predicted"), label="predicted")
            if course.ended:
                axes.axvline(float(seconds(course.ts[-1])), color=ink("fail"), linestyle=(0, (4, 2)),
                             label="prediction ends")
        known = [(seconds(each.ts), each.pages) for each in self.recorded.snapshots if each.pages is not None]
        if known:
            axes.plot([at for at, _ in known], [pages for _, pages in known], linestyle="none", marker="D",
                      markersize=9, markerfacecolor="none", color=ink("ink"), clip_on=False, label="snapshots")
        for name, reading in self.recorded.readings.items():
            marker, colour = _STYLES[name]
            chosen = _thin(reading)
            axes.plot(seconds(reading.ts[chosen]), reading.pages[chosen], linestyle="none", marker=marker, markersize=4,
                      markerfacecolor="none", markeredgewidth=0.8, color=ink(colour), clip_on=False,
                      label=f"{name}()")

    def _markers(self, axes: Axes) -> None:
        """Name stretches of the run by the markers' texts, as many as there is room for."""
        top: Any = axes.secondary_xaxis("top")
        ticks: list[tuple[float, str]] = []
        for ts, text in self.recorded.markers:
            at = float(self.recorded.seconds(ts))
            if not ticks or at - ticks[-1][0] >= self.recorded.span / _LABELS:
                ticks.append((at, label(text)))
        top.set_xticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=8, rotation=14, ha="left",
                       rotation_mode="anchor")
        top.spines["top"].set_visible(False)
        top.tick_params(length=4, color=ink("quiet"))

    def _losses(self, axes: Axes) -> None:
        """Draw losses in two rows: those whose time is known, those that may be anywhere."""
        lanes: dict[str, list[Loss]] = {"time known": [], "time unknown": []}
        for loss in self.recorded.losses:
            anywhere = loss.start <= self.recorded.first_ts and loss.stop >= self.recorded.last_ts
            lanes["time unknown" if anywhere else "time known"].append(loss)
        shown = {name: members for name, members in lanes.items() if members}
        for number, members in enumerate(shown.values()):
            spans = []
            for loss in members:
                start = max(0.0, float(self.recorded.seconds(max(loss.start, self.recorded.first_ts))))
                stop = float(self.recorded.seconds(min(loss.stop, self.recorded.last_ts)))
                spans.append((start, max(stop - start, self.recorded.span / 400)))
            axes.broken_barh(spans, (number + 0.1, 0.8), facecolor=ink("undecided"), edgecolor=ink("undecided"),
                             hatch="////")
        axes.set_yticks([number + 0.5 for number in range(len(shown))], [f"lost, {name}" for name in shown], fontsize=8)
        axes.set_ylim(len(shown), 0)
        axes.set_xlabel("seconds since the first event")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)


def _thin(reading: Reading) -> np.ndarray:
    """Return the rows of a reading that are drawn."""
    count = len(reading.ts)
    if count <= _MARKS:
        return np.arange(count)
    edges = np.linspace(reading.ts[0], reading.ts[-1], _MARKS)
    _, first = np.unique(np.searchsorted(edges, reading.ts), return_index=True)
    return np.unique(np.concatenate([first, [int(reading.pages.argmin()), int(reading.pages.argmax())]]))
