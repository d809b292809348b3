# SPDX-License-Identifier: GPL-2.0-or-later
"""perf text gives the rows that ftrace text of the same events gives; damage is counted, never swallowed."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traces import open_recording, schema
from traces.errors import BadInput
from traces.importers import perftext, textevents
from traces.importers.directory import import_source
from traces.importers.filetype import classify
from traces.importers.rewrittentext import Rewritten
from traces.importers.source import RunFacts

COLUMN = {name: index for index, name in enumerate(schema.column_names())}
#: as perf 6.1 prints them, on a 7.3 kernel
DEFAULT = b"""\
     guest.py   136 [000]     9.803915:        z:store: (ffffffff816d5de4) folio=0xffffea0000a51d80 fl=0x17ffffc0060209 swp=0x2 fl1=0x0
     guest.py   136 [000]     9.803922:      z:zmalloc: (ffffffff816f2fb4) pool=0xffff888006306000 size=2282 gfp=0x14052c2
     guest.py   136 [000]     9.803931:  z:zmalloc_ret: (ffffffff816d4e3d <- ffffffff816f2fb4) handle=0xffff888007486e60 obj=0x174bc0480000 size=2282
     guest.py   136 [000]     9.803940:    z:store_ret: (ffffffff8164e5b2 <- ffffffff816d5de4) ret=1
kworker/0:1-ev    12 [001]     9.900000:    z:shrink_cb: (ffffffff816d2f04) item=0xffff88800748a020
"""
STATS = b"Aggregated stats:\n           TOTAL events:       2005\n            MMAP events:        105  ( 5.2%)\n"


def rows_of(data: bytes, reader=perftext.stream) -> tuple[np.ndarray, list[str], RunFacts]:
    """Return all rows, the markers' texts and the facts of a text."""
    facts = RunFacts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text"
        path.write_bytes(data)
        blocks = list(reader(path, facts))
    return (np.concatenate([b.columns() for b in blocks], axis=1) if blocks else np.zeros((len(COLUMN), 0), np.int64),
            [text for b in blocks for _, text in b.texts], facts)


def column(rows: np.ndarray, name: str) -> list[int]:
    return rows[COLUMN[name]].tolist()


def names(rows: np.ndarray) -> list[str]:
    return [schema.NAMES[code] for code in column(rows, "event")]


def test_default_fields() -> None:
    rows, _, facts = rows_of(DEFAULT + STATS)
    assert names(rows) == ["zswap_store", "zs_malloc", "zs_malloc_ret", "zswap_store_ret", "shrink_memcg_cb"]
    assert column(rows, "ts") == [9803915000, 9803922000, 9803931000, 9803940000, 9900000000]
    assert column(rows, "pid") == [136] * 4 + [12]
    assert column(rows, "cpu") == [0] * 4 + [1]
    assert column(rows, "size") == [0, 2282, 2282, 0, 0]
    assert rows[COLUMN["handle"], 2].view(np.uint64) == 0xFFFF888007486E60
    assert column(rows, "swpent")[0] == 2
    assert facts.comms == {136: "guest.py", 12: "kworker/0:1-ev"}
    assert facts.ts_unit_ns == 1000
    assert [loss["lost"] for loss in facts.losses] == [0, 0]
    assert facts.captured["zs_malloc"] == ["gfp", "pool", "size"]


@pytest.mark.parametrize(("line", "pid", "cpu", "ts"), [
    (b"guest 136 [002] 9.803915217: z:inval: (ffff) swp=0x7", 136, 2, 9803915217),
    (b"guest 130/136 [002] 9.803915: z:inval: (ffff) swp=0x7", 136, 2, 9803915000),
    (b"  130/136 9.803915: z:inval: (ffff) swp=0x7", 136, 0, 9803915000),
    (b"136 9.803915: z:inval: (ffff) swp=0x7", 136, 0, 9803915000),
    (b"a b 1 136 [002] 9.803915:          1 z:inval: (ffff) swp=0x7", 136, 2, 9803915000),
    (b"a: b 136 [002] 9.803915: zz:inval:k: (ffff) swp=0x7", 136, 2, 9803915000),
    (b":-1    -1 [002] 9.8: z:inval: (ffff) swp=0x7\n9 [002] 9.803915: z:inval: swp=0x7", 9, 2, 9803915000),
    (b"x 136 [002] 9.803915: probe:zswap_invalidate: (ffff) swp=0x7", 136, 2, 9803915000),
])
def test_variants_of_the_line(line: bytes, pid: int, cpu: int, ts: int) -> None:
    rows, _, _ = rows_of(line + b"\n")
    assert names(rows) == ["zswap_invalidate"]
    assert [column(rows, name) for name in ("pid", "cpu", "ts", "swpent")] == [[pid], [cpu], [ts], [7]]


def test_names_of_perf_probe() -> None:
    rows, _, _ = rows_of(b"x 1 [000] 1.000000: probe:zswap_store: (f) folio=0x10 swp=0x3\n"
                         b"x 1 [000] 1.000001: probe:zswap_store__return: (f <- e) ret=0x1\n"
                         b"x 1 [000] 1.000002: probe:zs_malloc__return: (f <- e) handle=0xffff888000000008\n")
    assert names(rows) == ["zswap_store", "zswap_store_ret", "zs_malloc_ret"]
    assert column(rows, "ret") == [0, 1, 0]


def test_call_chains_and_comments_are_passed_over() -> None:
    rows, _, facts = rows_of(b"# ========\n# captured on    : Fri\n\n" + b"\n".join(
        line + b"\n\tffffffff816d5de4 zswap_store+0x4 ([kernel.kallsyms])\n\t    7f00 [unknown] (/bin/x)\n"
        for line in DEFAULT.splitlines()) + STATS)
    assert len(names(rows)) == 5
    assert facts.notes == []


@pytest.mark.parametrize("frame", [
    b"        ffffffff816d5de4 zswap_store+0x4 ([kernel.kallsyms])\n  zswap.c:1432\n",
    b"        ffffffff816d5de4 zswap_store+0x4 ([kernel.kallsyms])\n  mm/zswap.c:1432 (discriminator 3)\n",
    b"        ffffffff816d5de4 zswap_store+0x4\n  ??:?\n",
    b"            7f3d11a0 operator==(a const&)+0x10 (/usr/lib/libx=1.so)\n  /a b/c.cc:12\n"])
def test_call_chains_with_lines_of_source_are_passed_over(frame: bytes) -> None:
    lines = DEFAULT.splitlines(keepends=True)
    rows, _, facts = rows_of(frame.join(lines) + STATS)
    assert np.array_equal(rows, rows_of(DEFAULT + STATS)[0])
    assert not [loss for loss in facts.losses if loss["lost"] != 0]


@pytest.mark.parametrize("line", [b"   beef 136 [000]  9.803915: z:store (ffffffff816d5de4)\n",
                                  b"   x 136 [000]  9.803915: z:12\n"])
def test_a_damaged_event_is_no_frame_of_a_chain(line: bytes) -> None:
    _, _, facts = rows_of(DEFAULT + line + STATS)
    assert [loss["unparsed_lines"] for loss in facts.losses if "unparsed_lines" in loss] == [1]


def test_differences_of_time_are_added_up() -> None:
    text = (b"a 1 [000] 0.000000: z:store: (ffff) folio=0x1\n" b"a 1 [000] 5.000002: z:zmalloc: (ffff) size=1\n"
            b"a 1 [001] 0.000003: cycles: 12\n" b"a 1 [001] 0.000004: z:store_ret: (ffff <- ffff) ret=1\n"
            b"a 1 [001] 0.000000: PERF_RECORD_LOST lost 3\n" b"a 1 [000] 0.000001: z:load: (ffff) folio=0x2\n")
    rows, _, facts = rows_of(text)
    assert column(rows, "ts") == [0, 5000002000, 5000009000, 5000010000, 5000010000]
    assert [name for name in names(rows) if name != "lost_events"] == [
        "zswap_store", "zs_malloc", "zswap_store_ret", "zswap_load"]
    assert any("--deltatime" in note for note in facts.notes)


def test_time_that_begins_at_0_and_never_runs_backwards_is_no_difference() -> None:
    rows, _, facts = rows_of(b"a 1 [000] 0.000000: z:store: (ffff) folio=0x1\n"
                             b"a 1 [000] 5.000002: z:zmalloc: (ffff) size=1\n" + STATS)
    assert column(rows, "ts") == [0, 5000002000]
    assert not any("--deltatime" in note for note in facts.notes)


def test_losses_are_counted_where_they_happened() -> None:
    lost = b"swapper     0 [001]     9.803935: PERF_RECORD_LOST lost 12\n"
    lines = DEFAULT.splitlines(keepends=True)
    rows, _, facts = rows_of(b"".join(lines[:3]) + lost + b"".join(lines[3:]))
    assert names(rows).index("lost_events") == 3
    assert column(rows, "ret")[3] == 12
    assert {loss["cpu"]: loss["lost"] for loss in facts.losses} == {0: 0, 1: 12}


@pytest.mark.parametrize(("tail", "unknown"), [
    (b"", True), (STATS, False), (STATS + b"            LOST events:          2\n", True),
    (STATS + b"z:store stats:\n          SAMPLE events:       1900\n", False)])
def test_silence_about_losses_is_no_loss_of_none(tail: bytes, unknown: bool) -> None:
    _, _, facts = rows_of(DEFAULT + tail)
    assert (None in [loss["lost"] for loss in facts.losses]) == unknown
    assert bool(facts.notes) == unknown


def test_lines_that_cannot_be_read_are_counted_with_their_number() -> None:
    _, _, facts = rows_of(DEFAULT + b"nonsense\n" + DEFAULT + STATS)
    assert any("1 lines could not be parsed, the first is line 6: ? nonsense" in note for note in facts.notes)
    assert None in [loss["lost"] for loss in facts.losses]


def test_a_line_cut_off_is_never_trusted() -> None:
    rows, _, facts = rows_of(DEFAULT + b"x 136 [002] 9.803915: z:inval: (ffff) swp=0x7")
    assert len(names(rows)) == 5
    assert "the last line is cut off" in facts.notes


def test_an_event_of_ftrace_text_inside_perf_text_is_not_taken() -> None:
    rows, _, facts = rows_of(DEFAULT + b"python3-1 [000] 1.000000: inval: (x) swp=0x7\n" + STATS)
    assert len(names(rows)) == 5
    assert any("could not be parsed" in note for note in facts.notes)


def test_text_without_events_is_one_sentence() -> None:
    with pytest.raises(BadInput, match="has no probe event with its task and time"):
        rows_of(b"guest.py z:store: (ff) folio=0x0\n")


def test_import_by_content(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "whatever.log").write_bytes(gzip.compress(DEFAULT + STATS))
    assert classify(tmp_path / "in" / "whatever.log") == "perftext"
    summary = import_source(tmp_path / "in", tmp_path / "out")
    recording = open_recording(tmp_path / "out")
    assert recording.manifest["source"]["importer"] == "perftext"
    assert len(recording) == 5
    assert summary


# ---- properties ---------------------------------------------------------------------------------------------

PROBES = {"store": ("folio", "fl", "swp", "fl1"), "zmalloc": ("pool", "size", "gfp"), "inval": ("swp",),
          "zmalloc_ret": ("handle", "obj", "size"), "store_ret": ("ret",), "shrink_cb": ("item",),
          "comp_ret": ("ret", "dlen"), "elsewhere": ("a", "b")}


@st.composite
def events(draw: st.DrawFn) -> list[tuple[str, int, int, int, str, list[tuple[str, str]]]]:
    word = st.integers(0, (1 << 64) - 1).map(hex) | st.integers(-(1 << 31), (1 << 31) - 1).map(str)
    comm = st.text(st.characters(codec="ascii", exclude_categories=["C"], exclude_characters="\n"), max_size=15)
    out, ts = [], 0
    for _ in range(draw(st.integers(1, 40))):
        ts += draw(st.integers(0, 10**7))
        name = draw(st.sampled_from(sorted(PROBES)))
        values = [(key, draw(word)) for key in PROBES[name]]
        task = draw(comm.map(str.strip).filter(lambda c: not c or not c[0].isspace()))
        out.append((task.replace(": ", ":_"), draw(st.integers(0, 99999)), draw(st.integers(0, 63)), ts, name, values))
    return out


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events(), st.booleans())
def test_the_same_rows_as_ftrace_text(some: list, nanoseconds: bool) -> None:
    unit = 1 if nanoseconds else 1000
    ftrace, perf = [], []
    for comm, pid, cpu, ticks, name, values in some:
        seconds, rest = divmod(ticks * unit, 10**9)
        digits = f"{seconds}.{rest:09d}" if nanoseconds else f"{seconds}.{rest // 1000:06d}"
        payload = "(ffff <- eeee) " + " ".join(f"{key}={value}" for key, value in values)
        ftrace.append(f"{comm}-{pid} [{cpu:03d}] {digits}: {name}: {payload}\n")
        perf.append(f"{comm:>16s} {pid:5d} [{cpu:03d}] {digits:>12s}: {'z:' + name:>20s}: {payload}\n")
    expected, _, before = rows_of("".join(ftrace).encode(), textevents.stream)
    got, _, after = rows_of("".join(perf).encode() + STATS)
    assert np.array_equal(got, expected)
    assert after.captured == before.captured
    assert after.ts_unit_ns == before.ts_unit_ns == unit
    assert after.losses == before.losses


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=2000), st.integers(0, len(DEFAULT)), st.integers(0, len(DEFAULT)))
def test_any_bytes_are_read_or_refused(noise: bytes, at: int, to: int) -> None:
    data = DEFAULT[:at] + noise + DEFAULT[to:]
    perftext.sniff_perf(data)
    try:
        rows, _, facts = rows_of(data)
    except BadInput:
        return
    assert rows.shape[0] == len(COLUMN)
    assert facts.losses


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300))
def test_the_size_of_chunks_does_not_matter(size: int) -> None:
    seen = perftext._Seen()
    text = DEFAULT * 3
    whole = Rewritten("x", [text], lambda line: perftext.rewrite(line, perftext._Seen())).read()
    parts = Rewritten("x", [text[i:i + size] for i in range(0, len(text), size)], lambda line: perftext.rewrite(line, seen)).read()
    assert parts == whole
    assert seen.events == 15


def test_a_line_without_end_does_not_fill_memory() -> None:
    rows, _, facts = rows_of(DEFAULT + b"x" * (1 << 20) + b"\n" + DEFAULT + STATS)
    assert len(names(rows)) == 10
    assert any("could not be parsed" in note for note in facts.notes)
