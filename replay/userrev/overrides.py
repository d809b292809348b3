# SPDX-License-Identifier: GPL-2.0-or-later
"""Which steps a user's revision overrides, and whether it can: names, kinds, parameters, values, what comes back.

:func:`check_class` looks at a class before anything runs.  It also puts a check around each method, which sees at once
what would fail elsewhere: a step that yields nothing, or one that returns what no caller can use (``None``, where a
``return`` was forgotten).
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from model.crypto import KERNEL_LINES
from model.crypto.layers import LAYERS
from model.revisions import REVISIONS
from model.zswap import Zswap
from replay.userrev.effectnames import short, wrong_by
from replay.userrev.guard import EFFECTS, RevisionFault, active, own_classes

__all__ = ["check_class", "overridden", "overrides_line"]

#: How like a name has to be to one of the base's to be taken for a misspelt one.
_ALIKE: Final = 0.8
_NEXT_STEP: Final = "mend the class; the shipped ones are in model/revisions"


def base_of(kind: type[Zswap]) -> type[Zswap]:
    """Return the shipped class that a revision changes: the first that is not the user's."""
    own = set(own_classes(kind))
    return next(each for each in kind.__mro__ if each not in own and issubclass(each, Zswap))


def name_of(kind: type[Zswap]) -> str:
    """Return the name of a shipped revision, or of its class where it is not one by itself."""
    return next((name for name, each in REVISIONS.items() if each is kind), kind.__name__)


def _shipped(kind: type, name: str) -> Any:
    """Return what the shipped classes of a revision have under a name, ``_NONE`` where they have nothing."""
    own = set(own_classes(kind))
    for each in kind.__mro__:
        if each is not object and each not in own and name in vars(each):
            return vars(each)[name]
    return vars(object).get(name, _NONE) if name == "__init__" else _NONE


_NONE: Final = object()


def _members(kind: type[Zswap]) -> Iterator[tuple[type, str, Any]]:
    """Yield (class, name, value) of whatever a user's classes define; of Python's own names ``__init__`` alone."""
    for each in own_classes(kind):
        for name, value in vars(each).items():
            if name == "__init__" or not ((name.startswith("__") and name.endswith("__")) or name == "_abc_impl"):
                yield each, name, value


def overridden(kind: type[Zswap]) -> list[str]:
    """Return the names of steps and values that a revision has of its own in place of shipped ones."""
    return list(dict.fromkeys(name for _, name, _ in _members(kind) if _shipped(kind, name) is not _NONE))


def overrides_line(kind: type[Zswap]) -> str:
    """Say in one line what a user's revision overrides."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or kind.__module__
    # What a class says of itself is not a step.
    names, base = [name for name in overridden(kind) if name != "mirrors"], name_of(base_of(kind))
    what = f"overrides {', '.join(names) or 'nothing'} of {base}"
    return f"revision {kind.__name__} ({Path(file).name}) {what}"


# ---- before anything runs -----------------------------------------------------------------------------------


class _Source:
    """The user's file: where names are defined, and which are used."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self.file = file
        self.lines: dict[tuple[str, str], int] = {}
        self.used: set[str] = set()
        #: (class, attribute) -> line of an assignment to ``self.attribute``
        self.assigned: dict[tuple[str, str], int] = {}
        #: function's name and line -> what it yields in plain words: line, name, items
        self.yields: dict[tuple[str, int], list[tuple[int, str, int | None]]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                self.yields[node.name, node.lineno] = list(_yields(node))
            if isinstance(node, ast.ClassDef):
                self._class(node)
            elif isinstance(node, ast.Attribute):
                # super().name means a base's.
                if isinstance(node.ctx, ast.Load) and not (isinstance(node.value, ast.Call) and isinstance(
                        node.value.func, ast.Name) and node.value.func.id == "super"):
                    self.used.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self.used.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.used.add(node.value)

    def _class(self, node: ast.ClassDef) -> None:
        self.lines[node.name, ""] = node.lineno
        for part in node.body:
            targets: list[ast.expr] = []
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                self.lines[node.name, part.name] = part.lineno
            elif isinstance(part, ast.Assign):
                targets = part.targets
            elif isinstance(part, ast.AnnAssign):
                targets = [part.target]
            for target in targets:
                for each in ast.walk(target):
                    if isinstance(each, ast.Name):
                        self.lines[node.name, each.id] = part.lineno
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) \
                    and isinstance(each.value, ast.Name) and each.value.id == "self":
                self.assigned.setdefault((node.name, each.attr), each.lineno)

    def place(self, owner: type, name: str = "") -> tuple[str, int]:
        """Return where a class defines a name."""
        line = self.lines.get((owner.__name__, name)) or self.lines.get((owner.__name__, ""))
        if line is None:
            value: Any = vars(owner).get(name)
            value = inspect.unwrap(getattr(value, "__func__", value))
            if isinstance(value, types.FunctionType):
                return value.__code__.co_filename, value.__code__.co_firstlineno
        return self.file, line or 1


def _yields(function: ast.FunctionDef) -> Iterator[tuple[int, str, int | None]]:
    """Yield (line, name, how many items) of each effect that a function names."""
    for node in ast.walk(function):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple) and node.value.elts:
            name = node.value.elts[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                loose = any(isinstance(item, ast.Starred) for item in node.value.elts)
                yield node.lineno, name.value, None if loose else len(node.value.elts)


def check_class(kind: type[Zswap], tree: ast.Module, file: str) -> None:
    """Look at a user's class, and put a check around each of its methods.

    :param tree: the parsed file
    :raises RevisionFault: for what cannot be meant, or cannot work
    """
    source = _Source(tree, file)
    for owner, name, value in _members(kind):
        place, shipped = source.place(owner, name), _shipped(kind, name)
        if shipped is _NONE:
            _new(kind, name, source.used, place)
        elif callable(shipped):
            if isinstance(shipped, types.FunctionType) and _is_step(shipped):
                # Also of steps that this recording never reaches.
                for line, effect, size in source.yields.get((name, place[1]), ()):
                    wrong = wrong_by(effect, size)
                    if wrong:
                        raise RevisionFault((place[0], line), wrong, EFFECTS)
            _method(kind, owner, name, value, shipped, place)
        else:
            _value(kind, name, value, shipped, place)
    for (owner_name, name), line in source.assigned.items():
        if owner_name in {each.__name__ for each in own_classes(kind)} and name not in source.used \
                and name not in _known(base_of(kind)):
            _new(kind, name, source.used, (file, line))
    for name in dir(kind):
        if getattr(inspect.getattr_static(kind, name), "__isabstractmethod__", False):
            raise RevisionFault(source.place(kind), f"has no {name}(), which {name_of(base_of(kind))} leaves to its "
                                "subclasses", _NEXT_STEP)


@functools.cache
def _known(base: type[Zswap]) -> frozenset[str]:
    """Return the names of all that a shipped class, and an object of it, has."""
    names = {name for name in dir(base) if not name.startswith("__")}
    if not any(getattr(getattr(base, name), "__isabstractmethod__", False) for name in names):
        names |= set(vars(base(totalram_pages=1 << 20, compressor="lz4")))
    return frozenset(names)


def _new(kind: type[Zswap], name: str, used: set[str], place: tuple[str, int]) -> None:
    """Look at a name that no shipped class has: what nothing uses is another one, misspelt."""
    near = difflib.get_close_matches(name, _known(base_of(kind)), 1, _ALIKE)
    if near and name not in used:
        raise RevisionFault(place, f"has {name}, which overrides nothing and nothing uses; "
                            f"{name_of(base_of(kind))} has {near[0]}",
                            f"name it {near[0]} if that is meant, or leave it out")


def _method(kind: type[Zswap], owner: type, name: str, value: Any, shipped: Any, place: tuple[str, int]) -> None:
    """Look at what stands in a shipped method's place, and put a check around it."""
    base = name_of(base_of(kind))
    if not isinstance(value, types.FunctionType):
        if callable(value):
            return
        raise RevisionFault(place, f"has {short(value)} as {name}, which is a method of {base}", _NEXT_STEP)
    if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
        raise RevisionFault(place, f"has {name}() as async, which nothing would await",
                            "make it a generator, or a plain method")
    if not isinstance(shipped, types.FunctionType):
        return
    if inspect.isgeneratorfunction(value) and not _is_step(shipped):
        raise RevisionFault(place, f"has a yield in {name}(), which is a plain method of {base}: nothing would run it",
                            "yield in the step that calls it")
    _same_parameters(base, name, value, shipped, place)
    if name != "__init__":
        setattr(owner, name, _checked(name, value, shipped, base))


def _is_step(function: Callable[..., Any]) -> bool:
    """True for a method that is a generator of effects, or gives one."""
    return inspect.isgeneratorfunction(function) or str(function.__annotations__.get("return", "")).startswith("Steps")


def _same_parameters(base: str, name: str, value: types.FunctionType, shipped: types.FunctionType,
                     place: tuple[str, int]) -> None:
    wanted = inspect.signature(shipped).parameters.values()
    named = {each.name: None for each in wanted if each.kind is each.KEYWORD_ONLY}
    plain = [None for each in wanted if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    try:
        inspect.signature(value).bind(*plain, **named)
    except TypeError as problem:
        raise RevisionFault(place, f"has {name}{inspect.signature(value)}, where {base} has "
                            f"{name}({', '.join(each.name for each in wanted)}): {problem}",
                            "take the same parameters") from None


#: values of which only some exist -> those
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "kernel_line": tuple(KERNEL_LINES), "crypto_layer": tuple(LAYERS),
    "compress_call": tuple(sorted({each.compress_call for each in REVISIONS.values()}))}


def _value(kind: type[Zswap], name: str, value: Any, shipped: Any, place: tuple[str, int]) -> None:
    """Look at what stands in a shipped value's place."""
    base = name_of(base_of(kind))
    if hasattr(value, "__get__") and not isinstance(value, types.FunctionType | type):
        return
    if name in _CHOICES and value not in _CHOICES[name]:
        raise RevisionFault(place, f"has {name} = {short(value)}, which does not exist",
                            f"choose one of {', '.join(_CHOICES[name])}")
    wanted = numbers.Integral if isinstance(shipped, numbers.Integral) else type(shipped)
    if not (isinstance(value, wanted) or hasattr(shipped, "__get__")):
        raise RevisionFault(place, f"has {name} = {short(value)}, which is {short(shipped)} in {base}",
                            f"give it a value of type {type(shipped).__name__}")


# ---- while it runs ------------------------------------------------------------------------------------------


def _checked(name: str, function: types.FunctionType, shipped: types.FunctionType, base: str) -> Callable[..., Any]:
    """Return a method with a check around it: of what it is, and of what it returns."""
    place = (function.__code__.co_filename, function.__code__.co_firstlineno)
    kinds, words = _returns(shipped)

    def look(value: Any) -> Any:
        guard = active()
        if guard is not None:
            guard.returned = place, name, value
        if kinds is not None and not isinstance(value, kinds):
            raise RevisionFault(place, f"returns {short(value)} from {name}(), where {base} returns {words}",
                                "return what its callers need (is a 'return' missing?)")
        return value

    if _is_step(shipped):
        @functools.wraps(function)
        def step(self: Any, *arguments: Any, **named: Any) -> Any:
            steps = function(self, *arguments, **named)
            if not isinstance(steps, types.GeneratorType) and not hasattr(steps, "send"):
                raise RevisionFault(place, f"never yields in {name}(), which returns {short(steps)} at once",
                                    f"yield its effects, or 'return (yield from super().{name}(...))'")
            return look((yield from steps))

        return step

    @functools.wraps(function)
    def plain(self: Any, *arguments: Any, **named: Any) -> Any:
        return look(function(self, *arguments, **named))

    return plain


def _returns(function: types.FunctionType) -> tuple[tuple[type, ...] | None, str]:
    """Return which types a shipped method returns (None: any, or not known), and the same in words."""
    try:
        hint = typing.get_type_hints(function).get("return", Any)
    except Exception:
        # A name that only type checkers know.
        return None, ""
    if _is_step(function):
        parts = typing.get_args(hint)
        hint = parts[-1] if parts else Any
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = [typing.get_origin(each) or each for each in (typing.get_args(hint) if union else (hint,))]
    if not all(isinstance(each, type) for each in kinds) or kinds == [type(None)] or object in kinds:
        return None, ""
    words = " or ".join("None" if each is type(None) else each.__name__ for each in kinds)
    # Truth is as good as a bool, and any whole number as an int.
    if bool in kinds or int in kinds:
        kinds += [numbers.Integral]
    return tuple(kinds), words
