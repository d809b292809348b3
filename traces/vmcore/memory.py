# SPDX-License-Identifier: GPL-2.0-or-later
"""A dead kernel's virtual memory: page tables walked in the core, and the kernel's lists and trees read from it.

Mirrors arch/x86/include/asm/pgtable_types.h (4- and 5-level paging), include/linux/list.h and
include/linux/xarray.h.  Every walk ends: a list remembers where it has been, a tree's levels must descend.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from traces.events import PAGE_SIZE
from traces.vmcore.btf import VmlinuxBtf
from traces.vmcore.elfcore import CoreFile

__all__ = ["CoreMemory", "MissingMemory", "Problem", "Problems", "walk_list", "walk_xarray"]

_PRESENT: Final = 1
_LARGE: Final = 1 << 7
_FRAME: Final = 0x000FFFFFFFFFF000
#: __START_KERNEL_map: where the kernel image is mapped, phys_base bytes into physical memory
_KERNEL_MAP: Final = 0xFFFFFFFF80000000
_CR4_LA57: Final = 1 << 12
_XA_INTERNAL: Final = 2
#: XA_ZERO_ENTRY and XA_RETRY_ENTRY: internal entries that stand for nothing stored
_XA_NOTHING: Final = (0x402, 0x406)


class MissingMemory(Exception):
    """Memory that the core does not have; ``address`` is where."""

    def __init__(self, address: int) -> None:
        super().__init__(f"{address:#x} is not in the core")
        self.address = address


@dataclass(frozen=True)
class Problem:
    """Something about a structure: ``kind`` is ``missing`` (not in the core), ``zeros`` (empty, or not in the core) or
    ``broken`` (contradicts itself)."""

    kind: str
    where: str
    what: str


class Problems:
    """Problems in the order they were met; after some thousands they are only counted."""

    def __init__(self, kept: int = 2000) -> None:
        self.list: list[Problem] = []
        self.missing = 0
        self.zeros = 0
        self.broken = 0
        self._kept = kept

    def add(self, kind: str, where: str, what: str) -> None:
        """Take one note."""
        if kind == "missing":
            self.missing += 1
        elif kind == "zeros":
            self.zeros += 1
        else:
            self.broken += 1
        if len(self.list) < self._kept:
            self.list.append(Problem(kind, where, what))


class CoreMemory:
    """Virtual and physical reads; both raise :class:`MissingMemory` where the core has nothing.

    :ivar translation: how virtual addresses are translated, for people
    """

    def __init__(self, core: CoreFile) -> None:
        self.core = core
        self.root = 0
        self.levels = 4
        self.translation = ""
        self._mask = _FRAME & ~(core.number("sme_mask") or 0)
        self._frames: dict[int, int] = {}
        self._choose()

    def _choose(self) -> None:
        """Find the kernel's page tables: by VMCOREINFO, else where a CPU's CR3 points, else program headers do."""
        core = self.core
        table = core.symbol("init_top_pgt") or core.symbol("swapper_pg_dir")
        base = core.number("phys_base")
        if table and base is not None and table >= _KERNEL_MAP:
            self.levels = 5 if core.number("pgtable_l5_enabled") else 4
            self.root = (table - _KERNEL_MAP + base) & (1 << 64) - 1
            if core.physical(self.root, PAGE_SIZE) is not None:
                self.translation = f"{self.levels}-level page tables that VMCOREINFO names"
                return
        # A CPU in user mode may run on a table with little of the kernel in it (KPTI): the fullest one counts.
        best = 0
        for cpu in core.cpus:
            page = core.physical(cpu.cr3 & _FRAME, PAGE_SIZE)
            known = sum(map(bool, struct.unpack("<256Q", page[2048:]))) if page is not None else 0
            if known > best:
                best, self.root = known, cpu.cr3 & _FRAME
                self.levels = 5 if cpu.cr4 & _CR4_LA57 else 4
        if best:
            self.translation = f"{self.levels}-level page tables of a CPU's CR3"
            return
        self.root = 0
        self.translation = "virtual addresses of the program headers"

    def _frame(self, address: int) -> int:
        """Return the physical address of a virtual page, -1 where none is mapped."""
        page = address >> 12
        known = self._frames.get(page)
        if known is not None:
            return known
        table, frame = self.root, -1
        for level in range(self.levels - 1, -1, -1):
            shift = 12 + 9 * level
            raw = self.core.physical(table + 8 * (address >> shift & 511), 8)
            entry = int.from_bytes(raw, "little") if raw is not None else 0
            if not entry & _PRESENT:
                break
            if level == 0 or (entry & _LARGE and level < 3):
                low = (1 << shift) - 1
                frame = (entry & self._mask & ~low) | (address & low & ~0xFFF)
                break
            table = entry & self._mask
        self._frames[page] = frame
        return frame

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at a virtual address."""
        if not 0 <= address <= (1 << 64) - size:
            raise MissingMemory(address)
        if not self.root:
            data = self.core.virtual(address, size)
            if data is None:
                raise MissingMemory(address)
            return data
        parts: list[bytes] = []
        at, end = address, address + size
        while at < end:
            offset = at & 4095
            part = min(end - at, PAGE_SIZE - offset)
            frame = self._frame(at)
            data = self.core.physical(frame + offset, part) if frame >= 0 else self.core.virtual(at, part)
            if data is None:
                raise MissingMemory(at)
            parts.append(data)
            at += part
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def try_read(self, address: int, size: int) -> bytes | None:
        """The same, None where the core has nothing."""
        try:
            return self.read(address, size)
        except MissingMemory:
            return None

    def is_blank(self, address: int) -> bool:
        """True where the core has the page of a virtual address, and it is zeros from end to end."""
        if not self.root:
            return self.core.is_blank(address, virtual=True)
        frame = self._frame(address)
        return frame >= 0 and self.core.is_blank(frame)

    def physical(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at a physical address."""
        data = self.core.physical(address, size)
        if data is None:
            raise MissingMemory(address)
        return data

    def u64(self, address: int) -> int:
        """Return an unsigned long."""
        return int.from_bytes(self.read(address, 8), "little")

    def u32(self, address: int) -> int:
        """Return an unsigned int."""
        return int.from_bytes(self.read(address, 4), "little")

    def text(self, address: int, limit: int = 128) -> str:
        """Return a NUL-terminated string of at most ``limit`` bytes."""
        out = b""
        while len(out) < limit:
            part = self.read(address + len(out), min(limit - len(out), PAGE_SIZE - (address + len(out) & 4095)))
            end = part.find(b"\0")
            out += part if end < 0 else part[:end]
            if end >= 0:
                break
        return "".join(c if c.isprintable() else "?" for c in out.decode("utf-8", "replace"))


def walk_list(memory: CoreMemory, head: int, problems: Problems, where: str) -> Iterator[int]:
    """Yield the addresses of a ``struct list_head`` list's members; ends at a circle, a hole or a wrong ``prev``."""
    seen = {head}
    before = head
    try:
        at = memory.u64(head)
        while at != head:
            if at in seen:
                problems.add("broken", where, f"the list comes back to {at:#x} and never to its head")
                return
            seen.add(at)
            following, back = struct.unpack("<QQ", memory.read(at, 16))
            if back != before:
                problems.add("broken", where, f"prev of {at:#x} is {back:#x} and not {before:#x}")
                return
            yield at
            before, at = at, following
        back = memory.u64(head + 8)
        if back != before:
            problems.add("broken", where, f"prev of the head is {back:#x} and not {before:#x}")
    except MissingMemory as hole:
        problems.add("missing", where, str(hole))


def walk_xarray(memory: CoreMemory, btf: VmlinuxBtf, xarray: int, problems: Problems, where: str,
                limit: int = 1 << 58) -> Iterator[tuple[int, int]]:
    """Yield (index, pointer) of what a ``struct xarray`` holds, indices ascending and below ``limit``.

    Values and the entries that stand for nothing are passed over.
    """
    slots_at = btf.member("xa_node", "slots")
    shift_at = btf.offset("xa_node", "shift", size=1)
    wanted = btf.size("xa_node")
    count = min(slots_at.bits // 64, 64)
    try:
        head = memory.u64(xarray + btf.offset("xarray", "xa_head"))
    except MissingMemory as hole:
        problems.add("missing", where, str(hole))
        return
    seen: set[int] = set()
    # (entry, index of its first item, shift that its node must be below)
    stack = [(head, 0, 64)]
    while stack:
        entry, base, above = stack.pop()
        if not entry or entry & 1 or entry in _XA_NOTHING:
            continue
        if entry & 3 != _XA_INTERNAL:
            if base < limit:
                yield base, entry
            else:
                problems.add("broken", where, f"index {base:#x} is beyond the end")
            continue
        address = entry - _XA_INTERNAL
        if address < PAGE_SIZE:  # a sibling: no entries of several slots here
            continue
        if address in seen:
            problems.add("broken", where, f"node {address:#x} hangs in it twice")
            continue
        seen.add(address)
        try:
            node = memory.read(address, wanted)
        except MissingMemory as hole:
            problems.add("missing", where, str(hole))
            continue
        shift = node[shift_at]
        if shift >= above or shift % 6:
            problems.add("broken", where, f"node {address:#x} has shift {shift} below one of {above}")
            continue
        slots = struct.unpack_from(f"<{count}Q", node, slots_at.offset)
        # An entry in the head or in a node of shift 0 is an item; nodes are taken in order of their indices.
        for number in range(count - 1, -1, -1):
            slot = slots[number]
            if slot and (slot & 3 == _XA_INTERNAL or shift == 0):
                stack.append((slot, base + (number << shift), shift))
            elif slot and not slot & 1:
                problems.add("broken", where, f"node {address:#x} of shift {shift} has an item in it")
