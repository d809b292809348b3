# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay workload``: makes zswap do chosen things with known pages, on the box it runs on."""

from __future__ import annotations

import argparse
from typing import Any

from traces.workload import command

__all__ = ["add_parser"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "workload", help="make zswap do chosen things with known pages (root, on a test box)",
        description="Make zswap on this box do chosen things with known pages, for a recorder to watch: page-out, "
                    "refault, rewrite, fork, free, limits, compressor switches, compaction.")
    command.add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the scenario."""
    return command.run(arguments)
