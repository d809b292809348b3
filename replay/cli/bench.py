# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay dev bench``: what importing and replaying cost on this machine."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from replay.cli.terminal import number, table, warn
from traces.errors import BadInput
from traces.samples import sample_paths

__all__ = ["add_bench"]

#: replay.benchmarks.measure.PARTS, without importing all that it measures
_PARTS = ("import", "engines", "growth", "pages", "compressors", "cores", "iaa")


def add_bench(parts: Any) -> None:
    """Add the part of ``zreplay dev``."""
    parser = parts.add_parser("bench", help="measure import and replay on this machine",
                              description="Measure speed and memory on synthetic data and on the shipped samples. "
                                          "Takes some minutes.")
    parser.add_argument("--events", type=_events, default=100_000_000, metavar="N",
                        help="largest synthetic recording: growth is measured on powers of ten from 100,000 events up "
                             "to this, or to 100 million (default)")
    parser.add_argument("--only", action="append", choices=_PARTS, help="only this part; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")
    parser.set_defaults(run=run)


def _events(text: str) -> int:
    if number(text) < 100_000:
        raise argparse.ArgumentTypeError(f"'{text}' is less than 100,000, the fewest that are measured")
    return number(text)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print the table.

    :raises BadInput: before anything is measured, when the file for it cannot be written
    """
    directory = Path(arguments.json or "").absolute().parent
    if arguments.json and not (directory.is_dir() and os.access(directory, os.W_OK)):
        raise BadInput(arguments.json, "", "cannot be written", "name a file in a directory that you may write to")
    from replay.benchmarks.measure import as_json, machine, measure

    samples = [path for path in sample_paths() if _has_pages(path)]
    rows = measure(samples, arguments.events, say=lambda text: warn(f"{text} ..."),
                   only=set(arguments.only) if arguments.only else None)
    box = machine()
    print(f"{box['cpu']}, {box['cpus']} CPUs, Python {box['python']}, {box['system']}")
    print(table([("what", "median", "unit", "target", "spread", "note"),
                 *((r.what, f"{r.value:.3g}", r.unit, r.target, r.spread, r.note) for r in rows)], right=[1]))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(as_json(rows), indent=1) + "\n")
    return 0


def _has_pages(path: Path) -> bool:
    manifest = json.loads((path / "manifest.json").read_text())
    return bool(manifest.get("pages", {}).get("with_bytes"))
