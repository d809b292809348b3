# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay lab``: a virtual test box. Boots kernels in QEMU and records what zswap does in them."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from rich.console import Console

from replay.cli.terminal import table, warn
from replay.verdict import replay
from traces.errors import BadInput
from traces.lab.apt import cache_directory, find_mirror
from traces.lab.errors import GuestDied, LabError
from traces.lab.initramfs import GUEST_CONTENT
from traces.lab.kernels import Kernel, cached, fetch, own
from traces.lab.packages import KernelPackages, kernels_in, pick
from traces.lab.qemu import memory_mib
from traces.lab.run import Job, Outcome
from traces.lab.run import run as run_job
from traces.recording import Recording
from traces.workload.command import FOLIOS
from traces.workload.command import add_arguments as add_workload_arguments
from traces.workload.scenarios import SCENARIOS

__all__ = ["add_parser"]

#: Exit status when the test box died.
_DIED: Final = 5
#: Kernel lines of a matrix that names none: those with a revision of their own.
_LINES: Final = ("6.12", "6.18", "7.0", "7.1", "7.2", "7.3")

_EPILOG = """examples:
  zreplay lab run --kernel 7.2 --compressor zstd --folio 64k -o run.zr
  zreplay lab run --kernel 7.3 --workload "limits --pages 4096" --memory 1G -o run.zr
  zreplay lab run --kernel arch/x86/boot/bzImage --modules . -o patched.zr
  zreplay lab matrix --kernel 7.2 --kernel 7.3 --compressor zstd --compressor lz4 -o runs/

Needs QEMU, busybox and, for distribution kernels, apt: apt install qemu-system-x86 busybox-static
Exit status: 0 recorded (matrix: all PASS), 1 FAIL or the workload read back wrong pages, 2 wrong use,
3 UNDECIDED, 5 the guest died.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb with its three parts."""
    parser = verbs.add_parser(
        "lab", help="boot a kernel in QEMU and record a workload in it", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A virtual test box: fetches a distribution's kernel by name, or takes your own, boots it in "
                    "QEMU, runs the workload under the recorder and brings the recording out.")
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)

    one = parts.add_parser("run", help="one kernel, one workload, one recording", epilog=_EPILOG,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--kernel", required=True, metavar="K", help="a line (7.2), a release, or the path of a bzImage")
    one.add_argument("--modules", type=Path, metavar="DIR", help="modules of your own kernel: lib/modules/RELEASE, "
                                                                 "a directory above it, or a build tree")
    one.add_argument("--compressor", default="zstd", metavar="C", help="zswap's compressor (default: zstd)")
    one.add_argument("--folio", default="4k", choices=list(FOLIOS), help="size of folios (default: 4k)")
    one.add_argument("-o", "--output", required=True, metavar="REC", help="recording to make; must not exist")
    _common(one)
    one.set_defaults(run=run)

    listing = parts.add_parser("kernels", help="list the kernels that can be had")
    listing.add_argument("--mirror", metavar="URL", help="Debian mirror (default: the one apt uses)")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=kernels)

    many = parts.add_parser("matrix", help="many kernels, compressors and folio sizes; replays each", epilog=_EPILOG,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    many.add_argument("--kernel", action="append", metavar="K", help=f"as for run; may be repeated (default: "
                                                                     f"{', '.join(_LINES)})")
    many.add_argument("--compressor", action="append", metavar="C", help="may be repeated (default: zstd, lz4)")
    many.add_argument("--folio", action="append", choices=list(FOLIOS), help="may be repeated (default: 4k)")
    many.add_argument("-o", "--output", required=True, metavar="DIR", help="directory for the recordings")
    _common(many)
    many.set_defaults(run=matrix, modules=None)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workload", default="base", metavar="W", type=_workload,
                        help=f"one of {', '.join(SCENARIOS)}, with its options: \"limits --pages 4096\" "
                             "(default: base; see zreplay workload --help)")
    parser.add_argument("--pages", metavar="MODE",
                        help="what is kept of pages: none, hash, sample:N, full (default: full where they are made up, "
                             "hash for a workload with --content)")
    parser.add_argument("--param", action="append", default=[], type=_param, metavar="NAME=VALUE",
                        help="parameter of zswap at the start, such as shrinker_enabled=Y; may be repeated")
    parser.add_argument("--smp", type=_cpus, metavar="N", help="CPUs (default: 1, for the workload smp 2)")
    parser.add_argument("--memory", type=_memory, default=1024, metavar="M", help="such as 768M or 2G (default: 1G)")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="S",
                        help="seconds for the guest (default: 900)")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto",
                        help="auto takes KVM where it works (default)")
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror (default: the one apt uses)")


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
    if not words or words[0] not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"'{text}' does not begin with one of {', '.join(SCENARIOS)}")
    parser = _Words(add_help=False)
    add_workload_arguments(parser)
    parser.parse_args(words)
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


def _param(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(\w+)=(\S+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return match[1], match[2]


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """Give a function that tells what is being done: a line that changes on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    began = time.monotonic()
    with console.status("") as status:
        yield lambda text: status.update(f"{text} ({time.monotonic() - began:.0f} s)")


@dataclass
class _Shelf:
    """Where kernels come from; the indexes are read once, and only when they are needed."""

    mirror: str | None
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._found: tuple[Any, list[KernelPackages]] | None = None

    def all(self) -> list[KernelPackages]:
        """Return every kernel of the suites."""
        if self._found is None:
            mirror = find_mirror(self.mirror, cache_directory(), self.say)
            self._found = (mirror, kernels_in(mirror.packages()))
            for note in mirror.notes:
                warn(note)
        return self._found[1]

    def get(self, wanted: str, modules: Path | None) -> Kernel:
        """Return the kernel that a user named.

        :raises LabError: when there is none
        """
        if "/" in wanted or Path(wanted).is_file():
            return own(Path(wanted), modules)
        if modules is not None:
            raise LabError("--modules goes with a bzImage; a distribution's kernel brings its own")
        have = cached(cache_directory(), wanted)
        if have is not None:
            return have
        choice = pick(self.all(), wanted)
        if choice is None:
            raise LabError(f"no suite has a kernel {wanted}; zreplay lab kernels lists what there is")
        assert self._found is not None
        return fetch(choice, self._found[0], cache_directory(), self.say)


def _job(arguments: argparse.Namespace, kernel: Kernel, compressor: str, folio: str) -> Job:
    words = arguments.workload
    # However it is spelt: --content=PATH, --conte PATH.
    parser = _Words(add_help=False)
    parser.add_argument("--content", type=Path)
    parser.add_argument("--folio", default=folio)
    own_words, workload = parser.parse_known_args(words)
    content = own_words.content
    workload += ["--folio", own_words.folio, *(() if content is None else ("--content", GUEST_CONTENT))]
    record: tuple[str, ...] = ("--pages", arguments.pages or ("full" if content is None else "hash"))
    if words[0] == "switch":
        record += ("--compressor", "lz4" if compressor != "lz4" else "zstd")
    return Job(kernel, compressor, tuple(workload), record, dict(arguments.param), arguments.memory,
               arguments.smp or (2 if words[0] == "smp" else 1), arguments.timeout, arguments.accel, content)


def _died(death: GuestDied) -> int:
    if death.console:
        print(death.console, file=sys.stderr)
    warn(f"{death.what}.")
    if death.kept:
        warn(f"{death.kept}.")
    return _DIED


def run(arguments: argparse.Namespace) -> int:
    """Record one workload on one kernel."""
    try:
        with _telling() as say:
            kernel = _Shelf(arguments.mirror, say).get(arguments.kernel, arguments.modules)
            outcome = run_job(_job(arguments, kernel, arguments.compressor, arguments.folio), Path(arguments.output),
                              say)
    except LabError as problem:
        warn(f"{problem}.")
        return 2
    except GuestDied as death:
        return _died(death)
    lost = _lost(outcome)
    print(f"{arguments.output}: {outcome.summary['rows']:,} events of {kernel.release} ({kernel.origin}), lost: {lost}")
    for note in outcome.summary["notes"]:
        print(f"  note: {note}")
    print("  " + ", ".join(f"{name} {value:.1f} s" for name, value in outcome.seconds.items())
          + f"; accelerator {outcome.accel}")
    return _workload_status(outcome)


def _workload_status(outcome: Outcome) -> int:
    if not outcome.workload_status:
        return 0
    warn(f"the workload ended with status {outcome.workload_status}: pages it read back differ from what it had "
         "written, or it could not finish; the end of its output:")
    print(outcome.console, file=sys.stderr)
    return 1


def _lost(outcome: Outcome) -> str:
    counts = [loss.get("lost") for loss in outcome.summary["losses"]]
    return "unknown" if None in counts else f"{sum(count for count in counts if count):,}"


def kernels(arguments: argparse.Namespace) -> int:
    """List what can be had."""
    try:
        with _telling() as say:
            found = _Shelf(arguments.mirror, say).all()
    except LabError as problem:
        warn(f"{problem}.")
        return 2
    cache = cache_directory()
    if arguments.json:
        print(json.dumps([{"release": kernel.release, "version": kernel.version, "suite": kernel.suite,
                           "cached": (cache / kernel.release).is_dir()} for kernel in found], indent=1))
        return 0
    rows = [("kernel", "version", "suite", "download", "cached")]
    for kernel in found:
        size = sum(package.size for package in kernel.packages)
        # What only the pool still has, no index tells the size of.
        unknown = any(not package.sha256 for package in kernel.packages)
        rows.append((kernel.release, kernel.version, kernel.suite, f"{'>' if unknown else ''}{size >> 20} MiB",
                     "yes" if (cache / kernel.release).is_dir() else ""))
    print(table(rows, right=(3,)))
    return 0


def matrix(arguments: argparse.Namespace) -> int:
    """Record and replay every combination; the worst verdict is the exit status."""
    directory = Path(arguments.output)
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = [("kernel", "compressor", "folio", "events", "stores", "lost", "verdict",
                                    "seconds")]
    worst = 0
    with _telling() as say:
        shelf = _Shelf(arguments.mirror, say)
        for wanted in arguments.kernel or _LINES:
            for compressor in arguments.compressor or ("zstd", "lz4"):
                for folio in arguments.folio or ("4k",):
                    row, status = _cell(arguments, shelf, directory, (wanted, compressor, folio), say)
                    rows.append(row)
                    # A death is worse than a FAIL, that than UNDECIDED, that than a kernel that was not there.
                    worst = max(worst, status, key=(0, 2, 3, 1, _DIED).index)
                    warn("  ".join(row))
    print(table(rows, right=(3, 4, 5, 7)))
    return worst


def _cell(arguments: argparse.Namespace, shelf: _Shelf, directory: Path, cell: tuple[str, str, str],
          say: Callable[[str], None]) -> tuple[tuple[str, ...], int]:
    """Return a row of the matrix and the status it stands for."""
    wanted, compressor, folio = cell
    began = time.monotonic()
    name = f"{Path(wanted).name}-{compressor}-{folio}"

    def row(release: str, *rest: str) -> tuple[str, ...]:
        return (release, compressor, folio, *rest, f"{time.monotonic() - began:.0f}")

    def tell(text: str) -> None:
        say(f"{name}: {text}")

    try:
        kernel = shelf.get(wanted, None)
        out = directory / f"{name}.zr"
        outcome = run_job(_job(arguments, kernel, compressor, folio), out, tell)
        tell("replaying")
        recording = Recording(out)
        stores = int((recording.frame(["event"])["event"] == "zswap_store").sum())
        result = replay(recording)
    except (LabError, BadInput) as problem:
        warn(f"{name}: {problem}")
        return row(wanted, "", "", "", "none"), 2
    except GuestDied as death:
        _died(death)
        return row(wanted, "", "", "", "died"), _DIED
    failed = _workload_status(outcome)
    return row(kernel.release, f"{outcome.summary['rows']:,}", f"{stores:,}", _lost(outcome),
               "workload failed" if failed else result.verdict), failed or result.exit_status
