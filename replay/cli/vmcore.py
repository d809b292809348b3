# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay vmcore``: zswap in the memory image of a dead box."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from replay.cli.replay_ import value, wrapped
from replay.cli.terminal import counting, table
from replay.tools.vmcore import CoreResult, check_core
from traces.vmcore import EntryImage, read_core

__all__ = ["add_parser", "run"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "vmcore", help="list and check zswap in an ELF vmcore of a dead box",
        description="List every zswap entry in an ELF vmcore (kdump, QEMU dump-guest-memory; x86-64), check that it "
                    "decompresses and lies where the model says it may, that lists and trees hold together, and that "
                    "totals equal the counters in the core. Symbols and structure layouts are taken from the core "
                    "when it has a VMCOREINFO note, else from what is named here. Exit status: 0 PASS, 1 FAIL, "
                    "2 unreadable, 3 UNDECIDED (memory is missing from the core).")
    parser.add_argument("core", metavar="CORE")
    parser.add_argument("--vmlinux", metavar="FILE", help="the kernel's vmlinux: symbols and BTF")
    parser.add_argument("--btf", metavar="FILE", help="the kernel's BTF, as in /sys/kernel/btf/vmlinux")
    parser.add_argument("--symbols", metavar="FILE", help="/proc/kallsyms of that boot, or System.map")
    parser.add_argument("--entries", action="store_true", help="list every entry")
    parser.add_argument("--bytes", action="store_true", help="with the bytes stored, in hex (they are user memory)")
    parser.add_argument("--json", action="store_true", help="print the result and all entries as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the core, check it, print both."""
    image = read_core(arguments.core, vmlinux=arguments.vmlinux, btf=arguments.btf, symbols=arguments.symbols)
    with counting("checking entries") as progress:
        result = check_core(image, progress)
    if arguments.json:
        print(json.dumps(result.as_dict() | {"entries": [row(result, entry, arguments.bytes)
                                                         for entry in image.entries]}, default=str))
        return result.exit_status
    for line in report(result):
        print(line)
    if arguments.entries or arguments.bytes:
        print()
        for line in listing(result, arguments.bytes):
            print(line)
    return result.exit_status


def row(result: CoreResult, entry: EntryImage, with_bytes: bool) -> dict[str, Any]:
    """Return an entry as plain data; what is stored is user memory, so not even a digest unless it is asked for."""
    image = result.image
    pool, obj, data = image.pools.get(entry.pool), image.object_of(entry), image.bytes_of(entry)
    out: dict[str, Any] = {
        "type": entry.type, "offset": entry.offset, "length": entry.length,
        "compressor": pool.compressor if pool is not None else None, "pool": hex(entry.pool),
        "handle": hex(entry.handle), "referenced": entry.referenced, "entry": hex(entry.address),
        "in_core": data is not None,
    }
    if obj is not None:
        page, offset = obj.place
        out |= {"zspage": hex(obj.zspage.address), "class": obj.zspage.cls.index, "index": obj.index, "page": page,
                "page_offset": offset, "pfn": obj.zspage.frames[page] if page < len(obj.zspage.frames) else None}
    if with_bytes:
        out["bytes"] = data.hex() if data is not None else None
    return out


def listing(result: CoreResult, with_bytes: bool) -> Iterator[str]:
    """Yield the entries as a table, or one by one with their bytes."""
    rows: list[tuple[str, ...]] = [
        ("swap", "offset", "length", "pool", "handle", "zspage", "class", "index", "page", "at", "pfn")]
    for entry in result.image.entries:
        facts = row(result, entry, with_bytes)
        cells = (str(facts["type"]), f"{facts['offset']:#x}", str(facts["length"]), str(facts["compressor"]),
                 *(str(facts.get(key, "-")) for key in ("handle", "zspage", "class", "index", "page", "page_offset",
                                                        "pfn")))
        if with_bytes:
            yield "  ".join(cells)
            yield f"  {facts['bytes'] or 'not in the core'}"
        else:
            rows.append(cells)
    if not with_bytes:
        yield table(rows, right=[0, 1, 2, 6, 7, 8, 9, 10])


def report(result: CoreResult) -> Iterator[str]:
    """Yield the result for people: verdict, pools, every check, the differences."""
    image = result.image
    yield f"{result.verdict}  {image.path}: {len(image.entries):,} zswap entries of kernel {image.release}"
    for reason in result.reasons:
        yield from wrapped(f"  {reason}")
    for what, source in image.sources.items():
        yield f"  {what}: {source}"
    for pool in image.pools.values():
        zs_pool = image.zs_pools.get(pool.zs_pool)
        held = "not in the core"
        if zs_pool is not None:
            held = f"{len(zs_pool.handles):,} objects in {zs_pool.pages_allocated:,} pages"
        yield f"  pool {zs_pool.name if zs_pool else '?'} ({pool.compressor}): {held}"
    if result.chain_size is not None:
        yield f"  zsmalloc chain size {result.chain_size}"
    rows = [("check", "compared", "different", "grade")]
    for check in result.checks.values():
        rows.append((check.id, f"{check.compared:,}", f"{check.different:,}" if check.compared else "-",
                     "exact" if check.compared else "not captured"))
    yield table(rows, right=[1, 2])
    for check in result.checks.values():
        if check.reason:
            yield from wrapped(f"{check.id}: {check.reason}")
    for note in result.notes:
        yield from wrapped(f"note: {note}")
    for difference in result.differences[:20]:
        yield from wrapped(f"{difference.check}, {difference.where}: found {value(difference.found)}, expected "
                           f"{value(difference.expected)}")
    total = sum(check.different for check in result.checks.values())
    if total > 20:
        yield f"... {total:,} differences in all; --json has the first {len(result.differences)}"
