# SPDX-License-Identifier: GPL-2.0-or-later
"""Is a patched kernel worse than its base?  Recordings of both, measured and compared."""

from replay.regress.compare import MeasureVerdict, Regression, regress
from replay.regress.measures import Run, measure

__all__ = ["MeasureVerdict", "Regression", "Run", "measure", "regress"]
