# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages handed to a compressor: from halves in a ring to keyed hashes, or, where asked for, to bytes.

Page bytes pass through the recorder's memory; what is written of a page is its keyed hash, unless bytes were
asked for.  The key is random, of this recording alone, and kept nowhere: equal pages of one recording have
equal hashes, and no hash can be tried against guessed content.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable

from .capture import AppendFile
from .errors import CannotRecord
from .subbuf import events_of, missed

__all__ = ["INDEX_HEADER", "PageMode", "PageTaker"]

#: First line of ``pages.cpuN.idx``.  ``digest`` is SHA-1 (40 hex digits) of a page whose bytes are in
#: ``pages.cpuN.bin``, in that order, or a keyed BLAKE2b (64 hex digits) of one whose bytes are not kept.
INDEX_HEADER = b"n,ts_ns,src,digest\n"
_HALF = 2048
#: Halves that may wait for their other half; of more than this the other halves were lost.
_MOST_WAITING = 4096


class PageMode:
    """What is kept of pages: ``none``, ``hash``, ``sample:N`` (bytes of one content of N), or ``full``.

    :raises CannotRecord: when the text is none of these
    """

    def __init__(self, text: str) -> None:
        sample = re.fullmatch(r"sample:([1-9][0-9]{0,6})", text)
        if text not in ("none", "hash", "full") and sample is None:
            raise CannotRecord(f"'{text[:40]}' is not a way to keep pages", "use none, hash, sample:N or full")
        self.text = text
        #: Bytes are kept of one content of this many; 0 for none.
        self.every = int(sample[1]) if sample else int(text == "full")

    @property
    def recorded(self) -> bool:
        """True when pages are looked at at all."""
        return self.text != "none"

    @property
    def content(self) -> bool:
        """True when fields of events may hold bytes of user memory too."""
        return self.text == "full"


class PageTaker:
    """Pairs the halves of pages in raw sub-buffers and writes an index per CPU, with the bytes where wanted.

    :param mode: what to keep
    :param formats: the text of ``format`` of each half's event, by the event's name (``pg0_0``, ``pg0_1``)
    :param subbuf: bytes of a sub-buffer
    :param make: opens a file of the capture for appending, by name
    :param key: of the hashes; by default a random one
    """

    def __init__(self, mode: PageMode, formats: dict[str, str], subbuf: int, make: Callable[[str], AppendFile],
                 key: bytes | None = None) -> None:
        self._mode = mode
        self._key = os.urandom(32) if key is None else key
        self._subbuf = subbuf
        self._make = make
        self._halves = {}
        for name, text in formats.items():
            fields = dict(re.findall(r"field:[^;]*?(\w+)(?:\[\d*\])?;\s*offset:(\d+)", text))
            number = re.search(r"^ID: (\d+)", text, re.M)
            if number is not None:
                self._halves[int(number[1])] = (int(name[-1]), int(fields["src"]), int(fields["c0"]))
        self._files: dict[int, tuple[AppendFile, AppendFile | None]] = {}
        self._waiting: dict[int, dict[tuple[int, int, int], tuple[int, memoryview]]] = {}
        self._count: dict[int, int] = {}
        #: Pages written, and pages of which a half was lost.
        self.pages = self.broken = 0

    def __call__(self, cpu: int, data: bytes) -> None:
        """Take some whole sub-buffers of a CPU."""
        lines: list[bytes] = []
        bodies: list[memoryview] = []
        for at in range(0, len(data) - self._subbuf + 1, self._subbuf):
            self._subbuffer(cpu, data, at, lines, bodies)
        if lines:
            if cpu not in self._files:
                index = self._make(f"pages.cpu{cpu}.idx")
                index.write(INDEX_HEADER)
                self._files[cpu] = (index, self._make(f"pages.cpu{cpu}.bin") if self._mode.every else None)
            index, dump = self._files[cpu]
            # Bytes first: an index that a kill cut off may have too few lines, not too many.
            if dump is not None and bodies:
                dump.write(b"".join(bodies))
            index.write(b"".join(lines))

    def _subbuffer(self, cpu: int, data: bytes, start: int, lines: list[bytes], bodies: list[memoryview]) -> None:
        """Take the halves of pages that one sub-buffer holds."""
        if missed(data, start):
            self._forget(cpu)
        for ts, body, size in events_of(data, start, self._subbuf):
            half = self._halves.get(struct.unpack_from("<H", data, body)[0])
            if half is not None and size >= half[2] + _HALF:
                self._half(cpu, ts, data, body, half, lines, bodies)

    def _half(self, cpu: int, ts: int, data: bytes, body: int, half: tuple[int, int, int],
              lines: list[bytes], bodies: list[memoryview]) -> None:
        upper, source_at, content_at = half
        pid, = struct.unpack_from("<i", data, body + 4)
        source, = struct.unpack_from("<Q", data, body + source_at)
        # A view: each copy of a page costs about as much as hashing it.
        content = memoryview(data)[body + content_at:body + content_at + _HALF]
        waiting = self._waiting.setdefault(cpu, {})
        other = waiting.pop((pid, source, 1 - upper), None)
        if other is None:
            if (pid, source, upper) in waiting or len(waiting) >= _MOST_WAITING:
                self._forget(cpu)
            waiting[pid, source, upper] = (ts, content)
            return
        lines.append(self._line(cpu, other[0], source, (other[1], content) if upper else (content, other[1]), bodies))
        self.pages += 1

    def _line(self, cpu: int, ts: int, source: int, page: tuple[memoryview, memoryview],
              bodies: list[memoryview]) -> bytes:
        number = self._count[cpu] = self._count.get(cpu, -1) + 1
        digest, every = None, self._mode.every
        if every != 1:
            digest = hashlib.blake2b(page[0], digest_size=32, key=self._key)
            digest.update(page[1])
        # Chosen by content, so that a content's bytes are kept each time or never.
        if digest is None or (every and int.from_bytes(digest.digest()[:8], "little") % every == 0):
            bodies += page
            kept = hashlib.sha1(page[0])
            kept.update(page[1])
            return b"%d,%d,%x,%s\n" % (number, ts, source, kept.hexdigest().encode())
        return b"%d,%d,%x,%s\n" % (number, ts, source, digest.hexdigest().encode())

    def _forget(self, cpu: int) -> None:
        """Events are missing here: halves that wait would be paired with those of later pages."""
        self.broken += len(self._waiting.get(cpu, ()))
        self._waiting[cpu] = {}
