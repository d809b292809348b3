# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages are hashed in a process of their own, which runs when the CPU would be idle.

Until then they wait in their rings: kernel memory that is neither swapped nor written to disk.  When a ring is half
full, the recorder gives the process its own priority until the rings are empty again.  The process ends when the
recorder is killed; of the recorder's files in tracefs it holds only the rings it reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from .exits import without_bytes
from .memlock import lock_memory
from .pages import PageTaker
from .rings import RingReader

__all__ = ["PageWorker"]

#: Seconds between looks into the rings, and the most that one look takes.
_LOOK, _TURN = 0.25, 0.1
#: prctl(): a signal for this process when its parent ends (include/uapi/linux/prctl.h).
_SET_PDEATHSIG = 1
#: What ends with the recorder's end of the pipe still open.
_END = b"end\n"


class PageWorker:
    """The process; it begins with this object.

    :param reader: of the pages' rings; the recorder must not read them itself any more
    :param taker: what ``reader`` hands sub-buffers to
    :param let_go: called in the new process: closes what only the recorder may hold
    :raises OSError: when there can be no more processes
    """

    def __init__(self, reader: RingReader, taker: PageTaker, let_go: Callable[[], None]) -> None:
        orders, self._orders = os.pipe2(os.O_CLOEXEC)
        self._answers, answers = os.pipe2(os.O_CLOEXEC)
        recorder = os.getpid()
        with warnings.catch_warnings():
            # Pythons from 3.12 on warn where a library has threads; the new process uses none of their locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            status = 1
            try:
                os.close(self._orders)
                os.close(self._answers)
                let_go()
                status = _work(recorder, orders, answers, reader, taker)
            except BaseException:
                sys.stderr.write(without_bytes(traceback.format_exc()))
            finally:
                # Nothing of the recorder's own ends here a second time.
                os._exit(status)
        os.close(orders)
        os.close(answers)

    def hurry(self, niceness: int) -> None:
        """Let it run like others until the rings are empty."""
        with contextlib.suppress(OSError):
            os.sched_setscheduler(self._pid, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, self._pid, niceness)

    def check(self) -> None:
        """Make sure that it still works.

        :raises OSError: what it ended with
        """
        if _readable(self._answers, 0.0):
            self.end(0)

    def end(self, niceness: int) -> dict[str, int]:
        """Have it take what the rings still hold, and return what :class:`pages.PageTaker` counts.

        :raises OSError: when it could not write something
        """
        self.hurry(niceness)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._orders, _END)
        text = b""
        while data := os.read(self._answers, 4096):
            text += data
        self._reap()
        answer: dict[str, Any] = json.loads(text) if text else {"errno": 0}
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]) if answer["errno"]
                          else "the process that hashes pages was killed")
        return answer

    def close(self) -> None:
        """End it, whatever it does; nothing where it has ended."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._reap()

    def _reap(self) -> None:
        # Where the recorder's parent ignores SIGCHLD, the kernel has reaped it by then.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self._pid = 0
        os.close(self._orders)
        os.close(self._answers)


def _readable(fd: int, seconds: float) -> bool:
    """Return whether a pipe can be read, or has no other end, within some time."""
    # select() takes no file descriptor from 1,024 on: boxes of many CPUs have as many rings open.
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(math.ceil(1000 * seconds)))


def _work(recorder: int, orders: int, answers: int, reader: RingReader, taker: PageTaker) -> int:
    """Be the process; returns its exit status."""
    # Ctrl-C is for the recorder, which then says what there is to do.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != recorder:
        return 1
    # On a box short of memory it would wait for its own pages while the rings run over.
    lock_memory()
    try:
        wait = 0.0
        while not _readable(orders, wait):
            wait = 0.0 if reader.round(_TURN) else _LOOK
            if wait and os.sched_getscheduler(0) != os.SCHED_IDLE:
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        # Where the pipe has no other end, the recorder has ended.
        if os.read(orders, len(_END)) != _END:
            return 1
        reader.rest()
        answer = {"pages": taker.pages, "broken": taker.broken}
    except OSError as problem:
        answer = {"errno": problem.errno or 5}
    os.write(answers, json.dumps(answer).encode())
    return int("errno" in answer)
