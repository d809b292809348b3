# SPDX-License-Identifier: GPL-2.0-or-later
"""A core file read as a whole: which kernel, which symbols and layouts, and zswap's state in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from traces.errors import BadInput
from traces.events import PAGE_SIZE
from traces.record.oserrors import next_step
from traces.vmcore.btf import VmlinuxBtf
from traces.vmcore.elfcore import CoreFile, open_core
from traces.vmcore.memory import CoreMemory, MissingMemory, Problems
from traces.vmcore.symbols import core_symbols, text_symbols, vmlinux_parts
from traces.vmcore.zsmalloc import ZsLayout, ZsObjectImage, ZsPoolImage, read_pool
from traces.vmcore.zswap import (
    OPTIONAL_SYMBOLS,
    SYMBOLS,
    EntryImage,
    LruImage,
    PoolImage,
    read_counters,
    read_entries,
    read_lru,
    read_one_pool,
    read_pools,
)

__all__ = ["CoreImage", "read_core"]

_WANTED: Final = (*SYMBOLS, *OPTIONAL_SYMBOLS)
_BANNER: Final = re.compile(rb"Linux version (\S{1,64})")
_MAX_BTF: Final = 256 << 20
#: vmemmap_base with 4- and 5-level paging when it is not randomised (Documentation/arch/x86/x86_64/mm.rst)
_VMEMMAP: Final = {4: 0xFFFFEA0000000000, 5: 0xFFD4000000000000}
_GIVE: Final = "give --vmlinux, or --symbols and --btf, of the kernel that died"


@dataclass
class CoreImage:
    """zswap's state in a core.

    ``entries`` by swap file and offset; ``pools`` by address, also those off the list that entries still name;
    ``zs_pools`` by address; ``counters`` without their prefix ``zswap_``; ``sources``: where symbols, layouts
    and the translation of addresses came from; ``problems``: what could not be walked; ``partial``: which of
    ``pools``, ``entries`` and ``lru`` are not whole in the core.
    """

    path: Path
    release: str
    core: CoreFile = field(repr=False)
    memory: CoreMemory = field(repr=False)
    sources: dict[str, str] = field(default_factory=dict)
    entries: list[EntryImage] = field(default_factory=list, repr=False)
    pools: dict[int, PoolImage] = field(default_factory=dict)
    zs_pools: dict[int, ZsPoolImage] = field(default_factory=dict, repr=False)
    lru: list[LruImage] = field(default_factory=list, repr=False)
    counters: dict[str, int] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    #: parts of zswap's state that are not whole in the core: ``pools``, ``entries``, ``lru``
    partial: set[str] = field(default_factory=set)

    @property
    def stored_pages(self) -> int | None:
        """zswap_stored_pages, None when it is not in the core."""
        return self.counters.get("stored_pages")

    def object_of(self, entry: EntryImage) -> ZsObjectImage | None:
        """Return the zsmalloc object of an entry, or None when its pool has none of its handle."""
        pool = self.pools.get(entry.pool)
        zs_pool = self.zs_pools.get(pool.zs_pool) if pool is not None else None
        return zs_pool.handles.get(entry.handle) if zs_pool is not None else None

    def bytes_of(self, entry: EntryImage) -> bytes | None:
        """Return the ``length`` bytes stored for an entry; None when they are not in the core.

        They are taken along the zspage's pages, so they may lie on two of them.
        """
        obj = self.object_of(entry)
        if obj is None or not 0 < entry.length <= PAGE_SIZE:
            return None
        page, offset = obj.place
        out = b""
        while len(out) < entry.length:
            if page >= len(obj.zspage.frames):
                return None
            part = min(entry.length - len(out), PAGE_SIZE - offset)
            data = self.core.physical(obj.zspage.frames[page] * PAGE_SIZE + offset, part)
            if data is None:
                return None
            out += data
            page, offset = page + 1, 0
        return out


def read_core(path: str | Path, *, vmlinux: str | Path | None = None, btf: str | Path | None = None,
              symbols: str | Path | None = None) -> CoreImage:
    """Read zswap's state from an ELF vmcore of x86-64.

    :param vmlinux: the dead kernel's vmlinux: its symbols and its ``.BTF`` section
    :param btf: a BTF blob such as ``/sys/kernel/btf/vmlinux`` instead
    :param symbols: kallsyms text or a System.map instead
    :raises BadInput: when the core cannot be read, or symbols or layouts are missing or another kernel's

    What is not given is looked for in the core.
    """
    path = Path(path)
    core = open_core(path)
    memory = CoreMemory(core)
    sources = {"addresses": memory.translation}
    table: dict[str, int] = {}
    blob: bytes | None = None
    if vmlinux is not None:
        table, blob = vmlinux_parts(vmlinux, _WANTED)
        sources |= {"symbols": str(vmlinux)} if table else {}
        sources |= {"layouts": str(vmlinux)} if blob is not None else {}
    if symbols is not None:
        table = text_symbols(symbols, _WANTED)
        sources["symbols"] = str(symbols)
    if table:
        table = _relocate(core, table)
    else:
        table = core_symbols(memory.try_read, core.symbol, _WANTED) or {}
        sources["symbols"] = "kallsyms in the core"
    absent = [name for name in SYMBOLS if name not in table]
    if absent:
        raise BadInput(path, sources["symbols"], f"no symbol '{absent[0]}' was found", _GIVE)
    release = _release(core, memory, table)
    if btf is not None:
        blob = _read_file(Path(btf))
        sources["layouts"] = str(btf)
    if blob is None:
        blob = _core_btf(memory, table)
        sources["layouts"] = "BTF in the core"
    if blob is None:
        raise BadInput(path, "", "has no structure layouts (BTF) in it", _GIVE)
    image = CoreImage(path, release, core, memory, sources)
    _read_all(image, VmlinuxBtf(blob, sources["layouts"]), table)
    return image


def _relocate(core: CoreFile, table: dict[str, int]) -> dict[str, int]:
    """Move the addresses of a vmlinux or System.map by what KASLR moved the kernel; kallsyms need no move."""
    there = core.symbol("_stext")
    if there is not None and "_stext" in table:
        move = there - table["_stext"]
    else:
        text = core.vmcoreinfo.get("KERNELOFFSET", "0")
        move = int(text, 16) if re.fullmatch(r"[\da-f]{1,16}", text) and "_stext" not in table else 0
    return {name: address + move & (1 << 64) - 1 for name, address in table.items()}


def _release(core: CoreFile, memory: CoreMemory, table: Mapping[str, int]) -> str:
    """Return the kernel's release, and make sure that the symbols are this kernel's: the banner lies at its own."""
    banner = memory.try_read(table["linux_banner"], 128) if "linux_banner" in table else b"Linux version ? "
    if banner is None:
        raise BadInput(core.path, sources_hint(memory), "the kernel's banner is not in the core, so nothing shows that "
                       "the symbols are its own", "take the core again, with all of the kernel's own memory; if it "
                       "has it, " + _GIVE)
    found = _BANNER.match(banner or b"")
    if found is None:
        raise BadInput(core.path, sources_hint(memory), "the kernel's banner is not where the symbols say",
                       "the symbols are of another kernel or of another boot of it (KASLR); " + _GIVE)
    release = core.vmcoreinfo.get("OSRELEASE") or found[1].decode("ascii", "replace")
    return "".join(c for c in release[:64] if c.isprintable())


def sources_hint(memory: CoreMemory) -> str:
    """Return how addresses were translated, for a message."""
    return f"read through the {memory.translation}"


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BTF + 1)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                       next_step(problem.errno, "check the path")) from None


def _core_btf(memory: CoreMemory, table: Mapping[str, int]) -> bytes | None:
    start, stop = table.get("__start_BTF", 0), table.get("__stop_BTF", 0)
    if not 0 < stop - start <= _MAX_BTF:
        return None
    return memory.try_read(start, stop - start)


def _read_all(image: CoreImage, btf: VmlinuxBtf, table: Mapping[str, int]) -> None:
    memory, problems = image.memory, image.problems
    image.counters = read_counters(memory, table, problems)

    def whole(name: str, before: int) -> None:
        if problems.missing > before:
            image.partial.add(name)

    missing = problems.missing
    image.pools = read_pools(memory, btf, table, problems)
    whole("pools", missing)
    missing = problems.missing
    image.entries = list(read_entries(memory, btf, table, problems))
    whole("entries", missing)
    if problems.zeros and image.stored_pages != len(image.entries):
        # The counter says that there are more: probably in a page of trees that was left out.
        image.partial.add("entries")
        problems.missing += problems.zeros
    # A pool whose compressor was replaced leaves the list only with its last entry, but a damaged or racing
    # list may miss one: entries name it still.
    for address in dict.fromkeys(entry.pool for entry in image.entries):
        if address not in image.pools:
            try:
                image.pools[address] = read_one_pool(memory, btf, address, listed=False)
            except MissingMemory as hole:
                problems.add("missing", f"zswap_pool {address:#x}", str(hole))
    layout = ZsLayout(btf, memory, _vmemmap(image, table))
    for pool in list(image.pools.values()):
        if pool.zs_pool in image.zs_pools:
            continue
        try:
            image.zs_pools[pool.zs_pool] = read_pool(layout, pool.zs_pool, problems)
        except MissingMemory as hole:
            problems.add("missing", f"zs_pool {pool.zs_pool:#x}", str(hole))
    missing = problems.missing
    image.lru = read_lru(memory, btf, table, problems)
    whole("lru", missing)


def _vmemmap(image: CoreImage, table: Mapping[str, int]) -> int:
    """Return where the array of struct page begins: VMCOREINFO, else the kernel's variable, else the default; -1 where
    the variable is not in the core, as it may have been moved (KASLR)."""
    given = image.core.symbol("vmemmap")
    if given:
        return given
    if "vmemmap_base" not in table:
        return _VMEMMAP[image.memory.levels]
    raw = image.memory.try_read(table["vmemmap_base"], 8)
    if raw is None:
        image.problems.add("missing", "vmemmap_base", f"{table['vmemmap_base']:#x} is not in the core")
    return int.from_bytes(raw, "little") if raw else -1
