# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in the guest: sets swap and zswap up, does the job's task, sends the result to the host.

It uses the standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from traces.lab.channel import Sender
from traces.lab.guestcommon import CAPTURE, FAILED, RESULT, SWAP, await_disks, say, set_up
from traces.lab.guesttasks import TASKS

__all__ = ["main"]


def main() -> int:
    """Do the guest's work; whatever happens, report to the host."""
    job = json.loads(Path("/job.json").read_text())
    result: dict[str, Any] = {"status": None, "problem": ""}
    sender = None
    try:
        os.makedirs(CAPTURE.parent, exist_ok=True)
        await_disks(SWAP, RESULT)
        sender = Sender(RESULT, CAPTURE)
        set_up(job)
        result.update(TASKS[job["task"]](job, sender))
    except OSError as problem:
        result["problem"] = problem.strerror or str(problem)
    except BaseException as problem:
        traceback.print_exc()
        result["problem"] = f"{type(problem).__name__}: {problem}"
    if result["problem"]:
        say(FAILED + result["problem"])
    try:
        if sender is not None:
            say("sending")
            sender.end(result)
    except OSError as problem:
        say(f"{FAILED}the capture could not be sent ({problem.strerror}); the result disk may be full")
        return 1
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
