# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU for devices that the lab emulates: Debian's packages, unpacked into the cache, started by their own loader.

A device over vfio-user needs QEMU 11.1, which most boxes do not have yet.  Nothing is installed, and only QEMU itself
is run: its C library and dynamic linker come along, so that it runs on any distribution.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from traces.lab.apt import Mirror
from traces.lab.debs import unpack
from traces.lab.errors import LabError
from traces.lab.packages import Package, closure

__all__ = ["DEVICE", "Emulator", "cached_emulator", "check_emulator", "fetch_emulator", "last_words",
           "own_emulator"]

#: QEMU's device that speaks vfio-user.
DEVICE: Final = "vfio-user-pci"
#: The suite that has QEMU, and the one whose libraries it was built against: of both, the newer package.
_SUITES: Final = ("trixie", "trixie-backports")
_NAMES: Final = ("qemu-system-x86",)
#: Packages that only maintainer scripts need, or only parts of QEMU that the lab does not use: sound, screens, USB.
_LEFT_OUT: Final = (
    "adduser", "base-passwd", "debconf", "gcc-14-base", "ipxe-qemu", "libasound2-data", "libasound2t64",
    "libaudit-common", "libbrlapi0.8", "libcacard0", "libcap-ng0", "libexecs1", "libncursesw6", "libnspr4", "libnss3",
    "libpam-modules", "libpam-modules-bin", "libpcsclite1", "libsasl2-modules-db", "libsemanage-common",
    "libsqlite3-0", "libsystemd0", "libtinfo6", "libusb-1.0-0", "libusbredirparser1t64", "login.defs",
    "openssl-provider-legacy", "passwd")
#: Where the packages have QEMU, the dynamic linker, libraries and firmware.
_PROGRAM: Final = "usr/bin/qemu-system-x86_64"
_LINKER: Final = "usr/lib64/ld-linux-x86-64.so.2"
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_FIRMWARE: Final = ("usr/share/qemu", "usr/share/seabios")
#: What is kept of a tree, as patterns below it.
_KEPT: Final = (_PROGRAM, _LINKER, f"{_LIBRARIES}/*.so*",
                *(f"{place}/*.{end}" for place in _FIRMWARE for end in ("bin", "rom")))
_MANIFEST: Final = "qemu.json"
#: Seconds that QEMU may take to say what it is.
_PATIENCE: Final = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Emulator:
    """A QEMU: its program, what begins its command, and package -> version, none of a QEMU of the user's own."""

    program: Path
    words: tuple[str, ...]
    packages: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """Return what it calls itself: ``QEMU emulator version 11.1.3 (...)``.

        :raises LabError: when it does not run
        """
        said = self.ask("--version")
        if said.returncode:
            raise LabError(f"{self.program} does not run ({last_words(said)}); name another QEMU with --qemu")
        return said.stdout.splitlines()[0] if said.stdout else "QEMU of an unknown version"

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it with words that make it answer and end.

        :raises LabError: when it does not run
        """
        try:
            return subprocess.run([*self.words, *words], text=True, errors="replace", capture_output=True,
                                  stdin=subprocess.DEVNULL, timeout=_PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise LabError(f"{self.program} does not run ({problem}); name another QEMU with --qemu") from None


def _unpacked(tree: Path, packages: dict[str, str]) -> Emulator:
    """Return the QEMU of an unpacked tree."""
    firmware = itertools.chain.from_iterable(("-L", str(tree / place)) for place in _FIRMWARE)
    # Modules of another QEMU, where this box has one, would be tried otherwise.
    words = ("env", f"QEMU_MODULE_DIR={tree / _LIBRARIES / 'qemu'}", str(tree / _LINKER), "--library-path",
             str(tree / _LIBRARIES), str(tree / _PROGRAM), *firmware)
    return Emulator(tree / _PROGRAM, words, packages)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_emulator(cache: Path) -> Emulator | None:
    """Return the QEMU of the cache, None when it is not there.

    :raises LabError: when a file of it is not what was unpacked
    """
    directory = cache / "qemu"
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        # Made by an older zreplay, from another list: made again.
        if manifest["recipe"] != _recipe():
            return None
        files: dict[str, str] = manifest["files"]
        for name, digest in files.items():
            if _digest(directory / "tree" / name) != digest:
                raise LabError(f"{directory / 'tree' / name} was changed since it was unpacked; remove {directory}")
        return _unpacked(directory / "tree", {row["name"]: row["version"] for row in manifest["packages"]})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _recipe() -> list[list[str]]:
    return [list(words) for words in (_SUITES, _NAMES, _LEFT_OUT, _KEPT)]


def fetch_emulator(mirror: Mirror, cache: Path, say: Say) -> Emulator:
    """Return the QEMU of the cache, fetched and unpacked first where it is not there.

    :param say: called with a sentence on what is being done
    :raises LabError: when a package cannot be fetched, or what was unpacked does not run
    """
    have = cached_emulator(cache)
    if have is not None:
        return have
    cache.mkdir(parents=True, exist_ok=True)
    packages = _packages(mirror)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".qemu.") as scratch:
        unpacked, ready = Path(scratch, "unpacked"), Path(scratch, "ready")
        rows = [{"name": package.name, "version": package.version, "sha256": unpack(package, mirror, unpacked, say)}
                for package in packages]
        tree = ready / "tree"
        for path in sorted({path for pattern in _KEPT for path in unpacked.glob(pattern) if path.is_file()}):
            there = tree / path.relative_to(unpacked)
            there.parent.mkdir(parents=True, exist_ok=True)
            # A link becomes what it leads to.
            shutil.copyfile(path, there)
        for name in (_PROGRAM, _LINKER):
            if not (tree / name).is_file():
                raise LabError(f"the packages of {_SUITES[-1]} hold no {name}; try again later, or name a QEMU of your "
                               "own with --qemu")
            (tree / name).chmod(0o755)
        # Before it counts as there: a library may be missing.
        check_emulator(_unpacked(tree, {}))
        files = {str(path.relative_to(tree)): _digest(path) for path in sorted(tree.rglob("*")) if path.is_file()}
        (ready / _MANIFEST).write_text(json.dumps({"recipe": _recipe(), "packages": rows, "files": files}, indent=1))
        target = cache / "qemu"
        shutil.rmtree(target, ignore_errors=True)
        ready.rename(target)
    emulator = cached_emulator(cache)
    if emulator is None:
        raise LabError(f"{cache / 'qemu'} cannot be read back; see whether the disk is full")
    return emulator


def _packages(mirror: Mirror) -> list[Package]:
    with mirror.index(_SUITES[0]) as older, mirror.index(_SUITES[1]) as newer:
        try:
            # The end of an index is the end of its last stanza.
            return closure(itertools.chain(older, ("\n",), newer), _SUITES[1], _NAMES, _LEFT_OUT)
        except KeyError as missing:
            raise LabError(f"suites {' and '.join(_SUITES)} have no package {missing.args[0]}; name another mirror "
                           "with --mirror, or a QEMU of your own with --qemu") from None


def own_emulator(path: Path) -> Emulator:
    """Return a QEMU of the user's own.

    :param path: ``qemu-system-x86_64``, or its name in ``PATH``
    :raises LabError: when there is none
    """
    found = shutil.which(os.fspath(path))
    if found is None:
        raise LabError(f"{path} is not a program; name qemu-system-x86_64 of QEMU 11.1 or later with --qemu")
    return Emulator(Path(found), (found,))


def check_emulator(emulator: Emulator) -> None:
    """See that a QEMU runs and has the device.

    :raises LabError: when not
    """
    version = emulator.describe()
    said = emulator.ask("-device", f"{DEVICE},help")
    if said.returncode or "options" not in said.stdout:
        raise LabError(f"{version} has no device {DEVICE}; take one of 11.1 or later that was built with it, or leave "
                       "out --qemu")


def last_words(said: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of what a program said, for a sentence."""
    lines = (said.stderr or said.stdout).strip().splitlines()
    return lines[-1][:300] if lines else f"status {said.returncode}"
