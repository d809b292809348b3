# SPDX-License-Identifier: GPL-2.0-or-later
"""zswap_pool_create() and the per-CPU contexts it allocates: who frees what when an allocation fails.

No trace shows these allocations, so they are modelled apart from the revisions of zswap_store(), against a
:class:`model.ledger.Ledger` and a fault plan whose site ``kmalloc`` is asked at every allocation, in order.

===================  ================================================================================================
PoolCreate70         Linux 6.12 to 7.0 (read in 6.12.107, 6.18.15 and 7.0.13): contexts come and go with
                     their CPU, zswap_cpu_comp_dead() frees them, also when a later CPU's fail
                     (cpuhp_rollback_install())
PoolCreate71         7.1 to 7.3 (read in 7.1.13 and 7.3-rc7): contexts live as long as the pool;
                     acomp_ctx_free() sets what it has freed to NULL
PoolCreateV14Patch23 v14 23/26 and 24/26, <20260125033537.334628-24-kanchana.p.sridhar@intel.com>: the same
                     lifetime, but acomp_ctx_dealloc() leaves its pointers as they were
PoolCreateV14        v14 26/26: the same with several buffers (25/26) and the table of their scatterlist entries
PoolCreateV14Meant   v14 26/26 with the pointers set to NULL, as what was merged into 7.1 does
===================  ================================================================================================

Allocations that fail before there are contexts (the pool itself, its zs_pool, the per-CPU memory) are the same in all
of them and are not modelled.  A CPU that comes online calls zswap_cpu_comp_prepare() for each pool there is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Final

from model.crypto.faults import FaultPlan
from model.errno import EINVAL, ENOMEM
from model.ledger import Ledger
from model.lines import LINES

__all__ = ["POOL_CREATE", "PoolCreate", "PoolCreate70", "PoolCreate71", "PoolCreateV14", "PoolCreateV14Meant",
           "PoolCreateV14Patch23"]

_KIND: Final = "allocation"
#: What crypto_alloc_acomp_node() returns when it fails: a pointer that is neither NULL nor an object's.
_ERR_PTR: Final = "ERR_PTR"


class _Ctx:
    """struct crypto_acomp_ctx of one CPU: by member the name of the allocation it points to, None for NULL."""

    def __init__(self) -> None:
        self.members: dict[str, str | None] = {}

    def get(self, member: str) -> str | None:
        """Return what a member points to, None for NULL and for an error pointer."""
        found = self.members.get(member)
        return None if found == _ERR_PTR else found


class PoolCreate(ABC):
    """One pool on a box.

    :param cpus: how many CPUs are online when the pool is created
    :param batch: crypto_acomp_batch_size() of its compressor, of 8 at most
    """

    def __init__(self, cpus: int = 2, *, batch: int = 1, faults: FaultPlan | None = None) -> None:
        self.ledger = Ledger()
        self.faults = faults or FaultPlan()
        self.batch = batch
        self.online = set(range(cpus))
        self.exists = False
        self._ctxs: dict[int, _Ctx] = {}

    # ---- what happens to a pool ---------------------------------------------------------------------------

    def zswap_pool_create(self) -> int:
        """zswap_pool_create(): 0, or the errno for which it gives up and returns NULL."""
        # alloc_percpu_gfp(): contexts of all possible CPUs, zeroed
        self._ctxs = {}
        for cpu in sorted(self.online):
            err = self.zswap_cpu_comp_prepare(cpu)
            if err:
                self._create_failed(cpu)
                self._ctxs = {}
                return err
        self.exists = True
        return 0

    def zswap_pool_destroy(self) -> None:
        """zswap_pool_destroy(), when the last entry is gone."""
        self.exists = False
        self._destroy_ctxs()
        self._ctxs = {}

    def cpu_online(self, cpu: int) -> int:
        """A CPU is brought up: 0, or the errno for which it stays down."""
        if self.exists:
            err = self.zswap_cpu_comp_prepare(cpu)
            if err:
                return err
        self.online.add(cpu)
        return 0

    def cpu_offline(self, cpu: int) -> None:
        """A CPU goes down."""
        self.online.discard(cpu)

    def zswap_compress(self, cpu: int) -> int:
        """What a store on a CPU touches of its context; -EINVAL without a pool, or on a CPU that is down."""
        if not self.exists or cpu not in self.online:
            return EINVAL
        members = self._ctx(cpu).members
        for member in ("acomp", "req", "buffer" if "buffer" in members else "buffers[0]"):
            self.ledger.use(_KIND, members.get(member) or f"NULL {member} of CPU {cpu}")
        return 0

    # ---- what differs -------------------------------------------------------------------------------------

    @abstractmethod
    def zswap_cpu_comp_prepare(self, cpu: int) -> int:
        """zswap_cpu_comp_prepare(): 0 or an errno."""

    @abstractmethod
    def _create_failed(self, cpu: int) -> None:
        """The end of zswap_pool_create() when a CPU's context could not be allocated."""

    @abstractmethod
    def _destroy_ctxs(self) -> None:
        """The contexts' part of zswap_pool_destroy()."""

    # ---- allocations --------------------------------------------------------------------------------------

    def _ctx(self, cpu: int) -> _Ctx:
        return self._ctxs.setdefault(cpu, _Ctx())

    def _alloc(self, member: str, cpu: int) -> str | None:
        """One allocation; None when the fault plan fails it."""
        if self.faults.hit("kmalloc"):
            return None
        name = f"{member} of CPU {cpu}"
        self.ledger.take(_KIND, name)
        return name

    def _free(self, name: str | None) -> None:
        """kfree() and its like: nothing for NULL."""
        if name is not None:
            self.ledger.give(_KIND, name)


class PoolCreate70(PoolCreate):
    """Linux 6.12 to 7.0: what is allocated goes into the context only when all of it is there."""

    def zswap_cpu_comp_prepare(self, cpu: int) -> int:
        """zswap_cpu_comp_prepare(): buffer, acomp, request; what was allocated is freed on failure."""
        had: dict[str, str | None] = {}
        for member in ("buffer", "acomp", "req"):
            had[member] = self._alloc(member, cpu)
            if had[member] is None:
                for earlier in ("acomp", "buffer"):
                    self._free(had.get(earlier))
                return ENOMEM
        self._ctx(cpu).members = had
        return 0

    def zswap_cpu_comp_dead(self, cpu: int) -> None:
        """zswap_cpu_comp_dead(): the teardown callback."""
        ctx = self._ctx(cpu)
        had, ctx.members = ctx.members, {}
        for member in ("req", "acomp", "buffer"):
            self._free(had.get(member))

    def cpu_offline(self, cpu: int) -> None:
        """With its teardown callback."""
        super().cpu_offline(cpu)
        if self.exists:
            self.zswap_cpu_comp_dead(cpu)

    def _create_failed(self, cpu: int) -> None:
        for earlier in sorted(self.online):
            if earlier < cpu:
                self.zswap_cpu_comp_dead(earlier)

    def _destroy_ctxs(self) -> None:
        # cpuhp_state_remove_instance()
        for cpu in sorted(self.online):
            self.zswap_cpu_comp_dead(cpu)


class _TiedToPool(PoolCreate):
    """Contexts that live as long as the pool: there is no teardown callback and no rollback."""

    #: members in the order of their allocation
    ORDER: tuple[str, ...] = ("buffer", "acomp", "req")
    #: what is freed is set to NULL
    RESETS = True

    def zswap_cpu_comp_prepare(self, cpu: int) -> int:
        """zswap_cpu_comp_prepare(): nothing to do where there is an acomp already (a CPU that comes back)."""
        ctx = self._ctx(cpu)
        if ctx.members.get("acomp") is not None:
            return 0
        for member in self._members():
            found = self._alloc(member, cpu)
            ctx.members[member] = found
            if found is None:
                if member == "acomp":
                    ctx.members[member] = _ERR_PTR
                self.acomp_ctx_free(cpu)
                return ENOMEM
        return 0

    def _members(self) -> Iterator[str]:
        for member in self.ORDER:
            if member == "buffers[]":
                yield from (f"buffers[{number}]" for number in range(self.batch))
            else:
                yield member

    def acomp_ctx_free(self, cpu: int) -> None:
        """acomp_ctx_free(), acomp_ctx_dealloc() in the posting: whatever the context points to."""
        ctx = self._ctx(cpu)
        self._free(ctx.get("req"))
        self._free(ctx.get("acomp"))
        for array, parts in (("buffers", [m for m in ctx.members if m.startswith("buffers[")]), ("sg_table", ["sgl"])):
            if ctx.get(array) is not None:
                # What the array holds is read from it.
                self.ledger.use(_KIND, ctx.get(array))
                for part in parts:
                    self._free(ctx.get(part))
                self._free(ctx.get(array))
        self._free(ctx.get("buffer"))
        if self.RESETS:
            ctx.members = {}

    def _create_failed(self, cpu: int) -> None:
        # cpuhp_add_fail: for each possible CPU, the one that failed among them
        for each in sorted(self._ctxs):
            self.acomp_ctx_free(each)

    def _destroy_ctxs(self) -> None:
        for cpu in sorted(self._ctxs):
            self.acomp_ctx_free(cpu)


class PoolCreate71(_TiedToPool):
    """Linux 7.1 to 7.3."""


class PoolCreateV14Patch23(_TiedToPool):
    """v14 23/26 and 24/26 as posted: one buffer, pointers stay."""

    RESETS = False


class PoolCreateV14(_TiedToPool):
    """v14 26/26 as posted."""

    ORDER = ("acomp", "req", "buffers", "buffers[]", "sg_table", "sgl")
    RESETS = False


class PoolCreateV14Meant(PoolCreateV14):
    """v14 26/26 with what is freed set to NULL."""

    RESETS = True


#: revision of zswap -> how it creates pools; of postings before v14 nothing was read
POOL_CREATE: Final[Mapping[str, type[PoolCreate]]] = {
    **{f"mainline-{name}": PoolCreate70 if line.acomp_ctx == "cpu" else PoolCreate71 for name, line in LINES.items()},
    "v14-23": PoolCreateV14Patch23, "v14": PoolCreateV14, "v14-meant": PoolCreateV14Meant,
}
