# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as a difference between two engines' results."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest

from replay.reference.checks import Divergence
from replay.verdict.engineagreement import difference
from replay.verdict.result import CheckResult, Result
from replay.verdict.run import NOT_COMPILED


@pytest.fixture
def result() -> Result:
    """A result with something in every field."""
    divergence = Divergence("store.length", 17, "crypto_acomp_compress_ret", 100, 101, "length", 5, 12, 0,
                            (("zswap_store", 11),), {"stored_pages": 3}, {"total": 4}, ("one", "two"))
    return Result("FAIL", "rec", "mainline-7.2", "Linux 7.2", "7.2.13", "lz4", 40,
                  [CheckResult("effect.order", 30, 0, "exact", ""), CheckResult("store.length", 9, 1, "exact", "")],
                  [divergence], ["a reason"], {"counters": 2}, 1,
                  ["a note", "7 distinct pages compressed, 0 results kept from before"], ["mainline-7.3"],
                  {"compress": 1.0, "replay": 2.0}, branches={"zs_malloc.new": 1}, taken=["a decision"],
                  unseen=["an effect"])


def test_an_engine_may_say_what_it_is(result: Result) -> None:
    other = dataclasses.replace(
        result, seconds={"compress": 0.1, "replay": 0.2}, engine="fast", compiled=39,
        notes=["a note", "0 distinct pages compressed, 7 results kept from before", NOT_COMPILED + "no reason"])
    assert difference(result, other) == ""
    assert difference(result, copy.deepcopy(result)) == ""


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Result)
                                   if field.name not in ("seconds", "engine", "compiled")])
def test_every_field_counts(result: Result, field: str) -> None:
    value = getattr(result, field)
    other: Any = value + 1 if isinstance(value, int) else f"{value}?" if isinstance(value, str) else \
        {**value, "else": 1} if isinstance(value, dict) else [*value[:-1], *value[-1:] * 2]
    assert difference(result, dataclasses.replace(result, **{field: other})).startswith(field)


@pytest.mark.parametrize(("field", "changed"), [
    ("check", "store.bytes"), ("event", 18), ("name", "zs_malloc"), ("recorded", 99), ("predicted", 99), ("what", ""),
    ("ts", 6), ("pid", 13), ("cpu", 1), ("path", (("zswap_store", 12),)), ("state", {"stored_pages": 4}),
    ("kernel", {}), ("context", ("one", "three"))])
def test_everything_of_a_divergence_counts(result: Result, field: str, changed: Any) -> None:
    divergence = dataclasses.replace(result.divergences[0], **{field: changed})
    sentence = difference(result, dataclasses.replace(result, divergences=[divergence]))
    assert sentence.startswith(f"divergences[0].{field}")


def test_the_first_difference_is_told_with_both_values(result: Result) -> None:
    checks = [dataclasses.replace(result.checks[0], compared=31), dataclasses.replace(result.checks[1], different=0)]
    assert difference(result, dataclasses.replace(result, checks=checks)) == \
        "checks[0].compared: 30 by the reference, 31 by compiled code"
    assert difference(result, dataclasses.replace(result, checks=result.checks[:1])) == \
        "checks: how many: 2 by the reference, 1 by compiled code"


def test_order_and_types_count(result: Result) -> None:
    assert difference(result, dataclasses.replace(result, checks=result.checks[::-1]))
    assert "int64" in difference(result, dataclasses.replace(result, unexplained=np.int64(1)))
    two = {"a": 1, "b": 2}
    assert "keys" in difference(dataclasses.replace(result, explained=two),
                                dataclasses.replace(result, explained=dict(reversed(two.items()))))


def test_pages_that_went_missing_count(result: Result) -> None:
    notes = ["a note", "0 distinct pages compressed, 6 results kept from before"]
    assert difference(result, dataclasses.replace(result, notes=notes)).startswith("notes[1]: \"7 distinct")
