# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a user's command in its root, in the guest, and keeps its output and its status.  The recorder starts it.

It uses the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from traces.lab.guestcommon import CAPTURE, CGROUP
from traces.record.capture import ANSWER, KEPT, STREAMS

__all__ = ["main", "root_of", "run"]

#: Seconds from SIGTERM to SIGKILL, and for the output of daemons that it left.
_MERCY: Final = 5.0
_AFTERWARDS: Final = 0.5
#: As a shell says it.
_NOT_THERE, _NOT_EXECUTABLE, _TIMED_OUT, _SIGNALLED = 127, 126, 124, 128


def root_of(job: dict[str, Any]) -> str:
    """Return where a command's root is: systemd has moved it over the first root, except for earlier processes."""
    return "/proc/1/root" if job["systemd"] else "/guest"


def run(job: dict[str, Any], capture: Path = CAPTURE, cgroup: str = CGROUP) -> int:
    """Run the command of a job and return its exit status, as a shell would say it.

    :param capture: directory for its output, and :data:`ANSWER`
    """
    began = time.monotonic()
    answer: dict[str, Any] = {"words": job["command"], "signal": None, "timed_out": False, "problem": ""}

    def enter() -> None:
        Path(cgroup, "cgroup.procs").write_text("0")
        os.chroot(root_of(job))
        os.chdir(job["directory"])

    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                   "LANG": "C.UTF-8", "TERM": "dumb", "USER": "root", "SHELL": "/bin/sh"}
    # The marker's file exists in any root; the recorder's pipe does not.
    if "ZREPLAY_MARKER" in os.environ:
        environment["ZREPLAY_MARKER"] = os.environ["ZREPLAY_MARKER"]
    counts = [0, 0]
    try:
        process = subprocess.Popen(job["command"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True, preexec_fn=enter)
    except OSError as problem:
        answer["problem"] = f"{job['command'][0]} cannot be run in the guest ({problem.strerror})"
        status = _NOT_THERE if isinstance(problem, FileNotFoundError) else _NOT_EXECUTABLE
    except subprocess.SubprocessError as problem:
        answer["problem"] = f"the guest's root cannot be entered ({problem})"
        status = _NOT_EXECUTABLE
    else:
        answer["timed_out"] = _listen(process, capture, counts, job["seconds"])
        status = process.returncode
        if status < 0:
            answer["signal"], status = -status, _SIGNALLED - status
        if answer["timed_out"]:
            status = _TIMED_OUT
    answer.update(status=status, seconds=round(time.monotonic() - began, 3),
                  bytes=dict(zip(STREAMS, counts, strict=True)))
    (capture / ANSWER).write_text(json.dumps(answer))
    return int(status)


def _listen(process: subprocess.Popen[bytes], capture: Path, counts: list[int], seconds: float) -> bool:
    """Keep what a command says until it ends; ``counts`` become the bytes of its streams; true when it had to be
    stopped."""
    began, warned, ended = time.monotonic(), 0.0, 0.0
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for number, (name, stream) in enumerate(zip(STREAMS, (process.stdout, process.stderr), strict=True)):
            assert stream is not None
            file = stack.enter_context((capture / name).open("wb", buffering=0))
            selector.register(stack.enter_context(stream), selectors.EVENT_READ, (number, file))
        while True:
            for key, _ in selector.select(0.2):
                number, file = key.data
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                file.write(data[:max(KEPT - counts[number], 0)])
                counts[number] += len(data)
            now = time.monotonic()
            if process.poll() is not None:
                # A daemon that the command left may hold the pipes open for ever.
                ended = ended or now
                if not selector.get_map() or now - ended > _AFTERWARDS:
                    return bool(warned)
                continue
            if not selector.get_map():
                time.sleep(0.05)
            if now - began > seconds and not warned:
                warned = now
                _signal(process, signal.SIGTERM)
            if warned and now - warned > _MERCY:
                _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def main() -> int:
    """Run the command of the guest's job."""
    return run(json.loads(Path("/job.json").read_text()))


if __name__ == "__main__":
    sys.exit(main())
