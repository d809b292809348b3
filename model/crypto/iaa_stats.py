# SPDX-License-Identifier: GPL-2.0-or-later
"""iaa_crypto's statistics, by the names of debugfs `iaa_crypto/global_stats` and `wq_stats` (iaa_crypto_stats.c).

6.12 counts decompressed bytes of a job that fell back to software after an analytics error too; 7.2 and 7.3
count them for the hardware's successes alone.  `total_sw_comp_calls` came with the software fallback for
compression (Debian's 7.1.13 has that, its 7.0.13 has not).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["GLOBAL_STATS", "IaaStats", "WqStats"]

GLOBAL_STATS: Final = (
    "total_comp_calls",
    "total_decomp_calls",
    "total_sw_comp_calls",
    "total_sw_decomp_calls",
    "total_comp_bytes_out",
    "total_decomp_bytes_in",
    "total_completion_einval_errors",
    "total_completion_timeout_errors",
    "total_completion_comp_buf_overflow_errors",
)


@dataclass
class WqStats:
    """One work queue's counters: calls that were submitted, bytes of those that succeeded."""

    comp_calls: int = 0
    comp_bytes: int = 0  # bytes out
    decomp_calls: int = 0
    decomp_bytes: int = 0  # bytes in

    def add(self, other: WqStats) -> None:
        """Sum up, for a device's line."""
        self.comp_calls += other.comp_calls
        self.comp_bytes += other.comp_bytes
        self.decomp_calls += other.decomp_calls
        self.decomp_bytes += other.decomp_bytes


@dataclass
class IaaStats:
    """Every counter of the driver.  `wqs` is keyed by (device id, wq id)."""

    has_sw_comp: bool = True  # whether this driver shows total_sw_comp_calls
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GLOBAL_STATS, 0))
    wqs: dict[tuple[int, int], WqStats] = field(default_factory=dict)

    def count(self, name: str, by: int = 1) -> None:
        """`update_<name>()`; KeyError for a name that is not in `GLOBAL_STATS`."""
        self.counters[name] += by

    def submitted(self, wq: tuple[int, int], *, comp: bool) -> None:
        """`update_total_comp_calls` and `update_wq_comp_calls`, or decomp: a job went to the device."""
        stats = self.wqs.setdefault(wq, WqStats())
        if comp:
            self.count("total_comp_calls")
            stats.comp_calls += 1
        else:
            self.count("total_decomp_calls")
            stats.decomp_calls += 1

    def succeeded(self, wq: tuple[int, int], size: int, *, comp: bool) -> None:
        """The bytes: what came out of a compression, what went into a decompression."""
        stats = self.wqs.setdefault(wq, WqStats())
        if comp:
            self.count("total_comp_bytes_out", size)
            stats.comp_bytes += size
        else:
            self.count("total_decomp_bytes_in", size)
            stats.decomp_bytes += size

    def global_stats(self) -> dict[str, int]:
        """`global_stats`, name to value, in the file's order."""
        return {name: n for name, n in self.counters.items() if self.has_sw_comp or name != "total_sw_comp_calls"}

    def wq_stats(self) -> dict[int, dict[str, object]]:
        """`wq_stats`: device id to its sums, with its work queues' counters by id under `wqs`."""
        devices: dict[int, dict[str, object]] = {}
        for device in sorted({device for device, _ in self.wqs}):
            total, own = WqStats(), {}
            for (dev, wq), stats in sorted(self.wqs.items()):
                if dev == device:
                    total.add(stats)
                    own[wq] = vars(stats).copy()
            devices[device] = {"n_wqs": len(own), **vars(total), "wqs": own}
        return devices

    def stats_reset(self) -> None:
        """Writing to `stats_reset`: everything is 0, the work queues stay listed."""
        self.counters = dict.fromkeys(GLOBAL_STATS, 0)
        self.wqs = {wq: WqStats() for wq in self.wqs}
