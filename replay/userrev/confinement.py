# SPDX-License-Identifier: GPL-2.0-or-later
"""What others' code may not do while it runs here: print where results go, end the process, take all memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

__all__ = ["bounded_memory", "interruptible", "no_exit", "output_to_stderr"]

#: The share of the memory that is available which such code may take, and what it may take in any case, bytes.
SHARE: Final = 0.75
LEAST: Final = 1 << 30


@contextlib.contextmanager
def output_to_stderr() -> Iterator[None]:
    """Send to stderr whatever is printed or written to stdout, by Python or by its file descriptor."""
    before = sys.stdout
    before.flush()
    try:
        kept = os.dup(1)
    except OSError:
        kept = -1
    try:
        if kept >= 0:
            with contextlib.suppress(OSError):
                os.dup2(2, 1)
        sys.stdout = sys.stderr
        yield
    finally:
        for stream in (sys.stdout, sys.__stdout__):
            with contextlib.suppress(Exception):
                if stream is not None:
                    stream.flush()
        sys.stdout = before
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)


@contextlib.contextmanager
def no_exit() -> Iterator[None]:
    """Have os._exit() raise SystemExit in this thread: its status would be taken for a verdict.

    In other threads, and in children of a fork, it ends the process as before.
    """
    before, here = os._exit, (os.getpid(), threading.get_ident())

    def leave(status: int) -> Any:
        if (os.getpid(), threading.get_ident()) != here:
            before(status)
        raise SystemExit(status)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = before


@contextlib.contextmanager
def interruptible(notify: Callable[[], None]) -> Iterator[None]:
    """Have ``notify`` called when this process is interrupted: a revision may raise the same exception by itself."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> Any:
        notify()
        return before(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def bounded_memory() -> Iterator[int]:
    """Let the process take three quarters of what memory is available, 1 GiB at least; gives how many bytes that is.

    What goes beyond raises MemoryError here, instead of having the kernel end a process of its choice.
    """
    available = _available()
    extra = max(LEAST, int(available * SHARE)) if available is not None else 0
    held = _kilobytes("/proc/self/status", "VmData")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if not extra or held is None:
        yield 0
        return
    wanted = held + extra
    for bound in (soft, hard):
        wanted = min(wanted, bound) if bound != resource.RLIM_INFINITY else wanted
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield extra
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _available() -> int | None:
    """Return how many bytes this process can have: of the box, or of its cgroup where that is less."""
    free = _kilobytes("/proc/meminfo", "MemAvailable")
    cgroup = [_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current")]
    if cgroup[0] is not None and cgroup[1] is not None:
        left = max(0, cgroup[0] - cgroup[1])
        free = left if free is None else min(free, left)
    return free


def _kilobytes(file: str, name: str) -> int | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":")), None)


def _number(file: str) -> int | None:
    try:
        return int(Path(file).read_text())
    except (OSError, ValueError):
        return None
