# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenarios: which operations the workers run, and which settings change when.

Every scenario ends with all pages read back and checked, and with the workers' exit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from traces.events import PAGE_SIZE

from .box import PARAMETERS
from .driver import WorkloadDriver

__all__ = ["SCENARIOS"]

#: Bytes that a cgroup's limit is put above its use, so that some stores fit and others do not.
_ROOM: Final = 40_000
#: Bytes that a worker itself needs to continue: page tables, its interpreter's memory.
_WORKER: Final = 256 << 10
#: Pages at a time, and seconds between: few enough that the kernel's workers have their turns.
_SLOWLY: Final = {"chunk": 16, "pause": 0.004}


def _end(d: WorkloadDriver, *regions: str) -> None:
    with d.phase("final"):
        d.read(*regions)
    d.exit()


def base(d: WorkloadDriver) -> None:
    """Page out, refault, rewrite, fork, unmap, compact, memory.max."""
    n = d.pages
    d.map("a", n, "mixed")
    with d.phase("out1"):
        d.out("a")
    with d.phase("in1"):
        d.read("a", last=n // 2)
    with d.phase("rewrite"):
        d.fill("a", "mixed", "again", last=n // 2, step=2)
    d.map("b", n // 2, "mixed")
    with d.phase("out2"):
        d.out("a", "b")
    with d.phase("in2"):
        d.read("b", step=3)
    with d.phase("out3"):
        d.out("a", "b")
    with d.phase("fork"):
        d.fork("b", "mixed")
    with d.phase("out4"):
        d.out("a", "b")
    with d.phase("unmap"):
        d.unmap("a", first=n // 4, last=n // 2)
        d.unmap("b", last=n // 8)
    with d.phase("compact"):
        d.drop_caches(3)
        d.drop_caches()
    _pressure(d, "pressure", "c", n // 2)
    _end(d, "a", "b", "c")


def _pressure(d: WorkloadDriver, phase: str, region: str, pages: int, quarters: int = 3) -> None:
    """Fill a region under a memory.max with room for ``quarters`` quarters of it.

    What is compressed is charged too: with less room than three quarters the kernel finds nothing to reclaim and
    kills a worker, unless a limit has pages go to disk.
    """
    room = (pages * PAGE_SIZE * quarters // 4 + _WORKER) * d.procs
    d.memcg("memory.max", d.usage("memory.current") + room & ~(PAGE_SIZE - 1))
    with d.phase(phase):
        d.map(region, pages, "mixed")
        d.read(region, step=2)
    d.memcg("memory.max", "max")


def _pages_over_limit(d: WorkloadDriver) -> int:
    """Return how many pages of each worker exceed max_pool_percent=1; 0 when they would be too many."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", d.box.read("proc/meminfo"), re.M)
    limit = int(total[1]) // 4 // 100 if total else 0
    # Pages of the mix "solid" take some two thirds of a page each.
    wanted = limit * 2 // d.procs
    return wanted if 0 < wanted <= max(8 * d.pages, 16384) else 0


def limits(d: WorkloadDriver) -> None:
    """The pool limit with its worker and hysteresis, also to the page; memory.zswap.max, memory.zswap.writeback."""
    n = d.pages
    unit = d.folio // PAGE_SIZE
    d.map("a", n, "mixed")
    with d.phase("out1"):
        d.out("a")

    room = _pages_over_limit(d)
    if not room:
        print("max_pool_percent=0 in place of 1: this box has much memory", flush=True)
    d.param("max_pool_percent", 1 if room else 0)
    over = room or n
    d.map("b", over, "solid")
    with d.phase("limit"):
        d.out("b", **_SLOWLY)
    # Between the threshold and the limit a store is refused if the limit was reached before.
    d.param("accept_threshold_percent", 50)
    # What is paged out in parts must have enough folios for it.
    some = max(256, 4 * unit)
    d.map("c", some, "solid")
    with d.phase("band-full"):
        d.out("c", last=some // 4, chunk=4, pause=0.004)
    with d.phase("band"):
        d.unmap("b", last=over // 8)
        d.out("c", first=some // 4, last=some // 2, chunk=8)
    with d.phase("below"):
        d.unmap("b", first=over // 8)
        d.unmap("a", last=n // 4)
        d.out("c", first=some // 2)
    d.param("accept_threshold_percent", 90)
    d.param("max_pool_percent", 20)
    with d.phase("limit-up"):
        d.out("c")
        d.read("a", step=3)

    d.memcg("memory.zswap.max", d.usage("memory.zswap.current") + _ROOM & ~(PAGE_SIZE - 1))
    d.map("e", max(192, 3 * unit), "solid")
    with d.phase("zmax"):
        d.out("e", chunk=16)
    d.memcg("memory.zswap.max", 0)
    some = max(48, 2 * unit)
    d.map("f", some, "poor")
    with d.phase("zmax-none"):
        d.out("f", last=some // 2)
    d.memcg("memory.zswap.max", "max")
    with d.phase("zmax-off"):
        d.out("f")

    d.memcg("memory.zswap.writeback", 0)
    some = max(160, 5 * unit)
    d.map("g", some, "poor")
    with d.phase("no-writeback"):
        d.out("g", last=some * 3 // 5)
    d.memcg("memory.zswap.max", PAGE_SIZE)
    with d.phase("no-writeback-zmax"):
        d.out("g", first=some * 3 // 5, last=some * 4 // 5)
    d.memcg("memory.zswap.max", "max")
    d.memcg("memory.zswap.writeback", 1)
    with d.phase("writeback"):
        d.out("g")
    with d.phase("compact"):
        d.drop_caches()
    with d.phase("checked"):
        d.read(*"abcefg")
    for region in "abcefg":
        d.unmap(region)
    # Objects of "dense" pages have a page each: such a pool grows and shrinks by one, and comes to its limit and to its
    # threshold to the page, as long as nothing is written back.
    steps = over // 64 + 32
    d.map("h", over * 5 // 8, "dense")
    d.map("i", steps, "dense")
    d.param("accept_threshold_percent", 98)
    d.param("max_pool_percent", 1 if room else 0)
    d.memcg("memory.zswap.writeback", 0)
    with d.phase("to-the-limit"):
        d.out("h", chunk=16)
    with d.phase("to-the-page"):
        for page in range(steps):
            d.unmap("h", first=page, last=page + 1)
            d.out("i", first=page, last=page + 1)
    d.memcg("memory.zswap.writeback", 1)
    d.param("accept_threshold_percent", 90)
    d.param("max_pool_percent", 20)
    _end(d, "h", "i")


def switch(d: WorkloadDriver) -> None:
    """The compressor changed while pages are stored and back again; zswap off and on."""
    n = d.pages
    first = d.box.read(f"{PARAMETERS}/compressor")
    second = "lz4" if first != "lz4" else "zstd"
    for region, pages in (("a", n), ("b", n), ("c", n // 2), ("d", n // 2)):
        d.map(region, pages, "mixed")
    with d.phase("out-first"):
        d.out("a")
    d.param("compressor", second)
    with d.phase("out-second"):
        d.out("b")
    with d.phase("in-mixed"):
        d.read("a", "b", step=3)
    d.fill("a", "mixed", "again", step=6)
    with d.phase("out-mixed"):
        d.out("a")
    with d.phase("compact"):
        d.drop_caches()
    d.param("compressor", second)
    d.param("compressor", first)
    with d.phase("out-back"):
        d.out("c")
    with d.phase("old-pool-empties"):
        d.read("a", "b")
    with d.phase("out-again"):
        d.out("a")
    d.param("enabled", "N")
    with d.phase("off"):
        d.read("a", last=n // 4)
        d.fill("a", "mixed", "off", last=n // 4, step=2)
        d.out("d", last=min(64, n // 2))
        d.out("a")
    with d.phase("in-off"):
        d.read("c", "d", step=2)
    d.param("enabled", "Y")
    d.param("compressor", second)
    with d.phase("on"):
        d.out("b", "d")
    d.param("compressor", first)
    _end(d, *"abcd")


def pressure(d: WorkloadDriver) -> None:
    """Reclaim that the kernel starts itself: memory.max, with the dynamic shrinker and under memory.zswap.max."""
    n = d.pages
    d.map("a", n, "mixed")
    with d.phase("out1"):
        d.out("a")
    _pressure(d, "max", "b", n)
    with d.phase("in1"):
        d.read("a", step=2)
    d.param("shrinker_enabled", "Y")
    _pressure(d, "shrinker-max", "c", n)
    with d.phase("shrinker-drop"):
        for _ in range(4):
            d.drop_caches()
    d.param("shrinker_enabled", "N")
    d.memcg("memory.zswap.max", d.usage("memory.zswap.current") + _ROOM & ~(PAGE_SIZE - 1))
    # Twice as many: the swap cache of what the shrinker wrote back is reclaimed first.
    _pressure(d, "zmax-max", "e", n * 2, quarters=1)
    d.memcg("memory.zswap.max", "max")
    with d.phase("compact"):
        d.drop_caches()
    _end(d, "a", "b", "c", "e")


def smp(d: WorkloadDriver) -> None:
    """Several workers on several CPUs at the same pool, with compaction and a limit in between."""
    n = d.pages
    d.map("a", n, "mixed")
    with d.phase("out1"):
        d.out("a")
    with d.phase("in1"):
        d.read("a", step=2)
    d.fill("a", "mixed", "again", step=5)
    with d.phase("out2"):
        d.out("a", chunk=32)
    with d.phase("churn"):
        d.churn("a", "mixed", "churn", rounds=8)
    with d.phase("cross"):
        d.cross("a")
        d.drop_caches()
    over = _pages_over_limit(d)
    if over:
        d.param("max_pool_percent", 1)
        d.map("b", over, "solid")
        with d.phase("limit"):
            d.out("b", **_SLOWLY)
        with d.phase("limit-churn"):
            d.churn("b", "solid", "limit", rounds=4)
        d.param("max_pool_percent", 20)
        d.unmap("b")
    with d.phase("compact"):
        d.drop_caches()
    _end(d, "a")


def swapoff(d: WorkloadDriver) -> None:
    """Swap taken off while pages are stored, which brings all of them back, and on again; twice, once with a limit."""
    n = d.pages
    d.map("a", n, "mixed")
    d.map("b", n // 2, "mixed")
    with d.phase("out1"):
        d.out("a", "b")
    with d.phase("fork"):
        d.fork("b", "mixed")
    with d.phase("off1"):
        d.box.swap_again()
    with d.phase("in1"):
        d.read("a", "b", step=2)
    d.fill("a", "mixed", "again", step=3)
    with d.phase("out2"):
        d.out("a", "b")
    d.memcg("memory.zswap.max", d.usage("memory.zswap.current") // 2 & ~(PAGE_SIZE - 1))
    d.map("c", n // 2, "mixed")
    with d.phase("out3"):
        d.out("c")
    with d.phase("off2"):
        d.box.swap_again()
    d.memcg("memory.zswap.max", "max")
    with d.phase("out4"):
        d.out("a", "c")
    _end(d, *"abc")


def edge(d: WorkloadDriver) -> None:
    """Pages whose compressed form is as long as a page or just not; then some that may not be written back."""
    n = d.pages
    d.map("a", n, "edges")
    with d.phase("out1"):
        d.out("a")
    with d.phase("in1"):
        d.read("a")
    with d.phase("out2"):
        d.out("a")
    d.memcg("memory.zswap.writeback", 0)
    d.map("b", n, "edges")
    with d.phase("no-writeback"):
        d.out("b")
    d.memcg("memory.zswap.writeback", 1)
    _end(d, *"ab")


SCENARIOS: Final[dict[str, Callable[[WorkloadDriver], None]]] = {
    "base": base, "limits": limits, "switch": switch, "pressure": pressure, "smp": smp, "swapoff": swapoff,
    "edge": edge,
}
