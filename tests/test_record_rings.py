# SPDX-License-Identifier: GPL-2.0-or-later
"""Rings on their way into a capture: copied without being looked at, pages hashed in a process of their own, packed."""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import traces
from tests import ringbuilder as rb
from tests.test_record_capture import NONE_LOST, PAGES, make, rows
from traces.errors import BadInput
from traces.importers import import_source
from traces.importers.capture import CaptureReader
from traces.record import packing, session
from traces.record import rings as rings_module
from traces.record.capture import AppendFile, CaptureWriter
from traces.record.packing import pack
from traces.record.pages import PageMode, PageTaker
from traces.record.pageworker import PageWorker
from traces.record.rings import RingCopier, RingReader
from traces.record.waiter import Waiter

SUBBUF = os.sysconf("SC_PAGE_SIZE")
KEY = b"k" * 32


def subbuffer(number: int) -> bytes:
    return bytes([number]) * SUBBUF


class Fifo:
    """A pipe that stands for a CPU's trace_pipe_raw."""

    def __init__(self, root: Path, cpu: int = 0) -> None:
        self.cpu, self.path = cpu, root / f"cpu{cpu}"
        self.path.mkdir()
        os.mkfifo(self.path / "trace_pipe_raw")
        self.end = -1

    def open(self) -> None:
        """Begin to write; a reader must be open."""
        self.end = os.open(self.path / "trace_pipe_raw", os.O_WRONLY)

    def write(self, data: bytes) -> None:
        os.write(self.end, data)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    made = Fifo(tmp_path)
    yield made
    if made.end >= 0:
        os.close(made.end)


def copier(fifo: Fifo, out: Path) -> RingCopier:
    made = RingCopier([(fifo.cpu, fifo.path)], SUBBUF, 1 << 20, lambda cpu: AppendFile(out / f"cpu{cpu}.raw"))
    fifo.open()
    return made


@pytest.mark.parametrize("splices", [True, False])
def test_rings_are_copied_as_they_are(tmp_path: Path, fifo: Fifo, splices: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not splices:
        # As in Python 3.9.
        monkeypatch.delattr(os, "splice", raising=False)
    rings = copier(fifo, tmp_path)
    assert rings.round() == 0
    assert not (tmp_path / "cpu0.raw").exists()
    expected = b""
    for first in (1, 6):
        data = b"".join(subbuffer(first + number) for number in range(5))
        fifo.write(data)
        expected += data
        assert rings.round() == len(data)
        assert rings.round() == 0
    assert (tmp_path / "cpu0.raw").read_bytes() == expected
    # The files hold what a flush says.
    assert rings._files[0].size == len(expected)
    rings.close()


def test_most_of_a_ring_is_not_copied_through_python(tmp_path: Path, fifo: Fifo, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "splice"):
        pytest.skip("this Python has no splice()")
    rings = copier(fifo, tmp_path)
    written: list[int] = []
    real = AppendFile.write
    monkeypatch.setattr(AppendFile, "write", lambda self, data: (written.append(len(data)), real(self, data))[1])
    fifo.write(b"".join(map(subbuffer, range(9))))
    rings.round()
    assert sum(written) == SUBBUF
    rings.close()


@pytest.mark.parametrize("where", ["ring", "file"])
def test_what_does_not_take_splice_is_read(tmp_path: Path, fifo: Fifo, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rings = copier(fifo, tmp_path)
    real = getattr(os, "splice", None)
    if real is None:
        pytest.skip("this Python has no splice()")

    def splice(source: int, target: int, size: int) -> int:
        if (where == "ring") == (source in rings.pipes()):
            raise OSError(errno.EINVAL, "no")
        return int(real(source, target, size))

    monkeypatch.setattr(os, "splice", splice)
    data = b"".join(map(subbuffer, range(7)))
    fifo.write(data)
    assert rings.round() == len(data)
    fifo.write(data)
    assert rings.round() == len(data)
    assert (tmp_path / "cpu0.raw").read_bytes() == 2 * data
    rings.close()


def test_a_full_disk_is_no_reason_to_copy_again(tmp_path: Path, fifo: Fifo, monkeypatch: pytest.MonkeyPatch) -> None:
    rings = copier(fifo, tmp_path)
    real = getattr(os, "splice", None)
    if real is None:
        pytest.skip("this Python has no splice()")

    def splice(source: int, target: int, size: int) -> int:
        if source not in rings.pipes():
            raise OSError(errno.ENOSPC, "full")
        return int(real(source, target, size))

    monkeypatch.setattr(os, "splice", splice)
    fifo.write(b"".join(map(subbuffer, range(3))))
    with pytest.raises(OSError, match="full"):
        rings.round()
    rings.close()


@pytest.mark.parametrize("seconds", [math.inf, 0.05])
def test_no_ring_keeps_the_others_waiting(tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = [Fifo(tmp_path, cpu) for cpu in range(2)]
    sizes = [0, 0]

    def take(cpu: int, data: bytes) -> None:
        sizes[cpu] += len(data)
        assert sizes[cpu] < 1 << 30

    reader = RingReader([(cpu.cpu, cpu.path) for cpu in cpus], SUBBUF, 16 * SUBBUF if seconds == math.inf else 1 << 40,
                        take, SUBBUF)
    # Events come as fast as they are read.
    monkeypatch.setattr(rings_module, "_read", lambda pipe, size: bytes(size))
    reader.round(seconds)
    if seconds == math.inf:
        assert sizes == [17 * SUBBUF] * 2
    else:
        # There was time for one, and the other comes first the next time.
        assert sizes[0] > sizes[1] == 0
        reader.round(seconds)
        assert sizes[1] > 0
    reader.close()


# Waiting


def test_a_wait_ends_with_what_there_is_to_do(fifo: Fifo) -> None:
    ring = os.open(fifo.path / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
    fifo.open()
    control, orders = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with Waiter(control, [[], [ring]], child) as waiter:
            assert waiter.wait(0.01) == (False, False, [False, False, False])
            os.write(orders, b"stop\n")
            assert waiter.wait(60.0)[1]
            os.read(control, 10)
            fifo.write(b"x")
            assert waiter.wait(60.0)[2] == [False, True, False]
            # A ring that stays full does not keep the recorder awake...
            began = time.monotonic()
            assert waiter.wait(0.05)[2] == [False, False, False]
            assert time.monotonic() - began >= 0.04
            # ...and is asked again after that.
            assert waiter.wait(60.0)[2] == [False, True, False]
            child.communicate(b"\n")
            assert waiter.wait(60.0)[0] == hasattr(os, "pidfd_open")
    finally:
        child.kill()
        child.wait()
        for end in (ring, control, orders):
            os.close(end)


def test_a_busy_ring_of_events_does_not_hide_a_full_one_of_pages() -> None:
    control, orders = os.pipe()
    rings = [os.pipe() for _ in range(2)]
    for _, end in rings:
        os.write(end, b"x")
    try:
        with Waiter(control, [[rings[0][0]], [rings[1][0]]], None) as waiter:
            assert [waiter.wait(60.0)[2] for _ in range(3)] == [[True, True, False], [True, False, False],
                                                               [True, True, False]]
    finally:
        for end in (control, orders, *rings[0], *rings[1]):
            os.close(end)


# Pages


def worker(tmp_path: Path, fifo: Fifo, how: str = "full") -> tuple[PageWorker, CaptureWriter, Path]:
    path = tmp_path / "c"
    capture = CaptureWriter(path)
    capture.foreign = "pages.cpu*"
    taker = PageTaker(PageMode(how), {f"pg0_{half}": rb.EVENTS[f"pg{half}"].text() for half in (0, 1)}, 16384,
                      capture.appending, KEY)
    reader = RingReader([(fifo.cpu, fifo.path)], 16384, 1 << 20, taker, 16384)
    made = PageWorker(reader, taker, lambda: None)
    fifo.open()
    return made, capture, path


def halves() -> bytes:
    """Return the test's pages as a ring holds them."""
    return rb.ring([record for number, page in enumerate(PAGES)
                    for record in rb.page_halves(1000 * number + 1100, rb.PAGE_OFFSET + 4096 * number, page)], 16384)


def test_pages_are_hashed_in_a_process_of_their_own(tmp_path: Path, fifo: Fifo) -> None:
    made, capture, path = worker(tmp_path, fifo)
    fifo.write(halves())
    made.check()
    made.hurry(0)
    assert made.end(0) == {"pages": len(PAGES), "broken": 0}
    capture.flush(5, {}, wait=True)
    capture.close()
    assert (path / "pages.cpu0.bin").read_bytes() == b"".join(PAGES)
    lines = (path / "pages.cpu0.idx").read_text().split()
    assert [line.split(",")[3] for line in lines[1:]] == [hashlib.sha1(page).hexdigest() for page in PAGES]
    # Its files take part in flushes.
    flushed = (path / "flushed.jsonl").read_text()
    assert f'"pages.cpu0.bin": {4096 * len(PAGES)}' in flushed
    assert f'"pages.cpu0.idx": {(path / "pages.cpu0.idx").stat().st_size}' in flushed
    made.close()


def becomes_idle(pid: int) -> bool:
    """Wait until a hasher waits for an idle CPU."""
    deadline = time.monotonic() + 20
    while os.sched_getscheduler(pid) != os.SCHED_IDLE and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.sched_getscheduler(pid) == os.SCHED_IDLE


def may_leave_idle() -> bool:
    """True when a process may take another out of SCHED_IDLE: CAP_SYS_NICE or RLIMIT_NICE, see sched_setscheduler(2)."""
    program = "import os\nfor kind in (os.SCHED_IDLE, os.SCHED_OTHER): os.sched_setscheduler(0, kind, os.sched_param(0))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_pages_wait_for_an_idle_cpu(tmp_path: Path, fifo: Fifo) -> None:
    made, capture, _ = worker(tmp_path, fifo)
    assert becomes_idle(made._pid)
    if not may_leave_idle():
        # The recorder runs as root; without root the test checks that a refusal does no harm.
        made.hurry(0)
        made.close()
        capture.close()
        pytest.skip("only root, or who may lower a niceness (ulimit -e), takes a process out of SCHED_IDLE")
    made.hurry(0)
    assert os.sched_getscheduler(made._pid) == os.SCHED_OTHER
    # When nothing is left it steps back by itself.
    assert becomes_idle(made._pid)
    made.close()
    made.close()
    capture.close()


def test_a_hasher_leaves_signals_to_its_recorder(tmp_path: Path, fifo: Fifo) -> None:
    made, capture, _ = worker(tmp_path, fifo)
    assert becomes_idle(made._pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(made._pid, number)
    fifo.write(halves())
    assert made.end(0) == {"pages": len(PAGES), "broken": 0}
    capture.close()


def test_a_hasher_that_died_is_told(tmp_path: Path, fifo: Fifo) -> None:
    made, capture, _ = worker(tmp_path, fifo)
    os.kill(made._pid, signal.SIGKILL)
    with pytest.raises(OSError, match="was killed"):
        made.end(0)
    capture.close()


@pytest.mark.parametrize("why", ["SIGCHLD", "EPERM"])
def test_pages_are_hashed_where_less_is_allowed(tmp_path: Path, fifo: Fifo, why: str,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    before = signal.getsignal(signal.SIGCHLD)
    if why == "SIGCHLD":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    else:
        monkeypatch.setattr(os, "sched_setscheduler", refused)
    try:
        made, capture, _ = worker(tmp_path, fifo)
        # Longer than it waits before it wants another priority.
        assert not select.select([made._answers], [], [], 0.5)[0]
        fifo.write(halves())
        assert made.end(0) == {"pages": len(PAGES), "broken": 0}
        capture.close()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_hasher_says_why_it_cannot_go_on(tmp_path: Path, fifo: Fifo) -> None:
    (tmp_path / "there").mkdir()
    made, capture, path = worker(tmp_path, fifo)
    # The file that it wants to make exists already.
    (path / "pages.cpu0.idx").write_text("")
    fifo.write(halves())
    select.select([made._answers], [], [], 20)
    with pytest.raises(OSError, match="File exists"):
        made.check()
    capture.close()


def test_a_hasher_holds_nothing_of_tracefs_but_its_rings(tmp_path: Path) -> None:
    class Lock:
        def __init__(self) -> None:
            self.fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

        def unlock(self) -> None:
            os.close(self.fd)

    fifos = [Fifo(tmp_path, cpu) for cpu in (0, 1)]
    made = session.Session.__new__(session.Session)
    made.tracefs = Lock()  # type: ignore[assignment]
    made.capture = CaptureWriter(tmp_path / "c")
    made._taker = PageTaker(PageMode("hash"), {}, 16384, made.capture.appending)
    made._readers = [RingCopier([(0, fifos[0].path)], SUBBUF, 1 << 20, made._events_file),
                     RingReader([(0, fifos[1].path)], 16384, 1 << 20, made._taker, 16384)]
    made._hand_over_pages()
    assert made._worker is not None
    # Once it waits for an idle CPU it has closed the rest.
    assert becomes_idle(made._worker._pid)
    held = {os.readlink(link) for link in Path(f"/proc/{made._worker._pid}/fd").iterdir()}
    made._worker.close()
    for reader in made._readers:
        reader.close()
    made.tracefs.unlock()
    made.capture.close()
    assert str(fifos[1].path / "trace_pipe_raw") in held
    assert not held & {str(tmp_path), str(fifos[0].path / "trace_pipe_raw")}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_hasher_goes_with_its_recorder(tmp_path: Path, stopped: bool) -> None:
    # One that is stopped does not look at the pipe between the two, as one that gets no CPU does not.
    program = f"""
import os, signal, sys, time
from tests.test_record_rings import Fifo, becomes_idle, worker
from pathlib import Path
root = Path({str(tmp_path)!r})
made, capture, path = worker(root, Fifo(root))
assert becomes_idle(made._pid)
if {stopped}:
    os.kill(made._pid, signal.SIGSTOP)
print(made._pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as recorder:
        assert recorder.stdout is not None
        pid = int(recorder.stdout.readline())
        recorder.kill()
    deadline = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


# Packing


def packed(path: Path, pages: str = "none") -> None:
    """Make a capture and pack it as a recorder does at its end."""
    make(path, pages=pages)
    for name in [path.name for path in sorted(path.iterdir()) if path.suffix in (".raw", ".idx", ".bin")]:
        pack(path / name, lambda: False)
    sizes = {file.name: file.stat().st_size for file in path.iterdir() if file.suffix == ".xz"}
    with (path / "flushed.jsonl").open("a") as log:
        log.write(json.dumps({"flushed": 9000, "sizes": sizes, "losses": {"0": NONE_LOST, "1": NONE_LOST}}) + "\n")


def test_packed_files_hold_what_they_held(tmp_path: Path) -> None:
    content = b"".join(map(subbuffer, range(100))) + os.urandom(3 << 20)
    (tmp_path / "f").write_bytes(content)
    found = pack(tmp_path / "f", lambda: False)
    assert found == tmp_path / "f.xz"
    assert [path.name for path in tmp_path.iterdir()] == ["f.xz"]
    assert lzma.decompress(found.read_bytes()) == content
    assert found.stat().st_mode & 0o777 == 0o600


def test_a_file_goes_when_its_packed_form_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(bytes(10000))
    steps: list[tuple[str, list[str]]] = []

    def noted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def step(*words: Any, **named: Any) -> Any:
            steps.append((name, sorted(path.name for path in tmp_path.iterdir())))
            return real(*words, **named)

        monkeypatch.setattr(owner, name, step)

    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink")):
        noted(owner, name)
    pack(tmp_path / "f", lambda: False)
    assert steps == [("fsync", [".f.xz.part", "f"]), ("rename", [".f.xz.part", "f"]), ("unlink", ["f", "f.xz"])]


def test_a_python_without_lzma_packs_with_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "lzma", None)
    (tmp_path / "f").write_bytes(bytes(10000))
    found = pack(tmp_path / "f", lambda: False)
    assert found is not None
    assert found.name == "f.gz"
    assert zlib.decompress(found.read_bytes(), 31) == bytes(10000)


def test_packing_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 << 20))
    answers = iter([False, True])
    assert pack(tmp_path / "f", lambda: next(answers)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_disk_without_room_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(bytes(100))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        pack(tmp_path / "f", lambda: False)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_recorder_packs_and_says_what_is_there(tmp_path: Path) -> None:
    capture = CaptureWriter(tmp_path / "c")
    capture.appending("zmeta.cpu0.raw").write(bytes(5000))
    capture.flush(5, {}, wait=True)
    capture.pack(lambda: False)
    capture.flush(5, {}, wait=True)
    capture.close()
    size = (tmp_path / "c" / "zmeta.cpu0.raw.xz").stat().st_size
    assert not (tmp_path / "c" / "zmeta.cpu0.raw").exists()
    lines = (tmp_path / "c" / "flushed.jsonl").read_text().splitlines()
    assert lines[-1] == f'{{"flushed": 5, "sizes": {{"zmeta.cpu0.raw.xz": {size}}}, "losses": {{}}}}'


@pytest.mark.parametrize("pages", ["none", "hash", "sample:2", "full"])
def test_a_packed_capture_is_imported_as_it_was(tmp_path: Path, pages: str) -> None:
    make(tmp_path / "c", pages=pages)
    import_source(tmp_path / "c", tmp_path / "r")
    packed(tmp_path / "p", pages)
    assert not list((tmp_path / "p").glob("*.raw"))
    import_source(tmp_path / "p", tmp_path / "q")
    left, right = traces.open_recording(tmp_path / "r"), traces.open_recording(tmp_path / "q")
    assert right.manifest["complete"]
    assert rows(tmp_path / "q") == rows(tmp_path / "r")
    assert (left.pages is None) == (right.pages is None) == (pages == "none")
    if left.pages is not None and right.pages is not None and pages == "full":
        assert left.pages.sha1 == right.pages.sha1
        assert list(left.pages.blocks()) == list(right.pages.blocks())


@pytest.mark.parametrize("number", range(1, 5))
def test_a_kill_while_it_packs_costs_nothing(tmp_path: Path, number: int) -> None:
    make(tmp_path / "c", pages="full")
    import_source(tmp_path / "c", tmp_path / "r")
    names = [path.name for path in sorted((tmp_path / "c").iterdir()) if path.suffix in (".raw", ".idx", ".bin")]
    for name in names[:number]:
        pack(tmp_path / "c" / name, lambda: False)
    if number < len(names):
        (tmp_path / "c" / f".{names[number]}.xz.part").write_bytes(b"half")
    # Between the new name and the old one's end both are there.
    (tmp_path / "c" / names[number - 1]).write_bytes(
        lzma.decompress((tmp_path / "c" / f"{names[number - 1]}.xz").read_bytes()))
    import_source(tmp_path / "c", tmp_path / "q")
    assert traces.open_recording(tmp_path / "q").manifest["complete"]
    assert rows(tmp_path / "q") == rows(tmp_path / "r")
    assert traces.open_recording(tmp_path / "q").manifest["losses"] == \
        traces.open_recording(tmp_path / "r").manifest["losses"] or number > 2


@pytest.mark.parametrize("name", ["zmeta.cpu0.raw.xz", "pages.cpu0.idx.xz", "pages.cpu0.bin.xz"])
def test_a_packed_capture_that_was_cut_is_not_complete(tmp_path: Path, name: str) -> None:
    packed(tmp_path / "c", "full")
    path = tmp_path / "c" / name
    data = path.read_bytes()
    for size in range(0, len(data), max(1, len(data) // 9)):
        path.write_bytes(data[:size])
        capture = CaptureReader.find(tmp_path / "c")
        assert capture is not None
        assert not capture.complete
        import_source(tmp_path / "c", tmp_path / "q")
        assert not traces.open_recording(tmp_path / "q", verify=False).manifest["complete"]
        shutil.rmtree(tmp_path / "q")


def test_pages_out_of_order_come_out_of_a_packed_dump(tmp_path: Path) -> None:
    from traces.importers import capture as module

    pages = [bytes([number]) * 4096 for number in range(40)]
    path = tmp_path / "pages.cpu0.bin.xz"
    path.write_bytes(lzma.compress(b"".join(pages)))
    dump = module._Dump(path)
    module_recent = module._RECENT
    try:
        module._RECENT = 8  # type: ignore[misc]
        for number in (3, 1, 0, 39, 38, 2, 20):
            assert dump.page(number) == pages[number]
        with pytest.raises(BadInput, match="ends before"):
            dump.page(40)
    finally:
        module._RECENT = module_recent  # type: ignore[misc]
        dump.close()


def test_flushes_go_on_beside_the_hasher(tmp_path: Path, fifo: Fifo) -> None:
    # A flush is made by a thread: a process that was begun before it knows nothing of it.
    made, capture, path = worker(tmp_path, fifo, "hash")
    capture.appending("zmeta.cpu0.raw").write(b"x")
    capture.flush(1, {}, wait=True)
    fifo.write(halves())
    made.end(0)
    capture.flush(2, {}, wait=True)
    capture.close()
    text = (path / "flushed.jsonl").read_text().splitlines()
    assert "pages.cpu0.idx" not in text[0]
    assert "pages.cpu0.idx" in text[1]
    assert not (path / "pages.cpu0.bin").exists()


def test_a_capture_that_cannot_be_packed_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Full(CaptureWriter):
        def pack(self, stop: Callable[[], bool]) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    made = session.Session.__new__(session.Session)
    made._niceness = os.getpriority(os.PRIO_PROCESS, 0)
    made.capture = Full(tmp_path / "c")
    made.capture.appending("zmeta.cpu0.raw").write(b"x")
    made.capture.flush(5, {}, wait=True)
    made._pack(5, {})
    made.capture.close()
    assert "the capture is whole" in capsys.readouterr().err
    assert (tmp_path / "c" / "zmeta.cpu0.raw").read_bytes() == b"x"
