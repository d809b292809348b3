# SPDX-License-Identifier: GPL-2.0-or-later
"""Perfetto's own trace format: protobuf messages, times in whole nanoseconds, 64-bit values as they are.

Written by hand, as it takes a few fields of few messages: no dependency, and a packet at a time.  Field numbers are
those of protos/perfetto/trace/ in Perfetto's sources (trace.proto, trace_packet.proto, track_event/*.proto,
interned_data.proto); tests read exports with the protos of the ``perfetto`` package from PyPI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

from traces import schema
from traces.errors import BadInput
from traces.exporters.timeline import Item

__all__ = ["read", "write"]

# Trace, TracePacket
_PACKET: Final = 1
_TIMESTAMP, _SEQUENCE, _TRACK_EVENT, _INTERNED, _FLAGS, _DESCRIPTOR = 8, 10, 11, 12, 13, 60
#: SEQ_INCREMENTAL_STATE_CLEARED of the first packet, SEQ_NEEDS_INCREMENTAL_STATE of the others
_CLEARED, _NEEDS = 1, 2
# TrackEvent
_ANNOTATION, _TYPE, _NAME_IID, _TRACK, _VALUE = 4, 9, 10, 11, 30
# TrackDescriptor, CounterDescriptor
_UUID, _NAME, _PARENT, _COUNTER, _ORDERING, _RANK, _UNIT_NAME = 1, 2, 5, 8, 11, 12, 6
_EXPLICIT: Final = 3
# InternedData, and what is in it
_EVENT_NAMES, _ANNOTATION_NAMES, _IID, _INTERNED_NAME = 2, 3, 1, 2
# DebugAnnotation
_ANNOTATION_NAME, _UINT, _INT, _STRING, _POINTER, _DICT = 1, 3, 4, 6, 7, 11
_TYPES: Final = {"begin": 1, "end": 2, "instant": 3, "counter": 4}
_KINDS: Final = {number: kind for kind, number in _TYPES.items()}
#: The track above all others.
_ROOT: Final = 1
_ARGS: Final = ("event", "cpu", "task", "missing", "return", *(column.name for column in schema.COLUMNS[4:]))
_ARG_IID: Final = {name: number for number, name in enumerate(_ARGS, 1)}
_NAMES: Final = sorted({*schema.NAMES})
_NAME_IIDS: Final = {name: number for number, name in enumerate(_NAMES, 1)}
_KIND_OF: Final = {**{column.name: _INT if column.dtype.startswith("int") else _POINTER
                      if column.unit in ("pointer", "word", "swp_entry_t") or column.name == "data" else _UINT
                      for column in schema.COLUMNS[4:]},
                   "event": _UINT, "cpu": _UINT, "task": _INT, "missing": _STRING, "text": _STRING}
_MAX_PACKET: Final = 1 << 20
_AGAIN: Final = "export again"
_MASK: Final = (1 << 64) - 1


# ---- writing ---------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= _MASK
    while value > 0x7f:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _annotation(field: int, name: str, value: Any) -> bytes:
    kind = _KIND_OF[name]
    held = _bytes(_STRING, value.encode()) if kind == _STRING else _number(kind, value)
    return _bytes(field, _number(_ANNOTATION_NAME, _ARG_IID[name]) + held)


def _packet(content: bytes, flags: int = _NEEDS) -> bytes:
    return _bytes(_PACKET, content + _number(_SEQUENCE, 1) + _number(_FLAGS, flags))


def _interned() -> bytes:
    names = [_bytes(_EVENT_NAMES, _number(_IID, iid) + _bytes(_INTERNED_NAME, name.encode()))
             for name, iid in _NAME_IIDS.items()]
    args = [_bytes(_ANNOTATION_NAMES, _number(_IID, iid) + _bytes(_INTERNED_NAME, name.encode()))
            for name, iid in _ARG_IID.items()]
    return _bytes(_INTERNED, b"".join(names + args))


def _descriptor(item: Item) -> bytes:
    unit = item.args.get("unit")
    counter = b"" if unit is None else _bytes(_COUNTER, _bytes(_UNIT_NAME, unit.encode()) if unit else b"")
    return _bytes(_DESCRIPTOR, _number(_UUID, _ROOT + item.track) + _bytes(_NAME, item.name.encode("utf-8", "replace"))
                  + _number(_PARENT, _ROOT) + counter + _number(_RANK, item.track))


def write(items: Iterable[Item], file: BinaryIO, title: str) -> None:
    """Write a timeline.

    :param title: what was recorded, as the name of the track above all others
    """
    root = _number(_UUID, _ROOT) + _bytes(_NAME, title.encode("utf-8", "replace")) + _number(_ORDERING, _EXPLICIT)
    file.write(_packet(_interned() + _bytes(_DESCRIPTOR, root), _CLEARED))
    for item in items:
        if item.kind == "track":
            file.write(_packet(_descriptor(item)))
            continue
        event = _number(_TYPE, _TYPES[item.kind]) + _number(_TRACK, _ROOT + item.track)
        if item.kind == "counter":
            event += _number(_VALUE, item.value)
        else:
            event += _number(_NAME_IID, _NAME_IIDS[item.name])
            field = _DICT if item.kind == "end" else _ANNOTATION
            args = b"".join([_annotation(field, name, value) for name, value in item.args.items()])
            if item.kind == "end":
                args = _bytes(_ANNOTATION, _number(_ANNOTATION_NAME, _ARG_IID["return"]) + args)
            event += args
        file.write(_packet(_number(_TIMESTAMP, item.ts) + _bytes(_TRACK_EVENT, event)))


# ---- reading ---------------------------------------------------------------------------------------------


def _take(data: bytes, at: int) -> tuple[int, int]:
    """Return a varint and where it ends.

    :raises ValueError: when it does not end, IndexError when the data does
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7
        if shift > 63:
            raise ValueError("a number does not end")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field, int or bytes) of a message."""
    at = 0
    while at < len(data):
        tag, at = _take(data, at)
        value, at = _take(data, at)
        if tag & 7 == 2:
            if value > len(data) - at:
                raise ValueError("a field is longer than its message")
            yield tag >> 3, data[at:at + value]
            at += value
        elif tag & 7 == 0:
            yield tag >> 3, value
        else:
            raise ValueError(f"a field of wire type {tag & 7}")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


class _Reader:
    """Turns packets into items; keeps the interned names and the tracks."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.args: dict[int, str] = {}
        self.tracks: dict[int, str] = {}

    def items(self, packet: bytes) -> Iterator[Item]:
        ts = 0
        event = None
        for field, value in _fields(packet):
            if field == _TIMESTAMP:
                ts = value
            elif field == _INTERNED:
                self._intern(value)
            elif field == _DESCRIPTOR:
                yield from self._descriptor(value)
            elif field == _TRACK_EVENT:
                event = value
        if event is not None:
            yield self._event(ts, event)

    def _intern(self, data: bytes) -> None:
        for field, value in _fields(data):
            fields = dict(_fields(value))
            (self.names if field == _EVENT_NAMES else self.args)[fields[_IID]] = fields[_INTERNED_NAME].decode()

    def _descriptor(self, data: bytes) -> Iterator[Item]:
        fields = dict(_fields(data))
        track, name = fields[_UUID], fields[_NAME].decode()
        if track in self.tracks:
            raise ValueError(f"track {track} is described twice")
        self.tracks[track] = name
        if track != _ROOT and _COUNTER not in fields:
            yield Item("track", 0, track, name, {})

    def _event(self, ts: int, data: bytes) -> Item:
        fields: dict[int, Any] = {}
        args: dict[str, Any] = {}
        for field, value in _fields(data):
            if field == _ANNOTATION:
                name, held = self._annotation(value)
                args[name] = held
            else:
                fields[field] = value
        kind, track = _KINDS[fields[_TYPE]], fields[_TRACK]
        if kind == "counter":
            return Item(kind, ts, 0, self.tracks[track], {}, _signed(fields[_VALUE]))
        if track not in self.tracks:
            raise ValueError(f"track {track} is used before it is described")
        return Item(kind, ts, track, self.names[fields[_NAME_IID]], args["return"] if kind == "end" else args)

    def _annotation(self, data: bytes) -> tuple[str, Any]:
        name = ""
        held: Any = None
        entries: dict[str, Any] = {}
        for field, value in _fields(data):
            if field == _ANNOTATION_NAME:
                name = self.args[value]
            elif field == _DICT:
                inner, inside = self._annotation(value)
                entries[inner] = inside
            else:
                held = value.decode() if field == _STRING else _signed(value) if field == _INT else value
        return name, entries if held is None else held


def read(file: BinaryIO, name: str) -> Iterator[Item]:
    """Yield the items of a file that :func:`write` made; of a counter's track nothing is known but its name.

    :raises BadInput: at a packet that it did not write
    """
    reader = _Reader()
    offset = 0
    while head := file.read(1):
        try:
            if head[0] != _PACKET << 3 | 2:
                raise ValueError("a packet does not begin here")
            size = file.read(1)
            while size and size[-1] & 0x80 and len(size) < 4:
                size += file.read(1)
            length, _ = _take(size, 0)
            if length > _MAX_PACKET:
                raise ValueError("the packet is absurdly large")
            packet = file.read(length)
            if len(packet) != length:
                raise ValueError("the packet is cut short")
            items = list(reader.items(packet))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as problem:
            raise BadInput(name, f"offset {offset}", f"is not a packet of an export ({type(problem).__name__}: "
                           f"{problem})", _AGAIN) from None
        yield from items
        offset += 1 + len(size) + length
