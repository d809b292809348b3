# SPDX-License-Identifier: GPL-2.0-or-later
"""How ``truth.csv`` names the content of pages.

Pages are synthetic, or a user's: those of ``--content`` may be anything.  A plain digest would show that a page was
there to anybody who can guess the page.  So a user's page is named as the recording names it, with a key that the
recorder keeps and offers in its memory (``ZREPLAY_PAGES``).  Where no key is offered, the key is thrown away, and names
only show which pages are equal.  Anybody can make synthetic pages from their seed: their names are plain SHA-1, as are
those of pages whose bytes are recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .pages import digest

__all__ = ["PLAIN", "Naming", "namings"]

_MOST: Final = 4096


class Naming:
    """One capture's names of pages: ``column`` heads them in ``truth.csv``; called with a page it returns its name.

    :param key: None for plain SHA-1
    :param name: of the key
    :param every: pages whose keyed digest is a multiple of this are named by SHA-1, as their bytes are kept; 0: none
    """

    def __init__(self, key: bytes | None = None, name: str = "", every: int = 0) -> None:
        self._key, self._every = key, every
        self.column = "sha1" if key is None else f"blake2b-{name}"

    def __call__(self, data: bytes) -> str:
        """Return the name of a page's content, in hex."""
        if self._key is None:
            return digest(data)
        # As traces.record.pages names them.
        keyed = hashlib.blake2b(data, digest_size=32, key=self._key)
        kept = self._every and int.from_bytes(keyed.digest()[:8], "little") % self._every == 0
        return digest(data) if kept else keyed.hexdigest()


PLAIN: Final = Naming()


def namings(captures: Sequence[Path], private: bool, offered: str) -> list[Naming]:
    """Return how pages are to be named in the truth of each capture.

    :param private: the pages are not synthetic
    :param offered: the value of ``ZREPLAY_PAGES``
    """
    offers = dict(found for path in offered.split(os.pathsep) if path for found in [_read(path)] if found is not None)
    out = []
    for where in map(os.path.realpath, captures):
        unknown = Naming(os.urandom(32), os.urandom(8).hex()) if private else PLAIN
        out.append(offers.get(where, unknown))
    return out


def _read(path: str) -> tuple[str, Naming] | None:
    """Return a recorder's offer: its capture, and how it names pages; None where it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            offer = json.loads(os.pread(handle, _MOST, 0))
        finally:
            os.close(handle)
        key, every = bytes.fromhex(offer["key"]), offer["every"]
        if len(key) != 32 or not isinstance(every, int) or every < 0:
            return None
        return str(offer["capture"]), Naming(None if every == 1 else key, str(offer["name"]), every)
    except (OSError, ValueError, KeyError, TypeError):
        return None
