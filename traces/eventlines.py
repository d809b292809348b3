# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as lines of text, as ``zreplay show`` and the report of a divergence print them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from traces import schema
from traces.recording import Recording
from traces.times import bare

__all__ = ["NOT_SHOWN", "apart", "event_line", "event_lines"]

#: Shown in place of bytes of a page.
NOT_SHOWN: Final = "not shown"

_HEX_UNITS: Final = frozenset({"pointer", "word", "bits", "flags", "swp_entry_t"})
_HEX: Final = frozenset(c.name for c in schema.COLUMNS if c.unit in _HEX_UNITS) | {"data"}
_FIELDS: Final = {kind.name: kind.columns for kind in schema.EVENTS}
_REST: Final = [c.name for c in schema.COLUMNS[4:] if c.name not in ("text", "content")]


def event_line(event: int, values: dict[str, Any], mark: str = "", data: bool = False,
               stamps: str = "") -> str:
    """Return one event as a line: number, time in seconds, CPU, task, name, and the columns that say something.

    :param data: show the first bytes of objects written, too: of a page that is kept as it is they are the page's own
    :param stamps: the recording's (:attr:`traces.recording.Recording.stamps`): where there is one, the time is a stamp
    """
    name = schema.NAMES[values["event"]]
    words = [f"{mark}{event:>9} {bare(values['ts'], stamps)} [{values['cpu']:03d}] {values['pid']:>6} {name}"]
    fields = _FIELDS.get(name, ())
    for column in _REST:
        value = int(values[column])
        if (name, column) in schema.PAGE_BYTES and not data:
            words.append(f"{column}=({NOT_SHOWN})")
        elif value or (column == "ret" and "ret" in fields):
            words.append(f"{column}={value:#x}" if column in _HEX else f"{column}={value}")
    if values["content"] >= 0:
        words.append(f"content={values['content']}")
    if values["text"]:
        words.append(repr(values["text"]))
    return " ".join(words)


def event_lines(recording: Recording, start: int, stop: int, mark: int = -1, data: bool = False) -> Iterator[str]:
    """Yield events ``start`` to ``stop`` (inclusive) as one line each, the marked one with an arrow.

    :param data: as for :func:`event_line`
    """
    for base, batch in recording.batches(schema.column_names()):
        if base > stop:
            return
        for row in range(max(0, start - base), min(len(batch["ts"]), stop - base + 1)):
            values = {name: array[row] for name, array in batch.items()}
            yield event_line(base + row, values, "-> " if base + row == mark else "   ", data, recording.stamps)


def apart(one: int, other: int) -> tuple[str, str]:
    """Return what to show in place of an object's first bytes that differ: where they differ, and none of them.

    :param one: up to 8 bytes, as a little-endian number
    """
    gap = one ^ other
    offsets = [str(at) for at in range(8) if gap >> 8 * at & 0xff]
    where = ", ".join(offsets[:-1]) + (" and " if offsets[1:] else "") + "".join(offsets[-1:])
    return f"bytes {NOT_SHOWN}: {len(offsets)} of 8 differ, at offset {where}", f"bytes {NOT_SHOWN}; --data shows them"
