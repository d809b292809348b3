# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed files: every kind of trace in every packing, several streams, damage, and windows that ask for memory."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from traces import open_recording
from traces.errors import BadInput
from traces.importers import import_source
from traces.importers.inputfile import open_stream
from traces.importers.packed import DAMAGE, MAGIC_BYTES, unpacked, unpacked_head

STORE = "zswap_store: (zswap_store+0x0/0x5e0) swp=0x7 folio=0xffffea0000000000"
TEXTS = {
    "ftrace": f"# tracer: nop\n#\n          python-136     [001] .....    11.168452: {STORE}\n",
    "report": f"cpus=2\n          python-136     [001] .....    11.168452: {STORE}\n",
    "perf": "python   136 [001]    11.168452: probe:zswap_store: (ffffffff81000000) swp=0x7 folio=0xffffea0000000000\n",
    "bpftrace": '{"type": "attached_probes", "data": {"probes": 1}}\n'
                '{"type": "printf", "data": "{\\"ts\\":5,\\"cpu\\":0,\\"pid\\":1,\\"event\\":\\"zswap_store\\",'
                '\\"swpent\\":7}\\n"}\n'}
PACKERS: dict[str, Callable[[bytes], bytes]] = {"xz": lzma.compress, "gz": gzip.compress,
                                                "zst": zstandard.ZstdCompressor().compress}
FACTS = {"release": "7.3", "compressor": "lz4", "totalram_pages": 504108}


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("kind", TEXTS)
def test_every_kind_of_text_in_every_packing(tmp_path: Path, kind: str, packing: str) -> None:
    source = tmp_path / f"t.{packing}"
    source.write_bytes(PACKERS[packing](TEXTS[kind].encode()))
    import_source(source, tmp_path / "r", overrides=FACTS)
    events = open_recording(tmp_path / "r").frame(["event", "swpent"])
    assert events[events.event == "zswap_store"].swpent.tolist() == [7]


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.sampled_from(sorted(PACKERS)), st.integers(1, 70))
def test_streams_one_after_the_other(parts: list[bytes], packing: str, step: int) -> None:
    packed = b"".join(PACKERS[packing](part) for part in parts)
    stream = unpacked(io.BytesIO(packed), packed[:MAGIC_BYTES])
    out = b""
    while piece := stream.read(step):
        out += piece
    assert out == b"".join(parts)
    assert unpacked_head(packed, 1 << 20) == parts[0]


@given(st.binary(min_size=1, max_size=3000), st.sampled_from(sorted(PACKERS)), st.data())
def test_what_was_cut_is_damage_and_gives_no_other_bytes(content: bytes, packing: str, data: st.DataObject) -> None:
    packed = PACKERS[packing](content)
    cut = packed[:data.draw(st.integers(MAGIC_BYTES, len(packed) - 1))]
    stream = unpacked(io.BytesIO(cut), cut[:MAGIC_BYTES])
    out = bytearray()

    def read_all() -> None:
        while piece := stream.read1(64):  # type: ignore[attr-defined]
            out.extend(piece)

    with pytest.raises(DAMAGE):
        read_all()
    assert content.startswith(bytes(out))


def test_padding_between_streams_of_xz_is_passed_over() -> None:
    packed = lzma.compress(b"a") + bytes(8) + lzma.compress(b"b") + bytes(4)
    assert unpacked(io.BytesIO(packed), packed[:MAGIC_BYTES]).read() == b"ab"


@pytest.mark.parametrize("packing", PACKERS)
def test_closing_closes_the_file(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(PACKERS[packing](b"abc"))
    raw = path.open("rb")
    with unpacked(raw, path.read_bytes()[:MAGIC_BYTES]) as stream:
        assert stream.read() == b"abc"
    assert raw.closed
    with open_stream(path) as stream:
        assert stream.read() == b"abc"


def xz_of_a_window(bits: int) -> bytes:
    """Return an xz file whose header asks for a window of 2**``bits`` bytes (xz-file-format 1.2.0, section 5.3.1)."""
    packed = bytearray(lzma.compress(b"# tracer: nop\n" * 1000, lzma.FORMAT_XZ, filters=[
        {"id": lzma.FILTER_LZMA2, "preset": 1}]))
    size = 4 * (packed[12] + 1)
    at = packed.index(b"\x21\x01", 12, 12 + size) + 2
    packed[at] = 2 * (bits - 12)
    packed[12 + size - 4:12 + size] = zlib.crc32(packed[12:12 + size - 4]).to_bytes(4, "little")
    return bytes(packed)


def test_windows_beyond_the_usual_levels_are_refused(tmp_path: Path) -> None:
    assert open_of(tmp_path, xz_of_a_window(26)).startswith(b"# tracer: nop\n")
    for bits in (27, 30, 31):
        with pytest.raises(DAMAGE, match="Memory usage limit"):
            open_of(tmp_path, xz_of_a_window(bits))
        with pytest.raises(BadInput):
            import_source(tmp_path / "a", tmp_path / "r", overrides=FACTS)


def open_of(tmp_path: Path, data: bytes) -> bytes:
    path = tmp_path / "a"
    path.write_bytes(data)
    with open_stream(path) as stream:
        return stream.read()
