# SPDX-License-Identifier: GPL-2.0-or-later
"""What the compiled replay can tell: the mainline revisions, and those that change no step of them."""

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

if TYPE_CHECKING:
    from replay.engine import Engine

__all__ = ["compiled_base", "setup", "why_not"]

#: What a revision may set without changing a step.
_DATA: Final = frozenset({
    "mirrors", "kernel_line", "crypto_layer", "compress_call", "SHRINK_BUDGET", "ROOT_OBJCG", "HAS_INCOMPRESSIBLE",
    "SG_READS", "READS_SLOTS", "LOAD_RETURNS_BOOL", "HAS_MTHP_ZSWPOUT"})
#: The classes whose steps are compiled, most special first.
_COMPILED: Final = (Mainline612, Mainline618, Mainline70, Mainline71, Mainline72, Mainline73, Zswap)
_DETAILS: Final = frozenset({"__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__",
                             "__abstractmethods__", "_abc_impl", "__annotations__", "__annotate__", "__annotate_func__",
                             "__annotations_cache__", "__dict__", "__weakref__", "__parameters__"})
#: Steps as they were when they were compiled: somebody who puts others in their place gets the reference.
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
    kind = type(engine.model)
    base, step = compiled_base(kind)
    if base is None:
        return f"revision {kind.__name__} has a step of its own ({step})"
    if engine.observe is not None:
        return "every effect is to be shown"
    predictions = engine.predictions
    if predictions.inexact or any(isinstance(c, ModelledCompressor) for c in predictions.compressors.values()):
        return "lengths are held against what is not exact here"
    missing = {"crypto_acomp_compress", "crypto_acomp_compress_ret"} - engine.captured
    if missing:
        return f"{min(missing)} was not probed"
    if "obj_cgroup_charge_zswap" in engine.captured \
            and "memcg" not in engine.columns_of["obj_cgroup_charge_zswap"]:
        return "cgroups were not recorded with their charges"
    failing = [name for name in ("?entry_alloc", "?xa_store") if name not in engine.constant]
    if failing:
        return "slab or tree ran out of memory, which only counters tell"
    return ""


def setup(engine: Engine, out: np.ndarray) -> None:
    """Say in numbers how the revision and the recording are: see :mod:`replay.fast.layout`."""
    model, has = engine.model, engine.columns_of
    base, _ = compiled_base(type(model))
    old = base is Mainline612

    def column(event: str, name: str) -> bool:
        return name in has.get(event, ())

    out[L.KIND_612] = old
    out[L.KIND_CACHED] = base in (Mainline612, Mainline618)
    out[L.HAS_INCOMP] = model.HAS_INCOMPRESSIBLE
    out[L.ROOT_OBJCG] = model.ROOT_OBJCG
    out[L.HAS_MTHP] = model.HAS_MTHP_ZSWPOUT
    out[L.SHRINK_BUDGET] = model.SHRINK_BUDGET
    out[L.TRYLOCKS] = model.pools[0].zs_pool.compaction_trylocks
    out[L.MAPS_FAILURE] = base is not None and (old or issubclass(base, Mainline71))
    out[L.SIZE_READ] = column("zswap_decompress", "size")
    out[L.SIZE_FREED], out[L.REF_FREED] = column("zswap_entry_free", "size"), column("zswap_entry_free", "ref")
    out[L.WORD_MALLOC], out[L.WORD_FREE] = column("zs_malloc_ret", "obj"), column("zs_free", "obj")
    out[L.DATA_WRITTEN], out[L.SIZE_OBJ_READ] = column("zs_obj_write", "data"), column("zs_obj_read", "size")
    out[L.SEES_PAGES_FREE] = engine.sees_zspage_free()
    out[L.SEES_MAY] = "obj_cgroup_may_zswap_ret" in engine.captured
    out[L.SEES_REPARENT] = "memcg_reparent_list_lrus" in engine.captured
    out[L.SEES_COUNT] = {"zswap_shrinker_count", "zswap_shrinker_count_ret"} <= engine.captured
    out[L.KEEP_WRITES] = engine.keep_writes
