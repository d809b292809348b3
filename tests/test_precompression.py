# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages are compressed while a capture is imported, and what comes of it is what a replay would have computed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ringbuilder as rb

import replay.cli.import_ as import_verb
from model.crypto import compressor_for
from replay.cli import main
from replay.reference.precompression import CompressingBeside
from replay.reference.predictions import predict, results_of
from traces.pages import PageStoreWriter
from traces.recording import Recording, RecordingWriter

KERNEL, CONFIG = {"release": "7.3.0"}, {"compressor": "lz4", "chain_size": 8, "totalram_pages": 1000}


def stored(path: Path, pages: list[bytes | None], config: dict[str, Any] = CONFIG) -> tuple[Recording, CompressingBeside]:
    """A recording of distinct pages, compressed while it is written."""
    with CompressingBeside() as compressing, RecordingWriter(path) as writer:
        compressing.begin(KERNEL, config)
        writer.pages.watch = compressing.add
        for number, page in enumerate(pages):
            writer.pages.add(page, None if page is not None else f"{number:040x}")
        writer.close({"complete": True, "kernel": KERNEL, "config": config, "probes": {}, "losses": [],
                      "source": {}})
        recording = Recording(path)
        compressing.keep(recording)
    return recording, compressing


def some_pages(count: int) -> list[bytes]:
    rng = np.random.default_rng(count)
    return [bytes(rng.integers(0, 256, 64 + number % 3000, np.uint8)).ljust(4096, b"-") for number in range(count)]


@pytest.mark.parametrize("count", [1, 1024, 2500])
def test_what_is_kept_is_what_a_replay_would_compute(tmp_path: Path, count: int) -> None:
    pages: list[bytes | None] = [None if number % 7 == 3 else page for number, page in enumerate(some_pages(count))]
    recording, _ = stored(tmp_path / "rec", pages)
    lz4 = compressor_for("lz4", "mainline-7.3")
    kept = predict(recording, "lz4", {"lz4": lz4})
    assert (kept.computed, kept.from_cache) == (0, count)
    made = predict(recording, "lz4", {"lz4": lz4}, keep=False)
    assert made.computed == count
    for one, other in zip(kept.arrays("lz4") or (), made.arrays("lz4") or (), strict=True):
        assert one.dtype == other.dtype
        assert (one == other).all()
    for number, page in enumerate(pages[:50]):
        assert kept.result(number, "lz4") == (None if page is None else (0, len(lz4.compress(page).data)))


@pytest.mark.parametrize("config", [{}, {"compressor": "none-such"}, {"compressor": 7}])
def test_without_a_known_compressor_nothing_is_kept(tmp_path: Path, config: dict[str, Any]) -> None:
    with CompressingBeside() as compressing:
        compressing.begin(KERNEL, config)
        compressing.add([b"x" * 4096])
        assert not compressing._waiting
    with CompressingBeside() as compressing:
        compressing.begin({"release": "5.1.0"}, CONFIG)
        compressing.add([b"x" * 4096])
        assert not compressing._waiting


def test_results_of_a_store_that_has_other_pages_are_not_kept(tmp_path: Path) -> None:
    recording, _ = stored(tmp_path / "rec", list(some_pages(5)))
    for file in (tmp_path / "rec" / "cache").iterdir():
        file.unlink()
    with CompressingBeside() as compressing:
        compressing.begin(KERNEL, CONFIG)
        compressing.add(list(some_pages(4)))
        compressing.keep(recording)
    assert not list((tmp_path / "rec" / "cache").iterdir())


def test_whoever_stores_waits_for_slow_compressors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of pages do not pile up."""
    go, begun = threading.Event(), []

    def slowly(compressor: Any, has: np.ndarray, pages: np.ndarray) -> Any:
        begun.append(len(pages))
        assert go.wait(60)
        return results_of(compressor, has, pages)

    monkeypatch.setattr("replay.reference.precompression.results_of", slowly)
    page: list[bytes | None] = [b"y" * 4096]
    with CompressingBeside() as compressing:
        compressing.begin(KERNEL, CONFIG)
        room = 2 * compressing._threads
        for _ in range(room):
            compressing.add(page)
        done = threading.Event()
        more = threading.Thread(target=lambda: (compressing.add(page), done.set()))
        more.start()
        assert not done.wait(0.2)
        go.set()
        more.join(60)
        assert done.is_set()
    assert len(begun) == room + 1


def test_an_import_compresses_while_pages_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    flush, keep = PageStoreWriter._flush, import_verb._compress

    class Watching(CompressingBeside):
        def add(self, pages: list[bytes | None]) -> None:
            seen.append(f"compress {sum(page is not None for page in pages)}")
            super().add(pages)

    def flushing(self: PageStoreWriter) -> None:
        seen.append("store")
        flush(self)

    def keeping(path: str, compressing: CompressingBeside) -> tuple[list[str], str]:
        seen.append("recording is there")
        return keep(path, compressing)

    monkeypatch.setattr(import_verb, "CompressingBeside", Watching)
    monkeypatch.setattr(import_verb, "_compress", keeping)
    monkeypatch.setattr(PageStoreWriter, "_flush", flushing)
    assert main(["import", str(rb.write_capture(tmp_path / "run")), "-o", str(tmp_path / "rec")]) == 0
    assert seen[0] == "store"
    assert seen[1].startswith("compress ")
    assert seen[-1] == "recording is there"


def test_an_import_that_fails_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    (tmp_path / "nothing").mkdir()
    assert main(["import", str(tmp_path / "nothing"), "-o", str(tmp_path / "rec")]) == 2
    assert set(threading.enumerate()) == before
    assert not (tmp_path / "rec").exists()
