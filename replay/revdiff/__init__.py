# SPDX-License-Identifier: GPL-2.0-or-later
"""Two revisions on one trace: free runs, lockstep, bisection, scenarios, defects."""
