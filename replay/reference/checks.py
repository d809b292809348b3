# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks: one named comparison each, with a stable id, and the tally a replay keeps of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from traces.events import EVENTS

__all__ = ["CHECKS", "DRIVER_CHECKS", "INTERNAL", "Check", "Divergence", "Tally", "counter_check", "unknown_checks"]


@dataclass(frozen=True)
class Check:
    """One comparison: its ``id``, what it says in one line, its ``grade``, and the recorded events it needs.

    ``own``: what it predicts follows from the operation's own events alone, not from what earlier ones left behind; a
    driver's check (:data:`DRIVER_CHECKS`) from all of the driver's calls.
    ``parts``: after a difference the model's state is not the kernel's, and later predictions from it need not hold.
    After a difference under another check the model takes over what was recorded, or its state does not depend on it.
    ``internal``: it adds up the model's own state, and alone says nothing of the kernel.
    """

    id: str
    doc: str
    grade: str = "exact"
    needs: tuple[str, ...] = ()
    own: bool = False
    parts: bool = False
    internal: bool = False


_CHECKS: Final = (
    Check("effect.order", "each task's events come in the order the revision predicts, none missing or added"),
    Check("swap.writeout", "swap_writeout() returns, and device writes happen, as predicted"),
    Check("store.result", "zswap_store() returns what is predicted"),
    Check("store.length", "length of every compressed page", own=True),
    Check("store.error", "error of every page that does not fit", own=True),
    Check("store.raw", "a page kept as it is: 4096 bytes, its own first bytes", own=True),
    Check("store.bytes", "first 8 bytes of every compressed object", own=True),
    Check("acomp.calls", "compress calls: which page, how many pages, how much room", own=True),
    Check("acomp.batch", "return value and dlen of a compress call of several pages agree with what became of them",
          own=True),
    Check("zsmalloc.size", "size of each zs_malloc() (its gfp flags are not judged)", own=True),
    Check("zsmalloc.pages", "zs_get_total_pages() wherever it was read"),
    Check("zsmalloc.place", "zspage, object index and free list of each allocation, free and move"),
    Check("zsmalloc.fullness", "fullness group after each change"),
    Check("zsmalloc.compact", "pages that compaction freed, class by class"),
    Check("zsmalloc.handle", "every handle is live when used and freed once"),
    Check("sg.shape", "1 or 2 scatter-gather entries of an object read cover it exactly (derived from its "
          "place)"),
    Check("load.result", "zswap_load() returns, and decompression yields, what is predicted"),
    Check("load.entry", "a load reads the entry, handle and length that were stored last"),
    Check("load.folio", "a folio that was loaded is up to date, and dirty where zswap keeps nothing of it", own=True),
    Check("writeback.folio", "a folio that is written back is up to date, and such folios are marked for reclaim",
          own=True),
    Check("load.content", "what is stored for a swap slot is what the workload put there, and objects as "
          "written decompress to it"),
    Check("load.workload", "every page that the workload read back is the one it had written, as it says itself"),
    Check("free.entry", "each entry freed: slot, length, handle, referenced bit"),
    Check("lru.order", "LRU additions, removals, walks: entry, node, cgroup, status"),
    Check("shrink.worker", "shrink_worker() visits the cgroups in turn: each once in a pass, in one order"),
    Check("memcg.charge", "bytes charged and uncharged, to the same cgroup"),
    Check("memcg.limit", "obj_cgroup_may_zswap()"),
    Check("memcg.writeback", "mem_cgroup_zswap_writeback_enabled()"),
    Check("invariant.load", "each page read back is the page that was stored: its object is that page, or is "
          "decompressed to it, and nothing newer was refused"),
    Check("invariant.length", "each object asked for has 1 to 4096 bytes"),
    Check("invariant.raw", "a page is kept as it is only where its cgroup allows writeback"),
    Check("invariant.handle", "each handle is given out when it is not live, and live when it is written, read "
          "or freed"),
    Check("invariant.balance", "at the end entries, objects, handles, charges and counted pages agree",
          internal=True),
    # Of recordings of a guest with emulated IAA devices (replay.iaa.check): from the driver's calls and jobs alone.
    Check("iaa.queue", "the work queue that each CPU uses next", own=True),
    Check("iaa.submit", "descriptors of each call: operation, flags, source bytes, room", own=True),
    Check("iaa.completion", "what the driver makes of each completion record: return value and dlen", own=True),
    Check("iaa.crc", "the checksum of each compressed page in its completion record", own=True),
    Check("iaa.fallback", "calls that iaa_crypto makes of its software fallback", own=True),
    Check("iaa.stats", "iaa_crypto's statistics at each snapshot, global and per queue", own=True),
)
#: Checks of the iaa_crypto driver, made where a recording has the job log of its devices.
DRIVER_CHECKS: Final = tuple(check.id for check in _CHECKS if check.id.startswith("iaa."))


#: Checks of which a difference leaves kernel and model in different states.
_PARTS: Final = frozenset({
    "effect.order", "swap.writeout", "store.result", "zsmalloc.size", "zsmalloc.place", "zsmalloc.fullness",
    "zsmalloc.compact", "zsmalloc.handle", "load.result", "load.entry", "free.entry", "lru.order", "memcg.charge"})
CHECKS: Final[dict[str, Check]] = {
    check.id: replace(check, parts=check.id in _PARTS,
                      needs=tuple(event.name for event in EVENTS if check.id in event.needed_by)) for check in _CHECKS}
#: Checks of the model's own state.
INTERNAL: Final = frozenset(check.id for check in _CHECKS if check.internal)


def counter_check(name: str) -> Check:
    """Return the check of one counter, such as ``counter.zswap.stored_pages``."""
    return Check(f"counter.{name}", "value at each snapshot")


def unknown_checks(names: Iterable[str]) -> list[str]:
    """Return the names that are neither a check's, nor stand for any below them, in order."""
    return sorted(name for name in names if name.split(".")[0] != "counter" and name not in CHECKS
                  and not any(check.startswith(f"{name}.") for check in CHECKS))


@dataclass(frozen=True)
class Divergence:
    """A recorded value that differs from the predicted one.

    ``event``: its number in the recording; ``name``: the event; ``state``: what the model held there;
    ``kernel``: what was last recorded of the kernel's own state (its pool total, its counters);
    ``path``: the operations it happened in, outermost first, with the number of the event each began at; ``follows``:
    the event of an earlier difference that it may be a consequence of, None where it is one of its own;
    ``stamps``: the clock that ``ts`` is a stamp of where it counts no seconds (:mod:`traces.times`).
    """

    check: str
    event: int
    name: str
    recorded: Any
    predicted: Any
    what: str
    ts: int
    pid: int
    cpu: int
    path: tuple[tuple[str, int], ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    kernel: dict[str, Any] = field(default_factory=dict)
    context: tuple[str, ...] = ()
    follows: int | None = None
    stamps: str = ""


class Tally:
    """How often each check compared and differed, why some could not, and the divergences found.

    :param only: ids of the checks that are asked for; None for all
    :param data: divergences may hold bytes of pages
    """

    def __init__(self, only: set[str] | None = None, data: bool = False) -> None:
        self.only = only
        self.data = data
        self.compared: dict[str, int] = {check: 0 for check in CHECKS if check not in DRIVER_CHECKS}
        self.different: dict[str, int] = {}
        #: of these, how many may follow from an earlier difference
        self.following: dict[str, int] = {}
        #: event from which on kernel and model are in different states
        self.parted_at: int | None = None
        #: counter -> (recorded less predicted, event) where it differed last: it stays wrong by that much
        self._gaps: dict[str, tuple[int, int]] = {}
        #: comparisons that came out differently but judge nothing: what was predicted is not exact here
        self.set_apart: dict[str, int] = {}
        #: comparisons that could not be made because nothing says what decides them
        self.unknown: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        self.divergences: list[Divergence] = []
        self.kept = 100
        #: event at which the order of effects differed though that check was not asked for
        self.broken_at: int | None = None

    def wanted(self, check: str) -> bool:
        """True when a check was asked for; ``counter`` and ``counter.zswap`` stand for all below them."""
        return self.only is None or check in self.only \
            or any(check.startswith(prefix + ".") for prefix in self.only)

    def differ(self, divergence: Divergence) -> None:
        """Count a divergence, and say whether it may follow from an earlier one; the first hundred are kept whole."""
        check = divergence.check
        self.different[check] = self.different.get(check, 0) + 1
        follows = self._cause(divergence)
        if follows is not None:
            self.following[check] = self.following.get(check, 0) + 1
            divergence = replace(divergence, follows=follows)
        self.part(check, divergence.event)
        if len(self.divergences) < self.kept:
            self.divergences.append(divergence)

    def add(self, compared: Mapping[str, int], divergences: Iterable[Divergence], reasons: Mapping[str, str]) -> None:
        """Count what was compared besides the replay: differences get their places among the others'."""
        self.compared.update(compared)
        self.reasons.update(reasons)
        wanted = [divergence for divergence in divergences if self.wanted(divergence.check)]
        for divergence in wanted:
            self.different[divergence.check] = self.different.get(divergence.check, 0) + 1
        self.divergences[:] = sorted([*self.divergences, *wanted], key=lambda each: each.event)[:self.kept]

    def part(self, check: str, event: int) -> None:
        """A check differed, asked for or not: from here on kernel and model may be in different states."""
        if self.parted_at is None and check in CHECKS and CHECKS[check].parts:
            self.parted_at = event

    def _cause(self, divergence: Divergence) -> int | None:
        """Return the event of the difference that this one may follow from."""
        check = CHECKS.get(divergence.check)
        if check is None and isinstance(divergence.recorded, int) and isinstance(divergence.predicted, int):
            # A counter: what it once missed, or counted too much, it is wrong by at every later snapshot.
            gap, before = divergence.recorded - divergence.predicted, self._gaps.get(divergence.check)
            self._gaps[divergence.check] = (gap, divergence.event if before is None or before[0] != gap else before[1])
            if self.parted_at is None and before is not None and before[0] == gap:
                return before[1]
        return None if check is not None and check.own else self.parted_at

    def apart(self, check: str) -> None:
        """Count a difference from a prediction that is known not to be exact on this machine."""
        self.set_apart[check] = self.set_apart.get(check, 0) + 1

    @property
    def failed(self) -> bool:
        """True when any check differed."""
        return bool(self.different)
