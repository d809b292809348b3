# SPDX-License-Identifier: GPL-2.0-or-later
"""What the compressor gives for every recorded page: computed once per distinct page, kept beside the recording."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.crypto import Compressor, ModelledCompressor
from traces.pages import PageStore
from traces.recording import Recording
from traces.schema import PAGE_SIZE

__all__ = ["Predictions", "cache_file", "predict"]

#: How many pages are compressed side by side where a call does not say; None: one per CPU.
THREADS: int | None = None


class _Columns(NamedTuple):
    """A compressor's results (or bounds in place of errno and dlen) per distinct page, as plain numbers."""

    err: list[int]
    dlen: list[int]
    head: list[int]
    raw: list[int]
    has: list[bool]


class Predictions:
    """Results by row of ``refs`` (an event's ``content``); nothing where no page bytes were recorded.

    Of a compressor that is only modelled there are no results, but :meth:`bounds`.  Methods that take a compressor's
    ``name`` answer nothing for one that there are no results of.

    :param name: the name of the compressor that is current at the recording's start
    :param reason: why there are none, or ``""``
    """

    def __init__(self, name: str, reason: str = "") -> None:
        self.name = name
        self.reason = reason
        self.computed = 0
        self.from_cache = 0
        self.compressors: dict[str, Compressor] = {}
        #: compressors whose library is not exact on this machine -> what is wrong with it
        self.inexact: dict[str, str] = {}
        self.sha1: list[str] = []
        self._refs: list[int] = []
        self._results: dict[str, _Columns] = {}
        self._bounds: dict[str, _Columns] = {}

    def page(self, content: int) -> int:
        """Return the row in ``pages.parquet`` of a reference, -1 for none."""
        return self._refs[content] if 0 <= content < len(self._refs) else -1

    def result(self, content: int, name: str) -> tuple[int, int] | None:
        """Return (errno or 0, dlen) for a reference, None when it is not known."""
        return self._pair(self._results.get(name), content)

    def bounds(self, content: int, name: str) -> tuple[int, int] | None:
        """Return the least and the most bytes of a reference's result, None when they are not known."""
        return self._pair(self._bounds.get(name), content)

    def _pair(self, columns: _Columns | None, content: int) -> tuple[int, int] | None:
        if columns is None or not 0 <= content < len(self._refs):
            return None
        page = self._refs[content]
        return (columns.err[page], columns.dlen[page]) if columns.has[page] else None

    @property
    def modelled(self) -> bool:
        """True when one of the compressors in use is only modelled."""
        return any(isinstance(compressor, ModelledCompressor) for compressor in self.compressors.values())

    def head(self, content: int, name: str) -> int | None:
        """Return the first 8 bytes of the compressed page as a little-endian number; of exact compressors only."""
        columns = self._results.get(name) if name not in self.inexact else None
        if columns is None or not 0 <= content < len(self._refs):
            return None
        page = self._refs[content]
        return columns.head[page] if columns.has[page] else None

    def raw_head(self, content: int, name: str) -> int | None:
        """Return the first 8 bytes of the page itself as a little-endian number."""
        columns = self._results.get(name) or self._bounds.get(name)
        if columns is None or not 0 <= content < len(self._refs):
            return None
        page = self._refs[content]
        return columns.raw[page] if columns.has[page] else None

    def fill(self, store: PageStore) -> None:
        """Take over references and digests of a page store."""
        self._refs = store.refs.tolist()
        self.sha1 = store.sha1

    def add(self, name: str, compressor: Compressor, results: tuple[np.ndarray, ...]) -> None:
        """Take over a compressor's results: errno, dlen, head, raw head and presence per distinct page.

        A modelled one has its bounds in place of errno and dlen.
        """
        self.compressors[name] = compressor
        columns = _Columns(*(values.tolist() for values in results))
        (self._bounds if isinstance(compressor, ModelledCompressor) else self._results)[name] = columns


def cache_file(path: Path, manifest: dict[str, Any], compressor: Compressor) -> Path | None:
    """Where a recording's results are kept: inside it, or in the user's cache when that is not writable."""
    key = hashlib.sha256(compressor.ident.encode()).hexdigest()[:16]
    name = f"{compressor.name}-{key}.parquet"
    inside = path / "cache"
    if os.access(path, os.W_OK):
        return inside / name
    digest = manifest["files"].get("pages/pages.parquet", "")[:16]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "zreplay" / f"{digest}-{name}" if digest else None


def _load(path: Path, store: PageStore, ident: str) -> tuple[np.ndarray, ...] | None:
    """Return kept results if they belong to exactly these pages and this compressor."""
    try:
        table = pq.read_table(path)
        meta = table.schema.metadata or {}
        if meta.get(b"ident") != ident.encode() or table.column("sha1").to_pylist() != store.sha1:
            return None
        return tuple(table.column(name).to_numpy() for name in ("err", "dlen", "head", "raw", "has"))
    except (OSError, pa.ArrowException, KeyError):
        return None


def _keep(path: Path, store: PageStore, ident: str, results: tuple[np.ndarray, ...]) -> None:
    arrays = [pa.array(store.sha1), *(pa.array(values) for values in results)]
    table = pa.table(arrays, names=["sha1", "err", "dlen", "head", "raw", "has"]) \
        .replace_schema_metadata({"ident": ident})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            os.close(handle)
            pq.write_table(table, temporary, compression="zstd", write_statistics=False)
            os.replace(temporary, path)
        except BaseException:
            # Ctrl-C, too, leaves no half of it.
            os.unlink(temporary)
            raise
    except OSError:
        # A full or read-only disk costs the next replay time, nothing else.
        return


def _step(waiting: deque[Future[int]], progress: Callable[[int, int], None] | None, total: int) -> None:
    done = waiting.popleft().result()
    if progress is not None:
        progress(done, total)


def predict(recording: Recording, name: str, compressors: dict[str, Compressor], reason: str = "", *,
            threads: int | None = None, keep: bool = True,
            progress: Callable[[int, int], None] | None = None) -> Predictions:
    """Return what compressors give for the recording's pages.

    :param name: the compressor that is current at the recording's start
    :param compressors: by name; those that were switched to later too
    :param reason: why there is none for ``name``
    :param threads: how many pages are compressed side by side; by default one per CPU
    :param keep: use and keep results beside the recording
    :param progress: called with (pages done, pages in all)
    :raises BadInput: when a page does not match its digest
    """
    out = Predictions(name, reason)
    store = recording.pages
    if store is None:
        out.reason = out.reason or "the recording holds no pages"
        return out
    out.fill(store)
    if not recording.manifest.get("pages", {}).get("with_bytes"):
        out.reason = out.reason or "the recording holds digests of pages, not their bytes"
        return out
    for algorithm, compressor in compressors.items():
        path = cache_file(recording.path, recording.manifest, compressor) if keep else None
        kept = _load(path, store, compressor.ident) if path is not None and path.is_file() else None
        if kept is None:
            kept = _compute(store, compressor, threads or THREADS or os.cpu_count() or 1, progress)
            out.computed += len(store)
            if path is not None:
                _keep(path, store, compressor.ident, kept)
        else:
            out.from_cache += len(store)
        out.add(algorithm, compressor, kept)
    return out


def _compute(store: PageStore, compressor: Compressor, workers: int,
             progress: Callable[[int, int], None] | None) -> tuple[np.ndarray, ...]:
    has = np.zeros(len(store), bool)
    errs, dlens = np.zeros(len(store), np.int32), np.zeros(len(store), np.int32)
    heads, raw = np.zeros(len(store), np.uint64), np.zeros(len(store), np.uint64)

    def work(first: int, block: list[bytes | None]) -> int:
        store.check(first, block)
        rows = [first + number for number, page in enumerate(block) if page is not None]
        if rows:
            pages = np.frombuffer(b"".join(page for page in block if page is not None), np.uint8) \
                .reshape(-1, PAGE_SIZE)
            if isinstance(compressor, ModelledCompressor):
                errs[rows], dlens[rows] = compressor.bounds(pages)
            else:
                errs[rows], dlens[rows], heads[rows] = compressor.lengths(pages)
            raw[rows] = pages[:, :8].copy().view(np.uint64).reshape(-1)
            has[rows] = True
        return first + len(block)

    # Reading, digests and compressing all run without the interpreter lock: a reader ahead of the workers,
    # never by more than a few blocks.
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[int]] = deque()
        for first, block in store.unchecked_blocks():
            waiting.append(pool.submit(work, first, block))
            while len(waiting) > 2 * workers:
                _step(waiting, progress, len(store))
        while waiting:
            _step(waiting, progress, len(store))
    return errs, dlens, heads, raw, has
