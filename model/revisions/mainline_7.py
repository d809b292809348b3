# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 7.0 to 7.3: :class:`model.zswap.Zswap` is 7.3; the older ones differ in few steps."""

from __future__ import annotations

from model import errno
from model.zswap import Zswap

__all__ = ["Mainline70", "Mainline71", "Mainline72", "Mainline73"]


class Mainline73(Zswap):
    """Linux 7.3-rc7: shrink_memcg() looks at 32 entries per node; zs_free() returns pages unlocked."""

    mirrors = "Linux 7.3-rc7 mm/zswap.c, mm/zsmalloc.c"


class Mainline72(Zswap):
    """Linux 7.2.13: shrink_memcg() looks at one entry per node."""

    mirrors = "Linux 7.2.13 mm/zswap.c, mm/zsmalloc.c"
    kernel_line = "mainline-7.2"
    crypto_layer = "7.2"
    SHRINK_BUDGET = 1


class Mainline71(Mainline72):
    """Linux 7.1.13: writeback cannot tell a freed slot from lack of memory."""

    mirrors = "Linux 7.1.13 mm/zswap.c, mm/zsmalloc.c"
    #: compressors change less often than zswap
    kernel_line = "mainline-7.0"
    crypto_layer = "7.1"

    def _alloc_failure(self, failure: int) -> int:
        return failure if failure == errno.EEXIST else errno.ENOMEM


class Mainline70(Mainline71):
    """Linux 7.0.13: the root cgroup's folios have no obj_cgroup, incompressible pages are not charged apart."""

    mirrors = "Linux 7.0.13 mm/zswap.c, mm/zsmalloc.c"
    kernel_line = "mainline-7.0"
    crypto_layer = "7.0"
    ROOT_OBJCG = False


REVISIONS = {"mainline-7.0": Mainline70, "mainline-7.1": Mainline71, "mainline-7.2": Mainline72,
             "mainline-7.3": Mainline73}
