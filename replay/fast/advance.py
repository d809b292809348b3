# SPDX-License-Identifier: GPL-2.0-or-later
"""One operation from the effect it stands at to its next one: the steps of the mainline revisions, compiled.

What happens between two effects is in ``store``, ``entry``, ``compact`` and ``walk``: each branch there is what a
generator of the model does between two of its yields.  The state is named after the effect (or question) at which the
generator is suspended.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Final

from numba import njit

from replay.fast import layout as L
from replay.fast.compact import compact_step
from replay.fast.entry import entry_step
from replay.fast.store import store_step
from replay.fast.walk import walk_step
from traces import schema

__all__ = ["ENDED", "STANDS", "UNKNOWN", "advance"]

_OBJ_FREE: Final = schema.CODE["obj_free"]
#: what became of an operation: it has ended, it stands at an effect or question, or only the reference can decide
ENDED, STANDS, UNKNOWN = range(3)


@njit(nogil=True, error_model="numpy")
def advance(m, f, code, handle_at, zspage_at, ret_at, memcg_at, entry_at):
    """Run operation ``f`` to its next effect that was captured, or question; Engine.advance() compiled.

    :param code: of the event at hand, which answers questions; 0: wait at a question
    """
    st = m[f + L.Q_STATE]
    answered = m[f + L.Q_ANSWERED] if not m[f + L.Q_WAITS] else 0
    answer = m[f + L.Q_ANSWER]
    while True:
        # (Under which name a list is kept is asked of every empty one, and decides only where there is another.)
        if L.EFFECT[st] == 0 and st != L.V_OTHER \
                and not ((st == L.Z_LOCK or st == L.C_PAGES_LOCK) and not m[L.SEES_PAGES_FREE]):
            m[L.ASKED + st] = 1
        if st <= L.LAST_OF_STORE:
            st = store_step(m, f, st, code, answered, answer, handle_at, zspage_at)
        elif st <= L.LAST_OF_ENTRY:
            st = entry_step(m, f, st, code, answered, answer)
        elif st <= L.LAST_OF_COMPACT:
            st = compact_step(m, f, st, code)
        else:
            st = walk_step(m, f, st, code, answered, answer, ret_at, memcg_at, entry_at)
        if st <= L.END:
            return ENDED if st == L.END else UNKNOWN
        effect = L.EFFECT[st]
        if effect > 0:
            if m[L.CAPTURED + effect]:
                break
            answered = 0
        # Where no event would show whether a zspage's pages, or a lock, could be locked, nothing is waited for.
        elif effect == 0 and code == 0 and (m[L.SEES_PAGES_FREE] or not (st == L.Z_LOCK or st == L.C_PAGES_LOCK)) \
                and (st != L.Z_CLASS_LOCK or m[L.CAPTURED + _OBJ_FREE]):
            break
    m[f + L.Q_STATE] = st
    m[f + L.Q_WAITS] = 1
    return STANDS
