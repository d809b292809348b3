# SPDX-License-Identifier: GPL-2.0-or-later
"""Synthetic recordings of a kernel and of one that was changed, for the tests of regress."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from model.crypto import Compressor, CompressResult
from replay.tools.synthetic import ImaginaryKernel, config
from traces import schema
from traces.recording import Recording, RecordingWriter

__all__ = ["ByFirstByte", "Plan", "record"]

COLUMN = {name: index for index, name in enumerate(schema.column_names())}
CODE = schema.CODE
#: Two of them do not compress.
PAGES = [bytes([number]) * 8 + random.Random(number).randbytes(4088) for number in (*range(38), 200, 201)]


#: When recordings begin, ns: no two at the same time, as no two runs do.
_STARTS = itertools.count(1_000_000, 1_000_000)


class ByFirstByte:
    """A compressor whose lengths are chosen: by the page's first byte, plus ``longer``."""

    name = "lz4"

    def __init__(self, longer: int = 0) -> None:
        self.longer = longer

    def compress(self, page: bytes) -> CompressResult:
        length = 200 + 50 * page[0] + self.longer
        data = hashlib.sha256(page).digest() * 128
        return CompressResult(0, length, data[:length]) if length < 4096 else CompressResult(-22, 4096, b"")


@dataclass
class Plan:
    """What a recording is to have: ``longer``: bytes added to every length; ``batch``: pages to a compress call;
    ``slow``: share by which every stamp is stretched; ``extra``: stores added at the end; ``digests``: what pages are
    known by; ``counters``: of the last snapshot; ``losses``, ``cpu_model``, ``release``: of the manifest."""

    longer: int = 0
    batch: int = 1
    slow: float = 0.0
    extra: int = 0
    digests: Callable[[bytes], str] | None = None
    counters: dict[str, int] = field(default_factory=dict)
    losses: list[dict[str, Any]] = field(default_factory=lambda: [{"cpu": 0, "lost": 0}])
    cpu_model: str = "Some CPU"
    release: str = "7.3"
    snapshots: bool = True
    without: str = ""
    #: ns by which all of it is later, 0 for a time of its own
    later: int = 0


def record(path: Path, plan: Plan | None = None) -> Recording:
    """Write a recording: 64 KiB folios and single pages stored, loaded, freed, stored over."""
    plan = plan or Plan()
    kernel = ImaginaryKernel(pages=PAGES, compressor=cast(Compressor, ByFirstByte(plan.longer)))
    for slot in range(0, 128, 16):
        kernel.store(slot, 4)
    for slot in range(128, 160):
        kernel.store(slot)
    half = len(kernel.rows)
    for slot in range(60):
        kernel.load(slot)
    for slot in range(60, 100):
        kernel.invalidate(slot)
    for slot in range(128, 140):
        kernel.store(slot)
    kernel.compact()
    for slot in range(200, 200 + plan.extra):
        kernel.store(slot)
    rows = [row[:] for row in kernel.rows]
    numbers = [0, half, len(rows)]
    made = config()
    made["config"]["compressor"] = "lz4"
    made["kernel"] = {"release": plan.release, "version": plan.release, "cpu_model": plan.cpu_model}
    made["losses"] = plan.losses
    made["probes"].pop(plan.without, None)
    texts = {}
    if plan.snapshots:
        for snapshot, at in reversed(list(enumerate(numbers))):
            mark = [0] * len(rows[0])
            mark[0] = rows[min(at, len(rows) - 1)][0]
            mark[COLUMN["event"]], mark[COLUMN["ret"]], mark[COLUMN["content"]] = CODE["counters"], snapshot, -1
            rows.insert(at, mark)
            texts[at + snapshot] = ("before", "middle", "end")[snapshot]
    if plan.batch > 1:
        rows, texts = _batched(rows, texts, plan.batch)
    if plan.without:
        keep = [row[COLUMN["event"]] != CODE[plan.without] for row in rows]
        texts = {sum(keep[:at]): text for at, text in texts.items()}
        rows = [row for row, kept in zip(rows, keep, strict=True) if kept]
    later = plan.later or next(_STARTS)
    for row in rows:
        row[0] = round(row[0] * (1 + plan.slow)) + later
    block = np.array([[int(value) & (1 << 64) - 1 for value in row] for row in rows], np.uint64).view(np.int64).T
    with RecordingWriter(path) as writer:
        writer.write_rows(np.ascontiguousarray(block), sorted(texts.items()))
        for page in kernel.handed:
            data = PAGES[page]
            if plan.digests is None:
                writer.pages.add(data)
            else:
                writer.pages.add(None, plan.digests(data))
        if plan.snapshots:
            for snapshot, (stored, pool) in enumerate(((0, 0), (160, 90), (72 + plan.extra, 50))):
                debugfs = {"stored_pages": stored, "pool_total_size": pool << 12, "reject_compress_fail": 0,
                           "pool_limit_hit": 0}
                if snapshot == 2:
                    debugfs |= plan.counters
                writer.add_snapshot(("before", "middle", "end")[snapshot], int(rows[0][0]) + snapshot,
                                    {"t": snapshot, "zswap_debugfs": {k: str(v) for k, v in debugfs.items()},
                                     "vmstat": {"zswpout": 160 * snapshot}})
        writer.close(made)
    return Recording(path)


def _batched(rows: list[list[int]], texts: dict[int, str], batch: int) -> tuple[list[list[int]], dict[int, str]]:
    """Put the compress calls of a store together, ``batch`` pages to a call, before what follows from them."""
    out: list[list[int]] = []
    places = {}
    held: list[list[int]] = []
    waiting: list[list[int]] = []
    event = COLUMN["event"]

    def flush() -> None:
        nonlocal held, waiting
        calls = held[::2]
        for first in range(0, len(calls), batch):
            part = calls[first:first + batch]
            part[0][COLUMN["size"]] = len(part) * schema.PAGE_SIZE
            out.extend((part[0], held[2 * first + 1]))
        out.extend(waiting)
        held, waiting = [], []

    inside = False
    for number, row in enumerate(rows):
        if number in texts:
            places[len(out)] = texts[number]
        if row[event] == CODE["zswap_store"]:
            inside = True
            out.append(row)
        elif row[event] == CODE["zswap_store_ret"]:
            flush()
            inside = False
            out.append(row)
        elif inside and row[event] in (CODE["crypto_acomp_compress"], CODE["crypto_acomp_compress_ret"]):
            held.append(row)
        elif inside and held:
            waiting.append(row)
        else:
            out.append(row)
    stamps = sorted(row[0] for row in out)
    for row, stamp in zip(out, stamps, strict=True):
        row[0] = stamp
    return out, places
