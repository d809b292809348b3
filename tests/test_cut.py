# SPDX-License-Identifier: GPL-2.0-or-later
"""Cuts: any stretch of a recording replays on its own, with the state it needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import replay
import traces
from replay.reference.checks import Tally
from replay.tools.cut import cut
from replay.tools.synthetic import cycle, write_recording
from replay.verdict.setup import open_engine
from traces.errors import BadInput


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> traces.Recording:
    path = tmp_path_factory.mktemp("synthetic") / "rec"
    write_recording(str(path), cycle(8000, seed=3))
    return traces.open_recording(path)


@pytest.fixture(scope="module")
def quiet(synthetic: traces.Recording) -> np.ndarray:
    """The events before which no task is inside an operation."""
    engine, _, _ = open_engine(synthetic, None, Tally(), pages=False)
    return np.array([number for number in engine.each() if engine.quiescent()])


@example(start=0.5, length=0.03125)  # inside a compaction
@given(start=st.floats(0, 0.95), length=st.floats(0.02, 1.0))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cut_passes_and_two_halves_make_the_whole(synthetic: traces.Recording, quiet: np.ndarray,
                                                      tmp_path_factory: pytest.TempPathFactory, start: float,
                                                      length: float) -> None:
    total = len(synthetic)
    first = int(start * total)
    last = min(total, first + max(200, int(length * total)))
    out = tmp_path_factory.mktemp("cut") / "rec"
    if not ((quiet >= first) & (quiet < last)).any():
        with pytest.raises(BadInput, match="no operation ends in this range"):
            cut(synthetic, str(out), first, last)
        return
    done = cut(synthetic, str(out), first, last)
    assert done.start == quiet[quiet >= first][0]
    recording = traces.open_recording(out)
    assert len(recording) == done.stop - done.start
    assert done.start >= first
    assert done.stop >= min(last, total)
    whole = synthetic.frame(["ts", "event", "handle"]).iloc[done.start:done.stop].reset_index(drop=True)
    part = recording.frame(["ts", "event", "handle"])
    assert (part.ts == whole.ts).all()
    assert (part.event.astype(str) == whole.event.astype(str)).all()
    assert (part.handle == whole.handle).all()
    assert replay.replay(recording).verdict == "PASS"


def test_a_cut_of_a_sample_keeps_its_pages_counters_and_truth(samples: dict[str, Path], tmp_path: Path) -> None:
    recording = traces.open_recording(samples["7.3-lz4-4k"])
    frame = recording.frame(["event"])
    counters = np.flatnonzero(frame.event == "counters")
    done = cut(recording, str(tmp_path / "rec"), int(counters[0]) - 3000, int(counters[1]) + 10)
    part = traces.open_recording(tmp_path / "rec")
    result = replay.replay(part)
    assert result.verdict == "PASS"
    compared = {c.id: c.compared for c in result.checks}
    assert compared["counter.zswap.stored_pages"] == 2
    calls = (part.frame(["event"]).event == "crypto_acomp_compress").sum()
    assert compared["store.length"] == calls > 0
    assert compared["load.content"] > calls, "the truth of the phase, and every object written"
    assert part.pages is not None
    assert part.manifest["pages"]["with_bytes"] <= calls < len(part.pages.sha1)
    assert done.events == len(part)
    # Pages that are not in it have no digest without a key.
    _, has = part.pages.all_pages()
    assert {len(digest) for digest, there in zip(part.pages.sha1, has, strict=True) if not there} == {64}
    truth = part.table("truth")
    assert truth is not None
    here = {digest for digest, there in zip(part.pages.sha1, has, strict=True) if there}
    assert {digest for digest in truth["sha1"].dropna() if len(digest) == 40} <= here
    assert any(digest in set(truth["sha1"]) for digest in part.pages.sha1 if len(digest) == 64), "equal pages have equal names"


def test_a_cut_can_be_cut_again(samples: dict[str, Path], tmp_path: Path) -> None:
    once = traces.open_recording(samples["6.12-zstd-4k"])
    done = cut(once, str(tmp_path / "rec"), 5000, 9000)
    assert replay.replay(traces.open_recording(tmp_path / "rec")).verdict == "PASS"
    assert done.events == pytest.approx(4000, abs=100)


@pytest.mark.parametrize(("start", "stop"), [(-1, 10), (10, 10), (20, 10), (10**9, 10**9 + 1)])
def test_ranges_that_are_none(synthetic: traces.Recording, tmp_path: Path, start: int, stop: int) -> None:
    with pytest.raises(BadInput, match="is not a range of its"):
        cut(synthetic, str(tmp_path / "rec"), start, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_behind_a_divergence_is_refused(samples: dict[str, Path], tmp_path: Path) -> None:
    recording = traces.open_recording(samples["7.3-zstd-64k"])
    with pytest.raises(BadInput, match="the replay diverges here"):
        cut(recording, str(tmp_path / "rec"), 2000, 4000, revision="mainline-6.12")
    assert list(tmp_path.iterdir()) == []


STATE_DEFECTS = {
    "another version": lambda state: state.update(version=99),
    "no pools": lambda state: state.pop("pools"),
    "entry of another length": lambda state: state["entries"][0].__setitem__(1, 5000),
    "object index past the zspage": lambda state: state["pools"][0]["objects"][0].__setitem__(3, 10**6),
    "objects in use that are not there": lambda state: state["pools"][0]["zspages"][0].__setitem__(1, 77),
    "pages that no zspage has": lambda state: state["pools"][0].update(pages_allocated=1),
    "a free list of another class": lambda state: state["pools"][0]["zspages"][0][3].append(1),
    "entry listed elsewhere": lambda state: state["lru"][0].__setitem__(0, 5),
    "text for a number": lambda state: state["counters"].update(stored_pages="many"),
    "a counter nobody has": lambda state: state["counters"].update(mthp_zswpout=3),
    "a folio of too many pages": lambda state: state["mthp_zswpout"].append([11, 1]),
    "an object counted from the end": lambda state: state["pools"][0]["objects"][0].__setitem__(3, -1),
    "a zspage counted from the end": lambda state: state["pools"][0]["objects"][0].__setitem__(2, -1),
    "an entry's object counted from the end": lambda state: state["entries"][0].__setitem__(2, -1),
    "an entry's pool counted from the end": lambda state: state["entries"][0].__setitem__(8, -1),
    "an entry listed by its number from the end": lambda state: state["lru"][0][2].__setitem__(0, -1),
    "two entries at one place": lambda state: state["entries"][0].__setitem__(0, state["entries"][1][0]),
    "two entries with one object": lambda state: state["entries"].append([77, *state["entries"][0][1:]]),
    "two objects at one place": lambda state: state["pools"][0]["objects"].append(state["pools"][0]["objects"][0]),
    "a zspage on two lists": lambda state: _lists(state)[0][2].append(_lists(state)[0][2][0]),
    "a zspage on no list": lambda state: _lists(state)[0][2].pop(),
    "a zspage on another group's list": lambda state: _lists(state)[0][1][5].append(_lists(state)[0][2].pop()),
    "a zspage on another class's list": lambda state: _lists(state)[1][2].append(_lists(state)[0][2].pop()),
    "a free list that ends early": lambda state: _with_room(state)[3].__setitem__(_with_room(state)[2], 0xffffffff),
    "a free list that goes round": lambda state: _with_room(state)[3].__setitem__(
        _with_room(state)[2], _with_room(state)[2]),
    "a free list from the end": lambda state: _with_room(state).__setitem__(2, -1),
    "a distance that is a text": lambda state: state.update(entry_to_lru="far"),
}


def _lists(state: dict[str, Any]) -> list[tuple[int, list[list[int]], list[int]]]:
    """(class, its fullness lists, the first of them with a zspage) of the classes that have one."""
    return [(cls[0], cls[4], next(filter(None, cls[4]))) for cls in state["pools"][0]["classes"] if any(cls[4])]


def _with_room(state: dict[str, Any]) -> list[Any]:
    """The first zspage with two free places and more."""
    return next(row for row in state["pools"][0]["zspages"] if row[1] + 2 <= len(row[3]))


@pytest.mark.parametrize("defect", sorted(STATE_DEFECTS))
def test_a_state_that_does_not_hold_together_is_refused(samples: dict[str, Path], tmp_path: Path, defect: str) -> None:
    path = tmp_path / "rec"
    shutil.copytree(samples["7.3-zstd-64k"], path, ignore=shutil.ignore_patterns("cache"))
    state = json.loads((path / "state.json").read_text())
    STATE_DEFECTS[defect](state)
    (path / "state.json").write_text(json.dumps(state))
    for engine in ("reference", "fast"):
        with pytest.raises(BadInput, match=r"state\.json(: (the state is inconsistent|state version|does not say pools)|, key .*;)"):
            replay.replay(traces.open_recording(path, verify=False), engine=engine)
