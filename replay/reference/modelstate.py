# SPDX-License-Identifier: GPL-2.0-or-later
"""The model's state as plain data: what a cut recording needs at its start.

``state.json`` of a recording holds everything that the events before the cut left behind: pools with their
zspages, free lists and list order, live objects and entries, LRU order, cgroup accounts, counters, and the
recorded addresses bound to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from model.counters import DEBUGFS, VMSTAT
from model.page import PAGE_SIZE
from model.zsmalloc import ZsObject, Zspage, ZsPool
from model.zswap import Zswap, ZswapEntry, ZswapPool
from replay.reference.invariants import Written
from replay.reference.state import ReplayState
from traces.errors import BadInput

if TYPE_CHECKING:
    from replay.reference.engine import Engine

__all__ = ["dump_state", "load_state"]

_T = TypeVar("_T")

_VERSION: Final = 1
_PARAMS: Final = {"enabled": bool, "max_pool_percent": int, "accept_threshold_percent": int, "pool_reached_full": bool,
                  "zswap_max": int, "writeback_enabled": bool, "untold_folios": bool}
#: those that states of before they were kept do not have
_LATER: Final = {"shrinker_enabled": bool, "_writeback_was_off": bool}
#: those that nothing may have said
_UNKNOWN: Final = frozenset({"zswap_max", "writeback_enabled", "shrinker_enabled"})
#: MAX_PAGE_ORDER
_MAX_ORDER: Final = 10
_MEMCG: Final = ("incompressible", "zswap", "zswapped", "zswpin", "zswpout", "zswpwb")


def dump_state(engine: Engine) -> dict[str, Any]:
    """Return the state of an engine between operations.

    :raises ValueError: when a task is inside an operation
    """
    if not engine.quiescent():
        raise ValueError("a task is inside an operation")
    shared, model = engine.state, engine.state.model
    objects: dict[ZsObject, int] = {}
    entries: dict[ZswapEntry, int] = {}
    pools = []
    for pool in model.pools:
        pools.append({"tfm_name": pool.tfm_name, "entries": pool.entries, "dying": pool.dying,
                      **_dump_pool(pool.zs_pool, objects)})
    rows: list[list[Any]] = []
    for entry in model.tree.values():
        entries[entry] = len(rows)
        rows.append([entry.swpent, entry.length, objects[entry.obj], entry.objcg, list(entry.lru or ()),
                     int(entry.referenced), entry.content, entry.address, model.pools.index(entry.pool)])
    counters = {name: getattr(model.counters, name) for name in (*DEBUGFS, *VMSTAT)}
    # Where a revision leaves open what an object of a whole page is, the state says it of each.
    whole = {} if model.WHOLE_IS_PAGE is not None else {"whole_pages": [
        [number, None if entry.obj.holds is None else entry.obj.holds.page_itself]
        for entry, number in entries.items() if entry.length == PAGE_SIZE]}
    return {
        "version": _VERSION,
        "params": {name: getattr(model, name) for name in (*_PARAMS, *_LATER)},
        "counters": counters,
        "mthp_zswpout": sorted(model.counters.mthp_zswpout.items()),
        "memcgs": [[objcg, *(getattr(account, name) for name in _MEMCG)] for objcg, account in model.memcgs.items()],
        "pools": pools,
        "entries": rows,
        "lru": [[nid, cgroup, [entries[entry] for entry in listed]]
                for (nid, cgroup), listed in model.lru.lists.items()],
        "memcg_of": list(shared.memcg_of.items()),
        "memcg_was": list(shared.memcg_was.items()),
        "root_memcg": shared.root_memcg,
        "lru_address": shared.lru_address,
        "entry_to_lru": shared.entry_to_lru,
        "counter_base": dict(shared.snapshots.base),
        "phase": engine.truth.phase,
        "inlined": sorted(engine.seen_inlined),
        "object_layout": [shared.idx_bits, shared.class_bits],
        "settings": shared.settings.dump(),
        **whole,
    }


def _dump_pool(pool: ZsPool, objects: dict[ZsObject, int]) -> dict[str, Any]:
    zspages: dict[Zspage, int] = {}
    zspage_rows: list[list[Any]] = []
    object_rows: list[list[Any]] = []
    classes = []
    for cls in pool.classes:
        groups = []
        for group in cls.groups:
            for zspage in group:
                zspages[zspage] = len(zspage_rows)
                zspage_rows.append([cls.geometry.index, zspage.inuse, zspage.freeobj, list(zspage.link), zspage.group,
                                    zspage.address, list(zspage.frames)])
                for obj in zspage.objects:
                    if obj is not None:
                        objects[obj] = len(objects)
                        object_rows.append([obj.address, obj.size, zspages[zspage], obj.index])
            groups.append([zspages[zspage] for zspage in group])
        if any(groups) or cls.address:
            classes.append([cls.geometry.index, cls.address, cls.objs_allocated, cls.objs_inuse, groups])
    return {"address": pool.address, "chain_size": pool.chain_size, "pages_allocated": pool.pages_allocated,
            "pages_compacted": pool.pages_compacted, "classes": classes, "zspages": zspage_rows,
            "objects": object_rows}


def load_state(engine: Engine, state: dict[str, Any]) -> None:
    """Put an engine into a dumped state.

    :raises BadInput: when the state is not one of this version, or is inconsistent
    """
    path = engine.state.recording.path / "state.json"
    if state.get("version") != _VERSION:
        raise BadInput(path, "", f"state version {state.get('version')} is not {_VERSION}",
                       "use the zreplay that wrote it")
    try:
        _load(engine, state)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise BadInput(path, "", f"the state is inconsistent ({type(problem).__name__}: {problem})",
                       "cut the recording again") from None


def _load(engine: Engine, state: dict[str, Any]) -> None:
    shared, model = engine.state, engine.state.model
    for name, kind in {**_PARAMS, **_LATER}.items():
        if name in _PARAMS or name in state["params"]:
            value = state["params"][name]
            setattr(model, name, None if value is None and name in _UNKNOWN else kind(value))
    for name, value in state["counters"].items():
        if name not in DEBUGFS and name not in VMSTAT:
            raise ValueError(f"there is no counter '{name}'")
        setattr(model.counters, name, int(value))
    model.counters.mthp_zswpout = {int(order): int(count) for order, count in state["mthp_zswpout"]}
    if not all(0 <= order <= _MAX_ORDER for order in model.counters.mthp_zswpout):
        raise ValueError("folios of more pages than there are")
    for objcg, *values in state["memcgs"]:
        account = model.memcg(_address(objcg, 1))
        for name, value in zip(_MEMCG, values, strict=True):
            setattr(account, name, int(value))
    objects: list[ZsObject] = []
    model.pools = [_load_pool(shared, pool, objects) for pool in state["pools"]]
    if not model.pools:
        raise ValueError("it has no pool")
    entries = [_load_entry(model, row, objects) for row in state["entries"]]
    if len(model.tree) < len(entries) or len({entry.obj for entry in entries}) < len(entries):
        raise ValueError("two entries are at one place or have one object")
    if not model.memcgs.keys() >= {entry.objcg for entry in entries} - {None}:
        raise ValueError("an entry's cgroup has no account")
    for nid, cgroup, listed in state["lru"]:
        for number in listed:
            entry = _at(entries, number)
            if entry.lru != (nid, cgroup) or not model.lru.add((nid, cgroup), entry):
                raise ValueError(f"entry {number} is not listed where it says")
    _load_objects(model, entries, state)
    engine.invariants.zswpout_due = model.counters.zswpout
    # What an earlier version wrote has no memcg_was.
    shared.memcg_of, shared.memcg_was = ({_objcg(objcg): _address(memcg) for objcg, memcg in state.get(name, ())}
                                         for name in ("memcg_of", "memcg_was"))
    shared.root_memcg = _address(state["root_memcg"], -1)
    shared.lru_address = _address(state["lru_address"])
    shared.entry_to_lru = None if state["entry_to_lru"] is None else int(state["entry_to_lru"])
    shared.snapshots.base = {str(name): int(value) for name, value in state["counter_base"].items()}
    engine.truth.phase = None if state["phase"] is None else str(state["phase"])
    engine.has_state = True
    engine.seen_inlined = {str(name) for name in state["inlined"]}


def _load_objects(model: Zswap, entries: list[ZswapEntry], state: dict[str, Any]) -> None:
    """Set what each entry's object holds: less than a page is compressed, of a whole page the state says it.

    Where it does not, the revision that wrote the state left nothing open and is this one, or it is another one and
    what the object holds is not known.
    """
    whole: dict[int, bool | None] = {number: None if is_page is None else bool(is_page)
                                     for number, is_page in state.get("whole_pages", ())}
    for number, entry in enumerate(entries):
        is_page = False if entry.length < PAGE_SIZE else whole.get(number, model.WHOLE_IS_PAGE)
        entry.obj.holds = None if is_page is None else Written(entry.length, is_page)


def _at(rows: list[_T], number: int) -> _T:
    """Return the row of that number; none is counted from the end.

    :raises IndexError: where there is none
    """
    if number < 0:
        raise IndexError(f"there is no row {number}")
    return rows[number]


def _address(value: Any, least: int = 0) -> int:
    """Return an address of the recorded kernel, 0 where it is not known.

    :raises ValueError: for what is below ``least`` or has more than 64 bits
    """
    if not least <= int(value) < 1 << 64:
        raise ValueError(f"{value} is not an address")
    return int(value)


def _objcg(value: Any) -> int | None:
    return None if value is None else _address(value, 1)


def _load_entry(model: Zswap, row: list[Any], objects: list[ZsObject]) -> ZswapEntry:
    swpent, length, number, objcg, lru, referenced, content, address, pool = row
    entry = model.new_entry(int(swpent), _at(model.pools, pool))
    entry.length, entry.obj, entry.objcg = int(length), _at(objects, number), _objcg(objcg)
    entry.lru = (int(lru[0]), _address(lru[1])) if lru else None
    entry.referenced, entry.address = bool(referenced), _address(address)
    entry.content = -1 if content is None else int(content)
    if entry.obj.size != entry.length:
        raise ValueError(f"entry {swpent:#x} has length {length} but its object {entry.obj.size}")
    model.tree[entry.swpent] = entry
    return entry


def _load_pool(state: ReplayState, row: dict[str, Any], objects: list[ZsObject]) -> ZswapPool:
    pool = state.model.new_pool(str(row["tfm_name"]))
    zs_pool = pool.zs_pool
    pool.entries, pool.dying = int(row["entries"]), bool(row["dying"])
    zs_pool.address, zs_pool.pages_allocated = _address(row["address"]), int(row["pages_allocated"])
    zs_pool.pages_compacted = int(row["pages_compacted"])
    by_index = {cls.geometry.index: cls for cls in zs_pool.classes}
    zspages = []
    for index, inuse, freeobj, link, group, address, frames in row["zspages"]:
        zspage = Zspage(by_index[index])
        if len(link) != len(zspage.link) or len(frames) != len(zspage.frames):
            raise ValueError(f"zspage {address:#x} does not fit class {index}")
        zspage.inuse, zspage.freeobj, zspage.link = int(inuse), int(freeobj), [int(v) for v in link]
        zspage.group, zspage.address, zspage.frames = int(group), _address(address), [int(v) for v in frames]
        zspages.append(zspage)
        if zspage.address:
            state.zspages[zspage.address] = zspage
    for address, size, number, index in row["objects"]:
        obj = ZsObject(int(size))
        obj.address, obj.zspage, obj.index = _address(address), _at(zspages, number), int(index)
        if _at(obj.zspage.objects, obj.index) is not None:
            raise ValueError(f"two objects are at place {index} of zspage {obj.zspage.address:#x}")
        obj.zspage.objects[obj.index] = obj
        objects.append(obj)
        if obj.address:
            state.objects[obj.address] = obj
    for zspage in zspages:
        _check_places(zspage)
    pages, unlisted = 0, set(zspages)
    for index, address, allocated, inuse, groups in row["classes"]:
        cls = by_index[index]
        cls.address = _address(address)
        if cls.address:
            state.classes[cls.address] = cls
        cls.objs_allocated, cls.objs_inuse = int(allocated), int(inuse)
        for group, listed in enumerate(groups):
            for number in listed:
                zspage = _at(zspages, number)
                if zspage.cls is not cls or not zspage.group == group == cls.get_fullness_group(zspage):
                    raise ValueError(f"zspage {zspage.address:#x} is listed where it does not belong")
                if zspage not in unlisted:
                    raise ValueError(f"zspage {zspage.address:#x} is listed twice")
                unlisted.remove(zspage)
                cls.groups[group][zspage] = None
                cls.zspages += 1
        pages += cls.zspages * cls.geometry.pages_per_zspage
    if unlisted:
        raise ValueError(f"zspage {unlisted.pop().address:#x} is on no list")
    if pages != zs_pool.pages_allocated:
        raise ValueError(f"its zspages have {pages} pages, the pool {zs_pool.pages_allocated}")
    return pool


def _check_places(zspage: Zspage) -> None:
    """Check that a zspage's free list goes through each of its free places once.

    :raises ValueError: where it does not, or another number of objects is in use
    """
    free = [index for index, obj in enumerate(zspage.objects) if obj is None]
    if zspage.inuse != len(zspage.objects) - len(free):
        raise ValueError(f"zspage {zspage.address:#x} says {zspage.inuse} objects in use")
    listed, index = [], zspage.freeobj
    for _ in free:
        listed.append(index)
        index = _at(zspage.link, index)
    if sorted(listed) != free:
        raise ValueError(f"the free list of zspage {zspage.address:#x} is not one of its free places")
