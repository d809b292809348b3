# SPDX-License-Identifier: GPL-2.0-or-later
"""Events checked against the effects that the compiled operations stand at: Engine.step() and the handlers, compiled.

Each comparison is the one that the handler of that name makes (:mod:`replay.reference.handlers.zswap` and its
siblings).  A difference is never judged here: the loop stops before it counts for anything, and the reference
decides.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from model.page import PAGE_SIZE
from model.swap import PG_DIRTY, PG_RECLAIM, PG_UPTODATE
from model.zsmalloc import HANDLE_SIZE
from replay.fast import layout as L
from replay.fast.advance import ENDED, UNKNOWN, advance
from replay.fast.bound import (
    class_differs,
    entry_differs,
    frame_differs,
    read_before,
    zspage_differs,
    zspage_word,
)
from replay.fast.fingerprint import fingerprint
from replay.fast.rows import several_accounts
from replay.fast.settings import MOMENT, NOBODY, setting_of
from replay.fast.tables import account_of, bare, forget, keep
from replay.fast.tasks import (
    begins,
    ends,
    is_quiet,
    is_under_way,
    learn_memcg,
    may_be_anothers,
    operation,
    popped,
    reparent,
    settle,
    task_of,
)
from replay.reference import engine
from replay.reference.handlers.acomp import STRUCT_PAGE
from replay.reference.settings import EVENTS as SETTINGS
from traces import schema

__all__ = ["QUIET", "SETTLE", "run"]

#: in place of a row to stop at: only say whether no operation is under way; only advance operations
QUIET: Final = -2
SETTLE: Final = -1

_EV: Final = schema.CODE


def _flags(names: Any) -> np.ndarray:
    out = np.zeros(256, np.bool_)
    out[[_EV[name] for name in names]] = True
    return out


_STARTS: Final = _flags(engine.STARTS)
_ANYWHERE: Final = _flags(engine.ANYWHERE)
_OUTSIDE: Final = _flags(engine.OUTSIDE)
_SETTING: Final = _flags(set(SETTINGS))
_RETURNS: Final = _flags({name for name in _EV if name.endswith("_ret")})
_READINGS: Final = _flags(engine.READINGS)
_EAGER: Final = _flags(engine.EAGER)
#: the only function that is inlined in places: what is said of it stands in one scalar
(_INLINED,) = (_EV[name] for name in engine.INLINED)
_INLINED_RET: Final = _EV[f"{schema.NAMES[_INLINED]}_ret"]
_LRU_ADD, _LRU_ADD_RET, _LRU_DEL = _EV["list_lru_add"], _EV["list_lru_add_ret"], _EV["list_lru_del"]
_ZSWAP_TOTAL, _POOL_TOTAL = _EV["zswap_total_pages_ret"], _EV["zs_get_total_pages_ret"]
_MARKER, _COUNTERS, _PARAM, _LOST = _EV["marker"], _EV["counters"], _EV["param"], _EV["lost_events"]
_MIGRATE, _REPARENT = _EV["zs_page_migrate"], _EV["memcg_reparent_list_lrus"]
_SHRINKER_COUNT, _SHRINKER_COUNT_RET = _EV["zswap_shrinker_count"], _EV["zswap_shrinker_count_ret"]
_ENABLED, _MAY = _EV["mem_cgroup_zswap_writeback_enabled_ret"], _EV["obj_cgroup_may_zswap_ret"]
_WRITEOUT, _WRITEOUT_RET, _WRITEPAGE = _EV["swap_writeout"], _EV["swap_writeout_ret"], _EV["__swap_writepage"]
_STORE, _STORE_RET = _EV["zswap_store"], _EV["zswap_store_ret"]
_LOAD, _LOAD_RET, _INVALIDATE = _EV["zswap_load"], _EV["zswap_load_ret"], _EV["zswap_invalidate"]
_DECOMPRESS, _FREE_ENTRY = _EV["zswap_decompress"], _EV["zswap_entry_free"]
_COMPRESS, _COMPRESS_RET = _EV["crypto_acomp_compress"], _EV["crypto_acomp_compress_ret"]
_INFLATE, _INFLATE_RET = _EV["crypto_acomp_decompress"], _EV["crypto_acomp_decompress_ret"]
_CHARGE, _UNCHARGE = _EV["obj_cgroup_charge_zswap"], _EV["obj_cgroup_uncharge_zswap"]
_ZS_MALLOC, _ZS_MALLOC_RET, _ZS_FREE = _EV["zs_malloc"], _EV["zs_malloc_ret"], _EV["zs_free"]
_WRITE, _READ = _EV["zs_obj_write"], _EV["zs_obj_read"]
_OBJ_MALLOC, _OBJ_MALLOC_RET, _OBJ_FREE = _EV["obj_malloc"], _EV["obj_malloc_ret"], _EV["obj_free"]
_FULL, _FULL_RET, _PAGES_FREE = _EV["fix_fullness_group"], _EV["fix_fullness_group_ret"], _EV["__free_zspage"]
_SCAN, _SCAN_RET = _EV["zs_shrinker_scan"], _EV["zs_shrinker_scan_ret"]
_COMPACT, _COMPACT_RET = _EV["zs_compact"], _EV["zs_compact_ret"]
_CLASS, _CLASS_RET = _EV["__zs_compact"], _EV["__zs_compact_ret"]
_ASYNC, _WORKER, _SHRINK, _SHRINK_RET = (_EV["async_free_zspage"], _EV["shrink_worker"], _EV["shrink_memcg"],
                                         _EV["shrink_memcg_ret"])
_SHRINKER, _SHRINKER_RET = _EV["zswap_shrinker_scan"], _EV["zswap_shrinker_scan_ret"]
_CB, _CB_RET = _EV["shrink_memcg_cb"], _EV["shrink_memcg_cb_ret"]
_WRITEBACK, _WRITEBACK_RET = _EV["zswap_writeback_entry"], _EV["zswap_writeback_entry_ret"]


@njit(nogil=True, error_model="numpy")
def _is_nearly_full(m):
    """True where the next 16 events might not find room."""
    return m[L.TOP] + L.HEAP_ROOM > m[L.LENGTH] or 2 * (m[L.TREE] + L.ROOM) > m[L.TREE_MASK] \
        or 2 * (m[L.OBJECTS_LIVE] + L.ROOM) > m[L.HANDLES_MASK] \
        or 2 * (m[L.ADDRESSES] + L.ROOM) > m[L.ADDRESSES_MASK] or 2 * (m[L.TASK_COUNT] + L.ROOM) > m[L.TASKS_MASK]


def _make(stands_for: int) -> Any:
    """Return the compiled loop.

    Numba keeps compiled code by the file of the function it was asked for; that this function refers to a number
    that stands for all files it is made of makes a change in any of them compile it anew.
    """

    def run(start, stop, base, event, pid, swpent, folio, entry, handle, obj, zspage, pool, memcg, data, ret, size,
            dlen, offset, word, inuse, freeobj, order, ref, nid, content,
            heap, refs, errors, lengths, heads, raws, known, writes):
        """Hold the events of rows ``start`` to ``stop`` against what follows from the tables.

        Columns are those of a recording's segment, 64-bit ones as int64; ``base`` is the number of row 0's event.
        Returns (row, why): DONE, or NOTE, GROW, ODD at that row, of which for GROW nothing was done yet.  With QUIET or
        SETTLE for ``stop`` the row is 1 for yes.
        """
        m = bare(heap)
        m[L.WHY] = stands_for & 1
        if stop == QUIET:
            return 1 if is_quiet(m) else 0, L.DONE
        if stop == SETTLE:
            done = settle(m)
            return 1 if done else 0, L.DONE
        task = last_pid = np.int64(-1)
        for i in range(start, stop):
            if (i & 15 == 0 or i == start) and _is_nearly_full(m):
                return i, L.GROW
            code = event[i]
            m[L.NOW] = base + i
            if i & 255 == 0 and is_quiet(m):
                m[L.QUIET_AT] = base + i
            if pid[i] != last_pid or task < 0:
                last_pid = np.int64(pid[i])
                task = task_of(m, last_pid)
            m[task + L.T_LAST] = base + i
            if code == _LRU_ADD or code == _LRU_DEL:
                if pool[i] != m[L.LRU_ADDRESS]:
                    if code == _LRU_ADD:
                        m[task + L.T_FOREIGN] = 1
                    m[L.EXPLAINED + L.X_LRU] += 1
                    continue
                m[task + L.T_FOREIGN] = 0
            elif code == _LRU_ADD_RET and m[task + L.T_FOREIGN]:
                m[task + L.T_FOREIGN] = 0
                m[L.EXPLAINED + L.X_LRU] += 1
                continue
            if m[task + L.T_UNSURE]:
                m[task + L.T_UNSURE] = 0
                m[L.UNSURE] -= 1
            f = m[task + L.T_TOP]
            if code == _ZSWAP_TOTAL and f >= 0 and m[f + L.Q_TOTALS] >= 0:
                m[L.EXPLAINED + L.X_TOTALS] += 1
                m[L.COMPARED + L.H_PAGES] += 1
                if ret[i] != m[f + L.Q_TOTALS]:
                    m[L.WHY] = L.H_PAGES
                    return i, L.ODD
                m[f + L.Q_TOTALS] = -1
                continue

            # Once round for what the task is in, and once more where the event begins an operation that continues at
            # once.  `eager`: the event is explained, the operation advances to its next effect before any other event.
            matched, eager = False, False
            while True:
                while f >= 0:
                    at_question = False
                    if not eager:
                        m[f + L.Q_INFLIGHT] = 0
                        at_question = m[f + L.Q_WAITS] and L.EFFECT[m[f + L.Q_STATE]] == 0
                        if at_question and m[f + L.Q_STATE] == L.B_CACHE and _STARTS[code]:
                            break
                    if at_question or not m[f + L.Q_WAITS]:
                        # Without a name the operation advances to a question, with one past it.
                        state = advance(m, f, np.int64(code) if at_question else 0, handle[i], zspage[i], ret[i],
                                        memcg[i], entry[i])
                        if state == UNKNOWN:
                            m[L.WHY] = -1
                            return i, L.ODD
                        if state == ENDED:
                            f = popped(m, f)
                        if eager:
                            break
                        if state == ENDED or L.EFFECT[m[f + L.Q_STATE]] == 0:
                            continue
                    st = m[f + L.Q_STATE]
                    effect = L.EFFECT[st]
                    if effect != code:
                        if effect == _INLINED and not m[L.SEEN_INLINED]:
                            m[L.CAPTURED + _INLINED] = 0
                            m[L.CAPTURED + _INLINED_RET] = 0
                            m[f + L.Q_WAITS] = 0
                            m[f + L.Q_ANSWERED] = 0
                            continue
                        break
                    matched = True
                    # ---- the handlers ------------------------------------------------------------------------------
                    m[f + L.Q_WAITS] = 0
                    m[f + L.Q_ANSWERED] = 1
                    differs = False
                    check = L.H_ORDER
                    if code == _FULL:
                        check = L.H_FULLNESS
                        it = m[f + L.Q_ZSPAGE]
                        differs = zspage[i] != m[it + L.Z_ADDRESS] or inuse[i] != m[it + L.Z_INUSE] \
                            or word[i] != zspage_word(m, it) \
                            or class_differs(m, m[it + L.Z_CLASS], pool[i])
                        m[f + L.Q_FULLNESS] = it
                    elif code == _FULL_RET:
                        check = L.H_FULLNESS
                        differs = ret[i] != m[f + L.Q_VALUE]
                        if m[f + L.Q_VALUE] == 0 and m[f + L.Q_FULLNESS] >= 0:
                            number = m[m[f + L.Q_FULLNESS] + L.Z_CLASS]
                            m[f + L.Q_INFLIGHT] = -m[number + L.K_PAGES]
                    elif code == _LRU_DEL:
                        check = L.H_LRU
                        it = m[f + L.Q_FREED]
                        where = m[it + L.E_WHERE]
                        group = 0 if memcg[i] == m[L.ROOT_MEMCG] else memcg[i]
                        differs = where < 0 or entry[i] != m[it + L.E_ADDRESS] or nid[i] != m[where + L.R_NID] \
                            or group != m[where + L.R_MEMCG] or (m[L.ADDING] > 0 and is_under_way(m, it))
                        m[it + L.E_SPAN_FROM] = -1
                    elif code == _LRU_ADD:
                        check = L.H_LRU
                        it = m[f + L.Q_ENTRY]
                        m[it + L.E_ADDRESS] = entry[i]
                        group = 0 if memcg[i] == m[L.ROOT_MEMCG] else memcg[i]
                        about = m[it + L.E_ABOUT]
                        if about < 0:
                            about = account_of(m, 0)
                        if not m[about + L.G_HAS_MEMCG]:
                            learn_memcg(m, about, group)
                        differs = m[about + L.G_MEMCG] != group or entry[i] == 0
                        begins(m, it, task, L.T_ADDING)
                        m[f + L.Q_ANSWER] = group
                        m[f + L.Q_ANSWER2] = nid[i]
                    elif code == _LRU_ADD_RET:
                        check = L.H_LRU
                        ends(m, task, L.T_ADDING)
                        differs = ret[i] != m[f + L.Q_VALUE]
                    elif code == _COMPRESS:
                        check = L.H_CALLS
                        differs = folio[i] + offset[i] // PAGE_SIZE * STRUCT_PAGE \
                            != m[f + L.Q_FOLIO] + m[f + L.Q_INDEX] * STRUCT_PAGE or offset[i] % PAGE_SIZE != 0 \
                            or size[i] != PAGE_SIZE or dlen[i] != PAGE_SIZE
                        m[f + L.Q_CONTENT] = content[i]
                    elif code == _COMPRESS_RET:
                        check = L.H_LENGTH
                        m[L.COMPARED + L.H_LENGTH] -= 1
                        which = m[f + L.Q_CONTENT]
                        if 0 <= which < refs.shape[0] and known[refs[which]]:
                            m[L.COMPARED + L.H_LENGTH] += 1
                            m[L.COMPARED + L.H_ERROR] += 1
                            differs = ret[i] != errors[refs[which]] or dlen[i] != lengths[refs[which]]
                        m[f + L.Q_ANSWER] = ret[i]
                        m[f + L.Q_ANSWER2] = dlen[i]
                    elif code == _ZS_MALLOC:
                        check = L.H_SIZE
                        m[L.COMPARED + L.H_INV_LENGTH] += 1
                        differs = size[i] != m[f + L.Q_LENGTH] or size[i] == 0 or size[i] > PAGE_SIZE
                        if m[L.POOL_ADDRESS] == 0:
                            m[L.POOL_ADDRESS] = pool[i]
                        differs = differs or m[L.POOL_ADDRESS] != pool[i] or pool[i] == 0
                    elif code == _OBJ_MALLOC:
                        check = L.H_PLACE
                        it = m[f + L.Q_OBJ]
                        # 0 is not an address: the reference says so.
                        differs = zspage_differs(m, m[f + L.Q_ZSPAGE], zspage[i]) or handle[i] == 0
                        if m[it + L.O_ADDRESS] == 0:
                            m[L.COMPARED + L.H_HANDLE] += 1
                            m[L.COMPARED + L.H_INV_HANDLE] += 1
                            m[it + L.O_ADDRESS] = handle[i]
                            differs = keep(m, L.HANDLES_AT, handle[i], it) == 0 or differs
                        else:
                            differs = differs or m[it + L.O_ADDRESS] != handle[i]
                    elif code == _OBJ_MALLOC_RET:
                        check = L.H_PLACE
                        it = m[f + L.Q_ZSPAGE]
                        taken = m[m[f + L.Q_OBJ] + L.O_INDEX]
                        differs = zspage[i] != m[it + L.Z_ADDRESS] or word[i] != zspage_word(m, it) \
                            or inuse[i] != m[it + L.Z_INUSE] or handle[i] != m[m[f + L.Q_OBJ] + L.O_ADDRESS] \
                            or (m[it + L.Z_FREEOBJ] != -1 and freeobj[i] != m[it + L.Z_FREEOBJ]) \
                            or frame_differs(m, it, taken, obj[i])
                        if m[it + L.Z_INUSE] == 1 and not m[it + L.Z_LISTED]:
                            m[f + L.Q_INFLIGHT] = m[m[it + L.Z_CLASS] + L.K_PAGES]
                    elif code == _ZS_MALLOC_RET:
                        check = L.H_PLACE
                        if m[f + L.Q_VALUE]:
                            differs = handle[i] != m[f + L.Q_VALUE]
                        else:
                            it = m[f + L.Q_OBJ]
                            if m[it + L.O_ADDRESS] == 0 and not -PAGE_SIZE <= handle[i] < 0:
                                m[L.COMPARED + L.H_HANDLE] += 1
                                m[L.COMPARED + L.H_INV_HANDLE] += 1
                                m[it + L.O_ADDRESS] = handle[i]
                                differs = keep(m, L.HANDLES_AT, handle[i], it) == 0
                            differs = differs or handle[i] != m[it + L.O_ADDRESS] or size[i] != m[it + L.O_SIZE] \
                                or (m[L.WORD_MALLOC]
                                    and frame_differs(m, m[it + L.O_ZSPAGE], m[it + L.O_INDEX], obj[i]))
                    elif code == _WRITE:
                        check = L.H_RAW if m[f + L.Q_RAW] else L.H_BYTES
                        m[L.COMPARED + L.H_INV_HANDLE] += 1
                        # Of the steps compiled only P_ENABLED makes an object raw, behind the answer "allowed".
                        if m[f + L.Q_RAW] and m[L.CAPTURED + _ENABLED]:
                            m[L.COMPARED + L.H_INV_RAW] += 1
                        length = m[f + L.Q_LENGTH]
                        differs = handle[i] != m[m[f + L.Q_OBJ] + L.O_ADDRESS] or size[i] != length
                        which = m[f + L.Q_CONTENT]
                        if m[L.DATA_WRITTEN] and 0 <= which < refs.shape[0] and known[refs[which]]:
                            head = raws[refs[which]] if m[f + L.Q_RAW] else heads[refs[which]]
                            mask = -1 if length >= 8 else (1 << 8 * length) - 1
                            differs = differs or data[i] & mask != head & mask
                        if m[L.KEEP_WRITES]:
                            writes[m[L.WRITES], 0] = base + i
                            writes[m[L.WRITES], 1] = handle[i]
                            writes[m[L.WRITES], 2] = length
                            writes[m[L.WRITES], 3] = which
                            m[L.WRITES] += 1
                    elif code == _READ:
                        check = L.H_SG
                        m[L.COMPARED + L.H_INV_HANDLE] += 1
                        if m[f + L.Q_STATE] == L.P_MAP:
                            it, length = m[f + L.Q_OBJ], m[f + L.Q_LENGTH]
                        else:
                            which = m[f + L.Q_READ]
                            # Freed meanwhile: nothing of it may be looked at.
                            if m[which + L.E_GEN] != m[f + L.Q_GEN]:
                                m[L.WHY] = check
                                return i, L.ODD
                            it, length = m[which + L.E_OBJ], m[which + L.E_LENGTH]
                        number = m[m[it + L.O_ZSPAGE] + L.Z_CLASS]
                        place = m[number + L.K_SIZE] * m[it + L.O_INDEX]
                        lead = 0 if m[number + L.K_HUGE] else HANDLE_SIZE
                        two = place % PAGE_SIZE + lead + length > PAGE_SIZE
                        if two:
                            m[L.READS_TWO] += 1
                        else:
                            m[L.READS_ONE] += 1
                        differs = handle[i] != m[it + L.O_ADDRESS] or (m[L.SIZE_OBJ_READ] and size[i] != length) \
                            or lead + length > m[number + L.K_SIZE] \
                            or place // PAGE_SIZE + (1 if two else 0) >= m[number + L.K_PAGES]
                    elif code == _CHARGE:
                        check = L.H_CHARGE
                        if m[f + L.Q_FIRST_OBJCG] == 0:
                            m[f + L.Q_FIRST_OBJCG] = memcg[i]
                        differs = size[i] != m[m[f + L.Q_ENTRY] + L.E_LENGTH] \
                            or memcg[i] != m[f + L.Q_FIRST_OBJCG] or memcg[i] == 0
                        may_be_anothers(m, f, account_of(m, memcg[i]))
                        m[f + L.Q_ANSWER] = memcg[i]
                    elif code == _UNCHARGE:
                        check = L.H_CHARGE
                        it = m[f + L.Q_FREED]
                        differs = size[i] != m[it + L.E_LENGTH] \
                            or memcg[i] != m[m[it + L.E_ABOUT] + L.G_OBJCG]
                    elif code == _FREE_ENTRY:
                        check = L.H_FREE
                        it = m[f + L.Q_FREED]
                        differs = swpent[i] != m[it + L.E_SWPENT] \
                            or (m[L.SIZE_FREED] and size[i] != m[it + L.E_LENGTH]) \
                            or handle[i] != m[m[it + L.E_OBJ] + L.O_ADDRESS] \
                            or (m[L.REF_FREED] and ref[i] != m[it + L.E_REF]) or not m[it + L.E_LIVE] \
                            or entry_differs(m, it, entry[i])
                    elif code == _ZS_FREE:
                        check = L.H_HANDLE
                        m[L.COMPARED + L.H_INV_HANDLE] += 1
                        it = m[f + L.Q_OBJ]
                        differs = handle[i] != m[it + L.O_ADDRESS] or forget(m, L.HANDLES_AT, m[it + L.O_ADDRESS]) < 0 \
                            or (m[L.WORD_FREE] and frame_differs(m, m[it + L.O_ZSPAGE], m[it + L.O_INDEX], obj[i])) \
                            or (m[L.POOL_ADDRESS] != 0 and pool[i] != m[L.POOL_ADDRESS])
                    elif code == _OBJ_FREE:
                        check = L.H_PLACE
                        it = m[f + L.Q_ZSPAGE]
                        differs = size[i] != m[m[it + L.Z_CLASS] + L.K_SIZE] \
                            or frame_differs(m, it, m[f + L.Q_PLACE], obj[i])
                    elif code == _PAGES_FREE:
                        check = L.H_PLACE
                        it = m[f + L.Q_ZSPAGE]
                        differs = zspage[i] != m[it + L.Z_ADDRESS] \
                            or class_differs(m, m[it + L.Z_CLASS], pool[i])
                        m[f + L.Q_INFLIGHT] = -m[m[it + L.Z_CLASS] + L.K_PAGES]
                    elif code == _POOL_TOTAL:
                        check = L.H_PAGES
                        m[L.TOTAL_AT], m[L.TOTAL_READ] = base + i, ret[i]
                        if ret[i] != m[f + L.Q_VALUE]:
                            if read_before(m, ret[i], m[f + L.Q_VALUE], i, base, pid):
                                m[L.PREEMPTED] += 1
                            else:
                                differs = True
                        m[f + L.Q_ANSWER] = ret[i]
                        m[f + L.Q_TOTALS] = max(m[f + L.Q_TOTALS], 0) + ret[i]
                    elif code == _STORE:
                        m[L.COMPARED + L.H_ORDER] -= 1
                        differs = folio[i] != m[f + L.Q_FOLIO] or swpent[i] != m[f + L.Q_SWPENT] \
                            or order[i] != m[f + L.Q_ORDER]
                    elif code == _STORE_RET:
                        check = L.H_RESULT
                        differs = ret[i] != m[f + L.Q_VALUE]
                    elif code == _WRITEOUT_RET:
                        check = L.H_WRITEOUT
                        differs = ret[i] != m[f + L.Q_VALUE]
                    elif code == _WRITEPAGE:
                        check = L.H_WRITEOUT
                        if m[f + L.Q_STATE] == L.W_PAGE:
                            differs = folio[i] != m[f + L.Q_FOLIO] or swpent[i] != m[f + L.Q_SWPENT]
                        else:
                            differs = swpent[i] != m[f + L.Q_VICTIM_SWPENT] \
                                or (m[f + L.Q_VICTIM_FOLIO] != -1 and folio[i] != m[f + L.Q_VICTIM_FOLIO])
                            if m[L.WORD_WRITTEN]:
                                differs = differs or word[i] & PG_UPTODATE == 0
                                m[L.COMPARED + L.H_WRITTEN] += 1
                                m[L.WRITTEN_BACK] += 1
                                m[L.MARKED_FOR_RECLAIM] += word[i] & PG_RECLAIM != 0
                    elif code == _LOAD_RET or code == _WRITEBACK_RET:
                        check = L.H_LOAD
                        differs = ret[i] != m[f + L.Q_VALUE]
                        # Where zswap had the page: that is where it was read.
                        if code == _LOAD_RET and m[L.WORD_LOADED] and m[f + L.Q_VALUE] == m[L.KIND_612] \
                                and m[f + L.Q_READ] > 0:
                            wanted = PG_UPTODATE | PG_DIRTY if m[f + L.Q_DIRTIED] else PG_UPTODATE
                            differs = differs or word[i] & wanted != wanted
                            m[L.COMPARED + L.H_FOLIO] += 1
                    elif code == _DECOMPRESS:
                        check = L.H_ENTRY
                        ends(m, task, L.T_MOVING)
                        it = m[f + L.Q_READ]
                        differs = m[it + L.E_GEN] != m[f + L.Q_GEN] or swpent[i] != m[it + L.E_SWPENT] \
                            or handle[i] != m[m[it + L.E_OBJ] + L.O_ADDRESS] \
                            or (m[L.SIZE_READ] and size[i] != m[it + L.E_LENGTH]) \
                            or (not m[f + L.Q_READ_THEN] and folio[i] != m[f + L.Q_FOLIO]) \
                            or entry_differs(m, it, entry[i])
                        if m[f + L.Q_READ_THEN]:
                            m[f + L.Q_VICTIM_FOLIO] = folio[i]
                    elif code == _INFLATE:
                        check = L.H_LOAD
                        differs = size[i] != m[m[f + L.Q_READ] + L.E_LENGTH] or dlen[i] != PAGE_SIZE
                    elif code == _INFLATE_RET:
                        check = L.H_LOAD
                        differs = ret[i] != 0 or dlen[i] != PAGE_SIZE
                        m[f + L.Q_ANSWER] = ret[i]
                        m[f + L.Q_ANSWER2] = dlen[i]
                    elif code == _MAY or code == _ENABLED:
                        check = L.H_LIMIT if code == _MAY else L.H_WRITEBACK
                        if m[L.SAYS_WHOSE]:
                            said = setting_of(m, f, code == _MAY, pool[i] if code == _MAY else memcg[i])
                            if said == MOMENT:
                                m[L.WHY] = check
                                return i, L.ODD
                            if said == NOBODY:
                                m[L.NOBODY_S_LIMIT if code == _MAY else L.NOBODY_S_WRITEBACK] += 1
                            m[f + L.Q_EXPECTED] = said
                        if m[f + L.Q_EXPECTED] < 0:
                            m[L.COMPARED + check] -= 1
                            m[L.UNKNOWN_LIMIT if code == _MAY else L.UNKNOWN_WRITEBACK] += 1
                            if code == _MAY and not m[L.SAYS_WHOSE] and several_accounts(m):
                                m[L.NOBODY_S_LIMIT] += 1
                        else:
                            differs = ret[i] != m[f + L.Q_EXPECTED]
                        m[f + L.Q_ANSWER] = 1 if ret[i] else 0
                    elif code == _CB:
                        check = L.H_LRU
                        it = m[f + L.Q_VICTIM]
                        differs = entry[i] != m[it + L.E_ADDRESS]
                        m[it + L.E_SPAN_FROM] = -1
                        begins(m, it, task, L.T_MOVING)
                    elif code == _CB_RET or code == _SHRINK_RET or code == _SHRINKER_RET:
                        check = L.H_LRU
                        ends(m, task, L.T_MOVING)
                        differs = ret[i] != m[f + L.Q_VALUE]
                    elif code == _WRITEBACK:
                        check = L.H_LRU
                        differs = swpent[i] != m[f + L.Q_VICTIM_SWPENT]
                    elif code == _SHRINK:
                        m[L.COMPARED + L.H_ORDER] -= 1
                        m[f + L.Q_ANSWER] = memcg[i]
                    elif code == _COMPACT:
                        check = L.H_COMPACT
                        m[L.SEEN_INLINED] = 1
                        differs = m[L.POOL_ADDRESS] != 0 and pool[i] != m[L.POOL_ADDRESS]
                    elif code == _CLASS:
                        check = L.H_COMPACT
                        differs = class_differs(m, m[f + L.Q_CLASS], pool[i])
                    elif code == _CLASS_RET or code == _COMPACT_RET or code == _SCAN_RET:
                        check = L.H_COMPACT
                        differs = ret[i] != m[f + L.Q_VALUE]
                    else:
                        m[L.COMPARED + L.H_ORDER] -= 1
                        if code != _EV_WORKER_RET:
                            m[L.WHY] = -4
                            return i, L.ODD
                    m[L.COMPARED + check] += 1
                    # The page read back, looked at behind the same events as by Invariants.page_read(): it is the page
                    # stored.  Of the steps compiled D_READ decompresses nothing of just those objects that P_ENABLED
                    # made of the page itself (a whole page's length, not in 6.12, which has none and decompresses all);
                    # their bytes were compared when they were written, lengths at both ends, and of a decompression
                    # _INFLATE_RET takes nothing but success for a match.  What a refused store leaves is not here.
                    if m[f + L.Q_READING] and (code == _FREE_ENTRY or code == _LOAD_RET or code == _WRITEBACK_RET
                                               or code == _CB_RET or code == _SHRINK_RET or code == _SHRINKER_RET):
                        m[f + L.Q_READING] = 0
                        m[L.COMPARED + L.H_INV_LOAD] += 1
                    if differs:
                        m[L.WHY] = check
                        return i, L.ODD
                    if not _EAGER[code]:
                        break
                    eager = True
                if matched:
                    break
                # ---- Engine.outside_operation() -----------------------------------------------------------
                if _STARTS[code]:
                    if f < 0:
                        may = code != _STORE or not m[L.CAPTURED + _WRITEOUT]
                    else:
                        st = m[f + L.Q_STATE]
                        may = _ANYWHERE[code] or st == L.B_CACHE or (
                            code == _INVALIDATE and m[f + L.Q_OP] == _WRITEOUT and st == L.W_RET)
                    if not may:
                        m[L.WHY] = L.H_ORDER
                        return i, L.ODD
                    if m[L.WINDOW] and not settle(m):
                        m[L.WHY] = -2
                        return i, L.ODD
                    f = operation(m, code, task, base + i, L.END)
                    if code == _WRITEOUT or code == _STORE:
                        m[f + L.Q_STATE] = L.W_START if code == _WRITEOUT else L.S_START
                        m[f + L.Q_SWPENT] = swpent[i]
                        m[f + L.Q_FOLIO] = folio[i]
                        m[f + L.Q_ORDER] = order[i]
                        if order[i] > engine.MAX_ORDER:
                            m[L.WHY] = L.H_WRITEOUT
                            return i, L.ODD
                    elif code == _LOAD:
                        m[f + L.Q_STATE] = L.L_START
                        m[f + L.Q_SWPENT] = swpent[i]
                        m[f + L.Q_FOLIO] = folio[i]
                    elif code == _INVALIDATE:
                        m[f + L.Q_STATE] = L.I_START
                        m[f + L.Q_SWPENT] = swpent[i]
                    elif code == _SCAN or code == _COMPACT:
                        m[f + L.Q_STATE] = L.C_SCAN if code == _SCAN else L.C_COMPACT
                        # Of a pool that is not the one at hand only the reference knows anything.  zs_shrinker_scan()
                        # need not say which it is about; zs_compact() has to.
                        if m[L.POOL_ADDRESS] and pool[i] != m[L.POOL_ADDRESS] and (pool[i] or code == _COMPACT):
                            m[L.WHY] = L.H_COMPACT
                            return i, L.ODD
                        if code == _COMPACT:
                            m[L.COMPARED + L.H_COMPACT] += 1
                    elif code == _SHRINKER:
                        m[f + L.Q_STATE] = L.N_START
                        m[f + L.Q_BUDGET] = size[i]
                        m[f + L.Q_MEMCG] = memcg[i]
                        m[f + L.Q_NID] = nid[i]
                    elif code == _SHRINK:
                        m[f + L.Q_STATE] = L.M_START
                        m[f + L.Q_ANSWER] = memcg[i]
                    elif code == _WORKER:
                        m[f + L.Q_STATE] = L.K_START
                        m[f + L.Q_THRESHOLD] = m[L.ACCEPT_PAGES]
                    else:
                        m[f + L.Q_STATE] = L.A_START
                    if code != _INVALIDATE:
                        break
                    matched, eager = True, True
                    continue
                if code == _MARKER or (pid[i] == 0 and (code == _COUNTERS or code == _PARAM or code == _LOST)):
                    if (code == _MARKER or code == _COUNTERS) and not settle(m):
                        m[L.WHY] = -2
                        return i, L.ODD
                    return i, L.NOTE
                if _SETTING[code]:
                    return i, L.NOTE
                if _OUTSIDE[code]:
                    m[L.EXPLAINED + L.X_OUTSIDE] += 1
                    if code == _MIGRATE:
                        row = m[L.ZSPAGES]
                        while row >= 0:
                            for page in range(L.MAX_CHAIN):
                                m[row + L.Z_FRAMES + page] = -1
                            row = m[row + L.Z_ALL]
                    elif code == _SHRINKER_COUNT:
                        m[task + L.T_COUNTING] = 1
                    elif code == _SHRINKER_COUNT_RET:
                        m[task + L.T_COUNTING] = 0
                    break
                if code == _REPARENT:
                    m[L.EXPLAINED + L.X_OUTSIDE] += 1
                    reparent(m, memcg[i], pool[i] if pool[i] != m[L.ROOT_MEMCG] else 0)
                    break
                if code == _ENABLED:
                    if m[L.SEES_COUNT]:
                        counting = m[task + L.T_COUNTING] or m[task + L.T_FIRST] == base + i
                    else:
                        counting = m[L.SHRINKER] and not (
                            f >= 0 and L.EFFECT[m[f + L.Q_STATE]] == _ENABLED)
                    if counting:
                        m[L.EXPLAINED + L.X_COUNTING] += 1
                        break
                if f < 0:
                    if _READINGS[code]:
                        if not settle(m):
                            m[L.WHY] = -2
                            return i, L.ODD
                        m[L.COMPARED + L.H_PAGES] += 1
                        m[L.TOTAL_AT], m[L.TOTAL_READ] = base + i, ret[i]
                        if ret[i] != m[L.PAGES]:
                            if not read_before(m, ret[i], m[L.PAGES], i, base, pid):
                                m[L.WHY] = L.H_PAGES
                                return i, L.ODD
                            m[L.PREEMPTED] += 1
                        m[L.EXPLAINED + L.X_TOTALS] += 1
                        break
                    if code == _LRU_ADD_RET:
                        m[L.EXPLAINED + L.X_LRU] += 1
                        break
                    if _RETURNS[code] and not m[L.HAS_STATE] and m[task + L.T_FIRST] == base + i:
                        m[L.EXPLAINED + L.X_BEFORE] += 1
                        break
                m[L.WHY] = L.H_ORDER
                return i, L.ODD

        return stop, L.DONE

    try:
        return njit(nogil=True, cache=True, error_model="numpy")(run)
    except RuntimeError:  # nowhere to keep compiled code: half a minute more in every process
        return njit(nogil=True, error_model="numpy")(run)


_EV_WORKER_RET: Final = _EV["shrink_worker_ret"]


run = _make(fingerprint(_make))
