# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 6.18: loads outside the swap cache keep their entry; objects are read linearly."""

from __future__ import annotations

from model.lines import LINES, mirroring
from model.zswap import Zswap

__all__ = ["Mainline618"]


@mirroring(LINES["6.18"])
class Mainline618(Zswap):
    """Linux 6.18.15: zswap_load() frees the entry only when it read into the swap cache."""


REVISIONS = {"mainline-6.18": Mainline618}
