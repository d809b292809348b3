# SPDX-License-Identifier: GPL-2.0-or-later
"""How the model speaks: generators that yield effects.

Every modelled kernel function is a generator.  Where the kernel function calls something that can be
observed, the generator yields an *effect*: a tuple whose first item is the kernel function's name
(``"zs_malloc"`` for its entry, ``"zs_malloc_ret"`` for its return) and whose other items are the values the
model predicts for it.  The caller that drives the generator sends back an *answer* where the outside decides,
and None everywhere else.

An effect named ``"?..."`` is a *question*: nothing observable happens there, but the model has to know something
that it takes as given before it can continue (was the folio all zeros, could memory be allocated).  A replay
answers it from the next recorded event of the same task; :func:`run` answers it with the default.

No probe sees ``memcpy``: 6.12 writes an object through the pointer it has mapped.

All effects, questions and answers are listed in docs/effects.md.

Answered effects: ``crypto_acomp_compress_ret`` wants ``(ret, dlen, content)`` of the compressor,
``crypto_acomp_decompress_ret`` wants ``(ret, dlen)``; ``obj_cgroup_may_zswap_ret`` and
``mem_cgroup_zswap_writeback_enabled_ret`` want a bool, or None to keep what the model says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

__all__ = ["DECISIONS", "DEFAULTS", "UNSEEN", "Effect", "Steps", "run"]

Effect = tuple[Any, ...]
T = TypeVar("T")
#: A modelled kernel function: yields effects, is sent answers, returns what the kernel function returns.
Steps = Generator[Effect, Any, T]

DEFAULTS: dict[str, Any] = {
    "?swap_writeout": "store",
    "?objcg": True,
    "?zs_malloc": 0,
    "?entry_alloc": True,
    "?trylock_zspage": True,
    "?swapcache": True,
    "?swap_cache_alloc": 0,
    "?memcg_online": True,
    "?may_zswap": True,
    "?zswap_writeback": True,
    "?shrinker_enabled": True,
    "?shrink_next": None,
    "?shrink_order": None,
    "?xa_store": 0,
    "?class_lock": None,
    "?compacting": None,
    "?compact_end": False,
    "?contended": False,
    "?zspage_write_trylock": True,
    "?pool_listed": False,
    "?new_zspage": False,
    "?lru_next": None,
    "?lru_more": None,
    "?lru_list": None,
    "?entry_alloc_bulk": None,
    "?sg_length": None,
    "?acomp_batch": None,
    "?batch_failed": None,
}

#: What an answer decides that the model cannot know: a replay takes it from the recording and does not judge it.
DECISIONS: dict[str, str] = {
    "?swap_writeout": "whether a folio is zero-filled, or its slots are unused",
    "?objcg": "whether a folio has an obj_cgroup",
    "?entry_alloc": "whether the slab has an entry",
    "?entry_alloc_bulk": "how many entries the slab gives at once",
    "?sg_length": "what became of each page of a compress call, where the page itself does not show it",
    "?batch_failed": "whether a batch is rejected for a page that did not compress",
    "?zs_malloc": "whether there is memory for an object",
    "?new_zspage": "which zspage an object goes into, where another task listed one with room meanwhile",
    "?xa_store": "whether the tree has memory for an entry",
    "?trylock_zspage": "whether an empty zspage's pages can be locked at once",
    "?swapcache": "whether a load goes past the swap cache",
    "?swap_cache_alloc": "whether writeback gets a folio",
    "?memcg_online": "whether a cgroup is going away",
    "?may_zswap": "whether a cgroup's limit, where it is not known, refuses a page",
    "?zswap_writeback": "whether a cgroup whose setting is not known allows writeback",
    "?shrinker_enabled": "whether the dynamic shrinker, where its setting is not known, is on",
    "?shrink_next": "which cgroups there are for the worker, and when it has been once round",
    "?lru_next": "the order of concurrent additions to a list",
    "?lru_list": "under which of its two names the root's list is kept",
    "?pool_listed": "when a pool that lost its last entry leaves the list",
}

#: Effects that no probe can see.
UNSEEN = frozenset({"memcpy"})


def run(steps: Steps[T], answer: Callable[[Effect], Any] | None = None,
        seen: Callable[[Effect], None] | None = None) -> T:
    """Drive a generator to its end without a recording and return its result.

    :param answer: called with each effect; what it returns is sent (None: the default answer)
    :param seen: called with each effect, in order
    """
    send: Any = None
    while True:
        try:
            effect = steps.send(send)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if seen is not None:
            seen(effect)
        send = answer(effect) if answer is not None else None
        if send is None:
            send = DEFAULTS.get(effect[0])
