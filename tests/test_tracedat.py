# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace.dat reader against files made here, files of trace-cmd itself, and damage."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traces import schema
from traces.block import Block
from traces.errors import BadInput
from traces.importers import tracedatevents
from traces.importers.source import RunFacts
from traces.importers.tracedat import TraceDat, open_tracedat, sniff_tracedat

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORDINGS = Path(os.environ.get("ZREPLAY_RECORDINGS",
                                 Path(__file__).resolve().parents[1].parent / "shared" / "recordings"))
SAMPLE = RECORDINGS / "7.3-tracecmd" / "trace.dat"
needs_sample = pytest.mark.skipif(not SAMPLE.exists(), reason=f"no recording at {SAMPLE}")
needs_tracecmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")

PAGE = 4096
HEADER_PAGE = ("\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
               "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
               "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
               "\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n")
HEADER_EVENT = ("# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n"
                "\tarray       :   32 bits\n\n\tpadding     : type == 29\n\ttime_extend : type == 30\n"
                "\ttime_stamp : type == 31\n\tdata max type_len  == 28\n")


def format_text(name: str, number: int) -> str:
    return (f"name: {name}\nID: {number}\nformat:\n"
            "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
            "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
            "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
            "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
            "\tfield:u64 value;\toffset:8;\tsize:8;\tsigned:0;\n\n"
            'print fmt: "value=0x%Lx", REC->value\n')


FORMATS = {"ftrace/wakeup": format_text("wakeup", 3), "z/store": format_text("store", 1500),
           "z/load": format_text("load", 1501)}
CLOCKS = "[mono] local global counter\n"


def page(seed: int, order: str = "<") -> bytes:
    """A sub-buffer with one event 'z/store' of pid 42; ``seed`` is its value and its stamp in us."""
    event = struct.pack(order + "HBBiQ", 1500, 0, 0, 42, seed)
    # On big-endian machines the bit fields lie the other way round.
    head = len(event) // 4 if order == "<" else (len(event) // 4) << 27
    data = struct.pack(order + "QQI", seed * 1000, 4 + len(event), head) + event
    return data.ljust(PAGE, b"\0")


@dataclass
class Spec:
    """What to put in a file."""

    order: str = "<"
    #: buffer name -> CPU -> sub-buffers
    data: dict[str, dict[int, bytes]] = field(default_factory=lambda: {
        "": {0: page(1) + page(2), 1: page(3)}, "zmeta": {0: page(4) * 25, 1: b""}})
    compression: str = "none"
    chunk: int = 10 * PAGE
    #: extra options as (id, data)
    options: tuple[tuple[int, bytes], ...] = ()
    #: trace-cmd 3.1 leaves the 4 bytes of the chunk count out of a CPU's size
    count_in_size: bool = False
    page_size: int = PAGE

    def pack(self, codes: str, *values: int) -> bytes:
        return struct.pack(self.order + codes, *values)

    def compress(self, data: bytes) -> bytes:
        if self.compression == "zlib":
            return zlib.compress(data)
        # trace-cmd leaves the content size out of its frames.
        return zstd.compress(data, options={zstd.CompressionParameter.content_size_flag: 0})

    def sized(self, codes: str, text: str) -> bytes:
        return self.pack(codes, len(text.encode())) + text.encode()

    def metadata(self) -> dict[int, bytes]:
        """The content of the sections, by their numbers in version 7, in the order of version 6."""
        systems: dict[str, list[str]] = {}
        for name, text in FORMATS.items():
            systems.setdefault(name.split("/")[0], []).append(text)
        ftrace = systems.pop("ftrace")
        events = b"".join(name.encode() + b"\0" + self.pack("I", len(texts)) + b"".join(
            self.sized("Q", text) for text in texts) for name, texts in systems.items())
        return {16: b"header_page\0" + self.sized("Q", HEADER_PAGE) + b"header_event\0"
                + self.sized("Q", HEADER_EVENT),
                17: self.pack("I", len(ftrace)) + b"".join(self.sized("Q", text) for text in ftrace),
                18: self.pack("I", len(systems)) + events,
                19: self.sized("I", "ffffffff81000000 T _text\n"), 20: self.sized("I", '0xff : "x"\n'),
                21: self.sized("Q", "42 kworker/u4:2-events\n43 a b\n")}

    def common_options(self) -> list[tuple[int, bytes]]:
        stats = "CPU: {}\nentries: 3\noverrun: 7\ndropped events: {}\noldest event ts:     9.5\n"
        return [(4, CLOCKS.encode() + b"\0"), (5, b"Linux box 7.3-amd64 x86_64\0"),
                (2, stats.format(0, 0).encode() + b"\0"), (2, b"\nBuffer: zmeta\n\n\0"),
                (2, stats.format(1, 5).encode() + b"\0"), *self.options]

    def option(self, number: int, data: bytes) -> bytes:
        return self.pack("HI", number, len(data)) + data

    def start(self, version: bytes) -> bytes:
        return b"\x17\x08\x44tracing" + version + b"\0" + bytes([self.order == ">", 8]) \
            + self.pack("I", self.page_size)

    def v6(self) -> bytes:
        cpus = max(max(regions) for regions in self.data.values()) + 1
        out = bytearray(self.start(b"6") + b"".join(self.metadata().values()) + self.pack("I", cpus))
        out += b"options  \0" + b"".join(self.option(*entry) for entry in self.common_options())
        patches: dict[str, int] = {}
        for name in self.data:
            if name:
                out += self.pack("HI", 3, 8 + len(name) + 1)
                patches[name] = len(out)
                out += bytes(8) + name.encode() + b"\0"
        out += self.pack("H", 0)
        tables: dict[str, int] = {}
        for name in self.data:
            if name:
                struct.pack_into(self.order + "Q", out, patches[name], len(out))
            out += b"flyrecord\0"
            tables[name] = len(out)
            out += bytes(16 * cpus) + self.sized("Q", "[mono]")
        for name, regions in self.data.items():
            for cpu in range(cpus):
                out += bytes(-len(out) % self.page_size)
                content = regions.get(cpu, b"")
                struct.pack_into(self.order + "QQ", out, tables[name] + 16 * cpu, len(out), len(content))
                out += content
        return bytes(out)

    def chunks(self, content: bytes) -> bytes:
        parts = [content[at:at + self.chunk] for at in range(0, len(content), self.chunk)]
        out = self.pack("I", len(parts))
        for part in parts:
            packed = self.compress(part)
            out += self.pack("II", len(packed), len(part)) + packed
        return out

    def v7(self, data_last: bool = False) -> bytes:
        """A file of version 7.

        trace-cmd puts the options that lead to the data behind it; ``data_last`` puts them before.
        """
        squeeze = self.compression != "none"
        out = bytearray(self.start(b"7") + self.compression.encode() + b"\0" + b"1.5\0" + bytes(8))
        options_at = len(out) - 8

        def section(number: int, content: bytes, compress: bool = squeeze) -> int:
            at = len(out)
            if compress:
                packed = self.compress(content)
                content = self.pack("II", len(packed), len(content)) + packed
            out.extend(self.pack("HHIQ", number, compress, 0, len(content)) + content)
            return at

        def data() -> bytes:
            """Append the data and return the options that lead to it."""
            options = b""
            for name, regions in self.data.items():
                at, table, count = len(out), b"", 0
                out.extend(self.pack("HHIQ", 3, squeeze, 9, 0))
                for cpu, content in regions.items():
                    if content:
                        out.extend(bytes(-len(out) % self.page_size))
                        stored = self.chunks(content) if squeeze else content
                        short = 4 if squeeze and not self.count_in_size else 0
                        table += self.pack("IQQ", cpu, len(out), len(stored) - short)
                        count += 1
                        out.extend(stored)
                struct.pack_into(self.order + "Q", out, at + 8, len(out) - at - 16)
                options += self.option(3, self.pack("Q", at) + name.encode() + b"\0mono\0"
                                       + self.pack("II", self.page_size, count) + table)
            return options + self.option(0, bytes(8))

        links = [(number, self.pack("Q", section(number, content)))
                 for number, content in self.metadata().items()]
        start = len(out)
        buffers = data()
        if data_last:
            del out[start:]
        # As trace-cmd does, in two sections: the first one's DONE leads to the second.
        first = [*self.common_options(), (8, self.pack("I", 2)), *links]
        body = b"".join(self.option(*entry) for entry in first)
        struct.pack_into(self.order + "Q", out, options_at, len(out))
        section(0, body + self.option(0, self.pack("Q", len(out) + 16 + len(body) + 14)), False)
        at = section(0, buffers, squeeze and not data_last)
        section(15, b"headers\0buffer\0")
        if data_last:
            final = data()
            out[at + 16:at + 16 + len(final)] = final
        return bytes(out)


VARIANTS = {
    "v6": Spec().v6(),
    "v6-big-endian": Spec(order=">", data={"": {1: page(1, ">")}}).v6(),
    "v7": Spec().v7(),
    "v7-data-last": Spec().v7(data_last=True),
    "v7-zlib": Spec(compression="zlib").v7(),
    "v7-zstd": Spec(compression="zstd").v7(),
    "v7-zstd-newer": Spec(compression="zstd", count_in_size=True).v7(),
    "v7-zstd-data-last": Spec(compression="zstd").v7(data_last=True),
    "v7-big-endian": Spec(order=">", data={"": {1: page(1, ">")}}, compression="zlib").v7(),
    "v7-odd-chunks": Spec(compression="zstd", chunk=6000).v7()}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "trace.dat"
        path.write_bytes(content)
        return path
    return save


def content_of(dat: TraceDat) -> dict[str, dict[int, bytes]]:
    return {buffer.name: {cpu.cpu: b"".join(cpu.subbuffers()) for cpu in buffer.cpus}
            for buffer in dat.buffers}


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(variant: str, write: Callable[[bytes], Path]) -> None:
    big = "big" in variant
    expected = {"": {1: page(1, ">")}} if big else \
        {"": {0: page(1) + page(2), 1: page(3)}, "zmeta": {0: page(4) * 25}}
    with open_tracedat(write(VARIANTS[variant])) as dat:
        assert (dat.version, dat.little_endian) == (int(variant[1]), not big)
        assert (dat.long_size, dat.user_long_size, dat.page_size, dat.cpu_count) == (8, 8, PAGE, 2)
        assert (dat.header_page, dat.header_event) == (HEADER_PAGE, HEADER_EVENT)
        assert dat.formats == FORMATS
        assert dat.kallsyms == "ffffffff81000000 T _text\n"
        assert dat.printk == '0xff : "x"\n'
        assert dat.cmdlines == {42: "kworker/u4:2-events", 43: "a b"}
        assert (dat.uname, dat.hostname, dat.clock) == ("Linux box 7.3-amd64 x86_64", "box", "mono")
        assert [buffer.clock for buffer in dat.buffers] == ["mono"] * len(expected)
        for _ in range(2):  # can be read again
            assert content_of(dat) == expected
        assert all(cpu.truncated_bytes == 0 for buffer in dat.buffers for cpu in buffer.cpus)
        assert dat.notes == []


def test_cpustat(write: Callable[[bytes], Path]) -> None:
    with open_tracedat(write(VARIANTS["v7"])) as dat:
        found = [(s.buffer, s.cpu, s.counters["overrun"], s.counters["dropped events"]) for s in dat.cpustats]
        assert found == [("", 0, 7, 0), ("zmeta", 1, 7, 5)]
        assert dat.cpustats[0].counters["oldest event ts"] == 9.5


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_options(version: str, write: Callable[[bytes], Path]) -> None:
    spec = Spec()
    spec.options = ((1, b"0x10\0"), (7, b"-5\0"), (9, b"3.1.6\0"), (11, spec.pack("Q", 1 << 63)),
                    (12, spec.pack("QII", 9, 1, 2)),
                    (13, b"vm\0" + spec.pack("QIIIII", 7, 2, 0, 100, 1, 101)),
                    (14, spec.pack("IIQ", 5, 6, 7)), (24, b"boot:x\0"), (99, b"??"))
    with open_tracedat(write(getattr(spec, version)())) as dat:
        assert dat.ts_offset_ns == 0x10 * 1000 - 5
        assert dat.values("VERSION") == ["3.1.6"]
        assert dat.values("TRACEID") == [1 << 63]
        assert dat.values("TIME_SHIFT") == [(9, 1, 2)]
        assert dat.values("GUEST") == [("vm", 7, {0: 100, 1: 101})]
        assert dat.values("TSC2NSEC") == [(5, 6, 7)]
        assert dat.values("LAST_BOOT_INFO") == ["boot:x"]
        assert dat.values("option 99") == [b"??"]


def test_long_of_the_kernel_not_of_user_space(write: Callable[[bytes], Path]) -> None:
    content = bytearray(VARIANTS["v6"])
    content[13] = 4
    with open_tracedat(write(bytes(content))) as dat:
        assert (dat.user_long_size, dat.long_size) == (4, 8)


def test_cpucount_option_of_version_6(write: Callable[[bytes], Path]) -> None:
    """The option overrides the count in the header, in which an old file may have a smaller one."""
    spec = Spec()
    spec.options = ((8, spec.pack("I", 2)),)
    content = bytearray(spec.v6())
    at = content.index(b"options  \0") - 4
    struct.pack_into("<I", content, at, 1)
    with open_tracedat(write(bytes(content))) as dat:
        assert sorted(content_of(dat)[""]) == [0, 1]


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_big_regions_come_in_bounded_pieces(version: str, tmp_path: Path) -> None:
    """A gigabyte must not need a gigabyte: the region here is a hole in a sparse file."""
    spec = Spec(data={"": {0: page(1)}})
    content = bytearray(getattr(spec, version)())
    size = 1 << 30
    where = content.index(page(1))
    at = content.rindex(struct.pack("<QQ", where, PAGE))
    path = tmp_path / "sparse.dat"
    if version == "v7":  # the options lie behind the data, so the region is moved past them
        where = -(-len(content) // PAGE) * PAGE
    struct.pack_into("<QQ", content, at, where, size)
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(where + size)
    with open_tracedat(path) as dat:
        tracemalloc.start()
        total = pieces = 0
        for piece in dat.buffers[0].cpus[0].subbuffers():
            assert 0 < len(piece) <= 4 << 20
            assert len(piece) % PAGE == 0
            total += len(piece)
            pieces += 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert total == size
    assert pieces <= size >> 20
    assert peak < 16 << 20


def test_compressed_pieces_are_bounded(write: Callable[[bytes], Path]) -> None:
    data = b"".join(page(n) for n in range(3000))
    with open_tracedat(write(Spec(data={"": {0: data}}, compression="zstd").v7())) as dat:
        pieces = list(dat.buffers[0].cpus[0].subbuffers())
    assert b"".join(pieces) == data
    assert len(pieces) > 3
    assert all(len(piece) % PAGE == 0 and len(piece) <= 4 << 20 for piece in pieces)


def test_version_6_cut_in_the_data(write: Callable[[bytes], Path]) -> None:
    whole = VARIANTS["v6"]
    with open_tracedat(write(whole[:-2 * PAGE - 100])) as dat:
        cut = dat.buffers[1].cpus[0]
        assert b"".join(cut.subbuffers()) == page(4) * 22
        assert cut.truncated_bytes == 3 * PAGE
        assert dat.buffers[0].cpus[0].truncated_bytes == 0
    start = whole.index(page(2))
    with open_tracedat(write(whole[:start])) as dat:
        assert content_of(dat) == {"": {0: page(1), 1: b""}, "zmeta": {0: b""}}
        cut_off = [cpu.truncated_bytes for buffer in dat.buffers for cpu in buffer.cpus]
        assert cut_off == [PAGE, PAGE, 25 * PAGE]


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
@pytest.mark.parametrize("lost", [1, 60, 4000])
def test_version_7_cut_in_the_data(compression: str, lost: int, write: Callable[[bytes], Path]) -> None:
    data = b"".join(os.urandom(PAGE) for _ in range(25))
    spec = Spec(data={"": {0: data}}, compression=compression)
    whole = spec.v7(data_last=True)
    with open_tracedat(write(whole)) as dat:
        assert content_of(dat) == {"": {0: data}}
    with open_tracedat(write(whole[:-lost])) as dat:
        cpu = dat.buffers[0].cpus[0]
        # A compressed chunk, here the last five sub-buffers, is lost as a whole.
        usable = 24 if compression == "none" else 20
        assert b"".join(cpu.subbuffers()) == data[:usable * PAGE]
        assert (24 - usable) * PAGE < cpu.truncated_bytes <= (26 - usable) * PAGE
    stored = data if compression == "none" else spec.chunks(data)
    for there in (0, 3, 5, 11, 100):
        with open_tracedat(write(whole[:len(whole) - len(stored) + there])) as dat:
            cpu = dat.buffers[0].cpus[0]
            assert list(cpu.subbuffers()) == []
            assert len(stored) - 8 <= cpu.truncated_bytes <= len(stored)


def test_version_7_cut_before_its_options(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BadInput, match="section options should be here, but the file ends before"):
        open_tracedat(write(VARIANTS["v7"][:20000]))


def test_trailing_part_of_a_subbuffer_is_left_out(write: Callable[[bytes], Path]) -> None:
    for spec in (Spec(data={"": {0: page(1) + b"x" * 100}}),
                 Spec(data={"": {0: page(1) + b"x" * 100}}, compression="zstd")):
        with open_tracedat(write(spec.v7())) as dat:
            cpu = dat.buffers[0].cpus[0]
            assert b"".join(cpu.subbuffers()) == page(1)
            assert cpu.truncated_bytes == 100


def patch(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) >= 1
    return content.replace(old, new, 1)


_V6, _V7 = VARIANTS["v6"], VARIANTS["v7"]
_TABLE_6 = _V6.index(b"flyrecord\0") + 10
DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a trace.dat"),
    "another file": (b"\x7fELF" * 100, "not a trace.dat"),
    "version 5": (patch(_V6, b"tracing6", b"tracing5"), "file version '5' is not known"),
    "endless version": (_V6[:10] + b"9" * 9000, "the version has no end"),
    "byte order": (_V6[:12] + b"\x02" + _V6[13:], "byte order 2"),
    "long": (_V6[:13] + b"\x05" + _V6[14:], "a long of 5 bytes"),
    "page size": (_V6[:14] + b"\x01\x10\0\0" + _V6[18:], "sub-buffer size of 4097"),
    "no page size": (_V6[:16], "the page size should take 4 bytes, but only 2 are left"),
    "no header_page": (patch(_V6, b"header_page\0", b"header_pagf\0"), "header_page is not where"),
    "no header_event": (patch(_V7, b"header_event\0", b"header_evenu\0"), "header_event is not where"),
    "length of header_page": (patch(_V6, b"header_page\0" + struct.pack("<Q", len(HEADER_PAGE)),
                                    b"header_page\0" + struct.pack("<Q", 1 << 60)),
                              "header_page should take 1152921504606846976 bytes"),
    "many systems": (patch(_V6, struct.pack("<I", 1) + b"z\0", struct.pack("<I", 1 << 31) + b"z\0"),
                     "2147483648 event systems"),
    "many events": (patch(_V6, b"z\0" + struct.pack("<I", 2), b"z\0" + struct.pack("<I", 1 << 31)),
                    "a format of z should take"),
    "format without name": (patch(_V7, b"name: store", b"mane: store"), "does not start with the event's"),
    "many CPUs": (patch(_V6, struct.pack("<I", 2) + b"options", struct.pack("<I", 1 << 30) + b"options"),
                  "number of CPUs is 1073741824"),
    "option past the end": (patch(_V6, struct.pack("<HI", 4, len(CLOCKS) + 1),
                                  struct.pack("<HI", 4, 1 << 30)),
                            "an option should take 1073741824 bytes"),
    "no table": (patch(_V6, b"flyrecord\0", b"flyrecorD\0"), "the table of CPU data is not where"),
    "no second table": (_V6[::-1].replace(b"flyrecord\0"[::-1], b"FLYRECORD\0"[::-1], 1)[::-1],
                        "buffer 'zmeta', offset .*the table of CPU data is not where"),
    "absurd region": (_V6[:_TABLE_6] + struct.pack("<QQ", 4096, 1 << 60) + _V6[_TABLE_6 + 16:],
                      "which makes no sense"),
    "overlap": (_V6[:_TABLE_6 + 16] + _V6[_TABLE_6:_TABLE_6 + 16] + _V6[_TABLE_6 + 32:],
                "the data of CPU 1 lies inside the data of CPU 0"),
    "compression": (patch(_V7, b"none\0", b"lzma\0"), "compression 'lzma' is not known"),
    "options far away": (_V7[:27] + struct.pack("<Q", 1 << 62) + _V7[35:], "section options should be here"),
    "options elsewhere": (_V7[:27] + struct.pack("<Q", 35) + _V7[35:], "section 0 should be here"),
    "compressed without compression": (patch(_V7, struct.pack("<HHI", 19, 0, 0),
                                             struct.pack("<HHI", 19, 1, 0)),
                                       "says it has no compression"),
    "bad date": (Spec(options=((1, b"soon\0"),)).v6(), "option DATE, .*not a number"),
    "short trace id": (Spec(options=((11, b"abc"),)).v7(), "option TRACEID, .*should take 8 bytes"),
    "guest without end": (Spec(options=((13, b"abc"),)).v7(), "the guest's name has no end"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, write: Callable[[bytes], Path]) -> None:
    content, message = DAMAGE[name]
    path = write(content)
    with pytest.raises(BadInput, match=message) as caught:
        open_tracedat(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.todo


def test_option_sections_in_a_circle(write: Callable[[bytes], Path]) -> None:
    first = _V7[27:35]
    done = struct.pack("<HIQ", 0, 8, 0)
    assert _V7.count(done) == 1
    with pytest.raises(BadInput, match="the chain of option sections comes back"):
        open_tracedat(write(_V7.replace(done, done[:6] + first)))


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_damaged_chunks(compression: str, write: Callable[[bytes], Path]) -> None:
    spec = Spec(data={"": {0: page(5) * 25}}, compression=compression)
    whole = spec.v7()
    at = whole.index(spec.chunks(page(5) * 25))
    cases = {
        "do not fit": (at, struct.pack("<I", 1 << 31)),
        "runs past the end|should take": (at + 4, struct.pack("<I", 1 << 20)),
        "the last of the 2 compressed chunks ends here": (at, struct.pack("<I", 2)),
        "does not decompress to": (at + 8, struct.pack("<I", 11 * PAGE)),
        "does not decompress to the 8192": (at + 8, struct.pack("<I", 2 * PAGE)),
        "more than any real one": (at + 8, struct.pack("<I", 1 << 31)),
        # Frames of trace-cmd have no checksum, so not every change inside one can be noticed.
        "is damaged": (at + 12, b"\xff\xff\xff\xff"),
    }
    for message, (where, data) in cases.items():
        path = write(whole[:where] + data + whole[where + len(data):])
        with open_tracedat(path) as dat, pytest.raises(BadInput, match=message) as caught:
            list(dat.buffers[0].cpus[0].subbuffers())
        assert "CPU 0" in caught.value.where


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_bombs_are_not_unpacked(compression: str, write: Callable[[bytes], Path]) -> None:
    """A block that unpacks to far more than it announces, or announces too much, takes no memory for it."""
    spec = Spec(compression=compression)
    packed = spec.compress(bytes(300 << 20))
    whole = spec.v7()
    at = whole.index(struct.pack("<HHI", 19, 1, 0))
    for claimed, message in ((1000, "does not decompress to the 1000"), (300 << 20, "than any real one")):
        bomb = struct.pack("<HHIQII", 19, 1, 0, len(packed) + 8, len(packed), claimed) + packed
        # At the end of the file, where the KALLSYMS option is led to.
        link = struct.pack("<HIQ", 19, 8, at)
        assert whole.count(link) == 1
        path = write(whole.replace(link, struct.pack("<HIQ", 19, 8, len(whole))) + bomb)
        tracemalloc.start()
        with pytest.raises(BadInput, match=message):
            open_tracedat(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20


def test_latency_text_is_noted(write: Callable[[bytes], Path]) -> None:
    at = _V6.index(b"flyrecord\0")
    with open_tracedat(write(_V6[:at] + b"latency  \0# tracer: irqsoff\n")) as dat:
        assert dat.buffers == []
        assert "latency" in dat.notes[0]


def test_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    descriptor = os.open(tmp_path / "pipe", os.O_RDWR)  # lets the reader's open() return
    try:
        with pytest.raises(BadInput, match="not a regular file"):
            open_tracedat(tmp_path / "pipe")
    finally:
        os.close(descriptor)
    with pytest.raises(FileNotFoundError):
        open_tracedat(tmp_path / "none")


def test_sniff() -> None:
    assert all(sniff_tracedat(content[:10]) for content in VARIANTS.values())
    assert not any(map(sniff_tracedat, (b"", b"\x17\x08", b"# tracer: nop")))


# Whatever the bytes: BadInput or a bounded result.

@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "trace.dat"


def survive(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with open_tracedat(path) as dat:
            assert dat.ts_offset_ns is not None
            assert [dat.hostname, dat.clock, dat.cpustats, dat.long_size]
            total = 0
            for buffer in dat.buffers:
                for cpu in buffer.cpus:
                    for piece in cpu.subbuffers():
                        assert piece
                        assert len(piece) % buffer.page_size == 0
                        total += len(piece)
                    assert cpu.truncated_bytes >= 0
            assert total <= 64 << 20
    except BadInput as error:
        assert error.what and error.todo  # noqa: PT017, PT018 (both outcomes are right)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20


fuzz = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
variants = st.sampled_from(sorted(VARIANTS))


@fuzz
@given(version=st.sampled_from([b"", b"6\0\0\x08\0\x10\0\0", b"7\0\0\x08\0\x10\0\0none\0\0",
                                b"7\0\1\4\0\0\x10\0zstd\0\0"]),
       body=st.binary(max_size=2000))
def test_random_bytes(scratch: Path, version: bytes, body: bytes) -> None:
    survive(scratch, (b"\x17\x08\x44tracing" + version if version else b"") + body)


@fuzz
@given(variant=variants, flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
                                        min_size=1, max_size=8), metadata=st.booleans())
def test_flipped_bytes(scratch: Path, variant: str, flips: list[tuple[float, int]], metadata: bool) -> None:
    content = bytearray(VARIANTS[variant])
    # Most of a file is CPU data, in which nearly nothing can go wrong: aim at its ends too.
    span = 2000 if metadata else len(content)
    for place, value in flips:
        at = int(place * span)
        content[at if at < 1500 or not metadata else at - 2000] ^= value
    survive(scratch, bytes(content))


@fuzz
@given(variant=variants, keep=st.floats(0, 1))
def test_cut_anywhere(scratch: Path, variant: str, keep: float) -> None:
    survive(scratch, VARIANTS[variant][:int(keep * len(VARIANTS[variant]))])


@fuzz
@given(variant=variants, at=st.floats(0, 1), size=st.sampled_from([2, 4, 8]),
       number=st.sampled_from([0, 1, 0xFFFF, 1 << 20, (1 << 31) - 1, (1 << 32) - 1, (1 << 63) - 1,
                               (1 << 64) - 1]))
def test_absurd_numbers(scratch: Path, variant: str, at: float, size: int, number: int) -> None:
    content = bytearray(VARIANTS[variant])
    where = int(at * 1500)
    content[where:where + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    survive(scratch, bytes(content))


# Against trace-cmd and a real recording.

def run(*arguments: str | Path) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


@needs_tracecmd
@pytest.mark.parametrize("variant", ["v6", "v7", "v7-zstd", "v7-zstd-newer"])
def test_tracecmd_reads_the_files_made_here(variant: str, write: Callable[[bytes], Path]) -> None:
    """Not a test of the reader: that the writer above makes real files."""
    lines = run("trace-cmd", "report", "-R", write(VARIANTS[variant])).splitlines()
    events = [line for line in lines if "store:" in line]
    assert len(events) == 28
    assert all("kworker/u4:2-events-42" in line for line in events)
    assert [line.split("value=")[1] for line in events[:3]] == ["0x1", "0x2", "0x3"]


def count_events(data: bytes) -> int:
    """The number of events in sub-buffers of 4 KiB, counted as kernel/trace/ring_buffer.c lays them out."""
    count = 0
    for start in range(0, len(data), PAGE):
        at, end = start + 16, start + 16 + (struct.unpack_from("<Q", data, start + 8)[0] & 0xFFFFF)
        while at < end:
            kind = data[at] & 31
            if kind >= 30:
                at += 8
            elif kind in (0, 29):
                at += 4 + struct.unpack_from("<I", data, at + 4)[0]
                count += kind == 0
            else:
                at += 4 + 4 * kind
                count += 1
    return count


@needs_sample
def test_real_recording() -> None:
    with open_tracedat(SAMPLE) as dat:
        assert (dat.version, dat.compression, dat.clock, dat.cpu_count) == (7, "zstd", "local", 1)
        assert dat.uname == "Linux (none) 7.3-amd64 x86_64"
        assert [(buffer.name, len(buffer.cpus)) for buffer in dat.buffers] == [("", 0), ("zmeta", 1)]
        assert dat.cmdlines[136] == "python3"
        assert len(dat.kallsyms) == 9512620
        folder = SAMPLE.parent / "formats"
        for path in folder.iterdir():
            text = path.read_text()
            if path.name in ("header_page", "header_event"):
                assert getattr(dat, path.name) == text
            elif f"z/{path.name}" in dat.formats:
                assert dat.formats[f"z/{path.name}"] == text
        data = content_of(dat)["zmeta"][0]
        (stat,) = [stat for stat in dat.cpustats if stat.buffer == "zmeta"]
        assert count_events(data) == stat.counters["read events"] == 136348


@needs_sample
@needs_tracecmd
@pytest.mark.parametrize(("version", "compression"), [("6", "none"), ("7", "none"), ("7", "zstd")])
def test_converted_recording(version: str, compression: str, tmp_path: Path) -> None:
    out = tmp_path / "converted.dat"
    run("trace-cmd", "convert", "--file-version", version, "--compression", compression,
        "-i", SAMPLE, "-o", out)
    with open_tracedat(SAMPLE) as original, open_tracedat(out) as converted:
        assert converted.version == int(version)
        assert converted.compression == compression
        for name in ("formats", "kallsyms", "printk", "cmdlines", "header_page", "header_event", "uname",
                     "clock", "cpustats", "page_size", "long_size"):
            assert getattr(converted, name) == getattr(original, name)
        assert content_of(converted)["zmeta"] == content_of(original)["zmeta"]


def taken(tmp_path: Path, data: bytes, instance: str | None = None) -> tuple[list[int], RunFacts]:
    """Return the stamps of a file's events, as imported, and the facts."""
    path = tmp_path / "trace.dat"
    path.write_bytes(data)
    facts = RunFacts(instance=instance)
    blocks = [block.columns() for block in tracedatevents.stream(path, facts)]
    return np.concatenate(blocks, axis=1)[schema.column_names().index("ts")].tolist(), facts


def unknown(facts: RunFacts) -> list[str]:
    return [loss["why"] for loss in facts.losses if loss.get("cpu") is None]


ONE = {"": {0: page(1) + page(2) + page(3)}}


def clocked(clock: str, *options: tuple[int, bytes]) -> bytes:
    """A file whose clock is another one: in its TRACECLOCK option and behind its table."""
    return Spec(data=ONE, options=options).v6().replace(CLOCKS.encode(), f"[{clock}]".ljust(len(CLOCKS)).encode()) \
        .replace(struct.pack("<Q", 6) + b"[mono]", struct.pack("<Q", 6) + b"      ")


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_the_same_event_in_two_instances_is_said(version: str, tmp_path: Path) -> None:
    data = getattr(Spec(), version)()
    _, facts = taken(tmp_path, data)
    assert unknown(facts)[-1:] == ["zswap_store: recorded in several instances (top, zmeta): a call may be recorded twice"]
    stamps, facts = taken(tmp_path, data, "top")
    assert stamps == [1000, 2000, 3000]
    assert not any("twice" in why for why in unknown(facts))
    stamps, facts = taken(tmp_path, data, "zmeta")
    assert stamps == [4000] * 25
    with pytest.raises(BadInput, match="has no instance 'x'; choose one of top, zmeta"):
        taken(tmp_path, data, "x")


@pytest.mark.parametrize("clock", ["x86-tsc", "counter", "tai", "new"])
def test_a_clock_that_counts_no_seconds_is_said(clock: str, tmp_path: Path) -> None:
    stamps, facts = taken(tmp_path, clocked(clock))
    assert (stamps, facts.clock, facts.stamps) == ([1000, 2000, 3000], clock, clock)
    assert f"stamps are of the clock {clock}, which counts no seconds: the order of events is known, times are not" \
        in facts.notes


@pytest.mark.parametrize("clock", ["local", "global", "mono", "boot"])
def test_clocks_of_nanoseconds_are_taken_as_they_are(clock: str, tmp_path: Path) -> None:
    stamps, facts = taken(tmp_path, clocked(clock))
    assert (stamps, facts.clock, facts.stamps) == ([1000, 2000, 3000], "", "")


@pytest.mark.parametrize(("multiplier", "shift"), [(1 << 30, 31), (1431655765, 32), ((1 << 32) - 1, 1), (7, 0)])
def test_cycles_are_converted_as_the_file_says(multiplier: int, shift: int, tmp_path: Path) -> None:
    option = (14, struct.pack("<IIQ", multiplier, shift, 5))
    stamps, facts = taken(tmp_path, clocked("x86-tsc", option))
    assert facts.stamps == ""
    assert stamps == [seed * 1000 * multiplier >> shift for seed in (1, 2, 3)]
    assert "stamps are of the clock x86-tsc, converted to ns as TSC2NSEC says" in facts.notes
    assert taken(tmp_path, clocked("counter", option))[0] == [1000, 2000, 3000]


def test_large_cycles_are_converted_without_overflow() -> None:
    stamps = np.array([(1 << 61) + 12345, 1 << 40, 0])
    block = Block.of(np.vstack([stamps, np.zeros((len(schema.COLUMNS) - 1, 3), np.int64)]))
    codes = np.zeros(256, bool)
    (block,) = tracedatevents._watched(iter([block]), codes, (1431655765, 32))
    assert block.ts.tolist() == [int(ts) * 1431655765 >> 32 for ts in stamps]


@pytest.mark.parametrize(("old", "new", "said"), [
    (b"7.3-amd64 x86_64", b"7.3-test aarch64", "its UNAME: was recorded on aarch64, which is not modelled; record on x86-64"),
    (b"7.3-amd64 x86_64", b"7.3-test riscv64", "was recorded on riscv64"),
    (b"tracing6\0\0\x08" + struct.pack("<I", PAGE), b"tracing6\0\0\x08" + struct.pack("<I", 16384),
     "its header: pages of 2^14 bytes are not modelled; record on a kernel with 4 KiB pages")])
def test_other_machines_are_refused(old: bytes, new: bytes, said: str, tmp_path: Path) -> None:
    data = Spec(data=ONE).v6()
    assert data.count(old) == 1
    with pytest.raises(BadInput, match=re.escape(said)):
        taken(tmp_path, data.replace(old, new))
