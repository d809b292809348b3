# SPDX-License-Identifier: GPL-2.0-or-later
"""Counter snapshots: all that the kernel reports of zswap and zsmalloc, read one file after the other.

The keys and what they hold are those of the recording format (traces/FORMAT.md, "Counter snapshots"); the order
of reading is part of it: what a replay takes for the time of a value goes by it.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from .cgroups import read_settings

__all__ = ["snapshot"]

#: Counters of /proc/vmstat that have to do with reclaim, swap and compressed memory.
_VMSTAT = re.compile(r"nr_free_pages|nr_free_pages_blocks|nr_zspages|nr_foll_pin\w*|pgsteal\w*|pgscan\w*|pswp\w*"
                     r"|thp_swpout\w*|swap_ra\w*|swp(in|out)_zero|zswp\w*")
#: The two that are compared with each other come first, one right after the other.
_MEMCG = ("memory.stat", "memory.zswap.current", "memory.current", "memory.swap.current", "memory.events",
          "memory.zswap.writeback", "memory.zswap.max", "memory.max")
_MTHP = ("swpout", "swpout_fallback", "zswpout", "swpin", "swpin_fallback", "anon_fault_alloc", "split")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _files(directory: Path) -> dict[str, str]:
    """Return the stripped texts of a directory's files; those that cannot be read are left out."""
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError:
        return {}
    texts = {path.name: _text(path) for path in paths}
    return {name: text.strip() for name, text in texts.items() if text is not None}


def snapshot(cgroup: Path | None, root: Path = Path("/")) -> dict[str, Any]:
    """Read all counters; ``t`` and ``t_end`` are when reading began and ended, seconds of the trace clock.

    :param cgroup: directory of the recorded cgroup, or None
    :param root: where proc and sys are mounted
    """
    sys_mm = root / "sys/kernel/mm"
    values: dict[str, Any] = {"t": time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9}
    values["zswap_debugfs"] = _files(root / "sys/kernel/debug/zswap")
    rows = [line.split() for line in (_text(root / "proc/vmstat") or "").splitlines()]
    values["vmstat"] = {row[0]: int(row[1]) for row in rows if len(row) == 2 and _VMSTAT.fullmatch(row[0])}
    values["meminfo"] = _text(root / "proc/meminfo") or ""
    values["params"] = _files(root / "sys/module/zswap/parameters")
    values["memcg"] = {}
    if cgroup is not None:
        for name in _MEMCG:
            text = _text(cgroup / name)
            if text is not None:
                values["memcg"][name] = text
    values["mthp"] = {}
    for size in sorted((sys_mm / "transparent_hugepage").glob("hugepages-*kB")):
        stats = _files(size / "stats")
        values["mthp"][size.name.split("-", 1)[1]] = {name: stats[name] for name in _MTHP if name in stats}
    values["swaps"] = _text(root / "proc/swaps") or ""
    classes = {path.parent.name: _text(path) for path in (root / "sys/kernel/debug/zsmalloc").glob("*/classes")}
    values["zsmalloc_debugfs"] = {name: text for name, text in classes.items() if text is not None}
    # iaa-crypto.rst calls the directory iaa-crypto; the driver, from 6.12 to 7.3, makes it under its own name.
    crypto = root / "sys/kernel/debug/iaa_crypto"
    if crypto.is_dir():
        values["iaa_crypto"] = _files(crypto)
    values["settings"] = read_settings(root)
    values["t_end"] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9
    return values
