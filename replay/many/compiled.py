# SPDX-License-Identifier: GPL-2.0-or-later
"""Several processes with one cache of compiled functions.

Numba keeps compiled functions next to their source, shared by all processes.  It writes the index, then the code, and
takes no lock (``numba.core.caching.IndexDataCacheFile``, looked at in 0.68): of two processes that compile different
signatures of a function at the same time, one's index can come to lie over the other's code, and one that reads in
between can get the code of a source that has changed since.  Processes that call :func:`guard` do both under a lock.
"""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["guard"]


@contextmanager
def _locked(path: str, how: int) -> Iterator[None]:
    """Hold a lock on the cache next to ``path``; none where no lock file can be made (then no process can write)."""
    try:
        handle = os.open(os.path.join(os.path.dirname(path), "zreplay.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        yield
        return
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


@functools.cache
def guard() -> bool:
    """Have this process take a lock when it reads or writes compiled functions; False where Numba is not installed."""
    try:
        from numba.core.caching import IndexDataCacheFile
    except ImportError:
        return False

    def under_lock(method: Callable[..., Any], how: int) -> Callable[..., Any]:
        @functools.wraps(method)
        def held(self: Any, *arguments: Any) -> Any:
            with _locked(self._index_path, how):
                return method(self, *arguments)
        return held

    IndexDataCacheFile.load = under_lock(IndexDataCacheFile.load, fcntl.LOCK_SH)  # type: ignore[method-assign]
    IndexDataCacheFile.save = under_lock(IndexDataCacheFile.save, fcntl.LOCK_EX)  # type: ignore[method-assign]
    return True
