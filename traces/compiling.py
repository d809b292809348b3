# SPDX-License-Identifier: GPL-2.0-or-later
"""What compiling takes: Numba compiles a function when it is first called, in the middle of whatever calls it.

Numba keeps what it compiled, so this happens once per machine.  It is measured apart: no other figure includes it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["announcing", "kept_seconds", "seconds", "watch"]


class _Clock:
    """Adds up what compiling takes in this process, of whatever thread: Numba compiles under one lock."""

    def __init__(self) -> None:
        self.total = 0.0
        self.kept = 0.0
        self.watching = False
        self.say: Callable[[], None] | None = None
        self._depth = 0
        self._began = 0.0
        self._keeps = False

    def start(self, keeps: bool) -> None:
        """A function begins to be compiled; those that it calls follow inside.

        :param keeps: the code is kept for later processes; some small functions are compiled anew in each
        """
        if not self._depth:
            self._began, self._keeps = time.perf_counter(), keeps
            if keeps and self.say is not None:
                say, self.say = self.say, None
                say()
        self._depth += 1

    def end(self) -> None:
        """It is compiled, or cannot be."""
        self._depth -= 1
        if not self._depth:
            took = time.perf_counter() - self._began
            self.total += took
            self.kept += took if self._keeps else 0.0


_CLOCK = _Clock()


def watch() -> None:
    """Look at what is compiled from here on; does nothing where Numba is not loaded, as nothing is compiled then."""
    if _CLOCK.watching or "numba" not in sys.modules:
        return
    from numba.core import event
    from numba.core.caching import NullCache

    class Listener(event.Listener):
        """Hands Numba's events on."""

        def on_start(self, event: Any) -> None:
            """Take a start."""
            _CLOCK.start(not isinstance(event.data["dispatcher"]._cache, NullCache))

        def on_end(self, event: Any) -> None:
            """Take an end."""
            _CLOCK.end()

    event.register("numba:compile", Listener())  # type: ignore[no-untyped-call]
    _CLOCK.watching = True


def seconds() -> float:
    """Return how long this process has compiled since :func:`watch` was first called: wall-clock seconds."""
    return _CLOCK.total


def kept_seconds() -> float:
    """Return how much of that was for code that is kept, so that no later process compiles it."""
    return _CLOCK.kept


@contextmanager
def announcing(say: Callable[[], None]) -> Iterator[None]:
    """Call ``say`` when something is compiled that is kept, the first time only."""
    before, _CLOCK.say = _CLOCK.say, say
    try:
        yield
    finally:
        _CLOCK.say = before
