# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the recorded machine is one that is modelled: x86-64, with pages of 4096 bytes.

Any part of a source may say so: the kernel's configuration, release or log, the head of a trace.dat or of perf's
text, the recorder, and the lengths that zswap hands to the compressor.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

import numpy as np

from traces import schema
from traces.block import Block
from traces.errors import BadInput

__all__ = ["OURS", "PageSizes", "check_kernel", "check_machine", "check_page_size", "machine_of"]

#: what kernels and distributions call the machine that is modelled
OURS: Final = ("x86_64", "amd64")
#: what kernels and distributions call other machines, as a word of a release
_OTHERS: Final = (r"arm64|aarch64|armmp|armv\d\w*|riscv64|ppc64le|ppc64el|ppc64|powerpc64le|powerpc64|s390x|loong64|"
                  r"loongarch64|mips64el|mips64|sparc64|i386|i486|i586|i686")
_RELEASE: Final = re.compile(rf"(?:^|[-+_.~])({_OTHERS}|(?<=-)686(?=-pae$|$))(?=$|[-+_.~])")
_COMPILER: Final = re.compile(rf"\b({_OTHERS})-[\w-]*linux")


def machine_of(text: str) -> str:
    """Return the other machine that a release or a boot log's banner names, ``""`` where it names none."""
    found = _COMPILER.search(text) or _RELEASE.search(text)
    return found[1] if found else ""


def check_machine(path: str | os.PathLike[str], where: str, machine: str) -> None:
    """Refuse a machine other than x86-64.

    :raises BadInput: for any other name; ``""`` is not known
    """
    if machine and machine not in OURS:
        raise BadInput(path, where, f"was recorded on {machine[:20]}, which is not modelled", "record on x86-64")


def check_page_size(path: str | os.PathLike[str], where: str, size: int) -> None:
    """Refuse pages of another size than 4096 bytes.

    :raises BadInput: for any other size
    """
    if size != schema.PAGE_SIZE:
        what = f"2^{size.bit_length() - 1}" if size > 0 and not size & (size - 1) else str(size)
        raise BadInput(path, where, f"pages of {what} bytes are not modelled", "record on a kernel with 4 KiB pages")


def check_kernel(path: str | os.PathLike[str], kernel: dict[str, Any], capture: dict[str, Any]) -> None:
    """Refuse a run whose release, banner or recorder names another machine.

    :param kernel: what is known of the kernel
    :param capture: what a recorder says of the run
    :raises BadInput: for a machine other than x86-64
    """
    box = capture.get("box")
    check_machine(path, "the recorder's box", str(box.get("machine") or "") if isinstance(box, dict) else "")
    for key in ("release", "version", "uname"):
        check_machine(path, f"the kernel {str(kernel.get(key))[:60]}", machine_of(str(kernel.get(key) or "")))
    check_machine(path, "the kernel's log", machine_of(str(kernel.get("banner") or "")))


class PageSizes:
    """Looks at the lengths that zswap hands to the compressor: a page at a time for a folio of one page.

    A call of several pages comes from a series that batches them, so only a store of one page shows the page size.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._done = False

    def add(self, block: Block, captured: dict[str, list[str]]) -> None:
        """Look at a block, until one had a call that shows it.

        :raises BadInput: where a page of another size was compressed or decompressed
        """
        if self._done or not captured:
            return
        event, pid = block.event, block.pid
        for name, column in (("crypto_acomp_compress", "size"), ("crypto_acomp_decompress", "dlen")):
            if column not in captured.get(name, ()):
                continue
            rows = np.flatnonzero(event == schema.CODE[name])
            if not rows.size:
                continue
            lengths = block.column(column)[rows]
            self._done = True
            # All calls have one page size; where they differ, some are damaged and the machine is not at fault.
            size = int(lengths[0])
            if size > schema.PAGE_SIZE and not size & (size - 1) and size <= 1 << 16 and (lengths == size).all() \
                    and (name.endswith("decompress") or self._stores_one_page(block, captured, rows, event, pid)):
                check_page_size(self._path, f"{name}() of {size} bytes for one page", size)

    @staticmethod
    def _stores_one_page(block: Block, captured: dict[str, list[str]], rows: np.ndarray, event: np.ndarray,
                         pid: np.ndarray) -> bool:
        if "order" not in captured.get("zswap_store", ()):
            return False
        orders = block.column("order")
        stores = np.flatnonzero(event == schema.CODE["zswap_store"])
        for row in rows[:64].tolist():
            own = stores[(stores < row) & (pid[stores] == pid[row])]
            if own.size and orders[own[-1]] == 0:
                return True
        return False
