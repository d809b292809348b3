# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions compiled by Numba: one decorator, which also works where compiled code cannot be kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from traces.compiling import watch

__all__ = ["at", "compiled"]

#: An index of this type spares the compiled code a test for counting from the end.
at = np.uintp
# Whoever compiles anything below has loaded this.
watch()


def compiled(function: Callable[..., Any]) -> Any:
    """Compile with Numba; the function runs without the interpreter lock.

    An array that one compiled function passes to another costs two locked instructions: inner loops avoid that.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep the compiled code: some seconds more in every process
        return njit(nogil=True)(function)
