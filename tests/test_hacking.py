# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/hacking.md: what it says of imports holds, and what it says to add a posting and a check is all there is to do."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import replay
import traces
from model.effects import DEFAULTS, UNSEEN
from replay.userrev.effectnames import shipped_sizes
from replay.userrev.revision import load_revision
from traces.events import EFFECTS

PAGE = ROOT / "docs" / "hacking.md"
PARTS = ("model", "traces", "replay")


def modules() -> dict[str, Path]:
    """Return module -> file of everything that ships."""
    found = {}
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Yield the modules that one imports, wherever in it and for whatever."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[:len(package.split(".")) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


GRAPH = {name: {other for other in imports(name) if other in MODULES and other != name} for name in MODULES}


def reached(name: str) -> set[str]:
    """Return all that a module imports, and what that imports."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for other in GRAPH[waiting.pop()] - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def test_no_two_modules_import_each_other() -> None:
    assert len(GRAPH) > 300
    assert sum(map(len, GRAPH.values())) > 1000
    # A package's own facade may import what is in it.
    circles = {name for name in GRAPH if name in reached(name) and MODULES[name].name != "__init__.py"}
    assert not circles


def test_imports_run_one_way() -> None:
    for name, others in GRAPH.items():
        part = name.partition(".")[0]
        allowed = {"model": {"model"}, "traces": {"traces"}, "replay": {*PARTS}}[part]
        assert {other.partition(".")[0] for other in others} <= allowed, name


def test_few_modules_lie_loose_in_replay() -> None:
    assert {path.name for path in (ROOT / "replay").glob("*.py")} == {"__init__.py", "__main__.py"}


def test_a_class_s_name_says_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert len(places) > 300
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_parts_of_the_reference_are_composed() -> None:
    """None inherits from another, and so none has a method only for another to fill in."""
    classes = [node for name, path in MODULES.items() if name.startswith("replay.reference.")
               for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    names = {node.name for node in classes}
    assert {"Engine", "ReplayState", "Comparer", "Questions"} <= names
    bases = {node.name: {ast.unparse(base) for base in node.bases} for node in classes}
    assert not {name: found for name, found in bases.items() if found & (names | {"ABC"})}


def test_files_that_the_page_names_are_there() -> None:
    text = PAGE.read_text()
    named = set(re.findall(r"`((?:traces|model|replay|tests|docs)/[\w./]*)`", text))
    assert len(named) > 30
    assert not [name for name in named if "NAME" not in name and not (ROOT / name).exists()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A scratch copy of the project, with one sample."""
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "samples", "cache"))
    (tmp_path / "traces" / "samples").mkdir()
    shutil.copy(ROOT / "traces" / "samples" / "__init__.py", tmp_path / "traces" / "samples")
    shutil.copytree(ROOT / "traces" / "samples" / "7.3-zstd-64k", tmp_path / "sample", ignore=shutil.ignore_patterns("cache"))
    (tmp_path / "tests" / "golden").mkdir(parents=True)
    for name in ("conftest.py", "test_events.py", "golden/probes.txt"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    return tmp_path


def run(copy: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run a replay of the copy's sample there."""
    done = subprocess.run([sys.executable, "-m", "replay", "replay", "sample", "--json", *words], cwd=copy,
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_posting_is_one_file(copy: Path) -> None:
    block = re.search(r"<!-- posting: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(), re.S)
    assert block is not None
    assert run(copy)[0] == 0
    (copy / block[1]).write_text(block[2])
    status, result = run(copy, "--revision", "v99")
    assert status == 1
    assert result["verdict"] == "FAIL"
    assert result["revision"] == "v99"
    # A large folio: the kernel stored it, the posting refuses it.
    first = result["divergences"][0]
    assert (first["check"], first["predicted"]) == ("effect.order", "zswap_store_ret")


def test_a_check_is_two_files(copy: Path) -> None:
    block = re.search(r"<!-- check -->\n```diff\n(.*?)```", PAGE.read_text(), re.S)
    assert block is not None
    files = re.split(r"^--- (\S+)\n", block[1], flags=re.M)[1:]
    assert len(files) == 4
    for name, change in zip(files[::2], files[1::2], strict=True):
        lines = change.splitlines()
        before = "\n".join(line[1:] for line in lines if line[0] in " -")
        after = "\n".join(line[1:] for line in lines if line[0] in " +")
        text = (copy / name).read_text()
        assert text.count(before) == 1, name
        (copy / name).write_text(text.replace(before, after))
    for engine in ("reference", "fast"):
        status, result = run(copy, "--engine", engine)
        assert status == 0
        (check,) = (each for each in result["checks"] if each["id"] == "load.slot")
        assert (check["compared"] > 10, check["different"], check["grade"]) == (True, 0, "exact")
    assert any(note.endswith("zswap_load is compared by the reference alone") for note in result["notes"])
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "tests/test_events.py"],
                          cwd=copy, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout


def test_effects_and_questions_are_those_of_the_model() -> None:
    text = (ROOT / "docs" / "effects.md").read_text()
    rows = dict(re.findall(r"^\| `([?\w]+)` \| ([^|]*) \|", text, re.M))
    assert set(rows) == {*EFFECTS, *UNSEEN, *DEFAULTS}
    for name, sizes in shipped_sizes().items():
        items = rows[name].strip()
        always, _, more = items.partition("[")
        counts = {1 + len([item for item in always.split(",") if item.strip()])}
        if more:
            counts.add(max(counts) + more.count(","))
        assert not sizes or counts == sizes, (name, items, sizes)


def test_the_page_s_revision_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "effects.md").read_text(), re.S)
    (tmp_path / "mine.py").write_text(block)
    recording = traces.open_recording(ROOT / "traces" / "samples" / "7.3-zstd-64k")
    result = replay.replay(recording, load_revision(f"{tmp_path / 'mine.py'}:Mine"))
    assert (result.verdict, result.reasons) == ("PASS", [])
    assert any("zswap_invalidate" in note for note in result.notes)
