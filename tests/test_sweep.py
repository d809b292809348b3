# SPDX-License-Identifier: GPL-2.0-or-later
"""Every value that the reference compares, changed one at a time on every kernel line: both engines say the same."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from replay.fast import step
from replay.reference.comparisons import COMPARISONS, compared_columns
from tests.sweeping import (
    LINES,
    NEVER_NOTICED,
    NEVER_READ,
    NOT_COMPARED,
    NOT_REACHED,
    Change,
    Pair,
    Read,
    changed,
    changes,
    compared,
    few,
    imaginary,
    line_of,
    outcome,
    recorded_pairs,
    watch,
)
from tests.tampering import Tampered
from traces.samples import sample_paths

#: What is changed in memory has no job log, which decides what a compressor on emulated IAA gives.
SAMPLES = {path.name: path for path in sample_paths() if not (path / "iaa.json").is_file()}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Thousands of replays: what is there already is not looked through for garbage again and again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tampered]:
    """A recording of each line, made by its model."""
    folder = tmp_path_factory.mktemp("imaginary")
    return {line: imaginary(folder / line, line) for line in LINES}


@cache
def sample(name: str) -> tuple[Tampered, Read]:
    """A shipped recording, and what the reference reads of it."""
    recording = Tampered(SAMPLES[name])
    return recording, watch(recording)


def sweep(recording: Tampered, chosen: Iterable[Change]) -> dict[Pair, Counter[str]]:
    """Make each change, demand one result of both engines; returns the verdicts of each pair."""
    verdicts: dict[Pair, Counter[str]] = {}
    for change in chosen:
        with changed(recording, change):
            result, different = outcome(recording)
        assert not different, f"{change}: {different}"
        verdicts.setdefault(change.place.pair, Counter())[result.verdict] += 1
    result, different = outcome(recording)
    assert (result.verdict, different) == ("PASS", "")
    return verdicts


def unnoticed(verdicts: dict[Pair, Counter[str]]) -> set[Pair]:
    return {pair for pair, found in verdicts.items() if set(found) == {"PASS"}}


@pytest.mark.parametrize("line", LINES)
def test_every_value_of_every_line(made: dict[str, Tampered], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One change at each place that reads a value, all kinds for those that few places read."""
    recording = made[line]
    read = watch(recording)
    verdicts = sweep(recording, few(recording, read))
    assert set(verdicts) == read.pairs(), "a pair without a change"
    assert len(verdicts) > 90
    with capsys.disabled():
        print(f"\n{line}: {len(read.pairs())} pairs at {len(read.places)} places, "
              f"{sum(sum(found.values()) for found in verdicts.values())} changed recordings, no difference")
    assert unnoticed(verdicts) <= set(NEVER_NOTICED)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_values_that_only_a_sample_shows(made: dict[str, Tampered], name: str) -> None:
    """Places of the reference that read something in a sample, and nothing in what the model makes of that line."""
    recording, read = sample(name)
    sweep(recording, few(recording, _rest(read, watch(made[line_of(recording)]))))


def _rest(read: Read, other: Read) -> Read:
    """What a sample reads at places that another recording does not have."""
    return Read({place: rows for place, rows in read.places.items() if place not in other.places}, read.rows)


def test_what_is_not_reached_and_not_read_is_listed(made: dict[str, Tampered]) -> None:
    """What no recording of a line has, what no reference reads: by name, neither more nor less."""
    reads: dict[str, set[Pair]] = {line: watch(made[line]).pairs() for line in LINES}
    recorded: set[Pair] = set().union(*(recorded_pairs(made[line]) for line in LINES))
    for name in SAMPLES:
        recording, read = sample(name)
        reads[line_of(recording)] |= read.pairs()
        recorded |= recorded_pairs(recording)
    every = set().union(*reads.values())
    assert {line: every - found for line, found in reads.items() if every - found} == NOT_REACHED
    assert recorded - every == {(event, column) for event, columns in NEVER_READ.items() for column in columns}


@pytest.mark.parametrize("line", LINES)
def test_every_comparison_is_swept(made: dict[str, Tampered], line: str) -> None:
    """Each column that the reference compares, under each of its comparisons, is changed on every line: or it is named."""
    assert {(event, column) for event, column, _ in compared_columns()} - watch(made[line]).pairs() == NOT_REACHED[line]
    every = {(key, column) for key, comparison in COMPARISONS.items() for column, _ in comparison.columns}
    assert every - compared(made[line]) == {
        (key, column) for key, column in every
        if key.endswith(tuple(NOT_COMPARED)) or (COMPARISONS[key].event, column) in NOT_REACHED[line]}


def test_a_comparison_too_few_is_noticed(made: dict[str, Tampered], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep fails where compiled code compares less: here a column is hidden from it."""
    monkeypatch.setattr("replay.fast.eligible.setup", _without_sizes)
    monkeypatch.setattr("replay.fast.runner.setup", _without_sizes)
    recording = made["mainline-7.3"]
    read = watch(recording)
    rest = Read({place: rows for place, rows in read.places.items() if place.pair == ("zswap_entry_free", "size")}, {})
    assert rest.places
    with pytest.raises(AssertionError, match="by the reference, 'PASS' by compiled code"):
        sweep(recording, changes(recording, rest))


def _without_sizes(engine: object, out: object) -> None:
    _SETUP(engine, out)  # type: ignore[arg-type]
    out[step.L.SIZE_FREED] = 0  # type: ignore[index]


from replay.fast.eligible import setup as _SETUP  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_every_value_in_every_way(made: dict[str, Tampered], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All kinds of change, at three events of each place that the model's own recording of a line shows, or else a sample."""
    recordings = [(made[line], watch(made[line]))]
    for name in SAMPLES:
        recording, read = sample(name)
        if line_of(recording) == line:
            recordings.append((recording, _rest(read, recordings[0][1])))
    verdicts: dict[Pair, Counter[str]] = {}
    for recording, read in recordings:
        for pair, found in sweep(recording, changes(recording, read, each=3)).items():
            verdicts.setdefault(pair, Counter()).update(found)
    with capsys.disabled():
        print(f"\n{line}: {len(verdicts)} pairs in {len(recordings)} recordings, "
              f"{sum(sum(found.values()) for found in verdicts.values())} changed recordings, no difference; "
              f"never noticed: {sorted(unnoticed(verdicts))}")
    assert unnoticed(verdicts) == {pair for pair, (lines, _) in NEVER_NOTICED.items() if line in lines}
