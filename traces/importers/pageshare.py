# SPDX-License-Identifier: GPL-2.0-or-later
"""How many compress calls have their page, and why the others have none."""

from __future__ import annotations

from typing import Any

__all__ = ["page_share"]


def page_share(calls: int, caught: int, facts_of_capture: dict[str, Any], used: set[str],
               throttled: int = 0) -> dict[str, Any]:
    """Return ``calls``, ``caught`` and ``why``: sentences on the calls without a page; empty where all have one.

    :param calls: compress calls of the recording
    :param caught: those whose page is known
    :param facts_of_capture: what the recorder says of the run, empty of other captures
    :param used: compressors that zswap had at one of the snapshots
    :param throttled: times that a task had to wait for kswapd before it got memory (``pgscan_direct_throttle`` of
        /proc/vmstat): throttle_direct_reclaim() in mm/vmscan.c, which may hold a recorder up for minutes
    """
    missing = calls - caught
    out: dict[str, Any] = {"calls": calls, "caught": caught, "why": []}
    if missing <= 0:
        return out
    why: list[str] = out["why"]
    pages = facts_of_capture.get("pages")
    pages = pages if isinstance(pages, dict) else {}
    if pages.get("mode") == "none":
        why.append("none was to be recorded (--pages none)")
        return out
    looked_at = pages.get("compressors")
    if isinstance(looked_at, list):
        others = sorted(used - set(looked_at))
        if others:
            why.append(f"zswap used {', '.join(others)}, whose pages were not looked at: record with "
                       + " ".join(f"--compressor {name}" for name in others))
    losses = facts_of_capture.get("losses")
    lost, known = _lost(losses.get("pages") if isinstance(losses, dict) else None)
    broken = losses.get("broken_pages", 0) if isinstance(losses, dict) else 0
    broken = broken if isinstance(broken, int) else 0
    if lost or broken:
        # A page is two events; of some only one was lost.
        why.append(f"about {min((lost + 1) // 2 + broken, missing):,} were lost in the recorder's rings, which filled "
                   "faster than pages were hashed: give it --buffer-kb, or --pages none where they are not needed")
        if throttled:
            why.append(f"{throttled} times a task waited for memory until kswapd had freed enough, and the recorder's, "
                       "where it was one of them, took no page meanwhile: give the box more memory")
    elif not known:
        why.append("how many the rings lost is not known")
    if not why:
        why.append("none of the pages that were recorded fits them")
    return out


def _lost(cpus: object) -> tuple[int, bool]:
    """Return how many events the rings of pages lost, and whether that is known of all."""
    if not isinstance(cpus, dict):
        return 0, False
    counts = [count for cpu in cpus.values() if isinstance(cpu, dict) for count in cpu.values()]
    return sum(count for count in counts if isinstance(count, int)), all(isinstance(count, int) for count in counts)
