# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated IAA without QEMU: registers, commands, descriptors, records, as the idxd driver uses them."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iaabench import AECS_AT, BASE, DECOMPRESS, PAGE, SIZE, Bench, logged

from traces.lab.iaa import registers as reg
from traces.lab.iaa.coder import compress
from traces.lab.iaa.descriptors import Analytics, Compress, Decompress, Descriptor, Flag, Opcode, Status
from traces.lab.iaa.device import SWERR_QUEUE_FULL, SWERR_QUEUE_OFF
from traces.lab.iaa.joblog import JobLog
from traces.lab.iaa.operations import MAX_TRANSFER, Outcome, aecs
from traces.lab.iaa.registers import Command, CommandStatus, DeviceState
from traces.lab.iaa.vfiouser import CONFIG_REGION

OVERFLOW = (Status.ANALYTICS_ERROR, Analytics.UNRECOVERABLE_OUTPUT_OVERFLOW)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench().set_up()
    made.put(0x10000, PAGE)
    yield made
    made.close()


def made(options: str = "", plan: str = "", sizes: tuple[int, ...] = (128,), **more: object) -> Bench:
    found = Bench(options, plan).set_up(sizes, **more)  # type: ignore[arg-type]
    found.put(0x10000, PAGE)
    return found


def test_capabilities_are_a_real_device_s() -> None:
    bench = Bench()
    assert bench.word(reg.VERSION) == 0x100
    assert bench.word(reg.GENCAP, 8) == 0x71F10901F0105
    assert [bench.word(reg.OPCAP + 8 * k, 8) for k in range(4)] == [0xD, 0x7F331C, 0, 0]
    wqcap = bench.word(reg.WQCAP, 8)
    # union wq_cap_reg: size, queues, 32 bytes a queue; dedicated, not shared.
    assert (wqcap & 0xFFFF, wqcap >> 16 & 0xFF, wqcap >> 24 & 15, wqcap >> 48 & 3) == (128, 8, 0, 2)
    assert (bench.word(reg.GRPCAP, 8) & 0xFF, bench.word(reg.ENGCAP, 8)) == (4, 8)
    assert [offset * 0x100 for offset in struct.unpack("<4H", bench.device.read(0, reg.OFFSETS, 8))[:3]] == [reg.GRPCFG, reg.WQCFG, reg.MSIX_PERM]
    assert bench.word(reg.IAACAP, 8) == 0
    # They cannot be written.
    for offset in range(0, 0x80, 8):
        bench.write(offset, 0xFFFFFFFFFFFFFFFF, 8)
    assert bench.word(reg.GENCAP, 8) == 0x71F10901F0105
    bench.close()
    second = Bench("version=2")
    assert (second.word(reg.VERSION), second.word(reg.IAACAP, 8)) == (0x200, 1 << 8)
    second.close()


def test_opcodes_in_opcap_are_those_carried_out() -> None:
    bench = made()
    cap = sum(bench.word(reg.OPCAP + 8 * k, 8) << 64 * k for k in range(4))
    for opcode in Opcode:
        assert cap >> opcode & 1
    bench.close()


# Compress and decompress


def test_a_page_there_and_back(bench: Bench) -> None:
    record = bench.compress()
    wanted = compress(PAGE, 4096)
    assert record.ends == (Status.SUCCESS, 0)
    assert (record.size, record.completed, record.crc) == (len(wanted), 4096, zlib.crc32(PAGE))
    assert bench.get(0x20000, record.size) == wanted
    assert record.xor == xor(PAGE)
    back = bench.job(Opcode.DECOMPRESS, 0x20000, record.size, 0x30000, 4096)
    assert back.ends == (Status.SUCCESS, 0)
    assert (back.size, back.completed, back.crc, back.xor) == (4096, record.size, record.crc, record.xor)
    assert bench.get(0x30000, 4096) == PAGE


def xor(data: bytes) -> int:
    total = 0
    for word in struct.unpack(f"<{len(data) // 2}H", data[:len(data) & ~1]):
        total ^= word
    return total ^ (data[-1] if len(data) & 1 else 0)


def test_nothing_is_written_behind_the_output(bench: Bench) -> None:
    bench.put(0x20000, b"\xaa" * 4096)
    record = bench.compress()
    assert bench.get(0x20000 + record.size, 4096 - record.size) == b"\xaa" * (4096 - record.size)


def test_what_does_not_fit_is_the_overflow_that_the_driver_knows(bench: Bench) -> None:
    size = bench.compress().size
    bench.put(0x20000, b"\xaa" * 4096)
    record = bench.compress(room=size - 1)
    assert record.ends == OVERFLOW == (0x0A, 0x19)
    assert (record.size, record.completed) == (0, 0)
    assert bench.get(0x20000, 4096) == b"\xaa" * 4096
    assert bench.compress(room=size).ends == (Status.SUCCESS, 0)


def test_verification_writes_nothing(bench: Bench) -> None:
    size = bench.compress().size
    # iaa_compress_verify(): the destination is the source page.
    record = bench.job(Opcode.DECOMPRESS, 0x20000, size, 0x10000, 4096, compr_flags=DECOMPRESS | Decompress.SUPPRESS_OUTPUT)
    assert (record.ends, record.size, record.crc) == ((Status.SUCCESS, 0), 4096, zlib.crc32(PAGE))
    # As nothing is written, buffers may overlap.
    again = bench.job(Opcode.DECOMPRESS, 0x20000, size, 0x20000, 4096, compr_flags=DECOMPRESS | Decompress.SUPPRESS_OUTPUT)
    assert (again.ends, again.crc) == (record.ends, record.crc)
    bench.put(0x20000 + size // 2, bytes([bench.get(0x20000 + size // 2, 1)[0] ^ 0x10]))
    damaged = bench.job(Opcode.DECOMPRESS, 0x20000, size, 0x10000, 4096, compr_flags=DECOMPRESS | Decompress.SUPPRESS_OUTPUT)
    assert damaged.status != Status.SUCCESS or damaged.crc != record.crc
    assert bench.get(0x10000, 4096) == PAGE


def test_crc32c_where_it_is_asked_for(bench: Bench) -> None:
    bench.put(0x10000, b"123456789")
    record = bench.job(Opcode.COMPRESS, 0x10000, 9, 0x20000, 64, flags=Flag.CRC_RFC3720)
    assert record.crc == 0xE3069283  # the check value that is published with the polynomial


@pytest.mark.parametrize(("polynomial", "flags", "wanted"), [
    # The check values of CRC-64/ECMA-182, of CRC-64/WE (inverted) and of CRC-64/XZ (inverted, lowest bit first).
    (0x42F0E1EBA9EA3693, 0, 0x6C40DF5F0B497347), (0x42F0E1EBA9EA3693, 1 << 14, 0x62EC59E3F1A4F00A),
    (0x42F0E1EBA9EA3693, 3 << 14, 0x995DC9BBDF1939FA)])
def test_crc64(bench: Bench, polynomial: int, flags: int, wanted: int) -> None:
    bench.put(0x10000, b"123456789")
    record = bench.job(Opcode.CRC64, 0x10000, 9, 0, 0, compr_flags=flags, filter_flags=polynomial & 0xFFFFFFFF, num_inputs=polynomial >> 32)
    assert record.ends == (Status.SUCCESS, 0)
    assert record.crc << 32 | record.size == wanted


def test_memmove_and_noop(bench: Bench) -> None:
    assert bench.job(Opcode.MEMMOVE, 0x10000, 100, 0x20000, 0).ends == (Status.SUCCESS, 0)
    assert bench.get(0x20000, 100) == PAGE[:100]
    # Buffers may overlap.
    assert bench.job(Opcode.MEMMOVE, 0x10000, 100, 0x10001, 0).ends == (Status.SUCCESS, 0)
    assert bench.get(0x10001, 100) == PAGE[:100]
    assert bench.job(Opcode.NOOP, 0, 0, 0, 0).ends == (Status.SUCCESS, 0)


def test_a_block_s_end_is_the_stream_s() -> None:
    bench = made()
    writer = zlib.compressobj(6, zlib.DEFLATED, -12, 9, zlib.Z_FIXED)
    first = writer.compress(b"first block") + writer.flush(zlib.Z_FULL_FLUSH)
    data = first + writer.compress(b", second") + writer.flush()
    bench.put(0x20000, data)
    # With the driver's flags (no ADDF_SEL_BFINAL_EOB) any end of block ends the job.
    assert bench.job(Opcode.DECOMPRESS, 0x20000, len(data), 0x30000, 4096).size == 11
    assert bench.job(Opcode.DECOMPRESS, 0x20000, len(data), 0x30000, 4096, compr_flags=DECOMPRESS | 1 << 4).size == 19
    bench.close()


def test_version_2_makes_its_own_headers() -> None:
    bench = made("version=2")
    how = int(Compress.FLUSH_OUTPUT | Compress.APPEND_EOB | Compress.GEN_HDR_1_PASS)
    # No AECS is read (iaa_setup_compress_hw_desc() of v13).
    more = {"compr_flags": how, "word": Opcode.COMPRESS << 24 | Flag.CRAV | Flag.RCR, "src2_addr": 0, "src2_size": 0}
    record = bench.compress(**more)
    wanted = compress(PAGE, 4096, dynamic=True)
    assert record.ends == (Status.SUCCESS, 0)
    assert bench.get(0x20000, record.size) == wanted
    assert len(wanted) < len(compress(PAGE, 4096))
    assert bench.job(Opcode.DECOMPRESS, 0x20000, record.size, 0x30000, 4096).crc == zlib.crc32(PAGE)
    assert bench.get(0x30000, 4096) == PAGE
    assert bench.compress(**more, room=record.size - 1).ends == OVERFLOW
    assert bench.job(Opcode.COMPRESS, 0x10000, 4097, 0x20000, 8192, **more).status == Status.INVALID_SIZE
    # The fixed code, as on version 1.
    assert bench.get(0x20000, bench.compress().size) == compress(PAGE, 4096)
    bench.close()
    old = made()
    assert old.compress(**more).status == Status.INVALID_COMP_FLAG
    old.close()


@pytest.mark.parametrize(("opcode", "more", "wanted"), [
    (Opcode.COMPRESS, {"src1_size": 0}, (Status.INVALID_SIZE, 0)),
    (Opcode.COMPRESS, {"src1_size": MAX_TRANSFER + 1}, (Status.INVALID_SIZE, 0)),
    (Opcode.COMPRESS, {"max_dst_size": 0}, (Status.INVALID_SIZE, 0)),
    (Opcode.COMPRESS, {"compr_flags": 2}, (Status.INVALID_COMP_FLAG, 0)),
    (Opcode.COMPRESS, {"compr_flags": 7}, (Status.INVALID_COMP_FLAG, 0)),
    (Opcode.COMPRESS, {"compr_flags": 0x1006}, (Status.INVALID_COMP_FLAG, 0)),
    (Opcode.COMPRESS, {"dst_addr": BASE + 0x10FFF}, (Status.OVERLAP_BUFFERS, 0)),
    (Opcode.COMPRESS, {"dst_addr": BASE + 0xF001}, (Status.OVERLAP_BUFFERS, 0)),
    (Opcode.COMPRESS, {"src2_addr": BASE + AECS_AT + 16}, (Status.ADDR_ALIGN, 0)),
    (Opcode.COMPRESS, {"src2_size": 1552}, (Status.ADDR_ALIGN, 0)),
    (Opcode.COMPRESS, {"src2_size": 1536}, (Status.INVALID_SIZE, 0)),
    (Opcode.COMPRESS, {"word": Opcode.COMPRESS << 24 | Flag.CRAV | Flag.RCR}, (Status.ANALYTICS_ERROR, Analytics.AECS_ERROR)),
    (Opcode.COMPRESS, {"src2_addr": BASE + 0x10000}, (Status.ANALYTICS_ERROR, Analytics.AECS_ERROR)),
    (Opcode.DECOMPRESS, {"compr_flags": DECOMPRESS & ~1}, (Status.INVALID_COMP_FLAG, 0)),
    (Opcode.DECOMPRESS, {"compr_flags": DECOMPRESS | 0x400}, (Status.INVALID_COMP_FLAG, 0)),
    (Opcode.DECOMPRESS, {"filter_flags": 1}, (Status.INVALID_FILTER_FLAG, 0)),
    (Opcode.DECOMPRESS, {"src1_size": 0}, (Status.INVALID_SIZE, 0)),
    (Opcode.DECOMPRESS, {"dst_addr": BASE + 0x10000}, (Status.OVERLAP_BUFFERS, 0)),
    (Opcode.MEMMOVE, {"src1_size": 0}, (Status.INVALID_SIZE, 0)),
    (Opcode.CRC64, {"compr_flags": 1}, (Status.INVALID_COMP_FLAG, 0)),
    (Opcode.CRC64, {"src1_size": 0}, (Status.INVALID_SIZE, 0)),
    (Opcode.COMPRESS, {"trusted": 1 << 20}, (Status.NOZERO_RESERVE, 0)),
    (Opcode.COMPRESS, {"flags": Flag.RCI, "int_handle": 9}, (Status.INT_HANDLE_INVAL, 0)),
    (0x50, {}, (Status.BAD_OPCODE, 0)), (0x01, {}, (Status.BAD_OPCODE, 0)), (0xFF, {}, (Status.BAD_OPCODE, 0))])
def test_descriptors_that_cannot_be_right(bench: Bench, opcode: int, more: dict[str, int], wanted: tuple[int, int]) -> None:
    before = bench.get(0x20000, 4096)
    record = bench.job(opcode, 0x10000, 4096, 0x20000, 4096, **more)
    assert record.ends == wanted
    assert bench.get(0x20000, 4096) == before
    assert not bench.word(reg.SWERR) & reg.SWERR_VALID
    assert bench.compress().ends == (Status.SUCCESS, 0)


def test_a_bad_stream_has_its_analytics_code(bench: Bench) -> None:
    for data, wanted in ((b"\x07", Analytics.INVALID_BLOCK_TYPE), (b"\x01\x05\x00\x05\x00", Analytics.INVALID_STORED_LEN), (b"\x63", Analytics.BAD_EOF)):
        bench.put(0x20000, data)
        assert bench.job(Opcode.DECOMPRESS, 0x20000, len(data), 0x30000, 4096).ends == (Status.ANALYTICS_ERROR, wanted)


def test_decompressing_too_much_is_the_driver_s_overflow(bench: Bench) -> None:
    size = bench.compress().size
    assert bench.job(Opcode.DECOMPRESS, 0x20000, size, 0x30000, 4095).ends == (Status.OUTBUF_OVERFLOW, 0)
    assert bench.get(0x30000, 4095) == bytes(4095)


@pytest.mark.parametrize("damage", [0, 4, 28, 32, 288, 288 + 285 * 4, 288 + 288 * 4 + 29 * 4])
def test_a_table_that_is_not_the_fixed_code_is_refused(bench: Bench, damage: int) -> None:
    assert bench.compress().ends == (Status.SUCCESS, 0)
    wrong = bytearray(aecs())
    wrong[damage] ^= 1
    bench.put(AECS_AT, bytes(wrong))
    assert bench.compress().ends == (Status.ANALYTICS_ERROR, Analytics.AECS_ERROR)
    bench.put(AECS_AT, aecs())
    assert bench.compress().ends == (Status.SUCCESS, 0)


def test_the_table_is_the_driver_s() -> None:
    # iaa_crypto_comp_fixed.c: the first and last of each kind of entry.
    found = struct.unpack_from("<286I8x30I", aecs(), 32 + 256)
    assert [found[k] for k in (0, 143, 144, 255, 256, 279, 280, 285, 286, 315)] == [
        0x40030, 0x400BF, 0x48190, 0x481FF, 0x38000, 0x38017, 0x400C0, 0x400C5, 0x28000, 0x2801D]
    assert len(aecs()) == 1568
    assert aecs()[28:33] == b"\3\0\0\0\3"


# Page faults, records, interrupts


@pytest.mark.parametrize(("field", "write"), [("src1_addr", False), ("dst_addr", True), ("src2_addr", False)])
def test_page_faults_have_their_address(bench: Bench, field: str, write: bool) -> None:
    for address in (BASE + SIZE, 0, 0xFFFFFFFFFFFFF000, BASE + SIZE - 32):
        record = bench.job(Opcode.COMPRESS, 0x10000, 4096, 0x20000, 4096, **{field: address})
        if address == BASE + SIZE - 32 and field == "dst_addr":
            wanted = BASE + SIZE
        else:
            wanted = BASE + SIZE if address == BASE + SIZE - 32 else address
        assert record.status == (Status.PAGE_FAULT_IR | (0x80 if write else 0))
        assert record.fault_addr == wanted
    assert bench.compress().ends == (Status.SUCCESS, 0)


def test_memory_taken_away_meanwhile_is_a_page_fault() -> None:
    bench = made("service=1us")
    record = bench.page()
    bench.memory.clear()
    bench.memory.map(BASE, 0x8000, bench.fd, 0)
    bench.advance(bench.now + 1000)
    assert bench.record(record).status == Status.PAGE_FAULT_IR | 0x80
    second = bench.start(Opcode.NOOP, 0, 0, 0, 0)
    bench.memory.clear()
    bench.advance(bench.now + 2000)
    assert bench.word(reg.SWERR, 8) >> 8 & 0xFF == Status.CRA_XLAT
    assert second
    bench.close()


def test_the_interrupt_comes_last_and_to_its_vector(bench: Bench) -> None:
    seen = []
    descriptor, record = bench.descriptor(Opcode.COMPRESS, 0x10000, 4096, 0x20000, 4096, flags=Flag.RCI, int_handle=5)
    bench.device.interrupt = lambda vector: seen.append((vector, bench.get(record, 1)[0], bench.get(0x20000, 1)[0] & 7))
    bench.submit(descriptor)
    assert seen == [(5, 1, 3)]


def test_no_interrupt_and_no_record_unless_asked_for(bench: Bench) -> None:
    bench.compress()
    assert bench.fired == []
    # A drain with an interrupt and no record (idxd_int_handle_revoke_drain()).
    descriptor, record = bench.descriptor(Opcode.DRAIN, 0, 0, 0, 0, int_handle=3)
    bench.submit(descriptor._replace(word=Opcode.DRAIN << 24 | Flag.RCI))
    assert bench.fired == [3]
    assert bench.get(record, 64) == bytes(64)
    # A record that is valid and not requested is written for an error alone.
    for size, wanted in ((4096, 0), (0, Status.INVALID_SIZE)):
        descriptor, record = bench.descriptor(Opcode.MEMMOVE, 0x10000, size, 0x20000, 0)
        bench.submit(descriptor._replace(word=Opcode.MEMMOVE << 24 | Flag.CRAV))
        assert bench.record(record).status == wanted


def swerr(bench: Bench) -> tuple[int, int, int, int]:
    """Error, queue, operation, address of SWERR."""
    first, _, address, _ = struct.unpack("<4Q", bench.device.read(0, reg.SWERR, 32))
    return first >> 8 & 0xFF, first >> 16 & 0xFF, first >> 32 & 0xFF, address


def test_what_no_record_can_say_is_in_swerr(bench: Bench) -> None:
    for more, code, address in (({"completion_addr": BASE + 0x2001}, Status.CRA_ALIGN, BASE + 0x2001),
                                ({"completion_addr": BASE + 0x2020}, Status.CRA_ALIGN, BASE + 0x2020),
                                ({"completion_addr": BASE + SIZE}, Status.CRA_XLAT, BASE + SIZE),
                                ({"word": Opcode.NOOP << 24 | Flag.RCR}, Status.INVALID_FLAGS, 0)):
        descriptor, _ = bench.descriptor(Opcode.NOOP, 0, 0, 0, 0)
        bench.submit(descriptor._replace(**more))
        assert swerr(bench) == (code, 0, Opcode.NOOP, address)
        assert bench.fired == [0]
        assert bench.word(reg.INTCAUSE) == 1
        # A second one before the first was taken: an overflow, and the first stays.
        bench.device.direct(7 * 4 * 4096, bytes(64))
        assert bench.word(reg.SWERR) & 3 == 3
        assert swerr(bench)[0] == code
        # idxd_misc_thread(): the cause, then the error.
        bench.write(reg.INTCAUSE, bench.word(reg.INTCAUSE))
        bench.write(reg.SWERR, 3, 8)
        assert (bench.word(reg.INTCAUSE), bench.word(reg.SWERR, 8)) == (0, 0)
        bench.fired.clear()


def test_error_interrupts_can_be_off(bench: Bench) -> None:
    bench.write(reg.GENCTRL, 0)
    bench.device.direct(7 * 4 * 4096, bytes(64))
    assert bench.word(reg.SWERR) & 1
    assert bench.fired == []


def test_a_queue_that_is_off_takes_nothing(bench: Bench) -> None:
    descriptor, record = bench.descriptor(Opcode.MEMMOVE, 0x10000, 100, 0x20000, 0)
    bench.submit(descriptor, queue=1)
    assert swerr(bench)[:3] == (SWERR_QUEUE_OFF, 1, Opcode.MEMMOVE)
    assert bench.get(record, 64) == bytes(64)


# Portals


def test_a_descriptor_arrives_in_pieces(bench: Bench) -> None:
    descriptor, record = bench.descriptor(Opcode.MEMMOVE, 0x10000, 4096, 0x20000, 0)
    raw = descriptor.pack()
    for at in range(0, 64, 8):
        assert bench.get(record, 1) == b"\0"
        bench.device.write(2, 0x1040 + at, raw[at:at + 8])
    assert bench.record(record).ends == (Status.SUCCESS, 0)
    # Pieces that do not follow one another are no descriptor; the next that do are.
    jobs = bench.device.jobs
    bench.device.write(2, 0x1048, raw[8:16])
    bench.device.write(2, 0x1040, raw[:32])
    bench.device.write(2, 0x1068, raw[40:])
    bench.device.write(2, 0x1060, raw[32:])
    assert bench.device.jobs == jobs
    bench.device.write(2, 0x1040, raw + raw[:32])
    assert bench.device.jobs == jobs + 1
    assert bench.device.read(2, 0, 8) == b"\xff" * 8


def test_each_queue_has_four_portal_pages() -> None:
    bench = made(sizes=(10,) * 8)
    for page in range(32):
        descriptor, record = bench.descriptor(Opcode.NOOP, 0, 0, 0, 0)
        bench.device.direct(page * 4096 + 64 * page, descriptor.pack())
        assert bench.record(record).status == Status.SUCCESS
    assert not bench.word(reg.SWERR)
    bench.close()


def test_pieces_that_never_end_are_bounded(bench: Bench) -> None:
    for slot in range(0, 0x20000, 64):
        bench.device.write(2, slot, b"\1" * 8)
    assert len(bench.device._pieces) <= 256
    bench.device.reset()
    assert not bench.device._pieces


# Commands


def test_enabling_a_device_looks_at_its_configuration() -> None:
    bench = Bench()
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.ERR_BUSMASTER_EN
    bench.device.write(CONFIG_REGION, 4, b"\6\0")
    # A queue in no group; a group without an engine; a queue, or an engine, in two groups; too many descriptors.
    bench.write(reg.WQCFG, 64)
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.ERR_GRP_CONFIG
    bench.write(reg.GRPCFG, 1, 8)
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.ERR_GRP_CONFIG
    bench.write(reg.GRPCFG + 32, 3, 8)
    bench.write(reg.GRPCFG + 64 + 32, 2, 8)
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.ERR_GRP_CONFIG
    bench.write(reg.GRPCFG + 64 + 32, 4, 8)
    bench.write(reg.GRPCFG + 64, 1, 8)
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.ERR_GRP_CONFIG
    bench.write(reg.GRPCFG + 64, 2, 8)
    bench.write(reg.WQCFG + 32, 65)
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.ERR_WQ_SIZE_ERANGE
    bench.write(reg.WQCFG + 32, 64)
    assert bench.word(reg.GENSTATS) == DeviceState.DISABLED
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.SUCCESS
    assert bench.word(reg.GENSTATS) == DeviceState.ENABLED
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.ERR_DEV_ENABLED
    bench.close()


def test_enabling_a_queue_looks_at_its_configuration() -> None:
    bench = Bench()
    assert bench.command(Command.ENABLE_WQ, 0) == CommandStatus.ERR_DEV_NOTEN
    assert bench.command(Command.DISABLE_WQ, 1) == CommandStatus.ERR_DEV_NOT_EN
    bench.set_up(())
    assert bench.command(Command.ENABLE_WQ, 8) == CommandStatus.INVAL_WQIDX
    assert bench.command(Command.ENABLE_WQ, 0) == CommandStatus.ERR_WQ_SIZE
    assert bench.command(Command.DISABLE_DEVICE) == CommandStatus.SUCCESS
    bench.write(reg.GRPCFG, 1, 8)
    bench.write(reg.WQCFG, 16)
    assert bench.command(Command.ENABLE_DEVICE) == CommandStatus.SUCCESS
    # A shared queue is not what this device has.
    assert bench.command(Command.ENABLE_WQ, 0) == CommandStatus.ERR_WQ_MODE
    bench.write(reg.WQCFG + 8, 1)
    assert bench.command(Command.ENABLE_WQ, 0) == CommandStatus.SUCCESS
    assert bench.command(Command.ENABLE_WQ, 0) == CommandStatus.ERR_WQ_ENABLED
    assert bench.word(reg.WQCFG + 24) >> 30 == 1
    # What is on cannot be set up.
    bench.write(reg.WQCFG, 99)
    bench.write(reg.GRPCFG, 2, 8)
    assert (bench.word(reg.WQCFG), bench.word(reg.GRPCFG)) == (16, 1)
    for operand in (0, 1 << 8, 1 << 16 | 1):
        assert bench.command(Command.DISABLE_WQ, operand) == CommandStatus.INVAL_WQIDX
    assert bench.command(Command.DISABLE_WQ, 1) == CommandStatus.SUCCESS
    assert bench.word(reg.WQCFG + 24) >> 30 == 0
    assert bench.word(reg.WQCFG) == 16
    assert bench.command(Command.RESET_WQ, 1) == CommandStatus.SUCCESS
    assert bench.word(reg.WQCFG) == 0
    bench.close()


def test_a_queue_taken_away_and_given_back(bench: Bench) -> None:
    # idxd_wq_disable(): drain, reset, configuration written anew; then idxd_wq_enable().
    assert bench.command(Command.DRAIN_WQ, 1) == 0
    assert bench.command(Command.RESET_WQ, 1) == 0
    descriptor, _ = bench.descriptor(Opcode.NOOP, 0, 0, 0, 0)
    bench.submit(descriptor)
    assert swerr(bench)[0] == SWERR_QUEUE_OFF
    bench.write(reg.WQCFG, 32)
    bench.write(reg.WQCFG + 8, 1)
    assert bench.command(Command.ENABLE_WQ, 0) == 0
    assert bench.compress().ends == (Status.SUCCESS, 0)


def test_commands_tell_when_they_are_done(bench: Bench) -> None:
    assert bench.command(Command.DRAIN_ALL) == 0
    assert bench.fired == [0]
    assert bench.word(reg.INTCAUSE) == 2
    bench.write(reg.INTCAUSE, 2)
    assert bench.command(Command.DRAIN_ALL, interrupt=False) == 0
    assert bench.fired == [0]
    for number in (0, 13, 14, 31):
        assert bench.command(number) == CommandStatus.INVAL_CMD
    assert bench.word(reg.CMDCAP) == 0


def test_a_reset_device_is_as_new_and_can_be_set_up(bench: Bench) -> None:
    bench.device.direct(7 * 4 * 4096, bytes(64))
    assert bench.command(Command.RESET_DEVICE) == 0
    assert (bench.word(reg.GENSTATS), bench.word(reg.WQCFG), bench.word(reg.GRPCFG), bench.word(reg.SWERR)) == (0, 0, 0, 0)
    assert bench.fired[-1] == 0
    bench.write(reg.INTCAUSE, 0xFFFFFFFF)
    bench.set_up()
    assert bench.compress().ends == (Status.SUCCESS, 0)


def test_a_function_level_reset(bench: Bench) -> None:
    portals = struct.pack("<Q", 0xFE000000)
    bench.device.write(CONFIG_REGION, 0x18, portals)
    # PCI_EXP_DEVCTL, bit 15.
    bench.device.write(CONFIG_REGION, 0x48, b"\0\x80")
    assert bench.device.read(CONFIG_REGION, 0x48, 2) == b"\0\0"
    assert (bench.word(reg.GENSTATS), bench.word(reg.WQCFG), bench.word(reg.GENCTRL)) == (0, 0, 0)
    assert bench.device.config.portals == 0xFE000000
    descriptor, _ = bench.descriptor(Opcode.NOOP, 0, 0, 0, 0)
    bench.submit(descriptor)
    assert swerr(bench)[0] == SWERR_QUEUE_OFF
    bench.set_up()
    assert bench.compress().ends == (Status.SUCCESS, 0)
    # PCI Express says that it can: bit 28 of the device's capabilities.
    assert struct.unpack("<I", bench.device.read(CONFIG_REGION, 0x44, 4))[0] >> 28 & 1


# The log


def test_the_log_has_a_line_a_descriptor(tmp_path: Path) -> None:
    bench = Bench(log=tmp_path / "jobs", number=1).set_up((64, 64))
    bench.put(0x10000, PAGE)
    size = bench.compress().size
    bench.job(Opcode.DECOMPRESS, 0x20000, size, 0x30000, 4096, queue=1, flags=Flag.RCI, int_handle=2)
    bench.compress(room=50)
    bench.job(0x50, 0, 0, 0, 0)
    bench.close()
    lines = logged(tmp_path / "jobs")
    assert lines[0] == {"format": "zreplay-iaa-jobs-1"}
    assert [(one["n"], one["device"], one["queue"], one["op"], one["status"], one["error"], one["in"], one["out"]) for one in lines[1:]] == [
        (1, 1, 0, "compress", 1, 0, 4096, size), (2, 1, 1, "decompress", 1, 0, size, 4096), (3, 1, 0, "compress", 10, 25, 4096, 0),
        (4, 1, 0, "0x50", 16, 0, 0, 0)]
    assert lines[1]["pfn"] == BASE + 0x10000 >> 12
    assert lines[1]["to"] == BASE + 0x20000
    assert lines[1]["how"] == 6
    assert lines[2]["flags"] == Flag.CRAV | Flag.RCR | Flag.RCI | 0x100
    assert not any("head" in one or "crc" in one for one in lines)


def test_contents_are_logged_where_asked_for(tmp_path: Path) -> None:
    bench = Bench(log=tmp_path / "jobs", contents=True).set_up()
    bench.put(0x10000, PAGE)
    record = bench.compress()
    bench.close()
    line = logged(tmp_path / "jobs")[1]
    assert (line["crc"], line["head"]) == (record.crc, compress(PAGE, 4096)[:8].hex())


def test_the_page_that_is_kept_is_the_one_that_was_compressed(tmp_path: Path) -> None:
    """The guest may use it for something else as soon as the record says that the job has ended, and before it is logged."""
    bench = Bench("service=10us", log=tmp_path / "jobs", contents=True, pages=tmp_path / "pages").set_up()
    bench.put(0x10000, PAGE)
    bench.page()
    bench.put(0x10000, bytes(4096))
    bench.advance(20_000)
    bench.job(Opcode.DECOMPRESS, 0x20000, 100, 0x30000, 4096)
    bench.close()
    lines = logged(tmp_path / "jobs")[1:]
    assert [line.get("page") for line in lines] == [1, *[None] * (len(lines) - 1)]
    assert (tmp_path / "pages").read_bytes() == PAGE


def test_a_page_that_the_guest_writes_to_meanwhile_is_kept_as_it_was_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(log=tmp_path / "jobs", contents=True, pages=tmp_path / "pages").set_up()
    bench.put(0x10000, PAGE)
    perform = bench.device.operations.perform

    def overtaken(descriptor: Descriptor) -> Outcome:
        outcome = perform(descriptor)
        bench.put(0x10000, bytes(4096))
        return outcome

    monkeypatch.setattr(bench.device.operations, "perform", overtaken)
    assert bench.compress().ends == (Status.SUCCESS, 0)
    bench.close()
    assert (tmp_path / "pages").read_bytes() == PAGE


def test_the_log_says_when_a_queue_is_enabled_and_disabled(tmp_path: Path) -> None:
    bench = Bench(log=tmp_path / "jobs").set_up()
    bench.put(0x10000, PAGE)
    assert bench.compress().ends == (Status.SUCCESS, 0)
    bench.advance(1000)
    bench.command(Command.DISABLE_DEVICE)
    bench.close()
    lines = [json.loads(line) for line in (tmp_path / "jobs").read_text().splitlines()][1:]
    assert [line["op"] for line in lines] == ["queue_on", "compress", "queue_off"]
    assert [lines[-1][name] for name in ("device", "queue", "submitted", "ended")] == [0, 0, 1000, 1000]
    assert set(lines[0]) <= set(lines[1]), "the table of jobs has these columns alone"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_ends_the_log_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        JobLog(Path("/dev/full"))
    bench = Bench(log=tmp_path / "jobs").set_up()
    bench.put(0x10000, PAGE)
    (tmp_path / "jobs").unlink()
    assert bench.log._file is not None
    bench.log._file.close()
    bench.log._file = open("/dev/full", "w")  # noqa: SIM115
    for _ in range(200):
        assert bench.compress().ends == (Status.SUCCESS, 0)
    assert not bench.log.wanted
    bench.close()


# Anything


REGISTERS = st.one_of(st.sampled_from([reg.CMD, reg.GENCTRL, reg.INTCAUSE, reg.SWERR, reg.WQCFG, reg.WQCFG + 8, reg.WQCFG + 32, reg.GRPCFG,
                                       reg.GRPCFG + 32, reg.GRPCFG + 64, reg.GENCFG, reg.EVLCFG]), st.integers(0, 0xFFFF))
COMMAND_WORDS = st.builds(lambda number, operand, fires: number << 20 | operand | fires << 31, st.integers(0, 15),
                          st.sampled_from([0, 1, 2, 3, 7, 8, 0xFF, 0xFFFF, 0x10001]), st.booleans())
WORDS = st.one_of(st.integers(0, 255), st.integers(0, (1 << 64) - 1), COMMAND_WORDS)
ADDRESSES = st.one_of(st.integers(BASE - 100, BASE + SIZE + 100), st.sampled_from([0, (1 << 64) - 1, BASE + 0x2000, BASE + 0x10000, BASE + AECS_AT]))
SIZES = st.sampled_from([0, 1, 2, 63, 64, 100, 4095, 4096, 4097, 1568, 0x7FFFFFFF, 0xFFFFFFFF])
DESCRIPTORS = st.builds(
    Descriptor, trusted=st.sampled_from([0, 1, 0xFFFFFFFF]),
    word=st.builds(lambda opcode, flags: opcode << 24 | flags, st.sampled_from([0, 1, 2, 3, 0x42, 0x43, 0x44, 0x50, 0xFF]),
                   st.sampled_from([0, 0x0C, 0x1C, 0x1010C, 0x1011C, 0x20010C, 0xFFFFFF])),
    completion_addr=st.one_of(st.integers(0, 100).map(lambda k: BASE + 0x2000 + 64 * k), ADDRESSES), src1_addr=ADDRESSES, dst_addr=ADDRESSES,
    src1_size=SIZES, int_handle=st.integers(0, 12), compr_flags=st.sampled_from([0, 6, 0xF, 0x20F, 0x3006, 0xFFFF]), src2_addr=ADDRESSES,
    max_dst_size=SIZES, src2_size=SIZES, filter_flags=st.sampled_from([0, 1]), num_inputs=st.sampled_from([0, 1]))
ACTIONS = st.one_of(
    st.tuples(st.just("write"), REGISTERS, WORDS, st.sampled_from([1, 2, 4, 8])), st.tuples(st.just("command"), COMMAND_WORDS),
    st.tuples(st.just("config"), st.integers(0, 0x100), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("submit"), st.integers(0, 31), DESCRIPTORS), st.tuples(st.just("raw"), st.integers(0, 31), st.binary(min_size=64, max_size=64)),
    st.tuples(st.just("piece"), st.integers(0, 0x1FFF8), st.binary(min_size=1, max_size=80)), st.tuples(st.just("wait"), st.integers(0, 3_000_000)),
    st.tuples(st.just("read"), st.sampled_from([0, 2, CONFIG_REGION]), st.integers(0, 0xFF0), st.integers(0, 16)), st.tuples(st.just("reset")))
OPTIONS = st.sampled_from(["", "version=2", "service=1us,per_kib=200ns", "service=100us,version=2"])
PLANS = st.sampled_from(["", "every=2: late=1us\nevery=3: lost", ": reorder=2", "nth=3: halt=software\nnth=5: reset", "every=2: exhaust=1ms",
                         "bytes=00: length=+5 crc=wrong\nevery=2: page-fault=destination", "every=5: halt=flr"])


@given(OPTIONS, PLANS, st.lists(ACTIONS, max_size=40))
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_a_guest_does_stops_the_device(options: str, plan: str, actions: list[tuple]) -> None:  # type: ignore[type-arg]
    bench = Bench(options, plan).set_up((8, 8, 100), groups=(((0, 1), 3), ((2,), 0xF0)))
    for kind, *what in actions:
        if kind == "write":
            offset, value, size = what
            bench.device.write(0, min(offset, reg.BAR0_SIZE - size), (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        elif kind == "command":
            bench.write(reg.CMD, *what)
        elif kind == "config":
            bench.device.write(CONFIG_REGION, *what)
        elif kind == "submit":
            bench.device.direct(what[0] * 4096, what[1].pack())
        elif kind == "raw":
            bench.device.direct(what[0] * 4096, what[1])
        elif kind == "piece":
            bench.device.write(2, what[0], what[1][:0x20000 - what[0]])
        elif kind == "wait":
            bench.advance(bench.now + what[0])
        elif kind == "read":
            assert len(bench.device.read(*what)) == what[2]
        else:
            bench.device.reset()
        for queue in bench.device.queues:
            assert queue.outstanding >= len(queue.waiting) >= 0
    # Whatever came before: after a reset it works.
    bench.device.plan.rules.clear()
    bench.device.reset()
    bench.advance(bench.now + 10**9)
    assert bench.device.engines.idle
    bench.memory.clear()
    bench.memory.map(BASE, SIZE, bench.fd, 0)
    bench.set_up()
    bench.put(0x10000, PAGE)
    record = bench.page()
    bench.advance(bench.now + 10**9)
    assert bench.record(record).ends == (Status.SUCCESS, 0)
    bench.close()


def test_a_full_queue_drops_what_comes() -> None:
    bench = made("service=1ms", sizes=(2,), groups=(((0,), 1),))
    # One with the engine, two that wait, one too many.
    records = [bench.page() for _ in range(4)]
    assert swerr(bench)[:3] == (SWERR_QUEUE_FULL, 0, Opcode.COMPRESS)
    assert bench.word(reg.WQCFG + 24) & 0xFFFF == 2
    bench.advance(bench.now + 10**9)
    assert [bench.record(one).status for one in records] == [1, 1, 1, 0]
    assert bench.word(reg.WQCFG + 24) & 0xFFFF == 0
    bench.close()
