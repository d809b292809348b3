# SPDX-License-Identifier: GPL-2.0-or-later
"""What the documents say is run, or compared with what the code says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from traces import schema
from traces.events import EVENTS


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def test_the_format_s_example_runs_with_pandas_alone() -> None:
    (example,) = _blocks(ROOT / "traces" / "FORMAT.md", "python")
    # No module of this project may be importable: -I keeps the checkout off the path.
    guard = "import sys; sys.modules.update(dict.fromkeys(['traces', 'model', 'replay']))\n"
    done = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", guard + example], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "count" in done.stdout


def test_the_format_lists_every_column() -> None:
    text = (ROOT / "traces" / "FORMAT.md").read_text()
    for column in schema.COLUMNS:
        assert f"| `{column.name}` | " in text
        assert column.doc in text
    assert f"version {schema.FORMAT_VERSION}" in text.splitlines()[0]


def test_the_format_s_events_are_the_table_s() -> None:
    """ZREPLAY_WRITE_GOLDEN=1 writes them anew."""
    path = ROOT / "traces" / "FORMAT.md"
    lines = path.read_text().splitlines()
    rows = [f"| {event.code} | `{event.name}` | {' '.join(f'`{name}`' for name in event.columns)} | {event.doc} |"
            for event in EVENTS]
    first = next(number for number, line in enumerate(lines) if line.startswith("| 1 | `"))
    last = next(number for number in range(first, len(lines)) if not lines[number].startswith("|"))
    if os.environ.get("ZREPLAY_WRITE_GOLDEN"):
        path.write_text("\n".join([*lines[:first], *rows, *lines[last:]]) + "\n")
    else:
        assert lines[first:last] == rows


def test_the_python_page_s_python_runs() -> None:
    examples = _blocks(ROOT / "docs" / "python.md", "python")
    assert examples
    for example in examples:
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", example], cwd=ROOT, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stderr


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 110
    pictures = [line for line in lines if line.startswith("![")]
    assert len(pictures) == 1


def test_the_readme_names_every_verb_and_sample() -> None:
    from replay.cli.main import parser

    text = (ROOT / "README.md").read_text()
    help_text = parser().format_help()
    for verb in re.findall(r"^    (\w+) +", help_text, re.M):
        assert f"zreplay {verb}" in text, verb
    samples = (ROOT / "traces" / "samples" / "README.md").read_text()
    for path in (ROOT / "traces" / "samples").glob("*/manifest.json"):
        assert f"| {path.parent.name} |" in samples


def test_nothing_names_a_machine_s_paths_or_a_package_host() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in done.stdout.split():
        if name.endswith((".py", ".md", ".toml", "Makefile", "run", ".json")):
            text = (ROOT / name).read_text(errors="replace")
            assert not re.search(r"(^|[^a-z.])/(work|tmp/x|tmp/lab|root)/", text), name
