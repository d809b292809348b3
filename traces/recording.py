# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording on disk: open, read as a stream, write as a stream.  ``traces/FORMAT.md`` describes the files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces import jsontext, parquetbounds, schema
from traces.block import Block
from traces.errors import BadInput
from traces.eventfiles import AGAIN, EventFiles
from traces.files import is_regular, open_input, read_input, regular
from traces.leftovers import Unfinished
from traces.pages import PageStore, PageStoreWriter
from traces.printable import escaped_texts
from traces.record.oserrors import next_step

if TYPE_CHECKING:
    # pyarrow imports it where a table becomes a frame; most verbs need none.
    import pandas as pd

__all__ = ["Recording", "RecordingWriter", "SEGMENT_ROWS", "usable_cpus"]

_Taken = TypeVar("_Taken")
#: Rows of a full event segment; what a writer holds in memory, and the unit that survives a crash.
SEGMENT_ROWS: Final = 1 << 18
_MANIFEST: Final = "manifest.json"
_STATE: Final = "state"
_IAA: Final = "iaa"
_SOURCE: Final = "check what the source says of its run"


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(path: Path, root: Path | None = None) -> str:
    with open_input(path, root) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RecordingWriter:
    """Writes a recording segment by segment into a directory of its own.

    The directory appears under its name only when :meth:`close` succeeds, unless ``in_place`` is set (a
    recorder that must survive being killed).  Use it as a context manager: an exception leaves nothing.

    :param path: the recording to make; must not exist
    :raises BadInput: when ``path`` exists or cannot be made
    """

    def __init__(self, path: str | os.PathLike[str], *, in_place: bool = False) -> None:
        # Compiled code: readers do not need it, and it is imported before an interruption could leave a file.
        from traces.segment import SegmentEncoder

        self.path = Path(path)
        if self.path.exists() or self.path.is_symlink():
            raise BadInput(self.path, "", "the output exists already", "remove it or choose another name")
        self._in_place = in_place
        self._unfinished: Unfinished | None = None
        try:
            if in_place:
                self.path.mkdir(mode=0o700)
                self.directory = self.path
            else:
                self._unfinished = Unfinished(self.path, folder=True)
                self.directory = self._unfinished.path
        except OSError as problem:
            raise BadInput(self.path, "", f"cannot be made ({problem.strerror})",
                           next_step(problem.errno, "choose a directory that exists and that you may write to")) \
                from None
        (self.directory / "events").mkdir()
        self.pages = PageStoreWriter(self.directory / "pages")
        self.rows = 0
        self._encoder = SegmentEncoder(SEGMENT_ROWS)
        # Encoding, compressing and hashing run without the interpreter lock.
        self._pool = ThreadPoolExecutor(1) if usable_cpus() > 1 else None
        self._writing: Future[None] | None = None
        self._segments: list[dict[str, Any]] = []
        self._kinds = np.zeros(256, np.int64)
        self._digests: dict[str, str] = {}
        self._snapshots: list[dict[str, Any]] = []
        self._open = True

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._open:
            self.abandon()

    def abandon(self) -> None:
        """Remove everything written so far."""
        self._open = False
        if self._pool is not None:
            self._pool.shutdown()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._let_go()

    def write_rows(self, block: np.ndarray, texts: Sequence[tuple[int, str]] = ()) -> None:
        """Append events.

        :param block: int64 array (columns of :data:`traces.schema.COLUMNS` x rows); unsigned columns hold
            the same bits
        :param texts: (row of the block, marker text) of the rows that have one
        :raises ValueError: at an event code that the vocabulary does not have
        """
        self.write_block(Block.of(block, texts))

    def write_block(self, block: Block) -> None:
        """Append events.  Where there is a second CPU they are written on it: the block's memory may be used again
        after the next call."""
        if self._writing is not None:
            self._writing.result()
        if self._pool is None:
            self._write_segments(block)
        else:
            self._writing = self._pool.submit(self._write_segments, block)
        self.rows += len(block)

    def _write_segments(self, block: Block) -> None:
        for first in range(0, len(block), SEGMENT_ROWS):
            part = block.part(first, first + SEGMENT_ROWS)
            name = f"events/{len(self._segments):05d}.parquet"
            digest = hashlib.sha256()
            with (self.directory / name).open("wb") as file:
                for data in self._encoder.encode(part):
                    file.write(data)
                    digest.update(data)
            self._digests[name] = digest.hexdigest()
            self._kinds += np.bincount(part.event, minlength=256)
            self._segments.append({"file": name, "rows": len(part), "first_ts": int(part.ts[0]),
                                   "last_ts": int(part.ts[-1])})

    def add_snapshot(self, label: str, ts: int, values: dict[str, Any]) -> int:
        """Keep a counter snapshot and return its number; ``ts`` in ns of the trace clock."""
        number = len(self._snapshots)
        (self.directory / "counters").mkdir(exist_ok=True)
        name = f"counters/{number:03d}.json"
        (self.directory / name).write_text(jsontext.dumped(values))
        self._snapshots.append({"file": name, "label": label, "ts": ts})
        return number

    def add_table(self, name: str, frame: pd.DataFrame) -> None:
        """Keep a table next to the events, as ``NAME.parquet`` (``truth``, ``objects``)."""
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), self.directory / f"{name}.parquet",
                       compression="zstd", write_statistics=False)

    def add_json(self, name: str, value: Any) -> None:
        """Keep a JSON document next to the events, as ``NAME.json``.

        :raises BadInput: when readers would refuse it
        """
        text = json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"
        if name == _STATE:
            self._readable(text, name, "replay it with a shipped revision, or cut elsewhere")
        (self.directory / f"{name}.json").write_text(text)

    def _readable(self, text: str, name: str, todo: str) -> None:
        """Check what is written as readers check it.

        :raises BadInput: when it does not fit
        """
        path = self.path / f"{name}.json"
        try:
            jsontext.hold_to_schema(jsontext.parse(text.encode()), name, path, todo)
        except BadInput:
            raise
        except ValueError as problem:
            raise BadInput(path, "", f"cannot be written: {problem}", todo) from None

    def close(self, manifest: dict[str, Any]) -> None:
        """Write the manifest (with segments, snapshots, pages and digests added) and publish the recording."""
        if self._pool is not None:
            if self._writing is not None:
                self._writing.result()
            self._pool.shutdown()
        self.pages.close()
        full = {
            "format_version": schema.FORMAT_VERSION,
            "page_size": schema.PAGE_SIZE,
            "rows": self.rows,
            "complete": True,
            **manifest,
            "kinds": {schema.NAMES[code]: int(self._kinds[code]) for code in np.flatnonzero(self._kinds).tolist()},
            "segments": self._segments,
            "snapshots": self._snapshots,
            "pages": {"distinct": len(self.pages), "references": self.pages.references,
                      "with_bytes": self.pages.with_bytes},
            "files": {name: self._digests.get(name) or _digest(self.directory / name)
                      for name in sorted(str(path.relative_to(self.directory))
                                         for path in self.directory.rglob("*") if path.is_file())},
        }
        text = jsontext.dumped(full)
        # Values of a capture are input too: readers would refuse them in the recording.
        self._readable(text, "manifest", _SOURCE)
        (self.directory / _MANIFEST).write_text(text)
        # Pages are user memory; the directory is 0700.
        for made in self.directory.rglob("*"):
            made.chmod(0o700 if made.is_dir() else 0o600)
        if not self._in_place:
            if self.path.exists():
                raise BadInput(self.path, "", "the output appeared while it was being written",
                               "choose another name")
            self.directory.rename(self.path)
        self._let_go()
        self._open = False

    def _let_go(self) -> None:
        if self._unfinished is not None:
            self._unfinished.done()


class Recording:
    """A recording opened for reading.

    :param path: its directory
    :param verify: compare every file with its digest first
    :raises BadInput: when it is not a recording, or a file is missing, changed or of another version
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        self.path = Path(path)
        self.manifest = self._read_manifest()
        #: numbers of snapshots that were checked against the schema
        self._checked: set[int] = set()
        self._checked_state = False
        self._checked_iaa = False
        self._check_lists()
        self._events = EventFiles(self.path, self.manifest["segments"])
        if verify:
            self._verify()
            self._count_rows()
            for number, entry in enumerate(self.manifest["snapshots"]):
                self._snapshot(number, entry)
        self._pages: PageStore | None = None

    def _read_manifest(self) -> dict[str, Any]:
        path = self.path / _MANIFEST
        # os.path: a Path asks loudly about names that are too long, and directories that are closed.
        try:
            os.stat(path)
        except (NotADirectoryError, ValueError):
            pass
        except FileNotFoundError:
            if not os.path.lexists(self.path):
                raise BadInput(self.path, "", "does not exist", "see how it is spelt, and where you are") from None
            if not os.path.exists(self.path):
                raise BadInput(self.path, "", f"is a link to {os.readlink(self.path)}, which does not exist",
                               "name the recording itself") from None
        except OSError as problem:
            raise BadInput(self.path, "", f"cannot be opened ({problem.strerror})",
                           "ask its owner for permission, or copy it to where you may read it"
                           if isinstance(problem, PermissionError)
                           else next_step(problem.errno, "see how it is spelt")) from None
        if not os.path.isdir(self.path) or not os.path.isfile(path):
            raise BadInput(self.path, "", "this is not a recording (a directory with a manifest.json)",
                           "make one with 'zreplay import SRC -o REC'")
        if not os.access(path, os.R_OK):
            raise BadInput(path, "", "cannot be read (Permission denied)", "ask its owner for permission")
        manifest = self._parsed(path, jsontext.MOST_BYTES, "the manifest is absurdly large")
        if not isinstance(manifest, dict) or type(manifest.get("format_version")) is not int:
            raise BadInput(path, "", "has no format_version", AGAIN)
        if manifest["format_version"] != schema.FORMAT_VERSION:
            raise BadInput(path, "", f"format version {manifest['format_version']} is not one this zreplay "
                           f"reads ({schema.FORMAT_VERSION})", "use the zreplay that wrote it")
        jsontext.hold_to_schema(manifest, "manifest", path, AGAIN)
        # Only one line of it is shown, without characters that a terminal would obey.
        shown: dict[str, Any] = escaped_texts(manifest)
        return shown

    def _parsed(self, path: Path, most: int, too_large: str) -> Any:
        try:
            data = read_input(path, most, self.path)
        except OSError as problem:
            raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                           next_step(problem.errno, AGAIN)) from None
        if len(data) > most:
            raise BadInput(path, "", too_large, AGAIN)
        try:
            return jsontext.parse(data)
        except ValueError as problem:
            raise BadInput(path, "", f"is not readable JSON ({problem})", AGAIN) from None

    def _verify(self) -> None:
        for name, digest in self.manifest["files"].items():
            path = self.path / name
            try:
                if not os.path.lexists(path):
                    raise BadInput(path, "", "is missing from the recording", AGAIN)
                if _digest(path, self.path) != digest:
                    raise BadInput(path, "", "does not match its digest in the manifest", AGAIN)
            except OSError as problem:
                raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                           next_step(problem.errno, AGAIN)) from None

    def _check_lists(self) -> None:
        """The lists name files that the manifest has a digest of, each once, all there are, of as many rows as said."""
        path = self.path / _MANIFEST
        for key, folder, one in (("segments", "events/", "segment"), ("snapshots", "counters/", "snapshot")):
            listed = [row["file"] for row in self.manifest[key]]
            there = {name for name in self.manifest["files"] if name.startswith(folder)}
            for index, name in enumerate(listed):
                if name not in self.manifest["files"]:
                    raise BadInput(path, f"{one} {index}", "its file is not one of 'files'", AGAIN)
            if len(set(listed)) != len(listed):
                raise BadInput(path, f"key '{key}'", "names a file twice", AGAIN)
            if there - set(listed):
                raise BadInput(path, f"key '{key}'", f"does not list {min(there - set(listed))}, one of 'files'",
                               AGAIN)
        rows = sum(segment["rows"] for segment in self.manifest["segments"])
        if rows != self.manifest["rows"]:
            raise BadInput(path, "key 'rows'",
                           f"says {self.manifest['rows']} events, and the segments' rows are {rows}", AGAIN)
        for folder, ending in (("events", ".parquet"), ("counters", ".json")):
            place = self.path / folder
            there = {f"{folder}/{name}" for name in os.listdir(place) if name.endswith(ending) and name[0] != "."} \
                if place.is_dir() else set()
            if there - self.manifest["files"].keys():
                raise BadInput(path, "key 'files'", f"does not list {min(there - self.manifest['files'].keys())}, "
                               "which is there", AGAIN)
        calls = self.manifest.get("page_calls", {})
        if "kinds" in self.manifest:
            self._same_count("page_calls", calls.get("calls"), "compress calls",
                             self.manifest["kinds"].get("crypto_acomp_compress", 0))
        self._same_count("page_calls", calls.get("caught"), "compress calls with a page",
                         min(calls.get("caught", 0), calls.get("calls", 0)))
        store = self.manifest.get("pages")
        if store is not None and "pages/pages.parquet" not in self.manifest["files"]:
            self._same_count("pages", store["distinct"], "pages", 0)
            self._same_count("pages", store["references"], "references", 0)

    def _same_count(self, key: str, said: int | None, what: str, found: int) -> None:
        if said is not None and said != found:
            raise BadInput(self.path / _MANIFEST, f"key '{key}'", f"says {said} {what}, and there are {found}", AGAIN)

    def _count_rows(self) -> None:
        """Each file has as many rows as the manifest says, of each kind, and lists the probe of each event.

        An event that the manifest does not list counts as not probed: a replay would not expect its rows.
        """
        kinds = self.manifest.get("kinds")
        found = self._events.counts()
        if kinds is not None:
            for name in sorted({*kinds, *found}):
                self._same_count("kinds", kinds.get(name, 0), f"events {name}", found.get(name, 0))
        # Names of a later version of the format are left alone.
        unknown = sorted({name for name, count in found.items() if count and name in schema.CODE}
                         - self.manifest["probes"].keys() - schema.NO_PROBE)
        if unknown:
            raise BadInput(self.path / _MANIFEST, "key 'probes'", f"does not list {', '.join(unknown[:4])}, of which "
                           "there are events", AGAIN)

    def _has(self, name: str) -> bool:
        """True when the recording has a file of that name; a file that was added later does not count."""
        return name in self.manifest["files"] and is_regular(self.path / name, self.path)

    def __len__(self) -> int:
        return sum(segment["rows"] for segment in self.manifest["segments"])

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        """Counter snapshots: dicts of ``label``, ``ts`` (ns) and ``file``, in order."""
        snapshots: list[dict[str, Any]] = self.manifest["snapshots"]
        return snapshots

    @property
    def stamps(self) -> str:
        """Name of the clock that the events' ``ts`` are stamps of where it counts no seconds, "" where they are ns."""
        return str(self.manifest.get("stamps", ""))

    def snapshot(self, number: int) -> dict[str, Any]:
        """Return the values of snapshot ``number``, none where the manifest lists no such snapshot.

        They were checked against the schema when the recording was opened.

        :raises BadInput: when they are not JSON, or not as the schema says
        """
        return self._snapshot(number, self.snapshots[number]) if 0 <= number < len(self.snapshots) else {}

    def _snapshot(self, number: int, entry: dict[str, Any]) -> dict[str, Any]:
        path = self.path / entry["file"]
        values = self._json(path)
        if number not in self._checked:
            jsontext.hold_to_schema(values, "snapshot", path, AGAIN)
            self._checked.add(number)
        return values

    def _json(self, path: Path) -> dict[str, Any]:
        value = self._parsed(path, jsontext.MOST_BYTES, "is absurdly large")
        if not isinstance(value, dict):
            raise BadInput(path, "", "is not a JSON object", AGAIN)
        return value

    def document(self, name: str) -> dict[str, Any] | None:
        """Return the JSON document ``NAME.json``, or None.

        :raises BadInput: when it is not readable, or does not fit the schema where that knows it (``state``, ``iaa``)
        """
        if not self._has(f"{name}.json"):
            return None
        path = self.path / f"{name}.json"
        value = self._json(path)
        if name == _STATE and not self._checked_state:
            jsontext.hold_to_schema(value, name, path, "cut the recording again")
            self._checked_state = True
        if name == _IAA and not self._checked_iaa:
            jsontext.hold_to_schema(value, name, path, AGAIN)
            self._checked_iaa = True
        return value

    def table(self, name: str) -> pd.DataFrame | None:
        """Return the table ``NAME.parquet`` next to the events, or None.

        :raises BadInput: when it is not readable
        """
        # What pandas wrote about itself is not needed, and it is one thing more that can be damaged.
        return self._beside(name, lambda table: table.to_pandas(ignore_metadata=True))

    def lists(self, name: str, columns: Sequence[str]) -> list[list[Any]] | None:
        """Return columns of the table ``NAME.parquet`` as lists, or None where there is no table.

        A missing number is NaN, as in :meth:`table`, which takes half a second longer: it imports pandas.

        :raises BadInput: when it is not readable
        :raises KeyError: for a column that it does not have
        """
        def listed(column: pa.ChunkedArray) -> list[Any]:
            values: list[Any] = column.to_pylist()
            kind = column.type
            if column.null_count and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                return [math.nan if value is None else value for value in values]
            return values

        return self._beside(name, lambda table: [listed(table.column(column)) for column in columns])

    def _beside(self, name: str, taken: Callable[[pa.Table], _Taken]) -> _Taken | None:
        path = self.path / f"{name}.parquet"
        if not self._has(f"{name}.parquet"):
            return None
        try:
            file = pq.ParquetFile(regular(path, self.path))
            parquetbounds.bound_memory(path, file, AGAIN)
            table = file.read()
            table.validate(full=True)
            return taken(table)
        except BadInput:
            raise
        except (pa.ArrowException, OSError, ValueError, TypeError) as problem:
            raise BadInput(path, "", f"cannot be read ({problem})", AGAIN) from None

    @property
    def pages(self) -> PageStore | None:
        """The page store, or None when no pages were recorded."""
        if self._pages is None and self._has("pages/pages.parquet"):
            store = PageStore(self.path / "pages")
            said = self.manifest.get("pages")
            if said is not None and (said["distinct"], said["references"]) != (len(store), len(store.refs)):
                raise BadInput(self.path / "pages", "", f"has {len(store)} pages and {len(store.refs)} references "
                               f"where the manifest says {said['distinct']} and {said['references']}", AGAIN)
            self._pages = store
        return self._pages

    def segments(self, columns: Sequence[str] | None = None, start: int = 0) -> Iterator[tuple[int, pa.Table]]:
        """Yield (number of the first event, Arrow table) segment by segment.

        :param start: number of an event; segments that end before it are left out
        :raises BadInput: at a segment that cannot be read or does not fit the schema
        """
        return self._events.tables(columns, start)

    def counts(self) -> Mapping[str, int]:
        """Return how many events there are of each name.

        :raises BadInput: as for :meth:`segments`
        """
        return self._events.counts()

    def texts(self) -> frozenset[str]:
        """Return all distinct texts of markers, snapshots and parameter writes.

        :raises BadInput: as for :meth:`segments`
        """
        return self._events.texts()

    def batches(self, columns: Sequence[str], rows: int = 1 << 15,
                start: int = 0) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield (number of the first event, {column: array}) of at most ``rows`` events.

        Batches begin anew with each segment; those that end before event ``start`` are left out.  ``event`` comes as
        codes (uint8), ``text`` as an object array of str.  Arrays that the caller no longer holds are used again.

        :raises BadInput: at a segment that cannot be read or does not fit the schema
        """
        return self._events.batches(columns, rows, start)

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all events as a DataFrame indexed by event number; ``event`` and ``text`` are categories."""
        tables = [table for _, table in self.segments(columns)]
        if not tables:
            empty = schema.arrow_schema().empty_table()
            nothing: pd.DataFrame = (empty if columns is None else empty.select(list(columns))).to_pandas()
            return nothing
        table = pa.concat_tables([t.unify_dictionaries() for t in tables], promote_options="default")
        frame: pd.DataFrame = table.unify_dictionaries().to_pandas()
        return frame
