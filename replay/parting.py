# SPDX-License-Identifier: GPL-2.0-or-later
"""Where two revisions part: both run the operations of one recording, and are compared after each.

What parts is put into causes: operations that differ in the same respect in the same way.  The respects are ordered by
what they cost a user: data first, then what is stored, counted and charged, then how it was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from model.crypto import UnsupportedCompressor, compressor_for
from model.crypto.base import PAGE_SIZE
from model.crypto.faults import FaultPlan
from model.crypto.iaa_device import Record, StandIn
from model.crypto.layers import acomp_for
from model.crypto.scomp import Synthetic
from model.zswap import Zswap
from replay.freerun import FreeRun, Operation, Outcome
from replay.guard import Guard, guarded, is_own
from replay.operations import Contents, Operations
from replay.overrides import overrides_line
from traces.errors import BadInput
from traces.recording import Recording

__all__ = ["RESPECTS", "Cause", "Parting", "differs", "free_run", "part"]

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


@dataclass
class Cause:
    """Operations that part in the same way: ``respect``, ``sentence``, the first of them, and how many there are."""

    respect: str
    sentence: str
    first: tuple[Outcome, Outcome]
    operations: int = 0


@dataclass
class Parting:
    """What two revisions made of a recording's operations.

    ``names``: of both; ``problems``: invariants that either broke, as (event, sentence); ``left_out``: operations that
    were not run, by why.
    """

    names: tuple[str, str]
    operations: int = 0
    causes: list[Cause] = field(default_factory=list)
    problems: tuple[list[tuple[int, str]], list[tuple[int, str]]] = field(default_factory=lambda: ([], []))
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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

    :raises BadInput: when a compressor is not to be had here
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


def part(recording: Recording, first: tuple[str, type[Zswap]], second: tuple[str, type[Zswap]], *,
         faults: FaultPlan | None = None, progress: Callable[[int], None] | None = None) -> Parting:
    """Run a recording's operations through two revisions and group where they part.

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
    causes: dict[tuple[str, str], Cause] = {}
    for operation in operations:
        if guard is not None:
            guard.now = lambda event=operation.event: event  # type: ignore[misc]
        pair = runs[0].do(operation), runs[1].do(operation)
        out.operations += 1
        for problems, outcome in zip(out.problems, pair, strict=True):
            problems += [(operation.event, text) for text in outcome.problems]
        found = differs(*pair, out.names)
        if found is not None:
            cause = causes.setdefault(found, Cause(*found, pair))
            cause.operations += 1
        if progress is not None:
            progress(operation.event)
    out.left_out = operations.left_out
    out.notes = [f"under {name} the fault '{fault}'" for name, plan in zip(out.names, plans, strict=True)
                 for fault in plan.unused()]
    for problems, run in zip(out.problems, runs, strict=True):
        problems += [(len(recording), text) for text in run.imbalances()]
    order = list(RESPECTS)
    out.causes = sorted(causes.values(), key=lambda cause: (order.index(cause.respect), cause.first[0].operation.event))
    if not operations.contents.real:
        out.notes.append("the recording holds no page bytes: each page compresses to what it was recorded to")
    return out


def differs(a: Outcome, b: Outcome, names: tuple[str, str]) -> tuple[str, str] | None:
    """Return the respect in which two outcomes differ most gravely, and a sentence that fits all such operations.

    None where they do not differ.
    """
    what = _kind(a.operation)
    if a.data != b.data:
        return "data", f"{what} gives {_or(a.data)} under {names[0]} and {_or(b.data)} under {names[1]}"
    if a.result != b.result:
        return "result", f"{what} returns {a.result} under {names[0]} and {b.result} under {names[1]}"
    forms = sorted({(_form(a.stored.get(slot)), _form(b.stored.get(slot))) for slot in a.stored.keys() | b.stored.keys()
                    if a.stored.get(slot) != b.stored.get(slot)})
    if forms:
        ways = "; ".join(f"{one} under {names[0]}, {other} under {names[1]}" for one, other in forms)
        return "stored", f"{what} keeps a page as {ways}"
    moved = {name for name in a.counters.keys() | b.counters.keys() if a.counters.get(name) != b.counters.get(name)}
    for respect, wanted in (("rejects", lambda n: n.startswith(_REJECTS)), ("counters", lambda n: n != "pool_pages"),
                            ("pages", lambda n: True)):
        some = sorted(filter(wanted, moved))
        if some:
            return respect, (f"{what} moves {_changes(some, a)} under {names[0]} and {_changes(some, b)} under "
                             f"{names[1]}")
    if a.copied != b.copied:
        one, other = ("copies the object" if copied else "copies nothing" for copied in (a.copied, b.copied))
        return "copies", f"to read for {what}, zsmalloc {one} under {names[0]} and {other} under {names[1]}"
    if a.calls != b.calls:
        return "calls", f"{what} makes {_calls(a.calls)} under {names[0]} and {_calls(b.calls)} under {names[1]}"
    if a.effects != b.effects:
        return "order", _order(what, a.effects, b.effects, names)
    return None


def _kind(operation: Operation) -> str:
    if operation.kind != "writeout":
        return {"load": "a load", "invalidate": "the end of a slot", "param": "writing a parameter",
                "compact": "compaction", "shrink_memcg": "shrink_memcg()"}[operation.kind]
    return f"a store of {1 << operation.order} page{'s' * bool(operation.order)}"


def _or(data: str) -> str:
    return data or "nothing"


def _form(stored: tuple[int, bool] | None) -> str:
    if stored is None:
        return "nothing"
    if stored[1]:
        return "the page itself"
    return f"compressed data of {PAGE_SIZE} bytes, a whole page" if stored[0] == PAGE_SIZE else "compressed data"


def _changes(names: list[str], outcome: Outcome) -> str:
    return ", ".join(f"{name} by {outcome.counters.get(name, 0)}" for name in names)


def _calls(calls: list[int]) -> str:
    if not calls:
        return "no compress call"
    parts = [f"{calls.count(size)} of {size} page{'s' * (size > 1)}" for size in sorted(set(calls), reverse=True)]
    return f"{len(calls)} compress call{'s' * (len(calls) > 1)} ({', '.join(parts)})"


def _order(what: str, a: list[str], b: list[str], names: tuple[str, str]) -> str:
    at = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    one, other = (effects[at] if at < len(effects) else "nothing" for effects in (a, b))
    return (f"in {what}, after {a[at - 1] if at else 'its start'}, {names[0]} goes on with {one} and {names[1]} with "
            f"{other}")
