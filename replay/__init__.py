# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings checked against the model: replay, checks, verdicts.

>>> import traces, replay
>>> result = replay.replay(traces.open_recording("traces/samples/7.3-lz4-4k"))   # doctest: +SKIP
>>> result.verdict                                                                # doctest: +SKIP
'PASS'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replay.verdict.result import Result
    from replay.verdict.run import effects, replay

__all__ = ["Result", "effects", "replay"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: the command's help has no use for a compiler."""
    if name in __all__:
        from replay.verdict import result, run

        return getattr(result if name == "Result" else run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
