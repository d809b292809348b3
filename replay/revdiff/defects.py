# SPDX-License-Identifier: GPL-2.0-or-later
"""Known defects as scenarios: what each needs, where it is found, and where it is not.

``python -m replay.revdiff.defects`` runs them all and says what was found; with names it runs those.  ``--markdown``
prints the table of docs/defects.md.  What no scenario can show is in :data:`UNSEEN` with the reason.  The scenarios'
language is :mod:`replay.revdiff.scenario`'s; nothing that finds anything is in this module.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model.crypto import knownanswers as known
from model.crypto.base import CompressResult
from replay.revdiff.freerun import Operation
from replay.revdiff.lockstep import RESPECTS
from replay.revdiff.scenario import (
    Breaks,
    Counts,
    Find,
    Iaa,
    Parts,
    PoolStep,
    Request,
    Scenario,
    ScenarioSetup,
    dirty,
    meets,
)

__all__ = ["SCENARIOS", "UNSEEN", "UnseenDefect", "main", "table"]

_PAGES: Final = dict(known.pages())
_TEXT: Final = _PAGES["text"]
_NOISE: Final = known.noise(3)
#: with the kernel's LZ4 exactly a page
_EXACT: Final = known.repeat_in_noise(21)
#: deflate makes 889 bytes of it; the last one has the end of the stream and nothing else
_END_APART: Final = known.noise(8, 209) + _PAGES["records"][:4096 - 209]
#: a match that reaches 2600 bytes back
_FAR: Final = known.noise(11, 2600) + known.noise(11, 1496)
_WB: Final = "mem_cgroup_zswap_writeback_enabled_ret"
_OFF: Final[dict[str, Any]] = {_WB: False}


def _out(slot: int, *pages: bytes, **answers: Any) -> Operation:
    """Swap a folio of these pages out."""
    return Operation("writeout", slot, len(pages).bit_length() - 1, pages, answers=answers)


def _in(slot: int) -> Operation:
    return Operation("load", slot)


def _on(*revisions: str) -> tuple[ScenarioSetup, ...]:
    return tuple(ScenarioSetup(revision) for revision in revisions)


SCENARIOS: Final = (
    Scenario(
        "L1", "v14 26/26, v12 23/23, zswap_compress()",
        "a compressor's success with a length of exactly a page is kept as compressed data, and read back as the page",
        (_out(16, _EXACT), _in(16)), _on("v14", "v14-on-7.3", "v12"),
        (Breaks(1, "is not the page written there", "data"),),
        _on("v14-meant", "v12-meant", "v14-25", "v12-22", "v8", "mainline-6.12", "mainline-6.18", "mainline-7.3")),
    Scenario(
        "L2", "v14 18/26, acomp_do_req_batch_parallel()",
        "an error that a batch finds at completion is kept in an unsigned field and lost: a folio whose cgroup forbids "
        "writeback is stored with an incompressible page in it",
        (_out(32, *[_TEXT] * 15, _NOISE, **_OFF), _in(47)), _on("v14", "v14-on-7.3"),
        (Breaks(0, "returned 0, but left the error", "call and lengths"),
         Breaks(0, "kept as it is, though its cgroup forbids", "writeback"),
         Parts(0, "result", ScenarioSetup("v14-meant"))),
        _on("v14-meant", "v14-25", "v12", "v12-meant", "v8", "mainline-7.0", "mainline-7.3"), compressor="deflate-iaa"),
    Scenario(
        "L3", "v14 26/26 with 12/26, and v12",
        "an error that is returned before the driver writes lengths leaves those of before: what the buffer still "
        "holds is stored as the page",
        (_out(16, _TEXT), _out(17, _NOISE), _in(17)), _on("v14", "v12"),
        (Breaks(1, "is stale", "fresh lengths"), Breaks(2, "is not the page written there", "data")),
        _on("v14-meant", "v8", "mainline-7.0", "mainline-7.3"), compressor="deflate-iaa", iaa=Iaa(gone_before=1),
        note="the last IAA queue is taken away after the first store"),
    Scenario(
        "L3b", "v14 18/26, acomp_do_req_batch_parallel()",
        "the same for a batch: its completion takes a wait-queue for its per-CPU context",
        (_out(16, _TEXT), _out(32, *[_TEXT] * 4)), _on("v14"), (Breaks(1, "KernelFault", "wrong pointer"),),
        _on("v14-meant", "v8", "mainline-7.0", "mainline-7.3"), compressor="deflate-iaa", iaa=Iaa(gone_before=1),
        note="the last IAA queue is taken away after the first store"),
    Scenario(
        "L4", "v14 26/26, v12 23/23, zswap_compress()",
        "a page that is stored as it is stays mapped when zs_malloc() fails",
        (_out(16, _NOISE),), _on("v14", "v12"), (Breaks(0, "local mapping .* left behind", "ledger"),),
        _on("v14-meant", "v12-meant", "v14-25", "mainline-7.3"),
        faults=({"at": "zs_malloc", "call": 1, "error": "-ENOMEM"},)),
    Scenario(
        "L5", "v14 26/26, zswap_compress()",
        "a compressor's success with a length of 0 rejects the folio, where mainline keeps the page as it is",
        (_out(16, _TEXT),), _on("v14", "v12"),
        (Breaks(0, "neither an error nor 1 to", "length in range"), Parts(0, "stored", ScenarioSetup("mainline-7.3"))),
        _on("v14-meant", "v14-25", "mainline-7.0"), lengths=lambda page: CompressResult(0, 0, b""),
        note="with a compressor made for it: no real one does that"),
    Scenario(
        "L6", "v14 25/26, zswap_entries_cache_alloc_batch()",
        "a bulk allocation that gives some entries is counted as a failure, and the single one that fails then again",
        (_out(16, *[_TEXT] * 8),), _on("v14", "v14-25"), (Breaks(0, "reject_kmemcache_fail moved by 2", "counters"),),
        _on("v12", "v8", "mainline-7.0", "mainline-7.3"),
        faults=({"at": "entry_alloc_bulk", "call": 1, "got": 3, "error": "-ENOMEM"},
                {"at": "entry_alloc", "call": 5, "error": "-ENOMEM"}),
        note="no kernel's kmem_cache_alloc_bulk() gives some"),
    Scenario(
        "L7", "v14 25/26 on 7.2 and later, zswap_entries_cache_alloc_batch()",
        "kmem_cache_alloc_bulk() returns a bool there, which is taken for a number: of each batch one entry is given "
        "back and the others are lost",
        (_out(16, *[_TEXT] * 16),), _on("v14-on-7.3"),
        (Breaks(0, r"succeeded, and counts as rejected: reject_kmemcache_fail \+2", "counters"),
         Breaks(0, "30 zswap entries are allocated, the trees hold 16", "balance")),
        _on("v14", "v12", "mainline-7.3")),
    Scenario(
        "L8", "v12 22/23, zswap_store_pages()",
        "when bulk allocation and then a single one fails, handles are freed that were never set",
        (_out(16, *[_TEXT] * 8),), _on("v12", "v12-22"),
        (Breaks(0, "never set.* is given back but is not live", "ledger"),),
        _on("v12-meant", "v14", "v8", "mainline-6.18", "mainline-7.3"),
        faults=({"at": "entry_alloc_bulk", "call": 1, "error": "-ENOMEM"},
                {"at": "entry_alloc", "call": 3, "error": "-ENOMEM"})),
    Scenario(
        "L9", "v14 23/26 to 26/26, acomp_ctx_dealloc()",
        "what is freed stays in its pointers: when a pool cannot be created, the context that failed is freed twice",
        (PoolStep("create"),), _on("v14", "v14-23"),
        (Breaks(0, r"'acomp of CPU [01]' is given back but is not live", "ledger"),),
        _on("v14-meant", "mainline-6.12", "mainline-7.0", "mainline-7.1", "mainline-7.3"),
        faults=({"at": "kmalloc", "call": 6, "error": "-ENOMEM"},),
        note="the sixth allocation fails: of v14 buffers[2] of the first of two CPUs, of mainline the request of the "
             "second"),
    Scenario(
        "L9-online", "v14 23/26 to 26/26, zswap_cpu_comp_prepare()",
        "a CPU whose context could not be allocated is taken for ready when it is brought up again",
        (PoolStep("create"), PoolStep("online", 2), PoolStep("online", 2), PoolStep("store", 2), PoolStep("destroy")),
        _on("v14-23"),
        (Breaks(3, r"'acomp of CPU 2' is used but is not live", "ledger"),
         Breaks(4, r"'acomp of CPU 2' is given back but is not live", "ledger")),
        _on("mainline-6.18", "mainline-7.1", "mainline-7.3"),
        faults=({"at": "kmalloc", "call": 9, "error": "-ENOMEM"},), note="the allocation of its request fails"),
    Scenario(
        "L11", "v14 12/26 and v12 with async_irq",
        "-EINPROGRESS is written as the length after submission, over what an early interrupt wrote: a page that "
        "compresses is stored as it is",
        (_out(16, _TEXT), _in(16)), _on("v14", "v12"),
        (Breaks(0, "returned 0, but left the error -115", "call and lengths"),
         Parts(0, "stored", ScenarioSetup("v14-meant"))),
        _on("v14-meant", "mainline-7.0", "mainline-7.3"), compressor="deflate-iaa",
        iaa=Iaa({"sync_mode": "async_irq", "irq": "early"})),
    Scenario(
        "L13", "v14 26/26 and mainline, zswap_compress()",
        "any error of the hardware keeps the page as it is, where the postings' text has it go to the swap device as "
        "v8 does",
        (_out(16, _TEXT),), _on("v14", "mainline-7.0", "mainline-7.3"), (Parts(0, "stored", ScenarioSetup("v8")),),
        _on("mainline-6.12"), compressor="deflate-iaa",
        faults=({"at": "complete", "call": 1, "error": "-ETIMEDOUT"},),
        note="v14 and mainline do not differ here: a difference from v8, not of v14"),
    Scenario(
        "L14", "v14 25/26 and v12, zswap_store()",
        "memory.zswap.writeback is asked once for a folio, before anything else, and not again where it matters",
        (_out(512, *[_TEXT] * 9, _NOISE, *[_TEXT] * 245, known.noise(4), *[_TEXT] * 256,
              **{_WB: [True, False, False]}),),
        _on("v14", "v14-25", "v12"), (Parts(0, "result", ScenarioSetup("mainline-7.0")),),
        _on("mainline-7.1", "mainline-6.18"),
        note="writeback is switched off while the folio is stored, after its first incompressible page; that the "
             "statement runs without RCU a model cannot show"),
    Scenario(
        "L15", "v6 2/3, zswap_store()",
        "with mthp_enabled switched off a large folio is refused with its older pages still in zswap, which later "
        "loads get",
        (Operation("param", text="mthp_enabled=Y"), _out(16, *[_TEXT] * 4), Operation("param", text="mthp_enabled=N"),
         _out(16, *[_PAGES["records"]] * 4), _in(17)), _on("v6"),
        (Breaks(4, "is not the page written there", "data"),), _on("v6-meant", "v8", "mainline-6.12", "mainline-7.3")),
    Scenario(
        "L16", "v6 2/3, zswap_store_page()", "ZSWPOUT counts the pages of a folio that is rejected in the end",
        (Operation("param", text="mthp_enabled=Y"), _out(16, *[_TEXT] * 9, _NOISE, *[_TEXT] * 6)), _on("v6"),
        (Breaks(1, "zswpout is 9, but folios of 0 pages", "counters"),),
        _on("v6-meant", "v8", "mainline-6.12", "mainline-7.3")),
    Scenario(
        "L18", "v14 16/26, v12 and v8",
        "a length of -EAGAIN says that a job is pending: one that ends so is polled for ever",
        (_out(16, *[_TEXT] * 8),), _on("v14", "v12", "v8"), (Breaks(0, "NeverCompletes", "completion"),),
        _on("v14-meant", "mainline-7.0", "mainline-7.3"), compressor="deflate-iaa",
        faults=({"at": "complete", "call": 3, "error": "-EAGAIN"},)),
    Scenario(
        "L19", "mainline, zswap_compress()",
        "a page that compresses to 3625 bytes or more takes a whole page of the pool and is not counted as "
        "incompressible", (_out(16, _PAGES["zeros-54"]),), _on("mainline-7.0", "mainline-7.3", "v14"),
        (Counts(0, {"pool_pages": 1, "stored_incompressible_pages": 0, "stored_pages": 1}),), compressor="lz4",
        note="no defect: nothing differs"),
    Scenario(
        "v12_unit_size", "v12 14/23 to 22/23, iaa_crypto",
        "slen is divided by a request's unit_size, which zswap sets from 23/23 on: stopping at any patch between them "
        "leaves deflate-iaa dividing by 0 at the first store",
        (_out(16, _TEXT), _in(16)), _on("v12-22"),
        (Breaks(0, "KernelFault: .* divides by a unit_size of 0", "division"),),
        _on("v12", "v12-meant", "v14-25", "mainline-6.18"), compressor="deflate-iaa",
        note="found by the test of the invariants; what bisecting the series would meet"),
    # ---- 2026 ---------------------------------------------------------------------------------------------------
    Scenario(
        "iaa_multi_sg", "drivers/crypto/intel/iaa, up to 7.0",
        "lists of two entries are refused, so that an object on two pages cannot be loaded once zswap reads it as a "
        "list",
        (_out(16, *[_TEXT] * 16), *(_in(16 + n) for n in range(16))), (*_on("mainline-7.0", "sg-read"),),
        (Breaks(3, "cannot be read back", "data"),),
        (*_on("mainline-6.18", "mainline-7.3"),
         ScenarioSetup("mainline-7.0", without=frozenset({"iaa_multi_sg", "deflate_window"}))),
        compressor="deflate-iaa", note="7.1 and 7.2 load it, but see `deflate_window`"),
    Scenario(
        "deflate_enospc", "crypto/deflate.c, up to 6.19",
        "with the destination full the end of a stream in the source's second piece is refused with -ENOSPC",
        (_out(16, *[_END_APART] * 16), _in(24)), (*_on("sg-read"),), (Breaks(1, "cannot be read back", "data"),),
        (*_on("mainline-7.0", "mainline-7.3", "mainline-6.18"),
         ScenarioSetup("sg-read", without=frozenset({"deflate_enospc"}))),
        compressor="deflate", note="6.18 and 6.19 read objects in a row: only with lists on top of them"),
    Scenario(
        "deflate_window", "crypto/deflate.c, up to 7.3-rc7",
        "inflate gets a window of 2 KiB for data of IAA's 4 KiB, so that the software fallback fails where a match of "
        "the second piece reaches further back",
        (_out(16, *[_FAR] * 4), *(_in(16 + n) for n in range(4))), (*_on("mainline-7.1", "mainline-7.2"),),
        (Breaks(3, "cannot be read back", "data"),),
        (*_on("mainline-7.3"), ScenarioSetup("mainline-7.2", without=frozenset({"deflate_window"}))),
        compressor="deflate-iaa"),
    Scenario(
        "deflate_window-7.3", "crypto/deflate.c, up to 7.3-rc7",
        "the same in 7.3, where the fallback is only reached without a bounce page",
        (_out(16, *[_FAR] * 4), *(_in(16 + n) for n in range(4))), _on("mainline-7.3"),
        (Breaks(3, "cannot be read back", "data"),),
        (ScenarioSetup("mainline-7.3", without=frozenset({"deflate_window"})),),
        compressor="deflate-iaa", faults=({"at": "bounce_alloc", "error": "-ENOMEM"},)),
    Scenario(
        "zstd_stream", "crypto/zstd.c, up to 7.3-rc7",
        "a compression into several entries ends its frame once, in what is left of the entry at hand: success with "
        "a frame that is cut off",
        tuple(Request(_PAGES["records"], destination=(size,)) for size in (670, 679, 690)),
        (ScenarioSetup(layer="7.3"),), (Breaks(1, "is not the page|cannot be decompressed", "data"),),
        (ScenarioSetup(layer="7.3", without=frozenset({"zstd_stream"})),), compressor="zstd",
        note="not through zswap, whose destination is one entry; its loads through two source entries are not harmed"),
    Scenario(
        "acomp_virt_to_sg", "crypto/acompress.c of 6.15", "a folio as destination is stored as the source",
        (Request(_TEXT, source=(), folio=True),), (ScenarioSetup(layer="7.3", also=frozenset({"acomp_virt_to_sg"})),),
        (Breaks(0, "KernelFault", "wrong pointer"),), (ScenarioSetup(layer="7.3"),), compressor="deflate-iaa",
        note="not through zswap, which never gives a folio as destination; 6.18 and later take none"),
    Scenario(
        "acomp_save_req", "crypto/acompress.c, 6.18 and 6.19",
        "a converted request that completes asynchronously finds a pointer to another member and takes it for the "
        "request",
        (Request(_TEXT, source=(), destination=()),), (ScenarioSetup(layer="6.18"), ScenarioSetup(layer="6.19")),
        (Breaks(0, "KernelFault", "wrong pointer"),),
        (ScenarioSetup(layer="7.0"), ScenarioSetup(layer="6.18", without=frozenset({"acomp_save_req"}))),
        compressor="deflate-iaa",
        iaa=Iaa({"sync_mode": "async_irq"}), note="not through zswap, which gives lists: they are not converted"),
    Scenario(
        "rebalance_wq_table", "drivers/crypto/intel/iaa, 6.18 and 6.19",
        "the counter of CPUs starts anew on each node: devices behind those of the first stay unused",
        tuple(Request(_TEXT, cpu=cpu) for cpu in range(8)), (ScenarioSetup(layer="6.18"), ScenarioSetup(layer="6.19")),
        (Breaks(7, "got no job of any CPU", "work of devices"),),
        (ScenarioSetup(layer="6.12"), ScenarioSetup(layer="7.0"), ScenarioSetup(layer="7.3"),
         ScenarioSetup(layer="6.18", without=frozenset({"rebalance_wq_table"}))),
        compressor="deflate-iaa", iaa=Iaa(devices=4, wqs=1, packages=2),
        note="zswap notices nothing but the time it takes"),
)


@dataclass(frozen=True)
class UnseenDefect:
    """A defect that neither a trace nor these models can show, and why."""

    name: str
    where: str
    what: str
    why: str


UNSEEN: Final = (
    UnseenDefect("L10", "v14 18/26", "a request's context is declared with 4 bytes and holds a pointer of 8",
                 "a write behind an object, which kmalloc's rounding hides: KASAN finds it, no effect of zswap "
                 "changes"),
    UnseenDefect("L12", "v14 12/26", "init_fixed sets a local variable only",
                 "nothing reads what it should have set, so it has no effect"),
    UnseenDefect("L17", "v8 14/14, zswap_store()",
                 "the context's mutex is held while entries are allocated and inserted",
                 "who waits how long is time, which no model here has; a recording shows it as the time of loads"),
)


def table() -> str:
    """Return the table of docs/defects.md."""
    rows = ["| defect | in | what happens | found as | at operation | on | nothing on |",
            "|---|---|---|---|---|---|---|"]
    for one in SCENARIOS:
        how = "; ".join(_how(find) for find in one.finds)
        at = ", ".join(dict.fromkeys(str(find.at) for find in one.finds))
        note = f" ({one.note})" if one.note else ""
        rows.append(f"| {one.name} | {one.where} | {one.what}{note} | {how} | {at} | {_names(one.shown)} | "
                    f"{_names(one.clean) or '-'} |")
    for none in UNSEEN:
        rows.append(f"| {none.name} | {none.where} | {none.what} | not shown: {none.why} | - | - | - |")
    return "\n".join(rows)


def _names(setups: Sequence[ScenarioSetup]) -> str:
    return ", ".join(str(setup) for setup in setups)


def _how(find: Find) -> str:
    if isinstance(find, Breaks):
        return f"invariant: {find.check}"
    if isinstance(find, Parts):
        return f"differs from {find.other}: {RESPECTS[find.respect]}"
    return "counters: " + ", ".join(f"{name} {value:+d}" for name, value in find.counters.items())


def _run(one: Scenario) -> Iterator[tuple[bool, str]]:
    """Yield for each thing that must be found, or must not be, whether it is so, and a line."""
    for setup in one.shown:
        for find in one.finds:
            got = meets(find, one, setup)
            text = got[0].sentence if got else f"NOT FOUND: {_how(find)}"
            yield bool(got), f"{one.name} on {setup}, operation {find.at}: {text}"
    for setup in one.clean:
        wrong = [text for find in one.finds for text in dirty(find, one, setup)]
        yield not wrong, f"{one.name} on {setup}: {'FOUND: ' + wrong[0] if wrong else 'nothing'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run scenarios and print what they show; 1 when one does not show what it should."""
    parser = argparse.ArgumentParser(prog="python -m replay.revdiff.defects",
                                     description="Run scenarios of known defects.")
    parser.add_argument("name", nargs="*", help="run these only")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/defects.md")
    options = parser.parse_args(arguments)
    if options.markdown:
        print(table())
        return 0
    unknown = set(options.name) - {one.name for one in SCENARIOS}
    if unknown:
        print(f"no scenario is called {sorted(unknown)[0]!r}; name one of {', '.join(one.name for one in SCENARIOS)}",
              file=sys.stderr)
        return 2
    good = True
    for one in SCENARIOS:
        if not options.name or one.name in options.name:
            for right, line in _run(one):
                good &= right
                print(line)
    return 0 if good else 1


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
