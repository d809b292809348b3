# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay lab build``: a small kernel for the lab out of a distribution's source and a mailbox of patches."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from replay.cli.labcommon import Shelf, as_sentence, progress_line
from replay.cli.terminal import warn
from traces.lab.apt import cache_directory
from traces.lab.errors import LabError
from traces.lab.kbuild import FRAGMENT, Build, check_needs, options_of
from traces.lab.qemu import ending_on_signals
from traces.lab.series import Patch, read_series
from traces.lab.sources import Source, cached_source, fetch_source, local_source, tarball_of
from traces.lab.sourcetree import SourceTree

__all__ = ["add_build"]

#: What is written into a directory of a build first: from which source its tree is.
_SOURCE: Final = "source.json"

_EPILOG = """examples:
  zreplay lab build --source linux-source-7.2 -o k72/
  zreplay lab build --source linux-source-7.2 --patches series.mbox -o k72/
  zreplay lab build --source linux-6.19.8.tar.xz --set CONFIG_ZSMALLOC_CHAIN_SIZE=16 -o k619/
  zreplay lab run --kernel k72/ --compressor lz4 -o run.zr

A kernel's build runs its Makefiles, and those that the patches change: a series can do here what you can. Build as an
ordinary user, in a sandbox where you do not know the sender. See docs/lab-build.md.
"""


def add_build(parts: Any) -> None:
    """Add the part."""
    parser = parts.add_parser("build", help="build a small kernel for the lab, with a series of patches",
                              epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, metavar="S",
                        help="linux-source-7.2 (the newest of Debian's suites), linux-source-6.19=VERSION, or the path "
                             "of such a package or of a kernel.org tarball")
    parser.add_argument("--patches", type=Path, action="append", default=[], metavar="MBOX",
                        help="mailbox with a series, [PATCH i/m]; what a series stands on has its own --patches before "
                             "it. Without any the tree is the source's own again")
    parser.add_argument("--set", action="append", default=[], metavar="CONFIG_X=V", dest="options",
                        help="option of the kernel's configuration; may be repeated")
    parser.add_argument("--config", type=Path, metavar="FILE", help="options, a line each, over those of the lab")
    parser.add_argument("--jobs", "-j", type=_jobs, default=os.cpu_count() or 1, metavar="N",
                        help="compilers at a time (default: this machine's CPUs)")
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror (default: the one apt uses)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="directory for the build; one of the same source is built on: only what changed")
    parser.set_defaults(run=build)


def _jobs(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of compilers")
    return int(text)


@as_sentence
def build(arguments: argparse.Namespace) -> int:
    """Build a kernel."""
    place: Path = arguments.output
    wanted, named = _options(arguments)
    patches = [patch for mailbox in arguments.patches for patch in read_series(mailbox)]
    check_needs()
    with progress_line() as say, ending_on_signals(), contextlib.ExitStack() as held:
        held.enter_context(_alone(place))
        source, tree = _tree(arguments, place, say)
        changed = tree.apply(patches, source["title"])
        builder = Build(place, tree.root, arguments.jobs, say)
        builder.configure(wanted, named)
        builder.make()
        facts = builder.finish(source["facts"], patches)
    print(f"{place}: {facts['release']} of {source['title']}{_with(patches)}, {len(changed)} source files changed for "
          f"this build; boot it with: zreplay lab run --kernel {place} -o run.zr")
    return 0


def _with(patches: list[Patch]) -> str:
    return f" with {len(patches)} patch{'es' if len(patches) != 1 else ''}" if patches else ""


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep other builds out of a directory, which is made: two makes at a time spoil each other's objects."""
    if place.exists() and not place.is_dir():
        raise LabError(f"{place} exists and is not a build of this program; choose another directory with -o")
    made = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"another build is running in {place}; wait for it, or choose another directory with "
                           "-o") from None
        yield
    finally:
        os.close(handle)
        if made and not any(place.iterdir()):
            place.rmdir()


def _options(arguments: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """Return the configuration that is asked for, and which of its options the user named."""
    own = ""
    if arguments.config is not None:
        try:
            own = arguments.config.read_text()
        except (OSError, UnicodeDecodeError) as problem:
            raise LabError(f"{arguments.config} cannot be read ({problem}); name a text of CONFIG_NAME=VALUE "
                           "lines") from None
    named = options_of([own, "\n".join(arguments.options)])
    return options_of([FRAGMENT.read_text()]) | named, list(named)


def _tree(arguments: argparse.Namespace, place: Path, say: Callable[[str], None]) -> tuple[dict[str, Any], SourceTree]:
    """Return what a build's directory was made of, and its tree: unpacked first where it is not there.

    :raises LabError: when the directory is something else's, or another source's
    """
    tree = SourceTree(place, say)
    note = place / _SOURCE
    if tree.root.is_dir():
        try:
            have = json.loads(note.read_text())
            if arguments.source in (have["wanted"], have["facts"]["name"]):
                return have, tree
        except (OSError, ValueError, KeyError, TypeError):
            raise LabError(f"{place} has a tree of unknown source; choose another directory with -o") from None
        raise LabError(f"{place} has the tree of {have['title']}; choose another directory with -o for "
                       f"{arguments.source}")
    if place.exists() and (not place.is_dir() or any(path.name != _SOURCE and path.name[0] != "."
                                                      for path in place.iterdir())):
        raise LabError(f"{place} exists and is not a build of this program; choose another directory with -o")
    source = _source(arguments, say)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".package.") as scratch:
        tarball = tarball_of(source, Path(scratch), say)
        have = {"wanted": arguments.source, "title": source.title(), "facts": source.facts()}
        note.write_text(json.dumps(have, indent=1) + "\n")
        tree.unpack(tarball)
    return have, tree


def _source(arguments: argparse.Namespace, say: Callable[[str], None]) -> Source:
    path = Path(arguments.source)
    if "/" in arguments.source or path.is_file():
        return local_source(path)
    try:
        mirror = Shelf(arguments.mirror, say).mirror_of_packages()
        source = fetch_source(arguments.source, mirror, cache_directory(), say)
    except LabError as problem:
        # Off line, or where a suite has it no more, what was fetched before is still there.
        have = cached_source(arguments.source, cache_directory())
        if have is None:
            raise
        warn(f"source {arguments.source} is {have.title()}, the newest of the cache: {problem}")
        return have
    for note in mirror.notes:
        warn(note)
    return source
