# SPDX-License-Identifier: GPL-2.0-or-later
"""The corpus of known defects: each scenario shows its own where it must, and nothing where it must not."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import ROOT

from model.crypto import acomp, iaa
from model.crypto import knownanswers as known
from model.crypto.faults import FaultPlan
from model.revisions import REVISIONS
from model.revisions.pool_create import POOL_CREATE
from replay.revdiff import freerun, scenario
from replay.revdiff import lockstep as parting
from replay.revdiff.defects import SCENARIOS, UNSEEN, main, table
from replay.revdiff.freerun import Operation
from replay.revdiff.scenario import (
    Breaks,
    Counts,
    Find,
    Parts,
    Scenario,
    ScenarioSetup,
    dirty,
    meets,
    outcomes,
    partings,
)

#: every defect found while the postings were read, L1 to L19
LATENT = [f"L{number}" for number in range(1, 20)] + ["L3b"]
#: every defect of 2026 in the code under test
OF_2026 = ["iaa_multi_sg", "deflate_enospc", "deflate_window", "zstd_stream", "acomp_virt_to_sg", "acomp_save_req",
           "rebalance_wq_table"]
#: what was found while this was written
NEW = ["v12_unit_size"]
DOCUMENT = ROOT / "docs" / "defects.md"


def shown() -> Iterator[tuple[Scenario, ScenarioSetup, Find]]:
    for one in SCENARIOS:
        for setup in one.shown:
            for find in one.finds:
                yield one, setup, find


def clean() -> Iterator[tuple[Scenario, ScenarioSetup]]:
    for one in SCENARIOS:
        for setup in one.clean:
            yield one, setup


def name(what: object) -> str:
    return what.name if isinstance(what, Scenario) else str(what) if isinstance(what, ScenarioSetup) else type(what).__name__


@pytest.mark.parametrize(("one", "setup", "find"), shown(), ids=name)
def test_it_shows(one: Scenario, setup: ScenarioSetup, find: Find) -> None:
    assert meets(find, one, setup)


@pytest.mark.parametrize(("one", "setup"), clean(), ids=name)
def test_it_is_clean_elsewhere(one: Scenario, setup: ScenarioSetup) -> None:
    for find in one.finds:
        assert dirty(find, one, setup) == []


@pytest.mark.parametrize("one", [one for one in SCENARIOS if any(isinstance(find, Breaks) for find in one.finds)], ids=name)
def test_nothing_is_wrong_before_the_operation_that_shows_it(one: Scenario) -> None:
    first = min(find.at for find in one.finds)
    for setup in one.shown:
        assert [found for found in scenario.found(one, setup) if found.at < first] == []


@pytest.mark.parametrize("one", SCENARIOS, ids=name)
def test_the_fault_plan_strikes_wherever_it_is_run(one: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that does not strike proves nothing: not on the revision that is clean either."""
    plans: list[FaultPlan] = []
    read = FaultPlan.from_data

    def keep(data: object) -> FaultPlan:
        plans.append(read(data))
        return plans[-1]

    monkeypatch.setattr(FaultPlan, "from_data", keep)
    for setup in one.shown:
        del plans[:]
        scenario.found(one, setup)
        assert all(plan.unused() == [] for plan in plans), setup
    for setup in one.clean:
        del plans[:]
        scenario.found(one, setup)
        # Mainline allocates no entries in bulk.
        assert all(len(plan.unused()) < max(1, len(plan.rules)) for plan in plans), setup


def test_none_is_silent() -> None:
    there = {one.name.partition("-")[0] for one in SCENARIOS} | {none.name for none in UNSEEN}
    assert there == set(LATENT) | set(OF_2026) | set(NEW)
    for none in UNSEEN:
        assert none.why
    # What the crypto layer knows as a switch has a scenario, and the other way round.
    assert set(OF_2026) == acomp.DEFECTS | iaa.DEFECTS


def test_every_scenario_says_where_it_is_found_and_where_not() -> None:
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)
    for one in SCENARIOS:
        assert one.shown
        assert one.finds
        if not any(isinstance(find, Counts) for find in one.finds):
            assert one.clean, one.name
        assert not set(one.shown) & set(one.clean), one.name
        for setup in (*one.shown, *one.clean):
            assert not setup.revision or setup.revision in REVISIONS or setup.revision in POOL_CREATE
        for find in one.finds:
            assert 0 <= find.at < len(one.steps)


@pytest.mark.parametrize(("which", "same"), [("L13", ("v14", "mainline-7.0")), ("L19", ("v14", "mainline-7.0", "v14-meant"))])
def test_of_what_is_no_defect_nothing_parts(which: str, same: tuple[str, ...]) -> None:
    one = next(one for one in SCENARIOS if one.name == which)
    first = ScenarioSetup(same[0])
    for other in same[1:]:
        # Writeback is asked for at another place: an order of effects, no difference in any of them.
        assert {found.respect for found in partings(one, first, ScenarioSetup(other))} <= {"order"}, other


@pytest.mark.parametrize(("compressor", "bytes_twice"), [("lz4", 21), ("lz4hc", 21), ("lzo", 86), ("lzo-rle", 88)])
def test_l1_with_every_compressor_that_can_give_a_page(compressor: str, bytes_twice: int) -> None:
    """Lengths of exactly a page: of those that were seen on a kernel with v14, lz4, lzo and lzo-rle."""
    one = next(one for one in SCENARIOS if one.name == "L1")
    page = known.repeat_in_noise(bytes_twice)
    one = dataclasses.replace(one, compressor=compressor, steps=(Operation("writeout", 16, 0, (page,)), one.steps[1]))
    assert meets(one.finds[0], one, ScenarioSetup("v14"))
    for setup in one.clean:
        assert dirty(one.finds[0], one, setup) == [], setup


def test_l13_of_v14_is_what_mainline_does_and_not_what_v8_does() -> None:
    one = next(one for one in SCENARIOS if one.name == "L13")
    forms = {revision: outcomes(one, ScenarioSetup(revision))[0].stored for revision in ("v14", "mainline-7.3", "v8")}
    assert forms == {"v14": {16: (4096, True)}, "mainline-7.3": {16: (4096, True)}, "v8": {}}


def test_what_finds_something_knows_no_scenario() -> None:
    """The oracles neither import the corpus nor name a defect or a revision of it."""
    for module in (freerun, parting, scenario):
        source = inspect.getsource(module)
        imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
        assert "replay.revdiff.defects" not in imported
    for module in (freerun, parting):
        source = inspect.getsource(module)
        for revision in REVISIONS:
            if "-" in revision:
                assert f'"{revision}"' not in source


def test_the_document_has_the_table() -> None:
    """Make it again with: python -m replay.revdiff.defects --markdown."""
    assert table() in DOCUMENT.read_text()


def test_the_command_runs_one_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["L1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("L1 on v14, operation 1: the page read back at swap entry 0x10 is not the page written")
    assert "L1 on v14-meant: nothing" in lines
    assert main(["L99"]) == 2
    assert "no scenario is called 'L99'" in capsys.readouterr().err


def test_the_command_says_when_a_scenario_does_not_show(monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    one = SCENARIOS[0]
    wrong = Scenario(one.name, one.where, one.what, one.steps, one.clean[:1], one.finds, one.shown[:1])
    monkeypatch.setattr("replay.revdiff.defects.SCENARIOS", (wrong,))
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "NOT FOUND: invariant: data" in out
    assert "L1 on v14: FOUND: the page read back" in out


def test_as_a_module_it_prints_the_table() -> None:
    done = subprocess.run([sys.executable, "-m", "replay.revdiff.defects", "--markdown"], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == table()


def test_operations_of_one_kind_only() -> None:
    one = next(one for one in SCENARIOS if one.name == "L9")
    with pytest.raises(ValueError, match="not zswap's"):
        outcomes(one, ScenarioSetup("v14"))
    assert all(isinstance(step, Operation) for step in SCENARIOS[0].steps)
    assert isinstance(SCENARIOS[1].finds[2], Parts)
