# SPDX-License-Identifier: GPL-2.0-or-later
"""Stamps as text: seconds where a recording's clock counts them, else the bare stamp.

The clocks ``counter`` and ``x86-tsc`` (trace_clocks in kernel/trace/trace.c) give the order of events and not the time
between them: a recording of such stamps names the clock under ``stamps`` in its manifest
(:attr:`traces.recording.Recording.stamps`).
"""

from __future__ import annotations

from typing import Final

__all__ = ["UNNAMED", "bare", "clock", "moment", "no_seconds"]

#: value of ``stamps`` where a text has bare numbers and does not name their clock
UNNAMED: Final = "raw"


def bare(ts: int, stamps: str) -> str:
    """Return a stamp as a column of text has it: seconds with six decimals, or the stamp as it is.

    :param ts: ns of the trace clock, or whatever the clock counts
    :param stamps: the clock's name where it counts no seconds, "" where it does
    """
    return str(int(ts)) if stamps else f"{int(ts) / 1e9:.6f}"


def moment(ts: int, stamps: str) -> str:
    """Return a stamp as a sentence names it: ``25.008942 s`` or ``stamp 25008942000``; see :func:`bare`."""
    return f"stamp {bare(ts, stamps)}" if stamps else f"{bare(ts, stamps)} s"


def clock(stamps: str) -> str:
    """Return what to call a clock that counts no seconds."""
    return "a clock that its source does not name" if stamps == UNNAMED else f"the clock {stamps}"


def no_seconds(stamps: str) -> str:
    """Return why a recording has no times, as a part of a sentence."""
    return f"its stamps are of {clock(stamps)}, which counts no seconds"
