# SPDX-License-Identifier: GPL-2.0-or-later
"""zram's pages: mm_stat after each operation, and two read paths that give the same bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import errno
from model.crypto import compressor_for
from model.crypto import knownanswers as known
from model.page import PAGE_SIZE
from model.zram import MmStat, Zram
from model.zsmalloc import huge_class_size

LZ4 = compressor_for("lz4", "mainline-7.3")
PAGES = [*(page for _, page in known.pages()), known.noise(5), known.repeat_in_noise(800), b"\x11\x22" * 2048]


@pytest.mark.parametrize(("chain", "size"), [(4, 3257), (5, 3401), (6, 3497), (8, 3625), (10, 3705), (12, 3769),
                                             (16, 3833)])
def test_from_where_on_an_object_gets_its_own_page(chain: int, size: int) -> None:
    assert huge_class_size(chain) == size


def test_what_is_kept_of_each_kind_of_page() -> None:
    zram = Zram(LZ4)
    repeated, text, noise = b"12345678" * 512, dict(known.pages())["text"], known.noise(9)
    for index, page in enumerate((repeated, text, noise)):
        assert zram.write(index, page) == 0
    length = LZ4.compress(text).dlen
    stat = zram.mm_stat()
    assert stat == MmStat(3 * PAGE_SIZE, length + PAGE_SIZE, zram.pool.pages_allocated * PAGE_SIZE, 0,
                          zram.pool.pages_allocated * PAGE_SIZE, 1, 0, 1, 1)
    assert [zram.read(index).page for index in range(4)] == [repeated, text, noise, bytes(PAGE_SIZE)]
    for index in range(3):
        zram.discard(index)
    empty = zram.mm_stat()
    assert empty == replace(MmStat(), mem_used_max=stat.mem_used_max, huge_pages_since=1)


def test_a_page_that_saves_little_is_kept_as_it_is() -> None:
    # 3,625 bytes and more would take a page of zsmalloc anyway, where zswap keeps them compressed.
    page = known.repeat_in_noise(300)
    assert huge_class_size() <= LZ4.compress(page).dlen < PAGE_SIZE
    zram = Zram(LZ4)
    assert zram.write(0, page) == 0
    assert (zram.mm_stat().huge_pages, zram.mm_stat().compr_data_size) == (1, PAGE_SIZE)


def test_the_limit_counts_old_and_new_object() -> None:
    zram = Zram(LZ4, mem_limit=PAGE_SIZE)
    first, second = known.noise(1), known.noise(2)
    assert zram.write(0, first) == 0
    assert zram.write(0, second) == errno.ENOMEM
    assert zram.read(0).page == first
    assert zram.mm_stat().mem_used_max == 2 * PAGE_SIZE
    assert zram.pool.pages_allocated == 1


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, len(PAGES) - 1), st.booleans()), max_size=60),
       st.sampled_from([4, 8, 16]))
@settings(max_examples=60, deadline=None)
def test_both_read_paths_give_the_page_and_the_same_figures(steps: list[tuple[int, int, bool]], chain: int) -> None:
    linear, entries = Zram(LZ4, chain_size=chain), Zram(LZ4, chain_size=chain, read_path="sg")
    held: dict[int, bytes] = {}
    for index, number, discard in steps:
        for zram in (linear, entries):
            if discard:
                zram.discard(index)
            else:
                assert zram.write(index, PAGES[number]) == 0
        held.pop(index, None)
        if not discard:
            held[index] = PAGES[number]
        assert linear.mm_stat() == entries.mm_stat()
    for index in range(13):
        one, other = linear.read(index), entries.read(index)
        assert one.page == other.page == held.get(index, bytes(PAGE_SIZE))
        # A copy for each read of two entries, none for others.
        assert (one.entries, one.linearised) == (other.entries, other.linearised)
        assert bool(one.linearised) == (one.entries == 2)
        assert (one.by, other.by) == ("zsmalloc", "zram")
    assert linear.mm_stat().orig_data_size == len(held) * PAGE_SIZE
