# SPDX-License-Identifier: GPL-2.0-or-later
"""Revisions of a user's own: whatever the file does, it ends in a verdict or in one sentence that names its line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

import model
from model.effects import DEFAULTS
from model.revisions import REVISIONS
from replay.cli import main
from replay.many.jobs import ReplayJob, safely
from replay.userrev import confinement as confine
from replay.userrev import guard, watchdog
from replay.userrev.effectnames import known_effects, shipped_sizes, wrong_with
from replay.userrev.overrides import overridden, overrides_line
from replay.userrev.revision import load_revision
from traces.errors import BadInput
from traces.events import EFFECTS

HEAD = "from model.revisions.mainline_7 import Mainline72\nfrom model.revisions.v14 import V14\n"
STORE = "def zswap_store(self, folio):\n"


def own(path: Path, body: str, base: str = "Mainline72", before: str = "") -> str:
    """Write a revision whose class begins at line 4 (the body at 5); returns how the command names it."""
    file = path / "v15.py"
    file.write_text(HEAD + before + f"\nclass V15({base}):\n" + textwrap.indent(body, "    ") + "\n")
    return f"{file}:V15"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process; return (exit status, stdout, stderr)."""
    status = main([str(each) for each in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's time is up soon."""
    monkeypatch.setenv("ZREPLAY_REVISION_SECONDS", "0.3")


#: what is wrong -> (body of the class, its line that is named, what is said of it)
AT_ONCE = {
    "an unknown effect, also in a step that never runs": (
        "def zswap_writeback_entry(self, entry, swpent):\n    yield ('zswap_writeback_entri', entry)", 6,
        "yields the unknown effect 'zswap_writeback_entri' (did you mean 'zswap_writeback_entry' or 'zswap_writeback_entry_ret'?)"),
    "an unknown question": ("def zswap_invalidate(self, swpent):\n    yield ('?xastore', 1)", 6,
                            "yields the unknown question '?xastore' (did you mean '?xa_store'?)"),
    "too many items": (STORE + "    yield ('zswap_store', folio, 1)", 6,
                       "yields 'zswap_store' with 3 items, name included, where it has 2"),
    "a misspelt step": ("def zswap_stroe(self, folio):\n    yield ('zswap_store', folio)", 5,
                        "has zswap_stroe, which overrides nothing and nothing uses; mainline-7.2 has zswap_store"),
    "a misspelt step that calls its like": (
        "def zswap_stroe(self, folio):\n    return (yield from super().zswap_stroe(folio))", 5, "has zswap_stroe"),
    "a misspelt value": ("SHRINK_BUDGT = 3", 5, "mainline-7.2 has SHRINK_BUDGET"),
    "a misspelt name": ("mirror = 'v15'", 5, "mainline-7.2 has mirrors"),
    "a misspelt value of the object's": (
        "def zswap_invalidate(self, swpent):\n    self.zswap_mxa = 3\n    yield from super().zswap_invalidate(swpent)", 6,
        "mainline-7.2 has zswap_max"),
    "no kernel line": ("kernel_line = None", 5, "has kernel_line = None, which does not exist"),
    "a wrong kernel line": ("kernel_line = '7.2'", 5, "choose one of mainline-6.12,"),
    "a wrong layer": ("\ncrypto_layer = '9'", 6, "has crypto_layer = '9', which does not exist"),
    "a value of a wrong type": ("SHRINK_BUDGET = 'many'", 5, "give it a value of type int"),
    "no method": ("zswap_load = None", 5, "has None as zswap_load, which is a method of mainline-7.2"),
    "async": ("async def zswap_store(self, folio):\n    pass", 5, "async, which nothing would await"),
    "other parameters": ("def zswap_store(self):\n    yield ()", 5, "has zswap_store(self), where mainline-7.2 has "
                         "zswap_store(self, folio): too many positional arguments"),
    "a yield in a plain method": ("def _count_reject(self, comp_ret, alloc_ret):\n    yield ('zs_free', 1)", 5,
                                  "which is a plain method of mainline-7.2: nothing would run it"),
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_what_cannot_be_meant_is_said_before_anything_runs(case: str, tmp_path: Path) -> None:
    body, line, said = AT_ONCE[case]
    name = own(tmp_path, body)
    with pytest.raises(BadInput) as caught:
        load_revision(name)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/v15.py:{line}: revision V15 ")
    assert said in text


#: what is wrong -> (body of the class, its line that is named, what is said of it)
RUNNING = {
    "sys.exit": (STORE + "    import sys\n    sys.exit(0)\n    yield", 7, "ends the process (SystemExit, status 0)"),
    "os._exit": (STORE + "    import os\n    os._exit(0)\n    yield", 7, "ends the process (SystemExit, status 0)"),
    "KeyboardInterrupt": (STORE + "    raise KeyboardInterrupt\n    yield", 6, "raises KeyboardInterrupt"),
    "GeneratorExit": (STORE + "    raise GeneratorExit\n    yield", 6, "raises GeneratorExit"),
    "StopIteration": (STORE + "    raise StopIteration\n    yield", 6, "raises RuntimeError: generator raised StopIteration"),
    "an error of its own": (STORE + "    yield ('zswap_store', folio)\n    return 1 / 0", 7,
                            "raises ZeroDivisionError: division by zero"),
    "an error in __init__": ("def __init__(self, **given):\n    super().__init__(**given)\n    raise ValueError('no')", 7,
                             "raises ValueError: no"),
    "no effect": (STORE + "    yield", 6, "yields None, which is not an effect"),
    "a name alone": (STORE + "    yield 'zswap_store'", 6, "yields 'zswap_store', which is not an effect"),
    "a list": (STORE + "    yield ['zswap_store', folio]", 6, "yields ['zswap_store', "),
    "an empty tuple": (STORE + "    yield ()", 6, "yields (), which is not an effect"),
    "no name": (STORE + "    yield (7, folio)", 6, "yields (7, "),
    "an unknown effect, its name put together": (STORE + "    yield ('zswap' + '_stor', folio)", 6, "the unknown effect 'zswap_stor'"),
    "too few items as it goes": (STORE + "    effect = ('zswap_store',)\n    yield effect", 7, "with 1 items"),
    "never yields": (STORE + "    return True", 5, "never yields in zswap_store(), which returns True at once"),
    "a forgotten return": (
        "def zswap_compress(self, folio, index, entry):\n    yield from super().zswap_compress(folio, index, entry)", 5,
        "returns None from zswap_compress(), where mainline-7.2 returns bool"),
    "a wrong type": (
        "def zswap_store_page(self, folio, index, pool, has_objcg):\n    yield from super().zswap_store_page(folio, index, "
        "pool, has_objcg)\n    return 'x'", 5, "returns 'x' from zswap_store_page(), where mainline-7.2 returns ZswapEntry or None"),
    "a wrong type of a plain method": ("def max_pages(self):\n    return None", 5, "returns None from max_pages()"),
    "recursion": (STORE + "    return (yield from self.zswap_store(folio))", 6, "calls itself without end (RecursionError"),
    "memory": (STORE + "    held = bytearray(1 << 46)\n    yield", 6, "MiB that it may (MemoryError)"),
}


@pytest.mark.parametrize("case", RUNNING)
def test_whatever_a_step_does_is_one_sentence(case: str, samples: dict[str, Path], capsys: pytest.CaptureFixture[str],
                                              tmp_path: Path) -> None:
    body, line, said = RUNNING[case]
    name, sample = own(tmp_path, body), samples["7.2-lz4-edge"]
    for command in (["replay", sample, "--no-pages", "--json", "--revision", name],
                    ["regress", sample, "--revision", "mainline-7.2", "--revision", name, "--json"]):
        status, out, err = run(capsys, *command)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"zreplay: {tmp_path}/v15.py:{line}, ")
        assert f"{sample}: revision V15 " in err
        assert ("event " in err) == ("__init__" not in case)
        assert said in err


def test_the_event_at_hand_is_named(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name, sample = own(tmp_path, STORE + "    yield ('zswap_store', folio)\n    return 1 / 0"), samples["7.2-lz4-edge"]
    # Event 3 is the store's, which the operation begins at 2; the next resumes it.
    assert f"v15.py:7, event 4 of {sample}: " in run(capsys, "replay", sample, "--no-pages", "--revision", name)[2]
    assert f"v15.py:7, event 2 of {sample}: " in run(capsys, "regress", sample, "--revision", "v14", "--revision", name)[2]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("body", "line"), [
    (STORE + "    while True:\n        pass\n    yield", (6, 7)),
    (STORE + "    import time\n    time.sleep(600)\n    yield", (7,)),
    (STORE + "    import threading\n    threading.Lock().acquire(timeout=600) or 1\n    lock = threading.Lock()\n    lock.acquire()\n"
     "    lock.acquire()\n    yield", (10,)),
    (STORE + "    import re\n    re.match('(a|aa)+$', 'a' * 60 + 'b')\n    yield", (7,)),
    ("def max_pages(self):\n    while True:\n        pass", (6, 7))])
def test_a_loop_that_does_not_yield_ends(body: str, line: tuple[int, ...], samples: dict[str, Path],
                                         capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = run(capsys, "replay", samples["7.2-lz4-edge"], "--no-pages", "--json", "--revision", own(tmp_path, body))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert int(err.partition("v15.py:")[2].partition(",")[0]) in line
    assert "has come no further for 0.3 seconds of CPU time (or waits)" in err


def test_a_loop_that_yields_ends(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "STEPS", 5000)
    name = own(tmp_path, STORE + "    yield ('zswap_store', folio)\n    while True:\n        yield ('?objcg',)")
    for command in (["replay", samples["7.2-lz4-edge"], "--no-pages"],
                    ["regress", samples["7.2-lz4-edge"], "--revision", "mainline-7.2"]):
        status, _, err = run(capsys, *command, "--revision", name)
        assert status == 2
        assert "v15.py:8, event " in err
        assert "has taken 5,000 steps at this event and has not stopped" in err


@pytest.mark.usefixtures("quick")
def test_code_that_catches_everything_ends_with_its_process(samples: dict[str, Path], tmp_path: Path) -> None:
    name = own(tmp_path, STORE + "    while True:\n        try:\n            while True:\n                pass\n"
                                 "        except BaseException:\n            pass\n    yield")
    done = subprocess.run([sys.executable, "-m", "replay", "replay", str(samples["7.2-lz4-edge"]), "--no-pages", "--json",
                           "--revision", name], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "neither yields nor returns" in done.stderr


@pytest.mark.usefixtures("quick")
def test_what_is_caught_once_is_told_all_the_same(samples: dict[str, Path], capsys: pytest.CaptureFixture[str],
                                                  tmp_path: Path) -> None:
    """The step continues as if nothing had happened, but its time is up."""
    name = own(tmp_path, STORE + "    try:\n        while True:\n            pass\n    except BaseException:\n        pass\n"
                                 "    return (yield from super().zswap_store(folio))")
    status, _, err = run(capsys, "replay", samples["7.2-lz4-edge"], "--no-pages", "--revision", name)
    assert status == 2
    assert "neither yields nor returns" in err


@pytest.mark.usefixtures("quick")
def test_a_loop_ends_in_a_thread_too(samples: dict[str, Path], tmp_path: Path) -> None:
    """As a worker of a cluster runs it; and where somebody else has the timer."""
    job = ReplayJob(0, str(samples["7.2-lz4-edge"]), own(tmp_path, STORE + "    while True:\n        pass\n    yield"), {"pages": False})
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(safely(job)))
    thread.start()
    thread.join(60)
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        found.append(safely(job))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [outcome.kind for outcome in found] == ["unreadable"] * 2
    assert all("neither yields nor returns" in outcome.error for outcome in found)


def test_a_slow_step_that_comes_further_is_left_alone(samples: dict[str, Path], capsys: pytest.CaptureFixture[str],
                                                      tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZREPLAY_REVISION_SECONDS", "0.5")
    # Together they take longer than one may.
    name = own(tmp_path, "def zswap_invalidate(self, swpent):\n    import time\n    until = time.thread_time() + 0.02\n"
                         "    while time.thread_time() < until:\n        pass\n    yield from super().zswap_invalidate(swpent)")
    began = time.thread_time()
    assert run(capsys, "replay", samples["7.2-lz4-edge"], "--no-pages", "--revision", name)[0] == 0
    assert time.thread_time() - began > 0.5


def test_nothing_is_left_of_the_guard(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def standing() -> tuple[object, ...]:
        return (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGINT),
                confine.resource.getrlimit(confine.resource.RLIMIT_DATA), os._exit, sys.stdout, os.readlink("/proc/self/fd/1"),
                guard.active())

    before = standing()
    for body in ("pass", STORE + "    raise KeyboardInterrupt\n    yield"):
        run(capsys, "replay", samples["7.2-lz4-edge"], "--no-pages", "--revision", own(tmp_path, body))
        assert standing() == before


def test_another_thread_may_end_the_process(samples: dict[str, Path], tmp_path: Path) -> None:
    """A worker's that sees its command gone does."""
    name = own(tmp_path, STORE + "    import os, threading, time\n    threading.Thread(target=os._exit, args=(7,)).start()\n"
                                 "    time.sleep(60)\n    yield")
    done = subprocess.run([sys.executable, "-m", "replay", "replay", str(samples["7.2-lz4-edge"]), "--no-pages",
                           "--revision", name], cwd=ROOT, capture_output=True, timeout=50)
    assert done.returncode == 7


def test_a_real_interrupt_stays_one(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = own(tmp_path, STORE + "    import os, signal\n    os.kill(os.getpid(), signal.SIGINT)\n    yield")
    # A shell's background job has it ignored, and hands that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, _, err = run(capsys, "replay", samples["7.2-lz4-edge"], "--no-pages", "--revision", name)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, err) == (130, "zreplay: interrupted; nothing half-written was left behind.\n")


def test_memory_is_bounded(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path,
                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "SHARE", 0.0)
    monkeypatch.setattr(confine, "LEAST", 300 << 20)
    name = own(tmp_path, STORE + "    held = []\n    while True:\n        held.append(bytearray(1 << 22))\n    yield")
    status, _, err = run(capsys, "replay", samples["7.2-lz4-edge"], "--no-pages", "--revision", name)
    assert status == 2
    assert "v15.py:8, event " in err
    assert "takes more than the 300 MiB that it may (MemoryError)" in err


# ---- the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "where", "said"), [
    ("class V15(Mainline72)\n    pass\n", ":1", "cannot be read (SyntaxError: expected ':')"),
    ("x = 1\nimport nothing_of_that_name\n", ":2", "needs what cannot be imported (ModuleNotFoundError: No module named"),
    ("import sys\nsys.exit(3)\n", ":2", "ends the process (SystemExit, status 3)"),
    ("\nraise KeyboardInterrupt\n", ":2", "raises KeyboardInterrupt"),
    ("def f():\n    f()\nf()\n", ":2", "calls itself without end"),
    ("x = 1\n", ", class 'V15'", "there is nothing of that name; it has no revision"),
    (HEAD + "class V16(V14):\n    pass\n", ", class 'V15'", "there is nothing of that name; it has V16"),
    ("V15 = 1\n", ", class 'V15'", "is of type int"),
    ("\n\nclass V15:\n    pass\n", ":3", "is not a revision (a subclass of model.zswap.Zswap)"),
    ("from model.revisions.batching import BatchedStore\nclass V15(BatchedStore):\n    pass\n", ":2",
     "has no zswap_alloc_entries(), which BatchedStore leaves to its subclasses"),
    ("x = '\udcff'", ":1", "cannot be read (SyntaxError"), ("x = 1\0", "", "is not a Python file")])
def test_a_file_that_is_none(text: str, where: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "v15.py").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput) as caught:
        load_revision(f"{tmp_path}/v15.py:V15")
    assert str(caught.value).startswith(f"{tmp_path}/v15.py{where}: ")
    assert said in str(caught.value)


@pytest.mark.usefixtures("quick")
def test_a_file_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "v15.py").write_text("x = 1\nwhile True:\n    pass\n")
    with pytest.raises(BadInput, match=r"v15.py:[23]: revision V15 has come no further for 0.3 seconds"):
        load_revision(f"{tmp_path}/v15.py:V15")


def test_a_file_without_a_class(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = own(tmp_path, "pass", before="class Other(V14):\n    pass\n").rpartition(":")[0]
    status, _, err = run(capsys, "replay", samples["7.2-lz4-edge"], "--revision", file)
    assert (status, err) == (2, f"zreplay: {file}: names a file and no class; its classes: Other, V15; give --revision "
                                "FILE.py:CLASS.\n")


def test_an_edited_file_is_the_new_one(tmp_path: Path) -> None:
    """Python keeps what it compiled next to a file, and takes it for any version of that length and second."""
    name = own(tmp_path, "SHRINK_BUDGET = 3")
    first: Any = load_revision(name)
    second: Any = load_revision(own(tmp_path, "SHRINK_BUDGET = 4"))
    assert (first.SHRINK_BUDGET, second.SHRINK_BUDGET) == (3, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["v15.py"]


def test_a_file_may_hold_dataclasses_and_helpers(samples: dict[str, Path], capsys: pytest.CaptureFixture[str],
                                                 tmp_path: Path) -> None:
    name = own(tmp_path, "def _store_pagez(self):\n    return 1\n\n" + STORE + "    self._store_pagez()\n"
               "    return (yield from super().zswap_store(folio))",
               before="from dataclasses import dataclass\n@dataclass\nclass Seen:\n    count: 'int' = 0\n")
    assert run(capsys, "replay", samples["7.2-lz4-edge"], "--no-pages", "--revision", name)[0] == 0


def test_what_it_prints_goes_to_stderr(samples: dict[str, Path], tmp_path: Path) -> None:
    name = own(tmp_path, "def zswap_invalidate(self, swpent):\n    print('stepping')\n    os.write(1, b'raw\\n')\n"
               "    sys.__stdout__.write('dunder\\n')\n    yield from super().zswap_invalidate(swpent)",
               before="import os, subprocess, sys\nprint('loading')\nsubprocess.run(['echo', 'child'])\n")
    for command, verdict in ((["replay", str(samples["7.2-lz4-edge"]), "--no-pages"], "PASS"),
                             (["replay", str(samples["7.2-lz4-edge"]), "--no-pages", "-j", "1"], "PASS"),
                             (["regress", str(samples["7.2-lz4-edge"]), "--revision", "mainline-7.2"], None)):
        done = subprocess.run([sys.executable, "-m", "replay", *command, "--json", "--revision", name], cwd=ROOT,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout).get("verdict") == verdict
        for word in ("loading", "child", "stepping", "raw", "dunder"):
            assert word in done.stderr


# ---- what it overrides ----------------------------------------------------------------------------------------


def test_a_line_says_what_is_overridden(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    body = ("SHRINK_BUDGET = 1\ndef zswap_invalidate(self, swpent):\n    self._helper()\n"
            "    yield from super().zswap_invalidate(swpent)\ndef _helper(self):\n    pass")
    line = "revision V15 (v15.py) overrides SHRINK_BUDGET, zswap_invalidate of mainline-7.2"
    name, sample = own(tmp_path, body), samples["7.2-lz4-edge"]
    for command in (["replay", sample, "--no-pages", "--revision"], ["regress", sample, "--revision", "mainline-7.2", "--revision"],
                    ["bisect", sample, "v14"]):
        out = run(capsys, *command, name)[1]
        assert " ".join(out.split()).count(line) == 1, out
    found = json.loads(run(capsys, "replay", sample, "--no-pages", "--revision", name, "--json")[1])
    assert line in found["notes"]
    kind: Any = load_revision(own(tmp_path, "pass", "V14"))
    assert (overridden(kind), overrides_line(kind)) == ([], "revision V15 (v15.py) overrides nothing of v14")
    assert "overrides" not in run(capsys, "replay", sample, "--no-pages")[1]


@pytest.mark.parametrize("name", REVISIONS)
def test_every_shipped_revision_can_be_written_by_a_user(name: str, tmp_path: Path) -> None:
    """Its own modules, taken for a user's file: nothing in them is a fault."""
    kind = REVISIONS[name]
    file = tmp_path / "mine.py"
    file.write_text(Path(ROOT, *kind.__module__.split(".")).with_suffix(".py").read_text())
    loaded: Any = load_revision(f"{file}:{kind.__name__}")
    assert loaded.mirrors == kind.mirrors
    assert set(overridden(loaded)) >= {"mirrors"}


# ---- effects --------------------------------------------------------------------------------------------------


def test_all_that_the_model_yields_is_known_and_handled() -> None:
    assert set(shipped_sizes()) == set(known_effects())
    assert set(known_effects()) >= {*DEFAULTS, "memcpy", "zs_malloc"}
    assert set(EFFECTS) == set(known_effects()) - set(DEFAULTS) - {"memcpy"}


#: Hypothesis tries the strings of the code, too: effects' names.
_NO_EFFECT = st.text().filter(lambda text: text not in known_effects())


@given(st.one_of(st.none(), st.text(), st.integers(), st.tuples(), st.lists(st.text()),
                 st.tuples(_NO_EFFECT, st.integers()), st.tuples(st.integers(), st.text())))
def test_no_other_value_is_an_effect(value: Any) -> None:
    assert wrong_with(value).startswith("yields ")


@given(st.sampled_from(sorted(known_effects())), st.integers(0, 12))
def test_an_effect_has_as_many_items_as_the_models(name: str, items: int) -> None:
    sizes = known_effects()[name]
    assert (wrong_with((name, *range(items))) == "") == (not sizes or items + 1 in sizes)


def test_where_the_model_is_is_known() -> None:
    assert str(Path(model.__file__).parent) == guard._MODEL
    assert watchdog.limit() == watchdog.LIMIT
