# SPDX-License-Identifier: GPL-2.0-or-later
"""model/revisions/pool_create: whatever allocation fails, what was taken is given back, once; in v14 it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.crypto.faults import FaultPlan
from model.errno import EINVAL, ENOMEM
from model.revisions.pool_create import (
    POOL_CREATE,
    PoolCreate,
    PoolCreate70,
    PoolCreate71,
    PoolCreateV14,
    PoolCreateV14Meant,
    PoolCreateV14Patch23,
)

SOUND = [PoolCreate70, PoolCreate71, PoolCreateV14Meant]
#: allocations of a context with 8 buffers
PER_CPU = {PoolCreate70: 3, PoolCreate71: 3, PoolCreateV14Patch23: 3, PoolCreateV14: 13, PoolCreateV14Meant: 13}


def box(kind: type[PoolCreate], *calls: int, cpus: int = 2) -> PoolCreate:
    rules = [{"at": "kmalloc", "call": call, "error": "-ENOMEM"} for call in calls]
    return kind(cpus, batch=8, faults=FaultPlan.from_data(rules))


def left(pool: PoolCreate) -> int:
    return pool.ledger.live("allocation")


@pytest.mark.parametrize("kind", PER_CPU)
def test_a_pool_comes_and_goes(kind: type[PoolCreate]) -> None:
    pool = box(kind)
    assert pool.zswap_pool_create() == 0
    assert left(pool) == 2 * PER_CPU[kind]
    assert pool.zswap_compress(1) == 0
    pool.zswap_pool_destroy()
    assert (left(pool), pool.ledger.problems) == (0, [])
    assert pool.zswap_compress(1) == EINVAL


@pytest.mark.parametrize("kind", SOUND)
def test_wherever_creation_fails_everything_is_given_back_once(kind: type[PoolCreate]) -> None:
    for call in range(1, 2 * PER_CPU[kind] + 1):
        pool = box(kind, call)
        assert pool.zswap_pool_create() == ENOMEM
        assert pool.faults.unused() == []
        assert (left(pool), pool.ledger.problems) == (0, []), call


@pytest.mark.parametrize(("kind", "harmless"), [(PoolCreateV14, {1, 14}), (PoolCreateV14Patch23, {1, 2, 4, 5})])
def test_v14_frees_the_context_that_failed_twice(kind: type[PoolCreate], harmless: set[int]) -> None:
    """But where nothing of it was there yet, or only the buffer before an acomp that is an error pointer."""
    for call in range(1, 2 * PER_CPU[kind] + 1):
        pool = box(kind, call)
        assert pool.zswap_pool_create() == ENOMEM
        assert left(pool) == 0
        twice = [text for text in pool.ledger.problems if "given back but is not live" in text]
        if call in harmless and kind is PoolCreateV14:
            assert twice == []
        elif kind is PoolCreateV14:
            assert twice
        else:
            # acomp is the second allocation: its failure leaves the buffer, which is freed twice.
            assert bool(twice) == (call % 3 != 1)


def test_v14_with_buffers_3_of_the_second_cpu() -> None:
    pool = box(PoolCreateV14, 13 + 3 + 4)
    assert pool.zswap_pool_create() == ENOMEM
    texts = pool.ledger.problems
    for member in ("req", "acomp", "buffers[0]", "buffers[1]", "buffers[2]", "buffers"):
        assert f"allocation '{member} of CPU 1' is given back but is not live" in texts
    assert "allocation 'buffers of CPU 1' is used but is not live" in texts, "the array is read after it was freed"
    assert not any("CPU 0" in text or "buffers[3]" in text for text in texts)


@pytest.mark.parametrize("kind", [*SOUND, PoolCreateV14, PoolCreateV14Patch23])
def test_a_cpu_that_comes_back_finds_its_context(kind: type[PoolCreate]) -> None:
    pool = box(kind)
    assert pool.zswap_pool_create() == 0
    pool.cpu_offline(1)
    assert left(pool) == PER_CPU[kind] * (1 if kind is PoolCreate70 else 2)
    assert pool.zswap_compress(1) == EINVAL
    assert pool.cpu_online(1) == 0
    assert pool.zswap_compress(1) == 0
    pool.zswap_pool_destroy()
    assert (left(pool), pool.ledger.problems) == (0, [])


@pytest.mark.parametrize("kind", [PoolCreateV14, PoolCreateV14Patch23])
def test_v14_takes_a_freed_context_for_ready(kind: type[PoolCreate]) -> None:
    pool = box(kind, 2 * PER_CPU[kind] + 3)
    assert pool.zswap_pool_create() == 0
    assert pool.cpu_online(2) == ENOMEM
    assert 2 not in pool.online
    assert pool.cpu_online(2) == 0
    assert pool.ledger.problems == []
    assert pool.zswap_compress(2) == 0
    assert "allocation 'acomp of CPU 2' is used but is not live" in pool.ledger.problems


def test_v14_takes_an_error_pointer_for_ready() -> None:
    pool = box(PoolCreateV14, 2 * 13 + 1)
    assert pool.zswap_pool_create() == 0
    assert [pool.cpu_online(2), pool.cpu_online(2)] == [ENOMEM, 0]
    pool.zswap_compress(2)
    assert pool.ledger.problems[0] == "allocation 'ERR_PTR' is used but is not live"


@given(kind=st.sampled_from(SOUND), calls=st.sets(st.integers(1, 120), max_size=6),
       steps=st.lists(st.tuples(st.sampled_from(["create", "destroy", "online", "offline", "store"]), st.integers(0, 3)),
                      max_size=20))
def test_nothing_is_lost_whatever_happens(kind: type[PoolCreate], calls: set[int], steps: list[tuple[str, int]]) -> None:
    pool = box(kind, *calls)
    for what, cpu in steps:
        if what == "create" and not pool.exists:
            pool.zswap_pool_create()
        elif what == "destroy" and pool.exists:
            pool.zswap_pool_destroy()
        elif what == "online" and cpu not in pool.online:
            pool.cpu_online(cpu)
        elif what == "offline" and len(pool.online) > 1 and cpu in pool.online:
            pool.cpu_offline(cpu)
        elif what == "store":
            pool.zswap_compress(cpu)
        assert pool.exists or not left(pool)
    assert pool.ledger.problems == []


def test_every_name_is_of_a_revision_or_a_patch() -> None:
    assert set(POOL_CREATE) == {"mainline-6.12", "mainline-6.18", "mainline-7.0", "mainline-7.1", "mainline-7.2",
                                "mainline-7.3", "v14-23", "v14", "v14-meant"}
