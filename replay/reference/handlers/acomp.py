# SPDX-License-Identifier: GPL-2.0-or-later
"""Compress and decompress calls against their events, also calls that take several pages (crypto/acompress.c)."""

from __future__ import annotations

from typing import Final

from model.effects import Effect
from model.errno import E2BIG, EBUSY, EINPROGRESS, EINVAL, EIO
from model.page import PAGE_SIZE
from model.revisions.batchcompress import Call, CompressToScatterList
from model.revisions.batching import as_errno
from replay.reference.comparer import Comparer
from replay.reference.frame import Frame
from replay.reference.invariants import Invariants
from replay.reference.lookahead import Lookahead
from replay.reference.state import CannotFollow, ReplayState

__all__ = ["STRUCT_PAGE", "AcompHandlers"]

#: struct page on every 64-bit configuration Debian builds.
STRUCT_PAGE: Final = 64
#: MAX_ERRNO of include/linux/err.h
_MAX_ERRNO: Final = 4095


class AcompHandlers:
    """Comparison of compressor calls."""

    def __init__(self, state: ReplayState, comparer: Comparer, invariants: Invariants, lookahead: Lookahead) -> None:
        self.state = state
        self.batch = state.batch
        self.held = state.held
        self.predictions = state.predictions
        self.n = state.tally.compared
        self.sees, self.guess = state.sees, state.guess
        self.hold, self.diverge = comparer.hold, comparer.diverge
        self.invariants = invariants
        self.lookahead = lookahead
        #: event at which lengths of a call were last asked for, and the first page it was asked for there
        self._asked_at = (-1, 0)

    def on_crypto_acomp_compress(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare the source page, how many pages and the room of a compress call."""
        batch = self.batch
        folio, index, pages, pool = effect[1:5]
        # Which page of the folio it is takes both: where it begins, and how far into it.
        page = folio.address + index * STRUCT_PAGE if folio.address >= 0 \
            and (self.sees("crypto_acomp_compress", "offset") or not folio.order) else None
        # Each request of a chain has its own page; the head's is the first.
        size = (1 if self.state.model.compress_call == "chain" else pages) * PAGE_SIZE
        self.hold("crypto_acomp_compress", i, frame,
                  (batch.folio[i] + batch.offset[i] // PAGE_SIZE * STRUCT_PAGE, batch.offset[i] % PAGE_SIZE,
                   batch.size[i], batch.dlen[i]),
                  (page, 0, size, size))
        frame.handed.content = batch.content[i]
        # The pool the store holds, whatever is current by the time it continues.
        frame.handed.pool = pool
        frame.handed.pages = pages
        frame.handed.called = batch.row(i)
        frame.handed.failed = False

    def on_crypto_acomp_compress_ret(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int, int]:
        """Compare error and length with what the compressor gives; answer with the recorded ones."""
        batch = self.batch
        ret, dlen = batch.ret[i], batch.dlen[i]
        sees_ret = self.sees("crypto_acomp_compress_ret", "ret")
        sees_dlen = self.sees("crypto_acomp_compress_ret", "dlen")
        whole = frame.handed.pages == 1 and sees_ret and sees_dlen
        frame.handed.result = (ret, as_errno(dlen)) if whole else None
        content = frame.handed.content
        name = self.state.compressor_of(frame)
        frame.handed.unwritten = self.state.driver_unwritten(batch.row(i), name)
        if frame.handed.pages > 1:
            # What became of each page shows when its object is allocated.
            frame.handed.lengths = self.state.driver_lengths(batch.row(i))
            if self.state.model.compress_call == "chain" and (not sees_ret or ret in (EBUSY, EINPROGRESS)):
                # It ends behind its return; its caller waits.
                ret = 0
            return ret, dlen, content
        if sees_ret and ret == EINPROGRESS:
            frame.handed.result = self.state.driver_result(batch.row(i))
            if frame.handed.result is None:
                return (*self._result_elsewhere(i, content, name, batch.row(i), later=True), content)
            ret, dlen = frame.handed.result
            early = self.state.driver_early(batch.row(i))
            if early and not ret and dlen != PAGE_SIZE and self._kept_whole(i):
                # Which of them is first, only the hardware knows.
                self.state.early_interrupts += 1
                frame.handed.result = 0, early
                return 0, early, content
            if ret:
                # With an interrupt every error is -EIO (iaa_desc_complete()).
                return ret, dlen, content
        software, frame.handed.software = frame.handed.software, None
        if software is not None:
            # Software's bytes, not the device's.
            self.hold("crypto_acomp_compress_ret:ret", i, frame, (ret,), (software[0],),
                      what="error of the driver's software fallback")
            return (ret, dlen, -1) if sees_ret and (sees_dlen or ret) else \
                (*self._result_elsewhere(i, -1, name, None), -1)
        expected = self.predictions.result(content, name)
        driver, left = self.state.driver_result(batch.row(i)) or (0, 0)
        if driver and expected is not None and expected[0] == driver:
            # What a driver that fails leaves as dlen, the compressor does not say.
            expected, dlen = (driver, left), as_errno(dlen)
        if driver and (expected is None or expected[0] != driver):
            # The page compresses, and the driver fails all the same: its check of the result, or its device.
            self.hold("crypto_acomp_compress_ret:ret", i, frame, (ret,), (driver,), what=f"error of {name}'s driver")
            return ret, dlen, content
        if expected is not None:
            what = f"of {name} for page {self.predictions.page(content)}"
            judged = self.state.predicts(name, batch.row(i))
            self._compare_result("crypto_acomp_compress_ret:ret", ret, expected[0], f"error {what}", i, frame, judged)
            self._compare_result("crypto_acomp_compress_ret:dlen", dlen, expected[1], f"length {what}", i, frame,
                                 judged)
        known = sees_ret and (sees_dlen or ret)
        err, length = (ret, dlen) if known else self._result_elsewhere(i, content, name, batch.row(i))
        limits = self.predictions.bounds(content, name)
        if limits is not None and self.held["crypto_acomp_compress_ret:dlen"].some:
            # A call that failed leaves something else than a length as dlen.
            self._within(limits, err, dlen, name, i, frame)
        return err, length, content

    def _kept_whole(self, i: int) -> bool:
        """True where what the task stores next has a page's length."""
        source = self.lookahead.length_source()
        row = self.lookahead.next_event(i, source, 0) if source else None
        return row is not None and self.batch.size[row] == PAGE_SIZE

    def compress_result(self, question: Effect, name: str, i: int) -> tuple[int, int, int]:
        """Answer for a compress call whose return was not probed: (error, dlen, content), from other events."""
        frame = self.state.stacks[self.batch.pid[i]][-1]
        content = frame.handed.content
        if frame.handed.pages > 1:
            # What became of each page shows when its object is allocated.
            return 0, 0, content
        return (*self._result_elsewhere(i, content, self.state.compressor_of(frame), None), content)

    def _result_elsewhere(self, i: int, content: int, name: str, returned: int | None, *,
                          later: bool = False) -> tuple[int, int]:
        """Return a compress call's (error, dlen), which no probe captured: what was stored has its length.

        :param i: a row of the call's task, at which its result is asked for: the next one may be another task's
        :param returned: the event of its return, None where that was not probed
        :param later: the call returned -EINPROGRESS, and its result came with an interrupt
        :raises CannotFollow: where no event has a length, and the compressor does not say what it gives
        """
        batch = self.batch
        source = self.lookahead.length_source()
        row = self.lookahead.next_event(i, source, 0) if source else None
        expected = self.predictions.result(content, name) if self.state.predicts(name, returned) else None
        if row is not None:
            size = batch.size[row]
            if later and expected is not None:
                frame = self.state.stacks[batch.pid[row]][-1]
                self._compare_result(f"{source}:length", size, PAGE_SIZE if expected[0] else expected[1],
                                     f"length of {name} for page {self.predictions.page(content)}", row, frame, True)
            if size != PAGE_SIZE or (self.sees("crypto_acomp_compress_ret", "ret") and not later):
                return 0, size
            # A page that did not compress, which is kept as it is, or one that compressed to no less.
            is_page = self.lookahead.writes_page(content, row, self.state.stacks[batch.pid[row]][-1])
            if is_page is None and expected is None:
                self.guess("crypto_acomp_compress_ret has no ret: whether an object of a whole page is the page itself "
                           "is not known")
            whole = not is_page if is_page is not None else expected is not None and not expected[0]
            return 0 if whole else (expected[0] if expected is not None else 0) or E2BIG, size
        if expected is not None:
            return expected
        if not source:
            raise CannotFollow("crypto_acomp_compress_ret has no ret and dlen, and no other event has a page's length")
        self.guess("crypto_acomp_compress_ret has no ret and dlen: with which error a page was rejected is not known")
        return EINVAL, 0

    def _compare_result(self, key: str, recorded: int, predicted: int, what: str, i: int, frame: Frame,
                        judged: bool) -> None:
        """Compare what a compressor gave; where that need not be so it does not judge, and what misses is counted."""
        if recorded != predicted and not judged:
            if self.held[key].some:
                self.n[self.held[key].check] += 1
                self.state.tally.apart(self.held[key].check)
            return
        self.hold(key, i, frame, (recorded,), (predicted,), what=what)

    def _within(self, limits: tuple[int, int], ret: int, dlen: int, name: str, i: int, frame: Frame) -> None:
        """Compare the length of a hardware's result with what it can be; why an error came is not known."""
        if ret:
            return
        low, high = limits[0], min(limits[1], PAGE_SIZE)
        self.n["store.length"] += 1
        if low <= dlen <= high:
            return
        if name in self.predictions.inexact:
            self.state.tally.apart("store.length")
        else:
            self.diverge("store.length", i, recorded=dlen, predicted=f"{low} to {high}",
                         what=f"length of {name}, as its format allows", frame=frame)

    def on_crypto_acomp_decompress(self, effect: Effect, i: int, frame: Frame) -> None:
        """Compare source length and room of a decompress call with the entry's."""
        batch = self.batch
        self.hold("crypto_acomp_decompress", i, frame, (batch.size[i], batch.dlen[i]), (effect[1], PAGE_SIZE))

    def on_crypto_acomp_decompress_ret(self, effect: Effect, i: int, frame: Frame) -> tuple[int, int]:
        """Compare a decompression's outcome with success; answer with the recorded one."""
        batch = self.batch
        predicted = (effect[1], effect[2])
        if batch.ret[i] == EINPROGRESS and self.sees("crypto_acomp_decompress_ret", "ret"):
            answer = self._inflated_later(predicted, i, frame)
            self.invariants.inflated(answer, frame)
            return answer
        # Whether a driver with a fallback succeeds is not zswap's doing; the invariants say what a failure means.
        software, frame.handed.software = frame.handed.software, None
        seen = self.held["crypto_acomp_decompress_ret"].seen
        if software is not None:
            software = software[0] if seen[0] else predicted[0], software[1] if seen[1] else predicted[1]
        known = self.state.driver_result(batch.row(i)) or software
        if known is not None or self.state.driver_results is None:
            predicted = known or predicted
            self.hold("crypto_acomp_decompress_ret", i, frame, (batch.ret[i], batch.dlen[i]), predicted)
        elif not seen[0]:
            predicted = self._inflated_later(predicted, i, frame)
        answer = (batch.ret[i] if seen[0] else predicted[0], batch.dlen[i] if seen[1] else predicted[1])
        self.invariants.inflated(answer, frame)
        return answer

    def _inflated_later(self, predicted: tuple[int, int], i: int, frame: Frame) -> tuple[int, int]:
        """Return the outcome of a decompression that an interrupt ended: what zswap made of it shows."""
        known = self.state.driver_result(self.batch.row(i))
        if known is not None:
            return known
        row = self.lookahead.next_event(i, "zswap_load_ret", 0) if frame.name == "zswap_load" else None
        failed = row is not None and self.batch.ret[row] == EIO
        return (EIO, 0) if failed else predicted

    # ---- calls that take several pages ------------------------------------------------------------------

    def sg_length(self, question: Effect, name: str, i: int) -> tuple[int, int] | None:
        """Answer what a call left in the scatter list for one of its pages: (length or errno, content).

        No probe shows it.  The size that zswap then asks of zs_malloc() is the length; a whole page stands for an
        error, unless the compressor is known to give exactly that.  None: the call had one page, and returned it.
        """
        batch, state = self.batch, self.state
        _, _, _, pages, err, dlen, content, number = question
        if pages == 1:
            return self._stale_length(err, dlen, content, name, i)
        frame = state.stacks[batch.pid[i]][-1]
        own = state.content_of(frame, content, number)
        chained = state.model.compress_call == "chain"
        first_errno = as_errno(dlen) if number == 0 and as_errno(dlen) < 0 and not chained else 0
        source = self.lookahead.length_source()
        row = self._allocation(i, number, source) if name == "zs_malloc" or source not in ("", "zs_malloc") else None
        if not source:
            raise CannotFollow("zs_malloc has no size, and no other event shows the lengths of a batch's pages")
        if row is None:
            if name == source:
                self.guess("the rows at hand end before the zs_malloc that would show a length")
                return 1, own
            return self._rejected_length(first_errno, own, question, frame), own
        size = batch.size[row]
        if not 0 < size <= PAGE_SIZE:
            # No page's: a length that was not written.
            return size, own
        algorithm = state.compressor_of(frame)
        expected = self.predictions.result(own, algorithm)
        limits = self.predictions.bounds(own, algorithm)
        lengths = frame.handed.lengths if len(frame.handed.lengths) == pages else ()
        left = lengths[number] if lengths else 0
        if lengths and (left <= 0 or left != size or expected is None):
            # What its driver made of this page, whatever the device would make of it.
            self._compare_result(f"{source}:length", size, left if left > 0 else PAGE_SIZE,
                                 f"length of {algorithm}'s driver for page {number} of {pages}", row, frame, True)
            expected = (left, PAGE_SIZE) if left <= 0 else (0, left)
        elif expected is not None:
            # An error, or a success that is not smaller than the page, is stored with the size of a page.
            self._compare_result(f"{source}:length", size, PAGE_SIZE if expected[0] else expected[1],
                                 f"length of {algorithm} for page {self.predictions.page(own)}", row, frame,
                                 bool(lengths) or state.predicts(algorithm, None))
        elif limits is not None and size < PAGE_SIZE:
            self._within(limits, 0, size, algorithm, row, frame)
        if size < PAGE_SIZE or expected == (0, PAGE_SIZE) or self._is_success(question, own, row, frame):
            return size, own
        return (expected[0] if expected is not None else first_errno) or E2BIG, own

    def batch_failed(self, question: Effect, name: str, i: int) -> bool:
        """Whether a call of several pages was rejected as a whole: no object follows it."""
        if "zs_malloc" in self.state.captured:
            return name != "zs_malloc"
        source = self.lookahead.length_source()
        return not source or self.lookahead.next_event(i, source, 0) is None

    def _rejected_length(self, first_errno: int, own: int, question: Effect, frame: Frame) -> int:
        """Return one page's errno, or a length that stands for any, of a call whose pages were all rejected.

        Which of them failed is known from their bytes, or from the driver's model.  Of others a snapshot shows how many
        at most, and only of all operations since the one before (:attr:`SnapshotChecks.loose`).
        """
        state = self.state
        _, _, _, pages, err, dlen, _, number = question
        algorithm = state.compressor_of(frame)
        lengths = frame.handed.lengths if len(frame.handed.lengths) == pages else ()
        expected = self.predictions.result(own, algorithm) if state.predicts(algorithm, None) else None
        limits = self.predictions.bounds(own, algorithm)
        known = lengths[number] if lengths else first_errno or None
        if known is None and expected is not None:
            known = expected[0] or expected[1]
        if known is None and number == 0 and state.model.compress_call == "chain" and 0 < dlen < PAGE_SIZE \
                and self.sees("crypto_acomp_compress_ret", "dlen"):
            # The head's own.
            known = dlen
        if known is None and limits is not None and not limits[0] <= PAGE_SIZE < limits[1]:
            known = E2BIG if limits[0] > PAGE_SIZE else limits[1]
        if known is not None:
            frame.handed.failed |= known < 0
            return known
        if number < pages - 1 or frame.handed.failed:
            state.snapshots.loose.pages += 1
            return 1
        # One has failed, whichever it was.
        state.snapshots.loose.kinds += 1
        return err or E2BIG

    def _stale_length(self, err: int, dlen: int, content: int, name: str, i: int) -> tuple[int, int] | None:
        """Answer for a call of one page: its own result; a whole page's length where it failed and wrote none.

        zswap sets the length before the call.  Where it kept something else than the page then, that shows in the
        object's first bytes; of a page that no device saw the driver's model says it.
        """
        batch = self.batch
        if not err or dlen != PAGE_SIZE or name != "zs_malloc" or not self.sees("zs_malloc", "size") \
                or batch.size[i] != PAGE_SIZE:
            return None
        frame = self.state.stacks[batch.pid[i]][-1]
        written = self.lookahead.writes_page(content, i, frame)
        stale = written is False or (written is None and frame.handed.unwritten)
        self.invariants.unsure_objects += written is None and frame.handed.unwritten is None
        return (PAGE_SIZE, content) if stale else None

    def _is_success(self, question: Effect, content: int, row: int, frame: Frame) -> bool:
        """True where an object of a whole page is known to be what the compressor wrote, and not the page itself."""
        state = self.state
        is_page = self.lookahead.writes_page(content, row, frame)
        if is_page is not None:
            return not is_page
        call = Call(*question[1:7])
        number = question[7]
        # As meant a page is kept as it is in either case: there the likelier one counts, that it did not compress.
        sees_err, sees_dlen = (self.sees("crypto_acomp_compress_ret", column) for column in ("ret", "dlen"))
        if isinstance(state.model, CompressToScatterList) and state.model.WHOLE_IS_PAGE is None:
            if sees_err and call.err == 0 and state.model.batch_error([-1]):
                # It would have failed if any page of it had.
                return True
            if sees_dlen and number == 0 and state.model.compress_call == "table":
                return as_errno(call.dlen) == PAGE_SIZE
        return False

    def _allocation(self, i: int, number: int, source: str) -> int | None:
        """Return the row of the zs_malloc() of a call's page; ``i`` is that of the first page asked for there.

        ``source`` is zs_malloc, or what shows the length in its place.

        Looks no further than the batch of rows at hand: a revision that asks for all pages of a call at once (v8, and
        the meant ones where a folio may not be written back) learns nothing of those behind it.
        """
        batch = self.batch
        if source == "obj_cgroup_charge_zswap":
            # They come behind the batch, one for each of its pages.
            return self.lookahead.next_event(i, source, number)
        if self._asked_at[0] != batch.row(i):
            self._asked_at = (batch.row(i), number)
        return self.lookahead.next_event(i, source, number - self._asked_at[1])

    def acomp_batch(self, question: Effect, name: str, i: int) -> None:
        """Compare what a call of several pages returned, and left as dlen, with what became of its pages.

        Where a page failed, the first one's errno is any: dlen alone shows it.
        """
        _, call, lengths, (errors, dlens) = question
        stack = self.state.stacks.get(self.batch.pid[i])
        frame = stack[-1] if stack else None
        dlen, whole = as_errno(call.dlen), call.pages * PAGE_SIZE
        of = f"a compress call of {call.pages} pages"
        failed = f", of which {sum(length < 0 for length in lengths)} failed" if lengths else ""
        known = all(self.sees("crypto_acomp_compress_ret", column) for column in ("ret", "dlen"))
        if not lengths and call.err not in errors and dlen == whole and frame is not None and known:
            # Before the driver wrote any: what they were set to, or left at, by an earlier call.
            self.n["invariant.length"] += 1
            self.invariants.broken(
                "invariant.length", i, recorded=dlen, predicted=f"an errno, or 1 to {PAGE_SIZE}", frame=frame,
                what=f"{of} failed with {call.err} and left the lengths as they were, stale, which are read")
            return
        self.hold("crypto_acomp_compress_ret:batch", i, frame, (call.err,),
                  (call.err if call.err in errors else _one_of(errors),), what=f"return value of {of}{failed}")
        good = dlen in dlens or (dlens <= {E2BIG} and -_MAX_ERRNO <= dlen < 0) or (not dlens and 0 < dlen <= PAGE_SIZE)
        due = dlen if good else "an errno" if dlens == {E2BIG} else _one_of(dlens) or f"an errno, or 1 to {PAGE_SIZE}"
        self.hold("crypto_acomp_compress_ret:batch_dlen", i, frame, (dlen,), (due,),
                  what=f"dlen that {of} left{failed}")


def _one_of(values: frozenset[int]) -> int | str:
    """A value that must be one of several, for people."""
    return next(iter(values)) if len(values) == 1 else " or ".join(str(value) for value in sorted(values, reverse=True))
