# SPDX-License-Identifier: GPL-2.0-or-later
"""The workload driver against fake settings: no zswap, no root, no kernel but the one that runs the tests."""

from __future__ import annotations

import csv
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

import pytest

import traces.workload
from model.crypto import compressor_for
from model.zsmalloc import huge_class_size
from tests.fakebox import CGROUP, FakeBox, run, settings
from traces.events import PAGE_SIZE
from traces.lab.initramfs import stdlib_imports
from traces.workload import worker as worker_module
from traces.workload.box import PARAMETERS, THP, NotReady
from traces.workload.command import FOLIOS
from traces.workload.driver import WorkloadDriver
from traces.workload.memory import Region, Slot, read_slots
from traces.workload.pages import KINDS, MIXES, FilePages, MadePages, digest
from traces.workload.scenarios import SCENARIOS
from traces.workload.snapshot import asker, write_snapshot
from traces.workload.worker import WorkerDied

# Pages


def test_mixes_depend_on_the_seed_alone() -> None:
    def some(seed: int) -> list[tuple[str, bytes]]:
        source, rng = MadePages(seed), random.Random(f"{seed} x")
        return [source.page(mix, rng) for mix in MIXES for _ in range(20)]

    assert some(1) == some(1)
    assert some(1) != some(2)
    other = subprocess.run([sys.executable, "-c", "import random\nfrom traces.workload.pages import *\n"
                            "s, r = MadePages(1), random.Random('1 x')\n"
                            "print(digest(b''.join(s.page(m, r)[1] for m in MIXES for _ in range(20))))"],
                           capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert other.stdout.strip() == digest(b"".join(data for _, data in some(1)))


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_a_page(kind: str) -> None:
    source, rng = MadePages(3), random.Random(1)
    for _ in range(5):
        drawn, data = source.page(kind, rng)
        assert drawn == kind
        assert len(data) == PAGE_SIZE
        assert (kind == "zeros") == (not any(data))


def test_solid_holds_no_page_that_never_reaches_a_pool() -> None:
    assert not {"zeros", "same", "sparse"} & {kind for kind, _ in MIXES["solid"]}


def test_file_pages(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * PAGE_SIZE + b"tail")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(bytes(PAGE_SIZE))
    (tmp_path / "empty").write_bytes(b"")
    source, rng = FilePages(tmp_path), random.Random(1)
    assert len(source) == 3
    pages = [source.page("mixed", rng) for _ in range(6)]
    assert pages[:3] == pages[3:]
    assert {(kind, data.rstrip(b"\0")[-4:]) for kind, data in pages} \
        == {("file", b"aaaa"), ("file", b"tail"), ("zeros", b"")}
    with pytest.raises(ValueError, match="no pages"):
        FilePages(tmp_path / "empty")


# Memory


def test_slots_of_a_pagemap(tmp_path: Path) -> None:
    entries = {5: 1 << 63 | 77, 6: 1 << 62 | 0x1234 << 5 | 3, 7: 0, 8: 1 << 62 | 1 << 55 | 1}
    pagemap = tmp_path / "pagemap"
    pagemap.write_bytes(b"".join(entries.get(n, 0).to_bytes(8, "little") for n in range(16)))
    fd = os.open(pagemap, os.O_RDONLY)
    try:
        slots = read_slots(fd, 5 * PAGE_SIZE, 4)
    finally:
        os.close(fd)
    assert slots == [Slot(-1, -1), Slot(3, 0x1234), Slot(-1, -1), Slot(1, 0)]


@pytest.mark.parametrize("folio", [4096, 65536])
def test_region_knows_what_it_holds(folio: int) -> None:
    region = Region(64, folio)
    assert region.address % folio == 0
    source = MadePages(1)
    region.fill(source, "mixed", "s")
    assert region.read() == (64, [])
    first = region.content[:]
    region.fill(source, "mixed", "t", first=8, last=16, step=2)
    assert [n for n in range(64) if region.content[n] != first[n]] == [8, 10, 12, 14]
    region.page_out(0, 64, chunk=16)
    assert region.read(step=3) == (22, [])
    region.unmap(0, 16)
    assert region.read() == (48, [])
    assert [row[0] for row in region.truth()] == list(range(16, 64))
    region.map[region._bytes(20)] = b"?" * PAGE_SIZE
    assert region.read() == (48, [20])


def test_large_folios_are_zeros_as_a_whole() -> None:
    region = Region(512, 65536)
    region.fill(MadePages(1), "mixed", "s")
    for at in range(0, 512, 16):
        kinds = [known[0] for known in region.content[at:at + 16] if known]
        assert kinds[0] != "zeros" or set(kinds) == {"zeros"}


# Settings


def test_settings_are_put_back_in_reverse(box: FakeBox) -> None:
    before = settings(box)
    box.folio(65536)
    assert box.read(f"{THP}/hugepages-64kB/enabled") == "madvise"
    assert box.read(f"{THP}/hugepages-2048kB/enabled") == "never"
    box.set(f"{PARAMETERS}/compressor", "lz4")
    box.set(f"{PARAMETERS}/compressor", "lzo")
    with pytest.raises(OSError, match="Invalid"):
        box.set(f"{PARAMETERS}/max_pool_percent", "nosuch")
    announced: list[tuple[str, str]] = []
    assert box.restore(lambda name, value: announced.append((name, value))) == []
    assert settings(box) == before
    assert announced[0] == (f"{PARAMETERS}/compressor", "zstd")
    assert len(announced) == 3, "what was not changed is not written"


def test_what_cannot_be_put_back_is_said(box: FakeBox) -> None:
    box.set(f"{PARAMETERS}/compressor", "lz4")
    (box.root / PARAMETERS / "compressor").unlink()
    assert box.restore() == [f"/{PARAMETERS}/compressor could not be set back to 'zstd' (No such file or directory); "
                             "write that there yourself"]


def test_a_cgroup_of_its_own_goes_again(box: FakeBox) -> None:
    box.cgroup("sys/fs/cgroup/mine")
    assert (box.root / "sys/fs/cgroup/mine").is_dir()
    box.cgroup(CGROUP)
    assert box.restore() == []
    assert not (box.root / "sys/fs/cgroup/mine").exists()
    assert (box.root / CGROUP).is_dir()


@pytest.mark.parametrize(("name", "text", "sentence"), [
    (f"{PARAMETERS}/enabled", "N", "zswap is off"), (f"{PARAMETERS}/enabled", "", "no zswap"),
    ("proc/swaps", "Filename\n", "no swap")])
def test_a_box_that_is_not_ready(box: FakeBox, name: str, text: str, sentence: str) -> None:
    (box.root / name).write_text(text)
    with pytest.raises(NotReady, match=sentence):
        box.check(False)


def test_folio_that_the_kernel_does_not_have(box: FakeBox) -> None:
    with pytest.raises(NotReady, match=r"16 kB \(it has: 2048kB, 64kB\)"):
        box.folio(16384)


# Scenarios, on memory that nothing swaps out


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_scenario(box: FakeBox, tmp_path: Path, name: str) -> None:
    before = settings(box)
    status, markers = run(box, tmp_path, name, "--pages", "128", "--procs", "2" if name == "smp" else "1")
    assert status == 0
    assert settings(box) == before
    phases = re.findall(r"phase ([a-z][a-z0-9-]*?)(?=phase|param|cgroup|workload|$)", markers)
    assert phases[-2:] == ["final", "exit"]
    assert len(set(phases)) == len(phases)
    labels = {path.name.removeprefix("counters-").removesuffix(".json")
              for path in (tmp_path / "capture").glob("counters-*.json")}
    assert {f"after-{phase}" for phase in phases} <= labels
    rows = list(csv.DictReader((tmp_path / "capture" / "truth.csv").read_text().splitlines()))
    assert {row["phase"] for row in rows} <= set(phases)
    assert all(re.fullmatch("[0-9a-f]{40}", row["sha1"]) and row["swap_offset"] == "-1" for row in rows)
    assert len({(row["phase"], row["page"]) for row in rows}) == len(rows)


def test_each_change_is_announced_before_it(box: FakeBox, tmp_path: Path) -> None:
    _, markers = run(box, tmp_path, "limits", "--pages", "64")
    assert markers.index("cgroup memory.zswap.max=0") < markers.index("cgroup memory.zswap.max=max")
    assert "param max_pool_percent=1" in markers
    assert markers.rindex("param accept_threshold_percent=90") > markers.index("param accept_threshold_percent=50")


@pytest.mark.parametrize("folio", ["4k", "64k", "2M"])
def test_folios_are_paged_out_whole(box: FakeBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folio: str) -> None:
    # The kernel splits a folio that it pages out in parts: no large one would reach zswap.
    asked: list[tuple[str, dict[str, int]]] = []
    real = WorkloadDriver._all

    def spy(driver: WorkloadDriver, operation: str, region: str, **arguments: Any) -> list[Any]:
        if operation == "out":
            asked.append((region, arguments))
        return real(driver, operation, region, **arguments)

    monkeypatch.setattr(WorkloadDriver, "_all", spy)
    status, _ = run(box, tmp_path, "limits", "--pages", "64", "--folio", folio)
    assert status == 0
    unit = FOLIOS[folio] // PAGE_SIZE
    assert not [where for _, where in asked for name in ("first", "last", "chunk") if where.get(name, 0) % unit]
    parts = [(where.get("first", 0), where.get("last")) for region, where in asked if region == "g"]
    some = max(160, 5 * unit)
    assert parts == [(0, some * 3 // 5), (some * 3 // 5, some * 4 // 5), (0, None)]
    parts = [(where.get("first", 0), where.get("last")) for region, where in asked if region == "c"]
    some = max(256, 4 * unit)
    assert parts == [(0, some // 4), (some // 4, some // 2), (some // 2, None), (0, None)]


def test_large_folios_and_files_as_content(box: FakeBox, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(random.Random(1).randbytes(8 * PAGE_SIZE))
    before = settings(box)
    status, _ = run(box, tmp_path, "base", "--pages", "64", "--folio", "64k", "--content", str(dump))
    assert status == 0
    assert settings(box) == before
    rows = list(csv.DictReader((tmp_path / "capture" / "truth.csv").read_text().splitlines()))
    assert {row["kind"] for row in rows} == {"file"}


def test_settings_are_put_back_when_a_worker_dies(box: FakeBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    def dies(driver: WorkloadDriver) -> None:
        driver.param("max_pool_percent", 1)
        driver.memcg("memory.zswap.max", 0)
        driver.map("a", 16, "mixed")
        os.kill(driver.workers[0].pid, 9)
        driver.read("a")

    monkeypatch.setitem(SCENARIOS, "base", dies)
    before = settings(box)
    status, markers = run(box, tmp_path, "base", "--compressor", "lz4")
    assert status == 2
    assert "worker 0 died (signal 9)" in capsys.readouterr().err
    assert settings(box) == before
    assert markers.endswith("cgroup memory.zswap.max=maxparam max_pool_percent=20param compressor=zstd")


def test_settings_are_put_back_after_an_exception(box: FakeBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(driver: WorkloadDriver) -> None:
        driver.param("enabled", "N")
        raise ZeroDivisionError

    monkeypatch.setitem(SCENARIOS, "base", breaks)
    before = settings(box)
    with pytest.raises(ZeroDivisionError):
        run(box, tmp_path, "base")
    assert settings(box) == before


def test_a_wrong_page_is_status_1(box: FakeBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    real = Region.read

    def read(self: Region, *where: int, **more: int) -> tuple[int, list[int]]:
        self.map[self._bytes(3)] = b"?" * PAGE_SIZE
        return real(self, *where, **more)

    monkeypatch.setattr(Region, "read", read)
    status, _ = run(box, tmp_path, "base", "--pages", "64")
    assert status == 1
    assert "page 3 of region a, worker 0" in capsys.readouterr().err


def test_a_dead_worker_is_told_from_an_answer(box: FakeBox) -> None:
    driver = WorkloadDriver(box, MadePages(1), cgroup=CGROUP, pages=16)
    driver.start()
    try:
        driver._regions["nosuch"] = 0
        with pytest.raises(WorkerDied, match="status 1"):
            driver.read("nosuch")
    finally:
        assert driver.finish() == []


def test_a_worker_that_dies_in_the_middle_of_an_answer(box: FakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver gets the answer up to there."""
    def half(operations: object, orders: TextIO, results: TextIO) -> None:
        orders.readline()
        results.write('{"half": "an ans')
        results.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(worker_module, "_serve", half)
    driver = WorkloadDriver(box, MadePages(1), cgroup=CGROUP, pages=16)
    driver.start()
    try:
        driver._regions["a"] = 0
        with pytest.raises(WorkerDied, match="signal 9"):
            driver.read("a")
    finally:
        assert driver.finish() == []


# Snapshots


def test_snapshots_are_asked_of_a_recorder(tmp_path: Path) -> None:
    control = tmp_path / "control"
    os.mkfifo(control)

    def recorder() -> None:
        # Open for both, as the recorder has it: the pipe does not end when a writer closes it.
        with os.fdopen(os.open(control, os.O_RDWR)) as pipe:
            for number in range(2):
                word, label = pipe.readline().split()
                assert word == "snapshot"
                (tmp_path / f"counters-{number:03d}-{label}.json").write_text("{}")

    thread = threading.Thread(target=recorder, daemon=True)
    thread.start()
    ask = asker({control.parent: control})
    ask(tmp_path, "after-out1", tmp_path)
    ask(tmp_path, "after-out1", tmp_path)
    thread.join()
    assert len(list(tmp_path.glob("counters-*.json"))) == 2


def test_snapshots_without_a_recorder(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "x", tmp_path)
    text = (tmp_path / "counters-x.json").read_text()
    assert '"t"' in text
    assert '"zswap_debugfs"' in text
    assert (tmp_path / "counters-x.json").stat().st_mode & 0o777 == 0o600


# The package


def test_it_needs_the_standard_library_only() -> None:
    directory = Path(traces.workload.__file__).parent
    for path in directory.glob("*.py"):
        for name in re.findall(r"^\s*(?:from|import) ([a-z][\w.]*)", path.read_text(), re.M):
            assert name == "traces.events" or stdlib_imports([path]) >= {name}, (path, name)


def test_it_runs_from_its_directory() -> None:
    directory = Path(traces.workload.__file__).parent
    result = subprocess.run([sys.executable, "-I", "-S", str(directory), "--help"], capture_output=True, text=True,
                            check=True, env={})
    assert "max_pool_percent" in result.stdout


@pytest.mark.parametrize("name", ["lz4", "lzo", "zstd", "deflate"])
def test_a_dense_page_has_a_page_of_zsmalloc_s_to_itself(name: str) -> None:
    """So a pool of them comes to its limits one page at a time: zsmalloc's chains are 4 to 16 pages long."""
    source = MadePages(3)
    lengths = [compressor_for(name, "mainline-7.3").compress(KINDS["dense"](source, random.Random(number))).dlen
               for number in range(4)]
    assert max(lengths) < PAGE_SIZE
    for chain in (4, 8, 16):
        # An object has its handle before it.
        assert min(lengths) + 8 > huge_class_size(chain), chain
