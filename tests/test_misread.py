# SPDX-License-Identifier: GPL-2.0-or-later
"""Columns that a probe read from the wrong place are found by what other events say, and not compared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.synthetic import ImaginaryKernel
from traces import schema
from traces.block import Block
from traces.importers.misread import MisreadColumns
from traces.importers.tasks import TaskNumbers

_COLUMN = {name: number for number, name in enumerate(schema.column_names())}


def _block() -> np.ndarray:
    kernel = ImaginaryKernel()
    for slot in range(40):
        kernel.store(slot)
    for slot in range(40):
        kernel.load(slot)
    return kernel.block()


def _captured() -> dict[str, list[str]]:
    return {"zswap_decompress": ["entry", "handle", "size", "swpent"], "zswap_entry_free": ["handle", "ref", "size"],
            "zs_obj_read": ["handle", "size"], "obj_cgroup_uncharge_zswap": ["memcg", "size"]}


def _notes(block: np.ndarray, captured: dict[str, list[str]]) -> list[str]:
    columns, whole = MisreadColumns(), Block.of(block)
    cuts = [len(whole) * third // 3 for third in range(4)]
    for begin, end in itertools.pairwise(cuts):
        part = whole.part(begin, end)
        columns.add(part, TaskNumbers().of(part.pid))
    return columns.withdraw(captured)


def test_what_is_right_stays() -> None:
    captured = _captured()
    assert _notes(_block(), captured) == []
    assert captured == _captured()


@pytest.mark.parametrize(("event", "column"), [("zswap_decompress", "size"), ("zswap_entry_free", "size"),
                                               ("zswap_entry_free", "ref")])
def test_a_column_that_is_wrong_throughout_is_withdrawn(event: str, column: str) -> None:
    block, captured = _block(), _captured()
    rows = np.flatnonzero(block[_COLUMN["event"]] == schema.CODE[event])
    block[_COLUMN[column], rows] = 0x81
    (note,) = _notes(block, captured)
    assert note.startswith(f"{event}'s {column} is not what its name says in ")
    assert column not in captured[event]
    assert {name: set(_captured()[name]) - set(captured[name]) for name in captured} \
        == {name: {column} if name == event else set() for name in captured}


@given(place=st.integers(0, 39), value=st.integers(0, 1 << 31))
@settings(deadline=None)
def test_one_wrong_value_is_left_for_the_replay(place: int, value: int) -> None:
    block, captured = _block(), _captured()
    for event in ("zswap_decompress", "zswap_entry_free"):
        row = np.flatnonzero(block[_COLUMN["event"]] == schema.CODE[event])[place]
        block[_COLUMN["size"], row] = value
    assert _notes(block, captured) == []
    assert captured == _captured()


def test_a_witness_that_was_not_read_says_nothing() -> None:
    # zs_map_object() of 6.12 has no length.
    block, captured = _block(), _captured()
    block[_COLUMN["size"], block[_COLUMN["event"]] == schema.CODE["zs_obj_read"]] = 0
    captured["zs_obj_read"] = ["handle"]
    assert _notes(block, captured) == []
    assert "size" in captured["zswap_decompress"]


def test_tasks_are_numbered_as_they_appear() -> None:
    """More of them than there is room for at first."""
    chance = np.random.default_rng(3)
    tasks, known = TaskNumbers(), {}
    for count in (0, 60, 5, 3000, 100):
        pid = chance.integers(-2, 1500, count).astype(np.int32)
        assert tasks.of(pid).tolist() == [known.setdefault(one, len(known)) for one in pid.tolist()]
    assert tasks.pids.tolist() == list(known)
