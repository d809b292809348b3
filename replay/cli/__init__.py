# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``zreplay`` command: one module per verb, all of which :mod:`replay.cli.main` puts together."""

from replay.cli.main import main

__all__ = ["main"]
