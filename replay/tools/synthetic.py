# SPDX-License-Identifier: GPL-2.0-or-later
"""Synthetic recordings: the model's own effects written down as if a kernel had been recorded doing them.

They say nothing about any kernel.  They are for measuring (recordings of any size) and for tests of the
replay itself (any sequence of operations, with a known outcome).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.crypto import Compressor
from model.effects import Effect, Steps, run
from model.page import PAGE_SIZE
from model.revisions import MAINLINE, REVISIONS
from model.revisions.batchcompress import CompressToScatterList
from model.zsmalloc import SizeClass, ZsObject, Zspage, ZsPool
from model.zswap import Folio, Zswap, ZswapEntry, ZswapPool
from replay.reference.handlers.zsmalloc import zspage_word
from replay.reference.objectwords import layout_of_line
from replay.reference.settings import EVENTS as SETTINGS
from traces import schema
from traces.chained import write_chained
from traces.record.release import release_line
from traces.recording import RecordingWriter

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImaginaryKernel", "config", "cycle", "write_pages_recording", "write_recording", "write_repeated"]

_COLUMN = {name: index for index, name in enumerate(schema.column_names())}
_MEMMAP: Final = 0xFFFFEA0000000000
_SLAB: Final = 0xFFFF888000000000
_POOL: Final = _SLAB + 0x1000
_LRU: Final = 0xFFFFFFFF83F07F60
_OBJCG: Final = _SLAB + 0x2000
_MEMCG: Final = _SLAB + 0x3000
_CLASSES: Final = _SLAB + 0x10000
#: A pool and its classes are this far from those of the pool before.
_POOL_STEP: Final = 1 << 34
_ENTRY_LRU: Final = 0x28
_NS_PER_EVENT: Final = 700
_TOTALRAM: Final = 1 << 20


#: Functions that settings of cgroups decide.
_ASKED: Final = ("obj_cgroup_may_zswap_ret", "mem_cgroup_zswap_writeback_enabled_ret")


class ImaginaryKernel:
    """Runs operations of a model and writes every effect down as an event.

    :param revision: name of the revision that plays the kernel
    :param length: compressed length of the page at a swap entry; PAGE_SIZE and more do not fit
    :param pages: what is stored: the page at a swap entry is ``pages[swpent % len(pages)]``
    :param compressor: compresses ``pages``; takes the place of ``length``
    """

    def __init__(self, revision: str = "mainline-7.3", length: Callable[[int], int] | None = None,
                 totalram_pages: int = _TOTALRAM, *, pages: list[bytes] | None = None,
                 compressor: Compressor | None = None) -> None:
        self.revision = revision
        self.pages = pages or []
        #: page handed to each compress call, in order
        self.handed: list[int] = []
        self._results = [compressor.compress(page) for page in self.pages] if compressor is not None else []
        self.model: Zswap = REVISIONS[revision](totalram_pages=totalram_pages,
                                                compressor=compressor.name if compressor is not None else "lz4")
        self.model.set_param("shrinker_enabled", "Y")
        self.length = length or (lambda swpent: 100 + swpent * 2654435761 % 4100)
        self.rows: list[list[int]] = []
        self.pid = 100
        self.cpu = 0
        self._next = {"handle": _SLAB + (1 << 20), "zspage": _SLAB + (1 << 32), "entry": _SLAB + (1 << 33),
                      "frame": 1 << 16}
        self._handles: list[int] = []
        #: pools that had a malloc or a compaction, in order, and which of them a size class is of
        self._pools: list[ZsPool] = []
        self._pool_of: dict[SizeClass, int] = {}
        self._compacted = self.model.pools[0].zs_pool
        #: the pool that the store under way holds
        self._store_pool = self.model.pools[0]
        self._layout = layout_of_line(release_line(revision.removeprefix("mainline-")))
        self._folio = Folio(0)
        self._index = 0
        #: pages of the compress call under way
        self._pages = 1
        #: calls of several pages are chained requests, whose heads alone show
        self._chains = self.model.compress_call == "chain"
        self._chained: dict[tuple[int, int], int] = {}

    # ---- operations -------------------------------------------------------------------------------------

    def store(self, swpent: int, order: int = 0) -> bool:
        """Swap a folio out; True when zswap took it."""
        folio = Folio(swpent, order, _MEMMAP + swpent * 64)
        return self.do(self.model.swap_writeout(folio)) == 0 and swpent in self.model.tree

    def load(self, swpent: int) -> int:
        """Swap one page in."""
        return int(self.do(self.model.zswap_load(Folio(swpent, 0, _MEMMAP + swpent * 64))))

    def invalidate(self, swpent: int) -> None:
        """Free a swap slot."""
        self.do(self.model.zswap_invalidate(swpent))

    def compact(self, pool: int = 0) -> int:
        """Let the zsmalloc shrinker of a pool compact; 0 is the current one."""
        self._compacted = self.model.pools[pool].zs_pool
        return int(self.do(self._compacted.zs_shrinker_scan()))

    def do(self, steps: Steps[Any]) -> Any:
        """Run any operation and write its effects down."""
        return run(steps, self._answer, self._write)

    def mark(self, text: str) -> tuple[int, str]:
        """Write a marker; returns (row, text) for :func:`write_recording`."""
        self._row("marker")
        return len(self.rows) - 1, text

    # ---- effects ----------------------------------------------------------------------------------------

    def _answer(self, effect: Effect) -> Any:
        kind = effect[0]
        if kind == "crypto_acomp_compress_ret":
            return self._compressed()
        if kind == "?sg_length" and self._pages > 1:
            return self._length(effect[7])
        if kind == "obj_cgroup_charge_zswap":
            return _OBJCG
        if kind == "list_lru_add":
            return (0, _MEMCG)
        if kind == "shrink_memcg":
            return _MEMCG
        if kind == "zswap_shrinker_scan":
            return (_MEMCG, effect[3])
        return None

    def _compressed(self) -> tuple[int, int, int]:
        """What the compress call under way returns: (error, dlen, content of its first page)."""
        if self._pages > 1:
            lengths = [self._length(number)[0] for number in range(self._pages)]
            # As posted nothing says that an error found at completion was lost: the batch's call returns 0.
            error = self.model.batch_error(lengths) if isinstance(self.model, CompressToScatterList) else None
            # v12 finds lengths through pointers: what was asked for stays where it was.
            dlen = self._pages * PAGE_SIZE if self.model.compress_call == "dlens" else lengths[0]
            if self._chains:
                # The head's own.
                error, dlen = min(lengths[0], 0), lengths[0] if lengths[0] > 0 else PAGE_SIZE
            return error or 0, dlen, len(self.handed) - self._pages if self.pages else -1
        if self._results:
            result = self._results[(self._folio.swpent + self._index) % len(self._results)]
            return result.err, result.dlen, len(self.handed) - 1
        length = self.length(self._folio.swpent + self._index)
        return (-22, PAGE_SIZE, -1) if length > PAGE_SIZE else (0, length, -1)

    def _length(self, number: int) -> tuple[int, int]:
        """Length or error, and content, of one page of the compress call under way."""
        slot = self._folio.swpent + self._index + number
        if self._results:
            result = self._results[slot % len(self._results)]
            return result.err or result.dlen, len(self.handed) - self._pages + number
        length = self.length(slot)
        return (-7 if length > PAGE_SIZE else length), -1

    def _row(self, name: str, **values: int) -> None:
        row = [0] * len(schema.COLUMNS)
        row[0] = (len(self.rows) + 1) * _NS_PER_EVENT
        row[1], row[2], row[3] = self.cpu, self.pid, schema.CODE[name]
        row[_COLUMN["content"]] = -1
        for column, value in values.items():
            row[_COLUMN[column]] = value
        self.rows.append(row)

    def _write(self, effect: Effect) -> None:
        kind = effect[0]
        if kind[0] == "?" or kind in ("zs_compact", "zs_compact_ret", "memcpy"):
            return
        writer = getattr(self, "_on_" + kind.strip("_"), None)
        if writer is not None:
            writer(*effect[1:])
        elif kind.endswith("_ret"):
            self._row(kind, ret=int(effect[1]) if len(effect) > 1 and effect[1] is not None else 0)
        else:
            self._row(kind)

    def _new(self, kind: str, step: int) -> int:
        self._next[kind] += step
        return self._next[kind]

    def _word(self, zspage: Zspage, index: int) -> int:
        page, layout = zspage.cls.geometry.size * index // PAGE_SIZE, self._layout
        if zspage.frames[page] == -1:
            frame = self._new("frame", 1)
            zspage.frames[page] = layout.make(frame, zspage.cls.geometry.index, 0) >> layout.idx_bits
        return zspage.frames[page] << layout.idx_bits | index

    def _on_swap_writeout(self, folio: Folio) -> None:
        self._row("swap_writeout", folio=folio.address, swpent=folio.swpent, order=folio.order)

    def _on_zswap_store(self, folio: Folio) -> None:
        self._folio = folio
        self._row("zswap_store", folio=folio.address, swpent=folio.swpent, order=folio.order)

    def _on_zswap_load(self, folio: Folio) -> None:
        self._row("zswap_load", folio=folio.address, swpent=folio.swpent)

    def _on_swap_writepage(self, folio: Folio, flags: int) -> None:
        self._row("__swap_writepage", folio=folio.address, swpent=folio.swpent, word=flags)

    def _on_zswap_load_ret(self, ret: int, _folio: Folio | None = None, flags: int = 0) -> None:
        self._row("zswap_load_ret", ret=ret, word=flags)

    def _on_zswap_invalidate(self, swpent: int) -> None:
        self._row("zswap_invalidate", swpent=swpent)

    def _on_zswap_decompress(self, entry: ZswapEntry, folio: Folio) -> None:
        if folio.address < 0:
            # Writeback's, which is a new one in the swap cache: somewhere else than the folio that was stored.
            folio.address = _MEMMAP + (1 << 40) + folio.swpent * 64
        self._row("zswap_decompress", entry=entry.address, swpent=entry.swpent, size=entry.length,
                  handle=entry.obj.address, folio=folio.address)

    def _on_zswap_entry_free(self, entry: ZswapEntry) -> None:
        self._row("zswap_entry_free", entry=entry.address, swpent=entry.swpent, size=entry.length,
                  handle=entry.obj.address, ref=int(entry.referenced))

    def _on_shrink_memcg_cb(self, entry: ZswapEntry) -> None:
        self._row("shrink_memcg_cb", entry=entry.address + _ENTRY_LRU)

    def _on_zswap_writeback_entry(self, entry: ZswapEntry) -> None:
        self._row("zswap_writeback_entry", entry=entry.address, swpent=entry.swpent)

    def _on_zswap_shrinker_scan(self, nr_to_scan: int, cgroup: int | None, nid: int) -> None:
        self._row("zswap_shrinker_scan", size=nr_to_scan, memcg=_MEMCG, nid=nid)

    def _on_shrink_memcg(self, cgroup: int | None) -> None:
        self._row("shrink_memcg", memcg=_MEMCG)

    def _on_crypto_acomp_compress(self, folio: Folio, index: int, pages: int, pool: ZswapPool) -> None:
        self._index = index
        self._pages = pages
        self._store_pool = pool
        content = -1
        if self.pages:
            content = len(self.handed)
            self.handed += [(folio.swpent + index + number) % len(self.pages) for number in range(pages)]
            if self._chains:
                self._chained |= {(len(self.rows), number): content + number for number in range(1, pages)}
        size = PAGE_SIZE if self._chains else pages * PAGE_SIZE
        self._row("crypto_acomp_compress", folio=folio.address + 64 * index, size=size, dlen=size, content=content)

    def _on_crypto_acomp_compress_ret(self, folio: Folio, index: int) -> None:
        ret, dlen, _ = self._compressed()
        self._row("crypto_acomp_compress_ret", ret=ret, dlen=dlen)

    def _on_crypto_acomp_decompress(self, length: int) -> None:
        self._row("crypto_acomp_decompress", size=length, dlen=PAGE_SIZE)

    def _on_crypto_acomp_decompress_ret(self, ret: int, dlen: int) -> None:
        self._row("crypto_acomp_decompress_ret", ret=ret, dlen=dlen)

    def _on_obj_cgroup_charge_zswap(self, length: int) -> None:
        self._row("obj_cgroup_charge_zswap", memcg=_OBJCG, size=length)

    def _on_obj_cgroup_uncharge_zswap(self, entry: ZswapEntry) -> None:
        self._row("obj_cgroup_uncharge_zswap", memcg=_OBJCG, size=entry.length)

    def _on_list_lru_add(self, entry: ZswapEntry) -> None:
        if not entry.address:
            entry.address = self._new("entry", 56)
        self._row("list_lru_add", pool=_LRU, entry=entry.address + _ENTRY_LRU, memcg=_MEMCG)

    def _on_list_lru_del(self, entry: ZswapEntry) -> None:
        self._row("list_lru_del", pool=_LRU, entry=entry.address + _ENTRY_LRU, memcg=_MEMCG)

    def _pool(self, pool: ZsPool) -> int:
        """Return the address of a pool."""
        if pool not in self._pools:
            self._pool_of |= dict.fromkeys(pool.classes, len(self._pools))
            self._pools.append(pool)
        return _POOL + _POOL_STEP * self._pools.index(pool)

    def _on_zs_malloc(self, size: int) -> None:
        self._row("zs_malloc", pool=self._pool(self._store_pool.zs_pool), size=size, gfp=0x1280A)

    def _on_zs_malloc_ret(self, failure: int, obj: ZsObject | None) -> None:
        if obj is None:
            self._row("zs_malloc_ret", handle=failure & (1 << 64) - 1)
        else:
            self._row("zs_malloc_ret", handle=obj.address, obj=self._word(obj.zspage, obj.index), size=obj.size)

    def _on_zs_free(self, obj: ZsObject) -> None:
        self._handles.append(obj.address)
        pool = _POOL + _POOL_STEP * self._pool_of[obj.zspage.cls]
        self._row("zs_free", pool=pool, handle=obj.address, obj=self._word(obj.zspage, obj.index))

    def _on_zs_obj_write(self, obj: ZsObject, length: int, content: Any, raw: bool) -> None:
        # Any bytes behind a token of lz4 with a long run of literals.
        data = obj.address * 0x9E3779B97F4A7C15 & (1 << 64) - 256 | 0xF0
        if self._results:
            page = self.handed[content]
            written = self.pages[page] if raw else self._results[page].data
            data = int.from_bytes(written[:8], "little")
        self._row("zs_obj_write", handle=obj.address, size=length, data=data)

    def _on_zs_obj_read(self, obj: ZsObject, length: int, shape: Any) -> None:
        self._row("zs_obj_read", handle=obj.address, size=length)

    def _on_obj_malloc(self, zspage: Zspage, obj: ZsObject) -> None:
        if not zspage.address:
            zspage.address = self._new("zspage", 56)
        if not obj.address:
            obj.address = self._handles.pop() if self._handles else self._new("handle", 8)
        self._row("obj_malloc", zspage=zspage.address, handle=obj.address)

    def _on_obj_malloc_ret(self, zspage: Zspage, obj: ZsObject) -> None:
        self._row("obj_malloc_ret", obj=self._word(zspage, obj.index), zspage=zspage.address, handle=obj.address,
                  word=zspage_word(zspage), inuse=zspage.inuse, freeobj=zspage.freeobj)

    def _on_obj_free(self, obj: ZsObject, zspage: Zspage, index: int) -> None:
        self._row("obj_free", size=zspage.cls.geometry.size, obj=self._word(zspage, index))

    def _class(self, cls: SizeClass) -> int:
        return _CLASSES + 512 * cls.geometry.index + _POOL_STEP * self._pool_of[cls]

    def _on_fix_fullness_group(self, cls: SizeClass, zspage: Zspage) -> None:
        self._row("fix_fullness_group", pool=self._class(cls), zspage=zspage.address, word=zspage_word(zspage),
                  inuse=zspage.inuse)

    def _on_free_zspage(self, cls: SizeClass, zspage: Zspage) -> None:
        self._row("__free_zspage", pool=self._class(cls), zspage=zspage.address)

    def _on_zs_shrinker_scan(self) -> None:
        self._row("zs_shrinker_scan", pool=self._pool(self._compacted))

    def _on_zs_compact(self, cls: SizeClass) -> None:
        self._row("__zs_compact", pool=self._class(cls))

    # ---- output -----------------------------------------------------------------------------------------

    def write(self, path: str | Path, texts: Sequence[tuple[int, str]] = (), *, digests: bool = False,
              truth: pd.DataFrame | None = None) -> None:
        """Write what was done as a recording, with the pages that were stored where there are any.

        :param texts: rows of markers and what they say
        :param digests: keep digests of the pages only
        :param truth: what the workload knows, as :file:`truth.parquet` has it
        """
        made = config(self.revision)
        made["config"]["compressor"] = self.model.pools[0].tfm_name
        with RecordingWriter(str(path)) as writer:
            writer.write_rows(self.block(), list(texts))
            for number in self.handed:
                page = self.pages[number]
                writer.pages.add(*((None, hashlib.sha1(page).hexdigest()) if digests else (page,)))
            if truth is not None:
                writer.add_table("truth", truth)
            if self._chained:
                write_chained(writer, self._chained)
            writer.close(made)

    def block(self) -> np.ndarray:
        """Return the events so far as an int64 block (columns x rows)."""
        rows = np.array(self.rows, dtype=object).T
        mask = (1 << 64) - 1
        return np.array([[int(value) & mask for value in column] for column in rows], np.uint64).view(np.int64)


def cycle(events: int, seed: int = 1, revision: str = "mainline-7.3") -> np.ndarray:
    """Return about ``events`` events that begin and end with nothing stored: a block that can be repeated.

    Stores of single pages and 64 KiB folios, loads, invalidates and compactions, in a fixed order for a seed.
    """
    kernel = ImaginaryKernel(revision)
    chance = random.Random(seed)
    live: list[int] = []
    slot = 0
    while len(kernel.rows) < events * 0.7:
        what = chance.random()
        if what < 0.55 or len(live) < 50:
            order = 4 if chance.random() < 0.05 else 0
            slot = (slot + 15) // 16 * 16 if order else slot
            kernel.store(slot, order)
            live.extend(range(slot, slot + (1 << order)))
            slot += 1 << order
        elif what < 0.8:
            kernel.load(live.pop(chance.randrange(len(live))))
        elif what < 0.998:
            kernel.invalidate(live.pop(chance.randrange(len(live))))
        else:
            kernel.compact()
    while live:
        kernel.invalidate(live.pop(chance.randrange(len(live))))
    return kernel.block()


def write_pages_recording(path: str, pages: list[bytes], compressor: Compressor, rounds: int = 2,
                          revision: str = "mainline-7.3", *, digests: bool = False) -> None:
    """Write a recording in which every page is stored and loaded again, ``rounds`` times, with its bytes.

    :param digests: keep digests of the pages only
    """
    kernel = ImaginaryKernel(revision, pages=pages, compressor=compressor)
    for _ in range(rounds):
        for slot in range(len(pages)):
            kernel.store(slot)
        for slot in range(len(pages)):
            kernel.load(slot)
    kernel.write(path, digests=digests)


def config(revision: str = "mainline-7.3", totalram_pages: int = _TOTALRAM) -> dict[str, Any]:
    """Return the parts of a manifest from which a replay knows how the imaginary box was set up."""
    # As in the kernels that were recorded.
    apart = revision in MAINLINE and MAINLINE[revision].WRITEBACK_APART
    # Whose settings decide, and what they are, nothing of it says.
    probes = {kind.name: {"columns": [name for name in kind.columns if name == "ret" or kind.name not in _ASKED],
                          "function": kind.name} for kind in schema.EVENTS
              if (apart or not kind.name.startswith("zswap_writeback_entry"))
              and not kind.name.startswith("zs_compact") and kind.name not in SETTINGS}
    return {
        "kernel": {"release": revision.removeprefix("mainline-"), "version": revision.removeprefix("mainline-") + ".0"},
        "config": {"compressor": "lz4", "chain_size": 8, "totalram_pages": totalram_pages,
                   "params": {"enabled": "Y", "max_pool_percent": "20", "accept_threshold_percent": "90",
                              "shrinker_enabled": "Y"},
                   "symbols": {"zswap_list_lru": _LRU}},
        "probes": probes, "losses": [{"cpu": 0, "lost": 0}], "unpaired": [], "tasks": {}, "ts_unit_ns": 1,
        "notes": ["synthetic: made by the model, says nothing about any kernel"], "source": {"importer": "synthetic"},
    }


def write_recording(path: str, block: np.ndarray, repeat: int = 1, revision: str = "mainline-7.3",
                    texts: list[tuple[int, str]] | None = None) -> None:
    """Write a block, repeated with later times, as a recording."""
    span = int(block[0, -1])
    with RecordingWriter(path) as writer:
        for turn in range(repeat):
            part = block.copy()
            part[0] += turn * span
            writer.write_rows(part, texts or ())
        writer.close(config(revision))


def write_repeated(path: str, block: np.ndarray, repeat: int, revision: str = "mainline-7.3") -> None:
    """Write a block as a recording that repeats it without holding it more than once on disk.

    Its segments are links to those of the first time; time stamps begin anew with each, which no replay looks at.
    """
    write_recording(path, block, 1, revision)
    base = Path(path)
    manifest = json.loads((base / "manifest.json").read_text())
    once = list(manifest["segments"])
    for number in range(len(once), repeat * len(once)):
        first = once[number % len(once)]
        name = f"events/{number:05}.parquet"
        os.link(base / first["file"], base / name)
        manifest["segments"].append({**first, "file": name})
        manifest["files"][name] = manifest["files"][first["file"]]
    manifest["rows"] = sum(segment["rows"] for segment in manifest["segments"])
    manifest["kinds"] = {name: repeat * count for name, count in manifest["kinds"].items()}
    (base / "manifest.json").write_text(json.dumps(manifest))
