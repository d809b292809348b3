# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened: recordings of zswap and zsmalloc, and importers that make them.

>>> import traces
>>> recording = traces.open_recording("traces/samples/7.3-lz4-4k")   # doctest: +SKIP
>>> recording.frame(["ts", "event", "swpent"])                        # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from traces.errors import BadInput

if TYPE_CHECKING:
    from traces.recording import Recording, RecordingWriter

__all__ = ["BadInput", "Recording", "RecordingWriter", "open_recording"]


def open_recording(path: str | os.PathLike[str], *, verify: bool = True) -> Recording:
    """Open a recording; see :class:`traces.recording.Recording`."""
    from traces.recording import Recording

    return Recording(path, verify=verify)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the recorder's errors do not need pandas."""
    if name in __all__:
        from traces import recording

        return getattr(recording, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
