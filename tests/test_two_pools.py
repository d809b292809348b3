# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays of boxes with two pools: after a switch of compressors the old one lives on, and has its own shrinker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replay
import traces
from model.crypto import compressor_for
from model.crypto import knownanswers as known
from model.effects import Effect
from replay.tools.synthetic import ImaginaryKernel, config
from traces import schema
from traces.recording import RecordingWriter

_POOL = schema.column_names().index("pool")


class _Kernel(ImaginaryKernel):
    """Writes zs_compact() down too, whose probe some kernels have no function of its own for."""

    def _write(self, effect: Effect) -> None:
        if effect[0] == "zs_compact":
            self._row("zs_compact", pool=self._pool(self._compacted))
        elif effect[0] == "zs_compact_ret":
            self._row("zs_compact_ret", ret=int(effect[1]))
        else:
            super()._write(effect)


def _write(path: Path, kernel: ImaginaryKernel, texts: list[tuple[int, str]], without: frozenset[str],
           change: Any = None) -> replay.Result:
    block = kernel.block()
    if change is not None:
        change(block)
    keep = ~np.isin(block[3], [schema.CODE[name] for name in without])
    moved = np.cumsum(keep) - 1
    made = config(kernel.revision)
    made["probes"] |= {name: {"columns": [], "function": name} for name in ("zs_compact", "zs_compact_ret")}
    made["probes"]["zs_compact"]["columns"] = ["pool"]
    made["probes"] = {name: probe for name, probe in made["probes"].items() if name not in without}
    with RecordingWriter(path) as writer:
        writer.write_rows(block[:, keep], [(int(moved[row]), text) for row, text in texts])
        writer.close(made)
    return replay.replay(traces.open_recording(path))


def _switched() -> tuple[_Kernel, list[tuple[int, str]]]:
    """A box with holes in the zspages of two pools, of other shapes in each."""
    kernel = _Kernel("mainline-6.12", lambda swpent: 1500 if swpent < 200 else 2100)
    for slot in range(100):
        kernel.store(slot)
    texts = [kernel.mark("param compressor=zstd")]
    kernel.model.set_param("compressor", "zstd")
    for slot in range(200, 300):
        kernel.store(slot)
    for slot in (*range(0, 90, 3), *range(200, 290, 2)):
        kernel.invalidate(slot)
    return kernel, texts


_CLASS_EVENTS = frozenset({"__zs_compact", "__zs_compact_ret"})
_POOL_EVENTS = frozenset({"zs_compact", "zs_compact_ret"})


def _untold(block: np.ndarray) -> None:
    """The column that recordings of before had not."""
    block[_POOL, block[3] == schema.CODE["zs_shrinker_scan"]] = 0


@pytest.mark.parametrize(("without", "change"), [
    (_CLASS_EVENTS | _POOL_EVENTS, None), (_CLASS_EVENTS, _untold), (_POOL_EVENTS, _untold),
    (_CLASS_EVENTS | _POOL_EVENTS, _untold)], ids=["scan", "zs_compact", "class", "object"])
@pytest.mark.parametrize("first", [0, 1], ids=["current", "old"])
def test_the_shrinker_of_either_pool_compacts(tmp_path: Path, first: int, without: frozenset[str],
                                              change: Any) -> None:
    # Linux 6.12 has __zs_compact() inlined: there only the pool itself, or an object that moves, shows it.
    kernel, texts = _switched()
    assert kernel.compact(first) > 0
    assert kernel.compact(1 - first) > 0
    for slot in range(300):
        kernel.invalidate(slot)
    result = _write(tmp_path / "rec", kernel, texts, without, change)
    assert (result.verdict, result.unexplained) == ("PASS", 0), result.divergences


def test_a_pool_that_is_not_there_any_more_is_compacted(tmp_path: Path) -> None:
    # Its zs_pool is destroyed by a worker some time after its last entry went; its shrinker is there until then.
    kernel, texts = _switched()
    for slot in range(100):
        kernel.invalidate(slot)
    old = kernel.model.pools[1]
    assert old.dying
    kernel.store(400)  # reads the totals: the old pool is listed no more
    assert old not in kernel.model.pools
    kernel._compacted = old.zs_pool
    assert kernel.do(old.zs_pool.zs_shrinker_scan()) == -1
    assert kernel.compact(0) > 0
    result = _write(tmp_path / "rec", kernel, texts, _CLASS_EVENTS)
    assert (result.verdict, result.unexplained) == ("PASS", 0), result.divergences


def test_a_compaction_of_the_wrong_pool_diverges(tmp_path: Path) -> None:
    kernel, texts = _switched()
    current, old = (kernel._pool(pool.zs_pool) for pool in kernel.model.pools)
    assert kernel.compact(0) > 0

    def swap(block: np.ndarray) -> None:
        pools = block[_POOL]
        pools[(block[3] == schema.CODE["zs_compact"]) & (pools == current - (1 << 64))] = old - (1 << 64)

    result = _write(tmp_path / "rec", kernel, texts, _CLASS_EVENTS, swap)
    assert result.verdict == "FAIL"
    assert (result.divergences[0].check, result.divergences[0].what) == ("zsmalloc.compact", "pool")


class _SwitchedInAStore(_Kernel):
    """Another task changes the compressor while a store waits for the one it has."""

    def __init__(self, revision: str, at: int) -> None:
        pages = [known.noise(1), *(bytes([number]) * 4096 for number in range(1, 9))]
        super().__init__(revision, pages=pages, compressor=compressor_for("lz4", "mainline-7.3"))
        zstd = compressor_for("zstd", "mainline-7.3")
        self._by_name = {"lz4": self._results, "zstd": [zstd.compress(page) for page in pages]}
        self.texts: list[tuple[int, str]] = []
        self._at = at

    def _answer(self, effect: Effect) -> Any:
        self._results = self._by_name[self._store_pool.tfm_name]
        if effect[0] == "crypto_acomp_compress_ret" and self._folio.swpent + self._index == self._at:
            self._at = -1
            self.pid += 1
            self.texts.append(self.mark("param compressor=zstd"))
            self.pid -= 1
            self.model.set_param("compressor", "zstd")
        return super()._answer(effect)


@pytest.mark.parametrize(("order", "at"), [(0, 3), (2, 4), (2, 7)])
def test_a_store_keeps_its_pool_though_another_becomes_current(tmp_path: Path, order: int, at: int) -> None:
    # zswap_pool_current_get() is called once in a store: its pages go to that pool, compressed by its compressor.
    kernel = _SwitchedInAStore("mainline-7.3", at)
    for slot in range(0, 8, 1 << order):
        kernel.store(slot, order)
    first, second = kernel.model.pools[1], kernel.model.pools[0]
    last_page = (at >> order << order) + (1 << order)
    assert (first.entries, second.entries) == (last_page, 8 - last_page)
    with RecordingWriter(tmp_path / "rec") as writer:
        writer.write_rows(kernel.block(), kernel.texts)
        for page in kernel.handed:
            writer.pages.add(kernel.pages[page])
        writer.close(config())
    result = replay.replay(traces.open_recording(tmp_path / "rec"))
    assert (result.verdict, result.unexplained) == ("PASS", 0), result.divergences
    assert next(c.compared for c in result.checks if c.id == "store.length") == 8
