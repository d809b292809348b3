# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay export``: a recording for a trace viewer."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from replay.cli.terminal import steps
from replay.verdict.setup import kernel_release
from traces.errors import BadInput
from traces.exporters import chromejson, pftrace
from traces.exporters.check import check
from traces.exporters.timeline import Item, Timeline
from traces.leftovers import Unfinished
from traces.record.exits import FAULT
from traces.recording import Recording
from traces.times import clock

__all__ = ["add_parser"]

_JSON: Final = ".json"
_PERFETTO: Final = (".pftrace", ".perfetto-trace")


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "export", help="a recording for a trace viewer (Perfetto)",
        description="Write a recording's calls, effects, counters and markers as a timeline that Perfetto "
                    "(ui.perfetto.dev) shows. Exit status: 0 done, 2 unreadable, 70 --check found a difference.")
    parser.add_argument("recording", metavar="REC")
    parser.add_argument("-o", dest="output", metavar="FILE", required=True, help="the file to make: *.pftrace is "
                        "Perfetto's own format, *.json Chrome's, which further viewers read")
    parser.add_argument("--check", action="store_true", help="read the file back and compare all that is in it with "
                        "the recording")
    parser.add_argument("--data", action="store_true", help="export the first 8 bytes of objects written, too: they "
                        "may be a page's own")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the export, whole or not at all."""
    output = Path(arguments.output)
    if output.suffix != _JSON and output.suffix not in _PERFETTO:
        raise BadInput(output, "", "its name does not say which format it is to have",
                       f"end it in {_PERFETTO[0]} or {_JSON}")
    if output.exists() or output.is_symlink():
        raise BadInput(output, "", "the output exists already", "remove it or choose another name")
    recording = Recording(arguments.recording)
    timeline = Timeline(recording, arguments.data)
    title = f"zswap, kernel {kernel_release(recording) or 'unknown'}, {recording.path.name}"
    stamps = f"times are stamps of {clock(recording.stamps)}, which counts no seconds: only their order means anything"
    if recording.stamps:
        # Both formats have no unit but ns: the name that stands above everything says that it is another.
        title += f"; {stamps}"
    try:
        unfinished = Unfinished(output)
    except OSError as problem:
        raise BadInput(output, "", f"cannot be written ({problem.strerror})",
                       "choose a directory that exists and has room") from None
    part = unfinished.path
    try:
        with steps() as progress:
            _write(part, output.suffix, _told(timeline, progress), title)
            if arguments.check:
                try:
                    done = _check(part, output, recording, arguments.data)
                except BadInput as problem:
                    print(f"zreplay: {problem}", file=sys.stderr)
                    return FAULT
        if output.exists():
            raise BadInput(output, "", "the output appeared while it was being written", "choose another name")
        size = part.stat().st_size
        os.replace(part, output)
    except OSError as problem:
        raise BadInput(output, "", f"cannot be written ({problem.strerror})",
                       "choose a directory that exists and has room") from None
    finally:
        part.unlink(missing_ok=True)
        unfinished.done()
    print(f"{output}: {len(recording):,} events as {timeline.slices:,} slices, {timeline.instants:,} instants and "
          f"{timeline.values:,} counter values, {size:,} bytes")
    if recording.stamps:
        print(stamps)
    if timeline.hidden:
        print(f"the first bytes of {timeline.hidden:,} objects written are left out, as they may be a page's; --data "
              "exports them")
    if timeline.missing:
        print(f"{timeline.missing:,} slices have no recorded return: they end where that showed")
    if arguments.check:
        print(f"read back: {done.events:,} events, {done.slices:,} slices, {done.instants:,} instants and "
              f"{done.values:,} counter values are those of the recording")
    return 0


def _write(part: Path, suffix: str, items: Iterator[Item], title: str) -> None:
    # Of mode 0600: with --data an event can hold the first bytes of a page.
    descriptor = os.open(part, os.O_WRONLY | os.O_TRUNC)
    if suffix == _JSON:
        with open(descriptor, "w", encoding="utf-8") as text:
            chromejson.write(items, text, title)
    else:
        with open(descriptor, "wb") as binary:
            pftrace.write(items, binary, title)


def _check(part: Path, output: Path, recording: Recording, data: bool) -> Any:
    if output.suffix == _JSON:
        # Bytes that are no text are no event either.
        with part.open(encoding="utf-8", errors="replace") as text:
            return check(recording, chromejson.read(text, str(output)), output, data=data)
    with part.open("rb") as binary:
        return check(recording, pftrace.read(binary, str(output)), output, data=data)


def _told(timeline: Timeline, progress: Callable[[str, int, int], None] | None) -> Iterator[Item]:
    """Pass the items on, and say how far they are."""
    total = len(timeline.recording)
    for number, item in enumerate(timeline):
        if progress is not None and not number & 0x3fff:
            progress("exporting", min(item.args.get("event", 0), total), total)
        yield item
