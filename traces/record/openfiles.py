# SPDX-License-Identifier: GPL-2.0-or-later
"""How many files a process may have open: a box of a thousand CPUs has a thousand rings, and a file for each."""

from __future__ import annotations

import contextlib
import resource

from .errors import CannotRecord

__all__ = ["allow", "back_to"]

#: Files that one process has open in addition to the rings and their files.
_BESIDE = 256


def allow(wanted: int, needed: int, what: str) -> tuple[int, int]:
    """Raise the limit on open files (RLIMIT_NOFILE) where it is too low; returns the limits there were.

    :param wanted: files that may be open at once, in addition to a few that any process has
    :param needed: those of them that the recorder cannot do without
    :param what: whose files they are, for the message
    :raises CannotRecord: when not even the needed ones may be opened
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (wanted + _BESIDE, needed + _BESIDE):
        soft, hard = before
        if soft == resource.RLIM_INFINITY or soft >= most:
            return before
        # Only root may have more than the hard limit, and no more than fs.nr_open.
        for limits in ((most, max(hard, most) if hard != resource.RLIM_INFINITY else hard),
                       *(((most, hard),) if hard == resource.RLIM_INFINITY or most <= hard else ())):
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            except (OSError, ValueError):
                continue
            return before
    raise CannotRecord(f"{what} take {needed + _BESIDE:,} open files, and no more than {before[1]:,} are allowed",
                       "allow more (ulimit -Hn, LimitNOFILE= of a systemd service, or sysctl fs.nr_open)")


def back_to(limits: tuple[int, int]) -> None:
    """Set the limits on open files as they were, where that is possible."""
    # Only root may raise hard limits; open files stay open in any case.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
