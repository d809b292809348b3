# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/notebook.ipynb is executed: it prints what it is committed with, and nothing of the machine that it ran on."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def committed() -> Any:
    """The notebook as it is committed."""
    return json.loads(NOTEBOOK.read_text())


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text(part: Any) -> str:
    return "".join(part)


def outputs(cell: Any) -> list[tuple[str, str]]:
    """Return what a cell printed; no other output is in the notebook, so that a text is all there is to compare."""
    return [(each.get("name", each["output_type"]), text(each.get("text", ""))) for each in cell["outputs"]]


def executed(path: Path, notebook: Path) -> subprocess.CompletedProcess[str]:
    """Execute a notebook into a file, in a process of its own: a kernel's threads are not this one's."""
    program = ("import sys, nbformat\nfrom pathlib import Path\nfrom tests.notebooks import execute\n"
               "nbformat.write(execute(Path(sys.argv[1])), sys.argv[2])")
    return subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(notebook), str(path)], cwd=ROOT,
                          capture_output=True, text=True, check=False)


def test_it_prints_what_it_is_committed_with(committed: Any, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    done = executed(tmp_path / "out.ipynb", NOTEBOOK)
    assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads((tmp_path / "out.ipynb").read_text())
    assert [outputs(cell) for cell in code(again)] == [outputs(cell) for cell in code(committed)]
    assert [text(cell["source"]) for cell in again["cells"]] == [text(cell["source"]) for cell in committed["cells"]]


def test_a_cell_that_fails_is_told(committed: Any, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    broken = {**committed, "cells": [{**code(committed)[0], "source": "assert [382] == []"}]}
    (tmp_path / "broken.ipynb").write_text(json.dumps(broken))
    done = executed(tmp_path / "out.ipynb", tmp_path / "broken.ipynb")
    assert done.returncode != 0
    assert "AssertionError" in done.stderr


def test_it_is_whole_and_of_no_machine(committed: Any) -> None:
    cells = code(committed)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "executed in order, at once"
    for cell in cells:
        assert cell["outputs"], text(cell["source"])
        assert {name for name, _ in outputs(cell)} == {"stdout"}
        assert cell["metadata"] == {}
    assert set(committed["metadata"]) == {"kernelspec", "language_info"}
    assert not re.search(r"(^|[^a-z.])/(work|tmp|root|home|usr)/", NOTEBOOK.read_text())


def test_it_is_pandas_alone_until_the_replay(committed: Any) -> None:
    imported = []
    for cell in code(committed):
        for node in ast.walk(ast.parse(text(cell["source"]))):
            if isinstance(node, ast.Import):
                imported.append([name.name for name in node.names])
            elif isinstance(node, ast.ImportFrom):
                imported.append([str(node.module)])
    names = [name.split(".")[0] for each in imported for name in each]
    first = next(at for at, name in enumerate(names) if name in ("traces", "model", "replay"))
    assert set(names[:first]) == {"json", "pathlib", "pandas"}
    (last,) = [at for at, cell in enumerate(code(committed)) if "import traces" in text(cell["source"])]
    assert last == len(code(committed)) - 2


def test_links_lead_somewhere(committed: Any) -> None:
    found = [target for cell in committed["cells"] if cell["cell_type"] == "markdown"
             for target in re.findall(r"\]\(([^)\s]+)\)", text(cell["source"]))]
    assert len(found) >= 5
    for target in found:
        assert (NOTEBOOK.parent / target).exists(), target
