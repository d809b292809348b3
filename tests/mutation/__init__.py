# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutation of the model: do the checks notice a kernel that does one thing differently?

A check is only worth what it can catch.  Each mutant is the model with one small change; every shipped recording is
replayed against it.  Recorded kernel and mutated model differ in exactly that change, so a replay shows as much as if
the mutant had been the kernel and the unchanged model the reference.

:mod:`tests.mutation.mutator` makes mutants, :mod:`tests.mutation.hook` loads one in place of the model's own module,
:mod:`tests.mutation.trial` replays samples against it in a process of its own, :mod:`tests.mutation.report` writes
what came of it; ``python -m tests.mutation`` (or ``make mutation``) does all of it.
"""
