# SPDX-License-Identifier: GPL-2.0-or-later
"""A revision that runs by itself: operations in, what it does with real bytes out, and invariants that know no code.

:class:`FreeRun` answers the model's effects as a kernel's surroundings would: compress calls go through the model of
the crypto layer (:mod:`model.crypto.layers`), objects hold bytes, a fault plan fails what it says.  After each
operation the second oracle looks at the result: the page loaded is the page stored, lengths are fresh and in range,
entries, objects, charges and counters balance, what was taken is given back.  None of that repeats the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from model import errno
from model.counters import DEBUGFS, VMSTAT
from model.crypto.acomp import Acomp, AcompRequest, AcompV8, AcompV12, KernelFault, Scatterlist, as_int32, set_src_folio
from model.crypto.faults import FaultPlan
from model.crypto.request import NeverCompletes, sg_init_one
from model.effects import Effect, Steps, run
from model.page import PAGE_SIZE
from model.zsmalloc import ZsObject
from model.zswap import Folio, Zswap, ZswapEntry, ZswapPool
from replay.userrev.guard import watched

__all__ = ["FreeRun", "Operation", "OperationOutcome"]

_OBJCG: Final = 0xC0
_MEMCG: Final = 0xA0
_REJECTS: Final = ("reject_alloc_fail", "reject_kmemcache_fail", "reject_compress_fail", "reject_compress_poor")
_BATCH: Final = 8
#: MAX_ERRNO of include/linux/err.h
_MAX_ERRNO: Final = 4095
#: Answers of an operation that are kept as the outside gives them.
_QUIET: Final = frozenset({"?trylock_zspage", "?zspage_write_trylock", "?class_lock", "?compacting", "?compact_end",
                           "?contended", "?new_zspage", "?lru_next", "?lru_more", "?lru_list", "?pool_listed",
                           "?acomp_batch", "?shrink_next", "?memcg_online"})


@dataclass(frozen=True)
class Operation:
    """A call into zswap from outside.

    ``kind``: ``writeout``, ``load``, ``invalidate``, ``param`` (``text``: ``name=value``), ``compact``,
    ``shrink_memcg``.  ``pages``: for a writeout the content of each page of the folio, 4096 bytes each.  ``answers``:
    what the outside says to effects and questions, by name; a list is used up from its front.  ``event``: the number of
    the event it was taken from, -1 without a recording.
    """

    kind: str
    swpent: int = 0
    order: int = 0
    pages: tuple[bytes, ...] = ()
    text: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    event: int = -1


class _Result(NamedTuple):
    """What a compress call left of one page."""

    page: bytes
    data: bytes


@dataclass
class OperationOutcome:
    """What one operation did.

    ``result``: what the kernel function returns; ``effects``: names of effects in order, ``calls``: pages of each
    compress call; ``stored``: by slot the length and whether the object is the page itself; ``counters``: what moved;
    ``copied``: bytes that zsmalloc copied for a read; ``data``: for a load whether it gave the page stored last;
    ``problems``: invariants it broke.
    """

    operation: Operation
    result: Any = None
    effects: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    stored: dict[int, tuple[int, bool]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    copied: int = 0
    data: str = ""
    problems: list[str] = field(default_factory=list)


class _WatchedSg(Scatterlist):
    """An entry that knows whether its length was written."""

    __slots__ = ("fresh",)

    def __init__(self, buffer: bytearray) -> None:
        self.fresh = False
        super().__init__(buffer, 0, PAGE_SIZE)

    @property
    def length(self) -> int:
        """As :class:`Scatterlist` has it."""
        return self._length

    @length.setter
    def length(self, value: int) -> None:
        self.fresh = True
        self._length = value & 0xFFFF_FFFF


class FreeRun:
    """Runs operations through a revision.

    :param revision: the class
    :param acomp: tfm of a compressor's name, for each pool once
    :param faults: what fails; the crypto layer's own sites are asked by the tfm, which should have the same plan
    :param cpu_node: NUMA node of the CPU that stores; folios are on node 0
    :param balance_every: after how many operations all entries are summed up
    :param linear: objects are handed to the compressor in one piece, wherever they lie
    """

    def __init__(self, revision: type[Zswap], acomp: Callable[[str], Acomp], *, compressor: str,
                 totalram_pages: int = 1 << 20, chain_size: int = 8, faults: FaultPlan | None = None,
                 cpu_node: int = 0, balance_every: int = 1, linear: bool = False) -> None:
        self.model = revision(totalram_pages=totalram_pages, compressor=compressor, chain_size=chain_size)
        self.faults = faults or FaultPlan()
        self.cpu_node = cpu_node
        self.linear = linear
        self._balance_every = balance_every
        self._done = 0
        self._acomp_for = acomp
        self._tfms: dict[str, Acomp] = {}
        self._buffers = [bytearray(PAGE_SIZE) for _ in range(_BATCH)]
        self._table = [_WatchedSg(buffer) for buffer in self._buffers]
        self._objects: dict[ZsObject, tuple[bytes, bool]] = {}
        #: what was last written to each slot, and what zswap or the device would have to give
        self._expected: dict[int, bytes] = {}
        self._operation = Operation("")
        self._outcome = OperationOutcome(self._operation)
        self._answers: dict[str, Any] = {}
        self._units: list[tuple[int, _Result]] = []
        self._call: tuple[int, int] = (0, 0)
        self._reading: tuple[bytes, bool, Any] | None = None
        self._read_pool: ZswapPool | None = None
        self._out: bytes | None = None
        self._folio = Folio(0)
        self._seen_problems = 0
        self._pages_stored = 0
        #: the run ended in something that no kernel survives
        self.dead = ""

    # ---- operations -------------------------------------------------------------------------------------

    def do(self, operation: Operation) -> OperationOutcome:
        """Run one operation and look at what it left."""
        self._operation, self._answers = operation, {k: list(v) if isinstance(v, list) else v
                                                     for k, v in operation.answers.items()}
        outcome = self._outcome = OperationOutcome(operation)
        if self.dead:
            outcome.problems.append(f"not run: {self.dead}")
            return outcome
        before = self._counters()
        self._out = self._reading = None
        try:
            steps = self._steps(operation)
            outcome.result = run(watched(steps), self._answer, self._see) if steps is not None else None
        except (KernelFault, NeverCompletes) as fault:
            self.dead = f"{type(fault).__name__}: {fault}"
            outcome.problems.append(self.dead)
            return outcome
        after = self._counters()
        outcome.counters = {name: value - before[name] for name, value in after.items() if value != before[name]}
        self._after(operation, outcome)
        return outcome

    def _steps(self, operation: Operation) -> Steps[Any] | None:
        model = self.model
        if operation.kind == "writeout":
            self._folio = Folio(operation.swpent, operation.order)
            return model.swap_writeout(self._folio)
        if operation.kind == "load":
            return model.zswap_load(Folio(operation.swpent))
        if operation.kind == "invalidate":
            return model.zswap_invalidate(operation.swpent)
        if operation.kind == "compact":
            return model.pools[0].zs_pool.zs_compact()
        if operation.kind == "shrink_memcg":
            return model.shrink_memcg(_MEMCG)
        if operation.kind != "param":
            raise ValueError(f"no operation is called {operation.kind!r}")
        name, _, value = operation.text.partition("=")
        try:
            model.set_param(name, value)
        except ValueError:
            self._outcome.result = errno.EINVAL
        return None

    def _counters(self) -> dict[str, int]:
        counts = self.model.counters
        account = self.model.memcg(_OBJCG)
        out = {name: getattr(counts, name) for name in (*DEBUGFS, *VMSTAT)}
        out |= {"memcg.zswap": account.zswap, "memcg.zswapped": account.zswapped,
                "pool_pages": self.model.total_pages()}
        return out

    # ---- effects ----------------------------------------------------------------------------------------

    def _see(self, effect: Effect) -> None:
        kind = effect[0]
        if kind[0] == "?":
            return
        if kind != "memcpy":
            self._outcome.effects.append(kind)
        if kind == "crypto_acomp_compress":
            self._outcome.calls.append(effect[3])
            self._compress(*effect[1:5])
        elif kind in ("zs_obj_write", "memcpy"):
            obj, length, content = effect[1:4]
            raw = kind == "zs_obj_write" and effect[4]
            self._objects[obj] = ((content.page if raw else content.data)[:length], raw)
        elif kind == "zs_free":
            self._objects.pop(effect[1], None)
        elif kind == "zs_obj_read" and effect[1] in self._objects:
            self._reading = *self._objects[effect[1]], effect[3]
            self._out = self._objects[effect[1]][0]
            if not self.model.SG_READS and self._read_pool is not None:
                spans = len(effect[3]) > 1
                self._outcome.copied += (self._read_pool.zs_pool.linear_copy(effect[1]) if self.model.READS_SLOTS
                                         else effect[2] * spans)
        elif kind == "zswap_decompress":
            self._read_pool = effect[1].pool

    def _answer(self, effect: Effect) -> Any:
        kind = effect[0]
        if kind in self._answers:
            given = self._answers[kind]
            if not isinstance(given, list):
                return given
            if given:
                return given.pop(0)
        if kind in _QUIET:
            return None
        method = getattr(self, "_on_" + kind.strip("?_"), None)
        return method(effect) if method is not None else None

    def _on_obj_cgroup_charge_zswap(self, effect: Effect) -> int:
        return _OBJCG

    def _on_list_lru_add(self, effect: Effect) -> tuple[int, int]:
        entry: ZswapEntry = effect[1]
        return (self.cpu_node if entry.on_cpu_node else 0), _MEMCG

    def _on_shrink_memcg(self, effect: Effect) -> int:
        return _MEMCG

    def _on_crypto_acomp_compress_ret(self, effect: Effect) -> tuple[int, int, _Result]:
        return (*self._call, self._units[0][1])

    def _on_sg_length(self, effect: Effect) -> tuple[int, _Result]:
        return self._units[effect[7]]

    def _on_zs_malloc(self, effect: Effect) -> int | None:
        if effect[0] != "?zs_malloc":
            return None
        fault = self.faults.hit("zs_malloc")
        return fault.error if fault else 0

    def _on_entry_alloc(self, effect: Effect) -> bool:
        return self.faults.hit("entry_alloc") is None

    def _on_entry_alloc_bulk(self, effect: Effect) -> int | None:
        fault = self.faults.hit("entry_alloc_bulk")
        return fault.got if fault else None

    def _on_xa_store(self, effect: Effect) -> int:
        fault = self.faults.hit("xa_store", page=effect[1].swpent)
        return fault.error if fault else 0

    # ---- the crypto layer -------------------------------------------------------------------------------

    def _tfm(self, pool: ZswapPool) -> Acomp:
        if pool.tfm_name not in self._tfms:
            self._tfms[pool.tfm_name] = self._acomp_for(pool.tfm_name)
        return self._tfms[pool.tfm_name]

    def _compress(self, folio: Folio, first: int, pages: int, pool: ZswapPool) -> None:
        contents = self._operation.pages[first:first + pages]
        swpent = folio.swpent + first
        tfm = self._tfm(pool)
        style = self.model.compress_call
        if style == "page":
            self._compress_page(tfm, contents[0], swpent)
        elif style == "chain":
            self._compress_chain(tfm, contents, swpent)
        else:
            self._compress_table(tfm, contents, swpent, first)

    def _compress_page(self, tfm: Acomp, page: bytes, swpent: int) -> None:
        buffer = bytearray(self.model.DEST_PAGES * PAGE_SIZE)
        request = AcompRequest(sg_init_one(page), sg_init_one(buffer), PAGE_SIZE, PAGE_SIZE, page=swpent)
        err = tfm.compress(request)
        self._call = err, request.dlen
        self._units = [(err or as_int32(request.dlen), _Result(page, bytes(buffer)))]

    def _compress_chain(self, tfm: Acomp, contents: Sequence[bytes], swpent: int) -> None:
        buffers = [bytearray(2 * PAGE_SIZE) for _ in contents]
        requests = [AcompRequest(sg_init_one(page), sg_init_one(buffer), PAGE_SIZE, PAGE_SIZE, page=swpent + number)
                    for number, (page, buffer) in enumerate(zip(contents, buffers, strict=True))]
        if len(requests) > 1 and isinstance(tfm, AcompV8):
            err = tfm.compress_chain(requests)
            errors = [request.chain_err for request in requests]
        else:
            err = tfm.compress(requests[0])
            errors = [err]
        self._call = err, requests[0].dlen
        self._units = [(error or as_int32(request.dlen), _Result(page, bytes(buffer)))
                       for error, request, page, buffer in zip(errors, requests, contents, buffers, strict=True)]

    def _compress_table(self, tfm: Acomp, contents: Sequence[bytes], swpent: int, first: int) -> None:
        count = len(contents)
        folio = b"".join(self._operation.pages)
        table = self._table[:count]
        for entry in table:
            entry.fresh = False
        # zswap itself sets only the first, to all of it.
        table[0]._length = count * PAGE_SIZE
        request = AcompRequest(set_src_folio(folio, first * PAGE_SIZE, count * PAGE_SIZE), list(table),
                               count * PAGE_SIZE, count * PAGE_SIZE, PAGE_SIZE, page=swpent)
        err = tfm.compress(request)
        if isinstance(tfm, AcompV12) and tfm.compr_batch_size == 1:
            # zswap of v12 23/23 writes the errno where it looks for the length.
            lengths = [err or as_int32(request.dlen)]
            table[0].fresh = True
        else:
            lengths = [as_int32(entry.length) for entry in table]
        self._call = err, request.dlen
        self._units = [(length, _Result(page, bytes(buffer)))
                       for length, page, buffer in zip(lengths, contents, self._buffers, strict=False)]
        for number, (entry, length) in enumerate(zip(table, lengths, strict=True)):
            where = f"page {first + number} of the folio at swap entry {self._folio.swpent:#x}"
            if not entry.fresh:
                self._problem(f"the length of {where} is stale: the compress call (error {err}) did not write it, it "
                              f"reads {length}")
            elif not -_MAX_ERRNO <= length <= PAGE_SIZE or length == 0:
                self._problem(f"the length of {where} is {length}: neither an error nor 1 to {PAGE_SIZE}")
        if all(entry.fresh for entry in table):
            self._agrees(err, lengths)

    def _agrees(self, err: int, lengths: Sequence[int]) -> None:
        """What a call returns and what it leaves for its pages: it failed when one of them did."""
        failed = [length for length in lengths if length < 0]
        if failed and not err:
            self._problem(f"a compress call of {len(lengths)} page{'s' * (len(lengths) > 1)} returned 0, but left the "
                          f"error {failed[0]} as a length")
        elif err and not failed:
            self._problem(f"a compress call of {len(lengths)} page{'s' * (len(lengths) > 1)} returned {err}, but left "
                          f"no error as a length")

    def _problem(self, text: str) -> None:
        self._outcome.problems.append(text)

    def _on_crypto_acomp_decompress_ret(self, effect: Effect) -> tuple[int, int]:
        assert self._reading is not None
        assert self._read_pool is not None
        data, _, shape = self._reading
        # The pieces as they lie in the zspage; a linear read has them in a row first.
        source, at = [], 0
        for piece in shape if not self.linear and self.model.SG_READS else [None]:
            size = len(data) if piece is None else piece.length
            source.append(Scatterlist(data[at:at + size]))
            at += size
        page = bytearray(PAGE_SIZE)
        # The context's one request, whose unit is set once (v12 23/23, v14 13/26).
        unit = PAGE_SIZE if self.model.compress_call in ("table", "dlens") else 0
        request = AcompRequest(source, sg_init_one(page), len(data), PAGE_SIZE, unit, page=self._operation.swpent)
        err = self._tfm(self._read_pool).decompress(request)
        self._out = bytes(page)
        return err, request.dlen

    # ---- the second oracle ------------------------------------------------------------------------------

    def _after(self, operation: Operation, outcome: OperationOutcome) -> None:
        if operation.kind == "writeout":
            self._after_writeout(operation, outcome)
        elif operation.kind == "load":
            self._after_load(operation, outcome)
        elif operation.kind == "invalidate":
            self._expected.pop(operation.swpent, None)
        self._done += 1
        if self._done % self._balance_every == 0:
            outcome.problems += self.imbalances()
        ledger = self.model.ledger
        outcome.problems += ledger.problems[self._seen_problems:]
        self._seen_problems = len(ledger.problems)
        outcome.problems += [f"the local mapping of the page at swap entry {slot:#x} is left behind"
                             for slot in ledger.things("kmap_local")]
        for slot in ledger.things("kmap_local"):
            ledger.give("kmap_local", slot)

    def _after_writeout(self, operation: Operation, outcome: OperationOutcome) -> None:
        slots = range(operation.swpent, operation.swpent + (1 << operation.order))
        stored = "zswap_store_ret" in outcome.effects and "__swap_writepage" not in outcome.effects \
            and all(slot in self.model.tree for slot in slots) and outcome.result == 0
        moved = {name: outcome.counters[name] for name in _REJECTS if outcome.counters.get(name)}
        what = f"the store of {len(slots)} page{'s' * (len(slots) > 1)} at swap entry {operation.swpent:#x}"
        if stored:
            self._pages_stored += len(slots)
            if moved:
                outcome.problems.append(f"{what} succeeded, and counts as rejected: {_said(moved)}")
        elif "crypto_acomp_compress" in outcome.effects and not moved \
                and not outcome.counters.get("pool_limit_hit"):  # v6 asks for the limit before each page
            outcome.problems.append(f"{what} was given up after a compress call, and no counter says why")
        if moved.get("reject_kmemcache_fail", 0) > 1:
            outcome.problems.append(f"{what} was rejected once, and reject_kmemcache_fail moved by "
                                    f"{moved['reject_kmemcache_fail']}")
        if self.model.counters.zswpout != self._pages_stored:
            self._problem(f"zswpout is {self.model.counters.zswpout}, but folios of {self._pages_stored} pages in all "
                          f"were stored, at {what}")
            self._pages_stored = self.model.counters.zswpout
        if stored or "__swap_writepage" in outcome.effects:
            # Whatever took them, zswap or the device, has to give these pages from now on.
            for slot, page in zip(slots, operation.pages, strict=False):
                self._expected[slot] = page
        allowed = operation.answers.get("mem_cgroup_zswap_writeback_enabled_ret", self.model.writeback_enabled)
        for slot in slots:
            entry = self.model.tree.get(slot)
            if entry is not None and entry.obj in self._objects:
                outcome.stored[slot] = (entry.length, self._objects[entry.obj][1])
                if stored and allowed is False and self.model.enabled and outcome.stored[slot][1]:
                    self._problem(f"the page at swap entry {slot:#x} is kept as it is, though its cgroup forbids "
                                  f"writeback")
                if entry.lru is not None and entry.lru[0] != 0:
                    self._problem(f"the entry of swap entry {slot:#x} is listed under node {entry.lru[0]}, its folio "
                                  f"is on node 0")

    def _after_load(self, operation: Operation, outcome: OperationOutcome) -> None:
        expected = self._expected.get(operation.swpent)
        took = outcome.result == int(self.model.LOAD_RETURNS_BOOL)
        if outcome.result == errno.EIO:
            outcome.data = "not read"
            self._problem(f"the page at swap entry {operation.swpent:#x} cannot be read back: decompression fails")
        elif took and expected and self._out is not None:
            outcome.data = "the page" if self._out == expected else "other bytes"
            if self._out != expected:
                self._problem(f"the page read back at swap entry {operation.swpent:#x} is not the page written there: "
                              f"{self._what_is(expected)}")

    def _what_is(self, expected: bytes) -> str:
        assert self._out is not None
        same = sum(a == b for a, b in zip(self._out, expected, strict=False))
        differ = f"{PAGE_SIZE - same} of {PAGE_SIZE} bytes differ"
        if self._reading is None or "crypto_acomp_decompress" in self._outcome.effects or self._reading[1]:
            return differ
        return (f"its object holds compressed data of {len(self._reading[0])} bytes, which the load takes for the page "
                f"itself; {differ}")

    def imbalances(self) -> list[str]:
        """Return in sentences what does not balance: entries, objects, charges and counters."""
        model = self.model
        entries = list(model.tree.values())
        out = []
        if model.counters.stored_pages != len(entries):
            out.append(f"stored_pages is {model.counters.stored_pages}, the trees hold {len(entries)} entries")
        slab = model.ledger.live("zswap_entry")
        if slab != len(entries):
            out.append(f"{slab} zswap entries are allocated, the trees hold {len(entries)}")
            for entry in set(model.ledger.things("zswap_entry")) - set(entries):
                model.ledger.give("zswap_entry", entry)
        charged = sum(entry.length for entry in entries if entry.objcg is not None)
        if model.memcg(_OBJCG).zswap != charged:
            out.append(f"{model.memcg(_OBJCG).zswap} bytes are charged, entries have {charged}")
        objects = sum(cls.objs_inuse for pool in model.pools for cls in pool.zs_pool.classes)
        if objects != len(entries):
            out.append(f"{objects} objects are in use, the trees hold {len(entries)} entries")
        return out


def _said(moved: dict[str, int]) -> str:
    return ", ".join(f"{name} {change:+d}" for name, change in moved.items())
