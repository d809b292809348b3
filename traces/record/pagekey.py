# SPDX-License-Identifier: GPL-2.0-or-later
"""How a recording names pages, for the command that is recorded: it may know what its pages held, and say so.

A workload's truth names pages, too, and its names must match those of the recorded pages.  So the recorder offers the
key, in a file that exists only in the recorder's memory (memfd_create(2)) and is gone with it: nothing that outlives
the run has the key.
"""

from __future__ import annotations

import hashlib
import json
import os

__all__ = ["VARIABLE", "PageKey"]

#: Where a command finds the files, one of each recorder, with ``:`` between them.
VARIABLE = "ZREPLAY_PAGES"


class PageKey:
    """The random key of one recording's page hashes.

    ``key``: its 32 bytes; ``name``: its name in capture.json and in a truth, 16 hex digits that do not reveal it.
    """

    def __init__(self) -> None:
        self.key = os.urandom(32)
        self.name = hashlib.blake2b(b"name of a page key", digest_size=8, key=self.key).hexdigest()
        self._file = -1

    def offer(self, capture: str, every: int) -> str:
        """Return the path of a file with the key, for processes that may read this one's memory; "" where that fails.

        :param capture: the capture's directory
        :param every: bytes are kept, and named by their SHA-1, of one content of this many; 0 for none
        """
        text = json.dumps({"capture": capture, "key": self.key.hex(), "name": self.name, "every": every})
        try:
            self._file = os.memfd_create("zreplay-page-key", os.MFD_CLOEXEC)
            os.write(self._file, text.encode())
        except (OSError, AttributeError):
            return ""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def close(self) -> None:
        """Take the offer back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
