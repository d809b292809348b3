# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures as the recorder writes them: private, crash-safe at every byte, and imported as far as they are whole."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import stat
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import traces
from replay import replay
from tests import ringbuilder as rb
from traces.errors import BadInput
from traces.importers import import_source
from traces.importers.capture import CaptureReader
from traces.record.capture import AppendFile, CaptureWriter
from traces.record.errors import CannotRecord
from traces.record.losslines import loss_lines
from traces.record.pages import PageMode, PageTaker
from traces.record.session import say

SIZE = 256
NONE_LOST = {"overrun": 0, "commit_overrun": 0, "dropped": 0}
PAGES = [rb.page(1), rb.page(2), rb.page(1), bytes(4096)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def take(capture: CaptureWriter, how: str, key: bytes = b"k" * 32) -> PageTaker:
    """Hand the test's pages to the recorder as a CPU's ring holds them."""
    formats = {f"pg0_{half}": rb.EVENTS[f"pg{half}"].text() for half in (0, 1)}
    taker = PageTaker(PageMode(how), formats, 65536, capture.appending, key)
    records = [record for number, page in enumerate(PAGES)
               for record in rb.page_halves(1000 * number + 1100, rb.PAGE_OFFSET + 4096 * number, page,
                                            upper_first=number == 1)]
    taker(0, rb.ring(records, 65536))
    return taker


def status(complete: bool, **more: Any) -> dict[str, Any]:
    return {"zreplay_capture": 1, "complete": complete, "recorder": "0", "start": 950, "stop": 9000, "bases": {},
            "plan": [], "notes": [], "losses": {"cpus": {"0": NONE_LOST, "1": NONE_LOST}, "probes": {}}, **more}


def subbuffers(cpu: int, first: int, last: int) -> list[bytes]:
    """Events of a CPU as sub-buffers: one async_free every 100 ns, task ``cpu + 1``."""
    ring = rb.Ring(SIZE)
    for ts in range(first + cpu, last, 100):
        ring.add(ts, rb.EVENTS["async_free"].pack(cpu + 1))
    data = ring.bytes()
    return [data[at:at + SIZE] for at in range(0, len(data), SIZE)]


def make(path: Path, complete: bool = True, pages: str = "none") -> list[tuple[int, int]]:
    """Write a small capture of two CPUs with three flushes; returns what is on disk per flush: (time, bytes)."""
    capture = CaptureWriter(path)
    rb.write_formats(path / "formats", SIZE, ["store", "comp", "async_free"])
    capture.write_json("capture.json", status(complete))
    for number, (label, ts) in enumerate((("before", 900), ("middle", 3500), ("end", 8800))):
        rb.write_counters(path / f"counters-{number:03d}-{label}.json", ts, {"compressor": "lz4"})
    files = [capture.appending(f"zmeta.cpu{cpu}.raw") for cpu in (0, 1)]
    if pages != "none":
        take(capture, pages)
    flushes = []
    for first, last in ((1000, 3000), (3000, 6000), (6000, 9000)):
        for cpu, file in enumerate(files):
            for piece in subbuffers(cpu, first, last):
                file.write(piece)
        capture.flush(last, {"0": NONE_LOST, "1": NONE_LOST}, wait=True)
        flushes.append((last, (path / "zmeta.cpu0.raw").stat().st_size))
    capture.close()
    return flushes


def rows(recording: Path) -> list[tuple[int, int]]:
    frame = traces.open_recording(recording).frame(["ts", "pid", "event"])
    frame = frame[frame.event == "async_free_zspage"]
    return list(zip(frame.ts.tolist(), frame.pid.tolist(), strict=True))


def test_files_are_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "c"
    capture = CaptureWriter(path)
    capture.appending("zmeta.cpu0.raw").write(b"x")
    capture.write_json("capture.json", {"a": 1})
    name = capture.add_snapshot("before", {"t": 1.0})
    capture.flush(5, {}, wait=True)
    capture.close()
    assert name == "counters-000-before.json"
    assert mode(path) == 0o700
    assert {mode(file) for file in path.iterdir()} == {0o600}
    assert json.loads((path / "flushed.jsonl").read_text()) == {"flushed": 5, "sizes": {"zmeta.cpu0.raw": 1}, "losses": {}}
    assert not list(path.glob("*.part"))


def test_a_flush_is_on_disk_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = CaptureWriter(tmp_path / "c")
    capture.appending("zmeta.cpu0.raw").write(b"x")
    synced: list[tuple[str, int]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append((os.path.basename(os.readlink(f"/proc/self/fd/{fd}")), os.fstat(fd).st_size))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    capture.flush(5, {}, wait=True)
    log = (tmp_path / "c" / "flushed.jsonl").stat().st_size
    # The files are on disk before the line that says so.
    assert synced == [("zmeta.cpu0.raw", 1), ("flushed.jsonl", log)]
    capture.close()


def test_targets_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for path, why in (("there", "exists already"), ("link", "exists already"), ("no/c", "cannot be used"),
                      ("file/c", "not a directory|cannot be used"), ("open/c", "not sticky")):
        with pytest.raises(CannotRecord, match=why) as problem:
            CaptureWriter(tmp_path / path)
        assert str(problem.value).count("; ") == 1
    (tmp_path / "open").chmod(0o1777)
    CaptureWriter(tmp_path / "open" / "c").close()


@pytest.mark.parametrize("how", ["hash", "full", "sample:2"])
def test_pages_are_hashed_or_kept(tmp_path: Path, how: str) -> None:
    capture = CaptureWriter(tmp_path / "c")
    taker = take(capture, how)
    capture.close()
    assert taker.pages == len(PAGES)
    digests = [line.split(",")[3] for line in (tmp_path / "c" / "pages.cpu0.idx").read_text().split()[1:]]
    dump = (tmp_path / "c" / "pages.cpu0.bin").read_bytes() if how != "hash" else b""
    kept = [page for page, digest in zip(PAGES, digests, strict=True) if len(digest) == 40]
    assert dump == b"".join(kept)
    assert [digest for digest in digests if len(digest) == 40] == [hashlib.sha1(page).hexdigest() for page in kept]
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3
    if how == "full":
        assert kept == PAGES
    keyed = [hashlib.blake2b(page, digest_size=32, key=b"k" * 32).hexdigest() for page in PAGES]
    if how == "hash":
        assert digests == keyed
    if how == "sample:2":
        # Of these contents one in two: the others have keyed hashes.
        assert kept == [page for page, digest in zip(PAGES, keyed, strict=True)
                        if int.from_bytes(bytes.fromhex(digest)[:8], "little") % 2 == 0]
        assert [digest for digest in digests if len(digest) != 40] == [keyed[1], keyed[3]]


def test_bytes_of_a_page_are_written_before_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = CaptureWriter(tmp_path / "c")
    sizes: list[int] = []
    real = AppendFile.write

    def write(file: AppendFile, data: bytes) -> None:
        if data.count(b"\n") == len(PAGES):
            sizes.append((tmp_path / "c" / "pages.cpu0.bin").stat().st_size)
        real(file, data)

    monkeypatch.setattr(AppendFile, "write", write)
    take(capture, "full")
    capture.close()
    assert sizes == [4096 * len(PAGES)]


def test_by_default_no_byte_of_a_page_is_written(tmp_path: Path) -> None:
    capture = CaptureWriter(tmp_path / "c")
    take(capture, "hash")
    capture.close()
    written = b"".join(path.read_bytes() for path in (tmp_path / "c").iterdir())
    for page in PAGES[:3]:
        assert not any(page[at:at + 8] in written for at in range(0, 4096, 8))


def test_keys_differ_from_recording_to_recording(tmp_path: Path) -> None:
    index = []
    for name in ("a", "b"):
        capture = CaptureWriter(tmp_path / name)
        formats = {f"pg0_{half}": rb.EVENTS[f"pg{half}"].text() for half in (0, 1)}
        taker = PageTaker(PageMode("hash"), formats, 65536, capture.appending)
        taker(0, rb.ring(rb.page_halves(5, rb.PAGE_OFFSET, PAGES[0]), 65536))
        capture.close()
        index.append((tmp_path / name / "pages.cpu0.idx").read_text())
    assert index[0] != index[1]


def test_halves_are_not_paired_across_a_gap(tmp_path: Path) -> None:
    capture = CaptureWriter(tmp_path / "c")
    formats = {f"pg0_{half}": rb.EVENTS[f"pg{half}"].text() for half in (0, 1)}
    taker = PageTaker(PageMode("hash"), formats, 65536, capture.appending)
    first, second = (rb.page_halves(ts, rb.PAGE_OFFSET, page) for ts, page in ((5, PAGES[0]), (9, PAGES[1])))
    taker(0, rb.Ring(65536).add(*first[0]).bytes())
    taker(0, rb.Ring(65536).lose(3).add(*second[1]).bytes())
    capture.close()
    assert (taker.pages, taker.broken) == (0, 1)


@pytest.mark.parametrize("form", ["", "long", "extend", "absolute", "discard"])
def test_pages_have_the_stamps_that_the_kernel_gave_them(tmp_path: Path, form: str) -> None:
    """Whatever the record before a page looks like, also one that the kernel took back: its time counts on."""
    capture = CaptureWriter(tmp_path / "c")
    formats = {f"pg0_{half}": rb.EVENTS[f"pg{half}"].text() for half in (0, 1)}
    taker = PageTaker(PageMode("hash"), formats, 65536, capture.appending)
    first, second = rb.page_halves(7000, rb.PAGE_OFFSET, PAGES[0])
    taker(0, rb.Ring(65536).add(1000, rb.marker("x")).add(6000, rb.marker("y"), form).add(*first).add(*second).bytes())
    capture.close()
    line = (tmp_path / "c" / "pages.cpu0.idx").read_bytes().splitlines()[1]
    assert line.split(b",")[:2] == [b"0", b"7000"]


@pytest.mark.parametrize("text", ["", "all", "sample", "sample:0", "sample:-1", "hash:2"])
def test_other_page_modes_are_refused(text: str) -> None:
    with pytest.raises(CannotRecord, match="sample:N"):
        PageMode(text)


def test_a_complete_capture_is_imported_whole(tmp_path: Path) -> None:
    make(tmp_path / "c")
    import_source(tmp_path / "c", tmp_path / "r")
    manifest = traces.open_recording(tmp_path / "r").manifest
    assert manifest["complete"] is True
    assert [snapshot["label"] for snapshot in manifest["snapshots"]] == ["before", "middle", "end"]
    assert [(loss["cpu"], loss["lost"]) for loss in manifest["losses"]] == [(0, 0), (1, 0)]
    assert manifest["notes"] == []
    assert len(rows(tmp_path / "r")) == 160
    assert manifest["capture"]["recorder"] == "0"


@pytest.mark.parametrize(("name", "said"), [
    ("counters-001-middle.json", ["1 of the recorder's counter snapshots are missing: 001"]),
    ("counters-002-end.json", ["the recorder's last counter snapshot ('end') is missing"])])
def test_snapshots_that_the_recorder_took_and_are_not_there(tmp_path: Path, name: str, said: list[str]) -> None:
    make(tmp_path / "c")
    (tmp_path / "c" / name).unlink()
    summary = import_source(tmp_path / "c", tmp_path / "r")
    assert summary["missing"] == traces.open_recording(tmp_path / "r").manifest["missing"] == said


def test_a_truth_is_left_out_where_no_pages_were_recorded(tmp_path: Path) -> None:
    make(tmp_path / "c")
    (tmp_path / "c" / "capture.json").write_text(json.dumps(status(True, pages={"mode": "none"})))
    (tmp_path / "c" / "truth.csv").write_text("phase,page,kind,sha1,swap_type,swap_offset\na,0,zero,,0,1\n")
    summary = import_source(tmp_path / "c", tmp_path / "r")
    assert traces.open_recording(tmp_path / "r").table("truth") is None
    assert any("no pages were recorded that it could be compared with" in note for note in summary["notes"])


def test_a_killed_capture_ends_where_all_cpus_are_whole(tmp_path: Path) -> None:
    flushes = make(tmp_path / "whole", pages="full")
    import_source(tmp_path / "whole", tmp_path / "r")
    everything = rows(tmp_path / "r")
    make(tmp_path / "c", complete=False, pages="full")
    # The other CPU's last sub-buffers had not been read yet.
    ring = tmp_path / "c" / "zmeta.cpu1.raw"
    ring.write_bytes(ring.read_bytes()[:-3 * SIZE])
    import_source(tmp_path / "c", tmp_path / "k")
    recording = traces.open_recording(tmp_path / "k")
    until = flushes[1][0]
    assert rows(tmp_path / "k") == [row for row in everything if row[0] < until]
    assert recording.manifest["complete"] is False
    assert [snapshot["label"] for snapshot in recording.manifest["snapshots"]] == ["before", "middle"]
    assert any("were left out" in note for note in recording.manifest["notes"])


def cut_everywhere(tmp_path: Path, name: str, step: int) -> None:
    """Cut a file of a killed capture at every ``step``-th byte: each imports to a prefix of the whole."""
    make(tmp_path / "whole")
    import_source(tmp_path / "whole", tmp_path / "r")
    everything = rows(tmp_path / "r")
    make(tmp_path / "c", complete=False, pages="full")
    data = (tmp_path / "c" / name).read_bytes()
    for size in range(0, len(data) + 1, step):
        (tmp_path / "c" / name).write_bytes(data[:size])
        import_source(tmp_path / "c", tmp_path / "k")
        recording = traces.open_recording(tmp_path / "k", verify=False)
        until = CaptureReader.find(tmp_path / "c").until  # type: ignore[union-attr]
        assert recording.manifest["complete"] is False
        assert until in (950, 3000, 6000, 9000)
        assert rows(tmp_path / "k") == [row for row in everything if row[0] < until]
        shutil.rmtree(tmp_path / "k")


@pytest.mark.parametrize("name", ["zmeta.cpu0.raw", "flushed.jsonl", "pages.cpu0.idx", "pages.cpu0.bin"])
def test_a_kill_at_some_bytes(tmp_path: Path, name: str) -> None:
    cut_everywhere(tmp_path, name, 997 if name == "pages.cpu0.bin" else 131)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zmeta.cpu0.raw", "flushed.jsonl", "pages.cpu0.idx"])
def test_a_kill_at_every_byte(tmp_path: Path, name: str) -> None:
    cut_everywhere(tmp_path, name, 1)


def test_how_far_a_capture_is_whole_at_every_byte(tmp_path: Path) -> None:
    flushes = make(tmp_path / "c", complete=False)
    ring = tmp_path / "c" / "zmeta.cpu0.raw"
    data = ring.read_bytes()
    for size in range(len(data), -1, -1):
        with ring.open("r+b") as file:
            file.truncate(size)
        capture = CaptureReader.find(tmp_path / "c")
        assert capture is not None
        assert capture.until == max([ts for ts, bytes_ in flushes if bytes_ <= size], default=950)


def test_a_complete_capture_that_was_cut_later_is_not_complete(tmp_path: Path) -> None:
    make(tmp_path / "c")
    ring = tmp_path / "c" / "zmeta.cpu0.raw"
    ring.write_bytes(ring.read_bytes()[:-1])
    import_source(tmp_path / "c", tmp_path / "r")
    assert traces.open_recording(tmp_path / "r").manifest["complete"] is False


@pytest.mark.parametrize("how", ["flipped", "swapped", "shifted"])
def test_pages_that_are_not_those_of_the_index_are_refused(tmp_path: Path, how: str) -> None:
    make(tmp_path / "c", pages="full")
    dump = tmp_path / "c" / "pages.cpu0.bin"
    data = bytearray(dump.read_bytes())
    if how == "flipped":
        data[2 * 4096 + 7] ^= 1
    elif how == "swapped":
        data[2 * 4096:4 * 4096] = data[3 * 4096:4 * 4096] + data[2 * 4096:3 * 4096]
    else:
        del data[2 * 4096:2 * 4096 + 1]
        data.append(0)
    dump.write_bytes(data)
    with pytest.raises(BadInput, match=r"pages\.cpu0\.bin, offset 8192: holds another page than its index says"):
        import_source(tmp_path / "c", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_pages_that_did_not_reach_the_disk_of_a_box_that_died_are_not_kept(tmp_path: Path) -> None:
    make(tmp_path / "c", complete=False, pages="full")
    dump = tmp_path / "c" / "pages.cpu0.bin"
    dump.write_bytes(dump.read_bytes()[:4096] + bytes(3 * 4096))
    summary = import_source(tmp_path / "c", tmp_path / "r")
    # The third page is the first one again, and the last one is zeros.
    assert traces.open_recording(tmp_path / "r").manifest["pages"] == {"distinct": 3, "references": 4, "with_bytes": 2}
    assert any("the bytes of 2 pages were not on disk" in note for note in summary["notes"])


def test_losses_are_those_the_kernel_counted(tmp_path: Path) -> None:
    make(tmp_path / "c")
    for losses, expected in (({"0": {**NONE_LOST, "dropped": 3}, "1": NONE_LOST}, [3, 0]),
                             ({"0": {**NONE_LOST, "overrun": "unknown"}}, [None, None]),
                             ({"0": NONE_LOST, "1": NONE_LOST, "2": {**NONE_LOST, "overrun": 5}}, [0, 0, 5])):
        (tmp_path / "c" / "capture.json").write_text(
            json.dumps(status(True, losses={"cpus": losses, "probes": {"store": 2, "load": "unknown"}})))
        import_source(tmp_path / "c", tmp_path / "r")
        found = [loss["lost"] for loss in traces.open_recording(tmp_path / "r").manifest["losses"]]
        assert found == [*expected, 2]
        shutil.rmtree(tmp_path / "r")


def test_truth_is_left_out_where_only_keyed_hashes_are(tmp_path: Path) -> None:
    for how, there in (("hash", False), ("full", True)):
        make(tmp_path / how, pages=how)
        (tmp_path / how / "truth.csv").write_text("phase,page,kind,sha1,swap_type,swap_offset\n"
                                                  f"out,0,text,{hashlib.sha1(PAGES[0]).hexdigest()},0,5\n")
        import_source(tmp_path / how, tmp_path / f"{how}.r")
        recording = traces.open_recording(tmp_path / f"{how}.r")
        assert (recording.table("truth") is not None) is there
        assert any("keyed" in note for note in recording.manifest["notes"]) is not there
        assert recording.manifest["capture"]["page_digests"]["sha1"] == (len(PAGES) if there else 0)
        assert recording.pages is not None
        assert recording.pages.all_pages()[1].all() == there


@pytest.mark.parametrize(("name", "content", "why"), [
    ("capture.json", "{", "not readable JSON"),
    ("capture.json", json.dumps({"zreplay_capture": 2}), "version"),
    ("capture.json", json.dumps({**status(True), "losses": 3}), "wrong type"),
    ("capture.json", json.dumps({**status(True), "start": None}), "is not a time"),
    ("capture.json", json.dumps({**status(False), "start": "x"}), "is not a time"),
    ("pages.cpu0.idx", "n,ts_ns,src,digest\n0,1,zz,00\n", "in order"),
    ("pages.cpu0.idx", "n,ts\n", "is not 'n,ts_ns,src,digest'"),
    ("pages.cpu0.idx", "n,ts_ns,src,digest\n" + "".join(f"{n},{n},1000,{'0' * 40}\n" for n in range(9)), "ends before"),
])
def test_damage_that_no_kill_explains_is_refused(tmp_path: Path, name: str, content: str, why: str) -> None:
    make(tmp_path / "c", pages="full")
    (tmp_path / "c" / name).write_text(content)
    with pytest.raises(BadInput, match=why):
        import_source(tmp_path / "c", tmp_path / "r")


def test_an_index_that_unpacks_to_no_end(tmp_path: Path) -> None:
    """A packed index is checked before all of it is unpacked."""
    make(tmp_path / "c", pages="full")
    index = tmp_path / "c" / "pages.cpu0.idx"
    (tmp_path / "c" / "pages.cpu0.idx.xz").write_bytes(lzma.compress(index.read_bytes() + bytes(64 << 20), preset=0))
    index.unlink()
    tracemalloc.start()
    with pytest.raises(BadInput, match="is not 'n,ts_ns,src,digest' in order"):
        import_source(tmp_path / "c", tmp_path / "r")
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_a_format_that_was_being_written(tmp_path: Path) -> None:
    make(tmp_path / "c")
    formats = tmp_path / "c" / "formats"
    shutil.copy(formats / "store", formats / ".store.part")
    import_source(tmp_path / "c", tmp_path / "r")
    assert len(rows(tmp_path / "r")) == 160


@pytest.mark.parametrize("version", ["", "Linux version 7.2.13+deb14-amd64 (x@y) #1 SMP\n"])
def test_a_recorder_that_was_killed_while_it_armed_its_probes(tmp_path: Path, version: str) -> None:
    capture = CaptureWriter(tmp_path / "c")
    capture.write_json("capture.json", {**status(False), "start": None, "losses": {}})
    if version:
        capture.write("version.txt", version)
    capture.close()
    import_source(tmp_path / "c", tmp_path / "r")
    recording = traces.open_recording(tmp_path / "r")
    assert len(recording) == 0
    assert not recording.manifest["complete"]
    assert recording.manifest["notes"] == ["the recorder was stopped before it recorded anything"]
    if version:
        result = replay(recording)
        assert (result.verdict, result.revision) == ("UNDECIDED", "mainline-7.2")
        assert result.reasons == recording.manifest["notes"]
    else:
        with pytest.raises(BadInput, match="kernel"):
            replay(recording)


def test_losses_are_told_in_sentences() -> None:
    lines = loss_lines({"losses": {"cpus": {"0": NONE_LOST, "1": {**NONE_LOST, "dropped": 4}}, "pages": {},
                                   "probes": {"store": "unknown", "load": 2, "comp": 0}}})
    assert lines == ["events lost in the rings of 2 CPUs: CPU 1: 4.",
                     "hits missed by probes: load: 2; unknown for the 1 that are fprobes (the kernel keeps no count of them)."]
    quiet = loss_lines({"losses": {"cpus": {"0": NONE_LOST}, "pages": {"0": {**NONE_LOST, "overrun": "unknown"}},
                                   "probes": {}}})
    assert quiet == ["events lost in the rings of 1 CPU: none.", "pages lost in the rings of 1 CPU: CPU 0: unknown.",
                     "hits missed by probes: none known."]


def test_short_writes_and_full_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = CaptureWriter(tmp_path / "c")
    file = capture.appending("zmeta.cpu0.raw")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    file.write(b"0123456789")
    monkeypatch.undo()
    assert (tmp_path / "c" / "zmeta.cpu0.raw").read_bytes() == b"0123456789"

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        capture.flush(1, {}, wait=True)
    monkeypatch.undo()
    capture.close()
    assert not (tmp_path / "c" / "flushed.jsonl").exists()


def test_what_is_said_fits_a_terminal_and_a_command_stays_whole(monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = "recording into a/capture; Ctrl-C stops it, or from elsewhere:\n  echo stop > a/rather/long/path/to/the/control"
    say(said)
    assert capsys.readouterr().err == f"zreplay: {said}\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    say(said)
    assert capsys.readouterr().err.splitlines() == [
        "zreplay: recording into a/capture;", "  Ctrl-C stops it, or from elsewhere:", said.split("\n")[1]]
