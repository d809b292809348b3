# SPDX-License-Identifier: GPL-2.0-or-later
"""Importers: captures built here and the shared recordings, through to the recording on disk."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ringbuilder as rb
from hypothesis import given, settings
from hypothesis import strategies as st
from ringbuilder import CALLS, EVENTS, T0, Call, page

from traces import schema
from traces.errors import BadInput
from traces.importers import content, import_source, pagefiles
from traces.importers.assemble import assemble
from traces.importers.content import chunks, classify, read_all
from traces.importers.eventformat import parse_header_page
from traces.importers.pageindex import PAGE_OFFSET_BASE, VMEMMAP_BASE, PageIndex
from traces.importers.rings import cpu_of
from traces.importers.source import Block, RunFacts
from traces.recording import Recording

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORDINGS = Path(os.environ.get("ZREPLAY_RECORDINGS",
                                 Path(__file__).resolve().parents[1].parent / "shared" / "recordings"))
RUNS = ("6.12-zstd-4k", "7.2-zstd-4k", "7.3-lz4-4k", "7.3-tracecmd", "7.3-zstd-64k", "v14-iaa-64k")
COLUMN = {name: index for index, name in enumerate(schema.column_names())}
COMPRESS = schema.CODE["crypto_acomp_compress"]


def shared(run: str) -> Path:
    """A shared recording; skips the test where it is not there."""
    path = RECORDINGS / run
    if not path.is_dir():
        pytest.skip(f"no recording at {path}")
    return path


def shared_or_empty() -> list[Path]:
    return sorted(p for run in RUNS for p in (RECORDINGS / run).glob("*") if p.is_file())


# What a file is.

KINDS = {"counters-": "counters", "cobj.": "objects", "dmesg.": "dmesg", "dynamic_events.": "probes", "kernel.config": "config",
         "pages.bin": "pages", "pages.idx": "pageindex", "symbols.": "symbols", "trace.dat": "tracedat",
         "truth.bin": "pages", "truth.csv": "truth", "zmeta.txt": "text", "zmeta.cpu": "ring", "zpage.cpu": "ring",
         "params.": "json", "ring-stats.": "ringstats", "guest.log": "unknown"}


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recordings at {RECORDINGS}")
@pytest.mark.parametrize("path", shared_or_empty(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shared_file_is_recognised(path: Path, tmp_path: Path) -> None:
    (tmp_path / "x.dat").symlink_to(path)
    header = parse_header_page((path.parent / "formats" / "header_page").read_text(), "x")
    expected, = {kind for start, kind in KINDS.items() if path.name.startswith(start)}
    assert classify(tmp_path / "x.dat", header) == expected


OBJECTS = b"".join(struct.pack("<QI", 0xFFFF888000001000 + 8 * n, 100 + n) + bytes(100 + n) for n in range(9))
TEXT = (b"# tracer: nop\n#\n"
        b"         python3-10      [000] ...2.    10.000001: store_ret: (a+0x80/0xa0 <- zswap_store) ret=0x1\n")
FILES = {
    "ring": rb.rings_of()[0], "tracedat": rb.tracedat(rb.rings_of()), "text": TEXT, "objects": OBJECTS,
    "pages": page(1) + page(2), "pageindex": rb.index_text([(1, 2, "0" * 40)]).encode(),
    "truth": b"phase,page,kind,sha1,swap_type,swap_offset\n", "counters": b'{"t": 1, "zswap_debugfs": {}}',
    "symbols": b'{"zswap_list_lru": "ff"}', "json": b' \n{"a": 1}', "probes": b"f:z/store zswap_store\n",
    "config": b"#\n# Linux/x86_64 7.3.0 Kernel Configuration\n", "dmesg": b"[    0.0] Linux version 7.3 (x)\n",
    "empty": b"", "unknown": b"hello\n",
}
MISLEADING = ("trace.dat", "trace.txt", "zmeta.cpu0.raw", "pages.bin", "counters-x.json", "truth.csv.gz", "x.zst")


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("squeeze", [bytes, zstd.compress, gzip.compress], ids=["plain", "zstd", "gzip"])
def test_the_content_counts_and_not_the_name(tmp_path: Path, kind: str, squeeze: Callable[[bytes], bytes]) -> None:
    for name in MISLEADING:
        (tmp_path / name).write_bytes(squeeze(FILES[kind]))
        assert classify(tmp_path / name) == kind, name


@pytest.mark.parametrize("size", [4096, 8192, 65536, 1 << 17, 1 << 20])
def test_rings_of_every_sub_buffer_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(rb.rings_of(size=size)[0])
    assert classify(tmp_path / "x", parse_header_page(rb.header_page(size), "x")) == "ring"


def test_a_ring_with_a_damaged_sub_buffer_is_still_a_ring(tmp_path: Path) -> None:
    """It must not pass for something that is left out, and one CPU be missing without a word."""
    data = bytearray(rb.ring((n, EVENTS["load"].pack(1)) for n in range(1, 900)))
    for broken in (8, 4096 + 8, 3 * 4096):
        bad = bytearray(data)
        bad[broken:broken + 8] = b"\xff\xff\xff\x07\xff\xff\xff\x07"
        (tmp_path / "x").write_bytes(bad)
        assert classify(tmp_path / "x") == "ring"


@pytest.mark.parametrize("data", [bytes(40960), b"\xff" * 8192, page(1) * 4, b"\1" * 8192,
                                  np.arange(4096, dtype="<u8").tobytes()])
def test_pages_are_no_ring(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert classify(tmp_path / "x") == "pages"


def test_damaged_compression_shows_what_came_before(tmp_path: Path) -> None:
    random = np.random.default_rng(1).bytes(300000)
    for squeeze in (zstd.compress, gzip.compress):
        packed = squeeze(random)
        (tmp_path / "cut").write_bytes(packed[:len(packed) // 2])
        parts: list[bytes] = []
        with pytest.raises(BadInput, match="the compressed data is damaged"):
            parts.extend(chunks(tmp_path / "cut"))
        got = b"".join(parts)
        assert len(got) > len(random) // 4
        assert random.startswith(got)
        bad = bytearray(packed)
        bad[len(bad) // 2] ^= 0xFF
        bad[10] ^= 0xFF
        (tmp_path / "flipped").write_bytes(bad)
        classify(tmp_path / "flipped")
        with pytest.raises(BadInput, match=r"flipped: the compressed data is damaged \(.*\); copy the file again\.$"):
            read_all(tmp_path / "flipped")


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 22])
@pytest.mark.parametrize("squeeze", [bytes, zstd.compress, gzip.compress], ids=["plain", "zstd", "gzip"])
def test_chunks(tmp_path: Path, size: int, squeeze: Callable[[bytes], bytes]) -> None:
    data = b"".join(bytes([n % 251]) * 3 for n in range(3000))
    (tmp_path / "x").write_bytes(squeeze(data))
    parts = list(chunks(tmp_path / "x", size))
    assert b"".join(parts) == data
    assert {len(part) for part in parts[:-1]} <= {size}


def test_read_all_stops_at_its_limit(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(zstd.compress(bytes(64 << 20)))
    with pytest.raises(BadInput, match="bomb: is longer than 1000000 bytes"):
        read_all(tmp_path / "bomb", 1_000_000)
    assert read_all(tmp_path / "bomb", 64 << 20) == bytes(64 << 20)


def test_cpu_of_a_file_name() -> None:
    names = {"zmeta.cpu3.raw.zst": 3, "cpu12": 12, "a.raw": 77, "cpu65535": 65535, "cpu65536": 77, "cpu" + "9" * 200: 77}
    assert {name: cpu_of(Path(name), 77) for name in names} == names


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


def imported(source: Path, tmp_path: Path, **options: Any) -> tuple[Recording, dict[str, Any]]:
    summary = import_source(source, tmp_path / "rec", **options)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    recording = Recording(tmp_path / "rec")
    assert summary["rows"] == len(recording)
    return recording, summary


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


# Parameters and snapshots between the events.

def placed(recording: Recording) -> list[str]:
    """The rows in order: markers, snapshots and parameters by their text, other events by their stamp."""
    frame = recording.frame(["ts", "event", "text"])
    return [row.text or f"@{row.ts}" for row in frame.itertuples()]


def test_parameters_between_snapshots(tmp_path: Path) -> None:
    """At the first marker between the two snapshots, else right after the first of them."""
    recording, _ = imported(rb.write_capture(tmp_path / "run"), tmp_path)
    rows = [row for row in placed(recording) if not row.startswith("@")]
    assert rows == ["before", "out1", "compressor=zstd", "in1", "after-out1", "enabled=N", "end"]
    assert recording.manifest["derived_params"] == ["compressor=zstd", "enabled=N"]
    frame = recording.frame()
    assert frame[frame["event"] == "param"]["ts"].tolist() == [T0, T0 + 2900]
    assert frame[frame["event"] == "counters"]["ret"].tolist() == [0, 1, 2]
    assert frame[frame["event"] == "counters"]["ts"].tolist() == [T0 - 1000, T0 + 2900, T0 + 9000]


def block_of(stamps: list[int], markers: dict[int, str]) -> Block:
    out = np.zeros((len(COLUMN), len(stamps)), np.int64)
    out[0], out[COLUMN["event"]], out[COLUMN["content"]] = stamps, schema.CODE["zswap_load"], -1
    texts = [(stamps.index(ts), text) for ts, text in markers.items() if ts in stamps]
    for row, _ in texts:
        out[COLUMN["event"], row] = 1
    return out, texts


def assembled(path: Path, blocks: list[Block], snapshots: list[tuple[str, int, dict[str, Any]]]) -> list[str]:
    facts = RunFacts(snapshots=[(label, ts, {"params": params}) for label, ts, params in snapshots])
    assemble(str(path), iter(blocks), facts, {"path": "x"})
    return placed(Recording(path))


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 9), max_size=3), st.sets(st.integers(1, 9), max_size=4))
def test_placement_does_not_depend_on_blocks(tmp_path_factory: pytest.TempPathFactory, markers: set[int],
                                             cuts: set[int]) -> None:
    """Snapshots at 25 and 65; what changed between them is written at the first marker between them."""
    path = tmp_path_factory.mktemp("p")
    stamps = [10 * n for n in range(10)]
    marked = {10 * n: f"m{n}" for n in sorted(markers)}
    snapshots: list[tuple[str, int, dict[str, Any]]] = [("a", 25, {"enabled": "Y"}), ("b", 65, {"enabled": "N"}),
                                                        ("c", 500, {"enabled": "N"})]
    edges = [0, *sorted(cuts), 10]
    blocks = [block_of(stamps[a:b], marked) for a, b in itertools.pairwise(edges)]
    rows = assembled(path / "rec", blocks, snapshots)
    plain = [marked.get(ts, f"@{ts}") for ts in stamps]
    inside = [n for n in sorted(markers) if 25 < 10 * n <= 65]
    assert [row for row in rows if row not in ("a", "b", "c", "enabled=N")] == plain
    assert rows.index("a") == 3
    assert rows[-1] == "c"
    assert rows.index("b") == 9
    if inside:
        assert rows.index("enabled=N") == rows.index(f"m{inside[0]}") + 1
    else:
        # Where the events of its time have been written already, it comes as soon as that is known.
        assert rows.index("a") < rows.index("enabled=N") < rows.index("b")
        assert len(blocks) > 1 or rows.index("enabled=N") == rows.index("a") + 1


@pytest.mark.parametrize(("text", "derived"), [("param enabled=N", 0), ("param enabled=Y", 1), ("enabled=N", 1)])
def test_a_write_that_the_workload_announced_is_not_derived_too(tmp_path: Path, text: str, derived: int) -> None:
    rows = assembled(tmp_path / "rec", [block_of([10, 30, 50], {30: text})],
                     [("a", 20, {"enabled": "Y"}), ("b", 60, {"enabled": "N"})])
    assert rows == ["@10", "a", text, *["enabled=N"] * derived, "@50", "b"]
    assert Recording(tmp_path / "rec").manifest["derived_params"] == ["enabled=N"] * derived


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
@pytest.mark.parametrize(("marker", "expected"), [
    (20, ["@10", "m", "a", "enabled=N", "@30", "b", "@40"]),  # not between: written when the first was taken
    (30, ["@10", "@20", "a", "m", "enabled=N", "b", "@40"]),  # at the very stamp of the second
])
def test_equal_stamps_of_snapshots_and_markers(tmp_path: Path, cut: int, marker: int, expected: list[str]) -> None:
    """What was written between two snapshots stays between them."""
    blocks = [block_of(part, {marker: "m"}) for part in ([10, 20, 30, 40][:cut], [10, 20, 30, 40][cut:]) if part]
    rows = assembled(tmp_path / "rec", blocks, [("a", 20, {"enabled": "Y"}), ("b", 30, {"enabled": "N"})])
    assert rows == expected


def test_two_snapshots_of_one_stamp(tmp_path: Path) -> None:
    rows = assembled(tmp_path / "rec", [block_of([10, 30], {})],
                     [("a", 20, {"enabled": "Y"}), ("b", 20, {"enabled": "N"}), ("c", 20, {"enabled": "Y"})])
    assert rows == ["@10", "a", "enabled=N", "b", "enabled=Y", "c", "@30"]


def test_one_wild_stamp_does_not_move_the_snapshots(tmp_path: Path) -> None:
    rows = assembled(tmp_path / "rec", [block_of([10, 1 << 60, 20, 30], {}), block_of([40, 50], {})],
                     [("a", 45, {"enabled": "Y"}), ("b", 60, {"enabled": "Y"})])
    assert rows == ["@10", f"@{1 << 60}", "@20", "@30", "@40", "a", "@50", "b"]


def test_snapshots_before_and_after_all_events(tmp_path: Path) -> None:
    rows = assembled(tmp_path / "rec", [block_of([100, 200], {})],
                     [("early", 1, {"enabled": "Y"}), ("late", 900, {"enabled": "Y"}), ("later", 950, {"enabled": "N"})])
    assert rows == ["early", "@100", "@200", "late", "enabled=N", "later"]


def test_snapshots_without_events(tmp_path: Path) -> None:
    assert assembled(tmp_path / "rec", [], [("a", 5, {"enabled": "Y"}), ("b", 6, {"enabled": "N"})]) \
        == ["a", "enabled=N", "b"]


def test_snapshots_where_stamps_run_backwards(tmp_path: Path) -> None:
    """Every marker keeps its text and every row its place."""
    rows = assembled(tmp_path / "rec", [block_of([10, 50, 20, 30, 60], {20: "m", 60: "n"})],
                     [("a", 15, {"enabled": "Y"}), ("b", 55, {"enabled": "N"})])
    assert [row for row in rows if row not in ("a", "b", "enabled=N")] == ["@10", "@50", "m", "@30", "n"]
    assert rows.index("a") < rows.index("enabled=N") < rows.index("b")


def test_labels_and_parameters_that_are_no_utf8(tmp_path: Path) -> None:
    rows = assembled(tmp_path / "rec", [block_of([10], {})],
                     [("a\udcff", 1, {"compressor": "x"}), ("b", 2, {"compressor": "\ud800"})])
    assert rows == ["a?", "compressor=?", "b", "@10"]


# Pages and the calls they belong to.

def index_of(pages: list[tuple[int, int]], known: bool = True) -> PageIndex:
    """An index of (ts, address) whose digests number the pages."""
    return PageIndex("pages.idx", np.array([ts for ts, _ in pages], np.int64),
                     np.array([address for _, address in pages], np.uint64), [f"{n:040x}" for n in range(len(pages))],
                     None, (PAGE_OFFSET_BASE, VMEMMAP_BASE) if known else None)


def calls_block(calls: list[tuple[int, int, int, int]]) -> np.ndarray:
    """A block of compress calls: (ts, pid, address, pages)."""
    out = np.zeros((len(COLUMN), len(calls)), np.int64)
    out[COLUMN["event"]], out[COLUMN["content"]] = COMPRESS, -1
    for row, (ts, pid, address, count) in enumerate(calls):
        folio = address & ~0xFFFF
        out[[COLUMN[name] for name in ("ts", "pid", "folio", "offset", "size")], row] = \
            ts, pid, rb.struct_page(folio) - (1 << 64), address - folio, 4096 * count
    return out


BASE = rb.PAGE_OFFSET + 0x1000000


def place(pages: list[tuple[int, int]], calls: list[tuple[int, int, int, int]], known: bool = True,
          split: int = 0, unit: int = 1) -> tuple[list[int], int]:
    """The row each call got, and how many got none; ``split`` cuts the calls into two blocks."""
    index = index_of(pages, known)
    block = calls_block(calls)
    for part in (block[:, :split], block[:, split:]):
        index.attach(part, unit)
    return block[COLUMN["content"]].tolist(), index.unmatched


PAGES = [(100 + 10 * n, BASE + 4096 * n) for n in range(20)]
SINGLE = [(95 + 10 * n, 1, BASE + 4096 * n, 1) for n in range(20)]
#: Two batches of 8 and 4 single pages.
BATCHED = [(95, 1, BASE, 8), (175, 1, BASE + 8 * 4096, 8), *SINGLE[16:]]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("split", [0, 1, 2])
def test_pages_in_order(known: bool, split: int) -> None:
    assert place(PAGES, SINGLE, known, split) == (list(range(20)), 0)
    assert place(PAGES, BATCHED, known, split) == ([0, 8, 16, 17, 18, 19], 0)
    assert place(PAGES, [], known) == ([], 0)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lost", [0, 1, 9, 19])
def test_a_missing_page_costs_its_own_call_only(known: bool, lost: int) -> None:
    rows, unmatched = place([p for n, p in enumerate(PAGES) if n != lost], SINGLE, known)
    assert (rows, unmatched) == ([n if n < lost else -1 if n == lost else n - 1 for n in range(20)], 1)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lost", [0, 1, 9, 19])
def test_a_missing_call_leaves_its_page_unused(known: bool, lost: int) -> None:
    """Without addresses only the time tells, so a page of a lost call must not go to the next one."""
    rows, unmatched = place(PAGES, [c for n, c in enumerate(SINGLE) if n != lost], known)
    assert (rows, unmatched) == ([n for n in range(20) if n != lost], 0)


@pytest.mark.parametrize("lost", range(16))
def test_a_batch_with_a_missing_page_gets_none(lost: int) -> None:
    """Seven pages for a call of eight: better no contents than those of its neighbours."""
    rows, unmatched = place([p for n, p in enumerate(PAGES) if n != lost], BATCHED)
    assert unmatched == 1
    assert rows == ([-1, 7, 15, 16, 17, 18] if lost < 8 else [0, -1, 15, 16, 17, 18])


def test_a_batch_does_not_take_a_page_of_another_task() -> None:
    """The last page of a batch is missing, and the next page recorded is another CPU's."""
    calls = [(100, 1, BASE, 2), (101, 2, BASE + (1 << 20), 1)]
    assert place([(110, BASE), (120, BASE + (1 << 20))], calls) == ([-1, 1], 1)
    # Two batches whose pages are recorded in turn are not each other's either.
    mixed = [(110 + n, BASE + 4096 * (n // 2) + (1 << 20) * (n % 2)) for n in range(4)]
    assert place(mixed, [(100, 1, BASE, 2), (101, 2, BASE + (1 << 20), 2)]) == ([-1, -1], 2)


def test_a_page_goes_to_one_call_only() -> None:
    """Two tasks compress from the same address, and one of the pages is missing."""
    calls = [(100, 1, BASE, 1), (101, 2, BASE, 1)]
    assert place([(110, BASE)], calls) == ([0, -1], 1)
    assert place([(110, BASE)], calls, split=1) == ([0, -1], 1)


def test_a_page_of_the_next_call_is_not_taken_by_one_without() -> None:
    """The same buffer is compressed twice and the first time's page is lost."""
    calls = [(100, 1, BASE, 1), (200, 1, BASE, 1)]
    assert place([(205, BASE)], calls) == ([-1, 0], 1)
    assert place([(105, BASE)], calls) == ([0, -1], 1)


def test_interleaved_tasks_get_their_own_pages() -> None:
    """Two CPUs compress at once, and the second one's page is recorded first."""
    pages, calls, expected = [], [], []
    for n in range(10):
        calls += [(100 * n, 1, BASE + 8192 * n, 1), (100 * n + 1, 2, BASE + 8192 * n + 4096, 1)]
        pages += [(100 * n + 10, BASE + 8192 * n + 4096), (100 * n + 20, BASE + 8192 * n)]
        expected += [2 * n + 1, 2 * n]
    assert place(pages, calls) == (expected, 0)
    assert place(pages, calls, split=7) == (expected, 0)


def test_many_lost_calls_and_pages_do_not_stall_the_search() -> None:
    pages = [(10 * n + 5, BASE + 4096 * n) for n in range(1000)]
    calls = [(10 * n, 1, BASE + 4096 * n, 1) for n in range(1000)]
    some_calls = [c for n, c in enumerate(calls) if n % 50 < 20]
    some_pages = [(n, p) for n, p in enumerate(pages) if n % 7]
    rows, unmatched = place([p for _, p in some_pages], some_calls)
    number = {n: row for row, (n, _) in enumerate(some_pages)}
    expected = [number.get(n, -1) for n in range(1000) if n % 50 < 20]
    assert (rows, unmatched) == (expected, expected.count(-1))


def test_addresses_that_do_not_match_are_counted() -> None:
    assert place([(ts, address + (1 << 32)) for ts, address in PAGES], SINGLE) == ([-1] * 20, 20)
    assert place([], SINGLE) == ([-1] * 20, 20)


def test_stamps_of_text_are_coarser_than_those_of_pages() -> None:
    """Text rounds to microseconds, so a call may seem to come up to that much after its page."""
    pages = [(1_000_400, BASE), (2_000_600, BASE + 4096), (3_000_400, BASE + 8192)]
    calls = [(1_001_000, 1, BASE, 1), (2_001_000, 1, BASE + 4096, 1), (3_000_000, 1, BASE + 8192, 1)]
    assert place(pages, calls, unit=1000) == ([0, 1, 2], 0)
    assert place(pages[:1] + pages[2:], calls, unit=1000) == ([0, -1, 1], 1)
    assert place(pages, calls)[1] > 0
    # Nor must a page come before the rounded stamp of its task's next call.
    pages = [(1_999_400, BASE), (3_000_000, BASE + (1 << 20))]
    calls = [(1_000_000, 1, BASE, 1), (1_999_000, 1, BASE + 4096, 1), (3_000_000, 1, BASE + (1 << 20), 1)]
    assert place(pages, calls, unit=1000) == ([0, -1, 1], 1)


def test_an_absurd_size_of_a_call_is_no_trouble() -> None:
    block = calls_block(SINGLE[:3])
    block[COLUMN["size"], 1] = (1 << 32) - 1
    index = index_of(PAGES)
    index.attach(block)
    assert block[COLUMN["content"]].tolist() == [0, -1, 2]


@pytest.mark.parametrize("upper_first", [True, False])
@pytest.mark.parametrize("size", [4096, 65536, 1 << 19])
def test_a_page_ring_in_either_order(tmp_path: Path, upper_first: bool, size: int) -> None:
    """Halves of a page in either order, several tasks at once, and events of other kinds between them."""
    a, b = rb.PAGE_OFFSET + 0x5000, rb.PAGE_OFFSET + 0x9000
    first, second, third = (
        [payload for _, payload in rb.page_halves(0, address, page(seed), 1, upper)]
        # The same address comes again as soon as it is complete.
        for address, seed, upper in ((a, 1, upper_first), (b, 2, not upper_first), (a, 3, upper_first)))
    records = [first[0], second[0], first[1], EVENTS["sched_switch"].pack(1), second[1], *third]
    (tmp_path / "ring").write_bytes(rb.ring(((T0 + 5 * n, record) for n, record in enumerate(records)), size))
    formats = [pagefiles_format(name) for name in ("pg0", "pg1", "sched_switch")]
    index = pagefiles.page_ring(tmp_path / "ring", formats, parse_header_page(rb.header_page(size), "x"), None)
    assert index is not None
    assert index._sha1 == [hashlib.sha1(page(n)).hexdigest() for n in (1, 2, 3)]
    assert index._ts.tolist() == [T0, T0 + 5, T0 + 25]


def pagefiles_format(name: str) -> Any:
    from traces.importers.eventformat import parse_event_format
    return parse_event_format(EVENTS[name].text(), name)


def test_a_page_format_with_fields_far_away_reads_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "ring").write_bytes(rb.ring(rb.page_halves(T0, rb.PAGE_OFFSET, page(1))))
    for field in ("src;\toffset:16", "common_pid;\toffset:4"):
        formats = []
        for name in ("pg0", "pg1"):
            far = EVENTS[name].text().replace(field, field.rsplit(":", 1)[0] + ":900000")
            assert far != EVENTS[name].text()
            (tmp_path / "format").write_text(far)
            from traces.importers.eventformat import parse_event_format
            formats.append(parse_event_format(far, name))
        assert pagefiles.page_ring(tmp_path / "ring", formats, parse_header_page(rb.header_page(), "x"), None) is None


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
                                "x.log was not used: its content is of no known kind"]
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
    assert [(loss["cpu"], loss["lost"]) for loss in recording.manifest["losses"]] in ([(0, 0), (1, 0)], [(1, 0), (0, 0)])


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
    assert "1 lines could not be parsed" in summary["notes"][0]


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


# What cannot be imported: (change of a good directory, part of the sentence).

def change(name: str, old: str | bytes, new: str | bytes) -> Callable[[Path], None]:
    def apply(source: Path) -> None:
        data = (source / name).read_bytes()
        before, after = (x.encode() if isinstance(x, str) else x for x in (old, new))
        assert before in data
        (source / name).write_bytes(data.replace(before, after, 1))
    return apply


def put(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda source: (source / name).write_bytes(data) and None


def drop(*names: str) -> Callable[[Path], None]:
    def apply(source: Path) -> None:
        for name in names:
            for path in source.glob(name):
                path.unlink()
    return apply


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def apply(source: Path) -> None:
        for one in changes:
            one(source)
    return apply


def cut(name: str, count: int) -> Callable[[Path], None]:
    return lambda source: (source / name).write_bytes((source / name).read_bytes()[:count]) and None


TRUTH = b"phase,page,kind,sha1,swap_type,swap_offset\n"
BAD: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no trace at all": (drop("zmeta*"), "", "holds no trace that zreplay can import (found: config, counters, dmesg"),
    "nothing": (drop("*.*", "formats/*"), "", "holds no trace that zreplay can import (found: nothing)"),
    "a ring without formats": (drop("formats/*"), "zmeta.cpu0.raw", "is a raw ring buffer without its event formats"),
    "no known event": (both(drop("counters*"), put("zmeta.cpu0.raw", rb.ring([(5, rb.common(9, 1))])), drop("zmeta.cpu1*")), "",
                       "holds no event that zreplay knows"),
    "a header of another layout": (change("formats/header_page", "offset:16", "offset:12"), "formats/header_page",
                                   "a layout that no kernel uses"),
    "a header without commit": (change("formats/header_page", "commit", "omit"), "formats/header_page", "no field 'commit'"),
    "a format without id": (change("formats/store", "ID: 1500", "ID: x"), "formats/store", "this is not an event format"),
    "a format without a pid": (change("formats/store", "common_pid", "pid"), "formats/store", "this is not an event format"),
    "a format with a large id": (change("formats/store", "ID: 1500", "ID: 65536"), "formats/store", "65536 does not fit 16 bits"),
    "a format with a huge id": (change("formats/store", "ID: 1500", "ID: " + "1" * 9999), "formats/store", "does not fit 16"),
    "a format with a wild offset": (change("formats/store", "offset:16", "offset:9999999"), "formats/store", "make no sense"),
    "a format with an offset below 0": (change("formats/store", "offset:16", "offset:-1"), "formats/store", "make no sense"),
    "a format with a huge offset": (change("formats/store", "offset:16", "offset:" + "9" * 9999), "formats/store", "make no sense"),
    "two events of one id": (change("formats/store", "ID: 1500", "ID: 1502"), "formats/store", "has the id 1502 of event 'load'"),
    "a format that is too long": (put("formats/store", b" " * ((1 << 20) + 1)), "formats/store", "is too long for an event format"),
    "a format that is something else": (put("formats/store", b"\xff\0\x80"), "formats/store", "this is not an event format"),
    "64 KiB pages": (change("kernel.config", "SHIFT=12", "SHIFT=16"), "kernel.config", "pages of 2^16 bytes are not modelled"),
    "a chain size that is no number": (change("kernel.config", "SIZE=8", "SIZE=x"), "kernel.config", "'x' is not a number from 4 to 16"),
    "a chain size of 99": (change("kernel.config", "SIZE=8", "SIZE=99"), "kernel.config", "'99' is not a number from 4 to 16"),
    "a symbol that is no address": (change("symbols.json", "ffffffff83f07f60", "nowhere"), "symbols.json", "is not a hexadecimal address"),
    "a snapshot without time": (put("counters-end.json", b'{"t": "now", "zswap_debugfs": {}}'), "counters-end.json", "is not a time in seconds"),
    "a snapshot of another time": (put("counters-end.json", b'{"t": 1e300, "zswap_debugfs": {}}'), "counters-end.json", "is not a time in seconds"),
    "a snapshot at NaN": (put("counters-end.json", b'{"t": NaN, "zswap_debugfs": {}}'), "counters-end.json", "is not a time in seconds"),
    "parameters that are a list": (put("counters-end.json", b'{"t": 1, "zswap_debugfs": {}, "params": ["enabled"]}'),
                                   "counters-end.json", "is not a table of parameters"),
    "parameters that are null": (put("counters-end.json", b'{"t": 1, "zswap_debugfs": {}, "params": null}'),
                                 "counters-end.json", "is not a table of parameters"),
    "a truth without columns": (put("truth.csv", b"phase,page,kind,sha1\na,1,b,c\n"), "truth.csv", "is not a truth table"),
    "a truth with a long line": (put("truth.csv", TRUTH + b"a,1,b,c,0,1\na,1,b,c,0,1,2,3\n"), "truth.csv", "is not a truth table"),
    "a truth with words for numbers": (put("truth.csv", TRUTH + b"a,1,b,c,0,far\n"), "truth.csv", "is not a truth table"),
    "a truth with a number missing": (put("truth.csv", TRUTH + b"a,1,b,c,,1\n"), "truth.csv", "is not a truth table"),
    "a truth with a huge number": (put("truth.csv", TRUTH + b"a,1,b,c,0,1" + b"0" * 30 + b"\n"), "truth.csv", "is not a truth table"),
    "a truth cut within zstd": (both(put("truth.csv", zstd.compress(TRUTH + b"".join(b"out1,%d,k,%d,0,%d\n" % (n, n * n, n) for n in range(99999)))),
                                     cut("truth.csv", 200000)), "truth.csv", "the compressed data is damaged"),
    "an index line too short": (change("pages.idx", "\n3,", "\n3 "), "pages.idx", "line 5: is not 'n,ts_ns,src,sha1' in order"),
    "an index out of order": (change("pages.idx", "\n3,", "\n4,"), "pages.idx", "line 5: is not"),
    "an index with a wild address": (change("pages.idx", ",ffff8880", ",1ffff8880"), "pages.idx", "line 2: is not"),
    "an index with a wild time": (change("pages.idx", ",100", f",{1 << 64}"), "pages.idx", "line 2: is not"),
    "an index with an odd digest": (change("pages.idx", hashlib.sha1(page(0)).hexdigest(), "ab " * 13 + "f"), "pages.idx", "line 2: is not"),
    "an index with a huge field": (put("pages.idx", b"n,ts_ns,src,sha1\n" + b"x" * 200000), "pages.idx", "is not a table of commas"),
    "a dump too short": (cut("pages.bin", 12 * 4096 + 5), "pages.bin", "offset 49157: the dump ends here but its index names 13 pages (53248 bytes)"),
    "a dump too long": (lambda s: put("pages.bin", (s / "pages.bin").read_bytes() + b"x")(s), "pages.bin",
                        "offset 53248: the dump goes on here, but its index names 13 pages"),
    "a dump that does not match": (change("pages.bin", page(10), page(77)), "pages.idx", "its bytes do not match its SHA-1"),
    "half a page": (both(drop("pages.*"), put("zpage.cpu0.raw", rb.ring(rb.page_halves(T0, rb.PAGE_OFFSET, page(1))[:1]))),
                    "zpage.cpu0.raw", "holds no"),
    "half of the last page": (both(drop("pages.*"), put("zpage.cpu0.raw", rb.ring(
        rb.page_halves(T0, rb.PAGE_OFFSET, page(1)) + rb.page_halves(T0 + 9, rb.PAGE_OFFSET, page(2))[:1]))),
        "zpage.cpu0.raw", f"page at address {rb.PAGE_OFFSET:#x}: only its half 0 was recorded"),
    "the same half twice": (both(drop("pages.*"), put("zpage.cpu0.raw", rb.ring(
        rb.page_halves(T0, rb.PAGE_OFFSET, page(1))[:1] * 2 + rb.page_halves(T0 + 9, rb.PAGE_OFFSET, page(2))[1:] * 2))),
        "zpage.cpu0.raw", "only its half 0 was recorded"),
    "an object longer than a page": (put("o", OBJECTS + struct.pack("<QI", 1, 4097) + bytes(4097)), "o",
                                     f"offset {len(OBJECTS)}: the record is cut off or longer than a page"),
    "an object of no length": (put("o", OBJECTS + struct.pack("<QI", 1, 0)), "o", "the record is cut off or longer"),
    "an object cut off": (put("o", OBJECTS[:-1]), "o", "the record is cut off or longer than a page"),
    "an object's head cut off": (put("o", OBJECTS + b"12345678901"), "o", "the record is cut off or longer than a page"),
    "a trace.dat of a big-endian box": (both(drop("zmeta*"), put("t", rb.tracedat([], big_endian=True))), "t", ""),
    "a trace.dat cut in its head": (both(drop("zmeta*"), put("t", FILES["tracedat"][:400])), "t", "bytes"),
    "a trace.dat in zstd": (both(drop("zmeta*"), put("t", zstd.compress(FILES["tracedat"]))), "t", ""),
    "a trace.dat with a bad format": (both(drop("zmeta*"), put("t", FILES["tracedat"].replace(b"ID: 1500", b"ID: abcd"))), "t",
                                      "format of z/store: this is not an event format"),
    "a trace.dat with a bad header": (both(drop("zmeta*"), put("t", FILES["tracedat"].replace(b"commit;", b"commut;"))), "t",
                                      "no field 'commit'"),
    "text that breaks off within gzip": (both(drop("zmeta*"), drop("pages.*"),
                                              put("u", gzip.compress(TEXT * 500)[:-9])), "u", "cannot be read on"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_imported(tmp_path: Path, what: str) -> None:
    """One sentence that names the file and says what to do, and nothing is left behind."""
    apply, name, expected = BAD[what]
    source = rb.write_capture(tmp_path / "run")
    apply(source)
    if what == "half a page":
        # A page ring without one whole page is no page ring; the run is imported without contents.
        assert imported(source, tmp_path)[0].pages is None
        return
    with pytest.raises(BadInput) as caught:
        import_source(source, tmp_path / "rec")
    check_sentence(caught.value, source / name if name else Path("run"), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def check_sentence(problem: BadInput, path: Path, expected: str) -> None:
    text = str(problem)
    assert str(path) in text
    assert expected in text
    assert text.endswith(f"; {problem.todo}.")
    assert len(problem.todo.split()) > 2
    assert not any(ord(letter) < 32 for letter in text)
    assert "Traceback" not in text
    assert len(text) < 700


@pytest.mark.parametrize(("options", "name", "expected"), [
    ({"events": "nowhere"}, "run/nowhere", "cannot be read (No such file or directory)"),
    ({"events": "truth.csv"}, "run/truth.csv", "is not a trace that zreplay can import"),
    ({"events": "formats"}, "run/formats", "cannot be read (Is a directory)"),
    ({"formats": "/nowhere"}, "/nowhere/header_page", "cannot be read (No such file or directory)"),
    ({"formats": "/dev/null"}, "/dev/null/header_page", "cannot be read (Not a directory)"),
])
def test_wrong_options(tmp_path: Path, options: dict[str, str], name: str, expected: str) -> None:
    source = rb.write_capture(tmp_path / "run")
    with pytest.raises(BadInput) as caught:
        import_source(source, tmp_path / "rec", **options)
    check_sentence(caught.value, tmp_path / name, expected)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        import_source(tmp_path / "nowhere", tmp_path / "rec")
    check_sentence(caught.value, tmp_path / "nowhere", "does not exist; check the path.")


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_an_existing_output_is_left_alone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "rec").mkdir() if kind == "directory" else (tmp_path / "rec").write_text("mine")
    for source in (rb.write_capture(tmp_path / "run"), tmp_path / "nowhere"):
        with pytest.raises(BadInput) as caught:
            import_source(source, tmp_path / "rec")
        check_sentence(caught.value, tmp_path / "rec", "the output exists already")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rec", "run"]


def test_a_reader_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    def blocks() -> Iterator[Block]:
        yield block_of([1, 2], {})
        yield block_of([3, 4], {})
        raise BadInput("x", "offset 7", "broke", "copy it again")

    with pytest.raises(BadInput, match="x, offset 7: broke; copy it again"):
        assemble(str(tmp_path / "rec"), blocks(), RunFacts(), {})
    assert list(tmp_path.iterdir()) == []


def test_too_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagefiles, "_MAX_PAGES", 12)
    with pytest.raises(BadInput, match=r"pages\.idx: 13 pages are more than can be; split the run\."):
        import_source(rb.write_capture(tmp_path / "run"), tmp_path / "rec")


def test_a_dump_that_would_fill_the_disk(tmp_path: Path) -> None:
    """No more of a compressed dump is unpacked than its index names."""
    source = rb.write_capture(tmp_path / "run")
    (source / "pages.bin").write_bytes(zstd.compress(b"x" * (200 << 20)))
    seen: list[int] = []
    original = content._read

    def counted(stream: Any, size: int) -> Any:
        data, damage = original(stream, size)
        seen.append(len(data))
        return data, damage

    content._read = counted
    try:
        with pytest.raises(BadInput, match="the dump goes on here"):
            import_source(source, tmp_path / "rec")
    finally:
        content._read = original
    assert sum(seen) < 16 << 20


def test_names_of_files_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    problem = BadInput("a\x1b[2Jb", "", "Error tokenizing data.\nExpected 6\n", "look again")
    assert str(problem) == "a [2Jb: Error tokenizing data. Expected 6; look again."


def test_probe_definitions_that_would_keep_a_search_busy(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    (source / "dynamic_events.txt").write_text("f:" + "/a" * 100000 + "\nf:z/load zswap_load swp=1\n")
    recording, _ = imported(source, tmp_path)
    assert recording.manifest["probes"]["zswap_load"]["function"] == "zswap_load"


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    (source / "counters-deep.json").write_bytes(b'{"a":' * 100000)
    imported(source, tmp_path)


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
    assert set(counts) == ({8} if run.startswith("v14") else {1}) or run.startswith("v14")
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


@pytest.mark.parametrize(("counts", "lost"), [({"entries": 0}, 0), ({"dropped_events": 7}, 7), ({"overrun": 3}, 3),
                                              ({"entries": 10**6}, None)])
def test_drops_that_only_the_kernel_s_statistics_show(tmp_path: Path, counts: dict[str, int], lost: int | None) -> None:
    from replay.benchmarks.capture import write_capture
    from replay.synthetic import ImaginaryKernel

    kernel = ImaginaryKernel()
    kernel.store(1)
    write_capture(tmp_path / "run", kernel.block(), 1)
    _stats(tmp_path / "run" / "ring-stats.json", **counts)
    summary = import_source(tmp_path / "run", tmp_path / "rec")
    (loss,) = summary["losses"]
    assert loss["lost"] == (10**6 - loss["events"] if lost is None else lost)
    assert any("where the kernel counted 1000000" in note for note in summary["notes"]) == (lost is None)
