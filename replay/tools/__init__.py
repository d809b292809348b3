# SPDX-License-Identifier: GPL-2.0-or-later
"""Tools on recordings and boxes: cut, scrub, synthesize, coverage, doctor, vmcore."""
