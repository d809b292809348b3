# SPDX-License-Identifier: GPL-2.0-or-later
"""What came of the mutants, as text: the score, each mutant, and why each survivor survived (``survivors.toml``)."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutation.mutator import COMPILED_KINDS, KINDS, Mutant
from tests.mutation.trial import OUTCOMES, Sample, Trial

__all__ = ["COMPILED_OUTCOMES", "REASONS", "Explanation", "Explanations", "compiled_markdown", "explanations", "markdown",
           "score_lines"]

#: why a mutant can survive
REASONS: Final = {
    "equivalent": "the change affects nothing that any kernel function does or any counter shows",
    "outside": "the outside decides the value: the replay answers it with what was recorded, so the change is not one "
               "of the kernel",
    "not reached": "no shipped sample has the events that run this code",
    "not distinguished": "the samples run this code, but never with the values that would distinguish the two",
    "not observable": "no recorded event and no counter shows it",
    "missing check": "a recording could show it, and no check looks",
}


@dataclass(frozen=True)
class Explanation:
    """Why mutants survive: those whose name is one of ``mutants``, or all in ``function`` that no sample reaches.

    ``statement``, where given, has to be a part of the change's text for the latter.
    """

    reason: str
    text: str
    mutants: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    statement: str = ""

    def fits(self, trial: Trial) -> bool:
        """True when this explains a survivor; what is said to be out of reach must be."""
        if (self.reason == "not reached" and trial.reaching) or (self.reason == "not distinguished" and not trial.reaching):
            return False
        mutant = trial.mutant
        return mutant.name in self.mutants \
            or (f"{mutant.path} {mutant.function}" in self.functions and self.statement in mutant.before)


class Explanations:
    """All that are known, and what ``follows`` from them in sentences."""

    def __init__(self, found: Sequence[Explanation], follows: Sequence[str] = ()) -> None:
        self.all = tuple(found)
        self.follows = tuple(follows)

    def find(self, trial: Trial) -> Explanation | None:
        """Return why a trial's mutant survived, one that names it before one for its whole function; or None."""
        fitting = [e for e in self.all if e.fits(trial)]
        fitting.sort(key=lambda e: (trial.mutant.name not in e.mutants, not e.statement))
        return fitting[0] if fitting else None


def explanations(path: Path | None = None) -> Explanations:
    """Read the explanations.

    :raises ValueError: for a reason that is not in :data:`REASONS`
    """
    path = path or Path(__file__).with_name("survivors.toml")
    found = []
    data = tomllib.loads(path.read_text())
    for entry in data["survivor"]:
        if entry["reason"] not in REASONS:
            raise ValueError(f"{path.name}: '{entry['reason']}' is not one of {', '.join(REASONS)}")
        found.append(Explanation(entry["reason"], " ".join(entry["text"].split()), tuple(entry.get("mutants", ())),
                                 tuple(entry.get("functions", ())), entry.get("statement", "")))
    return Explanations(found, [" ".join(text.split()) for text in data.get("follows", ())])


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


def score_lines(trials: Sequence[Trial], outcomes: Mapping[str, str] = OUTCOMES) -> list[str]:
    """Return the score in a few lines."""
    count = Counter(t.outcome for t in trials)
    reached = [t for t in trials if t.reaching]
    caught = count["caught"]
    return [
        f"{len(trials)} mutants: {caught} caught by a check ({_percent(caught, len(trials))}), "
        + ", ".join(f"{count[o]} {o}" for o in outcomes if o != "caught"),
        f"{len(reached)} of them change code that some sample runs: {caught} caught by a check "
        f"({_percent(caught, len(reached))}), {sum(t.outcome == 'survived' for t in reached)} survived",
    ]


def _fair(trials: Sequence[Trial], known: Explanations) -> str:
    """The score without what does not change a kernel, and without what no sample runs."""
    left = [t for t in trials if t.reaching and not (
        t.outcome == "survived" and (found := known.find(t)) and found.reason in ("equivalent", "outside"))]
    caught = sum(t.outcome == "caught" for t in left)
    return f"{len(left)} of those are neither equivalent nor decided by the outside: {caught} caught by a check " \
           f"({_percent(caught, len(left))})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if "`" not in text else _cell(text)


def _where(mutant: Mutant) -> str:
    return f"{mutant.path.rpartition('/')[2]}:{mutant.line}"


def _what_caught(trial: Trial) -> str:
    if trial.outcome == "caught":
        event = "" if trial.event is None else f", event {trial.event:,}"
        return f"`{trial.check}` in {trial.sample}{event}"
    if trial.outcome == "survived":
        return "**survived**"
    return f"{trial.outcome} in {trial.sample}: {_cell(trial.detail)[:90]}" if trial.detail else \
        f"{trial.outcome} in {trial.sample}"


def _scores(trials: Sequence[Trial], key: str, outcomes: Mapping[str, str] = OUTCOMES) -> list[str]:
    lines = [f"| {key} | mutants | " + " | ".join(outcomes) + " | run by a sample |",
             "|---" * (len(outcomes) + 3) + "|"]
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.mutant.path if key == "file" else trial.mutant.kind, []).append(trial)
    for name, group in sorted(groups.items()):
        count = Counter(t.outcome for t in group)
        lines.append(f"| {name} | {len(group)} | " + " | ".join(str(count[o]) for o in outcomes)
                     + f" | {sum(bool(t.reaching) for t in group)} |")
    return lines


def _catchers(trials: Sequence[Trial]) -> list[str]:
    checks = Counter("counter.*" if t.check.startswith("counter.") else t.check for t in trials
                     if t.outcome == "caught")
    return ["| first check that differed | mutants |", "|---|---|",
            *(f"| `{check}` | {count} |" for check, count in checks.most_common())]


def _survivors(trials: Sequence[Trial], known: Explanations) -> list[str]:
    by_reason: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        if trial.outcome == "survived":
            found = known.find(trial)
            reason, text = (found.reason, found.text) if found else ("not explained", "")
            by_reason.setdefault(reason, {}).setdefault(text, []).append(trial)
    lines: list[str] = []
    for reason in (*REASONS, "not explained"):
        groups = by_reason.get(reason)
        if not groups:
            continue
        total = sum(map(len, groups.values()))
        lines += ["", f"### {reason[0].upper()}{reason[1:]}: {total}", ""]
        if reason in REASONS:
            lines += [f"{REASONS[reason][0].upper()}{REASONS[reason][1:]}.", ""]
        for text, group in groups.items():
            names = "; ".join(f"{_where(t.mutant)} `{t.mutant.function}`: {_code(t.mutant.before)} → "
                              f"{_code(t.mutant.after)}" for t in group)
            lines.append(f"- {names}." + (f" **Because** {text}" if text else ""))
    return lines


def _table(trials: Sequence[Trial]) -> list[str]:
    lines: list[str] = []
    path = ""
    for trial in trials:
        mutant = trial.mutant
        if mutant.path != path:
            path = mutant.path
            lines += ["", f"### {path}", "", "| line | function | kind | change | outcome |", "|---|---|---|---|---|"]
        after = "dropped" if mutant.after == "(dropped)" else f"→ {_code(mutant.after)}"
        lines.append(f"| {mutant.line} | `{mutant.function}` | {mutant.kind} "
                     f"| {_code(mutant.before)} {after} | {_what_caught(trial)} |")
    return lines


_INTRO: Final = """# Mutation: what the checks catch

`make mutation` changes the model in one place and replays every shipped sample against it, each under the revision of its own kernel. It
does that with one change after the other. Recording and mutant differ in exactly that change, so a replay shows as much as if a kernel
with that change had been recorded and compared with the unchanged model. A mutant counts as **caught** when a check differs (or
the verdict is UNDECIDED). Exceptions in the model, start states it cannot be put into, and replays that do not end are counted
separately: they show that something is wrong, but no check says what. This page is written by `make mutation`; reasons of
survivors come from `tests/mutation/survivors.toml`, and a survivor without one makes the command fail.

Each mutant runs in a process of its own that loads model and replay anew, with the changed module in place of the model's (an import hook;
no file is changed). The samples are tried in the order of their replay time, up to the first whose checks catch the mutant. Samples that
do not run the changed statement are left out, as they cannot show anything. The choice is made by seed, in turn over functions and, in each
function, over kinds.

Left out by construction, because nothing could show them or because they are not part of what a kernel does:

- docstrings, annotations, decorators, strings, `__slots__`, `__all__`, `mirrors`;
- `raise` and `assert` with their texts;
- what serves only a replay's observers (which task was preempted before it read a total);
- constants that the replay itself imports (`PAGE_SIZE` and the like);
- the first assignments of `__init__`, and numbers returned right after an effect that yields the same number.

`model/effects.py` (how the model speaks), `model/errno.py`, `model/ledger.py` (an oracle, not a kernel) and `model/crypto/` (checked against
reference vectors and recorded lengths elsewhere) are not mutated. The compiled engine has a command of its own,
`python -m tests.mutation.compiled`.
"""


def _elsewhere(trials: Sequence[Trial], others: Sequence[Trial]) -> list[str]:
    """What became of survivors on other recordings."""
    left = {t.mutant.name: t for t in trials if t.outcome == "survived"}
    tried = [other for other in others if other.mutant.name in left]
    caught = [other for other in tried if other.outcome == "caught"]
    count = Counter(other.outcome for other in tried)
    lines = ["", "## The survivors on other recordings", "",
             "Cuts of longer recordings of the lab (`zreplay lab run --workload \"limits --pages 1024\"`, `pressure`, `switch`), which do not ship, "
             "replayed against the survivors: do the checks catch them where the events are there?", "",
             f"{len(caught)} of {len(tried)} are caught by a check, "
             + ", ".join(f"{count[o]} {o}" for o in OUTCOMES if o != "caught") + ".", "",
             "| survivor | function | change | caught by |", "|---|---|---|---|"]
    for other in caught:
        mutant = left[other.mutant.name].mutant
        after = "dropped" if mutant.after == "(dropped)" else f"→ {_code(mutant.after)}"
        lines.append(f"| {_where(mutant)} | `{mutant.function}` | {_code(mutant.before)} {after} | `{other.check}` in "
                     f"{other.sample} |")
    return lines


def markdown(groups: Sequence[tuple[str, list[Trial], list[Sample], int]], known: Explanations, seed: int, *,
             everything: bool = False, elsewhere: Sequence[Trial] = ()) -> str:
    """Return docs/mutation.md.

    :param groups: (what was replayed, trials, samples, how many mutants there are to choose from)
    :param everything: all mutants were tried, none chosen
    :param elsewhere: trials of survivors on other recordings
    """
    lines = [_INTRO]
    if known.follows:
        lines += ["## What follows", "", *(f"- {text}" for text in known.follows), ""]
    for number, (what, trials, samples, population) in enumerate(groups):
        if number:
            lines += [f"# The posted series: {what}", "",
                      "No sample of a posted series ships. These mutants of the revisions that mirror v14 were tried on a recording of a kernel with "
                      "v14 applied (IAA's software stand-in, 64 KiB folios, digests of pages only). v6, v8 and v12 are "
                      "not mutated: no kernel with them was recorded.", ""]
        chosen = "all of them" if everything else f"seed {seed}"
        lines += ["## Score", "", *(f"- {line}" for line in (*score_lines(trials), _fair(trials, known))),
                  f"- chosen from {population:,} possible changes ({chosen})",
                  "- replayed: " + ", ".join(f"{s.name} ({s.events:,} events)" for s in samples), "",
                  *(f"- `{name}`: {text}" for name, text in OUTCOMES.items()), "",
                  *_scores(trials, "file"), "", *_scores(trials, "kind"), "",
                  *(f"- `{kind}`: {KINDS[kind]}" for kind in sorted(KINDS)), "",
                  *_catchers(trials), "", "## Survivors", *_survivors(trials, known),
                  *(_elsewhere(trials, elsewhere) if elsewhere and not number else []), "", "## Every mutant",
                  *_table(trials), ""]
    return "\n".join(lines).rstrip() + "\n"


#: how a mutant of the compiled engine can come out, the plainest first
COMPILED_OUTCOMES: Final = {
    "caught": "with one of the recordings it misses a difference that the reference finds, counts differently, or ends with other tables",
    "handed over": "it leaves to the reference what it should confirm: that takes longer and changes no verdict",
    "exception": "Python's own error, such as an index outside the tables",
    "timeout": "it does not end",
    "survived": "with every recording, changed or not, it does what the unchanged engine does",
}
_COMPILED_INTRO: Final = """# Mutation: what the sweep catches of the compiled engine

`make mutation` also changes the compiled engine (`replay/fast/`) in one place, and runs it over the recordings of the exhaustive sweep
(`tests/sweeping.py`): as they are, and with each value that the reference reads changed, one at a time. `tests/test_sweep.py` proves that
the unchanged engine and the reference agree on all of these, so a mutant that does anything else disagrees with the reference. Nothing is
compiled for it: with Numba's JIT switched off the functions are plain Python on the same tables, which takes a second where compiling takes
half a minute. This page is written by `python -m tests.mutation.compiled`; reasons of survivors come from
`tests/mutation/survivors-compiled.toml`, and a survivor without one makes the command fail.

Left out: what runs on import (names of columns, constants that come from the model and the reference), and where a hash table looks first.
`layout.py` is names; `memory.py`, `runner.py` and `eligible.py` are not compiled.
"""


def compiled_markdown(trials: Sequence[Trial], samples: Sequence[Sample], population: int, changed: int, known: Explanations,
                      seed: int) -> str:
    """Return docs/mutation-compiled.md.

    :param population: how many mutants there are to choose from
    :param changed: how many changed recordings each was tried on, as far as they run what is changed
    """
    lines = [_COMPILED_INTRO, "## Score", "", *(f"- {line}" for line in score_lines(trials, COMPILED_OUTCOMES)),
             f"- {_fair(trials, known).removesuffix(')')}; what is handed over is not among the caught)",
             f"- every single condition left out, and a choice of the other {population:,} possible changes (seed {seed})",
             f"- tried on {len(samples)} recordings as they are and {changed:,} with one value changed: "
             + ", ".join(f"{s.name} ({s.events:,} events)" for s in samples), "",
             *(f"- `{name}`: {text}" for name, text in COMPILED_OUTCOMES.items()), "",
             *_scores(trials, "file", COMPILED_OUTCOMES), "", *_scores(trials, "kind", COMPILED_OUTCOMES), "",
             *(f"- `{kind}`: {COMPILED_KINDS[kind]}" for kind in sorted(COMPILED_KINDS)), "",
             *_catchers(trials), "", "## Survivors", *_survivors(trials, known), "", "## Every mutant", *_table(trials), ""]
    return "\n".join(lines).rstrip() + "\n"
