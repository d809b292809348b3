# SPDX-License-Identifier: GPL-2.0-or-later
"""Two recordings of one run: what agrees, what differs and where, and what is not known."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tampering import COLUMNS, Tampered

from replay.cli import main
from replay.recdiff.alignment import Events, align, mix, overlap
from replay.recdiff.comparison import LAG, READINGS, RecordingComparison, compare
from replay.tools.synthetic import cycle, write_recording
from traces import schema
from traces.errors import BadInput
from traces.recording import Recording, RecordingWriter

CODE = schema.CODE
COLUMN = {name: index for index, name in enumerate(COLUMNS)}
#: Longer than stamps of one hit are apart: events of this spacing are not at each other's edge.
APART = 3 * LAG


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of one task."""
    path = tmp_path_factory.mktemp("compare") / "rec"
    write_recording(str(path), cycle(45_000, seed=5))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, shorter."""
    path = tmp_path_factory.mktemp("compare") / "rec"
    write_recording(str(path), cycle(4000, seed=5))
    return path


def copy_of(path: Path, spread: int = 1) -> Tampered:
    """A recording to change; ``spread`` puts its events that many ns apart."""
    made = Tampered(path)
    if spread > 1:
        made.columns["ts"] = np.arange(len(made), dtype=np.int64) * spread
    return made


def keep(recording: Tampered, which: np.ndarray) -> Tampered:
    """Take only some events, by number or by a mask."""
    for name in COLUMNS:
        recording.columns[name] = recording.columns[name][which]
    return recording


def without(recording: Tampered, *events: int) -> Tampered:
    return keep(recording, np.delete(np.arange(len(recording)), events))


def names_of(recording: Tampered) -> list[str]:
    return [schema.NAMES[code] for code in recording.columns["event"]]


def place_of(recording: Tampered, name: str, after: int = 0) -> int:
    return names_of(recording).index(name, after)


def says(result: RecordingComparison) -> tuple[str, int, list[tuple[int, tuple[int, int]]]]:
    """Verdict, events in both, and per task that differs (different events, events only in A and B)."""
    return result.verdict, result.events, [(t.different, t.only) for t in result.tasks if t.verdict != "AGREE"]


@pytest.mark.parametrize("name", ["7.3-lz4-4k", "6.12-zstd-4k", "7.3-zstd-64k"])
def test_a_recording_agrees_with_itself(samples: dict[str, Path], name: str) -> None:
    recording = Recording(samples[name])
    result = compare(recording, recording)
    counts = recording.frame(["event"]).event.value_counts()
    own = int(sum(counts.get(kind, 0) for kind in ("marker", "counters", "param", "lost_events")))
    assert says(result) == ("AGREE", len(recording) - own, [])
    assert result.exit_status == 0
    assert [(side.own, side.edges, side.kinds, side.columns) for side in result.sides] == [(own, 0, {}, {})] * 2
    assert result.pages == counts["crypto_acomp_compress"] > 0


def test_late_and_uneven_stamps_change_nothing(samples: dict[str, Path]) -> None:
    """The second probe of a hit runs later, by more than the next event is away, and on another CPU at times."""
    a, b = copy_of(samples["7.3-lz4-4k"]), copy_of(samples["7.3-lz4-4k"])
    chance = np.random.default_rng(1)
    late = np.maximum.accumulate(b.columns["ts"] + chance.integers(0, 200_000, len(b)))
    b.columns["ts"] = late
    b.columns["cpu"] = b.columns["cpu"] ^ np.uint16(1)
    result = compare(a, b)
    assert says(result)[0::2] == ("AGREE", [])
    assert sum(side.edges for side in result.sides) == 0


def field_changes(path: Path) -> list[tuple[int, str]]:
    """One event of each kind and field, and the first and the last event of all."""
    recording = Tampered(path)
    names = names_of(recording)
    out = {}
    for at in (0, len(names) - 1, *range(7, len(names), 3)):
        for column in recording.manifest["probes"].get(names[at], {}).get("columns", ()):
            if column not in ("text", "content") and (names[at], column) not in out:
                out[names[at], column] = at
    return [(at, column) for (_, column), at in out.items()]


def test_a_changed_field_is_found_at_its_event(small: Path) -> None:
    a = copy_of(small)
    changes = field_changes(small)
    assert len(changes) > 60
    for at, column in changes:
        b = copy_of(small)
        b.columns[column] = b.columns[column].copy()
        b.columns[column][at] ^= b.columns[column].dtype.type(1)
        result = compare(a, b, data=True)
        assert says(result) == ("DIFFER", len(a), [(1, (0, 0))]), (at, column)
        first = result.tasks[0].first
        assert first is not None
        assert (first.place, first.events, first.name) == (at, (at, at), names_of(a)[at])
        assert first.fields == ((column, int(a.columns[column][at]), int(b.columns[column][at])),)
        assert result.fields == {f"{first.name}.{column}": 1}
        assert [line.startswith("-> ") for line in first.context[1]].index(True) == min(at, 4)
        assert result.exit_status == 1


def test_an_event_that_one_lacks_is_found(small: Path) -> None:
    a = copy_of(small, APART)
    chance = random.Random(2)
    for at in [1, 2, len(a) - 2, *(chance.randrange(3, len(a) - 3) for _ in range(25))]:
        b = without(copy_of(small, APART), at)
        for one, other, only in ((a, b, (1, 0)), (b, a, (0, 1))):
            result = compare(one, other)
            verdict, events, differ = says(result)
            assert (verdict, events, differ) == ("DIFFER", len(a) - 1, [(0, only)])
            first = result.tasks[0].first
            assert first is not None
            # Of several like events in a row it does not matter which one is missing.
            found = max(first.events)
            assert min(first.events) == -1
            assert a.columns["event"][found] == a.columns["event"][at]
            assert found == at or (a.columns["event"][min(found, at):max(found, at)] == a.columns["event"][at]).all()
            assert first.ts == found * APART


def test_swapped_events_are_found(synthetic: Path) -> None:
    a, b = copy_of(synthetic), copy_of(synthetic)
    at = place_of(a, "zs_malloc", 3000)
    order = np.arange(len(a))
    order[[at, at + 1]] = order[[at + 1, at]]
    stamps = b.columns["ts"]
    keep(b, order).columns["ts"] = stamps
    result = compare(a, b)
    assert says(result) == ("DIFFER", len(a) - 1, [(0, (1, 1))])
    first = result.tasks[0].first
    assert first is not None
    assert first.place in (at, at + 1)


def test_events_that_went_to_another_task_are_found_in_both(synthetic: Path) -> None:
    a, b = copy_of(synthetic, APART), copy_of(synthetic, APART)
    b.columns["pid"] = b.columns["pid"].copy()
    pid = int(b.columns["pid"][1000])
    b.columns["pid"][1000] = pid + 1
    result = compare(a, b)
    assert says(result) == ("DIFFER", len(a) - 1, [(0, (1, 0)), (0, (0, 1))])
    assert [task.pid for task in result.tasks] == [pid, pid + 1]


def test_idle_tasks_are_one_per_cpu(synthetic: Path) -> None:
    """Two CPUs' interrupts have no order between them."""
    a, b = copy_of(synthetic), copy_of(synthetic)
    for side in (a, b):
        side.columns["pid"] = np.zeros_like(side.columns["pid"])
        side.columns["cpu"] = (np.arange(len(side)) % 2).astype(np.uint16)
    order = np.arange(len(a))
    order[[500, 501]] = order[[501, 500]]
    stamps = b.columns["ts"]
    keep(b, order).columns["ts"] = stamps
    result = compare(a, b)
    assert says(result) == ("AGREE", len(a), [])
    assert [(task.pid, task.cpu) for task in result.tasks] == [(0, 1), (0, 0)]


def test_a_long_stretch_that_one_lacks_does_not_lead_astray(synthetic: Path) -> None:
    """Operations repeat: what follows the gap looks like what is missing in it."""
    a = copy_of(synthetic)
    b = without(copy_of(synthetic), *range(20_000, 31_000))
    b.columns["size"] = b.columns["size"].copy()
    b.columns["size"][place_of(b, "obj_free", 21_000)] += 1
    result = compare(a, b)
    assert says(result) == ("DIFFER", len(a) - 11_000, [(1, (11_000, 0))])


def test_a_field_that_always_differs_moves_nothing(synthetic: Path) -> None:
    a, b = copy_of(synthetic), without(copy_of(synthetic), *range(20_000, 31_000))
    has = np.isin(b.columns["event"], [CODE[k.name] for k in schema.EVENTS if "handle" in k.columns])
    b.columns["handle"] = b.columns["handle"] + has.astype(np.uint64)
    result = compare(a, b)
    assert says(result) == ("DIFFER", len(a) - 11_000, [(int(has.sum()), (11_000, 0))])
    assert {name.split(".")[1] for name in result.fields} == {"handle"}
    assert sum(result.fields.values()) == int(has.sum())


def test_nothing_alike_still_has_its_order(synthetic: Path) -> None:
    a, b = copy_of(synthetic), copy_of(synthetic)
    for name in ("swpent", "folio", "entry", "handle", "obj", "zspage", "pool", "memcg", "ret", "size", "dlen"):
        b.columns[name] = b.columns[name] + b.columns[name].dtype.type(1 << 20)
    result = compare(a, b)
    assert says(result)[:2] == ("DIFFER", len(a))
    assert result.tasks[0].only == (0, 0)


# What is not compared


def test_a_probe_that_one_has_not_is_named_and_not_compared(synthetic: Path) -> None:
    a, b = copy_of(synthetic), copy_of(synthetic)
    kind = b.columns["event"] == CODE["zs_malloc"]
    keep(b, ~kind)
    # Both say that they had the probe: that all its events are missing is a difference.
    assert says(compare(a, b)) == ("DIFFER", len(b), [(0, (int(kind.sum()), 0))])
    del b.manifest["probes"]["zs_malloc"]
    for one, other, where in ((a, b, 0), (b, a, 1)):
        result = compare(one, other)
        assert says(result) == ("AGREE", len(b), [])
        assert result.sides[where].kinds == {"zs_malloc": int(kind.sum())}
        assert result.sides[1 - where].kinds == {}


def test_a_probe_that_the_kernel_refused_is_one_that_is_missing(synthetic: Path) -> None:
    a, b = copy_of(synthetic), copy_of(synthetic)
    keep(b, b.columns["event"] != CODE["zs_malloc"])
    b.manifest["capture"] = {"plan": [{"vocabulary": "zs_malloc", "probe": None}, {"vocabulary": "zs_free", "probe": "p"}]}
    assert compare(a, b).verdict == "AGREE"


def test_fields_that_one_did_not_fetch_are_counted(synthetic: Path) -> None:
    a, b = copy_of(synthetic), copy_of(synthetic)
    b.manifest["probes"]["zs_obj_write"]["columns"].remove("data")
    b.columns["data"] = np.zeros_like(b.columns["data"])
    result = compare(a, b)
    writes = int((a.columns["event"] == CODE["zs_obj_write"]).sum())
    assert says(result) == ("AGREE", len(a), [])
    assert (result.sides[0].columns, result.sides[1].columns) == ({"zs_obj_write.data": writes}, {})


def test_markers_losses_and_snapshots_are_each_recorders_own(samples: dict[str, Path]) -> None:
    a, b = copy_of(samples["7.3-lz4-4k"]), copy_of(samples["7.3-lz4-4k"])
    keep(b, ~np.isin(b.columns["event"], [CODE["marker"], CODE["counters"], CODE["param"]]))
    assert len(b) < len(a)
    assert compare(a, b).verdict == "AGREE"


def test_readings_may_differ_where_another_cpu_runs(synthetic: Path) -> None:
    for name, column in sorted(READINGS):
        for cpus in (1, 2):
            a, b = copy_of(synthetic), copy_of(synthetic)
            b.columns["cpu"] = (np.arange(len(b)) % cpus).astype(np.uint16)
            at = place_of(b, name, 5000)
            b.columns[column] = b.columns[column].copy()
            b.columns[column][at] ^= b.columns[column].dtype.type(1)
            result = compare(a, b)
            task = result.tasks[0]
            if cpus == 2:
                assert says(result) == ("AGREE", len(a), [])
                assert (result.readings, result.fields, task.readings) == ({f"{name}.{column}": 1}, {}, 1)
            else:
                assert says(result) == ("DIFFER", len(a), [(1, (0, 0))])
                assert (result.readings, result.fields) == ({}, {f"{name}.{column}": 1})
    # An argument cannot differ, whoever runs meanwhile.
    a, b = copy_of(synthetic), copy_of(synthetic)
    b.columns["cpu"] = (np.arange(len(b)) % 2).astype(np.uint16)
    b.columns["handle"] = b.columns["handle"].copy()
    b.columns["handle"][place_of(b, "zs_free", 5000)] += np.uint64(8)
    assert compare(a, b).verdict == "DIFFER"


# Edges


def test_only_the_time_of_both_is_compared(synthetic: Path) -> None:
    """Either begins and ends anywhere, in the middle of operations, and stamps late."""
    total = len(Recording(synthetic))
    chance = random.Random(4)
    for _ in range(20):
        starts = [chance.randrange(0, total // 3) for _ in range(2)]
        stops = [chance.randrange(2 * total // 3, total) for _ in range(2)]
        a, b = (keep(copy_of(synthetic, 1000), np.arange(start, stop)) for start, stop in zip(starts, stops, strict=True))
        b.columns["ts"] = b.columns["ts"] + chance.choice([-40_000, 0, 700, 90_000])
        result = compare(a, b)
        common = min(stops) - max(starts)
        assert says(result) == ("AGREE", common, []), (starts, stops)
        assert [side.edges for side in result.sides] == [len(a) - common, len(b) - common]


def test_a_return_from_before_the_time_of_both_is_left_out(synthetic: Path) -> None:
    """The probe of a return hangs on the call: who was armed after the call does not see it return."""
    a = copy_of(synthetic, APART)
    call = place_of(a, "zswap_store", 2000)
    back = place_of(a, "zswap_store_ret", call)
    assert back > call + 5
    b = keep(without(copy_of(synthetic, APART), back), np.arange(call + 3, len(a) - 1))
    for one, other, edges in ((a, b, [call + 4, 0]), (b, a, [0, call + 4])):
        result = compare(one, other)
        assert says(result) == ("AGREE", len(b), [])
        assert [side.edges for side in result.sides] == edges
    # A return whose call both saw is missing, wherever it is.
    b = keep(without(copy_of(synthetic, APART), back), np.arange(call, len(a) - 1))
    assert says(compare(a, b)) == ("DIFFER", len(b), [(0, (1, 0))])


def test_an_edge_that_the_other_says_it_recorded_is_counted(synthetic: Path) -> None:
    a, b = copy_of(synthetic, 1_000_000), keep(copy_of(synthetic, 1_000_000), np.arange(500, 38_000))
    assert [side.certain for side in compare(a, b).sides] == [0, 0]
    b.manifest["capture"] = {"start": 200 * 1_000_000, "stop": 38_010 * 1_000_000}
    result = compare(a, b)
    assert result.verdict == "AGREE"
    assert [side.certain for side in result.sides] == [500 - 200 - 1 - 5 * LAG // 1_000_000, 0]


def test_no_time_or_kind_in_common_is_refused(synthetic: Path) -> None:
    a = copy_of(synthetic, 1000)
    later = copy_of(synthetic, 1000)
    later.columns["ts"] = later.columns["ts"] + (1 << 40)
    with pytest.raises(BadInput, match="no time in common"):
        compare(a, later)
    other = copy_of(synthetic, 1000)
    other.manifest["probes"] = {"zs_page_migrate": {"columns": ["folio"]}}
    with pytest.raises(BadInput, match="has no event of a kind that"):
        compare(a, other)


@pytest.mark.parametrize(("change", "why"), [
    (lambda manifest: manifest["kernel"].update(release="6.1"), "of another kernel"),
    (lambda manifest: manifest["config"]["symbols"].update(zswap_list_lru=5), "of another boot"),
    (lambda manifest: manifest.update(capture={"clock": "boot"}), "by another clock"),
])
def test_recordings_of_other_runs_are_refused(samples: dict[str, Path], change: Callable[[dict[str, Any]], None],
                                              why: str) -> None:
    a, b = Recording(samples["7.3-lz4-4k"]), Recording(samples["7.3-lz4-4k"])
    a.manifest["capture"] = {"clock": "mono"}
    change(b.manifest)
    with pytest.raises(BadInput, match=why):
        compare(a, b)


# Losses


def lossy(path: Path, first: int, last: int, count: int) -> Tampered:
    """A recording whose ring says that ``count`` events are missing before event ``last``; they are from ``first`` on."""
    made = copy_of(path, APART)
    mark = last - 1
    for name in ("event", "ret"):
        made.columns[name] = made.columns[name].copy()
    made.columns["event"][mark], made.columns["ret"][mark] = CODE["lost_events"], count
    made.manifest["losses"] = [{"cpu": int(made.columns["cpu"][mark]), "lost": count}]
    return without(made, *range(first, mark))


def test_what_may_be_lost_is_undecided(synthetic: Path) -> None:
    a, b = copy_of(synthetic, APART), lossy(synthetic, 5000, 5010, 10)
    for one, other, only in ((a, b, (10, 0)), (b, a, (0, 10))):
        result = compare(one, other)
        assert says(result) == ("UNDECIDED", len(a) - 10, [(0, only)])
        assert result.exit_status == 3
        assert result.tasks[0].first is not None
        assert any("CPU 0 lost 10 events before" in text for side in result.sides for text in side.losses)


def test_losses_explain_nothing_elsewhere(synthetic: Path) -> None:
    # Another event is missing far from the loss.
    a, b = copy_of(synthetic, APART), without(lossy(synthetic, 5000, 5010, 10), 8000)
    result = compare(a, b)
    assert says(result) == ("DIFFER", len(a) - 11, [(0, (11, 0))])
    first = result.tasks[0].first
    assert result.tasks[0].excused == (10, 0)
    assert first is not None
    assert first.ts == (8000 + 9) * APART, "the one that is not explained"
    # A's losses do not explain what B lacks.
    a, b = lossy(synthetic, 5000, 5010, 10), without(copy_of(synthetic, APART), 4900)
    assert says(compare(a, b))[2] == [(0, (1, 10))]
    assert compare(a, b).verdict == "DIFFER"
    # A value that differs was not lost.
    a, b = copy_of(synthetic, APART), lossy(synthetic, 5000, 5010, 10)
    b.columns["ret"] = b.columns["ret"].copy()
    b.columns["ret"][place_of(b, "zswap_store_ret", 7000)] += 1
    assert compare(a, b).verdict == "DIFFER"


@pytest.mark.parametrize(("losses", "verdict"), [
    ([{"cpu": 0, "lost": 0}], "DIFFER"), ([{"cpu": 0, "lost": 3}], "UNDECIDED"), ([{"cpu": 0, "lost": None}], "UNDECIDED"),
    ([{"cpu": 0, "lost": 0, "damaged_subbuffers": 1}], "UNDECIDED"),
    ([{"cpu": "any", "probe": "zfree", "lost": 1}], "UNDECIDED"), ([{"cpu": "any", "probe": "store", "lost": 1}], "DIFFER"),
])
def test_losses_at_unknown_times(synthetic: Path, losses: list[dict[str, Any]], verdict: str) -> None:
    a, b = copy_of(synthetic, APART), copy_of(synthetic, APART)
    b.manifest["losses"] = losses
    # Where all agrees nothing that matters was lost.
    assert compare(a, b).verdict == "AGREE"
    assert compare(a, without(b, place_of(b, "zs_free", 5000))).verdict == verdict


def test_a_loss_outside_of_the_time_of_both_explains_nothing(synthetic: Path) -> None:
    a = keep(copy_of(synthetic, APART), np.arange(9000, 15_000))
    b = without(lossy(synthetic, 5000, 5010, 10), 10_000)
    result = compare(a, b)
    assert result.verdict == "DIFFER"
    assert result.sides[1].losses == []


# Pages


def test_pages_are_compared_where_both_have_a_sha1(samples: dict[str, Path]) -> None:
    a, b = copy_of(samples["7.3-lz4-4k"]), copy_of(samples["7.3-lz4-4k"])
    pages = b.pages
    assert pages is not None
    calls = np.flatnonzero(b.columns["event"] == CODE["crypto_acomp_compress"])
    row = int(pages.refs[b.columns["content"][calls[40]]])
    users = int((pages.refs[b.columns["content"][calls]] == row).sum())
    pages.sha1[row] = "1" + "0" * 39
    result = compare(a, b)
    assert says(result) == ("AGREE" if not users else "DIFFER", result.events, [(users, (0, 0))])
    assert result.fields == {"crypto_acomp_compress.content": users}
    assert result.pages == len(calls)
    pages.sha1[row] = "1" * 64
    result = compare(a, b)
    assert (result.verdict, result.pages) == ("AGREE", len(calls) - users), "a keyed hash says nothing"


# Alignment


def sequence(keys: list[int], names: list[int] | None = None, ts: list[int] | None = None) -> Events:
    return Events(np.array(keys if names is None else names, np.uint8) % 251, np.array(keys, np.uint64),
                  np.array(range(len(keys)) if ts is None else ts, np.int64))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_an_alignment_accounts_for_every_event(data: st.DataObject) -> None:
    """Whatever was removed, changed or put in: both sides can be put together from the alignment."""
    keys = data.draw(st.lists(st.integers(0, 30), max_size=300))
    other = list(keys)
    for at in sorted(data.draw(st.lists(st.integers(0, 299), max_size=12)), reverse=True):
        if at < len(other):
            how = data.draw(st.sampled_from(["drop", "change", "insert"]))
            other[at:at + 1] = [] if how == "drop" else [other[at] + 100] if how == "change" else [other[at], at % 30]
    # Names are the key without what a change adds to it.
    a, b = (sequence(values, [value % 100 for value in values]) for values in (keys, other))
    found = align(a, b)
    matched_a = np.delete(np.arange(len(keys)), found.only_a)
    matched_b = np.delete(np.arange(len(other)), found.only_b)
    assert len(matched_a) == len(matched_b)
    assert (a.names[matched_a] == b.names[matched_b]).all()
    unequal = a.keys[matched_a] != b.keys[matched_b]
    assert found.differing.tolist() == np.stack([matched_a[unequal], matched_b[unequal]], axis=1).tolist()


def test_far_places_are_found_among_repetitions() -> None:
    round_of = [*range(100, 140)]
    keys = [value for n in range(400) for value in [1000 + n, *round_of]]
    a = sequence(keys, [value if value < 1000 else 99 for value in keys])
    cut = [*keys[:2000], *keys[9000:]]
    b = sequence(cut, [value if value < 1000 else 99 for value in cut])
    found = align(a, b)
    assert len(found.only_a) == 7000
    assert found.only_b.size == found.differing.size == 0


def test_the_beginning_in_common_is_told_from_what_follows() -> None:
    a = sequence([*range(50)], ts=[1000 * n for n in range(50)])
    for skip in (0, 1, 7):
        b = sequence([*range(skip, 50)], ts=[1000 * n + 2500 for n in range(skip, 50)])
        assert overlap(a, b, int(b.ts[0]), 10_000) == (skip, 0)
        assert overlap(b, a, int(b.ts[0]), 10_000) == (0, skip)
    # Like events: the time decides.
    a, b = sequence([1] * 30, ts=[1000 * n for n in range(30)]), sequence([1] * 20, ts=[1000 * n + 10 for n in range(5, 25)])
    assert overlap(a, b, int(b.ts[0]), 10_000) == (5, 0)
    # Far from the edge nothing is left out.
    a, b = sequence([1, 2, 3], ts=[50_000, 60_000, 70_000]), sequence([2, 3], ts=[60_000, 70_000])
    assert overlap(a, b, 0, 10_000) == (0, 0)
    # A task that only one has, near the edge and far from it.
    nothing = sequence([])
    assert overlap(sequence([1, 2], ts=[0, 90_000]), nothing, 0, 10_000) == (1, 0)


def test_digests_tell_every_bit() -> None:
    values = mix(np.array([0, *(1 << bit for bit in range(64))], np.uint64))
    assert len(set(values.tolist())) == 65


# The command


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        status = main([str(word) for word in words])
    except SystemExit as leave:
        status = int(leave.code or 0)
    out = capsys.readouterr()
    return status, out.out, out.err


def rewritten(path: Path, out: Path, change: Callable[[np.ndarray, dict[str, Any]], np.ndarray]) -> Path:
    """Write a recording with its events (columns x rows) and its manifest changed."""
    old = Tampered(path)
    block = np.stack([np.zeros(len(old), np.int64) if name == "text" else old.columns[name].astype(np.int64)
                      for name in COLUMNS])
    manifest = {key: value for key, value in old.manifest.items()
                if key not in ("segments", "files", "rows", "snapshots", "pages", "format_version", "page_size")}
    with RecordingWriter(out) as writer:
        writer.write_rows(change(block, manifest))
        writer.close(manifest)
    return out


def test_the_command_says_that_they_agree(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shorter = rewritten(synthetic, tmp_path / "b", lambda block, manifest: block[:, 300:])
    status, out, err = run(capsys, "dev", "compare", synthetic, shorter)
    total = len(Recording(synthetic))
    assert (status, err) == (0, "")
    assert out.startswith(f"AGREE  A {synthetic}, B {shorter}: {total - 300:,} events of 1 tasks in both")
    assert out.splitlines()[2].split() == ["A", "-", f"{total:,}", f"{total - 300:,}", "0", "300", "0", "0"]
    assert "page contents not compared" in out
    assert max(map(len, out.splitlines()[4:])) <= 80


def test_the_command_shows_the_first_difference(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(block: np.ndarray, manifest: dict[str, Any]) -> np.ndarray:
        manifest["probes"]["zs_malloc"]["columns"].remove("gfp")
        block[COLUMN["swpent"], at] += 5
        return np.delete(block, 2000, axis=1)

    at = place_of(Tampered(synthetic), "swap_writeout", 1200)
    changed = rewritten(synthetic, tmp_path / "b", change)
    status, out, _ = run(capsys, "dev", "compare", synthetic, changed)
    assert status == 1
    assert out.startswith("DIFFER  ")
    assert "1 of them different, 1 only in A, 0 only in B" in out
    assert "not compared, B did not fetch it: zs_malloc.gfp" in out
    assert out.count(f"-> {at:>9} ") == 2
    assert f"the task's event {at:,} in that time: swap_writeout (event {at} of A, {at} of B)" in out
    assert re.search(r"^    swpent: \d+ in A, \d+ in B$", out, re.M)
    status, out, _ = run(capsys, "dev", "compare", "--json", synthetic, changed)
    value = json.loads(out)
    assert status == 1
    assert (value["verdict"], value["tasks"][0]["verdict"], value["tasks"][0]["only"]) == ("DIFFER", "DIFFER", [1, 0])
    assert value["tasks"][0]["first"]["events"] == [at, at]
    # The other way round it is the other's.
    assert "0 only in A, 1 only in B" in run(capsys, "dev", "compare", changed, synthetic)[1]


def test_the_command_tells_what_may_be_lost(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(block: np.ndarray, manifest: dict[str, Any]) -> np.ndarray:
        manifest["losses"] = [{"cpu": 0, "lost": 1}]
        return np.delete(block, 9000, axis=1)

    status, out, _ = run(capsys, "dev", "compare", synthetic, rewritten(synthetic, tmp_path / "b", change))
    assert status == 3
    assert out.startswith("UNDECIDED  ")
    assert "1 only in A (1 may be lost in B)" in out
    assert "B: CPU 0 lost 1 events at unknown times" in out


def test_wrong_use_is_one_sentence(synthetic: Path, samples: dict[str, Path], tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((synthetic, tmp_path / "none"), (samples["7.3-lz4-4k"], samples["6.12-zstd-4k"])):
        status, out, err = run(capsys, "dev", "compare", *words)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("zreplay: ")
    assert run(capsys, "dev", "compare", synthetic)[0] == 2
