# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages unpacked into a directory, never installed: nothing of them is run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from traces.lab.apt import Mirror
from traces.lab.errors import LabError
from traces.lab.packages import Package

__all__ = ["unpack"]

Say = Callable[[str], None]


def unpack(package: Package, mirror: Mirror, tree: Path, say: Say) -> str:
    """Fetch a package and unpack it below ``tree``; returns the SHA-256 of its file.

    The file is next to the tree meanwhile, under its own name, and is removed.

    :param say: called with a sentence on what is being done
    :raises LabError: when it cannot be fetched, is not what the index names, or cannot be unpacked
    """
    deb = tree.with_name(Path(package.filename).name)
    digest = mirror.fetch(package.filename, deb, package.sha256, package.size)
    say(f"unpacking {package.name}")
    done = subprocess.run(["nice", "dpkg-deb", "-x", str(deb), str(tree)], text=True, check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LabError(f"{package.name} cannot be unpacked ({done.stderr.strip()[:200]}); see whether the disk is full")
    deb.unlink()
    return digest
