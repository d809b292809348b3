# SPDX-License-Identifier: GPL-2.0-or-later
"""The vfio-user server: what QEMU says, and what nobody should."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iaabench import BASE, SIZE, Bench

from traces.lab.iaa import registers as reg
from traces.lab.iaa import vfiouser as vu
from traces.lab.iaa.guestmemory import GuestMemory, MemoryFault, Overlap
from traces.lab.iaa.vfiouser import CONFIG_REGION, MSIX_INDEX, Connection


class Client:
    """One end of a connection; the other is served when something is asked."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.bench.memory.clear()
        self.socket, other = socket.socketpair()
        self.socket.settimeout(5)
        self.connection = Connection(other, self.bench.device, self.bench.memory)
        self.bench.device.interrupt = self.connection.interrupt

    def close(self) -> None:
        self.socket.close()
        self.connection.close()
        self.bench.close()

    def post(self, message: bytes, fds: list[int] | None = None) -> bool:
        """Send bytes and serve them; False when the server hangs up."""
        if fds:
            self.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            self.socket.sendall(message)
        return self.connection.receive()

    def ask(self, command: int, body: bytes = b"", fds: list[int] | None = None, flags: int = 0) -> tuple[int, bytes]:
        """A message; returns the errno of its reply, and its body."""
        assert self.post(vu.HEADER.pack(7, command, 16 + len(body), flags, 0) + body, fds)
        if flags & vu.NO_REPLY:
            return 0, b""
        head = self.socket.recv(16)
        ident, answered, size, bits, error = vu.HEADER.unpack(head)
        assert (ident, answered, bits & vu.TYPE) == (7, command, vu.REPLY)
        assert bool(bits & vu.ERROR) == bool(error)
        return error, self.socket.recv(size - 16) if size > 16 else b""

    def hello(self) -> None:
        error, answer = self.ask(vu.VERSION, struct.pack("<HH", 0, 3) + b"{}\0")
        assert error == 0
        assert answer.startswith(struct.pack("<HH", 0, 1))


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client()
    made.hello()
    yield made
    made.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapping(start: int, size: int, offset: int = 0, flags: int = 3) -> bytes:
    return struct.pack("<IIQQQ", 32, flags, offset, start, size)


def test_a_version_is_agreed_on_first() -> None:
    made = Client()
    assert made.ask(vu.GET_INFO, bytes(16))[0] == errno.EPROTO
    assert made.ask(vu.VERSION, struct.pack("<HH", 1, 0))[0] == errno.ENOTSUP
    assert made.ask(vu.GET_INFO, bytes(16))[0] == errno.EPROTO
    assert made.ask(vu.VERSION, b"\0")[0] == errno.EINVAL
    made.hello()
    assert made.ask(vu.GET_INFO, bytes(16)) == (0, struct.pack("<IIII", 16, 3, 9, 5))
    made.close()


def test_regions_and_interrupts_are_described(client: Client) -> None:
    sizes = {}
    for index in range(9):
        error, answer = client.ask(vu.GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
        assert error == 0
        _, flags, number, _, size, _ = struct.unpack("<IIIIQQ", answer)
        assert number == index
        assert flags == (3 if size else 0)
        sizes[index] = size
    assert {index: size for index, size in sizes.items() if size} == {0: 0x10000, 2: 8 * 4 * 4096, 7: 4096}
    assert [struct.unpack("<IIII", client.ask(vu.GET_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0))[1])[3]
            for index in range(5)] == [0, 0, 9, 0, 0]
    assert client.ask(vu.GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, 9, 0, 0, 0))[0] == errno.EINVAL
    assert client.ask(vu.GET_IRQ_INFO, struct.pack("<IIII", 16, 0, 5, 0))[0] == errno.EINVAL


def test_configuration_space_is_what_idxd_binds(client: Client) -> None:
    def read(offset: int, count: int) -> bytes:
        return client.ask(vu.REGION_READ, struct.pack("<QII", offset, CONFIG_REGION, count))[1][16:]

    def write(offset: int, data: bytes) -> None:
        assert client.ask(vu.REGION_WRITE, struct.pack("<QII", offset, CONFIG_REGION, len(data)) + data)[0] == 0

    assert struct.unpack("<HH", read(0, 4)) == (0x8086, 0x0CFE)
    # Capabilities: PCI Express, then MSI-X with 9 vectors in BAR 0.
    at, found = read(0x34, 1)[0], []
    while at:
        found.append((read(at, 1)[0], at))
        at = read(at + 1, 1)[0]
    assert [one for one, _ in found] == [0x10, 0x11]
    assert struct.unpack("<HII", read(found[1][1] + 2, 10)) == (8, reg.MSIX_TABLE, reg.MSIX_PBA)
    # How large a BAR is, is found by writing ones.
    for bar, size in ((0x10, 0x10000), (0x18, 0x20000)):
        write(bar, b"\xff" * 8)
        assert struct.unpack("<Q", read(bar, 8))[0] == ((1 << 64) - size) | 0xC
    write(0x20, b"\xff" * 8)
    assert read(0x20, 8) == bytes(8)
    write(0, b"\xff" * 4)
    assert struct.unpack("<HH", read(0, 4)) == (0x8086, 0x0CFE)
    write(0x18, struct.pack("<Q", 0xFE000000))
    assert client.bench.device.config.portals == 0xFE000000


def test_guest_memory_is_shared(client: Client) -> None:
    fd = client.bench.fd
    os.pwrite(fd, b"guest", 4096)
    before = open_files()
    assert client.ask(vu.DMA_MAP, mapping(BASE, 8192, 4096), [fd])[0] == 0
    assert bytes(client.bench.memory.read(BASE, 5)) == b"guest"
    assert client.ask(vu.DMA_MAP, mapping(BASE + 4096, 8192), [fd])[0] == errno.EEXIST
    assert client.ask(vu.DMA_MAP, mapping(BASE + 8192, SIZE), [fd])[0] == 0
    assert client.ask(vu.DMA_MAP, mapping(BASE * 8, SIZE, 4096), [fd])[0] == errno.EINVAL
    assert client.ask(vu.DMA_MAP, mapping(BASE * 8, 0), [fd])[0] == errno.EINVAL
    assert client.ask(vu.DMA_MAP, mapping((1 << 64) - 4096, 8192), [fd])[0] == errno.EINVAL
    assert client.ask(vu.DMA_MAP, mapping(BASE * 8, 4096), None)[0] == 0
    with pytest.raises(MemoryFault):
        client.bench.memory.read(BASE * 8, 1)
    assert client.ask(vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 0, BASE * 9, 4096))[0] == errno.ENOENT
    assert client.ask(vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 0, BASE, 8192))[0] == 0
    with pytest.raises(MemoryFault):
        client.bench.memory.read(BASE, 5)
    assert client.ask(vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 2, 0, 0))[0] == 0
    assert len(client.bench.memory) == 0
    assert open_files() == before


def test_interrupts_are_signalled(client: Client) -> None:
    events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]

    def irqs(flags: int, start: int, count: int, fds: list[int] | None = None, index: int = MSIX_INDEX, more: bytes = b"") -> int:
        return client.ask(vu.SET_IRQS, struct.pack("<IIIII", 20, flags, index, start, count) + more, fds)[0]

    before = open_files()
    assert irqs(4 | 32, 1, 3, events[:3]) == 0
    assert [client.connection.interrupt(number) for number in range(5)] == [False, True, True, True, False]
    assert [os.eventfd_read(fd) for fd in events[:3]] == [1, 1, 1]
    # Another descriptor, and none.
    assert irqs(4 | 32, 2, 1, events[3:]) == 0
    assert irqs(4 | 32, 3, 1) == 0
    assert [client.connection.interrupt(number) for number in (1, 2, 3)] == [True, True, False]
    assert os.eventfd_read(events[3]) == 1
    # The client can fire them, and masks in its own table.
    assert irqs(1 | 32, 1, 1) == 0
    assert irqs(2 | 32, 1, 2, more=b"\0\1") == 0
    assert irqs(1 | 8, 1, 1) == 0
    assert os.eventfd_read(events[0]) == 2
    assert os.eventfd_read(events[3]) == 1
    assert irqs(4 | 32, 8, 2, events[:2]) == errno.EINVAL
    assert irqs(4 | 32, 0, 2, events[:3]) == errno.EINVAL
    assert irqs(4 | 32, 0, 1, events[:1], index=5) == errno.EINVAL
    assert irqs(4 | 32, 0, 1, events[:1], index=0) == 0
    # A full counter does not stop the device, though a write would wait.
    os.set_blocking(events[0], True)
    assert irqs(4 | 32, 1, 1, events[:1]) == 0
    os.eventfd_write(events[0], (1 << 64) - 2)
    assert client.connection.interrupt(1)
    assert irqs(1 | 32, 0, 0) == 0
    assert not client.connection.interrupt(1)
    assert open_files() == before
    for fd in events:
        os.close(fd)


def test_writes_in_one_message(client: Client) -> None:
    body = struct.pack("<Q", 2) + struct.pack("<QII", reg.GENCFG, 0, 4) + bytes(range(1, 9)) + struct.pack("<QII", reg.GENCTRL, 0, 2) + bytes([9] * 8)
    assert client.ask(vu.REGION_WRITE_MULTI, body) == (0, body[:8])
    assert client.bench.word(reg.GENCFG) == 0x04030201
    assert client.bench.word(reg.GENCTRL) == 0x0909
    assert client.ask(vu.REGION_WRITE_MULTI, body[:-1])[0] == errno.EINVAL
    assert client.ask(vu.REGION_WRITE_MULTI, struct.pack("<Q", 1 << 60))[0] == errno.EINVAL
    assert client.ask(vu.REGION_WRITE_MULTI, struct.pack("<QQII", 1, 0, 0, 9) + bytes(9))[0] == errno.EINVAL


@pytest.mark.parametrize(("offset", "region", "count"), [
    (0x10000, 0, 1), (0xFFFF, 0, 2), (0, 1, 4), (0, 9, 4), (0, 0, 1 << 21), (1 << 63, 0, 4), (0, 0xFFFFFFFF, 1), (4096, 7, 1)])
def test_what_lies_outside_of_a_region_is_refused(client: Client, offset: int, region: int, count: int) -> None:
    body = struct.pack("<QII", offset, region, count)
    assert client.ask(vu.REGION_READ, body)[0] == errno.EINVAL
    assert client.ask(vu.REGION_WRITE, body + bytes(min(count, 64)))[0] == errno.EINVAL


def test_a_write_has_all_its_bytes(client: Client) -> None:
    assert client.ask(vu.REGION_WRITE, struct.pack("<QII", reg.GENCFG, 0, 4) + b"\1\2\3")[0] == errno.EINVAL
    assert client.bench.word(reg.GENCFG) == 0


def test_commands_that_nobody_serves(client: Client) -> None:
    for command in (0, vu.GET_REGION_IO_FDS, vu.DMA_READ, vu.DMA_WRITE, 14, 16, 17, 999):
        assert client.ask(command, bytes(32))[0] == errno.ENOTSUP
    # A reply is not a command, and is not answered.
    assert client.post(vu.HEADER.pack(1, vu.GET_INFO, 16, vu.REPLY, 0))
    assert client.ask(vu.GET_INFO, bytes(16))[0] == 0


def test_a_message_in_pieces_and_two_in_one(client: Client) -> None:
    message = vu.HEADER.pack(7, vu.GET_INFO, 32, 0, 0) + bytes(16)
    assert client.post(message[:5])
    assert client.post(message[5:20])
    assert client.post(message[20:] + message + message[:1])
    assert len(client.socket.recv(4096)) == 64
    assert client.post(message[1:])
    assert len(client.socket.recv(4096)) == 32


def test_descriptors_belong_to_the_last_message(client: Client) -> None:
    info = vu.HEADER.pack(7, vu.GET_INFO, 32, 0, 0) + bytes(16)
    map_ = vu.HEADER.pack(8, vu.DMA_MAP, 48, 0, 0) + mapping(BASE, SIZE)
    before = open_files()
    assert client.post(info + map_, [client.bench.fd])
    assert len(client.socket.recv(4096)) == 32 + 16
    assert bytes(client.bench.memory.read(BASE, 1)) == b"\0"
    # Descriptors that a message has no use for are closed.
    assert client.post(info, [client.bench.fd] * 3)
    assert client.post(info[:8], [client.bench.fd])
    client.connection.close()
    assert open_files() == before - 1


@pytest.mark.parametrize("size", [0, 15, vu.MAX_MESSAGE + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_hangs_up(client: Client, size: int) -> None:
    assert not client.post(vu.HEADER.pack(1, vu.GET_INFO, size, 0, 0))


def test_the_client_going_is_seen(client: Client) -> None:
    client.socket.close()
    assert not client.connection.receive()


COMMANDS = st.sampled_from(list(range(1, 17)))
NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 9, 16, 32, 36, 64, 4096, 0x10000, 1 << 20, 1 << 31, (1 << 32) - 1])
BODIES = st.one_of(
    st.binary(max_size=80), st.lists(NUMBERS, max_size=12).map(lambda words: struct.pack(f"<{len(words)}I", *words)),
    st.tuples(st.integers(0, 0x10040) | st.just(1 << 63), NUMBERS, st.integers(0, 80), st.binary(max_size=80)).map(
        lambda one: struct.pack("<QII", *one[:3]) + one[3]))


@given(st.lists(st.tuples(COMMANDS, BODIES, st.sampled_from([0, 0, vu.NO_REPLY, vu.REPLY, vu.ERROR]), st.integers(0, 3)), max_size=25))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_any_messages_are_answered(messages: list[tuple[int, bytes, int, int]]) -> None:
    before = open_files()
    client = Client()
    client.hello()
    for command, body, flags, fds in messages:
        assert client.post(vu.HEADER.pack(7, command, 16 + len(body), flags, 0) + body, [client.bench.fd] * fds)
        if not flags & (vu.NO_REPLY | vu.TYPE):
            assert client.socket.recv(1 << 16)
    assert client.ask(vu.VERSION, struct.pack("<HH", 0, 0))[0] == 0
    client.close()
    assert open_files() == before


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_messages_or_the_end(data: bytes) -> None:
    client = Client()
    if data:
        client.post(data)
    client.close()


def test_memory_is_found_in_its_range() -> None:
    memory, fd = GuestMemory(), os.memfd_create("guest")
    os.ftruncate(fd, 1 << 16)
    memory.map(0x1000, 0x2000, fd, 0)
    memory.map(0x3000, 0x1000, fd, 0x8000)
    memory.map(0x8000, 0x1000, fd, 0x4000, writable=False)
    memory.map(0xA000, 0x1000, fd, 0x5000, readable=False)
    memory.map(0xC123, 0x100, fd, 0x123)
    # Across two ranges without a gap: a copy.
    memory.write(0x2FFE, b"abcd")
    assert bytes(memory.read(0x2FFE, 4)) == b"abcd"
    assert (os.pread(fd, 2, 0x1FFE), os.pread(fd, 2, 0x8000)) == (b"ab", b"cd")
    assert memory.read(0xC123, 2) == os.pread(fd, 2, 0x123)
    for address, size, write, at in ((0xFFF, 2, False, 0xFFF), (0x3FFF, 2, False, 0x4000), (0x8000, 4, True, 0x8000), (0xA000, 1, False, 0xA000),
                                     (0, 1, False, 0), ((1 << 64) - 1, 4, False, (1 << 64) - 1), (0x3FFE, 0x100, True, 0x4000)):
        with pytest.raises(MemoryFault) as caught:
            memory.write(address, bytes(size)) if write else memory.read(address, size)
        assert (caught.value.address, caught.value.write) == (at, write)
    # All or nothing.
    assert os.pread(fd, 2, 0x8FFE) == b"\0\0"
    with pytest.raises(Overlap):
        memory.map(0x3FFF, 0x1000, fd, 0)
    with pytest.raises(Overlap):
        memory.map(0x0, 0x1001, fd, 0)
    assert memory.unmap(0x1000, 0x3000) == 2
    with pytest.raises(MemoryFault):
        memory.read(0x1000, 1)
    memory.map(0x1000, 0x1000, fd, 0)
    memory.read(0x1000, 0x1000)
    os.close(fd)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=12), st.integers(0, 60), st.integers(0, 30))
@settings(deadline=None)
def test_memory_agrees_with_a_plain_list(ranges: list[tuple[int, int]], address: int, size: int) -> None:
    memory, fd = GuestMemory(), os.memfd_create("guest")
    os.ftruncate(fd, 64)
    os.pwrite(fd, bytes(range(64)), 0)
    plain: dict[int, int] = {}
    for start, length in ranges:
        wanted = range(start, start + length)
        if any(one in plain for one in wanted):
            with pytest.raises(Overlap):
                memory.map(start, length, fd, 0)
        else:
            memory.map(start, length, fd, 0)
            plain.update({one: one - start for one in wanted})
    missing = [one for one in range(address, address + size) if one not in plain]
    if missing:
        with pytest.raises(MemoryFault) as caught:
            memory.read(address, size)
        assert caught.value.address == missing[0]
    elif size:
        assert bytes(memory.read(address, size)) == bytes(plain[one] for one in range(address, address + size))
    os.close(fd)
