# SPDX-License-Identifier: GPL-2.0-or-later
"""Which shipped revision mirrors a recorded kernel: by its line, and by the patches that it was built with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.revisions import SERIES, message_id, revision_for_line, revision_for_patches
from traces.record.release import kernel_line

__all__ = ["posting_note", "revision_of_kernel"]


def _named(kernel: Mapping[str, Any]) -> set[str]:
    """Return the Message-IDs of the patches that a kernel was built with, and of those that ports among them carry."""
    build = kernel.get("build")
    patches = build.get("patches") if isinstance(build, dict) else None
    named = set()
    for patch in patches if isinstance(patches, list) else ():
        if isinstance(patch, dict):
            carries = patch.get("carries")
            named |= {str(patch.get("message_id")), *(map(str, carries) if isinstance(carries, list) else ())}
    return {each.strip("<> ") for each in named}


def revision_of_kernel(kernel: Mapping[str, Any]) -> str | None:
    """Return the revision's name, None where none mirrors the kernel.

    A kernel that ``zreplay lab build`` built with a posting's patches, by their Message-IDs, or with a port that names
    them, is the posting's.

    :param kernel: of a recording's manifest
    """
    line, named = kernel_line(kernel), _named(kernel)
    return revision_for_patches(line, named) or revision_for_line(line)


def posting_note(kernel: Mapping[str, Any], revision: str) -> str:
    """Return a sentence where a kernel was built with mails of a posting that the revision is not of, else ``""``."""
    named = _named(kernel)
    for name, (_, *steps) in SERIES.items():
        series = message_id(steps[-1]).rpartition("@")[0].partition("-")[0]
        mails = sum(each.startswith(f"{series}-") for each in named)
        if mails and not revision.startswith(name):
            return (f"the kernel was built with {mails} mails of {name}: name its revision with --revision where it is "
                    f"not {revision}")
    return ""
