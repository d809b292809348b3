# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks that lose their CPU, or run at the same time: whatever order the kernel's steps come in, the replay follows.

What each test shows is listed in docs/concurrency.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import replay
import traces
from model.zsmalloc import SizeClass, Zspage, get_size_class_index
from replay.cli.main import main
from replay.tools.cut import cut
from replay.verdict.result import Result
from tests.interleaving import MEMCG, Interleaved
from traces.errors import BadInput

#: objects of this length are three in a zspage of two pages
THIRD = 2700


def judged(path: Path, engine: str = "reference", revision: str = "mainline-7.3") -> Result:
    """Replay a recording."""
    return replay.replay(traces.open_recording(path), revision, engine=engine)


def passes(box: Interleaved, path: Path) -> None:
    """What was done replays without a difference."""
    result = judged(box.record(path), revision=box.revision)
    assert result.verdict == "PASS", result.divergences[0]


def thirds(box: Interleaved) -> SizeClass:
    """Return the class of objects of that length."""
    return box.model.pools[0].zs_pool.size_class[get_size_class_index(THIRD + 8)]


def source_of(box: Interleaved) -> Zspage:
    """Return the zspage that compaction of that class would take objects from: the one behind its target."""
    cls = thirds(box)
    target = cls.first(range(10, 0, -1))
    return next(zspage for group in cls.groups[1:11] for zspage in reversed(group) if zspage is not target)


def fragmented(box: Interleaved, zspages: int, keep: int = 1) -> list[list[int]]:
    """Fill zspages of one class, then leave ``keep`` objects in each; returns the slots left, by zspage."""
    kernel = box.kernel
    for slot in range(zspages * 3):
        kernel.store(slot)
    left = []
    for number in range(zspages):
        slots = list(range(3 * number, 3 * number + 3))
        for slot in slots[keep:]:
            kernel.invalidate(slot)
        left.append(slots[:keep])
    return left


@pytest.mark.parametrize("revision", ["mainline-6.12", "mainline-6.18", "mainline-7.2", "mainline-7.3"])
@pytest.mark.parametrize("does", ["invalidate", "load", "store"])
def test_a_class_changes_while_compaction_has_let_its_lock_go(tmp_path: Path, revision: str, does: str) -> None:
    """__zs_compact() puts a full target back and calls cond_resched(): another task then frees the last object of the
    zspage that would be next, or takes a place in it."""
    box = Interleaved(revision, lambda slot: THIRD)
    fragmented(box, 8)
    compaction, other = box.tasks
    box.compact(compaction)
    compaction.until("obj_malloc")
    while not (compaction.name == "?compact_end" and not compaction.is_locked()):
        compaction.step()
    if does == "store":
        box.store(other, 1000)
    else:
        source = source_of(box)
        getattr(box, does)(other, next(slot for slot, entry in box.model.tree.items() if entry.obj.zspage is source))
    other.end()
    compaction.end()
    passes(box, tmp_path / "rec")


@pytest.mark.parametrize("excused", [True, False])
def test_compaction_that_ends_before_there_is_something_to_move(tmp_path: Path, excused: bool) -> None:
    """It finds nothing and drops the lock; another task then frees three objects, before __zs_compact() returns.

    Where they were free before compaction last moved anything it should have continued.
    """
    box = Interleaved(length=lambda slot: THIRD)
    fragmented(box, 6, keep=2)
    compaction, other = box.tasks
    box.compact(compaction)
    compaction.until("obj_free")
    while not (compaction.name == "?compact_end" and not thirds(box).is_compactable()):
        compaction.step()
    compaction.step()
    assert compaction.name == "__zs_compact_ret"
    if not excused:
        compaction.end()
    for zspage in (2, 3):
        for slot in (3 * zspage, 3 * zspage + 1):
            if slot in box.model.tree:
                box.invalidate(other, slot)
                other.end()
    assert thirds(box).is_compactable()
    if excused:
        compaction.end()
        passes(box, tmp_path / "rec")
        return
    box.kernel.pid = compaction.pid
    cls = thirds(box)
    box.kernel._row("zs_shrinker_scan", pool=box.kernel._pool(box.model.pools[0].zs_pool))
    for each in box.model.pools[0].zs_pool.classes:
        box.kernel._row("__zs_compact", pool=box.kernel._class(each))
        box.kernel._row("__zs_compact_ret")
        if each is cls:
            break
    result = judged(box.record(tmp_path / "rec"))
    assert (result.verdict, result.divergences[0].predicted) == ("FAIL", "obj_malloc")


@pytest.mark.parametrize("reader", [True, False])
def test_compaction_gives_a_class_up_only_where_somebody_reads(tmp_path: Path, reader: bool) -> None:
    """zspage_write_trylock() fails while another task decompresses an object of the source, and for no other reason."""
    box = Interleaved(length=lambda slot: THIRD)
    left = fragmented(box, 4)
    compaction, other = box.tasks
    if reader:
        source = source_of(box)
        slot = next(slot for slots in left for slot in slots if box.model.tree[slot].obj.zspage is source)
        box.load(other, slot)
        other.until("crypto_acomp_decompress_ret")
    box.compact(compaction)
    if not reader:
        box.answers["?zspage_write_trylock"] = False
    compaction.end()
    other.end()
    if reader:
        assert thirds(box).is_compactable()
        passes(box, tmp_path / "rec")
        return
    result = judged(box.record(tmp_path / "rec"))
    assert (result.verdict, result.divergences[0].predicted) == ("FAIL", "obj_malloc")


@pytest.mark.parametrize("first", ["door", "exit"])
def test_two_compactions_of_a_pool(tmp_path: Path, first: str) -> None:
    """compaction_in_progress is taken after zs_compact()'s entry and given back before its return."""
    box = Interleaved(length=lambda slot: THIRD)
    fragmented(box, 4)
    one, two = box.tasks
    box.compact(one)
    if first == "door":
        # It has the flag, which no event has shown yet.
        one.until("__zs_compact")
        box.compact(two)
        assert two.end() == -1
    else:
        # It has given the flag back.
        one.until("zs_compact_ret")
        assert one.name == "zs_compact_ret"
        box.compact(two)
        two.until("__zs_compact")
    one.end()
    two.end()
    passes(box, tmp_path / "rec")


def test_an_object_moves_between_the_entry_of_zs_free_and_its_lock(tmp_path: Path) -> None:
    """Another task reads the pool's total meanwhile, which advances every task as far as it is certain to be."""
    box = Interleaved(length=lambda slot: THIRD)
    left = fragmented(box, 4)
    compaction, other = box.tasks
    source = source_of(box)
    slot = next(slot for slots in left for slot in slots if box.model.tree[slot].obj.zspage is source)
    box.invalidate(other, slot)
    other.until("zs_free")
    other.step()
    box.kernel.pid = 99
    box.kernel._row("zs_get_total_pages_ret", ret=box.model.total_pages())
    box.compact(compaction)
    compaction.end()
    other.end()
    passes(box, tmp_path / "rec")


def test_a_zspage_comes_up_while_another_is_allocated(tmp_path: Path) -> None:
    """zs_malloc() finds no room and drops the lock; another task lists a zspage with room; its own new one is used."""
    box = Interleaved(length=lambda slot: THIRD, choose=lambda count: count - 1)
    kernel = box.kernel
    for slot in range(4):
        kernel.store(slot)
    one, two = box.tasks
    box.store(one, 100)
    one.until("?zs_malloc")
    # The only zspage with room is emptied and freed, and another one comes up.
    kernel.pid = two.pid
    box.invalidate(two, 3)
    two.end()
    box.store(two, 101)
    two.end()
    one.end()
    assert "?new_zspage" in box.asked
    passes(box, tmp_path / "rec")


def test_a_task_that_was_off_its_cpu_for_longer_than_a_batch(tmp_path: Path) -> None:
    """What it may have seen goes back to its last event, however many events of others lie between."""
    box = Interleaved(length=lambda slot: THIRD)
    one, _ = box.tasks
    for slot in range(6):
        box.kernel.store(slot)
    box.store(one, 1000)
    one.until("zs_get_total_pages_ret")
    assert not one.shown
    box.kernel.pid = 101
    slot = 2000
    while len(box.kernel.rows) < (1 << 15) + 200:
        for number in range(400):
            box.kernel.store(slot + number)
        for number in range(400 - 3):
            box.kernel.load(slot + number)
        slot += 400
    one.end()
    passes(box, tmp_path / "rec")


def test_an_exception_in_the_model_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """A shipped model that fails before anything differed is a fault of zreplay, and no verdict on the kernel."""
    box = Interleaved(length=lambda slot: THIRD)
    fragmented(box, 2)
    path = box.record(tmp_path / "rec")

    def fails(self: SizeClass, zspage: Zspage) -> None:
        raise KeyError(zspage)

    monkeypatch.setattr(SizeClass, "remove_zspage", fails)
    with pytest.raises(BadInput, match=r"event [0-9]+: the model of Linux 7.3-rc7 .* failed there \(KeyError: .*; this "
                       "is a fault of zreplay and says nothing about the kernel: report it with this recording"):
        judged(path)
    monkeypatch.setattr("sys.argv", ["zreplay", "replay", str(path)])
    assert main() == 2
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(BadInput, match="failed there"):
        cut(traces.open_recording(path), str(tmp_path / "cut"), 0, 40)


# ---- the LRU -----------------------------------------------------------------------------------------------------


def old_entries(box: Interleaved, count: int) -> None:
    """Store pages, of which walks have cleared the referenced bit; ``count`` of them are left."""
    kernel, budget = box.kernel, box.model.SHRINK_BUDGET
    for slot in range(32):
        kernel.store(slot)
    for _ in range(32 // budget):
        kernel.do(box.model.shrink_memcg(MEMCG))
    for slot in range(count, 32):
        kernel.invalidate(slot)


def test_a_walk_ends_at_an_empty_list_to_which_another_task_then_adds(tmp_path: Path) -> None:
    """list_lru_walk_one() finds nothing more and drops the list's lock; before shrink_memcg() returns, another CPU
    stores a page."""
    box = Interleaved()
    old_entries(box, 3)
    walk, store = box.tasks
    box.shrink(walk)
    walk.until("shrink_memcg_ret")
    assert walk.effect == ("shrink_memcg_ret", 0)
    box.store(store, 1000)
    store.end()
    walk.end()
    passes(box, tmp_path / "rec")


@pytest.mark.parametrize("added", [False, True])
def test_a_walk_that_ends_early_differs(tmp_path: Path, added: bool) -> None:
    """The list was not empty at any time since the walk's last event, whatever was added to it: it should continue."""
    box = Interleaved("mainline-7.3")
    old_entries(box, 2)
    walk, store = box.tasks
    box.shrink(walk)
    walk.until("shrink_memcg_cb_ret")
    walk.step()
    if added:
        box.store(store, 1000)
        store.end()
    box.kernel.pid = walk.pid
    box.kernel._row("shrink_memcg_ret", ret=0)
    result = judged(box.record(tmp_path / "rec"))
    assert (result.verdict, result.divergences[0].check) == ("FAIL", "effect.order")
    assert result.divergences[0].predicted == "shrink_memcg_cb"


@pytest.mark.parametrize("early", ["list_lru_add", "list_lru_del"])
def test_a_walk_finds_what_another_task_is_adding_or_taking_off(tmp_path: Path, early: str) -> None:
    """The probe of list_lru_add() and list_lru_del() is before the list's lock: a walk on another CPU may come first
    to an entry that is to go, and may find one whose addition was not seen to be done."""
    box = Interleaved()
    old_entries(box, 2)
    walk, other = box.tasks
    if early == "list_lru_add":
        box.shrink(walk)
        walk.until("shrink_memcg_ret")
        walk.end()
        box.store(other, 1000)
        other.until("list_lru_add_ret")
    else:
        box.load(other, 0)
        other.until("list_lru_del")
        other.step()
    box.shrink(walk)
    walk.end()
    other.end()
    passes(box, tmp_path / "rec")


# ---- any order of any steps ----------------------------------------------------------------------------------------


#: operations; ``read`` is debugfs asking for the pool's pages, which advances every other operation
KINDS = ("store", "store", "store64k", "load", "load", "invalidate", "invalidate", "compact", "shrink", "scan", "read")


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[tuple[str, int]], list[int]]:
    """Operations, which tasks take up in turn, and picks: of the task that continues, of what the outside decides."""
    return (draw(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 40)), min_size=4, max_size=24)),
            draw(st.lists(st.integers(0, 5), min_size=20, max_size=300)))


def made(plan: tuple[list[tuple[str, int]], list[int]], revision: str, cpus: int) -> Interleaved:
    """Carry a plan out."""
    operations, picks = plan
    picked = iter(picks)

    def pick(count: int) -> int:
        return next(picked, 0) % count

    lengths = (2700, 1000, 3500, 2700, 4096)
    box = Interleaved(revision, lambda slot: lengths[slot % 5], tasks=3, cpus=cpus, choose=pick)
    old_entries(box, 30)
    for slot in range(50, 60):
        box.kernel.store(slot)
    for slot in range(0, 30, 2):
        box.kernel.invalidate(slot)
    fresh = 100
    waiting = list(operations)
    while True:
        for task in box.tasks:
            if task.gen is not None or not waiting:
                continue
            kind, number = waiting.pop(0)
            stored = sorted(slot for slot in box.model.tree if not box.busy(slot))
            if kind == "store":
                fresh += 1
                box.store(task, fresh)
            elif kind == "store64k":
                fresh = (fresh + 16) // 16 * 16 + 15
                box.store(task, fresh - 15, 0 if revision == "mainline-6.12" else 4)
            elif kind in ("compact", "shrink"):
                getattr(box, kind)(task)
            elif kind == "scan":
                task.begin(box.model.zswap_shrinker_scan(1 + number, MEMCG, 0))
            elif kind == "read":
                box.kernel.pid = 99
                box.kernel._row("zs_get_total_pages_ret", ret=box.model.total_pages())
            elif stored:
                getattr(box, kind)(task, stored[number % len(stored)])
        ready = [task for task in box.tasks if task.gen is not None]
        if not ready:
            return box
        able = [task for task in ready if task.is_locked()] or ready
        able[pick(len(able))].step()


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate), derandomize=True, database=None,
          print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plan=plans(), revision=st.sampled_from(["mainline-6.12", "mainline-6.18", "mainline-7.2", "mainline-7.3"]),
       cpus=st.sampled_from([1, 2]))
def test_any_order_of_the_kernels_steps_replays(tmp_path: Path, plan: tuple[list[tuple[str, int]], list[int]],
                                                revision: str, cpus: int) -> None:
    box = made(plan, revision, cpus)
    path = tmp_path / "rec"
    shutil.rmtree(path, ignore_errors=True)
    passes(box, path)
