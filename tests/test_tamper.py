# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording that was tampered with must FAIL at the tampered event, or the change must be one that nothing can
show, for a reason that is stated."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tampering import Change, Tampered, no_effect, outlives, run, tamper

from traces import schema

CHANGES = 500
#: How many events may pass before a missing or moved event shows: an operation without a cgroup looks the same up
#: to its first charge.
SOON = 16


def _judge(recording: Tampered, original: dict[str, np.ndarray], change: Change) -> str:
    """Return how a change came out: where it was caught, or why it is invisible; '' when neither."""
    result = run(recording)
    caught = min((d.event for d in result.divergences), default=-1)
    if change.kind in ("drop", "swap"):
        now = dict(recording.columns)
        recording.columns.update(original)
        reasons = [no_effect(recording, change.event)]
        if change.kind == "swap":
            reasons.append(no_effect(recording, change.event + 1))
            codes, pids = original["event"], original["pid"]
            starts = [schema.NAMES[codes[e]] for e in (change.event, change.event + 1)]
            if codes[change.event] == codes[change.event + 1] and all(
                    (original[c][change.event] == original[c][change.event + 1]) for c in original if c != "ts"):
                reasons.append("both events are the same but for their time")
            if pids[change.event] == 0 or pids[change.event + 1] == 0:
                reasons.append(f"a snapshot's place among events that change no counter ({starts[0]}, {starts[1]})")
        recording.columns.update(now)
        change.invisible = change.invisible or next((reason for reason in reasons if reason), "")
    elif change.kind in ("field", "task"):
        change.invisible = change.invisible or no_effect(recording, change.event) or _outlives(recording, original, change)
    if result.verdict == "FAIL":
        if caught == change.event or (change.kind in ("drop", "swap") and caught == change.event + 1):
            return "caught at the event"
        if change.kind in ("drop", "swap") and 0 <= caught - change.event <= SOON:
            return "caught in the same operation"
        if change.first_seen and caught > change.event:
            return "caught at the first event that names the same thing"
        if change.invisible and caught > change.event:
            return "caught later, though nothing need have shown it"
        return ""
    return f"invisible: {change.invisible}" if change.invisible else ""


def _outlives(recording: Tampered, original: dict[str, np.ndarray], change: Change) -> str:
    now = dict(recording.columns)
    recording.columns.update(original)
    reason = outlives(recording, change.event) if change.first_seen else ""
    recording.columns.update(now)
    return reason


@pytest.mark.parametrize(("name", "seed", "changes"), [("7.3-lz4-4k", 1, CHANGES), ("6.12-zstd-4k", 2, 60),
                                                       ("7.3-zstd-64k", 3, 60)])
def test_every_change_is_caught_or_explained(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str,
                                             seed: int, changes: int) -> None:
    recording = Tampered(samples[name])
    assert run(recording).verdict == "PASS"
    original = dict(recording.columns)
    chance = random.Random(seed)
    score: Counter[str] = Counter()
    missed = []
    for _ in range(changes):
        change = tamper(recording, chance)
        outcome = _judge(recording, original, change)
        change.undo()
        score[outcome or "MISSED"] += 1
        if not outcome:
            missed.append(f"{change.kind} at {change.event}: {change.what}")
    with capsys.disabled():
        print(f"\n{name}: {changes} single changes")
        for outcome, count in score.most_common():
            print(f"  {count:4}  {outcome}")
    assert run(recording).verdict == "PASS", "taking the changes back must restore the recording"
    assert not missed, "\n".join(missed)
