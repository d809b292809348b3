# SPDX-License-Identifier: GPL-2.0-or-later
"""Counter snapshots against the model: one check per counter that a snapshot holds."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from model.counters import DEBUGFS
from model.memcg import MemcgZswap
from model.page import PAGE_SIZE
from model.zswap import Zswap
from replay.reference.checks import Tally
from traces.recording import Recording

__all__ = ["SnapshotChecks", "zsmalloc_classes"]

#: vmstat counters a replay can predict; they count from boot, so only their change since the first snapshot
#: is compared.
_VMSTAT: Final = ("zswpin", "zswpout", "zswpwb", "swpout_zero", "pswpin", "pswpout")
_MEMCG_EVENTS: Final = ("zswpin", "zswpout", "zswpwb")
#: Counters of SPEC section 3 that no recorded event determines.
_OUT_OF_REACH: Final = {
    "vmstat.swpin_zero": "reads of zero-marked slots reach none of the recorded functions",
    "memcg.swpin_zero": "reads of zero-marked slots reach none of the recorded functions",
}
_ACCOUNT: Final = ("incompressible", "zswap", "zswapped", "zswpin", "zswpout", "zswpwb")
#: twice MEMCG_CHARGE_BATCH: what may be outstanding per CPU before memory.stat is brought up to date
_MEMCG_LAG: Final = 128
_ZEROS: Final = "vmstat.swpout_zero"
#: counter of a snapshot -> of the model: what a page counts that does not compress
_REJECTS: Final = {f"zswap.{name}": name for name in ("reject_compress_fail", "reject_compress_poor")}
_MTHP_ORDER: Final = {f"{4 << order}kB": order for order in range(1, 12)}
_CLASS_COLUMNS: Final = ("obj_allocated", "obj_used", "pages_used", "freeable")


@dataclass
class _Window:
    """A snapshot while its files are read, one after the other: debugfs, vmstat, meminfo, then the cgroup.

    Reading takes time, and the reader itself may fault pages in meanwhile.  A value that differs at the
    window's beginning may still become right before its file was read: the totals the kernel computes
    for debugfs and meminfo are recorded events and say when that was.  With no operation in between, nothing
    excuses a difference.
    """

    event: int
    ts: int
    label: str
    open: dict[str, tuple[int, int]] = field(default_factory=dict)
    operations: int = 0
    #: all the cgroup values of the snapshot, those since boot made relative
    memcg: dict[str, int] = field(default_factory=dict)


@dataclass
class _Loose:
    """What is not known of what was counted since the last snapshot, in pages.

    ``pages``: of those that were rejected, those that may have been counted, or not; ``kinds``: those that were
    counted, as ``reject_compress_fail`` in the model, and may have been so as ``reject_compress_poor``; ``freed``: how
    many of folios that were counted as zero-filled may have been freed, bit N for N pages: a folio is freed whole.
    """

    pages: int = 0
    kinds: int = 0
    freed: int = 1

    def may_be_free(self, pages: int) -> None:
        """A folio was counted as zero-filled, and may have been freed."""
        self.freed |= self.freed << pages


class SnapshotChecks:
    """Compares the model's counters at each snapshot.

    ``diverge`` reports a difference: check, event, time stamp, recorded, predicted, what.
    """

    diverge: Callable[[str, int, int, int, int, str], None]

    def __init__(self, recording: Recording, model: Zswap, tally: Tally) -> None:
        self.recording = recording
        self.model = model
        self.tally = tally
        self.base: dict[str, int] = {}
        self.window: _Window | None = None
        #: number of the last snapshot passed
        self.number = -1
        #: how many values were equal only while the snapshot was being read
        self.late = 0
        self.sees_readings = "zswap_total_pages_ret" in recording.manifest["probes"]
        snapshots = recording.snapshots
        self._last = recording.snapshot(len(snapshots) - 1).get("zswap_debugfs", {}) if snapshots else {}
        #: what the recorded cgroup's account, and its count of zero-filled pages, were before each of their last
        #: changes, newest last
        self.history: deque[tuple[int, tuple[int, ...], int]] = deque(maxlen=_MEMCG_LAG * _cpus(recording))
        #: how many values were equal only to what stood before an operation was advanced from its last event
        self.early = 0
        #: how many snapshots read a memory.stat that had not been brought up to date
        self.lagged = 0
        #: how far a zone counter in /proc/vmstat may lag behind, in pages
        self.vmstat_lag = _vmstat_lag(recording)
        self.loose = _Loose()
        self._waiting = 0
        #: how many pages of folios were freed and not zero-filled, as the snapshots alone say
        self.freed = 0
        #: how many rejected pages the snapshots alone say were counted
        self.settled = 0
        #: beginning of a counter's name -> why it cannot be predicted from what was captured
        self.uncounted: dict[str, str] = {}

    def last_seen(self) -> dict[str, str]:
        """Return what the last snapshot passed says of the pool, for a divergence's report."""
        if self.number < 0:
            return {}
        label = self.recording.snapshots[self.number]["label"]
        debugfs = self.recording.snapshot(self.number).get("zswap_debugfs", {})
        return {name: f"{debugfs[name]} (snapshot '{label}')" for name in ("stored_pages", "pool_limit_hit")
                if name in debugfs}

    def last_value(self, counter: str) -> int:
        """Return a debugfs counter's value in the last snapshot, 0 where there is none."""
        return _number(self._last.get(counter))

    def next_value(self, counter: str) -> int:
        """Return a debugfs counter's value in the snapshot to come, 0 where there is none."""
        if self.number + 1 >= len(self.recording.snapshots):
            return 0
        return _number(self.recording.snapshot(self.number + 1).get("zswap_debugfs", {}).get(counter))

    def start_pages(self) -> int | None:
        """Return how many pages zswap held at the first snapshot, None when no snapshot says."""
        if not self.recording.snapshots:
            return None
        debugfs = self.recording.snapshot(0).get("zswap_debugfs", {})
        return _number(debugfs["stored_pages"]) if "stored_pages" in debugfs else None

    def standing(self) -> dict[str, int]:
        """Return the model's counters as they stand; those of classes, which change within a lock, are left out."""
        return {name: value for name, value in self._predicted({}) if isinstance(value, int)}

    def check(self, number: int, event: int, ts: int, unsure: list[dict[str, int]], waiting: int = 0) -> None:
        """Compare all counters of snapshot ``number``, whose reading began at ``event``.

        ``unsure``: for each task that was advanced from its last event, what that changed.  A task that was
        preempted right after that event has not counted yet what follows it, so any value from there on may be read.
        ``waiting``: pages of calls that have returned, of which the tasks' next events show what was counted.
        What differs stays open while the files are still being read; see :class:`_Window`.
        """
        self.close()
        self.number = number
        recorded = dict(self._recorded(self.recording.snapshot(number)))
        self._settle(recorded, waiting)
        self._waiting = waiting
        predicted = dict(self._predicted(recorded))
        listed = self.recording.snapshots
        label = listed[number]["label"] if 0 <= number < len(listed) else f"{number}, which the manifest does not list"
        self.window = _Window(event, ts, label)
        for name, value in recorded.items():
            check = f"counter.{name}"
            if name.startswith("memcg.") and not self._untold(name):
                window_value = value - self.base.get(name, 0)
                self.window.memcg[name] = window_value
            expected = self._untold(name) or predicted.get(name)
            if expected is None:
                continue
            if isinstance(expected, str):
                self.tally.compared.setdefault(check, 0)
                self.tally.reasons.setdefault(check, expected)
                continue
            if _since_boot(name):
                if name not in self.base:
                    # The first snapshot only sets the level that later ones are measured from.
                    self.base[name] = value - expected
                    self.tally.compared.setdefault(check, 0)
                    continue
                value -= self.base[name]
            self.tally.compared[check] = self.tally.compared.get(check, 0) + 1
            if self._equal(name, value, expected):
                continue
            changes = [task.get(name, 0) for task in unsure]
            low, high = (expected - sum(change for change in changes if change * sign > 0) for sign in (1, -1))
            if low <= value <= high:
                self.early += 1
            else:
                self.window.open[name] = (value, expected)
        # What they counted is in the model when the values are looked at again.
        self._waiting = 0

    def _settle(self, recorded: dict[str, int], waiting: int) -> None:
        """Take from a snapshot what nothing else says, as far as it can be: what pages of rejected calls counted, and
        which folios were zero-filled."""
        loose, counters = replace(self.loose), self.model.counters
        if loose.freed > 1 and _ZEROS in recorded:
            self.loose.freed = 1
            freed = counters.swpout_zero - recorded[_ZEROS] + self.base[_ZEROS] if _ZEROS in self.base else 0
            if freed >= 0 and loose.freed >> freed & 1:
                counters.swpout_zero -= freed
                self.freed += freed
        if waiting:
            # Of a call that has returned, whose errors may be counted or not: the next snapshot settles it.
            return
        if not (loose.pages or loose.kinds) or not recorded.keys() >= _REJECTS.keys():
            return
        self.loose = _Loose(freed=self.loose.freed)
        if not self.base.keys() >= _REJECTS.keys():
            # The level that later ones are measured from has them.
            return
        fail, poor = (recorded[counter] - self.base[counter] - getattr(counters, name)
                      for counter, name in _REJECTS.items())
        if -loose.kinds <= fail and poor >= 0 and 0 <= fail + poor <= loose.pages:
            counters.reject_compress_fail += fail
            counters.reject_compress_poor += poor
            self.settled += fail + poor

    def _untold(self, name: str) -> str:
        """Return why no recorded event determines a counter, ``""`` where some do."""
        if name in _OUT_OF_REACH:
            return _OUT_OF_REACH[name]
        return next((why for counter, why in self.uncounted.items() if name.startswith(counter)), "")

    def _equal(self, name: str, value: int, expected: int | str | None) -> bool:
        if name == "vmstat.nr_zspages" and isinstance(expected, int):
            return abs(value - expected) <= self.vmstat_lag
        if name in (_ZEROS, "memcg.swpout_zero") and isinstance(expected, int):
            # Of folios that were written out while the snapshot was read.
            return value <= expected and bool(self.loose.freed >> expected - value & 1)
        if name in _REJECTS and isinstance(expected, int):
            # Of calls that were rejected while the snapshot was read.
            return -self.loose.kinds <= value - expected <= self.loose.pages + self.loose.kinds + self._waiting
        return value == expected

    def _look_again(self, but: str = "-") -> None:
        """Close what stands now of what is open; names that begin with ``but`` stay."""
        window = self.window
        if window is None or all(name.startswith(but) for name in window.open):
            return
        now = dict(self._predicted(dict.fromkeys(window.open, 0)))
        for name in [n for n, (value, _) in window.open.items()
                     if not n.startswith(but) and self._equal(n, value, now.get(n))]:
            del window.open[name]
            self.late += 1

    def operation(self) -> None:
        """An operation begins: the counters are as the ones before it left them."""
        window = self.window
        if window is not None and window.open:
            self._look_again()
            window.operations += 1
            if not self.sees_readings:
                self.close()

    def reading(self, name: str) -> None:
        """The pools' total was read outside of any operation: the snapshot's files are being read."""
        window = self.window
        if window is None or not window.open:
            return
        self._look_again()
        if name == "zswap_total_pages_ret" or not (self.sees_readings or window.operations):
            # debugfs, vmstat and meminfo are read up to here.  Where only the pools' totals are seen, the first of
            # them (debugfs) has to do, with nothing in between: all is of one instant then.
            self._give_up([n for n in window.open if n.startswith(("zswap.", "vmstat.", "meminfo."))])

    def close(self) -> None:
        """The snapshot is over: what is still open differs."""
        self._look_again()
        if self.window is not None:
            self._give_up(list(self.window.open))
        self.window = None

    def _give_up(self, names: list[str]) -> None:
        window = self.window
        assert window is not None
        if any(name.startswith("memcg.") for name in names) and self._was_once(window):
            self.lagged += 1
            names = [name for name in names if not name.startswith("memcg.")]
            window.open = {name: values for name, values in window.open.items() if not name.startswith("memcg.")}
        for name in names:
            value, expected = window.open.pop(name)
            self.diverge(f"counter.{name}", window.event, window.ts, value, expected,
                         f"{name} at snapshot '{window.label}'")

    def remember(self, event: int, account: MemcgZswap) -> None:
        """A cgroup's account is about to change at ``event``: keep what it was."""
        self.history.append((event, (account.incompressible, account.zswap, account.zswapped, account.zswpin,
                                     account.zswpout, account.zswpwb), self.model.counters.swpout_zero))
        window = self.window
        if window is not None and window.open:
            # A long operation, such as the worker's writeback, goes through states that no operation begins with:
            # every page of it changes its cgroup's account, and what else it counts before the next one does.
            self._look_again(but="memcg.")
            window.operations += 1
        if window is not None and any(name.startswith("memcg.") for name in window.open):
            values = dict(_memcg_values(account)) | self._zero_filled(self.model.counters.swpout_zero)
            if all(values.get(name, value) == value for name, value in window.memcg.items()):
                for name in [name for name in window.open if name.startswith("memcg.")]:
                    del window.open[name]
                    self.late += 1

    def accounts_since(self, event: int) -> Iterator[MemcgZswap]:
        """Yield what accounts were before each change since ``event``."""
        return (_Account(values) for at, values, _ in self.history if at >= event)

    def _was_once(self, window: _Window) -> bool:
        """True when all of a snapshot's cgroup values together stood before one of the last changes.

        memory.stat is brought up to date only when more than MEMCG_CHARGE_BATCH (64) changes per CPU are
        outstanding (mem_cgroup_flush_stats(), mm/memcontrol.c), and each CPU announces its changes in
        batches of as many.
        """
        values = window.memcg
        return any(all(old.get(name, value) == value for name, value in values.items())
                   for old in (dict(_memcg_values(_Account(account))) | self._zero_filled(zeros)
                               for _, account, zeros in self.history))

    def _recorded(self, values: dict[str, Any]) -> Iterator[tuple[str, int]]:
        """Yield (counter name, value) of everything in a snapshot that SPEC section 3 names."""
        for name, value in values.get("zswap_debugfs", {}).items():
            yield f"zswap.{name}", _number(value)
        vmstat = values.get("vmstat", {})
        for name in (*_VMSTAT, "swpin_zero", "nr_zspages"):
            if name in vmstat:
                yield f"vmstat.{name}", _number(vmstat[name])
        memcg = values.get("memcg", {})
        stat = dict(re.findall(r"^(\w+) (\d+)$", str(memcg.get("memory.stat", "")), re.M))
        for name in ("zswap", "zswapped", "zswap_incomp", *_MEMCG_EVENTS, "swpout_zero", "swpin_zero"):
            if name in stat:
                yield f"memcg.{name}", int(stat[name])
        if str(memcg.get("memory.zswap.current", "")).strip().isdigit():
            yield "memcg.zswap.current", int(memcg["memory.zswap.current"])
        meminfo = dict(re.findall(r"^(Zswap|Zswapped):\s+(\d+) kB$", str(values.get("meminfo", "")), re.M))
        for name, value in meminfo.items():
            yield f"meminfo.{name}", int(value)
        for size, counters in values.get("mthp", {}).items():
            if size in _MTHP_ORDER and str(counters.get("zswpout", "")).isdigit():
                yield f"mthp.{size}.zswpout", int(counters["zswpout"])
        yield from zsmalloc_classes(values.get("zsmalloc_debugfs", {}))

    def _predicted(self, recorded: dict[str, int]) -> Iterator[tuple[str, int | str]]:
        """Yield (counter name, predicted value, or why there is none)."""
        model, counters = self.model, self.model.counters
        for name in DEBUGFS:
            yield f"zswap.{name}", getattr(counters, name)
        yield "zswap.pool_total_size", model.total_pages() * PAGE_SIZE
        for name in _VMSTAT:
            yield f"vmstat.{name}", getattr(counters, name)
        yield "vmstat.nr_zspages", model.total_pages()
        yield "meminfo.Zswap", model.total_pages() * PAGE_SIZE // 1024
        yield "meminfo.Zswapped", counters.stored_pages * PAGE_SIZE // 1024
        for size, order in _MTHP_ORDER.items():
            yield f"mthp.{size}.zswpout", counters.mthp_zswpout.get(order, 0)
        yield from self._memcg()
        yield from self._zsmalloc(recorded)

    def _memcg(self) -> Iterator[tuple[str, int | str]]:
        accounts = list(self.model.memcgs.values())
        if len(accounts) > 1:
            reason = f"{len(accounts)} cgroups were charged and the snapshot does not say whose it is"
            for name in ("zswap", "zswapped", "zswap_incomp", *_MEMCG_EVENTS, "swpout_zero", "zswap.current"):
                yield f"memcg.{name}", reason
            return
        yield from _memcg_values(accounts[0] if accounts else MemcgZswap())
        zeros = self._zero_filled(self.model.counters.swpout_zero)
        yield "memcg.swpout_zero", zeros.get("memcg.swpout_zero", "whose folios were zero-filled is not recorded")

    def _zero_filled(self, pages: int) -> dict[str, int]:
        """Return the cgroup's count of zero-filled pages, when ``pages`` were counted in all; empty where unknown.

        They are counted for their cgroup, which nothing recorded names: only where all folios that were stored
        belong to one is it known.
        """
        known = not pages or (bool(self.model.memcgs) and not self.model.untold_folios)
        return {"memcg.swpout_zero": pages} if known else {}

    def _zsmalloc(self, recorded: dict[str, int]) -> Iterator[tuple[str, int | str]]:
        prefixes = {name.rpartition(".")[0] for name in recorded if name.startswith("zsmalloc.")}
        if not prefixes:
            return
        for cls in self.model.pools[0].zs_pool.classes:
            geometry = cls.geometry
            prefix = f"zsmalloc.class{geometry.index}"
            if prefix not in prefixes:
                continue
            yield f"{prefix}.obj_allocated", cls.objs_allocated
            yield f"{prefix}.obj_used", cls.objs_inuse
            yield f"{prefix}.pages_used", cls.objs_allocated // geometry.objs_per_zspage * geometry.pages_per_zspage
            yield f"{prefix}.freeable", cls.can_compact()


class _Account(MemcgZswap):
    """An account as it once was."""

    __slots__ = ()

    def __init__(self, values: tuple[int, ...]) -> None:
        super().__init__()
        for name, value in zip(_ACCOUNT, values, strict=True):
            setattr(self, name, value)


def _memcg_values(account: MemcgZswap) -> Iterator[tuple[str, int]]:
    """Yield (counter name, value) of what a cgroup's files say of its account."""
    yield "memcg.zswap", account.zswap
    yield "memcg.zswap.current", account.zswap
    yield "memcg.zswapped", account.zswapped * PAGE_SIZE
    yield "memcg.zswap_incomp", account.incompressible * PAGE_SIZE
    for name in _MEMCG_EVENTS:
        yield f"memcg.{name}", getattr(account, name)


def _cpus(recording: Recording) -> int:
    return max(1, len({loss.get("cpu") for loss in recording.manifest["losses"] if loss.get("cpu") is not None}))


def _vmstat_lag(recording: Recording) -> int:
    """How far nr_zspages may be off: what each CPU holds back per zone before it is folded in.

    calculate_normal_threshold() in mm/vmstat.c: 2 * fls(cpus) * (1 + fls(zone size in 128 MiB)), at most 125.
    When a CPU folds is a matter of time (a worker runs every second), so the exact lag cannot be predicted.  A NUMA
    node has a zone of its own; where there is more memory than lies below the hole under 4 GiB, the first has two.
    """
    pages: int = recording.manifest["config"].get("totalram_pages", 0)
    cpus = _cpus(recording)
    threshold = min(125, 2 * cpus.bit_length() * (1 + (pages >> 15).bit_length()))
    zones = _nodes(recording) + (pages > 1 << 19)
    return threshold * cpus * zones


def _nodes(recording: Recording) -> int:
    """How many NUMA nodes have memory, as far as the recorder says: ranges such as ``0-1,4``."""
    said: Any = recording.manifest
    for name in ("capture", "box", "numa", "has_memory"):
        said = said.get(name) if isinstance(said, dict) else None
    ranges = re.findall(r"(\d{1,4})(?:-(\d{1,4}))?", said) if isinstance(said, str) else []
    return max(1, sum(int(last or first) - int(first) + 1 for first, last in ranges))


def _since_boot(name: str) -> bool:
    """True for counters that only grow and were not reset before the recording."""
    return name.startswith(("vmstat.", "mthp.")) or name.rpartition(".")[2] in (*_MEMCG_EVENTS, "swpout_zero") \
        or (name.startswith("zswap.") and not name.startswith("zswap.stored") and name != "zswap.pool_total_size")


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def zsmalloc_classes(pools: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the columns of debugfs zsmalloc/<pool>/classes; several pools cannot be distinguished."""
    if len(pools) != 1:
        return
    text = str(next(iter(pools.values())))
    header: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ["class", "size"]:
            header = words
        elif header and words and words[0].isdigit() and len(words) == len(header):
            row = dict(zip(header, words, strict=True))
            for name in _CLASS_COLUMNS:
                if row.get(name, "").isdigit():
                    yield f"zsmalloc.class{row['class']}.{name}", int(row[name])
