# SPDX-License-Identifier: GPL-2.0-or-later
"""A result as ``zreplay replay --json`` printed it: read back, and refused where it is something else."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Final

from replay.formats.asjson import SCHEMA
from replay.reference.checks import Divergence
from replay.reference.comparisons import COMPARISONS
from replay.verdict.result import EXIT, Result
from traces.errors import BadInput
from traces.eventlines import NOT_SHOWN, apart
from traces.record.oserrors import next_step
from traces.recording import Recording

__all__ = ["fits", "load_result", "without_bytes"]

#: No result of a replay comes near: it keeps a hundred divergences.
_LARGEST: Final = 64 << 20
_WRITE_ANEW: Final = "write it with 'zreplay replay REC --json > FILE'"
#: What a divergence of an object's first bytes says was compared, and a line of an event that shows them.
_FIRST_BYTES: Final = COMPARISONS["zs_obj_write:data"].columns[0][1]
_SHOWN: Final = re.compile(r"(\bzs_obj_write\b.* data=)0x[0-9a-f]+")
_TEXTS: Final = ("recording", "revision", "mirrors", "kernel", "compressor")


def load_result(path: Path) -> Result:
    """Return the result that a file holds.

    :raises BadInput: when it cannot be read, holds none, or more than one
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                       next_step(problem.errno, _WRITE_ANEW)) from None
    if len(content) > _LARGEST:
        raise BadInput(path, "", "is too large for a result", _WRITE_ANEW)
    try:
        # Not splitlines(): a JSON string may hold what Unicode calls a line's end.
        lines = [line for line in content.decode("utf-8").split("\n") if line.strip()]
        # A result is one line; one that was reformatted is the whole file.
        plain = json.loads(lines[0]) if len(lines) == 1 else json.loads("\n".join(lines)) if lines else None
    except (ValueError, RecursionError):
        several = _several(content)
        raise BadInput(path, "", f"holds {several} results, and a report is of one" if several > 1 else "is not JSON",
                       "give one line of it, or the recording" if several > 1 else _WRITE_ANEW) from None
    if not isinstance(plain, dict):
        raise BadInput(path, "", "holds no result of a replay", _WRITE_ANEW)
    if plain.get("verdict") is None and isinstance(plain.get("error"), str):
        raise BadInput(path, "", f"that replay gave no result ({plain['error'][:300]})", "give the recording itself")
    return _result(path, plain)


def _several(content: bytes) -> int:
    """Return how many JSON objects a file holds, one a line; 0 where a line is none."""
    count = 0
    try:
        for line in content.decode("utf-8").split("\n"):
            if line.strip():
                if not isinstance(json.loads(line), dict):
                    return 0
                count += 1
    except (ValueError, RecursionError):
        return 0
    return count


def _result(path: Path, plain: dict[str, Any]) -> Result:
    """Return the result that plain data says.

    :raises BadInput: when a part is missing or of another kind
    """
    if plain.get("schema", SCHEMA) != SCHEMA:
        raise BadInput(path, "'schema'", f"says {ascii(plain['schema'])[:40]}, and this zreplay reads {SCHEMA}",
                       "give the recording itself")
    try:
        result = Result.from_dict(plain)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise BadInput(path, "", f"is not the result of a replay ({type(problem).__name__}: {problem})",
                       _WRITE_ANEW) from None
    wrong = _wrong(result)
    if wrong:
        raise BadInput(path, f"'{wrong}'", "is not what a replay's result has there", _WRITE_ANEW)
    return result


def _wrong(result: Result) -> str:
    """Return the name of the first part that has another type than it should, "" where all is well."""
    if not isinstance(result.verdict, str) or result.verdict not in EXIT:
        return "verdict"
    for name in _TEXTS:
        if not isinstance(getattr(result, name), str):
            return name
    if not _count(result.events) or not _count(result.unexplained):
        return "events"
    for name in ("reasons", "notes"):
        if not _texts(getattr(result, name)):
            return name
    if not isinstance(result.explained, dict) or not all(_count(count) for count in result.explained.values()):
        return "explained"
    if result.explained_by is not None and not _texts(result.explained_by):
        return "explained_by"
    if not isinstance(result.checks, list) or not all(
            isinstance(each.id, str) and isinstance(each.grade, str) and isinstance(each.reason, str)
            and _count(each.compared) and _count(each.different) and _count(each.following)
            and each.following <= each.different for each in result.checks):
        return "checks"
    if not all(_divergence(each) for each in result.divergences):
        return "divergences"
    return ""


def _divergence(each: Any) -> bool:
    return (all(isinstance(getattr(each, name), str) for name in ("check", "name", "what", "stamps"))
            and all(type(getattr(each, name)) is int for name in ("event", "ts", "pid", "cpu"))
            and all(isinstance(name, str) and type(start) is int for name, start in each.path)
            and (each.follows is None or _count(each.follows))
            and isinstance(each.state, dict) and isinstance(each.kernel, dict) and _texts(list(each.context)))


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def without_bytes(result: Result) -> Result:
    """Return a result without first bytes of objects, which it has if it was made with ``--data``."""
    def clean(each: Divergence) -> Divergence:
        recorded, predicted = each.recorded, each.predicted
        if each.what == _FIRST_BYTES and isinstance(recorded, int) and isinstance(predicted, int):
            recorded, predicted = apart(recorded, predicted)
        return dataclasses.replace(each, recorded=recorded, predicted=predicted,
                                   context=tuple(_SHOWN.sub(rf"\1({NOT_SHOWN})", line) for line in each.context))

    return dataclasses.replace(result, divergences=[clean(each) for each in result.divergences])


def fits(result: Result, recording: Recording, kernel: str) -> str:
    """Say why a result cannot be of this recording; "" where nothing speaks against it.

    :param kernel: the recording's kernel, as a result has it
    """
    if result.kernel != kernel:
        return f"the recording at {recording.path} is of kernel {kernel}, the result of {result.kernel}"
    if result.events > len(recording):
        return f"the recording at {recording.path} has {len(recording):,} events, the result has {result.events:,}"
    return ""
