# SPDX-License-Identifier: GPL-2.0-or-later
"""The event segments of a recording, read in order.

What a file says of itself (its rows, its columns, how much memory it takes) is checked when the recording first reads
it, and kept: a replay reads each segment several times, and Thrift in Python takes longer than the events of a small
one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces import parquetbounds, schema
from traces.arrowarrays import numpy_of
from traces.errors import BadInput
from traces.files import open_input, regular
from traces.parquetbounds import ParquetColumn

__all__ = ["AGAIN", "EventFiles"]

#: what to do about a file of a recording that cannot be read
AGAIN: Final = "import or record again, or copy the whole directory again"


class _EventFile(NamedTuple):
    """A segment: the number of its first event, its file, its rows, and where its columns are.

    ``columns`` is None for a file of another writer, which pyarrow reads: recordings of earlier versions, and of other
    tools.
    """

    first: int
    path: Path
    rows: int
    columns: dict[str, ParquetColumn] | None


class EventFiles:
    """The segments that a recording's manifest lists.

    :param directory: the recording
    :param segments: ``segments`` of its manifest: dicts of ``file`` and ``rows``
    """

    def __init__(self, directory: Path, segments: list[dict[str, Any]]) -> None:
        self._directory, self._segments = directory, segments
        self._columns: dict[str, dict[str, ParquetColumn] | None] = {}
        #: files of which pyarrow may read all
        self._bounded: set[Path] = set()
        self._counts: Mapping[str, int] | None = None
        self._texts: frozenset[str] | None = None

    def tables(self, columns: Sequence[str] | None, start: int = 0) -> Iterator[tuple[int, pa.Table]]:
        """Yield (number of the first event, Arrow table); see :meth:`traces.recording.Recording.segments`."""
        for file in self._files(start):
            yield file.first, self._table(file, columns)

    def counts(self) -> Mapping[str, int]:
        """Return how many events there are of each name; names of a later version of the format are among them."""
        if self._counts is None:
            found: dict[str, int] = {}
            for _, table in self.tables(["event"]):
                for chunk in table.column("event").chunks:
                    names, counts = chunk.dictionary.to_pylist(), np.bincount(numpy_of(chunk.indices))
                    for name, count in zip(names, counts.tolist(), strict=False):
                        found[name] = found.get(name, 0) + count
            self._counts = MappingProxyType({name: count for name, count in found.items() if count})
        return self._counts

    def texts(self) -> frozenset[str]:
        """Return all distinct texts, without the empty one."""
        from traces.segmentread import DamagedPage, texts_in

        if self._texts is None:
            found: set[str] = set()
            for file in self._files():
                try:
                    texts = texts_in(file.path, file.rows, file.columns) if file.columns is not None else None
                except (DamagedPage, OSError) as problem:
                    raise self._unreadable(file, problem) from None
                if texts is not None:
                    found.update(texts)
                    continue
                for chunk in self._table(file, ["text"]).column("text").chunks:
                    found.update(chunk.dictionary.to_pylist())
            self._texts = frozenset(found - {""})
        return self._texts

    def batches(self, columns: Sequence[str], rows: int, start: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield (number of the first event, {column: array}); see :meth:`traces.recording.Recording.batches`."""
        # Compiled code: imported where events are read, not where a verb prints its help.
        from traces.segmentread import DamagedPage, Lender, Segment

        lender = Lender()
        for file in self._files(start):
            skip = max(0, start - file.first) // rows * rows
            try:
                segment = Segment.open(file.path, file.rows, file.columns, list(columns), lender) \
                    if file.columns is not None else None
                if segment is not None:
                    for at in range(0, file.rows, rows):
                        batch = segment.batch(rows)
                        if at >= skip:
                            yield file.first + at, batch
                        # The caller may have let this batch go when it asks for the next.
                        del batch
                    continue
            except (DamagedPage, OSError) as problem:
                raise self._unreadable(file, problem) from None
            table = self._table(file, columns)
            arrays: dict[str, np.ndarray] = {}
            for name in columns:
                column = table.column(name).combine_chunks()
                if isinstance(column, pa.ChunkedArray):
                    column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
                arrays[name] = self._array(name, column)
            for at in range(skip, table.num_rows, rows):
                yield file.first + at, {name: array[at:at + rows] for name, array in arrays.items()}

    def _files(self, start: int = 0) -> Iterator[_EventFile]:
        """Yield the segments that do not end before event ``start``; their rows and columns are what they should."""
        first = 0
        for segment in self._segments:
            name, rows = segment["file"], segment["rows"]
            if first + rows > start:
                path = self._directory / name
                if name not in self._columns:
                    self._columns[name] = self._checked(first, path, rows)
                yield _EventFile(first, path, rows, self._columns[name])
            first += rows

    def _checked(self, first: int, path: Path, rows: int) -> dict[str, ParquetColumn] | None:
        """Check a file's rows and columns, and return where the columns are, None where another writer made it."""
        try:
            file = self._opened(path)
            if file.metadata.num_rows != rows:
                raise BadInput(path, "", f"has {file.metadata.num_rows} events where the manifest says {rows}", AGAIN)
            if not file.schema_arrow.equals(schema.arrow_schema()):
                raise BadInput(path, "", "its columns are not those of the format", AGAIN)
            return _own_columns(path, file)
        # pyarrow decodes names of columns only when they are asked for.
        except (pa.ArrowException, OSError, UnicodeDecodeError) as problem:
            raise BadInput(path, f"event {first}", f"cannot be read ({problem})", AGAIN) from None

    def _opened(self, path: Path) -> pq.ParquetFile:
        return pq.ParquetFile(regular(path, self._directory))

    def _table(self, file: _EventFile, columns: Sequence[str] | None) -> pa.Table:
        try:
            opened = self._opened(file.path)
            if file.path not in self._bounded:
                parquetbounds.bound_memory(file.path, opened, AGAIN)
                self._bounded.add(file.path)
            table = opened.read(columns=list(columns) if columns is not None else None)
            # Text that is not UTF-8, and names past the end of their dictionary, would stop a reader later.
            table.validate(full=True)
        except (pa.ArrowException, OSError) as problem:
            raise self._unreadable(file, problem) from None
        return table

    @staticmethod
    def _unreadable(file: _EventFile, problem: Exception) -> BadInput:
        return BadInput(file.path, f"event {file.first}", f"cannot be read ({problem})", AGAIN)

    @staticmethod
    def _array(name: str, column: pa.Array) -> np.ndarray:
        if name == "event":
            values = column.dictionary.to_pylist()
            # The names are the contract; the codes in a file are only positions in its own dictionary.
            codes = np.array([schema.CODE.get(value, 0) for value in values], np.uint8)
            by_row: np.ndarray = codes[numpy_of(column.indices)]
            return by_row
        if name == "text":
            from traces.segmentread import texts_of

            return texts_of(column.dictionary.to_pylist(), numpy_of(column.indices))
        values_of: np.ndarray = numpy_of(column)
        return values_of


def _own_columns(path: Path, file: pq.ParquetFile) -> dict[str, ParquetColumn] | None:
    """Return where the columns of a file are that :mod:`traces.segment` wrote, None for one of another writer.

    :param file: the same one, opened by pyarrow, with the format's columns
    :raises OSError: when the file cannot be read
    """
    meta = file.metadata
    try:
        ours = meta.created_by == "zreplay"
    except UnicodeDecodeError:
        ours = False
    if not ours or meta.num_row_groups != 1 or not meta.num_rows:
        return None
    with open_input(path) as raw:
        try:
            # Not read by pyarrow, which ends the process over some damage.
            return {column.name: column for column in parquetbounds.columns(raw, os.fstat(raw.fileno()).st_size)}
        except parquetbounds.DamagedFile:
            return None
