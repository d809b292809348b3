# SPDX-License-Identifier: GPL-2.0-or-later
"""What zsmalloc's size classes hold: objects in use, free objects, and what no object fits into."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.figure import Figure

from replay.report.drawing import Drawing, ink, tidy
from replay.report.recordingdata import Snapshot
from replay.report.reportdata import Material, MissingPicture, Picture
from traces.events import PAGE_SIZE

__all__ = ["fragmentation"]

_NAMED: Final = ("fragmentation", "Memory of each size class")
#: ZS_SIZE_CLASS_DELTA with pages of 4 KiB: classes lie at least so far apart, in bytes
_DELTA: Final = 16
#: parts of a class's bytes from the bottom up: column of the numbers, name, colours of the inside and of the outline
_PARTS: Final = ((5, "objects in use", "predicted", "predicted"), (6, "free objects", "ground", "recorded"),
                 (7, "fits no object", "ink", "ink"))

_Classes = dict[int, dict[str, int]]


def fragmentation(material: Material) -> Picture | MissingPicture:
    """Return how much of each class is in use where the pool was largest: as recorded, or else as predicted."""
    if material.recorded is None:
        return MissingPicture(*_NAMED, material.absent)
    chosen = _choose(material)
    if chosen is None:
        why = material.uncharted or "the prediction holds nothing when it ends"
        return MissingPicture(*_NAMED, f"no snapshot holds zsmalloc's size classes (CONFIG_ZSMALLOC_STAT), and {why}")
    classes, where, source = chosen
    geometry = material.course.geometry if material.course is not None else {}
    unknown = sorted(classes.keys() - geometry.keys())
    if unknown:
        return MissingPicture(*_NAMED, f"the size of class {unknown[0]}'s objects is not known: "
                              + (material.uncharted or f"{material.result.revision} has no such class"))
    numbers = []
    for which, held in sorted(classes.items()):
        size = geometry[which][0]
        pages, used, allocated = (held.get(name, 0) for name in ("pages_used", "obj_used", "obj_allocated"))
        if pages:
            in_use, free = used * size, (allocated - used) * size
            numbers.append((which, size, pages, used, allocated, in_use, free, pages * PAGE_SIZE - in_use - free))
    columns = np.array(numbers, np.int64).T
    in_use, free, rest = (int(columns[row].sum()) for row in (5, 6, 7))
    total = in_use + free + rest
    caption = (f"{source} {where}: {len(numbers):,} classes hold {int(columns[2].sum()):,} pages. Of their bytes "
               f"{in_use / total:.1%} are objects in use, {free / total:.1%} free objects, {rest / total:.1%} fit no "
               f"object. Below, the share of each class's bytes that no object uses. {_checked(material)}")

    def draw(figure: Figure) -> None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        tidy(axes, "", "KiB")
        tidy(below, "object size of the class, bytes", "% not in use")
        bottom = np.zeros(len(numbers))
        for row, name, inside, outline in _PARTS:
            axes.bar(columns[1], columns[row] / 1024, width=_DELTA * 0.9, bottom=bottom, color=ink(inside),
                     edgecolor=ink(outline), linewidth=0.7 * (inside != outline),
                     label=f"{name} ({int(columns[row].sum()) / total:.1%})")
            bottom += columns[row] / 1024
        below.bar(columns[1], 100 - 100 * columns[5] / (columns[2] * PAGE_SIZE), width=_DELTA * 0.9,
                  color=ink("recorded"))
        below.set_ylim(0, 100)
        below.set_xlim(0, PAGE_SIZE + 64)
        below.set_xticks(range(0, PAGE_SIZE + 1, 512))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9)

    rows = [[f"{which}", *(f"{value:,}" for value in values)] for which, *values in numbers]
    return Picture(*_NAMED, caption, Drawing(draw, 3.8),
                   ("class", "object size", "pages", "objects in use", "objects", "bytes in use", "bytes free",
                    "bytes that fit no object"), rows)


def _choose(material: Material) -> tuple[_Classes, str, str] | None:
    """Return the classes where the pool is largest, when that is, and whose numbers they are."""
    assert material.recorded is not None

    def pages(classes: _Classes) -> int:
        return sum(held.get("pages_used", 0) for held in classes.values())

    snapshots = material.recorded.snapshots
    largest = max(snapshots, key=lambda each: pages(each.classes), default=None)
    if largest is not None and pages(largest.classes):
        return largest.classes, _moment(largest), "As the kernel counted at"
    if material.course is None:
        return None
    by_number = material.course.classes
    which = max(by_number, key=lambda number: pages(by_number[number]))
    if not pages(by_number[which]):
        return None
    where = _moment(snapshots[which]) if which >= 0 else f"event {material.course.end:,}, where the replay ended"
    return by_number[which], where, f"As {material.result.revision} predicts at"


def _moment(snapshot: Snapshot) -> str:
    return f"snapshot '{snapshot.label}'"


def _checked(material: Material) -> str:
    checks = [each for each in material.result.checks if each.id.startswith("counter.zsmalloc.class") and each.compared]
    if not checks:
        return "No snapshot's size classes were compared with the prediction."
    return (f"The checks counter.zsmalloc.* compared {sum(each.compared for each in checks):,} counts of the kernel "
            f"with the prediction, {sum(each.different for each in checks):,} differ.")
