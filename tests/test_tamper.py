# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording that was tampered with must FAIL at the tampered event, or the change must be one that nothing can
show, for a reason that is stated."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import replay
import traces
from model.crypto import compressor_for
from replay.reference.engine import READINGS
from tests.sweeping import NEVER_READ, Read, outcome, watch
from tests.tampering import UNDECIDED, Change, Tampered, drop, name_of, neighbours, no_effect, outlives, run, tamper
from traces import schema
from traces.errors import BadInput
from traces.samples import sample_paths

CHANGES = 500
#: the recordings with most events, largest first
LARGEST = [path.name for path in sorted(sample_paths(), key=lambda path: -len(traces.open_recording(path)))[:6]]
#: How many events of its task may pass before a missing or moved event shows: an operation without a cgroup looks the
#: same up to its first charge.
SOON = 16


def _judge(recording: Tampered, original: dict[str, np.ndarray], change: Change, read: Read,
           inside: dict[int, tuple[str, ...]]) -> str:
    """Return how a change came out: where it was caught, or why it is invisible; '' when neither."""
    result = run(recording)
    caught = min((d.event for d in result.divergences), default=-1)
    if change.kind in ("drop", "swap"):
        now = dict(recording.columns)
        recording.columns.update(original)
        reasons = [no_effect(recording, change.event, inside.get(change.event, ()))]
        if change.kind == "swap":
            reasons.append(no_effect(recording, change.event + 1, inside.get(change.event + 1, ())))
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
        if name_of(recording, change.event) not in READINGS:
            # What is read there is compared, whoever reads it.
            change.invisible = change.invisible or no_effect(recording, change.event)
        change.invisible = change.invisible or _outlives(recording, original, change)
    if result.verdict == "PASS" and change.kind == "field":
        reason = _not_compared(recording, change, original, read)
        if reason:
            return f"invisible: {reason}"
    if result.verdict == "UNDECIDED" and any(f"event {change.event}" in reason for reason in result.reasons):
        return "named at the event, without a verdict"
    if result.verdict == "FAIL":
        if caught == change.event or (change.kind in ("drop", "swap") and caught == change.event + 1):
            return "caught at the event"
        if change.kind in ("drop", "swap", "field") and 0 <= _passed(recording, original, change.event, caught) <= SOON:
            # What the model was given there, the operation's next effects contradict.
            return "caught in the same operation"
        if change.first_seen and caught > change.event:
            return "caught at the first event that names the same thing"
        if change.invisible and caught > change.event:
            return "caught later, though nothing need have shown it"
        return ""
    return f"invisible: {change.invisible}" if change.invisible else ""


def _passed(recording: Tampered, original: dict[str, np.ndarray], event: int, caught: int) -> int:
    """Return how many events of the changed one's task there are from it to where it was caught."""
    return int(np.count_nonzero(recording.columns["pid"][event:caught] == original["pid"][event])) if caught >= event else -1


def _outlives(recording: Tampered, original: dict[str, np.ndarray], change: Change) -> str:
    now = dict(recording.columns)
    recording.columns.update(original)
    reason = outlives(recording, change.event) if change.first_seen else ""
    recording.columns.update(now)
    return reason


def _not_compared(recording: Tampered, change: Change, original: dict[str, np.ndarray], read: Read) -> str:
    """Say why a changed field leaves nothing to compare: the reference does not read it, or only learns a name by it."""
    event, column = name_of(recording, change.event), change.what.partition(":")[0].rpartition(".")[2]
    if column in UNDECIDED:
        return UNDECIDED[column]
    if column not in read.rows.get(change.event, ()):
        never = column in NEVER_READ.get(event, ())
        return f"{event}.{column} is read by no check" if never else f"{event}.{column} is not read there: {_unread(event)}"
    pages = recording.manifest["pages"]
    if (event, column) == ("zs_obj_write", "data") and pages.get("with_bytes", 0) < pages.get("distinct", 0):
        # Its first bytes are only compared with what the compressor's format allows.
        return f"{event}.{column} of a page whose bytes were not kept"
    if event == "swap_writeout" and column == "folio" \
            and name_of(recording, neighbours(recording, change.event)[1]) == "swap_writeout_ret":
        return f"{event}.{column} of a folio of zeros, which goes nowhere"
    if column in ADDRESSES and not _named_again(original, change.event, column):
        return f"{event}.{column} names something that nothing else in the recording names"
    return ""


#: columns that name things: what a name is decides nothing, only that it stays the same
ADDRESSES = ("entry", "handle", "zspage", "pool", "memcg", "obj", "folio")


def _unread(event: str) -> str:
    """Say what events are whose columns are read only at times."""
    if event.startswith("list_lru_"):
        return "another LRU's event"
    return "nobody's operation is in it, or its answer is not predicted"


def _named_again(original: dict[str, np.ndarray], event: int, column: str) -> bool:
    """True when the thing that a value names is named by another event: an entry also by its list_head."""
    value = original[column][event]
    found = original[column] == value
    if column == "entry":
        found = found | (original[column] == value - np.uint64(0x28)) | (original[column] == value + np.uint64(0x28))
    return int(np.count_nonzero(found)) > 1


@pytest.mark.parametrize("name", LARGEST)
def test_changes_are_caught_or_explained(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str) -> None:
    _changes(samples, capsys, name, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGEST)
def test_every_change_is_caught_or_explained(samples: dict[str, Path], capsys: pytest.CaptureFixture[str],
                                             name: str) -> None:
    _changes(samples, capsys, name, CHANGES)


def _changes(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str, changes: int) -> None:
    """Make ``changes`` changes at random, one at a time: each must FAIL where it is, or leave nothing to compare."""
    recording = Tampered(samples[name])
    assert run(recording).verdict == "PASS"
    read = watch(recording)
    original, inside = dict(recording.columns), read.inside()
    chance = random.Random(f"{name} {changes}")
    score: Counter[str] = Counter()
    missed = []
    for _ in range(changes):
        change = tamper(recording, chance)
        outcome = _judge(recording, original, change, read, inside)
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


def _contexts(recording: Tampered) -> dict[tuple[str, str, str], int]:
    """One event of every kind between two of its task: (before, event, after) by name -> its number."""
    names = [schema.NAMES[code] for code in recording.columns["event"].tolist()]
    tasks: dict[int, list[int]] = {}
    for event, pid in enumerate(recording.columns["pid"].tolist()):
        tasks.setdefault(pid, []).append(event)
    found: dict[tuple[str, str, str], list[int]] = {}
    for pid, events in tasks.items():
        for before, event, after in zip([-1, *events], events, [*events[1:], -1], strict=False):
            if pid:
                found.setdefault((names[before] if before >= 0 else "", names[event], names[after] if after >= 0 else ""),
                                 []).append(event)
    return {context: events[len(events) // 2] for context, events in found.items()}


def _left_out(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str) -> None:
    recording = Tampered(samples[name])
    assert run(recording).verdict == "PASS"
    inside = watch(recording).inside()
    contexts = _contexts(recording)
    score: Counter[str] = Counter()
    hidden = []
    for (before, event, after), number in contexts.items():
        reason = no_effect(recording, number, inside.get(number, ()))
        change = drop(recording, number)
        result, different = outcome(recording)
        change.undo()
        assert not different, f"without {event} at {number}: {different}"
        verdict = result.verdict
        score[f"PASS: {reason}" if verdict == "PASS" else verdict] += 1
        if verdict == "PASS" and not reason:
            hidden.append(f"{event} at {number}, between {before or 'nothing'} and {after or 'nothing'}")
    with capsys.disabled():
        print(f"\n{name}: {len(contexts)} single events left out, one of each kind between two others of its task")
        for what, count in score.most_common():
            print(f"  {count:4}  {what}")
    assert score["FAIL"] > 20
    assert not hidden, "\n".join(hidden)


@pytest.mark.parametrize("name", ["7.2-lz4-edge", "7.3-lz4-limits"])
def test_no_lost_event_passes(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str) -> None:
    _left_out(samples, capsys, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in sample_paths()))
def test_no_lost_event_passes_in_any_sample(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Nothing says how many events there should be: what is missing shows, or no other event depends on it."""
    _left_out(samples, capsys, name)


@pytest.mark.parametrize("seed", range(20))
def test_a_page_byte_is_caught(samples: dict[str, Path], tmp_path: Path, seed: int) -> None:
    """A changed byte is caught by the page's digest; with the digest forged, by what the page compresses to."""
    chance = random.Random(seed)
    path = tmp_path / "rec"
    shutil.copytree(samples["7.3-lz4-limits"], path, ignore=shutil.ignore_patterns("cache"))
    table = pq.read_table(path / "pages" / "pages.parquet")
    sha1, data = table.column("sha1").to_pylist(), table.column("data").to_pylist()
    number = chance.choice([n for n, page in enumerate(data) if page is not None])
    page = bytearray(data[number])
    page[chance.randrange(4096)] ^= 1 << chance.randrange(8)
    data[number] = bytes(page)
    store = path / "pages" / "pages.parquet"

    pq.write_table(pa.table([pa.array(sha1), pa.array(data, pa.binary())], schema=table.schema), store)
    _forge_digest(path, "pages/pages.parquet")
    with pytest.raises(BadInput, match=rf"page {number}: its bytes do not match its SHA-1"):
        replay.replay(traces.open_recording(path))

    sha1[number] = hashlib.sha1(data[number]).hexdigest()
    pq.write_table(pa.table([pa.array(sha1), pa.array(data, pa.binary())], schema=table.schema), store)
    _forge_digest(path, "pages/pages.parquet")
    recording = traces.open_recording(path)
    result = replay.replay(recording)
    if result.verdict == "PASS":
        # Nothing was recorded of this page but its length and the first bytes it compressed to.
        old, new = (compressor_for("lz4", "mainline-7.3").compress(p)
                    for p in (_original(samples, number), data[number]))
        assert (old.err, old.dlen, old.data[:8]) == (new.err, new.dlen, new.data[:8])
        return
    event = result.divergences[0].event
    assert recording.pages is not None
    frame = recording.frame(["event", "content"])
    before = frame.iloc[:event + 1]
    call = before[before.event == "crypto_acomp_compress"].iloc[-1]
    assert recording.pages.refs[call.content] == number, "caught where the page was compressed or written"


def _original(samples: dict[str, Path], number: int) -> bytes:
    page = pq.read_table(samples["7.3-lz4-limits"] / "pages" / "pages.parquet").column("data")[number].as_py()
    assert isinstance(page, bytes)
    return page


def _forge_digest(path: Path, name: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_call_too_many_is_the_shrinker_s_only_inside_its_count(samples: dict[str, Path]) -> None:
    """zswap_shrinker_count() asks mem_cgroup_zswap_writeback_enabled() too; nobody else may ask once more."""
    recording = Tampered(samples["7.2-lz4-edge"])
    recording.manifest["config"]["params"]["shrinker_enabled"] = "Y"
    assert {"zswap_shrinker_count", "zswap_shrinker_count_ret"} <= set(recording.manifest["probes"])
    assert run(recording).verdict == "PASS"
    code = schema.CODE["mem_cgroup_zswap_writeback_enabled_ret"]
    event = int(np.flatnonzero(recording.columns["event"] == code)[0])
    original = dict(recording.columns)

    def repeated(*around: str) -> str:
        names = [recording.columns["event"][event] if name == "" else schema.CODE[name] for name in around]
        for column in recording.columns:
            values = original[column]
            rows = np.full(len(names), values[event], values.dtype) if column != "event" \
                else np.array(names, values.dtype)
            recording.columns[column] = np.insert(values, event + 1, rows)
        recording.manifest["rows"] = len(recording)
        return run(recording).verdict

    assert repeated("zswap_shrinker_count", "", "zswap_shrinker_count_ret") == "PASS"
    assert repeated("") == "FAIL"
    assert repeated("zswap_shrinker_count", "zswap_shrinker_count_ret", "") == "FAIL"
