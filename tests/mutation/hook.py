# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads changed source in place of a module's own: the checkout is never written to."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

__all__ = ["HITS", "Substitute", "counting", "forget_model"]

#: (module, line of a statement) of everything that a counting module has run
HITS: set[tuple[str, int]] = set()
#: Crypto is not mutated, and slow to load.
_KEPT: Final = "model.crypto"


class Substitute(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """A finder and loader of modules whose syntax trees are made by ``make``.

    :param modules: name -> (file, function that returns the tree to run in its place)
    """

    def __init__(self, modules: dict[str, tuple[Path, Callable[[], ast.Module]]]) -> None:
        self.modules = modules

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        """Claim the modules that are replaced."""
        if fullname not in self.modules:
            return None
        return importlib.util.spec_from_file_location(fullname, self.modules[fullname][0], loader=self)

    def get_code(self, fullname: str) -> CodeType:
        """Compile the substitute; tracebacks name the file it stands for."""
        path, make = self.modules[fullname]
        return compile(make(), str(path), "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str | None:
        """There is none on disk that would match."""
        return None

    def is_package(self, fullname: str) -> bool:
        """Only plain modules are replaced."""
        return False


def forget_model() -> None:
    """Forget the model and the replay, so that the next import loads them anew; crypto stays."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("model", "replay") and name != _KEPT and not name.startswith(_KEPT + "."):
            del sys.modules[name]


class _Counting(ast.NodeTransformer):
    """Puts a note of its line before every statement of every function."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if self.depth:
            for field in ("body", "orelse", "finalbody"):
                body = getattr(node, field, None)
                if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
                    setattr(node, field, [part for stmt in body for part in (self._note(stmt), stmt)])
        return node

    def _note(self, stmt: ast.stmt) -> ast.stmt:
        return ast.parse(f"__hits__.add(({self.module!r}, {stmt.lineno}))").body[0]


def counting(module: str, source: str) -> ast.Module:
    """Return a module's tree that notes in :data:`HITS` which of its functions' statements it runs."""
    tree = ast.parse(source)
    names = [n for n, stmt in enumerate(tree.body) if isinstance(stmt, ast.ImportFrom) and stmt.module == "__future__"]
    tree = _Counting(module).visit(tree)
    begin = max(names, default=-1) + 1
    tree.body[begin:begin] = ast.parse("from tests.mutation.hook import HITS as __hits__").body
    return ast.fix_missing_locations(tree)
