# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams of blocks: merged by time, and rows put in."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import schema
from traces.block import Block
from traces.importers.source import merge_cpus

ROWS = len(schema.COLUMNS)
COLUMN = {name: index for index, name in enumerate(schema.column_names())}
quick = settings(deadline=None, max_examples=200)


def block(stamps: list[int], cpu: int = 0, first: int = 0, marked: bool = True) -> Block:
    """Rows of the given stamps, each numbered in ``ret``; every third has a text that names it."""
    out = np.zeros((ROWS, len(stamps)), np.int64)
    out[COLUMN["ts"]], out[COLUMN["cpu"]] = stamps, cpu
    out[COLUMN["ret"]] = np.arange(first, first + len(stamps))
    return Block.of(out, [(row, f"{cpu}/{first + row}") for row in range(0, len(stamps), 3) if marked])


def stream(blocks: list[list[int]], cpu: int) -> Iterator[Block]:
    first = 0
    for stamps in blocks:
        yield block(stamps, cpu, first)
        first += len(stamps)


def collect(blocks: Iterator[Block]) -> tuple[list[tuple[int, int, int]], dict[int, str]]:
    """All rows as (ts, cpu, number) and the texts by row."""
    rows: list[tuple[int, int, int]] = []
    texts: dict[int, str] = {}
    for block in blocks:
        assert block.texts == sorted(block.texts)
        texts.update({len(rows) + row: text for row, text in block.texts})
        columns = block.columns()
        rows += zip(*(columns[COLUMN[name]].tolist() for name in ("ts", "cpu", "ret")), strict=True)
    return rows, texts


def check_texts(rows: list[tuple[int, int, int]], texts: dict[int, str]) -> None:
    """Every text is at the row it names, and none is missing."""
    assert all(texts[row] == f"{rows[row][1]}/{rows[row][2]}" for row in texts)


@st.composite
def _streams(draw: st.DrawFn, ordered: bool = True) -> list[list[list[int]]]:
    """Streams of blocks of stamps; few distinct stamps, so that many are equal, also across blocks."""
    streams = []
    for _ in range(draw(st.integers(1, 4))):
        stamps = draw(st.lists(st.integers(0, 12), max_size=25))
        if ordered:
            stamps.sort()
        cuts = sorted(draw(st.lists(st.integers(0, len(stamps)), max_size=4)))
        streams.append([stamps[a:b] for a, b in zip([0, *cuts], [*cuts, len(stamps)], strict=True)])
    return streams


@quick
@given(_streams())
def test_merge_is_a_stable_sort(streams: list[list[list[int]]]) -> None:
    """Events of all CPUs by time; equal stamps in the order of the CPUs, and of the ring within a CPU."""
    rows, texts = collect(merge_cpus([stream(blocks, cpu) for cpu, blocks in enumerate(streams)]))
    before = [row for cpu, blocks in enumerate(streams) for row in collect(stream(blocks, cpu))[0]]
    assert rows == sorted(before, key=lambda row: row[0])
    check_texts(rows, texts)
    assert len(texts) == sum((len(part) + 2) // 3 for blocks in streams for part in blocks)


@quick
@given(_streams(ordered=False))
def test_merge_loses_nothing_when_time_runs_backwards(streams: list[list[list[int]]]) -> None:
    """Each CPU's events stay in the order of its ring, whatever their stamps."""
    rows, texts = collect(merge_cpus([stream(blocks, cpu) for cpu, blocks in enumerate(streams)]))
    assert len(rows) == sum(len(part) for blocks in streams for part in blocks)
    for cpu, blocks in enumerate(streams):
        assert [row for row in rows if row[1] == cpu] == collect(stream(blocks, cpu))[0]
    check_texts(rows, texts)


@pytest.mark.parametrize("wild", [0, 1 << 60])
def test_one_wild_stamp_does_not_displace_the_others(wild: int) -> None:
    rows, _ = collect(merge_cpus([stream([[1, 3, wild, 5, 7], [9]], 0), stream([[2, 4], [6, 8]], 1)]))
    assert [row[0] for row in rows if row[0] != wild] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_merge_of_nothing() -> None:
    assert list(merge_cpus([])) == []
    assert list(merge_cpus([iter([]), iter([])])) == []
    assert collect(merge_cpus([iter([]), stream([[], [1, 2], []], 1)]))[0] == [(1, 1, 0), (2, 1, 1)]


def test_a_single_stream_is_passed_through() -> None:
    blocks = [block([1, 2]), block([3])]
    got = list(merge_cpus([iter(blocks)]))
    assert [a is b for a, b in zip(got, blocks, strict=True)] == [True, True]


def test_merge_reads_no_further_than_it_must() -> None:
    """At most one block of each stream is taken ahead of what has been handed out."""
    taken = [0, 0, 0]

    def counted(cpu: int) -> Iterator[Block]:
        for number in range(50):
            taken[cpu] += 1
            # CPU 1 has three times as many events in the same time.
            stamps = np.linspace(number * 100, number * 100 + 99, 300 if cpu == 1 else 100).astype(int)
            yield block(stamps.tolist(), cpu)

    for number, merged in enumerate(merge_cpus([counted(0), counted(1), counted(2)])):
        assert all(count <= int(merged.ts[-1]) // 100 + 2 for count in taken), number
    assert taken == [50, 50, 50]


def test_merge_in_bounded_memory() -> None:
    """Ten times the blocks take no more memory."""
    def many(cpu: int, count: int) -> Iterator[Block]:
        for number in range(count):
            yield block(list(range(number * 1000 + cpu, (number + 1) * 1000, 4)), cpu, marked=False)

    peaks = []
    for count in (5, 50):
        tracemalloc.start()
        rows = sum(len(merged) for merged in merge_cpus([many(cpu, count) for cpu in range(3)]))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rows == 3 * 250 * count
    assert peaks[1] < peaks[0] * 1.5


_inserts = st.lists(st.tuples(st.integers(0, 10), st.integers(1, 99), st.sampled_from(("", "a", "b"))),
                    max_size=6).map(lambda rows: sorted(rows, key=lambda row: row[0]))


@quick
@given(st.integers(0, 10), _inserts)
def test_insert_rows(size: int, inserts: list[tuple[int, int, str]]) -> None:
    """The same as inserting into a list from the back; every text stays with its row."""
    inserts = [(min(position, size), value, text) for position, value, text in inserts]
    base = block(list(range(size)))
    made = base.insert([(position, {"event": 4, "ret": value}, text) for position, value, text in inserts])
    columns, texts = made.columns(), made.texts
    named = dict(base.texts)
    expected: list[Any] = [(0, row, named.get(row, "")) for row in range(size)]
    for position, value, text in reversed(inserts):
        expected.insert(position, (4, value, text))
    got = dict(texts)
    assert texts == sorted(texts)
    assert [(int(columns[COLUMN["event"], row]), int(columns[COLUMN["ret"], row]), got.get(row, ""))
            for row in range(columns.shape[1])] == expected
    new = columns[COLUMN["event"]] == 4
    assert (columns[COLUMN["content"], new] == -1).all()
    assert (columns[COLUMN["content"], ~new] == 0).all()


def test_inserted_rows_hold_nothing_else() -> None:
    columns = block([5, 6]).insert([(1, {"ts": 5, "event": 2}, "")]).columns()
    assert {name: int(columns[at, 1]) for name, at in COLUMN.items() if columns[at, 1]} \
        == {"ts": 5, "event": 2, "content": -1}


@pytest.mark.parametrize("size", [0, 3])
def test_insert_nothing(size: int) -> None:
    made = block(list(range(size))).insert([])
    assert made.columns().shape == (ROWS, size)
    assert len(made.texts) == (size + 2) // 3
