# SPDX-License-Identifier: GPL-2.0-or-later
"""The second oracle finds nothing on mainline, whatever is asked of it; what it does find, it finds by itself."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.crypto import compressor_for
from model.crypto import knownanswers as known
from model.crypto.base import Compressor
from model.crypto.faults import FaultPlan
from model.crypto.layers import acomp_for
from model.revisions import MAINLINE, POSTED, REVISIONS
from replay.revdiff.freerun import FreeRun, Operation

PAGES = {**dict(known.pages()), **{f"noise-{n}": known.noise(20 + n) for n in range(3)},
         "far": known.noise(11, 2600) + known.noise(11, 1496)}
#: revisions whose crypto layer cannot work, or read what it wrote, with this compressor, as scenarios of the corpus show
UNREADABLE = {("mainline-7.0", "deflate-iaa"), ("mainline-7.1", "deflate-iaa"), ("mainline-7.2", "deflate-iaa"),
              ("sg-read", "deflate-iaa"), ("sg-read", "deflate"), ("v12-22", "deflate-iaa")}
SOUND = ("lz4", "lzo", "lzo-rle", "lz4hc", "842", "zstd", "deflate", "deflate-iaa")
MEANT = ["v6-meant", "v12-meant", "v14-meant", "v14-25", "v12-22", "v8", "sg-read"]


OPERATIONS = st.lists(st.one_of(
    st.tuples(st.just("store"), st.integers(0, 3), st.sampled_from([0, 0, 1, 2, 4]),
              st.lists(st.sampled_from(sorted(PAGES)), min_size=1, max_size=5), st.sampled_from([None, True, False])),
    st.tuples(st.just("load"), st.integers(0, 63)), st.tuples(st.just("free"), st.integers(0, 63)),
    st.tuples(st.just("compact"), st.just(0)),
    st.tuples(st.just("shrink"), st.just(0)),
    st.tuples(st.just("param"), st.sampled_from(["enabled=N", "enabled=Y", "memory.zswap.writeback=0",
                                                 "memory.zswap.writeback=1", "max_pool_percent=1"]))), max_size=14)


@cache
def compressor(name: str, line: str) -> Compressor:
    return compressor_for(name, line)


def free_run(revision: str, name: str, totalram_pages: int = 1 << 20, faults: FaultPlan | None = None) -> FreeRun:
    kind, plan = REVISIONS[revision], faults or FaultPlan()
    run = FreeRun(kind, lambda tfm: acomp_for(kind.crypto_layer, None if tfm == "deflate-iaa"
                                              else compressor(tfm, kind.kernel_line), plan),
                  compressor=name, totalram_pages=totalram_pages, faults=plan)
    if revision.startswith("v6"):
        run.do(Operation("param", text="mthp_enabled=Y"))
    return run


def operation(what: tuple) -> Operation:
    kind, slot, *more = what
    if kind == "store":
        order, names, writeback = more
        pages = tuple(PAGES[names[number % len(names)]] for number in range(1 << order))
        answers = {} if writeback is None else {"mem_cgroup_zswap_writeback_enabled_ret": writeback}
        if order == 0 and not any(pages[0]):
            answers["?swap_writeout"] = "store"
        return Operation("writeout", slot * 16, order, pages, answers=answers)
    if kind == "param":
        return Operation("param", text=slot)
    return Operation({"load": "load", "free": "invalidate", "compact": "compact", "shrink": "shrink_memcg"}[kind], slot)


def run_all(revision: str, name: str, whats: list[tuple], totalram_pages: int) -> None:
    run = free_run(revision, name, totalram_pages)
    for number, what in enumerate(whats):
        outcome = run.do(operation(what))
        assert outcome.problems == [], (number, what)
    assert run.imbalances() == []


@settings(max_examples=150, deadline=None)
@given(revision=st.sampled_from(sorted(MAINLINE)), name=st.sampled_from(SOUND), whats=OPERATIONS,
       totalram_pages=st.sampled_from([1 << 20, 200]))
def test_mainline_breaks_no_invariant(revision: str, name: str, whats: list[tuple], totalram_pages: int) -> None:
    if (revision, name) in UNREADABLE:
        name = "lzo"
    run_all(revision, name, whats, totalram_pages)


@settings(max_examples=150, deadline=None)
@given(revision=st.sampled_from(MEANT), name=st.sampled_from(SOUND), whats=OPERATIONS,
       totalram_pages=st.sampled_from([1 << 20, 200]))
def test_what_is_meant_breaks_none_either(revision: str, name: str, whats: list[tuple], totalram_pages: int) -> None:
    if (revision, name) in UNREADABLE:
        name = "lzo"
    run_all(revision, name, whats, totalram_pages)


@settings(max_examples=150, deadline=None)
@given(revision=st.sampled_from(sorted(POSTED)), name=st.sampled_from(SOUND), whats=OPERATIONS)
def test_of_postings_it_says_something_and_does_not_fall_over(revision: str, name: str, whats: list[tuple]) -> None:
    run = free_run(revision, name)
    for what in whats:
        outcome = run.do(operation(what))
        assert all(isinstance(text, str) and text for text in outcome.problems)


@settings(max_examples=150, deadline=None)
@given(revision=st.sampled_from(sorted(set(MAINLINE) - {"mainline-6.12"})), whats=OPERATIONS,
       site=st.sampled_from(["zs_malloc", "entry_alloc", "xa_store", "compress"]), every=st.integers(1, 7))
def test_mainline_breaks_none_when_something_fails(revision: str, whats: list[tuple], site: str, every: int) -> None:
    """An allocation, the tree or the compressor fails: pages are rejected or kept as they are, nothing is lost."""
    error = "-EIO" if site == "compress" else "-ENOMEM"
    run = free_run(revision, "lz4", faults=FaultPlan.from_data([{"at": site, "every": every, "error": error}]))
    for number, what in enumerate(whats):
        assert run.do(operation(what)).problems == [], (number, what)


@pytest.mark.parametrize(("writeback", "said"), [(False, 1), (True, 0), ([False], 0)])
def test_a_page_kept_though_writeback_is_forbidden(writeback: object, said: int) -> None:
    """By whichever revision: here one that forgets to ask."""
    class Forgets(REVISIONS["mainline-7.3"]):  # type: ignore[misc]
        def mem_cgroup_zswap_writeback_enabled(self, expected: bool | None):  # type: ignore[no-untyped-def]
            yield ("mem_cgroup_zswap_writeback_enabled_ret", expected)
            return True

    run = FreeRun(Forgets, lambda tfm: acomp_for("7.3", compressor(tfm, "mainline-7.3"), FaultPlan()), compressor="lz4")
    answers = {"mem_cgroup_zswap_writeback_enabled_ret": writeback}
    problems = run.do(Operation("writeout", 16, 0, (PAGES["noise"],), answers=answers)).problems
    assert [text for text in problems if "forbids writeback" in text] == problems
    assert len(problems) == said


def test_a_ledger_sees_what_is_used_after_it_was_freed() -> None:
    ledger = free_run("mainline-7.3", "lz4").model.ledger
    ledger.use("thing", 1)
    ledger.take("thing", 1)
    ledger.use("thing", 1)
    ledger.give("thing", 1)
    ledger.use("thing", 1)
    assert ledger.problems == ["thing 1 is used but is not live"] * 2
