# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of the running kernel: zswap's parameters, and what each cgroup's memory.zswap files say.

A cgroup's id says whose write a probe saw, and which mem_cgroup the cgroup has: it is the inode number of the cgroup's
directory (kernfs_node.id, Linux 6.12 to 7.3).
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

__all__ = ["read_settings"]

#: More cgroups than this are not read; the reading says how many were left out at least.
_MOST = 4096
#: The limit first; memory.zswap.current shows by its probe which mem_cgroup this is.
_FILES = ("memory.zswap.max", "memory.zswap.writeback", "memory.zswap.current")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _mount(root: Path) -> Path | None:
    """Return where the cgroup2 hierarchy is mounted, None where it is not."""
    for line in (_text(root / "proc/self/mounts") or "").splitlines():
        words = line.split(" ")
        if len(words) > 2 and words[2] == "cgroup2":
            place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1])
            return root / place.lstrip("/")
    return None


def read_settings(root: Path = Path("/")) -> dict[str, Any]:
    """Read zswap's parameters and the memory.zswap files of all cgroups, parents before their children.

    ``t`` and ``t_end`` are when reading began and ended, seconds of the trace clock.

    :param root: where proc and sys are mounted
    """
    values: dict[str, Any] = {"t": time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9, "params": {}, "cgroups": []}
    parameters = root / "sys/module/zswap/parameters"
    try:
        names = sorted(path.name for path in parameters.iterdir())
    except OSError:
        names = []
    for name in names:
        text = _text(parameters / name)
        if text is not None:
            values["params"][name] = text
    top = _mount(root)
    waiting = [top] if top is not None else []
    while waiting:
        directory = waiting.pop()
        if len(values["cgroups"]) == _MOST:
            values["left_out"] = 1 + len(waiting)
            break
        try:
            row: dict[str, Any] = {"id": directory.stat().st_ino,
                                   "path": "/" + str(directory.relative_to(top)).strip(".")}  # type: ignore[arg-type]
            below = sorted((path for path in directory.iterdir() if path.is_dir() and not path.is_symlink()),
                           reverse=True)
        except OSError:
            # It went away meanwhile.
            continue
        for name in _FILES:
            text = _text(directory / name)
            if text is not None:
                row[name] = text
        if directory == top and not (directory / "cgroup.type").exists():
            # A cgroup namespace shows another as if it were at the top.
            row["root"] = True
        values["cgroups"].append(row)
        waiting += below
    values["t_end"] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9
    return values
