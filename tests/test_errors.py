# SPDX-License-Identifier: GPL-2.0-or-later
"""Every sentence that a user sees with exit status 2 or 5, read out of the sources: what, and what to do next."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT

from traces.errors import BadInput
from traces.record import oserrors as reasons
from traces.record.errors import CannotRecord

PARTS = ("path", "where", "what", "todo")
#: A next step says what to do: it begins with one of these, or with what is wrong with an option's value.
STEPS = {"allow", "apply", "ask", "boot", "build", "check", "choose", "close", "convert", "copy", "correct", "cut", "decompress", "end", "export", "fetch",
         "get", "give", "import", "install", "leave", "make", "mend", "mount", "name", "pass", "patch", "print", "put", "rebase", "record",
         "remove", "replay", "report", "return", "run", "save", "see", "set", "split", "start", "take", "try", "use", "wait", "write", "yield"}
#: Next steps that are chosen by an error's number.
TABLES = {"next_step": [*reasons._FILES.values(), reasons.next_step(None)],
          "kernel_step": [*reasons._KERNEL.values(), *reasons._FILES.values(), reasons.kernel_step(None)]}
#: Messages of libraries about their input stand in zreplay's sentences.
SAID = ("str(problem)", "str(trouble)")
#: Sentences in one piece, by the exception or function that takes them, and which argument that is.
ONE_PIECE = {"LabError": 0, "NotReady": 0, "NoSnapshot": 0, "WorkerDied": 0, "BadSequence": 0, "OSError": 1, "_Bad": 0}
#: Programs that such a sentence may name to run.
PROGRAMS = {"apt", "echo", "mkswap"}
#: Exceptions whose texts become part of another sentence or of a verdict, or that are never shown.
INSIDE = {"_NoInterrupt": "replay.iaa.driver", "MemoryFault": "the emulated IAA's completion records", "Overlap": "its client's messages", "_Refused": "its client's messages", "DamagedFile": "BadInput, by recordings", "DamagedPage": "BadInput, by recordings", "OutOfBounds": "BadInput, by readers of JSON", "MissingMemory": "vmcore's findings", "LostEvents": "verdicts", "CannotFollow": "verdicts", "_Enough": "shrink",
          "_Odd": "the other engine", "Mismatch": "a finding: status 1", "UnsupportedCompressor": "checks that are not made",
          "CorruptData": "the model's", "KernelFault": "the model's", "NeverCompletes": "the model's",
          "NoFit": "BadInput, by whatif", "RevisionFault": "BadInput, by guards", "TooLong": "BadInput, by guards"}


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
    """Return what an expression may say, ``X`` where a value goes; unknown expressions as ``<...>``."""
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
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TABLES:
        # What is said by an error's number, or else what is given for the others.
        return [*TABLES[node.func.id], *(text for given in node.args[1:] for text in texts(given, place, depth))]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _returned(node.func.id, place, depth) or [f"<{ast.unparse(node)}>"]
    return [f"<{ast.unparse(node)}>"]


def _part(part: ast.expr, place: Place) -> str:
    """Return a part of an f-string: itself, the one text that a name may stand for, or X for a value."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    said = _named(part.value.id, place, 2) if isinstance(part.value, ast.Name) else []
    return said[0] if len(said) == 1 and not said[0].startswith("<") else "X"


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
                    rows = getattr(importlib.import_module(place.module), node.iter.id, ())
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


def _returned(name: str, place: Place, depth: int) -> list[str]:
    """Return what a function of the same module may return."""
    function = FUNCTIONS.get((place.module, name))
    if function is None:
        return []
    inside = place._replace(around=(function,))
    return [text for node in ast.walk(function) if isinstance(node, ast.Return)
            for text in texts(node.value, inside, depth - 1)]


CALLED = _by_name()
FUNCTIONS = {(name, node.name): node for _, name, tree in _sources() for node in tree.body
             if isinstance(node, ast.FunctionDef)}


def _params(*names: str) -> list[Any]:
    return [pytest.param(place, id=f"{place.file.relative_to(ROOT)}:{place.call.lineno}")
            for name in names for place in CALLED[name] if name != "OSError" or (place.call.args and ast.unparse(place.call.args[0]) == "0")]


#: A guard puts a fault's parts together: those are looked at where they are made.
SENTENCES = [param for param in _params("BadInput") if param.values[0].module != "replay.userrev.guard"]


def test_they_are_found() -> None:
    assert len(SENTENCES) > 150
    assert len(CALLED["LabError"]) > 50
    assert len(CALLED["CannotRecord"]) > 25


def test_no_exception_is_forgotten() -> None:
    made = {node.name for _, _, tree in _sources() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
            for base in node.bases if re.search(r"(Error|Exception|BadInput)$", ast.unparse(base))}
    assert made == {"BadInput", "CannotRecord", "GuestDied", *ONE_PIECE, *INSIDE} - {"OSError"}


def _printed(place: Place) -> bool:
    """True for a sentence of its own right before status 2."""
    sentence, *status = place.call.args
    if not isinstance(sentence, ast.Constant | ast.JoinedStr) or ast.unparse(sentence) == "f'{problem}.'":
        return False
    if status:
        return ast.unparse(status[0]) == "2"
    for node in (node for function in place.around for node in ast.walk(function)):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            for one, after in itertools.pairwise(body) if isinstance(body, list) else ():
                if isinstance(one, ast.Expr) and one.value is place.call:
                    return ast.unparse(after) == "return 2"
    return False


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
    _steps(todo)
    whole = str(BadInput(path[0], where[0], what[0], todo[0]))
    assert whole.endswith(".")
    assert "\n" not in whole
    assert "Traceback" not in whole


def _steps(todo: list[str]) -> None:
    """Check that each says what to do."""
    for text in todo:
        assert not text.startswith("<"), f"nothing is known of the next step {text}"
        _in_style(text)
        first = re.split(r"[\s:]", text)[0]
        # "the symbols are of another kernel or boot; give ..." explains first.
        assert first in STEPS or re.search(rf"[:;,] ({'|'.join(sorted(STEPS))}) ", text), f"no next step: {text!r}"


@pytest.mark.parametrize("place", _params("CannotRecord"))
def test_a_recorder_says_what_is_in_the_way_and_what_next(place: Place) -> None:
    assert len(place.call.args) + len(place.call.keywords) == 2, "what, todo"
    what, todo = (texts(_argument(place, ["what", "todo"], part), place) for part in ("what", "todo"))
    for text in what:
        assert not text.startswith("<"), f"nothing is known of {text}"
        _in_style(text)
    _steps(todo)
    assert str(CannotRecord(what[0], todo[0])).endswith(".")


@pytest.mark.parametrize("place", _params("RevisionFault"))
def test_a_fault_of_a_users_revision_says_what_and_what_next(place: Place) -> None:
    assert len(place.call.args) == 3, "place, what, todo"
    what, todo = (texts(place.call.args[at], place) for at in (1, 2))
    for text in what:
        # What is wrong with an effect is said in one place.
        assert not text.startswith("<") or "wrong" in text, f"nothing is known of {text}"
        _in_style(text)
    _steps(todo)


@pytest.mark.parametrize("place", _params(*ONE_PIECE))
def test_a_sentence_in_one_piece_ends_with_what_next(place: Place) -> None:
    said = texts(place.call.args[ONE_PIECE[_called(place)]], place)
    assert said
    for text in said:
        assert not text.startswith("<"), f"nothing is known of {text}"
        _in_style(text)
        if not _passes_on(place):
            words = "|".join(sorted(STEPS | PROGRAMS))
            assert re.search(rf"[:;] ({words}) ", text), f"no next step: {text!r}"


def test_a_sentence_in_one_piece_without_a_next_step_is_noticed() -> None:
    def place(source: str, file: str = "traces/x.py") -> Place:
        call = ast.parse(source, mode="eval").body
        assert isinstance(call, ast.Call)
        return Place(call, (), "traces.errors", Path(file))

    test_a_sentence_in_one_piece_ends_with_what_next(place("LabError(f'{p} is there; remove it')"))
    test_a_recorder_says_what_is_in_the_way_and_what_next(place("CannotRecord('no output', 'give one')"))
    for bad in ("LabError(f'{p} is there')", "LabError('is the disk full?')", "LabError('it is bad; remove it.')",
                "OSError(0, 'no zswap')", "LabError(str(p))", "LabError(f'{p} is there; the kernel may say why')"):
        with pytest.raises(AssertionError):
            test_a_sentence_in_one_piece_ends_with_what_next(place(bad))
    for bad in ("CannotRecord('no output', '')", "CannotRecord('no output')", "CannotRecord('no output.', 'give one')",
                "CannotRecord('no output', 'nothing can be done')"):
        with pytest.raises(AssertionError):
            test_a_recorder_says_what_is_in_the_way_and_what_next(place(bad))
    with pytest.raises(AssertionError):
        test_a_death_is_told_with_what_is_left(place("GuestDied('it died', '', 'its console is here')"))


def _passes_on(place: Place) -> bool:
    """True for the sentence of another of these exceptions, repeated with its file."""
    argument = place.call.args[0]
    last = argument.values[-1] if isinstance(argument, ast.JoinedStr) else None
    if not isinstance(last, ast.FormattedValue) or not isinstance(last.value, ast.Name):
        return False
    return any(isinstance(node, ast.ExceptHandler) and node.name == last.value.id and isinstance(node.type, ast.Name)
               and node.type.id in ONE_PIECE for function in place.around for node in ast.walk(function)) \
        and _called(place) != "OSError"


@pytest.mark.parametrize("place", _params("GuestDied"))
def test_a_death_is_told_with_what_is_left(place: Place) -> None:
    what, *rest = place.call.args
    for text in texts(what, place):
        # run_task() reports a death inside it again, with what is left.
        assert not text.startswith("<") or text == "<death.what>", f"nothing is known of {text}"
        _in_style(text)
    if len(rest) == 2:
        _steps(texts(rest[1], place))
    else:
        assert place.module in ("traces.lab.devices", "traces.lab.qemu", "traces.lab.run")


def test_every_death_that_leaves_the_lab_says_what_is_left() -> None:
    (task,) = (function for (_, name), function in FUNCTIONS.items() if name == "run_task")
    deaths = [handler for node in ast.walk(task) if isinstance(node, ast.Try) for handler in node.handlers
            if isinstance(handler.type, ast.Name) and handler.type.id == "GuestDied"]
    assert "_kept(partial)" in ast.unparse(deaths[0])


@pytest.mark.parametrize("place", [param for param in _params("warn", "_say") if _printed(param.values[0])])
def test_what_is_printed_before_status_2_says_what_next(place: Place) -> None:
    for text in texts(place.call.args[0], place):
        assert re.search(rf"[:;] ({'|'.join(sorted(STEPS))}) ", text), f"no next step: {text!r}"


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
