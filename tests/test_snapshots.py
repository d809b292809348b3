# SPDX-License-Identifier: GPL-2.0-or-later
"""Counter snapshots that fall into the middle of operations, and what may be read then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import replay
import traces
from model.counters import DEBUGFS
from replay.reference.snapshots import _vmstat_lag
from replay.tools.synthetic import ImaginaryKernel, config
from traces import schema
from traces.recording import RecordingWriter

_COLUMN = {name: index for index, name in enumerate(schema.column_names())}


def _counters(number: int) -> list[int]:
    row = [0] * len(_COLUMN)
    row[_COLUMN["event"]], row[_COLUMN["ret"]], row[_COLUMN["content"]] = schema.CODE["counters"], number, -1
    return row


def _replay(path: Path, rows: list[list[int]], snapshots: list[dict[str, Any]],
            memcg: list[dict[str, str]] | None = None,
            vmstat: list[dict[str, int]] | None = None, revision: str = "mainline-7.3") -> replay.Result:
    """Replay rows, stamped anew, with the debugfs counters, cgroup files and vmstat of each ``counters`` row."""
    block = np.array([[v - (1 << 64) if v >> 63 > 0 else v for v in row] for row in rows], np.int64).T.copy()
    block[0] = np.arange(1, len(rows) + 1) * 1000
    texts = [(at, f"s{row[_COLUMN['ret']]}") for at, row in enumerate(rows)
             if row[_COLUMN["event"]] == schema.CODE["counters"]]
    with RecordingWriter(path) as writer:
        writer.write_rows(block, texts)
        none: list[Any] = [{}] * len(texts)
        for (at, label), values, files, counts in zip(texts, snapshots, memcg or none, vmstat or none, strict=True):
            writer.add_snapshot(label, int(block[0, at]), {"t": block[0, at] / 1e9, "zswap_debugfs": values,
                                                           "memcg": files, "vmstat": counts})
        writer.close(config(revision))
    return replay.replay(traces.open_recording(path))


def _names(rows: list[list[int]]) -> list[str]:
    return [schema.NAMES[row[_COLUMN["event"]]] for row in rows]


def test_a_total_is_the_one_of_when_it_was_read(tmp_path: Path) -> None:
    """A snapshot advances a store to its reading of the total; another task then changes that total."""
    kernel = ImaginaryKernel()
    kernel.store(1)
    one = len(kernel.rows)
    kernel.pid = 200
    kernel.invalidate(1)
    two = len(kernel.rows)
    kernel.pid = 300
    kernel.store(2)
    first, freed, second = kernel.rows[:one], kernel.rows[one:two], kernel.rows[two:]
    place = _names(second).index("zs_get_total_pages_ret")
    assert second[place][_COLUMN["ret"]] == 0
    rows = [_counters(0), *first, *second[:place], *freed, *second[place:]]
    assert _replay(tmp_path / "rec", rows, [{"stored_pages": "0"}]).verdict == "PASS"
    rows[rows.index(second[place])][_COLUMN["ret"]] = 77
    result = _replay(tmp_path / "other", rows, [{"stored_pages": "0"}])
    assert (result.verdict, result.divergences[0].check) == ("FAIL", "zsmalloc.pages")


@pytest.mark.parametrize(("written_back", "verdict"), [(0, "PASS"), (1, "PASS"), (2, "FAIL")])
def test_a_preempted_task_has_not_counted_yet(tmp_path: Path, written_back: int, verdict: str) -> None:
    """A worker was preempted after it had handed a page to the device and before it counted it."""
    kernel = ImaginaryKernel()
    kernel.store(1)
    kernel.do(kernel.model.shrink_memcg(None))  # every entry has a second chance
    kernel.do(kernel.model.shrink_memcg(None))
    place = _names(kernel.rows).index("__swap_writepage") + 1
    rows = [_counters(0), *kernel.rows[:place], _counters(1), *kernel.rows[place:], _counters(2)]
    counted = {"written_back_pages": "0"}, {"written_back_pages": str(written_back)}, {"written_back_pages": "1"}
    result = _replay(tmp_path / "rec", rows, list(counted))
    assert result.verdict == verdict
    assert any("in the middle of an operation" in note for note in result.notes) == (written_back == 0)
    if verdict == "FAIL":
        assert result.divergences[0].check == "counter.zswap.written_back_pages"
        assert result.divergences[0].event == place + 1


@pytest.mark.parametrize(("stored", "verdict"), [((1, 1, 2), "PASS"), ((2, 1, 2), "PASS"), ((1, 2, 2), "PASS"),
                                                 ((0, 2, 2), "FAIL"), ((1, 3, 2), "FAIL"), ((1, 1, 1), "FAIL")])
def test_a_task_may_lose_its_cpu_for_longer_than_a_snapshot(tmp_path: Path, stored: tuple[int, ...],
                                                            verdict: str) -> None:
    """After the charge and before it counts the page a store is preempted, over two snapshots and another task's work."""
    kernel = ImaginaryKernel()
    kernel.store(1)
    kernel.pid = 200
    first = len(kernel.rows)
    kernel.store(2)
    place = first + _names(kernel.rows[first:]).index("obj_cgroup_charge_zswap") + 1
    end = len(kernel.rows)
    kernel.pid = 300
    kernel.store(50)
    kernel.invalidate(50)
    kernel.invalidate(60)  # empty; seen again, it has counted what it freed
    other = kernel.rows[end:]
    # Both stores allocate: with the other's in between the model places objects as they were placed.
    rows = [_counters(0), *kernel.rows[:place], _counters(1), *other, _counters(2), *kernel.rows[place:end],
            _counters(3)]
    result = _replay(tmp_path / "rec", rows, [{"stored_pages": str(number)} for number in (0, *stored)])
    assert result.verdict == verdict, result.divergences
    if verdict == "FAIL":
        assert {found.check for found in result.divergences} == {"counter.zswap.stored_pages"}


@pytest.mark.parametrize(("stored", "verdict"), [(1, "PASS"), (0, "PASS"), (2, "FAIL")])
def test_a_task_that_frees_may_not_have_counted_yet(tmp_path: Path, stored: int, verdict: str) -> None:
    """zswap_entry_free() was preempted between the uncharge, its last event, and the count."""
    kernel = ImaginaryKernel()
    kernel.store(1)
    kernel.invalidate(1)
    place = _names(kernel.rows).index("obj_cgroup_uncharge_zswap") + 1
    rows = [_counters(0), *kernel.rows[:place], _counters(1), *kernel.rows[place:], _counters(2)]
    result = _replay(tmp_path / "rec", rows, [{"stored_pages": str(number)} for number in (0, stored, 0)])
    assert result.verdict == verdict, result.divergences


@pytest.mark.parametrize("after", ["fix_fullness_group_ret", "__free_zspage"])
@pytest.mark.parametrize(("pages", "verdict"), [(1, "PASS"), (0, "PASS"), (2, "FAIL")])
def test_a_zspage_that_is_freed_may_still_be_in_the_total(tmp_path: Path, after: str, pages: int, verdict: str) -> None:
    """zs_free() was preempted between finding the zspage empty and taking its pages off the pool's total."""
    kernel = ImaginaryKernel(length=lambda swpent: 4096)
    kernel.store(1)
    one = kernel.model.total_pages()
    kernel.invalidate(1)
    names = _names(kernel.rows)
    place = names.index(after, names.index("zswap_invalidate")) + 1
    rows = [_counters(0), *kernel.rows[:place], _counters(1), *kernel.rows[place:], _counters(2)]
    totals = [{"pool_total_size": str(number * one * 4096)} for number in (0, pages, 0)]
    result = _replay(tmp_path / "rec", rows, totals)
    assert result.verdict == verdict, result.divergences
    if verdict == "FAIL":
        assert {found.check for found in result.divergences} == {"counter.zswap.pool_total_size"}


@pytest.mark.parametrize(("out", "verdict"), [(7, "PASS"), (8, "PASS"), (6, "FAIL"), (9, "FAIL")])
def test_a_store_may_not_have_counted_its_pages_yet(tmp_path: Path, out: int, verdict: str) -> None:
    """zswap_store() was preempted after the page was on the LRU and before it counted zswpout."""
    kernel = ImaginaryKernel()
    kernel.store(1)
    place = len(kernel.rows) - [*reversed(_names(kernel.rows))].index("list_lru_add_ret")
    rows = [_counters(0), *kernel.rows[:place], _counters(1), *kernel.rows[place:], _counters(2)]
    result = _replay(tmp_path / "rec", rows, [{}, {}, {}], vmstat=[{"zswpout": 7}, {"zswpout": out}, {"zswpout": 8}])
    assert result.verdict == verdict, result.divergences


@pytest.mark.parametrize(("charges", "more", "verdict"), [(1, 0, "PASS"), (2, 0, "PASS"), (4, 0, "PASS"), (2, 1, "FAIL")])
def test_a_cgroup_is_read_in_the_middle_of_a_long_operation(tmp_path: Path, charges: int, more: int,
                                                            verdict: str) -> None:
    """A folio of four pages is stored while a snapshot's files are read; much happens before the next one."""
    kernel = ImaginaryKernel()
    kernel.store(4, 2)
    end = len(kernel.rows)
    names = _names(kernel.rows)
    charged = [row[_COLUMN["size"]] for row, name in zip(kernel.rows, names, strict=True)
               if name == "obj_cgroup_charge_zswap"]
    assert len(charged) == 4
    place = names.index("obj_cgroup_charge_zswap")
    for slot in range(100, 300):
        kernel.store(slot)
    rows = [_counters(0), *kernel.rows[:place], _counters(1), *kernel.rows[place:]]
    assert end < len(kernel.rows) - 128
    read = {"memory.zswap.current": str(sum(charged[:charges]) + more)}
    result = _replay(tmp_path / "rec", rows, [{}, {}], [{"memory.zswap.current": "0"}, read])
    assert result.verdict == verdict
    if verdict == "FAIL":
        assert [found.check for found in result.divergences] == ["counter.memcg.zswap.current"]


@pytest.mark.parametrize(("first", "second", "verdict"), [
    ((1, 1), (1, 1), "PASS"),  # brought up to date
    ((1, 0), (1, 1), "PASS"), ((1, 0), (1, 0), "PASS"), ((0, 0), (1, 1), "PASS"),  # of a moment ago
    ((1, 0), (2, 0), "FAIL"), ((1, 2), (1, 1), "FAIL"),  # of no moment there was
    ((0, 1), (1, 1), "FAIL"),  # of two moments: the zeros came last
])
def test_zero_filled_pages_lag_behind_like_all_of_a_cgroup(tmp_path: Path, first: tuple[int, int],
                                                           second: tuple[int, int], verdict: str) -> None:
    """A page is stored, then a zero-filled one marked; memory.stat may still be without it, or without both."""
    kernel = ImaginaryKernel()
    kernel.store(1)
    kernel._row("swap_writeout", swpent=2)
    kernel._row("swap_writeout_ret")
    rows = [_counters(0), *kernel.rows, _counters(1), _counters(2)]
    stat = [{"memory.stat": f"zswpout {out}\nswpout_zero {zeros}\n"} for out, zeros in ((0, 0), first, second)]
    result = _replay(tmp_path / "rec", rows, [{}, {}, {}], stat)
    assert result.verdict == verdict, result.divergences


@pytest.mark.parametrize("read_between", [False, True])
@pytest.mark.parametrize(("stored", "verdict"), [(1, "PASS"), (2, "PASS"), (3, "PASS"), (4, "PASS"), (5, "FAIL")])
def test_counters_are_read_in_the_middle_of_a_long_operation(tmp_path: Path, stored: int, verdict: str,
                                                             read_between: bool) -> None:
    """A folio of four pages is stored while debugfs is read; meminfo, and with it the total, comes after that.

    The total is one of debugfs's files, too: others are read after it.
    """
    kernel, first = ImaginaryKernel(), ImaginaryKernel()
    kernel.store(4, 2)
    end = len(kernel.rows)
    place = _names(kernel.rows).index("obj_cgroup_charge_zswap")
    first.store(4)
    kernel.pid = 300
    kernel._row("zs_get_total_pages_ret", ret=first.model.total_pages())
    kernel._row("zs_get_total_pages_ret", ret=kernel.model.total_pages())
    kernel._row("zswap_total_pages_ret", ret=kernel.model.total_pages())
    rows = [_counters(0), *kernel.rows[:place], _counters(1), *kernel.rows[end:end + read_between],
            *kernel.rows[place:end], *kernel.rows[end + 1:]]
    result = _replay(tmp_path / "rec", rows, [{"stored_pages": "0"}, {"stored_pages": str(stored)}])
    assert result.verdict == verdict, result.divergences
    if verdict == "FAIL":
        assert [found.check for found in result.divergences] == ["counter.zswap.stored_pages"]


@pytest.mark.parametrize(("pages", "cpus", "memory", "lag"), [
    # 2 * fls(CPUs) * (1 + fls(size in 128 MiB)) for each CPU and zone
    (0x30000, 1, "0", 2 * 1 * 4), (0x30000, 2, None, 2 * 2 * 4 * 2), (0x30000, 2, "0-1", 2 * 2 * 4 * 2 * 2),
    (0x30000, 2, "0,2-4", 2 * 2 * 4 * 2 * 4), (0x30000, 1, "", 8), (0x30000, 1, ["0-1"], 8),
    # 4 GiB do not all lie below 4 GiB; a threshold is at most 125
    (0x100000, 2, "0", 2 * 2 * 7 * 2 * 2), (0x4000000, 64, "0-1", 125 * 64 * 3)])
def test_how_far_zone_counters_may_lag(pages: int, cpus: int, memory: Any, lag: int) -> None:
    box = {} if memory is None else {"numa": {"has_memory": memory}}
    recording = SimpleNamespace(manifest={"config": {"totalram_pages": pages}, "capture": {"box": box},
                                          "losses": [{"cpu": cpu, "lost": 0} for cpu in range(cpus)]})
    assert _vmstat_lag(recording) == lag  # type: ignore[arg-type]


class Writeouts(ImaginaryKernel):
    """6.12, whose large folios are zero-filled, or whose slots are unused when they are written out."""

    what = "store"

    def _answer(self, effect: Any) -> Any:
        return self.what if effect[0] == "?swap_writeout" else super()._answer(effect)


def written_out(tmp_path: Path, revision: str, whats: list[tuple[str, int]], counted: int) -> replay.Result:
    made = Writeouts(revision)
    rows, snapshots, vmstat = [_counters(0)], [dict.fromkeys(DEBUGFS, 0)], [{"swpout_zero": 5}]
    for number, (made.what, order) in enumerate(whats):
        made.store(64 * number, order)
    made.what = "store"
    rows += [*made.rows, _counters(1)]
    return _replay(tmp_path / "rec", rows, [*snapshots, dict.fromkeys(DEBUGFS, 0)],
                   vmstat=[*vmstat, {"swpout_zero": 5 + counted}], revision=revision)


@pytest.mark.parametrize(("counted", "passes"), [
    (32, True), (16, True), (0, True), (33, False), (-1, False), (31, False), (15, False)])
def test_6_12_frees_large_folios_unseen(tmp_path: Path, counted: int, passes: bool) -> None:
    """swap_writepage() found the slots of one of two folios unused: put_swap_folio() does not say so to zswap."""
    result = written_out(tmp_path, "mainline-6.12", [("zero", 4), ("free", 4)], counted)
    assert [each.check for each in result.divergences] == ([] if passes else ["counter.vmstat.swpout_zero"])
    said = f"{32 - counted} pages of large folios were freed and not zero-filled, as the snapshots say"
    assert any(note.startswith(said) for note in result.notes) == (passes and counted < 32)


@pytest.mark.parametrize(("revision", "order"), [("mainline-6.12", 0), ("mainline-6.18", 4)])
def test_where_the_kernel_says_what_it_frees_the_rest_is_zero_filled(tmp_path: Path, revision: str, order: int) -> None:
    pages = 1 << order
    for counted, differs in ((pages, []), (0, ["counter.vmstat.swpout_zero"])):
        (tmp_path / str(counted)).mkdir()
        result = written_out(tmp_path / str(counted), revision, [("zero", order)], counted)
        assert [each.check for each in result.divergences] == differs
