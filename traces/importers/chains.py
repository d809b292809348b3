# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that a compress call took besides its own: those of requests that were chained to its request.

v8 of zswap compression batching (01/14, <20250303084724.6490-2-kanchana.p.sridhar@intel.com>) gives
crypto_acomp_compress() the head of a chain of requests.  A probe sees the head; what took the pages, a device or a test
compressor, sees all of them, one after the other, while the call runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from traces import schema
from traces.block import Block

__all__ = ["CallLog", "LoggedCall"]

_COMPRESS: Final = schema.CODE["crypto_acomp_compress"]
_COMPRESS_RET: Final = schema.CODE["crypto_acomp_compress_ret"]
#: -EINPROGRESS and -EBUSY: the call ends behind its return
_NOT_OVER: Final = frozenset({-115, -16})


class LoggedCall(NamedTuple):
    """A compress call of one page: its event, when it began and when it was over (ns), its page, its ``content``."""

    number: int
    ts: int
    over: int
    page: int
    content: int


class CallLog:
    """The compress calls of a recording while it is imported, block by block."""

    def __init__(self) -> None:
        self._rows = 0
        self._parts: list[np.ndarray] = []

    def add(self, block: Block, calls: np.ndarray, first: np.ndarray, content: np.ndarray) -> None:
        """Keep a block's calls.

        :param calls: their rows
        :param first: the struct page of each one's first page (int64)
        :param content: what ``content`` they were given, -1 for none; calls of several pages are left out by that
        """
        ends = np.flatnonzero(block.event == _COMPRESS_RET)
        rows = np.concatenate([calls, ends])
        part = np.full((6, rows.size), -1, np.int64)
        part[0] = self._rows + rows
        part[1] = block.pid[rows]
        part[2] = block.ts[rows]
        part[3, :calls.size] = first
        part[4, :calls.size] = content
        part[4, calls.size:] = -2
        part[5, calls.size:] = block.column("ret")[ends]
        self._parts.append(part[:, np.argsort(rows, kind="stable")])
        self._rows += len(block)

    def calls(self) -> Iterator[LoggedCall]:
        """Yield the calls of one page whose page is known, and that returned, in the order of their entries."""
        columns = np.concatenate(self._parts, axis=1).tolist() if self._parts else [[] for _ in range(6)]
        over = [-1] * len(columns[0])
        entered: dict[int, list[int]] = {}
        waits: dict[int, int] = {}
        for at, (pid, ts, content, ret) in enumerate(zip(columns[1], columns[2], *columns[4:6], strict=True)):
            if content != -2:
                if pid in waits:
                    over[waits.pop(pid)] = ts
                entered.setdefault(pid, []).append(at)
            elif entered.get(pid):
                call = entered[pid].pop()
                if ret in _NOT_OVER:
                    waits[pid] = call
                else:
                    over[call] = ts
        for at in waits.values():
            over[at] = np.iinfo(np.int64).max
        for at, (number, ts, page, content) in enumerate(zip(columns[0], *columns[2:5], strict=True)):
            if content >= 0 and over[at] >= 0:
                yield LoggedCall(number, ts, over[at], page, content)
