# SPDX-License-Identifier: GPL-2.0-or-later
"""How a batch is compressed: page by page as mainline does, or with results in a scatter list (v12 23/23, v14 26/26).

The outside (a recording, or :mod:`model.crypto.acomp`) says what a compress call leaves in the scatter list's
lengths; this module says what zswap does with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from model import errno
from model.effects import Steps
from model.page import PAGE_SIZE
from model.revisions.batching import BatchedStore, as_errno
from model.zswap import Folio, ZswapEntry, ZswapPool

__all__ = ["Call", "CompressPageByPage", "CompressToScatterList", "CompressToScatterListMeant"]


class Call(NamedTuple):
    """One compress call: ``pages`` of ``folio`` from page ``first`` on, and what it returned."""

    folio: Folio
    first: int
    pages: int
    err: int
    dlen: int
    content: object


class CompressPageByPage(BatchedStore):
    """Batches that are stored together, but compressed by one call for each page (v12 22/23, v14 25/26)."""

    def zswap_compress_batch(self, folio: Folio, pages: range, entries: Sequence[ZswapEntry], pool: ZswapPool,
                             writeback: bool) -> Steps[bool]:
        """zswap_compress() as mainline has it, page after page; the writeback rule was read before."""
        for index, entry in zip(pages, entries, strict=True):
            yield ("crypto_acomp_compress", folio, index, 1, pool)
            ret, dlen, entry.content = yield ("crypto_acomp_compress_ret", folio, index)
            raw = bool(ret or not dlen or dlen >= PAGE_SIZE)
            self.compressed(ret, dlen)
            if raw:
                self.reached["zswap_compress.raw" if writeback else "zswap_compress.no_writeback"] += 1
            if raw and not writeback:
                self._count_reject(ret or errno.EINVAL, 0)
                return False
            if not (yield from self._store_object(entry, PAGE_SIZE if raw else dlen, raw)):
                return False
        return True


class CompressToScatterList(BatchedStore):
    """One call for as many pages as the compressor takes; a page's length, or its error, is its entry's length.

    A page is stored as it is only where its length is an error.  When the compressor succeeds with a length of a whole
    page, its output is stored, and read back as if it were the page itself.
    """

    CHECKS_LENGTH = False
    WHOLE_IS_PAGE: bool | None = None

    def zswap_compress_batch(self, folio: Folio, pages: range, entries: Sequence[ZswapEntry], pool: ZswapPool,
                             writeback: bool) -> Steps[bool]:
        """zswap_compress() of a batch: one call for as many pages as the compressor takes."""
        unit = min(len(pages), self.compr_batch_size(pool))
        for first in range(0, len(pages), unit):
            index = pages[first]
            yield ("crypto_acomp_compress", folio, index, unit, pool)
            err, dlen, content = yield ("crypto_acomp_compress_ret", folio, index)
            call = Call(folio, index, unit, err, dlen, content)
            if not (yield from self._store_units(call, entries[first:first + unit], writeback)):
                return False
        return True

    def _store_units(self, call: Call, entries: Sequence[ZswapEntry],
                     writeback: bool) -> Steps[bool]:
        """What zswap makes of one compress call."""
        if call.pages > 1:
            self.reached["zswap_compress.batch"] += 1
        if call.err and not writeback:
            self.reached["zswap_compress.batch_failed"] += 1
            yield from self._reject_units(call)
            return False
        lengths: list[int] = []
        for number, entry in enumerate(entries):
            length, entry.content = yield from self._sg_length(call, number)
            lengths.append(length)
            if not (yield from self._store_unit(entry, length)):
                yield from self._told(call, lengths)
                return False
        if len(entries) > 1:
            self.reached["zswap_compress.batch_error"] += sum(length < 0 for length in lengths)
        yield from self._told(call, lengths)
        return True

    def _told(self, call: Call, lengths: Sequence[int]) -> Steps[None]:
        """What is to be known of the lengths of a call of several pages is known: what may it have returned?"""
        if call.pages > 1:
            yield ("?acomp_batch", call, lengths, self.batch_results(call, lengths))

    def _sg_length(self, call: Call, number: int) -> Steps[tuple[int, object]]:
        """(int)sg->length of one page of a call, and its content; by default the call's own error or length."""
        unit: tuple[int, object] | None = yield ("?sg_length", *call, number)
        return unit if unit is not None else (call.err or call.dlen, call.content)

    def _store_unit(self, entry: ZswapEntry, length: int) -> Steps[bool]:
        raw = length < 0
        self._unit_compressed(length, raw)
        if raw:
            self.ledger.take("kmap_local", entry.swpent)
        if not (yield from self._store_object(entry, PAGE_SIZE if raw else length, raw)):
            # Out of the loop with the page still mapped.
            return False
        if raw:
            self.ledger.give("kmap_local", entry.swpent)
        return True

    def _unit_compressed(self, length: int, raw: bool) -> None:
        """Note how a page of a call ended: ``length`` is an errno or a length."""
        self.compressed(min(length, 0), length)
        if raw:
            self.reached["zswap_compress.raw"] += 1

    def _reject_units(self, call: Call) -> Steps[None]:
        """compress_error: each page of the call that has an error is counted."""
        for number in range(call.pages):
            length, _ = yield from self._sg_length(call, number)
            if length < 0:
                self.reached["zswap_compress.batch_error"] += 1
                self._count_reject(length, 0)
        # Counters show which of them failed, but not how long the others are.
        yield from self._told(call, ())

    def batch_results(self, call: Call, lengths: Sequence[int]) -> tuple[frozenset[int], frozenset[int]]:
        """What a call over several pages may return, and leave as ``dlen``, given the known lengths of its pages.

        :param lengths: of the first pages, as many as are known; an errno for one that failed
        """
        if call.err and as_errno(call.dlen) == call.err and all(length < 0 for length in lengths):
            # The driver took none of it: one error for the call and every page of it (v12 14/23, v14 12/26).
            return frozenset({call.err}), frozenset({call.err})
        certain = self.batch_error(lengths) if lengths else errno.EINVAL
        errors = {certain if certain is not None else 0}
        if len(lengths) < call.pages or (certain is None and any(length < 0 for length in lengths)):
            # As posted both occur: submission's errors are returned, those of completion are lost (18/26).
            errors |= {0, errno.EINVAL} if lengths else {errno.EINVAL}
        return frozenset(errors), self.batch_dlens(call, lengths)

    def batch_dlens(self, call: Call, lengths: Sequence[int]) -> frozenset[int]:
        """What a call over several pages may leave as ``dlen``: the first entry's length, or its errno (v14 13/26)."""
        return frozenset(lengths[:1])

    def batch_error(self, lengths: Sequence[int]) -> int | None:
        """What a call over several pages returns for these lengths; None: anything, as posted.

        18/26 notes an error in an unsigned length and then checks whether it is negative: errors found at completion
        are lost, those of submission are not.
        """
        assert lengths
        return None


class CompressToScatterListMeant(CompressToScatterList):
    """The same as the postings' text means it: what does not fit into less than a page is an error of that page.

    It is taken as it is, or rejects the folio; a call over several pages fails when one of them does, and each page
    that failed is counted.
    """

    CHECKS_LENGTH = True
    WHOLE_IS_PAGE = True

    def _store_units(self, call: Call, entries: Sequence[ZswapEntry],
                     writeback: bool) -> Steps[bool]:
        if writeback:
            return (yield from super()._store_units(call, entries, writeback))
        units = []
        failed = False
        for number in range(len(entries)):
            length, content = yield from self._sg_length(call, number)
            units.append((length, content))
            if not 0 < length < PAGE_SIZE:
                self._unit_compressed(length, False)
                self._count_reject(length if length < 0 else errno.EINVAL, 0)
                failed = True
        if failed:
            self.reached["zswap_compress.no_writeback"] += 1
            yield from self._told(call, ())
            return False
        yield from self._told(call, [length for length, _ in units])
        for entry, (length, content) in zip(entries, units, strict=True):
            entry.content = content
            if not (yield from self._store_unit(entry, length)):
                return False
        return True

    def _store_unit(self, entry: ZswapEntry, length: int) -> Steps[bool]:
        raw = not 0 < length < PAGE_SIZE
        self._unit_compressed(length, raw)
        return (yield from self._store_object(entry, PAGE_SIZE if raw else length, raw))

    def batch_error(self, lengths: Sequence[int]) -> int | None:
        """-EINVAL when a page of the call failed, else 0."""
        return errno.EINVAL if any(length < 0 for length in lengths) else 0
