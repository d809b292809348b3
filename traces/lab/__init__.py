# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual test box: a distribution's kernel, or a developer's own, booted in QEMU and recorded."""
