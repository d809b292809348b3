# SPDX-License-Identifier: GPL-2.0-or-later
"""Reference model of mm/zsmalloc.c: size classes, zspages, fullness groups, objects, compaction.

Mirrors Linux 6.12.107, 6.18, 7.0, 7.2.13 and 7.3-rc7, whose allocator decides alike for a serial trace; what
differs (which function frees an empty zspage, the layout of the object word) is named where it matters.
Sizes are bytes, PAGE_SIZE is 4096.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from model import errno
from model.branches import Reached
from model.effects import Steps
from model.page import PAGE_SIZE

__all__ = ["FIND", "FREELIST_END", "FREELIST_MASK", "HANDLE_SIZE", "ISOLATE_DST", "ISOLATE_SRC", "MIN_ALLOC_SIZE",
           "RATIO_0", "RATIO_10", "RATIO_99", "RATIO_100", "SIZE_CLASSES", "SIZE_CLASS_DELTA",
           "UNKNOWN_LINK", "SgEntry", "SizeClass", "ZsObject", "ZsPool", "Zspage", "huge_class_size", "size_classes"]

#: ZS_HANDLE_SIZE: every object outside the huge class starts with its handle.
HANDLE_SIZE: Final = 8
#: ZS_MIN_ALLOC_SIZE of every 64-bit configuration with 4 KiB pages.
MIN_ALLOC_SIZE: Final = 32
#: ZS_SIZE_CLASS_DELTA
SIZE_CLASS_DELTA: Final = PAGE_SIZE >> 8
#: ZS_SIZE_CLASSES
SIZE_CLASSES: Final = (PAGE_SIZE - MIN_ALLOC_SIZE + SIZE_CLASS_DELTA - 1) // SIZE_CLASS_DELTA + 1
#: enum fullness_group: 0 empty, 1..10 by inuse ratio, 11 full
RATIO_0: Final = 0
RATIO_10: Final = 1
RATIO_99: Final = 10
RATIO_100: Final = 11
#: End of a freelist as init_zspage() leaves it; one trip through obj_free() clears the top bit.
FREELIST_END: Final = 0xFFFFFFFF
FREELIST_MASK: Final = 0x7FFFFFFF
#: A link that is object data: only in a huge zspage that was emptied and not yet freed.
UNKNOWN_LINK: Final = -1


@dataclass(frozen=True)
class ClassGeometry:
    """Geometry of one distinct size class; ``index`` is its highest raw class number, ``size`` its stride."""

    index: int
    size: int
    pages_per_zspage: int
    objs_per_zspage: int

    @property
    def huge(self) -> bool:
        """True for the class whose one object is a whole page (no handle inside, data at offset 0)."""
        return self.pages_per_zspage == 1 and self.objs_per_zspage == 1


def _pages_per_zspage(size: int, chain_size: int) -> int:
    """calculate_zspage_chain_size(): the page count that wastes least at the end, the smallest such."""
    if size & (size - 1) == 0:
        return 1
    return min(range(1, chain_size + 1), key=lambda pages: (pages * PAGE_SIZE) % size)


@lru_cache(maxsize=16)
def size_classes(chain_size: int = 8) -> tuple[ClassGeometry, ...]:
    """zs_create_pool(): the geometry of all raw classes, merged ones sharing one object.

    :param chain_size: CONFIG_ZSMALLOC_CHAIN_SIZE, 4 to 16
    :raises ValueError: for any other chain size
    """
    if not 4 <= chain_size <= 16:
        raise ValueError(f"ZSMALLOC_CHAIN_SIZE is 4 to 16, not {chain_size}")
    table: list[ClassGeometry] = []
    previous: ClassGeometry | None = None
    for index in range(SIZE_CLASSES - 1, -1, -1):
        size = min(MIN_ALLOC_SIZE + index * SIZE_CLASS_DELTA, PAGE_SIZE)
        pages = _pages_per_zspage(size, chain_size)
        objs = pages * PAGE_SIZE // size
        # can_merge(): the class above already has this shape, its (larger) stride serves both.
        if previous is None or (previous.pages_per_zspage, previous.objs_per_zspage) != (pages, objs):
            previous = ClassGeometry(index, size, pages, objs)
        table.append(previous)
    return tuple(reversed(table))


def get_size_class_index(size: int) -> int:
    """get_size_class_index() of ``size`` bytes, handle included: the raw class number."""
    if size <= MIN_ALLOC_SIZE:
        return 0
    return min(SIZE_CLASSES - 1, (size - MIN_ALLOC_SIZE + SIZE_CLASS_DELTA - 1) // SIZE_CLASS_DELTA)


def huge_class_size(chain_size: int = 8) -> int:
    """zs_huge_class_size(): objects of this size and more get a page of their own.

    :raises ValueError: for a chain size outside 4 to 16
    """
    largest = next(cls for cls in reversed(size_classes(chain_size))
                   if cls.pages_per_zspage != 1 and cls.objs_per_zspage != 1)
    return largest.size - HANDLE_SIZE + 1


class Zspage:
    """struct zspage: a chain of pages cut into objects.

    ``link`` is the freelist as it stands in the free objects (index to next index), ``objects`` the object at
    each index or None, ``group`` the fullness group it is listed under.  A replay binds ``address``, where the
    recorded kernel had it, and ``frames``, the upper part of the object word of each of its pages.
    """

    __slots__ = ("address", "cls", "frames", "freeobj", "group", "inuse", "link", "objects")

    def __init__(self, cls: SizeClass) -> None:
        geometry = cls.geometry
        count = geometry.objs_per_zspage
        self.cls = cls
        self.inuse = 0
        self.freeobj = 0
        # init_zspage() links every place at which an object would start, also a last one that the zspage has
        # no room for: its tail waste.  Nothing is ever allocated there, but the full zspage points at it.
        wasted = geometry.pages_per_zspage * PAGE_SIZE > count * geometry.size
        self.link = [*range(1, count), count if wasted else FREELIST_END]
        self.objects: list[ZsObject | None] = [None] * count
        self.group = RATIO_0
        self.address = 0
        self.frames: list[int] = [-1] * cls.geometry.pages_per_zspage

    def __repr__(self) -> str:
        return f"<zspage {self.address:#x} of class {self.cls.geometry.index}>"


class ZsObject:
    """An allocation: what a handle stands for.

    ``zspage`` and ``index`` say where it is now; ``size`` is the length asked for; ``address`` (the handle) is
    bound by a replay; ``holds`` is an opaque tag of what was written into it, for later readers.
    """

    __slots__ = ("address", "holds", "index", "size", "zspage")

    def __init__(self, size: int) -> None:
        self.size = size
        self.zspage: Zspage
        self.index = -1
        self.address = 0
        self.holds: Any = None

    def __repr__(self) -> str:
        return f"<object {self.address:#x} of {self.size} bytes>"


@dataclass(frozen=True)
class SgEntry:
    """One scatter-gather entry of an object read: page of the zspage, byte offset in it, length."""

    page: int
    offset: int
    length: int


class SizeClass:
    """struct size_class: the zspages of one geometry in fullness groups, head of each list last."""

    __slots__ = ("_watched", "address", "geometry", "groups", "objs_allocated", "objs_inuse", "times_dry", "was_idle",
                 "zspages")

    def __init__(self, geometry: ClassGeometry) -> None:
        self.geometry = geometry
        self.groups: list[OrderedDict[Zspage, None]] = [OrderedDict() for _ in range(RATIO_100 + 1)]
        self.objs_allocated = 0
        self.objs_inuse = 0
        self.zspages = 0
        self.address = 0
        #: how often the class lock was dropped with no zspage left that has room
        self.times_dry = 0
        self._watched = False
        #: since :meth:`watch` there was a moment at which compaction would have found nothing to move
        self.was_idle = False

    def get_fullness_group(self, zspage: Zspage) -> int:
        """get_fullness_group(): the group a zspage belongs to by its objects in use."""
        inuse, objs = zspage.inuse, self.geometry.objs_per_zspage
        if inuse == 0:
            return RATIO_0
        if inuse == objs:
            return RATIO_100
        return 100 * inuse // objs // 10 + 1

    def insert_zspage(self, zspage: Zspage, group: int) -> None:
        """insert_zspage(): to the head of the group's list."""
        self.groups[group][zspage] = None
        zspage.group = group

    def remove_zspage(self, zspage: Zspage) -> None:
        """remove_zspage(): off its group's list; it keeps the group's number."""
        del self.groups[zspage.group][zspage]

    def first(self, groups: range) -> Zspage | None:
        """Return the head of the first non-empty list among ``groups``, or None."""
        for group in groups:
            listed = self.groups[group]
            if listed:
                return next(reversed(listed))
        return None

    def can_compact(self) -> int:
        """zs_can_compact(): pages that compaction could free."""
        unused = self.objs_allocated - self.objs_inuse
        if unused <= 0:
            return 0
        return unused // self.geometry.objs_per_zspage * self.geometry.pages_per_zspage

    def is_compactable(self) -> bool:
        """True where __zs_compact() finds something to move: pages to free, and a source and a target."""
        return self.can_compact() > 0 and sum(len(self.groups[group]) for group in ISOLATE_SRC) > 1

    def watch(self) -> None:
        """Compaction waits for the class lock: note from now on whether it may find nothing to move."""
        self._watched = True
        self.was_idle = not self.is_compactable()

    def unwatch(self) -> None:
        """Compaction has the lock."""
        self._watched = False

    def unlocked(self) -> None:
        """The class lock is dropped, with everything in its place."""
        if self._watched and not self.was_idle:
            self.was_idle = not self.is_compactable()

    def count_dry(self) -> None:
        """Called where a zspage with room left its list for good: zs_malloc() may find no room now."""
        if self.first(FIND) is None:
            self.times_dry += 1


#: find_get_zspage() looks from the fullest list down to the empty zspages that await their deferred free.
FIND = range(RATIO_99, RATIO_0 - 1, -1)
ISOLATE_DST = range(RATIO_99, RATIO_10 - 1, -1)
ISOLATE_SRC = range(RATIO_10, RATIO_99 + 1)


class ZsPool:
    """struct zs_pool: all size classes and the pages they hold.

    :param chain_size: CONFIG_ZSMALLOC_CHAIN_SIZE
    """

    def __init__(self, chain_size: int = 8) -> None:
        self.chain_size = chain_size
        by_geometry: dict[int, SizeClass] = {}
        self.size_class: list[SizeClass] = []
        for geometry in size_classes(chain_size):
            cls = by_geometry.get(geometry.index)
            if cls is None:
                cls = by_geometry[geometry.index] = SizeClass(geometry)
            self.size_class.append(cls)
        #: distinct classes, highest index first: the order zs_compact() takes
        self.classes = sorted(by_geometry.values(), key=lambda c: -c.geometry.index)
        self.pages_allocated = 0
        self.pages_compacted = 0
        self.compaction_in_progress = False
        #: how many compactions there were
        self.compactions = 0
        #: compaction gives a class up at a zspage that is being read (zspage_write_trylock()); up to 6.12 it waits
        self.compaction_trylocks = True
        self.address = 0
        #: how often each branch was taken
        self.reached: Reached = Reached()
        #: called before ``pages_allocated`` changes
        self.observer: Callable[[], None] | None = None

    # ---- allocation -------------------------------------------------------------------------------------

    def zs_malloc(self, size: int) -> Steps[ZsObject | int]:
        """zs_malloc(): allocate ``size`` bytes; returns the object or a negative errno.

        -EINVAL for 0 bytes, -ENOSPC for more than a page, -ENOMEM when the outside says so.
        """
        yield ("zs_malloc", size)
        cls = self.size_class[min(get_size_class_index(size + HANDLE_SIZE), SIZE_CLASSES - 1)]
        # -1: nothing to take from since before the lock was first taken.
        dry = cls.times_dry if cls.first(FIND) is not None else -1
        failure: int = yield ("?zs_malloc", size)
        if size == 0:
            failure = errno.EINVAL
        elif size > PAGE_SIZE:
            failure = errno.ENOSPC
        if failure:
            self.reached["zs_malloc.EINVAL" if not size else "zs_malloc.ENOSPC" if size > PAGE_SIZE
                         else "zs_malloc.ENOMEM"] += 1
            yield ("zs_malloc_ret", failure, None)
            return failure
        obj = ZsObject(size)
        zspage = cls.first(FIND)
        # The class lock is dropped while a new zspage is allocated; meanwhile others may list one with room.
        if zspage is not None and dry != cls.times_dry and (yield ("?new_zspage", cls)):
            self.reached["zs_malloc.raced"] += 1
            zspage = None
        if cls.geometry.huge:
            self.reached["zs_malloc.huge"] += 1
        if zspage is not None:
            self.reached["zs_malloc.room" if zspage.inuse else "zs_malloc.empty"] += 1
            yield from self.obj_malloc(zspage, obj)
            if (yield from self.fix_fullness_group(cls, zspage)) == RATIO_100:
                cls.count_dry()
        else:
            self.reached["zs_malloc.new"] += 1
            zspage = Zspage(cls)
            yield from self.obj_malloc(zspage, obj)
            cls.insert_zspage(zspage, cls.get_fullness_group(zspage))
            cls.zspages += 1
            cls.objs_allocated += cls.geometry.objs_per_zspage
            self._add_pages(cls.geometry.pages_per_zspage)
        cls.objs_inuse += 1
        cls.unlocked()
        yield ("zs_malloc_ret", 0, obj)
        return obj

    def obj_malloc(self, zspage: Zspage, obj: ZsObject, put_back: int = -1) -> Steps[None]:
        """obj_malloc(): take the head of the freelist for ``obj``."""
        yield ("obj_malloc", zspage, obj)
        if put_back >= 0 and (yield ("?contended", zspage, put_back)):
            zspage.group = put_back
        index = zspage.freeobj
        zspage.freeobj = zspage.link[index]
        zspage.objects[index] = obj
        zspage.inuse += 1
        obj.zspage = zspage
        obj.index = index
        yield ("obj_malloc_ret", zspage, obj)

    def obj_free(self, obj: ZsObject) -> Steps[None]:
        """obj_free(): the object's place becomes the head of the freelist."""
        zspage, index = obj.zspage, obj.index
        yield ("obj_free", obj, zspage, index)
        self._release(zspage, index)

    @staticmethod
    def _release(zspage: Zspage, index: int) -> None:
        # The kernel shifts a 32-bit index left by OBJ_TAG_BITS into the link: the top bit is lost.  A huge
        # zspage has no room for a link: a reader finds the object's data there.
        zspage.link[index] = UNKNOWN_LINK if zspage.cls.geometry.huge else zspage.freeobj & FREELIST_MASK
        zspage.freeobj = index
        zspage.objects[index] = None
        zspage.inuse -= 1

    def fix_fullness_group(self, cls: SizeClass, zspage: Zspage) -> Steps[int]:
        """fix_fullness_group(): move the zspage to the head of its new group's list, if the group changed."""
        yield ("fix_fullness_group", cls, zspage)
        group = cls.get_fullness_group(zspage)
        if group != zspage.group:
            cls.remove_zspage(zspage)
            cls.insert_zspage(zspage, group)
        yield ("fix_fullness_group_ret", group)
        return group

    def zs_free(self, obj: ZsObject) -> Steps[None]:
        """zs_free(): give an object back; an empty zspage is freed if all its pages can be locked."""
        yield ("zs_free", obj)
        # Until the class lock is taken, compaction may move the object.
        yield ("?class_lock", obj)
        cls = obj.zspage.cls
        zspage = obj.zspage
        cls.objs_inuse -= 1
        yield from self.obj_free(obj)
        group = yield from self.fix_fullness_group(cls, zspage)
        if group == RATIO_0:
            yield from self.free_zspage(cls, zspage)
            cls.count_dry()
        cls.unlocked()

    def free_zspage(self, cls: SizeClass, zspage: Zspage) -> Steps[None]:
        """free_zspage(): return an empty zspage's pages, or leave it listed for the deferred free.

        7.3 does the same in several steps of zs_free() and subtracts the pages after the class lock is dropped.
        """
        locked: bool = yield ("?trylock_zspage", zspage)
        if not locked:
            self.reached["zs_free.deferred"] += 1
            return
        self.reached["zs_free.zspage"] += 1
        yield ("__free_zspage", cls, zspage)
        cls.remove_zspage(zspage)
        self._drop(cls)

    def _drop(self, cls: SizeClass) -> None:
        cls.zspages -= 1
        cls.objs_allocated -= cls.geometry.objs_per_zspage
        self._add_pages(-cls.geometry.pages_per_zspage)

    def _add_pages(self, pages: int) -> None:
        if self.observer is not None:
            self.observer()
        self.pages_allocated += pages

    def async_free_zspage(self) -> Steps[None]:
        """async_free_zspage(): the worker frees the empty zspages whose pages could not be locked before."""
        yield ("async_free_zspage",)
        # All lists are spliced together before the first zspage is freed: from here on zs_malloc() finds none
        # of them.  Each class's list goes in front of the ones before it: the highest class is freed first.
        empty = [(cls, zspage) for cls in self.classes for zspage in reversed(cls.groups[RATIO_0])]
        if empty:
            self.reached["async_free_zspage.some"] += 1
        for cls, zspage in empty:
            cls.remove_zspage(zspage)
            cls.count_dry()
        for cls, zspage in empty:
            yield ("__free_zspage", cls, zspage)
            self._drop(cls)
            cls.unlocked()

    # ---- reading ----------------------------------------------------------------------------------------

    def locate(self, obj: ZsObject) -> tuple[int, int]:
        """obj_to_location(): (page of the zspage, byte offset in it) of the object's data."""
        geometry = obj.zspage.cls.geometry
        start = geometry.size * obj.index
        return start // PAGE_SIZE, start % PAGE_SIZE + (0 if geometry.huge else HANDLE_SIZE)

    def zs_obj_read_sg(self, obj: ZsObject, length: int) -> tuple[SgEntry, ...]:
        """zs_obj_read_sg_begin(): the one or two entries that cover ``length`` bytes of the object."""
        page, offset = self.locate(obj)
        if offset + length <= PAGE_SIZE:
            return (SgEntry(page, offset, length),)
        first = PAGE_SIZE - offset
        return (SgEntry(page, offset, first), SgEntry(page + 1, 0, length - first))

    def linear_copy(self, obj: ZsObject) -> int:
        """Bytes that zs_obj_read_begin() of 6.18 copies: the whole slot where it lies on two pages, else none.

        Where a slot ends on the next page its object may still end before: that reader knows no length.
        """
        size = obj.zspage.cls.geometry.size
        return size if size * obj.index % PAGE_SIZE + size > PAGE_SIZE else 0

    def zs_obj_read(self, obj: ZsObject, length: int) -> Steps[tuple[SgEntry, ...]]:
        """zs_obj_read_begin(), zs_obj_read_sg_begin() or zs_map_object(): read an object's ``length`` bytes.

        Returns where the bytes are.  From 7.0 on that is the shape of the read: a linear read would copy
        ``length`` bytes where there are two entries and hand out a pointer where there is one.  Up to 6.19 a
        read knows no length: it copies the whole slot whenever the slot lies on two pages, also where the
        object's own bytes would not.
        """
        shape = self.zs_obj_read_sg(obj, length)
        self.reached["zs_obj_read.one" if len(shape) == 1 else "zs_obj_read.two"] += 1
        yield ("zs_obj_read", obj, length, shape)
        return shape

    # ---- compaction -------------------------------------------------------------------------------------

    def zs_compact(self) -> Steps[int]:
        """zs_compact(): all classes from the largest down; returns the pages freed, 0 when one is under way.

        The flag that says so is set and cleared where no probe sees it, so the outside's answer takes precedence.
        """
        yield ("zs_compact", self)
        freed = 0
        refused: bool | None = yield ("?compacting", self)
        if not (self.compaction_in_progress if refused is None else refused):
            self.compactions += 1
            mine = self.compactions
            self.compaction_in_progress = True
            try:
                for cls in self.classes:
                    freed += yield from self.__zs_compact(cls)
            finally:
                # Another task may have set the flag before this one was seen to be done.
                if self.compactions == mine:
                    self.compaction_in_progress = False
        else:
            self.reached["zs_compact.busy"] += 1
        self.pages_compacted += freed
        yield ("zs_compact_ret", freed)
        return freed

    def zs_shrinker_scan(self) -> Steps[int]:
        """zs_shrinker_scan(): compact; SHRINK_STOP (-1) when nothing was freed."""
        yield ("zs_shrinker_scan",)
        freed = yield from self.zs_compact()
        if not freed:
            self.reached["zs_compact.none"] += 1
        result = freed if freed else -1
        yield ("zs_shrinker_scan_ret", result)
        return result

    def __zs_compact(self, cls: SizeClass) -> Steps[int]:
        """__zs_compact(): move objects from the emptiest to the fullest zspages of one class.

        The class lock is dropped whenever the target is full or another task waits for the pool's lock, and others may
        then allocate and free in the class.  The model puts the target back each time.  Where no task waited and the
        lock was kept, the target is still the first of the fullest and is taken again at once, with the group it had
        when it was first taken.  What compaction does once it has the lock again shows in its next event, or not at all
        when nothing is left to move.  What it found may have changed before that event.
        """
        yield ("__zs_compact", cls)
        freed = 0
        kept: tuple[Zspage, int] | None = None
        cls.watch()
        while not (yield ("?compact_end", cls, kept is None)) and cls.can_compact():
            dst = cls.first(ISOLATE_DST)
            if dst is None:
                break
            cls.remove_zspage(dst)
            put_back = -1
            if kept is not None and kept[0] is dst and kept[1] != dst.group:
                put_back, dst.group = dst.group, kept[1]
            src = cls.first(ISOLATE_SRC)
            if src is None:
                cls.insert_zspage(dst, cls.get_fullness_group(dst))
                break
            cls.remove_zspage(src)
            if self.compaction_trylocks and not (yield ("?zspage_write_trylock", src)):
                self.reached["zs_compact.in_use"] += 1
                for zspage in (src, dst):
                    cls.insert_zspage(zspage, cls.get_fullness_group(zspage))
                break
            yield from self._migrate_zspage(src, dst, put_back)
            group = cls.get_fullness_group(src)
            cls.insert_zspage(src, group)
            if group == RATIO_0:
                self.reached["zs_compact.emptied"] += 1
                yield from self.free_zspage(cls, src)
                freed += cls.geometry.pages_per_zspage
            group = cls.get_fullness_group(dst)
            kept = (dst, dst.group) if group != RATIO_100 else None
            if group == RATIO_100:
                self.reached["zs_compact.filled"] += 1
            cls.insert_zspage(dst, group)
            cls.count_dry()
            cls.watch()
        cls.unwatch()
        yield ("__zs_compact_ret", freed)
        return freed

    def _migrate_zspage(self, src: Zspage, dst: Zspage, put_back: int) -> Steps[None]:
        """migrate_zspage(): objects in address order until the source is empty or the target full.

        :param put_back: the group the target has if it was put back, -1 where it has that group in any case
        """
        objs = dst.cls.geometry.objs_per_zspage
        for index, obj in enumerate(src.objects):
            if obj is None:
                continue
            # The handle first points to the new place; then the old place is released.
            yield from self.obj_malloc(dst, obj, put_back)
            put_back = -1
            yield ("obj_free", obj, src, index)
            self._release(src, index)
            if dst.inuse == objs or src.inuse == 0:
                return
