# SPDX-License-Identifier: GPL-2.0-or-later
"""Which layout the object words of a recording have: its own words say, its kernel's release where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from model.lines import line_of
from model.zsmalloc import HANDLE_SIZE, get_size_class_index, size_classes
from traces.objectword import NEW, OLD, ObjectLayout, layout_of
from traces.record.release import kernel_line
from traces.recording import Recording
from traces.schema import CODE

if TYPE_CHECKING:
    from replay.reference.engine import Engine

__all__ = ["layout_note", "layout_of_line", "recorded_layout", "set_layout"]

#: This many allocations decide it; the rest is compared one by one.
_ENOUGH: Final = 4096
_ERR_PTR: Final = (1 << 64) - 4095
#: struct zspage's first word: huge (1 bit), fullness (4 bits), class (9 bits)
_CLASS_AT: Final = 5
_CLASS_MASK: Final = (1 << 9) - 1


def layout_of_line(number: tuple[int, int] | None) -> ObjectLayout:
    """Return x86-64's layout of a kernel (major, minor); of one that is not known, the older."""
    line = line_of(number)
    return NEW if line is not None and line.object_class_bits == NEW.class_bits else OLD


def recorded_layout(recording: Recording, chain_size: int) -> ObjectLayout | None:
    """Return the layout that the recorded object words have, None where none shows it.

    The class next to a word is the zspage's own where that was read, else the one that serves the object's size.

    :param chain_size: CONFIG_ZSMALLOC_CHAIN_SIZE
    """
    columns = {name: set(probe.get("columns", ())) for name, probe in recording.manifest["probes"].items()}
    if columns.get("obj_malloc_ret", set()) >= {"obj", "word"}:
        wanted = "obj_malloc_ret"
    elif columns.get("zs_malloc_ret", set()) >= {"obj", "size", "handle"}:
        wanted = "zs_malloc_ret"
    else:
        return None
    of_class = np.array([geometry.index for geometry in size_classes(chain_size)], np.int64)
    words: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    seen = 0
    for _, batch in recording.batches(["event", "obj", "word", "size", "handle"]):
        here = batch["event"] == CODE[wanted]
        if wanted == "zs_malloc_ret":
            here &= batch["handle"].view(np.uint64) < np.uint64(_ERR_PTR)
            raw = [get_size_class_index(int(size) + HANDLE_SIZE) for size in batch["size"][here]]
            index = of_class[np.array(raw, np.int64)]
        else:
            index = batch["word"][here].astype(np.int64) >> _CLASS_AT & _CLASS_MASK
        words.append(batch["obj"][here].astype(np.uint64))
        classes.append(index)
        seen += int(np.count_nonzero(index))
        if seen >= _ENOUGH:
            break
    return layout_of(np.concatenate(words), np.concatenate(classes)) if words else None


def set_layout(engine: Engine, recording: Recording, kept: object = None) -> None:
    """Set how an engine reads object words, and note where the kernel's release says otherwise.

    :param kept: ``object_layout`` of a cut's state, which speaks where the cut's own words do not
    """
    line = kernel_line(recording.manifest["kernel"])
    found = recorded_layout(recording, engine.state.model.chain_size)
    if found is None and isinstance(kept, list) and len(kept) == 2 and all(type(bits) is int for bits in kept):
        found = ObjectLayout(*kept)
    expected = layout_of_line(line)
    engine.state.idx_bits, engine.state.class_bits = found or expected
    if found is not None and line is not None and found != expected:
        engine.start_notes.append(layout_note(found, line))


def layout_note(found: ObjectLayout, line: tuple[int, int]) -> str:
    """Return what to say of object words that are not laid out as those of their kernel line (major, minor)."""
    expected = layout_of_line(line)
    return (f"object words hold {_bits(found)}, where Linux {line[0]}.{line[1]} has {_bits(expected)}: they are read "
            f"as they are")


def _bits(layout: ObjectLayout) -> str:
    return f"{layout.class_bits} bits of class and {layout.idx_bits} of index" if layout.class_bits else \
        f"no class and {layout.idx_bits} bits of index"
