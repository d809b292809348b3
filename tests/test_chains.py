# SPDX-License-Identifier: GPL-2.0-or-later
"""Chained requests (v8): a call's event shows the head, its pages and errors come from elsewhere."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from importing import COLUMN, imported, shared
from test_device_pages import AHEAD, STEP, capture, page, stored, whole_calls

import replay
from model.page import PAGE_SIZE
from replay.tools.cut import cut
from replay.tools.synthetic import ImaginaryKernel
from traces import schema
from traces.block import Block
from traces.chained import chained_pages
from traces.importers.devicepages import read_device_pages
from traces.importers.pageindex import PAGE_OFFSET_BASE, VMEMMAP_BASE, PageIndex
from traces.recording import Recording


def kernel(fails: tuple[int, ...] = ()) -> ImaginaryKernel:
    made = ImaginaryKernel("v8", length=lambda slot: 5000 if slot in fails else 900 + slot)
    made.model.pools[0].tfm_name = "deflate-iaa"
    return made


@pytest.mark.parametrize("fails", [(), (0,), (5,), (15,), (3, 4, 12)])
def test_a_chains_event_shows_its_head(fails: tuple[int, ...], tmp_path: Path) -> None:
    made = kernel(fails)
    assert made.store(0, 4) == (not fails)
    made.store(64, 3)
    made.write(tmp_path / "v8.zr")
    result = replay.replay(Recording(tmp_path / "v8.zr"), "v8")
    assert (result.verdict, result.divergences) == ("PASS", [])
    calls = next(check for check in result.checks if check.id == "acomp.calls")
    assert calls.compared == (2 if fails and min(fails) < 8 else 3)


def test_a_call_of_all_pages_is_no_chain(tmp_path: Path) -> None:
    """The head's own size is a page: a kernel that asks for eight with one request is another posting."""
    made = kernel()
    made.store(0, 3)
    (call,) = [row for row in made.rows if row[3] == schema.CODE["crypto_acomp_compress"]]
    call[COLUMN["size"]] = call[COLUMN["dlen"]] = 8 * PAGE_SIZE
    made.write(tmp_path / "v8.zr")
    (first,) = replay.replay(Recording(tmp_path / "v8.zr"), "v8").divergences
    assert (first.check, first.predicted[2:]) == ("acomp.calls", (PAGE_SIZE, PAGE_SIZE))


# ---- pages of the requests behind the head ----------------------------------------------------------------


def block(*events: tuple[int, int, str, int]) -> Block:
    """Events as (ns, task, name, frame of the page)."""
    out = np.zeros((len(COLUMN), len(events)), np.int64)
    out[COLUMN["content"]] = -1
    for row, (ts, pid, name, frame) in enumerate(events):
        out[[COLUMN[column] for column in ("ts", "pid", "event", "folio", "size")], row] = \
            ts, pid, schema.CODE[name], VMEMMAP_BASE + 64 * frame - (1 << 64), PAGE_SIZE
    return Block.of(out)


def index(*pages: tuple[int, int]) -> PageIndex:
    """Pages as (ns, frame)."""
    address = np.array([PAGE_OFFSET_BASE + 4096 * frame for _, frame in pages], np.uint64)
    return PageIndex("pages.idx", np.array([ts for ts, _ in pages]), address, ["0" * 40] * len(pages), None,
                     (PAGE_OFFSET_BASE, VMEMMAP_BASE))


CALL, RET = "crypto_acomp_compress", "crypto_acomp_compress_ret"


@pytest.mark.parametrize("split", [False, True])
def test_pages_that_no_call_names_are_the_running_calls(split: bool) -> None:
    pages = index((11, 7), (12, 8), (13, 9), (31, 20), (32, 21))
    events = [(10, 1, CALL, 7), (20, 1, RET, 0), (30, 1, CALL, 20), (40, 1, RET, 0)]
    for part in (events[:1], events[1:]) if split else (events,):
        pages.attach(block(*part))
    assert pages.left == 3
    assert pages.chained() == {(0, 1): 1, (0, 2): 2, (2, 1): 4}
    assert pages.left == 0


@pytest.mark.parametrize(("what", "late"), [
    ("recorded behind the call's return", (21, 8)), ("of another folio", (12, 30))])
def test_other_pages_are_left(what: str, late: tuple[int, int]) -> None:
    pages = index((11, 7), late)
    pages.attach(block((10, 1, CALL, 7), (20, 1, RET, 0)))
    assert pages.chained() == {}, what
    assert pages.left == 1


def test_jobs_that_no_call_names_are_the_running_calls(tmp_path: Path) -> None:
    """Of eight jobs the call shows the first; one was spoilt by a rule, and one came when the call was over."""
    facts, jobs = capture(tmp_path, [{"pfn": 100 + 8 * n + k, "page": k % 7 + 1, "rule": int((n, k) == (3, 2)),
                                      "submitted": AHEAD + STEP * n + k + 50_000_000 * ((n, k) == (5, 4))}
                                     for n in range(20) for k in range(8)], 7)
    pages = read_device_pages(tmp_path, facts, jobs)
    assert pages is not None
    heads = whole_calls(*(100 + 8 * n for n in range(20)))
    pages.attach(heads)
    chained = pages.chained()
    digests = stored(tmp_path, pages)
    assert chained.keys() == {(3 * n, k) for n in range(20) for k in range(1, 8) if n != 5 or k < 4}
    assert [content for content in chained.values() if content < 0] == [chained[9, 2]] == [-1]
    assert all(digests[content] == hashlib.sha1(page(k % 7)).hexdigest()
               for (_, k), content in chained.items() if content >= 0)


def test_a_page_that_another_task_asked_for_is_its_own() -> None:
    pages = index((11, 7), (12, 8))
    pages.attach(block((10, 1, CALL, 7), (11, 2, CALL, 8), (20, 1, RET, 0), (21, 2, RET, 0)))
    assert (pages.chained(), pages.left) == ({}, 0)


# ---- a kernel with v8 -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def v8(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return imported(shared("v8-iaa-64k"), tmp_path_factory.mktemp("v8"))[0]


def test_a_kernel_with_v8_passes(v8: Recording) -> None:
    result = replay.replay(v8, "v8")
    assert (result.verdict, result.divergences) == ("PASS", [])
    assert len(chained_pages(v8)) == 574
    assert [loss for loss in v8.manifest["losses"] if "why" in loss] == []


def test_without_chains_the_same_pages_are_missing_calls(v8: Recording, tmp_path: Path) -> None:
    """Lost calls leave such pages, too: a revision without chains does not PASS with them, nor FAIL behind them."""
    assert v8.manifest["chained"] == 574
    # Up to its first difference, which is before all pages, nothing is in doubt.
    assert replay.replay(v8, "mainline-6.12").verdict == "FAIL"
    kernel = ImaginaryKernel("mainline-7.3")
    for slot in range(4):
        kernel.store(slot)
    kernel.write(tmp_path / "rec")
    kept = json.loads((tmp_path / "rec/manifest.json").read_text())
    call = [row[3] for row in kernel.rows].index(schema.CODE["crypto_acomp_compress"])
    for number, ends in (("PASS", False), ("UNDECIDED", True)):
        made = Recording(tmp_path / "rec")
        made.manifest["chained"] = 3 if ends else None
        result = replay.replay(made, "mainline-7.3")
        assert result.verdict == number
    assert "3 recorded pages belong to no compress call, unless requests were chained" in result.reasons[0]
    assert (kept["probes"], call > 0) == (made.manifest["probes"], True)


def test_a_cut_keeps_the_chains(v8: Recording, tmp_path: Path) -> None:
    done = cut(v8, str(tmp_path / "cut.zr"), 500, 4000, revision="v8")
    part = Recording(tmp_path / "cut.zr")
    assert replay.replay(part, "v8").verdict == "PASS"
    whole = {(event - done.start, number): v8.pages.sha1[v8.pages.refs[content]]
             for (event, number), content in chained_pages(v8).items() if done.start <= event < done.stop}
    assert whole
    assert {key: part.pages.sha1[part.pages.refs[content]]
            for key, content in chained_pages(part).items()} == whole


def counting(v8: Path, tmp_path: Path, more: int, since: int) -> Recording:
    """The same kernel, had it counted ``more`` pages as failed from a snapshot on."""
    shutil.copytree(v8, tmp_path / "v8")
    for number, path in enumerate(sorted((tmp_path / "v8").glob("counters-*.json"))):
        values = json.loads(path.read_text())
        values["zswap_debugfs"]["reject_compress_fail"] = \
            int(values["zswap_debugfs"]["reject_compress_fail"]) + more * (number >= since)
        path.write_text(json.dumps(values))
    return imported(tmp_path / "v8", tmp_path)[0]


@pytest.mark.parametrize(("more", "since", "passes"), [
    (1, 1, True), (-1, 4, True), (200, 1, False), (-28, 1, False), (1, 9, False)])
def test_what_rejected_pages_counted_is_bounded(more: int, since: int, passes: bool, tmp_path: Path) -> None:
    """Without pages nothing says which of a rejected chain failed: at least one of each, at most all, and then only."""
    result = replay.replay(counting(shared("v8-iaa-64k"), tmp_path, more, since), "v8", pages=False)
    assert (result.verdict == "PASS") == passes
    assert passes or result.divergences[0].check == "counter.zswap.reject_compress_fail"


def test_pages_that_cannot_compress_are_counted(tmp_path: Path) -> None:
    """Half of a chain's pages are random: their bytes say that each of them failed."""
    known, unknown = (replay.replay(counting(shared("v8-iaa-64k"), tmp_path / name, -6, 1), "v8", pages=pages)
                      for name, pages in (("with", True), ("without", False)))
    assert [each.check for each in known.divergences] == ["counter.zswap.reject_compress_fail"]
    assert unknown.verdict == "PASS"
