# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's exceptions: it cannot begin, or its guest died."""

from __future__ import annotations

__all__ = ["GuestDied", "LabError"]


class LabError(RuntimeError):
    """The lab cannot do what was asked: one sentence, with what to do next."""


class GuestDied(RuntimeError):
    """The guest panicked, hung or could not finish.

    :param what: how it ended, in a sentence without its final stop
    :param console: the last lines of its console
    :param kept: where the files that reached the host are, in words; empty when none did
    """

    def __init__(self, what: str, console: str, kept: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.console = console
        self.kept = kept
