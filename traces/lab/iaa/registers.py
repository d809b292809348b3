# SPDX-License-Identifier: GPL-2.0-or-later
"""BAR 0 of the device: offsets, commands and capability words.

Offsets, fields and command codes are those of drivers/dma/idxd/registers.h, Linux 7.3.  GENCAP, OPCAP, the version and
how many groups, queues, engines and descriptors there are: a real device's (4th generation Xeon), of which Intel's
"RocksDB (De)compression by IAA Tuning Guide" prints `accel-config list`.  Bits 40 and 41 of GENCAP and the bits of
IAACAP have their names from intel/qpl, hw_devices.h.  What is ours is marked.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = [
    "BAR0_SIZE",
    "ENGINES",
    "GROUPS",
    "QUEUES",
    "InterruptCause",
    "Command",
    "CommandStatus",
    "DeviceState",
    "HaltReset",
    "capabilities",
]

#: The greatest there are of each (accel-config list).
QUEUES, ENGINES, GROUPS, DESCRIPTORS = 8, 8, 4, 128

BAR0_SIZE: Final = 0x10000  # ours: the tables below end before
PORTAL_PAGE: Final = 0x1000
#: idxd_get_wq_portal_full_offset(): unlimited and limited portals, for MSI-X and for IMS, a page each.
PORTALS_PER_QUEUE: Final = 4

VERSION, GENCAP, WQCAP, GRPCAP, ENGCAP, OPCAP, OFFSETS = 0x00, 0x10, 0x20, 0x30, 0x38, 0x40, 0x60
GENCFG, GENCTRL, GENSTATS, INTCAUSE, CMD, CMDSTS, CMDCAP = 0x80, 0x88, 0x90, 0x98, 0xA0, 0xA8, 0xB0
SWERR, SWERR_SIZE, EVLCFG, EVLSTATUS, IAACAP = 0xC0, 32, 0xE0, 0xF0, 0x180
#: Where the tables are, which OFFSETS says in units of 0x100: ours. MSI-X table and PBA are named by the PCI
#: capability.
MSIX_PERM, GRPCFG, WQCFG, MSIX_TABLE, MSIX_PBA = 0x300, 0x400, 0x500, 0x2000, 0x3000
GRPCFG_SIZE, WQCFG_SIZE = 64, 32
GRPENGCFG: Final = 32  # within a group's registers

GENCTRL_SOFTERR, GENCTRL_HALT = 1, 2
SWERR_VALID, SWERR_OVERFLOW, SWERR_DESC_VALID, SWERR_WQ_VALID, SWERR_FAULT_WRITE = 1, 2, 4, 8, 32
CMDSTS_ACTIVE: Final = 1 << 31
#: union idxd_command_reg.
COMMAND_OPERAND, COMMAND_SHIFT, COMMAND_MASK, COMMAND_INTERRUPT = 0xFFFFF, 20, 31, 1 << 31
#: union wqcfg: byte and mask of its fields.
WQCFG_MODE_BYTE, WQCFG_DEDICATED, WQCFG_PRIORITY_SHIFT = 8, 1, 4
WQCFG_STATE_BYTE, WQCFG_STATE_MASK, WQCFG_STATE_ENABLED = 27, 0xC0, 0x40


class DeviceState(enum.IntEnum):
    """enum idxd_device_status_state."""

    DISABLED = 0
    ENABLED = 1
    DRAIN = 2
    HALT = 3


class HaltReset(enum.IntEnum):
    """enum idxd_device_reset_type: what a halted device needs."""

    SOFTWARE = 0
    FLR = 1
    WARM = 2
    COLD = 3


class InterruptCause(enum.IntFlag):
    """INTCAUSE, IDXD_INTC_*."""

    ERR = 0x01
    CMD = 0x02
    HALT_STATE = 0x10


class Command(enum.IntEnum):
    """enum idxd_cmd."""

    ENABLE_DEVICE = 1
    DISABLE_DEVICE = 2
    DRAIN_ALL = 3
    ABORT_ALL = 4
    RESET_DEVICE = 5
    ENABLE_WQ = 6
    DISABLE_WQ = 7
    DRAIN_WQ = 8
    ABORT_WQ = 9
    RESET_WQ = 10
    DRAIN_PASID = 11
    ABORT_PASID = 12


class CommandStatus(enum.IntEnum):
    """enum idxd_cmdsts_err."""

    SUCCESS = 0
    INVAL_CMD = 1
    INVAL_WQIDX = 2
    HW_ERR = 3
    ERR_DEV_ENABLED = 0x10
    ERR_CONFIG = 0x11
    ERR_BUSMASTER_EN = 0x12
    ERR_WQ_SIZE_ERANGE = 0x14
    ERR_GRP_CONFIG = 0x15
    ERR_DEV_NOTEN = 0x20
    ERR_WQ_ENABLED = 0x21
    ERR_WQ_SIZE = 0x22
    ERR_WQ_MODE = 0x24
    ERR_DIS_DEV_EN = 0x31
    ERR_DEV_NOT_EN = 0x32


#: GENCAP of that device: block on fault, cache control of memory, destination readback, transfers up to 2
#: GiB, 2048 IMS entries, configurable, decompression (bit 40). No command capabilities (bit 4), so the driver takes
#: vectors' numbers for interrupt handles.
_GENCAP: Final = 0x71F10901F0105
#: OPCAP of the same: noop, drain, memmove; decompress, compress, crc64, zero (de)compress 32 and 16, scan, set
#: membership, extract, select, RLE burst, find unique, expand. The device here carries out the first six and
#: completes the rest with BAD_OPCODE.
_OPCAP: Final = (0xD, 0x7F331C, 0, 0)
_WQCAP_SHARED, _WQCAP_DEDICATED, _WQCAP_ATS, _WQCAP_PRIORITY, _WQCAP_OCCUPANCY = (
    1 << 48,
    1 << 49,
    1 << 50,
    1 << 51,
    1 << 52,
)
#: Header generation (bit 8), which v14 asks for before it registers deflate-iaa-dynamic.
_IAACAP_HEADER_GEN: Final = 1 << 8


def capabilities(version: int, descriptors: int = DESCRIPTORS) -> dict[int, tuple[int, int]]:
    """Return what may only be read: offset -> (value, size in bytes).

    :param version: 1, or 2 for a device that makes dynamic headers
    :param descriptors: total size of its queues
    """
    words = {
        VERSION: (version << 8, 4),
        GENCAP: (_GENCAP, 8),
        GRPCAP: (GROUPS, 8),
        ENGCAP: (ENGINES, 8),
        # Shared queues are left out, as no ENQCMD reaches the device; the occupancy register is served.
        WQCAP: (descriptors | QUEUES << 16 | _WQCAP_DEDICATED | _WQCAP_ATS | _WQCAP_PRIORITY | _WQCAP_OCCUPANCY, 8),
        OFFSETS: (GRPCFG >> 8 | WQCFG >> 8 << 16 | MSIX_PERM >> 8 << 32, 8),
        CMDCAP: (0, 4),
        IAACAP: (_IAACAP_HEADER_GEN if version > 1 else 0, 8),
    }
    for number, word in enumerate(_OPCAP):
        words[OPCAP + 8 * number] = (word, 8)
    return words
