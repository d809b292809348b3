# SPDX-License-Identifier: GPL-2.0-or-later
"""What --keep-going finds behind a first difference: what may follow from it is said to, and is not counted as its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tampering import STARTS, Tampered

import replay
import traces
from model.crypto import compressor_for
from model.crypto import knownanswers as known
from replay.cli import main
from replay.formats.subtests import SubtestNames, judge
from replay.many.jobs import JobOutcome, ReplayJob
from replay.reference.checks import CHECKS, Divergence, Tally, counter_check
from replay.tools.synthetic import ImaginaryKernel
from replay.verdict.run import others
from traces import schema

OTHER = counter_check("any")


def changed(sample: Path, name: str, number: int, **values: int) -> Tampered:
    recording = Tampered(sample)
    rows = np.flatnonzero(recording.columns["event"] == schema.CODE[name])
    for column, value in values.items():
        recording.columns[column][rows[number]] += value
    return recording


def without(recording: Tampered, rows: range) -> None:
    """Take events out."""
    keep = np.delete(np.arange(len(recording)), rows)
    recording.columns = {name: values[keep] for name, values in recording.columns.items()}


def of(result: replay.Result, check: str) -> Any:
    return next(each for each in result.checks if each.id == check)


def test_what_follows_from_a_place_is_not_counted_as_a_fault_of_its_own(samples: dict[str, Path]) -> None:
    """One freed slot goes unseen: its object's place is given out again, and so on."""
    recording = Tampered(samples["7.3-lz4-4k"])
    codes = recording.columns["event"]
    starts = np.flatnonzero(np.isin(codes, [schema.CODE[name] for name in STARTS]))
    freed = next(n for n, row in enumerate(starts) if schema.NAMES[codes[row]] == "zswap_invalidate"
                 and schema.NAMES[codes[row + 1]] == "zswap_entry_free")
    without(recording, range(starts[freed], starts[freed + 1]))
    result = replay.replay(recording, keep_going=True, engine="reference")
    first, *further = result.divergences
    assert (first.check.split(".")[0], first.follows) == ("zsmalloc", None)
    assert len(further) > 50
    assert {each.follows for each in further if not CHECKS.get(each.check, OTHER).own} == {first.event}
    assert sum(check.independent for check in result.checks) < sum(check.following for check in result.checks)


def test_an_order_that_differs_takes_everything_behind_it_along(samples: dict[str, Path]) -> None:
    recording = Tampered(samples["7.2-lz4-edge"])
    row = int(np.flatnonzero(recording.columns["event"] == schema.CODE["zs_free"])[3])
    without(recording, range(row, row + 1))
    result = replay.replay(recording, keep_going=True)
    assert result.divergences[0].check == "effect.order"
    assert len(result.divergences) > 10
    assert {each.follows for each in result.divergences[1:]} == {result.divergences[0].event}
    assert sum(check.independent for check in result.checks) == 1
    assert of(result, "effect.order").differences == "1"
    other = next(check for check in result.checks if check.following and not check.independent)
    assert other.differences == f"0 +{other.following}"


def test_what_the_operation_itself_shows_is_a_fault_of_its_own(samples: dict[str, Path]) -> None:
    """A compress call of another page is wrong whatever came before."""
    recording = changed(samples["7.2-lz4-edge"], "obj_malloc_ret", 10, inuse=1)
    rows = np.flatnonzero(recording.columns["event"] == schema.CODE["crypto_acomp_compress"])
    recording.columns["offset"][rows[-1]] += 1
    result = replay.replay(recording, keep_going=True)
    assert [each.follows for each in result.divergences if each.check == "acomp.calls"] == [None]
    assert of(result, "acomp.calls").independent == 1


def test_two_lengths_are_two_faults(samples: dict[str, Path]) -> None:
    """The model takes the recorded length over: nothing follows from the first."""
    recording = changed(samples["7.2-lz4-edge"], "zs_get_total_pages_ret", 3, ret=1)
    rows = np.flatnonzero(recording.columns["event"] == schema.CODE["zs_get_total_pages_ret"])
    recording.columns["ret"][rows[5]] += 1
    result = replay.replay(recording, keep_going=True)
    assert [(each.check, each.follows) for each in result.divergences] == [("zsmalloc.pages", None)] * 2


def test_a_counter_that_stays_wrong_is_wrong_once() -> None:
    tally = Tally()
    for event, recorded, predicted in ((10, 5, 4), (20, 8, 7), (30, 9, 7), (40, 12, 10)):
        tally.differ(Divergence("counter.zswap.stored_pages", event, "counters", recorded, predicted, "", 0, 0, 0))
    assert [each.follows for each in tally.divergences] == [None, 10, None, 30]
    assert tally.following == {"counter.zswap.stored_pages": 2}


def test_a_difference_that_was_not_asked_for_is_a_cause_all_the_same(samples: dict[str, Path]) -> None:
    recording = changed(samples["7.2-lz4-edge"], "obj_malloc_ret", 10, inuse=1)
    whole = replay.replay(recording, keep_going=True)
    first = whole.divergences[0].event
    some = {each.check for each in whole.divergences} - {"zsmalloc.place"}
    result = replay.replay(recording, checks=some or {"zsmalloc.fullness"}, keep_going=True)
    assert {each.follows for each in result.divergences} <= {first}


def test_harnesses_are_told(samples: dict[str, Path]) -> None:
    recording = Tampered(samples["7.2-lz4-edge"])
    row = int(np.flatnonzero(recording.columns["event"] == schema.CODE["zs_free"])[3])
    without(recording, range(row, row + 1))
    result = replay.replay(recording, keep_going=True)
    cases = {case.name: case for case in judge(ReplayJob(0, "r", None, "", {}), JobOutcome(0, result), SubtestNames()).cases}
    assert [name for name, case in cases.items() if case.status == "fail"] == ["effect.order"]
    assert cases["effect.order"].text.endswith(", different 1")
    only = next(check for check in result.checks if check.following and not check.independent)
    assert cases[only.id].status == "skip"
    assert f"different 0, {only.following} more may follow" in cases[only.id].text


def test_people_and_programs_are_told(samples: dict[str, Path], tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", str(samples["7.3-lz4-4k"]), "--revision", "v14", "--keep-going", "--no-pages"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "differences that may follow from an earlier one: kernel and model have been in" in " ".join(out.split())
    assert out.count("(may follow from the difference at event 521)") == 99
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["divergences"][0]["follows"] is None
    assert {each["follows"] for each in found["divergences"][1:]} == {521}
    order = next(check for check in found["checks"] if check["id"] == "effect.order")
    assert order["different"] - order["following"] == 1
    assert replay.Result.from_dict(found).as_dict() == {k: v for k, v in found.items() if k != "schema"} | {
        "divergences": replay.Result.from_dict(found).as_dict()["divergences"]}


def test_other_revisions_are_tried_with_the_same_pages(tmp_path: Path) -> None:
    """A kernel that compresses as no 7.x does: without lengths they would all explain it."""
    old, new = compressor_for("zstd", "mainline-6.12"), compressor_for("zstd", "mainline-7.3")
    pages = [page for name, page in known.pages() if old.compress(page).dlen != new.compress(page).dlen]
    assert pages
    kernel = ImaginaryKernel("mainline-7.3", pages=pages, compressor=old)
    for slot in range(8):
        kernel.store(slot)
    kernel.write(tmp_path / "r")
    recording = traces.open_recording(tmp_path / "r")
    result = replay.replay(recording, "mainline-7.3")
    assert result.divergences[0].check == "store.length"
    assert others(recording, result) == []
    assert "mainline-7.0" in (others(recording, result, pages=False) or [])
