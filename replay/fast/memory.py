# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a compiled replay: made, enlarged, copied, and turned into the model's state and back.

The form in between is the one that a cut recording keeps (:mod:`replay.state`), so that both engines can start where
the other one stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.counters import DEBUGFS, VMSTAT
from model.memcg import MemcgZswap
from model.zsmalloc import size_classes
from model.zswap import Zswap
from replay.fast import layout as L
from replay.fast import tables
from traces import schema

if TYPE_CHECKING:
    from replay.engine import Engine

__all__ = ["Memory"]

#: None, where an address or a difference of addresses is not known yet
_UNBOUND: Final = -(1 << 62)
_TABLES: Final = ("frames", "entries", "objects", "zspages", "links", "places", "classes", "tree", "handles",
                  "addresses", "by_pid", "accounts", "lists", "tasks", "history", "totals", "s", "captured", "n", "x")
_ACCOUNT: Final = ("incompressible", "zswap", "zswapped", "zswpin", "zswpout", "zswpwb")
_OVER: Final = {"obj_cgroup_uncharge_zswap": L.F_UNCHARGE, "shrink_memcg_ret": L.M_RET,
                "zswap_shrinker_scan_ret": L.N_RET, "zs_shrinker_scan_ret": L.C_SCAN_RET, "shrink_worker_ret": L.K_RET}


def signed(value: int) -> int:
    """Return a 64-bit number as the tables keep it."""
    return value - (1 << 64) if value >= 1 << 63 else value


def unsigned(value: int) -> int:
    """Return a number of the tables as the recording has it."""
    return int(value) & (1 << 64) - 1


class Memory:
    """All tables of one compiled replay; columns are named in :mod:`replay.fast.layout`.

    :param chain_size: CONFIG_ZSMALLOC_CHAIN_SIZE
    :param changes: how many changes of cgroup accounts are remembered
    """

    def __init__(self, chain_size: int, changes: int) -> None:
        def table(rows: int, width: int) -> np.ndarray:
            return np.zeros((rows, width), np.int64)

        self.frames = table(64, L.Q_WIDTH)
        self.entries = table(4096, L.E_WIDTH)
        self.objects = table(4096, L.O_WIDTH)
        self.zspages = table(1024, L.Z_WIDTH)
        self.links = np.zeros(1 << 16, np.int64)
        self.places = np.zeros(1 << 16, np.int64)
        self.tree, self.handles, self.addresses, self.by_pid = (_hash(rows) for rows in (8192, 8192, 2048, 1024))
        self.accounts = table(64, L.G_WIDTH)
        self.lists = table(64, L.R_WIDTH)
        self.tasks = table(256, L.T_WIDTH)
        self.history = table(changes, 8)
        self.totals = table(L.TOTALS_ROOM, 2)
        self.s = np.zeros(L.SCALARS, np.int64)
        self.captured = np.zeros(256, np.int64)
        self.n = np.zeros(len(L.CHECK_IDS), np.int64)
        self.x = np.zeros(len(L.EXPLANATIONS), np.int64)
        self.setup = np.zeros(L.SETUP, np.int64)
        geometries = size_classes(chain_size)
        self.classes = table(len(geometries), L.K_WIDTH)
        self.class_of = np.array([geometry.index for geometry in geometries], np.int64)
        self.descending = np.array(sorted({geometry.index for geometry in geometries}, reverse=True), np.int64)
        for geometry in set(geometries):
            row = self.classes[geometry.index]
            row[L.K_SIZE], row[L.K_PAGES] = geometry.size, geometry.pages_per_zspage
            row[L.K_OBJS], row[L.K_HUGE] = geometry.objs_per_zspage, geometry.huge
            row[L.K_WASTED] = geometry.pages_per_zspage * schema.PAGE_SIZE > geometry.objs_per_zspage * geometry.size
        self.classes[:, L.K_SPARE] = -1
        self.classes[:, L.K_HEAD:] = -1
        for scalar in (L.ENTRIES_SPARE, L.OBJECTS_SPARE, L.FRAMES_SPARE):
            self.s[scalar] = -1
        self.s[L.TOTAL_AT] = -1
        #: counters that differ by what a task has not counted yet, for tasks of before this replay took over
        self.carried: dict[int, dict[str, int]] = {}

    def arguments(self) -> tuple[np.ndarray, ...]:
        """Return the tables in the order in which the compiled loop takes them."""
        return (self.frames, self.entries, self.objects, self.zspages, self.links, self.places, self.classes,
                self.class_of, self.descending, self.tree, self.handles, self.addresses, self.by_pid, self.accounts,
                self.lists, self.tasks, self.history, self.totals, self.s, self.setup, self.captured, self.n, self.x)

    # ---- size -------------------------------------------------------------------------------------------

    def grow(self) -> None:
        """Enlarge what is nearly full."""
        s = self.s
        for name, used, spare in (("entries", s[L.ENTRIES_LIVE], 64), ("objects", s[L.OBJECTS_LIVE], 64),
                                  ("zspages", s[L.ZSPAGES_TOP], 8), ("tasks", s[L.TASKS], 2),
                                  ("frames", s[L.FRAMES], 4), ("accounts", s[L.ACCOUNTS], 4),
                                  ("lists", s[L.LISTS], 4), ("links", s[L.LINKS_TOP], 4096),
                                  ("places", s[L.LINKS_TOP], 4096)):
            old: np.ndarray = getattr(self, name)
            if used + spare > len(old):
                setattr(self, name, _longer(old))
        for name, used in (("tree", s[L.TREE]), ("handles", s[L.OBJECTS_LIVE]), ("addresses", s[L.ADDRESSES]),
                           ("by_pid", s[L.TASKS])):
            old = getattr(self, name)
            if 2 * (used + 4) > len(old):
                new = _hash(4 * len(old))
                tables.room(old, new)
                setattr(self, name, new)

    def copy(self) -> dict[str, np.ndarray]:
        """Return all that changes, as it is."""
        return {name: getattr(self, name).copy() for name in _TABLES}

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Go back to what :meth:`copy` returned."""
        for name, values in kept.items():
            setattr(self, name, values.copy())

    # ---- what the model's counters say -----------------------------------------------------------------

    def show(self, model: Zswap) -> None:
        """Write counters, accounts and totals into a model for whoever looks at them there."""
        s = self.s
        for number, name in enumerate(L.COUNTERS):
            setattr(model.counters, name, int(s[number]))
        model.counters.mthp_zswpout = {order: int(s[L.N_MTHP + order]) for order in range(12) if s[L.N_MTHP + order]}
        model.memcgs = {}
        for row in self.accounts[:s[L.ACCOUNTS]]:
            if row[L.G_HAS_ACCOUNT]:
                account = model.memcgs[unsigned(row[L.G_OBJCG])] = MemcgZswap()
                for number, name in enumerate(_ACCOUNT):
                    setattr(account, name, int(row[L.G_INCOMPRESSIBLE + number]))
        model.untold_folios = bool(s[L.UNTOLD])
        model.pool_reached_full = bool(s[L.REACHED_FULL])
        pool = model.pools[0].zs_pool
        pool.pages_allocated = int(s[L.PAGES])
        for cls in pool.classes:
            cls.objs_allocated = int(self.classes[cls.geometry.index, L.K_ALLOCATED])
            cls.objs_inuse = int(self.classes[cls.geometry.index, L.K_INUSE])

    def take_params(self, model: Zswap) -> None:
        """Take over what parameters and cgroup files say."""
        s = self.s
        s[L.ENABLED] = model.enabled
        s[L.MAX_PAGES] = model.max_pages()
        s[L.ACCEPT_PAGES] = model.accept_thr_pages()
        s[L.ZSWAP_MAX] = model.zswap_max
        s[L.WRITEBACK] = model.writeback_enabled
        s[L.WAS_OFF] = model._writeback_was_off
        s[L.SHRINKER] = model.shrinker_enabled

    def content_at(self, swpent: int) -> int | None:
        """Return the content of the entry stored at a slot, None where there is none."""
        row = tables.find(self.tree, swpent)
        return None if row < 0 else int(self.entries[row, L.E_CONTENT])

    # ---- to the reference --------------------------------------------------------------------------------

    def dump(self, engine: Engine) -> dict[str, Any]:
        """Return the state as :func:`replay.state.dump_state` does, to be loaded into a new model.

        Only where no operation is under way that has effects to come.
        """
        s, model = self.s, engine.model
        objects: dict[int, int] = {}
        zspage_rows: list[list[Any]] = []
        object_rows: list[list[Any]] = []
        classes = []
        for number in self.descending.tolist():
            cls = self.classes[number]
            groups = []
            for group in range(L.GROUPS):
                listed = []
                for zspage in list(self._chain(self.zspages, int(cls[L.K_HEAD + group]), L.Z_NEXT))[::-1]:
                    listed.append(len(zspage_rows))
                    row = self.zspages[zspage]
                    at, count = int(row[L.Z_AT]), int(cls[L.K_OBJS])
                    for obj in self.places[at:at + count].tolist():
                        if obj >= 0:
                            objects[obj] = len(object_rows)
                            object_rows.append([unsigned(self.objects[obj, L.O_ADDRESS]),
                                                int(self.objects[obj, L.O_SIZE]), len(zspage_rows),
                                                int(self.objects[obj, L.O_INDEX])])
                    frames = row[L.Z_FRAMES:L.Z_FRAMES + int(cls[L.K_PAGES])].tolist()
                    zspage_rows.append([number, int(row[L.Z_INUSE]), int(row[L.Z_FREEOBJ]),
                                        self.links[at:at + count].tolist(), int(row[L.Z_GROUP]),
                                        unsigned(row[L.Z_ADDRESS]), frames])
                groups.append(listed)
            if any(groups) or cls[L.K_ADDRESS]:
                classes.append([number, unsigned(cls[L.K_ADDRESS]), int(cls[L.K_ALLOCATED]), int(cls[L.K_INUSE]),
                                groups])
        pool = {"tfm_name": model.pools[0].tfm_name, "entries": int(s[L.POOL_ENTRIES]), "dying": False,
                "address": unsigned(s[L.POOL_ADDRESS]), "chain_size": model.chain_size,
                "pages_allocated": int(s[L.PAGES]), "pages_compacted": int(s[L.COMPACTED]), "classes": classes,
                "zspages": zspage_rows, "objects": object_rows}
        rows: list[list[Any]] = []
        numbers: dict[int, int] = {}
        for entry in self.tree[self.tree[:, 1] >= 0, 1].tolist():
            numbers[entry] = len(rows)
            row = self.entries[entry]
            where = self.lists[row[L.E_WHERE]] if row[L.E_WHERE] >= 0 else None
            rows.append([int(row[L.E_SWPENT]), int(row[L.E_LENGTH]), objects[int(row[L.E_OBJ])], self._objcg(row),
                         [] if where is None else [int(where[L.R_NID]), unsigned(where[L.R_MEMCG])],
                         int(row[L.E_REF]), int(row[L.E_CONTENT]), unsigned(row[L.E_ADDRESS]), 0])
        lru = [[int(row[L.R_NID]), unsigned(row[L.R_MEMCG]),
                [numbers[entry] for entry in self._chain(self.entries, int(row[L.R_HEAD]), L.E_NEXT)]]
               for row in self.lists[:s[L.LISTS]] if row[L.R_ALIVE]]
        accounts = self.accounts[:s[L.ACCOUNTS]]
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
            "root_memcg": int(s[L.ROOT_MEMCG]) if s[L.ROOT_MEMCG] == -1 else unsigned(s[L.ROOT_MEMCG]),
            "lru_address": unsigned(s[L.LRU_ADDRESS]), "entry_to_lru": None if to_lru == _UNBOUND else to_lru,
            "counter_base": dict(engine.snapshots.base), "phase": engine.truth.phase,
            "inlined": ["zs_compact"] if s[L.SEEN_INLINED] else [],
        }

    def _objcg(self, entry: np.ndarray) -> int | None:
        about = int(entry[L.E_ABOUT])
        return unsigned(self.accounts[about, L.G_OBJCG]) if about >= 0 else None

    @staticmethod
    def _chain(table: np.ndarray, row: int, column: int) -> Iterator[int]:
        while row >= 0:
            yield row
            row = int(table[row, column])

    def spans(self) -> dict[int, list[int]]:
        """Return swap entry -> events between which its listing overlapped another's, of live entries."""
        rows = [self.entries[row] for row in self.tree[self.tree[:, 1] >= 0, 1]]
        return {int(row[L.E_SWPENT]): [int(row[L.E_SPAN_FROM]), int(row[L.E_SPAN_TO])] for row in rows
                if row[L.E_SPAN_FROM] >= 0}

    def ending(self) -> Iterator[tuple[int, int, int, tuple[int, int, int | None] | None]]:
        """Yield (task, code of the operation, its first event, entry) of operations with no effect to come.

        ``entry`` is (swap entry, length, cgroup) of the entry that an invalidate has freed but not counted yet.
        """
        for task in self.tasks[:self.s[L.TASKS]]:
            if task[L.T_TOP] >= 0:
                frame = self.frames[task[L.T_TOP]]
                entry = None
                if frame[L.Q_STATE] == L.F_UNCHARGE:
                    row = self.entries[frame[L.Q_FREED]]
                    entry = (int(row[L.E_SWPENT]), int(row[L.E_LENGTH]), self._objcg(row))
                yield int(task[L.T_PID]), int(frame[L.Q_OP]), int(frame[L.Q_START]), entry

    def unsure(self, model: Zswap) -> dict[int, dict[str, int]]:
        """Return Engine.unsure of the tasks that were let go on and not seen since."""
        out: dict[int, dict[str, int]] = {}
        several = int(np.count_nonzero(self.accounts[:self.s[L.ACCOUNTS], L.G_HAS_ACCOUNT])) > 1
        for task in self.tasks[:self.s[L.TASKS]]:
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
        """Take over a state that :func:`replay.state.dump_state` describes, into tables that are still empty.

        :param spans: as :meth:`spans` returns
        """
        s, pool = self.s, state["pools"][0]
        while len(state["entries"]) + 64 > len(self.entries):
            self.entries = _longer(self.entries)
        while len(pool["objects"]) + 64 > len(self.objects):
            self.objects = _longer(self.objects)
        while len(pool["zspages"]) + 8 > len(self.zspages):
            self.zspages = _longer(self.zspages)
        places = sum(len(row[3]) for row in pool["zspages"])
        while places + 4096 > len(self.links):
            self.links, self.places = _longer(self.links), _longer(self.places)
        live = max(len(state["entries"]), len(pool["objects"]), 1024)
        self.tree, self.handles = _hash(4 * live), _hash(4 * live)
        self.addresses = _hash(4 * max(len(pool["zspages"]), 512))
        for name, value in state["counters"].items():
            s[L.COUNTERS.index(name)] = value
        for order, count in state["mthp_zswpout"]:
            s[L.N_MTHP + order] = count
        s[L.REACHED_FULL], s[L.UNTOLD] = state["params"]["pool_reached_full"], state["params"]["untold_folios"]
        s[L.PAGES], s[L.COMPACTED] = pool["pages_allocated"], pool["pages_compacted"]
        s[L.POOL_ENTRIES], s[L.POOL_ADDRESS] = pool["entries"], signed(pool["address"])
        s[L.ROOT_MEMCG], s[L.LRU_ADDRESS] = signed(state["root_memcg"]), signed(state["lru_address"])
        s[L.ENTRY_TO_LRU] = _UNBOUND if state["entry_to_lru"] is None else state["entry_to_lru"]
        s[L.SEEN_INLINED] = "zs_compact" in state["inlined"]
        for objcg, *values in state["memcgs"]:
            account = self._account(objcg)
            self.accounts[account, L.G_HAS_ACCOUNT] = 1
            self.accounts[account, L.G_INCOMPRESSIBLE:L.G_INCOMPRESSIBLE + 6] = values
        for objcg, memcg in state["memcg_of"]:
            account = self._account(objcg or 0)
            self.accounts[account, L.G_HAS_MEMCG], self.accounts[account, L.G_MEMCG] = 1, signed(memcg)
        self._load_pool(pool)
        for number, row in enumerate(state["entries"]):
            self._load_entry(number, row, spans)
        s[L.ENTRIES_LIVE] = s[L.ENTRIES_TOP] = s[L.TREE] = len(state["entries"])
        for number, (nid, memcg, listed) in enumerate(state["lru"]):
            while number + 4 > len(self.lists):
                self.lists = _longer(self.lists)
            self.lists[number] = (nid, signed(memcg), -1, -1, 0, 1)
            s[L.LISTS] = number + 1
            for entry in listed:
                tables.list_add(self.lists, self.entries, number, entry)
                self.entries[entry, L.E_WHERE] = number
        where = {(nid, memcg): number for number, (nid, memcg, _) in enumerate(state["lru"])}
        for number, row in enumerate(state["entries"]):
            if row[4]:
                self.entries[number, L.E_WHERE] = where[tuple(row[4])]

    def _account(self, objcg: int) -> int:
        if self.s[L.ACCOUNTS] + 4 > len(self.accounts):
            self.accounts = _longer(self.accounts)
        return int(tables.account_of(self.accounts, self.s, signed(objcg)))

    def _load_pool(self, pool: dict[str, Any]) -> None:
        s, at = self.s, 0
        for number, (index, inuse, freeobj, link, _, address, frames) in enumerate(pool["zspages"]):
            row = self.zspages[number]
            row[L.Z_CLASS], row[L.Z_INUSE], row[L.Z_FREEOBJ], row[L.Z_AT] = index, inuse, freeobj, at
            row[L.Z_ADDRESS] = signed(address)
            row[L.Z_FRAMES:L.Z_FRAMES + len(frames)] = frames
            self.links[at:at + len(link)] = link
            self.places[at:at + len(link)] = -1
            at += len(link)
            if address:
                s[L.ADDRESSES] += tables.keep(self.addresses, signed(address), number)
        s[L.ZSPAGES_TOP], s[L.LINKS_TOP] = len(pool["zspages"]), at
        for number, (address, size, zspage, index) in enumerate(pool["objects"]):
            self.objects[number] = (signed(address), size, zspage, index, -1)
            self.places[self.zspages[zspage, L.Z_AT] + index] = number
            if address:
                tables.keep(self.handles, signed(address), number)
        s[L.OBJECTS_LIVE] = s[L.OBJECTS_TOP] = len(pool["objects"])
        for index, address, allocated, inuse, groups in pool["classes"]:
            cls = self.classes[index]
            cls[L.K_ADDRESS], cls[L.K_ALLOCATED], cls[L.K_INUSE] = signed(address), allocated, inuse
            for group, listed in enumerate(groups):
                for zspage in listed:
                    tables.group_insert(self.zspages, self.classes, zspage, group)
                    cls[L.K_ZSPAGES] += 1

    def _load_entry(self, number: int, row: list[Any], spans: dict[int, list[int]]) -> None:
        swpent, length, obj, objcg, _, referenced, content, address, _ = row
        entry = self.entries[number]
        entry[L.E_SWPENT], entry[L.E_LENGTH], entry[L.E_OBJ] = swpent, length, obj
        entry[L.E_ABOUT] = -1 if objcg is None else self._account(objcg)
        entry[L.E_WHERE], entry[L.E_REF], entry[L.E_LIVE] = -1, referenced, 1
        entry[L.E_CONTENT] = -1 if content is None else content
        entry[L.E_ADDRESS], entry[L.E_LISTED] = signed(address), 0
        entry[L.E_SPAN_FROM], entry[L.E_SPAN_TO] = spans.get(swpent, (-1, 0))
        tables.keep(self.tree, swpent, number)

    def load_tasks(self, engine: Engine) -> None:
        """Take over the tasks seen, what they are in, and what they may not have counted."""
        pids = [*engine.seen_pids, *engine.stacks, *engine.unsure]
        for pid in dict.fromkeys(pids):
            while self.s[L.TASKS] + 2 > len(self.tasks):
                self.grow()
            row = int(self.s[L.TASKS])
            self.s[L.TASKS] += 1
            tables.keep(self.by_pid, pid, row)
            task = self.tasks[row]
            task[L.T_PID], task[L.T_TOP], task[L.T_ADDING], task[L.T_MOVING], task[L.T_FIRST] = pid, -1, -1, -1, -1
            task[L.T_FOREIGN], task[L.T_COUNTING] = pid in engine.foreign_adds, pid in engine._in_count
            if pid in engine.unsure:
                task[L.T_UNSURE] = 3
                self.s[L.UNSURE] += 1
            for running in engine.stacks.get(pid, ()):
                self._load_frame(running, row)
            self.grow()
        self.carried = dict(engine.unsure)

    def _load_frame(self, running: Any, task: int) -> None:
        s = self.s
        frame, effect = self.frames[s[L.FRAMES_TOP]], running.last
        frame[L.Q_OP], frame[L.Q_STATE] = schema.CODE[running.name], _OVER[effect[0]]
        frame[L.Q_START], frame[L.Q_UP], frame[L.Q_TASK] = running.start, -1, task
        frame[L.Q_TOTALS], frame[L.Q_FULLNESS], frame[L.Q_ANSWERED] = -1, -1, 1
        # An invalidate that has only to count yet: the value is that of zswap_entry_free()'s way out.
        frame[L.Q_THEN] = 3
        if effect[0] == "obj_cgroup_uncharge_zswap":
            gone = effect[1]
            entry = self.entries[s[L.ENTRIES_TOP]]
            entry[L.E_SWPENT], entry[L.E_LENGTH], entry[L.E_LIVE] = gone.swpent, gone.length, 1
            entry[L.E_ABOUT], entry[L.E_SPAN_FROM] = self._account(gone.objcg), -1
            frame[L.Q_FREED] = s[L.ENTRIES_TOP]
            s[L.ENTRIES_TOP] += 1
            s[L.ENTRIES_LIVE] += 1
        self.tasks[task, L.T_TOP] = s[L.FRAMES_TOP]
        s[L.FRAMES_TOP] += 1
        s[L.FRAMES] += 1

    @staticmethod
    def over(name: str, effect: str) -> bool:
        """True where an operation that has gone past an effect has none to come."""
        return effect in _OVER and (effect != "obj_cgroup_uncharge_zswap" or name == "zswap_invalidate") \
            and (effect != "shrink_memcg_ret" or name == "shrink_memcg")


def _hash(slots: int) -> np.ndarray:
    table = np.zeros((1 << max(10, (slots - 1).bit_length()), 2), np.int64)
    table[:, 1] = -1
    return table


def _longer(old: np.ndarray) -> np.ndarray:
    new = np.zeros((2 * len(old), *old.shape[1:]), np.int64)
    new[:len(old)] = old
    return new
