# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian package indexes: their stanzas, the order of versions, and which packages a kernel is made of."""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["KernelPackages", "Package", "closure", "compare_versions", "in_order", "is_candidate", "kernels_in",
           "parse_index", "pick", "release_digests", "source_packages"]

#: The plain flavour: cloud kernels were built without zswap up to 6.18, and lack modules that the lab needs.
_NAME: Final = re.compile(r"linux-(image|binary|modules|base)-([0-9][0-9a-z.+~]*?)-amd64")
#: From 6.19 on ``linux-image-V`` is an empty package that depends on the others.
_EMPTY: Final = 1 << 20
#: Debian's policy, 2.5, the most wanted first.
_PRIORITIES: Final = {name: rank for rank, name in enumerate(("required", "important", "standard", "optional"))}


@dataclass(frozen=True)
class Package:
    """A package of an index.

    ``size`` is in bytes; ``sha256`` is empty where no index vouches for the file; ``filename`` is below the mirror.
    """

    name: str
    version: str
    filename: str
    size: int
    sha256: str
    suite: str


@dataclass(frozen=True)
class KernelPackages:
    """The packages that a kernel is unpacked from; ``release`` is its ``uname -r``."""

    release: str
    version: str
    suite: str
    packages: tuple[Package, ...]


def _stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a ``Packages`` file, field -> its first line."""
    stanza: dict[str, str] = {}
    for line in lines:
        line = line.rstrip("\n")
        if not line:
            yield stanza
            stanza = {}
        elif not line[0].isspace():
            key, _, value = line.partition(":")
            stanza[key] = value.strip()
    yield stanza


def parse_index(lines: Iterable[str], suite: str) -> Iterator[Package]:
    """Yield the packages of a ``Packages`` file that belong to plain amd64 kernels."""
    for stanza in _stanzas(lines):
        if _NAME.fullmatch(stanza.get("Package", "")):
            yield from _package(stanza, suite)


def source_packages(lines: Iterable[str], suite: str) -> Iterator[Package]:
    """Yield the packages of a ``Packages`` file with a kernel's source: ``linux-source-7.2``."""
    for stanza in _stanzas(lines):
        if re.fullmatch(r"linux-source-[0-9]+\.[0-9]+", stanza.get("Package", "")):
            yield from _package(stanza, suite)


def closure(lines: Iterable[str], suite: str, names: Iterable[str], left_out: Iterable[str] = (),
            essential: bool = False) -> list[Package]:
    """Return packages of a ``Packages`` file with all they depend on, by name.

    Of alternatives one that is taken anyway satisfies, else the first that the suite has, itself or what provides it:
    of several providers the one of the highest priority.  Versions and conflicts are not looked at: one suite's
    packages go together.  Of several versions of a package the newest counts.

    :param left_out: packages that are not wanted, nor what only they depend on
    :param essential: with the packages that all others take for granted (Debian's policy, 3.8)
    :raises KeyError: with a name that the suite does not have
    """
    stanzas: dict[str, dict[str, str]] = {}
    providers: dict[str, list[str]] = {}
    for stanza in _stanzas(lines):
        name = stanza.get("Package", "")
        have = stanzas.get(name)
        if have is None or compare_versions(have.get("Version", ""), stanza.get("Version", "")) < 0:
            stanzas[name] = stanza
    for name, stanza in stanzas.items():
        for provided in stanza.get("Provides", "").split(","):
            if provided.strip():
                providers.setdefault(_bare(provided), []).append(name)
    for able in providers.values():
        able.sort(key=lambda name: _PRIORITIES.get(stanzas[name].get("Priority", ""), len(_PRIORITIES)))
    without = set(left_out)
    todo = collections.deque(names)
    if essential:
        todo += sorted(name for name, stanza in stanzas.items() if stanza.get("Essential") == "yes")
    found: dict[str, Package] = {}
    # What a user names comes first, so that it decides between alternatives; then those that leave no choice.
    asked = {name for name in map(_bare, todo) if name in stanzas} - without
    choices: collections.deque[str] = collections.deque()
    while todo or choices:
        wanted = todo.popleft() if todo else choices.popleft()
        chosen = _satisfying(wanted, stanzas, providers, asked | found.keys())
        if chosen in found or chosen in without:
            continue
        stanza = stanzas[chosen]
        for package in _package(stanza, suite):
            found[chosen] = package
        if chosen not in found:
            raise KeyError(wanted.strip())
        for field in ("Pre-Depends", "Depends"):
            for text in stanza.get(field, "").split(","):
                if text.strip() and not without.intersection(map(_bare, text.split("|"))):
                    (todo if _bare(text) in stanzas and "|" not in text else choices).append(text)
    return [found[name] for name in sorted(found)]


def _satisfying(wanted: str, stanzas: Mapping[str, object], providers: Mapping[str, list[str]],
                taken: Collection[str]) -> str:
    """Return the package that satisfies a dependency.

    :raises KeyError: when the suite has none
    """
    names = [_bare(text) for text in wanted.split("|")]
    able = [one for name in names for one in (name, *providers.get(name, ())) if one in stanzas]
    found = next((one for one in able if one in taken), able[0] if able else "")
    if not found:
        raise KeyError(wanted.strip())
    return found


def _bare(dependency: str) -> str:
    """Return the name in ``libc6:any (>= 2.38)``."""
    return re.split(r"[\s(:\[]", dependency.strip(), maxsplit=1)[0]


def _package(stanza: Mapping[str, str], suite: str) -> Iterator[Package]:
    name = stanza.get("Package", "")
    filename = stanza.get("Filename", "")
    if not stanza.get("Size", "").isdecimal():
        return
    # A name out of an index becomes part of a path and of a URL.
    if not re.fullmatch(r"pool/[A-Za-z0-9/_.+~%-]+\.deb", filename) or ".." in filename:
        return
    yield Package(name, stanza.get("Version", ""), filename, int(stanza["Size"]), stanza.get("SHA256", ""), suite)


def release_digests(text: str) -> dict[str, str]:
    """Return path -> SHA-256 of an ``InRelease`` file's ``SHA256`` list."""
    section = re.search(r"^SHA256:\s*\n((?: .*\n)+)", text, re.M)
    rows = [line.split() for line in section[1].splitlines()] if section else []
    return {row[2]: row[0] for row in rows if len(row) == 3 and re.fullmatch(r"[0-9a-f]{64}", row[0])}


def _order(text: str) -> list[tuple[int, int]]:
    """Return a key for Debian's order of strings without digits: ``~`` first, then the end, letters, others."""
    key = [(-1, 0) if c == "~" else (1, ord(c)) if c.isalpha() else (2, ord(c)) for c in text]
    return [*key, (0, 0)]


def _part_key(text: str) -> list[object]:
    return [int(piece or 0) if i % 2 else _order(piece) for i, piece in enumerate(re.split(r"(\d+)", text))]


def compare_versions(a: str, b: str) -> int:
    """Return below 0, 0 or above 0 as Debian's policy (5.6.12) orders two versions."""
    keys = []
    for version in (a, b):
        epoch, _, rest = version.rpartition(":") if ":" in version else ("0", "", version)
        upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
        keys.append((int(epoch or 0), _part_key(upstream), _part_key(revision)))
    return (keys[0] > keys[1]) - (keys[0] < keys[1])


def kernels_in(packages: Iterable[Package]) -> list[KernelPackages]:
    """Return the kernels that can be put together from packages, the oldest first.

    Where an index still names a kernel's image but no longer its modules, their files may still be in the pool,
    next to each other: they are named here without a digest.
    """
    by_release: dict[str, dict[str, Package]] = {}
    for package in packages:
        part, release = _NAME.fullmatch(package.name).groups()  # type: ignore[union-attr]
        have = by_release.setdefault(f"{release}-amd64", {})
        if part not in have or compare_versions(have[part].version, package.version) < 0:
            have[part] = package
    kernels = []
    for release, have in by_release.items():
        if "binary" in have:
            first = have["binary"]
            rest = tuple(_same_version(have.get(part), first, part, release) for part in ("modules", "base"))
            kernels.append(KernelPackages(release, first.version, first.suite, (first, *rest)))
        elif "image" in have and have["image"].size > _EMPTY:
            first = have["image"]
            kernels.append(KernelPackages(release, first.version, first.suite, (first,)))
    return in_order(kernels)


def in_order(kernels: Iterable[KernelPackages]) -> list[KernelPackages]:
    """Return kernels by their versions, the oldest first."""
    key = functools.cmp_to_key(compare_versions)
    return sorted(kernels, key=lambda kernel: (key(kernel.version), kernel.release))


def _same_version(package: Package | None, first: Package, part: str, release: str) -> Package:
    if package is not None and package.version == first.version:
        return package
    name = f"linux-{part}-{release}"
    # The signed image comes from a source package of its own; the rest from "linux".
    return Package(name, first.version, f"pool/main/l/linux/{name}_{_no_epoch(first.version)}_amd64.deb", 0, "",
                   first.suite)


def _no_epoch(version: str) -> str:
    return version.partition(":")[2] if ":" in version else version


def pick(kernels: Iterable[KernelPackages], wanted: str) -> KernelPackages | None:
    """Return the kernel that a user named, None when there is none.

    A line (``7.3``) or a version (``7.3.4``) is its newest release; a release candidate is taken where there is nothing
    else, or where one is named (``7.3-rc``, ``7.3-rc7``).  A release string (``7.3.4+deb13-amd64``) or a package's
    version (``7.3.4-1~bpo13+1``) is that kernel alone.

    :param kernels: in the order of :func:`kernels_in`
    """
    kernels = list(kernels)
    exact = [kernel for kernel in kernels if wanted in (kernel.release, kernel.version)]
    if exact:
        return exact[-1]
    candidate = re.fullmatch(r"([0-9]+(?:\.[0-9]+)*)[-~]rc([0-9]*)", wanted)
    if candidate is not None:
        begin = re.compile(re.escape(f"{candidate[1]}~rc{candidate[2]}") + r"(?![0-9])" * bool(candidate[2]))
        found = [kernel for kernel in kernels if begin.match(_upstream(kernel.version))]
    else:
        of_line = re.compile(re.escape(wanted) + r"(?![0-9])")
        found = [kernel for kernel in kernels if of_line.match(kernel.release)]
        found = [kernel for kernel in found if not is_candidate(kernel.version)] or found
    return found[-1] if found else None


def is_candidate(version: str) -> bool:
    """True for the version of a release candidate's package: ``7.3~rc7-1~exp1``."""
    return "~rc" in _upstream(version)


def _upstream(version: str) -> str:
    """Return the upstream part of a package's version."""
    return _no_epoch(version).rpartition("-")[0] or version
