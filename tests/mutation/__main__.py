# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m tests.mutation``: try mutants of the model on the shipped samples and write what came of it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from replay.cli.terminal import steps
from tests.mutation.mutator import Mutant, choose, enumerate_mutants, reading_sources, shared_names
from tests.mutation.report import explanations, markdown, score_lines
from tests.mutation.trial import Sample, Trial, run_all, survey
from traces.samples import sample_paths

__all__ = ["EXTRA", "QUOTAS", "main"]

ROOT: Final = Path(__file__).resolve().parents[2]
#: file -> how many mutants of it; what is not named is not mutated (see docs/mutation.md)
QUOTAS: Final = {
    "model/counters.py": 4,
    "model/list_lru.py": 24,
    "model/lines.py": 22,
    "model/memcg.py": 20,
    "model/revisions/mainline_6_12.py": 14,
    "model/swap.py": 18,
    "model/zsmalloc.py": 80,
    "model/zswap.py": 64,
    "model/zswap_state.py": 44,
    "model/zswap_writeback.py": 42,
}
#: the same for a recording of the posted series, which ships with no sample
EXTRA: Final = {
    "model/revisions/batchcompress.py": 24,
    "model/revisions/batching.py": 24,
    "model/revisions/v14.py": 12,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which mutants are chosen (default 1)")
    parser.add_argument("--all", action="store_true", help="every mutant there is instead of a choice")
    parser.add_argument("--only", metavar="TEXT", help="only mutants whose name holds this")
    parser.add_argument("--from", dest="result", metavar="FILE", type=Path,
                        help="try nothing, report on this result of --json")
    parser.add_argument("--list", action="store_true", help="list the mutants and end")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default 2)")
    parser.add_argument("--recordings", metavar="REC", nargs="+", type=Path,
                        help="replay these instead of the shipped samples")
    parser.add_argument("--survivors-of", metavar="FILE", type=Path,
                        help="only mutants that survived in this result of --json: would these recordings catch them?")
    parser.add_argument("--extra", metavar="REC", help="a recording of the posted v14: mutants of its modules too")
    parser.add_argument("--elsewhere", metavar="FILE", type=Path,
                        help="a result of --survivors-of, to be shown in the report")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every trial there")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the report there")
    return parser


def _mutants(quotas: dict[str, int], args: argparse.Namespace, shared: frozenset[str]) -> tuple[list[Mutant], int]:
    """The mutants to try, and how many there are to choose from."""
    every = [mutant for path in quotas for mutant in enumerate_mutants(ROOT, path, shared)]
    chosen = every if args.all else choose(every, quotas, args.seed)
    if args.survivors_of:
        groups = json.loads(args.survivors_of.read_text())["groups"]
        left = {trial["name"] for group in groups for trial in group["trials"] if trial["outcome"] == "survived"}
        chosen = [m for m in every if m.name in left]
    return [m for m in chosen if not args.only or args.only in m.name], len(every)


_Group = tuple[str, list[Trial], list[Sample], int]


def _run(groups: list[tuple[str, dict[str, int]]], args: argparse.Namespace, shared: frozenset[str]) -> list[_Group]:
    """Try the mutants of each group on its recordings."""
    modules = {path.removesuffix(".py").replace("/", "."): str(ROOT / path) for path in [*QUOTAS, *EXTRA]}
    out = []
    with tempfile.TemporaryDirectory() as folder, steps() as progress:
        for what, quotas in groups:
            mutants, population = _mutants(quotas, args, shared)
            recordings = (args.recordings or sample_paths()) if quotas is QUOTAS else [Path(args.extra)]
            # What pages compress to is kept next to a recording: here next to a copy.
            samples = [Sample(str(shutil.copytree(path, Path(folder) / path.name)), None if quotas is QUOTAS else "v14")
                       for path in recordings]
            samples = survey(samples, modules, args.jobs, progress)
            out.append((what, run_all(mutants, samples, ROOT, shared, args.jobs, progress), samples, population))
    return out


def _write(path: Path, groups: list[_Group], seed: int, seconds: float) -> None:
    data = {"seed": seed, "seconds": round(seconds, 1),
            "groups": [{"what": what, "population": population, "trials": [t.as_dict() for t in trials],
                        "samples": [{"path": s.name, "revision": s.revision, "events": s.events} for s in samples]}
                       for what, trials, samples, population in groups]}
    path.write_text(json.dumps(data, indent=1) + "\n")


def _read(path: Path) -> list[_Group]:
    """The inverse of :func:`_write`."""
    groups = []
    for group in json.loads(path.read_text())["groups"]:
        trials = [Trial(Mutant(**row.pop("mutant")), **{k: v for k, v in row.items() if k != "name"})
                  for row in group["trials"]]
        groups.append((group["what"], trials, [Sample(**row) for row in group["samples"]], group["population"]))
    return groups


def main(argv: list[str] | None = None) -> int:
    """Run it; 0, 1 when a survivor is not explained, 2 when a sample is not PASS without mutants."""
    args = _parser().parse_args(argv)
    shared = shared_names(reading_sources(ROOT))
    groups = [("shipped samples", QUOTAS)] + ([("v14", EXTRA)] if args.extra else [])
    if args.list:
        for _, quotas in groups:
            for mutant in _mutants(quotas, args, shared)[0]:
                print(f"{mutant.path}:{mutant.line} {mutant.kind} {mutant.name}")
        return 0
    began = time.monotonic()
    try:
        out = _run(groups, args, shared) if args.result is None else _read(args.result)
    except RuntimeError as problem:
        print(f"mutation: {problem}", file=sys.stderr)
        return 2
    known = explanations()
    if args.json:
        _write(args.json, out, args.seed, time.monotonic() - began)
    if args.markdown:
        others = [] if args.elsewhere is None else [t for _, trials, _, _ in _read(args.elsewhere) for t in trials]
        args.markdown.write_text(markdown(out, known, args.seed, everything=args.all, elsewhere=others))
    unexplained = 0
    for what, trials, _, _ in out:
        print(f"{what}:")
        print("\n".join(f"  {line}" for line in score_lines(trials)))
        for trial in trials:
            if trial.outcome == "survived" and known.find(trial) is None:
                unexplained += 1
                print(f"  not explained: {trial.mutant.path}:{trial.mutant.line} {trial.mutant.name}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
