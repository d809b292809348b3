# SPDX-License-Identifier: GPL-2.0-or-later
"""traces.importers.devicepages: pages that the lab's emulated devices kept, and the compress calls that they belong to."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import schema
from traces.block import Block
from traces.errors import BadInput
from traces.importers.devicepages import DevicePages, read_device_pages
from traces.importers.iaafiles import PAGES
from traces.lab.iaa.joblog import JobLog
from traces.pages import PageStoreWriter

VMEMMAP = 0xFFFFEA0000000000
SIZE = 4096
#: Nanoseconds between calls, and between jobs; by how much the devices' clock is ahead.
STEP, AHEAD = 100_000_000, 10**15


def page(number: int) -> bytes:
    return number.to_bytes(8, "little") * (SIZE // 8)


def calls(*frames: int, pages: int = 1, vmemmap: int = VMEMMAP, begin: int = 0, step: int = STEP) -> Block:
    """Compress calls, each of the page with a frame number, or of several pages from there on.

    The first one's job is the one numbered ``begin``.
    """
    columns = np.zeros((len(schema.COLUMNS), len(frames)), np.int64)
    place = {column.name: number for number, column in enumerate(schema.COLUMNS)}
    columns[place["event"]] = schema.CODE["crypto_acomp_compress"]
    columns[place["content"]] = -1
    columns[place["ts"]] = step * (begin + np.arange(len(frames)))
    columns[place["size"]] = pages * SIZE
    columns[place["folio"]] = np.array([vmemmap + 64 * frame for frame in frames], np.uint64).view(np.int64)
    return Block.of(columns)


def stored(tmp_path: Path, pages: DevicePages) -> list[str]:
    """Return the digest of each reference, in the order in which a recording keeps them."""
    kept: list[str] = []

    class Writer:
        def add(self, data: bytes, sha1: str) -> None:
            assert hashlib.sha1(data).hexdigest() == sha1
            kept.append(sha1)

    pages.finish()
    pages.store(Writer())  # type: ignore[arg-type]
    return kept


def capture(tmp_path: Path, jobs: list[dict[str, Any]], kept: int) -> tuple[dict[str, Any], pd.DataFrame]:
    data = b"".join(page(number) for number in range(kept))
    (tmp_path / PAGES).write_bytes(data)
    rows = [{"op": "compress", "in": SIZE, "submitted": AHEAD + STEP * n, "rule": 0} | job for n, job in enumerate(jobs)]
    return {"pages": {"file": PAGES, "sha256": hashlib.sha256(data).hexdigest()}}, pd.DataFrame(rows)


def test_calls_take_the_jobs_of_their_frame_in_order(tmp_path: Path) -> None:
    facts, jobs = capture(tmp_path, [{"pfn": 5, "page": 1}, {"pfn": 6, "page": 2}, {"pfn": 5, "page": 3}], 3)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    block = calls(5, 6)
    pages.attach(block)
    again = calls(5, 5)
    pages.attach(again)
    assert block.column("content").tolist() == [0, 1]
    # The last call has no job: the driver went to software.
    assert again.column("content").tolist() == [2, -1]
    assert (pages.unmatched, pages.left) == (1, 0)
    assert stored(tmp_path, pages) == [hashlib.sha1(page(n)).hexdigest() for n in (0, 1, 2)]


def test_a_call_of_several_pages_has_them_one_after_another(tmp_path: Path) -> None:
    # Two batches that were submitted at once.
    order = [10, 20, 11, 21, 12, 22]
    facts, jobs = capture(tmp_path, [{"pfn": frame, "page": n + 1} for n, frame in enumerate(order)], 6)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    block = calls(10, 20, pages=3)
    pages.attach(block)
    assert block.column("content").tolist() == [0, 3]
    assert stored(tmp_path, pages) == [hashlib.sha1(page(n)).hexdigest() for n in (0, 2, 4, 1, 3, 5)]


def test_a_job_that_a_rule_changed_says_nothing_of_its_page(tmp_path: Path) -> None:
    facts, jobs = capture(tmp_path, [{"pfn": 5, "page": 1, "rule": 2}, {"pfn": 5, "page": 1}], 1)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    block = calls(5, 5)
    pages.attach(block)
    assert block.column("content").tolist() == [-1, 0]


def test_jobs_of_before_the_recording_are_left_out(tmp_path: Path) -> None:
    facts, jobs = capture(tmp_path, [{"pfn": 7, "page": 1}, {"pfn": 5, "page": 2}, {"pfn": 7, "page": 3}], 3)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    block = calls(5, 7, begin=1)
    pages.attach(block)
    assert stored(tmp_path, pages) == [hashlib.sha1(page(n)).hexdigest() for n in (1, 2)]


def test_a_frame_that_was_compressed_before_the_recording_too_is_told_by_its_time(tmp_path: Path) -> None:
    # The first call's own frame among them.
    facts, jobs = capture(tmp_path, [{"pfn": frame, "page": n + 1} for n, frame in enumerate([5, 7, 8, 5, 7, 8])], 6)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    pages.attach(calls(5, 7, 8, begin=3))
    assert stored(tmp_path, pages) == [hashlib.sha1(page(n)).hexdigest() for n in (3, 4, 5)]


def test_calls_whose_jobs_were_submitted_in_another_order_have_them(tmp_path: Path) -> None:
    facts, jobs = capture(tmp_path, [{"pfn": 7, "page": 1, "submitted": AHEAD + 1001}, {"pfn": 5, "page": 2, "submitted": AHEAD + 1002}], 2)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    pages.attach(calls(5, 7, step=1000))
    assert stored(tmp_path, pages) == [hashlib.sha1(page(n)).hexdigest() for n in (1, 0)]


def test_a_job_from_before_its_call_is_not_its_own(tmp_path: Path) -> None:
    """A recorder that was attached while pages were compressed: a frame's last job of before lies close to the first."""
    times = [AHEAD - 15_000_000, AHEAD, AHEAD + 1_000_000, AHEAD + 30_000_000]
    facts, jobs = capture(tmp_path, [{"pfn": frame, "page": n + 1, "submitted": when}
                                     for n, (frame, when) in enumerate(zip([9, 5, 7, 9], times, strict=True))], 4)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    block = calls(5, 7, 9)
    block.ts[:] = [0, 1_000_000, 30_000_000]
    pages.attach(block)
    assert stored(tmp_path, pages) == [hashlib.sha1(page(n)).hexdigest() for n in (1, 2, 3)]


def whole_calls(*frames: int, begin: int = 0, step: int = STEP) -> Block:
    """As calls(), with each call's return, and what the task does next, a fifth of a step behind it."""
    one = calls(*frames, begin=begin, step=step).columns()
    columns = np.repeat(one, 3, axis=1)
    place = {column.name: number for number, column in enumerate(schema.COLUMNS)}
    for behind, name in ((1, "crypto_acomp_compress_ret"), (2, "zswap_store_ret")):
        columns[place["event"], behind::3] = schema.CODE[name]
        columns[place["ts"], behind::3] += behind * step // 10
    return Block.of(columns)


def test_a_call_that_had_no_descriptor_has_not_the_next_one_s_page(tmp_path: Path) -> None:
    """The driver lost its queue for the second call; the third is of the same frame."""
    facts, jobs = capture(tmp_path, [{"pfn": 5, "page": 1}, {"pfn": 7, "page": 2, "submitted": AHEAD + 2 * STEP},
                                     {"pfn": 8, "page": 3, "submitted": AHEAD + 3 * STEP}], 3)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    block = whole_calls(5, 7, 7, 8)
    pages.attach(block)
    assert block.column("content")[::3].tolist() == [0, -1, 1, 2]
    assert stored(tmp_path, pages) == [hashlib.sha1(page(n)).hexdigest() for n in (0, 1, 2)]


def test_calls_without_any_job_do_not_take_those_of_later_ones(tmp_path: Path) -> None:
    """The driver had no queue at first; what is compressed then comes again, in the same order and at the same pace."""
    frames = list(range(100, 400))
    facts, jobs = capture(tmp_path, [{"pfn": frame, "page": n % 7 + 1, "submitted": AHEAD + STEP * (1000 + n)}
                                     for n, frame in enumerate(frames * 2)], 7)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    first = whole_calls(*frames[:20], *range(900, 1180))
    pages.attach(first)
    second = whole_calls(*frames, *frames, begin=1000)
    pages.attach(second)
    assert set(first.column("content")[::3].tolist()) == {-1}
    assert second.column("content")[::3].tolist() == list(range(600))


@given(frames=st.lists(st.integers(0, 40), min_size=1, max_size=60), base=st.integers(0, 1 << 14))
def test_whatever_the_order_each_call_has_its_page(frames: list[int], base: int) -> None:
    """Wherever KASLR put vmemmap, and however jobs of other frames lie in between."""
    vmemmap = VMEMMAP + (base << 30)
    # Jobs of one frame keep their order; those of different frames were submitted in any.
    order = sorted(range(len(frames)), key=lambda n: (frames[n] % 3, n))
    pages = DevicePages(Path("none"), [frames[n] for n in order], order, [AHEAD + 10 * len(order) + n for n in range(len(order))])
    block = calls(*frames, vmemmap=vmemmap, step=10)
    pages.attach(block)
    rows = block.column("content").tolist()
    taken = [pages._called[row] for row in rows]
    if sorted(frames[n] for n in taken) == sorted(frames):
        assert [frames[n] for n in taken] == frames
    same_frame = {frame: [n for n in range(len(frames)) if frames[n] == frame] for frame in frames}
    assert all([n for n in taken if frames[n] == frame] == of for frame, of in same_frame.items())


def test_what_is_not_what_the_lab_wrote_is_one_sentence(tmp_path: Path) -> None:
    facts, jobs = capture(tmp_path, [{"pfn": 5, "page": 1}], 1)
    (tmp_path / PAGES).write_bytes(page(9))
    with pytest.raises(BadInput, match=r"is not what the lab wrote: its digest is not that of iaa\.json"):
        read_device_pages(tmp_path, facts, jobs)
    (tmp_path / PAGES).unlink()
    with pytest.raises(BadInput, match="is not a regular file"):
        read_device_pages(tmp_path, facts, jobs)
    os.mkfifo(tmp_path / PAGES)
    with pytest.raises(BadInput, match="is not a regular file"):
        read_device_pages(tmp_path, facts, jobs)
    assert read_device_pages(tmp_path, {}, jobs) is None
    facts, jobs = capture(tmp_path / "..", [{"pfn": 5, "page": 1}], 1)
    pages = read_device_pages(tmp_path / "..", facts, jobs)
    assert pages is not None
    pages.attach(calls(5))
    os.truncate(tmp_path / ".." / PAGES, SIZE - 1)
    with pytest.raises(BadInput, match="ends before the pages of its jobs"):
        stored(tmp_path, pages)


@pytest.mark.parametrize("value", ["x", 1.5, 1e300, float("nan"), float("inf"), None])
@pytest.mark.parametrize("column", ["page", "pfn", "submitted"])
def test_jobs_are_input(tmp_path: Path, column: str, value: Any) -> None:
    facts, jobs = capture(tmp_path, [{"pfn": 5, "page": 1}], 1)
    jobs[column] = [value]
    with pytest.raises(BadInput, match="something else than whole numbers as page, pfn or submitted"):
        read_device_pages(tmp_path, facts, jobs)


@pytest.mark.parametrize("number", [2, -1, (1 << 63) - 1, -(1 << 63)])
def test_a_job_whose_page_was_not_kept_is_one_sentence(tmp_path: Path, number: int) -> None:
    facts, jobs = capture(tmp_path, [{"pfn": 5, "page": number}], 1)
    with pytest.raises(BadInput, match="ends before the pages of its jobs: it has 1"):
        read_device_pages(tmp_path, facts, jobs)


def test_storing_waits_for_the_last_call(tmp_path: Path) -> None:
    facts, jobs = capture(tmp_path, [{"pfn": 5, "page": 1}], 1)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    writer = PageStoreWriter(tmp_path / "pages")
    thread = threading.Thread(target=pages.store, args=(writer,))
    thread.start()
    pages.attach(calls(5))
    assert thread.is_alive()
    assert writer.references == 0
    pages.finish()
    thread.join(60)
    assert writer.references == 1


def test_the_devices_keep_each_page_once(tmp_path: Path) -> None:
    log = JobLog(tmp_path / "log", {}, True, tmp_path / "pages")
    assert [log.page(memoryview(page(n))) for n in (4, 5, 4, 6)] == [1, 2, 1, 3]
    log.close()
    assert (tmp_path / "pages").read_bytes() == page(4) + page(5) + page(6)
    log = JobLog(tmp_path / "log", {}, True)
    assert log.page(memoryview(page(4))) == 0
    log.close()
