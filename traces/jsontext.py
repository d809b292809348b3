# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON from others: parsed within bounds, and checked against the schema that traces/FORMAT.md names.

What comes out has text that can be printed, numbers of at most 64 bits, and lists and objects of a bounded
depth.  The schema is checked by fastjsonschema, which makes Python code of it once.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from traces.errors import BadInput

__all__ = ["MOST_BYTES", "OutOfBounds", "dumped", "hold_to_schema", "parse"]

#: The file next to this one that has the schema.
SCHEMA: Final = Path(__file__).with_name("recording-1.json")
MOST_BYTES: Final = 64 << 20
#: Lists, objects and what they hold: each takes some hundred bytes.
_MOST_VALUES: Final = 1 << 21
_MOST_DEPTH: Final = 32
_MOST_DIGITS: Final = 20
_MOST_TEXT: Final = 4 << 20
#: Characters of a key that a message shows.
_SHOWN: Final = 200
_TYPES: Final = {"object": "an object", "array": "a list", "string": "a text", "integer": "a whole number",
                 "number": "a number", "boolean": "true or false", "null": "null"}


class OutOfBounds(ValueError):
    """Well-formed JSON with values that a file of this project never has."""


def dumped(value: Any) -> str:
    """Return JSON text of what was read elsewhere, without half surrogates: names of files can hold such."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    if not text.isascii():
        text = json.dumps(json.loads(text.encode("utf-8", "replace")), indent=1, sort_keys=True)
    return text + "\n"


def parse(data: bytes) -> Any:
    """Return what JSON text says.

    :raises ValueError: with a clause that says what is wrong with it; :class:`OutOfBounds` where it is JSON
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise OutOfBounds("it holds more values than any real one")
    try:
        value = json.loads(data.decode("utf-8"), parse_int=_whole, parse_float=_real, parse_constant=_constant)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise OutOfBounds(f"it is nested more than {_MOST_DEPTH} deep") from None
    _bounded(value)
    return value


def _whole(text: str) -> int:
    # Python refuses thousands of digits with a hint for programmers, and is slow with hundreds.
    if len(text) > _MOST_DIGITS + 1 or not -(1 << 63) <= (number := int(text)) < 1 << 64:
        raise OutOfBounds("it holds a number of more than 64 bits")
    return number


def _real(text: str) -> int | float:
    number = float(text)
    if not math.isfinite(number) or abs(number) >= 1 << 64:
        raise OutOfBounds("it holds a number of more than 64 bits")
    # 625.0 is a whole number to JSON Schema, but not to Python.
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number


def _constant(text: str) -> float:
    raise OutOfBounds(f"it holds {text}, which is not a number")


def _bounded(value: Any) -> None:
    """Look through lists and objects, level by level."""
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below.extend(item)
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
            elif type(item) is str and not item.isascii():
                try:
                    item.encode()
                except UnicodeEncodeError:
                    raise OutOfBounds("it holds half of a surrogate pair, which is not text") from None
            if type(item) is str and len(item) > _MOST_TEXT:
                raise OutOfBounds("it holds a longer text than any real one")
        level, depth = below, depth + 1
        if depth > _MOST_DEPTH:
            raise OutOfBounds(f"it is nested more than {_MOST_DEPTH} deep")


@functools.cache
def _checker(name: str) -> Callable[[Any], Any]:
    import fastjsonschema

    definitions = json.loads(SCHEMA.read_text("utf-8"))["definitions"]
    compiled: Callable[[Any], Any] = fastjsonschema.compile(
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": definitions,
         "$ref": f"#/definitions/{name}"})
    return compiled


def hold_to_schema(value: Any, name: str, path: str | os.PathLike[str], todo: str) -> None:
    """Check a value against one of the schema's definitions, ``manifest``, ``snapshot``, ``state`` or ``iaa``.

    :param path: the file it is from, for the message
    :param todo: what to do where it does not fit
    :raises BadInput: where it does not fit; says which key and why
    """
    import fastjsonschema

    try:
        _checker(name)(value)
    except fastjsonschema.JsonSchemaValueException as problem:
        key = ".".join(str(part) for part in problem.path[1:])
        if len(key) > _SHOWN:
            key = key[:_SHOWN] + "..."
        raise BadInput(path, f"key '{key}'" if key else "", _said(problem), todo) from None


def _said(problem: Any) -> str:
    """Say what a value that does not fit the schema should be."""
    rule, wanted = str(problem.rule), problem.rule_definition
    if rule == "required":
        return f"does not say {', '.join(name for name in wanted if name not in problem.value)}"
    if rule == "type":
        return f"is not {' or '.join(_TYPES[name] for name in ([wanted] if isinstance(wanted, str) else wanted))}"
    if rule in ("minimum", "maximum"):
        return f"is {'less' if rule == 'minimum' else 'more'} than allowed ({wanted})"
    if rule == "propertyNames":
        return "has a name in it that is not allowed"
    if rule == "enum":
        return f"is not {' or '.join(map(str, wanted))}"
    if rule == "maxLength":
        return f"is longer than {wanted} characters"
    return f"does not fit the format ({rule})"
