# SPDX-License-Identifier: GPL-2.0-or-later
"""What many recordings are replayed with, part by part: outcomes that travel, who waits for whom, names, tables, locks."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_many import run

from replay.cli.manytables import short_names, table_lines
from replay.cli.replay_ import report
from replay.many.jobs import NOT_DONE, UNREADABLE, JobOutcome, ReplayJob
from replay.many.tables import as_plain
from replay.many.waiting import TRIES, Waiting
from replay.reference.checks import Divergence
from replay.verdict.result import CheckResult, Result

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4), inner,
                                                                                        max_size=3), max_leaves=6)
DIVERGENCES = st.builds(
    Divergence, check=st.sampled_from(["store.length", "lru.order"]), event=st.integers(0, 1 << 40),
    name=st.text(max_size=5), recorded=PLAIN, predicted=PLAIN, what=st.text(max_size=5), ts=st.integers(0, 1 << 62),
    pid=st.integers(0, 1 << 22), cpu=st.integers(0, 512),
    path=st.lists(st.tuples(st.text(max_size=5), st.integers(0, 99)), max_size=2).map(tuple),
    state=st.dictionaries(st.text(max_size=4), PLAIN, max_size=2), kernel=st.dictionaries(st.text(max_size=4), PLAIN,
                                                                                          max_size=2),
    context=st.lists(st.text(max_size=5), max_size=2).map(tuple))
CHECK_RESULTS = st.builds(CheckResult, st.sampled_from(["store.length", "counter.x"]), st.integers(0, 99),
                          st.integers(0, 99), st.sampled_from(["exact", "modelled"]), st.text(max_size=5))
RESULTS = st.builds(
    Result, verdict=st.sampled_from(["PASS", "FAIL", "UNDECIDED"]), recording=st.text(max_size=5),
    revision=st.text(max_size=5), mirrors=st.text(max_size=5), kernel=st.text(max_size=5),
    compressor=st.text(max_size=5), events=st.integers(0, 1 << 40), checks=st.lists(CHECK_RESULTS, max_size=3),
    divergences=st.lists(DIVERGENCES, max_size=2), reasons=st.lists(st.text(max_size=5), max_size=2),
    explained=st.dictionaries(st.text(max_size=5), st.integers(0, 99), max_size=2),
    notes=st.lists(st.text(max_size=5), max_size=2),
    explained_by=st.none() | st.lists(st.text(max_size=5), max_size=2),
    seconds=st.just({"replay": 1.5, "compress": 0.25}))


@given(RESULTS)
def test_a_result_that_travelled_reads_the_same(result: Result) -> None:
    back = JobOutcome.from_json(JobOutcome(3, result).to_json()).result
    assert back is not None
    assert json.dumps(back.as_dict(), default=str) == json.dumps(result.as_dict(), default=str)
    assert list(report(back)) == list(report(result))


def test_an_outcome_without_a_result_travels() -> None:
    outcome = JobOutcome(3, None, UNREADABLE, "REC: is odd; mend it.")
    assert JobOutcome.from_json(outcome.to_json()) == outcome


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_dies_every_job_comes_to_an_end(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 8), label="jobs")
    jobs = [ReplayJob(n, "rec", None, {}, data.draw(st.none() | st.integers(0, n - 1)) if n else None) for n in range(number)]
    waiting = Waiting(jobs)
    starts = dict.fromkeys(range(number), 0)
    ended: set[int] = set()
    given_up: set[int] = set()
    running: list[ReplayJob] = []
    at_once = data.draw(st.integers(1, 3))
    while len(waiting):
        while len(running) < at_once and (job := waiting.take()) is not None:
            assert job.after is None or job.after in ended | given_up
            starts[job.number] += 1
            running.append(job)
            if starts[job.number] == TRIES:
                assert running == [job]
                assert waiting.take() is None
        assert running, "nothing runs and something is left"
        job = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if data.draw(st.booleans(), label="dies"):
            if not waiting.died(job, times=data.draw(st.sampled_from([1, 1, TRIES]))):
                given_up.add(job.number)
        else:
            waiting.ended(job)
            ended.add(job.number)
    assert ended | given_up == set(range(number))
    assert max(starts.values()) <= TRIES
    assert all(starts[n] >= 2 for n in given_up)


@given(st.lists(st.text("ab/.-é", min_size=1, max_size=60), min_size=1, max_size=12), st.integers(12, 30))
def test_short_names_are_short_and_tell_apart(names: list[str], width: int) -> None:
    short = short_names(names, width)
    assert all(0 < len(each) <= width for each in short)
    places = {os.path.normpath(name) for name in names}
    assert len(set(short)) >= len(places)
    assert [short[names.index(name)] for name in names] == short


def test_names_lose_the_directories_they_share() -> None:
    assert short_names(["/a/b/7.2", "/a/b/c/7.3"], 30) == ["7.2", "c/7.3"]
    assert short_names(["/a/b/7.2"], 30) == ["7.2"]
    assert short_names(["one", "two/"], 30) == ["one", "two"]
    assert short_names(["x" * 40, "y"], 10) == ["xxxx...xxx", "y"]


def result_of(verdict: str, checks: list[tuple[str, int, int]], revision: str) -> Result:
    """Return a result with as much as the tables look at."""
    divergences = [Divergence(name, 7, "zs_free", 1, 2, "", 0, 0, 0) for name, _, different in checks if different]
    return Result(verdict, "r", revision, "", "7.3", "lz4", 9,
                  [CheckResult(name, compared, different, "exact", "") for name, compared, different in checks],
                  divergences)


@pytest.mark.parametrize(("came", "status"), [
    (["PASS", "PASS"], 0), (["PASS", "UNDECIDED"], 3), (["PASS", NOT_DONE], 3), (["UNDECIDED", "FAIL", NOT_DONE], 1),
    (["FAIL", UNREADABLE, NOT_DONE], 2), ([UNREADABLE, "PASS"], 2)])
def test_the_worst_of_many_is_the_command_s_status(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                                   came: list[str], status: int) -> None:
    def outcomes(jobs: list[ReplayJob], processes: int) -> Iterator[JobOutcome]:
        for job, what in zip(jobs, came, strict=True):
            if what in (UNREADABLE, NOT_DONE):
                yield JobOutcome(job.number, None, what, "it is odd.")
            else:
                result = result_of(what, [("store.length", 9, int(what == "FAIL"))], "mainline-7.3")
                yield JobOutcome(job.number, dataclasses.replace(result, seconds={"replay": 1.0, "compress": 0.0}))

    monkeypatch.setattr("replay.cli.many.run_local", outcomes)
    assert run(capsys, "replay", *(f"rec{number}" for number in range(len(came))), "-j", 2)[0] == status


def test_tables_add_up_and_fit() -> None:
    long = "x" * 70
    jobs = [ReplayJob(n, f"/some/where/{long}{n // 5}", f"file-{n % 5}.py:Revision{n % 5}") for n in range(15)]
    outcomes = {}
    for job in jobs[:-2]:
        checks = [("store.length", 1000, 0), ("lru.order", 0, 0), ("counter.b", 3, 0)]
        if job.number == 6:
            checks = [("store.length", 1000, 3), ("counter.a", 2, 0)]
        outcomes[job.number] = JobOutcome(job.number, result_of("FAIL" if job.number == 6 else "PASS", checks,
                                                                f"Revision{job.number % 5}"))
    outcomes[13] = JobOutcome(13, None, UNREADABLE, "rec: is odd; mend it.")
    lines = "\n".join(table_lines(jobs, outcomes)).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "FAIL @7" in text
    assert "in no recording compared: lru.order" in " ".join(line.strip() for line in lines)
    assert re.search(r"^store.length +3,000 / 0 +3,000 / 3\b", text, re.M)
    plain = as_plain(jobs, outcomes)
    assert len(plain["verdicts"]) == 15
    assert plain["verdicts"][6] == {
        "recording": jobs[6].recording, "asked": jobs[6].revision, "revision": "Revision1", "verdict": "FAIL",
        "check": "store.length", "event": 7, "error": ""}
    assert plain["verdicts"][13]["error"] == "rec: is odd; mend it."
    assert plain["verdicts"][14]["verdict"] is None
    by = {(row["check"], row["asked"]): row for row in plain["checks"]}
    assert by["store.length", jobs[1].revision] == {
        "check": "store.length", "asked": jobs[1].revision, "compared": 3000, "different": 3, "recordings": 3,
        "not_compared": 0, "following": 0}
    assert by["counter.b", jobs[1].revision]["not_compared"] == 1
    assert by["counter.a", jobs[1].revision]["not_compared"] == 2
    assert by["lru.order", jobs[1].revision]["not_compared"] == 3
    assert [row["check"] for row in plain["checks"][::5]] == ["store.length", "lru.order", "counter.a", "counter.b"]


def test_compiled_functions_are_read_and_written_under_a_lock(tmp_path: Path) -> None:
    program = '''
import fcntl, os, sys, threading
from numba.core.caching import IndexDataCacheFile
from replay.many.compiled import guard
assert guard()
file = IndexDataCacheFile(sys.argv[1], "function", "stamp")
held = os.open(os.path.join(sys.argv[1], "zreplay.lock"), os.O_RDWR | os.O_CREAT)
fcntl.flock(held, fcntl.LOCK_SH)
found = []
for work in (lambda: file.save("key", "code"), lambda: found.append(file.load("key"))):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.3)
    print(thread.is_alive(), os.listdir(sys.argv[1]) == ["zreplay.lock"])
    fcntl.flock(held, fcntl.LOCK_UN)
    thread.join()
    fcntl.flock(held, fcntl.LOCK_EX)
fcntl.flock(held, fcntl.LOCK_SH)
print(found, file.load("key"))
'''
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.stdout.split("\n") == ["True True", "True False", "['code'] code", ""], done.stderr
