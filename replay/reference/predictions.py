# SPDX-License-Identifier: GPL-2.0-or-later
"""What the compressor gives for every recorded page: computed once per distinct page, kept next to the recording."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.crypto import Compressor, ModelledCompressor
from model.page import PAGE_SIZE
from replay.reference.cachekey import cache_home, sealed, signature
from traces import parquetbounds
from traces.arrowarrays import arrow_of, numpy_of
from traces.errors import BadInput
from traces.files import is_regular, regular
from traces.leftovers import Unfinished
from traces.pages import PageBlock, PageStore
from traces.recording import Recording

__all__ = ["PredictedArrays", "Predictions", "cache_file", "keep", "predict", "results_of"]

#: How many pages are compressed side by side where a call does not say; None: one per CPU.
THREADS: int | None = None

#: Format of kept results.  Those of others are computed again.
_FORMAT: Final = "2"
#: Those of the columns below that are bytes of pages, or made of them: kept sealed.
_SEALED: Final = ("head", "raw")
_SALT: Final = 16
#: Columns of kept results.
_DTYPES: Final = {"err": np.int32, "dlen": np.int32, "head": np.uint64, "raw": np.uint64, "has": np.bool_}


class PredictedArrays(NamedTuple):
    """A compressor's results for all pages; ``refs`` is by an event's ``content``, all else by what ``refs`` holds.

    Where ``has`` is false no result exists: the page's bytes were not recorded.  Of a modelled compressor ``err`` and
    ``dlen`` are the least and the most bytes.  These arrays are shared: they are not written to.
    """

    refs: np.ndarray  #: int64: row in ``pages.parquet``
    err: np.ndarray  #: int32: 0, or a negative errno
    dlen: np.ndarray  #: int32, bytes
    head: np.ndarray  #: uint64: first 8 bytes of the compressed page, little endian
    raw: np.ndarray  #: uint64: first 8 bytes of the page itself, little endian
    has: np.ndarray  #: bool


class _Columns(NamedTuple):
    """The same per distinct page as lists, which plain Python reads fastest one by one."""

    err: list[int]
    dlen: list[int]
    head: list[int]
    raw: list[int]
    has: list[bool]


class Predictions:
    """Results by row of ``refs`` (an event's ``content``); nothing where no page bytes were recorded.

    A compressor that is only modelled has no results, but :meth:`bounds`.  Methods that take a compressor's ``name``
    answer nothing for one without results.

    :param name: the name of the compressor that is current at the recording's start
    :param reason: why there are none, or ``""``
    """

    def __init__(self, name: str, reason: str = "") -> None:
        self.name = name
        self.reason = reason
        #: wall-clock time that computing, or finding, all this took, without what compiling took of it
        self.seconds = 0.0
        self.compiling = 0.0
        self.computed = 0
        self.from_cache = 0
        self.compressors: dict[str, Compressor] = {}
        #: compressors whose library is not exact on this machine -> what is wrong with it
        self.inexact: dict[str, str] = {}
        #: what shows that another compressor stands in for hardware that is only modelled
        self.played = ""
        self._store: PageStore | None = None
        #: page row of each reference (int64), for many at once; see :meth:`page`
        self.refs = np.zeros(0, np.int64)
        self._arrays: dict[str, PredictedArrays] = {}
        self._lists: dict[str, _Columns] = {}

    @property
    def sha1(self) -> list[str]:
        """The digest of each distinct page, hex."""
        return self._store.sha1 if self._store is not None else []

    @functools.cached_property
    def _refs(self) -> list[int]:
        refs: list[int] = self.refs.tolist()
        return refs

    def arrays(self, name: str) -> PredictedArrays | None:
        """Return a compressor's results as arrays, None where there are none."""
        return self._arrays.get(name) if not self._is_modelled(name) else None

    def bound_arrays(self, name: str) -> PredictedArrays | None:
        """Return a modelled compressor's bounds as arrays, None where there are none."""
        return self._arrays.get(name) if self._is_modelled(name) else None

    def _is_modelled(self, name: str) -> bool:
        return isinstance(self.compressors.get(name), ModelledCompressor)

    def _list(self, name: str) -> _Columns | None:
        """Return a compressor's results or bounds as lists, which are made when they are first asked for."""
        columns = self._lists.get(name)
        if columns is None and name in self._arrays:
            _, *values = self._arrays[name]
            columns = self._lists[name] = _Columns(*(array.tolist() for array in values))
        return columns

    def page(self, content: int) -> int:
        """Return the row in ``pages.parquet`` of a reference, -1 for none."""
        return self._refs[content] if 0 <= content < len(self._refs) else -1

    def result(self, content: int, name: str) -> tuple[int, int] | None:
        """Return (errno or 0, dlen) for a reference, None when it is not known."""
        return self._pair(None if self._is_modelled(name) else self._list(name), content)

    def bounds(self, content: int, name: str) -> tuple[int, int] | None:
        """Return the least and the most bytes of a reference's result, None when they are not known."""
        return self._pair(self._list(name) if self._is_modelled(name) else None, content)

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
        """Return the first 8 bytes of the compressed page as a little-endian number; of exact compressors only.

        None where the compressor fails: what it leaves in its buffer then is not known.
        """
        columns = self._list(name) if name not in self.inexact and not self._is_modelled(name) else None
        if columns is None or not 0 <= content < len(self._refs):
            return None
        page = self._refs[content]
        return columns.head[page] if columns.has[page] and not columns.err[page] else None

    def raw_head(self, content: int, name: str) -> int | None:
        """Return the first 8 bytes of the page itself as a little-endian number."""
        columns = self._list(name)
        if columns is None or not 0 <= content < len(self._refs):
            return None
        page = self._refs[content]
        return columns.raw[page] if columns.has[page] else None

    def begins_like_page(self, content: int, data: int, length: int, name: str) -> bool | None:
        """True where an object's first bytes are the page's, False where not, None where they do not show it.

        :param data: first 8 bytes of the object as a little-endian number
        :param length: bytes of the object
        """
        page = self.raw_head(content, name)
        if page is None or length != PAGE_SIZE:
            return None
        compressed = self.head(content, name)
        if data != page:
            return False
        return None if compressed is not None and compressed == page else True

    def fill(self, store: PageStore) -> None:
        """Take over references and digests of a page store."""
        self._store = store
        self.refs = store.refs.astype(np.int64)

    def withdraw(self, name: str, reason: str) -> None:
        """Drop a compressor that did not write the recorded objects: nothing is checked against what it gives."""
        self.compressors.pop(name, None)
        self._arrays.pop(name, None)
        self._lists.pop(name, None)
        self.inexact.pop(name, None)
        self.reason = self.reason or reason

    def add(self, name: str, compressor: Compressor, results: tuple[np.ndarray, ...]) -> None:
        """Take over a compressor's results: errno, dlen, head, raw head and presence per distinct page.

        A modelled one has its bounds in place of errno and dlen.
        """
        self.compressors[name] = compressor
        self._arrays[name] = PredictedArrays(self.refs, *results)
        self._lists.pop(name, None)


def cache_file(path: Path, manifest: dict[str, Any], compressor: Compressor) -> Path | None:
    """Where a recording's results are kept: inside it, or in the user's cache when that is not writable."""
    key = hashlib.sha256(compressor.ident.encode()).hexdigest()[:16]
    name = f"{compressor.name}-{key}.parquet"
    inside = path / "cache"
    if os.access(path, os.W_OK):
        # A link could lead to anything, and would be written through.
        return None if inside.is_symlink() else inside / name
    # Without the recording nothing shows whose results they are.
    digest = _digest_of(manifest)
    called = signature([_FORMAT.encode(), digest.encode()]) if digest else None
    return cache_home() / f"{called[:32]}-{name}" if called is not None else None


def _digest_of(manifest: dict[str, Any]) -> str:
    """Return the digest of the pages' file, which the recording was compared with when it was opened."""
    return str(manifest["files"].get("pages/pages.parquet", ""))


def _about(store: PageStore, ident: str, digest: str, salt: str, results: tuple[np.ndarray, ...]
           ) -> dict[str, str] | None:
    """What a file of results says of itself; None where this user can have no key.

    Of which pages they are, byte for byte, and whose, is in its keyed digest alone.
    """
    said = {"format": _FORMAT, "ident": ident, "pages": store.ident, "digest": digest, "salt": salt}
    signed = signature([json.dumps(said, sort_keys=True).encode(), *(values.tobytes() for values in results)])
    return {"format": _FORMAT, "ident": ident, "salt": salt, "signature": signed} if signed is not None else None


def _resealed(results: tuple[np.ndarray, ...], digest: str, salt: str) -> tuple[np.ndarray, ...] | None:
    """Seal the columns that hold bytes of pages, or open them; None where this user can have no key.

    :param digest: of the pages' file: who has not got that, or its manifest, cannot open them
    """
    out = list(results)
    for number, name in enumerate(_DTYPES):
        if name in _SEALED:
            data = sealed(results[number].tobytes(), [name.encode(), digest.encode(), salt.encode()])
            if data is None:
                return None
            out[number] = np.frombuffer(data, _DTYPES[name])
    return tuple(out)


def _load(path: Path, store: PageStore, ident: str, digest: str) -> tuple[np.ndarray, ...] | None:
    """Return kept results if this user's replay kept them, of exactly these pages and this compressor."""
    try:
        # pq.read_table() takes longer to look around than to read so little.
        file = pq.ParquetFile(regular(path))
        meta = file.schema_arrow.metadata or {}
        if meta.get(b"format") != _FORMAT.encode() or meta.get(b"ident") != ident.encode() \
                or file.metadata.num_rows != len(store):
            return None
        parquetbounds.bound_memory(path, file, "remove the directory cache")
        table = file.read(use_threads=False)
        kept = tuple(numpy_of(table.column(name)) for name in _DTYPES)
        salt = meta[b"salt"].decode()
    except (BadInput, OSError, pa.ArrowException, KeyError, UnicodeDecodeError):
        return None
    if any(values.dtype != dtype for values, dtype in zip(kept, _DTYPES.values(), strict=True)):
        return None
    results = _resealed(kept, digest, salt)
    about = _about(store, ident, digest, salt, results) if results is not None else None
    return results if about is not None and {name: meta.get(name.encode()) for name in about} \
        == {name: text.encode() for name, text in about.items()} else None


def _keep(path: Path, store: PageStore, ident: str, digest: str, results: tuple[np.ndarray, ...]) -> None:
    salt = secrets.token_hex(_SALT)
    about, kept = _about(store, ident, digest, salt, results), _resealed(results, digest, salt)
    if about is None or kept is None:
        return
    table = pa.table([arrow_of(values) for values in kept], names=list(_DTYPES)).replace_schema_metadata(about)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = Unfinished(path)
        try:
            # No manifest has a digest of this file.
            pq.write_table(table, unfinished.path, compression="zstd", write_statistics=False)
            os.replace(unfinished.path, path)
        except BaseException:
            # Ctrl-C, too, leaves no half of it.
            unfinished.path.unlink(missing_ok=True)
            raise
        finally:
            unfinished.done()
    except OSError:
        # A full or read-only disk costs the next replay time, nothing else.
        return


def predict(recording: Recording, name: str, compressors: dict[str, Compressor], reason: str = "", *,
            threads: int | None = None, keep: bool = True,
            progress: Callable[[int, int], None] | None = None) -> Predictions:
    """Return what compressors give for the recording's pages.

    :param name: the compressor that is current at the recording's start
    :param compressors: by name; those that were switched to later too
    :param reason: why there is none for ``name``
    :param threads: how many pages are compressed side by side; by default one per CPU
    :param keep: use and keep results next to the recording
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
        digest = _digest_of(recording.manifest)
        kept = _load(path, store, compressor.ident, digest) if path is not None and is_regular(path) else None
        if kept is None:
            kept = _compute(store, compressor, threads or THREADS or os.cpu_count() or 1, progress)
            out.computed += len(store)
            if path is not None:
                _keep(path, store, compressor.ident, digest, kept)
        else:
            out.from_cache += len(store)
        out.add(algorithm, compressor, kept)
    return out


def _compute(store: PageStore, compressor: Compressor, workers: int,
             progress: Callable[[int, int], None] | None) -> tuple[np.ndarray, ...]:
    groups: list[tuple[np.ndarray, ...]] = [tuple(np.zeros(0, dtype) for dtype in _DTYPES.values())]
    done = 0

    def work(block: PageBlock) -> tuple[np.ndarray, ...]:
        store.check(block)
        return results_of(compressor, block.has, block.pages)

    # Reading, digests and compressing all run without the interpreter lock: a reader ahead of the workers,
    # never by more than a few blocks.
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[tuple[np.ndarray, ...]]] = deque()
        blocks = store.unchecked_blocks()
        while True:
            block = next(blocks, None)
            if block is not None:
                waiting.append(pool.submit(work, block))
            while waiting and (block is None or len(waiting) > 2 * workers):
                groups.append(waiting.popleft().result())
                done += len(groups[-1][0])
                if progress is not None:
                    progress(done, len(store))
            if block is None:
                break
    return tuple(np.concatenate(column) for column in zip(*groups, strict=True))


def results_of(compressor: Compressor, has: np.ndarray, pages: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what a compressor gives for pages, the columns of kept results.

    :param has: bool, for which rows there are ``pages`` (uint8, as many x 4096); the others' results are nothing
    """
    out: tuple[np.ndarray, ...] = tuple(np.zeros(len(has), dtype) for dtype in _DTYPES.values())
    errs, dlens, heads, raw, known = out
    if len(pages):
        if isinstance(compressor, ModelledCompressor):
            errs[has], dlens[has] = compressor.bounds(pages)
        else:
            errs[has], dlens[has], heads[has] = compressor.lengths(pages)
        raw[has] = pages[:, :8].copy().view(np.uint64).reshape(-1)
        known[has] = True
    return out


def keep(recording: Recording, compressor: Compressor, results: tuple[np.ndarray, ...]) -> None:
    """Leave results next to a recording, for replays to find; does nothing where room or permission is lacking.

    :param results: as :func:`results_of` returns, of all pages of the recording's store
    """
    path, store = cache_file(recording.path, recording.manifest, compressor), recording.pages
    if path is not None and store is not None and len(results[0]) == len(store):
        _keep(path, store, compressor.ident, _digest_of(recording.manifest), results)
