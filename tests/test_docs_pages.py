# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages in docs/: their commands are run and print what the pages say, their links lead somewhere.

A block marked ``console`` holds commands (``$ zreplay ...``), each with what it prints; ``...`` stands for lines left
out, ``$ echo $?`` shows an exit status that is not 0.  Blocks without a mark were run elsewhere (in a guest, on
recordings that do not ship) and are not run here.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import terminals
from conftest import ROOT

from model.revisions import POSTED, REVISIONS, SERIES
from replay.cli import main
from replay.cli.main import parser

PAGES = sorted((ROOT / "docs").rglob("*.md"))
#: Times are those of a run, and so is what was compressed before it.
TIMES = re.compile(r"comparisons in [\d.]+ s, pages took [\d.]+ s(?:, compiling [\d.]+ s)?|\d+ distinct pages compressed, \d+ results kept")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def _commands(text: str) -> Iterator[tuple[list[str], list[str], int]]:
    """Yield every command of a page, as words, with the lines it prints and its exit status."""
    for block in _blocks(text, "console"):
        said = re.split(r"^\$ ", block, flags=re.M)
        assert not said[0], "a block begins with a command"
        found: list[tuple[list[str], list[str], int]] = []
        for each in said[1:]:
            command, _, printed = each.replace("\\\n", " ").partition("\n")
            if command == "echo $?":
                words, lines, _ = found.pop()
                found.append((words, lines, int(printed)))
            else:
                found.append((shlex.split(command), printed.splitlines(), 0))
        yield from found


def _unlike(shown: list[str], printed: list[str]) -> str:
    """Say what of the lines shown was not printed, in this order; nothing where all was."""
    shown, printed = ([TIMES.sub("TIMES", line).rstrip() for line in lines] for lines in (shown, printed))
    if not shown:
        return "" if not printed else f"it prints {printed}"
    pieces: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == "...":
            pieces.append([])
        else:
            pieces[-1].append(line)
    at = 0
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        starts = [len(printed) - len(piece)] if last and number else range(at, len(printed) - len(piece) + 1)
        for start in [0] if not number else starts:
            if start >= at and printed[start:start + len(piece)] == piece and (
                    not last or start + len(piece) == len(printed)):
                at = start + len(piece)
                break
        else:
            return f"not printed in this place: {piece}\nprinted: " + "\n".join(printed)
    return ""


@pytest.mark.parametrize("page", [pytest.param(path, id=_name(path)) for path in (*PAGES, ROOT / "README.md")
                                  if "```console" in path.read_text()])
def test_commands_print_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("traces", "tests"):
        os.symlink(ROOT / name, tmp_path / name)
    text = page.read_text()
    if page == terminals.PAGE:
        monkeypatch.setenv("COLUMNS", str(terminals.COLUMNS))
    for file, content in re.findall(r"^.*`([\w-]+\.(?:py|json))`.*:\n\n```(?:python|json)\n(.*?)^```", text, re.M | re.S):
        (tmp_path / file).write_text(content)
    monkeypatch.chdir(tmp_path)
    commands = list(_commands(text))
    assert commands
    for words, shown, status in commands:
        assert words[0] == "zreplay"
        capsys.readouterr()
        got = main(words[1:])
        out, err = capsys.readouterr()
        problem = _unlike(shown, (out + err).splitlines())
        assert not problem, f"{shlex.join(words)}: {problem}"
        assert got == status, shlex.join(words)


def test_what_a_terminal_shows_fits_it() -> None:
    text = terminals.PAGE.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    assert max(len(line) for block in blocks for line in block.splitlines()) <= terminals.COLUMNS
    shown = re.findall(r"^[$#] zreplay (\w+)", text, re.M)
    assert shown == re.findall(r"^## (\w+)", text, re.M) == ["doctor", "record", "replay", "regress"]
    # Nothing of the machine that the guest ran on.
    assert set(re.findall(r"(?<![\w.])/(\w+)/", "".join(blocks))) <= {"home", "usr", "sys", "dev"}


def test_a_terminal_is_read_as_it_looks() -> None:
    screen = terminals.Screen("\x1b[?25lone ...\r\x1b[2Kone: 5\r\n\x1b[1A\x1b[2K\x1b[?25h\x1b[1mdone\x1b[0m\r\n", columns=20)
    assert (screen.text(), screen.progress()) == ("done", ["one: 5"])
    assert terminals.Screen("x" * 25 + "\b\bab\n", columns=20).text() == "x" * 20 + "\nxxxab"
    with pytest.raises(ValueError, match="CSI 3J"):
        terminals.Screen("\x1b[3J")


def test_lines_left_out_are_distinguished_from_lines_that_are_wrong() -> None:
    assert not _unlike(["a", "...", "d"], ["a", "b", "c", "d"])
    assert not _unlike(["a", "..."], ["a", "b"])
    assert not _unlike(["...", "b", "..."], ["a", "b", "b"])
    assert not _unlike(["1 comparisons in 1.0 s, pages took 2.00 s"],
                       ["1 comparisons in 0.3 s, pages took 0.01 s"])
    for shown, printed in (([], ["a"]), (["a"], ["a", "b"]), (["b", "..."], ["a", "b"]), (["a", "...", "c"], ["a", "b"]),
                           (["a", "...", "b", "...", "a"], ["a", "b"]), (["a", "...", "a"], ["a"])):
        assert _unlike(shown, printed)


@pytest.mark.parametrize("page", [pytest.param(path, id=_name(path)) for path in (*PAGES, ROOT / "README.md")])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def _subcommands(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_every_verb_has_its_page_and_each_page_its_verb() -> None:
    verbs = _subcommands(parser())
    names = {name for name, verb in verbs.items() if not _subcommands(verb)}
    names |= {f"{name}-{part}" for name, verb in verbs.items() for part in _subcommands(verb)}
    pages = {path.stem for path in (ROOT / "docs" / "verbs").glob("*.md")}
    # lab run and lab kernels share the page of lab; docs/lab-build.md is a page of its own.
    assert pages == (names - {"lab-run", "lab-kernels", "lab-build"}) | {"lab"}
    readme, index = ((ROOT / name).read_text() for name in ("README.md", "docs/README.md"))
    for name in pages:
        assert f"(docs/verbs/{name}.md)" in readme, name
        assert f"(verbs/{name}.md)" in index, name


def test_options_that_pages_name_exist() -> None:
    verbs = _subcommands(parser())
    for path in (ROOT / "docs" / "verbs").glob("*.md"):
        owner, _, part = path.stem.partition("-")
        parsers = [verbs[owner]] if not part else [_subcommands(verbs[owner])[part]]
        if path.stem == "lab":
            parsers = list(_subcommands(verbs["lab"]).values())
        known = {option for each in parsers for option in each._option_string_actions}
        table = re.findall(r"^\| `(--[\w-]+)", path.read_text(), re.M)
        assert set(table) <= known, path.name
        assert "Exit status" in path.read_text(), path.name


def test_every_posted_revision_is_on_a_page_of_its_system() -> None:
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "systems").glob("*.md")}
    assert set(pages) == {"v6", "v8", "v12", "v14", "sg-read"}
    for name in POSTED:
        owner = next(stem for stem in pages if name == stem or name.startswith(f"{stem}-"))
        assert f"`{name}`" in pages[owner], name
    for name in SERIES:
        assert f"--series {name}" in pages[name]
    models, index = ((ROOT / "docs" / name).read_text() for name in ("models.md", "README.md"))
    for stem in pages:
        assert f"(systems/{stem}.md)" in models
        assert f"(systems/{stem}.md)" in index


def test_the_page_of_models_has_every_revision() -> None:
    models = (ROOT / "docs" / "models.md").read_text()
    assert {name for name in REVISIONS if f"`{name}`" not in models} == set()


def test_the_index_has_every_page() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text()
    pages = {str(path.relative_to(docs)) for path in (*docs.rglob("*.md"), *docs.rglob("*.ipynb"))} - {"README.md"}
    assert len(pages) > 30
    assert {page for page in pages if f"({page})" not in index} == set()
