# SPDX-License-Identifier: GPL-2.0-or-later
"""Both engines say the same of everything: samples, changed samples, whatever a model does, handed over anywhere."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replay
import traces
from model.effects import Steps
from model.revisions import MAINLINE, REVISIONS
from model.revisions.mainline_7 import Mainline72, Mainline73
from model.zswap import Zswap, ZswapEntry
from replay.fast import layout as L
from replay.fast.eligible import compiled_base
from replay.fast.memory import Heap
from replay.fast.runner import FastReplay
from replay.fast.step import SETTLE
from replay.reference.checks import Tally
from replay.reference.engine import Engine
from replay.reference.modelstate import dump_state
from replay.tools.synthetic import ImaginaryKernel, cycle, write_recording
from replay.verdict.engineagreement import difference
from replay.verdict.result import Result
from replay.verdict.setup import open_engine
from tests.tampering import Tampered, tamper
from traces import schema
from traces.recording import Recording

SAMPLES = ["6.12-zstd-4k", "6.18-zstd-4k", "7.0-lz4-64k", "7.2-lz4-edge", "7.2-lz4-numa2", "7.2-zstd-4k", "7.3-lz4-4k",
           "7.3-lz4-limits", "7.3-zstd-64k", "7.3-zstd-smp2"]


def both(recording: Recording, revision: str | type[Zswap] | None = None, **options: Any) -> Result:
    """Replay with both engines, demand one result, and return the compiled engine's."""
    results = [replay.replay(recording, revision, engine=engine, **options) for engine in ("reference", "fast")]
    assert difference(*results) == ""
    return results[1]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("pages", [True, False])
def test_samples(samples: dict[str, Path], name: str, pages: bool) -> None:
    result = both(traces.open_recording(samples[name]), pages=pages)
    assert result.verdict == "PASS"
    assert result.engine == "fast"
    # A snapshot whose counters lag is the reference's to judge; nothing else in the samples is.
    assert result.compiled == result.events or (name == "7.2-zstd-4k" and result.compiled > result.events // 2)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("revision", ["mainline-6.12", "mainline-6.18", "mainline-7.0", "mainline-7.2", "mainline-7.3"])
@pytest.mark.parametrize("keep_going", [False, True])
def test_samples_against_other_kernels_revisions(samples: dict[str, Path], name: str, revision: str,
                                                 keep_going: bool) -> None:
    both(traces.open_recording(samples[name]), revision, pages=False, keep_going=keep_going)


@pytest.mark.parametrize(("name", "changes"), [("7.3-lz4-4k", 20), ("6.12-zstd-4k", 15), ("7.3-zstd-64k", 15),
                                               ("7.3-lz4-limits", 20), ("7.3-zstd-smp2", 25), ("7.2-lz4-edge", 60),
                                               ("7.2-lz4-numa2", 60)])
@pytest.mark.parametrize("keep_going", [False, True])
def test_changed_samples(samples: dict[str, Path], name: str, changes: int, keep_going: bool) -> None:
    """A field, an event, an order, a counter, a task changed: the same divergences, wherever they come to light."""
    recording = Tampered(samples[name])
    chance = random.Random(f"{name} {keep_going}")
    differing = 0
    for _ in range(changes):
        change = tamper(recording, chance)
        try:
            differing += both(recording, pages=False, keep_going=keep_going).verdict != "PASS"
        except AssertionError as problem:
            raise AssertionError(f"{change.kind} at {change.event}: {change.what}") from problem
        change.undo()
    assert differing > changes // 3
    assert both(recording, pages=False).verdict == "PASS"


def test_lost_events(samples: dict[str, Path]) -> None:
    """Both end at the same place, and what compiled code had confirmed until then is reported."""
    recording = Tampered(samples["7.3-lz4-4k"])
    at = 9000
    for name, value in (("event", schema.CODE["lost_events"]), ("pid", 0)):
        recording.columns[name] = recording.columns[name].copy()
        recording.columns[name][at] = value
    result = both(recording, pages=False)
    assert (result.verdict, result.events, result.compiled) == ("UNDECIDED", at + 1, at + 1)
    assert result.reasons == [f"events were lost before event {at} of {len(recording)}: nothing after it was compared"]


def test_what_cannot_be_told_at_the_end_is_the_reference_s(samples: dict[str, Path],
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations that are advanced at the end are the reference's where compiled code cannot decide how."""
    monkeypatch.setattr(FastReplay, "_asked", lambda self, what: what != SETTLE)
    result = both(traces.open_recording(samples["7.3-lz4-4k"]), pages=False)
    assert result.verdict == "PASS"
    assert 0 < result.compiled < result.events


def _leaves(plain: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in plain data that contains nothing itself."""
    inner = list(plain.items()) if isinstance(plain, dict) else list(enumerate(plain))
    return [leaf for key, value in inner
            for leaf in (_leaves(value) if isinstance(value, dict | list) else [(plain, key)])]


@pytest.mark.parametrize("name", ["6.12-zstd-4k", "7.3-lz4-limits", "7.3-zstd-64k"])
def test_changed_states(samples: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value of a start state changed: both refuse it, or both find the same; nothing is looked up outside the heap."""
    recording = traces.open_recording(samples[name])
    state = recording.document("state")
    assert state is not None
    documents = recording.document
    monkeypatch.setattr(type(recording), "document",
                        lambda _, kind: state if kind == "state" else documents(kind))
    chance = random.Random(name)
    # A part first, then a place in it: else they would nearly all be links of free lists.
    parts = [_leaves(part) for part in (*state.values(), *state["pools"][0].values()) if isinstance(part, dict | list)]
    parts = [part for part in parts if part]
    refused = differing = 0
    for _ in range(30):
        container, key = chance.choice(chance.choice(parts))
        old = container[key]
        others = [0, 1, -1, 1 << 31, 1 << 63, 1 << 70, None, "many"]
        if isinstance(old, int):
            others += [old + 1, old - 1, -old, old ^ 1 << 40]
        container[key] = chance.choice(others)
        said = []
        for engine in ("reference", "fast"):
            try:
                said.append(replay.replay(recording, engine=engine, pages=False))
            except traces.BadInput as problem:
                said.append(str(problem))
        if isinstance(said[0], Result) and isinstance(said[1], Result):
            assert difference(*said) == "", (container, key, old)
            differing += said[0].verdict != "PASS"
        else:
            assert said[0] == said[1], (container, key, old)
            refused += 1
        container[key] = old
    assert refused > 2
    assert differing
    assert both(recording, pages=False).verdict == "PASS"


@pytest.mark.parametrize("name", ["6.12-zstd-4k", "7.3-lz4-limits", "7.3-zstd-64k", "7.3-zstd-smp2"])
def test_handed_over_anywhere(samples: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference continues from the compiled engine's state wherever that is, hands back, and it ends the same."""
    recording = traces.open_recording(samples[name])
    chance = random.Random(name)
    compiled = FastReplay._compiled

    def stops(self: FastReplay, start: int, progress: Any = None, stop: int | None = None) -> int | None:
        if stop is not None:
            return compiled(self, start, progress, stop)
        at = chance.randrange(start + 1, start + 8000)
        if at >= len(recording):
            return compiled(self, start, progress, stop)
        odd = compiled(self, start, None, at)
        return at if odd is None else odd

    monkeypatch.setattr(FastReplay, "_compiled", stops)
    monkeypatch.setattr("replay.fast.runner._PAST", 1)
    for _ in range(6):
        engine, _, _ = open_engine(recording, None, Tally(), pages=False)
        fast = FastReplay(engine)
        fast.run()
        engine.finish()
        other, _, _ = open_engine(recording, None, Tally(), pages=False)
        other.run()
        other.finish()
        assert fast.stretches
        assert engine.state.tally.compared == other.state.tally.compared
        assert not engine.state.tally.different
        assert engine.explained == other.explained
        assert (engine.zsmalloc.sg_entries, engine.totals.preempted_reads, engine.lru.reordered, engine.state.last_total) == \
            (other.zsmalloc.sg_entries, other.totals.preempted_reads, other.lru.reordered, other.state.last_total)


@pytest.mark.parametrize("name", ["6.12-zstd-4k", "7.3-lz4-4k", "7.3-lz4-limits", "7.3-zstd-64k"])
def test_states_are_equal_on_the_way(samples: dict[str, Path], name: str) -> None:
    """Effect by effect: at many moments the tables hold exactly what the model holds."""
    recording = traces.open_recording(samples[name])
    reference, _, _ = open_engine(recording, None, Tally(), pages=False)
    compared, last = 0, 0
    for number in reference.each():
        if number < last + 700 or not _standing_still(reference):
            continue
        last = number
        engine, _, _ = open_engine(recording, None, Tally(), pages=False)
        fast = FastReplay(engine)
        assert fast._adopt(0)
        if fast._compiled(0, stop=number) is not None:
            continue
        assert fast._memory is not None
        assert _plain(fast._memory.dump(engine)) == _plain(dump_state(reference))
        compared += 1
    assert compared > 1


def _standing_still(engine: Engine) -> bool:
    # Operations that only have to count would do so in dump_state(), and not in the tables.
    return not any(engine.state.stacks.values()) and engine.state.snapshots.window is None


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A state with nothing left to order but what order decides."""
    pool = state["pools"][0]
    zspages, objects, entries = pool["zspages"], pool["objects"], state["entries"]
    named = [zspage[5] for zspage in zspages]
    handles = [obj[0] for obj in objects]
    return {
        **{key: state[key] for key in ("params", "counters", "root_memcg", "lru_address", "entry_to_lru", "phase")},
        "mthp": [list(pair) for pair in state["mthp_zswpout"]], "memcgs": sorted(map(list, state["memcgs"])),
        "memcg_of": sorted((str(a), b) for a, b in state["memcg_of"]),
        "pages": (pool["pages_allocated"], pool["pages_compacted"], pool["entries"], pool["address"]),
        "zspages": sorted(map(repr, zspages)),
        "objects": sorted((obj[0], obj[1], named[obj[2]], obj[3]) for obj in objects),
        "classes": {cls[0]: [*cls[1:4], [[named[zspage] for zspage in listed] for listed in cls[4]]]
                    for cls in pool["classes"]},
        "entries": sorted((e[0], e[1], handles[e[2]], e[3], tuple(e[4]), e[5], e[6], e[7]) for e in entries),
        "lru": {(nid, memcg): [entries[number][0] for number in listed] for nid, memcg, listed in state["lru"]
                if listed},
    }


@pytest.fixture(scope="module")
def block() -> np.ndarray:
    return cycle(12_000)


def test_a_large_recording_grows_the_heap_and_the_default_is_compiled(tmp_path: Path, block: np.ndarray) -> None:
    kernel = ImaginaryKernel("mainline-7.3")
    for slot in range(24_000):
        kernel.store(slot)
    write_recording(str(tmp_path / "rec"), kernel.block())
    recording = traces.open_recording(tmp_path / "rec")
    assert len(recording) > replay.verdict.run.FAST_PAYS
    result = both(recording)
    assert (result.verdict, result.compiled) == ("PASS", len(recording))
    assert replay.replay(recording).engine == "fast"
    write_recording(str(tmp_path / "short"), block)
    assert replay.replay(traces.open_recording(tmp_path / "short")).engine == "reference"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(MAINLINE)),
       st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400), st.integers(0, 3)), min_size=5, max_size=120),
       st.integers(1, 4200), st.booleans())
def test_whatever_a_model_does(tmp_path_factory: pytest.TempPathFactory, revision: str,
                               steps: list[tuple[int, int, int]], spread: int, small: bool) -> None:
    """Stores of any length and order, over a full pool or not, loads, frees and compactions by several tasks."""
    kernel = ImaginaryKernel(revision, length=lambda swpent: swpent * spread * 7919 % 4200 + 1,
                             totalram_pages=400 if small else 1 << 20)
    for what, slot, order in steps:
        kernel.pid = 100 + slot % 3
        if what < 5:
            if what < 2 and order and revision == "mainline-6.12":
                # It refuses the folio and leaves what its slots held: whoever reads them later gets an old page.  A
                # swap layer frees the slots that it gives to a large folio.
                for used in range(slot << order, (slot << order) + (1 << order)):
                    kernel.invalidate(used)
            kernel.store(slot << order, order if what < 2 else 0)
        elif what < 7:
            kernel.load(slot)
        elif what < 9:
            kernel.invalidate(slot)
        else:
            kernel.compact()
    path = tmp_path_factory.mktemp("fast") / "rec"
    write_recording(str(path), kernel.block(), revision=revision)
    recording = traces.open_recording(path)
    if small:
        recording.manifest["config"]["totalram_pages"] = 400
    result = both(recording)
    assert result.verdict == "PASS", result.divergences
    assert result.compiled == len(recording)


class OwnLimit(Mainline73):
    """Another way to decide about the pool limit."""

    def zswap_check_limits(self) -> Steps[bool]:
        yield from self._read_totals()
        return False


class OnlyData(Mainline72):
    """No step of its own."""

    mirrors = "a kernel that looks at 32 entries"
    SHRINK_BUDGET = 32


def test_a_revision_with_a_step_of_its_own_is_the_reference_s(samples: dict[str, Path]) -> None:
    recording = traces.open_recording(samples["7.3-lz4-4k"])
    result = both(recording, OwnLimit)
    assert result.engine == "reference"
    assert "OwnLimit has a step of its own (OwnLimit.zswap_check_limits)" in "".join(
        replay.replay(recording, OwnLimit, engine="fast").notes)
    assert both(recording, OnlyData).engine == "fast"


@pytest.mark.parametrize("name", list(REVISIONS))
def test_which_revisions_are_compiled(name: str) -> None:
    base, step = compiled_base(REVISIONS[name])
    assert (base is not None) == (name.startswith("mainline-") or name == "sg-read") or step


def test_a_step_put_in_another_s_place_is_noticed(samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def count_freed(self: Zswap, entry: ZswapEntry) -> None:
        self.counters.stored_pages -= 2

    recording = traces.open_recording(samples["7.3-lz4-4k"])
    monkeypatch.setattr(Zswap, "count_freed", count_freed)
    result = both(recording)
    assert (result.engine, result.verdict) == ("reference", "FAIL")


def test_states_and_events_match() -> None:
    """The tables of states name effects that there are, and every start of an operation among them."""
    for name, effect in zip(L.STATE_NAMES, L.EFFECT.tolist(), strict=True):
        assert effect <= 0 or schema.NAMES[effect], name
    assert L.STATE_NAMES[L.B_RET] == "B_RET"
    assert len(L.CHECK_IDS) <= L.EXPLAINED - L.COMPARED
    assert Heap(8, 128).m[L.TOP] > L.SCALARS
