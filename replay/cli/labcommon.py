# SPDX-License-Identifier: GPL-2.0-or-later
"""What the parts of ``zreplay lab`` share: options, where kernels and tools come from, how a death is reported."""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from replay.cli.terminal import console, warn
from traces.lab.apt import SUITES, Mirror, cache_directory, find_mirror
from traces.lab.emulator import Emulator, cached_emulator, fetch_emulator
from traces.lab.errors import GuestDied, LabError
from traces.lab.initramfs import GUEST_CONTENT, GUEST_SCRIPT
from traces.lab.kernels import BootKernel, all_cached, cached, fetch, own
from traces.lab.packages import KernelPackages, is_candidate, kernels_in, pick
from traces.lab.qemu import memory_mib
from traces.lab.run import GuestJob
from traces.lab.tools import Tools, cached_tools, fetch_tools
from traces.workload.command import FOLIOS, WORKLOADS
from traces.workload.command import add_arguments as add_workload_arguments
from traces.workload.sequence import BadSequence, Sequence, load

__all__ = ["DIED", "MEMORY", "Shelf", "add_guest_options", "add_kernel_options", "add_record_options", "job_of",
           "modules_of", "new_directory", "record_words", "sequence_job", "report_death", "progress_line",
           "as_sentence"]

#: Exit status when the test box died.
DIED: Final = 5
#: MiB of memory that a guest has at least that brings BCC and trace-cmd.
_WITH_TOOLS: Final = 2048
#: MiB of memory that a guest has where nobody asks for another size.
MEMORY: Final = 1024


def add_kernel_options(parser: argparse.ArgumentParser) -> None:
    """Add which one kernel, compressor and size of folios is wanted."""
    group = parser.add_argument_group("kernel and compressor")
    group.add_argument("--kernel", required=True, metavar="K",
                       help="a line (7.2), a release, the path of a bzImage, or the directory of a lab build")
    group.add_argument("--modules", type=Path, metavar="DIR", help="modules of your own kernel: lib/modules/RELEASE, "
                                                                   "a directory above it, or a build tree")
    group.add_argument("--compressor", default="zstd", metavar="C", help="zswap's compressor (default: zstd)")
    group.add_argument("--folio", default="4k", choices=list(FOLIOS), help="size of folios (default: 4k)")


def add_record_options(parser: argparse.ArgumentParser) -> None:
    """Add the recorder's options."""
    group = parser.add_argument_group("recorder")
    group.add_argument("--backend", choices=("tracefs", "bcc"), default="tracefs",
                       help="how to record; bcc takes 270 MiB of tools into the guest: give it 2G (default: tracefs)")
    group.add_argument("--pages", metavar="MODE",
                       help="what is kept of pages: none, hash, sample:N, full (default: full for synthetic pages, "
                            "hash for a workload with --content)")


def add_guest_options(parser: argparse.ArgumentParser, workload: str = "base", memory: int = MEMORY,
                      timeout: float = 900.0) -> None:
    """Add what the guest is made of and does, with these defaults; ``memory`` in MiB, ``timeout`` in seconds."""
    group = parser.add_argument_group("guest")
    group.add_argument("--workload", default=workload or None, metavar="W", type=_workload,
                       help=f"one of {', '.join(WORKLOADS)}, with its options: \"limits --pages 4096\" "
                            f"({f'default: {workload}; ' if workload else ''}see zreplay workload --help)")
    group.add_argument("--param", action="append", default=[], type=_param, metavar="NAME=VALUE",
                       help="parameter of zswap at the start, such as shrinker_enabled=Y; may be repeated")
    group.add_argument("--module", action="append", default=[], type=_module, metavar="NAME [PARAM=VALUE ...]",
                       help="load this module too, such as \"fake_iaa fail_nth=3\"; may be repeated (a lab build's "
                            "is loaded for the compressor deflate-iaa)")
    group.add_argument("--smp", type=_cpus, metavar="N", help="CPUs (default: 1, for the workload smp 2)")
    group.add_argument("--numa", type=_nodes, metavar="N", default=1,
                       help="NUMA nodes, which share memory and CPUs evenly (default: 1)")
    group.add_argument("--memory", type=_memory, default=memory, metavar="M",
                       help=f"such as 768M or 2G (default: {memory >> 10}G)")
    group.add_argument("--timeout", type=float, default=timeout, metavar="S",
                       help=f"seconds for the guest (default: {timeout:.0f})")
    group.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto",
                       help="auto takes KVM where it works (default)")
    group.add_argument("--mirror", metavar="URL", help="Debian mirror (default: the one apt uses)")


class _Words(argparse.ArgumentParser):
    """A parser of a part of an argument: what is wrong there is wrong with the argument."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentTypeError(message)


def _workload(text: str) -> tuple[str, ...]:
    """Return the words of a workload: what the guest's would refuse is refused before anything boots."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"'{text}' cannot be split into words ({problem})") from None
    if not words or words[0] not in WORKLOADS:
        raise argparse.ArgumentTypeError(f"'{text}' does not begin with one of {', '.join(WORKLOADS)}")
    parser = _Words(add_help=False)
    add_workload_arguments(parser)
    parsed = parser.parse_args(words)
    if (parsed.script is None) == (words[0] == "script"):
        raise argparse.ArgumentTypeError("the workload script, and no other, needs --script FILE")
    if parsed.script is not None:
        try:
            load(parsed.script)
        except BadSequence as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None
    return words


def _memory(text: str) -> int:
    try:
        return memory_mib(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def _cpus(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of CPUs from 1 to 64")
    return int(text)


def _nodes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 8:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of NUMA nodes from 1 to 8")
    return int(text)


def _module(text: str) -> str:
    # The guest's shell puts the words after insmod.
    name, *words = text.split() or [""]
    name = name.removesuffix(".ko")
    if not re.fullmatch(r"[\w-]+", name) or not all(re.fullmatch(r"\w+=[\w.,:/-]+", word) for word in words):
        raise argparse.ArgumentTypeError(f"'{text}' is not the name of a module with parameters, NAME=VALUE")
    return " ".join((name, *words))


def modules_of(arguments: argparse.Namespace, kernel: BootKernel, compressor: str) -> tuple[str, ...]:
    """Return the modules that a guest loads in addition to the lab's own."""
    asked = tuple(getattr(arguments, "module", ()))
    if getattr(arguments, "iaa", None) is not None:
        # Both register deflate-iaa.
        return asked
    if compressor == "deflate-iaa" and kernel.built is not None and not any(text.split()[0] == "fake_iaa"
                                                                           for text in asked):
        return (*asked, "fake_iaa")
    return asked


def _param(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(\w+)=(\S+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return match[1], match[2]


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is being done: a line that changes on a terminal, nothing elsewhere."""
    terminal = console()
    if terminal is None:
        yield lambda text: None
        return
    began = time.monotonic()
    with terminal.status("") as status:
        yield lambda text: status.update(f"{text} ({time.monotonic() - began:.0f} s)")


@dataclass
class Shelf:
    """Where kernels come from; the indexes are read once, and only when they are needed."""

    mirror: str | None
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._found: list[KernelPackages] | None = None
        self._from: Mirror | None = None
        #: What was already said to be which kernel.
        self._named: set[str] = set()

    def all(self) -> list[KernelPackages]:
        """Return every kernel of the suites."""
        if self._found is None:
            mirror = self.mirror_of_packages()
            self._found = kernels_in(mirror.packages())
            for note in mirror.notes:
                warn(note)
            if not self._found:
                raise LabError(f"no suite of {mirror.uri} has a kernel ({', '.join(SUITES)}); name another mirror with "
                               "--mirror")
        return self._found

    def get(self, wanted: str, modules: Path | None) -> BootKernel:
        """Return the kernel that a user named.

        :raises LabError: when there is none
        """
        if "/" in wanted or Path(wanted).is_file() or (Path(wanted) / "bzImage").is_file():
            return own(Path(wanted), modules)
        if modules is not None:
            raise LabError("--modules goes with a bzImage; leave it out: a distribution's kernel brings its own")
        have = cached(cache_directory(), wanted)
        if have is not None:
            return have
        try:
            return self._newest(wanted)
        except LabError as problem:
            # Off line, or where a suite has it no more, what was fetched before is still there.
            choice = pick(all_cached(cache_directory()), wanted)
            have = cached(cache_directory(), choice.release) if choice is not None else None
            if have is None:
                raise
            warn(f"kernel {wanted} is {have.release}, the newest of the cache: {problem}")
            return have

    def _newest(self, wanted: str) -> BootKernel:
        choice = pick(self.all(), wanted)
        if choice is None:
            raise LabError(f"no suite has a kernel {wanted}; see what there is with 'zreplay lab kernels'")
        if wanted not in self._named:
            self._named.add(wanted)
            what = ", a release candidate: no suite has a release" if is_candidate(choice.version) else ""
            warn(f"kernel {wanted} is {choice.release}{what} (Debian {choice.suite}, {choice.version})")
        return fetch(choice, self.mirror_of_packages(), cache_directory(), self.say)

    def tools(self) -> Tools:
        """Return BCC and trace-cmd for the guest.

        :raises LabError: when they cannot be had
        """
        have = cached_tools(cache_directory())
        return have if have is not None else fetch_tools(self.mirror_of_packages(), cache_directory(), self.say)

    def emulator(self) -> Emulator:
        """Return the lab's own QEMU.

        :raises LabError: when it cannot be had
        """
        have = cached_emulator(cache_directory())
        return have if have is not None else fetch_emulator(self.mirror_of_packages(), cache_directory(), self.say)

    def mirror_of_packages(self) -> Mirror:
        """Return Debian's mirror.

        :raises LabError: when there is none
        """
        if self._from is None:
            self._from = find_mirror(self.mirror, cache_directory(), self.say)
        return self._from


def record_words(arguments: argparse.Namespace, pages: str, *more: str) -> tuple[str, ...]:
    """Return the recorder's arguments: what to keep of pages, the back end, compressors that will be switched to."""
    backend = getattr(arguments, "backend", "tracefs")
    words = ("--pages", pages, *(() if backend == "tracefs" else ("--backend", backend)))
    return (*words, *(word for name in more for word in ("--compressor", name)))


def sequence_job(sequence: Sequence, kernel: BootKernel, arguments: argparse.Namespace, tools: Tools | None,
                 pages: str = "full") -> GuestJob:
    """Return the job that carries a sequence out in a guest of the kind it starts from.

    :param arguments: what else of the guest the user chose: ``timeout``, ``accel``, perhaps ``backend`` and ``iaa``
    :raises LabError: when it is to have devices and the sequence names another compressor
    """
    compressor, words = sequence.compressor, ["script", "--script", GUEST_SCRIPT]
    if getattr(arguments, "iaa", None) is not None:
        if "compressor" in sequence.start:
            raise LabError(f"the sequence starts with {compressor}, and --iaa with {arguments.compressor}; leave the "
                           "sequence's compressor out, or --iaa")
        compressor = arguments.compressor
        # It would write its default.
        words += ["--compressor", compressor]
    record = record_words(arguments, pages, *sequence.compressors[1:])
    # BCC and its compiler are held in the guest's memory.
    memory = sequence.memory if tools is None else max(sequence.memory, _WITH_TOOLS)
    return GuestJob(kernel, compressor, tuple(words), record, sequence.params, memory,
                    sequence.cpus, arguments.timeout, arguments.accel, tools=tools, script=sequence.text(),
                    modules=modules_of(arguments, kernel, compressor), nodes=getattr(arguments, "numa", 1))


def job_of(arguments: argparse.Namespace, kernel: BootKernel, compressor: str, folio: str,
           tools: Tools | None) -> GuestJob:
    """Return the job that the options ask for; a sequence brings its own compressor, parameters, memory and CPUs."""
    words = arguments.workload or ("base",)
    # However it is spelt: --content=PATH, --conte PATH.
    parser = _Words(add_help=False)
    parser.add_argument("--content", type=Path)
    parser.add_argument("--folio", default=folio)
    parser.add_argument("--script", type=Path)
    own_words, workload = parser.parse_known_args(words)
    if own_words.script is not None:
        return sequence_job(load(own_words.script), kernel, arguments, tools,
                            getattr(arguments, "pages", None) or "full")
    content = own_words.content
    workload += ["--folio", own_words.folio, *(() if content is None else ("--content", GUEST_CONTENT))]
    pages = getattr(arguments, "pages", None) or ("full" if content is None else "hash")
    other = "lz4" if compressor != "lz4" else "zstd"
    record = record_words(arguments, pages, *((other,) if words[0] == "switch" else ()))
    return GuestJob(kernel, compressor, tuple(workload), record, dict(arguments.param), arguments.memory or MEMORY,
                    arguments.smp or (2 if words[0] == "smp" else 1), arguments.timeout, arguments.accel, content,
                    tools, modules=modules_of(arguments, kernel, compressor), nodes=arguments.numa)


def as_sentence(part: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Let a part of the lab end with a sentence and its status where it cannot begin, or its guest dies."""
    @functools.wraps(part)
    def run(arguments: argparse.Namespace) -> int:
        try:
            return part(arguments)
        except LabError as problem:
            warn(f"{problem}.")
            return 2
        except GuestDied as death:
            return report_death(death)

    return run


def new_directory(path: Path) -> Path:
    """Return a path that nothing is at.

    :raises LabError: when something is
    """
    if os.path.lexists(path):
        raise LabError(f"{path} exists already; remove it or choose another name")
    return path


def report_death(death: GuestDied) -> int:
    """Print what is known of a guest's death; returns the exit status."""
    if death.console:
        print(death.console, file=sys.stderr)
    warn(f"{death.what}.")
    if death.kept:
        warn(f"{death.kept}.")
    return DIED
