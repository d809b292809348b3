# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay's result as one HTML page that a person can read: verdict, checks, the first divergence, pictures.

Shows what :mod:`replay.verdict.run`, :mod:`replay.revdiff.lockstep` and :mod:`replay.regress` found; judges nothing
itself.  Drawing takes a second to load: import :mod:`replay.report.reportdata` and what stands on it only where a
report is made.
"""
