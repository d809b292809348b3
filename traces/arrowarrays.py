# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrow columns as NumPy arrays without pandas, which pyarrow imports for every ``to_numpy``: half a second."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

__all__ = ["arrow_of", "numpy_of"]


def numpy_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the values of a column, where they lie if they lie in one piece; what is shared cannot be written to.

    Numbers and truth values without nulls are read from Arrow's buffers; of any other column ``to_numpy`` makes
    objects, or floats with NaN for nulls, as it always does.
    """
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 1:
            return numpy_of(column.chunk(0))
        # Without a chunk concatenate has nothing to take the type from.
        return np.concatenate([numpy_of(chunk) for chunk in (*column.chunks, pa.nulls(0, column.type))])
    kind = column.type
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not plain or column.null_count:
        found: np.ndarray = column.to_numpy(zero_copy_only=False)
        return found
    _, data = column.buffers()
    length, offset = len(column), column.offset
    if pa.types.is_boolean(kind):
        if not length:
            return np.zeros(0, np.bool_)
        bits = np.frombuffer(data, np.uint8, (offset + length + 7) // 8)
        return np.unpackbits(bits, bitorder="little")[offset:offset + length].view(np.bool_)
    dtype = np.dtype(f"{'f' if pa.types.is_floating(kind) else 'i' if pa.types.is_signed_integer(kind) else 'u'}"
                     f"{kind.bit_width // 8}")
    if not length:
        return np.zeros(0, dtype)
    values = np.frombuffer(data, dtype, length, offset * dtype.itemsize)
    values.flags.writeable = False
    return values


def arrow_of(values: np.ndarray) -> pa.Array:
    """Return an array of numbers or truth values as Arrow's, which shares the numbers."""
    kind = pa.from_numpy_dtype(values.dtype)
    data = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])
