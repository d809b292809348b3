# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings for programs that know nothing of them: one module per foreign format, and what checks an export."""
