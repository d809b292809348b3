# SPDX-License-Identifier: GPL-2.0-or-later
"""Draining rings while they are written: whole sub-buffers from trace_pipe_raw, CPU by CPU."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["RingReader"]

#: Bytes handed over at once, at most.
_CHUNK = 2 << 20


class RingReader:
    """Reads the rings of all CPUs of an instance in rounds.

    :param cpus: (number, per_cpu directory) of the CPUs
    :param subbuf: bytes of a sub-buffer: a read of less would cut one
    :param ring: bytes of one CPU's ring
    :param take: called with a CPU's number and some whole sub-buffers
    """

    def __init__(self, cpus: list[tuple[int, Path]], subbuf: int, ring: int,
                 take: Callable[[int, bytes], None]) -> None:
        self._subbuf = subbuf
        self._ring = ring
        self._take = take
        self._pipes = [(number, os.open(path / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK))
                       for number, path in cpus]

    def round(self, seconds: float = math.inf) -> int:
        """Hand over all that the rings held when it was called, and return how many bytes that was.

        A sub-buffer that is being written is handed over as far as it is filled.

        :param seconds: go no further after this time; the CPU whose turn it was then comes last the next time
        """
        total = 0
        until = time.monotonic() + seconds
        for number, pipe in list(self._pipes):
            if time.monotonic() > until:
                break
            self._pipes.append(self._pipes.pop(0))
            done = 0
            # Where events come as fast as they are read there is no end; a whole ring later the rest is newer.
            while done <= self._ring and time.monotonic() <= until:
                parts = []
                size = 0
                while size < _CHUNK:
                    try:
                        data = os.read(pipe, self._subbuf)
                    except BlockingIOError:
                        break
                    if not data:
                        break
                    parts.append(data)
                    size += len(data)
                if not parts:
                    break
                self._take(number, b"".join(parts))
                done += size
            total += done
        return total

    def close(self) -> None:
        """Let go of the rings."""
        for _, pipe in self._pipes:
            os.close(pipe)
        self._pipes = []
