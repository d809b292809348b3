# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay completion``: a script that completes the command, made by shtab of the same parsers that parse it."""

from __future__ import annotations

import argparse
import os
from typing import Any, Final

from traces.errors import BadInput

__all__ = ["SHELLS", "add_parser", "script"]

SHELLS: Final = ("bash", "zsh", "fish")
#: Words for what is a path; the others are values of the verb's own.
_DIRECTORIES: Final = ("DIR", "PATH")
_FILES: Final = ("REC", "SRC", "FILE", "CORE", "VMLINUX", "SEQUENCE", "SEQUENCE.json", "K")


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "completion", help="a script that completes this command in a shell",
        description="Print a script that completes verbs, options, their values and files in a shell. It is made of "
                    "the command's own parsers: make it again after an update.")
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    print(script(arguments.shell))
    return 0


def script(shell: str) -> str:
    """Return the script for one of :data:`SHELLS`.

    :raises BadInput: when shtab is missing
    """
    try:
        import shtab
    except ImportError:
        raise BadInput("completion", "", "the package shtab is missing",
                       "install it: python -m pip install 'shtab>=1.9.3,<2'") from None
    from replay.cli.main import parser

    # What a script says must not depend on the terminal it is made in.
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        top = parser()
        _mark(top, {"file": shtab.FILE, "directory": shtab.DIRECTORY})
        return str(shtab.complete(top, shell=shell))
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _mark(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Tell shtab which arguments are files: by their metavars, which say so to people too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in dict.fromkeys(action.choices.values()):
                _mark(part, kinds)
        elif isinstance(action.metavar, str) and action.nargs != 0 and not action.choices:
            # Recordings are directories, but what is above them is completed as well.
            if action.metavar in _DIRECTORIES:
                action.complete = kinds["directory"]  # type: ignore[attr-defined]
            elif action.metavar in _FILES:
                action.complete = kinds["file"]  # type: ignore[attr-defined]
