# SPDX-License-Identifier: GPL-2.0-or-later
"""replay.iaa.driver: the driver of v14, whose calls take several pages."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from iaarun import COMP, VMEMMAP, Run, batch, differs, posted

from replay.iaa.check import run_driver


def test_calls_of_several_pages_have_a_descriptor_each() -> None:
    run = posted()
    tally, notes = run.check()
    assert (tally.different, notes) == ({}, [])
    assert {name: tally.compared[f"iaa.{name}"] for name in ("submit", "queue", "completion")} == {
        "submit": 36, "queue": 36, "completion": 6}
    found = run_driver(run.recording(), "v14")
    assert found is not None
    assert [result.lengths for result in found.results.values()][3:] == [tuple(range(900, 908)), (900, -7, 800), ()]
    run.release = "6.5.0"
    assert run_driver(run.recording(), "7.3").nothing == "no iaa_crypto of 6.5.0 is modelled"  # type: ignore[union-attr]


def test_deflate_iaa_dynamic_asks_for_a_header_of_each_page() -> None:
    """Its descriptors have no table of codes; those of decompressions and checks are the same."""
    run = posted()
    run.compressor = "deflate-iaa-dynamic"
    # All of the first batch.
    assert differs(run) == {"iaa.submit": 8}
    for job in run.jobs:
        if job["op"] == "compress":
            job["flags"], job["how"] = job["flags"] & ~0x10000, job["how"] | 0x3000
    tally, notes = run.check()
    assert (tally.different, notes, tally.compared["iaa.submit"]) == ({}, [], 36)
    # Another compressor of the same driver is another compressor.
    run.event("param", 0, 0)
    run.events[-1]["text"] = "compressor=deflate-iaa"
    run.event(COMP, 1, 0, folio=VMEMMAP + 64 * 300, size=4096, dlen=4096)
    run.event(COMP + "_ret", 1, 0, ret=0, dlen=1234)
    assert differs(run) == {}


@pytest.mark.parametrize(("which", "column", "value", "check"), [
    (9, "queue", 0, "iaa.queue"), (12, "room", 8192, "iaa.submit"), (12, "flags", 0x1010C | 0x10, "iaa.submit"),
    (3, "status", 0x04, "")])
def test_what_is_wrong_in_a_batch_is_seen(which: int, column: str, value: int, check: str) -> None:
    run = posted()
    run.jobs[which][column] = value
    found = run_driver(run.recording(), "v14")
    assert found is not None
    assert [each.check for each in found.divergences] == ([check] if check else [])
    if not check:
        # The error of a completion does not reach the caller, as posted; the page's length has it.
        assert next(iter(found.results.values())).lengths[3] == -22


def test_descriptors_of_a_batch_come_page_by_page() -> None:
    run = posted()
    run.jobs[10]["n"], run.jobs[11]["n"] = 11, 10
    assert differs(run) == {"iaa.submit": 1}


def test_a_batch_may_find_its_queue_full() -> None:
    """Then the page is not compressed: -ENODEV is its length.  Where the queue had room, the driver forgot one."""
    run = Run("7.0.13", mode="async", devices=1)
    run.layer, run.options["depth"] = "v14", 8
    for n in range(3):
        batch(run, 100 + 16 * n, [900 + k for k in range(4)])
    # A descriptor is free again when its job has been polled: behind all submissions of a batch.
    batch(run, 200, [900, 901, 902, 903, -19, -19, -19, -19], ret=-22, jobs=range(4))
    assert differs(run) == {}
    batch(run, 300, [900, 901, -19], ret=-22, jobs=range(2))
    assert differs(run) == {"iaa.submit": 1, "iaa.completion": 1}
    # Another task's call has some of them.
    back = run.events.pop()
    batch(run, 400, [900, 901], cpu=1, pid=2)
    run.events.append(back)
    assert differs(run) == {}


def test_an_interrupt_before_the_call_returned_leaves_no_length() -> None:
    """v14 writes -EINPROGRESS over it; which came first, what zswap stores next shows."""
    run = Run("7.0.13", mode="async_irq", devices=1)
    run.layer = "v14"
    for k in range(3):
        run.compress(100 + k, 900, dlen=-115 & 0xFFFFFFFF)
        run.jobs[-1]["queue"] = 1
    found = run_driver(run.recording(), "v14")
    assert found is not None
    assert (found.divergences, [(each.dlen, each.early) for each in found.results.values()]) == ([], [(900, -115)] * 3)
    meant = run_driver(run.recording(), "v14-meant")
    assert meant is not None
    assert {each.early for each in meant.results.values()} == {0}


def test_a_batch_whose_completion_is_lost_never_returns() -> None:
    run = posted()
    run.jobs[5]["note"] = "lost"
    tally, _ = run.check()
    assert tally.different == {"iaa.completion": 1}
    assert "polled for ever" in tally.divergences[0].predicted


def test_an_interrupt_holds_its_descriptor_until_it_came() -> None:
    """The call has returned long before; another task's finds none, and a read goes to software."""
    run = Run("7.0.13", mode="async_irq", devices=1, wqs=1)
    run.layer, run.options["depth"] = "v14", 1
    run.compress(100, 900, dlen=-115 & 0xFFFFFFFF)
    run.event(COMP, 2, 1, folio=VMEMMAP + 64 * 101, size=4096, dlen=4096)
    run.event(COMP + "_ret", 2, 1, ret=-19, dlen=-19 & 0xFFFFFFFF)
    run.decompress(200, 900, cpu=1, pid=2, device=False, software=[(0, 4096)])
    run.event("zs_malloc", 1, 0)
    assert differs(run) == {}
    # Nothing held it when the task had run again.
    run.event(COMP, 2, 1, folio=VMEMMAP + 64 * 102, size=4096, dlen=4096)
    run.event(COMP + "_ret", 2, 1, ret=-19, dlen=-19 & 0xFFFFFFFF)
    assert "iaa.submit" in differs(run)


def checked(run: Run, pfn: int, *, without: Sequence[int] = (), cpu: int = 0, pid: int = 1) -> None:
    """A batch of two pages whose results the driver verifies, but for those of which it got no descriptor for that."""
    batch(run, pfn, [900, 901], cpu=cpu, pid=pid, queue=0)
    back = run.events.pop()
    for k in range(2):
        if k not in without:
            run.job("decompress", cpu, 0, 900 + k, 4096, 4096, to=(pfn + k) << 12, how=0x20F, same=True)["queue"] = 0
    run.events.append(back)
    if 0 in without:
        back["dlen"] = -19 & 0xFFFFFFFF


def test_a_verification_may_find_its_queue_full() -> None:
    run = Run("7.0.13", mode="async", devices=1, wqs=1, verify=1)
    run.layer, run.options["depth"] = "v14", 3
    checked(run, 100)
    assert differs(run) == {}
    checked(run, 200, without=[0])
    assert differs(run)
    # Another CPU's batch has the descriptors.
    back = run.events.pop()
    checked(run, 300, cpu=1, pid=2)
    run.events.append(back)
    assert differs(run) == {}


def test_a_page_behind_one_without_a_descriptor_is_itself() -> None:
    """Its checksum, and its turn: the refused page took one, too."""
    kept = [bytes([k + 1]) * 4096 for k in range(8)]
    run = Run("7.0.13", mode="async", devices=2, wqs=2)
    run.layer, run.options["depth"] = "v14", 4
    run.pages = SimpleNamespace(refs=np.arange(8), blocks=lambda: iter([(0, kept)]))
    batch(run, 200, [900, -19, 902], ret=-22, jobs=[0, 2])
    run.events[0]["content"] = 4
    for job, ref, device in zip(run.jobs, (4, 6), (0, 0), strict=True):
        job.update(crc=zlib.crc32(kept[ref]), device=device)
    back = run.events.pop()
    batch(run, 300, [800, 801], cpu=1, pid=2)
    run.events.append(back)
    for job, device in zip(run.jobs[2:], (1, 0), strict=True):
        job.update(crc=0, device=device)
    tally, _ = run.check()
    assert (tally.different, tally.compared["iaa.crc"]) == ({}, 2)
    run.jobs[1]["crc"] ^= 1
    assert differs(run) == {"iaa.crc": 1}
    run.jobs[1].update(crc=0, device=1)
    assert differs(run) == {"iaa.queue": 1}


def test_the_first_page_of_a_batch_took_its_turn_without_a_descriptor() -> None:
    run = Run("7.0.13", mode="async", devices=2, wqs=2)
    run.layer, run.options["depth"] = "v14", 4
    batch(run, 200, [-19, 901, 902, 903], ret=-22, jobs=[1, 2])
    back = run.events.pop()
    batch(run, 300, [800, 801], cpu=1, pid=2)
    run.events.append(back)
    for job, device in zip(run.jobs, (1, 0, 1, 0), strict=True):
        job["device"] = device
    tally, notes = run.check()
    assert (tally.different, notes) == ({}, [])
    run.jobs[1]["device"] = 1
    assert differs(run) == {"iaa.queue": 1}
