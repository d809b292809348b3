# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's knobs: read, changed, and put back as they were found."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["PARAMETERS", "THP", "WorkloadBox", "NotReady"]

PARAMETERS: Final = "sys/module/zswap/parameters"
THP: Final = "sys/kernel/mm/transparent_hugepage"
CGROUPS: Final = "sys/fs/cgroup"


class NotReady(RuntimeError):
    """The box is not set up for what was asked: one sentence, with what to do."""


class WorkloadBox:
    """Files of a running kernel below ``root``, a directory that tests replace.

    Each setting's first value is kept, and :meth:`restore` writes it back.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._before: dict[str, str] = {}
        self._made: list[Path] = []

    def read(self, name: str, default: str = "") -> str:
        """Return a file's text without space at its ends; ``default`` where it does not exist."""
        try:
            return (self.root / name).read_text().strip()
        except OSError:
            return default

    def write(self, name: str, value: str | int) -> None:
        """Write a file that is not a setting, such as ``drop_caches``.

        :raises OSError: as the kernel answers it
        """
        # Unbuffered and without O_TRUNC or O_CREAT, as a shell's echo would be: one write() is one change.
        handle = os.open(self.root / name, os.O_WRONLY)
        try:
            os.write(handle, str(value).encode())
        finally:
            os.close(handle)

    def set(self, name: str, value: str | int) -> None:
        """Change a setting.

        :raises OSError: as the kernel answers it; the setting is as it was then
        """
        if name not in self._before:
            self._before[name] = _chosen(self.read(name))
        self.write(name, value)

    def restore(self, announce: Callable[[str, str], None] | None = None) -> list[str]:
        """Put every setting back, the last changed first, and return a sentence for each that failed.

        :param announce: called with file and value before each write
        """
        problems = []
        for name, value in reversed(list(self._before.items())):
            if _chosen(self.read(name)) == value:
                continue
            try:
                if announce is not None:
                    announce(name, value)
                self.write(name, value)
            except OSError as problem:
                problems.append(f"/{name} could not be set back to '{value}' ({problem.strerror}); write that there "
                                "yourself")
        self._before.clear()
        for path in reversed(self._made):
            try:
                path.rmdir()
            except OSError as problem:
                problems.append(f"{path} could not be removed ({problem.strerror}); remove it when nothing runs in it")
        self._made.clear()
        return problems

    def cgroup(self, name: str) -> None:
        """Make sure that a cgroup of this name has the memory controller; one made here is removed by :meth:`restore`.

        :raises NotReady: when the box has no cgroup2 hierarchy, or lets none be made
        """
        path = self.root / name
        if path.is_dir():
            return
        controllers = f"{Path(name).parent}/cgroup.subtree_control"
        try:
            if "memory" not in self.read(controllers).split():
                self.write(controllers, "+memory")
            path.mkdir()
        except OSError as problem:
            raise NotReady(f"{path} cannot be made ({problem.strerror}): run as root on a box with cgroup2 mounted "
                           "at /sys/fs/cgroup, or name a cgroup with --cgroup") from None
        self._made.append(path)

    def swap_again(self) -> None:
        """Take the first swap device off, which brings all its pages back, and put it on again.

        :raises OSError: as the kernel answers it; the device is on then
        """
        device = self.read("proc/swaps").splitlines()[1].split()[0]
        self._swap("swapoff", device)
        self._swap("swapon", device)

    def _swap(self, call: str, device: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        path = os.fsencode(device)
        if libc.swapoff(path) if call == "swapoff" else libc.swapon(path, 0):
            problem = ctypes.get_errno()
            raise OSError(problem, os.strerror(problem), device)

    def check(self, marker: bool) -> None:
        """Find out whether zswap can be driven here.

        :param marker: whether a recorder listens
        :raises NotReady: when not, and what to do
        """
        enabled = self.read(f"{PARAMETERS}/enabled")
        if not enabled:
            raise NotReady("this kernel has no zswap; boot one with CONFIG_ZSWAP=y")
        if enabled != "Y":
            when = " before the recording starts" if marker else ""
            raise NotReady(f"zswap is off: echo Y > /{PARAMETERS}/enabled{when}")
        if len(self.read("proc/swaps").splitlines()) < 2:
            raise NotReady("there is no swap: mkswap and swapon a spare disk or file")

    def folio(self, size: int) -> None:
        """Make anonymous folios of ``size`` bytes the ones that ``madvise`` gives.

        :raises NotReady: when this kernel has no such folios
        """
        if size <= 4096:
            return  # asked for by madvise alone
        wanted = f"hugepages-{size >> 10}kB"
        sizes = sorted(path.parent.name for path in (self.root / THP).glob("hugepages-*kB/enabled"))
        if wanted not in sizes:
            have = ", ".join(name.removeprefix("hugepages-") for name in sizes) or "none"
            raise NotReady(f"this kernel has no folios of {size >> 10} kB (it has: {have}); name another size with "
                           "--folio: large ones need Linux 6.8 and CONFIG_TRANSPARENT_HUGEPAGE")
        for name in sizes:
            # The kernel would use a larger size first if it stayed enabled.
            self.set(f"{THP}/{name}/enabled", "madvise" if name == wanted else "never")


def _chosen(text: str) -> str:
    """Return the text to write to restore a setting from what it reads now: ``[a] b`` is a choice of ``a``."""
    choice = re.search(r"\[([^]]*)\]", text)
    return choice[1] if choice else text
