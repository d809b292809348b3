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
EEXIST: Final = -17
EINVAL: Final = -22
ENOSPC: Final = -28
EOPNOTSUPP: Final = -95

__all__ = ["E2BIG", "EAGAIN", "EEXIST", "EINVAL", "EIO", "ENOENT", "ENOMEM", "ENOSPC", "EOPNOTSUPP"]
