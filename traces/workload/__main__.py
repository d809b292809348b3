# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 traces/workload``: the workload from a checkout, without anything installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    sys.exit(importlib.import_module("traces.workload.command").main())
