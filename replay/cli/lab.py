# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay lab``: a virtual test box. Boots kernels in QEMU and records what zswap does in them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from replay.cli import labbuild, labcommand, labfuzz, labiaa, labmatrix
from replay.cli.labcommon import (
    Shelf,
    add_guest_options,
    add_kernel_options,
    add_record_options,
    as_sentence,
    job_of,
    progress_line,
)
from replay.cli.terminal import table, warn
from traces.lab.apt import cache_directory
from traces.lab.errors import LabError
from traces.lab.kernels import all_cached
from traces.lab.run import GuestRun
from traces.lab.run import run as run_job

__all__ = ["add_parser"]

_EPILOG = """examples:
  zreplay lab run --kernel 7.2 --compressor zstd --folio 64k -o run.zr
  zreplay lab run --kernel 7.3 --workload "limits --pages 4096" --memory 1G -o run.zr
  zreplay lab run --kernel 7.3 --workload "script --script sequence.json" -o run.zr
  zreplay lab run --kernel 7.3 --package stress-ng --cgroup memory.max=64M -o run.zr -- \\
      stress-ng --vm 1 --vm-bytes 128M --vm-ops 2000
  zreplay lab fuzz --kernel 7.2 --seed 1 --time 30m -o fuzz/
  zreplay lab run --kernel arch/x86/boot/bzImage --modules . -o patched.zr
  zreplay lab run --kernel 7.3 --iaa devices=2,wqs=2,mode=async_irq -o iaa.zr

Needs QEMU, busybox and, for distribution kernels, apt: apt install qemu-system-x86 busybox-static
Exit status: 0 recorded, 1 the workload read back wrong pages or COMMAND failed, 2 wrong use, 5 the guest died.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb with its parts."""
    parser = verbs.add_parser(
        "lab", help="boot a kernel in QEMU and record a workload in it", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A virtual test box: fetches a distribution's kernel by name, or takes your own, boots it in "
                    "QEMU, runs the workload, or a command of yours, under the recorder and brings the recording out.")
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)

    one = parts.add_parser("run", help="one kernel, one workload or command, one recording", epilog=_EPILOG,
                           usage="zreplay lab run --kernel K -o REC [options] [-- COMMAND ...]",
                           description="Boots one kernel in QEMU, runs a workload or your command there under the "
                                       "recorder, and makes a recording of it.",
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    add_kernel_options(one)
    one.add_argument("--chain-size", type=int, choices=range(4, 17), metavar="N",
                     help="CONFIG_ZSMALLOC_CHAIN_SIZE of your own kernel, 4 to 16, where no .config of it is found")
    one.add_argument("-o", "--output", required=True, metavar="REC", help="recording to make; must not exist")
    add_record_options(one)
    add_guest_options(one)
    labiaa.add_iaa_options(one)
    labcommand.add_command_options(one)
    # What is not given depends on what is to run.
    one.set_defaults(run=run, workload=None, memory=None, compressor=None)

    listing = parts.add_parser("kernels", help="list the kernels that can be fetched")
    listing.add_argument("--mirror", metavar="URL", help="Debian mirror (default: the one apt uses)")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=kernels)

    labbuild.add_build(parts)
    labmatrix.add_matrix(parts)
    labfuzz.add_fuzz(parts)


@as_sentence
def run(arguments: argparse.Namespace) -> int:
    """Record one workload on one kernel."""
    labcommand.check(arguments)
    labiaa.check(arguments)
    with progress_line() as say:
        shelf = Shelf(arguments.mirror, say)
        kernel = shelf.get(arguments.kernel, arguments.modules)
        tools = shelf.tools() if arguments.backend == "bcc" else None
        if arguments.command:
            job = labcommand.command_job(arguments, kernel, shelf)
        else:
            job = job_of(arguments, kernel, arguments.compressor, arguments.folio, tools)
        job = dataclasses.replace(job, chain_size=arguments.chain_size, iaa=labiaa.guest_iaa(arguments, kernel, shelf))
        outcome = run_job(job, Path(arguments.output), say)
    lost = _lost(outcome)
    print(f"{arguments.output}: {outcome.summary['rows']:,} events of {kernel.release} ({kernel.origin}), lost: {lost}")
    for note in outcome.summary["notes"]:
        print(f"  note: {note}")
    print("  " + ", ".join(f"{name} {value:.1f} s" for name, value in outcome.seconds.items())
          + f"; accelerator {outcome.accel}")
    return _workload_status(outcome) if outcome.command is None else labcommand.show(outcome.command)


def _workload_status(outcome: GuestRun) -> int:
    if not outcome.workload_status:
        return 0
    warn(f"the workload ended with status {outcome.workload_status}: pages it read back differ from what it had "
         "written, or it could not finish; the end of its output:")
    print(outcome.console, file=sys.stderr)
    return 1


def _lost(outcome: GuestRun) -> str:
    counts = [loss.get("lost") for loss in outcome.summary["losses"]]
    return "unknown" if None in counts else f"{sum(count for count in counts if count):,}"


@as_sentence
def kernels(arguments: argparse.Namespace) -> int:
    """List what can be had."""
    kept = all_cached(cache_directory())
    with progress_line() as say:
        try:
            found = Shelf(arguments.mirror, say).all()
        except LabError as problem:
            if not kept:
                raise
            warn(f"only kernels of the cache are listed: {problem}")
            found = kept
    # Candidates of one line share a release string.
    cached = {(kernel.release, kernel.version) for kernel in kept}
    if arguments.json:
        print(json.dumps([{"release": kernel.release, "version": kernel.version, "suite": kernel.suite,
                           "cached": (kernel.release, kernel.version) in cached} for kernel in found], indent=1))
        return 0
    rows = [("kernel", "version", "suite", "download", "cached")]
    for kernel in found:
        size = sum(package.size for package in kernel.packages)
        # No index has the size of what only the pool still has.
        unknown = any(not package.sha256 for package in kernel.packages)
        rows.append((kernel.release, kernel.version, kernel.suite, f"{'>' if unknown else ''}{size >> 20} MiB",
                     "yes" if (kernel.release, kernel.version) in cached else ""))
    print(table(rows, right=(3,)))
    return 0
