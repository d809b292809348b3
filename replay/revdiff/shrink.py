# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a sequence of operations as small as it can be while a test of it still holds: delta debugging.

Operations go first, halves of them and then ever shorter pieces; then what the box starts with, then arguments:
fewer pages, smaller ranges, nothing optional.  What is left is held to the rules again after each step, so that
operations on a region that is no more go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from traces.workload.sequence import OPERATIONS, Sequence, mend

__all__ = ["Shrunk", "shrink"]

#: What an operation can do without, the first to go first.
_OPTIONAL: Final = ("pause", "chunk", "split", "step", "first", "last", "folio")
_NUMBERS: Final = ("pages", "rounds", "last", "milliseconds")


@dataclass(frozen=True)
class Shrunk:
    """The smallest sequence found, how many tests it took, and whether nothing smaller was left to try."""

    sequence: Sequence
    runs: int
    finished: bool


class _Enough(Exception):
    """The limit on tests is reached."""


def shrink(sequence: Sequence, diverges: Callable[[Sequence], bool], limit: int, reached: int | None = None) -> Shrunk:
    """Return the smallest sequence that still diverges.

    :param sequence: one that does
    :param diverges: runs a sequence
    :param limit: how often it may be asked
    :param reached: the operation, counted from 1, after which the divergence had been seen
    """
    shrinker = _Shrinker(sequence, diverges, limit)
    try:
        if reached is not None:
            shrinker.test(Sequence(sequence.operations[:reached], sequence.start, sequence.name))
        before = None
        while before != shrinker.best:
            before = shrinker.best
            shrinker.operations()
            shrinker.start()
            shrinker.arguments()
    except _Enough:
        return Shrunk(shrinker.best, shrinker.runs, False)
    return Shrunk(shrinker.best, shrinker.runs, True)


class _Shrinker:
    def __init__(self, sequence: Sequence, diverges: Callable[[Sequence], bool], limit: int) -> None:
        self.best = sequence
        self.runs = 0
        self._diverges = diverges
        self._limit = limit
        self._tried = {sequence.text()}

    def test(self, candidate: Sequence) -> bool:
        """Take a candidate when it diverges, unless it is nothing new.

        :raises _Enough: when no more may be asked
        """
        candidate = mend(candidate)
        text = candidate.text()
        if text in self._tried:
            return False
        if self.runs >= self._limit:
            raise _Enough
        self._tried.add(text)
        self.runs += 1
        if self._diverges(candidate):
            self.best = candidate
            return True
        return False

    def operations(self) -> None:
        """Leave pieces of the list out, from its end on: a divergence needs more of what came first."""
        size = max(1, len(self.best.operations) // 2)
        while True:
            at = len(self.best.operations) - size
            while at > -size:
                operations = self.best.operations
                if self.test(self._with(operations[:max(at, 0)] + operations[at + size:])):
                    at = min(at, len(self.best.operations))
                at -= size
            if size == 1:
                return
            size //= 2

    def start(self) -> None:
        """Have a plainer box: one worker, one CPU, no parameters."""
        for change in ({"workers": 1, "cpus": 1}, {"cpus": self.best.workers}, {"params": None}):
            self.test(Sequence(self.best.operations, _changed(self.best.start, change), self.best.name))
        for name in list(self.best.start.get("params", {})):
            params = _changed(self.best.start.get("params", {}), {name: None})
            self.test(Sequence(self.best.operations, {**self.best.start, "params": params}, self.best.name))

    def arguments(self) -> None:
        """Make each operation's arguments smaller, as long as that goes."""
        at = 0
        while at < len(self.best.operations):
            if not any(self.test(self._with([*self.best.operations[:at], smaller, *self.best.operations[at + 1:]]))
                       for smaller in _smaller(self.best.operations[at])):
                at += 1

    def _with(self, operations: list[dict[str, Any]]) -> Sequence:
        return Sequence(operations, self.best.start, self.best.name)


def _changed(start: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**start, **change}.items() if value is not None}


def _smaller(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an operation with one argument less or smaller, the greatest step first."""
    for name in _OPTIONAL:
        if name in operation:
            yield _changed(operation, {name: None})
    for name in _NUMBERS:
        value = operation.get(name)
        if not isinstance(value, int):
            continue
        lowest = max(operation.get("first", 0) + 1 if name == "last" else OPERATIONS[operation["do"]][name].low, 1)
        for part in (8, 2):
            least = max(value // part, lowest)
            if least < value:
                yield {**operation, name: least}
