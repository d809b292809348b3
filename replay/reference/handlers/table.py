# SPDX-License-Identifier: GPL-2.0-or-later
"""Which handler an effect has: the method ``on_NAME`` of one of the parts, or a comparison of its event's row alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from model.effects import Effect
from replay.reference.comparer import Comparer, Handler
from replay.reference.frame import Frame
from traces.events import EFFECTS, EVENTS

__all__ = ["handler_table", "handlers_of"]

_PREFIX: Final = "on_"


def handlers_of(part: object) -> list[str]:
    """Return the events that a part, or a part's class, has a handler of its own for."""
    return [name.removeprefix(_PREFIX) for name in dir(part) if name.startswith(_PREFIX)]


def handler_table(parts: Iterable[object], comparer: Comparer) -> dict[str, Handler]:
    """Return the handler of each effect.

    :param parts: objects whose methods ``on_NAME`` handle the effect NAME
    :param comparer: makes the comparisons of effects that are only compared (:data:`traces.events.EVENTS`)
    :raises TypeError: where two parts handle one event, or one handles what is not an effect
    """
    table: dict[str, Handler] = {}
    for part in parts:
        for name in handlers_of(part):
            if name in table or name not in EFFECTS:
                raise TypeError(f"{type(part).__name__}.{_PREFIX}{name}: " + (
                    "another part handles this event" if name in table else "there is no such effect"))
            table[name] = getattr(part, _PREFIX + name)
    compared = {event.name for event in EVENTS if any(row.predicted for row in event.compared)}
    return {name: table.get(name) or (comparer.comparing(name) if name in compared else _begins) for name in EFFECTS}


def _begins(effect: Effect, i: int, frame: Frame) -> None:
    """The beginning of an operation has nothing to compare: it is what the model is given."""
