# SPDX-License-Identifier: GPL-2.0-or-later
"""Compress and decompress calls against their events, also calls that take several pages (crypto/acompress.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.effects import Effect
from model.errno import E2BIG
from model.revisions.batching import as_errno
from model.zsmalloc import PAGE_SIZE
from replay.handlers_zsmalloc import ZsmallocHandlers
from replay.snapshots import SnapshotChecks
from traces import schema

if TYPE_CHECKING:
    from replay.engine import Frame

__all__ = ["AcompHandlers"]

#: struct page on every 64-bit configuration Debian builds.
_STRUCT_PAGE: Final = 64


class AcompHandlers(ZsmallocHandlers):
    """Comparison of compressor calls."""

    snapshots: SnapshotChecks
    #: event at which lengths of a call were last asked for, and the first page it was asked for there
    _asked_at: tuple[int, int] = (-1, 0)

    def on_compress(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the source page, how many pages and the room of a compress call."""
        folio, index, pages, pool = effect[1:5]
        self.n["acomp.calls"] += 1
        recorded = (self.folio[i] + self.offset[i] // PAGE_SIZE * _STRUCT_PAGE, self.offset[i] % PAGE_SIZE,
                    self.size[i], self.dlen[i])
        predicted = (folio.address + index * _STRUCT_PAGE, 0, pages * PAGE_SIZE, pages * PAGE_SIZE)
        if recorded != predicted:
            self.diverge("acomp.calls", i, recorded=recorded, predicted=predicted,
                         what="(struct page, offset, slen, dlen) of the compress call", frame=frame)
        frame.scratch["content"] = self.content[i]
        # The pool the store holds, whatever is current by the time it goes on.
        frame.scratch["pool"] = pool
        frame.scratch["pages"] = pages

    def on_compress_ret(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int, int]:
        """Compare error and length with what the compressor gives; answer with the recorded ones."""
        ret, dlen = self.ret[i], self.dlen[i]
        content: int = frame.scratch["content"]
        name = self.compressor_of(frame)
        if frame.scratch["pages"] > 1:
            # What became of each page shows when its object is allocated.
            return ret, dlen, content
        expected = self.predictions.result(content, name)
        if expected is not None:
            what = f"of {name} for page {self.predictions.page(content)}"
            self._compare_result("store.error", ret, expected[0], f"error {what}", i, frame)
            self._compare_result("store.length", dlen, expected[1], f"length {what}", i, frame)
        limits = self.predictions.bounds(content, name)
        if limits is not None:
            self._within(limits, ret, dlen, name, i, frame)
        return ret, dlen, content

    def _compare_result(self, check: str, recorded: int, predicted: int, what: str, i: int, frame: Frame) -> None:
        """Compare what a compressor gave; a library that is not exact here is no judge, what it misses is counted."""
        self.n[check] += 1
        if recorded == predicted:
            return
        if self.compressor_of(frame) in self.predictions.inexact:
            self.tally.apart(check)
        else:
            self.diverge(check, i, recorded=recorded, predicted=predicted, what=what, frame=frame)

    def _within(self, limits: tuple[int, int], ret: int, dlen: int, name: str, i: int, frame: Frame) -> None:
        """Compare the length of a hardware's result with what it can be; of an error nobody can say why it came."""
        if ret:
            return
        low, high = limits[0], min(limits[1], PAGE_SIZE)
        self.n["store.length"] += 1
        if not low <= dlen <= high:
            self.diverge("store.length", i, recorded=dlen, predicted=f"{low} to {high}",
                         what=f"length of {name}, as its format allows", frame=frame)

    def on_decompress(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare source length and room of a decompress call with the entry's."""
        self.n["load.result"] += 1
        if (self.size[i], self.dlen[i]) != (effect[1], PAGE_SIZE):
            self.diverge("load.result", i, recorded=(self.size[i], self.dlen[i]), predicted=(effect[1], PAGE_SIZE),
                         what="(slen, dlen) of the decompress call", frame=frame)

    def on_decompress_ret(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Compare a decompression's outcome with success; answer with the recorded one."""
        self.n["load.result"] += 1
        recorded = (self.ret[i], self.dlen[i])
        if recorded != (effect[1], effect[2]):
            self.diverge("load.result", i, recorded=recorded, predicted=(effect[1], effect[2]),
                         what="(return value, bytes) of the decompress call", frame=frame)
        return recorded

    # ---- calls that take several pages ------------------------------------------------------------------

    def sg_length(self, question: Effect, name: str, i: int) -> tuple[int, int] | None:
        """Answer what a call left in the scatter list for one of its pages: (length or errno, content).

        No probe shows it.  The size that zswap then asks of zs_malloc() is the length; a whole page stands for an
        error, unless the compressor is known to give exactly that.  None: the call had one page, and returned it.
        """
        _, _, _, pages, err, dlen, content, number = question
        if pages == 1:
            return None
        own = content + number if content >= 0 else -1
        first_errno = as_errno(dlen) if number == 0 and as_errno(dlen) < 0 else 0
        row = self._allocation(i, number) if name == "zs_malloc" else None
        if row is None:
            # Rejected, or the events end here: only the counters tell how many pages were at fault.
            missing = self.snapshots.next_value("reject_compress_fail") - self.model.counters.reject_compress_fail
            return (first_errno or err or E2BIG, own) if missing > 0 else (1, own)
        size = self.size[row]
        frame = self.stacks[self.pid[i]][-1]
        algorithm = self.compressor_of(frame)
        expected = self.predictions.result(own, algorithm)
        limits = self.predictions.bounds(own, algorithm)
        if expected is not None:
            # An error, or a success that is no smaller than the page, is stored with the size of a page.
            self._compare_result("store.length", size, PAGE_SIZE if expected[0] else expected[1],
                                 f"length of {algorithm} for page {self.predictions.page(own)}", row, frame)
        elif limits is not None and size < PAGE_SIZE:
            self._within(limits, 0, size, algorithm, row, frame)
        if size < PAGE_SIZE or expected == (0, PAGE_SIZE):
            return size, own
        return (expected[0] if expected is not None else first_errno) or E2BIG, own

    def _allocation(self, i: int, number: int) -> int | None:
        """Return the row of the zs_malloc() of a call's page; ``i`` is that of the first page asked for there.

        Looks no further than the batch of rows at hand: a revision that asks for all pages of a call at once (v8, and
        the meant ones where a folio may not be written back) is told nothing of those behind it.
        """
        if self._asked_at[0] != self._row(i):
            self._asked_at = (self._row(i), number)
        ahead = number - self._asked_at[1]
        pid, code = self.pid[i], self.event[i]
        end = schema.CODE["zswap_store_ret"]
        for row in range(i, len(self.event)):
            if self.pid[row] != pid:
                continue
            if self.event[row] == code:
                if not ahead:
                    return row
                ahead -= 1
            elif self.event[row] == end:
                break
        return None

    def acomp_batch(self, question: Effect, name: str, i: int) -> None:
        """Compare the error of a call with what became of its pages, where the revision says how they go together."""
        _, err, lengths, expected = question
        if expected is None:
            return
        self.n["acomp.batch"] += 1
        if err != expected:
            failed = sum(length < 0 for length in lengths)
            self.diverge("acomp.batch", i, recorded=err, predicted=expected,
                         what=f"return value of a compress call of {len(lengths)} pages of which {failed} failed")
