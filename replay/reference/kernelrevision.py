# SPDX-License-Identifier: GPL-2.0-or-later
"""Which shipped revision mirrors a recorded kernel: by its line, and by the patches that it was built with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.revisions import revision_for_line, revision_for_patches
from traces.record.release import kernel_line

__all__ = ["revision_of_kernel"]


def revision_of_kernel(kernel: Mapping[str, Any]) -> str | None:
    """Return the revision's name, None where none mirrors the kernel.

    A kernel that ``zreplay lab build`` built with a posting's patches, by their Message-IDs, is the posting's.

    :param kernel: of a recording's manifest
    """
    line, build = kernel_line(kernel), kernel.get("build")
    patches = build.get("patches") if isinstance(build, dict) else None
    named = {str(patch.get("message_id")).strip("<> ") for patch in patches if isinstance(patch, dict)} \
        if isinstance(patches, list) else set()
    return revision_for_patches(line, named) or revision_for_line(line)
