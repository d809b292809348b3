# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's memory as the device reaches it: physical addresses, no IOMMU, every access checked.

QEMU hands over a file descriptor with each range (VFIO_USER_DMA_MAP of docs/interop/vfio-user.rst). An access is
answered from the mapped file alone; what no range holds, or what the guest may not have written, is a
:class:`MemoryFault`, which the device reports as the hardware reports a page fault.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_MAPPINGS", "GuestMemory", "MemoryFault", "Overlap"]

#: The protocol's default for the greatest number of ranges at a time (max_dma_maps).
MAX_MAPPINGS: Final = 65_535
_TOP: Final = 1 << 64


class MemoryFault(LookupError):
    """An address that the guest has no memory at, or none for this kind of access.

    :param address: the first byte that cannot be reached
    :param write: the access would have written
    """

    def __init__(self, address: int, write: bool) -> None:
        super().__init__(f"no {'writable ' if write else ''}guest memory at {address:#x}")
        self.address = address
        self.write = write


class Overlap(ValueError):
    """A range is to be where another is."""


@dataclass(frozen=True)
class _Range:
    """Guest addresses [start, end) and their bytes; without bytes it cannot be reached."""

    start: int
    end: int
    view: memoryview | None
    readable: bool
    writable: bool


class GuestMemory:
    """Ranges of guest memory, sorted, without overlap."""

    def __init__(self) -> None:
        self._ranges: list[_Range] = []
        self._starts: list[int] = []
        # The range that served the last access, which serves most.
        self._last = _Range(0, 0, None, False, False)

    def __len__(self) -> int:
        return len(self._ranges)

    def map(
        self, start: int, size: int, fd: int | None, offset: int, readable: bool = True, writable: bool = True
    ) -> None:
        """Add a range; the descriptor stays the caller's.

        :raises ValueError: when it is empty, lies outside of its file, or there are too many; :class:`Overlap`
        :raises OSError: when the file cannot be mapped
        """
        end = start + size
        if size <= 0 or end > _TOP or len(self._ranges) >= MAX_MAPPINGS:
            raise ValueError(f"a range of {size:#x} bytes at {start:#x} cannot be mapped")
        at = bisect_right(self._starts, start)
        if (at and self._ranges[at - 1].end > start) or (at < len(self._ranges) and self._ranges[at].start < end):
            raise Overlap(f"the range at {start:#x} overlaps another")
        view = None
        if fd is not None:
            if offset < 0 or offset + size > os.fstat(fd).st_size:
                raise ValueError(f"the range at {start:#x} lies outside of its file")
            # Maps begin on a page; the range may begin anywhere.
            skip = offset % mmap.ALLOCATIONGRANULARITY
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            view = memoryview(mmap.mmap(fd, size + skip, access=access, offset=offset - skip))[skip:]
        self._ranges.insert(at, _Range(start, end, view, readable, writable))
        self._starts.insert(at, start)

    def unmap(self, start: int, size: int) -> int:
        """Remove the ranges that lie within an interval.

        :returns: how many there were
        """
        kept = [one for one in self._ranges if not (start <= one.start and one.end <= start + size)]
        gone = len(self._ranges) - len(kept)
        self._ranges = kept
        self._starts = [one.start for one in kept]
        self._last = _Range(0, 0, None, False, False)
        return gone

    def clear(self) -> None:
        """Remove all ranges."""
        self.unmap(0, _TOP)

    def at(self, address: int, size: int, write: bool = False) -> memoryview:
        """Return the bytes themselves, not a copy.

        :raises MemoryFault: unless one range holds all of them
        """
        last = self._last
        if not (last.start <= address and address + size <= last.end):
            number = bisect_right(self._starts, address) - 1
            if number < 0:
                raise MemoryFault(address, write)
            last = self._ranges[number]
            if address >= last.end:
                raise MemoryFault(address, write)
            if address + size > last.end:
                raise MemoryFault(last.end, write)
            self._last = last
        view = last.view
        if view is None or not (last.writable if write else last.readable):
            raise MemoryFault(address, write)
        begin = address - last.start
        return view[begin : begin + size]

    def _pieces(self, address: int, size: int, write: bool) -> list[memoryview]:
        # Ranges that follow one another without a gap hold a buffer together.
        pieces: list[memoryview] = []
        while size:
            number = bisect_right(self._starts, address) - 1
            if number < 0 or self._ranges[number].end <= address:
                raise MemoryFault(address, write)
            length = min(size, self._ranges[number].end - address)
            pieces.append(self.at(address, length, write))
            address, size = address + length, size - length
        return pieces

    def read(self, address: int, size: int) -> memoryview | bytes:
        """Return ``size`` bytes: those themselves where one range holds them, else a copy.

        :raises MemoryFault: at the first that is not there
        """
        try:
            return self.at(address, size)
        except MemoryFault:
            return b"".join(self._pieces(address, size, False))

    def check(self, address: int, size: int) -> None:
        """Look whether ``size`` bytes could be written.

        :raises MemoryFault: at the first that could not
        """
        try:
            self.at(address, size, True)
        except MemoryFault:
            self._pieces(address, size, True)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Write, all or nothing.

        :raises MemoryFault: at the first byte that cannot be written
        """
        try:
            self.at(address, len(data), True)[:] = data
        except MemoryFault:
            at = 0
            for piece in self._pieces(address, len(data), True):
                piece[:] = data[at : at + len(piece)]
                at += len(piece)
