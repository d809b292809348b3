# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's own account: one JSON line a descriptor, in the order in which they end, behind one line about the
device.  Lines in between say when a queue was enabled or disabled.

Times are nanoseconds of the host's CLOCK_MONOTONIC.  ``in_flight`` is how many others of the queue were on their way
when it was submitted. Page bytes stay out, and so do checksums of them, unless ``contents`` asks for them; then each
page that was to be compressed is kept once, in a file of pages, and ``page`` is its number there.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

__all__ = ["FORMAT", "QUEUE_OFF", "QUEUE_ON", "JobLog", "queue_line"]

FORMAT: Final = "zreplay-iaa-jobs-1"
#: What stands for the operation where a queue was enabled, or disabled.
QUEUE_ON: Final = "queue_on"
QUEUE_OFF: Final = "queue_off"
#: Lines are handed to the file this many at a time.
_BATCH: Final = 64


def queue_line(device: int, queue: int, on: bool, when: int) -> str:
    """Return the line that says that a queue was enabled, or disabled: it has the keys that each job has."""
    zeros = "".join(f',"{name}":0' for name in ("flags", "how", "pfn", "in", "to", "room", "status", "error", "out",
                                                "in_flight"))
    return (f'{{"n":0,"device":{device},"queue":{queue},"op":"{QUEUE_ON if on else QUEUE_OFF}"{zeros},"engine":-1,'
            f'"submitted":{when},"ended":{when}}}')


class JobLog:
    """Writes the lines; with no path it takes none.

    :raises OSError: when the file cannot be written
    """

    def __init__(self, path: Path | None, about: dict[str, Any] | None = None, contents: bool = False,
                 pages: Path | None = None) -> None:
        self.contents = contents
        self._pages: BinaryIO | None = pages.open("wb") if pages is not None else None
        self._rows: dict[bytes, int] = {}
        self._file: TextIO | None = path.open("w", encoding="utf-8") if path is not None else None
        self._lines: list[str] = []
        if self._file is not None:
            self._lines.append(json.dumps({"format": FORMAT, **(about or {})}))
            self._write()

    @property
    def wanted(self) -> bool:
        """Lines are written."""
        return self._file is not None

    def add(self, line: str) -> None:
        """Take one line, without its end."""
        self._lines.append(line)
        if len(self._lines) >= _BATCH:
            self.flush()

    def page(self, data: bytes) -> int:
        """Keep a page.

        :returns: its number in the file of pages, from 1 on; 0 where none are kept
        """
        if self._pages is None:
            return 0
        digest = hashlib.sha1(data).digest()
        row = self._rows.get(digest)
        if row is None:
            try:
                self._pages.write(data)
            except OSError:
                with suppress(OSError):
                    self._pages.close()
                self._pages = None
                return 0
            row = self._rows[digest] = len(self._rows) + 1
        return row

    def flush(self) -> None:
        """Write what waits; what can no longer be written (a full disk) ends the log, not the device."""
        if self._file is None or not self._lines:
            return
        with suppress(OSError):
            self._write()

    def _write(self) -> None:
        assert self._file is not None
        try:
            self._file.write("\n".join(self._lines) + "\n")
            self._file.flush()
        except OSError:
            # Closing tries once more to write.
            with suppress(OSError):
                self._file.close()
            self._file = None
            raise
        finally:
            self._lines.clear()

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._pages is not None:
            with suppress(OSError):
                self._pages.close()
            self._pages = None
