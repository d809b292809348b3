# SPDX-License-Identifier: GPL-2.0-or-later
"""Draining rings while they are written: whole sub-buffers from trace_pipe_raw, CPU by CPU.

Mirrors tracing_buffers_read() and tracing_buffers_splice_read() in kernel/trace/trace.c (Linux 6.12 to 7.3): a read
also gives a sub-buffer that is being written, as far as it is filled; splice() gives full ones only, as they are in
memory, without copying them.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from .capture import AppendFile

__all__ = ["RingCopier", "RingReader"]

#: Bytes handed over at once, at most.
_CHUNK = 2 << 20
#: Bytes that a pipe between a ring and its file is asked to hold; it may get less.
_PIPE = 1 << 20
#: F_SETPIPE_SZ (include/uapi/linux/fcntl.h), which Python has a name for from 3.10 on.
_SETPIPE_SZ = 1031


class RingReader:
    """Reads the rings of all CPUs of an instance in rounds.

    :param cpus: (number, per_cpu directory) of the CPUs
    :param subbuf: bytes of a sub-buffer: a read of less would cut one
    :param ring: bytes of one CPU's ring
    :param take: called with a CPU's number and some whole sub-buffers
    :param chunk: bytes that it is called with at most, but for one sub-buffer at least
    """

    def __init__(self, cpus: list[tuple[int, Path]], subbuf: int, ring: int,
                 take: Callable[[int, bytes], None], chunk: int = _CHUNK) -> None:
        self._subbuf = subbuf
        self._chunk = chunk
        self._ring = ring
        self._take = take
        self._pipes: list[tuple[int, int]] = []
        #: Returns the CPUs that have a ring by now, as (number, directory): they may come online later.  With True
        #: it also returns those that are not known to have been online at any time.
        self.more: Callable[[bool], list[tuple[int, Path]]] | None = None
        try:
            self.add(cpus)
        except OSError:
            # The caller cannot close an object whose construction failed.
            RingReader.close(self)
            raise

    def add(self, cpus: list[tuple[int, Path]]) -> None:
        """Read these CPUs' rings too; those that it reads already stay, and CPUs without a ring are left out."""
        there = set(self.numbers())
        for number, path in cpus:
            if number in there:
                continue
            pipe = os.open(path / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            # ring_buffer_poll_wait() says so of a CPU that was never online since the instance was made.
            if any(events & select.POLLERR for _, events in poll.poll(0)):
                os.close(pipe)
            else:
                self._pipes.append((number, pipe))

    def numbers(self) -> list[int]:
        """Return the CPUs whose rings it reads."""
        return [number for number, _ in self._pipes]

    def pipes(self) -> list[int]:
        """Return file descriptors that poll() finds readable when a ring is filled to the instance's share."""
        return [pipe for _, pipe in self._pipes]

    def round(self, seconds: float = math.inf) -> int:
        """Hand over all that the rings held when it was called, and return how many bytes that was.

        A sub-buffer that is being written is handed over as far as it is filled.

        :param seconds: go no further after this time; the CPU whose turn it was then comes last the next time
        """
        total = 0
        until = time.monotonic() + seconds
        if self.more is not None:
            self.add(self.more(False))
        for number, pipe in list(self._pipes):
            if time.monotonic() > until:
                break
            self._pipes.append(self._pipes.pop(0))
            done = 0
            # Events may arrive as fast as they are read; after a whole ring the rest is newer than this call.
            while done <= self._ring and time.monotonic() <= until:
                size = self._some(number, pipe)
                if not size:
                    break
                done += size
            total += done
        return total

    def rest(self) -> None:
        """Hand over all that is left, when the rings are off; also of CPUs that were online for a moment only."""
        if self.more is not None:
            self.add(self.more(True))
        while self.round():
            pass

    def _some(self, number: int, pipe: int) -> int:
        """Hand over some of a CPU's sub-buffers and return how many bytes that was, 0 when there are none."""
        parts = []
        size = 0
        while size < self._chunk:
            data = _read(pipe, self._subbuf)
            if not data:
                break
            parts.append(data)
            size += len(data)
        if parts:
            self._take(number, b"".join(parts))
        return size

    def close(self) -> None:
        """Let go of the rings."""
        for _, pipe in self._pipes:
            os.close(pipe)
        self._pipes = []


class RingCopier(RingReader):
    """Copies the rings of all CPUs into a file each, as far as it can without looking at them.

    :param cpus: (number, per_cpu directory) of the CPUs
    :param subbuf: bytes of a sub-buffer
    :param ring: bytes of one CPU's ring
    :param make: returns the file of a CPU, when it has the first events
    """

    def __init__(self, cpus: list[tuple[int, Path]], subbuf: int, ring: int, make: Callable[[int], AppendFile]) -> None:
        super().__init__(cpus, subbuf, ring, self._put)
        self._make = make
        self._files: dict[int, AppendFile] = {}
        # Python has it from 3.10 on; of a sub-buffer of several pages splice() gives the first.
        self._splice = hasattr(os, "splice") and subbuf == os.sysconf("SC_PAGE_SIZE")
        self._between = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._between[1], _SETPIPE_SZ, _PIPE)

    def _put(self, number: int, data: bytes) -> None:
        if number not in self._files:
            self._files[number] = self._make(number)
        self._files[number].write(data)

    def _some(self, number: int, pipe: int) -> int:
        if not self._splice:
            return super()._some(number, pipe)
        # Most rings of a large box are empty: that costs one call each.
        data = _read(pipe, self._subbuf)
        if not data:
            return 0
        self._put(number, data)
        return len(data) + self._spliced(pipe, self._files[number])

    def _spliced(self, pipe: int, file: AppendFile) -> int:
        """Move full sub-buffers as long as there are any; returns how many bytes that was."""
        done = 0
        while done < _CHUNK and self._splice:
            try:
                size = os.splice(pipe, self._between[1], _PIPE)  # type: ignore[attr-defined,unused-ignore]
            except BlockingIOError:
                break
            except OSError:
                # Reading always works, and says what is wrong where it does not.
                self._splice = False
                break
            if not size:
                break
            self._splice = file.take(self._between[0], size)
            done += size
        return done

    def close(self) -> None:
        """Let go of the rings."""
        super().close()
        for end in self._between:
            os.close(end)


def _read(pipe: int, size: int) -> bytes:
    """Return a sub-buffer, nothing where there is none."""
    try:
        return os.read(pipe, size)
    except BlockingIOError:
        return b""
