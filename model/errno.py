# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel error numbers the model needs, negative as kernel functions return them.

Kept apart from Python's :mod:`errno`, whose values are those of the machine the replay runs on.
"""

from __future__ import annotations

from typing import Final

ENOENT: Final = -2
EIO: Final = -5
E2BIG: Final = -7
EAGAIN: Final = -11
ENOMEM: Final = -12
EBUSY: Final = -16
EEXIST: Final = -17
ENODEV: Final = -19
EINVAL: Final = -22
ENOSPC: Final = -28
ENOSYS: Final = -38
EOVERFLOW: Final = -75
EOPNOTSUPP: Final = -95
ETIMEDOUT: Final = -110
EINPROGRESS: Final = -115

__all__ = [
    "E2BIG",
    "EAGAIN",
    "EBUSY",
    "EEXIST",
    "EINPROGRESS",
    "EINVAL",
    "EIO",
    "ENODEV",
    "ENOENT",
    "ENOMEM",
    "ENOSPC",
    "ENOSYS",
    "EOPNOTSUPP",
    "EOVERFLOW",
    "ETIMEDOUT",
]
