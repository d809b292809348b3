# SPDX-License-Identifier: GPL-2.0-or-later
"""Chrome's JSON trace events ("Trace Event Format"): Perfetto, chrome://tracing, speedscope and others read them.

One event a line, so that a reader can stream it too.  Times are microseconds with three decimals, written from whole
nanoseconds: exact in the file; a reader that makes floating-point numbers of them may be off by one nanosecond.  64-bit
pointers and words are hexadecimal texts, as JSON readers make doubles of large numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final, TextIO

from traces import schema
from traces.errors import BadInput
from traces.exporters.timeline import Item

__all__ = ["read", "write"]

#: PID_MAX_LIMIT of 64-bit kernels (include/linux/threads.h): no task has a number above it.
_PID_MAX: Final = 1 << 22
#: The process that all tracks are shown in: which process a task belongs to is not recorded.
_PROCESS: Final = _PID_MAX + 1
_HEX: Final = frozenset(column.name for column in schema.COLUMNS if column.dtype == "uint64")
_AGAIN: Final = "export again"
_PHASE: Final = {"begin": "B", "end": "E", "instant": "i"}
_KIND: Final = {phase: kind for kind, phase in _PHASE.items()}
_MAX_LINE: Final = 1 << 20


def _time(ts: int) -> str:
    return f"{ts // 1000}.{ts % 1000:03d}"


def _args(args: dict[str, Any]) -> str:
    return json.dumps({name: hex(value) if name in _HEX else value for name, value in args.items()},
                      separators=(",", ":"))


def write(items: Iterable[Item], file: TextIO, title: str) -> None:
    """Write a timeline.

    :param title: what was recorded, as the process' name
    """
    tids: dict[int, int] = {}
    process = json.dumps({"name": title})
    file.write('{"displayTimeUnit":"ns","traceEvents":[\n'
               f'{{"ph":"M","pid":{_PROCESS},"tid":0,"name":"process_name","args":{process}}}')
    for item in items:
        if item.kind == "track":
            if "unit" in item.args:
                continue
            task = item.args.get("task", 0)
            tid = tids[item.track] = task if 0 < task <= _PID_MAX else _PROCESS + item.track
            for name, args in (("thread_name", {"name": item.name}), ("thread_sort_index", {"sort_index": item.track})):
                file.write(f',\n{{"ph":"M","pid":{_PROCESS},"tid":{tid},"name":"{name}","args":{json.dumps(args)}}}')
        elif item.kind == "counter":
            file.write(f',\n{{"ph":"C","pid":{_PROCESS},"name":{json.dumps(item.name)},"ts":{_time(item.ts)},'
                       f'"args":{{"value":{item.value}}}}}')
        else:
            args_text = _args(item.args)
            if item.kind == "end":
                args_text = f'{{"return":{args_text}}}'
            scope = ',"s":"t"' if item.kind == "instant" else ""
            file.write(f',\n{{"ph":"{_PHASE[item.kind]}","pid":{_PROCESS},"tid":{tids[item.track]},"name":"{item.name}",'
                       f'"ts":{_time(item.ts)}{scope},"args":{args_text}}}')
    file.write("\n]}\n")


def read(file: TextIO, name: str) -> Iterator[Item]:
    """Yield the items of a file that :func:`write` made; of a counter's track nothing is known but its name.

    :raises BadInput: at a line that it did not write
    """
    number = 0

    def bad(what: str) -> BadInput:
        return BadInput(name, f"line {number}", what, _AGAIN)

    lines = iter(lambda: file.readline(_MAX_LINE), "")
    number = 1
    if next(lines, "") != '{"displayTimeUnit":"ns","traceEvents":[\n':
        raise bad("is not how an export begins")
    more = True
    for line in lines:
        number += 1
        if line == "]}\n":
            if more:
                raise bad("an event is missing before the end")
            if file.read(1):
                raise bad("something follows the end")
            return
        if not more:
            raise bad("the comma before it is missing")
        body = line.removesuffix("\n")
        more = body.endswith(",")
        try:
            value = json.loads(body.removesuffix(","), parse_float=Decimal)
            item = _item(value)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError) as problem:
            raise bad(f"is not an event ({type(problem).__name__}: {problem})") from None
        if item is not None:
            yield item
    number += 1
    raise bad("the end is missing")


def _item(value: dict[str, Any]) -> Item | None:
    """Return a line's item, None for a line that only says how to show things.

    :raises ValueError: when it is none, or KeyError, TypeError, AttributeError, ArithmeticError
    """
    phase = value["ph"]
    if phase == "M":
        if value["name"] != "thread_name":
            return None
        return Item("track", 0, value["tid"], value["args"]["name"], {})
    ts = Decimal(value["ts"]) * 1000
    if not 0 <= ts < 1 << 63 or ts != int(ts):
        raise ValueError("its time is not a whole number of nanoseconds")
    if phase == "C":
        return Item("counter", int(ts), 0, value["name"], {}, value["args"]["value"])
    args = value["args"]["return"] if phase == "E" else value["args"]
    args = {name: int(held, 16) if name in _HEX else held for name, held in args.items()}
    return Item(_KIND[phase], int(ts), value["tid"], value["name"], args)
