# SPDX-License-Identifier: GPL-2.0-or-later
"""A root for a user's command: Debian packages with all they need, unpacked into an archive, never installed.

Nothing of a package is run, here or in the guest.  What its scripts would create and programs need is created here:
users, the links of update-alternatives, names of the box.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from traces.lab.apt import Mirror
from traces.lab.cpio import CpioWriter
from traces.lab.errors import LabError
from traces.lab.packages import Package, closure

__all__ = ["GUEST_ROOT", "SUITE", "Root", "cached_root", "make_root", "merged"]

#: Where the guest has it, until it becomes the root of a command or of systemd.
GUEST_ROOT: Final = "/guest"
#: The suite whose packages are taken where none is named.
SUITE: Final = "trixie"
#: Version of the archives: those of another version are made again.
_RECIPE: Final = 1
#: Directories that no program reads.
_UNREAD: Final = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian",
                  "usr/share/doc-base", "usr/share/bug", "usr/share/bash-completion")
#: What a merged /usr has at its root (base-files makes these links where it is installed).
_MERGED: Final = ("bin", "lib", "lib64", "sbin")
#: System users without a number of their own are given these, downwards, as systemd-sysusers does.
_LAST_USER: Final = 999
#: Files of the root that no package has.
_FILES: Final = {
    "etc/hostname": "zreplay\n", "etc/hosts": "127.0.0.1 localhost zreplay\n::1 localhost\n", "etc/fstab": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    # A fixed machine id: without one systemd takes every boot for the first.
    "etc/machine-id": "7a7265706c61797a7265706c61797a72\n",
    # Newer than /usr, so that systemd updates nothing at the boot.
    "etc/.updated": "", "var/.updated": "",
}
_INSTALL: Final = re.compile(r"--(?:install|slave)\s+(\S+)\s+\S+\s+(\S+)")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Root:
    """An archive of packages below :data:`GUEST_ROOT`; ``size`` in bytes; ``packages`` is name -> version."""

    archive: Path
    size: int
    packages: dict[str, str]
    suite: str


def _place(cache: Path, names: Iterable[str], suite: str) -> Path:
    what = json.dumps([_RECIPE, suite, sorted(set(names))])
    return cache / "roots" / hashlib.sha256(what.encode()).hexdigest()[:16]


def _manifest(place: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((place / "root.json").read_text())
        return manifest if isinstance(manifest, dict) and isinstance(manifest["packages"], list) else None
    except (OSError, ValueError, KeyError):
        return None


def cached_root(cache: Path, names: Iterable[str], suite: str = SUITE) -> Root | None:
    """Return the root of the cache that these packages make, None when it is not there.

    :raises LabError: when the archive is not what was made
    """
    place = _place(cache, names, suite)
    manifest = _manifest(place)
    archive = place / "root.cpio"
    if manifest is None or not archive.is_file():
        return None
    with archive.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != manifest["sha256"]:
            raise LabError(f"{archive} was changed since it was made; remove {place}")
    return Root(archive, archive.stat().st_size, {row["name"]: row["version"] for row in manifest["packages"]}, suite)


def make_root(names: Iterable[str], suite: str, mirror: Mirror, cache: Path, say: Say) -> Root:
    """Return the root of packages as the suite has them today; from the cache where they are unchanged.

    Packages are kept in the cache, and those of the suite that are essential are part of every root.

    :raises LabError: when a package cannot be fetched
    """
    names = sorted(set(names))
    place = _place(cache, names, suite)
    have, index = _manifest(place), mirror.digest(suite)
    if have is not None and have.get("index") == index:
        root = cached_root(cache, names, suite)
        if root is not None:
            return root
    with mirror.index(suite) as lines:
        try:
            packages = closure(lines, suite, names, essential=True)
        except KeyError as missing:
            raise LabError(f"suite {suite} has no package {missing.args[0]}; name another with --package, or a suite "
                           "that has it with --suite") from None
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as scratch:
        ready = Path(scratch, "ready")
        ready.mkdir()
        with (ready / "root.cpio").open("w+b") as out:
            _write(out, [(package.name, _deb(package, mirror, cache)) for package in packages], say)
            out.seek(0)
            digest = hashlib.file_digest(out, "sha256").hexdigest()
        rows = [{"name": package.name, "version": package.version, "sha256": package.sha256} for package in packages]
        manifest = {"suite": suite, "names": names, "index": index, "sha256": digest, "packages": rows}
        (ready / "root.json").write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(place, ignore_errors=True)
        ready.rename(place)
    root = cached_root(cache, names, suite)
    if root is None:
        raise LabError(f"{place} cannot be read back; see whether the disk is full")
    return root


def _deb(package: Package, mirror: Mirror, cache: Path) -> Path:
    """Return a package of the cache, fetched first where it is not there."""
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    path = debs / Path(package.filename).name
    if path.is_file():
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == package.sha256:
                return path
    mirror.fetch(package.filename, path, package.sha256, package.size)
    return path


# The archive


def _write(out: io.BufferedRandom, debs: list[tuple[str, Path]], say: Say) -> None:
    """Write the archive of some packages, the files of each as its package has them."""
    archive = CpioWriter(out)
    archive.directory(GUEST_ROOT)
    for name in ("proc", "sys", "dev", "run", "var/tmp", "etc", "root", "usr"):
        archive.directory(f"{GUEST_ROOT}/{name}", 0o700 if name == "root" else 0o755)
    archive.directory(f"{GUEST_ROOT}/tmp", 0o1777)
    for name in _MERGED:
        archive.symlink(f"{GUEST_ROOT}/{name}", f"usr/{name}")
    read: dict[str, str] = {}
    links: list[tuple[str, str]] = []
    for name, deb in debs:
        say(f"unpacking {name}")
        _package(archive, _tar(deb, "--fsys-tarfile"), read)
        links += _alternatives(_tar(deb, "--ctrl-tarfile"))
    for link, target in links:
        # The first one named counts; a link to a program that no package has is left out.
        if f"{GUEST_ROOT}/{target}" in archive and f"{GUEST_ROOT}/{link}" not in archive:
            archive.symlink(f"{GUEST_ROOT}/{link}", f"/{target}")
    passwd, group, shadow = _users(read)
    for name, text in {**_FILES, "etc/passwd": passwd, "etc/group": group}.items():
        archive.file(f"{GUEST_ROOT}/{name}", text.encode(), mtime=1)
    archive.file(f"{GUEST_ROOT}/etc/shadow", shadow.encode(), 0o600, mtime=1)
    archive.finish()


def _tar(deb: Path, what: str) -> bytes:
    done = subprocess.run(["nice", "dpkg-deb", what, str(deb)], capture_output=True, stdin=subprocess.DEVNULL,
                          check=False)
    if done.returncode:
        raise LabError(f"{deb} cannot be unpacked ({done.stderr.decode(errors='replace').strip()[:200]}); remove it "
                       "and try again")
    return done.stdout


def merged(name: str) -> str:
    """Return where a file of a package, or a user's, is with a merged /usr; empty for the links that merge it."""
    name = re.sub(r"^(\./|/+)", "", name).rstrip("/")
    first, _, rest = name.partition("/")
    if first in _MERGED:
        return f"usr/{name}" if rest else ""
    return "" if name in ("", ".") else name


def _package(archive: CpioWriter, data: bytes, read: dict[str, str]) -> None:
    """Add a package's files; texts that describe users go into ``read`` too."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = merged(member.name)
            # A name out of a package must not lead out of the root.
            if not name or ".." in name.split("/") or name.startswith(_UNREAD):
                continue
            owner, path = (member.uid, member.gid), f"{GUEST_ROOT}/{name}"
            if member.isdir():
                archive.directory(path, member.mode & 0o7777, owner)
            elif member.issym():
                archive.symlink(path, member.linkname)
            elif member.isreg() or member.islnk():
                stream = tar.extractfile(member)
                content = stream.read() if stream is not None else b""
                archive.file(path, content, member.mode & 0o7777, owner, max(int(member.mtime), 0))
                if name.startswith(("usr/lib/sysusers.d/", "usr/share/base-passwd/")):
                    read[name] = content.decode("utf-8", "replace")


def _alternatives(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the links that a package's script asks update-alternatives for, as far as it spells them out."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            if member.name.removeprefix("./") != "postinst" or not member.isreg():
                continue
            stream = tar.extractfile(member)
            text = stream.read().decode("utf-8", "replace") if stream is not None else ""
            for match in _INSTALL.finditer(text.replace("\\\n", " ")):
                link, target = (word.strip("'\"") for word in match.groups())
                if re.fullmatch(r"/[\w./+-]+", link) and re.fullmatch(r"/[\w./+-]+", target):
                    yield merged(link[1:]), merged(target[1:])


def _users(read: dict[str, str]) -> tuple[str, str, str]:
    """Return passwd, group and shadow of the users that packages want (sysusers.d), and root and nobody."""
    passwd = {row.split(":")[0]: row for row in read.get("usr/share/base-passwd/passwd.master", "").splitlines() if row}
    group = {row.split(":")[0]: row for row in read.get("usr/share/base-passwd/group.master", "").splitlines() if row}
    for name, row in (("root", "root:*:0:0:root:/root:/bin/sh"),
                      ("nobody", "nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin")):
        passwd.setdefault(name, row)
    for name, row in (("root", "root:*:0:"), ("nogroup", "nogroup:*:65534:")):
        group.setdefault(name, row)
    numbers = {int(row.split(":")[2]) for row in (*passwd.values(), *group.values())}
    free = (number for number in range(_LAST_USER, 99, -1) if number not in numbers)
    for source in sorted(name for name in read if name.endswith(".conf")):
        for line in read[source].splitlines():
            # Type, name, number, what it is, home, shell; a text with spaces is in quotes.
            words = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', line)]
            if len(words) < 2 or words[0][:1] not in ("u", "g") or not re.fullmatch(r"[\w-]+", words[1]):
                continue
            kind, name = words[0][0], words[1]
            words += ["-"] * (6 - len(words))
            number = re.match(r"[0-9]+", words[2])
            if kind == "u" and name not in passwd:
                uid = int(number[0]) if number else int(group[name].split(":")[2]) if name in group else next(free)
                what, home, shell = ("" if word == "-" else word for word in words[3:6])
                group.setdefault(name, f"{name}:*:{uid}:")
                gid = group[name].split(":")[2]
                passwd[name] = (f"{name}:*:{uid}:{gid}:{what.replace(':', ' ')}:{home or '/'}:"
                                f"{shell or '/usr/sbin/nologin'}")
            elif kind == "g" and name not in group:
                group[name] = f"{name}:*:{int(number[0]) if number else next(free)}:"
    shadow = "".join(f"{name}:*:20000:0:99999:7:::\n" for name in passwd)
    return "".join(f"{row}\n" for row in passwd.values()), "".join(f"{row}\n" for row in group.values()), shadow
