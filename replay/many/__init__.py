# SPDX-License-Identifier: GPL-2.0-or-later
"""Many recordings, many revisions: every pair is a job, run here, in processes, or on a Dask cluster.

:mod:`~replay.many.jobs` says what a job and its outcome are, :mod:`~replay.many.waiting` which goes next,
:mod:`~replay.many.local` and :mod:`~replay.many.cluster` run them elsewhere, :mod:`~replay.many.tables` sums up.
"""
