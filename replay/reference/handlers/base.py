# SPDX-License-Identifier: GPL-2.0-or-later
"""What all handlers of effects share: the batch's columns, the model, and what recorded addresses stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from model.effects import Effect
from model.zsmalloc import SizeClass, ZsObject, Zspage
from model.zswap import Folio, Zswap, ZswapEntry
from replay.reference.checks import Tally
from replay.reference.comparisons import Held, held_for, predicted_by
from replay.reference.frame import Frame
from replay.reference.predictions import Predictions
from replay.reference.settings import Settings
from traces import schema
from traces.eventlines import NOT_SHOWN, apart
from traces.objectword import OLD

__all__ = ["OTHER_CGROUP", "UNKNOWN_CGROUP", "CannotFollow", "Handler", "HandlerBase"]

#: (effect, row of the event in the batch, running operation) -> what the model is sent back
Handler = Callable[[Effect, int, "Frame"], Any]
#: Stands for a cgroup that was charged and not recorded: no kernel has anything at this address.
UNKNOWN_CGROUP: Final = 1
#: Stands for another cgroup that may have been charged at the address of an obj_cgroup; its account stays empty.
OTHER_CGROUP: Final = 2


class CannotFollow(Exception):
    """What happens here was not captured, and no other event shows it: the model cannot continue.

    Its argument is a sentence that says what is missing.
    """


class HandlerBase(ABC):
    """Columns of the current batch by name, and the model's things by recorded address."""

    ts: list[int]
    cpu: list[int]
    pid: list[int]
    event: list[int]
    swpent: list[int]
    folio: list[int]
    entry: list[int]
    handle: list[int]
    obj: list[int]
    zspage: list[int]
    pool: list[int]
    memcg: list[int]
    data: list[int]
    ret: list[int]
    size: list[int]
    dlen: list[int]
    offset: list[int]
    word: list[int]
    inuse: list[int]
    freeobj: list[int]
    order: list[int]
    ref: list[int]
    nid: list[int]
    content: list[int]
    text: list[str]
    #: events whose probes captured what the replay goes by
    captured: frozenset[str]
    #: event -> columns that its probe captured
    columns_of: dict[str, frozenset[str]]
    stacks: dict[int, list[Frame]]
    preempted_reads: int
    settings: Settings
    #: questions that were answered from events
    asked: set[str]

    def __init__(self, model: Zswap, tally: Tally, predictions: Predictions) -> None:
        self.model = model
        self.tally = tally
        self.predictions = predictions
        self.n = tally.compared
        #: recorded address -> live thing of the model
        self.zspages: dict[int, Zspage] = {}
        self.objects: dict[int, ZsObject] = {}
        self.classes: dict[int, SizeClass] = {}
        #: obj_cgroup -> the mem_cgroup it belongs to, by the list that its entries went to; what that was before the
        #: cgroup went away; and what it was while entries were charged to it, where it may be another's by now
        self.memcg_of: dict[int | None, int] = {}
        self.memcg_was: dict[int | None, int] = {}
        self.memcg_before: dict[int | None, int] = {}
        #: the root's mem_cgroup, once a walk has shown which it is (up to 7.0)
        self.root_memcg = -1
        #: spans (event of entry, event of return) of list_lru_add() calls that overlapped another
        self.overlaps: dict[ZswapEntry, list[int]] = {}
        #: task -> the list that its list_lru_add() is about
        self.adding_to: dict[int, tuple[int, int]] = {}
        self.entry_to_lru: int | None = None
        #: how object words are laid out (replay.reference.objectwords)
        self.idx_bits, self.class_bits = OLD
        #: what was found before the first event: why there can be no PASS, and what else is to be said
        self.start_reasons: list[str] = []
        self.start_notes: list[str] = []
        #: (event, pages) of the last total that was read
        self.last_total: tuple[int, int] | None = None
        #: the last event at which a compaction of any pool returned
        self.last_compacted = -1
        self.sg_entries = {1: 0, 2: 0}
        #: folios that writeback handed to the device, and those of them that were marked for reclaim
        self.written_back = 0
        self.marked_for_reclaim = 0
        self.writes: list[tuple[int, int, int, int]] = []
        self.keep_writes = False
        #: number of the event at hand
        self.now = 0
        #: what each comparison of :data:`replay.reference.comparisons.COMPARISONS` can compare here, by its key
        self.held: dict[str, Held] = held_for({})
        #: what was assumed because nothing recorded says it -> the event it was assumed at first
        self.guesses: dict[str, int] = {}

    @abstractmethod
    def diverge(self, check: str, i: int, *, recorded: Any, predicted: Any, what: str,
                frame: Frame | None = None) -> None:
        """Report a difference; the engine says where."""

    def sees(self, event: str, column: str) -> bool:
        """True when an event's probe captured a column."""
        return event in self.captured and column in self.columns_of.get(event, ())

    def guess(self, what: str) -> None:
        """Note an assumption that nothing recorded confirms; what then differs need not be the kernel's doing.

        :param what: a sentence: what was not captured, and what it leaves open
        """
        self.guesses.setdefault(what, self.now)

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
        kept = [seen and value is not None for seen, value in zip(held.seen, predicted, strict=True)]
        if not any(kept):
            self.n[check] -= held.counts
            return
        left = [tuple(value for value, keep in zip(values, kept, strict=True) if keep)
                for values in (recorded, predicted)]
        if left[0] != left[1]:
            if not self.tally.data:
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
        columns, predict = self.held[key].columns, predicted_by(self.held[key].comparison.predicted)

        def handler(effect: Effect, i: int, frame: Frame) -> None:
            self.hold(key, i, frame, tuple([getattr(self, column)[i] for column in columns]), predict(effect))

        return handler

    @abstractmethod
    def earlier_totals(self, i: int) -> set[int]:
        """Return the totals of any pool since the task's previous event, that of now included."""

    @abstractmethod
    def earlier_verdicts(self, i: int, limit: int) -> set[bool]:
        """Return what obj_cgroup_may_zswap() would have said at any moment since the task's previous event."""

    @abstractmethod
    def limit_answers(self, i: int) -> tuple[frozenset[bool], str]:
        """Return what obj_cgroup_may_zswap() may say at an event that names a mem_cgroup, and why it is either."""

    @abstractmethod
    def writeback_answers(self, i: int) -> tuple[frozenset[bool], str]:
        """The same of mem_cgroup_zswap_writeback_enabled()."""

    @abstractmethod
    def lru_adding(self, entry: ZswapEntry, pid: int) -> None:
        """list_lru_add() of an entry was entered."""

    @abstractmethod
    def lru_added(self, pid: int) -> None:
        """It returned."""

    @abstractmethod
    def lru_deleting(self, entry: ZswapEntry, pid: int) -> None:
        """list_lru_del() of an entry was entered."""

    @abstractmethod
    def lru_moving(self, entry: ZswapEntry, pid: int) -> None:
        """A walk's callback was entered, which moves an entry to the tail."""

    @abstractmethod
    def lru_moved(self, pid: int) -> None:
        """It has done so."""

    @abstractmethod
    def _row(self, i: int) -> int:
        """Return the event number of a row of the batch."""

    def describe_state(self, frame: Frame | None) -> dict[str, Any]:
        """Return what the model holds, for a divergence's report."""
        model = self.model
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
