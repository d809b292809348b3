# SPDX-License-Identifier: GPL-2.0-or-later
"""What the running kernel is: its symbols, its types, its configuration, and whether it can be recorded at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import struct
from pathlib import Path
from typing import Any

from .btf import Btf
from .errors import CannotRecord
from .oserrors import next_step, what_happened
from .plan import ProbedKernel, wanted_names

__all__ = ["Box"]

#: Variables whose addresses a recording keeps: by the LRU a replay picks zswap's list_lru calls out of all others.
_ADDRESSES = ("zswap_list_lru", "zswap_stored_pages", "page_offset_base", "vmemmap_base")
#: Variables whose values tie a page's address to its struct page (x86-64; they change with KASLR).
_BASES = ("page_offset_base", "vmemmap_base")
_NT_GNU_BUILD_ID = 3


class Box:
    """The machine the recorder runs on.

    :param root: where proc, sys and boot are; another than ``/`` is for tests
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._functions: set[str] = set()
        self.addresses: dict[str, int] = {}

    def _text(self, path: str) -> str:
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return ""

    def check(self) -> None:
        """Make sure that zswap is there and can be seen.

        :raises CannotRecord: when it cannot be recorded
        """
        if not (self.root / "sys/module/zswap").is_dir():
            raise CannotRecord("this kernel has no zswap", "boot one with CONFIG_ZSWAP=y")
        debug = self.root / "sys/kernel/debug"
        try:
            seen = any(debug.iterdir())
        except PermissionError:
            raise CannotRecord("recording needs root: debugfs is closed to other users", "run it with sudo") from None
        except OSError:
            seen = False
        if not seen:
            raise CannotRecord("debugfs is not mounted, and zswap's counters are there",
                               "mount it (mount -t debugfs nodev /sys/kernel/debug)")

    def kernel(self) -> ProbedKernel:
        """Return what a probe plan is made from.

        :raises CannotRecord: when the kernel's symbols cannot be read
        """
        functions, structs = wanted_names()
        present: set[str] = set()
        try:
            with (self.root / "proc/kallsyms").open() as lines:
                for line in lines:
                    words = line.split(None, 3)
                    if len(words) < 3:
                        continue
                    if words[1] in "tT":
                        present.add(words[2])
                    elif words[2] in _ADDRESSES and len(words) == 3:
                        self.addresses[words[2]] = int(words[0], 16)
        except OSError as problem:
            raise CannotRecord(f"/proc/kallsyms cannot be read ({what_happened(problem)})",
                               next_step(problem.errno, "boot a kernel with CONFIG_KALLSYMS")) from None
        # kptr_restrict shows zeros.
        self.addresses = {name: value for name, value in self.addresses.items() if value}
        traceable = {line.split(None, 1)[0] for line in
                     self._text("sys/kernel/tracing/available_filter_functions").splitlines() if line.strip()}
        btf = None
        # Without it the plan says what it assumes.
        with contextlib.suppress(OSError, ValueError):
            btf = Btf((self.root / "sys/kernel/btf/vmlinux").read_bytes(), functions, structs)
        return ProbedKernel(traceable or None, present, btf)

    def bases(self) -> dict[str, str]:
        """Return where memory and its struct pages are mapped, as hex strings; empty where that cannot be read."""
        found = {}
        for name in _BASES:
            value = self._variable(self.addresses.get(name, 0))
            if value:
                found[name] = f"{value:x}"
        return found if len(found) == len(_BASES) else {}

    def _variable(self, address: int) -> int:
        """Return the u64 at a kernel address, by way of /proc/kcore; 0 where that cannot be read."""
        try:
            with (self.root / "proc/kcore").open("rb", buffering=0) as core:
                head = core.read(64)
                at, = struct.unpack_from("<Q", head, 32)
                size, count = struct.unpack_from("<HH", head, 54)
                for number in range(count):
                    core.seek(at + number * size)
                    kind, _, offset, start, _, length = struct.unpack_from("<IIQQQQ", core.read(56))
                    if kind == 1 and start <= address < start + length:
                        core.seek(offset + address - start)
                        return int(struct.unpack("<Q", core.read(8))[0])
        except (OSError, struct.error, ValueError, OverflowError):
            pass
        return 0

    def release(self) -> str:
        """Return ``uname -r``."""
        return os.uname().release

    def version_text(self) -> str:
        """Return the kernel's banner, as a boot log begins, with the one boot parameter a replay looks for."""
        nokaslr = "nokaslr" in self._text("proc/cmdline").split()
        # The rest of the command line may be confidential.
        return self._text("proc/version") + ("Command line: nokaslr\n" if nokaslr else "")

    def config_text(self) -> str:
        """Return the kernel's configuration, empty where none is found."""
        try:
            return gzip.decompress((self.root / "proc/config.gz").read_bytes()).decode("utf-8", "replace")
        except (OSError, EOFError):
            pass
        release = self.release()
        for path in (f"boot/config-{release}", f"usr/lib/modules/{release}/config", f"lib/modules/{release}/config",
                     f"lib/modules/{release}/build/.config"):
            text = self._text(path)
            if text:
                return text
        return ""

    def build_id(self) -> str:
        """Return the kernel's build id in hex, empty where it has none."""
        try:
            notes = (self.root / "sys/kernel/notes").read_bytes()
        except OSError:
            return ""
        at = 0
        while at + 12 <= len(notes):
            name, size, kind = struct.unpack_from("<III", notes, at)
            start = at + 12 + (name + 3 & ~3)
            if kind == _NT_GNU_BUILD_ID and notes[at + 12:at + 16] == b"GNU\0":
                return notes[start:start + size].hex()
            at = start + (size + 3 & ~3)
        return ""

    def compressors(self) -> list[str]:
        """Return the compressors that zswap may use while recording: the chosen one first."""
        return [name for name in [self._text("sys/module/zswap/parameters/compressor").strip()] if name]

    def facts(self) -> dict[str, Any]:
        """Return other facts of the machine that help to read the recording."""
        huge = {path.name: self._text(str(path.relative_to(self.root))).strip() for path in
                [self.root / "sys/kernel/mm/transparent_hugepage" / name for name in ("enabled", "defrag")]
                if path.exists()}
        for path in sorted((self.root / "sys/kernel/mm/transparent_hugepage").glob("hugepages-*kB/enabled")):
            huge[path.parent.name] = self._text(str(path.relative_to(self.root))).strip()
        node = "sys/devices/system/node"
        # An emulator says so here ("QEMU TCG CPU"): its times are not those of a machine.
        model = re.search(r"^model name\s*:\s*(.*)", self._text("proc/cpuinfo"), re.M)
        return {"release": self.release(), "build_id": self.build_id(), "machine": os.uname().machine,
                "cpu_model": model[1].strip() if model else "",
                "cpus_online": self._text("sys/devices/system/cpu/online").strip(),
                "numa": {**{name: self._text(f"{node}/{name}").strip() for name in ("online", "has_memory")},
                         "cpus": {path.parent.name[4:]: self._text(str(path.relative_to(self.root))).strip()
                                  for path in sorted((self.root / node).glob("node[0-9]*/cpulist"))}},
                "transparent_hugepage": huge,
                "page_cluster": self._text("proc/sys/vm/page-cluster").strip()}

    def memory_kb(self) -> int:
        """Return MemAvailable, KiB; 0 where it is unknown."""
        found = re.search(r"^MemAvailable:\s+(\d+) kB", self._text("proc/meminfo"), re.M)
        return int(found[1]) if found else 0
