# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbols: from a vmlinux, from kallsyms text or System.map, or from the core's own kallsyms tables.

Mirrors kernel/kallsyms.c and scripts/kallsyms.c, Linux 6.12 to 7.3.  Addresses are virtual.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from traces.errors import BadInput
from traces.files import open_input
from traces.record.oserrors import next_step

__all__ = ["core_symbols", "text_symbols", "vmlinux_parts"]

_LINE: Final = re.compile(rb"^([\da-f]{8,16}) (\w) ([\w.$]+)(?:[ \t]+\[(\w+)\])?\r?$", re.M)
_MAX_TEXT: Final = 512 << 20
_MAX_SYMBOLS: Final = 1 << 23
_MAX_BTF: Final = 256 << 20
#: A name of scripts/kallsyms.c: KSYM_NAME_LEN is 512.
_MAX_NAME: Final = 1 << 12


def text_symbols(path: str | Path, wanted: Iterable[str]) -> dict[str, int]:
    """Read ``/proc/kallsyms`` text or a System.map; of modules' symbols only those that the kernel itself lacks.

    :raises BadInput: when it is neither, or was read without the right to see addresses
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise BadInput(path, "", f"is longer than {_MAX_TEXT} bytes", "give kallsyms text or a System.map")
        with open_input(path, follow=True) as stream:
            data = stream.read()
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                       next_step(problem.errno, "check the path")) from None
    names = {name.encode() for name in wanted}
    found: dict[str, int] = {}
    anything = zero = 0
    for line in _LINE.finditer(data):
        anything += 1
        if line[3] not in names:
            continue
        address = int(line[1], 16)
        zero += not address
        name = line[3].decode()
        if name not in found or not line[4]:
            found[name] = address
    if not anything:
        raise BadInput(path, "", "is neither kallsyms text nor a System.map", "copy /proc/kallsyms as root")
    if zero and zero * 2 > len(found):
        raise BadInput(path, "", "has zeros for addresses", "copy /proc/kallsyms as root (kernel.kptr_restrict)")
    return found


def vmlinux_parts(path: str | Path, wanted: Iterable[str]) -> tuple[dict[str, int], bytes | None]:
    """Return the symbols and the ``.BTF`` section of a vmlinux; either may be missing from it.

    :raises BadInput: when it is not an ELF file of x86-64
    """
    path, names = Path(path), set(wanted)
    try:
        with open_input(path, follow=True) as stream:
            elf = ELFFile(stream)
            if elf.header["e_machine"] != "EM_X86_64" or elf.header["e_type"] == "ET_CORE":
                raise BadInput(path, "", "is not a vmlinux of x86-64", "give the uncompressed vmlinux of the kernel")
            found: dict[str, int] = {}
            table = elf.get_section_by_name(".symtab")
            if isinstance(table, SymbolTableSection):
                for symbol in table.iter_symbols():
                    if symbol.name in names and symbol["st_value"]:
                        found.setdefault(symbol.name, symbol["st_value"])
            section = elf.get_section_by_name(".BTF")
            if section is not None and section.data_size > _MAX_BTF:
                raise BadInput(path, "the section .BTF", "is too long", "give the kernel's own vmlinux")
            return found, section.data() if section is not None else None
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                       next_step(problem.errno, "check the path")) from None
    except (ELFError, ConstructError, ValueError, struct.error, UnicodeError, OverflowError, AttributeError, TypeError,
            KeyError, IndexError, AssertionError) as problem:
        if isinstance(problem, BadInput):
            raise
        raise BadInput(path, "", f"is not a usable ELF file ({problem})",
                       "give the uncompressed vmlinux (scripts/extract-vmlinux makes it of a bzImage)") from None


def core_symbols(read: Callable[[int, int], bytes | None], symbol: Callable[[str], int | None],
                 wanted: Iterable[str]) -> dict[str, int] | None:
    """Read the kernel's kallsyms tables out of its memory; None when VMCOREINFO does not name them.

    :param read: virtual memory, None where it is missing
    :param symbol: a symbol of VMCOREINFO
    """
    tables = [symbol(f"kallsyms_{name}") or 0
              for name in ("names", "num_syms", "token_table", "token_index", "offsets")]
    if not all(tables):
        return None
    names_at, count_at, table_at, index_at, offsets_at = tables
    raw = read(count_at, 4)
    count = int.from_bytes(raw, "little") if raw else 0
    indices = read(index_at, 512)
    if not 0 < count <= _MAX_SYMBOLS or indices is None:
        return None
    starts = struct.unpack("<256H", indices)
    table = read(table_at, max(starts) + 64)
    offsets = read(offsets_at, 4 * count)
    if table is None or offsets is None:
        return None
    tokens = [table[start:table.find(b"\0", start)] for start in starts]
    base_at = symbol("kallsyms_relative_base")
    raw = read(base_at, 8) if base_at else None
    base = int.from_bytes(raw, "little") if raw else None
    return _decode(_Stream(read, names_at), tokens, offsets, base, offsets_at, set(wanted))


class _Stream:
    """Bytes at ascending addresses, read ahead in pages; a missing page reads as the end."""

    def __init__(self, read: Callable[[int, int], bytes | None], at: int) -> None:
        self._read, self._at = read, at
        self._data, self._place = b"", 0

    def take(self, size: int) -> bytes:
        while len(self._data) - self._place < size:
            step = 4096 - (self._at & 4095)
            more = self._read(self._at, step)
            if more is None:
                return b""
            self._data = self._data[self._place:] + more
            self._place = 0
            self._at += step
        out = self._data[self._place:self._place + size]
        self._place += size
        return out


def _decode(stream: _Stream, tokens: list[bytes], offsets: bytes, base: int | None, offsets_at: int,
            wanted: set[str]) -> dict[str, int] | None:
    places = struct.unpack(f"<{len(offsets) // 4}i", offsets)
    names = {name.encode() for name in wanted}
    found: dict[str, int] = {}
    # With CONFIG_KALLSYMS_ABSOLUTE_PERCPU only per-CPU symbols are positive; all others are base - 1 - address.
    negative = base is not None and sum(place < 0 for place in places) * 2 > len(places)
    for number, place in enumerate(places):
        head = stream.take(1)
        if not head:
            return None
        length = head[0]
        if length & 0x80:  # two bytes of length for the few long names
            more = stream.take(1)
            if not more:
                return None
            length = length & 0x7F | more[0] << 7
        if length > _MAX_NAME:
            return None
        packed = stream.take(length)
        if len(packed) < length:
            return None
        name = b"".join([tokens[byte] for byte in packed])[1:]  # the first character is the symbol's type
        if name not in names:
            continue
        if base is None:
            address = offsets_at + 4 * number + place  # 7.x: offset_to_ptr(kallsyms_offsets + number)
        elif negative:
            address = base - 1 - place if place < 0 else place
        else:
            address = base + (place & 0xFFFFFFFF)
        found.setdefault(name.decode(), address & (1 << 64) - 1)
    return found
