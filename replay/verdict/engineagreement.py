# SPDX-License-Identifier: GPL-2.0-or-later
"""Two engines, one answer: what of two results of one recording is not the same."""

from __future__ import annotations

import re
from typing import Any, Final

from replay.verdict.result import Result
from replay.verdict.run import NOT_COMPILED

__all__ = ["difference"]

#: What an engine says of itself: how long it took, which it was, how much of it was compiled.
_OWN: Final = ("seconds", "engine", "compiled")
#: The replay that comes second finds the compressor's results that the first one kept: only their sum is a finding.
_KEPT: Final = re.compile(r"(\d+) distinct pages compressed, (\d+) results kept from before")


def difference(reference: Result, fast: Result) -> str:
    """Return the first thing that two engines say differently of a recording, ``""`` where there is none.

    Verdict, every check's counts and grades, every divergence with its states, what was explained how, reasons and
    notes have to be equal, in the same order and of the same types; all of :meth:`Result.as_dict` but the seconds,
    the engine's name, how many events were compiled, and the note why the reference replayed all.

    :return: such as ``checks[3].compared: 12 by the reference, 13 by compiled code``
    """
    return _first("", _findings(reference), _findings(fast))


def _findings(result: Result) -> dict[str, Any]:
    plain = {name: value for name, value in result.as_dict().items() if name not in _OWN}
    plain["notes"] = [_KEPT.sub(lambda found: f"{int(found[1]) + int(found[2])} distinct pages' results", note)
                      for note in result.notes if not note.startswith(NOT_COMPILED)]
    return plain


def _first(path: str, one: Any, other: Any) -> str:
    """Return where two values of plain data differ first, and both values there."""
    if type(one) is not type(other):
        return _told(path, f"{one!r} ({type(one).__name__})", f"{other!r} ({type(other).__name__})")
    if isinstance(one, dict):
        if list(one) != list(other):
            return _told(f"{path}: keys", list(one), list(other))
        parts = [(f"{path}.{key}" if path else str(key), one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple):
        parts = [(f"{path}[{number}]", *pair) for number, pair in enumerate(zip(one, other, strict=False))]
        if len(one) != len(other):
            parts.append((f"{path}: how many", len(one), len(other)))
    else:
        return "" if one == other else _told(path, repr(one), repr(other))
    return next(filter(None, (_first(*part) for part in parts)), "")


def _told(path: str, reference: object, fast: object) -> str:
    return f"{path}: {reference} by the reference, {fast} by compiled code"
