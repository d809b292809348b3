# SPDX-License-Identifier: GPL-2.0-or-later
"""What settings of all cgroups decide by themselves, as the compiled replay looks it up
(:mod:`replay.reference.settings`)."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numba import njit

from replay.fast import layout as L
from replay.fast import tables
from replay.fast.tables import find

if TYPE_CHECKING:
    from replay.fast.memory import Heap
    from replay.reference.engine import Engine

__all__ = ["MOMENT", "NOBODY", "setting_of", "take_settings"]

#: the moment decides, or what the reference alone knows; nothing says whose setting it is
MOMENT: Final = -2
NOBODY: Final = -3
_MOST: Final = 1 << 62


@njit(nogil=True, error_model="numpy")
def setting_of(m, f, limit, pointer):
    """Return what a mem_cgroup's memory.zswap.max (``limit``) or .writeback decide for operation ``f``.

    1 or 0, -1 where nothing says what the setting is, NOBODY where nothing says whose it is, MOMENT where the reference
    has to say.
    """
    if not limit and (m[L.ENABLED] == 0 or (pointer == 0 and m[L.SAYS_WHOSE_WRITEBACK])):
        return 1
    if not limit and not m[L.SAYS_WHOSE_WRITEBACK]:
        return NOBODY
    said = find(m, L.CGROUPS_AT, pointer)
    if said < 0:
        return NOBODY
    if m[L.SETTING_AT] >= m[f + L.Q_START]:
        # A setting changed since the operation began.
        return MOMENT
    return (said & 3 if limit else said >> 2) - 2


def take_settings(memory: Heap, engine: Engine) -> None:
    """Write down what is known of all cgroups; their table is made anew."""
    settings, s = engine.state.settings, memory.m
    s[L.SAYS_WHOSE] = settings.whose
    if not settings.whose:
        return
    s[L.SAYS_WHOSE_WRITEBACK] = "memcg" in engine.state.columns_of.get("mem_cgroup_zswap_writeback_enabled_ret", ())
    s[L.SETTING_AT] = _MOST if settings.leaving or len(settings.enabled(engine.state.model)) > 1 else settings.changed
    slots = 64
    while slots < 4 * len(settings.node_of):
        slots *= 2
    if s[L.CGROUPS_AT] < 0 or slots > s[L.CGROUPS_MASK] + 1:
        memory.rehash(L.CGROUPS_AT, slots)
        s = memory.m
    at, size = int(s[L.CGROUPS_AT]), int(s[L.CGROUPS_MASK]) + 1
    s[at + 1:at + 2 * size:2] = -1
    for pointer, cgroup in settings.node_of.items():
        limit, writeback = settings.static(cgroup, engine.state.model)
        key = np.array([pointer], np.uint64).view(np.int64)[0]
        tables.keep(s, L.CGROUPS_AT, key, limit + 2 | writeback + 2 << 2)
