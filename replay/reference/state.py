# SPDX-License-Identifier: GPL-2.0-or-later
"""What all parts of a replay share: the events at hand, the model, what was captured, what recorded addresses mean."""

from __future__ import annotations

from typing import Final, NamedTuple

from model.zsmalloc import SizeClass, ZsObject, Zspage, ZsPool
from model.zswap import Zswap
from replay.reference.batch import Batch
from replay.reference.capturegaps import Uncaptured, seen_only
from replay.reference.checks import Tally
from replay.reference.comparisons import Held, held_for
from replay.reference.frame import Frame
from replay.reference.predictions import Predictions
from replay.reference.settings import Settings
from replay.reference.snapshots import SnapshotChecks
from traces.chained import chained_pages
from traces.objectword import OLD
from traces.recording import Recording

__all__ = ["OTHER_CGROUP", "UNKNOWN_CGROUP", "CannotFollow", "ReplayState"]

#: Stands for a cgroup that was charged and not recorded: no kernel has anything at this address.
UNKNOWN_CGROUP: Final = 1
#: Stands for another cgroup that may have been charged at the address of an obj_cgroup; its account stays empty.
OTHER_CGROUP: Final = 2


class DriverResult(NamedTuple):
    """What the model of iaa_crypto says of one call: its error, its dlen, and of several pages each one's length.

    ``early``: of a call that an interrupt ends, its dlen where that comes before the call returns, and the driver
    writes over it; 0 where it does not.  ``unwritten``: it failed before it wrote the page's length.
    """

    error: int
    dlen: int
    lengths: tuple[int, ...] = ()
    early: int = 0
    unwritten: bool = False


class CannotFollow(Exception):
    """What happens here was not captured, and no other event shows it: the model cannot continue.

    Its argument is a sentence that says what is missing.
    """


#: This many loads without a read of an object are no chance: the probe is on a function that zswap does not call.
_LOADS: Final = 16


class ReplayState:
    """What a replay knows between two events, apart from what one of its parts alone remembers.

    :param recording: what happened
    :param model: what should have
    :param tally: where comparisons are counted
    :param predictions: what the compressor gives for each recorded page
    """

    def __init__(self, recording: Recording, model: Zswap, tally: Tally, predictions: Predictions) -> None:
        self.recording = recording
        self.model = model
        self.tally = tally
        self.predictions = predictions
        self.batch = Batch()
        #: event -> columns that its probe captured
        self.columns_of = {name: frozenset(probe.get("columns", ()))
                           for name, probe in recording.manifest["probes"].items()}
        #: of zswap's list_lru, 0 where no symbol has it and no store has shown it
        self.lru_address: int = recording.manifest["config"].get("symbols", {}).get("zswap_list_lru", 0)
        self.uncaptured = Uncaptured(self.columns_of, self.lru_address, seen_only=seen_only(recording.manifest))
        #: events whose probes captured what the replay goes by; those that turn out to be inlined are taken out
        self.captured = set(self.uncaptured.captured)
        #: the function whose probe no load hit, though there are loads: this kernel's zswap reads through another one
        self.unread = ""
        counts = recording.counts() if "zs_obj_read" in self.captured else {}
        if counts.get("zswap_decompress", 0) >= _LOADS and not counts.get("zs_obj_read"):
            self.captured.discard("zs_obj_read")
            self.unread = str(recording.manifest["probes"]["zs_obj_read"].get("function") or "its function")
        #: what each comparison of :data:`replay.reference.comparisons.COMPARISONS` can compare here, by its key
        self.held: dict[str, Held] = held_for({name: self.columns_of[name] for name in self.captured})
        self.snapshots = SnapshotChecks(recording, model, tally)
        self.snapshots.uncounted = self.uncaptured.uncounted()
        self.settings = Settings(recording)
        self.chained = chained_pages(recording) if model.compress_call == "chain" else {}
        #: task -> its running operations, outermost first
        self.stacks: dict[int, list[Frame]] = {}
        #: task -> what counters changed when it was advanced from its last event; gone when it shows another one
        self.unsure: dict[int, dict[str, int]] = {}
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
        #: bytes from a zswap_entry to its list_head, None until both were seen
        self.entry_to_lru: int | None = None
        #: how object words are laid out (replay.reference.objectwords)
        self.idx_bits, self.class_bits = OLD
        #: (event, pages) of the last total that was read
        self.last_total: tuple[int, int] | None = None
        #: questions that were answered from recorded events
        self.asked: set[str] = set()
        #: event of a compressor call's return -> what the model of iaa_crypto says of it; None where there were no
        #: emulated devices
        self.driver_results: dict[int, DriverResult] | None = None
        #: how many interrupts came before their calls had returned, which lost the pages' lengths
        self.early_interrupts = 0
        #: the first of its calls that the driver's model does not follow, -1 for none
        self.driver_stopped = -1
        #: what was assumed because nothing recorded says it -> the event it was assumed at first
        self.guesses: dict[str, int] = {}

    def restart(self, model: Zswap) -> None:
        """Continue with another model, whose state is still to be loaded: nothing that was bound is bound any more."""
        self.model = self.snapshots.model = model
        for bound in (self.stacks, self.unsure, self.zspages, self.objects, self.classes, self.memcg_of,
                      self.memcg_was, self.memcg_before):
            bound.clear()

    def sees(self, event: str, column: str) -> bool:
        """True when an event's probe captured a column."""
        return event in self.captured and column in self.columns_of.get(event, ())

    def driver_result(self, row: int) -> tuple[int, int] | None:
        """Return what the driver's model says that a call left, (error, dlen), by the event of its return.

        None: nothing.
        """
        found = None if self.driver_results is None else self.driver_results.get(row)
        return None if found is None else (found.error, found.dlen)

    def driver_early(self, row: int) -> int:
        """Return the dlen of a call whose interrupt came before it returned, 0 where that makes no difference."""
        found = None if self.driver_results is None else self.driver_results.get(row)
        return 0 if found is None else found.early

    def driver_unwritten(self, row: int, algorithm: str) -> bool | None:
        """Return whether it says that a call left the length as it was, None where nothing says what iaa_crypto did."""
        if self.driver_results is None:
            return None if algorithm.startswith("deflate-iaa") else False
        found = self.driver_results.get(row)
        return None if found is None else found.unwritten

    def driver_lengths(self, row: int) -> tuple[int, ...]:
        """Return what it says that a call of several pages left as each one's length, or errno; empty: nothing."""
        found = None if self.driver_results is None else self.driver_results.get(row)
        return () if found is None else found.lengths

    def predicts(self, algorithm: str, row: int | None) -> bool:
        """True where what a compressor gives for a page is what its call has to return.

        Not where its library is not exact here, nor where emulated devices made it, and the model of their driver does
        not say what became of the call: that may have failed, or gone to software.

        :param row: the event of the call's return, None where that was not captured
        """
        unknown = algorithm.startswith("deflate-iaa") and self.driver_results is not None and \
            (row is None or row not in self.driver_results)
        return algorithm not in self.predictions.inexact and not unknown

    def guess(self, what: str) -> None:
        """Note an assumption that nothing recorded confirms; what then differs need not be the kernel's doing.

        :param what: a sentence: what was not captured, and what it leaves open
        """
        self.guesses.setdefault(what, self.batch.now)

    def content_of(self, frame: Frame, content: int, number: int) -> int:
        """Return the page of a compress call that is ``number`` behind its first, which is ``content``; -1: not known.

        Of chained requests the event shows the head's alone.
        """
        if self.model.compress_call == "chain" and number:
            return self.chained.get((frame.handed.called, number), -1)
        return content + number if content >= 0 else -1

    def current_zs_pool(self) -> ZsPool:
        """Return the pool that new objects come from."""
        return self.model.pools[0].zs_pool

    def compressor_of(self, frame: Frame) -> str:
        """Return the compressor of the pool that a store holds, which need not be the current one any more."""
        pool = frame.handed.pool
        return pool.tfm_name if pool is not None else self.model.pools[0].tfm_name

    def sees_zspage_free(self) -> bool:
        """True when the recorded kernel frees zspages in a function that was probed everywhere it happens."""
        return "__free_zspage" in self.captured
