# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of events: everything that is known of one, in one row.

All else is derived from it: the schema of a recording (:mod:`traces.schema`), the probes of the recorder
(:mod:`traces.record.probes`), which foreign probe is which event (:mod:`traces.importers.probemap`), what a replay
compares under which check, which handler an event has, and the codes of the compiled engine.  How to add an event is
in docs/hacking.md.

The recorder carries this module to the test box: Python 3.9, the standard library alone.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COLUMNS", "DRIVER_FUNCTIONS", "EFFECTS", "EVENTS", "PAGE_SIZE", "PROTOTYPES", "ROLES",
           "SOFTWARE_FUNCTIONS", "Column", "Compared", "Event", "Field", "with_role"]

#: Bytes of a page: the kernels that are recorded have pages of 4 KiB (:mod:`traces.machine` refuses others).
PAGE_SIZE = 4096


class Column(NamedTuple):
    """One column of the event table: ``name``, ``dtype`` of its array, ``unit`` and a one-line meaning."""

    name: str
    dtype: str
    unit: str
    doc: str


class Field(NamedTuple):
    """One field of an event.

    ``column``: the column that it fills, "" for a field that fills none; ``sources``: its name in the ring, the first
    being what zreplay's own probes call it; ``fetch``: what the recorder's probe fetches, "" where it has none.  Two
    fields of one column make its value together: ``order`` of two flag words, ``text`` of name and value.

    In ``fetch``, which is written as in ``dynamic_events``, ``$name`` is the function's parameter of that name and
    ``{struct.member}`` a byte offset, of the first that exists where several are named with ``|`` between them.  A
    fetch marked ``?`` is left out where the function has no such parameter; one marked ``!`` is user memory.
    """

    column: str
    sources: tuple[str, ...]
    fetch: str


class Compared(NamedTuple):
    """Some columns of an event that a replay compares with what is predicted for them, under ``check``.

    ``event``: its name; ``key``: the same, with a word behind a colon where an event has several; ``columns``: (column,
    what it holds in words) in the order in which the handler gives both sides; ``about``: of what the columns are, the
    end of a divergence's sentence; ``counts``: False for one that belongs to another comparison of the same event,
    which counts for both; ``predicted``: where the prediction stands in the effect, where comparing is all that the
    handler does: an item's number, and perhaps an attribute of it.  ``compiled``: False for one that the compiled
    engine does not make: it then leaves recordings that have those columns to the reference.
    """

    event: str
    key: str
    check: str
    columns: tuple[tuple[str, str], ...]
    about: str
    counts: bool
    predicted: str
    compiled: bool


class Event(NamedTuple):
    """One event.

    ``code``: its number on disk; ``name``: the kernel function's, with ``_ret`` for its return; where kernels renamed a
    function the newest name stands for all of them.  ``probe``: what zreplay calls it in tracefs; ``also``: other names
    for it there; ``functions``: kernel functions to hook, the first that exists; ``roles``: of :data:`ROLES`;
    ``checks``: checks of the replay that lose something without it; ``needed_by``: those of them that cannot be made
    at all; ``essential``: columns without which a row of it says nothing.
    """

    code: int
    name: str
    probe: str
    also: tuple[str, ...]
    functions: tuple[str, ...]
    fields: tuple[Field, ...]
    doc: str
    roles: frozenset[str]
    checks: tuple[str, ...]
    needed_by: tuple[str, ...]
    essential: tuple[str, ...]
    compared: tuple[Compared, ...]

    @property
    def at_return(self) -> bool:
        """True for a function's return."""
        return self.name.endswith("_ret")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a full probe fills, in order."""
        return tuple(dict.fromkeys(field.column for field in self.fields if field.column))


#: What an event can be to a replay, beyond an effect of the model.
ROLES = {
    "note": "a row that no probe makes, or that says something of the recorder alone",
    "setting": "says or shows a setting, or a cgroup's place",
    "start": "an operation begins",
    "anywhere": "an operation that reclaim starts wherever memory is allocated: a shrinker",
    "inlined": "some builds inline the function into the caller that the model goes through, though it can be probed",
    "outside": "does not belong to an operation",
    "reading": "a total was read, by any task",
    "observed": "no effect of the model, which the replay acts on",
    # Either the kernel still holds the size class lock, so that what follows happens before any other task's effect on
    # that class, or only the task's own state follows, or (zswap_invalidate) no other task can use the slot:
    # swap_range_free() runs under the cluster's lock (free_swap_slot() of 6.12 before the slot is free), and where
    # there is nothing to erase the task may show no further event until long after another task stored there.  After
    # all other effects the model is resumed when the same task is seen to do its next thing, so that what it looks up
    # then is what the kernel found then.  Effects that shared counters follow (list_lru_add_ret,
    # obj_cgroup_uncharge_zswap) belong to these others: a task that is preempted there has not counted.
    "eager": "the model continues at once to its next effect, or question",
}

COLUMNS: tuple[Column, ...] = (
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


def _fields(text: str) -> tuple[Field, ...]:
    """Return the fields that are written as ``column``, ``column<source``, ``column<source|other``, each ``=fetch``."""
    out = []
    for item in text.split():
        left, _, fetch = item.partition("=")
        column, _, sources = left.partition("<")
        out.append(Field(column, tuple((sources or column).split("|")), fetch))
    return tuple(out)


class _is(NamedTuple):
    """A comparison as a row of the table writes it: ``columns`` as ``column=words``, words left out where the same."""

    check: str
    columns: str
    about: str = ""
    key: str = ""
    counts: bool = True
    predicted: str = ""
    compiled: bool = True


def _event(code: int, name: str, probe: str, doc: str = "", *, fields: str = "", functions: str = "", roles: str = "",
           checks: str = "", essential: str = "", also: str = "", compared: tuple[_is, ...] = ()) -> Event:
    """Return one row.  ``checks`` has a ``!`` behind those that cannot be made without the event."""
    rows = []
    for each in compared:
        pairs = [item.partition("=")[::2] for item in each.columns.split(", ")]
        rows.append(Compared(name, name + (":" + each.key if each.key else ""), each.check,
                             tuple((column, words or column) for column, words in pairs), each.about, each.counts,
                             each.predicted, each.compiled))
    given = frozenset(roles.split())
    assert given <= ROLES.keys(), name
    hooked = functions or (name[:-4] if name.endswith("_ret") else name) if probe and "note" not in given else ""
    return Event(code, name, probe, tuple(also.split()), tuple(hooked.split()), _fields(fields), doc, given,
                 tuple(check.rstrip("!") for check in checks.split()),
                 tuple(check[:-1] for check in checks.split() if check.endswith("!")), tuple(essential.split()),
                 tuple(rows))


# Every field costs the workload the time to fetch it: each fills a column (except the list of list_lru_add_ret, which
# helps a reader of the ring), and none is wider than its column.  Of the flags before a store the importer needs
# PG_head, bit 6.
_SLOT = "folio=$folio:x64 swpent<swp=+{folio.swap}($folio):x64"
_FOLIO = _SLOT + " order<fl=+{folio.flags}($folio):x8 order<fl1=+{folio._flags_1}($folio):x8"
_FOLIO_OR_PAGE = _FOLIO.replace("$folio", "$folio|page").replace("folio=", "folio<folio|page=", 1)
_ENTRY = ("entry=$entry:x64 swpent<swp=+{zswap_entry.swpentry}($entry):x64 "
          "size<len=+{zswap_entry.length}($entry):u32 handle=+{zswap_entry.handle}($entry):x64")
_ZSPAGE = "word<zw0=+0($zspage):x32 inuse=+{zspage.inuse}($zspage):u32"
_SHRINK = "nid=+{shrink_control.nid}($sc):s32 memcg=+{shrink_control.memcg}($sc):x64"
_LRU = "pool<lru=$lru:x64 entry<item=$item:x64 nid=$nid:u32 memcg=$memcg:x64"
_DEST = "dlen=+{acomp_req.dlen}($req):u32"
# A cgroup is known by its id, which is the inode number of its directory.
_FILE = ("data<cgid=+{kernfs_node.id}(+{kernfs_node.__parent|kernfs_node.parent}(+{kernfs_open_file.kn}($of))):u64 "
         "text<val=+0($buf):string")
_CSS = ("memcg=$css:x64 pool<parent=+{cgroup_subsys_state.parent}($css):x64 "
        "data<cgid=+{kernfs_node.id}(+{cgroup.kn}(+{cgroup_subsys_state.cgroup}($css))):u64")
# The per-folio name of the function came with 6.18.
_OUT = "swap_writeout swap_writepage"
# zswap of 6.12 calls the compressor through an indirect call that the wrapper is inlined into: that of all software, or
# a driver's own (:data:`DRIVER_FUNCTIONS`).  v8 of zswap compression batching has one more, of a chain's head.
_COMPRESS = "crypto_acomp_compress iaa_compress_main iaa_comp_acompress fake_iaa_compress scomp_acomp_compress"
_DECOMPRESS = "crypto_acomp_decompress iaa_decompress_main iaa_comp_adecompress fake_iaa_decompress " \
    "scomp_acomp_decompress"

EVENTS: tuple[Event, ...] = (
    _event(1, "marker", "print", "a line written to trace_marker", fields="text<buf", roles="note",
           also="tracing_mark_write"),
    _event(2, "lost_events", "", "the ring lost events here: ret = how many, -1 unknown", fields="ret", roles="note"),
    _event(3, "counters", "", "a counter snapshot was taken: ret = its number, text = its label", fields="ret text",
           roles="note"),
    _event(4, "param", "", "a zswap module parameter was written: text = name=value", fields="text", roles="note"),
    _event(5, "param_attr_store", "param_set", "a module parameter is being written: text = zswap.name=value",
           fields="text<name=+0(+{kernel_param.name}(+{param_attribute.param}($mattr))):string "
                  "text<val=+0($buf):string",
           roles="setting"),
    _event(6, "param_attr_store_ret", "param_set_ret", "it is, or was refused: ret = bytes, or errno",
           fields="ret=$retval:s64", roles="setting"),
    _event(10, "swap_writeout", "swap_out", "the swap layer is asked to write a folio out", fields=_FOLIO_OR_PAGE,
           functions=_OUT, roles="start", checks="swap.writeout effect.order", essential="swpent order"),
    _event(11, "swap_writeout_ret", "swap_out_ret", fields="ret=$retval:s32", functions=_OUT, roles="eager",
           checks="swap.writeout!",
           compared=(_is("swap.writeout", "ret=return value", predicted="1"),)),
    _event(12, "__swap_writepage", "swapwrite", "a folio goes to the swap device: word = low half of its flags",
           fields=_SLOT + " word<fl=+{folio.flags}($folio):x32?", checks="swap.writeout writeback.folio!",
           compared=(_is("swap.writeout", "folio, swpent=swap entry", "written to the device"),
                     _is("writeback.folio", "word=PG_uptodate of the folio written back", key="word"))),
    _event(20, "zswap_store", "store", "store every page of a folio", fields=_FOLIO, roles="start",
           checks="effect.order store.result store.length acomp.calls",
           compared=(_is("swap.writeout", "folio, swpent=swap entry, order", "handed to zswap_store()",
                         counts=False),)),
    _event(21, "zswap_store_ret", "store_ret", "ret = 1 stored, 0 rejected", fields="ret=$retval:u8", roles="eager",
           checks="store.result!",
           compared=(_is("store.result", "ret=return value", predicted="1"),)),
    _event(22, "zswap_load", "load", "load one page", fields=_SLOT, roles="start",
           checks="load.result load.entry effect.order invariant.load!", essential="swpent"),
    _event(23, "zswap_load_ret", "load_ret", "errno, or bool up to 6.12; word = low half of the folio's flags",
           fields="ret=$retval:s32 word<fl=+{folio.flags}($folio):x32?", roles="eager",
           checks="load.result! load.folio!",
           compared=(_is("load.result", "ret=return value", predicted="1"),
                     _is("load.folio", "word=PG_uptodate and PG_dirty of the folio loaded", key="word"))),
    _event(24, "zswap_invalidate", "inval", "a swap slot was freed", fields="swpent<swp=$swp:x64",
           roles="start eager", checks="effect.order", essential="swpent"),
    _event(25, "zswap_decompress", "dec", "an entry's data is read back", fields=_ENTRY + " folio=$folio:x64",
           checks="load.entry!",
           compared=(_is("load.entry", "swpent=swap entry, handle, size=length", "of the entry read"),
                     _is("load.entry", "folio=folio the entry is decompressed into", key="folio", counts=False),
                     _is("load.entry", "entry=address of the entry", key="entry", counts=False))),
    _event(26, "zswap_entry_free", "efree", "an entry dies",
           fields=_ENTRY + " ref=+{zswap_entry.referenced}($entry):u8", roles="eager", checks="free.entry!",
           compared=(_is("free.entry", "swpent=swap entry, size=length, handle, ref=referenced", "of the entry freed"),
                     _is("free.entry", "entry=address of the entry", key="entry", counts=False))),
    _event(27, "zswap_folio_swapin", "swapin_ref", "a swapped-in folio protects its LRU", fields="folio=$folio:x64",
           roles="outside"),
    _event(28, "zswap_total_pages_ret", "total_pages", "pages of all pools", fields="ret=$retval:u64",
           roles="reading observed", essential="ret",
           compared=(_is("zsmalloc.pages", "ret=pages of all pools"),)),
    _event(29, "zswap_pool_create", "pool_create", "a pool for a compressor is made", roles="outside"),
    _event(30, "zswap_pool_create_ret", "pool_create_ret", "the pool, or an ERR_PTR", fields="ret=$retval:x64",
           roles="outside"),
    _event(31, "zswap_writeback_entry", "wb", "write one entry back (6.12)",
           fields="entry=$entry:x64 swpent<swp=+{zswap_entry.swpentry}($entry):x64",
           compared=(_is("lru.order", "swpent=swap entry written back", predicted="1.swpent"),)),
    _event(32, "zswap_writeback_entry_ret", "wb_ret", fields="ret=$retval:s32",
           compared=(_is("load.result", "ret=return value", predicted="1"),)),
    _event(33, "shrink_memcg_cb", "shrink_cb", "the LRU walk looks at an entry: entry = its list_head",
           fields="entry<item=$item:x64", checks="lru.order",
           compared=(_is("lru.order", "entry=entry the LRU walk looks at"),)),
    _event(34, "shrink_memcg_cb_ret", "shrink_cb_ret", "enum lru_status", fields="ret=$retval:s32",
           checks="lru.order",
           compared=(_is("lru.order", "ret=return value"),)),
    _event(35, "shrink_memcg", "shrink_memcg", "write back from one memcg", fields="memcg=$memcg:x64", roles="start",
           checks="lru.order effect.order shrink.worker!",
           compared=(_is("shrink.worker", "memcg=cgroup that shrink_worker() comes to next"),)),
    _event(36, "shrink_memcg_ret", "shrink_memcg_ret", fields="ret=$retval:s32", checks="lru.order",
           compared=(_is("lru.order", "ret=return value"),)),
    _event(37, "shrink_worker", "shrink_worker", "the pool-limit worker runs", roles="start",
           checks="effect.order shrink.worker!"),
    _event(38, "shrink_worker_ret", "shrink_worker_ret", checks="effect.order"),
    _event(39, "zswap_shrinker_scan", "shr_scan", "the dynamic shrinker scans: size = nr_to_scan",
           fields="size<nr=+{shrink_control.nr_to_scan}($sc):u64 " + _SHRINK, roles="start anywhere",
           checks="lru.order"),
    _event(40, "zswap_shrinker_scan_ret", "shr_scan_ret", fields="ret=$retval:u64", checks="lru.order",
           compared=(_is("lru.order", "ret=return value"),)),
    _event(50, "crypto_acomp_compress", "comp", "one compress call: size = slen",
           fields="folio<pglink=+{scatterlist.page_link}(+{acomp_req.src}($req)):x64 "
                  "offset<off=+{scatterlist.offset}(+{acomp_req.src}($req)):u32 "
                  "size<slen=+{acomp_req.slen}($req):u32 dlen<room=+{acomp_req.dlen}($req):u32",
           functions=_COMPRESS, checks="acomp.calls!",
           compared=(_is("acomp.calls", "folio=struct page, offset, size=slen, dlen", "of the compress call"),)),
    _event(51, "crypto_acomp_compress_ret", "comp_ret", fields="ret=$retval:s32 " + _DEST, functions=_COMPRESS,
           checks="store.length! store.error! acomp.batch!",
           compared=(_is("store.error", "ret=error", key="ret"),
                     _is("store.length", "dlen=length", key="dlen"),
                     _is("acomp.batch", "ret=return value", key="batch"),
                     _is("acomp.batch", "dlen", key="batch_dlen", counts=False))),
    _event(52, "crypto_acomp_decompress", "decomp", "one decompress call: size = slen",
           fields="size<slen=+{acomp_req.slen}($req):u32 " + _DEST, functions=_DECOMPRESS, checks="load.result",
           compared=(_is("load.result", "size=slen, dlen", "of the decompress call"),)),
    _event(53, "crypto_acomp_decompress_ret", "decomp_ret", fields="ret=$retval:s32 " + _DEST, functions=_DECOMPRESS,
           checks="load.result",
           compared=(_is("load.result", "ret=return value, dlen=bytes", "of the decompress call"),)),
    # What gives work queues to a driver, and takes them away, is not zswap's doing.
    _event(54, "iaa_crypto_probe", "iaa_probe", "iaa_crypto is given a work queue", fields="", roles="outside"),
    _event(55, "iaa_crypto_probe_ret", "iaa_probe_ret", "it has it, or does not take it: ret = errno",
           fields="ret=$retval:s32", roles="outside"),
    _event(56, "iaa_crypto_remove", "iaa_remove", "a work queue is taken away from iaa_crypto", fields="",
           roles="outside"),
    _event(57, "iaa_crypto_remove_ret", "iaa_remove_ret", "it no longer has it", fields="", roles="outside"),
    _event(58, "rebalance_wq_table", "iaa_rebal", "iaa_crypto shares its queues out among the CPUs again", fields="",
           roles="outside"),
    _event(59, "rebalance_wq_table_ret", "iaa_rebal_ret", "it has", fields="", roles="outside"),
    _event(60, "obj_cgroup_may_zswap_ret", "may_zswap",
           "memory.zswap.max allows one more page: memcg = the obj_cgroup, pool = its mem_cgroup",
           fields="ret=$retval:u8 memcg<objcg=$objcg:x64? pool<memcg=+{obj_cgroup.memcg}($objcg):x64?",
           checks="memcg.limit!", essential="ret",
           compared=(_is("memcg.limit", "ret=return value"),)),
    _event(61, "obj_cgroup_charge_zswap", "charge", fields="memcg<objcg=$objcg:x64 size=$size:u32",
           checks="memcg.charge!",
           compared=(_is("memcg.charge", "size=bytes charged"),
                     _is("memcg.charge", "memcg=obj_cgroup of one folio's pages", key="memcg", counts=False),
                     _is("store.length", "size=length of a page of a batch", key="length"))),
    _event(62, "obj_cgroup_uncharge_zswap", "uncharge", fields="memcg<objcg=$objcg:x64 size=$size:u32",
           checks="memcg.charge",
           compared=(_is("memcg.charge", "size=bytes, memcg=obj_cgroup", "uncharged"),)),
    _event(63, "mem_cgroup_zswap_writeback_enabled_ret", "wb_enabled", "memory.zswap.writeback allows it",
           fields="ret=$retval:u8 memcg=$memcg:x64?", checks="memcg.writeback! invariant.raw!", essential="ret",
           compared=(_is("memcg.writeback", "ret=return value"),)),
    _event(64, "list_lru_add", "lru_add", "any LRU of the system", fields=_LRU, checks="lru.order!", essential="pool",
           compared=(_is("lru.order", "memcg=mem_cgroup of an entry's LRU"),)),
    _event(65, "list_lru_add_ret", "lru_add_ret", fields="<lru=$lru:x64 ret=$retval:u8", checks="lru.order",
           compared=(_is("lru.order", "ret=list_lru_add() return value", predicted="1"),)),
    _event(66, "list_lru_del", "lru_del", "any LRU of the system", fields=_LRU, roles="eager", checks="lru.order",
           essential="pool",
           compared=(_is("lru.order", "entry=list_head, nid=node, memcg=cgroup", "taken off the LRU"),)),
    _event(67, "memcg_reparent_list_lrus", "lru_reparent", "a cgroup's LRUs go to its parent: pool = the parent",
           fields="memcg=$memcg:x64 pool<parent=$parent:x64", roles="observed",
           checks="lru.order shrink.worker!", essential="memcg pool"),
    _event(68, "zswap_shrinker_count", "shr_count", "the dynamic shrinker asks how much there is", fields=_SHRINK,
           roles="outside", checks="effect.order"),
    _event(69, "zswap_shrinker_count_ret", "shr_count_ret", fields="ret=$retval:u64", roles="outside"),
    _event(70, "zswap_max_write", "zmax_set", "memory.zswap.max is being written: data = the cgroup's id, text = what",
           fields=_FILE, roles="setting", checks="memcg.limit"),
    _event(71, "zswap_max_write_ret", "zmax_set_ret", "it is, or was refused: ret = bytes, or errno",
           fields="ret=$retval:s64", roles="setting", checks="memcg.limit"),
    _event(72, "zswap_writeback_write", "zwb_set",
           "memory.zswap.writeback is being written: data = the cgroup's id, text = what",
           fields=_FILE, roles="setting", checks="memcg.writeback"),
    _event(73, "zswap_writeback_write_ret", "zwb_set_ret", "it is, or was refused: ret = bytes, or errno",
           fields="ret=$retval:s64", roles="setting", checks="memcg.writeback"),
    _event(74, "mem_cgroup_css_online", "css_online",
           "a cgroup is created: pool = the parent's mem_cgroup, data = the cgroup's id",
           fields=_CSS, roles="setting", checks="memcg.limit memcg.writeback"),
    _event(75, "mem_cgroup_css_offline", "css_offline", "a cgroup goes away", fields="memcg=$css:x64",
           roles="setting", checks="memcg.limit"),
    _event(76, "mem_cgroup_css_offline_ret", "css_offline_ret", "what it held is its parent's now",
           fields="memcg=$css:x64", roles="setting", checks="memcg.limit"),
    _event(77, "mem_cgroup_css_reset", "css_reset", "a cgroup lost its memory controller, and its settings",
           fields="memcg=$css:x64", roles="setting", checks="memcg.limit memcg.writeback"),
    _event(78, "zswap_current_read_ret", "zcurrent",
           "memory.zswap.current was read: pool = the parent's mem_cgroup, data = the cgroup's id, ret = bytes",
           fields=_CSS + " ret<bytes=$retval:u64", roles="setting", checks="memcg.limit memcg.writeback"),
    _event(80, "zs_malloc", "zmalloc", fields="pool=$pool:x64 size=$size:u32 gfp=$gfp:x32", roles="eager",
           checks="zsmalloc.size! invariant.length!",
           compared=(_is("zsmalloc.size", "size=size asked of zs_malloc()", predicted="1"),
                     _is("store.length", "size=length of a page of a batch", key="length"),
                     _is("zsmalloc.place", "pool", key="pool", counts=False))),
    _event(81, "zs_malloc_ret", "zmalloc_ret", fields="handle=$retval:x64 obj=+0($retval):x64 size=$size:u32",
           roles="eager", checks="zsmalloc.handle zsmalloc.place invariant.handle!",
           compared=(_is("store.length", "size=length of a page of a batch", key="length"),
                     _is("zsmalloc.place", "handle, size", "of the new object"),
                     _is("zsmalloc.place", "handle=zs_malloc() error", key="error"),
                     _is("zsmalloc.place", "obj=place of the new object", key="obj", counts=False))),
    _event(82, "zs_free", "zfree", fields="pool=$pool:x64 handle=$handle:x64 obj=+0($handle):x64",
           checks="zsmalloc.handle! invariant.handle!",
           compared=(_is("zsmalloc.handle", "handle=handle freed"),
                     _is("zsmalloc.place", "obj=place of the object freed", key="obj", counts=False),
                     _is("zsmalloc.place", "pool", key="pool", counts=False))),
    _event(83, "zs_obj_write", "objwrite",
           fields="handle=$handle:x64 size<len=$mem_len:u32 data<d0=+0($handle_mem):x64!",
           checks="store.raw! store.bytes! invariant.raw!",
           compared=(_is("store.length", "size=length of a page of a batch", key="length"),
                     _is("store.bytes", "handle, size=length", "of the object written"),
                     _is("store.bytes", "data=first bytes of the object written", key="data", counts=False))),
    _event(84, "zs_obj_read", "objread", "an object is read: through SG entries, linearly or mapped",
           fields="handle=$handle:x64 size<len=$mem_len:u32?",
           functions="zs_obj_read_sg_begin zs_obj_read_begin zs_map_object", checks="sg.shape!",
           compared=(_is("sg.shape", "handle, size=length", "of the object read"),)),
    _event(85, "zs_get_total_pages_ret", "zs_total", "pages of one pool", fields="ret=$retval:u64",
           functions="zpool_get_total_pages zs_get_total_pages", roles="reading", checks="zsmalloc.pages!",
           essential="ret",
           compared=(_is("zsmalloc.pages", "ret=pages of the pool"),)),
    _event(86, "obj_malloc", "obj_malloc", "an object is taken from a zspage",
           fields="zspage=$zspage:x64 handle=$handle:x64", checks="zsmalloc.place!",
           compared=(_is("zsmalloc.place", "zspage"),
                     _is("zsmalloc.place", "handle=handle of the object that moves", key="handle", counts=False))),
    _event(87, "obj_malloc_ret", "obj_malloc_ret", "the zspage after it",
           fields="obj=$retval:x64 zspage=$zspage:x64 handle=$handle:x64 " + _ZSPAGE
                  + " freeobj=+{zspage.freeobj}($zspage):x32",
           roles="eager", checks="zsmalloc.place!",
           compared=(_is("zsmalloc.place", "zspage, obj=object index, word=class and fullness bits, "
                                           "inuse=objects in use, handle"),
                     _is("zsmalloc.place", "freeobj=next free object", key="freeobj", counts=False),
                     _is("zsmalloc.place", "obj=place of the object", key="obj", counts=False))),
    _event(88, "obj_free", "obj_free", "an object returns to its zspage: size = class size",
           fields="size<class_size=$class_size:u32 obj=$obj:x64", roles="eager", checks="zsmalloc.place",
           compared=(_is("zsmalloc.place", "size=class size of the object freed"),
                     _is("zsmalloc.place", "obj=place of the object freed", key="obj", counts=False))),
    _event(89, "fix_fullness_group", "fullness", "pool = size_class",
           fields="pool<class=$class:x64 zspage=$zspage:x64 " + _ZSPAGE, roles="eager", checks="zsmalloc.fullness",
           compared=(_is("zsmalloc.fullness", "zspage, inuse=objects in use, word=class and fullness bits, "
                                              "pool=size_class"),)),
    _event(90, "fix_fullness_group_ret", "fullness_ret", "the fullness group", fields="ret<fg=$retval:u32",
           roles="eager", checks="zsmalloc.fullness!",
           compared=(_is("zsmalloc.fullness", "ret=fullness group"),)),
    _event(91, "__free_zspage", "free_zspage", "an empty zspage dies: pool = size_class",
           fields="pool<class=$class:x64 zspage=$zspage:x64", roles="eager",
           compared=(_is("zsmalloc.place", "zspage, pool=size_class", "of the zspage freed"),)),
    _event(92, "async_free_zspage", "async_free", "the deferred free worker runs", roles="start",
           checks="zsmalloc.pages"),
    _event(93, "zs_shrinker_scan", "zs_shrink", "the zsmalloc shrinker compacts",
           fields="pool=+{shrinker.private_data}($shrinker):x64", roles="start anywhere", checks="zsmalloc.compact"),
    _event(94, "zs_shrinker_scan_ret", "zs_shrink_ret", "pages freed", fields="ret<freed=$retval:u64",
           checks="zsmalloc.compact!",
           compared=(_is("zsmalloc.compact", "ret=pages freed", predicted="1"),)),
    _event(95, "zs_compact", "zs_compact", fields="pool=$pool:x64", roles="start anywhere inlined",
           compared=(_is("zsmalloc.compact", "pool"),)),
    _event(96, "zs_compact_ret", "zs_compact_ret", "pages freed", fields="ret<freed=$retval:u64", roles="eager",
           compared=(_is("zsmalloc.compact", "ret=pages freed", predicted="1"),)),
    _event(97, "__zs_compact", "zsc", "one size class: pool = size_class", fields="pool<class=$class:x64",
           checks="zsmalloc.compact",
           compared=(_is("zsmalloc.compact", "pool=size_class that is compacted"),)),
    _event(98, "__zs_compact_ret", "zsc_ret", "pages freed", fields="ret<freed=$retval:u64",
           checks="zsmalloc.compact",
           compared=(_is("zsmalloc.compact", "ret=pages freed", predicted="1"),)),
    _event(99, "zs_page_migrate", "zs_migrate", "page migration moves a zspage's page", fields="folio<page=$page:x64",
           roles="outside", checks="zsmalloc.place"),
)


#: Events that are effects of the model, in the order of their codes.
EFFECTS: tuple[str, ...] = tuple(event.name for event in EVENTS
                                 if not event.roles & {"note", "setting", "outside", "observed"})


def with_role(role: str) -> frozenset[str]:
    """Return the names of the events that have a role."""
    return frozenset(event.name for event in EVENTS if role in event.roles)


#: Functions of one compressor's driver: hooked only where a compressor is in use whose name begins so.
DRIVER_FUNCTIONS: dict[str, str] = dict.fromkeys((
    "iaa_compress_main", "iaa_decompress_main", "iaa_comp_acompress", "iaa_comp_adecompress",
    "fake_iaa_compress", "fake_iaa_decompress", "iaa_crypto_probe", "iaa_crypto_remove", "rebalance_wq_table"),
    "deflate-iaa")

#: Functions that the crypto layer calls for software alone (CRYPTO_ALG_TYPE_SCOMPRESS).
SOFTWARE_FUNCTIONS: frozenset[str] = frozenset(("scomp_acomp_compress", "scomp_acomp_decompress"))

#: Parameters where the kernel has no BTF of a function: as in Linux 6.12 to 7.3, and 7.2 where these differ.
PROTOTYPES: dict[str, str] = {
    "swap_writeout": "folio swap_plug", "swap_writepage": "page wbc", "__swap_writepage": "folio swap_plug",
    "zswap_store": "folio", "zswap_load": "folio", "zswap_decompress": "entry folio", "zswap_invalidate": "swp",
    "zswap_entry_free": "entry", "zswap_writeback_entry": "entry swpentry", "zswap_folio_swapin": "folio",
    "crypto_acomp_compress": "req", "crypto_acomp_decompress": "req",
    "scomp_acomp_compress": "req", "scomp_acomp_decompress": "req",
    "iaa_comp_acompress": "req", "iaa_comp_adecompress": "req",
    "iaa_compress_main": "req", "iaa_decompress_main": "req",
    "fake_iaa_compress": "req", "fake_iaa_decompress": "req",
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
