# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay dev``: what developers of zreplay measure and try; nobody needs it to check a kernel."""

from __future__ import annotations

import argparse
from typing import Any, Final

from replay.cli import bench, compare, labfuzz, labmeasure

__all__ = ["add_parser"]

_EPILOG: Final = """examples:
  zreplay dev bench --json bench.json
  zreplay dev compare tracefs.zr bcc.zr
  zreplay dev shrink fuzz/unrepeated-001/sequence.json --kernel 7.3 -o smaller/
  zreplay dev overhead --kernel 7.2 --repeat 5
"""
#: Parts, in the order listed, and what adds each.
_PARTS: Final = {"bench": bench.add_bench, "compare": compare.add_compare, "shrink": labfuzz.add_shrink,
                 "overhead": labmeasure.add_overhead, "kills": labmeasure.add_kills,
                 "backends": labmeasure.add_backends}


def add_parser(verbs: Any) -> None:
    """Add the verb with its parts."""
    parser = verbs.add_parser(
        "dev", help="measure and test zreplay itself: " + ", ".join(_PARTS), epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure and test zreplay itself: its speed, its recorder, the sequences that 'zreplay lab fuzz' "
                    "found. Checking a kernel needs none of it.")
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for add in _PARTS.values():
        add(parts)
