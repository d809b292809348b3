# SPDX-License-Identifier: GPL-2.0-or-later
"""The vfio-user protocol, server's side: messages of one client (QEMU) about one PCI device.

After docs/interop/vfio-user.rst of QEMU 11.1: 16 bytes of header, then what the command has; commands and flags carry
their names from there. File descriptors (guest memory, interrupts) arrive as SCM_RIGHTS. A message that cannot be
right is answered with an errno and changes nothing; one whose length cannot be right ends the connection, as nothing
after it can be found.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from traces.lab.iaa.guestmemory import GuestMemory, Overlap

__all__ = ["CONFIG_REGION", "MAX_MESSAGE", "MSIX_INDEX", "Connection", "PciDevice", "commands"]

HEADER: Final = struct.Struct("<HHIII")
REPLY, TYPE, NO_REPLY, ERROR = 0x1, 0xF, 0x10, 0x20
(
    VERSION,
    DMA_MAP,
    DMA_UNMAP,
    GET_INFO,
    GET_REGION_INFO,
    GET_REGION_IO_FDS,
    GET_IRQ_INFO,
    SET_IRQS,
    REGION_READ,
    REGION_WRITE,
    DMA_READ,
    DMA_WRITE,
    DEVICE_RESET,
) = range(1, 14)
REGION_WRITE_MULTI: Final = 15
#: VFIO's indices of PCI devices (include/uapi/linux/vfio.h): BAR 0 to 5, ROM, configuration space, VGA; INTx, MSI,
#: MSI-X, error, request.
CONFIG_REGION, _REGIONS = 7, 9
MSIX_INDEX, _IRQS = 2, 5
_REGION_READ, _REGION_WRITE = 1, 2
_DEVICE_RESET, _DEVICE_PCI = 1, 2
_IRQ_EVENTFD: Final = 1
_DATA_NONE, _DATA_BOOL, _DATA_EVENTFD, _ACTION_MASK, _ACTION_UNMASK, _ACTION_TRIGGER = 1, 2, 4, 8, 16, 32
_UNMAP_ALL: Final = 2
_MAP_READ, _MAP_WRITE = 1, 2

_MAX_TRANSFER: Final = 1 << 20
#: The longest message that is read, in bytes: one that writes as much as was agreed on.
MAX_MESSAGE: Final = _MAX_TRANSFER + 256
_MAX_FDS: Final = 8
_REGION = struct.Struct("<QII")
_NAMES: Final = {
    VERSION: "version",
    DMA_MAP: "dma_map",
    DMA_UNMAP: "dma_unmap",
    GET_INFO: "get_info",
    GET_REGION_INFO: "get_region_info",
    GET_REGION_IO_FDS: "get_region_io_fds",
    GET_IRQ_INFO: "get_irq_info",
    SET_IRQS: "set_irqs",
    REGION_READ: "region_read",
    REGION_WRITE: "region_write",
    DEVICE_RESET: "device_reset",
    REGION_WRITE_MULTI: "region_write_multi",
}


def commands(counts: Counter[int]) -> dict[str, int]:
    """Name the counts of :class:`Connection`."""
    return {_NAMES.get(number, f"command {number}"): count for number, count in sorted(counts.items())}


class PciDevice(Protocol):
    """What a connection serves."""

    @property
    def regions(self) -> dict[int, int]:
        """Index of a region -> its size in bytes."""

    @property
    def vectors(self) -> int:
        """How many MSI-X vectors there are."""

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Read within a region; as many bytes as were asked for."""

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Write within a region."""

    def reset(self) -> None:
        """As if power had just come (VFIO_USER_DEVICE_RESET)."""


class _Refused(Exception):
    """A message is answered with an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


class Connection:
    """One client's messages to one device.

    ``memory`` is the guest's, which the device shares; ``counts`` has how many messages of each command came.
    """

    def __init__(self, sock: socket.socket, device: PciDevice, memory: GuestMemory) -> None:
        self.socket = sock
        self.device = device
        self.memory = memory
        self.counts: Counter[int] = Counter()
        self.refused = 0
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._eventfds: dict[int, int] = {}
        self._agreed = False
        self._handlers = {
            VERSION: self._version,
            DMA_MAP: self._dma_map,
            DMA_UNMAP: self._dma_unmap,
            GET_INFO: self._info,
            GET_REGION_INFO: self._region_info,
            GET_IRQ_INFO: self._irq_info,
            SET_IRQS: self._set_irqs,
            REGION_READ: self._read,
            REGION_WRITE: self._write,
            REGION_WRITE_MULTI: self._write_multi,
            DEVICE_RESET: self._reset,
        }

    def interrupt(self, vector: int) -> bool:
        """Signal an MSI-X vector; False where the guest has not set it up."""
        fd = self._eventfds.get(vector)
        if fd is None:
            return False
        # A counter that is full is an interrupt that is pending anyway.
        with contextlib.suppress(OSError):
            os.eventfd_write(fd, 1)
        return True

    def close(self) -> None:
        """Close everything that came from the client, and its memory."""
        for fd in [*self._fds, *self._eventfds.values()]:
            os.close(fd)
        self._fds.clear()
        self._eventfds.clear()
        self.memory.clear()
        self.socket.close()

    def receive(self, before: Callable[[], None] | None = None) -> bool:
        """Handle what the client sent; blocks until it sent something.

        :param before: called when messages have come, before the first is handled
        :returns: False when it has gone, or sent what cannot be a message
        """
        try:
            data, ancillary, _, _ = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(4 * _MAX_FDS))
        except (ConnectionResetError, InterruptedError):
            return False
        for level, kind, blob in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(blob[: len(blob) - len(blob) % 4])
                self._fds += numbers
        if not data:
            return False
        if before is not None:
            before()
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= HEADER.size:
            ident, command, size, flags, _ = HEADER.unpack_from(buffer, at)
            if not HEADER.size <= size <= MAX_MESSAGE:
                return False
            if len(buffer) - at < size:
                break
            body = bytes(buffer[at + HEADER.size : at + size])
            at += size
            # The kernel ends a read behind the data that descriptors came with: they belong to the last message in it.
            fds: list[int] = []
            if at == len(buffer):
                fds, self._fds = self._fds, []
            if not self._handle(ident, command, flags, body, fds):
                return False
        del buffer[:at]
        return True

    def _handle(self, ident: int, command: int, flags: int, body: bytes, fds: list[int]) -> bool:
        self.counts[command] += 1
        answer, error = b"", 0
        try:
            if flags & TYPE:
                raise _Refused(errno.EINVAL)
            if not self._agreed and command != VERSION:
                raise _Refused(errno.EPROTO)
            handler = self._handlers.get(command)
            if handler is None:
                raise _Refused(errno.ENOTSUP)
            answer = handler(body, fds)
        except _Refused as refusal:
            error = refusal.number
        except struct.error:
            error = errno.EINVAL
        finally:
            for fd in fds:
                os.close(fd)
        if error:
            self.refused += 1
            answer = b""
        if flags & NO_REPLY or flags & TYPE:
            return True
        head = HEADER.pack(ident, command, HEADER.size + len(answer), REPLY | (ERROR if error else 0), error)
        try:
            self.socket.sendall(head + answer)
        except OSError:
            return False
        return True

    def _version(self, body: bytes, fds: list[int]) -> bytes:
        major, minor = struct.unpack_from("<HH", body)
        if major:
            raise _Refused(errno.ENOTSUP)
        self._agreed = True
        mine = {"capabilities": {"max_msg_fds": _MAX_FDS, "max_data_xfer_size": _MAX_TRANSFER, "write_multiple": True}}
        return struct.pack("<HH", 0, min(minor, 1)) + json.dumps(mine).encode() + b"\0"

    def _dma_map(self, body: bytes, fds: list[int]) -> bytes:
        _, flags, offset, address, size = struct.unpack_from("<IIQQQ", body)
        try:
            self.memory.map(
                address, size, fds[0] if fds else None, offset, bool(flags & _MAP_READ), bool(flags & _MAP_WRITE)
            )
        except Overlap:
            raise _Refused(errno.EEXIST) from None
        except (ValueError, OverflowError):
            raise _Refused(errno.EINVAL) from None
        except OSError as problem:
            raise _Refused(problem.errno or errno.EIO) from None
        return b""

    def _dma_unmap(self, body: bytes, fds: list[int]) -> bytes:
        _, flags, address, size = struct.unpack_from("<IIQQ", body)
        if flags & _UNMAP_ALL:
            self.memory.clear()
        elif not self.memory.unmap(address, size):
            raise _Refused(errno.ENOENT)
        return body[:24]

    def _info(self, body: bytes, fds: list[int]) -> bytes:
        return struct.pack("<IIII", 16, _DEVICE_RESET | _DEVICE_PCI, _REGIONS, _IRQS)

    def _region_info(self, body: bytes, fds: list[int]) -> bytes:
        _, _, index, _ = struct.unpack_from("<IIII", body)
        if index >= _REGIONS:
            raise _Refused(errno.EINVAL)
        size = self.device.regions.get(index, 0)
        return struct.pack("<IIIIQQ", 32, _REGION_READ | _REGION_WRITE if size else 0, index, 0, size, 0)

    def _irq_info(self, body: bytes, fds: list[int]) -> bytes:
        _, _, index, _ = struct.unpack_from("<IIII", body)
        if index >= _IRQS:
            raise _Refused(errno.EINVAL)
        count = self.device.vectors if index == MSIX_INDEX else 0
        return struct.pack("<IIII", 16, _IRQ_EVENTFD if count else 0, index, count)

    def _set_irqs(self, body: bytes, fds: list[int]) -> bytes:
        _, flags, index, start, count = struct.unpack_from("<IIIII", body)
        if index >= _IRQS:
            raise _Refused(errno.EINVAL)
        if index != MSIX_INDEX:
            return b""
        if start + count > self.device.vectors or (flags & _DATA_EVENTFD and fds and len(fds) != count):
            raise _Refused(errno.EINVAL)
        if not flags & _ACTION_TRIGGER:
            # QEMU masks in its own MSI-X table.
            return b""
        if flags & _DATA_BOOL:
            for number, fires in enumerate(body[20 : 20 + count], start):
                if fires:
                    self.interrupt(number)
            return b""
        if flags & _DATA_NONE and count:
            for number in range(start, start + count):
                self.interrupt(number)
            return b""
        # A count of 0 disables all; an event without a descriptor disables its vector.
        for number in range(start, start + count) if count else list(self._eventfds):
            old = self._eventfds.pop(number, None)
            if old is not None:
                os.close(old)
        for number in range(start, start + count):
            if fds:
                fd = fds.pop(0)
                # A counter that is full must not stop the device.
                os.set_blocking(fd, False)
                self._eventfds[number] = fd
        return b""

    def _within(self, region: int, offset: int, count: int) -> None:
        if count > _MAX_TRANSFER or offset + count > self.device.regions.get(region, 0):
            raise _Refused(errno.EINVAL)

    def _read(self, body: bytes, fds: list[int]) -> bytes:
        offset, region, count = _REGION.unpack_from(body)
        self._within(region, offset, count)
        return body[:16] + self.device.read(region, offset, count)

    def _write(self, body: bytes, fds: list[int]) -> bytes:
        offset, region, count = _REGION.unpack_from(body)
        self._within(region, offset, count)
        if len(body) - 16 < count:
            raise _Refused(errno.EINVAL)
        self.device.write(region, offset, body[16 : 16 + count])
        return body[:16]

    def _write_multi(self, body: bytes, fds: list[int]) -> bytes:
        (number,) = struct.unpack_from("<Q", body)
        # Each is 24 bytes: where, and up to 8 of data.
        if len(body) - 8 < 24 * number:
            raise _Refused(errno.EINVAL)
        for at in range(8, 8 + 24 * number, 24):
            offset, region, count = _REGION.unpack_from(body, at)
            if count > 8:
                raise _Refused(errno.EINVAL)
            self._within(region, offset, count)
            self.device.write(region, offset, body[at + 16 : at + 16 + count])
        return body[:8]

    def _reset(self, body: bytes, fds: list[int]) -> bytes:
        self.device.reset()
        return b""
