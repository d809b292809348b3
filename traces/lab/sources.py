# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel sources: Debian's linux-source packages, by name, or a tarball or package of the user's own."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from traces.lab.apt import SUITES, Mirror
from traces.lab.errors import LabError
from traces.lab.packages import Package, compare_versions, source_packages

__all__ = ["Source", "cached_source", "choose", "fetch_source", "local_source", "tarball_of"]

_NAME: Final = re.compile(r"(?:linux-source-)?([0-9]+\.[0-9]+)(?:=([A-Za-z0-9.+:~-]+))?")
_FILE: Final = re.compile(r"(linux-source-[0-9.]+)_(.+)_all\.deb")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A kernel's source: its file (a package or a tarball), and what is known of it."""

    path: Path
    name: str
    version: str
    suite: str
    sha256: str
    in_index: bool

    def facts(self) -> dict[str, Any]:
        """Return the facts of it that are written next to a kernel."""
        return {"name": self.name, "version": self.version, "suite": self.suite, "sha256": self.sha256,
                "in_index": self.in_index}

    def title(self) -> str:
        """Return how a sentence names it."""
        return f"{self.name} {self.version}".strip()


def choose(packages: Iterable[Package], wanted: str) -> Package:
    """Return the newest package of a line, or the one of a version: ``7.2``, ``linux-source-7.2``,
    ``linux-source-7.2=7.2.13-1``.

    A version that no index has may still be in the mirror's pool: it is named here without a digest.

    :raises LabError: when there is none
    """
    name, version = _asked(wanted)
    found = _newest(packages, name, version)
    if found is not None:
        return found
    if version is None:
        raise LabError(f"no suite has {name} ({', '.join(SUITES)}); name a version with {name}=VERSION that the "
                       "mirror's pool may still have, or the path of a tarball")
    without_epoch = version.rpartition(":")[2]
    return Package(name, version, f"pool/main/l/linux/{name}_{without_epoch}_all.deb", 0, "", "")


def _asked(wanted: str) -> tuple[str, str | None]:
    """Return the package and the version that a user named.

    :raises LabError: when it is not the name of a source
    """
    match = _NAME.fullmatch(wanted)
    if match is None:
        raise LabError(f"'{wanted}' is not a source: name linux-source-7.2, linux-source-7.2=VERSION, or the path of a "
                       "tarball")
    return f"linux-source-{match[1]}", match[2]


def _newest(packages: Iterable[Package], name: str, version: str | None) -> Package | None:
    found: Package | None = None
    for package in packages:
        if package.name == name and version in (None, package.version) \
                and (found is None or compare_versions(found.version, package.version) < 0):
            found = package
    return found


def fetch_source(wanted: str, mirror: Mirror, cache: Path, say: Say) -> Source:
    """Return a source of the cache, fetched first where it is not there.

    :raises LabError: when it cannot be fetched
    """
    found: list[Package] = []
    for suite in SUITES:
        try:
            with mirror.index(suite) as lines:
                found += source_packages(lines, suite)
        except LabError as problem:
            mirror.notes.append(str(problem))
    package = choose(found, wanted)
    sources = cache / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    path = sources / Path(package.filename).name
    digest = _digest(path) if path.is_file() else ""
    if not digest or (package.sha256 and digest != package.sha256):
        digest = mirror.fetch(package.filename, path, package.sha256, package.size)
    if not package.sha256:
        mirror.notes.append(f"{package.name} {package.version} is in no index any more: nothing vouches for the file "
                            f"that the pool has (SHA-256 {digest})")
    return Source(path, package.name, package.version, package.suite, digest, bool(package.sha256))


def cached_source(wanted: str, cache: Path) -> Source | None:
    """Return a source that was fetched before, named as for :func:`choose`; None when it was not.

    :raises LabError: when it is not the name of a source
    """
    name, version = _asked(wanted)
    have = [Package(match[1], match[2], str(path), 0, "", "") for path in (cache / "sources").glob("linux-source-*.deb")
            if (match := _FILE.fullmatch(path.name)) is not None]
    # The name of a file has no epoch.
    package = _newest(have, name, version and version.rpartition(":")[2])
    return None if package is None else local_source(Path(package.filename))


def local_source(path: Path) -> Source:
    """Return a source of the user's own: a linux-source package or a tarball.

    :raises LabError: when it cannot be read
    """
    try:
        digest = _digest(path)
    except OSError as problem:
        raise LabError(f"{path} cannot be read ({problem.strerror}); name a linux-source package or a tarball with "
                       "--source") from None
    match = _FILE.fullmatch(path.name)
    name, version = (match[1], match[2]) if match else (re.sub(r"\.tar(\.\w+)?$", "", path.name), "")
    return Source(path, name, version, "", digest, False)


def tarball_of(source: Source, scratch: Path, say: Say) -> Path:
    """Return the tarball of a source; a package's is unpacked into ``scratch``.

    :raises LabError: when it holds none
    """
    if source.path.suffix != ".deb":
        return source.path
    say(f"unpacking {source.path.name}")
    try:
        done = subprocess.run(["nice", "dpkg-deb", "-x", str(source.path), str(scratch)], text=True, check=False,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise LabError("dpkg-deb is missing; apt install dpkg, or name a tarball with --source") from None
    if done.returncode:
        raise LabError(f"{source.path} cannot be unpacked ({done.stderr.strip()[:200]}); see whether the "
                       "disk is full")
    found = sorted((scratch / "usr/src").glob("linux-source-*.tar*")) if (scratch / "usr/src").is_dir() else []
    if not found:
        raise LabError(f"{source.path} holds no linux-source tarball; name another with --source")
    return found[0]


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
