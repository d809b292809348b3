# SPDX-License-Identifier: GPL-2.0-or-later
"""Events written as a kernel would hand them out: raw ring-buffer sub-buffers with formats, or a trace.dat.

Only for comparing importers with other tools on the same data.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Final

import numba
import numpy as np

from traces import schema
from traces.importers.probemap import probe_names, source_fields

__all__ = ["write_capture", "write_tracedat"]

_SUBBUF: Final = 4096
_COMMON: Final = """	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned long __probe_ip;	offset:8;	size:8;	signed:0;
"""
_HEADER_PAGE: Final = """	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:8;	signed:1;
	field: char overwrite;	offset:8;	size:1;	signed:0;
	field: char data;	offset:16;	size:4080;	signed:0;
"""
_HEADER_EVENT: Final = """# compressed entry header
	type_len    :    5 bits
	time_delta  :   27 bits
	array       :   32 bits

	padding     : type == 29
	time_extend : type == 30
	time_stamp : type == 31
	data max type_len  == 28
"""
_FIRST_ID: Final = 1600
_FEW: Final = 10_000


def _formats() -> dict[str, str]:
    """Event formats by probe name; every field has 8 bytes, as most have in a real capture."""
    out = {}
    for number, (probe, name) in enumerate(probe_names().items()):
        fields = source_fields(probe)
        lines = [f"\tfield:u64 {field};\toffset:{16 + 8 * i};\tsize:8;\tsigned:{int(column == 'ret')};"
                 for i, (field, column) in enumerate(fields)]
        printed = " ".join(f"{field}=0x%Lx" for field, _ in fields)
        arguments = ", ".join(["REC->__probe_ip", *(f"REC->{field}" for field, _ in fields)])
        out[probe] = (f"name: {probe}\nID: {_FIRST_ID + number}\nformat:\n{_COMMON}" + "\n".join(lines)
                      + f'\n\nprint fmt: "(%lx) {printed}", {arguments}\n')
        assert name in schema.CODE
    return out


@numba.njit(cache=True)
def _encode(block, ids, first, columns, out):  # type: ignore[no-untyped-def]
    """Write rows of a block as ring events; return the bytes used."""
    at = 0
    pos = 16
    stamp = np.int64(0)
    for row in range(block.shape[1]):
        code = block[3, row]
        kind = ids[code]
        if kind < 0:
            continue
        fields = first[code + 1] - first[code]
        size = 16 + 8 * fields
        if (at == 0 and pos == 16) or pos + size + 4 > 4096:
            if pos > 16:
                commit = pos - 16
                for b in range(8):
                    out[at + 8 + b] = (commit >> (8 * b)) & 255
                at += 4096
            stamp = block[0, row]
            for b in range(8):
                out[at + b] = (stamp >> (8 * b)) & 255
            pos = 16
        delta = block[0, row] - stamp
        stamp = block[0, row]
        head = (delta << 5) | (size // 4)
        for b in range(4):
            out[at + pos + b] = (head >> (8 * b)) & 255
        body = at + pos + 4
        for b in range(2):
            out[body + b] = (kind >> (8 * b)) & 255
        for b in range(4):
            out[body + 4 + b] = (block[2, row] >> (8 * b)) & 255
        for f in range(fields):
            column = columns[first[code] + f]
            if column == -2:
                value = np.int64(0x40) if block[21, row] else np.int64(0)
            else:
                value = block[column, row]
            for b in range(8):
                out[body + 16 + 8 * f + b] = (value >> (8 * b)) & 255
        pos += 4 + size
    commit = pos - 16
    for b in range(8):
        out[at + 8 + b] = (commit >> (8 * b)) & 255
    return at + 4096


def _ids() -> np.ndarray:
    """Return the event type of each code, -1 for those that no probe writes."""
    ids = np.full(257, -1, np.int64)
    for number, name in enumerate(probe_names().values()):
        ids[schema.CODE[name]] = _FIRST_ID + number
    return ids


def _stats(events: int) -> str:
    return f"entries: 0\noverrun: 0\ncommit overrun: 0\ndropped events: 0\nread events: {events}\n"


def ring_bytes(block: np.ndarray) -> np.ndarray:
    """Return a block's events as sub-buffers of 4 KiB (uint8)."""
    index = {column.name: i for i, column in enumerate(schema.COLUMNS)}
    assert index["event"] == 3
    assert index["order"] == 21
    per_code: list[list[int]] = [[] for _ in range(257)]
    for probe, name in probe_names().items():
        code = schema.CODE[name]
        # Column -2 stands for the flags word of a folio: PG_head is set when the event has an order.
        per_code[code] = [-2 if column == "flags" else index[column] for _, column in source_fields(probe)]
    first = np.zeros(258, np.int64)
    first[1:] = np.cumsum([len(columns) for columns in per_code])
    columns = np.array([column for some in per_code for column in some], np.int64)
    out = np.zeros((block.shape[1] // 20 + 2) * 4096, np.uint8)
    # Compiling it takes longer than some thousand events do without.
    encode = _encode if block.shape[1] > _FEW else _encode.py_func
    return out[:encode(block, _ids(), first, columns, out)]  # type: ignore[no-untyped-call]


def write_capture(directory: Path, block: np.ndarray, repeat: int) -> int:
    """Write a directory of a raw ring, formats and the facts a recording needs; return the events in it."""
    formats = directory / "formats"
    formats.mkdir(parents=True)
    (formats / "header_page").write_text(_HEADER_PAGE)
    (formats / "header_event").write_text(_HEADER_EVENT)
    for probe, text in _formats().items():
        (formats / probe).write_text(text)
    with (directory / "zmeta.cpu0.raw").open("wb") as file:
        for turn in range(repeat):
            part = block.copy()
            part[0] += turn * int(block[0, -1])
            file.write(ring_bytes(part).tobytes())
    events = int(np.count_nonzero(_ids()[block[3]] >= 0)) * repeat
    (directory / "ring-stats.json").write_text(json.dumps({"zmeta/cpu0": _stats(events)}))
    (directory / "kernel.config").write_text(
        "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 7.3.0 Kernel Configuration\n#\n"
        "CONFIG_ZSMALLOC_CHAIN_SIZE=8\nCONFIG_PAGE_SHIFT=12\n")
    (directory / "symbols.json").write_text(json.dumps({"zswap_list_lru": "ffffffff83f07f60"}))
    (directory / "counters-before.json").write_text(json.dumps({
        "t": 0.0, "zswap_debugfs": {"stored_pages": "0"}, "meminfo": "MemTotal: 4194304 kB\n",
        "params": {"enabled": "Y", "max_pool_percent": "20", "accept_threshold_percent": "90", "compressor": "lz4"}}))
    return int(block.shape[1]) * repeat


def write_tracedat(path: Path, ring: np.ndarray, events: int) -> None:
    """Write a ring of ``events`` events as a trace.dat of version 6 with one CPU (trace-cmd.dat.v6(5))."""
    formats = _formats()
    out = bytearray(b"\x17\x08\x44tracing6\0" + bytes([0, 8]) + struct.pack("<I", _SUBBUF))
    for name, text in ((b"header_page\0", _HEADER_PAGE), (b"header_event\0", _HEADER_EVENT)):
        out += name + struct.pack("<Q", len(text)) + text.encode()
    out += struct.pack("<I", 0)
    out += struct.pack("<I", 1) + b"z\0" + struct.pack("<I", len(formats))
    for text in formats.values():
        out += struct.pack("<Q", len(text)) + text.encode()
    out += struct.pack("<II", 0, 0)
    cmdlines = b"100 workload\n"
    out += struct.pack("<Q", len(cmdlines)) + cmdlines
    out += struct.pack("<I", 1) + b"options  \0"
    stats = f"CPU: 0\n{_stats(events)}\0".encode()
    out += struct.pack("<HI", 2, len(stats)) + stats + struct.pack("<H", 0) + b"flyrecord\0"
    start = (len(out) + 16 + _SUBBUF - 1) // _SUBBUF * _SUBBUF
    out += struct.pack("<QQ", start, ring.size)
    out += bytes(start - len(out))
    with path.open("wb") as file:
        file.write(out)
        file.write(ring.tobytes())
