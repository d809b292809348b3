# SPDX-License-Identifier: GPL-2.0-or-later
"""How long it takes: a simulation of zswap stores through IAA, calibrated on one posted table.

:mod:`model.timing.iaa` is the simulation, :mod:`model.timing.posted` what was measured and posted,
:mod:`model.timing.calibrate` the free parameters, :mod:`model.timing.gain` predictions next to posted figures.
No software can know the timing of hardware: all results of this package have the grade ``modelled``.
docs/timing.md says how far to trust them.

>>> from model.timing.iaa import Box, Costs, Load, simulate
>>> costs = Costs(cpu=10_000, compress=2_000, submit=300, poll=100)
>>> simulate(Box(engines=1), costs, Load(processes=1, pages=64)).page_ns
[12400.0]
"""
