# SPDX-License-Identifier: GPL-2.0-or-later
"""What a file is: recognised by its content, whatever its name."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ringbuilder as rb
from importing import FILES, RECORDINGS, shared_or_empty
from ringbuilder import EVENTS, page

from traces.errors import BadInput
from traces.importers.eventformat import parse_header_page
from traces.importers.filetype import classify
from traces.importers.inputfile import chunks, read_all
from traces.importers.rings import cpu_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


KINDS = {"counters-": "counters", "cobj.": "objects", "dmesg.": "dmesg", "dynamic_events.": "probes", "kernel.config": "config",
         "pages.bin": "pages", "pages.idx": "pageindex", "symbols.": "symbols", "trace.dat": "tracedat",
         "truth.bin": "pages", "truth.csv": "truth", "zmeta.txt": "text", "zmeta.cpu": "ring", "zpage.cpu": "ring",
         "params.": "json", "ring-stats.": "ringstats", "guest.log": "unknown"}


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recordings at {RECORDINGS}")
@pytest.mark.parametrize("path", shared_or_empty(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shared_file_is_recognised(path: Path, tmp_path: Path) -> None:
    (tmp_path / "x.dat").symlink_to(path)
    header = parse_header_page((path.parent / "formats" / "header_page").read_text(), "x")
    expected, = {kind for start, kind in KINDS.items() if path.name.startswith(start)}
    assert classify(tmp_path / "x.dat", header) == expected


MISLEADING = ("trace.dat", "trace.txt", "zmeta.cpu0.raw", "pages.bin", "counters-x.json", "truth.csv.gz", "x.zst")


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("squeeze", [bytes, zstd.compress, gzip.compress], ids=["plain", "zstd", "gzip"])
def test_the_content_counts_and_not_the_name(tmp_path: Path, kind: str, squeeze: Callable[[bytes], bytes]) -> None:
    for name in MISLEADING:
        (tmp_path / name).write_bytes(squeeze(FILES[kind]))
        assert classify(tmp_path / name) == kind, name


@pytest.mark.parametrize("size", [4096, 8192, 65536, 1 << 17, 1 << 20])
def test_rings_of_every_sub_buffer_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(rb.rings_of(size=size)[0])
    assert classify(tmp_path / "x", parse_header_page(rb.header_page(size), "x")) == "ring"


def test_a_ring_with_a_damaged_sub_buffer_is_still_a_ring(tmp_path: Path) -> None:
    """It must not be taken for a file that is left out, so that one CPU is missing without a note."""
    data = bytearray(rb.ring((n, EVENTS["load"].pack(1)) for n in range(1, 900)))
    for broken in (8, 4096 + 8, 3 * 4096):
        bad = bytearray(data)
        bad[broken:broken + 8] = b"\xff\xff\xff\x07\xff\xff\xff\x07"
        (tmp_path / "x").write_bytes(bad)
        assert classify(tmp_path / "x") == "ring"


@pytest.mark.parametrize("data", [bytes(40960), b"\xff" * 8192, page(1) * 4, b"\1" * 8192,
                                  np.arange(4096, dtype="<u8").tobytes()])
def test_pages_are_no_ring(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert classify(tmp_path / "x") == "pages"


def test_damaged_compression_shows_what_came_before(tmp_path: Path) -> None:
    random = np.random.default_rng(1).bytes(300000)
    for squeeze in (zstd.compress, gzip.compress):
        packed = squeeze(random)
        (tmp_path / "cut").write_bytes(packed[:len(packed) // 2])
        parts: list[bytes] = []
        with pytest.raises(BadInput, match="the compressed data is damaged"):
            parts.extend(chunks(tmp_path / "cut"))
        got = b"".join(parts)
        assert len(got) > len(random) // 4
        assert random.startswith(got)
        bad = bytearray(packed)
        bad[len(bad) // 2] ^= 0xFF
        bad[10] ^= 0xFF
        (tmp_path / "flipped").write_bytes(bad)
        classify(tmp_path / "flipped")
        with pytest.raises(BadInput, match=r"flipped: the compressed data is damaged \(.*\); copy the file again\.$"):
            read_all(tmp_path / "flipped")


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 22])
@pytest.mark.parametrize("squeeze", [bytes, zstd.compress, gzip.compress], ids=["plain", "zstd", "gzip"])
def test_chunks(tmp_path: Path, size: int, squeeze: Callable[[bytes], bytes]) -> None:
    data = b"".join(bytes([n % 251]) * 3 for n in range(3000))
    (tmp_path / "x").write_bytes(squeeze(data))
    parts = list(chunks(tmp_path / "x", size))
    assert b"".join(parts) == data
    assert {len(part) for part in parts[:-1]} <= {size}


def test_read_all_stops_at_its_limit(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(zstd.compress(bytes(64 << 20)))
    with pytest.raises(BadInput, match="bomb: is longer than 1000000 bytes"):
        read_all(tmp_path / "bomb", 1_000_000)
    assert read_all(tmp_path / "bomb", 64 << 20) == bytes(64 << 20)


def test_cpu_of_a_file_name() -> None:
    names = {"zmeta.cpu3.raw.zst": 3, "cpu12": 12, "a.raw": 77, "cpu65535": 65535, "cpu65536": 77, "cpu" + "9" * 200: 77}
    assert {name: cpu_of(Path(name), 77) for name in names} == names
