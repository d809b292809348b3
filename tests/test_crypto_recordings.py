# SPDX-License-Identifier: GPL-2.0-or-later
"""The page compressors against recordings of real kernels: every error, every length, every object.

The raw captures are read here with a small decoder of their own, so that a mistake in the project's importer
cannot hide one in a compressor, or the other way round.
"""

from __future__ import annotations

import functools
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from model.crypto import Compressor, compressor_for
from model.page import PAGE_SIZE

zstandard: Any = pytest.importorskip("zstandard")

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "recordings"
RECORDINGS = Path(os.environ.get("ZREPLAY_RECORDINGS") or SHARED)


def folder(recording: str) -> Path:
    path = RECORDINGS / recording
    if not path.is_dir():
        pytest.skip(f"no recording {recording} in {RECORDINGS} (ZREPLAY_RECORDINGS names another place)")
    return path


def unpacked(path: Path) -> bytes:
    with path.open("rb") as packed:
        data: bytes = zstandard.ZstdDecompressor().stream_reader(packed).read()
    return data


def ring_events(raw: bytes) -> Iterator[bytes]:
    """The events of a raw trace ring with 4096-byte sub-buffers, each from its common_type on."""
    for start in range(0, len(raw), 4096):
        (commit,) = struct.unpack_from("<Q", raw, start + 8)
        at, end = start + 16, start + 16 + (commit & 0xFFFFF)
        while at < end:
            first, second = struct.unpack_from("<II", raw, at)
            kind, delta = first & 31, first >> 5
            if kind in (30, 31):  # time extend, absolute time
                at += 8
            elif kind == 29:  # padding
                if delta == 0:
                    break
                at += 4 + second
            elif kind == 0:  # the length is in the next word and counts it
                yield raw[at + 8 : at + 4 + second]
                at += 4 + second
            else:
                yield raw[at + 4 : at + 4 + 4 * kind]
                at += 4 + 4 * kind


class Event(NamedTuple):
    number: int
    fields: dict[str, tuple[int, int, bool]]  # offset and size in bytes, signed

    @classmethod
    def of(cls, recording: Path, name: str) -> Event:
        text = (recording / "formats" / name).read_text()
        found = re.findall(r"(\w+);\s*offset:(\d+);\s*size:(\d+);\s*signed:(\d)", text)
        fields = {field: (int(at), int(size), sign == "1") for field, at, size, sign in found}
        return cls(int(re.findall(r"^ID: (\d+)", text, re.MULTILINE)[0]), fields)

    def get(self, event: bytes, field: str) -> int:
        at, size, signed = self.fields[field]
        return int.from_bytes(event[at : at + size], "little", signed=signed)


class Call(NamedTuple):
    """One compress call of one page, and what was then written to zsmalloc."""

    err: int
    dlen: int
    written: int | None  # bytes; None where this kernel's recording has no zs_obj_write
    head: int | None  # first 8 bytes of the object


class Recorded(NamedTuple):
    pages: np.ndarray[Any, np.dtype[np.uint8]]
    calls: list[Call]


def recorded_calls(path: Path) -> list[Call]:
    returned = Event.of(path, "comp_ret")
    write = Event.of(path, "objwrite") if (path / "formats" / "objwrite").exists() else None
    calls: list[Call] = []
    for event in ring_events(unpacked(path / "zmeta.cpu0.raw.zst")):
        number = int.from_bytes(event[:2], "little")
        if number == returned.number:
            calls.append(Call(returned.get(event, "ret"), returned.get(event, "dlen"), None, None))
        elif write and number == write.number:
            calls[-1] = calls[-1]._replace(written=write.get(event, "len"), head=write.get(event, "d0"))
    return calls


@functools.cache
def recorded(recording: str) -> Recorded:
    path = folder(recording)
    pages = np.frombuffer(unpacked(path / "pages.bin.zst"), np.uint8).reshape(-1, PAGE_SIZE)
    calls = recorded_calls(path)
    assert len(calls) == len(pages)
    return Recorded(pages, calls)


def digests(path: Path) -> list[str]:
    return [line.split(",")[3] for line in unpacked(path / "pages.idx.zst").decode().splitlines()[1:]]


@functools.cache
def contents() -> dict[str, bytes]:
    """Every page whose contents some recording kept, by SHA-1."""
    found: dict[str, bytes] = {}
    for name in ("6.12-zstd-4k", "7.3-zstd-64k", "7.3-lz4-4k"):
        path = folder(name)
        found |= dict(zip(digests(path), (page.tobytes() for page in recorded(name).pages), strict=True))
    return found


def differing(compressor: Compressor, run: Recorded) -> list[int]:
    """The numbers of the pages whose errno, length or object head differ from the recorded ones."""
    errs, dlens, head = compressor.lengths(run.pages, threads=2)
    first = run.pages[:, :8].copy().view("<u8").reshape(-1)
    bad = []
    for i, call in enumerate(run.calls):
        same = (call.err, call.dlen) == (errs[i], dlens[i])
        if call.head is not None:  # after an error the page itself is stored
            expected = (dlens[i], head[i]) if errs[i] == 0 else (PAGE_SIZE, first[i])
            same = same and (call.written, call.head) == expected
        if not same:
            bad.append(i)
    return bad


@pytest.mark.parametrize(
    ("recording", "name", "line", "pages", "errors"),
    [
        ("6.12-zstd-4k", "zstd", "mainline-6.12", 12_671, 718),
        ("7.3-zstd-64k", "zstd", "mainline-7.3", 14_780, 1_001),
        ("7.3-lz4-4k", "lz4", "mainline-7.3", 5_352, 403),
    ],
)
def test_every_error_length_and_head(recording: str, name: str, line: str, pages: int, errors: int) -> None:
    run = recorded(recording)
    assert (len(run.calls), sum(call.err != 0 for call in run.calls)) == (pages, errors)
    assert differing(compressor_for(name, line), run) == []


def test_every_lz4_object() -> None:
    run = recorded("7.3-lz4-4k")
    objects = unpacked(folder("7.3-lz4-4k") / "cobj.bin.zst")
    compressor = compressor_for("lz4", "mainline-7.3")
    at = 0
    for i, page in enumerate(run.pages):
        _, size = struct.unpack_from("<QI", objects, at)
        stored = objects[at + 12 : at + 12 + size]
        at += 12 + size
        result = compressor.compress(page.tobytes())
        assert stored == (result.data if result.err == 0 else page.tobytes()), f"page {i}"
        assert result.err or compressor.decompress(stored) == page.tobytes(), f"page {i}"
    assert at == len(objects)


def test_zstd_of_7_2_where_the_page_is_known() -> None:
    """7.2's recording keeps no contents, but three pages in four occur in another recording."""
    path = folder("7.2-zstd-4k")
    pairs = zip(digests(path), recorded_calls(path), strict=True)
    known = [(contents()[digest], call) for digest, call in pairs if digest in contents()]
    pages = np.frombuffer(b"".join(page for page, _ in known), np.uint8).reshape(-1, PAGE_SIZE)
    assert len(known) > 10_000
    assert (
        differing(compressor_for("zstd", "mainline-7.2"), Recorded(pages, [call for _, call in known])) == []
    )


def test_the_kernel_zlib_is_this_zlib() -> None:
    """A kernel ran its zlib with a 4 KiB window; apart from the window that is what deflate does."""
    path = folder("v14-iaa-64k")
    write = Event.of(path, "objwrite")
    ring = ring_events(unpacked(path / "zmeta.cpu0.raw.zst"))
    writes = [event for event in ring if int.from_bytes(event[:2], "little") == write.number]
    seen: dict[str, tuple[int, int]] = {}
    for digest, event in zip(digests(path), writes, strict=True):
        if digest in contents():
            seen[digest] = (write.get(event, "len"), write.get(event, "d0"))
    assert len(seen) > 1_000
    for digest, stored in seen.items():
        data = zlib.compress(contents()[digest], 6, -12)
        if len(data) >= PAGE_SIZE:
            data = contents()[digest]
        assert stored == (len(data), int.from_bytes(data[:8], "little")), digest
