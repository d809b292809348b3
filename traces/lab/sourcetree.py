# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's source tree in which patches are applied and taken back: only files whose content changes are written.

A patch is first applied to copies of the files that it names, next to the tree; the tree gets them when all of a series
has applied.  What a file was before the first patch is kept in ``originals``, so that the next series begins from it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from traces.lab.errors import LabError
from traces.lab.series import Hunk, Patch, hunks

__all__ = ["SourceTree", "does_not_apply"]

#: What a tarball may unpack to, bytes and files: Linux 7.3 has 1.7 GB in 95,000.
_MOST_BYTES: Final = 8 << 30
_MOST_FILES: Final = 1_000_000
_TOUCHED: Final = "touched.json"
#: Lines of a file in which a hunk's place is looked for; letters of a line that a sentence shows.
_MOST_LINES: Final = 1 << 17
_SHOWN: Final = 60
#: Lines of a hunk that are looked for, and how often one may occur in the file.
_MOST_OF_HUNK: Final = 4096
_RARE: Final = 64

Say = Callable[[str], None]


class SourceTree:
    """A tree of sources at ``place/tree``, with what patches changed in it kept in ``place/originals``.

    :param place: a directory of this build alone
    :param say: called with a sentence on what is being done
    """

    def __init__(self, place: Path, say: Say) -> None:
        self.root = place / "tree"
        self._originals = place / "originals"
        self._say = say

    def unpack(self, tarball: Path) -> None:
        """Unpack a tarball with one directory in it as the tree, which must not be there yet.

        :raises LabError: when it is none, or names files outside of itself
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root.parent, prefix=".unpacking.") as scratch:
            try:
                with tarfile.open(tarball) as archive:
                    self._extract(archive, Path(scratch), tarball)
            except (tarfile.TarError, OSError, EOFError) as problem:
                raise LabError(f"{tarball} cannot be unpacked ({problem}); fetch it again, and see that the disk "
                               "has room for 4 GB") from None
            inside = list(Path(scratch).iterdir())
            if len(inside) != 1 or not (inside[0] / "Kbuild").is_file():
                raise LabError(f"{tarball} is not one directory with a kernel's source; name a linux-source package "
                               "or a kernel.org tarball with --source")
            inside[0].rename(self.root)

    def _extract(self, archive: tarfile.TarFile, to: Path, tarball: Path) -> None:
        size = count = 0
        for member in archive:
            size, count = size + member.size, count + 1
            if size > _MOST_BYTES or count > _MOST_FILES:
                raise LabError(f"{tarball} unpacks to more than a kernel's source; name another with --source")
            # The filter refuses names and links that lead out of the directory, and devices.
            archive.extract(member, to, filter="data")
            if count % 1000 == 0:
                self._say(f"unpacking {tarball.name}: {count:,} files")

    # Patches

    def apply(self, patches: Iterable[Patch], source: str) -> list[str]:
        """Make the tree its original with these patches applied, in this order; returns the files that were written.

        :param source: what the tree is of, for a sentence
        :raises LabError: when one does not apply; the tree is as it was then
        """
        patches = list(patches)
        touched = self._touched()
        names = sorted({name for patch in patches for name in patch.files} | set(touched))
        for name in names:
            self._check(name)
        with tempfile.TemporaryDirectory(dir=self.root.parent, prefix=".applying.") as scratch:
            staged = Path(scratch, "staged")
            staged.mkdir()
            for name in names:
                original = self._original(name, touched)
                if original is not None:
                    _copy(original, staged / name)
            for number, patch in enumerate(patches):
                self._say(f"applying patch {number + 1} of {len(patches)}")
                _git_apply(patch, staged, source)
            return self._take(staged, names, touched)

    def _check(self, name: str) -> None:
        """See that a name is that of a plain file of the tree, or could be.

        :raises LabError: when it is not
        """
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise LabError(f"'{name}' is outside of the source tree; leave out the patch that names it")
        for upto in range(1, len(parts) + 1):
            path = self.root.joinpath(*parts[:upto])
            if path.is_symlink() or (path.exists() and path.is_dir() == (upto == len(parts))):
                raise LabError(f"a patch names {name}, and {path.relative_to(self.root)} is not a "
                               f"{'file' if upto == len(parts) else 'directory'} there; patch the file itself")

    def _touched(self) -> dict[str, bool]:
        """Return name -> whether the original tree has it, of all files that a patch was ever applied to."""
        try:
            rows = json.loads((self._originals / _TOUCHED).read_text())
            return {str(name): bool(there) for name, there in rows.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError):
            raise LabError(f"{self._originals / _TOUCHED} cannot be read; remove {self.root.parent} and build "
                           "anew") from None

    def _original(self, name: str, touched: dict[str, bool]) -> Path | None:
        if name in touched:
            return self._originals / "files" / name if touched[name] else None
        path = self.root / name
        return path if path.is_file() else None

    def _take(self, staged: Path, names: list[str], touched: dict[str, bool]) -> list[str]:
        """Give the tree the staged files, where they differ from what it has."""
        changed = [name for name in names if not _same(staged / name, self.root / name)]
        for name in changed:
            if name not in touched:
                there = (self.root / name).is_file()
                if there:
                    _copy(self.root / name, self._originals / "files" / name)
                touched[name] = there
        if changed:
            # Before the tree is written: a build that is interrupted there begins from the originals again.
            self._originals.mkdir(exist_ok=True)
            record = self._originals / f"{_TOUCHED}.new"
            record.write_text(json.dumps(touched, indent=1))
            record.replace(self._originals / _TOUCHED)
        for name in changed:
            target = self.root / name
            if (staged / name).is_file():
                _copy(staged / name, target)
            else:
                target.unlink(missing_ok=True)
        return changed


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its mode, whole or not at all, with today's date: make goes by it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.chmod(stat.S_IMODE(source.stat().st_mode))
    part.replace(target)


def _same(one: Path, other: Path) -> bool:
    if not one.is_file() or not other.is_file():
        return one.is_file() == other.is_file()
    return one.read_bytes() == other.read_bytes() and (one.stat().st_mode ^ other.stat().st_mode) & stat.S_IXUSR == 0


def _git_apply(patch: Patch, staged: Path, source: str) -> None:
    """Apply a patch to a directory of files.

    :raises LabError: when it does not apply
    """
    # No repository around the directory, and no user's settings, may change what it does.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CEILING_DIRECTORIES": str(staged.resolve().parent), "GIT_CONFIG_GLOBAL": os.devnull,
                    "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    try:
        done = subprocess.run(["git", "apply", "-p1", "--whitespace=nowarn", "-"], cwd=staged, input=patch.text,
                              env=environment, capture_output=True, check=False)
    except FileNotFoundError:
        raise LabError("git is missing, which applies the patches; apt install git") from None
    if done.returncode:
        raise LabError(does_not_apply(patch, done.stderr.decode("utf-8", "replace"), source, staged))


def does_not_apply(patch: Patch, complaint: str, source: str, tree: Path | None = None) -> str:
    """Return why git apply refused a patch, as a sentence without its stop.

    :param tree: of the files that it refused to change
    """
    rest = f"; rebase the series on {source}, or name the source it was made for with --source"
    failed = re.search(r"^error: patch failed: (.+):(\d+)$", complaint, re.M)
    if failed is not None:
        name, line = failed[1], int(failed[2])
        of_file = [hunk for hunk in hunks(patch) if hunk.name == name]
        hunk = next((hunk for hunk in of_file if hunk.line == line), None)
        where = f"at line {line}" if hunk is None else f"hunk {hunk.number} of {len(of_file)} ({hunk.header})"
        instead = "" if hunk is None or tree is None else _instead(hunk, tree / name)
        return f"{patch.title()} does not apply to {name}: {where} does not fit{instead}{rest}"
    missing = re.search(r"^error: (.+): No such file or directory$", complaint, re.M)
    if missing is not None:
        return f"{patch.title()} does not apply: {source} has no {missing[1]}{rest}"
    there = re.search(r"^error: (.+): already exists in working directory$", complaint, re.M)
    if there is not None:
        return f"{patch.title()} does not apply: it makes {there[1]}, which {source} has already{rest}"
    damaged = re.search(r"^error: (corrupt patch .*|patch fragment without header .*|git diff header .*)$", complaint,
                        re.M)
    if damaged is not None:
        return f"{patch.title()} was damaged on its way ({damaged[1]}); get the series again, as the list has it"
    said = " ".join(complaint.split())[:200] or "git apply gave no reason"
    return f"{patch.title()} does not apply ({said}){rest}"


def _instead(hunk: Hunk, path: Path) -> str:
    """Return what stands in a file in place of what a hunk expects, to add to a sentence.

    Looked for where most of the hunk's lines are, in their order; ``""`` where none is.
    """
    try:
        there = path.read_bytes().removesuffix(b"\n").split(b"\n")[:_MOST_LINES]
    except OSError:
        return ""
    wanted = hunk.old
    of: dict[bytes, list[int]] = {}
    for at, line in enumerate(there):
        of.setdefault(line, []).append(at)
    # Where the hunk would begin, by the lines that occur: blank ones, and those that are everywhere, say nothing.
    begins = Counter(at - k for k, line in enumerate(wanted[:_MOST_OF_HUNK]) if line.strip()
                     for at in of.get(line, ()) if len(of[line]) <= _RARE)
    if not begins:
        return ""
    most = max(begins.values())
    begin = min((at for at, count in begins.items() if count == most), key=lambda at: abs(at - hunk.line))
    for k, line in enumerate(wanted):
        at = begin + k
        found = there[at] if 0 <= at < len(there) else None
        if found != line:
            what = "the file ends" if found is None else f"line {at + 1} there is '{_shown(found)}'"
            return f": where it has '{_shown(line)}', {what}"
    return ""


def _shown(line: bytes) -> str:
    """Return a line of a source for a sentence, whatever bytes it has."""
    text = line.decode("utf-8", "replace").strip()
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_SHOWN]) + "..." * (len(text) > _SHOWN)
