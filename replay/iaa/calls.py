# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of a recording that went to an accelerator's driver: one row each, with what the caller saw of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from model.errno import EINPROGRESS
from model.zsmalloc import HANDLE_SIZE, get_size_class_index, size_classes
from replay.reference.objectwords import layout_of_line, recorded_layout
from traces import schema
from traces.deviceclock import STRUCT_PAGE
from traces.events import PAGE_SIZE
from traces.record.release import kernel_line
from traces.recording import Recording

__all__ = ["COLUMNS", "NEEDED", "NEEDED_OF_CHAINS", "DriverCall", "driver_calls", "last_from_before",
           "not_captured"]

COLUMNS: Final = ("ts", "cpu", "pid", "event", "folio", "offset", "size", "dlen", "ret", "handle", "obj", "content",
                  "order")
_COMPRESS: Final = "crypto_acomp_compress"
_DECOMPRESS: Final = "crypto_acomp_decompress"
#: Event -> columns without which a call of the driver is not known.
NEEDED: Final[dict[str, tuple[str, ...]]] = {
    _COMPRESS: ("folio", "offset", "size", "dlen"), f"{_COMPRESS}_ret": ("ret", "dlen"), "zswap_decompress": ("folio",),
    _DECOMPRESS: ("size", "dlen"), f"{_DECOMPRESS}_ret": ("ret", "dlen")}
#: The same of a driver whose calls have the head of a chain: how many follow is for the folio to say.
NEEDED_OF_CHAINS: Final[dict[str, tuple[str, ...]]] = {**NEEDED, "zswap_store": ("folio", "order")}
#: Event -> columns without which it is not known where an object lies.
_PLACED: Final[dict[str, tuple[str, ...]]] = {
    "zswap_decompress": ("handle", "size"), "obj_malloc_ret": ("handle", "obj")}
#: The page_link of a scatter list's entry has flags in its lowest two bits.
_SG_FLAGS: Final = 3
#: A parameter write, or a workload's marker of one, that gives zswap a compressor.
_SWITCH: Final = re.compile(r"(?:param )?compressor=(.*)", re.DOTALL)
#: No folio is of a higher one.
_MOST_ORDER: Final = 16
#: A folio's address where an event says that it has none.
_NO_PAGE: Final = 0


@dataclass
class DriverCall:
    """One crypto_acomp_compress() or crypto_acomp_decompress() that zswap made.

    ``number``, ``end``: the events of its entry and its return; ``cpu``, ``end_cpu``: where they were recorded;
    ``page``: the struct page that is compressed, or decompressed into, 0 where that was not recorded; ``content``: the
    compressed page's reference to its bytes, -1 for none; ``size``, ``room``: bytes of source and destination as asked
    for; ``entries``: entries of the source's scatter list, 0 where that is not known; ``source``: the page frame of an
    object that is decompressed where it lies, -1 where that is not known, or it is copied first; ``ret``, ``dlen``: as
    the call left them; ``nested``: calls that the driver made itself, of its software fallback; ``alone``: on its CPU
    nothing else called the driver meanwhile, and it stayed there; ``done``: an event behind its completion, which may
    come with an interrupt; ``over_ts``: its time, or that of the return where there is no interrupt; ``others``: pages
    of other tasks' calls that were under way at some time of it; ``folio_left``: pages of the folio that is stored,
    from the compressed one on, 0 where that is not known; ``requests``: how many, with those that were chained to it. A
    call that never returned has no ``end`` (-1).

    In the thread of a device's interrupt the driver calls its software fallback too.  Such a call is ``inside`` one of
    that many decompressions, None for any other call; each of these has it in ``maybe``, and the one that made it sets
    ``taken``.
    """

    number: int
    compress: bool
    ts: int
    pid: int
    cpu: int
    page: int
    size: int
    room: int
    entries: int = 1
    source: int = -1
    content: int = -1
    end: int = -1
    end_cpu: int = -1
    ret: int = 0
    dlen: int = 0
    nested: list[DriverCall] = field(default_factory=list)
    maybe: list[DriverCall] = field(default_factory=list)
    alone: bool = True
    others: int = 0
    folio_left: int = 0
    requests: int = 1
    done: int = -1
    over_ts: int = -1
    inside: int | None = None
    taken: bool = False

    @property
    def pages(self) -> int:
        """How many pages are compressed, 1 for a decompression: zswap asks for whole pages."""
        return max(self.requests, self.size // PAGE_SIZE) if self.compress else 1


def not_captured(recording: Recording, needed: Mapping[str, Sequence[str]] = NEEDED) -> str:
    """Return in words what a recording lacks of the events and columns that are needed, ``""`` for nothing."""
    probes = recording.manifest["probes"]
    for event, columns in needed.items():
        if event not in probes:
            return f"{event} was not probed"
        lacks = [column for column in columns if column not in probes[event]["columns"]]
        if lacks:
            return f"{event} has no {' and no '.join(lacks)}"
    return ""


class _Objects:
    """Where each object lies, as its last word says: how many entries a read of it has."""

    def __init__(self, recording: Recording) -> None:
        chain_size = recording.manifest["config"].get("chain_size") or 8
        line = kernel_line(recording.manifest["kernel"])
        layout = recorded_layout(recording, chain_size) or layout_of_line(line)
        self._mask = (1 << layout.idx_bits) - 1
        self._classes = size_classes(chain_size)
        self._seen = not not_captured(recording, _PLACED)
        #: 7.0 reads objects in place; earlier kernels copy those that span pages.
        self.in_place = line is not None and line >= (7, 0)
        self._word: dict[int, int] = {}
        self._pfn_shift = layout.idx_bits + layout.class_bits
        self._sees_migration = "zs_page_migrate" in recording.manifest["probes"]
        #: handle -> the page frame that its object begins in
        self._frame: dict[int, int] = {}

    def moved(self, handle: int, word: int) -> None:
        """obj_malloc() returned: the object's word."""
        self._word[handle] = word
        if self._sees_migration:
            self._frame[handle] = word >> self._pfn_shift

    def migrated(self) -> None:
        """zs_page_migrate(): a zspage has other pages now, and its objects have other words."""
        self._frame.clear()

    def source(self, handle: int, entries: int) -> int:
        """Return the page frame of an object that lies in one page and is read there, -1 where that is not known."""
        return self._frame.get(handle, -1) if self.in_place and entries == 1 else -1

    def entries(self, handle: int, length: int) -> int:
        """Return how many scatter list entries zs_obj_read_sg_begin() makes of an object's ``length`` bytes.

        0 where that is not known: the object is from before the recording, or the probes do not say.
        """
        if not self.in_place:
            return 1
        if not self._seen or handle not in self._word:
            return 0
        geometry = self._classes[get_size_class_index(length + HANDLE_SIZE)]
        start = geometry.size * (self._word[handle] & self._mask) % PAGE_SIZE
        if not geometry.huge:
            start += HANDLE_SIZE
        return 1 if start + length <= PAGE_SIZE else 2


def driver_calls(recording: Recording) -> tuple[list[DriverCall], int | None]:
    """Return all calls in the order of their entries, and where they end; the driver's own are ``nested``.

    Where a mark says that events were lost there is nothing more: not even the calls that were under way, and those
    behind them.  So it is where zswap was given another compressor, whose calls look like the driver's.
    None: neither is there.

    :raises BadInput: when the recording cannot be read
    """
    found: list[DriverCall] = []
    lost_at: int | None = None
    for call in _calls(recording):
        if isinstance(call, int):
            lost_at = call
            break
        found.append(call)
    _mark_shared(found)
    return found, lost_at


def _calls(recording: Recording) -> Iterator[DriverCall | int]:
    """Yield the calls, and the event that says that events were lost, or that the compressor is another."""
    own = recording.manifest["config"].get("compressor")
    switches = {text for text in recording.texts() if (said := _SWITCH.match(text)) and said[1] != own}
    objects = _Objects(recording)
    open_calls: dict[int, list[DriverCall]] = {}
    # task -> (page, entries, source) of the decompression to come
    reading: dict[int, tuple[int, int, int]] = {}
    waiting: dict[int, DriverCall] = {}  # in the order of their entries
    pending: dict[int, DriverCall] = {}  # task -> its call, whose completion comes with an interrupt
    returned: dict[int, DriverCall] = {}  # task -> its last call, until its next event
    storing: dict[int, tuple[int, int]] = {}  # task -> the folio that it stores, and its pages
    names = schema.NAMES
    for base, batch in recording.batches((*COLUMNS, "text") if switches else COLUMNS):
        texts = batch["text"] if switches else ()
        columns = {name: batch[name].tolist() for name in COLUMNS}
        pids, codes = columns["pid"], columns["event"]
        for i, code in enumerate(codes):
            name, pid = names[code], pids[i]
            if name == "lost_events" or (switches and name in ("param", "marker") and texts[i] in switches):
                yield base + i
                return
            if pid in returned:
                over = returned.pop(pid)
                over.done = base + i
                if over.ret == EINPROGRESS:
                    over.over_ts = columns["ts"][i]
                # The task runs again: its interrupt has come.
                pending.pop(pid, None)
            if name == "obj_malloc_ret":
                objects.moved(columns["handle"][i], columns["obj"][i])
            elif name == "zswap_decompress":
                handle = columns["handle"][i]
                entries = objects.entries(handle, columns["size"][i])
                reading[pid] = columns["folio"][i], entries, objects.source(handle, entries)
            elif name == "zswap_store":
                storing[pid] = columns["folio"][i], 1 << min(columns["order"][i], _MOST_ORDER)
            elif name == "zs_page_migrate":
                objects.migrated()
            elif name in (_COMPRESS, _DECOMPRESS):
                call = DriverCall(base + i, name == _COMPRESS, columns["ts"][i], pid, columns["cpu"][i], _NO_PAGE,
                                  columns["size"][i], columns["dlen"][i])
                stack = open_calls.setdefault(pid, [])
                if stack:
                    stack[-1].nested.append(call)
                elif not call.compress and pid not in reading:
                    # In the thread of the device's interrupt: of a decompression that did not succeed.
                    running = (calls[0] for calls in open_calls.values() if calls)
                    owners = [one for one in (*running, *pending.values())
                              if not one.compress and one.page and one.size == call.size]
                    call.inside = len(owners)
                    for one in owners:
                        one.maybe.append(call)
                    waiting[call.number] = call
                elif call.compress:
                    call.page = (columns["folio"][i] & ~_SG_FLAGS) + columns["offset"][i] // PAGE_SIZE * STRUCT_PAGE
                    call.content = columns["content"][i]
                    folio, pages = storing.get(pid, (0, 0))
                    call.folio_left = max(0, pages - (call.page - folio) // STRUCT_PAGE) if call.page >= folio else 0
                    waiting[call.number] = call
                else:
                    call.page, call.entries, call.source = reading.pop(pid, (_NO_PAGE, 1, -1))
                    waiting[call.number] = call
                for other in (*(calls[0] for calls in open_calls.values() if calls and calls is not stack),
                              *(other for task, other in pending.items() if task != pid)):
                    other.others += call.pages
                    call.others += other.pages
                stack.append(call)
            elif name in (_COMPRESS + "_ret", _DECOMPRESS + "_ret") and open_calls.get(pid):
                call = open_calls[pid].pop()
                call.end, call.end_cpu = base + i, columns["cpu"][i]
                call.ret, call.dlen = columns["ret"][i], columns["dlen"][i]
                if call.ret != EINPROGRESS:
                    call.over_ts = columns["ts"][i]
                if call.number in waiting and call.inside is None:
                    pending.pop(pid, None)
                    returned[pid] = call
                    if call.ret == EINPROGRESS:
                        pending[pid] = call
                while waiting and (first := next(iter(waiting.values()))).end >= 0:
                    yield waiting.pop(first.number)
    yield from waiting.values()


def last_from_before(recording: Recording) -> int:
    """Return the event at which the last of those calls returned that had been made before the recording, -1 for none.

    :raises BadInput: when the recording cannot be read
    """
    entries, returns = ([schema.CODE[name + end] for name in (_COMPRESS, _DECOMPRESS)] for end in ("", "_ret"))
    inside: Counter[int] = Counter()
    last = -1
    for base, batch in recording.batches(["event", "pid"]):
        for i in np.flatnonzero(np.isin(batch["event"], entries + returns)).tolist():
            pid = int(batch["pid"][i])
            if batch["event"][i] in entries:
                inside[pid] += 1
            elif inside[pid]:
                inside[pid] -= 1
            else:
                last = base + i
    return last


def _mark_shared(calls: Sequence[DriverCall]) -> None:
    """Find the calls that were not ``alone`` on their CPU: no one knows whose turn came first.

    :param calls: in the order of their entries
    """
    last: dict[int, DriverCall] = {}
    for call in calls:
        if call.inside is not None:
            continue
        call.alone = call.end_cpu in (call.cpu, -1)
        for cpu in {call.cpu, call.end_cpu} - {-1}:
            before = last.get(cpu)
            if before is not None and before.end > call.number:
                before.alone = call.alone = False
            if before is None or before.end < call.end:
                last[cpu] = call
