# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that were handed to the compressor, and which compress call each belongs to."""

from __future__ import annotations

from typing import Final

import numpy as np

from traces import schema
from traces.block import Block
from traces.chained import LONGEST_CHAIN
from traces.errors import BadInput
from traces.importers.chains import CallLog
from traces.pages import PageStoreWriter, sha1_of

__all__ = ["PageIndex"]

_COMPRESS: Final = schema.CODE["crypto_acomp_compress"]
_STRUCT_PAGE: Final = 64
#: How far from the newest page in use a call's page is searched, where some are missing or tasks interleave, and only
#: the order identifies it.
_LOOK_AROUND: Final = 64
#: x86-64 with 4-level paging and without KASLR: where page frame 0 is mapped, and where its struct page is.
PAGE_OFFSET_BASE: Final = 0xFFFF888000000000
VMEMMAP_BASE: Final = 0xFFFFEA0000000000


class PageIndex:
    """The pages of a run in the order in which the compressor got them.

    :param path: the index file, for messages
    :param ts: time stamps, ns
    :param address: virtual source addresses (uint64)
    :param sha1: hex digests
    :param data: uint8 array (pages, 4096), or None when only digests were kept
    :param bases: (page_offset_base, vmemmap_base) of the boot, or None when unknown: then only the order counts
    :param hashed: the digests were computed from the data here
    """

    def __init__(self, path: str, ts: np.ndarray, address: np.ndarray, sha1: list[str],
                 data: np.ndarray | None, bases: tuple[int, int] | None, hashed: bool = False) -> None:
        self.path = path
        self._ts = ts.astype(np.int64)
        self._sha1 = sha1
        self._data = data
        self._hashed = hashed
        self._next = 0
        self._taken = np.zeros(ts.size, bool)
        self.unmatched = 0
        #: pages whose bytes were lost with the box, known once they are stored
        self.damaged = 0
        #: rows sorted by page, once that is asked for
        self._order: np.ndarray | None = None
        self._known_place = bases is not None
        self._log = CallLog()
        page_offset, vmemmap = bases if bases is not None else (0, 0)
        # The struct page of each source address: what the scatter list of the compress call points at.
        frame = (address.astype(np.uint64) - np.uint64(page_offset)) >> np.uint64(12)
        self._page = (frame * np.uint64(_STRUCT_PAGE) + np.uint64(vmemmap)).view(np.int64)

    #: why calls have no page, where the source of these pages knows; "" where the recorder has to say
    why = ""

    @property
    def left(self) -> int:
        """How many pages no compress call took."""
        return int(np.count_nonzero(~self._taken))

    def attach(self, block: Block, unit_ns: int = 1) -> None:
        """Fill ``content`` of a block's compress calls with the row of ``refs`` of their first page.

        A call's pages are those recorded next, at the addresses the call names; ``unit_ns`` is how coarse the
        block's time stamps are.
        """
        calls = np.flatnonzero(block.event == _COMPRESS)
        self._attach(block, calls, unit_ns)
        first = block.column("folio")[calls] + block.column("offset")[calls] // schema.PAGE_SIZE * _STRUCT_PAGE
        one = block.column("size")[calls] == schema.PAGE_SIZE
        self._log.add(block, calls, first, np.where(one, block.column("content")[calls], -1))

    def _attach(self, block: Block, calls: np.ndarray, unit_ns: int) -> None:
        if not calls.size:
            return
        # More pages than there are: any more of them, and their sum might overflow.
        counts = np.clip(block.column("size")[calls] // schema.PAGE_SIZE, 1, self._ts.size + 1)
        wanted = block.column("folio")[calls] + block.column("offset")[calls] // schema.PAGE_SIZE * _STRUCT_PAGE
        before = np.cumsum(counts) - counts
        total = int(counts.sum())
        stamps = block.ts[calls] - unit_ns
        if self._next + total <= self._ts.size:
            span = slice(self._next, self._next + total)
            pages = np.repeat(wanted - before * _STRUCT_PAGE, counts) + np.arange(total) * _STRUCT_PAGE
            if (not self._known_place or bool(np.all(self._page[span] == pages))) \
                    and bool(np.all(self._ts[span] >= np.repeat(stamps, counts))):
                block.put("content", calls, self._next + before)
                self._taken[span] = True
                self._next += total
                return
        found = self._attach_slowly(block.pid[calls], counts, wanted, stamps, unit_ns)
        block.put("content", calls[found >= 0], found[found >= 0])

    def _attach_slowly(self, pids: np.ndarray, counts: np.ndarray, wanted: np.ndarray, stamps: np.ndarray,
                       unit_ns: int) -> np.ndarray:
        """Return the row of each call's first page, -1 for none, found call by call.

        For where pages or calls are missing from the recording, or tasks interleave.
        """
        out = np.full(pids.size, -1, np.int64)
        # A call's pages are recorded before its task calls again.
        until = np.full(pids.size, np.iinfo(np.int64).max)
        following: dict[int, int] = {}
        for number in range(pids.size - 1, -1, -1):
            pid = int(pids[number])
            until[number] = following.get(pid, until[number])
            following[pid] = int(stamps[number]) + 2 * unit_ns
        for call, (count, page, stamp, limit) in enumerate(zip(counts.tolist(), wanted, stamps, until, strict=True)):
            rows = self._candidates(int(page), count)
            good = ~self._taken[rows] & (self._ts[rows] >= stamp) & (self._ts[rows] <= limit)
            for at in rows[good].tolist():
                rest = slice(at, at + count)
                if not self._taken[rest].any() and self._ts[at + count - 1] <= limit and (
                        not self._known_place or count == 1
                        or bool(np.all(self._page[rest] == page + np.arange(count) * _STRUCT_PAGE))):
                    out[call] = at
                    self._taken[rest] = True
                    self._next = max(self._next, at + count)
                    break
            else:
                self.unmatched += 1
        return out

    def _candidates(self, page: int, count: int) -> np.ndarray:
        """Return the rows that may be a call's first page, in order.

        A task may be preempted between the two probes for as long as others hand over hundreds of pages: where the
        address is known, all rows of that page are considered.
        """
        if not self._known_place:
            low = max(self._next - _LOOK_AROUND, 0)
            return np.arange(low, max(low, min(self._next + _LOOK_AROUND, self._ts.size - count + 1)))
        if self._order is None:
            self._order = np.argsort(self._page, kind="stable")
        first, last = (np.searchsorted(self._page, page, side, self._order) for side in ("left", "right"))
        rows = self._order[first:last]
        return rows[rows <= self._ts.size - count]

    def chained(self) -> dict[tuple[int, int], int]:
        """Return the pages of requests that were chained to a call's: (its event, number from 1 on) -> ``content``.

        All calls have come.  A page is one's that no call named, and that was recorded while it ran, directly behind
        its others, as was the page in memory.
        """
        if not self.left or not self._known_place:
            return {}
        out = {}
        for call in self._log.calls():
            for number in range(1, LONGEST_CHAIN):
                at = call.content + number
                if at >= self._ts.size or self._taken[at] or self._ts[at] > call.over \
                        or self._page[at] != call.page + number * _STRUCT_PAGE:
                    break
                self._taken[at] = True
                out[call.number, number] = at
        return out

    def finish(self) -> None:
        """All compress calls have come; see :class:`traces.importers.devicepages.DevicePages`."""

    def store(self, writer: PageStoreWriter) -> None:
        """Write all pages, in order; called in a thread while events are imported.

        :raises BadInput: when the digests do not match the data
        """
        if self._data is not None and not self._hashed:
            for number, (digest, sha1) in enumerate(zip(sha1_of(self._data), self._sha1, strict=True)):
                if digest != sha1:
                    raise BadInput(self.path, f"page {number}", "its bytes do not match its SHA-1",
                                   "copy the page dump and its index again")
        for number, sha1 in enumerate(self._sha1):
            writer.add(None if self._data is None else self._data[number].tobytes(), sha1)
