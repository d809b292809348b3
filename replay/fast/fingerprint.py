# SPDX-License-Identifier: GPL-2.0-or-later
"""What compiled code was made of, as a number: text of every function in it, value of every constant.

Numba keeps compiled code by the file of the one function that it was asked for, and compiles in what that function
and those it calls take from their modules: constants of the model, names of events, sets of the reference.  Any of
these can change while that one file stays as it is.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import numpy as np
from numba.core.registry import CPUDispatcher

__all__ = ["compiled_in", "fingerprint"]

#: Libraries: what compiled code takes of them, Numba knows; that they change, too.
_LIBRARIES: Final = frozenset({"numba", "numpy"})


def fingerprint(function: Callable[..., Any]) -> int:
    """Return a number that changes with anything that is compiled in with ``function``.

    :param function: what is compiled, or the function that defines it
    :raises TypeError: for a constant whose value cannot be written down
    """
    digest = hashlib.sha256()
    for name, value in sorted(compiled_in(function).items()):
        digest.update(f"{name}={value}\n".encode())
    return int.from_bytes(digest.digest()[:6], "big")


def compiled_in(function: Callable[..., Any]) -> dict[str, str]:
    """Return all that is compiled in with ``function``, as text: ``module.name`` -> source of a function, or a value.

    :raises TypeError: for a constant whose value cannot be written down
    """
    out: dict[str, str] = {}
    _walk(function, out)
    return out


def _walk(function: Callable[..., Any], out: dict[str, str]) -> None:
    name = f"{function.__module__}.{function.__qualname__}"
    if name in out:
        return
    out[name] = inspect.getsource(function)
    found = vars(inspect.getmodule(function))
    for first, attribute in _looked_up(function.__code__):
        if first not in found:
            # One of Python's own.
            continue
        value, where = found[first], f"{function.__module__}.{first}"
        if isinstance(value, ModuleType):
            if value.__name__.partition(".")[0] in _LIBRARIES:
                continue
            value, where = getattr(value, attribute), f"{value.__name__}.{attribute}"
        _take(value, where, out)


def _take(value: Any, where: str, out: dict[str, str]) -> None:
    inner = getattr(value, "py_func", None) if isinstance(value, CPUDispatcher) else getattr(value, "_defn", value)
    if isinstance(inner, FunctionType):
        if inner.__module__.partition(".")[0] not in _LIBRARIES:
            _walk(inner, out)
    elif not callable(value):
        out[where] = _written(where, value)


def _looked_up(code: CodeType) -> Iterator[tuple[str, str]]:
    """Yield every name that a function, or one inside it, looks up in its module, and the attribute it takes of it."""
    steps = list(dis.get_instructions(code))
    for step, after in itertools.pairwise(steps):
        if step.opname == "LOAD_GLOBAL":
            yield step.argval, after.argval if after.opname in ("LOAD_ATTR", "LOAD_METHOD") else ""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _looked_up(constant)


def _written(name: str, value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.tolist()}"
    if isinstance(value, bool | int | str | tuple):
        return repr(value)
    raise TypeError(f"{name} is compiled in, and {type(value).__name__} has no value that could be written down")
