# SPDX-License-Identifier: GPL-2.0-or-later
"""A revision as a user names it: a shipped name, or ``FILE.py:CLASS``."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import types
from pathlib import Path
from typing import Any, Final

from model.revisions import REVISIONS
from model.zswap import Zswap
from replay.userrev.guard import Guard, RevisionFault, confined
from replay.userrev.overrides import check_class
from traces.errors import BadInput

__all__ = ["load_revision"]

_HOW: Final = "give --revision FILE.py:CLASS"
_MOST: Final = 16 << 20


def load_revision(name: str | None) -> str | type[Zswap] | None:
    """Return a shipped revision's name as it is, or the class that ``FILE.py:CLASS`` names.

    The file is run, with its prints sent to stderr, and the class looked at
    (:func:`replay.userrev.overrides.check_class`).

    :raises BadInput: when file or class does not exist, the file cannot be run, or the class is not a revision; it
        names the file's line
    """
    if name is None or name in REVISIONS:
        return name
    if ":" not in name:
        if name.endswith(".py"):
            raise BadInput(name, "", f"names a file and no class{_offer(Path(name))}", _HOW)
        return name
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    source = _read(path)
    guard = Guard(f"revision {attribute}", {str(path): 1}, "")
    with confined(guard):
        tree = ast.parse(source, str(path))
        module = _run(source, path)
        kind = _class(module, attribute, path)
        guard.files[str(path)] = _line(tree, attribute)
        check_class(kind, tree, str(path))
    return kind


def _read(path: Path) -> bytes:
    """Return what a file holds.

    :raises BadInput: for none, or one that is not Python
    """
    # os.path: a Path asks loudly about names that are too long, and directories that are closed.
    if not os.path.exists(path):
        raise BadInput(path, "", "does not exist", _HOW)
    if not os.path.isfile(path) or path.suffix != ".py":
        raise BadInput(path, "", "is not a Python file", _HOW)
    try:
        with open(path, "rb") as stream:
            source = stream.read(_MOST + 1)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})", "check its permissions") from None
    if len(source) > _MOST or b"\0" in source:
        raise BadInput(path, "", "is not a Python file", _HOW)
    return source


def _run(source: bytes, path: Path) -> types.ModuleType:
    """Run a file as a module of its own; nothing is kept next to it, as what is kept may be of an older one."""
    # A name that nothing else has: dataclasses and pickles look their module up.
    digest = hashlib.sha1(os.path.abspath(path).encode()).hexdigest()[:12]
    module = types.ModuleType(f"zreplay_revision_{digest}_{path.stem}")
    module.__file__ = str(path)
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        raise
    return module


def _class(module: types.ModuleType, name: str, path: Path) -> type[Zswap]:
    """Return the class of a module.

    :raises RevisionFault: for what is not a revision
    :raises BadInput: where there is nothing of that name
    """
    if not hasattr(module, name):
        raise BadInput(path, f"class '{name}'", f"is not a revision: there is nothing of that name{_has(module)}", _HOW)
    kind: Any = getattr(module, name)
    if not isinstance(kind, type):
        raise BadInput(path, f"class '{name}'", f"is not a revision: it is of type {type(kind).__name__}"
                       f"{_has(module)}", _HOW)
    if not issubclass(kind, Zswap):
        line = _line(ast.parse(path.read_bytes()), name)
        raise RevisionFault((str(path), line), "is not a revision (a subclass of model.zswap.Zswap)",
                            "see model/revisions for examples")
    return kind


def _has(module: types.ModuleType) -> str:
    """Say which revisions a module defines."""
    own = [name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, Zswap)
           and value.__module__ == module.__name__]
    return f"; it has {', '.join(own)}" if own else "; it has no revision (a subclass of model.zswap.Zswap)"


def _offer(path: Path) -> str:
    """Say which classes a file defines, where it can be read."""
    try:
        tree = ast.parse(_read(path))
    except (BadInput, SyntaxError, ValueError, RecursionError):
        return ""
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    return f"; its classes: {', '.join(names)}" if names else "; it has no class"


def _line(tree: ast.Module, name: str) -> int:
    """Return the line at which a class is defined."""
    return next((node.lineno for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name), 1)
