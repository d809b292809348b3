# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks of a guest: record, record with both back ends, measure overhead, kill recorders, show commands.

It uses the standard library only.  Every task takes the job and the sender and returns the report for the host.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from traces.lab.channel import Sender
from traces.lab.guestcommand import root_of
from traces.lab.guestcommon import CAPTURE, CGROUP, reset, run_and_send, say
from traces.lab.guestiaa import rebinding_command

__all__ = ["TASKS"]

_HERE: Final = "/zreplay/traces"
_STORED: Final = Path("/sys/kernel/debug/zswap/stored_pages")
#: Seconds that a recorder may take until its directory is there, and the kernel to free what a killed worker had.
_PATIENCE: Final = 60.0
#: Seconds that systemd may take to start its units: an emulator is slow.
_SYSTEMD_WITHIN: Final = 300.0
#: Seconds that the box keeps running after its recorder was killed, as boxes do.
_AFTERWARDS: Final = 0.05


def _workload(job: dict[str, Any], *more: str) -> list[str]:
    return rebinding_command(job.get("iaa") or {},
                             [sys.executable, f"{_HERE}/workload", *job["workload"], "--cgroup", CGROUP, *more])


def _recorder(words: list[str], out: Path, command: list[str]) -> list[str]:
    return [sys.executable, f"{_HERE}/record", *words, "-o", str(out), "--cgroup", CGROUP, "--", *command]


def record(job: dict[str, Any], sender: Sender) -> dict[str, Any]:
    """Run the workload under the recorder."""
    say("recording")
    # Files that are sent while they grow would have to be sent again, packed.
    return {"status": run_and_send(_recorder(["--no-pack", *job["record"]], CAPTURE, _workload(job)), sender)}


def both(job: dict[str, Any], sender: Sender) -> dict[str, Any]:
    """Run the workload under a recorder of each back end at the same time."""
    CAPTURE.mkdir()
    say("recording with both back ends")
    # BCC outside: its compiling is over when the other begins.
    inner = _recorder(["--no-pack", *job["record"], "--backend", "tracefs"], CAPTURE / "tracefs", _workload(job))
    outer = _recorder(["--no-pack", *job["record"], "--backend", "bcc", "--instance", "zreplay_bcc"], CAPTURE / "bcc",
                      inner)
    return {"status": run_and_send(outer, sender)}


def foreign(job: dict[str, Any], sender: Sender) -> dict[str, Any]:
    """Run a user's command in a root of its own under the recorder."""
    if job["systemd"]:
        say("waiting for systemd")
        _await_systemd(root_of(job))
    for name, value in job["cgroup"].items():
        try:
            Path(CGROUP, name).write_text(value)
        except OSError as problem:
            raise OSError(0, f"the cgroup's {name} does not take '{value}' ({problem.strerror}); give it another with "
                             "--cgroup") from None
    say(f"recording {job['command'][0]}")
    command = rebinding_command(job.get("iaa") or {}, [sys.executable, "-S", "-s", "-m", "traces.lab.guestcommand"])
    return {"status": run_and_send(_recorder(["--no-pack", *job["record"]], CAPTURE, command), sender)}


def _await_systemd(root: str) -> None:
    """Wait until systemd has started its units.

    :raises OSError: when it does not start them in time
    """
    deadline = time.monotonic() + _SYSTEMD_WITHIN
    said = ""
    while time.monotonic() < deadline:
        if os.readlink("/proc/1/exe").endswith("/systemd"):
            done = subprocess.run(["chroot", root, "/usr/bin/systemctl", "is-system-running"], capture_output=True,
                                  text=True, check=False)
            said = (done.stdout + done.stderr).strip()
            if said in ("running", "degraded"):
                return
        time.sleep(1.0)
    raise OSError(0, f"systemd was not up after {_SYSTEMD_WITHIN:.0f} s ({said or 'it said nothing'}); see the console")


# Overhead


def overhead(job: dict[str, Any], sender: Sender) -> dict[str, Any]:
    """Time the workload under each way of recording, several times, in an order that rotates with every turn.

    What each way wrote in the last turn goes to the host, in a directory with the way's name.
    """
    rows = []
    CAPTURE.mkdir()
    say("a warm-up run, not measured: it reads and compiles everything for the first time")
    _measured(job, "nothing", None)
    for turn in range(job["repeat"]):
        for way in job["ways"] if turn % 2 == 0 else job["ways"][::-1]:
            say(f"measuring {way}, {turn + 1} of {job['repeat']}")
            last = turn == job["repeat"] - 1 and way != "nothing"
            rows.append({"way": way, "turn": turn, **_measured(job, way, sender if last else None)})
    return {"status": 0, "rows": rows}


def _measured(job: dict[str, Any], way: str, sender: Sender | None) -> dict[str, Any]:
    seconds, out = Path("/out/seconds.json"), Path("/out/measured")
    seconds.unlink(missing_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    tool, _, pages = way.partition(" ")
    began = time.monotonic()
    if tool == "nothing":
        # The workload takes its own snapshots: they are work of its phases' ends under any recorder.
        out.mkdir()
        done = subprocess.run(_workload(job, "--seconds", str(seconds), "--capture", str(out)), check=False, cwd="/out")
        facts: dict[str, Any] = {}
    elif tool == "trace-cmd":
        out.mkdir()
        done, facts = _trace_cmd(_workload(job, "--seconds", str(seconds), "--capture", str(out)), out, bool(pages))
    else:
        words = ["--backend", tool, "--pages", pages, *job["flush"]]
        command = _recorder(words, out, _workload(job, "--seconds", str(seconds)))
        done = subprocess.run(command, check=False, cwd="/out")
        losses = json.loads((out / "capture.json").read_text())["losses"]
        facts = {"lost": _sum(losses["cpus"]), "pages_lost": _sum(losses["pages"]),
                 "missed": sum(count for count in losses["probes"].values() if count != "unknown"),
                 "missed_unknown": sum(count == "unknown" for count in losses["probes"].values())}
    took = time.monotonic() - began
    if done.returncode:
        raise OSError(0, f"with {way} the workload ended with status {done.returncode}; see the console for why")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if sender is not None:
        # Removed at once: memory that it takes here would be missing in the next measurements.
        place = CAPTURE / way.replace(" ", "-").replace(":", "-")
        out.rename(place)
        sender.send_new(final=True)
        shutil.rmtree(place)
    shutil.rmtree(out, ignore_errors=True)
    return {**json.loads(seconds.read_text()), "with_setup": took, "bytes": size, **facts}


def _sum(cpus: dict[str, dict[str, Any]]) -> int | str:
    counts = [count for cpu in cpus.values() for count in cpu.values()]
    return "unknown" if "unknown" in counts else sum(counts)


def _trace_cmd(workload: list[str], out: Path,
               pages: bool) -> tuple[subprocess.CompletedProcess[bytes], dict[str, Any]]:
    """Run the workload under trace-cmd with the recorder's probes, filters and sizes of rings."""
    # Imported here: only this function needs the recorder's plan.
    from traces.record.box import Box
    from traces.record.names import TracefsNames
    from traces.record.plan import page_plan, plan
    from traces.record.session import ring_kb
    from traces.record.tracefs import Tracefs

    box, names = Box(), TracefsNames.of()
    kernel = box.kernel()
    tracefs = Tracefs(names=names)
    try:
        used, _ = tracefs.define(plan(kernel, pages))
        lru = box.addresses.get("zswap_list_lru")
        options = []
        for event in used:
            options += ["-e", f"{names.group}:{event}"]
            if lru is not None and event in ("lru_add", "lru_add_ret", "lru_del"):
                options += ["-f", f"lru=={lru:#x}"]
        if pages:
            wanted, _ = page_plan(kernel, box.compressors())
            for event in tracefs.define(wanted)[0]:
                options += ["-e", f"{names.page_group}:{event}"]
            # A page is longer than an ordinary sub-buffer.
            options += ["--subbuf-size", "64"]
        # One ring for all, where the recorder has two.
        kib = ring_kb(box.memory_kb(), 1)
        data = out / "trace.dat"
        done = subprocess.run(["trace-cmd", "record", "-q", "-C", "mono", "-b", str(kib), "-o", str(data), *options,
                               *workload], check=False, cwd="/out")
        report = subprocess.run(["trace-cmd", "report", "--stat", "-i", str(data)], text=True, capture_output=True,
                                check=False).stdout
        subprocess.run(["trace-cmd", "reset"], check=False, stdout=subprocess.DEVNULL)
        lost = [int(count) for count in re.findall(r"^(?:overrun|commit overrun|dropped events): (\d+)", report, re.M)]
        return done, {"lost": sum(lost) if lost else "unknown"}
    finally:
        tracefs.remove()
        tracefs.close()


# Kills


def kills(job: dict[str, Any], sender: Sender) -> dict[str, Any]:
    """Record once to the end, then kill recorders at moments drawn evenly from a time of that length."""
    CAPTURE.mkdir()
    drawn = random.Random(job["seed"])
    began = time.monotonic()
    say("recording to the end, for how long that takes")
    status = run_and_send(_recorder(job["record"], CAPTURE / "whole", _workload(job)), sender)
    if status:
        raise OSError(0, f"the recorder that is not killed ended with status {status}; see the console for why")
    span = time.monotonic() - began
    rows: list[dict[str, Any]] = []
    while len(rows) < job["count"]:
        name = f"k{len(rows):03d}"
        say(f"kill {len(rows) + 1} of {job['count']}")
        moment = drawn.uniform(0.0, span)
        row = _kill(job, CAPTURE / name, moment)
        if row["ended"] == 0:
            # It was faster than the one before, and was not killed.
            span = row["lasted"]
            shutil.rmtree(CAPTURE / name)
            continue
        rows.append({"name": name, "after": round(moment, 3), **row})
        sender.send_new()
    return {"status": 0, "span": span, "rows": rows, "leftovers": _clean()}


def _kill(job: dict[str, Any], out: Path, moment: float) -> dict[str, Any]:
    """Start a recorder and kill it; its next start, or ``--clean`` at the end, has to clean up after it.

    ``moment``: seconds after its directory is there.
    """
    process = subprocess.Popen(_recorder(job["record"], out, _workload(job)), cwd="/out", start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Before its directory exists it has promised nothing.
    deadline = time.monotonic() + _PATIENCE
    while not out.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    began = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    ended, lasted = process.poll(), time.monotonic() - began
    process.kill()
    process.wait()
    time.sleep(_AFTERWARDS)
    # The workload waits for a recorder that has ended.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while _STORED.read_text().strip() != "0" and time.monotonic() < deadline:
        time.sleep(0.02)
    for name in ("memory.max", "memory.zswap.max"):
        with contextlib.suppress(OSError):
            Path(CGROUP, name).write_text("max")
    reset(job)
    return {"ended": ended, "lasted": lasted, "still_stored": int(_STORED.read_text())}


def _clean() -> list[str]:
    """Clean up after the last kill; returns what is left in tracefs then."""
    subprocess.run([sys.executable, f"{_HERE}/record", "--clean"], check=True, stdout=subprocess.DEVNULL)
    tracing = Path("/sys/kernel/tracing")
    return [path.name for path in (tracing / "instances").iterdir()] + (tracing / "dynamic_events").read_text().split()


# Terminals


def terminals(job: dict[str, Any], sender: Sender) -> dict[str, Any]:
    """Run each of ``commands`` on a terminal of its own, ``columns`` wide, after ``before`` was run on none.

    What a command wrote to its terminal, with all that moves the cursor, is a file named by the command's number.
    """
    CAPTURE.mkdir()
    os.makedirs("/dev/pts", exist_ok=True)
    for command in job["before"]:
        subprocess.run(command, check=True)
    statuses = []
    for number, command in enumerate(job["commands"]):
        say(f"showing {' '.join(command)}")
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, job["columns"], 0, 0))
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=job["directory"],
                                   env={**os.environ, **job["environment"]}, start_new_session=True)
        os.close(slave)
        # EIO: no process has the terminal open any more.
        with (CAPTURE / str(number)).open("wb") as shown, contextlib.suppress(OSError):
            while piece := os.read(master, 65536):
                shown.write(piece)
        os.close(master)
        statuses.append(process.wait())
        sender.send_new()
    return {"status": 0, "statuses": statuses}


TASKS: Final[dict[str, Callable[[dict[str, Any], Sender], dict[str, Any]]]] = {
    "record": record, "foreign": foreign, "both": both, "overhead": overhead, "kills": kills,
    "terminals": terminals}
