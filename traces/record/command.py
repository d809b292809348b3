# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder's command line, for ``zreplay record`` and for the recorder alone."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .box import Box
from .capture import check_target
from .errors import CannotRecord
from .exits import check_words, leave
from .losslines import loss_lines
from .names import DEFAULT, TracefsNames
from .pages import PageMode
from .plan import describe, plan
from .session import FLUSH, VERSION, Options, Session, say
from .tracefs import Tracefs

__all__ = ["DESCRIPTION", "add_arguments", "main", "record"]

DESCRIPTION = """Record what zswap and zsmalloc do on the running kernel: through tracefs alone, or with BPF programs.

While it records, lines written to the pipe DIR/control are obeyed (DIR: the raw capture):
  snapshot LABEL   take a counter snapshot; done when counters-NNN-LABEL.json is there
  mark TEXT        put a marker among the events ("phase NAME" begins a phase)
  stop             end the recording
A COMMAND finds that pipe in ZREPLAY_CONTROL and the marker file in ZREPLAY_MARKER.
By default no byte of user memory is written: pages are kept as keyed hashes, the key is thrown away.
Exit status: 0 recorded, 2 not possible here or wrong use."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recorder's options."""
    parser.add_argument("-o", "--output", metavar="DIR", help="what to make; must not exist")
    parser.add_argument("--backend", choices=("tracefs", "bcc"), default="tracefs",
                        help="tracefs (default): needs nothing but Python; bcc: BPF programs through BCC (apt install "
                             "python3-bpfcc; no kernel headers), which counts losses of every probe")
    parser.add_argument("--instance", metavar="NAME", default=DEFAULT,
                        help=f"name of the recorder's things in tracefs (default: {DEFAULT}): recorders of different "
                             "names can record one run side by side, see 'zreplay dev compare'")
    parser.add_argument("--pages", metavar="HOW", default="hash",
                        help="what to keep of pages: none, hash (default), sample:N (bytes of one content in N), full")
    parser.add_argument("--duration", metavar="S", type=_seconds, help="stop after S seconds")
    parser.add_argument("--snapshot-every", metavar="S", type=_seconds, default=0.0,
                        help="take a counter snapshot every S seconds")
    parser.add_argument("--cgroup", metavar="PATH", type=Path, help="whose memory.stat and memory.zswap.* to keep")
    parser.add_argument("--buffer-kb", metavar="N", type=_kib, default=0,
                        help="ring size per CPU in KiB (default: from available memory)")
    parser.add_argument("--compressor", metavar="NAME", action="append", default=[],
                        help="also keep pages handed to this one, when zswap is switched to it later")
    parser.add_argument("--flush-every", metavar="S", type=_seconds, default=FLUSH,
                        help=f"bring what was recorded to disk every S seconds (default: {FLUSH}): a box that dies "
                             "loses less, a busy one is disturbed more; rings go to files twice as often, and as soon "
                             "as one is half full")
    parser.add_argument("--no-pack", action="store_true",
                        help="leave a raw capture's files as they were recorded; by default they are compressed (xz) "
                             "when the recording is over")
    parser.add_argument("--plan", action="store_true",
                        help="print which probes this kernel allows, and what missing ones cost; record nothing")
    parser.add_argument("--clean", action="store_true",
                        help="remove what a killed recorder left in tracefs, of the same --instance")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return value


def _kib(text: str) -> int:
    if not text.isdecimal() or not 64 <= int(text) <= 1 << 24:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size from 64 to 16777216 KiB")
    return int(text)


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (the recorder's own arguments, the command after ``--``)."""
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1:]


def record(arguments: argparse.Namespace, command: Sequence[str],
           importer: Callable[[Path, Path], None] | None = None, keep_raw: bool = False) -> int:
    """Do what the command line asks for and return the exit status.

    :param arguments: as parsed from the options of :func:`add_arguments`
    :param command: what to run while recording
    :param importer: makes a recording (second) of the capture (first); None leaves the capture itself
    :param keep_raw: keep the capture next to the recording
    :raises CannotRecord: with a sentence for the user
    """
    names = TracefsNames.of(arguments.instance)
    if arguments.clean:
        return _clean(names)
    if arguments.plan:
        if os.geteuid() != 0:
            raise CannotRecord("the plan needs root: only root sees what ftrace can reach", "run it with sudo")
        box = Box()
        kernel = box.kernel()
        planned = plan(kernel, PageMode(arguments.pages).content, names.group, box.compressors())
        print(describe(planned, kernel.btf is not None))
        return 0
    if not arguments.output:
        raise CannotRecord("no output is named", "give one with -o DIR")
    if arguments.duration is not None and command:
        raise CannotRecord("a duration and a command both say when to stop", "give one of them")
    output = Path(arguments.output)
    capture = output
    if importer is not None:
        check_target(output)
        capture = output.with_name(output.name + ".raw")
    kind: type[Session] = Session
    if arguments.backend == "bcc":
        # Only here: it asks for BCC, which few boxes have.
        from .bccsession import BccSession
        kind = BccSession
    session = kind(capture, Options(PageMode(arguments.pages), arguments.duration, tuple(command),
                                    arguments.snapshot_every, arguments.cgroup, arguments.buffer_kb,
                                    tuple(arguments.compressor), names.name,
                                    # A capture that is imported at once and then removed is not worth packing.
                                    pack=not arguments.no_pack and (importer is None or keep_raw),
                                    flush_every=arguments.flush_every), Box())

    def stop(*_: object) -> None:
        session.stopping = True

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        status = session.run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for line in loss_lines(status):
        say(line)
    if status.get("command_status"):
        say(f"the command ended with status {status['command_status']}.")
    if importer is None:
        print(f"{capture}: a raw capture; make a recording of it with 'zreplay import {capture} -o REC'")
        return 0
    importer(capture, output)
    if not keep_raw:
        shutil.rmtree(capture)
    return 0


def _clean(names: TracefsNames) -> int:
    tracefs = Tracefs(names=names)
    try:
        found = tracefs.leftovers()
        left = tracefs.remove() if found else []
        holders = tracefs.holders() if left else ""
    finally:
        tracefs.close()
    if left:
        raise CannotRecord(f"{', '.join(left[:3])} cannot be removed{holders}",
                           "end the processes that still use it, and try again")
    print(f"removed {len(found)} leftovers" if found else "nothing was left behind")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recorder alone and return its exit status."""
    parser = argparse.ArgumentParser(prog="zreplay-record", description=DESCRIPTION,
                                     usage="%(prog)s -o DIR [options] [-- COMMAND ...]",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--version", action="version", version=f"zreplay-record {VERSION}")

    def run() -> int:
        words = list(sys.argv[1:] if argv is None else argv)
        refused = check_words(words)
        if refused is not None:
            return refused
        own, command = split_command(words)
        # "zreplay record" is what the documentation says.
        if own[:1] == ["record"]:
            own = own[1:]
        return record(parser.parse_args(own), command)

    return leave(run, (CannotRecord,), lambda: "look for what was begun with 'zreplay record --clean'",
                 command=argv is None)
