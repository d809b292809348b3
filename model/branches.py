# SPDX-License-Identifier: GPL-2.0-or-later
"""The branches of the modelled functions, which a recording may or may not have taken.

A replay can only check what happened.  The model counts each branch below as it takes it (``reached``), so that a
verdict can say which of them a recording never saw.  A branch is named after its kernel function.

:func:`branches_of` finds out which of them a revision has, by following its code: a revision that overrides a step has
the branches of its own version of it.
"""

from __future__ import annotations

import inspect
import types
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

__all__ = ["BRANCHES", "OPERATIONS", "Reached", "branches_of"]

#: branch -> how often it was taken
Reached = Counter[str]

#: branch -> what happens there
BRANCHES: Final[dict[str, str]] = {
    # mm/page_io.c
    "swap_writeout.zero": "a zero-filled folio is only marked",
    "swap_writeout.free": "the folio's slots turn out to be unused",
    "swap_writeout.large": "a large folio is stored whole",
    "swap_writeout.kept": "a folio that was not stored may not be written back: it stays in memory",
    "swap_writeout.device": "a folio that was not stored goes to the device",
    # mm/zswap.c: store
    "zswap_store.large": "a large folio is refused for its size",
    "zswap_store.disabled": "zswap is off",
    "zswap_store.no_objcg": "the folio has no obj_cgroup",
    "zswap_store.memcg_full": "the cgroup is at its limit",
    "zswap_store.memcg_shrunk": "the cgroup was at its limit, and writeback made room",
    "zswap_store.erase": "a store that failed erases what its slots held before",
    "zswap_store.partial": "a large folio fails after some of its pages were stored",
    "zswap_check_limits.full": "the pool is at its limit",
    "zswap_check_limits.at_limit": "the pool is exactly at its limit",
    "zswap_check_limits.band": "the pool was full and is between acceptance threshold and limit: refused",
    "zswap_check_limits.accept": "the pool was full and is below the acceptance threshold: accepted again",
    "zswap_check_limits.at_threshold": "the pool was full and is exactly at the acceptance threshold: accepted again",
    "zswap_store_page.no_entry": "the slab has no zswap_entry",
    "zswap_store_page.no_tree": "the tree has no memory for the entry",
    "zswap_store_page.replace": "an entry replaces another one at its slot",
    "zswap_compress.ENOSPC": "the compressor returns -ENOSPC",
    "zswap_compress.EINVAL": "the compressor returns -EINVAL",
    "zswap_compress.E2BIG": "the compressor returns -E2BIG (deflate-iaa: the output does not fit)",
    "zswap_compress.ENODEV": "the compressor returns -ENODEV (deflate-iaa: no queue, no descriptor)",
    "zswap_compress.ETIMEDOUT": "the compressor returns -ETIMEDOUT (deflate-iaa: the device does not answer)",
    "zswap_compress.EIO": "the compressor returns -EIO (deflate-iaa: an interrupt reported an error)",
    "zswap_compress.error": "the compressor returns another error",
    "zswap_compress.whole": "the compressor succeeds with nothing, or with no less than a page",
    "zswap_compress.raw": "a page that does not compress is kept as it is",
    "zswap_compress.no_writeback": "a page that does not compress is rejected, as it may not be written back",
    # mm/zswap.c: load, invalidate
    "zswap_load.none": "zswap does not have the page",
    "zswap_load.stored": "zswap has the page",
    "zswap_load.past_cache": "a load past the swap cache leaves the entry",
    "zswap_decompress.raw": "a page that was kept as it is is copied",
    "zswap_decompress.compressed": "an object is decompressed",
    "zswap_decompress.failed": "an object cannot be decompressed",
    "zswap_invalidate.none": "a freed slot held nothing",
    "zswap_invalidate.stored": "a freed slot held an entry",
    # mm/zswap.c, mm/list_lru.c: writeback
    "shrink_memcg_cb.second_chance": "a referenced entry gets a second chance",
    "shrink_memcg_cb.written": "an entry is written back",
    "shrink_memcg_cb.failed": "an entry cannot be written back",
    "shrink_memcg_cb.stop": "the dynamic shrinker stops at an entry whose page is in the swap cache",
    "zswap_writeback_entry.no_folio": "no folio can be put into the swap cache",
    "zswap_writeback_entry.gone": "the entry left the tree meanwhile",
    "shrink_memcg.no_writeback": "the cgroup's pages may not be written back",
    "shrink_memcg.offline": "the cgroup is going away",
    "shrink_memcg.empty": "the cgroup has no entries",
    "shrink_memcg.none": "entries were looked at, none was written back",
    "shrink_memcg.some": "entries were written back",
    "list_lru_walk_one.alone": "a walk ends behind the list's only entry",
    "list_lru_walk_one.budget": "a walk ends with its budget",
    "zswap_shrinker_scan.off": "the dynamic shrinker is off, or may not write back",
    "zswap_shrinker_scan.none": "the dynamic shrinker writes nothing back",
    "zswap_shrinker_scan.some": "the dynamic shrinker writes entries back",
    "shrink_worker.pass": "the worker went once round the cgroups",
    "shrink_worker.idle_pass": "the worker went once round the cgroups and found nothing to try",
    "shrink_worker.threshold": "the worker reached the acceptance threshold",
    "shrink_worker.at_threshold": "the worker stops with the pool exactly at the acceptance threshold",
    "shrink_worker.retries": "the worker gives up after too many failures",
    "memcg_reparent_list_lrus.some": "a dying cgroup's entries go to its parent",
    # mm/zswap.c: pools
    "zswap_compressor_param_set.new": "another compressor gets a new pool",
    "zswap_compressor_param_set.again": "another compressor has a pool already",
    "zswap_pool.released": "a pool that is current no more loses its last entry",
    # mm/zsmalloc.c
    "zs_malloc.EINVAL": "an object of no bytes is refused",
    "zs_malloc.ENOSPC": "an object of more than a page is refused",
    "zs_malloc.ENOMEM": "there is no memory for a handle or a zspage",
    "zs_malloc.new": "an object goes into a new zspage",
    "zs_malloc.room": "an object goes into a zspage that has room",
    "zs_malloc.empty": "an object goes into an empty zspage that waits to be freed",
    "zs_malloc.raced": "a new zspage is used although another task listed one with room meanwhile",
    "zs_malloc.huge": "an object gets a page of its own",
    "zs_free.zspage": "an empty zspage is freed at once",
    "zs_free.deferred": "an empty zspage's pages cannot be locked: it is freed later",
    "async_free_zspage.some": "the worker frees empty zspages",
    "zs_obj_read.one": "an object that is read lies on one page",
    "zs_obj_read.two": "an object that is read lies on two pages",
    "zs_compact.busy": "another task compacts the pool",
    "zs_compact.none": "the pool's shrinker frees nothing",
    "zs_compact.emptied": "compaction empties a zspage",
    "zs_compact.filled": "compaction fills a zspage",
    "zs_compact.in_use": "compaction finds a zspage in use and gives its class up",
    # posted series
    "zswap_store_pages.partial": "a batch has fewer pages than the compressor or the maximum allows",
    "zswap_store_pages.full": "a batch has as many pages as it can",
    "zswap_store_pages.failed": "a batch fails and gives back what it has",
    "zswap_entries_cache_alloc_batch.none": "the slab gives no entries at once: one by one",
    "zswap_entries_cache_alloc_batch.some": "the slab gives some of the entries, which is said to be impossible",
    "zswap_compress.batch": "a compress call takes several pages",
    "zswap_compress.batch_error": "a page of a compress call of several pages has an error",
    "zswap_compress.batch_failed": "a compress call returns an error and rejects its pages",
}

#: Methods of the model that an outside event begins.
OPERATIONS: Final = ("swap_writeout", "zswap_store", "zswap_load", "zswap_invalidate", "shrink_worker", "shrink_memcg",
                     "zswap_shrinker_scan", "memcg_reparent_list_lrus", "zs_shrinker_scan", "zs_compact",
                     "async_free_zspage", "set_param")


#: Branches that the code has but that only some revisions can take: an attribute of the class, and its value there.
_ONLY_WHERE: Final[dict[str, tuple[str, object]]] = {
    "zswap_store.no_objcg": ("ROOT_OBJCG", False),
    "zswap_store.large": ("LARGE_FOLIOS", False),
    "zswap_compress.raw": ("RAW_PAGES", True),
    "zswap_compress.no_writeback": ("RAW_PAGES", True),
    "zswap_load.past_cache": ("LOADS_PAST_CACHE", True),
    "zs_compact.in_use": ("COMPACTION_TRYLOCKS", True),
    "zs_malloc.EINVAL": ("CHECKS_LENGTH", False),
    "zs_malloc.ENOSPC": ("CHECKS_LENGTH", False),
}


@lru_cache(maxsize=64)
def branches_of(kind: type, *parts: type) -> tuple[str, ...]:
    """Return the branches that a revision's code can take, in the order of :data:`BRANCHES`.

    Starts at :data:`OPERATIONS` and follows the names in the code of each method.  A step that no operation of this
    revision calls any more has no branches.

    :param kind: the revision, a subclass of :class:`model.zswap.Zswap`
    :param parts: classes whose methods it calls on objects that it holds
    """
    found: set[str] = set()
    seen: set[types.CodeType] = set()
    waiting = [function for name in OPERATIONS for function in _methods(name, (kind, *parts))]
    while waiting:
        function = waiting.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        names: set[str] = set()
        for code in _nested(function.__code__):
            found |= {text for text in _strings(code.co_consts) if text in BRANCHES}
            names |= {*code.co_names, *code.co_freevars}
        # An explicit call of a base's version: Zswap.zswap_store(self, folio).
        bases = [named for named in (function.__globals__.get(name) for name in names)
                 if isinstance(named, type) and issubclass(kind, named)]
        for name in names:
            waiting += _methods(name, (kind, *bases, *parts))
        if "super" in names:
            waiting += _above(function, kind)
    found -= {name for name, (attribute, value) in _ONLY_WHERE.items() if getattr(kind, attribute, value) != value}
    return tuple(name for name in BRANCHES if name in found)


def _methods(name: str, kinds: Iterable[type]) -> Iterator[types.FunctionType]:
    for kind in kinds:
        method = _unwrapped(getattr(kind, name, None))
        if method is not None:
            yield method


def _above(function: types.FunctionType, kind: type) -> Iterator[types.FunctionType]:
    """Yield what super() finds for a method: the same name in the classes behind the one that defines it."""
    name = function.__name__
    mro = kind.__mro__
    at = next((place for place, each in enumerate(mro) if _unwrapped(each.__dict__.get(name)) is function),
              len(mro))
    for each in mro[at + 1:]:
        method = _unwrapped(each.__dict__.get(name))
        if method is not None:
            yield method
            return


def _unwrapped(method: Any) -> types.FunctionType | None:
    """Return the function as it was written: a user's own methods are wrapped to be watched."""
    method = inspect.unwrap(method) if callable(method) else method
    return method if isinstance(method, types.FunctionType) else None


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and those of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _strings(constants: Iterable[Any]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple | frozenset):
            yield from _strings(constant)
