# SPDX-License-Identifier: GPL-2.0-or-later
"""Just enough of BTF to place probe arguments: parameters of functions, offsets of struct members, values of enums.

Reads the blob of ``/sys/kernel/btf/vmlinux``; mirrors include/uapi/linux/btf.h (Linux 6.12 to 7.3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

__all__ = ["Btf"]

_MAGIC = 0xEB9F
_PTR, _STRUCT, _UNION, _ENUM, _FUNC, _FUNC_PROTO = 2, 4, 5, 6, 12, 13
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG = 8, 9, 10, 11, 18
#: Bytes that follow the 12 of ``struct btf_type``: fixed, and per ``vlen`` entry.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_LAST_KIND = 19
#: Anonymous structs in anonymous unions; no kernel type nests them this deep.
_DEPTH = 8


class Btf:
    """Functions and structs of a BTF blob, of those names that were asked for.

    :param blob: the bytes of a vmlinux BTF
    :param functions: names of functions whose parameters are wanted
    :param structs: names of structs whose members are wanted, and of enums
    :raises ValueError: when the blob is not BTF of this byte order, or ends too early
    """

    def __init__(self, blob: bytes, functions: Iterable[str], structs: Iterable[str]) -> None:
        if len(blob) < 24 or struct.unpack_from("<H", blob)[0] != _MAGIC:
            raise ValueError("not little-endian BTF")
        header, type_at, type_size, string_at, string_size = struct.unpack_from("<5I", blob, 4)
        self._types = blob[header + type_at:header + type_at + type_size]
        self._strings = blob[header + string_at:header + string_at + string_size]
        if len(self._types) < type_size or len(self._strings) < string_size:
            raise ValueError("the BTF ends too early")
        #: Byte offset of each type; type 0 is void.
        self._at = [0]
        self._functions: dict[str, int] = {}
        self._structs: dict[str, int] = {}
        try:
            self._scan(self._names(functions), self._names(structs))
        except (struct.error, KeyError, IndexError):
            raise ValueError("the BTF is damaged") from None

    def _names(self, names: Iterable[str]) -> dict[int, str]:
        """Return string offset -> name, of the names that the string table has."""
        found = {}
        for name in names:
            # Strings are deduplicated: a name that any type has is there once.
            at = self._strings.find(b"\0" + name.encode() + b"\0")
            if at >= 0:
                found[at + 1] = name
        return found

    def _scan(self, functions: dict[int, str], structs: dict[int, str]) -> None:
        at, read = 0, struct.Struct("<III").unpack_from
        types, places = self._types, self._at
        while at + 12 <= len(types):
            name, info, proto = read(types, at)
            kind = info >> 24 & 31
            if not 0 < kind <= _LAST_KIND:
                raise KeyError(kind)
            places.append(at)
            if kind == _FUNC:
                if name in functions:
                    self._functions[functions[name]] = proto
            elif kind in (_STRUCT, _ENUM) and name in structs:
                self._structs.setdefault(structs[name], len(places) - 1)
            at += 12 + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)

    def _string(self, at: int) -> str:
        return self._strings[at:self._strings.index(b"\0", at)].decode("ascii", "replace")

    def _type(self, number: int) -> tuple[int, int, int, int, int]:
        """Return (byte offset, kind, kind flag, vlen, size or type) of a type."""
        at = self._at[number]
        _, info, size = struct.unpack_from("<III", self._types, at)
        return at, info >> 24 & 31, info >> 31, info & 0xFFFF, size

    def parameters(self, function: str) -> list[str] | None:
        """Return a function's parameter names in order, None when the blob does not have it.

        A function of two translation units has the prototype of the last of them.
        """
        number = self._functions.get(function)
        if not number:
            return None
        at, kind, _, count, _ = self._type(number)
        if kind != _FUNC_PROTO:
            return None
        return [self._string(struct.unpack_from("<I", self._types, at + 12 + 8 * i)[0]) for i in range(count)]

    def offset(self, structure: str, member: str) -> int | None:
        """Return a member's byte offset, also inside anonymous structs and unions; None when there is none."""
        found = self.bits(structure, member)
        return None if found is None else found[0] // 8

    def bits(self, structure: str, member: str) -> tuple[int, int] | None:
        """Return where a member begins, in bits, and of a bit field how many it has, else 0; None as :meth:`offset`."""
        number = self._structs.get(structure)
        return self._member(number, member, _DEPTH) if number else None

    def values(self, enum: str) -> dict[str, int]:
        """Return the values of an enum's names; nothing where the enum is unknown."""
        number = self._structs.get(enum)
        at, kind, _, count, _ = self._type(number) if number else (0, 0, 0, 0, 0)
        pairs = [struct.unpack_from("<II", self._types, at + 12 + 8 * i) for i in range(count)] if kind == _ENUM else []
        return {self._string(name): value for name, value in pairs}

    def _member(self, number: int, wanted: str, depth: int) -> tuple[int, int] | None:
        at, kind, flag, count, size = self._type(number)
        for _ in range(_DEPTH):
            if kind not in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
                break
            at, kind, flag, count, size = self._type(size)
        if kind not in (_STRUCT, _UNION) or depth == 0:
            return None
        for i in range(count):
            name, of, offset = struct.unpack_from("<III", self._types, at + 12 + 12 * i)
            # With the kind flag the upper 8 bits are the width of a bit field.
            bits, width = (int(offset & 0xFFFFFF), int(offset >> 24)) if flag else (int(offset), 0)
            if name:
                if self._string(name) == wanted:
                    return bits, width
                continue
            inner = self._member(of, wanted, depth - 1)
            if inner is not None:
                return bits + inner[0], inner[1]
        return None
