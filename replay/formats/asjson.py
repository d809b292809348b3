# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON, an object a line for each pair, as docs/schema/result-1.json describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from replay.many.jobs import JobOutcome, ReplayJob

__all__ = ["SCHEMA", "Json"]

#: The name of the schema's file.  A key that goes, or means something else, makes a new one; a further key does not.
SCHEMA: Final = "result-1"


class Json:
    """Yields the objects, pair by pair."""

    def __init__(self) -> None:
        self._several = False

    def head(self, jobs: Sequence[ReplayJob]) -> Iterator[str]:
        """Yield nothing."""
        self._several = len(jobs) > 1
        yield from ()

    def one(self, job: ReplayJob, outcome: JobOutcome) -> Iterator[str]:
        """Yield a pair's object; of a single pair without a result only the sentence on stderr is given."""
        if outcome.result is not None:
            yield json.dumps({"schema": SCHEMA, **outcome.result.as_dict()}, default=str)
        elif self._several:
            yield json.dumps({"schema": SCHEMA, "verdict": None, "recording": job.recording, "revision": job.revision,
                              "error": outcome.error})

    def foot(self, jobs: Sequence[ReplayJob], outcomes: Mapping[int, JobOutcome]) -> Iterator[str]:
        """Yield nothing."""
        yield from ()
