# SPDX-License-Identifier: GPL-2.0-or-later
"""Argument parsing and the way out: exit statuses, one-sentence errors, no tracebacks for bad input."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from replay.cli import (
    bench,
    compare,
    cut,
    import_,
    info,
    lab,
    labfuzz,
    record,
    regress,
    replay_,
    report,
    revisions,
    scrub,
    show,
    vmcore,
    whatif,
    workload,
)
from traces.errors import BadInput

__all__ = ["main"]

_EPILOG = """exit status: 0 PASS, 1 FAIL, 2 wrong use or unreadable input, 3 UNDECIDED, 4 SKIP, 5 the test box died

examples:
  zreplay lab run --kernel 7.2 -o run.zr record a workload on a kernel in QEMU
  zreplay import captures/ -o run.zr     make a recording of a raw capture
  zreplay replay run.zr                  does this kernel do what its revision says?
  zreplay compare a.zr b.zr              do two recorders of one run tell the same?
  zreplay regress --base old.zr --patched new.zr  is the patched kernel worse?
  zreplay regress run.zr --revision mainline-7.2 --revision v14   where do two revisions part on it?
  zreplay bisect run.zr --series v14     which patch of the series brought it?
  zreplay show run.zr --swp 0x200        everything that happened to a swap slot
"""


def version() -> str:
    """Return the version of the installed distribution."""
    try:
        return importlib.metadata.version("zreplay")
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled checkout"


def parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    top = argparse.ArgumentParser(
        prog="zreplay", epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Replay recorded zswap and zsmalloc behaviour through a reference model of a kernel revision, "
                    "and check it effect by effect.")
    top.add_argument("--version", action="version", version=f"zreplay {version()}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in (record, workload, lab, import_, info, show, replay_, report, compare, regress, revisions, vmcore,
                   cut, labfuzz, scrub, whatif, bench):
        module.add_parser(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BadInput as problem:
        print(f"zreplay: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has seen enough; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("zreplay: interrupted; nothing half-written was left behind.", file=sys.stderr)
        return 130
    return status
