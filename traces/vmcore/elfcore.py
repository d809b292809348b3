# SPDX-License-Identifier: GPL-2.0-or-later
"""The container: which bytes of an ELF core file are which physical and virtual addresses, and its notes.

Mirrors what fs/proc/vmcore.c and kernel/crash_core.c write (kdump) and what QEMU's dump/dump.c and
target/i386/arch_dump.c write (``dump-guest-memory``, with or without ``-p``).  Addresses and sizes are bytes.
"""

from __future__ import annotations

import bisect
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from traces.errors import BadInput
from traces.files import open_input
from traces.record.oserrors import next_step

__all__ = ["CoreFile", "QemuCpu", "open_core"]

_PAGE: Final = 4096
_PT_LOAD: Final = 1
_PT_NOTE: Final = 4
_PHDR: Final = np.dtype([("type", "<u4"), ("flags", "<u4"), ("offset", "<u8"), ("vaddr", "<u8"), ("paddr", "<u8"),
                         ("filesz", "<u8"), ("memsz", "<u8"), ("align", "<u8")])
#: With -p QEMU writes a segment for each mapped stretch: some hundred thousand on a busy box.
_MAX_SEGMENTS: Final = 1 << 22
#: One note per CPU and VMCOREINFO (at most two pages): far less than this.
_MAX_NOTES: Final = 64 << 20
_MAX_VMCOREINFO: Final = 1 << 20

_TAKE_ELF: Final = ("take it as ELF: 'makedumpfile -E -d 1 VMCORE FILE' for kdump, 'dump-guest-memory FILE' without "
                    "-z, -l and -s in QEMU")
#: How files begin that hold a core in another form, and what to do about it.
_FOREIGN: Final = (
    # No tool turns the compressed form into ELF: the dump has to be taken so.
    (b"KDUMP   ", "is kdump-compressed, which only crash and drgn read", _TAKE_ELF),
    (b"DISKDUMP", "is a diskdump, which only crash reads", _TAKE_ELF),
    (b"makedumpfile\0\0\0\0", "is a flattened ELF core", "put it together with 'makedumpfile -R FILE < THIS'"),
    (b"\x28\xb5\x2f\xfd", "is compressed", "decompress it with 'zstd -d' first"),
    (b"\x1f\x8b", "is compressed", "decompress it with 'gzip -d' first"),
    (b"\xfd7zXZ", "is compressed", "decompress it with 'xz -d' first"),
)
#: In a flattened file the first piece of the dump follows a page of header and two 64-bit numbers.
_FLAT_DATA: Final = 4096 + 16
_HEAD: Final = _FLAT_DATA + 16


@dataclass(frozen=True)
class QemuCpu:
    """Of struct QEMUCPUState (target/i386/arch_dump.c) what address translation needs."""

    cr3: int
    cr4: int


@dataclass
class CoreFile:
    """An open ELF core.

    ``vmcoreinfo``: its lines as key -> value, with keys such as ``SYMBOL(_stext)``; ``cpus``: the QEMU notes;
    ``cut_off``: bytes of memory that the program headers promise and the file does not have.
    """

    path: Path
    data: mmap.mmap | bytes
    vmcoreinfo: dict[str, str] = field(default_factory=dict)
    cpus: list[QemuCpu] = field(default_factory=list)
    cut_off: int = 0
    #: place in the file of a page of memory -> it is zeros from end to end
    _blank: dict[int, bool] = field(default_factory=dict, repr=False)
    #: physical stretches, ascending and apart from each other: start, end, place in the file
    _physical: tuple[list[int], list[int], list[int]] = field(default_factory=lambda: ([], [], []))
    #: the same for the virtual addresses that the program headers give
    _virtual: tuple[list[int], list[int], list[int]] = field(default_factory=lambda: ([], [], []))

    @property
    def memory(self) -> int:
        """Bytes of physical memory in the file."""
        return sum(self._physical[1]) - sum(self._physical[0])

    def physical(self, address: int, size: int) -> bytes | None:
        """Return ``size`` bytes at a physical address, or None when the core has not all of them.

        A page of zeros was left out or blanked: the kernel keeps none of the structures that are read here in such a
        page, and zswap stores no page of zeros.
        """
        return self._find(self._physical, address, size)

    def is_blank(self, address: int, *, virtual: bool = False) -> bool:
        """True where the core has the page of an address, physical or by the program headers, and it is all zeros."""
        starts, ends, places = self._virtual if virtual else self._physical
        page = address & ~(_PAGE - 1)
        at = bisect.bisect_right(starts, page) - 1
        if at < 0 or page + _PAGE > ends[at]:
            return False
        place = places[at] + page - starts[at]
        known = self._blank.get(place)
        if known is None:
            known = self._blank[place] = not any(self.data[place:place + _PAGE])
        return known

    def virtual(self, address: int, size: int) -> bytes | None:
        """The same at a virtual address, by the program headers alone."""
        return self._find(self._virtual, address, size)

    def _find(self, table: tuple[list[int], list[int], list[int]], address: int, size: int) -> bytes | None:
        starts, ends, places = table
        out = b""
        for page in range(address & ~(_PAGE - 1), address + size, _PAGE):
            if self.is_blank(page, virtual=table is self._virtual):
                return None
        while True:
            at = bisect.bisect_right(starts, address) - 1
            if at < 0 or address >= ends[at]:
                return None
            part = min(size - len(out), ends[at] - address)
            place = places[at] + address - starts[at]
            out += self.data[place:place + part]
            if len(out) == size:
                return out
            # A read may run over the seam of two stretches.
            address += part

    def symbol(self, name: str) -> int | None:
        """Return a symbol of VMCOREINFO, or None."""
        return _number(self.vmcoreinfo.get(f"SYMBOL({name})"), 16)

    def number(self, name: str) -> int | None:
        """Return a NUMBER of VMCOREINFO (some are printed in hex), or None."""
        return _number(self.vmcoreinfo.get(f"NUMBER({name})"), 0)


def _number(text: str | None, base: int) -> int | None:
    try:
        return int(text, base) & (1 << 64) - 1 if text is not None and len(text) < 32 else None
    except ValueError:
        return None


def open_core(path: str | Path) -> CoreFile:
    """Open an ELF vmcore of x86-64.

    :raises BadInput: when the file is something else, another form of dump, or has no memory in it
    """
    path = Path(path)
    try:
        with open_input(path, follow=True) as stream:
            head = stream.read(_HEAD)
            _refuse_foreign(path, head)
            if head[:4] != b"\x7fELF":
                raise BadInput(path, "", "is not an ELF core file" if head else "is empty",
                               "give a vmcore of kdump or of QEMU's dump-guest-memory")
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            segments = _segments(path, ELFFile(stream), data)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                       next_step(problem.errno, "check the path")) from None
    except (ELFError, ConstructError, ValueError, struct.error, UnicodeError, OverflowError, AttributeError, TypeError,
            KeyError, IndexError) as problem:
        if isinstance(problem, BadInput):
            raise
        # pyelftools raises whatever its parsing meets in damaged headers.
        raise BadInput(path, "the ELF header", f"is damaged ({problem})", "copy the file again") from None
    core = CoreFile(path, data)
    load = segments[segments["type"] == _PT_LOAD]
    core.cut_off = _place(core, load)
    if not core._physical[0]:
        raise BadInput(path, "the program headers", "name no memory that is in the file",
                       "copy the file again; it may be cut off")
    for note in segments[segments["type"] == _PT_NOTE]:
        _notes(core, int(note["offset"]), min(int(note["filesz"]), _MAX_NOTES))
    return core


def _refuse_foreign(path: Path, head: bytes) -> None:
    """Name the form of a dump that is not a plain ELF file, and how to get one."""
    inner = head[_FLAT_DATA:]
    for magic, what, todo in _FOREIGN:
        if head.startswith(magic):
            # QEMU's -z, -l and -s write the compressed form in pieces.
            if magic.startswith(b"makedumpfile") and inner.startswith(_FOREIGN[0][0]):
                what, todo = "is a flattened and kdump-compressed dump", \
                    f"{_TAKE_ELF} ('makedumpfile -R FILE < THIS' makes one that crash and drgn read)"
            raise BadInput(path, "", what, todo)


def _segments(path: Path, elf: ELFFile, data: mmap.mmap) -> np.ndarray:
    """Return the program headers.

    pyelftools finds the table (also past 65,534 headers, where the count moves into a section); the table
    itself is taken in one go, since ``-p`` makes very many of them.
    """
    header = elf.header
    if elf.elfclass != 64 or not elf.little_endian or header["e_machine"] != "EM_X86_64":
        raise BadInput(path, "the ELF header", "is not of x86-64", "give the core of an x86-64 kernel")
    if header["e_type"] != "ET_CORE":
        raise BadInput(path, "the ELF header", "is not that of a core", "give a vmcore, and the vmlinux as --vmlinux")
    count, at = elf.num_segments(), header["e_phoff"]
    if header["e_phentsize"] != _PHDR.itemsize or not 0 < count <= _MAX_SEGMENTS or at >= len(data):
        raise BadInput(path, "the ELF header", "has no usable program headers", "copy the file again")
    count = min(count, (len(data) - at) // _PHDR.itemsize)
    return np.frombuffer(data[at:at + count * _PHDR.itemsize], _PHDR)


def _place(core: CoreFile, load: np.ndarray) -> int:
    """Fill in which stretches of memory are where; returns how many bytes are missing at the end."""
    size, missing = len(core.data), 0
    found = []
    for offset, vaddr, paddr, filesz in zip(*(load[name].tolist() for name in ("offset", "vaddr", "paddr", "filesz")),
                                            strict=True):
        there = min(filesz, max(0, size - offset))
        missing += filesz - there
        if there:
            found.append((vaddr, paddr, there, offset))
    for table, key in ((core._physical, 1), (core._virtual, 0)):
        starts, ends, places = table
        # -p names a page once for each of its virtual addresses: what is covered already is left out.
        for part in sorted(found, key=lambda p: (p[key], -p[2])):
            begin, length, offset = part[key], part[2], part[3]
            end = begin + length
            if (key == 0 and not begin) or end > 1 << 64:
                continue
            over = max(0, ends[-1] - begin) if ends else 0
            if over < length:
                starts.append(begin + over)
                ends.append(end)
                places.append(offset + over)
    return missing


def _notes(core: CoreFile, at: int, size: int) -> None:
    """Read the notes of one segment: VMCOREINFO and QEMU's CPU states; damage ends it."""
    end = min(at + size, len(core.data))
    while at + 12 <= end:
        namesz, descsz, _ = struct.unpack_from("<III", core.data, at)
        name_at = at + 12
        desc_at = name_at + (namesz + 3 & ~3)
        at = desc_at + (descsz + 3 & ~3)
        if namesz > 64 or desc_at + descsz > end:
            return
        name = core.data[name_at:name_at + namesz].rstrip(b"\0")
        if name == b"VMCOREINFO" and descsz <= _MAX_VMCOREINFO:
            for line in core.data[desc_at:desc_at + descsz].split(b"\n"):
                key, equals, value = line.partition(b"=")
                if equals:
                    core.vmcoreinfo.setdefault(key.decode("ascii", "replace"), value.decode("ascii", "replace"))
        elif name == b"QEMU" and descsz >= 432:
            # version, size; 16 registers, rip, rflags; 10 segments of 24 bytes; cr0..cr4
            cr = struct.unpack_from("<5Q", core.data, desc_at + 8 + 18 * 8 + 10 * 24)
            core.cpus.append(QemuCpu(cr[3], cr[4]))
