# SPDX-License-Identifier: GPL-2.0-or-later
"""One comparison of an event's columns with an effect, and the report where they differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.effects import Effect
from model.zsmalloc import ZsObject, Zspage
from model.zswap import Folio, ZswapEntry
from replay.reference.checks import Divergence
from replay.reference.comparisons import Held, predicted_by
from replay.reference.frame import Frame
from replay.reference.state import ReplayState
from traces import schema
from traces.eventlines import NOT_SHOWN, apart

__all__ = ["Comparer", "Handler"]

#: (effect, row of the event in the batch, running operation) -> what the model is sent back
Handler = Callable[[Effect, int, Frame], Any]


class Comparer:
    """Compares what was recorded with what the model predicts; counts, and reports what differs.

    It also reports what snapshots find.
    """

    def __init__(self, state: ReplayState) -> None:
        self.state = state
        self.batch = state.batch
        self.held = state.held
        self.n = state.tally.compared
        state.snapshots.diverge = self.diverge_counter

    # ---- comparisons ------------------------------------------------------------------------------------

    def hold(self, key: str, i: int, frame: Frame | None, recorded: tuple[Any, ...], predicted: tuple[Any, ...], *,
             check: str = "", what: str = "") -> None:
        """Make one comparison of :data:`replay.reference.comparisons.COMPARISONS`: of those columns that were captured.

        :param predicted: as many as ``recorded``; None for what the model does not know, which is not compared
        :param check: in place of the comparison's own
        :param what: what is compared, where the comparison's own words do not do
        """
        held = self.held[key]
        if held.counts:
            self.n[check or held.check] += 1
        if recorded != predicted:
            self._differs(held, i, frame, recorded, predicted, check or held.check, what)

    def _differs(self, held: Held, i: int, frame: Frame | None, recorded: tuple[Any, ...], predicted: tuple[Any, ...],
                 check: str, what: str) -> None:
        compared = False
        for seen, one, other in zip(held.seen, recorded, predicted, strict=True):
            if seen and other is not None:
                compared = True
                if one != other:
                    break
        else:
            # Only what was not captured, or is not known, differs.
            if not compared:
                self.n[check] -= held.counts
            return
        kept = [seen and value is not None for seen, value in zip(held.seen, predicted, strict=True)]
        left = [tuple(value for value, keep in zip(values, kept, strict=True) if keep)
                for values in (recorded, predicted)]
        if left[0] != left[1]:
            if not self.state.tally.data:
                left = self._hidden(held, kept, left)
            one, other = (values[0] if len(values) == 1 else values for values in left)
            self.diverge(check, i, recorded=one, predicted=other, what=what or held.what(kept), frame=frame)

    @staticmethod
    def _hidden(held: Held, kept: list[bool], sides: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return both sides of a difference without bytes of pages: in their place stands where they differ."""
        columns = [column for column, keep in zip(held.columns, kept, strict=True) if keep]
        pairs = [apart(one, other) if (held.comparison.event, column) in schema.PAGE_BYTES and one != other
                 else (NOT_SHOWN,) * 2 if (held.comparison.event, column) in schema.PAGE_BYTES else (one, other)
                 for column, one, other in zip(columns, *sides, strict=True)]
        return [tuple(pair[number] for pair in pairs) for number in (0, 1)]

    def is_address(self, address: int, check: str, what: str, i: int, frame: Frame | None) -> bool:
        """True for an address that a probe captured; 0 is none, and differs from whatever the kernel has there."""
        if not address:
            self.diverge(check, i, recorded=0, predicted="an address", what=what, frame=frame)
        return address != 0

    def comparing(self, key: str) -> Handler:
        """Return the handler of an event that is only compared, with what its comparison says is predicted."""
        batch, hold = self.batch, self.hold
        columns, predict = self.held[key].columns, predicted_by(self.held[key].comparison.predicted)

        def handler(effect: Effect, i: int, frame: Frame) -> None:
            hold(key, i, frame, tuple([getattr(batch, column)[i] for column in columns]), predict(effect))

        return handler

    # ---- reports ----------------------------------------------------------------------------------------

    def diverge(self, check: str, i: int, *, recorded: Any, predicted: Any, what: str,
                frame: Frame | None = None) -> None:
        """Report a difference at row ``i`` of the batch."""
        batch, tally, stacks = self.batch, self.state.tally, self.state.stacks
        event = batch.row(i)
        if not tally.wanted(check):
            tally.part(check, event)
            if check == "effect.order" and tally.broken_at is None:
                tally.broken_at = event
            return
        pid = batch.pid[i]
        path = tuple((f.name, f.start) for f in stacks.get(pid, ()))
        if frame is not None and not path:
            path = ((frame.name, frame.start),)
        tally.differ(Divergence(check, event, batch.name(i), recorded, predicted, what, batch.ts[i], pid, batch.cpu[i],
                                path, self.describe_state(frame), self.kernel_state()))

    def diverge_counter(self, check: str, event: int, ts: int, recorded: int, predicted: int, what: str) -> None:
        """Report a counter that differs at a snapshot."""
        state = self.state
        if state.tally.wanted(check):
            if "zswap_total_pages_ret" not in state.captured:
                # Reading a snapshot's files takes time, and these readings say when each was read.
                state.guesses.setdefault("zswap_total_pages_ret was not captured: when a snapshot's counters were "
                                         "read, while it was being taken, is not known", event)
            self._differ(check, event, "counters", recorded, predicted, what, ts)

    def diverge_at_end(self, check: str, event: int, recorded: int, predicted: int, what: str) -> None:
        """Report what does not agree at the recording's end, whose last event is ``event``."""
        if self.state.tally.wanted(check):
            segments = self.state.recording.manifest["segments"]
            self._differ(check, event, "end", recorded, predicted, what, segments[-1]["last_ts"] if segments else 0)

    def _differ(self, check: str, event: int, name: str, recorded: int, predicted: int, what: str, ts: int) -> None:
        self.state.tally.differ(Divergence(check, event, name, recorded, predicted, what, ts, 0, 0, (),
                                           self.describe_state(None), self.kernel_state()))

    def kernel_state(self) -> dict[str, str]:
        """Return what was last recorded of the kernel's own state."""
        total = self.state.last_total
        pages = {} if total is None else {"pool_pages": f"{total[1]} (read at event {total[0]})"}
        return {**pages, **self.state.snapshots.last_seen()}

    def describe_state(self, frame: Frame | None) -> dict[str, Any]:
        """Return what the model holds, for a divergence's report."""
        model = self.state.model
        state: dict[str, Any] = {
            "stored_pages": model.counters.stored_pages,
            "pool_pages": model.total_pages(),
            "limit_pages": model.max_pages(),
            "pool_reached_full": model.pool_reached_full,
        }
        effect = frame.effect if frame is not None else None
        for item in effect[1:] if effect is not None else ():
            if isinstance(item, Zspage):
                state["zspage"] = {"address": hex(item.address), "class": item.cls.geometry.index,
                                   "inuse": item.inuse, "freeobj": item.freeobj, "fullness": item.group}
            elif isinstance(item, ZsObject):
                state["object"] = {"handle": hex(item.address), "size": item.size, "index": item.index}
            elif isinstance(item, ZswapEntry):
                state["entry"] = {"swpent": hex(item.swpent), "length": item.length,
                                  "referenced": item.referenced}
            elif isinstance(item, Folio):
                state["folio"] = {"swpent": hex(item.swpent), "order": item.order}
        return state
