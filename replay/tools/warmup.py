# SPDX-License-Identifier: GPL-2.0-or-later
"""Has Numba compile everything that verbs call, so that no later run waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from replay.iaa.compressor import EmulatedDeflateIaa
from replay.verdict.run import replay
from traces import compiling, schema
from traces.importers import import_source
from traces.lab.iaa.guestmemory import GuestMemory
from traces.lab.iaa.operations import DeviceOperations
from traces.recording import Recording

__all__ = ["warm_up"]

#: Events of the capture that is imported: as few as fill some sub-buffers of two CPUs.
_EVENTS = 2_000


def warm_up(samples: list[Path], directory: Path, say: Callable[[str], None] = lambda what: None) -> float:
    """Compile every compressor, the emulated IAA device, readers and writers of rings and recordings.

    :param samples: recordings to read; the first is replayed by the compiled engine
    :param directory: an empty one for scratch files
    :param say: called with what is compiled next
    :return: seconds of compiling what is kept, wall-clock time; 0.0 where it was kept from before
    :raises BadInput: when a sample cannot be read
    """
    from model.crypto import KERNEL_LINES, UnsupportedCompressor, compressor_for
    from model.crypto.libraries import LIBRARIES

    for name in LIBRARIES:
        say(f"compressor {name}")
        try:
            compressor = compressor_for(name, KERNEL_LINES[-1])
        except UnsupportedCompressor:
            # Without Numba there is nothing to compile; 'zreplay doctor' says so.
            continue
        compiling.watch()
        compressor.self_check()
    say("the emulated IAA device")
    DeviceOperations(GuestMemory(), 2).warm()
    # What a replay compiles of it: the source's pages come as a table.
    EmulatedDeflateIaa(KERNEL_LINES[-1]).self_check()
    say("importers")
    _import(directory)
    say("replay")
    for number, sample in enumerate(samples):
        recording = Recording(sample)
        if not number:
            replay(recording, engine="fast")
        # What a column is kept as depends on its values, and every kind of column has a reader of its own.
        for _ in recording.batches(schema.column_names()):
            pass
    return compiling.kept_seconds()


def _import(place: Path) -> None:
    """Import a capture of two CPUs, in a form that each importer of rings knows."""
    from replay.benchmarks.capture import ring_bytes, write_capture, write_tracedat
    from replay.tools.synthetic import cycle

    block = cycle(_EVENTS)
    count = write_capture(place / "raw", block, 1)
    # A second CPU: what merges them is compiled too.
    os.link(place / "raw" / "zmeta.cpu0.raw", place / "raw" / "zmeta.cpu1.raw")
    import_source(place / "raw", place / "raw.zr")
    write_tracedat(place / "trace.dat", ring_bytes(block), count)
    import_source(place / "trace.dat", place / "dat.zr", overrides={"kernel": "7.3.0"})
