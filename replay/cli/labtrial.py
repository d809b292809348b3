# SPDX-License-Identifier: GPL-2.0-or-later
"""One sequence on one kernel: booted, recorded, replayed, judged."""

from __future__ import annotations

import argparse
import re
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from replay.cli.labcommon import sequence_job
from replay.cli.replay_ import report
from replay.verdict.result import Result
from replay.verdict.run import replay
from traces.errors import BadInput
from traces.lab.errors import GuestDied
from traces.lab.kernels import BootKernel
from traces.lab.run import GuestRun
from traces.lab.run import run as run_job
from traces.lab.tools import Tools
from traces.record.exits import without_bytes
from traces.recording import Recording
from traces.workload.command import OUT_OF_MEMORY
from traces.workload.sequence import Sequence

__all__ = ["DIED", "Trial", "reached", "run_trial"]

DIED: Final = "died"
#: What a trial can end as that is to be looked into; the others are PASS, and what says nothing about the kernel.
_DIVERGED: Final = frozenset({"FAIL", "UNDECIDED", "wrong pages", "unreadable", DIED})


@dataclass
class Trial:
    """What became of a sequence on a kernel.

    ``kind`` is ``PASS``, ``FAIL``, ``UNDECIDED`` (though nothing was lost), ``wrong pages``, ``unreadable``, ``died``;
    or, for what says nothing about the kernel, ``lost`` (events), ``out of memory``, ``not there`` (a compressor) or
    ``not run``.  Two trials with the same ``key`` saw the same.  ``seconds`` is wall-clock time; ``event`` the number
    of the first divergence's event, -1 where there is none.
    """

    kind: str
    key: str = ""
    text: str = ""
    report: list[str] = field(default_factory=list)
    stores: int = 0
    compared: int = 0
    events: int = 0
    event: int = -1
    seconds: float = 0.0
    #: check -> how often it compared
    checks: dict[str, int] = field(default_factory=dict)
    #: the revision that it was checked against, and how often each of its branches was taken
    revision: str = ""
    branches: dict[str, int] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """True when it is to be looked into."""
        return self.kind in _DIVERGED


def run_trial(sequence: Sequence, kernel: BootKernel, out: Path, arguments: argparse.Namespace, tools: Tools | None,
              say: Callable[[str], None]) -> Trial:
    """Carry a sequence out in a fresh guest and judge its recording, which stays in ``out``.

    Of a guest that died ``OUT.partial`` stays, with its console.

    :raises LabError: when it cannot begin
    """
    for path in (out, _partial(out)):
        shutil.rmtree(path, ignore_errors=True)
    began = time.monotonic()
    try:
        outcome = run_job(sequence_job(sequence, kernel, arguments, tools), out, say)
        say("replaying")
        trial = _judge(out, outcome)
    except GuestDied as death:
        kind = "not there" if "has no compressor" in death.what or "does not take" in death.what else DIED
        trial = Trial(kind, f"{kind}: {_without_numbers(death.what)}", death.what, death.console.splitlines())
    except BadInput as problem:
        trial = Trial("unreadable", f"unreadable: {_without_numbers(problem.what)}", str(problem))
    trial.seconds = time.monotonic() - began
    return trial


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _without_numbers(text: str) -> str:
    return re.sub(r"0x[0-9a-f]+|\d+", "N", text)


def _judge(out: Path, outcome: GuestRun) -> Trial:
    recording = Recording(out)
    stores = int((recording.frame(["event"])["event"] == "zswap_store").sum())
    try:
        result = replay(recording)
    except BadInput:
        raise
    except Exception as problem:
        # Whatever a replay raises of its own model on a real recording is a divergence of the worst kind.
        text = f"the replay failed ({type(problem).__name__}: {without_bytes(str(problem))})"
        trace = without_bytes(traceback.format_exc()).splitlines()
        return Trial("FAIL", f"FAIL: {type(problem).__name__}", text, trace, stores, events=len(recording))
    kind, key, text = _told(result, outcome, recording)
    return Trial(kind, key, text, list(report(result)), stores, sum(check.compared for check in result.checks),
                 len(recording), result.divergences[0].event if result.divergences else -1,
                 checks={check.id: check.compared for check in result.checks}, revision=result.revision,
                 branches=result.branches)


def _told(result: Result, outcome: GuestRun, recording: Recording) -> tuple[str, str, str]:
    """Return kind, key and sentence of a replay that came to its end."""
    if result.verdict == "FAIL":
        if not result.divergences:
            return "FAIL", "FAIL", "; ".join(result.reasons)
        first = result.divergences[0]
        return "FAIL", f"FAIL: {first.check}", f"{first.check} at event {first.event}: {first.what}"
    if outcome.workload_status == 1:
        return "wrong pages", "wrong pages", _last_words(outcome)
    if outcome.workload_status == OUT_OF_MEMORY:
        return "out of memory", "out of memory", _last_words(outcome)
    if outcome.workload_status:
        return "not run", f"not run: {outcome.workload_status}", _last_words(outcome)
    reasons = "; ".join(result.reasons)
    if result.verdict == "UNDECIDED":
        losses: list[dict[str, Any]] = recording.manifest["losses"]
        lost = any(loss.get("lost") != 0 or loss.get("damaged_subbuffers") or loss.get("short_records")
                   for loss in losses)
        return ("lost", "lost", reasons) if lost else ("UNDECIDED", f"UNDECIDED: {_without_numbers(reasons)}", reasons)
    return result.verdict, result.verdict, ""


def _last_words(outcome: GuestRun) -> str:
    """Return what the workload said of its end."""
    said = [line for line in outcome.console.splitlines() if line.startswith("zreplay workload:")]
    return said[-1].removeprefix("zreplay workload: ") if said else f"status {outcome.workload_status}"


def reached(out: Path, event: int, operations: int) -> int:
    """Return which operation, counted from 1, was the last that had begun at an event of a recording.

    Settings stand between phases: those before the next phase may have begun.
    """
    if event < 0:
        return operations
    frame = Recording(out).frame(["event", "text"])
    for text in frame["text"][event + 1:][frame["event"][event + 1:] == "marker"]:
        found = re.fullmatch(r"phase s(\d+)-\d+", text)
        if found:
            return int(found[1]) - 1
    return operations
