# SPDX-License-Identifier: GPL-2.0-or-later
"""What zswap sets in the folios that it gives back: a page that nothing holds any more is lost with a clean folio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replay
from model.crypto import compressor_for
from model.effects import Effect
from model.revisions import REVISIONS
from model.swap import PG_DIRTY, PG_RECLAIM, PG_UPTODATE
from replay.tools.synthetic import ImaginaryKernel, config
from replay.verdict.engineagreement import difference
from replay.verdict.result import Result
from tests.sweeping import LINES, imaginary, outcome
from tests.tampering import Tampered
from traces import schema
from traces.record.probes import FLAG_BITS
from traces.recording import RecordingWriter


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tampered]:
    folder = tmp_path_factory.mktemp("flags")
    return lambda line: imaginary(folder / f"{line}-{len(list(folder.iterdir()))}", line)


def rows_of(recording: Tampered, event: str) -> np.ndarray:
    return np.flatnonzero(recording.columns["event"] == schema.CODE[event])


def compared(result: Result, check: str) -> int:
    return next(each.compared for each in result.checks if each.id == check)


def failed(recording: Tampered) -> tuple[set[str], Result]:
    """Replay with both engines, which have to agree; returns the checks that differ."""
    result, different = outcome(recording)
    assert not different
    return {each.check for each in result.divergences}, result


@pytest.mark.parametrize("line", LINES)
def test_each_flag_is_looked_at(made: Callable[[str], Tampered], line: str) -> None:
    recording = made(line)
    loads = rows_of(recording, "zswap_load_ret")
    found = loads[recording.columns["word"][loads] != 0]
    written = rows_of(recording, "__swap_writepage")
    written = written[recording.columns["word"][written] != 0]
    assert len(found) >= 2
    assert len(written) >= 16
    checks, result = failed(recording)
    assert checks == set()
    assert (compared(result, "load.folio"), compared(result, "writeback.folio")) == (len(found), len(written))
    assert not any("folio" in each and "mark" in each for each in result.unseen)

    word = recording.columns["word"]
    word[found[1]] ^= PG_UPTODATE
    assert failed(recording)[0] == {"load.folio"}
    word[found[1]] ^= PG_UPTODATE
    word[written[3]] ^= PG_UPTODATE
    checks, result = failed(recording)
    assert checks == {"writeback.folio"}
    assert result.divergences[0].event == written[3]
    word[written[3]] ^= PG_UPTODATE
    # A page fault may take the mark from any of them; from all of them nothing does.
    word[written[1:]] &= ~np.uint32(PG_RECLAIM)
    assert failed(recording)[0] == set()
    word[written[0]] &= ~np.uint32(PG_RECLAIM)
    assert failed(recording)[0] == {"writeback.folio"}


@pytest.mark.parametrize("line", [line for line in LINES if line not in ("mainline-6.12", "mainline-6.18")])
def test_a_load_that_leaves_its_folio_clean(made: Callable[[str], Tampered], line: str) -> None:
    """zswap has let go of the page: the folio has to be written out again before it may be dropped."""
    recording = made(line)
    loads = rows_of(recording, "zswap_load_ret")
    first = int(loads[recording.columns["word"][loads] != 0][0])
    recording.columns["word"][first] ^= PG_DIRTY
    checks, result = failed(recording)
    assert checks == {"load.folio"}
    assert (result.divergences[0].event, result.divergences[0].recorded) == (first, PG_UPTODATE)
    # Not captured is not clean.
    recording.manifest["probes"]["zswap_load_ret"]["columns"].remove("word")
    recording.columns["word"][loads] = 0
    checks, result = failed(recording)
    assert (checks, compared(result, "load.folio")) == (set(), 0)
    assert any("zswap_load() marks" in each for each in result.unseen)


class _Kernel(ImaginaryKernel):
    """Writes what it did into a recording."""

    def __init__(self, revision: str) -> None:
        pages = [bytes([number]) * 4096 for number in range(1, 9)]
        super().__init__(revision, pages=pages, compressor=compressor_for("lz4", REVISIONS[revision].kernel_line))

    def recording(self, path: Path) -> Tampered:
        with RecordingWriter(str(path)) as writer:
            writer.write_rows(self.block(), [])
            for page in self.handed:
                writer.pages.add(self.pages[page])
            writer.close(config(self.revision))
        return Tampered(path)


class _Past(_Kernel):
    """Its loads go past the swap cache."""

    def _answer(self, effect: Effect) -> Any:
        return False if effect[0] == "?swapcache" else super()._answer(effect)


@pytest.mark.parametrize("line", ["mainline-6.12", "mainline-6.18"])
def test_before_7_0_a_folio_past_the_swap_cache_stays_clean(tmp_path: Path, line: str) -> None:
    """zswap keeps its copy then (swap_read_folio() with SWP_SYNCHRONOUS_IO)."""
    kernel = _Past(line)
    kernel.store(3)
    kernel.load(3)
    kernel.load(3)
    recording = kernel.recording(tmp_path / "rec")
    assert recording.columns["word"][rows_of(recording, "zswap_load_ret")].tolist() == [PG_UPTODATE] * 2
    checks, result = failed(recording)
    assert (checks, compared(result, "load.folio")) == (set(), 2)


class _Overtaken(_Kernel):
    """Before a load returns, another task writes the folio out that has just been unlocked."""

    def __init__(self, slot: int, dirty: bool) -> None:
        super().__init__("mainline-7.2")
        self.slot, self.dirty, self.once = slot, dirty, True

    def _write(self, effect: Effect) -> None:
        if effect[0] == "zswap_load_ret" and self.once:
            self.once = False
            self.pid, mine = 999, self.pid
            self.store(self.slot)
            self.pid = mine
            if not self.dirty:
                effect = (*effect[:3], effect[3] & ~PG_DIRTY)
        super()._write(effect)


@pytest.mark.parametrize(("slot", "dirty", "verdict"), [(3, False, "PASS"), (3, True, "PASS"), (4, False, "FAIL")])
def test_whoever_writes_the_folio_out_before_the_load_returns_cleans_it(tmp_path: Path, slot: int, dirty: bool,
                                                                        verdict: str) -> None:
    kernel = _Overtaken(slot, dirty)
    for at in range(8):
        kernel.store(at)
    kernel.invalidate(4)
    kernel.load(3)
    recording = kernel.recording(tmp_path / "rec")
    result = replay.replay(recording, engine="reference")
    assert {each.check for each in result.divergences} == (set() if verdict == "PASS" else {"load.folio"})
    assert not difference(result, replay.replay(recording, engine="fast"))


def test_the_recorder_and_the_model_mean_the_same_bits() -> None:
    """The recorder runs without the model, and looks the names up in the kernel's BTF."""
    named = {"PG_uptodate": PG_UPTODATE, "PG_dirty": PG_DIRTY, "PG_reclaim": PG_RECLAIM}
    assert {name: 1 << FLAG_BITS[name] for name in named} == named
