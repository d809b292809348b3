# SPDX-License-Identifier: GPL-2.0-or-later
"""Thrift's compact protocol: what was written is read, and no bytes keep a reader busy."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.thrift import struct

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "traces" / "samples"
_KINDS = {int: 6, bytes: 8, list: 9, dict: 12}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else -value * 2 - 1)


def written(value: Any) -> bytes:
    """A value as the protocol has it; of lists, those of numbers."""
    if isinstance(value, int):
        return zigzag(value)
    if isinstance(value, bytes):
        return varint(len(value)) + value
    if isinstance(value, list):
        head = bytes([len(value) << 4 | 6]) if len(value) < 15 else b"\xf6" + varint(len(value))
        return head + b"".join(map(zigzag, value))
    out, last = b"", 0
    for number, item in sorted(value.items()):
        kind = (1 if item else 2) if isinstance(item, bool) else _KINDS[type(item)]
        step = number - last
        out += bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + zigzag(number)
        out += b"" if isinstance(item, bool) else written(item)
        last = number
    return out + b"\0"


_NUMBERS = st.integers(-(1 << 62), 1 << 62)
_STRUCTS = st.recursive(
    st.dictionaries(st.integers(1, 300), _NUMBERS | st.binary(max_size=40) | st.booleans()
                    | st.lists(_NUMBERS, max_size=40), max_size=6),
    lambda inner: st.dictionaries(st.integers(1, 300), inner | _NUMBERS, max_size=4), max_leaves=6)


@given(_STRUCTS, st.binary(max_size=8))
def test_what_is_written_is_read(value: dict[int, Any], behind: bytes) -> None:
    data = written(value)
    assert struct(b"xyz" + data + behind, 3) == (value, 3 + len(data))
    with pytest.raises(IndexError):
        struct(data[:-1])


@given(st.binary(max_size=200))
def test_any_bytes_come_to_an_end(data: bytes) -> None:
    with contextlib.suppress(IndexError):
        assert struct(data)[1] <= len(data)


def test_a_list_is_no_longer_than_its_bytes() -> None:
    """Of 2^62 items, of each kind: doubles, too, have to be there.  A reader of its own, which may not come back."""
    program = """
from traces.thrift import struct
refused = 0
for kind in range(16):
    for what in (9, 10):
        try:
            struct(bytes([1 << 4 | what, 0xF0 | kind]) + b"\\xff" * 8 + b"\\x3f" + b"\\0" * 20)
        except IndexError:
            refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("32\n", 0), done.stderr


def test_lists_in_lists_have_an_end() -> None:
    with pytest.raises(IndexError):
        struct(b"\x19" + b"\x19" * 5000 + b"\x10\0\0")


def test_the_end_of_a_file_is_what_pyarrow_says() -> None:
    path = next(iter(sorted(SAMPLES.glob("*/events/00000.parquet"))))
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    meta, end = struct(data[-8 - length:-8])
    about = pq.read_metadata(path)
    assert (end, meta[3], len(meta[4])) == (length, about.num_rows, about.num_row_groups)
    assert [leaf[4].decode() for leaf in meta[2][1:]] == about.schema.names
