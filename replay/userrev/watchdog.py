# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends a user's code that does not come back: a loop that never yields, a wait for nothing.

Several times a second the watchdog looks where the thread is.  While it is inside the watched code and that code has
come no further, its time runs; when that is up, :class:`TooLong` is raised there.  In the main thread a timer's signal
does it, which also ends waiting for a lock and sleeping; elsewhere, or where the timer is taken, a thread does it.

Code that catches even that is asked again and again, then the process ends.  One call of a C function that neither
returns nor looks for signals (``sum(itertools.count())``) cannot be ended from inside the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NoReturn

__all__ = ["ASKED", "LIMIT", "VARIABLE", "TooLong", "end_process", "limit", "watchdog"]

#: Seconds of the CPU that a step may take, and how many times as long it may take in all, where it waits.
LIMIT: Final = 10.0
WAITING: Final = 6
#: The variable of the environment that sets another limit; workers inherit it.
VARIABLE: Final = "ZREPLAY_REVISION_SECONDS"
_LOOK: Final = 0.1
#: How often code is asked that catches what is raised, before the process ends.
ASKED: Final = 20


class TooLong(BaseException):
    """Raised inside code whose time is up; no Exception, so that ``except Exception`` lets it through."""


def limit() -> float:
    """Return how many seconds of the CPU a step may take."""
    try:
        seconds = float(os.environ.get(VARIABLE, ""))
    except ValueError:
        return LIMIT
    return seconds if 0 < seconds < float("inf") else LIMIT


def end_process(sentence: str) -> NoReturn:
    """Say a sentence and end the process as for bad input, whatever else it holds."""
    os.write(2, f"zreplay: {sentence}\n".encode(errors="replace"))
    _exit(2)


#: As it was when this was loaded: code that is watched may be given another.
_exit: Final = os._exit


class _Clock:
    """How long a thread has been inside the watched code without coming further."""

    def __init__(self, inside: Callable[[FrameType | None], bool], further: Callable[[], object],
                 cpu: Callable[[], float]) -> None:
        self._inside, self._further, self._cpu = inside, further, cpu
        self._limit = limit()
        self._seen: object = None
        self._used = self._waited = 0.0
        self._last = (0.0, 0.0)

    def up(self, frame: FrameType | None) -> bool:
        """Look; True when its time is up."""
        now = (self._cpu(), time.monotonic())
        before, self._last = self._last, now
        seen = self._further()
        if seen != self._seen or not self._inside(frame):
            self._seen = seen
            self._used = self._waited = 0.0
            return False
        self._used += now[0] - before[0]
        # A box that was suspended meanwhile has not waited.
        self._waited += min(now[1] - before[1], 10 * _LOOK)
        return self._used > self._limit or self._waited > WAITING * self._limit


@contextlib.contextmanager
def watchdog(inside: Callable[[FrameType | None], bool], further: Callable[[], object],
             fired: Callable[[FrameType | None, bool], None]) -> Iterator[None]:
    """Watch this thread.

    :param inside: True for a frame that is of the watched code, or called by it
    :param further: returns something else whenever the code has come further
    :param fired: called with the frame before :class:`TooLong` is raised in it, and whether it is the last time; it
        does not return then
    """
    times = 0

    def fire(frame: FrameType | None) -> None:
        nonlocal times
        times += 1
        fired(frame, times > ASKED)

    if _may_use_timer():
        clock = _Clock(inside, further, time.thread_time)

        def look(number: int, frame: FrameType | None) -> None:
            if clock.up(frame):
                fire(frame)
                raise TooLong

        before = signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return
    over = threading.Event()
    thread = threading.Thread(target=_look_from_outside, daemon=True,
                              args=(threading.get_ident(), _Clock(inside, further, time.process_time), fire, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10 * _LOOK)
        # An exception that was raised and has not arrived is dropped.
        _raise_in(threading.get_ident(), None)


def _may_use_timer() -> bool:
    return (threading.current_thread() is threading.main_thread() and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
            and signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN))


def _look_from_outside(thread: int, clock: _Clock, fire: Callable[[FrameType | None], None],
                       over: threading.Event) -> None:
    while not over.wait(_LOOK):
        frame = sys._current_frames().get(thread)
        if clock.up(frame):
            fire(frame)
            _raise_in(thread, TooLong)


def _raise_in(thread: int, kind: Any) -> None:
    """Have an exception raised in a thread at its next step in Python, or (None) take that back."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind) if kind else None)
