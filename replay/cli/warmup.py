# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay warmup``: compile beforehand what the first run of other verbs would compile."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from replay.cli.labcommon import progress_line
from traces.errors import BadInput
from traces.samples import sample_paths

__all__ = ["add_parser"]

#: The shipped recording that is replayed, as it is small; all are read.
_SAMPLE: Final = "7.2-lz4-edge"


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "warmup", help="compile for this machine beforehand (about 30 s, once)",
        description="Compile what other verbs call: compressors, readers of captures and recordings, the compiled "
                    "engine. Numba keeps the code next to the sources, or in a cache of yours where it may not write "
                    "there; a new version of zreplay or Numba compiles again.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compile, and say how long it took.

    :raises BadInput: where there is no room for the scratch files
    """
    from replay.tools.warmup import warm_up

    began = time.monotonic()
    samples = sorted(sample_paths(), key=lambda path: path.name != _SAMPLE)
    try:
        with tempfile.TemporaryDirectory(prefix="zreplay-") as place, progress_line() as say:
            compiled = warm_up(samples, Path(place), lambda what: say(f"compiling for this machine, once: {what}"))
    except OSError as problem:
        raise BadInput("warmup", "", f"has no room for scratch files ({problem.strerror})",
                       "name a directory in TMPDIR") from None
    print(f"compiled for this machine: {compiled:.1f} s of {time.monotonic() - began:.1f} s" if compiled else
          "nothing to compile: what was compiled before is still there")
    return 0
