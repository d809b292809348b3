# SPDX-License-Identifier: GPL-2.0-or-later
"""Reference model of mm/zswap.c, as Linux 7.3-rc7 has it; other kernel lines override steps of it.

Every method named like a kernel function mirrors that function and is a generator of effects
(:mod:`model.effects`).  The order of effects is the order in which the kernel calls what can be observed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from model import errno
from model.counters import Counters
from model.effects import Steps
from model.list_lru import LRU_REMOVED_RETRY, LRU_RETRY, LRU_ROTATE, LRU_STOP, ListLru
from model.memcg import UNLIMITED, MemcgZswap
from model.zsmalloc import PAGE_SIZE, ZsObject, ZsPool

__all__ = ["AOP_WRITEPAGE_ACTIVATE", "KERNEL_COMPRESSORS", "Folio", "Zswap", "ZswapEntry", "ZswapPool"]

#: swap_writeout() of a folio that may not be written back: it stays in memory.
AOP_WRITEPAGE_ACTIVATE: Final = 0x80000
#: SWAP_CLUSTER_MAX
_SWAP_CLUSTER_MAX: Final = 32
#: Everything that zswap's compressor parameter accepts somewhere.
KERNEL_COMPRESSORS: Final = ("zstd", "lz4", "lz4hc", "lzo", "lzo-rle", "deflate", "842", "deflate-iaa",
                             "deflate-iaa-dynamic")
#: SHRINK_STOP, ~0UL, as a signed number
_SHRINK_STOP: Final = -1
#: MAX_RECLAIM_RETRIES
_MAX_RECLAIM_RETRIES: Final = 16


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
    """memparse(): a number of bytes with an optional suffix K, M, G, T, P or E.

    :raises ValueError: for anything else
    """
    if not text.isalnum() or not text.isascii():
        raise ValueError(f"not a number of bytes: {text!r}")
    shift = 10 * (1 + "KMGTPE".find(text[-1].upper()))
    return int(text[:-1] if shift else text, 0) << shift


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

    ``dying``: nothing refers to it any more, a worker will take it off the list.
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

    __slots__ = ("address", "content", "length", "lru", "obj", "objcg", "pool", "referenced", "swpent")

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


class Zswap:
    """The whole of zswap on one box.

    :param totalram_pages: totalram_pages() of the box, for the pool limit
    :param compressor: name of the current compressor
    :param chain_size: CONFIG_ZSMALLOC_CHAIN_SIZE
    """

    #: what this class mirrors; shown in verdicts
    mirrors = "Linux 7.3-rc7 mm/zswap.c"
    #: how many entries shrink_memcg() looks at per node
    SHRINK_BUDGET = _SWAP_CLUSTER_MAX
    #: the root cgroup's folios have an obj_cgroup (7.1+), and incompressible pages are charged apart
    ROOT_OBJCG = True
    #: mTHP statistics count zswpout, and stored_incompressible_pages exists
    HAS_INCOMPRESSIBLE = True

    def __init__(self, *, totalram_pages: int, compressor: str, chain_size: int = 8) -> None:
        self.totalram_pages = totalram_pages
        self.chain_size = chain_size
        self.enabled = True
        self.max_pool_percent = 20
        self.accept_threshold_percent = 90
        #: taken to be on until it is switched off: else zswap_shrinker_scan() would not be called
        self.shrinker_enabled = True
        self.pool_reached_full = False
        #: called before a cgroup's account, and before the pools' total, changes; for whoever replays readers
        self.account_observer: Callable[[MemcgZswap], None] | None = None
        self.total_observer: Callable[[], None] | None = None
        self.pools = [self.new_pool(compressor)]
        self.tree: dict[int, ZswapEntry] = {}
        self.lru: ListLru[ZswapEntry] = ListLru()
        self.counters = Counters()
        self.memcgs: dict[int, MemcgZswap] = {}
        #: memory.zswap.max in pages and memory.zswap.writeback of the cgroup that is recorded
        self.zswap_max = UNLIMITED
        self.writeback_enabled = True
        self._writeback_was_off = False
        #: folios were seen whose cgroup nothing told, or that belong to the root's
        self.untold_folios = False

    # ---- state that others read -------------------------------------------------------------------------

    def new_pool(self, name: str) -> ZswapPool:
        """Return a pool for a compressor, not listed yet."""
        pool = ZswapPool(name, self.chain_size)
        pool.zs_pool.observer = self._total_changes
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
        """zswap_compressor_param_set(): an existing pool of that name comes to the head, or a new one is made.

        The old current pool stays listed while entries refer to it.

        :raises ValueError: for a name that no kernel's crypto layer knows (the kernel says -ENOENT)
        """
        if name not in KERNEL_COMPRESSORS:
            raise ValueError(f"no kernel has the compressor '{name}'")
        if self.pools and self.pools[0].tfm_name == name:
            return
        # zswap_pool_find_get(): a pool on which nobody has a reference any more cannot be had again.
        pool = next((p for p in self.pools if p.tfm_name == name and not p.dying), None)
        if pool is None:
            pool = self.new_pool(name)
        else:
            self.pools.remove(pool)
        old = self.pools[0] if self.pools else None
        self.pools.insert(0, pool)
        if old is not None and not old.entries:
            old.dying = True

    # ---- limits -----------------------------------------------------------------------------------------

    def zswap_check_limits(self) -> Steps[bool]:
        """zswap_check_limits(): True when the pool is full; remembers it until the acceptance threshold."""
        current = yield from self._read_totals()
        limit = self.max_pages()
        if current >= limit:
            self.counters.pool_limit_hit += 1
            self.pool_reached_full = True
        elif self.pool_reached_full and current <= self.accept_thr_pages():
            self.pool_reached_full = False
        return self.pool_reached_full

    def _read_totals(self) -> Steps[int]:
        """zswap_total_pages(): the sum of each listed pool's pages at the moment it is read, current pool first."""
        total = 0
        for pool in list(self.pools):
            if pool.dying and not (yield ("?pool_listed", pool)):
                self.pools.remove(pool)
                continue
            pages = pool.zs_pool.pages_allocated
            # The reader decides by what it read, which may be older than what stands by now.
            read: int | None = yield ("zs_get_total_pages_ret", pages)
            total += pages if read is None else read
        return total

    def _has_objcg(self) -> Steps[bool]:
        """get_obj_cgroup_from_folio(): False for the root cgroup's folios up to 7.0."""
        has: bool = self.ROOT_OBJCG or (yield ("?objcg",))
        self.untold_folios |= not has
        return has

    def _may_zswap(self) -> Steps[bool]:
        """The cgroup part of a store's prologue: memory.zswap.max, with one try to write back."""
        # Whose folio this is shows only when it is charged: with one cgroup there is no doubt.
        expected = None
        if len(self.memcgs) <= 1:
            account = next(iter(self.memcgs.values()), MemcgZswap())
            expected = account.may_zswap(self.zswap_max)
        allowed: bool | None = yield ("obj_cgroup_may_zswap_ret", expected)
        if (expected if allowed is None else allowed) is False:
            result = yield from self.shrink_memcg(None)
            return result == 0
        return True

    def mem_cgroup_zswap_writeback_enabled(self, expected: bool | None) -> Steps[bool]:
        """mem_cgroup_zswap_writeback_enabled(): memory.zswap.writeback; always True while zswap is off.

        :param expected: what the cgroup in question has, None when it is not known which one that is
        """
        if not self.enabled:
            expected = True
        allowed: bool | None = yield ("mem_cgroup_zswap_writeback_enabled_ret", expected)
        if allowed is None:
            allowed = self.writeback_enabled if expected is None else expected
        return allowed

    # ---- store ------------------------------------------------------------------------------------------

    def zswap_store(self, folio: Folio) -> Steps[bool]:
        """zswap_store(): store every page of a folio, or none; True when stored."""
        yield ("zswap_store", folio)
        stored = False
        if self.enabled:
            stored = yield from self._store_enabled(folio)
        if not stored:
            yield from self._erase_stale(folio)
        yield ("zswap_store_ret", stored)
        return stored

    def _store_enabled(self, folio: Folio) -> Steps[bool]:
        has_objcg = yield from self._has_objcg()
        if has_objcg and not (yield from self._may_zswap()):
            return False
        if (yield from self.zswap_check_limits()):
            return False
        pool = self.pools[0]
        # The store holds the pool: a switch of compressors meanwhile does not take it away.
        pool.entries += 1
        stored = yield from self._store_pages(folio, pool, has_objcg)
        self._put_pool(pool)
        return stored

    def _store_pages(self, folio: Folio, pool: ZswapPool, has_objcg: bool) -> Steps[bool]:
        objcg: int | None = None
        for index in range(folio.nr_pages):
            entry = yield from self.zswap_store_page(folio, index, pool, has_objcg)
            if entry is None:
                return False
            objcg = entry.objcg
        if objcg is not None:
            self.memcg(objcg).count("zswpout", folio.nr_pages)
        self.counters.zswpout += folio.nr_pages
        return True

    def _erase_stale(self, folio: Folio) -> Steps[None]:
        """The end of a failed zswap_store(): whatever was stored at the folio's slots is out of date."""
        for swpent in range(folio.swpent, folio.swpent + folio.nr_pages):
            entry = self.tree.pop(swpent, None)
            if entry is not None:
                yield from self.zswap_entry_free(entry)

    def zswap_store_page(self, folio: Folio, index: int, pool: ZswapPool,
                         has_objcg: bool) -> Steps[ZswapEntry | None]:
        """zswap_store_page(): one page into the tree; None when it was rejected."""
        swpent = folio.swpent + index
        if not (yield ("?entry_alloc",)):
            self.counters.reject_kmemcache_fail += 1
            return None
        entry = ZswapEntry(swpent, pool)
        if not (yield from self.zswap_compress(folio, index, entry)):
            return None
        if not (yield from self._publish(entry)):
            return None
        pool.entries += 1
        if has_objcg:
            entry.objcg = yield from self._charge(entry)
        self.counters.stored_pages += 1
        if entry.length == PAGE_SIZE and self.HAS_INCOMPRESSIBLE:
            self.counters.stored_incompressible_pages += 1
        entry.referenced = True
        yield from self.zswap_lru_add(entry)
        return entry

    def _publish(self, entry: ZswapEntry) -> Steps[bool]:
        """xa_store() of a new entry, and the end of the one it replaces; False when the tree had no memory."""
        if (yield ("?xa_store", entry)):
            self.counters.reject_alloc_fail += 1
            yield from entry.pool.zs_pool.zs_free(entry.obj)
            return False
        old = self.tree.get(entry.swpent)
        self.tree[entry.swpent] = entry
        if old is not None:
            yield from self.zswap_entry_free(old)
        return True

    def _charge(self, entry: ZswapEntry) -> Steps[int | None]:
        """obj_cgroup_charge_zswap() of a new entry; returns the cgroup it was charged to."""
        objcg: int | None = yield ("obj_cgroup_charge_zswap", entry.length)
        if objcg is not None:
            self.memcg(objcg).charge(entry.length, self.ROOT_OBJCG)
        return objcg

    def zswap_lru_add(self, entry: ZswapEntry) -> Steps[None]:
        """zswap_lru_add(): to the tail of its cgroup's and node's list."""
        key = yield ("list_lru_add", entry)
        entry.lru = key if key is not None else (0, entry.objcg or 0)
        added = self.lru.add(entry.lru, entry)
        yield ("list_lru_add_ret", added)

    def zswap_compress(self, folio: Folio, index: int, entry: ZswapEntry) -> Steps[bool]:
        """zswap_compress() of one page: compressed, or as it is when that does not help and writeback may."""
        yield ("crypto_acomp_compress", folio, index, 1)
        ret, dlen, entry.content = yield ("crypto_acomp_compress_ret", folio, index)
        raw = False
        if ret or not dlen or dlen >= PAGE_SIZE:
            if not (yield from self.mem_cgroup_zswap_writeback_enabled(self.writeback_enabled)):
                self._count_reject(ret or errno.EINVAL, 0)
                return False
            raw, dlen = True, PAGE_SIZE
        return (yield from self._store_object(entry, dlen, raw))

    def _store_object(self, entry: ZswapEntry, length: int, raw: bool) -> Steps[bool]:
        """Allocate and write an entry's object."""
        obj = yield from entry.pool.zs_pool.zs_malloc(length)
        if isinstance(obj, int):
            self._count_reject(0, obj)
            return False
        yield ("zs_obj_write", obj, length, entry.content, raw)
        entry.obj = obj
        entry.length = length
        return True

    def _count_reject(self, comp_ret: int, alloc_ret: int) -> None:
        """The end of zswap_compress(): which counter a rejected page moves."""
        if errno.ENOSPC in (comp_ret, alloc_ret):
            self.counters.reject_compress_poor += 1
        elif comp_ret:
            self.counters.reject_compress_fail += 1
        elif alloc_ret:
            self.counters.reject_alloc_fail += 1

    # ---- end of an entry --------------------------------------------------------------------------------

    def zswap_entry_free(self, entry: ZswapEntry) -> Steps[None]:
        """zswap_entry_free(): off the LRU, object freed, uncharged."""
        yield ("zswap_entry_free", entry)
        yield ("list_lru_del", entry)
        if entry.lru is not None:
            self.lru.delete(entry.lru, entry)
        yield from entry.pool.zs_pool.zs_free(entry.obj)
        self._put_pool(entry.pool)
        if entry.objcg is not None:
            yield ("obj_cgroup_uncharge_zswap", entry)
            self.memcg(entry.objcg).uncharge(entry.length, self.ROOT_OBJCG)
        if entry.length == PAGE_SIZE and self.HAS_INCOMPRESSIBLE:
            self.counters.stored_incompressible_pages -= 1
        self.counters.stored_pages -= 1

    def _put_pool(self, pool: ZswapPool) -> None:
        """A pool that is not current dies with its last entry; it stays listed until a worker released it."""
        pool.entries -= 1
        if not pool.entries and pool is not self.pools[0]:
            pool.dying = True

    def zswap_invalidate(self, swpent: int) -> Steps[None]:
        """zswap_invalidate(): a swap slot was freed."""
        yield ("zswap_invalidate", swpent)
        entry = self.tree.pop(swpent, None)
        if entry is not None:
            yield from self.zswap_entry_free(entry)

    # ---- load -------------------------------------------------------------------------------------------

    def zswap_load(self, folio: Folio) -> Steps[int]:
        """zswap_load(): 0, -ENOENT when zswap has no such page, -EIO when it cannot be decompressed.

        A large folio is refused with -EINVAL (by a zswap that was ever enabled, which is taken for granted).
        """
        yield ("zswap_load", folio)
        if folio.order:
            yield ("zswap_load_ret", errno.EINVAL)
            return errno.EINVAL
        entry = self.tree.get(folio.swpent)
        if entry is None:
            self.counters.pswpin += folio.nr_pages
            yield ("zswap_load_ret", errno.ENOENT)
            return errno.ENOENT
        if not (yield from self.zswap_decompress(entry, folio)):
            yield ("zswap_load_ret", errno.EIO)
            return errno.EIO
        self._count_load(entry)
        self.tree.pop(folio.swpent, None)
        yield from self.zswap_entry_free(entry)
        yield ("zswap_load_ret", 0)
        return 0

    def _count_load(self, entry: ZswapEntry) -> None:
        self.counters.zswpin += 1
        if entry.objcg is not None:
            self.memcg(entry.objcg).count("zswpin", 1)

    def zswap_decompress(self, entry: ZswapEntry, folio: Folio) -> Steps[bool]:
        """zswap_decompress(): read an entry's object; a raw one is copied, others go through the compressor."""
        yield ("zswap_decompress", entry, folio)
        yield from entry.pool.zs_pool.zs_obj_read(entry.obj, entry.length)
        if self._is_raw(entry):
            return True
        yield ("crypto_acomp_decompress", entry.length)
        answer = yield ("crypto_acomp_decompress_ret", 0, PAGE_SIZE)
        ret, dlen = answer if answer is not None else (0, PAGE_SIZE)
        if ret == 0 and dlen == PAGE_SIZE:
            return True
        self._count_decompress_fail()
        return False

    def _count_decompress_fail(self) -> None:
        self.counters.decompress_fail += 1

    def _is_raw(self, entry: ZswapEntry) -> bool:
        return entry.length == PAGE_SIZE

    # ---- writeback --------------------------------------------------------------------------------------

    def zswap_writeback_entry(self, entry: ZswapEntry, swpent: int) -> Steps[int]:
        """zswap_writeback_entry(): decompress an entry into a new swap cache folio and write it out."""
        failure: int = yield ("?swap_cache_alloc", entry)
        if failure:
            return self._alloc_failure(failure)
        if self.tree.get(swpent) is not entry:
            return errno.ENOMEM
        folio = Folio(swpent)
        if not (yield from self.zswap_decompress(entry, folio)):
            return errno.EIO
        self.tree.pop(swpent, None)
        self._count_writeback(entry)
        yield from self.zswap_entry_free(entry)
        yield from self.__swap_writepage(folio)
        return 0

    def _alloc_failure(self, failure: int) -> int:
        """What a writeback returns when no folio could be put into the swap cache."""
        return failure

    def _count_writeback(self, entry: ZswapEntry) -> None:
        self.counters.zswpwb += 1
        if entry.objcg is not None:
            self.memcg(entry.objcg).count("zswpwb", 1)

    def shrink_memcg_cb(self, entry: ZswapEntry, stop_on_cached: bool = False) -> Steps[int]:
        """shrink_memcg_cb(): a second chance for a referenced entry, writeback for any other.

        The list lock is held from the choice of the entry up to here: nothing of another task comes between,
        so the bit is looked at before the effect, after which the entry may be gone at any moment.
        """
        referenced, entry.referenced = entry.referenced, False
        yield ("shrink_memcg_cb", entry)
        if referenced:
            yield ("shrink_memcg_cb_ret", LRU_ROTATE)
            return LRU_ROTATE
        failure = yield from self.zswap_writeback_entry(entry, entry.swpent)
        if failure:
            self.counters.reject_reclaim_fail += 1
            status = LRU_STOP if failure == errno.EEXIST and stop_on_cached else LRU_RETRY
        else:
            self.counters.written_back_pages += 1
            status = LRU_REMOVED_RETRY
        yield ("shrink_memcg_cb_ret", status)
        return status

    def shrink_memcg(self, cgroup: int | None) -> Steps[int]:
        """shrink_memcg(): write back from one cgroup; 0, -ENOENT (nothing to do) or -EAGAIN (nothing done).

        ``cgroup`` None: whichever the outside names.
        """
        named: int | None = yield ("shrink_memcg", cgroup)
        cgroup = named if named is not None else cgroup or 0
        result = yield from self._shrink_memcg(cgroup)
        yield ("shrink_memcg_ret", result)
        return result

    def _shrink_memcg(self, cgroup: int) -> Steps[int]:
        # Once a cgroup has had its writeback switched off, which one this is decides: the outside says.
        expected = None if self._writeback_was_off else True
        if not (yield from self.mem_cgroup_zswap_writeback_enabled(expected)):
            return errno.ENOENT
        if not (yield ("?memcg_online", cgroup)):
            return errno.ENOENT
        removed = scanned = 0
        # The kernel walks every node with memory; those without a list of this cgroup have nothing to look at.
        for nid in list(self.lru.nodes(cgroup)) or [0]:
            gone, left = yield from self.lru.walk_one((nid, cgroup), self.shrink_memcg_cb, self.SHRINK_BUDGET)
            removed += gone
            scanned += self.SHRINK_BUDGET - left
        if not scanned:
            return errno.ENOENT
        return 0 if removed else errno.EAGAIN

    def zswap_shrinker_scan(self, nr_to_scan: int, cgroup: int | None = None, nid: int = 0) -> Steps[int]:
        """zswap_shrinker_scan(): the dynamic shrinker walks one cgroup's list on one node.

        Returns how many entries were written back, or SHRINK_STOP (-1) for none, or when it met a page that
        is in the swap cache again.  ``cgroup`` None: the outside names (cgroup, node).
        """
        named: tuple[int, int] | None = yield ("zswap_shrinker_scan", nr_to_scan, cgroup, nid)
        cgroup, nid = named if named is not None else (cgroup or 0, nid)
        result = yield from self._shrinker_scan(nr_to_scan, cgroup, nid)
        yield ("zswap_shrinker_scan_ret", result)
        return result

    def _shrinker_scan(self, nr_to_scan: int, cgroup: int, nid: int) -> Steps[int]:
        expected = None if self._writeback_was_off else True
        if not self.shrinker_enabled or not (yield from self.mem_cgroup_zswap_writeback_enabled(expected)):
            return _SHRINK_STOP
        met: list[ZswapEntry] = []

        def shrink_memcg_cb(entry: ZswapEntry) -> Steps[int]:
            status = yield from self.shrink_memcg_cb(entry, stop_on_cached=True)
            if status == LRU_STOP:
                met.append(entry)
            return status

        removed, _ = yield from self.lru.walk_one((nid, cgroup), shrink_memcg_cb, nr_to_scan)
        return _SHRINK_STOP if met or not removed else removed

    def shrink_worker(self) -> Steps[None]:
        """shrink_worker(): write back, cgroup by cgroup, down to the acceptance threshold.

        Which cgroup is next is the outside's to say (its hierarchy is not modelled); the outside also says
        when a pass ends.
        """
        threshold = self.accept_thr_pages()
        yield ("shrink_worker",)
        failures = attempts = 0
        while True:
            cgroup = yield ("?shrink_next",)
            if cgroup is None:
                # A pass over the hierarchy is over; one that found nobody to shrink is a failure.
                if not attempts:
                    failures += 1
                    if failures == _MAX_RECLAIM_RETRIES:
                        break
                attempts = 0
            else:
                result = yield from self.shrink_memcg(cgroup)
                if result != errno.ENOENT:
                    attempts += 1
                    if result:
                        failures += 1
                        if failures == _MAX_RECLAIM_RETRIES:
                            break
            if (yield from self._read_totals()) <= threshold:
                break
        yield ("shrink_worker_ret",)

    def memcg_reparent_list_lrus(self, cgroup: int, parent: int) -> None:
        """memcg_reparent_list_lrus(): a cgroup goes away, its entries are listed with its parent's.

        Mirrors mm/list_lru.c; the obj_cgroups its entries were charged to stay what they are.
        """
        for nid in list(self.lru.nodes(cgroup)):
            for entry in self.lru.splice((nid, cgroup), (nid, parent)):
                entry.lru = (nid, parent)

    # ---- swap layer -------------------------------------------------------------------------------------

    def swap_writeout(self, folio: Folio) -> Steps[int]:
        """swap_writeout() in mm/page_io.c: zero-filled folios are only marked, others offered to zswap."""
        yield ("swap_writeout", folio)
        what: str = yield ("?swap_writeout", folio)
        if what == "zero":
            self.counters.swpout_zero += folio.nr_pages
        if what != "store":
            yield ("swap_writeout_ret", 0)
            return 0
        if (yield from self.zswap_store(folio)):
            if folio.order and self.HAS_INCOMPRESSIBLE:
                by_order = self.counters.mthp_zswpout
                by_order[folio.order] = by_order.get(folio.order, 0) + 1
            yield ("swap_writeout_ret", 0)
            return 0
        if not (yield from self.mem_cgroup_zswap_writeback_enabled(self.writeback_enabled)):
            yield ("swap_writeout_ret", AOP_WRITEPAGE_ACTIVATE)
            return AOP_WRITEPAGE_ACTIVATE
        yield from self.__swap_writepage(folio)
        yield ("swap_writeout_ret", 0)
        return 0

    def __swap_writepage(self, folio: Folio) -> Steps[None]:
        """__swap_writepage(): the folio goes to the swap device."""
        yield ("__swap_writepage", folio)
        self.counters.pswpout += folio.nr_pages

    def entries(self) -> Iterator[ZswapEntry]:
        """Return all live entries in no particular order."""
        return iter(self.tree.values())
