# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages that zreplay asks for, as its metadata says: those of every verb, and extras of some."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from traces.errors import BadInput

__all__ = ["missing", "need", "pip", "requirements", "split"]


def requirements() -> list[tuple[str, str]]:
    """Return (extra, requirement) of everything zreplay asks for; the extra of what it cannot do without is empty.

    Of a checkout that is in pyproject.toml (what was installed of it may be older), of an installed zreplay in its
    metadata; empty where neither is.
    """
    try:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
        if project["name"] == "zreplay":
            optional = project.get("optional-dependencies", {})
            return [("", line) for line in project["dependencies"]] + [
                (extra, line) for extra, lines in optional.items() for line in lines]
    except (OSError, ValueError, KeyError):
        # Nobody's, or somebody else's.
        pass
    try:
        stated = importlib.metadata.requires("zreplay") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found: list[tuple[str, str]] = []
    for line in stated:
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", line)
        found.append((extra[1] if extra else "", line))
    return found


def split(requirement: str) -> tuple[str, str, bool]:
    """Return a requirement's name, the words that pip takes, and whether this Python asks for it."""
    words, _, marker = requirement.partition(";")
    name = re.match(r"[\w.-]+", words)
    older = re.search(r"""python_version\s*<\s*['"]3\.(\d+)['"]""", marker)
    wanted = older is None or sys.version_info < (3, int(older[1]))
    return name[0] if name else "", words.strip(), wanted


def missing(lines: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return name -> version of what is installed, and the words for pip of what is not."""
    have: dict[str, str] = {}
    lacking = []
    for line in lines:
        name, words, wanted = split(line)
        if not wanted:
            continue
        try:
            have[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(words)
    return have, lacking


def pip(words: Sequence[str]) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *words])


def need(package: str, extra: str, what: str) -> None:
    """See that a package of an extra is installed before work begins that is for nothing without it.

    :param what: what needs it, as the message begins
    :raises BadInput: where it is not; the message has the command that installs all that the extra lacks
    """
    if importlib.util.find_spec(package) is None:
        lines = [line for of, line in requirements() if of == extra]
        raise BadInput(what, "", f"the package {package} is not installed",
                       f"install it: {pip(missing(lines)[1] or [package])}")
