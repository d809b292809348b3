# SPDX-License-Identifier: GPL-2.0-or-later
"""Event formats: what ``events/*/*/format``, ``header_page`` and ``header_event`` in tracefs say.

Mirrors the text printed by ``f_show()`` in kernel/trace/trace_events.c and ``ring_buffer_print_page_header()``
in kernel/trace/ring_buffer.c (Linux 6.12 to 7.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from traces.errors import BadInput

__all__ = ["EventFormat", "FormatField", "HeaderPage", "parse_event_format", "parse_header_page"]

# The bounds keep the search linear in files that only look like a format.
_FIELD = re.compile(r"field:(?P<decl>[^;\n]{0,512});\s*offset:(?P<offset>-?\d+);\s*size:(?P<size>-?\d+);"
                    r"(?:\s*signed:(?P<signed>-?\d+);)?")
_NAME = re.compile(r"^name:\s*(\S+)\s*$", re.M)
_ID = re.compile(r"^ID:\s*(\d+)\s*$", re.M)
#: No event of a ring buffer is longer than a sub-buffer, and none of those is longer than this.
_MAX_EVENT = 1 << 20


@dataclass(frozen=True)
class FormatField:
    """One field of an event: byte ``offset`` and ``size`` in the record.

    ``is_elsewhere``: what is there says where in the record the field is, and how long (``__data_loc``).
    """

    name: str
    offset: int
    size: int
    signed: bool
    is_array: bool
    is_elsewhere: bool = False


@dataclass(frozen=True)
class EventFormat:
    """One event type: its ``id`` in the ring, its ``name`` and its ``fields`` by name."""

    name: str
    id: int
    fields: dict[str, FormatField]


@dataclass(frozen=True)
class HeaderPage:
    """Layout of a sub-buffer's header: byte offsets and sizes; ``size`` is that of the whole sub-buffer."""

    commit_offset: int
    commit_size: int
    data_offset: int
    size: int


def _number(digits: str) -> int:
    """Return a decimal number, or -1 for one that is longer than any real one."""
    return int(digits) if len(digits) <= 10 else -1


def _fields(text: str, path: str) -> dict[str, FormatField]:
    fields: dict[str, FormatField] = {}
    for match in _FIELD.finditer(text):
        declaration = match["decl"].strip()
        is_array = declaration.endswith("]")
        # An array's bounds are behind its name, but for those that are elsewhere: "__data_loc char[] name".
        place = declaration.rpartition("]")[2] if declaration.startswith("__data_loc ") else ""
        name = re.split(r"[\s*]+", place.strip() or declaration.split("[", 1)[0].strip())[-1]
        offset, size = _number(match["offset"]), _number(match["size"])
        if not name or offset < 0 or size < 0 or offset + size > _MAX_EVENT:
            raise BadInput(path, f"field '{declaration}'",
                           f"offset {match['offset'][:12]} and size {match['size'][:12]} make no sense",
                           "copy the format file again from the tracefs of the recorded boot")
        fields[name] = FormatField(name, offset, size, match["signed"] == "1", is_array,
                                   declaration.startswith("__data_loc "))
    return fields


def parse_event_format(text: str, path: str) -> EventFormat:
    """Parse the text of one event's ``format`` file.

    :raises BadInput: when name, id or fields are missing or out of range
    """
    name, number = _NAME.search(text), _ID.search(text)
    fields = _fields(text, path)
    if name is None or number is None or "common_type" not in fields or "common_pid" not in fields:
        raise BadInput(path, "", "this is not an event format (no name, ID or common fields)",
                       "copy the event's format file from the tracefs of the recorded boot")
    if not 0 <= _number(number[1]) <= 0xFFFF:
        raise BadInput(path, "", f"event id {number[1][:12]} does not fit 16 bits",
                       "copy the event's format file from the tracefs of the recorded boot")
    return EventFormat(name[1], int(number[1]), fields)


def parse_header_page(text: str, path: str) -> HeaderPage:
    """Parse ``events/header_page``.

    :raises BadInput: when the layout is not one of a kernel ring buffer
    """
    fields = _fields(text, path)
    try:
        stamp, commit, data = fields["timestamp"], fields["commit"], fields["data"]
    except KeyError as missing:
        raise BadInput(path, "", f"no field {missing} in the sub-buffer header",
                       "copy events/header_page from the tracefs of the recorded boot") from None
    good = stamp.offset == 0 and stamp.size == 8 and commit.offset == 8 and commit.size in (4, 8)
    if not good or data.offset != 8 + commit.size or not 64 <= data.size <= _MAX_EVENT \
            or (data.offset + data.size) % 4:  # records are aligned to 4 bytes, and read so
        raise BadInput(path, "", "the sub-buffer header has a layout that no kernel uses",
                       "copy events/header_page from the tracefs of the recorded boot")
    return HeaderPage(commit.offset, commit.size, data.offset, data.offset + data.size)
