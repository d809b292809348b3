# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured of a recording, and what a change of each value means.

A measure's direction is part of its definition: whether less is better is not for the numbers to say.  Its ``kind``
says what makes it differ from run to run: counts follow from the operations alone, times never repeat.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from model.counters import DEBUGFS, VMSTAT

__all__ = ["EFFECTS", "LEVELS", "Better", "Kind", "Measure", "counter", "effects", "fixed", "pool_at", "time_of"]


class Better(enum.Enum):
    """What a change means: less is better, more is, none should be (on the same operations), or it means nothing."""

    LOWER = "lower"
    HIGHER = "higher"
    UNCHANGED = "unchanged"
    NEITHER = "neither"


class Kind(enum.Enum):
    """``COUNT``: decided by the operations and the kernel alone; ``SNAPSHOT``: a counter as it was read at some
    moment; ``TIME``: measured by the clock, with the recorder's own work in it."""

    COUNT = "count"
    SNAPSHOT = "snapshot"
    TIME = "time"


@dataclass(frozen=True)
class Measure:
    """One value of a recording: ``id``, what it is, its unit, its group in a table, and what a change means.

    ``better`` is :attr:`Better.NEITHER` for what the workload decides: such values are shown and never judged.
    ``loose``: small changes follow from any change of lengths, so what is inside the margin does not count even where
    values are compared exactly.
    """

    id: str
    doc: str
    unit: str
    group: str
    better: Better
    kind: Kind = Kind.COUNT
    loose: bool = False

    @property
    def grade(self) -> str:
        """How far the number can be trusted: ``exact``, or ``measured`` under the recorder's own overhead."""
        return "measured" if self.kind is Kind.TIME else "exact"


#: What is counted inside each kind of operation: event -> (what a change means, in words).
#: Where the kernel can do with fewer calls, fewer are better; where a page needs exactly one, any change is wrong.
EFFECTS: Final[dict[str, dict[str, tuple[Better, str]]]] = {
    "store": {
        "crypto_acomp_compress": (Better.LOWER, "compress calls"),
        "zs_malloc": (Better.LOWER, "zs_malloc"),
        "zs_obj_write": (Better.LOWER, "zs_obj_write"),
        # It moves zspages between lists as they fill, which is another matter for every other length.
        "fix_fullness_group": (Better.NEITHER, "fix_fullness_group"),
        "zs_get_total_pages_ret": (Better.LOWER, "pool total reads"),
        "zs_free": (Better.UNCHANGED, "zs_free"),
        "zswap_entry_free": (Better.UNCHANGED, "entries freed"),
        "list_lru_add": (Better.UNCHANGED, "LRU additions"),
        "list_lru_del": (Better.UNCHANGED, "LRU removals"),
        "obj_cgroup_charge_zswap": (Better.UNCHANGED, "charges"),
        "obj_cgroup_uncharge_zswap": (Better.UNCHANGED, "uncharges"),
    },
    "load": {
        "crypto_acomp_decompress": (Better.LOWER, "decompress calls"),
        "zs_obj_read": (Better.LOWER, "object reads"),
        "zs_free": (Better.UNCHANGED, "zs_free"),
        "zswap_entry_free": (Better.UNCHANGED, "entries freed"),
        "list_lru_del": (Better.UNCHANGED, "LRU removals"),
        "obj_cgroup_uncharge_zswap": (Better.UNCHANGED, "uncharges"),
    },
    "invalidate": {
        "zs_free": (Better.UNCHANGED, "zs_free"),
        "zswap_entry_free": (Better.UNCHANGED, "entries freed"),
        "list_lru_del": (Better.UNCHANGED, "LRU removals"),
        "obj_cgroup_uncharge_zswap": (Better.UNCHANGED, "uncharges"),
    },
}
_PER: Final = {"store": "page stored", "load": "load", "invalidate": "invalidate"}
_SHORT: Final = {"store": "page", "load": "load", "invalidate": "invalidate"}

#: Counters that stand at a level; all others count up, and their growth over the run is the value.
LEVELS: Final = frozenset({"stored_pages", "stored_incompressible_pages", "pool_total_size"})
_LOWER: Final = re.compile(r"reject_|pool_limit_hit|decompress_fail|written_back_pages|stored_incompressible_pages"
                           r"|zswpwb|pswpin|pswpout|fallback")
#: vmstat counters taken in: those the model knows and what large folios fall back to.
VMSTAT_NAMES: Final = (*VMSTAT, "thp_swpout", "thp_swpout_fallback")
_DEBUGFS: Final = frozenset(DEBUGFS)


def fixed() -> dict[str, Measure]:
    """Return the measures that every recording has."""
    rows = [
        ("run.stores", "zswap_store calls", "calls", "what ran", Better.NEITHER, Kind.COUNT),
        ("run.pages", "pages asked to store", "pages", "what ran", Better.NEITHER, Kind.COUNT),
        ("run.loads", "zswap_load calls", "calls", "what ran", Better.NEITHER, Kind.COUNT),
        ("run.invalidates", "zswap_invalidate calls", "calls", "what ran", Better.NEITHER, Kind.COUNT),
        ("run.compactions", "compactions", "calls", "what ran", Better.NEITHER, Kind.COUNT),
        ("store.rejected", "stores rejected", "share", "stores", Better.LOWER, Kind.COUNT),
        ("compress.pages_per_call", "pages per compress call", "pages", "compression", Better.HIGHER, Kind.COUNT),
        ("compress.calls_per_store", "compress calls/store", "calls", "compression", Better.LOWER,
         Kind.COUNT),
        ("compress.errors", "compress calls failed", "share", "compression", Better.LOWER, Kind.COUNT),
        ("length.mean", "stored length, mean", "bytes", "compression", Better.LOWER, Kind.COUNT),
        ("length.median", "stored length, median", "bytes", "compression", Better.LOWER, Kind.COUNT),
        ("length.raw", "pages stored as they are", "share", "compression", Better.LOWER, Kind.COUNT),
        ("pool.pages.peak", "pool pages, peak", "pages", "pool", Better.LOWER, Kind.COUNT),
    ]
    out = {row[0]: Measure(*row) for row in rows}
    out["pool.overhead.peak"] = Measure("pool.overhead.peak", "pool/stored bytes, peak", "ratio", "pool", Better.LOWER,
                                        loose=True)
    return out


def effects() -> list[tuple[str, str, Measure]]:
    """Return (kind of operation, event, measure): how often a kind of operation causes something."""
    return [(operation, event, Measure(f"effect.{operation}.{event.removesuffix('_ret')}",
                                       f"{words}/{_SHORT[operation]}", f"per {_PER[operation]}",
                                       f"inside zswap_{operation}", better))
            for operation, table in EFFECTS.items() for event, (better, words) in table.items()]


def counter(source: str, name: str) -> Measure:
    """Return the measure of a counter of the snapshots, ``source`` being ``zswap`` (debugfs) or ``vmstat``."""
    better = Better.LOWER if _LOWER.match(name) or name.endswith("fallback") else Better.NEITHER
    what = "at the end" if name in LEVELS else "over the run"
    unit = "bytes" if name == "pool_total_size" else "pages" if name in _DEBUGFS & LEVELS else "count"
    return Measure(f"counter.{source}.{name}", f"{name}, {what}", unit, f"counters ({source})", better,
                   Kind.SNAPSHOT)


def pool_at(label: str, overhead: bool) -> Measure:
    """Return the measure of the pool's size, or of its overhead, at a snapshot."""
    if overhead:
        return Measure(f"pool.overhead@{label}", f"pool/stored bytes, {label}", "ratio", "pool", Better.LOWER,
                       loose=True)
    return Measure(f"pool.pages@{label}", f"pool pages, {label}", "pages", "pool", Better.LOWER)


def time_of(name: str, quantile: str) -> Measure:
    """Return the measure of a time: ``name`` such as ``zswap_load`` or ``zswap_store.order4``."""
    function, _, order = name.partition(".order")
    of = f" of {4 << int(order)} KiB" if order else ""
    return Measure(f"time.{name}.{quantile}", f"{function}{of}, {quantile}", "ns",
                   "times, entry to return, recorder included", Better.LOWER, Kind.TIME)
