# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay import``: a foreign capture into a recording."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from replay.cli.terminal import counting, number, steps, warn, wrapped
from replay.reference.precompression import CompressingBeside
from replay.verdict.losses import loss_reasons, loss_text
from replay.verdict.setup import predictions_for
from traces.errors import BadInput
from traces.facts import FACTS, how_to_set, missing, read_settings, set_facts
from traces.importers import import_source
from traces.recording import Recording

__all__ = ["add_parser"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "import", help="make a recording of a raw capture, trace.dat or ftrace text",
        description="Import a capture: a directory of one run's files, a trace.dat (version 6 or 7), ftrace text, "
                    "or a raw ring buffer. The content decides what a file is.")
    parser.add_argument("src", metavar="SRC", help="directory or file to import")
    parser.add_argument("-o", "--output", metavar="REC",
                        help="recording to make; must not exist; without it SRC is a recording, and --set changes it")
    parser.add_argument("--events", metavar="FILE", help="which file of SRC holds the events, when several do")
    parser.add_argument("--formats", metavar="DIR", help="event formats of the recorded boot (raw rings)")
    parser.add_argument("--instance", metavar="NAME", help="which instance of a trace.dat to take ('top': the one "
                                                           "without a name), when several recorded the same events")
    parser.add_argument("--kernel", metavar="RELEASE", help="kernel release, where SRC does not say")
    parser.add_argument("--compressor", metavar="NAME", help="zswap compressor, where SRC does not say")
    parser.add_argument("--totalram-pages", metavar="N", type=number, help="pages of RAM, where SRC does not say")
    parser.add_argument("--chain-size", metavar="N", type=number, help="CONFIG_ZSMALLOC_CHAIN_SIZE, likewise")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="facts",
                        help=f"a fact that SRC does not say, or says wrongly: {', '.join(fact.key for fact in FACTS)}")
    parser.add_argument("--no-compress", action="store_true",
                        help="leave compressing recorded pages to the first replay")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def _compress(path: str, ahead: CompressingBeside) -> tuple[list[str], str]:
    """Compress what is not compressed yet, for replays to find; return the compressors, or why there are none."""
    recording = Recording(path, verify=False)
    if not recording.manifest["pages"]["with_bytes"] or not recording.manifest["config"].get("compressor"):
        return [], ""
    ahead.keep(recording)
    try:
        with steps() as progress:
            predictions = predictions_for(recording, progress=progress)
    except BadInput as problem:
        return [], f"pages were not compressed yet, a replay will do that: {problem.what}"
    return sorted(predictions.compressors), predictions.reason


def _tell_missing(path: str, manifest: dict[str, Any]) -> None:
    """Name all that a recording does not say, each with the command that prints it."""
    facts = missing(manifest)
    if not facts:
        return
    needed = [fact for fact in facts if not fact.assumed]
    print(f"  not said ({'a replay needs ' + ', '.join(fact.key for fact in needed) if needed else 'assumed'}), and "
          f"what prints it on the recorded machine:")
    for fact in facts:
        assumed = f"  (assumed: {fact.assumed})" if fact.assumed else ""
        print(f"    {fact.key:<24}  {fact.command}{assumed}")
    print(*wrapped(f"  set them all at once: {how_to_set(path, needed or facts)}", 1 << 20), sep="\n")


def _set(arguments: argparse.Namespace) -> int:
    """Set facts of a recording that exists."""
    if not (Path(arguments.src) / "manifest.json").is_file():
        raise BadInput(arguments.src, "", "is not a recording whose facts could be set",
                       "name the recording to make with -o REC")
    facts = read_settings(arguments.facts)
    recording = set_facts(arguments.src, facts) if facts else Recording(arguments.src, verify=False)
    if arguments.json:
        print(json.dumps({"set": facts, "not_said": _not_said(recording.manifest)}, indent=1))
        return 0
    print(f"{arguments.src}: {', '.join(f'{key}={value}' for key, value in facts.items()) or 'nothing was set'}")
    _tell_missing(arguments.src, recording.manifest)
    return 0


def _not_said(manifest: dict[str, Any]) -> list[dict[str, str]]:
    return [{"key": fact.key, "command": fact.command, "assumed": fact.assumed} for fact in missing(manifest)]


def run(arguments: argparse.Namespace) -> int:
    """Import and say what came of it."""
    if arguments.output is None:
        return _set(arguments)
    overrides = {"release": arguments.kernel, "compressor": arguments.compressor,
                 "totalram_pages": arguments.totalram_pages, "chain_size": arguments.chain_size,
                 "instance": arguments.instance, "facts": read_settings(arguments.facts)}
    with CompressingBeside() as ahead:
        with counting("importing") as progress:
            summary = import_source(arguments.src, arguments.output, events=arguments.events, formats=arguments.formats,
                                    overrides=overrides, watcher=None if arguments.no_compress else ahead,
                                    progress=progress)
        if not arguments.no_compress and summary["pages"]:
            summary["compressed"], why = _compress(arguments.output, ahead)
            if why:
                summary["notes"].append(why)
    manifest = Recording(arguments.output, verify=False).manifest
    if arguments.json:
        print(json.dumps(summary | {"not_said": _not_said(manifest)}, indent=1))
        return 0
    print(f"{arguments.output}: {summary['rows']:,} events, {summary['references']:,} pages handed to the compressor "
          f"({summary['pages']:,} distinct)")
    for note in summary["notes"]:
        print(*wrapped(f"  note: {note}", 1 << 20), sep="\n")
    for loss in summary["losses"]:
        if loss.get("damaged_subbuffers"):
            warn(f"CPU {loss.get('cpu')}: {loss['damaged_subbuffers']} damaged sub-buffers, the first near byte "
                 f"{loss['first_damage_offset']}.")
    # What was lost of each of many CPUs is one number.
    counted = {loss_text(loss) for loss in summary["losses"] if loss.get("lost") and not loss.get("why")}
    for reason in loss_reasons(manifest):
        if reason not in counted:
            warn(f"{reason}: a replay cannot PASS.")
    if counted:
        lost = sum(loss["lost"] for loss in summary["losses"] if loss_text(loss) in counted)
        warn(f"{lost:,} events were lost while recording: a replay cannot PASS.")
    for pair in summary["unpaired"]:
        print(f"  note: task {pair['pid']}: {pair['function']}() was entered {pair['entries']:,} times and returned "
              f"{pair['returns']:,} times")
    _tell_missing(arguments.output, manifest)
    return 0
