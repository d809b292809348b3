# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports: parameters and counter snapshots find their places between the events."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import ringbuilder as rb
from hypothesis import given, settings
from hypothesis import strategies as st
from importing import block_of, imported
from ringbuilder import T0

from traces.importers.assemble import assemble
from traces.importers.source import Block, RunFacts
from traces.recording import Recording


def placed(recording: Recording) -> list[str]:
    """The rows in order: markers, snapshots and parameters by their text, other events by their stamp."""
    frame = recording.frame(["ts", "event", "text"])
    return [row.text or f"@{row.ts}" for row in frame.itertuples()]


def test_parameters_between_snapshots(tmp_path: Path) -> None:
    """At the first marker between the two snapshots, else right after the first of them."""
    recording, _ = imported(rb.write_capture(tmp_path / "run"), tmp_path)
    rows = [row for row in placed(recording) if not row.startswith("@")]
    assert rows == ["before", "out1", "compressor=zstd", "in1", "after-out1", "enabled=N", "end"]
    assert recording.manifest["derived_params"] == ["compressor=zstd", "enabled=N"]
    frame = recording.frame()
    assert frame[frame["event"] == "param"]["ts"].tolist() == [T0, T0 + 2900]
    assert frame[frame["event"] == "counters"]["ret"].tolist() == [0, 1, 2]
    assert frame[frame["event"] == "counters"]["ts"].tolist() == [T0 - 1000, T0 + 2900, T0 + 9000]


def assembled(path: Path, blocks: list[Block], snapshots: list[tuple[str, int, dict[str, Any]]]) -> list[str]:
    facts = RunFacts(snapshots=[(label, ts, {"params": params}) for label, ts, params in snapshots],
                     captured={"zswap_load": ["swpent"]})
    assemble(str(path), iter(blocks), facts, {"path": "x"})
    return placed(Recording(path))


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 9), max_size=3), st.sets(st.integers(1, 9), max_size=4))
def test_placement_does_not_depend_on_blocks(tmp_path_factory: pytest.TempPathFactory, markers: set[int],
                                             cuts: set[int]) -> None:
    """Snapshots at 25 and 65; what changed between them is written at the first marker between them."""
    path = tmp_path_factory.mktemp("p")
    stamps = [10 * n for n in range(10)]
    marked = {10 * n: f"m{n}" for n in sorted(markers)}
    snapshots: list[tuple[str, int, dict[str, Any]]] = [("a", 25, {"enabled": "Y"}), ("b", 65, {"enabled": "N"}),
                                                        ("c", 500, {"enabled": "N"})]
    edges = [0, *sorted(cuts), 10]
    blocks = [block_of(stamps[a:b], marked) for a, b in itertools.pairwise(edges)]
    rows = assembled(path / "rec", blocks, snapshots)
    plain = [marked.get(ts, f"@{ts}") for ts in stamps]
    inside = [n for n in sorted(markers) if 25 < 10 * n <= 65]
    assert [row for row in rows if row not in ("a", "b", "c", "enabled=N")] == plain
    assert rows.index("a") == 3
    assert rows[-1] == "c"
    assert rows.index("b") == 9
    if inside:
        assert rows.index("enabled=N") == rows.index(f"m{inside[0]}") + 1
    else:
        # Where the events of its time have been written already, it comes as soon as that is known.
        assert rows.index("a") < rows.index("enabled=N") < rows.index("b")
        assert len(blocks) > 1 or rows.index("enabled=N") == rows.index("a") + 1


@pytest.mark.parametrize(("text", "derived"), [("param enabled=N", 0), ("param enabled=Y", 1), ("enabled=N", 1)])
def test_a_write_that_the_workload_announced_is_not_derived_too(tmp_path: Path, text: str, derived: int) -> None:
    rows = assembled(tmp_path / "rec", [block_of([10, 30, 50], {30: text})],
                     [("a", 20, {"enabled": "Y"}), ("b", 60, {"enabled": "N"})])
    assert rows == ["@10", "a", text, *["enabled=N"] * derived, "@50", "b"]
    assert Recording(tmp_path / "rec").manifest["derived_params"] == ["enabled=N"] * derived


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
@pytest.mark.parametrize(("marker", "expected"), [
    (20, ["@10", "m", "a", "enabled=N", "@30", "b", "@40"]),  # not between: written when the first was taken
    (30, ["@10", "@20", "a", "m", "enabled=N", "b", "@40"]),  # at the very stamp of the second
])
def test_equal_stamps_of_snapshots_and_markers(tmp_path: Path, cut: int, marker: int, expected: list[str]) -> None:
    """What was written between two snapshots stays between them."""
    blocks = [block_of(part, {marker: "m"}) for part in ([10, 20, 30, 40][:cut], [10, 20, 30, 40][cut:]) if part]
    rows = assembled(tmp_path / "rec", blocks, [("a", 20, {"enabled": "Y"}), ("b", 30, {"enabled": "N"})])
    assert rows == expected


def test_two_snapshots_of_one_stamp(tmp_path: Path) -> None:
    rows = assembled(tmp_path / "rec", [block_of([10, 30], {})],
                     [("a", 20, {"enabled": "Y"}), ("b", 20, {"enabled": "N"}), ("c", 20, {"enabled": "Y"})])
    assert rows == ["@10", "a", "enabled=N", "b", "enabled=Y", "c", "@30"]


def test_one_wild_stamp_does_not_move_the_snapshots(tmp_path: Path) -> None:
    rows = assembled(tmp_path / "rec", [block_of([10, 1 << 60, 20, 30], {}), block_of([40, 50], {})],
                     [("a", 45, {"enabled": "Y"}), ("b", 60, {"enabled": "Y"})])
    assert rows == ["@10", f"@{1 << 60}", "@20", "@30", "@40", "a", "@50", "b"]


def test_snapshots_before_and_after_all_events(tmp_path: Path) -> None:
    rows = assembled(tmp_path / "rec", [block_of([100, 200], {})],
                     [("early", 1, {"enabled": "Y"}), ("late", 900, {"enabled": "Y"}), ("later", 950, {"enabled": "N"})])
    assert rows == ["early", "@100", "@200", "late", "enabled=N", "later"]


def test_snapshots_without_events(tmp_path: Path) -> None:
    assert assembled(tmp_path / "rec", [], [("a", 5, {"enabled": "Y"}), ("b", 6, {"enabled": "N"})]) \
        == ["a", "enabled=N", "b"]


def test_snapshots_where_stamps_run_backwards(tmp_path: Path) -> None:
    """Every marker keeps its text and every row its place."""
    rows = assembled(tmp_path / "rec", [block_of([10, 50, 20, 30, 60], {20: "m", 60: "n"})],
                     [("a", 15, {"enabled": "Y"}), ("b", 55, {"enabled": "N"})])
    assert [row for row in rows if row not in ("a", "b", "enabled=N")] == ["@10", "@50", "m", "@30", "n"]
    assert rows.index("a") < rows.index("enabled=N") < rows.index("b")


def test_labels_and_parameters_that_are_no_utf8(tmp_path: Path) -> None:
    rows = assembled(tmp_path / "rec", [block_of([10], {})],
                     [("a\udcff", 1, {"compressor": "x"}), ("b", 2, {"compressor": "\ud800"})])
    assert rows == ["a?", "compressor=?", "b", "@10"]
