# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports: pages find the calls they were handed to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ringbuilder as rb
from importing import COLUMN, COMPRESS
from ringbuilder import EVENTS, T0, page

from traces.block import Block
from traces.importers import pagefiles
from traces.importers.eventformat import parse_header_page
from traces.importers.pageindex import PAGE_OFFSET_BASE, VMEMMAP_BASE, PageIndex
from traces.importers.pageshare import page_share


def index_of(pages: list[tuple[int, int]], known: bool = True) -> PageIndex:
    """An index of (ts, address) whose digests number the pages."""
    return PageIndex("pages.idx", np.array([ts for ts, _ in pages], np.int64),
                     np.array([address for _, address in pages], np.uint64), [f"{n:040x}" for n in range(len(pages))],
                     None, (PAGE_OFFSET_BASE, VMEMMAP_BASE) if known else None)


def calls_block(calls: list[tuple[int, int, int, int]]) -> Block:
    """A block of compress calls: (ts, pid, address, pages)."""
    out = np.zeros((len(COLUMN), len(calls)), np.int64)
    out[COLUMN["event"]], out[COLUMN["content"]] = COMPRESS, -1
    for row, (ts, pid, address, count) in enumerate(calls):
        folio = address & ~0xFFFF
        out[[COLUMN[name] for name in ("ts", "pid", "folio", "offset", "size")], row] = \
            ts, pid, rb.struct_page(folio) - (1 << 64), address - folio, 4096 * count
    return Block.of(out)


BASE = rb.PAGE_OFFSET + 0x1000000


def place(pages: list[tuple[int, int]], calls: list[tuple[int, int, int, int]], known: bool = True,
          split: int = 0, unit: int = 1) -> tuple[list[int], int]:
    """The row each call got, and how many got none; ``split`` cuts the calls into two blocks."""
    index = index_of(pages, known)
    block = calls_block(calls)
    rows: list[int] = []
    for part in (block.part(0, split), block.part(split, len(block))):
        index.attach(part, unit)
        rows += part.column("content").tolist()
    return rows, index.unmatched


PAGES = [(100 + 10 * n, BASE + 4096 * n) for n in range(20)]
SINGLE = [(95 + 10 * n, 1, BASE + 4096 * n, 1) for n in range(20)]
#: Two batches of 8 and 4 single pages.
BATCHED = [(95, 1, BASE, 8), (175, 1, BASE + 8 * 4096, 8), *SINGLE[16:]]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("split", [0, 1, 2])
def test_pages_in_order(known: bool, split: int) -> None:
    assert place(PAGES, SINGLE, known, split) == (list(range(20)), 0)
    assert place(PAGES, BATCHED, known, split) == ([0, 8, 16, 17, 18, 19], 0)
    assert place(PAGES, [], known) == ([], 0)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lost", [0, 1, 9, 19])
def test_a_missing_page_costs_its_own_call_only(known: bool, lost: int) -> None:
    rows, unmatched = place([p for n, p in enumerate(PAGES) if n != lost], SINGLE, known)
    assert (rows, unmatched) == ([n if n < lost else -1 if n == lost else n - 1 for n in range(20)], 1)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lost", [0, 1, 9, 19])
def test_a_missing_call_leaves_its_page_unused(known: bool, lost: int) -> None:
    """Without addresses only the time counts, so a page of a lost call must not go to the next one."""
    rows, unmatched = place(PAGES, [c for n, c in enumerate(SINGLE) if n != lost], known)
    assert (rows, unmatched) == ([n for n in range(20) if n != lost], 0)


@pytest.mark.parametrize("lost", range(16))
def test_a_batch_with_a_missing_page_gets_none(lost: int) -> None:
    """Seven pages for a call of eight: better no contents than those of its neighbours."""
    rows, unmatched = place([p for n, p in enumerate(PAGES) if n != lost], BATCHED)
    assert unmatched == 1
    assert rows == ([-1, 7, 15, 16, 17, 18] if lost < 8 else [0, -1, 15, 16, 17, 18])


def test_a_batch_does_not_take_a_page_of_another_task() -> None:
    """The last page of a batch is missing, and the next page recorded is another CPU's."""
    calls = [(100, 1, BASE, 2), (101, 2, BASE + (1 << 20), 1)]
    assert place([(110, BASE), (120, BASE + (1 << 20))], calls) == ([-1, 1], 1)
    # Pages of two batches recorded in turn do not go to each other's batch either.
    mixed = [(110 + n, BASE + 4096 * (n // 2) + (1 << 20) * (n % 2)) for n in range(4)]
    assert place(mixed, [(100, 1, BASE, 2), (101, 2, BASE + (1 << 20), 2)]) == ([-1, -1], 2)


def test_a_page_goes_to_one_call_only() -> None:
    """Two tasks compress from the same address, and one of the pages is missing."""
    calls = [(100, 1, BASE, 1), (101, 2, BASE, 1)]
    assert place([(110, BASE)], calls) == ([0, -1], 1)
    assert place([(110, BASE)], calls, split=1) == ([0, -1], 1)


def test_a_page_of_the_next_call_is_not_taken_by_one_without() -> None:
    """The same buffer is compressed twice and the first time's page is lost."""
    calls = [(100, 1, BASE, 1), (200, 1, BASE, 1)]
    assert place([(205, BASE)], calls) == ([-1, 0], 1)
    assert place([(105, BASE)], calls) == ([0, -1], 1)


def test_interleaved_tasks_get_their_own_pages() -> None:
    """Two CPUs compress at once, and the second one's page is recorded first."""
    pages, calls, expected = [], [], []
    for n in range(10):
        calls += [(100 * n, 1, BASE + 8192 * n, 1), (100 * n + 1, 2, BASE + 8192 * n + 4096, 1)]
        pages += [(100 * n + 10, BASE + 8192 * n + 4096), (100 * n + 20, BASE + 8192 * n)]
        expected += [2 * n + 1, 2 * n]
    assert place(pages, calls) == (expected, 0)
    assert place(pages, calls, split=7) == (expected, 0)


@pytest.mark.parametrize("others", [10, 300])
def test_a_task_that_loses_its_cpu_before_its_page_is_recorded(others: int) -> None:
    """Meanwhile another CPU hands over more pages than a search by order looks at."""
    calls = [(100, 1, BASE, 1)]
    calls += [(110 + 10 * n, 2, BASE + 4096 * (n + 1), 1) for n in range(others)]
    calls.append((100_000, 1, BASE, 1))
    pages = [(ts + 5, address) for ts, _, address, _ in calls[1:-1]] + [(90_000, BASE), (100_005, BASE)]
    rows, unmatched = place(pages, calls)
    assert (rows, unmatched) == ([others, *range(others), others + 1], 0)


def test_many_lost_calls_and_pages_do_not_stall_the_search() -> None:
    pages = [(10 * n + 5, BASE + 4096 * n) for n in range(1000)]
    calls = [(10 * n, 1, BASE + 4096 * n, 1) for n in range(1000)]
    some_calls = [c for n, c in enumerate(calls) if n % 50 < 20]
    some_pages = [(n, p) for n, p in enumerate(pages) if n % 7]
    rows, unmatched = place([p for _, p in some_pages], some_calls)
    number = {n: row for row, (n, _) in enumerate(some_pages)}
    expected = [number.get(n, -1) for n in range(1000) if n % 50 < 20]
    assert (rows, unmatched) == (expected, expected.count(-1))


def test_addresses_that_do_not_match_are_counted() -> None:
    assert place([(ts, address + (1 << 32)) for ts, address in PAGES], SINGLE) == ([-1] * 20, 20)
    assert place([], SINGLE) == ([-1] * 20, 20)


def test_stamps_of_text_are_coarser_than_those_of_pages() -> None:
    """Text rounds to microseconds, so a call may seem to come up to that much after its page."""
    pages = [(1_000_400, BASE), (2_000_600, BASE + 4096), (3_000_400, BASE + 8192)]
    calls = [(1_001_000, 1, BASE, 1), (2_001_000, 1, BASE + 4096, 1), (3_000_000, 1, BASE + 8192, 1)]
    assert place(pages, calls, unit=1000) == ([0, 1, 2], 0)
    assert place(pages[:1] + pages[2:], calls, unit=1000) == ([0, -1, 1], 1)
    assert place(pages, calls)[1] > 0
    # Nor must a page come before the rounded stamp of its task's next call.
    pages = [(1_999_400, BASE), (3_000_000, BASE + (1 << 20))]
    calls = [(1_000_000, 1, BASE, 1), (1_999_000, 1, BASE + 4096, 1), (3_000_000, 1, BASE + (1 << 20), 1)]
    assert place(pages, calls, unit=1000) == ([0, -1, 1], 1)


def test_an_absurd_size_of_a_call_is_no_trouble() -> None:
    block = calls_block(SINGLE[:3])
    sizes = block.column("size")
    sizes[1] = (1 << 32) - 1
    block.put("size", np.arange(3), sizes)
    index = index_of(PAGES)
    index.attach(block)
    assert block.column("content").tolist() == [0, -1, 2]


@pytest.mark.parametrize("upper_first", [True, False])
@pytest.mark.parametrize("size", [4096, 65536, 1 << 19])
def test_a_page_ring_in_either_order(tmp_path: Path, upper_first: bool, size: int) -> None:
    """Halves of a page in either order, several tasks at once, and events of other kinds between them."""
    a, b = rb.PAGE_OFFSET + 0x5000, rb.PAGE_OFFSET + 0x9000
    first, second, third = (
        [payload for _, payload in rb.page_halves(0, address, page(seed), 1, upper)]
        # The same address comes again as soon as it is complete.
        for address, seed, upper in ((a, 1, upper_first), (b, 2, not upper_first), (a, 3, upper_first)))
    records = [first[0], second[0], first[1], EVENTS["sched_switch"].pack(1), second[1], *third]
    (tmp_path / "ring").write_bytes(rb.ring(((T0 + 5 * n, record) for n, record in enumerate(records)), size))
    formats = [pagefiles_format(name) for name in ("pg0", "pg1", "sched_switch")]
    index = pagefiles.page_ring(tmp_path / "ring", formats, parse_header_page(rb.header_page(size), "x"), None)
    assert index is not None
    assert index._sha1 == [hashlib.sha1(page(n)).hexdigest() for n in (1, 2, 3)]
    assert index._ts.tolist() == [T0, T0 + 5, T0 + 25]


def pagefiles_format(name: str) -> Any:
    from traces.importers.eventformat import parse_event_format
    return parse_event_format(EVENTS[name].text(), name)


def test_a_page_format_with_fields_far_away_reads_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "ring").write_bytes(rb.ring(rb.page_halves(T0, rb.PAGE_OFFSET, page(1))))
    for field in ("src;\toffset:16", "common_pid;\toffset:4"):
        formats = []
        for name in ("pg0", "pg1"):
            far = EVENTS[name].text().replace(field, field.rsplit(":", 1)[0] + ":900000")
            assert far != EVENTS[name].text()
            (tmp_path / "format").write_text(far)
            from traces.importers.eventformat import parse_event_format
            formats.append(parse_event_format(far, name))
        assert pagefiles.page_ring(tmp_path / "ring", formats, parse_header_page(rb.header_page(), "x"), None) is None


def test_calls_of_more_pages_than_can_be() -> None:
    """Sizes of damaged records: together they would be more than 64 bits hold."""
    index, block = index_of(PAGES), calls_block(SINGLE * 300)
    block.put("size", np.arange(len(block)), np.full(len(block), (1 << 63) - 1))
    index.attach(block)
    assert (block.column("content") == -1).all()
    assert index.unmatched == len(block)


# The share of calls whose page is known


def _capture(**pages: object) -> dict[str, object]:
    return {"pages": {"mode": "hash", "compressors": ["lz4"], **pages},
            "losses": {"pages": {"0": {"overrun": 0, "commit_overrun": 0, "dropped": 0}}, "broken_pages": 0}}


@pytest.mark.parametrize(("calls", "caught", "capture", "used", "why"), [
    (10, 10, _capture(), {"lz4"}, []),
    (0, 0, {}, set(), []),
    (10, 4, _capture(), {"lz4"}, ["none of the pages that were recorded fits them"]),
    (10, 4, _capture(), {"lz4", "zstd", "lzo"},
     ["zswap used lzo, zstd, whose pages were not looked at: record with --compressor lzo --compressor zstd"]),
    (10, 0, _capture(mode="none"), {"lz4"}, ["none was to be recorded (--pages none)"]),
    (10, 4, {}, {"lz4"}, ["how many the rings lost is not known"]),
    (10, 4, {"losses": {"pages": {"0": {"overrun": "unknown"}}}}, {"lz4"}, ["how many the rings lost is not known"])])
def test_why_calls_have_no_page(calls: int, caught: int, capture: dict[str, object], used: set[str],
                                why: list[str]) -> None:
    assert page_share(calls, caught, capture, used) == {"calls": calls, "caught": caught, "why": why}


def test_pages_that_the_rings_lost_are_counted() -> None:
    # The kernel's selftest, as it was recorded once: two events a page, and what is lost is no more than is missing.
    losses = {"pages": {"0": {"overrun": 203_670, "commit_overrun": 0, "dropped": 0}}, "broken_pages": 3}
    why, = page_share(146_092, 44_254, {"losses": losses, "pages": {"mode": "hash"}}, {"lz4"})["why"]
    assert why.startswith("about 101,838 were lost in the recorder's rings")
    why, = page_share(20, 10, {"losses": losses}, {"lz4"})["why"]
    assert why.startswith("about 10 were lost")
    lost, waited = page_share(20, 10, {"losses": losses}, {"lz4"}, 3)["why"]
    assert lost == why
    assert waited.startswith("3 times a task waited for memory until kswapd had freed enough")
