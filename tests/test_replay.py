# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays: shipped recordings of real kernels, synthetic ones of any shape, and what a verdict says."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tampering import Tampered

import replay
import traces
from model.crypto import compressor_for
from model.crypto import knownanswers as known
from model.crypto.lz4 import Lz4
from model.revisions import MAINLINE, REVISIONS
from model.revisions.mainline_7 import Mainline73
from model.zsmalloc import SgEntry, ZsObject, ZsPool
from model.zswap import Folio
from replay.reference.checks import CHECKS
from replay.tools.synthetic import ImaginaryKernel, config, write_recording
from traces import schema
from traces.errors import BadInput
from traces.recording import RecordingWriter

#: What at least one shipped sample must have compared; together the samples exercise every check there is.
SAMPLES = ["6.12-zstd-4k", "6.18-zstd-4k", "7.0-lz4-64k", "7.2-lz4-edge", "7.2-lz4-numa2", "7.2-zstd-4k",
           "7.3-iaa-faults", "7.3-iaa-rebind", "7.3-lz4-4k", "7.3-lz4-limits", "7.3-zstd-64k", "7.3-zstd-smp2",
           "v12-iaa-64k", "v14-iaa-64k", "v8-iaa-64k"]


@pytest.fixture(scope="module")
def results(samples: dict[str, Path]) -> dict[str, replay.Result]:
    return {name: replay.replay(traces.open_recording(path)) for name, path in samples.items()}


def test_all_samples_are_here(samples: dict[str, Path]) -> None:
    assert sorted(samples) == SAMPLES
    # With those that show defects: together they stay below 16 MiB.
    size = sum(f.stat().st_size for path in (*samples.values(), ROOT / "traces/found") for f in path.rglob("*")
               if f.is_file() and "cache" not in f.parts)
    assert size < 16 << 20


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_passes(results: dict[str, replay.Result], samples: dict[str, Path], name: str) -> None:
    result = results[name]
    assert (result.verdict, result.divergences, result.reasons) == ("PASS", [], [])
    assert result.unexplained == 0
    assert result.events == len(traces.open_recording(samples[name]))
    line = name.split("-")[0]
    assert result.revision == (line if line in REVISIONS else f"mainline-{line}")


#: What no sample can show: no mainline kernel has calls of several pages; what the samples' workload found, and in which
#: hierarchy the worker goes round, was not recorded when they were made (tests/test_truth*.py, tests/test_worker_cursor.py).
IN_NO_SAMPLE = {"load.folio", "load.workload", "shrink.worker", "writeback.folio"}


@pytest.mark.parametrize("check", sorted(set(CHECKS) - IN_NO_SAMPLE))
def test_every_check_compares_something_in_some_sample(results: dict[str, replay.Result], check: str) -> None:
    compared = {name: next((c.compared for c in result.checks if c.id == check), 0) for name, result in results.items()}
    assert any(compared.values()), compared


def test_a_check_without_comparisons_gives_its_reason(results: dict[str, replay.Result]) -> None:
    for result in results.values():
        for check in result.checks:
            assert bool(check.compared) or check.reason, check
            assert check.grade == ("not captured" if not check.compared else check.grade)
    no_bytes = {c.id: c for c in results["7.2-zstd-4k"].checks}
    assert no_bytes["store.length"].reason == "the recording holds digests of pages, not their bytes"
    assert no_bytes["counter.vmstat.nr_zspages"].grade == "modelled"


def test_two_cpus_interleave_in_the_sample(samples: dict[str, Path]) -> None:
    frame = traces.open_recording(samples["7.3-zstd-smp2"]).frame(["cpu", "pid", "event"])
    assert frame.cpu.nunique() == 2
    stores = frame[frame.event.isin(["zswap_store", "zswap_store_ret"])]
    assert stores.pid.nunique() >= 2


# ---- synthetic recordings -----------------------------------------------------------------------------------


OPERATIONS = st.lists(st.tuples(st.sampled_from(["store", "store", "store", "big", "load", "free", "compact"]),
                                st.integers(0, 63)), max_size=60)


@pytest.mark.parametrize("revision", sorted(MAINLINE))
@given(operations=OPERATIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_model_does_its_own_replay_explains(tmp_path_factory: pytest.TempPathFactory, revision: str,
                                                   operations: list[tuple[str, int]]) -> None:
    kernel = ImaginaryKernel(revision)
    kernel.store(1000)
    for what, slot in operations:
        if what == "store":
            kernel.store(slot)
        elif what == "big":
            if revision == "mainline-6.12":
                # It refuses the folio and leaves what its slots held: a swap layer that gave a large folio slots in use
                # would lose pages, and invariant.load says so.  The kernel's frees them first.
                for used in range(slot // 4 * 4, slot // 4 * 4 + 4):
                    kernel.invalidate(used)
            kernel.store(slot // 4 * 4, 2)
        elif what == "load":
            kernel.load(slot)
        elif what == "free":
            kernel.invalidate(slot)
        else:
            kernel.compact()
    path = tmp_path_factory.mktemp("synthetic") / "rec"
    write_recording(str(path), kernel.block(), revision=revision)
    result = replay.replay(traces.open_recording(path))
    assert (result.verdict, result.unexplained) == ("PASS", 0), result.divergences


def test_a_store_that_hits_the_limit_is_refused_and_accepted_again_below_the_threshold(tmp_path: Path) -> None:
    # 1000 pages of RAM at 20 %: full at 200 pages, accepting again at 180.
    kernel = ImaginaryKernel(length=lambda swpent: 4000, totalram_pages=1000)
    slot = 0
    while kernel.store(slot):
        slot += 1
    assert kernel.model.pool_reached_full
    for freed in range(15):
        kernel.invalidate(freed)
    assert not kernel.store(5000), "between threshold and limit the pool stays closed"
    for freed in range(15, 25):
        kernel.invalidate(freed)
    assert kernel.store(5001)
    path = tmp_path / "rec"
    with RecordingWriter(path) as writer:
        writer.write_rows(kernel.block())
        writer.close(config(totalram_pages=1000))
    assert replay.replay(traces.open_recording(path)).verdict == "PASS"
    with RecordingWriter(tmp_path / "other") as writer:
        writer.write_rows(kernel.block())
        writer.close(config(totalram_pages=2000))
    wrong = replay.replay(traces.open_recording(tmp_path / "other"))
    assert wrong.verdict == "FAIL"


def _write(path: Path, block: np.ndarray, **changes: object) -> traces.Recording:
    with RecordingWriter(path) as writer:
        writer.write_rows(block)
        writer.close({**config(), **changes})
    return traces.open_recording(path)


@pytest.fixture
def block() -> np.ndarray:
    kernel = ImaginaryKernel()
    for slot in range(40):
        kernel.store(slot)
    for slot in range(0, 40, 2):
        kernel.load(slot)
    return kernel.block()


def test_lost_events_make_it_undecided_from_there_on(tmp_path: Path, block: np.ndarray) -> None:
    row = np.zeros((len(schema.COLUMNS), 1), np.int64)
    row[3], row[schema.column_names().index("ret")] = schema.CODE["lost_events"], 7
    cut = block.shape[1] // 2
    recording = _write(tmp_path / "rec", np.hstack([block[:, :cut], row, block[:, cut + 7:]]),
                       losses=[{"cpu": 0, "lost": 7}])
    result = replay.replay(recording)
    assert result.verdict == "UNDECIDED"
    assert result.exit_status == 3
    assert any(f"event {cut}" in reason for reason in result.reasons)
    assert any("CPU 0 lost 7 events" in reason for reason in result.reasons)


def test_losses_of_unknown_size_can_never_pass(tmp_path: Path, block: np.ndarray) -> None:
    result = replay.replay(_write(tmp_path / "rec", block, losses=[{"cpu": 1, "lost": None}]))
    assert result.verdict == "UNDECIDED"
    assert result.reasons == ["CPU 1 lost events, how many is unknown"]


def test_an_incomplete_recording_can_never_pass(tmp_path: Path, block: np.ndarray) -> None:
    assert replay.replay(_write(tmp_path / "rec", block, complete=False)).verdict == "UNDECIDED"


def test_a_divergence_outweighs_a_loss(tmp_path: Path, block: np.ndarray) -> None:
    block = block.copy()
    sizes = np.flatnonzero(block[3] == schema.CODE["zs_malloc"])
    block[schema.column_names().index("size"), sizes[3]] += 8
    result = replay.replay(_write(tmp_path / "rec", block, losses=[{"cpu": 1, "lost": None}]))
    assert result.verdict == "FAIL"
    assert (result.divergences[0].check, result.divergences[0].event) == ("zsmalloc.size", sizes[3])


def test_entries_from_before_the_recording_make_it_undecided(tmp_path: Path, block: np.ndarray) -> None:
    with RecordingWriter(tmp_path / "rec") as writer:
        writer.write_rows(block)
        writer.add_snapshot("before", 0, {"t": 0.0, "zswap_debugfs": {"stored_pages": "12"}})
        writer.close(config())
    result = replay.replay(traces.open_recording(tmp_path / "rec"))
    assert result.verdict == "UNDECIDED"
    assert "zswap held 12 pages" in result.reasons[0]


@pytest.mark.parametrize("empty", [True, False])
def test_a_task_that_freed_a_slot_and_then_did_nothing(tmp_path: Path, empty: bool) -> None:
    # swap_range_free() frees the slot after zswap_invalidate(): what is stored there next is not what it erased.
    kernel = ImaginaryKernel(length=lambda swpent: 2000)
    kernel.store(4)
    if not empty:
        kernel.store(5)
    worker, kernel.pid = kernel.pid, 43
    kernel.invalidate(5)
    kernel.pid = worker
    assert kernel.store(5)
    kernel.pid = 43
    kernel.invalidate(4)
    kernel.pid = worker
    assert kernel.load(5) == 0
    result = replay.replay(_write(tmp_path / "rec", kernel.block()))
    assert (result.verdict, result.unexplained) == ("PASS", 0), result.divergences


def test_a_preempted_task_explains_an_early_total(tmp_path: Path) -> None:
    kernel = ImaginaryKernel()
    kernel.store(1)
    kernel.invalidate(1)
    block = kernel.block()
    names = [schema.NAMES[code] for code in block[3]]
    # Another task reads the total after the zspage was found empty and before its pages were given back.
    place = names.index("__free_zspage", names.index("zswap_invalidate")) + 1
    row = np.zeros((len(schema.COLUMNS), 1), np.int64)
    row[0], row[2], row[3] = block[0, place - 1], 777, schema.CODE["zs_get_total_pages_ret"]
    geometry = 1
    for pages, verdict in ((0, "PASS"), (geometry_pages(block), "PASS"), (geometry_pages(block) + geometry, "FAIL")):
        row[schema.column_names().index("ret")] = pages
        recording = _write(tmp_path / f"rec{pages}", np.hstack([block[:, :place], row, block[:, place:]]))
        assert replay.replay(recording).verdict == verdict, pages


def geometry_pages(block: np.ndarray) -> int:
    """Return the pages of the zspage that a block's first allocation made."""
    from model.zsmalloc import HANDLE_SIZE, get_size_class_index, size_classes

    sizes = block[schema.column_names().index("size"), block[3] == schema.CODE["zs_malloc"]]
    return size_classes(8)[get_size_class_index(int(sizes[0]) + HANDLE_SIZE)].pages_per_zspage


def test_an_early_total_outside_such_a_window_is_a_divergence(tmp_path: Path) -> None:
    kernel = ImaginaryKernel()
    kernel.store(1)
    kernel.invalidate(1)
    kernel.store(2)
    block = kernel.block()
    row = np.zeros((len(schema.COLUMNS), 1), np.int64)
    row[0], row[2], row[3] = block[0, -1], 777, schema.CODE["zs_get_total_pages_ret"]
    row[schema.column_names().index("ret")] = kernel.model.total_pages() + 1
    assert replay.replay(_write(tmp_path / "rec", np.hstack([block, row]))).verdict == "FAIL"


def test_a_compiler_may_leave_the_reading_of_totals_out_of_line(tmp_path: Path) -> None:
    """zswap_total_pages() is inlined into zswap_store() in Debian's kernels, and is not with gcc 12 in a lab build."""
    kernel = ImaginaryKernel()
    kernel.store(1)
    kernel.store(2)
    block = kernel.block()
    codes = block[3]
    place = int(np.flatnonzero(codes == schema.CODE["zs_get_total_pages_ret"])[-1]) + 1
    row = block[:, place - 1:place].copy()
    row[3] = schema.CODE["zswap_total_pages_ret"]
    column = schema.column_names().index("ret")
    read = int(row[column, 0])
    assert read, "the first store's pages"
    for value, at, said in ((read, place, None), (read + 1, place, "zsmalloc.pages"),
                            (read, place - 1, "effect.order")):
        row[column] = value
        recording = _write(tmp_path / f"rec{value}-{at}", np.hstack([block[:, :at], row, block[:, at:]]))
        result = replay.replay(recording)
        assert [divergence.check for divergence in result.divergences[:1]] == ([said] if said else []), (value, at)
        assert result.verdict == ("FAIL" if said else "PASS")


@pytest.mark.parametrize(("during", "verdict"), [(True, "PASS"), (False, "FAIL")])
def test_a_walk_moves_an_entry_while_another_is_added(tmp_path: Path, during: bool, verdict: str) -> None:
    """list_lru_add() on one CPU, a walk that rotates on another: the next walk shows which came first.

    Where the addition was over before the walk began the order is known, and the wrong one is wrong.
    """
    kernel = ImaginaryKernel("mainline-7.2")
    kernel.store(1)
    first = len(kernel.rows)
    kernel.pid = 200
    kernel.store(3)
    second = len(kernel.rows)
    kernel.pid = 300
    kernel.do(kernel.model.shrink_memcg(None))  # looks at the oldest, and gives it its second chance
    third = len(kernel.rows)
    kernel.do(kernel.model.shrink_memcg(None))
    looks = [row for row in kernel.rows if schema.NAMES[row[3]] == "shrink_memcg_cb"]
    assert len(looks) == 2
    assert looks[0][schema.column_names().index("entry")] != looks[1][schema.column_names().index("entry")]
    store, walk, again = kernel.rows[first:second], kernel.rows[second:third], kernel.rows[third:]
    place = [schema.NAMES[row[3]] for row in store].index("list_lru_add") + 1
    if during:
        # The walk began after the addition was entered, and the addition was made first.
        kernel.rows[first:] = [*store[:place], *walk, *store[place:], *again]
    else:
        kernel.rows[first:] = [*store, *again]
    block = kernel.block()
    block[0] = np.arange(1, block.shape[1] + 1) * 1000
    with RecordingWriter(tmp_path / "rec") as writer:
        writer.write_rows(block)
        writer.close(config("mainline-7.2"))
    result = replay.replay(traces.open_recording(tmp_path / "rec"))
    assert result.verdict == verdict, result.divergences
    assert any("LRU walk showed" in note for note in result.notes) == during
    if not during:
        assert result.divergences[0].check == "lru.order"


def test_nested_and_interleaved_tasks(tmp_path: Path) -> None:
    one, two = ImaginaryKernel(), ImaginaryKernel()
    for slot in range(20):
        one.store(slot)
    block = one.block()
    # A second task's invalidates of slots zswap holds nothing for, one between any two events of the first.
    two.pid = 200
    for slot in range(1000, 1000 + block.shape[1]):
        two.invalidate(slot)
    other = two.block()[:, :block.shape[1]]
    mixed = np.empty((block.shape[0], 2 * block.shape[1]), np.int64)
    mixed[:, 0::2], mixed[:, 1::2] = block, other
    mixed[0] = np.arange(mixed.shape[1])
    assert replay.replay(_write(tmp_path / "rec", mixed)).verdict == "PASS"


# ---- revisions ----------------------------------------------------------------------------------------------


def test_another_kernels_revision_diverges(samples: dict[str, Path]) -> None:
    result = replay.replay(traces.open_recording(samples["7.3-zstd-64k"]), "mainline-6.12")
    assert result.verdict == "FAIL"
    first = result.divergences[0]
    assert first.context
    assert first.state["pool_pages"] >= 0
    assert any(line.startswith("-> ") for line in first.context)


def test_keep_going_finds_more(samples: dict[str, Path]) -> None:
    class Short(Mainline73):
        def _store_object(self, entry, length, raw):  # type: ignore[no-untyped-def]
            return super()._store_object(entry, length + (length == 2521), raw)

    recording = Tampered(samples["7.3-lz4-4k"])
    one = replay.replay(recording, Short)
    many = replay.replay(recording, Short, keep_going=True)
    assert one.divergences[0].check == "zsmalloc.size"
    assert len(one.divergences) == 1
    assert sum(c.different for c in many.checks) > 1
    assert many.events == len(recording)


def test_only_the_checks_asked_for(samples: dict[str, Path]) -> None:
    recording = traces.open_recording(samples["7.3-lz4-4k"])
    result = replay.replay(recording, checks={"store.length", "counter.zswap"})
    assert {c.id.split(".")[0] for c in result.checks} == {"store", "counter"}
    other = replay.replay(recording, "mainline-6.12", checks={"store.length"})
    assert other.verdict == "UNDECIDED"
    assert "the order of effects differs at event" in other.reasons[0]
    with pytest.raises(BadInput, match=r"there is no check 'store\.lenght'"):
        replay.replay(recording, checks={"store.lenght"})


@pytest.mark.parametrize(("key", "value", "sentence"), [
    ("compressor", "zip", "its compressor 'zip' is not one that any kernel has"),
    ("totalram_pages", None, "does not say totalram_pages"),
    ("chain_size", 99, "ZSMALLOC_CHAIN_SIZE is 4 to 16, not 99"),
])
def test_configurations_that_cannot_be(tmp_path: Path, block: np.ndarray, key: str, value: object,
                                       sentence: str) -> None:
    wrong = config()
    wrong["config"][key] = value
    if value is None:
        del wrong["config"][key]
    with RecordingWriter(tmp_path / "rec") as writer:
        writer.write_rows(block)
        writer.close(wrong)
    with pytest.raises(BadInput, match=re.escape(sentence)):
        replay.replay(traces.open_recording(tmp_path / "rec"))


def test_an_unknown_kernel_names_the_revisions_there_are(tmp_path: Path, block: np.ndarray) -> None:
    recording = _write(tmp_path / "rec", block, kernel={"release": "7.9.0"})
    with pytest.raises(BadInput, match=r"no revision mirrors its kernel \(7.9.0\).*mainline-7.3"):
        replay.replay(recording)
    assert replay.replay(recording, "mainline-7.3").verdict == "PASS"


def test_a_compressor_without_exact_library_is_named(samples: dict[str, Path]) -> None:
    recording = Tampered(samples["7.3-lz4-4k"])
    recording.manifest["config"]["compressor"] = "deflate-iaa-dynamic"
    recording.documents["state"]["pools"][0]["tfm_name"] = "deflate-iaa-dynamic"
    result = replay.replay(recording)
    check = next(c for c in result.checks if c.id == "store.length")
    assert check.compared == 0
    assert "deflate-iaa-dynamic" in check.reason


@pytest.mark.parametrize(("change", "caught"), [("", ""), ("less than can be", "store.length"),
                                                ("more than fits", "store.length")])
def test_results_of_hardware_are_held_against_what_they_can_be(tmp_path: Path, change: str, caught: str) -> None:
    hardware = compressor_for("deflate-iaa", "mainline-7.3")
    pages = [page for _, page in known.pages()]
    kernel = ImaginaryKernel(pages=pages, compressor=hardware)
    for slot in range(len(pages)):
        kernel.store(slot)
    block = kernel.block()
    column = {name: at for at, name in enumerate(schema.column_names())}
    ret, dlen = column["ret"], column["dlen"]
    results = np.flatnonzero((block[3] == schema.CODE["crypto_acomp_compress_ret"]) & (block[ret] == 0))
    event = int(next(row for row in results if 1000 < block[dlen, row] < 2500))
    if change == "less than can be":
        block[dlen, event] = 900
    elif change:
        block[dlen, event] = schema.PAGE_SIZE + 1
    with RecordingWriter(tmp_path / "rec") as writer:
        for page in pages:
            writer.pages.add(page)
        writer.write_rows(block)
        writer.close({**config(), "config": {**config()["config"], "compressor": "deflate-iaa"}})
    result = replay.replay(traces.open_recording(tmp_path / "rec"), keep_going=not caught)
    assert result.verdict == ("FAIL" if caught else "PASS"), result.divergences
    checks = {check.id: check for check in result.checks}
    assert checks["store.length"].grade == "modelled"
    assert "cannot be predicted" in checks["store.error"].reason
    if caught:
        assert (result.divergences[0].check, result.divergences[0].event) == (caught, event)
    else:
        assert checks["store.length"].compared == len(results) > 5


# ---- results ------------------------------------------------------------------------------------------------


def test_a_second_replay_compresses_nothing(samples: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "rec"
    shutil.copytree(samples["7.3-zstd-64k"], copy, ignore=shutil.ignore_patterns("cache"))
    first, second = (replay.replay(traces.open_recording(copy)) for _ in range(2))
    assert any("0 results kept" in note for note in first.notes)
    assert any(note.startswith("0 distinct pages compressed") for note in second.notes)
    assert first.checks == second.checks


def test_a_wrong_kept_result_does_not_survive_other_pages(samples: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    a, b = tmp_path / "a", tmp_path / "b"
    shutil.copytree(samples["7.3-zstd-64k"], a, ignore=shutil.ignore_patterns("cache"))
    shutil.copytree(samples["7.3-zstd-smp2"], b, ignore=shutil.ignore_patterns("cache"))
    replay.replay(traces.open_recording(a))
    (b / "cache").mkdir()
    for file in (a / "cache").iterdir():
        shutil.copy(file, b / "cache" / file.name)
    assert replay.replay(traces.open_recording(b)).verdict == "PASS"


def test_effects_iterate(samples: dict[str, Path]) -> None:
    seen = list(replay.effects(traces.open_recording(samples["7.3-zstd-64k"])))
    assert all(name == effect[0] for _, name, effect in seen)
    assert [number for number, _, _ in seen] == sorted(number for number, _, _ in seen)
    assert isinstance(next(effect for _, name, effect in seen if name == "zswap_store")[1], Folio)


def test_a_result_is_plain_data(results: dict[str, replay.Result]) -> None:
    text = json.dumps(results["7.3-lz4-4k"].as_dict(), default=str)
    assert json.loads(text)["verdict"] == "PASS"


def test_random_noise_is_never_explained(tmp_path: Path) -> None:
    chance = random.Random(5)
    kernel = ImaginaryKernel()
    kernel.store(1)
    block = np.tile(kernel.block(), 3)
    for column in range(4, block.shape[0] - 2):
        block[column] = [chance.randrange(1 << 31) for _ in range(block.shape[1])]
    assert replay.replay(_write(tmp_path / "rec", block)).verdict == "FAIL"


@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, len(schema.COLUMNS) - 2),
                                  st.integers(-(1 << 63), (1 << 63) - 1)), min_size=1, max_size=8), keep_going=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_recorded_there_is_a_verdict(tmp_path_factory: pytest.TempPathFactory,
                                                 changes: list[tuple[int, int, int]], keep_going: bool) -> None:
    # Events that its manifest lists no probe of are refused: another test's.
    probed = [*config()["probes"], *schema.NO_PROBE]
    kernel = ImaginaryKernel()
    for slot in range(6):
        kernel.store(slot, 2 * (slot == 4))
    kernel.load(1)
    kernel.compact()
    kernel.invalidate(2)
    block = kernel.block()
    for row, column, value in changes:
        if column == 3:
            value = schema.CODE[probed[value % len(probed)]]
        block[column, row % block.shape[1]] = value
    path = tmp_path_factory.mktemp("noise") / "rec"
    write_recording(str(path), block)
    result = replay.replay(traces.open_recording(path), keep_going=keep_going)
    assert result.verdict in ("PASS", "FAIL", "UNDECIDED")


def test_a_check_that_was_asked_for_and_cannot_be_made_is_undecided(samples: dict[str, Path]) -> None:
    result = replay.replay(traces.open_recording(samples["7.2-zstd-4k"]), checks={"store.length"})
    assert result.verdict == "UNDECIDED"
    assert result.reasons == ["store.length was asked for and could not be compared: the recording holds digests of "
                              "pages, not their bytes"]


def test_a_revision_that_raises_is_told_with_its_event(samples: dict[str, Path]) -> None:
    class Broken(Mainline73):
        def zswap_load(self, folio):  # type: ignore[no-untyped-def]
            raise KeyError("no such thing")
            yield

    with pytest.raises(BadInput, match=r"test_replay.py:\d+, event \d+ of .*: revision Broken raises KeyError: 'no such thing'; mend the file"):
        replay.replay(traces.open_recording(samples["7.3-lz4-4k"]), Broken)


@pytest.mark.parametrize(("losses", "verdict", "wrong_value"), [
    ([], "FAIL", "FAIL"), ([{"cpu": 0, "lost": 0}], "FAIL", "FAIL"),
    ([{"cpu": "any", "probe": "store", "lost": 3}], "UNDECIDED", "FAIL"),
    # The operation's own events are on a CPU that lost some, or on one that lost none.
    ([{"cpu": 0, "lost": None}], "UNDECIDED", "UNDECIDED"), ([{"cpu": 0, "lost": 7}], "UNDECIDED", "UNDECIDED"),
    ([{"cpu": 1, "lost": 7}], "UNDECIDED", "FAIL"), ([{"cpu": None, "lost": None}], "UNDECIDED", "UNDECIDED")])
@pytest.mark.parametrize("change", ["missing", "size", "store"])
def test_an_event_may_be_missing_because_it_was_lost(tmp_path: Path, change: str, verdict: str, wrong_value: str,
                                                     losses: list[dict[str, object]]) -> None:
    """Missed hits, and events lost at an unknown place, leave no mark: a kernel that did something else looks the same.

    A wrong value is wrong, where no event of its operation can have been lost.
    """
    kernel = ImaginaryKernel(length=lambda swpent: 1500)
    for slot in range(5):
        kernel.store(slot)
    block = kernel.block()
    names = [schema.NAMES[code] for code in block[3]]
    place = names.index("zs_malloc", len(names) // 2)
    if change == "missing":
        block = np.delete(block, place, axis=1)
    elif change == "store":
        # A whole operation of a task that is seen nowhere else: what comes after it is in the wrong place.
        starts = [row for row, name in enumerate(names) if name == "swap_writeout"]
        block = np.delete(block, np.arange(starts[2], starts[3]), axis=1)
    else:
        block[schema.column_names().index("size"), place] += 8
    result = replay.replay(_write(tmp_path / "rec", block, losses=losses))
    assert result.verdict == (wrong_value if change == "size" else verdict)
    assert result.divergences, "the difference is shown all the same"
    why = "hits that probes missed" if losses and "probe" in losses[0] else "may be due to lost events"
    assert any(why in reason for reason in result.reasons) == (result.verdict == "UNDECIDED")


def test_a_library_that_is_not_exact_here_judges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         samples: dict[str, Path]) -> None:
    """It is named, its results are compared as modelled, and what it gets wrong is counted, not blamed on the kernel."""
    shutil.copytree(samples["7.3-lz4-4k"], tmp_path / "rec", ignore=shutil.ignore_patterns("cache"))
    exact = compressor_for("lz4", "mainline-7.3").lengths

    def one_more(self: Lz4, pages: np.ndarray, threads: int = 1) -> Any:
        errs, dlens, heads = exact(pages, threads)
        return errs, dlens + (errs == 0), heads ^ np.uint64(1)

    monkeypatch.setattr(Lz4, "lengths", one_more)
    monkeypatch.setattr(Lz4, "self_check", lambda self: ["the page 'text' gives 1,001 bytes, not 1,000"])
    result = replay.replay(traces.open_recording(tmp_path / "rec"))
    assert result.verdict == "PASS", result.divergences
    checks = {check.id: check for check in result.checks}
    length = checks["store.length"]
    assert (length.grade, length.different) == ("modelled", 0)
    assert re.match(r"lz4 own .* is not exact on this machine: the page .text. gives", length.reason)
    assert re.search(r"; ([1-9]\d*) of \d+ results differ", length.reason)
    assert "handle and length only" in checks["store.bytes"].reason


def test_checks_are_asked_for_by_the_part_before_their_point(samples: dict[str, Path]) -> None:
    result = replay.replay(traces.open_recording(samples["7.2-lz4-edge"]), checks={"load"})
    assert {check.id for check in result.checks if check.compared} == {"load.result", "load.entry", "load.content"}
    with pytest.raises(BadInput, match="there is no check 'loa'"):
        replay.replay(traces.open_recording(samples["7.2-lz4-edge"]), checks={"loa"})


@pytest.mark.parametrize(("second", "verdict"), [(1, "PASS"), (-1, "FAIL"), (2, "FAIL"), (0, "FAIL")])
def test_a_read_goes_on_on_the_next_page(samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch, second: int,
                                         verdict: str) -> None:
    """The entries of a read are derived, not recorded: a user's own step that takes another page is reported."""
    def read(self: ZsPool, obj: ZsObject, length: int) -> tuple[SgEntry, ...]:
        shape = whole(self, obj, length)
        return shape if len(shape) == 1 else (shape[0], SgEntry(shape[0].page + second, 0, shape[1].length))

    whole = ZsPool.zs_obj_read_sg
    monkeypatch.setattr(ZsPool, "zs_obj_read_sg", read)
    result = replay.replay(traces.open_recording(samples["7.2-lz4-edge"]))
    assert (result.verdict, {d.check for d in result.divergences}) == (verdict, {"sg.shape"} if verdict == "FAIL" else set())
