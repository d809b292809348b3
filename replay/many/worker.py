# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that does jobs: one line of JSON in for each, one out.  :mod:`replay.many.local` starts it."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any

from replay import predict
from replay.many.compiled import guard
from replay.many.jobs import Job, safely

__all__ = ["main"]


def _listen(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Hand jobs over; whoever sent them is gone when nothing more can come: then what is under way is for nobody."""
    for line in sys.stdin.buffer:
        jobs.put(json.loads(line))
    os._exit(0)


def main(threads: int) -> None:
    """Do jobs until stdin is closed.

    :param threads: how many pages are compressed side by side
    """
    # A user's revision may print: that is no answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    guard()
    predict.THREADS = threads
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        outcome = safely(Job(**jobs.get()))
        try:
            answers.write(outcome.to_json().encode() + b"\n")
            answers.flush()
        except BrokenPipeError:
            os._exit(0)
