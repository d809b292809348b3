# SPDX-License-Identifier: GPL-2.0-or-later
"""The ftrace text reader against synthetic lines, real recordings, trace-cmd, and damage."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import open_recording, schema
from traces.errors import BadInput
from traces.importers import ftracetext, import_source, textevents, textorder
from traces.importers.ftracetext import TextChunk, iter_text, parse_payload, sniff_text
from traces.importers.probemap import known_probe, moves_for, probe_names, source_fields, vocabulary_name
from traces.importers.source import RunFacts

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORDINGS = Path(os.environ.get("ZREPLAY_RECORDINGS",
                                 Path(__file__).resolve().parents[1].parent / "shared" / "recordings"))
SAMPLE = RECORDINGS / "7.3-tracecmd"
needs_sample = pytest.mark.skipif(not (SAMPLE / "zmeta.txt.zst").exists(), reason=f"no recording at {SAMPLE}")
needs_tracecmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")

KERNEL = b"""\
# tracer: nop
#
# entries-in-buffer/entries-written: 5/9   #P:2
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
         python3-136     [000] ...2.     9.803915: lru_add: (list_lru_add+0x4/0xf0) lru=0xffff888004ddac80 nid=0
         python3-136     [000] ...2.     9.875679: lru_add_ret: (list_lru_add_obj+0x80/0xa0 <- list_lru_add) ret=1
##### CPU 1 buffer started ####
 kworker/u4:2-events-123 [001] d..2.    10.000001: lru_add: (list_lru_add+0x4/0xf0) lru=0x0 nid=-1
CPU:1 [LOST 12 EVENTS]
          <idle>-0       [001] d.h3.    10.000002: tracing_mark_write: phase out1
          <idle>-0       [001] d.h3.    10.000003: lru_add: (list_lru_add+0x4/0xf0) lru=0x1f nid=7
"""
TRACECMD = b"""\
CPU 1 is empty
cpus=2
zmeta:          python3-136   [000]     9.803914813: lru_add:               __probe_ip=ffffffff81725254 lru=0xff nid=0
zmeta:          python3-136   [000]     9.875678547: lru_add_ret:           __probe_func=ffffffff81725254 \
__probe_ret_ip=81725254 ret=1
zmeta: CPU:0 [3 EVENTS DROPPED]
                python3-136   [000]    11.000000001: print:                 ip=tracing_mark_write buf=phase out1
"""


def whole(text: bytes, chunk_bytes: int = 8 << 20) -> dict[str, Any]:
    """All chunks of a text as one, in plain Python values."""
    events: list[tuple[int, int, int, str]] = []
    fields: dict[str, dict[str, list[int]]] = {}
    rows: dict[str, list[int]] = {}
    strings: dict[str, list[str]] = {}
    lost: list[tuple[int, int, int | None]] = []
    comms: dict[int, str] = {}
    last: TextChunk | None = None
    for chunk in iter_text(io.BytesIO(text), chunk_bytes):
        assert len(chunk.ts) == len(chunk.cpu) == len(chunk.pid) == len(chunk.event)
        assert [str(a.dtype) for a in (chunk.ts, chunk.cpu, chunk.pid, chunk.event)] == ["int64", *["int32"] * 3]
        assert sorted(np.concatenate([*chunk.rows.values(), []]).tolist()) == list(range(len(chunk.ts)))
        for name, at in chunk.rows.items():
            assert (chunk.event[at] == chunk.names.index(name)).all()
            rows.setdefault(name, []).extend((at + len(events)).tolist())
            assert not set(chunk.fields[name]) & set(chunk.skipped[name])
            for key, column in chunk.fields[name].items():
                assert column.dtype in (np.int64, np.uint64)
                assert len(column) == len(at)
                fields.setdefault(name, {}).setdefault(key, []).extend(column.tolist())
            if name in chunk.strings:
                assert len(chunk.strings[name]) == len(at)
                strings.setdefault(name, []).extend(chunk.strings[name])
        lost += [(row + len(events), cpu, count) for row, cpu, count in chunk.lost]
        events += zip(chunk.ts.tolist(), chunk.cpu.tolist(), chunk.pid.tolist(),
                      [chunk.names[code] for code in chunk.event.tolist()], strict=True)
        comms |= chunk.comms
        assert len(chunk.unparsed) == min(chunk.unparsed_total, 100)
        last = chunk
    return {"events": events, "fields": fields, "rows": rows, "strings": strings, "lost": lost, "comms": comms,
            "unparsed": last.unparsed if last else [], "total": last.unparsed_total if last else 0,
            "entries": last.entries if last else None, "cut_off": last.cut_off if last else False,
            "unit": last.ts_unit_ns if last else 0}


def one(line: str, before: str = "") -> dict[str, Any]:
    return whole((before + line + "\n").encode())


def test_kernel_text() -> None:
    got = whole(KERNEL)
    assert got["events"] == [
        (9803915000, 0, 136, "lru_add"), (9875679000, 0, 136, "lru_add_ret"), (10000001000, 1, 123, "lru_add"),
        (10000002000, 1, 0, "tracing_mark_write"), (10000003000, 1, 0, "lru_add")]
    assert got["fields"] == {"lru_add": {"lru": [0xFFFF888004DDAC80, 0, 0x1F], "nid": [0, -1, 7]},
                             "lru_add_ret": {"ret": [1]}}
    assert got["rows"] == {"lru_add": [0, 2, 4], "lru_add_ret": [1], "tracing_mark_write": [3]}
    assert got["strings"] == {"tracing_mark_write": ["phase out1"]}
    assert got["lost"] == [(3, 1, 12)]
    assert got["comms"] == {136: "python3", 123: "kworker/u4:2-events", 0: "<idle>"}
    assert (got["entries"], got["unit"], got["total"], got["cut_off"]) == ((5, 9), 1000, 0, False)


def test_tracecmd_text() -> None:
    got = whole(TRACECMD)
    assert got["events"] == [(9803914813, 0, 136, "lru_add"), (9875678547, 0, 136, "lru_add_ret"),
                             (11000000001, 0, 136, "print")]
    assert got["fields"] == {
        "lru_add": {"__probe_ip": [0xFFFFFFFF81725254], "lru": [0xFF], "nid": [0]},
        # Without a single letter this is still hex.
        "lru_add_ret": {"__probe_func": [0xFFFFFFFF81725254], "__probe_ret_ip": [0x81725254], "ret": [1]}}
    assert got["strings"] == {"print": ["phase out1"]}
    assert got["lost"] == [(2, 0, 3)]
    assert (got["unit"], got["total"]) == (1, 0)


@pytest.mark.parametrize("head", [
    "           foo-7     [003] ...2.     1.000002: ", "           foo-7     [003]     1.000002: ",
    "           foo-7     (      5) [003] ...2.     1.000002: ", "           foo-7     (-------) [003]     1.000002: ",
    "inst:      foo-7     [003]     1.000002: ", "inst:  foo-7       3...2.     1.000002: ",
    "           foo-7     [003]-0x1     1.000002: ", "  foo-7       3d.h2.     1.000002: ",
    "           foo-7     [003] d..2.     1.000002:   (+15)     ", "foo-7 [003] 1.000002: ",
    "           foo-7     [003]  ...2.     1.000002:  "])
def test_heads(head: str) -> None:
    got = one(head + "ev:   (f+0x4/0x8) a=1 b=0x2 ")
    assert got["events"] == [(1000002000, 3, 7, "ev")]
    assert got["fields"] == {"ev": {"a": [1], "b": [2]}}
    assert got["comms"] == {7: "foo"}


@pytest.mark.parametrize("comm", ["a b", "-", "a-1", "kworker/u4:2-events", "x[0]", "[000]", "a: b", "(sd-pam)",
                                  "b-12 c", "", "Web Content", "kthreadd", "<idle>", "é", "0", "12-34"])
def test_comms(comm: str) -> None:
    got = one(f"{comm:>16}-4194303 [001] ...2.     1.000002: ev: (f+0x4/0x8) a=1", "# tracer: nop\n")
    assert (got["events"], got["comms"]) == ([(1000002000, 1, 4194303, "ev")], {4194303: comm})


def test_unknown_comm_is_left_out() -> None:
    assert one("<...>-9 [001] ...2.     1.000002: ev: a=1")["comms"] == {}


@pytest.mark.parametrize(("line", "mark"), [
    ("CPU:3 [LOST 12 EVENTS]", (3, 12)), ("CPU:3 [LOST EVENTS]", (3, None)), ("CPU:0 [EVENTS DROPPED]", (0, None)),
    ("CPU:1 [5 EVENTS DROPPED]", (1, 5)), ("zmeta: CPU:1 [5 EVENTS DROPPED]", (1, 5)),
    ("       CPU:1 [5 EVENTS DROPPED]", (1, 5))])
def test_lost_marks(line: str, mark: tuple[int, int | None]) -> None:
    event = " foo-7 [003] 1.000002: ev: a=1\n"
    got = one(line + "\n" + event + "bogus\n" + line, event)
    assert got["lost"] == [(1, *mark), (2, *mark)]
    assert got["unparsed"] == [(4, "bogus")]


@pytest.mark.parametrize("line", ["", "   ", "# x", "CPU 0 is empty", "cpus=8", "zmeta: cpus=8", "       cpus=8",
                                  "CPU:0 [SUBBUFFER START]", "version = 6", "##### CPU 2 buffer started ####"])
def test_passed_over(line: str) -> None:
    assert one(line)["total"] == 0
    assert whole(line.encode())["total"] == 0


@pytest.mark.parametrize("payload", [
    "tracing_mark_write: phase out1", "print: tracing_mark_write: phase out1", "print: ffffffff81: phase out1",
    "print: 0xffffffff81234567: phase out1", "print: ip=tracing_mark_write buf=phase out1",
    "print: ip=0xffffffff81234567 buf=phase out1", "bprint: zswap_store: phase out1"])
def test_marks(payload: str) -> None:
    got = one(" foo-7 [003] 1.000002: " + payload)
    assert list(got["strings"].values()) == [["phase out1"]]


@pytest.mark.parametrize(("payload", "fields"), [
    ("", {}), ("a=0x10 b=-3", {"a": 16, "b": -3}), ("(f+0x1/0x2 <- g) a=1", {"a": 1}),
    ("a={0x1,0x2} b=1", {"a": None, "b": 1}), ('a="x y=2" b=1', {"a": None, "b": 1}),
    ("a=f+0x4/0x8 b=(fault)", {"a": None, "b": None}), ("a= b=1", {"a": None, "b": 1}),
    ("a=18446744073709551615", {"a": (1 << 64) - 1}), ("a=-9223372036854775808", {"a": -1 << 63}),
    ("a=1 ==> b=2", {"a": 1, "b": 2}), ("a=1, b=2", {"a": None, "b": 2}), ("a=1 a=2", {"a": 1}),
    ("__probe_ip=12 b=12", {"__probe_ip": 0x12, "b": 12}), ("a=0xFFff", {"a": 0xFFFF}), ("{a={ b=1", {"b": 1}),
    ("prev_comm=a b prev_pid=1", {"prev_comm": None, "prev_pid": 1})])
def test_payload(payload: str, fields: dict[str, int | None]) -> None:
    assert parse_payload(payload.encode()) == fields
    got = one(f" foo-7 [003] 1.000002: ev: {payload}")
    wrapped = {key: value - (1 << 64) if value == (1 << 64) - 1 else value for key, value in fields.items()}
    assert got["fields"].get("ev", {}) == {key: [value] for key, value in wrapped.items() if value is not None}
    (chunk,) = iter_text(io.BytesIO(f" foo-7 [003] 1.000002: ev: {payload}\n".encode()))
    assert chunk.skipped["ev"] == tuple(key for key, value in fields.items() if value is None)


@pytest.mark.parametrize(("payload", "value"), [
    ("ret=(1)", 1), ("ret=(0)", 0), ("ret=','(44)", 44), ("ret=' '(32)", 32), ("ret='('(40)", 40),
    ("ret='''(39)", 39), ("ret=0xffea (65514)", 65514),
    ("ret=0xffffffea (-22)", -22), ("ret=0xffffffffffffffea (-22)", -22),
    ("ret=0xffff888006966000 (-131391529000960)", -131391529000960)])
@pytest.mark.parametrize("count", [1, 40])
def test_numbers_as_the_option_fields_prints_them(payload: str, value: int, count: int) -> None:
    line = f"c-1 [000] ...1. 1.000001: store_ret: __probe_ip=0xffffffff81725254 (18446744071586206292) {payload} n=0x2 (2)"
    found = one(f"{line}\n" * count)
    assert not found["unparsed"]
    assert found["fields"]["store_ret"]["ret"] == [value] * count
    assert found["fields"]["store_ret"]["n"] == [2] * count


def test_markers_as_the_option_fields_prints_them() -> None:
    assert one("c-1 [000] ...1. 1.000001: print: ip=0xffffffff81725254 (-2123214252) buf=phase out1")["strings"] \
        == {"print": ["phase out1"]}


@pytest.mark.parametrize(("event", "known"), [
    ("zswap_store", "zswap_store"), ("zswap_store_ret", "zswap_store_ret"), ("zswap_store__return", "zswap_store_ret"),
    ("zswap_store__exit", "zswap_store_ret"), ("zswap_store__entry", "zswap_store"), ("p_zswap_store_0", "zswap_store"),
    ("r_zswap_store_0", "zswap_store_ret"), ("store", "zswap_store"), ("p_zswap_store_12", None), ("zswap_stor", None),
    ("zs_compact", "zs_compact"), ("shrink_memcg__return", "shrink_memcg_ret"), ("marker", None)])
def test_events_may_bear_the_name_of_their_function(event: str, known: str | None) -> None:
    assert vocabulary_name(event) == known
    if known is not None:
        assert moves_for(event, {"ret", "folio", "pool", "memcg"})


def test_every_event_of_the_vocabulary_may_bear_its_function_s_name() -> None:
    for probe, name in probe_names().items():
        assert vocabulary_name(name) == name
        assert set(source_fields(probe)) == set(source_fields(known_probe(name)))


LINE = "c-%d [%03d] ...1. %d.%06d: store: (zswap_store+0x4/0xcd0) folio=0x%x swp=0x1\n"


def ordered(tmp_path: Path, text: str, **options: int) -> tuple[list[tuple[int, int]], RunFacts]:
    """Return (stamp in us, folio) of each event, as imported."""
    path = tmp_path / "trace.txt"
    path.write_text(text)
    facts = RunFacts()
    blocks = textorder.in_order(textevents._as_printed(path, facts, True), facts, **options)
    rows = np.concatenate([block.columns() for block in blocks], axis=1)
    at = {name: index for index, name in enumerate(schema.column_names())}
    return list(zip((rows[at["ts"]] // 1000).tolist(), rows[at["folio"]].tolist(), strict=True)), facts


def unknown(facts: RunFacts) -> list[str]:
    return [loss["why"] for loss in facts.losses if loss["lost"] is None]


def test_files_of_several_cpus_are_merged_by_time(tmp_path: Path) -> None:
    cpus = [[LINE % (7 + cpu, cpu, 1, 10 * n + cpu, 100 * cpu + n) for n in range(5)] for cpu in range(3)]
    sorted_lines = [cpus[cpu][n] for n in range(5) for cpu in range(3)]
    expected, facts = ordered(tmp_path, "".join(sorted_lines))
    assert not any("backwards" in note for note in facts.notes)
    for order in ((2, 1, 0), (0, 2, 1), (0, 1, 2)):
        found, facts = ordered(tmp_path, "# tracer: nop\n".join(["", *("".join(cpus[cpu]) for cpu in order)]))
        assert found == expected
        assert any("put in order by time" in note for note in facts.notes)
        assert not unknown(facts)


def test_a_cpu_whose_time_runs_backwards_is_said(tmp_path: Path) -> None:
    found, facts = ordered(tmp_path, LINE % (7, 1, 2, 0, 1) + LINE % (7, 0, 1, 0, 2) + LINE % (7, 1, 1, 0, 3))
    assert [folio for _, folio in found] == [1, 2, 3]
    assert unknown(facts) == ["time runs backwards on CPU 1, from 2.000000000 to 1.000000000: the order of events is "
                              "not known"]


def test_a_text_too_long_to_be_put_in_order_is_said(tmp_path: Path) -> None:
    found, facts = ordered(tmp_path, LINE % (7, 1, 2, 0, 1) + LINE % (7, 0, 1, 0, 2), held_rows=1)
    assert [folio for _, folio in found] == [1, 2]
    assert "too long to be put in order" in unknown(facts)[0]


def imported(tmp_path: Path, text: str | bytes) -> tuple[list[tuple[int, int]], RunFacts]:
    """Return (stamp in ns, folio) of each event of a file, as imported."""
    path = tmp_path / "trace.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    facts = RunFacts()
    rows = np.concatenate([block.columns() for block in textevents.stream(path, facts)], axis=1)
    at = {name: index for index, name in enumerate(schema.column_names())}
    return list(zip(rows[at["ts"]].tolist(), rows[at["folio"]].tolist(), strict=True)), facts


STORE = "store: (zswap_store+0x4/0xcd0) folio=0x%x swp=0x1"
REPORTED = ("            task-100     [000] ...2.    11.171384: <stack trace>\n => zswap_store\n => swap_writeout\n",
            "            task-100     [000] ...2.    11.171384: <user stack trace>\n =>  <00007f2a>\n => ??\n",
            "            task-100     [000] ...2.    11.171384: kernel_stack:         <stack trace >\n"
            "=> zswap_store (ffffffff81725254)\n=> [FTRACE TRAMPOLINE]\n")


@pytest.mark.parametrize("stack", REPORTED)
def test_stack_traces_are_passed_over(stack: str, tmp_path: Path) -> None:
    line = "            task-100     [000] ...2.    11.171384: " + STORE % 7 + "\n"
    head = "# tracer: nop\n#\n# entries-in-buffer/entries-written: %d/%d   #P:1\n#\n"
    found, facts = imported(tmp_path, head % (4, 4) + (line + stack) * 2)
    assert found == [(11171384000, 7)] * 2
    assert [loss["lost"] for loss in facts.losses] == [0]
    _, facts = imported(tmp_path, head % (5, 5) + (line + stack) * 2)
    assert [loss["lost"] for loss in facts.losses] == [0, 1]


@pytest.mark.parametrize(("line", "stamp", "clock"), [
    ("    task-100       0...2. 2766us : ", 2766000, "latency"),
    ("    task     100   0...2. 2766us : ", 2766000, "latency"),
    ("    task-100       0d.h3. 2766us!: ", 2766000, "latency"),
    (" a-1 b 2-100      11d.h3. 2766us+: ", 2766000, "latency"),
    ("[   20.200000]     task-100       0...1. 11168452us : ", 11168452000, "latency"),
    ("<4>[   20.200000][ T100]     task-100       0...1. 11168452us : ", 11168452000, "latency"),
    ("            task-100   [000]  11171218000: ", 11171218000, "raw"),
    ("            task-100   [000] d..2.  99: ", 99, "raw"),
    ("inst:       task-100   [000]  123456789012345678: ", 123456789012345678, "raw"),
    ("            task-100   [000] ...2. 11.171218: ", 11171218000, "")])
def test_other_heads_of_a_line(line: str, stamp: int, clock: str, tmp_path: Path) -> None:
    text = "".join(f"{line}{STORE % n}\n" for n in range(3))
    assert sniff_text(text.encode())
    for start in ("", "# tracer: nop\n#\n"):
        found, facts = imported(tmp_path, start + text)
        assert found == [(stamp, n) for n in range(3)]
        assert (facts.clock, facts.stamps) == (clock, "raw" if clock == "raw" else "")
        assert bool(clock) == any(note.startswith("stamps are") for note in facts.notes)
        assert not [loss for loss in facts.losses if loss["lost"] != 0]


def test_the_text_of_an_oops(tmp_path: Path) -> None:
    log = "[   20.1] x\n[   20.100000] Dumping ftrace buffer:\n[   20.100000] ---------------------------------\n"
    line = "[   20.200000]     task-100       0...1. 11168452us : %s\n"
    found, facts = imported(tmp_path, log + line % (STORE % 1) + line % "<stack trace>" + line % (STORE % 2))
    assert found == [(11168452000, 1), (11168452000, 2)]
    assert [loss["unparsed_lines"] for loss in facts.losses if "unparsed_lines" in loss] == [1]


@pytest.mark.parametrize(("text", "where"), [
    ("# tracer: function_graph\n#\n 0)               |  zswap_store() {\n", "line 3: cannot be read"),
    ("# tracer: nop\n" + "c-1 [000] ...1. 1.000001: sched_switch: a=1\n" * 2, "its events are sched_switch)")])
def test_a_text_without_a_known_event_says_what_it_has(text: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(text)
    with pytest.raises(BadInput, match=re.escape(where)):
        import_source(path, tmp_path / "rec")


@pytest.mark.parametrize(("event", "fields", "known"), [
    ("zswap_store", "ret=1", "zswap_store_ret"), ("zswap_store", "folio=0x1", "zswap_store"),
    ("zs_get_total_pages", "ret=5", "zs_get_total_pages_ret"), ("obj_cgroup_may_zswap", "ret=1", "obj_cgroup_may_zswap_ret"),
    ("obj_cgroup_may_zswap", "objcg=1", None), ("zs_malloc_ret", "handle=0x1", "zs_malloc_ret"), ("store", "ret=1", "zswap_store")])
def test_a_return_that_bears_the_bare_name_tells_by_its_value(event: str, fields: str, known: str | None, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(f"c-1 [000] ...1. 1.000001: {event}: (a+0x1 <- b) {fields}\n" + "c-1 [000] ...1. 1.000002: load: swp=0x1\n")
    import_source(path, tmp_path / "rec")
    manifest = open_recording(tmp_path / "rec").manifest
    assert set(manifest["probes"]) - {"zswap_load"} == ({known} if known else set())
    assert any(note == f"events that zreplay does not know were left out: {event}" for note in manifest["notes"]) == (known is None)


def test_two_events_of_one_function_are_said(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    line = "c-1 [000] ...1. 1.000001: %s: (zswap_store+0x4/0xcd0) folio=0x1 swp=0x1\n"
    path.write_text(line % "store" + line % "zswap_store")
    facts = RunFacts()
    assert sum(len(block) for block in textevents.stream(path, facts)) == 2
    assert [loss["why"] for loss in facts.losses if loss["cpu"] is None] == [
        "zswap_store was recorded by several events (store, zswap_store): a call may be recorded twice"]


@pytest.mark.parametrize("payload", [b"a=18446744073709551616", b"a=-9223372036854775809", b"a=1 " * 600])
def test_payloads_that_no_event_has(payload: bytes) -> None:
    assert parse_payload(payload) is None


@pytest.mark.parametrize("count", [1, 40])
def test_lines_that_do_not_fit_their_event(count: int) -> None:
    """Few lines take the slow way, many the fast one; either leaves out the same ones."""
    good = " foo-7 [003] 1.{:06}: ev: (f) a={} b=0x2\n"
    lines = [good.format(n, n) for n in range(count)]
    lines += [" foo-7 [003] 2.000000: ev: (f) c=1\n", " foo-7 [003] 2.000001: ev: (f) b=0x1 a=1\n",
              " foo-7 [003] 2.000002: ev: (f) a=x b=0x1\n", " foo-7 [003] 2.000003: ev: (f) a=1 c=3\n",
              " foo-7 [003] 2.000004: ev: (f) a=18446744073709551616 b=0x1\n", "CPU:3 [LOST EVENTS]\n",
              " foo-7 [003] 3.000000: ev: (f) a=18446744073709551615 b=-1\n",  # odd, but numbers of these fields
              " foo-7 [003] 3.000001: ev: (f g) h a=-7 b=3\n", " foo-7 [003] 3.000002: other: (f)\n"]
    got = whole("".join(lines).encode())
    assert got["fields"]["ev"] == {"a": [*range(count), -1, -7], "b": [2] * count + [(1 << 64) - 1, 3]}
    assert got["rows"] == {"ev": list(range(count + 2)), "other": [count + 2]}
    assert got["lost"] == [(count, 3, None)]
    assert [number for number, _ in got["unparsed"]] == list(range(count + 1, count + 6))
    assert got["unparsed"][0][1] == "ev: (f) c=1"


@pytest.mark.parametrize("count", [1, 40])
def test_lines_that_have_some_of_their_event_s_fields(count: int) -> None:
    """A field that a line lacks is 0 and reported, and so is a field that only some lines have."""
    lines = [f" foo-7 [003] 1.{number:06}: ev: (f) a={number} b=0x2\n" for number in range(count)]
    lines += [" foo-7 [003] 2.000000: ev: (f) a=1\n", " foo-7 [003] 2.000001: ev: (f) b=0x1\n",
              " foo-7 [003] 2.000002: ev: (f) a=1 b=0x1 c=3\n", " foo-7 [003] 3.000000: other: (f) d=1\n"]
    (chunk,) = iter_text(io.BytesIO("".join(lines).encode()))
    assert {key: values.tolist() for key, values in chunk.fields["ev"].items()} == {
        "a": [*range(count), 1, 0, 1], "b": [2] * count + [0, 1, 1]}
    assert chunk.partial == {"ev": ({"a": count + 2, "b": count + 2, "c": 1}, count + 3)}
    assert (chunk.unparsed_total, chunk.rows["ev"].tolist()) == (0, list(range(count + 3)))


def test_a_field_that_only_some_lines_have_is_not_captured(tmp_path: Path) -> None:
    text = tmp_path / "trace.txt"
    head = "# tracer: nop\n#\n"
    text.write_text(head + "".join(f"  foo-7   [000] .....  1.{n:06}: zmalloc: (zs_malloc+0x0/0x1) pool=0x10 size={n}\n"
                                   for n in range(3)) + "  foo-7   [000] .....  2.000000: zmalloc: (zs_malloc+0x0/0x1) "
                    "size=7\n  foo-7   [000] .....  2.000001: zmalloc: (zs_malloc+0x0/0x1) pool=0x10 size=7 gfp=0x1\n"
                    "  foo-7   [000] .....  3.000000: zmalloc_ret: (zs_malloc+0x0/0x1 <- f) handle=0x20\n")
    facts = RunFacts()
    assert sum(len(block) for block in textevents.stream(text, facts)) == 6
    assert facts.captured == {"zs_malloc": ["size"], "zs_malloc_ret": ["handle"]}
    assert [note for note in facts.notes if "lines" in note] == [
        "zmalloc has pool in 4 of 5 lines: zs_malloc's pool is not taken as captured",
        "zmalloc has gfp in 1 of 5 lines: zs_malloc's gfp is not taken as captured"]
    assert all(loss["lost"] == 0 for loss in facts.losses)


@pytest.mark.parametrize("line", [
    "foo-7 [003] 12345: ev: a=1", "foo-7 [003] 9999999999.000001: ev: a=1", "foo-7 [003] 1.0001: ev: a=1",
    "foo-9999999999 [003] 1.000001: ev: a=1", "foo-7 [x] 1.000001: ev: a=1", "foo-7 1.000001: ev: a=1",
    "foo-7 [003] 1.000001: ev", "\xff\xfe", "func <-parent", "foo-7 [003] 1.000001234: ev: a=1"])
def test_unparsed(line: str) -> None:
    got = one(line, " foo-7 [003] 1.000002: ev: a=1\n")
    assert len(got["events"]) == 1
    assert got["unparsed"] == [(2, line)]


def test_unparsed_is_bounded() -> None:
    got = whole(b"nonsense %s\n" % (b"x" * 1000) * 5000, 1 << 16)
    assert got["total"] == 5000
    assert len(got["unparsed"]) == 100
    assert all(len(text) <= 200 for _, text in got["unparsed"])


def test_names_are_bounded() -> None:
    got = whole(b"".join(b"foo-7 [003] 1.000002: ev%d: a=1\n" % n for n in range(3000)))
    assert len(got["events"]) == 1024
    assert got["total"] == 3000 - 1024


@pytest.mark.parametrize("keep", range(1, 94, 7))
def test_cut_off_last_line(keep: int) -> None:
    """However much is left of it: a value may have lost digits, so the line is not used."""
    last = KERNEL.splitlines(keepends=True)[-1]
    got = whole(KERNEL[:-len(last)] + last.rstrip(b"\n")[:keep])
    assert len(got["events"]) == 4
    blank = not last[:keep].strip()
    assert got["cut_off"] == (not blank)
    assert got["total"] == (not blank)


def test_windows_line_ends() -> None:
    assert whole(KERNEL.replace(b"\n", b"\r\n")) == whole(KERNEL)


def test_overlong_lines_take_no_memory() -> None:
    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.left = 256 << 20

        def read(self, size: int = -1, /) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return b"x" * size

    tracemalloc.start()
    chunks = list(iter_text(cast(BinaryIO, Endless()), 1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(len(chunk.ts) for chunk in chunks) == 0
    assert chunks[-1].unparsed_total == 1
    assert peak < 16 << 20
    text = KERNEL + b"y" * 200_000 + b"\n" + KERNEL
    for size in (1000, 1 << 20):
        got = whole(text, size)
        assert len(got["events"]) == 10
        assert [number for number, _ in got["unparsed"]] == [KERNEL.count(b"\n") + 1]


@pytest.mark.parametrize("line", [
    b"a" * 60000, b" " * 60000, b"-1 " * 20000, b"a-1" + b" " * 60000, b"a-1 [1] " + b" " * 60000,
    b"x-1 (" * 12000, b": " * 30000, b"a: " * 20000, b"a-1 [000] 1.000000: e: " + b"a={" * 15000,
    b"a-1 [000] 1.000000: e: " + b'a="' * 15000, b"a-1 [000] 1.000000: e: " + b"(" * 50000,
    b"a-1 [000] 1.000000: e: " + b"=" * 50000, b"a-1 [000] 1.000000: e: " + b"a=1" * 15000,
    b"a-1 [000] 1.000000: e: " + b"a=1 " * 510, b"a-1 [000] 1.000000: e: " + b" " * 50000,
    b"a-1 [000] " + b"1" * 50000, b"CPU:" * 15000, b"[LOST" * 12000], ids=lambda line: line[:24].decode())
def test_nothing_takes_long(line: bytes) -> None:
    """Lines made to let expressions try every way to match: 1.2 MB in well under the time of a backtracker."""
    for text in ((line + b"\n") * 20, b"a-1 [000] 1.000000: e: a=1\n" * 20 + (line + b"\n") * 20):
        start = time.perf_counter()
        whole(text)
        sniff_text(text)
        assert time.perf_counter() - start < 5


def test_compressed(tmp_path: Path) -> None:
    two_frames = zstd.compress(KERNEL[:500]) + zstd.compress(KERNEL[500:])
    for content in (KERNEL, zstd.compress(KERNEL), two_frames, gzip.compress(KERNEL)):
        assert sniff_text(content)
        path = tmp_path / "named.anyhow"
        path.write_bytes(content)
        assert len(next(iter_text(path)).ts) == 5
        assert len(next(iter_text(str(path))).ts) == 5
        assert whole(content) == whole(KERNEL)


@pytest.mark.parametrize("compress", [zstd.compress, gzip.compress])
def test_damaged_compression(compress: Any, tmp_path: Path) -> None:
    path = tmp_path / "text"
    packed = bytearray(compress(TRACECMD * 1000))
    for damaged in (packed[:-20], packed[:40] + b"\xff" * 30 + packed[70:], packed[:6]):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match="cannot be read further") as caught:
            list(iter_text(path))
        assert str(path) in str(caught.value)
    # A window of 128 MiB, as --long=27 asks for.
    wide = zstd.compress(b"x", options={zstd.CompressionParameter.window_log: 27,
                                        zstd.CompressionParameter.content_size_flag: 0})
    path.write_bytes(wide[:5] + b"\x88" + wide[6:])
    with pytest.raises(BadInput):
        list(iter_text(path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(iter_text(tmp_path / "none"))
    assert list(iter_text(io.BytesIO(b""))) == []


def test_sniff() -> None:
    for text in (KERNEL, TRACECMD, b"cpus=1\n", b"\n\nfoo-7 [003] 1.000002: ev: a=1\n"):
        assert sniff_text(text)
    for other in (b"", b"x", b"\x17\x08\x44tracing6\0", b"{}", b"# comment\n", b"\0" * 100, os.urandom(4096),
                  KERNEL + b"\0", b"\x28\xb5\x2f\xfd" + b"\xff" * 100, b"\x1f\x8b" + b"\xff" * 100):
        assert not sniff_text(other)
    # A zstd block that is not whole says nothing.
    assert sniff_text(zstd.compress(os.urandom(100)) + zstd.compress(KERNEL)) is False


# Properties.

names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
values = st.one_of(st.integers(-1 << 63, (1 << 63) - 1).map(lambda n: (n, str(n), "i")),
                   st.integers(0, (1 << 64) - 1).map(lambda n: (n, hex(n), "u")))
comm_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=15)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Any], list[str]]:
    """Events (ts in us, cpu, pid, comm, name, {key: value}) and their payloads as text."""
    kinds = draw(st.dictionaries(names.filter(lambda name: name not in ftracetext._TEXT_EVENTS),
                                 st.dictionaries(names, st.sampled_from("iu"), max_size=4), min_size=1, max_size=3))
    events, payloads = [], []
    for _ in range(draw(st.integers(0, 50))):
        name = draw(st.sampled_from(sorted(kinds)))
        fields = {}
        for key, kind in kinds[name].items():
            fields[key] = draw(st.integers(0, (1 << 64) - 1) if kind == "u" else st.integers(-1 << 63, (1 << 63) - 1))
        payloads.append(" ".join(f"{key}={hex(value) if kinds[name][key] == 'u' else value}"
                                 for key, value in fields.items()))
        events.append((draw(st.integers(0, 10**15)), draw(st.integers(0, 8191)), draw(st.integers(0, 4194304)),
                       draw(comm_text), name, fields))
    return events, payloads


@settings(max_examples=150, deadline=None)
@given(recordings(), st.sampled_from(["kernel", "report", "raw"]), st.integers(1, 400))
def test_what_is_printed_is_read(recording: tuple[list[Any], list[str]], style: str, chunk_bytes: int) -> None:
    events, payloads = recording
    # A comm that looks like the rest of a line, as "a-1 [0] 1.000000: b", cannot be distinguished from one.
    lines = ["# tracer: nop" if style == "kernel" else "cpus=1"]
    for (ts, cpu, pid, comm, name, _), payload in zip(events, payloads, strict=True):
        stamp = f"{ts // 10**6:5}.{ts % 10**6:06}"
        lines.append({"kernel": f"{comm:>16}-{pid:<7} [{cpu:03}] ...2. {stamp}: {name}: (f+0x4/0xf0 <- g) {payload}",
                      "report": f"{comm:>16}-{pid:<5} [{cpu:03}] {stamp}: {name:20} {payload}".replace(
                          f"{name:20}", f"{name}: ".ljust(22)),
                      "raw": f"zmeta: {comm:>16}-{pid:<5} [{cpu:03}] {stamp}000: {name}:   __probe_ip=f {payload}",
                      }[style])
    got = whole(("\n".join(lines) + "\n").encode(), chunk_bytes)
    assert got["total"] == 0
    assert got["events"] == [(ts * 1000, cpu, pid, name) for ts, cpu, pid, _, name, _ in events]
    for name, columns in got["fields"].items():
        columns.pop("__probe_ip", None)
        expected = [fields for *_, kind, fields in events if kind == name]
        assert columns == {key: [fields[key] for fields in expected] for key in expected[0]}
    assert got["comms"] == {pid: comm for _, _, pid, comm, _, _ in events}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([
    b"(f+0x4/0x8) a=1 b=0x2", b"(f) a=-1 b=0x3", b"a=1 b=0x2", b"a=1 b=2", b"a=0x1 b=0x2", b"b=0x2 a=1", b"a=1", b"",
    b"a=12345678901234567890 b=0x1", b"a=x b=0x1", b"a=1 b={0x1,0x2}", b'a=1 c="x y" b=0x1', b"  a=1   b=0x2  ",
    b"a=1 => b=0x2", b"a=1 ==> b=0x2", b"(f a=1 b=0x2", b"a=1 b=0x2 w", b"a=1 a=2 b=0x2", b"k=v a=1 b=0x2",
    b"__probe_ip=12 a=1", b"__probe_ip=ffff a=1", b"a=1 b=0x11112222333344445", b"x"]), min_size=1, max_size=40))
def test_fast_and_slow_way_agree(payloads: list[bytes]) -> None:
    text = b"".join(b"foo-7 [003] 1.%06d: ev: %s\n" % (n, payload) for n, payload in enumerate(payloads))
    with pytest.MonkeyPatch.context() as patch:
        results = []
        for threshold in (1, 1 << 30):
            patch.setattr(ftracetext, "_WORTH_COMPILING", threshold)
            results.append(whole(text))
    assert results[0] == results[1]


def survive(text: bytes, chunk_bytes: int) -> None:
    compressed = text[:2] in (b"\x28\xb5", b"\x1f\x8b")
    tracemalloc.start()
    try:
        got = whole(text, chunk_bytes)
        assert compressed or len(got["events"]) + got["total"] <= text.count(b"\n") + 1
    except BadInput:
        assert compressed
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20
    sniff_text(text)


BASES = [KERNEL, TRACECMD, zstd.compress(KERNEL), gzip.compress(KERNEL)]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"", b"# tracer: nop\n", b"cpus=1\n", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08\0\0\0\0\0\0\3"]),
       st.one_of(st.binary(max_size=3000), st.text(
           st.sampled_from("ab-: [](){}=\"0123456789xf.,\n"), max_size=500).map(str.encode)), st.integers(1, 100))
def test_random_bytes(start: bytes, body: bytes, chunk_bytes: int) -> None:
    survive(start + body, chunk_bytes)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BASES), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6),
       st.floats(0, 1), st.integers(1, 2000))
def test_flipped_and_cut(text: bytes, flips: list[tuple[float, int]], keep: float, chunk_bytes: int) -> None:
    damaged = bytearray(text[:int(keep * len(text))])
    for place, value in flips if damaged else []:
        damaged[int(place * len(damaged))] ^= value
    survive(bytes(damaged), chunk_bytes)


# Real text.

def counts(source: Path | io.BytesIO) -> tuple[Counter[str], list[TextChunk]]:
    chunks = list(iter_text(source))
    return Counter({name: sum(len(chunk.rows.get(name, ())) for chunk in chunks)
                    for name in chunks[-1].names}), chunks


@needs_sample
def test_real_kernel_text() -> None:
    found, chunks = counts(SAMPLE / "zmeta.txt.zst")
    lines = zstd.decompress((SAMPLE / "zmeta.txt.zst").read_bytes()).splitlines()
    plain = Counter(line.split()[4].decode().rstrip(":") for line in lines if not line.startswith(b"#"))
    assert found == plain
    assert chunks[-1].entries == (136348, 136348)
    assert (chunks[-1].unparsed_total, sum(found.values())) == (0, 136348)
    assert all((np.diff(chunk.ts) >= 0).all() for chunk in chunks)
    marks = [text for chunk in chunks for text in chunk.strings.get("tracing_mark_write", [])]
    assert marks[0] == "phase out1"


@needs_sample
@needs_tracecmd
@pytest.mark.parametrize("options", [["-R"], ["-R", "-t"], ["-l"], []], ids=" ".join)
def test_real_text_is_what_tracecmd_reports(options: list[str]) -> None:
    """The kernel's text and trace-cmd's of the same events: same counts, same stamps, same fields."""
    report = subprocess.run(["trace-cmd", "report", *options, "-i", SAMPLE / "trace.dat"], check=True,
                            capture_output=True).stdout
    kernel, kernel_chunks = counts(SAMPLE / "zmeta.txt.zst")
    tracecmd, chunks = counts(io.BytesIO(report))
    plain = Counter(match.decode() for match in re.findall(rb"^[^\n]*?\d\.\d+: +([a-z_]+): ", report, re.M))
    assert tracecmd == plain
    kernel["print"] = kernel.pop("tracing_mark_write")
    assert kernel == tracecmd

    def column(parts: list[TextChunk], name: str, key: str) -> Any:
        return np.concatenate([part.fields[name][key] for part in parts if name in part.fields]).tolist()

    stamps = np.concatenate([chunk.ts for chunk in chunks])
    assert (np.concatenate([chunk.ts for chunk in kernel_chunks]) == (stamps + 500) // 1000 * 1000).all()
    assert chunks[-1].ts_unit_ns == (1 if "-t" in options else 1000)
    printed = {(name, key) for chunk in kernel_chunks for name in chunk.fields for key in chunk.fields[name]}
    assert len(printed) > 60
    for event, field in printed:
        assert column(kernel_chunks, event, field) == column(chunks, event, field)
