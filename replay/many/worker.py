# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that does jobs: one line of JSON in for each, one out.  :mod:`replay.many.local` starts it."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, Final

from replay.many.compiled import guard
from replay.many.jobs import ReplayJob, safely
from replay.reference import predictions as predict

__all__ = ["GRACE", "main"]

#: Seconds that an abandoned job has to remove what it has half written.
GRACE: Final = 2.0


def _listen(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Hand jobs over until the sender is gone; a job that is still under way then is abandoned."""
    for line in sys.stdin.buffer:
        jobs.put(json.loads(line))
    # As Ctrl-C does: results that are being kept for the next replay are not left half written.
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE)
    os._exit(0)


def main(threads: int) -> None:
    """Do jobs until stdin is closed.

    :param threads: how many pages are compressed side by side
    """
    # A user's revision may print: that is not an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # It may have been inherited as ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    guard()
    predict.THREADS = threads
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        try:
            outcome = safely(ReplayJob(**jobs.get()))
            answers.write(outcome.to_json().encode() + b"\n")
            answers.flush()
        except (BrokenPipeError, KeyboardInterrupt):
            os._exit(0)
