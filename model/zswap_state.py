# SPDX-License-Identifier: GPL-2.0-or-later
"""What zswap holds on one box: pools, entries, parameters, limits, counters.

The functions that change it are in :mod:`model.zswap` (store, load), :mod:`model.zswap_writeback` and
:mod:`model.swap`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from model.branches import Reached
from model.cgroups import Cgroups
from model.counters import Counters
from model.crypto.registry import COMPRESSORS
from model.effects import Steps
from model.ledger import Ledger
from model.lines import NEWEST, mirroring
from model.list_lru import ListLru
from model.memcg import UNLIMITED, MemcgZswap
from model.page import PAGE_SIZE
from model.worker import WorkerCursor
from model.zsmalloc import ZsObject, ZsPool

__all__ = ["KERNEL_COMPRESSORS", "Folio", "ZswapEntry", "ZswapPool", "ZswapState", "kstrtobool", "kstrtouint",
           "memparse"]

#: Everything that zswap's compressor parameter accepts somewhere.
KERNEL_COMPRESSORS: Final = tuple(COMPRESSORS)
_BYTES: Final = re.compile(r"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)?([KMGTPEkmgtpe]?)")


def kstrtobool(text: str) -> bool:
    """kstrtobool(): only the first letter counts, after an "o" also the second.

    :raises ValueError: for anything else (-EINVAL)
    """
    head = text[:1].lower()
    if head == "o":
        head = {"n": "y", "f": "n"}.get(text[1:2].lower(), "")
    if head not in ("y", "t", "1", "n", "f", "0"):
        raise ValueError(f"not a boolean: {text!r}")
    return head in ("y", "t", "1")


def kstrtouint(text: str) -> int:
    """kstrtouint() with base 0: decimal, 0x or octal after a leading 0, at most 32 bits.

    :raises ValueError: for anything else (-EINVAL, -ERANGE)
    """
    octal = len(text) > 1 and text[0] == "0" and text[1] not in "xX"
    if not text.isalnum() or not text.isascii():
        raise ValueError(f"not an unsigned number: {text!r}")
    value = int(text, 8 if octal else 16 if text[:2] in ("0x", "0X") else 10)
    if value >> 32:
        raise ValueError(f"more than 32 bits: {text!r}")
    return value


def memparse(text: str) -> int:
    """memparse(): a number of bytes with an optional suffix K, M, G, T, P or E; 0 where there is no number.

    The number is decimal, 0x or octal after a leading 0; what does not fit 64 bits is cut off.

    :raises ValueError: for anything else
    """
    found = _BYTES.fullmatch(text)
    if found is None:
        raise ValueError(f"not a number of bytes: {text!r}")
    digits, suffix = found[1] or "0", found[2]
    octal = digits[0] == "0" and digits[1:2] not in ("x", "X")
    shift = 10 * (1 + "KMGTPE".find(suffix.upper())) if suffix else 0
    return int(digits, 8 if octal else 0) << shift & (1 << 64) - 1


class Folio:
    """A folio in the swap cache: ``swpent`` of its first page, ``order``, and ``address`` where one was
    recorded (-1 for a folio that only the model knows)."""

    __slots__ = ("address", "order", "swpent")

    def __init__(self, swpent: int, order: int = 0, address: int = -1) -> None:
        self.swpent = swpent
        self.order = order
        self.address = address

    @property
    def nr_pages(self) -> int:
        """folio_nr_pages()"""
        return 1 << self.order


class ZswapPool:
    """struct zswap_pool: a compressor and the zs_pool its objects live in; ``entries`` still refer to it.

    ``dying``: no references are left, and a worker will take it off the list.
    """

    __slots__ = ("dying", "entries", "tfm_name", "zs_pool")

    def __init__(self, tfm_name: str, chain_size: int) -> None:
        self.tfm_name = tfm_name
        self.zs_pool = ZsPool(chain_size)
        self.entries = 0
        self.dying = False


class ZswapEntry:
    """struct zswap_entry: one stored page.

    ``lru`` is the (node, cgroup) it is listed under; ``content`` is an opaque tag of the page's content that
    is handed through from store to load; ``address`` is bound by a replay.
    """

    __slots__ = ("address", "content", "length", "lru", "obj", "objcg", "on_cpu_node", "pool", "referenced", "swpent")

    def __init__(self, swpent: int, pool: ZswapPool) -> None:
        self.swpent = swpent
        self.pool = pool
        self.length = 0
        self.obj: ZsObject
        self.objcg: int | None = None
        self.lru: tuple[int, int] | None = None
        self.referenced = False
        self.content: Any = None
        self.address = 0
        #: its slab page is on the node of the CPU that stored it, which need not be its folio's
        self.on_cpu_node = False

    def __repr__(self) -> str:
        return f"<zswap_entry {self.address:#x} at swap entry {self.swpent:#x}>"


@mirroring(NEWEST)
class ZswapState:
    """The state of zswap on one box; the attributes of :class:`model.lines.KernelLine` say what its kernel line has.

    :param totalram_pages: totalram_pages() of the box, for the pool limit
    :param compressor: name of the current compressor
    :param chain_size: CONFIG_ZSMALLOC_CHAIN_SIZE
    """

    #: what this class mirrors; shown in verdicts
    mirrors: str
    #: see :class:`model.lines.KernelLine` for these, and for what in capitals follows
    kernel_line: str
    crypto_layer: str
    #: how zswap_compress() sets a request up: ``page``, a ``chain`` of pages, a scatter list with lengths in it
    #: (``table``) or behind pointers (``dlens``)
    compress_call = "page"

    LARGE_FOLIOS: bool
    RAW_PAGES: bool
    CHECKS_LENGTH: bool
    #: or either, which a posting leaves open (None)
    WHOLE_IS_PAGE: bool | None
    DEST_PAGES: int
    MAPS_OBJECTS: bool
    HAS_INCOMPRESSIBLE: bool
    HAS_MTHP_ZSWPOUT: bool
    INVALIDATES_RANGES: bool
    ROOT_OBJCG: bool
    LOADS_PAST_CACHE: bool
    LOAD_RETURNS_BOOL: bool
    DECOMPRESS_FAILS: bool
    SG_READS: bool
    READS_SLOTS: bool
    SHRINK_BUDGET: int
    WRITEBACK_ERASES_FIRST: bool
    WRITEBACK_SAYS_WHY: bool
    WRITEBACK_APART: bool
    COMPACTION_TRYLOCKS: bool

    def __init__(self, *, totalram_pages: int, compressor: str, chain_size: int = 8) -> None:
        self.totalram_pages = totalram_pages
        self.chain_size = chain_size
        self.enabled = True
        self.max_pool_percent = 20
        self.accept_threshold_percent = 90
        #: None: not known
        self.shrinker_enabled: bool | None = False
        self.pool_reached_full = False
        #: called before a cgroup's account, and before the pools' total, changes; for a replay of readers
        self.account_observer: Callable[[MemcgZswap], None] | None = None
        self.total_observer: Callable[[], None] | None = None
        #: how often each branch was taken
        self.reached: Reached = Reached()
        self.pools = [self.new_pool(compressor)]
        self.tree: dict[int, ZswapEntry] = {}
        #: slab objects and whatever else a revision takes and has to give back
        self.ledger = Ledger()
        self.lru: ListLru[ZswapEntry] = ListLru(self.reached)
        #: where shrink_worker() has been
        self.worker = WorkerCursor()
        self.counters = Counters()
        self.memcgs: dict[int, MemcgZswap] = {}
        #: the hierarchy, as far as it is known
        self.cgroups = Cgroups()
        #: memory.zswap.max in pages and memory.zswap.writeback of the one cgroup whose folios these are; None: nothing
        #: says
        self.zswap_max: int | None = UNLIMITED
        self.writeback_enabled: bool | None = True
        self._writeback_was_off = False
        #: folios were seen whose cgroup is not known, or is the root
        self.untold_folios = False

    # ---- state that others read -------------------------------------------------------------------------

    def new_pool(self, name: str) -> ZswapPool:
        """Return a pool for a compressor, not listed yet."""
        pool = ZswapPool(name, self.chain_size)
        pool.zs_pool.observer = self._total_changes
        pool.zs_pool.reached = self.reached
        pool.zs_pool.compaction_trylocks = self.COMPACTION_TRYLOCKS
        return pool

    def _total_changes(self) -> None:
        if self.total_observer is not None:
            self.total_observer()

    def memcg(self, objcg: int) -> MemcgZswap:
        """Return the account of a cgroup, a new one for a cgroup not seen before."""
        account = self.memcgs.get(objcg)
        if account is None:
            account = self.memcgs[objcg] = MemcgZswap(self.account_observer)
        return account

    def count_zero_filled(self, pages: int) -> None:
        """SWPOUT_ZERO of ``pages`` pages: counted for their cgroup too, which is known only if there is just one."""
        if self.account_observer is not None:
            for account in self.memcgs.values():
                self.account_observer(account)
        self.counters.swpout_zero += pages

    def total_pages(self) -> int:
        """zswap_total_pages(): pages of all pools."""
        return sum(pool.zs_pool.pages_allocated for pool in self.pools)

    def max_pages(self) -> int:
        """zswap_max_pages()"""
        return self.totalram_pages * self.max_pool_percent // 100

    def accept_thr_pages(self) -> int:
        """zswap_accept_thr_pages()"""
        return self.max_pages() * self.accept_threshold_percent // 100

    # ---- parameters -------------------------------------------------------------------------------------

    def set_param(self, name: str, value: str) -> None:
        """A write to /sys/module/zswap/parameters/``name``, or to a cgroup's ``memory.zswap.*`` file.

        :raises ValueError: for a value the kernel would refuse; names that do not touch the model are ignored
        """
        value = value.strip()
        if name == "enabled":
            self.enabled = kstrtobool(value)
        elif name == "max_pool_percent":
            self.max_pool_percent = kstrtouint(value)
        elif name == "accept_threshold_percent":
            self.accept_threshold_percent = kstrtouint(value)
        elif name == "shrinker_enabled":
            self.shrinker_enabled = kstrtobool(value)
        elif name == "compressor":
            self.zswap_compressor_param_set(value)
        elif name == "memory.zswap.max":
            # Kept in pages, rounded down (mem_cgroup: page_counter_memparse()).
            self.zswap_max = UNLIMITED if value == "max" else memparse(value) // PAGE_SIZE
        elif name == "memory.zswap.writeback":
            enabled = kstrtouint(value)
            if enabled > 1:
                raise ValueError(f"memory.zswap.writeback is 0 or 1, not {value!r}")
            self.writeback_enabled = bool(enabled)
            self._writeback_was_off |= not self.writeback_enabled

    def zswap_compressor_param_set(self, name: str) -> None:
        """zswap_compressor_param_set(): an existing pool of that name moves to the head, or a new one is created.

        The old current pool stays listed while entries refer to it.

        :raises ValueError: for a name that no kernel's crypto layer knows (the kernel says -ENOENT)
        """
        if name not in KERNEL_COMPRESSORS:
            raise ValueError(f"no kernel has the compressor '{name}'")
        if self.pools and self.pools[0].tfm_name == name:
            return
        # zswap_pool_find_get(): a pool without references cannot be taken again.
        pool = next((p for p in self.pools if p.tfm_name == name and not p.dying), None)
        if pool is None:
            self.reached["zswap_compressor_param_set.new"] += 1
            pool = self.new_pool(name)
        else:
            self.reached["zswap_compressor_param_set.again"] += 1
            self.pools.remove(pool)
        old = self.pools[0] if self.pools else None
        self.pools.insert(0, pool)
        if old is not None and not old.entries:
            self.reached["zswap_pool.released"] += 1
            old.dying = True

    # ---- limits -----------------------------------------------------------------------------------------

    def zswap_check_limits(self) -> Steps[bool]:
        """zswap_check_limits(): True when the pool is full; remembers it until the acceptance threshold."""
        current = yield from self._read_totals()
        limit = self.max_pages()
        if current >= limit:
            self.reached["zswap_check_limits.full"] += 1
            if current == limit:
                self.reached["zswap_check_limits.at_limit"] += 1
            self.counters.pool_limit_hit += 1
            self.pool_reached_full = True
        elif self.pool_reached_full:
            threshold = self.accept_thr_pages()
            if current <= threshold:
                self.reached["zswap_check_limits.accept"] += 1
                if current == threshold:
                    self.reached["zswap_check_limits.at_threshold"] += 1
                self.pool_reached_full = False
            else:
                self.reached["zswap_check_limits.band"] += 1
        return self.pool_reached_full

    def _read_totals(self) -> Steps[int]:
        """zswap_total_pages(): the sum of each listed pool's pages at the moment it is read, current pool first."""
        total = 0
        for pool in list(self.pools):
            if pool.dying and not (yield ("?pool_listed", pool)):
                self.pools.remove(pool)
                continue
            pages = pool.zs_pool.pages_allocated
            # The reader decides by the total that it read, which may be out of date by now.
            read: int | None = yield ("zs_get_total_pages_ret", pages)
            total += pages if read is None else read
        return total

    def _has_objcg(self) -> Steps[bool]:
        """get_obj_cgroup_from_folio(): False for the root cgroup's folios up to 7.0."""
        has: bool = self.ROOT_OBJCG or (yield ("?objcg",))
        if not has:
            self.reached["zswap_store.no_objcg"] += 1
            self.untold_folios = True
        return has

    def mem_cgroup_zswap_writeback_enabled(self, expected: bool | None) -> Steps[bool]:
        """mem_cgroup_zswap_writeback_enabled(): memory.zswap.writeback; always True while zswap is off.

        :param expected: what the cgroup in question has, None when it is not known which one that is
        """
        if not self.enabled:
            expected = True
        allowed: bool | None = yield ("mem_cgroup_zswap_writeback_enabled_ret", expected)
        if allowed is None:
            allowed = self.writeback_enabled if expected is None else expected
        if allowed is None:
            allowed = yield ("?zswap_writeback",)
        return bool(allowed)

    def _writeback_expected(self) -> bool | None:
        """What a walk expects of its cgroup's memory.zswap.writeback.

        Once any cgroup has had it off, the answer depends on which cgroup this is, and the outside gives it.
        """
        return None if self._writeback_was_off or self.writeback_enabled is None else True

    # ---- entries ----------------------------------------------------------------------------------------

    def zswap_entry_cache_alloc(self, swpent: int, pool: ZswapPool) -> Steps[ZswapEntry | None]:
        """zswap_entry_cache_alloc(): an entry of the slab, or None and counted."""
        if not (yield ("?entry_alloc",)):
            self.reached["zswap_store_page.no_entry"] += 1
            self.counters.reject_kmemcache_fail += 1
            return None
        return self.new_entry(swpent, pool)

    def new_entry(self, swpent: int, pool: ZswapPool) -> ZswapEntry:
        """Return an entry that the slab gave."""
        entry = ZswapEntry(swpent, pool)
        self.ledger.take("zswap_entry", entry)
        return entry

    def zswap_entry_cache_free(self, entry: ZswapEntry) -> None:
        """zswap_entry_cache_free(): back to the slab."""
        self.ledger.give("zswap_entry", entry)

    def entries(self) -> Iterator[ZswapEntry]:
        """Return all live entries in no particular order."""
        return iter(self.tree.values())
