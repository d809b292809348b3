# SPDX-License-Identifier: GPL-2.0-or-later
"""Many recordings against many revisions: in order, in processes and on a cluster it comes to the same."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT

from replay.cli import main
from replay.many import cluster as cluster_module
from replay.many.jobs import NOT_DONE, JobOutcome, ReplayJob, make_jobs, sources
from replay.many.local import run_local
from replay.many.waiting import TRIES
from replay.tools.cut import cut
from traces.recording import Recording

#: The recordings' own, one that does the same on them, one that does not.
REVISIONS = ("mainline-7.3", "v14", "mainline-7.2")
COMMAND = [sys.executable, "-c", "import sys; from replay.cli import main; sys.exit(main())"]
#: A revision that does something at its twentieth store: {name}, {mark} (a file), {deed}.
REVISION = '''import os, signal, time
from pathlib import Path
from model.revisions.mainline_7 import Mainline73

MARK = Path({mark!r})


class {name}(Mainline73):
    stores = 0

    def _charge(self, entry):
        self.stores += 1
        if self.stores == 20:
            print("a revision may print")
            {deed}
        return super()._charge(entry)
'''
#: Leave a mark with the process' number and stand still; but only once.
STAND_STILL = ("if not MARK.exists():\n"
               "                MARK.with_name('part').write_text(str(os.getpid()))\n"
               "                os.replace(MARK.with_name('part'), MARK)\n"
               "                time.sleep(600)")
DIE = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def recordings(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two stretches of shipped recordings."""
    base = tmp_path_factory.mktemp("recordings")
    for name, start, stop in (("7.3-lz4-4k", 0, 2000), ("7.3-zstd-64k", 0, 2000)):
        cut(Recording(samples[name]), str(base / name), start, stop)
    return [str(base / name) for name in ("7.3-lz4-4k", "7.3-zstd-64k")]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a Dask scheduler that has two workers, and gives a job up when its worker dies once."""
    distributed = pytest.importorskip("distributed", reason="the package distributed is not installed (extra 'cluster')")
    import dask

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0, silence_logs=50,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"}) as cluster:
        yield cluster.scheduler_address


def revision_file(path: Path, name: str, deed: str) -> str:
    """Write a revision of one's own; returns how the command names it."""
    file = path / f"{name.lower()}.py"
    file.write_text(REVISION.format(name=name, mark=str(path / "mark"), deed=deed))
    return f"{file}:{name}"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process; return (exit status, stdout, stderr)."""
    status = main([str(a) for a in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def timeless(text: str) -> str:
    """Leave out how long it took."""
    text = re.sub(r'"seconds": \{[^}]*\}', '"seconds": {}', text)
    return re.sub(r"comparisons in [\d.]+ s, pages took [\d.]+ s", "comparisons", text)


def named(revisions: tuple[str, ...] | list[str]) -> list[str]:
    """Return the options that name revisions."""
    return [word for name in revisions for word in ("--revision", name)]


def jobs_of(recordings: list[str], revisions: list[str | None]) -> list[ReplayJob]:
    """Return jobs without page bytes."""
    return make_jobs(recordings, revisions, options={"checks": None, "keep_going": False, "pages": False})


def killing(mark: Path) -> threading.Thread:
    """Kill the process that leaves a mark."""
    def kill() -> None:
        until = time.monotonic() + 60
        while not mark.exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def gone(pid: int) -> bool:
    """True when a process has ended, or does within some seconds."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


# ---- the same in every way of running ---------------------------------------------------------------------------


def test_in_order_in_processes_and_on_a_cluster(capsys: pytest.CaptureFixture[str], recordings: list[str],
                                                scheduler: str, tmp_path: Path) -> None:
    arguments = ["replay", *recordings, *named(REVISIONS), "--no-pages"]
    serial = run(capsys, *arguments, "--table", tmp_path / "serial.json")
    assert serial[0] == 1
    assert serial[2] == ""
    assert serial[1].splitlines()[-1] == "2 recordings x 3 revisions: 4 PASS, 2 FAIL"
    for where in (["-j", 2], ["--scheduler", scheduler]):
        status, out, err = run(capsys, *arguments, *where, "--table", tmp_path / "other.json")
        assert status == 1
        assert timeless(out) == timeless(serial[1])
        assert json.loads((tmp_path / "other.json").read_text()) == json.loads((tmp_path / "serial.json").read_text())
        lines = err.splitlines()
        assert len(lines) == 6
        assert [line.split()[0] for line in lines] == [f"{number}/6" for number in range(1, 7)]
        assert sum(" PASS " in line for line in lines) == 4


def test_json_is_one_object_per_recording_and_revision(capsys: pytest.CaptureFixture[str],
                                                       recordings: list[str]) -> None:
    arguments = ["replay", *recordings, *named(REVISIONS[:2]), "--no-pages", "--json"]
    _, serial, _ = run(capsys, *arguments)
    found = [json.loads(line) for line in serial.splitlines()]
    assert [(r["recording"], r["revision"], r["verdict"]) for r in found] == [
        (path, revision, verdict) for path in recordings
        for revision, verdict in (("mainline-7.3", "PASS"), ("v14", "FAIL"))]
    assert timeless(run(capsys, *arguments, "-j", 2)[1]) == timeless(serial)


def test_pages_are_compressed_once_and_by_the_first(capsys: pytest.CaptureFixture[str], samples: dict[str, Path],
                                                    tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outs = []
    for where in ([], ["-j", 2]):
        base = tmp_path / str(len(where))
        for name in ("a", "b"):
            shutil.copytree(samples["7.2-lz4-edge"], base / name, ignore=shutil.ignore_patterns("cache"))
        monkeypatch.chdir(base)
        outs.append(timeless(run(capsys, "replay", "a", "b", *named(["mainline-7.2", "mainline-7.0"]), *where)[1]))
    assert outs[0] == outs[1]
    assert outs[0].count("40 distinct pages compressed, 0 results kept") == 2
    assert outs[0].count("0 distinct pages compressed, 40 results kept") == 2


def test_a_job_waits_for_the_pages_of_another(samples: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(samples["6.18-zstd-4k"], copy, ignore=shutil.ignore_patterns("cache"))
    revisions: list[str | None] = [None, "mainline-6.12", "mainline-7.2", "v14"]
    # 6.12 has an older libzstd: another compressor.
    assert [job.after for job in make_jobs([str(copy)], revisions)] == [None, None, 0, 0]
    assert [job.after for job in make_jobs([str(copy)], revisions, options={"pages": False})] == [None] * 4
    assert [job.after for job in make_jobs([str(copy), f"{copy}/."], [None])] == [None, 0]
    (copy / "manifest.json").write_text("[]")
    assert [job.after for job in make_jobs([str(copy)], revisions)] == [None] * 4


def test_one_job_elsewhere_prints_what_it_prints_here(capsys: pytest.CaptureFixture[str], recordings: list[str]) -> None:
    status, out, err = run(capsys, "replay", recordings[0], "--no-pages")
    assert (status, err) == (0, "")
    assert "recordings" not in out.splitlines()[-1]
    found = run(capsys, "replay", recordings[0], "--no-pages", "-j", 2)
    assert (found[0], timeless(found[1])) == (0, timeless(out))
    assert found[2] == f"1/1 PASS  {recordings[0]} against mainline-7.3\n"


def test_a_revision_of_one_s_own_elsewhere(capsys: pytest.CaptureFixture[str], recordings: list[str], scheduler: str,
                                           tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("from model.revisions.mainline_7 import Mainline73\n\n\nclass Mine(Mainline73):\n"
                                      "    def max_pages(self):\n        return 1\n")
    monkeypatch.chdir(tmp_path)
    # Named from here: the cluster's workers stand elsewhere.
    shutil.copytree(recordings[0], "rec")
    arguments = ["replay", "rec", "--revision", "mine.py:Mine", "--revision", "mainline-7.3", "--no-pages"]
    status, serial, _ = run(capsys, *arguments)
    assert status == 1
    assert "against Mine" in serial
    for where in (["-j", 2], ["--scheduler", scheduler]):
        assert timeless(run(capsys, *arguments, *where)[1]) == timeless(serial)


# ---- processes that die -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_a_process_that_is_killed_half_way_costs_no_result(
        capsys: pytest.CaptureFixture[str], recordings: list[str], tmp_path: Path, where: str,
        request: pytest.FixtureRequest) -> None:
    own = revision_file(tmp_path, "Halted", STAND_STILL)
    mark = tmp_path / "mark"
    arguments = ["replay", *recordings, *named(["mainline-7.3", own]), "--no-pages"]
    options = ["-j", "2"] if where == "processes" else ["--scheduler", request.getfixturevalue("scheduler")]
    thread = killing(mark)
    status, out, err = run(capsys, *arguments, *options)
    thread.join()
    assert gone(int(mark.read_text()))
    # The mark is there: now nothing stands still.
    serial = run(capsys, *arguments)
    assert status == serial[0]
    assert timeless(out) == timeless(serial[1]).replace("a revision may print\n", "")
    assert len(re.findall("^[1-4]/4 PASS", err, re.M)) == 4


def test_a_killed_process_is_followed_by_another(recordings: list[str]) -> None:
    started: list[tuple[int, int]] = []

    def note(job: ReplayJob, pid: int) -> None:
        if not started:
            os.kill(pid, signal.SIGKILL)
        started.append((job.number, pid))

    outcomes = list(run_local(jobs_of(recordings, ["mainline-7.3"]), 1, started=note))
    assert [outcome.verdict for outcome in sorted(outcomes, key=lambda o: o.number)] == ["PASS", "PASS"]
    assert [number for number, _ in started] == [0, 1, 0]
    assert len({pid for _, pid in started}) == 2


def test_a_job_that_always_dies_is_named_and_the_others_are_done(
        capsys: pytest.CaptureFixture[str], recordings: list[str], tmp_path: Path) -> None:
    own = revision_file(tmp_path, "Deadly", DIE)
    status, out, err = run(capsys, "replay", recordings[0], *named([own, "mainline-7.3"]), "--no-pages", "-j", 2)
    # It is not known what it would have said: UNDECIDED's status.
    assert status == 3
    sentence = (f"{recordings[0]}: its replay against {own} ended its process {TRIES} times, the last time by SIGKILL; "
                f"if it is memory that it lacks, run it where there is more.")
    assert f"2/2 not done  {sentence}\n" in err
    assert out.splitlines()[-1] == "1 recordings x 2 revisions: 1 PASS, 1 not done"
    assert sentence in " ".join(line.strip() for line in out.splitlines())


def test_a_job_that_ends_every_worker_of_a_cluster(capsys: pytest.CaptureFixture[str], recordings: list[str],
                                                   tmp_path: Path, scheduler: str) -> None:
    own = revision_file(tmp_path, "Deadly", DIE)
    status, out, _ = run(capsys, "replay", *recordings, *named([own, "mainline-7.3"]), "--no-pages", "--json",
                         "--scheduler", scheduler)
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 3
    assert [r["verdict"] for r in found] == [None, "PASS", None, "PASS"]
    assert found[0]["error"] == (f"{recordings[0]}: its replay against {own} ended every worker that it was given "
                                 f"(KilledWorker); if it is memory that it lacks, run it where there is more.")


def test_a_job_that_is_cancelled_on_a_cluster_is_named(capsys: pytest.CaptureFixture[str], recordings: list[str],
                                                       tmp_path: Path, scheduler: str) -> None:
    from distributed import Client, Future

    own = revision_file(tmp_path, "Halted", STAND_STILL)
    mark = tmp_path / "mark"

    def cancel() -> None:
        until = time.monotonic() + 60
        while not mark.exists() and time.monotonic() < until:
            time.sleep(0.02)
        with Client(scheduler, set_as_default=False) as client:
            held = client.run_on_scheduler(lambda dask_scheduler: [
                key for key, task in dask_scheduler.tasks.items() if task.state == "processing"])
            client.cancel([Future(key, client) for key in held], force=True)
        # What is under way no scheduler stops.
        os.kill(int(mark.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=cancel)
    thread.start()
    status, out, err = run(capsys, "replay", recordings[0], *named([own]), "--no-pages", "--scheduler", scheduler)
    thread.join()
    assert (status, out) == (3, "")
    assert err == (f"1/1 not done  {recordings[0]}: its replay against {own} was cancelled: the Dask scheduler has given "
                   "it up or is gone; run it again.\n")


def test_processes_that_cannot_start_are_told(recordings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.many.local._CODE", "import sys; sys.exit(7)")
    outcomes = list(run_local(jobs_of(recordings, ["mainline-7.3"]), 2))
    assert [outcome.kind for outcome in outcomes] == [NOT_DONE, NOT_DONE]
    assert all("3 times, the last time with status 7" in outcome.error for outcome in outcomes)


def test_a_defect_of_the_project_ends_no_other_job(capfd: pytest.CaptureFixture[str], recordings: list[str],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZREPLAY_TRACEBACK", "1")
    jobs = jobs_of(recordings, ["mainline-7.3"])
    broken = ReplayJob(0, jobs[0].recording, "mainline-7.3", {"no_such_option": 1})
    found = {outcome.number: outcome for outcome in run_local([broken, jobs[1]], 1)}
    assert found[1].verdict == "PASS"
    assert found[0].kind == NOT_DONE
    assert "raised TypeError" in found[0].error
    assert found[0].exit_status == 70
    assert "Traceback" in capfd.readouterr().err


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [[], ["-j", 2]])
def test_a_bad_recording_among_good_ones(capsys: pytest.CaptureFixture[str], recordings: list[str], tmp_path: Path,
                                         where: list[object]) -> None:
    bad = str(tmp_path / "bad")
    shutil.copytree(recordings[0], bad)
    (Path(bad) / "events" / "00000.parquet").write_bytes(b"nothing")
    paths = [recordings[0], bad, str(tmp_path / "none"), recordings[1]]
    status, out, err = run(capsys, "replay", *paths, "--no-pages", *where)
    assert status == 2
    assert [line.split(":")[0].split()[:2] for line in out.splitlines() if line.startswith("PASS ")] == [
        ["PASS", recordings[0]], ["PASS", recordings[1]]]
    assert out.splitlines()[-1] == "4 recordings: 2 PASS, 2 unreadable"
    assert err.count("does not match its digest") == err.count("does not exist") == 1
    assert err.count("\n") == (4 if where else 2)
    found = [json.loads(line) for line in run(capsys, "replay", *paths, "--no-pages", "--json", *where)[1].splitlines()]
    assert [r["verdict"] for r in found] == ["PASS", None, None, "PASS"]
    assert [r["recording"] for r in found] == paths
    assert found[1]["error"].startswith(f"{bad}/events/00000.parquet: does not match its digest")


def test_a_bad_recording_on_a_cluster_is_named_as_the_user_named_it(
        capsys: pytest.CaptureFixture[str], recordings: list[str], scheduler: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recordings[0], "bad")
    Path("bad/events/00000.parquet").unlink()
    serial = run(capsys, "replay", "bad", "bad", "--json")
    assert serial[0] == 2
    assert json.loads(serial[1].splitlines()[0])["error"].startswith("bad/events/00000.parquet: ")
    assert run(capsys, "replay", "bad", "bad", "--json", "--scheduler", scheduler)[:2] == serial[:2]


@pytest.mark.parametrize(("options", "sentence"), [
    (["--revision", "v14", "--revision", "v14"], "'v14' is given twice"),
    (["--revision", "v14", "--revision", "v99"], "there is no revision 'v99'"),
    (["--check", "store.lenght"], "there is no check 'store.lenght'"),
    (["--table", "nowhere/table.json"], "cannot be written"),
    (["--table", "/dev/null"], "cannot be written"),
    (["--junit", "/dev/stdin"], "cannot be written"),
    (["--scheduler", "tcp://127.0.0.1:1", "-j", "2"], "leave -j out"),
])
def test_wrong_use_is_told_before_anything_runs(capsys: pytest.CaptureFixture[str], recordings: list[str],
                                                options: list[str], sentence: str) -> None:
    status, out, err = run(capsys, "replay", *recordings, *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_a_link_stays_one(capsys: pytest.CaptureFixture[str], recordings: list[str], tmp_path: Path) -> None:
    (tmp_path / "table.json").symlink_to(tmp_path / "there.json")
    assert run(capsys, "replay", recordings[0], "--no-pages", "--table", tmp_path / "table.json")[0] == 0
    assert (tmp_path / "table.json").is_symlink()
    assert len(json.loads((tmp_path / "there.json").read_text())["verdicts"]) == 1


@pytest.mark.parametrize("number", ["0", "-1", "many", "99999"])
def test_a_number_of_processes_that_makes_no_sense(recordings: list[str], number: str) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["replay", recordings[0], f"--jobs={number}"])
    assert leave.value.code == 2


def test_no_scheduler_there(capsys: pytest.CaptureFixture[str], recordings: list[str],
                            monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the package distributed is not installed (extra 'cluster')")
    monkeypatch.setattr(cluster_module, "_ANSWER", 1)
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        status, out, err = run(capsys, "replay", *recordings, "--scheduler", address)
        assert (status, out) == (2, "")
        assert f"zreplay: {address}: no Dask scheduler answers there" in err


def test_without_the_package(capsys: pytest.CaptureFixture[str], recordings: list[str],
                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, _, err = run(capsys, "replay", *recordings, "--scheduler", "tcp://127.0.0.1:1")
    assert (status, err) == (2, "zreplay: --scheduler: the package distributed is not installed; install it with "
                                "'pip install zreplay[cluster]', or use -j.\n")


def test_a_worker_refuses_what_it_cannot_do_as_here(recordings: list[str]) -> None:
    job = jobs_of(recordings, ["mainline-7.3"])[0]
    order = cluster_module._order(job)
    assert JobOutcome.from_json(cluster_module._on_worker(order)).verdict == "PASS"
    other = JobOutcome.from_json(cluster_module._on_worker({**order, "sources": "of another version"}))
    assert (other.kind, "has another zreplay" in other.error) == (NOT_DONE, True)
    unseen = JobOutcome.from_json(cluster_module._on_worker({**order, "at": "/nowhere/else"}))
    assert (unseen.kind, "mount the same file system" in unseen.error) == (NOT_DONE, True)
    assert re.fullmatch("[0-9a-f]{64}", sources())


# ---- Ctrl-C -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [[], ["--scheduler", "local"]])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_command_is_stopped(recordings: list[str], tmp_path: Path,
                                                        how: signal.Signals, where: list[str],
                                                        request: pytest.FixtureRequest) -> None:
    if where:
        pytest.importorskip("distributed", reason="the package distributed is not installed (extra 'cluster')")
        # A port that Dask likes to have may be somebody else's: no word of that.
        with contextlib.suppress(OSError):
            request.addfinalizer(socket.create_server(("127.0.0.1", 8787)).close)
    own = revision_file(tmp_path, "Halted", STAND_STILL)
    # Whoever runs the tests in the background has it ignored, and what is ignored is inherited.
    program = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
               "from replay.cli import main; sys.exit(main())")
    with subprocess.Popen([sys.executable, "-c", program, "replay", recordings[0],
                           *named(["mainline-7.3", own]), "--no-pages", "-j", "2", *where],
                          cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as running:
        assert running.stderr is not None
        try:
            # The first is done, the second stands still.
            said = []
            while not said or said[-1] == "a revision may print\n":
                said.append(running.stderr.readline())
            # The revision's process may be between its text and the line's end.
            assert said[-1].removeprefix("a revision may print").startswith("1/2 PASS")
            until = time.monotonic() + 60
            while not (tmp_path / "mark").exists() and time.monotonic() < until:
                time.sleep(0.02)
            # A terminal sends it to every process of the command.
            (os.killpg if how == signal.SIGINT else os.kill)(running.pid, how)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert gone(int((tmp_path / "mark").read_text()))
    if how == signal.SIGINT:
        assert running.returncode == 130
        assert "zreplay: 1 of 2 replays were done (1 PASS); the others were stopped.\n" in err
        assert "zreplay: interrupted" in err
        assert re.search(r"^recording +mainline-7.3 .*\n7.3-lz4-4k +PASS +none$", out, re.M)
        assert "Traceback" not in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_half_of_what_is_kept_is_left_when_the_command_is_stopped(samples: dict[str, Path], tmp_path: Path,
                                                                     how: signal.Signals) -> None:
    copy = tmp_path / "sample"
    shutil.copytree(samples["7.2-lz4-edge"], copy, ignore=shutil.ignore_patterns("cache"))
    # Loaded by the process that replays, where the results of compressing are about to be kept.
    (tmp_path / "slow.py").write_text(f"""import os, time
from pathlib import Path
from model.revisions.mainline_7 import Mainline72
import replay.reference.predictions


class Os:
    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, part, whole):
        Path({str(tmp_path / "part")!r}).write_text(str(os.getpid()))
        os.replace({str(tmp_path / "part")!r}, {str(tmp_path / "mark")!r})
        time.sleep(600)


replay.reference.predictions.os = Os()


class Slow(Mainline72):
    pass
""")
    program = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
               "from replay.cli import main; sys.exit(main())")
    with subprocess.Popen([sys.executable, "-c", program, "replay", str(copy), "--revision", f"{tmp_path}/slow.py:Slow",
                           "-j", "1"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        try:
            until = time.monotonic() + 60
            while not (tmp_path / "mark").exists() and time.monotonic() < until:
                time.sleep(0.02)
            assert list((copy / "cache").iterdir()), "nothing is half written"
            running.send_signal(how)
            _, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert gone(int((tmp_path / "mark").read_text()))
    assert list((copy / "cache").iterdir()) == []
    assert err == ("zreplay: interrupted; nothing half-written was left behind.\n" if how == signal.SIGINT else "")


def test_who_takes_no_more_outcomes_leaves_no_process(recordings: list[str]) -> None:
    pids: list[int] = []
    with closing(run_local(jobs_of(recordings * 2, ["mainline-7.3"]), 2,
                           started=lambda job, pid: pids.append(pid))) as outcomes:
        next(outcomes)
    assert pids
    assert all(gone(pid) for pid in pids)
