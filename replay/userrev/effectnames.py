# SPDX-License-Identifier: GPL-2.0-or-later
"""Which effects there are, and how many items each has: what a revision may yield.

Names are those of the table of events (:data:`traces.events.EFFECTS`), the questions
(:data:`model.effects.DEFAULTS`) and what no probe sees (:data:`model.effects.UNSEEN`).  How many items an effect has is
read out of the steps that yield it, the shipped model's.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Any

import model
from model.effects import DEFAULTS, UNSEEN
from traces.events import EFFECTS
from traces.suggestion import meant

__all__ = ["known_effects", "shipped_sizes", "short", "wrong_by", "wrong_with"]


@functools.cache
def shipped_sizes() -> dict[str, frozenset[int]]:
    """Return the name of each effect that the shipped steps yield -> how many items it has, its name counted.

    Empty where an effect is not written out in one piece: nothing is known of its size then.
    """
    root = Path(model.__file__).parent
    found: dict[str, set[int]] = {}
    loose: set[str] = set()
    for file in (*root.glob("*.py"), *(root / "revisions").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not (isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple) and node.value.elts):
                continue
            name, *items = node.value.elts
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                found.setdefault(name.value, set()).add(1 + len(items))
                if any(isinstance(item, ast.Starred) for item in items):
                    loose.add(name.value)
    return {name: frozenset() if name in loose else frozenset(sizes) for name, sizes in found.items()}


@functools.cache
def known_effects() -> dict[str, frozenset[int]]:
    """Return every effect that there is -> how many items it may have (empty: not known), its name counted."""
    names = {*EFFECTS, *DEFAULTS, *UNSEEN}
    return {name: shipped_sizes().get(name, frozenset()) for name in names}


def wrong_with(effect: Any) -> str:
    """Return what is wrong with what a step has yielded, ``""`` where nothing is."""
    if not isinstance(effect, tuple) or not effect or not isinstance(effect[0], str):
        return f"yields {short(effect)}, which is not an effect: a tuple that begins with a name"
    return wrong_by(effect[0], len(effect))


def wrong_by(name: str, size: int | None) -> str:
    """Return what is wrong with an effect of that name and ``size`` items (None: not known), ``""`` for nothing."""
    known = known_effects()
    if name not in known:
        kind = "question" if name.startswith("?") else "effect"
        return f"yields the unknown {kind} '{name}'{meant(name, known)}"
    sizes = known[name]
    if sizes and size is not None and size not in sizes:
        wanted = " or ".join(str(each) for each in sorted(sizes))
        return f"yields '{name}' with {size} items, name included, where it has {wanted}"
    return ""


def short(value: Any) -> str:
    """Return a foreign value in few words; its own ``__repr__`` may fail."""
    try:
        text = repr(value)
    except Exception:
        text = f"something of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
