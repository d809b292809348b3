# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder's sleep: it ends with an order, the command's end, a ring that is half full, or its time."""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess

__all__ = ["Waiter"]


class Waiter:
    """Sleeps until there is something to do.

    :param control: pipe of commands
    :param rings: file descriptors of each reader's rings; the first reader's are empty before the next wait
    :param child: the command that is recorded
    """

    def __init__(self, control: int, rings: list[list[int]], child: subprocess.Popen[bytes] | None) -> None:
        self._control = control
        self._rings = rings
        self._poll = select.poll()
        for pipe in (control, *(rings[0] if rings else ())):
            self._poll.register(pipe, select.POLLIN)
        self._child = -1
        if child is not None and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._child = os.pidfd_open(child.pid)
                self._poll.register(self._child, select.POLLIN)
        #: Whether the rings of the readers after the first are listened to.
        self._listening = False
        self._listen(True)

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child >= 0:
            os.close(self._child)

    def _listen(self, on: bool) -> None:
        if on != self._listening:
            for pipe in (pipe for pipes in self._rings[1:] for pipe in pipes):
                if on:
                    self._poll.register(pipe, select.POLLIN)
                else:
                    self._poll.unregister(pipe)
            self._listening = on

    def follow(self, rings: list[list[int]]) -> None:
        """Wait for rings that have come, too: a CPU that comes online has one."""
        if rings == self._rings:
            return
        listening = self._listening
        self._listen(False)
        for pipe in rings[0] if rings else ():
            if pipe not in self._rings[0]:
                self._poll.register(pipe, select.POLLIN)
        self._rings = rings
        self._listen(listening)

    def wait(self, seconds: float) -> tuple[bool, bool, list[bool]]:
        """Return whether the command has ended, whether there are orders, and which readers' rings are full.

        A ring of a later reader that was full is not listened to for a whole wait: to empty it takes time.
        """
        ready = {pipe for pipe, _ in self._poll.poll(math.ceil(1000 * seconds))}
        full = [any(pipe in ready for pipe in pipes) for pipes in self._rings]
        # Whatever ended the wait: on a busy box something always does.
        self._listen(not any(full[1:]))
        return self._child in ready, self._control in ready, [*full, False]
