# SPDX-License-Identifier: GPL-2.0-or-later
"""Regions of anonymous memory with known content: filled, paged out, read back, rewritten, given back."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from traces.events import PAGE_SIZE

from .naming import PLAIN, Naming
from .pages import PageSource, digest

__all__ = ["Region", "Slot", "read_slots"]

# From uapi/asm-generic/mman-common.h; Python's mmap module does not name all of them.
_MADV_DONTNEED: Final = 4
_MADV_HUGEPAGE: Final = 14
_MADV_NOHUGEPAGE: Final = 15
_MADV_PAGEOUT: Final = 21

# A pagemap entry, from Documentation/admin-guide/mm/pagemap.rst.
_SWAPPED: Final = 1 << 62
_TYPE_BITS: Final = 5
_OFFSET_BITS: Final = 50


class Slot(NamedTuple):
    """Where a page is in swap: device number and offset in pages; both -1 while it is in memory."""

    type: int
    offset: int


def read_slots(pagemap: int, address: int, pages: int) -> list[Slot]:
    """Return the swap slots of ``pages`` pages from ``address`` on.

    :param pagemap: open file descriptor of a ``/proc/PID/pagemap``
    """
    data = os.pread(pagemap, pages * 8, address // PAGE_SIZE * 8)
    slots = []
    for at in range(0, len(data), 8):
        entry = int.from_bytes(data[at:at + 8], "little")
        if entry & _SWAPPED:
            slots.append(Slot(entry & (1 << _TYPE_BITS) - 1, entry >> _TYPE_BITS & (1 << _OFFSET_BITS) - 1))
        else:
            slots.append(Slot(-1, -1))
    return slots


class Region:
    """Private anonymous memory of a worker, and the content that it must have.

    :param pages: its size in pages of 4096 bytes
    :param folio: size in bytes of the folios that it is to be made of
    :param namings: how each truth names a page's content
    """

    def __init__(self, pages: int, folio: int, namings: Sequence[Naming] = (PLAIN,)) -> None:
        self._namings = namings
        self.pages = pages
        self.folio = folio
        length = pages * PAGE_SIZE + folio
        # Python's default is a shared mapping: that would be shmem, not anonymous memory.
        self.map = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self._skip = -start % folio
        self.address = start + self._skip
        # On a box where transparent huge pages are always on, small folios have to be asked for.
        self._advise(_MADV_HUGEPAGE if folio > PAGE_SIZE else _MADV_NOHUGEPAGE, 0, pages)
        #: Of each page its kind, its digest, which is written nowhere, and its names.
        self.content: list[tuple[str, str, list[str]] | None] = [None] * pages

    def _advise(self, advice: int, first: int, pages: int) -> None:
        self.map.madvise(advice, self._skip + first * PAGE_SIZE, pages * PAGE_SIZE)

    def _bytes(self, number: int) -> slice:
        return slice(self._skip + number * PAGE_SIZE, self._skip + (number + 1) * PAGE_SIZE)

    def fill(self, source: PageSource, mix: str, seed: str, first: int = 0, last: int | None = None,
             step: int = 1) -> None:
        """Write new pages over every ``step``-th page from ``first`` up to ``last``.

        A folio is all zeros, or has no zero page by chance: so a large folio reaches zswap whole.
        """
        rng = random.Random(seed)
        unit = self.folio // PAGE_SIZE
        zeros = False
        for number in range(first, self.pages if last is None else last, step):
            kind, data = source.page(mix, rng)
            if unit > 1:
                if number % unit == 0 or number == first:
                    zeros = kind == "zeros"
                if zeros:
                    kind, data = "zeros", bytes(PAGE_SIZE)
            self.map[self._bytes(number)] = data
            self.content[number] = (kind, digest(data), [name(data) for name in self._namings])

    def page_out(self, first: int = 0, last: int | None = None, chunk: int = 0, pause: float = 0.0) -> int:
        """Ask the kernel to page out, ``chunk`` pages at a time (0: all at once) with pauses in seconds between.

        The pauses give the kernel's workers their turns.  Returns how many pages are in swap then.
        """
        last = self.pages if last is None else last
        for start in range(first, last, chunk or last - first):
            self._advise(_MADV_PAGEOUT, start, min(chunk or last - first, last - start))
            if pause:
                time.sleep(pause)
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            slots = read_slots(pagemap.fileno(), self.address + first * PAGE_SIZE, last - first)
        return sum(slot.offset >= 0 for slot in slots)

    def read(self, first: int = 0, last: int | None = None, step: int = 1) -> tuple[int, list[int]]:
        """Read pages back; returns how many, and the numbers of those that do not hold what was written."""
        count, bad = 0, []
        for number in range(first, self.pages if last is None else last, step):
            known = self.content[number]
            if known is None:
                continue
            count += 1
            if digest(self.map[self._bytes(number)]) != known[1]:
                bad.append(number)
        return count, bad

    def unmap(self, first: int = 0, last: int | None = None) -> None:
        """Give pages back to the kernel: their swap slots are freed."""
        last = self.pages if last is None else last
        self._advise(_MADV_DONTNEED, first, last - first)
        self.content[first:last] = [None] * (last - first)

    def truth(self) -> list[tuple[int, str, list[str], int, int]]:
        """Return (page, kind, names, swap type, swap offset) of every page that was written."""
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            slots = read_slots(pagemap.fileno(), self.address, self.pages)
        return [(number, known[0], known[2], *slots[number]) for number, known in enumerate(self.content)
                if known is not None]
