# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls without a return and returns without a call: events are missing, whatever the recording says of losses.

No count in the other CPUs' rings shows that one CPU's ring was not recorded, or not copied.  But tasks move between
CPUs, and what they did there is missing in the middle: a function that a task entered has to return before the task can
enter it again.  The same shows returns that a probe misses and the kernel does not count: those of fprobes up to 6.13
that name no number of tasks.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from traces import schema
from traces.recording import Recording

__all__ = ["broken_calls", "cpus_without_ring", "silent_cpus"]

#: Functions that do not nest, not even where reclaim begins inside of what called them.  Nothing reclaims while a folio
#: is written out: who does that is reclaim itself (PF_MEMALLOC, reclaim_pages() too).
_LEAVES: Final = ("crypto_acomp_compress", "crypto_acomp_decompress", "zs_malloc", "obj_malloc", "fix_fullness_group",
                  "zswap_load", "zswap_store", "swap_writeout")
#: More CPUs than any Linux is built for.
_MOST: Final = 1 << 16
#: This many are not an accident: one event that was taken out of a recording breaks one call.
_MANY: Final = 3
#: CPUs that are named.
_SHOWN: Final = 8


def cpus_without_ring(recording: Recording) -> list[int]:
    """Return the CPUs of the recorded box of which the recording has no event, and says nothing.

    Which there are the recorder says, or the kernel's log says how many; else those between others.
    """
    manifest = recording.manifest
    said = {loss["cpu"] for loss in manifest["losses"] if "probe" not in loss and isinstance(loss.get("cpu"), int)}
    capture = manifest.get("capture", {})
    box, counted = capture.get("box", {}), capture.get("losses", {})
    # The recorder's own count of a ring that had nothing in it.
    counted = counted.get("cpus", {}) if isinstance(counted, dict) else {}
    said |= {int(cpu) for cpu in counted if str(cpu).isdecimal()} if isinstance(counted, dict) else set()
    online = box.get("cpus_online") if isinstance(box, dict) else None
    ranges = re.findall(r"(\d{1,5})(?:-(\d{1,5}))?", online) if isinstance(online, str) else []
    count = manifest["kernel"].get("cpus")
    cpus = {cpu for first, last in ranges for cpu in range(int(first), min(int(last or first), _MOST) + 1)} \
        or set(range(min(count, _MOST) if isinstance(count, int) else max(said, default=0)))
    if not said or cpus <= said:
        return []
    notes = np.array([schema.CODE[name] for name in schema.NO_PROBE])
    for _, batch in recording.batches(["cpu", "event"], rows=1 << 18):
        said.update(np.unique(batch["cpu"][~np.isin(batch["event"], notes)]).tolist())
    return sorted(cpus - said)


def silent_cpus(recording: Recording) -> str:
    """Return the numbers of the CPUs without a ring (:func:`cpus_without_ring`), ``""`` for none."""
    silent = cpus_without_ring(recording)
    return ", ".join(map(str, silent[:_SHOWN])) + (", ..." if len(silent) > _SHOWN else "")


def broken_calls(recording: Recording) -> str:
    """Return a sentence on calls whose events are not all there, ``""`` where these are too few to matter."""
    probes = recording.manifest["probes"]
    # iaa_crypto calls its software fallback through the same functions.
    nests = str(recording.manifest["config"].get("compressor")).startswith("deflate-iaa")
    pairs = {schema.CODE[name]: schema.CODE[f"{name}_ret"] for name in _LEAVES
             if {name, f"{name}_ret"} <= probes.keys() and not (nests and name.startswith("crypto_acomp"))}
    codes = np.array([*pairs, *pairs.values()], np.uint8)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for _, batch in recording.batches(["event", "pid"], rows=1 << 18):
        # The idle tasks of all CPUs are one number.
        rows = np.isin(batch["event"], codes) & (batch["pid"] != 0)
        kept.append((batch["event"][rows].copy(), batch["pid"][rows].copy()))
    if not kept:
        return ""
    event, pid = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    order = np.argsort(pid, kind="stable")
    event, pid = event[order], pid[order]
    found: dict[str, int] = {}
    tasks: set[int] = set()
    for entry, back in pairs.items():
        rows = (event == entry) | (event == back)
        calls, whose = event[rows], pid[rows]
        twice = (calls[1:] == calls[:-1]) & (whose[1:] == whose[:-1])
        if twice.any():
            found[schema.NAMES[entry]] = int(np.count_nonzero(twice))
            tasks.update(np.unique(whose[1:][twice]).tolist())
    if sum(found.values()) < _MANY:
        return ""
    most = max(found, key=lambda name: found[name])
    return f"{sum(found.values())} calls of {len(tasks)} tasks have no return, or returns no call ({most}() most " \
           f"often): events are missing that nothing counts; was every CPU recorded, and has each probe of a return " \
           f"room for many tasks (f256:..., up to 6.13)?"
