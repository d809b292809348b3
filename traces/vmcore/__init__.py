# SPDX-License-Identifier: GPL-2.0-or-later
"""zswap in the memory image of a dead box: an ELF vmcore (kdump, QEMU ``dump-guest-memory``), x86-64.

>>> from traces.vmcore import read_core
>>> image = read_core("core.elf")                                     # doctest: +SKIP
>>> len(image.entries), image.stored_pages                            # doctest: +SKIP

The core's content is returned as it is, also where it contradicts itself: :mod:`replay.tools.vmcore` judges.  Structure
layouts come from the kernel's BTF, symbols from its kallsyms; both are in the core itself when it has a
VMCOREINFO note with them (Linux 6.0 and later).

The layouts are read by :mod:`traces.vmcore.btf` and not by drgn: drgn 0.3.0 from PyPI opens such a core, but
found neither its structures nor its symbols without DWARF, which is a gigabyte that is rarely kept with a dead
box's core, while distribution kernels carry their BTF.
"""

from __future__ import annotations

from traces.vmcore.image import CoreImage, read_core
from traces.vmcore.zsmalloc import ZsObjectImage, ZspageImage, ZsPoolImage
from traces.vmcore.zswap import EntryImage, PoolImage

__all__ = ["CoreImage", "EntryImage", "PoolImage", "ZsObjectImage", "ZsPoolImage", "ZspageImage", "read_core"]
