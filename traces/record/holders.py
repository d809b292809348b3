# SPDX-License-Identifier: GPL-2.0-or-later
"""Which processes have files open below a directory: those that keep an instance of tracefs busy."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["held_by", "holders"]

#: Processes that are named.
_SHOWN = 4


def holders(place: Path, names: Iterable[str], proc: Path = Path("/proc")) -> list[tuple[int, str]]:
    """Return (process, its name) of all but this one that have something open at ``place`` or below it, in order.

    Processes of others are seen by root only; one that ends meanwhile is left out.

    :param place: directory, as processes name it that do not have it mounted elsewhere
    :param names: of the directories or files in it that matter
    :param proc: where proc is mounted
    """
    wanted = set(names)
    found = []
    try:
        device = os.stat(place).st_dev
    except OSError:
        device = None
    for directory in proc.glob("[0-9]*"):
        number = int(directory.name)
        if number != os.getpid() and any(_is_at(fd, place, wanted, device) for fd in _files(directory)):
            found.append((number, _name(directory)))
    return sorted(found)


def _files(directory: Path) -> list[Path]:
    try:
        return list((directory / "fd").iterdir())
    except OSError:
        return []


def _is_at(fd: Path, place: Path, names: set[str], device: int | None) -> bool:
    """True when an open file is one of the names in ``place``, by whichever mount of the same file system."""
    try:
        target = os.readlink(fd)
    except OSError:
        return False
    # Where it was opened by another mount, or in a chroot, the path begins with something else.
    parent, _, rest = target.partition(f"/{place.name}/")
    if not rest or rest.split("/")[0] not in names or not parent.startswith("/"):
        return False
    if device is None:
        return True
    try:
        return os.stat(fd).st_dev == device
    except OSError:
        return True


def _name(directory: Path) -> str:
    try:
        text = (directory / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""
    # A task may give itself any name.
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def held_by(place: Path, names: Iterable[str], proc: Path = Path("/proc")) -> str:
    """Return a clause of the processes that hold something: ``, held by process 12 (cat)``; empty where none is."""
    found = holders(place, names, proc)
    if not found:
        return ""
    shown = ", ".join(f"process {number} ({name})" if name else f"process {number}" for number, name in found[:_SHOWN])
    return f", held by {shown}" + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
