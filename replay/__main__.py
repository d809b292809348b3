# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m replay``: the command, where no script of it is in the path."""

import sys

from replay.cli import main

if __name__ == "__main__":
    sys.exit(main())
