# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order shrink_worker() may come to cgroups: what a hierarchy allows is never refused, what it does not is."""

from __future__ import annotations

import random

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from tampering import Tampered

from model.worker import WorkerCursor
from replay.fast import layout as L
from replay.fast.cursor import OUT_OF_ORDER, comes_to, gone, holds, pass_over, show_cursor, take_cursor
from replay.verdict.run import replay
from traces import schema

SAMPLES = ROOT / "traces" / "samples"
HERE = 0xFFFF_8880_0000_0000


class Hierarchy:
    """Cgroups in pre-order, the cursor of the worker, and zswap_memcg_offline_cleanup()."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.order = [HERE]
        self.cursor: int | None = None
        self.next = HERE + 0x1000

    def advance(self) -> int | None:
        """mem_cgroup_iter(NULL, zswap_next_shrink, NULL)"""
        at = -1 if self.cursor is None else self.order.index(self.cursor)
        self.cursor = self.order[at + 1] if at + 1 < len(self.order) else None
        return self.cursor

    def create(self) -> None:
        # Behind any that is there: a child of it, or its sibling.
        self.order.insert(self.draw.randrange(1, len(self.order) + 1), self.next)
        while self.next in self.order:
            self.next += 0x1000

    def remove(self) -> int | None:
        if len(self.order) == 1:
            return None
        cgroup = self.draw.choice(self.order[1:])
        if self.cursor == cgroup:
            self.advance()
        self.order.remove(cgroup)
        if self.draw.random() < 0.5:
            self.next = cgroup  # the next one gets its address
        return cgroup


@given(st.integers(0, 1 << 32), st.integers(0, 6), st.integers(1, 120))
@settings(max_examples=300, deadline=None)
def test_no_hierarchy_is_refused_its_order(seed: int, cgroups: int, steps: int) -> None:
    draw = random.Random(seed)
    box, cursor, m = Hierarchy(draw), WorkerCursor(), empty()
    for _ in range(cgroups):
        box.create()
    if draw.random() < 0.5 and len(box.order) > 1:
        box.cursor = draw.choice(box.order)  # the recording begins in the middle of a pass
    for _ in range(steps):
        what = draw.random()
        if what < 0.1:
            box.create()
        elif what < 0.2:
            left = box.remove()
            if left is not None:
                cursor.gone(left)
                gone(m, signed(left))
        else:
            came = box.advance()
            while came not in (None, HERE) and draw.random() < 0.1:
                came = box.advance()  # that one was not online: the cursor does not rest there (the root always is)
            if came is None:
                cursor.pass_over()
                pass_over(m)
            else:
                said = cursor.comes_to(came)
                assert said is not False
                assert comes_to(m, signed(came)) == (1 if said else 0)
        assert holds(cursor)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def empty() -> np.ndarray:
    m = np.zeros(L.SCALARS, np.int64)
    take_cursor(m, WorkerCursor())
    return m


@given(st.lists(st.tuples(st.sampled_from(["come", "over", "gone", "hand over"]), st.integers(1, 6)), max_size=60))
@settings(max_examples=300, deadline=None)
def test_compiled_code_says_the_same_of_any_order(steps: list[tuple[str, int]]) -> None:
    cursor, m = WorkerCursor(), empty()
    for what, which in steps:
        cgroup = HERE + which
        if what == "over":
            cursor.pass_over()
            pass_over(m)
        elif what == "gone":
            cursor.gone(cgroup)
            gone(m, signed(cgroup))
        elif what == "hand over":
            other = WorkerCursor()
            show_cursor(m, other)
            m = empty()
            take_cursor(m, other)
        else:
            said = cursor.comes_to(cgroup)
            assert comes_to(m, signed(cgroup)) == (OUT_OF_ORDER if said is False else 1 if said else 0)
            if said is False:
                return


def passes(*sequence: int | None) -> list[bool | None]:
    cursor = WorkerCursor()
    out = []
    for cgroup in sequence:
        if cgroup is None:
            cursor.pass_over()
        else:
            out.append(cursor.comes_to(cgroup))
    return out


def test_one_cgroup_drained_before_the_next_is_out_of_order() -> None:
    assert passes(None, 1, 2, 2)[-1] is False
    assert passes(7, 7)[-1] is False, "also before the first end of a pass"
    assert passes(None, 1, 2, 3, 2)[-1] is False


def test_a_pass_keeps_to_the_order_of_the_one_before() -> None:
    assert passes(None, 1, 2, 3, None, 1, 2, 3) == [True, None, None, True, True, True]
    assert passes(None, 1, 2, 3, None, 1, 3, 2)[-1] is False
    assert passes(None, 1, 2, 3, None, 2)[-1] is False, "a pass begins at the root"
    assert passes(None, 1, 3, None, 1, 2, 3) == [True, None, True, None, True], "a new one in between"


def test_a_pass_that_ends_unseen_begins_at_the_root_again() -> None:
    assert passes(None, 1, 2, 1, 2) == [True, None, None, True]


def test_without_cgroups_there_is_no_order() -> None:
    assert passes(0, 0, None, 0) == [None, None, None]


def test_real_workers_keep_to_it() -> None:
    recording = Tampered(SAMPLES / "7.3-lz4-limits")
    assert "shrink.worker" not in {check.id for check in replay(recording).checks if check.compared}
    # It was recorded without this probe; no cgroup went away.
    recording.manifest["probes"]["memcg_reparent_list_lrus"] = {"columns": ["memcg", "pool"]}
    result = replay(recording)
    found = next(check for check in result.checks if check.id == "shrink.worker")
    assert result.verdict == "PASS"
    assert found.compared
    assert not found.different


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_worker_that_comes_to_a_cgroup_twice_fails(engine: str) -> None:
    recording = Tampered(SAMPLES / "7.3-lz4-limits")
    recording.manifest["probes"]["memcg_reparent_list_lrus"] = {"columns": ["memcg", "pool"]}
    events, memcg = recording.columns["event"], recording.columns["memcg"]
    code = {name: schema.CODE[name] for name in ("shrink_worker", "shrink_worker_ret", "shrink_memcg", "zs_get_total_pages_ret")}
    # Within a run of the worker: a cgroup, the pool's total, the next one.
    inside = False
    seen: list[int] = []
    for row in range(len(recording)):
        if events[row] in (code["shrink_worker"], code["shrink_worker_ret"]):
            inside, seen = events[row] == code["shrink_worker"], []
        elif inside and events[row] == code["shrink_memcg"]:
            seen.append(row)
            if len(seen) == 2 and memcg[seen[0]] != memcg[seen[1]]:
                break
    memcg[seen[1]] = memcg[seen[0]]
    result = replay(recording, engine=engine)
    assert result.verdict == "FAIL"
    first = result.divergences[0]
    assert (first.check, first.event, first.recorded) == ("shrink.worker", seen[1], memcg[seen[0]])
