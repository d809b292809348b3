# SPDX-License-Identifier: GPL-2.0-or-later
"""Every sentence for bad input, read out of the sources: where, what, and what to do next."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT

from traces.errors import BadInput

PARTS = ("path", "where", "what", "todo")
#: A next step says what to do: it begins with one of these, or with what is wrong with an option's value.
STEPS = {"apply", "ask", "check", "choose", "convert", "copy", "correct", "cut", "decompress", "end", "export", "get",
         "give", "import", "install", "leave", "make", "mend", "mount", "name", "pass", "print", "put", "record",
         "remove", "replay", "report", "run", "save", "see", "split", "start", "take", "use", "wait", "write"}
#: What libraries say of their input stands in sentences of ours.
SAID = ("str(problem)", "str(trouble)")


class Place(NamedTuple):
    """A call in the sources, the functions around it from the inside out, and its module."""

    call: ast.Call
    around: tuple[ast.AST, ...]
    module: str
    file: Path


def _sources() -> Iterator[tuple[Path, str, ast.Module]]:
    for folder in ("traces", "replay", "model"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield path, name, ast.parse(path.read_text())


def _calls() -> list[Place]:
    found: list[Place] = []

    def walk(node: ast.AST, around: tuple[ast.AST, ...], module: str, file: Path) -> None:
        if isinstance(node, ast.Call):
            found.append(Place(node, around, module, file))
        inner = (node, *around) if isinstance(node, ast.FunctionDef) else around
        for child in ast.iter_child_nodes(node):
            walk(child, inner, module, file)

    for path, name, tree in _sources():
        walk(tree, (), name, path)
    return found


CALLS = _calls()


def _by_name() -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for place in CALLS:
        found.setdefault(_called(place), []).append(place)
    return found


def _called(place: Place) -> str:
    function = place.call.func
    return function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""


def _argument(place: Place, names: list[str], name: str) -> ast.expr | None:
    for keyword in place.call.keywords:
        if keyword.arg == name:
            return keyword.value
    at = names.index(name)
    return place.call.args[at] if at < len(place.call.args) else None


def _assigned(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for each, its in zip(target.elts, value.elts, strict=True):
            yield from _assigned(each, its, name)


def texts(node: ast.expr | None, place: Place, depth: int = 6) -> list[str]:
    """Return what an expression may say, ``X`` where a value goes; expressions nothing is known of as ``<...>``."""
    if node is None:
        return ["<nothing>"]
    if depth == 0:
        return []
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(_part(part, place) for part in node.values)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [a + b for a in texts(node.left, place, depth) for b in texts(node.right, place, depth)]
    if isinstance(node, ast.IfExp):
        return texts(node.body, place, depth) + texts(node.orelse, place, depth)
    if isinstance(node, ast.BoolOp):
        # An empty one gives way to the next.
        *first, last = [texts(value, place, depth) for value in node.values]
        return [text for some in first for text in some if text] + last
    if isinstance(node, ast.Name):
        return _named(node.id, place, depth) or [f"<{node.id}>"]
    return [f"<{ast.unparse(node)}>"]


def _part(part: ast.expr, place: Place) -> str:
    """Return a part of an f-string: itself, a constant of the module, or X for a value."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    value = getattr(importlib.import_module(place.module), part.value.id, None) if isinstance(part.value, ast.Name) else None
    return value if isinstance(value, str) else "X"


def _named(name: str, place: Place, depth: int) -> list[str]:
    """Return what a name may stand for: a constant, what is assigned to it here, or what callers pass."""
    for function in place.around:
        assert isinstance(function, ast.FunctionDef)
        found = []
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    found += [text for value in _assigned(target, node.value, name) for text in texts(value, place, depth - 1)]
            elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple) and isinstance(node.iter, ast.Name):
                names = [each.id if isinstance(each, ast.Name) else "" for each in node.target.elts]
                if name in names:
                    rows = getattr(importlib.import_module(place.module), node.iter.id)
                    found += [row[names.index(name)] for row in rows]
        names = [each.arg for each in function.args.args if each.arg not in ("self", "cls")]
        if name in names:
            defaults = dict(zip(names[::-1], function.args.defaults[::-1], strict=False))
            for other in CALLED.get(function.name, []):
                if other.file.parts[-2] == place.file.parts[-2]:
                    given = _argument(other, names, name)
                    found += texts(given if given is not None else defaults.get(name), other, depth - 1)
        if found:
            return found
    value: Any = getattr(importlib.import_module(place.module), name, None)
    return [value] if isinstance(value, str) else []


CALLED = _by_name()
SENTENCES = [pytest.param(place, id=f"{place.file.relative_to(ROOT)}:{place.call.lineno}") for place in CALLED["BadInput"]]


def test_they_are_found() -> None:
    assert len(SENTENCES) > 150


@pytest.mark.parametrize("place", SENTENCES)
def test_a_sentence_says_where_what_and_what_next(place: Place) -> None:
    assert len(place.call.args) + len(place.call.keywords) == 4, "path, where, what, todo"
    path, where, what, todo = (texts(_argument(place, list(PARTS), part), place) for part in PARTS)
    for text in path:
        assert text, "a file, or the option or verb at fault"
    for text in where:
        assert text == text.strip()
    for text in what:
        assert not text.startswith("<") or text[1:-1] in SAID or "reason" in text, f"nothing is known of {text}"
        _in_style(text)
    for text in todo:
        assert not text.startswith("<"), f"nothing is known of the next step {text}"
        _in_style(text)
        first = re.split(r"[\s:]", text)[0]
        # "the symbols are of another kernel or boot; give ..." explains first.
        assert first in STEPS or re.search(rf"[:;,] ({'|'.join(sorted(STEPS))}) ", text), f"no next step: {text!r}"
    whole = str(BadInput(path[0], where[0], what[0], todo[0]))
    assert whole.endswith(".")
    assert "\n" not in whole
    assert "Traceback" not in whole


def _in_style(text: str) -> None:
    """Check that a part can stand within a sentence."""
    assert text.strip()
    assert text == text.strip()
    assert not text.endswith((".", ";", ":", "!")), text
    # Names of kernel and file things begin as they are called.
    first = text.split()[0]
    assert not (first[0].isupper() and first[1:].islower()), f"begins like a sentence of its own: {text!r}"
    assert ".  " not in text


def test_a_sentence_without_a_next_step_is_noticed() -> None:
    def place(source: str) -> Place:
        call = ast.parse(source, mode="eval").body
        assert isinstance(call, ast.Call)
        return Place(call, (), "traces.errors", Path("traces/x.py"))

    test_a_sentence_says_where_what_and_what_next(place("BadInput(p, '', 'is not a recording', 'import it again')"))
    for bad in ("BadInput(p, '', 'is not a recording', '')", "BadInput(p, '', 'is bad.', 'import it again')",
                "BadInput(p, '', '', 'import it again')", "BadInput(p, '', 'is bad', 'nothing can be done')",
                "BadInput(p, '', 'is bad')", "BadInput(p, '', 'Is bad', 'import it again')",
                "BadInput('', '', 'is bad', 'import it again')", "BadInput(p, '', 'is bad', what_next())"):
        with pytest.raises(AssertionError):
            test_a_sentence_says_where_what_and_what_next(place(bad))
