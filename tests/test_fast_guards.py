# SPDX-License-Identifier: GPL-2.0-or-later
"""What locks and the swap cache rule out, in the compiled engine: it is left to the reference, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_fast import both

import traces
from replay.fast import layout as L
from replay.fast.compact import compact_step
from replay.fast.entry import entry_step
from replay.fast.memory import Heap
from replay.fast.rows import (
    end_entry,
    fix_fullness,
    free_zspage,
    fullness,
    new_entry,
    new_object,
    new_zspage,
    release,
    take,
)
from replay.fast.store import store_step
from replay.fast.tables import find, group_first, group_insert, group_remove, keep
from replay.fast.tasks import operation, task_of
from replay.tools.synthetic import ImaginaryKernel, write_recording
from traces import schema

SWPENT = 77
EVENT, PID = (schema.column_names().index(name) for name in ("event", "pid"))


@pytest.fixture
def heap() -> np.ndarray:
    """The tables of an empty pool."""
    m = Heap(8, 128).m
    m[L.NOW] = 0
    return m


def a_zspage(m: np.ndarray, raw: int = 20) -> int:
    """A listed zspage of a size class, empty."""
    zspage = int(new_zspage(m, m[L.CLASS_OF + raw]))
    group_insert(m, zspage, fullness(m, zspage))
    return zspage


def an_operation(m: np.ndarray, name: str, state: int, **registers: int) -> int:
    f = int(operation(m, schema.CODE[name], task_of(m, 5), 0, state))
    for register, value in registers.items():
        m[f + getattr(L, f"Q_{register}")] = value
    return f


def an_entry(m: np.ndarray) -> int:
    """An entry with an object, in the tree."""
    zspage, obj, entry = a_zspage(m), int(new_object(m, 300)), int(new_entry(m, SWPENT))
    take(m, zspage, obj)
    fix_fullness(m, zspage)
    m[entry + L.E_OBJ], m[entry + L.E_LENGTH] = obj, 300
    m[L.TREE] += keep(m, L.TREE_AT, SWPENT, entry)
    return entry


def test_a_full_zspage_takes_no_object(heap: np.ndarray) -> None:
    zspage = a_zspage(heap)
    objs = int(heap[heap[zspage + L.Z_CLASS] + L.K_OBJS])
    assert [take(heap, zspage, new_object(heap, 300)) for _ in range(objs)] == list(range(objs))
    before = heap[:heap[L.TOP]].copy()
    assert take(heap, zspage, 12345) == L.UNKNOWN
    assert (heap[:heap[L.TOP]] == before).all()


def test_a_place_is_given_back_once_and_by_its_object(heap: np.ndarray) -> None:
    zspage, obj, other = a_zspage(heap), new_object(heap, 300), new_object(heap, 300)
    take(heap, zspage, obj)
    assert release(heap, zspage, 0, other) == L.UNKNOWN
    assert release(heap, zspage, 0, obj) == 0
    before = heap[:heap[L.TOP]].copy()
    assert release(heap, zspage, 0, obj) == L.UNKNOWN
    assert (heap[:heap[L.TOP]] == before).all()


def test_a_zspage_on_no_list_is_not_taken_off_one(heap: np.ndarray) -> None:
    zspage = a_zspage(heap)
    group_remove(heap, zspage)
    before = heap[:heap[L.TOP]].copy()
    assert fix_fullness(heap, zspage) == L.UNKNOWN
    assert free_zspage(heap, zspage) == L.UNKNOWN
    assert (heap[:heap[L.TOP]] == before).all()
    group_insert(heap, zspage, fullness(heap, zspage))
    assert free_zspage(heap, zspage) == 0
    assert free_zspage(heap, zspage) == L.UNKNOWN
    assert group_first(heap, heap[zspage + L.Z_CLASS], 0, 12, 1) < 0


@pytest.mark.parametrize("freed", [False, True])
def test_an_entry_that_was_freed_is_not_listed(heap: np.ndarray, freed: bool) -> None:
    entry = an_entry(heap)
    f = an_operation(heap, "zswap_store", L.P_LRU, ENTRY=entry, GEN=int(heap[entry + L.E_GEN]), ANSWER2=1)
    if freed:
        end_entry(heap, entry)
    state = store_step.py_func(heap, f, L.P_LRU, 0, 1, 99, 0, 0)
    assert state == (L.UNKNOWN if freed else L.P_LRU_RET)
    assert (heap[L.LISTS] >= 0) == (not freed)


@pytest.mark.parametrize(("state", "then"), [(L.L_FREE, 0), (L.D_GOOD, 1)])
@pytest.mark.parametrize("held", ["it", "another", "nothing"])
def test_only_who_takes_an_entry_out_of_the_tree_frees_it(heap: np.ndarray, state: int, then: int, held: str) -> None:
    entry = an_entry(heap)
    f = an_operation(heap, "zswap_load", state, READ=entry, GEN=int(heap[entry + L.E_GEN]), SWPENT=SWPENT,
                     VICTIM_SWPENT=SWPENT, READ_THEN=then)
    heap[L.KIND_612] = 0
    if held == "another":
        keep(heap, L.TREE_AT, SWPENT, new_entry(heap, SWPENT))
    elif held == "nothing":
        entry_step.py_func(heap, an_operation(heap, "zswap_invalidate", L.I_START, SWPENT=SWPENT), L.I_START, 0, 0, 0)
    assert entry_step.py_func(heap, f, state, 0, 0, 0) == (L.F_START if held == "it" else L.UNKNOWN)
    if held == "it":
        assert find(heap, L.TREE_AT, SWPENT) < 0


@pytest.mark.parametrize("gone", [False, True])
def test_compaction_moves_what_is_still_there(heap: np.ndarray, gone: bool) -> None:
    source, target, obj = a_zspage(heap), a_zspage(heap), int(new_object(heap, 300))
    take(heap, source, obj)
    f = an_operation(heap, "zs_compact", L.C_OBJ, SRC=source, DST=target, AT=0, OBJ=obj,
                     CLASS=int(heap[source + L.Z_CLASS]))
    if gone:
        release(heap, source, 0, obj)
    assert compact_step.py_func(heap, f, L.C_OBJ, 0) == (L.UNKNOWN if gone else L.C_OBJ_RET)
    assert heap[target + L.Z_INUSE] == (not gone)
    if not gone:
        # Moved: its old place is given back by compaction, and by nobody else.
        assert compact_step.py_func(heap, f, L.C_FREE, 0) != L.UNKNOWN
        assert compact_step.py_func(heap, f, L.C_FREE, 0) == L.UNKNOWN


def _load_twice(kernel: ImaginaryKernel) -> None:
    kernel.load(7)
    kernel.load(7)


def _load_and_invalidate(kernel: ImaginaryKernel) -> None:
    kernel.load(7)
    kernel.invalidate(7)


def _store_and_invalidate(kernel: ImaginaryKernel) -> None:
    kernel.store(50)
    kernel.invalidate(50)


def _store_twice(kernel: ImaginaryKernel) -> None:
    kernel.store(50)
    kernel.store(50)


@pytest.mark.parametrize("deed", [_load_twice, _load_and_invalidate, _store_and_invalidate, _store_twice])
@pytest.mark.parametrize("same", [False, True])
def test_two_tasks_at_one_slot_at_once(tmp_path: Path, deed: Any, same: bool) -> None:
    """As no kernel lets them: what one does, with what the other does (or the same again) put into its middle."""
    kernel = ImaginaryKernel("mainline-7.3")
    for slot in range(20):
        kernel.store(slot)
    begun = len(kernel.rows)
    deed(kernel)
    ended = len(kernel.rows)
    for slot in range(60, 80):
        kernel.store(slot)
    kernel.load(60)
    # Behind the last place at which an operation begins is the second one.
    start = max(row for row in range(begun, ended)
                if schema.NAMES[kernel.rows[row][EVENT]] in ("swap_writeout", "zswap_load", "zswap_invalidate"))
    first, second = kernel.rows[begun:start], kernel.rows[start:ended]
    second = [[*row[:PID], 200, *row[PID + 1:]] for row in (first if same else second)]
    before, after = kernel.rows[:begun], kernel.rows[ended:]
    differing = 0
    for cut in range(1, len(first), max(1, len(first) // 8)):
        for other in sorted({1, 2, len(second) // 2, len(second)} - {0}):
            kernel.rows = [*before, *first[:cut], *second[:other], *first[cut:], *second[other:], *after]
            block = kernel.block()
            block[0] = np.arange(1, block.shape[1] + 1) * 1000
            path = tmp_path / f"{cut}-{other}"
            write_recording(str(path), block)
            for keep_going in (False, True):
                result = both(traces.open_recording(path), pages=False, keep_going=keep_going)
                differing += result.verdict != "PASS"
                # What a divergence says of the model's things is what the recording calls them, the same every time.
                assert "object at 0x" not in repr(result.divergences)
    assert differing
