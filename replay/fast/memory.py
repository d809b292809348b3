# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a compiled replay: made, enlarged, copied, and turned into the model's state and back.

The form in between is the one that a cut recording keeps (:mod:`replay.reference.modelstate`), so that both engines can
start where the other one stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.counters import DEBUGFS, VMSTAT
from model.memcg import MemcgZswap
from model.zsmalloc import SizeClass, Zspage, size_classes
from model.zswap import Zswap
from replay.fast import layout as L
from replay.fast import tables
from replay.fast.bound import UNBOUND
from replay.fast.rows import new_entry
from replay.fast.tasks import operation, task_of
from replay.reference.invariants import Holdings
from traces import schema

if TYPE_CHECKING:
    from replay.reference.engine import Engine

__all__ = ["LAST_EFFECT", "Heap", "signed", "unsigned"]

_ACCOUNT: Final = ("incompressible", "zswap", "zswapped", "zswpin", "zswpout", "zswpwb")
#: operation -> the effect behind which it has none to come, and the state that stands for it
LAST_EFFECT: Final = {
    "zswap_invalidate": ("obj_cgroup_uncharge_zswap", L.F_UNCHARGE), "shrink_memcg": ("shrink_memcg_ret", L.M_RET),
    "zswap_shrinker_scan": ("zswap_shrinker_scan_ret", L.N_RET),
    "zs_shrinker_scan": ("zs_shrinker_scan_ret", L.C_SCAN_RET), "shrink_worker": ("shrink_worker_ret", L.K_RET)}
#: more pages or bytes than can be
_BEYOND: Final = 1 << 62


def signed(value: int) -> int:
    """Return a 64-bit number as the tables keep it."""
    return value - (1 << 64) if value >= 1 << 63 else value


def unsigned(value: int) -> int:
    """Return a number of the tables as the recording has it."""
    return int(value) & (1 << 64) - 1


def _limit(pages: int) -> int:
    """Return a limit as the tables keep it; one beyond all that can be counted stays beyond it."""
    return max(-_BEYOND, min(pages, _BEYOND))


class Heap:
    """The heap of one compiled replay; :mod:`replay.fast.layout` says what is where in it.

    :param chain_size: CONFIG_ZSMALLOC_CHAIN_SIZE
    :param changes: how many changes of cgroup accounts are remembered
    """

    def __init__(self, chain_size: int, changes: int) -> None:
        # Each replay begins with the same size classes: they are laid out once.
        m, self._class_rows = _with_classes(chain_size)
        self.m = m.copy()
        # Room for a power of two, so that no division says where the next one goes.
        rows_kept = 1 << (changes - 1).bit_length()
        self.m[L.HISTORY_MASK] = rows_kept - 1
        self.m[L.HISTORY_AT] = self._take(8 * rows_kept)
        self.m[L.TOTALS_AT] = self._take(2 * L.TOTALS_ROOM)
        for table in (L.TREE_AT, L.HANDLES_AT, L.ADDRESSES_AT, L.TASKS_AT):
            self.rehash(table, 2048)
        #: counters that differ by what a task has not counted yet, for tasks of before this replay took over
        self.carried: dict[int, dict[str, int]] = {}

    # ---- size -------------------------------------------------------------------------------------------

    def _take(self, width: int) -> int:
        """Return a new row at the end of the heap."""
        row = int(self.m[L.TOP])
        self._reach(row + width)
        self.m[L.TOP] += width
        return row

    def _reach(self, end: int) -> None:
        """Enlarge the heap until there is room behind ``end``."""
        while end + L.HEAP_ROOM > len(self.m):
            self.m = np.concatenate([self.m, np.zeros(len(self.m), np.int64)])
            self.m[L.LENGTH] = len(self.m)

    def rehash(self, table: int, slots: int) -> None:
        """Give a hash table a new area of ``slots`` slots."""
        self._reach(int(self.m[L.TOP]) + 2 * slots)
        tables.rehash(self.m, table, slots)

    def grow(self) -> None:
        """Enlarge what is nearly full."""
        m = self.m
        for table, used in ((L.TREE_AT, m[L.TREE]), (L.HANDLES_AT, m[L.OBJECTS_LIVE]),
                            (L.ADDRESSES_AT, m[L.ADDRESSES]), (L.TASKS_AT, m[L.TASK_COUNT])):
            if 2 * (used + L.ROOM) > self.m[table + 1]:
                self.rehash(table, 4 * (int(self.m[table + 1]) + 1))
        self._take(0)

    def copy(self) -> np.ndarray:
        """Return all there is, as it is."""
        return self.m[:self.m[L.TOP]].copy()

    def restore(self, kept: np.ndarray) -> None:
        """Go back to what :meth:`copy` returned."""
        if len(kept) + L.HEAP_ROOM > len(self.m):
            self.m = np.zeros(2 * len(kept) + L.HEAP_ROOM, np.int64)
        self.m[:len(kept)] = kept
        self.m[L.LENGTH] = len(self.m)

    def rows(self, first: int, following: int) -> Iterator[int]:
        """Yield rows from ``first`` on, each of which names the next at ``following``."""
        row = first
        while row >= 0:
            yield row
            row = int(self.m[row + following])

    def accounts(self) -> list[np.ndarray]:
        """Return the rows of all cgroups."""
        return [self.m[row:row + L.G_WIDTH] for row in self.rows(int(self.m[L.ACCOUNTS]), L.G_NEXT)]

    def tasks(self) -> list[np.ndarray]:
        """Return the rows of all tasks."""
        return [self.m[row:row + L.T_WIDTH] for row in self.rows(int(self.m[L.TASKS]), L.T_NEXT)]

    def live(self) -> list[int]:
        """Return the rows of all entries in the tree."""
        at, slots = int(self.m[L.TREE_AT]), int(self.m[L.TREE_MASK]) + 1
        found = self.m[at + 1:at + 2 * slots:2]
        rows: list[int] = found[found >= 0].tolist()
        return rows

    def holdings(self, zswpout: int) -> Holdings:
        """Return what is held, as Invariants.holdings() does.

        zswpout needs no sum of its own: the state that counts it (P_LRU_RET) is the one that goes to S_RET with
        success, whose event is compared.
        """
        m, live = self.m, np.array(self.live(), np.int64)
        lengths, about = m[live + L.E_LENGTH], m[live + L.E_ABOUT]
        charges = [(unsigned(m[row + L.G_OBJCG]), int(m[row + L.G_ZSWAP]), int(lengths[about == row].sum()))
                   for row in self.rows(int(m[L.ACCOUNTS]), L.G_NEXT) if m[row + L.G_HAS_ACCOUNT]]
        objects = sum(int(m[cls + L.K_INUSE]) for cls in self._class_rows.values())
        return Holdings(len(live), int(m[L.ENTRIES_LIVE]), objects,
                        int(m[L.OBJECTS_LIVE]), int(m[L.N_STORED]), zswpout, zswpout, tuple(charges),
                        under_way=sum(bool(task[L.T_TOP] >= 0) for task in self.tasks()))

    # ---- what the model's counters say -----------------------------------------------------------------

    def show(self, model: Zswap) -> None:
        """Write counters, accounts and totals into a model, for readers of the model."""
        m = self.m
        for number, name in enumerate(L.COUNTERS):
            setattr(model.counters, name, int(m[number]))
        model.counters.mthp_zswpout = {order: int(m[L.N_MTHP + order]) for order in range(12) if m[L.N_MTHP + order]}
        model.memcgs = {}
        for row in self.accounts():
            if row[L.G_HAS_ACCOUNT]:
                account = model.memcgs[unsigned(row[L.G_OBJCG])] = MemcgZswap()
                for number, name in enumerate(_ACCOUNT):
                    setattr(account, name, int(row[L.G_INCOMPRESSIBLE + number]))
        model.untold_folios = bool(m[L.UNTOLD])
        model.pool_reached_full = bool(m[L.REACHED_FULL])
        pool = model.pools[0].zs_pool
        pool.pages_allocated = int(m[L.PAGES])
        for cls in pool.classes:
            row_of = self._class_rows[cls.geometry.index]
            cls.objs_allocated, cls.objs_inuse = int(m[row_of + L.K_ALLOCATED]), int(m[row_of + L.K_INUSE])

    def take_params(self, model: Zswap) -> None:
        """Take over what parameters and cgroup files say."""
        s = self.m
        s[L.ENABLED] = model.enabled
        s[L.MAX_PAGES] = _limit(model.max_pages())
        s[L.ACCEPT_PAGES] = _limit(model.accept_thr_pages())
        s[L.ZSWAP_MAX] = L.NO_LIMIT_SAID if model.zswap_max is None else _limit(model.zswap_max)
        s[L.WRITEBACK] = -1 if model.writeback_enabled is None else model.writeback_enabled
        s[L.WAS_OFF] = model._writeback_was_off
        s[L.SHRINKER] = -1 if model.shrinker_enabled is None else model.shrinker_enabled

    # ---- to the reference --------------------------------------------------------------------------------

    def dump(self, engine: Engine) -> dict[str, Any]:
        """Return the state as :func:`replay.reference.modelstate.dump_state` does, to be loaded into a new model.

        Only where no operation is under way that has effects to come.
        """
        m, model = self.m, engine.state.model
        objects: dict[int, int] = {}
        zspage_rows: list[list[Any]] = []
        object_rows: list[list[Any]] = []
        classes = []
        for number, cls in self._class_rows.items():
            groups = []
            for group in range(L.GROUPS):
                listed = []
                for zspage in list(self.rows(int(m[cls + L.K_HEAD + group]), L.Z_NEXT))[::-1]:
                    listed.append(len(zspage_rows))
                    links, places, count = zspage + L.Z_LINKS, int(m[zspage + L.Z_PLACES]), int(m[cls + L.K_OBJS])
                    for obj in m[places:places + count].tolist():
                        if obj >= 0:
                            objects[obj] = len(object_rows)
                            object_rows.append([unsigned(m[obj + L.O_ADDRESS]), int(m[obj + L.O_SIZE]),
                                                len(zspage_rows), int(m[obj + L.O_INDEX])])
                    frames = m[zspage + L.Z_FRAMES:zspage + L.Z_FRAMES + m[cls + L.K_PAGES]].tolist()
                    zspage_rows.append([number, int(m[zspage + L.Z_INUSE]), int(m[zspage + L.Z_FREEOBJ]),
                                        m[links:links + count].tolist(), int(m[zspage + L.Z_GROUP]),
                                        unsigned(m[zspage + L.Z_ADDRESS]), frames])
                groups.append(listed)
            if any(groups) or m[cls + L.K_ADDRESS]:
                classes.append([number, unsigned(m[cls + L.K_ADDRESS]), int(m[cls + L.K_ALLOCATED]),
                                int(m[cls + L.K_INUSE]), groups])
        pool = {"tfm_name": model.pools[0].tfm_name, "entries": int(m[L.POOL_ENTRIES]), "dying": False,
                "address": unsigned(m[L.POOL_ADDRESS]), "chain_size": model.chain_size,
                "pages_allocated": int(m[L.PAGES]), "pages_compacted": int(m[L.COMPACTED]), "classes": classes,
                "zspages": zspage_rows, "objects": object_rows}
        rows: list[list[Any]] = []
        numbers: dict[int, int] = {}
        for entry in self.live():
            numbers[entry] = len(rows)
            row = m[entry:entry + L.E_WIDTH].tolist()
            where = row[L.E_WHERE]
            rows.append([row[L.E_SWPENT], row[L.E_LENGTH], objects[row[L.E_OBJ]], self._objcg(entry),
                         [] if where < 0 else [int(m[where + L.R_NID]), unsigned(m[where + L.R_MEMCG])],
                         row[L.E_REF], row[L.E_CONTENT], unsigned(row[L.E_ADDRESS]), 0])
        lru = [[int(m[row + L.R_NID]), unsigned(m[row + L.R_MEMCG]),
                [numbers[entry] for entry in self.rows(int(m[row + L.R_HEAD]), L.E_NEXT)]]
               for row in self.rows(int(m[L.LISTS]), L.R_NEXT) if m[row + L.R_ALIVE]]
        s, accounts = m, self.accounts()
        to_lru = int(s[L.ENTRY_TO_LRU])
        return {
            "version": 1,
            "params": {"enabled": model.enabled, "max_pool_percent": model.max_pool_percent,
                       "accept_threshold_percent": model.accept_threshold_percent,
                       "pool_reached_full": bool(s[L.REACHED_FULL]), "zswap_max": model.zswap_max,
                       "writeback_enabled": model.writeback_enabled, "untold_folios": bool(s[L.UNTOLD]),
                       "shrinker_enabled": model.shrinker_enabled, "_writeback_was_off": model._writeback_was_off},
            "counters": {name: int(s[L.COUNTERS.index(name)]) for name in (*DEBUGFS, *VMSTAT)},
            "mthp_zswpout": [[order, int(s[L.N_MTHP + order])] for order in range(12) if s[L.N_MTHP + order]],
            "memcgs": [[unsigned(row[L.G_OBJCG]), *row[L.G_INCOMPRESSIBLE:L.G_INCOMPRESSIBLE + 6].tolist()]
                       for row in accounts if row[L.G_HAS_ACCOUNT]],
            "pools": [pool], "entries": rows, "lru": lru,
            "memcg_of": [[unsigned(row[L.G_OBJCG]) or None, unsigned(row[L.G_MEMCG])] for row in accounts
                         if row[L.G_HAS_MEMCG]],
            "memcg_was": [[unsigned(row[L.G_OBJCG]), unsigned(row[L.G_WAS])] for row in accounts if row[L.G_WAS]],
            "root_memcg": int(s[L.ROOT_MEMCG]) if s[L.ROOT_MEMCG] == -1 else unsigned(s[L.ROOT_MEMCG]),
            "lru_address": unsigned(s[L.LRU_ADDRESS]), "entry_to_lru": None if to_lru == UNBOUND else to_lru,
            "counter_base": dict(engine.state.snapshots.base), "phase": engine.truth.phase,
            "inlined": ["zs_compact"] if s[L.SEEN_INLINED] else [],
            "settings": engine.state.settings.dump(),
        }

    def _objcg(self, entry: int) -> int | None:
        about = int(self.m[entry + L.E_ABOUT])
        return unsigned(self.m[about + L.G_OBJCG]) if about >= 0 else None

    def spans(self) -> dict[int, list[int]]:
        """Return swap entry -> events between which its listing overlapped another's, of live entries."""
        m = self.m
        return {int(m[row + L.E_SWPENT]): [int(m[row + L.E_SPAN_FROM]), int(m[row + L.E_SPAN_TO])]
                for row in self.live() if m[row + L.E_SPAN_FROM] >= 0}

    def ending(self) -> Iterator[tuple[int, int, int, tuple[int, int, int | None] | None]]:
        """Yield (task, code of the operation, its first event, entry) of operations with no effect to come.

        ``entry`` is (swap entry, length, cgroup) of the entry that an invalidate has freed but not counted yet.
        """
        m = self.m
        for task in self.tasks():
            if task[L.T_TOP] >= 0:
                f = int(task[L.T_TOP])
                entry = None
                if m[f + L.Q_STATE] == L.F_UNCHARGE:
                    row = int(m[f + L.Q_FREED])
                    entry = (int(m[row + L.E_SWPENT]), int(m[row + L.E_LENGTH]), self._objcg(row))
                yield int(task[L.T_PID]), int(m[f + L.Q_OP]), int(m[f + L.Q_START]), entry

    def unsure(self, model: Zswap) -> dict[int, dict[str, int]]:
        """Return Engine.unsure of the tasks that were advanced and not seen since."""
        out: dict[int, dict[str, int]] = {}
        several = sum(bool(row[L.G_HAS_ACCOUNT]) for row in self.accounts()) > 1
        for task in self.tasks():
            pid, length = int(task[L.T_PID]), int(task[L.T_UNSURE_LENGTH])
            if task[L.T_UNSURE] == 3:
                out[pid] = self.carried[pid]
            elif task[L.T_UNSURE] == 1:
                whole = length == schema.PAGE_SIZE
                changes = {"zswap.stored_pages": -1, "meminfo.Zswapped": -4}
                if whole and model.HAS_INCOMPRESSIBLE:
                    changes["zswap.stored_incompressible_pages"] = -1
                if not several:
                    changes |= {"memcg.zswap": -length, "memcg.zswap.current": -length, "memcg.zswapped": -4096}
                    if whole and model.ROOT_OBJCG:
                        changes["memcg.zswap_incomp"] = -4096
                out[pid] = changes
        return out

    # ---- from the reference ------------------------------------------------------------------------------

    def load(self, state: dict[str, Any], spans: dict[int, list[int]]) -> None:
        """Take over a state that :func:`replay.reference.modelstate.dump_state` describes, into tables that are still
        empty.

        :param spans: as :meth:`spans` returns
        """
        pool = state["pools"][0]
        self._load_scalars(state, pool)
        for objcg, *values in state["memcgs"]:
            account = self._account(objcg)
            self.m[account + L.G_HAS_ACCOUNT] = 1
            self.m[account + L.G_INCOMPRESSIBLE:account + L.G_INCOMPRESSIBLE + 6] = values
        for objcg, memcg in state["memcg_of"]:
            account = self._account(objcg or 0)
            self.m[account + L.G_HAS_MEMCG], self.m[account + L.G_MEMCG] = 1, signed(memcg)
        for objcg, memcg in state["memcg_was"]:
            self.m[self._account(objcg) + L.G_WAS] = signed(memcg)
        objects = self._load_pool(pool)
        entries = [self._load_entry(row, objects, spans) for row in state["entries"]]
        self.m[L.ENTRIES_LIVE] = len(entries)
        for nid, memcg, listed in state["lru"]:
            self._take(L.R_WIDTH)
            where = int(tables.list_made(self.m, nid, signed(memcg)))
            for entry in listed:
                tables.list_add(self.m, where, entries[entry])
        for entry, row in zip(entries, state["entries"], strict=True):
            if row[4]:
                self.m[entry + L.E_WHERE] = tables.list_of(self.m, row[4][0], signed(row[4][1]))

    def _load_scalars(self, state: dict[str, Any], pool: dict[str, Any]) -> None:
        s = self.m
        for name, value in state["counters"].items():
            s[L.COUNTERS.index(name)] = value
        for order, count in state["mthp_zswpout"]:
            s[L.N_MTHP + order] = count
        s[L.REACHED_FULL], s[L.UNTOLD] = state["params"]["pool_reached_full"], state["params"]["untold_folios"]
        s[L.PAGES], s[L.COMPACTED] = pool["pages_allocated"], pool["pages_compacted"]
        s[L.POOL_ENTRIES], s[L.POOL_ADDRESS] = pool["entries"], signed(pool["address"])
        s[L.ROOT_MEMCG], s[L.LRU_ADDRESS] = signed(state["root_memcg"]), signed(state["lru_address"])
        s[L.ENTRY_TO_LRU] = UNBOUND if state["entry_to_lru"] is None else state["entry_to_lru"]
        s[L.SEEN_INLINED] = "zs_compact" in state["inlined"]

    def _account(self, objcg: int) -> int:
        self._take(0)
        return int(tables.account_of(self.m, signed(objcg)))

    def _keep(self, table: int, key: int, row: int, used: int) -> None:
        """Keep a row for a key, where there may be no room yet."""
        if 2 * (used + L.ROOM) > self.m[table + 1]:
            self.rehash(table, 4 * (int(self.m[table + 1]) + 1))
        tables.keep(self.m, table, key, row)

    def _load_pool(self, pool: dict[str, Any]) -> list[int]:
        """Take over zspages, objects and lists; returns the rows of the objects."""
        zspages = []
        for index, inuse, freeobj, link, _, address, frames in pool["zspages"]:
            count = len(link)
            row = self._take(L.Z_LINKS + 2 * count)
            zspages.append(row)
            m = self.m
            m[row + L.Z_CLASS], m[row + L.Z_INUSE], m[row + L.Z_FREEOBJ] = self._class_rows[index], inuse, freeobj
            m[row + L.Z_ADDRESS], m[row + L.Z_PLACES] = signed(address), row + L.Z_LINKS + count
            m[row + L.Z_ALL], m[L.ZSPAGES] = m[L.ZSPAGES], row
            m[row + L.Z_FRAMES:row + L.Z_FRAMES + len(frames)] = frames
            m[row + L.Z_LINKS:row + L.Z_LINKS + count] = link
            m[row + L.Z_LINKS + count:row + L.Z_LINKS + 2 * count] = -1
            if address:
                self._keep(L.ADDRESSES_AT, signed(address), row, len(zspages))
                self.m[L.ADDRESSES] += 1
        objects = []
        for address, size, zspage, index in pool["objects"]:
            row = self._take(L.O_WIDTH)
            objects.append(row)
            self.m[row:row + L.O_WIDTH] = (signed(address), size, zspages[zspage], index, -1)
            self.m[self.m[zspages[zspage] + L.Z_PLACES] + index] = row
            if address:
                self._keep(L.HANDLES_AT, signed(address), row, len(objects))
        m = self.m
        m[L.OBJECTS_LIVE] = len(objects)
        for index, address, allocated, inuse, groups in pool["classes"]:
            cls = self._class_rows[index]
            m[cls + L.K_ADDRESS], m[cls + L.K_ALLOCATED], m[cls + L.K_INUSE] = signed(address), allocated, inuse
            for group, listed in enumerate(groups):
                for zspage in listed:
                    tables.group_insert(m, zspages[zspage], group)
                    m[cls + L.K_ZSPAGES] += 1
        return objects

    def _load_entry(self, row: list[Any], objects: list[int], spans: dict[int, list[int]]) -> int:
        swpent, length, obj, objcg, _, referenced, content, address, _ = row
        about = -1 if objcg is None else self._account(objcg)
        at = self._take(L.E_WIDTH)
        entry = self.m[at:at + L.E_WIDTH]
        entry[:] = 0
        entry[L.E_SWPENT], entry[L.E_LENGTH], entry[L.E_OBJ] = swpent, length, objects[obj]
        entry[L.E_ABOUT], entry[L.E_WHERE], entry[L.E_REF], entry[L.E_LIVE] = about, -1, referenced, 1
        entry[L.E_CONTENT] = -1 if content is None else content
        entry[L.E_ADDRESS] = signed(address)
        entry[L.E_SPAN_FROM], entry[L.E_SPAN_TO] = spans.get(swpent, (-1, 0))
        self.m[L.TREE] += 1
        self._keep(L.TREE_AT, swpent, at, int(self.m[L.TREE]))
        return at

    def load_tasks(self, engine: Engine) -> None:
        """Take over the tasks seen, what they are in, and what they may not have counted."""
        for pid in dict.fromkeys([*engine.batch.last_seen, *engine.state.stacks, *engine.state.unsure]):
            self.grow()
            self.m[L.NOW] = -1
            at = int(task_of(self.m, pid))
            task = self.m[at:at + L.T_WIDTH]
            task[L.T_LAST] = engine.batch.last_seen.get(pid, 0)
            task[L.T_FOREIGN], task[L.T_COUNTING] = pid in engine.foreign_adds, pid in engine.in_count
            if pid in engine.state.unsure:
                task[L.T_UNSURE] = 3
                self.m[L.UNSURE] += 1
            for running in engine.state.stacks.get(pid, ()):
                self._load_frame(running, at)
        self.carried = dict(engine.state.unsure)

    def _load_frame(self, running: Any, task: int) -> None:
        """Take over an operation that has no effect to come."""
        effect, state = LAST_EFFECT[running.name]
        f = int(operation(self.m, schema.CODE[running.name], task, running.start, state))
        self.m[f + L.Q_THEN] = L.THEN_END
        if effect == "obj_cgroup_uncharge_zswap":
            gone = running.last[1]
            about = self._account(gone.objcg)
            entry = int(new_entry(self.m, gone.swpent))
            self.m[entry + L.E_LENGTH], self.m[entry + L.E_ABOUT] = gone.length, about
            self.m[f + L.Q_FREED] = entry


@lru_cache(maxsize=16)
def _with_classes(chain_size: int) -> tuple[np.ndarray, dict[int, int]]:
    """Return a heap that holds the size classes of an empty pool, and the row of each by its index."""
    geometries = size_classes(chain_size)
    m = np.zeros(1 << 18, np.int64)
    m[L.LENGTH] = len(m)
    for scalar in (L.ENTRIES_SPARE, L.OBJECTS_SPARE, L.FRAMES_SPARE, L.ZSPAGES, L.ACCOUNTS, L.LISTS, L.TASKS,
                   L.TOTAL_AT, L.TREE_AT, L.HANDLES_AT, L.ADDRESSES_AT, L.TASKS_AT, L.CGROUPS_AT):
        m[scalar] = -1
    top = L.SCALARS
    rows: dict[int, int] = {}
    for geometry in sorted(set(geometries), key=lambda geometry: -geometry.index):
        row = rows[geometry.index] = top
        m[L.DESCENDING + len(rows) - 1] = row
        cls = m[row:row + L.K_WIDTH]
        cls[L.K_INDEX], cls[L.K_SIZE], cls[L.K_PAGES] = geometry.index, geometry.size, geometry.pages_per_zspage
        cls[L.K_OBJS], cls[L.K_HUGE] = geometry.objs_per_zspage, geometry.huge
        cls[L.K_WASTED] = geometry.pages_per_zspage * schema.PAGE_SIZE > geometry.objs_per_zspage * geometry.size
        cls[L.K_SPARE] = -1
        cls[L.K_HEAD:] = -1
        cls[L.K_GROUP_OF] = row + L.K_WIDTH
        model_class = SizeClass(geometry)
        zspage = Zspage(model_class)
        for inuse in range(geometry.objs_per_zspage + 1):
            zspage.inuse = inuse
            m[row + L.K_WIDTH + inuse] = model_class.get_fullness_group(zspage)
        top = row + L.K_WIDTH + geometry.objs_per_zspage + 1
    m[L.DESCENDING + len(rows)] = -1
    for raw, geometry in enumerate(geometries):
        m[L.CLASS_OF + raw] = rows[geometry.index]
    m[L.TOP] = top
    return m, rows
