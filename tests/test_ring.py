# SPDX-License-Identifier: GPL-2.0-or-later
"""The ring-buffer decoder against rings built here, a second plain reader, and damage."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import ringbuilder as rb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ringbuilder import EVENTS, Ring

from traces import schema
from traces.errors import BadInput
from traces.importers import ring as ring_module
from traces.importers.eventformat import parse_event_format, parse_header_page
from traces.importers.probemap import MASK_LINK, ORDER, TEXT, ProbeTable
from traces.importers.ring import Damage, RingDecoder, Room
from traces.importers.rings import _PRINT
from traces.importers.source import loss_record, ring_blocks

SIZES = (4096, 8192, 16384, 32768, 65536)
COLUMN = {name: index for index, name in enumerate(schema.column_names())}
TABLE = ProbeTable.build([parse_event_format(event.text(), name) for name, event in EVENTS.items()
                          if not name.startswith("pg")] + [parse_event_format(_PRINT, "print")])


def examples(count: int) -> settings:
    """Settings for tests whose first example may have to compile something."""
    return settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=count)


def header(size: int = 4096, commit_size: int = 8) -> Any:
    return parse_header_page(rb.header_page(size, commit_size), "header_page")


@dataclass
class Decoded:
    """All rows of a ring in one table, marker texts by row, and the damage."""

    columns: np.ndarray
    texts: dict[int, str]
    damage: Damage
    blocks: int

    @property
    def rows(self) -> list[dict[str, int]]:
        """Rows as {column: value} of what is neither zero nor absent."""
        out = []
        for row in range(self.columns.shape[1]):
            values = {name: int(self.columns[at, row]) for name, at in COLUMN.items() if name != "text"}
            out.append({name: value for name, value in values.items()
                        if name in ("ts", "event", "cpu", "pid") or value != schema.ABSENT.get(name, 0)})
        return out

    @property
    def stamps(self) -> list[int]:
        return [int(ts) for ts in self.columns[COLUMN["ts"]]]

    @property
    def names(self) -> list[str]:
        return [schema.NAMES[int(code)] for code in self.columns[COLUMN["event"]]]


def decode(data: bytes, size: int = 4096, cpu: int = 0, chunks: list[int] | None = None, rows: int = 1 << 12,
           commit_size: int = 8) -> Decoded:
    """Decode a whole ring, given in chunks of the named sizes (the rest in one)."""
    parts, at = [], 0
    for count in chunks or []:
        parts.append(data[at:at + count])
        at += count
    parts.append(data[at:])
    ended: list[tuple[int, Damage]] = []
    columns, texts, done, blocks = [], {}, 0, 0
    for block in ring_blocks(parts, TABLE, header(size, commit_size), cpu, lambda *end: ended.append(end), rows):
        assert len(block), "an empty block"
        columns.append(block.columns())
        texts.update({done + row: text for row, text in block.texts})
        done += len(block)
        blocks += 1
    (number, damage), = ended
    assert number == cpu
    whole = np.concatenate(columns, axis=1) if columns else np.zeros((len(COLUMN), 0), np.int64)
    return Decoded(whole, texts, damage, blocks)


def feed(data: np.ndarray, size: int = 4096, rows: int = 1 << 15) -> tuple[Any, ...]:
    """Decode one buffer in one call; everything that comes out, comparable."""
    decoder = RingDecoder(TABLE, header(size))
    out = Room(rows)
    used, row, texts = decoder.feed(data, out, 0)
    return used, row, out.block(row, 3, []).columns().tolist(), texts, decoder.events, decoder.damage(data.size - used)


def number_of(name: str) -> int:
    return schema.CODE[name]


# One event after the other.

def test_fields_go_to_their_columns() -> None:
    data = rb.ring([
        (1000, EVENTS["store"].pack(7, folio=0xFFFFEA0000001234, fl=1 << 6, swp=5 << 58 | 77, fl1=0x104 & 0xFF)),
        (1001, EVENTS["comp"].pack(-1, pglink=0xFFFFEA0000000042, off=4096, slen=4096, room=8192)),
        (1002, EVENTS["comp_ret"].pack(2 ** 31 - 1, ret=-28, dlen=4000)),
        (1003, EVENTS["store_ret"].pack(7, ret=255)),
        (1004, EVENTS["zmalloc"].pack(7, pool=(1 << 64) - 1, size=65535, gfp=(1 << 32) - 1)),
        (1005, EVENTS["async_free"].pack(8)),
        (1006, rb.marker("phase out1", 9)),
        (1007, EVENTS["store"].pack(7, folio=1, fl=~(1 << 6) & (1 << 64) - 1, swp=2, fl1=4)),
    ])
    got = decode(data, cpu=3)
    signed = 0xFFFFEA0000001234 - (1 << 64)
    assert got.rows == [
        {"ts": 1000, "cpu": 3, "pid": 7, "event": 20, "swpent": 5 << 58 | 77, "folio": signed, "order": 4},
        {"ts": 1001, "cpu": 3, "pid": -1, "event": 50, "folio": 0xFFFFEA0000000040 - (1 << 64), "size": 4096,
         "dlen": 8192, "offset": 4096},
        {"ts": 1002, "cpu": 3, "pid": 2 ** 31 - 1, "event": 51, "ret": -28, "dlen": 4000},
        {"ts": 1003, "cpu": 3, "pid": 7, "event": 21, "ret": 255},
        {"ts": 1004, "cpu": 3, "pid": 7, "event": 80, "pool": -1, "size": 65535, "gfp": (1 << 32) - 1},
        {"ts": 1005, "cpu": 3, "pid": 8, "event": 92},
        {"ts": 1006, "cpu": 3, "pid": 9, "event": 1},
        {"ts": 1007, "cpu": 3, "pid": 7, "event": 20, "swpent": 2, "folio": 1},
    ]
    assert got.texts == {6: "phase out1"}
    assert got.damage == Damage()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_sign_extension_of_every_width(size: int, signed: bool) -> None:
    event = rb.Event("load_ret", 77, (("ret", size, signed),))
    table = ProbeTable.build([parse_event_format(event.text(), "x")])
    decoder = RingDecoder(table, header())
    bits = 8 * size
    values = [0, 1, (1 << bits - 1) - 1]
    values += [-1, -2, -(1 << bits - 1)] if signed else [1 << bits - 1, (1 << bits) - 1]
    out = Room(1 << 12)
    data = rb.ring((n, event.pack(1, ret=value)) for n, value in enumerate(values, 1))
    _, row, _ = decoder.feed(np.frombuffer(data, np.uint8), out, 0)
    # The column is signed: a u64 above its range keeps its bits.
    assert out.block(row, 0, []).column("ret").tolist() == [_signed(value % (1 << 64)) if size == 8 else value for value in values]


_LOC = """name: param_set
ID: 77
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned long __probe_ip;	offset:8;	size:8;	signed:0;
	field:__data_loc char[] name;	offset:16;	size:4;	signed:1;
	field:__data_loc char[] val;	offset:20;	size:4;	signed:1;
print fmt: ""
"""


def _of_locs(*records: bytes) -> tuple[list[tuple[int, str]], list[str]]:
    """Decode records with the places of their texts; returns the texts by row, and the columns captured."""
    table = ProbeTable.build([parse_event_format(_LOC, "x")])
    data = rb.ring((n, rb.common(77, 1) + bytes(8) + record) for n, record in enumerate(records, 1))
    _, row, texts = RingDecoder(table, header()).feed(np.frombuffer(data, np.uint8), Room(1 << 12), 0)
    assert row == len(records)
    return texts, table.captured["param_attr_store"]


def _loc(at: int, text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I", (len(text) if length is None else length) << 16 | at)


def test_texts_that_are_elsewhere_in_their_record() -> None:
    """The kernel writes "zswap.enabled" and "Y\\n" behind the fields, and in each where that is (__data_loc)."""
    name, value = b"zswap.enabled\0", b"Y\n\0"
    whole = _loc(24, name) + _loc(24 + len(name), value) + name + value
    # The place and the length of a missing text end with the record.
    beyond = _loc(4000, name) + _loc(24, value, 60000) + value
    nothing = _loc(24, b"") + _loc(24, b"")
    texts, captured = _of_locs(whole, beyond, nothing)
    assert texts == [(0, "zswap.enabled=Y"), (1, "=Y"), (2, "=")]
    assert captured == ["text"]


@given(st.binary(min_size=8, max_size=64))
@examples(50)
def test_texts_that_are_anywhere_are_read_from_their_record_alone(record: bytes) -> None:
    texts, _ = _of_locs(record + b"\0" * (-len(record) % 4), _loc(24, b"NEXT") * 2 + b"NEXT")
    assert texts[-1] == (1, "NEXT=NEXT")
    assert "NEXT" not in texts[0][1] or b"NEXT" in record


def test_markers_keep_their_text() -> None:
    texts = ["a", "", "x" * 1000, "zwei\nzeilen", "ünïcode ✓"]
    got = decode(rb.ring([(5, rb.marker(text)) for text in texts] + [(6, rb.marker("no newline", newline=False))]))
    assert list(got.texts.values()) == [*texts, "no newline"]
    # Bytes that are not UTF-8 do not stop anything, and what lies behind the NUL is not text.
    record = rb.common(5, 1) + bytes(8) + b"\xff\xfeA\0behind"
    assert decode(rb.ring([(5, record)])).texts == {0: "\ufffd\ufffdA"}
    # Nor does a text without its NUL continue into the next record.
    record = rb.common(5, 1) + bytes(8) + b"ABCD"
    assert decode(rb.ring([(5, record), (6, rb.marker("x"))])).texts == {0: "ABCD", 1: "x"}


@pytest.mark.parametrize("size", [2, 3, 5, 8, 111, 112, 113, 500])
@pytest.mark.parametrize("form", ["", "long"])
def test_record_lengths(size: int, form: str) -> None:
    """Records of any length: type_len up to 112 bytes, a length word beyond, rounded up to 4 bytes."""
    inner = (rb.common(300, 1) + bytes(600))[:size]
    data = Ring().add(10, inner, form).add(20, EVENTS["async_free"].pack(4)).bytes()
    got = decode(data)
    assert got.rows == [{"ts": 20, "cpu": 0, "pid": 4, "event": 92}]
    assert got.damage == Damage(ignored={"sched_switch": 1})


def test_a_length_word_that_is_not_a_multiple_of_four() -> None:
    """array[0] may say 13 bytes of payload; the next record still begins at a multiple of 4."""
    data = struct.pack("<II", 0, 4 + 13) + rb.common(300, 1).ljust(16, b"\0")
    data += struct.pack("<I", 16 // 4) + EVENTS["async_free"].pack(4)
    assert decode(Ring().raw(data).bytes()).names == ["async_free_zspage"]


def test_time_extends_and_absolute_stamps() -> None:
    out = Ring()
    base = 1 << 40
    for number, (step, form) in enumerate([(0, ""), (0, "extend"), (5, ""), ((1 << 27) - 1, ""), (1 << 27, ""),
                                           (1 << 50, ""), (3, "absolute"), (4, ""), (1 << 41, "absolute"), (1, "")]):
        base += step
        out.add(base, EVENTS["async_free"].pack(number), form)
    got = decode(out.bytes())
    steps = np.cumsum([0, 0, 5, (1 << 27) - 1, 1 << 27, 1 << 50, 3, 4, 1 << 41, 1])
    assert got.stamps == [(1 << 40) + int(step) for step in steps]
    assert got.damage == Damage()


def test_an_absolute_stamp_keeps_the_high_bits_of_the_sub_buffer() -> None:
    """An absolute stamp holds 59 bits; the upper 5 come from the stamp before it (rb_fix_abs_ts())."""
    start = (3 << 59) + 1000
    got = decode(Ring().add(start, EVENTS["async_free"].pack(1)).add(start + 77, EVENTS["async_free"].pack(2),
                                                                    "absolute").bytes())
    assert got.stamps == [start, start + 77]


def test_padding_and_discarded_records() -> None:
    event = EVENTS["async_free"]
    out = Ring().add(100, event.pack(1)).add(105, event.pack(2), "discard").add(110, event.pack(3)).pad()
    out.add(200, EVENTS["load"].pack(4), "discard").add(201, event.pack(5)).pad()
    got = decode(out.bytes())
    assert [(row["ts"], row["pid"]) for row in got.rows] == [(100, 1), (110, 3), (201, 5)]
    assert got.damage == Damage(discarded=2)


@pytest.mark.parametrize("count", [None, 0, 1, 12, 1 << 40])
def test_lost_events(count: int | None) -> None:
    out = Ring().add(100, EVENTS["async_free"].pack(1)).flush().lose(count).add(300, EVENTS["async_free"].pack(2))
    got = decode(out.bytes(), cpu=9)
    missed = -1 if count is None else count
    assert got.names == ["async_free_zspage", "lost_events", "async_free_zspage"]
    assert got.rows[1] == {"ts": 300, "cpu": 9, "pid": 0, "event": 2, **({"ret": missed} if missed else {})}
    assert (got.damage.lost, got.damage.lost_unknown) == ((0, 1) if count is None else (count, 0))
    assert loss_record(9, got.damage)["lost"] == count


def test_lost_events_add_up_and_one_unknown_count_spoils_the_sum() -> None:
    out = Ring()
    for number, count in enumerate([3, None, 4]):
        out.lose(count).add(100 + number, EVENTS["async_free"].pack(1)).flush()
    damage = decode(out.bytes()).damage
    assert (damage.lost, damage.lost_unknown) == (7, 1)
    assert loss_record(0, damage)["lost"] is None


@pytest.mark.parametrize("spare", [0, 4, 7, 8])
def test_a_lost_count_is_only_there_when_it_fits(spare: int) -> None:
    """The kernel stores the count behind the data; where the flag says so without room, nothing is read."""
    room = 4080
    data = struct.pack("<II", 0, room - spare - 4) + rb.common(300, 1).ljust(room - spare - 8, b"\0")
    word = len(data) | rb.MISSED_EVENTS | rb.MISSED_STORED
    page = struct.pack("<QQ", 50, word) + data + b"\7" * spare
    after = rb.ring([(60, EVENTS["async_free"].pack(1))])
    damage = decode(page + after).damage
    expected = 0x0707070707070707 if spare >= 8 else None
    assert loss_record(0, damage)["lost"] == expected


def test_a_negative_lost_count_is_not_believed() -> None:
    page = Ring().lose((1 << 64) - 1).add(50, EVENTS["async_free"].pack(1)).bytes()
    assert (decode(page).damage.lost, decode(page).damage.lost_unknown) == (0, 1)


def test_unknown_and_ignored_events_are_counted_by_type() -> None:
    data = rb.ring([(10, rb.common(4711, 1)), (11, EVENTS["sched_switch"].pack(1)), (12, rb.common(4711, 1)),
                    (13, rb.common(65535, 1)), (14, EVENTS["async_free"].pack(1))])
    got = decode(data)
    assert len(got.rows) == 1
    assert got.damage == Damage(unknown={4711: 2, 65535: 1}, ignored={"sched_switch": 1})


@pytest.mark.parametrize("name", ["store", "comp", "comp_ret", "zmalloc", "async_free"])
def test_short_records_are_counted_and_not_read(name: str) -> None:
    whole = EVENTS[name].pack(1)
    # Fields of a function probe end where the last one does, which need not be a multiple of 4.
    need = 8 if name == "async_free" else len(whole)
    for cut in range(4, need, 4):
        data = Ring().add(10, whole[:cut]).add(20, EVENTS["load"].pack(4)).bytes()
        got = decode(data)
        assert got.names == ["zswap_load"], cut
        assert (got.damage.short_records, got.damage.first_offset, got.damage.subbuffers) == (1, 16, 0)


def test_interleaved_tasks_keep_the_order_of_the_ring() -> None:
    """Calls of several tasks nest and interleave; the ring's order is the truth."""
    records, expected = [], []
    for at, (name, pid) in enumerate([("store", 1), ("comp", 1), ("store", 2), ("comp_ret", 1), ("load", 0),
                                      ("store_ret", 1), ("load_ret", 0), ("comp", 2), ("store_ret", 2)]):
        records.append((100 + at // 2, EVENTS[name].pack(pid)))
        expected.append(pid)
    got = decode(rb.ring(records))
    assert [row["pid"] for row in got.rows] == expected
    assert got.damage.backwards == 0


def test_stamps_that_run_backwards_are_kept_and_counted() -> None:
    event = EVENTS["async_free"]
    out = Ring()
    for ts in (100, 200, 150, 160, 90, 300):
        out.add(ts, event.pack(ts)).flush()
    got = decode(out.bytes())
    assert got.stamps == [100, 200, 150, 160, 90, 300]
    assert got.damage.backwards == 2
    # Equal stamps are no damage.
    assert decode(rb.ring([(5, event.pack(1)), (5, event.pack(1))])).damage == Damage()


# Damage.

HALF_WRITTEN = {
    "a header cut by the end": b"\x01\x00\x00",
    "a header of padding cut by the end": b"\x1d\x00\x00",
    "zeros where records should be": bytes(12),
    "a record longer than what is left": struct.pack("<I", 28) + bytes(8),
    "a length word beyond the end": struct.pack("<II", 0, 5000) + bytes(8),
    "a length word of the largest number": struct.pack("<II", 0, 0xFFFFFFFF) + bytes(8),
    "a length word below its own size": struct.pack("<II", 0, 3) + bytes(8),
    "a record too short for its type": struct.pack("<II", 0, 5) + bytes(8),
    "a length word cut off": struct.pack("<I", 0),
    "a discarded record beyond the end": struct.pack("<II", 29 | 1 << 5, 5000),
    "a discarded record of no length": struct.pack("<II", 29 | 1 << 5, 0),
    "a discarded record cut off": struct.pack("<I", 29 | 1 << 5),
    "a time extend cut off": struct.pack("<I", 30 | 1 << 5),
    "an absolute stamp cut off": struct.pack("<I", 31 | 1 << 5),
}


@pytest.mark.parametrize("what", HALF_WRITTEN)
def test_half_written_sub_buffers(what: str) -> None:
    """What came before the defect is kept, the defect is counted with its offset, and the next one is read."""
    good = EVENTS["load"].pack(1, swp=9)
    out = Ring().add(10, good).flush().add(20, good)
    place = 4096 + 16 + len(out._data)
    out.raw(HALF_WRITTEN[what]).flush().add(30, good)
    got = decode(out.bytes())
    assert got.stamps == [10, 20, 30]
    assert (got.damage.subbuffers, got.damage.first_offset) == (1, place)
    assert decode(out.bytes(), chunks=[4096, 100]).damage == got.damage


@pytest.mark.parametrize("commit", [4081, 5000, rb.DELTA_MASK])
@pytest.mark.parametrize("filler", [0, 255])
def test_a_commit_beyond_the_sub_buffer(commit: int, filler: int) -> None:
    """It is read as far as it goes and counted once, whatever else is wrong in it."""
    good = EVENTS["load"].pack(1)
    data = Ring().add(10, good).flush().add(20, good).flush(commit, filler).add(30, good).bytes()
    got = decode(data)
    assert (got.damage.subbuffers, got.damage.first_offset) == (1, 4096)
    assert got.stamps == [10, 20, 30]


def test_an_empty_sub_buffer_is_damage() -> None:
    """The kernel never hands out an empty one: a file has zeros where its copy has a hole."""
    data = rb.ring([(10, EVENTS["load"].pack(1))]) + struct.pack("<QQ", 0, 0) + bytes(4080)
    got = decode(data)
    assert (got.stamps, got.damage) == ([10], Damage(subbuffers=1, first_offset=4096))


@pytest.mark.parametrize("extra", [1, 15, 100, 4095])
def test_a_tail_is_counted(extra: int) -> None:
    data = rb.ring([(10, EVENTS["load"].pack(1)), (11, EVENTS["load"].pack(1))])
    got = decode(data + data[:extra])
    assert (len(got.rows), got.damage.tail_bytes) == (2, extra)


def test_sub_buffer_headers_of_32_bit_kernels() -> None:
    out = Ring(4096, 4).lose(6)
    out.add(10, EVENTS["load"].pack(1)).flush().add(20, EVENTS["load"].pack(1))
    got = decode(out.bytes(), commit_size=4)
    assert got.names == ["lost_events", "zswap_load", "zswap_load"]
    assert got.damage == Damage(lost=6)


@pytest.mark.parametrize("where", [8, 100, 5000, 1 << 19])
def test_a_format_with_its_pid_far_away_reads_nothing_outside(where: int) -> None:
    """Format files come from other machines: a pid outside the record makes the record a short one."""
    text = EVENTS["async_free"].text().replace("int common_pid;\toffset:4", f"int common_pid;\toffset:{where}")
    table = ProbeTable.build([parse_event_format(text, "x")])
    decoder = RingDecoder(table, header())
    record = EVENTS["async_free"].pack(1)[:12]
    out = Room(1 << 12)
    used, row, _ = decoder.feed(np.frombuffer(rb.ring([(1, record)]), np.uint8), out, 0)
    assert (used, row) == (4096, int(where == 8))
    assert decoder.damage().short_records == int(where != 8)


def test_rows_are_never_written_past_the_block() -> None:
    """feed() stops before a sub-buffer that might not fit."""
    data = np.frombuffer(rb.ring([(n, rb.common(PRINT, 1) + bytes(9)) for n in range(1, 400)]), np.uint8)
    decoder = RingDecoder(TABLE, header())
    assert decoder.most_rows >= 4080 // 8 + 1
    out = Room(decoder.most_rows + 5)
    out.ts[:] = out.pid[:] = out.event[:] = 7
    used, row, _ = decoder.feed(data, out, 0)
    assert 0 < used < data.size
    assert row + decoder.most_rows > out.rows
    assert all((column[row:] == 7).all() for column in (out.ts, out.pid, out.event))
    assert decoder.feed(data[used:], out, row) == (0, row, [])


PRINT = rb.PRINT_ID


def test_the_fullest_sub_buffer_fits_into_a_block() -> None:
    """The smallest rows there are, in the largest number: 8 bytes each, with a lost-events row before them."""
    event = rb.Event("async_free", 6)
    table = ProbeTable.build([parse_event_format(event.text(), "x")])
    size = 65536
    record = struct.pack("<I", 2) + rb.common(6, 1)
    room = size - 16
    data = record * (room // 12)
    page = struct.pack("<QQ", 5, len(data) | rb.MISSED_EVENTS) + data.ljust(room, b"\0")
    done: list[Damage] = []
    blocks = list(ring_blocks([page * 3], table, header(size), 0, lambda _, damage: done.append(damage), rows=1))
    assert sum(len(block) for block in blocks) == 3 * (room // 12 + 1)
    assert done[0].subbuffers == 0


@pytest.mark.parametrize("size", [1 << 16, 1 << 17, 1 << 20])
def test_large_sub_buffers_come_through_a_small_block(size: int) -> None:
    """buffer_subbuf_size_kb goes up to 1 MiB; the block grows to hold one sub-buffer."""
    records = [(n, EVENTS["load"].pack(n)) for n in range(1, 3000)]
    got = decode(rb.ring(records, size), size, rows=10)
    assert got.stamps == list(range(1, 3000))


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_block_stays_while_it_is_needed(monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
    """Until the second after it is made, the third where blocks are written on another CPU."""
    monkeypatch.setattr("traces.importers.source.usable_cpus", lambda: cpus)
    data = rb.ring((n, EVENTS["load"].pack(n, swp=n)) for n in range(1, 4000))
    kept: list[tuple[Any, np.ndarray]] = []
    for block in ring_blocks([data], TABLE, header(), 0, lambda *_: None, rows=1):
        kept = [*kept[-cpus:], (block, block.columns())]
        assert all((held.columns() == right).all() for held, right in kept)


@pytest.mark.parametrize("beyond", range(1, 9))
def test_a_record_that_goes_on_beyond_the_end_is_damage(beyond: int) -> None:
    """By however few bytes."""
    page = bytearray(rb.ring((n, EVENTS["load"].pack(n)) for n in range(1, 4)))
    assert len(decode(bytes(page)).rows) == 3
    page[8:12] = struct.pack("<I", struct.unpack_from("<I", page, 8)[0] - beyond)
    got = decode(bytes(page))
    assert (len(got.rows), got.damage.subbuffers) == (2, 1)


def test_more_texts_than_are_kept_at_a_time() -> None:
    data = np.frombuffer(rb.ring((n, rb.common(PRINT, 1) + bytes(8) + b"x\0") for n in range(1, 9000)), np.uint8)
    decoder, room = RingDecoder(TABLE, header()), Room(1 << 14)
    used, row, texts = decoder.feed(data, room, 0)
    assert len(texts) == row <= len(decoder._texts)
    assert used < data.size
    assert len(decode(data.tobytes(), rows=1 << 14).texts) == 8999


def test_absurd_headers_are_refused() -> None:
    good = rb.header_page(4096)
    for bad in (rb.header_page((1 << 20) + 16), rb.header_page(4098), good.replace("4080", "9" * 5000),
                good.replace("4080", "-1"),
                good.replace("offset:8", "offset:9"), good.replace("commit", "other"), good.replace("data", "dat"),
                good.replace("size:4080", "size:63"), ""):
        with pytest.raises(BadInput, match="header_page"):
            parse_header_page(bad, "header_page")


# Any bytes.

FORMS = ("", "", "", "long", "extend", "absolute", "discard")
_records = st.lists(st.tuples(
    st.sampled_from((0, 1, 700, (1 << 27) - 1, 1 << 27, 1 << 40)),
    st.sampled_from(("store", "comp", "comp_ret", "zmalloc", "marker", "sched_switch", "unknown", "async_free")),
    st.integers(0, (1 << 22) - 1), st.integers(0, (1 << 64) - 1), st.sampled_from(FORMS),
    st.sampled_from(("", "", "", "", "", "flush", "pad", "lose", "count"))), max_size=150)
_chunks = st.lists(st.integers(1, 70000), max_size=6)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _build(records: list[Any], size: int) -> tuple[bytes, list[dict[str, int]], dict[int, str], Damage]:
    """The ring of random records, and the rows, texts and damage that must result."""
    out, ts = Ring(size), 1 << 33
    rows: list[dict[str, int]] = []
    texts: dict[int, str] = {}
    damage = Damage()
    for step, name, pid, value, form, before in records:
        ts += step
        if before == "flush":
            out.flush()
        elif before == "pad" and out._data:
            out.pad()
        elif before in ("lose", "count"):
            out.flush().lose(None if before == "lose" else pid)
            damage.lost_unknown += before == "lose"
            damage.lost += pid if before == "count" else 0
            rows.append({"ts": ts, "cpu": 2, "pid": 0, "event": 2, "ret": -1 if before == "lose" else pid})
        fields: dict[str, int] = {}
        if name == "marker":
            payload = rb.marker(f"{value}", pid)
        elif name == "unknown":
            payload = rb.common(40000 + value % 100, pid)
        elif name == "store":
            payload = EVENTS[name].pack(pid, folio=value, fl=value, swp=value, fl1=value & 255)
            fields = {"folio": _signed(value), "swpent": _signed(value), "order": value & 255 if value >> 6 & 1 else 0}
        elif name == "comp":
            low = value & 0xFFFFFFFF
            payload = EVENTS[name].pack(pid, pglink=value, off=low, slen=low, room=low)
            fields = {"folio": _signed(value & ~3), "offset": low, "size": low, "dlen": low}
        elif name == "comp_ret":
            low = value & 0x7FFFFFFF
            payload = EVENTS[name].pack(pid, ret=-low, dlen=low)
            fields = {"ret": -low, "dlen": low}
        elif name == "zmalloc":
            payload = EVENTS[name].pack(pid, pool=value, size=value & 0xFFFF, gfp=value & 0xFFFFFFFF)
            fields = {"pool": _signed(value), "size": value & 0xFFFF, "gfp": value & 0xFFFFFFFF}
        else:
            payload = EVENTS[name].pack(pid)
        first = out._start is None
        out.add(ts, payload, form)
        if form == "discard":
            damage.discarded += 1
            ts = out._ts  # a discarded record's delta is never 0
        elif name == "unknown":
            damage.unknown[40000 + value % 100] = damage.unknown.get(40000 + value % 100, 0) + 1
        elif name == "sched_switch":
            damage.ignored[name] = damage.ignored.get(name, 0) + 1
        else:
            if name == "marker":
                texts[len(rows)] = f"{value}"
            code = {"store": 20, "comp": 50, "comp_ret": 51, "zmalloc": 80, "marker": 1, "async_free": 92}[name]
            rows.append({"ts": ts, "cpu": 2, "pid": pid, "event": code, **{k: v for k, v in fields.items() if v}})
        assert first or out._start is not None
    for row in rows:
        if row["event"] == 2 and not row["ret"]:
            del row["ret"]
    return out.bytes(), rows, texts, damage


@examples(300)
@given(_records, st.sampled_from(SIZES), _chunks, st.sampled_from((1, 5000)))
def test_round_trip(records: list[Any], size: int, chunks: list[int], rows: int) -> None:
    """Any events, any sub-buffer size, any chunking of the input, any block size: the same rows."""
    data, expected, texts, damage = _build(records, size)
    got = decode(data, size, 2, chunks, rows)
    assert got.rows == expected
    assert got.texts == texts
    got.damage.backwards = 0
    assert got.damage == damage


@examples(40)
@given(_records, st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(0, 4095))
def test_chunking_of_damaged_rings_does_not_matter(records: list[Any], chunks: list[int], cut: int) -> None:
    data = bytearray(_build(records, 4096)[0] * 2)
    for at in chunks:
        if data:
            data[at * 7919 % len(data)] ^= 0x55
    data = data[:max(len(data) - cut, 0)]
    one, other = decode(bytes(data)), decode(bytes(data), chunks=chunks, rows=1)
    assert one.rows == other.rows
    assert (one.texts, one.damage) == (other.texts, other.damage)


def _fields(body: bytes) -> dict[str, int]:
    """What a record's fields put into its columns, read plainly from the format's offsets."""
    plan = TABLE.plan_of_id[int.from_bytes(body[:2], "little")]
    out = {"event": int(TABLE.code[plan]), "pid": struct.unpack_from("<i", body, 4)[0]}
    for how, column, offset, size, signed, second in TABLE.move[TABLE.first[plan]:TABLE.first[plan + 1]].tolist():
        if how == TEXT:
            continue
        value = int.from_bytes(body[offset:offset + size], "little", signed=bool(signed))
        if how == MASK_LINK:
            value &= ~3
        elif how == ORDER:
            value = body[second] if value >> 6 & 1 else 0
        if value:
            out[schema.column_names()[column]] = value - (1 << 64) if value >> 63 == 1 else value
    return out


def _compare_with_walk(data: bytes, size: int = 4096) -> None:
    """The decoder and the plain reader agree, and every record is either a row or counted."""
    got, plain = decode(data, size), rb.walk(data, size)
    lost = [(row["ts"], row.get("ret", 0)) for row in got.rows if row["event"] == 2]
    assert lost == plain.lost
    assert (got.damage.subbuffers, got.damage.discarded) == (plain.damaged, plain.discarded)
    ids = Counter(int.from_bytes(body[:2], "little") for _, body in plain.records)
    assert got.damage.unknown == {n: c for n, c in ids.items()
                                  if TABLE.plan_of_id[n] < 0 and n not in TABLE.ignored}
    expected = [(ts, body) for ts, body in plain.records
                if (plan := TABLE.plan_of_id[int.from_bytes(body[:2], "little")]) >= 0 and len(body) >= TABLE.need[plan]]
    rows = [row for row in got.rows if row["event"] != 2]
    assert [row["ts"] for row in rows] == [ts for ts, _ in expected]
    assert [{name: value for name, value in row.items() if name not in ("ts", "cpu")} for row in rows] \
        == [_fields(body) for _, body in expected]
    known = sum(c for n, c in ids.items() if TABLE.plan_of_id[n] >= 0)
    assert known == len(rows) + got.damage.short_records
    assert (got.damage.first_offset >= 0) == bool(got.damage.subbuffers or got.damage.short_records)
    assert got.damage.tail_bytes == len(data) % size


def _feed_is_confined(data: bytes, size: int = 4096) -> None:
    """What lies around the buffer changes nothing: nothing outside it is read."""
    results = []
    for around in (b"\0", b"\xff", struct.pack("<I", 2) + rb.common(PRINT, 1)):
        guard = np.frombuffer((around * 4096)[:4096], np.uint8)
        room = np.concatenate((guard, np.frombuffer(data, np.uint8), guard))
        results.append(feed(room[4096:4096 + len(data)], size))
        assert results[-1][0] == len(data) // size * size
    assert results[0] == results[1] == results[2]


@examples(80)
@given(st.binary(min_size=0, max_size=3 * 4096 + 50))
def test_random_bytes(data: bytes) -> None:
    _compare_with_walk(data)
    _feed_is_confined(data)


@st.composite
def _damaged_ring(draw: st.DrawFn) -> bytes:
    """A good ring with some bits or words changed; headers and lengths are hit more often than payloads."""
    data = bytearray(_build(draw(_records), 4096)[0])
    if not data:
        data = bytearray(4096)
    for _ in range(draw(st.integers(1, 6))):
        page = draw(st.integers(0, len(data) // 4096 - 1)) * 4096
        at = page + draw(st.one_of(st.integers(0, 200), st.integers(0, 4092)))
        if draw(st.booleans()):
            data[at] ^= 1 << draw(st.integers(0, 7))
        else:
            word = draw(st.sampled_from((0, 1, 28, 29, 29 | 32, 30, 31, 0xFFFFFFFF, 4080, 4081, 0x80000FF0, 0xC0000FF0,
                                         0xC0000FE8, 0x7FFFFFE0)))
            data[at:at + 4] = struct.pack("<I", word)[:len(data) - at]
    return bytes(data[:len(data) - draw(st.sampled_from((0, 0, 0, 1, 4000)))])


@examples(150)
@given(_damaged_ring())
def test_damaged_rings(data: bytes) -> None:
    _compare_with_walk(data)
    _feed_is_confined(data)


class _Checked:
    """An array that refuses indices with which compiled code would read other memory."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape = values, values.shape

    def __getitem__(self, at: int) -> int:
        if not 0 <= at < self._values.size:
            raise IndexError(f"{at} is outside of {self._values.size}")
        return int(self._values[at])


@pytest.fixture(scope="module")
def uncompiled() -> Any:
    """Run the decoder as plain Python that reads its input through :class:`_Checked`."""
    compiled = ring_module._decode

    def decode_checked(*args: Any) -> Any:
        buf, words, *others = args
        return compiled.py_func(_Checked(buf), _Checked(words), *others)

    patch = pytest.MonkeyPatch()
    patch.setattr(ring_module, "_by_bytes", ring_module._by_bytes.py_func)
    patch.setattr(ring_module, "_le", lambda buf, at, size: np.uint64(sum(buf[at + i] << 8 * i for i in range(size)))
                  .astype(np.int64))
    yield lambda: patch.setattr(ring_module, "_decode", decode_checked), \
        lambda: patch.setattr(ring_module, "_decode", compiled)
    patch.undo()


@examples(25)
@given(_damaged_ring())
def test_every_index_is_checked(uncompiled: Any, data: bytes) -> None:
    """The decoder run uncompiled, where nothing outside of the input can be read unnoticed."""
    checked, plain = uncompiled
    buffer = np.frombuffer(data, np.uint8)
    expected = feed(buffer, rows=1 << 11)
    checked()
    try:
        assert feed(buffer, rows=1 << 11) == expected
    finally:
        plain()


@examples(60)
@given(st.text(max_size=300), st.sampled_from(("offset", "size", "signed", "field", "ID", ";", "\t", ":")),
       st.integers(0, 50), st.text("0123456789-x;: ", max_size=12))
def test_formats_with_anything_in_them(noise: str, word: str, at: int, put: str) -> None:
    """A damaged format file gives a format or a sentence, and a table that the decoder can use."""
    text = EVENTS["store"].text()
    parts = text.split(word)
    at = min(at, len(parts) - 1)
    text = word.join(parts[:at]) + put + word.join(parts[at:]) + noise
    try:
        table = ProbeTable.build([parse_event_format(text, "formats/store")])
    except BadInput:
        return
    decoder = RingDecoder(table, header())
    data = rb.ring([(1, EVENTS["store"].pack(1, folio=1, fl=64, fl1=9)), (2, EVENTS["load"].pack(1))])
    used, row, _ = decoder.feed(np.frombuffer(data, np.uint8), Room(1 << 11), 0)
    assert used == 4096
    assert row <= 2


def test_formats_that_would_keep_a_search_busy() -> None:
    """Long lines that begin like fields are passed over in no time."""
    for text in ("field:" * 100000, "field:x;" + " " * 300000, "name: " + "a" * 200000 + " b\nID: 5\n"):
        with pytest.raises(BadInput):
            parse_event_format(text, "x")
    with pytest.raises(BadInput, match="does not fit 16 bits"):
        parse_event_format(EVENTS["load"].text().replace("ID: 1502", "ID: " + "1" * 5000), "x")
    with pytest.raises(BadInput, match="make no sense"):
        parse_event_format(EVENTS["load"].text().replace("offset:16", "offset:" + "1" * 5000), "x")
