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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.crypto import Compressor, ModelledCompressor
from traces.pages import PageStore
from traces.recording import Recording
from traces.schema import PAGE_SIZE

__all__ = ["Predictions", "predict"]


class Predictions:
    """Results by row of ``refs`` (an event's ``content``); nothing where no page bytes were recorded.

    Of a compressor that is only modelled there are no results, but :meth:`bounds`.

    :param name: the compressor's name
    :param reason: why there are none, or ``""``
    """

    def __init__(self, name: str, reason: str = "") -> None:
        self.name = name
        self.reason = reason
        self.computed = 0
        self.from_cache = 0
        self.compressors: dict[str, Compressor] = {}
        self.sha1: list[str] = []
        self._refs: list[int] = []
        self._err: list[int] = []
        self._dlen: list[int] = []
        self._head: list[int] = []
        self._raw: list[int] = []
        self._has: list[bool] = []
        self._results: dict[str, tuple[np.ndarray, ...]] = {}

    @property
    def compressor(self) -> Compressor | None:
        """The current compressor, None when it has no exact implementation here."""
        return self.compressors.get(self.name)

    def use(self, name: str) -> None:
        """Give results of another compressor from now on: the pool's was switched."""
        if name == self.name:
            return
        self.name = name
        results = self._results.get(name)
        if results is None:
            self._err, self._dlen, self._head, self._has = [], [], [], []
        else:
            self._select(results)

    def _select(self, results: tuple[np.ndarray, ...]) -> None:
        self._err, self._dlen, self._head, self._raw, self._has = (values.tolist() for values in results)

    def page(self, content: int) -> int:
        """Return the row in ``pages.parquet`` of a reference, -1 for none."""
        return self._refs[content] if 0 <= content < len(self._refs) else -1

    def result(self, content: int) -> tuple[int, int] | None:
        """Return (errno or 0, dlen) for a reference, None when it is not known."""
        return None if isinstance(self.compressor, ModelledCompressor) else self._pair(content)

    def bounds(self, content: int) -> tuple[int, int] | None:
        """Return the least and the most bytes of a reference's result, None when they are not known."""
        return self._pair(content) if isinstance(self.compressor, ModelledCompressor) else None

    def _pair(self, content: int) -> tuple[int, int] | None:
        if not 0 <= content < len(self._refs) or not self._err:
            return None
        page = self._refs[content]
        return (self._err[page], self._dlen[page]) if self._has[page] else None

    @property
    def modelled(self) -> bool:
        """True when one of the compressors in use is only modelled."""
        return any(isinstance(compressor, ModelledCompressor) for compressor in self.compressors.values())

    def head(self, content: int) -> int | None:
        """Return the first 8 bytes of the compressed page as a little-endian number."""
        if isinstance(self.compressor, ModelledCompressor) or not 0 <= content < len(self._refs) or not self._head:
            return None
        page = self._refs[content]
        return self._head[page] if self._has[page] else None

    def raw_head(self, content: int) -> int | None:
        """Return the first 8 bytes of the page itself as a little-endian number."""
        if not 0 <= content < len(self._refs) or not self._raw:
            return None
        page = self._refs[content]
        return self._raw[page] if self._has[page] else None

    def fill(self, store: PageStore) -> None:
        """Take over references and digests of a page store."""
        self._refs = store.refs.tolist()
        self.sha1 = store.sha1

    def add(self, name: str, compressor: Compressor, results: tuple[np.ndarray, ...]) -> None:
        """Take over a compressor's results: errno, dlen, head, raw head and presence per distinct page.

        A modelled one has its bounds in place of errno and dlen.
        """
        self.compressors[name] = compressor
        self._results[name] = results
        if name == self.name:
            self._select(results)


def _cache_file(recording: Recording, compressor: Compressor) -> Path | None:
    """Where results are kept: inside the recording, or in the user's cache when that is not writable."""
    key = hashlib.sha256(compressor.ident.encode()).hexdigest()[:16]
    name = f"{compressor.name}-{key}.parquet"
    inside = recording.path / "cache"
    if os.access(recording.path, os.W_OK):
        return inside / name
    digest = recording.manifest["files"].get("pages/pages.parquet", "")[:16]
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
        os.close(handle)
        pq.write_table(table, temporary, compression="zstd", write_statistics=False)
        os.replace(temporary, path)
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
        path = _cache_file(recording, compressor) if keep else None
        kept = _load(path, store, compressor.ident) if path is not None and path.is_file() else None
        if kept is None:
            kept = _compute(store, compressor, threads or os.cpu_count() or 1, progress)
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
