# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPUs there are: a ring is made for a CPU when it first comes online, and stays when it goes off.

Mirrors trace_rb_cpu_prepare() in kernel/trace/ring_buffer.c (Linux 6.12 to 7.3): of a CPU that was never online since
an instance was made, trace_pipe_raw can be opened, read() says ENODEV and poll() POLLERR.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Cpus", "changes_in_words", "cpu_numbers", "cpu_text"]

_ONLINE = "sys/devices/system/cpu/online"
#: More CPUs than any Linux is built for.
_MOST = 1 << 16


def cpu_numbers(text: str) -> list[int]:
    """Return the CPUs of a list as the kernel prints it (``0-3,8``), in order."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d{1,5})(?:-(\d{1,5}))?", text):
        found.update(range(int(first), min(int(last or first), _MOST) + 1))
    return sorted(found)


def cpu_text(numbers: Iterable[int]) -> str:
    """Return CPUs as the kernel prints a list of them."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def changes_in_words(changes: Iterable[tuple[int, bool]]) -> list[str]:
    """Return a clause per group of CPUs that came or went together, from (CPU, whether it came online) in order."""
    return [f"CPU{'s' * (len(numbers) > 1)} {cpu_text(numbers)} {'came online' if online else 'went offline'}"
            for online, numbers in ((online, {number for number, _ in group})
                                    for online, group in itertools.groupby(changes, lambda change: change[1]))]


class Cpus:
    """The CPUs that are online, and those that were.

    :param root: where sys is mounted
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._path = root / _ONLINE
        #: CPUs that are online; None where the kernel does not say.
        self.online = self._read()
        #: All that were, since this object was made: they have rings.
        self.seen = set(self.online or ())
        #: (CPU, whether it came, time) of all that came and went since then; ns of the trace clock.
        self.changes: list[tuple[int, bool, int]] = []

    def _read(self) -> set[int] | None:
        try:
            return set(cpu_numbers(self._path.read_text())) or None
        except OSError:
            return None

    def look(self) -> None:
        """Look again, and note which CPUs came and went."""
        now = self._read()
        if now is None or self.online is None or now == self.online:
            return
        ts = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self.changes += [(number, number in now, ts) for number in sorted(now ^ self.online)]
        self.online = now
        self.seen |= now

    def has_ring(self, number: int) -> bool:
        """True for a CPU that has a ring in an instance that was made after this object."""
        return self.online is None or number in self.seen
