# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay lab matrix``: kernel by compressor by folio by policy, each recorded in a guest and replayed.

Each recording is replayed by both engines, which have to say the same of it: a cell where they do not is a FAIL.
Every cell is a process of its own and leaves a file with its figures. A stopped matrix continues where it was, and the
death of one cell does not end the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

from model.lines import LINES
from model.zswap import Zswap
from replay.cli import labiaa
from replay.cli.labcommon import (
    DIED,
    Shelf,
    add_guest_options,
    add_record_options,
    as_sentence,
    job_of,
    progress_line,
    report_death,
)
from replay.cli.revisions import named
from replay.cli.terminal import table, warn
from replay.tools.coverage import missing, sentence, summed
from replay.userrev.revision import load_revision
from replay.verdict.engineagreement import difference
from replay.verdict.result import Result
from replay.verdict.run import NOT_COMPILED, replay
from traces.errors import BadInput
from traces.lab.errors import GuestDied, LabError
from traces.lab.qemu import ending_on_signals
from traces.lab.run import run as run_job
from traces.leftovers import write_whole
from traces.recording import Recording
from traces.workload.command import FOLIOS

__all__ = ["POLICIES", "add_matrix", "markdown"]

#: Kernel lines of a matrix that names none: those with a revision of their own.
_LINES: Final = tuple(LINES)
#: Policy -> workload, parameters at the start, CPUs, NUMA nodes: which of zswap's decisions a cell is about.
POLICIES: Final[dict[str, tuple[str, dict[str, str], int, int]]] = {
    "plain": ("base --pages 5120", {}, 1, 1),
    "edge": ("edge --pages 4096", {}, 1, 1),
    "limits": ("limits --pages 5120", {}, 1, 1),
    "switch": ("switch --pages 3072", {}, 1, 1),
    "pressure": ("pressure --pages 4096", {}, 1, 1),
    "shrinker": ("pressure --pages 4096", {"shrinker_enabled": "Y"}, 1, 1),
    "smp": ("smp --pages 4096", {}, 2, 1),
    "numa": ("smp --pages 4096", {}, 2, 2),
    "swapoff": ("swapoff --pages 3072", {}, 1, 1),
}
#: In the order of a report.
_COMPRESSORS: Final = ("zstd", "lz4", "lz4hc", "lzo", "lzo-rle", "deflate", "842")
#: A death is worse than a FAIL, that than UNDECIDED, that than a kernel that was not there.
_WORSE: Final = (0, 2, 3, 1, DIED)
_POLL: Final = 0.2

_EPILOG: Final = """examples:
  zreplay lab matrix --kernel 7.2 --kernel 7.3 --compressor zstd --folio 4k --folio 64k -o matrix/
  zreplay lab matrix --policy limits --policy smp --jobs 2 --report matrix.md -o matrix/

Figures of cells that are in DIR already are taken from there; remove a cell's .json to run it again.
Exit status: 0 all PASS, 1 a FAIL, 3 UNDECIDED, 5 a guest died.
"""


class Cell(NamedTuple):
    """One place in the matrix; ``kernel`` as the user named it."""

    kernel: str
    compressor: str
    folio: str
    policy: str

    @property
    def name(self) -> str:
        """The name of its files."""
        return "-".join((Path(self.kernel).name, *self[1:]))


def add_matrix(parts: Any) -> None:
    """Add the part."""
    many = parts.add_parser("matrix", help="many kernels, compressors, folio sizes and policies; replays each",
                            epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    many.add_argument("--kernel", action="append", metavar="K", help=f"as for run; may be repeated (default: "
                                                                     f"{', '.join(_LINES)})")
    many.add_argument("--compressor", action="append", metavar="C", help="may be repeated (default: zstd, lz4)")
    many.add_argument("--folio", action="append", choices=list(FOLIOS), help="may be repeated (default: 4k)")
    many.add_argument("--policy", action="append", choices=list(POLICIES),
                      help=f"may be repeated: {', '.join(POLICIES)} (default: plain, or what --workload says)")
    many.add_argument("--workload-pages", type=_count, metavar="N",
                      help="pages that each policy's workload works with (default: 3,072 to 5,120, by policy)")
    many.add_argument("--revision", metavar="R", help="check the kernels against this revision, such as v14 "
                                                      "(default: the one that mirrors each)")
    many.add_argument("--jobs", type=_jobs, default=1, metavar="N", help="guests at the same time (default: 1)")
    many.add_argument("--keep", choices=("all", "odd"), default="all",
                      help="which recordings stay: all (default), or those whose verdict is not PASS")
    many.add_argument("--report", type=Path, metavar="FILE", help="write all cells that DIR has there, as Markdown")
    many.add_argument("-o", "--output", required=True, metavar="DIR", help="directory for figures and recordings")
    add_record_options(many)
    add_guest_options(many, workload="")
    labiaa.add_iaa_options(many)
    many.set_defaults(run=matrix, modules=None)


def _count(text: str) -> int:
    if not text.isdecimal() or not 64 <= int(text) <= 1 << 20:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 64 to {1 << 20}")
    return int(text)


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 64")
    return int(text)


def _cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    policies = arguments.policy or (["plain"] if arguments.workload is None else ["given"])
    for kernel in arguments.kernel or _LINES:
        for policy in policies:
            for compressor in arguments.compressor or (("zstd", "lz4") if arguments.iaa is None else (labiaa.OF_IAA,)):
                for folio in arguments.folio or ("4k",):
                    yield Cell(kernel, compressor, folio, policy)


@as_sentence
def matrix(arguments: argparse.Namespace) -> int:
    """Record and replay every combination; the worst verdict is the exit status."""
    labiaa.check(argparse.Namespace(**vars(arguments)))
    if arguments.revision is not None:
        named(arguments.revision)
    directory = Path(arguments.output)
    directory.mkdir(parents=True, exist_ok=True)
    cells = list(_cells(arguments))
    todo = [cell for cell in cells if not (directory / f"{cell.name}.json").exists()]
    if len(todo) < len(cells):
        warn(f"{len(cells) - len(todo)} of {len(cells)} cells are in {directory} already.")
    with progress_line() as say:
        # Fetched here once, not by every process.
        shelf = Shelf(arguments.mirror, say)
        missing = _fetch(shelf, {cell.kernel for cell in todo})
        if arguments.backend == "bcc" and todo:
            shelf.tools()
        todo = [cell for cell in todo if cell.kernel not in missing]
        with ending_on_signals():
            for name in _run_all(arguments, todo, directory, say):
                warn("  ".join(_row(json.loads((directory / f"{name}.json").read_text()))))
    rows = [json.loads((directory / f"{cell.name}.json").read_text()) for cell in cells if cell.kernel not in missing]
    print(table([_HEAD, *map(_row, rows)], right=(4, 5, 6, 7, 8, 9, 11, 13)))
    if arguments.report is not None:
        arguments.report.write_text(markdown(_all_of(directory)))
    return max([row["status"] for row in rows] + [2] * bool(missing), key=_WORSE.index, default=0)


def _all_of(directory: Path) -> list[dict[str, Any]]:
    """Return the figures of all cells that a directory has, by policy, compressor, folio and kernel."""
    rows = [json.loads(path.read_text()) for path in directory.glob("*.json")]
    order = {name: number for names in (POLICIES, _COMPRESSORS, FOLIOS) for number, name in enumerate(names)}
    return sorted(rows, key=lambda row: (*(order.get(row[name], 99) for name in ("policy", "compressor", "folio")),
                                         row["release"]))


def _fetch(shelf: Shelf, kernels: Iterable[str]) -> set[str]:
    """Have kernels in the cache; returns those that cannot be had, which is said of each."""
    missing = set()
    for kernel in sorted(kernels):
        try:
            shelf.get(kernel, None)
        except LabError as problem:
            warn(f"{kernel}: {problem}.")
            missing.add(kernel)
    return missing


def _run_all(arguments: argparse.Namespace, cells: list[Cell], directory: Path, say: Any) -> Iterator[str]:
    """Run cells, as many at a time as asked for; yields the name of each that is done."""
    # A fresh interpreter: a fork of one with threads may hang.
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(cells))
    running: dict[str, BaseProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < arguments.jobs:
                cell = waiting.pop()
                process = context.Process(target=_run_cell, args=(arguments, cell, directory))
                process.start()
                running[cell.name] = process
            say(f"{len(cells) - len(waiting) - len(running)} of {len(cells)} done, running {', '.join(running)}")
            time.sleep(_POLL)
            for name in [name for name, cell_process in running.items() if not cell_process.is_alive()]:
                status = running.pop(name).exitcode
                if not (directory / f"{name}.json").exists():
                    raise LabError(f"the process of cell {name} ended with status {status} and left nothing; "
                                   "run the matrix again to try that cell again")
                yield name
    finally:
        for left in running.values():
            left.terminate()
        for left in running.values():
            left.join()


def _run_cell(arguments: argparse.Namespace, cell: Cell, directory: Path) -> None:
    """Record and replay one cell, in a process of its own, and write its figures."""
    began = time.monotonic()
    facts: dict[str, Any] = {**cell._asdict(), "release": cell.kernel, "status": 0, "verdict": "", "why": ""}
    out = directory / f"{cell.name}.zr"
    # What a stopped matrix left of this cell.
    for path in (out, out.with_name(out.name + ".partial")):
        shutil.rmtree(path, ignore_errors=True)
    given = argparse.Namespace(**vars(arguments))
    if cell.policy in POLICIES:
        workload, params, cpus, nodes = POLICIES[cell.policy]
        words = workload.split()
        if arguments.workload_pages is not None:
            words[words.index("--pages") + 1] = str(arguments.workload_pages)
        given.workload, given.param = tuple(words), [*params.items(), *arguments.param]
        given.smp, given.numa = arguments.smp or cpus, max(arguments.numa, nodes)
    facts["workload"] = " ".join(given.workload)
    try:
        shelf = Shelf(None, lambda text: None)
        kernel = shelf.get(cell.kernel, None)
        tools = shelf.tools() if arguments.backend == "bcc" else None
        facts.update(release=kernel.release, origin=kernel.origin, image=_digest(kernel.image))
        job = job_of(given, kernel, cell.compressor, cell.folio, tools)
        if cell.compressor.startswith(labiaa.OF_IAA):
            job = dataclasses.replace(job, iaa=labiaa.guest_iaa(given, kernel, shelf))
        outcome = run_job(job, out)
        facts.update(_judged(out, load_revision(arguments.revision), outcome.summary, outcome.workload_status))
    except (LabError, BadInput) as problem:
        facts.update(status=2, verdict="none", why=str(problem))
    except GuestDied as death:
        facts.update(status=DIED, verdict="died", why=death.what)
        # A guest that says why it will not work is not a death to look into: the kernel lacks something.
        if "has no compressor" in death.what or "does not take" in death.what:
            facts.update(status=0, verdict="not there")
            shutil.rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)
        else:
            report_death(death)
    if arguments.keep == "odd" and facts["verdict"] == "PASS":
        shutil.rmtree(out, ignore_errors=True)
    facts["seconds"] = round(time.monotonic() - began, 1)
    write_whole(directory / f"{cell.name}.json", (json.dumps(facts, indent=1) + "\n").encode())
    sys.stdout.flush()


def _judged(out: Path, revision: str | type[Zswap] | None, summary: dict[str, Any],
            workload_status: int) -> dict[str, Any]:
    """Return what replaying a cell's recording gives."""
    recording = Recording(out)
    events = recording.frame(["event"])["event"]
    stores, pages = (int((events == name).sum()) for name in ("zswap_store", "crypto_acomp_compress"))
    result = replay(recording, revision, keep_going=True, engine="reference")
    engines = _both(recording, revision, result)
    counts = [loss.get("lost") for loss in summary["losses"]]
    grades: dict[str, int] = {}
    for check in result.checks:
        grades[check.grade] = grades.get(check.grade, 0) + 1
    lost = None if None in counts else sum(counts)
    verdict, status = result.verdict, result.exit_status
    if workload_status:
        # It read back pages that differ from what it had written, or could not finish.
        verdict, status = "workload failed", 1
    reasons, first = list(result.reasons), str(result.divergences[0].what) if result.divergences else ""
    if engines["engines"] != "agree":
        verdict, status, first = "FAIL", 1, f"the engines differ: {engines['engines_differ']}"
        reasons.insert(0, first)
    return {"verdict": verdict, "status": status, "events": len(recording), "stores": stores, "pages": pages,
            "lost": lost, "compared": sum(check.compared for check in result.checks),
            "different": sum(check.different for check in result.checks), "grades": grades,
            "revision": result.revision, "branches": result.branches, "why": "; ".join(reasons), "first": first,
            **engines, "events_digest": _digest_of(sorted((out / "events").iterdir()))}


def _both(recording: Recording, revision: str | type[Zswap] | None, reference: Result) -> dict[str, Any]:
    """Let compiled code replay what the reference has judged; returns whether it says the same, and of how much."""
    try:
        fast = replay(recording, revision, keep_going=True, engine="fast")
    except Exception as problem:
        # The reference came to a result: to fail on the same recording is another answer.
        return {"engines": "differ", "compiled": 0, "not_compiled": "", "engines_differ":
                f"the reference came to its end, compiled code failed ({type(problem).__name__}: {problem})"}
    differs = difference(reference, fast)
    not_compiled = [note.removeprefix(NOT_COMPILED) for note in fast.notes if note.startswith(NOT_COMPILED)]
    return {"engines": "differ" if differs else "agree", "engines_differ": differs, "compiled": fast.compiled,
            "not_compiled": "".join(not_compiled)}


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of(paths: list[Path]) -> str:
    return hashlib.sha256("".join(_digest(path) for path in paths).encode()).hexdigest()


_HEAD: Final = ("kernel", "compressor", "folio", "policy", "stores", "pages", "events", "checks made", "differ", "lost",
                "engines", "compiled", "verdict", "seconds")


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    def number(name: str) -> str:
        return f"{facts[name]:,}" if isinstance(facts.get(name), int) else ""

    lost = "unknown" if "lost" in facts and facts["lost"] is None else number("lost")
    return (facts["release"], facts["compressor"], facts["folio"], facts["policy"], number("stores"), number("pages"),
            number("events"), number("compared"), number("different"), lost, facts.get("engines", ""),
            f"{number('compiled')} of {number('events')}" if "compiled" in facts else "", facts["verdict"],
            f"{facts['seconds']:.0f}")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table of cells as Markdown, with kernels' versions and digests, and what is not PASS."""
    lines = ["| " + " | ".join(_HEAD[:-1]) + " | grades |", "|" + "---|" * len(_HEAD)]
    for facts in rows:
        grades = ", ".join(f"{count} {grade}" for grade, count in sorted(facts.get("grades", {}).items()))
        lines.append("| " + " | ".join(_row(facts)[:-1]) + f" | {grades} |")
    both = [facts for facts in rows if "engines" in facts]
    if both:
        agree, compiled, events = (sum(column) for column in zip(*(
            (facts["engines"] == "agree", facts["compiled"], facts["events"]) for facts in both), strict=True))
        lines += ["", f"Engines: the reference and compiled code replayed {len(both)} of {len(rows)} cells and agree "
                      f"on {agree}; {compiled:,} of {events:,} events were confirmed by compiled code."]
        lines += [f"- {facts['release']} {facts['compressor']} {facts['folio']} {facts['policy']} was not compiled: "
                  f"{facts['not_compiled']}" for facts in both if facts["not_compiled"]]
    counts = [(facts["revision"], facts["branches"]) for facts in rows if "branches" in facts]
    for revision, branches in summed(counts).items():
        cells = sum(name == revision for name, _ in counts)
        lines += ["", f"{sentence(revision, branches)} in {cells} of its cells; in none: "
                      f"{', '.join(missing(branches)) or 'no other'}."]
    lines += ["", "Kernels:", ""]
    origins = {facts["release"]: (facts["origin"], facts["image"]) for facts in rows if "origin" in facts}
    lines += [f"- {release}: {origin}, image SHA-256 `{image}`" for release, (origin, image) in sorted(origins.items())]
    odd = [facts for facts in rows if facts["verdict"] != "PASS"]
    if odd:
        lines += ["", "Not PASS:", ""]
        lines += [f"- {facts['release']} {facts['compressor']} {facts['folio']} {facts['policy']}: {facts['verdict']}; "
                  f"{facts.get('first') or facts['why']}" for facts in odd]
    return "\n".join(lines) + "\n"
