# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay scrub``: a recording without anybody's memory in it."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli.terminal import steps, warn
from replay.tools.scrub import scrub
from traces.recording import Recording

__all__ = ["add_parser"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "scrub", help="replace page bytes by synthetic pages of the same lengths",
        description="Write a copy of a recording with synthetic pages that compress to the same lengths and errors "
                    "with the compressors that were recorded: it replays to the same verdict and holds nothing of the "
                    "memory it came from.")
    parser.add_argument("recording", metavar="REC")
    parser.add_argument("-o", "--output", metavar="REC", required=True, help="recording to make; must not exist")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Scrub."""
    with steps() as progress:
        done = scrub(Recording(arguments.recording), arguments.output, progress=progress)
    said = [f"{done.pages:,} pages replaced"] if done.pages or not (done.digests or done.heads) else []
    said += [f"digests of {done.digests:,} pages replaced"] if done.digests else []
    said += ["first bytes of objects left out"] if done.heads else []
    print(f"{arguments.output}: {', '.join(said)}")
    if done.unmatched:
        warn(f"for {done.unmatched:,} pages no synthetic page of the same length was found: their bytes are left out.")
    return 0
