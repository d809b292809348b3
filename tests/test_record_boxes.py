# SPDX-License-Identifier: GPL-2.0-or-later
"""Real boxes: CPUs that are off, come and go, many of them, full disks, and other processes of root."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import traces
from replay import replay
from replay.verdict.losses import losses_of
from tests import ringbuilder as rb
from tests.test_record_box import fake_tracefs, tree
from tests.test_record_capture import NONE_LOST, SIZE, make, rows, status, subbuffers
from tests.test_record_rings import Fifo
from traces.errors import BadInput
from traces.files import Reopened
from traces.importers import import_source
from traces.importers.runfacts import read_truth
from traces.record import openfiles, pageworker, session, waiter
from traces.record.capture import CaptureWriter
from traces.record.command import main
from traces.record.cpus import Cpus, cpu_numbers, cpu_text
from traces.record.errors import CannotRecord
from traces.record.holders import held_by
from traces.record.names import TracefsNames
from traces.record.oserrors import kernel_step, next_step
from traces.record.rings import RingReader
from traces.record.tracefs import Instance, Tracefs
from traces.record.waiter import Waiter
from traces.record.watch import Watch

TRUTH = "phase,page,kind,sha1,swap_type,swap_offset\n"
ON = "sys/devices/system/cpu/online"


def in_child(files: int, code: str, hard: int = 0) -> subprocess.CompletedProcess[str]:
    """Run code in a process that may have ``files`` files open."""
    before = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {hard or files}))\n"
    return subprocess.run([sys.executable, "-c", before + code], cwd=Path(__file__).parents[1], text=True,
                          capture_output=True, check=False, timeout=300)


# ---- CPUs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "numbers"), [("0-3", [0, 1, 2, 3]), ("0,2-3,8", [0, 2, 3, 8]), ("5\n", [5]), ("", [])])
def test_lists_of_cpus(text: str, numbers: list[int]) -> None:
    assert cpu_numbers(text) == numbers
    assert cpu_text(numbers) == text.strip()


def test_cpus_that_come_and_go(tmp_path: Path) -> None:
    tree(tmp_path, {ON: "0-1\n"})
    cpus = Cpus(tmp_path)
    tree(tmp_path, {ON: "0,3\n"})
    cpus.look()
    assert [(number, online) for number, online, _ in cpus.changes] == [(1, False), (3, True)]
    # A ring stays when its CPU goes off.
    assert [number for number in range(5) if cpus.has_ring(number)] == [0, 1, 3]
    assert Cpus(tmp_path / "nothing").has_ring(7), "where the kernel does not say, all have one"


def test_only_cpus_that_were_online_are_read(tmp_path: Path) -> None:
    """smt=off: per_cpu has a directory for each CPU that could be there, and a read of the others' rings is ENODEV."""
    tree(tmp_path, {ON: "0,2\n", **{f"i/per_cpu/cpu{cpu}/trace_pipe_raw": bytes([cpu]) * SIZE for cpu in range(4)}})
    instance = Instance.__new__(Instance)
    instance.path, instance._cpus, instance._all = tmp_path / "i", Cpus(tmp_path), []
    assert [number for number, _ in instance.cpus()] == [0, 2]
    taken: list[int] = []
    reader = RingReader(instance.cpus(), SIZE, 1 << 20, lambda cpu, data: taken.append(cpu))
    reader.more = instance.cpus
    reader.round()
    assert (taken, len(reader.pipes())) == ([0, 2], 2)
    tree(tmp_path, {ON: "0-2\n"})
    reader.round()
    assert (taken, len(reader.pipes())) == ([0, 2, 1], 3)
    # A CPU that was online only for a moment has a ring, too.
    reader.rest()
    assert (taken, sorted(reader.numbers())) == ([0, 2, 1, 3], [0, 1, 2, 3])
    assert set(instance.losses()) == {"0", "1", "2"}
    reader.close()


def test_a_cpu_without_a_ring_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """poll() says POLLERR of it at once and for ever, so that nothing may wait for it."""
    fifos = [Fifo(tmp_path, cpu) for cpu in (0, 1)]
    real = waiter.select.poll

    class Poll:
        def __init__(self) -> None:
            self.poll_, self.fds = real(), []

        def register(self, fd: int, events: int) -> None:
            self.fds.append(fd)

        def poll(self, _timeout: int) -> list[tuple[int, int]]:
            return [(fd, waiter.select.POLLERR) for fd in self.fds if "cpu1" in os.readlink(f"/proc/self/fd/{fd}")]

    monkeypatch.setattr(waiter.select, "poll", Poll)
    before = len(os.listdir("/proc/self/fd"))
    reader = RingReader([(cpu, fifo.path) for cpu, fifo in enumerate(fifos)], SIZE, 1 << 20, lambda cpu, data: None)
    assert reader.numbers() == [0]
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_ring_that_comes_is_waited_for(tmp_path: Path) -> None:
    fifos = [Fifo(tmp_path, cpu) for cpu in (0, 1, 2)]
    pipes = [os.open(fifo.path / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK) for fifo in fifos]
    control, other = os.pipe()
    for fifo in fifos:
        fifo.open()
    with Waiter(control, [[pipes[0]], []], None) as sleeper:
        sleeper.follow([[pipes[0], pipes[1]], [pipes[2]]])
        fifos[1].write(b"x")
        assert sleeper.wait(5) == (False, False, [True, False, False])
        os.read(pipes[1], 10)
        fifos[2].write(b"x")
        assert sleeper.wait(5) == (False, False, [False, True, False])
    for fd in (*pipes, control, other, *(fifo.end for fifo in fifos)):
        os.close(fd)


def test_a_recording_says_which_cpus_came_and_went(tmp_path: Path) -> None:
    make(tmp_path / "c")
    changes = [{"cpu": 1, "online": False, "ts": 2000}, {"cpu": "x"}, 7,
               *({"cpu": cpu, "online": True, "ts": 3000} for cpu in (5, 4, 7))]
    said = {"online": "0-1", "rings": "0-1", "changes": changes}
    (tmp_path / "c" / "capture.json").write_text(json.dumps(status(True, cpus=said)))
    summary = import_source(tmp_path / "c", tmp_path / "r")
    assert summary["notes"] == ["CPU 1 went offline while it was recorded", "CPUs 4-5,7 came online while it was recorded"]
    assert traces.open_recording(tmp_path / "r").manifest["capture"]["cpus"] == said
    assert [loss["lost"] for loss in summary["losses"]] == [0, 0], "its ring keeps what it had"


# ---- many CPUs ----------------------------------------------------------------------------------------------


MANY = 1100


def many(path: Path, packed: bool) -> None:
    capture = CaptureWriter(path)
    rb.write_formats(path / "formats", SIZE, ["store", "comp", "async_free"])
    losses = {str(cpu): NONE_LOST for cpu in range(MANY)}
    capture.write_json("capture.json", status(True, losses={"cpus": losses, "probes": {}}))
    for number, (label, ts) in enumerate((("before", 900), ("end", 8800))):
        rb.write_counters(path / f"counters-{number:03d}-{label}.json", ts, {"compressor": "lz4"})
    events = b"".join(subbuffers(0, 1000, 12000))
    for cpu in range(MANY):
        capture.appending(f"zmeta.cpu{cpu}.raw").write(events)
    capture.flush(9000, losses, wait=True)
    if packed:
        capture.pack(lambda: False)
        capture.flush(9000, losses, wait=True)
    capture.close()


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
def test_an_import_of_1100_cpus_needs_few_open_files(tmp_path: Path, packed: bool) -> None:
    before = openfiles.allow(3 * MANY, 0, "the test's files")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < MANY + 64:
        pytest.skip("this process may not have as many open files as the capture it makes")
    many(tmp_path / "c", packed)
    openfiles.back_to(before)
    # Of a real capture no ring is read to its end before the others are begun.
    done = in_child(64, f"from traces.importers import import_source, rings, source; source._LEAST_ROWS = source.BLOCK_ROWS = 1; "
                        f"rings._CHUNK = {SIZE}; "
                        f"print(len(import_source({str(tmp_path / 'c')!r}, {str(tmp_path / 'r')!r})['losses']))")
    assert (done.stdout, done.stderr) == (f"{MANY}\n", "")
    assert len(set(traces.open_recording(tmp_path / "r").frame(["cpu"]).cpu)) == MANY


def test_1100_rings_are_read_where_the_limit_can_be_raised(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip("this process may not have as many open files")
    tree(tmp_path, {f"cpu{cpu}/trace_pipe_raw": bytes(SIZE) for cpu in range(MANY)})
    done = in_child(256, f"""
from pathlib import Path
from traces.record.capture import AppendFile
from traces.record.openfiles import allow
from traces.record.rings import RingCopier
root = Path({str(tmp_path)!r})
allow({2 * MANY}, {2 * MANY}, "the rings")
rings = RingCopier([(cpu, root / f"cpu{{cpu}}") for cpu in range({MANY})], {SIZE}, 1 << 20,
                   lambda cpu: AppendFile(root / f"{{cpu}}.raw"))
print(rings.round())
rings.close()
""", hard=3000)
    assert (done.stdout, done.stderr) == (f"{MANY * SIZE}\n", "")
    assert sum(path.stat().st_size for path in tmp_path.glob("*.raw")) == MANY * SIZE


def test_a_file_that_is_replaced_while_it_is_read_is_not_mixed_up(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abcdef")
    file = Reopened(path)
    assert file.read(3) == b"abc"
    assert file.read(3) == b"def"
    (tmp_path / "g").write_bytes(b"something else")
    os.replace(tmp_path / "g", path)
    with pytest.raises(BadInput, match="replaced by another file"):
        file.read(1)


def test_open_files_are_allowed_up_to_the_hard_limit() -> None:
    asked = "from traces.record.openfiles import *; print(allow({0}, {1}, 'the rings of 9 CPUs')); " \
            "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    assert in_child(300, asked.format(20, 20), hard=4000).stdout == "(300, 4000)\n300\n"
    assert in_child(300, asked.format(1000, 1000), hard=4000).stdout == "(300, 4000)\n1256\n"
    capabilities = next(int(line.split()[1], 16) for line in Path("/proc/self/status").read_text().splitlines()
                        if line.startswith("CapEff"))
    if capabilities >> 24 & 1:  # CAP_SYS_RESOURCE
        assert in_child(300, asked.format(1000, 1000), hard=400).stdout == "(300, 400)\n1256\n"


def test_too_few_open_files_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[tuple[int, int]] = []

    def refuse(_what: int, limits: tuple[int, int]) -> None:
        if limits[1] > 1024 or limits[0] > 1024:
            raise ValueError("not allowed to raise maximum limit")
        allowed.append(limits)

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    with pytest.raises(CannotRecord, match=r"the rings of 1100 CPUs take 5,756 open files, and no more than 1,024 are "
                                           r"allowed; allow more \(ulimit -Hn"):
        openfiles.allow(8800, 5500, "the rings of 1100 CPUs")
    # Files of CPUs that may come are optional, those of present CPUs are needed.
    assert openfiles.allow(8800, 600, "") == (256, 1024)
    assert allowed == [(856, 1024)]


def test_the_page_worker_waits_for_any_file_descriptor() -> None:
    """select() takes none from 1,024 on."""
    before = openfiles.allow(1400, 0, "the test's files")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1300:
        pytest.skip("this process may not have as many open files")
    reading, writing = os.pipe()
    high = os.dup2(reading, 1200)
    assert not pageworker._readable(high, 0.0)
    os.write(writing, b"x")
    assert pageworker._readable(high, 1.0)
    for fd in (reading, writing, high):
        os.close(fd)
    openfiles.back_to(before)


# ---- others -------------------------------------------------------------------------------------------------


def watched(tmp_path: Path, **more: Any) -> tuple[Watch, Path, Callable[..., list[str]]]:
    """Return a watch over a synthetic instance, its directory, and what it says after a write there."""
    root = fake_tracefs(tmp_path / "t")
    files = dict.fromkeys(("tracing_on", "trace", "trace_marker", "current_tracer", "options/overwrite",
                           "per_cpu/cpu0/trace", "per_cpu/cpu0/stats", "events/enable"), "0\n")
    files |= {"buffer_size_kb": "1024\n", "trace_clock": "local [mono] boot\n", "events/zreplay/enable": "1\n"}
    for event in ("store", "load"):
        files |= {f"events/zreplay/{event}/{name}": "none\n" for name in ("filter", "trigger", "enable")}
    tree(root / "instances" / "zreplay", files)  # type: ignore[arg-type]
    tree(tmp_path, {"kprobes": "1\n"})
    tracefs = Tracefs(root)
    instance = Instance.__new__(Instance)
    instance.path, instance._cpus, instance._all = tracefs.root / "instances" / "zreplay", None, []
    watch = Watch(tracefs, [(instance, "zreplay", ["store", "load"])], box=[str(tmp_path / "kprobes")], **more)
    (root / "instances" / "zreplay" / "tracing_on").write_text("1\n")
    watch.begin(1000)

    def after(path: str, *texts: str, slow: bool = False) -> list[str]:
        for text in texts:
            (root / path).write_text(text)
        return watch.check(2000, slow)

    return watch, root, after


OWN = "instances/zreplay"


@pytest.mark.parametrize(("path", "texts", "said"), [
    (f"{OWN}/tracing_on", ["0\n", "1\n"], f"another process wrote {OWN}/tracing_on"),
    (f"{OWN}/tracing_on", ["0\n"], f"another process wrote {OWN}/tracing_on, which said '1' and says '0'"),
    (f"{OWN}/trace", ["\n"], f"another process wrote {OWN}/trace"),
    (f"{OWN}/per_cpu/cpu0/trace", ["\n"], f"another process wrote {OWN}/per_cpu/cpu0/trace"),
    (f"{OWN}/events/enable", ["0\n"], f"another process wrote {OWN}/events/enable"),
    (f"{OWN}/events/zreplay/enable", ["0\n"],
     f"another process wrote {OWN}/events/zreplay/enable, which said '1' and says '0'"),
    (f"{OWN}/events/zreplay/store/enable", ["0\n", "none\n"], f"another process wrote {OWN}/events/zreplay/store/enable"),
    (f"{OWN}/events/zreplay/load/filter", ["common_pid > 1\n"], f"another process wrote {OWN}/events/zreplay/load/filter, "
                                                              "which said 'none' and says 'common_pid > 1'"),
    (f"{OWN}/buffer_size_kb", ["64\n"], f"another process wrote {OWN}/buffer_size_kb, which said '1024' and says '64'"),
    (f"{OWN}/trace_clock", ["[local] mono boot\n"],
     f"another process wrote {OWN}/trace_clock, which said 'mono' and says 'local'"),
    (f"{OWN}/options/overwrite", ["1\n"], f"another process wrote {OWN}/options/overwrite, which said '0' and says '1'"),
    ("dynamic_events", ["p:probes/mine do_exit\n"],
     "another process changed the recorder's probes (dynamic_events)")])
def test_what_others_write_is_noticed(tmp_path: Path, path: str, texts: list[str], said: str) -> None:
    watch, _, after = watched(tmp_path)
    assert watch.blind == ""
    assert watch.check(1500) == [], "what the recorder wrote itself is nobody else's"
    assert after(path, *texts) == [said]
    assert watch.found == [{"since": 1500, "seen": 2000, "what": said}]
    assert watch.check(3000) == [], "it is said once"
    watch.close()


@pytest.mark.parametrize(("path", "texts"), [
    (f"{OWN}/trace_marker", ["hello"] * 3), (f"{OWN}/per_cpu/cpu0/stats", []),
    ("dynamic_events", ["p:probes/mine do_exit\nf:zreplay/store zswap_store\np:x/y do_fork\n"]),
    ("instances/other/tracing_on", ["1"])])
def test_what_is_nobodys_business_is_not_noticed(tmp_path: Path, path: str, texts: list[str]) -> None:
    watch, root, after = watched(tmp_path)
    (root / OWN / "trace").read_text()
    assert after(path, *texts, slow=True) == []
    watch.close()


def test_the_box_s_own_switches(tmp_path: Path) -> None:
    watch, _, after = watched(tmp_path)
    (tmp_path / "kprobes").write_text("0\n")
    assert after(f"{OWN}/trace_marker") == [f"another process wrote {tmp_path / 'kprobes'}, which said '1' and says '0'"]
    watch.close()


def test_without_inotify_what_lasts_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("traces.record.watch._Inotify.__init__", none)
    watch, _, after = watched(tmp_path)
    assert watch.blind == "Function not implemented"
    assert after(f"{OWN}/tracing_on", "0\n", "1\n") == []
    assert after(f"{OWN}/tracing_on", "0\n") == [f"{OWN}/tracing_on said '1' and says '0'"]
    assert after(f"{OWN}/events/zreplay/store/filter", "x\n") == [f"{OWN}/events/zreplay/store/filter said 'none' and says 'x'"]
    watch.close()


def test_events_that_go_together_are_one_sentence(tmp_path: Path) -> None:
    watch, root, after = watched(tmp_path)
    (root / OWN / "events/zreplay/enable").write_text("0\n")
    assert watch._inotify is not None
    watch._inotify.written = lambda: [f"{OWN}/events/enable"]  # type: ignore[method-assign]
    for event in ("store", "load"):
        (root / OWN / f"events/zreplay/{event}/enable").write_text("0\n")
    assert after(f"{OWN}/trace_marker") == [
        f"another process wrote {OWN}/events/enable", f"{OWN}/events/zreplay/enable said '1' and says '0'",
        f"events of {OWN}/events/zreplay were switched: load, store"]
    watch.close()


def test_the_end_expects_what_the_recorder_writes_itself(tmp_path: Path) -> None:
    watch, _, after = watched(tmp_path)
    watch.expect("tracing_on")
    assert after(f"{OWN}/tracing_on", "0\n") == []
    assert after(f"{OWN}/trace", "0\n") == [f"another process wrote {OWN}/trace"]
    held = [os.readlink(f"/proc/self/fd/{fd}") for fd in watch._held]
    assert all("/events" in path for path in held)
    watch.close()


def test_more_writes_than_are_kept(tmp_path: Path) -> None:
    watch, _, _ = watched(tmp_path)
    assert watch._inotify is not None
    watch._inotify.written = lambda: [""]  # type: ignore[method-assign]
    assert watch.check(2000) == ["another process wrote more files of tracefs than the kernel reports"]
    watch._inotify.written = lambda: [f"{OWN}/x{number}" for number in range(500)]  # type: ignore[method-assign]
    watch.check(3000)
    assert len(watch.found) == 100
    watch.close()


OTHERS = [{"since": 4000, "seen": 4200, "what": f"another process wrote {OWN}/tracing_on"}]


def test_what_others_did_is_a_loss_from_then_on(tmp_path: Path) -> None:
    make(tmp_path / "c")
    (tmp_path / "c" / "capture.json").write_text(json.dumps(status(True, interference=OTHERS)))
    import_source(tmp_path / "c", tmp_path / "r", overrides={"release": "7.2.0", "compressor": "lz4"})
    recording = traces.open_recording(tmp_path / "r")
    said = f"events may be missing: another process wrote {OWN}/tracing_on"
    assert recording.manifest["losses"][-1] == {"cpu": None, "lost": None, "why": said, "since": 4000}
    assert [loss[:4] for loss in losses_of(recording, (1000, 9000), 0)] == [(4000, 9000, None, said)]
    assert losses_of(recording, (1000, 3999), 0) == [], "it explains nothing before it happened"
    result = replay(recording)
    assert (result.verdict, said in result.reasons) == ("UNDECIDED", True)


@pytest.mark.parametrize("where", ["capture.json", "flushed.jsonl"])
def test_a_killed_recorder_s_notice_is_kept(tmp_path: Path, where: str) -> None:
    make(tmp_path / "c", complete=False)
    path = tmp_path / "c" / where
    *before, last = path.read_text().splitlines() if where == "flushed.jsonl" else [path.read_text()]
    late = [{"since": 9100, "what": "what was not imported is of no matter"}]
    path.write_text("".join(line + "\n" for line in [*before, json.dumps({**json.loads(last), "interference": OTHERS + late})]))
    summary = import_source(tmp_path / "c", tmp_path / "r")
    assert [loss["why"] for loss in summary["losses"] if "why" in loss] == \
        [f"events may be missing: another process wrote {OWN}/tracing_on"]


@pytest.mark.parametrize("found", [7, "x", {"a": 1}, [1], [{"since": -1, "what": 3}], [{"since": "x"}]])
def test_a_notice_that_makes_no_sense_is_a_loss_all_the_same(tmp_path: Path, found: Any) -> None:
    make(tmp_path / "c")
    (tmp_path / "c" / "capture.json").write_text(json.dumps(status(True, interference=found)))
    summary = import_source(tmp_path / "c", tmp_path / "r")
    assert summary["losses"][-1] == {"cpu": None, "lost": None, "why": "events may be missing: another process did "
                                     "something to the recorder's switches; the note that says what cannot be read"}


@pytest.mark.parametrize(("read", "lost"), [(80, 0), (95, 15), (79, None), (-1, None), (2**64 - 1, 2**63 - 1)])
def test_events_are_held_against_what_the_kernel_gave(tmp_path: Path, read: int, lost: int | None) -> None:
    """A process that reads a ring takes events out of it; one that clears it clears the kernel's count, too."""
    make(tmp_path / "c")
    rings = {"0": {"read": read, "entries": 0}, "1": {"read": 80, "entries": 0}}
    (tmp_path / "c" / "capture.json").write_text(json.dumps(status(True, rings=rings)))
    summary = import_source(tmp_path / "c", tmp_path / "r")
    assert [loss["lost"] for loss in summary["losses"]] == [lost, 0]
    assert [loss.get("counted", False) for loss in summary["losses"]] == [lost == 0, True]
    traces.open_recording(tmp_path / "r")
    if lost is None:
        assert f"its ring was cleared while it was recorded (80 events were read, and the kernel counts {read})" \
            in summary["losses"][0]["why"]
    elif lost:
        assert summary["notes"] == [f"zmeta.cpu0.raw holds 80 events, and the kernel gave {read} to readers of its ring: "
                                    "another process read it, or the file is not whole"]


def test_who_holds_an_instance_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(fake_tracefs(tmp_path / "t"), {"instances/b/trace_pipe": ""})
    with (root / "instances/b/trace_pipe").open() as held, subprocess.Popen(["sleep", "60"], stdin=held) as child:
        # Until it is what it is called.
        until = time.monotonic() + 20
        while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\n" and time.monotonic() < until:
            time.sleep(0.01)
        assert held_by(root / "instances", ["b", "b-pages"]) == f", held by process {child.pid} (sleep)"
        assert held_by(root / "instances", ["other"]) == held_by(root / "nothing", ["b"]) == ""
        monkeypatch.setattr("traces.record.tracefs._PATIENCE", 0.0)
        monkeypatch.setattr("traces.record.command.Tracefs", lambda names: Tracefs(root, names))
        assert main(["--instance", "b", "--clean"]) == 2
        assert capsys.readouterr().err == f"zreplay: instance b cannot be removed, held by process {child.pid} (sleep); " \
                                          "end the processes that still use it, and try again.\n"
        with pytest.raises(CannotRecord, match=rf"\(File exists, held by process {child.pid} \(sleep\)\); run 'zreplay"):
            Instance(Tracefs(root, TracefsNames.of("b")), "b", 64)
        child.kill()


def test_tracefs_that_is_unmounted_meanwhile_is_used_on(tmp_path: Path) -> None:
    """umount -l takes the name away, not open files; another directory in its place is not the instance."""
    root = fake_tracefs(tmp_path / "t")
    tracefs = Tracefs(root)
    assert tracefs.mounted
    root.rename(tmp_path / "gone")
    assert not tracefs.mounted
    assert tracefs.leftovers() == ["event zreplay/store"]
    assert tracefs.shown(tracefs.root / "instances" / "zreplay") == str(root / "instances" / "zreplay")
    assert tracefs.shown("/elsewhere") == "/elsewhere"
    tracefs.close()


# ---- what fails, and what is said of it ---------------------------------------------------------------------


def half_recorded(tmp_path: Path, **more: Any) -> session.Session:
    """Return a session that has recorded for a while."""
    made = session.Session.__new__(session.Session)
    made.capture = CaptureWriter(tmp_path / "c")
    made.capture.reserve()
    made._status = {**status(False), **more}
    made.capture.write_json("capture.json", made._status)
    made.tracefs = Tracefs(fake_tracefs(tmp_path / "t"))
    made.meta = types.SimpleNamespace(losses=lambda: {"0": NONE_LOST})  # type: ignore[assignment]
    made._watch, made._complete = None, 3000
    rb.write_formats(made.capture.path / "formats", SIZE, ["store", "comp", "async_free"])
    rb.write_counters(made.capture.path / "counters-000-before.json", 900, {"compressor": "lz4"})
    return made


def test_a_disk_that_fills_leaves_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was half written when the disk was full: the whole part is reported in whole lines, and imports."""
    made = half_recorded(tmp_path)
    file = made.capture.appending("zmeta.cpu0.raw")
    for piece in subbuffers(0, 1000, 3000):
        file.write(piece)
    made.capture.flush(2000, {"0": NONE_LOST}, wait=True)
    reserve = made.capture.path / ".reserve.part"
    assert reserve.stat().st_blocks * 512 >= 1 << 19
    real = os.write

    def full(fd: int, data: bytes) -> int:
        """Take half, and then nothing, as long as the reserve is there."""
        if not reserve.exists() or os.readlink(f"/proc/self/fd/{fd}").endswith((".part", ".idx")):
            return real(fd, data)
        if len(data) > 30:
            return real(fd, bytes(data)[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space") as failed:
        made.capture.flush(2500, {"0": NONE_LOST}, wait=True)
    log = made.capture.path / "flushed.jsonl"
    assert log.read_bytes().endswith(b"\n"), "no half of a line"
    said = made._ended_early(failed.value)
    monkeypatch.undo()
    assert str(said) == f"recording into {made.capture.path} ended early (No space left on device); what was recorded " \
        "before is kept, marked as incomplete; import what there is; make room there, or choose another place."
    made.capture.close()
    made.tracefs.close()
    assert not reserve.exists()
    assert [json.loads(line)["flushed"] for line in log.read_text().splitlines()] == [2000, 3000]
    summary = import_source(made.capture.path, tmp_path / "r")
    assert len(rows(tmp_path / "r")) == 20
    assert summary["notes"] == ["the recorder says that it ended early (No space left on device): events are whole for its "
                                "first 0.000 s, later ones were left out"]
    assert traces.open_recording(tmp_path / "r").manifest["complete"] is False


def test_a_file_that_may_grow_no_more(tmp_path: Path) -> None:
    """A real limit, of the size of files: an append stops in the middle, and the end is written all the same."""
    code = f"""
import json, resource, types
from pathlib import Path
from traces.record import session
from tests.test_record_boxes import half_recorded, subbuffers
made = half_recorded(Path({str(tmp_path)!r}))
file = made.capture.appending("zmeta.cpu0.raw")
made.capture.flush(1000, {{}}, wait=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
try:
    for _ in range(100):
        for piece in subbuffers(0, 1000, 3000):
            file.write(piece)
except OSError as problem:
    print(made._ended_early(problem))
made.capture.close()
"""
    done = in_child(256, code)
    assert done.stderr == ""
    assert "ended early (File too large); what was recorded before is kept, marked as incomplete; import what there is; allow larger files" \
        in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "c" / "flushed.jsonl").read_text().splitlines()]
    assert [(line["flushed"], line["sizes"]["zmeta.cpu0.raw"]) for line in lines] == [(1000, 0), (3000, 5000)]
    assert json.loads((tmp_path / "c" / "capture.json").read_text())["ended"] == "it ended early (File too large)"


def test_what_is_no_disk_s_doing_is_not_said_of_a_disk(tmp_path: Path) -> None:
    made = half_recorded(tmp_path)
    gone = OSError(errno.ENOENT, "No such file or directory", str(made.tracefs.root / "instances/zreplay/tracing_on"))
    assert str(made._ended_early(gone)) == \
        f"recording into {made.capture.path} ended early ({tmp_path}/t/instances/zreplay/tracing_on: No such file or " \
        "directory); what was recorded before is kept, marked as incomplete; import what there is; see whether tracefs is " \
        "still mounted and which processes use it, and try again."
    made._status["start"] = None
    assert str(made._ended_early(OSError(errno.ENOMEM, "x"))) == \
        "nothing was recorded (Cannot allocate memory); give a smaller --buffer-kb."
    made.capture.close()
    made.tracefs.close()


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EBUSY, errno.EINVAL, errno.EPERM, errno.ENOENT, errno.EMFILE,
                                    errno.ENFILE, errno.ENOMEM, errno.EAGAIN, 12345])
def test_only_disks_are_to_be_made_room_on(number: int) -> None:
    for said in (next_step(number), kernel_step(number)):
        assert "room" not in said
        assert "disk" not in said
    assert "another place" in next_step(errno.ENOSPC)
    assert "another place" not in kernel_step(errno.ENOSPC), "tracefs has no other place"


@pytest.mark.parametrize("end", [b"a,1,zero,,0,1", b"a,1,zero,,0,", b"a", b"a,1,zero,,0,1\r"])
def test_a_truth_that_ends_within_a_line_is_read_up_to_there(tmp_path: Path, end: bytes) -> None:
    make(tmp_path / "c")
    (tmp_path / "c" / "truth.csv").write_bytes(TRUTH.encode() + b"a,0,zero,,0,1\n" + end)
    summary = import_source(tmp_path / "c", tmp_path / "r")
    recording = traces.open_recording(tmp_path / "r")
    truth = recording.table("truth")
    assert truth is not None
    assert truth.swap_offset.tolist() == [1]
    assert summary["missing"] == ["truth.csv ends in the middle of its line 3: what the workload says of its pages from "
                                  "there on is missing"]


def test_a_truth_that_is_left_out_misses_nothing(tmp_path: Path) -> None:
    make(tmp_path / "c")
    (tmp_path / "c" / "capture.json").write_text(json.dumps(status(True, pages={"mode": "none"})))
    (tmp_path / "c" / "truth.csv").write_text(TRUTH + "a,0,ze")
    assert import_source(tmp_path / "c", tmp_path / "r")["missing"] == []


@pytest.mark.parametrize("size", range(len("phase,page,kind,sha1"), len(TRUTH)))
def test_a_truth_s_head_may_be_cut(tmp_path: Path, size: int) -> None:
    (tmp_path / "t").write_text(TRUTH[:size])
    frame, _, cut = read_truth(tmp_path / "t")
    assert (len(frame), cut[:40]) == (0, "t ends in the middle of its line 1: what")
