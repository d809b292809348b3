# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that need no model of the code under test: the page stored for a slot is the page the workload put
there, and the objects the kernel wrote decompress to the pages they were made from."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from model.crypto import CorruptData
from model.page import PAGE_SIZE
from model.zswap import Zswap
from replay.reference.checks import Divergence, Tally
from replay.reference.predictions import Predictions
from traces import schema
from traces.recording import Recording

__all__ = ["OBJECTS_END", "TruthChecks", "check_objects"]


#: What is said where the objects that were recorded end before the writes do.
OBJECTS_END: Final = "objects were recorded for the first writes only"
#: Phases that are named.
_SHOWN: Final = 8

#: The workload's marker at its end (:meth:`traces.workload.driver.WorkloadDriver.verify`).
_READ_BACK: Final = re.compile(r"workload read back (\d{1,18}) pages, (\d{1,18}) differ")


class TruthChecks:
    """Compares the workload's truth with what is stored, phase by phase.

    The rows of a phase say where its pages were in swap when the phase ended: they are compared at the
    snapshot ``after-PHASE``, or at the next marker.
    """

    def __init__(self, recording: Recording, model: Zswap, predictions: Predictions, tally: Tally,
                 diverge: Callable[..., None]) -> None:
        self.model = model
        self.predictions = predictions
        self.tally = tally
        self.diverge = diverge
        self.phase: str | None = None
        #: the workload said what it found in the pages that it read back
        self.reported = False
        self._rows: dict[str, list[tuple[int, str]]] = {}
        self.elsewhere = 0
        tally.reasons["load.workload"] = "no workload says in the recording what it found in the pages it read back"
        #: pages of the truth whose phase has ended
        self.held = 0
        #: there is a truth, and no digest of a page to compare it with
        self.incomparable = False
        truth = recording.lists("truth", ("phase", "swap_type", "swap_offset", "sha1"))
        if truth is None:
            tally.reasons["load.content"] = "the recording holds no truth of a workload"
            return
        for phase, kind, offset, sha1 in zip(*truth, strict=True):
            if offset >= 0:
                swpent = int(kind) << schema.SWP_TYPE_SHIFT | int(offset)
                self._rows.setdefault(str(phase), []).append((swpent, str(sha1)))
        if not predictions.sha1:
            tally.reasons["load.content"] = "the recording says nothing of the pages' content"
            self.incomparable = bool(self._rows)
            self._rows.clear()

    def marker(self, text: str, i: int) -> None:
        """A marker begins a phase and ends the one before."""
        self._end(i)
        found = _READ_BACK.fullmatch(text)
        if found is not None:
            self.read_back(int(found[1]), int(found[2]), i)
        words = text.split()
        self.phase = words[1] if len(words) == 2 and words[0] == "phase" else None

    def read_back(self, pages: int, differ: int, i: int) -> None:
        """What the workload itself found in the pages that it read back, by any path."""
        self.reported = True
        self.tally.compared["load.workload"] += pages
        if differ:
            self.diverge("load.workload", i, recorded=differ, predicted=0,
                         what=f"pages, of {pages} that the workload read back, that are not what it had written")

    def snapshot(self, label: str, i: int) -> None:
        """A snapshot ``after-PHASE`` ends the phase."""
        if self.phase is not None and label == f"after-{self.phase}":
            self._end(i)

    def _end(self, i: int) -> None:
        rows = self._rows.pop(self.phase, None) if self.phase is not None else None
        if rows:
            self.held += len(rows)
            self.compare(rows, i)

    def reasons(self) -> list[str]:
        """Return, once the recording has come to its end, why the truth says less than it should, in sentences.

        The phase under way at the end has none: that it did not end is not the truth's fault.
        """
        left = [phase for phase in self._rows if phase != self.phase]
        if self.incomparable:
            return ["the recording holds a workload's truth but no page content to compare it with"]
        if left:
            return [f"the truth of phase{'s' * (len(left) != 1)} {', '.join(left[:_SHOWN])}"
                    f"{', ...' if len(left) > _SHOWN else ''} was not compared: no marker 'phase NAME' begins "
                    f"{'them' if len(left) != 1 else 'it'}"]
        if self.held and self.held == self.elsewhere:
            return [f"none of the {self.held:,} pages of the workload's truth was in zswap at the end of its phase: "
                    f"see whether it is of this run"]
        return []

    def compare(self, rows: list[tuple[int, str]], i: int) -> None:
        """Compare what is stored at the end of a phase with (swap entry, SHA-1) of its pages."""
        for swpent, sha1 in rows:
            entry = self.model.tree.get(swpent)
            page = self.predictions.page(entry.content) if entry is not None else -1
            if page < 0:
                # Zero-filled, rejected to the device, or still in memory: not zswap's to keep.
                self.elsewhere += 1
                continue
            self.tally.compared["load.content"] += 1
            if self.predictions.sha1[page] != sha1:
                # A digest would confirm a guess of the page's content to any reader.
                self.diverge("load.content", i, recorded=f"page {page} of pages.parquet", predicted=self._named(sha1),
                             what=f"content stored for swap entry {swpent:#x} at the end of phase {self.phase}")

    def _named(self, sha1: str) -> str:
        """Say which page has a digest."""
        if sha1 in self.predictions.sha1:
            return f"page {self.predictions.sha1.index(sha1)} of pages.parquet"
        return "a page that is not in pages.parquet"


def check_objects(recording: Recording, predictions: Predictions, writes: list[tuple[int, int, int, int]],
                  tally: Tally) -> None:
    """Compare every object the kernel was recorded to write with the page it was made from.

    :param writes: (event number, handle, length, content) of each zs_obj_write(), in order
    """
    objects = recording.lists("objects", ("handle", "data"))
    if objects is None or not writes:
        return
    compressors, store = list(predictions.compressors.values()), recording.pages
    if not compressors or store is None:
        return
    pages, has = store.all_pages()
    known: dict[tuple[bytes, int], bool] = {}
    rows = iter(zip(*objects, strict=True))
    for event, handle, length, content in writes:
        recorded = next(rows, None)
        page = predictions.page(content)
        if recorded is None:
            tally.reasons["store.bytes"] = OBJECTS_END
            break
        data: bytes = recorded[1]
        if page < 0 or not has[page]:
            continue
        tally.compared["load.content"] += 1
        good = (recorded[0], len(data)) == (handle, length)
        if good:
            key = (data, page)
            if key not in known:
                known[key] = any(_is_page(c, data, pages[page].tobytes()) for c in compressors)
            good = known[key]
        if not good:
            tally.differ(_object_divergence(event, handle, length, recorded))


def _is_page(compressor: Any, data: bytes, page: bytes) -> bool:
    if len(data) == PAGE_SIZE:
        return data == page or _decompressed(compressor, data) == page
    return _decompressed(compressor, data) == page


def _decompressed(compressor: Any, data: bytes) -> bytes | None:
    try:
        out: bytes = compressor.decompress(data)
    except CorruptData:
        return None
    return out


def _object_divergence(event: int, handle: int, length: int, recorded: tuple[int, bytes]) -> Divergence:
    return Divergence("load.content", event, "zs_obj_write", (hex(recorded[0]), len(recorded[1])),
                      (hex(handle), length), "the object written does not decompress to the page stored", 0, 0, 0)
