# SPDX-License-Identifier: GPL-2.0-or-later
"""What the compressors written here share: ordinary Python (`.py_func`) compiled by Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .base import Buffer

Bytes = NDArray[np.uint8]
at = np.uintp  # an index of this type spares the compiled code a test for counting from the end
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile with Numba, keeping the function's type; it runs without the interpreter lock."""
    try:
        return cast(F, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # nowhere to keep the compiled code: a second or two more in every process
        return cast(F, njit(nogil=True)(function))


@compiled
def word(src: Bytes, i: int) -> int:
    """The four bytes from `i` on, little endian."""
    low = np.int64(src[at(i)]) | np.int64(src[at(i + 1)]) << 8
    return int(low | np.int64(src[at(i + 2)]) << 16 | np.int64(src[at(i + 3)]) << 24)


def read_only(data: Buffer) -> Bytes:
    # Numba compiles once for writable and once for read-only sources: always offer the same kind.
    return np.frombuffer(memoryview(data).toreadonly(), np.uint8)
