# SPDX-License-Identifier: GPL-2.0-or-later
"""model/zsmalloc.py against figures taken from mm/zsmalloc.c, and against what must hold whatever the code."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from model import errno
from model.effects import Effect, Steps, run
from model.page import PAGE_SIZE
from model.zsmalloc import (
    HANDLE_SIZE,
    UNKNOWN_LINK,
    SgEntry,
    SizeClass,
    ZsObject,
    Zspage,
    ZsPool,
    get_size_class_index,
    size_classes,
)


def do(steps: Steps[Any], **answers: Any) -> tuple[Any, list[Effect]]:
    """Run an operation; ``q_name`` answers the question ``?name``: a value, or a list of them."""
    seen: list[Effect] = []

    def answer(effect: Effect) -> Any:
        given = answers.get("q_" + effect[0][1:]) if effect[0][0] == "?" else None
        return given.pop(0) if isinstance(given, list) and given else None if isinstance(given, list) else given

    result = run(steps, answer, lambda effect: seen.append(effect) if effect[0][0] != "?" else None)
    return result, seen


def malloc(pool: ZsPool, size: int) -> ZsObject:
    """zs_malloc() that must succeed."""
    obj, _ = do(pool.zs_malloc(size))
    assert isinstance(obj, ZsObject)
    return obj


def names(effects: list[Effect]) -> list[str]:
    """Return the names of effects."""
    return [effect[0] for effect in effects]


def heads(cls: SizeClass, group: int) -> list[Zspage]:
    """Return a fullness list, its head first."""
    return list(reversed(cls.groups[group]))


def class_of(pool: ZsPool, size: int) -> SizeClass:
    """Return the class that objects of ``size`` bytes come from."""
    return pool.size_class[get_size_class_index(size + HANDLE_SIZE)]


# ---- size classes ---------------------------------------------------------------------------------------------

#: CHAIN_SIZE: distinct classes, largest class below a page, huge_class_size (zs_create_pool() with the handle)
GEOMETRY = {4: (69, 3264, 3257), 5: (86, 3408, 3401), 6: (94, 3504, 3497), 8: (119, 3632, 3625),
            10: (141, 3712, 3705), 12: (159, 3776, 3769), 16: (192, 3840, 3833)}
#: CHAIN_SIZE 8: class index, object size, pages, objects, wasted tail, lengths from, to
ROWS = [
    (0, 32, 1, 128, 0, 1, 24), (1, 48, 3, 256, 0, 25, 40), (2, 64, 1, 64, 0, 41, 56), (5, 112, 7, 256, 0, 89, 104),
    (6, 128, 1, 32, 0, 105, 120), (14, 256, 1, 16, 0, 233, 248), (30, 512, 1, 8, 0, 489, 504),
    (46, 768, 3, 16, 0, 745, 760), (62, 1024, 1, 4, 0, 985, 1016), (74, 1216, 3, 10, 128, 1193, 1208),
    (87, 1424, 8, 23, 16, 1353, 1416), (94, 1536, 3, 8, 0, 1497, 1528), (111, 1808, 4, 9, 112, 1785, 1800),
    (126, 2048, 1, 2, 0, 1913, 2040), (134, 2176, 8, 15, 128, 2041, 2168), (144, 2336, 4, 7, 32, 2265, 2328),
    (168, 2720, 2, 3, 32, 2585, 2712), (190, 3072, 3, 4, 0, 2969, 3064), (202, 3264, 4, 5, 64, 3177, 3256),
    (211, 3408, 5, 6, 32, 3257, 3400), (217, 3504, 6, 7, 48, 3401, 3496), (222, 3584, 7, 8, 0, 3497, 3576),
    (225, 3632, 8, 9, 80, 3577, 3624), (254, 4096, 1, 1, 0, 3625, 4096),
]


@pytest.mark.parametrize(("chain", "distinct", "largest", "huge_size"),
                         [(chain, *figures) for chain, figures in GEOMETRY.items()])
def test_number_of_classes_and_where_the_huge_class_begins(chain: int, distinct: int, largest: int,
                                                           huge_size: int) -> None:
    table = size_classes(chain)
    assert len({geometry.index for geometry in table}) == distinct
    assert max(geometry.size for geometry in table if not geometry.huge) == largest
    shortest = min(size for size in range(1, PAGE_SIZE + 1) if table[get_size_class_index(size + HANDLE_SIZE)].huge)
    assert shortest == huge_size


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[1]))
def test_rows_of_the_class_table(row: tuple[int, ...]) -> None:
    index, size, pages, objs, waste, first, last = row
    table = size_classes(8)
    for length in (first, last):
        geometry = table[get_size_class_index(length + HANDLE_SIZE)]
        assert (geometry.index, geometry.size) == (index, size)
        assert (geometry.pages_per_zspage, geometry.objs_per_zspage) == (pages, objs)
        assert pages * PAGE_SIZE - objs * size == waste
    for length in (first - 1, last + 1):
        if 1 <= length <= PAGE_SIZE:
            assert table[get_size_class_index(length + HANDLE_SIZE)].index != index


def test_every_row_of_the_class_table() -> None:
    table = Path(__file__).resolve().parents[2] / "shared/spec/tables/zsmalloc_classes_4k_chain8.csv"
    if not table.is_file():
        pytest.skip("the table of all classes is not part of a checkout")
    classes = size_classes(8)
    with table.open() as lines:
        rows = [{name: int(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    assert len(rows) == len({geometry.index for geometry in classes})
    for row in rows:
        for length in (row["min_len"], row["max_len"]):
            found = classes[get_size_class_index(length + HANDLE_SIZE)]
            assert (found.index, found.size, found.pages_per_zspage, found.objs_per_zspage) == (
                row["class_index"], row["class_size"], row["pages_per_zspage"], row["objs_per_zspage"])
            assert found.pages_per_zspage * PAGE_SIZE - found.objs_per_zspage * found.size == row["waste_bytes"]
    covered = [length for row in rows for length in range(row["min_len"], row["max_len"] + 1)]
    assert covered == list(range(1, PAGE_SIZE + 1))


@pytest.mark.parametrize("chain", range(4, 17))
def test_every_length_fits_its_class(chain: int) -> None:
    """The stride holds object and handle, wastes no whole object, and classes come in order of size."""
    table = size_classes(chain)
    assert len(table) == 255
    assert [g.size for g in table] == sorted(g.size for g in table)
    for length in range(1, PAGE_SIZE + 1):
        geometry = table[get_size_class_index(length + HANDLE_SIZE)]
        room = geometry.size - (0 if geometry.huge else HANDLE_SIZE)
        assert length <= room
        assert geometry.pages_per_zspage <= chain
        assert 0 <= geometry.pages_per_zspage * PAGE_SIZE - geometry.objs_per_zspage * geometry.size < geometry.size


@pytest.mark.parametrize("chain", [3, 17])
def test_chain_size_outside_of_kconfig_is_refused(chain: int) -> None:
    with pytest.raises(ValueError, match=str(chain)):
        size_classes(chain)


def test_compaction_goes_through_distinct_classes_from_the_largest_down() -> None:
    pool = ZsPool(8)
    (freed, effects) = do(pool.zs_compact())
    assert freed == 0
    compacted = [effect[1].geometry.index for effect in effects if effect[0] == "__zs_compact"]
    assert compacted == sorted({g.index for g in size_classes(8)}, reverse=True)
    assert len(compacted) == 119


# ---- allocation and free --------------------------------------------------------------------------------------

def test_worked_replay() -> None:
    """Seven allocations of 2700 bytes, two frees, three allocations: which place each one gets."""
    pool = ZsPool(8)
    objects = [malloc(pool, 2700) for _ in range(7)]
    pages: list[Zspage] = list(dict.fromkeys(obj.zspage for obj in objects))
    assert [(pages.index(obj.zspage), obj.index) for obj in objects] == \
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert pool.pages_allocated == 6
    do(pool.zs_free(objects[1]))
    do(pool.zs_free(objects[3]))
    a, b, c = pages
    assert heads(a.cls, 7) == [b, a]
    again = [malloc(pool, size) for size in (2700, 2650, 2700)]
    assert [(obj.zspage, obj.index) for obj in again] == [(b, 0), (a, 1), (c, 1)]
    assert pool.pages_allocated == 6


def test_effects_of_a_new_and_of_an_existing_zspage() -> None:
    """Only an existing zspage goes through fix_fullness_group()."""
    pool = ZsPool()
    _, effects = do(pool.zs_malloc(1000))
    assert names(effects) == ["zs_malloc", "obj_malloc", "obj_malloc_ret", "zs_malloc_ret"]
    obj, effects = do(pool.zs_malloc(1000))
    assert names(effects) == ["zs_malloc", "obj_malloc", "obj_malloc_ret", "fix_fullness_group",
                              "fix_fullness_group_ret", "zs_malloc_ret"]
    assert effects[4] == ("fix_fullness_group_ret", 6)
    assert effects[5] == ("zs_malloc_ret", 0, obj)


def test_a_new_zspage_is_listed_under_no_group_until_its_first_object_is_there() -> None:
    groups: list[int] = []
    pool = ZsPool()
    run(pool.zs_malloc(1000), seen=lambda e: groups.append(e[1].group) if e[0].startswith("obj_malloc") else None)
    assert groups == [0, 0]
    assert len(class_of(pool, 1000).groups[3]) == 1


def test_effects_of_a_free() -> None:
    pool = ZsPool()
    first, second = malloc(pool, 1000), malloc(pool, 1000)
    _, effects = do(pool.zs_free(second))
    assert names(effects) == ["zs_free", "obj_free", "fix_fullness_group", "fix_fullness_group_ret"]
    assert effects[1][1:] == (second, first.zspage, 1)
    _, effects = do(pool.zs_free(first))
    assert names(effects) == ["zs_free", "obj_free", "fix_fullness_group", "fix_fullness_group_ret", "__free_zspage"]
    assert effects[3] == ("fix_fullness_group_ret", 0)
    assert pool.pages_allocated == 0


def test_an_object_no_longer_counts_when_its_place_is_given_back() -> None:
    """zs_free() lowers ZS_OBJS_INUSE before obj_free(), zs_malloc() raises it after fix_fullness_group()."""
    pool = ZsPool()
    cls = class_of(pool, 1000)
    malloc(pool, 1000)
    at: dict[str, int] = {}

    def see(effect: Effect) -> None:
        at[effect[0]] = cls.objs_inuse

    obj = run(pool.zs_malloc(1000), seen=see)
    assert at["fix_fullness_group_ret"] == 1
    assert at["zs_malloc_ret"] == 2
    assert isinstance(obj, ZsObject)
    run(pool.zs_free(obj), seen=see)
    assert (at["zs_free"], at["obj_free"]) == (2, 1)


@pytest.mark.parametrize(("size", "answer", "failure"), [
    (0, 0, errno.EINVAL), (PAGE_SIZE + 1, 0, errno.ENOSPC), (100, errno.ENOMEM, errno.ENOMEM),
    (0, errno.ENOMEM, errno.EINVAL), (5000, errno.ENOMEM, errno.ENOSPC)])
def test_failed_allocation_leaves_nothing(size: int, answer: int, failure: int) -> None:
    pool = ZsPool()
    result, effects = do(pool.zs_malloc(size), q_zs_malloc=answer)
    assert result == failure
    assert effects == [("zs_malloc", size), ("zs_malloc_ret", failure, None)]
    assert pool.pages_allocated == 0
    assert not any(group for cls in pool.classes for group in cls.groups)


def test_free_places_are_reused_last_in_first_out() -> None:
    pool = ZsPool()
    objects = [malloc(pool, 100) for _ in range(10)]
    for index in (3, 7, 1):
        do(pool.zs_free(objects[index]))
    assert [malloc(pool, 100).index for _ in range(4)] == [1, 7, 3, 10]


def test_a_zspage_moves_only_when_its_group_changes_and_then_to_the_head() -> None:
    pool = ZsPool()
    cls = class_of(pool, 100)
    per = cls.geometry.objs_per_zspage
    objects = [malloc(pool, 100) for _ in range(3 * per)]
    a, b, c = (objects[i * per].zspage for i in range(3))
    assert heads(cls, 11) == [c, b, a]
    for zspage in (a, b, c):
        do(pool.zs_free(next(obj for obj in objects if obj.zspage is zspage)))
    assert heads(cls, 10) == [c, b, a]
    # 255 -> 254 of 256 stays in group 10 and keeps its place
    do(pool.zs_free(objects[1]))
    assert heads(cls, 10) == [c, b, a]
    assert malloc(pool, 100).zspage is c


def test_the_fullest_zspage_is_filled_first() -> None:
    pool = ZsPool()
    objects = [malloc(pool, 1000) for _ in range(12)]
    a, b, c = objects[0].zspage, objects[4].zspage, objects[8].zspage
    for index in (0, 1, 2, 4, 8, 9):
        do(pool.zs_free(objects[index]))
    assert (a.group, b.group, c.group) == (3, 8, 6)
    assert [malloc(pool, 1000).zspage for _ in range(6)] == [b, c, c, a, a, a]


@pytest.mark.parametrize(("size", "waste"), [(2700, True), (1000, False)])
def test_end_of_the_freelist(size: int, waste: bool) -> None:
    """A zspage with a wasted tail points at the place that would begin there; others end with the marker.

    The marker passes through a 32-bit shift when an object of a full zspage is freed, and loses its top bit.
    """
    pool = ZsPool()
    per = class_of(pool, size).geometry.objs_per_zspage
    objects = [malloc(pool, size) for _ in range(per)]
    zspage = objects[0].zspage
    assert zspage.freeobj == (per if waste else 0xFFFFFFFF)
    do(pool.zs_free(objects[1]))
    assert zspage.freeobj == 1
    assert malloc(pool, size).index == 1
    assert zspage.freeobj == (per if waste else 0x7FFFFFFF)
    do(pool.zs_free(objects[0]))
    malloc(pool, size)
    assert zspage.freeobj == (per if waste else 0x7FFFFFFF)


def test_huge_class() -> None:
    """One object per page, no handle inside, no link written when it is freed."""
    pool = ZsPool()
    obj = malloc(pool, 3625)
    assert class_of(pool, 3625).geometry.huge
    assert not class_of(pool, 3624).geometry.huge
    assert pool.locate(obj) == (0, 0)
    assert pool.pages_allocated == 1
    assert obj.zspage.group == 11
    do(pool.zs_free(obj), q_trylock_zspage=False)
    zspage = obj.zspage
    assert (zspage.freeobj, zspage.inuse, zspage.group) == (0, 0, 0)
    other, effects = do(pool.zs_malloc(4096))
    assert other.zspage is zspage
    assert "fix_fullness_group" in names(effects)
    assert pool.pages_allocated == 1
    # what it read as a link was the object's data
    assert zspage.freeobj == UNKNOWN_LINK


def test_fullness_groups_of_a_class_with_256_objects() -> None:
    """100*inuse/objs/10+1 in integers; 0 empty, 11 full.  Written down, not computed again."""
    pool = ZsPool()
    cls = class_of(pool, 100)
    zspage = malloc(pool, 100).zspage
    seen = {}
    for inuse in (0, 1, 25, 26, 51, 52, 127, 128, 230, 231, 255, 256):
        zspage.inuse = inuse
        seen[inuse] = cls.get_fullness_group(zspage)
    assert seen == {0: 0, 1: 1, 25: 1, 26: 2, 51: 2, 52: 3, 127: 5, 128: 6, 230: 9, 231: 10, 255: 10, 256: 11}


def test_two_tasks_that_find_no_room_at_one_time_both_bring_a_zspage() -> None:
    """The class lock is dropped for the allocation: the second zspage is used although the first has room."""
    for new in (True, False):
        pool = ZsPool()
        steps = pool.zs_malloc(1000)
        assert next(steps) == ("zs_malloc", 1000)
        assert next(steps)[0] == "?zs_malloc"
        other = malloc(pool, 1000)
        assert steps.send(0)[0] == "?new_zspage"
        effect = steps.send(new)
        assert effect[0] == "obj_malloc"
        assert (effect[1] is other.zspage) != new
        assert isinstance(run(steps), ZsObject)
        assert pool.pages_allocated == 1 + new


# ---- deferred free --------------------------------------------------------------------------------------------

def test_an_empty_zspage_that_could_not_be_locked_is_found_again() -> None:
    pool = ZsPool()
    obj = malloc(pool, 2700)
    _, effects = do(pool.zs_free(obj), q_trylock_zspage=False)
    assert "__free_zspage" not in names(effects)
    assert pool.pages_allocated == 2
    cls = class_of(pool, 2700)
    assert heads(cls, 0) == [obj.zspage]
    assert (cls.objs_allocated, cls.objs_inuse) == (3, 0)
    # a zspage with objects is preferred, the empty one comes before a new one
    again, effects = do(pool.zs_malloc(2700))
    assert again.zspage is obj.zspage
    assert ("fix_fullness_group_ret", 4) in effects
    assert pool.pages_allocated == 2


def test_the_worker_frees_empty_zspages_from_the_highest_class_down() -> None:
    pool = ZsPool()
    objects = [malloc(pool, size) for size in (100, 3700, 3700, 1000)]
    for obj in objects:
        do(pool.zs_free(obj), q_trylock_zspage=False)
    assert pool.pages_allocated == 7 + 1 + 1 + 1
    small, huge1, huge2, middle = (obj.zspage for obj in objects)
    _, effects = do(pool.async_free_zspage())
    assert names(effects) == ["async_free_zspage"] + 4 * ["__free_zspage"]
    assert [effect[2] for effect in effects[1:]] == [huge2, huge1, middle, small]
    assert pool.pages_allocated == 0
    assert all(cls.objs_allocated == 0 and cls.zspages == 0 for cls in pool.classes)


def test_zspages_the_worker_took_can_no_longer_be_allocated_from() -> None:
    """async_free_zspage() splices all lists first; pages leave the total one zspage at a time."""
    pool = ZsPool()
    objects = [malloc(pool, size) for size in (3700, 1000)]
    for obj in objects:
        do(pool.zs_free(obj), q_trylock_zspage=False)
    worker = pool.async_free_zspage()
    assert next(worker)[0] == "async_free_zspage"
    assert next(worker)[2] is objects[0].zspage
    assert pool.pages_allocated == 2
    fresh = malloc(pool, 1000)
    assert fresh.zspage is not objects[1].zspage
    assert next(worker)[2] is objects[1].zspage
    assert pool.pages_allocated == 2
    with pytest.raises(StopIteration):
        next(worker)
    assert pool.pages_allocated == 1
    assert fresh.zspage in class_of(pool, 1000).groups[3]


# ---- reading --------------------------------------------------------------------------------------------------

def at(pool: ZsPool, length: int, index: int) -> ZsObject:
    """Return an object of ``length`` bytes at a given place of a zspage."""
    obj = ZsObject(length)
    obj.zspage, obj.index = Zspage(class_of(pool, length)), index
    return obj


@pytest.mark.parametrize(("length", "index", "entries"), [
    (1000, 3, [(0, 3080, 1000)]),
    (1500, 2, [(0, 3080, 1016), (1, 0, 484)]),
    (2700, 1, [(0, 2728, 1368), (1, 0, 1332)]),
    (100, 36, [(0, 4040, 56), (1, 0, 44)]),
    (3500, 1, [(0, 3592, 504), (1, 0, 2996)]),
    (3700, 0, [(0, 0, 3700)]),
])
def test_sg_entries_of_known_objects(length: int, index: int, entries: list[tuple[int, int, int]]) -> None:
    pool = ZsPool()
    shape = pool.zs_obj_read_sg(at(pool, length, index), length)
    assert shape == tuple(SgEntry(*entry) for entry in entries)


def check_read(pool: ZsPool, length: int, index: int) -> int:
    """A read covers the object's bytes exactly, in order, within its slot; returns the number of entries."""
    obj = at(pool, length, index)
    geometry = obj.zspage.cls.geometry
    shape = pool.zs_obj_read_sg(obj, length)
    where = geometry.size * index + (0 if geometry.huge else HANDLE_SIZE)
    for entry in shape:
        assert entry.page * PAGE_SIZE + entry.offset == where
        assert entry.length > 0
        assert entry.offset + entry.length <= PAGE_SIZE
        where += entry.length
    assert where == geometry.size * index + (0 if geometry.huge else HANDLE_SIZE) + length
    assert where <= geometry.size * (index + 1)
    assert shape[-1].page < geometry.pages_per_zspage
    assert len(shape) in (1, 2)
    if len(shape) == 2:
        assert shape[0].length >= 8
        assert shape[1].offset == 0
        assert shape[0].page + 1 == shape[1].page
    return len(shape)


def test_reads_of_every_length_at_every_place() -> None:
    pool = ZsPool(8)
    spans = {1: 0, 2: 0}
    for length in range(1, PAGE_SIZE + 1, 3):
        for index in range(class_of(pool, length).geometry.objs_per_zspage):
            spans[check_read(pool, length, index)] += 1
    assert min(spans.values()) > 1000


@pytest.mark.parametrize("chain", range(4, 17))
def test_reads_at_the_borders_of_every_class(chain: int) -> None:
    pool = ZsPool(chain)
    for cls in pool.classes:
        longest = PAGE_SIZE if cls.geometry.huge else cls.geometry.size - HANDLE_SIZE
        for length in {longest, longest - 1, max(1, longest - 7)}:
            if class_of(pool, length) is cls:
                for index in range(cls.geometry.objs_per_zspage):
                    check_read(pool, length, index)


def test_effect_of_a_read() -> None:
    pool = ZsPool()
    obj = malloc(pool, 2700)
    shape, effects = do(pool.zs_obj_read(obj, 2700))
    assert shape == (SgEntry(0, 8, 2700),)
    assert effects == [("zs_obj_read", obj, 2700, shape)]


# ---- compaction -----------------------------------------------------------------------------------------------

def fragmented(*keep: list[int]) -> tuple[ZsPool, list[list[ZsObject]]]:
    """Return a pool whose zspages of 1000-byte objects (4 each) keep the given places only."""
    pool = ZsPool()
    pages = [[malloc(pool, 1000) for _ in range(4)] for _ in keep]
    for page, kept in zip(pages, keep, strict=True):
        for index in range(4):
            if index not in kept:
                do(pool.zs_free(page[index]))
    return pool, pages


def test_objects_move_from_the_emptiest_to_the_fullest_zspage() -> None:
    pool, (a, b, c) = fragmented([0, 1, 3], [2], [1, 3])
    za, zb, zc = a[0].zspage, b[0].zspage, c[0].zspage
    cls = za.cls
    assert cls.can_compact() == 1
    freed, effects = do(pool.zs_compact())
    assert freed == 1
    assert pool.pages_allocated == 2
    assert pool.pages_compacted == 1
    # the fullest (A, 3 of 4) takes the one object of the emptiest (B); B goes, nothing more can be freed
    assert (b[2].zspage, b[2].index) == (za, 2)
    assert [(obj.zspage, obj.index) for obj in (c[1], c[3])] == [(zc, 1), (zc, 3)]
    assert zb not in cls.groups[0]
    inside = effects[names(effects).index("obj_malloc"):]
    assert names(inside[:4]) == ["obj_malloc", "obj_malloc_ret", "obj_free", "__free_zspage"]
    assert inside[2][1:] == (b[2], zb, 2)
    assert "fix_fullness_group" not in names(effects)
    assert heads(cls, 11) == [za]
    assert cls.can_compact() == 0


def test_objects_leave_their_zspage_in_address_order_into_one_target_after_the_other() -> None:
    pool = ZsPool()
    cls = class_of(pool, 500)
    per = cls.geometry.objs_per_zspage
    pages = [[malloc(pool, 500) for _ in range(per)] for _ in range(3)]
    for page, kept in zip(pages, (range(6), range(5), range(5)), strict=True):
        for index in set(range(per)) - set(kept):
            do(pool.zs_free(page[index]))
    assert per == 8
    source = pages[2][0].zspage
    freed, effects = do(pool.zs_compact())
    assert freed == cls.geometry.pages_per_zspage
    moved = [(effect[2] is source, effect[3]) for effect in effects if effect[0] == "obj_free"]
    # the source is the head of group 7 (it came there last), the target has 6: 2 fit, then the other takes 3
    assert moved == [(True, 0), (True, 1), (True, 2), (True, 3), (True, 4)]
    assert source not in [zspage for group in cls.groups for zspage in group]
    assert pages[2][0].zspage is pages[0][0].zspage
    assert pages[2][2].zspage is pages[1][0].zspage


def test_an_emptied_source_that_cannot_be_locked_counts_as_freed_and_is_used_again() -> None:
    """Its places come back in the reverse of the order in which they were moved away."""
    pool = ZsPool()
    cls = class_of(pool, 1000)
    pages = [[malloc(pool, 1000) for _ in range(4)] for _ in range(3)]
    for page, kept in zip(pages, ([0, 1, 2], [0, 1], [0, 1, 2]), strict=True):
        for index in set(range(4)) - set(kept):
            do(pool.zs_free(page[index]))
    # 8 objects of 12: one zspage can go; B (2 objects) empties into C (head of the fullest group), then A
    b = pages[1]
    zb = b[0].zspage
    freed, effects = do(pool.zs_compact(), q_trylock_zspage=False)
    assert [(e[2] is zb, e[3]) for e in effects if e[0] == "obj_free"] == [(True, 0), (True, 1)]
    assert b[0].zspage is pages[2][0].zspage
    assert b[1].zspage is pages[0][0].zspage
    # the empty source could not be locked: counted as freed, still allocated, and listed in group 0
    assert freed == 1
    assert pool.pages_allocated == 3
    assert heads(cls, 0) == [zb]
    assert [malloc(pool, 1000).index for _ in range(3)] == [1, 0, 3]


def test_nothing_moves_when_no_zspage_can_be_freed() -> None:
    pool, _ = fragmented([0, 1, 3], [1, 2])
    freed, effects = do(pool.zs_compact())
    assert freed == 0
    assert "obj_malloc" not in names(effects)


def test_a_source_in_use_ends_the_class_with_both_put_back() -> None:
    """From 6.18 the source's lock is only tried: one read at the wrong moment and the class is left as it is."""
    pool, pages = fragmented([0, 1, 3], [2], [1, 3])
    cls = class_of(pool, 1000)
    za, zb, zc = (page[0].zspage for page in pages)
    freed, effects = do(pool.zs_compact(), q_zspage_write_trylock=False)
    assert freed == 0
    assert "obj_malloc" not in names(effects)
    assert (heads(cls, 8), heads(cls, 3), heads(cls, 6)) == ([za], [zb], [zc])


def test_a_target_is_put_at_the_head_of_its_new_group() -> None:
    pool, pages = fragmented([0, 1], [0, 1], [0], [0])
    cls = class_of(pool, 1000)
    za, zb, zc, zd = (page[0].zspage for page in pages)
    assert (heads(cls, 6), heads(cls, 3)) == ([zb, za], [zd, zc])
    freed, _ = do(pool.zs_compact())
    # 6 of 16 in use: 2 zspages go; B takes D's object and then C's and is full
    assert freed == 2
    assert (pages[3][0].zspage, pages[2][0].zspage) == (zb, zb)
    assert (pages[3][0].index, pages[2][0].index) == (3, 2)
    assert heads(cls, 11) == [zb]
    assert heads(cls, 6) == [za]


def test_freed_are_pages_not_zspages() -> None:
    pool = ZsPool()
    objects = [malloc(pool, 2700) for _ in range(6)]
    for index in (0, 1, 4, 5):
        do(pool.zs_free(objects[index]))
    freed, _ = do(pool.zs_compact())
    assert (freed, pool.pages_compacted, pool.pages_allocated) == (2, 2, 2)


def test_an_empty_zspage_that_waits_for_the_worker_is_no_source() -> None:
    pool, pages = fragmented([0], [1, 2, 3], [])
    assert pool.pages_allocated == 2
    do(pool.zs_free(pages[0][0]), q_trylock_zspage=False)
    assert class_of(pool, 1000).can_compact() == 1
    freed, effects = do(pool.zs_compact())
    assert freed == 0
    assert "__free_zspage" not in names(effects)
    assert pool.pages_allocated == 2


def test_shrinker_says_stop_when_nothing_was_freed() -> None:
    pool, _ = fragmented([0], [1])
    result, effects = do(pool.zs_shrinker_scan())
    assert result == 1
    assert (effects[0], effects[-2], effects[-1]) == (
        ("zs_shrinker_scan",), ("zs_compact_ret", 1), ("zs_shrinker_scan_ret", 1))
    result, effects = do(pool.zs_shrinker_scan())
    assert result == -1
    assert (effects[-2], effects[-1]) == (("zs_compact_ret", 0), ("zs_shrinker_scan_ret", -1))


def test_a_second_compaction_of_the_same_pool_does_nothing() -> None:
    pool, _ = fragmented([0], [1])
    first = pool.zs_compact()
    assert [next(first)[0] for _ in range(3)] == ["zs_compact", "?compacting", "__zs_compact"]
    result, effects = do(pool.zs_compact())
    assert result == 0
    assert names(effects) == ["zs_compact", "zs_compact_ret"]
    assert run(first) == 1
    assert do(pool.zs_compact())[1][1][0] == "__zs_compact"


# ---- any sequence of operations -------------------------------------------------------------------------------

#: few zspage shapes, so that zspages fill up, empty and can be compacted
SIZES = (2700, 1000, 3700, 2041, 4096, 3500, 700)


class AnySequence(RuleBasedStateMachine):
    """What must hold after any sequence of operations, judged by the objects alone."""

    #: CONFIG_ZSMALLOC_CHAIN_SIZE
    chain_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.pool = ZsPool(self.chain_size)
        self.live: list[ZsObject] = []
        self.deferred = False
        self.compacted = 0

    @rule(size=st.sampled_from(SIZES), count=st.integers(1, 8))
    def malloc(self, size: int, count: int) -> None:
        for _ in range(count):
            cls = class_of(self.pool, size)
            best = max((z.group for group in cls.groups[:11] for z in group), default=None)
            before = self.pool.pages_allocated
            obj, effects = do(self.pool.zs_malloc(size))
            self.live.append(obj)
            # the fullest zspage with room, a new one only when there is none
            assert ("fix_fullness_group" in names(effects)) == (best is not None)
            grown = 0 if best is not None else cls.geometry.pages_per_zspage
            assert self.pool.pages_allocated == before + grown

    @rule(size=st.sampled_from((*SIZES, 0, 4097)))
    def malloc_fails(self, size: int) -> None:
        result, _ = do(self.pool.zs_malloc(size), q_zs_malloc=errno.ENOMEM)
        assert result == (errno.EINVAL if not size else errno.ENOSPC if size > PAGE_SIZE else errno.ENOMEM)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 6), locked=st.booleans())
    def free(self, data: st.DataObject, count: int, locked: bool) -> None:
        for _ in range(min(count, len(self.live))):
            obj = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
            zspage, index = obj.zspage, obj.index
            do(self.pool.zs_free(obj), q_trylock_zspage=locked)
            if zspage.inuse:
                assert zspage.freeobj == index

    @rule(locks=st.lists(st.booleans(), max_size=4), tries=st.lists(st.booleans(), max_size=4))
    def compact(self, locks: list[bool], tries: list[bool]) -> None:
        expected = sum(cls.can_compact() for cls in self.pool.classes)
        before = self.pool.pages_allocated
        freed, effects = do(self.pool.zs_compact(), q_trylock_zspage=list(locks), q_zspage_write_trylock=list(tries))
        self.compacted += freed
        assert freed <= expected
        if all(tries) and all(locks) and not any(cls.groups[0] for cls in self.pool.classes):
            assert freed == expected
            assert self.pool.pages_allocated == before - freed
        moved = [effect[1] for effect in effects if effect[0] == "obj_free"]
        assert len(set(map(id, moved))) <= len(self.live)

    @rule()
    def work(self) -> None:
        do(self.pool.async_free_zspage())
        assert not any(cls.groups[0] for cls in self.pool.classes)

    @invariant()
    def every_object_has_its_place(self) -> None:
        used: dict[int, set[int]] = {}
        for obj in self.live:
            assert obj.zspage.objects[obj.index] is obj
            geometry = obj.zspage.cls.geometry
            assert geometry is class_of(self.pool, obj.size).geometry
            assert geometry.size * (obj.index + 1) <= geometry.pages_per_zspage * PAGE_SIZE
            places = used.setdefault(id(obj.zspage), set())
            assert obj.index not in places
            places.add(obj.index)
        assert self.pool.pages_compacted == self.compacted

    @invariant()
    def lists_and_sums_agree(self) -> None:
        pages = objects = 0
        seen: set[int] = set()
        for cls in self.pool.classes:
            listed = 0
            for group, zspages in enumerate(cls.groups):
                for zspage in zspages:
                    assert id(zspage) not in seen
                    seen.add(id(zspage))
                    listed += 1
                    self.check_zspage(zspage, group)
                    objects += zspage.inuse
                    pages += cls.geometry.pages_per_zspage
            assert listed == cls.zspages
            assert cls.objs_allocated == listed * cls.geometry.objs_per_zspage
            assert cls.objs_inuse == sum(z.inuse for group in cls.groups for z in group)
        assert pages == self.pool.pages_allocated
        assert objects == len(self.live)
        assert {id(obj.zspage) for obj in self.live} <= seen

    def check_zspage(self, zspage: Zspage, group: int) -> None:
        """Its group, and a freelist that reaches every free place once and nothing else."""
        geometry = zspage.cls.geometry
        count = geometry.objs_per_zspage
        assert zspage.group == group
        used = [index for index, obj in enumerate(zspage.objects) if obj is not None]
        assert zspage.inuse == len(used)
        if not used:
            assert group == 0
        elif len(used) == count:
            assert group == 11
        else:
            assert (group - 1) * 10 <= int(100 * len(used) / count) < group * 10
        if geometry.huge:
            return
        free, index = [], zspage.freeobj
        while index < count:
            assert zspage.objects[index] is None
            assert index not in free
            free.append(index)
            index = zspage.link[index]
        assert sorted(free + used) == list(range(count))
        wasted = geometry.pages_per_zspage * PAGE_SIZE > count * geometry.size
        assert index in ((count,) if wasted else (0xFFFFFFFF, 0x7FFFFFFF))

    def teardown(self) -> None:
        for obj in self.live:
            do(self.pool.zs_free(obj))
        do(self.pool.async_free_zspage())
        assert self.pool.pages_allocated == 0


class ChainsOf4(AnySequence):
    """The shortest chains that Kconfig allows."""

    chain_size = 4


class ChainsOf16(AnySequence):
    """The longest."""

    chain_size = 16


#: sequences in all of the long run
_SEQUENCES = 10_000


@pytest.mark.slow
@pytest.mark.parametrize("machine", [ChainsOf4, AnySequence, ChainsOf16])
def test_ten_thousand_sequences(machine: type[AnySequence]) -> None:
    """Other sequences every time: what fails is printed with the call that makes it again."""
    run_state_machine_as_test(machine, settings=settings(  # type: ignore[no-untyped-call]
        max_examples=-(-_SEQUENCES // 3), stateful_step_count=20, deadline=None, database=None, print_blob=True,
        suppress_health_check=list(HealthCheck)))


TestAnySequence = AnySequence.TestCase
TestChainsOf4 = ChainsOf4.TestCase
TestChainsOf16 = ChainsOf16.TestCase
for _case in (TestAnySequence, TestChainsOf4, TestChainsOf16):
    _case.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, database=None)
