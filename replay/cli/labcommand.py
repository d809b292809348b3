# SPDX-License-Identifier: GPL-2.0-or-later
"""A command of the user's own in the lab: its options, its job, what is shown of it."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any, Final

from replay.cli.labcommon import MEMORY, Shelf, modules_of, record_words
from replay.cli.terminal import warn
from traces.lab.apt import SUITES, cache_directory
from traces.lab.errors import LabError
from traces.lab.initramfs import WORK
from traces.lab.kernels import BootKernel
from traces.lab.qemu import memory_mib
from traces.lab.roots import SUITE, Root, cached_root, make_root
from traces.lab.run import Foreign, GuestJob

__all__ = ["add_command_options", "check", "command_job", "root_of", "show"]

#: Those that every distribution's kernel has.
_COMPRESSORS: Final = ("lz4", "lz4hc", "lzo", "lzo-rle", "zstd", "deflate")
#: Lines of each stream that are shown.
_SHOWN: Final = 40
#: Directories of the guest that something is mounted over: files there would not be seen.
_COVERED: Final = ("dev", "proc", "run", "sys", "tmp")
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def add_command_options(parser: argparse.ArgumentParser) -> None:
    """Add what belongs to a user's command."""
    group = parser.add_argument_group(
        "command", "A command of yours instead of the workload, as root, in a Debian system of the packages that you "
                   f"name and those that are essential. It runs in {WORK}, in a cgroup of its own.")
    group.add_argument("--package", action="append", default=[], type=_package, metavar="NAME",
                       help="a package of the suite, unpacked with all it depends on; may be repeated")
    group.add_argument("--suite", choices=SUITES, default=SUITE, help=f"whose packages (default: {SUITE})")
    group.add_argument("--file", action="append", default=[], type=_file, metavar="PATH[:GUESTPATH]",
                       help=f"a file or directory to take along (default: to {WORK}, under its own name); may be "
                            "repeated")
    group.add_argument("--cgroup", action="append", default=[], type=_setting, metavar="FILE=VALUE",
                       help="what the command's cgroup is given before the recording, such as memory.max=64M; may be "
                            "repeated")
    group.add_argument("--time", type=_seconds, metavar="S",
                       help="seconds that the command may take before it is stopped; what it did is recorded all the "
                            "same (default: two thirds of --timeout)")
    group.add_argument("--swap", type=_swap, metavar="SIZE", help="of the guest's swap disk (default: 4G)")
    group.add_argument("--systemd", action="store_true",
                       help="systemd is the guest's first process, so that systemd-run works in the command")
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="what to run, after --")


def _package(text: str) -> str:
    # Debian's policy, 5.6.1.
    if not _PACKAGE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not the name of a package")
    return text


def _file(text: str) -> tuple[Path, str]:
    """Return where a file is here and in the guest."""
    here, colon, there = text.partition(":")
    path = Path(here)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no file '{here}'")
    if colon and not there:
        raise argparse.ArgumentTypeError(f"'{text}' names no place in the guest after the colon")
    name = path.resolve().name if path.name in ("", "..") else path.name
    if not there or there.endswith("/"):
        there += name
    if not there.startswith("/"):
        there = f"{WORK}/{there}"
    parts = [part for part in there.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise argparse.ArgumentTypeError(f"'{there}' is not a place in the guest")
    if parts[0] in _COVERED:
        raise argparse.ArgumentTypeError(f"'{there}' would not be seen in the guest, which mounts something over "
                                         f"/{parts[0]}; choose another place")
    return path, "/" + "/".join(parts)


def _setting(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+)=(.+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not FILE=VALUE of a cgroup, such as memory.max=64M")
    return match[1], match[2]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return value


def _swap(text: str) -> int:
    try:
        return memory_mib(text) << 20
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def check(arguments: argparse.Namespace) -> None:
    """See that the options fit each other.

    :raises LabError: when they do not
    """
    given = [f"--{name}" for name in ("package", "file", "cgroup", "time", "systemd") if getattr(arguments, name)]
    if not arguments.command:
        if given:
            raise LabError(f"{given[0]} goes with a command of yours; name one after --")
        return
    if arguments.workload is not None:
        raise LabError("--workload and a command both say what is to run; leave one out")
    if arguments.backend != "tracefs":
        raise LabError("a command is recorded with --backend tracefs; leave the other out")
    if arguments.folio != "4k":
        raise LabError("--folio is of the workload; leave it out: a command asks for large folios itself")


def command_job(arguments: argparse.Namespace, kernel: BootKernel, shelf: Shelf) -> GuestJob:
    """Return the job that runs a user's command.

    :raises LabError: when its packages cannot be had
    """
    names = [*arguments.package, *(("systemd", "dbus") if arguments.systemd else ())]
    root = root_of(names, arguments.suite, shelf)
    seconds = arguments.time or arguments.timeout * 2 / 3
    foreign = Foreign(tuple(arguments.command), root, tuple(arguments.file), dict(arguments.cgroup), seconds,
                      arguments.systemd)
    memory = arguments.memory or MEMORY + (2 * root.size >> 20)
    # The command may switch to any of them, and their modules are loaded.
    others = [name for name in _COMPRESSORS if name != arguments.compressor]
    job = GuestJob(kernel, arguments.compressor, (), record_words(arguments, arguments.pages or "hash", *others),
                   dict(arguments.param), memory, arguments.smp or 1, arguments.timeout, arguments.accel,
                   modules=modules_of(arguments, kernel, arguments.compressor), nodes=arguments.numa, foreign=foreign)
    return job if arguments.swap is None else dataclasses.replace(job, swap=arguments.swap)


def root_of(names: list[str], suite: str, shelf: Shelf) -> Root:
    """Return a root of packages: what the suite has today, or, off line, what the cache has.

    :raises LabError: when neither has it
    """
    try:
        return make_root(names, suite, shelf.mirror_of_packages(), cache_directory(), shelf.say)
    except LabError as problem:
        have = cached_root(cache_directory(), names, suite)
        if have is None:
            raise
        warn(f"the packages are those of the cache: {problem}")
        return have


def show(command: dict[str, Any]) -> int:
    """Show what a command said and how it ended; returns the exit status of the lab."""
    for name, to in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        lines = command[name].splitlines()
        if not lines:
            continue
        more = f", its last {_SHOWN} lines of {len(lines):,}; all are in the recording" if len(lines) > _SHOWN else ""
        print(f"the command's {name}{more}:", file=to)
        for line in lines[-_SHOWN:]:
            # Not what a terminal would obey.
            print("  " + "".join(sign if sign.isprintable() or sign == "\t" else "?" for sign in line), file=to)
    status, words = command["status"], " ".join(command["words"])
    if status == 0:
        print(f"  the command ended well after {command['seconds']:.1f} s")
        return 0
    if status is None:
        warn("how the command ended is not known")
    elif command.get("problem"):
        warn(f"{command['problem']}; see its name, and name its package with --package")
    elif command.get("timed_out"):
        warn(f"the command was stopped after {command['seconds']:.0f} s; give it more with --time: {words}")
    elif command.get("signal"):
        warn(f"the command was ended by signal {command['signal']} after {command['seconds']:.1f} s: {words}")
    else:
        warn(f"the command failed with status {status} after {command['seconds']:.1f} s: {words}")
    return 1
