# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of a synthetic kernel, for the tests of the workload."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from traces.workload import command
from traces.workload.box import PARAMETERS, THP, WorkloadBox

__all__ = ["CGROUP", "FakeBox", "fake_box", "run", "settings"]

CGROUP = "sys/fs/cgroup/rec"
SETTINGS = {f"{PARAMETERS}/enabled": "Y", f"{PARAMETERS}/compressor": "zstd", f"{PARAMETERS}/max_pool_percent": "20",
            f"{PARAMETERS}/accept_threshold_percent": "90", f"{PARAMETERS}/shrinker_enabled": "N",
            f"{CGROUP}/memory.max": "max", f"{CGROUP}/memory.zswap.max": "max", f"{CGROUP}/memory.zswap.writeback": "1",
            f"{THP}/hugepages-64kB/enabled": "always inherit madvise [never]",
            f"{THP}/hugepages-2048kB/enabled": "always [inherit] madvise never",
            "proc/sys/vm/page-cluster": "3"}
OTHERS = {f"{CGROUP}/memory.current": "4096000", f"{CGROUP}/memory.zswap.current": "81920", f"{CGROUP}/cgroup.procs": "",
          "sys/fs/cgroup/cgroup.subtree_control": "memory", "proc/sys/vm/drop_caches": "0",
          "proc/swaps": "Filename Type Size Used Priority\n/dev/vda partition 1 0 -2\n",
          "proc/meminfo": "MemTotal:  102400 kB\n", "proc/vmstat": "zswpout 3\nnr_zone_active_anon 5\n"}


class FakeBox(WorkloadBox):
    """Files as sysfs has them: a write replaces all of the text."""

    def _swap(self, call: str, device: str) -> None:
        """Do nothing: a test leaves the host's swap alone."""

    def write(self, name: str, value: str | int) -> None:
        path = self.root / name
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        if str(value) == "nosuch":
            raise OSError(22, "Invalid argument")
        path.write_text(str(value))


def fake_box(tmp_path: Path) -> FakeBox:
    """Return a box with every setting that a workload touches."""
    for name, text in {**SETTINGS, **OTHERS}.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return FakeBox(tmp_path / "root")


def settings(box: WorkloadBox) -> dict[str, str]:
    """Return all settings as they are."""
    found = {name: box.read(name) for name in SETTINGS}
    # sysfs shows the choice among all; the fake holds what was written.
    return {name: re.sub(r".*\[(\w+)\].*", r"\1", text) for name, text in found.items()}


def run(box: WorkloadBox, tmp_path: Path, *argv: str) -> tuple[int, str]:
    """Run the command; returns its status and the markers, one after the other."""
    marker, capture = tmp_path / "marker", tmp_path / "capture"
    marker.write_text("")
    capture.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = [*argv, "--cgroup", f"/{CGROUP}", "--marker", str(marker), "--capture", str(capture)]
    return command.run(parser.parse_args(words), box), marker.read_text()
