# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines as ``perf script --ns`` prints them, for tests."""

from __future__ import annotations

__all__ = ["perf_line"]


def perf_line(number: int, event: str, cpu: int = 0) -> str:
    """Return the line of an event, each a microsecond behind the one before."""
    return f"task   100 [{cpu:03}] 11.{171000 + number:06}000: z:{event}: (ffffffff81725254) folio=0xffffea0000001000 " \
           f"swp={number:#x}\n"
