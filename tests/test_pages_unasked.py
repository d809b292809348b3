# SPDX-License-Identifier: GPL-2.0-or-later
"""No byte of a page is written or printed unasked: everything that every verb leaves is searched for them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.crypto import compressor_for
from replay.cli import main
from replay.reference.cachekey import cache_home
from replay.tools.synthetic import ImaginaryKernel
from tests import ringbuilder as rb
from tests.fakebox import FakeBox, run
from tests.pagesearch import Secrets, spelled_by_hand
from tests.test_record_capture import make, status, take
from traces import schema
from traces.importers import import_source
from traces.record.capture import CaptureWriter
from traces.record.pagekey import VARIABLE, PageKey
from traces.record.pages import PageMode
from traces.record.session import Options, Session
from traces.recording import Recording, RecordingWriter
from traces.vmcore import read_core
from traces.workload.naming import namings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KERNEL = "mainline-7.3"
_DATA = schema.column_names().index("data")
_EVENT = schema.column_names().index("event")


def pages_of(seed: int, count: int = 10) -> list[bytes]:
    """Pages that do not compress, and pages that do."""
    chance = random.Random(seed)
    return [chance.randbytes(4096) if number % 2 else
            chance.randbytes(512) + b"".join(chance.randbytes(8) * 4 for _ in range(112)) for number in range(count)]


class Scene:
    """A recording with page bytes, what is asked of it, and what must not be found: of its pages, of its objects."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home = place / "home"
        self.pages = pages_of(1)
        compressor = compressor_for("lz4", KERNEL)
        written = [compressor.compress(page) for page in self.pages]
        assert {bool(each.err) or each.dlen >= 4096 for each in written} == {True, False}
        kernel = ImaginaryKernel(KERNEL, pages=self.pages, compressor=compressor)
        self.texts = []
        for turn in range(2):
            self.texts.append(kernel.mark(f"phase out{turn}"))
            for slot in range(len(self.pages)):
                kernel.store(slot)
            self.texts.append(kernel.mark(f"phase in{turn}"))
            for slot in range(len(self.pages)):
                kernel.load(slot)
        digests = [hashlib.sha1(page).hexdigest() for page in self.pages]
        truth = pd.DataFrame({"phase": "out1", "page": range(10), "kind": "file", "sha1": digests, "swap_type": 0,
                              "swap_offset": range(10)})
        kernel.write(place / "whole.zr", self.texts, truth=truth)
        # The workload says that two pages are where each other's are.
        truth["sha1"] = [digests[1], digests[0], *digests[2:9], "0" * 40]
        kernel.write(place / "swapped.zr", self.texts, truth=truth)
        self.wrong: list[bytes] = []
        for name, after, bad in (("raw.zr", 0, lambda size: size == 4096), ("packed.zr", 0, lambda size: size < 4096),
                                 ("later.zr", 7777, lambda size: size < 4096)):
            self._damaged(kernel, place / name, after, bad)
        self.secrets = Secrets(self.pages, [*(each.data[:8] for each in written if not each.err), *self.wrong])

    def _damaged(self, kernel: ImaginaryKernel, path: Path, after: int, bad: Callable[[int], bool]) -> None:
        """Write the recording with another byte in one object written, ``after`` ns later."""
        block = kernel.block().copy()
        block[0] += after
        sizes = block[schema.column_names().index("size")]
        row = next(int(row) for row in np.flatnonzero(block[_EVENT] == schema.CODE["zs_obj_write"]) if bad(int(sizes[row])))
        block[_DATA, row] ^= 0x55 << 24
        self.wrong.append(int(block[_DATA, row]).to_bytes(8, "little", signed=True))
        whole = Recording(self.place / "whole.zr")
        with RecordingWriter(path) as writer:
            writer.write_rows(block, self.texts)
            store = whole.pages
            assert store is not None
            data = [page for _, group in store.blocks() for page in group]
            for page in store.refs.tolist():
                writer.pages.add(data[page])
            writer.close({key: value for key, value in whole.manifest.items()
                          if key not in ("segments", "snapshots", "pages", "files", "rows")})

    def found(self, path: Path, **how: bool) -> dict[str, set[str]]:
        """Return what is found in all files below a path, but for what a recording with page bytes is to hold."""
        out = {}
        for file in sorted(path.rglob("*")):
            if not file.is_file():
                continue
            inside = file.relative_to(path)
            recording = next((parent for parent in file.parents if (parent / "manifest.json").is_file()), None)
            skip: tuple[str, ...] = ()
            digests = True
            if recording is not None and recording.name in HOLDS:
                if file.parent.name == "pages" or file.name == "objects.parquet":
                    continue
                skip = ("data",) if file.parent.name == "events" else ()
                # Digests of the files next to them.
                digests = file.name != "truth.parquet"
            hits = self.secrets.in_file(file, skip=skip, digests=digests)
            if hits:
                out[str(inside)] = hits
        return out


#: Recordings that hold page bytes because one was recorded with them.
HOLDS = ("whole.zr", "raw.zr", "packed.zr", "later.zr", "swapped.zr", "cut.zr")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("unasked")
        patch.setenv("HOME", str(place / "home"))
        patch.setenv("XDG_CACHE_HOME", str(place / "home/cache"))
        patch.setenv("TMPDIR", str(place / "tmp"))
        (place / "tmp").mkdir()
        yield Scene(place)


#: Commands of every verb that reads a recording; {} stands for where they write.
COMMANDS = (
    "info whole.zr", "info whole.zr --json", "replay whole.zr", "replay whole.zr --engine fast",
    "replay raw.zr", "replay packed.zr", "replay raw.zr packed.zr --keep-going --json", "replay raw.zr --ktap",
    "replay swapped.zr", "replay swapped.zr --keep-going --json", "report swapped.zr -o {}/swapped.html",
    "replay raw.zr --mail", "replay raw.zr swapped.zr --brief", "replay raw.zr packed.zr whole.zr --table {}/table.json --junit {}/junit.xml",
    "replay raw.zr --revision mainline-7.2 --keep-going --coverage", "show whole.zr", "show whole.zr --json",
    "report whole.zr -o {}/whole.html --figures {}/figures", "report raw.zr -o {}/raw.html",
    "report packed.zr --revision mainline-7.3 --revision v14 -o {}/packed.html",
    "dev compare whole.zr raw.zr", "dev compare whole.zr packed.zr --json",
    "regress --base whole.zr --patched later.zr", "regress --base whole.zr --patched later.zr --json",
    "regress whole.zr --revision mainline-7.2 --revision v14 --json",
    "bisect whole.zr --series v14", "export whole.zr -o {}/whole.json --check", "export whole.zr -o {}/whole.pftrace --check",
    "cut whole.zr --from 0 --to 60 -o {}/cut.zr", "scrub whole.zr -o {}/scrubbed.zr", "replay {}/cut.zr",
    "replay {}/scrubbed.zr",
)


@pytest.mark.parametrize("window", [b"\x93\xfe\x01Zq\x00\xc7\x88", b"\x81\x82\x83\x84\x85\x86\x87\x98"])
def test_the_search_finds_every_spelling(window: bytes, tmp_path: Path) -> None:
    secrets = Secrets([b"\0" * 100 + window + b"\0" * 100])
    for how, text in spelled_by_hand(window).items():
        (tmp_path / how).write_bytes(text)
        assert secrets.in_file(tmp_path / how), how
    number = int.from_bytes(window, "little")
    pq.write_table(pa.table({"a": np.array([1, number], np.uint64), "b": ["x", "y"]}), tmp_path / "t", compression="zstd")
    assert secrets.in_file(tmp_path / "t")
    assert not secrets.in_file(tmp_path / "t", skip=["a"])
    assert not secrets.in_bytes(b"nothing of it, 0x93fe, " + bytes(64) + os.urandom(4096))
    assert secrets.in_bytes(hashlib.sha1(b"\0" * 100 + window + b"\0" * 100).hexdigest().encode())


def test_no_verb_writes_or_prints_bytes_of_pages(scene: Scene, monkeypatch: pytest.MonkeyPatch,
                                                 capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(scene.place)
    out = scene.place / "out"
    out.mkdir()
    statuses = {}
    for command in COMMANDS:
        statuses[command] = main(command.format(*["out"] * 4).split())
        said = capfd.readouterr()
        for stream in said:
            assert not scene.secrets.in_bytes(stream.encode()), (command, scene.secrets.in_bytes(stream.encode()))
        assert "raised" not in said.err, said.err
    assert {statuses[f"replay {name}.zr"] for name in ("raw", "packed", "swapped")} == {1}
    assert statuses["replay whole.zr"] == statuses["replay {}/cut.zr"] == statuses["replay {}/scrubbed.zr"] == 0
    assert not {command for command, code in statuses.items() if code not in (0, 1, 3)}, statuses
    assert list((scene.place / "whole.zr/cache").iterdir()), "results were kept, and are searched"
    assert scene.found(scene.place) == {}
    # The search is not blind: it finds them in what holds them.
    assert scene.secrets.in_file(scene.place / "whole.zr/pages/pages.parquet")
    assert scene.secrets.in_file(scene.place / "whole.zr/events/00000.parquet")
    private = [*scene.place.rglob("*.zr/**/*"), *(scene.home / "cache/zreplay").rglob("*"), *out.glob("whole.*json"),
               *out.glob("*.pftrace")]
    assert len(private) > 30
    assert not [path for path in private if stat.S_IMODE(path.stat().st_mode) & 0o077]


@pytest.mark.parametrize("command", ["replay raw.zr --data", "replay raw.zr --json --data", "replay packed.zr --data",
                                     "report raw.zr -o asked/raw.html --data", "show raw.zr --op zs_obj_write --data",
                                     "dev compare whole.zr raw.zr --data", "export whole.zr -o asked/whole.json --data --check",
                                     "export whole.zr -o asked/whole.pftrace --data --check"])
def test_bytes_are_shown_on_request(scene: Scene, command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(scene.place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(scene.place / "home/cache"))
    (scene.place / "asked").mkdir(exist_ok=True)
    main(command.split())
    shown = scene.secrets.in_bytes(capfd.readouterr().out.encode())
    if "asked/" in command:
        made = scene.place / command.split()[command.split().index("-o") + 1]
        shown |= scene.secrets.in_file(made)
        if command.startswith("export"):
            assert stat.S_IMODE(made.stat().st_mode) == 0o600
    shutil.rmtree(scene.place / "asked")
    assert shown


def test_a_report_tells_no_bytes_that_its_result_was_asked_for(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(scene.place)
    main(["replay", "raw.zr", "--json", "--data"])
    (tmp_path / "result.json").write_text(capfd.readouterr().out)
    assert main(["report", str(tmp_path / "result.json"), "-o", str(tmp_path / "a.html")]) == 1
    assert not scene.secrets.in_file(tmp_path / "a.html")
    assert "1 of 8 differ, at offset 3" in (tmp_path / "a.html").read_text()
    assert main(["report", str(tmp_path / "result.json"), "--data", "-o", str(tmp_path / "b.html")]) == 1
    assert scene.secrets.in_file(tmp_path / "b.html")


def test_where_bytes_differ_is_said(scene: Scene, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(scene.place)
    for name, check in (("raw.zr", "store.raw"), ("packed.zr", "store.bytes")):
        assert main(["replay", name]) == 1
        out = capfd.readouterr().out
        assert f"first divergence: {check}" in out
        assert "recorded   bytes not shown: 1 of 8 differ, at offset 3\n" in out
        assert "predicted  bytes not shown; --data shows them\n" in out


def test_exports_say_what_they_leave_out(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(scene.place)
    for form in ("json", "pftrace"):
        assert main(["export", "whole.zr", "-o", str(tmp_path / f"x.{form}")]) == 0
        writes = Recording("whole.zr").frame(["event"])["event"].value_counts()["zs_obj_write"]
        assert f"the first bytes of {writes} objects written are left out" in capfd.readouterr().out
        assert main(["export", "whole.zr", "-o", str(tmp_path / f"y.{form}"), "--data"]) == 0
        assert "left out" not in capfd.readouterr().out


def test_results_of_a_recording_that_is_read_only_hold_no_bytes(scene: Scene, monkeypatch: pytest.MonkeyPatch,
                                                                capfd: pytest.CaptureFixture[str]) -> None:
    home = scene.place / "elsewhere"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    right = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: mode != os.W_OK and right(path, mode, **how))
    path = shutil.copytree(scene.place / "whole.zr", scene.place / "readonly.zr", ignore=shutil.ignore_patterns("cache"))
    cache_home().mkdir(mode=0o700, parents=True)
    # What an earlier version kept has the bytes in it: it goes with the first command.
    old = cache_home() / "0123456789abcdef-lz4-0123456789abcdef.parquet"
    old.write_bytes(scene.pages[0])
    try:
        for again in (False, True):
            assert main(["replay", str(path)]) == 0
            said = capfd.readouterr()
            assert not old.exists()
            assert (f"removed {old}, which an earlier version kept" in said.err) is not again
            assert ("20 results kept" in said.out or "10 results kept" in said.out) is again, said.out
        assert not (path / "cache").exists()
        assert len(list(cache_home().glob("*.parquet"))) == 1
        assert scene.found(home) == {}
        kept = pq.read_table(next(cache_home().glob("*.parquet")))
        assert set(kept.column_names) == {"err", "dlen", "head", "raw", "has"}
        # Without the recording's own digests the key opens nothing, and no name or word leads to it.
        manifest = json.loads((path / "manifest.json").read_text())
        digest = manifest["files"]["pages/pages.parquet"]
        assert all(digest[:16].encode() not in file.read_bytes() and digest[:16] not in file.name
                   for file in cache_home().iterdir())
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in cache_home().iterdir())
    finally:
        shutil.rmtree(path)
        shutil.rmtree(home)


class _Odd(Exception):
    """An exception that shows what it was given, as it is."""


@pytest.mark.parametrize("show", [
    lambda page: KeyError(page[:16]), lambda page: ValueError(f"{page!r} is not a page"), lambda page: _Odd(bytearray(page[:9])),
    lambda page: IndexError(list(page[:24])), lambda page: _Odd(np.frombuffer(page[:40], np.uint8)), lambda page: _Odd(page.hex()),
    lambda page: _Odd(int.from_bytes(page[:8], "little")), lambda page: _Odd(hex(int.from_bytes(page[:8], "little"))),
    lambda page: _Odd(memoryview(page).tolist()[:64])], ids=range(9))
@pytest.mark.parametrize("traceback", ["", "1"])
@pytest.mark.parametrize("several", [False, True])
def test_a_fault_shows_no_bytes(scene: Scene, show: Callable[[bytes], Exception], traceback: str, several: bool,
                                monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(scene.place)
    monkeypatch.setenv("ZREPLAY_TRACEBACK", traceback)

    def fails(*_: object, **__: object) -> None:
        raise show(scene.pages[1])

    monkeypatch.setattr("replay.many.jobs.replay", fails)
    assert main(["replay", "whole.zr", *(["raw.zr"] if several else [])]) == 70
    said = capfd.readouterr()
    assert "(bytes not shown)" in said.err
    assert ("Traceback" in said.err) is bool(traceback)
    for stream in said:
        assert not scene.secrets.in_bytes(stream.encode()), stream


def test_a_core_tells_no_bytes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parent / "vmcores/7.3"
    whole = zstd.decompress((folder / "core.elf.zst").read_bytes())
    (tmp_path / "core.elf").write_bytes(whole)
    image = read_core(tmp_path / "core.elf", btf=folder / "btf", symbols=folder / "kallsyms")
    objects = [data for entry in image.entries if (data := image.bytes_of(entry)) is not None]
    secrets = Secrets(objects, words=False)
    # One that does not decompress any more is reported, too.
    longest = max((data for data in objects if len(data) < 4096), key=len)
    at = whole.index(longest[:64])
    (tmp_path / "odd.elf").write_bytes(whole[:at] + bytes(8) + whole[at + 8:])
    files = ["--btf", str(folder / "btf"), "--symbols", str(folder / "kallsyms")]
    for name, codes in (("core.elf", {0}), ("odd.elf", {1, 3})):
        for words in (["--entries"], ["--json"]):
            assert main(["vmcore", str(tmp_path / name), *files, *words]) in codes
            for stream in capfd.readouterr():
                assert not secrets.in_bytes(stream.encode())
    assert main(["vmcore", str(tmp_path / "core.elf"), *files, "--bytes"]) == 0
    assert secrets.in_bytes(capfd.readouterr().out.encode())


# ---- captures ----------------------------------------------------------------------------------------------------


def truth_of(box: FakeBox, place: Path, monkeypatch: pytest.MonkeyPatch, offered: str, *words: str) -> list[dict[str, str]]:
    monkeypatch.setenv(VARIABLE, offered)
    assert run(box, place, "base", "--pages", "64", *words)[0] == 0
    return list(csv.DictReader((place / "capture/truth.csv").read_text().splitlines()))


@pytest.mark.parametrize("how", ["nobody", "none", "hash", "sample:4", "full"])
def test_a_file_s_pages_leave_no_digest_that_anybody_can_make(how: str, box: FakeBox, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    pages = pages_of(2, 32)
    (tmp_path / "dump").write_bytes(b"".join(pages))
    secrets, key = Secrets(pages), PageKey()
    mode = PageMode("none" if how == "nobody" else how)
    offer = key.offer(os.path.realpath(tmp_path / "capture"), mode.every) if mode.recorded else ""
    try:
        rows = truth_of(box, tmp_path, monkeypatch, offer, "--content", str(tmp_path / "dump"))
    finally:
        key.close()
    truth = tmp_path / "capture/truth.csv"
    assert stat.S_IMODE(truth.stat().st_mode) == 0o600
    column = list(rows[0])[3]
    assert column == ("sha1" if how == "full" else f"blake2b-{key.name}" if mode.recorded else column)
    names = {row[column] for row in rows}
    plain = {hashlib.sha1(page).hexdigest() for page in pages}
    kept = {hashlib.sha1(page).hexdigest() for page in pages if mode.every and int.from_bytes(
        hashlib.blake2b(page, digest_size=32, key=key.key).digest()[:8], "little") % mode.every == 0}
    assert names & plain == kept & names
    if how not in ("full", "sample:4"):
        assert not any(secrets.in_file(file) for file in (tmp_path / "capture").rglob("*") if file.is_file())
    keyed = {hashlib.blake2b(page, digest_size=32, key=key.key).hexdigest() for page in pages}
    assert (names - kept <= keyed) is mode.recorded
    assert len(names) > 20, "equal pages have equal names"


@pytest.mark.parametrize("how", ["hash", "sample:2", "full"])
def test_the_workload_names_pages_as_the_recorder_does(how: str, tmp_path: Path) -> None:
    key, mode = PageKey(), PageMode(how)
    offer = key.offer(os.path.realpath(tmp_path / "c"), mode.every)
    (naming, other) = namings([tmp_path / "c", tmp_path / "other"], True, offer)
    key.close()
    capture = CaptureWriter(tmp_path / "c")
    take(capture, how, key.key)
    capture.close()
    lines = (tmp_path / "c/pages.cpu0.idx").read_text().splitlines()[1:]
    from tests.test_record_capture import PAGES
    assert [line.rpartition(",")[2] for line in lines] == [naming(page) for page in PAGES]
    assert other.column != naming.column
    assert other(PAGES[0]) != naming(PAGES[0])


@pytest.mark.parametrize("recorded", [True, False])
def test_the_recorder_offers_its_key_to_its_command_alone(recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    session = Session.__new__(Session)
    session.options = Options(PageMode("sample:3"), command=("sh", "-c", f"env > {tmp_path}/env; cat $ZREPLAY_PAGES > {tmp_path}/known"))
    session.capture = CaptureWriter(tmp_path / "c")
    session.meta = SimpleNamespace(path=tmp_path)  # type: ignore[assignment]
    session.tracefs = SimpleNamespace(shown=str)  # type: ignore[assignment]
    session._taker, session._limits = (object() if recorded else None), None  # type: ignore[assignment]
    session._key = PageKey()
    session._start_command()
    assert session._child is not None
    session._child.wait(60)
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    known = (tmp_path / "known").read_text()
    if recorded:
        assert json.loads(known) == {"capture": os.path.realpath(tmp_path / "c"), "every": 3, "key": session._key.key.hex(),
                                    "name": session._key.name}
        assert Path(environment[VARIABLE]).exists()
    else:
        assert (known, VARIABLE in environment) == ("", False)
    session._key.close()
    session.capture.close()
    if recorded:
        assert not os.path.lexists(environment[VARIABLE]), "gone with the recording"
    left = b"".join(path.read_bytes() for path in [tmp_path / "env", *(tmp_path / "c").rglob("*")] if path.is_file())
    assert session._key.key.hex().encode() not in left
    assert session._key.key not in left


@pytest.mark.parametrize("offered", ["/nonexistent", "/dev/zero", "/proc/self/exe", ":::", "fifo", "empty", "list", "short"])
def test_what_is_no_offer_names_nothing(offered: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").write_text("")
    (tmp_path / "list").write_text("[1, 2]")
    (tmp_path / "short").write_text(json.dumps({"capture": str(tmp_path), "key": "00", "name": "x", "every": 0}))
    path = offered if "/" in offered or ":" in offered else str(tmp_path / offered)
    (private,), (made,) = (namings([tmp_path], private, path) for private in (True, False))
    assert made.column == "sha1"
    assert private.column.startswith("blake2b-")
    assert private(bytes(4096)) != hashlib.sha1(bytes(4096)).hexdigest()


@pytest.mark.parametrize("how", ["hash", "sample:2", "full"])
def test_a_truth_with_the_recording_s_key_is_compared(how: str, tmp_path: Path) -> None:
    key = PageKey()
    make(tmp_path / "c")
    capture = tmp_path / "c"
    shutil.rmtree(capture)
    made = CaptureWriter(capture)
    from tests.test_record_capture import NONE_LOST, PAGES, SIZE, subbuffers
    rb.write_formats(capture / "formats", SIZE, ["store", "comp", "async_free"])
    made.write_json("capture.json", status(True, pages={"mode": how, "key": key.name}))
    rb.write_counters(capture / "counters-000-end.json", 8800, {"compressor": "lz4"})
    for cpu in (0, 1):
        file = made.appending(f"zmeta.cpu{cpu}.raw")
        for piece in subbuffers(cpu, 1000, 9000):
            file.write(piece)
    take(made, how, key.key)
    made.flush(9000, {"0": NONE_LOST, "1": NONE_LOST}, wait=True)
    made.close()
    offer = key.offer(os.path.realpath(capture), PageMode(how).every)
    (naming,) = namings([capture], True, offer)
    key.close()
    lines = "".join(f"out,{number},file,{naming(page)},0,{number}\n" for number, page in enumerate(PAGES))
    for column, there in ((naming.column, True), ("blake2b-0123456789abcdef", False)):
        (capture / "truth.csv").write_text(f"phase,page,kind,{column},swap_type,swap_offset\n{lines}")
        import_source(capture, tmp_path / "r")
        recording = Recording(tmp_path / "r")
        truth = recording.table("truth")
        assert (truth is not None) is there
        assert any("its digests have another key" in note for note in recording.manifest["notes"]) is not there
        if truth is not None:
            assert recording.pages is not None
            assert set(truth["sha1"]) == set(recording.pages.sha1)
        secrets = Secrets(PAGES[:3])
        found = {file.name for file in (tmp_path / "r").rglob("*") if file.is_file() and secrets.in_file(file)}
        assert found <= (set() if how == "hash" else {"pages.parquet", "truth.parquet"})
        shutil.rmtree(tmp_path / "r")
