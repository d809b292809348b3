# SPDX-License-Identifier: GPL-2.0-or-later
"""Tools for the guest: iovisor BCC and trace-cmd with all they need, out of Debian's packages, never installed.

They are a second archive next to the initramfs, with a root of their own below :data:`ROOT`: the guest's work then
runs there, under that root's Python, which is the one that Debian builds BCC's module for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from traces.lab.apt import Mirror
from traces.lab.cpio import CpioWriter
from traces.lab.debs import unpack
from traces.lab.errors import LabError
from traces.lab.packages import closure

__all__ = ["ROOT", "Tools", "cached_tools", "fetch_tools"]

#: Where the guest finds the tools' root.
ROOT: Final = "/tools"
#: One suite for all of them: its packages are built against each other.
_SUITE: Final = "trixie"
_NAMES: Final = ("python3-bpfcc", "trace-cmd", "busybox-static")
#: Packages that only maintainer scripts need, or programs that the guest does not run.
_LEFT_OUT: Final = ("debconf", "dpkg", "gcc-14-base", "install-info", "media-types", "netbase",
                    "openssl-provider-legacy", "perl", "perl-base", "python3-netaddr", "readline-common", "tzdata")
#: Directories of packages that no program opens in the guest.
_UNREAD: Final = ("usr/share", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/python3.13/pydoc_data",
                  "usr/lib/python3.13/idlelib", "etc", "var", "usr/include")
#: What a merged /usr has at its root.
_MERGED: Final = ("bin", "lib", "lib64", "sbin")
_APPLETS: Final = ("sh", "mkswap", "swapon", "swapoff", "uname", "cat", "sleep")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tools:
    """An archive of tools; ``versions`` is package -> version."""

    archive: Path
    versions: dict[str, str]


def cached_tools(cache: Path) -> Tools | None:
    """Return the tools of the cache, None when they are not there.

    :raises LabError: when the archive is not what was made
    """
    directory = cache / "tools"
    archive = directory / "tools.cpio"
    try:
        manifest = json.loads((directory / "tools.json").read_text())
        with archive.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != manifest["sha256"]:
                raise LabError(f"{archive} was changed since it was made; remove {directory}")
        # Made by an older zreplay, from another list: made again.
        if manifest["names"] != list(_NAMES):
            return None
        return Tools(archive, {row["name"]: row["version"] for row in manifest["packages"]})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fetch_tools(mirror: Mirror, cache: Path, say: Say) -> Tools:
    """Return the tools of the cache, fetched and unpacked first where they are not there.

    :param say: called with a sentence on what is being done
    :raises LabError: when a package cannot be fetched
    """
    have = cached_tools(cache)
    if have is not None:
        return have
    cache.mkdir(parents=True, exist_ok=True)
    with mirror.index(_SUITE) as lines:
        try:
            packages = closure(lines, _SUITE, _NAMES, _LEFT_OUT)
        except KeyError as missing:
            raise LabError(f"suite {_SUITE} has no package {missing.args[0]}; name another mirror with "
                           "--mirror") from None
    with tempfile.TemporaryDirectory(dir=cache, prefix=".tools.") as scratch:
        tree, ready = Path(scratch, "tree"), Path(scratch, "ready")
        ready.mkdir()
        for package in packages:
            unpack(package, mirror, tree, say)
        say("making the archive of tools")
        data = _archive(tree)
        (ready / "tools.cpio").write_bytes(data)
        rows = [{"name": package.name, "version": package.version, "sha256": package.sha256} for package in packages]
        manifest = {"suite": _SUITE, "names": list(_NAMES), "sha256": hashlib.sha256(data).hexdigest(),
                    "packages": rows}
        (ready / "tools.json").write_text(json.dumps(manifest, indent=1))
        target = cache / "tools"
        shutil.rmtree(target, ignore_errors=True)
        ready.rename(target)
    tools = cached_tools(cache)
    if tools is None:
        raise LabError(f"{cache / 'tools'} cannot be read back; see whether the disk is full")
    return tools


def _archive(tree: Path) -> bytes:
    """Return the archive of an unpacked tree, without files that no program opens."""
    archive = CpioWriter()
    for name in ("proc", "sys", "dev", "out", "tmp", "boot", "zreplay", "content", "etc", "root"):
        archive.directory(f"{ROOT}/{name}")
    for name in _MERGED:
        archive.symlink(f"{ROOT}/{name}", f"usr/{name}")
    for path in _files(tree, tree):
        name = f"{ROOT}/{path.relative_to(tree)}"
        if path.is_symlink():
            archive.symlink(name, os.readlink(path))
        else:
            archive.file(name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    for applet in _APPLETS:
        archive.symlink(f"{ROOT}/usr/bin/{applet}", "busybox")
    return archive.finish()


def _files(tree: Path, directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.is_symlink() or path.is_file():
            yield path
        elif path.is_dir() and str(path.relative_to(tree)) not in _UNREAD:
            yield from _files(tree, path)
