# SPDX-License-Identifier: GPL-2.0-or-later
"""Single changes to a module's syntax tree, and a seeded choice of them spread over functions.

Left out, as they could not matter or would say nothing of a kernel: docstrings, annotations, decorators, ``raise``
and ``assert`` statements with their texts, strings, ``__slots__`` and ``__all__``, what ``mirrors`` says, whatever
only serves a replay's observers (:data:`OBSERVERS`), module constants that the replay reads too, as it would change
with the model, and numbers returned right after an effect that yields them.
"""

from __future__ import annotations

import ast
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["COMPILED_KINDS", "KINDS", "OBSERVERS", "Mutant", "choose", "enumerate_mutants", "mutated", "reading_sources", "shared_names"]

#: kind -> what is done
KINDS: Final = {
    "compare": "a comparison with another operator: < and <=, > and >=, == and !=, is and is not, in and not in",
    "constant": "a number one more or one less, True for False",
    "arithmetic": "+ and -, * and //, // for %, << and >>, & and |; also as += and the like",
    "boolean": "and and or",
    "negate": "a condition the other way round",
    "drop": "a statement left out",
    "errno": "another errno",
    "order": "the other end: min and max, the tail of a list for its head",
}
#: the same with what is only done to the compiled engine, which is made of comparisons
COMPILED_KINDS: Final = {**KINDS, "operand": "one of several conditions left out"}
#: Names that only a replay reads: which readers were preempted, which folios' cgroups are not known, which branches
#: were taken.
OBSERVERS: Final = frozenset({"observer", "account_observer", "total_observer", "untold_folios", "_changes",
                              "_total_changes", "reached"})
_UNTOUCHED: Final = frozenset({"__slots__", "__all__", "mirrors"})
_COMPARE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
#: errno -> the one that takes its place
_ERRNO: Final = {"ENOENT": "EAGAIN", "EAGAIN": "ENOENT", "ENOMEM": "EEXIST", "EEXIST": "ENOMEM", "EINVAL": "ENOSPC",
                 "ENOSPC": "EINVAL", "EIO": "ENOENT"}
#: characters shown of a change
_SHOWN: Final = 110
_OTHER_END: Final = {"min": "max", "max": "min", "reversed": "iter"}


@dataclass(frozen=True)
class Mutant:
    """One change: the ``number``-th that can be made to a file.

    ``path`` is relative to the checkout, ``function`` the qualified name of the innermost function (or class, or
    ``(module)``) whose code changes; ``statement`` the line of the statement it is in, 0 where it runs on import.
    """

    path: str
    number: int
    function: str
    line: int
    statement: int
    kind: str
    before: str
    after: str
    #: counts changes of one function that look the same
    nth: int = 1

    @property
    def module(self) -> str:
        """Name by which the file is imported."""
        return self.path.removesuffix(".py").replace("/", ".")

    @property
    def name(self) -> str:
        """What it is called in explanations: stays as it is while lines above it come and go."""
        again = f" ({self.nth})" if self.nth > 1 else ""
        return f"{self.path} {self.function}: {self.before} -> {self.after}{again}"


@dataclass
class _Site:
    node: ast.AST
    kind: str
    before: str
    after: str
    apply: Callable[[], None]
    function: str
    statement: int


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN - 3] + "..."


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_effect(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield)


def _names(node: ast.AST) -> set[str]:
    return {n.id if isinstance(n, ast.Name) else n.attr for n in ast.walk(node)
            if isinstance(n, ast.Name | ast.Attribute)}


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return [e for t in node.targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        return [node.target]
    return []


class _Finder:
    """Walks a module and yields every site at which it can be changed."""

    def __init__(self, shared: frozenset[str], operands: bool = False) -> None:
        self.shared, self.operands = shared, operands
        self.scope: list[str] = []
        self.functions = 0
        self.statement = 0
        #: what is shown of a change: the statement, or the head of one that has others in it
        self.shown: list[ast.AST] = []

    def block(self, body: list[ast.stmt], last_of_function: bool = False) -> Iterator[_Site]:
        for index, node in enumerate(body):
            yield from self.stmt(body, index, node, last_of_function and index == len(body) - 1)

    def stmt(self, body: list[ast.stmt], index: int, node: ast.stmt, last: bool) -> Iterator[_Site]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from self.definition(node)
            return
        if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.Pass) or _is_docstring(node):
            return
        named = {t.id if isinstance(t, ast.Name) else t.attr for t in _targets(node)
                 if isinstance(t, ast.Name | ast.Attribute)}
        if named & _UNTOUCHED or (not self.scope and named & self.shared):
            return
        header = [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.stmt)]
        if isinstance(node, ast.Return) and index and _is_effect(body[index - 1]):
            # It returns what the effect has just yielded: only that is looked at.
            header = []
        if any(_names(n) & OBSERVERS for n in header):
            return
        outer, self.statement = self.statement, node.lineno if self.functions else 0
        self.shown = header if hasattr(node, "body") else [node]
        if self._may_go(node, last):
            yield self._drop(body, index, node)
        if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Constant):
            yield from self._negate(node)
        if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
            yield self._operator(node, node, _ARITHMETIC[type(node.op)]())
        # A constant that is a table (model/lines.py): its values are shown one by one, under its name.
        table = not self.scope and isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) \
            and bool(node.value.keywords)
        self.scope += [_text(target) for target in _targets(node)] if table else []
        for child in header:
            # An annotation decides nothing.
            if not (isinstance(node, ast.AnnAssign) and child is node.annotation):
                yield from self.expr(child)
        if table:
            self.scope.clear()
        for field in ("body", "orelse", "finalbody"):
            yield from self.block(getattr(node, field, []))
        self.statement = outer

    def definition(self, node: ast.FunctionDef | ast.ClassDef) -> Iterator[_Site]:
        self.scope.append(node.name)
        if isinstance(node, ast.ClassDef):
            yield from self.block(node.body)
        else:
            for default in [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]:
                yield from self.expr(default)
            if node.name not in OBSERVERS:
                self.functions += 1
                yield from self.block(node.body, True)
                self.functions -= 1
        self.scope.pop()

    def _may_go(self, node: ast.stmt, last: bool) -> bool:
        """True for a statement that the rest of its function can run without."""
        if isinstance(node, ast.Return):
            return not last
        if isinstance(node, ast.Break | ast.Continue | ast.Delete | ast.AugAssign | ast.Expr):
            return True
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            if not self.functions:
                # A class attribute that overrides another.
                return bool(self.scope)
            # Without a first value an attribute, or a local name, is just missing: that would say nothing.
            return self.scope[-1] != "__init__" and all(isinstance(t, ast.Attribute | ast.Subscript)
                                                        for t in _targets(node))
        return False

    def expr(self, node: ast.AST) -> Iterator[_Site]:
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.keyword) and node.arg == "strict"):
            return
        if isinstance(node, ast.keyword) and not self.functions and self.scope:
            self.shown = [node]
        if isinstance(node, ast.Compare):
            for position, op in enumerate(node.ops):
                yield self._compare(node, position, _COMPARE[type(op)]())
        elif isinstance(node, ast.BoolOp):
            yield self._operator(node, node, ast.And() if isinstance(node.op, ast.Or) else ast.Or())
            for number in range(len(node.values) if self.operands else 0):
                # What is left of two is the other: "x and True", "x or False".
                same = ast.copy_location(ast.Constant(isinstance(node.op, ast.And)), node)
                values = [*node.values[:number], same, *node.values[number + 1:]]
                yield self._set(node, node, "values", values, "operand")
        elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC \
                and not isinstance(node.left, ast.List | ast.Tuple):
            yield self._operator(node, node, _ARITHMETIC[type(node.op)]())
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, bool):
                yield self._constant(node, not node.value)
            elif isinstance(node.value, int):
                yield self._constant(node, node.value + 1)
                yield self._constant(node, node.value - 1)
        elif isinstance(node, ast.IfExp):
            yield from self._negate(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "errno" \
                and node.attr in _ERRNO:
            yield self._errno(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _OTHER_END:
            yield self._other_end(node, node.func)
        if self.operands and isinstance(node, ast.Subscript):
            # Where something lies in the compiled engine's tables does not depend on what a kernel does.
            yield from self.expr(node.value)
            return
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context | ast.operator | ast.cmpop | ast.boolop | ast.unaryop):
                yield from self.expr(child)

    # ---- the kinds --------------------------------------------------------------------------------------

    def _site(self, node: ast.AST, kind: str, change: Callable[[], None], undo: Callable[[], None]) -> _Site:
        """Make the change for a moment to say what it looks like."""
        whole = next((part for part in self.shown if any(n is node for n in ast.walk(part))), node)
        texts = [[_text(part)] for part in (whole, node)]
        change()
        for text, part in zip(texts, (whole, node), strict=True):
            text.append(_text(part))
        undo()
        before, after = texts[0] if max(map(len, texts[0])) <= _SHOWN else map(_short, texts[1])
        return _Site(node, kind, before, after, change, ".".join(self.scope) or "(module)", self.statement)

    def _set(self, node: ast.AST, owner: ast.AST, field: str, value: object, kind: str) -> _Site:
        old = getattr(owner, field)
        return self._site(node, kind, lambda: setattr(owner, field, value), lambda: setattr(owner, field, old))

    def _operator(self, node: ast.expr | ast.AugAssign, owner: ast.AST, op: ast.AST) -> _Site:
        return self._set(node, owner, "op", op, "boolean" if isinstance(node, ast.BoolOp) else "arithmetic")

    def _compare(self, node: ast.Compare, position: int, op: ast.cmpop) -> _Site:
        ops = [*node.ops[:position], op, *node.ops[position + 1:]]
        return self._set(node, node, "ops", ops, "compare")

    def _constant(self, node: ast.Constant, value: int) -> _Site:
        return self._set(node, node, "value", value, "constant")

    def _errno(self, node: ast.Attribute) -> _Site:
        return self._set(node, node, "attr", _ERRNO[node.attr], "errno")

    def _other_end(self, node: ast.Call, func: ast.Name) -> _Site:
        old = func.id
        return self._site(node, "order", lambda: setattr(func, "id", _OTHER_END[old]),
                          lambda: setattr(func, "id", old))

    def _negate(self, node: ast.If | ast.While | ast.IfExp) -> Iterator[_Site]:
        old = node.test
        if isinstance(old, ast.Compare) and not isinstance(old.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            # The other operator says the same.
            return
        new: ast.expr = old.operand if isinstance(old, ast.UnaryOp) and isinstance(old.op, ast.Not) \
            else ast.copy_location(ast.UnaryOp(ast.Not(), old), old)
        site = self._set(node, node, "test", new, "negate")
        if not isinstance(node, ast.IfExp):
            word = "while" if isinstance(node, ast.While) else "if"
            site.before, site.after = (_short(f"{word} {_text(test)}") for test in (old, new))
        yield site

    def _drop(self, body: list[ast.stmt], index: int, node: ast.stmt) -> _Site:
        def apply() -> None:
            # Kept where it is but never run: a generator stays a generator, a local name stays local.
            never = ast.copy_location(ast.Constant(False), node)
            body[index] = ast.copy_location(ast.If(never, [node], []), node)

        return _Site(node, "drop", _short(_text(node)), "(dropped)", apply, ".".join(self.scope) or "(module)",
                     self.statement)


def _sites(tree: ast.Module, shared: frozenset[str], operands: bool = False) -> list[_Site]:
    return list(_Finder(shared, operands).block(tree.body))


def reading_sources(root: Path) -> list[Path]:
    """Return the files of the replay that run with a changed model: not the compiled engine, which is left out."""
    return sorted(path for path in (root / "replay").rglob("*.py") if path.parent.name != "fast")


def shared_names(sources: Iterable[Path]) -> frozenset[str]:
    """Return every name that these files import from the model, other than its crypto package."""
    names: set[str] = set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "model" \
                    and not (node.module or "").startswith("model.crypto"):
                names |= {alias.name for alias in node.names}
    return frozenset(names)


def enumerate_mutants(root: Path, path: str, shared: frozenset[str] = frozenset(), *,
                      operands: bool = False) -> list[Mutant]:
    """Return every change that can be made to a file, in the order of its text.

    :param root: the checkout
    :param path: the file, relative to it
    :param shared: module constants to leave alone (:func:`shared_names`)
    :param operands: for the compiled engine: leave out single conditions of several too, and leave alone what lies where
    """
    tree = ast.parse((root / path).read_text())
    found = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for number, site in enumerate(_sites(tree, shared, operands)):
        line: int = getattr(site.node, "lineno", 0)
        look = (site.function, site.before, site.after)
        seen[look] += 1
        found.append(Mutant(path, number, site.function, line, site.statement, site.kind, site.before, site.after,
                            seen[look]))
    return found


def mutated(source: str, number: int, shared: frozenset[str] = frozenset(), *, operands: bool = False) -> ast.Module:
    """Return the syntax tree of a file with its ``number``-th change made; line numbers stay as they were.

    :raises IndexError: when there is no such change
    """
    tree = ast.parse(source)
    _sites(tree, shared, operands)[number].apply()
    return ast.fix_missing_locations(tree)


def choose(mutants: list[Mutant], quotas: dict[str, int], seed: int) -> list[Mutant]:
    """Return a seeded choice: ``quotas`` many of each file, taken in turn from its functions and, there, its kinds.

    The same mutants and seed give the same choice.  A quota of more than a file has takes all of it.
    """
    chosen = []
    for path, quota in sorted(quotas.items()):
        chance = random.Random(f"{seed} {path}")
        by_function: dict[str, list[Mutant]] = {}
        for mutant in mutants:
            if mutant.path == path:
                by_function.setdefault(mutant.function, []).append(mutant)
        queues = [_by_kind(found, chance) for _, found in sorted(by_function.items())]
        chance.shuffle(queues)
        picked: list[Mutant] = []
        while len(picked) < quota and any(queues):
            for queue in queues:
                if queue and len(picked) < quota:
                    picked.append(queue.pop())
        chosen += sorted(picked, key=lambda m: m.number)
    return chosen


def _by_kind(mutants: list[Mutant], chance: random.Random) -> list[Mutant]:
    """Return a function's mutants shuffled, the kinds in turn, to be taken from the end."""
    kinds: dict[str, list[Mutant]] = {}
    for mutant in chance.sample(mutants, len(mutants)):
        kinds.setdefault(mutant.kind, []).append(mutant)
    order = chance.sample(sorted(kinds), len(kinds))
    out = []
    while any(kinds.values()):
        out += [kinds[kind].pop() for kind in order if kinds[kind]]
    return out[::-1]
