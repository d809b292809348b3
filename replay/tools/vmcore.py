# SPDX-License-Identifier: GPL-2.0-or-later
"""A crashed box's zswap checked against the model: places, lists, lengths, bytes and totals of one core.

There are no events here, so nothing is replayed: what is checked is what the model says of any state that the
kernel may be in.  A box that died in the middle of a zswap operation may show that one operation half done, as
a difference in the checks of lists and totals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from model.crypto import Compressor, CorruptData, UnsupportedCompressor, compressor_for
from model.lines import LINES, NEWEST, line_of
from model.page import PAGE_SIZE
from model.zsmalloc import HANDLE_SIZE, SizeClass, ZsObject, Zspage, ZsPool, get_size_class_index
from replay.reference.objectwords import layout_note, layout_of_line
from traces.objectword import ObjectLayout, layout_of
from traces.record.release import release_line
from traces.vmcore.image import CoreImage
from traces.vmcore.zsmalloc import ZsClassImage, ZspageImage, ZsPoolImage
from traces.vmcore.zswap import EntryImage

__all__ = ["CORE_CHECKS", "CoreCheck", "CoreResult", "CoreDifference", "check_core"]

#: id -> what it compares
CORE_CHECKS: Final[dict[str, str]] = {
    "core.walk": "lists, trees and freelists end where they should and link both ways",
    "entry.slot": "an entry says the swap slot it is found at",
    "entry.length": "1 to 4096 bytes, and its pool is on the list of pools",
    "entry.handle": "each entry has one object of its pool, and each object one entry",
    "entry.decompress": "the object's bytes decompress to a page",
    "entry.bytes": "compressing that page again gives the same bytes, or shows why it was kept as it is",
    "zsmalloc.geometry": "size classes: stride, pages and objects of a zspage, which are merged",
    "zsmalloc.place": "class of an object of that length; its word names page, index and class",
    "sg.shape": "1 or 2 pages of the zspage hold the object, and they are there",
    "zsmalloc.pages": "a zspage's chain: its pages, and where each one's first object begins",
    "zsmalloc.fullness": "a zspage is listed in the group that its objects in use make",
    "zsmalloc.freelist": "a zspage's freelist has its free places once each, and a known end",
    "lru.entries": "each entry is on one LRU list once, and each list counts its entries",
    "counter.stored_pages": "zswap_stored_pages is the number of entries",
    "counter.stored_incompressible_pages": "... of entries of 4096 bytes",
    "counter.pages_allocated": "each pool's pages_allocated is what its zspages hold",
    "counter.class_stats": "each class's zspages per group, objects allocated and in use",
}
_KEPT: Final = 100
#: Ends of a freelist as init_zspage() and, once they were through obj_free(), its shift leave them.
_FREELIST_ENDS: Final = (0xFFFFFFFF, 0x7FFFFFFF)


@dataclass(frozen=True)
class CoreDifference:
    """What the core has and what the model says; ``where``: the entry, zspage, class or list."""

    check: str
    where: str
    found: Any
    expected: Any


@dataclass
class CoreCheck:
    """The tally of one check; ``reason``: why it compared nothing."""

    id: str
    compared: int = 0
    different: int = 0
    reason: str = ""


@dataclass
class CoreResult:
    """The result of checking a core against the model; ``chain_size``: the CONFIG_ZSMALLOC_CHAIN_SIZE it fits."""

    image: CoreImage
    chain_size: int | None = None
    checks: dict[str, CoreCheck] = field(default_factory=lambda: {name: CoreCheck(name) for name in CORE_CHECKS})
    differences: list[CoreDifference] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """FAIL when anything differed; else UNDECIDED when something is missing; else PASS."""
        if any(check.different for check in self.checks.values()):
            return "FAIL"
        return "UNDECIDED" if self.reasons else "PASS"

    @property
    def exit_status(self) -> int:
        """0 PASS, 1 FAIL, 3 UNDECIDED."""
        return {"PASS": 0, "FAIL": 1, "UNDECIDED": 3}[self.verdict]

    def compare(self, check: str, where: EntryImage | tuple[str | int, ...], found: Any, expected: Any) -> bool:
        """Count one comparison; True when both are equal.

        :param where: an entry, or words and addresses that name the place
        """
        tally = self.checks[check]
        tally.compared += 1
        if found == expected:
            return True
        tally.different += 1
        if len(self.differences) < _KEPT:
            self.differences.append(CoreDifference(check, _place_name(where), found, expected))
        return False

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain data, without the entries."""
        image = self.image
        return {
            "core": str(image.path), "verdict": self.verdict, "kernel": image.release, "sources": image.sources,
            "entries": len(image.entries), "counters": image.counters, "chain_size": self.chain_size,
            "pools": [{"address": hex(pool.address), "compressor": pool.compressor, "listed": pool.listed,
                       "zs_pool": hex(pool.zs_pool), **_pool_totals(image.zs_pools.get(pool.zs_pool))}
                      for pool in image.pools.values()],
            "checks": [{"id": c.id, "compared": c.compared, "different": c.different, "reason": c.reason,
                        "grade": "exact" if c.compared else "not captured"} for c in self.checks.values()],
            "differences": [vars(d) for d in self.differences], "reasons": self.reasons, "notes": self.notes,
        }


def _pool_totals(pool: ZsPoolImage | None) -> dict[str, Any]:
    if pool is None:
        return {}
    return {"name": pool.name, "pages_allocated": pool.pages_allocated, "objects": len(pool.handles),
            "zspages": sum(len(cls.zspages) for cls in pool.classes)}


def entry_name(entry: EntryImage) -> str:
    """Return an entry's name for people."""
    return f"swap file {entry.type} offset {entry.offset:#x}"


def _place_name(where: EntryImage | tuple[str | int, ...]) -> str:
    if isinstance(where, EntryImage):
        return entry_name(where)
    return " ".join(hex(word) if isinstance(word, int) and word >= 1 << 32 else str(word) for word in where)


def check_core(image: CoreImage, progress: Callable[[int], None] | None = None) -> CoreResult:
    """Check everything that a core's zswap state says.

    :param progress: called with the number of entries whose bytes have been looked at
    """
    result = CoreResult(image)
    _walks(result)
    pools = {address: _Pool(result, pool) for address, pool in image.zs_pools.items()}
    _entries(result, pools, progress)
    _lru(result)
    _counters(result)
    if image.core.cut_off:
        result.reasons.append(f"the core is cut off: {image.core.cut_off:,} bytes of memory are missing at its end")
    if not image.pools:
        result.notes.append("zswap has no pool: it was never enabled on this box")
    for check in result.checks.values():
        if not check.compared and not check.reason:
            check.reason = "the core has nothing of that kind" + " that is all there" * bool(image.problems.missing)
    return result


def _walks(result: CoreResult) -> None:
    """Take over what reading met: contradictions differ, holes leave the verdict open."""
    image, tally = result.image, result.checks["core.walk"]
    tally.compared = (len(image.lru) + len(image.entries) + len(image.pools)
                      + sum(12 * len(p.classes) + sum(len(c.zspages) for c in p.classes)
                            for p in image.zs_pools.values()) + image.problems.broken)
    tally.different = image.problems.broken
    for problem in image.problems.list:
        if problem.kind == "broken" and len(result.differences) < _KEPT:
            result.differences.append(CoreDifference("core.walk", problem.where, problem.what, "whole and consistent"))
    if image.problems.missing:
        first = next((p for p in image.problems.list if p.kind == "missing"), None)
        result.reasons.append(f"{image.problems.missing:,} structures are not in the core"
                              + (f", the first: {first.where}: {first.what}" if first else ""))


class _Pool:
    """A zs_pool of the core next to a model pool of the same geometry."""

    def __init__(self, result: CoreResult, image: ZsPoolImage) -> None:
        self.result, self.image = result, image
        self.model = ZsPool(self._chain_size())
        self._geometry()
        self.layout = self._layout()
        for cls in image.classes:
            for zspage in cls.zspages:
                self._zspage(cls, zspage)
        self._totals()

    def _chain_size(self) -> int:
        """Return the chain size whose classes are the core's; of none, the default of Linux."""
        result = self.result
        chain_size: int
        for chain_size in dict.fromkeys((result.chain_size or 8, 8, *range(4, 17))):
            if all(self._shape(cls) == self._model_shape(model) for cls, model in self._pairs(ZsPool(chain_size))
                   if cls is not None or self.image.whole):
                result.chain_size = chain_size
                return chain_size
        result.notes.append(f"the size classes of zs_pool {self.image.name} are those of no ZSMALLOC_CHAIN_SIZE")
        return 8

    def _layout(self) -> ObjectLayout:
        """Return how the core's object words are laid out; where they do not show it, what its release has."""
        line = release_line(self.result.image.release)
        known = [(obj.word, cls.index) for cls in self.image.classes for zspage in cls.zspages
                 for obj in zspage.objects if obj.word is not None]
        words = np.array([word for word, _ in known], np.uint64)
        classes = np.array([index for _, index in known], np.uint32)
        expected = layout_of_line(line)
        found = layout_of(words, classes) or expected
        if line is not None and found != expected:
            note = layout_note(found, line)
            if note not in self.result.notes:
                self.result.notes.append(note)
        return found

    def _pairs(self, model: ZsPool) -> list[tuple[ZsClassImage | None, SizeClass]]:
        by_raw = {raw: cls for cls in self.image.classes for raw in cls.raw}
        return [(by_raw.get(raw), cls) for raw, cls in enumerate(model.size_class)]

    @staticmethod
    def _shape(cls: ZsClassImage | None) -> tuple[int, ...] | None:
        return (cls.index, cls.size, cls.pages_per_zspage, cls.objs_per_zspage) if cls is not None else None

    @staticmethod
    def _model_shape(cls: SizeClass) -> tuple[int, ...]:
        geometry = cls.geometry
        return geometry.index, geometry.size, geometry.pages_per_zspage, geometry.objs_per_zspage

    def _geometry(self) -> None:
        for raw, (cls, model) in enumerate(self._pairs(self.model)):
            if cls is not None:
                self.result.compare("zsmalloc.geometry", (self.image.name, "size_class", raw), self._shape(cls),
                                    self._model_shape(model))

    def _zspage(self, cls: ZsClassImage, zspage: ZspageImage) -> None:
        compare = self.result.compare
        where = (self.image.name, "class", cls.index, "zspage", zspage.address)
        count, size = cls.objs_per_zspage, cls.size
        wanted = SizeClass(self.model.size_class[cls.raw[-1]].geometry) \
            if cls.raw[-1] < len(self.model.size_class) else None
        if wanted is not None:
            shadow = Zspage(wanted)
            shadow.inuse = zspage.inuse
            group = wanted.get_fullness_group(shadow)
            # fix_fullness_group() writes both; the list is where find_get_zspage() looks.
            compare("zsmalloc.fullness", where, (zspage.group, zspage.fullness, zspage.class_index, zspage.huge),
                    (group, group, cls.index, wanted.geometry.huge))
        if not zspage.whole:
            return
        compare("zsmalloc.fullness", where, zspage.inuse, len(zspage.objects))
        offsets = [-page * PAGE_SIZE % size for page in range(cls.pages_per_zspage)]
        compare("zsmalloc.pages", where, zspage.first_offsets, offsets)
        taken = {obj.index for obj in zspage.objects}
        compare("zsmalloc.freelist", where, sorted(zspage.free), [i for i in range(count) if i not in taken])
        if zspage.free and not zspage.huge:
            # init_zspage() also links a last place that the zspage has no room for.
            ends = (*_FREELIST_ENDS, count) if cls.pages_per_zspage * PAGE_SIZE > count * size else _FREELIST_ENDS
            compare("zsmalloc.freelist", where, zspage.free_end if zspage.free_end not in ends else ends, ends)
        for obj in zspage.objects:
            page = obj.start // PAGE_SIZE  # the word names the page in which the object starts
            frame = zspage.frames[page] if page < len(zspage.frames) else -1
            if obj.word is not None:
                compare("zsmalloc.place", (*where, "object", obj.index),
                        hex(obj.word), hex(self.layout.make(frame, cls.index, obj.index)))

    def _totals(self) -> None:
        compare, image = self.result.compare, self.image
        if image.whole:
            compare("counter.pages_allocated", ("zs_pool", image.name), image.pages_allocated,
                    sum(cls.pages_per_zspage * len(cls.zspages) for cls in image.classes))
        for cls in image.classes:
            if not cls.whole:
                continue
            groups = Counter(zspage.group for zspage in cls.zspages)
            compare("counter.class_stats", (image.name, "class", cls.index), cls.stats,
                    (*(groups[group] for group in range(12)), len(cls.zspages) * cls.objs_per_zspage,
                     sum(len(zspage.objects) for zspage in cls.zspages)))

    def place(self, entry: EntryImage) -> bytes | None:
        """Check where an entry's object lies; returns its bytes, None when they are not all there."""
        compare = self.result.compare
        obj = self.image.handles.get(entry.handle)
        if obj is None:
            return None
        cls = obj.zspage.cls
        raw = get_size_class_index(entry.length + HANDLE_SIZE)
        compare("zsmalloc.place", entry, cls.index, self.model.size_class[raw].geometry.index)
        model_class = self.model.size_class[min(cls.raw[-1], len(self.model.size_class) - 1)]
        shadow, place = Zspage(model_class), ZsObject(entry.length)
        place.zspage, place.index = shadow, obj.index
        parts = self.model.zs_obj_read_sg(place, entry.length)
        frames = obj.zspage.frames
        if not obj.zspage.whole:
            return None
        if not compare("sg.shape", entry, [part.page < len(frames) for part in parts], [True] * len(parts)):
            return None
        out = b""
        for part in parts:
            data = self.result.image.core.physical(frames[part.page] * PAGE_SIZE + part.offset, part.length)
            if data is None:
                return None
            out += data
        return out


def _entries(result: CoreResult, pools: dict[int, _Pool], progress: Callable[[int], None] | None) -> None:
    image, compare = result.image, result.compare
    compressors = {pool.compressor: _compressor(result, pool.compressor) for pool in image.pools.values()}
    used: dict[int, Counter[int]] = {address: Counter() for address in pools}
    raw_kept = "stored_incompressible_pages" in image.counters or _is_gone(image, "stored_incompressible_pages")
    unread = 0
    for number, entry in enumerate(image.entries):
        if progress is not None and not number & 1023:
            progress(number)
        compare("entry.slot", entry, entry.swpent, entry.slot)
        pool = image.pools.get(entry.pool)
        # A list of pools that is not all there may have had it.
        listed = "pools" in image.partial or (pool is not None and pool.listed)
        good = compare("entry.length", entry, (0 < entry.length <= PAGE_SIZE, listed), (True, True))
        zs_pool = pools.get(pool.zs_pool) if pool is not None else None
        if pool is None or zs_pool is None:
            continue
        used[pool.zs_pool][entry.handle] += 1
        there = entry.handle in zs_pool.image.handles
        if not there and not zs_pool.image.whole:
            unread += 1
            continue
        if not compare("entry.handle", entry, there, True) or not good:
            continue
        data = zs_pool.place(entry)
        if data is None:
            unread += 1
            continue
        compressor = compressors[pool.compressor]
        if compressor is not None:
            _bytes(result, entry, compressor, data, raw_kept)
    if unread:
        result.reasons.append(f"the objects of {unread:,} of {len(image.entries):,} entries are not all in the core: "
                              f"their bytes were not looked at")
    for address, counts in used.items():
        for handle in pools[address].image.handles:
            if counts[handle] > 1 or (not counts[handle] and "entries" not in image.partial):
                compare("entry.handle", ("object of handle", handle), counts[handle], 1)


def _bytes(result: CoreResult, entry: EntryImage, compressor: Compressor, data: bytes, raw_kept: bool) -> None:
    """Decompress an object and compress the page again."""
    page, plain = data, len(data) == PAGE_SIZE and raw_kept
    if not plain:
        try:
            page = compressor.decompress(data)
            problem = f"{len(page)} bytes"
        except CorruptData as error:
            page, problem = b"", str(error)
        if not result.compare("entry.decompress", entry, problem, f"{PAGE_SIZE} bytes"):
            return
    again = compressor.compress(page)
    if plain:
        # zswap_compress() keeps what fails or does not become smaller (6.18 and later).
        result.compare("entry.bytes", entry, bool(again.err) or not 0 < again.dlen < PAGE_SIZE, True)
    else:
        result.compare("entry.bytes", entry, (again.err, again.dlen, again.data == data), (0, len(data), True))


def _compressor(result: CoreResult, name: str) -> Compressor | None:
    """Return the compressor of the dead kernel's line; None with the reason noted."""
    line = _kernel_line(result)
    try:
        compressor = compressor_for(name, line)
        problems = compressor.self_check()
        why = f"{compressor.ident} is not exact on this machine: {problems[0]}" if problems else ""
    except UnsupportedCompressor as problem:
        why = str(problem)
    if not why:
        return compressor
    result.reasons.append(f"objects of the pool for '{name}' were not decompressed: {why}")
    for check in ("entry.decompress", "entry.bytes"):
        result.checks[check].reason = why
    return None


def _kernel_line(result: CoreResult) -> str:
    """Return the last line of compressors that is not younger than the dead kernel."""
    found = release_line(result.image.release)
    line = (NEWEST if found is None else line_of(found)) or next(iter(LINES.values()))
    if line.number != found:
        note = f"no line of compressors is that of kernel {result.image.release}: the nearest is used"
        if note not in result.notes:
            result.notes.append(note)
    return line.kernel_line


def _lru(result: CoreResult) -> None:
    image = result.image
    seen: Counter[int] = Counter()
    for lru in image.lru:
        seen.update(lru.items)
        # A list whose cgroup died and was reparented counts LONG_MIN.
        if lru.count != -1 << 63 and lru.whole:
            result.compare("lru.entries", ("node", lru.node, "memcg", lru.memcg), lru.count, len(lru.items))
    known = {entry.lru for entry in image.entries}
    for entry in image.entries:
        if seen[entry.lru] or "lru" not in image.partial:
            result.compare("lru.entries", entry, seen[entry.lru], 1)
    for link in seen:
        if link not in known and "entries" not in image.partial:
            result.compare("lru.entries", ("links at", link), "no entry of any tree", "an entry")


def _is_gone(image: CoreImage, name: str) -> bool:
    """True for a counter that the kernel has, in memory that the core does not have."""
    return any(problem.where == f"zswap_{name}" for problem in image.problems.list)


def _counters(result: CoreResult) -> None:
    image = result.image
    for name, count in (("stored_pages", len(image.entries)),
                        ("stored_incompressible_pages", sum(e.length == PAGE_SIZE for e in image.entries))):
        check = result.checks[f"counter.{name}"]
        if "entries" in image.partial:
            check.reason = "not all entries are in the core"
        elif name in image.counters:
            result.compare(f"counter.{name}", (f"zswap_{name}",), image.counters[name], count)
        else:
            check.reason = f"zswap_{name} is not in the core" if _is_gone(image, name) else \
                f"this kernel has no zswap_{name}"
