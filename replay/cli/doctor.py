# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay doctor``: what this box can do, and the one command that adds what it lacks."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from replay.cli.terminal import fitting, steps, table, wrapped

__all__ = ["add_parser"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor", help="what this box can do, and what one command would add",
        description="Look at this box: which recordings it can make, which kernels it can boot, which compressors it "
                    "predicts to the byte, and the one command that adds each thing it lacks. Changes nothing. Exit "
                    "status: 0, whatever is lacking.")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--for", dest="seconds", metavar="SECONDS", type=_seconds, default=60.0,
                        help="for how many seconds of recording the free disk must suffice (default: 60)")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # NaN compares false.
    if not 0 < value <= 1e8:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 0 to 100000000")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Look, and print what was found."""
    from replay.tools import doctor

    with steps() as progress:
        # Not even what Python compiles of a module that is only looked at.
        writing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            checks = doctor.examine(progress=progress)
        finally:
            sys.dont_write_bytecode = writing
    box = doctor.system()
    room = doctor.disk(arguments.seconds, box["cpus"], Path())
    if arguments.json:
        able = {name: {"state": state, "missing": missing}
                for name, (state, missing) in doctor.abilities(checks).items()}
        print(json.dumps({"box": box, "can": able, "disk": room,
                          "checks": [{"id": c.id, "state": c.state, "found": c.found, "command": c.command,
                                      "why": c.why, "facts": dict(c.facts)} for c in checks]}, indent=1))
        return 0
    print("\n".join(report(box, checks, room)))
    return 0


def report(box: dict[str, Any], checks: Sequence[Any], room: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for people: abilities, what was looked at, commands, disk."""
    from replay.tools import doctor

    cpus = box["cpus"]
    yield f"Linux {box['kernel']} on {box['machine']}, {cpus} CPU{'s' if cpus != 1 else ''}"
    yield ""
    rows = [("capability", "", "missing")]
    for name, (state, missing) in doctor.abilities(checks).items():
        rows.append((doctor.ABILITIES[name].what, state, ", ".join(missing)))
    yield table(rows)
    yield ""
    for check in checks:
        mark = {"yes": "+", "no": "-", "unknown": "?"}[check.state]
        text = check.found + (f" ({check.why})" if check.why else "")
        yield from wrapped(f"{mark} {check.id}: {text}")
    commands = list(doctor.summary(checks))
    if commands:
        yield ""
        yield "one command each would add:"
        for name, command in commands:
            yield f"  {name}:"
            yield from _command(command)
    yield ""
    yield from wrapped(
        f"disk: {_size(room['free'])} free here; {room['seconds']:g} s of {cpus} "
        f"CPU{'s that do' if cpus != 1 else ' that does'} little else than swap are taken for "
        f"{room['events']:,} events ({room['events_per_second_and_cpu']:,} a second and CPU, as measured in the lab at "
        "500 million instructions a second; measure yours with a short recording and 'zreplay info')")
    sizes = [("--pages", "bytes/event: capture", "recording", "needed", "room")]
    for mode, each in room["bytes_per_event"].items():
        sizes.append((mode, f"{each['capture']:.1f}", f"{each['recording']:.1f}", _size(room["needs"][mode]),
                      "yes" if room["enough"][mode] else "no"))
    yield table(sizes, right=(1, 2, 3))


def _command(command: str) -> Iterator[str]:
    """Yield a command in lines that fit and can be copied: a shell reads on after a backslash."""
    room = fitting(1 << 20)
    line = "   "
    # Words, quotes and all; a script of sh -c comes apart after &&, its own shell reads on there.
    for word in re.findall(r"(?:[^\s']|'[^']*')+", command):
        for piece in re.split(r"(?<=&&) ", word):
            if len(f"{line} {piece} \\") > room and line.strip():
                yield f"{line} \\"
                line = "     "
            line = f"{line} {piece}"
    yield line


def _size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.1f} {unit}" if unit != "B" else f"{count:,.0f} B"
