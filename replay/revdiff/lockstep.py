# SPDX-License-Identifier: GPL-2.0-or-later
"""Where two revisions differ: both run the operations of one recording, and are compared after each.

What parts is put into causes: operations that differ in the same respect in the same way.  The respects are ordered by
what they cost a user: data first, then what is stored, counted and charged, then how it was done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from model.crypto import UnsupportedCompressor, compressor_for
from model.crypto.faults import FaultPlan
from model.crypto.iaa_device import Record, StandIn
from model.crypto.layers import acomp_for
from model.crypto.scomp import Synthetic
from model.page import PAGE_SIZE
from model.zswap import Zswap
from replay.revdiff.freerun import FreeRun, Operation, OperationOutcome
from replay.revdiff.operations import Contents, Operations
from replay.userrev.guard import Guard, guarded, is_own
from replay.userrev.overrides import overrides_line
from replay.verdict.run import branches_taken
from traces.errors import BadInput
from traces.recording import Recording

__all__ = ["RESPECTS", "Broken", "Cause", "OutcomeDifference", "Parting", "broken", "differs", "free_run", "run_both"]

#: respect -> what it says of an operation
RESPECTS: Final = {
    "data": "what a load gives back",
    "result": "what the operation returns",
    "stored": "in what form pages are stored",
    "rejects": "which counters a rejection moves",
    "counters": "what else is counted or charged",
    "pages": "how many pages the pool takes",
    "copies": "how many bytes zsmalloc copies to read an object",
    "calls": "how pages are handed to the compressor",
    "order": "the order of effects",
}
_REJECTS: Final = ("reject_", "pool_limit_hit", "decompress_fail")


@dataclass(frozen=True)
class OutcomeDifference:
    """In what two outcomes of an operation differ most gravely.

    ``respect``: a key of :data:`RESPECTS`; ``sentence``: what differs here; ``template``: the same with ``{}`` for
    every number that another operation of the same cause may have otherwise, and ``values``: those numbers, in order;
    ``sign``: for each of them that is one of a pair, which is the larger: it is another cause where that turns.
    """

    respect: str
    sentence: str
    template: str
    values: tuple[int, ...] = ()
    sign: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What operations of one cause have in common."""
        return self.respect, self.template, self.sign


@dataclass
class Cause:
    """Operations that differ in the same way: in what, the first of them, and how many there are.

    ``low`` and ``high``: of each number of the difference's, the least and the most that any of them has; ``uniform``:
    all say the same; ``events``: at which each began.
    """

    difference: OutcomeDifference
    first: tuple[OperationOutcome, OperationOutcome]
    operations: int = 0
    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()
    uniform: bool = True
    events: set[int] = field(default_factory=set)

    @property
    def respect(self) -> str:
        """The respect in which they differ."""
        return self.difference.respect

    @property
    def sentence(self) -> str:
        """What differs, in words; numbers that are not the same everywhere are ranges."""
        if self.uniform:
            return self.difference.sentence
        ranges = (_range(low, high) for low, high in zip(self.low, self.high, strict=True))
        text = self.difference.template.format(*ranges)
        # The ends of a range of ranges; and what there is one of.
        text = re.sub(r"(\d+)(?: to \d+)* to (\d+) pages", lambda found: f"{_range(found[1], found[2])} pages", text)
        return re.sub(r"(?<!to )\b1 (page|compress call)s\b", r"1 \1", text)

    def add(self, difference: OutcomeDifference, event: int = -1) -> None:
        """Take in one more operation, which began at an event."""
        self.operations += 1
        self.events.add(event)
        self.uniform = self.uniform and difference.sentence == self.difference.sentence
        values = difference.values
        self.low = tuple(map(min, self.low, values)) if self.operations > 1 else values
        self.high = tuple(map(max, self.high, values)) if self.operations > 1 else values


def _range(low: object, high: object) -> str:
    return str(low) if low == high else f"{low} to {high}"


@dataclass
class Broken:
    """An invariant that a revision breaks: the first time in full (``event``, ``sentence``), and how often."""

    event: int
    sentence: str
    times: int = 0


def broken(problems: Sequence[tuple[int, str]]) -> list[Broken]:
    """Group invariants broken (event, sentence): where only addresses, sizes and counts differ it is one."""
    found: dict[str, Broken] = {}
    for event, text in problems:
        # Errors distinguish causes; other numbers do not.
        kind = re.sub(r"(?<![-\w])(?:0x[0-9a-f]+|\d+)", "N", text)
        found.setdefault(kind, Broken(event, text)).times += 1
    return list(found.values())


@dataclass
class Parting:
    """What two revisions made of a recording's operations.

    ``names``: of both; ``problems``: invariants that either broke, as (event, sentence); ``left_out``: operations that
    were not run, by why; ``branches``: how often each took each of its branches (:mod:`model.branches`).
    """

    names: tuple[str, str]
    operations: int = 0
    causes: list[Cause] = field(default_factory=list)
    problems: tuple[list[tuple[int, str]], list[tuple[int, str]]] = field(default_factory=lambda: ([], []))
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    branches: tuple[dict[str, int], dict[str, int]] = field(default_factory=lambda: ({}, {}))


class _Recorded(StandIn):
    """The device in a recording without page bytes: each page gives what it was recorded to give."""

    def __init__(self, contents: Contents) -> None:
        super().__init__()
        self._synthetic = Synthetic(contents.compress)

    def compress(self, page: bytes, room: int) -> Record:
        """The recorded length or error."""
        err, _, data = self._synthetic.compress(page, room)
        return Record(err, data)

    def decompress(self, data: bytes, room: int) -> Record:
        """The page it was made of."""
        err, _, page = self._synthetic.decompress(data, room)
        return Record(err, page)


def free_run(recording: Recording, revision: type[Zswap], contents: Contents,
             faults: FaultPlan | None = None) -> FreeRun:
    """Return a run of a revision on a box that is configured as the recorded one.

    :raises BadInput: when a compressor is not available here
    """
    config = recording.manifest["config"]
    plan = faults or FaultPlan()

    def tfm(name: str) -> Any:
        if name.startswith("deflate-iaa"):
            stand_in = None if contents.real else _Recorded(contents)
            return acomp_for(revision.crypto_layer, None, plan, stand_in=stand_in)
        if not contents.real:
            return acomp_for(revision.crypto_layer, Synthetic(contents.compress, name), plan)
        try:
            return acomp_for(revision.crypto_layer, compressor_for(name, revision.kernel_line), plan)
        except UnsupportedCompressor as problem:
            raise BadInput(recording.path, "", str(problem), "record with another compressor") from None

    run = FreeRun(revision, tfm, compressor=config["compressor"], totalram_pages=config["totalram_pages"],
                  chain_size=config.get("chain_size", 8), faults=plan, balance_every=1000, linear=not contents.real)
    for name, value in config.get("params", {}).items():
        if name != "compressor":
            run.do(Operation("param", text=f"{name}={value}"))
    return run


def run_both(recording: Recording, first: tuple[str, type[Zswap]], second: tuple[str, type[Zswap]], *,
         faults: FaultPlan | None = None, progress: Callable[[int], None] | None = None) -> Parting:
    """Run a recording's operations through two revisions and group where they differ.

    :param first, second: name and class
    :param faults: what fails in both; each has the plan for itself
    :raises BadInput: when the recording does not begin with an empty zswap, or holds no pages
    """
    if recording.document("state") is not None:
        raise BadInput(recording.path, "state.json", "it begins with pages in zswap, whose content is not known",
                       "use the recording it was cut from")
    operations = Operations(recording)
    if not operations.contents.refs:
        raise BadInput(recording.path, "", "holds nothing of the pages that were stored",
                       "record with --pages hash or full")
    with guarded([first[1], second[1]], recording.path) as guard:
        out = _part(recording, first, second, operations, faults, progress, guard)
    out.notes += [overrides_line(kind) for _, kind in (first, second) if is_own(kind)]
    return out


def _part(recording: Recording, first: tuple[str, type[Zswap]], second: tuple[str, type[Zswap]], operations: Operations,
          faults: FaultPlan | None, progress: Callable[[int], None] | None, guard: Guard | None) -> Parting:
    out = Parting((first[0], second[0]))
    plans = [(faults or FaultPlan()).fresh() for _ in range(2)]
    runs = [free_run(recording, kind, operations.contents, plan)
            for (_, kind), plan in zip((first, second), plans, strict=True)]
    causes: dict[tuple[object, ...], Cause] = {}
    for operation in operations:
        if guard is not None:
            guard.now = lambda event=operation.event: event  # type: ignore[misc]
        pair = runs[0].do(operation), runs[1].do(operation)
        out.operations += 1
        for problems, outcome in zip(out.problems, pair, strict=True):
            problems += [(operation.event, text) for text in outcome.problems]
        found = differs(*pair, out.names)
        if found is not None:
            causes.setdefault(found.key, Cause(found, pair)).add(found, operation.event)
        if progress is not None:
            progress(operation.event)
    out.left_out = operations.left_out
    out.notes = [f"under {name} the fault '{fault}'" for name, plan in zip(out.names, plans, strict=True)
                 for fault in plan.unused()]
    for problems, run in zip(out.problems, runs, strict=True):
        problems += [(len(recording), text) for text in run.imbalances()]
    out.branches = branches_taken(runs[0].model), branches_taken(runs[1].model)
    order = list(RESPECTS)
    out.causes = sorted(causes.values(), key=lambda cause: (order.index(cause.respect), cause.first[0].operation.event))
    if not operations.contents.real:
        out.notes.append("the recording holds no page bytes: each page compresses to its recorded length")
    return out


def differs(a: OperationOutcome, b: OperationOutcome, names: tuple[str, str]) -> OutcomeDifference | None:
    """Return in what two outcomes of an operation differ most gravely, None where they do not.

    Sizes do not make causes: operations that differ in the same respect, in the same things and in the same direction
    belong to one cause, whatever the numbers are.
    """
    what = _Words(a.operation)
    plain_names = names
    # What follows are templates, and a setup's name may be anything.
    names = (names[0].replace("{", "{{").replace("}", "}}"), names[1].replace("{", "{{").replace("}", "}}"))
    if a.data != b.data:
        return what.say("data", f"gives {_or(a.data)} under {names[0]} and {_or(b.data)} under {names[1]}")
    if a.result != b.result:
        pair = (a.result, b.result)
        if all(type(each) is int and each >= 0 for each in pair):
            return what.say("result", f"returns {{}} under {names[0]} and {{}} under {names[1]}", pair,
                            (1 if a.result > b.result else -1,))
        return what.say("result", f"returns {a.result} under {names[0]} and {b.result} under {names[1]}")
    forms = sorted({(_form(a.stored.get(slot)), _form(b.stored.get(slot))) for slot in a.stored.keys() | b.stored.keys()
                    if a.stored.get(slot) != b.stored.get(slot)})
    if forms:
        ways = "; ".join(f"{one} under {names[0]}, {other} under {names[1]}"
                         + (" of another length" if one == other else "") for one, other in forms)
        return what.say("stored", f"keeps a page as {ways}")
    moved = {name for name in a.counters.keys() | b.counters.keys() if a.counters.get(name) != b.counters.get(name)}
    for respect, wanted in (("rejects", lambda n: n.startswith(_REJECTS)), ("counters", lambda n: n != "pool_pages"),
                            ("pages", lambda n: True)):
        some = sorted(filter(wanted, moved))
        if some:
            pairs = [(a.counters.get(name, 0), b.counters.get(name, 0)) for name in some]
            each = ", ".join(f"{name} by {{}}" for name in some)
            return what.say(respect, f"moves {each} under {names[0]} and {each} under {names[1]}",
                            (*(one for one, _ in pairs), *(other for _, other in pairs)),
                            tuple((one > other) - (one < other) for one, other in pairs))
    if a.copied != b.copied:
        one, other = ("copies the object" if copied else "copies nothing" for copied in (a.copied, b.copied))
        return what.say("copies", f"zsmalloc {one} under {names[0]} and {other} under {names[1]}",
                        before="to read for ", after=",")
    if a.calls != b.calls:
        plain = [(_calls(calls), ()) if not calls else
                 ("{} compress calls of {} to {} pages", (len(calls), *_ends(calls))) for calls in (a.calls, b.calls)]
        values = tuple(value for _, numbers in plain for value in numbers)
        more = (len(a.calls) > len(b.calls)) - (len(a.calls) < len(b.calls))
        return what.say("calls", f"makes {plain[0][0]} under {names[0]} and {plain[1][0]} under {names[1]}", values,
                        (more,), f"makes {_calls(a.calls)} under {plain_names[0]} and {_calls(b.calls)} under "
                        f"{plain_names[1]}")
    if a.effects != b.effects:
        return what.say("order", _order(a.effects, b.effects, names), before="in ", after=",")
    return None


class _Words:
    """What an operation is called, in a sentence of its own and in one for all of its kind."""

    def __init__(self, operation: Operation) -> None:
        pages = 1 << operation.order
        self.said = self.template = {
            "load": "a load", "invalidate": "the end of a slot", "param": "writing a parameter",
            "compact": "compaction", "shrink_memcg": "shrink_memcg()",
            "writeout": "a store of {} pages"}[operation.kind]
        self.values: tuple[int, ...] = ()
        if operation.kind == "writeout":
            self.said, self.values = f"a store of {pages} page{'s' * (pages > 1)}", (pages,)

    def say(self, respect: str, text: str, values: tuple[int, ...] = (), sign: tuple[int, ...] = (),
            said: str | None = None, before: str = "", after: str = "") -> OutcomeDifference:
        """Return a difference.

        :param text: what follows the operation's name, ``{}`` for each of the ``values``
        :param said: the same for this operation alone, where it says more
        """
        exact = text.format(*values) if said is None else said
        return OutcomeDifference(respect, f"{before}{self.said}{after} {exact}",
                                 f"{before}{self.template}{after} {text}", (*self.values, *values), sign)


def _or(data: str) -> str:
    return data or "nothing"


def _form(stored: tuple[int, bool] | None) -> str:
    if stored is None:
        return "nothing"
    if stored[1]:
        return "the page itself"
    return f"compressed data of {PAGE_SIZE} bytes, a whole page" if stored[0] == PAGE_SIZE else "compressed data"


def _calls(calls: list[int]) -> str:
    if not calls:
        return "no compress call"
    parts = [f"{calls.count(size)} of {size} page{'s' * (size > 1)}" for size in sorted(set(calls), reverse=True)]
    return f"{len(calls)} compress call{'s' * (len(calls) > 1)} ({', '.join(parts)})"


def _ends(calls: list[int]) -> tuple[int, ...]:
    return min(calls), max(calls)


def _order(a: list[str], b: list[str], names: tuple[str, str]) -> str:
    at = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    one, other = (effects[at] if at < len(effects) else "nothing" for effects in (a, b))
    return f"after {a[at - 1] if at else 'its start'}, {names[0]} continues with {one} and {names[1]} with {other}"
