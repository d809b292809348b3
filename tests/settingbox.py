# SPDX-License-Identifier: GPL-2.0-or-later
"""A box with cgroups whose settings change, written down as the recorder would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import replay
from replay.verdict.result import CheckResult, Result
from traces import schema
from traces.recording import Recording, RecordingWriter

__all__ = ["SettingBox", "both", "check"]

_COLUMN = {name: at for at, name in enumerate(schema.column_names())}
_FOLIO = 0xFFFFEA0000000000
_MEMCG = 0xFFFF888000100000
_OBJCG = 0xFFFF888000200000
_LRU = 0xFFFFFFFF83F07F60
_ENTRY = 0xFFFF888000300000
#: What the recorder captures here: zswap's own steps, not those of zsmalloc.
_PROBED = ("swap_writeout", "swap_writeout_ret", "__swap_writepage", "zswap_store", "zswap_store_ret", "zswap_invalidate",
           "crypto_acomp_compress", "crypto_acomp_compress_ret", "obj_cgroup_may_zswap_ret", "obj_cgroup_charge_zswap",
           "obj_cgroup_uncharge_zswap", "mem_cgroup_zswap_writeback_enabled_ret", "shrink_memcg", "shrink_memcg_ret",
           "zswap_shrinker_scan", "zswap_shrinker_scan_ret", "zswap_load", "zs_shrinker_scan", "list_lru_add",
           "list_lru_add_ret", "list_lru_del", "memcg_reparent_list_lrus")
_SETTINGS = ("param_attr_store", "param_attr_store_ret", "zswap_max_write", "zswap_max_write_ret", "zswap_writeback_write",
             "zswap_writeback_write_ret", "mem_cgroup_css_online", "mem_cgroup_css_offline",
             "mem_cgroup_css_offline_ret", "mem_cgroup_css_reset", "zswap_current_read_ret")
#: page_io.c: a folio that may not be written back stays in memory
_ACTIVATE = 0x80000


def check(result: Result, name: str) -> CheckResult:
    """Return a check's result."""
    return next(check for check in result.checks if check.id == name)


def both(recording: Recording) -> Result:
    """Replay by both engines, which must say the same."""
    results = [replay.replay(recording, engine=engine) for engine in ("reference", "fast")]
    said = [[(c.id, c.compared, c.different, c.reason) for c in result.checks] for result in results]
    assert results[0].verdict == results[1].verdict
    assert said[0] == said[1]
    assert results[0].reasons == results[1].reasons
    return results[0]


class SettingBox:
    """Writes events down one by one; a cgroup is named by its path, as ``/system.slice/a``.

    :param writeback: memory.zswap.writeback of the cgroups there are; without it a refused page finds no walk
    """

    def __init__(self, *cgroups: str, whose: bool = True, probes: tuple[str, ...] = _SETTINGS,
                 writeback: str = "0") -> None:
        self.rows: list[dict[str, int]] = []
        self.texts: list[tuple[int, str]] = []
        self.ids: dict[str, int] = {"/": 1}
        #: cgroups whose obj_cgroup or mem_cgroup reuses the address of another one's
        self.objcg_of: dict[str, int] = {}
        self.memcg_of: dict[str, int] = {}
        self.limits: dict[str, str] = {}
        self.writeback: dict[str, str] = {"/": "1"}
        self.params = {"enabled": "Y", "max_pool_percent": "20", "accept_threshold_percent": "90", "compressor": "lz4",
                       "shrinker_enabled": "N"}
        self.snapshots: list[tuple[int, str, dict[str, Any]]] = []
        self.probes = (*_PROBED, *probes)
        self.whose = whose
        for path in cgroups:
            self.ids[path] = 10 + len(self.ids)
            self.limits[path], self.writeback[path] = "max", writeback
        self._first = [path for path in self.ids if path != "/"]
        self.snapshot("before")
        for path in self._first:
            self.add("zswap_current_read_ret", memcg=self.memcg(path), pool=self.memcg(self.parent(path)),
                     data=self.ids[path])

    @staticmethod
    def parent(path: str) -> str:
        """Return the path of the cgroup above."""
        return path.rpartition("/")[0] or "/"

    def memcg(self, path: str) -> int:
        """Return a cgroup's mem_cgroup."""
        return self.memcg_of.get(path) or _MEMCG + 0x1000 * self.ids[path]

    def objcg(self, path: str) -> int:
        """Return a cgroup's obj_cgroup."""
        return self.objcg_of.get(path) or _OBJCG + 0x100 * self.ids[path]

    def add(self, name: str, task: int = 100, text: str = "", **columns: int) -> None:
        """Add an event."""
        if text:
            self.texts.append((len(self.rows), text))
        self.rows.append({"event": schema.CODE[name], "pid": task, "ts": 1000 * (len(self.rows) + 1), **columns})

    def snapshot(self, label: str, **settings: Any) -> None:
        """A snapshot; ``settings`` are those of its part of that name."""
        number = len(self.snapshots)
        self.add("counters", 0, label, ret=number)
        ts = self.rows[-1]["ts"]
        cgroups = [{"id": number, "path": path, **({"root": True} if path == "/" else {}),
                    **({"memory.zswap.max": self.limits[path]} if path in self.limits else {}),
                    "memory.zswap.writeback": self.writeback[path]} for path, number in self.ids.items()]
        # The first reads settings once more when the rings are on.
        end = ts + (1000 * (len(self.ids) + 1) if not number else 10)
        said = {"t": ts / 1e9, "t_end": end / 1e9, "params": dict(self.params), "cgroups": cgroups, **settings}
        self.snapshots.append((ts, label, {"t": ts / 1e9, "params": dict(self.params), "settings": said}))

    def create(self, path: str, objcg: int = 0, memcg: int = 0) -> None:
        """mkdir; ``objcg`` and ``memcg``: addresses that are used again"""
        self.objcg_of[path], self.memcg_of[path] = objcg, memcg
        self.ids[path] = 10 + len(self.ids) + sum(row["event"] == schema.CODE["mem_cgroup_css_offline"]
                                                  for row in self.rows)
        self.limits[path], self.writeback[path] = "max", "1"
        self.add("mem_cgroup_css_online", memcg=self.memcg(path), pool=self.memcg(self.parent(path)),
                 data=self.ids[path])

    def remove(self, path: str, before: Callable[[], None] = bool, after: Callable[[], None] = bool) -> None:
        """rmdir; ``before`` and ``after`` the reparenting of its lists something else happens"""
        self.add("mem_cgroup_css_offline", 7, memcg=self.memcg(path))
        before()
        self.add("memcg_reparent_list_lrus", 7, memcg=self.memcg(path), pool=self.memcg(self.parent(path)))
        after()
        self.add("mem_cgroup_css_offline_ret", 7, memcg=self.memcg(path))

    def write(self, path: str, file: str, text: str, task: int = 50, ret: int | None = None) -> None:
        """Write to a cgroup's memory.zswap.max or .writeback; ``ret`` is an errno where it is refused."""
        self.enter(path, file, text, task)
        self.add(f"zswap_{file}_write_ret", task, ret=len(text) if ret is None else ret)
        if ret is None:
            (self.limits if file == "max" else self.writeback)[path] = text

    def enter(self, path: str, file: str, text: str, task: int = 50) -> None:
        """The entry of a write."""
        self.add(f"zswap_{file}_write", task, text, data=self.ids[path])

    def param(self, name: str, text: str, ret: int | None = None) -> None:
        """Write to a parameter."""
        self.add("param_attr_store", 50, f"zswap.{name}={text}")
        self.add("param_attr_store_ret", 50, ret=len(text) if ret is None else ret)

    def _asked(self, name: str, task: int, answer: bool, path: str) -> None:
        if name == "obj_cgroup_may_zswap_ret":
            self.add(name, task, ret=int(answer), memcg=self.objcg(path), pool=self.memcg(path))
        else:
            self.add(name, task, ret=int(answer), memcg=self.memcg(path))

    def store(self, path: str, swpent: int, length: int = 3000, task: int = 100, *, wait: bool = False) -> None:
        """A page of a cgroup is stored in ``length`` bytes; with ``wait`` its task has not continued after the charge."""
        self._begin(swpent, task)
        self._asked("obj_cgroup_may_zswap_ret", task, True, path)
        self.add("crypto_acomp_compress", task, folio=_FOLIO + 64 * swpent, size=4096, dlen=4096)
        self.add("crypto_acomp_compress_ret", task, dlen=length)
        self.add("obj_cgroup_charge_zswap", task, memcg=self.objcg(path), size=length)
        if not wait:
            self.stored(path, swpent, task)

    def stored(self, path: str, swpent: int, task: int = 100) -> None:
        """The end of :meth:`store`."""
        self.add("list_lru_add", task, pool=_LRU, entry=_ENTRY + 64 * swpent, memcg=self.memcg(path))
        self.add("list_lru_add_ret", task, ret=1)
        self.add("zswap_store_ret", task, ret=1)
        self.add("swap_writeout_ret", task)

    def refuse(self, path: str, swpent: int, task: int = 100, writeback: bool = False) -> None:
        """A cgroup's limit refuses a page, which goes to the device where it may."""
        self._begin(swpent, task)
        self._asked("obj_cgroup_may_zswap_ret", task, False, path)
        self.add("shrink_memcg", task, memcg=self.memcg(path))
        self._asked("mem_cgroup_zswap_writeback_enabled_ret", task, writeback, path)
        self.add("shrink_memcg_ret", task, ret=-2)
        self.add("zswap_store_ret", task)
        self._asked("mem_cgroup_zswap_writeback_enabled_ret", task, writeback, path)
        if writeback:
            self.add("__swap_writepage", task, folio=_FOLIO + 64 * swpent, swpent=swpent)
        self.add("swap_writeout_ret", task, ret=0 if writeback else _ACTIVATE)

    def off(self, path: str, swpent: int, task: int = 100) -> None:
        """zswap is off: a page goes to the device, whatever its cgroup says."""
        self._begin(swpent, task)
        self.add("zswap_store_ret", task)
        self._asked("mem_cgroup_zswap_writeback_enabled_ret", task, True, path)
        self.add("__swap_writepage", task, folio=_FOLIO + 64 * swpent, swpent=swpent)
        self.add("swap_writeout_ret", task)

    def _begin(self, swpent: int, task: int) -> None:
        for name in ("swap_writeout", "zswap_store"):
            self.add(name, task, folio=_FOLIO + 64 * swpent, swpent=swpent)

    def free(self, path: str, swpent: int, length: int = 3000, task: int = 100, now: str = "") -> None:
        """A slot is freed; ``now``: the cgroup whose list its entry is on by now."""
        self.add("zswap_invalidate", task, swpent=swpent)
        self.add("list_lru_del", task, pool=_LRU, entry=_ENTRY + 64 * swpent, memcg=self.memcg(now or path))
        self.add("obj_cgroup_uncharge_zswap", task, memcg=self.objcg(path), size=length)

    def scan(self, path: str, walks: bool, writeback: bool = True, task: int = 60) -> None:
        """The dynamic shrinker scans, when it is on, and finds nothing."""
        self.add("zswap_shrinker_scan", task, size=32, memcg=self.memcg(path))
        if walks:
            self._asked("mem_cgroup_zswap_writeback_enabled_ret", task, writeback, path)
        self.add("zswap_shrinker_scan_ret", task, ret=-1)

    def recording(self, out: Path) -> Recording:
        """Return all that as a recording."""
        block = np.zeros((len(_COLUMN), len(self.rows)), np.int64)
        block[_COLUMN["content"]] = -1
        for at, row in enumerate(self.rows):
            for name, value in row.items():
                block[_COLUMN[name], at] = value - (1 << 64) if value >> 63 == 1 else value
        probes = {kind.name: {"columns": [name for name in kind.columns if self.whose or name == "ret"
                                          or not kind.name.endswith(("may_zswap_ret", "writeback_enabled_ret"))],
                              "function": kind.name} for kind in schema.EVENTS if kind.name in self.probes}
        probes |= {name: {"columns": ["ret", "text"], "function": ""} for name in ("counters", "marker")}
        with RecordingWriter(out) as writer:
            writer.write_rows(block, self.texts)
            for ts, label, values in self.snapshots:
                writer.add_snapshot(label, ts, values)
            writer.close({
                "kernel": {"release": "7.3.0", "version": "7.3.0"}, "probes": probes, "unpaired": [], "tasks": {},
                "config": {"compressor": "lz4", "chain_size": 8, "totalram_pages": 1 << 20,
                           "symbols": {"zswap_list_lru": _LRU},
                           "params": self.snapshots[0][2]["params"]},
                "losses": [{"cpu": 0, "lost": 0}], "ts_unit_ns": 1, "notes": [], "source": {}})
        return Recording(out)
