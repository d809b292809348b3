# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay show``: events, filtered."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from replay.cli.terminal import number
from traces import schema
from traces.errors import BadInput
from traces.eventlines import event_line
from traces.recording import Recording
from traces.times import no_seconds

__all__ = ["add_parser", "select"]

#: operation -> events that belong to it
_OPERATIONS = {
    "store": {name for name in schema.CODE if "store" in name or "acomp_compress" in name},
    "load": {name for name in schema.CODE if "load" in name or "decompress" in name or name == "zs_obj_read"},
    "free": {"zswap_invalidate", "zswap_entry_free", "zs_free", "obj_free", "obj_cgroup_uncharge_zswap"},
    "zsmalloc": {name for name in schema.CODE if name.startswith(("zs_", "obj_malloc", "obj_free", "fix_", "__free"))},
    "swap": {name for name in schema.CODE if "swap_write" in name},
    "compact": {name for name in schema.CODE if "compact" in name or "zs_shrinker" in name},
    "writeback": {name for name in schema.CODE if "shrink" in name or "writeback_entry" in name},
    "lru": {name for name in schema.CODE if "list_lru" in name},
    "marker": {"marker", "counters", "param", "lost_events"},
}


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("show", help="events of a recording, filtered",
                              description="Print events, one a line. Filters given together must all hold.")
    parser.add_argument("recording", metavar="REC")
    parser.add_argument("--op", action="append", metavar="NAME",
                        help=f"an event name, or one of {', '.join(_OPERATIONS)}; may be repeated")
    parser.add_argument("--swp", type=number, metavar="OFFSET", help="swap offset (any swap device)")
    parser.add_argument("--handle", type=number, metavar="H", help="zsmalloc handle")
    parser.add_argument("--cpu", type=number, metavar="N")
    parser.add_argument("--pid", type=number, metavar="N")
    parser.add_argument("--from", dest="start", type=number, default=0, metavar="N", help="first event number")
    parser.add_argument("--to", dest="stop", type=number, metavar="N", help="event number to stop before")
    parser.add_argument("--time", metavar="A:B", help="seconds of the trace clock, either side may be left out")
    parser.add_argument("--limit", type=number, metavar="N", help="print at most N events")
    parser.add_argument("--data", action="store_true", help="show the first 8 bytes of objects written, too: they may "
                        "be a page's own")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def _seconds(text: str | None) -> tuple[int, int]:
    low, high = 0, (1 << 63) - 1
    if text is not None:
        try:
            first, _, second = text.partition(":")
            low = round(float(first) * 1e9) if first else low
            high = round(float(second) * 1e9) if second else high
        except (ValueError, OverflowError):
            raise BadInput("--time", "", f"'{text}' is not A:B in seconds", "write it like 11.5:12") from None
    return low, high


def _codes(wanted: list[str] | None) -> set[int] | None:
    if wanted is None:
        return None
    names: set[str] = set()
    for item in wanted:
        if item in _OPERATIONS:
            names |= _OPERATIONS[item]
        elif item in schema.CODE:
            names.add(item)
        else:
            raise BadInput("--op", "", f"there is no event or operation '{item}'",
                           f"use an event name of FORMAT.md or one of {', '.join(_OPERATIONS)}")
    return {schema.CODE[name] for name in names}


def select(recording: Recording, arguments: argparse.Namespace) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (event number, {column: value}) of the events that pass the filters."""
    if arguments.time is not None and recording.stamps:
        raise BadInput(recording.path, "", "has no seconds that --time could choose by: "
                       f"{no_seconds(recording.stamps)}", "choose by event number, with --from and --to")
    codes, (low, high) = _codes(arguments.op), _seconds(arguments.time)
    left = arguments.limit if arguments.limit is not None else 1 << 62
    for base, columns in recording.batches(schema.column_names()):
        count = len(columns["ts"])
        keep = (columns["ts"] >= low) & (columns["ts"] <= high)
        numbers = np.arange(base, base + count)
        keep &= numbers >= arguments.start
        if arguments.stop is not None:
            keep &= numbers < arguments.stop
        if codes is not None:
            keep &= np.isin(columns["event"], list(codes))
        if arguments.swp is not None:
            has = np.isin(columns["event"], [schema.CODE[kind.name] for kind in schema.EVENTS
                                             if "swpent" in kind.columns])
            keep &= has & (columns["swpent"] & np.uint64(schema.SWP_OFFSET_MASK) == np.uint64(arguments.swp))
        if arguments.handle is not None:
            keep &= columns["handle"] == np.uint64(arguments.handle)
        if arguments.cpu is not None:
            keep &= columns["cpu"] == arguments.cpu
        if arguments.pid is not None:
            keep &= columns["pid"] == arguments.pid
        for row in np.flatnonzero(keep):
            if not left:
                return
            left -= 1
            yield base + int(row), {name: values[row] for name, values in columns.items()}
        if arguments.stop is not None and base + count >= arguments.stop:
            return


def run(arguments: argparse.Namespace) -> int:
    """Print the events."""
    recording = Recording(arguments.recording)
    probes = recording.manifest["probes"]
    for event, values in select(recording, arguments):
        if not arguments.json:
            print(event_line(event, values, data=arguments.data, stamps=recording.stamps))
            continue
        name = schema.NAMES[values["event"]]
        columns = probes.get(name, {}).get("columns") or [c for c in ("ret", "text") if name in schema.CODE]
        row = {"number": event, "ts": int(values["ts"]), "cpu": int(values["cpu"]), "pid": int(values["pid"]),
               "event": name}
        for column in columns:
            if (name, column) in schema.PAGE_BYTES and not arguments.data:
                continue
            row[column] = values[column] if column == "text" else int(values[column])
        if values["content"] >= 0:
            row["content"] = int(values["content"])
        print(json.dumps(row))
    return 0
