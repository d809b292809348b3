# SPDX-License-Identifier: GPL-2.0-or-later
"""The event vocabulary: one wide table, one row per probe hit.

A recording's events are rows of fixed columns.  A column that an event does not have holds 0 (``content``
holds -1, ``text`` the empty string); which columns an event has is said by :data:`EVENTS`, and which of them
the recorded probes really captured by the manifest's ``probes``.  Zeros instead of nulls keep 64-bit
pointers exact for every reader: pandas turns a nullable integer column into floats.

Event names are kernel function names.  ``NAME`` is the function's entry and ``NAME_ret`` its return; where
kernels renamed a function the newest name stands for all of them (``swap_writeout`` was ``swap_writepage``
up to 6.12, ``zs_obj_read`` stands for ``zs_map_object``, ``zs_obj_read_begin`` and
``zs_obj_read_sg_begin``), and the manifest keeps the function that was really probed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

__all__ = [
    "ABSENT",
    "CODE",
    "COLUMNS",
    "END",
    "EVENTS",
    "FORMAT_VERSION",
    "NAMES",
    "NO_PROBE",
    "PAGE_BYTES",
    "PAGE_SIZE",
    "SWP_OFFSET_MASK",
    "SWP_TYPE_SHIFT",
    "Column",
    "EventKind",
    "arrow_schema",
    "column_names",
]

FORMAT_VERSION: Final = 1
PAGE_SIZE: Final = 4096
#: What a recorder calls the counter snapshot that it takes at the end of a run.
END: Final = "end"

#: swp_entry_t: the swap type sits above bit 58 on every 64-bit architecture (include/linux/swapops.h).
SWP_TYPE_SHIFT: Final = 58
SWP_OFFSET_MASK: Final = (1 << SWP_TYPE_SHIFT) - 1


@dataclass(frozen=True)
class Column:
    """One column of the event table: ``name``, numpy ``dtype``, ``unit`` and a one-line meaning."""

    name: str
    dtype: str
    unit: str
    doc: str


COLUMNS: Final[tuple[Column, ...]] = (
    Column("ts", "int64", "ns", "time stamp of the trace clock"),
    Column("cpu", "uint16", "number", "CPU the event was recorded on"),
    Column("pid", "int32", "id", "task (common_pid); 0 is a CPU's idle task"),
    Column("event", "uint8", "code", "what happened: see EVENTS; a dictionary column of names on disk"),
    Column("swpent", "uint64", "swp_entry_t", "swap entry: type << 58 | offset"),
    Column("folio", "uint64", "pointer", "struct page or folio"),
    Column("entry", "uint64", "pointer", "zswap_entry, or the list_head in it for list_lru events"),
    Column("handle", "uint64", "pointer", "zsmalloc handle; an ERR_PTR when zs_malloc failed"),
    Column("obj", "uint64", "word", "encoded object location behind the handle"),
    Column("zspage", "uint64", "pointer", "struct zspage"),
    Column("pool", "uint64", "pointer", "zs_pool, zswap_pool, size_class or list_lru: the container"),
    Column("memcg", "uint64", "pointer", "mem_cgroup or obj_cgroup"),
    Column("data", "uint64", "bytes",
           "first 8 bytes of the object written, little endian; a cgroup's id (its inode number)"),
    Column("ret", "int64", "value", "return value"),
    Column("size", "uint32", "bytes", "length of the object or of the source (slen)"),
    Column("dlen", "uint32", "bytes", "room at the destination on entry, length written on return"),
    Column("offset", "uint32", "bytes", "offset of the source in its folio's scatter list entry"),
    Column("gfp", "uint32", "flags", "allocation flags"),
    Column("word", "uint32", "bits", "first word of struct zspage (huge, fullness, class, magic) or folio flags"),
    Column("inuse", "uint32", "objects", "objects in use in the zspage"),
    Column("freeobj", "uint32", "index", "head of the zspage's free list"),
    Column("order", "uint8", "log2 pages", "folio order"),
    Column("ref", "uint8", "bool", "referenced bit of the entry"),
    Column("nid", "uint8", "node", "NUMA node"),
    Column("content", "int32", "index", "row of the page store that holds the source page; -1 unknown"),
    Column("text", "string", "text", "text of a marker, or what is written to a setting"),
)

ABSENT: Final = {"content": -1, "text": ""}


@dataclass(frozen=True)
class EventKind:
    """One event of the vocabulary: ``code`` on disk, ``name``, and the ``fields`` a full probe captures."""

    code: int
    name: str
    fields: tuple[str, ...]
    doc: str


def _kinds() -> tuple[EventKind, ...]:
    table: list[tuple[int, str, str, str]] = [
        (1, "marker", "text", "a line written to trace_marker"),
        (2, "lost_events", "ret", "the ring lost events here: ret = how many, -1 unknown"),
        (3, "counters", "ret text", "a counter snapshot was taken: ret = its number, text = its label"),
        (4, "param", "text", "a zswap module parameter was written: text = name=value"),
        (5, "param_attr_store", "text", "a module parameter is being written: text = zswap.name=value"),
        (6, "param_attr_store_ret", "ret", "it is, or was refused: ret = bytes, or errno"),
        (10, "swap_writeout", "folio swpent order", "the swap layer is asked to write a folio out"),
        (11, "swap_writeout_ret", "ret", ""),
        (12, "__swap_writepage", "folio swpent word", "a folio goes to the swap device: word = low half of its flags"),
        (20, "zswap_store", "folio swpent order", "store every page of a folio"),
        (21, "zswap_store_ret", "ret", "ret = 1 stored, 0 rejected"),
        (22, "zswap_load", "folio swpent", "load one page"),
        (23, "zswap_load_ret", "ret word", "errno, or bool up to 6.12; word = low half of the folio's flags"),
        (24, "zswap_invalidate", "swpent", "a swap slot was freed"),
        (25, "zswap_decompress", "entry swpent size handle folio", "an entry's data is read back"),
        (26, "zswap_entry_free", "entry swpent size handle ref", "an entry dies"),
        (27, "zswap_folio_swapin", "folio", "a swapped-in folio protects its LRU"),
        (28, "zswap_total_pages_ret", "ret", "pages of all pools"),
        (29, "zswap_pool_create", "", "a pool for a compressor is made"),
        (30, "zswap_pool_create_ret", "ret", "the pool, or an ERR_PTR"),
        (31, "zswap_writeback_entry", "entry swpent", "write one entry back (6.12)"),
        (32, "zswap_writeback_entry_ret", "ret", ""),
        (33, "shrink_memcg_cb", "entry", "the LRU walk looks at an entry: entry = its list_head"),
        (34, "shrink_memcg_cb_ret", "ret", "enum lru_status"),
        (35, "shrink_memcg", "memcg", "write back from one memcg"),
        (36, "shrink_memcg_ret", "ret", ""),
        (37, "shrink_worker", "", "the pool-limit worker runs"),
        (38, "shrink_worker_ret", "", ""),
        (39, "zswap_shrinker_scan", "size memcg nid", "the dynamic shrinker scans: size = nr_to_scan"),
        (40, "zswap_shrinker_scan_ret", "ret", ""),
        (50, "crypto_acomp_compress", "folio offset size dlen", "one compress call: size = slen"),
        (51, "crypto_acomp_compress_ret", "ret dlen", ""),
        (52, "crypto_acomp_decompress", "size dlen", "one decompress call: size = slen"),
        (53, "crypto_acomp_decompress_ret", "ret dlen", ""),
        (60, "obj_cgroup_may_zswap_ret", "ret memcg pool",
         "memory.zswap.max allows one more page: memcg = the obj_cgroup, pool = its mem_cgroup"),
        (61, "obj_cgroup_charge_zswap", "memcg size", ""),
        (62, "obj_cgroup_uncharge_zswap", "memcg size", ""),
        (63, "mem_cgroup_zswap_writeback_enabled_ret", "ret memcg", "memory.zswap.writeback allows it"),
        (64, "list_lru_add", "pool entry nid memcg", "any LRU of the system"),
        (65, "list_lru_add_ret", "ret", ""),
        (66, "list_lru_del", "pool entry nid memcg", "any LRU of the system"),
        (67, "memcg_reparent_list_lrus", "memcg pool", "a cgroup's LRUs go to its parent: pool = the parent"),
        (68, "zswap_shrinker_count", "memcg nid", "the dynamic shrinker asks how much there is"),
        (69, "zswap_shrinker_count_ret", "ret", ""),
        (70, "zswap_max_write", "data text", "memory.zswap.max is being written: data = the cgroup's id, text = what"),
        (71, "zswap_max_write_ret", "ret", "it is, or was refused: ret = bytes, or errno"),
        (72, "zswap_writeback_write", "data text",
         "memory.zswap.writeback is being written: data = the cgroup's id, text = what"),
        (73, "zswap_writeback_write_ret", "ret", "it is, or was refused: ret = bytes, or errno"),
        (74, "mem_cgroup_css_online", "memcg pool data",
         "a cgroup comes to be: pool = the parent's mem_cgroup, data = the cgroup's id"),
        (75, "mem_cgroup_css_offline", "memcg", "a cgroup goes away"),
        (76, "mem_cgroup_css_offline_ret", "memcg", "what it held is its parent's now"),
        (77, "mem_cgroup_css_reset", "memcg", "a cgroup lost its memory controller, and its settings"),
        (78, "zswap_current_read_ret", "memcg pool data ret",
         "memory.zswap.current was read: pool = the parent's mem_cgroup, data = the cgroup's id, ret = bytes"),
        (80, "zs_malloc", "pool size gfp", ""),
        (81, "zs_malloc_ret", "handle obj size", ""),
        (82, "zs_free", "pool handle obj", ""),
        (83, "zs_obj_write", "handle size data", ""),
        (84, "zs_obj_read", "handle size", "an object is read: through SG entries, linearly or mapped"),
        (85, "zs_get_total_pages_ret", "ret", "pages of one pool"),
        (86, "obj_malloc", "zspage handle", "an object is taken from a zspage"),
        (87, "obj_malloc_ret", "obj zspage handle word inuse freeobj", "the zspage after it"),
        (88, "obj_free", "size obj", "an object returns to its zspage: size = class size"),
        (89, "fix_fullness_group", "pool zspage word inuse", "pool = size_class"),
        (90, "fix_fullness_group_ret", "ret", "the fullness group"),
        (91, "__free_zspage", "pool zspage", "an empty zspage dies: pool = size_class"),
        (92, "async_free_zspage", "", "the deferred free worker runs"),
        (93, "zs_shrinker_scan", "pool", "the zsmalloc shrinker compacts"),
        (94, "zs_shrinker_scan_ret", "ret", "pages freed"),
        (95, "zs_compact", "pool", ""),
        (96, "zs_compact_ret", "ret", "pages freed"),
        (97, "__zs_compact", "pool", "one size class: pool = size_class"),
        (98, "__zs_compact_ret", "ret", "pages freed"),
        (99, "zs_page_migrate", "folio", "page migration moves a zspage's page"),
    ]
    return tuple(EventKind(code, name, tuple(fields.split()), doc) for code, name, fields, doc in table)


EVENTS: Final = _kinds()
#: name -> code
CODE: Final[dict[str, int]] = {kind.name: kind.code for kind in EVENTS}
#: code -> name; the gaps are named ``reserved_N`` so that the code is the dictionary index on disk
#: Rows that no probe makes, or that say something of the recorder alone.
NO_PROBE: Final = frozenset({"marker", "lost_events", "counters", "param"})
NAMES: Final[tuple[str, ...]] = tuple(
    sys.intern({kind.code: kind.name for kind in EVENTS}.get(code, f"reserved_{code}"))
    for code in range(max(kind.code for kind in EVENTS) + 1)
)


#: (event, column) that hold bytes of user memory: a page's own where it is kept as it is, and what a compressor made of
#: it begins with its first bytes too.  They are shown, exported and told to those who ask (``--data``), to nobody else.
PAGE_BYTES: Final = frozenset({("zs_obj_write", "data")})


def column_names() -> tuple[str, ...]:
    """Return the names of the event table's columns in order."""
    return tuple(column.name for column in COLUMNS)


def arrow_schema() -> pa.Schema:
    """Return the Arrow schema of an event segment; ``event`` is a dictionary of names."""
    fields = []
    for column in COLUMNS:
        if column.name in ("event", "text"):
            fields.append(pa.field(column.name, pa.dictionary(pa.int32(), pa.string()), nullable=False))
        else:
            fields.append(pa.field(column.name, pa.from_numpy_dtype(np.dtype(column.dtype)), nullable=False))
    return pa.schema(fields)
