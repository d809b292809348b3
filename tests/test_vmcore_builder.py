# SPDX-License-Identifier: GPL-2.0-or-later
"""A tiny dead box: an ELF core with page tables, BTF, kallsyms and a zswap whose zsmalloc the model filled.

The structures are laid out by a BTF blob made here, with members in places of no real kernel, so that a reader
that relied on any fixed offset would fail.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from model.crypto import compressor_for
from model.effects import run
from model.page import PAGE_SIZE
from model.zsmalloc import ZsPool
from traces.errors import BadInput
from traces.vmcore.btf import VmlinuxBtf

DIRECT = 0xFFFF888000000000
VMEMMAP = 0xFFFFEA0000000000
KERNEL = 0xFFFFFFFF80000000
MEMORY = 1 << 20
U8, U32, U64, PTR = ("u8", 1), ("u32", 4), ("u64", 8), ("ptr", 8)

#: structure -> [(member, type, byte offset)]; a type is a scalar, (type, count) as an array, a structure's name,
#: or a bit field ("bits", offset in bits, width); the size of each is the end of its last member, to 8 bytes
COMMON: dict[str, list] = {
    "list_head": [("next", PTR, 0), ("prev", PTR, 8)],
    "swp_entry_t": [("val", U64, 0)],
    "xarray": [("xa_lock", U32, 0), ("xa_flags", U32, 4), ("xa_head", PTR, 8)],
    "xa_node": [("shift", U8, 0), ("offset", U8, 1), ("slots", (PTR, 64), 16)],
    "zswap_entry": [("length", U32, 0), ("swpentry", "swp_entry_t", 8), ("referenced", U8, 16), ("pool", PTR, 24),
                    ("lru", "list_head", 32), ("handle", U64, 48), ("objcg", PTR, 56)],
    "size_class": [("index", U32, 0), ("size", U32, 4), ("objs_per_zspage", U32, 8), ("pages_per_zspage", U32, 12),
                   ("stats", (U64, 14), 16), ("fullness_list", ("list_head", 12), 128)],
    "list_lru_one": [("nr_items", U64, 0), ("list", "list_head", 8)],
    "list_lru_memcg": [("rcu", (U64, 2), 0), ("node", ("list_lru_one", 0), 16)],
    "list_lru_node": [("nr_items", U64, 0), ("lru", "list_lru_one", 16)],
    "list_lru": [("xa", "xarray", 0), ("node", PTR, 16)],
}
NEW: dict[str, list] = {  # 6.18 and later
    "zs_pool": [("pages_allocated", U64, 0), ("name", PTR, 8), ("size_class", (PTR, 255), 16)],
    "zpdesc": [("flags", U64, 0), ("next", PTR, 8), ("zspage", PTR, 16), ("first_obj_offset", U32, 24)],
    "page": [("flags", U64, 0), ("rest", (U64, 7), 8)],
    "zspage": [("magic", ("bits", 0, 8), 0), ("huge", ("bits", 8, 1), 0), ("fullness", ("bits", 9, 4), 0),
               ("class", ("bits", 13, 9), 0), ("freeobj", U32, 4), ("inuse", U32, 8), ("first_zpdesc", PTR, 16),
               ("pool", PTR, 24), ("list", "list_head", 32)],
    "zswap_pool": [("tfm_name", (U8, 128), 0), ("list", "list_head", 128), ("zs_pool", PTR, 144)],
}
OLD: dict[str, list] = {  # 6.12: struct page, and struct zpool in between
    "zs_pool": NEW["zs_pool"],
    "page": [("flags", U64, 0), ("index", PTR, 24), ("private", PTR, 32), ("page_type", U32, 48), ("rest", U64, 56)],
    "zspage": [*NEW["zspage"][:6], ("first_page", PTR, 16), *NEW["zspage"][7:]],
    "zpool": [("driver", PTR, 0), ("pool", PTR, 8)],
    "zswap_pool": [("tfm_name", (U8, 128), 0), ("list", "list_head", 128), ("zpool", PTR, 144)],
}


class Layout:
    """Sizes and offsets of the explicit layout, and the same as a BTF blob."""

    def __init__(self, structs: dict[str, list]) -> None:
        self.structs = structs

    def size_of(self, kind: object) -> int:
        if isinstance(kind, str):
            return max((at + self.size_of(inner) for _, inner, at in self.structs[kind]), default=0) + 7 & ~7
        first, second = kind[0], kind[1]
        if first == "bits":
            return 4
        return second if isinstance(first, str) and first in ("u8", "u32", "u64", "ptr") else \
            self.size_of(first) * second

    def at(self, name: str, member: str) -> int:
        return next(at for found, _, at in self.structs[name] if found == member)

    def btf(self) -> bytes:
        strings, types = bytearray(b"\0"), bytearray()
        numbers: dict[object, int] = {}

        def text(word: str) -> int:
            strings.extend(word.encode() + b"\0")
            return len(strings) - len(word) - 1

        def add(key: object, name: str, kind: int, vlen: int, size: int, tail: bytes = b"", flag: int = 0) -> int:
            types.extend(struct.pack("<III", text(name) if name else 0, flag << 31 | kind << 24 | vlen, size) + tail)
            numbers[key] = len(numbers) + 1
            return numbers[key]

        for word, size in (U8, U32, U64):
            add((word, size), word, 1, 0, size, struct.pack("<I", size * 8))
        add(PTR, "", 2, 0, 0)

        def number(kind: object) -> int:
            if kind in numbers:
                return numbers[kind]
            if isinstance(kind, str):
                rows = self.structs[kind]
                inner = [number(U32 if k[0] == "bits" else k) for _, k, _ in rows]
                flag = any(k[0] == "bits" for _, k, _ in rows)
                tail = b""
                for (name, k, at), type_number in zip(rows, inner, strict=True):
                    place = k[2] << 24 | at * 8 + k[1] if k[0] == "bits" else at * 8
                    tail += struct.pack("<III", text(name), type_number, place)
                return add(kind, kind, 4, len(rows), self.size_of(kind), tail, flag)
            element = number(kind[0])
            return add(kind, "", 3, 0, 0, struct.pack("<III", element, numbers[U32], kind[1]))

        for name in self.structs:
            number(name)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
        return head + bytes(types) + bytes(strings)


@dataclass
class Stored:
    """A stored page: its slot, its bytes, the bytes stored for it, and the addresses of its structures."""

    type: int
    offset: int
    page: bytes
    data: bytes
    handle: int = 0
    entry: int = 0


@dataclass
class Box:
    """The dead box under construction; ``symbols`` are virtual addresses, ``at`` places of structures by name."""

    old: bool = False
    seed: int = 1
    pages: int = 24
    ram: bytearray = field(default_factory=lambda: bytearray(MEMORY))
    symbols: dict[str, int] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)
    stored: list[Stored] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layout = Layout(COMMON | (OLD if self.old else NEW))
        self.blob = self.layout.btf()
        self._next = 0x10000
        self._tables()
        self._zswap()

    # ---- memory -----------------------------------------------------------------------------------------
    def alloc(self, size: int, align: int = 8) -> int:
        """Take physical memory; returns its address in the direct map."""
        start = self._next + align - 1 & -align
        self._next = start + size
        assert self._next <= MEMORY
        return DIRECT + start

    def page(self) -> int:
        return self.alloc(PAGE_SIZE, PAGE_SIZE) - DIRECT

    def put(self, address: int, data: bytes) -> None:
        """Write at a direct-map or kernel-image address."""
        at = address - (KERNEL if address >= KERNEL else DIRECT)
        self.ram[at:at + len(data)] = data

    def u64(self, address: int, value: int) -> None:
        self.put(address, struct.pack("<Q", value & (1 << 64) - 1))

    def get(self, address: int) -> int:
        at = address - (KERNEL if address >= KERNEL else DIRECT)
        return struct.unpack_from("<Q", self.ram, at)[0]

    def set(self, base: int, name: str, member: str, value: int, size: int = 8) -> None:
        self.put(base + self.layout.at(name, member), (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def ring(self, head: int, links: list[int]) -> None:
        """Make a struct list_head list."""
        around = [head, *links]
        for here, following in zip(around, [*links, head], strict=True):
            self.u64(here, following)
            self.u64(following + 8, here)

    def struct_page(self, frame: int) -> int:
        return VMEMMAP + frame * self.layout.size_of("page")

    def descriptor(self, frame: int) -> int:
        """A struct page's place as seen through the direct map."""
        return DIRECT + self.vmemmap + frame * self.layout.size_of("page")

    def _tables(self) -> None:
        """4-level page tables: large pages for the direct map and the kernel image, small ones for vmemmap."""
        self.root = self.page()
        for base, frames in ((DIRECT, None), (KERNEL, None), (VMEMMAP, -(-MEMORY // PAGE_SIZE * 64 // PAGE_SIZE))):
            levels = [self.root, self.page(), self.page()]
            index = [base >> shift & 511 for shift in (39, 30, 21)]
            for level, table, slot in zip((1, 2), levels, index, strict=False):
                self.u64(DIRECT + table + 8 * slot, levels[level] | 3)
            if frames is None:
                self.u64(DIRECT + levels[2] + 8 * index[2], 0x83)
                continue
            last = self.page()
            self.u64(DIRECT + levels[2] + 8 * index[2], last | 3)
            self.vmemmap = self.alloc(frames * PAGE_SIZE, PAGE_SIZE) - DIRECT
            for number in range(frames):
                self.u64(DIRECT + last + 8 * number, self.vmemmap + number * PAGE_SIZE | 3)

    # ---- zswap ------------------------------------------------------------------------------------------
    def _zswap(self) -> None:
        rnd = random.Random(self.seed)
        compressor = compressor_for("zstd", "mainline-6.12" if self.old else "mainline-7.3")
        for number in range(self.pages):
            kind = rnd.random()
            page = rnd.randbytes(PAGE_SIZE) if kind < 0.2 else \
                (rnd.randbytes(rnd.randrange(8, 2500)) + bytes(PAGE_SIZE))[:PAGE_SIZE]
            data = compressor.compress(page).data
            if not data or len(data) >= PAGE_SIZE:
                if self.old:
                    continue
                data = page
            # Two swap files, and in the first one two trees.
            place = (1, number + 1) if number % 5 == 0 else (0, number * 37 % 150 + (1 << 14) * (number % 7 == 0))
            if place not in [(s.type, s.offset) for s in self.stored]:
                self.stored.append(Stored(*place, page, data))
        self._symbols()
        self._pool()
        self._entries()

    def _symbols(self) -> None:
        base = 0xF000
        for name, size in (("linux_banner", 64), ("_stext", 8), ("zswap_pools", 16), ("zswap_trees", 256),
                           ("nr_zswap_trees", 128), ("zswap_list_lru", 64), ("zswap_stored_pages", 8),
                           ("nr_swapfiles", 8), ("nr_node_ids", 8), ("vmemmap_base", 8),
                           *([] if self.old else [("zswap_stored_incompressible_pages", 8)])):
            self.symbols[name] = KERNEL + base
            base += size
        release = "6.12.107-test" if self.old else "7.3.0-test"
        self.put(self.symbols["linux_banner"], f"Linux version {release} (tests)\0".encode())
        self.u64(self.symbols["vmemmap_base"], VMEMMAP)
        self.u64(self.symbols["nr_swapfiles"], 2)
        self.u64(self.symbols["nr_node_ids"], 1)
        self.u64(self.symbols["zswap_stored_pages"], len(self.stored))
        if not self.old:
            self.u64(self.symbols["zswap_stored_incompressible_pages"], sum(len(s.data) == PAGE_SIZE
                                                                           for s in self.stored))

    def _pool(self) -> None:
        """Let the model place the objects, with holes of objects freed again; lay its state out."""
        size_of = self.layout.size_of
        model = ZsPool(8)
        answers = {"?trylock_zspage": True}
        rnd = random.Random(self.seed + 1)
        objects, dead = [], []
        for stored in self.stored:
            for size in rnd.sample([40, 200, len(stored.data), 1000], 2):
                dead.append(run(model.zs_malloc(size), lambda effect: answers.get(effect[0])))
            objects.append(run(model.zs_malloc(len(stored.data)), lambda effect: answers.get(effect[0])))
        for victim in dead[::2] + dead[1::2]:
            run(model.zs_free(victim), lambda effect: answers.get(effect[0]))
        pool = self.at["zs_pool"] = self.alloc(size_of("zs_pool"))
        name = self.alloc(16)
        self.put(name, b"zswap1\0")
        self.set(pool, "zs_pool", "name", name)
        self.set(pool, "zs_pool", "pages_allocated", model.pages_allocated)
        handles = {}
        for stored, obj in zip(self.stored, objects, strict=True):
            stored.handle = handles[obj] = self.alloc(8)
        classes = {}
        for raw, cls in enumerate(model.size_class):
            if cls not in classes:
                classes[cls] = self._class(cls, pool, handles)
            self.u64(pool + self.layout.at("zs_pool", "size_class") + 8 * raw, classes[cls])
        for stored, obj in zip(self.stored, objects, strict=True):
            self._write_object(stored, obj)

    def _class(self, cls, pool: int, handles: dict) -> int:
        at = self.alloc(self.layout.size_of("size_class"))
        geometry = cls.geometry
        for member, value in (("index", geometry.index), ("size", geometry.size),
                              ("objs_per_zspage", geometry.objs_per_zspage),
                              ("pages_per_zspage", geometry.pages_per_zspage)):
            self.set(at, "size_class", member, value, 4)
        stats = [len(group) for group in cls.groups] + [cls.objs_allocated, cls.objs_inuse]
        self.put(at + self.layout.at("size_class", "stats"), struct.pack("<14Q", *stats))
        for number, group in enumerate(cls.groups):
            head = at + self.layout.at("size_class", "fullness_list") + 16 * number
            zspages = [self._zspage(zspage, number, pool, handles) for zspage in reversed(group)]
            self.ring(head, [z + self.layout.at("zspage", "list") for z in zspages])
        return at

    def _zspage(self, zspage, group: int, pool: int, handles: dict) -> int:
        geometry = zspage.cls.geometry
        at = self.alloc(self.layout.size_of("zspage"))
        frames = [self.page() // PAGE_SIZE for _ in range(geometry.pages_per_zspage)]
        zspage.address, zspage.frames = at, frames
        self.put(at, struct.pack("<III", 0x58 | geometry.huge << 8 | group << 9 | geometry.index << 13,
                                 zspage.freeobj, zspage.inuse))
        first = "first_page" if self.old else "first_zpdesc"
        self.set(at, "zspage", first, self.struct_page(frames[0]))
        self.set(at, "zspage", "pool", pool)
        owner, link, back, offset = ("page", "index", "private", "page_type") if self.old else \
            ("zpdesc", "next", "zspage", "first_obj_offset")
        for number, frame in enumerate(frames):
            page = self.descriptor(frame)
            self.set(page, owner, back, at)
            self.set(page, owner, offset, 0xF5000000 | -number * PAGE_SIZE % geometry.size, 4)
            if geometry.huge:
                obj = zspage.objects[0]
                self.set(page, owner, link, handles[obj] | 1 if obj else 0)
            elif number + 1 < len(frames):
                self.set(page, owner, link, self.struct_page(frames[number + 1]))
        for index, obj in enumerate(zspage.objects):
            start = index * geometry.size
            place = DIRECT + frames[start // PAGE_SIZE] * PAGE_SIZE + start % PAGE_SIZE
            if not geometry.huge:
                self.u64(place, handles[obj] | 1 if obj else zspage.link[index] << 1)
            if obj:
                word = frames[start // PAGE_SIZE] << 24 | index
                self.u64(handles[obj], word if self.old else word | geometry.index << 15)
        return at

    def _write_object(self, stored: Stored, obj) -> None:
        geometry = obj.zspage.cls.geometry
        at = obj.index * geometry.size + (0 if geometry.huge else 8)
        for byte in range(0, len(stored.data), 8):
            place = DIRECT + obj.zspage.frames[(at + byte) // PAGE_SIZE] * PAGE_SIZE + (at + byte) % PAGE_SIZE
            self.put(place, stored.data[byte:byte + 8])

    def _entries(self) -> None:
        size_of, at_of = self.layout.size_of, self.layout.at
        pool = self.at["zswap_pool"] = self.alloc(size_of("zswap_pool"))
        self.put(pool, b"zstd\0")
        if self.old:
            zpool = self.alloc(16)
            self.u64(zpool + 8, self.at["zs_pool"])
            self.set(pool, "zswap_pool", "zpool", zpool)
        else:
            self.set(pool, "zswap_pool", "zs_pool", self.at["zs_pool"])
        self.ring(self.symbols["zswap_pools"], [pool + at_of("zswap_pool", "list")])
        trees: dict[tuple[int, int], dict[int, int]] = {}
        for stored in self.stored:
            entry = stored.entry = self.alloc(size_of("zswap_entry"))
            self.set(entry, "zswap_entry", "length", len(stored.data), 4)
            self.set(entry, "zswap_entry", "swpentry", stored.type << 58 | stored.offset)
            self.set(entry, "zswap_entry", "pool", pool)
            self.set(entry, "zswap_entry", "handle", stored.handle)
            trees.setdefault((stored.type, stored.offset >> 14), {})[stored.offset] = entry
        for kind, count in ((0, 2), (1, 1)):
            place = self.alloc(count * size_of("xarray"))
            self.u64(self.symbols["zswap_trees"] + 8 * kind, place)
            self.put(self.symbols["nr_zswap_trees"] + 4 * kind, struct.pack("<I", count))
            for number in range(count):
                self.xarray(place + number * size_of("xarray"), trees.get((kind, number), {}))
        links = [stored.entry + at_of("zswap_entry", "lru") for stored in self.stored]
        lru, node = self.symbols["zswap_list_lru"], self.alloc(size_of("list_lru_node"))
        memcg = self.alloc(16 + size_of("list_lru_one"))
        self.at["lru_node"], self.at["lru_memcg"] = node + 16, memcg + 16
        self.set(lru, "list_lru", "node", node)
        self.xarray(lru + at_of("list_lru", "xa"), {70: memcg})
        for one, some in ((node + 16, links[:5]), (memcg + 16, links[5:])):
            self.set(one, "list_lru_one", "nr_items", len(some))
            self.ring(one + at_of("list_lru_one", "list"), some)

    def xarray(self, at: int, items: dict[int, int]) -> None:
        """Fill a struct xarray."""
        shift = 0
        while items and max(items) >> shift + 6:
            shift += 6

        def node(base: int, shift: int) -> int:
            here = self.alloc(self.layout.size_of("xa_node"))
            self.put(here, bytes([shift]))
            for slot in range(64):
                low = base + (slot << shift)
                if shift == 0:
                    value = items.get(low, 0)
                else:
                    value = node(low, shift - 6) if any(low <= i < low + (1 << shift) for i in items) else 0
                self.u64(here + self.layout.at("xa_node", "slots") + 8 * slot, value)
            return here + 2

        if list(items) == [0]:
            head = items[0]
        else:
            head = node(0, shift) if items else 0
        self.set(at, "xarray", "xa_head", head)

    # ---- files ------------------------------------------------------------------------------------------
    def kallsyms(self) -> bytes:
        return "".join(f"{address:016x} D {name}\n" for name, address in self.symbols.items()).encode()

    def in_core_kallsyms(self, *, relative: bool) -> dict[str, int]:
        """Put kallsyms tables into memory (each character a token of its own); returns VMCOREINFO's symbols."""
        names = b""
        for name in self.symbols:
            names += bytes([len(name) + 1]) + b"D" + name.encode()
        at = {name: self.alloc(size) for name, size in (
            ("names", len(names)), ("num_syms", 8), ("token_table", 512), ("token_index", 512),
            ("offsets", 4 * len(self.symbols)), ("relative_base", 8))}
        # Tables are part of the kernel image, so that their offsets fit 32 bits.
        at = {name: place - DIRECT + KERNEL for name, place in at.items()}
        self.put(at["names"], names)
        self.u64(at["num_syms"], len(self.symbols))
        self.put(at["token_table"], b"".join(bytes([max(code, 1)]) + b"\0" for code in range(256)))
        self.put(at["token_index"], struct.pack("<256H", *range(0, 512, 2)))
        self.u64(at["relative_base"], KERNEL)
        for number, address in enumerate(self.symbols.values()):
            offset = KERNEL - 1 - address if relative else address - at["offsets"] - 4 * number
            self.put(at["offsets"] + 4 * number, struct.pack("<i", offset))
        if not relative:
            del at["relative_base"]
        return {f"kallsyms_{name}": place for name, place in at.items()}

    def core(self, *, info: bool = True, qemu: bool = True, more: dict[str, int] | None = None,
             size: int = 0) -> bytes:
        """Return the ELF core; ``size`` bytes of memory, all of it by default."""
        notes = b""
        if qemu:
            state = struct.pack("<II", 1, 440) + bytes(18 * 8 + 240) + struct.pack("<5Q", 0, 0, 0, self.root, 0) + bytes(8)
            notes += struct.pack("<III", 5, len(state), 0) + b"QEMU\0\0\0\0" + state
        if info:
            symbols = {"_stext": self.symbols["_stext"], "swapper_pg_dir": KERNEL + self.root} | (more or {})
            lines = ["OSRELEASE=" + ("6.12.107-test" if self.old else "7.3.0-test"), "NUMBER(phys_base)=0",
                     *(f"SYMBOL({name})={value:x}" for name, value in symbols.items())]
            text = "\n".join(lines).encode() + b"\n"
            notes += struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text + bytes(-len(text) % 4)
        size = size or self._next + PAGE_SIZE - 1 & -PAGE_SIZE
        header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)
        start = 64 + 3 * 56 + len(notes)
        half = size // 2 & -PAGE_SIZE
        table = struct.pack("<IIQQQQQQ", 4, 0, 64 + 3 * 56, 0, 0, len(notes), len(notes), 0)
        # The second stretch of memory comes first in the file.
        table += struct.pack("<IIQQQQQQ", 1, 0, start + size - half, DIRECT, 0, half, half, 0)
        table += struct.pack("<IIQQQQQQ", 1, 0, start, DIRECT + half, half, size - half, size - half, 0)
        return header + table + notes + bytes(self.ram[half:size]) + bytes(self.ram[:half])

    def write(self, folder: Path, core: bytes | None = None) -> dict[str, Path]:
        """Write core, BTF and kallsyms; returns read_core()'s arguments."""
        for name, data in (("core.elf", core if core is not None else self.core()), ("btf", self.blob),
                           ("kallsyms", self.kallsyms())):
            (folder / name).write_bytes(data)
        return {"path": folder / "core.elf", "btf": folder / "btf", "symbols": folder / "kallsyms"}


# ---- the layouts themselves ---------------------------------------------------------------------------------

@pytest.mark.parametrize("structs", [COMMON | NEW, COMMON | OLD], ids=["new", "old"])
def test_btf_gives_back_every_member(structs: dict[str, list]) -> None:
    layout = Layout(structs)
    btf = VmlinuxBtf(layout.btf())
    for name, rows in structs.items():
        assert btf.size(name) == layout.size_of(name)
        for member, kind, at in rows:
            found = btf.member(name, member)
            if kind[0] == "bits":
                assert (found.bit, found.bits) == (8 * at + kind[1], kind[2])
            else:
                assert (found.bit, found.bits) == (8 * at, 8 * layout.size_of(kind))
    assert btf.offset("zswap_entry", "swpentry", "val") == 8
    assert btf.offset("zspage", "first_zpdesc|first_page") == 16


def test_btf_anonymous_members_count_from_the_outer_start() -> None:
    strings = b"\0outer\0inner\0int\0"
    types = struct.pack("<IIII", 13, 1 << 24, 4, 32)                                # 1: int
    types += struct.pack("<III", 0, 5 << 24 | 1, 8) + struct.pack("<III", 7, 1, 32)   # 2: union { .. inner }
    types += struct.pack("<III", 0, 8 << 24, 2)                                       # 3: typedef of it
    types += struct.pack("<III", 1, 4 << 24 | 1, 24) + struct.pack("<III", 0, 3, 64)  # 4: struct outer
    btf = VmlinuxBtf(struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings)
    assert btf.offset("outer", "inner", size=4) == 12
    assert btf.has("outer", "inner")
    assert not btf.has("inner", "outer")


@pytest.mark.parametrize(("path", "what"), [
    (("nothing", "x"), "has no 'struct nothing'"), (("zspage", "x"), "has no member 'x'"),
    (("zspage", "huge"), "with 1 bits")])
def test_btf_says_what_is_missing(path: tuple[str, ...], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        VmlinuxBtf(Layout(COMMON | NEW).btf()).offset(*path)


@pytest.mark.parametrize(("blob", "what"), [
    (b"", "too short"), (b"\x9f\xeb\x02" + bytes(40), "not little-endian BTF"),
    (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 100, 100, 1), "cut off"),
    (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 4, 4, 4) + bytes(12), "ends within type 1"),
    (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1) + struct.pack("<III", 0, 31 << 24, 0) + b"\0",
     "unknown kind 31")])
def test_btf_damage_is_one_sentence(blob: bytes, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        VmlinuxBtf(blob)
