# SPDX-License-Identifier: GPL-2.0-or-later
"""bpftrace JSON: events by the printf() convention, losses, maps, damage."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay import replay
from traces import open_recording, schema
from traces.errors import BadInput
from traces.importers import bpftracejson
from traces.importers.bpftracejson import sniff_bpftrace
from traces.importers.directory import import_source
from traces.importers.filetype import classify
from traces.importers.source import RunFacts

COLUMN = {name: index for index, name in enumerate(schema.column_names())}
ATTACHED = b'{"type": "attached_probes", "data": {"probes": 5}}\n'


def printf(**event: Any) -> bytes:
    """Return a line of bpftrace for printf() of an event."""
    return json.dumps({"type": "printf", "data": json.dumps(event) + "\n"}).encode() + b"\n"


def store(ts: int, cpu: int = 0, **more: Any) -> bytes:
    return printf(ts=ts, cpu=cpu, pid=136, event="zswap_store", **more)


def rows_of(data: bytes, rows: int = 1 << 12) -> tuple[np.ndarray, list[tuple[int, str]], RunFacts]:
    facts = RunFacts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.json"
        path.write_bytes(data)
        blocks = list(bpftracejson.stream(path, facts, rows))
    return np.concatenate([b.columns() for b in blocks], axis=1), [text for b in blocks for text in b.texts], facts


def column(rows: np.ndarray, name: str) -> list[int]:
    return rows[COLUMN[name]].tolist()


def names(rows: np.ndarray) -> list[str]:
    return [schema.NAMES[code] for code in column(rows, "event")]


def lost(facts: RunFacts) -> list[int | None]:
    return [loss["lost"] for loss in facts.losses]


def test_columns_of_the_vocabulary_and_fields_of_probes() -> None:
    rows, _, facts = rows_of(
        ATTACHED + store(5, folio="0xffffea0000a51d80", swpent=2, comm="guest", nothing=7, event_id=3)
        + printf(ts=6, cpu=1, pid=137, event="zmalloc", pool=0xFFFF888006306000, size=100, gfp="0x14052c2")
        + printf(ts=7, cpu=1, pid=137, event="zmalloc_ret", handle="0xfffffffffffffff4", obj="0", size=100)
        + printf(ts=8, cpu=0, pid=136, event="store_ret", ret="-12")
        + printf(ts=9, cpu=0, pid=136, event="comp", pglink="0xffffea0000a51d82", off=0, slen=4096, room=4096))
    assert names(rows) == ["zswap_store", "zs_malloc", "zs_malloc_ret", "zswap_store_ret", "crypto_acomp_compress"]
    assert rows[COLUMN["folio"]].view(np.uint64).tolist()[0] == 0xFFFFEA0000A51D80
    assert rows[COLUMN["folio"]].view(np.uint64).tolist()[4] == 0xFFFFEA0000A51D80
    assert rows[COLUMN["pool"]].view(np.uint64).tolist()[1] == 0xFFFF888006306000
    assert column(rows, "handle")[2] == -12
    assert column(rows, "ret")[3] == -12
    assert column(rows, "pid") == [136, 137, 137, 136, 136]
    assert column(rows, "content") == [-1] * 5
    assert facts.captured["zswap_store"] == ["folio", "swpent"]
    assert facts.captured["zs_malloc"] == ["gfp", "pool", "size"]
    assert facts.comms == {136: "guest"}
    assert lost(facts) == [0, 0]
    assert facts.notes == []


NEW = b'{"type": "attached_probes", "count": 5, "data": {"probes": 5}}\n'
#: records of bpftrace 0.24 and later that say nothing of events
OTHERS = [b'{"type": "value", "data": 7}\n', b'{"type": "tseries", "data": {"@a": [[1, 2]]}}\n',
          b'{"type": "helper_error", "msg": "No such file", "helper": "x", "retcode": -2, "line": 1, "col": 2}\n',
          b'{"type": "runtime_error", "msg": "div by 0", "line": 1}\n', b'{"type": "warnf", "data": "careful"}\n',
          b'{"type": "errorf", "data": "bad", "filename": "a.bt"}\n']


@pytest.mark.parametrize("first", [ATTACHED, NEW, *OTHERS, b"Attaching 5 probes...\n", b"a.bt:1:1-2: WARNING: x\n\n" + NEW])
def test_what_newer_versions_begin_with(first: bytes, tmp_path: Path) -> None:
    text = first + store(5, swpent=2)
    assert sniff_bpftrace(text)
    rows, _, facts = rows_of(text)
    assert column(rows, "ts") == [5]
    assert lost(facts) == [0]
    path = tmp_path / "out.json"
    path.write_bytes(text)
    assert import_source(path, tmp_path / "r")["rows"] == 1


def test_errors_and_unknown_records_are_said() -> None:
    _, _, facts = rows_of(NEW + OTHERS[2] + OTHERS[5] + b'{"type": "news", "data": 1}\n' + store(1))
    assert facts.notes == ["bpftrace or its script reports 2 errors, the first: No such file",
                           "1 records of type 'news' were left out: zreplay does not know it"]


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_of_records(indent: int | None) -> None:
    text = NEW + store(5, swpent=2) + b'{"type": "lost_events", "data": {"events": 12}}\n' + store(6)
    whole = json.dumps([json.loads(line) for line in text.splitlines()], indent=indent).encode()
    assert sniff_bpftrace(whole)
    rows, _, facts = rows_of(whole)
    assert np.array_equal(rows, rows_of(text)[0])
    assert lost(facts) == [0, 12]
    _, _, facts = rows_of(whole[:-1])
    assert any(loss.get("cut_off") for loss in facts.losses)
    _, _, facts = rows_of(whole[:-1] + b", {]")
    assert any(loss["lost"] is None for loss in facts.losses)


def test_an_event_that_came_by_two_names_is_said() -> None:
    _, _, facts = rows_of(store(1, swpent=2) + printf(ts=2, cpu=0, pid=136, event="store", swp=2))
    assert [loss["why"] for loss in facts.losses if loss["lost"] is None] == [
        "zswap_store was printed by several names (store, zswap_store): a call may be recorded twice"]


def test_text_between_records_is_no_banner() -> None:
    _, _, facts = rows_of(NEW + b"text\n" + store(1))
    assert any(loss.get("unparsed_lines") == 1 for loss in facts.losses)


def test_a_field_that_only_some_lines_have_is_not_captured() -> None:
    _, _, facts = rows_of(store(1, folio=16, swpent=2) + store(2, swpent=3) + store(3, swpent=4, order=1))
    assert facts.captured == {"zswap_store": ["swpent"]}
    assert facts.notes == ["zswap_store has folio in 1 of 3 lines: it is not taken as captured",
                           "zswap_store has order in 1 of 3 lines: it is not taken as captured"]


def test_events_of_several_cpus_are_put_in_order() -> None:
    rows, _, facts = rows_of(b"".join(store(ts, ts % 2) for ts in (1, 3, 5, 7, 0, 2, 4, 6)))
    assert column(rows, "ts") == list(range(8))
    assert lost(facts) == [0, 0]


def test_what_comes_after_its_window_is_told() -> None:
    rows, _, facts = rows_of(b"".join(store(ts) for ts in (5, 6, 7, 8, 1, 9)), rows=2)
    assert column(rows, "ts") == [5, 6, 1, 7, 8, 9]
    assert lost(facts) == [0, None]
    assert "came too late" in facts.notes[0]


def test_losses_are_counted() -> None:
    rows, _, facts = rows_of(
        ATTACHED + store(1) + b'{"type": "lost_events", "data": {"events": 12}}\n' + store(2)
        + b'{"type": "lost_events", "data": {"events": 3}}\n'
        + b'{"type": "map", "data": {"@lost": {"0": 1, "1": 1}}}\n'
        + b'{"type": "map", "data": {"@lost": {"0": 4, "1": 2}}}\n{"type": "map", "data": {"@frees": 7}}\n')
    assert names(rows) == ["zswap_store", "lost_events", "zswap_store", "lost_events"]
    assert column(rows, "ret") == [0, 12, 0, 3]
    assert lost(facts) == [0, 12 + 3 + 6]
    assert facts.losses[0]["ignored_events"] == {"map @frees": 1}


def test_markers() -> None:
    rows, texts, _ = rows_of(store(1) + printf(ts=2, cpu=0, pid=1, event="marker", text="phase one"))
    assert names(rows) == ["zswap_store", "marker"]
    assert texts == [(1, "phase one")]


@pytest.mark.parametrize("bad", [
    b"garbage\n", b"{}\n", b'{"type": 5}\n', b'{"type": "printf", "data": "{\\"ts\\": 1"}\n',
    printf(ts=1, cpu=0, event="zswap_store"), printf(ts=-1, cpu=0, pid=1, event="zswap_store"),
    printf(ts=1, cpu=1 << 20, pid=1, event="zswap_store"), printf(ts=1.5, cpu=0, pid=1, event="zswap_store"),
    printf(ts=1 << 80, cpu=0, pid=1, event="zswap_store"), printf(ts=1, cpu=0, pid=1, event=7),
    b"[" * 50000 + b"\n", b'{"type": "printf", "data": "' + b"x" * (1 << 17) + b'"}\n',
    b'{"type":"printf","data":"' + b"x" * (5 << 20) + b'"}\n'], ids=range(13))
def test_lines_that_cannot_be_used_are_counted(bad: bytes) -> None:
    rows, _, facts = rows_of(store(1) + bad + store(2))
    assert len(names(rows)) == 2
    assert facts.notes[0].startswith("1 lines could not be parsed, the first is line 2")
    assert lost(facts) == [0, None]


def test_banners_and_other_lines_are_passed_over() -> None:
    rows, _, facts = rows_of(ATTACHED + b'{"type": "printf", "data": "Tracing zswap...\\n"}\n\n'
                             b'{"type": "time", "data": "12:00:00\\n"}\n{"type": "hist", "data": {"@h": []}}\n' + store(1))
    assert len(names(rows)) == 1
    assert facts.notes == []


def test_a_line_cut_off_is_never_trusted() -> None:
    rows, _, facts = rows_of(store(1) + store(2).rstrip(b"\n"))
    assert column(rows, "ts") == [1]
    assert "the last line is cut off" in facts.notes
    assert lost(facts) == [0, None]


def test_a_file_without_events_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no printf\(\) with an event"):
        rows_of(ATTACHED)


def test_import_by_content(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "log").write_bytes(ATTACHED + b"".join(store(ts, folio=8) for ts in range(10)))
    (tmp_path / "in" / "other.json").write_text('{"a": 1}')
    assert classify(tmp_path / "in" / "log") == "bpftrace"
    assert classify(tmp_path / "in" / "other.json") == "json"
    import_source(tmp_path / "in", tmp_path / "out")
    recording = open_recording(tmp_path / "out")
    assert recording.manifest["source"]["importer"] == "bpftrace"
    assert recording.frame(["folio"])["folio"].tolist() == [8] * 10


# ---- properties ---------------------------------------------------------------------------------------------

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 3), st.integers(-(1 << 63), (1 << 64) - 1)), min_size=1,
                max_size=60), st.sampled_from(["ret", "hex"]))
def test_every_event_comes_out_once_in_order(some: list[tuple[int, int, int]], how: str) -> None:
    data = b"".join(printf(ts=ts, cpu=cpu, pid=1, event="zswap_store_ret",
                           ret=value if how == "ret" or value < 0 else hex(value)) for ts, cpu, value in some)
    rows, _, facts = rows_of(data)
    expected = sorted(((ts, cpu, value - (1 << 64) * (value >= 1 << 63)) for ts, cpu, value in some),
                      key=lambda row: row[0])
    assert list(zip(column(rows, "ts"), column(rows, "cpu"), column(rows, "ret"), strict=True)) == expected
    assert sum(count or 0 for count in lost(facts)) == 0


SAMPLE = ATTACHED + b"".join(store(ts, ts % 2, folio="0x10") for ts in range(6)) + \
    b'{"type": "lost_events", "data": {"events": 12}}\n'


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(SAMPLE)), st.integers(0, len(SAMPLE)))
def test_any_bytes_are_read_or_refused(noise: bytes, at: int, to: int) -> None:
    data = SAMPLE[:at] + noise + SAMPLE[to:]
    bpftracejson.sniff_bpftrace(data)
    try:
        rows, _, facts = rows_of(data, rows=2)
    except BadInput:
        return
    assert rows.shape[0] == len(COLUMN)
    assert facts.losses


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["type", "data", "ts", "cpu", "pid", "event", "events", "@lost", "ret"]), inner,
                        max_size=4), max_leaves=12), st.sampled_from(["printf", "lost_events", "map", "other"]))
def test_any_json_is_read_or_refused(value: Any, kind: str) -> None:
    line = json.dumps({"type": kind, "data": value}).encode() + b"\n"
    rows, _, _ = rows_of(store(1) + line)
    assert "zswap_store" in names(rows)


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_calls_without_outcomes_are_no_pass(tmp_path: Path, engine: str) -> None:
    """The model's own sums hold of anything; a verdict needs a comparison with what the kernel did."""
    source = tmp_path / "out.json"
    source.write_bytes(ATTACHED + b"".join(store(ts, swpent=ts) for ts in range(1, 9)))
    import_source(source, tmp_path / "r", overrides={"release": "7.3", "compressor": "lz4", "totalram_pages": 504108})
    result = replay(open_recording(tmp_path / "r"), engine=engine)
    assert result.verdict == "UNDECIDED"
    assert [check.id for check in result.checks if check.compared] == ["invariant.balance"]
    assert result.reasons == ["nothing that the kernel did could be compared: the recording shows calls but no outcomes"]
    asked = replay(open_recording(tmp_path / "r"), engine=engine, checks=["invariant.balance"])
    assert asked.verdict == "PASS"
