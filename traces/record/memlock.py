# SPDX-License-Identifier: GPL-2.0-or-later
"""Lock the recorder's own memory: its paging would be recorded, and it would wait for its own pages."""

from __future__ import annotations

import ctypes

__all__ = ["lock_memory"]

#: mlockall(): present mappings, future ones, and pages only on their first use (include/uapi/asm-generic/mman.h).
_CURRENT, _FUTURE, _ON_FAULT = 1, 2, 4


def lock_memory() -> bool:
    """Keep this process's memory from being paged out; false where the kernel does not allow it.

    A process that is forked later has to ask for itself.  Mirrors mlockall() in mm/mlock.c.
    """
    try:
        return bool(ctypes.CDLL(None, use_errno=True).mlockall(_CURRENT | _FUTURE | _ON_FAULT) == 0)
    except (OSError, AttributeError):
        return False
