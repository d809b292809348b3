# SPDX-License-Identifier: GPL-2.0-or-later
"""Measurements for ``zreplay dev bench``: data of any size, and what it costs to import and replay it."""
