# SPDX-License-Identifier: GPL-2.0-or-later
"""What the compiled replay can confirm: the mainline revisions, and those that change no step of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from model.crypto import ModelledCompressor
from model.list_lru import ListLru
from model.memcg import MemcgZswap
from model.revisions.mainline_6_12 import Mainline612
from model.revisions.mainline_6_18 import Mainline618
from model.revisions.mainline_7 import Mainline70, Mainline71, Mainline72, Mainline73
from model.zsmalloc import SizeClass, ZsPool
from model.zswap import Zswap
from replay.fast import layout as L
from replay.reference.comparisons import compared_columns

if TYPE_CHECKING:
    from replay.reference.engine import Engine

__all__ = ["GIVEN", "HANDLED", "NEEDED", "compiled_base", "setup", "why_not"]

#: What a revision may set without changing a step.
_DATA: Final = frozenset({
    "mirrors", "kernel_line", "crypto_layer", "compress_call", "SHRINK_BUDGET", "ROOT_OBJCG", "HAS_INCOMPRESSIBLE",
    "SG_READS", "READS_SLOTS", "DEST_PAGES", "HAS_MTHP_ZSWPOUT"})
#: The classes whose steps are compiled, most special first.
_COMPILED: Final = (Mainline612, Mainline618, Mainline70, Mainline71, Mainline72, Mainline73, Zswap)
#: (event, column) that compiled code can do without; without any other one the reference decides.
HANDLED: Final = frozenset({
    ("zswap_decompress", "size"), ("zswap_entry_free", "size"), ("zswap_entry_free", "ref"), ("zs_malloc_ret", "obj"),
    ("zs_free", "obj"), ("zs_obj_write", "data"), ("zs_obj_read", "size"), ("zswap_load_ret", "word"),
    ("__swap_writepage", "word")})
#: Events in whose place the reference asks others, assumes or stops.  Those whose beginnings go unseen without them
#: need not be here: what then differs, the reference judges.
NEEDED: Final = frozenset({"crypto_acomp_compress", "crypto_acomp_compress_ret", "obj_cgroup_charge_zswap",
                           "mem_cgroup_zswap_writeback_enabled_ret", "obj_cgroup_may_zswap_ret", "zs_malloc_ret",
                           "zs_get_total_pages_ret", "list_lru_add", "list_lru_add_ret", "list_lru_del", "obj_malloc",
                           "obj_malloc_ret"})
#: (event, column) that are only given to the model.
GIVEN: Final = (("swap_writeout", "folio"), ("zswap_load", "folio"), ("list_lru_add", "entry"), ("list_lru_add", "nid"),
                ("shrink_memcg", "memcg"))
#: Those of the shrinker, which some recordings of kernels with it switched off lack.
_WALKED: Final = (("zswap_shrinker_scan", "size"), ("zswap_shrinker_scan", "memcg"), ("zswap_shrinker_scan", "nid"))
_DETAILS: Final = frozenset({"__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__",
                             "__abstractmethods__", "_abc_impl", "__annotations__", "__annotate__", "__annotate_func__",
                             "__annotations_cache__", "__dict__", "__weakref__", "__parameters__"})
#: Steps as they were when they were compiled: where others replace them, the reference replays.
_STEPS: Final = {(owner, name): value for kind in (*_COMPILED, ZsPool, SizeClass, ListLru, MemcgZswap)
                 for owner in kind.__mro__
                 for name, value in vars(owner).items() if callable(value) and not name.startswith("__")}


def compiled_base(kind: type[Zswap]) -> tuple[type[Zswap] | None, str]:
    """Return the class whose compiled steps a revision takes, or None and the name of the step that differs."""
    base = next((known for known in _COMPILED if issubclass(kind, known)), None)
    if base is None:
        return None, kind.__name__
    for owner in kind.__mro__[:kind.__mro__.index(base)]:
        own = set(vars(owner)) - _DETAILS - _DATA
        if own:
            return None, f"{owner.__name__}.{min(own)}"
    for (owner, name), value in _STEPS.items():
        if vars(owner).get(name) is not value:
            return None, f"{owner.__name__}.{name}"
    return base, ""


def why_not(engine: Engine) -> str:
    """Return why a replay has to be the reference's from beginning to end, or ``""``."""
    model = engine.state.model
    kind = type(model)
    base, step = compiled_base(kind)
    if base is None:
        return f"revision {kind.__name__} has a step of its own ({step})"
    if model.WRITEBACK_APART != kind.WRITEBACK_APART:
        return "zswap_writeback_entry was probed, which this kernel line inlines"
    if engine.observe is not None:
        return "every effect is to be shown"
    predictions = engine.state.predictions
    if predictions.inexact or any(isinstance(c, ModelledCompressor) for c in predictions.compressors.values()):
        return "lengths are checked against a compressor that is not exact here"
    if engine.state.driver_stopped >= 0:
        return "not all calls of the devices' driver are followed"
    if engine.useless:
        return f"{engine.state.uncaptured.lacking(min(engine.useless))}"
    alone = [key for key, held in engine.state.held.items() if held.some and not held.comparison.compiled]
    if alone:
        return f"{alone[0]} is compared by the reference alone"
    missing = NEEDED - engine.state.captured
    if missing:
        return f"{min(missing)} was not probed"
    lacks = sorted({(event, column) for event, column, _ in compared_columns() if event in engine.state.captured
                    and column not in engine.state.columns_of[event]} - HANDLED)
    given = [*GIVEN, *(_WALKED if model.shrinker_enabled or any("shrinker_enabled" in text for text in
                                                                engine.state.recording.texts()) else ())]
    lacks += [(event, column) for event, column in given if event in engine.state.captured
              and column not in engine.state.columns_of[event]]
    if lacks:
        return f"{lacks[0][0]} has no {lacks[0][1]}"
    failing = [name for name in ("?entry_alloc", "?xa_store") if name not in engine.questions.constant]
    if failing:
        return "slab or tree ran out of memory, which only counters show"
    return ""


def setup(engine: Engine, out: np.ndarray) -> None:
    """Say in numbers how the revision and the recording are: see :mod:`replay.fast.layout`."""
    model, has = engine.state.model, engine.state.columns_of
    base, _ = compiled_base(type(model))
    old = base is Mainline612

    def column(event: str, name: str) -> bool:
        return name in has.get(event, ())

    out[L.KIND_612] = old
    out[L.KIND_CACHED] = model.LOADS_PAST_CACHE
    out[L.HAS_INCOMP] = model.HAS_INCOMPRESSIBLE
    out[L.ROOT_OBJCG] = model.ROOT_OBJCG
    out[L.HAS_MTHP] = model.HAS_MTHP_ZSWPOUT
    out[L.SHRINK_BUDGET] = model.SHRINK_BUDGET
    out[L.MAPS_FAILURE] = not model.WRITEBACK_SAYS_WHY
    out[L.SIZE_READ] = column("zswap_decompress", "size")
    out[L.SIZE_FREED], out[L.REF_FREED] = column("zswap_entry_free", "size"), column("zswap_entry_free", "ref")
    out[L.WORD_MALLOC], out[L.WORD_FREE] = column("zs_malloc_ret", "obj"), column("zs_free", "obj")
    out[L.DATA_WRITTEN], out[L.SIZE_OBJ_READ] = column("zs_obj_write", "data"), column("zs_obj_read", "size")
    out[L.SEES_PAGES_FREE] = engine.state.sees_zspage_free()
    out[L.SEES_MAY] = "obj_cgroup_may_zswap_ret" in engine.state.captured
    out[L.WORD_LOADED], out[L.WORD_WRITTEN] = column("zswap_load_ret", "word"), column("__swap_writepage", "word")
    out[L.SEES_REPARENT] = "memcg_reparent_list_lrus" in engine.state.captured
    out[L.SEES_COUNT] = {"zswap_shrinker_count", "zswap_shrinker_count_ret"} <= engine.state.captured
    out[L.KEEP_WRITES] = engine.zsmalloc.keep_writes
