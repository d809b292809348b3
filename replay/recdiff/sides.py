# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording's events as they are compared: by task, each with a digest of what is compared of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from replay.recdiff.alignment import Events, mix
from traces import schema
from traces.recording import Recording

__all__ = ["FIELDS", "Side"]

#: Columns that are compared where both recordings have them.
FIELDS: Final = tuple(c.name for c in schema.COLUMNS if c.name not in ("ts", "cpu", "pid", "event", "content", "text"))
_ROWS: Final = 1 << 18


class Side:
    """A recording's events of the shared kinds, sorted by task and in each by time.

    ``row`` (int64) is the event's number, ``task`` (int64) its task, -1 - CPU for the idle tasks, ``page`` (uint64)
    a digest of the SHA-1 of the pages handed over, 0 where it is not known.

    :param shared: event -> columns that both recordings have
    """

    def __init__(self, recording: Recording, shared: dict[str, tuple[str, ...]],
                 progress: Callable[[str, int, int], None] | None) -> None:
        self.recording = recording
        self.kinds = np.zeros(256, np.int64)
        self.cpus: set[int] = set()
        wanted = np.zeros(256, bool)
        wanted[[schema.CODE[name] for name in shared]] = True
        has = {column: np.zeros(256, bool) for column in FIELDS}
        for name, columns in shared.items():
            for column in columns:
                has[column][schema.CODE[name]] = True
        used = [column for column in FIELDS if has[column].any()]
        digests = _page_digests(recording)
        names = ("ts", "cpu", "pid", "event", *(("content", "size") if digests is not None else ()))
        parts: list[tuple[np.ndarray, ...]] = []
        for first, batch in recording.batches(list(dict.fromkeys([*names, *used])), rows=_ROWS):
            code = batch["event"]
            self.kinds += np.bincount(code, minlength=256)
            keep = np.flatnonzero(wanted[code])
            code, cpu, pid = code[keep], batch["cpu"][keep].astype(np.int64), batch["pid"][keep].astype(np.int64)
            self.cpus.update(np.unique(cpu).tolist())
            key = mix(code.astype(np.uint64) + np.uint64(1))
            for column in used:
                at = np.flatnonzero(has[column][code])
                # Sign extension of one side is that of the other: both have the column's type.
                key[at] = mix(key[at] * np.uint64(3) + batch[column][keep[at]].astype(np.uint64))
            page = np.zeros(len(keep) if digests is not None else 0, np.uint64)
            if digests is not None:
                page = digests(batch["content"][keep], batch["size"][keep])
            parts.append((first + keep, batch["ts"][keep], np.where(pid == 0, -1 - cpu, pid), code, key, page))
            if progress is not None:
                progress(f"reading {recording.path.name}", first + len(batch["ts"]), len(recording))
        empty = (np.int64, np.int64, np.int64, np.uint8, np.uint64, np.uint64)
        joined = [np.concatenate([np.zeros(0, kind), *(part[number] for part in parts)])
                  for number, kind in enumerate(empty)]
        order = np.argsort(joined[2], kind="stable")
        self.row, self.ts, self.task, self.code, self.key = (values[order] for values in joined[:5])
        self.page = joined[5][order] if digests is not None else None
        tasks, starts = np.unique(self.task, return_index=True)
        stops = [*starts.tolist(), len(self.task)][1:]
        self.tasks = dict(zip(tasks.tolist(), zip(starts.tolist(), stops, strict=True), strict=True))

    def events(self, start: int, stop: int) -> Events:
        """Return a stretch of one task's events."""
        return Events(self.code[start:stop], self.key[start:stop], self.ts[start:stop])

    def gather(self, rows: np.ndarray, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return columns of events by number; ``rows`` (int64) in any order, may repeat."""
        wanted, where = np.unique(rows, return_inverse=True)
        parts: dict[str, list[np.ndarray]] = {column: [] for column in columns}
        for first, batch in self.recording.batches(columns, rows=_ROWS):
            count = len(batch[columns[0]])
            inside = wanted[np.searchsorted(wanted, first):np.searchsorted(wanted, first + count)] - first
            for column in columns:
                parts[column].append(batch[column][inside])
        return {column: np.concatenate(values)[where] for column, values in parts.items()}


def _page_digests(recording: Recording) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return what makes digests of (content, size) columns, None where only keyed hashes of pages are kept.

    Keys differ from recording to recording; a SHA-1 is the page's own.
    """
    pages = recording.pages
    if pages is None or not any(len(digest) == 40 for digest in pages.sha1):
        return None
    distinct = np.array([int(digest[:16], 16) if len(digest) == 40 else 0 for digest in pages.sha1], np.uint64)
    handed = distinct[pages.refs]

    def digests(content: np.ndarray, size: np.ndarray) -> np.ndarray:
        out = np.zeros(len(content), np.uint64)
        at = np.flatnonzero(content >= 0)
        first, count = content[at].astype(np.int64), np.maximum(1, size[at].astype(np.int64) // schema.PAGE_SIZE)
        good = first + count <= len(handed)
        value = np.ones(len(at), np.uint64)
        for step in range(int(count.max(initial=0))):
            more = np.flatnonzero(good & (step < count))
            page = handed[first[more] + step]
            value[more] = mix(value[more] * np.uint64(3) + page)
            good[more[page == 0]] = False
        out[at[good]] = np.maximum(value[good], np.uint64(1))
        return out

    return digests
