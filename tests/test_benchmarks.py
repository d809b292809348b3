# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark of compressors measures what it says it does; how fast they are is no matter of a test."""

from __future__ import annotations

import zlib

import pytest

from model.crypto import known
from replay.benchmarks import compressors
from replay.benchmarks.compressors import NAMES, libraries, speed

PAGES = [page for _, page in known.pages()]


@pytest.mark.parametrize("name", NAMES)
def test_every_compressor_is_measured(name: str) -> None:
    found = speed(name, PAGES, runs=1)
    assert found.name == name
    assert found.own > 0
    assert bool(found.library) == (found.theirs > 0)


def test_the_fastest_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[bytes] = []

    def slow(page: bytes) -> None:
        for level in range(1, 10):
            zlib.compress(page, level)

    monkeypatch.setattr(compressors, "libraries", lambda name: [("slow", slow), ("fast", handed.append)])
    found = speed("lz4", PAGES, runs=2)
    assert found.library == "fast"
    assert handed == [PAGES[0], *PAGES, *PAGES]


def test_libraries_that_are_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressors, "_module", lambda name: None)
    assert [label for label, _ in libraries("deflate")] == [f"zlib {zlib.ZLIB_RUNTIME_VERSION} level 6"]
    assert list(libraries("lzo")) == list(libraries("lz4")) == list(libraries("842")) == []


@pytest.mark.parametrize("name", NAMES)
def test_libraries_write_something(name: str) -> None:
    for label, compress in libraries(name):
        assert 0 < len(compress(PAGES[2])) < 4096, label
