# SPDX-License-Identifier: GPL-2.0-or-later
"""One line of what is measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BenchRow"]


@dataclass(frozen=True)
class BenchRow:
    """One line of the table: ``value`` with its ``unit`` (median of the runs), and the ``target`` it has."""

    what: str
    value: float
    unit: str
    target: str
    spread: str = ""
    note: str = ""

    @classmethod
    def of(cls, what: str, values: Sequence[float], per: float, unit: str, target: str, note: str = "") -> BenchRow:
        """Return the median of measured values, divided by ``per``, with their spread."""
        low, high = min(values) / per, max(values) / per
        return cls(what, statistics.median(values) / per, unit, target, f"{low:.3g} to {high:.3g} of {len(values)}",
                   note)
