# SPDX-License-Identifier: GPL-2.0-or-later
"""The event vocabulary: one wide table, one row per probe hit.

A recording's events are rows of fixed columns.  A column that an event does not have holds 0 (``content``
holds -1, ``text`` the empty string); :data:`traces.events.EVENTS` says which columns an event has, and the
manifest's ``probes`` which of them the recorded probes captured.  Zeros instead of nulls keep 64-bit
pointers exact for every reader: pandas turns a nullable integer column into floats.

Event names are kernel function names.  ``NAME`` is the function's entry and ``NAME_ret`` its return; where
kernels renamed a function the newest name stands for all of them (``swap_writeout`` was ``swap_writepage``
up to 6.12, ``zs_obj_read`` stands for ``zs_map_object``, ``zs_obj_read_begin`` and
``zs_obj_read_sg_begin``), and the manifest keeps the function that was really probed.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
import pyarrow as pa

from traces.events import COLUMNS, EVENTS, PAGE_SIZE, with_role

__all__ = [
    "ABSENT",
    "CODE",
    "COLUMNS",
    "END",
    "EVENTS",
    "FORMAT_VERSION",
    "NAMES",
    "NO_PROBE",
    "PAGE_BYTES",
    "PAGE_SIZE",
    "SWP_OFFSET_MASK",
    "SWP_TYPE_SHIFT",
    "arrow_schema",
    "column_names",
]

FORMAT_VERSION: Final = 1
#: What a recorder calls the counter snapshot that it takes at the end of a run.
END: Final = "end"

#: swp_entry_t: the swap type sits above bit 58 on every 64-bit architecture (include/linux/swapops.h).
SWP_TYPE_SHIFT: Final = 58
SWP_OFFSET_MASK: Final = (1 << SWP_TYPE_SHIFT) - 1


ABSENT: Final = {"content": -1, "text": ""}


#: name -> code
CODE: Final[dict[str, int]] = {kind.name: kind.code for kind in EVENTS}
#: Rows that no probe makes, or that say something of the recorder alone.
NO_PROBE: Final = with_role("note")
#: code -> name; the gaps are named ``reserved_N`` so that the code is the dictionary index on disk
NAMES: Final[tuple[str, ...]] = tuple(
    sys.intern({kind.code: kind.name for kind in EVENTS}.get(code, f"reserved_{code}"))
    for code in range(max(kind.code for kind in EVENTS) + 1)
)


#: (event, column) that hold bytes of user memory: a page's own where it is kept as it is, and what a compressor made of
#: it begins with its first bytes too.  They are shown and exported only with ``--data``.
PAGE_BYTES: Final = frozenset({("zs_obj_write", "data")})


def column_names() -> tuple[str, ...]:
    """Return the names of the event table's columns in order."""
    return tuple(column.name for column in COLUMNS)


def arrow_schema() -> pa.Schema:
    """Return the Arrow schema of an event segment; ``event`` is a dictionary of names."""
    fields = []
    for column in COLUMNS:
        if column.name in ("event", "text"):
            fields.append(pa.field(column.name, pa.dictionary(pa.int32(), pa.string()), nullable=False))
        else:
            fields.append(pa.field(column.name, pa.from_numpy_dtype(np.dtype(column.dtype)), nullable=False))
    return pa.schema(fields)
