# SPDX-License-Identifier: GPL-2.0-or-later
"""Exports for trace viewers: they hold what was recorded, and other readers find it there.

Perfetto's own messages come from the ``perfetto`` package; its trace processor is asked in ``test_export_perfetto.py``.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cli import main
from replay.tools.synthetic import ImaginaryKernel, config, cycle
from traces import schema
from traces.errors import BadInput
from traces.exporters import chromejson, pftrace
from traces.exporters.check import Checked, check
from traces.exporters.timeline import MARKERS, MISSING, OBJECTS, Item, Timeline
from traces.recording import Recording, RecordingWriter

FORMATS = ("json", "pftrace")
COLUMN = {name: index for index, name in enumerate(schema.column_names())}
CODE = schema.CODE


def written(recording: Recording, form: str, items: Iterator[Item] | None = None) -> bytes:
    items = items if items is not None else iter(Timeline(recording, True))
    if form == "json":
        text = io.StringIO()
        chromejson.write(items, text, "a kernel")
        return text.getvalue().encode()
    binary = io.BytesIO()
    pftrace.write(items, binary, "a kernel")
    return binary.getvalue()


def read(data: bytes, form: str) -> Iterator[Item]:
    if form == "json":
        return chromejson.read(io.StringIO(data.decode()), "export")
    return pftrace.read(io.BytesIO(data), "export")


def checked(recording: Recording, data: bytes, form: str) -> Checked:
    return check(recording, read(data, form), "export", data=True)


@pytest.fixture(scope="module")
def exports(samples: dict[str, Path]) -> dict[str, tuple[Recording, dict[str, bytes]]]:
    """Two samples, with two CPUs and with many markers, in both formats."""
    found = {}
    for name in ("7.3-zstd-smp2", "7.2-lz4-edge", "7.3-lz4-4k"):
        recording = Recording(samples[name])
        found[name] = recording, {form: written(recording, form) for form in FORMATS}
    return found


def make(path: Path, block: np.ndarray, **manifest: Any) -> Recording:
    with RecordingWriter(path) as writer:
        writer.write_rows(block)
        writer.close({**config(), **manifest})
    return Recording(path)


# ---- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_writes_and_checks(form: str, samples: dict[str, Path], tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / f"run.{form}"
    assert main(["export", str(samples["7.2-lz4-edge"]), "-o", str(output), "--check"]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    assert "1,985 events as 560 slices, 865 instants and 313 counter values" in out.out
    assert "are those of the recording" in out.out
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    before = output.read_bytes()
    assert main(["export", str(samples["7.2-lz4-edge"]), "-o", str(output)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert output.read_bytes() == before


def test_what_cannot_be_done_is_told_in_a_sentence(samples: dict[str, Path], tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    sample = str(samples["7.2-lz4-edge"])
    kernel = ImaginaryKernel()
    kernel.store(1)
    block = kernel.block()
    block[COLUMN["ts"], 0] = -5
    make(tmp_path / "early", block)
    for words, sentence in (([sample, "-o", str(tmp_path / "run.svg")], "end it in .pftrace or .json"),
                            ([sample, "-o", str(tmp_path / "no" / "run.json")], "cannot be written"),
                            ([str(tmp_path / "none"), "-o", str(tmp_path / "run.json")], "does not exist"),
                            ([str(tmp_path / "early"), "-o", str(tmp_path / "run.json")], "its time is negative")):
        assert main(["export", *words]) == 2
        err = capsys.readouterr().err
        assert sentence in err
        assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"early"}


def test_an_export_that_is_not_right_is_not_published(samples: dict[str, Path], tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    right = chromejson.write
    monkeypatch.setattr(chromejson, "write", lambda items, file, title: right(
        (item._replace(ts=item.ts + (item.kind == "instant")) for item in items), file, title))
    assert main(["export", str(samples["7.2-lz4-edge"]), "-o", str(tmp_path / "run.json"), "--check"]) == 70
    assert "this is a bug of zreplay" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---- compared with the recording by other means -----------------------------------------------------------


def rows(recording: Recording) -> list[dict[str, Any]]:
    """The recording's events by pandas, each with its captured columns."""
    frame = recording.frame()
    probes = recording.manifest["probes"]
    fields = {kind.name: kind.columns for kind in schema.EVENTS}
    found = []
    for number, row in enumerate(frame.to_dict("records")):
        columns = probes[row["event"]]["columns"] if row["event"] in probes else fields[row["event"]]
        found.append({"number": number, **{key: row[key] for key in ("ts", "cpu", "pid", "event")},
                      "args": {column: row[column] for column in columns if column not in ("content", "text")}
                      | ({"content": row["content"]} if row["content"] >= 0 else {})
                      | ({"text": row["text"]} if row["text"] else {})})
    return found


@pytest.mark.parametrize("name", ["7.3-zstd-smp2", "7.2-lz4-edge", "7.3-lz4-4k"])
def test_json_holds_every_event_for_any_reader(name: str, exports: dict[str, tuple[Recording, dict[str, bytes]]]) -> None:
    """The whole file by a plain JSON reader: tracks, numbers, times, tasks, values; slices nest on each track."""
    recording, data = exports[name]
    events = json.loads(data["json"], parse_float=Decimal)["traceEvents"]
    tids = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert all(tid == int(called.split()[-1]) for tid, called in tids.items() if called.startswith("task "))
    assert {event.get("s") for event in events if event["ph"] == "i"} == {"t"}
    found: dict[int, dict[str, Any]] = {}
    stacks: dict[int, list[str]] = {}
    for event in events:
        if event["ph"] not in "BEi":
            continue
        args = event["args"]["return"] if event["ph"] == "E" else event["args"]
        stack = stacks.setdefault(event["tid"], [])
        if event["ph"] == "B":
            stack.append(event["name"])
        elif event["ph"] == "E":
            assert stack.pop() == event["name"]
        if "event" not in args:
            assert args == {"missing": MISSING}
            continue
        number = args.pop("event")
        found[number] = {"number": number, "ts": event["ts"] * 1000, "cpu": args.pop("cpu"), "track": tids[event["tid"]],
                         "event": event["name"] + "_ret" * (event["ph"] == "E"), "task": args.pop("task", None),
                         "args": {key: int(held, 16) if isinstance(held, str) and held.startswith("0x") else held
                                  for key, held in args.items()}}
    assert not any(stacks.values())
    expected = rows(recording)
    assert len(found) == len(expected)
    for row in expected:
        each = found[row["number"]]
        assert {key: each[key] for key in ("ts", "cpu", "event", "args")} == {
            key: row[key] for key in ("ts", "cpu", "event", "args")}
        if row["event"] in ("marker", "counters", "param", "lost_events"):
            assert (each["track"], each["task"]) == (MARKERS, row["pid"])
        else:
            assert each["track"] == (f"task {row['pid']}" if row["pid"] else f"idle, CPU {row['cpu']}")


@pytest.mark.parametrize("name", ["7.3-zstd-smp2", "7.2-lz4-edge"])
def test_pftrace_holds_the_same_for_perfetto_s_own_messages(name: str,
                                                            exports: dict[str, tuple[Recording, dict[str, bytes]]]) -> None:
    protos = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2",
                                 reason="the dev dependency perfetto is not installed")
    recording, data = exports[name]
    trace = protos.Trace.FromString(data["pftrace"])
    # No field is unknown to the messages: without those it is as long as it was.
    trace.DiscardUnknownFields()
    assert trace.ByteSize() == len(data["pftrace"])
    interned = trace.packet[0].interned_data
    names = {each.iid: each.name for each in interned.event_names}
    keys = {each.iid: each.name for each in interned.debug_annotation_names}
    kinds = protos.TrackEvent
    tracks: dict[int, Any] = {}
    items: list[Item] = []

    def value(annotation: Any) -> Any:
        if annotation.dict_entries:
            return {keys[each.name_iid]: value(each) for each in annotation.dict_entries}
        return getattr(annotation, annotation.WhichOneof("value"))

    # SEQ_INCREMENTAL_STATE_CLEARED, then SEQ_NEEDS_INCREMENTAL_STATE
    assert [packet.sequence_flags for packet in trace.packet] == [1] + [2] * (len(trace.packet) - 1)
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        if packet.HasField("track_descriptor"):
            assert packet.track_descriptor.uuid not in tracks
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        if packet.HasField("track_event"):
            event = packet.track_event
            track = tracks[event.track_uuid]
            assert track.parent_uuid in tracks
            if event.type == kinds.TYPE_COUNTER:
                assert track.HasField("counter")
                items.append(Item("counter", packet.timestamp, 0, track.name, {}, event.counter_value))
                continue
            kind = {kinds.TYPE_SLICE_BEGIN: "begin", kinds.TYPE_SLICE_END: "end", kinds.TYPE_INSTANT: "instant"}[event.type]
            args = {keys[each.name_iid]: value(each) for each in event.debug_annotations}
            items.append(Item(kind, packet.timestamp, event.track_uuid - 1, names[event.name_iid],
                              args["return"] if kind == "end" else args))
    expected = [item if item.kind != "counter" else item._replace(track=0) for item in Timeline(recording, True)
                if item.kind != "track"]
    assert items == expected
    assert {track.name: track.counter.unit_name for track in tracks.values() if track.HasField("counter")} == {
        item.name: item.args["unit"] for item in Timeline(recording, True) if "unit" in item.args}


def test_counters_are_what_the_kernel_read(exports: dict[str, tuple[Recording, dict[str, bytes]]]) -> None:
    recording, data = exports["7.3-lz4-4k"]
    frame = recording.frame()
    values: dict[str, list[tuple[int, int]]] = {}
    for item in read(data["pftrace"], "pftrace"):
        if item.kind == "counter":
            values.setdefault(item.name, []).append((item.ts, item.value))
    for event, name in (("zs_get_total_pages_ret", "zs_get_total_pages"), ("zswap_total_pages_ret", "zswap_total_pages")):
        of = frame[frame.event == event]
        assert values[name] == list(zip(of.ts, of.ret, strict=True))
    snapshots = frame[frame.event == "counters"]
    stored = [int(recording.snapshot(number)["zswap_debugfs"]["stored_pages"]) for number in snapshots.ret]
    assert [value for _, value in values["zswap/stored_pages"]] == stored
    # The count from allocations and frees equals the kernel's count of stored objects at every reading.
    for ts, pages in zip(snapshots.ts, stored, strict=True):
        assert [value for at, value in values[OBJECTS] if at <= ts][-1] == pages


def test_what_is_no_number_is_no_counter(samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(samples["7.2-lz4-edge"])
    held = {"stored_pages": "\u0663", "a": "7", "b": "", "c": "-1", "d": "9" * 19, "e": None, "f": "1.0"}
    monkeypatch.setattr(Recording, "snapshot", lambda self, number: {"zswap_debugfs": held})
    items = [item for item in Timeline(recording, True) if item.kind == "counter"]
    assert {item.name for item in items if item.name.startswith("zswap/")} == {"zswap/a"}
    assert next(item.value for item in items if item.name == OBJECTS) == 1
    assert checked(recording, written(recording, "json"), "json").values == len(items)


def test_tasks_that_interleave_are_on_tracks_of_their_own(exports: dict[str, tuple[Recording, dict[str, bytes]]]) -> None:
    _, data = exports["7.3-zstd-smp2"]
    names = {}
    depth: dict[int, int] = {}
    both = deepest = 0
    for item in read(data["pftrace"], "pftrace"):
        if item.kind == "track":
            names[item.track] = item.name
        elif item.kind in ("begin", "end"):
            depth[item.track] = depth.get(item.track, 0) + (1 if item.kind == "begin" else -1)
            both += sum(held > 0 for held in depth.values()) > 1
            deepest = max(deepest, depth[item.track])
    assert {"task 118", "task 119"} <= set(names.values())
    assert both > 100
    assert deepest >= 4
    assert not any(depth.values())


# ---- what is wrong is found ------------------------------------------------------------------------------


def wrong() -> dict[str, Callable[[list[Item]], list[Item]]]:
    """Changes of a list of items that the check has to find; each is made in the middle of the list."""

    def at(kind: str, change: Callable[[Item], Item | None], args: str = "event") -> Callable[[list[Item]], list[Item]]:
        def changed(items: list[Item]) -> list[Item]:
            places = [number for number, item in enumerate(items) if item.kind == kind and
                      (kind in ("counter", "track") or args in item.args)]
            number = places[len(places) // 2]
            new = change(items[number])
            return items[:number] + ([new] if new is not None else []) + items[number + 1:]
        return changed

    def argument(key: str) -> Callable[[Item], Item]:
        return lambda item: item._replace(args={**item.args, key: item.args.get(key, 0) + 1})

    def swapped(items: list[Item]) -> list[Item]:
        number = next(number for number in range(len(items) // 2, len(items)) if items[number].kind == "begin"
                      and items[number + 1].kind in ("begin", "instant"))
        return [*items[:number], items[number + 1], items[number], *items[number + 2:]]

    def another_track(kind: str) -> Callable[[list[Item]], list[Item]]:
        def changed(items: list[Item]) -> list[Item]:
            tracks = [item.track for item in items if item.kind == "track" and item.name.startswith("task ")]
            return at(kind, lambda item: item._replace(track=next(each for each in tracks if each != item.track)))(items)
        return changed

    found: dict[str, Callable[[list[Item]], list[Item]]] = {"two events in the wrong order": swapped}
    for kind in ("begin", "end", "instant"):
        found |= {f"{kind}: time": at(kind, lambda item: item._replace(ts=item.ts + 1)),
                  f"{kind}: gone": at(kind, lambda item: None),
                  f"{kind}: name": at(kind, lambda item: item._replace(name="zs_compact")),
                  f"{kind}: number": at(kind, argument("event")), f"{kind}: CPU": at(kind, argument("cpu")),
                  f"{kind}: a column too many": at(kind, argument("order" if kind == "end" else "inuse")),
                  f"{kind}: a column too few": at(kind, lambda item: item._replace(args={
                      key: held for key, held in item.args.items() if key in ("event", "cpu")}), {
                          "begin": "size", "end": "ret", "instant": "handle"}[kind]),
                  f"{kind}: track": another_track(kind)}
    found |= {"begin: value": at("begin", argument("size"), "size"), "end: value": at("end", argument("ret"), "ret"),
              "instant: value": at("instant", argument("handle"), "handle"),
              "begin: as an instant": at("begin", lambda item: item._replace(kind="instant")),
              "end: as an instant": at("end", lambda item: item._replace(kind="instant", name=f"{item.name}_ret")),
              "end: without its return": at("end", lambda item: item._replace(args={"missing": MISSING})),
              "instant: as a slice": at("instant", lambda item: item._replace(kind="begin")),
              "counter: value": at("counter", lambda item: item._replace(value=item.value + 1)),
              "counter: time": at("counter", lambda item: item._replace(ts=item.ts + 1)),
              "counter: gone": at("counter", lambda item: None),
              "end of the export": lambda items: items[:-1],
              "twice": lambda items: items[:-1] + items[-1:] * 2}
    return found


@pytest.mark.parametrize("change", wrong())
@pytest.mark.parametrize("form", FORMATS)
def test_the_check_finds_what_is_wrong(change: str, form: str,
                                       exports: dict[str, tuple[Recording, dict[str, bytes]]]) -> None:
    recording, _ = exports["7.3-zstd-smp2"]
    items = list(Timeline(recording, True))
    data = written(recording, form, iter(wrong()[change](items)))
    with pytest.raises(BadInput, match="export"):
        checked(recording, data, form)


def test_the_check_finds_a_track_that_nothing_describes(exports: dict[str, tuple[Recording, dict[str, bytes]]]) -> None:
    recording, data = exports["7.3-zstd-smp2"]
    items = [item for item in read(data["json"], "json") if item.name != "task 118"]
    with pytest.raises(BadInput, match="on a track that nothing describes"):
        check(recording, items, "export", data=True)


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=60)
@given(at=st.floats(0, 1), change=st.binary(max_size=6), gone=st.integers(0, 6))
def test_a_damaged_file_is_told_and_nothing_else_happens(form: str, at: float, change: bytes, gone: int,
                                                         exports: dict[str, tuple[Recording, dict[str, bytes]]]) -> None:
    recording, data = exports["7.2-lz4-edge"]
    whole = data[form]
    place = int(at * len(whole))
    broken = whole[:place] + change + whole[place + gone:]
    if form == "json":
        broken = broken.decode("utf-8", "replace").encode()
    try:
        done = checked(recording, broken, form)
    except BadInput:
        return
    # A change without meaning: of a title, a space, a track's place.
    assert done == checked(recording, whole, form)


@pytest.mark.parametrize("line", [b'{"ph":"i","ts":Infinity,"tid":1,"name":"x","args":{}}', b"[]", b'"\xff"',
                                  b'{"ph":"i","ts":1e9999,"tid":1,"name":"x","args":{}}',
                                  b'{"ph":"i","ts":NaN,"tid":1,"name":"x","args":{}}',
                                  b'{"ph":"i","ts":1.000,"tid":1,"name":"x","args":[]}'])
def test_a_damaged_line_is_told(line: bytes, samples: dict[str, Path], tmp_path: Path,
                                capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    right = chromejson.write

    def damaged(items: Iterator[Item], file: Any, title: str) -> None:
        right(iter([]), file, title)
        file.flush()
        file.buffer.seek(-len("\n]}\n"), os.SEEK_END)
        file.buffer.write(b",\n" + line + b"\n]}\n")

    monkeypatch.setattr(chromejson, "write", damaged)
    assert main(["export", str(samples["7.2-lz4-edge"]), "-o", str(tmp_path / "run.json"), "--check"]) == 70
    err = capsys.readouterr().err
    assert "line 3: is not an event" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ---- recordings with gaps --------------------------------------------------------------------------------


def test_calls_without_their_return_end_where_that_shows(tmp_path: Path) -> None:
    kernel = ImaginaryKernel()
    for number in range(6):
        kernel.store(number)
    block = kernel.block()
    names = np.array([schema.NAMES[code] for code in block[COLUMN["event"]]])
    inner = np.flatnonzero(names == "zs_malloc_ret")[2]
    entry = np.flatnonzero(names == "zs_malloc")[4]
    lossy = np.delete(block, [inner, entry], axis=1)[:, :-3]
    recording = make(tmp_path / "gaps", lossy)
    timeline = Timeline(recording, True)
    items = list(timeline)
    missing = [item for item in items if item.args.get("missing")]
    # One whose return a probe missed, and those that were running at the end.
    assert missing[0].name == "zs_malloc"
    assert len(missing) == timeline.missing > 1
    lone = [item for item in items if item.kind == "instant" and item.name == "zs_malloc_ret"]
    assert len(lone) == 1
    for form in FORMATS:
        done = checked(recording, written(recording, form), form)
        assert done == Checked(len(recording), timeline.slices, timeline.instants, timeline.values, timeline.missing)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Calls of zs_malloc() without a return: the second, and one around the fourth; another task comes last."""
    kernel = ImaginaryKernel()
    for number in range(4):
        kernel.store(number)
    block = kernel.block()
    names = np.array([schema.NAMES[code] for code in block[COLUMN["event"]]])
    entries, returns = np.flatnonzero(names == "zs_malloc"), np.flatnonzero(names == "zs_malloc_ret")
    inner = block[:, entries[3]].copy()
    inner[COLUMN["ts"]] = block[COLUMN["ts"], returns[3]]
    other = block[:, np.flatnonzero(names == "obj_cgroup_may_zswap_ret")[0]].copy()
    other[COLUMN["ts"]], other[COLUMN["pid"]] = block[COLUMN["ts"], -1], 200
    block = np.delete(np.insert(block, returns[3], inner, axis=1)[:, :-1], returns[1], axis=1)
    return make(tmp_path_factory.mktemp("gaps") / "rec", np.append(block, other[:, None], axis=1))


def misplaced() -> dict[str, Callable[[list[Item]], None]]:
    """Changes of the items of ``gaps`` that keep all recorded events where they are."""

    def without(items: list[Item], name: str) -> list[int]:
        return [at for at, item in enumerate(items) if item.name == name and "missing" in item.args]

    def inside(items: list[Item]) -> None:
        at = without(items, "zs_malloc")[0]
        items[at] = items[at]._replace(ts=items[at].ts + 1)

    def at_the_end(items: list[Item]) -> None:
        items[-1] = items[-1]._replace(ts=items[-1].ts - 1)

    def early(items: list[Item]) -> None:
        place = next(at for at, item in enumerate(items) if item.name == "task 200")
        items.insert(place, items.pop()._replace(ts=items[place - 1].ts))

    def around(items: list[Item]) -> None:
        at = max(at for at, item in enumerate(items) if (item.kind, item.name) == ("end", "zs_malloc")
                 and "missing" not in item.args)
        del items[without(items, "zs_malloc")[1]]
        items.insert(at, items[at]._replace(args={"missing": MISSING}))

    def two_tracks(items: list[Item]) -> None:
        at = next(at for at, item in enumerate(items) if item.name == "obj_malloc")
        items[at:at + 2] = [Item("track", 0, 99, "task 100", {}), *(item._replace(track=99) for item in items[at:at + 2])]

    return {"inside a call": inside, "at the end": at_the_end, "before the end": early,
            "of the call inside": around, "a task on two tracks": two_tracks}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("change", misplaced())
def test_the_check_finds_ends_and_tracks_in_the_wrong_place(change: str, form: str, gaps: Recording) -> None:
    items = list(Timeline(gaps, True))
    assert [item.name for item in items if "missing" in item.args] == ["zs_malloc", "zs_malloc", "swap_writeout"]
    assert checked(gaps, written(gaps, form, iter(items)), form).missing == 3
    misplaced()[change](items)
    with pytest.raises(BadInput, match="bug of zreplay"):
        checked(gaps, written(gaps, form, iter(items)), form)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_rows_can_be_exported(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows lost at random, tasks and CPUs at random: what is written is read back as recorded."""
    kernel = ImaginaryKernel()
    for number in range(4):
        kernel.store(number)
        kernel.load(number)
    block = kernel.block()
    count = block.shape[1]
    gone = data.draw(st.sets(st.integers(0, count - 1), max_size=count // 3))
    block = np.delete(block, sorted(gone), axis=1)
    for name, low, high in (("pid", -2, 3), ("cpu", 0, 2), ("ret", -2**63, 2**63 - 1), ("handle", -2**63, 2**63 - 1),
                            ("data", -2**63, 2**63 - 1)):
        for place in data.draw(st.lists(st.integers(0, block.shape[1] - 1), max_size=20)):
            block[COLUMN[name], place] = data.draw(st.integers(low, high))
    recording = make(tmp_path_factory.mktemp("any") / "rec", block,
                     tasks={"1": data.draw(st.text(max_size=5)), "2": ", task 9\n"})
    for form in FORMATS:
        assert checked(recording, written(recording, form), form).events == len(recording)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    peaks = []
    for number, events in enumerate((40_000, 120_000)):
        recording = make(tmp_path / str(number), cycle(events))

        class Nowhere(io.BytesIO):
            def write(self, data: Any) -> int:
                return len(data)

        tracemalloc.start()
        pftrace.write(iter(Timeline(recording, True)), Nowhere(), "")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
