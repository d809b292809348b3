# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors, completion records and their codes.

Layouts and status codes: struct iax_hw_desc, struct iax_completion_record, enum iax_opcode and enum
iax_completion_status of include/uapi/linux/idxd.h, Linux 7.3. Flags of compress and decompress:
drivers/crypto/intel/iaa/iaa_crypto.h (7.3; header generation from the posted v13,
<20251104091235.8793-18-kanchana.p.sridhar@intel.com>) and intel/qpl, own_hw_definitions.h. Analytics errors:
intel/qpl, hw_status.h (AD_ERROR_CODE_*). AECS: struct aecs_comp_table_record of iaa_crypto.h.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

__all__ = [
    "AECS_SIZE",
    "DESCRIPTOR_SIZE",
    "RECORD_SIZE",
    "Analytics",
    "Compress",
    "Decompress",
    "Descriptor",
    "Flag",
    "Opcode",
    "Status",
    "pack_record",
]

DESCRIPTOR_SIZE: Final = 64
RECORD_SIZE: Final = 64
#: struct aecs_comp_table_record.
AECS_SIZE: Final = 1568
_DESCRIPTOR: Final = struct.Struct("<IIQQQIHHQIIII")
_RECORD: Final = struct.Struct("<BBBBIQIIIBBHIIIIQQ")


class Opcode(enum.IntEnum):
    """enum iax_opcode, of which these are carried out."""

    NOOP = 0x00
    DRAIN = 0x02
    MEMMOVE = 0x03
    DECOMPRESS = 0x42
    COMPRESS = 0x43
    CRC64 = 0x44


class Flag(enum.IntFlag):
    """IDXD_OP_FLAG_*: fence, block on fault, record address valid, record requested, interrupt requested,
    cache control, AECS and CRC."""

    FENCE = 0x0001
    BOF = 0x0002
    CRAV = 0x0004
    RCR = 0x0008
    RCI = 0x0010
    CC = 0x0100
    RD_SRC2_AECS = 0x010000
    RD_SRC2_2ND = 0x020000
    WR_SRC2_AECS_COMP = 0x040000
    WR_SRC2_AECS_OVFL = 0x080000
    CRC_RFC3720 = 0x200000


class Status(enum.IntEnum):
    """enum iax_completion_status."""

    NONE = 0
    SUCCESS = 0x01
    PAGE_FAULT_IR = 0x04
    ANALYTICS_ERROR = 0x0A
    OUTBUF_OVERFLOW = 0x0B
    BAD_OPCODE = 0x10
    INVALID_FLAGS = 0x11
    NOZERO_RESERVE = 0x12
    INVALID_SIZE = 0x13
    OVERLAP_BUFFERS = 0x16
    INT_HANDLE_INVAL = 0x19
    CRA_XLAT = 0x1A
    CRA_ALIGN = 0x1B
    ADDR_ALIGN = 0x1C
    PRIV_BAD = 0x1D
    TRAFFIC_CLASS_CONF = 0x1E
    PFAULT_RDBA = 0x1F
    HW_ERR1 = 0x20
    HW_ERR_DRB = 0x21
    TRANSLATION_FAIL = 0x22
    PRS_TIMEOUT = 0x23
    WATCHDOG = 0x24
    INVALID_COMP_FLAG = 0x30
    INVALID_FILTER_FLAG = 0x31
    INVALID_INPUT_SIZE = 0x32
    INVALID_NUM_ELEMS = 0x33
    INVALID_SRC1_WIDTH = 0x34
    INVALID_INVERT_OUT = 0x35


#: Bit of the status: the page fault was a write's (DSA_COMP_STATUS_WRITE; intel/qpl's FAULT_TYPE_IS_WRITE).
STATUS_WRITE: Final = 0x80


class Analytics(enum.IntEnum):
    """``error_code`` next to ANALYTICS_ERROR: AD_ERROR_CODE_* of intel/qpl.  0x19 is iaa_crypto.h's
    IAA_ERROR_COMP_BUF_OVERFLOW."""

    OK = 0
    BIGHDR = 1
    UNDEF_CL_CODE = 2
    FIRST_LL_CODE_16 = 3
    FIRST_D_CODE_16 = 4
    NO_LL_CODE = 5
    WRONG_NUM_LL_CODES = 6
    WRONG_NUM_DIST_CODES = 7
    BAD_CL_CODE_LEN = 8
    BAD_LL_CODE_LEN = 9
    BAD_DIST_CODE_LEN = 10
    BAD_LL_CODE = 11
    BAD_D_CODE = 12
    INVALID_BLOCK_TYPE = 13
    INVALID_STORED_LEN = 14
    BAD_EOF = 15
    BAD_LEN = 16
    BAD_DIST = 17
    REF_BEFORE_START = 18
    TIMEOUT = 19
    PRLE_FORMAT_INCORRECT = 20
    OUTPUT_WIDTH_TOO_SMALL = 21
    AECS_ERROR = 22
    SRC1_TOO_SMALL = 23
    SRC2_TOO_SMALL = 24
    UNRECOVERABLE_OUTPUT_OVERFLOW = 25
    DIST_SPANS_MBLOCKS = 26
    LEN_SPANS_MBLOCKS = 27
    INVALID_BLOCK_SIZE = 28
    ZVERIFY_FAILURE = 29
    INVALID_HUFFCODE = 30
    PRLE_BITWIDTH_TOO_LARGE = 31
    TOO_FEW_ELEMENTS_PROCESSED = 32
    TOO_MANY_LL_CODES = 35
    TOO_MANY_D_CODES = 36


class Compress(enum.IntFlag):
    """``compr_flags``: statistics alone, flush, append an end of block, literals alone, header generation in one
    pass, final."""

    STATS_MODE = 1 << 0
    FLUSH_OUTPUT = 1 << 1
    APPEND_EOB = 1 << 2
    GEN_HDR_1_PASS = 1 << 12 | 1 << 13


class Decompress(enum.IntFlag):
    """``decompr_flags``; the driver sets all of these but the last, which verification adds."""

    ENABLE = 1 << 0
    FLUSH_OUTPUT = 1 << 1
    CHECK_FOR_EOB = 1 << 2
    STOP_ON_EOB = 1 << 3
    SUPPRESS_OUTPUT = 1 << 9


class Descriptor(NamedTuple):
    """struct iax_hw_desc."""

    trusted: int  # PASID, reserved bits, privilege
    word: int  # flags, and the operation in the highest byte
    completion_addr: int
    src1_addr: int
    dst_addr: int
    src1_size: int
    int_handle: int
    compr_flags: int
    src2_addr: int
    max_dst_size: int
    src2_size: int
    filter_flags: int
    num_inputs: int

    @property
    def flags(self) -> int:
        """The 24 bits of flags."""
        return self.word & 0xFFFFFF

    @property
    def opcode(self) -> int:
        """The operation's code."""
        return self.word >> 24

    @classmethod
    def parse(cls, raw: bytes | memoryview) -> Descriptor:
        """Take 64 bytes apart."""
        return cls(*_DESCRIPTOR.unpack(raw))

    def pack(self) -> bytes:
        """Return the 64 bytes."""
        return _DESCRIPTOR.pack(*self)


def pack_record(
    status: int,
    error: int = 0,
    completed: int = 0,
    fault_addr: int = 0,
    output_size: int = 0,
    crc: int = 0,
    xor: int = 0,
    fault_info: int = 0,
) -> bytes:
    """Return the 64 bytes of struct iax_completion_record.

    :param completed: ``bytes_completed``, of the source
    :param xor: ``xor_csum``, 16 bits
    """
    return _RECORD.pack(
        status, error, fault_info, 0, completed, fault_addr, 0, 0, output_size, 0, 0, xor, crc, 0, 0, 0, 0, 0
    )
