# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture directory that ``zreplay record`` wrote: what it says of itself, and how far it is whole.

A recorder that was killed leaves files that end at different moments.  Its ``flushed.jsonl`` says before which
time every event is in them: what comes later is left out, so that no CPU is missing events that others have.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pandas as pd

from traces import jsontext
from traces.errors import BadInput
from traces.events import PAGE_SIZE
from traces.files import open_input, read_input, regular
from traces.importers.capturefiles import is_appended, written_sizes
from traces.importers.capturesums import check_sums
from traces.importers.devicepages import read_device_pages
from traces.importers.iaafiles import FACTS, JOBS, PAGES, read_iaa
from traces.importers.inputfile import chunks, open_stream, read_json
from traces.importers.packed import DAMAGE
from traces.importers.pageindex import PageIndex
from traces.importers.runfacts import missing_counters
from traces.importers.source import Block, RunFacts
from traces.pages import PageStoreWriter
from traces.record.capture import ANSWER, KEPT, STREAMS
from traces.record.cpus import changes_in_words
from traces.record.packing import SUFFIXES
from traces.record.sums import NAME as SUMS
from traces.schema import END

__all__ = ["OTHER_KEY", "CaptureReader", "read_command"]

_HEADER: Final = b"n,ts_ns,src,digest\n"
#: The note on a truth whose digests do not match the recorded pages.
OTHER_KEY: Final = ("the workload's truth was left out: its digests have another key than those of the recorded pages; "
                    "run the workload as the command of 'zreplay record'")
_ROW: Final = re.compile(rb"(\d{1,9}),(\d{1,19}),([0-9a-f]{1,16}),([0-9a-f]{64}|[0-9a-f]{40})")
#: No line of an index is as long.
_LONG_LINE: Final = 1 << 10
_SHA1_DIGITS: Final = 40
_MAX_LOG: Final = 64 << 20
_AGAIN: Final = "copy the capture again"
_WHOLE: Final = 1 << 62
#: What a manifest can hold.
_MOST_LOST: Final = (1 << 63) - 1
#: How many of the recorder's observations are taken over, and how many characters of each.
_MOST_OTHERS: Final = 200
_LONG_SENTENCE: Final = 400
#: How many CPUs that came or went are named.
_MOST_CHANGES: Final = 1 << 14
#: Pages of a packed dump that are kept in memory: those of tasks that took turns are not in order.
_RECENT: Final = 1024


class CaptureReader:
    """What the recorder says of a capture.

    :param directory: the capture
    :param status: the content of its ``capture.json``
    :raises BadInput: when that makes no sense
    """

    def __init__(self, directory: Path, status: dict[str, Any]) -> None:
        self.directory = directory
        self.status = status
        path = directory / "capture.json"
        if status["zreplay_capture"] != 1:
            raise BadInput(path, "key 'zreplay_capture'", "is of a version that this zreplay does not read",
                           "use the zreplay that recorded it")
        for key, kind in (("complete", bool), ("losses", dict), ("bases", dict), ("plan", list), ("notes", list)):
            if not isinstance(status.get(key), kind):
                raise BadInput(path, f"key '{key}'", "is missing or of the wrong type", _AGAIN)
        #: Names of files that the recorder wrote and that are not there.
        self.gone: list[str] = []
        #: When its rings were switched on, ns of the trace clock; None when it was killed before that.
        self.start: int | None = status.get("start")
        if not isinstance(self.start, int) and (status["complete"] or self.start is not None):
            raise BadInput(path, "key 'start'", "is not a time", _AGAIN)
        #: sentences on files that differ from what was recorded
        self._damaged: list[str] = []
        self.rings = _files(directory, "zmeta.cpu*.raw")
        self._indices = _files(directory, "pages.cpu*.idx")
        whole, line = self._last_flush()
        self.complete: bool = status["complete"] and whole
        #: Before this time (ns of the trace clock) every event is there; None for all.
        self.until: int | None = None if self.complete else int(line["flushed"]) if line else self.start or 0
        losses = status["losses"].get("cpus") if self.complete else line["losses"] if line else {}
        self._losses: dict[str, Any] = losses if isinstance(losses, dict) else {}
        #: What other processes did to the recorder's switches, as it noticed; a flush may know of more.
        self._others = [*_rows_of(status.get("interference")), *_rows_of(line.get("interference") if line else None)]

    @classmethod
    def find(cls, directory: Path) -> CaptureReader | None:
        """Return the capture in a directory, None when no recorder of this project wrote it.

        :raises BadInput: see the class
        """
        path = directory / "capture.json"
        if not os.path.lexists(path):
            return None
        for each in directory.iterdir():
            # Without one of its files a capture looks like something else.  A killed recorder leaves its FIFO.
            if each.name != "control" and not each.is_dir():
                regular(each)
        status = read_json(path)
        if status is None:
            # Without it nothing says whether the rings are whole.
            raise BadInput(path, "", "is not readable JSON", _AGAIN)
        if "zreplay_capture" not in status:
            return None
        gone = check_sums(directory)
        capture = cls(directory, status)
        capture.gone = gone
        return capture

    def owns(self, path: Path) -> bool:
        """True for files that mean something only together with ``capture.json``, whatever they look like."""
        return _is_owned(path.name)

    def _last_flush(self) -> tuple[bool, dict[str, Any] | None]:
        """Return the last flush that the files on disk still have whole, and whether it is the very last."""
        path = self.directory / "flushed.jsonl"
        lines = []
        if path.is_file() and path.stat().st_size <= _MAX_LOG:
            lines = read_input(path, _MAX_LOG).split(b"\n")
        #: ring, by the name that it had before it was packed -> bytes that it had then
        self._written = written_sizes(lines)
        for line in reversed(lines[:-1]):
            try:
                value = jsontext.parse(line)
                sizes, until = value["sizes"], value["flushed"]
                if isinstance(until, int) and isinstance(value["losses"], dict) \
                        and all(self._size(name) >= size for name, size in sizes.items()):
                    return line is lines[-2] and not lines[-1], value
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
        return False, None

    def _size(self, name: str) -> int:
        path = self.directory / Path(name).name
        if path.is_file():
            return path.stat().st_size
        # A packed file has its name only when it is whole, and the sizes of all are in a later flush.
        return _WHOLE if any(_packed(path)) else -1

    def apply(self, facts: RunFacts) -> None:
        """Put the recorder's statements into the facts of the run."""
        facts.complete = self.complete
        facts.capture = {key: self.status.get(key) for key in
                         ("recorder", "backend", "clock", "start", "stop", "box", "btf", "pages", "buffer_kb", "cgroup",
                          "command", "command_status", "plan", "losses", "rings", "cpus", "interference")}
        facts.notes.extend(str(note) for note in self.status["notes"])
        facts.command = read_command(self.directory)
        facts.iaa = read_iaa(self.directory)
        if facts.iaa is not None and "pages" in facts.iaa[0]:
            # The recorder in the guest does not know that the devices keep them.
            facts.notes[:] = [note for note in facts.notes if not note.startswith("pages handed to deflate-iaa")]
        if facts.command is not None:
            # The recorder's command is the guest's runner; this is the user's.
            facts.capture["command"] = Path(str(facts.command["words"][0])).name
        if self.status["complete"]:
            facts.written = self._written
        if self.complete:
            # Files that hold no snapshot any more.
            self._damaged = list(facts.missing)
        facts.missing += self._missing_snapshots(facts)
        gone = [name for name in self.gone if not name.startswith("counters-")]
        if gone:
            facts.missing.append(f"the recorder wrote {', '.join(gone[:4])}{', ...' if len(gone) > 4 else ''}, which "
                                 f"{'is' if len(gone) == 1 else 'are'} missing from the capture")
        if self.until is not None:
            # What happened while a snapshot's files were read belongs to it: its end counts.
            late = [label for label, ts, values in facts.snapshots if _read_until(ts, values) > self.until]
            facts.snapshots = [(label, ts, values) for label, ts, values in facts.snapshots
                               if _read_until(ts, values) <= self.until]
            if self.start is None:
                facts.notes.append("the recorder was stopped before it recorded anything")
                return
            seconds = max(self.until - self.start, 0) / 1e9
            ended = self.status.get("ended")
            how = f"the recorder says that {ended[:_LONG_SENTENCE]}" if isinstance(ended, str) else \
                "files of the capture are shorter than the recorder left them" if self.status["complete"] else \
                "the recorder was stopped before it could finish"
            facts.notes.append(f"{how}: events are whole for its first {seconds:.3f} s, later ones were "
                               "left out"
                               + (f", and so were the counter snapshots {', '.join(late)}" if late else ""))

    def _missing_snapshots(self, facts: RunFacts) -> list[str]:
        """Say which counter snapshots the recorder took and are not there: it numbers them, and the last is ``end``."""
        gone = missing_counters(path.name for path in self.directory.glob("counters-*"))
        out = []
        if gone:
            shown = ", ".join(f"{number:03}" for number in gone[:8]) + (", ..." if len(gone) > 8 else "")
            out.append(f"{len(gone)} of the recorder's counter snapshots are missing: {shown}")
        if self.complete and (not facts.snapshots or facts.snapshots[-1][0] != END):
            out.append(f"the recorder's last counter snapshot ('{END}') is missing")
        return out

    def bases(self) -> tuple[int, int] | None:
        """Return (page_offset_base, vmemmap_base) of the boot, None where the recorder could not read them."""
        try:
            return int(self.status["bases"]["page_offset_base"], 16), int(self.status["bases"]["vmemmap_base"], 16)
        except (KeyError, ValueError, TypeError):
            return None

    def events(self, blocks: Iterator[Block], facts: RunFacts) -> Iterator[Block]:
        """Pass on the events that are whole, and set the losses when they end."""
        for block in blocks:
            if self.until is None or not len(block) or int(block.ts.max()) < self.until:
                yield block
            else:
                yield block.only(block.ts < self.until)
        self._set_losses(facts)

    def _set_losses(self, facts: RunFacts) -> None:
        seen = set()
        for loss in facts.losses:
            cpu = str(loss.get("cpu"))
            seen.add(cpu)
            counts = self._losses.get(cpu)
            # Unreadable parts of a ring are missing in addition to what the kernel lost.
            if not loss.get("cut_off"):
                loss["lost"] = _lost(counts, loss.get("lost"))
                if self.complete and loss["tail_bytes"] and loss["lost"] is not None:
                    loss |= {"lost": None, "cut_off": True,
                             "why": f"{loss['file']} ends {loss['tail_bytes']} bytes into a sub-buffer: it is cut"}
                if self.complete:
                    self._hold_to_ring(loss, facts)
        # A CPU that left no file may have lost all it had.
        for cpu, counts in self._losses.items():
            lost = _lost(counts, 0)
            if cpu not in seen and lost != 0:
                facts.losses.append({"cpu": int(cpu) if cpu.isdecimal() else cpu, "lost": lost})
        for row in dict.fromkeys(self._others):
            since, what = row
            if since is not None and self.until is not None and since >= self.until:
                continue
            facts.losses.append({"cpu": None, "lost": None, "why": f"events may be missing: {what}",
                                 **({"since": since} if since is not None else {})})
        facts.notes += [f"{text} while it was recorded"
                        for text in changes_in_words(_cpu_changes(self.status.get("cpus")))[:_MOST_OTHERS]]
        self._damaged += [str(loss["why"]) for loss in facts.losses if loss.get("cut_off")]
        if self.status["complete"] and self._damaged:
            facts.complete = False
            facts.capture["damaged"] = self._damaged
        probes = self.status["losses"].get("probes")
        for probe, missed in (probes if isinstance(probes, dict) else {}).items():
            if isinstance(missed, int) and missed > 0:
                facts.notes.append(f"the probe of {probe} missed {missed} hits")
                facts.losses.append({"cpu": "any", "probe": probe, "lost": missed})

    def _hold_to_ring(self, loss: dict[str, Any], facts: RunFacts) -> None:
        """Compare a CPU's events with the number that the kernel gave to readers of its ring.

        Another process that reads the ring takes events away; one that clears it takes the counts as well.
        """
        rings = self.status.get("rings")
        ring = rings.get(str(loss.get("cpu"))) if isinstance(rings, dict) else None
        if not isinstance(ring, dict) or not all(isinstance(ring.get(key), int) for key in ("read", "entries")):
            return
        events, read = int(loss.get("events", 0)), ring["read"] + ring["entries"]
        if read > events:
            facts.notes.append(f"{loss.get('file')} holds {events} events, and the kernel gave {read} to readers of "
                               "its ring: another process read it, or the file is not whole")
            loss["lost"] = min(loss["lost"] + read - events, _MOST_LOST) if loss["lost"] is not None else None
        elif read < events:
            # A process that clears a ring writes a file, and a recorder with inotify notices that.
            known = [since for since, _ in self._others if since is not None]
            why = f"how many events CPU {loss['cpu']} lost is not known: its ring was cleared while it was recorded " \
                  f"({events} events were read, and the kernel counts {read})"
            loss |= {"lost": None, "why": why, **({"since": min(known)} if known else {})}
        elif loss["lost"] == 0:
            loss["counted"] = True

    def pages(self, facts: RunFacts, bases: tuple[int, int] | None) -> PageIndex | None:
        """Return the pages that were recorded, of all CPUs in order of time; None when there are none.

        :raises BadInput: at a damaged line that a kill does not explain
        """
        parts = [_CpuPages(path, self.complete) for path in self._indices]
        total = sum(len(part.digests) for part in parts)
        if not total:
            return read_device_pages(self.directory, *facts.iaa) if facts.iaa is not None else None
        ts = np.concatenate([np.array(part.ts, np.int64) for part in parts])
        address = np.concatenate([np.array(part.address, np.uint64) for part in parts])
        order = np.argsort(ts, kind="stable")
        owner = np.repeat(np.arange(len(parts)), [len(part.digests) for part in parts])
        within = np.concatenate([np.arange(len(part.digests)) for part in parts])
        digests = [parts[owner[at]].digests[within[at]] for at in order]
        keyed = sum(len(digest) != _SHA1_DIGITS for digest in digests)
        facts.capture["page_digests"] = {"keyed": keyed, "sha1": total - keyed}
        return _RecordedPages(str(self._indices[0]), ts[order], address[order], digests,
                              [(parts[owner[at]], int(within[at])) for at in order], bases)

    def usable_truth(self, truth: pd.DataFrame | None, key: str, facts: RunFacts) -> pd.DataFrame | None:
        """Return a workload's truth, or None where its digests have nothing to be compared with.

        :param key: the name of the key of its digests, "" where they are SHA-1
        """
        if truth is None:
            return None
        pages = facts.capture.get("pages")
        if isinstance(pages, dict) and pages.get("mode") == "none":
            facts.notes.append("the workload's truth was left out: no pages were recorded that it could be compared "
                               "with; record with --pages full to check content")
            return None
        if key:
            if isinstance(pages, dict) and pages.get("key") == key:
                return truth
            facts.notes.append(OTHER_KEY)
            return None
        if not facts.capture.get("page_digests", {}).get("keyed"):
            return truth
        facts.notes.append("the workload's truth was left out: its SHA-1 digests cannot be compared with the keyed "
                           "hashes of pages; record with --pages full to check content")
        return None


def read_command(directory: Path) -> dict[str, Any] | None:
    """Return how a user's command ended in the lab and what it said (``stdout``, ``stderr``), None where none was run.

    Where its end is missing, as of a guest that died, ``status`` is None.
    """
    if not any((directory / name).is_file() for name in (ANSWER, *STREAMS)):
        return None
    answer: dict[str, Any] = {"words": ["?"], "status": None}
    try:
        value = jsontext.parse(read_input(directory / ANSWER, _MAX_LOG))
        if isinstance(value["words"], list) and value["words"] and isinstance(value["status"], int):
            answer = value
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    for name in STREAMS:
        try:
            text = read_input(directory / name, KEPT)[:KEPT].decode("utf-8", "replace")
        except OSError:
            text = ""
        answer[name.partition(".")[2]] = text
    return answer


def _is_owned(name: str) -> bool:
    return name in ("capture.json", "control", SUMS, ANSWER, *STREAMS, FACTS, JOBS, PAGES) or name.endswith(".part") \
        or is_appended(name)


def _packed(path: Path) -> list[Path]:
    """Return the packed form of a capture's file, where there is one."""
    found = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    return [other for other in found if other.is_file()]


def _files(directory: Path, pattern: str) -> list[Path]:
    """Return the files of a pattern, packed or not; of one that is there in both forms the first."""
    found = {path.name: path for path in directory.glob(pattern)}
    for suffix in SUFFIXES:
        for path in directory.glob(pattern + suffix):
            found.setdefault(path.name.removesuffix(suffix), path)
    return [found[name] for name in sorted(found)]


def _read_until(ts: int, values: dict[str, Any]) -> int:
    """Return when the last file of a snapshot had been read, ns; its beginning where it does not say."""
    stamp = values.get("t_end")
    return round(stamp * 1e9) if isinstance(stamp, int | float) and 0 <= stamp < 1 << 33 else ts


def _rows_of(found: Any) -> list[tuple[int | None, str]]:
    """Return (since when, a sentence) of what a recorder says that other processes did."""
    if not found:
        return []
    if not isinstance(found, list):
        found = [found]
    out = []
    for row in found[:_MOST_OTHERS]:
        row = row if isinstance(row, dict) else {}
        since, what = row.get("since"), row.get("what")
        out.append((since if isinstance(since, int) and 0 <= since < 1 << 63 else None,
                    what[:_LONG_SENTENCE] if isinstance(what, str) else "another process did something to the "
                    "recorder's switches; the note that says what cannot be read"))
    return out


def _cpu_changes(cpus: Any) -> list[tuple[int, bool]]:
    """Return (CPU, whether it came online) of the CPUs that came and went while a recorder recorded."""
    changes = cpus.get("changes") if isinstance(cpus, dict) else None
    return [(row["cpu"], bool(row.get("online"))) for row in (changes if isinstance(changes, list) else [])
            if isinstance(row, dict) and isinstance(row.get("cpu"), int) and 0 <= row["cpu"] < 1 << 16][:_MOST_CHANGES]


def _lost(counts: Any, in_stream: int | None) -> int | None:
    """Return how many events a CPU lost: what the kernel counted, at least what the ring says; None unknown.

    A full sub-buffer has no room for the count of what is missing before it; the kernel's statistics have it.
    """
    if not isinstance(counts, dict):
        return None
    values = [counts.get(key) for key in ("overrun", "commit_overrun", "dropped")]
    if not all(isinstance(value, int) and value >= 0 for value in values):
        return None
    overrun, commit, dropped = (int(value) for value in values if value is not None)
    return min(max(overrun, in_stream or 0) + commit + dropped, _MOST_LOST)


class _CpuPages:
    """One CPU's index, and where each page's bytes are in the dump next to it (-1: not kept)."""

    def __init__(self, index: Path, complete: bool) -> None:
        name = re.sub(r"\.idx(\.xz|\.gz)?$", ".bin", index.name)
        dump = next(iter(_files(index.parent, name)), index.with_name(name))
        self.dump = _Dump(dump)
        self.ts: list[int] = []
        self.address: list[int] = []
        self.digests: list[str] = []
        self.place: list[int] = []
        #: pages whose bytes are not those that the recorder saw, in a capture that is not complete
        self.damaged = 0
        self._complete = complete
        room = self.dump.room(complete)
        kept = 0
        for match in _rows(index, complete):
            digest = match[4].decode()
            has = len(digest) == _SHA1_DIGITS
            if has and kept == room:
                if complete:
                    raise self.dump.short(kept)
                break  # the recorder was killed between the two files
            self.ts.append(int(match[2]))
            self.address.append(int(match[3], 16))
            self.digests.append(digest)
            self.place.append(kept if has else -1)
            kept += has

    def data(self, number: int) -> bytes | None:
        """Return a page's bytes, None when they were not kept.

        :raises BadInput: when they are not there, or are not those that the recorder saw
        """
        place = self.place[number]
        if place < 0:
            return None
        data = self.dump.page(place)
        if hashlib.sha1(data).hexdigest() == self.digests[number]:
            return data
        if self._complete:
            raise BadInput(self.dump.path, f"offset {place * PAGE_SIZE}",
                           "holds another page than its index says: the dump or the index is damaged", _AGAIN)
        # After a power failure the disk may have a file's length and not its bytes.
        self.damaged += 1
        return None


def _rows(index: Path, complete: bool) -> Iterator[re.Match[bytes]]:
    """Yield the rows of an index; a packed one is checked row by row before more of it is unpacked.

    :raises BadInput: at a line that is not a row, or not the next one
    """
    number, rest = -1, b""
    for data in _readable(index, complete):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines if len(rest) < _LONG_LINE else [*lines, rest]:
            if number < 0:
                if line + b"\n" != _HEADER:
                    raise _no_index(index)
            else:
                match = _ROW.fullmatch(line)
                if match is None or int(match[1]) != number or int(match[2]) >= 1 << 63:
                    raise BadInput(index, f"line {number + 2}", "is not 'n,ts_ns,src,digest' in order", _AGAIN)
                yield match
            number += 1
    if number < 0 and not _HEADER.startswith(rest):
        raise _no_index(index)


def _no_index(index: Path) -> BadInput:
    return BadInput(index, "line 1", "is not 'n,ts_ns,src,digest'", _AGAIN)


def _readable(path: Path, complete: bool = False) -> Iterator[bytes]:
    """Yield a file's (unpacked) bytes; of a capture that is not complete up to where they are damaged."""
    try:
        yield from chunks(path)
    except BadInput:
        if complete:
            raise


class _Dump:
    """The bytes of pages, one after the other, packed or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._packed = path.suffix in SUFFIXES
        self._stream: BinaryIO | None = None
        self._next = 0
        self._recent: OrderedDict[int, bytes] = OrderedDict()

    def room(self, complete: bool) -> int:
        """Return how many pages there are; more than any index names for a packed dump that should be whole."""
        if not self.path.is_file():
            return 0
        if not self._packed:
            return self.path.stat().st_size // PAGE_SIZE
        return _WHOLE if complete else sum(map(len, _readable(self.path))) // PAGE_SIZE

    def short(self, number: int) -> BadInput:
        """Return the exception for a missing page."""
        return BadInput(self.path, f"offset {number * PAGE_SIZE}", "ends before the pages of its index", _AGAIN)

    def page(self, number: int) -> bytes:
        """Return a page's bytes.

        :raises BadInput: when the dump ends before, or cannot be unpacked
        """
        if not self._packed:
            with open_input(self.path) as file:
                file.seek(number * PAGE_SIZE)
                return file.read(PAGE_SIZE)
        if number < self._next and number not in self._recent:
            self.close()
        while number >= self._next:
            self._forward()
        return self._recent[number]

    def _forward(self) -> None:
        if self._stream is None:
            self._stream, self._next = open_stream(self.path), 0
        try:
            data = self._stream.read(PAGE_SIZE)
        except DAMAGE as problem:
            raise BadInput(self.path, "", f"the compressed data is damaged ({problem})", _AGAIN) from None
        if len(data) < PAGE_SIZE:
            raise self.short(self._next)
        self._recent[self._next] = data
        self._next += 1
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def close(self) -> None:
        """Begin anew with the next page."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._next = None, 0
        self._recent.clear()


class _RecordedPages(PageIndex):
    """Pages of a capture: their bytes are read when they are stored, where there are any."""

    def __init__(self, path: str, ts: np.ndarray, address: np.ndarray, digests: list[str],
                 where: list[tuple[_CpuPages, int]], bases: tuple[int, int] | None) -> None:
        super().__init__(path, ts, address, digests, None, bases)
        self._digests = digests
        self._where = where

    def store(self, writer: PageStoreWriter) -> None:
        """Write all pages, in order.

        :raises BadInput: when bytes do not match their digest
        """
        for digest, (part, number) in zip(self._digests, self._where, strict=True):
            writer.add(part.data(number), digest)
        parts = {id(part): part for part, _ in self._where}.values()
        self.damaged = sum(part.damaged for part in parts)
        for part in parts:
            part.dump.close()
