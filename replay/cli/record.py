# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay record``: record the running kernel."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from replay.cli.terminal import counting, wrapped
from traces.importers import import_source
from traces.record.command import DESCRIPTION, add_arguments, record
from traces.record.errors import CannotRecord

__all__ = ["add_parser"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("record", help="record what zswap and zsmalloc do on this kernel (root)",
                              usage="zreplay record -o REC [options] [-- COMMAND ...]", description=DESCRIPTION,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--keep-raw", action="store_true",
                        help="keep the raw capture next to the recording, as REC.raw")
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="what to run meanwhile; recording ends with it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record, then make a recording of the capture."""
    try:
        return record(arguments, arguments.command, _import, arguments.keep_raw)
    except CannotRecord as problem:
        print(f"zreplay: {problem}", file=sys.stderr)
        return 2


def _import(capture: Path, output: Path) -> None:
    with counting("importing") as progress:
        summary = import_source(capture, output, progress=progress)
    print(f"{output}: {summary['rows']:,} events, {summary['references']:,} pages handed to the compressor "
          f"({summary['pages']:,} distinct)")
    for note in summary["notes"]:
        print(*wrapped(f"  note: {note}", 1 << 20), sep="\n")
