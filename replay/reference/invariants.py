# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold of any zswap, whatever its code does: looked at in every replay, of every revision, at the event.

A revision predicts what its code does, faults included: a recording of a kernel that has the same faults differs
nowhere.  What is here knows no code.  A page read back has to be the page that was stored, so its object has to be that
page, or something that is decompressed to it; an object has between one byte and a page; a handle is given out when it
is not live, used and freed when it is; at the end entries, handles, charges and counters go together.  The same
invariants are looked at in runs without a kernel by :class:`replay.revdiff.freerun.FreeRun`.

What an object holds follows from what was recorded of its making: its first bytes compared with the page's, where page
bytes were kept; else what the compress call returned and what the revision makes of that, with which the recording
agrees so far (or it would have differed).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from model.effects import Effect
from model.page import PAGE_SIZE
from model.zsmalloc import ZsObject
from model.zswap import ZswapEntry
from replay.reference.comparer import Comparer
from replay.reference.frame import Frame
from replay.reference.state import ReplayState

__all__ = ["Holdings", "Invariants", "Written"]

#: how an untold object is named in the reason of invariant.load
_UNTOLD: Final = "what the objects of {} hold, read back but written before the recording began, is not known"


class Written(NamedTuple):
    """What is known of an object's making.

    ``length``: bytes written; ``raw``: the revision says that it is the page itself; ``is_page``: its first bytes say
    so, None where they do not show it; ``result``: (error, length) that the compress call returned, None where that is
    not known; ``event``: its number, -1 where the write was not recorded.
    """

    length: int
    raw: bool
    is_page: bool | None = None
    result: tuple[int, int] | None = None
    event: int = -1

    @property
    def page_itself(self) -> bool:
        """True where it is the page as it was."""
        return self.raw if self.is_page is None else self.is_page


class Invariants:
    """The invariants that are checked while events are checked against a revision's effects.

    Each is called by the handler of its event, after that handler's own comparison: where the kernel does something
    else than the revision says, that is reported first.
    """

    def __init__(self, state: ReplayState, comparer: Comparer) -> None:
        self.state = state
        self.batch = state.batch
        self.predictions = state.predictions
        self.n = state.tally.compared
        self.sees = state.sees
        self.comparer = comparer
        #: the revision's name, for what is said of it
        self.revision_name = type(state.model).__name__
        #: entries that a store which zswap refused has made out of date, and the event of its return
        self.outdated: dict[ZswapEntry, int] = {}
        #: what vmstat's zswpout has to be, as the folios that were stored have it
        self.zswpout_due = state.model.counters.zswpout
        #: pages read back of which nothing says what their object holds
        self.untold_reads = 0
        #: objects of a whole page, of failed calls: whether they hold the page or what the buffer held is not known
        self.unsure_objects = 0
        #: set where the compiled engine counts what is held at the end
        self.held_at_end: Holdings | None = None

    def broken(self, check: str, i: int, *, recorded: Any, predicted: Any, what: str, frame: Frame | None) -> None:
        """Report a broken invariant, and which is wrong: the kernel, or what the revision says of it."""
        self.comparer.diverge(check, i, recorded=recorded, predicted=predicted, what=self._blame(what), frame=frame)

    def _blame(self, what: str) -> str:
        """Return a sentence that says which is wrong: the revision, whose other effects were all confirmed up to here.

        Unless the kernel did something else before.
        """
        name = self.revision_name
        left = next((one.event for one in self.state.tally.divergences
                     if not one.check.startswith("invariant.")), None)
        if left is None:
            return f"{what}; the kernel does what {name} says here, and {name} is wrong"
        return f"{what}; the kernel had left {name} before, at event {left}"

    def reasons(self) -> list[str]:
        """Return why a replay cannot PASS, in sentences."""
        if not self.unsure_objects:
            return []
        return [f"{self.unsure_objects:,} pages were kept whole after their compress call had failed, and what the "
                "driver did there is not followed: whether these are the pages, or what its buffer held before, is not "
                "known"]

    # ---- objects ----------------------------------------------------------------------------------------

    def object_asked(self, i: int, frame: Frame) -> None:
        """zs_malloc(): an object has between 1 byte and a page; any other length was never written."""
        if not self.sees("zs_malloc", "size"):
            return
        self.n["invariant.length"] += 1
        size = self.batch.size[i]
        if not 0 < size <= PAGE_SIZE:
            result = frame.handed.result
            said = "" if result is None else f"; the compress call returned {result[0]}, and {result[1]} as length"
            self.broken("invariant.length", i, recorded=size, predicted=f"1 to {PAGE_SIZE}", frame=frame,
                        what=f"an object of {size} bytes is asked for, which no compressed page has{said}")

    def object_written(self, write: Effect, i: int | None, frame: Frame) -> None:
        """zs_obj_write(): remember what it is made of; a page as it is only where writeback is allowed.

        :param write: the effect, or 6.12's memcpy, which has no raw form
        :param i: row of the event, None where the write was not recorded
        """
        batch = self.batch
        obj: ZsObject = write[1]
        length, content = write[2:4]
        raw = len(write) > 4 and bool(write[4])
        is_page = None
        if i is not None and isinstance(content, int) and self.sees("zs_obj_write", "data"):
            is_page = self.predictions.begins_like_page(content, batch.data[i], length, self.state.compressor_of(frame))
        obj.holds = Written(length, raw, is_page, frame.handed.result, -1 if i is None else batch.row(i))
        if i is None or not raw:
            return
        # What was asked last before an object is written is asked for its page (or, as posted, for its folio).
        allowed = frame.handed.writeback
        if allowed is not None:
            self.n["invariant.raw"] += 1
            if not allowed:
                self.broken("invariant.raw", i, recorded="the page as it is", predicted="a rejected store", frame=frame,
                            what="a page that does not compress is kept as it is, though its cgroup forbids writeback")

    def handle_used(self, event: str, i: int, frame: Frame, what: str) -> None:
        """A handle that is written, read or freed is live."""
        batch = self.batch
        if not self.sees(event, "handle"):
            return
        self.n["invariant.handle"] += 1
        if batch.handle[i] not in self.state.objects:
            self.broken("invariant.handle", i, recorded=batch.handle[i], predicted="a live handle", frame=frame,
                        what=f"{what} of a handle that is not live")

    def handle_given(self, handle: int, i: int, frame: Frame) -> None:
        """A handle that is given out is not live."""
        self.n["invariant.handle"] += 1
        if handle in self.state.objects:
            self.broken("invariant.handle", i, recorded=handle, predicted="a handle that is not live", frame=frame,
                        what="a live handle is given out once more")

    # ---- pages read back --------------------------------------------------------------------------------

    def reading(self, effect: Effect, frame: Frame) -> None:
        """zswap_decompress(): an entry is about to be read."""
        frame.handed.reading = effect[1]
        frame.handed.read = effect[1].length
        frame.handed.inflated = None

    def object_read(self, length: int, frame: Frame) -> None:
        """zs_obj_read(): ``length`` bytes of the object."""
        frame.handed.read = length

    def inflated(self, result: tuple[int, int], frame: Frame) -> None:
        """crypto_acomp_decompress() returned."""
        frame.handed.inflated = result

    def page_read(self, i: int, frame: Frame) -> None:
        """What a load or a writeback has read, if it has just read anything, is the page that was stored.

        Known at the event behind it: by then it shows whether the object was decompressed, or taken as it was.
        """
        entry, frame.handed.reading = frame.handed.reading, None
        if entry is None:
            return
        length, result = frame.handed.read, frame.handed.inflated
        written: Written | None = entry.obj.holds
        where = f"the page read back at swap entry {entry.swpent:#x}"
        if frame.name == "zswap_load" and entry in self.outdated:
            self.n["invariant.load"] += 1
            self.broken("invariant.load", i, recorded="what was stored there before", frame=frame,
                        predicted="the page that was last written out",
                        what=f"{where} is out of date: zswap refused a newer one (event {self.outdated[entry]}) and "
                             f"kept the old one")
            return
        if written is None:
            self.untold_reads += 1
            self.state.tally.reasons["invariant.load"] = _UNTOLD.format(
                f"{self.untold_reads:,} further pages" if self.untold_reads > 1 else "1 further page")
            return
        self.n["invariant.load"] += 1
        recorded, what = "", ""
        if length != written.length:
            recorded, what = f"{length} bytes", f"its object was written with {written.length} bytes"
        elif result is None and not written.page_itself:
            recorded, what = _taken_as_it_is(written)
        elif result is not None and written.page_itself:
            recorded, what = f"{length} bytes decompressed", "its object is the page itself, which is decompressed"
        elif result not in (None, (0, PAGE_SIZE)):
            recorded = f"error {result[0]}, {result[1]} bytes"
            what = "its object cannot be decompressed"
        if what:
            self.broken("invariant.load", i, recorded=recorded, predicted="the page stored", frame=frame,
                        what=f"{where} is not the page written there: {what}")

    # ---- stores -----------------------------------------------------------------------------------------

    def store_returned(self, stored: bool, i: int, frame: Frame) -> None:
        """zswap_store() returned: a folio counts when it was stored; of one that was not, nothing older may be left.

        What is left nevertheless at the slots of a refused folio is out of date: no load may read it.
        """
        state = self.state
        folio = frame.handed.folio
        if folio is None:
            return
        if stored:
            self.zswpout_due += folio.nr_pages
            return
        tree = state.model.tree
        for slot in range(folio.swpent, folio.swpent + folio.nr_pages):
            entry = tree.get(slot)
            if entry is not None:
                self.outdated[entry] = self.batch.row(i)
        counted, due = state.model.counters.zswpout, self.zswpout_due
        # Where no other task is in an operation, nothing else can have counted.
        if counted != due and sum(len(stack) for stack in state.stacks.values()) == 1:
            self.n["invariant.balance"] += 1
            self.broken("invariant.balance", i, recorded=counted, predicted=due, frame=frame,
                        what=f"zswpout has counted {counted - due} pages of a folio that was not stored")
            self.zswpout_due = counted

    # ---- the end ----------------------------------------------------------------------------------------

    def balance(self, event: int) -> None:
        """Compare what goes together when no task is in an operation; says why not where it cannot be compared.

        :param event: the recording's last one
        """
        state = self.state
        held = self.held_at_end or self.holdings()
        if state.tally.different or state.tally.broken_at is not None:
            state.tally.reasons["invariant.balance"] = "kernel and revision differ before the end"
        elif held.under_way:
            state.tally.reasons["invariant.balance"] = (
                f"{held.under_way} task{'s were' if held.under_way > 1 else ' was'} inside an operation when the "
                f"recording ended")
        else:
            for found, due, what in pairs(held, state.captured):
                self.n["invariant.balance"] += 1
                if found != due:
                    self.comparer.diverge_at_end("invariant.balance", event, found, due, self._blame(what))

    def holdings(self) -> Holdings:
        """Return what the model holds."""
        state = self.state
        model = state.model
        entries = list(model.tree.values())
        due = dict.fromkeys(model.memcgs, 0)
        for entry in entries:
            if entry.objcg is not None:
                due[entry.objcg] = due.get(entry.objcg, 0) + entry.length
        return Holdings(
            len(entries), model.ledger.live("zswap_entry"),
            sum(cls.objs_inuse for pool in model.pools for cls in pool.zs_pool.classes), len(state.objects),
            model.counters.stored_pages, model.counters.zswpout, self.zswpout_due,
            tuple((objcg, model.memcg(objcg).zswap, length) for objcg, length in due.items()),
            len(model.ledger.things("kmap_local")), sum(bool(stack) for stack in state.stacks.values()))


def _taken_as_it_is(written: Written) -> tuple[str, str]:
    """Return what a load that decompresses nothing gives of an object that is not the page, and why."""
    if written.result is not None and written.result[0]:
        return (f"{written.length} bytes that are not the page's",
                f"its object holds what the compressor's buffer held before (the call failed with {written.result[0]} "
                f"and left the length as it was), which is taken for the page itself")
    shown = " (its first bytes are not the page's)" if written.is_page is False else ""
    return (f"{written.length} bytes of compressed data",
            f"its object holds compressed data of {written.length} bytes{shown}, which is taken for the page itself")


class Holdings(NamedTuple):
    """What is held when nothing is under way, by whichever engine has it.

    ``entries`` in the trees; ``slab``: zswap entries taken and not given back; ``objects`` in use, as the size classes
    count them; ``handles`` that are live; ``stored_pages`` and ``zswpout`` as counted; ``zswpout_due``: as the folios
    that were stored have it; ``charges``: for each obj_cgroup its address, the bytes charged, the bytes of its entries;
    ``mapped``: pages whose local mapping was not undone; ``under_way``: tasks inside an operation.
    """

    entries: int
    slab: int
    objects: int
    handles: int
    stored_pages: int
    zswpout: int
    zswpout_due: int
    charges: tuple[tuple[int, int, int], ...]
    mapped: int = 0
    under_way: int = 0


def pairs(held: Holdings, captured: Collection[str]) -> list[tuple[int, int, str]]:
    """Return (found, due, sentence) of all that goes together, as far as its events were recorded."""
    entries = held.entries
    out = [(held.stored_pages, entries, f"stored_pages is {held.stored_pages}, the trees hold {entries} entries"),
           (held.slab, entries, f"{held.slab} zswap entries are allocated, the trees hold {entries}"),
           (held.objects, entries, f"{held.objects} objects are in use, the trees hold {entries} entries")]
    if "zs_free" in captured and ("zs_malloc_ret" in captured or "obj_malloc" in captured):
        out.append((held.handles, entries, f"{held.handles} handles are live, the trees hold {entries} entries"))
    if "zswap_store_ret" in captured:
        out.append((held.zswpout, held.zswpout_due,
                    f"zswpout is {held.zswpout}, but folios of {held.zswpout_due} pages in all were stored"))
    out += [(charged, due, f"{charged} bytes are charged to obj_cgroup {objcg:#x}, its entries have {due}")
            for objcg, charged, due in held.charges]
    if held.mapped:
        out.append((held.mapped, 0, f"the local mappings of {held.mapped} pages are left behind"))
    return out
