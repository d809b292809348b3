# SPDX-License-Identifier: GPL-2.0-or-later
"""A sequence: a list of operations of the workload with their arguments, and the box's settings at its start.

It is JSON, so that it can be generated, shrunk, kept and run again::

    {"format": 1, "name": "seed 1 number 3",
     "start": {"compressor": "zstd", "params": {"max_pool_percent": 20}, "memory": 1024, "cpus": 1, "workers": 1},
     "operations": [{"do": "map", "region": "a", "pages": 1024, "mix": "mixed", "folio": "64k"},
                    {"do": "out", "region": "a", "last": 512}]}

This module has the format and the rules of a sequence; :mod:`.script` runs it.  Pages are of 4096 bytes and each
worker's own; ``first``, ``last`` and ``step`` are a range's, as Python has them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from .pages import MIXES

__all__ = ["COMPRESSORS", "FOLIOS", "OPERATIONS", "SETTINGS", "SQUEEZABLE", "Argument", "BadSequence", "Rules",
           "Sequence", "load", "mend"]

FORMAT: Final = 1
#: Sizes of folios in bytes by name.
FOLIOS: Final = {"4k": 4 << 10, "16k": 16 << 10, "64k": 64 << 10, "2M": 2 << 20}
COMPRESSORS: Final = ("zstd", "lz4", "deflate", "lzo-rle", "lzo", "lz4hc", "842")
_REGIONS: Final = tuple("abcdefghijklmnop")
_MOST: Final = 16384
_PAGES_PER_MIB: Final = 256
#: This part of the guest's memory may be mapped: swapoff brings all of it back, a fork may double a region.
_SHARE: Final = 8
#: Mixes that compress so well that a limit with room for three quarters of them can be kept.
SQUEEZABLE: Final = ("mixed", "text", "code", "json", "pointers")


class BadSequence(ValueError):
    """A sequence cannot be carried out: one sentence that names the operation's number."""


class Argument(NamedTuple):
    """An argument of an operation: a number from ``low`` to ``high``, one of ``choices``, or either where both are."""

    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    needed: bool = False

    def problem(self, value: Any) -> str:
        """Return what is wrong with a value, as the end of a sentence; nothing when it is right."""
        number = isinstance(value, int) and not isinstance(value, bool)
        if (number and self.high and self.low <= value <= self.high) or (isinstance(value, str)
                                                                         and value in self.choices):
            return ""
        wanted = [f"a number from {self.low} to {self.high}"] if self.high else []
        wanted += [f"one of {', '.join(self.choices)}"] if self.choices else []
        return f"is {value!r} and not {' or '.join(wanted)}"


_REGION: Final = Argument(choices=_REGIONS, needed=True)
_PAGES: Final = Argument(1, _MOST, needed=True)
_MIX: Final = Argument(choices=tuple(MIXES), needed=True)
_FOLIO: Final = Argument(choices=tuple(FOLIOS))
#: A number by which the content of pages differs from what other operations write.
_CONTENT: Final = Argument(0, 1 << 30)
_RANGE: Final = {"first": Argument(0, _MOST), "last": Argument(1, _MOST)}
_STEP: Final = {"step": Argument(1, _MOST)}
_SWITCH: Final = ("Y", "N")

#: operation -> its arguments apart from ``do``
OPERATIONS: Final[dict[str, dict[str, Argument]]] = {
    # Memory.  "split" lets page-out begin and end inside of large folios; "pause" is in milliseconds after each chunk.
    "map": {"region": _REGION, "pages": _PAGES, "mix": _MIX, "folio": _FOLIO, "content": _CONTENT},
    "fill": {"region": _REGION, "mix": _MIX, "content": _CONTENT, **_RANGE, **_STEP},
    "out": {"region": _REGION, "chunk": Argument(1, _MOST), "pause": Argument(0, 100), "split": Argument(0, 1),
            **_RANGE},
    "read": {"region": _REGION, **_RANGE, **_STEP},
    "unmap": {"region": _REGION, **_RANGE},
    "fork": {"region": _REGION, "mix": _MIX, "content": _CONTENT},
    "churn": {"region": _REGION, "mix": _MIX, "content": _CONTENT, "rounds": Argument(1, 64, needed=True)},
    "cross": {"region": _REGION},
    # A new region below a memory.max with room for ``quarters`` quarters of it.
    "pressure": {"region": _REGION, "pages": _PAGES, "mix": _MIX, "content": _CONTENT,
                 "quarters": Argument(3, 16, needed=True)},
    # The box.
    "reclaim": {"pages": _PAGES},
    "drop": {"what": Argument(1, 3, needed=True)},
    "compact": {},
    "swapoff": {},
    "wait": {"milliseconds": Argument(1, 1000, needed=True)},
    # Settings.  zswap-room puts memory.zswap.max that many pages above the present use.
    "zswap-max": {"pages": Argument(0, 1 << 20, ("max",), needed=True)},
    "zswap-room": {"pages": Argument(0, 1 << 20, needed=True)},
    "writeback": {"on": Argument(0, 1, needed=True)},
    "compressor": {"name": Argument(choices=COMPRESSORS, needed=True)},
    "max-pool": {"percent": Argument(0, 100, needed=True)},
    "accept": {"percent": Argument(1, 100, needed=True)},
    "shrinker": {"on": Argument(choices=_SWITCH, needed=True)},
    "zswap": {"on": Argument(choices=_SWITCH, needed=True)},
}
#: Operations that have a marker of their own in a recording: they stand between two phases.
SETTINGS: Final = frozenset({"zswap-max", "zswap-room", "writeback", "compressor", "max-pool", "accept", "shrinker",
                             "zswap"})
_START: Final = {"compressor": Argument(choices=COMPRESSORS), "memory": Argument(384, 65536), "cpus": Argument(1, 64),
                 "workers": Argument(1, 64)}
_PARAMS: Final = {"max_pool_percent": Argument(0, 100), "accept_threshold_percent": Argument(1, 100),
                  "shrinker_enabled": Argument(choices=_SWITCH)}


@dataclass
class Sequence:
    """Operations and what they start from; see the module."""

    operations: list[dict[str, Any]]
    start: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def compressor(self) -> str:
        """The compressor at the start."""
        return str(self.start.get("compressor", "zstd"))

    @property
    def params(self) -> dict[str, str]:
        """Parameters of zswap at the start, as they are written."""
        return {name: str(value) for name, value in self.start.get("params", {}).items()}

    @property
    def memory(self) -> int:
        """The guest's memory in MiB."""
        return int(self.start.get("memory", 1024))

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return int(self.start.get("workers", 1))

    @property
    def cpus(self) -> int:
        """How many CPUs the guest has."""
        return int(self.start.get("cpus", self.workers))

    @property
    def compressors(self) -> list[str]:
        """Every compressor that it uses, the one at the start first."""
        return list(dict.fromkeys([self.compressor, *(str(operation["name"]) for operation in self.operations
                                                      if operation["do"] == "compressor")]))

    def text(self) -> str:
        """Return it as JSON, one operation a line."""
        lines = ",\n  ".join(json.dumps(operation) for operation in self.operations)
        return (f'{{"format": {FORMAT}, "name": {json.dumps(self.name)},\n "start": {json.dumps(self.start)},\n'
                f' "operations": [\n  {lines}\n]}}\n')

    def check(self) -> None:
        """Find out whether it can be carried out.

        :raises BadSequence: when not
        """
        rules = Rules(self)
        for number, operation in enumerate(self.operations, 1):
            problem = rules.problem(operation)
            if problem:
                raise BadSequence(f"operation {number} {problem}; correct it")
            rules.take(operation)


def load(path: Path) -> Sequence:
    """Read a sequence and check it.

    :raises BadSequence: when it cannot be read or carried out
    """
    try:
        document = json.loads(path.read_text())
    except OSError as problem:
        raise BadSequence(f"{path} cannot be read ({problem.strerror}); name a sequence that "
                          "lab fuzz left, or write one") from None
    except ValueError as problem:
        raise BadSequence(f"{path} is not JSON ({problem}); name a sequence that lab fuzz left, or write one") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadSequence(f"{path} is not a sequence of format {FORMAT}; name one that lab fuzz left, or write one")
    start, operations = document.get("start", {}), document.get("operations")
    if not isinstance(start, dict) or not isinstance(operations, list):
        raise BadSequence(f"{path} is not a sequence; give it a list of operations, and an object as its start")
    sequence = Sequence(operations, start, str(document.get("name", "")))
    try:
        sequence.check()
    except BadSequence as problem:
        raise BadSequence(f"{path}: {problem}") from None
    return sequence


class Rules:
    """The state of the box before each operation of a sequence, and so which operations may come next.

    It forbids operations that cannot be done, and those after which the kernel kills a worker: more pages than the
    guest can hold, and a memory.max below which nothing can be reclaimed.

    :raises BadSequence: when the sequence's start is not right
    """

    def __init__(self, sequence: Sequence) -> None:
        for name, value in sequence.start.items():
            if name == "params":
                self._params(value)
                continue
            problem = _START[name].problem(value) if name in _START else "is not known"
            if problem:
                raise BadSequence(f"the start's '{name}' {problem}; correct it")
        self.workers = sequence.workers
        #: pages that may be mapped, of all workers together
        self.most = sequence.memory * _PAGES_PER_MIB // _SHARE
        #: region -> its pages, of each worker
        self.regions: dict[str, int] = {}
        self.folios: dict[str, str] = {}
        self.writeback = True

    @staticmethod
    def _params(params: Any) -> None:
        if not isinstance(params, dict):
            raise BadSequence("the start's 'params' is not an object; make it one of names and values")
        for name, value in params.items():
            problem = _PARAMS[name].problem(value) if name in _PARAMS else "is not known"
            if problem:
                raise BadSequence(f"the start's parameter '{name}' {problem}; correct it")

    def room(self) -> int:
        """Return how many pages each worker may still map."""
        return max(0, self.most // self.workers - sum(self.regions.values()))

    def problem(self, operation: Any) -> str:
        """Return what is wrong with an operation here, as the end of a sentence; nothing when it may come."""
        if not isinstance(operation, dict) or not isinstance(operation.get("do"), str):
            return "is not an object with a 'do'"
        name = operation["do"]
        if name not in OPERATIONS:
            return f"is '{name}', and there is none of that name ({', '.join(OPERATIONS)})"
        wanted = OPERATIONS[name]
        for argument, value in operation.items():
            if argument == "do":
                continue
            if argument not in wanted:
                return f"({name}) has '{argument}', which it does not take"
            problem = wanted[argument].problem(value)
            if problem:
                return f"({name}): its '{argument}' {problem}"
        for argument, kind in wanted.items():
            if kind.needed and argument not in operation:
                return f"({name}) needs '{argument}'"
        return self._place(name, operation)

    def _place(self, name: str, operation: dict[str, Any]) -> str:
        """Return what is wrong with where a well-formed operation stands."""
        region = operation.get("region", "")
        if name in ("map", "pressure"):
            if region in self.regions:
                return f"({name}): region {region} is mapped already"
            if _whole(operation) > self.room():
                return (f"({name}): {_whole(operation):,} pages for each of {self.workers} workers are more than the "
                        f"{self.room():,} that may still be mapped; give the start more memory")
        elif region and region not in self.regions:
            return f"({name}): region {region} is not mapped yet"
        elif region:
            pages = self.regions[region]
            first, last = operation.get("first", 0), operation.get("last", pages)
            if not first < last <= pages:
                return f"({name}): pages {first} to {last} are not a range of region {region}, which has {pages}"
            if name == "churn" and pages < 16:
                return f"({name}): region {region} has {pages} pages, and it takes 16"
        if name == "pressure":
            if not self.writeback:
                return "(pressure): with memory.zswap.writeback at 0 nothing may go to the disk, and a worker is killed"
            if operation["mix"] not in SQUEEZABLE:
                return (f"(pressure): pages of the mix '{operation['mix']}' compress too badly to be squeezed "
                        f"({', '.join(SQUEEZABLE)} do well)")
        return ""

    def take(self, operation: dict[str, Any]) -> None:
        """Take an operation as done."""
        if operation["do"] in ("map", "pressure"):
            self.regions[operation["region"]] = _whole(operation)
            self.folios[operation["region"]] = operation.get("folio", "4k")
        elif operation["do"] == "writeback":
            self.writeback = bool(operation["on"])


def _whole(operation: dict[str, Any]) -> int:
    """Return the pages of a region that is made of whole folios."""
    unit = FOLIOS[operation.get("folio", "4k")] // FOLIOS["4k"]
    return max(int(operation["pages"]) // unit, 1) * unit


def mend(sequence: Sequence) -> Sequence:
    """Return a sequence without the operations that cannot stand where they are; ranges end where regions do.

    :raises BadSequence: when its start is not right
    """
    rules = Rules(sequence)
    kept = []
    for operation in sequence.operations:
        pages = rules.regions.get(operation.get("region", ""))
        if pages is not None and operation.get("last", 0) > pages:
            operation = {**operation, "last": pages}
        if not rules.problem(operation):
            rules.take(operation)
            kept.append(operation)
    return Sequence(kept, sequence.start, sequence.name)
