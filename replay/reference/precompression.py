# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages compressed while their recording is still being made, in threads next to the importer's own."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final

import numpy as np

from model.crypto import Compressor, UnsupportedCompressor, compressor_for
from model.revisions import REVISIONS
from model.zswap import KERNEL_COMPRESSORS
from replay.reference.kernelrevision import revision_of_kernel
from replay.reference.predictions import keep, results_of
from traces.events import PAGE_SIZE
from traces.recording import Recording

__all__ = ["CompressingBeside"]

#: Threads at most: one stores the pages, which takes longer than compressing them with this many.
_MOST: Final = 4
#: Groups of pages (4 MiB each) under way for each thread: the thread that stores pages waits where there are more.
_AHEAD: Final = 2


class CompressingBeside:
    """Compresses each group of distinct pages when it is stored, with the compressor that is current at the start.

    Used as a context manager: leaving it ends its threads.  :meth:`keep` writes the results next to the recording,
    where a replay finds them; other compressors, and what could not be done here, are left to the replay.
    """

    def __init__(self) -> None:
        self._threads = min(os.cpu_count() or 1, _MOST)
        self._pool = ThreadPoolExecutor(self._threads)
        self._compressor: Compressor | None = None
        self._waiting: deque[Future[tuple[np.ndarray, ...]]] = deque()
        self._groups: list[tuple[np.ndarray, ...]] = []

    def __enter__(self) -> CompressingBeside:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, kernel: dict[str, Any], config: dict[str, Any]) -> None:
        """Take note of what was recorded; where that names no compressor that is known here, nothing is compressed.

        :param kernel: as in a recording's manifest, like ``config``
        """
        revision, name = revision_of_kernel(kernel), config.get("compressor")
        if revision is not None and name in KERNEL_COMPRESSORS:
            # The replay reports why there is none.
            with contextlib.suppress(UnsupportedCompressor):
                self._compressor = compressor_for(name, REVISIONS[revision].kernel_line)

    def add(self, pages: list[bytes | None]) -> None:
        """Take the next pages of the store, in its order; None stands for one whose bytes are not there."""
        if self._compressor is None:
            return
        has = np.array([page is not None for page in pages], bool)
        data = np.frombuffer(b"".join(filter(None, pages)), np.uint8).reshape(-1, PAGE_SIZE)
        self._waiting.append(self._pool.submit(results_of, self._compressor, has, data))
        while len(self._waiting) > _AHEAD * self._threads:
            self._groups.append(self._waiting.popleft().result())

    def keep(self, recording: Recording) -> None:
        """Leave the results next to the finished recording."""
        while self._waiting:
            self._groups.append(self._waiting.popleft().result())
        if self._compressor is not None and self._groups:
            keep(recording, self._compressor, tuple(np.concatenate(column) for column in
                                                    zip(*self._groups, strict=True)))
