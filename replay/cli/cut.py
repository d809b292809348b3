# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay cut``: a stretch of a recording as a recording of its own."""

from __future__ import annotations

import argparse
from typing import Any

from replay.cli.replay_ import load_revision
from replay.cli.terminal import number, steps
from replay.tools.cut import cut
from traces.recording import Recording

__all__ = ["add_parser"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "cut", help="cut a stretch out of a recording, with the state it needs",
        description="Write events FROM to TO as a recording that replays on its own: the model's state at its "
                    "start goes with it. Both ends move on to where no task is inside an operation.")
    parser.add_argument("recording", metavar="REC")
    parser.add_argument("--from", dest="start", type=number, required=True, metavar="N", help="first event number")
    parser.add_argument("--to", dest="stop", type=number, required=True, metavar="N", help="event to stop before")
    parser.add_argument("-o", "--output", metavar="REC", required=True, help="recording to make; must not exist")
    parser.add_argument("--revision", metavar="R", help="as for replay")
    parser.add_argument("--no-objects", action="store_true", help="leave compressed objects out")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Cut."""
    with steps() as progress:
        done = cut(Recording(arguments.recording), arguments.output, arguments.start, arguments.stop,
                   revision=load_revision(arguments.revision), objects=not arguments.no_objects, progress=progress)
    print(f"{arguments.output}: {done.events:,} events, {done.start} to {done.stop} of {arguments.recording}")
    return 0
