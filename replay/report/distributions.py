# SPDX-License-Identifier: GPL-2.0-or-later
"""What is counted over a whole recording: compressed sizes, pages of a compress call, ages at writeback."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from replay.report.drawing import Drawing, ink, tidy
from replay.report.recordingdata import Ages
from replay.report.reportdata import Material, MissingPicture, Picture
from traces.events import PAGE_SIZE
from traces.times import no_seconds

__all__ = ["ages", "batches", "duration", "sizes"]

_BIN: Final = 128
_BINS: Final = 24
_SIZES: Final = ("compressed-sizes", "Compressed sizes")
_BATCHES: Final = ("batch-sizes", "Pages per compress call")
_AGES: Final = ("writeback-age", "LRU age at writeback")


def duration(ns: float) -> str:
    """Return a time for people, with three digits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("\u00b5s", 1e3)):
        if abs(ns) >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def sizes(material: Material) -> Picture | MissingPicture:
    """Return the histogram of the sizes asked of zs_malloc()."""
    recorded = material.recorded
    if recorded is None:
        return MissingPicture(*_SIZES, material.absent)
    counts = recorded.sizes
    total = int(counts.sum())
    if not total:
        why = "nothing was allocated from zsmalloc" if not recorded.larger else "all sizes asked of it exceed a page"
        return MissingPicture(*_SIZES, why if _probed(material, "zs_malloc") else "zs_malloc() was not probed")
    whole, below = int(counts[PAGE_SIZE]), counts[:PAGE_SIZE]
    # Bins hold 1 to 128 bytes, 129 to 256, ...; a whole page stands apart, as nothing was gained by compressing it.
    edges = np.arange(1, PAGE_SIZE, _BIN)
    bins = [int(below[start:start + _BIN].sum()) for start in edges]
    found = np.flatnonzero(counts)
    mean = float((np.arange(len(counts)) * counts).sum() / total)
    median = int(np.searchsorted(np.cumsum(counts), (total + 1) // 2))
    check = next((each for each in material.result.checks if each.id == "store.length"), None)
    if check is None or not check.compared:
        judged = f" Check store.length compared none{f' ({check.reason})' if check and check.reason else ''}."
    else:
        judged = f" Compared by check store.length: {check.compared:,}, different: {check.different:,}."
    caption = (f"{total:,} sizes were asked of zs_malloc(): from {int(found[0]):,} to {int(found[-1]):,} bytes, "
               f"{mean:,.1f} on average, median {median:,}. Exactly {PAGE_SIZE:,} bytes, a whole page: {whole:,}."
               f"{f' Larger ones are left out: {recorded.larger:,}.' if recorded.larger else ''}{judged}")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        tidy(axes, "bytes asked of zs_malloc()", "allocations")
        axes.bar(edges - 1, bins, width=_BIN, align="edge", color=ink("recorded"), edgecolor=ink("ground"))
        if whole:
            axes.bar([PAGE_SIZE], [whole], width=_BIN, align="edge", color=ink("third"), edgecolor=ink("ground"),
                     hatch="////", label=f"exactly {PAGE_SIZE:,}")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=9)
        axes.set_xlim(0, PAGE_SIZE + _BIN)
        axes.set_xticks(range(0, PAGE_SIZE + 1, 512))

    rows = [[f"{start:,} to {min(start + _BIN, PAGE_SIZE) - 1:,}", f"{count:,}"]
            for start, count in zip(edges.tolist(), bins, strict=True) if count]
    rows += [[f"{PAGE_SIZE:,}", f"{whole:,}"]] if whole else []
    return Picture(*_SIZES, caption, Drawing(draw, 2.8), ("bytes", "allocations"), rows)


def batches(material: Material) -> Picture | MissingPicture:
    """Return how many pages compress calls were given."""
    recorded = material.recorded
    if recorded is None:
        return MissingPicture(*_BATCHES, material.absent)
    if not recorded.batches:
        why = "there is no compress call in it"
        return MissingPicture(*_BATCHES, why if _probed(material, "crypto_acomp_compress") else
                              "crypto_acomp_compress() was not probed")
    counts = dict(sorted(recorded.batches.items()))
    calls, pages = sum(counts.values()), sum(many * count for many, count in counts.items())
    caption = (f"{calls:,} calls of crypto_acomp_compress() were given {pages:,} pages: "
               + ", ".join(f"{count:,} of {many} page{'s' * (many > 1)}" for many, count in counts.items()) + ".")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        tidy(axes, "calls", "", lines="x")
        at = range(len(counts))
        bars = axes.barh(at, list(counts.values()), height=0.6, color=ink("recorded"))
        axes.bar_label(bars, [f"{count:,}" for count in counts.values()], padding=4, fontsize=9)
        axes.set_yticks(at, [f"{many} page{'s' * (many > 1)} a call" for many in counts])
        axes.set_ylim(len(counts) - 0.4, -0.6)
        axes.margins(x=0.12)

    return Picture(*_BATCHES, caption, Drawing(draw, 0.9 + 0.32 * len(counts)), ("pages of a call", "calls"),
                   [[f"{many:,}", f"{count:,}"] for many, count in counts.items()])


def ages(material: Material) -> Picture | MissingPicture:
    """Return how long entries had been on the LRU when they were written back."""
    if material.recorded is None:
        return MissingPicture(*_AGES, material.absent)
    found = material.recorded.ages
    if not found.ns:
        return MissingPicture(*_AGES, _no_ages(material, found))
    if material.recorded.stamps:
        return MissingPicture(*_AGES, no_seconds(material.recorded.stamps))
    ns = np.array(found.ns, np.float64)
    low, high = max(float(ns.min()), 1.0), max(float(ns.max()), 1.0)
    edges = np.geomspace(low, high * 1.000001, _BINS + 1) if high > low else np.array([low * 0.9, low * 1.1])
    counts, _ = np.histogram(np.maximum(ns, 1.0), edges)
    median = float(np.median(ns))
    caption = (f"Entries that were written back and were listed while it was recorded: {len(ns):,}, after "
               f"{duration(low)} to {duration(high)}, median {duration(median)}. The LRU's walks looked at "
               f"{found.walked:,} entries and gave {found.rotated:,} a second chance"
               + (f"; {found.unknown:,} more that were written back had been listed before the recording began"
                  if found.unknown else "") + ".")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        tidy(axes, "age at writeback: seconds since list_lru_add()", "entries")
        axes.bar(edges[:-1] / 1e9, counts, width=np.diff(edges) / 1e9, align="edge", color=ink("recorded"),
                 edgecolor=ink("ground"))
        axes.axvline(median / 1e9, color=ink("predicted"), linestyle=(0, (4, 2)), label=f"median {duration(median)}")
        if high > low * 3:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=9)
        axes.margins(y=0.15)

    rows = [[f"{duration(start)} to {duration(stop)}", f"{int(count):,}"]
            for start, stop, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True) if count]
    return Picture(*_AGES, caption, Drawing(draw, 2.6), ("age", "entries"), rows)


def _no_ages(material: Material, found: Ages) -> str:
    if found.unknown:
        return (f"all {found.unknown:,} entries that were written back had been listed before the recording began, so "
                "their age is not known")
    if not _probed(material, "shrink_memcg_cb_ret"):
        return "the LRU walk's callback, shrink_memcg_cb(), was not probed"
    return f"none of the {found.walked:,} entries that LRU walks looked at was written back" if found.walked \
        else "there is no writeback in it"


def _probed(material: Material, event: str) -> bool:
    probes: dict[str, Any] = material.recording.manifest["probes"] if material.recording is not None else {}
    return event in probes
