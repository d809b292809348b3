# SPDX-License-Identifier: GPL-2.0-or-later
"""Events held against the effects that the compiled operations stand at: Engine.step() and the handlers, compiled.

Each comparison is the one that the handler of that name makes (:mod:`replay.handlers_zswap` and its siblings).  A
difference is never judged here: the loop stops before it counts for anything, and the reference has the word.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numba import njit

from replay.fast import layout as L
from replay.fast.advance import ENDED, UNKNOWN, advance
from replay.fast.tables import account_of, find, forget, keep, list_of
from traces import schema

__all__ = ["QUIET", "SETTLE", "run"]

#: in place of a row to stop at: only say whether no operation is under way; only let operations go on
QUIET: Final = -2
SETTLE: Final = -1

_EV: Final = schema.CODE


def _flags(names: Any) -> np.ndarray:
    out = np.zeros(256, np.bool_)
    out[[_EV[name] for name in names]] = True
    return out


_STARTS: Final = _flags({"swap_writeout", "zswap_store", "zswap_load", "zswap_invalidate", "zs_shrinker_scan",
                         "zs_compact", "shrink_worker", "shrink_memcg", "zswap_shrinker_scan", "async_free_zspage"})
_ANYWHERE: Final = _flags({"zs_shrinker_scan", "zs_compact", "zswap_shrinker_scan", "shrink_memcg"})
_OUTSIDE: Final = _flags({"zswap_folio_swapin", "zs_page_migrate", "zswap_pool_create", "zswap_pool_create_ret",
                          "zswap_shrinker_count", "zswap_shrinker_count_ret"})
_RETURNS: Final = _flags({name for name in _EV if name.endswith("_ret")})
_EAGER: Final = _flags({"obj_malloc_ret", "obj_free", "fix_fullness_group", "fix_fullness_group_ret", "__free_zspage",
                        "list_lru_del", "zswap_entry_free", "zswap_load_ret", "zswap_store_ret", "swap_writeout_ret",
                        "zs_malloc", "zs_malloc_ret", "zs_compact_ret", "zswap_invalidate"})
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

_PAGE: Final = 4096
_STRUCT_PAGE: Final = 64
_MAGIC: Final = 0x58 << 14
_MAX_ORDER: Final = 10
_FOREVER: Final = 1 << 62
_UNBOUND: Final = -(1 << 62)


@njit(nogil=True)
def _task(pid, tasks, by_pid, s):
    """Return the row of a task, a new one for one not seen before."""
    row = find(by_pid, pid)
    if row < 0:
        row = s[L.TASKS]
        s[L.TASKS] += 1
        keep(by_pid, pid, row)
        tasks[row, :] = 0
        tasks[row, L.T_PID] = pid
        tasks[row, L.T_TOP] = -1
        tasks[row, L.T_ADDING] = -1
        tasks[row, L.T_MOVING] = -1
        tasks[row, L.T_FIRST] = s[L.NOW]
    return row


@njit(nogil=True)
def _frame(op, task, start, state, frames, tasks, s):
    """Return a new operation on top of a task's."""
    row = s[L.FRAMES_SPARE]
    if row >= 0:
        s[L.FRAMES_SPARE] = frames[row, L.Q_UP]
    else:
        row = s[L.FRAMES_TOP]
        s[L.FRAMES_TOP] += 1
    s[L.FRAMES] += 1
    frames[row, :] = 0
    frames[row, L.Q_OP] = op
    frames[row, L.Q_STATE] = state
    frames[row, L.Q_START] = start
    frames[row, L.Q_UP] = tasks[task, L.T_TOP]
    frames[row, L.Q_TASK] = task
    frames[row, L.Q_TOTALS] = -1
    frames[row, L.Q_FULLNESS] = -1
    frames[row, L.Q_ANSWERED] = 1
    tasks[task, L.T_TOP] = row
    return row


@njit(nogil=True)
def _pop(f, frames, tasks, s):
    """The task's innermost operation has ended; returns the one around it."""
    task, up = frames[f, L.Q_TASK], frames[f, L.Q_UP]
    tasks[task, L.T_TOP] = up
    frames[f, L.Q_OP] = 0
    frames[f, L.Q_INFLIGHT] = 0
    frames[f, L.Q_UP] = s[L.FRAMES_SPARE]
    s[L.FRAMES_SPARE] = f
    s[L.FRAMES] -= 1
    return up


@njit(nogil=True)
def _overlaps(entry, tasks, entries, s):
    """Questions.lru_adding(), but for the addition itself."""
    for task in range(s[L.TASKS]):
        for column, since in ((L.T_ADDING, L.T_ADDED_AT), (L.T_MOVING, L.T_MOVED_AT)):
            other = tasks[task, column]
            if other >= 0:
                if entries[other, L.E_SPAN_FROM] < 0:
                    entries[other, L.E_SPAN_FROM] = tasks[task, since]
                    entries[other, L.E_SPAN_TO] = _FOREVER
                if entries[entry, L.E_SPAN_FROM] < 0:
                    entries[entry, L.E_SPAN_FROM] = s[L.NOW]
                    entries[entry, L.E_SPAN_TO] = _FOREVER


@njit(nogil=True)
def _begins(entry, task, column, since, tasks, entries, s):
    """An addition (or a walk's move) of an entry begins."""
    if s[L.ADDING]:
        _overlaps(entry, tasks, entries, s)
    if tasks[task, column] < 0:
        s[L.ADDING] += 1
    tasks[task, column] = entry
    tasks[task, since] = s[L.NOW]


@njit(nogil=True)
def _ends(task, column, tasks, entries, s):
    """Questions.lru_added(), Questions.lru_moved()"""
    entry = tasks[task, column]
    if entry >= 0:
        tasks[task, column] = -1
        s[L.ADDING] -= 1
        if entries[entry, L.E_SPAN_FROM] >= 0:
            entries[entry, L.E_SPAN_TO] = s[L.NOW]


@njit(nogil=True)
def _is_under_way(entry, tasks, s):
    for task in range(s[L.TASKS]):
        if tasks[task, L.T_ADDING] == entry or tasks[task, L.T_MOVING] == entry:
            return True
    return False


@njit(nogil=True)
def _frame_differs(zspage, index, word, zspages, classes, s):
    """ZsmallocHandlers._check_frame(): True where the object word is another."""
    bits = s[L.IDX_BITS]
    if word & ((1 << bits) - 1) != index:
        return True
    number = zspages[zspage, L.Z_CLASS]
    page = L.Z_FRAMES + classes[number, L.K_SIZE] * index // _PAGE
    high = (word >> bits) & ((1 << (64 - bits)) - 1)
    if zspages[zspage, page] == -1:
        zspages[zspage, page] = high
        return s[L.CLASS_BITS] > 0 and high & ((1 << s[L.CLASS_BITS]) - 1) != number
    return zspages[zspage, page] != high


@njit(nogil=True)
def _word(zspage, zspages, classes):
    """zspage_word()"""
    number = zspages[zspage, L.Z_CLASS]
    return _MAGIC | number << 5 | zspages[zspage, L.Z_GROUP] << 1 | classes[number, L.K_HUGE]


@njit(nogil=True)
def _class_differs(number, address, classes):
    """ZsmallocHandlers._class_at(): True where a class is known at another address."""
    if classes[number, L.K_ADDRESS] == 0:
        classes[number, L.K_ADDRESS] = address
    return classes[number, L.K_ADDRESS] != address


@njit(nogil=True)
def _entry_differs(entry, address, entries, s):
    """Handlers._bind_entry(): True where an entry is known at another address."""
    known = entries[entry, L.E_ADDRESS]
    if known == 0:
        entries[entry, L.E_ADDRESS] = address
        return False
    if s[L.ENTRY_TO_LRU] == _UNBOUND:
        s[L.ENTRY_TO_LRU] = known - address
        return not 0 <= known - address <= 256
    return known != address + s[L.ENTRY_TO_LRU]


@njit(nogil=True)
def _zspage_differs(zspage, address, zspages, addresses, s):
    """ZsmallocHandlers._bind_zspage(): True where the zspage is known elsewhere, or another one here."""
    if zspages[zspage, L.Z_ADDRESS] == address:
        return False
    other = find(addresses, address)
    if zspages[zspage, L.Z_ADDRESS] or (other >= 0 and zspages[other, L.Z_INUSE]):
        return True
    zspages[zspage, L.Z_ADDRESS] = address
    s[L.ADDRESSES] += keep(addresses, address, zspage)
    return False


@njit(nogil=True)
def _read_before(recorded, predicted, i, base, pid, frames, totals, s):
    """ZsmallocHandlers._compare_total() where they differ: can order of tasks explain it?"""
    here = pid[i]
    row = i - 1
    first = i - i % L.BATCH
    while row >= first and pid[row] != here:
        row -= 1
    since = base + max(row, first)
    pending = np.zeros(16, np.int64)
    count = 0
    for f in range(s[L.FRAMES_TOP]):
        if frames[f, L.Q_INFLIGHT]:
            if count == 16:
                return False
            pending[count] = frames[f, L.Q_INFLIGHT]
            count += 1
    for choice in range(1 << count):
        total = recorded
        for bit in range(count):
            if choice >> bit & 1:
                total += pending[bit]
        if total == predicted or total == s[L.PAGES]:
            return True
        number = s[L.TOTALS] - 1
        while number >= 0 and number >= s[L.TOTALS] - totals.shape[0]:
            at = number % totals.shape[0]
            if totals[at, 0] < since:
                break
            if totals[at, 1] == total:
                return True
            number -= 1
    return False


@njit(nogil=True)
def _reparent(gone, parent, lists, entries, accounts, s):
    """memcg_reparent_list_lrus() of the model, and whose cgroup is whose after it."""
    for row in range(s[L.LISTS]):
        if lists[row, L.R_ALIVE] and lists[row, L.R_MEMCG] == gone:
            lists[row, L.R_ALIVE] = 0
            if lists[row, L.R_COUNT] == 0:
                continue
            target = list_of(lists, s, lists[row, L.R_NID], parent)
            if target < 0:
                # The target comes into being with what it gets: the row goes on under the parent's name.
                lists[row, L.R_MEMCG] = parent
                lists[row, L.R_ALIVE] = 1
                continue
            entry = lists[row, L.R_HEAD]
            while entry >= 0:
                entries[entry, L.E_WHERE] = target
                entry = entries[entry, L.E_NEXT]
            first = lists[target, L.R_HEAD]
            entries[lists[row, L.R_TAIL], L.E_NEXT] = first
            if first >= 0:
                entries[first, L.E_PREV] = lists[row, L.R_TAIL]
            else:
                lists[target, L.R_TAIL] = lists[row, L.R_TAIL]
            lists[target, L.R_HEAD] = lists[row, L.R_HEAD]
            lists[target, L.R_COUNT] += lists[row, L.R_COUNT]
    for row in range(s[L.ACCOUNTS]):
        if accounts[row, L.G_HAS_MEMCG] and accounts[row, L.G_MEMCG] == gone:
            accounts[row, L.G_MEMCG] = parent


@njit(nogil=True)
def _is_over(f, frames):
    """True for an operation of which no effect can follow: it only has to count yet, or not even that."""
    st = frames[f, L.Q_STATE]
    if frames[f, L.Q_WAITS] or frames[f, L.Q_UP] >= 0:
        return False
    if st == L.F_UNCHARGE:
        return frames[f, L.Q_OP] == _INVALIDATE
    if st == L.M_RET:
        return frames[f, L.Q_OP] == _SHRINK
    return st == L.N_RET or st == L.C_SCAN_RET or st == L.K_RET


@njit(nogil=True)
def _is_quiet(tasks, frames, s):
    """True where the reference could take over: no operation is under way that has effects to come."""
    if s[L.ADDING]:
        return False
    for task in range(s[L.TASKS]):
        f = tasks[task, L.T_TOP]
        if tasks[task, L.T_UNSURE] == 2 or (f >= 0 and not _is_over(f, frames)):
            return False
    return True


@njit(nogil=True)
def _settle(frames, entries, objects, zspages, links, places, classes, class_of, descending, tree, addresses, accounts,
            lists, tasks, history, totals, s, setup, captured):
    """Engine.settle(); False where an operation cannot be told."""
    if s[L.FRAMES] == 0:
        return True
    for task in range(s[L.TASKS]):
        f = tasks[task, L.T_TOP]
        if f < 0 or frames[f, L.Q_WAITS]:
            continue
        last = frames[f, L.Q_OP] == _INVALIDATE and frames[f, L.Q_STATE] == L.F_UNCHARGE and frames[f, L.Q_UP] < 0
        entry = frames[f, L.Q_FREED]
        length, about = entries[entry, L.E_LENGTH], entries[entry, L.E_ABOUT]
        before = s[L.PAGES] + s[L.CHANGES]
        for number in range(L.N_MTHP + 12):
            before += (number + 3) * s[number]
        while f >= 0 and not frames[f, L.Q_WAITS]:
            state = advance(f, 0, 0, 0, 0, 0, 0, frames, entries, objects, zspages, links, places, classes, class_of,
                            descending, tree, addresses, accounts, lists, history, totals, s, setup, captured)
            if state == UNKNOWN:
                return False
            if state == ENDED:
                f = _pop(f, frames, tasks, s)
        after = s[L.PAGES] + s[L.CHANGES]
        for number in range(L.N_MTHP + 12):
            after += (number + 3) * s[number]
        if after != before:
            tasks[task, L.T_UNSURE] = 1 if last else 2
            tasks[task, L.T_UNSURE_LENGTH] = length
            tasks[task, L.T_UNSURE_ABOUT] = about
            s[L.UNSURE] += 1
    return True


def _make(fingerprint: int) -> Any:
    """Return the compiled loop.

    Numba keeps compiled code by the file of the function it was asked for; that this function refers to a number
    that stands for all files it is made of makes a change in any of them compile it anew.
    """

    @njit(nogil=True, cache=True)
    def run(start, stop, base, event, pid, swpent, folio, entry, handle, obj, zspage, pool, memcg, data, ret, size,
            dlen, offset, word, inuse, freeobj, order, ref, nid, content,
            frames, entries, objects, zspages, links, places, classes, class_of, descending, tree, handles, addresses,
            by_pid, accounts, lists, tasks, history, totals, s, setup, captured, n, x,
            refs, errors, lengths, heads, raws, known, writes):
        """Hold the events of rows ``start`` to ``stop`` against what follows from the tables.

        Columns are those of a recording's segment, 64-bit ones as int64; ``base`` is the number of row 0's event.
        Returns (row, why): DONE, or NOTE, GROW, ODD at that row, of which for GROW nothing was done yet.  With QUIET or
        SETTLE for ``stop`` the row is 1 for yes.
        """
        s[L.WHY] = fingerprint & 1
        if stop == QUIET:
            return 1 if _is_quiet(tasks, frames, s) else 0, L.DONE
        if stop == SETTLE:
            done = _settle(frames, entries, objects, zspages, links, places, classes, class_of, descending, tree,
                           addresses, accounts, lists, tasks, history, totals, s, setup, captured)
            return 1 if done else 0, L.DONE
        for i in range(start, stop):
            if s[L.ENTRIES_LIVE] + 64 > entries.shape[0] or s[L.OBJECTS_LIVE] + 64 > objects.shape[0] \
                    or s[L.ZSPAGES_TOP] + 8 > zspages.shape[0] or s[L.LINKS_TOP] + 4096 > links.shape[0] \
                    or s[L.TASKS] + 2 > tasks.shape[0] or s[L.FRAMES] + 4 > frames.shape[0] \
                    or s[L.ACCOUNTS] + 4 > accounts.shape[0] or s[L.LISTS] + 4 > lists.shape[0]:
                return i, L.GROW
            if (2 * (s[L.TREE] + 4) > tree.shape[0] or 2 * (s[L.OBJECTS_LIVE] + 4) > handles.shape[0]
                    or 2 * (s[L.ADDRESSES] + 4) > addresses.shape[0]):
                return i, L.GROW
            code = event[i]
            s[L.NOW] = base + i
            if i & 255 == 0 and _is_quiet(tasks, frames, s):
                s[L.QUIET_AT] = base + i
            task = _task(pid[i], tasks, by_pid, s)
            tasks[task, L.T_LAST] = base + i
            if code == _LRU_ADD or code == _LRU_DEL:
                if pool[i] != s[L.LRU_ADDRESS]:
                    if code == _LRU_ADD:
                        tasks[task, L.T_FOREIGN] = 1
                    x[L.X_LRU] += 1
                    continue
                tasks[task, L.T_FOREIGN] = 0
            elif code == _LRU_ADD_RET and tasks[task, L.T_FOREIGN]:
                tasks[task, L.T_FOREIGN] = 0
                x[L.X_LRU] += 1
                continue
            if tasks[task, L.T_UNSURE]:
                tasks[task, L.T_UNSURE] = 0
                s[L.UNSURE] -= 1
            f = tasks[task, L.T_TOP]
            if code == _ZSWAP_TOTAL and f >= 0 and frames[f, L.Q_TOTALS] >= 0:
                x[L.X_TOTALS] += 1
                n[L.H_PAGES] += 1
                if ret[i] != frames[f, L.Q_TOTALS]:
                    s[L.WHY] = L.H_PAGES
                    return i, L.ODD
                frames[f, L.Q_TOTALS] = -1
                continue

            matched = False
            while f >= 0:
                frames[f, L.Q_INFLIGHT] = 0
                at_question = frames[f, L.Q_WAITS] and L.EFFECT[frames[f, L.Q_STATE]] == 0
                if at_question and frames[f, L.Q_STATE] == L.B_CACHE and _STARTS[code]:
                    break
                if at_question or not frames[f, L.Q_WAITS]:
                    # Without a name the operation goes on to a question, with one past it.
                    state = advance(f, np.int64(code) if at_question else 0, handle[i], zspage[i], ret[i], memcg[i],
                                    entry[i], frames, entries, objects, zspages, links, places, classes, class_of,
                                    descending, tree, addresses, accounts, lists, history, totals, s, setup, captured)
                    if state == ENDED:
                        f = _pop(f, frames, tasks, s)
                    elif state == UNKNOWN:
                        s[L.WHY] = -1
                        return i, L.ODD
                    if state == ENDED or L.EFFECT[frames[f, L.Q_STATE]] == 0:
                        continue
                st = frames[f, L.Q_STATE]
                effect = L.EFFECT[st]
                if effect != code:
                    if effect == _COMPACT and not s[L.SEEN_INLINED]:
                        captured[_COMPACT] = 0
                        captured[_COMPACT_RET] = 0
                        frames[f, L.Q_WAITS] = 0
                        frames[f, L.Q_ANSWERED] = 0
                        continue
                    break
                matched = True
                break

            if not matched:
                # ---- Engine.outside_operation() -----------------------------------------------------------
                if _STARTS[code]:
                    if f < 0:
                        may = code != _STORE or not captured[_WRITEOUT]
                    else:
                        st = frames[f, L.Q_STATE]
                        may = _ANYWHERE[code] or st == L.B_CACHE or (
                            code == _INVALIDATE and frames[f, L.Q_OP] == _WRITEOUT and st == L.W_RET)
                    if not may:
                        s[L.WHY] = L.H_ORDER
                        return i, L.ODD
                    if s[L.WINDOW] and not _settle(frames, entries, objects, zspages, links, places, classes, class_of,
                                                   descending, tree, addresses, accounts, lists, tasks, history,
                                                   totals, s, setup, captured):
                        s[L.WHY] = -2
                        return i, L.ODD
                    f = _frame(code, task, base + i, L.END, frames, tasks, s)
                    if code == _WRITEOUT or code == _STORE:
                        frames[f, L.Q_STATE] = L.W_START if code == _WRITEOUT else L.S_START
                        frames[f, L.Q_SWPENT] = swpent[i]
                        frames[f, L.Q_FOLIO] = folio[i]
                        frames[f, L.Q_ORDER] = order[i]
                        if order[i] > _MAX_ORDER:
                            s[L.WHY] = L.H_WRITEOUT
                            return i, L.ODD
                    elif code == _LOAD:
                        frames[f, L.Q_STATE] = L.L_START
                        frames[f, L.Q_SWPENT] = swpent[i]
                        frames[f, L.Q_FOLIO] = folio[i]
                    elif code == _INVALIDATE:
                        frames[f, L.Q_STATE] = L.I_START
                        frames[f, L.Q_SWPENT] = swpent[i]
                    elif code == _SCAN or code == _COMPACT:
                        frames[f, L.Q_STATE] = L.C_SCAN if code == _SCAN else L.C_COMPACT
                        # Of a pool that is not the one at hand only the reference knows anything.
                        if pool[i] and s[L.POOL_ADDRESS] and pool[i] != s[L.POOL_ADDRESS]:
                            s[L.WHY] = L.H_COMPACT
                            return i, L.ODD
                        if code == _COMPACT:
                            n[L.H_COMPACT] += 1
                    elif code == _SHRINKER:
                        frames[f, L.Q_STATE] = L.N_START
                        frames[f, L.Q_BUDGET] = size[i]
                        frames[f, L.Q_MEMCG] = memcg[i]
                        frames[f, L.Q_NID] = nid[i]
                    elif code == _SHRINK:
                        frames[f, L.Q_STATE] = L.M_START
                        frames[f, L.Q_ANSWER] = memcg[i]
                    elif code == _WORKER:
                        frames[f, L.Q_STATE] = L.K_START
                        frames[f, L.Q_THRESHOLD] = s[L.ACCEPT_PAGES]
                    else:
                        frames[f, L.Q_STATE] = L.A_START
                    if code == _INVALIDATE:
                        state = advance(f, 0, 0, 0, 0, 0, 0, frames, entries, objects, zspages, links, places, classes,
                                        class_of, descending, tree, addresses, accounts, lists, history, totals, s,
                                        setup, captured)
                        if state == ENDED:
                            _pop(f, frames, tasks, s)
                        elif state == UNKNOWN:
                            s[L.WHY] = -3
                            return i, L.ODD
                    continue
                if code == _MARKER or (pid[i] == 0 and (code == _COUNTERS or code == _PARAM or code == _LOST)):
                    if (code == _MARKER or code == _COUNTERS) and not _settle(
                            frames, entries, objects, zspages, links, places, classes, class_of, descending, tree,
                            addresses, accounts, lists, tasks, history, totals, s, setup, captured):
                        s[L.WHY] = -2
                        return i, L.ODD
                    return i, L.NOTE
                if _OUTSIDE[code]:
                    x[L.X_OUTSIDE] += 1
                    if code == _MIGRATE:
                        for row in range(s[L.ZSPAGES_TOP]):
                            zspages[row, L.Z_FRAMES:] = -1
                    elif code == _SHRINKER_COUNT:
                        tasks[task, L.T_COUNTING] = 1
                    elif code == _SHRINKER_COUNT_RET:
                        tasks[task, L.T_COUNTING] = 0
                    continue
                if code == _REPARENT:
                    x[L.X_OUTSIDE] += 1
                    _reparent(memcg[i], pool[i] if pool[i] != s[L.ROOT_MEMCG] else 0, lists, entries, accounts, s)
                    continue
                if code == _ENABLED:
                    if setup[L.SEES_COUNT]:
                        counting = tasks[task, L.T_COUNTING] or tasks[task, L.T_FIRST] == base + i
                    else:
                        counting = s[L.SHRINKER] and not (
                            f >= 0 and L.EFFECT[frames[f, L.Q_STATE]] == _ENABLED)
                    if counting:
                        x[L.X_COUNTING] += 1
                        continue
                if f < 0:
                    if code == _ZSWAP_TOTAL or code == _POOL_TOTAL:
                        if not _settle(frames, entries, objects, zspages, links, places, classes, class_of, descending,
                                       tree, addresses, accounts, lists, tasks, history, totals, s, setup, captured):
                            s[L.WHY] = -2
                            return i, L.ODD
                        n[L.H_PAGES] += 1
                        s[L.TOTAL_AT], s[L.TOTAL_READ] = base + i, ret[i]
                        if ret[i] != s[L.PAGES]:
                            if not _read_before(ret[i], s[L.PAGES], i, base, pid, frames, totals, s):
                                s[L.WHY] = L.H_PAGES
                                return i, L.ODD
                            s[L.PREEMPTED] += 1
                        x[L.X_TOTALS] += 1
                        continue
                    if code == _LRU_ADD_RET:
                        x[L.X_LRU] += 1
                        continue
                    if _RETURNS[code] and not s[L.HAS_STATE] and tasks[task, L.T_FIRST] == base + i:
                        x[L.X_BEFORE] += 1
                        continue
                s[L.WHY] = L.H_ORDER
                return i, L.ODD

            # ---- the handlers ------------------------------------------------------------------------------
            frames[f, L.Q_WAITS] = 0
            frames[f, L.Q_ANSWERED] = 1
            differs = False
            check = L.H_ORDER
            if code == _FULL:
                check = L.H_FULLNESS
                it = frames[f, L.Q_ZSPAGE]
                differs = zspage[i] != zspages[it, L.Z_ADDRESS] or inuse[i] != zspages[it, L.Z_INUSE] \
                    or word[i] != _word(it, zspages, classes) \
                    or _class_differs(zspages[it, L.Z_CLASS], pool[i], classes)
                frames[f, L.Q_FULLNESS] = it
            elif code == _FULL_RET:
                check = L.H_FULLNESS
                differs = ret[i] != frames[f, L.Q_VALUE]
                if frames[f, L.Q_VALUE] == 0 and frames[f, L.Q_FULLNESS] >= 0:
                    number = zspages[frames[f, L.Q_FULLNESS], L.Z_CLASS]
                    frames[f, L.Q_INFLIGHT] = -classes[number, L.K_PAGES]
            elif code == _LRU_DEL:
                check = L.H_LRU
                it = frames[f, L.Q_FREED]
                where = entries[it, L.E_WHERE]
                group = 0 if memcg[i] == s[L.ROOT_MEMCG] else memcg[i]
                differs = where < 0 or entry[i] != entries[it, L.E_ADDRESS] or nid[i] != lists[where, L.R_NID] \
                    or group != lists[where, L.R_MEMCG] or (s[L.ADDING] > 0 and _is_under_way(it, tasks, s))
                entries[it, L.E_SPAN_FROM] = -1
            elif code == _LRU_ADD:
                check = L.H_LRU
                it = frames[f, L.Q_ENTRY]
                entries[it, L.E_ADDRESS] = entry[i]
                group = 0 if memcg[i] == s[L.ROOT_MEMCG] else memcg[i]
                about = entries[it, L.E_ABOUT]
                if about < 0:
                    about = account_of(accounts, s, 0)
                if not accounts[about, L.G_HAS_MEMCG]:
                    accounts[about, L.G_HAS_MEMCG] = 1
                    accounts[about, L.G_MEMCG] = group
                differs = accounts[about, L.G_MEMCG] != group
                _begins(it, task, L.T_ADDING, L.T_ADDED_AT, tasks, entries, s)
                frames[f, L.Q_ANSWER] = group
                frames[f, L.Q_ANSWER2] = nid[i]
            elif code == _LRU_ADD_RET:
                check = L.H_LRU
                _ends(task, L.T_ADDING, tasks, entries, s)
                differs = ret[i] != frames[f, L.Q_VALUE]
            elif code == _COMPRESS:
                check = L.H_CALLS
                differs = folio[i] + offset[i] // _PAGE * _STRUCT_PAGE \
                    != frames[f, L.Q_FOLIO] + frames[f, L.Q_INDEX] * _STRUCT_PAGE or offset[i] % _PAGE != 0 \
                    or size[i] != _PAGE or dlen[i] != _PAGE
                frames[f, L.Q_CONTENT] = content[i]
            elif code == _COMPRESS_RET:
                check = L.H_LENGTH
                n[L.H_LENGTH] -= 1
                which = frames[f, L.Q_CONTENT]
                if 0 <= which < refs.shape[0] and known[refs[which]]:
                    n[L.H_LENGTH] += 1
                    n[L.H_ERROR] += 1
                    differs = ret[i] != errors[refs[which]] or dlen[i] != lengths[refs[which]]
                frames[f, L.Q_ANSWER] = ret[i]
                frames[f, L.Q_ANSWER2] = dlen[i]
            elif code == _ZS_MALLOC:
                check = L.H_SIZE
                differs = size[i] != frames[f, L.Q_LENGTH]
                if s[L.POOL_ADDRESS] == 0:
                    s[L.POOL_ADDRESS] = pool[i]
                differs = differs or s[L.POOL_ADDRESS] != pool[i]
            elif code == _OBJ_MALLOC:
                check = L.H_PLACE
                it = frames[f, L.Q_OBJ]
                differs = _zspage_differs(frames[f, L.Q_ZSPAGE], zspage[i], zspages, addresses, s)
                if objects[it, L.O_ADDRESS] == 0:
                    n[L.H_HANDLE] += 1
                    objects[it, L.O_ADDRESS] = handle[i]
                    differs = keep(handles, handle[i], it) == 0 or differs
                else:
                    differs = differs or objects[it, L.O_ADDRESS] != handle[i]
            elif code == _OBJ_MALLOC_RET:
                check = L.H_PLACE
                it = frames[f, L.Q_ZSPAGE]
                taken = objects[frames[f, L.Q_OBJ], L.O_INDEX]
                differs = zspage[i] != zspages[it, L.Z_ADDRESS] or word[i] != _word(it, zspages, classes) \
                    or inuse[i] != zspages[it, L.Z_INUSE] or handle[i] != objects[frames[f, L.Q_OBJ], L.O_ADDRESS] \
                    or (zspages[it, L.Z_FREEOBJ] != -1 and freeobj[i] != zspages[it, L.Z_FREEOBJ]) \
                    or _frame_differs(it, taken, obj[i], zspages, classes, s)
                if zspages[it, L.Z_INUSE] == 1 and not zspages[it, L.Z_LISTED]:
                    frames[f, L.Q_INFLIGHT] = classes[zspages[it, L.Z_CLASS], L.K_PAGES]
            elif code == _ZS_MALLOC_RET:
                check = L.H_PLACE
                if frames[f, L.Q_VALUE]:
                    differs = handle[i] != frames[f, L.Q_VALUE]
                else:
                    it = frames[f, L.Q_OBJ]
                    if objects[it, L.O_ADDRESS] == 0 and not -_PAGE <= handle[i] < 0:
                        n[L.H_HANDLE] += 1
                        objects[it, L.O_ADDRESS] = handle[i]
                        differs = keep(handles, handle[i], it) == 0
                    differs = differs or handle[i] != objects[it, L.O_ADDRESS] or size[i] != objects[it, L.O_SIZE] \
                        or (setup[L.WORD_MALLOC] and _frame_differs(objects[it, L.O_ZSPAGE], objects[it, L.O_INDEX],
                                                                    obj[i], zspages, classes, s))
            elif code == _WRITE:
                check = L.H_RAW if frames[f, L.Q_RAW] else L.H_BYTES
                length = frames[f, L.Q_LENGTH]
                differs = handle[i] != objects[frames[f, L.Q_OBJ], L.O_ADDRESS] or size[i] != length
                which = frames[f, L.Q_CONTENT]
                if setup[L.DATA_WRITTEN] and 0 <= which < refs.shape[0] and known[refs[which]]:
                    head = raws[refs[which]] if frames[f, L.Q_RAW] else heads[refs[which]]
                    mask = -1 if length >= 8 else (1 << 8 * length) - 1
                    differs = differs or data[i] & mask != head & mask
                if setup[L.KEEP_WRITES]:
                    writes[s[L.WRITES], 0] = base + i
                    writes[s[L.WRITES], 1] = handle[i]
                    writes[s[L.WRITES], 2] = length
                    writes[s[L.WRITES], 3] = which
                    s[L.WRITES] += 1
            elif code == _READ:
                check = L.H_SG
                if frames[f, L.Q_STATE] == L.P_MAP:
                    it, length = frames[f, L.Q_OBJ], frames[f, L.Q_LENGTH]
                else:
                    which = frames[f, L.Q_READ]
                    it, length = entries[which, L.E_OBJ], entries[which, L.E_LENGTH]
                number = zspages[objects[it, L.O_ZSPAGE], L.Z_CLASS]
                place = classes[number, L.K_SIZE] * objects[it, L.O_INDEX]
                lead = 0 if classes[number, L.K_HUGE] else 8
                two = place % _PAGE + lead + length > _PAGE
                if two:
                    s[L.READS_TWO] += 1
                else:
                    s[L.READS_ONE] += 1
                differs = handle[i] != objects[it, L.O_ADDRESS] or (setup[L.SIZE_OBJ_READ] and size[i] != length) \
                    or lead + length > classes[number, L.K_SIZE] \
                    or place // _PAGE + (1 if two else 0) >= classes[number, L.K_PAGES]
            elif code == _CHARGE:
                check = L.H_CHARGE
                if frames[f, L.Q_FIRST_OBJCG] == 0:
                    frames[f, L.Q_FIRST_OBJCG] = memcg[i]
                differs = size[i] != entries[frames[f, L.Q_ENTRY], L.E_LENGTH] \
                    or memcg[i] != frames[f, L.Q_FIRST_OBJCG] or memcg[i] == 0
                frames[f, L.Q_ANSWER] = memcg[i]
            elif code == _UNCHARGE:
                check = L.H_CHARGE
                it = frames[f, L.Q_FREED]
                differs = size[i] != entries[it, L.E_LENGTH] \
                    or memcg[i] != accounts[entries[it, L.E_ABOUT], L.G_OBJCG]
            elif code == _FREE_ENTRY:
                check = L.H_FREE
                it = frames[f, L.Q_FREED]
                differs = swpent[i] != entries[it, L.E_SWPENT] \
                    or (setup[L.SIZE_FREED] and size[i] != entries[it, L.E_LENGTH]) \
                    or handle[i] != objects[entries[it, L.E_OBJ], L.O_ADDRESS] \
                    or (setup[L.REF_FREED] and ref[i] != entries[it, L.E_REF]) or not entries[it, L.E_LIVE] \
                    or _entry_differs(it, entry[i], entries, s)
            elif code == _ZS_FREE:
                check = L.H_HANDLE
                it = frames[f, L.Q_OBJ]
                differs = handle[i] != objects[it, L.O_ADDRESS] or forget(handles, objects[it, L.O_ADDRESS]) < 0 \
                    or (setup[L.WORD_FREE] and _frame_differs(objects[it, L.O_ZSPAGE], objects[it, L.O_INDEX], obj[i],
                                                              zspages, classes, s)) \
                    or (s[L.POOL_ADDRESS] != 0 and pool[i] != s[L.POOL_ADDRESS])
            elif code == _OBJ_FREE:
                check = L.H_PLACE
                it = frames[f, L.Q_ZSPAGE]
                differs = size[i] != classes[zspages[it, L.Z_CLASS], L.K_SIZE] \
                    or _frame_differs(it, frames[f, L.Q_PLACE], obj[i], zspages, classes, s)
            elif code == _PAGES_FREE:
                check = L.H_PLACE
                it = frames[f, L.Q_ZSPAGE]
                differs = zspage[i] != zspages[it, L.Z_ADDRESS] \
                    or _class_differs(zspages[it, L.Z_CLASS], pool[i], classes)
                frames[f, L.Q_INFLIGHT] = -classes[zspages[it, L.Z_CLASS], L.K_PAGES]
            elif code == _POOL_TOTAL:
                check = L.H_PAGES
                s[L.TOTAL_AT], s[L.TOTAL_READ] = base + i, ret[i]
                if ret[i] != frames[f, L.Q_VALUE]:
                    if _read_before(ret[i], frames[f, L.Q_VALUE], i, base, pid, frames, totals, s):
                        s[L.PREEMPTED] += 1
                    else:
                        differs = True
                frames[f, L.Q_ANSWER] = ret[i]
                frames[f, L.Q_TOTALS] = max(frames[f, L.Q_TOTALS], 0) + ret[i]
            elif code == _STORE:
                n[L.H_ORDER] -= 1
                differs = folio[i] != frames[f, L.Q_FOLIO] or swpent[i] != frames[f, L.Q_SWPENT] \
                    or order[i] != frames[f, L.Q_ORDER]
            elif code == _STORE_RET:
                check = L.H_RESULT
                differs = ret[i] != frames[f, L.Q_VALUE]
            elif code == _WRITEOUT_RET:
                check = L.H_WRITEOUT
                differs = ret[i] != frames[f, L.Q_VALUE]
            elif code == _WRITEPAGE:
                check = L.H_WRITEOUT
                if frames[f, L.Q_STATE] == L.W_PAGE:
                    differs = folio[i] != frames[f, L.Q_FOLIO] or swpent[i] != frames[f, L.Q_SWPENT]
                else:
                    differs = swpent[i] != frames[f, L.Q_VICTIM_SWPENT]
            elif code == _LOAD_RET or code == _WRITEBACK_RET:
                check = L.H_LOAD
                differs = ret[i] != frames[f, L.Q_VALUE]
            elif code == _DECOMPRESS:
                check = L.H_ENTRY
                _ends(task, L.T_MOVING, tasks, entries, s)
                it = frames[f, L.Q_READ]
                differs = swpent[i] != entries[it, L.E_SWPENT] or handle[i] != objects[entries[it, L.E_OBJ],
                                                                                      L.O_ADDRESS] \
                    or (setup[L.SIZE_READ] and size[i] != entries[it, L.E_LENGTH]) \
                    or entries[it, L.E_GEN] != frames[f, L.Q_GEN] \
                    or (not frames[f, L.Q_READ_THEN] and folio[i] != frames[f, L.Q_FOLIO]) \
                    or _entry_differs(it, entry[i], entries, s)
            elif code == _INFLATE:
                check = L.H_LOAD
                differs = size[i] != entries[frames[f, L.Q_READ], L.E_LENGTH] or dlen[i] != _PAGE
            elif code == _INFLATE_RET:
                check = L.H_LOAD
                differs = ret[i] != 0 or dlen[i] != _PAGE
                frames[f, L.Q_ANSWER] = ret[i]
                frames[f, L.Q_ANSWER2] = dlen[i]
            elif code == _MAY or code == _ENABLED:
                check = L.H_LIMIT if code == _MAY else L.H_WRITEBACK
                if frames[f, L.Q_EXPECTED] < 0:
                    n[check] -= 1
                else:
                    differs = ret[i] != frames[f, L.Q_EXPECTED]
                frames[f, L.Q_ANSWER] = 1 if ret[i] else 0
            elif code == _CB:
                check = L.H_LRU
                it = frames[f, L.Q_VICTIM]
                differs = entry[i] != entries[it, L.E_ADDRESS]
                entries[it, L.E_SPAN_FROM] = -1
                _begins(it, task, L.T_MOVING, L.T_MOVED_AT, tasks, entries, s)
            elif code == _CB_RET or code == _SHRINK_RET or code == _SHRINKER_RET:
                check = L.H_LRU
                _ends(task, L.T_MOVING, tasks, entries, s)
                differs = ret[i] != frames[f, L.Q_VALUE]
            elif code == _WRITEBACK:
                check = L.H_LRU
                differs = swpent[i] != frames[f, L.Q_VICTIM_SWPENT]
            elif code == _SHRINK:
                n[L.H_ORDER] -= 1
                frames[f, L.Q_ANSWER] = memcg[i]
            elif code == _COMPACT:
                check = L.H_COMPACT
                s[L.SEEN_INLINED] = 1
                differs = s[L.POOL_ADDRESS] != 0 and pool[i] != s[L.POOL_ADDRESS]
            elif code == _CLASS:
                check = L.H_COMPACT
                differs = _class_differs(frames[f, L.Q_CLASS], pool[i], classes)
            elif code == _CLASS_RET or code == _COMPACT_RET or code == _SCAN_RET:
                check = L.H_COMPACT
                differs = ret[i] != frames[f, L.Q_VALUE]
            else:
                n[L.H_ORDER] -= 1
                if code != _EV_WORKER_RET:
                    s[L.WHY] = -4
                    return i, L.ODD
            n[check] += 1
            if differs:
                s[L.WHY] = check
                return i, L.ODD
            if _EAGER[code]:
                state = advance(f, 0, 0, 0, 0, 0, 0, frames, entries, objects, zspages, links, places, classes,
                                class_of, descending, tree, addresses, accounts, lists, history, totals, s, setup,
                                captured)
                if state == ENDED:
                    _pop(f, frames, tasks, s)
                elif state == UNKNOWN:
                    s[L.WHY] = -5
                    return i, L.ODD
        return stop, L.DONE

    return run


_EV_WORKER_RET: Final = _EV["shrink_worker_ret"]


def _fingerprint() -> int:
    """A number that stands for the text of everything the loop is compiled from."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in ("layout.py", "tables.py", "advance.py", "step.py"):
        digest.update((here / name).read_bytes())
    digest.update(repr(sorted(_EV.items())).encode())
    return int.from_bytes(digest.digest()[:6], "big")


run = _make(_fingerprint())
