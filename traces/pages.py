# SPDX-License-Identifier: GPL-2.0-or-later
"""The page store of a recording: each distinct page once, and the compress calls that used it.

``pages/pages.parquet`` has a row per distinct page: ``sha1`` (hex) and ``data`` (4096 bytes; null where only
the digest was recorded).  ``pages/refs.parquet`` has a row per page handed to the compressor, in that order:
``page``, the row in ``pages.parquet``.  An event's ``content`` is a row of ``refs``.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces import parquetbounds
from traces.arrowarrays import numpy_of
from traces.errors import BadInput
from traces.events import PAGE_SIZE
from traces.files import regular

__all__ = ["PageBlock", "PageStore", "PageStoreWriter", "PageWatcher", "sha1_of"]

#: Pages compressed together: the farther back an equal piece may lie, the smaller they get.
_GROUP: Final = 1024
_SCHEMA = pa.schema([pa.field("sha1", pa.string(), nullable=False), pa.field("data", pa.binary())])
_AGAIN: Final = "import or record again"
_REFS = pa.schema([pa.field("page", pa.int32(), nullable=False)])


def sha1_of(pages: np.ndarray) -> list[str]:
    """Return the SHA-1 of each page (uint8, pages x 4096) in hex; they are hashed on all CPUs."""
    def part(cut: int) -> list[str]:
        return [hashlib.sha1(page.data).hexdigest() for page in pages[cut:cut + _GROUP]]

    cuts = range(0, len(pages), _GROUP)
    if len(cuts) < 2:
        return [digest for cut in cuts for digest in part(cut)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return [digest for digests in pool.map(part, cuts) for digest in digests]


class PageWatcher(Protocol):
    """A receiver of a recording's pages while they are stored."""

    def begin(self, kernel: dict[str, Any], config: dict[str, Any]) -> None:
        """Called before the first page, with what the recording's manifest will say of these."""

    def add(self, pages: list[bytes | None]) -> None:
        """Called with the next distinct pages, in the store's order; None where only the digest is known."""


class PageStoreWriter:
    """Writes a page store; equal pages (by SHA-1) are kept once.

    :param directory: the recording's ``pages`` directory, made when the first page comes
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ids: dict[str, int] = {}
        self._refs: list[int] = []
        self._sha1: list[str] = []
        self._data: list[bytes | None] = []
        self._writer: pq.ParquetWriter | None = None
        self.with_bytes = 0
        #: called with the bytes of each group of distinct pages (None: not recorded) when it is written, in order
        self.watch: Callable[[list[bytes | None]], None] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Take no more pages: a thread that adds them can end."""
        self._stopped = True

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def references(self) -> int:
        """How many pages were handed to the compressor so far."""
        return len(self._refs)

    def add(self, data: bytes | None, sha1: str | None = None) -> int:
        """Add one reference to a page and return its row in ``refs``.

        :param data: its 4096 bytes, or None when only the digest is known
        :param sha1: its SHA-1 in hex; needed when there is no data
        :raises ValueError: on data of another length, or neither data nor digest, or after :meth:`stop`
        """
        if self._stopped:
            raise ValueError("the page store takes no more pages")
        if data is not None and len(data) != PAGE_SIZE:
            raise ValueError(f"a page has {PAGE_SIZE} bytes, not {len(data)}")
        if sha1 is None:
            if data is None:
                raise ValueError("a page needs its bytes or its digest")
            sha1 = hashlib.sha1(data).hexdigest()
        page = self._ids.get(sha1)
        if page is None:
            page = self._ids[sha1] = len(self._ids)
            self._sha1.append(sha1)
            self._data.append(data)
            self.with_bytes += data is not None
            if len(self._sha1) == _GROUP:
                self._flush()
        self._refs.append(page)
        return len(self._refs) - 1

    def _flush(self) -> None:
        if self._writer is None:
            self._directory.mkdir(exist_ok=True)
            self._writer = pq.ParquetWriter(self._directory / "pages.parquet", _SCHEMA, compression="zstd",
                                            compression_level=9, use_dictionary=False, write_statistics=False,
                                            # One piece of a group, not one of each MiB.
                                            data_page_size=2 * _GROUP * PAGE_SIZE)
        self._writer.write_table(pa.table([pa.array(self._sha1, pa.string()),
                                           pa.array(self._data, pa.binary())], schema=_SCHEMA))
        if self.watch is not None:
            self.watch(self._data)
        self._sha1, self._data = [], []

    def close(self) -> None:
        """Write what is left; a store that never got a page leaves no files."""
        if self._sha1:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            pq.write_table(pa.table([pa.array(self._refs, pa.int32())], schema=_REFS),
                           self._directory / "refs.parquet", compression="zstd", write_statistics=False)


class PageBlock(NamedTuple):
    """Distinct pages that follow each other in a store.

    ``first``: the row of the first of them; ``has``: bool, of which the bytes were recorded; ``pages``: these, uint8 of
    shape (n, 4096), not to be written to.
    """

    first: int
    has: np.ndarray
    pages: np.ndarray


class PageStore:
    """Reads a page store.

    :param directory: the recording's ``pages`` directory
    :raises BadInput: when the files are not what the format says
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "pages.parquet"
        try:
            self._file = pq.ParquetFile(regular(self._path, directory.parent))
            parquetbounds.bound_memory(self._path, self._file, _AGAIN)
            table = self._file.read(columns=["sha1"])
            table.validate(full=True)
            references = pq.ParquetFile(regular(directory / "refs.parquet", directory.parent))
            parquetbounds.bound_memory(directory / "refs.parquet", references, _AGAIN)
            if not references.schema_arrow.equals(_REFS):
                raise BadInput(directory / "refs.parquet", "", "its column is not page", _AGAIN)
            refs = references.read()
        # A name of a column need not be UTF-8 either.
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as problem:
            raise BadInput(directory, "", f"the page store cannot be read ({problem})",
                           _AGAIN) from None
        if not self._file.schema_arrow.equals(_SCHEMA):
            raise BadInput(self._path, "", "the columns are not sha1 and data", _AGAIN)
        self._sha1 = table.column("sha1").combine_chunks()
        #: page row of each reference (int32)
        self.refs = numpy_of(refs.column("page"))
        if self.refs.size and not 0 <= int(self.refs.min()) <= int(self.refs.max()) < len(self):
            raise BadInput(directory / "refs.parquet", "", "a reference points past the last page",
                           _AGAIN)

    def __len__(self) -> int:
        return len(self._sha1)

    @functools.cached_property
    def sha1(self) -> list[str]:
        """The digest of each distinct page, hex."""
        digests: list[str] = self._sha1.to_pylist()
        return digests

    @functools.cached_property
    def ident(self) -> str:
        """SHA-256 of all digests in order: equal ones mean the same pages in the same rows."""
        digest = hashlib.sha256()
        for buffer in self._sha1.buffers()[1:]:
            digest.update(buffer or b"")
        return digest.hexdigest()

    def blocks(self) -> Iterator[tuple[int, list[bytes | None]]]:
        """Yield (first page row, the pages' bytes) in blocks, each page checked against its digest.

        :raises BadInput: when a page is not 4096 bytes or does not match its digest
        """
        for block in self.unchecked_blocks():
            self.check(block)
            pages = iter(block.pages)
            yield block.first, [next(pages).tobytes() if has else None for has in block.has.tolist()]

    def unchecked_blocks(self) -> Iterator[PageBlock]:
        """As :meth:`blocks`, but as arrays, for callers that :meth:`check` elsewhere (another thread).

        :raises BadInput: when a page is not 4096 bytes
        """
        first = 0
        for group in range(self._file.num_row_groups):
            try:
                data = self._file.read_row_group(group, columns=["data"]).column("data").combine_chunks()
            except (pa.ArrowException, OSError) as problem:
                raise BadInput(self._path, f"row group {group}", f"cannot be read ({problem})",
                               _AGAIN) from None
            yield self._block(first, data)
            first += len(data)

    def _block(self, first: int, data: pa.BinaryArray) -> PageBlock:
        """Return a column's pages where they lie: reading them one by one takes longer than hashing them."""
        has = numpy_of(data.is_valid())
        _, places, held = data.buffers()
        ends = np.frombuffer(places, np.int32, len(data) + 1, 4 * data.offset) if len(data) else np.zeros(1, np.int32)
        lengths = np.diff(ends)
        wrong = np.flatnonzero(lengths != np.where(has, PAGE_SIZE, 0))
        if wrong.size:
            raise BadInput(self._path, f"page {first + wrong[0]}", f"has {lengths[wrong[0]]} bytes, not {PAGE_SIZE}",
                           _AGAIN)
        count = int(has.sum())
        pages = np.frombuffer(held, np.uint8, count * PAGE_SIZE, int(ends[0])) if count else np.zeros(0, np.uint8)
        return PageBlock(first, has, pages.reshape(-1, PAGE_SIZE))

    def check(self, block: PageBlock) -> None:
        """Compare a block's pages with their digests.

        :raises BadInput: when one does not match
        """
        for row, page in zip(np.flatnonzero(block.has).tolist(), block.pages, strict=True):
            if hashlib.sha1(page.data).hexdigest() != self.sha1[block.first + row]:
                raise BadInput(self._path, f"page {block.first + row}", "its bytes do not match its SHA-1",
                               _AGAIN)

    def all_pages(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (pages, has): uint8 array (distinct pages, 4096), zero where absent, and a bool per page."""
        pages = np.zeros((len(self), PAGE_SIZE), np.uint8)
        has = np.zeros(len(self), bool)
        for block in self.unchecked_blocks():
            self.check(block)
            rows = slice(block.first, block.first + len(block.has))
            has[rows] = block.has
            pages[rows][block.has] = block.pages
        return pages, has
