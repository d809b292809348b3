# SPDX-License-Identifier: GPL-2.0-or-later
"""fake_iaa's encoder, built for this machine: what it writes is deflate, within what the hardware's format allows."""

from __future__ import annotations

import ctypes
import errno
import json
import random
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.crypto.deflate_iaa import DeflateIaa
from traces.lab import kbuild

_AROUND = r"""
#include <errno.h>
#include <stdint.h>
#include <string.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32;
#include "fixed_deflate.h"
int compress(const u8 *src, unsigned int n, u8 *dst, unsigned int size)
{
    make_tables();
    return encode(src, n, dst, size);
}
"""

Compress = Callable[[bytes, int], "bytes | int"]


@pytest.fixture(scope="module")
def compress(tmp_path_factory: pytest.TempPathFactory) -> Compress:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed (apt install gcc)")
    place = tmp_path_factory.mktemp("encoder")
    (place / "around.c").write_text(_AROUND)
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover",
                    "-shared", "-fPIC", f"-I{kbuild._MODULES[0]}", "-o", str(place / "around.so"), str(place / "around.c")],
                   check=True)
    library = ctypes.CDLL(str(place / "around.so"))

    def call(page: bytes, size: int) -> bytes | int:
        # Nothing may be written past the end.
        out = ctypes.create_string_buffer(b"\xaa" * (size + 16), size + 16)
        length = library.compress(page, len(page), out, size)
        assert out.raw[max(length, 0) if length >= 0 else size:][-16:] == b"\xaa" * 16
        return out.raw[:length] if length >= 0 else length

    return call


def _pages() -> list[bytes]:
    drawn = random.Random(1)
    texts = [Path(json.__file__).read_bytes() * 3, Path(sys.executable).read_bytes()]
    pages = [bytes(4096), bytes(range(256)) * 16, b"ab" * 2048, b"a" * 4095 + b"b", drawn.randbytes(4096),
             drawn.randbytes(2048) * 2, b"".join(drawn.choice([b"kernel", b"zswap", b"page", b"\0\0"])
                                                      for _ in range(2000))[:4096],
             drawn.randbytes(8) + b"\xff" * 4080 + drawn.randbytes(8)]
    pages += [text[at:at + 4096] for text in texts for at in range(0, min(len(text), 40960) - 4095, 4096)]
    return pages


def test_whole_pages_within_the_format_s_bounds(compress: Compress) -> None:
    pages = _pages()
    low, high = DeflateIaa("7.2").bounds(np.frombuffer(b"".join(pages), np.uint8).reshape(-1, 4096))
    fitting = 0
    for page, least, most in zip(pages, low, high, strict=True):
        data = compress(page, 8192)
        assert isinstance(data, bytes)
        inflate = zlib.decompressobj(-12)
        assert inflate.decompress(data) == page
        assert inflate.eof
        assert least <= len(data) <= most
        assert data[0] & 7 == 3, "the last block, and of the fixed code"
        # As zswap has it: a page's room, and not a byte less than is needed.
        assert compress(page, 4096) == (data if len(data) <= 4096 else -errno.E2BIG)
        assert compress(page, len(data)) == data
        assert compress(page, len(data) - 1) == -errno.E2BIG
        fitting += len(data) <= 4096
    assert 4 <= fitting < len(pages), "pages of both kinds were tried"


@given(st.binary(min_size=1, max_size=300) | st.builds(lambda piece, times: (piece * times)[:4096],
                                                       st.binary(min_size=1, max_size=40), st.integers(1, 4096)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_comes_back(compress: Compress, text: bytes) -> None:
    data = compress(text, 8192)
    assert isinstance(data, bytes)
    assert zlib.decompress(data, -12) == text
