# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened: recordings of zswap and zsmalloc, and importers that make them.

>>> import traces
>>> recording = traces.open_recording("traces/samples/7.3-lz4-4k")   # doctest: +SKIP
>>> recording.frame(["ts", "event", "swpent"])                        # doctest: +SKIP
"""

from __future__ import annotations

import os

from traces.errors import BadInput
from traces.recording import Recording, RecordingWriter

__all__ = ["BadInput", "Recording", "RecordingWriter", "open_recording"]


def open_recording(path: str | os.PathLike[str], *, verify: bool = True) -> Recording:
    """Open a recording; see :class:`traces.recording.Recording`."""
    return Recording(path, verify=verify)
