# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of the compiled engine: comparisons left out are caught, and every explanation is of a mutant there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from replay.reference.comparisons import compared_columns
from tests.mutation.mutator import COMPILED_KINDS, Mutant, enumerate_mutants
from tests.mutation.report import COMPILED_OUTCOMES, Explanations, compiled_markdown, explanations
from tests.mutation.trial import Sample, Trial

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "replay" / "fast").glob("*.py"))
KNOWN = explanations(ROOT / "tests" / "mutation" / "survivors-compiled.toml")


@pytest.fixture(scope="module")
def every() -> list[Mutant]:
    return [mutant for path in FILES for mutant in enumerate_mutants(ROOT, path, operands=True)]


def test_single_conditions_are_left_out_of_compiled_code_only(every: list[Mutant]) -> None:
    assert {mutant.kind for mutant in every} <= set(COMPILED_KINDS)
    operands = [m for m in every if m.kind == "operand" and m.path.endswith("step.py")]
    assert len(operands) > 100
    one = next(m for m in operands if m.before.startswith(("differs = swpent[i] != m[it + L.E_SWPENT]", "swpent[i] != m[it + L.E_SWPENT]")))
    assert one.after != one.before
    assert ("False or" in one.after) or ("or False" in one.after)
    assert not [m for m in enumerate_mutants(ROOT, "model/zswap.py") if m.kind == "operand"]


def test_every_explanation_is_of_a_mutant_there_is(every: list[Mutant]) -> None:
    names, functions = {m.name for m in every}, {f"{m.path} {m.function}" for m in every}
    for explanation in KNOWN.all:
        assert explanation.text
        assert set(explanation.mutants) <= names, set(explanation.mutants) - names
        assert set(explanation.functions) <= functions, set(explanation.functions) - functions
        if explanation.functions:
            assert any(explanation.statement in m.before for m in every
                       if f"{m.path} {m.function}" in explanation.functions), explanation


def test_the_report_counts_what_there_is(every: list[Mutant]) -> None:
    trials = [Trial(every[0], "caught", "goes past a difference", "a", 5, reaching=["a"]),
              Trial(every[1], "handed over", reaching=["a"]), Trial(every[2])]
    text = compiled_markdown(trials, [Sample("x/a", events=7)], 30, 1234, Explanations([]), 1)
    assert "3 mutants: 1 caught by a check (33.3 %), 1 handed over, 0 exception, 0 timeout, 1 survived" in text
    assert "Not explained: 1" in text
    assert "1,234 with one value changed" in text
    assert set(COMPILED_OUTCOMES) > {"caught", "survived"}


@pytest.mark.slow
def test_comparisons_left_out_are_caught(tmp_path: Path) -> None:
    """In a process of its own, as Numba must not have compiled anything before."""
    out = tmp_path / "out.json"
    subprocess.run([sys.executable, "-m", "tests.mutation.compiled", "--all", "--jobs", "1", "--json", str(out), "--only",
                    "step.py _make.run: swpent[i] != m[it + L.E_SWPENT]", "--kind", "operand"], cwd=ROOT, check=False,
                   capture_output=True)
    trials = [Trial(Mutant(**row.pop("mutant")), **{key: value for key, value in row.items() if key != "name"})
              for row in json.loads(out.read_text())["trials"]]
    caught = [trial for trial in trials if trial.outcome == "caught"]
    assert len(caught) == len({column for event, column, _ in compared_columns() if event == "zswap_entry_free"}) == 5
    # What says that a column was captured is 1 throughout, and a guard is one.
    assert [trial.mutant.name for trial in trials if trial.outcome != "caught" and KNOWN.find(trial) is None] == []
