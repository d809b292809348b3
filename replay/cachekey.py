# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own key, by which kept results are known to be theirs.

A recording comes with whatever its sender put into it, ``cache`` too, and no manifest names what is in there.
So results are kept with a keyed digest: those of somebody else are as good as none.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from traces.files import open_input

__all__ = ["cache_home", "signature"]

_BYTES: Final = 32


def cache_home() -> Path:
    """Return the directory in which this user's results and key are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")) / "zreplay"


def signature(parts: Iterable[bytes | memoryview]) -> str | None:
    """Return the keyed digest of what is kept, hex; None where this user can have no key."""
    key = _key(cache_home())
    if key is None:
        return None
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


@functools.lru_cache(4)
def _key(home: Path) -> bytes | None:
    path = home / "key"
    # Made whole under a name of its own, and then linked: of two commands at a time one is first.
    with contextlib.suppress(OSError):
        if not os.path.lexists(path):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = home / f".key.{os.getpid()}.{secrets.token_hex(4)}"
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(handle, secrets.token_bytes(_BYTES))
                with contextlib.suppress(FileExistsError):
                    os.link(part, path)
            finally:
                os.close(handle)
                os.unlink(part)
    try:
        with open_input(path) as file:
            status = os.fstat(file.fileno())
            key = file.read(_BYTES + 1)
    except (OSError, ValueError):
        return None
    mine = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return key if mine and len(key) == _BYTES else None
