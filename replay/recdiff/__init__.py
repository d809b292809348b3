# SPDX-License-Identifier: GPL-2.0-or-later
"""Two recordings of one run, compared task by task."""
