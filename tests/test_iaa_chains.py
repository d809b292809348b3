# SPDX-License-Identifier: GPL-2.0-or-later
"""replay.iaa.driver: the driver of v8, whose calls have the head of a chain of requests."""

from __future__ import annotations

import pytest
from iaarun import COMP, VMEMMAP, Run, differs

from replay.iaa.check import run_driver

#: a record of an analytics error (0x0A): the output does not fit (0x19), or another
FULL, ANOTHER = {"status": 0x0A, "error": 0x19, "out": 0}, {"status": 0x0A, "error": 0x11, "out": 0}


def chain(run: Run, pfn: int, order: int, *, cpu: int = 0, ret: int = 0, dlen: int = 900,
          bad: dict[int, dict[str, int]] | None = None, missing: tuple[int, ...] = ()) -> None:
    """zswap stores a folio of at most eight pages: one call."""
    run.event("zswap_store", 1, cpu, folio=VMEMMAP + 64 * pfn, order=order)
    run.event(COMP, 1, cpu, folio=VMEMMAP + 64 * pfn, size=4096, dlen=4096)
    for k in range(1 << order):
        if k in missing:
            run.turn[cpu] = (run.turn.get(cpu, 0) + 1) % 2
            continue
        job = run.job("compress", cpu, pfn + k, 4096, 4096, 900 + k)
        job |= (bad or {}).get(k, {})
        run.jobs[-1] = job
    run.event(COMP + "_ret", 1, cpu, ret=ret, dlen=dlen)


def v8(mode: str = "async") -> Run:
    run = Run(release="6.12.117", mode=mode, devices=1)
    run.layer = "v8"
    for n in range(8):
        chain(run, 100 + 8 * n, 3)
    return run


def lengths(run: Run) -> list[tuple[int, ...]]:
    found = run_driver(run.recording(), "v8")
    assert found is not None
    return [result.lengths for result in found.results.values()]


@pytest.mark.parametrize("mode", ["async", "sync", "async_irq"])
def test_a_chain_has_a_descriptor_for_each_request(mode: str) -> None:
    run = v8(mode)
    chain(run, 300, 1)
    chain(run, 400, 0)
    for k in range(4):
        run.decompress(500 + k, 900)
    if mode == "async_irq":
        # v8 does not ask for an interrupt.
        for job in run.jobs:
            job["flags"] &= ~0x10
        for event in run.events:
            event["ret"] = 0 if event["ret"] == -115 else event["ret"]
    tally, notes = run.check()
    assert (tally.different, notes) == ({}, [])
    assert {name: tally.compared[f"iaa.{name}"] for name in ("submit", "queue", "completion")} == {
        "submit": 8 * 8 + 2 + 1 + 4, "queue": 8 * 8 + 2 + 1 + 4, "completion": 8 + 1 + 1 + 4}
    assert lengths(run) == [tuple(range(900, 908))] * 8 + [(900, 901)] + [()] * 5


def test_errors_are_the_requests_own() -> None:
    run = v8()
    chain(run, 300, 3, bad={5: FULL, 6: ANOTHER})
    # Of an async chain the call returns the head's.
    chain(run, 400, 3, bad={0: FULL}, ret=-7, dlen=4096)
    assert differs(run) == {}
    assert lengths(run)[8:] == [(900, 901, 902, 903, 904, -7, -22, 907), (-7, *range(901, 908))]


def test_in_sync_mode_a_chain_returns_the_last_one_s_error() -> None:
    run = v8("sync")
    chain(run, 300, 3, bad={0: FULL}, dlen=4096)
    chain(run, 400, 3, bad={7: FULL}, ret=-7)
    assert differs(run) == {}


def test_a_request_without_a_descriptor_is_a_difference() -> None:
    run = v8()
    chain(run, 300, 3, missing=(4,))
    chain(run, 400, 3)
    assert differs(run) == {"iaa.submit": 1}


def test_how_long_a_chain_is_says_the_folio() -> None:
    run = v8()
    del run.probes["zswap_store"]
    found = run_driver(run.recording(), "v8")
    assert found is not None
    assert found.nothing == "zswap_store was not probed"
