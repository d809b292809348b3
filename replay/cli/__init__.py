# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``zreplay`` command: one module per verb, all of which :mod:`replay.cli.main` puts together."""

import sys

try:
    from replay.cli.main import main
except KeyboardInterrupt:
    # From the first import on.
    sys.stderr.write("zreplay: interrupted; nothing was begun.\n")
    raise SystemExit(130) from None

__all__ = ["main"]
