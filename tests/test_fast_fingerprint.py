# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiled code that is kept from an earlier run is only used where everything it was made of is as it was then."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from model.zsmalloc import FIND, ISOLATE_DST, ISOLATE_SRC
from replay.fast import bound, layout, rows, step, store, walk
from replay.fast.fingerprint import compiled_in, fingerprint
from replay.reference import engine
from traces import schema


def _used(function: Any, seen: dict[str, Any]) -> Iterator[tuple[ModuleType, str, Any]]:
    """Yield (module, name, value) of all that a function and those it calls take from their modules, by their text."""
    function = getattr(function, "py_func", getattr(function, "_defn", function))
    name = f"{function.__module__}.{function.__qualname__}"
    if name in seen or "<locals>" in name:
        # One that is defined in another is in that one's text.
        return
    seen[name] = function
    module = importlib.import_module(function.__module__)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    tree.returns = None
    for argument in ast.walk(tree):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    for node in ast.walk(tree):
        where: Any
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            where, found = vars(module).get(node.value.id), node.attr
            if not isinstance(where, ModuleType) or where.__name__.split(".")[0] in ("numpy", "numba", "llvmlite"):
                continue
        elif isinstance(node, ast.Name) and node.id in vars(module):
            where, found = module, node.id
        else:
            continue
        value = vars(where)[found]
        if isinstance(value, ModuleType):
            continue
        if callable(value):
            if getattr(value, "__module__", "").split(".")[0] == "replay":
                yield from _used(value, seen)
        else:
            yield where, found, value


def test_every_constant_and_function_of_compiled_code_is_in_its_fingerprint() -> None:
    covered = compiled_in(step._make)
    functions: dict[str, Any] = {}
    constants = list(_used(step._make, functions))
    assert len(functions) > 40
    assert len({(module.__name__, name) for module, name, _ in constants}) > 500
    missing = {f"{module.__name__}.{name}" for module, name, _ in constants} | set(functions)
    assert not missing - set(covered)
    for module, name, value in constants:
        text = covered[f"{module.__name__}.{name}"]
        assert text == (f"{value.dtype} {value.tolist()}" if isinstance(value, np.ndarray) else repr(value))
    for name, function in functions.items():
        assert covered[name] == inspect.getsource(function)


@pytest.mark.parametrize(("module", "name"), [
    (bound, "ZSPAGE_MAGIC"), (rows, "FREELIST_MASK"), (store, "SIZE_CLASS_DELTA"), (walk, "LRU_ROTATE"),
    (layout, "FIND_END"), (layout, "Q_VALUE"), (layout, "H_LRU"), (step, "_DECOMPRESS"), (engine, "MAX_ORDER")])
def test_another_value_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    """Of the model, the layout, the names of events, the reference."""
    before = fingerprint(step._make)
    assert fingerprint(step._make) == before
    monkeypatch.setattr(module, name, getattr(module, name) + 1)
    assert fingerprint(step._make) != before


@pytest.mark.parametrize("name", ["_STARTS", "_ANYWHERE", "_OUTSIDE", "_READINGS", "_EAGER", "_RETURNS"])
def test_another_set_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = fingerprint(step._make)
    flags = getattr(step, name).copy()
    flags[0] = not flags[0]
    monkeypatch.setattr(step, name, flags)
    assert fingerprint(step._make) != before


def test_a_constant_without_a_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_LAST_CLASS", object())
    with pytest.raises(TypeError, match="_LAST_CLASS is compiled in"):
        fingerprint(step._make)


@pytest.mark.parametrize(("flags", "names"), [
    ("_STARTS", engine.STARTS), ("_ANYWHERE", engine.ANYWHERE), ("_OUTSIDE", engine.OUTSIDE),
    ("_READINGS", engine.READINGS), ("_EAGER", engine.EAGER)])
def test_the_sets_are_the_reference_s(flags: str, names: frozenset[str]) -> None:
    assert {schema.NAMES[code] for code in np.flatnonzero(getattr(step, flags)).tolist()} == names


def test_lists_are_looked_through_as_the_model_does() -> None:
    assert (range(layout.FIND, layout.FIND_END, layout.FIND_STEP), range(layout.DST, layout.DST_END, layout.DST_STEP),
            range(layout.SRC, layout.SRC_END, layout.SRC_STEP)) == (FIND, ISOLATE_DST, ISOLATE_SRC)
