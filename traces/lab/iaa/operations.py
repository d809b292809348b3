# SPDX-License-Identifier: GPL-2.0-or-later
"""What a descriptor asks for, carried out: compress, decompress, memmove, crc64; noop and drain have nothing to do.

Nothing is written to the guest here: an :class:`Outcome` holds the output until its time has come. Sources are copied
once, so a guest that changes them meanwhile cannot make a job inconsistent.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final, NamedTuple, cast

import numpy as np

from traces.compiled import at, compiled
from traces.lab.iaa.coder import FIXED_LENGTHS, canonical, dynamic_block, fixed_block
from traces.lab.iaa.descriptors import (
    AECS_SIZE,
    STATUS_WRITE,
    Analytics,
    Compress,
    Decompress,
    Descriptor,
    Flag,
    Opcode,
    Status,
)
from traces.lab.iaa.guestmemory import GuestMemory, MemoryFault
from traces.lab.iaa.inflate import OVERFLOW, inflate

__all__ = ["MAX_TRANSFER", "DeviceOperations", "Outcome", "aecs", "page_fault"]

#: The longest source and the most room that is looked at, in bytes: ours, so that no descriptor keeps the host busy.
#: The driver asks for a page.
MAX_TRANSFER: Final = 2 << 20
#: AECS and its size are multiples of this (intel/qpl, hw_status.h, AD_STATUS_MISALIGNED_ADDRESS; iaa_crypto.h,
#: IAA_AECS_ALIGN).
_AECS_ALIGN: Final = 32
#: Dynamic headers are made of sources of up to 4 KiB (the posted v13, 17/22).
_DYNAMIC_MOST: Final = 4096
_AECS_HEAD: Final = struct.Struct("<II20xI")
_SEL_BFINAL_EOB: Final = 1 << 4  # intel/qpl, ADDF_SEL_BFINAL_EOB; the driver leaves it out
_DECOMPRESS_KNOWN: Final = (
    int(
        Decompress.ENABLE
        | Decompress.FLUSH_OUTPUT
        | Decompress.CHECK_FOR_EOB
        | Decompress.STOP_ON_EOB
        | Decompress.SUPPRESS_OUTPUT
    )
    | _SEL_BFINAL_EOB
)
_ENABLE, _SUPPRESS, _APPEND_EOB, _GEN_HDR = (
    int(Decompress.ENABLE),
    int(Decompress.SUPPRESS_OUTPUT),
    int(Compress.APPEND_EOB),
    int(Compress.GEN_HDR_1_PASS),
)
_COMPRESS_KNOWN: Final = int(Compress.FLUSH_OUTPUT) | _APPEND_EOB | _GEN_HDR
_CRC64_INVERT, _CRC64_BE = 1 << 14, 1 << 15  # intel/qpl, ADC64F_*
_RD_AECS, _RFC3720 = int(Flag.RD_SRC2_AECS), int(Flag.CRC_RFC3720)
_COMPRESS, _DECOMPRESS, _MEMMOVE, _CRC64, _NOTHING = (
    Opcode.COMPRESS,
    Opcode.DECOMPRESS,
    Opcode.MEMMOVE,
    Opcode.CRC64,
    (Opcode.NOOP, Opcode.DRAIN),
)


class Outcome(NamedTuple):
    """How a job ends: its record's fields, and the output that is still to be written."""

    status: int
    error: int = 0
    completed: int = 0
    fault_addr: int = 0
    size: int = 0
    crc: int = 0
    xor: int = 0
    output: bytes | memoryview = b""


def page_fault(address: int, write: bool) -> Outcome:
    """Return the outcome of an access that the guest's memory does not have: PAGE_FAULT_IR, with bit 7 for a write."""
    return Outcome(Status.PAGE_FAULT_IR | (STATUS_WRITE if write else 0), fault_addr=address)


def _refused(status: Status) -> Outcome:
    return Outcome(int(status))


def _analytics(error: int) -> Outcome:
    return Outcome(int(Status.ANALYTICS_ERROR), int(error))


def _fixed_tables() -> bytes:
    # iaa_crypto_comp_fixed.c: an entry has the code's bits, first bit highest, and from bit 15 on its length.
    codes = np.zeros(288, np.int32)
    cast(Any, canonical).py_func(FIXED_LENGTHS, codes)
    entries = [
        int(f"{code:0{bits}b}"[::-1], 2) | bits << 15
        for code, bits in zip(codes.tolist(), FIXED_LENGTHS.tolist(), strict=True)
    ]
    return struct.pack("<286I8x30I", *entries[:286], *(symbol | 5 << 15 for symbol in range(30)))


_TABLES_AT: Final = 32 + 256
_FIXED_TABLES: Final = _fixed_tables()


def aecs() -> bytes:
    """Return the state that the driver hands over (init_fixed_mode()): three bits of header, and the fixed code."""
    return (_AECS_HEAD.pack(0, 0, 3) + b"\3" + bytes(255) + _FIXED_TABLES).ljust(AECS_SIZE, b"\0")


@compiled
def _xor(data: Any) -> Any:
    """intel/qpl's XOR checksum: of 16-bit words, a last byte alone by itself."""
    total = np.int64(0)
    for k in range(0, len(data) - 1, 2):
        total ^= np.int64(data[at(k)]) | np.int64(data[at(k + 1)]) << 8
    if len(data) & 1:
        total ^= np.int64(data[at(len(data) - 1)])
    return total


def _crc32c_table() -> Any:
    table = np.zeros(256, np.uint32)
    for number in range(256):
        value = number
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table[number] = value
    return table


_CRC32C: Final = _crc32c_table()


@compiled
def _crc32c(data: Any, table: Any) -> Any:
    """RFC 3720's CRC, which IDXD_OP_FLAG_CRC_RFC3720 asks for."""
    value = np.uint32(0xFFFFFFFF)
    for k in range(len(data)):
        value = value >> np.uint32(8) ^ table[at((value ^ np.uint32(data[at(k)])) & np.uint32(255))]
    return np.int64(value ^ np.uint32(0xFFFFFFFF))


@compiled
def _crc64(data: Any, polynomial: Any, reflected: bool, invert: bool) -> Any:
    """intel/qpl's qplc_crc64(): bits of a byte highest first, or (ADC64F_BE) lowest first with the result turned round.

    Inverting is limited to the polynomial's width: from its lowest bit up.
    """
    one, mask = np.uint64(1), polynomial
    for shift in (1, 2, 4, 8, 16, 32):
        mask |= mask << np.uint64(shift)
    value = mask if invert else np.uint64(0)
    for k in range(len(data)):
        byte = np.uint64(data[at(k)])
        for bit in range(8):
            carried = (value >> np.uint64(63) ^ byte >> np.uint64(bit if reflected else 7 - bit)) & one
            value <<= one
            if carried:
                value ^= polynomial
    if invert:
        value ^= mask
    if reflected:
        turned = np.uint64(0)
        for bit in range(64):
            turned |= (value >> np.uint64(bit) & one) << np.uint64(63 - bit)
        value = turned
    return value


class DeviceOperations:
    """Carries out descriptors on one guest's memory.

    :param version: 2 makes dynamic headers where a descriptor asks for them
    """

    def __init__(self, memory: GuestMemory, version: int) -> None:
        self._memory = memory
        self._dynamic = version > 1
        self._scratch = np.empty(1 << 16, np.uint8)
        self._checked: bytes = b""
        #: what the job at hand read, None where it read nothing
        self.source: bytes | None = None

    def _room(self, size: int) -> Any:
        if size > len(self._scratch):
            self._scratch = np.empty(size, np.uint8)
        return self._scratch[:size]

    def warm(self) -> None:
        """Compile, or load, what jobs will run: the first does not wait for it."""
        page = np.frombuffer(bytes(64), np.uint8)
        room = self._room(128)
        for block in (fixed_block, dynamic_block):
            length = block(page, room)
            inflate(np.frombuffer(room[:length].tobytes(), np.uint8), np.empty(64, np.uint8), False)
        _xor(page)
        _crc32c(page, _CRC32C)
        _crc64(page, np.uint64(1), False, False)

    def perform(self, descriptor: Descriptor) -> Outcome:
        """Carry out, and return what there is to write.  Never raises: what is wrong is the outcome's status."""
        opcode, self.source = descriptor.word >> 24, None
        try:
            if opcode == _COMPRESS:
                return self._compress(descriptor)
            if opcode == _DECOMPRESS:
                return self._decompress(descriptor)
            if opcode == _MEMMOVE:
                return self._memmove(descriptor)
            if opcode == _CRC64:
                return self._crc64(descriptor)
        except MemoryFault as fault:
            return page_fault(fault.address, fault.write)
        return Outcome(int(Status.SUCCESS)) if opcode in _NOTHING else _refused(Status.BAD_OPCODE)

    def first_bytes(self, descriptor: Descriptor, count: int) -> bytes:
        """The first bytes of a descriptor's source, for rules that look at them; empty where they cannot be read."""
        if descriptor.word >> 24 in _NOTHING:
            return b""
        try:
            return bytes(self._memory.read(descriptor.src1_addr, min(count, descriptor.src1_size)))
        except MemoryFault:
            return b""

    def _source(self, descriptor: Descriptor) -> bytes | None:
        size = descriptor.src1_size
        self.source = bytes(self._memory.read(descriptor.src1_addr, size)) if 0 < size <= MAX_TRANSFER else None
        return self.source

    @staticmethod
    def _overlap(descriptor: Descriptor, room: int) -> bool:
        return (
            descriptor.src1_addr < descriptor.dst_addr + room
            and descriptor.dst_addr < descriptor.src1_addr + descriptor.src1_size
        )

    def _sums(self, descriptor: Descriptor, data: bytes, seen: Any) -> tuple[int, int]:
        crc = _crc32c(seen, _CRC32C) if descriptor.word & _RFC3720 else zlib.crc32(data)
        return crc, _xor(seen)

    def _compress(self, descriptor: Descriptor) -> Outcome:
        how, room = descriptor.compr_flags, min(descriptor.max_dst_size, MAX_TRANSFER)
        dynamic = how & _GEN_HDR
        if how & ~_COMPRESS_KNOWN or not how & _APPEND_EOB or (dynamic and not (self._dynamic and dynamic == _GEN_HDR)):
            return _refused(Status.INVALID_COMP_FLAG)
        if not dynamic:
            trouble = self._aecs(descriptor)
            if trouble is not None:
                return trouble
        source = self._source(descriptor)
        if source is None or not room or (dynamic and len(source) > _DYNAMIC_MOST):
            return _refused(Status.INVALID_SIZE)
        if self._overlap(descriptor, room):
            return _refused(Status.OVERLAP_BUFFERS)
        seen, target = np.frombuffer(source, np.uint8), self._room(room)
        length = (dynamic_block if dynamic else fixed_block)(seen, target)
        if not length:
            return _analytics(Analytics.UNRECOVERABLE_OUTPUT_OVERFLOW)
        crc, xor = self._sums(descriptor, source, seen)
        return Outcome(1, 0, len(source), 0, length, crc, xor, target[:length].tobytes())

    def _aecs(self, descriptor: Descriptor) -> Outcome | None:
        """Look at the state that the driver made (init_fixed_mode()): three bits of header, and the code of RFC 1951.

        The hardware would code with any table and behind any header; this device knows this one, and refuses others.
        """
        if not descriptor.word & _RD_AECS:
            return _analytics(Analytics.AECS_ERROR)
        if descriptor.src2_addr % _AECS_ALIGN or descriptor.src2_size % _AECS_ALIGN:
            return _refused(Status.ADDR_ALIGN)
        if descriptor.src2_size != AECS_SIZE:
            return _refused(Status.INVALID_SIZE)
        state = bytes(self._memory.read(descriptor.src2_addr, AECS_SIZE))
        if state == self._checked:
            return None
        crc, xor, bits = _AECS_HEAD.unpack_from(state)
        if (
            crc
            or xor
            or bits != 3
            or state[32] & 7 != 3
            or state[_TABLES_AT : _TABLES_AT + len(_FIXED_TABLES)] != _FIXED_TABLES
        ):
            return _analytics(Analytics.AECS_ERROR)
        self._checked = state
        return None

    def _decompress(self, descriptor: Descriptor) -> Outcome:
        how, room = descriptor.compr_flags, min(descriptor.max_dst_size, MAX_TRANSFER)
        if how & ~_DECOMPRESS_KNOWN or not how & _ENABLE:
            return _refused(Status.INVALID_COMP_FLAG)
        if descriptor.filter_flags:
            return _refused(Status.INVALID_FILTER_FLAG)
        source = self._source(descriptor)
        if source is None or not room:
            return _refused(Status.INVALID_SIZE)
        if not how & _SUPPRESS and self._overlap(descriptor, room):
            return _refused(Status.OVERLAP_BUFFERS)
        target = self._room(room)
        length, error, used = inflate(np.frombuffer(source, np.uint8), target, bool(how & _SEL_BFINAL_EOB))
        if error == OVERFLOW:
            return _refused(Status.OUTBUF_OVERFLOW)
        if error:
            return _analytics(error)
        seen = target[:length]
        output = seen.tobytes()
        seen = np.frombuffer(output, np.uint8)
        crc, xor = self._sums(descriptor, output, seen)
        return Outcome(1, 0, used, 0, length, crc, xor, b"" if how & _SUPPRESS else output)

    def _memmove(self, descriptor: Descriptor) -> Outcome:
        source = self._source(descriptor)
        if source is None:
            return _refused(Status.INVALID_SIZE)
        # No checksum is defined for it; the size is the source's.
        return Outcome(1, 0, len(source), output=source)

    def _crc64(self, descriptor: Descriptor) -> Outcome:
        source = self._source(descriptor)
        if source is None:
            return _refused(Status.INVALID_SIZE)
        if descriptor.compr_flags & ~(_CRC64_BE | _CRC64_INVERT):
            return _refused(Status.INVALID_COMP_FLAG)
        polynomial = np.uint64(descriptor.filter_flags | descriptor.num_inputs << 32)
        value = int(
            _crc64(
                np.frombuffer(source, np.uint8),
                polynomial,
                bool(descriptor.compr_flags & _CRC64_BE),
                bool(descriptor.compr_flags & _CRC64_INVERT),
            )
        )
        # Where the record has its 64 bits is not public: here in output_size (low) and crc (high), which are 12 bytes
        # apart.
        return Outcome(1, 0, len(source), size=value & 0xFFFFFFFF, crc=value >> 32)
