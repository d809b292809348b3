# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI configuration space: the device's identity, two BARs, a PCI Express capability with FLR, MSI-X.

Offsets and bits are those of include/uapi/linux/pci_regs.h. QEMU keeps BARs, MSI-X table and the command register
itself; from what it writes through the device knows where its portals are and whether it
may reach memory.
"""

from __future__ import annotations

import struct
from typing import Final

from traces.lab.iaa.registers import BAR0_SIZE, MSIX_PBA, MSIX_TABLE, PORTAL_PAGE, PORTALS_PER_QUEUE, QUEUES

__all__ = ["CONFIG_SIZE", "DEVICE_ID", "PORTALS_SIZE", "VECTORS", "VENDOR_ID", "ConfigSpace"]

#: drivers/dma/idxd/init.c binds 8086:0cfe (PCI_DEVICE_ID_INTEL_IAX_SPR0).
VENDOR_ID, DEVICE_ID = 0x8086, 0x0CFE
CONFIG_SIZE: Final = 0x1000
PORTALS_SIZE: Final = QUEUES * PORTALS_PER_QUEUE * PORTAL_PAGE
#: One for the device's own interrupt, one a queue (idxd_setup_interrupts()).
VECTORS: Final = QUEUES + 1

_COMMAND, _MASTER = 0x04, 0x04
_BAR0, _BAR2, _BARS_END = 0x10, 0x18, 0x28
_EXPRESS, _MSIX = 0x40, 0x80
_DEVCTL, _FLR = _EXPRESS + 8, 0x8000
_BAR_64: Final = 0xC  # 64 bits, prefetchable


class ConfigSpace:
    """4096 bytes; of what a guest may write only the command register, BARs and device control are kept."""

    def __init__(self) -> None:
        self._bytes = bytearray(CONFIG_SIZE)
        self.reset()

    def reset(self) -> None:
        """As after power on."""
        data = self._bytes
        data[:] = bytes(CONFIG_SIZE)
        # Vendor, device, command, status (has capabilities), revision, programming interface, subclass, class (system
        # peripheral).
        struct.pack_into("<HHHHBBBB", data, 0, VENDOR_ID, DEVICE_ID, 0, 0x10, 0, 0, 0x80, 0x08)
        struct.pack_into("<Q", data, _BAR0, _BAR_64)
        struct.pack_into("<Q", data, _BAR2, _BAR_64)
        struct.pack_into("<HH", data, 0x2C, VENDOR_ID, 0)
        data[0x34] = _EXPRESS
        # PCI Express: version 2, root complex integrated endpoint; it can be reset (bit 28), its payloads are the
        # smallest.
        struct.pack_into("<BBHIHH", data, _EXPRESS, 0x10, _MSIX, 0x0092, 0x10008000, 0, 0)
        struct.pack_into("<BBHII", data, _MSIX, 0x11, 0, VECTORS - 1, MSIX_TABLE, MSIX_PBA)

    @property
    def bus_master(self) -> bool:
        """The guest lets the device reach memory."""
        return bool(self._bytes[_COMMAND] & _MASTER)

    @property
    def portals(self) -> int:
        """Guest address of BAR 2; 0 before it was given."""
        address: int = struct.unpack_from("<Q", self._bytes, _BAR2)[0]
        return address & ~15

    def read(self, offset: int, count: int) -> bytes:
        """Read within the space."""
        return bytes(self._bytes[offset : offset + count])

    def write(self, offset: int, data: bytes) -> bool:
        """Write within the space.

        :returns: True when this begins a function level reset
        """
        flr = False
        for number, byte in enumerate(data, offset):
            if number in (_COMMAND, _COMMAND + 1) or _EXPRESS + 8 <= number < _EXPRESS + 10:
                if number == _DEVCTL + 1 and byte & _FLR >> 8:
                    flr = True
                    byte &= ~(_FLR >> 8) & 0xFF
                self._bytes[number] = byte
            elif _MSIX + 2 <= number < _MSIX + 4:
                # The table's size is fixed; enable and mask are the guest's.
                self._bytes[number] = self._msix(number, byte)
            elif _BAR0 <= number < _BARS_END:
                self._bytes[number] = self._bar(number, byte)
        return flr

    def _msix(self, number: int, byte: int) -> int:
        return self._bytes[number] if number == _MSIX + 2 else byte & 0xC0 | self._bytes[number] & 0x3F

    def _bar(self, number: int, byte: int) -> int:
        # Address bits below the size are fixed, which is how a size is found.
        place = number - _BAR0
        size = (BAR0_SIZE, PORTALS_SIZE, 0)[place // 8]
        mask = ~(size - 1) >> 8 * (place % 8) & 0xFF if size else 0
        return byte & mask | self._bytes[number] & ~mask & (0x0F if place % 8 == 0 else 0)
