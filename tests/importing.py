# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared by tests of the importers: an import, and the content of its recording."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ringbuilder as rb
from ringbuilder import page

from traces import schema
from traces.block import Block
from traces.importers import import_source
from traces.recording import Recording

RECORDINGS = Path(os.environ.get("ZREPLAY_RECORDINGS",
                                 Path(__file__).resolve().parents[1].parent / "shared" / "recordings"))
RUNS = ("6.12-zstd-4k", "7.2-zstd-4k", "7.3-lz4-4k", "7.3-tracecmd", "7.3-zstd-64k", "v14-iaa-64k")
COLUMN = {name: index for index, name in enumerate(schema.column_names())}
COMPRESS = schema.CODE["crypto_acomp_compress"]
TRUTH = b"phase,page,kind,sha1,swap_type,swap_offset\n"
OBJECTS = b"".join(struct.pack("<QI", 0xFFFF888000001000 + 8 * n, 100 + n) + bytes(100 + n) for n in range(9))
TEXT = (b"# tracer: nop\n#\n"
        b"         python3-10      [000] ...2.    10.000001: store_ret: (a+0x80/0xa0 <- zswap_store) ret=0x1\n")
FILES = {
    "ring": rb.rings_of()[0], "tracedat": rb.tracedat(rb.rings_of()), "text": TEXT, "objects": OBJECTS,
    "pages": page(1) + page(2), "pageindex": rb.index_text([(1, 2, "0" * 40)]).encode(),
    "truth": b"phase,page,kind,sha1,swap_type,swap_offset\n", "counters": b'{"t": 1, "zswap_debugfs": {}}',
    "symbols": b'{"zswap_list_lru": "ff"}', "json": b' \n{"a": 1}', "probes": b"f:z/store zswap_store\n",
    "config": b"#\n# Linux/x86_64 7.3.0 Kernel Configuration\n", "dmesg": b"[    0.0] Linux version 7.3 (x)\n",
    "empty": b"", "unknown": b"hello\n",
}


def shared(run: str) -> Path:
    """A shared recording; skips the test where it is not there."""
    path = RECORDINGS / run
    if not path.is_dir():
        pytest.skip(f"no recording at {path}")
    return path


def shared_or_empty() -> list[Path]:
    return sorted(p for run in RUNS for p in (RECORDINGS / run).glob("*") if p.is_file())


def imported(source: Path, tmp_path: Path, **options: Any) -> tuple[Recording, dict[str, Any]]:
    summary = import_source(source, tmp_path / "rec", **options)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    recording = Recording(tmp_path / "rec")
    assert summary["rows"] == len(recording)
    return recording, summary


def block_of(stamps: list[int], markers: dict[int, str]) -> Block:
    out = np.zeros((len(COLUMN), len(stamps)), np.int64)
    out[0], out[COLUMN["event"]], out[COLUMN["content"]] = stamps, schema.CODE["zswap_load"], -1
    texts = [(stamps.index(ts), text) for ts, text in markers.items() if ts in stamps]
    for row, _ in texts:
        out[COLUMN["event"], row] = 1
    return Block.of(out, texts)


def cut(name: str, count: int) -> Callable[[Path], None]:
    return lambda source: (source / name).write_bytes((source / name).read_bytes()[:count]) and None
