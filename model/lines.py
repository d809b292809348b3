# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel line as data: what differs between Linux 6.12 and 7.3 in the modelled code, and which commit brought it.

One :class:`KernelLine` for each line, and in :data:`CHANGES` the upstream commits behind each difference between a line
and the one before it.  Fields in capitals are class attributes of the revisions (:func:`mirroring` sets them), which
the steps of the model ask; the others are facts for whoever reads or makes recordings.  To add a line is to add its
:class:`KernelLine`, the :class:`Change` of each field that differs from the line before, and a class in
:mod:`model.revisions`.

>>> LINES["7.2"].SHRINK_BUDGET, LINES["7.3"].SHRINK_BUDGET
(1, 32)
>>> [change.commit for change in CHANGES["7.3", "SHRINK_BUDGET"]]
['6f34b4126b8b']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, NamedTuple, TypeVar

from model import errno

__all__ = ["CHANGES", "LINES", "NEWEST", "Change", "KernelLine", "attributes", "line_named", "line_of", "mirroring"]

_Kind = TypeVar("_Kind", bound=type)


@dataclass(frozen=True)
class KernelLine:
    """What one kernel line has; every field is given for every line."""

    #: the line, as ``major.minor``
    name: str
    #: the version whose source was read
    version: str
    #: the compressors, one of :data:`model.crypto.KERNEL_LINES`: they change less often than zswap
    kernel_line: str
    #: the crypto layer below zswap, a key of :data:`model.crypto.layers.LAYERS`
    crypto_layer: str

    # ---- mm/zswap.c: store ------------------------------------------------------------------------------
    #: zswap_store() takes large folios; where it does not, it refuses them at once and erases nothing
    LARGE_FOLIOS: bool
    #: a page that does not get smaller is kept as it is, where it may be written back
    RAW_PAGES: bool
    #: a length of nothing, or of no less than a page, never reaches zs_malloc()
    CHECKS_LENGTH: bool
    #: what an object of a whole page is: the page itself (True), or compressed data of that length (False)
    WHOLE_IS_PAGE: bool
    #: pages of room that zswap_compress() gives the compressor; it asks for one
    DEST_PAGES: int
    #: an object is written through zs_map_object(), not by zs_obj_write()
    MAPS_OBJECTS: bool
    #: stored_incompressible_pages exists
    HAS_INCOMPRESSIBLE: bool
    #: mTHP statistics count zswpout
    HAS_MTHP_ZSWPOUT: bool
    #: the root cgroup's folios have an obj_cgroup, and incompressible pages are charged apart
    ROOT_OBJCG: bool

    #: the swap layer says of each slot of a large folio that it frees at once (zswap_invalidate())
    INVALIDATES_RANGES: bool

    # ---- mm/zswap.c: load -------------------------------------------------------------------------------
    #: a load may pass the swap cache (SWP_SYNCHRONOUS_IO), and then leaves the entry
    LOADS_PAST_CACHE: bool
    #: zswap_load() returns whether it had the page, not an errno
    LOAD_RETURNS_BOOL: bool
    #: data that cannot be decompressed is an error and is counted; where it is not, the kernel stops with a BUG
    DECOMPRESS_FAILS: bool
    #: objects are read through scatter-gather entries; before that in a row
    SG_READS: bool
    #: where they are read in a row: the reader does not know the length, and copies a slot whole
    READS_SLOTS: bool

    # ---- mm/zswap.c: writeback --------------------------------------------------------------------------
    #: how many entries shrink_memcg() looks at per node
    SHRINK_BUDGET: int
    #: zswap_writeback_entry() takes the entry out of the tree before it decompresses, not after
    WRITEBACK_ERASES_FIRST: bool
    #: a writeback that gets no folio says why; where it does not, all but -EEXIST is -ENOMEM
    WRITEBACK_SAYS_WHY: bool
    #: zswap_writeback_entry() is a function of its own in the kernels at hand, so that a probe sees it
    WRITEBACK_APART: bool

    # ---- mm/zsmalloc.c ----------------------------------------------------------------------------------
    #: compaction gives a class up at a zspage that somebody reads (zspage_write_trylock()); before, it waits
    COMPACTION_TRYLOCKS: bool
    #: bits of size class in an object word, between page frame number and index
    object_class_bits: int

    # ---- below zswap, and around it ---------------------------------------------------------------------
    #: the release of libzstd in lib/zstd
    zstd: Literal["1.5.2", "1.5.7"]
    #: what deflate returns where its output does not fit
    deflate_full: int
    #: how long a per-CPU acomp_ctx lives: as long as its ``cpu`` is online, or as long as the ``pool``
    acomp_ctx: Literal["cpu", "pool"]

    @property
    def mirrors(self) -> str:
        """What a revision of this line says it mirrors."""
        return f"Linux {self.version} mm/zswap.c, mm/zsmalloc.c"

    @property
    def number(self) -> tuple[int, int]:
        """Return (major, minor)."""
        major, minor = self.name.split(".")
        return int(major), int(minor)


class Change(NamedTuple):
    """One upstream commit that brought a difference.

    ``commit``: its first 12 hex digits, None where it was not found or where there is none, as ``what`` says; ``what``
    it changes, in our own words; ``release``: the first release that has it, None where that is not known either.
    """

    commit: str | None
    what: str
    release: str | None


_L612 = KernelLine(
    name="6.12", version="6.12.107", kernel_line="mainline-6.12", crypto_layer="6.12",
    LARGE_FOLIOS=False, RAW_PAGES=False, CHECKS_LENGTH=False, WHOLE_IS_PAGE=False, DEST_PAGES=2, MAPS_OBJECTS=True,
    HAS_INCOMPRESSIBLE=False, HAS_MTHP_ZSWPOUT=False, ROOT_OBJCG=False, INVALIDATES_RANGES=False,
    LOADS_PAST_CACHE=True, LOAD_RETURNS_BOOL=True, DECOMPRESS_FAILS=False, SG_READS=False, READS_SLOTS=True,
    SHRINK_BUDGET=1, WRITEBACK_ERASES_FIRST=True, WRITEBACK_SAYS_WHY=False, WRITEBACK_APART=True,
    COMPACTION_TRYLOCKS=False, object_class_bits=0,
    zstd="1.5.2", deflate_full=errno.EINVAL, acomp_ctx="cpu")

_L618 = KernelLine(
    name="6.18", version="6.18.15", kernel_line="mainline-6.18", crypto_layer="6.18",
    LARGE_FOLIOS=True, RAW_PAGES=True, CHECKS_LENGTH=True, WHOLE_IS_PAGE=True, DEST_PAGES=1, MAPS_OBJECTS=False,
    HAS_INCOMPRESSIBLE=True, HAS_MTHP_ZSWPOUT=True, ROOT_OBJCG=False, INVALIDATES_RANGES=True,
    LOADS_PAST_CACHE=True, LOAD_RETURNS_BOOL=False, DECOMPRESS_FAILS=True, SG_READS=False, READS_SLOTS=True,
    SHRINK_BUDGET=1, WRITEBACK_ERASES_FIRST=False, WRITEBACK_SAYS_WHY=False, WRITEBACK_APART=False,
    COMPACTION_TRYLOCKS=True, object_class_bits=0,
    zstd="1.5.7", deflate_full=errno.ENOSPC, acomp_ctx="cpu")

_L70 = KernelLine(
    name="7.0", version="7.0.13", kernel_line="mainline-7.0", crypto_layer="7.0",
    LARGE_FOLIOS=True, RAW_PAGES=True, CHECKS_LENGTH=True, WHOLE_IS_PAGE=True, DEST_PAGES=1, MAPS_OBJECTS=False,
    HAS_INCOMPRESSIBLE=True, HAS_MTHP_ZSWPOUT=True, ROOT_OBJCG=False, INVALIDATES_RANGES=True,
    LOADS_PAST_CACHE=False, LOAD_RETURNS_BOOL=False, DECOMPRESS_FAILS=True, SG_READS=True, READS_SLOTS=False,
    SHRINK_BUDGET=1, WRITEBACK_ERASES_FIRST=False, WRITEBACK_SAYS_WHY=False, WRITEBACK_APART=False,
    COMPACTION_TRYLOCKS=True, object_class_bits=0,
    zstd="1.5.7", deflate_full=errno.ENOSPC, acomp_ctx="cpu")

_L71 = KernelLine(
    name="7.1", version="7.1.13", kernel_line="mainline-7.0", crypto_layer="7.1",
    LARGE_FOLIOS=True, RAW_PAGES=True, CHECKS_LENGTH=True, WHOLE_IS_PAGE=True, DEST_PAGES=1, MAPS_OBJECTS=False,
    HAS_INCOMPRESSIBLE=True, HAS_MTHP_ZSWPOUT=True, ROOT_OBJCG=True, INVALIDATES_RANGES=True,
    LOADS_PAST_CACHE=False, LOAD_RETURNS_BOOL=False, DECOMPRESS_FAILS=True, SG_READS=True, READS_SLOTS=False,
    SHRINK_BUDGET=1, WRITEBACK_ERASES_FIRST=False, WRITEBACK_SAYS_WHY=False, WRITEBACK_APART=False,
    COMPACTION_TRYLOCKS=True, object_class_bits=0,
    zstd="1.5.7", deflate_full=errno.ENOSPC, acomp_ctx="pool")

_L72 = KernelLine(
    name="7.2", version="7.2.13", kernel_line="mainline-7.2", crypto_layer="7.2",
    LARGE_FOLIOS=True, RAW_PAGES=True, CHECKS_LENGTH=True, WHOLE_IS_PAGE=True, DEST_PAGES=1, MAPS_OBJECTS=False,
    HAS_INCOMPRESSIBLE=True, HAS_MTHP_ZSWPOUT=True, ROOT_OBJCG=True, INVALIDATES_RANGES=True,
    LOADS_PAST_CACHE=False, LOAD_RETURNS_BOOL=False, DECOMPRESS_FAILS=True, SG_READS=True, READS_SLOTS=False,
    SHRINK_BUDGET=1, WRITEBACK_ERASES_FIRST=False, WRITEBACK_SAYS_WHY=True, WRITEBACK_APART=False,
    COMPACTION_TRYLOCKS=True, object_class_bits=0,
    zstd="1.5.7", deflate_full=errno.ENOSPC, acomp_ctx="pool")

_L73 = KernelLine(
    name="7.3", version="7.3-rc7", kernel_line="mainline-7.3", crypto_layer="7.3",
    LARGE_FOLIOS=True, RAW_PAGES=True, CHECKS_LENGTH=True, WHOLE_IS_PAGE=True, DEST_PAGES=1, MAPS_OBJECTS=False,
    HAS_INCOMPRESSIBLE=True, HAS_MTHP_ZSWPOUT=True, ROOT_OBJCG=True, INVALIDATES_RANGES=True,
    LOADS_PAST_CACHE=False, LOAD_RETURNS_BOOL=False, DECOMPRESS_FAILS=True, SG_READS=True, READS_SLOTS=False,
    # SWAP_CLUSTER_MAX
    SHRINK_BUDGET=32, WRITEBACK_ERASES_FIRST=False, WRITEBACK_SAYS_WHY=True, WRITEBACK_APART=False,
    COMPACTION_TRYLOCKS=True, object_class_bits=9,
    zstd="1.5.7", deflate_full=errno.ENOSPC, acomp_ctx="pool")

#: name -> line, oldest first
LINES: Final[Mapping[str, KernelLine]] = {line.name: line for line in (_L612, _L618, _L70, _L71, _L72, _L73)}
#: the line that :class:`model.zswap.Zswap` itself has
NEWEST: Final = _L73

_LARGE = Change("b7c0ccdfbafd", "zswap_store() takes large folios, page by page", "6.13")
_RAW = Change("dca4437a5861", "a page that compression does not make smaller is stored as it is, and counted", "6.18")
_FAILS = Change("ff22f9299d7b", "a failed decompression is an errno of zswap_load() and a counter, no BUG; the entry "
                "leaves the tree after it", "6.15")
_WRITES = Change("7d4c9629b74f", "zswap reads and writes objects without mapping them", "6.15")
_DEFLATE = Change("08cabc7d3c86", "deflate is an acomp algorithm of its own", "6.16")
_ZSTD = Change("f5ad93ffb541", "zstd is an acomp algorithm of its own, with its own parameters", "6.17")
_SG = (Change("dc2e4982cb01", "zs_obj_read_sg_begin() gives an object as the entries it lies in", "7.0"),
       Change("e2c3b6b21c77", "zswap decompresses from these entries", "7.0"))
_NAMES_ONLY = (Change(None, "nothing that is modelled: the name follows the line", None),)

#: (line, field) -> what brought the line's value, where the line before has another one.  A line mirrors the release
#: that was read, and so has what the stable tree had brought into it by then.
CHANGES: Final[Mapping[tuple[str, str], tuple[Change, ...]]] = {
    ("6.18", "kernel_line"): (
        Change("65d1f5507ed2", "libzstd 1.5.7", "6.15"), _ZSTD, _DEFLATE),
    ("6.18", "crypto_layer"): (
        Change("2d3553ecb4e3", "scomp takes its destination in one piece, and has a page of scratch", "6.15"),
        _DEFLATE, _ZSTD,
        Change("8c5459f1663e", "iaa gives a job up that never completes", "6.13"),
        Change("714ca27e9bf4", "iaa counts CPUs anew on each node, so that later devices stay unused", "6.16")),
    ("6.18", "LARGE_FOLIOS"): (_LARGE,),
    ("6.18", "RAW_PAGES"): (_RAW,),
    ("6.18", "CHECKS_LENGTH"): (_RAW,),
    ("6.18", "WHOLE_IS_PAGE"): (_RAW,),
    ("6.18", "DEST_PAGES"): (
        Change("0b1bf60c324a", "a single page of room for the compressor", "6.18"),),
    ("6.18", "MAPS_OBJECTS"): (
        Change("44f76413496e", "zsmalloc reads and writes objects without mapping them", "6.15"), _WRITES),
    ("6.18", "HAS_INCOMPRESSIBLE"): (_RAW,),
    ("6.18", "HAS_MTHP_ZSWPOUT"): (
        Change("0c560dd86040", "mTHP statistics count stores of large folios", "6.13"),),
    ("6.18", "INVALIDATES_RANGES"): (
        Change(None, "not found: zswap_invalidate() is called for ranges of slots, also of large folios, with the "
               "removal of the slot cache", "6.15"),),
    ("6.18", "LOAD_RETURNS_BOOL"): (_FAILS,),
    ("6.18", "DECOMPRESS_FAILS"): (_FAILS,),
    ("6.18", "WRITEBACK_ERASES_FIRST"): (_FAILS,),
    ("6.18", "WRITEBACK_APART"): (
        Change(None, "no commit: later builds inline the function into shrink_memcg_cb()", None),),
    ("6.18", "COMPACTION_TRYLOCKS"): (
        Change("e27af3f9360e", "a zspage's lock may be held by a reader that sleeps: writers only try it", "6.15"),),
    ("6.18", "zstd"): (Change("65d1f5507ed2", "libzstd 1.5.7", "6.15"),),
    ("6.18", "deflate_full"): (_DEFLATE,),
    ("7.0", "kernel_line"): _NAMES_ONLY,
    ("7.0", "crypto_layer"): (
        Change("d7e20b9bd6c9", "acomp_save_req() stores the pointer that is taken for the request", "7.1"),
        Change("6d89f743e57c", "deflate returns no -ENOSPC where the page was complete", "7.0"),
        Change("590fa5d69c27", "iaa counts CPUs over all nodes", "7.1")),
    ("7.0", "LOADS_PAST_CACHE"): (
        Change("f1879e8a0c60", "swapping in never passes the swap cache", "7.0"),),
    ("7.0", "SG_READS"): _SG,
    ("7.0", "READS_SLOTS"): (
        Change("0be909f114c4", "a reader of zsmalloc knows the object's length", "7.0"),),
    ("7.1", "crypto_layer"): (
        Change("c7fdfd2bee1c", "iaa leaves lists of several entries to software", "7.3"),
        Change("659f52ff0ca6", "iaa does not count bytes that software decompressed", "7.3")),
    ("7.1", "ROOT_OBJCG"): (
        Change("d5aa8c1d136e", "the root cgroup's folios have its obj_cgroup", "7.1"),
        Change("5ad41a38c364", "memory.stat counts incompressible pages", "7.1")),
    ("7.1", "acomp_ctx"): (
        Change(None, "not found: a per-CPU acomp_ctx lives as long as its pool", "7.1"),),
    ("7.2", "kernel_line"): _NAMES_ONLY,
    ("7.2", "crypto_layer"): _NAMES_ONLY,
    ("7.2", "WRITEBACK_SAYS_WHY"): (
        Change("a2e61ffb4749", "swap_cache_alloc_folio() returns an error pointer", "7.2"),),
    ("7.3", "kernel_line"): _NAMES_ONLY,
    ("7.3", "crypto_layer"): (
        Change("a229e50741de", "iaa decompresses several entries from a bounce page", "7.3"),),
    ("7.3", "SHRINK_BUDGET"): (
        Change("6f34b4126b8b", "shrink_memcg() writes back in batches", "7.3"),),
    ("7.3", "object_class_bits"): (
        Change("9909b088b1f0", "an object word holds its size class", "7.3"),),
}


def attributes(line: KernelLine) -> dict[str, Any]:
    """Return the class attributes of a revision that mirrors a line."""
    taken = {field.name: getattr(line, field.name) for field in fields(line) if field.name.isupper()}
    return {"mirrors": line.mirrors, "kernel_line": line.kernel_line, "crypto_layer": line.crypto_layer, **taken}


def mirroring(line: KernelLine) -> Callable[[_Kind], _Kind]:
    """Give a revision what a kernel line has: a class decorator."""
    def take(kind: _Kind) -> _Kind:
        for name, value in attributes(line).items():
            setattr(kind, name, value)
        return kind
    return take


def line_named(name: str) -> KernelLine:
    """Return the line of a revision's name, or of the compressors' (``mainline-7.3``).

    :raises KeyError: for any other name
    """
    return LINES[name.removeprefix("mainline-")]


def line_of(number: tuple[int, int] | None) -> KernelLine | None:
    """Return the last line that is not younger than a kernel (major, minor); None where there is none, or for None."""
    older = [line for line in LINES.values() if number is not None and line.number <= number]
    return older[-1] if older else None
