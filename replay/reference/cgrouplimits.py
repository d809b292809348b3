# SPDX-License-Identifier: GPL-2.0-or-later
"""What cgroups allow: memory.zswap.max and memory.zswap.writeback at an event that asks about one of them."""

from __future__ import annotations

from collections import deque

from model.cgroups import EITHER, Cgroup
from model.memcg import MemcgZswap
from model.page import PAGE_SIZE
from model.zswap import Zswap
from replay.reference.settings import CHANGING, CLOSE, UNSAID, WHOSE
from replay.reference.state import ReplayState
from replay.reference.totals import REMEMBERED

__all__ = ["CgroupLimits"]


class CgroupLimits:
    """The answers that a cgroup's settings and charges allow, at any moment since the asking task's previous event."""

    def __init__(self, state: ReplayState) -> None:
        self.state = state
        self.batch = state.batch
        self.settings = state.settings
        self.sees = state.sees
        #: (event, account, bytes before the change that followed) of the last changes of what cgroups are charged
        self.charges: deque[tuple[int, MemcgZswap, int]] = deque(maxlen=REMEMBERED)
        self.watch(state.model)

    def watch(self, model: Zswap) -> None:
        """Remember what a model's accounts are before each change; of a model before it nothing counts any more."""
        self.charges.clear()
        model.account_observer = self._about_to_change

    def _about_to_change(self, account: MemcgZswap) -> None:
        batch = self.batch
        self.charges.append((batch.now, account, account.zswap))
        self.state.snapshots.remember(batch.now, account)

    def earlier_verdicts(self, i: int, limit: int) -> set[bool]:
        """Return what obj_cgroup_may_zswap() would have said at any moment since the task's previous event."""
        since = self.batch.since_previous(i)
        return {limit > 0 and account.zswap // PAGE_SIZE < limit
                for account in self.state.snapshots.accounts_since(since)}

    def may_zswap(self, i: int) -> tuple[frozenset[bool], str]:
        """Return what obj_cgroup_may_zswap() may say at an event that names a mem_cgroup, and why it may be either."""
        batch, settings = self.batch, self.settings
        cgroup = settings.node_of.get(batch.pool[i])
        if cgroup is None:
            # What its obj_cgroup's address was charged to before need not be it.
            settings.of_objcg.pop(batch.memcg[i], None)
            return EITHER, WHOSE
        settings.of_objcg[batch.memcg[i]] = cgroup
        since = batch.since_previous(i)
        if settings.leaving or settings.changed >= since:
            return EITHER, CHANGING
        answers = settings.cgroups.may_zswap(cgroup, lambda at: self._charged(at, since))
        return answers, CLOSE if settings.static(cgroup, self.state.model)[0] == -2 else UNSAID

    def may_write_back(self, i: int) -> tuple[frozenset[bool], str]:
        """The same of mem_cgroup_zswap_writeback_enabled() and the mem_cgroup that an event names."""
        batch, settings = self.batch, self.settings
        enabled = settings.enabled(self.state.model)
        sees = self.sees("mem_cgroup_zswap_writeback_enabled_ret", "memcg")
        if enabled == {False} or (sees and not batch.memcg[i]):
            return frozenset({True}), ""
        cgroup = settings.node_of.get(batch.memcg[i]) if sees else None
        if cgroup is None:
            return EITHER, WHOSE
        if settings.changed >= batch.since_previous(i):
            return EITHER, CHANGING
        answers = settings.cgroups.writeback_enabled(cgroup)
        if len(enabled) > 1:
            answers |= {True}
        return answers, UNSAID

    def _charged(self, cgroup: Cgroup, since: int) -> tuple[int, int]:
        """Return the least and the most bytes that a cgroup and those below it were charged since an event.

        A charge is counted somewhere between its event and the next one of its task.
        """
        state = self.state
        if not self.sees("obj_cgroup_charge_zswap", "memcg") or not self.sees("obj_cgroup_uncharge_zswap", "memcg"):
            # Which cgroup is charged how much was not recorded.
            return 0, 1 << 62
        before: dict[MemcgZswap, list[int]] = {}
        for event, account, zswap in reversed(self.charges):
            if event < since:
                break
            before.setdefault(account, []).append(zswap)
        low = high = 0
        for objcg, account in state.model.memcgs.items():
            whose = self.settings.cgroup_of(objcg, state.memcg_of)
            if whose is None or whose.is_below(cgroup):
                values = (account.zswap, *before.get(account, ()))
                low += min(values) if whose is not None else 0
                high += max(values)
        for stack in state.stacks.values():
            for frame in stack:
                if frame.effect is not None:
                    continue
                if frame.last[0] == "obj_cgroup_charge_zswap":
                    high += frame.last[1]
                elif frame.last[0] == "obj_cgroup_uncharge_zswap":
                    low -= frame.last[1].length
        # A task that was advanced has counted in the model what it may not have counted yet.
        return max(0, low - PAGE_SIZE * len(state.unsure)), high + PAGE_SIZE * len(state.unsure)
