# SPDX-License-Identifier: GPL-2.0-or-later
"""Argument parsing and the way out: exit statuses, one-sentence errors, no tracebacks for bad input."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from replay.cli.escaping import escaping
from replay.cli.help import Parser, TopParser, offer, opening
from replay.cli.verbs import VERBS
from replay.cli.versions import ShowVersions
from replay.reference.cachekey import cache_home, remove_old
from traces.compiling import announcing
from traces.errors import BadInput
from traces.leftovers import sweep
from traces.record.exits import WRONG, check_words, leave

__all__ = ["main", "parser"]

_EPILOG = """zreplay VERB --help ends with examples of the verb.
exit status: 0 PASS, 1 FAIL, 2 wrong use or unreadable input, 3 UNDECIDED, 4 SKIP, 5 the test box died,
  70 a fault of zreplay itself (ZREPLAY_TRACEBACK=1 prints its traceback), 130 Ctrl-C, 141 nobody reads the output
"""


def parser(only: str | None = None) -> TopParser:
    """Return the command's argument parser.

    :param only: load this verb alone (none for ""): the others are known by name; by default all are loaded
    """
    top = TopParser(prog="zreplay", epilog=_EPILOG,
                    description="Replay recorded zswap and zsmalloc behaviour through a reference model of a kernel "
                                "revision, and check it effect by effect.")
    top.add_argument("--version", action=ShowVersions, help="show versions of everything that computes")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for name, verb in VERBS.items():
        if only is None or name == only:
            importlib.import_module(f"replay.cli.{verb.module}").add_parser(verbs)
        else:
            verbs.add_parser(name, help=verb.help)
    return top


offer(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; what it prints of files, a terminal can only show."""
    given: list[argparse.Namespace] = []

    def run() -> int:
        words = list(sys.argv[1:] if argv is None else argv)
        if not words:
            # Status 0 would be PASS to a script whose words got lost.
            sys.stderr.write(opening())
            return WRONG
        refused = check_words(words)
        if refused is not None:
            return refused
        given.append(parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words))
        _sweep(given[0])
        status: int = given[0].run(given[0])
        return status

    # Inside, as leaving puts streams of its own in the place of the process's.
    def shown() -> int:
        with escaping(), announcing(_say_compiling):
            return run()

    return leave(shown, (BadInput,), lambda: _kept(given[0]) if given else "nothing was begun", command=argv is None,
                 place=lambda: str(getattr(given[0], "output", None) or "") if given else "")


def _say_compiling() -> None:
    """Say on a terminal why the first run takes so long; elsewhere nobody waits for each line."""
    if sys.stderr.isatty():
        print("zreplay: compiling for this machine, once (about 30 s in all; 'zreplay warmup' does it beforehand) ...",
              file=sys.stderr, flush=True)


def _sweep(arguments: argparse.Namespace) -> None:
    """Remove what killed commands left where this one reads or writes: it may hold pages."""
    options = ("recording", "recordings", "more", "src", "output", "base", "patched", "table", "junit", "figures")
    named = [value for name in options for value in _listed(getattr(arguments, name, None))]
    places = {Path(os.path.dirname(os.path.abspath(name))) for name in named}
    places |= {Path(os.path.abspath(name)) / below for name in named for below in ("", "cache")} | {cache_home()}
    for place in sorted(places):
        for left in sweep(place):
            print(f"zreplay: removed {place / left}, which a command that was killed had left.", file=sys.stderr)
    for old in remove_old(cache_home()):
        print(f"zreplay: removed {cache_home() / old}, which an earlier version kept: it held first bytes of pages.",
              file=sys.stderr)


def _listed(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [os.fspath(item) for item in values if isinstance(item, str | os.PathLike) and "\0" not in os.fspath(item)]


def _kept(arguments: argparse.Namespace) -> str:
    """Say what an interrupted verb has left: a recording is made whole or not at all, a directory of them is not."""
    output = getattr(arguments, "output", None)
    if output is None:
        return "nothing half-written was left behind"
    raw = Path(f"{output}.raw")
    if arguments.verb == "record" and raw.is_dir():
        return f"the capture is kept: make a recording of it with 'zreplay import {raw} -o {output}'"
    # A file of that name may be an older one: what is one file is made whole or not at all, too.
    if os.path.isdir(output):
        return f"what was finished is kept in {output}"
    return "nothing half-written was left behind"
