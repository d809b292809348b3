# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests behind a verdict: Welch's t-test for a difference, two one-sided ones for sameness, Holm for many.

Not finding a difference does not prove that none exists: with three noisy runs hardly anything is ever found.  So
"same" has a test of its own: the change, with its uncertainty, must lie inside a margin (Schuirmann's two one-sided
tests, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["LEAST_RUNS", "KernelRuns", "Tested", "holm", "test"]

#: Runs that each side needs for a test: from two no spread can be estimated worth the name.
LEAST_RUNS: Final = 3


@dataclass(frozen=True)
class KernelRuns:
    """The runs of one kernel: one value each."""

    values: tuple[float, ...]

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Their mean; exact where all are equal."""
        return self.values[0] if self.steady else statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Their standard deviation (of a sample); 0 for a single run."""
        return 0.0 if self.steady else statistics.stdev(self.values)

    @property
    def steady(self) -> bool:
        """True when every run has the same value."""
        return len(set(self.values)) == 1

    @property
    def spread(self) -> float | None:
        """Run-to-run spread: the deviation as a share of the mean; None for one run or a mean of 0."""
        return self.deviation / abs(self.mean) if self.runs > 1 and self.mean else None


@dataclass(frozen=True)
class Tested:
    """``p_different``: how likely means so far apart are where the kernels are alike (Welch's t-test, two-sided);
    ``p_same``: how likely means so near each other are where the kernels differ by more than the margin, None where
    the base's mean is 0 and has no margin; ``freedom``: degrees of freedom (Welch and Satterthwaite)."""

    p_different: float
    p_same: float | None
    freedom: float


def test(base: KernelRuns, patched: KernelRuns, margin: float) -> Tested | None:
    """Test two sides; None where no test is possible: fewer runs than :data:`LEAST_RUNS`, or no spread at all.

    :param margin: the change that does not count, as a share of the base's mean
    """
    if min(base.runs, patched.runs) < LEAST_RUNS or (base.steady and patched.steady):
        return None
    # Loading it takes longer than most commands run.
    from scipy import stats

    errors = [side.deviation ** 2 / side.runs for side in (base, patched)]
    error = math.sqrt(sum(errors))
    if not error or not math.isfinite(error):
        return None
    shares = [part / sum(errors) for part in errors]
    freedom = 1 / sum(share ** 2 / (side.runs - 1) for share, side in zip(shares, (base, patched), strict=True))
    welch = stats.ttest_ind_from_stats(patched.mean, patched.deviation, patched.runs, base.mean, base.deviation,
                                       base.runs, equal_var=False)
    room = margin * abs(base.mean)
    change = patched.mean - base.mean
    p_same = float(stats.t.sf((room - abs(change)) / error, freedom)) if room else None
    return Tested(float(welch.pvalue), p_same, freedom)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for how many there are (Holm, Scandinavian Journal of Statistics 6, 1979).

    None stands for no test and stays.  Rejecting those below a level keeps the chance of any wrong rejection below it.
    """
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    out: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, place) in enumerate(order):
        highest = max(highest, min(1.0, value * (len(order) - rank)))
        out[place] = highest
    return out
