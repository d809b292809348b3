# SPDX-License-Identifier: GPL-2.0-or-later
"""Structure layouts from the kernel's BTF: where a member lies, how large a type is.

Mirrors include/uapi/linux/btf.h (as of Linux 7.3).  Offsets and sizes are bytes, those of bit fields bits.
The blob is the ``.BTF`` section of a vmlinux, ``/sys/kernel/btf/vmlinux`` or ``__start_BTF`` in the core.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from traces.errors import BadInput

__all__ = ["VmlinuxBtf", "Member"]

_MAGIC: Final = 0xEB9F
_MAX_BLOB: Final = 256 << 20
_MAX_TYPES: Final = 1 << 24
#: No structure that is read here is nearly as large; a damaged size must not cause reads of gigabytes.
_MAX_STRUCT: Final = 1 << 20
#: Anonymous members and typedefs deeper than this do not exist.
_MAX_DEPTH: Final = 32
(_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR,
 _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64) = range(1, 20)
#: Bytes that follow the 12 of struct btf_type: fixed, and for each of vlen.
_TAIL: Final = {_INT: (4, 0), _PTR: (0, 0), _ARRAY: (12, 0), _STRUCT: (0, 12), _UNION: (0, 12), _ENUM: (0, 8),
                _FWD: (0, 0), _TYPEDEF: (0, 0), _VOLATILE: (0, 0), _CONST: (0, 0), _RESTRICT: (0, 0), _FUNC: (0, 0),
                _FUNC_PROTO: (0, 8), _VAR: (4, 0), _DATASEC: (0, 12), _FLOAT: (0, 0), _DECL_TAG: (4, 0),
                _TYPE_TAG: (0, 0), _ENUM64: (0, 12)}
_NAMELESS: Final = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)


class Member(NamedTuple):
    """A member of a structure: its place from the structure's start in bits, its width in bits, its type."""

    bit: int
    bits: int
    type: int

    @property
    def offset(self) -> int:
        """Byte offset."""
        return self.bit // 8


@dataclass(frozen=True)
class _Type:
    name: int
    kind: int
    vlen: int
    bitfields: bool
    size: int  #: or the type it refers to
    at: int  #: where what follows lies in the type section


class VmlinuxBtf:
    """A parsed blob.

    :param blob: the whole of it
    :param path: what to name in messages
    :raises BadInput: when it is not BTF, or damaged
    """

    def __init__(self, blob: bytes, path: str = "BTF") -> None:
        self.path = path
        if len(blob) > _MAX_BLOB:
            raise self._bad(f"is longer than {_MAX_BLOB} bytes")
        if len(blob) < 24:
            raise self._bad("is too short to be BTF")
        magic, version, _, header, type_at, type_len, str_at, str_len = struct.unpack_from("<HBBIIIII", blob)
        if magic != _MAGIC or version != 1:
            raise self._bad("is not little-endian BTF of version 1")
        if header < 24 or header + max(type_at + type_len, str_at + str_len) > len(blob):
            raise self._bad("is cut off")
        self._types = blob[header + type_at:header + type_at + type_len]
        self._strings = blob[header + str_at:header + str_at + str_len]
        self._at: list[int] = [0]
        self._structs: dict[int, list[int]] = {}
        self._index()
        self._members: dict[int, dict[str, Member]] = {}

    def _bad(self, what: str) -> BadInput:
        return BadInput(self.path, "BTF", what, "give the kernel's own /sys/kernel/btf/vmlinux or vmlinux")

    def _index(self) -> None:
        data, at, end = self._types, 0, len(self._types)
        unpack = struct.Struct("<II").unpack_from
        while at < end:
            if at + 12 > end or len(self._at) > _MAX_TYPES:
                raise self._bad(f"ends within type {len(self._at)}")
            name, info = unpack(data, at)
            kind = info >> 24 & 0x1F
            if kind not in _TAIL:
                raise self._bad(f"has type {len(self._at)} of the unknown kind {kind}")
            if kind in (_STRUCT, _UNION) and name:
                self._structs.setdefault(name, []).append(len(self._at))
            self._at.append(at)
            fixed, each = _TAIL[kind]
            at += 12 + fixed + each * (info & 0xFFFF)
        if at > end:
            raise self._bad(f"ends within type {len(self._at) - 1}")

    def _type(self, number: int) -> _Type:
        if not 0 < number < len(self._at):
            raise self._bad(f"names type {number}, which it does not have")
        name, info, size = struct.unpack_from("<III", self._types, self._at[number])
        return _Type(name, info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31), size, self._at[number] + 12)

    def _name(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end if end >= 0 else offset].decode("utf-8", "replace")

    def _plain(self, number: int) -> int:
        """Follow typedefs and qualifiers."""
        for _ in range(_MAX_DEPTH):
            found = self._type(number)
            if found.kind not in _NAMELESS:
                return number
            number = found.size
        raise self._bad(f"has a circle of types at type {number}")

    def size_of(self, number: int) -> int:
        """Return a type's size in bytes."""
        size = 1
        for _ in range(_MAX_DEPTH):
            found = self._type(self._plain(number))
            if found.kind == _PTR:
                return 8 * size
            if found.kind != _ARRAY:
                return found.size * size
            number, _, count = struct.unpack_from("<III", self._types, found.at)
            size *= count
        raise self._bad(f"has a circle of types at type {number}")

    def struct(self, name: str) -> int | None:
        """Return the number of the structure of that name, or None; the first of several."""
        # Only few of some hundred thousand names are ever asked for: the string is looked up, not decoded.
        at, key = -1, b"\0" + name.encode() + b"\0"
        while (at := self._strings.find(key, at + 1)) >= 0:
            if at + 1 in self._structs:
                return self._structs[at + 1][0]
        return None

    def members(self, number: int, depth: int = 0) -> dict[str, Member]:
        """Return a structure's members, those of anonymous structures and unions in it included."""
        number = self._plain(number)
        if number in self._members:
            return self._members[number]
        found = self._type(number)
        if found.kind not in (_STRUCT, _UNION) or depth > _MAX_DEPTH:
            raise self._bad(f"has type {number}, which should be a structure and is not")
        out: dict[str, Member] = {}
        for index in range(found.vlen):
            name, kind, place = struct.unpack_from("<III", self._types, found.at + 12 * index)
            bits = place >> 24 if found.bitfields else 0
            bit = place & 0xFFFFFF if found.bitfields else place
            if not name:
                if self._type(self._plain(kind)).kind in (_STRUCT, _UNION):
                    for inner, member in self.members(kind, depth + 1).items():
                        out.setdefault(inner, member._replace(bit=bit + member.bit))
                continue
            out.setdefault(self._name(name), Member(bit, bits or 8 * self.size_of(kind), kind))
        self._members[number] = out
        return out

    def size(self, name: str) -> int:
        """Return the size of ``struct name`` in bytes.

        :raises BadInput: when the kernel has no such structure
        """
        number = self.struct(name)
        if number is None:
            raise self._bad(f"has no 'struct {name}'")
        size = self._type(number).size
        if not 0 < size <= _MAX_STRUCT:
            raise self._bad(f"has a 'struct {name}' of {size} bytes")
        return size

    def member(self, name: str, *path: str) -> Member:
        """Return a member of ``struct name``; further names go into members that are structures.

        Of a name with '|' in it the first that exists counts: ``first_zpdesc|first_page``.

        :raises BadInput: when there is none
        """
        number = self.struct(name)
        if number is None:
            raise self._bad(f"has no 'struct {name}'")
        bit, found = 0, Member(0, 0, number)
        for step in path:
            members = self.members(found.type)
            choice = next((part for part in step.split("|") if part in members), None)
            if choice is None:
                raise self._bad(f"has no member '{step}' in 'struct {name}'")
            found = members[choice]
            bit += found.bit
        if bit + found.bits > 8 * self.size(name):
            raise self._bad(f"has a member '{path[-1]}' outside of 'struct {name}'")
        return found._replace(bit=bit)

    def offset(self, name: str, *path: str, size: int = 8) -> int:
        """Return the byte offset of a member that has at least ``size`` bytes.

        :raises BadInput: when there is none, or it is smaller
        """
        found = self.member(name, *path)
        if found.bit % 8 or found.bits < 8 * size:
            raise self._bad(f"has a member '{path[-1]}' of 'struct {name}' with {found.bits} bits, not {8 * size}")
        return found.offset

    def has(self, name: str, step: str) -> bool:
        """True when ``struct name`` exists and has a member of that name."""
        number = self.struct(name)
        return number is not None and step in self.members(number)
