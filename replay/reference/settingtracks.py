# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording says of a setting over time: written, read, and whether the two agree.

A write holds from somewhere between its entry and its return on; a snapshot reads a value somewhere between its
beginning and its end.  With the writes probed, a value that was read holds as far back and as far on as no write comes.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

from model.memcg import UNLIMITED
from model.page import PAGE_SIZE
from model.zswap_state import memparse

__all__ = ["Track", "limit_of", "switch_of"]

T = TypeVar("T")
#: PAGE_COUNTER_MAX of 64-bit kernels, LONG_MAX / PAGE_SIZE: a value that large means no limit
_PAGE_COUNTER_MAX: Final = ((1 << 63) - 1) // PAGE_SIZE
_INTEGER: Final = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")


def limit_of(text: str) -> int | None:
    """Return the pages of what is written to memory.zswap.max: page_counter_memparse(); None where it is refused."""
    text = text.strip()
    if text == "max":
        return UNLIMITED
    try:
        pages = memparse(text) // PAGE_SIZE
    except ValueError:
        return None
    return UNLIMITED if pages >= _PAGE_COUNTER_MAX else pages


def switch_of(text: str) -> bool | None:
    """Return what is written to memory.zswap.writeback: kstrtoint() of 0 or 1; None where it is refused."""
    found = _INTEGER.fullmatch(text.strip())
    if found is None:
        return None
    digits = found[1]
    value = int(digits, 8 if digits[0] == "0" and digits[1:2] not in ("x", "X") else 0)
    return bool(value) if value < 2 and (not value or not text.strip().startswith("-")) else None


class Track(Generic[T]):
    """One setting of one thing, from event ``begin`` on.

    ``segments``: (event, the values that it may have from there on, None where nothing says), ascending.
    ``contradiction``: what a snapshot says that no write explains, or None.

    :param values: what it may be at first
    :param certain: False where its writes were not probed: nothing is known then
    """

    def __init__(self, begin: int, values: frozenset[T] | None, certain: bool) -> None:
        self.segments: list[tuple[int, frozenset[T] | None]] = [(begin, values if certain else None)]
        self.contradiction: str | None = None
        self._certain = certain
        #: writes that have not returned: task -> value
        self._open: dict[int, frozenset[T] | None] = {}
        #: of the writes since one was under way: what they may leave
        self._left: list[frozenset[T] | None] = []
        self._before = values
        self._last_write = -1
        #: what is read says what it was since the last segment began
        self._back = True

    @property
    def values(self) -> frozenset[T] | None:
        """What it may be now."""
        return self.segments[-1][1]

    def _becomes(self, event: int, values: frozenset[T] | None) -> None:
        self.segments.append((event, values if self._certain else None))

    def enter(self, event: int, ts: int, task: int, value: T | None) -> None:
        """A write was entered; ``value`` is None where it is not known what."""
        if not self._open:
            self._before, self._left = self.values, []
        self._open[task] = None if value is None else frozenset({value})
        self._last_write, self._back = ts, False
        self._becomes(event, _all([self._before, *self._left, *self._open.values()]))

    def leave(self, event: int, ts: int, task: int, good: bool) -> bool:
        """A write returned; False where it was not one of this setting's."""
        if task not in self._open:
            return False
        written = self._open.pop(task)
        self._last_write = ts
        if good:
            self._left.append(written)
        if self._open:
            return True
        # Of several at one time any may have been the last.
        self._becomes(event, _all(self._left) if self._left else self._before)
        self._back = self.values is None
        return True

    def forget(self, event: int, ts: int) -> None:
        """It changed in a way that does not say to what."""
        self._becomes(event, None)
        self._last_write, self._back = ts, False

    def read(self, event: int, began: int, value: T | None, label: str) -> None:
        """A snapshot read it between the time ``began`` (ns) and ``event``."""
        if value is None or self._open or self._last_write >= began:
            return
        known = self.values
        if known is None:
            if self._back and self._certain:
                self.segments[-1] = (self.segments[-1][0], frozenset({value}))
            else:
                self._becomes(event, frozenset({value}))
        elif value not in known:
            self.contradiction = self.contradiction or label
        elif len(known) > 1:
            self._becomes(event, frozenset({value}))
        self._back = False

    def steps(self) -> list[tuple[int, frozenset[T] | None]]:
        """Return the segments; where a snapshot contradicts them, nothing is known at any time."""
        return self.segments if self.contradiction is None else [(self.segments[0][0], None)]


def _all(values: list[frozenset[T] | None]) -> frozenset[T] | None:
    known = [value for value in values if value is not None]
    return frozenset().union(*known) if len(known) == len(values) else None
