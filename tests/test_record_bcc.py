# SPDX-License-Identifier: GPL-2.0-or-later
"""The bcc back end without BCC: the C text it makes of a plan, the sub-buffers it writes, and what it says."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from traces import schema
from traces.importers.eventformat import parse_event_format, parse_header_page
from traces.importers.probemap import ProbeTable
from traces.importers.ring import RingDecoder, Room
from traces.record import bccprogram, bccsession
from traces.record.bccprogram import Definition, definitions_of, event_format, header_page, parse, program
from traces.record.bccring import SUBBUF, Sorter, SubbufferWriter, events_in
from traces.record.bccsession import load_bcc, ring_pages
from traces.record.errors import CannotRecord
from traces.record.pages import PageMode, PageTaker
from traces.record.plan import Planned, ProbedKernel, plan
from traces.record.probes import PAGE_SOURCES, PROBES
from traces.record.session import Options

COLUMN = {name: index for index, name in enumerate(schema.column_names())}
STORE = parse("p:zreplay/store zswap_store folio=$arg1:x64 fl=+0($arg1):x64 swp=+40($arg1):x64 fl1=+64($arg1):x8")
ZMALLOC_RET = parse("r256:zreplay/zmalloc_ret zs_malloc handle=$retval:x64 obj=+0($retval):x64 size=$arg2:u64")
COMP = parse("p:zreplay/comp crypto_acomp_compress off=+8(+48($arg1)):u32")
COMP_RET = parse("r256:zreplay/comp_ret crypto_acomp_compress ret=$retval:s32 dlen=+68($arg1):u32")
LRU_ADD = parse("p:zreplay/lru_add list_lru_add lru=$arg1:x64 item=$arg2:x64 nid=$arg3:u32 memcg=$arg4:x64")
LRU_ADD_RET = parse("r256:zreplay/lru_add_ret list_lru_add lru=$arg1:x64 ret=$retval:u8")
SHRINK = parse("p:zreplay/shrink_worker shrink_worker")


def text_of(*definitions: Definition, pages: list[tuple[str, str, str]] | None = None, lru: int | None = None) -> str:
    return program(definitions, pages or [], lru, 256, 256).text


def function(text: str, name: str) -> str:
    """Return the body of a handler."""
    match = re.search(rf"^int {name}\(struct pt_regs \*ctx\)\n{{\n(.*?)^}}\n", text, re.M | re.S)
    assert match is not None, f"no {name} in:\n{text}"
    return match[1]


# The program

def test_a_definition_is_laid_out_as_the_compiler_lays_out_its_struct() -> None:
    assert [(field.name, field.offset, field.size) for field in STORE.fields] == \
        [("folio", 8, 8), ("fl", 16, 8), ("swp", 24, 8), ("fl1", 32, 1)]
    assert STORE.size == 40
    assert [(field.offset, field.signed) for field in COMP_RET.fields] == [(8, True), (12, False)]
    assert (COMP_RET.size, SHRINK.size) == (16, 8)


@pytest.mark.parametrize("line", ["f:zreplay/x y a=$arg1:x64", "p:zreplay/x", "p:zreplay/x y c0=+0($arg2):x64[64]",
                                  "p:zreplay/x y a=$stack0:x64[2]"])
def test_what_is_no_plain_kprobe_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"defines no kprobe event|has no simple type"):
        parse(line)


def test_an_entry_handler_reserves_fills_and_submits() -> None:
    assert function(text_of(STORE), "on_store") == """\
	u64 begun = bpf_ktime_get_ns();
	if (!is_running()) return 0;
	struct record_0 *e = events.ringbuf_reserve(sizeof(*e));
	if (!e) { count(0, 0); return 0; }
	__builtin_memset(e, 0, sizeof(*e));
	e->begun = begun;
	e->ts = bpf_ktime_get_ns();
	e->cpu = bpf_get_smp_processor_id();
	e->missing = missing();
	e->type = 2000;
	e->pid = (s32)bpf_get_current_pid_tgid();
	e->folio = (u64)(u64)ctx->di;
	e->fl = (u64)get64((u64)ctx->di + 0);
	e->swp = (u64)get64((u64)ctx->di + 40);
	e->fl1 = (u8)get8((u64)ctx->di + 64);
	events.ringbuf_submit(e, 0);
	return 0;
"""


def test_a_record_is_a_struct_of_the_fields() -> None:
    assert """\
struct record_0 {
	u64 begun, ts;
	u32 cpu, missing;
	u16 type;
	u8 flags, preempt;
	s32 pid;
	u64 folio;
	u64 fl;
	u64 swp;
	u8 fl1;
} __attribute__((aligned(8)));
""" in text_of(STORE)


def test_a_return_that_needs_no_argument_keeps_none() -> None:
    ret = parse("r256:zreplay/store_ret zswap_store ret=$retval:u8")
    made = program([STORE, ret], [], None, 1, 1)
    assert "calls.lookup" not in function(made.text, "on_store_ret")
    assert "e->ret = (u8)(u64)ctx->ax;" in function(made.text, "on_store_ret")
    assert [hook.line for hook in made.hooks] == ["p:zreplay/store zswap_store", "r256:zreplay/store_ret zswap_store"]


def test_a_bit_field_is_cut_out_of_its_word() -> None:
    freed = parse("p:zreplay/efree zswap_entry_free len=+8($arg1):b31@0/32 ref=+8($arg1):b1@31/32 w=+0($arg1):b40@24/64")
    text = function(program([freed], [], None, 1, 1).text, "on_efree")
    assert "e->len = (u32)(get32((u64)ctx->di + 8) >> 0 & 0x7fffffff);" in text
    assert "e->ref = (u32)(get32((u64)ctx->di + 8) >> 31 & 0x1);" in text
    assert "e->w = (u64)(get64((u64)ctx->di + 0) >> 24 & 0xffffffffff);" in text


def test_arguments_are_kept_from_the_entry_for_the_return() -> None:
    made = program([COMP, COMP_RET], [], None, 1, 1)
    entry, ret = function(made.text, "on_comp"), function(made.text, "on_comp_ret")
    assert "struct key key = { task(), 1 };" in entry
    assert "call.arg[0] = (u64)ctx->di;" in entry
    assert "if (calls.update(&key, &call)) count(2, 3);" in entry
    # Kept also while not recording: the return may come later.
    assert entry.index("calls.update") < entry.index("if (!is_running()) return 0;")
    assert "e->off = (u32)get32(get64((u64)ctx->di + 48) + 8);" in entry
    assert "struct call kept = *open, *call = &kept;" in ret
    assert ret.index("calls.delete(&key);") < ret.index("is_running")
    assert "e->dlen = (u32)get32(call->arg[0] + 68);" in ret
    assert made.pairs == {"comp_ret": "comp"}


def test_a_return_without_an_entry_event_gets_an_entry_hook_of_its_own() -> None:
    made = program([ZMALLOC_RET], [], None, 1, 1)
    assert [hook.name for hook in made.hooks] == ["zmalloc_ret_args", "zmalloc_ret"]
    assert made.pairs == {"zmalloc_ret": "zmalloc_ret_args"}
    assert "ringbuf_reserve" not in function(made.text, "on_zmalloc_ret_args")
    assert "call.arg[1] = (u64)ctx->si;" in function(made.text, "on_zmalloc_ret_args")
    ret = function(made.text, "on_zmalloc_ret")
    assert "e->obj = (u64)get64((u64)ctx->ax + 0);" in ret
    assert "e->size = (u64)call->arg[1];" in ret


def test_other_lrus_are_left_out_where_the_address_is_known() -> None:
    text = text_of(LRU_ADD, LRU_ADD_RET, lru=0xFFFF1234)
    assert "if ((u64)ctx->di != 0xffff1234ULL) return 0;" in function(text, "on_lru_add")
    assert "if ((u64)ctx->di == 0xffff1234ULL) {" in function(text, "on_lru_add")
    assert "if (call->arg[0] != 0xffff1234ULL) return 0;" in function(text, "on_lru_add_ret")
    assert "0xffff1234" not in text_of(STORE, lru=0xFFFF1234)
    assert "!= 0x" not in text_of(LRU_ADD, LRU_ADD_RET)


def test_a_page_handler_takes_all_of_the_page_or_counts_it() -> None:
    text = text_of(STORE, pages=[("pg0", "lz4_scompress", "$arg2"), ("pg1", "zlib_deflate", "+0($arg1)")])
    assert "u8 body[4096]; };" in text
    assert "e->src = (u64)ctx->si;" in function(text, "on_pg0")
    assert "e->src = get64((u64)ctx->di + 0);" in function(text, "on_pg1")
    assert "if (!e) { count(1, 3); return 0; }" in function(text, "on_pg1")
    assert "pages.ringbuf_discard(e, 0);" in function(text, "on_pg1")
    assert "BPF_RINGBUF_OUTPUT(pages" not in text_of(STORE)


@pytest.mark.parametrize("expression", ["$stack0", "@symbol", "$arg7", "$comm"])
def test_what_cannot_be_fetched_loses_its_event_only(expression: str) -> None:
    line = f"p:zreplay/store zswap_store folio={expression}:x64"
    rows = [row._replace(lines=(line,)) for row in plan(ProbedKernel(None, {"zswap_store", "zswap_load"}, None))
            if row.event == "store"]
    rows += [row for row in plan(ProbedKernel(None, {"zswap_load"}, None)) if row.event == "load"]
    found, refused = definitions_of(rows)
    assert [row.event for row in found] == ["load"]
    assert list(refused) == ["store"]


@pytest.mark.parametrize("without", [set(), {"zswap_store", "zs_malloc"}])
def test_every_event_of_a_full_plan_has_a_handler_and_a_format(without: set[str]) -> None:
    functions = {name for probe in PROBES for name in probe.functions} - without
    rows = plan(ProbedKernel(None, functions, None), content=True)
    found, refused = definitions_of(rows)
    assert not refused
    made = program(found, [(f"pg{n}", name, source) for n, (name, source) in enumerate(PAGE_SOURCES.values())], 1, 1, 1)
    for hook in made.hooks:
        assert hook.handler in made.text
        assert hook.line.split()[0].endswith("/" + hook.name)
    assert len({hook.name for hook in made.hooks}) == len(made.hooks)
    ids = set()
    for number, row in enumerate(found):
        parsed = parse_event_format(event_format(number, row), row.event)
        assert {name for name in parsed.fields if not name.startswith("common_")} == {f.name for f in row.fields}
        ids.add(parsed.id)
    assert len(ids) == len(found)
    # Entries first: a return that is hooked before its entry would find no arguments.
    places = {hook.name: number for number, hook in enumerate(made.hooks)}
    assert all(places[entry] < places[event] for event, entry in made.pairs.items())
    assert {"comp_ret", "obj_malloc_ret", "lru_add_ret"} <= set(made.pairs)
    # A return that asks for nothing but its value needs no hook at the entry.
    assert "store_ret" not in made.pairs


def test_bcc_finds_all_that_it_includes_of_the_kernel(tmp_path: Path) -> None:
    bccprogram.write_headers(tmp_path, "6.12.107+deb13-amd64")
    for name in ("include/linux/kconfig.h", "include/linux/types.h", "include/uapi/linux/ptrace.h",
                 "include/uapi/linux/bpf.h", "include/uapi/linux/if_packet.h", "include/linux/version.h",
                 "include/linux/log2.h", "arch/x86/include/asm/page.h"):
        assert (tmp_path / name).is_file(), name
    assert "KERNEL_VERSION(6, 12, 0)" in (tmp_path / "include/linux/version.h").read_text()
    assert "KERNEL_VERSION(7, 3, 0)" in bccprogram.header_files("7.3-amd64")["include/linux/version.h"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_program_is_c(tmp_path: Path) -> None:
    """Compiled for the host with the macros of BCC replaced by what they declare: types and names are right."""
    found, _ = definitions_of(plan(ProbedKernel(None, {name for probe in PROBES for name in probe.functions}, None), True))
    text = program(found, [("pg0", "lz4_scompress", "$arg2")], 0xFFFF, 1, 1).text
    bccprogram.write_headers(tmp_path, "7.3")
    asserts = "".join(f"_Static_assert(sizeof(struct record_{n}) == {24 + row.size}, \"{row.event}\");\n" + "".join(
        f"_Static_assert(__builtin_offsetof(struct record_{n}, {f.name}) == {24 + f.offset}, \"{f.name}\");\n"
        for f in row.fields) for n, row in enumerate(found))
    # "name.method(" is BCC's own notation.
    text = re.sub(r"\b(events|pages)\.ringbuf_reserve\(", "reserve(", text)
    text = re.sub(r"\b(events|pages)\.ringbuf_(submit|discard)\(", "submit(", text)
    text = text.replace("shared.lookup(", "lookup_u64(")
    text = text.replace("calls.lookup(", "lookup_call(").replace("calls.update(", "update(").replace(
        "calls.delete(", "delete(")
    text = re.sub(r"^BPF_\w+\(.*\);$", "", text, flags=re.M)
    source = tmp_path / "program.c"
    source.write_text("#include <linux/types.h>\nstruct call; struct key;\n"
                      "u64 bpf_ktime_get_ns(void); u32 bpf_get_smp_processor_id(void);\n"
                      "u64 bpf_get_current_pid_tgid(void); int bpf_probe_read_kernel(void *, u32, const void *);\n"
                      "void *reserve(u64); void submit(void *, u64); u64 *lookup_u64(int *);\n"
                      "struct call *lookup_call(struct key *); int update(struct key *, struct call *);\n"
                      "int delete(struct key *);\n" + text + asserts)
    done = subprocess.run(["cc", "-std=gnu11", "-Wall", "-Wno-unused-variable", "-Wno-unused-function", "-Werror",
                           "-fsyntax-only", "-nostdinc", f"-I{tmp_path}/include", str(source)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Sub-buffers

def body(number: int, definition: Definition, pid: int, *values: int) -> bytes:
    data = bytearray(definition.size)
    struct.pack_into("<HBBi", data, 0, 2000 + number, 0, 0, pid)
    for field, value in zip(definition.fields, values, strict=True):
        data[field.offset:field.offset + field.size] = value.to_bytes(field.size, "little", signed=field.signed)
    return bytes(data)


def decode(data: bytes, *definitions: Definition) -> tuple[list[dict[str, int]], Any]:
    """Return the rows that the importer makes of sub-buffers, and the damage it found."""
    table = ProbeTable.build([parse_event_format(event_format(number, row), row.event)
                              for number, row in enumerate(definitions)])
    decoder = RingDecoder(table, parse_header_page(header_page(SUBBUF), "header_page"))
    room = Room(len(data) // 8 + decoder.most_rows)
    used, rows, _ = decoder.feed(np.frombuffer(data, np.uint8), room, 0)
    block = room.block(rows, 0, []).columns()
    assert used == len(data)
    return [{name: int(block[at, row]) for name, at in COLUMN.items()} for row in range(rows)], decoder.damage()


def test_events_come_out_of_the_importer_as_they_went_in() -> None:
    out: list[bytes] = []
    writer = SubbufferWriter(out.append)
    for number in range(500):
        writer.event(1000 + 10 * number, body(0, STORE, 40 + number, number, 1 << 6, 7 * number, 4))
        writer.event(1005 + 10 * number, body(1, COMP_RET, 40 + number, -22, number))
    writer.flush()
    assert {len(data) for data in out} == {SUBBUF}
    rows, damage = decode(b"".join(out), STORE, COMP_RET)
    assert damage.events == 1000
    assert (damage.subbuffers, damage.short_records, damage.backwards, damage.lost, damage.unknown) == (0, 0, 0, 0, {})
    assert [row["ts"] for row in rows] == [1000 + 5 * number for number in range(1000)]
    stores, returns = rows[::2], rows[1::2]
    assert [(row["pid"], row["folio"], row["swpent"], row["order"]) for row in stores] == \
        [(40 + n, n, 7 * n, 4) for n in range(500)]
    assert {row["event"] for row in stores} == {schema.CODE["zswap_store"]}
    assert [(row["ret"], row["dlen"]) for row in returns] == [(-22, n) for n in range(500)]


@pytest.mark.parametrize("gap", [(1 << 27) - 1, 1 << 27, (1 << 27) + 1, 1 << 40, 7 * (1 << 55) + 3])
def test_gaps_of_any_length_are_kept(gap: int) -> None:
    out: list[bytes] = []
    writer = SubbufferWriter(out.append)
    for ts in (5, 5 + gap, 5 + gap, 6 + gap):
        writer.event(ts, body(0, SHRINK, 1))
    writer.flush()
    assert len(out) == 1
    rows, damage = decode(out[0], SHRINK)
    assert [row["ts"] for row in rows] == [5, 5 + gap, 5 + gap, 6 + gap]
    assert damage.subbuffers == damage.backwards == 0


def test_a_full_subbuffer_with_a_time_extend_at_its_end_holds_no_byte_too_many() -> None:
    out: list[bytes] = []
    writer = SubbufferWriter(out.append)
    stamps = [1 + number * (1 << 28) for number in range(3000)]
    for ts in stamps:
        writer.event(ts, body(0, COMP_RET, 1, 0, 0))
    writer.flush()
    assert len(out) > 10
    rows, damage = decode(b"".join(out), COMP_RET)
    assert [row["ts"] for row in rows] == stamps
    assert damage.subbuffers == 0


@pytest.mark.parametrize("size", [8, 108, 112, 116, 2064, 4064])
def test_events_of_any_size_are_kept(size: int) -> None:
    out: list[bytes] = []
    writer = SubbufferWriter(out.append)
    bodies = [struct.pack("<HBBi", 2000, 0, 0, number) + bytes([number]) * (size - 8) for number in range(9)]
    for number, data in enumerate(bodies):
        writer.event(number, data)
    writer.flush()
    assert [event for data in out for event in events_in(data, SUBBUF)] == list(enumerate(bodies))


@pytest.mark.parametrize("size", [4, 10, 4068, 5000])
def test_what_fits_no_subbuffer_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="fits no sub-buffer of 4096"):
        SubbufferWriter(lambda data: None).event(1, bytes(size))


def test_lost_events_are_counted_where_they_are_missing() -> None:
    out: list[bytes] = []
    writer = SubbufferWriter(out.append)
    writer.event(10, body(0, SHRINK, 1))
    writer.lost(20, 7)
    writer.event(30, body(0, SHRINK, 1))
    writer.lost(40, 1 << 33)
    writer.flush()
    rows, damage = decode(b"".join(out), SHRINK)
    lost = schema.CODE["lost_events"]
    assert [(row["ts"], row["event"] == lost, row["ret"] if row["event"] == lost else 0) for row in rows] == \
        [(10, False, 0), (20, True, 7), (30, False, 0), (40, True, 1 << 33)]
    assert (damage.lost, damage.lost_unknown, damage.subbuffers) == (7 + (1 << 33), 0, 0)


def test_a_late_event_gets_the_time_of_the_one_before_it() -> None:
    out: list[bytes] = []
    writer = SubbufferWriter(out.append)
    for ts in (100, 90, 110):
        writer.event(ts, body(0, SHRINK, ts))
    writer.flush()
    rows, damage = decode(out[0], SHRINK)
    assert [(row["ts"], row["pid"]) for row in rows] == [(100, 100), (100, 90), (110, 110)]
    assert damage.backwards == 0


# Order

class Sink:
    """Collects the records that a sorter hands on, as (CPU, time, pid)."""

    def __init__(self) -> None:
        self.got: list[tuple[int, int, int]] = []

    def __call__(self, cpu: int, data: bytes) -> None:
        self.got += [(cpu, ts, struct.unpack_from("<i", event, 4)[0]) for ts, event in events_in(data, SUBBUF)]


def test_records_are_held_until_nothing_earlier_can_come() -> None:
    sink = Sink()
    sorter = Sorter(sink)
    # The second one's handler was interrupted between its reservation and its time stamp.
    sorter.add(100, 101, 0, 0, body(0, SHRINK, 1))
    sorter.add(102, 190, 0, 0, body(0, SHRINK, 2))
    sorter.release()
    assert (sink.got, sorter.complete) == ([], 0)
    sorter.add(103, 104, 0, 0, body(0, SHRINK, 3))
    sorter.release()
    assert sink.got == [(0, 101, 1)]
    assert sorter.complete == 102
    sorter.add(200, 201, 1, 0, body(0, SHRINK, 4))
    sorter.release()
    sorter.release()
    assert sink.got == [(0, 101, 1), (0, 104, 3), (0, 190, 2)]
    assert sorter.complete == 200
    sorter.release(everything=True)
    assert sink.got[3:] == [(1, 201, 4)]


def test_each_cpu_is_in_order_whatever_the_order_of_the_ring() -> None:
    chance = random.Random(7)
    sink = Sink()
    sorter = Sorter(sink)
    now = 0
    sent = []
    for number in range(3000):
        now += chance.randrange(1, 50)
        late = chance.randrange(0, 400) if chance.random() < .1 else 2
        sent.append((chance.randrange(4), now + 1 + late, number))
        sorter.add(now, now + 1 + late, sent[-1][0], 0, body(0, SHRINK, number))
        if chance.random() < .02:
            sorter.release()
    sorter.release(everything=True)
    assert sorted(sink.got) == sorted(sent)
    for cpu in range(4):
        times = [ts for which, ts, _ in sink.got if which == cpu]
        assert times == sorted(times)


def test_a_marker_read_a_round_later_keeps_its_place() -> None:
    sink = Sink()
    sorter = Sorter(sink)
    sorter.add(10, 11, 0, 0, body(0, SHRINK, 1))
    sorter.add(30, 31, 0, 0, body(0, SHRINK, 2))
    sorter.release()
    sorter.aside(20, 0, body(0, SHRINK, 9))
    sorter.release(everything=True)
    assert sink.got == [(0, 11, 1), (0, 20, 9), (0, 31, 2)]


def test_lost_records_are_marked_where_they_are_missing() -> None:
    out: list[bytes] = []
    sorter = Sorter(lambda cpu, data: out.append(data) if cpu == 1 else None)
    sorter.add(10, 11, 1, 0, body(0, SHRINK, 1))
    sorter.add(12, 13, 0, 9, body(0, SHRINK, 5))
    sorter.add(20, 21, 1, 5, body(0, SHRINK, 2))
    # One that was interrupted before it could read the count, by that whose count is larger.
    sorter.add(22, 23, 1, 4, body(0, SHRINK, 3))
    sorter.add(24, 25, 1, 5, body(0, SHRINK, 4))
    sorter.release(everything=True)
    sorter.end([9, 7])
    rows, damage = decode(b"".join(out), SHRINK)
    assert [(row["pid"], row["ret"]) for row in rows] == [(1, 0), (0, 5), (2, 0), (3, 0), (4, 0), (0, 2)]
    assert damage.lost == 7


def test_counts_of_missing_records_may_wrap() -> None:
    out: list[bytes] = []
    sorter = Sorter(lambda cpu, data: out.append(data))
    for number, missing in enumerate((0, (1 << 31) - 1, (1 << 32) - 2, 3)):
        sorter.add(number, number, 0, missing, body(0, SHRINK, 1))
    sorter.release(everything=True)
    sorter.end([(1 << 32) + 3])
    assert decode(b"".join(out), SHRINK)[1].lost == (1 << 32) + 3


# The session's parts, with BCC played by a stub

@pytest.mark.parametrize(("wanted", "pages"), [(0, 256), (1 << 20, 256), ((1 << 21) - 1, 256), (1 << 21, 512),
                                               (1 << 40, 1 << 17)])
def test_a_bpf_ring_is_a_power_of_two(wanted: int, pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bccsession.os, "sysconf", lambda name: 4096)
    assert ring_pages(wanted) == pages


def test_a_missing_bcc_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(CannotRecord, match=r"^this Python has no module bcc; .*apt install python3-bpfcc.*\.$") as refusal:
        load_bcc()
    assert "\n" not in str(refusal.value)


def test_the_other_bcc_is_told_from_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", types.ModuleType("bcc"))
    with pytest.raises(CannotRecord, match=r"crystal-lattice library, not iovisor BCC; .*apt install python3-bpfcc"):
        load_bcc()


def test_a_bcc_that_cannot_be_loaded_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise OSError("libbcc.so.0: cannot open shared object file")

    monkeypatch.setattr(bccsession.importlib, "import_module", fail)
    with pytest.raises(CannotRecord, match=r"libbcc\.so\.0.*apt install python3-bpfcc"):
        load_bcc()


def test_a_bcc_that_lacks_a_module_of_its_own_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr(bccsession.importlib, "import_module", fail)
    with pytest.raises(CannotRecord, match=r"not usable \(it needs numba\).*apt install python3-bpfcc"):
        load_bcc()


class StubBpf:
    """Rings whose records a test gives, as BCC hands them to callbacks."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Any] = {}
        self.records: dict[str, list[bytes]] = {"events": [], "pages": []}
        self.lost = [0, 0]

    def open(self, name: str, callback: Any) -> None:
        self.callbacks[name] = callback

    def consume(self) -> None:
        for name, callback in self.callbacks.items():
            while self.records[name]:
                record = self.records[name].pop(0)
                if callback(None, ctypes.cast(ctypes.create_string_buffer(record), ctypes.c_void_p).value,
                            len(record)) < 0:
                    return

    def kinds(self, kind: int) -> list[int]:
        return list(self.lost)

    def close(self) -> None:
        self.callbacks = {}


class NoMarkers:
    def round(self) -> int:
        return 0

    def close(self) -> None:
        pass


def record(begun: int, ts: int, cpu: int, data: bytes, missing: int = 0) -> bytes:
    return struct.pack(bccprogram.HEAD, begun, ts, cpu, missing) + data


def test_a_reader_passes_on_everything_before_it_says_that_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bccsession, "_AT_ONCE", 10)
    bpf, sink = StubBpf(), Sink()
    sorter = Sorter(sink)
    source = bccsession._Source(bpf, sorter, None)  # type: ignore[arg-type]
    reader = bccsession._Reader(source, NoMarkers(), bpf, sorter)  # type: ignore[arg-type]
    bpf.records["events"] = [record(n, n + 1, n % 2, body(0, SHRINK, n)) for n in range(100)]
    assert reader.round() > 0
    assert bpf.records["events"], "a round must end though there is more"
    source.closing = True
    while reader.round():
        pass
    assert sorted(pid for _, _, pid in sink.got) == list(range(100))


def test_a_reader_marks_what_had_no_room() -> None:
    out: list[bytes] = []
    bpf = StubBpf()
    sorter = Sorter(lambda cpu, data: out.append(data))
    source = bccsession._Source(bpf, sorter, None)  # type: ignore[arg-type]
    reader = bccsession._Reader(source, NoMarkers(), bpf, sorter)  # type: ignore[arg-type]
    bpf.records["events"] = [record(1, 2, 1, body(0, SHRINK, 1)), record(3, 4, 1, body(0, SHRINK, 1), 3)]
    reader.round()
    bpf.lost = [0, 5]
    source.closing = True
    while reader.round():
        pass
    reader.round()
    assert decode(b"".join(out), SHRINK)[1].lost == 5


def test_pages_reach_the_index_as_from_the_other_back_end(tmp_path: Path) -> None:
    bpf = StubBpf()
    opened: list[BinaryIO] = []

    def make(name: str) -> BinaryIO:
        opened.append((tmp_path / name).open("wb", buffering=0))
        return opened[-1]

    taker = PageTaker(PageMode("full"), {f"pg0_{half}": text for half, (_, text) in
                                         enumerate(bccprogram.half_formats(0))},
                      bccsession._PAGE_SUBBUF, make)
    source = bccsession._Source(bpf, Sorter(lambda cpu, data: None), taker)  # type: ignore[arg-type]
    pages = [bytes([number]) * 4096 for number in range(50)]
    bpf.records["pages"] = [struct.pack(bccprogram.PAGE_HEAD, 1000 + n, 1, 77, 0, 0xFFFF0000 + n) + page
                            for n, page in enumerate(pages)]
    source.round()
    for file in opened:
        file.close()
    assert (taker.pages, taker.broken) == (50, 0)
    assert (tmp_path / "pages.cpu1.bin").read_bytes() == b"".join(pages)
    lines = (tmp_path / "pages.cpu1.idx").read_text().splitlines()[1:]
    assert [line.split(",")[1:3] for line in lines] == [[str(1000 + n), f"{0xFFFF0000 + n:x}"] for n in range(50)]


def test_a_flush_claims_no_more_than_the_sorter_let_go(tmp_path: Path) -> None:
    capture = bccsession._Capture(tmp_path / "capture")
    capture.sorter = Sorter(lambda cpu, data: None)
    capture.sorter.complete = 500
    capture.flush(900, {})
    capture.flush(1000, {}, wait=True)
    capture.close()
    lines = [json.loads(line) for line in (tmp_path / "capture" / "flushed.jsonl").read_text().splitlines()]
    assert [line["flushed"] for line in lines] == [500, 1000]


def test_hooks_are_of_the_group_they_are_asked_for() -> None:
    made = program([STORE, ZMALLOC_RET], [("pg0", "lz4_scompress", "$arg2")], None, 1, 1, "b")
    assert {hook.line.split()[0].split(":")[1].split("/")[0] for hook in made.hooks} == {"b"}
    asked: list[tuple[bytes, bytes]] = []

    class Lib:
        def bpf_attach_tracepoint(self, fd: int, group: bytes, name: bytes) -> int:
            asked.append((group, name))
            return len(asked)

        def bpf_close_perf_event_fd(self, fd: int) -> None:
            pass

    bpf, _ = loaded(made, Lib())
    assert bpf.attach() == {}
    assert asked == [(b"b", hook.name.encode()) for hook in made.hooks]
    bpf.close()


def loaded(made: Any, lib: Any = None) -> tuple[bccsession._Bpf, int]:
    """A program as if BCC had loaded it, and the file that stands for its array."""
    cells = os.memfd_create("shared")
    os.ftruncate(cells, 8 * (1 + made.cpus * made.per_cpu))

    class Loaded(dict[str, Any]):
        def load_func(self, handler: str, kind: int) -> Any:
            return types.SimpleNamespace(fd=3)

        def cleanup(self) -> None:
            os.close(cells)

    def bpf(text: str, cflags: list[str]) -> Loaded:
        return Loaded(shared=types.SimpleNamespace(map_fd=cells))

    bpf.KPROBE = 1  # type: ignore[attr-defined]
    return bccsession._Bpf(types.SimpleNamespace(lib=lib, BPF=bpf), made, "b"), cells


def test_the_switch_and_the_counters_are_in_memory_that_needs_no_system_call() -> None:
    """A recorder that is preempted in a call on a BPF map keeps every program off its CPU."""
    made = program([STORE, ZMALLOC_RET], [("pg0", "lz4_scompress", "$arg2")], None, 1, 1, cpus=3)
    assert made.per_cpu == bccprogram.KINDS + 2 * 2 + 1
    assert f'BPF_F_TABLE("array", int, u64, shared, {1 + 3 * made.per_cpu}, 1024);' in made.text
    assert f"1 + bpf_get_smp_processor_id() * {made.per_cpu}" in made.text
    bpf, cells = loaded(made)
    bpf.switch(True)
    assert os.pread(cells, 8, 0) == struct.pack("<Q", 1)
    for cpu in range(3):
        first = 8 * (1 + cpu * made.per_cpu)
        os.pwrite(cells, struct.pack("<3Q", 10 + cpu, 20 + cpu, 30 + cpu), first)
        os.pwrite(cells, struct.pack("<5Q", *(100 * cpu + n for n in range(5))), first + 24)
    assert bpf.kinds(bccprogram.EVENTS) == [10, 11, 12]
    assert bpf.kinds(bccprogram.PAGES) == [20, 21, 22]
    assert [bpf.counter(number) for number in range(5)] == [300 + 3 * n for n in range(5)]
    bpf.switch(False)
    assert os.pread(cells, 8, 0) == bytes(8)
    bpf.close()


def test_a_session_takes_its_own_name_and_keeps_its_own_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tracing"
    (root / "instances" / "zreplay").mkdir(parents=True)
    (root / "dynamic_events").write_text("")
    take = bccsession._Tracefs
    monkeypatch.setattr(bccsession, "_Tracefs", lambda names: take(root, names))
    monkeypatch.setattr(bccsession, "load_bcc", lambda: None)
    box: Any = types.SimpleNamespace(check=lambda: None, root=tmp_path)
    session = bccsession.BccSession(tmp_path / "c", Options(PageMode("none"), instance="b"), box)
    assert type(session.capture) is bccsession._Capture
    assert session.tracefs.names.group == "b"
    assert (root / "instances" / "zreplay").is_dir(), "it belongs to another recorder"
    with pytest.raises(CannotRecord, match="another recorder called 'b'"):
        bccsession.BccSession(tmp_path / "d", Options(PageMode("none"), instance="b"), box)
    session.capture.close()
    session.tracefs.close()


def test_texts_are_bounded_and_other_modules_parameters_are_left_out() -> None:
    """A text has 64 bytes in a record, its end included; of parameters only those that begin with "zswap." are written."""
    line = "p:zreplay/param_set param_attr_store name=+0(+8(+56($arg1))):string val=+0($arg3):string"
    definition = parse(line)
    assert [(field.name, field.size, field.offset) for field in definition.fields] == [("name", 64, 8), ("val", 64, 72)]
    assert definition.size == 136
    text = program([definition], [], None, 1, 1).text
    assert "char name[64]" in text
    assert "bpf_probe_read_kernel_str(e->val, 64, (void *)((u64)ctx->dx + 0));" in text
    wanted = int.from_bytes(b"zswap.", "little")
    assert f"if ((get64(get64(get64((u64)ctx->di + 56) + 8) + 0) & 0xffffffffffffULL) != {wanted:#x}ULL) return 0;" in text
    fields = parse_event_format(event_format(0, definition), "f").fields
    assert (fields["name"].offset, fields["val"].size, fields["val"].is_elsewhere) == (8, 64, False)
    _, refused = definitions_of([Planned("param_set", "", "", ("p:z/param_set f val=$arg1:string",), "", ())])
    assert "is not the place of a text" in refused["param_set"]
