# SPDX-License-Identifier: GPL-2.0-or-later
"""Importers: captures built here and the shared recordings, through to the recording on disk."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ringbuilder as rb
from importing import FILES, OBJECTS, TEXT, TRUTH, imported, shared
from ringbuilder import CALLS, EVENTS, T0, Call, page

from replay.cli import main
from replay.verdict.losses import loss_reasons
from traces import schema
from traces.importers import import_source
from traces.recording import Recording

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


# A whole directory.

def expected_events(calls: tuple[Call, ...] = CALLS) -> list[tuple[int, int, int, str]]:
    """(ts, cpu, pid, event) of all events in the rings, in order."""
    names = {"store": "zswap_store", "comp": "crypto_acomp_compress", "comp_ret": "crypto_acomp_compress_ret",
             "store_ret": "zswap_store_ret"}
    out = [(call.ts + 100 * step, call.cpu, call.pid, names[name]) for call in calls
           for step, name in enumerate(names) if name not in call.missing]
    return sorted(out + [(ts, 0, 10, "marker") for ts, _ in rb.MARKERS])


def events_of(recording: Recording) -> list[tuple[int, int, int, str]]:
    frame = recording.frame(["ts", "cpu", "pid", "event"])
    frame = frame[~frame["event"].isin(["counters", "param"])]
    return list(frame.itertuples(index=False, name=None))


def attached(recording: Recording) -> list[tuple[int, int, list[bytes | None]]]:
    """(ts, pid, bytes of the pages) of every compress call."""
    frame = recording.frame(["ts", "pid", "event", "size", "content"])
    store = recording.pages
    assert store is not None
    data, has = store.all_pages()
    out = []
    for row in frame[frame["event"] == "crypto_acomp_compress"].itertuples():
        refs = store.refs[row.content:row.content + row.size // 4096] if row.content >= 0 else []
        out.append((row.ts, row.pid, [bytes(data[ref]) if has[ref] else None for ref in refs]))
    return out


@pytest.mark.parametrize("size", [4096, 16384, 65536])
def test_a_directory(tmp_path: Path, size: int) -> None:
    recording, summary = imported(rb.write_capture(tmp_path / "run", size=size), tmp_path)
    manifest = recording.manifest
    assert events_of(recording) == expected_events()
    assert (summary["unpaired"], summary["notes"], summary["pages"], summary["references"]) == ([], [], 10, 13)
    assert manifest["kernel"]["release"] == "7.3-test"
    assert manifest["kernel"]["version"] == "7.3.0"
    assert manifest["kernel"]["kaslr"] is False
    assert manifest["config"]["chain_size"] == 8
    assert manifest["config"]["compressor"] == "lz4"
    assert manifest["config"]["totalram_pages"] == 512000
    assert manifest["config"]["symbols"] == {"zswap_list_lru": 0xFFFFFFFF83F07F60}
    assert manifest["probes"]["zswap_store"] == {"columns": ["folio", "order", "swpent"], "function": "zswap_store"}
    assert manifest["probes"]["zswap_store_ret"]["function"] == "zswap_store%return"
    assert set(manifest["probes"]) == {"zswap_store", "zswap_store_ret", "zswap_load", "zswap_load_ret",
                                       "crypto_acomp_compress", "crypto_acomp_compress_ret", "zs_malloc",
                                       "async_free_zspage"}
    assert manifest["source"]["importer"] == "ring"
    assert manifest["source"]["pages_unmatched"] == 0
    assert set(manifest["source"]["files"]) == {p.name for p in (tmp_path / "run").iterdir() if p.is_file()}
    assert [(loss["cpu"], loss["lost"], loss["damaged_subbuffers"]) for loss in
            sorted(manifest["losses"], key=lambda loss: loss["cpu"])] == [(0, 0, 0), (1, 0, 0)]
    assert [(snapshot["label"], snapshot["ts"]) for snapshot in recording.snapshots] \
        == [("before", T0 - 1000), ("after-out1", T0 + 2900), ("end", T0 + 9000)]
    assert recording.snapshot(1)["params"]["compressor"] == "zstd"
    truth = recording.table("truth")
    assert truth is not None
    assert truth.to_dict("records")[0]["swap_offset"] == 7
    frame = recording.frame()
    store = frame[frame["event"] == "zswap_store"].iloc[2]
    assert (store["folio"], store["order"], store["content"]) == (rb.struct_page(CALLS[2].address), 4, -1)


@pytest.mark.parametrize("kind", ["dump", "ring"])
def test_pages_go_to_their_calls(tmp_path: Path, kind: str) -> None:
    """Single pages and batches, by two tasks in turn; equal pages are kept once."""
    recording, summary = imported(rb.write_capture(tmp_path / "run", pages=kind), tmp_path)
    assert attached(recording) == sorted(
        (call.ts + 100, call.pid, [data for _, _, data in call.handed()]) for call in CALLS)
    assert (summary["pages"], summary["references"]) == (10, 13)


def test_digests_alone(tmp_path: Path) -> None:
    recording, _ = imported(rb.write_capture(tmp_path / "run", pages="index"), tmp_path)
    store = recording.pages
    assert store is not None
    assert not store.all_pages()[1].any()
    assert store.sha1[0] == hashlib.sha1(page(0)).hexdigest()
    assert recording.manifest["pages"] == {"distinct": 10, "references": 13, "with_bytes": 0}
    assert [len(pages) for _, _, pages in attached(recording)] == [1, 1, 8, 2, 1]


def test_without_known_addresses_the_order_counts(tmp_path: Path) -> None:
    recording, _ = imported(rb.write_capture(tmp_path / "run", kaslr=True), tmp_path)
    assert "kaslr" not in recording.manifest["kernel"]
    assert [pages for _, _, pages in attached(recording)] == [
        [data for _, _, data in call.handed()] for call in sorted(CALLS, key=lambda call: call.ts)]


def test_objects_as_written(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run")
    (source / "anything.zst").write_bytes(zstd.compress(OBJECTS))
    table = imported(source, tmp_path)[0].table("objects")
    assert table is not None
    assert table["handle"].tolist() == [0xFFFF888000001000 + 8 * n for n in range(9)]
    assert [len(data) for data in table["data"]] == list(range(100, 109))


def test_overrides_stand_over_the_files(tmp_path: Path) -> None:
    recording, _ = imported(rb.write_capture(tmp_path / "run"), tmp_path,
                            overrides={"release": "6.6", "compressor": "842", "chain_size": None, "totalram_pages": 5})
    assert recording.manifest["kernel"]["release"] == recording.manifest["kernel"]["version"] == "6.6"
    config = recording.manifest["config"]
    assert (config["compressor"], config["chain_size"], config["totalram_pages"]) == ("842", 8, 5)


def test_progress_ends_at_the_number_of_rows(tmp_path: Path) -> None:
    seen: list[int] = []
    recording, _ = imported(rb.write_capture(tmp_path / "run"), tmp_path, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(recording)


# Losses.

def test_missing_exits_are_counted(tmp_path: Path) -> None:
    """A return that is not there, because its task was still inside or the probe missed it."""
    calls = (Call(T0 + 10, 0, 10, rb.PAGE_OFFSET, missing=("store_ret",)), Call(T0 + 1000, 1, 20, rb.PAGE_OFFSET + 4096),
             Call(T0 + 2000, 0, 30, rb.PAGE_OFFSET + 8192, missing=("comp",)),
             Call(T0 + 3000, 0, 10, rb.PAGE_OFFSET + 4096, missing=("store_ret", "comp_ret")))
    recording, summary = imported(rb.write_capture(tmp_path / "run", calls, pages="none"), tmp_path)
    assert summary["unpaired"] == recording.manifest["unpaired"] == [
        {"pid": 10, "function": "zswap_store", "entries": 2, "returns": 0},
        {"pid": 10, "function": "crypto_acomp_compress", "entries": 2, "returns": 1},
        {"pid": 30, "function": "crypto_acomp_compress", "entries": 0, "returns": 1}]
    assert len(recording) == 4 * 4 - 4 + 2 + 3 + 2


def test_returns_without_entry_probes_are_not_called_unpaired(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    (source / "formats" / "comp").unlink()
    recording, summary = imported(source, tmp_path)
    assert summary["unpaired"] == []
    assert {tuple(loss["unknown_events"].items()) for loss in recording.manifest["losses"]} == {(("1504", 3),), (("1504", 2),)}


def test_a_truncated_zstd_ring_keeps_what_came_before(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    random = np.random.default_rng(3)
    records = [(T0 + 10 * n, EVENTS["load"].pack(1, folio=int(random.integers(1 << 62)), swp=int(random.integers(1 << 62))))
               for n in range(20000)]
    data = rb.ring(records)
    packed = zstd.compress(data)
    (source / "zmeta.cpu0.raw").write_bytes(packed[:len(packed) // 2])
    recording, summary = imported(source, tmp_path)
    loads = recording.frame(["event", "ts", "folio"])
    loads = loads[loads["event"] == "zswap_load"]
    assert 5000 < len(loads) < 15000
    assert loads["ts"].tolist() == [T0 + 10 * n for n in range(len(loads))]
    losses = {loss["cpu"]: loss for loss in recording.manifest["losses"]}
    assert (losses[0]["lost"], losses[0]["cut_off"]) == (None, True)
    assert (losses[1]["lost"], losses[1].get("cut_off")) == (0, None)
    assert any("compressed data is damaged" in note and "zmeta.cpu0.raw" in note for note in summary["notes"])


def test_a_ring_cut_off_within_a_sub_buffer(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    path = source / "zmeta.cpu1.raw"
    path.write_bytes(path.read_bytes() + path.read_bytes()[:1000])
    losses = imported(source, tmp_path)[0].manifest["losses"]
    assert {loss["cpu"]: loss["tail_bytes"] for loss in losses} == {0: 0, 1: 1000}


def test_lost_events_reach_the_manifest(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    (source / "ring-stats.json").unlink()
    for cpu, count in ((0, 12), (1, None)):
        (source / f"zmeta.cpu{cpu}.raw").write_bytes(
            rb.Ring().lose(count).add(T0 + cpu, EVENTS["load"].pack(1)).bytes())
    recording, _ = imported(source, tmp_path)
    assert {loss["cpu"]: loss["lost"] for loss in recording.manifest["losses"]} == {0: 12, 1: None}
    frame = recording.frame()
    lost = frame[frame["event"] == "lost_events"]
    assert lost[["cpu", "ret"]].to_numpy().tolist() == [[0, 12], [1, -1]]


def test_time_that_runs_backwards_is_counted_and_kept(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    out = rb.Ring()
    for ts in (T0 + 100, T0 + 5000, T0 + 200, T0 + 300):
        out.add(ts, EVENTS["load"].pack(1)).flush()
    (source / "zmeta.cpu0.raw").write_bytes(out.bytes())
    recording, _ = imported(source, tmp_path)
    assert {loss["cpu"]: loss["backwards"] for loss in recording.manifest["losses"]} == {0: 1, 1: 0}
    frame = recording.frame(["event", "ts"])
    assert frame[frame["event"] == "zswap_load"]["ts"].tolist() == [T0 + 100, T0 + 5000, T0 + 200, T0 + 300]


def test_unused_traces_are_named(tmp_path: Path) -> None:
    """When several files hold events, one source is taken and the others are named."""
    source = rb.write_capture(tmp_path / "run", pages="none")
    (source / "b.dat").write_bytes(FILES["tracedat"])
    (source / "a.txt").write_bytes(TEXT)
    recording, summary = imported(source, tmp_path)
    assert summary["notes"] == ["b.dat was not used: events came from zmeta.cpu0.raw",
                                "a.txt was not used: events came from zmeta.cpu0.raw"]
    assert not {"b.dat", "a.txt"} & set(recording.manifest["source"]["files"])


def test_of_two_of_a_kind_the_second_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("a.dat", "b.dat"):
        (tmp_path / "run" / name).write_bytes(FILES["tracedat"])
    recording, summary = imported(tmp_path / "run", tmp_path)
    assert summary["notes"] == ["b.dat was not used: events came from a.dat"]
    assert recording.manifest["source"]["files"] == ["a.dat"]


def test_files_that_are_left_out_are_named(tmp_path: Path) -> None:
    """One of them may be the ring of a CPU, damaged from its start on."""
    source = rb.write_capture(tmp_path / "run")
    for name, data in {"more.bin": page(5), "zmeta.cpu2.raw": b"", "x.log": b"hello\n", "truth2.csv": TRUTH,
                       "qages.idx": (source / "pages.idx").read_bytes(), "params.json": b"{}"}.items():
        (source / name).write_bytes(data)
    recording, summary = imported(source, tmp_path)
    assert summary["notes"] == ["truth2.csv was not used: truth.csv is there too",
                                "qages.idx was not used: pages.idx is there too",
                                "zmeta.cpu2.raw was not used: it is empty, or damaged from its start",
                                "more.bin was not used: no page index is named like it",
                                "x.log was not used: its content is of an unknown kind"]
    assert {"truth2.csv", "more.bin", "x.log"} & set(recording.manifest["source"]["files"]) == set()
    truth = recording.table("truth")
    assert truth is not None
    assert len(truth) == 1


# One file, other forms.

def test_a_trace_dat(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(FILES["tracedat"])
    recording, summary = imported(tmp_path / "x", tmp_path)
    assert events_of(recording) == expected_events()
    assert recording.manifest["tasks"] == {"10": "python3", "20": "kworker/1:1"}
    assert recording.manifest["kernel"]["release"] == "7.3-test"
    assert summary["unpaired"] == []
    assert [(loss["cpu"], loss["lost"]) for loss in recording.manifest["losses"]] in ([(0, None), (1, None)],
                                                                                      [(1, None), (0, None)])
    assert "trace.dat does not hold the kernel's statistics" in recording.manifest["losses"][0]["why"]


def test_a_truncated_trace_dat_keeps_what_is_whole(tmp_path: Path) -> None:
    rings = [rb.ring((T0 + n, EVENTS["load"].pack(1)) for n in range(500)), rb.rings_of()[1]]
    data = rb.tracedat(rings)
    (tmp_path / "x").write_bytes(data[:-4096 - 5000])
    recording, _ = imported(tmp_path / "x", tmp_path)
    losses = {loss["cpu"]: loss for loss in recording.manifest["losses"]}
    assert (losses[0]["cut_off"], losses[0]["lost"]) == (True, None)
    assert 0 < len(recording) < 500


def test_an_id_no_int_can_hold_in_a_trace_dat(tmp_path: Path) -> None:
    """Formats outside the vocabulary are only looked at for their ids."""
    data = FILES["tracedat"].replace(b"name: sched_switch\nID: 300\nformat:\n\tfield:unsigned short common_type",
                                     b"name: sched_switch\nID: \xc2\xb2 \nformat:\n\tfield:unsigned short common_type")
    assert data != FILES["tracedat"]
    (tmp_path / "x").write_bytes(data)
    assert events_of(imported(tmp_path / "x", tmp_path)[0]) == expected_events()


def test_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(TEXT + b"CPU:0 [LOST 3 EVENTS]\n" + TEXT.splitlines(True)[2] + b"junk junk\n")
    recording, summary = imported(tmp_path / "x", tmp_path)
    frame = recording.frame()
    assert frame["event"].tolist() == ["zswap_store_ret", "lost_events", "zswap_store_ret"]
    assert recording.manifest["ts_unit_ns"] == 1000
    assert recording.manifest["losses"][0]["lost"] == 3
    assert recording.manifest["losses"][1]["unparsed_lines"] == 1
    assert "1 lines could not be parsed" in summary["notes"][1]


def test_one_ring_beside_its_formats(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    recording, _ = imported(source / "zmeta.cpu1.raw", tmp_path)
    assert events_of(recording) == [row for row in expected_events() if row[1] == 1]
    (tmp_path / "elsewhere").write_bytes((source / "zmeta.cpu1.raw").read_bytes())
    import_source(tmp_path / "elsewhere", tmp_path / "other", formats=source / "formats")
    assert len(Recording(tmp_path / "other")) == len(recording)


def test_events_from_a_chosen_file(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    (source / "a.txt").write_bytes(TEXT)
    recording, _ = imported(source, tmp_path, events="a.txt")
    assert recording.manifest["source"]["importer"] == "text"
    assert events_of(recording) == [(T0 + 1000, 0, 10, "zswap_store_ret")]


# The same run through two importers.

def differences(one: pd.DataFrame, other: pd.DataFrame, rounded: bool) -> list[str]:
    """Columns that differ between two recordings of one run."""
    assert len(one) == len(other)
    out = []
    for name in schema.column_names():
        a, b = one[name], other[name]
        if name == "ts":
            stamps = a.to_numpy().astype(np.int64)
            expected = (stamps + 500) // 1000 * 1000 if rounded else stamps
            same = bool((expected == b.to_numpy()).all())
        elif name in ("event", "text"):
            same = a.astype(str).tolist() == b.astype(str).tolist()
        else:
            same = bool((a.to_numpy() == b.to_numpy()).all())
        if not same:
            out.append(name)
    return out


@pytest.mark.parametrize(("run", "first", "second"), [("7.3-tracecmd", "trace.dat", "zmeta.txt.zst"),
                                                      ("7.3-zstd-64k", "zmeta.cpu0.raw.zst", "zmeta.txt.zst")])
def test_two_importers_agree(tmp_path: Path, run: str, first: str, second: str) -> None:
    """The kernel's own text of the same events, whose stamps are rounded to microseconds."""
    source = shared(run)
    one, other = (Recording(tmp_path / name) for name, events in (("a", first), ("b", second))
                  if import_source(source, tmp_path / name, events=source / events))
    assert one.manifest["source"]["importer"] != other.manifest["source"]["importer"]
    assert {"rows": len(one), "params": one.manifest["derived_params"], "unpaired": one.manifest["unpaired"]} \
        == {"rows": len(other), "params": other.manifest["derived_params"], "unpaired": other.manifest["unpaired"]}
    assert other.manifest["ts_unit_ns"] == 1000
    assert one.manifest["source"]["pages_unmatched"] == other.manifest["source"]["pages_unmatched"] == 0
    inserted = [schema.NAMES.index(name) for name in ("counters", "param")]
    frames = [recording.frame() for recording in (one, other)]
    # Snapshots keep their own stamps, and may change places with an event that is rounded past them.
    kept = [frame[~frame["event"].isin([schema.NAMES[code] for code in inserted])].reset_index(drop=True)
            for frame in frames]
    assert differences(*kept, rounded=True) == []
    for name in ("counters", "param"):
        texts = [frame[frame["event"] == name]["text"].astype(str).tolist() for frame in frames]
        assert texts[0] == texts[1]
    columns = [{name: probe["columns"] for name, probe in recording.manifest["probes"].items() if name in
                set(kept[0]["event"])} for recording in (one, other)]
    assert columns[0] == columns[1]


@pytest.mark.parametrize("run", ["v14-iaa-64k", "7.2-zstd-4k", "7.3-tracecmd"])
def test_shared_recordings_are_complete(tmp_path: Path, run: str) -> None:
    """Nothing lost, every page attached, batches of 8 pages where the series makes them."""
    recording, summary = imported(shared(run), tmp_path)
    assert [(loss["lost"], loss["damaged_subbuffers"], loss["short_records"], loss["backwards"], loss["unknown_events"])
            for loss in recording.manifest["losses"]] == [(0, 0, 0, 0, {})]
    frame = recording.frame(["event", "size", "content", "text"])
    calls = frame[frame["event"] == "crypto_acomp_compress"]
    counts = calls["size"].to_numpy() // 4096
    assert counts.max() == (8 if run.startswith("v14") else 1)
    assert counts.min() >= 1
    assert calls["content"].tolist() == (np.cumsum(counts) - counts).tolist()
    assert summary["references"] == counts.sum()
    assert frame[frame["event"] == "counters"]["text"].tolist()[0] == "before"
    markers = frame[frame["event"] == "marker"]["text"].tolist()
    assert [text for text in markers if "out1" in text]


# ---- what the kernel counted ---------------------------------------------------------------------------------


def _stats(path: Path, **counts: int) -> None:
    text = "".join(f"{name.replace('_', ' ')}: {count}\n" for name, count in
                   {"entries": 0, "overrun": 0, "dropped_events": 0, "read_events": 0, **counts}.items())
    path.write_text(json.dumps({"zmeta/cpu0": text}))


@pytest.mark.parametrize(("counts", "more", "lost"), [
    ({}, 0, 0), ({"dropped_events": 7}, 0, 7), ({"overrun": 3}, 0, 3), ({}, 10**6, 10**6), ({}, -1, None)])
def test_drops_that_only_the_kernel_s_statistics_show(tmp_path: Path, counts: dict[str, int], more: int,
                                                      lost: int | None) -> None:
    from replay.benchmarks.capture import write_capture
    from replay.tools.synthetic import ImaginaryKernel

    kernel = ImaginaryKernel()
    kernel.store(1)
    write_capture(tmp_path / "run", kernel.block(), 1)
    events = kernel.block().shape[1]
    _stats(tmp_path / "run" / "ring-stats.json", entries=events + more, **counts)
    summary = import_source(tmp_path / "run", tmp_path / "rec")
    (loss,) = summary["losses"]
    assert (loss["events"], loss["lost"], loss.get("counted", False)) == (events, lost, lost == 0)
    said = f"holds {events} events where the kernel counted {events + more}"
    assert any(said in note for note in summary["notes"]) == (more > 0)
    # It cannot have written more than it counted, unless the ring was cleared.
    assert (said in loss.get("why", "")) == (more < 0)


def test_an_import_says_all_for_which_no_replay_can_pass(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "run"
    rb.write_capture(directory)
    (directory / "formats" / "store").unlink()
    assert main(["import", str(directory), "-o", str(tmp_path / "r"), "--no-compress"]) == 0
    said = [line.removeprefix("zreplay: ").removesuffix(": a replay cannot PASS.")
            for line in capfd.readouterr().err.splitlines() if "cannot PASS" in line]
    reasons = loss_reasons(Recording(tmp_path / "r").manifest)
    assert "CPU 0 has events of types that no format describes" in reasons
    assert set(said) == set(reasons)
