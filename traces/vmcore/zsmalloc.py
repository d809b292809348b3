# SPDX-License-Identifier: GPL-2.0-or-later
"""struct zs_pool in a core: classes, zspages in their fullness groups, pages, objects and freelists.

Mirrors mm/zsmalloc.c and mm/zpdesc.h of Linux 6.12 (struct page) and 6.18 to 7.3 (struct zpdesc).  Sizes are
bytes, indices count from 0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from traces.events import PAGE_SIZE
from traces.vmcore.btf import VmlinuxBtf
from traces.vmcore.memory import CoreMemory, MissingMemory, Problems, walk_list

__all__ = ["ZsClassImage", "ZsLayout", "ZsObjectImage", "ZsPoolImage", "ZspageImage", "read_pool"]

MAGIC: Final = 0x58
GROUPS: Final = 12
_MAX_CLASSES: Final = 1024
_MAX_CHAIN: Final = 16
#: No zspage has more objects: 16 pages of 32 bytes each.
_MAX_OBJECTS: Final = _MAX_CHAIN * PAGE_SIZE // 32
#: FIRST_OBJ_PAGE_TYPE_MASK: the upper byte of page_type says that the page is zsmalloc's.
_FIRST_OBJ: Final = 0xFFFFFF


@dataclass(frozen=True)
class ZsObjectImage:
    """An allocated object: its ``handle``, the object ``word`` at the handle, its ``index`` in its zspage."""

    handle: int
    word: int | None
    index: int
    zspage: ZspageImage = field(repr=False)

    @property
    def start(self) -> int:
        """Byte offset of its slot from the zspage's start."""
        return self.index * self.zspage.cls.size

    @property
    def place(self) -> tuple[int, int]:
        """(page of the zspage, byte offset) at which its data begins, behind the handle."""
        start = self.start
        return start // PAGE_SIZE, start % PAGE_SIZE + (0 if self.zspage.huge else 8)


@dataclass
class ZspageImage:
    """struct zspage.  ``group``: the list it is on; ``frames``: page frame numbers of its pages, in order;
    ``first_offsets``: where each page's first object begins; ``free``: indices in the order of its freelist;
    ``free_end``: the link of the last free one (None for a full or huge zspage); ``whole``: its pages and their
    descriptors are in the core."""

    address: int
    cls: ZsClassImage = field(repr=False)
    group: int
    huge: bool
    fullness: int
    class_index: int
    magic: int
    inuse: int
    freeobj: int
    frames: list[int] = field(default_factory=list)
    first_offsets: list[int] = field(default_factory=list)
    objects: list[ZsObjectImage] = field(default_factory=list, repr=False)
    free: list[int] = field(default_factory=list)
    free_end: int | None = None
    whole: bool = True


@dataclass
class ZsClassImage:
    """struct size_class; ``stats``: zspages per fullness group, then objects allocated, then in use; ``whole``: all of
    its lists and zspages are in the core."""

    address: int
    index: int
    size: int
    objs_per_zspage: int
    pages_per_zspage: int
    stats: tuple[int, ...]
    raw: list[int] = field(default_factory=list)  #: indices of pool->size_class[] that point here
    zspages: list[ZspageImage] = field(default_factory=list, repr=False)
    whole: bool = True


@dataclass
class ZsPoolImage:
    """struct zs_pool; ``handles`` finds an allocated object by its handle; ``whole``: all of it is in the core."""

    address: int
    name: str
    pages_allocated: int
    classes: list[ZsClassImage] = field(default_factory=list)
    handles: dict[int, ZsObjectImage] = field(default_factory=dict, repr=False)
    whole: bool = True

    @property
    def pages(self) -> int:
        """Pages that its zspages hold."""
        return sum(len(z.frames) for c in self.classes for z in c.zspages)


class ZsLayout:
    """Offsets of the structures, looked up once."""

    def __init__(self, btf: VmlinuxBtf, memory: CoreMemory, vmemmap: int) -> None:
        self.memory, self.vmemmap = memory, vmemmap
        self.page_size = btf.size("page")
        self.size_class = btf.member("zs_pool", "size_class")
        self.classes = min(self.size_class.bits // 64, _MAX_CLASSES)
        self.pool_name = btf.offset("zs_pool", "name")
        self.pages_allocated = btf.offset("zs_pool", "pages_allocated")
        self.lists = btf.offset("size_class", "fullness_list", size=16 * GROUPS)
        self.class_fields = [btf.offset("size_class", name, size=4)
                             for name in ("size", "objs_per_zspage", "pages_per_zspage", "index")]
        self.stats = btf.offset("size_class", "stats", size=8 * (GROUPS + 2))
        self.class_bytes = btf.size("size_class")
        self.zspage_bytes = btf.size("zspage")
        self.bits = [btf.member("zspage", name) for name in ("huge", "fullness", "class", "magic")]
        self.inuse, self.freeobj = (btf.offset("zspage", name, size=4) for name in ("inuse", "freeobj"))
        self.list = btf.offset("zspage", "list", size=16)
        self.pool = btf.offset("zspage", "pool")
        self.first = btf.offset("zspage", "first_zpdesc|first_page")
        # Up to 6.12 the descriptor is struct page itself.
        owner, following, link, offset = ("zpdesc", "next", "zspage", "first_obj_offset")
        if not btf.has("zpdesc", "zspage"):
            owner, following, link, offset = ("page", "index|__folio_index", "private", "page_type")
        self.next, self.zspage = btf.offset(owner, following), btf.offset(owner, link)
        self.offset = btf.offset(owner, offset, size=4)
        #: what is read of a page's descriptor
        self.descriptor = max(self.next, self.zspage, self.offset) + 8

    def frame_of(self, page: int) -> int:
        """page_to_pfn(): the frame number of a struct page, or -1 for an address that is none.

        :raises MissingMemory: when the core does not say where the array of struct page begins
        """
        if self.vmemmap < 0:
            raise MissingMemory(page)
        frame, rest = divmod(page - self.vmemmap, self.page_size)
        return frame if rest == 0 and 0 <= frame < 1 << 40 else -1


def read_pool(layout: ZsLayout, address: int, problems: Problems) -> ZsPoolImage:
    """Read a pool with everything in it.

    :raises MissingMemory: when the pool itself is not in the core; holes further in become problems
    """
    memory = layout.memory
    name = memory.try_read(address + layout.pool_name, 8)
    try:
        label = memory.text(int.from_bytes(name or b"", "little"), 64)
    except MissingMemory:
        label = "?"
    pool = ZsPoolImage(address, label, memory.u64(address + layout.pages_allocated))
    pointers = struct.unpack(f"<{layout.classes}Q",
                             memory.read(address + layout.size_class.offset, 8 * layout.classes))
    found: dict[int, ZsClassImage] = {}
    zspages: set[int] = set()
    began = problems.missing
    for raw, pointer in enumerate(pointers):
        if pointer in found:
            found[pointer].raw.append(raw)
            continue
        where = f"zs_pool {label}, size_class[{raw}]"
        try:
            cls = _read_class(layout, pointer)
        except MissingMemory as hole:
            problems.add("missing", where, str(hole))
            continue
        cls.raw.append(raw)
        found[pointer] = cls
        if not (32 <= cls.size <= PAGE_SIZE and cls.size % 8 == 0 and 0 < cls.pages_per_zspage <= _MAX_CHAIN
                and cls.objs_per_zspage == cls.pages_per_zspage * PAGE_SIZE // cls.size):
            problems.add("broken", where, f"objects of {cls.size} bytes, {cls.objs_per_zspage} to "
                                          f"{cls.pages_per_zspage} pages, are not a size class")
            continue
        missing = problems.missing
        for group in range(GROUPS):
            at = pointer + layout.lists + 16 * group
            for node in walk_list(memory, at, problems, f"{where}, fullness_list[{group}]"):
                start = node - layout.list
                if start in zspages:
                    problems.add("broken", where, f"zspage {start:#x} is on two lists")
                    continue
                zspages.add(start)
                zspage = _read_zspage(layout, pool, cls, start, group, problems)
                if zspage is not None:
                    cls.zspages.append(zspage)
        cls.whole = problems.missing == missing
    pool.whole = problems.missing == began
    pool.classes = sorted(found.values(), key=lambda c: c.raw[-1])
    return pool


def _read_class(layout: ZsLayout, address: int) -> ZsClassImage:
    data = layout.memory.read(address, layout.class_bytes)
    size, objs, pages, index = (struct.unpack_from("<I", data, at)[0] for at in layout.class_fields)
    return ZsClassImage(address, index, size, objs, pages, struct.unpack_from(f"<{GROUPS + 2}Q", data, layout.stats))


def _bits(data: bytes, bit: int, bits: int) -> int:
    return int.from_bytes(data, "little") >> bit & (1 << bits) - 1


def _read_zspage(layout: ZsLayout, pool: ZsPoolImage, cls: ZsClassImage, address: int, group: int,
                 problems: Problems) -> ZspageImage | None:
    where = f"zs_pool {pool.name}, class {cls.raw[-1]}, zspage {address:#x}"
    try:
        data = layout.memory.read(address, layout.zspage_bytes)
    except MissingMemory as hole:
        problems.add("missing", where, str(hole))
        return None
    huge, fullness, class_index, magic = (_bits(data, member.bit, member.bits) for member in layout.bits)
    inuse, freeobj = (struct.unpack_from("<I", data, at)[0] for at in (layout.inuse, layout.freeobj))
    zspage = ZspageImage(address, cls, group, bool(huge), fullness, class_index, magic, inuse, freeobj)
    if magic != MAGIC:
        problems.add("broken", where, f"its magic is {magic:#x}")
        return None
    if struct.unpack_from("<Q", data, layout.pool)[0] != pool.address:
        problems.add("broken", where, "belongs to another pool")
    try:
        content, handle = _read_pages(layout, zspage, struct.unpack_from("<Q", data, layout.first)[0], problems, where)
        _read_objects(layout, pool, zspage, content, handle, problems, where)
    except MissingMemory as hole:
        problems.add("missing", where, str(hole))
        zspage.whole = False
    return zspage


def _read_pages(layout: ZsLayout, zspage: ZspageImage, page: int, problems: Problems,
                where: str) -> tuple[bytes, int]:
    """Follow the chain of pages; returns their content one after the other, and a huge zspage's handle word."""
    content = b""
    for number in range(zspage.cls.pages_per_zspage):
        frame = layout.frame_of(page)
        if frame < 0 or frame in zspage.frames:
            problems.add("broken", where, f"page {number} of its chain is {page:#x}")
            break
        descriptor = layout.memory.read(page, layout.descriptor)
        following, owner = (struct.unpack_from("<Q", descriptor, at)[0] for at in (layout.next, layout.zspage))
        if owner != zspage.address:
            problems.add("broken", where, f"page {number} of its chain belongs to zspage {owner:#x}")
            break
        zspage.frames.append(frame)
        zspage.first_offsets.append(struct.unpack_from("<I", descriptor, layout.offset)[0] & _FIRST_OBJ)
        content += layout.memory.physical(frame * PAGE_SIZE, PAGE_SIZE)
        if zspage.huge:
            # The one object fills the page: its handle is in the word that links the pages of others.
            return content, following
        if number == zspage.cls.pages_per_zspage - 1 and following:
            problems.add("broken", where, f"its chain continues to {following:#x} after its last page")
        page = following
    return content, 0


def _read_objects(layout: ZsLayout, pool: ZsPoolImage, zspage: ZspageImage, content: bytes, handle: int,
                  problems: Problems, where: str) -> None:
    """Find the allocated objects by the tag in their first word, and follow the freelist through the others."""
    cls = zspage.cls
    count = min(cls.objs_per_zspage, _MAX_OBJECTS)
    if zspage.huge:
        if handle & 1:
            _add_object(layout, pool, zspage, 0, handle, problems, where)
        else:
            zspage.free = [0]
        return
    words = [int.from_bytes(content[at:at + 8], "little") for at in range(0, count * cls.size, cls.size)
             if at + 8 <= len(content)]
    for index, word in enumerate(words):
        if word & 1:
            _add_object(layout, pool, zspage, index, word, problems, where)
    index = zspage.freeobj
    seen: set[int] = set()
    for _ in range(count - min(zspage.inuse, count)):
        if index >= len(words) or index in seen or words[index] & 1:
            problems.add("broken", where, f"its freelist goes to {index:#x} after {len(seen)} free objects")
            return
        seen.add(index)
        zspage.free.append(index)
        index = zspage.free_end = words[index] >> 1 & 0xFFFFFFFF


def _add_object(layout: ZsLayout, pool: ZsPoolImage, zspage: ZspageImage, index: int, tagged: int,
                problems: Problems, where: str) -> None:
    handle = tagged & ~1
    raw = layout.memory.try_read(handle, 8)
    if raw is None:
        problems.add("missing", where, f"handle {handle:#x} of object {index} is not in the core")
    obj = ZsObjectImage(handle, int.from_bytes(raw, "little") if raw is not None else None, index, zspage)
    if handle in pool.handles:
        problems.add("broken", where, f"objects {index} and {pool.handles[handle].index} have one handle, {handle:#x}")
        return
    pool.handles[handle] = obj
    zspage.objects.append(obj)
