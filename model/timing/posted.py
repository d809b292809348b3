# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured and posted: usemem with 30 processes, without and with each revision of the series.

Facts and figures only, each with the message it was posted in.  Sequential and batched columns belong together only
within one posting: the kernels they are based on differ, and so do their baselines.

The benchmark is ``usemem --init-time -w -O -b 1 -s 10 -n 30 10g`` (vm-scalability): 30 processes, process i bound to
CPU i, each writes 10 GiB once, sleeps for 10 s, then frees its memory; in a cgroup whose limit is 150 GB.  usemem's
throughput is taken over the writing alone, and the total is the sum over processes; elapsed and system time are of the
whole run, sleep and freeing included.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["METRICS", "ROWS", "UNMODELLED", "Figures", "PostedRow", "row"]

#: Rows of a posted table, with their units.
METRICS = {"total throughput": "KB/s", "average throughput": "KB/s", "elapsed time": "s", "sys time": "s"}

#: Rows of v8's tables that count and do not time; the other tables have none.
UNMODELLED = (
    "memcg_high", "memcg_swap_fail", "zswpout", "zswpin", "pswpout", "pswpin", "thp_swpout", "thp_swpout_fallback",
    "64kB_swpout_fallback", "pgmajfault", "anon_fault_alloc_64kB", "anon_fault_alloc_2048kB", "ZSWPOUT-64kB",
    "ZSWPOUT-2048kB", "SWPOUT-64kB", "SWPOUT-2048kB",
)


@dataclass(frozen=True)
class Figures:
    """A column of a table.

    :param total: throughput of all processes, KB/s (units of 1024 bytes, as usemem has them)
    :param average: the same of one process, on average
    :param elapsed: of the whole run, s
    :param sys: system time of all processes, s
    :param zswpout: pages stored; None where it was not posted
    :param zswpin: pages loaded; None where it was not posted
    """

    total: float
    average: float
    elapsed: float
    sys: float
    zswpout: int | None = None
    zswpin: int | None = None

    def of(self, metric: str) -> float:
        """Return the figure of a row of the table, by its name in :data:`METRICS`.

        :raises KeyError: if there is no such row
        """
        return {"total throughput": self.total, "average throughput": self.average, "elapsed time": self.elapsed,
                "sys time": self.sys}[metric]


@dataclass(frozen=True)
class PostedRow:
    """A posted comparison.

    :param name: how it is named here: series, folio size, compressor
    :param source: message id of the posting
    :param folio_pages: pages of a folio
    :param baseline: without the series
    :param patched: with it
    """

    series: str
    folio: str
    compressor: str
    source: str
    baseline: Figures
    patched: Figures
    run: str = ""

    @property
    def name(self) -> str:
        """Series, folio size and compressor, and which run where there are several."""
        return " ".join(part for part in (self.series, self.folio, self.compressor, self.run) if part)

    @property
    def folio_pages(self) -> int:
        """Pages of a folio."""
        return {"64K": 16, "PMD": 512}[self.folio]


# [PATCH v8 00/14] zswap IAA compress batching
_V8 = "20250303084724.6490-1-kanchana.p.sridhar@intel.com"
# [PATCH v12 23/23] mm: zswap: Batched zswap_compress() with compress batching of large folios.
_V12 = "20250926033502.7486-24-kanchana.p.sridhar@intel.com"
# [PATCH v14 26/26] mm: zswap: Batched zswap_compress() for compress batching of large folios.
_V14 = "20260125033537.334628-27-kanchana.p.sridhar@intel.com"

_V8_ZSTD_64K = Figures(6920374, 230679, 94.62, 2387.50, 48917234, 426)

#: Every usemem table of v8, v12 and v14.  v8's "2M" folios are PMD folios.
ROWS = (
    PostedRow("v8", "64K", "deflate-iaa", _V8, Figures(6025001, 200833, 100.25, 2414.12, 58338296, 65),
              Figures(10220686, 340689, 68.48, 1630.42, 64507786, 69)),
    PostedRow("v8", "PMD", "deflate-iaa", _V8, Figures(6374303, 212476, 87.04, 2012.30, 59471372, 10),
              Figures(10720261, 357342, 65.80, 1522.93, 64509017, 441)),
    PostedRow("v8", "64K", "zstd", _V8, _V8_ZSTD_64K, Figures(6935013, 231167, 88.77, 2213.12, 48897180, 422), "run 1"),
    PostedRow("v8", "64K", "zstd", _V8, _V8_ZSTD_64K, Figures(6924096, 230803, 89.79, 2250.91, 48928700, 430), "run 2"),
    PostedRow("v8", "PMD", "zstd", _V8, Figures(7655965, 255198, 86.52, 2030.63, 48091648, 0),
              Figures(7685827, 256194, 81.10, 1886.54, 48054576, 398)),
    PostedRow("v14", "64K", "deflate-iaa", _V14, Figures(6226967, 207565, 99.19, 2356.19),
              Figures(10551714, 351723, 67.45, 1580.47)),
    PostedRow("v14", "PMD", "deflate-iaa", _V14, Figures(6347201, 211573, 88.14, 2025.53),
              Figures(11315500, 377183, 63.37, 1455.23)),
    PostedRow("v14", "64K", "zstd", _V14, Figures(6032326, 201077, 97.52, 2415.40),
              Figures(6047448, 201581, 95.33, 2328.38)),
    PostedRow("v14", "PMD", "zstd", _V14, Figures(6570404, 219013, 89.17, 2126.69),
              Figures(6623962, 220798, 88.25, 2043.08)),
    PostedRow("v12", "64K", "deflate-iaa", _V12, Figures(7191949, 239731, 93.21, 2190.52),
              Figures(10702115, 356737, 69.98, 1651.51)),
    PostedRow("v12", "PMD", "deflate-iaa", _V12, Figures(7237676, 241255, 82.26, 1901.90),
              Figures(11228928, 374297, 69.30, 1634.78)),
    PostedRow("v12", "64K", "zstd", _V12, Figures(6258312, 208610, 100.01, 2505.14),
              Figures(6269511, 208983, 100.50, 2490.00)),
    PostedRow("v12", "PMD", "zstd", _V12, Figures(6796376, 226545, 94.07, 2261.67),
              Figures(6865781, 228859, 88.80, 2082.91)),
)


def row(name: str) -> PostedRow:
    """Return a row by its name.

    :raises KeyError: if there is none
    """
    return {entry.name: entry for entry in ROWS}[name]
