# SPDX-License-Identifier: GPL-2.0-or-later
"""The operations of a recording: what was asked of zswap, without what the recorded kernel made of it.

Run through a revision (:mod:`replay.revdiff.freerun`), they show what that revision would have done.  Operations come
in the order they began in; of tasks that overlap, one is taken after the other.  What the outside decided inside an
operation (a folio of zeros, a cgroup's limit, writeback allowed or not) comes with it as answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from model.crypto.base import CompressResult
from model.page import PAGE_SIZE
from replay.revdiff.freerun import Operation
from traces import schema
from traces.chained import chained_pages
from traces.recording import Recording

__all__ = ["Contents", "Operations", "skipped"]

_COLUMNS: Final = ("pid", "event", "swpent", "folio", "offset", "order", "size", "dlen", "ret", "content", "text")
_STRUCT_PAGE: Final = 64
#: Operations of the outside that a run by itself does not repeat.
_LEFT_OUT: Final = {"zswap_shrinker_scan": "dynamic shrinker scans", "shrink_worker": "runs of the shrink worker"}
_UNKNOWN_PAGES: Final = "stores of folios of which not every page is known"
#: What is left out, as :attr:`Operations.left_out` names it -> the same with the reason, for people.
_SKIPPED: Final = {
    _UNKNOWN_PAGES: "stores skipped: not all pages of the folio were recorded",
    "dynamic shrinker scans": "dynamic shrinker scans skipped: a run by itself does not repeat them",
    "runs of the shrink worker": "runs of the shrink worker skipped: a run by itself does not repeat them"}


def skipped(left_out: Mapping[str, int]) -> list[str]:
    """Return what was left out (what -> how often, :attr:`Operations.left_out`), a sentence with the reason each."""
    return [f"{count:,} {_SKIPPED[what]}" for what, count in left_out.items()]


class Contents:
    """What pages contain: their bytes where those were recorded, else synthetic ones that keep them apart.

    ``results``: what the recorded kernel's compressor gave for a page (of a synthetic one it is all that is known).
    """

    def __init__(self, recording: Recording) -> None:
        store = recording.pages
        self.refs: list[int] = store.refs.tolist() if store is not None else []
        self.real = bool(store is not None and recording.manifest.get("pages", {}).get("with_bytes"))
        self.results: dict[bytes, tuple[int, int]] = {}
        self._pages: np.ndarray | None = None
        self._has: np.ndarray | None = None
        if store is not None and self.real:
            self._pages, self._has = store.all_pages()

    def page(self, content: int) -> bytes | None:
        """Return the page of a reference (an event's ``content``), None when it is not known."""
        if not 0 <= content < len(self.refs):
            return None
        row = self.refs[content]
        if self._pages is not None and self._has is not None:
            return self._pages[row].tobytes() if self._has[row] else None
        return (row + 1).to_bytes(8, "little") * (PAGE_SIZE // 8)

    def compress(self, page: bytes) -> CompressResult:
        """The recorded result of a synthetic page, whose bytes are synthetic too."""
        err, length = self.results.get(page, (-22, PAGE_SIZE))
        return CompressResult(err, length, b"" if err else (page[:8] * 512)[:length - 1] + b"\xa5")


@dataclass
class _Open:
    """An operation of a task that has not returned."""

    kind: str
    event: int
    swpent: int
    order: int = 0
    folio: int = 0
    text: str = ""
    pages: dict[int, int] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    call: list[int] = field(default_factory=list)
    closed: bool = False


class Operations:
    """Iterate over a recording's operations; afterwards :attr:`left_out` says what could not be taken.

    :param recording: it has to begin with an empty zswap
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.contents = Contents(recording)
        #: why operations were not taken -> how many
        self.left_out: dict[str, int] = {}
        self._open: dict[int, _Open] = {}
        self._waiting: list[_Open] = []
        self._chained = chained_pages(recording)
        self._sees_writeout = "swap_writeout" in recording.manifest["probes"]

    def __iter__(self) -> Iterator[Operation]:
        names = schema.NAMES
        for base, batch in self.recording.batches(_COLUMNS):
            columns = {name: batch[name].tolist() for name in _COLUMNS}
            for i, code in enumerate(columns["event"]):
                self._step(names[code], columns, i, base + i)
            # Handed out in the order they began, up to the first that still runs.
            while self._waiting and self._waiting[0].closed:
                yield from self._finish(self._waiting.pop(0))
        for operation in self._waiting:
            yield from self._finish(operation)

    def _leave_out(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1

    def _begin(self, kind: str, event: int, swpent: int = 0, **more: Any) -> _Open:
        operation = _Open(kind, event, swpent, **more)
        self._waiting.append(operation)
        return operation

    def _step(self, name: str, columns: dict[str, list[Any]], i: int, event: int) -> None:
        pid = columns["pid"][i]
        running = self._open.get(pid)
        if name == "swap_writeout" or (name == "zswap_store" and not self._sees_writeout):
            opened = self._begin("writeout", event, columns["swpent"][i], order=columns["order"][i],
                                 folio=columns["folio"][i])
            opened.answers["?swap_writeout"] = "store" if name == "zswap_store" else "zero"
            self._open[pid] = opened
        elif name == "zswap_store" and running is not None:
            running.answers["?swap_writeout"] = "store"
        elif name == "zswap_load":
            self._open[pid] = self._begin("load", event, columns["swpent"][i], answers={"?swapcache": False})
        elif name == "zswap_invalidate":
            if running is not None and running.answers.get("?swap_writeout") == "zero":
                running.answers["?swap_writeout"] = "free"
            self._begin("invalidate", event, columns["swpent"][i]).closed = True
        elif name in ("zs_shrinker_scan", "zs_compact"):
            self._begin("compact", event).closed = True
        elif name == "shrink_memcg":
            self._begin("shrink_memcg", event).closed = True
        elif name in _LEFT_OUT:
            self._leave_out(_LEFT_OUT[name])
        elif name == "param" or (name == "marker" and columns["text"][i].startswith(("param ", "cgroup "))):
            text = columns["text"][i].partition(" ")[2] if name == "marker" else columns["text"][i]
            self._begin("param", event, text=text).closed = True
        elif running is not None:
            self._inside(name, running, columns, i, event)

    def _inside(self, name: str, running: _Open, columns: dict[str, list[Any]], i: int, event: int) -> None:
        answers = running.answers
        if name == "crypto_acomp_compress":
            first = (columns["folio"][i] - running.folio) // _STRUCT_PAGE + columns["offset"][i] // PAGE_SIZE
            count, content = columns["size"][i] // PAGE_SIZE, columns["content"][i]
            running.call = [content + number if content >= 0 else -1 for number in range(count)]
            while (event, len(running.call)) in self._chained:
                running.call.append(self._chained[event, len(running.call)])
            running.pages |= {first + number: known for number, known in enumerate(running.call)}
        elif name == "crypto_acomp_compress_ret":
            if len(running.call) == 1:
                self._result(running.call.pop(), columns["ret"][i], columns["dlen"][i])
        elif name == "zs_malloc" and running.call:
            size = columns["size"][i]
            self._result(running.call.pop(0), -7 if size == PAGE_SIZE else 0, size)
        elif name == "obj_cgroup_may_zswap_ret":
            answers["obj_cgroup_may_zswap_ret"] = bool(columns["ret"][i])
        elif name == "mem_cgroup_zswap_writeback_enabled_ret":
            answers["mem_cgroup_zswap_writeback_enabled_ret"] = bool(columns["ret"][i])
        elif name == "zswap_entry_free" and running.kind == "load":
            answers["?swapcache"] = True
        elif name in ("swap_writeout_ret", "zswap_load_ret") or (name == "zswap_store_ret" and not self._sees_writeout):
            running.closed = True
            del self._open[columns["pid"][i]]

    def _result(self, content: int, err: int, dlen: int) -> None:
        page = self.contents.page(content)
        if page is not None:
            self.contents.results[page] = err, dlen

    def _finish(self, operation: _Open) -> Iterator[Operation]:
        pages: list[bytes] = []
        if operation.kind == "writeout" and operation.answers["?swap_writeout"] == "store":
            for number in range(1 << operation.order):
                page = self.contents.page(operation.pages.get(number, -1))
                if page is None:
                    self._leave_out(_UNKNOWN_PAGES)
                    return
                pages.append(page)
        yield Operation(operation.kind, operation.swpent, operation.order, tuple(pages), operation.text,
                        operation.answers, operation.event)
