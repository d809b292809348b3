# SPDX-License-Identifier: GPL-2.0-or-later
"""Every comparison of an event's columns, as data: which event, under which check, which columns.

The handlers (:mod:`replay.reference.handlers.zswap` and its siblings) name a comparison by its key and give both sides;
which of its columns the recorded probe captured is decided here, once for a recording.  A column that was not captured
holds 0 in a recording, which is nobody's value: it is never compared, and a comparison of which no column was captured
does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from model.effects import Effect

__all__ = ["COMPARISONS", "Comparison", "Held", "checks_of", "compared_columns", "held_for", "missing_columns"]


@dataclass(frozen=True)
class Comparison:
    """Some columns of ``event`` against what is predicted for them, under ``check``.

    ``columns``: (column, what it holds in words) in the order in which the handler gives both sides.  A value that is
    made of several columns (``folio`` and ``offset``: the page) names the one that it is nothing without.
    ``about``: of what the columns are, the end of a divergence's sentence.
    ``counts``: False for one that belongs to another comparison of the same event, which counts for both.
    ``predicted``: how both follow from the effect, where comparing is all that a handler does.
    """

    event: str
    check: str
    columns: tuple[tuple[str, str], ...]
    about: str = ""
    counts: bool = True
    predicted: Callable[[Effect], tuple[Any, ...]] | None = None


def _is(event: str, check: str, columns: str, about: str = "", *, counts: bool = True,
        predicted: Callable[[Effect], tuple[Any, ...]] | None = None) -> Comparison:
    pairs = (item.partition("=")[::2] for item in columns.split(", "))
    return Comparison(event, check, tuple((column, words or column) for column, words in pairs), about, counts,
                      predicted)


def _value(effect: Effect) -> tuple[Any, ...]:
    return (int(effect[1]),)


_RET: Final = "ret=return value"

#: key -> comparison; the key is the event's name, with what it is about behind a colon where an event has several
COMPARISONS: Final[dict[str, Comparison]] = {
    # the swap layer, store and load
    "zswap_store": _is("zswap_store", "swap.writeout", "folio=folio, swpent=swap entry, order=order",
                       "handed to zswap_store()", counts=False),
    "swap_writeout_ret": _is("swap_writeout_ret", "swap.writeout", _RET, predicted=_value),
    "__swap_writepage": _is("__swap_writepage", "swap.writeout", "folio=folio, swpent=swap entry",
                            "written to the device"),
    "zswap_store_ret": _is("zswap_store_ret", "store.result", _RET, predicted=_value),
    "zswap_load_ret": _is("zswap_load_ret", "load.result", _RET, predicted=_value),
    "zswap_load_ret:word": _is("zswap_load_ret", "load.folio", "word=PG_uptodate and PG_dirty of the folio loaded"),
    "__swap_writepage:word": _is("__swap_writepage", "writeback.folio", "word=PG_uptodate of the folio written back"),
    "zswap_decompress": _is("zswap_decompress", "load.entry", "swpent=swap entry, handle=handle, size=length",
                            "of the entry read"),
    "zswap_decompress:folio": _is("zswap_decompress", "load.entry",
                                  "folio=folio the entry is decompressed into", counts=False),
    "zswap_decompress:entry": _is("zswap_decompress", "load.entry", "entry=address of the entry", counts=False),
    "zswap_entry_free": _is("zswap_entry_free", "free.entry",
                            "swpent=swap entry, size=length, handle=handle, ref=referenced", "of the entry freed"),
    "zswap_entry_free:entry": _is("zswap_entry_free", "free.entry", "entry=address of the entry", counts=False),
    # compressors
    "crypto_acomp_compress": _is("crypto_acomp_compress", "acomp.calls",
                                 "folio=struct page, offset=offset, size=slen, dlen=dlen", "of the compress call"),
    "crypto_acomp_compress_ret:ret": _is("crypto_acomp_compress_ret", "store.error", "ret=error"),
    "crypto_acomp_compress_ret:dlen": _is("crypto_acomp_compress_ret", "store.length", "dlen=length"),
    "crypto_acomp_compress_ret:batch": _is("crypto_acomp_compress_ret", "acomp.batch", _RET),
    "crypto_acomp_compress_ret:batch_dlen": _is("crypto_acomp_compress_ret", "acomp.batch", "dlen=dlen", counts=False),
    "crypto_acomp_decompress": _is("crypto_acomp_decompress", "load.result", "size=slen, dlen=dlen",
                                   "of the decompress call"),
    "crypto_acomp_decompress_ret": _is("crypto_acomp_decompress_ret", "load.result", "ret=return value, dlen=bytes",
                                       "of the decompress call"),
    # cgroups
    "obj_cgroup_may_zswap_ret": _is("obj_cgroup_may_zswap_ret", "memcg.limit", _RET),
    "mem_cgroup_zswap_writeback_enabled_ret": _is("mem_cgroup_zswap_writeback_enabled_ret", "memcg.writeback", _RET),
    "obj_cgroup_charge_zswap": _is("obj_cgroup_charge_zswap", "memcg.charge", "size=bytes charged"),
    "obj_cgroup_charge_zswap:memcg": _is("obj_cgroup_charge_zswap", "memcg.charge",
                                         "memcg=obj_cgroup of one folio's pages", counts=False),
    "obj_cgroup_uncharge_zswap": _is("obj_cgroup_uncharge_zswap", "memcg.charge", "size=bytes, memcg=obj_cgroup",
                                     "uncharged"),
    # the LRU
    "list_lru_add": _is("list_lru_add", "lru.order", "memcg=mem_cgroup of an entry's LRU"),
    "list_lru_add_ret": _is("list_lru_add_ret", "lru.order", "ret=list_lru_add() return value", predicted=_value),
    "list_lru_del": _is("list_lru_del", "lru.order", "entry=list_head, nid=node, memcg=cgroup", "taken off the LRU"),
    "shrink_memcg": _is("shrink_memcg", "shrink.worker", "memcg=cgroup that shrink_worker() comes to next"),
    "shrink_memcg_cb": _is("shrink_memcg_cb", "lru.order", "entry=entry the LRU walk looks at"),
    "shrink_memcg_cb_ret": _is("shrink_memcg_cb_ret", "lru.order", _RET),
    "shrink_memcg_ret": _is("shrink_memcg_ret", "lru.order", _RET),
    "zswap_shrinker_scan_ret": _is("zswap_shrinker_scan_ret", "lru.order", _RET),
    "zswap_writeback_entry": _is("zswap_writeback_entry", "lru.order", "swpent=swap entry written back",
                                 predicted=lambda effect: (effect[1].swpent,)),
    "zswap_writeback_entry_ret": _is("zswap_writeback_entry_ret", "load.result", _RET, predicted=_value),
    # zsmalloc
    "zs_malloc": _is("zs_malloc", "zsmalloc.size", "size=size asked of zs_malloc()",
                     predicted=lambda effect: (effect[1],)),
    "zs_malloc:length": _is("zs_malloc", "store.length", "size=length of a page of a batch"),
    "zs_malloc_ret:length": _is("zs_malloc_ret", "store.length", "size=length of a page of a batch"),
    "zs_obj_write:length": _is("zs_obj_write", "store.length", "size=length of a page of a batch"),
    "obj_cgroup_charge_zswap:length": _is("obj_cgroup_charge_zswap", "store.length",
                                          "size=length of a page of a batch"),
    "zs_malloc:pool": _is("zs_malloc", "zsmalloc.place", "pool=pool", counts=False),
    "zs_malloc_ret": _is("zs_malloc_ret", "zsmalloc.place", "handle=handle, size=size", "of the new object"),
    "zs_malloc_ret:error": _is("zs_malloc_ret", "zsmalloc.place", "handle=zs_malloc() error"),
    "zs_malloc_ret:obj": _is("zs_malloc_ret", "zsmalloc.place", "obj=place of the new object", counts=False),
    "zs_free": _is("zs_free", "zsmalloc.handle", "handle=handle freed"),
    "zs_free:obj": _is("zs_free", "zsmalloc.place", "obj=place of the object freed", counts=False),
    "zs_free:pool": _is("zs_free", "zsmalloc.place", "pool=pool", counts=False),
    "zs_obj_write": _is("zs_obj_write", "store.bytes", "handle=handle, size=length", "of the object written"),
    "zs_obj_write:data": _is("zs_obj_write", "store.bytes", "data=first bytes of the object written", counts=False),
    "zs_obj_read": _is("zs_obj_read", "sg.shape", "handle=handle, size=length", "of the object read"),
    "zs_get_total_pages_ret": _is("zs_get_total_pages_ret", "zsmalloc.pages", "ret=pages of the pool"),
    "zswap_total_pages_ret": _is("zswap_total_pages_ret", "zsmalloc.pages", "ret=pages of all pools"),
    "obj_malloc": _is("obj_malloc", "zsmalloc.place", "zspage=zspage"),
    "obj_malloc:handle": _is("obj_malloc", "zsmalloc.place", "handle=handle of the object that moves", counts=False),
    "obj_malloc_ret": _is("obj_malloc_ret", "zsmalloc.place",
                          "zspage=zspage, obj=object index, word=class and fullness bits, inuse=objects in use, "
                          "handle=handle"),
    "obj_malloc_ret:freeobj": _is("obj_malloc_ret", "zsmalloc.place", "freeobj=next free object", counts=False),
    "obj_malloc_ret:obj": _is("obj_malloc_ret", "zsmalloc.place", "obj=place of the object", counts=False),
    "obj_free": _is("obj_free", "zsmalloc.place", "size=class size of the object freed"),
    "obj_free:obj": _is("obj_free", "zsmalloc.place", "obj=place of the object freed", counts=False),
    "fix_fullness_group": _is("fix_fullness_group", "zsmalloc.fullness",
                              "zspage=zspage, inuse=objects in use, word=class and fullness bits, pool=size_class"),
    "fix_fullness_group_ret": _is("fix_fullness_group_ret", "zsmalloc.fullness", "ret=fullness group"),
    "__free_zspage": _is("__free_zspage", "zsmalloc.place", "zspage=zspage, pool=size_class", "of the zspage freed"),
    # compaction
    "zs_compact": _is("zs_compact", "zsmalloc.compact", "pool=pool"),
    "__zs_compact": _is("__zs_compact", "zsmalloc.compact", "pool=size_class that is compacted"),
    "zs_shrinker_scan_ret": _is("zs_shrinker_scan_ret", "zsmalloc.compact", "ret=pages freed", predicted=_value),
    "zs_compact_ret": _is("zs_compact_ret", "zsmalloc.compact", "ret=pages freed", predicted=_value),
    "__zs_compact_ret": _is("__zs_compact_ret", "zsmalloc.compact", "ret=pages freed", predicted=_value),
}
#: zs_obj_write's comparisons count for the check of pages kept as they are where that is what was written.
_ALSO: Final = {"zs_obj_write": "store.raw"}


class Held:
    """A :class:`Comparison` as one recording allows it.

    ``seen``: per column, whether it was captured; ``whole``: all were; ``some``: any was; ``counts``: it is this one
    that counts for its event and check.
    """

    __slots__ = ("check", "columns", "comparison", "counts", "seen", "some", "whole")

    def __init__(self, comparison: Comparison, captured: frozenset[str], counts: bool) -> None:
        self.comparison = comparison
        self.check = comparison.check
        self.columns = tuple(column for column, _ in comparison.columns)
        self.seen = tuple(column in captured for column in self.columns)
        self.whole, self.some = all(self.seen), any(self.seen)
        self.counts = counts

    def what(self, kept: Iterable[bool]) -> str:
        """Return what is compared in words, of the columns that are kept."""
        words = [words for (_, words), keep in zip(self.comparison.columns, kept, strict=True) if keep]
        about = f" {self.comparison.about}" if self.comparison.about else ""
        return f"({', '.join(words)}){about}" if len(words) > 1 else f"{words[0]}{about}"


def held_for(columns_of: Mapping[str, frozenset[str]]) -> dict[str, Held]:
    """Return all comparisons as probes with these columns allow them.

    Where nothing of the comparison that counts was captured, the next one of its event and check counts.
    """
    out = {}
    #: (event, check) that count, and that nothing counts for yet
    open_groups = {(comparison.event, comparison.check) for comparison in COMPARISONS.values() if comparison.counts}
    for key, comparison in COMPARISONS.items():
        captured = columns_of.get(comparison.event, frozenset())
        some = any(column in captured for column, _ in comparison.columns)
        group = (comparison.event, comparison.check)
        counts = some and (comparison.counts or group in open_groups)
        if counts:
            open_groups.discard(group)
        out[key] = Held(comparison, captured, counts)
    return out


def checks_of(comparison: Comparison) -> tuple[str, ...]:
    """Return the checks that a comparison is made under."""
    return (comparison.check, _ALSO[comparison.event]) if comparison.event in _ALSO else (comparison.check,)


def compared_columns() -> Iterator[tuple[str, str, str]]:
    """Yield (event, column, check) of everything that a replay compares."""
    for comparison in COMPARISONS.values():
        for check in checks_of(comparison):
            for column, _ in comparison.columns:
                yield comparison.event, column, check


def missing_columns(check: str, columns_of: Mapping[str, frozenset[str]]) -> list[tuple[str, str]]:
    """Return the (event, column) that a check compares and that probes did not capture, of events that were probed."""
    found = dict.fromkeys((event, column) for event, column, compared in compared_columns() if compared == check
                          and event in columns_of and column not in columns_of[event])
    return list(found)
