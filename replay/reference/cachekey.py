# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own key, by which kept results are known to be theirs, and which only they can read.

A recording may hold anything that its sender put into it, also in ``cache``, and no manifest lists that directory.
So results are kept with a keyed digest: another user's are ignored.  What they hold of pages is sealed: reading it
takes this key and the recording that has the pages.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from traces.files import open_input

__all__ = ["cache_home", "remove_old", "sealed", "signature"]

_BYTES: Final = 32
#: How results were named before their format had a number.
_OLD: Final = re.compile(r"[0-9a-f]{16}-[a-z0-9-]+-[0-9a-f]{16}\.parquet")


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


def sealed(data: bytes, parts: Iterable[bytes]) -> bytes | None:
    """Return bytes as only this user can read them, and only with the same ``parts``; done twice they are themselves.

    They are XORed with SHAKE-256 of the keyed digest of ``parts`` (FIPS 202).  None where this user can have no key.

    :param parts: what every owner of the recording knows, and something that is new each time
    """
    secret = signature(parts)
    if secret is None:
        return None
    stream = hashlib.shake_256(bytes.fromhex(secret)).digest(len(data))
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(len(data), "little")


def remove_old(home: Path) -> list[str]:
    """Remove results that earlier versions kept for recordings that cannot be written to; return their names.

    They hold the first bytes of each page as they are.
    """
    removed = []
    with contextlib.suppress(OSError):
        for name in sorted(entry.name for entry in os.scandir(home) if _OLD.fullmatch(entry.name)):
            with contextlib.suppress(OSError):
                os.unlink(home / name)
                removed.append(name)
    return removed


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
