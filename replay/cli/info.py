# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay info``: what a recording holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from replay.cli.terminal import table
from replay.verdict.losses import file_reasons, loss_reasons
from traces import schema
from traces.lab.iaa.joblog import QUEUE_OFF, QUEUE_ON
from traces.printable import escaped
from traces.recording import Recording
from traces.samples import sample_paths
from traces.times import clock

__all__ = ["add_parser"]

_COMPRESS = schema.CODE["crypto_acomp_compress"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("info", help="what a recording holds",
                              description="Print what a recording holds, after checking its digests. Without a "
                                          "recording: the ones of real kernels that ship with zreplay.")
    parser.add_argument("recording", metavar="REC", nargs="?")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run)


def describe(recording: Recording) -> dict[str, Any]:
    """Return a recording's facts as plain data."""
    manifest = recording.manifest
    counts, caught = np.zeros(256, np.int64), 0
    for _, columns in recording.batches(["event", "content"], rows=1 << 18):
        counts += np.bincount(columns["event"], minlength=256)
        caught += int(np.count_nonzero((columns["content"] >= 0) & (columns["event"] == _COMPRESS)))
    segments = manifest["segments"]
    seconds = (segments[-1]["last_ts"] - segments[0]["first_ts"]) / 1e9 if segments else 0.0
    stamps = recording.stamps
    return {
        "recording": str(recording.path), "format_version": manifest["format_version"],
        "complete": manifest["complete"], "kernel": manifest["kernel"], "config": manifest["config"],
        "events": len(recording), "seconds": None if stamps else seconds,
        **({"stamps": stamps} if stamps else {}), "pages": manifest.get("pages", {}),
        "page_calls": {"why": [], **manifest.get("page_calls", {}), "calls": int(counts[_COMPRESS]), "caught": caught},
        "by_event": {schema.NAMES[code]: int(counts[code]) for code in np.flatnonzero(counts)},
        "snapshots": [{"label": s["label"], "ts": s["ts"]} for s in recording.snapshots],
        "start_state": (recording.path / "state.json").is_file(),
        "probes": manifest["probes"], "losses": manifest["losses"],
        "missing": loss_reasons(manifest) + file_reasons(recording), "unpaired": manifest.get("unpaired", []),
        "source": manifest["source"], "notes": manifest.get("notes", []),
        **_iaa(recording),
    }


def _iaa(recording: Recording) -> dict[str, Any]:
    """Return the facts of the lab's emulated devices, none where it had none."""
    facts = recording.document("iaa")
    if facts is None:
        return {}
    jobs = recording.table("iaa_jobs")
    kept = None if jobs is None else len(jobs)
    if jobs is not None and "op" in jobs:
        kept = int((~jobs["op"].isin((QUEUE_ON, QUEUE_OFF))).sum())
    return {"iaa": {**facts, "jobs_kept": kept}}


def run(arguments: argparse.Namespace) -> int:
    """Print the facts."""
    if arguments.recording is None:
        return _samples(arguments.json)
    facts = describe(Recording(arguments.recording))
    if arguments.json:
        print(json.dumps(facts, indent=1))
        return 0
    kernel, config = facts["kernel"], facts["config"]
    params = config.get("params", {})
    pages = facts["pages"]
    lost = [loss.get("lost") for loss in facts["losses"]]
    rows = [
        ("recording", f"{facts['recording']} (format {facts['format_version']}"
                      f"{'' if facts['complete'] else ', incomplete'})"),
        ("kernel", f"{kernel.get('release', '?')} ({kernel.get('version', 'version not recorded')})"),
        ("compressor", f"{config.get('compressor', '?')}, zsmalloc chain size {config.get('chain_size', '?')}"),
        ("memory", f"{config.get('totalram_pages', 0):,} pages, pool limit {params.get('max_pool_percent', '?')} %, "
                   f"accepting again at {params.get('accept_threshold_percent', '?')} % of it"),
        ("events", f"{facts['events']:,} in {facts['seconds']:.3f} s" if facts["seconds"] is not None else
         f"{facts['events']:,}; stamps are of {clock(facts['stamps'])}, which counts no seconds"),
        ("pages", f"{pages.get('references', 0):,} handed to the compressor, {pages.get('distinct', 0):,} distinct, "
                  f"{pages.get('with_bytes', 0):,} with their bytes"),
        ("caught", _caught(facts["page_calls"])),
        ("snapshots", ", ".join(s["label"] for s in facts["snapshots"]) or "none"),
        ("starts", "with the state of a cut" if facts["start_state"] else "at the recorder's beginning"),
        ("lost", "unknown" if None in lost or not lost else f"{sum(lost):,} events"),
        *([("IAA", _described(facts["iaa"], facts["iaa"]["jobs_kept"]))] if "iaa" in facts else []),
        ("source", json.dumps(facts["source"])),
    ]
    print(table(rows))
    print()
    counts = sorted(facts["by_event"].items(), key=lambda item: -item[1])
    print(table([("event", "count", "captured columns"),
                 *((name, f"{count:,}", " ".join(facts["probes"].get(name, {}).get("columns", ())))
                   for name, count in counts)], right=[1]))
    for sentence in facts["missing"]:
        print(f"missing: {sentence}")
    for note in facts["notes"]:
        print(f"note: {note}")
    return 0


def _described(facts: dict[str, Any], jobs: int | None) -> str:
    """Return what a recording says of its devices, in a sentence without its final stop.

    :param facts: ``iaa.json`` of the recording
    :param jobs: lines of the job log; None where it is not there
    """
    options = facts.get("options")
    options = options if isinstance(options, dict) else {}
    number = options.get("devices", "?")
    what = [f"{number} emulated device{'s' if number != 1 else ''}, each with "
            + ", ".join(f"{name}={options[name]}" for name in sorted(options) if name != "devices")]
    what.append("no job log" if jobs is None else f"{jobs:,} jobs")
    faults = facts.get("faults")
    if isinstance(faults, str) and faults:
        rules = sum(1 for line in faults.split("\n") if line.partition("#")[0].strip())
        what.append(f"a plan of {rules} fault{'s' if rules != 1 else ''}")
    what.append(f"MOVDIR64B by {facts.get('movdir64b', '?')}")
    what.append(str(facts.get("qemu", "QEMU of an unknown version")))
    return escaped("; ".join(what), lines=False)


def _caught(share: dict[str, Any]) -> str:
    """Return how many compress calls have their page, and why the others have none."""
    calls, caught = share["calls"], share["caught"]
    if not calls:
        return "no compress call"
    text = f"the pages of {caught:,} of {calls:,} compress calls ({100 * caught / calls:.0f} %)"
    return "; ".join((text, *share["why"])) if caught < calls else text


def _samples(as_json: bool) -> int:
    """List the shipped recordings; a path of one is what every other verb takes."""
    found = []
    for path in sample_paths():
        recording = Recording(path)
        # Where it is in reach of the user's directory, that is shorter to type.
        near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        found.append({"path": str(near), "kernel": recording.manifest["kernel"].get("version", "?"),
                      "compressor": recording.manifest["config"].get("compressor", "?"), "events": len(recording)})
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    print(table([("kernel", "compressor", "events", "recording"),
                 *((row["kernel"], row["compressor"], f"{row['events']:,}", row["path"]) for row in found)], right=[2]))
    return 0
