# SPDX-License-Identifier: GPL-2.0-or-later
"""The probes a recording is made of: event names, the kernel functions they may hook, the fields they fetch.

Fields are written as in ``dynamic_events``, with two things left open that differ between kernels: ``$name`` is
the function's parameter of that name, ``{struct.member}`` a byte offset, of the first there is where several are named
with ``|`` between them.  :mod:`plan` fills them in.  A field
marked ``?`` is left out where the function has no such parameter; one marked ``!`` is content of user memory.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FLAG_BITS", "OFFSETS", "PAGE_SOURCES", "PROBES", "PROTOTYPES", "Probe"]


class Probe(NamedTuple):
    """One event of the recording.

    ``event``: its name in tracefs, a key of the importer's probe map; ``vocabulary``: its name in a recording;
    ``functions``: kernel functions to hook, the first that exists is taken; ``at_return``: hook the return;
    ``fields``: what to fetch; ``checks``: ids of the replay's checks that cannot be made without it.
    """

    event: str
    vocabulary: str
    functions: tuple[str, ...]
    at_return: bool
    fields: tuple[str, ...]
    checks: tuple[str, ...]


def _probe(event: str, vocabulary: str, functions: str, fields: str = "", checks: str = "") -> Probe:
    at_return = functions.endswith("%return")
    return Probe(event, vocabulary, tuple(functions.replace("%return", "").split()), at_return,
                 tuple(fields.split()), tuple(checks.split()))


# Every field costs the workload the time to fetch it: there is none that no column is made of, and none is wider than
# its column.  Of the flags before a store PG_head is wanted, bit 6.
_SLOT = "folio=$folio:x64 swp=+{folio.swap}($folio):x64"
_FOLIO = _SLOT + " fl=+{folio.flags}($folio):x8 fl1=+{folio._flags_1}($folio):x8"
_ENTRY = ("entry=$entry:x64 swp=+{zswap_entry.swpentry}($entry):x64 len=+{zswap_entry.length}($entry):u32 "
          "handle=+{zswap_entry.handle}($entry):x64")
_ZSPAGE = "zw0=+0($zspage):x32 inuse=+{zspage.inuse}($zspage):u32"
_SHRINK = "nid=+{shrink_control.nid}($sc):s32 memcg=+{shrink_control.memcg}($sc):x64"
#: A cgroup is known by its id, which is the inode number of its directory.
_FILE = ("cgid=+{kernfs_node.id}(+{kernfs_node.__parent|kernfs_node.parent}(+{kernfs_open_file.kn}($of))):u64 "
         "val=+0($buf):string")
_CSS = ("memcg=$css:x64 parent=+{cgroup_subsys_state.parent}($css):x64 "
        "cgid=+{kernfs_node.id}(+{cgroup.kn}(+{cgroup_subsys_state.cgroup}($css))):u64")
_DEST = "dlen=+{acomp_req.dlen}($req):u32"
# The per-folio name of the function came with 6.18.
_OUT = "swap_writeout swap_writepage"
# zswap of 6.12 calls the compressor through an indirect call that the wrapper is inlined into.
_COMPRESS, _DECOMPRESS = "crypto_acomp_compress scomp_acomp_compress", "crypto_acomp_decompress scomp_acomp_decompress"

PROBES: tuple[Probe, ...] = (
    _probe("swap_out", "swap_writeout", _OUT, _FOLIO.replace("$folio", "$folio|page"), "swap.writeout effect.order"),
    _probe("swap_out_ret", "swap_writeout_ret", _OUT + "%return", "ret=$retval:s32", "swap.writeout"),
    _probe("swapwrite", "__swap_writepage", "__swap_writepage",
           _SLOT + " fl=+{folio.flags}($folio):x32?", "swap.writeout writeback.folio"),
    _probe("store", "zswap_store", "zswap_store", _FOLIO, "effect.order store.result store.length acomp.calls"),
    _probe("store_ret", "zswap_store_ret", "zswap_store%return", "ret=$retval:u8", "store.result"),
    _probe("comp", "crypto_acomp_compress", _COMPRESS,
           "pglink=+{scatterlist.page_link}(+{acomp_req.src}($req)):x64 "
           "off=+{scatterlist.offset}(+{acomp_req.src}($req)):u32 slen=+{acomp_req.slen}($req):u32 "
           "room=+{acomp_req.dlen}($req):u32", "acomp.calls"),
    _probe("comp_ret", "crypto_acomp_compress_ret", _COMPRESS + "%return", "ret=$retval:s32 " + _DEST,
           "store.length store.error"),
    _probe("decomp", "crypto_acomp_decompress", _DECOMPRESS,
           "slen=+{acomp_req.slen}($req):u32 " + _DEST, "load.result"),
    _probe("decomp_ret", "crypto_acomp_decompress_ret", _DECOMPRESS + "%return", "ret=$retval:s32 " + _DEST,
           "load.result"),
    _probe("zmalloc", "zs_malloc", "zs_malloc", "pool=$pool:x64 size=$size:u32 gfp=$gfp:x32", "zsmalloc.size"),
    # The handle points at the object's encoded place, <PFN, index>.
    _probe("zmalloc_ret", "zs_malloc_ret", "zs_malloc%return",
           "handle=$retval:x64 obj=+0($retval):x64 size=$size:u32", "zsmalloc.handle zsmalloc.place"),
    _probe("zfree", "zs_free", "zs_free", "pool=$pool:x64 handle=$handle:x64 obj=+0($handle):x64", "zsmalloc.handle"),
    _probe("objwrite", "zs_obj_write", "zs_obj_write", "handle=$handle:x64 len=$mem_len:u32 d0=+0($handle_mem):x64!",
           "store.raw store.bytes"),
    _probe("objread", "zs_obj_read", "zs_obj_read_sg_begin zs_obj_read_begin zs_map_object",
           "handle=$handle:x64 len=$mem_len:u32?", "sg.shape"),
    _probe("load", "zswap_load", "zswap_load", _SLOT, "load.result load.entry effect.order"),
    _probe("load_ret", "zswap_load_ret", "zswap_load%return",
           "ret=$retval:s32 fl=+{folio.flags}($folio):x32?", "load.result load.folio"),
    _probe("dec", "zswap_decompress", "zswap_decompress", _ENTRY + " folio=$folio:x64", "load.entry"),
    _probe("inval", "zswap_invalidate", "zswap_invalidate", "swp=$swp:x64", "effect.order"),
    _probe("efree", "zswap_entry_free", "zswap_entry_free",
           _ENTRY + " ref=+{zswap_entry.referenced}($entry):u8", "free.entry"),
    _probe("wb", "zswap_writeback_entry", "zswap_writeback_entry",
           "entry=$entry:x64 swp=+{zswap_entry.swpentry}($entry):x64"),
    _probe("wb_ret", "zswap_writeback_entry_ret", "zswap_writeback_entry%return", "ret=$retval:s32"),
    _probe("shrink_cb", "shrink_memcg_cb", "shrink_memcg_cb", "item=$item:x64", "lru.order"),
    _probe("shrink_cb_ret", "shrink_memcg_cb_ret", "shrink_memcg_cb%return", "ret=$retval:s32", "lru.order"),
    _probe("shrink_worker", "shrink_worker", "shrink_worker", "", "effect.order"),
    _probe("shrink_worker_ret", "shrink_worker_ret", "shrink_worker%return", "", "effect.order"),
    _probe("shrink_memcg", "shrink_memcg", "shrink_memcg", "memcg=$memcg:x64", "lru.order effect.order"),
    _probe("shrink_memcg_ret", "shrink_memcg_ret", "shrink_memcg%return", "ret=$retval:s32", "lru.order"),
    _probe("shr_scan", "zswap_shrinker_scan", "zswap_shrinker_scan",
           "nr=+{shrink_control.nr_to_scan}($sc):u64 " + _SHRINK, "lru.order"),
    _probe("shr_scan_ret", "zswap_shrinker_scan_ret", "zswap_shrinker_scan%return", "ret=$retval:u64", "lru.order"),
    _probe("shr_count", "zswap_shrinker_count", "zswap_shrinker_count", _SHRINK, "effect.order"),
    _probe("shr_count_ret", "zswap_shrinker_count_ret", "zswap_shrinker_count%return", "ret=$retval:u64"),
    _probe("total_pages", "zswap_total_pages_ret", "zswap_total_pages%return", "ret=$retval:u64"),
    _probe("swapin_ref", "zswap_folio_swapin", "zswap_folio_swapin", "folio=$folio:x64"),
    # zpool (up to 6.17) stood between zswap and zsmalloc; where it is, zswap's readings go through it.
    _probe("zs_total", "zs_get_total_pages_ret", "zpool_get_total_pages zs_get_total_pages%return",
           "ret=$retval:u64", "zsmalloc.pages"),
    _probe("pool_create", "zswap_pool_create", "zswap_pool_create"),
    _probe("pool_create_ret", "zswap_pool_create_ret", "zswap_pool_create%return", "ret=$retval:x64"),
    _probe("may_zswap", "obj_cgroup_may_zswap_ret", "obj_cgroup_may_zswap%return",
           "ret=$retval:u8 objcg=$objcg:x64? memcg=+{obj_cgroup.memcg}($objcg):x64?", "memcg.limit"),
    _probe("charge", "obj_cgroup_charge_zswap", "obj_cgroup_charge_zswap", "objcg=$objcg:x64 size=$size:u32",
           "memcg.charge"),
    _probe("uncharge", "obj_cgroup_uncharge_zswap", "obj_cgroup_uncharge_zswap", "objcg=$objcg:x64 size=$size:u32",
           "memcg.charge"),
    _probe("wb_enabled", "mem_cgroup_zswap_writeback_enabled_ret", "mem_cgroup_zswap_writeback_enabled%return",
           "ret=$retval:u8 memcg=$memcg:x64?", "memcg.writeback"),
    _probe("obj_malloc", "obj_malloc", "obj_malloc", "zspage=$zspage:x64 handle=$handle:x64", "zsmalloc.place"),
    _probe("obj_malloc_ret", "obj_malloc_ret", "obj_malloc%return",
           f"obj=$retval:x64 zspage=$zspage:x64 handle=$handle:x64 {_ZSPAGE} "
           "freeobj=+{zspage.freeobj}($zspage):x32", "zsmalloc.place"),
    _probe("obj_free", "obj_free", "obj_free", "class_size=$class_size:u32 obj=$obj:x64", "zsmalloc.place"),
    _probe("fullness", "fix_fullness_group", "fix_fullness_group", "class=$class:x64 zspage=$zspage:x64 " + _ZSPAGE,
           "zsmalloc.fullness"),
    _probe("fullness_ret", "fix_fullness_group_ret", "fix_fullness_group%return", "fg=$retval:u32",
           "zsmalloc.fullness"),
    _probe("free_zspage", "__free_zspage", "__free_zspage", "class=$class:x64 zspage=$zspage:x64"),
    _probe("zs_shrink", "zs_shrinker_scan", "zs_shrinker_scan", "pool=+{shrinker.private_data}($shrinker):x64",
           "zsmalloc.compact"),
    _probe("zs_shrink_ret", "zs_shrinker_scan_ret", "zs_shrinker_scan%return", "freed=$retval:u64",
           "zsmalloc.compact"),
    _probe("zs_compact", "zs_compact", "zs_compact", "pool=$pool:x64"),
    _probe("zs_compact_ret", "zs_compact_ret", "zs_compact%return", "freed=$retval:u64"),
    _probe("zsc", "__zs_compact", "__zs_compact", "class=$class:x64", "zsmalloc.compact"),
    _probe("zsc_ret", "__zs_compact_ret", "__zs_compact%return", "freed=$retval:u64", "zsmalloc.compact"),
    _probe("zs_migrate", "zs_page_migrate", "zs_page_migrate",
           "page=$page:x64", "zsmalloc.place"),
    _probe("async_free", "async_free_zspage", "async_free_zspage", "", "zsmalloc.pages"),
    _probe("lru_add", "list_lru_add", "list_lru_add", "lru=$lru:x64 item=$item:x64 nid=$nid:u32 memcg=$memcg:x64",
           "lru.order"),
    _probe("lru_add_ret", "list_lru_add_ret", "list_lru_add%return", "lru=$lru:x64 ret=$retval:u8",
           "lru.order"),
    _probe("lru_del", "list_lru_del", "list_lru_del", "lru=$lru:x64 item=$item:x64 nid=$nid:u32 memcg=$memcg:x64",
           "lru.order"),
    _probe("lru_reparent", "memcg_reparent_list_lrus", "memcg_reparent_list_lrus",
           "memcg=$memcg:x64 parent=$parent:x64", "lru.order"),
    # Settings from outside.  A write holds from somewhere between its entry and its return on.
    _probe("param_set", "param_attr_store", "param_attr_store",
           "name=+0(+{kernel_param.name}(+{param_attribute.param}($mattr))):string val=+0($buf):string"),
    _probe("param_set_ret", "param_attr_store_ret", "param_attr_store%return", "ret=$retval:s64"),
    _probe("zmax_set", "zswap_max_write", "zswap_max_write", _FILE, "memcg.limit"),
    _probe("zmax_set_ret", "zswap_max_write_ret", "zswap_max_write%return", "ret=$retval:s64", "memcg.limit"),
    _probe("zwb_set", "zswap_writeback_write", "zswap_writeback_write", _FILE, "memcg.writeback"),
    _probe("zwb_set_ret", "zswap_writeback_write_ret", "zswap_writeback_write%return", "ret=$retval:s64",
           "memcg.writeback"),
    _probe("css_online", "mem_cgroup_css_online", "mem_cgroup_css_online", _CSS, "memcg.limit memcg.writeback"),
    _probe("css_offline", "mem_cgroup_css_offline", "mem_cgroup_css_offline", "memcg=$css:x64", "memcg.limit"),
    _probe("css_offline_ret", "mem_cgroup_css_offline_ret", "mem_cgroup_css_offline%return", "memcg=$css:x64",
           "memcg.limit"),
    _probe("css_reset", "mem_cgroup_css_reset", "mem_cgroup_css_reset", "memcg=$css:x64",
           "memcg.limit memcg.writeback"),
    # Whoever reads memory.zswap.current shows which mem_cgroup a cgroup is: the recorder reads all of them.
    _probe("zcurrent", "zswap_current_read_ret", "zswap_current_read%return", f"{_CSS} bytes=$retval:u64",
           "memcg.limit memcg.writeback"),
)

#: Parameters where the kernel has no BTF of a function: as in Linux 6.12 to 7.3, and 7.2 where these differ.
PROTOTYPES: dict[str, str] = {
    "swap_writeout": "folio swap_plug", "swap_writepage": "page wbc", "__swap_writepage": "folio swap_plug",
    "zswap_store": "folio", "zswap_load": "folio", "zswap_decompress": "entry folio", "zswap_invalidate": "swp",
    "zswap_entry_free": "entry", "zswap_writeback_entry": "entry swpentry", "zswap_folio_swapin": "folio",
    "crypto_acomp_compress": "req", "crypto_acomp_decompress": "req",
    "scomp_acomp_compress": "req", "scomp_acomp_decompress": "req",
    "zs_malloc": "pool size gfp nid", "zs_free": "pool handle", "zs_obj_write": "pool handle handle_mem mem_len",
    "zs_obj_read_sg_begin": "pool handle sg mem_len", "zs_obj_read_begin": "pool handle",
    "zs_map_object": "pool handle mm", "zs_get_total_pages": "pool", "zpool_get_total_pages": "zpool",
    "obj_malloc": "pool zspage handle", "obj_free": "class_size obj", "fix_fullness_group": "class zspage",
    "__free_zspage": "pool class zspage", "zs_shrinker_scan": "shrinker sc", "zs_compact": "pool",
    "__zs_compact": "pool class", "zs_page_migrate": "newpage page mode",
    "shrink_memcg_cb": "item l arg", "shrink_memcg": "memcg", "zswap_shrinker_scan": "shrinker sc",
    "zswap_shrinker_count": "shrinker sc", "obj_cgroup_may_zswap": "objcg",
    "obj_cgroup_charge_zswap": "objcg size", "obj_cgroup_uncharge_zswap": "objcg size",
    "mem_cgroup_zswap_writeback_enabled": "memcg", "list_lru_add": "lru item nid memcg",
    "list_lru_del": "lru item nid memcg", "memcg_reparent_list_lrus": "memcg parent",
    "param_attr_store": "mattr mk buf len", "zswap_max_write": "of buf nbytes off",
    "zswap_writeback_write": "of buf nbytes off", "mem_cgroup_css_online": "css", "mem_cgroup_css_offline": "css",
    "mem_cgroup_css_reset": "css", "zswap_current_read": "css cft",
}

#: Byte offsets where the kernel has no BTF: x86-64, Linux 6.12 to 7.3.  What is not here hangs on the configuration.
OFFSETS: dict[str, int] = {
    "folio.flags": 0, "folio.swap": 40, "folio._flags_1": 64, "zswap_entry.swpentry": 0, "zswap_entry.length": 8,
    "zswap_entry.referenced": 12, "zswap_entry.handle": 24, "acomp_req.src": 48, "acomp_req.slen": 64,
    "acomp_req.dlen": 68, "scatterlist.page_link": 0, "scatterlist.offset": 8, "zspage.inuse": 4,
    "zspage.freeobj": 8, "shrink_control.nid": 4, "shrink_control.nr_to_scan": 8, "shrink_control.memcg": 24,
    "shrinker.private_data": 88, "obj_cgroup.memcg": 16,
}

#: Bits of a folio's flags that are read, by their names in enum pageflags: the same from 6.12 to 7.3.
FLAG_BITS: dict[str, int] = {"PG_uptodate": 3, "PG_dirty": 4, "PG_head": 6, "PG_reclaim": 16}

#: Compressor -> the function of it whose argument is the source page's virtual address, and that argument.
#: These live in modules, whose parameters vmlinux BTF does not have; they are the same from 6.12 to 7.3.
PAGE_SOURCES: dict[str, tuple[str, str]] = {
    "lz4": ("lz4_scompress", "$arg2"),
    "lz4hc": ("lz4hc_scompress", "$arg2"),
    "lzo": ("lzo_scompress", "$arg2"),
    "lzo-rle": ("lzorle_scompress", "$arg2"),
    "zstd": ("zstd_compress_cctx", "$arg4"),
    "deflate": ("zlib_deflate", "+0($arg1)"),  # z_stream.next_in
    "842": ("sw842_compress", "$arg1"),
    "deflate-iaa": ("fake_iaa_compress_page", "$arg1"),  # the lab's module; the hardware's pages no function sees
}
