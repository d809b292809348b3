# SPDX-License-Identifier: GPL-2.0-or-later
"""Columns that a probe read from the wrong place are found by other events, and not compared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.tools.synthetic import ImaginaryKernel
from traces import schema
from traces.block import Block
from traces.importers.tasks import TaskNumbers
from traces.importers.wrongoffsets import MisreadColumns

_COLUMN = {name: number for number, name in enumerate(schema.column_names())}


def _block() -> np.ndarray:
    kernel = ImaginaryKernel()
    for slot in range(40):
        kernel.store(slot)
    for slot in range(40):
        kernel.load(slot)
    return kernel.block()


def _captured() -> dict[str, list[str]]:
    return {"zswap_decompress": ["entry", "handle", "size", "swpent"],
            "zswap_entry_free": ["handle", "ref", "size", "swpent"],
            "zs_obj_read": ["handle", "size"], "obj_cgroup_uncharge_zswap": ["memcg", "size"],
            "zs_free": ["handle", "pool"], "zswap_load": ["folio", "swpent"], "zswap_load_ret": ["ret"],
            "crypto_acomp_decompress": ["dlen", "size"], "obj_malloc_ret": ["freeobj", "inuse", "obj", "word", "zspage"],
            "fix_fullness_group": ["inuse", "pool", "word", "zspage"]}


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
    note, *more = _notes(block, captured)
    assert note.startswith(f"{event}'s {column} is not what its name says in ")
    # The referenced bit has no witness: it goes with its structure.
    unproven = {("zswap_entry_free", "ref")} - {(event, column)}
    assert more == ["zswap_entry_free's ref: read from the same struct zswap_entry, and no other event shows that from "
                    "the right place: not compared"] * len(unproven)
    assert {(name, gone) for name in captured for gone in set(_captured()[name]) - set(captured[name])} \
        == {(event, column)} | unproven


@pytest.mark.parametrize("blind", [("zs_free", "handle"), ("zswap_load", "swpent")])
def test_a_column_without_a_witness_goes_with_its_structure(blind: tuple[str, str]) -> None:
    block, captured = _block(), _captured()
    rows = block[_COLUMN["event"]] == schema.CODE["zswap_entry_free"]
    block[_COLUMN["size"], rows] |= 1 << 31  # length:31, referenced:1
    captured[blind[0]].remove(blind[1])
    _, note = _notes(block, captured)
    assert f"zswap_entry_free's {blind[1]}" in note
    assert blind[1] not in captured["zswap_entry_free"]
    assert blind[1] in captured["zswap_decompress"] or blind[1] == "swpent", "an object read has its handle"


def test_a_witness_of_the_same_structure_counts_where_others_speak_for_it() -> None:
    """zs_free() confirms the handle of the entry freed, and that handle the one of the entry read."""
    for without in ("zs_obj_read", "zs_free"):
        block, captured = _block(), _captured()
        rows = block[_COLUMN["event"]] == schema.CODE["zswap_decompress"]
        block[_COLUMN["size"], rows] |= 1 << 31
        for name in {"zs_obj_read", without}:
            del captured[name]
        _notes(block, captured)
        assert ("handle" in captured["zswap_decompress"]) == (without == "zs_obj_read")


def test_bit_fields_of_a_length_are_found_where_objects_are_not_read() -> None:
    """crypto_acomp_decompress() has the length as well; and no length is above a page's."""
    for without in ((), ("crypto_acomp_decompress",)):
        block, captured = _block(), _captured()
        for name in ("zs_obj_read", *without):
            del captured[name]
        block[_COLUMN["size"], block[_COLUMN["event"]] == schema.CODE["zswap_decompress"]] |= 1 << 31
        assert _notes(block, captured)[0].startswith("zswap_decompress's size is not what its name says in ")
        assert "size" not in captured["zswap_decompress"]


def test_a_zspage_without_its_magic() -> None:
    block, captured = _block(), _captured()
    block[_COLUMN["word"], block[_COLUMN["event"]] == schema.CODE["obj_malloc_ret"]] = 0x1234
    notes = _notes(block, captured)
    assert "obj_malloc_ret's word is not what its name says" in notes[0]
    assert {"word", "inuse", "freeobj"} & set(captured["obj_malloc_ret"]) == set()
    assert "inuse" not in captured["fix_fullness_group"]


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
