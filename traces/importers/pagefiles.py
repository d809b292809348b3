# SPDX-License-Identifier: GPL-2.0-or-later
"""Page contents next to a trace: dumps with an index, page rings, compressed objects as written."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from traces import schema
from traces.errors import BadInput
from traces.events import PAGE_SIZE
from traces.importers.eventformat import EventFormat, HeaderPage
from traces.importers.inputfile import read_all, within
from traces.importers.pageindex import PAGE_OFFSET_BASE, VMEMMAP_BASE, PageIndex
from traces.importers.probemap import TEXT, ProbeTable
from traces.importers.ring import RingDecoder, Room
from traces.pages import sha1_of

__all__ = ["is_page_format", "page_ring", "read_objects", "read_page_index"]

_COLUMN = {name: index for index, name in enumerate(schema.column_names())}
_HALF: Final = PAGE_SIZE // 2
_MAX_PAGES: Final = 1 << 24
#: A packed file may have this many records, and one more for each of its bytes.
_FREE_RECORDS: Final = 1 << 20
#: No line of an index is as long.
_LONG_LINE: Final = 1 << 10
_SHA1: Final = re.compile(r"[0-9a-fA-F]{40}")


def bases_of(kernel: dict[str, object]) -> tuple[int, int] | None:
    """Return (page_offset_base, vmemmap_base) when the boot's addresses are known: x86-64 without KASLR."""
    return (PAGE_OFFSET_BASE, VMEMMAP_BASE) if kernel.get("kaslr") is False else None


def read_page_index(index: Path, dump: Path | None, bases: tuple[int, int] | None) -> PageIndex:
    """Read an index of pages (n, ts_ns, src, sha1 per line) and, where given, the dump of their bytes.

    :raises BadInput: on a malformed line, a page past the end of the dump, or digests that do not match
    """
    stamps: list[int] = []
    addresses: list[int] = []
    sha1: list[str] = []
    lines = io.BytesIO(read_all(index))
    if lines.readline(_LONG_LINE).rstrip(b"\r\n") != b"n,ts_ns,src,sha1":
        raise BadInput(index, "line 1", "is not 'n,ts_ns,src,sha1'", "copy the page index again, with its line ends")
    # Row by row: a bad line takes no memory, however many there are.
    for number, line in enumerate(lines):
        if number >= _MAX_PAGES:
            raise BadInput(index, "", f"more than {_MAX_PAGES} pages are more than an import takes", "split the run")
        row = line[:_LONG_LINE].decode("ascii", "replace").strip("\r\n").split(",")
        try:
            if int(row[0]) != number or not _SHA1.fullmatch(row[3]) or len(line) > _LONG_LINE:
                raise ValueError
            stamp, source = int(row[1]), int(row[2], 16)
            if not -(1 << 63) <= stamp < 1 << 63 or not 0 <= source < 1 << 64:
                raise ValueError
        except (ValueError, IndexError):
            raise BadInput(index, f"line {number + 2}", "is not 'n,ts_ns,src,sha1' in order",
                           "copy the page index again") from None
        stamps.append(stamp)
        addresses.append(source)
        sha1.append(row[3].lower())
    rows, ts, address = len(stamps), np.array(stamps, np.int64), np.array(addresses, np.uint64)
    data = None
    if dump is not None:
        raw = b"".join(_up_to(within(dump), rows * PAGE_SIZE + 1))
        if len(raw) > rows * PAGE_SIZE:
            raise BadInput(dump, f"offset {rows * PAGE_SIZE}", f"the dump continues here, but its index names "
                           f"{rows} pages", "copy dump and index again, from one run")
        if len(raw) < rows * PAGE_SIZE:
            raise BadInput(dump, f"offset {len(raw)}", f"the dump ends here but its index names {rows} pages "
                           f"({rows * PAGE_SIZE} bytes)", "copy dump and index again, from one run")
        data = np.frombuffer(raw, np.uint8).reshape(-1, PAGE_SIZE)
    return PageIndex(str(index), ts, address, sha1, data, bases)


def _up_to(parts: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Yield the first ``most`` bytes, and read no further."""
    for part in parts:
        yield part[:most]
        most -= len(part)
        if most <= 0:
            return


def is_page_format(fmt: EventFormat) -> bool:
    """True for the probe events that carry half a page each: pg0 and pg1 with src and c0 to c3."""
    return fmt.name in ("pg0", "pg1") and {"src", "c0", "c3"} <= set(fmt.fields)


def page_ring(path: Path, formats: list[EventFormat], header: HeaderPage,
              bases: tuple[int, int] | None) -> PageIndex | None:
    """Read pages from a ring of pg0/pg1 events, the lower and upper half of each page, in either order.

    Returns None when the ring holds none.

    :raises BadInput: when the halves do not come in pairs
    """
    halves = {fmt.name: fmt for fmt in formats if is_page_format(fmt)}
    if len(halves) != 2:
        return None
    table = _half_table(halves)
    ts: list[int] = []
    address: list[int] = []
    pages: list[bytes] = []
    waiting: dict[tuple[int, int], tuple[int, bytes]] = {}
    decoder = RingDecoder(table, header)
    room = Room(max(1 << 14, decoder.most_rows))
    rest = b""
    for chunk in within(path):
        data = np.frombuffer(rest + chunk, np.uint8)
        at = 0
        while True:
            room.clear()
            used, rows, spans = decoder.feed_spans(data[at:], room, 0)
            view = data[at:]
            block = room.block(rows, 0, [])
            halves_of, sources = block.column("order"), block.column("folio")
            for row, start in spans:
                half = int(halves_of[row] != 0)
                # The record's source address travels in the folio column of the scratch table.
                src = int(sources[row]) & (1 << 64) - 1
                body = view[start:start + _HALF].tobytes()
                other = waiting.pop((src, 1 - half), None)
                if other is None:
                    if (src, half) in waiting:
                        raise _half_missing(path, src, half)
                    waiting[src, half] = (int(block.ts[row]), body)
                    continue
                ts.append(other[0])
                address.append(src)
                pages.append(other[1] + body if half else body + other[1])
            at += used
            if not rows and not used:
                break
        rest = data[at:].tobytes()
    if not pages:
        return None
    if waiting:
        raise _half_missing(path, *next(iter(waiting)))
    order = np.argsort(np.array(ts), kind="stable")
    data = np.frombuffer(b"".join(pages[i] for i in order), np.uint8).reshape(-1, PAGE_SIZE)
    return PageIndex(str(path), np.array(ts)[order], np.array(address, np.uint64)[order], sha1_of(data), data, bases,
                     hashed=True)


def _half_missing(path: Path, src: int, half: int) -> BadInput:
    return BadInput(path, f"page at address {src:#x}", f"only its half {half} was recorded",
                    "record pages and events into buffers that hold the whole run")


def _half_table(halves: dict[str, EventFormat]) -> ProbeTable:
    """A probe table whose rows are half pages: src goes to ``folio``, which half to ``order``."""
    plan = np.full(1 << 16, -1, np.int32)
    moves: list[tuple[int, int, int, int, int, int]] = []
    first, need, pid = [0], [], []
    for number, name in enumerate(("pg0", "pg1")):
        fmt = halves[name]
        plan[fmt.id] = number
        moves.append((0, _COLUMN["folio"], fmt.fields["src"].offset, 8, 0, 0))
        if number:
            # Any constant that is never 0 marks the upper half: the event's own id.
            moves.append((0, _COLUMN["order"], 0, 2, 0, 0))
        moves.append((TEXT, _COLUMN["text"], fmt.fields["c0"].offset, 0, 0, 0))
        first.append(len(moves))
        need.append(max(fmt.fields["c0"].offset + _HALF, fmt.fields["src"].offset + 8,
                        fmt.fields["common_pid"].offset + 4))
        pid.append(fmt.fields["common_pid"].offset)
    return ProbeTable(plan, np.array([1, 1], np.int64), np.array(need, np.int64), np.array(first, np.int64),
                      np.array(moves, np.int64), np.array(pid, np.int64), ["pg0", "pg1"], {}, {})


def read_objects(path: Path) -> pd.DataFrame:
    """Read compressed objects as they were written: records of u64 handle, u32 length, bytes.

    Returns a frame of ``handle`` (uint64) and ``data`` (bytes) in order of writing.

    :raises BadInput: at a record that is cut off or longer than a page
    """
    raw = read_all(path)
    most = _FREE_RECORDS + path.stat().st_size
    handles: list[int] = []
    data: list[bytes] = []
    at = 0
    while at < len(raw):
        length = int.from_bytes(raw[at + 8:at + 12], "little")
        if at + 12 > len(raw) or not 0 < length <= PAGE_SIZE or at + 12 + length > len(raw):
            raise BadInput(path, f"offset {at}", "the record is cut off or longer than a page",
                           "copy the file of objects again")
        if len(handles) == most:
            raise BadInput(path, f"offset {at}", f"holds more than {most} objects, more than its size can",
                           "decompress it yourself if that is right, and import what comes out")
        handles.append(int.from_bytes(raw[at:at + 8], "little"))
        data.append(raw[at + 12:at + 12 + length])
        at += 12 + length
    return pd.DataFrame({"handle": np.array(handles, np.uint64), "data": data})
