# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of ``zreplay dev`` that try the recorder itself in the lab: cost, kills, both back ends on one run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from replay.cli.compare import report
from replay.cli.labcommon import (
    Shelf,
    add_guest_options,
    add_kernel_options,
    as_sentence,
    job_of,
    new_directory,
    progress_line,
)
from replay.cli.terminal import table, warn
from replay.recdiff.comparison import compare
from replay.verdict.run import replay
from traces.errors import BadInput
from traces.importers import import_source
from traces.lab.run import Ran, run_task
from traces.recording import Recording

__all__ = ["add_backends", "add_kills", "add_overhead"]

Say = Callable[[str], None]

_PAGES: Final = ("none", "hash", "sample:16", "full")
_BACKENDS: Final = ("tracefs", "bcc")
#: Ways to run a workload: nothing, a back end and what it keeps of pages, trace-cmd with the same probes.
_WAYS: Final = ("nothing", *(f"tracefs {pages}" for pages in _PAGES), *(f"bcc {pages}" for pages in _PAGES),
                "trace-cmd", "trace-cmd pages")
_EPILOG: Final = """examples:
  zreplay dev overhead --kernel 7.2 --repeat 5
  zreplay dev kills --kernel 7.3 --count 50 --seed 1 -o kills/
  zreplay dev backends --kernel 7.2 --compressor lz4 -o both/
"""


def add_overhead(parts: Any) -> None:
    """Add ``zreplay dev overhead``."""
    cost = parts.add_parser("overhead", help="time a workload with and without a recorder", epilog=_EPILOG,
                            formatter_class=argparse.RawDescriptionHelpFormatter,
                            description="Runs a workload in one guest under each way of recording, under trace-cmd "
                                        "with the same probes, and without a recorder, in turns.")
    add_kernel_options(cost)
    cost.add_argument("--way", action="append", choices=_WAYS, metavar="WAY",
                      help=f"may be repeated (default: all): {', '.join(_WAYS)}")
    cost.add_argument("--repeat", type=_count, default=3, metavar="N", help="times that each is run (default: 3)")
    cost.add_argument("--host-time", action="store_true",
                      help="under TCG take the host's time; by default the guest's time is its instructions, 2 ns "
                           "each, so that other load on the host does not count")
    cost.add_argument("--flush-every", metavar="S", help="seconds, as for record: trace-cmd brings nothing to disk "
                                                         "before a ring is half full")
    cost.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there")
    add_guest_options(cost, "base --pages 8192", 2048, 3600.0)
    cost.set_defaults(run=overhead)


def add_kills(parts: Any) -> None:
    """Add ``zreplay dev kills``."""
    killing = parts.add_parser("kills", help="kill recorders at random moments and look at what they leave",
                               epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
                               description="Kills recorders of one guest with SIGKILL, at moments drawn evenly from "
                                           "the length of a whole recording, and opens and replays what each left.")
    add_kernel_options(killing)
    killing.add_argument("--count", type=_count, default=50, metavar="N", help="kills (default: 50)")
    killing.add_argument("--seed", type=int, default=1, metavar="N", help="what the moments depend on (default: 1)")
    killing.add_argument("--backend", choices=("tracefs", "bcc"), default="tracefs", help="default: tracefs")
    killing.add_argument("--pages", metavar="MODE", help="as for lab run")
    killing.add_argument("-o", "--output", required=True, metavar="DIR", help="directory for the recordings; must not "
                                                                             "exist")
    add_guest_options(killing, "base --pages 2048", 2048, 3600.0)
    killing.set_defaults(run=kills)


def add_backends(parts: Any) -> None:
    """Add ``zreplay dev backends``."""
    pair = parts.add_parser("backends", help="record one run with both back ends and compare them event by event",
                            epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
                            description="Runs a workload under a recorder of each back end at the same time, replays "
                                        "both recordings, DIR/tracefs.zr and DIR/bcc.zr, and compares them as "
                                        "'zreplay dev compare' does.")
    add_kernel_options(pair)
    pair.add_argument("--pages", metavar="MODE", help="as for lab run")
    pair.add_argument("-o", "--output", required=True, metavar="DIR", help="directory for the recordings; must not "
                                                                          "exist")
    add_guest_options(pair, "base --pages 8192", 3072, 1800.0)
    pair.set_defaults(run=backends)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 1000")
    return int(text)


@as_sentence
def overhead(arguments: argparse.Namespace) -> int:
    """Measure, and print a row for every way."""
    ways = list(dict.fromkeys(["nothing", *(arguments.way or _WAYS)]))
    out = new_directory(arguments.json) if arguments.json is not None else Path("overhead.json")
    with progress_line() as say:
        shelf = Shelf(arguments.mirror, say)
        kernel = shelf.get(arguments.kernel, arguments.modules)
        # The same Python and the same things in memory for every way, also where no tool is asked for.
        job = job_of(arguments, kernel, arguments.compressor, arguments.folio, shelf.tools())
        job = dataclasses.replace(job, icount=not arguments.host_time)
        options = {"ways": ways, "repeat": arguments.repeat,
                   "flush": ["--flush-every", arguments.flush_every] if arguments.flush_every else []}
        with run_task(job, "overhead", options, out, say) as ran:
            result, written = ran.result, _written(ran.capture, ways, say)
    if arguments.json is not None:
        facts = {"icount": job.icount and ran.accel == "tcg",
                 "kernel": kernel.release, "accel": ran.accel, "workload": list(job.workload), "cpus": job.cpus,
                 "memory_mib": job.memory, "compressor": job.compressor, "rows": result["rows"], "written": written}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    clock = "guest's seconds of 500 million instructions" if job.icount and ran.accel == "tcg" else "seconds"
    print(f"{kernel.release}, {ran.accel}, {job.cpus} CPU, {job.compressor}, workload {' '.join(job.workload)}: "
          f"{clock}, the median of {arguments.repeat}; ratios to the same turn without a recorder")
    print(table(_cost_rows(result["rows"], ways), right=(1, 2, 3, 4, 5, 6, 7, 9, 10)))
    print(f"\nwhat each wrote in the last turn, as zreplay imports and replays it; {_WHOLE}")
    print(table(_size_rows(written), right=(1, 2, 3, 4)))
    return 0


_WHOLE: Final = ("bytes per event of all that a recorder wrote (of trace-cmd, of its trace.dat), and of the recording "
                 "made of that")


def _written(capture: Path, ways: list[str], say: Say) -> dict[str, dict[str, Any]]:
    """Import and replay what the guest sent of each way; returns events, sizes in bytes, verdict and reasons."""
    found: dict[str, dict[str, Any]] = {}
    for way in ways:
        left = capture / way.replace(" ", "-").replace(":", "-")
        if not left.is_dir():
            continue
        say(f"importing and replaying {way}")
        # A workload without a recorder of ours writes its truth and its snapshots itself.
        mine = [left / "trace.dat"] if way.startswith("trace-cmd") else \
            [path for path in left.rglob("*") if path.is_file() and path.name not in ("truth.csv", "kernel.config")]
        recording = left.with_name(f"{left.name}.zr")
        import_source(left, recording)
        opened = Recording(recording)
        # Before the replay, which keeps what it compressed.
        stored = sum(path.stat().st_size for path in recording.rglob("*")
                     if path.is_file() and path.name != "truth.parquet")
        try:
            result = replay(opened)
            verdict, reasons = result.verdict, [str(reason) for reason in result.reasons]
        except BadInput as problem:
            # A kernel that no revision mirrors can be measured all the same.
            verdict, reasons = "not replayed", [str(problem)]
        found[way] = {"events": len(opened), "bytes": sum(path.stat().st_size for path in mine),
                      "recording_bytes": stored, "verdict": verdict, "reasons": reasons}
    return found


def _size_rows(written: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("recorder", "events", "bytes", "per event", "recording, per event", "replay")]
    for way, facts in written.items():
        events = max(facts["events"], 1)
        rows.append((way, f"{facts['events']:,}", f"{facts['bytes']:,}", f"{facts['bytes'] / events:.1f}",
                     f"{facts['recording_bytes'] / events:.1f}",
                     facts["verdict"] + "".join(f": {reason}" for reason in facts["reasons"][:1])))
    return rows


def _cost_rows(rows: list[dict[str, Any]], ways: list[str]) -> list[tuple[str, ...]]:
    """Return the table: times of a turn are compared with the run without a recorder of the same turn."""
    by_way = {way: [row["phases"] for row in rows if row["way"] == way] for way in ways}
    found: list[tuple[str, ...]] = [("recorder", "page-out s", "ratio", "all s", "ratio", "from", "to", "lost",
                                     "missed hits", "MiB written", "start to end s")]
    for way in ways:
        cells = [way]
        for part in (_page_out, _all_phases):
            seconds = list(map(part, by_way[way]))
            ratios = [mine / part(alone) for mine, alone in zip(seconds, by_way["nothing"], strict=True)]
            cells += [f"{statistics.median(seconds):.2f}", f"{statistics.median(ratios):.2f}"]
        cells += [f"{min(ratios):.2f}", f"{max(ratios):.2f}"]
        mine = [row for row in rows if row["way"] == way]
        # Losses of all turns together; a file's size is about the same in each.
        lost = [row.get(name, 0) for row in mine for name in ("lost", "pages_lost", "missed")]
        cells += ["unknown" if "unknown" in lost else f"{sum(lost):,}",
                  # Of fprobes, and of what trace-cmd records, the kernel or the tool counts no missed hits.
                  "unknown" if any(row.get("missed_unknown", 1) for row in mine) else "counted",
                  f"{statistics.median(row['bytes'] for row in mine) / (1 << 20):.1f}",
                  # What is put off until the workload is over is in no phase, but it is here.
                  f"{statistics.median(row['with_setup'] for row in mine):.2f}"]
        found.append(tuple(cells) if way != "nothing" else (*cells[:-4], "", "", "", cells[-1]))
    return found


def _page_out(phases: dict[str, float]) -> float:
    """Return seconds of the phases in which pages are stored and nothing else happens."""
    return sum(seconds for name, seconds in phases.items() if name.startswith("out"))


def _all_phases(phases: dict[str, float]) -> float:
    """Return seconds of all phases but the last, which waits for work queues."""
    return sum(seconds for name, seconds in phases.items() if name != "exit")


@as_sentence
def kills(arguments: argparse.Namespace) -> int:
    """Kill, import, replay; the exit status is 0 when every recording opens and none has a silent gap."""
    out = new_directory(Path(arguments.output))
    with progress_line() as say:
        shelf = Shelf(arguments.mirror, say)
        kernel = shelf.get(arguments.kernel, arguments.modules)
        job = job_of(arguments, kernel, arguments.compressor, arguments.folio,
                     shelf.tools() if arguments.backend == "bcc" else None)
        with run_task(job, "kills", {"count": arguments.count, "seed": arguments.seed}, out, say) as ran:
            out.mkdir(mode=0o700)
            rows, bad = _judged(ran, out)
    print(table(rows, right=(1, 2, 3, 4)))
    verdicts = Counter(row[5] for row in rows[1:])
    print(f"{kernel.release}, {ran.accel}: {arguments.count} kills within {ran.result['span']:.1f} s of a start, seed "
          f"{arguments.seed}: {', '.join(f'{count} {verdict}' for verdict, count in verdicts.items())}")
    if ran.result["leftovers"]:
        warn(f"after --clean these were left in tracefs: {', '.join(ran.result['leftovers'][:5])}.")
        bad += 1
    return 1 if bad else 0


def _judged(ran: Ran, out: Path) -> tuple[list[tuple[str, ...]], int]:
    """Import and replay what every kill left; returns a table and how many are not as they should be."""
    rows: list[tuple[str, ...]] = [("recording", "killed after s", "events", "stores", "compared", "verdict", "")]
    bad = 0
    for kill in ran.result["rows"]:
        name, moment = kill["name"], f"{kill['after']:.2f}"
        if kill["ended"] is not None:
            rows.append((name, moment, "", "", "", "ended by itself", f"status {kill['ended']}"))
            bad += kill["ended"] != 0
            continue
        try:
            import_source(ran.capture / name, out / f"{name}.zr")
            recording = Recording(out / f"{name}.zr")
            result = replay(recording)
        except BadInput as problem:
            rows.append((name, moment, "", "", "", "does not open", str(problem)))
            bad += 1
            # Where the recorder never made its directory there is nothing to keep.
            if (ran.capture / name).is_dir():
                shutil.copytree(ran.capture / name, out / f"{name}.raw")
            continue
        events = recording.frame(["event"])["event"]
        # What is there must be as the model says, a gap would show; whole it may only call itself when the recorder
        # was about to end.
        whole = recording.manifest["complete"]
        right = result.verdict == ("PASS" if whole else "UNDECIDED")
        bad += not right
        if kill["still_stored"]:
            bad += 1
            warn(f"{name}: {kill['still_stored']:,} pages of the killed workload stayed in zswap.")
        rows.append((name, moment, f"{len(events):,}", f"{int((events == 'zswap_store').sum()):,}",
                     f"{sum(check.compared for check in result.checks):,}",
                     result.verdict, "NOT as it should be" if not right else "it had just finished" if whole else ""))
    return rows, bad


@as_sentence
def backends(arguments: argparse.Namespace) -> int:
    """Record one run twice, replay both, compare; the worst of the three is the exit status."""
    out = new_directory(Path(arguments.output))
    with progress_line() as say:
        shelf = Shelf(arguments.mirror, say)
        kernel = shelf.get(arguments.kernel, arguments.modules)
        job = job_of(arguments, kernel, arguments.compressor, arguments.folio, shelf.tools())
        with run_task(job, "both", {}, out, say) as ran:
            out.mkdir(mode=0o700)
            for name in _BACKENDS:
                say(f"importing {name}")
                import_source(ran.capture / name, out / f"{name}.zr")
    recordings = [Recording(out / f"{name}.zr") for name in _BACKENDS]
    statuses = []
    for recording in recordings:
        result = replay(recording)
        statuses.append(result.exit_status)
        print(f"{result.verdict}  {recording.path}: {len(recording):,} events of {kernel.release}"
              + "".join(f"; {reason}" for reason in result.reasons))
    compared = compare(recordings[0], recordings[1])
    print("\n".join(report(compared)))
    return max([*statuses, compared.exit_status], key=(0, 3, 1, 2).index)
