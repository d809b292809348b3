# SPDX-License-Identifier: GPL-2.0-or-later
"""Which compressor wrote the recorded objects, by their first bytes, against the one that the recording names.

A name is only what a parameter said: another module may register under that name, and a recording may have been
imported under the wrong one.  Lengths that another compressor gave say nothing about the kernel.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from model.crypto.recognize import RECOGNISED, begins_as, fixed_block
from replay.reference.predictions import Predictions
from traces.events import PAGE_SIZE
from traces.recording import Recording
from traces.schema import CODE

__all__ = ["RecordedHeads", "judge", "written"]

_HEAD: Final = 8
#: As many of a hundred objects may be odd ones before it is the compressor that is another.
_ODD_PERCENT: Final = 2
_IAA: Final = "deflate-iaa"


class RecordedHeads(NamedTuple):
    """What the recorded objects begin with.

    ``objects``: compressed ones whose first 8 bytes were recorded; ``unlike``: those that none of the recording's
    compressors begins so; ``first``: the first of these (event number, -1 for none); ``like``: other compressors that
    may have written (nearly) all; ``fixed``: how many begin with the one block of IAA's fixed mode.
    """

    objects: int
    unlike: int
    first: int
    like: tuple[str, ...]
    fixed: int


def written(recording: Recording, names: set[str]) -> RecordedHeads | None:
    """Look at every object written; None where their first bytes were not recorded, or show nothing.

    :param names: the compressors that were in use, the one at the start and those that were switched to
    """
    columns = recording.manifest["probes"].get("zs_obj_write", {}).get("columns", ())
    if not {"data", "size"} <= set(columns) or not names <= RECOGNISED.keys():
        return None
    counts = dict.fromkeys(RECOGNISED, 0)
    objects = unlike = fixed = 0
    first = -1
    for base, batch in recording.batches(["event", "size", "data"], rows=1 << 18):
        size = batch["size"]
        # A page that did not become smaller is kept as it is.
        rows = np.flatnonzero((batch["event"] == CODE["zs_obj_write"]) & (size >= _HEAD) & (size < PAGE_SIZE))
        if not rows.size:
            continue
        heads = batch["data"][rows].view(np.uint64)
        fits = {name: begins_as(name, heads) for name in RECOGNISED}
        for name, which in fits.items():
            counts[name] += int(np.count_nonzero(which))
        odd = np.flatnonzero(~np.logical_or.reduce([fits[name] for name in names]))
        first = base + int(rows[odd[0]]) if first < 0 and odd.size else first
        objects += rows.size
        unlike += odd.size
        fixed += int(np.count_nonzero(fixed_block(heads)))
    # Compressors whose objects begin like one of the names' are not others.
    same = {RECOGNISED[name] for name in names}
    like = tuple(name for name, count in counts.items()
                 if objects and RECOGNISED[name] not in same and 100 * (objects - count) <= _ODD_PERCENT * objects)
    return RecordedHeads(objects, unlike, first, like, fixed) if objects else None


def judge(recording: Recording, predictions: Predictions, names: set[str]) -> tuple[list[str], list[str]]:
    """Return why a replay cannot PASS, and notes; withdraws predictions of a compressor that wrote none of it.

    :param names: as for :func:`written`
    """
    found = written(recording, names)
    if found is None:
        return [], []
    said = " and ".join(sorted(names))
    many = f"{found.unlike:,} of {found.objects:,} objects written"
    if found.unlike and (2 * found.unlike > found.objects or found.like):
        seems = f"they begin as {_listed(found.like)}'s do" if found.like else "nor as any of the kernel's"
        reason = f"{many} do not begin as {said}'s ({seems}): the first at event {found.first}"
        for name in names:
            predictions.withdraw(name, f"the objects were not written by {said}")
        return [f"{reason}; lengths were taken from the recording"], []
    reasons = [f"{many} do not begin as {said}'s, the first at event {found.first}"] if found.unlike else []
    odd = found.objects - found.unlike - found.fixed
    if names != {_IAA} or not odd:
        return reasons, []
    if 100 * odd <= _ODD_PERCENT * found.objects:
        return [*reasons, f"{odd:,} of {found.objects:,} objects written do not begin with the fixed block that "
                          f"{_IAA} writes"], []
    why = (f"{odd:,} of {found.objects:,} objects begin with another block than the fixed one of IAA's hardware: "
           f"another compressor stands in for {_IAA}")
    predictions.inexact[_IAA] = predictions.played = why
    return reasons, [f"{why}, its lengths are not checked"]


def _listed(names: tuple[str, ...]) -> str:
    # A format that fits almost any bytes shows less than one with a mark of its own.
    return " or ".join(names[:2])
