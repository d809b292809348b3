# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 7.0 to 7.3: :class:`model.zswap.Zswap` is 7.3; the older ones differ in what :mod:`model.lines` says."""

from __future__ import annotations

from model.lines import LINES, mirroring
from model.zswap import Zswap

__all__ = ["Mainline70", "Mainline71", "Mainline72", "Mainline73"]


@mirroring(LINES["7.3"])
class Mainline73(Zswap):
    """Linux 7.3-rc7: shrink_memcg() looks at 32 entries per node; zs_free() returns pages unlocked."""


@mirroring(LINES["7.2"])
class Mainline72(Zswap):
    """Linux 7.2.13: shrink_memcg() looks at one entry per node."""


@mirroring(LINES["7.1"])
class Mainline71(Zswap):
    """Linux 7.1.13: writeback does not distinguish a freed slot from lack of memory."""


@mirroring(LINES["7.0"])
class Mainline70(Zswap):
    """Linux 7.0.13: the root cgroup's folios have no obj_cgroup, incompressible pages are not charged apart."""


REVISIONS = {"mainline-7.0": Mainline70, "mainline-7.1": Mainline71, "mainline-7.2": Mainline72,
             "mainline-7.3": Mainline73}
