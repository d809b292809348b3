# SPDX-License-Identifier: GPL-2.0-or-later
"""Revisions: one behaviour each to hold a kernel against.

A revision is a subclass of :class:`model.zswap.Zswap` that overrides the steps in which its kernel line or
posting differs, and says what it mirrors.  :data:`REVISIONS` names those that ship; a user's own is loaded
by the command line from a Python file.
"""

from __future__ import annotations

import re

from model.revisions.mainline_6_12 import Mainline612
from model.revisions.mainline_6_18 import Mainline618
from model.revisions.mainline_7 import Mainline70, Mainline71, Mainline72, Mainline73
from model.revisions.sg_read import SgRead
from model.revisions.v6 import V6
from model.revisions.v8 import V8
from model.revisions.v12 import V12, V12Patch22
from model.revisions.v14 import V14, V14Meant, V14On73, V14Patch25
from model.zswap import Zswap

__all__ = ["MAINLINE", "POSTED", "REVISIONS", "revision_for_release"]

#: kernel lines
MAINLINE: dict[str, type[Zswap]] = {
    "mainline-6.12": Mainline612,
    "mainline-6.18": Mainline618,
    "mainline-7.0": Mainline70,
    "mainline-7.1": Mainline71,
    "mainline-7.2": Mainline72,
    "mainline-7.3": Mainline73,
}
#: posted series, as posted where the name says nothing else
POSTED: dict[str, type[Zswap]] = {
    "v6": V6,
    "v8": V8,
    "v12-22": V12Patch22,
    "v12": V12,
    "v14-25": V14Patch25,
    "v14": V14,
    "v14-meant": V14Meant,
    "v14-on-7.3": V14On73,
    "sg-read": SgRead,
}
REVISIONS: dict[str, type[Zswap]] = MAINLINE | POSTED

_RELEASE = re.compile(r"^(\d+)\.(\d+)")


def revision_for_release(release: str) -> str | None:
    """Return the shipped revision that mirrors a kernel release (``uname -r``), or None."""
    match = _RELEASE.match(release)
    if match is None:
        return None
    name = f"mainline-{match[1]}.{match[2]}"
    return name if name in MAINLINE else None
