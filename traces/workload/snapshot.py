# SPDX-License-Identifier: GPL-2.0-or-later
"""Counter snapshots: ordered from the recorder through its control pipe, or taken here where it offers none."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["NoSnapshot", "asker", "write_snapshot"]

#: Seconds that a recorder may take over a snapshot.
_PATIENCE: Final = 120.0


class NoSnapshot(RuntimeError):
    """The recorder did not take a snapshot that it was asked for."""


def write_snapshot(directory: Path, label: str, cgroup: Path) -> None:
    """Write ``counters-LABEL.json`` with the present counters, as the recorder would.

    :param cgroup: directory of the cgroup whose files are wanted
    """
    # This package is traces.workload, or just workload where it runs from its directory.
    package = (__package__ or "").removesuffix("workload")
    counters: Any = importlib.import_module(f"{package}record.counters")
    handle = os.open(directory / f"counters-{label}.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(counters.snapshot(cgroup), file, indent=1)


def asker(controls: Mapping[Path, Path]) -> Callable[[Path, str, Path], None]:
    """Return a function that has a recorder take snapshots, and awaits each.

    :param controls: capture -> its recorder's control pipe
    """
    def ask(directory: Path, label: str, cgroup: Path) -> None:
        before = len(list(directory.glob(f"counters-*-{label}.json")))
        with controls[directory].open("w") as pipe:
            pipe.write(f"snapshot {label}\n")
        deadline = time.monotonic() + _PATIENCE
        while len(list(directory.glob(f"counters-*-{label}.json"))) == before:
            if time.monotonic() > deadline:
                raise NoSnapshot(f"the recorder took no snapshot '{label}' within {_PATIENCE:.0f} s; see "
                                 "whether it still runs")
            time.sleep(0.01)

    return ask
