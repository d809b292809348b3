# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings held against the model: replay, checks, verdicts.

>>> import traces, replay
>>> result = replay.replay(traces.open_recording("traces/samples/7.3-lz4-4k"))   # doctest: +SKIP
>>> result.verdict                                                                # doctest: +SKIP
'PASS'
"""

from replay.verdict import Result, effects, replay

__all__ = ["Result", "effects", "replay"]
