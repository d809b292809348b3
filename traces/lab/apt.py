# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's suites through this machine's own apt: its mirror, proxy and keys; apt's configuration does not change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from traces.lab.errors import LabError
from traces.lab.packages import Package, parse_index, release_digests

__all__ = ["SUITES", "Mirror", "cache_directory", "find_mirror"]

#: Where kernels are looked for: from the stable line to the newest release candidate.
SUITES: Final = ("trixie", "trixie-backports", "sid", "experimental")
_INDEX: Final = "main/binary-amd64/Packages.xz"
#: Seconds that a suite's list of digests counts as new.
_FRESH: Final = 6 * 3600
_HELPER: Final = Path("/usr/lib/apt/apt-helper")
_KEYRINGS: Final = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp",
                    "/etc/apt/trusted.gpg.d/debian-archive-keyring.gpg")

Say = Callable[[str], None]


def cache_directory() -> Path:
    """Return where kernels and indexes are kept: ``zreplay/kernels`` below ``XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zreplay" / "kernels"


class Mirror:
    """A mirror of Debian, read through apt's own downloader.

    :param uri: its address, as apt has it
    :param cache: directory for indexes
    :param say: called with a sentence on what is being done
    """

    def __init__(self, uri: str, cache: Path, say: Say) -> None:
        self.uri = uri.rstrip("/") + "/"
        self.cache = cache / "indexes"
        self.cache.mkdir(parents=True, exist_ok=True)
        self.say = say
        self.notes: list[str] = []

    def fetch(self, name: str, to: Path, sha256: str = "", size: int = 0) -> str:
        """Download a file of the mirror and return its SHA-256.

        :param sha256: what it must be; empty takes any
        :param size: in bytes, for what is said meanwhile
        :raises LabError: when it cannot be fetched, or is not what it must be
        """
        # Another lab may fetch the same at the same time.
        part = to.with_name(f".{to.name}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        # As root apt would fetch as its own user, which may not write into root's cache; without -q it draws bars.
        command = [str(_HELPER), "-qq", "-o", "APT::Sandbox::User=", "download-file", self.uri + name, str(part)]
        if sha256:
            command.append(f"SHA256:{sha256}")
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=complaints, stdin=subprocess.DEVNULL)
            try:
                while process.poll() is None:
                    time.sleep(0.1)
                    with contextlib.suppress(OSError):
                        done = part.stat().st_size
                        self.say(f"fetching {to.name}: {done >> 20} of {size >> 20} MiB" if size >> 20
                                 else f"fetching {to.name}")
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            complaints.seek(0)
            said = " ".join(line for line in complaints.read().splitlines() if line.startswith("E:"))
        try:
            if process.returncode or not part.is_file():
                raise LabError(f"{self.uri}{name} cannot be fetched ({said or 'apt gave no reason'}); "
                               "check this machine's network and apt sources")
            digest = _sha256(part)
            if sha256 and digest != sha256:
                raise LabError(f"{self.uri}{name} is not the file that the index names; fetch it again")
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return digest

    def suite(self, suite: str) -> list[Package]:
        """Return the kernel packages of a suite.

        :raises LabError: when the mirror does not carry it
        """
        digest, _ = self._newest(suite)
        known = self.cache / f"{suite}-{digest[:16]}.json"
        with contextlib.suppress(OSError, ValueError, TypeError):
            return [Package(**row) for row in json.loads(known.read_text())]
        with self.index(suite) as lines:
            packages = list(parse_index(lines, suite))
        for old in self.cache.glob(f"{suite}-*.json"):
            if re.fullmatch(re.escape(suite) + r"-[0-9a-f]{16}\.json", old.name):
                old.unlink(missing_ok=True)
        known.write_text(json.dumps([asdict(package) for package in packages]))
        return packages

    @contextlib.contextmanager
    def index(self, suite: str) -> Iterator[Iterable[str]]:
        """Give the lines of a suite's whole ``Packages`` file, fetched anew.

        :raises LabError: when the mirror does not carry it
        """
        digest, by_hash = self._newest(suite)
        index = self.cache / f"{suite}.{os.getpid()}.Packages.xz"
        # The mirror has a file under its digest even while it takes up a newer one.
        directory, _, _ = _INDEX.rpartition("/")
        name = f"by-hash/SHA256/{digest}" if by_hash else "Packages.xz"
        self.fetch(f"dists/{suite}/{directory}/{name}", index, digest)
        self.say(f"reading the index of {suite}")
        try:
            with lzma.open(index, "rt", encoding="utf-8", errors="replace") as lines:
                yield lines
        finally:
            index.unlink(missing_ok=True)

    def digest(self, suite: str) -> str:
        """Return the digest of a suite's present index, for callers that cached what they made of one.

        :raises LabError: when the mirror does not carry the suite
        """
        return self._newest(suite)[0]

    def _newest(self, suite: str) -> tuple[str, bool]:
        """Return the digest of a suite's index of today, and whether the mirror has it under its digest.

        The digests of the suite are checked against Debian's signature where gpgv and a keyring are there.

        :raises LabError: when the mirror does not carry it
        """
        release = self.cache / f"{suite}.InRelease"
        if not release.is_file() or time.time() - release.stat().st_mtime > _FRESH:
            try:
                self.fetch(f"dists/{suite}/InRelease", release)
                os.utime(release)
            except LabError as problem:
                if not release.is_file():
                    raise
                self.notes.append(f"the index of {suite} is an older one: {problem}")
        text = release.read_text(errors="replace")
        note = _signature(release)
        if note and note not in self.notes:
            self.notes.append(note)
        digest = release_digests(text).get(_INDEX)
        if digest is None:
            raise LabError(f"suite {suite} has no {_INDEX}; name another mirror with --mirror")
        return digest, "Acquire-By-Hash: yes" in text

    def packages(self) -> list[Package]:
        """Return the kernel packages of all suites; one that the mirror does not carry is noted and left out."""
        found = []
        for suite in SUITES:
            try:
                found += self.suite(suite)
            except LabError as problem:
                self.notes.append(str(problem))
        return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _signature(release: Path) -> str:
    """Return a note on an InRelease file's signature; empty when it is good.

    :raises LabError: when it is bad
    """
    keyring = next((name for name in _KEYRINGS if Path(name).is_file()), None)
    if shutil.which("gpgv") is None or keyring is None:
        return "Debian's signature on the indexes was not checked: gpgv or debian-archive-keyring is missing"
    result = subprocess.run(["gpgv", "--status-fd", "1", "--keyring", keyring, str(release)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
    if "[GNUPG:] BADSIG" in result.stdout:
        with contextlib.suppress(OSError):
            release.unlink()
        raise LabError(f"the signature of {release.name} is bad: the file is not Debian's; use another mirror")
    # Several keys sign; one that is known here is enough.
    if "[GNUPG:] VALIDSIG" in result.stdout:
        return ""
    return "Debian's signature on the indexes was not checked: its keys are newer than this machine's keyring"


def _sources() -> Iterator[str]:
    """Yield the addresses of apt's sources, each once."""
    seen = set()
    result = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], text=True, check=False,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    for uri in result.stdout.split():
        if uri not in seen:
            seen.add(uri)
            yield uri


def find_mirror(uri: str | None, cache: Path, say: Say) -> Mirror:
    """Return the first of apt's sources that carries Debian's suites, or the one at ``uri``.

    :raises LabError: when there is none
    """
    if shutil.which("dpkg-deb") is None or not _HELPER.is_file():
        raise LabError("fetching kernels needs apt and dpkg; give a kernel of your own with --kernel PATH/bzImage")
    if uri is not None:
        return Mirror(uri, cache, say)
    for source in _sources():
        mirror = Mirror(source, cache, say)
        with contextlib.suppress(LabError):
            mirror.suite(SUITES[0])
            return mirror
    raise LabError(f"none of this machine's apt sources carries Debian's suite {SUITES[0]}; name a mirror with "
                   "--mirror URL, or give a kernel of your own with --kernel PATH/bzImage")
