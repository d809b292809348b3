# SPDX-License-Identifier: GPL-2.0-or-later
"""What was not captured is not zero: recordings that hold less, and what may be said of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import replay
import traces
from replay.fast.eligible import GIVEN, HANDLED, NEEDED
from replay.reference.capturegaps import COUNTED_BY, NEEDED_COLUMNS, STRAY, UNSEEN, Uncaptured
from replay.reference.checks import CHECKS, Tally
from replay.reference.comparisons import COMPARISONS, compared_columns, held_for, missing_columns
from replay.reference.engine import Engine
from replay.tools.synthetic import ImaginaryKernel
from replay.verdict.engineagreement import difference
from replay.verdict.result import Result
from replay.verdict.setup import open_engine
from replay.verdict.unpairedcalls import broken_calls, cpus_without_ring
from tests.leaveout import LeftOut, main, opened, sweep, table, variants
from traces import schema

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "recordings"
FIELDS = {kind.name: set(kind.columns) for kind in schema.EVENTS}
FULL = {kind.name: frozenset(kind.columns) for kind in schema.EVENTS}


@pytest.fixture(scope="module")
def edge(samples: dict[str, Path]) -> LeftOut:
    return LeftOut(samples["7.2-lz4-edge"])


@pytest.fixture(scope="module")
def limits(samples: dict[str, Path]) -> LeftOut:
    return LeftOut(samples["7.3-lz4-limits"])


def _replayed(recording: LeftOut) -> Result:
    return replay.replay(recording, engine="reference")


def _check(result: Result, check: str) -> replay.verdict.result.CheckResult:
    return next(each for each in result.checks if each.id == check)


# ---- everything left out, one by one -------------------------------------------------------------------------


def test_nothing_that_a_sample_lacks_is_the_kernel_s_fault(edge: LeftOut) -> None:
    """Each field, probe, group, snapshot, page and ring left out: no FAIL, and no PASS where events were lost."""
    kinds = ("fields", "probes", "groups", "snapshots", "truth", "pages", "rings")
    counts, bad = sweep(edge, only=kinds, say=lambda line: None)
    assert bad == []
    assert {kind for kind, _ in counts} == set(kinds)
    assert sum(count for (_, verdict), count in counts.items() if verdict == "PASS") > 100
    assert not any(verdict in ("FAIL", "ERROR") for _, verdict in counts)
    assert len(table(counts)) == len(kinds) + 1


def test_nothing_that_a_sample_of_two_cpus_lacks_is_the_kernel_s_fault(samples: dict[str, Path]) -> None:
    """What follows an event may be of another task."""
    kinds = ("fields", "probes", "groups", "snapshots", "truth", "pages")
    _, bad = sweep(LeftOut(samples["7.2-lz4-numa2"]), only=kinds, say=lambda line: None)
    assert bad == []


@pytest.mark.parametrize("devices", [True, False])
def test_nothing_that_a_recording_of_emulated_devices_lacks_is_the_driver_s_fault(samples: dict[str, Path], devices: bool) -> None:
    """What the driver's checks need of a call is captured, or they say that it was not; all of its calls count."""
    whole = LeftOut(samples["7.3-iaa-faults"])
    if not devices:
        whole.documents["iaa"] = whole.tables["iaa_jobs"] = None
    counts, bad = sweep(whole, say=lambda line: None)
    assert bad == []
    assert sum(count for (kind, _), count in counts.items() if kind == "hits") == 70
    driver = [check.id for check in _replayed(whole).checks if check.id.startswith("iaa.") and check.compared]
    assert driver == (["iaa.queue", "iaa.submit", "iaa.completion", "iaa.crc", "iaa.fallback"] if devices else [])


def test_nothing_that_a_recording_of_v14_s_driver_lacks_is_its_fault(samples: dict[str, Path]) -> None:
    """Its software fallback calls inside of calls; the compiler left zswap_total_pages() out of line."""
    _, bad = sweep(LeftOut(samples["v14-iaa-64k"]), say=lambda line: None)
    assert bad == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "revision", "events"), [
    ("7.3-lz4-4k", None, None), ("v14-iaa-64k", "v14", None), ("7.3.4-selftest-zswap.zr", None, 60_000)])
def test_nothing_that_a_recording_lacks_is_the_kernel_s_fault(tmp_path: Path, name: str, revision: str | None,
                                                              events: int | None) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"there is no {SHARED / name}")
    _, bad = sweep(opened(SHARED / name, tmp_path, events, revision), revision=revision, say=lambda line: None)
    assert bad == []


def test_the_sweep_says_what_is_wrong(edge: LeftOut, samples: dict[str, Path], capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that takes a field for captured makes the sweep fail: it can see what it is for."""
    monkeypatch.setattr(LeftOut, "without_field", _zeroed)
    _, bad = sweep(edge, only=["fields"], say=lambda line: None)
    assert len(bad) > 40
    assert all(line.startswith("a FAIL that names the kernel: ") for line in bad)
    assert main([str(samples["7.2-lz4-edge"]), "--only", "truth"]) == 0
    assert "0 wrong" in capsys.readouterr().out


def _zeroed(self: LeftOut, event: str, column: str) -> LeftOut:
    """The field is 0, and the manifest says that it was captured."""
    out = self.copy()
    values = out.columns[column] = out.columns[column].copy()
    values[out._rows([event])] = 0
    return out


def test_a_whole_that_is_undecided_tells_nothing(edge: LeftOut) -> None:
    """No variant of it could be a PASS that hides a loss."""
    less = edge.without_losses()
    assert _replayed(less).verdict == "UNDECIDED"
    _, bad = sweep(less, only=["truth"], say=lambda line: None)
    assert [line.partition(":")[0] for line in bad] == ["the whole is UNDECIDED, so that no variant can show anything"]


def test_a_beginning_ends_where_no_task_is_inside_an_operation(samples: dict[str, Path], tmp_path: Path) -> None:
    assert _replayed(opened(samples["7.2-lz4-edge"], tmp_path, 700)).verdict == "PASS"


def test_both_engines_say_the_same_of_what_is_missing(edge: LeftOut) -> None:
    picked = [variant for variant in variants(edge) if variant.what in (
        "obj_cgroup_may_zswap_ret.ret", "zs_malloc_ret.handle", "list_lru_add.pool", "zswap_load_ret.ret",
        "swap_writeout.folio", "zswap_load", "zs_free", "obj_malloc_ret")]
    assert len(picked) == 8
    for variant in picked:
        recording = variant.make(edge)
        one, other = (replay.replay(recording, engine=engine) for engine in ("reference", "fast"))
        assert (one.verdict, one.reasons, one.checks) == (other.verdict, other.reasons, other.checks), variant.what


# ---- what a column is needed for ------------------------------------------------------------------------------


def test_a_field_that_is_missing_is_named_and_nothing_else_is_lost(edge: LeftOut) -> None:
    whole, result = _replayed(edge), _replayed(edge.without_field("obj_cgroup_may_zswap_ret", "ret"))
    assert result.verdict == "PASS"
    limit = _check(result, "memcg.limit")
    assert (limit.compared, limit.grade) == (0, "not captured")
    assert limit.reason == "not captured: obj_cgroup_may_zswap_ret has no ret"
    others = {"memcg.limit", "effect.order"}
    assert [c for c in result.checks if c.id not in others] == [c for c in whole.checks if c.id not in others]


def test_of_a_comparison_the_captured_columns_are_left(edge: LeftOut) -> None:
    whole, result = _replayed(edge), _replayed(edge.without_field("zswap_entry_free", "handle"))
    assert _check(result, "free.entry").compared == _check(whole, "free.entry").compared > 0
    assert _check(result, "free.entry").reason == "not captured: zswap_entry_free has no handle"
    # What is left of it still distinguishes a wrong value from a right one.
    wrong = edge.without_field("zswap_entry_free", "handle")
    wrong.columns["size"] = wrong.columns["size"].copy()
    row = int(np.flatnonzero(wrong._rows(["zswap_entry_free"]))[3])
    wrong.columns["size"][row] += 1
    result = _replayed(wrong)
    assert result.verdict == "FAIL"
    assert (result.divergences[0].check, result.divergences[0].event) == ("free.entry", row)
    assert result.divergences[0].what == "(swap entry, length, referenced) of the entry freed"


def test_a_handle_is_bound_where_it_is_seen_first(edge: LeftOut) -> None:
    """With no handle from zs_malloc() itself, the first event that shows it binds it, and later ones are held to it."""
    less = edge
    for event in ("obj_malloc", "obj_malloc_ret", "zs_malloc_ret"):
        less = less.without_field(event, "handle")
    result = _replayed(less)
    assert result.verdict == "PASS"
    assert _check(result, "zsmalloc.handle").compared > 0
    wrong = less.copy()
    wrong.columns["handle"] = wrong.columns["handle"].copy()
    row = int(np.flatnonzero(wrong._rows(["zs_free"]))[2])
    wrong.columns["handle"][row] += 8
    result = _replayed(wrong)
    assert (result.verdict, result.divergences[0].event) == ("FAIL", row)


def test_a_compress_call_without_its_result_takes_it_from_what_is_stored(edge: LeftOut) -> None:
    less = edge.without_field("crypto_acomp_compress_ret", "ret").without_field("crypto_acomp_compress_ret", "dlen")
    for recording in (less, edge.without_probes(["crypto_acomp_compress_ret"])):
        result = _replayed(recording)
        assert result.verdict == "PASS"
        assert _check(result, "store.length").compared == 0
        assert _check(result, "zsmalloc.size").compared == _check(_replayed(edge), "zsmalloc.size").compared


@pytest.mark.parametrize("revision", ["v14", "v12-22", "mainline-7.3", "mainline-6.12"])
@pytest.mark.parametrize("less", [(), ("dlen",)])
def test_a_page_that_did_not_compress_is_none_that_compressed_to_a_page(tmp_path: Path, revision: str, less: tuple[str, ...]) -> None:
    """Nothing says which of both it is where the error was not captured: v14 would read the latter back wrong."""
    kernel = ImaginaryKernel(revision, lambda slot: 4097 if slot == 1 else 500)
    for slot in range(3):
        kernel.store(slot)
    kernel.load(1)
    kernel.write(tmp_path / "rec")
    recording = LeftOut(tmp_path / "rec")
    assert replay.replay(recording, revision, engine="reference").verdict == "PASS"
    for column in ("ret", *less):
        recording = recording.without_field("crypto_acomp_compress_ret", column)
    result = replay.replay(recording, revision, engine="reference")
    assert (result.verdict, result.divergences) == ("PASS", [])
    assert replay.replay(recording.without_probes(["crypto_acomp_compress_ret"]), revision).verdict == "PASS"


def test_a_walk_over_lists_that_were_not_captured_ends_the_replay_with_a_sentence(limits: LeftOut) -> None:
    result = _replayed(limits.without_field("list_lru_add", "memcg"))
    assert (result.verdict, result.divergences) == ("UNDECIDED", [])
    assert re.match(r"list_lru_add was not captured with its pool and memcg: which entries an LRU walk finds is not "
                    r"known: nothing from event \d+ of 14006 on was compared; 'zreplay record --plan'",
                    result.reasons[0])
    assert _check(result, "zsmalloc.place").compared > 0


def test_entries_that_end_unseen_leave_every_later_difference_open(edge: LeftOut) -> None:
    result = _replayed(edge.without_probes(["zswap_load", "zswap_load_ret"]))
    assert result.verdict == "UNDECIDED"
    assert any("zswap_load was not probed: entries are loaded, and end, unseen" in reason for reason in result.reasons)


def test_a_value_that_is_wrong_by_itself_fails_all_the_same(edge: LeftOut) -> None:
    """What an operation's own events say needs no event that went unseen."""
    less = edge.without_probes(["zswap_load", "zswap_load_ret"])
    less.columns["size"] = less.columns["size"].copy()
    row = int(np.flatnonzero(less._rows(["zs_malloc"]))[0])
    less.columns["size"][row] += 1
    result = _replayed(less)
    assert (result.verdict, result.divergences[0].check) == ("FAIL", "zsmalloc.size")


def _stored(task: int, lines: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Lines of a task on a CPU of its own, by their times."""
    return [(time, f"            task-{task}     [00{task % 2}] ...1.    {time:.6f}: {line}") for time, line in lines]


def _text(tmp_path: Path, lines: list[tuple[float, str]]) -> traces.Recording:
    source = tmp_path / "trace.txt"
    source.write_text("# tracer: nop\n" + "\n".join(line for _, line in sorted(lines)) + "\n")
    from traces.importers.directory import import_source
    import_source(source, tmp_path / "rec",
                  overrides={"release": "7.3.0", "compressor": "lz4", "totalram_pages": 504108})
    return traces.open_recording(tmp_path / "rec")


@pytest.mark.parametrize("result", ["dlen=%d", "ret=0", ""])
@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_length_that_was_not_captured_is_the_task_s_own(tmp_path: Path, engine: str, result: str) -> None:
    """Between a compress call and its object another task allocates one: of another size, and that is its own affair."""
    def store(task: int, size: int, times: list[float]) -> list[tuple[float, str]]:
        folio, slot = f"0xffffea000000{task % 2}000", task % 2 + 1
        ret = result % size if "%" in result else result
        return _stored(task, list(zip(times, [
            f"swap_writeout: (swap_writeout+0x4/0x370) folio={folio} swp={slot:#x} fl=0x9 fl1=0x0",
            f"zswap_store: (zswap_store+0x4/0xcd0) folio={folio} swp={slot:#x} fl=0x9 fl1=0x0",
            f"comp: (crypto_acomp_compress+0x4/0xe0) pglink={int(folio, 16) + 2:#x} off=0 slen=4096 room=4096",
            *([f"comp_ret: (zswap_store+0x5f9/0xcd0 <- crypto_acomp_compress) {ret}"] if ret else []),
            f"zs_malloc: (zs_malloc+0x4/0x6c0) pool=0xffff888006966000 size={size} gfp=0x1280a",
            "zswap_store_ret: (swap_writeout+0x161/0x370 <- zswap_store) ret=1",
            "swap_writeout_ret: (shrink_folio_list+0xeee/0x1040 <- swap_writeout) ret=0"], strict=False)))

    a = store(100, 2521, [1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 2.2])
    b = store(101, 700, [1.05, 1.15, 1.25, 1.26, 1.31, 1.4, 1.5])
    replayed = replay.replay(_text(tmp_path, a + b), engine=engine)
    assert replayed.verdict != "FAIL", replayed.divergences
    assert _check(replayed, "zsmalloc.size").compared == 2


def test_a_folio_of_zeros_is_told_too_late_for_a_snapshot(edge: LeftOut) -> None:
    """Without swap_writeout()'s return only the task's next event says that nothing was stored."""
    less = edge.without_probes(["swap_writeout_ret"])
    for counter in ("vmstat.swpout_zero", "memcg.swpout_zero"):
        assert _check(_replayed(edge), f"counter.{counter}").compared
        found = _check(_replayed(less), f"counter.{counter}")
        assert (found.compared, found.reason) == (0, "swap_writeout_ret was not probed")


def test_case_2_a_probe_without_its_field(tmp_path: Path) -> None:
    source = ROOT.parent / "shared" / "cases" / "2" / "trace.txt"
    if not source.is_file():
        pytest.skip(f"there is no {source}")
    traces_dir = tmp_path / "rec"
    from traces.importers.directory import import_source
    import_source(source, traces_dir, overrides={"release": "7.3.0", "compressor": "lz4", "totalram_pages": 504108})
    result = replay.replay(traces.open_recording(traces_dir))
    assert result.verdict == "PASS"
    assert _check(result, "memcg.limit").reason == "not captured: obj_cgroup_may_zswap_ret has no ret"


@pytest.mark.parametrize(("event", "column", "check"), [
    ("zs_malloc", "pool", "zsmalloc.place"), ("obj_malloc", "zspage", "zsmalloc.place"),
    ("obj_malloc", "handle", "zsmalloc.handle"), ("fix_fullness_group", "pool", "zsmalloc.fullness"),
    ("list_lru_add", "entry", "lru.order"), ("zswap_entry_free", "entry", "free.entry")])
def test_0_is_no_address_where_the_column_was_captured(edge: LeftOut, event: str, column: str, check: str) -> None:
    """The first event that shows an address binds it; one that shows 0 is wrong, not a reason to wait for another."""
    wrong = edge.copy()
    wrong.columns[column] = wrong.columns[column].copy()
    rows = np.flatnonzero(wrong._rows([event]) & (wrong.columns["pool"] == edge.columns["pool"][
        np.flatnonzero(edge._rows([event]))[-1]]) if event == "list_lru_add" else wrong._rows([event]))
    wrong.columns[column][rows[0]] = 0
    result = _replayed(wrong)
    assert result.verdict == "FAIL"
    assert (result.divergences[0].check, result.divergences[0].event) == (check, rows[0])
    assert (result.divergences[0].recorded, result.divergences[0].predicted) == (0, "an address")
    assert difference(result, replay.replay(wrong, engine="fast")) == ""


def test_when_a_snapshot_was_read_is_told_by_the_readings(edge: LeftOut) -> None:
    """Without zswap_total_pages() a counter that differs may have changed while its file was being read."""
    for recording, verdict in ((edge, "FAIL"), (edge.without_probes(["zswap_total_pages_ret"]), "UNDECIDED")):
        wrong = recording.copy()
        entry, values = wrong.kept_snapshots[2]
        debugfs = {**values["zswap_debugfs"], "stored_pages": int(values["zswap_debugfs"]["stored_pages"]) + 1}
        wrong.kept_snapshots[2] = (entry, {**values, "zswap_debugfs": debugfs})
        result = _replayed(wrong)
        assert (result.verdict, result.divergences[0].check) == (verdict, "counter.zswap.stored_pages")


# ---- the tables -----------------------------------------------------------------------------------------------


def test_every_comparison_is_of_a_column_that_the_event_has() -> None:
    for event, column, check in compared_columns():
        assert column in FIELDS[event], (event, column)
        assert check in CHECKS, check
    assert len(set(compared_columns())) == len(list(compared_columns())) - _repeated()


def _repeated() -> int:
    """Columns that two comparisons of one event and check look at in different ways."""
    triples = list(compared_columns())
    return len(triples) - len(set(triples))


def test_every_field_of_an_effect_is_compared_or_given(samples: dict[str, Path]) -> None:
    """A field that a probe captures and nobody looks at would be judged by nothing."""
    engine: Engine = open_engine(traces.open_recording(samples["7.3-lz4-4k"]), None, Tally(), pages=False)[0]
    compared = {(event, column) for event, column, _ in compared_columns()}
    given = {*GIVEN, ("list_lru_add", "pool"), ("list_lru_del", "pool"), ("swap_writeout", "swpent"),
             ("swap_writeout", "order"), ("zswap_load", "swpent"), ("zswap_invalidate", "swpent"),
             ("zs_shrinker_scan", "pool"), ("zswap_shrinker_scan", "size"), ("zswap_shrinker_scan", "memcg"),
             ("zswap_shrinker_scan", "nid"),
             # Whose answer it is.
             ("obj_cgroup_may_zswap_ret", "memcg"), ("obj_cgroup_may_zswap_ret", "pool"),
             ("mem_cgroup_zswap_writeback_enabled_ret", "memcg")}
    # Judged by nothing: the allocation flags.  Which entry 6.12 writes back, its slot says.
    judged_by_nothing = {("zs_malloc", "gfp"), ("zswap_writeback_entry", "entry")}
    fields = {(event, column) for event in engine.handlers for column in FIELDS[event]}
    assert fields - compared - given == judged_by_nothing


def test_the_tables_of_what_is_missing_name_events_and_columns() -> None:
    for event, columns in NEEDED_COLUMNS.items():
        assert set(columns) <= FIELDS[event]
    names = {name for group, _ in UNSEEN for name in group} | set(STRAY) | NEEDED
    names |= {name for stray in STRAY.values() for name in stray} | {event for _, event, _ in COUNTED_BY}
    assert names <= FIELDS.keys()
    assert all(column in FIELDS[event] for event, column in (*HANDLED, *GIVEN))
    assert Uncaptured(FULL, 0).open() == Uncaptured(FULL, 0).essential() == []
    assert Uncaptured(FULL, 0).captured == FULL.keys()
    assert Uncaptured(FULL, 0).uncounted() == {}


@pytest.mark.parametrize("key", sorted(COMPARISONS))
def test_a_comparison_counts_while_any_column_of_its_event_and_check_is_left(key: str) -> None:
    comparison = COMPARISONS[key]
    columns = [column for column, _ in comparison.columns]
    for column in columns:
        held = held_for({comparison.event: frozenset({column})})
        assert held[key].some
        assert held[key].whole == (len(columns) == 1)
        if comparison.counts:
            assert held[key].counts
    nothing = held_for({comparison.event: frozenset()})[key]
    assert not nothing.some
    assert not nothing.counts
    assert missing_columns(comparison.check, {comparison.event: frozenset()})[0][0] == comparison.event


# ---- CPUs that nobody recorded --------------------------------------------------------------------------------


def test_a_cpu_of_which_the_recording_says_nothing(samples: dict[str, Path]) -> None:
    whole = LeftOut(samples["7.3-zstd-smp2"])
    assert cpus_without_ring(whole) == []
    assert _replayed(whole).verdict == "PASS"
    more = whole.copy()
    more.manifest["kernel"]["cpus"] = 12
    result = _replayed(more)
    assert (result.verdict, result.reasons) == ("UNDECIDED", [
        "what happened on CPU 2, 3, 4, 5, 6, 7, 8, 9, ... is not known: the recording has no events of it, and no count"])
    first = whole.without_cpu(0, said=None)
    assert cpus_without_ring(first) == [0]
    result = _replayed(first)
    assert result.verdict == "UNDECIDED"
    assert result.reasons[-1] == "the difference may be due to what happened on CPU 0, of which the recording has no events"
    last = whole.without_cpu(1, said=None)
    assert cpus_without_ring(last) == []
    for said in ({"kernel": {**last.manifest["kernel"], "cpus": 2}}, {"capture": {"box": {"cpus_online": "0-1"}}}):
        last.manifest |= said
        assert cpus_without_ring(last) == [1]
        assert _replayed(last).verdict == "UNDECIDED"
        last.manifest |= {"kernel": {"release": "7.3"}}
    last.manifest["capture"]["losses"] = {"cpus": {"0": {}, "1": {"dropped": 0}}}
    assert cpus_without_ring(last) == [], "the recorder counted a ring that had nothing in it"


@pytest.mark.parametrize("name", ["zs_malloc", "swap_writeout", "zswap_store"])
def test_calls_that_do_not_return_tell_of_events_that_are_missing(name: str, edge: LeftOut) -> None:
    assert broken_calls(edge) == ""
    rows = np.flatnonzero(edge._rows([f"{name}_ret"]))
    for taken, missing in ((2, False), (3, True)):
        less = edge.copy()
        keep = np.ones(len(less), bool)
        keep[rows[5:5 + 2 * taken:2]] = False
        less._keep_rows(keep)
        sentence = broken_calls(less)
        assert sentence.startswith(f"3 calls of 1 tasks have no return, or returns no call ({name}() ") == missing
        assert _replayed(less).verdict == ("UNDECIDED" if missing else "FAIL")


def test_an_own_difference_stands_behind_one_that_is_excused(edge: LeftOut) -> None:
    """With --keep-going, what an operation's own events say is not excused by what came before."""
    less = edge.copy()
    less.manifest["losses"].append({"cpu": 1, "lost": 7})
    sizes = less.columns["size"] = less.columns["size"].copy()
    freed = np.flatnonzero(less._rows(["zswap_entry_free"]))[3]
    sizes[freed] += 1
    result = replay.replay(less, keep_going=True, engine="reference")
    assert (result.verdict, result.divergences[0].event) == ("UNDECIDED", freed)
    asked = np.flatnonzero(less._rows(["zs_malloc"]))[-1]
    assert asked > freed
    sizes[asked] += 1
    result = replay.replay(less, keep_going=True, engine="reference")
    assert (result.verdict, result.divergences[0].event) == ("FAIL", freed)
    assert replay.replay(less, engine="reference").verdict == "UNDECIDED", "it was not come to"


@pytest.mark.parametrize(("name", "probes"), [
    ("v8-iaa-64k", ["zs_malloc", "zs_malloc_ret"]), ("v12-iaa-64k", ["zs_malloc", "zs_malloc_ret", "zs_obj_write"]),
    ("v14-iaa-64k", ["zs_malloc", "zs_malloc_ret", "zs_obj_write"])])
def test_charges_alone_show_the_lengths_of_a_batch(samples: dict[str, Path], name: str, probes: list[str]) -> None:
    """They come behind it, one for each page: the first is not every page's."""
    result = replay.replay(LeftOut(samples[name]).without_probes(probes))
    assert (result.verdict, result.divergences) == ("PASS", [])


def test_a_reader_that_zswap_does_not_call_counts_as_not_probed(samples: dict[str, Path]) -> None:
    """A kernel has both functions, and the probe is on the one that zswap does not use: no load hits it."""
    made = LeftOut(samples["v12-iaa-64k"]).without_probes(["zs_obj_read"])
    made.manifest["probes"]["zs_obj_read"] = {"columns": ["handle", "size"], "function": "zs_obj_read_sg_begin"}
    result = replay.replay(made)
    assert (result.verdict, result.divergences) == ("PASS", [])
    assert any(note.startswith("no load hit the probe of zs_obj_read_sg_begin()") for note in result.notes)
    # One that some loads hit is the one.
    some = LeftOut(samples["v12-iaa-64k"])
    reads = np.flatnonzero(some.columns["event"] == traces.schema.CODE["zs_obj_read"])
    some._keep_rows(~np.isin(np.arange(len(some)), reads[3:]))
    assert replay.replay(some).verdict == "FAIL"
