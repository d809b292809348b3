# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs are grouped by what a user wants; what only developers of zreplay use stands under dev; Namespace ends in cli."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from replay.cli import dev, main
from replay.cli.help import opening
from replay.cli.main import parser
from replay.cli.verbs import GROUPS, VERBS

#: Verbs that the recorder's one file has too: their command lines are read there.
ENTRIES = {"traces/record/command.py", "traces/workload/command.py"}


def namespaces(source: str) -> list[int]:
    """Return the lines of code that name argparse's Namespace: as an attribute, an import or in a string annotation."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if (isinstance(node, ast.Attribute) and node.attr == "Namespace") or (
                isinstance(node, ast.Name) and node.id == "Namespace") or (
                isinstance(node, ast.ImportFrom) and node.module == "argparse"
                and any(name.name in ("Namespace", "*") for name in node.names)) or (
                isinstance(node, ast.Constant) and node.value in ("Namespace", "argparse.Namespace")):
            found.append(node.lineno)
    return sorted(set(found))


def modules() -> Iterator[tuple[str, str]]:
    for folder in ("model", "traces", "replay"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def test_a_namespace_is_found_however_it_is_spelt() -> None:
    assert namespaces("import argparse\ndef f(a: argparse.Namespace): pass\n") == [2]
    assert namespaces("from argparse import ArgumentParser, Namespace\n") == [1]
    assert namespaces("def f(a: 'argparse.Namespace'): pass\n") == [1]
    assert namespaces("from types import SimpleNamespace\nSimpleNamespace()\n") == []


def test_argparse_s_namespace_ends_in_cli() -> None:
    found = {name: lines for name, source in modules() if not name.startswith("replay/cli/")
             and (lines := namespaces(source))}
    # A module that is run by itself, python -m, reads its own words.
    own = {name for name, source in modules() if "__name__ == \"__main__\"" in source}
    assert set(found) - own - ENTRIES == set(), found
    assert set(found) >= ENTRIES, "what is excepted needs it no more"


def test_groups_say_what_a_user_wants(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(GROUPS) == ["record", "understand", "check", "compare", "run a lab", "set up", "develop"]
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    heads = [line.rstrip(":") for line in said.splitlines() if re.fullmatch(r"[a-z ]+:", line)]
    assert heads == [*GROUPS, "options"]
    assert list(GROUPS["develop"]) == ["dev"]
    assert all(f"{group}:" in opening() for group in GROUPS)


def test_what_developers_use_stands_under_one_word() -> None:
    (verbs,) = [action for action in parser()._actions if action.dest == "verb"]
    assert verbs.choices is not None
    (parts,) = [action for action in verbs.choices["dev"]._actions if action.dest == "part"]  # type: ignore[index]
    assert list(parts.choices) == list(dev._PARTS) == ["bench", "compare", "shrink", "overhead", "kills", "backends"]
    assert VERBS["dev"].help.endswith(f": {', '.join(parts.choices)}")


@pytest.mark.parametrize(("words", "meant"), [
    ("bench", "dev bench"), ("compare a b", "dev compare"), ("shrink s.json --kernel 7.2 -o x", "dev shrink"),
    *((f"lab {part} --kernel 7.2", f"dev {part}") for part in ("overhead", "kills", "backends")),
    ("kernels", "lab kernels"), ("matrix", "lab matrix"), ("reply", "replay"), ("dev fuzz", "lab fuzz")])
def test_an_old_or_short_spelling_is_refused_with_the_one_that_is_meant(words: str, meant: str,
                                                                        capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"(did you mean '{meant}'?)" in said.err
    assert "Traceback" not in said.err


def test_a_spelling_like_nothing_offers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["qqqqqq"])
    assert left.value.code == 2
    assert "did you mean" not in capsys.readouterr().err


def test_no_page_or_message_names_an_old_spelling() -> None:
    old = re.compile(r"zreplay (bench|compare|shrink)\b|\blab (overhead|kills|backends)\b")
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "traces" / "FORMAT.md", ROOT / "Makefile"]
    texts = [(str(path.relative_to(ROOT)), Path(path).read_text()) for path in pages]
    for name, text in [*texts, *modules()]:
        assert not old.search(text), f"{name}: {old.search(text)}"
