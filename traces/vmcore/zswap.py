# SPDX-License-Identifier: GPL-2.0-or-later
"""zswap in a core: pools, the entries of every swap file, the LRU lists, the counters.

Mirrors mm/zswap.c and mm/list_lru.c of Linux 6.12 to 7.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from traces.events import PAGE_SIZE
from traces.vmcore.btf import VmlinuxBtf
from traces.vmcore.memory import CoreMemory, MissingMemory, Problems, walk_list, walk_xarray

__all__ = ["COUNTERS", "OPTIONAL_SYMBOLS", "SYMBOLS", "EntryImage", "LruImage", "PoolImage", "read_counters",
           "read_entries", "read_lru", "read_one_pool", "read_pools"]

#: MAX_SWAPFILES_SHIFT, and where swp_entry() puts the type: above the 58 bits of the offset.
_MAX_SWAPFILES: Final = 32
_TYPE_SHIFT: Final = 58
#: SWAP_ADDRESS_SPACE_SHIFT, since 7.x ZSWAP_ADDRESS_SPACE_SHIFT: each tree has 64 MiB of swap.
_TREE_SHIFT: Final = 14
_MAX_NODES: Final = 1024
_MAX_POOLS: Final = 4096

#: zswap's counters, those of debugfs and zswap_stored_pages; a kernel that has one fewer has no such symbol.
COUNTERS: Final = ("zswap_stored_pages", "zswap_stored_incompressible_pages", "zswap_pool_limit_hit",
                   "zswap_written_back_pages", "zswap_reject_reclaim_fail", "zswap_reject_compress_fail",
                   "zswap_reject_compress_poor", "zswap_decompress_fail", "zswap_reject_alloc_fail",
                   "zswap_reject_kmemcache_fail")
#: Symbols that must be there, and those that help.
SYMBOLS: Final = ("zswap_trees", "nr_zswap_trees", "zswap_pools", "zswap_list_lru", "zswap_stored_pages")
OPTIONAL_SYMBOLS: Final = (*COUNTERS, "nr_swapfiles", "nr_node_ids", "vmemmap_base", "page_offset_base", "linux_banner",
                           "_stext", "__start_BTF", "__stop_BTF")


@dataclass(frozen=True)
class PoolImage:
    """struct zswap_pool: compressor and the zs_pool behind it; ``listed``: it is on ``zswap_pools``."""

    address: int
    compressor: str
    zs_pool: int
    listed: bool


@dataclass(frozen=True)
class EntryImage:
    """struct zswap_entry, found at ``offset`` (pages) of swap file ``type``; ``swpent`` is its own field.

    ``lru`` is the address of its LRU links.
    """

    address: int
    type: int
    offset: int
    swpent: int
    length: int
    referenced: bool
    pool: int
    handle: int
    objcg: int
    lru: int

    @property
    def slot(self) -> int:
        """swp_entry(type, offset): the swap slot it was found at."""
        return self.type << _TYPE_SHIFT | self.offset


@dataclass(frozen=True)
class LruImage:
    """One list of zswap_list_lru: ``memcg`` is the cgroup's number, -1 for the node's own list (root cgroup).

    ``count``: its nr_items; ``items``: addresses of the entries' links, head first; ``whole``: they could be followed
    from end to end.
    """

    node: int
    memcg: int
    count: int
    items: list[int]
    whole: bool = True


def read_counters(memory: CoreMemory, symbols: Mapping[str, int], problems: Problems) -> dict[str, int]:
    """Return zswap's counters, without the prefix ``zswap_``."""
    out = {}
    for name in COUNTERS:
        if name in symbols:
            try:
                out[name.removeprefix("zswap_")] = memory.u64(symbols[name])
            except MissingMemory as hole:
                problems.add("missing", name, str(hole))
    return out


def read_pools(memory: CoreMemory, btf: VmlinuxBtf, symbols: Mapping[str, int],
               problems: Problems) -> dict[int, PoolImage]:
    """Return the pools on the list ``zswap_pools``, the current one first."""
    link = btf.offset("zswap_pool", "list", size=16)
    pools: dict[int, PoolImage] = {}
    for node in walk_list(memory, symbols["zswap_pools"], problems, "zswap_pools"):
        try:
            pools[node - link] = read_one_pool(memory, btf, node - link, listed=True)
        except MissingMemory as hole:
            problems.add("missing", f"zswap_pool {node - link:#x}", str(hole))
        if len(pools) >= _MAX_POOLS:
            problems.add("broken", "zswap_pools", f"has more than {_MAX_POOLS} pools")
            break
    return pools


def read_one_pool(memory: CoreMemory, btf: VmlinuxBtf, address: int, *, listed: bool) -> PoolImage:
    """Read a pool; up to 6.17 struct zpool stands between it and its zs_pool.

    :raises MissingMemory: when it is not in the core
    """
    if btf.has("zswap_pool", "zs_pool"):
        zs_pool = memory.u64(address + btf.offset("zswap_pool", "zs_pool"))
    else:
        zpool = memory.u64(address + btf.offset("zswap_pool", "zpool"))
        zs_pool = memory.u64(zpool + btf.offset("zpool", "pool"))
    name = btf.member("zswap_pool", "tfm_name")
    return PoolImage(address, memory.text(address + name.offset, min(name.bits // 8, 128)), zs_pool, listed)


def read_entries(memory: CoreMemory, btf: VmlinuxBtf, symbols: Mapping[str, int],
                 problems: Problems) -> Iterator[EntryImage]:
    """Yield the entries of all swap files' trees, by swap file and offset."""
    tree_size = btf.size("xarray")
    files = _MAX_SWAPFILES
    if "nr_swapfiles" in symbols:
        try:
            files = min(files, memory.u32(symbols["nr_swapfiles"]))
        except MissingMemory as hole:
            problems.add("missing", "nr_swapfiles", str(hole))
    read_entry = _EntryReader(memory, btf)
    for kind in range(files):
        where = f"swap file {kind}"
        try:
            count = memory.u32(symbols["nr_zswap_trees"] + 4 * kind)
            trees = memory.u64(symbols["zswap_trees"] + 8 * kind)
        except MissingMemory as hole:
            problems.add("missing", where, str(hole))
            continue
        if not trees:
            if count:
                problems.add("broken", where, f"has {count} trees but no place for them")
            continue
        # The trees lie next to each other: there cannot be more of them than memory.
        if count * tree_size > memory.core.memory:
            problems.add("broken", where, f"has {count} trees, more than fit into memory")
            continue
        skip_to = 0
        for number in range(count):
            at, place = f"{where}, tree {number}", trees + number * tree_size
            if place < skip_to:
                continue
            if memory.try_read(place, tree_size) is None:
                # A page of empty trees is zeros, as one that is not there; the others are looked at all the same.
                blank = memory.is_blank(place)
                skip_to = (place | PAGE_SIZE - 1) + 1
                problems.add("zeros" if blank else "missing", at,
                             f"{place:#x} is in a page of zeros: its trees are empty or not in the core" if blank
                             else f"{place:#x} is not in the core")
                continue
            for offset, pointer in walk_xarray(memory, btf, trees + number * tree_size, problems, at):
                if offset >> _TREE_SHIFT != number:
                    problems.add("broken", at, f"holds offset {offset:#x}, which belongs into another tree")
                try:
                    yield read_entry(pointer, kind, offset)
                except MissingMemory as hole:
                    problems.add("missing", f"{at}, offset {offset:#x}", str(hole))


class _EntryReader:
    """Reads entries with offsets that are looked up once."""

    def __init__(self, memory: CoreMemory, btf: VmlinuxBtf) -> None:
        self._memory = memory
        self._size = btf.size("zswap_entry")
        self._at = [btf.offset("zswap_entry", *path)
                    for path in (("swpentry", "val"), ("pool",), ("handle",), ("objcg",))]
        self._length = btf.offset("zswap_entry", "length", size=4)
        self._referenced = btf.offset("zswap_entry", "referenced", size=1)
        self._lru = btf.offset("zswap_entry", "lru", size=16)

    def __call__(self, address: int, kind: int, offset: int) -> EntryImage:
        data = self._memory.read(address, self._size)
        swpent, pool, handle, objcg = (struct.unpack_from("<Q", data, at)[0] for at in self._at)
        length = struct.unpack_from("<I", data, self._length)[0]
        return EntryImage(address, kind, offset, swpent, length, bool(data[self._referenced]), pool, handle, objcg,
                          address + self._lru)


def read_lru(memory: CoreMemory, btf: VmlinuxBtf, symbols: Mapping[str, int], problems: Problems) -> list[LruImage]:
    """Return the lists of zswap_list_lru: each node's own, and those of the cgroups."""
    lru = symbols["zswap_list_lru"]
    nodes = 1
    lists: list[LruImage] = []
    one_size = btf.size("list_lru_one")
    links, count_at = btf.offset("list_lru_one", "list", size=16), btf.offset("list_lru_one", "nr_items")

    def take(address: int, node: int, memcg: int) -> None:
        where = f"zswap_list_lru, node {node}" + (f", memcg {memcg}" if memcg >= 0 else "")
        raw = memory.try_read(address, one_size)
        if raw is None:
            problems.add("missing", where, f"{address:#x} is not in the core")
            return
        count = struct.unpack_from("<q", raw, count_at)[0]
        missing = problems.missing
        items = list(walk_list(memory, address + links, problems, where))
        lists.append(LruImage(node, memcg, count, items, problems.missing == missing))

    try:
        if "nr_node_ids" in symbols:
            nodes = max(1, min(_MAX_NODES, memory.u32(symbols["nr_node_ids"])))
        base = memory.u64(lru + btf.offset("list_lru", "node"))
    except MissingMemory as hole:
        problems.add("missing", "zswap_list_lru", str(hole))
        return lists
    if not base:  # zswap_setup() did not get that far: the list does not exist
        return lists
    stride = btf.size("list_lru_node")
    own = btf.offset("list_lru_node", "lru", size=16)
    for node in range(nodes):
        take(base + node * stride + own, node, -1)
    if btf.has("list_lru", "xa"):
        first = btf.offset("list_lru_memcg", "node", size=0)
        tree = lru + btf.offset("list_lru", "xa", size=16)
        for memcg, pointer in walk_xarray(memory, btf, tree, problems, "zswap_list_lru, cgroups"):
            for node in range(nodes):
                take(pointer + first + node * one_size, node, memcg)
    return lists
