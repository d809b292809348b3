# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/style.md: words that are not used anywhere, sentences that are not too long."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

#: what is not written -> what is, for whoever sees this test fail; the list of docs/style.md as patterns
NOT_WRITTEN = {
    r"\b(told|tells?|telling)\b(?!\(\))": "reported, known, shown",
    r"\b(held|holds?|holding)\b[^.;:]{0,30}\bagainst\b": "checked against, compared with",
    r"\bthey part\b|\bparts? from\b|\bparted\b": "differ",
    r"\b(goes|go|going|went|gone) on\b": "continues, calls",
    r"\blos[te]s? its CPU\b|\blosing its CPU\b": "was preempted",
    r"\bmade(-| )up\b|\bmakes? up\b": "synthetic",
    r"\bso many\b": "N, this many",
    r"(?<!here\s)\bis no (?!longer\b|more\b|less\b|other\b)\w": "is not a",
    r"\bbeside\b": "next to, compared with",
    r"\bhas the word\b": "decides",
    r"\bcomes? to be\b|\bcame to be\b": "is created, exists",
}
#: Its own list of words, and what others wrote.
_NOT_READ = ("docs/style.md", "tests/test_style.py", "LICENSE", "docs/mutation.md", "docs/mutation-compiled.md")
_READ = (".py", ".md", ".toml", ".ipynb")
#: Sentences have at most so many words.
LONGEST = 40


def files() -> list[Path]:
    """Return everything that is written by people here."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in names if name.endswith(_READ) and name not in _NOT_READ
            and not name.startswith("tests/corpus/") and (ROOT / name).is_file()]


def found(text: str, pattern: str) -> list[tuple[int, str]]:
    """Return (line, words) of each place; a phrase may go over the end of a line."""
    places = []
    for match in re.finditer(pattern.replace(" ", r"[\s#]+"), text):
        line = text.count("\n", 0, match.start()) + 1
        places.append((line, " ".join(match[0].split())))
    return places


@pytest.mark.parametrize("pattern", sorted(NOT_WRITTEN))
def test_words_that_are_not_used(pattern: str) -> None:
    places = [f"{path.relative_to(ROOT)}:{line}: {words}" for path in files()
              for line, words in found(path.read_text(), pattern)]
    assert not places, f"write {NOT_WRITTEN[pattern]}:\n" + "\n".join(places)


def test_the_patterns_find_what_they_are_for() -> None:
    for words in ("it is told here", "held, for one, against", "they part", "parted", "goes on with", "lost its CPU", "made-up",
                  "so\nmany", "is no page", "beside it", "has the word", "comes to be"):
        assert any(found(words, pattern) for pattern in NOT_WRITTEN), words
    for words in ("is no longer there", "a part of it", "ongoing", "besides", "file.tell()", "there is no page"):
        assert not any(found(words, pattern) for pattern in NOT_WRITTEN), words


def sentences(text: str) -> list[str]:
    """Return the sentences of a page, without code, tables and links' addresses."""
    text = re.sub(r"```.*?```|`[^`]*`", " X ", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    lines = ["\n\n" if line.startswith(("|", "#")) else "\n\n" + line if line.startswith(("- ", "* ")) else line
             for line in text.split("\n")]
    return [part for part in re.split(r"(?<=[.!?:;])\s+|\n\s*\n", "\n".join(lines)) if part.strip()]


def test_sentences_are_short() -> None:
    long = [f"{path.relative_to(ROOT)}: {' '.join(sentence.split())[:100]}..." for path in files() if path.suffix == ".md"
            for sentence in sentences(path.read_text()) if len(sentence.split()) > LONGEST]
    assert not long, "\n".join(long)
