# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording shows of its kernel by its probes and counters, next to what its release says.

A release is only a name: with backported patches, or between two releases, a kernel may have another line's code.
Which kernel functions could be probed, and which counters it has, no name can hide; how the words of its objects are
laid out is in :mod:`replay.reference.objectwords`.  What a kernel *does* is not evidence here: that is what a replay
judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from model.lines import LINES, KernelLine
from traces.record.release import kernel_line
from traces.recording import Recording

__all__ = ["Evidence", "evidence", "line_hint", "line_notes"]

#: kernel function that reads of objects were recorded at -> what a line has that calls it
_READERS: Final[dict[str, dict[str, object]]] = {
    "zs_map_object": {"MAPS_OBJECTS": True, "SG_READS": False},
    "zs_obj_read_begin": {"MAPS_OBJECTS": False, "SG_READS": False},
    "zs_obj_read_sg_begin": {"MAPS_OBJECTS": False, "SG_READS": True},
}
#: part of a snapshot, counter -> what a line has that has it; one that is missing may not have been read
_COUNTERS: Final[dict[tuple[str, str], dict[str, object]]] = {
    ("zswap_debugfs", "stored_incompressible_pages"): {"HAS_INCOMPRESSIBLE": True},
    ("zswap_debugfs", "decompress_fail"): {"DECOMPRESS_FAILS": True},
    ("memory.stat", "zswap_incomp"): {"ROOT_OBJCG": True},
}


class Evidence(NamedTuple):
    """One thing that a recording shows: ``what`` in words, and the ``fields`` of a line that follow from it."""

    what: str
    fields: dict[str, object]

    def fits(self, line: KernelLine) -> bool:
        """True for a line that has what this shows."""
        return all(getattr(line, name) == value for name, value in self.fields.items())


def evidence(recording: Recording) -> Iterator[Evidence]:
    """Yield what a recording's probes and its first snapshot show."""
    function = str(recording.manifest["probes"].get("zs_obj_read", {}).get("function", "")).removesuffix("%return")
    if function in _READERS:
        yield Evidence(f"objects were read by {function}()", _READERS[function])
    snapshot = recording.snapshot(0) if recording.snapshots else {}
    memcg = snapshot.get("memcg")
    stat = memcg.get("memory.stat", "") if isinstance(memcg, dict) else ""
    names = {"zswap_debugfs": set(snapshot.get("zswap_debugfs") or ()),
             "memory.stat": {line.split(" ")[0] for line in str(stat).splitlines()}}
    for (part, counter), fields in _COUNTERS.items():
        if counter in names[part]:
            yield Evidence(f"there is a counter {counter}", fields)


def line_hint(recording: Recording) -> str:
    """Return in brackets which kernel lines have all that a recording shows; ``""`` where that leaves out none, or all.
    """
    shown = list(evidence(recording))
    names = [name for name, line in LINES.items() if all(each.fits(line) for each in shown)]
    return f" (its probes and counters are those of Linux {', '.join(names)})" if 0 < len(names) < len(LINES) else ""


def line_notes(recording: Recording) -> list[str]:
    """Return what to say where a recording shows another line than its release names; nothing of an unknown release."""
    number = kernel_line(recording.manifest["kernel"])
    line = next((each for each in LINES.values() if each.number == number), None)
    notes = []
    for each in evidence(recording) if line is not None else ():
        if line is not None and not each.fits(line):
            have = ", ".join(name for name, other in LINES.items() if each.fits(other))
            notes.append(f"{each.what}, as in Linux {have}, and the release is one of {line.name}: if another kernel "
                         f"ran, name its revision with --revision")
    return notes
