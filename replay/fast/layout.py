# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the compiled replay keeps what: states of operations, columns of its rows, places of its scalars.

All of it is plain integers, which Numba takes as constants.  A *state* is a place at which a generator of the model
(:mod:`model.zswap` and its siblings) is suspended: at an effect, which an event of that name matches, or at a
question, which the next event of the task answers.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from model.branches import BRANCHES
from model.counters import DEBUGFS, VMSTAT
from model.zsmalloc import FIND as _FIND
from model.zsmalloc import ISOLATE_DST, ISOLATE_SRC, RATIO_100
from replay.reference.checks import CHECKS, DRIVER_CHECKS
from replay.reference.totals import REMEMBERED
from traces import schema

# ---- states: (name, event of the effect, or the question, or "-" for a step without either) ----------------
_STATES: Final = (
    ("END", "-"),
    # swap_writeout()
    ("W_START", "swap_writeout"), ("W_WHAT", "?swap_writeout"), ("W_ENABLED", "mem_cgroup_zswap_writeback_enabled_ret"),
    ("W_PAGE", "__swap_writepage"), ("W_RET", "swap_writeout_ret"),
    # zswap_store()
    ("S_START", "zswap_store"), ("S_OBJCG", "?objcg"), ("S_MAY", "obj_cgroup_may_zswap_ret"), ("S_LIMITS", "-"),
    ("S_TOTAL", "zs_get_total_pages_ret"), ("S_NEXT", "-"), ("S_FAIL", "-"), ("S_ERASE", "-"),
    ("S_RET", "zswap_store_ret"),
    # one page of it
    ("P_COMPRESS", "crypto_acomp_compress"), ("P_COMPRESS_RET", "crypto_acomp_compress_ret"),
    ("P_ENABLED", "mem_cgroup_zswap_writeback_enabled_ret"), ("P_MALLOC", "zs_malloc"), ("P_MALLOC_ERR", "?zs_malloc"),
    ("P_MALLOC_NEW", "?new_zspage"), ("P_TAKE", "-"), ("P_OBJ", "obj_malloc"), ("P_OBJ_RET", "obj_malloc_ret"),
    ("P_FULL", "fix_fullness_group"), ("P_FULL_RET", "fix_fullness_group_ret"), ("P_MALLOC_RET", "zs_malloc_ret"),
    ("P_WRITE", "zs_obj_write"), ("P_MAP", "zs_obj_read"), ("P_PUBLISH", "-"), ("P_PUBLISHED", "-"),
    ("P_CHARGE", "obj_cgroup_charge_zswap"), ("P_CHARGED", "-"), ("P_LRU", "list_lru_add"),
    ("P_LRU_RET", "list_lru_add_ret"),
    # zswap_entry_free(), zs_free()
    ("F_START", "zswap_entry_free"), ("F_LRU", "list_lru_del"), ("Z_START", "zs_free"), ("Z_CLASS_LOCK", "?class_lock"),
    ("Z_OBJ", "obj_free"),
    ("Z_FULL", "fix_fullness_group"), ("Z_FULL_RET", "fix_fullness_group_ret"), ("Z_LOCK", "?trylock_zspage"),
    ("Z_PAGES", "__free_zspage"), ("Z_DONE", "-"), ("F_UNCHARGE", "obj_cgroup_uncharge_zswap"), ("F_DONE", "-"),
    # zswap_load(), zswap_decompress(), zswap_invalidate()
    ("L_START", "zswap_load"), ("L_CACHED", "?swapcache"), ("L_FREE", "-"), ("L_RET", "zswap_load_ret"),
    ("I_START", "zswap_invalidate"),
    ("D_START", "zswap_decompress"), ("D_READ", "zs_obj_read"), ("D_CALL", "crypto_acomp_decompress"),
    ("D_CALL_RET", "crypto_acomp_decompress_ret"), ("D_GOOD", "-"), ("D_BAD", "-"),
    # zs_shrinker_scan(), zs_compact(), async_free_zspage()
    ("C_SCAN", "zs_shrinker_scan"), ("C_COMPACT", "zs_compact"), ("C_FLAG", "?compacting"), ("C_NEXT", "-"),
    ("C_CLASS", "__zs_compact"), ("C_LOOP", "?compact_end"), ("C_MOVE", "-"), ("C_OBJ", "obj_malloc"),
    ("C_OBJ_RET", "obj_malloc_ret"),
    ("C_FREE", "obj_free"), ("C_MOVED", "-"), ("C_PAGES_LOCK", "?trylock_zspage"), ("C_PAGES", "__free_zspage"),
    ("C_AFTER", "-"),
    ("C_CLASS_RET", "__zs_compact_ret"), ("C_COMPACT_RET", "zs_compact_ret"), ("C_SCAN_RET", "zs_shrinker_scan_ret"),
    ("A_START", "async_free_zspage"), ("A_NEXT", "-"), ("A_PAGES", "__free_zspage"),
    # shrink_memcg(), zswap_shrinker_scan(), shrink_worker(), the LRU walk, writeback
    ("M_START", "shrink_memcg"), ("M_ENABLED", "mem_cgroup_zswap_writeback_enabled_ret"), ("M_ONLINE", "?memcg_online"),
    ("M_RET", "shrink_memcg_ret"),
    ("N_START", "zswap_shrinker_scan"), ("N_ENABLED", "mem_cgroup_zswap_writeback_enabled_ret"),
    ("N_RET", "zswap_shrinker_scan_ret"),
    ("K_START", "shrink_worker"), ("K_NEXT", "?shrink_next"), ("K_TOTALS", "-"), ("K_TOTAL", "zs_get_total_pages_ret"),
    ("K_RET", "shrink_worker_ret"),
    ("V_LOOP", "-"), ("V_NEXT", "?lru_next"), ("V_OTHER", "?lru_list"), ("V_ORDER", "-"), ("V_CB", "shrink_memcg_cb"),
    ("V_CB_RET", "shrink_memcg_cb_ret"), ("V_END", "-"),
    ("B_START", "zswap_writeback_entry"), ("B_CACHE", "?swap_cache_alloc"), ("B_PAGE", "__swap_writepage"),
    ("B_DONE", "-"),
    ("B_RET", "zswap_writeback_entry_ret"),
)
STATE_NAMES: Final = tuple(name for name, _ in _STATES)
#: state -> the question it stands at, "" for none
QUESTION_OF: Final = tuple(kind if kind[0] == "?" else "" for _, kind in _STATES)
(END,
 W_START, W_WHAT, W_ENABLED, W_PAGE, W_RET,
 S_START, S_OBJCG, S_MAY, S_LIMITS, S_TOTAL, S_NEXT, S_FAIL, S_ERASE, S_RET,
 P_COMPRESS, P_COMPRESS_RET, P_ENABLED, P_MALLOC, P_MALLOC_ERR, P_MALLOC_NEW, P_TAKE, P_OBJ, P_OBJ_RET,
 P_FULL, P_FULL_RET, P_MALLOC_RET, P_WRITE, P_MAP, P_PUBLISH, P_PUBLISHED, P_CHARGE, P_CHARGED, P_LRU, P_LRU_RET,
 F_START, F_LRU, Z_START, Z_CLASS_LOCK, Z_OBJ, Z_FULL, Z_FULL_RET, Z_LOCK, Z_PAGES, Z_DONE, F_UNCHARGE, F_DONE,
 L_START, L_CACHED, L_FREE, L_RET, I_START,
 D_START, D_READ, D_CALL, D_CALL_RET, D_GOOD, D_BAD,
 C_SCAN, C_COMPACT, C_FLAG, C_NEXT, C_CLASS, C_LOOP, C_MOVE, C_OBJ, C_OBJ_RET, C_FREE, C_MOVED, C_PAGES_LOCK,
 C_PAGES, C_AFTER, C_CLASS_RET, C_COMPACT_RET, C_SCAN_RET, A_START, A_NEXT, A_PAGES,
 M_START, M_ENABLED, M_ONLINE, M_RET, N_START, N_ENABLED, N_RET, K_START, K_NEXT, K_TOTALS, K_TOTAL, K_RET,
 V_LOOP, V_NEXT, V_OTHER, V_ORDER, V_CB, V_CB_RET, V_END, B_START, B_CACHE, B_PAGE, B_DONE,
 B_RET) = range(len(_STATES))
#: state -> code of the event that matches it, 0 for a question, -1 for a step without either
EFFECT: Final = np.array([0 if kind[0] == "?" else -1 if kind == "-" else schema.CODE[kind] for _, kind in _STATES],
                         np.int64)

#: the states of each module that steps through them
LAST_OF_STORE: Final = P_LRU_RET
LAST_OF_ENTRY: Final = D_BAD
LAST_OF_COMPACT: Final = A_PAGES
#: memory.zswap.max whose value is not known; a switch whose value is not known is -1
NO_LIMIT_SAID: Final = -2
#: in place of a state: only the reference can decide
UNKNOWN: Final = -1

# ---- rows of the heap, which is one array of int64: a row is named by where it begins, -1 names none -----------------
#: zswap_entry: GEN changes when the row is given to another entry, ABOUT is its cgroup, WHERE its list, SPAN_FROM and
#: SPAN_TO are events between which its list_lru_add() overlapped another (-1: none)
(E_SWPENT, E_LENGTH, E_OBJ, E_ABOUT, E_WHERE, E_REF, E_CONTENT, E_ADDRESS, E_PREV, E_NEXT, E_GEN, E_LIVE,
 E_SPAN_FROM, E_SPAN_TO, E_LISTED, E_WIDTH) = range(16)
#: ZsObject
(O_ADDRESS, O_SIZE, O_ZSPAGE, O_INDEX, O_NEXT, O_WIDTH) = range(6)
#: Zspage: its page frames from FRAMES on, its links from LINKS on, behind them (at PLACES) the object at each index
(Z_CLASS, Z_INUSE, Z_FREEOBJ, Z_GROUP, Z_ADDRESS, Z_PREV, Z_NEXT, Z_LISTED, Z_ALL, Z_PLACES, Z_FRAMES) = range(11)
MAX_CHAIN: Final = 16
Z_LINKS: Final = Z_FRAMES + MAX_CHAIN
#: size_class: SPARE heads the rows of dead zspages of the class, GROUP_OF is where the fullness group for each count of
#: objects in use begins, HEAD and what follows the fullness lists
(K_INDEX, K_SIZE, K_PAGES, K_OBJS, K_HUGE, K_WASTED, K_ALLOCATED, K_INUSE, K_ZSPAGES, K_DRY, K_ADDRESS, K_SPARE,
 K_GROUP_OF, K_HEAD) = range(14)
GROUPS: Final = RATIO_100 + 1
K_WIDTH: Final = K_HEAD + GROUPS
#: which fullness lists are looked through, and in what order, for room, for where to move objects and for what to empty
FIND, FIND_END, FIND_STEP = _FIND.start, _FIND.stop, _FIND.step
DST, DST_END, DST_STEP = ISOLATE_DST.start, ISOLATE_DST.stop, ISOLATE_DST.step
SRC, SRC_END, SRC_STEP = ISOLATE_SRC.start, ISOLATE_SRC.stop, ISOLATE_SRC.step
#: a cgroup as obj_cgroup names it (0: none), its account, its mem_cgroup (HAD: what it was, where it may be another's
#: by now) and what that was before the cgroup went away (0: nothing)
(G_OBJCG, G_HAS_ACCOUNT, G_INCOMPRESSIBLE, G_ZSWAP, G_ZSWAPPED, G_ZSWPIN, G_ZSWPOUT, G_ZSWPWB, G_HAS_MEMCG,
 G_MEMCG, G_HAD_MEMCG, G_WAS, G_NEXT, G_WIDTH) = range(14)
#: one list of the LRU
(R_NID, R_MEMCG, R_HEAD, R_TAIL, R_COUNT, R_ALIVE, R_NEXT, R_WIDTH) = range(8)
#: a task; ADDING and MOVING are the entries of a list_lru_add() and of a walk's move under way, or -1
(T_PID, T_TOP, T_FOREIGN, T_COUNTING, T_FIRST, T_UNSURE, T_ADDING, T_ADDED_AT, T_MOVING, T_MOVED_AT,
 T_UNSURE_LENGTH, T_UNSURE_ABOUT, T_LAST, T_NEXT, T_WIDTH) = range(15)
#: a running operation: registers; NODES has a bit for each NUMA node that shrink_memcg() has still to walk,
#: READING says that a page was read back and no event has followed yet
(Q_OP, Q_STATE, Q_WAITS, Q_START, Q_UP, Q_TASK, Q_SWPENT, Q_FOLIO, Q_ORDER, Q_INDEX, Q_ENTRY, Q_OBJ, Q_ZSPAGE,
 Q_CLASS, Q_HAS_OBJCG, Q_LENGTH, Q_CONTENT, Q_RAW, Q_ERROR, Q_ANSWERED, Q_ANSWER, Q_ANSWER2, Q_EXPECTED, Q_VALUE,
 Q_FREED, Q_THEN, Q_PLACE, Q_NEW, Q_DRY, Q_TOTALS, Q_FIRST_OBJCG, Q_INFLIGHT, Q_FULLNESS, Q_READ, Q_READ_THEN,
 Q_CLASS_AT, Q_DST, Q_SRC, Q_AT, Q_CLASS_FREED, Q_POOL_FREED, Q_MEMCG, Q_NID, Q_LIST, Q_BUDGET,
 Q_REMOVED, Q_ALONE, Q_WALK, Q_MET, Q_VICTIM, Q_GEN, Q_WRITTEN, Q_FAILURES, Q_ATTEMPTS, Q_THRESHOLD,
 Q_LISTED_AS, Q_VICTIM_SWPENT, Q_SHRINK_THEN, Q_NODES, Q_SCANNED, Q_KEPT, Q_READING, Q_VICTIM_FOLIO, Q_DIRTIED,
 Q_WIDTH) = range(65)
#: where zswap_entry_free() was called from
THEN_PUBLISHED, THEN_ERASE, THEN_LOADED, THEN_END, THEN_WRITE = range(5)
#: where shrink_memcg() was called from
SHRINK_ALONE, SHRINK_IN_STORE, SHRINK_IN_WORKER = range(3)

# ---- the beginning of the heap: scalars ----------------------------------------------------------------------------
#: counters in the order of model.counters, then what decides
COUNTERS: Final = (*DEBUGFS, *VMSTAT)
(N_LIMIT_HIT, N_RECLAIM_FAIL, N_ALLOC_FAIL, N_KMEMCACHE_FAIL, N_COMPRESS_FAIL, N_COMPRESS_POOR, N_DECOMPRESS_FAIL,
 N_WRITTEN_BACK, N_STORED, N_INCOMPRESSIBLE, N_ZSWPIN, N_ZSWPOUT, N_ZSWPWB, N_SWPOUT_ZERO, N_PSWPIN,
 N_PSWPOUT) = range(len(COUNTERS))
N_MTHP: Final = 16
_ORDERS: Final = 12
#: _AT and _MASK of a hash table follow each other; of chains of rows (accounts, LRUs, tasks) _LAST follows the first
(PAGES, COMPACTED, COMPACTING, ENABLED, MAX_PAGES, ACCEPT_PAGES, REACHED_FULL, ZSWAP_MAX, WRITEBACK, WAS_OFF, SHRINKER,
 UNTOLD, POOL_ENTRIES, POOL_ADDRESS, LRU_ADDRESS, ROOT_MEMCG, ENTRY_TO_LRU, IDX_BITS, CLASS_BITS, HAS_STATE,
 TOP, LENGTH, ENTRIES_LIVE, ENTRIES_SPARE, OBJECTS_LIVE, OBJECTS_SPARE, ZSPAGES, FRAMES, FRAMES_SPARE,
 ACCOUNTS, ACCOUNTS_LAST, LISTS, LISTS_LAST, TASKS, TASKS_LAST, TASK_COUNT, CHANGES, TOTALS, NOW, WINDOW, UNSURE,
 ADDING, SEEN_INLINED, PREEMPTED, REORDERED, READS_ONE, READS_TWO, QUIET_AT, WHY, WRITES, TREE, ADDRESSES, TOTAL_AT,
 TOTAL_READ, TREE_AT, TREE_MASK, HANDLES_AT, HANDLES_MASK, ADDRESSES_AT, ADDRESSES_MASK, TASKS_AT, TASKS_MASK,
 HISTORY_AT, HISTORY_MASK, TOTALS_AT,
 KIND_612, KIND_CACHED, HAS_INCOMP, ROOT_OBJCG, HAS_MTHP, SHRINK_BUDGET, MAPS_FAILURE,
 SIZE_READ, SIZE_FREED, REF_FREED, WORD_MALLOC, WORD_FREE, DATA_WRITTEN, SIZE_OBJ_READ, SEES_PAGES_FREE,
 SEES_MAY, SEES_COUNT, KEEP_WRITES, UNKNOWN_LIMIT, UNKNOWN_WRITEBACK, NOBODY_S_LIMIT, NOBODY_S_WRITEBACK,
 SAYS_WHOSE, SAYS_WHOSE_WRITEBACK, SETTING_AT, CGROUPS_AT,
 CGROUPS_MASK) = range(N_MTHP + _ORDERS, N_MTHP + _ORDERS + 92)
#: how often each check compared, each explanation was given; which events were captured (by code); the row of each raw
#: size class; the rows of the distinct ones, largest first
COMPARED: Final = 128
EXPLAINED: Final = COMPARED + 64
CAPTURED: Final = EXPLAINED + 16
CLASS_OF: Final = CAPTURED + 256
DESCENDING: Final = CLASS_OF + 256
#: how often each branch of the model was taken
BRANCHED: Final = DESCENDING + 256
#: what the worker's passes have shown (:mod:`replay.fast.cursor`): room for this many cgroups in each of two passes
WORKER_ROOM: Final = 48
(WORKER_ROOT, WORKER_RESTS, WORKER_ENDED, WORKER_WHOLE, WORKER_HIGH, WORKER_CAME, WORKER_KNOWN, SEES_REPARENT,
 WORD_LOADED, WORD_WRITTEN, WRITTEN_BACK, MARKED_FOR_RECLAIM,
 WORKER_CURRENT) = range(BRANCHED + 128, BRANCHED + 128 + 13)
WORKER_BEFORE: Final = WORKER_CURRENT + WORKER_ROOM
#: which states' questions were answered from events
ASKED: Final = WORKER_BEFORE + WORKER_ROOM
SCALARS: Final = ASKED + 128

_BRANCH: Final = {name: number for number, name in enumerate(BRANCHES)}


def branch(name: str) -> int:
    """Return where a branch of the model is counted.

    :raises KeyError: for a name that :data:`model.branches.BRANCHES` does not have
    """
    return BRANCHED + _BRANCH[name]


# ---- checks and explanations, as the compiled loop counts them ---------------------------------------------------
CHECK_IDS: Final = tuple(check for check in CHECKS if check not in DRIVER_CHECKS)
#: check -> where it is counted, for those that the compiled loop counts
_PLACE: Final = {check: number for number, check in enumerate(CHECK_IDS)}
(H_ORDER, H_WRITEOUT, H_RESULT, H_LENGTH, H_ERROR, H_RAW, H_BYTES, H_CALLS, H_BATCH, H_SIZE, H_PAGES, H_PLACE,
 H_FULLNESS, H_COMPACT, H_HANDLE, H_SG, H_LOAD, H_ENTRY, H_FOLIO, H_WRITTEN, H_CONTENT, H_WORKLOAD, H_FREE, H_LRU,
 H_WORKER, H_CHARGE, H_LIMIT, H_WRITEBACK, H_INV_LOAD, H_INV_LENGTH, H_INV_RAW, H_INV_HANDLE, H_INV_BALANCE) = (
    _PLACE[check] for check in (
        "effect.order", "swap.writeout", "store.result", "store.length", "store.error", "store.raw", "store.bytes",
        "acomp.calls", "acomp.batch", "zsmalloc.size", "zsmalloc.pages", "zsmalloc.place", "zsmalloc.fullness",
        "zsmalloc.compact", "zsmalloc.handle", "sg.shape", "load.result", "load.entry", "load.folio", "writeback.folio",
        "load.content", "load.workload", "free.entry", "lru.order", "shrink.worker", "memcg.charge", "memcg.limit",
        "memcg.writeback", "invariant.load", "invariant.length", "invariant.raw", "invariant.handle",
        "invariant.balance"))
EXPLANATIONS: Final = ("another LRU", "reading of totals", "outside event", "zswap_shrinker_count()",
                       "return of a call from before the recording")
(X_LRU, X_TOTALS, X_OUTSIDE, X_COUNTING, X_BEFORE) = range(len(EXPLANATIONS))

#: why the compiled loop came back: all events done, a note to take, tables to enlarge, something only the reference
#: can decide
(DONE, NOTE, GROW, ODD) = range(4)

#: what has to be free for 16 events: slots of hash tables, and words at the end of the heap
ROOM: Final = 48
HEAP_ROOM: Final = 1 << 15
#: rows of the reference engine's batches: what a reader may have seen "since its previous event" reaches no further
BATCH: Final = 1 << 15
#: how many changes of a total are remembered, as in :mod:`replay.reference.totals`
TOTALS_ROOM: Final = REMEMBERED
