# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder's probe plan, from the functions, parameters and offsets of real kernels."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest

from traces import schema
from traces.importers.probemap import moves_for, probe_names
from traces.record import probes
from traces.record.btf import Btf
from traces.record.plan import Planned, ProbedKernel, describe, page_plan, plan, wanted_names

#: Parameters as /sys/kernel/btf/vmlinux of Debian's kernels has them, where all of 6.12 to 7.3 agree.
SAME = """zswap_store(folio) zswap_load(folio) zswap_decompress(entry,folio) zswap_invalidate(swp) zswap_entry_free(entry)
zswap_folio_swapin(folio) zswap_total_pages() shrink_worker(w) shrink_memcg(memcg) zswap_shrinker_scan(shrinker,sc)
zswap_shrinker_count(shrinker,sc) zs_free(pool,handle) zs_get_total_pages(pool) obj_malloc(pool,zspage,handle)
obj_free(class_size,obj) fix_fullness_group(class,zspage) zs_shrinker_scan(shrinker,sc) zs_compact(pool)
zs_page_migrate(newpage,page,mode) async_free_zspage(work) obj_cgroup_may_zswap(objcg)
obj_cgroup_charge_zswap(objcg,size) obj_cgroup_uncharge_zswap(objcg,size) mem_cgroup_zswap_writeback_enabled(memcg)
list_lru_add(lru,item,nid,memcg) list_lru_del(lru,item,nid,memcg) memcg_reparent_list_lrus(memcg,parent)
param_attr_store(mattr,mk,buf,len) zswap_max_write(of,buf,nbytes,off) zswap_writeback_write(of,buf,nbytes,off)
mem_cgroup_css_online(css) mem_cgroup_css_offline(css) mem_cgroup_css_reset(css) zswap_current_read(css,cft)
scomp_acomp_compress(req) scomp_acomp_decompress(req)"""
SINCE_6_18 = """crypto_acomp_compress(req) crypto_acomp_decompress(req) zs_malloc(pool,size,gfp,nid)
zs_obj_write(pool,handle,handle_mem,mem_len) shrink_memcg_cb(item,l,arg) zswap_pool_create(compressor)
__zs_compact(pool,class)"""
SINCE_7_0 = "zs_obj_read_begin(pool,handle,mem_len,local_copy) zs_obj_read_sg_begin(pool,handle,sg,mem_len)"
KERNELS = {
    "6.12": f"""{SAME} swap_writepage(page,wbc) __swap_writepage(folio,wbc) zs_malloc(pool,size,gfp)
        zs_map_object(pool,handle,mm) zpool_get_total_pages(zpool) shrink_memcg_cb(item,l,lock,arg)
        zswap_writeback_entry(entry,swpentry) zswap_pool_create(type,compressor) __free_zspage(pool,class,zspage)""",
    "6.18": f"""{SAME} {SINCE_6_18} swap_writeout(folio,swap_plug) __swap_writepage(folio,swap_plug)
        zs_obj_read_begin(pool,handle,local_copy) __free_zspage(pool,class,zspage)""",
    "7.2": f"""{SAME} {SINCE_6_18} {SINCE_7_0} swap_writeout(folio,swap_plug) __swap_writepage(folio,swap_plug)
        __free_zspage(pool,class,zspage)""",
    "7.3": f"{SAME} {SINCE_6_18} {SINCE_7_0} swap_writeout(ctx,folio) __swap_writepage(ctx,folio)",
}
#: Events for which each kernel has no function.
MISSING = {"6.12": {"objwrite", "zsc", "zsc_ret"}, "6.18": {"wb", "wb_ret"}, "7.2": {"wb", "wb_ret"},
           "7.3": {"wb", "wb_ret", "free_zspage"}}
#: Offsets that depend on the configuration, as in Debian's kernels.
CONFIGURED = {"kernel_param.name": 0, "param_attribute.param": 56, "kernfs_open_file.kn": 0, "kernfs_node.id": 96,
              "cgroup_subsys_state.cgroup": 0, "cgroup_subsys_state.parent": 192, "cgroup.kn": 264}
#: Fields that cannot be placed without BTF.
NO_BTF = {"param_set", "zmax_set", "zwb_set", "css_online", "zcurrent"}


def parse(text: str) -> dict[str, list[str]]:
    out = {}
    for item in text.split():
        name, _, rest = item.partition("(")
        out[name] = [part for part in rest.rstrip(")").split(",") if part]
    return out


class BtfBlob:
    """Writes BTF as include/uapi/linux/btf.h describes it."""

    def __init__(self) -> None:
        self.strings = bytearray(b"\0")
        self.types: list[bytes] = []

    def string(self, text: str) -> int:
        if not text:
            return 0
        at = self.strings.find(b"\0" + text.encode() + b"\0")
        if at >= 0:
            return at + 1
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(self, kind: int, name: str, size: int, vlen: int = 0, flag: int = 0, more: bytes = b"") -> int:
        self.types.append(struct.pack("<III", self.string(name), flag << 31 | kind << 24 | vlen, size) + more)
        return len(self.types)

    def function(self, name: str, parameters: list[str]) -> None:
        rows = b"".join(struct.pack("<II", self.string(p), 0) for p in parameters)
        self.add(12, name, self.add(13, "", 0, len(parameters), more=rows))

    def members(self, kind: int, name: str, rows: list[tuple[str, int, int]], flag: int = 0) -> int:
        return self.add(kind, name, 64, len(rows), flag, b"".join(
            struct.pack("<III", self.string(n), t, bits) for n, t, bits in rows))

    def blob(self) -> bytes:
        types = b"".join(self.types)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings))
        return head + types + bytes(self.strings)


def btf_of(functions: dict[str, list[str]], offsets: dict[str, int] | None = None) -> Btf:
    out = BtfBlob()
    # Kinds whose records have other lengths lie between those that are wanted.
    out.add(1, "int", 4, more=bytes(4))
    out.add(3, "", 0, more=bytes(12))
    out.add(6, "colour", 4, 2, more=bytes(16))
    out.add(15, ".data", 0, 1, more=bytes(12))
    for name, parameters in functions.items():
        out.function(name, parameters)
    structs: dict[str, dict[str, int]] = {}
    laid_out = {**probes.OFFSETS, **CONFIGURED, "kernfs_node.parent": 8}
    for path, at in (laid_out if offsets is None else offsets).items():
        structs.setdefault(path.split(".")[0], {})[path.split(".")[1]] = at
    for name, members in structs.items():
        # As in struct folio: members of an anonymous struct in an anonymous union.
        inner = out.members(4, "", [(member, 1, 8 * at) for member, at in members.items()])
        union = out.members(5, "", [("", inner, 0)])
        out.members(4, name, [("", union, 0)])
    wanted_functions, wanted_structs = wanted_names()
    return Btf(out.blob(), wanted_functions, wanted_structs | {"bits"})


def kernel(version: str, traceable: bool = True, btf: bool = True) -> ProbedKernel:
    functions = parse(KERNELS[version])
    return ProbedKernel(set(functions) if traceable else None, set(functions), btf_of(functions) if btf else None)


def rows(planned: list[Planned]) -> dict[str, Planned]:
    return {row.event: row for row in planned}


def test_events_are_those_that_an_import_knows() -> None:
    known = probe_names()
    for probe in probes.PROBES:
        assert known[probe.event] == probe.vocabulary
        assert probe.vocabulary in schema.CODE


@pytest.mark.parametrize("version", KERNELS)
def test_fields_fill_the_columns_of_the_vocabulary(version: str) -> None:
    optional = {"zs_obj_read": {"size"}}
    for row in plan(kernel(version), content=True):
        if not row.lines:
            continue
        fields = {word.split("=")[0] for word in row.lines[0].split()[2:]}
        filled = {move.column for move in moves_for(row.event, fields)}
        columns = set(next(kind.columns for kind in schema.EVENTS if kind.name == row.vocabulary))
        assert columns - filled <= optional.get(row.vocabulary, set()), (row.event, columns, filled)
        # A field that fills no column costs the workload for nothing, except the one that identifies zswap's LRU.
        used = {name for move in moves_for(row.event, fields) for name in (move.field, move.second)}
        assert fields - used <= {"lru"}, row.event


@pytest.mark.parametrize("version", KERNELS)
def test_no_field_is_wider_than_its_column(version: str) -> None:
    width = {column.name: np.dtype(column.dtype).itemsize for column in schema.COLUMNS if column.dtype != "string"}
    for row in plan(kernel(version), content=True):
        words = dict(word.split("=", 1) for word in row.lines[0].split()[2:]) if row.lines else {}
        for move in moves_for(row.event, set(words)):
            if move.column == "text":
                assert words[move.field].endswith(":string"), row.event
                continue
            bits = int(re.sub(r".*:[a-z]", "", words[move.field]))
            # Counts that a shrinker is given are as wide as the kernel's own; they are rare.
            assert bits <= max(8 * width[move.column], 64 * (row.event == "shr_scan"), 32), (row.event, move)


@pytest.mark.parametrize("version", KERNELS)
def test_what_is_missing_is_said_with_its_cost(version: str) -> None:
    planned = plan(kernel(version))
    assert {row.event for row in planned if not row.lines} == MISSING[version]
    text = describe(planned, True)
    for row in planned:
        if not row.lines:
            assert f"{row.function}()" in row.why
            assert ", ".join(row.checks) in text
    assert "store.raw, store.bytes" in text or version != "6.12"


def test_renamed_functions_and_moved_arguments() -> None:
    old, middle, new = (rows(plan(kernel(version))) for version in ("6.12", "7.2", "7.3"))
    assert old["swap_out"].lines[0].startswith("f:zreplay/swap_out swap_writepage folio=$arg1:x64 swp=+40($arg1):x64")
    assert middle["swap_out"].lines[0].startswith("f:zreplay/swap_out swap_writeout folio=$arg1:x64")
    assert new["swap_out"].lines[0].startswith("f:zreplay/swap_out swap_writeout folio=$arg2:x64 swp=+40($arg2):x64")
    assert "swp=+40($arg2):x64" in new["swapwrite"].lines[0]
    # Room for two tasks a CPU is what fprobes of 6.12 have otherwise; later kernels refuse the number.
    assert old["zs_total"].lines == ("f256:zreplay/zs_total zpool_get_total_pages%return ret=$retval:u64",
                                     "f:zreplay/zs_total zpool_get_total_pages%return ret=$retval:u64",
                                     "r256:zreplay/zs_total zpool_get_total_pages ret=$retval:u64")
    assert new["zs_total"].function == "zs_get_total_pages"
    assert old["comp"].function == "scomp_acomp_compress"
    assert new["comp"].function == "crypto_acomp_compress"
    assert old["objread"].lines[0] == "f:zreplay/objread zs_map_object handle=$arg2:x64"
    assert rows(plan(kernel("6.18")))["objread"].lines[0] == "f:zreplay/objread zs_obj_read_begin handle=$arg2:x64"
    assert new["objread"].lines[0] == "f:zreplay/objread zs_obj_read_sg_begin handle=$arg2:x64 len=$arg4:u32"
    assert "nr=+8($arg2):u64 nid=+4($arg2):s32 memcg=+24($arg2):x64" in new["shr_scan"].lines[0]


def test_content_of_objects_is_fetched_only_when_asked_for() -> None:
    assert "handle_mem" not in rows(plan(kernel("7.3")))["objwrite"].lines[0]
    assert "d0" not in rows(plan(kernel("7.3")))["objwrite"].lines[0]
    assert rows(plan(kernel("7.3"), content=True))["objwrite"].lines[0].endswith("len=$arg4:u32 d0=+0($arg3):x64")


def test_kprobes_stand_in_where_ftrace_does_not_reach() -> None:
    with_both = rows(plan(kernel("7.3")))["store_ret"].lines
    assert with_both == ("f256:zreplay/store_ret zswap_store%return ret=$retval:u8",
                         "f:zreplay/store_ret zswap_store%return ret=$retval:u8",
                         "r256:zreplay/store_ret zswap_store ret=$retval:u8")
    assert rows(plan(kernel("7.3", traceable=False)))["store_ret"].lines == with_both[2:]


@pytest.mark.parametrize("version", ["6.18", "7.2"])
def test_without_btf_the_plan_is_that_of_a_known_kernel(version: str) -> None:
    guessed, known = plan(kernel(version, btf=False)), plan(kernel(version))
    assert [row.lines for row in guessed] == [row.lines if row.event not in NO_BTF else () for row in known]
    assert {row.event for row in guessed if not row.lines} == MISSING[version] | NO_BTF
    assert rows(guessed)["zmax_set"].why.endswith("in this kernel, or no BTF says where it is")
    assert "assumed" in describe(guessed, False).splitlines()[0]


def test_offsets_come_from_btf() -> None:
    functions = parse(KERNELS["7.3"])
    moved = btf_of(functions, {**probes.OFFSETS, "zswap_entry.length": 16})
    row = rows(plan(ProbedKernel(set(functions), set(functions), moved)))["dec"]
    assert "len=+16($arg1):u32" in row.lines[0]


def test_bit_fields_are_fetched_as_such() -> None:
    """v14's struct zswap_entry keeps `referenced` in the highest bit of the word that has its length."""
    functions = parse(KERNELS["7.3"])
    out = BtfBlob()
    out.add(1, "int", 4, more=bytes(4))
    for name, parameters in functions.items():
        out.function(name, parameters)
    inner = out.members(4, "", [("length", 1, 31 << 24), ("referenced", 1, 1 << 24 | 31)], flag=1)
    out.members(4, "zswap_entry", [("swpentry", 1, 0), ("", inner, 64), ("handle", 1, 192)])
    btf = Btf(out.blob(), *wanted_names())
    made = rows(plan(ProbedKernel(set(functions), set(functions), btf)))
    assert " size=" not in made["efree"].lines[0]
    assert " len=+8($arg1):b31@0/32 handle=+24($arg1):x64 ref=+8($arg1):b1@31/32" in made["efree"].lines[0]
    assert btf.bits("zswap_entry", "length") == (64, 31)
    wide = BtfBlob()
    wide.add(1, "int", 4, more=bytes(4))
    wide.members(4, "zswap_entry", [("length", 1, 40 << 24 | 24), ("swpentry", 1, 64), ("handle", 1, 128)], flag=1)
    made = rows(plan(ProbedKernel(set(functions), set(functions), Btf(wide.blob(), *wanted_names()))))
    assert "len=+0($arg1):b40@24/64" in made["dec"].lines[0]


def test_a_cgroup_is_named_by_its_directory_s_id() -> None:
    """struct kernfs_node's parent is called __parent from 6.15 on."""
    functions = parse(KERNELS["7.3"])
    renamed = btf_of(functions, {**probes.OFFSETS, **CONFIGURED, "kernfs_node.__parent": 16})
    for offset, btf in ((16, renamed), (8, btf_of(functions))):
        made = rows(plan(ProbedKernel(set(functions), set(functions), btf)))
        assert made["zmax_set"].lines[0] == (f"f:zreplay/zmax_set zswap_max_write "
                                             f"cgid=+96(+{offset}(+0($arg1))):u64 val=+0($arg2):string")
        assert made["css_online"].lines[0] == ("f:zreplay/css_online mem_cgroup_css_online memcg=$arg1:x64 "
                                               "parent=+192($arg1):x64 cgid=+96(+264(+0($arg1))):u64")
        assert made["param_set"].lines[0] == ("f:zreplay/param_set param_attr_store name=+0(+0(+56($arg1))):string "
                                              "val=+0($arg3):string")
        assert made["may_zswap"].lines[1] == ("f:zreplay/may_zswap obj_cgroup_may_zswap%return ret=$retval:u8 "
                                              "objcg=$arg1:x64 memcg=+16($arg1):x64")


def test_a_function_without_the_parameter_is_not_probed() -> None:
    functions = {**parse(KERNELS["7.3"]), "zs_malloc": ["pool", "gfp"]}
    row = rows(plan(ProbedKernel(set(functions), set(functions), btf_of(functions))))["zmalloc"]
    assert row.lines == ()
    assert row.why == ("zs_malloc() has no parameter for the field size in this kernel, or no BTF says where it is")
    assert row.checks == ("zsmalloc.size", "invariant.length")


@pytest.mark.parametrize(("version", "with_iaa", "without"), [
    ("6.12", "iaa_comp_acompress", "scomp_acomp_compress"),
    ("7.3", "crypto_acomp_compress", "crypto_acomp_compress")])
def test_a_driver_s_own_functions_are_hooked_where_zswap_uses_it(version: str, with_iaa: str, without: str) -> None:
    """6.12 calls deflate-iaa's own, and software's when it uses that, though iaa_crypto is loaded."""
    known = kernel(version)
    module = {"iaa_comp_acompress", "iaa_comp_adecompress"}
    assert known.traceable is not None
    loaded = ProbedKernel(known.traceable | module, known.functions | module, known.btf)
    for compressors, function in ((["deflate-iaa"], with_iaa), (["zstd"], without), ([], without)):
        planned = rows(plan(loaded, compressors=compressors))
        assert (planned["comp"].function, planned["comp_ret"].function) == (function, function)
        assert planned["decomp"].function == re.sub("(a?)compress", r"\1decompress", function)


def test_software_s_function_shows_nothing_of_another_driver() -> None:
    """Up to 6.14 crypto_acomp_compress() is inlined: what is hooked in its place is called for software alone."""
    for compressors in (["deflate-iaa"], ["zstd", "qat_deflate"]):
        planned = rows(plan(kernel("6.12"), compressors=compressors))
        assert [planned[name].lines for name in ("comp", "comp_ret", "decomp", "decomp_ret")] == [()] * 4
        assert planned["comp"].why == ("crypto_acomp_compress() is inlined in this kernel, and no function that is known "
                                       f"shows the calls of {compressors[-1]}")
        assert rows(plan(kernel("7.3"), compressors=compressors))["comp"].function == "crypto_acomp_compress"
    known = kernel("6.12")
    assert known.traceable is not None
    module = {"fake_iaa_compress", "fake_iaa_decompress"}
    loaded = ProbedKernel(known.traceable | module, known.functions | module, known.btf)
    assert rows(plan(loaded, compressors=["deflate-iaa"]))["comp"].function == "fake_iaa_compress"


def test_page_events_carry_both_halves() -> None:
    some = ProbedKernel(None, {"zstd_compress_cctx", "zlib_deflate"}, None)
    planned, notes = page_plan(some, ["zstd", "deflate", "lz4", "deflate-iaa"])
    assert [row.event for row in planned] == ["pg0_0", "pg0_1", "pg1_0", "pg1_1"]
    assert "c3=+3584($arg4):x64[64]" in planned[1].lines[0]
    assert "src=+0($arg1):x64 c0=+0(+0($arg1)):x64[64]" in planned[2].lines[0]
    assert len(notes) == 2
    assert "lz4_scompress()" in notes[0]


def test_btf_bit_fields_and_damage() -> None:
    out = BtfBlob()
    out.add(1, "int", 4, more=bytes(4))
    out.members(4, "bits", [("a", 1, 3 << 24), ("b", 1, 5 << 24 | 32)], flag=1)
    blob = out.blob()
    assert Btf(blob, (), {"bits"}).offset("bits", "b") == 4
    assert Btf(blob, (), {"bits"}).offset("bits", "c") is None
    assert Btf(blob, {"f"}, ()).parameters("f") is None
    for damaged in (b"", blob[:20], blob[:-1], b"\0" + blob[1:], blob[:24] + b"\0\0\0\0\0\0\0\x1f" + blob[32:]):
        with pytest.raises(ValueError, match="BTF"):
            Btf(damaged, (), {"bits"})


def test_a_folio_s_flags_are_read_only_where_their_bits_are_known() -> None:
    """A kernel whose enum pageflags has other numbers: what the importer would take for PG_dirty is another flag."""
    functions = parse(KERNELS["7.2"])

    def made(reclaim: int) -> dict[str, Planned]:
        out = BtfBlob()
        for name, parameters in functions.items():
            out.function(name, parameters)
        flags = {**probes.FLAG_BITS, "PG_reclaim": reclaim}
        out.add(6, "pageflags", 4, len(flags), more=b"".join(
            struct.pack("<II", out.string(name), bit) for name, bit in flags.items()))
        return rows(plan(ProbedKernel(set(functions), set(functions), Btf(out.blob(), *wanted_names()))))

    usual, other = made(16), made(17)
    assert "fl=+0($arg1):x32" in usual["load_ret"].lines[0]
    assert "fl=+0($arg2):x8" not in other["load_ret"].lines[0]
    assert "ret=$retval:s32" in other["load_ret"].lines[0]
    assert "fl=" not in other["load_ret"].lines[0] + other["swapwrite"].lines[0]
    assert other["swap_out"].lines == ()
    assert "fl" in other["swap_out"].why
