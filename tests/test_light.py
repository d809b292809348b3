# SPDX-License-Identifier: GPL-2.0-or-later
"""A verb imports what it needs: what it does without, it does as well; what is not installed is named with the command."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_manners import COMMAND, on_a_terminal
from test_record_capture import make

from model.crypto import KERNEL_LINES, compressor_for
from model.crypto.libraries import LIBRARIES
from model.crypto.registry import COMPRESSORS
from replay import replay
from replay.cli.replay_ import report
from replay.cli.versions import versions
from traces import compiling, open_recording
from traces.arrowarrays import arrow_of, numpy_of

#: What few verbs need; numba loads scipy by itself where it is installed.
HEAVY = {"pandas", "matplotlib", "simpy", "distributed", "xml.etree.ElementTree", "multiprocessing", "rich"}


def imported(*words: str | Path, cwd: Path = ROOT) -> set[str]:
    """Return the modules that a command has imported when it ends."""
    program = ("import sys, io, contextlib\nfrom replay.cli import main\n"
               "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
               f"    main({[str(word) for word in words]!r})\nprint('\\n'.join(sys.modules))")
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_version_is_printed_without_what_computes() -> None:
    loaded = imported("--version")
    assert not loaded & {*HEAVY, "numba", "llvmlite", "numpy", "pyarrow", "scipy"}
    assert len(loaded) < 300, "it was 571 when it loaded the compiler to name its compressors"


def test_the_version_names_what_each_compressor_says_itself() -> None:
    assert set(LIBRARIES) == {name for name, entry in COMPRESSORS.items() if entry.compiled}
    said = "\n".join(versions())
    for name, library in LIBRARIES.items():
        idents = {compressor_for(name, line).ident for line in KERNEL_LINES}
        assert all(ident.startswith(f"{name} {library} ") for ident in idents), name
        assert library.removeprefix("own ") in said, name


def test_a_replay_loads_no_pandas(samples: dict[str, Path], tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    shutil.copytree(samples["7.3-lz4-limits"], sample, ignore=shutil.ignore_patterns("cache"))
    for _ in ("cold", "warm"):
        loaded = imported("replay", sample)
        assert "replay.verdict.run" in loaded
        assert not loaded & HEAVY
        assert not {name for name in loaded if name.startswith("model.crypto.") and name.endswith(("lzo", "sw842"))}


def test_other_verbs_load_no_pandas(samples: dict[str, Path], tmp_path: Path) -> None:
    sample = samples["7.2-lz4-edge"]
    for words in (("info", sample), ("show", sample, "--limit", "3"),
                  ("cut", sample, "--from", "1", "--to", "500", "-o", tmp_path / "cut.zr"), ("doctor",)):
        assert not imported(*words) & {"matplotlib", "simpy", "distributed", "multiprocessing"}, words
    assert "pandas" not in imported("info", sample)


# ---- arrays without pandas ----------------------------------------------------------------------------------

NUMBERS = [pa.int8(), pa.uint8(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float64(), pa.bool_()]


@st.composite
def columns(draw: st.DrawFn) -> pa.ChunkedArray:
    """Columns of all plain types, in chunks that may be empty and may begin anywhere."""
    kind = draw(st.sampled_from(NUMBERS))
    values: st.SearchStrategy[Any] = st.booleans() if pa.types.is_boolean(kind) else (
        st.floats(allow_nan=False) if pa.types.is_floating(kind) else st.integers(0, 100))
    if draw(st.booleans()):
        values = st.none() | values
    chunks = []
    for _ in range(draw(st.integers(0, 3))):
        given = draw(st.lists(values, max_size=20))
        at = draw(st.integers(0, len(given)))
        chunks.append(pa.array(given, kind).slice(at))
    return pa.chunked_array(chunks, kind)


@settings(deadline=None)
@given(columns())
def test_columns_are_what_pyarrow_makes_of_them(column: pa.ChunkedArray) -> None:
    right = column.to_numpy()
    got = numpy_of(column)
    if not column.null_count:
        assert got.dtype == right.dtype
    assert [None if value is None or value != value else value for value in got.tolist()] == \
        [None if value is None or value != value else value for value in right.tolist()]
    for chunk in column.chunks:
        one = numpy_of(chunk)
        assert one.tolist() == chunk.to_pylist() or chunk.null_count


@settings(deadline=None)
@given(columns())
def test_arrays_become_columns_and_come_back(column: pa.ChunkedArray) -> None:
    if column.null_count:
        column = column.drop_null()
    values = numpy_of(column)
    made = arrow_of(values)
    assert made.type == column.type
    assert made.to_pylist() == column.to_pylist() == numpy_of(made).tolist()
    made.validate(full=True)


def test_what_is_shared_is_not_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        numpy_of(pa.array([1, 2, 3]))[0] = 5
    text = numpy_of(pa.array(["a", None]))
    assert (text.dtype, text.tolist()) == (np.dtype(object), ["a", None])


def test_lists_are_a_table_s(samples: dict[str, Path], tmp_path: Path) -> None:
    for path in samples.values():
        recording = open_recording(path)
        for name, names in (("truth", ("phase", "swap_type", "swap_offset", "sha1")), ("objects", ("handle", "data"))):
            frame, lists = recording.table(name), recording.lists(name, names)
            assert (frame is None) == (lists is None)
            if frame is not None:
                assert lists == [frame[column].tolist() for column in names]
    copy = tmp_path / "copy"
    shutil.copytree(samples["7.2-lz4-edge"], copy, ignore=shutil.ignore_patterns("cache"))
    recording = open_recording(copy, verify=False)
    recording.manifest["files"]["odd.parquet"] = ""
    pq.write_table(pa.table({"n": pa.array([1, None], pa.int64()), "t": ["x", None]}), copy / "odd.parquet")
    numbers, texts = recording.lists("odd", ("n", "t")) or ([], [])
    assert (numbers[0], math.isnan(numbers[1]), texts) == (1, True, ["x", None])
    with pytest.raises(KeyError):
        recording.lists("odd", ("none",))
    assert recording.lists("nothing", ("n",)) is None


# ---- extras -------------------------------------------------------------------------------------------------

#: Lets a package be as if it were not installed.
WITHOUT = """import importlib.util, sys
sys.modules['{0}'] = None
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition('.')[0] == '{0}' else found(name, package)
from importlib import metadata
version = metadata.version
def absent(name):
    if name == '{0}':
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = absent
from replay.cli import main
sys.exit(main())
"""


def without(package: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command where a package is not installed."""
    return subprocess.run([sys.executable, "-c", WITHOUT.format(package), *map(str, words)], cwd=ROOT, capture_output=True,
                          text=True, check=False)


def test_a_report_names_what_it_needs_before_it_works(samples: dict[str, Path], tmp_path: Path) -> None:
    done = without("matplotlib", "report", samples["7.2-lz4-edge"], "-o", tmp_path / "x.html")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("zreplay: report: the package matplotlib is not installed; install it: ")
    assert done.stderr.endswith(" -m pip install 'matplotlib>=3.9,<4'.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_regress_that_tests_names_what_it_needs(samples: dict[str, Path], tmp_path: Path) -> None:
    copies = []
    for number in range(6):
        copies.append(tmp_path / f"{number}.zr")
        shutil.copytree(samples["7.2-lz4-edge"], copies[-1], ignore=shutil.ignore_patterns("cache"))
    done = without("scipy", "regress", "--base", *copies[:3], "--patched", *copies[3:])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("zreplay: regress of three or more runs a side: the package scipy is not installed; ")
    assert done.stderr.endswith(" -m pip install 'scipy>=1.13,<2'.\n")
    # Fewer runs are not tested: the counts are compared all the same.
    done = without("scipy", "regress", "--base", samples["7.2-lz4-edge"], "--patched", samples["7.3-lz4-4k"])
    assert "not installed" not in done.stderr


def test_a_replay_needs_no_extra(samples: dict[str, Path]) -> None:
    for package in ("matplotlib", "scipy"):
        done = without(package, "replay", samples["7.2-lz4-edge"])
        assert (done.returncode, done.stderr) == (0, "")


def test_doctor_names_the_extra() -> None:
    checks = json.loads(without("matplotlib", "doctor", "--json").stdout)["checks"]
    (extras,) = [check for check in checks if check["id"] == "extras"]
    assert extras["facts"]["missing"]["report"] == ["matplotlib>=3.9,<4"]
    assert "'matplotlib>=3.9,<4'" in extras["command"]
    said = " ".join(without("matplotlib", "doctor").stdout.split())
    assert "report: no" in said
    assert "'report' is for report and the statistics of regress" in said


def test_the_extra_is_part_of_what_tests_need() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.partition(">")[0] for line in project["dependencies"]}
    assert not names & {"scipy", "matplotlib"}
    extras = project["optional-dependencies"]
    assert {line.partition(">")[0] for line in extras["report"]} == {"scipy", "matplotlib"}
    assert "zreplay[report]" in extras["dev"]


# ---- compiling ----------------------------------------------------------------------------------------------

COMPILING = "zreplay: compiling for this machine, once (about 30 s in all; 'zreplay warmup' does it beforehand) ..."


def test_nested_compiling_counts_once_and_what_is_not_kept_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock, said = compiling._Clock(), []
    clock.say = lambda: said.append(now[0])
    for begins, ends, keeps in ((1.0, 3.0, False), (10.0, 14.0, True), (20.0, 21.0, True)):
        now[0] = begins
        clock.start(keeps)
        now[0] += 0.5
        clock.start(True)
        clock.end()
        now[0] = ends
        clock.end()
    assert (clock.total, clock.kept, said) == (7.0, 5.0, [10.0])


def test_what_compiling_takes_is_measured_apart(samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    # Of every two looks at the clock the second comes 5000 s of compiling later; inside of the replay's is the pages'.
    looks = iter([0.0, 100.0, 5100.0, 9000.0])
    monkeypatch.setattr(compiling, "seconds", lambda: next(looks))
    result = replay(open_recording(samples["7.2-lz4-edge"]))
    assert result.verdict == "PASS"
    assert result.seconds["compile"] == 9000.0
    assert -5000 <= result.seconds["compress"] < -4000
    assert -4000 <= result.seconds["replay"] < -3000
    said = list(report(result))
    assert any(line.endswith(" s, compiling 9000.00 s") for line in said)
    result.seconds["compile"] = 0.0
    assert not any("compiling" in line for line in report(result))


def test_the_first_compiling_is_announced_on_a_terminal_once(samples: dict[str, Path], tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cold"))
    sample = tmp_path / "sample"
    shutil.copytree(samples["7.2-lz4-edge"], sample, ignore=shutil.ignore_patterns("cache"))
    words = ["replay", str(sample)]
    status, said = on_a_terminal(words, 200, NO_COLOR="1")
    assert status == 0
    assert said.count(COMPILING) == 1
    assert re.search(r", pages took [\d.]+ s, compiling [\d.]+ s$", said, re.M)
    status, said = on_a_terminal(words, 200, NO_COLOR="1")
    assert status == 0
    assert COMPILING not in said
    assert ", compiling" not in said
    shutil.rmtree(tmp_path / "cold")
    done = subprocess.run([*COMMAND, *words, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout)["seconds"]["compile"] > 0


@pytest.mark.slow
def test_after_a_warm_up_nothing_is_compiled(samples: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "numba"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))

    def kept() -> set[Path]:
        return set(cache.rglob("*.nbc"))

    def run(*words: str | Path) -> str:
        return subprocess.run([*COMMAND, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert run("warmup").startswith("compiled for this machine: ")
    before = kept()
    assert len(before) > 50
    assert run("warmup") == "nothing to compile: what was compiled before is still there\n"
    for sample in samples.values():
        for engine in ("fast", "reference"):
            run("replay", sample, "--engine", engine)
    run("import", ROOT / "tests/corpus/dat-good", "-o", tmp_path / "dat.zr")
    make(tmp_path / "capture", pages="full")
    run("import", tmp_path / "capture", "-o", tmp_path / "capture.zr")
    assert kept() == before
