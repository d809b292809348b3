# SPDX-License-Identifier: GPL-2.0-or-later
"""Executes docs/notebook.ipynb: ``python -m tests.notebooks`` writes it anew with what comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def execute(path: Path = NOTEBOOK) -> Any:
    """Return a notebook as it is after all of its cells were run; CellExecutionError where one fails."""
    notebook = nbformat.read(path, as_version=4)
    before = os.environ.get("PYTHONPATH")
    # A kernel is another process: it finds the checkout as the tests do.
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False,
                       resources={"metadata": {"path": str(path.parent)}}).execute()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    # The Python that executed it is not recorded.
    notebook.metadata = nbformat.from_dict({"kernelspec": {"display_name": "Python 3", "language": "python",
                                                           "name": "python3"}, "language_info": {"name": "python"}})
    return notebook


def main() -> None:
    """Write it anew."""
    nbformat.write(execute(), NOTEBOOK)


if __name__ == "__main__":
    main()
