# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings for programs that do not know this format: one module per foreign format, and a check of exports."""
