# SPDX-License-Identifier: GPL-2.0-or-later
"""The v8 posting: requests of up to eight pages chained into one call, objects without a raw form (March 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from model.effects import Steps
from model.revisions.batchcompress import Call
from model.revisions.batching import BatchedStore
from model.revisions.mainline_6_12 import Mainline612
from model.zswap import Folio, Zswap, ZswapEntry, ZswapPool

__all__ = ["V8"]

_SERIES: Final = "20250303084724.6490"


class V8(BatchedStore, Mainline612):
    """v8 as posted: zswap_batch_compress() with request chaining, for the tree that became 6.15.

    An error of any page rejects the folio, and with a chained call each page that failed is counted.  The lock of the
    per-CPU context is held per folio (IAA) or per batch; that changes how long loads wait, which is not modelled.
    """

    mirrors = f"v8 of zswap compression batching as posted, <{_SERIES}-15-kanchana.p.sridhar@intel.com>"
    LARGE_FOLIOS = True
    HAS_MTHP_ZSWPOUT = True
    crypto_layer = "v8"
    compress_call = "chain"

    def _store_folio(self, folio: Folio, has_objcg: bool, writeback: bool | None) -> Steps[bool]:
        return (yield from Zswap._store_folio(self, folio, has_objcg, writeback))

    def _writeback_of_folio(self) -> Steps[bool | None]:
        # Only the raw form would need it, and v8 has none.
        yield from ()
        return None

    def zswap_alloc_entries(self, folio: Folio, pages: range, pool: ZswapPool) -> Steps[list[ZswapEntry] | None]:
        """Every entry of the batch up front, one by one, its handle preset to an error."""
        return (yield from self._alloc_singly(folio, pages, pool))

    def zswap_compress_batch(self, folio: Folio, pages: range, entries: Sequence[ZswapEntry], pool: ZswapPool,
                             writeback: bool) -> Steps[bool]:
        """zswap_batch_compress(): a chain of requests where the compressor batches, else page after page."""
        if self.compr_batch_size(pool) > 1 and folio.nr_pages > 1:
            return (yield from self._compress_chain(folio, pages, entries, pool))
        for index, entry in zip(pages, entries, strict=True):
            yield ("crypto_acomp_compress", folio, index, 1, pool)
            err, dlen, entry.content = yield ("crypto_acomp_compress_ret", folio, index)
            self.compressed(err, dlen)
            if err:
                self._count_reject(err, 0)
                return False
            if not (yield from self._store_object(entry, dlen, False)):
                return False
        return True

    def _compress_chain(self, folio: Folio, pages: range, entries: Sequence[ZswapEntry],
                        pool: ZswapPool) -> Steps[bool]:
        """One call for the batch; the head request carries the others, each ends with an error of its own."""
        yield ("crypto_acomp_compress", folio, pages[0], len(pages), pool)
        call = Call(folio, pages[0], len(pages), *(yield ("crypto_acomp_compress_ret", folio, pages[0])))
        self.reached["zswap_compress.batch"] += 1
        rejected: bool | None = yield ("?batch_failed", call)
        units: list[tuple[int, object]] = []
        if rejected is not False:
            for number in range(len(pages)):
                units.append((yield from self._of_chain(call, number)))
                if units[-1][0] < 0:
                    self.reached["zswap_compress.batch_error"] += 1
                    self._count_reject(units[-1][0], 0)
            if rejected or call.err or any(length < 0 for length, _ in units):
                self.reached["zswap_compress.batch_failed"] += 1
                return False
        for number, entry in enumerate(entries):
            length, entry.content = units[number] if units else (yield from self._of_chain(call, number))
            if not (yield from self._store_object(entry, length, False)):
                return False
        return True

    def _of_chain(self, call: Call, number: int) -> Steps[tuple[int, object]]:
        """acomp_request_err() and dlen of one request of a chain, as a length or errno, and its content."""
        known: tuple[int, object] | None = yield ("?sg_length", *call, number)
        unit = known if known is not None else (call.err or call.dlen, call.content)
        self.compressed(min(unit[0], 0), unit[0])
        return unit


REVISIONS = {"v8": V8}
