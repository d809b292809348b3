# SPDX-License-Identifier: GPL-2.0-or-later
"""The name of a kernel (``uname -r``), parsed in this one place.

Every distribution has its own form: ``6.12.107+deb13-amd64``, ``7.3-amd64``, ``7.3.4-200.fc45.x86_64``,
``6.8.0-45-generic``, ``7.1.arch1-1``, ``6.12.23-android16-5-g1234-ab567``, ``7.3-rc7``, ``7.3+``.  They begin alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Line", "kernel_line", "release_line"]

#: (major, minor): Linux 7.3 is (7, 3)
Line = tuple[int, int]

# VERSION.PATCHLEVEL, then what a Makefile, a configuration and a package add.  Without a bound on the digits a date
# would be a kernel.
_RELEASE = re.compile(r"([1-9][0-9]?)\.(0|[1-9][0-9]{0,2})(?:[^0-9\s]\S{0,119})?")


def release_line(release: object) -> Line | None:
    """Return (major, minor) of a kernel's release or version, or None where the text does not name a kernel."""
    found = _RELEASE.fullmatch(release) if isinstance(release, str) else None
    return (int(found[1]), int(found[2])) if found is not None else None


def kernel_line(kernel: Mapping[str, Any]) -> Line | None:
    """Return (major, minor) of the kernel that a manifest describes, None where it says none.

    The configuration's version takes precedence over the release: a package may give its kernel any name.
    """
    lines = (release_line(kernel.get("version")), release_line(kernel.get("release")))
    return next((line for line in lines if line is not None), None)
